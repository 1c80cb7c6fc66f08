//! Structured nonsense: orders drawn by proptest, and how a world carries them out.

use crate::relays::{RelayOp, any_relay_op};
use crate::routers::{RouterOp, any_router_op};
use crate::world::{Ask, OURS, PEERS, REMOTES, World, key};
use bytes::Bytes;
use portolan_core::wire::autonat::{DialBack, DialStatus, Message, ResponseStatus};
use portolan_core::wire::identify::Identify;
use portolan_core::wire::multiaddr;
use portolan_core::{
    Action, Addr, Class, ConnId, Connected, DialFailure, DialId, Duration, Event, Family,
    ListenerId, PeerId, Protocol, ProtocolSet, Side, StreamEnd, StreamFailure, StreamId, Transport,
};
use proptest::prelude::*;
use std::net::IpAddr;

/// One order. Numbers point into whatever the world has at that moment, modulo its length.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Listen(u8),
    Unlisten(u8),
    Interfaces(u8),
    Contacted(u8),
    Reported(u8),
    Connect {
        peer: u8,
        ip: u8,
        bits: u8,
    },
    ReuseConn {
        which: u8,
        peer: u8,
    },
    Disconnect(u8),
    Identify {
        which: u8,
        observed: u8,
        bits: u8,
    },
    Push {
        which: u8,
        observed: u8,
        bits: u8,
    },
    Observed {
        which: u8,
        observed: u8,
    },
    Listed {
        which: u8,
        server: bool,
    },
    /// A server answers as its world is: proof or failure, by the parity of the address.
    Serve {
        which: u8,
        open: bool,
        ip: u8,
    },
    Answer {
        which: u8,
        status: u8,
        dial_status: u8,
        index: u8,
    },
    DemandData {
        which: u8,
        bytes: u32,
    },
    DialBack {
        which: u8,
        how: u8,
        ip: u8,
    },
    Echo {
        which: u8,
        right: bool,
    },
    StreamEnds {
        which: u8,
        how: u8,
    },
    Garbage {
        which: u8,
        protocol: u8,
        bytes: Vec<u8>,
    },
    Request {
        which: u8,
        target: u8,
        more: u8,
    },
    Chunks {
        which: u8,
        len: u16,
        count: u8,
    },
    Dialled {
        which: u8,
        how: u8,
    },
    BackAnswered {
        which: u8,
        how: u8,
    },
    Serviced {
        which: u8,
        protocol: u8,
    },
    Unknown {
        id: u64,
        what: u8,
    },
    Wait(u32),
    ToDeadline(u8),
    /// The machine sleeps for so many milliseconds; the agent is told so, or nearly so.
    Sleep(u32, u8),
    /// The wall clock is set, by so many hours.
    Clock(i16),
    Router(RouterOp),
    Relay(RelayOp),
}

