//! The side that opens: it finds carriers, and moves to better ones.
//!
//! ```text
//!            ┌────────── lost ◄────────┐
//!            ▼                         │
//!  attempt ─► failed ─► pause     carried ─► a better connection ─► attempt beside it ─┐
//!            └──────────────────► carried ◄────────────────────────────────────────────┘
//! ```

use super::carrier::{Carrier, Unheard};
use super::choice;
use super::error::{PipeError, PipeOpenError};
use super::holder::{Change, Holder};
use super::session::{Session, Violation};
use super::shared::{Pipe, Shared};
use super::{ATTEMPT, PAUSE_MAX, PAUSE_MIN, PROTOCOL, PipeConfig};
use crate::node::{ConnectionChanges, Node, OpenError};
use crate::time::timeout;
use crate::traits::Runtime;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use futures::{FutureExt, Stream};
use multiaddr::Multiaddr;
use portolan_core::wire::pipe::{Frame, ResetCode, SessionId};
use portolan_core::{ConnId, Duration, PeerId};
use rand::TryRng;
use rand::rngs::SysRng;
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

impl Pipe {
    /// Begin a session with `peer`, on the best connection that there is or else by dialling
    /// `addresses`, which are dialled again when every connection is lost. Resolves when the
    /// peer has accepted. The node lives at least as long as the session.
    ///
    /// # Errors
    /// See [`PipeOpenError`]. There is one attempt only: that a peer is not there at all is told
    /// at once.
    pub async fn open<R: Runtime>(
        node: &Node<R>,
        peer: PeerId,
        addresses: Vec<Multiaddr>,
        config: PipeConfig,
    ) -> Result<Pipe, PipeOpenError> {
        let mut id = [0; 16];
        SysRng.try_fill_bytes(&mut id).map_err(PipeOpenError::NoRandomness)?;
        let session = Session::new(config.window());
        let (shared, pipe) = Shared::new(peer, SessionId(id), session);
        let changes = node.connection_changes();
        let finder = Finder { node: node.clone(), shared: shared.clone(), addresses };
        let found = finder.clone().find(Search::Anywhere).await;
        let mut holder = Holder::new(node.runtime().clone(), config, shared);
        let found = found.found?;
        found.begin(&mut holder)?;
        let opener = Opener {
            holder,
            finder,
            changes,
            attempt: None,
            pause: None,
            failures: 0,
            tried: BTreeSet::new(),
            has_looked: true,
        };
        node.runtime().spawn(opener.run().boxed());
        Ok(pipe)
    }
}

/// Where to look for a carrier.
enum Search {
    /// On every connection, and by dialling.
    Anywhere,
    /// On connections that are better than the present one and were not tried.
    Better { present: Option<ConnId>, tried: BTreeSet<ConnId> },
}

/// What a search led to, and the connections that were tried.
struct Searched {
    found: Result<Found, PipeOpenError>,
    tried: Vec<ConnId>,
    /// Whether everything was tried.
    was_anywhere: bool,
}

/// A carrier that was accepted.
struct Found {
    carrier: Carrier,
    window: u32,
    received: u64,
    rtt: Duration,
}

impl Found {
    fn begin<R: Runtime>(self, holder: &mut Holder<R>) -> Result<(), Violation> {
        let Found { carrier, window, received, rtt } = self;
        let begun = holder.shared.lock().session.begin(received, Some(window));
        match begun {
            Ok(()) => holder.carry(carrier, Some(rtt)),
            Err(_) => carrier.dismiss(ResetCode::Protocol, &holder.runtime),
        }
        begun
    }
}

/// Finds carriers for one session.
#[derive(Clone)]
struct Finder<R: Runtime> {
    node: Node<R>,
    shared: Arc<Shared>,
    addresses: Vec<Multiaddr>,
}

