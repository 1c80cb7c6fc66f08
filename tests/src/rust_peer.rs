//! A peer that nobody here wrote: a rust-libp2p swarm out of the published crate, on tokio.
//!
//! It speaks TCP (Noise or TLS, Yamux) and QUIC, identify and ping, and on request AutoNAT v2 as
//! server or as client, relaying as either, and hole punching. Everything it sees goes into a log that tests wait
//! on. Streams of any protocol can be opened and accepted by hand; the scripted servers are made of that.

use crate::raw_streams::{self, Inbound, Opener};
use crate::rust_hearsay;
use crate::rust_relay::{self, RelaySeen, RustRelayConfig};
use futures::StreamExt as _;
use libp2p::autonat::{v1, v2 as autonat};
use libp2p::core::ConnectedPoint;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{NetworkBehaviour, StreamProtocol, SwarmEvent};
use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder, dcutr, identify, noise, ping, relay, tcp, tls, yamux,
};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How long a swarm may take to bind its sockets.
const START_WITHIN: Duration = Duration::from_secs(10);
/// No connection of a test is closed because nobody uses it.
const IDLE_FOR: Duration = Duration::from_secs(120);

/// The type of an identity key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyType {
    /// What nearly everybody uses.
    #[default]
    Ed25519,
    /// NIST P-256.
    Ecdsa,
    /// The curve of Bitcoin and Ethereum.
    Secp256k1,
    /// 2,048 bits, from a fixture.
    Rsa,
}

impl KeyType {
    /// Every type, in order.
    pub const ALL: [KeyType; 4] =
        [KeyType::Ed25519, KeyType::Ecdsa, KeyType::Secp256k1, KeyType::Rsa];

    /// A key of this type for the one side of a test; a fresh one but for RSA, whose key is always
    /// the same.
    pub fn generate(self) -> Keypair {
        self.fresh_or(include_bytes!("../interop/rsa-2048.pk8"))
    }

    /// A key of this type for the other side.
    pub fn generate_second(self) -> Keypair {
        self.fresh_or(include_bytes!("../interop/rsa-2048-second.pk8"))
    }

    fn fresh_or(self, rsa: &[u8]) -> Keypair {
        match self {
            KeyType::Ed25519 => Keypair::generate_ed25519(),
            KeyType::Ecdsa => Keypair::generate_ecdsa(),
            KeyType::Secp256k1 => Keypair::generate_secp256k1(),
            KeyType::Rsa => {
                Keypair::rsa_from_pkcs8(&mut rsa.to_vec()).expect("the fixture is an RSA key")
            }
        }
    }

    /// The word in tables: `ed25519`, `ecdsa`, `secp256k1`, `rsa`.
    pub const fn name(self) -> &'static str {
        match self {
            KeyType::Ed25519 => "ed25519",
            KeyType::Ecdsa => "ecdsa",
            KeyType::Secp256k1 => "secp256k1",
            KeyType::Rsa => "rsa",
        }
    }
}

/// What secures TCP connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Security {
    /// Noise XX.
    #[default]
    Noise,
    /// TLS 1.3 with libp2p certificates.
    Tls,
}

/// What a rust-libp2p peer is like.
#[derive(Clone, Debug, Default)]
pub struct RustPeerConfig {
    /// The type of its identity.
    pub key: KeyType,
    /// What it secures TCP with.
    pub security: Security,
    /// What it listens on.
    pub listen: Vec<Multiaddr>,
    /// Whether it is an AutoNAT v2 server.
    pub server: bool,
    /// Whether it is an AutoNAT v2 client, and how often that looks for something to probe
    /// (rust-libp2p's default: 5 s).
    pub client: Option<Duration>,
    /// Whether it speaks AutoNAT v1, both roles.
    pub hearsay: bool,
    /// An address that it has tested beside those that it listens on, by AutoNAT v1.
    pub candidate: Option<Multiaddr>,
    /// Protocols whose inbound streams [`RustPeer::inbound`] hands out.
    pub accept: Vec<StreamProtocol>,
    /// Whether it is a relay, at what it listens on, and what it allows a circuit.
    pub relay: Option<RustRelayConfig>,
    /// Whether it can reserve at relays and dial through them.
    pub relay_client: bool,
    /// Whether it makes direct connections out of relayed ones.
    pub punch: bool,
}

