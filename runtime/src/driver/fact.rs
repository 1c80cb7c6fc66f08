//! What the tasks of connections, streams and dials tell the driver.

use crate::driver::bridge::Bridged;
use crate::driver::limits::FACTS_MAX;
use crate::driver::stream::Orders;
use crate::driver::table::Via;
use crate::net::{DialError, Established};
use crate::node::{self, Dialled};
use async_channel::{Receiver, Sender};
use bytes::Bytes;
use futures::channel::oneshot;
use multiaddr::Multiaddr;
use portolan_core::{
    Addr, CircuitId, ConnId, DialId, PeerId, PunchId, StreamEnd, StreamFailure, StreamId,
};

/// One thing that happened.
#[derive(Debug)]
pub(crate) enum Fact {
    /// A dial of the application ended.
    Dialled { dial: AppDial, result: Result<Established, DialError> },
    /// A dial that core asked for ended.
    DialledBack { dial: DialId, result: Result<Established, DialError> },
    /// A dial to a relay that core asked for ended.
    RelayDialled { peer: PeerId, addr: Addr, result: Result<Established, DialError> },
    /// A dial to the relay of a circuit that the application wants ended.
    RelayReached { circuit: CircuitId, result: Result<Established, DialError> },
    /// The application does not wait for a circuit any more.
    CircuitForgotten { circuit: CircuitId },
    /// A dial of hole punching ended; with nothing if it was cancelled.
    PunchDialled { punch: PunchId, addr: Addr, result: Result<Option<Established>, DialError> },
    /// A connection came of a stream, or it did not.
    Upgraded(Upgraded),
    /// A bridge is over.
    BridgeEnded { stream: StreamId, bridged: Bridged },
    /// A connection is over, and every stream on it; whether the network ended it.
    Disconnected { conn: ConnId, broke: bool },
    /// A stream is open: one of ours, or one of the peer's with the means to answer.
    StreamOpened { conn: ConnId, stream: StreamId, orders: Option<Orders> },
    /// A stream that core asked for could not be opened.
    StreamFailed { stream: StreamId, reason: StreamFailure },
    /// A whole message arrived.
    Frame { stream: StreamId, body: Bytes },
    /// The peer sends no more.
    StreamClosed { stream: StreamId, end: StreamEnd },
    /// Both directions of a stream are over.
    StreamGone { stream: StreamId },
}

/// What became of a stream that stands as a circuit.
#[derive(Debug)]
pub(crate) struct Upgraded {
    pub(crate) stream: StreamId,
    pub(crate) circuit: Option<CircuitId>,
    pub(crate) via: Via,
    /// `None`: the stream had ended before.
    pub(crate) result: Option<Result<Established, DialError>>,
}

/// A dial of the application, and who waits for it.
#[derive(Debug)]
pub(crate) struct AppDial {
    pub(crate) addr: Multiaddr,
    pub(crate) reply: oneshot::Sender<Result<Dialled, node::DialError>>,
}

/// The way to the driver. Telling waits while the driver is behind: that is how back-pressure
/// reaches the peers.
#[derive(Clone, Debug)]
pub(crate) struct Facts(Sender<Fact>);

impl Facts {
    pub(crate) fn channel() -> (Facts, Receiver<Fact>) {
        let (sender, receiver) = async_channel::bounded(FACTS_MAX);
        (Facts(sender), receiver)
    }

    /// Tell the driver. A driver that is gone needs no more facts.
    pub(crate) async fn tell(&self, fact: Fact) {
        let _ = self.0.send(fact).await;
    }
}
