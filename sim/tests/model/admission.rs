//! Who is served: token buckets by the plain definition (so many tokens, growing evenly, never more
//! than fit), caps by counting, and the life of each request.

use super::machine::{Counts, Model};
use portolan_core::wire::autonat::{DialBackResponse, DialStatus, Message, ResponseStatus};
use portolan_core::wire::multiaddr::{Decoded, decode};
use portolan_core::{
    Action, Addr, ConnId, DialBackConfig, DialFailure, DialId, Duration, Event, Group, Instant,
    IpScope, PeerId, Protocol, Side, StreamEnd, StreamId, ip_scope,
};
use portolan_sim::facts::{Bench, Shape, Step};
use std::collections::BTreeMap;
use std::net::IpAddr;

const REQUEST: Duration = Duration::from_secs(10);
const STALL: Duration = Duration::from_secs(10);
const UPLOAD: Duration = Duration::from_secs(30);
/// Ten round trips of 20 ms are less than the least, which is 2.5 s; and one second of grace.
const DIAL: Duration = Duration::from_millis(3_500);
const NONCE: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(14);
const LINGER: Duration = Duration::from_secs(5);
/// What is asked for where the lowest number is drawn, bytes.
const DATA: u64 = 30_000;

/// A bucket: its level in parts of a token, and when it was that.
#[derive(Clone, Debug)]
struct Bucket {
    level: u128,
    at: Instant,
}

/// One token, in parts: whatever a limit a minute, its growth in a nanosecond is a whole number.
const TOKEN: u128 = 60_000_000_000;

#[derive(Clone, Debug, PartialEq)]
enum Phase {
    Asked { until: Instant },
    Uploading { pick: Addr, owes: u64, stalled: Instant, until: Instant },
    Dialling { dial: DialId, until: Instant, answer: Instant },
    Delivering { dial: DialId, until: Instant },
    Closing { owes_request: bool, until: Instant },
}

#[derive(Clone, Debug)]
struct Session {
    conn: ConnId,
    peer: PeerId,
    remote: IpAddr,
    half_closed: bool,
    phase: Phase,
}

/// The server as it must be.
#[derive(Clone, Default)]
pub(crate) struct Admission {
    limits: DialBackConfig,
    counts: Counts,
    buckets: BTreeMap<String, Bucket>,
    peers: BTreeMap<ConnId, (PeerId, IpAddr)>,
    own: Vec<Addr>,
    sessions: BTreeMap<StreamId, Session>,
    /// Dials in flight, with the moment at which their slot is free whatever comes.
    flights: BTreeMap<DialId, Instant>,
    landed: BTreeMap<ConnId, DialId>,
    dials: u64,
    /// What must come of the present event.
    due: Vec<String>,
}

impl Model for Admission {
    fn shape() -> Shape {
        Shape::of_requesters()
    }

    fn happened(&mut self, bench: &Bench) -> Result<(), String> {
        if let Some(limits) = &bench.shape().settings.dial_back {
            self.limits = limits.clone();
        }
        for step in bench.steps() {
            self.due.clear();
            self.event(step);
            self.time(step.at);
            let mut is: Vec<String> = step.actions.iter().filter_map(told).collect();
            is.sort();
            self.due.sort();
            if is != self.due {
                return Err(format!(
                    "{:?} must bring {:?}, and brought {is:?}",
                    step.event, self.due
                ));
            }
        }
        Ok(())
    }

    fn compare(&mut self, _: &Bench) -> Result<(), String> {
        Ok(())
    }

    fn counts(&self) -> &Counts {
        &self.counts
    }
}

/// What an order tells of the service; nothing where it is about something else.
fn told(action: &Action) -> Option<String> {
    let request = |stream: &StreamId| {
        (stream.side, stream.protocol) == (Side::Inbound, Protocol::DialRequest)
    };
    match action {
        Action::Send { stream, body } if request(stream) => match Message::decode(body) {
            Ok(Message::DialDataRequest { num_bytes, .. }) => {
                Some(format!("{stream} data {num_bytes}"))
            }
            Ok(Message::DialResponse { status, dial_status, .. }) => {
                Some(format!("{stream} {}", words(status, dial_status)))
            }
            _ => Some(format!("{stream} says nonsense")),
        },
        Action::ResetStream { stream } if request(stream) => Some(format!("{stream} reset")),
        Action::Dial(dial) => Some(format!("{} to {}", dial.dial, dial.addr)),
        Action::OpenStream { conn, stream } if stream.protocol == Protocol::DialBack => {
            Some(format!("nonce on {conn}"))
        }
        Action::Disconnect { conn } => Some(format!("hang up {conn}")),
        _ => None,
    }
}

