//! A flight record without a network: a node that meets one server and is proved by it.

use libp2p_identity::Keypair;
use portolan_core::flight::{Head, Reader, Recorder, Step, Writer};
use portolan_core::wire::autonat::{DialBack, DialStatus, Message, ResponseStatus};
use portolan_core::wire::{identify::Identify, multiaddr};
use portolan_core::{
    Actions, Addr, Agent, Config, ConnId, Connected, Cx, Draw, Duration, Event, Instant,
    ListenerId, Protocol, Side, Signer, StreamId, UnixTime,
};

/// The address of the node that is proved.
pub(crate) const PROVED: &str = "/ip4/44.0.0.1/tcp/4001";
/// What the server calls itself: it would clear the terminal, start a line, and write backwards.
pub(crate) const AGENT: &str = "\u{1b}[2J\r\nevil\u{7}\u{202e}";

const SERVER_IP: &str = "44.0.1.1";
const IDENTIFY: StreamId = StreamId::outbound(Protocol::Identify, 1);
const REQUEST: StreamId = StreamId::outbound(Protocol::DialRequest, 1);
const DIAL_BACK: StreamId = StreamId::inbound(Protocol::DialBack, 1);

/// The record of the story, told to the end: ten minutes.
pub(crate) fn record() -> Vec<u8> {
    let mut diary = proved();
    while diary.wake(Duration::from_secs(600)) {}
    diary.record
}

/// The record of the story as far as the proof.
pub(crate) fn beginning() -> Vec<u8> {
    proved().record
}

/// The record of the story as far as the proof, and of a second listener that comes and goes.
pub(crate) fn closed_listener() -> Vec<u8> {
    let mut diary = proved();
    let (listener, second) = (ListenerId(2), Addr { port: 4002, ..addr(PROVED) });
    diary.tell(Event::ListenerOpened { listener, addr: second });
    diary.tell(Event::ListenerClosed { listener });
    diary.record
}

/// The rest of the story as the second part of a record, which begins at the proof.
pub(crate) fn second_part() -> Vec<u8> {
    let mut diary = proved();
    diary.record.clear();
    diary.begin(1);
    while diary.wake(Duration::from_secs(600)) {}
    diary.record
}

fn proved() -> Diary {
    let mut diary = Diary::new();
    let ip = addr(PROVED).ip;
    diary.tell(Event::InterfacesChanged { ips: vec![ip] });
    diary.tell(Event::ListenerOpened { listener: ListenerId(1), addr: addr(PROVED) });
    diary.meet(1, Side::Outbound, addr(&format!("/ip4/{SERVER_IP}/tcp/4001")));
    diary.pass(20);
    diary.tell(Event::StreamOpened { conn: ConnId(1), stream: IDENTIFY });
    let said = Identify {
        protocols: Protocol::ALL.map(|protocol| protocol.name().to_owned()).into(),
        agent_version: Some(AGENT.into()),
        observed: Some(multiaddr::encode(addr(PROVED))),
        ..Identify::default()
    };
    diary.tell(Event::Frame { stream: IDENTIFY, body: said.encode_split().messages[0].clone() });
    diary.pass(20);
    diary.tell(Event::StreamOpened { conn: ConnId(1), stream: REQUEST });
    diary.meet(2, Side::Inbound, addr(&format!("/ip4/{SERVER_IP}/tcp/50000")));
    diary.tell(Event::StreamOpened { conn: ConnId(2), stream: DIAL_BACK });
    let nonce = *diary.chance.nonces.last().expect("a probe draws one");
    diary.tell(Event::Frame { stream: DIAL_BACK, body: DialBack { nonce }.encode() });
    let (status, dial_status) = (ResponseStatus::Ok, DialStatus::Ok);
    let answer = Message::DialResponse { status, addr_idx: 0, dial_status, failed_from: None };
    diary.tell(Event::Frame { stream: REQUEST, body: answer.encode() });
    diary
}

/// The record with something done to its head, and to each of its steps by its number.
pub(crate) fn rewritten(
    record: &[u8],
    mut head_change: impl FnMut(&mut Head),
    mut change: impl FnMut(usize, &mut Step),
) -> Vec<u8> {
    let (mut head, reader) = Reader::new(record).expect("a record");
    head_change(&mut head);
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&head, &mut bytes);
    for (index, step) in reader.enumerate() {
        let mut step = step.expect("a whole record");
        change(index + 1, &mut step);
        writer.step(&step, &mut bytes);
    }
    bytes
}

fn addr(text: &str) -> Addr {
    portolan::plain_address(text).expect("an address")
}

/// A node under a recorder.
struct Diary {
    agent: Agent,
    recorder: Recorder,
    record: Vec<u8>,
    now: Instant,
    chance: Chance,
    key: Keypair,
    server: Keypair,
}

impl Diary {
    fn new() -> Diary {
        let key = Keypair::ed25519_from_bytes([1; 32]).expect("any 32 bytes are a key");
        let server = Keypair::ed25519_from_bytes([2; 32]).expect("any 32 bytes are a key");
        let agent = Agent::new(Config::default(), key.public()).expect("the defaults are good");
        let mut diary = Diary {
            agent,
            recorder: Recorder::new([7; 16]),
            record: Vec::new(),
            now: Instant::from_millis(5_000),
            chance: Chance { state: 1, nonces: Vec::new() },
            key,
            server,
        };
        diary.begin(0);
        diary
    }

    fn begin(&mut self, part: u64) {
        let Diary { agent, recorder, record, now, .. } = self;
        recorder.begin(agent, part, *now, unix(*now), record);
    }

    fn tell(&mut self, event: Event) {
        let mut cx = Cx {
            now: self.now,
            unix: unix(self.now),
            draw: &mut self.chance,
            sign: &mut Hand(&self.key),
            actions: &mut Actions::new(),
        };
        self.recorder.handle(&mut self.agent, &mut cx, event, &mut self.record);
    }

    fn meet(&mut self, conn: u64, side: Side, remote: Addr) {
        self.tell(Event::Connected(Connected {
            conn: ConnId(conn),
            peer: self.server.public().to_peer_id(),
            side,
            local: addr(PROVED),
            remote,
            relayed: false,
            dial: None,
            rtt: Some(Duration::from_millis(20)),
        }));
    }

    fn pass(&mut self, millis: u64) {
        self.now = self.now + Duration::from_millis(millis);
    }

    /// Wake the node when it wants, if that is before the story is so old.
    fn wake(&mut self, age: Duration) -> bool {
        let end = Instant::from_millis(5_000) + age;
        let Some(deadline) = self.agent.deadline().filter(|deadline| deadline.at <= end) else {
            return false;
        };
        self.now = deadline.at;
        self.tell(Event::Tick);
        true
    }
}

fn unix(now: Instant) -> UnixTime {
    UnixTime::from_millis(1_700_000_000_000 + now.as_nanos() / 1_000_000)
}

/// Numbers out of a seed, and the nonces among them.
struct Chance {
    state: u64,
    nonces: Vec<u64>,
}

impl Chance {
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.state ^ (self.state >> 29)
    }
}

impl Draw for Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.next().checked_rem(n).unwrap_or(0)
    }

    fn nonce(&mut self) -> u64 {
        let nonce = self.next();
        self.nonces.push(nonce);
        nonce
    }
}

struct Hand<'a>(&'a Keypair);

impl Signer for Hand<'_> {
    fn sign(&mut self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).expect("ed25519 signs anything")
    }
}
