//! Port mapping through the door: an agent, and a gateway played by hand.

use portolan_core::wire::{MapTransport, nat_pmp, pcp};
use portolan_core::{
    Action, Actions, Addr, Agent, Channel, Config, Cx, Draw, Duration, Event, Gateway, Instant,
    ListenerId, Mapping, MappingAction, MappingConfig, MappingEvent, MappingProtocol,
    MappingReason, MappingState, Signer, Transport, UnixTime,
};
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

const ROUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 1));
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 7));
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(44, 1, 2, 3);
/// Where the router is after it has moved.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(44, 9, 8, 7);

struct Chance(u64);

impl Draw for Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.nonce().checked_rem(n).unwrap_or(0)
    }

    fn nonce(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.0 >> 20
    }
}

impl Signer for Chance {
    fn sign(&mut self, _: &[u8]) -> Vec<u8> {
        Vec::new()
    }
}

/// A gateway that grants whatever is asked, by the protocols that it speaks.
#[derive(Default)]
struct Router {
    speaks: Vec<MappingProtocol>,
    booted: Instant,
    /// Whether it has another external address by now.
    has_moved: bool,
    /// Whether requests to map are heard and not answered.
    hesitates: bool,
    /// Internal port, transport, external port, nonce; in the order of granting.
    table: Vec<(u16, MapTransport, u16, [u8; 12])>,
    requests: Vec<String>,
}

impl Router {
    fn outside(&self) -> Ipv4Addr {
        if self.has_moved { ELSEWHERE } else { OUTSIDE }
    }

    /// It tells everybody of itself, by one protocol.
    fn announcement(&self, protocol: MappingProtocol) -> Event {
        let body = match protocol {
            MappingProtocol::NatPmp => {
                let ip = self.outside();
                nat_pmp::Response::ExternalAddress { epoch: 0, ip }.encode().to_vec()
            }
            MappingProtocol::Pcp | MappingProtocol::Upnp => {
                let mut announce = vec![0; 24];
                announce[..2].copy_from_slice(&[2, 0x80]);
                announce
            }
        };
        let group = (nat_pmp::CLIENT_GROUP, pcp::CLIENT_PORT).into();
        let channel = Channel::Group { group, source: HOST, interface: 2 };
        let from = SocketAddr::new(ROUTER, pcp::PORT);
        Event::Mapping(MappingEvent::DatagramReceived { channel, from, body: body.into() })
    }

    fn answer(&mut self, now: Instant, body: &[u8]) -> Option<Vec<u8>> {
        let epoch = u32::try_from(now.since(self.booted).as_secs()).expect("a short test");
        match portolan_core::wire::version(body)? {
            0 if self.speaks.contains(&MappingProtocol::NatPmp) => {
                let request = nat_pmp::Request::decode(body).expect("a request");
                self.requests.push(format!("{request:?}"));
                let waits = self.hesitates && matches!(request, nat_pmp::Request::Map { .. });
                (!waits).then(|| self.nat_pmp(epoch, request).encode().to_vec())
            }
            2 if self.speaks.contains(&MappingProtocol::Pcp) => {
                let request = pcp::Request::decode(body).expect("a request");
                self.requests.push(format!("{request:?}"));
                Some(self.pcp(epoch, &request))
            }
            _ => None,
        }
    }

    fn nat_pmp(&mut self, epoch: u32, request: nat_pmp::Request) -> nat_pmp::Response {
        match request {
            nat_pmp::Request::Map { transport, internal_port, external_port, lifetime_s } => {
                let key = (internal_port, transport, external_port, [0; 12]);
                self.set(key, lifetime_s);
                let external_port = if lifetime_s == 0 { 0 } else { external_port };
                nat_pmp::Response::Map {
                    transport,
                    epoch,
                    internal_port,
                    external_port,
                    lifetime_s,
                }
            }
            nat_pmp::Request::ExternalAddress | _ => {
                nat_pmp::Response::ExternalAddress { epoch, ip: self.outside() }
            }
        }
    }

