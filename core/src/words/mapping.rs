//! The vocabulary of port mapping: gateways, the sockets and requests that reach them, and what
//! is told of a mapping.

use super::addr::Addr;
use super::time::{Duration, Instant};
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use core::fmt;
use core::net::{IpAddr, SocketAddr};

/// A protocol by which a router is asked for a port, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MappingProtocol {
    /// The Port Control Protocol, RFC 6887.
    Pcp,
    /// NAT-PMP, RFC 6886.
    NatPmp,
    /// UPnP IGD, versions 1 and 2.
    Upnp,
}

impl MappingProtocol {
    /// Every protocol, best first.
    pub const ALL: [MappingProtocol; 3] =
        [MappingProtocol::Pcp, MappingProtocol::NatPmp, MappingProtocol::Upnp];

    /// The word in reports: `pcp`, `nat-pmp`, `upnp`.
    pub const fn name(self) -> &'static str {
        match self {
            MappingProtocol::Pcp => "pcp",
            MappingProtocol::NatPmp => "nat-pmp",
            MappingProtocol::Upnp => "upnp",
        }
    }
}

impl fmt::Display for MappingProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A router to which the host sends what it has no other way for, on one interface and in one
/// family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gateway {
    /// The router's address on the link; over IPv6 mostly a link-local one.
    pub router: IpAddr,
    /// The number by which the operating system knows the interface.
    pub interface: u32,
    /// Our own address from which the router is asked.
    pub source: IpAddr,
}

impl fmt::Display for Gateway {
    /// `192.168.1.1%2 from 192.168.1.7`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%{} from {}", self.router, self.interface, self.source)
    }
}

/// A UDP socket that speaks with a router. It is named by what it is for; the runtime opens it on
/// [`MappingAction::OpenChannel`] and hands in what it receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    /// Asks routers and receives their answers: bound to `source` and a port of the system's.
    Client {
        /// Our own address that it is bound to, from which alone it sends.
        source: IpAddr,
        /// The interface of that address, for link-local and multicast destinations.
        interface: u32,
    },
    /// Hears what routers tell everybody: bound to the address and port of a multicast group,
    /// shared with other programs that do the same.
    Group {
        /// The group and its port.
        group: SocketAddr,
        /// The address of ours whose interface joins.
        source: IpAddr,
        /// The interface that joins.
        interface: u32,
    },
}

impl fmt::Display for Channel {
    /// `192.168.1.7%2`, or `224.0.0.1:5350 at 192.168.1.7%2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Channel::Client { source, interface } => write!(f, "{source}%{interface}"),
            Channel::Group { group, source, interface } => {
                write!(f, "{group} at {source}%{interface}")
            }
        }
    }
}

/// An HTTP request to a router; minted by core, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FetchId(pub u64);

impl fmt::Display for FetchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "f{}", self.0)
    }
}

/// One HTTP request to a router, over a TCP connection of its own. The runtime writes it in one
/// piece and reads one response, both by [`wire::upnp`](crate::wire::upnp).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// The id that the answer carries.
    pub fetch: FetchId,
    /// Our own address from which to connect.
    pub source: IpAddr,
    /// The interface of that address, for link-local destinations.
    pub interface: u32,
    /// Whom to connect to. Nobody else may be asked: redirects are errors.
    pub to: SocketAddr,
    /// The path and query of the request.
    pub path: String,
    /// The SOAP action and its body, for a `POST`; a `GET` without.
    pub soap: Option<Soap>,
    /// How long connecting, asking and reading may take together.
    pub timeout: Duration,
}

/// What a SOAP request carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Soap {
    /// The value of the `SOAPAction` header, without quotes: `urn:…:1#AddPortMapping`.
    pub action: String,
    /// The envelope.
    pub body: Bytes,
}

/// Why an HTTP request had no response that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FetchFailure {
    /// The connection was refused or reset.
    Refused,
    /// No whole response in time.
    TimedOut,
    /// The response is no HTTP, too long, or a redirect.
    Malformed,
    /// Our own host could not try.
    LocalFault,
}

/// A fact about routers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MappingEvent {
    /// The host's gateways are now these.
    GatewaysChanged {
        /// Every default route's router, preferred ones first.
        gateways: Vec<Gateway>,
    },
    /// A datagram arrived.
    DatagramReceived {
        /// The socket on which.
        channel: Channel,
        /// Who sent it.
        from: SocketAddr,
        /// What it holds.
        body: Bytes,
    },
    /// The host to which a datagram went says that nobody listens there (ICMP port unreachable).
    DatagramRefused {
        /// The socket that sent it.
        channel: Channel,
        /// Where it went, if the system tells; any router of that socket otherwise.
        to: Option<SocketAddr>,
    },
    /// A whole HTTP response was read.
    Fetched {
        /// The id of the request.
        fetch: FetchId,
        /// The status code.
        status: u16,
        /// The body.
        body: Bytes,
    },
    /// An HTTP request failed.
    FetchFailed {
        /// The id of the request.
        fetch: FetchId,
        /// How.
        reason: FetchFailure,
    },
    /// What an earlier run stored last ([`MappingAction::StoreLedger`]). Handed in before any gateway;
    /// bytes that are no ledger are ignored, counted, and named in a notice.
    LedgerRead {
        /// The stored bytes.
        ledger: Bytes,
    },
    /// The node is about to end: every mapping is given back. What cannot be given back soon stays
    /// in the ledger. [`Agent::has_released`](crate::Agent::has_released) says when all is done.
    Closing,
}

