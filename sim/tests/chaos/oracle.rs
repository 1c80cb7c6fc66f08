//! What must hold after every event, told from the world's own books alone.

use crate::world::{Ask, Lab, World};
use bytes::Bytes;
use portolan_core::wire::autonat::DialBack;
use portolan_core::wire::identify::Identify;
use portolan_core::wire::multiaddr::{self, Decoded};
use portolan_core::{
    Action, Addr, Agent, ConnId, Dial, Duration, Event, Instant, IpScope, Notice, Outcome, PeerId,
    Protocol, Scope, Side, State, StreamId, Verdict, ip_scope,
};
use std::collections::{BTreeMap, BTreeSet};

/// How long a proof lasts (design §3 reachability).
const PROOF_LASTS: Duration = Duration::from_secs(600);
/// Dial data in one window of ten minutes, bytes (core's own constant; a sliding window can cut
/// two of its fixed ones).
const DATA_BUDGET: u64 = 800_000;
/// What the last chunk of one demand may be longer than what is missing.
const CHUNK: u64 = 4_096;

/// The longest sleep after which nothing is in doubt: the pause between two pings.
const NAP: Duration = Duration::from_secs(25);

/// How long a dial-back keeps its slot if the runtime never says how it ended.
const SLOT_LASTS: Duration = Duration::from_secs(14);

/// What happened in a run: a run in which nothing happens proves nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) events: u64,
    pub(crate) outcomes: BTreeMap<Outcome, u64>,
    pub(crate) reachable: u64,
    pub(crate) anywhere: u64,
    pub(crate) unreachable: u64,
    pub(crate) refuted: u64,
    pub(crate) expired: u64,
    pub(crate) dials: u64,
    pub(crate) served: u64,
    pub(crate) paid: u64,
    /// Sleeps, those of which were long, and probes that ran during one.
    pub(crate) sleeps: u64,
    pub(crate) long_sleeps: u64,
    pub(crate) slept_through: u64,
}

impl Seen {
    pub(crate) fn add(&mut self, other: &Seen) {
        self.events += other.events;
        for (outcome, count) in &other.outcomes {
            *self.outcomes.entry(*outcome).or_default() += count;
        }
        self.reachable += other.reachable;
        self.anywhere += other.anywhere;
        self.unreachable += other.unreachable;
        self.refuted += other.refuted;
        self.expired += other.expired;
        self.dials += other.dials;
        self.served += other.served;
        self.paid += other.paid;
        self.sleeps += other.sleeps;
        self.long_sleeps += other.long_sleeps;
        self.slept_through += other.slept_through;
    }

    /// Every outcome there is, every verdict, and the service's work must have occurred.
    pub(crate) fn demand_variety(&self) {
        self.demand_proofs();
        for outcome in [
            Outcome::Refused,
            Outcome::Rejected,
            Outcome::Error,
            Outcome::DialBackError,
            Outcome::Timeout,
            Outcome::Lie,
            Outcome::Declined,
        ] {
            assert!(self.outcomes.contains_key(&outcome), "no {outcome:?} occurred: {self:?}");
        }
        assert!(self.dials > 0 && self.served > 0, "nobody was served: {self:?}");
        assert!(self.paid > 0, "no dial data was paid: {self:?}");
    }

    pub(crate) fn demand_proofs(&self) {
        assert!(self.reachable > 0 && self.anywhere > 0, "nothing was proved: {self:?}");
        assert!(self.unreachable > 0 && self.refuted > 0, "nothing was refuted: {self:?}");
        assert!(self.expired > 0, "nothing aged out: {self:?}");
        let slept = [self.sleeps, self.long_sleeps, self.slept_through];
        assert!(slept.iter().all(|count| *count > 0), "nobody slept: {self:?}");
    }
}

/// Whether it is held against an address or a server.
fn is_accusation(outcome: Outcome) -> bool {
    matches!(
        outcome,
        Outcome::DialFailed | Outcome::DialBackError | Outcome::Timeout | Outcome::Lie
    )
}

/// Whether the ground moved: other sockets, or another network.
fn is_move(event: &Event) -> bool {
    matches!(
        event,
        Event::InterfacesChanged { .. }
            | Event::ListenerOpened { .. }
            | Event::ListenerClosed { .. }
    )
}

