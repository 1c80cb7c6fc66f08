//! Building a node.

use super::address;
use super::error::{ListenError, StartError};
use super::notices::{Hub, Notices};
use super::stream::{AcceptError, Doors, Incoming};
use super::{Inner, Node};
use crate::driver::{
    COMMANDS_MAX, Chance, Common, Driver, Facts, Inputs, KeySigner, Limits, Mapping, Parts, Start,
};
use crate::ledger::Ledger;
use crate::names::{NamesConfig, Resolver};
use crate::net::{Arrival, Listening, Net, NetConfig};
use crate::record::{Record, Recording};
use crate::routers::Routers;
use crate::traits::Runtime;
use async_channel::Receiver;
use futures::FutureExt;
use libp2p_identity::Keypair;
use multiaddr::Multiaddr;
use portolan_core::{Addr, Agent, Config, Protocol};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// A node about to start.
#[derive(Debug)]
#[must_use = "a builder does nothing until it is started"]
pub struct Builder<R: Runtime> {
    runtime: R,
    keypair: Keypair,
    config: Config,
    limits: Limits,
    net: NetConfig,
    listen: Vec<Multiaddr>,
    recording: Option<Recording>,
    ledger: Option<PathBuf>,
    names: NamesConfig,
    contacted: Vec<IpAddr>,
    hub: Arc<Hub>,
    doors: Arc<Doors>,
}

impl<R: Runtime> Builder<R> {
    /// A node that runs on `runtime` and is known by `keypair`.
    pub fn new(runtime: R, keypair: Keypair) -> Builder<R> {
        Builder {
            runtime,
            keypair,
            config: Config::default(),
            limits: Limits::default(),
            net: NetConfig::default(),
            listen: Vec::new(),
            recording: None,
            ledger: None,
            names: NamesConfig::default(),
            contacted: Vec::new(),
            hub: Arc::default(),
            doors: Arc::default(),
        }
    }

    /// How the node judges and serves. Replaces what was set before.
    pub fn config(mut self, config: Config) -> Builder<R> {
        self.config = config;
        self
    }

    /// What the node admits.
    pub fn limits(mut self, limits: Limits) -> Builder<R> {
        self.limits = limits;
        self
    }

    /// How the connection stack behaves.
    pub fn net(mut self, net: NetConfig) -> Builder<R> {
        self.net = net;
        self
    }

    /// Listen on this address (`/ip4|ip6/IP/tcp/PORT` or `/ip4|ip6/IP/udp/PORT/quic-v1`; port 0
    /// leaves the choice to the kernel). Can be said repeatedly.
    pub fn listen(mut self, addr: Multiaddr) -> Builder<R> {
        self.listen.push(addr);
        self
    }

    /// Use this IP as a source of dial-backs, which turns the dial-back service on. Such an IP
    /// should not be listened on. Can be said repeatedly; best once for each family.
    pub fn dial_from(mut self, ip: IpAddr) -> Builder<R> {
        self.config.dial_back.get_or_insert_default().sources.push(ip.to_canonical());
        self
    }

    /// Write down all that core is told, so that it can be told again: see [`Recording`]. Should
    /// writing fail later, the node goes on without.
    pub fn record(mut self, recording: Recording) -> Builder<R> {
        self.recording = Some(recording);
        self
    }

    /// Keep the ledger of port mappings in this file, so that a later run renews or deletes what
    /// this one leaves behind, also after a crash. It holds the secrets for that, and is readable by
    /// its owner only; `FILE.lock` beside it is locked while the node runs. Without a file the
    /// ledger is forgotten; without [`Config::mapping`] nothing is mapped, and the file is not touched.
    pub fn ledger(mut self, path: impl Into<PathBuf>) -> Builder<R> {
        self.ledger = Some(path.into());
        self
    }

    /// How names in addresses are resolved. Replaces what was set before.
    pub fn names(mut self, config: NamesConfig) -> Builder<R> {
        self.names = config;
        self
    }

    /// These IPs were sent to from this host before the node started, by whatever program: that
    /// they get in shows nothing about strangers. Can be said repeatedly.
    pub fn contacted(mut self, ips: impl IntoIterator<Item = IpAddr>) -> Builder<R> {
        self.contacted.extend(ips.into_iter().map(|ip| ip.to_canonical()));
        self
    }

    /// Accept inbound streams of an application protocol, and list it in identify.
    ///
    /// # Errors
    /// If the name cannot be one, or is taken.
    pub fn accept(&mut self, protocol: &str) -> Result<Incoming, AcceptError> {
        self.doors.open(protocol, self.limits.incoming_max)
    }

