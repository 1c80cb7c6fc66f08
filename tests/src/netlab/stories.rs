//! Applications that embed a node and whose world changes while they run: what they are told, when.

use super::application::Application;
use super::cells::{Cell, Homes, PORT, Place, Servers, Site, build, forwarding};
use super::experiments::{self, Run, millis, traffic};
use super::faces::Trick;
use super::link::Conditions;
use super::odd::{Odd, Others};
use super::peers::{On, Server};
use super::plan;
use super::rules::{Kind, Layer, Router};
use portolan_sim::net::{Dependence, Refusal};
use serde_json::Value;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

/// Whom the applications ask.
const SERVERS: Servers = Servers { count: 3, homes: Homes::Multihomed };
/// How long a first verdict, or one after somebody said that something has changed, may take: a
/// pause of fifteen seconds and a dial that times out.
const SOON: Duration = Duration::from_secs(30);
/// The same where the mapping depends on the endpoint.
const SOON_ENOUGH: Duration = Duration::from_secs(90);
/// How long what nobody tells may go unnoticed.
const UNTOLD: Duration = Duration::from_secs(120);
/// How long unreliable servers have to make a node change its mind.
const WATCHED: Duration = Duration::from_secs(600);
/// The state of an address that strangers reach, and of one that they do not.
const OPEN: &str = "reachable";
const CLOSED: &str = "unreachable";
/// The port of an application that does not get the one it wants.
const SECOND_PORT: u16 = 4_002;

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plot {
    /// The node's port is forwarded and a stranger comes, then it is no more and peers report it;
    /// and, if it is told to the end, the same again while nobody says anything.
    Toggled {
        /// What the router does otherwise.
        kind: Kind,
        /// With what nobody asked for.
        refusal: Refusal,
        /// Whether it is told to the end.
        whole: bool,
    },
    /// The application dials before it listens.
    Early,
    /// Another program has the port.
    Busy,
    /// Servers of which five are unreliable are asked again and again.
    Watched(Odd),
}

/// A plot, and what it is run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Story {
    /// What happens.
    pub plot: Plot,
    /// What the application runs on.
    pub on: On,
}

/// The short ones, one of each kind.
pub fn short() -> impl Iterator<Item = Story> {
    let toggled = |kind, refusal| Plot::Toggled { kind, refusal, whole: false };
    [
        (toggled(EI_APD, Refusal::Reject), On::Tokio),
        (toggled(Kind::Dependent, Refusal::Silent), On::Smol),
        (Plot::Early, On::Smol),
        (Plot::Busy, On::Tokio),
    ]
    .into_iter()
    .map(|(plot, on)| Story { plot, on })
}

/// All of them, whole.
pub fn whole() -> impl Iterator<Item = Story> {
    let toggled = |kind, refusal| Plot::Toggled { kind, refusal, whole: true };
    let plots = [
        toggled(EI_APD, Refusal::Reject),
        toggled(EI_APD, Refusal::Silent),
        toggled(Kind::Dependent, Refusal::Reject),
        Plot::Early,
        Plot::Busy,
        Plot::Watched(Odd::Deaf),
        Plot::Watched(Odd::Scripted(Trick::Deny)),
        Plot::Watched(Odd::Scripted(Trick::Timeout)),
        Plot::Watched(Odd::Scripted(Trick::Refuse)),
    ];
    plots.into_iter().flat_map(|plot| On::ALL.map(|on| Story { plot, on }))
}

const EI_APD: Kind = Kind::Independent(Dependence::AddressAndPort);

