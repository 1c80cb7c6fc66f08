//! What the application holds of a session, and what it shares with the session's task.

use super::error::PipeError;
use super::session::{Readable, Session};
use async_channel::{Receiver, Sender};
use futures::Stream;
use futures::io::{AsyncRead, AsyncWrite};
use portolan_core::wire::pipe::SessionId;
use portolan_core::{ConnId, Duration, PeerId};
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// What carries a session at the moment. [`Node::connections`](crate::Node::connections) has more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Path {
    /// The connection.
    pub conn: ConnId,
    /// The round trip that the first words on it took; none before they came back.
    pub rtt: Option<Duration>,
}

/// A session: bytes both ways, each way with its own end, over whatever connection there is.
///
/// Reads and writes go through `&Pipe` as well, so that two tasks can share one. Closing ends the
/// sending side at once; what was written is still delivered in the background. Flushing waits for
/// nothing. [`Pipe::finish`] waits until the peer's application has read everything. A pipe that is dropped
/// before it was closed and read to its end is reset.
///
/// What had arrived before a session failed can still be read; after it comes the error, with a
/// [`PipeError`] inside.
pub struct Pipe {
    shared: Arc<Shared>,
    paths: Pin<Box<Receiver<Option<Path>>>>,
}

/// How the path of a session changes: `None` is no carrier at the moment. Who is slow sees the latest
/// alone. Ends with the session. Those of one pipe share what there is to see.
pub struct Paths(Pin<Box<Receiver<Option<Path>>>>);

/// What a pipe and its task share.
pub(super) struct Shared {
    pub(super) peer: PeerId,
    pub(super) id: SessionId,
    state: Mutex<State>,
    paths: Sender<Option<Path>>,
}

pub(super) struct State {
    pub(super) session: Session,
    /// How it ended.
    pub(super) outcome: Option<Result<(), PipeError>>,
    /// Whether the application has given it up.
    pub(super) is_dropped: bool,
    /// Whether the application wants a better path to be looked for.
    pub(super) wants_better: bool,
    path: Option<Path>,
    reader: Option<Waker>,
    writer: Option<Waker>,
    finisher: Option<Waker>,
    task: Option<Waker>,
}

impl Shared {
    pub(super) fn new(peer: PeerId, id: SessionId, session: Session) -> (Arc<Shared>, Pipe) {
        let (sender, paths) = async_channel::bounded(1);
        let state = State {
            session,
            outcome: None,
            is_dropped: false,
            wants_better: false,
            path: None,
            reader: None,
            writer: None,
            finisher: None,
            task: None,
        };
        let shared = Arc::new(Shared { peer, id, state: Mutex::new(state), paths: sender });
        (shared.clone(), Pipe { shared, paths: Box::pin(paths) })
    }

    /// A poisoned state is as good as it was: nothing panics half-way through a change.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_path(&self, path: Option<Path>) {
        let mut state = self.lock();
        if state.path != path {
            state.path = path;
            // An error says that nobody can look any more.
            let _ = self.paths.force_send(path);
        }
    }

    /// The session is over, well or not. What is said first counts.
    pub(super) fn end(&self, outcome: Result<(), PipeError>) {
        let mut state = self.lock();
        if state.outcome.is_none() {
            tracing::debug!(peer = %self.peer, session = %self.id, ?outcome, "a pipe ended");
            state.outcome = Some(outcome);
            state.path = None;
            self.paths.close();
        }
        for waker in [state.reader.take(), state.writer.take(), state.finisher.take()] {
            waker.into_iter().for_each(Waker::wake);
        }
    }
}

impl State {
    /// Wake the session's task from now on.
    pub(super) fn attend(&mut self, cx: &Context<'_>) {
        keep(&mut self.task, cx);
    }

    /// Something came in: wake whom it concerns.
    pub(super) fn stir(&mut self) {
        if self.session.is_readable() {
            self.reader.take().into_iter().for_each(Waker::wake);
        }
        if self.session.has_room() {
            self.writer.take().into_iter().for_each(Waker::wake);
        }
    }

    fn wake_task(&mut self) {
        self.task.take().into_iter().for_each(Waker::wake);
    }

    fn failure(&self) -> Option<PipeError> {
        self.outcome.and_then(Result::err)
    }
}

fn keep(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}

impl Pipe {
    /// Who is at the other end.
    pub fn peer(&self) -> PeerId {
        self.shared.peer
    }

    /// The id of the session.
    pub fn id(&self) -> SessionId {
        self.shared.id
    }

    /// What carries the session now.
    pub fn path(&self) -> Option<Path> {
        self.shared.lock().path
    }

    /// How the path changes from now on.
    pub fn paths(&self) -> Paths {
        Paths(self.paths.clone())
    }

    /// Look for a better connection with the peer, also among those on which the session could not
    /// go on before. One that appears is moved to without being asked. Only the side that opened the
    /// session can; on the other this does nothing.
    pub fn migrate(&self) {
        let mut state = self.shared.lock();
        state.wants_better = true;
        state.wake_task();
    }

    /// End the sending side, and wait until both applications have read everything and know it of each
    /// other.
    ///
    /// # Errors
    /// If the session ends before. Then some of it may not have been read.
    pub async fn finish(&self) -> Result<(), PipeError> {
        self.close();
        poll_fn(|cx| {
            let mut state = self.shared.lock();
            if let Some(outcome) = state.outcome {
                return Poll::Ready(outcome);
            }
            keep(&mut state.finisher, cx);
            Poll::Pending
        })
        .await
    }

    /// Give the session up at once, and tell the peer if it can be told.
    pub fn reset(&self) {
        let mut state = self.shared.lock();
        state.is_dropped = true;
        state.wake_task();
    }

    fn close(&self) {
        let mut state = self.shared.lock();
        if !state.session.has_finished() {
            state.session.finish();
            state.wake_task();
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let is_finished = state.session.has_finished() && state.session.has_read_all();
        state.is_dropped |= !is_finished;
        state.wake_task();
    }
}

impl AsyncRead for &Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if buffer.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let mut state = self.shared.lock();
        match state.session.read(buffer) {
            Readable::Bytes(count) => {
                state.wake_task();
                Poll::Ready(Ok(count))
            }
            Readable::End => Poll::Ready(Ok(0)),
            Readable::Nothing => match state.failure() {
                Some(error) => Poll::Ready(Err(error.into())),
                None => {
                    keep(&mut state.reader, cx);
                    Poll::Pending
                }
            },
        }
    }
}

impl AsyncWrite for &Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.shared.lock();
        if let Some(error) = state.failure() {
            return Poll::Ready(Err(error.into()));
        }
        if state.session.has_finished() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let taken = state.session.write(buffer);
        if taken > 0 || buffer.is_empty() {
            state.wake_task();
            return Poll::Ready(Ok(taken));
        }
        keep(&mut state.writer, cx);
        Poll::Pending
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.close();
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self).poll_write(cx, buffer)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self).poll_close(cx)
    }
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { peer, id, .. } = &*self.shared;
        f.debug_struct("Pipe").field("peer", peer).field("id", id).finish_non_exhaustive()
    }
}

impl Stream for Paths {
    type Item = Option<Path>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Option<Path>>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl fmt::Debug for Paths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Paths").finish_non_exhaustive()
    }
}
