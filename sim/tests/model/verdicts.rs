//! What servers' answers make of an address: proofs with their times, failures, and who could be
//! asked. How each probe ends, whom a probe may go to, and every verdict follow from the facts.
//!
//! Partial on purpose: when a server is asked is the agent's choice, and so is the moment of a
//! refutation; the model says whether it was justified, and where it had to come. Nobody sleeps.

use super::machine::{Counts, Model};
use portolan_core::wire::autonat::{DialBack, DialStatus, Message, ResponseStatus};
use portolan_core::wire::identify::Identify;
use portolan_core::wire::multiaddr::{Decoded, decode};
use portolan_core::{
    Action, Addr, Class, ConnId, Connected, Duration, Event, Family, Group, Instant, IpScope,
    ListenerId, Notice, Outcome, PeerId, Protocol, Reason, Scope, Side, State, StreamId, ip_scope,
};
use portolan_sim::facts::{Bench, Kind, Shape, Step};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

#[path = "ask.rs"]
mod ask;
#[path = "standing.rs"]
mod standing;

use ask::{Ask, History, Phase};
use standing::Standing;

const LIFETIME: Duration = Duration::from_secs(600);
const DAY: Duration = Duration::from_secs(24 * 3_600);
/// Fifteen seconds and two round trips of 20 ms; thirty more where dial data is paid.
const ANSWER: Duration = Duration::from_millis(15_040);
const PAID: Duration = Duration::from_millis(45_040);
/// Four round trips are less than the least, which is this.
const GRACE: Duration = Duration::from_secs(2);
/// How long after its probe a nonce still proves.
const LATE: Duration = Duration::from_secs(60);
/// Dial data in one window, bytes: for one address, for all that may not be ours, for all.
const BUDGETS: [u64; 3] = [200_000, 400_000, 800_000];

#[derive(Clone, Debug)]
struct Conn {
    facts: Connected,
    event: u64,
    stranger: bool,
    server: bool,
    /// Whether we called it, and it has not said yet who it is.
    asking: bool,
}

/// Everything that is known.
#[derive(Clone, Default)]
pub(crate) struct Verdicts {
    counts: Counts,
    event: u64,
    listeners: BTreeMap<ListenerId, Addr>,
    ips: Vec<IpAddr>,
    conns: BTreeMap<ConnId, Conn>,
    contacted: BTreeMap<IpAddr, Instant>,
    streams: BTreeMap<StreamId, ConnId>,
    servers: BTreeMap<PeerId, Standing>,
    asks: BTreeMap<u64, Ask>,
    histories: BTreeMap<Addr, History>,
    sightings: BTreeMap<Addr, (Instant, u16)>,
    /// What was paid for each address, since when, and whether it is known to be ours.
    paid: BTreeMap<Addr, (Instant, u64, bool)>,
    /// How probes must have ended in this event.
    ends: Vec<(PeerId, Addr, Outcome)>,
    moved: bool,
}

impl Model for Verdicts {
    fn shape() -> Shape {
        let mut shape = Shape::of_servers();
        shape.kinds.retain(|kind| *kind != Kind::Resume);
        shape
    }

    fn happened(&mut self, bench: &Bench) -> Result<(), String> {
        for step in bench.steps() {
            self.event += 1;
            self.ends.clear();
            self.moved = false;
            self.fact(step);
            self.time(step.at);
            if self.moved {
                self.take_back(step.at);
            }
            self.orders(step)?;
            if self.moved {
                self.forget(bench);
            }
            self.judge(step)?;
        }
        // What is a candidate now has a history, and may be proven by a nonce from before.
        for one in bench.agent().explain().addresses {
            if !one.sources.is_empty() && self.listens(one.addr.class()) {
                self.histories.entry(one.addr).or_default();
            }
        }
        // What nobody names and nothing proves any more: no stranger raises it from the dead.
        let is = bench.agent().reachability();
        self.histories.iter_mut().for_each(|(at, one)| one.reachable &= is.verdict(*at).is_some());
        Ok(())
    }

