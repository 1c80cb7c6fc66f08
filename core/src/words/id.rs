//! Names for things that cross the door.

use super::protocol::Protocol;
use core::fmt;
pub use libp2p_identity::PeerId;

/// A connection; minted by the runtime, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// A listening socket; minted by the runtime, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId(pub u64);

/// A dial that core asked for; minted by core, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DialId(pub u64);

/// A stream, named so that it says who opened it and what is spoken on it: outbound ids are
/// minted by core, inbound ids by the runtime, and the two can never collide. The number is
/// unique within its side and protocol and is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// Who opened the stream.
    pub side: Side,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// Which of those streams it is.
    pub number: u64,
}

impl StreamId {
    /// A stream that the other peer opened.
    pub const fn inbound(protocol: Protocol, number: u64) -> StreamId {
        StreamId { side: Side::Inbound, protocol, number }
    }

    /// A stream that core opens.
    pub const fn outbound(protocol: Protocol, number: u64) -> StreamId {
        StreamId { side: Side::Outbound, protocol, number }
    }
}

/// Which side opened a connection or a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The other peer did.
    Inbound,
    /// We did.
    Outbound,
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}", self.0)
    }
}

impl fmt::Display for DialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "d{}", self.0)
    }
}

impl fmt::Display for ListenerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "l{}", self.0)
    }
}

impl fmt::Display for StreamId {
    /// `>dial-request:3` for ours, `<identify:1` for theirs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arrow = match self.side {
            Side::Inbound => '<',
            Side::Outbound => '>',
        };
        write!(f, "{arrow}{}:{}", self.protocol.word(), self.number)
    }
}
