//! The vocabulary of evidence and verdicts: plain words without power. The verdict itself, which
//! needs a proof, lives in [`reachability`](crate::reachability).

use super::time::Instant;
use core::fmt;

/// Where a candidate address came from, strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The operator declared it.
    Configured,
    /// A router granted it.
    Mapped,
    /// A peer saw us there.
    Observed,
    /// It is an address of one of our interfaces on which we listen.
    Interface,
    /// An observed IP with a port that we listen on.
    Guess,
}

impl Source {
    /// Every source, strongest first.
    pub const ALL: [Source; 5] =
        [Source::Configured, Source::Mapped, Source::Observed, Source::Interface, Source::Guess];

    /// The word in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Source::Configured => "configured",
            Source::Mapped => "mapped",
            Source::Observed => "observed",
            Source::Interface => "interface",
            Source::Guess => "guess",
        }
    }
}

/// A set of sources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sources(u8);

impl Sources {
    /// The empty set.
    pub const NONE: Sources = Sources(0);

    /// This set and `source`.
    #[must_use]
    pub const fn with(self, source: Source) -> Sources {
        Sources(self.0 | 1 << source as u8)
    }

    /// Whether `source` is in the set.
    pub const fn contains(self, source: Source) -> bool {
        self.0 & 1 << source as u8 != 0
    }

    /// Whether no source is left.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The sources of the set, strongest first.
    pub fn iter(self) -> impl Iterator<Item = Source> {
        Source::ALL.into_iter().filter(move |source| self.contains(*source))
    }
}

/// What a proof proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Reached from an IP that we had sent packets to; strangers are known to be refused.
    ContactedOnly,
    /// Reached from an IP that we had sent packets to; strangers are untested.
    Contacted,
    /// Reached from an IP that we never contacted.
    Anywhere,
}

impl Scope {
    /// The word in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Scope::ContactedOnly => "contacted-only",
            Scope::Contacted => "contacted",
            Scope::Anywhere => "anywhere",
        }
    }
}

/// The state of one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// No evidence, or not enough.
    Unknown,
    /// Every capable server in reach failed to dial it.
    Unreachable,
    /// A nonce came back over it.
    Reachable,
}

impl State {
    /// The word in reports.
    pub const fn name(self) -> &'static str {
        match self {
            State::Unknown => "unknown",
            State::Unreachable => "unreachable",
            State::Reachable => "reachable",
        }
    }
}

/// The state of a node, or of one (family, transport) class of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeState {
    /// Not decided.
    #[default]
    Unknown,
    /// Nobody can dial it.
    Private,
    /// Dialable by those it contacted; strangers are untested or refused.
    Limited,
    /// Dialable by anybody.
    Public,
}

impl NodeState {
    /// The word in reports.
    pub const fn name(self) -> &'static str {
        match self {
            NodeState::Unknown => "unknown",
            NodeState::Private => "private",
            NodeState::Limited => "limited",
            NodeState::Public => "public",
        }
    }
}

/// Why an address, a class or the node is in its state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// A nonce came back from an IP that was never contacted.
    ProvedByStranger,
    /// A nonce came back, and a stranger connected to the same address.
    StrangerConnected,
    /// A nonce came back from an IP that was contacted; strangers are untested.
    ProvedByContacted,
    /// A nonce came back from contacted IPs, while IPs never contacted were refused.
    StrangersRefused,
    /// A nonce came back from a contacted IP on an address presumed open: a global IPv4 address
    /// of our own interface, or one that the operator declared.
    PresumedOpen,
    /// So many servers, in as many networks, could not dial it; none could.
    DialFailed {
        /// How many servers failed.
        servers: u8,
    },
    /// A probe is in flight.
    Probing,
    /// Not a single AutoNAT v2 server is in reach.
    NoServers,
    /// Every server in reach refuses or cannot test this address.
    ServersRefused,
    /// Every server in reach is silent, at fault, or rate-limiting.
    ServersUnhelpful,
    /// Every server in reach has lied.
    ServersDistrusted,
    /// The proof aged out: no server was in reach, or none would say anything.
    Expired,
    /// The NAT maps every destination to a different port, says each of several networks.
    EndpointDependentMapping {
        /// Whether only two networks disagree so far; three without a shared value make it firm.
        provisional: bool,
    },
    /// There is no address that could be tested.
    NoCandidates,
    /// The operator forced the state.
    Forced,
    /// Nothing is listened on.
    NotListening,
    /// Nothing has happened yet.
    #[default]
    JustStarted,
    /// AutoNAT v1 servers in several networks say so, and nothing proves it; no AutoNAT v2 server
    /// has said anything.
    Hearsay,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Reason::ProvedByStranger => "a server dialled back from an IP never contacted",
            Reason::StrangerConnected => "a server dialled back, and a stranger connected",
            Reason::ProvedByContacted => "a contacted server dialled back; strangers untested",
            Reason::StrangersRefused => "only contacted servers get through; strangers are refused",
            Reason::PresumedOpen => "a contacted server dialled back to an address presumed open",
            Reason::DialFailed { servers: 1 } => "1 server could not dial it",
            Reason::DialFailed { servers } => {
                return write!(f, "{servers} servers could not dial it");
            }
            Reason::Probing => "a probe is in flight",
            Reason::NoServers => "no AutoNAT v2 server in reach",
            Reason::ServersRefused => "every server in reach refuses to test it",
            Reason::ServersUnhelpful => {
                "every server in reach is silent, at fault or rate-limiting"
            }
            Reason::ServersDistrusted => "every server in reach has lied",
            Reason::Expired => "the proof aged out and no server renewed it",
            Reason::EndpointDependentMapping { provisional: true } => {
                "endpoint-dependent mapping, provisional"
            }
            Reason::EndpointDependentMapping { provisional: false } => "endpoint-dependent mapping",
            Reason::NoCandidates => "no address to test",
            Reason::Forced => "forced by the operator",
            Reason::NotListening => "nothing is listened on",
            Reason::JustStarted => "nothing has happened yet",
            Reason::Hearsay => "hearsay of AutoNAT v1 servers, unproven",
        };
        f.write_str(text)
    }
}