/// The books of evidence.
#[derive(Clone, Debug, Default)]
pub(crate) struct Oracle {
    pub(crate) seen: Seen,
    /// The last proof of each address.
    proved_at: BTreeMap<Addr, Instant>,
    /// Until when each address may be called reachable.
    valid_until: BTreeMap<Addr, Instant>,
    /// Until when it may be called reachable from anywhere.
    anywhere_until: BTreeMap<Addr, Instant>,
    /// Failures to dial an address since its last proof.
    failed: BTreeSet<Addr>,
    nonces: BTreeSet<u64>,
    streams: BTreeSet<StreamId>,
    told: BTreeSet<Addr>,
    paid: Vec<(Instant, u64)>,
    /// What each connection's peer said last about us.
    observed: BTreeMap<ConnId, Addr>,
}

impl Oracle {
    /// Whether this stream was never opened before.
    pub(crate) fn is_new(&mut self, stream: StreamId) -> bool {
        self.streams.insert(stream)
    }

    /// The agent paid dial data.
    pub(crate) fn paid(&mut self, now: Instant, bytes: usize) {
        let bytes = u64::try_from(bytes).expect("a chunk is small");
        self.seen.paid += bytes;
        self.paid.retain(|(at, _)| now < *at + PROOF_LASTS);
        self.paid.push((now, bytes));
    }

    /// A dial-back has one destination, somebody waits for it, and it is nobody's private host.
    pub(crate) fn dialled(&self, world: &World, dial: &Dial) {
        let wanted = world.requested.values().any(|addrs| addrs.contains(&dial.addr));
        assert!(wanted, "{dial:?} was in no request that is open");
        if world.lab != Lab::Private {
            assert_eq!(ip_scope(dial.addr.ip), IpScope::Global, "{dial:?}");
        }
        let own = world.listeners.values().any(|own| *own == dial.addr);
        assert!(!own, "{dial:?} is a socket of the agent's own");
        assert!(dial.timeout <= Duration::from_secs(10), "{dial:?}");
        let flying = world.dials.iter().filter(|(_, at)| world.now < *at + SLOT_LASTS).count();
        assert!(flying < 8, "dials in flight are bounded");
    }

    /// What the event proves, by the rules of design §3 alone, told before the agent hears of it.
    /// Returns the question proved.
    pub(crate) fn evidence(&mut self, world: &mut World, event: &Event) -> Option<StreamId> {
        match event {
            Event::Frame { stream, body } => match (stream.side, stream.protocol) {
                (Side::Inbound, Protocol::DialBack) => self.proof(world, *stream, body),
                (Side::Outbound, Protocol::Identify) | (Side::Inbound, Protocol::IdentifyPush) => {
                    let conn = world.streams.get(stream)?.conn;
                    let observed = Identify::decode(body).ok()?.observed;
                    let observed = observed.and_then(|bytes| multiaddr::decode(&bytes).ok());
                    let addr = match observed {
                        Some(Decoded::Direct { addr, .. }) => Some(addr),
                        _ => self.observed.get(&conn).copied(),
                    };
                    if let Some(addr) = addr {
                        self.sighted(world, conn, addr);
                    }
                    None
                }
                _ => None,
            },
            Event::Observed { conn, observed } => {
                self.sighted(world, *conn, *observed);
                None
            }
            _ => None,
        }
    }

    fn proof(&mut self, world: &mut World, stream: StreamId, body: &Bytes) -> Option<StreamId> {
        if !world.silent.remove(&stream) {
            return None;
        }
        let conn = world.conns.get(&world.streams.get(&stream)?.conn)?;
        let nonce = DialBack::decode(body).ok()?.nonce;
        let (came, stranger, facts) = (conn.event, conn.stranger, conn.facts.clone());
        let ask = world.asks.iter_mut().find(|ask| ask.nonce == nonce)?;
        let fresh = facts.side == Side::Inbound && !facts.relayed && came > ask.event;
        if !fresh || ask.delivered || facts.local.class() != ask.addr.class() {
            return None;
        }
        ask.delivered = true;
        let until = world.now + PROOF_LASTS;
        self.proved_at.insert(ask.addr, world.now);
        self.valid_until.insert(ask.addr, until);
        if stranger {
            self.anywhere_until.insert(ask.addr, until);
        }
        Some(ask.stream)
    }

    /// A stranger who came in and says that he dialled this address renews what is proven.
    fn sighted(&mut self, world: &World, conn: ConnId, addr: Addr) {
        self.observed.insert(conn, addr);
        let Some(conn) = world.conns.get(&conn) else { return };
        if conn.facts.side == Side::Outbound || !conn.stranger {
            return;
        }
        let until = world.now + PROOF_LASTS;
        if let Some(valid) = self.valid_until.get_mut(&addr)
            && world.now < *valid
        {
            *valid = until;
        }
        self.anywhere_until.insert(addr, until);
    }

