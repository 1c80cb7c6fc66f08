//! Listening for sessions: who may come, how many there may be, and whose carrier is whose.

use super::acceptor::{Acceptor, Arrival};
use super::carrier::{Carrier, Unheard};
use super::holder::Holder;
use super::session::Session;
use super::shared::{Pipe, Shared};
use super::{PROTOCOL, PipeConfig};
use crate::node::{AcceptError, Incoming, Node};
use crate::time::timeout;
use crate::traits::Runtime;
use async_channel::{Receiver, Sender, TrySendError};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, Stream, StreamExt, select};
use portolan_core::wire::pipe::{Frame, ResetCode, SessionId};
use portolan_core::{Duration, PeerId};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Carriers that have not said what they are for, number; docs/pipe.md §Bounds. When full, a new
/// one is reset.
const UNNAMED_MAX: usize = 32;
/// How long a carrier may take to say what it is for, seconds; docs/pipe.md §Bounds.
const UNNAMED: Duration = Duration::from_secs(10);
/// Carriers that wait for the task of their session, number; ours. When full, a new one is reset.
const ARRIVALS_MAX: usize = 4;

/// Whom a listener talks to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Allow {
    /// Everybody.
    Anyone,
    /// These peers. Others are refused before a byte of theirs is read.
    Only(BTreeSet<PeerId>),
}

/// Sessions that peers open: a stream of them, which ends with the node.
///
/// When it is dropped no new session is taken; those that stand live on, and can be resumed.
pub struct PipeListener {
    pipes: Pin<Box<Receiver<Pipe>>>,
}

impl PipeListener {
    /// Listen from now on. The protocol is not listed in identify: for that, see
    /// [`PipeListener::over`].
    ///
    /// # Errors
    /// If something in this program listens already.
    pub fn new<R: Runtime>(
        node: &Node<R>,
        allow: Allow,
        config: PipeConfig,
    ) -> Result<PipeListener, AcceptError> {
        Ok(PipeListener::over(node, node.accept(PROTOCOL)?, allow, config))
    }

    /// Listen on streams that were accepted before the node started, by
    /// [`Builder::accept`](crate::Builder::accept) of [`PROTOCOL`].
    pub fn over<R: Runtime>(
        node: &Node<R>,
        incoming: Incoming,
        allow: Allow,
        config: PipeConfig,
    ) -> PipeListener {
        let (sender, pipes) = async_channel::bounded(config.sessions_max.max(1));
        let (over, overs) = async_channel::bounded(1);
        let runtime = node.runtime().clone();
        let register = Register { allow, config, sessions: BTreeMap::new(), pipes: sender, over };
        let desk = Desk { runtime: runtime.clone(), register };
        runtime.spawn(desk.run(incoming, overs).boxed());
        PipeListener { pipes: Box::pin(pipes) }
    }
}

impl Stream for PipeListener {
    type Item = Pipe;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Pipe>> {
        self.pipes.as_mut().poll_next(cx)
    }
}

impl fmt::Debug for PipeListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipeListener").finish_non_exhaustive()
    }
}

/// The sessions that stand.
struct Register {
    allow: Allow,
    config: PipeConfig,
    /// Where the carriers of each go. Closed when the session has ended.
    sessions: BTreeMap<(PeerId, SessionId), Sender<Arrival>>,
    pipes: Sender<Pipe>,
    /// Says that a session has ended.
    over: Sender<()>,
}

impl Register {
    fn permits(&self, peer: PeerId) -> bool {
        match &self.allow {
            Allow::Anyone => true,
            Allow::Only(peers) => peers.contains(&peer),
        }
    }

    /// Whether another session with `peer` may begin.
    fn admit(&self, peer: PeerId) -> Result<(), ResetCode> {
        let with_peer = self.sessions.keys().filter(|(of, _)| *of == peer).count();
        if self.pipes.is_closed() {
            Err(ResetCode::Closed)
        } else if self.sessions.len() >= self.config.sessions_max
            || with_peer >= self.config.per_peer_max
        {
            Err(ResetCode::Full)
        } else {
            Ok(())
        }
    }

    fn forget_ended(&mut self) {
        self.sessions.retain(|_, arrivals| !arrivals.is_closed());
    }
}

/// A carrier, and what its opener said first.
type Named = (PeerId, Carrier, Result<Frame, ResetCode>);

