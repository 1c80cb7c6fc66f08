//! A node: the unchanged core on a host, with its sockets, its application and its chance.

use super::circuit::Call;
use super::conn::{Costs, EndId};
use super::punch::Punch;
use super::relay::RelayMood;
use super::vice::{Request, Vice};
use crate::dice::Dice;
use crate::net::HostId;
use crate::relays::Relays;
use crate::router::host::Sockets;
use bytes::Bytes;
use libp2p_identity::Keypair;
use portolan_core::transcript::{Names, Scribe};
use portolan_core::{
    Addr, Agent, CircuitId, Class, Config, ConfigError, ConnId, Event, Family, Instant, ListenerId,
    PeerId, Protocol, PunchId, Signer, StreamId, Transport, UnixTime,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::LazyLock;

/// Nodes that a world can have, number; their keys are made once.
pub const NODES_MAX: usize = 512;
/// Nodes whose keys were made before there could be more, number: they keep them.
const NODES_FIRST: usize = 96;
/// The wall clock when a world begins.
const UNIX_START_MS: u64 = 1_700_000_000_000;
/// The first port that is not listened on.
const EPHEMERAL_MIN: u16 = 40_000;

static KEYS: LazyLock<Vec<Keypair>> = LazyLock::new(|| {
    // Two for each node: see `keys_of`.
    let key = |n: usize| {
        let mut seed = [0x5a; 32];
        seed[..8].copy_from_slice(&n.to_le_bytes());
        Keypair::ed25519_from_bytes(seed).expect("any 32 bytes are a key")
    };
    (0..2 * NODES_MAX).map(key).collect()
});

/// The places of a node's own key and of that of its dial-backs.
const fn keys_of(number: usize) -> [usize; 2] {
    if number < NODES_FIRST { [number, NODES_FIRST + number] } else { [2 * number, 2 * number + 1] }
}

/// A node of the world, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub usize);

/// What a node is to be.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Its name in transcripts.
    pub name: String,
    /// Where it runs.
    pub host: HostId,
    /// The configuration of its core.
    pub core: Config,
    /// What it listens on; an IP may be a wildcard.
    pub listen: Vec<Addr>,
    /// What is wrong with it as a server, if anything is.
    pub vice: Option<Vice>,
    /// What its handshakes cost, where it dials.
    pub costs: Costs,
}

/// A peer that the application of a node wants to be connected to.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) addr: Addr,
    pub(super) peer: PeerId,
    pub(super) conn: Option<ConnId>,
    pub(super) dialling: bool,
    pub(super) failures: u32,
}

/// Who came in on an address of a node, and whether anybody could have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entered {
    /// When somebody last did.
    pub last: Instant,
    /// When somebody last did while a stranger to all could have.
    pub open: Option<Instant>,
    /// When somebody last did whom the node had not called, and whose IP the routers on the way
    /// may have known all the same.
    pub excused: Option<Instant>,
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    /// Its name in transcripts.
    pub name: String,
    pub(super) host: HostId,
    pub(super) key: &'static Keypair,
    pub(super) peer: PeerId,
    /// Who it says it is when it dials back.
    pub(super) dial_peer: PeerId,
    pub(super) agent: Agent,
    /// Told the same, with the same chance; there are equal.
    pub(super) twin: Option<Box<(Agent, Dice)>>,
    pub(super) draw: Dice,
    pub(super) core: Config,
    pub(super) wanted: Vec<Addr>,
    pub(super) listeners: BTreeMap<ListenerId, Addr>,
    pub(super) conns: BTreeMap<ConnId, EndId>,
    pub(super) streams: BTreeMap<StreamId, EndId>,
    pub(super) next_conn: u64,
    pub(super) next_stream: u64,
    pub(super) next_listener: u64,
    pub(super) next_port: u16,
    pub(super) targets: Vec<Target>,
    pub(super) vice: Option<Vice>,
    pub(super) requests: BTreeMap<u64, Request>,
    pub(super) costs: Costs,
    /// When the next tick is on the heap.
    pub(super) wake_at: Option<Instant>,
    pub(super) asleep_since: Option<Instant>,
    /// What happened while it slept.
    pub(super) deferred: Vec<Event>,
    pub(super) running: bool,
    pub(super) entered: BTreeMap<Addr, Entered>,
    /// IPs that this host has sent a first packet to.
    pub(super) called: BTreeSet<IpAddr>,
    /// IPs that called this host and were answered.
    pub(super) answered: BTreeSet<IpAddr>,
    /// Classes in which it was connected to anybody, its dial-backs left out.
    pub(super) heard: BTreeSet<Class>,
    pub(super) first_dial_at: Option<Instant>,
    pub(super) scribe: Option<Box<Scribe<WorldNames>>>,
    pub(super) steps: u64,
    /// Its sockets towards its router.
    pub(super) sockets: Sockets,
    /// Its ledger of mappings as it was stored last.
    pub(super) ledger: Option<Bytes>,
    /// Which run of its process it is.
    pub(super) run: u32,
    /// Which orders about relays it could carry out.
    pub(super) contract: Relays,
    /// How it is as a relay.
    pub(super) mood: RelayMood,
    /// Who holds a reservation with it, as it says.
    pub(super) granted: BTreeSet<PeerId>,
    /// What its application wants of relays.
    pub(super) calls: BTreeMap<CircuitId, Call>,
    pub(super) next_call: u64,
    /// Its dials that punch.
    pub(super) punches: BTreeMap<PunchId, Punch>,
    /// What those have sent in each minute of the world, number of packets.
    pub(super) punched: BTreeMap<u64, u64>,
}

