//! A plan: who is where, who dials whom, what befalls them and when. Everything that a run is made
//! of, as data, so that it can be drawn from a seed, written as a scenario, and made smaller.

mod build;
mod draw;
mod shrink;
mod text;
mod words;

pub use build::{Report, Run, SETTLE_MAX, Standing};
pub use draw::{Odds, drawn};
pub use shrink::smallest;
pub use text::{BadScenario, Expectation};

use crate::net::{GateConfig, Link, Rule};
use crate::world::{Costs, Vice};
use portolan_core::{Addr, Class, Duration, Family};
use std::net::IpAddr;

/// A router, and what stands behind it.
#[derive(Clone, Debug, PartialEq)]
pub struct RouterPlan {
    /// Its name.
    pub name: String,
    /// The number of the router that it stands behind itself.
    pub behind: Option<usize>,
    /// Its external IPv4 address, if it translates.
    pub outside: Option<IpAddr>,
    /// What it does with IPv4.
    pub ip4: GateConfig,
    /// What it does with IPv6.
    pub ip6: GateConfig,
    /// Static forwards and pinholes, external address first.
    pub forwards: Vec<(Addr, Addr)>,
    /// Its access link, where it stands on the Internet.
    pub link: Link,
}

/// What a node does for others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Serves {
    /// Further IPs that it dials back from.
    pub from: Vec<IpAddr>,
    /// What is wrong with it.
    pub vice: Option<Vice>,
}

/// A host, and the node on it.
#[derive(Clone, Debug, PartialEq)]
pub struct NodePlan {
    /// Its name.
    pub name: String,
    /// The number of the router that it stands behind.
    pub behind: Option<usize>,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Its access link, where it stands on the Internet.
    pub link: Link,
    /// What it listens on.
    pub listen: Vec<Addr>,
    /// Whether it dials back for others.
    pub serves: Option<Serves>,
    /// What its handshakes cost.
    pub costs: Costs,
    /// Whether it makes direct connections out of relayed ones.
    pub punches: bool,
}

/// Something that befalls the world. Numbers are places in the plan's lists.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A node runs from now on.
    Start(usize),
    /// A node wants to be connected to another at this address, from now on.
    Dial {
        /// Who.
        node: usize,
        /// To whom.
        to: usize,
        /// At which of his addresses.
        addr: Addr,
    },
    /// A router forgets its bindings.
    Reboot(usize),
    /// A router gets another external address.
    Renumber(usize, IpAddr),
    /// A router forwards from now on, external address first.
    Forward(usize, Addr, Addr),
    /// A router forwards this external address no more.
    Unforward(usize, Addr),
    /// A router is set up anew for one family.
    SetGate(usize, Family, Box<GateConfig>),
    /// The access link of a node's site carries nothing, or does again.
    Link(usize, bool),
    /// The access link of a node's site gets these faults.
    Faults(usize, Box<Link>),
    /// A rule of the network.
    Rule(Rule),
    /// A node dies.
    Kill(usize),
    /// All connections of a node break.
    CutOff(usize),
    /// A machine is suspended for a while.
    Suspend(usize, Duration),
    /// A host has other addresses.
    Readdress(usize, Vec<IpAddr>),
    /// A node closes its listeners of a class.
    CloseListener(usize, Class),
    /// A node listens on this as well.
    Listen(usize, Addr),
    /// A node dials an address like anybody who was told of it.
    Visit(usize, Addr),
    /// The network heals, and every machine runs.
    Heal,
}

/// A whole run.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What everything else is drawn from.
    pub seed: u64,
    /// Whether each node has a twin that is told the same and must stay equal.
    pub twins: bool,
    /// Whether keys and signed records travel; without them a run takes half the time.
    pub signs: bool,
    /// The routers; each stands behind an earlier one or on the Internet.
    pub routers: Vec<RouterPlan>,
    /// The hosts.
    pub nodes: Vec<NodePlan>,
    /// What happens, and when.
    pub changes: Vec<(Duration, Change)>,
    /// How long it lasts.
    pub lasts: Duration,
    /// From when on nothing changes any more, so that verdicts must come to agree with the truth.
    pub still_at: Option<Duration>,
    /// What is to be seen in the end.
    pub expects: Vec<Expectation>,
}

impl Plan {
    /// A plan in which nothing happens.
    pub fn new(seed: u64) -> Plan {
        Plan {
            seed,
            twins: false,
            signs: true,
            routers: Vec::new(),
            nodes: Vec::new(),
            changes: Vec::new(),
            lasts: Duration::from_secs(30),
            still_at: None,
            expects: Vec::new(),
        }
    }

    /// Have a node call on every server in every class in which both can, so that servers have heard
    /// from each of them: what they never heard from they say they cannot test.
    pub fn greet_servers(&mut self, at: Duration, node: usize) {
        let mut visits = Vec::new();
        for server in self.nodes.iter().filter(|server| server.serves.is_some()) {
            let ips = server.ips.iter().filter(|ip| {
                let family = |other: &&IpAddr| Family::of(**other) == Family::of(**ip);
                self.nodes[node].ips.iter().any(|other| family(&other))
            });
            for ip in ips {
                let here =
                    |bound: &&Addr| bound.ip == *ip || bound.ip == unspecified(Family::of(*ip));
                let sockets = server.listen.iter().filter(here);
                visits.extend(sockets.map(|bound| Addr { ip: *ip, ..*bound }));
            }
        }
        for addr in visits {
            self.at(at, Change::Visit(node, addr));
        }
    }

    /// Add a change.
    pub fn at(&mut self, at: Duration, change: Change) {
        self.changes.push((at, change));
    }
}

impl NodePlan {
    /// A node on the Internet that listens on TCP and QUIC, on every address.
    pub fn new(name: &str, ips: &[IpAddr], port: u16) -> NodePlan {
        let mut listen = Vec::new();
        for family in [Family::Ip4, Family::Ip6] {
            if ips.iter().any(|ip| Family::of(*ip) == family) {
                let any = unspecified(family);
                listen.extend([Addr::tcp(any, port), Addr::quic(any, port)]);
            }
        }
        NodePlan {
            name: name.to_owned(),
            behind: None,
            ips: ips.to_vec(),
            link: Link::default(),
            listen,
            serves: None,
            costs: Costs::PORTOLAN,
            punches: false,
        }
    }
}

/// The wildcard of a family.
pub(crate) fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::Ip4 => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        Family::Ip6 => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    }
}
