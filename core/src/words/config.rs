//! Every knob and every bound. A constant reads: value, unit, source, what grows if it grows.

use super::addr::Transport;
use super::addr::{Addr, Class};
use super::id::PeerId;
use super::judgement::NodeState;
use super::mapping::MappingProtocol;
use super::relay::CircuitLimit;
use super::time::Duration;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

/// How an [`Agent`](crate::Agent) behaves. Built by `Config::default()` and assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// What we call ourselves in identify (`name/version`).
    pub agent_version: String,
    /// The protocol family named in identify.
    pub protocol_version: String,
    /// Names of application protocols to list in identify beside core's own.
    pub protocols: Vec<String>,
    /// Treat private, link-local and loopback addresses as if they were global, and one IP as one
    /// network. For tests and labs.
    pub allow_private: bool,
    /// Ask every peer for its identify. Off for embedders that run identify themselves.
    pub identify: bool,
    /// How often a connection is pinged; `None` pings only once where no round-trip time is known,
    /// and after a long suspend.
    pub ping_interval: Option<Duration>,
    /// Ask AutoNAT v1 servers while no AutoNAT v2 evidence exists. What they say is hearsay: it
    /// gives the node a state where it would be unknown, and nothing else.
    pub hearsay: bool,
    /// Addresses in one dial request, number: 1 asks about one address at a time; up to 50 append
    /// others, less wanted, for a server that cannot dial the first. Only the one that it names
    /// in its answer is judged.
    pub addrs_per_request: usize,
    /// External addresses that the operator declares.
    pub external: Vec<Addr>,
    /// Force the state of the node, whatever the evidence.
    pub force_node: Option<NodeState>,
    /// Force the state of single classes, whatever the evidence.
    pub force_class: Vec<(Class, NodeState)>,
    /// Dial back for others, and how much; `None` offers no AutoNAT service, neither v2 nor v1.
    pub dial_back: Option<DialBackConfig>,
    /// Ask routers to map the ports that we listen on; `None` asks nobody.
    pub mapping: Option<MappingConfig>,
    /// Be reached through relays, and reach others through them; `None` does neither.
    pub relay: Option<RelayConfig>,
    /// Relay for others; `None` does not.
    pub relay_server: Option<RelayServerConfig>,
    /// Make direct connections out of relayed ones (DCUtR); `None` stays with the relayed ones.
    pub punch: Option<PunchConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            agent_version: concat!("portolan/", env!("CARGO_PKG_VERSION")).into(),
            protocol_version: "ipfs/0.1.0".into(),
            protocols: Vec::new(),
            allow_private: false,
            identify: true,
            ping_interval: Some(PING_INTERVAL),
            hearsay: true,
            addrs_per_request: 1,
            external: Vec::new(),
            force_node: None,
            force_class: Vec::new(),
            dial_back: None,
            mapping: None,
            relay: None,
            relay_server: None,
            punch: None,
        }
    }
}

/// How routers are asked for ports.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MappingConfig {
    /// The protocols that may be spoken.
    pub protocols: Vec<MappingProtocol>,
    /// Ports to map beside those that we listen on, of the host's address towards the router.
    pub ports: Vec<(Transport, u16)>,
    /// How long a mapping is asked for at a time; it is renewed for as long as it is wanted. One
    /// minute to one day.
    pub lifetime: Duration,
    /// What routers that list mappings show beside ours (UPnP): up to 32 bytes, printable.
    pub description: String,
}

impl Default for MappingConfig {
    fn default() -> Self {
        MappingConfig {
            protocols: MappingProtocol::ALL.to_vec(),
            ports: Vec::new(),
            // RFC 6886 §3.3: recommended.
            lifetime: Duration::from_secs(7_200),
            description: "Portolan".into(),
        }
    }
}

/// The dial-back service (AutoNAT v2 and v1 server).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DialBackConfig {
    /// Source IPs for dial-backs only, never listened on nor advertised. Best one of each family.
    pub sources: Vec<IpAddr>,
    /// Requests a minute, all requesters together (go-libp2p's value: 60).
    pub global_per_min: u32,
    /// Requests a minute of one peer (go-libp2p's value: 12).
    pub peer_per_min: u32,
    /// Requests a minute of one network (IPv4 /24, IPv6 /48).
    pub prefix_per_min: u32,
    /// Dials a minute to one IP.
    pub target_per_min: u32,
    /// Dials a minute to one network.
    pub target_prefix_per_min: u32,
    /// Dials in flight, all together.
    pub dials_max: usize,
}