impl<R: Runtime> Finder<R> {
    async fn find(self, search: Search) -> Searched {
        let peer = self.shared.peer;
        let connections = self.node.connections().await;
        let (ways, was_anywhere) = match &search {
            Search::Anywhere => (choice::ways(&connections, peer, None), true),
            Search::Better { present, tried } => {
                let mut ways = choice::ways(&connections, peer, *present);
                ways.retain(|way| !tried.contains(way));
                (ways, false)
            }
        };
        let mut tried = Vec::new();
        let mut failed = PipeOpenError::NoAddress(peer);
        for way in ways {
            tried.push(way);
            match self.try_on(way).await {
                // Who refuses on one connection does on all of them.
                Err(error) if !is_final(&error) => failed = error,
                found => return Searched { found, tried, was_anywhere },
            }
        }
        if was_anywhere && !self.addresses.is_empty() {
            match self.dial(&mut tried).await {
                Err(error) => failed = error,
                found => return Searched { found, tried, was_anywhere },
            }
        }
        Searched { found: Err(failed), tried, was_anywhere }
    }

    /// Dial every address at once, and try the connections in the order in which they stand.
    async fn dial(&self, tried: &mut Vec<ConnId>) -> Result<Found, PipeOpenError> {
        let wanted = self.shared.peer;
        let dial = |addr: &Multiaddr| self.node.dial(addr.clone());
        let mut dials: FuturesUnordered<_> = self.addresses.iter().map(dial).collect();
        let mut failed = PipeOpenError::NoAddress(wanted);
        while let Some(dialled) = dials.next().await {
            failed = match dialled {
                Err(error) => PipeOpenError::Dial(error),
                Ok(dialled) if dialled.peer != wanted => {
                    PipeOpenError::Stranger { wanted, found: dialled.peer }
                }
                Ok(dialled) => {
                    tried.push(dialled.conn);
                    match self.try_on(dialled.conn).await {
                        Err(error) if !is_final(&error) => error,
                        found => return found,
                    }
                }
            };
        }
        Err(failed)
    }

    async fn try_on(&self, conn: ConnId) -> Result<Found, PipeOpenError> {
        let runtime = self.node.runtime();
        timeout(runtime, ATTEMPT, self.ask_on(conn)).await.unwrap_or(Err(PipeOpenError::TimedOut))
    }

    async fn ask_on(&self, conn: ConnId) -> Result<Found, PipeOpenError> {
        let runtime = self.node.runtime();
        let mut carrier = Carrier::new(self.node.open_stream_on(conn, PROTOCOL).await?);
        let begun_at = runtime.now();
        let hello = self.shared.lock().session.hello(self.shared.id);
        carrier.say(&hello);
        // What the peer says may come although it does not listen: a refusal.
        let _ = carrier.send().await;
        let answer = carrier.hear().await;
        let rtt = runtime.now().since(begun_at);
        match answer {
            Ok(Frame::Accept { window, received }) => Ok(Found { carrier, window, received, rtt }),
            Ok(Frame::Reset(code)) => Err(PipeOpenError::Refused(code)),
            Ok(_) => Err(Violation::Misplaced.into()),
            Err(Unheard::Bad(error)) => Err(Violation::from(error).into()),
            Err(Unheard::Broken) => Err(PipeOpenError::Broken),
        }
    }
}

/// Whether trying elsewhere is of no use.
fn is_final(error: &PipeOpenError) -> bool {
    match error {
        PipeOpenError::Refused(code) => *code != ResetCode::Superseded,
        PipeOpenError::Violated(_) => true,
        PipeOpenError::Stream(OpenError::Stopped(_)) => true,
        PipeOpenError::NoAddress(_)
        | PipeOpenError::Dial(_)
        | PipeOpenError::Stranger { .. }
        | PipeOpenError::Stream(_)
        | PipeOpenError::Broken
        | PipeOpenError::TimedOut
        | PipeOpenError::NoRandomness(_) => false,
    }
}

/// The task of one session.
struct Opener<R: Runtime> {
    holder: Holder<R>,
    finder: Finder<R>,
    changes: ConnectionChanges,
    attempt: Option<BoxFuture<'static, Searched>>,
    pause: Option<BoxFuture<'static, ()>>,
    /// Attempts that failed in a row, and carriers over which nothing arrived.
    failures: u32,
    /// Connections on which the session could not go on.
    tried: BTreeSet<ConnId>,
    /// Whether the connections are known not to have a better one.
    has_looked: bool,
}

/// What woke the task.
enum Woken {
    Changed(Change),
    Searched(Box<Searched>),
}

