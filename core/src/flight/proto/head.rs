//! The first frame of a part: what the agent was made of.

use super::Unknown;
use super::relay::CircuitLimitMessage;
use super::values::{
    self, AddrMessage, Numbered, Span, ip, number_or_0, optional, peer, peer_id, required,
};
use crate::flight::{Head, NOW_MAX};
use crate::{
    Addr, Class, Config, DialBackConfig, DistantServer, Family, Instant, MappingConfig,
    MappingProtocol, NodeState, PeerId, PublicKey, PunchConfig, RelayConfig, RelayNeed, RelayPeer,
    RelayServerConfig, Transport, UnixTime,
};
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use prost::Message as _;

/// Bytes of an encoded configuration, number; ours: a hundred times what the largest takes that an
/// agent accepts. What a reader holds at once grows with it. A longer one is not read.
const CONFIG_MAX: usize = 1 << 20;

/// `portolan.flight.Head`
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::flight) struct HeadMessage {
    #[prost(string, tag = "1")]
    software: String,
    #[prost(bytes = "bytes", tag = "2")]
    identity: Bytes,
    /// A [`ConfigMessage`]. Its length is looked at before it is read: beside a checkpoint a head
    /// may be long, and lists are many times longer in memory than in a file.
    #[prost(bytes = "bytes", tag = "3")]
    config: Bytes,
    #[prost(uint64, tag = "4")]
    part: u64,
    #[prost(uint64, tag = "5")]
    now_nanos: u64,
    #[prost(uint64, tag = "6")]
    unix_millis: u64,
    #[prost(bytes = "bytes", optional, tag = "7")]
    checkpoint: Option<Bytes>,
}

/// `portolan.flight.Config`
#[derive(Clone, PartialEq, prost::Message)]
struct ConfigMessage {
    #[prost(string, tag = "1")]
    agent_version: String,
    #[prost(string, tag = "2")]
    protocol_version: String,
    #[prost(string, repeated, tag = "3")]
    protocols: Vec<String>,
    #[prost(bool, tag = "4")]
    allow_private: bool,
    #[prost(bool, tag = "5")]
    identify: bool,
    #[prost(message, optional, tag = "6")]
    ping_interval: Option<Span>,
    #[prost(uint64, tag = "7")]
    addrs_per_request: u64,
    #[prost(message, repeated, tag = "8")]
    external: Vec<AddrMessage>,
    #[prost(uint32, tag = "9")]
    force_node: u32,
    #[prost(message, repeated, tag = "10")]
    force_class: Vec<ForcedClass>,
    #[prost(message, optional, tag = "11")]
    dial_back: Option<DialBackMessage>,
    #[prost(message, optional, tag = "12")]
    mapping: Option<MappingConfigMessage>,
    #[prost(message, optional, tag = "13")]
    relay: Option<RelayConfigMessage>,
    #[prost(message, optional, tag = "14")]
    relay_server: Option<RelayServerConfigMessage>,
    #[prost(message, optional, tag = "15")]
    punch: Option<PunchConfigMessage>,
    #[prost(bool, tag = "16")]
    hearsay: bool,
}

/// `portolan.flight.PunchConfig`
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct PunchConfigMessage {
    #[prost(bool, tag = "1")]
    predict_ports: bool,
}

/// `portolan.flight.ForcedClass`
#[derive(Clone, PartialEq, prost::Message)]
struct ForcedClass {
    #[prost(uint32, tag = "1")]
    family: u32,
    #[prost(uint32, tag = "2")]
    transport: u32,
    #[prost(uint32, tag = "3")]
    state: u32,
}

/// `portolan.flight.DialBack`
#[derive(Clone, PartialEq, prost::Message)]
struct DialBackMessage {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    sources: Vec<Bytes>,
    #[prost(uint32, tag = "2")]
    global_per_min: u32,
    #[prost(uint32, tag = "3")]
    peer_per_min: u32,
    #[prost(uint32, tag = "4")]
    prefix_per_min: u32,
    #[prost(uint32, tag = "5")]
    target_per_min: u32,
    #[prost(uint32, tag = "6")]
    target_prefix_per_min: u32,
    #[prost(uint64, tag = "7")]
    dials_max: u64,
}