    fn pcp(&mut self, epoch: u32, request: &pcp::Request) -> Vec<u8> {
        let mut response = vec![2, 0x80, 0, 0];
        response.extend(request.lifetime_s.to_be_bytes());
        response.extend(epoch.to_be_bytes());
        response.extend([0; 12]);
        if let pcp::RequestBody::Map(map) = &request.body {
            response[1] = 0x81;
            let transport = if map.protocol == 6 { MapTransport::Tcp } else { MapTransport::Udp };
            let key = (map.internal_port, transport, map.external_port, map.nonce);
            self.set(key, request.lifetime_s);
            response.extend(map.nonce);
            response.extend([map.protocol, 0, 0, 0]);
            response.extend(map.internal_port.to_be_bytes());
            response.extend(map.external_port.to_be_bytes());
            response.extend(self.outside().to_ipv6_mapped().octets());
        }
        response
    }

    fn set(&mut self, key: (u16, MapTransport, u16, [u8; 12]), lifetime_s: u32) {
        self.table.retain(|(port, transport, ..)| (*port, *transport) != (key.0, key.1));
        if lifetime_s > 0 {
            self.table.push(key);
        }
    }
}

struct World {
    agent: Agent,
    chance: Chance,
    now: Instant,
    router: Router,
    ledger: Vec<u8>,
    /// Whether the gateway is down.
    is_down: bool,
}

impl World {
    fn new(speaks: &[MappingProtocol]) -> World {
        World {
            agent: agent(&MappingProtocol::ALL),
            chance: Chance(1),
            now: Instant::from_millis(1_000_000),
            router: Router { speaks: speaks.to_vec(), ..Router::default() },
            ledger: Vec::new(),
            is_down: false,
        }
    }

    fn start(&mut self) {
        self.feed(Event::InterfacesChanged { ips: vec![HOST] });
        for (id, addr) in [(1, Addr::tcp(HOST, 4001)), (2, Addr::quic(HOST, 4001))] {
            self.feed(Event::ListenerOpened { listener: ListenerId(id), addr });
        }
        let gateways = vec![Gateway { router: ROUTER, interface: 2, source: HOST }];
        self.feed(Event::Mapping(MappingEvent::GatewaysChanged { gateways }));
    }

    fn feed(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let mut actions = Actions::new();
            let mut sign = Chance(0);
            let mut cx = Cx {
                now: self.now,
                unix: UnixTime::from_millis(1_700_000_000_000 + self.now.as_nanos() / 1_000_000),
                draw: &mut self.chance,
                sign: &mut sign,
                actions: &mut actions,
            };
            self.agent.handle(&mut cx, event);
            for action in actions.drain() {
                events.extend(self.perform(action));
            }
        }
    }

    fn perform(&mut self, action: Action) -> Option<Event> {
        let Action::Mapping(action) = action else { return None };
        match action {
            MappingAction::SendDatagram { channel, to, body } if to.port() == pcp::PORT => {
                assert_eq!(to, SocketAddr::new(ROUTER, pcp::PORT), "nobody else is asked");
                assert_eq!(channel, Channel::Client { source: HOST, interface: 2 });
                if self.is_down {
                    let to = Some(to);
                    return Some(Event::Mapping(MappingEvent::DatagramRefused { channel, to }));
                }
                let body = self.router.answer(self.now, &body)?.into();
                let answered = MappingEvent::DatagramReceived { channel, from: to, body };
                Some(Event::Mapping(answered))
            }
            MappingAction::StoreLedger { ledger } => {
                self.ledger = ledger.to_vec();
                None
            }
            MappingAction::OpenChannel { .. }
            | MappingAction::CloseChannel { .. }
            | MappingAction::SendDatagram { .. }
            | MappingAction::Fetch(_)
            | _ => None,
        }
    }

    fn run(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        while let Some(deadline) = self.agent.deadline().filter(|deadline| deadline.at <= end) {
            self.now = deadline.at;
            self.feed(Event::Tick);
        }
        self.now = end;
    }

    fn mappings(&self) -> Vec<Mapping> {
        self.agent.mappings().collect()
    }

    fn assert_granted(&self, protocol: MappingProtocol) {
        let mappings = self.mappings();
        assert_eq!(mappings.len(), 2, "{mappings:?}");
        for mapping in mappings {
            assert_eq!(mapping.state, MappingState::Granted, "{mapping:?}");
            assert_eq!(mapping.reason, MappingReason::Granted);
            let lease = mapping.lease.expect("a lease");
            assert_eq!(lease.protocol, protocol);
            assert_eq!(lease.external.ip, IpAddr::V4(self.router.outside()));
            assert_eq!(lease.external.port, 4001);
        }
        assert_eq!(self.router.table.len(), 2);
    }
}

