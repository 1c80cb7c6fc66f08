//! What there is to run, and what each kind of network is known to do.

use super::cells::{Cell, Families, Homes, Servers, Site, Transports};
use super::experiments::{self, Run};
use super::faces::{TRICKS, Trick};
use super::link::Conditions;
use super::odd::{Odd, Others};
use super::peers::On;
use super::rules::{Kind, Layer};
use super::sockets::Knock;
use super::stories::{self, Story};
use super::verify::Behaviour;

use portolan_sim::net::{Dependence, Refusal};
use std::io;
use std::time::Duration;

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
        Site::OpenIp6(..) => "A31",
        Site::Forwarded(..) => "A15",
    }
}

const SINGLE: Servers = Servers { count: 3, homes: Homes::Single };
const MULTIHOMED: Servers = Servers { count: 3, homes: Homes::Multihomed };
const NOBODY: Servers = Servers { count: 0, homes: Homes::Single };
const DUAL_STACK: Servers = Servers { count: 4, homes: Homes::DualStack };

/// Whether the node can be connected over IPv6 as well. Where a protocol is blocked it is so for
/// IPv4 alone.
const fn has_ip6(site: Site) -> bool {
    !matches!(site, Site::Double(_) | Site::Blocked(..) | Site::OpenIp6(..))
}

/// How often applications live at most.
const LIVE_RUNS_MAX: u64 = 5;

/// One thing to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// A check, from the first dial to the last word.
    Check(Cell),
    /// An application whose network changes.
    Live(Story),
}

impl Task {
    /// In a line.
    pub fn name(&self) -> String {
        match self {
            Task::Check(cell) => cell.name(),
            Task::Live(story) => story.name(),
        }
    }

    /// The experiment, as the audit numbers them.
    pub fn experiment(&self) -> &'static str {
        match self {
            Task::Check(cell) => cell.experiment,
            Task::Live(story) => story.plot.experiment(),
        }
    }

    /// How often it is run where everything is to be run so often: what takes minutes is run five
    /// times at most.
    pub fn runs(&self, wanted: u64) -> u64 {
        match self {
            Task::Check(_) => wanted,
            Task::Live(_) => wanted.min(LIVE_RUNS_MAX),
        }
    }

    /// Run it once.
    ///
    /// # Errors
    /// If the network cannot be built, or a program fails.
    pub fn run(&self) -> io::Result<Run> {
        match self {
            Task::Check(cell) => experiments::run(cell),
            Task::Live(story) => story.run(),
        }
    }
}

const fn cell(site: Site, servers: Servers, transports: Transports, on: On) -> Cell {
    Cell {
        experiment: experiment(site, servers),
        site,
        servers,
        others: Others::NONE,
        transports,
        families: Families::Ip4,
        conditions: Conditions::NONE,
        on,
    }
}

/// A check without delay on tokio, of TCP and QUIC at once.
pub const fn both(site: Site, servers: Servers) -> Cell {
    cell(site, servers, Transports::Both, On::Tokio)
}

/// Each site with each transport once, servers and runtimes taking turns, and one of each other
/// experiment.
pub fn short() -> Vec<Task> {
    let of = |site: &Site| {
        [
            cell(*site, MULTIHOMED, Transports::Tcp, On::Tokio),
            cell(*site, SINGLE, Transports::Quic, On::Smol),
            both(*site, if has_ip6(*site) { DUAL_STACK } else { MULTIHOMED }),
        ]
    };
    let checks = SITES.iter().flat_map(of).chain(few());
    let checks = checks.chain(delayed(&[SLOW])).chain(lossy(&[10]).into_iter().take(1));
    let checks = checks.chain(unreliable()).chain(unable()).chain(liars().into_iter().skip(1));
    let checks = checks.chain(poisoned()).chain(ip6());
    checks.map(Task::Check).chain(stories::short().map(Task::Live)).collect()
}

/// Everything.
pub fn whole() -> Vec<Task> {
    let mut all = Vec::new();
    for site in SITES {
        for servers in [SINGLE, MULTIHOMED, DUAL_STACK] {
            if servers == DUAL_STACK && !has_ip6(site) {
                continue;
            }
            for transports in [Transports::Tcp, Transports::Quic, Transports::Both] {
                // Smol runs them all with one kind of servers: what differs is what is below core.
                let all_of: &[On] = if servers == MULTIHOMED { &On::ALL } else { &[On::Tokio] };
                all.extend(all_of.iter().map(|on| cell(site, servers, transports, *on)));
            }
        }
    }
    all.extend(few());
    all.extend(delayed(&[FAST, SLOW, MILLIS_100, MILLIS_250]));
    all.extend(lossy(&[1, 5, 10, 15]));
    all.extend(unreliable());
    all.extend(unable());
    all.extend(liars());
    all.extend(poisoned());
    all.extend(ip6());
    let checks = all.into_iter().map(Task::Check);
    checks.chain(stories::whole().map(Task::Live)).collect()
}

