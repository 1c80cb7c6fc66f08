//! What an agent promises whatever happens, told from the facts alone.

#![allow(clippy::wildcard_enum_match_arm, reason = "each function is about a few of many facts")]

use super::bench::{Bench, Step};
use super::books::direct;
use super::fact::Kind;
use super::shape::Shape;
use portolan_core::wire::autonat::{
    DialBack, DialBackResponse, DialStatus, Message, ResponseStatus,
};
use portolan_core::wire::identify::Identify;
use portolan_core::{
    Action, Addr, ConnId, Connected, Dial, Duration, Event, Instant, IpScope, Notice, Outcome,
    PeerId, Protocol, Reason, Scope, Served, Side, State, StreamId, Verdict, config, ip_scope,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// How long a dial of the agent's keeps its slot if nobody says how it ended.
const SLOT_LASTS: Duration = Duration::from_secs(14);
/// How long a question is remembered: longer than its nonce is good for, across several sleeps.
const REMEMBERED: Duration = Duration::from_secs(7_200);
const MINUTE: Duration = Duration::from_secs(60);

/// What happened: a run in which nothing happens proves nothing.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Facts of each kind.
    pub facts: BTreeMap<Kind, u64>,
    /// Events.
    pub events: u64,
    /// How probes ended.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// What addresses became, with the scope where they are reachable.
    pub verdicts: BTreeMap<(State, Option<Scope>), u64>,
    /// How requests of others were answered.
    pub served: BTreeMap<Served, u64>,
    /// Proofs that aged out.
    pub expired: u64,
    /// Addresses that were proven, and refuted then.
    pub refuted: u64,
}

impl Seen {
    /// Add what was seen elsewhere.
    pub fn add(&mut self, other: &Seen) {
        fn sum<K: Ord + Copy>(to: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
            from.iter().for_each(|(key, count)| *to.entry(*key).or_default() += count);
        }
        sum(&mut self.facts, &other.facts);
        sum(&mut self.outcomes, &other.outcomes);
        sum(&mut self.verdicts, &other.verdicts);
        sum(&mut self.served, &other.served);
        self.events += other.events;
        self.expired += other.expired;
        self.refuted += other.refuted;
    }
}

/// A question of the agent's.
#[derive(Clone, Debug)]
struct Ask {
    stream: StreamId,
    server: PeerId,
    addr: Addr,
    at: Instant,
    /// The number of the event in which it was asked.
    event: u64,
    delivered: bool,
    ended: bool,
}

/// A connection, with the number of the event in which it came up.
#[derive(Clone, Debug)]
struct Conn {
    facts: Connected,
    event: u64,
    stranger: bool,
}

/// The promises, and the evidence by which they are judged.
#[derive(Clone, Debug, Default)]
pub struct Promises {
    /// What happened so far.
    pub seen: Seen,
    event: u64,
    asks: BTreeMap<u64, Ask>,
    conns: BTreeMap<ConnId, Conn>,
    streams: BTreeMap<StreamId, ConnId>,
    contacted: BTreeMap<IpAddr, Instant>,
    /// Until when each address is proven by a nonce that the agent took.
    proved_until: BTreeMap<Addr, Instant>,
    /// Until when each address may be called reachable, and reachable from anywhere.
    valid_until: BTreeMap<Addr, Instant>,
    open_until: BTreeMap<Addr, Instant>,
    /// Addresses that a server could not dial, since they were last proven.
    failed: BTreeSet<Addr>,
    /// The verdicts as the notices tell them.
    verdicts: BTreeMap<Addr, (State, Option<Scope>, Reason)>,
    told: BTreeSet<Addr>,
    dials: BTreeMap<portolan_core::DialId, Instant>,
}

impl Promises {
    /// A bench on which the prologue has happened, and the promises that were judged meanwhile.
    ///
    /// # Panics
    /// The prologue makes no sense, or breaks a promise.
    pub fn begin(shape: &Arc<Shape>) -> (Bench, Promises) {
        let bare = Shape { prologue: Vec::new(), ..Shape::clone(shape) };
        let (mut bench, mut promises) = (Bench::new(Arc::new(bare)), Promises::default());
        for fact in &shape.prologue {
            assert!(bench.perform(fact), "{fact} cannot stand in a prologue");
            promises.check(&bench).expect("a prologue keeps every promise");
        }
        bench.shape = Arc::clone(shape);
        bench.forget_steps();
        promises.seen = Seen::default();
        (bench, promises)
    }

