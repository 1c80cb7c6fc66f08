//! What is measured: a kind of network, a set of servers, what is listened on, and a runtime.

use super::link::Conditions;
use super::odd::Others;
use super::peers::On;
use super::rules::{Kind, Layer, Router};
use super::{Gateway, Host, Lab};
use portolan_core::Family;
use portolan_sim::net::{Dependence, Refusal};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4};

/// The port that the node listens on.
pub const PORT: u16 = 4_001;
/// Where the node's home router is on the Internet.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(44, 100, 0, 1);
/// Where the host with no router at all is.
const OPEN: Ipv4Addr = Ipv4Addr::new(44, 100, 0, 2);
/// The same over IPv6.
const OPEN6: Ipv6Addr = Ipv6Addr::new(0x2600, 0x300, 0, 0, 0, 0, 0, 2);

/// The addresses of whom the node never hears of.
pub const STRANGER: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(45, 77, 0, 1)),
    IpAddr::V4(Ipv4Addr::new(45, 78, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2600, 0x500, 0, 0, 0, 0, 0, 1)),
];

/// What stands between the node and the Internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Site {
    /// Nothing.
    Open,
    /// A router.
    Behind(Kind, Refusal),
    /// A router that forwards the node's port, which the node is not told.
    Forwarded(Kind, Refusal),
    /// A router that lets nobody speak a protocol.
    Blocked(Kind, Layer),
    /// A home router behind a carrier's.
    Double(Refusal),
    /// A router with an IPv6 network behind it that is open to everybody.
    OpenIp6(Kind, Refusal),
}

impl Site {
    /// In a few words.
    pub fn name(self) -> String {
        let tail = |refusal| match refusal {
            Refusal::Silent => ", silent",
            Refusal::Reject => "",
        };
        match self {
            Site::Open => "none".into(),
            Site::Behind(kind, refusal) => format!("{}{}", kind.name(), tail(refusal)),
            Site::Forwarded(kind, refusal) => {
                format!("forward on {}{}", kind.name(), tail(refusal))
            }
            Site::Blocked(kind, layer) => format!("{}, no {}", kind.name(), layer.name()),
            Site::Double(refusal) => format!("double NAT{}", tail(refusal)),
            Site::OpenIp6(kind, refusal) => {
                format!("{}{}, IPv6 open", kind.name(), tail(refusal))
            }
        }
    }
}

/// From where servers dial back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Homes {
    /// Each from the IP that it is known by.
    Single,
    /// The first, the third and so on from a second IP.
    Multihomed,
    /// Each from an IP of the family that is asked about; the second, the fourth and so on are known
    /// by that of the other.
    DualStack,
}

/// Who can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Servers {
    /// How many.
    pub count: u8,
    /// From where they dial back.
    pub homes: Homes,
}

impl Servers {
    /// In a few words.
    pub fn name(self) -> String {
        let homes = match self.homes {
            Homes::Single => "single-IP",
            Homes::Multihomed => "multihomed",
            Homes::DualStack => "dual-stack",
        };
        if self.count == 0 { "none".into() } else { format!("{} {homes}", self.count) }
    }

    /// Whether the server of this number, from one on, is the odd one that dials from elsewhere.
    pub fn dials_from_elsewhere(self, number: usize) -> bool {
        match self.homes {
            Homes::Single => false,
            Homes::Multihomed => !number.is_multiple_of(2),
            Homes::DualStack => number.is_multiple_of(2),
        }
    }
}

/// What the node listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transports {
    /// TCP.
    Tcp,
    /// QUIC.
    Quic,
    /// Both.
    Both,
}

impl Transports {
    /// In a word.
    pub const fn name(self) -> &'static str {
        match self {
            Transports::Tcp => "tcp",
            Transports::Quic => "quic",
            Transports::Both => "both",
        }
    }

    /// Their layers.
    pub fn layers(self) -> &'static [Layer] {
        match self {
            Transports::Tcp => &[Layer::Tcp],
            Transports::Quic => &[Layer::Udp],
            Transports::Both => &Layer::ALL,
        }
    }
}

/// The strongest conclusion that the evidence permits about one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Conclusion {
    /// Strangers get in, and one of them showed it.
    Anywhere,
    /// Nobody tested strangers, but nothing stands between.
    PresumedOpen,
    /// Who was contacted gets in, and strangers are untested.
    Contacted,
    /// Who was contacted gets in, and strangers do not.
    ContactedOnly,
    /// Nobody gets in.
    Private,
    /// Nobody gets in, and the mapping depends on the endpoint.
    Dependent,
    /// Nobody can be asked.
    Unknown,
}

