//! The next facts of a story: one byte says what happens and how much time passes before it, the
//! next ones say to whom.

use super::books::{Books, Question};
use super::facts::Facts;
use super::{relays, routers};
use crate::signed::key;
use bytes::Bytes;
use portolan_core::wire::autonat::{
    DialBack, DialBackResponse, DialStatus, Message, ResponseStatus, dial_data_chunk, v1,
};
use portolan_core::wire::identify::Identify;
use portolan_core::wire::multiaddr;
use portolan_core::wire::peer_record::PeerRecord;

use portolan_core::wire::punch::{Behavior, Behaviors, PredictedPorts, Prediction, PunchMessage};
use portolan_core::{
    Addr, Class, ConnId, Connected, Deadline, DialFailure, DialId, Duration, Event,
    FilteringBehavior, Framing, Instant, ListenerId, MappingBehavior, PeerId, Protocol,
    ProtocolSet, Side, StreamEnd, StreamFailure, StreamId,
};
use std::net::IpAddr;
use std::sync::OnceLock;

/// Peers of the world, number; the first one is the node itself.
const PEERS: usize = 9;
/// Codes of answers, those that are defined and some that are not.
const CODES: [i32; 6] = [200, 0, 100, 101, 7, -1];
/// Where dials that failed came from: mostly nobody says.
const FAILED_FROM: [Option<[u8; 4]>; 8] = [
    None,
    None,
    None,
    None,
    Some([44, 0, 99, 1]),
    Some([44, 0, 99, 1]),
    Some([44, 0, 1, 1]),
    Some([10, 0, 0, 1]),
];

/// What happens. The numbers are those of the low five bits of a byte.
pub(super) mod code {
    pub(in super::super) const WAKE: u8 = 0;
    pub(in super::super) const PASS: u8 = 1;
    pub(in super::super) const LISTEN: u8 = 2;
    pub(in super::super) const UNLISTEN: u8 = 3;
    pub(in super::super) const INTERFACES: u8 = 4;
    pub(in super::super) const CONTACTED: u8 = 5;
    pub(in super::super) const SERVER: u8 = 6;
    pub(in super::super) const OUTBOUND: u8 = 7;
    pub(in super::super) const INBOUND: u8 = 8;
    pub(in super::super) const DISCONNECTED: u8 = 9;
    pub(in super::super) const DIALLED: u8 = 10;
    pub(in super::super) const DIAL_FAILED: u8 = 11;
    pub(in super::super) const OPENED: u8 = 12;
    pub(in super::super) const FAILED: u8 = 13;
    pub(in super::super) const INCOMING: u8 = 14;
    pub(in super::super) const ANSWER: u8 = 15;
    pub(in super::super) const RAW: u8 = 16;
    pub(in super::super) const CLOSED: u8 = 17;
    pub(in super::super) const OBSERVED: u8 = 18;
    pub(in super::super) const LISTED: u8 = 19;
    pub(in super::super) const RESUMED: u8 = 20;
    pub(in super::super) const NONSENSE: u8 = 21;
    pub(in super::super) const IDENTIFIED: u8 = 22;
    pub(in super::super) const DIALS_BACK: u8 = 23;
    pub(in super::super) const RESPONDS: u8 = 24;
    pub(in super::super) const WANTS_DATA: u8 = 25;
    pub(in super::super) const REQUEST: u8 = 26;
    pub(in super::super) const DATA: u8 = 27;
    pub(in super::super) const TAKEN: u8 = 28;
    pub(in super::super) const PONG: u8 = 29;
    pub(in super::super) const REPORTED: u8 = 30;
    pub(in super::super) const ROUTER: u8 = 31;
}