    /// Judge the last fact that happened on this bench. Every fact is to be judged.
    ///
    /// # Errors
    /// A promise that was broken.
    pub fn check(&mut self, bench: &Bench) -> Result<(), String> {
        if let Some(fault) = bench.fault() {
            return Err(fault.to_owned());
        }
        for step in bench.steps() {
            self.heard(step);
            for action in &step.actions {
                self.ordered(bench, step, action)?;
            }
            self.limits(step.at)?;
        }
        self.judged(bench)?;
        self.told(bench)
    }

    /// Nothing is left to do until the next deadline, which lies ahead.
    ///
    /// # Errors
    /// Something is.
    pub fn stands_still(bench: &Bench) -> Result<(), String> {
        if let Some(deadline) = bench.agent().deadline().filter(|one| one.at <= bench.now()) {
            return Err(format!("the deadline {:?} at {} is over", deadline.wake, deadline.at));
        }
        match bench.idle() {
            (actions, true) if actions.is_empty() => Ok(()),
            (actions, _) => Err(format!("a tick with nothing due did something: {actions:?}")),
        }
    }

    fn is_contacted(&self, now: Instant, ip: IpAddr) -> bool {
        let ours = |conn: &Conn| conn.facts.side == Side::Outbound && conn.facts.remote.ip == ip;
        let lately = self.contacted.get(&ip).is_some_and(|at| now < *at + config::CONTACTED_FOR);
        lately || self.conns.values().any(ours)
    }

    fn heard(&mut self, step: &Step) {
        self.event += 1;
        self.seen.events += 1;
        let now = step.at;
        match &step.event {
            Event::Contacted { ip } => {
                self.contacted.insert(*ip, now);
            }
            Event::Connected(facts) if facts.dial.is_none() => {
                let stranger = !facts.relayed && !self.is_contacted(now, facts.remote.ip);
                let (facts, event) = (facts.clone(), self.event);
                self.conns.insert(facts.conn, Conn { facts, event, stranger });
            }
            Event::Disconnected { conn } => {
                if let Some(gone) = self.conns.remove(conn)
                    && gone.facts.side == Side::Outbound
                {
                    self.contacted.insert(gone.facts.remote.ip, now);
                }
                self.streams.retain(|_, of| of != conn);
            }
            Event::StreamOpened { conn, stream } => {
                self.streams.insert(*stream, *conn);
            }
            Event::Frame { stream, body } => match (stream.side, stream.protocol) {
                (Side::Inbound, Protocol::DialBack) => self.dialled_back(step, *stream, body),
                (Side::Outbound, Protocol::DialRequest) => self.answered(*stream, body),
                (Side::Outbound, Protocol::Identify) | (Side::Inbound, Protocol::IdentifyPush) => {
                    self.sees_us(now, *stream, body);
                }
                _ => {}
            },
            _ => {}
        }
    }

    /// A number came: it proves what it was given away for, if it came in the right way.
    fn dialled_back(&mut self, step: &Step, stream: StreamId, body: &bytes::Bytes) {
        let conn = self.streams.remove(&stream).and_then(|conn| self.conns.get(&conn));
        let (Some(conn), Ok(said)) = (conn, DialBack::decode(body)) else { return };
        let Some(ask) = self.asks.get_mut(&said.nonce) else { return };
        let fresh = conn.facts.side == Side::Inbound && conn.event > ask.event;
        let same_class = conn.facts.local.class() == ask.addr.class();
        let taken = Action::Send { stream, body: DialBackResponse::OK.encode() };
        let is_right = !ask.delivered && fresh && same_class && !conn.facts.relayed;
        if !is_right || !step.actions.contains(&taken) {
            return;
        }
        ask.delivered = true;
        let until = step.at + config::PROOF_LIFETIME;
        self.proved_until.insert(ask.addr, until);
        self.valid_until.insert(ask.addr, until);
        self.failed.remove(&ask.addr);
        if conn.stranger {
            self.open_until.insert(ask.addr, until);
        }
    }

    fn answered(&mut self, stream: StreamId, body: &bytes::Bytes) {
        let ok = ResponseStatus::Ok;
        if let Ok(Message::DialResponse { status, dial_status: DialStatus::DialError, .. }) =
            Message::decode(body)
            && status == ok
            && let Some(ask) = self.asks.values().find(|ask| ask.stream == stream && !ask.ended)
        {
            self.failed.insert(ask.addr);
        }
    }

