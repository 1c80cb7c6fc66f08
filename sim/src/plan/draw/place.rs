//! Who is where: sites with their routers, servers, and whom everybody dials.

use super::Odds;
use crate::dice::Dice;
use crate::net::{
    Behavior, Dependence, GateConfig, Link, Loss, Policy, PortAllocation, Refresh, Refusal,
    WhenFull,
};
use crate::plan::{Change, NodePlan, Plan, RouterPlan, Serves, unspecified};
use crate::world::{Costs, Vice};
use portolan_core::{Addr, Class, Duration, Family, Transport};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The parts of a plan, by their numbers.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// When nodes begin to dial.
    pub(super) begins: Duration,
    pub(super) clients: Vec<usize>,
    pub(super) servers: Vec<usize>,
    /// Somebody on the Internet whom nobody dials.
    pub(super) crowd: usize,
    /// The clients' routers, innermost last.
    pub(super) routers: Vec<usize>,
}

/// The listen port of everybody.
pub(super) const PORT: u16 = 4_001;

pub(super) fn draw(plan: &mut Plan, odds: &Odds, dice: &mut Dice) -> Place {
    let ip6 = dice.percent(40);
    let routers = draw_routers(plan, dice);
    let inside = routers.last().copied();
    let translates = routers.iter().any(|router| plan.routers[*router].outside.is_some());
    let neighbours = if inside.is_some() && dice.percent(25) { 2 } else { 1 };
    let mut clients = Vec::new();
    for number in 0..neighbours {
        let host = u8::try_from(number).unwrap_or(0) + 2;
        let mut ips: Vec<IpAddr> = if translates {
            vec![Ipv4Addr::new(192, 168, 1, host).into()]
        } else {
            vec![Ipv4Addr::new(44, 5, 0, host).into()]
        };
        if ip6 {
            ips.push(Ipv6Addr::new(0x2600, 5, 0, 0, 0, 0, 0, host.into()).into());
        }
        let mut client = NodePlan::new(&format!("client{}", number + 1), &ips, PORT);
        client.behind = inside;
        client.link = draw_link(dice);
        if dice.percent(30) {
            let only = dice.pick(&[Transport::Tcp, Transport::Quic]);
            client.listen.retain(|addr| addr.transport == only);
        }
        if inside.is_some() && dice.percent(20) {
            forward(plan, inside, &routers, &client, dice);
        }
        clients.push(plan.nodes.len());
        plan.nodes.push(client);
    }
    let servers = draw_servers(plan, odds, ip6, dice);
    let crowd = plan.nodes.len();
    let ips = [ip4(9, 1), Ipv6Addr::new(0x2600, 9, 0, 0, 0, 0, 0, 1).into()];
    plan.nodes.push(NodePlan::new("crowd", &ips, PORT));
    for node in servers.iter().chain([&crowd]) {
        plan.at(Duration::ZERO, Change::Start(*node));
    }
    plan.greet_servers(Duration::ZERO, crowd);
    let begins = Duration::from_secs(2);
    let place = Place { begins, clients, servers, crowd, routers };
    draw_dials(plan, &place, dice);
    place
}

/// A server's address on the Internet.
fn ip4(network: u8, host: u8) -> IpAddr {
    Ipv4Addr::new(44, 0, network, host).into()
}

fn draw_routers(plan: &mut Plan, dice: &mut Dice) -> Vec<usize> {
    let depth = match dice.index(100) {
        0..15 => 0,
        15..80 => 1,
        _ => 2,
    };
    let translates = depth == 2 || dice.percent(75);
    let mut routers = Vec::new();
    for level in 0..depth {
        let outermost = level == 0;
        let (name, outside): (_, IpAddr) = if outermost {
            ("outer", Ipv4Addr::new(44, 5, 0, 1).into())
        } else {
            ("inner", Ipv4Addr::new(100, 64, 0, 9).into())
        };
        let ip4 = if translates { draw_nat(dice) } else { draw_firewall(dice) };
        let ip6 = if dice.percent(40) { GateConfig::open() } else { draw_firewall(dice) };
        plan.routers.push(RouterPlan {
            name: name.to_owned(),
            behind: routers.last().copied(),
            outside: translates.then_some(outside),
            ip4,
            ip6,
            forwards: Vec::new(),
            link: draw_link(dice),
        });
        routers.push(plan.routers.len() - 1);
    }
    routers
}

const DEPENDENCES: [Dependence; 3] =
    [Dependence::Independent, Dependence::Address, Dependence::AddressAndPort];

pub(super) fn draw_nat(dice: &mut Dice) -> GateConfig {
    // What most routers are, more often than the rest.
    let mapping = if dice.percent(50) { Dependence::Independent } else { dice.pick(&DEPENDENCES) };
    let mut gate = GateConfig::nat(mapping, dice.pick(&DEPENDENCES));
    if dice.percent(30) {
        let (mapping, filtering) = (dice.pick(&DEPENDENCES), dice.pick(&DEPENDENCES));
        gate.udp = Behavior::new(Transport::Quic, mapping, filtering);
    }
    if dice.percent(60) {
        gate.ports = dice.pick(&[
            PortAllocation::Preserving,
            PortAllocation::Overloading,
            PortAllocation::Sequential,
            PortAllocation::Random,
            PortAllocation::Contiguous,
        ]);
    }
    vary(&mut gate, dice);
    gate
}

fn draw_firewall(dice: &mut Dice) -> GateConfig {
    let mut gate = GateConfig::firewall();
    if dice.percent(30) {
        gate.udp.filtering = dice.pick(&DEPENDENCES);
    }
    if dice.percent(30) {
        gate.tcp.filtering = dice.pick(&DEPENDENCES);
    }
    vary(&mut gate, dice);
    gate
}

