//! A yamux connection, driven by one task that always polls it: polling for inbound streams is
//! the only thing that moves bytes.

use super::error::MuxerError;
use super::muxer::{RawStream, StreamKind};
use futures::channel::oneshot;
use futures::future::{BoxFuture, Either, select};
use futures::io::{AsyncRead, AsyncWrite};
use futures::task::AtomicWaker;
use futures::{FutureExt, Stream as _, ready};
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

/// Inbound streams that wait to be accepted, number; ours: one burst of protocols of a peer that
/// has just connected. Up to 256 KiB of received data each. When full, new ones are reset.
const BACKLOG_MAX: usize = 16;
/// Requests of handles that wait for the task, number; ours. When full, the callers wait.
const COMMANDS_MAX: usize = 16;
/// Streams that we have dropped and yamux has not forgotten yet, number; ours. A peer that makes
/// it grow further (it opens streams and reads none of our resets) loses the connection.
const DROPPED_MAX: usize = 16;
/// The receive window of a stream, bytes; yamux's specification. It does not grow here.
const WINDOW: usize = 256 * 1_024;

/// What a handle asks of the task.
enum Command {
    Open(oneshot::Sender<Result<RawStream, MuxerError>>),
    Close,
    Abort,
}

/// The callers' end of a connection.
pub(super) struct Handle {
    commands: async_channel::Sender<Command>,
    inbound: async_channel::Receiver<RawStream>,
    over: async_channel::Receiver<Infallible>,
    shared: Arc<Shared>,
}

impl Handle {
    pub(super) async fn open(&self) -> Result<RawStream, MuxerError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Open(reply)).await.map_err(|_| MuxerError::Closed)?;
        // A task that has ended leaves the request in the channel, where it would stay.
        match select(answer, pin!(self.closed())).await {
            Either::Left((answer, _)) => answer.unwrap_or(Err(MuxerError::Closed)),
            Either::Right(((), _)) => Err(MuxerError::Closed),
        }
    }

    pub(super) async fn accept(&self) -> Result<RawStream, MuxerError> {
        self.inbound.recv().await.map_err(|_| MuxerError::Closed)
    }

    pub(super) async fn close(&self) {
        // An error says that the task has ended, which is what was wanted.
        let _ = self.commands.send(Command::Close).await;
        self.closed().await;
    }

    pub(super) fn abort(&self) {
        // An error says that the task has ended, or has more to do than a fresh one can have.
        let _ = self.commands.try_send(Command::Abort);
    }

    pub(super) async fn closed(&self) {
        // Nothing is ever sent: the channel closes with the task that holds its other end.
        let _ = self.over.recv().await;
    }

    /// Whether the network ended the connection, and neither side.
    pub(super) fn broke(&self) -> bool {
        self.shared.broke.load(Ordering::Relaxed)
    }

    /// Whether the connection is over, as its streams see it.
    pub(super) fn is_over(&self) -> bool {
        *self.shared.lock() || self.over.is_closed()
    }
}

/// Take over an authenticated byte stream. The task must be spawned for anything to move; it
/// ends with the connection. `linger` bounds a graceful close.
pub(super) fn connect<T>(
    io: T,
    mode: ::yamux::Mode,
    streams_max: usize,
    linger: BoxFuture<'static, ()>,
) -> (Handle, BoxFuture<'static, ()>)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let yamux_max = streams_max + DROPPED_MAX;
    let mut config = ::yamux::Config::default();
    config.set_max_num_streams(yamux_max);
    config.set_max_connection_receive_window(Some(yamux_max * WINDOW));
    let (commands, requests) = async_channel::bounded(COMMANDS_MAX);
    let (arrivals, inbound) = async_channel::bounded(BACKLOG_MAX);
    let (ended, over) = async_channel::bounded(1);
    let shared = Arc::<Shared>::default();
    let task = Task {
        connection: ::yamux::Connection::new(io, config, mode),
        requests: Box::pin(requests),
        arrivals,
        shared: shared.clone(),
        streams_max,
        linger,
        closing: false,
        _ended: ended,
    };
    (Handle { commands, inbound, over, shared }, task.boxed())
}

/// What the task and its streams both see.
#[derive(Default)]
struct Shared {
    /// Streams that somebody holds.
    live: AtomicUsize,
    /// Who waits on a stream. Bounded by the streams that somebody holds.
    sleepers: Mutex<Vec<Weak<Sleeper>>>,
    /// Whether the connection is over. Locked while yamux is polled, so that a stream which finds
    /// itself closed can learn whether it alone was reset or everything ended.
    over: Mutex<bool>,
    /// Whether it was the network that ended it.
    broke: AtomicBool,
}

