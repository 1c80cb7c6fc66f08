//! Two nodes, what stands between them and the Internet, a relay, and servers.

use crate::{PORT, seconds};
use portolan_core::{
    Addr, CircuitId, Class, Config, ConnId, DialBackConfig, Duration, Family, FilteringBehavior,
    Instant, MappingBehavior, Notice, PunchConfig, PunchNotice, RelayConfig, RelayNeed, RelayPeer,
    RelayServerConfig, Transport,
};
use portolan_sim::Dice;
use portolan_sim::net::{
    Dependence, Fabric, Gate, GateConfig, HostId, Link, Loss, Packet, PacketKind, PortAllocation,
    Refusal, RouterId,
};
use portolan_sim::world::{CallEnd, Costs, NodeConfig, NodeId, World};
use std::collections::BTreeMap;
use std::net::IpAddr;

use Dependence::{Address, AddressAndPort, Independent};

/// Networks with a server, number: that a mapping depends on the endpoint takes three, and which of
/// those dial back from a second IP: that strangers are kept out takes two, and that those are let
/// in who were called takes another one.
pub(crate) const SERVERS: u8 = 5;
const MULTIHOMED: u8 = 3;

/// What stands between a node and the Internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Nothing.
    Public,
    /// A firewall without translation.
    Firewall,
    /// A NAT: mapping, filtering.
    Nat(Dependence, Dependence),
    /// Two NATs, the outer one with 100.64/10 on its inside; both EI×APD.
    Double,
}

/// Everything that stands on IPv4.
pub(crate) const ON_IP4: [Kind; 11] = [
    Kind::Public,
    Kind::Nat(Independent, Independent),
    Kind::Nat(Independent, Address),
    Kind::Nat(Independent, AddressAndPort),
    Kind::Nat(Address, Independent),
    Kind::Nat(Address, Address),
    Kind::Nat(Address, AddressAndPort),
    Kind::Nat(AddressAndPort, Independent),
    Kind::Nat(AddressAndPort, Address),
    Kind::Nat(AddressAndPort, AddressAndPort),
    Kind::Double,
];
/// Everything that stands on IPv6.
pub(crate) const ON_IP6: [Kind; 2] = [Kind::Public, Kind::Firewall];

impl Kind {
    pub(crate) fn name(self) -> String {
        match self {
            Kind::Public => "public".to_owned(),
            Kind::Firewall => "firewall".to_owned(),
            Kind::Nat(mapping, filtering) => {
                format!("{}×{}", mapping.name(), filtering.name()).to_uppercase()
            }
            Kind::Double => "double NAT".to_owned(),
        }
    }
}

/// One side of a pair.
#[derive(Clone, Debug)]
pub(crate) struct Side {
    pub(crate) kind: Kind,
    /// What its gates do with what they do not let in.
    pub(crate) refusal: Refusal,
    pub(crate) link: Link,
    /// How its NAT gives out ports, if not as its kind does.
    pub(crate) ports: Option<PortAllocation>,
    /// How often others behind the same NAT call somebody: the time between two calls, on average.
    pub(crate) others: Option<Duration>,
    /// Whether it takes part in the prediction of ports.
    pub(crate) predicts: bool,
}

/// One side as it stands.
pub(crate) struct Stood {
    pub(crate) host: HostId,
    pub(crate) ip: IpAddr,
    behind: Option<RouterId>,
}

/// Two nodes that want to reach each other.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) class: Class,
    /// Who takes the circuit, and who opens it.
    pub(crate) sides: [Side; 2],
    /// The link of the relay.
    pub(crate) relay: Link,
    /// What else is so about the gates, of which side.
    pub(crate) besides: fn(u8, &mut GateConfig),
}

/// The addresses of the sides' sites, and of their hosts where those have others.
fn outside(side: u8) -> IpAddr {
    IpAddr::from([44, 5, side, 1])
}

fn inside(pair: &Pair, side: u8) -> IpAddr {
    match (pair.class.family, pair.sides[usize::from(side)].kind) {
        (Family::Ip6, _) => IpAddr::from([0x2600, 5, u16::from(side), 0, 0, 0, 0, 2]),
        (Family::Ip4, Kind::Public | Kind::Firewall) => outside(side),
        (Family::Ip4, Kind::Nat(..) | Kind::Double) => IpAddr::from([192, 168, 1, 2 + side]),
    }
}

/// Where servers and the relay stand.
pub(crate) fn public_ip(family: Family, network: u8, host: u8) -> IpAddr {
    match family {
        Family::Ip4 => IpAddr::from([44, 0, network, host]),
        Family::Ip6 => {
            IpAddr::from([0x2600, 0x100 + u16::from(network), 0, 0, 0, 0, 0, u16::from(host)])
        }
    }
}

