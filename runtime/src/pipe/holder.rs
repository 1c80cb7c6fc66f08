//! What holds a session on either side: its present carrier, or the time that is left without one.

use super::carrier::{Carrier, End};
use super::error::PipeError;
use super::shared::{Path, Shared};
use super::{LINGER, PipeConfig};
use crate::traits::Runtime;
use futures::FutureExt;
use futures::future::BoxFuture;
use portolan_core::wire::pipe::ResetCode;
use portolan_core::{ConnId, Duration, Instant};
use std::sync::Arc;
use std::task::{Context, Poll};

/// A session with or without a carrier.
pub(super) struct Holder<R: Runtime> {
    pub(super) runtime: R,
    pub(super) config: PipeConfig,
    pub(super) shared: Arc<Shared>,
    carrier: Option<Carrier>,
    /// How much had arrived when the last carrier began.
    began_at: u64,
    /// Since when there is no carrier, or none over which what waits has got anywhere.
    adrift_since: Option<Instant>,
    /// How much had arrived by then.
    adrift_at: u64,
    bound: Option<(Bound, BoxFuture<'static, ()>)>,
}

/// What is waited for no longer than a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    /// Another carrier.
    Keep,
    /// The other side, to say that everything has arrived.
    Linger,
    /// The other side, to learn that everything has arrived.
    Forget,
}

/// What became of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Its carrier is lost.
    Lost,
    /// It is complete, and there is no point in telling the other side actively.
    Lingered,
    /// It has ended.
    Ended,
}

impl<R: Runtime> Holder<R> {
    pub(super) fn new(runtime: R, config: PipeConfig, shared: Arc<Shared>) -> Holder<R> {
        Holder {
            runtime,
            config,
            shared,
            carrier: None,
            began_at: 0,
            adrift_since: None,
            adrift_at: 0,
            bound: None,
        }
    }

    /// The connection of the present carrier.
    pub(super) fn conn(&self) -> Option<ConnId> {
        self.carrier.as_ref().map(Carrier::conn)
    }

    /// Whether there is a carrier.
    pub(super) fn is_carried(&self) -> bool {
        self.carrier.is_some()
    }

    /// Whether anything has arrived over the last carrier.
    pub(super) fn has_moved(&self) -> bool {
        self.shared.lock().session.progress() > self.began_at
    }

    /// Go over to a carrier; the one before is reset.
    pub(super) fn carry(&mut self, carrier: Carrier, rtt: Option<Duration>) {
        self.shared.set_path(Some(Path { conn: carrier.conn(), rtt }));
        self.carrier = Some(carrier);
        self.began_at = self.shared.lock().session.progress();
    }

    /// The session is over, and the other side is told why if it can be.
    pub(super) fn end(&mut self, outcome: Result<(), PipeError>, word: Option<ResetCode>) {
        if let Some((carrier, word)) = self.carrier.take().zip(word) {
            carrier.dismiss(word, &self.runtime);
        }
        self.shared.end(outcome);
    }

    /// The node is over, and so is a session without a carrier.
    pub(super) fn stop(&mut self) {
        let is_complete = self.shared.lock().session.is_complete();
        self.end(if is_complete { Ok(()) } else { Err(PipeError::Stopped) }, None);
    }

    /// Move bytes, and watch the time.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Change> {
        let is_dropped = {
            let mut state = self.shared.lock();
            state.attend(cx);
            state.is_dropped
        };
        if is_dropped {
            let given_up = PipeError::Reset(ResetCode::Cancelled);
            self.end(Err(given_up), Some(ResetCode::Cancelled));
            return Poll::Ready(Change::Ended);
        }
        if let Some(carrier) = &mut self.carrier
            && let Poll::Ready(end) = carrier.poll(cx, &self.shared, &self.runtime)
        {
            return Poll::Ready(self.ended(end));
        }
        self.poll_bound(cx)
    }

    fn ended(&mut self, end: End) -> Change {
        match end {
            End::Over => {
                if let Some(carrier) = self.carrier.take() {
                    carrier.part(&self.runtime);
                }
                self.end(Ok(()), None);
            }
            End::Lost | End::Reset(ResetCode::Superseded) => {
                self.carrier = None;
                self.drift();
                return Change::Lost;
            }
            End::Reset(code) => {
                self.carrier = None;
                self.end(Err(PipeError::Reset(code)), None);
            }
            End::Violated(violation) => {
                tracing::debug!(peer = %self.shared.peer, %violation, "a pipe was broken");
                self.end(Err(PipeError::Violated(violation)), Some(ResetCode::Protocol));
            }
        }
        Change::Ended
    }

    /// The time without a carrier begins; or goes on, where what waits has not got anywhere since it
    /// began. Otherwise carriers that carry nothing would be asked for without end.
    fn drift(&mut self) {
        let now = self.runtime.now();
        let (progress, waits) = {
            let state = self.shared.lock();
            (state.session.progress(), state.session.waits())
        };
        if self.adrift_since.is_none() || progress > self.adrift_at || !waits {
            self.adrift_since = Some(now);
            self.adrift_at = progress;
        }
    }

    /// What is left of the time without a carrier.
    fn patience(&self) -> Duration {
        let since = self.adrift_since.map(|since| self.runtime.now().since(since));
        self.config.keep.saturating_sub(since.unwrap_or_default())
    }

    fn poll_bound(&mut self, cx: &mut Context<'_>) -> Poll<Change> {
        let wanted = {
            let state = self.shared.lock();
            match (state.session.is_complete(), state.outcome.is_some()) {
                (true, true) => Some(Bound::Forget),
                (true, false) => Some(Bound::Linger),
                (false, _) if self.carrier.is_none() => Some(Bound::Keep),
                (false, _) => None,
            }
        };
        if self.bound.as_ref().map(|(bound, _)| *bound) != wanted {
            let sleep = |bound| {
                let span = match bound {
                    Bound::Linger => LINGER,
                    Bound::Keep => self.patience(),
                    Bound::Forget => self.config.keep,
                };
                (bound, self.runtime.sleep(span).boxed())
            };
            self.bound = wanted.map(sleep);
        }
        let Some((bound, over)) = &mut self.bound else { return Poll::Pending };
        std::task::ready!(over.poll_unpin(cx));
        match bound {
            Bound::Keep => self.end(Err(PipeError::Lost(self.config.keep)), None),
            Bound::Linger => {
                self.bound = None;
                self.shared.end(Ok(()));
                return Poll::Ready(Change::Lingered);
            }
            Bound::Forget => self.end(Ok(()), None),
        }
        Poll::Ready(Change::Ended)
    }
}

impl<R: Runtime> Drop for Holder<R> {
    /// A task that is dropped with its runtime leaves nobody waiting.
    fn drop(&mut self) {
        self.shared.end(Err(PipeError::Stopped));
    }
}
