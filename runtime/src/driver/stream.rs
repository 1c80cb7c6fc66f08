//! One stream of core's: its bytes become frames, its frames become bytes.
//!
//! ```text
//!  reading:  agreement (ours only) ─► frame ─► frame ─► … ─► Finished | Reset | BadFrame
//!  writing:  frame ─► frame ─► … ─► finish
//! ```
//!
//! The two run side by side in one future, so that they share a waker, which the negotiation
//! below them needs. A stream is over when both have ended, when reading fails, or when core
//! resets it; then it is dropped, which resets whatever is still open of it.

use crate::driver::fact::{Fact, Facts};
use crate::driver::limits::{HALF_CLOSED_TIMEOUT, Limits, STREAM_QUEUE_MAX};
use crate::driver::negotiate::{self, Line};
use crate::net::{Muxer, MuxerError, RawStream};
use crate::time::timeout;
use crate::traits::Runtime;
use async_channel::{Receiver, Sender, TrySendError};
use bytes::{Bytes, BytesMut};
use futures::channel::oneshot;
use futures::future::{self, AbortHandle, AbortRegistration, Abortable, Either};
use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use portolan_core::wire::framing;
use portolan_core::{ConnId, Side, StreamEnd, StreamFailure, StreamId};
use std::pin::{Pin, pin};

/// Bytes read at once; ours: most frames are smaller. Each stream holds one such buffer.
const CHUNK: usize = 1_024;

/// The driver's hold on a stream. Frames that are sent wait here until they are written; when it
/// is dropped, the stream finishes sending.
#[derive(Debug)]
pub(crate) struct Orders {
    frames: Sender<Bytes>,
    abort: AbortHandle,
}

/// The stream's end of [`Orders`].
#[derive(Debug)]
pub(crate) struct Ordered {
    frames: Receiver<Bytes>,
    abort: AbortRegistration,
}

impl Orders {
    pub(crate) fn channel() -> (Orders, Ordered) {
        let (sender, receiver) = async_channel::bounded(STREAM_QUEUE_MAX);
        let (abort, registration) = AbortHandle::new_pair();
        let ordered = Ordered { frames: receiver, abort: registration };
        (Orders { frames: sender, abort }, ordered)
    }

    /// Send one frame; `false` if too many wait already because the peer takes them too slowly.
    /// Frames for a peer that takes no more are dropped: reading will say so.
    pub(crate) fn send(&self, body: Bytes) -> bool {
        !matches!(self.frames.try_send(body), Err(TrySendError::Full(_)))
    }

    /// Send no more, and drop neither what waits nor what comes in.
    pub(crate) fn finish(&self) {
        self.frames.close();
    }

    /// Drop both directions.
    pub(crate) fn reset(self) {
        self.abort.abort();
    }
}

/// A stream of core's, about to run.
pub(crate) struct Exchange<R: Runtime> {
    pub(crate) runtime: R,
    pub(crate) limits: Limits,
    pub(crate) muxer: Muxer,
    pub(crate) conn: ConnId,
    pub(crate) stream: StreamId,
    pub(crate) facts: Facts,
}

impl<R: Runtime> Exchange<R> {
    /// Run a stream that core opens, from its proposal to its end.
    pub(crate) async fn open(self, ordered: Ordered) {
        // A stream that is reset before it stands ends here too.
        let _ = Abortable::new(self.opened(ordered.frames), ordered.abort).await;
    }

    /// Run a stream that the peer opened and whose protocol is agreed.
    pub(crate) async fn serve(self, stream: RawStream) {
        let (orders, ordered) = Orders::channel();
        let (conn, id) = (self.conn, self.stream);
        self.facts.tell(Fact::StreamOpened { conn, stream: id, orders: Some(orders) }).await;
        let run = self.run(Line::new(stream), ordered.frames);
        let _ = Abortable::new(run, ordered.abort).await;
    }

    async fn opened(&self, frames: Receiver<Bytes>) {
        let open = timeout(&self.runtime, self.limits.negotiation_timeout, self.muxer.open()).await;
        let line = match open {
            Some(Ok(stream)) => Line::new(stream),
            Some(Err(MuxerError::Closed | MuxerError::TooManyStreams)) => {
                return self.failed(StreamFailure::Failed).await;
            }
            None => return self.failed(StreamFailure::TimedOut).await,
        };
        match negotiate::propose_lazily(line, self.stream.protocol.name()).await {
            Ok(agreed) => self.run(agreed, frames).await,
            Err(reason) => self.failed(reason).await,
        }
    }

