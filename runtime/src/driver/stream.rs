//! One stream of core's: its bytes become frames, its frames become bytes.
//!
//! ```text
//!  reading:  agreement (ours only) ─► frame ─► frame ─► … ─► Finished | Reset | BadFrame
//!  writing:  frame ─► frame ─► … ─► finish
//! ```
//!
//! The two run side by side in one future, so that they share a waker, which the negotiation
//! below them needs. A stream is over when both have ended, when reading fails, or when core
//! resets it; then it is dropped, which resets whatever is still open of it. Or it is handed over,
//! in its turn among the frames: then it goes on elsewhere, and nothing more is told of it.
//!
//! Each direction of hop and stop has one message. What comes behind it may belong to a circuit: it
//! is kept as it is, up to a limit, until the stream is handed over or ends.

use crate::driver::fact::{Fact, Facts};
use crate::driver::handover::{Handed, Handing};
use crate::driver::limits::{HALF_CLOSED_TIMEOUT, Limits, REST_MAX, STREAM_QUEUE_MAX};
use crate::driver::negotiate::{self, Line};
use crate::net::{Muxer, MuxerError, RawStream};
use crate::node::Uses;
use crate::time::timeout;
use crate::traits::Runtime;
use async_channel::{Receiver, Sender, TrySendError};
use bytes::{Bytes, BytesMut};
use futures::channel::oneshot;
use futures::future::{self, AbortHandle, AbortRegistration, Abortable, Either};
use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use portolan_core::wire::framing;
use portolan_core::{ConnId, Protocol, Side, StreamEnd, StreamFailure, StreamId};
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;

/// Bytes read at once; ours: most frames are smaller. Each stream holds one such buffer.
const CHUNK: usize = 1_024;

/// What a stream is to do next.
#[derive(Debug)]
enum Word {
    /// Write a frame.
    Frame(Bytes),
    /// Go on as bytes, elsewhere.
    HandOver(oneshot::Sender<Handed>),
}

/// The driver's hold on a stream. Frames that are sent wait here until they are written; when it
/// is dropped, the stream finishes sending.
#[derive(Debug)]
pub(crate) struct Orders {
    words: Sender<Word>,
    abort: AbortHandle,
}

/// The stream's end of [`Orders`].
#[derive(Debug)]
pub(crate) struct Ordered {
    words: Receiver<Word>,
    abort: AbortRegistration,
}

impl Orders {
    pub(crate) fn channel() -> (Orders, Ordered) {
        let (sender, receiver) = async_channel::bounded(STREAM_QUEUE_MAX);
        let (abort, registration) = AbortHandle::new_pair();
        let ordered = Ordered { words: receiver, abort: registration };
        (Orders { words: sender, abort }, ordered)
    }

    /// Send one frame; `false` if too many wait already because the peer takes them too slowly.
    /// Frames for a peer that takes no more are dropped: reading will say so.
    pub(crate) fn send(&self, body: Bytes) -> bool {
        !matches!(self.words.try_send(Word::Frame(body)), Err(TrySendError::Full(_)))
    }

    /// Send no more, and drop neither what waits nor what comes in.
    pub(crate) fn finish(&self) {
        self.words.close();
    }

    /// Give the stream away once what was sent is written.
    pub(crate) fn hand_over(self) -> Handing {
        let (reply, handed) = oneshot::channel();
        // A word that finds no room, or nobody, is dropped: then nobody answers, and the wait is over.
        drop(self.words.try_send(Word::HandOver(reply)));
        Handing::new(handed, self.abort)
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
    pub(crate) uses: Arc<Uses>,
    /// Closes when the connection is over.
    pub(crate) under: Receiver<Infallible>,
}

/// How an exchange ended.
enum Over {
    /// Both directions are over.
    Gone,
    /// It never stood.
    Failed,
    /// The stream goes to whoever waits here.
    Leaves(oneshot::Sender<Handed>),
}

impl<R: Runtime> Exchange<R> {
    /// Run a stream that core opens, from its proposal to its end.
    pub(crate) async fn open(self, ordered: Ordered) {
        // A stream that is reset before it stands ends here too.
        let _ = Abortable::new(self.opened(ordered.words), ordered.abort).await;
    }

