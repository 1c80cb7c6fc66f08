//! The vocabulary of hole punching (DCUtR): dials of an attempt, and what is told of it.

use super::addr::{Addr, Class};
use super::event::DialFailure;
use super::id::{ConnId, PeerId};
use super::time::Duration;
use core::fmt;

/// One dial of an attempt; minted by core, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PunchId(pub u64);

impl fmt::Display for PunchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.0)
    }
}

/// How one dial of an attempt is made. But for [`PunchWay::Sample`] and [`PunchWay::Predicted`], all
/// leave from the port of a listener of ours, for that is what the other side knows of us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PunchWay {
    /// As any dial: we are the client, and a refusal is final.
    Plain,
    /// We are the client, while the other side opens its own NAT. Over TCP a refusal is answered by
    /// a new SYN until the time is over. A connection that the listener accepts from the very
    /// address, be it before or meanwhile, is this one: on it we are the client, too.
    Client,
    /// We are the server, whoever's packet comes first. TCP: SYNs as for [`PunchWay::Client`], and
    /// above the connection we listen. QUIC: datagrams of random bytes, at random intervals, which
    /// open our own NAT; the connection arrives at the listener.
    Server,
    /// We are the server, and send a single packet, which opens our own NAT for one port that may be
    /// the other side's. TCP: one SYN, whose socket is closed at once. QUIC: one datagram of random
    /// bytes. The connection arrives at the listener. Once the packet has left it has ended, as timed
    /// out.
    Open,
    /// As [`PunchWay::Plain`], but from a port that nothing of ours has used lately, to somebody who
    /// says where that is seen: an observer, not the peer that is punched for.
    Sample,
    /// We are the client, from a port that nothing of ours has used lately, while the other side opens
    /// its own NAT: which port our NAT gives to it has been predicted. A refusal is answered by another
    /// try from the same port, until the time is over, five times a second at most.
    Predicted,
}

impl PunchWay {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            PunchWay::Plain => "plain",
            PunchWay::Client => "client",
            PunchWay::Server => "server",
            PunchWay::Open => "open",
            PunchWay::Sample => "sample",
            PunchWay::Predicted => "predicted",
        }
    }
}

/// An order of hole punching.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PunchAction {
    /// Dial, and expect this peer. Answered by [`Event::Connected`](crate::Event::Connected), with
    /// the side that the way names, or by [`PunchEvent::Failed`]; of a dial that only sends, and of
    /// one whose peer's packet was accepted by the listener, the answer is the connection that
    /// arrives there.
    Dial {
        /// The id that a failure carries.
        punch: PunchId,
        /// The peer.
        peer: PeerId,
        /// Its address.
        addr: Addr,
        /// How.
        way: PunchWay,
        /// How long the transport may take to connect. The handshakes have a time of their own.
        timeout: Duration,
    },
    /// The attempt is over: stop this dial, and send nothing more for it. Nothing answers. Of a dial
    /// as the server, or a plain one over TCP, that is connected already, the handshakes go on: the
    /// client has the choice, and the connection may be told all the same.
    Cancel {
        /// The dial; one that has ended is no fault.
        punch: PunchId,
    },
    /// Open a circuit to the peer, as if the application had dialled it through this relay: the direct
    /// connection to it is about to break. Nothing answers but the connection, if there is one.
    CallAgain {
        /// The peer.
        peer: PeerId,
        /// The relay.
        relay: PeerId,
        /// Where the relay is.
        addr: Addr,
    },
}

/// A fact about hole punching.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PunchEvent {
    /// A dial of [`PunchAction::Dial`] came to nothing.
    Failed {
        /// The dial.
        punch: PunchId,
        /// How it failed.
        reason: DialFailure,
    },
    /// A connection ended without a word of the peer: nothing came for too long, or the network said
    /// that there is no way. Told before [`Event::Disconnected`](crate::Event::Disconnected); those
    /// that came of punching are judged by it.
    Broke {
        /// The connection.
        conn: ConnId,
    },
}

/// Why there is no direct connection yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum PunchFailure {
    /// Both NATs map by the endpoint, or one does and the other filters by the port: neither side can
    /// know where to send.
    EndpointDependent,
    /// No transport over which both could be reached: no listener, or no address.
    NoCommonAddress,
    /// The peer does not speak the protocol.
    Unsupported,
    /// The peer did not answer in time, or what it said makes no sense.
    BadAnswer,
    /// Every dial of every attempt failed.
    NotReached,
    /// The relayed connection ended meanwhile.
    CircuitLost,
    /// Ports were to be predicted ([`PunchConfig::predict_ports`](crate::PunchConfig)), but our NAT gives
    /// them out in no order, or nobody told us which.
    Unpredictable,
}

impl PunchFailure {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            PunchFailure::EndpointDependent => "endpoint-dependent",
            PunchFailure::NoCommonAddress => "no-common-address",
            PunchFailure::Unsupported => "unsupported",
            PunchFailure::BadAnswer => "bad-answer",
            PunchFailure::NotReached => "not-reached",
            PunchFailure::CircuitLost => "circuit-lost",
            PunchFailure::Unpredictable => "unpredictable",
        }
    }
}

/// News about hole punching.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PunchNotice {
    /// An attempt at a direct connection begins: its dials follow.
    Attempted {
        /// The peer.
        peer: PeerId,
        /// The relayed connection.
        circuit: ConnId,
        /// Which of the attempts it is, from 1.
        attempt: u8,
    },
    /// The peer is connected directly. The relayed connection is closed a little later.
    Connected {
        /// The peer.
        peer: PeerId,
        /// The direct connection.
        conn: ConnId,
        /// Where it leads.
        addr: Addr,
        /// Attempts that were made, number; 0: a plain dial was enough, whoever made it.
        attempts: u8,
        /// How long it took, from the relayed connection on.
        took: Duration,
    },
    /// There is no direct connection, and none is tried before something changes or a while is over.
    Failed {
        /// The peer.
        peer: PeerId,
        /// Why.
        reason: PunchFailure,
        /// Attempts that were made, number.
        attempts: u8,
        /// The class that the reason is about, where it is about one.
        class: Option<Class>,
    },
}