impl Pair {
    /// Put up one side's routers and its host.
    pub(crate) fn stand(&self, fabric: &mut Fabric, side: u8) -> Stood {
        let Side { kind, refusal, link, ports, .. } = &self.sides[usize::from(side)];
        let ip = inside(self, side);
        let gate = |config: GateConfig, outside: Option<IpAddr>| {
            let mut config = GateConfig { refusal: *refusal, ..config };
            (self.besides)(side, &mut config);
            Gate::new(config, outside)
        };
        let wall = || gate(GateConfig::firewall(), None);
        let strict = || GateConfig::nat(Independent, AddressAndPort);
        let outside = outside(side);
        let behind: Option<RouterId> = match kind {
            Kind::Public => None,
            Kind::Firewall => Some(fabric.add_router(None, wall(), wall(), link.clone())),
            Kind::Nat(mapping, filtering) => {
                let config = GateConfig::nat(*mapping, *filtering);
                let ports = ports.unwrap_or(config.ports);
                let nat = gate(GateConfig { ports, ..config }, Some(outside));
                Some(fabric.add_router(None, nat, wall(), link.clone()))
            }
            Kind::Double => {
                let outer = gate(strict(), Some(outside));
                let outer = fabric.add_router(None, outer, wall(), link.clone());
                let inner = gate(strict(), Some(IpAddr::from([100, 64, 0, 9])));
                Some(fabric.add_router(Some(outer), inner, wall(), Link::default()))
            }
        };
        Stood { host: fabric.add_host(behind, &[ip], link.clone()), ip, behind }
    }
}

/// A world with a pair in it.
pub(crate) struct Site {
    pub(crate) world: World,
    pub(crate) pair: Pair,
    /// Who takes the circuit, and who opens it.
    pub(crate) sides: [NodeId; 2],
    /// When the one who takes it has the circuit.
    pub(crate) circuit_at: Option<Instant>,
    /// The last call of the one who opens it, but the first.
    called: Option<CircuitId>,
    relay: NodeId,
    relay_addr: Addr,
    others: Vec<Others>,
}

/// Other hosts behind the NAT of a side, as one that calls one stranger after the other.
struct Others {
    host: HostId,
    ip: IpAddr,
    every: Duration,
    next_at: Instant,
    calls: u32,
    dice: Dice,
}

impl Others {
    /// The next call: its packet gets a port of the NAT's.
    fn call(&mut self, world: &mut World, transport: Transport) {
        self.calls += 1;
        let port = 20_000 + u16::try_from(self.calls % 40_000).unwrap_or(0);
        let from = Addr::new(self.ip, port, transport);
        let [_, high, middle, low] = self.calls.to_be_bytes();
        let to = Addr::new(IpAddr::from([45, high, middle, low]), 443, transport);
        let packet = Packet::bare(from, to, PacketKind::Open);
        // It ends nowhere.
        let _ = world.fabric.send(world.now(), self.host, packet, &mut self.dice);
        self.next_at = self.next_at + self.dice.span_between(Duration::ZERO, self.every * 2);
    }
}

fn any(family: Family) -> IpAddr {
    match family {
        Family::Ip4 => IpAddr::from([0; 4]),
        Family::Ip6 => IpAddr::from([0_u16; 8]),
    }
}

fn node(world: &mut World, name: &str, host: HostId, class: Class, core: Config) -> NodeId {
    let config = NodeConfig {
        name: name.to_owned(),
        host,
        core,
        listen: vec![Addr::new(any(class.family), PORT, class.transport)],
        vice: None,
        costs: Costs::PORTOLAN,
    };
    world.add_node(config).expect("a configuration that core takes")
}

impl Site {
    pub(crate) fn new(seed: u64, pair: Pair) -> Site {
        let class = pair.class;
        let mut world = World::new(seed, false);
        world.leave_out_signatures();
        world.keep_notices();
        let ip = public_ip(class.family, 100, 1);
        let host = world.fabric.add_host(None, &[ip], pair.relay.clone());
        let mut core = Config::default();
        core.relay_server = Some(RelayServerConfig::default());
        let relay = node(&mut world, "relay", host, class, core);
        world.start(relay);
        let relay_addr = Addr::new(ip, PORT, class.transport);
        let servers: Vec<(NodeId, Addr)> =
            (1..=SERVERS).map(|network| server(&mut world, class, network)).collect();
        let host = world.fabric.add_host(None, &[public_ip(class.family, 99, 1)], Link::default());
        let crowd = node(&mut world, "crowd", host, class, Config::default());
        world.start(crowd);
        for (_, addr) in &servers {
            world.visit(crowd, *addr);
        }
        let known = RelayPeer { peer: world.node(relay).peer(), addrs: vec![relay_addr] };
        let needs = [(RelayNeed::Always, vec![known]), (RelayNeed::Never, Vec::new())];
        let (mut number, mut others) = (0, Vec::new());
        let sides = needs.map(|(need, relays)| {
            let Stood { host, behind, .. } = pair.stand(&mut world.fabric, number);
            let side = &pair.sides[usize::from(number)];
            if let Some(every) = side.others {
                let ip = IpAddr::from([192, 168, 1, 200]);
                let host = world.fabric.add_host(behind, &[ip], Link::default());
                let dice = Dice::new(seed ^ u64::from(number) << 32 ^ 0x6f74_6865);
                let next_at = Instant::ZERO;
                others.push(Others { host, ip, every, next_at, calls: 0, dice });
            }
            let mut core = Config::default();
            let mut config = RelayConfig::default();
            (config.need, config.relays) = (need, relays);
            core.relay = Some(config);
            let mut punch = PunchConfig::default();
            punch.predict_ports = side.predicts;
            core.punch = Some(punch);
            let name = ["taker", "opener"][usize::from(number)];
            number += 1;
            node(&mut world, name, host, class, core)
        });
        let (circuit_at, called) = (None, None);
        let mut site = Site { world, pair, sides, circuit_at, called, relay, relay_addr, others };
        site.pass(seconds(1));
        for side in site.sides {
            site.world.start(side);
            for (server, addr) in &servers {
                site.world.target(side, *addr, *server);
            }
        }
        site
    }

