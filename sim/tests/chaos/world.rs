//! The world around one agent: it invents facts, hands them in one by one, and keeps books.

use crate::oracle::Oracle;
use libp2p_identity::Keypair;
use portolan_core::wire::autonat::Message;
use portolan_core::{
    Action, Actions, Addr, Agent, Channel, Config, ConnId, Connected, Cx, Dial, DialBackConfig,
    DialId, Draw, Duration, Event, Instant, ListenerId, MappingConfig, PeerId, Protocol,
    RelayConfig, RelayServerConfig, Side, Signer, StreamEnd, StreamId, UnixTime, wire::multiaddr,
};
use portolan_sim::relays::Relays;
use portolan_sim::routers::Routers;
use portolan_sim::tape::Tape;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;

/// Peers that a world knows; fixed keys, so that runs repeat.
pub(crate) const PEERS: usize = 12;

/// Where peers are.
pub(crate) const REMOTES: [&str; 14] = [
    "44.0.1.1",
    "44.0.1.2",
    "44.0.2.1",
    "44.0.3.1",
    "44.0.4.1",
    "44.0.5.1",
    "44.0.6.1",
    "44.0.7.1",
    "44.0.8.1",
    "2600:1::1",
    "2600:2::1",
    "2600:3::1",
    "10.9.9.9",
    "127.0.0.9",
];
/// Where peers may say that we are.
pub(crate) const OURS: [&str; 6] =
    ["99.0.0.7", "99.0.0.7", "192.168.1.2", "2600:99::7", "99.0.0.8", "127.0.0.1"];

static KEYS: LazyLock<Vec<Keypair>> = LazyLock::new(|| {
    let key = |n: u8| Keypair::ed25519_from_bytes([n + 1; 32]).expect("any 32 bytes are a key");
    (0..=u8::try_from(PEERS).expect("a small number")).map(key).collect()
});

/// The key of a peer; number [`PEERS`] is the agent's own.
pub(crate) fn key(n: usize) -> &'static Keypair {
    &KEYS[n.min(PEERS)]
}

fn unix(now: Instant) -> UnixTime {
    UnixTime::from_millis(1_700_000_000_000 + now.as_nanos() / 1_000_000)
}

/// Which kind of agent is put to the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lab {
    /// Production mode, serving dial-backs.
    Internet,
    /// Private addresses allowed, serving dial-backs.
    Private,
    /// Production mode, the embedder runs identify, no service.
    Embedder,
}

/// Numbers that never repeat: a bijection of a counter.
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Draw for Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.next().checked_rem(n).unwrap_or(0)
    }

    fn nonce(&mut self) -> u64 {
        self.next()
    }
}

/// Signatures are not what is tested here.
struct Stamp;

impl Signer for Stamp {
    fn sign(&mut self, _: &[u8]) -> Vec<u8> {
        vec![7; 64]
    }
}

/// A stream as the world sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    pub(crate) conn: ConnId,
    /// The agent has finished or dropped its side, or the world has dropped it.
    pub(crate) mute: bool,
}

/// A question that the agent asked a server.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) stream: StreamId,
    pub(crate) peer: PeerId,
    pub(crate) addr: Addr,
    pub(crate) nonce: u64,
    pub(crate) at: Instant,
    /// The number of the event in which it was asked.
    pub(crate) event: u64,
    pub(crate) ended: bool,
    pub(crate) delivered: bool,
    /// Whether the machine slept while it ran.
    pub(crate) slept: bool,
}

/// A connection as the world sees it.
#[derive(Clone, Debug)]
pub(crate) struct Conn {
    pub(crate) facts: Connected,
    /// The number of the event in which it came up.
    pub(crate) event: u64,
    /// Its IP had not been contacted then.
    pub(crate) stranger: bool,
}

