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

use super::application::Application;
use super::cells::{PORT, STRANGER, server_ips};
use super::experiments::{millis, socket_address};
use super::link::Conditions;
use super::peers::{self, On, Server};
use super::router_daemon::{self, Daemon, Folder, Forward, forwards};
use super::rules::{Kind, Layer, Router};
use super::sockets::dial;
use super::{Gateway, Host, Lab, available, program};
use portolan_core::{Family, MappingProtocol};
use portolan_sim::net::{Dependence, Refusal};
use portolan_sim::workers::spread;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::process::ExitCode;
use std::thread;
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

/// All of them once, those that take minutes where `PORTOLAN_LAB_WHOLE` is set, or those whose name contains the argument. Without root or the tools it says
/// what was skipped, which is a failure where `PORTOLAN_REQUIRE_LAB` is set.
pub fn pass() -> ExitCode {
    if std::env::args().any(|arg| arg == "--list") {
        return ExitCode::SUCCESS;
    }
    if let Err(missing) = available().and_then(|()| router_daemon::available()) {
        println!("skipped: the lab of port mappings: {missing}");
        return if program::is_required() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    program::set_up();
    let started = Instant::now();
    let wanted = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let stories: Vec<Story> = all().filter(|story| story.name().contains(&wanted)).collect();
    let mut problems = 0;
    let mut verdicts = Vec::new();
    let story = |number: u64| stories.get(usize::try_from(number).ok()?);
    spread(
        0..stories.len() as u64,
        JOBS,
        |number| story(number).map(|story| (story.name(), story.live())),
        &mut |_, lived: Option<(String, io::Result<Tale>)>| {
            if let Some((name, lived)) = lived {
                let tale = lived.unwrap_or_else(|error| Tale::failed(&error));
                println!("{name}: {}", tale.line());
                let first = tale.times.iter().filter(|(what, _)| *what == VERDICT);
                verdicts.extend(first.map(|(_, took)| *took));
                problems += tale.problems.len();
            }
            true
        },
    );
    verdicts.sort_unstable();
    if let Some(median) = verdicts.get(verdicts.len() / 2) {
        println!("mapping: {VERDICT}: median {median} ms of {}", verdicts.len());
    }
    println!("mapping: {} stories in {} s", stories.len(), started.elapsed().as_secs());
    program::ended(problems)
}

/// The figure of which the median is told.
const VERDICT: &str = "first dial to both reachable";

/// Every protocol alone, and all together.
const PROTOCOLS: [&[MappingProtocol]; 4] = [
    &[MappingProtocol::Pcp],
    &[MappingProtocol::NatPmp],
    &[MappingProtocol::Upnp],
    &MappingProtocol::ALL,
];

fn all() -> impl Iterator<Item = Story> {
    let each = |plot, on| PROTOCOLS.map(|protocols| Story { plot, protocols, on });
    // The long ones begin first. A move is noticed late by much that takes no notice of routers.
    let is_whole = std::env::var_os("PORTOLAN_LAB_WHOLE").is_some_and(|value| value == "1");
    let is_wanted = move |story: &Story| is_whole || story.plot != Plot::Moved;
    let unheard = each(Plot::Restarted { heard: false }, On::Tokio);
    let restarted = each(Plot::Restarted { heard: true }, On::Smol);
    let moved = each(Plot::Moved, On::Tokio);
    let killed = each(Plot::Killed, On::Smol);
    let told = each(Plot::Told, On::Tokio);
    let opened = On::ALL.into_iter().flat_map(move |on| each(Plot::Opened, on));
    let others = [moved, unheard, restarted, killed, told];
    others.into_iter().flatten().chain(opened).filter(is_wanted)
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
        let gateway = lab.router(OUTSIDE, &Router::new(kind, Refusal::Silent))?;
        let node = gateway.host("node", 7)?;
        let neighbour = gateway.host("neighbour", 8)?;
        let stranger = lab.public("stranger", &STRANGER)?;
        let public = |number| lab.public(&format!("s{number}"), &server_ips(number));
        let hosts = (1..=3).map(public).collect::<io::Result<Vec<Host>>>()?;
        lab.settle()?;
        gateway.settle()?;
        // Who is behind a router that filters by port can tell by nobody else that strangers get in.
        let serve = |host: &Host| {
            let listen = Layer::ALL.map(|layer| layer.address(host.ip4().into(), PORT));
            let second = host.ips.get(1).map(|ip| format!("--dial-from={ip}"));
            peers::serve(host, &listen, &Vec::from_iter(second), story.on)
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
        let listen = Layer::ALL.map(|layer| layer.address(Ipv4Addr::UNSPECIFIED.into(), PORT));
        let names: Vec<String> = self.story.protocols.iter().map(|one| one.name().into()).collect();
        let mut options = peers::each("--map", &names);
        options.extend(["--ledger".into(), self.folder.file("ledger")]);
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

    /// The daemon is killed and comes back with an empty table.
    fn restarted(&mut self, heard: bool, tale: &mut Tale) -> io::Result<()> {
        if !heard {
            self.node.space.nft(NO_GROUPS)?;
        }
        let node = self.proven(tale)?;
        let before = self.ours()?;
        // Clocks are compared with two seconds to spare (RFC 6886 §3.6): who is younger than that
        // when it dies comes back unnoticed.
        until(SOON, || {
            let said = self.node.space.output("natpmpc", &[])?;
            Ok(epoch(&said).is_some_and(|seconds| seconds >= DAEMON_AGE_S))
        })?;
        drop(self.daemon.take());
        self.daemon = Some(Daemon::start(&self.gateway.space)?);
        let began = Instant::now();
        let within = if heard { ANNOUNCED } else { UNHEARD };
        let again = until(within, || Ok(self.ours()? == before));
        again.map_err(|error| stuck(&format!("not mapped again: {error}"), &node))?;
        tale.times.push(("mapped again", millis(began.elapsed())));
        let external = before.iter().map(|one| (one.layer.address(OUTSIDE.into(), one.port), *one));
        let external: Vec<(String, Forward)> = external.collect();
        let external = external.try_into().map_err(|_| io::Error::other("two are mapped"))?;
        self.used(&node, &external)?;
        self.close(node, tale)
    }

    /// The node is killed and started again, while a neighbour has the port that it would like.
    fn killed(&mut self, tale: &mut Tale) -> io::Result<()> {
        let port = PORT.to_string();
        for layer in Layer::ALL {
            let args = ["-a", &port, &port, layer.name(), "3600"];
            self.neighbour.space.output("natpmpc", &args)?;
        }
        let node = self.proven(tale)?;
        let before = self.ours()?;
        tale.expect(before.iter().all(|one| one.port != PORT), || "a taken port is granted".into());
        drop(node);
        let node = self.proven(tale)?;
        let after = self.ours()?;
        tale.expect(before == after, || format!("{before:?} before, {after:?} after"));
        self.close(node, tale)?;
        let of_neighbour = forwards(&self.gateway.space)?.len();
        tale.expect(of_neighbour == 2, || format!("the neighbour has {of_neighbour} ports"));
        Ok(())
    }

    /// Other programs ask the daemon what it has granted.
    fn told(&mut self, tale: &mut Tale) -> io::Result<()> {
        let node = self.proven(tale)?;
        let listed = self.node.space.output("upnpc", &["-l"])?;
        let has = |text: &str| listed.contains(text);
        tale.expect(has(&format!("ExternalIPAddress = {OUTSIDE}")), || listed.clone());
        for one in self.ours()? {
            let Forward { layer, port, to } = one;
            let entry = format!("{} {port:>5}->{to}", layer.name().to_uppercase());
            tale.expect(has(&entry), || format!("{entry} is not in {listed}"));
            let (inside, outside) = (to.port().to_string(), port.to_string());
            let args = ["-a", outside.as_str(), &inside, layer.name(), "7200"];
            let said = self.node.space.output("natpmpc", &args)?;
            let layer = layer.name().to_uppercase();
            let granted =
                format!("Mapped public port {port} protocol {layer} to local port {PORT}");
            tale.expect(said.contains(&granted), || format!("no \"{granted}\" in {said}"));
            let external = format!("Public IP address : {OUTSIDE}");
            tale.expect(said.contains(&external), || format!("no \"{external}\" in {said}"));
        }
        node.close()
    }

    /// The router gets another external address.
    fn moved(&mut self, tale: &mut Tale) -> io::Result<()> {
        let mut node = self.proven(tale)?;
        let (from, began) = (node.told.len(), Instant::now());
        let addresses =
            format!("address add {MOVED}/32 dev wan\naddress del {OUTSIDE}/32 dev wan\n");
        self.gateway.space.ip(&addresses)?;
        // For a while hosts go on sending there what is for the old one.
        self.gateway.space.nft(&GONE.replace("OUTSIDE", &OUTSIDE.to_string()))?;
        let all = |addrs: [String; 2], what: &str| addrs.map(|addr| (addr, what.to_owned()));
        let [new, old] =
            [MOVED, OUTSIDE].map(|ip| Layer::ALL.map(|one| one.address(ip.into(), PORT)));
        let known = await_each(&mut node, from, all(new.clone(), "granted"), |event, addr| {
            event["event"] == "mapping" && event["external"] == addr
        })?;
        tale.times.push(("moved, and told so", millis(began.elapsed())));
        // What the old address led to is gone, and whoever noticed connects anew.
        self.dial_all(&mut node)?;
        let proven = await_each(&mut node, from, all(new.clone(), "proven"), |event, addr| {
            event["event"] == "verdict" && event["addr"] == addr && event["state"] == "reachable"
        })?;
        let withdrawn = await_each(&mut node, from, all(old, "withdrawn"), |event, addr| {
            let mut removed = event["removed"].as_array().into_iter().flatten();
            event["event"] == "advertised" && removed.any(|one| one == addr)
        })?;
        tale.times.push(("the new address proven so long after", proven.saturating_sub(known)));
        tale.times.push(("the old one withdrawn so long after", withdrawn.saturating_sub(known)));
        let to = SocketAddrV4::new(NODE, PORT);
        let [tcp, udp] = new;
        let forward = |layer| Forward { layer, port: PORT, to };
        self.used(&node, &[(tcp, forward(Layer::Tcp)), (udp, forward(Layer::Udp))])?;
        self.close(node, tale)
    }

    /// End the node, after which nothing of its is left.
    fn close(&self, node: Application, tale: &mut Tale) -> io::Result<()> {
        node.close()?;
        let left = self.ours()?;
        tale.expect(left.is_empty(), || format!("left behind: {left:?}"));
        Ok(())
    }
}

/// Wait until each of these was told of, and say when the last was, milliseconds on the node's clock.
fn await_each(
    node: &mut Application,
    from: usize,
    wanted: [(String, String); 2],
    is: impl Fn(&Value, &str) -> bool,
) -> io::Result<u64> {
    let mut last = 0;
    for (addr, what) in wanted {
        let event = node.wait(from, UNHEARD, |event| is(event, &addr));
        let event = event.ok_or_else(|| stuck(&format!("{addr} is not {what}"), node))?;
        last = last.max(event["at_ms"].as_u64().unwrap_or(u64::MAX));
    }
    Ok(last)
}

/// When the node dialled for the first time after an event, milliseconds on its clock.
fn first_dial(node: &Application, from: usize) -> u64 {
    let mut later = node.told.iter().skip(from);
    let dialled = later.find(|event| event["event"] == "dialling");
    dialled.and_then(|event| event["at_ms"].as_u64()).unwrap_or_default()
}

/// The clock that the daemon tells, seconds, from what `natpmpc` says.
fn epoch(said: &str) -> Option<u64> {
    said.lines().find_map(|line| line.strip_prefix("epoch = ")).and_then(|text| text.parse().ok())
}

/// Wait until something of which nobody tells holds.
fn until(within: Duration, mut holds: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let began = Instant::now();
    while !holds()? {
        if began.elapsed() > within {
            return Err(io::Error::other(format!("not within {} s", within.as_secs())));
        }
        // sleep: between two looks at the tables of the kernel.
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// What did not come, and what came.
fn stuck(what: &str, node: &Application) -> io::Error {
    let mut said = what.to_owned();
    for event in &node.told {
        let _ = write!(said, "\n  {event}");
    }
    io::Error::other(said)
}
