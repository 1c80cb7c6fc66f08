//! Agreeing on a stream's protocol, by multistream-select.
//!
//! Core's own streams settle on their only protocol at once and send their first frames along
//! (`V1Lazy`), which saves a round trip; streams of the application wait for the agreement.

use crate::net::RawStream;
use crate::node::OpenError;
use crate::time::timeout;
use crate::traits::Runtime;
use futures::{AsyncRead, AsyncWrite};
use multistream_select::{
    Negotiated, NegotiationError, Version, dialer_select_proto, listener_select_proto,
};
use portolan_core::{Duration, StreamFailure};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

/// A stream that can be taken out of the negotiation that wraps it. Dropping the last copy drops
/// the stream, which resets what is open of it.
#[derive(Clone, Debug)]
pub(crate) struct Line(Arc<Mutex<Option<RawStream>>>);

/// A stream whose protocol is agreed, or expected to be.
pub(crate) type Agreed = Negotiated<Line>;

impl Line {
    pub(crate) fn new(stream: RawStream) -> Line {
        Line(Arc::new(Mutex::new(Some(stream))))
    }

    /// The stream itself; every copy of this line is dead from now on.
    pub(crate) fn take(&self) -> Option<RawStream> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<RawStream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll<T>(
        &self,
        poll: impl FnOnce(Pin<&mut RawStream>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match self.lock().as_mut() {
            Some(stream) => poll(Pin::new(stream)),
            None => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if buffer.is_empty() {
            // Reading nothing through a lazy negotiation waits for the agreement alone.
            return Poll::Ready(Ok(0));
        }
        self.poll(|stream| stream.poll_read(cx, buffer))
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll(|stream| stream.poll_write(cx, buffer))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_flush(cx))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_close(cx))
    }
}

/// Settle on the one protocol without waiting for the peer: what is written goes out behind the
/// proposal, and reading (even of nothing) waits for the agreement.
pub(crate) async fn propose_lazily(line: Line, protocol: &str) -> Result<Agreed, StreamFailure> {
    let proposed = dialer_select_proto(line, [protocol], Version::V1Lazy).await;
    proposed.map(|(_, agreed)| agreed).map_err(|error| failure(&error))
}

/// Propose one protocol and wait for the agreement. A stream without one is reset.
pub(crate) async fn propose<R: Runtime>(
    runtime: &R,
    patience: Duration,
    stream: RawStream,
    protocol: &str,
) -> Result<RawStream, OpenError> {
    let line = Line::new(stream);
    let proposal = dialer_select_proto(line.clone(), [protocol], Version::V1);
    match timeout(runtime, patience, proposal).await {
        Some(Ok(_)) => line.take().ok_or(OpenError::Lost),
        Some(Err(NegotiationError::Failed)) => Err(OpenError::Unsupported(protocol.into())),
        Some(Err(NegotiationError::ProtocolError(_))) => Err(OpenError::Lost),
        None => Err(OpenError::TimedOut),
    }
}

/// Let the peer choose one of `protocols`, in bounded time. A stream without an agreement is
/// reset.
pub(crate) async fn answer<R: Runtime>(
    runtime: &R,
    patience: Duration,
    stream: RawStream,
    protocols: Vec<String>,
) -> Option<(String, RawStream)> {
    let line = Line::new(stream);
    let answering = listener_select_proto(line.clone(), protocols);
    match timeout(runtime, patience, answering).await {
        // The agreement is flushed by now, so that nothing is left in the wrapper.
        Some(Ok((protocol, _))) => line.take().map(|stream| (protocol, stream)),
        Some(Err(error)) => {
            tracing::debug!(%error, "no agreement on an inbound stream");
            None
        }
        None => {
            tracing::debug!("an inbound stream was too slow to agree on a protocol");
            None
        }
    }
}

/// What a failed proposal means to core.
fn failure(error: &NegotiationError) -> StreamFailure {
    match error {
        NegotiationError::Failed => StreamFailure::Unsupported,
        NegotiationError::ProtocolError(_) => StreamFailure::Failed,
    }
}

/// What a failure to read the agreement of a lazy proposal means to core.
pub(crate) fn lazy_failure(error: &io::Error) -> StreamFailure {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<NegotiationError>());
    match inner {
        Some(error) => failure(error),
        // The peer closed the stream instead of answering: as good as a refusal.
        None if error.kind() == io::ErrorKind::UnexpectedEof => StreamFailure::Unsupported,
        None => StreamFailure::Failed,
    }
}