impl Default for DialBackConfig {
    fn default() -> Self {
        DialBackConfig {
            sources: Vec::new(),
            global_per_min: 60,
            peer_per_min: 12,
            // Ours: five busy peers of one network; more would let one /24 use up the global 60.
            prefix_per_min: 36,
            // Ours: what one peer may ask for. A victim sees at most this many connection attempts.
            target_per_min: 12,
            // Ours: as `prefix_per_min`.
            target_prefix_per_min: 36,
            dials_max: 8,
        }
    }
}

impl DialBackConfig {
    /// No rate limits at all: for benchmarks and tests of other things. The cap on dials in
    /// flight stays.
    #[must_use]
    pub fn unlimited() -> DialBackConfig {
        DialBackConfig {
            global_per_min: u32::MAX,
            peer_per_min: u32::MAX,
            prefix_per_min: u32::MAX,
            target_per_min: u32::MAX,
            target_prefix_per_min: u32::MAX,
            dials_max: 256,
            ..DialBackConfig::default()
        }
    }
}

/// How relays are used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelayConfig {
    /// Relays that may be asked, beside peers that we are connected to and that relay.
    pub relays: Vec<RelayPeer>,
    /// When reservations are held.
    pub need: RelayNeed,
    /// Reservations to hold at once, at different relays, number: 1 to 4.
    pub reservations: usize,
    /// Whether connected peers that list hop in identify may be asked as well.
    pub use_connected: bool,
    /// AutoNAT servers that are reached through relays and never contacted otherwise: they show whether
    /// strangers get in. Each is asked about an address once while its word holds, and paid for it.
    /// Up to [`DISTANT_SERVERS_MAX`].
    pub distant_servers: Vec<DistantServer>,
}

impl Default for RelayConfig {
    fn default() -> Self {
        RelayConfig {
            relays: Vec::new(),
            need: RelayNeed::Auto,
            // Ours: while one is replaced the other serves.
            reservations: 2,
            use_connected: true,
            distant_servers: Vec::new(),
        }
    }
}

/// How direct connections are made out of relayed ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PunchConfig {
    /// Predict ports, and send to ports that a peer predicts: for a pair of which one NAT gives
    /// another port to each endpoint, one after the other, and the other NAT lets in nobody but whom
    /// it has sent to. Both sides need it. Off by default, for it costs packets to ports at which
    /// nobody is: up to [`PREDICTED_PORTS_MAX`] of one side in an attempt, to one IP, which looks like a
    /// small port scan, and [`PREDICTED_PORTS_MIN`] a minute; and up to three connections of the other
    /// side to peers that it is connected to already.
    pub predict_ports: bool,
}

/// Ports to which one attempt sends because a peer predicts them, one packet each, number; ours: a
/// NAT shared by few hosts gives out fewer from the sample to the dial. What looks like a scan
/// grows with it. When full, the later ports of a prediction are left out.
pub const PREDICTED_PORTS_MAX: usize = 32;
/// The same of all attempts in a minute, number; ours: what strangers can have us send grows with
/// it. When used up, an attempt goes without a prediction, and is in vain.
pub const PREDICTED_PORTS_MIN: usize = 192;

/// A relay that is known beforehand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayPeer {
    /// The relay.
    pub peer: PeerId,
    /// Its addresses, best first; up to [`RELAY_ADDRS_MAX`].
    pub addrs: Vec<Addr>,
}

/// A server behind a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DistantServer {
    /// The server. It holds a reservation with the relay.
    pub peer: PeerId,
    /// The relay.
    pub relay: RelayPeer,
}

/// When reservations are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RelayNeed {
    /// While the verdict says that not everybody can dial us.
    Auto,
    /// The same, but where there is no verdict yet none is waited for: relays were needed here before.
    Expected,
    /// All the time.
    Always,
    /// Never; circuits to others can still be opened.
    Never,
}