/// How much time passes, and what happens then.
pub(super) fn next(
    facts: &mut Facts<'_>,
    books: &mut Books,
    now: Instant,
    deadline: Option<Deadline>,
) -> (Duration, Vec<Event>) {
    let byte = facts.byte();
    let span = match byte >> 5 {
        0..=4 => Duration::ZERO,
        5 => Duration::from_millis(20),
        6 => Duration::from_secs(1),
        _ => Duration::from_secs(10),
    };
    match byte & 31 {
        code::WAKE => {
            let span = deadline.map_or(span, |deadline| deadline.at.since(now));
            (span, vec![Event::Tick])
        }
        code::PASS => {
            let seconds = [1, 5, 30, 60, 300, 600, 3_600, 86_400][facts.below(8)];
            (Duration::from_secs(seconds), vec![Event::Tick])
        }
        what => (span, events(what, facts, books).unwrap_or_default()),
    }
}

/// The facts of a kind; `None` where there is nobody to whom they could happen.
fn events(what: u8, facts: &mut Facts<'_>, books: &mut Books) -> Option<Vec<Event>> {
    let event = match what {
        code::LISTEN => {
            let (listener, addr) = (ListenerId(books.mint()), facts.addr());
            // The port of a listening socket is never zero: it is the caller who says so.
            let addr = Addr { port: addr.port.max(1), ..addr };
            Event::ListenerOpened { listener, addr }
        }
        code::UNLISTEN => {
            let listener = facts.pick(books.listeners.keys().copied())?;
            Event::ListenerClosed { listener }
        }
        code::INTERFACES => {
            let ips = (0..facts.below(6)).map(|_| facts.ip()).collect();
            Event::InterfacesChanged { ips }
        }
        code::CONTACTED => Event::Contacted { ip: facts.ip() },
        code::REPORTED => Event::DialFailureReported { addr: facts.addr() },
        code::SERVER => return server(facts, books),
        code::OUTBOUND => connected(facts, books, Side::Outbound),
        code::INBOUND => connected(facts, books, Side::Inbound),
        code::DISCONNECTED => {
            Event::Disconnected { conn: facts.pick(books.conns.keys().copied())? }
        }
        code::DIALLED => dialled(facts, books)?,
        code::DIAL_FAILED => {
            let dial = facts.pick(books.dials.keys().copied())?;
            let reasons = [
                DialFailure::Refused,
                DialFailure::TimedOut,
                DialFailure::Handshake,
                DialFailure::LocalFault,
            ];
            Event::DialFailed { dial, reason: reasons[facts.below(4)] }
        }
        code::OBSERVED => {
            let conn = facts.pick(books.conns.keys().copied())?;
            Event::Observed { conn, observed: facts.addr() }
        }
        code::LISTED => {
            let conn = facts.pick(books.conns.keys().copied())?;
            Event::ProtocolsListed { conn, protocols: protocols(facts.byte()) }
        }
        code::RESUMED => {
            let slept = [0, 1, 20, 26, 300, 700, 3_600, 90_000][facts.below(8)];
            Event::Resumed { slept: Duration::from_secs(slept) }
        }
        code::NONSENSE => nonsense(facts),
        code::ROUTER => {
            // What no other number is left for.
            return match facts.below(14) {
                what @ 0..9 => Some(vec![routers::event(what, facts, books)]),
                what => relays::events(what - 9, facts, books),
            };
        }
        _ => return exchange(what, facts, books),
    };
    Some(vec![event])
}