impl Plot {
    /// The experiment, as the audit numbers them.
    pub fn experiment(self) -> &'static str {
        match self {
            Plot::Toggled { .. } => "A21",
            Plot::Early | Plot::Busy => "A14",
            Plot::Watched(_) => "A9",
        }
    }

    fn site(self) -> Site {
        match self {
            Plot::Toggled { kind, refusal, .. } => Site::Behind(kind, refusal),
            Plot::Early => {
                Site::Behind(Kind::Independent(Dependence::Independent), Refusal::Reject)
            }
            Plot::Busy | Plot::Watched(_) => Site::Open,
        }
    }

    fn others(self) -> Others {
        match self {
            Plot::Watched(odd) => Others { count: 5, odd },
            Plot::Toggled { .. } | Plot::Early | Plot::Busy => Others::NONE,
        }
    }

    fn servers(self) -> Servers {
        match self {
            Plot::Watched(_) => Servers { count: 2, ..SERVERS },
            Plot::Toggled { .. } | Plot::Early | Plot::Busy => SERVERS,
        }
    }

    fn circumstances(self) -> String {
        match self {
            Plot::Toggled { whole: true, .. } => "forwarded and not, told and untold".into(),
            Plot::Toggled { whole: false, .. } => "forwarded and not".into(),
            Plot::Early => "dials before it listens".into(),
            Plot::Busy => "its port is taken".into(),
            Plot::Watched(_) => format!("{}, {} s", self.others().name(), WATCHED.as_secs()),
        }
    }
}

impl Story {
    /// In a line.
    pub fn name(&self) -> String {
        let Story { plot, on } = self;
        let (site, servers) = (plot.site().name(), plot.servers().name());
        let about = plot.circumstances();
        format!("{} · {site} · {servers} · both · {about} · {}", plot.experiment(), on.name())
    }

    /// Live it once.
    ///
    /// # Errors
    /// If the network cannot be built, or a program fails.
    pub fn run(&self) -> io::Result<Run> {
        let started = Instant::now();
        let mut place = build(self.plot.site(), self.plot.servers().count, Conditions::NONE)?;
        self.plot.others().join(&mut place)?;
        let built_ms = millis(started.elapsed());
        let before = traffic(&place.node)?;
        let world = World::open(self, &place)?;
        let tale = match self.plot {
            Plot::Toggled { kind, refusal, whole } => world.toggled((kind, refusal), whole)?,
            Plot::Early => world.early()?,
            Plot::Busy => world.busy()?,
            Plot::Watched(_) => world.watched()?,
        };
        let after = traffic(&place.node)?;
        Ok(Run {
            cell: self.name(),
            experiment: self.plot.experiment().to_owned(),
            site: self.plot.site().name(),
            servers: self.plot.servers().name(),
            transports: "both".to_owned(),
            circumstances: self.plot.circumstances(),
            runtime: self.on.name().to_owned(),
            said: Vec::new(),
            times: tale.times,
            short: tale.short,
            wrong: tale.wrong,
            verdict_ms: tale.verdict_ms,
            elapsed_ms: millis(started.elapsed()),
            packets: after.0 - before.0,
            bytes: after.1 - before.1,
            built_ms,
            commit: experiments::commit(),
        })
    }
}

/// What came of it.
#[derive(Debug, Default)]
struct Tale {
    /// What was noticed, and how long after it happened, milliseconds.
    times: Vec<(String, u64)>,
    short: Vec<String>,
    wrong: Vec<String>,
    verdict_ms: u64,
}

/// Where it happens.
struct World<'a> {
    story: &'a Story,
    place: &'a Place,
    servers: Vec<Server>,
}