/// How one probe ended. Only [`Outcome::Proved`] and [`Outcome::DialFailed`] say anything about
/// the address; the rest is about the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The nonce arrived on a new inbound connection of the claimed transport.
    Proved,
    /// The server could not connect (`OK` + `E_DIAL_ERROR`).
    DialFailed,
    /// `E_DIAL_REFUSED`: the server cannot or will not dial such an address.
    Refused,
    /// `E_REQUEST_REJECTED`: rate limit, resource limit or blacklist.
    Rejected,
    /// `E_INTERNAL_ERROR`, a status not understood, a broken stream or frame.
    Error,
    /// The server connected but could not deliver the nonce, and none came.
    DialBackError,
    /// No answer in time.
    Timeout,
    /// `OK` without a nonce.
    Lie,
    /// We declined to pay the dial data that the server asked for.
    Declined,
}

impl Outcome {
    /// Whether it says anything about the address.
    pub const fn is_evidence(self) -> bool {
        matches!(self, Outcome::Proved | Outcome::DialFailed)
    }

    /// The word in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Outcome::Proved => "proved",
            Outcome::DialFailed => "dial_failed",
            Outcome::Refused => "refused",
            Outcome::Rejected => "rejected",
            Outcome::Error => "error",
            Outcome::DialBackError => "dial_back_error",
            Outcome::Timeout => "timeout",
            Outcome::Lie => "lie",
            Outcome::Declined => "declined",
        }
    }
}

/// When an address is probed next, as far as it is known now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NextProbe {
    /// It is being probed, or is as soon as another probe has ended.
    Now,
    /// At that moment.
    At(Instant),
    /// When a server is there that can be asked and has not answered yet.
    WithServer,
}

/// How a NAT allocates external ports to one internal socket (RFC 4787 §4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MappingBehavior {
    /// Too few observers.
    #[default]
    Unknown,
    /// No translation: peers see our own address.
    None,
    /// One external address for all destinations.
    EndpointIndependent,
    /// One for each destination IP.
    AddressDependent,
    /// One for each destination IP and port (also where the two cannot be told apart).
    AddressAndPortDependent,
}

impl MappingBehavior {
    /// The word in reports.
    pub const fn name(self) -> &'static str {
        match self {
            MappingBehavior::Unknown => "unknown",
            MappingBehavior::None => "none",
            MappingBehavior::EndpointIndependent => "endpoint-independent",
            MappingBehavior::AddressDependent => "address-dependent",
            MappingBehavior::AddressAndPortDependent => "address-and-port-dependent",
        }
    }

    /// Whether the external port differs by destination.
    pub const fn is_endpoint_dependent(self) -> bool {
        matches!(self, MappingBehavior::AddressDependent | MappingBehavior::AddressAndPortDependent)
    }
}

/// Which inbound packets pass a NAT or firewall (RFC 4787 §5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FilteringBehavior {
    /// Not seen yet.
    #[default]
    Unknown,
    /// No filter and no translation.
    None,
    /// Anybody's.
    EndpointIndependent,
    /// Only those of IPs that were contacted.
    AddressDependent,
    /// Only those of IP and port pairs that were contacted.
    AddressAndPortDependent,
}

impl FilteringBehavior {
    /// The word in reports.
    pub const fn name(self) -> &'static str {
        match self {
            FilteringBehavior::Unknown => "unknown",
            FilteringBehavior::None => "none",
            FilteringBehavior::EndpointIndependent => "endpoint-independent",
            FilteringBehavior::AddressDependent => "address-dependent",
            FilteringBehavior::AddressAndPortDependent => "address-and-port-dependent",
        }
    }
}
