//! The canonical form from outside: what it makes equal behaves alike, and what will differ differs.

use bytes::Bytes;
use libp2p_identity::Keypair;
use portolan_core::wire::autonat::{DialBack, DialStatus, Message, ResponseStatus};
use portolan_core::wire::multiaddr;
use portolan_core::{
    Action, Actions, Addr, Agent, Config, ConnId, Connected, Cx, DialBackConfig, DialFailure,
    DialId, Draw, Duration, Event, Instant, ListenerId, PeerId, Protocol, ProtocolSet, Side,
    Signer, StreamEnd, StreamId, UnixTime,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// What happens, told without names.
#[derive(Clone, Debug)]
enum Op {
    Listen(u16),
    Unlisten(usize),
    Interfaces(bool),
    Connect { peer: u8, inbound: bool, measured: bool, relayed: bool },
    Disconnect(usize),
    Lists(usize, bool),
    Observes(usize, u16),
    Answer(usize, usize),
    Bring(usize, usize),
    Ask(usize, u8),
    Dialled(usize, bool),
    CloseOurs(usize, bool),
    Contacted(u8),
    Echo(usize),
    Pass(u64),
    Due,
    Resumed(u64),
}

/// The names that one agent lives under.
#[derive(Clone, Copy, Debug)]
struct Names {
    start: u64,
    step: u64,
    first: u64,
    nonce: u64,
}

/// One agent and what it waits for.
struct Life {
    agent: Agent,
    names: Names,
    now: Instant,
    minted: u64,
    drawn: u64,
    chance: u64,
    conns: Vec<ConnId>,
    listeners: Vec<ListenerId>,
    asked: Vec<(StreamId, u64)>,
    dials: Vec<DialId>,
    streams: Vec<StreamId>,
    pings: Vec<(StreamId, Bytes)>,
}

struct Chance<'a> {
    below: u64,
    nonce: &'a mut u64,
}

impl Draw for Chance<'_> {
    fn below(&mut self, n: u64) -> u64 {
        self.below % n.max(1)
    }

    fn nonce(&mut self) -> u64 {
        *self.nonce = self.nonce.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        *self.nonce
    }
}

impl Signer for Chance<'_> {
    fn sign(&mut self, _: &[u8]) -> Vec<u8> {
        vec![0; 64]
    }
}

fn addr(net: u8, port: u16) -> Addr {
    Addr::tcp([44, 0, net, 1].into(), port)
}

fn key(seed: u8) -> Keypair {
    Keypair::ed25519_from_bytes([seed; 32]).expect("any 32 bytes are a key")
}

fn peer(number: u8) -> PeerId {
    key(number + 1).public().to_peer_id()
}

const HOME: u8 = 99;

impl Life {
    fn new(names: Names) -> Life {
        let mut config = Config::default();
        config.external = vec![addr(HOME, 4001)];
        let mut limits = DialBackConfig::default();
        limits.peer_per_min = 2;
        config.dial_back = Some(limits);
        Life {
            agent: Agent::new(config, key(HOME).public()).expect("a good configuration"),
            names,
            now: Instant::from_nanos(names.start),
            minted: 0,
            drawn: names.nonce,
            chance: 0,
            conns: Vec::new(),
            listeners: Vec::new(),
            asked: Vec::new(),
            dials: Vec::new(),
            streams: Vec::new(),
            pings: Vec::new(),
        }
    }

    fn mint(&mut self) -> u64 {
        self.minted += 1;
        self.names.first + self.names.step * self.minted
    }

    fn inbound(&mut self, protocol: Protocol) -> StreamId {
        StreamId::inbound(protocol, self.mint())
    }

