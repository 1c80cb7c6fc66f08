//! Ports that a real router's daemon opens for a node: granted, found to be reachable, used by
//! strangers, given back, and opened again after whatever happens to router and node.
//!
//! ```text
//!   s1  s2  s3  stranger
//!    └───┴──┬─────┘
//!         bridge ── wan router lan ──┬── node       192.168.1.7
//!                    miniupnpd       └── neighbour  192.168.1.8
//! ```
//!
//! The router translates and drops what nobody asked for.

#![allow(clippy::print_stdout, reason = "this is what a program says")]

mod plots;

use super::application::Application;
use super::cells::{PORT, STRANGER, server_ips};
use super::experiments::socket_address;
use super::link::Conditions;
use super::peers::{self, On, Server};
use super::results::quantile;
use super::router_daemon::{self, Daemon, Folder, Forward, forwards};
use super::rules::{Kind, Layer, Router};
use super::sockets::dial;
use super::{Gateway, Host, Lab, available, program};
use portolan_core::{Family, MappingProtocol};
use portolan_sim::net::{Dependence, Refusal};
use portolan_sim::workers::spread;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Stories that are lived at once, number; ours: nearly all of them is waiting.
const JOBS: usize = 6;
/// Where the router is on the Internet, and where it moves.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(44, 100, 0, 1);
const MOVED: Ipv4Addr = Ipv4Addr::new(44, 100, 0, 9);
/// The node behind it.
const NODE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 7);
/// How long a first grant and a verdict may take, ours: ten times what they take.
const SOON: Duration = Duration::from_secs(10);
/// How long it may take until a router that forgot everything forwards again: one that announces
/// that it started, and one that is not heard.
const ANNOUNCED: Duration = Duration::from_secs(10);
const UNHEARD: Duration = Duration::from_secs(60);
/// The shortest lifetime that a node may ask for.
const LEASE: Duration = Duration::from_secs(60);
/// How old a daemon is at least when it is killed, ours: its clock tells that from a new one.
const DAEMON_AGE_S: u64 = 5;
/// How a conversation between peers begins.
const HELLO: &[u8] = b"\x13/multistream/1.0.0\n";
/// Nothing that is sent to a group of hosts is heard.
const NO_GROUPS: &str = "table inet deaf {
chain input { type filter hook input priority filter; ip daddr 224.0.0.0/4 drop; }
}
";

/// Nobody is at the old address any more.
const GONE: &str = "table inet gone {
chain prerouting { type filter hook prerouting priority raw; ip daddr OUTSIDE drop; }
}
";

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plot {
    /// The ports are opened, strangers come, and the node ends.
    Opened,
    /// The daemon is killed and comes back with an empty table, heard or unheard.
    Restarted {
        /// Whether the node hears what is sent to groups.
        heard: bool,
    },
    /// The node is killed and comes back; a neighbour has the port that it would like.
    Killed,
    /// Other programs ask the daemon what it has granted.
    Told,
    /// The router gets another external address.
    Moved,
    /// A short lease comes near its end.
    Renewed,
    /// A firewall of IPv6 has holes for the node.
    Pinholes,
}

impl Plot {
    const fn name(self) -> &'static str {
        match self {
            Plot::Opened => "opened and given back",
            Plot::Restarted { heard: true } => "the daemon comes back empty",
            Plot::Restarted { heard: false } => "the daemon comes back empty, unheard",
            Plot::Killed => "the node is killed",
            Plot::Told => "other programs are told the same",
            Plot::Moved => "the external address changes",
            Plot::Renewed => "a short lease is renewed",
            Plot::Pinholes => "pinholes of IPv6",
        }
    }
}

/// A plot, with the protocols that the node speaks and what it runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Story {
    plot: Plot,
    protocols: &'static [MappingProtocol],
    on: On,
}