/// What happens on streams.
fn exchange(what: u8, facts: &mut Facts<'_>, books: &mut Books) -> Option<Vec<Event>> {
    let event = match what {
        code::OPENED => {
            let (stream, open) = facts.pick(ours(books, None))?;
            Event::StreamOpened { conn: open, stream }
        }
        code::FAILED => {
            let (stream, _) = facts.pick(ours(books, None))?;
            let reasons =
                [StreamFailure::Unsupported, StreamFailure::Failed, StreamFailure::TimedOut];
            Event::StreamFailed { stream, reason: reasons[facts.below(3)] }
        }
        code::INCOMING => {
            let conn = facts.pick(books.conns.keys().copied())?;
            let protocol = Protocol::ALL[facts.below(Protocol::ALL.len())];
            Event::StreamOpened { conn, stream: StreamId::inbound(protocol, books.mint()) }
        }
        code::ANSWER => {
            let (stream, sent) = facts.pick(alive(books))?;
            Event::Frame { stream, body: sensible(facts, books, stream, sent) }
        }
        code::RAW => {
            let (stream, _) = facts.pick(alive(books))?;
            let mut body = facts.blob().to_vec();
            // The runtime cuts frames by the rule: no other length gets in.
            if let Framing::Fixed { len } = stream.protocol.framing() {
                body.resize(len, 0);
            }
            Event::Frame { stream, body: body.into() }
        }
        code::CLOSED => {
            let (stream, _) = facts.pick(alive(books))?;
            let ends = [StreamEnd::Finished, StreamEnd::Reset, StreamEnd::BadFrame];
            Event::StreamClosed { stream, end: ends[facts.below(3)] }
        }
        code::IDENTIFIED => {
            let (stream, _) = facts.pick(ours(books, Some(Protocol::Identify)))?;
            let body = identify(facts, books, stream);
            return Some(vec![
                Event::Frame { stream, body },
                Event::StreamClosed { stream, end: StreamEnd::Finished },
            ]);
        }
        code::DIALS_BACK => return dials_back(facts, books),
        code::RESPONDS => {
            let Question { stream, .. } = facts.pick(books.questions.iter().cloned())?;
            Event::Frame { stream, body: response(facts) }
        }
        code::WANTS_DATA => {
            let Question { stream, .. } = facts.pick(books.questions.iter().cloned())?;
            let num_bytes = [30_000, 100_000, 1, 0, 100_001, u64::MAX][facts.below(6)];
            let message = Message::DialDataRequest { addr_idx: index(facts), num_bytes };
            Event::Frame { stream, body: message.encode() }
        }
        code::PONG => {
            let (stream, _) = facts.pick(ours(books, Some(Protocol::Ping)))?;
            let body = books.streams.get(&stream)?.sent.clone()?;
            Event::Frame { stream, body }
        }
        _ => return served(what, facts, books),
    };
    Some(vec![event])
}

/// What we do for others.
fn served(what: u8, facts: &mut Facts<'_>, books: &mut Books) -> Option<Vec<Event>> {
    match what {
        code::REQUEST => {
            let conn = facts.pick(books.conns.keys().copied())?;
            let stream = StreamId::inbound(Protocol::DialRequest, books.mint());
            let body = request(facts, books, conn);
            Some(vec![Event::StreamOpened { conn, stream }, Event::Frame { stream, body }])
        }
        code::DATA => {
            let asked = alive(books).filter(|(stream, _)| is_request(*stream));
            let (stream, _) = facts.pick(asked)?;
            let body = dial_data_chunk([4_096, 100, 0][facts.below(3)]);
            Some(vec![Event::Frame { stream, body }; facts.below(26)])
        }
        code::TAKEN => {
            let (stream, _) = facts.pick(ours(books, Some(Protocol::DialBack)))?;
            Some(vec![Event::Frame { stream, body: DialBackResponse::OK.encode() }])
        }
        _ => None,
    }
}

/// Streams that core has opened, with their connections.
fn ours(
    books: &Books,
    protocol: Option<Protocol>,
) -> impl DoubleEndedIterator<Item = (StreamId, ConnId)> {
    books
        .alive()
        .filter(move |(id, _)| id.side == Side::Outbound)
        .filter(move |(id, _)| protocol.is_none_or(|protocol| protocol == id.protocol))
        .map(|(id, stream)| (id, stream.conn))
}

/// Streams that are alive, with what we sent on them last.
fn alive(books: &Books) -> impl DoubleEndedIterator<Item = (StreamId, Option<Bytes>)> {
    books.alive().map(|(id, stream)| (id, stream.sent.clone()))
}

fn is_request(stream: StreamId) -> bool {
    (stream.side, stream.protocol) == (Side::Inbound, Protocol::DialRequest)
}

