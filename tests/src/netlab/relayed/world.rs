//! Where it happens, and what all stories do there.

use super::stranger::{Stranger, Talks};
use super::tale::Tale;
use super::{Plot, Story};
use crate::netlab::application::Application;
use crate::netlab::cells::{PORT, STRANGER, server_ips};
use crate::netlab::faces::RUST_RELAY;
use crate::netlab::link::Conditions;
use crate::netlab::peers::{self, Server, each};
use crate::netlab::rules::{Kind, Router};
use crate::netlab::{Gateway, Host, Lab};
use portolan_core::Instant;
use portolan_runtime::identity::Keypair;
use portolan_runtime::traits::Timers as _;
use portolan_sim::net::{Dependence, Refusal};
use portolan_smol::Smol;
use serde_json::Value;
use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

/// Where the router is on the Internet.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(44, 100, 0, 1);
/// How long a packet takes from the node to anybody.
const DELAY: Duration = Duration::from_millis(20);
/// How long what takes a second may take before the story is given up.
pub(super) const SOON: Duration = Duration::from_secs(20);
/// How often a stranger talks with the node, ours: a node takes sixty circuits of a relay a minute.
pub(super) const PACE: Duration = Duration::from_millis(1_100);
/// The number of the first relay, by which it has its addresses and its identity.
const FIRST: u8 = 11;

/// What a relay is to be like.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    is_rust: bool,
    /// How it relays.
    options: Vec<String>,
    /// Whether it does not run yet when the node starts.
    is_late: bool,
}

impl Spec {
    pub(super) fn ours(options: &[&str]) -> Spec {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        Spec { is_rust: false, options, is_late: false }
    }

    pub(super) fn rust(options: &[&str]) -> Spec {
        Spec { is_rust: true, ..Spec::ours(options) }
    }

    pub(super) fn late(self) -> Spec {
        Spec { is_late: true, ..self }
    }
}

/// A relay. What runs in a namespace is ended before that is removed.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) program: Option<Application>,
    /// What it listens on, with its peer id.
    pub(super) addrs: Vec<String>,
    spec: Spec,
    number: u8,
    pub(super) host: Host,
}

/// Where it happens.
pub(super) struct World {
    pub(super) story: Story,
    pub(super) servers: Vec<Server>,
    pub(super) relays: Vec<Relay>,
    pub(super) node: Host,
    pub(super) gateway: Gateway,
    /// Hosts of servers that the node never contacts.
    pub(super) distant: Vec<Host>,
    _hosts: Vec<Host>,
    pub(super) stranger: Host,
    _lab: Lab,
}

impl World {
    pub(super) fn open(story: Story) -> io::Result<World> {
        let lab = Lab::new(Conditions { delay: DELAY, loss_percent: 0, seed: 1 })?;
        let kind = match story.plot {
            Plot::Strangers { open: true, .. } => Kind::Independent(Dependence::Independent),
            Plot::Strangers { open: false, .. } => Kind::Independent(Dependence::Address),
            Plot::Home
            | Plot::Lost { .. }
            | Plot::Rebooted
            | Plot::Drained
            | Plot::Refused
            | Plot::Denied
            | Plot::Uplink { .. }
            | Plot::Conformance => Kind::Dependent,
        };
        let gateway = lab.router(OUTSIDE, &Router::new(kind, Refusal::Silent))?;
        let node = gateway.host("node", 7)?;
        let stranger = lab.public("stranger", &STRANGER)?;
        let is_asked = matches!(story.plot, Plot::Strangers { .. });
        let met = if is_asked || story.plot == Plot::Home { 3 } else { 0 };
        let distant = if is_asked { 2 } else { 0 };
        let public = |number| lab.public(&format!("s{number}"), &server_ips(number));
        let hosts = (1..=met).map(public).collect::<io::Result<Vec<Host>>>()?;
        let distant = (met + 1..=met + distant).map(public).collect::<io::Result<Vec<Host>>>()?;
        let relays = (FIRST..).zip(story.plot.relays()).map(|(number, spec)| {
            let host = lab.public(&format!("r{number}"), &server_ips(number))?;
            Ok(Relay { program: None, addrs: Vec::new(), spec, number, host })
        });
        let mut relays = relays.collect::<io::Result<Vec<Relay>>>()?;
        lab.settle()?;
        gateway.settle()?;
        let serve = |host: &Host| peers::serve(host, &listens(story, host.ip4()), &[], story.on);
        let servers = hosts.iter().map(serve).collect::<io::Result<_>>()?;
        for relay in &mut relays {
            relay.addrs = listens(story, relay.host.ip4());
            let id = Keypair::ed25519_from_bytes([relay.number; 32]).map_err(io::Error::other)?;
            let id = id.public().to_peer_id();
            relay.addrs.iter_mut().for_each(|addr| *addr += &format!("/p2p/{id}"));
            if !relay.spec.is_late {
                relay.start(story, &[])?;
            }
        }
        let (_hosts, _lab) = (hosts, lab);
        Ok(World { story, servers, relays, node, gateway, distant, _hosts, stranger, _lab })
    }