/// Orders by their odds: enough sense among the nonsense that deep states are reached.
pub(crate) fn any_op() -> impl Strategy<Value = Op> {
    let b = any::<u8>;
    let honest = prop_oneof![
        5 => (b(), b(), b()).prop_map(|(peer, ip, bits)| Op::Connect { peer, ip, bits }),
        7 => (b(), b(), b()).prop_map(|(which, observed, bits)| Op::Identify { which, observed, bits }),
        2 => (b(), b()).prop_map(|(which, observed)| Op::Observed { which, observed }),
        2 => (b(), any::<bool>()).prop_map(|(which, server)| Op::Listed { which, server }),
        9 => (b(), any::<bool>(), b()).prop_map(|(which, open, ip)| Op::Serve { which, open, ip }),
        3 => (b(), any::<bool>()).prop_map(|(which, right)| Op::Echo { which, right }),
        2 => b().prop_map(Op::Listen),
        1 => b().prop_map(Op::Interfaces),
        4 => (0..12_000_u32).prop_map(Op::Wait),
        1 => (12_000..4_000_000_u32).prop_map(Op::Wait),
        5 => b().prop_map(Op::ToDeadline),
        1 => (0..26_000_u32, b()).prop_map(|(millis, how)| Op::Sleep(millis, how)),
        1 => (25_000..4_000_000_u32, b()).prop_map(|(millis, how)| Op::Sleep(millis, how)),
        1 => any::<i16>().prop_map(Op::Clock),
    ];
    let odd = prop_oneof![
        1 => b().prop_map(Op::Unlisten),
        1 => b().prop_map(Op::Contacted),
        1 => b().prop_map(Op::Reported),
        2 => b().prop_map(Op::Disconnect),
        1 => (b(), b()).prop_map(|(which, peer)| Op::ReuseConn { which, peer }),
        2 => (b(), b(), b()).prop_map(|(which, observed, bits)| Op::Push { which, observed, bits }),
        7 => (b(), b(), b(), b()).prop_map(|(which, status, dial_status, index)| {
            Op::Answer { which, status, dial_status, index }
        }),
        4 => (b(), 80_000..103_000_u32).prop_map(|(which, bytes)| Op::DemandData { which, bytes }),
        4 => (b(), b(), b()).prop_map(|(which, how, ip)| Op::DialBack { which, how, ip }),
        2 => (b(), b()).prop_map(|(which, how)| Op::StreamEnds { which, how }),
        2 => (b(), b(), proptest::collection::vec(b(), 0..40))
            .prop_map(|(which, protocol, bytes)| Op::Garbage { which, protocol, bytes }),
        1 => (any::<u64>(), b()).prop_map(|(id, what)| Op::Unknown { id, what }),
        1 => any_router_op().prop_map(Op::Router),
        1 => any_relay_op().prop_map(Op::Relay),
    ];
    let service = prop_oneof![
        3 => (b(), b(), b()).prop_map(|(which, target, more)| Op::Request { which, target, more }),
        3 => (b(), 0..5_000_u16, 1..40_u8)
            .prop_map(|(which, len, count)| Op::Chunks { which, len, count }),
        3 => (b(), b()).prop_map(|(which, how)| Op::Dialled { which, how }),
        2 => (b(), b()).prop_map(|(which, how)| Op::BackAnswered { which, how }),
        2 => (b(), b()).prop_map(|(which, protocol)| Op::Serviced { which, protocol }),
    ];
    prop_oneof![5 => honest, 2 => odd, 1 => service]
}

pub(crate) fn pick<T: Clone>(all: impl IntoIterator<Item = T>, which: u8) -> Option<T> {
    let all: Vec<T> = all.into_iter().collect();
    // The newest are the likeliest to matter.
    let back = usize::from(which) % all.len().max(1);
    all.iter().rev().nth(back).cloned()
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an IP")
}

fn transport(bit: bool) -> Transport {
    if bit { Transport::Quic } else { Transport::Tcp }
}

