//! A bridge: bytes are passed between two streams, both ways, without anybody looking at them.
//!
//! ```text
//!  each way:  passing ─► (the source finished) closing ─► over          both over: Finished
//!                └─► at its limit, and there is more: BytesUsedUp       a side broke: Reset
//! ```
//!
//! What cannot be written yet waits, and nothing more is read on that way: so back-pressure reaches
//! the sender. Each way holds one chunk at most, and nothing while nothing waits.

use crate::driver::handover::Handing;
use crate::driver::limits::CLOSE_TIMEOUT;
use crate::time::timeout;
use crate::traits::Timers;
use async_channel::Receiver;
use bytes::{Buf, Bytes};
use futures::channel::oneshot;
use futures::future::{self, Either, join};
use futures::io::{AsyncRead, AsyncWrite};
use futures::ready;
use portolan_core::{BridgeEnd, Duration};
use std::cell::RefCell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

/// Bytes read at once, number; ours: four frames of yamux. A reader that is slow makes each way hold
/// as many.
const CHUNK: usize = 64 * 1_024;
/// Chunks passed in one turn, number; ours: whoever has more waits for its next turn.
const CHUNKS_PER_TURN: usize = 16;

/// How a bridge ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bridged {
    pub(crate) end: BridgeEnd,
    /// Bytes passed from the initiator to the target.
    pub(crate) forth: u64,
    /// Bytes passed from the target to the initiator.
    pub(crate) back: u64,
}

/// Take over both streams and pass bytes until the end. Both streams are gone when this resolves.
pub(crate) async fn run<T: Timers>(
    timers: &T,
    patience: Duration,
    (initiator, target): (Handing, Handing),
    bytes_max: Option<u64>,
    mut cut: oneshot::Receiver<()>,
) -> Bridged {
    let taking = pin!(join(initiator.taken(timers, patience), target.taken(timers, patience)));
    let nothing = |end| Bridged { end, forth: 0, back: 0 };
    let (initiator, target) = match future::select(taking, &mut cut).await {
        Either::Left(((Some(initiator), Some(target)), _)) => (initiator, target),
        Either::Left(_) => return nothing(BridgeEnd::Reset),
        Either::Right(_) => return nothing(BridgeEnd::Cut),
    };
    let lost = (initiator.under(), target.under());
    let mut copier = Copier::new(initiator, target, bytes_max);
    let end = {
        let stopped = pin!(stopped(lost, cut));
        match future::select(&mut copier, stopped).await {
            Either::Left((end, _)) | Either::Right((end, _)) => end,
        }
    };
    if end == BridgeEnd::BytesUsedUp {
        // What fits is delivered, which a reset would prevent over QUIC.
        let delivered = timeout(timers, CLOSE_TIMEOUT, poll_fn(|cx| copier.poll_deliver(cx)));
        let _ = delivered.await;
    }
    Bridged { end, forth: copier.forth.passed, back: copier.back.passed }
}

/// Resolves when the bridge is cut, or a connection below is over.
async fn stopped(
    (initiator, target): (Receiver<Infallible>, Receiver<Infallible>),
    cut: oneshot::Receiver<()>,
) -> BridgeEnd {
    let (initiator, target) = (pin!(initiator.recv()), pin!(target.recv()));
    match future::select(cut, future::select(initiator, target)).await {
        Either::Left(_) => BridgeEnd::Cut,
        Either::Right(_) => BridgeEnd::Reset,
    }
}

/// Passes bytes between two streams; resolves to why it stopped.
struct Copier<A, B> {
    initiator: A,
    target: B,
    forth: Way,
    back: Way,
}

impl<A, B> Copier<A, B>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    fn new(initiator: A, target: B, bytes_max: Option<u64>) -> Copier<A, B> {
        let (forth, back) = (Way::new(bytes_max), Way::new(bytes_max));
        Copier { initiator, target, forth, back }
    }

    /// Finish the way that was at its limit.
    fn poll_deliver(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.forth.stage == Stage::UsedUp {
            ready!(Pin::new(&mut self.target).poll_close(cx))?;
        }
        if self.back.stage == Stage::UsedUp {
            ready!(Pin::new(&mut self.initiator).poll_close(cx))?;
        }
        Poll::Ready(Ok(()))
    }
}