    fn compare(&mut self, bench: &Bench) -> Result<(), String> {
        let last = bench.steps().last().map_or(bench.now(), |step| step.at);
        for (addr, verdict) in bench.agent().reachability().addresses() {
            let is = (verdict.state(), verdict.scope());
            let must = self.verdict(last, addr);
            // When a search ends is the agent's choice, and what strangers showed ends with it.
            let closed = self.histories.get(&addr).and_then(|history| history.closed(last));
            let is_closed = is.0 == must.0 && must.1 == Some(Scope::Anywhere) && is.1 == closed;
            if is != must && !is_closed {
                return Err(format!("{addr} is {is:?}, and must be {must:?}"));
            }
            self.reason(addr, verdict.reason())?;
            self.note(is);
        }
        Ok(())
    }

    fn counts(&self) -> &Counts {
        &self.counts
    }
}

impl Verdicts {
    fn fact(&mut self, step: &Step) {
        let now = step.at;
        match &step.event {
            Event::ListenerOpened { listener, addr } => {
                self.moved = true;
                self.listeners.insert(*listener, *addr);
            }
            Event::ListenerClosed { listener } => {
                self.moved = self.listeners.remove(listener).is_some();
            }
            Event::InterfacesChanged { ips } => {
                self.moved = *ips != self.ips;
                self.ips.clone_from(ips);
            }
            Event::Contacted { ip } => {
                self.contacted.insert(*ip, now);
            }
            Event::Connected(facts) => self.connected(now, facts),
            Event::Disconnected { conn } => self.disconnected(now, *conn),
            Event::StreamOpened { conn, stream } => {
                self.streams.insert(*stream, *conn);
            }
            Event::StreamFailed { stream, .. } | Event::StreamClosed { stream, .. } => {
                let broken =
                    |ask: &Ask| ask.stream == *stream && matches!(ask.phase, Phase::Open { .. });
                self.end_all(now, broken, Outcome::Error, true);
            }
            Event::Frame { stream, body } => match (stream.side, stream.protocol) {
                (Side::Inbound, Protocol::DialBack) => self.dialled_back(now, *stream, body),
                (Side::Outbound, Protocol::DialRequest) => self.answered(now, *stream, body),
                (Side::Outbound, Protocol::Identify) | (Side::Inbound, Protocol::IdentifyPush) => {
                    self.identified(now, *stream, body);
                }
                _ => {}
            },
            _ => {}
        }
    }

    fn connected(&mut self, now: Instant, facts: &Connected) {
        let ours =
            |one: &Conn| one.facts.side == Side::Outbound && one.facts.remote.ip == facts.remote.ip;
        let lately = self.contacted.get(&facts.remote.ip).is_some_and(|at| now < *at + DAY);
        let is_out = facts.side == Side::Outbound;
        let stranger = !is_out && !lately && !self.conns.values().any(ours);
        if is_out {
            self.contacted.insert(facts.remote.ip, now);
        }
        let event = self.event;
        let conn = Conn { facts: facts.clone(), event, stranger, server: false, asking: is_out };
        self.conns.insert(facts.conn, conn);
    }

    fn disconnected(&mut self, now: Instant, conn: ConnId) {
        if let Some(gone) = self.conns.remove(&conn)
            && gone.facts.side == Side::Outbound
        {
            self.contacted.insert(gone.facts.remote.ip, now);
        }
        let lost = |ask: &Ask| ask.conn == conn && matches!(ask.phase, Phase::Open { .. });
        self.end_all(now, lost, Outcome::Error, false);
    }

    fn identified(&mut self, now: Instant, stream: StreamId, body: &bytes::Bytes) {
        let Some(conn) = self.streams.get(&stream).and_then(|conn| self.conns.get_mut(conn)) else {
            return;
        };
        let Ok(said) = Identify::decode(body) else { return };
        conn.asking &= stream.side == Side::Inbound;
        conn.server = said.protocols.iter().any(|name| name == Protocol::DialRequest.name());
        let observed = said.observed.and_then(|bytes| decode(&bytes).ok());
        if let Some(Decoded::Direct { addr, .. }) = observed
            && conn.stranger
            && conn.facts.local.class() == addr.class()
        {
            self.sightings.insert(addr, (now, conn.facts.local.port));
        }
    }