fn agent(protocols: &[MappingProtocol]) -> Agent {
    let mut mapping = MappingConfig::default();
    mapping.protocols = protocols.to_vec();
    let mut config = Config::default();
    config.mapping = Some(mapping);
    let keypair = libp2p_identity::Keypair::ed25519_from_bytes([7; 32]).expect("a key");
    Agent::new(config, keypair.public()).expect("a configuration")
}

#[test]
fn both_ports_are_mapped_at_once_renewed_and_given_back() {
    for protocol in [MappingProtocol::Pcp, MappingProtocol::NatPmp] {
        let mut world = World::new(&[protocol]);
        world.start();
        world.assert_granted(protocol);
        let terms = world.agent.explain().terms;
        let granted: Vec<Addr> = world.mappings().iter().map(|one| one.internal).collect();
        assert_eq!(terms.iter().map(|term| term.internal).collect::<Vec<_>>(), granted);
        for term in terms {
            let (until, again) = (term.until.expect("an end"), term.renew_at.expect("a plan"));
            assert!(world.now < again && again < until, "{term:?}");
        }
        let asked = world.router.requests.len();
        world.run(24 * 3_600);
        world.assert_granted(protocol);
        let renewed = world.router.requests.len() - asked;
        // A poll every 40 s, and two renewals every hour and a bit.
        assert!((2_160..2_500).contains(&renewed), "{renewed} requests in a day");
        assert!(!world.agent.has_released());
        world.feed(Event::Mapping(MappingEvent::Closing));
        assert_eq!(world.router.table, []);
        assert!(world.agent.has_released());
        assert_eq!(world.agent.deadline(), None);
        assert_eq!(world.agent.mappings().count(), 0);
    }
}

#[test]
fn a_restarted_gateway_is_asked_again_within_a_minute() {
    for protocol in [MappingProtocol::Pcp, MappingProtocol::NatPmp] {
        let mut world = World::new(&[protocol]);
        world.start();
        world.run(300);
        world.is_down = true;
        world.router.table.clear();
        world.run(30);
        world.is_down = false;
        world.router.booted = world.now;
        world.run(60);
        world.assert_granted(protocol);
    }
}

#[test]
fn what_is_announced_by_one_protocol_counts_for_the_other() {
    let (pcp, nat_pmp) = (MappingProtocol::Pcp, MappingProtocol::NatPmp);
    for (spoken, announced) in [(pcp, nat_pmp), (nat_pmp, pcp)] {
        let mut world = World::new(&[spoken]);
        world.agent = agent(&[spoken]);
        world.start();
        world.run(20);
        world.router.table.clear();
        world.router.booted = world.now;
        world.feed(world.router.announcement(announced));
        world.run(6);
        world.assert_granted(spoken);
    }
}

#[test]
fn a_pcp_server_that_moves_says_so_by_the_other_protocol() {
    let mut world = World::new(&[MappingProtocol::Pcp]);
    world.agent = agent(&[MappingProtocol::Pcp]);
    world.start();
    world.run(20);
    world.router.has_moved = true;
    world.feed(world.router.announcement(MappingProtocol::NatPmp));
    world.run(6);
    world.assert_granted(MappingProtocol::Pcp);
}