/// A peer by its number.
pub(super) fn peer(number: usize) -> PeerId {
    static IDS: OnceLock<Vec<PeerId>> = OnceLock::new();
    let ids = IDS.get_or_init(|| {
        let numbers = 1..=u8::try_from(PEERS).expect("few peers");
        numbers.map(|number| key(number).0.public().to_peer_id()).collect()
    });
    ids[number % PEERS]
}

fn connected(facts: &mut Facts<'_>, books: &mut Books, side: Side) -> Event {
    let byte = facts.byte();
    let number = usize::from(byte & 7) + 1;
    let local = facts.pick(books.listeners.values().copied());
    let local = local.unwrap_or_else(|| facts.addr());
    // The socket has an address of our own, whatever the listener is bound to.
    let ip = if byte & 64 == 0 { [10, 0, 0, 2].into() } else { facts.ip() };
    let local = Addr::new(ip, local.port, local.transport);
    let remote = Addr { transport: local.transport, ..facts.addr() };
    Event::Connected(Connected {
        conn: ConnId(books.mint()),
        peer: peer(number),
        side,
        local,
        remote,
        relayed: byte & 48 == 48,
        dial: None,
        rtt: (byte & 128 == 0).then(|| Duration::from_millis(u64::from(byte & 15) * 7 + 1)),
    })
}

/// A server that we dialled, that sees us, and that offers to dial back.
fn server(facts: &mut Facts<'_>, books: &mut Books) -> Option<Vec<Event>> {
    let event = connected(facts, books, Side::Outbound);
    let Event::Connected(Connected { conn, .. }) = event else { return None };
    let protocols = Protocol::ALL.into_iter().fold(ProtocolSet::NONE, ProtocolSet::with);
    let observed = facts.addr();
    Some(vec![
        event,
        Event::ProtocolsListed { conn, protocols },
        Event::Observed { conn, observed },
    ])
}

/// A dial of ours for others stands.
fn dialled(facts: &mut Facts<'_>, books: &mut Books) -> Option<Event> {
    let (dial, order) = facts.pick(books.dials.iter().map(|(id, dial)| (*id, *dial)))?;
    Some(Event::Connected(Connected {
        conn: ConnId(books.mint()),
        peer: peer(1 + facts.below(PEERS - 1)),
        side: Side::Outbound,
        local: Addr { ip: [44, 0, 0, 3].into(), port: 50_999, ..order.addr },
        remote: order.addr,
        relayed: false,
        dial: Some(dial),
        rtt: None,
    }))
}

/// Somebody connects to us and brings a nonce; often the right way, now and then a wrong one.
fn dials_back(facts: &mut Facts<'_>, books: &mut Books) -> Option<Vec<Event>> {
    let question = facts.pick(books.questions.iter().cloned())?;
    let how = facts.byte();
    let addr = facts.pick(question.addrs.iter().copied())?;
    let conn = match how & 15 {
        // On a connection that stands already.
        15 => facts.pick(books.conns.keys().copied())?,
        _ => ConnId(books.mint()),
    };
    let nonce = if how & 15 == 14 { question.nonce ^ 1 } else { question.nonce };
    let ports = books.listeners.values().filter(|one| one.transport == addr.transport);
    let port = facts.pick(ports.map(|one| one.port)).unwrap_or(addr.port);
    let facts_of = Connected {
        conn,
        peer: peer(PEERS - 1),
        side: if how & 15 == 13 { Side::Outbound } else { Side::Inbound },
        local: Addr::new([10, 0, 0, 2].into(), port, addr.transport),
        remote: Addr { transport: addr.transport, ..facts.addr() },
        relayed: how & 15 == 12,
        dial: None,
        rtt: None,
    };
    let stream = StreamId::inbound(Protocol::DialBack, books.mint());
    let mut events = vec![
        Event::StreamOpened { conn, stream },
        Event::Frame { stream, body: DialBack { nonce }.encode() },
    ];
    if how & 15 != 15 {
        events.insert(0, Event::Connected(facts_of));
    }
    if how & 16 != 0 {
        events.push(Event::StreamClosed { stream, end: StreamEnd::Finished });
        events.push(Event::Disconnected { conn });
    }
    Some(events)
}