/// Something that a peer saw.
#[derive(Clone, Debug)]
pub enum Seen {
    /// It listens.
    Listening(Multiaddr),
    /// A connection finished its handshakes.
    Connected {
        /// The other side.
        peer: PeerId,
        /// Its address.
        remote: Multiaddr,
        /// Whether we dialled.
        dialled: bool,
        /// Whether it leads through a relay.
        relayed: bool,
    },
    /// A dial failed.
    DialFailed(String),
    /// A connection ended.
    Disconnected {
        /// The other side.
        peer: PeerId,
        /// Why, if it was an error.
        cause: Option<String>,
    },
    /// A peer described itself.
    Identified {
        /// The peer.
        peer: PeerId,
        /// What it said.
        info: Box<identify::Info>,
    },
    /// A peer could not be identified.
    IdentifyFailed {
        /// The peer.
        peer: PeerId,
        /// Why.
        error: String,
    },
    /// A peer answered a ping, or failed to.
    Pinged {
        /// The peer.
        peer: PeerId,
        /// The round-trip time, or what went wrong.
        result: Result<Duration, String>,
    },
    /// It dialled somebody back.
    Served {
        /// Who asked.
        client: PeerId,
        /// What was dialled.
        addr: Multiaddr,
        /// The dial data that it asked for and got, in bytes.
        dial_data: usize,
        /// Whether its answer was delivered. It says nothing about the dial.
        answered: Result<(), String>,
    },
    /// It was dialled back, or not.
    Probed {
        /// The server asked.
        server: PeerId,
        /// The address tested.
        addr: Multiaddr,
        /// The dial data that it sent, in bytes.
        dial_data: usize,
        /// Whether the address is reachable.
        result: Result<(), String>,
    },
    /// An AutoNAT v1 server told where it got through, or why it did not.
    Told {
        /// The server asked.
        server: PeerId,
        /// The address at which it got through, without `/p2p/`, or what it said instead.
        result: Result<Multiaddr, String>,
    },
    /// It takes an address for one that may be its own.
    Candidate(Multiaddr),
    /// It took an address for its own: after a dial-back, or at a relay.
    Confirmed(Multiaddr),
    /// A listener ended, as that of a reservation does when there is none.
    ListenerClosed(String),
    /// Something about relays.
    Relay(RelaySeen),
    /// What became of a hole that it punched.
    Punched {
        /// The other side.
        peer: PeerId,
        /// Whether there is a direct connection.
        result: Result<(), String>,
    },
}

impl Seen {
    /// What this peer said about itself, if this is that.
    pub fn described(&self, by: PeerId) -> Option<&identify::Info> {
        let Seen::Identified { peer, info } = self else { return None };
        (*peer == by).then_some(info)
    }

    /// How a ping of this peer ended, if this is that.
    pub fn pinged(&self, whom: PeerId) -> Option<Result<Duration, String>> {
        let Seen::Pinged { peer, result } = self else { return None };
        (*peer == whom).then(|| result.clone())
    }

    /// How a dial of this peer ended, if this is that. A failure names no peer.
    pub fn dialled(&self, whom: PeerId) -> Option<Result<(), String>> {
        if let Seen::DialFailed(error) = self {
            return Some(Err(error.clone()));
        }
        let Seen::Connected { peer, dialled: true, .. } = self else { return None };
        (*peer == whom).then_some(Ok(()))
    }
}

/// A running rust-libp2p peer. Dropping it stops it.
#[derive(Debug)]
pub struct RustPeer {
    /// Its peer id.
    pub id: PeerId,
    /// What it listens on, without `/p2p/`, in the order of its configuration.
    pub addrs: Vec<Multiaddr>,
    log: watch::Receiver<Vec<Seen>>,
    forgotten: usize,
    orders: mpsc::Sender<Order>,
    opener: Opener,
    inbound: Option<mpsc::UnboundedReceiver<Inbound>>,
    task: tokio::task::JoinHandle<()>,
}