    async fn run<S: AsyncRead + AsyncWrite + Unpin>(&self, io: S, frames: Receiver<Bytes>) {
        let (reader, writer) = io.split();
        let (agree, agreed) = oneshot::channel();
        let reading = pin!(self.read(reader, agree));
        let writing = pin!(write(self.stream, writer, frames, agreed));
        match future::select(reading, writing).await {
            Either::Left((Ok(StreamEnd::Finished), writing)) => {
                self.closed(StreamEnd::Finished).await;
                // What is still to be written can go nowhere once the connection is over.
                future::select(writing, pin!(self.muxer.closed())).await;
            }
            // After a failure the negotiation must not be touched again, nor is there any use.
            Either::Left((Ok(end), _)) => self.closed(end).await,
            Either::Left((Err(reason), _)) => return self.failed(reason).await,
            Either::Right(((), reading)) => {
                match timeout(&self.runtime, HALF_CLOSED_TIMEOUT, reading).await {
                    Some(Ok(end)) => self.closed(end).await,
                    Some(Err(reason)) => return self.failed(reason).await,
                    None => self.closed(StreamEnd::Reset).await,
                }
            }
        }
        self.facts.tell(Fact::StreamGone { stream: self.stream }).await;
    }

    async fn closed(&self, end: StreamEnd) {
        self.facts.tell(Fact::StreamClosed { stream: self.stream, end }).await;
    }

    async fn failed(&self, reason: StreamFailure) {
        self.facts.tell(Fact::StreamFailed { stream: self.stream, reason }).await;
    }

    /// Read until the stream ends; an error says that it never stood.
    async fn read(
        &self,
        mut reader: impl AsyncRead + Unpin,
        agree: oneshot::Sender<()>,
    ) -> Result<StreamEnd, StreamFailure> {
        if self.stream.side == Side::Outbound {
            // Reading nothing waits for the agreement.
            match timeout(&self.runtime, self.limits.negotiation_timeout, reader.read(&mut []))
                .await
            {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(negotiate::lazy_failure(&error)),
                None => return Err(StreamFailure::TimedOut),
            }
            let (conn, stream) = (self.conn, self.stream);
            self.facts.tell(Fact::StreamOpened { conn, stream, orders: None }).await;
        }
        // The writing half may be gone; then nobody waits for the agreement.
        let _ = agree.send(());
        Ok(self.read_frames(&mut reader).await)
    }

    async fn read_frames(&self, reader: &mut (impl AsyncRead + Unpin)) -> StreamEnd {
        let framing = self.stream.protocol.framing();
        let mut buffer = BytesMut::new();
        let mut chunk = [0; CHUNK];
        // Runs while a frame is incomplete, from its first byte on.
        let mut overdue: Option<Pin<Box<dyn Future<Output = ()> + Send>>> = None;
        loop {
            match framing::split(framing, &mut buffer) {
                Ok(Some(body)) => {
                    overdue = None;
                    self.facts.tell(Fact::Frame { stream: self.stream, body }).await;
                    continue;
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(conn = %self.conn, stream = %self.stream, %error, "bad frame");
                    return StreamEnd::BadFrame;
                }
            }
            if !buffer.is_empty() && overdue.is_none() {
                overdue = Some(Box::pin(self.runtime.sleep(self.limits.frame_timeout)));
            }
            let read = reader.read(&mut chunk);
            let read = match &mut overdue {
                None => read.await,
                Some(overdue) => match future::select(pin!(read), overdue).await {
                    Either::Left((read, _)) => read,
                    Either::Right(((), _)) => {
                        tracing::debug!(conn = %self.conn, stream = %self.stream, "slow frame");
                        return StreamEnd::BadFrame;
                    }
                },
            };
            match read {
                Ok(0) if buffer.is_empty() => return StreamEnd::Finished,
                Ok(0) => return StreamEnd::BadFrame,
                Ok(count) => buffer.extend_from_slice(chunk.get(..count).unwrap_or_default()),
                Err(_) => return StreamEnd::Reset,
            }
        }
    }
}

/// Write frames until there are to be no more, then finish; or until the peer takes no more.
/// Errors are left to the reading half to find.
async fn write(
    stream: StreamId,
    mut writer: impl AsyncWrite + Unpin,
    frames: Receiver<Bytes>,
    agreed: oneshot::Receiver<()>,
) {
    let framing = stream.protocol.framing();
    let mut buffer = BytesMut::new();
    while let Ok(body) = frames.recv().await {
        buffer.clear();
        let mut next = Some(body);
        // What waits goes out together.
        while let Some(body) = next {
            if let Err(error) = framing::encode(framing, &body, &mut buffer) {
                debug_assert!(false, "core sent a frame that its protocol does not allow: {error}");
                return;
            }
            next = if buffer.len() < 4 * CHUNK { frames.try_recv().ok() } else { None };
        }
        let written = async {
            writer.write_all(&buffer).await?;
            writer.flush().await
        };
        if written.await.is_err() {
            return;
        }
    }
    // A finish on the heels of an unanswered proposal is more than some peers understand.
    if agreed.await.is_ok() {
        let _ = writer.close().await;
    }
}