    /// A stranger who came in and names an address of ours renews it, and shows that it is open.
    fn sees_us(&mut self, now: Instant, stream: StreamId, body: &bytes::Bytes) {
        let conn = self.streams.get(&stream).and_then(|conn| self.conns.get(conn));
        let observed = Identify::decode(body).ok().and_then(|said| said.observed);
        let (Some(conn), Some(observed)) = (conn, observed.and_then(|bytes| direct(&bytes))) else {
            return;
        };
        if conn.facts.side == Side::Outbound || !conn.stranger {
            return;
        }
        let until = now + config::PROOF_LIFETIME;
        if let Some(valid) = self.valid_until.get_mut(&observed).filter(|valid| now < **valid) {
            *valid = until;
        }
        self.open_until.insert(observed, until);
    }

    fn ordered(&mut self, bench: &Bench, step: &Step, action: &Action) -> Result<(), String> {
        match action {
            Action::OpenStream { conn, stream } => {
                self.streams.insert(*stream, *conn);
            }
            Action::Send { stream, body } if is_question(*stream) => {
                if let Ok(Message::DialRequest { addrs, nonce }) = Message::decode(body) {
                    self.asked(step.at, *stream, &addrs, nonce)?;
                }
            }
            Action::Dial(dial) => self.dialled(bench, step.at, dial)?,
            Action::Notify(notice) => self.noticed(notice)?,
            _ => {}
        }
        Ok(())
    }

    fn asked(
        &mut self,
        at: Instant,
        stream: StreamId,
        addrs: &[bytes::Bytes],
        nonce: u64,
    ) -> Result<(), String> {
        let conn = self.streams.get(&stream).and_then(|conn| self.conns.get(conn));
        let [Some(addr)] = addrs.iter().map(|one| direct(one)).collect::<Vec<_>>()[..] else {
            return Err(format!("{stream} asks about {addrs:?}"));
        };
        let Some(conn) = conn else { return Err(format!("{stream} asks nobody")) };
        let (server, event) = (conn.facts.peer, self.event);
        let (delivered, ended) = (false, false);
        let ask = Ask { stream, server, addr, at, event, delivered, ended };
        match self.asks.insert(nonce, ask) {
            None => Ok(()),
            Some(old) => Err(format!("{stream} has the nonce of {}", old.stream)),
        }
    }

    /// A dial for somebody else goes to one address that is waited for, and is nobody's private host.
    fn dialled(&mut self, bench: &Bench, now: Instant, dial: &Dial) -> Result<(), String> {
        self.contacted.insert(dial.addr.ip, now);
        self.dials.retain(|id, at| bench.books().dials.contains_key(id) && now < *at + SLOT_LASTS);
        self.dials.insert(dial.dial, now);
        let limits = bench.shape().settings.dial_back.as_ref();
        let wanted = bench.books().requests.values().any(|one| one.addrs.contains(&dial.addr));
        let own = bench.books().listeners.values().any(|own| *own == dial.addr);
        let most = limits.map_or(0, |limits| limits.dials_max);
        if !wanted || own || ip_scope(dial.addr.ip) != IpScope::Global || self.dials.len() > most {
            return Err(format!("nobody may have {} dialled now", dial.addr));
        }
        Ok(())
    }

    fn noticed(&mut self, notice: &Notice) -> Result<(), String> {
        match notice {
            Notice::ProbeEnded { peer, addr, outcome } => {
                *self.seen.outcomes.entry(*outcome).or_default() += 1;
                let open = |ask: &&mut Ask| ask.server == *peer && ask.addr == *addr && !ask.ended;
                let delivered = self
                    .asks
                    .values()
                    .any(|ask| ask.server == *peer && ask.addr == *addr && ask.delivered);
                if let Some(ask) = self.asks.values_mut().find(open) {
                    // A nonce that came late is told as the end of a probe that had ended before.
                    ask.ended = *outcome != Outcome::Proved || ask.delivered;
                }
                if *outcome == Outcome::Proved && !delivered {
                    return Err(format!("{addr} is proved without a nonce"));
                }
            }
            Notice::VerdictChanged { addr, state, scope, reason } => {
                *self.seen.verdicts.entry((*state, *scope)).or_default() += 1;
                let old = self.verdicts.insert(*addr, (*state, *scope, *reason));
                let was_reachable = old.is_some_and(|(state, ..)| state == State::Reachable);
                self.seen.refuted += u64::from(was_reachable && *state == State::Unreachable);
                self.seen.expired += u64::from(*reason == Reason::Expired);
            }
            Notice::AdvertisedChanged { added, removed } => {
                let gone = removed.iter().all(|addr| self.told.remove(addr));
                let new = added.iter().all(|addr| self.told.insert(*addr));
                if !gone || !new {
                    return Err(format!("{notice:?} does not follow from what was told"));
                }
            }
            Notice::DialBackServed { answer, .. } => {
                *self.seen.served.entry(*answer).or_default() += 1;
            }
            _ => {}
        }
        Ok(())
    }