    /// Everything, after one event.
    pub(crate) fn check(
        &mut self,
        world: &mut World,
        before: &Agent,
        (event, delivered): (&Event, Option<StreamId>),
        actions: &[Action],
    ) {
        self.seen.events += 1;
        if let Some(deadline) = world.agent.deadline() {
            assert!(deadline.at > world.now, "{deadline:?} has passed at {}", world.now);
        }
        self.notices(world, delivered, actions);
        if let Event::Resumed { slept } = event {
            self.resumed(world, before, *slept, actions);
        }
        self.limits(world);
        self.verdicts(world, before, is_move(event), delivered.is_some());
        self.advertised(world, actions);
    }

    fn notices(&mut self, world: &mut World, delivered: Option<StreamId>, actions: &[Action]) {
        for action in actions {
            let Action::Notify(notice) = action else { continue };
            match notice {
                Notice::ProbeEnded { peer, addr, outcome } => {
                    *self.seen.outcomes.entry(*outcome).or_default() += 1;
                    if *outcome == Outcome::DialFailed {
                        self.failed.insert(*addr);
                    }
                    let late = |ask: &Ask| Some(ask.stream) == delivered && ask.ended;
                    if *outcome == Outcome::Proved && world.asks.iter().any(late) {
                        continue;
                    }
                    let open = world
                        .asks
                        .iter_mut()
                        .find(|ask| !ask.ended && ask.peer == *peer && ask.addr == *addr);
                    let ask = open.unwrap_or_else(|| panic!("{notice:?} was never asked"));
                    ask.ended = true;
                    assert!(
                        *outcome != Outcome::Proved || ask.delivered,
                        "{notice:?} without a nonce"
                    );
                    self.seen.slept_through += u64::from(ask.slept);
                    assert!(
                        !ask.slept || !is_accusation(*outcome),
                        "{notice:?}, though we slept while it ran"
                    );
                }
                Notice::AdvertisedChanged { added, removed } => {
                    for addr in removed {
                        assert!(self.told.remove(addr), "{addr} was not told before");
                    }
                    for addr in added {
                        assert!(self.told.insert(*addr), "{addr} is told twice");
                    }
                }
                Notice::DialBackServed { .. } => self.seen.served += 1,
                Notice::VerdictChanged { state: State::Unreachable, .. } => {
                    self.seen.unreachable += 1;
                }
                _ => {}
            }
        }
        self.seen.dials +=
            actions.iter().filter(|one| matches!(one, Action::Dial(_))).count() as u64;
        for ask in world.asks.iter().filter(|ask| ask.event == world.events) {
            assert!(self.nonces.insert(ask.nonce), "nonce {} a second time", ask.nonce);
        }
    }

    /// A sleep costs nobody anything, and after a long one everything is validated anew.
    fn resumed(&mut self, world: &World, before: &Agent, slept: Duration, actions: &[Action]) {
        let last = before.explain();
        let all_asleep = slept >= world.now.since(last.at);
        self.seen.sleeps += u64::from(!slept.is_zero());
        for action in actions {
            let Action::Notify(notice) = action else { continue };
            let overdue = matches!(
                notice,
                Notice::NotIdentified { .. }
                    | Notice::DialBackServed { .. }
                    | Notice::FullyConnected { .. }
                    | Notice::ServerDistrusted { .. }
            );
            assert!(!overdue || !all_asleep, "{notice:?} after a sleep of {slept:?}");
            let refuted =
                matches!(notice, Notice::VerdictChanged { state: State::Unreachable, .. });
            assert!(!refuted || !all_asleep, "{notice:?} after a sleep of {slept:?}");
        }
        let now = world.agent.explain();
        let met = |peer| now.servers.iter().any(|server| server.peer == peer);
        assert!(last.servers.iter().all(|server| met(server.peer)), "a server was forgotten");
        if slept <= NAP {
            let pinged = actions.iter().any(|action| matches!(action, Action::ResetStream { .. }));
            assert!(!pinged || !all_asleep, "nothing is given up after a nap");
            return;
        }
        self.seen.long_sleeps += 1;
        let asked = world.asks.iter().filter(|ask| ask.event < world.events);
        let open: Vec<&Ask> = asked.filter(|ask| !ask.ended).collect();
        assert!(open.is_empty(), "{open:?} still run after a sleep of {slept:?}");
        // One ping at a time to each peer; as many as here are all pinged at once.
        let direct =
            || world.conns.values().filter(|conn| !conn.facts.relayed && conn.facts.dial.is_none());
        let pinged: BTreeSet<PeerId> = actions
            .iter()
            .filter_map(|action| match action {
                Action::OpenStream { conn, stream } if stream.protocol == Protocol::Ping => {
                    Some(world.conns.get(conn)?.facts.peer)
                }
                _ => None,
            })
            .collect();
        for conn in direct().take(64) {
            assert!(pinged.contains(&conn.facts.peer), "{conn:?} was not pinged after {slept:?}");
        }
    }

