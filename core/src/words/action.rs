//! What goes out: orders to the runtime, in the imperative, and the sink that carries them.

use super::addr::Addr;
use super::id::{ConnId, DialId, StreamId};
use super::mapping::MappingAction;
use super::notice::Notice;
use super::punch::PunchAction;
use super::relay::RelayAction;
use super::time::Duration;
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::IpAddr;

/// One order to the runtime. Actions must be performed in order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Open a stream on a connection and negotiate its protocol. Answered by
    /// [`Event::StreamOpened`](crate::Event::StreamOpened) or
    /// [`Event::StreamFailed`](crate::Event::StreamFailed) with the same id. Frames may be sent
    /// at once; the runtime keeps them until the stream is open.
    OpenStream {
        /// The connection.
        conn: ConnId,
        /// The id by which the stream will be known.
        stream: StreamId,
    },
    /// Send one message; the runtime frames it by the rule of the stream's protocol.
    Send {
        /// The stream.
        stream: StreamId,
        /// The body of the message.
        body: Bytes,
    },
    /// Finish sending. What was sent before is still delivered; the other direction stays open
    /// until the peer finishes, and further frames of it are still handed in.
    CloseStream {
        /// The stream.
        stream: StreamId,
    },
    /// Drop both directions of a stream at once.
    ResetStream {
        /// The stream.
        stream: StreamId,
    },
    /// Dial on behalf of somebody else (see [`Dial`]). Answered by
    /// [`Event::Connected`](crate::Event::Connected) or
    /// [`Event::DialFailed`](crate::Event::DialFailed) with the same id.
    Dial(Dial),
    /// Close a connection once what was sent on it has been delivered.
    Disconnect {
        /// The connection.
        conn: ConnId,
    },
    /// Do something about routers and the ports that they map.
    Mapping(MappingAction),
    /// Do something about relays and circuits.
    Relay(RelayAction),
    /// Do something about hole punching.
    Punch(PunchAction),
    /// Tell the application.
    Notify(Notice),
}

/// A dial-back: always a fresh transport connection, from a fresh port that nothing listens on,
/// under an identity separate from the node's. Never an existing connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dial {
    /// The id that the answer carries.
    pub dial: DialId,
    /// The one destination.
    pub addr: Addr,
    /// The source IP to dial from; `None` leaves it to the host.
    pub source: Option<IpAddr>,
    /// How long connecting and handshakes may take together.
    pub timeout: Duration,
}

/// The caller's sink for actions. It is complete when `handle` returns; keep it and drain it
/// between steps, so that its memory is used again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actions(Vec<Action>);

impl Actions {
    /// An empty sink.
    pub const fn new() -> Actions {
        Actions(Vec::new())
    }

    /// Append an action.
    pub fn push(&mut self, action: Action) {
        self.0.push(action);
    }

    /// Append a notice.
    pub fn notify(&mut self, notice: Notice) {
        self.push(Action::Notify(notice));
    }

    /// Take every action out, oldest first; the memory stays.
    pub fn drain(&mut self) -> impl Iterator<Item = Action> + '_ {
        self.0.drain(..)
    }

    /// The actions written so far, oldest first.
    pub fn as_slice(&self) -> &[Action] {
        &self.0
    }

    /// Whether nothing is waiting to be performed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
