//! The cells: a kind of network, a class and a set of servers; and what the evidence there permits.

use crate::net::{Behavior, Dependence, GateConfig, Link, Loss};
use crate::plan::{Change, NodePlan, Plan, RouterPlan, Serves, unspecified};
use crate::world::Costs;
use portolan_core::{Addr, Class, Duration, Family, Transport};
use std::net::IpAddr;

use Dependence::{Address, AddressAndPort, Independent};

/// A kind of network between a node and the Internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Nothing.
    None,
    /// A firewall that lets in who was called.
    Firewall,
    /// A NAT: mapping, filtering.
    Nat(Dependence, Dependence),
    /// Two NATs, the outer one with 100.64/10 on its inside; both EI×APD.
    DoubleNat,
    /// Lets everybody in over UDP and, over TCP, only who was called.
    UdpOnly,
    /// One of these, and a static forward to the node's listen port.
    Forward(&'static Kind),
}

/// Which servers a node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Servers {
    /// Five, each with one IP.
    Single,
    /// Three that dial back from a second IP, and two with one.
    Multihomed,
    /// Five with an IP of either family: three are known over the family in question, two over the
    /// other.
    DualStack,
}

/// One cell of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell {
    /// The network.
    pub kind: Kind,
    /// What is listened on.
    pub class: Class,
    /// Who can be asked.
    pub servers: Servers,
}

const PLAIN: [Kind; 9] = [
    Kind::None,
    Kind::Firewall,
    Kind::Nat(Independent, Independent),
    Kind::Nat(Independent, Address),
    Kind::Nat(Independent, AddressAndPort),
    Kind::Nat(Address, AddressAndPort),
    Kind::Nat(AddressAndPort, AddressAndPort),
    Kind::DoubleNat,
    Kind::UdpOnly,
];

const FORWARDED: [Kind; 8] = [
    Kind::Forward(&Kind::Firewall),
    Kind::Forward(&Kind::Nat(Independent, Independent)),
    Kind::Forward(&Kind::Nat(Independent, Address)),
    Kind::Forward(&Kind::Nat(Independent, AddressAndPort)),
    Kind::Forward(&Kind::Nat(Address, AddressAndPort)),
    Kind::Forward(&Kind::Nat(AddressAndPort, AddressAndPort)),
    Kind::Forward(&Kind::DoubleNat),
    Kind::Forward(&Kind::UdpOnly),
];

/// Every cell, in order.
pub fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for family in [Family::Ip4, Family::Ip6] {
        for kind in PLAIN.into_iter().chain(FORWARDED) {
            if family == Family::Ip6 && kind.translates() {
                continue;
            }
            for transport in [Transport::Tcp, Transport::Quic] {
                for servers in [Servers::Single, Servers::Multihomed, Servers::DualStack] {
                    cells.push(Cell { kind, class: Class::new(family, transport), servers });
                }
            }
        }
    }
    cells
}

impl Servers {
    /// The word in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Servers::Single => "single-IP",
            Servers::Multihomed => "multihomed",
            Servers::DualStack => "dual-stack",
        }
    }
}

impl Kind {
    /// The name in tables.
    pub fn name(self) -> String {
        match self {
            Kind::None => "none".to_owned(),
            Kind::Firewall => "firewall".to_owned(),
            Kind::Nat(mapping, filtering) => {
                let upper = |one: Dependence| one.name().to_uppercase();
                format!("{}×{}", upper(mapping), upper(filtering))
            }
            Kind::DoubleNat => "double NAT".to_owned(),
            Kind::UdpOnly => "UDP-only open".to_owned(),
            Kind::Forward(kind) => format!("forward on {}", kind.name()),
        }
    }

    /// IPv6 has no translation, so that nothing is left of those.
    const fn translates(self) -> bool {
        match self {
            Kind::None | Kind::Firewall | Kind::UdpOnly => false,
            Kind::Nat(..) | Kind::DoubleNat => true,
            Kind::Forward(kind) => kind.translates(),
        }
    }

