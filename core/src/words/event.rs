//! What comes in: facts about the world, in the past tense.

use super::addr::Addr;
use super::id::{ConnId, DialId, ListenerId, PeerId, Side, StreamId};
use super::mapping::MappingEvent;
use super::protocol::ProtocolSet;
use super::punch::PunchEvent;
use super::relay::RelayEvent;
use super::time::Duration;
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::IpAddr;

/// One fact handed to [`Agent::handle`](crate::Agent::handle).
///
/// A fact that makes no sense (an unknown connection, a stream that was closed) is ignored,
/// counted, and named in a notice; it is never an error.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Time has passed; nothing else happened.
    Tick,
    /// The machine was suspended and runs again. Handed in before any other fact that was found
    /// afterwards; `now` has counted the time asleep already.
    ///
    /// Everything that faces the network is validated anew, and nothing is forgotten that is still
    /// true:
    ///
    /// - *What was in flight did not have its chance.* Whatever waits for somebody gets the time
    ///   back: questions of identify, pings, probes and the nonces that follow them, pushes, the
    ///   requests that we serve and the dials for them, and the hold-down of a role. A probe that we
    ///   slept through can still prove an address; if it fails, that is held against neither the
    ///   address nor the server. A dial of ours for others that failed is our own fault.
    /// - *What ages in truth has aged:* proofs, votes, sightings of strangers, contacted IPs,
    ///   distrust and other rests of servers, rate limits, pauses between rounds. A proof that is
    ///   too old proves nothing any more; one that is young enough stays.
    /// - After more than [`NAP`](crate::config::NAP), *every connection is in doubt,* and so
    ///   is every verdict. Connections are pinged, servers first, so that the runtime finds the
    ///   dead ones. Until one has answered, others are preferred to it, and what fails on it is not
    ///   held against a server; one that stays silent is no longer kept. A nonce that one of them
    ///   brings proves nothing any more. Peers that we dialled are asked where they see us now, and
    ///   what others of them said before contradicts no new answer. Probes under way are taken back,
    ///   and every server in reach is asked about every address; what is proven stays so meanwhile.
    /// - *The wall clock decides nothing,* wherever it was set. The sequence number of our record
    ///   only rises.
    ///
    /// An embedder that runs identify or ping itself asks its peers anew by itself.
    Resumed {
        /// How long it was suspended.
        slept: Duration,
    },
    /// A listening socket stands. `addr` is what it is bound to and may be a wildcard IP; the
    /// port is never zero.
    ListenerOpened {
        /// The new listener.
        listener: ListenerId,
        /// The bound address.
        addr: Addr,
    },
    /// A listening socket is gone.
    ListenerClosed {
        /// The listener that closed.
        listener: ListenerId,
    },
    /// The host's interface addresses are now these.
    InterfacesChanged {
        /// Every IP of an interface that is up.
        ips: Vec<IpAddr>,
    },
    /// We sent a first packet to this IP: a dial of ours, or anything else the application did.
    /// (Dials reported as [`Event::Connected`] with [`Side::Outbound`] count by themselves.)
    Contacted {
        /// The exact IP.
        ip: IpAddr,
    },
    /// A connection finished its handshakes.
    Connected(Connected),
    /// A connection is gone, and every stream on it.
    Disconnected {
        /// The connection that ended.
        conn: ConnId,
    },
    /// A dial that core asked for failed.
    DialFailed {
        /// The id of the dial.
        dial: DialId,
        /// How it failed.
        reason: DialFailure,
    },
    /// Peers told the application that they could not dial this address of ours. Hearsay, which
    /// judges nothing: where the address is proven, a server is asked soon whether it still is. Reports
    /// cost no more than one round of questions in the shortest pause, however often they are made.
    DialFailureReported {
        /// The address that was dialled in vain.
        addr: Addr,
    },
    /// A source of the application's, such as a bootstrap list, names this peer. Core does not act on it:
    /// what one source names counts as one where several networks have to agree, and relays are
    /// spread over sources. The first source that names a peer counts.
    Introduced {
        /// The peer.
        peer: PeerId,
        /// The source, by a number of the application's.
        source: u16,
    },
    /// A stream is open and its protocol agreed: one the other peer opened, or one core asked for.
    StreamOpened {
        /// The connection it runs on.
        conn: ConnId,
        /// The stream.
        stream: StreamId,
    },
    /// A stream that core asked for could not be opened.
    StreamFailed {
        /// The id of the request.
        stream: StreamId,
        /// Why not.
        reason: StreamFailure,
    },
    /// One whole message arrived on a stream, without its length prefix.
    Frame {
        /// The stream.
        stream: StreamId,
        /// The body of the message.
        body: Bytes,
    },
    /// The other peer sends no more on this stream.
    StreamClosed {
        /// The stream.
        stream: StreamId,
        /// How it ended.
        end: StreamEnd,
    },
    /// A peer told us what address it sees us as. For embedders that run identify themselves;
    /// with [`Config::identify`](crate::Config::identify) on, core learns it by itself.
    Observed {
        /// The connection on which the peer said so.
        conn: ConnId,
        /// The address it sees.
        observed: Addr,
    },
    /// A peer told us which protocols it serves. For embedders that run identify themselves.
    ProtocolsListed {
        /// The connection on which the peer said so.
        conn: ConnId,
        /// The protocols of ours among them.
        protocols: ProtocolSet,
    },
    /// Something about routers and the ports that they map.
    Mapping(MappingEvent),
    /// Something about relays and circuits.
    Relay(RelayEvent),
    /// Something about hole punching.
    Punch(PunchEvent),
}

/// The facts about a connection that finished its handshakes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected {
    /// The connection's id.
    pub conn: ConnId,
    /// The authenticated peer.
    pub peer: PeerId,
    /// Who opened it.
    pub side: Side,
    /// The *actual* local address of the socket, never the one that was wished for.
    pub local: Addr,
    /// The remote address of the socket.
    pub remote: Addr,
    /// Whether it runs through a relay.
    pub relayed: bool,
    /// The dial of core's that it answers, if it does.
    pub dial: Option<DialId>,
    /// A round-trip time measured while connecting, if one was.
    pub rtt: Option<Duration>,
}

/// How a dial failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DialFailure {
    /// The remote refused: RST, or ICMP unreachable.
    Refused,
    /// Nothing answered in time.
    TimedOut,
    /// Something answered, but the security or muxer handshake failed.
    Handshake,
    /// Our own host could not try: no route, no socket, no source address, too many open files.
    LocalFault,
}

/// Why a stream could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamFailure {
    /// The other peer does not speak the protocol.
    Unsupported,
    /// Reset, connection lost, or a local limit.
    Failed,
    /// The other peer did not agree in time.
    TimedOut,
}

/// How the receiving side of a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamEnd {
    /// The other peer finished sending.
    Finished,
    /// Reset by the other peer, or by the runtime because the connection or the muxer failed.
    Reset,
    /// Reset by the runtime: the peer broke the frame rule of the protocol.
    BadFrame,
}