/// `portolan.flight.MappingConfig`
#[derive(Clone, PartialEq, prost::Message)]
struct MappingConfigMessage {
    #[prost(uint32, repeated, tag = "1")]
    protocols: Vec<u32>,
    #[prost(message, repeated, tag = "2")]
    ports: Vec<PortMessage>,
    #[prost(message, optional, tag = "3")]
    lifetime: Option<Span>,
    #[prost(string, tag = "4")]
    description: String,
}

/// `portolan.flight.Port`
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct PortMessage {
    #[prost(uint32, tag = "1")]
    transport: u32,
    #[prost(uint32, tag = "2")]
    port: u32,
}

/// `portolan.flight.RelayConfig`
#[derive(Clone, PartialEq, prost::Message)]
struct RelayConfigMessage {
    #[prost(message, repeated, tag = "1")]
    relays: Vec<RelayPeerMessage>,
    #[prost(uint32, tag = "2")]
    need: u32,
    #[prost(uint64, tag = "3")]
    reservations: u64,
    #[prost(bool, tag = "4")]
    use_connected: bool,
    #[prost(message, repeated, tag = "5")]
    distant_servers: Vec<DistantServerMessage>,
}

/// `portolan.flight.DistantServer`
#[derive(Clone, PartialEq, prost::Message)]
struct DistantServerMessage {
    #[prost(bytes = "bytes", tag = "1")]
    peer: Bytes,
    #[prost(message, optional, tag = "2")]
    relay: Option<RelayPeerMessage>,
}

/// `portolan.flight.RelayPeer`
#[derive(Clone, PartialEq, prost::Message)]
struct RelayPeerMessage {
    #[prost(bytes = "bytes", tag = "1")]
    peer: Bytes,
    #[prost(message, repeated, tag = "2")]
    addrs: Vec<AddrMessage>,
}

/// `portolan.flight.RelayServerConfig`
#[derive(Clone, PartialEq, prost::Message)]
struct RelayServerConfigMessage {
    #[prost(uint64, tag = "1")]
    reservations_max: u64,
    #[prost(uint64, tag = "2")]
    reservations_per_ip_max: u64,
    #[prost(uint64, tag = "3")]
    reservations_per_prefix_max: u64,
    #[prost(message, optional, tag = "4")]
    reservation_lifetime: Option<Span>,
    #[prost(uint64, tag = "5")]
    circuits_max: u64,
    #[prost(uint64, tag = "6")]
    circuits_per_peer_max: u64,
    #[prost(uint64, tag = "7")]
    circuits_per_prefix_max: u64,
    #[prost(message, optional, tag = "8")]
    limit: Option<CircuitLimitMessage>,
    #[prost(message, optional, tag = "9")]
    allow: Option<Peers>,
    #[prost(bool, tag = "10")]
    only_while_may_serve: bool,
}

/// `portolan.flight.Peers`
#[derive(Clone, PartialEq, prost::Message)]
struct Peers {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    peers: Vec<Bytes>,
}

/// The message for a head whose part begins at `now`.
pub(in crate::flight) fn encoded(head: &Head, now: Instant) -> HeadMessage {
    let Head { software, config, identity, part, now: _, unix, checkpoint } = head;
    HeadMessage {
        software: software.clone(),
        identity: identity.encode_protobuf().into(),
        config: ConfigMessage::from(config).encode_to_vec().into(),
        part: *part,
        now_nanos: now.as_nanos(),
        unix_millis: unix.as_millis(),
        checkpoint: checkpoint.clone(),
    }
}

