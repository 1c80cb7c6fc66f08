//! What the application should know.

use super::addr::{Addr, Class};
use super::hearsay::HearsayAnswer;
use super::id::{ConnId, PeerId};
use super::judgement::{MappingBehavior, NodeState, Outcome, Reason, Scope, Sources, State};
use super::mapping::{GatewayAnswer, Mapping};
use super::punch::PunchNotice;
use super::relay::RelayNotice;
use super::time::Duration;
use alloc::string::String;
use alloc::vec::Vec;

/// News for the application. Notices carry no duty: ignoring them is safe.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// An address that may be ours is known, or is known from other sources than before.
    CandidateChanged {
        /// The address.
        addr: Addr,
        /// Where it is known from; empty when it is no longer a candidate.
        sources: Sources,
    },
    /// The verdict on an address changed.
    VerdictChanged {
        /// The address.
        addr: Addr,
        /// Its state.
        state: State,
        /// What its proof proves, when reachable.
        scope: Option<Scope>,
        /// Why.
        reason: Reason,
    },
    /// The state of a (family, transport) class, or its reason, changed.
    ClassChanged {
        /// The class.
        class: Class,
        /// Its state.
        state: NodeState,
        /// Why.
        reason: Reason,
    },
    /// The node's state, or its reason, changed.
    NodeChanged {
        /// The state.
        state: NodeState,
        /// Why.
        reason: Reason,
    },
    /// The node may now serve others (or may no longer): DHT server mode, relay service.
    RoleChanged {
        /// Whether it may.
        may_serve: bool,
    },
    /// What is known of a NAT's mapping behaviour changed.
    MappingInferred {
        /// The class.
        class: Class,
        /// The behaviour.
        mapping: MappingBehavior,
        /// Whether only two networks disagree so far.
        provisional: bool,
    },
    /// A peer's identify was understood.
    Identified {
        /// The connection.
        conn: ConnId,
        /// The peer.
        peer: PeerId,
        /// The address it sees us as, if it said one that can be one.
        observed: Option<Addr>,
        /// Whether it offers to dial back.
        server: bool,
        /// What software it says it is, if this answer says so; cut after 128 characters. It may be
        /// anything at all.
        agent: Option<String>,
    },
    /// A peer did not say who it is: it does not speak identify, was silent for too long, or left.
    NotIdentified {
        /// The connection.
        conn: ConnId,
        /// The peer.
        peer: PeerId,
    },
    /// A probe ended.
    ProbeEnded {
        /// The server asked.
        peer: PeerId,
        /// The address probed.
        addr: Addr,
        /// How it ended.
        outcome: Outcome,
    },
    /// A server lost its standing: it claimed a success that was none.
    ServerDistrusted {
        /// The server.
        peer: PeerId,
    },
    /// An AutoNAT v1 server answered, or failed to. Nothing proves what it says.
    HearsayHeard {
        /// The server asked.
        peer: PeerId,
        /// What it said.
        answer: HearsayAnswer,
    },
    /// The set of addresses that peers are told changed.
    AdvertisedChanged {
        /// Told from now on.
        added: Vec<Addr>,
        /// Withdrawn.
        removed: Vec<Addr>,
    },
    /// Something about relays and circuits.
    Relay(RelayNotice),
    /// Something about hole punching.
    Punch(PunchNotice),
    /// A wanted mapping was granted, changed or failed, or is not wanted any more.
    MappingChanged {
        /// The address of ours that is mapped.
        internal: Addr,
        /// How the mapping stands; `None` when it is not wanted any more.
        mapping: Option<Mapping>,
    },
    /// A router was found to speak a mapping protocol, or tells another external address.
    GatewayAnswered(GatewayAnswer),
    /// We answered somebody's dial request.
    DialBackServed {
        /// The requester.
        peer: PeerId,
        /// The address dialled, if one was.
        addr: Option<Addr>,
        /// How it went.
        answer: Served,
        /// How long it took, from the opening of the request's stream.
        took: Duration,
    },
    /// For the first time a peer that a source introduced to us
    /// ([`Event::Introduced`](crate::Event::Introduced)) asked us to dial it, and we did: the network
    /// uses us as we use it.
    FullyConnected {
        /// The requester.
        peer: PeerId,
    },
    /// An event made no sense, or a peer broke a rule; it was ignored and counted.
    Ignored {
        /// What was odd.
        oddity: Oddity,
        /// The connection it came on, if one is known.
        conn: Option<ConnId>,
    },
}

/// How a dial request of somebody else was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Served {
    /// Dialled, and the nonce was delivered.
    Delivered,
    /// Dialled without a connection.
    DialFailed,
    /// Connected, but the nonce was not taken.
    DialBackFailed,
    /// Refused: no address that we can or will dial.
    Refused,
    /// Rejected: a limit was reached.
    Rejected,
    /// Our own fault.
    InternalError,
    /// The requester went away, broke a rule, or was too slow.
    Aborted,
    /// AutoNAT v1: dialled, and somebody with the requester's key answered. There is no nonce.
    Connected,
}

/// Something odd that was ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Oddity {
    /// An event for a connection that is not known.
    UnknownConnection,
    /// An event for a stream that is not known.
    UnknownStream,
    /// An event for a dial that is not known.
    UnknownDial,
    /// An event for a listener that is not known.
    UnknownListener,
    /// An id was used twice.
    ReusedId,
    /// A frame that does not decode.
    MalformedFrame,
    /// More frames than the protocol allows, or one at the wrong moment.
    UnexpectedFrame,
    /// A nonce that belongs to no probe.
    UnknownNonce,
    /// A right nonce in a wrong place: an existing, outbound or relayed connection, one from before
    /// a long suspend, or another transport or family than claimed.
    MisplacedNonce,
    /// A public key that does not belong to the authenticated peer.
    ForeignKey,
    /// A signed peer record that is invalid or foreign.
    BadPeerRecord,
    /// A collection is full.
    Full,
    /// A report about an address that was never asked about.
    UnknownAddress,
    /// A datagram or a response that comes from nobody whom we asked, or does not decode.
    StrayDatagram,
    /// An event for a fetch that is not known.
    UnknownFetch,
    /// Stored bytes that are no ledger.
    BadLedger,
}