/// Who waits on one stream. Yamux wakes them for whatever concerns the stream, and for the loss of
/// the connection, but not for its closing by our own hand.
#[derive(Default)]
struct Sleeper {
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Shared {
    /// A place to sleep for a new stream.
    fn bed(&self) -> Arc<Sleeper> {
        let sleeper = Arc::<Sleeper>::default();
        let mut sleepers = self.sleepers.lock().unwrap_or_else(PoisonError::into_inner);
        sleepers.retain(|sleeper| sleeper.strong_count() > 0);
        sleepers.push(Arc::downgrade(&sleeper));
        sleeper
    }

    /// Tell every stream that the connection is over.
    fn end(&self) {
        *self.lock() = true;
        let sleepers = self.sleepers.lock().unwrap_or_else(PoisonError::into_inner);
        for sleeper in sleepers.iter().filter_map(Weak::upgrade) {
            sleeper.reader.wake();
            sleeper.writer.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.over.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Task<T> {
    connection: ::yamux::Connection<T>,
    requests: Pin<Box<async_channel::Receiver<Command>>>,
    arrivals: async_channel::Sender<RawStream>,
    shared: Arc<Shared>,
    streams_max: usize,
    linger: BoxFuture<'static, ()>,
    closing: bool,
    _ended: async_channel::Sender<Infallible>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Future for Task<T> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            if this.closing {
                return this.poll_close(cx);
            }
            match this.requests.as_mut().poll_next(cx) {
                Poll::Ready(Some(Command::Open(reply))) => {
                    // The caller may have given up; then the stream is dropped unused.
                    let _ = reply.send(this.open(cx));
                    continue;
                }
                Poll::Ready(Some(Command::Abort)) => return Poll::Ready(()),
                Poll::Ready(Some(Command::Close) | None) => {
                    this.begin_close();
                    continue;
                }
                Poll::Pending => {}
            }
            let Some(stream) = ready!(this.poll_inbound(cx)) else {
                return Poll::Ready(());
            };
            this.arrived(stream);
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Task<T> {
    fn open(&mut self, cx: &mut Context<'_>) -> Result<RawStream, MuxerError> {
        // Asking yamux for one stream too many would end the connection.
        if self.shared.live.load(Ordering::Relaxed) >= self.streams_max {
            return Err(MuxerError::TooManyStreams);
        }
        match self.connection.poll_new_outbound(cx) {
            Poll::Ready(Ok(stream)) => Ok(self.adopt(stream)),
            Poll::Ready(Err(_)) => Err(MuxerError::Closed),
            // More streams wait to be acknowledged by the other side than yamux puts up with.
            Poll::Pending => Err(MuxerError::TooManyStreams),
        }
    }

    /// The next inbound stream; `None` when the connection is over.
    fn poll_inbound(&mut self, cx: &mut Context<'_>) -> Poll<Option<::yamux::Stream>> {
        let mut over = self.shared.lock();
        match ready!(self.connection.poll_next_inbound(cx)) {
            Some(Ok(stream)) => Poll::Ready(Some(stream)),
            Some(Err(error)) => {
                tracing::debug!(%error, "a yamux connection ended");
                self.shared.broke.store(is_of_network(&error), Ordering::Relaxed);
                *over = true;
                Poll::Ready(None)
            }
            None => {
                *over = true;
                Poll::Ready(None)
            }
        }
    }

    fn arrived(&self, stream: ::yamux::Stream) {
        if self.shared.live.load(Ordering::Relaxed) >= self.streams_max {
            tracing::debug!("reset an inbound stream: too many are open");
            return;
        }
        if self.arrivals.try_send(self.adopt(stream)).is_err() {
            tracing::debug!("reset an inbound stream: too many wait to be accepted");
        }
    }

    fn adopt(&self, stream: ::yamux::Stream) -> RawStream {
        self.shared.live.fetch_add(1, Ordering::Relaxed);
        let (shared, sleeper) = (self.shared.clone(), self.shared.bed());
        let stream = Stream { inner: stream, finished: false, shared, sleeper };
        RawStream::new(StreamKind::Yamux(stream))
    }

    fn begin_close(&mut self) {
        self.closing = true;
        self.shared.end();
        self.arrivals.close();
        self.requests.close();
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.connection.poll_close(cx).is_ready() {
            return Poll::Ready(());
        }
        self.linger.poll_unpin(cx)
    }
}

/// Whether an error says that packets do not get through any more.
fn is_of_network(error: &::yamux::ConnectionError) -> bool {
    let ::yamux::ConnectionError::Io(error) = error else { return false };
    matches!(
        error.kind(),
        io::ErrorKind::TimedOut
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
    )
}

/// One stream of a yamux connection. Yamux itself resets a stream that is dropped unclosed.
pub(super) struct Stream {
    inner: ::yamux::Stream,
    finished: bool,
    shared: Arc<Shared>,
    sleeper: Arc<Sleeper>,
}

impl Stream {
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut read = Pin::new(&mut self.inner).poll_read(cx, buf);
        if read.is_pending() {
            self.sleeper.reader.register(cx.waker());
            if *self.shared.lock() {
                // What came in just before the end is there by now, and nothing more will come.
                read = Pin::new(&mut self.inner).poll_read(cx, buf);
                read = if read.is_pending() { Poll::Ready(Ok(0)) } else { read };
            }
        }
        let count = ready!(read)?;
        if count == 0 && !buf.is_empty() && self.was_reset() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(count))
    }

    /// Yamux reads a reset as an end of data. While we can still send, a stream closes for good
    /// only by a reset or with the whole connection.
    fn was_reset(&self) -> bool {
        !self.finished && self.inner.is_closed() && !*self.shared.lock()
    }

    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = Pin::new(&mut self.inner).poll_write(cx, buf) {
            return Poll::Ready(written);
        }
        self.sleeper.writer.register(cx.waker());
        if *self.shared.lock() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Pending
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.finished {
            ready!(Pin::new(&mut self.inner).poll_close(cx))?;
            self.finished = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.live.fetch_sub(1, Ordering::Relaxed);
    }
}