/// One server, two, five and seven.
fn few() -> Vec<Cell> {
    let sites = [Site::Open, Site::Behind(ei(AddressAndPort), Reject)];
    let of = |site: Site| {
        [1, 2, 5, 7].map(|count| {
            let servers = Servers { count, homes: Homes::Multihomed };
            Cell { experiment: "A5", ..both(site, servers) }
        })
    };
    let mut all: Vec<Cell> = sites.into_iter().flat_map(of).collect();
    // A server that has just started, and has never heard of UDP before.
    let fresh = Servers { count: 1, homes: Homes::Multihomed };
    all.push(Cell { experiment: "A11", ..cell(Site::Open, fresh, Transports::Quic, On::Tokio) });
    all
}

/// A round trip of 20 ms, as to the same continent.
const FAST: Duration = Duration::from_millis(10);
/// One of 100 ms, as to another.
const SLOW: Duration = Duration::from_millis(50);
/// The audit's 200 ms.
const MILLIS_100: Duration = Duration::from_millis(100);
/// The audit's 500 ms.
const MILLIS_250: Duration = Duration::from_millis(250);

/// The sites whose figures are compared with those of the simulator, over slower ways.
fn delayed(ways: &[Duration]) -> Vec<Cell> {
    let sites = [
        Site::Open,
        Site::Behind(ei(Independent), Reject),
        Site::Behind(ei(AddressAndPort), Silent),
        Site::Behind(Kind::Dependent, Reject),
    ];
    let of = |way: &Duration| {
        let conditions = Conditions { delay: *way, loss_percent: 0, seed: 1 };
        let at = |site: Site| {
            [Transports::Tcp, Transports::Quic].map(|transports| Cell {
                experiment: "A6",
                conditions,
                ..cell(site, MULTIHOMED, transports, On::Tokio)
            })
        };
        sites.into_iter().flat_map(at).collect::<Vec<_>>()
    };
    ways.iter().flat_map(of).collect()
}

/// Packets that are lost on the way.
fn lossy(percents: &[u8]) -> Vec<Cell> {
    let sites = [
        Site::Open,
        Site::Behind(ei(AddressAndPort), Reject),
        Site::Behind(ei(AddressAndPort), Silent),
    ];
    let of = |percent: &u8| {
        let conditions = Conditions { delay: FAST, loss_percent: *percent, seed: 1 };
        sites.map(|site| Cell { experiment: "A7", conditions, ..both(site, MULTIHOMED) })
    };
    percents.iter().flat_map(of).collect()
}

/// Servers that are no help, beside some that are, and alone where they claim what is not so.
fn unreliable() -> Vec<Cell> {
    let honest = |count| Servers { count, homes: Homes::Multihomed };
    let with = |site, count, number, odd| Cell {
        experiment: "A9",
        others: Others { count: number, odd },
        ..both(site, honest(count))
    };
    let closed = Site::Behind(ei(AddressAndPort), Reject);
    vec![
        with(Site::Open, 2, 5, Odd::Deaf),
        with(Site::Open, 7, 5, Odd::Scripted(Trick::Deny)),
        with(Site::Open, 2, 5, Odd::Scripted(Trick::Timeout)),
        with(Site::Open, 2, 5, Odd::Scripted(Trick::Refuse)),
        with(closed, 2, 5, Odd::Scripted(Trick::Claim)),
        with(closed, 0, 7, Odd::Scripted(Trick::Claim)),
    ]
}

/// Servers that lack what it takes.
fn unable() -> Vec<Cell> {
    let with = |servers, transports, families, odd| Cell {
        experiment: "A12",
        others: Others { count: 2, odd },
        families,
        ..cell(Site::Open, servers, transports, On::Tokio)
    };
    let (ip4, both) = (Families::Ip4, Families::Both);
    vec![
        with(NOBODY, Transports::Both, ip4, Odd::NoUdp),
        with(MULTIHOMED, Transports::Both, ip4, Odd::NoUdp),
        with(NOBODY, Transports::Tcp, both, Odd::NoIp6),
        with(DUAL_STACK, Transports::Tcp, both, Odd::NoIp6),
    ]
}

/// One server that breaks a rule, alone and beside two that keep them.
fn liars() -> Vec<Cell> {
    let honest = Servers { count: 2, homes: Homes::Multihomed };
    let of = |trick: Trick| {
        [NOBODY, honest].map(|servers| Cell {
            experiment: "A13",
            others: Others { count: 1, odd: Odd::Scripted(trick) },
            ..both(Site::Open, servers)
        })
    };
    TRICKS.into_iter().flat_map(of).collect()
}

/// Peers in one network that see the node where it is not.
fn poisoned() -> Vec<Cell> {
    let of = |site| Cell {
        experiment: "A26",
        others: Others { count: 5, odd: Odd::Dazzled },
        ..both(site, MULTIHOMED)
    };
    [Site::Open, Site::Behind(ei(Independent), Reject)].map(of).into()
}

/// Sites that differ in what they do to the one family and to the other.
fn ip6() -> Vec<Cell> {
    let sites = [
        Site::Open,
        Site::Behind(ei(AddressAndPort), Reject),
        Site::OpenIp6(Kind::Dependent, Reject),
    ];
    sites
        .map(|site| Cell { experiment: "A31", families: Families::Both, ..both(site, DUAL_STACK) })
        .into()
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
        Site::Behind(kind, refusal)
        | Site::Forwarded(kind, refusal)
        | Site::OpenIp6(kind, refusal) => behind(kind, refusal),
        Site::Blocked(kind, _) => behind(kind, Reject),
        Site::Double(refusal) => behind(ei(AddressAndPort), refusal),
    }
}