/// What came of a story.
#[derive(Debug, Default)]
struct Tale {
    /// What was measured, milliseconds.
    times: Vec<(&'static str, u64)>,
    /// What is not as it should be.
    problems: Vec<String>,
}

/// All of them once, or those whose name contains the argument. Without root or the tools it says what
/// was skipped, which is a failure where `PORTOLAN_REQUIRE_LAB` is set.
pub fn pass() -> ExitCode {
    let available = available().and_then(|()| router_daemon::available());
    program::told("the lab of port mappings", available, live)
}

fn live(wanted: &str) -> usize {
    let started = Instant::now();
    let stories = all().filter(|story| story.name().contains(wanted));
    let stories: Vec<Story> = stories.collect();
    let mut problems = 0;
    let mut figures: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let story = |number: u64| stories.get(usize::try_from(number).ok()?);
    spread(
        0..stories.len() as u64,
        JOBS,
        |number| story(number).map(|story| (*story, story.live())),
        &mut |_, lived: Option<(Story, io::Result<Tale>)>| {
            if let Some((story, lived)) = lived {
                let tale = lived.unwrap_or_else(|error| Tale::failed(&error));
                println!("{}: {}", story.name(), tale.line());
                for (what, took) in &tale.times {
                    // Every story begins in the same way.
                    let of = if *what == VERDICT { "all stories" } else { story.plot.name() };
                    figures.entry(format!("{of}: {what}")).or_default().push(*took);
                }
                problems += tale.problems.len();
            }
            true
        },
    );
    for (what, all) in &figures {
        let at = |percent| quantile(percent, all.iter().copied()).unwrap_or_default();
        let (median, most) = (at(50), at(100));
        println!("mapping: {what}: median {median} ms, most {most} ms, of {}", all.len());
    }
    println!("mapping: {} stories in {} s", stories.len(), started.elapsed().as_secs());
    problems
}

/// How soon a story's node is proven reachable for the first time.
const VERDICT: &str = "first dial to both reachable";

/// Every protocol alone, and all together.
static PROTOCOLS: [&[MappingProtocol]; 4] = [
    &[MappingProtocol::Pcp],
    &[MappingProtocol::NatPmp],
    &[MappingProtocol::Upnp],
    &MappingProtocol::ALL,
];

/// Ports are opened by every protocol on every runtime; of the other plots the protocols take turns with
/// the runtimes, and there is none that one of them does not live through.
fn all() -> impl Iterator<Item = Story> {
    // The long ones begin first.
    let [pcp, nat_pmp, upnp, _] = PROTOCOLS;
    let renewed = told(Plot::Renewed, vec![nat_pmp; 2]);
    let plots = [
        Plot::Restarted { heard: false },
        Plot::Moved,
        Plot::Restarted { heard: true },
        Plot::Killed,
        Plot::Told,
    ];
    let in_turns = plots.into_iter().flat_map(|plot| told(plot, PROTOCOLS.to_vec()));
    let each = PROTOCOLS.iter().flat_map(|one| [*one; 2]).collect();
    let pinholes = told(Plot::Pinholes, vec![pcp, pcp, upnp, upnp]);
    renewed.chain(in_turns).chain(told(Plot::Opened, each)).chain(pinholes)
}

/// A plot with each of these, on the runtimes in turns.
fn told(plot: Plot, all: Vec<&'static [MappingProtocol]>) -> impl Iterator<Item = Story> {
    let runtimes = On::ALL.into_iter().cycle();
    all.into_iter().zip(runtimes).map(move |(protocols, on)| Story { plot, protocols, on })
}

impl Story {
    fn name(&self) -> String {
        let protocols: Vec<&str> = self.protocols.iter().map(|one| one.name()).collect();
        format!("{} · {} · {}", self.plot.name(), protocols.join("+"), self.on.name())
    }

    fn live(&self) -> io::Result<Tale> {
        let mut tale = Tale::default();
        let mut world = World::open(*self)?;
        match self.plot {
            Plot::Opened => world.opened(&mut tale)?,
            Plot::Restarted { heard } => world.restarted(heard, &mut tale)?,
            Plot::Killed => world.killed(&mut tale)?,
            Plot::Told => world.told(&mut tale)?,
            Plot::Moved => world.moved(&mut tale)?,
            Plot::Renewed => world.renewed(&mut tale)?,
            Plot::Pinholes => world.pinholes(&mut tale)?,
        }
        Ok(tale)
    }
}

impl Tale {
    fn failed(error: &io::Error) -> Tale {
        Tale { times: Vec::new(), problems: vec![error.to_string()] }
    }

    fn expect(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.problems.push(otherwise());
        }
    }

    fn line(&self) -> String {
        let times = self.times.iter().map(|(what, took)| format!("{what} {took} ms"));
        let problems = self.problems.iter().map(|problem| format!("PROBLEM: {problem}"));
        times.chain(problems).collect::<Vec<_>>().join("; ")
    }
}