enum Order {
    Dial { addr: Multiaddr, fresh_port: bool },
    Disconnect(PeerId),
    Listen(Multiaddr),
}

impl RustPeer {
    /// Start a peer and wait until it listens on all that it should.
    pub async fn start(config: RustPeerConfig) -> RustPeer {
        let (streams, opener, inbound) = raw_streams::Behaviour::new(config.accept.clone());
        let mut swarm = build(&config, streams);
        let id = *swarm.local_peer_id();
        let mut addrs = Vec::new();
        for addr in &config.listen {
            swarm.listen_on(addr.clone()).expect("the address is one of ours");
            // One after the other, so that the addresses keep the order of the configuration.
            addrs.push(
                tokio::time::timeout(START_WITHIN, listening(&mut swarm))
                    .await
                    .expect("a loopback socket is bound in time"),
            );
        }
        if config.relay.is_some() {
            // A relay tells those who reserve of its external addresses alone.
            addrs.iter().for_each(|addr: &Multiaddr| swarm.add_external_address(addr.clone()));
        }
        let (orders, inbox) = mpsc::channel(16);
        let (log_writer, log) = watch::channel(Vec::new());
        let task = tokio::spawn(run(swarm, inbox, log_writer));
        RustPeer { id, addrs, log, forgotten: 0, orders, opener, inbound: Some(inbound), task }
    }

    /// Its addresses with `/p2p/`, for somebody who dials it.
    pub fn full_addrs(&self) -> Vec<Multiaddr> {
        self.addrs.iter().map(|addr| addr.clone().with(Protocol::P2p(self.id))).collect()
    }

    /// Dial an address, from the listen port where the transport can. What becomes of it is
    /// [`Seen::Connected`] or [`Seen::DialFailed`].
    pub async fn dial(&self, addr: Multiaddr) {
        self.order(Order::Dial { addr, fresh_port: false }).await;
    }

    /// Dial an address from a port that nothing listens on.
    pub async fn dial_from_fresh_port(&self, addr: Multiaddr) {
        self.order(Order::Dial { addr, fresh_port: true }).await;
    }

    /// Reserve at the relay at this address, which ends with `/p2p/`. What becomes of it is
    /// [`RelaySeen::Reserved`] or [`Seen::ListenerClosed`].
    pub async fn reserve(&self, relay: Multiaddr) {
        self.order(Order::Listen(relay.with(Protocol::P2pCircuit))).await;
    }

    /// Close every connection to a peer.
    pub async fn disconnect(&self, peer: PeerId) {
        self.order(Order::Disconnect(peer)).await;
    }

    async fn order(&self, order: Order) {
        self.orders.send(order).await.expect("the swarm runs as long as this value lives");
    }

    /// The means to open streams of any protocol.
    pub fn opener(&self) -> Opener {
        self.opener.clone()
    }

    /// The streams of the accepted protocols, from the first on. Only the first caller gets them.
    pub fn inbound(&mut self) -> Option<mpsc::UnboundedReceiver<Inbound>> {
        self.inbound.take()
    }

    /// Forget what was seen so far: waits begin here.
    pub fn forget(&mut self) {
        self.forgotten = self.log.borrow().len();
    }

    /// Wait until `pick` finds what it looks for in the log, from its beginning. The error names
    /// `what` and shows the log.
    pub async fn wait<T>(
        &self,
        what: &str,
        within: Duration,
        mut pick: impl FnMut(&Seen) -> Option<T>,
    ) -> Result<T, String> {
        let mut log = self.log.clone();
        let mut found = None;
        let search = log.wait_for(|seen| {
            found = seen.iter().skip(self.forgotten).find_map(&mut pick);
            found.is_some()
        });
        let ended = tokio::time::timeout(within, search).await.is_ok_and(|waited| waited.is_ok());
        found.filter(|_| ended).ok_or_else(|| {
            format!("rust-libp2p saw no {what} within {within:?}, only {:#?}", self.seen())
        })
    }

    /// The next thing that it sees, which is forgotten with it. None comes after it has stopped.
    pub async fn next(&mut self) -> Option<Seen> {
        let at = self.forgotten;
        let next = self.log.wait_for(|seen| seen.len() > at).await.ok()?.get(at).cloned();
        self.forgotten += 1;
        next
    }

