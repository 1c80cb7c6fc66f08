//! Small values: enumerations as numbers, addresses, spans, ids.

use super::Unknown;
use crate::{
    Addr, BridgeEnd, DialFailure, Duration, Family, FetchFailure, HearsayAnswer, MappingBehavior,
    MappingProtocol, MappingState, NodeState, Oddity, Outcome, PeerId, Protocol, ProtocolSet,
    PunchFailure, PunchWay, RelayNeed, RelayState, Scope, Served, Side, Source, Sources, State,
    StreamEnd, StreamFailure, StreamId, Transport, Wake,
};
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// A value that records know by a number.
pub(super) trait Numbered: Copy + Sized {
    fn number(self) -> u32;

    /// The value with this number; `what` says what is missing otherwise.
    fn numbered(number: u32, what: &'static str) -> Result<Self, Unknown>;
}

/// The number of a value that may be absent; 0 when it is.
pub(super) fn number_or_0(value: Option<impl Numbered>) -> u32 {
    value.map_or(0, Numbered::number)
}

macro_rules! numbers {
    ($($name:ident { $($variant:ident = $number:literal,)* })*) => {$(
        impl Numbered for $name {
            fn number(self) -> u32 {
                match self {
                    $($name::$variant => $number,)*
                }
            }

            fn numbered(number: u32, what: &'static str) -> Result<$name, Unknown> {
                match number {
                    $($number => Ok($name::$variant),)*
                    _ => Err(Unknown(what)),
                }
            }
        }
    )*};
}

numbers! {
    Side {
        Inbound = 1,
        Outbound = 2,
    }
    Protocol {
        Identify = 1,
        IdentifyPush = 2,
        Ping = 3,
        DialRequest = 4,
        DialBack = 5,
        Hop = 6,
        Stop = 7,
        Punch = 8,
        AutonatV1 = 9,
    }
    Family {
        Ip4 = 1,
        Ip6 = 2,
    }
    Transport {
        Tcp = 1,
        Quic = 2,
    }
    DialFailure {
        Refused = 1,
        TimedOut = 2,
        Handshake = 3,
        LocalFault = 4,
    }
    StreamFailure {
        Unsupported = 1,
        Failed = 2,
        TimedOut = 3,
    }
    StreamEnd {
        Finished = 1,
        Reset = 2,
        BadFrame = 3,
    }
    NodeState {
        Unknown = 1,
        Private = 2,
        Limited = 3,
        Public = 4,
    }
    State {
        Unknown = 1,
        Unreachable = 2,
        Reachable = 3,
    }
    Scope {
        ContactedOnly = 1,
        Contacted = 2,
        Anywhere = 3,
    }
    Source {
        Configured = 1,
        Mapped = 2,
        Observed = 3,
        Interface = 4,
        Guess = 5,
    }
    Outcome {
        Proved = 1,
        DialFailed = 2,
        Refused = 3,
        Rejected = 4,
        Error = 5,
        DialBackError = 6,
        Timeout = 7,
        Lie = 8,
        Declined = 9,
    }
    MappingBehavior {
        Unknown = 1,
        None = 2,
        EndpointIndependent = 3,
        AddressDependent = 4,
        AddressAndPortDependent = 5,
    }
    Served {
        Delivered = 1,
        DialFailed = 2,
        DialBackFailed = 3,
        Refused = 4,
        Rejected = 5,
        InternalError = 6,
        Aborted = 7,
        Connected = 8,
    }
    HearsayAnswer {
        Reachable = 1,
        Unreachable = 2,
        Nothing = 3,
    }
    Wake {
        IdentifyOverdue = 1,
        Ping = 2,
        VoteDecays = 3,
        ProbeOverdue = 4,
        NonceOverdue = 5,
        ServerRested = 6,
        ProbeAgain = 7,
        VerdictExpires = 8,
        HoldDownEnds = 9,
        UploadOverdue = 10,
        DialBackOverdue = 11,
        PushOverdue = 12,
        IdentifyAgain = 13,
        MappingDue = 14,
        LeaseExpires = 15,
        RelayNeed = 16,
        RelayDue = 17,
        RelayOverdue = 18,
        ReservationExpires = 19,
        CircuitOverdue = 20,
        RelayExchangeOverdue = 21,
        CircuitOvertime = 22,
        PunchDue = 23,
        PunchOverdue = 24,
        HearsayDue = 25,
        HearsayOverdue = 26,
    }
    Oddity {
        UnknownConnection = 1,
        UnknownStream = 2,
        UnknownDial = 3,
        UnknownListener = 4,
        ReusedId = 5,
        MalformedFrame = 6,
        UnexpectedFrame = 7,
        UnknownNonce = 8,
        MisplacedNonce = 9,
        ForeignKey = 10,
        BadPeerRecord = 11,
        Full = 12,
        UnknownAddress = 13,
        StrayDatagram = 14,
        UnknownFetch = 15,
        BadLedger = 16,
    }
    MappingProtocol {
        Pcp = 1,
        NatPmp = 2,
        Upnp = 3,
    }
    MappingState {
        Asking = 1,
        Granted = 2,
        Failed = 3,
    }
    FetchFailure {
        Refused = 1,
        TimedOut = 2,
        Malformed = 3,
        LocalFault = 4,
    }
    BridgeEnd {
        Finished = 1,
        Reset = 2,
        BytesUsedUp = 3,
        Cut = 4,
    }
    RelayState {
        Spare = 1,
        Connecting = 2,
        Asking = 3,
        Reserved = 4,
        Resting = 5,
    }
    PunchWay {
        Plain = 1,
        Client = 2,
        Server = 3,
        Open = 4,
        Sample = 5,
        Predicted = 6,
    }
    PunchFailure {
        EndpointDependent = 1,
        NoCommonAddress = 2,
        Unsupported = 3,
        BadAnswer = 4,
        NotReached = 5,
        CircuitLost = 6,
        Unpredictable = 7,
    }
    RelayNeed {
        Auto = 1,
        Always = 2,
        Never = 3,
        Expected = 4,
    }
}

/// A set of sources: bit `n` stands for the source with the number `n`.
pub(super) fn sources(set: Sources) -> u32 {
    set.iter().fold(0, |bits, source| bits | 1 << source.number())
}

/// A set of protocols: bit `n` stands for the protocol with the number `n`.
pub(super) fn protocols(set: ProtocolSet) -> u32 {
    set.iter().fold(0, |bits, protocol| bits | 1 << protocol.number())
}

/// The reverse of [`protocols`].
pub(super) fn protocol_set(bits: u32) -> Result<ProtocolSet, Unknown> {
    let mut set = ProtocolSet::NONE;
    for bit in (0..u32::BITS).filter(|bit| bits & 1 << bit != 0) {
        set = set.with(Protocol::numbered(bit, "a protocol that is not known")?);
    }
    Ok(set)
}

/// 4 bytes for IPv4, 16 for IPv6.
pub(super) fn ip(ip: IpAddr) -> Bytes {
    match ip {
        IpAddr::V4(ip) => Bytes::copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => Bytes::copy_from_slice(&ip.octets()),
    }
}

/// The reverse of [`ip`].
pub(super) fn ip_addr(bytes: &[u8]) -> Result<IpAddr, Unknown> {
    let ip4 = || <[u8; 4]>::try_from(bytes).map(|octets| Ipv4Addr::from(octets).into());
    let ip6 = || <[u8; 16]>::try_from(bytes).map(|octets| Ipv6Addr::from(octets).into());
    ip4().or_else(|_| ip6()).map_err(|_| Unknown("an IP address of the wrong length"))
}

/// The reverse of [`ip`], for a list.
pub(super) fn ip_addrs(all: &[Bytes]) -> Result<Vec<IpAddr>, Unknown> {
    all.iter().map(|bytes| ip_addr(bytes)).collect()
}

/// A peer id in its binary form.
pub(super) fn peer(peer: PeerId) -> Bytes {
    peer.to_bytes().into()
}

/// The reverse of [`peer`].
pub(super) fn peer_id(bytes: &[u8]) -> Result<PeerId, Unknown> {
    PeerId::from_bytes(bytes).map_err(|_| Unknown("not a peer id"))
}

/// `portolan.flight.Addr`
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::flight) struct AddrMessage {
    #[prost(bytes = "bytes", tag = "1")]
    ip: Bytes,
    #[prost(uint32, tag = "2")]
    port: u32,
    #[prost(uint32, tag = "3")]
    transport: u32,
}