impl World {
    #[allow(clippy::too_many_lines, reason = "one arm for each order")]
    pub(crate) fn perform(&mut self, op: Op) {
        match op {
            Op::Listen(n) => self.listen(n),
            Op::Unlisten(n) => {
                let listener = pick(self.listeners.keys().copied(), n).unwrap_or(ListenerId(999));
                self.step(Event::ListenerClosed { listener });
            }
            Op::Interfaces(mask) => {
                let all = ["192.168.1.2", "99.0.0.7", "2600:99::7", "fe80::1", "127.0.0.1", "::1"];
                let up = |(n, _): &(usize, _)| mask >> n & 1 == 1;
                let ips = all.iter().enumerate().filter(up).map(|(_, text)| ip(text)).collect();
                self.step(Event::InterfacesChanged { ips });
            }
            Op::Contacted(n) => {
                self.step(Event::Contacted { ip: ip(REMOTES[usize::from(n) % REMOTES.len()]) });
            }
            Op::Reported(n) => {
                let known = self.agent.reachability().addresses().map(|(addr, _)| addr);
                let addr = pick(known, n).unwrap_or(Addr::tcp(ip("99.0.0.7"), 9));
                self.step(Event::DialFailureReported { addr });
            }
            Op::Connect { peer, ip: n, bits } => {
                let side = if bits & 3 == 0 { Side::Inbound } else { Side::Outbound };
                self.connect(peer, n, side, transport(bits & 4 != 0), bits);
            }
            Op::ReuseConn { which, peer } => {
                if let Some(mut facts) = pick(self.conns.values(), which).map(|c| c.facts.clone()) {
                    facts.peer = peer_id(peer);
                    facts.side = Side::Inbound;
                    facts.dial = None;
                    self.step(Event::Connected(facts));
                }
            }
            Op::Disconnect(n) => {
                let conn = pick(self.conns.keys().copied(), n).unwrap_or(ConnId(u64::MAX));
                self.step(Event::Disconnected { conn });
            }
            Op::Identify { which, observed, bits } => {
                let ours = self
                    .streams
                    .keys()
                    .filter(|one| one.protocol == Protocol::Identify && one.side == Side::Outbound);
                if let Some(stream) = pick(ours.copied(), which) {
                    self.identify(stream, observed, bits);
                }
            }
            Op::Push { which, observed, bits } => {
                if let Some(stream) = self.open_inbound(which, Protocol::IdentifyPush) {
                    self.identify(stream, observed, bits);
                }
            }
            Op::Observed { which, observed } => {
                let conn = pick(self.conns.keys().copied(), which).unwrap_or(ConnId(u64::MAX));
                let observed = self.observed(conn, observed);
                self.step(Event::Observed { conn, observed });
            }
            Op::Listed { which, server } => {
                let conn = pick(self.conns.keys().copied(), which).unwrap_or(ConnId(u64::MAX));
                let one = ProtocolSet::NONE.with(Protocol::DialRequest);
                let protocols = if server { one } else { ProtocolSet::NONE };
                self.step(Event::ProtocolsListed { conn, protocols });
            }
            Op::Serve { which, open, ip } => self.serve(which, open, ip),
            Op::Answer { which, status, dial_status, index } => {
                self.answer(which, status, dial_status, index);
            }
            Op::DemandData { which, bytes } => self.demand(which, bytes),
            Op::DialBack { which, how, ip } => self.dial_back(which, how, ip),
            Op::Wait(millis) => {
                self.pass(Duration::from_millis(millis.into()));
                self.step(Event::Tick);
            }
            Op::ToDeadline(n) => {
                for _ in 0..=n % 4 {
                    if let Some(deadline) = self.agent.deadline() {
                        self.now = deadline.at;
                        self.step(Event::Tick);
                    }
                }
            }
            Op::Sleep(millis, how) => self.suspend(Duration::from_millis(millis.into()), how),
            Op::Clock(hours) => self.set_clock(hours),
            Op::Echo { which, right } => self.echo(which, right),
            Op::StreamEnds { which, how } => self.stream_ends(which, how),
            Op::Garbage { which, protocol, bytes } => self.garbage(which, protocol, bytes),
            Op::Request { which, target, more } => self.request(which, target, more),
            Op::Chunks { which, len, count } => self.chunks(which, len, count),
            Op::Dialled { which, how } => self.dialled(which, how),
            Op::BackAnswered { which, how } => self.back_answered(which, how),
            Op::Serviced { which, protocol } => {
                let protocol = [Protocol::Identify, Protocol::Ping][usize::from(protocol % 2)];
                if let Some(stream) = self.open_inbound(which, protocol)
                    && protocol == Protocol::Ping
                {
                    self.step(Event::Frame { stream, body: Bytes::from_static(&[5; 32]) });
                }
            }
            Op::Unknown { id, what } => self.unknown(id, what),
            Op::Router(op) => self.router(op),
            Op::Relay(op) => self.relay(op),
        }
    }