impl fmt::Display for Conclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Conclusion::Anywhere => "anywhere",
            Conclusion::PresumedOpen => "presumed open",
            Conclusion::Contacted => "contacted",
            Conclusion::ContactedOnly => "contacted-only",
            Conclusion::Private => "private",
            Conclusion::Dependent => "private (endpoint-dependent mapping)",
            Conclusion::Unknown => "unknown",
        })
    }
}

/// Which families the node listens on and is judged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Families {
    /// IPv4 alone.
    Ip4,
    /// Both.
    Both,
}

impl Families {
    /// Each of them.
    pub fn all(self) -> &'static [Family] {
        match self {
            Families::Ip4 => &[Family::Ip4],
            Families::Both => &[Family::Ip4, Family::Ip6],
        }
    }
}

/// One thing to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cell {
    /// The experiment, as the audit numbers them.
    pub experiment: &'static str,
    /// The node's network.
    pub site: Site,
    /// Who can be asked.
    pub servers: Servers,
    /// Who can be asked besides, and is not as he should be.
    pub others: Others,
    /// What the node listens on.
    pub transports: Transports,
    /// In which families.
    pub families: Families,
    /// What the way to the site is like.
    pub conditions: Conditions,
    /// What node and servers run on.
    pub on: On,
}

impl Cell {
    /// Every class that is judged.
    pub fn classes(&self) -> impl Iterator<Item = (Family, Layer)> {
        let layers = self.transports.layers();
        let of = |family: &Family| {
            let family = *family;
            layers.iter().map(move |layer| (family, *layer))
        };
        self.families.all().iter().flat_map(of)
    }

    /// What the node should conclude of a class.
    pub fn expected(&self, (family, layer): (Family, Layer)) -> Conclusion {
        if self.servers.count == 0 {
            return self.others.leave(self.site, (family, layer));
        }
        if family == Family::Ip6 {
            // Half of the servers are known over IPv4: their dials show what strangers find.
            return match self.site {
                Site::Open | Site::OpenIp6(..) => Conclusion::Anywhere,
                Site::Behind(..) | Site::Forwarded(..) | Site::Blocked(..) | Site::Double(_) => {
                    Conclusion::Private
                }
            };
        }
        let cold = self.servers.homes != Homes::Single;
        let behind = |kind| match (kind, self.servers.homes) {
            (Kind::Independent(Dependence::Independent), Homes::Single) => Conclusion::Contacted,
            (Kind::Independent(Dependence::Independent), _) => Conclusion::Anywhere,
            // That a dial which failed came from an IP that was never contacted is known where the
            // server is known by the other family, or says so.
            (Kind::Independent(Dependence::Address), Homes::Single) => Conclusion::Contacted,
            (Kind::Independent(Dependence::Address), _) => Conclusion::ContactedOnly,
            (Kind::Dependent, _) => Conclusion::Dependent,
            (Kind::Independent(Dependence::AddressAndPort) | Kind::Firewall, _) => {
                Conclusion::Private
            }
        };
        match self.site {
            Site::Open if cold => Conclusion::Anywhere,
            Site::Open => Conclusion::PresumedOpen,
            Site::Behind(kind, _) | Site::OpenIp6(kind, _) => behind(kind),
            Site::Forwarded(..) if cold => Conclusion::Anywhere,
            Site::Forwarded(..) => Conclusion::Contacted,
            Site::Blocked(_, blocked) if blocked == layer => Conclusion::Unknown,
            Site::Blocked(kind, _) => behind(kind),
            Site::Double(_) => Conclusion::Private,
        }
    }

    /// What the way to the site is like and who is there besides, in words.
    pub fn circumstances(&self) -> String {
        let families = match self.families {
            Families::Ip4 => String::new(),
            Families::Both => "IPv4 and IPv6".into(),
        };
        let all = [families, self.conditions.name(), self.others.name()];
        let said: Vec<String> = all.into_iter().filter(|one| !one.is_empty()).collect();
        said.join(", ")
    }

    /// In a line.
    pub fn name(&self) -> String {
        let Cell { experiment, site, servers, transports, on, .. } = self;
        let (site, servers, transports) = (site.name(), servers.name(), transports.name());
        let circumstances = self.circumstances();
        let more = if circumstances.is_empty() { "" } else { " · " };
        format!(
            "{experiment} · {site} · {servers} · {transports}{more}{circumstances} · {}",
            on.name()
        )
    }
}

