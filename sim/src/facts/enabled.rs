//! Every fact that can befall the node at this moment, in a fixed order.

#![allow(clippy::wildcard_enum_match_arm, reason = "each function is about a few of many facts")]

use super::bench::Bench;
use super::cast::Peer;
use super::fact::{Fact, Kind, Nonce};
use portolan_core::{
    Addr, Class, ConnId, DialFailure, Duration, Family, Instant, ListenerId, Protocol, Side,
    StreamEnd, StreamFailure, StreamId, Transport,
};

/// The round trip of every connection that was measured.
const RTT: Duration = Duration::from_millis(20);
/// How long after a question a dial-back for it may still come: longer than a nonce is good for.
const LATE: Duration = Duration::from_secs(90);
/// A number that no probe has.
const WRONG_NONCE: u64 = 999_999_999;
/// The largest honest demand of dial data, and one over the range.
const DEMANDS: [u64; 2] = [100_000, 100_001];

impl Bench {
    /// Every fact that can happen now in this shape, in a fixed order.
    pub fn enabled(&self) -> Vec<Fact> {
        let mut facts = Vec::new();
        for kind in self.shape.kinds.clone() {
            self.of_kind(kind, &mut facts);
        }
        facts
    }

    fn of_kind(&self, kind: Kind, out: &mut Vec<Fact>) {
        match kind {
            Kind::Listen
            | Kind::CloseListener
            | Kind::Interfaces
            | Kind::Contacted
            | Kind::Reported
            | Kind::Pass
            | Kind::Oversleep
            | Kind::Resume => self.ground(kind, out),
            Kind::Connect => self.connects(out),
            Kind::Disconnect
            | Kind::Identify
            | Kind::Push
            | Kind::AskIdentify
            | Kind::Echo
            | Kind::Request
            | Kind::Data
            | Kind::Accept => {
                let conns: Vec<ConnId> = self.books.conns.keys().copied().collect();
                conns.into_iter().for_each(|conn| self.on_connection(kind, conn, out));
            }
            Kind::Answer | Kind::DataRequest => self.answers(kind, out),
            Kind::DialBack | Kind::OddDialBack | Kind::DialBackOn => self.dial_backs(kind, out),
            Kind::Failed | Kind::Ended => self.streams(kind, out),
            Kind::Dialled | Kind::DialFailed => self.dials(kind, out),
        }
    }

    fn ground(&self, kind: Kind, out: &mut Vec<Fact>) {
        let (shape, books) = (&self.shape, &self.books);
        match kind {
            Kind::Listen => {
                let open = |addr: &Addr| books.listeners.values().any(|one| one == addr);
                let listener = ListenerId(books.listeners_used + 1);
                let closed = shape.listens.iter().filter(|addr| !open(addr));
                out.extend(closed.map(|addr| Fact::Listen { listener, addr: *addr }));
            }
            Kind::CloseListener => {
                let open = books.listeners.keys();
                out.extend(open.map(|listener| Fact::CloseListener { listener: *listener }));
            }
            Kind::Interfaces => {
                let other = shape.interfaces.iter().filter(|ips| **ips != books.interfaces);
                out.extend(other.map(|ips| Fact::Interfaces { ips: ips.clone() }));
            }
            Kind::Contacted => {
                let ips = shape.callers.iter().map(|(_, addr)| addr.ip);
                out.extend(ips.map(|ip| Fact::Contacted { ip }));
            }
            Kind::Reported => {
                let known = self.agent().reachability().addresses();
                out.extend(known.map(|(addr, _)| Fact::Reported { addr }));
            }
            Kind::Oversleep => {
                out.extend(shape.spans.iter().map(|span| Fact::Oversleep { span: *span }));
            }
            Kind::Resume => {
                out.extend(shape.sleeps.iter().map(|span| Fact::Resume { span: *span }))
            }
            _ => {
                let due = self.agent().deadline().map(|deadline| whole(deadline.at, self.now));
                let spans = due.into_iter().chain(shape.spans.iter().copied());
                out.extend(spans.map(|span| Fact::Pass { span }));
            }
        }
    }