    fn listen(&mut self, n: u8) {
        let all = [
            Addr::tcp(ip("0.0.0.0"), 4001),
            Addr::quic(ip("0.0.0.0"), 4001),
            Addr::tcp(ip("::"), 4001),
            Addr::quic(ip("::"), 4001),
            Addr::tcp(ip("192.168.1.2"), 4002),
        ];
        let addr = all[usize::from(n) % all.len()];
        let reused = pick(self.listeners.keys().copied(), 0).filter(|_| n > 240);
        let listener = reused.unwrap_or(ListenerId(self.fresh()));
        self.step(Event::ListenerOpened { listener, addr });
    }

    fn connect(&mut self, peer: u8, n: u8, side: Side, transport: Transport, bits: u8) -> ConnId {
        let conn = ConnId(self.fresh());
        let remote_ip = ip(REMOTES[usize::from(n) % REMOTES.len()]);
        let local_ip = match Family::of(remote_ip) {
            Family::Ip4 => ip("192.168.1.2"),
            Family::Ip6 => ip("2600:99::7"),
        };
        let port = if bits & 8 == 0 || side == Side::Inbound { 4001 } else { 50_000 };
        self.step(Event::Connected(Connected {
            conn,
            peer: peer_id(peer),
            side,
            local: Addr::new(local_ip, port, transport),
            remote: Addr::new(remote_ip, 4001 + u16::from(bits >> 6), transport),
            relayed: bits & 48 == 48,
            dial: None,
            rtt: (bits & 16 != 0).then(|| Duration::from_millis(u64::from(bits))),
        }));
        conn
    }

    /// What a peer may say that it sees: mostly the truth, now and then poison.
    fn observed(&self, conn: ConnId, n: u8) -> Addr {
        let facts = self.conns.get(&conn).map(|conn| &conn.facts);
        let transport = facts.map_or(Transport::Tcp, |facts| facts.local.transport);
        let v6 = facts.is_some_and(|facts| facts.remote.ip.is_ipv6());
        match n {
            0..160 if v6 => Addr::new(ip("2600:99::7"), 4001, transport),
            0..160 => Addr::new(ip("99.0.0.7"), 4001, transport),
            160..200 => Addr::new(ip("99.0.0.7"), 20_000 + u16::from(n), transport),
            200..230 => Addr::new(ip(OURS[usize::from(n) % OURS.len()]), u16::from(n), transport),
            _ => Addr::new(ip("8.8.8.8"), u16::from(n) - 230, Transport::Quic),
        }
    }

    fn identify(&mut self, stream: StreamId, observed: u8, bits: u8) {
        let conn = self.streams[&stream].conn;
        let seen = self.observed(conn, observed);
        let whose = if bits & 15 == 15 { PEERS } else { usize::from(bits) % PEERS };
        let mut protocols = vec![Protocol::Identify.name().to_owned(), "/x/1".to_owned()];
        if bits & 7 != 7 {
            protocols.push(Protocol::DialRequest.name().to_owned());
        }
        if bits & 16 != 0 {
            protocols.push(Protocol::IdentifyPush.name().to_owned());
        }
        let identify = Identify {
            public_key: (bits & 8 != 0).then(|| key(whose).public().encode_protobuf().into()),
            protocols: if bits & 96 == 96 { Vec::new() } else { protocols },
            observed: (bits & 128 == 0 || observed < 128).then(|| multiaddr::encode(seen)),
            signed_peer_record: (bits & 31 == 1).then(|| Bytes::from_static(b"no envelope")),
            ..Identify::default()
        };
        for body in identify.encode_split().messages {
            self.step(Event::Frame { stream, body });
        }
        if bits & 3 != 0 {
            self.step(Event::StreamClosed { stream, end: StreamEnd::Finished });
        }
    }

    /// A stream that a peer opens on some connection.
    fn open_inbound(&mut self, which: u8, protocol: Protocol) -> Option<StreamId> {
        let conn = pick(self.conns.keys().copied(), which)?;
        self.open_on(conn, protocol)
    }