impl From<Addr> for AddrMessage {
    fn from(addr: Addr) -> AddrMessage {
        let Addr { ip: host, port, transport } = addr;
        AddrMessage { ip: ip(host), port: port.into(), transport: transport.number() }
    }
}

impl TryFrom<AddrMessage> for Addr {
    type Error = Unknown;

    fn try_from(message: AddrMessage) -> Result<Addr, Unknown> {
        Ok(Addr {
            ip: ip_addr(&message.ip)?,
            port: u16::try_from(message.port).map_err(|_| Unknown("a port beyond 65535"))?,
            transport: Transport::numbered(message.transport, "a transport that is not known")?,
        })
    }
}

/// `portolan.flight.Socket`
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SocketMessage {
    #[prost(bytes = "bytes", tag = "1")]
    ip: Bytes,
    #[prost(uint32, tag = "2")]
    port: u32,
    #[prost(uint32, tag = "3")]
    scope: u32,
    #[prost(uint32, tag = "4")]
    flow: u32,
}

impl From<SocketAddr> for SocketMessage {
    fn from(socket: SocketAddr) -> SocketMessage {
        let (scope, flow) = match socket {
            SocketAddr::V4(_) => (0, 0),
            SocketAddr::V6(socket) => (socket.scope_id(), socket.flowinfo()),
        };
        SocketMessage { ip: ip(socket.ip()), port: socket.port().into(), scope, flow }
    }
}