/// Where it happens. What runs in a namespace is ended before that is removed.
struct World {
    story: Story,
    daemon: Option<Daemon>,
    servers: Vec<Server>,
    folder: Folder,
    node: Host,
    neighbour: Host,
    gateway: Gateway,
    _hosts: Vec<Host>,
    stranger: Host,
    _lab: Lab,
}

impl World {
    fn open(story: Story) -> io::Result<World> {
        let lab = Lab::new(Conditions::NONE)?;
        let kind = Kind::Independent(Dependence::AddressAndPort);
        // The firewall of IPv6 is part of the daemon's table, for its pinholes to lead through.
        let router = Router { open_ip6: true, ..Router::new(kind, Refusal::Silent) };
        let gateway = lab.router(OUTSIDE, &router)?;
        let node = gateway.host("node", 7)?;
        let neighbour = gateway.host("neighbour", 8)?;
        let stranger = lab.public("stranger", &STRANGER)?;
        let public = |number| lab.public(&format!("s{number}"), &server_ips(number));
        let hosts = (1..=3).map(public).collect::<io::Result<Vec<Host>>>()?;
        lab.settle()?;
        gateway.settle()?;
        // Who is behind a router that filters by port can tell by nobody else that strangers get in.
        let serve = |host: &Host| {
            let family = if story.plot == Plot::Pinholes { Family::Ip6 } else { Family::Ip4 };
            let known = host.ip(family).into_iter();
            let known = known.flat_map(|ip| Layer::ALL.map(|layer| layer.address(ip, PORT)));
            let second = host.ips.get(1).filter(|_| family == Family::Ip4);
            let second = second.map(|ip| format!("--dial-from={ip}"));
            peers::serve(host, &known.collect::<Vec<_>>(), &Vec::from_iter(second), story.on)
        };
        let servers = hosts.iter().map(serve).collect::<io::Result<_>>()?;
        let daemon = Some(Daemon::start(&gateway.space)?);
        let folder = Folder::new()?;
        let _hosts = hosts;
        Ok(World {
            story,
            daemon,
            servers,
            folder,
            node,
            neighbour,
            gateway,
            _hosts,
            stranger,
            _lab: lab,
        })
    }

    /// Granted, proven, used by strangers, and given back.
    fn opened(&mut self, tale: &mut Tale) -> io::Result<()> {
        let node = self.proven(tale)?;
        self.close(node, tale)
    }

    /// Start a node, have it dial the servers, and follow it until strangers get in.
    fn proven(&mut self, tale: &mut Tale) -> io::Result<Application> {
        let mut node = self.start()?;
        self.dial_all(&mut node)?;
        let external = self.granted(&mut node, 0, tale)?;
        self.reachable(&mut node, 0, &external, tale)?;
        let wanted = external.each_ref().map(|one| one.1);
        let entries = self.ours()?;
        tale.expect(entries == wanted, || format!("{entries:?} in the table, not {wanted:?}"));
        self.used(&node, &external)?;
        Ok(node)
    }

    fn start(&self) -> io::Result<Application> {
        let is_ip6 = self.story.plot == Plot::Pinholes;
        let any = if is_ip6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let listen = Layer::ALL.map(|layer| layer.address(any, PORT));
        let names: Vec<String> = self.story.protocols.iter().map(|one| one.name().into()).collect();
        let mut options = peers::each("--map", &names);
        options.extend(["--ledger".into(), self.folder.file("ledger")]);
        if self.story.plot == Plot::Renewed {
            options.extend(["--lifetime".into(), LEASE.as_secs().to_string()]);
        }
        Application::start_with(&self.node, &listen, &options, self.story.on)
    }

    fn dial_all(&self, node: &mut Application) -> io::Result<()> {
        for addr in self.servers.iter().flat_map(|server| &server.addrs) {
            // A router that moves may lose the first packets.
            if node.order("dial", addr)?.is_err() {
                node.order("dial", addr)?.map_err(io::Error::other)?;
            }
        }
        Ok(())
    }

