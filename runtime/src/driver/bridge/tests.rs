//! The copier over pipes in memory.

use super::*;
use futures::executor::block_on;
use futures::io::{AsyncReadExt, AsyncWriteExt};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::task::Waker;

/// Bytes that wait in one direction of a pipe, number.
const ROOM: usize = 1_000;

/// One direction of a pipe.
#[derive(Default)]
struct Lane {
    bytes: VecDeque<u8>,
    finished: bool,
    reset: bool,
    wakers: Vec<Waker>,
}

impl Lane {
    fn wake(&mut self) {
        self.wakers.drain(..).for_each(Waker::wake);
    }
}

/// One end of a pipe.
struct End {
    from: Arc<Mutex<Lane>>,
    to: Arc<Mutex<Lane>>,
}

fn pipe() -> (End, End) {
    let (one, other) = (Arc::<Mutex<Lane>>::default(), Arc::<Mutex<Lane>>::default());
    (End { from: one.clone(), to: other.clone() }, End { from: other, to: one })
}

impl AsyncRead for End {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut lane = self.from.lock().expect("no panic");
        let count = lane.bytes.len().min(buffer.len());
        if count == 0 && lane.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if count == 0 && !lane.finished {
            lane.wakers.push(cx.waker().clone());
            return Poll::Pending;
        }
        for (to, byte) in buffer.iter_mut().zip(lane.bytes.drain(..count)) {
            *to = byte;
        }
        lane.wake();
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for End {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut lane = self.to.lock().expect("no panic");
        if lane.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let count = buffer.len().min(ROOM - lane.bytes.len());
        if count == 0 {
            lane.wakers.push(cx.waker().clone());
            return Poll::Pending;
        }
        lane.bytes.extend(&buffer[..count]);
        lane.wake();
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut lane = self.to.lock().expect("no panic");
        lane.finished = true;
        lane.wake();
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let mut lane = self.to.lock().expect("no panic");
        lane.reset |= !lane.finished;
        lane.wake();
        let mut lane = self.from.lock().expect("no panic");
        lane.reset = true;
        lane.wake();
    }
}

/// A bridge between two pipes: its far ends, and the copier.
fn bridge(bytes_max: Option<u64>) -> (End, End, Copier<End, End>) {
    let ((initiator, near), (far, target)) = (pipe(), pipe());
    (initiator, target, Copier::new(near, far, bytes_max))
}

fn text(size: usize) -> Vec<u8> {
    (0..size).map(|at| u8::try_from(at % 251).expect("it is less")).collect()
}

/// Run the copier to its end, close what is to be delivered, and drop it.
async fn run(mut copier: Copier<End, End>) -> Bridged {
    let end = (&mut copier).await;
    if end == BridgeEnd::BytesUsedUp {
        poll_fn(|cx| copier.poll_deliver(cx)).await.expect("the pipes stand");
    }
    Bridged { end, forth: copier.forth.passed, back: copier.back.passed }
}

async fn send(end: &mut End, bytes: &[u8]) {
    end.write_all(bytes).await.expect("the pipe stands");
}

async fn read(end: &mut End) -> (Vec<u8>, io::Result<usize>) {
    let mut got = Vec::new();
    let read = end.read_to_end(&mut got).await;
    (got, read)
}

#[test]
fn bytes_pass_both_ways_until_both_sides_have_finished() {
    let (mut initiator, mut target, copier) = bridge(None);
    let talk = async {
        send(&mut initiator, &text(100_000)).await;
        initiator.close().await.expect("the pipe stands");
        // The other direction goes on.
        let (got, read) = read(&mut initiator).await;
        read.expect("an orderly end");
        assert!(got == text(50_000), "{} bytes", got.len());
    };
    let answer = async {
        let (got, read) = read(&mut target).await;
        read.expect("an orderly end");
        assert!(got == text(100_000), "{} bytes", got.len());
        send(&mut target, &text(50_000)).await;
        target.close().await.expect("the pipe stands");
    };
    let (bridged, (), ()) = block_on(future::join3(run(copier), talk, answer));
    assert_eq!(bridged, Bridged { end: BridgeEnd::Finished, forth: 100_000, back: 50_000 });
}