    /// The limits that keep us polite.
    fn limits(&self, world: &World) {
        let minute = Duration::from_secs(60);
        let in_flight: Vec<&Ask> = world.asks.iter().filter(|ask| !ask.ended).collect();
        assert!(in_flight.len() <= 8, "{} probes in flight", in_flight.len());
        let mut recent: BTreeMap<_, (u32, u32)> = BTreeMap::new();
        for ask in &world.asks {
            let counts = recent.entry(ask.peer).or_default();
            counts.0 += u32::from(!ask.ended);
            counts.1 += u32::from(world.now < ask.at + minute);
        }
        for (peer, (flying, minute)) in recent {
            assert!(flying <= 2, "{flying} probes in flight at {peer}");
            // Eight, and four in place of those that were lost with their connections.
            assert!(minute <= 12, "{minute} probes of {peer} in a minute");
        }
        let spent: u64 = self.paid.iter().map(|(_, bytes)| bytes).sum();
        assert!(spent <= 2 * (DATA_BUDGET + CHUNK * 8), "{spent} bytes of dial data in a window");
    }

    fn verdicts(&mut self, world: &World, before: &Agent, moved: bool, proved: bool) {
        let now = world.now;
        for (addr, verdict) in world.agent.reachability().addresses() {
            match verdict {
                Verdict::Reachable { proof, scope, until, .. } => {
                    self.seen.reachable += 1;
                    if proved && proof.at() == now {
                        self.failed.remove(&addr);
                    }
                    assert!(now < *until, "{addr} is reachable until the past");
                    let valid = self.valid_until.get(&addr).is_some_and(|at| now < *at);
                    assert!(valid, "{addr} is called reachable without a fresh proof");
                    let listened = world.listeners.values().any(|one| one.class() == addr.class());
                    assert!(listened, "{addr} is called reachable and nothing listens");
                    if *scope == Scope::Anywhere {
                        self.seen.anywhere += 1;
                        let known = self.anywhere_until.get(&addr).is_some_and(|at| now < *at);
                        assert!(known, "{addr} is called open to strangers, and none came in");
                    }
                }
                Verdict::Unreachable { .. } => {
                    assert!(self.failed.contains(&addr), "{addr} is refuted without a failure");
                }
                _ => {}
            }
        }
        for (addr, old) in before.reachability().addresses() {
            let Verdict::Reachable { until, .. } = old else { continue };
            let new = world.agent.reachability().verdict(addr);
            match new.map(Verdict::state) {
                Some(State::Reachable) => {}
                Some(State::Unreachable) => {
                    self.seen.refuted += 1;
                    let waiting = world
                        .asks
                        .iter()
                        .find(|ask| !ask.ended && ask.addr == addr && ask.event < world.events);
                    assert!(waiting.is_none(), "{addr} is given up, and {waiting:?} still runs");
                }
                Some(State::Unknown) | None => {
                    self.seen.expired += 1;
                    let listened = world.listeners.values().any(|one| one.class() == addr.class());
                    let proved = self.proved_at.get(&addr).copied().unwrap_or_default();
                    let unnamed = new.is_none() && (moved || now >= proved + PROOF_LASTS);
                    assert!(
                        now >= *until || !listened || unnamed,
                        "{addr} flipped to {new:?} without a new fact"
                    );
                }
            }
        }
    }

    fn advertised(&self, world: &World, actions: &[Action]) {
        for addr in &self.told {
            let scope = world.agent.reachability().verdict(*addr).and_then(Verdict::scope);
            let worth = matches!(scope, Some(Scope::Anywhere | Scope::Contacted));
            assert!(worth, "{addr} is told to peers, being {scope:?}");
        }
        if actions.is_empty() {
            return;
        }
        let explained = world.agent.explain();
        assert!(explained.advertised.iter().eq(self.told.iter()), "notices tell what is told");
        assert!(explained.addresses.len() <= 128 && explained.servers.len() <= 256);
    }
}