impl TryFrom<SocketMessage> for SocketAddr {
    type Error = Unknown;

    fn try_from(message: SocketMessage) -> Result<SocketAddr, Unknown> {
        let SocketMessage { ip, port, scope, flow } = message;
        let port = u16::try_from(port).map_err(|_| Unknown("a port beyond 65535"))?;
        match ip_addr(&ip)? {
            IpAddr::V4(ip) if (scope, flow) == (0, 0) => Ok(SocketAddrV4::new(ip, port).into()),
            IpAddr::V4(_) => Err(Unknown("an IPv4 address with a scope or a flow")),
            IpAddr::V6(ip) => Ok(SocketAddrV6::new(ip, port, flow, scope).into()),
        }
    }
}

/// `portolan.flight.Span`
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::flight) struct Span {
    #[prost(uint64, tag = "1")]
    secs: u64,
    #[prost(uint32, tag = "2")]
    nanos: u32,
}

impl From<Duration> for Span {
    fn from(span: Duration) -> Span {
        Span { secs: span.as_secs(), nanos: span.subsec_nanos() }
    }
}

impl TryFrom<Span> for Duration {
    type Error = Unknown;

    fn try_from(message: Span) -> Result<Duration, Unknown> {
        let Span { secs, nanos } = message;
        if nanos < 1_000_000_000 {
            Ok(Duration::new(secs, nanos))
        } else {
            Err(Unknown("a span with a whole second in its nanoseconds"))
        }
    }
}

/// `portolan.flight.Stream`
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::flight) struct Stream {
    #[prost(uint32, tag = "1")]
    side: u32,
    #[prost(uint32, tag = "2")]
    protocol: u32,
    #[prost(uint64, tag = "3")]
    number: u64,
}

impl From<StreamId> for Stream {
    fn from(stream: StreamId) -> Stream {
        let StreamId { side, protocol, number } = stream;
        Stream { side: side.number(), protocol: protocol.number(), number }
    }
}

impl TryFrom<Stream> for StreamId {
    type Error = Unknown;

    fn try_from(message: Stream) -> Result<StreamId, Unknown> {
        Ok(StreamId {
            side: Side::numbered(message.side, "a stream of neither side")?,
            protocol: Protocol::numbered(message.protocol, "a protocol that is not known")?,
            number: message.number,
        })
    }
}

/// The content of a field that must be there.
pub(super) fn present<T>(field: Option<T>) -> Result<T, Unknown> {
    field.ok_or(Unknown("something is missing"))
}

/// The content of a field that must be there, in our own words.
pub(super) fn required<T, U: TryFrom<T, Error = Unknown>>(field: Option<T>) -> Result<U, Unknown> {
    present(field)?.try_into()
}

/// The content of a field that may be there, in our own words.
pub(super) fn optional<T, U: TryFrom<T, Error = Unknown>>(
    field: Option<T>,
) -> Result<Option<U>, Unknown> {
    field.map(U::try_from).transpose()
}