/// The head in a payload.
pub(in crate::flight) fn decoded(payload: Bytes) -> Result<Head, Unknown> {
    let message = HeadMessage::decode(payload)?;
    let identity = PublicKey::try_decode_protobuf(&message.identity);
    let now = Instant::from_nanos(message.now_nanos);
    if now > NOW_MAX {
        return Err(Unknown("the time is beyond all bounds"));
    }
    if message.config.len() > CONFIG_MAX {
        return Err(Unknown("the configuration is too long"));
    }
    Ok(Head {
        software: message.software,
        config: ConfigMessage::decode(message.config)?.try_into()?,
        identity: identity.map_err(|_| Unknown("not a public key"))?,
        part: message.part,
        now,
        unix: UnixTime::from_millis(message.unix_millis),
        checkpoint: message.checkpoint,
    })
}

impl From<&Config> for ConfigMessage {
    fn from(config: &Config) -> ConfigMessage {
        let Config {
            agent_version,
            protocol_version,
            protocols,
            allow_private,
            identify,
            ping_interval,
            hearsay,
            addrs_per_request,
            external,
            force_node,
            force_class,
            dial_back,
            mapping,
            relay,
            relay_server,
            punch,
        } = config;
        ConfigMessage {
            agent_version: agent_version.clone(),
            protocol_version: protocol_version.clone(),
            protocols: protocols.clone(),
            allow_private: *allow_private,
            identify: *identify,
            ping_interval: ping_interval.map(Span::from),
            addrs_per_request: wide(*addrs_per_request),
            external: external.iter().copied().map(AddrMessage::from).collect(),
            force_node: number_or_0(*force_node),
            force_class: force_class.iter().map(ForcedClass::from).collect(),
            dial_back: dial_back.as_ref().map(DialBackMessage::from),
            mapping: mapping.as_ref().map(MappingConfigMessage::from),
            relay: relay.as_ref().map(RelayConfigMessage::from),
            relay_server: relay_server.as_ref().map(RelayServerConfigMessage::from),
            punch: punch.as_ref().map(PunchConfigMessage::from),
            hearsay: *hearsay,
        }
    }
}

impl TryFrom<ConfigMessage> for Config {
    type Error = Unknown;

    fn try_from(message: ConfigMessage) -> Result<Config, Unknown> {
        Ok(Config {
            agent_version: message.agent_version,
            protocol_version: message.protocol_version,
            protocols: message.protocols,
            allow_private: message.allow_private,
            identify: message.identify,
            ping_interval: optional(message.ping_interval)?,
            addrs_per_request: narrow(message.addrs_per_request)?,
            external: message
                .external
                .into_iter()
                .map(TryFrom::try_from)
                .collect::<Result<_, _>>()?,
            force_node: match message.force_node {
                0 => None,
                number => Some(state(number)?),
            },
            force_class: message
                .force_class
                .into_iter()
                .map(ForcedClass::decoded)
                .collect::<Result<_, _>>()?,
            dial_back: optional(message.dial_back)?,
            mapping: optional(message.mapping)?,
            relay: optional(message.relay)?,
            relay_server: optional(message.relay_server)?,
            punch: optional(message.punch)?,
            hearsay: message.hearsay,
        })
    }
}

impl From<&(Class, NodeState)> for ForcedClass {
    fn from((class, state): &(Class, NodeState)) -> ForcedClass {
        let Class { family, transport } = *class;
        ForcedClass {
            family: family.number(),
            transport: transport.number(),
            state: state.number(),
        }
    }
}

impl ForcedClass {
    fn decoded(self) -> Result<(Class, NodeState), Unknown> {
        let family = Family::numbered(self.family, "a family that is not known")?;
        let transport = Transport::numbered(self.transport, "a transport that is not known")?;
        Ok((Class::new(family, transport), state(self.state)?))
    }
}

impl From<&DialBackConfig> for DialBackMessage {
    fn from(config: &DialBackConfig) -> DialBackMessage {
        let DialBackConfig {
            sources,
            global_per_min,
            peer_per_min,
            prefix_per_min,
            target_per_min,
            target_prefix_per_min,
            dials_max,
        } = config;
        DialBackMessage {
            sources: sources.iter().map(|source| ip(*source)).collect(),
            global_per_min: *global_per_min,
            peer_per_min: *peer_per_min,
            prefix_per_min: *prefix_per_min,
            target_per_min: *target_per_min,
            target_prefix_per_min: *target_prefix_per_min,
            dials_max: wide(*dials_max),
        }
    }
}