impl Node {
    pub(super) fn new(
        number: usize,
        config: NodeConfig,
        draw: Dice,
        twinned: bool,
    ) -> Result<Node, ConfigError> {
        let [own, dials] = keys_of(number);
        let key = &KEYS[own];
        let agent = Agent::new(config.core.clone(), key.public())?;
        let twin = twinned.then(|| Box::new((agent.clone(), draw.clone())));
        Ok(Node {
            name: config.name,
            host: config.host,
            key,
            peer: key.public().to_peer_id(),
            dial_peer: KEYS[dials].public().to_peer_id(),
            agent,
            twin,
            draw,
            core: config.core,
            wanted: config.listen,
            listeners: BTreeMap::new(),
            conns: BTreeMap::new(),
            streams: BTreeMap::new(),
            next_conn: 0,
            next_stream: 0,
            next_listener: 0,
            next_port: EPHEMERAL_MIN,
            targets: Vec::new(),
            vice: config.vice,
            requests: BTreeMap::new(),
            costs: config.costs,
            wake_at: None,
            asleep_since: None,
            deferred: Vec::new(),
            running: false,
            entered: BTreeMap::new(),
            called: BTreeSet::new(),
            answered: BTreeSet::new(),
            heard: BTreeSet::new(),
            first_dial_at: None,
            scribe: None,
            steps: 0,
            sockets: Sockets::default(),
            ledger: None,
            run: 0,
            contract: Relays::default(),
            mood: RelayMood::default(),
            granted: BTreeSet::new(),
            calls: BTreeMap::new(),
            next_call: 0,
            punches: BTreeMap::new(),
            punched: BTreeMap::new(),
        })
    }

    /// Its mind.
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// Who it is.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Where it runs.
    pub fn host(&self) -> HostId {
        self.host
    }

    /// What is wrong with it as a server, if anything is.
    pub fn vice(&self) -> Option<&Vice> {
        self.vice.as_ref()
    }

    /// When it first dialled anybody.
    pub fn first_dial_at(&self) -> Option<Instant> {
        self.first_dial_at
    }

    /// Who came in on an address of it.
    pub fn entered(&self, addr: Addr) -> Entered {
        self.entered.get(&addr).copied().unwrap_or_default()
    }

    /// Its sockets towards its router.
    pub fn sockets(&self) -> &Sockets {
        &self.sockets
    }

    /// First packets and datagrams of its dials that punch, by the minute of the world.
    pub fn punched(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.punched.iter().map(|(minute, packets)| (*minute, *packets))
    }

    /// Whether it runs and is awake.
    pub fn is_awake(&self) -> bool {
        self.running && self.asleep_since.is_none()
    }

    /// Whether it dials back for others, and from where beside its own address.
    pub(super) fn serves(&self) -> Option<&[IpAddr]> {
        self.core.dial_back.as_ref().map(|limits| limits.sources.as_slice())
    }

    /// Whether its runtime takes streams of this protocol.
    pub(super) fn offers(&self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::DialRequest => {
                self.serves().is_some() && !self.vice.is_some_and(|vice| vice.is_v1_alone())
            }
            Protocol::AutonatV1 => self.serves().is_some(),
            Protocol::Hop => self.core.relay_server.is_some(),
            Protocol::Stop => self.core.relay.is_some(),
            Protocol::Punch => self.core.punch.is_some(),
            Protocol::Identify | Protocol::IdentifyPush | Protocol::Ping | Protocol::DialBack => {
                true
            }
        }
    }

    /// Whether a socket of it listens at this address of its host.
    pub(super) fn listens_at(&self, addr: Addr) -> bool {
        self.listeners.values().any(|bound| {
            bound.class() == addr.class()
                && bound.port == addr.port
                && (bound.ip.is_unspecified() || bound.ip == addr.ip)
        })
    }

    /// The port that is listened on in a class.
    pub(super) fn port_of(&self, class: Class) -> Option<u16> {
        self.listeners.values().find(|bound| bound.class() == class).map(|bound| bound.port)
    }

    /// A port that nothing listens on and nothing used for long.
    pub(super) fn fresh_port(&mut self) -> u16 {
        self.next_port = self.next_port.checked_add(1).unwrap_or(EPHEMERAL_MIN);
        self.next_port
    }

    /// Where it dials from: the listen port where the pair of addresses is free.
    pub(super) fn origin(&mut self, ip: IpAddr, to: Addr, taken: bool) -> Addr {
        let port = self.port_of(to.class()).filter(|_| !taken || to.transport == Transport::Quic);
        let port = port.unwrap_or_else(|| self.fresh_port());
        Addr::new(ip, port, to.transport)
    }
}

/// The wall clock at a moment.
pub(super) fn unix(now: Instant) -> UnixTime {
    UnixTime::from_millis(UNIX_START_MS + now.as_nanos() / 1_000_000)
}

/// The first address of a host in a family.
pub(super) fn first_ip(ips: &[IpAddr], family: Family) -> Option<IpAddr> {
    ips.iter().copied().find(|ip| Family::of(*ip) == family)
}

/// Signs with the key of a node.
pub(super) struct Hand(pub(super) &'static Keypair);

impl Signer for Hand {
    fn sign(&mut self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).unwrap_or_default()
    }
}

/// The names of the nodes of a world.
#[derive(Clone, Debug, Default)]
pub struct WorldNames(pub(super) BTreeMap<PeerId, String>);

impl Names for WorldNames {
    fn name(&self, peer: &PeerId) -> String {
        self.0.get(peer).cloned().unwrap_or_else(|| "?".to_owned())
    }
}