/// The task of a listener.
struct Desk<R: Runtime> {
    runtime: R,
    register: Register,
}

impl<R: Runtime> Desk<R> {
    async fn run(mut self, incoming: Incoming, overs: Receiver<()>) {
        let mut incoming = incoming.fuse();
        let mut overs = Box::pin(overs).fuse();
        let mut unnamed: FuturesUnordered<BoxFuture<'static, Named>> = FuturesUnordered::new();
        let pipes = self.register.pipes.clone();
        let mut closed = Box::pin(pipes.closed()).fuse();
        loop {
            select! {
                stream = incoming.next() => {
                    // The node is over.
                    let Some((peer, stream)) = stream else { break };
                    let carrier = Carrier::new(stream);
                    if !self.register.permits(peer) {
                        tracing::debug!(%peer, "refused a pipe: not allowed");
                        carrier.dismiss(ResetCode::Denied, &self.runtime);
                    } else if unnamed.len() < UNNAMED_MAX {
                        unnamed.push(name(self.runtime.clone(), peer, carrier).boxed());
                    }
                }
                (peer, carrier, named) = unnamed.select_next_some() => match named {
                    Ok(hello) => self.named(peer, carrier, hello),
                    Err(code) => carrier.dismiss(code, &self.runtime),
                },
                _ = overs.next() => self.register.forget_ended(),
                () = closed => {}
                complete => break,
            }
            let is_idle = self.register.sessions.is_empty() && unnamed.is_empty();
            if is_idle && self.register.pipes.is_closed() {
                break;
            }
        }
    }

    /// An opener has said what its carrier is for.
    fn named(&mut self, peer: PeerId, carrier: Carrier, hello: Frame) {
        self.register.forget_ended();
        let (session, arrival) = match hello {
            Frame::Open { session, carrier: number, window } => {
                (session, Arrival { carrier, number, received: 0, window: Some(window) })
            }
            Frame::Resume { session, carrier: number, received } => {
                (session, Arrival { carrier, number, received, window: None })
            }
            Frame::Accept { .. }
            | Frame::Data { .. }
            | Frame::Ack { .. }
            | Frame::Fin { .. }
            | Frame::Reset(_)
            | Frame::Done
            | _ => return carrier.dismiss(ResetCode::Protocol, &self.runtime),
        };
        if let Some(arrivals) = self.register.sessions.get(&(peer, session)) {
            match arrivals.try_send(arrival) {
                Ok(()) => return,
                Err(TrySendError::Full(_)) => return,
                Err(TrySendError::Closed(arrival)) => {
                    return arrival.carrier.dismiss(ResetCode::Unknown, &self.runtime);
                }
            }
        }
        if arrival.window.is_none() {
            return arrival.carrier.dismiss(ResetCode::Unknown, &self.runtime);
        }
        match self.register.admit(peer) {
            Ok(()) => self.begin(peer, session, arrival),
            Err(code) => arrival.carrier.dismiss(code, &self.runtime),
        }
    }

    fn begin(&mut self, peer: PeerId, id: SessionId, arrival: Arrival) {
        let config = self.register.config;
        let (shared, pipe) = Shared::new(peer, id, Session::new(config.window()));
        if self.register.pipes.try_send(pipe).is_err() {
            // Sessions that have ended wait to be taken.
            return arrival.carrier.dismiss(ResetCode::Full, &self.runtime);
        }
        let (arrivals, receiver) = async_channel::bounded(ARRIVALS_MAX);
        // The channel is new, so that there is room.
        let _ = arrivals.try_send(arrival);
        self.register.sessions.insert((peer, id), arrivals);
        let holder = Holder::new(self.runtime.clone(), config, shared);
        let acceptor = Acceptor { holder, arrivals: Box::pin(receiver) };
        let over = self.register.over.clone();
        let run = async move {
            acceptor.run().await;
            // One word that waits already says the same.
            let _ = over.try_send(());
        };
        self.runtime.spawn(run.boxed());
    }
}

/// Wait until an opener says what its carrier is for.
async fn name<R: Runtime>(runtime: R, peer: PeerId, mut carrier: Carrier) -> Named {
    let heard = timeout(&runtime, UNNAMED, carrier.hear()).await;
    let named = match heard {
        Some(Ok(hello)) => Ok(hello),
        Some(Err(Unheard::Broken | Unheard::Bad(_))) | None => Err(ResetCode::Protocol),
    };
    (peer, carrier, named)
}