impl TryFrom<DialBackMessage> for DialBackConfig {
    type Error = Unknown;

    fn try_from(message: DialBackMessage) -> Result<DialBackConfig, Unknown> {
        Ok(DialBackConfig {
            sources: values::ip_addrs(&message.sources)?,
            global_per_min: message.global_per_min,
            peer_per_min: message.peer_per_min,
            prefix_per_min: message.prefix_per_min,
            target_per_min: message.target_per_min,
            target_prefix_per_min: message.target_prefix_per_min,
            dials_max: narrow(message.dials_max)?,
        })
    }
}

impl From<&MappingConfig> for MappingConfigMessage {
    fn from(config: &MappingConfig) -> MappingConfigMessage {
        let MappingConfig { protocols, ports, lifetime, description } = config;
        MappingConfigMessage {
            protocols: protocols.iter().map(|protocol| protocol.number()).collect(),
            ports: ports
                .iter()
                .map(|(transport, port)| PortMessage {
                    transport: transport.number(),
                    port: (*port).into(),
                })
                .collect(),
            lifetime: Some((*lifetime).into()),
            description: description.clone(),
        }
    }
}

impl TryFrom<MappingConfigMessage> for MappingConfig {
    type Error = Unknown;

    fn try_from(message: MappingConfigMessage) -> Result<MappingConfig, Unknown> {
        let MappingConfigMessage { protocols, ports, lifetime, description } = message;
        let protocol =
            |number| MappingProtocol::numbered(number, "a protocol of mapping that is not known");
        Ok(MappingConfig {
            protocols: protocols.into_iter().map(protocol).collect::<Result<_, _>>()?,
            ports: ports.into_iter().map(PortMessage::decoded).collect::<Result<_, _>>()?,
            lifetime: required(lifetime)?,
            description,
        })
    }
}

impl PortMessage {
    fn decoded(self) -> Result<(Transport, u16), Unknown> {
        let PortMessage { transport, port } = self;
        let transport = Transport::numbered(transport, "a transport that is not known")?;
        Ok((transport, u16::try_from(port).map_err(|_| Unknown("a port beyond 65535"))?))
    }
}

impl From<&RelayPeer> for RelayPeerMessage {
    fn from(relay: &RelayPeer) -> RelayPeerMessage {
        let RelayPeer { peer: who, addrs } = relay;
        let addrs = addrs.iter().copied().map(AddrMessage::from);
        RelayPeerMessage { peer: peer(*who), addrs: addrs.collect() }
    }
}

impl TryFrom<RelayPeerMessage> for RelayPeer {
    type Error = Unknown;

    fn try_from(message: RelayPeerMessage) -> Result<RelayPeer, Unknown> {
        let RelayPeerMessage { peer, addrs } = message;
        let addrs = addrs.into_iter().map(Addr::try_from).collect::<Result<_, _>>()?;
        Ok(RelayPeer { peer: peer_id(&peer)?, addrs })
    }
}

impl From<&RelayConfig> for RelayConfigMessage {
    fn from(config: &RelayConfig) -> RelayConfigMessage {
        let RelayConfig { relays, need, reservations, use_connected, distant_servers } = config;
        let distant = distant_servers.iter().map(|one| DistantServerMessage {
            peer: peer(one.peer),
            relay: Some(RelayPeerMessage::from(&one.relay)),
        });
        RelayConfigMessage {
            relays: relays.iter().map(RelayPeerMessage::from).collect(),
            need: need.number(),
            reservations: wide(*reservations),
            use_connected: *use_connected,
            distant_servers: distant.collect(),
        }
    }
}

impl TryFrom<RelayConfigMessage> for RelayConfig {
    type Error = Unknown;