/// The relay service (circuit relay v2, hop).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelayServerConfig {
    /// Reservations at once (go-libp2p's and rust-libp2p's value: 128).
    pub reservations_max: usize,
    /// Of them of one IP: IPv4 address or IPv6 /64.
    pub reservations_per_ip_max: usize,
    /// Of them of one network: IPv4 /24 or IPv6 /48.
    pub reservations_per_prefix_max: usize,
    /// How long a reservation lasts unless it is renewed (go-libp2p's and rust-libp2p's value:
    /// one hour). One minute to one day.
    pub reservation_lifetime: Duration,
    /// Circuits at once, all together.
    pub circuits_max: usize,
    /// Circuits at once of one peer, as initiator or as target (go-libp2p's value: 16).
    pub circuits_per_peer_max: usize,
    /// Circuits at once of initiators of one network.
    pub circuits_per_prefix_max: usize,
    /// What a circuit may use (go-libp2p's and rust-libp2p's value: 2 minutes, 128 KiB a
    /// direction).
    pub limit: CircuitLimit,
    /// Who may reserve; `None` is everybody.
    pub allow: Option<Vec<PeerId>>,
    /// Offer the service only while [`Notice::RoleChanged`](crate::Notice) allows it.
    pub only_while_may_serve: bool,
}

impl Default for RelayServerConfig {
    fn default() -> Self {
        RelayServerConfig {
            reservations_max: 128,
            // go-libp2p's value.
            reservations_per_ip_max: 8,
            // Ours: go-libp2p counts 32 for an autonomous system.
            reservations_per_prefix_max: 32,
            reservation_lifetime: Duration::from_secs(3_600),
            // Ours: two a reservation.
            circuits_max: 256,
            circuits_per_peer_max: 16,
            // Ours: as for reservations.
            circuits_per_prefix_max: 64,
            limit: CircuitLimit { duration: Some(Duration::from_secs(120)), bytes: Some(1 << 17) },
            allow: None,
            only_while_may_serve: false,
        }
    }
}

/// A configuration that no agent can work with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Too many declared external addresses.
    #[error("{given} external addresses are declared, at most {max} can be", max = CANDIDATES_MAX / 2)]
    TooManyExternal {
        /// How many were given.
        given: usize,
    },
    /// A declared external address that nobody could dial.
    #[error("the external address {0} is not one that peers can dial")]
    UnusableExternal(Addr),
    /// Too many application protocols, or names too long, for one identify message.
    #[error("the protocol names take {bytes} bytes, at most {max} fit in identify", max = IDENTIFY_PROTOCOLS_BYTES_MAX)]
    ProtocolsTooLong {
        /// The bytes they take together.
        bytes: usize,
    },
    /// A dial request would hold no address, or more than servers look at.
    #[error("{given} addresses in a dial request, it can be 1 to {max}", max = ADDRS_PER_REQUEST_MAX)]
    AddrsPerRequest {
        /// How many were wanted.
        given: usize,
    },
    /// Pings without a pause between them.
    #[error("the ping interval is zero")]
    NoPingInterval,
    /// A dial-back source that no socket can be bound to.
    #[error("{0} cannot be a source of dial-backs")]
    UnusableSource(IpAddr),
    /// Mappings that no router can grant or that would have to be renewed all the time.
    #[error("a mapping cannot be asked for {0:?}, only for one minute to one day")]
    MappingLifetime(Duration),
    /// Too many ports to map, or port 0.
    #[error("{given} ports are to be mapped, at most {max} can be, and none of them is 0", max = MAPPINGS_MAX / 2)]
    MappingPorts {
        /// How many were given.
        given: usize,
    },
    /// Mappings are wanted, and no protocol may be spoken.
    #[error("ports are to be mapped, but by no protocol")]
    NoMappingProtocol,
    /// A description that routers may stumble over.
    #[error("the description of mappings is not 1 to 32 printable ASCII characters")]
    MappingDescription,
    /// A dial-back service that may never dial.
    #[error("the dial-back service has a limit of zero")]
    ZeroLimit,
    /// Too many relays.
    #[error("{given} relays, at most {max} fit", max = RELAYS_MAX)]
    TooManyRelays {
        /// How many were given.
        given: usize,
    },
    /// Too many servers behind relays.
    #[error("{given} servers behind relays, at most {max} fit", max = DISTANT_SERVERS_MAX)]
    TooManyDistantServers {
        /// How many were given.
        given: usize,
    },
    /// Too many addresses of one relay.
    #[error("{given} addresses of one relay, at most {max} fit", max = RELAY_ADDRS_MAX)]
    TooManyRelayAddrs {
        /// How many were given.
        given: usize,
    },
    /// An address of a relay that nobody could dial.
    #[error("the address {0} of a relay is not one that can be dialled")]
    UnusableRelay(Addr),
    /// No reservation is to be held, or more than can be.
    #[error("{given} reservations are to be held, it can be 1 to {max}", max = RESERVATIONS_MAX)]
    Reservations {
        /// How many were wanted.
        given: usize,
    },
    /// Reservations that end before they are of use, or that nobody can plan with.
    #[error("a reservation cannot last for {0:?}, only for one minute to one day")]
    ReservationLifetime(Duration),
    /// A relay service that may never relay.
    #[error("the relay service has a limit of zero")]
    ZeroRelayLimit,
    /// Too many peers that may reserve.
    #[error("{given} peers may reserve, at most {max} can be named", max = RELAY_ALLOW_MAX)]
    TooManyAllowed {
        /// How many were given.
        given: usize,
    },
}