    /// A subscription that misses nothing from the first notice on.
    pub fn notices(&self) -> Notices {
        self.hub.subscribe()
    }

    /// Start the node. When this returns, every listener stands, in the order in which they were
    /// named. Must be called where the runtime can spawn tasks.
    ///
    /// # Errors
    /// If the configuration makes no sense, or an address cannot be listened on; then nothing
    /// stays behind.
    pub async fn start(self) -> Result<Node<R>, StartError> {
        let (net, arrivals) = Net::new(self.runtime.clone(), &self.keypair, self.net.clone())?;
        let begun = self.begin(&net, arrivals);
        if begun.is_err() {
            // What stands already is closed when the caller hears of it.
            net.shutdown().await;
        }
        begun
    }

    /// All that needs no waiting, out of the way of the future above: that stays small.
    fn begin(self, net: &Net<R>, arrivals: Receiver<Arrival>) -> Result<Node<R>, StartError> {
        let Builder { runtime, keypair, limits, hub, doors, .. } = self;
        let config = naming(self.config, &doors);
        let served: Arc<[Protocol]> = served(&config).collect();
        let maps = config.mapping.is_some();
        let (relays, punches) = (config.relay.is_some(), config.punch.is_some());
        let agent = Agent::new(config, keypair.public())?;
        let peer = agent.peer_id();
        let ledger = self.ledger.filter(|_| maps).map(Ledger::open).transpose()?;
        let (ledger, read) = ledger.unzip();
        let mut chance = Chance::new().map_err(StartError::NoRandomness)?;
        let listening = listen_on(net, &self.listen)?;
        let begin = |recording| {
            Record::start(recording, chance.key(), &agent, (runtime.now(), runtime.unix()))
        };
        let record = self.recording.map(begin).transpose()?;
        let (facts, facts_in) = Facts::channel();
        let common = Common {
            runtime: runtime.clone(),
            limits,
            facts,
            doors: doors.clone(),
            served,
            numbers: Arc::default(),
        };
        let signer = KeySigner(keypair);
        let parts = Parts {
            net: net.clone(),
            agent,
            chance,
            signer,
            record,
            common,
            hub: hub.clone(),
            relays,
            punches,
        };
        let (commands, commands_in) = async_channel::bounded(COMMANDS_MAX);
        let (routers, news) = Routers::new(runtime.clone());
        let mapping = Mapping::new(routers, maps, ledger);
        let inputs = Inputs { facts: facts_in, arrivals, commands: commands_in, news };
        let driver = Driver::new(parts, mapping);
        let start = Start { listening, ledger: read.flatten(), contacted: self.contacted };
        runtime.spawn(driver.run(inputs, start).boxed());
        let resolver = Resolver::new(runtime.clone(), self.names);
        Ok(Node(Arc::new(Inner { runtime, peer, commands, hub, doors, limits, resolver })))
    }
}

/// The configuration with the application's protocols in it, which identify lists.
fn naming(mut config: Config, doors: &Doors) -> Config {
    for name in doors.names() {
        if !config.protocols.contains(&name) {
            config.protocols.push(name);
        }
    }
    config
}

/// The protocols of core's that peers may open streams of.
fn served(config: &Config) -> impl Iterator<Item = Protocol> {
    let (identify, dial_back) = (config.identify, config.dial_back.is_some());
    let (relay, relay_server) = (config.relay.is_some(), config.relay_server.is_some());
    let punch = config.punch.is_some();
    Protocol::ALL.into_iter().filter(move |protocol| match protocol {
        Protocol::Identify | Protocol::IdentifyPush => identify,
        Protocol::Ping | Protocol::DialBack => true,
        Protocol::DialRequest | Protocol::AutonatV1 => dial_back,
        Protocol::Hop => relay_server,
        Protocol::Stop => relay,
        Protocol::Punch => punch,
    })
}

fn listen_on<R: Runtime>(net: &Net<R>, addrs: &[Multiaddr]) -> Result<Vec<Listening>, ListenError> {
    addrs.iter().map(|addr| Ok(net.listen(listenable(addr)?)?)).collect()
}

/// The transport address in a multiaddr that is to be listened on.
pub(super) fn listenable(addr: &Multiaddr) -> Result<Addr, ListenError> {
    let refuse = |error| ListenError::Address { addr: addr.clone(), error };
    address::listen_address(addr).map_err(refuse)
}