/// A cell's network, built.
#[derive(Debug)]
pub struct Place {
    /// The node's machine. It is removed before the routers that it hangs on.
    pub node: Host,
    /// The routers, from the node outwards.
    pub gateways: Vec<Gateway>,
    /// Those who can be asked.
    pub servers: Vec<Host>,
    /// Those who are not as they should be.
    pub others: Vec<Host>,
    /// Whom the node never hears of. He has two IPv4 addresses.
    pub stranger: Host,
    /// The node's address on the Internet.
    pub outside: Ipv4Addr,
    /// The Internet.
    pub lab: Lab,
}

/// Build the network of a site with so many servers, and with a link between the two unless there
/// are no conditions.
///
/// # Errors
/// If a command fails.
pub fn build(site: Site, servers: u8, conditions: Conditions) -> io::Result<Place> {
    let lab = Lab::new(conditions)?;
    let hosts: io::Result<Vec<Host>> = (1..=servers)
        .map(|number| lab.public(&format!("s{number}"), &server_ips(number)))
        .collect();
    let stranger = lab.public("stranger", &STRANGER)?;
    let (node, gateways, outside) = settle(&lab, site, 0)?;
    Ok(Place { node, gateways, servers: hosts?, others: Vec::new(), stranger, outside, lab })
}

/// Put a node on the Internet, behind what its site says, and tell its machine, its routers from the
/// node outwards, and where it is on the Internet. Each lot has addresses of its own, so that
/// whoever comes after somebody else takes a lot that no neighbour and no server remembers.
///
/// # Errors
/// If a command fails.
pub fn settle(lab: &Lab, site: Site, lot: u8) -> io::Result<(Host, Vec<Gateway>, Ipv4Addr)> {
    let in_lot = |ip: Ipv4Addr| {
        let [a, b, c, d] = ip.octets();
        Ipv4Addr::new(a, b, c + lot, d)
    };
    let (home_ip, open_ip) = (in_lot(OUTSIDE), in_lot(OPEN));
    let mut gateways = Vec::new();
    let mut home = |router: Router| -> io::Result<(Host, Ipv4Addr)> {
        let gateway = lab.router(home_ip, &router)?;
        let node = gateway.host("node", 2)?;
        gateways.push(gateway);
        let outside = if router.kind == Kind::Firewall { node.ip4() } else { home_ip };
        Ok((node, outside))
    };
    let (node, outside) = match site {
        Site::Open => (lab.open("node", &[open_ip.into(), OPEN6.into()])?, open_ip),
        Site::Behind(kind, refusal) => home(Router::new(kind, refusal))?,
        Site::OpenIp6(kind, refusal) => {
            home(Router { open_ip6: true, ..Router::new(kind, refusal) })?
        }
        Site::Forwarded(kind, refusal) => home(forwarding(kind, refusal))?,
        Site::Blocked(kind, layer) => {
            home(Router { blocked: Some(layer), ..Router::new(kind, Refusal::Reject) })?
        }
        Site::Double(refusal) => {
            let kind = Kind::Independent(Dependence::AddressAndPort);
            let carrier = lab.carrier(home_ip, &Router::new(kind, refusal))?;
            let home = carrier.nested(Ipv4Addr::new(100, 64, 0, 2), &Router::new(kind, refusal))?;
            let node = home.host("node", 2)?;
            gateways.extend([home, carrier]);
            (node, home_ip)
        }
    };
    lab.settle()?;
    gateways.iter().try_for_each(Gateway::settle)?;
    Ok((node, gateways, outside))
}

/// A router that forwards the port of the node.
pub fn forwarding(kind: Kind, refusal: Refusal) -> Router {
    let to = SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, 2), PORT);
    Router { forwards: vec![(PORT, to)], ..Router::new(kind, refusal) }
}

/// The addresses of a server: two IPv4 in networks far apart, and one of IPv6.
pub fn server_ips(number: u8) -> Vec<IpAddr> {
    let ip6 = Ipv6Addr::new(0x2600, 0x100 + u16::from(number), 0, 0, 0, 0, 0, 1);
    vec![ip4(44, number, 1), ip4(45, number, 1), ip6.into()]
}

fn ip4(a: u8, b: u8, c: u8) -> IpAddr {
    Ipv4Addr::new(a, b, c, 1).into()
}