    /// Everything seen so far, oldest first.
    pub fn seen(&self) -> Vec<Seen> {
        self.log.borrow().iter().skip(self.forgotten).cloned().collect()
    }
}

impl Drop for RustPeer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    server: Toggle<autonat::server::Behaviour>,
    client: Toggle<autonat::client::Behaviour>,
    hearsay: Toggle<v1::Behaviour>,
    relay: Toggle<relay::Behaviour>,
    relay_client: Toggle<relay::client::Behaviour>,
    punch: Toggle<dcutr::Behaviour>,
    streams: raw_streams::Behaviour,
}

fn build(config: &RustPeerConfig, streams: raw_streams::Behaviour) -> Swarm<Behaviour> {
    // The builder's type differs by what secures TCP, and cannot be named.
    macro_rules! swarm {
        ($security:expr) => {
            SwarmBuilder::with_existing_identity(config.key.generate())
                .with_tokio()
                .with_tcp(tcp::Config::default(), $security, yamux::Config::default)
                .expect("the key can sign")
                .with_quic()
                .with_relay_client(noise::Config::new, yamux::Config::default)
                .expect("the key can sign")
                .with_behaviour(|key, relays| behaviour(key, config, relays, streams))
                .expect("no part of it can fail")
                .with_swarm_config(|swarm| swarm.with_idle_connection_timeout(IDLE_FOR))
                .build()
        };
    }
    match config.security {
        Security::Noise => swarm!(noise::Config::new),
        Security::Tls => swarm!(tls::Config::new),
    }
}

fn behaviour(
    key: &Keypair,
    config: &RustPeerConfig,
    relays: relay::client::Behaviour,
    streams: raw_streams::Behaviour,
) -> Behaviour {
    let described = identify::Config::new_with_signed_peer_record("ipfs/0.1.0".into(), key);
    let id = key.public().to_peer_id();
    Behaviour {
        identify: identify::Behaviour::new(described),
        ping: ping::Behaviour::default(),
        server: config.server.then(autonat::server::Behaviour::default).into(),
        client: config.client.map(client_behaviour).into(),
        hearsay: config
            .hearsay
            .then(|| rust_hearsay::behaviour(id, config.candidate.clone()))
            .into(),
        relay: config.relay.map(|relay| relay.behaviour(id)).into(),
        relay_client: config.relay_client.then_some(relays).into(),
        punch: config.punch.then(|| dcutr::Behaviour::new(id)).into(),
        streams,
    }
}

fn client_behaviour(probe_every: Duration) -> autonat::client::Behaviour {
    let config = autonat::client::Config::default().with_probe_interval(probe_every);
    autonat::client::Behaviour::new(rand::make_rng(), config)
}

async fn listening(swarm: &mut Swarm<Behaviour>) -> Multiaddr {
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            return address;
        }
    }
}

async fn run(
    mut swarm: Swarm<Behaviour>,
    mut orders: mpsc::Receiver<Order>,
    log: watch::Sender<Vec<Seen>>,
) {
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(order) => obey(&mut swarm, order, &log),
                None => return,
            },
            event = swarm.select_next_some() => {
                if let Some(seen) = translate(event) {
                    log.send_modify(|log| log.push(seen));
                }
            }
        }
    }
}

fn obey(swarm: &mut Swarm<Behaviour>, order: Order, log: &watch::Sender<Vec<Seen>>) {
    match order {
        Order::Dial { addr, fresh_port } => {
            if let Err(error) = swarm.dial(dial_options(addr, fresh_port)) {
                log.send_modify(|log| log.push(Seen::DialFailed(error.to_string())));
            }
        }
        Order::Listen(addr) => {
            if let Err(error) = swarm.listen_on(addr) {
                log.send_modify(|log| log.push(Seen::ListenerClosed(error.to_string())));
            }
        }
        Order::Disconnect(peer) => {
            // A peer that is gone already is what was asked for.
            let _gone = swarm.disconnect_peer_id(peer);
        }
    }
}

