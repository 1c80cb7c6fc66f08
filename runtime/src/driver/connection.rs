//! One connection: a task that accepts, opens and runs streams until the connection is over.
//!
//! ```text
//!  serving ─► lingering (told to close) ─► closing the muxer ─► over
//!     └─────────► (the peer closed, or it broke) ─────────────────► over
//! ```
//!
//! Streams of core's run inside the task, so that none of them outlives it. Streams of the
//! application, and those that became circuits, are handed out and only counted. Limits: see `Limits`; what is over them is reset.

use crate::driver::fact::{Fact, Facts};
use crate::driver::limits::{CLOSE_TIMEOUT, CONNECTION_QUEUE_MAX, LINGER, Limits};
use crate::driver::negotiate;
use crate::driver::stream::{Exchange, Ordered};
use crate::net::{Muxer, MuxerError, RawStream};
use crate::node::{Doors, OpenError, Stream, Uses};
use crate::time::timeout;
use crate::traits::Runtime;
use async_channel::{Receiver, Sender};
use futures::channel::{mpsc, oneshot};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use futures::{FutureExt, select};
use portolan_core::{ConnId, Duration, PeerId, Protocol, StreamFailure, StreamId};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the driver asks of a connection. When the channel closes, the connection takes no more
/// streams, lets those finish that can in a short time, and closes.
#[derive(Debug)]
pub(crate) enum Order {
    /// Open a stream of core's.
    Open { stream: StreamId, ordered: Ordered },
    /// Open a stream of the application's.
    OpenForApplication { protocol: String, reply: oneshot::Sender<Result<Stream, OpenError>> },
}

/// What all connections of a node share.
#[derive(Clone, Debug)]
pub(crate) struct Common<R> {
    pub(crate) runtime: R,
    pub(crate) limits: Limits,
    pub(crate) facts: Facts,
    pub(crate) doors: Arc<Doors>,
    /// The protocols of core's that peers may open streams of.
    pub(crate) served: Arc<[Protocol]>,
    /// The next number for an inbound stream; unique in the node, hence within its protocol.
    pub(crate) numbers: Arc<AtomicU64>,
}

/// The driver's hold on a connection.
#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) orders: mpsc::Sender<Order>,
    pub(crate) uses: Arc<Uses>,
}

/// Which streams the peer may open on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Serves {
    /// None: it is a dial-back.
    Nothing,
    /// Those of a connection with a socket of its own.
    Direct,
    /// Those of a connection through a relay.
    Circuit,
}

/// A connection about to run.
pub(crate) struct Connection<R: Runtime> {
    common: Common<R>,
    conn: ConnId,
    peer: PeerId,
    muxer: Muxer,
    serves: Serves,
    orders: mpsc::Receiver<Order>,
    uses: Arc<Uses>,
    returns: Receiver<()>,
    /// Inbound streams whose protocol is being agreed on.
    negotiating: FuturesUnordered<BoxFuture<'static, Option<(String, RawStream)>>>,
    /// Core's streams; each says at its end whether closing waited for it.
    streams: FuturesUnordered<BoxFuture<'static, bool>>,
    /// The application's streams that are being opened.
    opening: FuturesUnordered<BoxFuture<'static, ()>>,
    /// How many of `streams` closing has to wait for.
    lingering: usize,
    /// Dropped when the connection is over, for those who hold what `over` was cloned to.
    stands: Sender<Infallible>,
    over: Receiver<Infallible>,
}

impl<R: Runtime> Connection<R> {
    pub(crate) fn new(
        common: Common<R>,
        conn: ConnId,
        peer: PeerId,
        muxer: Muxer,
        serves: Serves,
    ) -> (Connection<R>, Hold) {
        // It takes memory for what waits, and none for what could.
        let (sender, orders) = mpsc::channel(CONNECTION_QUEUE_MAX);
        let (uses, returns) = Uses::new();
        let (stands, over) = async_channel::bounded(1);
        let hold = Hold { orders: sender, uses: uses.clone() };
        let connection = Connection {
            common,
            conn,
            peer,
            muxer,
            serves,
            orders,
            uses,
            returns,
            negotiating: FuturesUnordered::new(),
            streams: FuturesUnordered::new(),
            opening: FuturesUnordered::new(),
            lingering: 0,
            stands,
            over,
        };
        (connection, hold)
    }

    /// Run the connection to its end.
    pub(crate) async fn run(mut self) {
        let runtime = self.common.runtime.clone();
        match self.serve().await {
            End::Told => {
                // Whether they finished or not: now it is over.
                let _ = timeout(&runtime, LINGER, self.linger()).await;
                let _ = timeout(&runtime, CLOSE_TIMEOUT, self.muxer.close()).await;
            }
            End::Lost => {
                // What had arrived before the end is still read and told.
                self.negotiating.clear();
                let rest = self.streams.by_ref().for_each(|_| async {});
                let _ = timeout(&runtime, CLOSE_TIMEOUT, rest).await;
            }
        }
        self.streams.clear();
        self.stands.close();
        let broke = self.muxer.broke();
        self.common.facts.tell(Fact::Disconnected { conn: self.conn, broke }).await;
    }

    async fn serve(&mut self) -> End {
        let muxer = self.muxer.clone();
        loop {
            select! {
                stream = muxer.accept().fuse() => match stream {
                    Ok(stream) => self.arrived(stream),
                    Err(MuxerError::Closed | MuxerError::TooManyStreams) => return End::Lost,
                },
                order = self.orders.next().fuse() => match order {
                    None => return End::Told,
                    Some(Order::Open { stream, ordered }) => self.open(stream, ordered),
                    Some(Order::OpenForApplication { protocol, reply }) => {
                        self.open_for_application(protocol, reply);
                    }
                },
                agreed = self.negotiating.select_next_some() => self.agreed(agreed),
                lingers = self.streams.select_next_some() => self.ended(lingers),
                () = self.opening.select_next_some() => {}
            }
        }
    }