fn vary(gate: &mut GateConfig, dice: &mut Dice) {
    gate.hairpin = dice.percent(70);
    if dice.percent(40) {
        gate.refusal = Refusal::Reject;
    }
    gate.shares_contacts = gate.policy == Policy::Nat && dice.percent(10);
    if dice.percent(30) {
        gate.udp.idle = Duration::from_secs(dice.between(30, 300));
        gate.udp.transitory = gate.udp.idle.min(Duration::from_secs(30));
    }
    if dice.percent(10) {
        gate.udp.refresh = Refresh::Both;
    }
    if dice.percent(5) {
        gate.flows_max = usize::try_from(dice.between(24, 80)).unwrap_or(80);
        gate.when_full = dice.pick(&[WhenFull::Drop, WhenFull::Evict]);
    }
}

fn draw_link(dice: &mut Dice) -> Link {
    let millis = dice.between(1, 60);
    let mut link = Link::with_latency(Duration::from_millis(millis));
    if dice.percent(30) {
        link.jitter = Duration::from_millis(dice.between(1, millis));
    }
    if dice.percent(25) {
        link.loss =
            Loss { ppm: u32::try_from(dice.between(1_000, 80_000)).unwrap_or(0), burst: None };
    }
    if dice.percent(10) {
        link.reorder_ppm = 20_000;
        link.duplicate_ppm = 10_000;
    }
    if dice.percent(10) {
        link.bytes_per_second = Some(dice.between(100_000, 2_000_000));
    }
    link
}

/// A static forward through every router of the site.
fn forward(
    plan: &mut Plan,
    inside: Option<usize>,
    routers: &[usize],
    client: &NodePlan,
    dice: &mut Dice,
) {
    let transport = dice.pick(&[Transport::Tcp, Transport::Quic]);
    let Some(ip) = client.ips.iter().copied().find(IpAddr::is_ipv4) else { return };
    let mut towards = ip;
    debug_assert_eq!(inside, routers.last().copied());
    for router in routers.iter().rev() {
        let it = &mut plan.routers[*router];
        let external = it.outside.unwrap_or(ip);
        let taken = |(one, _): &(Addr, Addr)| *one == Addr::new(external, PORT, transport);
        if !it.forwards.iter().any(taken) {
            let pair = (Addr::new(external, PORT, transport), Addr::new(towards, PORT, transport));
            it.forwards.push(pair);
        }
        towards = external;
    }
}

fn draw_servers(plan: &mut Plan, odds: &Odds, ip6: bool, dice: &mut Dice) -> Vec<usize> {
    let honest = dice.between(1, odds.honest_max);
    let bad = if dice.percent(60) { dice.between(0, odds.bad_max) } else { 0 };
    let mut servers = Vec::new();
    for number in 1..=honest + bad {
        let network = u8::try_from(number).unwrap_or(1);
        let mut ips = vec![ip4(network, 1)];
        let mut serves = Serves::default();
        if ip6 && dice.percent(60) {
            ips.push(Ipv6Addr::new(0x2600, 0x100 + u16::from(network), 0, 0, 0, 0, 0, 1).into());
        }
        let listened = ips.clone();
        if dice.percent(35) {
            let second = ip4(network + 100, 1);
            ips.push(second);
            serves.from.push(second);
        }
        if number > honest {
            serves.vice = Some(draw_vice(dice));
        }
        let mut server = NodePlan::new(&format!("S{number}"), &ips, PORT);
        server.listen =
            listened.iter().flat_map(|ip| [Addr::tcp(*ip, PORT), Addr::quic(*ip, PORT)]).collect();
        server.link = draw_link(dice);
        server.costs = if dice.percent(20) { Costs::EAGER } else { Costs::PORTOLAN };
        server.serves = Some(serves);
        servers.push(plan.nodes.len());
        plan.nodes.push(server);
    }
    servers
}

pub(super) fn draw_vice(dice: &mut Dice) -> Vice {
    match dice.index(13) {
        0 => Vice::Rejects,
        1 => Vice::Refuses,
        2 => Vice::Errs,
        3 => Vice::Silent,
        4 => Vice::Slow(Duration::from_secs(dice.between(1, 8))),
        5 => Vice::LiesOk,
        6 | 7 => Vice::LiesFailure,
        8 => Vice::WrongNonce,
        9 => Vice::NonceOnOldConnection,
        10 => Vice::NonceElsewhere,
        11 => Vice::Poisons(Addr::tcp(ip4(200, 7), PORT)),
        _ => Vice::Flaps(Duration::from_secs(dice.between(10, 200))),
    }
}

fn draw_dials(plan: &mut Plan, place: &Place, dice: &mut Dice) {
    for node in &place.clients {
        plan.at(place.begins, Change::Start(*node));
        for to in &place.servers {
            let server = &plan.nodes[*to];
            let reachable = |addr: &&Addr| {
                plan.nodes[*node].ips.iter().any(|ip| Family::of(*ip) == Family::of(addr.ip))
            };
            let sockets: Vec<Addr> = server.listen.iter().filter(reachable).copied().collect();
            let after = place.begins + Duration::from_millis(dice.between(0, 3_000));
            for _ in 0..dice.between(1, 2) {
                let addr = dice.pick(&sockets);
                plan.at(after, Change::Dial { node: *node, to: *to, addr });
            }
        }
    }
}

/// The wildcard that a class is listened on.
pub(super) fn wildcard(class: Class) -> Addr {
    Addr::new(unspecified(class.family), PORT, class.transport)
}