fn words(status: ResponseStatus, dial_status: DialStatus) -> &'static str {
    match (status, dial_status) {
        (ResponseStatus::Ok, DialStatus::Ok) => "OK OK",
        (ResponseStatus::Ok, DialStatus::DialError) => "OK DIAL_ERROR",
        (ResponseStatus::Ok, DialStatus::DialBackError) => "OK DIAL_BACK_ERROR",
        (ResponseStatus::Rejected, _) => "REJECTED",
        (ResponseStatus::Refused, _) => "REFUSED",
        _ => "INTERNAL",
    }
}

impl Admission {
    fn event(&mut self, step: &Step) {
        let now = step.at;
        match &step.event {
            Event::ListenerOpened { addr, .. } => self.own.push(*addr),
            Event::Connected(facts) => match facts.dial {
                None => {
                    self.peers.insert(facts.conn, (facts.peer, facts.remote.ip));
                }
                Some(dial) => self.connected(now, facts.conn, facts.peer, dial),
            },
            Event::Disconnected { conn } => self.disconnected(now, *conn),
            Event::DialFailed { dial, reason } => {
                self.flights.remove(dial);
                let answer = if *reason == DialFailure::LocalFault {
                    "REFUSED"
                } else {
                    // Every requester came in over the class that is dialled: it was heard from.
                    "OK DIAL_ERROR"
                };
                self.answer_dial(now, *dial, answer);
            }
            Event::StreamOpened { conn, stream } if is_request(*stream) => {
                self.opened(now, *conn, *stream);
            }
            Event::Frame { stream, body } if is_request(*stream) => self.frame(now, *stream, body),
            Event::Frame { stream, body } if stream.protocol == Protocol::DialBack => {
                let taken = *body == DialBackResponse::OK.encode();
                self.delivered(now, *stream, taken);
            }
            Event::StreamClosed { stream, end } if is_request(*stream) => {
                self.closed(*stream, *end);
            }
            Event::StreamClosed { stream, end } if stream.protocol == Protocol::DialBack => {
                self.delivered(now, *stream, *end == StreamEnd::Finished);
            }
            Event::StreamFailed { stream, .. } if stream.protocol == Protocol::DialBack => {
                self.delivered(now, *stream, false);
            }
            _ => {}
        }
    }

    fn opened(&mut self, now: Instant, conn: ConnId, stream: StreamId) {
        let Some((peer, remote)) = self.peers.get(&conn).copied() else { return };
        let of_peer = self.sessions.values().filter(|one| one.peer == peer);
        let open = of_peer.clone().filter(|one| !matches!(one.phase, Phase::Closing { .. }));
        let (open, all) = (open.count(), of_peer.count());
        if all >= 6 {
            self.counts.count("reset: too many streams");
            self.due.push(format!("{stream} reset"));
            return;
        }
        let phase = Phase::Asked { until: now + REQUEST };
        self.sessions.insert(stream, Session { conn, peer, remote, half_closed: false, phase });
        if open >= 2 {
            self.counts.count("rejected: busy");
            self.answer(now, stream, "REJECTED", true);
        }
    }

    fn frame(&mut self, now: Instant, stream: StreamId, body: &bytes::Bytes) {
        let Some(session) = self.sessions.get_mut(&stream) else { return };
        match (&mut session.phase, Message::decode(body)) {
            (Phase::Closing { owes_request: owes @ true, .. }, _) => *owes = false,
            (Phase::Asked { .. }, Ok(Message::DialRequest { addrs, .. })) => {
                self.requested(now, stream, &addrs);
            }
            (
                Phase::Uploading { pick, owes, stalled, .. },
                Ok(Message::DialDataResponse { data }),
            ) => {
                *owes = owes.saturating_sub(data.len() as u64);
                *stalled = now + STALL;
                let (pick, owes) = (*pick, *owes);
                if owes == 0 {
                    self.dial(now, stream, pick);
                } else if data.len() < 100 {
                    self.break_off(stream);
                }
            }
            _ => self.break_off(stream),
        }
    }

