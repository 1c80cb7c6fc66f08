//! One carrier: a stream of the node, and the frames on it.

use super::session::Violation;
use super::shared::{Path, Shared};
use crate::node::Stream;
use crate::time::timeout;
use crate::traits::{Runtime, Timers};
use bytes::{Buf, BytesMut};
use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use portolan_core::wire::pipe::{Frame, FrameError, ResetCode, encode, split};
use portolan_core::{ConnId, Instant};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Bytes read at once; ours: one frame. Each carrier holds one such buffer.
const CHUNK: usize = 16_384;
/// Bytes of frames that wait to be written, ours: they are copies of what the session keeps. When
/// full, the session is asked for no more.
const OUT_MAX: usize = 65_536;
/// How often a carrier goes on without letting others run, number; ours: some hundred KiB.
const TURNS_MAX: usize = 16;

/// A stream with frames on it.
pub(super) struct Carrier {
    stream: Stream,
    chunk: Box<[u8]>,
    arrived: BytesMut,
    out: BytesMut,
    /// Whether something was written that may not have left.
    is_dirty: bool,
    /// Whether nothing can be written any more.
    is_deaf: bool,
    /// When words went out to which the next frame answers.
    asked_at: Option<Instant>,
}

/// How a carrier ended.
#[derive(Debug)]
pub(super) enum End {
    /// The session is over, and everything has left.
    Over,
    /// The stream is over before the session is.
    Lost,
    /// The other side said so.
    Reset(ResetCode),
    /// The other side broke a rule.
    Violated(Violation),
}

/// Why there is no first frame.
#[derive(Debug)]
pub(super) enum Unheard {
    /// The stream ended.
    Broken,
    /// What came is no frame.
    Bad(FrameError),
}

impl Carrier {
    pub(super) fn new(stream: Stream) -> Carrier {
        Carrier {
            stream,
            chunk: vec![0; CHUNK].into(),
            arrived: BytesMut::new(),
            out: BytesMut::new(),
            is_dirty: false,
            is_deaf: false,
            asked_at: None,
        }
    }

    /// The connection that it is on.
    pub(super) fn conn(&self) -> ConnId {
        self.stream.conn()
    }

    /// Have a frame ready to be sent.
    pub(super) fn say(&mut self, frame: &Frame) {
        encode(frame, &mut self.out);
    }

    /// The same with one that the other side answers.
    pub(super) fn ask(&mut self, frame: &Frame, now: Instant) {
        encode(frame, &mut self.out);
        self.asked_at = Some(now);
    }

    /// Write and flush what waits, outside of a session.
    pub(super) async fn send(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.out).await?;
        self.out.clear();
        self.stream.flush().await
    }

    /// The next frame, outside of a session.
    pub(super) async fn hear(&mut self) -> Result<Frame, Unheard> {
        loop {
            if let Some(frame) = split(&mut self.arrived).map_err(Unheard::Bad)? {
                return Ok(frame);
            }
            match self.stream.read(&mut self.chunk).await {
                Ok(0) | Err(_) => return Err(Unheard::Broken),
                Ok(count) => self.arrived.extend_from_slice(&self.chunk[..count]),
            }
        }
    }

    /// Say why it is over, and let that leave.
    pub(super) async fn refuse<T: Timers>(mut self, code: ResetCode, timers: &T) {
        encode(&Frame::Reset(code), &mut self.out);
        let farewell = async {
            self.send().await?;
            self.stream.close().await?;
            // A stream that is dropped with unread bytes may be torn down before they read ours.
            while self.stream.read(&mut self.chunk).await? > 0 {}
            io::Result::Ok(())
        };
        // Whoever does not want to hear it learns from the end of the stream.
        let _ = timeout(timers, super::FAREWELL, farewell).await;
    }

    /// Drop a carrier whose session is over, once the other side has read the last words: a stream
    /// that is dropped before both ends are closed may be reset, and the words with it.
    pub(super) fn part<R: Runtime>(mut self, runtime: &R) {
        let timers = runtime.clone();
        runtime.spawn(Box::pin(async move {
            let rest = async { while let Ok(1..) = self.stream.read(&mut self.chunk).await {} };
            // Who does not close is not waited for.
            let _ = timeout(&timers, super::FAREWELL, rest).await;
        }));
    }

    /// Refuse in the background.
    pub(super) fn dismiss<R: Runtime>(self, code: ResetCode, runtime: &R) {
        let timers = runtime.clone();
        runtime.spawn(Box::pin(async move { self.refuse(code, &timers).await }));
    }

    /// Move bytes both ways, until the carrier ends.
    pub(super) fn poll<T: Timers>(
        &mut self,
        cx: &mut Context<'_>,
        shared: &Shared,
        timers: &T,
    ) -> Poll<End> {
        for _ in 0..TURNS_MAX {
            let wrote = self.poll_out(cx, shared);
            if self.out.is_empty() && !self.is_dirty && shared.lock().session.is_settled() {
                // What the close cannot deliver, nobody needs.
                let _ = std::task::ready!(Pin::new(&mut self.stream).poll_close(cx));
                return Poll::Ready(End::Over);
            }
            match Pin::new(&mut self.stream).poll_read(cx, &mut self.chunk) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(self.cut(shared)),
                Poll::Ready(Ok(count)) => {
                    self.arrived.extend_from_slice(&self.chunk[..count]);
                    if let Some(end) = self.take(shared, timers) {
                        return Poll::Ready(end);
                    }
                }
                Poll::Pending if wrote => {}
                Poll::Pending => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Write what the session has to say; whether it was all that fits at once.
    fn poll_out(&mut self, cx: &mut Context<'_>, shared: &Shared) -> bool {
        if self.is_deaf {
            self.out.clear();
            self.is_dirty = false;
            return false;
        }
        if self.out.is_empty() {
            shared.lock().session.produce(&mut self.out, OUT_MAX);
        }
        let mut wrote = false;
        while !self.out.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.out) {
                Poll::Ready(Ok(count)) if count > 0 => {
                    self.out.advance(count);
                    self.is_dirty = true;
                    wrote = true;
                }
                Poll::Ready(_) => {
                    // What the other side said last may still be read.
                    self.is_deaf = true;
                    return false;
                }
                Poll::Pending => return false,
            }
        }
        if self.is_dirty {
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.is_dirty = false,
                Poll::Ready(Err(_)) => self.is_deaf = true,
                Poll::Pending => {}
            }
        }
        wrote
    }

    /// Hand the frames that have arrived to the session.
    fn take<T: Timers>(&mut self, shared: &Shared, timers: &T) -> Option<End> {
        let mut state = shared.lock();
        let mut end = None;
        let mut heard = false;
        while end.is_none() {
            let handled = match split(&mut self.arrived) {
                Ok(Some(frame)) => state.session.handle(frame),
                Ok(None) => break,
                Err(error) => Err(error.into()),
            };
            heard = true;
            end = match handled {
                Ok(None) => None,
                Ok(Some(code)) => Some(End::Reset(code)),
                Err(violation) => Some(End::Violated(violation)),
            };
        }
        state.stir();
        drop(state);
        if heard && let Some(asked_at) = self.asked_at.take() {
            let rtt = Some(timers.now().since(asked_at));
            shared.set_path(Some(Path { conn: self.conn(), rtt }));
        }
        end
    }

    /// The stream has ended under the session.
    fn cut(&self, shared: &Shared) -> End {
        if shared.lock().session.is_over() { End::Over } else { End::Lost }
    }
}