/// A frame that makes sense on its stream.
fn sensible(facts: &mut Facts<'_>, books: &Books, stream: StreamId, sent: Option<Bytes>) -> Bytes {
    match (stream.side, stream.protocol) {
        (Side::Outbound, Protocol::Identify | Protocol::IdentifyPush)
        | (Side::Inbound, Protocol::Identify | Protocol::IdentifyPush) => {
            identify(facts, books, stream)
        }
        (Side::Outbound, Protocol::Ping) => sent.unwrap_or_else(|| Bytes::from_static(&[0; 32])),
        (Side::Inbound, Protocol::Ping) => vec![facts.byte(); 32].into(),
        (Side::Outbound, Protocol::DialRequest) => response(facts),
        (Side::Inbound, Protocol::DialRequest) => {
            let conn = books.streams.get(&stream).map(|open| open.conn);
            request(facts, books, conn.unwrap_or(ConnId(0)))
        }
        (Side::Outbound, Protocol::DialBack) => DialBackResponse::OK.encode(),
        (Side::Inbound, Protocol::DialBack) => {
            let nonce = facts.pick(books.questions.iter().map(|question| question.nonce));
            DialBack { nonce: nonce.unwrap_or(7) }.encode()
        }
        (_, Protocol::Hop | Protocol::Stop) => relays::sensible(facts, books, stream),
        (_, Protocol::Punch) => punching(facts),
        (Side::Outbound, Protocol::AutonatV1) => {
            let status = v1::Status::from_code([0, 100, 101, 200, 300, 7][facts.below(6)]);
            v1::Message::DialResponse { status, addr: None }.encode()
        }
        (Side::Inbound, Protocol::AutonatV1) => {
            let conn = books.streams.get(&stream).and_then(|open| books.conns.get(&open.conn));
            let addrs = conn.map(|conn| multiaddr::encode(Addr { port: 4_001, ..conn.remote }));
            let peer = conn.map(|conn| conn.peer);
            v1::Message::Dial { peer, addrs: addrs.into_iter().collect() }.encode()
        }
    }
}

/// What two peers on a circuit say to each other.
fn punching(facts: &mut Facts<'_>) -> Bytes {
    let prediction = match facts.below(4) {
        0 => Prediction::TakesPart,
        1 => {
            let class = Class::ALL[facts.below(4)];
            let step = [1, -1, 2, 0, i16::MIN][facts.below(5)];
            Prediction::Ports(PredictedPorts { class, first: 5_000, step, count: u8::MAX })
        }
        _ => Prediction::Off,
    };
    if facts.below(3) == 0 {
        return PunchMessage::Sync { prediction }.encode();
    }
    let addrs = (0..facts.below(5)).map(|_| multiaddr::encode(facts.addr())).collect();
    let behaviors = match facts.flag() {
        true => Behaviors::default(),
        false => Behaviors::of(|_| Behavior {
            mapping: MappingBehavior::AddressAndPortDependent,
            filtering: FilteringBehavior::AddressAndPortDependent,
        }),
    };
    PunchMessage::Connect { addrs, behaviors, prediction }.encode()
}

/// The index of an address in a request, mostly the first.
fn index(facts: &mut Facts<'_>) -> u32 {
    [0, 0, 0, 0, 1, 2, 49, u32::MAX][facts.below(8)]
}

fn response(facts: &mut Facts<'_>) -> Bytes {
    let [status, dial_status] = [CODES[facts.below(6)], CODES[facts.below(6)]];
    let (status, dial_status) =
        (ResponseStatus::from_code(status), DialStatus::from_code(dial_status));
    let failed_from = FAILED_FROM[facts.below(8)].map(IpAddr::from);
    Message::DialResponse { status, addr_idx: index(facts), dial_status, failed_from }.encode()
}