    /// Feed one event, and say what came of it without names.
    fn feed(&mut self, event: Event) -> Vec<String> {
        let mut actions = Actions::new();
        self.chance = self.chance.wrapping_mul(25).wrapping_add(7);
        let mut draw = Chance { below: self.chance, nonce: &mut self.drawn };
        let mut sign = Chance { below: 0, nonce: &mut 0 };
        let unix = UnixTime::from_millis(self.now.as_nanos() / 1_000_000);
        let mut cx =
            Cx { now: self.now, unix, draw: &mut draw, sign: &mut sign, actions: &mut actions };
        self.agent.handle(&mut cx, event);
        let actions: Vec<Action> = actions.drain().collect();
        actions.iter().map(|action| self.take(action)).collect()
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "core's enum may grow")]
    fn take(&mut self, action: &Action) -> String {
        let of = |stream: &StreamId| format!("{:?} {:?}", stream.side, stream.protocol);
        match action {
            Action::OpenStream { stream, .. } => {
                self.streams.push(*stream);
                format!("open {}", of(stream))
            }
            Action::Send { stream, body } => match (stream.protocol, Message::decode(body)) {
                (Protocol::DialRequest, Ok(Message::DialRequest { addrs, nonce })) => {
                    self.asked.push((*stream, nonce));
                    format!("ask {addrs:?}")
                }
                (Protocol::DialRequest, Ok(message)) => format!("say {message:?}"),
                (Protocol::Ping, _) => {
                    self.pings.push((*stream, body.clone()));
                    "ping".to_owned()
                }
                // The sequence number of a record is part of identify.
                _ => format!("send {}", of(stream)),
            },
            Action::CloseStream { stream } => format!("close {}", of(stream)),
            Action::ResetStream { stream } => format!("reset {}", of(stream)),
            Action::Dial(dial) => {
                self.dials.push(dial.dial);
                format!("dial {} {:?}", dial.addr, dial.timeout)
            }
            Action::Disconnect { .. } => "disconnect".to_owned(),
            other => format!("{other:?}").split("conn").next().unwrap_or_default().to_owned(),
        }
    }

    fn live(&mut self, op: &Op) -> Vec<String> {
        let Some(event) = self.event(op) else { return Vec::new() };
        self.feed(event)
    }

    fn event(&mut self, op: &Op) -> Option<Event> {
        match *op {
            Op::Listen(port) => {
                let listener = ListenerId(self.mint());
                self.listeners.push(listener);
                let addr = Addr::tcp([0, 0, 0, 0].into(), port);
                Some(Event::ListenerOpened { listener, addr })
            }
            Op::Unlisten(which) => {
                let listener = taken(&mut self.listeners, which)?;
                Some(Event::ListenerClosed { listener })
            }
            Op::Interfaces(other) => {
                let ip = if other { addr(HOME, 1).ip } else { [192, 168, 0, 2].into() };
                Some(Event::InterfacesChanged { ips: vec![ip] })
            }
            Op::Connect { peer: number, inbound, measured, relayed } => {
                let conn = ConnId(self.mint());
                self.conns.push(conn);
                Some(Event::Connected(Connected {
                    conn,
                    peer: peer(number),
                    side: if inbound { Side::Inbound } else { Side::Outbound },
                    local: Addr::tcp([192, 168, 0, 2].into(), 4001),
                    remote: addr(number, 4001),
                    relayed,
                    dial: None,
                    rtt: measured.then_some(Duration::from_millis(30)),
                }))
            }
            Op::Disconnect(which) => {
                let conn = taken(&mut self.conns, which)?;
                Some(Event::Disconnected { conn })
            }
            Op::Lists(which, serves) => {
                let push = ProtocolSet::NONE.with(Protocol::IdentifyPush);
                let protocols = if serves { push.with(Protocol::DialRequest) } else { push };
                Some(Event::ProtocolsListed { conn: one(&self.conns, which)?, protocols })
            }
            Op::Observes(which, port) => {
                let observed = addr(HOME, port);
                Some(Event::Observed { conn: one(&self.conns, which)?, observed })
            }
            Op::Contacted(number) => Some(Event::Contacted { ip: addr(number, 1).ip }),
            Op::Pass(millis) => {
                self.now = self.now + Duration::from_millis(millis);
                Some(Event::Tick)
            }
            Op::Due => {
                self.now = self.agent.deadline()?.at;
                Some(Event::Tick)
            }
            Op::Resumed(seconds) => {
                self.now = self.now + Duration::from_secs(seconds);
                Some(Event::Resumed { slept: Duration::from_secs(seconds) })
            }
            Op::Answer(..) | Op::Bring(..) | Op::Ask(..) => self.probing(op),
            Op::Dialled(..) | Op::CloseOurs(..) | Op::Echo(..) => self.serving(op),
        }
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "the other half is above")]
    fn probing(&mut self, op: &Op) -> Option<Event> {
        match *op {
            Op::Answer(which, kind) => {
                let (stream, _) = one(&self.asked, which)?;
                let answer = |status, dial_status| Message::DialResponse {
                    status,
                    addr_idx: 0,
                    dial_status,
                    failed_from: None,
                };
                let message = match kind % 6 {
                    0 => answer(ResponseStatus::Ok, DialStatus::Ok),
                    1 => answer(ResponseStatus::Ok, DialStatus::DialError),
                    2 => answer(ResponseStatus::Refused, DialStatus::Unused),
                    3 => answer(ResponseStatus::Rejected, DialStatus::Unused),
                    4 => answer(ResponseStatus::InternalError, DialStatus::Unused),
                    _ => Message::DialDataRequest { addr_idx: 0, num_bytes: 90_000 },
                };
                Some(Event::Frame { stream, body: message.encode() })
            }
            Op::Bring(which, on) => {
                let (_, nonce) = one(&self.asked, which)?;
                let conn = one(&self.conns, on)?;
                let stream = self.inbound(Protocol::DialBack);
                self.feed(Event::StreamOpened { conn, stream });
                Some(Event::Frame { stream, body: DialBack { nonce }.encode() })
            }
            Op::Ask(on, net) => {
                let conn = one(&self.conns, on)?;
                let stream = self.inbound(Protocol::DialRequest);
                self.feed(Event::StreamOpened { conn, stream });
                let addrs = vec![multiaddr::encode(addr(net, 4001))];
                // Its number means nothing to us, and has another name in each life.
                let body = Message::DialRequest { addrs, nonce: self.mint() }.encode();
                Some(Event::Frame { stream, body })
            }
            _ => None,
        }
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "the other half is above")]
    fn serving(&mut self, op: &Op) -> Option<Event> {
        match *op {
            Op::Dialled(which, false) => {
                let dial = one(&self.dials, which)?;
                Some(Event::DialFailed { dial, reason: DialFailure::Refused })
            }
            Op::Dialled(which, true) => {
                let dial = one(&self.dials, which)?;
                Some(Event::Connected(Connected {
                    conn: ConnId(self.mint()),
                    peer: peer(0),
                    side: Side::Outbound,
                    local: addr(HOME, 5),
                    remote: addr(0, 4001),
                    relayed: false,
                    dial: Some(dial),
                    rtt: None,
                }))
            }
            Op::CloseOurs(which, finished) => {
                let stream = one(&self.streams, which)?;
                let end = if finished { StreamEnd::Finished } else { StreamEnd::Reset };
                Some(Event::StreamClosed { stream, end })
            }
            Op::Echo(which) => {
                let (stream, body) = one(&self.pings, which)?;
                Some(Event::Frame { stream, body })
            }
            _ => None,
        }
    }

    fn due_in(&self) -> Option<(Duration, portolan_core::Wake)> {
        self.agent.deadline().map(|deadline| (deadline.at.since(self.now), deadline.wake))
    }
}