    fn connects(&self, out: &mut Vec<Fact>) {
        let (shape, books) = (&self.shape, &self.books);
        let conn = ConnId(books.conns_used + 1);
        let sides = [(Side::Outbound, &shape.dialled), (Side::Inbound, &shape.callers)];
        for (side, peers) in sides {
            for (peer, remote) in peers {
                let standing = books.conns.values().filter(|one| one.peer == peer.id()).count();
                if standing >= shape.conns_per_peer {
                    continue;
                }
                let class = remote.class();
                let mut locals = books.sockets(class);
                if locals.is_empty() && side == Side::Outbound {
                    locals.extend(books.fresh(*remote));
                }
                for local in locals {
                    let rtts = [Some(RTT), None];
                    for rtt in rtts.into_iter().take(1 + usize::from(shape.unmeasured)) {
                        let (peer, remote, relayed) = (*peer, *remote, false);
                        out.push(Fact::Connect { conn, peer, side, remote, local, rtt, relayed });
                    }
                }
            }
        }
    }

    fn on_connection(&self, kind: Kind, conn: ConnId, out: &mut Vec<Fact>) {
        let shape = &self.shape;
        let Some(facts) = self.books.conns.get(&conn) else { return };
        let is_ours = facts.dial.is_some();
        match kind {
            Kind::Disconnect => out.push(Fact::Disconnect { conn }),
            Kind::Identify if self.ours(conn, Protocol::Identify).is_some() => {
                self.says(facts.remote.class(), |observed, server| {
                    out.push(Fact::Identify { conn, observed, server });
                });
            }
            Kind::Push if !is_ours => self.says(facts.remote.class(), |observed, server| {
                out.push(Fact::Push { conn, observed, server });
            }),
            Kind::AskIdentify if !is_ours => out.push(Fact::AskIdentify { conn }),
            Kind::Echo if self.ping_on(conn).is_some() => out.push(Fact::Echo { conn }),
            Kind::Request if !is_ours => {
                let wishes = shape.wishes.iter();
                out.extend(wishes.map(|addrs| Fact::Request {
                    conn,
                    nonce: 7,
                    addrs: addrs.clone(),
                }));
            }
            Kind::Data => {
                let newest = self.books.newest(conn, Side::Inbound, Protocol::DialRequest);
                let owing = newest.and_then(|stream| self.books.requests.get(&stream));
                let owes = owing.map_or(0, |request| request.owes);
                if owes > 0 {
                    out.push(Fact::Data { conn, bytes: owes, chunk: 4_096 });
                    out.push(Fact::Data { conn, bytes: owes / 2, chunk: 4_096 });
                    out.push(Fact::Data { conn, bytes: 50, chunk: 50 });
                }
            }
            Kind::Accept if self.ours(conn, Protocol::DialBack).is_some() => {
                out.push(Fact::Accept { conn });
            }
            _ => {}
        }
    }

    /// What a peer may say in identify: seen here or there, a server or not.
    fn says(&self, class: Class, mut say: impl FnMut(Option<Addr>, bool)) {
        let fits = self.shape.sees.iter().filter(|addr| addr.class() == class);
        let mut sees: Vec<Option<Addr>> = fits.map(|addr| Some(*addr)).collect();
        if sees.is_empty() {
            sees.push(None);
        }
        for observed in sees {
            say(observed, true);
            if self.shape.clients_too {
                say(observed, false);
            }
        }
    }