    /// Start the node. It knows all relays, and dials these peers.
    pub(super) fn start(&self, dialled: &[String]) -> io::Result<Application> {
        self.start_with(dialled, &[])
    }

    /// Start it with servers behind relays to ask.
    pub(super) fn start_with(
        &self,
        dialled: &[String],
        distant: &[String],
    ) -> io::Result<Application> {
        let relays: Vec<String> =
            self.relays.iter().flat_map(|relay| relay.addrs.iter().cloned()).collect();
        let mut options = each("--relay", &relays);
        options.extend(["--need".to_owned(), "auto".to_owned()]);
        options.extend(each("--peer", dialled));
        options.extend(each("--distant", distant));
        let listen = listens(self.story, Ipv4Addr::UNSPECIFIED);
        Application::start_with(&self.node, &listen, &options, self.story.on)
    }

    /// Start the node, and wait until it has the reservations that it wants.
    pub(super) fn reserved(&self, tale: &mut Tale) -> io::Result<Application> {
        let mut node = self.start(&[])?;
        let first = until(&mut node, 0, SOON, |all| !all.is_empty())?;
        let second = until(&mut node, 0, SOON, |all| relays_of(all).len() == 2)?;
        let began = started(&node);
        tale.figure("from start to the first reservation, ms", first.saturating_sub(began));
        tale.figure("from start to the second, ms", second.saturating_sub(began));
        Ok(node)
    }

    /// Somebody who never met the node.
    pub(super) fn stranger(&self) -> io::Result<Application> {
        let options = ["--need".to_owned(), "never".to_owned()];
        Application::start_with(&self.stranger, &[], &options, self.story.on)
    }

    /// Somebody who talks with the node all the time, once it has answered twice.
    pub(super) fn talking(&self, addrs: Vec<String>, pace: Duration) -> io::Result<Stranger> {
        let stranger = Stranger::talking(self.stranger()?, addrs, pace);
        hears(&stranger, 2)?;
        Ok(stranger)
    }

    /// The relay with this peer id.
    pub(super) fn relay(&mut self, peer: &str) -> io::Result<&mut Relay> {
        let tail = format!("/p2p/{peer}");
        let mut all = self.relays.iter_mut();
        let found = all.find(|relay| relay.addrs.iter().any(|addr| addr.ends_with(&tail)));
        found.ok_or_else(|| io::Error::other(format!("{peer} is none of the relays")))
    }
}

impl Relay {
    /// Let it run, with further options.
    pub(super) fn start(&mut self, story: Story, more: &[String]) -> io::Result<()> {
        let listen = listens(story, self.host.ip4());
        let options = self.spec.options.iter().chain(more).cloned();
        let program = if self.spec.is_rust {
            let args: Vec<String> = each("--listen", &listen).into_iter().chain(options).collect();
            Application::launch(&self.host, RUST_RELAY, &args)?
        } else {
            let seed = ["--seed".to_owned(), self.number.to_string()];
            let options: Vec<String> = options.chain(seed).collect();
            Application::start_with(&self.host, &listen, &options, story.on)?
        };
        self.addrs = program.addrs();
        self.program = Some(program);
        Ok(())
    }

    /// Its peer id.
    pub(super) fn peer(&self) -> &str {
        self.addrs.first().and_then(|addr| addr.rsplit('/').next()).unwrap_or_default()
    }