impl<'a> World<'a> {
    fn open(story: &'a Story, place: &'a Place) -> io::Result<World<'a>> {
        let cell = Cell {
            others: story.plot.others(),
            on: story.on,
            ..plan::both(story.plot.site(), story.plot.servers())
        };
        let (mut servers, others) = experiments::serve(&cell, place)?;
        servers.extend(others);
        Ok(World { story, place, servers })
    }

    /// The node's addresses, as the world sees them.
    fn addresses(&self, port: u16) -> [String; 2] {
        Layer::ALL.map(|layer| layer.address(self.place.outside.into(), port))
    }

    fn listen(&self, port: u16) -> Vec<String> {
        Layer::ALL.map(|layer| layer.address(self.place.node.ip4().into(), port)).to_vec()
    }

    fn application(&self, listen: &[String]) -> io::Result<Application> {
        Application::start(&self.place.node, listen, self.story.on)
    }

    /// Dial every server at every address.
    fn dial(&self, application: &mut Application) -> io::Result<()> {
        for addr in self.servers.iter().flat_map(|server| &server.addrs) {
            done(application.order("dial", addr)?)?;
        }
        Ok(())
    }

    /// The port is forwarded and is not, and each time it is found out.
    fn toggled(&self, (kind, refusal): (Kind, Refusal), whole: bool) -> io::Result<Tale> {
        let (closed, open) = (Router::new(kind, refusal), forwarding(kind, refusal));
        let gateway = self.place.gateways.first();
        let gateway = gateway.ok_or_else(|| io::Error::other("there is a router"))?;
        let mut tale = Tale::default();
        let mut node = self.application(&self.listen(PORT))?;
        let addrs = self.addresses(PORT);
        let began = Instant::now();
        self.dial(&mut node)?;
        tale.verdict_ms =
            tale.noticed("found closed", both_become(&mut node, &addrs, CLOSED, (0, began, SOON)));

        let mut told = |tale: &mut Tale, what: &str, state: &str, router: &Router, within| {
            gateway.load(router)?;
            let (from, began) = (node.told.len(), Instant::now());
            match (within, state) {
                (UNTOLD, _) => {}
                (_, OPEN) => tale.check(self.finds_it((&node, PORT), true)?),
                (_, _) => {
                    addrs.iter().try_for_each(|addr| done(node.order("report", addr)?))?;
                }
            }
            let noticed = both_become(&mut node, &addrs, state, (from, began, within));
            tale.noticed(what, noticed);
            tale.check(self.finds_it((&node, PORT), state == OPEN)?);
            io::Result::Ok(())
        };
        // Each observed port is tested, which leaves few questions of a minute for anything else.
        let soon = if kind == Kind::Dependent { SOON_ENOUGH } else { SOON };
        told(&mut tale, "open, a stranger came", OPEN, &open, soon)?;
        told(&mut tale, "closed, peers said so", CLOSED, &closed, soon)?;
        if whole {
            told(&mut tale, "open, untold", OPEN, &open, UNTOLD)?;
            told(&mut tale, "closed, untold", CLOSED, &closed, UNTOLD)?;
        }
        Ok(tale)
    }

    /// A stranger dials the node over both transports: the truth, and a word to the node where he
    /// gets in. He has sockets that no router has seen. An error if it is not as it should be.
    fn finds_it(
        &self,
        (node, port): (&Application, u16),
        open: bool,
    ) -> io::Result<Result<(), String>> {
        let mut stranger = Application::start(&self.place.stranger, &[], self.story.on)?;
        for addr in self.addresses(port) {
            match (stranger.order("dial", &format!("{addr}/p2p/{}", node.peer()))?, open) {
                (Ok(()), true) | (Err(_), false) => {}
                (Ok(()), false) => return Ok(Err(format!("a stranger gets in at {addr}"))),
                (Err(error), true) => return Ok(Err(format!("no stranger gets in: {error}"))),
            }
        }
        Ok(Ok(()))
    }

    /// What was seen of a port that nobody listens on is nobody's address.
    fn early(&self) -> io::Result<Tale> {
        let mut tale = Tale::default();
        let mut node = self.application(&[])?;
        self.dial(&mut node)?;
        for addr in self.listen(PORT) {
            done(node.order("listen", &addr)?)?;
        }
        let (from, began) = (node.told.len(), Instant::now());
        self.dial(&mut node)?;
        let addrs = self.addresses(PORT);
        let noticed = both_become(&mut node, &addrs, OPEN, (from, began, SOON));
        tale.verdict_ms = tale.noticed("found open", noticed);
        tale.check(self.finds_it((&node, PORT), true)?);
        tale.strange_ports(&node, PORT);
        Ok(tale)
    }

    /// The port is taken: it is said, and another one does.
    fn busy(&self) -> io::Result<Tale> {
        let mut tale = Tale::default();
        let at = SocketAddr::new(self.place.node.ip4().into(), PORT);
        let _taken = self
            .place
            .node
            .space
            .inside(|| io::Result::Ok((TcpListener::bind(at)?, UdpSocket::bind(at)?)))?;
        let mut node = self.application(&self.listen(SECOND_PORT))?;
        for addr in self.listen(PORT) {
            match node.order("listen", &addr)? {
                Err(error) if error.contains(&addr) => {}
                Err(error) => tale.short.push(format!("{addr} is not named: {error}")),
                Ok(()) => tale.short.push(format!("{addr} is listened on, though it is taken")),
            }
        }
        let began = Instant::now();
        self.dial(&mut node)?;
        let addrs = self.addresses(SECOND_PORT);
        let noticed = both_become(&mut node, &addrs, OPEN, (0, began, SOON));
        tale.verdict_ms = tale.noticed("found open", noticed);
        tale.check(self.finds_it((&node, SECOND_PORT), true)?);
        tale.strange_ports(&node, SECOND_PORT);
        Ok(tale)
    }

    /// Whatever unreliable servers say, the verdict and the role stay as they are.
    fn watched(&self) -> io::Result<Tale> {
        let mut tale = Tale::default();
        let mut node = self.application(&self.listen(PORT))?;
        let addrs = self.addresses(PORT);
        let began = Instant::now();
        self.dial(&mut node)?;
        let noticed = both_become(&mut node, &addrs, OPEN, (0, began, SOON));
        tale.verdict_ms = tale.noticed("found open", noticed);
        let from = node.told.len();
        // Nothing is waited for but the end of it.
        let watching = Instant::now();
        node.wait(from, WATCHED, |_| false);
        if watching.elapsed() < WATCHED {
            return Err(io::Error::other("the application ended"));
        }
        let left = |event: &&Value| {
            addrs.iter().any(|addr| says(event, addr).is_some_and(|state| state != OPEN))
        };
        let flips = node.told[from..].iter().filter(left).count();
        let roles = node.told.iter().filter(|event| event["event"] == "role").count();
        tale.times.push(("flips".into(), flips as u64));
        let more = (roles as u64).saturating_sub(1);
        tale.times.push(("changes of the role after the first".into(), more));
        if flips > 0 {
            tale.wrong.push(format!("{flips} times it was not reachable any more"));
        }
        if roles != 1 {
            tale.short.push(format!("the role changed {roles} times"));
        }
        tale.check(self.finds_it((&node, PORT), true)?);
        Ok(tale)
    }
}