    fn answers(&self, kind: Kind, out: &mut Vec<Fact>) {
        for ((server, addr), probe) in &self.books.probes {
            let (server, addr) = (*server, *addr);
            if self.asked(server, addr).is_none() {
                continue;
            }
            if kind == Kind::Answer {
                let answers = self.shape.answers.iter();
                out.extend(answers.map(|answer| Fact::Answer { server, addr, answer: *answer }));
            } else if !probe.data {
                out.extend(DEMANDS.map(|bytes| Fact::DataRequest { server, addr, bytes }));
            }
        }
    }

    fn dial_backs(&self, kind: Kind, out: &mut Vec<Fact>) {
        let conn = ConnId(self.books.conns_used + 1);
        for ((server, addr), probe) in &self.books.probes {
            let (server, addr) = (*server, *addr);
            if probe.delivered || self.now.since(probe.at) > LATE {
                continue;
            }
            let nonce = Nonce::Of(server, addr);
            if kind == Kind::DialBackOn {
                let of = |one: &ConnId| {
                    self.books.peer(*one).is_some_and(|p| p == server || p.is_back())
                };
                let conns = self.books.conns.keys().copied().filter(of);
                out.extend(conns.map(|conn| Fact::DialBackOn { conn, nonce }));
                continue;
            }
            let mut push = |remote: Addr, nonce: Nonce| {
                let Some(local) = self.books.sockets(remote.class()).first().copied() else {
                    return;
                };
                let peer = Peer::back(1);
                let stays =
                    [false, true].into_iter().take(1 + usize::from(self.shape.dial_backs_stay));
                out.extend(stays.map(|stays| Fact::DialBack {
                    conn,
                    peer,
                    remote,
                    local,
                    nonce,
                    stays,
                }));
            };
            let family = Family::of(addr.ip);
            let from = |ip, transport| Addr::new(ip, 50_000, transport);
            if kind == Kind::DialBack {
                push(from(server.ip(family), addr.transport), nonce);
            } else {
                push(from(server.other_ip(family), addr.transport), nonce);
                push(from(server.ip(family), addr.transport), Nonce::Wrong(WRONG_NONCE));
                let other = match addr.transport {
                    Transport::Tcp => Transport::Quic,
                    Transport::Quic => Transport::Tcp,
                };
                push(from(server.ip(family), other), nonce);
            }
        }
    }

    fn streams(&self, kind: Kind, out: &mut Vec<Fact>) {
        for (stream, known) in &self.books.streams {
            let stream: StreamId = *stream;
            if kind == Kind::Failed && !known.open {
                for reason in [StreamFailure::Unsupported, StreamFailure::Failed] {
                    out.push(Fact::Failed { stream, reason });
                }
            } else if kind == Kind::Ended && known.open {
                if !known.theirs_over {
                    out.push(Fact::Ended { stream, end: StreamEnd::Finished });
                }
                out.push(Fact::Ended { stream, end: StreamEnd::Reset });
                out.push(Fact::Ended { stream, end: StreamEnd::BadFrame });
            }
        }
    }

    fn dials(&self, kind: Kind, out: &mut Vec<Fact>) {
        for dial in self.books.dials.keys().copied() {
            if kind == Kind::DialFailed {
                let reasons = [
                    DialFailure::Refused,
                    DialFailure::TimedOut,
                    DialFailure::Handshake,
                    DialFailure::LocalFault,
                ];
                out.extend(reasons.map(|reason| Fact::DialFailed { dial, reason }));
                continue;
            }
            let conn = ConnId(self.books.conns_used + 1);
            let askers = self.shape.callers.iter().map(|(peer, _)| *peer);
            for peer in askers.chain([Peer::back(2)]) {
                let fact = Fact::Dialled { dial, conn, peer };
                if self.allows(&fact) {
                    out.push(fact);
                }
            }
        }
    }
}

/// The span until then, in the whole milliseconds that a story can tell.
fn whole(at: Instant, now: Instant) -> Duration {
    let nanos = u64::try_from(at.since(now).as_nanos()).unwrap_or(u64::MAX);
    Duration::from_millis(nanos.div_ceil(1_000_000))
}