    fn break_off(&mut self, stream: StreamId) {
        self.counts.count("broke a rule");
        self.due.push(format!("{stream} reset"));
        self.forget(stream);
    }

    fn requested(&mut self, now: Instant, stream: StreamId, addrs: &[bytes::Bytes]) {
        let Some(session) = self.sessions.get(&stream).cloned() else { return };
        let limits = self.limits.clone();
        let wants = [
            ("everybody", "everybody".to_owned(), limits.global_per_min),
            ("peer", format!("peer {}", session.peer), limits.peer_per_min),
            ("network", format!("net {}", Group::prefix(session.remote)), limits.prefix_per_min),
        ];
        if let Err(full) = self.take(now, &wants, true) {
            self.counts.count(&format!("rejected: {full}"));
            return self.answer(now, stream, "REJECTED", false);
        }
        let dialable = |bytes: &bytes::Bytes| match decode(bytes) {
            Ok(Decoded::Direct { addr, .. }) => {
                let global = ip_scope(addr.ip) == IpScope::Global && addr.ip.is_ipv4();
                (global && !self.own.contains(&addr)).then_some(addr)
            }
            _ => None,
        };
        let Some(pick) = addrs.iter().find_map(dialable) else {
            self.counts.count("refused");
            return self.answer(now, stream, "REFUSED", false);
        };
        if pick.ip == session.remote {
            return self.dial(now, stream, pick);
        }
        if !self.may_dial(now, pick, false) {
            return self.answer(now, stream, "REJECTED", false);
        }
        self.counts.count("data asked for");
        self.due.push(format!("{stream} data {DATA}"));
        let phase =
            Phase::Uploading { pick, owes: DATA, stalled: now + STALL, until: now + UPLOAD };
        self.sessions.entry(stream).and_modify(|session| session.phase = phase);
    }

    fn may_dial(&mut self, now: Instant, pick: Addr, take: bool) -> bool {
        if self.flights.len() >= self.limits.dials_max {
            self.counts.count("rejected: no slot");
            return false;
        }
        let wants = [
            ("target", format!("target {}", pick.ip), self.limits.target_per_min),
            (
                "target",
                format!("target net {}", Group::prefix(pick.ip)),
                self.limits.target_prefix_per_min,
            ),
        ];
        let taken = self.take(now, &wants, take);
        if taken.is_err() {
            self.counts.count("rejected: target");
        }
        taken.is_ok()
    }

    fn dial(&mut self, now: Instant, stream: StreamId, pick: Addr) {
        if !self.may_dial(now, pick, true) {
            return self.answer(now, stream, "REJECTED", false);
        }
        self.counts.count("dial");
        self.dials += 1;
        let dial = DialId(self.dials);
        self.flights.insert(dial, now + ANSWER);
        self.due.push(format!("{dial} to {pick}"));
        let phase = Phase::Dialling { dial, until: now + DIAL, answer: now + ANSWER };
        self.sessions.entry(stream).and_modify(|session| session.phase = phase);
    }