/// The agent and everything around it.
pub(crate) struct World {
    pub(crate) lab: Lab,
    pub(crate) agent: Agent,
    chance: Chance,
    actions: Actions,
    pub(crate) now: Instant,
    /// What the wall clock shows, and how far it goes forward when it is set forward.
    unix_ms: u64,
    unix_direction: i64,
    pub(crate) events: u64,
    next_id: u64,
    pub(crate) listeners: BTreeMap<ListenerId, Addr>,
    pub(crate) conns: BTreeMap<ConnId, Conn>,
    pub(crate) streams: BTreeMap<StreamId, Stream>,
    pub(crate) asks: Vec<Ask>,
    pub(crate) dials: Vec<(Dial, Instant)>,
    /// What peers asked the agent to dial, as long as they wait.
    pub(crate) requested: BTreeMap<StreamId, Vec<Addr>>,
    pub(crate) contacted: BTreeMap<IpAddr, Instant>,
    /// Dial-back streams opened towards the agent that have said nothing.
    pub(crate) silent: BTreeSet<StreamId>,
    /// Pings of the agent's, with what they said.
    pub(crate) pings: Vec<(StreamId, bytes::Bytes)>,
    pub(crate) routers: Routers,
    pub(crate) relays: Relays,
    /// The last relays that were to be dialled.
    pub(crate) told_to_connect: Vec<(PeerId, Addr)>,
    /// The last datagrams that routers were sent.
    pub(crate) told_routers: Vec<(Channel, SocketAddr, bytes::Bytes)>,
    pub(crate) oracle: Oracle,
    tape: Tape,
}

/// One record in so many is redacted as well, number; ours: it takes as long as all the rest.
const REDACTED_ONE_IN: u64 = 16;

/// After which steps a part of the record is tried: some in every run, and few in a flood.
fn is_begun_after(step: u64) -> bool {
    step.is_power_of_two() || step < 500 && step.is_multiple_of(61)
}

impl World {
    pub(crate) fn new(lab: Lab) -> World {
        let mut config = Config::default();
        config.allow_private = lab == Lab::Private;
        config.identify = lab != Lab::Embedder;
        if lab != Lab::Embedder {
            config.dial_back = Some(DialBackConfig::default());
            config.mapping = Some(MappingConfig::default());
            config.relay = Some(RelayConfig::default());
            config.relay_server = Some(RelayServerConfig::default());
        }
        let agent = Agent::new(config, key(PEERS).public()).expect("a plain configuration");
        let now = Instant::from_millis(1_000);
        World {
            lab,
            tape: Tape::of(&agent, now, unix(now), is_begun_after),
            agent,
            chance: Chance(1),
            actions: Actions::new(),
            now,
            unix_ms: unix(Instant::ZERO).as_millis(),
            unix_direction: 1,
            events: 0,
            next_id: 0,
            listeners: BTreeMap::new(),
            conns: BTreeMap::new(),
            streams: BTreeMap::new(),
            asks: Vec::new(),
            dials: Vec::new(),
            requested: BTreeMap::new(),
            contacted: BTreeMap::new(),
            silent: BTreeSet::new(),
            pings: Vec::new(),
            routers: Routers::default(),
            relays: Relays::default(),
            told_to_connect: Vec::new(),
            told_routers: Vec::new(),
            oracle: Oracle::default(),
        }
    }