    fn answered(&mut self, now: Instant, stream: StreamId, body: &bytes::Bytes) {
        let ask = self.asks.values_mut().find(|ask| ask.stream == stream && ask.is_running());
        let Some(ask) = ask else { return };
        let Phase::Open { paid, .. } = ask.phase else { return };
        let is_called = |ip: &IpAddr| {
            let called = self.contacted.get(ip).is_some_and(|at| now < *at + DAY);
            let ours = |one: &Conn| one.facts.side == Side::Outbound && one.facts.remote.ip == *ip;
            called || self.conns.values().any(ours)
        };
        let named = |ip: &IpAddr| {
            let family = Family::of(*ip) == ask.addr.class().family;
            family && ip_scope(*ip) == IpScope::Global && !is_called(ip)
        };
        let outcome = match Message::decode(body) {
            Ok(Message::DialDataRequest { num_bytes, .. }) => {
                let addr = ask.addr;
                let outcome = self.demanded(now, addr, num_bytes, paid);
                let ask = self.asks.values_mut().find(|ask| ask.stream == stream);
                if let (None, Some(ask)) = (outcome, ask) {
                    ask.phase = Phase::Open { until: now + PAID, paid: true };
                }
                outcome
            }
            Ok(Message::DialResponse { status, dial_status, failed_from, .. }) => {
                match (status, dial_status) {
                    (ResponseStatus::Ok, DialStatus::Ok) if ask.arrived => Some(Outcome::Proved),
                    (ResponseStatus::Ok, DialStatus::Ok) => {
                        ask.phase = Phase::Awaits { until: now + GRACE };
                        None
                    }
                    (ResponseStatus::Ok, DialStatus::DialError) => {
                        ask.cold |= failed_from.as_ref().is_some_and(named);
                        Some(Outcome::DialFailed)
                    }
                    (ResponseStatus::Ok, DialStatus::DialBackError) => Some(Outcome::DialBackError),
                    (ResponseStatus::Rejected, _) => Some(Outcome::Rejected),
                    (ResponseStatus::Refused, _) => Some(Outcome::Refused),
                    _ => Some(Outcome::Error),
                }
            }
            _ => Some(Outcome::Error),
        };
        if let Some(outcome) = outcome {
            self.end_all(now, |ask| ask.stream == stream && ask.is_running(), outcome, true);
        }
    }

    /// What a demand of dial data ends in; nothing where it is paid.
    fn demanded(&mut self, now: Instant, addr: Addr, bytes: u64, paid: bool) -> Option<Outcome> {
        if paid || bytes > 100_000 {
            return Some(Outcome::Error);
        }
        self.paid.retain(|_, (since, ..)| now < *since + LIFETIME);
        let proven = self.histories.get(&addr).is_some_and(|one| one.proof.is_some());
        let ours = proven || self.ips.contains(&addr.ip);
        let old = self.paid.get(&addr).copied();
        let mut all = self.paid.clone();
        let (since, sum, was_ours) = old.unwrap_or((now, 0, false));
        all.insert(addr, (since, sum + bytes, was_ours || ours));
        let sum = |counts: &dyn Fn(&Addr, bool) -> bool| -> u64 {
            let counted = all.iter().filter(|(of, (_, _, ours))| counts(of, *ours));
            counted.map(|(_, (_, bytes, _))| bytes).sum()
        };
        let sums = [sum(&|of, _| *of == addr), sum(&|_, ours| !ours), sum(&|_, _| true)];
        if sums.iter().zip(BUDGETS).any(|(sum, budget)| *sum > budget) {
            return Some(Outcome::Declined);
        }
        self.paid = all;
        None
    }