/// A request to be dialled back: at the address that the peer has, or at any others.
fn request(facts: &mut Facts<'_>, books: &Books, conn: ConnId) -> Bytes {
    let nonce = u64::from(facts.byte());
    let mut addrs: Vec<Bytes> =
        (0..facts.below(4)).map(|_| multiaddr::encode(facts.addr())).collect();
    if let Some(known) = books.conns.get(&conn) {
        addrs.push(multiaddr::encode(Addr { port: 4_001, ..known.remote }));
    }
    Message::DialRequest { addrs, nonce }.encode()
}

/// What the peer of a stream says about itself: true in some of it.
fn identify(facts: &mut Facts<'_>, books: &Books, stream: StreamId) -> Bytes {
    let byte = facts.byte();
    let conn = books.streams.get(&stream).and_then(|open| books.conns.get(&open.conn));
    let number = (1..u8::try_from(PEERS).expect("few peers"))
        .find(|number| conn.is_some_and(|conn| conn.peer == peer(usize::from(*number))));
    // `peer` counts from zero, keys from one.
    let owner = if byte & 1 == 0 { number.unwrap_or(1) + 1 } else { 3 };
    let addr = facts.addr();
    let public = key(owner).0.public();
    let record = (byte & 2 != 0).then(|| {
        let record = PeerRecord {
            peer_id: public.to_peer_id(),
            seq: u64::from(facts.byte()),
            addrs: vec![multiaddr::encode(addr)],
        };
        record.sealed(&public, &mut key(owner))
    });
    let known = protocols(if byte & 4 == 0 { 0xff } else { facts.byte() });
    let said = Identify {
        public_key: (byte & 8 == 0).then(|| public.encode_protobuf().into()),
        listen_addrs: vec![multiaddr::encode(addr); usize::from(byte >> 6)],
        protocols: known.iter().map(|protocol| protocol.name().to_owned()).collect(),
        observed: (byte & 16 == 0).then(|| multiaddr::encode(addr)),
        protocol_version: None,
        agent_version: (byte & 32 == 0).then(|| "peer/1.0".to_owned()),
        signed_peer_record: record,
        relay_load: None,
    };
    said.encode_split().messages.swap_remove(0)
}

fn protocols(bits: u8) -> ProtocolSet {
    let bits = u16::from(bits);
    let chosen = Protocol::ALL.into_iter().enumerate().filter(|(at, _)| bits >> at & 1 != 0);
    chosen.map(|(_, protocol)| protocol).fold(ProtocolSet::NONE, ProtocolSet::with)
}

/// A fact about something that there is not, or that was there before.
fn nonsense(facts: &mut Facts<'_>) -> Event {
    let conn = ConnId(u64::from(facts.byte() & 31));
    let number = u64::from(facts.byte() & 31);
    let protocol = Protocol::ALL[facts.below(Protocol::ALL.len())];
    let side = if facts.flag() { Side::Inbound } else { Side::Outbound };
    let stream = StreamId { side, protocol, number };
    match facts.below(9) {
        0 => Event::StreamOpened { conn, stream },
        1 => Event::StreamFailed { stream, reason: StreamFailure::Failed },
        2 => Event::Frame { stream, body: vec![facts.byte(); 32].into() },
        3 => Event::StreamClosed { stream, end: StreamEnd::Finished },
        4 => Event::Disconnected { conn },
        5 => Event::DialFailed { dial: DialId(number), reason: DialFailure::Refused },
        6 => Event::ListenerClosed { listener: ListenerId(number) },
        7 => Event::ProtocolsListed { conn, protocols: protocols(0xff) },
        _ => Event::Connected(Connected {
            conn,
            peer: peer(facts.below(PEERS)),
            side,
            local: facts.addr(),
            remote: facts.addr(),
            relayed: facts.flag(),
            dial: facts.flag().then_some(DialId(number)),
            rtt: None,
        }),
    }
}