    /// Wait until a port of each layer is granted, from an event on, on an address of the router's.
    fn granted(
        &self,
        node: &mut Application,
        from: usize,
        tale: &mut Tale,
    ) -> io::Result<[(String, Forward); 2]> {
        let mut external = Vec::new();
        let mut last = 0;
        for layer in Layer::ALL {
            let inside = format!("/ip4/{NODE}/{}/", layer.name());
            let of_layer = |event: &Value| {
                event["event"] == "mapping"
                    && event["state"] == "granted"
                    && event["internal"].as_str().is_some_and(|addr| addr.starts_with(&inside))
            };
            let event = node.wait(from, SOON, of_layer);
            let event =
                event.ok_or_else(|| stuck(&format!("{} is not granted", layer.name()), node))?;
            last = last.max(event["at_ms"].as_u64().unwrap_or(u64::MAX));
            let addr = event["external"].as_str().unwrap_or_default().to_owned();
            let by = event["protocol"].as_str().unwrap_or_default();
            let spoken = self.story.protocols.iter().any(|one| one.name() == by);
            tale.expect(spoken, || format!("granted by {by}"));
            let at = socket_address(&addr, (Family::Ip4, layer));
            let at = at.ok_or_else(|| io::Error::other(format!("{addr} is no address")))?;
            let to = SocketAddrV4::new(NODE, PORT);
            external.push((addr, Forward { layer, port: at.port(), to }));
        }
        let dialled = first_dial(node, from);
        tale.times.push(("granted", last.saturating_sub(dialled)));
        external.try_into().map_err(|_| io::Error::other("there are two layers"))
    }

    /// Wait until both are known to be reachable, and measure that from the first dial on.
    fn reachable(
        &self,
        node: &mut Application,
        from: usize,
        external: &[(String, Forward); 2],
        tale: &mut Tale,
    ) -> io::Result<()> {
        let mut last = 0;
        for (addr, _) in external {
            let proven = |event: &Value| {
                event["event"] == "verdict"
                    && event["addr"] == addr.as_str()
                    && event["state"] == "reachable"
            };
            let event = node.wait(from, SOON, proven);
            let event = event.ok_or_else(|| stuck(&format!("{addr} is not reachable"), node))?;
            last = last.max(event["at_ms"].as_u64().unwrap_or(u64::MAX));
        }
        tale.times.push((VERDICT, last.saturating_sub(first_dial(node, from))));
        Ok(())
    }

    /// Somebody who never spoke with the node gets in at both: with a plain socket, which our
    /// listener answers, and with a peer's handshakes.
    fn used(&self, node: &Application, external: &[(String, Forward); 2]) -> io::Result<()> {
        let [(addr, _), _] = external;
        let to = socket_address(addr, (Family::Ip4, Layer::Tcp));
        let to = to.ok_or_else(|| io::Error::other("TCP comes first"))?;
        let from = SocketAddr::new(self.stranger.ip4().into(), 0);
        let mut plain = dial(&self.stranger, from, to)?;
        plain.set_read_timeout(Some(SOON))?;
        plain.write_all(HELLO)?;
        plain.read_exact(&mut [0; HELLO.len()])?;
        let mut peer = Application::start(&self.stranger, &[], self.story.on)?;
        for (addr, _) in external {
            let named = format!("{addr}/p2p/{}", node.peer());
            peer.order("dial", &named)?.map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// What the router forwards to the node.
    fn ours(&self) -> io::Result<Vec<Forward>> {
        let all = forwards(&self.gateway.space)?;
        Ok(all.into_iter().filter(|one| *one.to.ip() == NODE).collect())
    }

    /// End the node, after which nothing of its is left.
    fn close(&self, node: Application, tale: &mut Tale) -> io::Result<()> {
        node.close()?;
        let left = self.ours()?;
        tale.expect(left.is_empty(), || format!("left behind: {left:?}"));
        Ok(())
    }
}

/// When the node dialled for the first time after an event, milliseconds on its clock.
fn first_dial(node: &Application, from: usize) -> u64 {
    let mut later = node.told.iter().skip(from);
    let dialled = later.find(|event| event["event"] == "dialling");
    dialled.and_then(|event| event["at_ms"].as_u64()).unwrap_or_default()
}

/// What did not come, and what came.
fn stuck(what: &str, node: &Application) -> io::Error {
    let mut said = what.to_owned();
    for event in &node.told {
        let _ = write!(said, "\n  {event}");
    }
    io::Error::other(said)
}