    /// Run a stream that the peer opened and whose protocol is agreed.
    pub(crate) async fn serve(self, stream: RawStream) {
        let (orders, ordered) = Orders::channel();
        let (conn, id) = (self.conn, self.stream);
        self.facts.tell(Fact::StreamOpened { conn, stream: id, orders: Some(orders) }).await;
        let line = Line::new(stream);
        let run = self.run(line.clone(), line, ordered.words);
        let _ = Abortable::new(run, ordered.abort).await;
    }

    async fn opened(&self, words: Receiver<Word>) {
        let open = timeout(&self.runtime, self.limits.negotiation_timeout, self.muxer.open()).await;
        let line = match open {
            Some(Ok(stream)) => Line::new(stream),
            Some(Err(MuxerError::Closed | MuxerError::TooManyStreams)) => {
                self.failed(StreamFailure::Failed).await;
                return;
            }
            None => {
                self.failed(StreamFailure::TimedOut).await;
                return;
            }
        };
        match negotiate::propose_lazily(line.clone(), self.stream.protocol.name()).await {
            Ok(agreed) => self.run(agreed, line, words).await,
            Err(reason) => {
                self.failed(reason).await;
            }
        }
    }

    /// Exchange frames over `io`, which wraps `line`, to the end or until the stream is handed over.
    async fn run<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        io: S,
        line: Line,
        words: Receiver<Word>,
    ) {
        let mut unread = BytesMut::new();
        match self.exchange(io, &mut unread, words).await {
            Over::Gone => self.facts.tell(Fact::StreamGone { stream: self.stream }).await,
            Over::Failed => {}
            Over::Leaves(reply) => {
                if let Some(stream) = Line::take(&line) {
                    let (under, held) = (self.under.clone(), self.uses.hold());
                    // If nobody waits any more it is dropped, hence reset.
                    drop(reply.send(Handed::new(unread.freeze(), stream, under, held)));
                }
            }
        }
    }