    fn dialled_back(&mut self, now: Instant, stream: StreamId, body: &bytes::Bytes) {
        let conn = self.streams.get(&stream).and_then(|conn| self.conns.get(conn));
        let (Some(conn), Ok(said)) = (conn, DialBack::decode(body)) else { return };
        let Some(ask) = self.asks.get_mut(&said.nonce) else { return };
        let is_late = match ask.phase {
            Phase::Over { until } if until <= now => return,
            Phase::Over { .. } => true,
            Phase::Open { .. } | Phase::Awaits { .. } => false,
        };
        let is_fresh = conn.facts.side == Side::Inbound && conn.event > ask.event;
        if ask.arrived || !is_fresh || conn.facts.local.class() != ask.addr.class() {
            return;
        }
        ask.arrived = true;
        let (peer, addr) = (ask.peer, ask.addr);
        let awaited = matches!(ask.phase, Phase::Awaits { .. });
        let (stranger, port) = (conn.stranger, conn.facts.local.port);
        if let Some(server) = self.servers.get_mut(&peer) {
            server.multihomed |= stranger;
            if is_late {
                server.proved_late();
            }
        }
        if let Some(history) = self.histories.get_mut(&addr) {
            history.proof = Some((now, port));
            history.refuted = false;
            history.failed.clear();
            history.said.clear();
            history.said.insert(peer);
            if stranger {
                history.by_stranger = Some(now);
                history.cold.clear();
                history.refusals = 0;
            }
        }
        if is_late {
            self.counts.count("proved late");
            self.ends.push((peer, addr, Outcome::Proved));
        } else if awaited {
            let done = |ask: &Ask| ask.arrived && matches!(ask.phase, Phase::Awaits { .. });
            self.end_all(now, done, Outcome::Proved, true);
        }
    }

    fn time(&mut self, now: Instant) {
        let overdue = |ask: &Ask| matches!(ask.phase, Phase::Open { until, .. } if until <= now);
        self.end_all(now, overdue, Outcome::Timeout, true);
        let lies = |ask: &Ask| matches!(ask.phase, Phase::Awaits { until } if until <= now);
        self.end_all(now, lies, Outcome::Lie, true);
    }

    /// The ground moved: what was asked is asked no more, by nobody's fault.
    fn take_back(&mut self, now: Instant) {
        self.end_all(now, Ask::is_running, Outcome::Error, false);
    }

    /// These probes end so; `counts` says whether it is held against anybody.
    fn end_all(
        &mut self,
        now: Instant,
        which: impl Fn(&Ask) -> bool,
        outcome: Outcome,
        counts: bool,
    ) {
        for ask in self.asks.values_mut().filter(|ask| ask.is_running() && which(ask)) {
            let outcome = if ask.arrived { Outcome::Proved } else { outcome };
            // A nonce that came while the answer was awaited ends the probe; before, the answer does.
            ask.phase = Phase::Over { until: now + LATE };
            self.counts.count(outcome.name());
            self.ends.push((ask.peer, ask.addr, outcome));
            if !counts {
                continue;
            }
            if let Some(server) = self.servers.get_mut(&ask.peer) {
                server.ended(now, ask.addr.class(), outcome);
            }
            let Some(history) = self.histories.get_mut(&ask.addr) else { continue };
            history.said.insert(ask.peer);
            if outcome == Outcome::DialFailed {
                history.failed.insert(ask.group);
                if ask.cold {
                    history.cold.insert(ask.group, now);
                    history.refusals += 1;
                }
            }
        }
    }

    /// The questions that the agent asks, and how it says that others ended.
    fn orders(&mut self, step: &Step) -> Result<(), String> {
        self.meet_servers();
        let mut ended = Vec::new();
        for action in &step.actions {
            match action {
                Action::OpenStream { conn, stream } => {
                    self.streams.insert(*stream, *conn);
                }
                Action::Send { stream, body } if stream.protocol == Protocol::DialRequest => {
                    if let Ok(Message::DialRequest { addrs, nonce }) = Message::decode(body) {
                        self.asked(step.at, *stream, &addrs, nonce)?;
                    }
                }
                Action::Notify(Notice::ProbeEnded { peer, addr, outcome }) => {
                    ended.push((*peer, *addr, *outcome));
                }
                _ => {}
            }
        }
        ended.sort();
        self.ends.sort();
        if ended != self.ends {
            return Err(format!("at {} {ended:?} ended, and {:?} must", step.at, self.ends));
        }
        Ok(())
    }