    pub(crate) fn open_on(&mut self, conn: ConnId, protocol: Protocol) -> Option<StreamId> {
        let stream = StreamId::inbound(protocol, self.fresh());
        self.step(Event::StreamOpened { conn, stream });
        self.streams.contains_key(&stream).then_some(stream)
    }

    fn open_asks(&self) -> impl Iterator<Item = Ask> + '_ {
        self.asks.iter().filter(|ask| !ask.ended).cloned()
    }

    fn respond(&mut self, ask: &Ask, status: ResponseStatus, addr_idx: u32, dial: DialStatus) {
        let said = Message::DialResponse { status, addr_idx, dial_status: dial, failed_from: None };
        self.step(Event::Frame { stream: ask.stream, body: said.encode() });
    }

    fn serve(&mut self, which: u8, open: bool, n: u8) {
        let Some(ask) = pick(self.open_asks(), which) else { return };
        self.pass(Duration::from_millis(20));
        if open {
            self.deliver(&ask, ask.addr.class(), n, ask.nonce);
            self.respond(&ask, ResponseStatus::Ok, 0, DialStatus::Ok);
        } else {
            self.respond(&ask, ResponseStatus::Ok, 0, DialStatus::DialError);
        }
    }

    /// A fresh inbound connection of this class brings a nonce.
    fn deliver(&mut self, ask: &Ask, class: Class, n: u8, nonce: u64) {
        let family = |text: &&&str| Family::of(ip(text)) == class.family;
        let place = REMOTES.iter().position(|text| {
            let nth = REMOTES.iter().filter(family).cycle().nth(usize::from(n));
            nth == Some(text)
        });
        let place = u8::try_from(place.unwrap_or(0)).unwrap_or(0);
        let peer = self.peer_number(ask.peer);
        let conn = self.connect(peer, place, Side::Inbound, class.transport, 0);
        if let Some(stream) = self.open_on(conn, Protocol::DialBack) {
            self.step(Event::Frame { stream, body: DialBack { nonce }.encode() });
        }
        if n.is_multiple_of(2) {
            self.step(Event::Disconnected { conn });
        }
    }

    fn peer_number(&self, peer: PeerId) -> u8 {
        (0..=u8::MAX).find(|n| peer_id(*n) == peer).unwrap_or(0)
    }

    fn answer(&mut self, which: u8, status: u8, dial_status: u8, index: u8) {
        let asks: Vec<Ask> = self.asks.iter().rev().take(12).rev().cloned().collect();
        let Some(ask) = pick(asks, which) else { return };
        let status = [200, 200, 200, 100, 101, 0, 300][usize::from(status) % 7];
        let dial_status = [200, 100, 101, 0, 77][usize::from(dial_status) % 5];
        let index = u32::from(index >= 230);
        let status = ResponseStatus::from_code(status);
        self.respond(&ask, status, index, DialStatus::from_code(dial_status));
    }

    fn demand(&mut self, which: u8, num_bytes: u32) {
        let all: Vec<Ask> = self.open_asks().collect();
        let count = if which.is_multiple_of(2) { all.len() } else { 1 };
        let some = all.iter().cycle().skip(which.into()).take(count);
        some.for_each(|ask| self.demand_for(ask, num_bytes));
    }

    fn demand_for(&mut self, ask: &Ask, num_bytes: u32) {
        let wanted = u64::from(num_bytes);
        let body = Message::DialDataRequest { addr_idx: 0, num_bytes: wanted }.encode();
        let actions = self.step(Event::Frame { stream: ask.stream, body });
        let data = |action: &Action| match action {
            Action::Send { stream, body } if *stream == ask.stream => match Message::decode(body) {
                Ok(Message::DialDataResponse { data }) => data.len() as u64,
                _ => 0,
            },
            _ => 0,
        };
        let paid: u64 = actions.iter().map(data).sum();
        let fair = (wanted..wanted + 4_096).contains(&paid) && (1..=100_000).contains(&wanted);
        assert!(paid == 0 || fair, "{wanted} bytes were wanted and {paid} paid");
    }

    fn dial_back(&mut self, which: u8, how: u8, n: u8) {
        let asks: Vec<Ask> = self.asks.iter().rev().take(12).rev().cloned().collect();
        let Some(ask) = pick(asks, which) else { return };
        let class = ask.addr.class();
        let other = match class.transport {
            Transport::Tcp => Class::new(class.family, Transport::Quic),
            Transport::Quic => Class::new(class.family, Transport::Tcp),
        };
        match how % 6 {
            0 | 1 => self.deliver(&ask, class, n, ask.nonce),
            2 => self.deliver(&ask, other, n, ask.nonce),
            3 => self.deliver(&ask, class, n, ask.nonce ^ 1),
            _ => {
                // Over whatever connection there is: outbound, relayed, older than the question.
                if let Some(stream) = self.open_inbound(n, Protocol::DialBack) {
                    let body = DialBack { nonce: ask.nonce }.encode();
                    self.step(Event::Frame { stream, body: body.clone() });
                    self.step(Event::Frame { stream, body });
                }
            }
        }
    }

    fn echo(&mut self, which: u8, right: bool) {
        let pings = self.pings.clone();
        let Some((stream, body)) = pick(pings, which) else { return };
        let body = if right { body } else { Bytes::from_static(&[9; 32]) };
        self.step(Event::Frame { stream, body });
    }

    fn stream_ends(&mut self, which: u8, how: u8) {
        let Some(stream) = pick(self.streams.keys().copied(), which) else { return };
        let ours = stream.side == Side::Outbound;
        let event = match how % 6 {
            0 => Event::StreamClosed { stream, end: StreamEnd::Reset },
            1 => Event::StreamClosed { stream, end: StreamEnd::BadFrame },
            2 if ours => Event::StreamFailed { stream, reason: StreamFailure::Unsupported },
            3 if ours => Event::StreamFailed { stream, reason: StreamFailure::TimedOut },
            4 => Event::StreamOpened { conn: self.streams[&stream].conn, stream },
            _ => Event::StreamClosed { stream, end: StreamEnd::Finished },
        };
        self.step(event);
    }

    fn garbage(&mut self, which: u8, protocol: u8, bytes: Vec<u8>) {
        let protocol = Protocol::ALL[usize::from(protocol) % Protocol::ALL.len()];
        let of = self.streams.keys().filter(|one| one.protocol == protocol);
        let stream = pick(of.copied(), which);
        let stream = stream.or_else(|| self.open_inbound(which, protocol));
        if let Some(stream) = stream {
            self.step(Event::Frame { stream, body: bytes.into() });
        }
    }

    fn unknown(&mut self, id: u64, what: u8) {
        let (id, protocol) = (id | 1 << 63, Protocol::ALL[usize::from(what) % 5]);
        let side = if what & 64 == 0 { Side::Inbound } else { Side::Outbound };
        let (conn, stream) = (ConnId(id), StreamId { side, protocol, number: id });
        self.step(match what % 9 {
            0 => Event::ListenerClosed { listener: ListenerId(id) },
            1 => Event::Disconnected { conn },
            2 => Event::DialFailed { dial: DialId(id), reason: DialFailure::TimedOut },
            3 => Event::StreamOpened { conn, stream },
            4 => Event::StreamFailed { stream, reason: StreamFailure::Failed },
            5 => Event::Frame { stream, body: Bytes::from_static(b"?") },
            6 => Event::StreamClosed { stream, end: StreamEnd::Finished },
            7 => Event::Observed { conn, observed: Addr::tcp(ip("99.0.0.7"), 4001) },
            _ => Event::ProtocolsListed { conn, protocols: ProtocolSet::NONE },
        });
    }
}

pub(crate) fn peer_id(n: u8) -> PeerId {
    key(usize::from(n) % PEERS).public().to_peer_id()
}