/// The newest come first, since they are more likely to be waited for.
fn one<T: Clone>(all: &[T], which: usize) -> Option<T> {
    all.iter().rev().nth(which.checked_rem(all.len())?).cloned()
}

fn taken<T>(all: &mut Vec<T>, which: usize) -> Option<T> {
    let at = which.checked_rem(all.len())?;
    Some(all.remove(at))
}

fn op() -> impl Strategy<Value = Op> {
    let some = || 0..3usize;
    prop_oneof![
        1 => prop_oneof![Just(4001u16), Just(4002)].prop_map(Op::Listen),
        1 => some().prop_map(Op::Unlisten),
        1 => any::<bool>().prop_map(Op::Interfaces),
        4 => (0..3u8, any::<bool>(), any::<bool>(), prop::bool::weighted(0.1)).prop_map(
            |(peer, inbound, measured, relayed)| Op::Connect { peer, inbound, measured, relayed }
        ),
        1 => some().prop_map(Op::Disconnect),
        4 => (some(), prop::bool::weighted(0.8)).prop_map(|(on, serves)| Op::Lists(on, serves)),
        2 => (some(), 4001..4003u16).prop_map(|(on, port)| Op::Observes(on, port)),
        4 => (some(), 0..6usize).prop_map(|(which, kind)| Op::Answer(which, kind)),
        4 => (some(), some()).prop_map(|(which, on)| Op::Bring(which, on)),
        2 => (some(), 0..3u8).prop_map(|(on, net)| Op::Ask(on, net)),
        2 => (some(), any::<bool>()).prop_map(|(which, well)| Op::Dialled(which, well)),
        2 => (some(), any::<bool>()).prop_map(|(which, well)| Op::CloseOurs(which, well)),
        1 => (0..3u8).prop_map(Op::Contacted),
        1 => some().prop_map(Op::Echo),
        1 => (1..20_000u64).prop_map(Op::Pass),
        3 => Just(Op::Due),
        1 => prop_oneof![Just(5u64), Just(300)].prop_map(Op::Resumed),
    ]
}