#[test]
fn a_limit_is_exact_in_each_direction() {
    for limit in [0, 1, 999, 1_000, 1_001, 65_536, 100_000] {
        let size = usize::try_from(limit).expect("it is small");
        for forth in [true, false] {
            // As many as may pass.
            let (mut initiator, mut target, copier) = bridge(Some(limit));
            let (sender, receiver) =
                if forth { (&mut initiator, &mut target) } else { (&mut target, &mut initiator) };
            let sends = async {
                send(sender, &text(size)).await;
                sender.close().await.expect("the pipe stands");
            };
            let reads = async {
                let (got, read) = read(receiver).await;
                read.expect("an orderly end");
                assert!(got == text(size), "{} of {limit} bytes", got.len());
                receiver.close().await.expect("the pipe stands");
            };
            let (bridged, (), ()) = block_on(future::join3(run(copier), sends, reads));
            let passed = if forth { (limit, 0) } else { (0, limit) };
            assert_eq!((bridged.end, bridged.forth, bridged.back), {
                (BridgeEnd::Finished, passed.0, passed.1)
            });

            // One more.
            let (mut initiator, mut target, copier) = bridge(Some(limit));
            let (sender, receiver) =
                if forth { (&mut initiator, &mut target) } else { (&mut target, &mut initiator) };
            let sends = async {
                send(sender, &text(size + 1)).await;
                let (nothing, read) = read(sender).await;
                assert_eq!(nothing, b"");
                read.expect_err("it was reset");
            };
            let reads = async {
                let (got, _) = read(receiver).await;
                assert!(got == text(size), "{} of {limit} bytes", got.len());
                receiver.write(b"x").await.expect_err("it was reset");
            };
            let (bridged, (), ()) = block_on(future::join3(run(copier), sends, reads));
            assert_eq!((bridged.end, bridged.forth, bridged.back), {
                (BridgeEnd::BytesUsedUp, passed.0, passed.1)
            });
        }
    }
}

#[test]
fn a_reset_of_one_side_resets_the_other() {
    for forth in [true, false] {
        let (initiator, target, copier) = bridge(None);
        let (broken, mut stays) = if forth { (initiator, target) } else { (target, initiator) };
        let breaks = async { drop(broken) };
        let notices = async {
            let (got, read) = read(&mut stays).await;
            assert_eq!(got, b"");
            read.expect_err("it was reset");
        };
        let (bridged, (), ()) = block_on(future::join3(run(copier), breaks, notices));
        assert_eq!(bridged, Bridged { end: BridgeEnd::Reset, forth: 0, back: 0 });
    }
}

#[test]
fn a_slow_reader_holds_the_sender_back_and_not_the_other_direction() {
    let (mut initiator, mut target, mut copier) = bridge(None);
    let mut cx = Context::from_waker(Waker::noop());
    let lot = text(1_000_000);
    let mut sent = 0;
    // Nobody reads at the target.
    for _ in 0..10_000 {
        if let Poll::Ready(count) = Pin::new(&mut initiator).poll_write(&mut cx, &lot[sent..]) {
            sent += count.expect("the pipe stands");
        }
        assert!(Pin::new(&mut copier).poll(&mut cx).is_pending());
    }
    assert!(sent <= 2 * ROOM + CHUNK, "{sent} bytes went into two full pipes");
    assert!(copier.forth.waiting.len() <= CHUNK && copier.back.waiting.is_empty());
    let answer = block_on(async {
        send(&mut target, b"slow down").await;
        assert!(future::poll_immediate(&mut copier).await.is_none());
        let mut answer = [0; 9];
        initiator.read_exact(&mut answer).await.expect("it was passed");
        answer
    });
    assert_eq!(&answer, b"slow down");
    // Once somebody reads, all of it comes.
    let sends = async {
        send(&mut initiator, &lot[sent..]).await;
        initiator.close().await.expect("the pipe stands");
    };
    let reads = async {
        let mut got = vec![0; lot.len()];
        target.read_exact(&mut got).await.expect("all of it comes");
        assert!(got == lot, "what came differs");
        target.close().await.expect("the pipe stands");
    };
    let (_, (), ()) = block_on(future::join3(run(copier), sends, reads));
}