/// An order about routers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MappingAction {
    /// Open a socket. One that cannot be opened is as one that receives nothing.
    OpenChannel {
        /// Which.
        channel: Channel,
    },
    /// Close a socket.
    CloseChannel {
        /// Which.
        channel: Channel,
    },
    /// Send one datagram.
    SendDatagram {
        /// Out of which socket.
        channel: Channel,
        /// Where to.
        to: SocketAddr,
        /// What.
        body: Bytes,
    },
    /// Make an HTTP request. Answered by [`MappingEvent::Fetched`] or [`MappingEvent::FetchFailed`].
    Fetch(Fetch),
    /// Store these bytes in the place of those stored before, so that they survive a crash, and
    /// for the node's user alone: they hold the secrets by which mappings are renewed and deleted.
    StoreLedger {
        /// What to store.
        ledger: Bytes,
    },
}

/// How far a wanted mapping is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum MappingState {
    /// Nothing is granted so far.
    Asking,
    /// A router granted it.
    Granted,
    /// No router grants it for now; it is asked again later.
    Failed,
}

impl MappingState {
    /// The word in reports.
    pub const fn name(self) -> &'static str {
        match self {
            MappingState::Asking => "asking",
            MappingState::Granted => "granted",
            MappingState::Failed => "failed",
        }
    }
}

/// Why a mapping is in its state, or what is wrong with it although it is granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum MappingReason {
    /// A question is under way.
    #[default]
    Asking,
    /// Granted, with nothing to complain about.
    Granted,
    /// There is no gateway.
    NoGateway,
    /// The gateway speaks none of the protocols, or none that is allowed.
    Silent,
    /// The gateway refuses: mapping is switched off, or not for us.
    Refused {
        /// The protocol asked last.
        protocol: MappingProtocol,
        /// The protocol's own code.
        code: u16,
    },
    /// The gateway has no room or no quota left.
    Exhausted {
        /// The protocol asked last.
        protocol: MappingProtocol,
        /// The protocol's own code.
        code: u16,
    },
    /// The gateway is not connected itself, or is behind another NAT and says so.
    GatewayOffline {
        /// The protocol asked last.
        protocol: MappingProtocol,
    },
    /// There is another NAT between us and the gateway.
    NestedNetwork,
    /// The gateway failed at it in another way.
    Faulty {
        /// The protocol asked last.
        protocol: MappingProtocol,
        /// The protocol's own code; 0 where the answer was none.
        code: u16,
    },
    /// Every port that was tried belongs to somebody else.
    Conflict,
    /// Granted, but the gateway itself is behind another NAT: its external address is private.
    GatewayBehindNat {
        /// The external address it tells.
        external: IpAddr,
    },
    /// Granted and listed, but servers cannot dial it, whatever was tried.
    NotForwarding,
}

impl fmt::Display for MappingReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MappingReason::Asking => f.write_str("the gateway is being asked"),
            MappingReason::Granted => f.write_str("granted"),
            MappingReason::NoGateway => f.write_str("no gateway"),
            MappingReason::Silent => f.write_str("the gateway answers no mapping protocol"),
            MappingReason::Refused { protocol, code } => {
                write!(f, "the gateway refuses ({protocol} code {code})")
            }
            MappingReason::Exhausted { protocol, code } => {
                write!(f, "the gateway has no room left ({protocol} code {code})")
            }
            MappingReason::GatewayOffline { protocol } => {
                write!(f, "the gateway has no public connection itself ({protocol})")
            }
            MappingReason::NestedNetwork => {
                f.write_str("another NAT stands between us and the gateway")
            }
            MappingReason::Faulty { protocol, code: 0 } => {
                write!(f, "the gateway's answers make no sense ({protocol})")
            }
            MappingReason::Faulty { protocol, code } => {
                write!(f, "the gateway failed ({protocol} code {code})")
            }
            MappingReason::Conflict => f.write_str("every port that was tried is taken"),
            MappingReason::GatewayBehindNat { external } => {
                write!(f, "mapped, but the router itself is behind {external}")
            }
            MappingReason::NotForwarding => {
                f.write_str("mapped, but the router does not forward: servers cannot dial it")
            }
        }
    }
}

/// A wanted mapping as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The address of ours that is to be reached.
    pub internal: Addr,
    /// How far it is.
    pub state: MappingState,
    /// Why.
    pub reason: MappingReason,
    /// The period that a router granted, if one did.
    pub lease: Option<Lease>,
}

/// One granted period of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lease {
    /// The router that granted it.
    pub router: IpAddr,
    /// The protocol by which.
    pub protocol: MappingProtocol,
    /// The external address, as the router tells it: whether the world can reach it is for a
    /// probe to say.
    pub external: Addr,
    /// How long it was granted for; `None` until it is deleted.
    pub lifetime: Option<Duration>,
}

/// When the present period of a mapping ends, and what happens before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeaseTerm {
    /// The address of ours that is mapped.
    pub internal: Addr,
    /// When the router forgets it unless it is renewed; `None` is never.
    pub until: Option<Instant>,
    /// When the next period is asked for, or the mapping looked after.
    pub renew_at: Option<Instant>,
}

impl fmt::Display for Lease {
    /// `/ip4/44.1.2.3/tcp/4001 by pcp at 192.168.1.1 for 7200 s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Lease { router, protocol, external, lifetime } = self;
        write!(f, "{external} by {protocol} at {router}")?;
        match lifetime {
            Some(lifetime) => write!(f, " for {} s", lifetime.as_secs()),
            None => f.write_str(" until deleted"),
        }
    }
}

/// What a router was found to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GatewayAnswer {
    /// The router.
    pub router: IpAddr,
    /// The protocol.
    pub protocol: MappingProtocol,
    /// The external IP it told, if it did.
    pub external: Option<IpAddr>,
}
