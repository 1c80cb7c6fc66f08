//! Connections over a stream of another connection: what TCP connections do, without the socket.
//! Where a hole was punched, over the socket: there, too, it is agreed beforehand who speaks first,
//! and there is but one byte stream.

use super::error::DialError;
use super::lingering::Lingering;
use super::tcp::{multiplex, secure_inbound, secure_outbound};
use super::{Established, Shared, missed};
use crate::time::timeout;
use crate::traits::{Runtime, Timers};
use ::yamux::Mode;
use futures::io::{AsyncRead, AsyncWrite};
use futures::ready;
use portolan_core::{Addr, Duration, Instant, PeerId, Side};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

/// Shake hands over `io` and expect `peer` at its other end.
///
/// There is no second stream for a second security: what the dialler would try on one connection
/// each, it offers here all at once.
pub(super) async fn shake_hands<R: Runtime>(
    shared: &Shared<R>,
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: PeerId,
    side: Side,
    (local, remote): (Addr, Addr),
) -> Result<Established, DialError> {
    let lap = Arc::<Lap>::default();
    let io = Lingering(Timed::new(io, Arc::new(shared.runtime.clone()), lap.clone()));
    let (keys, offered) = (&shared.keys, shared.config.securities.clone());
    let secure = async {
        match side {
            Side::Outbound => secure_outbound(io, keys, offered).await,
            Side::Inbound => secure_inbound(io, keys).await,
        }
    };
    let patience = shared.config.handshake_timeout;
    let secured = timeout(&shared.runtime, patience, secure).await;
    let (found, io) = secured.ok_or(DialError::HandshakeTimedOut)??;
    if let Some(expected) = missed(Some(peer), found) {
        return Err(DialError::WrongPeer { expected, found });
    }
    let rtt = lap.stop();
    let mode = match side {
        Side::Outbound => Mode::Client,
        Side::Inbound => Mode::Server,
    };
    let muxer = multiplex(shared, io, mode);
    Ok(Established { muxer, peer, side, local, remote, rtt, port_reused: false })
}

/// The time of the last question and its answer. In every handshake that we take part in, on
/// either side, the last message that we wait for answers one of ours, so that this is a round trip.
#[derive(Debug, Default)]
struct Lap {
    stopped: AtomicBool,
    /// Zero: none yet.
    nanos: AtomicU64,
}

impl Lap {
    /// Measure no more.
    fn stop(&self) -> Option<Duration> {
        self.stopped.store(true, Ordering::Relaxed);
        let nanos = self.nanos.load(Ordering::Relaxed);
        (nanos > 0).then(|| Duration::from_nanos(nanos))
    }
}

/// A byte stream whose laps are timed.
struct Timed<T, R> {
    io: T,
    timers: Arc<R>,
    lap: Arc<Lap>,
    /// When we last wrote, unless that was answered.
    asked_at: Option<Duration>,
}

impl<T, R: Timers> Timed<T, R> {
    fn new(io: T, timers: Arc<R>, lap: Arc<Lap>) -> Timed<T, R> {
        Timed { io, timers, lap, asked_at: None }
    }

    fn is_running(&self) -> bool {
        !self.lap.stopped.load(Ordering::Relaxed)
    }

    /// The moment, on a clock that stands still while the machine sleeps.
    fn awake(&self) -> Duration {
        self.timers.now().since(Instant::ZERO).saturating_sub(self.timers.slept())
    }
}

impl<T: AsyncRead + Unpin, R: Timers> AsyncRead for Timed<T, R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
        if self.is_running()
            && let Some(asked_at) = self.asked_at.take()
        {
            let took = self.awake().saturating_sub(asked_at).as_nanos();
            self.lap.nanos.store(u64::try_from(took).unwrap_or(0).max(1), Ordering::Relaxed);
        }
        Poll::Ready(Ok(count))
    }
}

impl<T: AsyncWrite + Unpin, R: Timers> AsyncWrite for Timed<T, R> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_running() {
            self.asked_at = Some(self.awake());
        }
        Pin::new(&mut self.io).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_close(cx)
    }
}