    fn try_from(message: RelayConfigMessage) -> Result<RelayConfig, Unknown> {
        let RelayConfigMessage { relays, need, reservations, use_connected, distant_servers } =
            message;
        let distant = |DistantServerMessage { peer, relay }| {
            let relay = relay.ok_or(Unknown("a server behind no relay"))?;
            let relay = RelayPeer::try_from(relay)?;
            Ok::<_, Unknown>(DistantServer { peer: peer_id(&peer)?, relay })
        };
        Ok(RelayConfig {
            relays: relays.into_iter().map(RelayPeer::try_from).collect::<Result<_, _>>()?,
            need: RelayNeed::numbered(need, "a need of relays that is not known")?,
            reservations: narrow(reservations)?,
            use_connected,
            distant_servers: distant_servers.into_iter().map(distant).collect::<Result<_, _>>()?,
        })
    }
}

impl From<&PunchConfig> for PunchConfigMessage {
    fn from(config: &PunchConfig) -> PunchConfigMessage {
        let PunchConfig { predict_ports } = *config;
        PunchConfigMessage { predict_ports }
    }
}

impl TryFrom<PunchConfigMessage> for PunchConfig {
    type Error = Unknown;

    fn try_from(message: PunchConfigMessage) -> Result<PunchConfig, Unknown> {
        let PunchConfigMessage { predict_ports } = message;
        Ok(PunchConfig { predict_ports })
    }
}

impl From<&RelayServerConfig> for RelayServerConfigMessage {
    fn from(config: &RelayServerConfig) -> RelayServerConfigMessage {
        let RelayServerConfig {
            reservations_max,
            reservations_per_ip_max,
            reservations_per_prefix_max,
            reservation_lifetime,
            circuits_max,
            circuits_per_peer_max,
            circuits_per_prefix_max,
            limit,
            allow,
            only_while_may_serve,
        } = config;
        RelayServerConfigMessage {
            reservations_max: wide(*reservations_max),
            reservations_per_ip_max: wide(*reservations_per_ip_max),
            reservations_per_prefix_max: wide(*reservations_per_prefix_max),
            reservation_lifetime: Some((*reservation_lifetime).into()),
            circuits_max: wide(*circuits_max),
            circuits_per_peer_max: wide(*circuits_per_peer_max),
            circuits_per_prefix_max: wide(*circuits_per_prefix_max),
            limit: Some((*limit).into()),
            allow: allow
                .as_ref()
                .map(|all| Peers { peers: all.iter().copied().map(peer).collect() }),
            only_while_may_serve: *only_while_may_serve,
        }
    }
}

impl TryFrom<RelayServerConfigMessage> for RelayServerConfig {
    type Error = Unknown;

    fn try_from(message: RelayServerConfigMessage) -> Result<RelayServerConfig, Unknown> {
        let peers = |Peers { peers }| peers.iter().map(|one| peer_id(one)).collect();
        let allow: Option<Result<Vec<PeerId>, Unknown>> = message.allow.map(peers);
        Ok(RelayServerConfig {
            reservations_max: narrow(message.reservations_max)?,
            reservations_per_ip_max: narrow(message.reservations_per_ip_max)?,
            reservations_per_prefix_max: narrow(message.reservations_per_prefix_max)?,
            reservation_lifetime: required(message.reservation_lifetime)?,
            circuits_max: narrow(message.circuits_max)?,
            circuits_per_peer_max: narrow(message.circuits_per_peer_max)?,
            circuits_per_prefix_max: narrow(message.circuits_per_prefix_max)?,
            limit: required(message.limit)?,
            allow: allow.transpose()?,
            only_while_may_serve: message.only_while_may_serve,
        })
    }
}

fn state(number: u32) -> Result<NodeState, Unknown> {
    NodeState::numbered(number, "a state that is not known")
}

fn wide(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn narrow(number: u64) -> Result<usize, Unknown> {
    usize::try_from(number).map_err(|_| Unknown("a number that this machine cannot hold"))
}