    /// The limits that keep the agent polite.
    fn limits(&mut self, now: Instant) -> Result<(), String> {
        self.asks.retain(|_, ask| !ask.ended || now < ask.at + REMEMBERED);
        let mut servers: BTreeMap<PeerId, (usize, usize)> = BTreeMap::new();
        for ask in self.asks.values() {
            let (flying, lately) = servers.entry(ask.server).or_default();
            *flying += usize::from(!ask.ended);
            *lately += usize::from(now < ask.at + MINUTE);
        }
        let flying: usize = servers.values().map(|(flying, _)| flying).sum();
        let over = |(flying, lately): &(usize, usize)| {
            *flying > config::PROBES_PER_SERVER_MAX || *lately > config::REQUESTS_PER_SERVER_MIN
        };
        if flying > config::PROBES_MAX || servers.values().any(over) {
            return Err(format!("{flying} probes in flight; in flight and lately: {servers:?}"));
        }
        Ok(())
    }

    /// Every verdict rests on evidence, has its notice, and did not flip.
    fn judged(&mut self, bench: &Bench) -> Result<(), String> {
        let (now, view) = (bench.now(), bench.agent().reachability());
        self.verdicts
            .retain(|addr, (state, ..)| *state != State::Unknown || view.verdict(*addr).is_some());
        for (addr, verdict) in view.addresses() {
            let told = (verdict.state(), verdict.scope(), verdict.reason());
            if self.verdicts.get(&addr) != Some(&told) {
                return Err(format!("{addr} is {told:?}, and no notice said so"));
            }
            let listens = bench.books().listeners.values().any(|one| one.class() == addr.class());
            let valid = self.valid_until.get(&addr).copied().unwrap_or_default();
            match verdict {
                Verdict::Reachable { until, scope, .. } => {
                    if now >= *until || *until > valid || !listens {
                        return Err(format!("{addr} is reachable without a live proof"));
                    }
                    let open = self.open_until.get(&addr).is_some_and(|until| now < *until);
                    if *scope == Scope::Anywhere && !open {
                        return Err(format!("{addr} is open to strangers, and none came in"));
                    }
                }
                Verdict::Unreachable { .. } if !self.failed.contains(&addr) => {
                    return Err(format!("{addr} is refuted, and nobody failed to dial it"));
                }
                Verdict::Unknown { reason } if listens => {
                    let proved = self.proved_until.get(&addr).is_some_and(|until| now < *until);
                    if proved && !self.failed.contains(&addr) {
                        return Err(format!("{addr} is unknown ({reason}) with a live proof"));
                    }
                }
                _ => {}
            }
        }
        // Whatever lost all its sources, or its socket, begins anew when it comes back.
        let moved = |addr: &Addr| {
            let listens = bench.books().listeners.values().any(|one| one.class() == addr.class());
            view.verdict(*addr).is_none() || !listens
        };
        self.valid_until.retain(|addr, _| !moved(addr));
        self.proved_until.retain(|addr, _| !moved(addr));
        Ok(())
    }

    /// Peers are told what is proven to more than those we contacted, and nothing else.
    fn told(&self, bench: &Bench) -> Result<(), String> {
        let view = bench.agent().reachability();
        let worth =
            |verdict: &Verdict| matches!(verdict.scope(), Some(Scope::Anywhere | Scope::Contacted));
        let proven = view.addresses().filter(|(_, verdict)| worth(verdict)).map(|(addr, _)| addr);
        let proven: BTreeSet<Addr> = proven.collect();
        if proven != self.told {
            return Err(format!("peers are told {:?}, and {proven:?} is proven", self.told));
        }
        Ok(())
    }
}

fn is_question(stream: StreamId) -> bool {
    (stream.side, stream.protocol) == (Side::Outbound, Protocol::DialRequest)
}