    fn meet_servers(&mut self) {
        for conn in self.conns.values().filter(|conn| conn.server) {
            let server = self.servers.entry(conn.facts.peer).or_default();
            server.met(conn.facts.remote.class());
        }
    }

    /// The network that a server counts as: that of the first connection on which it offers.
    fn group(&self, peer: PeerId) -> Option<Group> {
        let of_peer = |conn: &&Conn| conn.facts.peer == peer && conn.server;
        self.conns.values().find(of_peer).map(|conn| Group::prefix(conn.facts.remote.ip))
    }

    fn asked(
        &mut self,
        now: Instant,
        stream: StreamId,
        addrs: &[bytes::Bytes],
        nonce: u64,
    ) -> Result<(), String> {
        let [Ok(Decoded::Direct { addr, .. })] =
            addrs.iter().map(|one| decode(one)).collect::<Vec<_>>()[..]
        else {
            return Err(format!("{stream} asks about {addrs:?}"));
        };
        let conn = *self.streams.get(&stream).ok_or("a question on no stream")?;
        let peer = self.conns.get(&conn).filter(|one| one.server).map(|one| one.facts.peer);
        let peer = peer.ok_or_else(|| format!("{stream} asks on {conn}, where nobody offers"))?;
        let server = self.servers.get(&peer).ok_or("a server that was never met")?;
        if server.is_barred(now, addr.class()) {
            return Err(format!("{stream} asks about {addr}, and {conn} is at rest: {server:?}"));
        }
        if !self.listens(addr.class()) {
            return Err(format!("{stream} asks about {addr}, where nothing listens"));
        }
        let group = self.group(peer).ok_or("a server without a network")?;
        let cold = server.is_cold(addr.class().family);
        let phase = Phase::Open { until: now + ANSWER, paid: false };
        let (event, arrived) = (self.event, false);
        self.histories.entry(addr).or_default();
        let ask = Ask { stream, conn, peer, group, addr, event, cold, arrived, phase };
        self.asks.insert(nonce, ask);
        Ok(())
    }

    /// After a move, what is no candidate any more begins anew, and all else is in doubt.
    fn forget(&mut self, bench: &Bench) {
        let explained = bench.agent().explain();
        let known = |addr: &Addr| {
            explained.addresses.iter().any(|one| one.addr == *addr && !one.sources.is_empty())
        };
        let listened: BTreeSet<Class> = self.listeners.values().map(|one| one.class()).collect();
        self.histories.retain(|addr, _| known(addr) && listened.contains(&addr.class()));
        for history in self.histories.values_mut() {
            history.failed.clear();
            history.said.clear();
        }
    }

    fn listens(&self, class: Class) -> bool {
        self.listeners.values().any(|one| one.class() == class)
    }
}

/// Verdicts.
impl Verdicts {
    fn judge(&mut self, step: &Step) -> Result<(), String> {
        for action in &step.actions {
            if let Action::Notify(Notice::NotIdentified { conn, .. }) = action
                && let Some(conn) = self.conns.get_mut(conn)
            {
                conn.asking = false;
            }
        }
        for action in &step.actions {
            if let Action::Notify(Notice::VerdictChanged { addr, state, .. }) = action
                && *state == State::Unreachable
            {
                let why = self.why_not_refuted(step.at, *addr);
                let Some(history) = self.histories.get_mut(addr) else { continue };
                if !history.refuted {
                    if let Some(why) = why {
                        return Err(format!("at {} {addr} is refuted, and {why}", step.at));
                    }
                    if history.reachable {
                        self.counts.count("refuted after a proof");
                    }
                    history.refuted = true;
                }
            }
        }
        let addrs: Vec<Addr> = self.histories.keys().copied().collect();
        for addr in addrs {
            self.must_be_refuted(step.at, addr)?;
            let reachable = self.verdict(step.at, addr).0 == State::Reachable;
            self.histories.entry(addr).and_modify(|history| history.reachable = reachable);
        }
        Ok(())
    }