    /// What runs there.
    pub(super) fn running(&mut self) -> io::Result<&mut Application> {
        self.program.as_mut().ok_or_else(|| io::Error::other("the relay does not run"))
    }
}

/// What is listened on at an address.
pub(super) fn listens(story: Story, ip: Ipv4Addr) -> Vec<String> {
    let layers = story.transports.layers().iter();
    layers.map(|layer| layer.address(IpAddr::V4(ip), PORT)).collect()
}

/// The moment on the clock of everything that runs here, milliseconds.
pub(super) fn now() -> u64 {
    let clock = Smol::from(Arc::new(smol::Executor::new()));
    let since = clock.now().since(Instant::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// When the node was started.
pub(super) fn started(node: &Application) -> u64 {
    let ready = node.told.iter().find(|event| event["event"] == "ready");
    ready.map_or(0, at)
}

/// When something was told.
pub(super) fn at(event: &Value) -> u64 {
    event["at_ms"].as_u64().unwrap_or_default()
}

/// The relay in a circuit address.
pub(super) fn relay_of(addr: &str) -> &str {
    let through = addr.split("/p2p-circuit").next().unwrap_or_default();
    through.rsplit('/').next().unwrap_or_default()
}

/// The relays of some circuit addresses, each once.
pub(super) fn relays_of(addrs: &[String]) -> Vec<String> {
    let mut relays: Vec<String> = Vec::new();
    for relay in addrs.iter().map(|addr| relay_of(addr).to_owned()) {
        if !relays.contains(&relay) {
            relays.push(relay);
        }
    }
    relays
}

/// Take up what the node has told meanwhile.
pub(super) fn listen(node: &mut Application) {
    let from = node.told.len();
    let _ = node.wait(from, Duration::ZERO, |_| false);
}

/// The circuit addresses that the node tells.
pub(super) fn circuits(node: &Application) -> Vec<String> {
    let mut all = Vec::new();
    node.told.iter().for_each(|event| apply(&mut all, event));
    all
}

fn apply(all: &mut Vec<String>, event: &Value) {
    let texts = |field: &str| {
        let texts = event[field].as_array().into_iter().flatten();
        texts.filter_map(|text| text.as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    if event["event"] == "circuits" {
        let removed = texts("removed");
        all.retain(|addr| !removed.contains(addr));
        all.extend(texts("added"));
    }
}

/// Wait until this holds of the circuit addresses that the node tells, after an event; and say when
/// that was.
pub(super) fn until(
    node: &mut Application,
    from: usize,
    within: Duration,
    holds: impl Fn(&[String]) -> bool,
) -> io::Result<u64> {
    let deadline = std::time::Instant::now() + within;
    loop {
        let mut all = Vec::new();
        for (number, event) in node.told.iter().enumerate() {
            apply(&mut all, event);
            if number >= from && event["event"] == "circuits" && holds(&all) {
                return Ok(at(event));
            }
        }
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let next = node.told.len();
        if node.wait(next, left, |event| event["event"] == "circuits").is_none() {
            return Err(stuck(&format!("not within {} s", within.as_secs()), node));
        }
    }
}

/// Wait until somebody was answered so many times.
pub(super) fn hears(stranger: &Stranger, count: u64) -> io::Result<()> {
    let deadline = std::time::Instant::now() + SOON;
    while stranger.answered() < count {
        if std::time::Instant::now() > deadline {
            return Err(io::Error::other("a stranger is not answered"));
        }
        // sleep: between two looks at what another thread does.
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Write down that somebody was always answered.
pub(super) fn always(tale: &mut Tale, what: &str, talks: &Talks) {
    tale.figure(&format!("{what}: answered"), talks.answered);
    tale.figure(&format!("{what}: failures"), talks.failed.len() as u64);
    tale.figure(&format!("{what}: the longest, ms"), talks.most_ms);
    tale.expect(talks.failed.is_empty(), || format!("{what}: {}", talks.failed.join(", ")));
}

/// What did not come, and what came.
pub(super) fn stuck(what: &str, node: &Application) -> io::Error {
    let mut said = what.to_owned();
    for event in &node.told {
        let _ = write!(said, "\n  {event}");
    }
    io::Error::other(said)
}