    async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        io: S,
        unread: &mut BytesMut,
        words: Receiver<Word>,
    ) -> Over {
        let (reader, writer) = io.split();
        let (agree, agreed) = oneshot::channel();
        let reading = pin!(self.read(reader, unread, agree));
        let writing = pin!(write(self.stream, writer, words, agreed));
        match future::select(reading, writing).await {
            Either::Left((Ok(StreamEnd::Finished), writing)) => {
                self.closed(StreamEnd::Finished).await;
                // What is still to be written can go nowhere once the connection is over.
                let closed = pin!(self.muxer.closed());
                if let Either::Left((Some(reply), _)) = future::select(writing, closed).await {
                    return Over::Leaves(reply);
                }
            }
            // After a failure the negotiation must not be touched again, nor is there any use.
            Either::Left((Ok(end), _)) => self.closed(end).await,
            Either::Left((Err(reason), _)) => return self.failed(reason).await,
            Either::Right((Some(reply), _)) => return Over::Leaves(reply),
            Either::Right((None, reading)) => {
                match timeout(&self.runtime, HALF_CLOSED_TIMEOUT, reading).await {
                    Some(Ok(end)) => self.closed(end).await,
                    Some(Err(reason)) => return self.failed(reason).await,
                    None => self.closed(StreamEnd::Reset).await,
                }
            }
        }
        Over::Gone
    }

    /// A stream that ends with its connection is not told by itself: that the connection is over is
    /// told next, and is nobody's fault. Over yamux it would look as if the peer had finished.
    async fn closed(&self, end: StreamEnd) {
        if !self.muxer.is_over() {
            self.facts.tell(Fact::StreamClosed { stream: self.stream, end }).await;
        }
    }

    /// Nor is one that could not be opened any more. Its proposal may look as if it had been refused,
    /// which would be a sign of life.
    async fn failed(&self, reason: StreamFailure) -> Over {
        if !self.muxer.is_over() {
            self.facts.tell(Fact::StreamFailed { stream: self.stream, reason }).await;
        }
        Over::Failed
    }

    /// Read until the stream ends; an error says that it never stood.
    async fn read(
        &self,
        mut reader: impl AsyncRead + Unpin,
        unread: &mut BytesMut,
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
        let end = self.read_frames(&mut reader, unread).await;
        if end == StreamEnd::Finished && has_one_message(self.stream.protocol) {
            return Ok(self.read_rest(&mut reader, unread).await);
        }
        Ok(end)
    }

    /// Read behind the last message, and keep it; the rest of what the peer sends has to wait.
    async fn read_rest(
        &self,
        reader: &mut (impl AsyncRead + Unpin),
        unread: &mut BytesMut,
    ) -> StreamEnd {
        let mut chunk = [0; CHUNK];
        while unread.len() < REST_MAX {
            match reader.read(&mut chunk).await {
                Ok(0) => return StreamEnd::Finished,
                Ok(count) => unread.extend_from_slice(chunk.get(..count).unwrap_or_default()),
                Err(_) => return StreamEnd::Reset,
            }
        }
        future::pending().await
    }

    /// Hand in frames until the stream ends, or until the last message that there can be.
    async fn read_frames(
        &self,
        reader: &mut (impl AsyncRead + Unpin),
        buffer: &mut BytesMut,
    ) -> StreamEnd {
        let framing = self.stream.protocol.framing();
        let mut chunk = [0; CHUNK];
        // Runs while a frame is incomplete, from its first byte on.
        let mut overdue: Option<Pin<Box<dyn Future<Output = ()> + Send>>> = None;
        loop {
            match framing::split(framing, buffer) {
                Ok(Some(body)) => {
                    overdue = None;
                    self.facts.tell(Fact::Frame { stream: self.stream, body }).await;
                    if has_one_message(self.stream.protocol) {
                        return StreamEnd::Finished;
                    }
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

/// Whether each direction has one message, and what comes behind it is not for core.
fn has_one_message(protocol: Protocol) -> bool {
    // circuit-v2 §Protocol: one request and one answer, then the circuit, if it is one.
    matches!(protocol, Protocol::Hop | Protocol::Stop)
}

/// Write frames until there are to be no more, then finish; or until the peer takes no more; or
/// until the stream is to be handed over, to whom it returns. Errors are left to the reading half
/// to find.
async fn write(
    stream: StreamId,
    mut writer: impl AsyncWrite + Unpin,
    words: Receiver<Word>,
    agreed: oneshot::Receiver<()>,
) -> Option<oneshot::Sender<Handed>> {
    let framing = stream.protocol.framing();
    let mut buffer = BytesMut::new();
    while let Ok(word) = words.recv().await {
        buffer.clear();
        let mut next = Some(word);
        let mut leaves = None;
        // What waits goes out together.
        while let Some(word) = next.take() {
            let body = match word {
                Word::Frame(body) => body,
                Word::HandOver(reply) => {
                    leaves = Some(reply);
                    break;
                }
            };
            if let Err(error) = framing::encode(framing, &body, &mut buffer) {
                debug_assert!(false, "core sent a frame that its protocol does not allow: {error}");
                return None;
            }
            next = if buffer.len() < 4 * CHUNK { words.try_recv().ok() } else { None };
        }
        let written = async {
            writer.write_all(&buffer).await?;
            writer.flush().await
        };
        if written.await.is_err() {
            return None;
        }
        if leaves.is_some() {
            return leaves;
        }
    }
    // A finish on the heels of an unanswered proposal is more than some peers understand.
    if agreed.await.is_ok() {
        let _ = writer.close().await;
    }
    None
}