impl<R: Runtime> Opener<R> {
    async fn run(mut self) {
        loop {
            match poll_fn(|cx| self.poll(cx)).await {
                Woken::Changed(Change::Ended) => {
                    if !self.follow().await {
                        return;
                    }
                }
                Woken::Changed(Change::Lingered) => return,
                Woken::Changed(Change::Lost) if self.is_over() => return,
                Woken::Changed(Change::Lost) => self.lost(),
                Woken::Searched(searched) => {
                    if self.searched(*searched) {
                        return;
                    }
                }
            }
        }
    }

    /// Where the session is over while another carrier is asked for, the acceptor may have gone over to
    /// that one without having read that it is. Say it there too; whether there is anywhere to.
    async fn follow(&mut self) -> bool {
        match self.attempt.take() {
            Some(attempt) if self.is_over() => match attempt.await.found {
                Ok(found) => found.begin(&mut self.holder).is_ok(),
                Err(_) => false,
            },
            _ => false,
        }
    }

    fn is_over(&self) -> bool {
        self.holder.shared.lock().session.is_over()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Woken> {
        if let Poll::Ready(change) = self.holder.poll(cx) {
            return Poll::Ready(Woken::Changed(change));
        }
        loop {
            match Pin::new(&mut self.changes).poll_next(cx) {
                Poll::Ready(Some(())) => self.has_looked = false,
                Poll::Ready(None) if !self.holder.is_carried() => {
                    self.holder.stop();
                    return Poll::Ready(Woken::Changed(Change::Ended));
                }
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        if std::mem::take(&mut self.holder.shared.lock().wants_better) {
            self.tried.clear();
            self.has_looked = false;
        }
        if let Some(pause) = &mut self.pause
            && pause.poll_unpin(cx).is_ready()
        {
            self.pause = None;
        }
        self.search();
        if let Some(attempt) = &mut self.attempt
            && let Poll::Ready(searched) = attempt.poll_unpin(cx)
        {
            self.attempt = None;
            return Poll::Ready(Woken::Searched(Box::new(searched)));
        }
        Poll::Pending
    }

    /// Begin the attempt that is due, if one is.
    fn search(&mut self) {
        let is_complete = self.holder.shared.lock().session.is_complete();
        if self.attempt.is_some() || is_complete && self.holder.is_carried() {
            return;
        }
        let search = if !self.holder.is_carried() && self.pause.is_none() {
            self.tried.clear();
            Search::Anywhere
        } else if !self.has_looked {
            Search::Better { present: self.holder.conn(), tried: self.tried.clone() }
        } else {
            return;
        };
        self.has_looked = true;
        self.attempt = Some(self.finder.clone().find(search).boxed());
    }

    fn lost(&mut self) {
        if self.attempt.is_none() {
            self.finder.shared.set_path(None);
        }
        if self.holder.has_moved() {
            self.failures = 0;
        } else {
            self.rest();
        }
    }

    /// Pause before everything is tried again.
    fn rest(&mut self) {
        let pause = PAUSE_MIN.saturating_mul(1 << self.failures.min(8)).min(PAUSE_MAX);
        self.failures = self.failures.saturating_add(1);
        self.pause = Some(self.holder.runtime.sleep(pause).boxed());
    }

    /// A search has ended; whether the session has, too.
    fn searched(&mut self, searched: Searched) -> bool {
        let is_carried = self.holder.is_carried();
        let is_complete = self.holder.shared.lock().session.is_complete();
        let error = match searched.found {
            Ok(found) => match found.begin(&mut self.holder) {
                Ok(()) => {
                    self.pause = None;
                    self.tried.clear();
                    return false;
                }
                Err(violation) => PipeError::Violated(violation),
            },
            // Everything has arrived, and whoever does not know is not there to be told.
            Err(_) if is_complete && !is_carried => {
                self.holder.end(Ok(()), None);
                return true;
            }
            // While there is a carrier, it is there that the session may end.
            Err(PipeOpenError::Refused(code)) if code != ResetCode::Superseded && !is_carried => {
                PipeError::Reset(code)
            }
            Err(PipeOpenError::Violated(violation)) => PipeError::Violated(violation),
            Err(error) => {
                tracing::debug!(peer = %self.finder.shared.peer, %error, "no carrier for a pipe");
                self.tried.extend(searched.tried);
                if !is_carried {
                    self.finder.shared.set_path(None);
                }
                if !is_carried && searched.was_anywhere {
                    self.rest();
                }
                return false;
            }
        };
        self.holder.end(Err(error), Some(ResetCode::Protocol));
        true
    }
}