impl Tale {
    /// Keep what was noticed and how late, or that it was not.
    fn noticed(&mut self, what: &str, after: Result<u64, String>) -> u64 {
        match after {
            Ok(millis) => {
                self.times.push((what.to_owned(), millis));
                millis
            }
            Err(short) => {
                self.short.push(format!("{what}: {short}"));
                0
            }
        }
    }

    /// What a stranger finds has to be so.
    fn check(&mut self, found: Result<(), String>) {
        self.wrong.extend(found.err());
    }

    /// Nobody may take an address with another port for the node's.
    fn strange_ports(&mut self, node: &Application, port: u16) {
        let of_port = |addr: &str| addr.split('/').any(|part| *part == port.to_string());
        let named = node.told.iter().filter(|event| {
            event["event"] == "probe"
                || event["event"] == "candidate"
                || event["event"] == "verdict"
        });
        let odd = named.filter_map(|event| event["addr"].as_str()).find(|addr| !of_port(addr));
        self.short.extend(odd.map(|addr| format!("{addr} was taken for the node's")));
    }
}

/// Wait until both addresses are in a state; how long it took since `began`, and what was short.
fn both_become(
    application: &mut Application,
    addrs: &[String],
    state: &str,
    (from, began, within): (usize, Instant, Duration),
) -> Result<u64, String> {
    let mut last = from;
    for addr in addrs {
        let left = within.saturating_sub(began.elapsed());
        let is = |event: &Value| says(event, addr) == Some(state);
        if application.wait(from, left, is).is_none() {
            return Err(format!("{addr} is not {state} within {} s", within.as_secs()));
        }
        last = last.max(application.told.len());
    }
    for addr in addrs {
        let said = application.told[..last].iter().rev().find_map(|event| says(event, addr));
        if said != Some(state) {
            return Err(format!("{addr} was {state} for a moment only"));
        }
    }
    Ok(millis(began.elapsed()))
}

/// The state that an event gives an address, if it gives it one.
fn says<'a>(event: &'a Value, addr: &str) -> Option<&'a str> {
    let of_addr = event["event"] == "verdict" && event["addr"] == addr;
    event["state"].as_str().filter(|_| of_addr)
}

/// What has to be possible.
fn done(order: Result<(), String>) -> io::Result<()> {
    order.map_err(io::Error::other)
}