fn names() -> impl Strategy<Value = Names> {
    (1_000_000_000..u64::MAX / 8, 1..9u64, 0..1_000u64, any::<u64>())
        .prop_map(|(start, step, first, nonce)| Names { start, step, first, nonce })
}

fn ready() -> Vec<Op> {
    let connect = |peer| Op::Connect { peer, inbound: false, measured: true, relayed: false };
    vec![Op::Listen(4001), connect(0), Op::Lists(0, true), connect(1), Op::Lists(0, true)]
}

const PLAIN: Names = Names { start: 5_000_000_000, step: 1, first: 0, nonce: 7 };

fn lived(ops: &[Op]) -> Life {
    let mut life = Life::new(PLAIN);
    ready().iter().chain(ops).for_each(|op| drop(life.live(op)));
    life
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Another zero of time, other ids in the same order, other nonces: the same bytes after each
    /// step, the same actions, the same deadlines.
    #[test]
    fn other_names_make_no_difference(ops in vec(op(), 1..60), names in [names(), names()]) {
        let mut lives = names.map(Life::new);
        for op in ready().iter().chain(&ops) {
            let [one, other] = lives.each_mut().map(|life| life.live(op));
            prop_assert_eq!(one, other, "{:?}", op);
            let [one, other] = &lives;
            prop_assert_eq!(one.due_in(), other.due_in());
            prop_assert!(one.agent.canonical() == other.agent.canonical(), "after {:?}", op);
        }
    }

    /// Where deadlines differ, so do the bytes; and nothing happens by reading them.
    #[test]
    fn another_deadline_makes_a_difference(ops in vec(op(), 1..30), millis in 1..5_000u64) {
        let mut life = lived(&ops);
        let (before, due) = (life.agent.canonical(), life.due_in());
        prop_assert_eq!(&before, &life.agent.canonical());
        life.live(&Op::Pass(millis));
        if life.due_in() != due {
            prop_assert_ne!(before, life.agent.canonical());
        }
    }
}

/// Two stories that end alike, and do so when more follows.
#[test]
fn what_is_forgotten_is_forgotten() {
    let connect = |peer| Op::Connect { peer, inbound: true, measured: true, relayed: false };
    let same: [(&[Op], &[Op]); 4] = [
        (&[Op::Pass(10)], &[Op::Pass(4), Op::Pass(6)]),
        (&[Op::Pass(10)], &[connect(2), Op::Disconnect(2), Op::Pass(10)]),
        (&[Op::Pass(1)], &[Op::Dialled(0, true), Op::Echo(0), Op::Pass(1)]),
        (&[Op::Listen(4002), Op::Unlisten(1)], &[Op::Listen(4003), Op::Unlisten(1)]),
    ];
    for (one, other) in same {
        let lives = [lived(one), lived(other)];
        assert!(lives[0].agent.canonical() == lives[1].agent.canonical(), "{one:?} {other:?}");
    }
}

#[test]
fn what_will_matter_is_told_apart() {
    let connect = |peer| Op::Connect { peer, inbound: true, measured: true, relayed: false };
    let stories: [&[Op]; 16] = [
        &[],
        &[Op::Pass(1)],
        &[Op::Contacted(2)],
        &[connect(2)],
        &[Op::Contacted(2), connect(2)],
        &[Op::Observes(0, 4001)],
        &[Op::Observes(0, 4002)],
        &[Op::Observes(1, 4001)],
        &[Op::Answer(0, 0)],
        &[Op::Answer(0, 1)],
        &[Op::Answer(0, 2)],
        &[Op::Answer(1, 1)],
        &[Op::Answer(0, 1), Op::Answer(1, 1)],
        &[connect(2), Op::Bring(0, 0)],
        &[connect(2), Op::Bring(1, 0)],
        &[connect(2), Op::Ask(0, 2)],
    ];
    let forms: Vec<Vec<u8>> = stories.iter().map(|ops| lived(ops).agent.canonical()).collect();
    for (at, form) in forms.iter().enumerate() {
        for (before, other) in forms[..at].iter().enumerate() {
            assert!(form != other, "{:?} and {:?}", stories[at], stories[before]);
        }
    }
}

#[test]
fn the_story_that_proptest_tells_reaches_a_verdict() {
    let connect = Op::Connect { peer: 2, inbound: true, measured: true, relayed: false };
    let life = lived(&[connect, Op::Bring(0, 0), Op::Answer(0, 0)]);
    let mut proven = life.agent.reachability().addresses();
    assert!(proven.any(|(_, verdict)| verdict.scope().is_some()));
}