fn dial_options(addr: Multiaddr, fresh_port: bool) -> DialOpts {
    // The last: of a circuit's address it is the target, and not the relay.
    let peer = addr.iter().filter_map(|part| {
        let Protocol::P2p(peer) = part else { return None };
        Some(peer)
    });
    let peer = peer.last();
    match (peer, fresh_port) {
        (Some(peer), false) => {
            DialOpts::peer_id(peer).condition(PeerCondition::Always).addresses(vec![addr]).build()
        }
        (Some(peer), true) => DialOpts::peer_id(peer)
            .condition(PeerCondition::Always)
            .addresses(vec![addr])
            .allocate_new_port()
            .build(),
        (None, false) => DialOpts::unknown_peer_id().address(addr).build(),
        (None, true) => DialOpts::unknown_peer_id().address(addr).allocate_new_port().build(),
    }
}

#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "a swarm reports much that no test asks about, and its enums grow"
)]
fn translate(event: SwarmEvent<BehaviourEvent>) -> Option<Seen> {
    let seen = match event {
        SwarmEvent::NewListenAddr { address, .. } => Seen::Listening(address),
        SwarmEvent::ConnectionEstablished { peer_id, endpoint, .. } => connected(peer_id, endpoint),
        SwarmEvent::ConnectionClosed { peer_id, cause, .. } => {
            Seen::Disconnected { peer: peer_id, cause: cause.map(|cause| cause.to_string()) }
        }
        SwarmEvent::OutgoingConnectionError { error, .. } => Seen::DialFailed(causes(&error)),
        SwarmEvent::NewExternalAddrCandidate { address } => Seen::Candidate(address),
        SwarmEvent::ExternalAddrConfirmed { address } => Seen::Confirmed(address),
        SwarmEvent::ListenerClosed { reason: Err(error), .. } => {
            Seen::ListenerClosed(causes(&error))
        }
        SwarmEvent::Behaviour(event) => return of_behaviour(event),
        _ => return None,
    };
    Some(seen)
}

fn connected(peer: PeerId, endpoint: ConnectedPoint) -> Seen {
    let relayed = endpoint.is_relayed();
    match endpoint {
        ConnectedPoint::Dialer { address, .. } => {
            Seen::Connected { peer, remote: address, dialled: true, relayed }
        }
        ConnectedPoint::Listener { send_back_addr, .. } => {
            Seen::Connected { peer, remote: send_back_addr, dialled: false, relayed }
        }
    }
}

/// An error with all that caused it.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

fn of_behaviour(event: BehaviourEvent) -> Option<Seen> {
    let seen = match event {
        BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
            Seen::Identified { peer: peer_id, info: Box::new(info) }
        }
        BehaviourEvent::Identify(identify::Event::Error { peer_id, error, .. }) => {
            Seen::IdentifyFailed { peer: peer_id, error: error.to_string() }
        }
        BehaviourEvent::Identify(identify::Event::Sent { .. } | identify::Event::Pushed { .. }) => {
            return None;
        }
        BehaviourEvent::Ping(event) => Seen::Pinged {
            peer: event.peer,
            result: event.result.map_err(|failure| failure.to_string()),
        },
        BehaviourEvent::Server(event) => Seen::Served {
            client: event.client,
            addr: event.tested_addr,
            dial_data: event.data_amount,
            answered: event.result.map_err(|error| error.to_string()),
        },
        BehaviourEvent::Client(event) => Seen::Probed {
            server: event.server,
            addr: event.tested_addr,
            dial_data: event.bytes_sent,
            result: event.result.map_err(|error| error.to_string()),
        },
        BehaviourEvent::Hearsay(v1::Event::OutboundProbe(event)) => rust_hearsay::told(event)?,
        BehaviourEvent::Hearsay(_) => return None,
        BehaviourEvent::Relay(event) => Seen::Relay(rust_relay::of_relay(event)?),
        BehaviourEvent::RelayClient(event) => Seen::Relay(rust_relay::of_client(event)),
        BehaviourEvent::Punch(event) => Seen::Punched {
            peer: event.remote_peer_id,
            result: event.result.map(drop).map_err(|error| causes(&error)),
        },
        BehaviourEvent::Streams(never) => match never {},
    };
    Some(seen)
}