    /// One token of each, or none at all; the first that lacks one is named.
    fn take(
        &mut self,
        now: Instant,
        wants: &[(&'static str, String, u32)],
        take: bool,
    ) -> Result<(), &'static str> {
        for (what, key, per_min) in wants {
            let most = TOKEN * u128::from(*per_min);
            let bucket = self.buckets.entry(key.clone()).or_insert(Bucket { level: most, at: now });
            let grown = now.since(bucket.at).as_nanos() * u128::from(*per_min);
            *bucket = Bucket { level: (bucket.level + grown).min(most), at: now };
            if bucket.level < TOKEN {
                return Err(what);
            }
        }
        for (_, key, _) in wants.iter().filter(|_| take) {
            self.buckets.entry(key.clone()).and_modify(|bucket| bucket.level -= TOKEN);
        }
        Ok(())
    }

    fn session_of(&self, dial: DialId) -> Option<StreamId> {
        self.sessions.iter().find_map(|(stream, session)| match session.phase {
            Phase::Dialling { dial: of, .. } | Phase::Delivering { dial: of, .. } => {
                (of == dial).then_some(*stream)
            }
            _ => None,
        })
    }

    fn answer_dial(&mut self, now: Instant, dial: DialId, words: &str) {
        if let Some(stream) = self.session_of(dial) {
            self.answer(now, stream, words, false);
        }
    }

    fn answer(&mut self, now: Instant, stream: StreamId, words: &str, owes_request: bool) {
        self.due.push(format!("{stream} {words}"));
        self.counts.count(&format!("answered {words}"));
        let Some(session) = self.sessions.get_mut(&stream) else { return };
        let phase = Phase::Closing { owes_request, until: now + LINGER };
        let was = std::mem::replace(&mut session.phase, phase);
        if session.half_closed {
            self.sessions.remove(&stream);
        }
        self.let_go(&was);
    }

    /// A connection that was made for a request goes with it.
    fn let_go(&mut self, was: &Phase) {
        if let Phase::Delivering { dial, .. } = was {
            self.flights.remove(dial);
            let on = self.landed.iter().find(|(_, of)| *of == dial).map(|(conn, _)| *conn);
            if let Some(conn) = on {
                self.landed.remove(&conn);
                self.due.push(format!("hang up {conn}"));
            }
        }
    }

    fn forget(&mut self, stream: StreamId) {
        if let Some(session) = self.sessions.remove(&stream) {
            self.let_go(&session.phase);
        }
    }

    fn connected(&mut self, now: Instant, conn: ConnId, peer: PeerId, dial: DialId) {
        let waiting = self.session_of(dial).filter(|_| self.flights.contains_key(&dial));
        let Some(stream) = waiting else {
            self.flights.remove(&dial);
            return self.due.push(format!("hang up {conn}"));
        };
        let Some(session) = self.sessions.get_mut(&stream) else { return };
        if session.peer != peer {
            self.flights.remove(&dial);
            self.due.push(format!("hang up {conn}"));
            return self.answer(now, stream, "OK DIAL_ERROR", false);
        }
        if let Phase::Dialling { answer, .. } = session.phase {
            session.phase = Phase::Delivering { dial, until: answer.min(now + NONCE) };
        }
        self.landed.insert(conn, dial);
        self.due.push(format!("nonce on {conn}"));
    }

    fn delivered(&mut self, now: Instant, stream: StreamId, taken: bool) {
        let dial = DialId(stream.number);
        if self.landed.values().any(|one| *one == dial) {
            self.answer_dial(now, dial, if taken { "OK OK" } else { "OK DIAL_BACK_ERROR" });
        }
    }

    fn closed(&mut self, stream: StreamId, end: StreamEnd) {
        let Some(session) = self.sessions.get_mut(&stream) else { return };
        match session.phase {
            Phase::Dialling { .. } | Phase::Delivering { .. } if end == StreamEnd::Finished => {
                session.half_closed = true;
            }
            Phase::Asked { .. } | Phase::Uploading { .. } if end == StreamEnd::Finished => {
                self.due.push(format!("{stream} reset"));
                self.forget(stream);
            }
            _ => self.forget(stream),
        }
    }

    fn disconnected(&mut self, now: Instant, conn: ConnId) {
        if let Some(dial) = self.landed.remove(&conn) {
            self.flights.remove(&dial);
            self.answer_dial(now, dial, "OK DIAL_BACK_ERROR");
        }
        let on: Vec<StreamId> =
            self.sessions.iter().filter(|(_, one)| one.conn == conn).map(|(id, _)| *id).collect();
        on.into_iter().for_each(|stream| self.forget(stream));
    }

    fn time(&mut self, now: Instant) {
        let streams: Vec<StreamId> = self.sessions.keys().copied().collect();
        for stream in streams {
            let Some(phase) = self.sessions.get(&stream).map(|one| one.phase.clone()) else {
                continue;
            };
            let late = match phase {
                Phase::Uploading { stalled, until, .. } => stalled.min(until) <= now,
                Phase::Asked { until }
                | Phase::Dialling { until, .. }
                | Phase::Delivering { until, .. }
                | Phase::Closing { until, .. } => until <= now,
            };
            match phase {
                _ if !late => {}
                Phase::Dialling { .. } => self.answer(now, stream, "INTERNAL", false),
                Phase::Delivering { .. } => self.answer(now, stream, "OK DIAL_BACK_ERROR", false),
                Phase::Asked { .. } | Phase::Uploading { .. } | Phase::Closing { .. } => {
                    self.counts.count("overdue");
                    self.due.push(format!("{stream} reset"));
                    self.forget(stream);
                }
            }
        }
        self.flights.retain(|_, until| *until > now);
    }
}

fn is_request(stream: StreamId) -> bool {
    (stream.side, stream.protocol) == (Side::Inbound, Protocol::DialRequest)
}