#[test]
fn a_crashed_process_renews_the_same_ports_and_gives_back_what_it_does_not_want() {
    for protocol in [MappingProtocol::Pcp, MappingProtocol::NatPmp] {
        let mut world = World::new(&[protocol]);
        world.start();
        world.feed(Event::ListenerOpened { listener: ListenerId(3), addr: Addr::tcp(HOST, 5001) });
        let before = world.router.table.clone();
        assert_eq!(before.len(), 3);

        let ledger = world.ledger.clone().into();
        world.agent = agent(&MappingProtocol::ALL);
        world.feed(Event::Mapping(MappingEvent::LedgerRead { ledger }));
        world.start();
        world.assert_granted_among(&before);
        world.run(11);
        world.assert_granted(protocol);
    }
}

impl World {
    /// The same nonces and external ports as before.
    fn assert_granted_among(&self, before: &[(u16, MapTransport, u16, [u8; 12])]) {
        for row in &self.router.table {
            assert!(before.contains(row), "{row:?} is new");
        }
    }
}

#[test]
fn without_a_gateway_or_an_answer_the_reason_is_named() {
    let mut world = World::new(&[]);
    world.feed(Event::InterfacesChanged { ips: vec![HOST] });
    let addr = Addr::tcp(HOST, 4001);
    world.feed(Event::ListenerOpened { listener: ListenerId(1), addr });
    let reason = |world: &World| world.mappings()[0].reason;
    assert_eq!(reason(&world), MappingReason::NoGateway);
    let gateways = vec![Gateway { router: ROUTER, interface: 2, source: HOST }];
    world.feed(Event::Mapping(MappingEvent::GatewaysChanged { gateways }));
    assert_eq!(reason(&world), MappingReason::Asking);
    world.run(180);
    assert_eq!(reason(&world), MappingReason::Silent);
}

impl World {
    /// The gateway says no, in so many of the bytes that it has for it.
    fn refuse(&mut self, opcode: u8, internal_port: u16, len: usize) {
        let refusal = nat_pmp::Response::Failed {
            opcode,
            code: nat_pmp::ResultCode::NotAuthorized,
            epoch: Some(u32::try_from(self.now.as_nanos() / 1_000_000_000).expect("a short test")),
            internal_port: Some(internal_port),
        };
        let mut body = refusal.encode();
        body.truncate(len);
        let channel = Channel::Client { source: HOST, interface: 2 };
        let from = SocketAddr::new(ROUTER, pcp::PORT);
        self.feed(Event::Mapping(MappingEvent::DatagramReceived { channel, from, body }));
    }

    /// The transports of the mappings that were refused.
    fn refused(&self) -> Vec<Transport> {
        let protocol = MappingProtocol::NatPmp;
        let reason = MappingReason::Refused { protocol, code: 2 };
        let mappings = self.agent.mappings().filter(|one| one.reason == reason);
        mappings.map(|one| one.internal.transport).collect()
    }
}

#[test]
fn an_error_of_nat_pmp_fails_the_request_that_it_names() {
    // RFC 6886 §3.3: what asks to map UDP has opcode 1, and TCP 2; §3.5: an error has its port.
    for (len, port) in [(16, 4001), (16, 0), (8, 0)] {
        let mut world = World::new(&[MappingProtocol::NatPmp]);
        world.agent = agent(&[MappingProtocol::NatPmp]);
        world.router.hesitates = true;
        world.start();
        let asked = world.router.requests.last().expect("a request").clone();
        assert!(asked.contains("transport: Tcp, internal_port: 4001"), "{asked}");
        for opcode in [0, 1, 3] {
            world.refuse(opcode, port, len);
            assert_eq!(world.refused(), [], "opcode {opcode}");
        }
        world.refuse(2, 4002, 16);
        assert_eq!(world.refused(), [], "another port");

        world.refuse(2, port, len);
        assert_eq!(world.refused(), [Transport::Tcp]);
        let asked = world.router.requests.last().expect("a request").clone();
        assert!(asked.contains("transport: Udp, internal_port: 4001"), "{asked}");
        world.refuse(2, port, len);
        assert_eq!(world.refused(), [Transport::Tcp], "it came twice");
        world.refuse(1, port, len);
        assert_eq!(world.refused().len(), 2);
    }
}