    /// Wait for the streams that closing waits for: answers and news on the way, and whatever the
    /// application still holds.
    async fn linger(&mut self) {
        self.negotiating.clear();
        self.opening.clear();
        while self.lingering > 0 || self.uses.held() > 0 {
            select! {
                lingers = self.streams.select_next_some() => self.ended(lingers),
                _ = self.returns.recv().fuse() => {}
                () = self.muxer.closed().fuse() => return,
            }
        }
    }

    fn has_room(&self) -> bool {
        let held = self.uses.held();
        self.negotiating.len() + self.streams.len() + held
            < self.common.limits.streams_per_connection_max
    }

    fn arrived(&mut self, mut stream: RawStream) {
        let limit = self.common.limits.negotiating_per_connection_max;
        if self.negotiating.len() >= limit || !self.has_room() {
            tracing::debug!(conn = %self.conn, peer = %self.peer, "reset a stream: too many");
            stream.reset();
            return;
        }
        let protocols = self.offered();
        let runtime = self.common.runtime.clone();
        let patience = self.common.limits.negotiation_timeout;
        let answer = async move { negotiate::answer(&runtime, patience, stream, protocols).await };
        self.negotiating.push(answer.boxed());
    }

    fn offered(&self) -> Vec<String> {
        // DCUtR §The Protocol: its streams run over relayed connections.
        let fits =
            |protocol: &&Protocol| self.serves == Serves::Circuit || **protocol != Protocol::Punch;
        if self.serves == Serves::Nothing {
            return Vec::new();
        }
        let core = self.common.served.iter().filter(fits).map(|protocol| protocol.name());
        core.map(str::to_owned).chain(self.common.doors.names()).collect()
    }

    fn agreed(&mut self, agreed: Option<(String, RawStream)>) {
        let Some((name, stream)) = agreed else { return };
        match Protocol::from_name(&name) {
            Some(protocol) => {
                let number = self.common.numbers.fetch_add(1, Ordering::Relaxed);
                let exchange = self.exchange(StreamId::inbound(protocol, number));
                // Pings have nothing to deliver.
                let lingers = protocol != Protocol::Ping;
                self.push(lingers, exchange.serve(stream).boxed());
            }
            None => {
                let held = self.uses.hold();
                let stream = Stream::new(stream, self.peer, self.conn, name, held);
                self.common.doors.deliver(stream);
            }
        }
    }

    fn open(&mut self, stream: StreamId, ordered: Ordered) {
        let exchange = self.exchange(stream);
        if self.has_room() {
            // What we ask is of no use any more when we close; what we tell is to arrive.
            let tells = matches!(stream.protocol, Protocol::IdentifyPush | Protocol::DialBack);
            self.push(tells, exchange.open(ordered).boxed());
        } else {
            let reason = StreamFailure::Failed;
            let facts = self.common.facts.clone();
            let fail = async move { facts.tell(Fact::StreamFailed { stream, reason }).await };
            self.opening.push(fail.boxed());
        }
    }

    fn exchange(&self, stream: StreamId) -> Exchange<R> {
        Exchange {
            runtime: self.common.runtime.clone(),
            limits: self.common.limits,
            muxer: self.muxer.clone(),
            conn: self.conn,
            stream,
            facts: self.common.facts.clone(),
            uses: self.uses.clone(),
            under: self.over.clone(),
        }
    }

    fn push(&mut self, lingers: bool, exchange: BoxFuture<'static, ()>) {
        self.lingering += usize::from(lingers);
        self.streams.push(exchange.map(move |()| lingers).boxed());
    }

    fn ended(&mut self, lingered: bool) {
        self.lingering = self.lingering.saturating_sub(usize::from(lingered));
    }

    fn open_for_application(
        &mut self,
        protocol: String,
        reply: oneshot::Sender<Result<Stream, OpenError>>,
    ) {
        if !self.has_room() {
            // Nobody waits for the answer if the caller gave up.
            let _ = reply.send(Err(OpenError::TooManyStreams));
            return;
        }
        let held = self.uses.hold();
        let (muxer, runtime) = (self.muxer.clone(), self.common.runtime.clone());
        let (peer, conn) = (self.peer, self.conn);
        let patience = self.common.limits.negotiation_timeout;
        let open = async move {
            let raw = open_raw(&runtime, patience, &muxer, &protocol).await;
            let _ = reply.send(raw.map(|raw| Stream::new(raw, peer, conn, protocol, held)));
        };
        self.opening.push(open.boxed());
    }
}

/// How serving ended.
enum End {
    /// The driver said so.
    Told,
    /// The connection is over.
    Lost,
}

async fn open_raw<R: Runtime>(
    runtime: &R,
    patience: Duration,
    muxer: &Muxer,
    protocol: &str,
) -> Result<RawStream, OpenError> {
    let stream = match timeout(runtime, patience, muxer.open()).await {
        Some(Ok(stream)) => stream,
        Some(Err(MuxerError::TooManyStreams)) => return Err(OpenError::TooManyStreams),
        Some(Err(MuxerError::Closed)) => return Err(OpenError::Lost),
        None => return Err(OpenError::TimedOut),
    };
    negotiate::propose(runtime, patience, stream, protocol).await
}