    /// Who in reach could still say something about an address.
    fn silent(&self, now: Instant, addr: Addr, history: &History) -> Option<PeerId> {
        let offers = self.conns.values().filter(|conn| conn.server).map(|conn| conn.facts.peer);
        let peers: BTreeSet<PeerId> = offers.collect();
        peers.into_iter().find(|peer| {
            let heard = self.group(*peer).is_some_and(|group| history.failed.contains(&group));
            let barred = self.servers.get(peer).is_some_and(|one| one.is_barred(now, addr.class()));
            !heard && !barred && !history.said.contains(peer)
        })
    }

    fn why_not_refuted(&self, now: Instant, addr: Addr) -> Option<String> {
        let history = self.histories.get(&addr)?;
        if history.failed.is_empty() {
            return Some("nobody failed to dial it".to_owned());
        }
        if let Some(ask) = self.asks.values().find(|ask| ask.is_running() && ask.addr == addr) {
            return Some(format!("{ask:?} still runs"));
        }
        if let Some(conn) = self.conns.values().find(|conn| conn.asking) {
            return Some(format!("{conn:?} has not said what it serves"));
        }
        self.silent(now, addr, history).map(|peer| format!("{peer} was not asked"))
    }

    /// What was never proven, and everybody in reach failed to dial, is refuted at once.
    fn must_be_refuted(&self, now: Instant, addr: Addr) -> Result<(), String> {
        let Some(history) = self.histories.get(&addr) else { return Ok(()) };
        let (never, listens) = (history.proof.is_none(), self.listens(addr.class()));
        if !never || history.refuted || !listens || self.why_not_refuted(now, addr).is_some() {
            return Ok(());
        }
        let only_failures = history
            .said
            .iter()
            .all(|peer| self.group(*peer).is_none_or(|group| history.failed.contains(&group)));
        if only_failures {
            return Err(format!("at {now} {addr} must be refuted: {history:?}"));
        }
        Ok(())
    }

    fn verdict(&self, now: Instant, addr: Addr) -> (State, Option<Scope>) {
        let unknown = (State::Unknown, None);
        let Some(history) = self.histories.get(&addr).filter(|_| self.listens(addr.class())) else {
            return unknown;
        };
        if history.refuted {
            return (State::Unreachable, None);
        }
        let Some((at, port)) = history.proof else { return unknown };
        let sighting = self.sightings.get(&addr).filter(|(_, one)| *one == port).map(|(at, _)| *at);
        let renewed = sighting.filter(|_| history.reachable).map_or(at, |seen| seen.max(at));
        if now >= renewed + LIFETIME {
            return unknown;
        }
        let fresh = |at: &Instant| now < *at + LIFETIME;
        let scope = if history.by_stranger.iter().chain(sighting.iter()).any(fresh) {
            Scope::Anywhere
        } else {
            history.without_strangers(now)
        };
        (State::Reachable, Some(scope))
    }

    /// A proof that has aged out has its own name.
    fn reason(&mut self, addr: Addr, reason: Reason) -> Result<(), String> {
        let history = self.histories.get(&addr);
        let aged = history.is_some_and(|one| one.proof.is_some() && !one.refuted && !one.reachable);
        let expired = reason == Reason::Expired;
        if expired != (aged && self.listens(addr.class())) {
            return Err(format!("{addr} is {reason:?}, and its proof aged out: {aged}"));
        }
        if expired {
            self.counts.count("expired");
        }
        Ok(())
    }

    fn note(&mut self, (state, scope): (State, Option<Scope>)) {
        match scope {
            Some(scope) => self.counts.count(&format!("reachable {}", scope.name())),
            None => self.counts.count(state.name()),
        }
    }
}