    /// By what a mapping depends, and who is let in: the algebra that packets are not asked for.
    const fn algebra(self, transport: Transport) -> (Dependence, Option<Dependence>) {
        match self {
            Kind::None => (Independent, Some(Independent)),
            Kind::Firewall | Kind::DoubleNat => (Independent, None),
            Kind::UdpOnly => match transport {
                Transport::Tcp => (Independent, None),
                Transport::Quic => (Independent, Some(Independent)),
            },
            // Dial-backs come from fresh ports, so that nobody has called where they come from.
            Kind::Nat(mapping, AddressAndPort) => (mapping, None),
            Kind::Nat(mapping, filtering) => (mapping, Some(filtering)),
            Kind::Forward(kind) => (kind.algebra(transport).0, Some(Independent)),
        }
    }
}

/// The listen port of everybody.
const PORT: u16 = 4_001;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address in the source of this program")
}

impl Cell {
    /// The strongest conclusion that the evidence permits, in the words of `Standing::words`; told by
    /// the algebra of RFC 4787 alone.
    pub fn expected(&self) -> &'static str {
        let (mapping, lets_in) = self.kind.algebra(self.class.transport);
        let cold = self.servers != Servers::Single;
        match (lets_in, self.servers) {
            (Some(Independent), _) if cold => "anywhere",
            (Some(Independent), _) => {
                // A global IPv4 address of one's own interface is presumed open.
                let own = matches!(self.kind, Kind::None | Kind::Forward(Kind::Firewall))
                    || matches!(self.kind, Kind::UdpOnly | Kind::Forward(Kind::UdpOnly));
                if own && self.class.family == Family::Ip4 {
                    "contacted, presumed open"
                } else {
                    "contacted"
                }
            }
            // Failures from where nobody was called count as cold only if it is known that they
            // came from there: over another family it is, and a multihomed server says so.
            (Some(_), Servers::DualStack | Servers::Multihomed) => "contacted-only",
            (Some(_), Servers::Single) => "contacted",
            (None, _) if mapping == Independent => "private, dial failed",
            (None, _) => "private, endpoint-dependent mapping",
        }
    }

    /// The run of this cell.
    pub fn plan(&self, seed: u64, latency: Duration, loss_ppm: u32, costs: Costs) -> Plan {
        let mut plan = Plan::new(seed);
        let link = || {
            let mut link = Link::with_latency(latency / 4);
            // Each packet crosses two links.
            link.loss = Loss { ppm: loss_ppm / 2, burst: None };
            link
        };
        self.routers(&mut plan, &link());
        plan.nodes.push(self.client(&plan, link()));
        for number in 1..=5_u8 {
            plan.nodes.push(self.server(number, link()));
        }
        plan.nodes.push(NodePlan::new("crowd", &[ip("44.9.0.1"), ip("2600:9::1")], PORT));
        for node in &mut plan.nodes {
            node.costs = costs;
        }
        for node in 1..=6 {
            plan.at(Duration::ZERO, Change::Start(node));
        }
        plan.greet_servers(Duration::ZERO, 6);
        let begins = Duration::from_secs(1);
        plan.at(begins, Change::Start(0));
        for to in 1..=5 {
            let other = self.servers == Servers::DualStack && to > 3;
            let known = if other { flipped(self.class.family) } else { self.class.family };
            let ips = &plan.nodes[to].ips;
            let at = ips.iter().find(|ip| Family::of(**ip) == known).copied();
            let addr = Addr::new(at.unwrap_or(ips[0]), PORT, self.class.transport);
            plan.at(begins, Change::Dial { node: 0, to, addr });
        }
        plan
    }

    fn routers(&self, plan: &mut Plan, link: &Link) {
        let forwards = matches!(self.kind, Kind::Forward(_));
        let kind = if let Kind::Forward(kind) = self.kind { *kind } else { self.kind };
        let client = self.client_ip();
        let mut add = |name: &str, behind, outside: Option<&str>, ip4, ip6, inside: IpAddr| {
            let outside = outside.map(ip);
            let external = |ip| Addr::new(ip, PORT, self.class.transport);
            let forward = (external(outside.unwrap_or(client)), external(inside));
            let link = link.clone();
            plan.routers.push(RouterPlan {
                name: name.to_owned(),
                behind,
                outside,
                ip4,
                ip6,
                forwards: if forwards { vec![forward] } else { Vec::new() },
                link,
            });
        };
        let open = GateConfig::open();
        match kind {
            Kind::None | Kind::Forward(_) => {}
            Kind::Firewall => {
                add("wall", None, None, GateConfig::firewall(), GateConfig::firewall(), client);
            }
            Kind::UdpOnly => {
                let mut half = GateConfig::firewall();
                half.udp = Behavior::new(Transport::Quic, Independent, Independent);
                add("half", None, None, half.clone(), half, client);
            }
            Kind::Nat(mapping, filtering) => {
                let nat = GateConfig::nat(mapping, filtering);
                add("nat", None, Some("44.5.0.1"), nat, open, client);
            }
            Kind::DoubleNat => {
                let nat = GateConfig::nat(Independent, AddressAndPort);
                let inner = "100.64.0.9";
                add("carrier", None, Some("44.5.0.1"), nat.clone(), open.clone(), ip(inner));
                add("home", Some(0), Some(inner), nat, open, client);
            }
        }
    }

    /// The client's address in the family of the cell.
    fn client_ip(&self) -> IpAddr {
        match self.class.family {
            Family::Ip4 if self.kind.translates() => ip("192.168.1.2"),
            Family::Ip4 => ip("44.5.0.2"),
            Family::Ip6 => ip("2600:5::2"),
        }
    }

    fn client(&self, plan: &Plan, link: Link) -> NodePlan {
        let mut ips = vec![self.client_ip()];
        if self.servers == Servers::DualStack {
            // It can call over the other family, and is not called there.
            ips.push(match self.class.family {
                Family::Ip4 => ip("2600:5::2"),
                Family::Ip6 => ip("44.5.0.2"),
            });
        }
        let mut client = NodePlan::new("client", &ips, PORT);
        client.behind = plan.routers.len().checked_sub(1);
        client.link = link;
        client.listen = vec![Addr::new(unspecified(self.class.family), PORT, self.class.transport)];
        client
    }

    fn server(&self, number: u8, link: Link) -> NodePlan {
        let ip4 = |third| ip(&format!("44.0.{third}.1"));
        let ip6 = |third| ip(&format!("2600:{third:x}::1"));
        let ips = match (self.servers, self.class.family) {
            (Servers::DualStack, _) => vec![ip4(number), ip6(u16::from(number))],
            (Servers::Multihomed, Family::Ip4) if number <= 3 => {
                vec![ip4(number), ip4(number + 100)]
            }
            (Servers::Multihomed, Family::Ip6) if number <= 3 => {
                vec![ip6(u16::from(number)), ip6(u16::from(number) + 100)]
            }
            (_, Family::Ip4) => vec![ip4(number)],
            (_, Family::Ip6) => vec![ip6(u16::from(number))],
        };
        let mut server = NodePlan::new(&format!("S{number}"), &ips, PORT);
        server.link = link;
        let mut serves = Serves::default();
        if self.servers == Servers::Multihomed && number <= 3 {
            serves.from = vec![ips[1]];
            // What is dialled from is not listened on.
            let first = ips[0];
            server.listen = vec![Addr::tcp(first, PORT), Addr::quic(first, PORT)];
        }
        server.serves = Some(serves);
        server
    }
}

const fn flipped(family: Family) -> Family {
    match family {
        Family::Ip4 => Family::Ip6,
        Family::Ip6 => Family::Ip4,
    }
}