/// Connections that core follows, number; ours. Memory grows by about 1 KiB each. When full, a
/// new connection is ignored and named in a notice (the runtime's own cap is lower).
pub const CONNECTIONS_MAX: usize = 4_096;
/// Listening sockets, number; ours. When full, a new one is ignored.
pub const LISTENERS_MAX: usize = 64;
/// Interface addresses, number; ours. When full, the rest is ignored, lowest addresses first.
pub const INTERFACES_MAX: usize = 64;
/// Peers that sources introduced to us and that are remembered as theirs, number; ours: some lists at
/// their limit. When full, further ones count as if nobody had named them.
pub const INTRODUCED_MAX: usize = 1_024;
/// Gateways that are asked, number; ours: a host has one for each interface that is up. When
/// full, the rest is ignored, preferred ones first.
pub const GATEWAYS_MAX: usize = 4;
/// Mappings that are wanted at once, number; ours: routers have room for some hundreds, for
/// everybody. When full, further ports are not mapped.
pub const MAPPINGS_MAX: usize = 32;
/// The shortest time for which a mapping is asked for, seconds; ours: it is renewed after half of
/// it, and half a minute is as often as a router should hear of the same mapping.
pub const MAPPING_LIFETIME_MIN: Duration = Duration::from_secs(60);
/// The longest, seconds; RFC 6887 §15: what servers should grant at most. What a host that leaves
/// without a word leaves behind stays for as long. When full, a longer one is a bad configuration.
pub const MAPPING_LIFETIME_MAX: Duration = Duration::from_secs(86_400);
/// Bytes of the description of a mapping, number; ours: some routers cut or refuse longer ones.
/// Requests grow with it. When full, a longer one is a bad configuration.
pub const MAPPING_DESCRIPTION_MAX: usize = 32;
/// Requests to one router a minute, number; ours, retransmissions, discovery and recovery
/// included. Work for weak routers grows with it. When used up, what is due waits.
pub const GATEWAY_REQUESTS_MIN: usize = 120;
/// Relays that are configured, number; ours. When full, `Agent::new` refuses the configuration.
pub const RELAYS_MAX: usize = 64;
/// Servers behind relays that are configured, number; ours. When full, `Agent::new` refuses the
/// configuration.
pub const DISTANT_SERVERS_MAX: usize = 8;
/// Addresses of one configured relay, number; ours. When full, `Agent::new` refuses the
/// configuration.
pub const RELAY_ADDRS_MAX: usize = 8;
/// Reservations that can be held at once, number; ours. When full, a larger number is a bad
/// configuration.
pub const RESERVATIONS_MAX: usize = 4;
/// The shortest time for which a relay of ours reserves, seconds; ours: it is renewed well before
/// its end, and more often than twice a minute is too often. When below, it is a bad configuration.
pub const RESERVATION_LIFETIME_MIN: Duration = Duration::from_secs(60);
/// The longest, seconds; ours: whoever is gone for good is forgotten after a day. When full, a
/// longer one is a bad configuration.
pub const RESERVATION_LIFETIME_MAX: Duration = Duration::from_secs(86_400);
/// Peers by name that may reserve with us, number; ours. About 80 bytes each. When full,
/// `Agent::new` refuses the configuration.
pub const RELAY_ALLOW_MAX: usize = 4_096;
/// Contacted IPs, number; ours: a busy DHT node dials some thousands a day. About 40 bytes each.
/// When full, every IP counts as contacted for a day: proofs get weaker, never wrong.
pub const CONTACTED_MAX: usize = 16_384;
/// How long an IP stays contacted after the first packet was sent, ours: no NAT keeps an idle
/// binding for a day.
pub const CONTACTED_FOR: Duration = Duration::from_secs(24 * 3_600);
/// Candidate addresses, number; ours. Probes grow with it. When full, the weakest is dropped.
pub const CANDIDATES_MAX: usize = 64;
/// Bytes of application protocol names in identify; ours: one message stays under 4,096 bytes,
/// which is all that rust-libp2p reads. When full, `Agent::new` refuses the configuration.
pub const IDENTIFY_PROTOCOLS_BYTES_MAX: usize = 2_048;
/// How often a connection is pinged, seconds; ours: under the 30 s for which the shortest common
/// NATs keep a UDP binding (RFC 4787 §4.3 asks for 120).
pub const PING_INTERVAL: Duration = Duration::from_secs(25);
/// The longest suspend that puts nothing in doubt, seconds; ours: the pause between two pings, so
/// that no connection was silent for longer than it may be anyway. A device that dozes between two
/// packets naps all the time. If it grows, what died meanwhile is found later.
pub const NAP: Duration = PING_INTERVAL;
/// Networks whose AutoNAT v1 servers must say the same before their hearsay counts, number;
/// autonat-v1 §AutoNAT Protocol: more than three. When fewer, the node stays unknown.
pub const HEARSAY_AGREE_MIN: usize = 4;
/// Networks whose AutoNAT v1 servers must deny what hearsay says before it changes to the contrary,
/// number; ours: as many as it takes to be believed at first. Nobody must confirm it meanwhile.
/// When fewer, what they say changes nothing.
pub const HEARSAY_FLIP_MIN: usize = 4;
/// Addresses in one dial request, number; go-libp2p's value: it looks at no more. Requests grow
/// by 23 bytes each. When full, the least wanted are left out.
pub const ADDRS_PER_REQUEST_MAX: usize = 50;
/// Messages that make up one identify, number; go-libp2p's value. Work per answer grows with
/// it. When full, the stream is reset and what was understood so far is kept.
pub const IDENTIFY_MESSAGES_MAX: usize = 10;
/// How long a proof lasts unless renewed, ours: minutes, so that a closed port is noticed.
pub const PROOF_LIFETIME: Duration = Duration::from_secs(600);
/// Servers whose failures make an address unreachable, number of distinct networks; ours. When
/// full, no further server is asked: so many failures decide.
pub const SERVERS_ASKED_MAX: usize = 8;
/// Probes in flight, number; ours. Bursts of traffic grow with it. When full, the next probe
/// waits until one ends.
pub const PROBES_MAX: usize = 8;
/// Probes in flight at one server, number; go-libp2p serves two at once. When full, another
/// server is asked, or the probe waits.
pub const PROBES_PER_SERVER_MAX: usize = 2;
/// Probes a minute at one server, number; ours: go-libp2p refuses above 12.
pub const PROBES_PER_SERVER_MIN: usize = 8;
/// Requests a minute that one server may see, number; go-libp2p refuses more. When full, the server is
/// asked later.
pub const REQUESTS_PER_SERVER_MIN: usize = PROBES_PER_SERVER_MIN + LOST_PER_SERVER_MIN;
/// Probes a minute at one server beyond the others, in place of as many that were given up with their
/// connections, number; ours. When full, those count as well.
pub const LOST_PER_SERVER_MIN: usize = 4;

const _: () = assert!(PROBES_PER_SERVER_MAX <= PROBES_MAX);
const _: () = assert!(SERVERS_ASKED_MAX <= 255);
