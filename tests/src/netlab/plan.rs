//! Which cells there are, and what each kind of network is known to do.

use super::cells::{Cell, Homes, Servers, Site, Transports};
use super::peers::On;
use super::rules::{Kind, Layer};
use super::sockets::Knock;
use super::verify::Behaviour;

use portolan_sim::net::{Dependence, Refusal};

use Dependence::{Address, AddressAndPort, Independent};
use Refusal::{Reject, Silent};

/// Endpoint-independent mapping, with this filtering.
const fn ei(filtering: Dependence) -> Kind {
    Kind::Independent(filtering)
}

/// Every kind of network.
pub const SITES: [Site; 18] = [
    Site::Open,
    Site::Behind(Kind::Firewall, Reject),
    Site::Behind(Kind::Firewall, Silent),
    Site::Behind(ei(Independent), Reject),
    Site::Behind(ei(Independent), Silent),
    Site::Behind(ei(Address), Reject),
    Site::Behind(ei(Address), Silent),
    Site::Behind(ei(AddressAndPort), Reject),
    Site::Behind(ei(AddressAndPort), Silent),
    Site::Behind(Kind::Dependent, Reject),
    Site::Behind(Kind::Dependent, Silent),
    Site::Double(Reject),
    Site::Double(Silent),
    Site::Forwarded(ei(Address), Reject),
    Site::Forwarded(ei(AddressAndPort), Silent),
    Site::Forwarded(Kind::Dependent, Silent),
    Site::Blocked(ei(Independent), Layer::Udp),
    Site::Blocked(ei(Independent), Layer::Tcp),
];

/// The experiment that a site belongs to, as the audit numbers them.
const fn experiment(site: Site, servers: Servers) -> &'static str {
    match site {
        Site::Open | Site::Behind(Kind::Independent(Independent), _) | Site::Blocked(..) => "A1",
        Site::Behind(Kind::Independent(Address), _) => match servers.homes {
            Homes::Single => "A8b",
            Homes::Multihomed | Homes::DualStack => "A8",
        },
        Site::Behind(Kind::Independent(AddressAndPort) | Kind::Firewall, Reject)
        | Site::Double(Reject) => "A2",
        Site::Behind(Kind::Independent(AddressAndPort) | Kind::Firewall, Silent)
        | Site::Double(Silent) => "A3",
        Site::Behind(Kind::Dependent, _) => "A4",
        Site::Forwarded(..) => "A15",
    }
}

const SINGLE: Servers = Servers { count: 3, homes: Homes::Single };
const MULTIHOMED: Servers = Servers { count: 3, homes: Homes::Multihomed };
const DUAL_STACK: Servers = Servers { count: 4, homes: Homes::DualStack };

/// Whether the node can be connected over IPv6 as well. Where a protocol is blocked it is so for
/// IPv4 alone.
const fn has_ip6(site: Site) -> bool {
    !matches!(site, Site::Double(_) | Site::Blocked(..))
}

fn cell(site: Site, servers: Servers, transports: Transports, on: On) -> Cell {
    Cell { experiment: experiment(site, servers), site, servers, transports, on }
}

/// Each site with each transport once, servers and runtimes taking turns.
pub fn short() -> Vec<Cell> {
    let of = |site: &Site| {
        [
            cell(*site, MULTIHOMED, Transports::Tcp, On::Tokio),
            cell(*site, SINGLE, Transports::Quic, On::Smol),
            cell(
                *site,
                if has_ip6(*site) { DUAL_STACK } else { MULTIHOMED },
                Transports::Both,
                On::Tokio,
            ),
        ]
    };
    SITES.iter().flat_map(of).chain(few()).collect()
}

/// Everything.
pub fn whole() -> Vec<Cell> {
    let mut all = Vec::new();
    for site in SITES {
        for servers in [SINGLE, MULTIHOMED, DUAL_STACK] {
            if servers == DUAL_STACK && !has_ip6(site) {
                continue;
            }
            for transports in [Transports::Tcp, Transports::Quic, Transports::Both] {
                all.extend(On::ALL.map(|on| cell(site, servers, transports, on)));
            }
        }
    }
    all.extend(few());
    all
}

/// One server, two, five and seven.
fn few() -> Vec<Cell> {
    let sites = [Site::Open, Site::Behind(ei(AddressAndPort), Reject)];
    let of = |site: Site| {
        [1, 2, 5, 7].map(|count| {
            let servers = Servers { count, homes: Homes::Multihomed };
            Cell { experiment: "A5", ..cell(site, servers, Transports::Both, On::Tokio) }
        })
    };
    let mut all: Vec<Cell> = sites.into_iter().flat_map(of).collect();
    // A server that has just started, and has never heard of UDP before.
    let fresh = Servers { count: 1, homes: Homes::Multihomed };
    all.push(Cell { experiment: "A11", ..cell(Site::Open, fresh, Transports::Quic, On::Tokio) });
    all
}

/// What plain sockets must find.
pub fn expected_behaviour(site: Site) -> Behaviour {
    let told = |refusal| match refusal {
        Reject => Knock::Refused,
        Silent => Knock::Silence,
    };
    let behind = |kind, refusal| {
        let (mapping, filtering) = match kind {
            Kind::Firewall => (None, AddressAndPort),
            Kind::Independent(filtering) => (Some(Independent), filtering),
            Kind::Dependent => (Some(AddressAndPort), AddressAndPort),
        };
        Behaviour { mapping, filtering, unsolicited: told(refusal) }
    };
    match site {
        Site::Open => {
            Behaviour { mapping: None, filtering: Independent, unsolicited: Knock::Opened }
        }
        Site::Behind(kind, refusal) | Site::Forwarded(kind, refusal) => behind(kind, refusal),
        Site::Blocked(kind, _) => behind(kind, Reject),
        Site::Double(refusal) => behind(ei(AddressAndPort), refusal),
    }
}
