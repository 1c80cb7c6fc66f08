//! Connections and streams, whatever carries them.

use super::error::MuxerError;
use super::{quic, yamux};
use futures::io::{AsyncRead, AsyncWrite};
use portolan_core::Duration;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A handle to an established connection that carries streams. Clones share the connection;
/// when the last one is dropped, the connection closes.
#[derive(Clone)]
pub struct Muxer(Arc<Kind>);

enum Kind {
    Yamux(yamux::Handle),
    Quic(quic::Handle),
}

impl Muxer {
    pub(super) fn yamux(handle: yamux::Handle) -> Muxer {
        Muxer(Arc::new(Kind::Yamux(handle)))
    }

    pub(super) fn quic(handle: quic::Handle) -> Muxer {
        Muxer(Arc::new(Kind::Quic(handle)))
    }

    /// Open a stream. The other side hears of it with the first byte that is written.
    ///
    /// # Errors
    /// [`MuxerError::Closed`] after the connection's end, [`MuxerError::TooManyStreams`] when
    /// there is no room. Over QUIC, where the other side grants room, it waits instead.
    pub async fn open(&self) -> Result<RawStream, MuxerError> {
        match &*self.0 {
            Kind::Yamux(handle) => handle.open().await,
            Kind::Quic(handle) => handle.open().await,
        }
    }

    /// Wait for the next stream that the other side opens. Streams that nobody accepts are kept
    /// up to a small number; beyond it they are reset (TCP) or not granted (QUIC).
    ///
    /// # Errors
    /// [`MuxerError::Closed`] once the connection is over.
    pub async fn accept(&self) -> Result<RawStream, MuxerError> {
        match &*self.0 {
            Kind::Yamux(handle) => handle.accept().await,
            Kind::Quic(handle) => handle.accept().await,
        }
    }

    /// Close the connection once what was written, on streams whose sending side was closed, has
    /// been delivered, or after a short linger. Resolves when it is over.
    pub async fn close(&self) {
        match &*self.0 {
            Kind::Yamux(handle) => handle.close().await,
            Kind::Quic(handle) => handle.close().await,
        }
    }

    /// Drop a connection that was just made, without a word and without waiting for the other
    /// side: for peers that come in greater numbers than can be kept.
    pub fn abort(self) {
        match &*self.0 {
            Kind::Yamux(handle) => handle.abort(),
            // Its last handle closes it at once.
            Kind::Quic(_) => {}
        }
    }

    /// Resolves when the connection is over, by whoever's doing.
    pub async fn closed(&self) {
        match &*self.0 {
            Kind::Yamux(handle) => handle.closed().await,
            Kind::Quic(handle) => handle.closed().await,
        }
    }

    /// Whether the connection is over, by whoever's doing. A stream that failed because of that sees
    /// it at once.
    pub fn is_over(&self) -> bool {
        match &*self.0 {
            Kind::Yamux(handle) => handle.is_over(),
            Kind::Quic(handle) => handle.is_over(),
        }
    }

    /// Whether the network ended the connection, and neither side: nothing came for too long, or
    /// packets are answered by a reset.
    pub fn broke(&self) -> bool {
        match &*self.0 {
            Kind::Yamux(handle) => handle.broke(),
            Kind::Quic(handle) => handle.broke(),
        }
    }

    /// The transport's own estimate of the round-trip time, where it has one (QUIC).
    pub fn rtt(&self) -> Option<Duration> {
        match &*self.0 {
            Kind::Yamux(_) => None,
            Kind::Quic(handle) => Some(handle.rtt()),
        }
    }
}

impl fmt::Debug for Muxer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &*self.0 {
            Kind::Yamux(_) => "Muxer(yamux)",
            Kind::Quic(_) => "Muxer(quic)",
        })
    }
}

/// One stream: bytes both ways, each way with its own end.
///
/// Closing ends the sending side only; what was written is still delivered. A stream that is
/// dropped before it was closed is reset. A reset by the other side reads as an error of kind
/// `ConnectionReset`. Over yamux, whose streams do not tell the two apart afterwards, it reads
/// as an ordinary end once our own sending side is closed, or once the connection is over.
pub struct RawStream(Option<StreamKind>);

pub(super) enum StreamKind {
    Yamux(yamux::Stream),
    Quic(quic::Stream),
}

impl RawStream {
    pub(super) fn new(kind: StreamKind) -> RawStream {
        RawStream(Some(kind))
    }

    /// Drop both directions at once and tell the other side.
    pub fn reset(&mut self) {
        self.0 = None;
    }

    fn poll_with<T>(
        &mut self,
        poll: impl FnOnce(&mut StreamKind) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match &mut self.0 {
            Some(kind) => poll(kind),
            None => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

impl AsyncRead for RawStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_with(|kind| match kind {
            StreamKind::Yamux(stream) => stream.poll_read(cx, buf),
            StreamKind::Quic(stream) => stream.poll_read(cx, buf),
        })
    }
}

impl AsyncWrite for RawStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_with(|kind| match kind {
            StreamKind::Yamux(stream) => stream.poll_write(cx, buf),
            StreamKind::Quic(stream) => stream.poll_write(cx, buf),
        })
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_with(|kind| match kind {
            StreamKind::Yamux(stream) => stream.poll_flush(cx),
            StreamKind::Quic(stream) => stream.poll_flush(cx),
        })
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_with(|kind| match kind {
            StreamKind::Yamux(stream) => stream.poll_close(cx),
            StreamKind::Quic(stream) => stream.poll_close(cx),
        })
    }
}

impl fmt::Debug for RawStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Some(StreamKind::Yamux(_)) => "RawStream(yamux)",
            Some(StreamKind::Quic(_)) => "RawStream(quic)",
            None => "RawStream(reset)",
        })
    }
}