impl<A, B> Future for Copier<A, B>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    type Output = BridgeEnd;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<BridgeEnd> {
        let Copier { initiator, target, forth, back } = &mut *self;
        let (forth, back) = with_scratch(|scratch| {
            let forth = forth.poll(cx, initiator, target, scratch);
            (forth, back.poll(cx, target, initiator, scratch))
        });
        match (forth, back) {
            (Poll::Ready(Err(end)), _) | (_, Poll::Ready(Err(end))) => Poll::Ready(end),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(BridgeEnd::Finished),
            (Poll::Pending, _) | (_, Poll::Pending) => Poll::Pending,
        }
    }
}

thread_local! {
    /// Where bytes are between being read and written: within one call, so that bridges share it.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Lend one chunk of memory.
fn with_scratch<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH.with(|scratch| match scratch.try_borrow_mut() {
        Ok(mut scratch) => {
            scratch.resize(CHUNK, 0);
            work(&mut scratch)
        }
        // A stream that polls another bridge: there is none today.
        Err(_) => work(&mut vec![0; CHUNK]),
    })
}

/// One direction.
struct Way {
    stage: Stage,
    /// Bytes that may still be read; `None` is no limit.
    left: Option<u64>,
    /// Read, and not written yet.
    waiting: Bytes,
    passed: u64,
    /// Whether something was written that is not flushed.
    unflushed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Passing,
    Closing,
    Over,
    UsedUp,
}

impl Way {
    fn new(left: Option<u64>) -> Way {
        Way { stage: Stage::Passing, left, waiting: Bytes::new(), passed: 0, unflushed: false }
    }

    /// Pass what there is; an error says why the bridge is over.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        scratch: &mut [u8],
    ) -> Poll<Result<(), BridgeEnd>> {
        for _ in 0..CHUNKS_PER_TURN {
            match self.stage {
                Stage::Passing => ready!(self.poll_pass(cx, from, to, scratch))?,
                Stage::Closing => {
                    ready!(Pin::new(&mut *to).poll_close(cx)).map_err(|_| BridgeEnd::Reset)?;
                    self.stage = Stage::Over;
                }
                Stage::Over => return Poll::Ready(Ok(())),
                Stage::UsedUp => return Poll::Ready(Err(BridgeEnd::BytesUsedUp)),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Write what waits, then read and write one chunk.
    fn poll_pass(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        scratch: &mut [u8],
    ) -> Poll<Result<(), BridgeEnd>> {
        let reset = |_| BridgeEnd::Reset;
        while !self.waiting.is_empty() {
            let count = ready!(self.poll_write(cx, to, &self.waiting.clone())).map_err(reset)?;
            self.waiting.advance(count);
        }
        // At the limit one byte more is enough to know.
        let most = self.left.map_or(CHUNK, |left| usize::try_from(left).unwrap_or(CHUNK));
        let Some(room) = scratch.get_mut(..most.clamp(1, CHUNK)) else {
            return Poll::Ready(Err(BridgeEnd::Reset));
        };
        let count = match Pin::new(&mut *from).poll_read(cx, room) {
            Poll::Ready(count) => count.map_err(reset)?,
            Poll::Pending => {
                if self.unflushed {
                    // What was passed must not wait for what is still to come.
                    ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(reset)?;
                    self.unflushed = false;
                }
                return Poll::Pending;
            }
        };
        if count == 0 {
            self.stage = Stage::Closing;
            return Poll::Ready(Ok(()));
        }
        if let Some(left) = &mut self.left {
            if *left == 0 {
                self.stage = Stage::UsedUp;
                return Poll::Ready(Err(BridgeEnd::BytesUsedUp));
            }
            *left = left.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
        }
        let mut rest = room.get(..count).unwrap_or_default();
        while !rest.is_empty() {
            match self.poll_write(cx, to, rest) {
                Poll::Ready(count) => rest = rest.get(count.map_err(reset)?..).unwrap_or_default(),
                Poll::Pending => {
                    self.waiting = Bytes::copy_from_slice(rest);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut (impl AsyncWrite + Unpin),
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(to).poll_write(cx, bytes))?;
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.passed = self.passed.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        self.unflushed = true;
        Poll::Ready(Ok(count))
    }
}

#[cfg(test)]
mod tests;
