//! A stream that changes hands: from core, for which it was frames, to somebody who takes it as it
//! is, for a circuit.
//!
//! What was ordered before is written first. What has come in behind the last message goes along,
//! so that the new owner reads on where the message ended.

use crate::net::RawStream;
use crate::node::Held;
use crate::time::timeout;
use crate::traits::Timers;
use async_channel::Receiver;
use bytes::{Buf, Bytes};
use futures::channel::oneshot;
use futures::future::AbortHandle;
use futures::io::{AsyncRead, AsyncWrite};
use portolan_core::Duration;
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A stream after its messages. While it is held, its connection is not idle.
pub(crate) struct Handed {
    /// What came in behind the last message, and was not asked for yet.
    rest: Bytes,
    stream: RawStream,
    under: Receiver<Infallible>,
    _held: Held,
}

impl Handed {
    /// `under` closes when the connection below is over.
    pub(crate) fn new(
        rest: Bytes,
        stream: RawStream,
        under: Receiver<Infallible>,
        held: Held,
    ) -> Handed {
        Handed { rest, stream, under, _held: held }
    }

    /// What closes when the connection that carries the stream is over.
    pub(crate) fn under(&self) -> Receiver<Infallible> {
        self.under.clone()
    }
}

/// Nothing in it is ever pinned where it lies.
impl Unpin for Handed {}

impl AsyncRead for Handed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.rest.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let count = self.rest.len().min(buffer.len());
        self.rest.copy_to_slice(&mut buffer[..count]);
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Handed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

impl fmt::Debug for Handed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handed").field("rest", &self.rest.len()).finish_non_exhaustive()
    }
}

/// A stream on its way to its new owner. If it is dropped, the stream is reset.
#[derive(Debug)]
pub(crate) struct Handing {
    handed: oneshot::Receiver<Handed>,
    abort: AbortHandle,
}

impl Handing {
    pub(crate) fn new(handed: oneshot::Receiver<Handed>, abort: AbortHandle) -> Handing {
        Handing { handed, abort }
    }

    /// The stream; `None` if it has ended, or if the peer does not take in time what was sent on it
    /// before.
    pub(crate) async fn taken<T: Timers>(mut self, timers: &T, span: Duration) -> Option<Handed> {
        timeout(timers, span, &mut self.handed).await?.ok()
    }
}

impl Drop for Handing {
    fn drop(&mut self) {
        // One that was handed over has left its task, which may as well end here.
        self.abort.abort();
    }
}