    /// Let time pass.
    pub(crate) fn pass(&mut self, span: Duration) {
        let until = self.world.now() + span;
        loop {
            let next = self.others.iter_mut().min_by_key(|others| others.next_at);
            let Some(others) = next.filter(|others| others.next_at < until) else { break };
            if let Err(violation) = self.world.run_until(others.next_at) {
                panic!("{violation}: {:?}", self.pair);
            }
            others.call(&mut self.world, self.pair.class.transport);
        }
        if let Err(violation) = self.world.run_until(until) {
            panic!("{violation}: {:?}", self.pair);
        }
    }

    /// The one who opens it calls the other, until there is a circuit; the circuit at its end.
    pub(crate) fn open_circuit(&mut self) -> Option<ConnId> {
        let [taker, opener] = self.sides;
        for _ in 0..5 {
            let relay = (self.world.node(self.relay).peer(), self.relay_addr);
            let peer = self.world.node(taker).peer();
            let call = self.world.call(opener, relay, peer);
            for _ in 0..1_500 {
                self.pass(Duration::from_millis(10));
                if self.circuit_at.is_none() && self.world.circuits_of(taker).next().is_some() {
                    self.circuit_at = Some(self.world.now());
                }
                match self.world.called(opener, call) {
                    Some(CallEnd::Connected(conn)) if self.circuit_at.is_some() => {
                        return Some(conn);
                    }
                    Some(CallEnd::Connected(_)) => {}
                    Some(_) => break,
                    None => {}
                }
            }
        }
        None
    }

    /// The one who opens it calls the other, if no call of his is under way.
    pub(crate) fn call_again(&mut self) {
        let [taker, opener] = self.sides;
        let ended = |call| self.world.called(opener, call).is_some();
        if self.called.is_none_or(ended) {
            let relay = (self.world.node(self.relay).peer(), self.relay_addr);
            let peer = self.world.node(taker).peer();
            self.called = Some(self.world.call(opener, relay, peer));
        }
    }

    /// What a side told of punching.
    pub(crate) fn punching(&self, side: usize) -> impl Iterator<Item = (Instant, &PunchNotice)> {
        let node = self.sides[side];
        self.world.notices().iter().filter(move |told| told.node == node).filter_map(|told| {
            let Notice::Punch(news) = &told.notice else { return None };
            Some((told.at, news))
        })
    }

    /// Whether a side is sure of how what it stands behind maps and filters.
    pub(crate) fn knows_itself(&self, side: usize) -> bool {
        let explained = self.world.node(self.sides[side]).agent().explain();
        explained.classes.iter().any(|one| {
            let mapped = one.mapping != MappingBehavior::Unknown && !one.provisional;
            one.class == self.pair.class && mapped && one.filtering != FilteringBehavior::Unknown
        })
    }

    /// First packets and datagrams of one side.
    pub(crate) fn punched_by(&self, side: usize) -> u64 {
        self.world.node(self.sides[side]).punched().map(|(_, packets)| packets).sum()
    }

    /// First packets and datagrams of both sides, by the minute.
    pub(crate) fn punched(&self) -> BTreeMap<u64, u64> {
        let mut all = BTreeMap::new();
        for side in self.sides {
            for (minute, packets) in self.world.node(side).punched() {
                *all.entry(minute).or_default() += packets;
            }
        }
        all
    }
}

/// A server that runs, and may dial back from a second IP.
fn server(world: &mut World, class: Class, network: u8) -> (NodeId, Addr) {
    let ips = [1, 2].map(|host| public_ip(class.family, network, host));
    let mut core = Config::default();
    let mut limits = DialBackConfig::default();
    limits.sources = if network <= MULTIHOMED { vec![ips[1]] } else { Vec::new() };
    core.dial_back = Some(limits);
    let host = world.fabric.add_host(None, &ips, Link::default());
    let server = node(world, &format!("S{network}"), host, class, core);
    world.start(server);
    (server, Addr::new(ips[0], PORT, class.transport))
}

/// A link of this latency that loses so much.
pub(crate) fn link(latency: Duration, loss_ppm: u32) -> Link {
    let mut link = Link::with_latency(latency);
    link.loss = Loss { ppm: loss_ppm, burst: None };
    link
}