    /// A fresh number for a connection, a listener or a stream of the world's.
    pub(crate) fn fresh(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// A world in which the wall clock shows another time, and is set the other way.
    pub(crate) fn with_another_clock(lab: Lab) -> World {
        World { unix_ms: 1_000, unix_direction: -1, ..World::new(lab) }
    }

    pub(crate) fn pass(&mut self, span: Duration) {
        self.now = self.now + span;
    }

    pub(crate) fn suspend(&mut self, span: Duration, how: u8) {
        let slept = match how {
            // A caller that cannot count.
            0..8 => Duration::MAX,
            8..16 => Duration::from_nanos(u64::MAX),
            16..24 => Duration::ZERO,
            24.. => span,
        };
        // Part of the time it may have been awake.
        let awake = if how.is_multiple_of(3) { u64::from(how) * 50 } else { 0 };
        self.pass(span + Duration::from_millis(awake));
        self.step(Event::Resumed { slept });
    }

    pub(crate) fn set_clock(&mut self, hours: i16) {
        let millis = i64::from(hours) * 3_600_000 * self.unix_direction;
        self.unix_ms = self.unix_ms.saturating_add_signed(millis);
    }

    pub(crate) fn unix(&self) -> UnixTime {
        UnixTime::from_millis(self.unix_ms.saturating_add(self.now.as_nanos() / 1_000_000))
    }

    /// Hand in one fact, without the costly comparison with a twin: for floods.
    pub(crate) fn push(&mut self, event: Event) -> Vec<Action> {
        self.events += 1;
        self.book(&event);
        let mut cx = Cx {
            now: self.now,
            unix: self.unix(),
            draw: &mut self.chance,
            sign: &mut Stamp,
            actions: &mut self.actions,
        };
        self.tape.handle(&mut self.agent, &mut cx, event);
        let actions: Vec<Action> = self.actions.drain().collect();
        for action in &actions {
            self.obey(action);
        }
        actions
    }

    /// Hand in one fact, and check every promise.
    pub(crate) fn step(&mut self, event: Event) -> Vec<Action> {
        let mut twin = self.agent.clone();
        let mut chance = self.chance.clone();
        let mut copied = Actions::new();
        let before = self.agent.clone();
        let mut cx = Cx {
            now: self.now,
            unix: self.unix(),
            draw: &mut chance,
            sign: &mut Stamp,
            actions: &mut copied,
        };
        twin.handle(&mut cx, event.clone());
        let mut oracle = core::mem::take(&mut self.oracle);
        let delivered = oracle.evidence(self, &event);
        self.oracle = oracle;
        let actions = self.push(event.clone());
        assert_eq!(copied.as_slice(), actions, "equal inputs give equal orders: {event:?}");
        assert!(twin == self.agent, "equal inputs give equal agents: {event:?}");
        let mut oracle = core::mem::take(&mut self.oracle);
        oracle.check(self, &before, (&event, delivered), &actions);
        self.oracle = oracle;
        actions
    }

    /// Let every timer fire for a while, and then close all connections.
    pub(crate) fn drain(&mut self) {
        for _ in 0..40 {
            let Some(deadline) = self.agent.deadline() else { break };
            self.now = deadline.at;
            self.step(Event::Tick);
        }
        let conns: Vec<ConnId> = self.conns.keys().copied().collect();
        for conn in conns {
            self.step(Event::Disconnected { conn });
        }
        self.pass(Duration::from_secs(3_600));
        self.step(Event::Tick);
        let reachable = self.agent.reachability().addresses();
        let left = reachable.filter(|(_, one)| one.scope().is_some()).count();
        assert_eq!(left, 0, "nothing is proven an hour after the last peer left");
        self.replay();
        if self.tape.steps().is_multiple_of(REDACTED_ONE_IN) {
            assert_eq!(self.tape.redact(), Ok(()), "the redacted record tells the same");
        }
    }

    /// All that happened, told again out of its flight record, comes to the same.
    pub(crate) fn replay(&self) {
        let replayed = self.tape.replay(&self.agent);
        assert_eq!(replayed, Ok(()), "the flight record tells the same");
    }

    /// Whether a packet of ours opened the way for this IP.
    pub(crate) fn is_contacted(&self, ip: IpAddr) -> bool {
        let day = Duration::from_secs(24 * 3_600);
        let lives = |conn: &Conn| {
            let facts = &conn.facts;
            facts.side == Side::Outbound && !facts.relayed && facts.remote.ip == ip
        };
        self.contacted.get(&ip).is_some_and(|at| self.now < *at + day)
            || self.conns.values().any(lives)
    }

    /// What a fact changes in the books, before the agent hears of it.
    fn book(&mut self, event: &Event) {
        match event {
            Event::ListenerOpened { listener, addr } => {
                self.listeners.entry(*listener).or_insert(*addr);
            }
            Event::ListenerClosed { listener } => {
                self.listeners.remove(listener);
            }
            Event::Contacted { ip } => {
                self.contacted.insert(*ip, self.now);
            }
            Event::Connected(facts) => self.book_connection(facts),
            Event::Disconnected { conn } => {
                if let Some(gone) = self.conns.remove(conn)
                    && gone.facts.side == Side::Outbound
                    && !gone.facts.relayed
                {
                    self.contacted.insert(gone.facts.remote.ip, self.now);
                }
                self.streams.retain(|_, stream| stream.conn != *conn);
                let streams = &self.streams;
                self.requested.retain(|stream, _| streams.contains_key(stream));
                self.silent.retain(|stream| streams.contains_key(stream));
            }
            Event::Resumed { slept } if !slept.is_zero() => {
                self.asks.iter_mut().filter(|ask| !ask.ended).for_each(|ask| ask.slept = true);
            }
            Event::DialFailed { dial, .. } => self.forget_dial(*dial),
            Event::Mapping(event) => self.routers.happened(event),
            Event::Relay(event) => self.relays.happened(event),
            Event::StreamOpened { conn, stream } if stream.side == Side::Inbound => {
                let known = self.streams.contains_key(stream);
                if let Some(reused) = self.streams.get_mut(stream) {
                    // The runtime's mistake: whatever is said on it now is said anew.
                    reused.mute = false;
                }
                if self.conns.contains_key(conn) && !known {
                    self.streams.insert(*stream, Stream { conn: *conn, mute: false });
                    if stream.protocol == Protocol::DialBack {
                        self.silent.insert(*stream);
                    }
                }
            }
            Event::StreamFailed { stream, .. }
            | Event::StreamClosed { stream, end: StreamEnd::Reset | StreamEnd::BadFrame } => {
                self.streams.remove(stream);
                self.requested.remove(stream);
                self.silent.remove(stream);
            }
            _ => {}
        }
    }

    fn book_connection(&mut self, facts: &Connected) {
        if let Some(dial) = facts.dial {
            self.forget_dial(dial);
        }
        if self.conns.contains_key(&facts.conn) {
            return;
        }
        let stranger = !facts.relayed && !self.is_contacted(facts.remote.ip);
        if facts.side == Side::Outbound && !facts.relayed && facts.dial.is_none() {
            self.contacted.insert(facts.remote.ip, self.now);
        }
        let event = self.events;
        self.conns.insert(facts.conn, Conn { facts: facts.clone(), event, stranger });
    }

    fn forget_dial(&mut self, dial: DialId) {
        self.dials.retain(|(one, _)| one.dial != dial);
    }

    /// What an order changes in the books. An order that cannot be obeyed is the agent's mistake.
    fn obey(&mut self, action: &Action) {
        match action {
            Action::OpenStream { conn, stream } => {
                assert!(self.conns.contains_key(conn), "{action:?} on a dead connection");
                assert_eq!(stream.side, Side::Outbound, "{action:?}");
                let fresh = Stream { conn: *conn, mute: false };
                let old = self.streams.insert(*stream, fresh);
                assert!(old.is_none() && self.oracle.is_new(*stream), "{action:?} twice");
            }
            Action::Send { stream, body } => {
                let open = self.streams.get(stream).filter(|stream| !stream.mute);
                let conn = open.map(|stream| stream.conn);
                assert!(conn.is_some(), "{action:?} on a stream that is over");
                match (stream.side, stream.protocol) {
                    (Side::Outbound, Protocol::DialRequest) => {
                        self.asked(*stream, conn.expect("it is open"), body);
                    }
                    (Side::Outbound, Protocol::Ping) => {
                        self.pings.retain(|(one, _)| one != stream);
                        self.pings.push((*stream, body.clone()));
                    }
                    _ => {}
                }
            }
            Action::CloseStream { stream } => {
                if let Some(one) = self.streams.get_mut(stream) {
                    one.mute = true;
                }
            }
            Action::ResetStream { stream } => {
                self.streams.remove(stream);
                self.requested.remove(stream);
                self.silent.remove(stream);
            }
            Action::Dial(dial) => {
                self.oracle.dialled(self, dial);
                self.contacted.insert(dial.addr.ip, self.now);
                self.dials.push((*dial, self.now));
            }
            Action::Disconnect { conn } => {
                assert!(self.conns.contains_key(conn), "{action:?} on a dead connection");
            }
            Action::Mapping(action) => self.obey_mapping(action),
            Action::Relay(action) => self.obey_relay(action),
            Action::Notify(_) => {}
            _ => unreachable!("an order that the world does not know: {action:?}"),
        }
    }

    fn asked(&mut self, stream: StreamId, conn: ConnId, body: &bytes::Bytes) {
        match Message::decode(body).expect("the agent writes what can be read") {
            Message::DialRequest { addrs, nonce } => {
                assert_eq!(addrs.len(), 1, "one address by default");
                let Ok(multiaddr::Decoded::Direct { addr, .. }) = multiaddr::decode(&addrs[0])
                else {
                    panic!("a candidate is a plain address: {:?}", addrs[0]);
                };
                let peer = self.conns[&conn].facts.peer;
                self.asks.push(Ask {
                    stream,
                    peer,
                    addr,
                    nonce,
                    at: self.now,
                    event: self.events,
                    ended: false,
                    delivered: false,
                    slept: false,
                });
            }
            Message::DialDataResponse { data } => self.oracle.paid(self.now, data.len()),
            other => panic!("no client says {other:?}"),
        }
    }
}
