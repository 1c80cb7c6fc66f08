//! What quinn runs on, out of a reactor, timers and a place for tasks.

use super::{Attempts, Interest, Reactor, would_block};
use crate::traits::{Spawn, Timers};
use futures::FutureExt;
use futures::future::BoxFuture;
use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncTimer, AsyncUdpSocket, UdpPoller};
use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Instant;

/// The runtime of QUIC endpoints.
pub(super) struct Quic<R>(pub(super) R);

impl<R: Reactor + Timers + Spawn> quinn::Runtime for Quic<R> {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        let mut alarm = Box::pin(Alarm { timers: self.0.clone(), sleep: None });
        alarm.as_mut().reset(at);
        alarm
    }

    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.0.spawn(task);
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Ok(Arc::new(Udp::new(self.0.clone(), socket)?))
    }
}

impl<R> fmt::Debug for Quic<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quic").finish_non_exhaustive()
    }
}

/// A timer that can be set again.
struct Alarm<T> {
    timers: T,
    /// None once it has gone off.
    sleep: Option<BoxFuture<'static, ()>>,
}

/// The sleep is pinned in a box of its own.
impl<T> Unpin for Alarm<T> {}

impl<T: Timers> AsyncTimer for Alarm<T> {
    fn reset(mut self: Pin<&mut Self>, at: Instant) {
        let span = at.saturating_duration_since(Instant::now());
        self.sleep = Some(self.timers.sleep(span).boxed());
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(sleep) = &mut self.sleep {
            ready!(sleep.poll_unpin(cx));
            self.sleep = None;
        }
        Poll::Ready(())
    }
}

impl<T> fmt::Debug for Alarm<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alarm").finish_non_exhaustive()
    }
}

/// A UDP socket that sends and receives several packets in one system call where it can.
struct Udp<R: Reactor> {
    reactor: R,
    watched: R::Watched<UdpSocket>,
    state: UdpSocketState,
    /// Used by one task, the endpoint's.
    reads: Mutex<Attempts>,
    /// Whether the last packet that was sent found no room. Tasks ask before every packet whether
    /// there is, and a round through the reactor just to hear yes would cost more than the packet.
    /// It need not be exact: a task that is wrongly told no hears yes a round later.
    full: AtomicBool,
}

impl<R: Reactor> Udp<R> {
    fn new(reactor: R, socket: UdpSocket) -> io::Result<Udp<R>> {
        let state = UdpSocketState::new((&socket).into())?;
        let watched = reactor.watch(socket)?;
        let (reads, full) = (Mutex::default(), AtomicBool::new(false));
        Ok(Udp { reactor, watched, state, reads, full })
    }

    fn socket(&self) -> &UdpSocket {
        R::socket(&self.watched)
    }

    /// Remember whether there was room.
    fn noted(&self, sent: io::Result<()>) -> io::Result<()> {
        if sent.as_ref().is_err_and(would_block) {
            self.full.store(true, Ordering::Relaxed);
        }
        sent
    }
}

impl<R: Reactor> AsyncUdpSocket for Udp<R> {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Room { udp: self, wait: Mutex::default() })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.noted(self.state.send(self.socket().into(), transmit))
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        let over = (&self.reactor, &self.watched);
        reads.poll(cx, over, Interest::Read, |socket: &UdpSocket| {
            let received = self.state.recv(socket.into(), bufs, meta);
            // An error of one packet ends with it, and says nothing about the socket.
            received.map_err(|_| io::ErrorKind::WouldBlock.into())
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket().local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

impl<R: Reactor> fmt::Debug for Udp<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Udp").field(self.socket()).finish()
    }
}

/// One task's wait for room in a UDP socket.
struct Room<R: Reactor> {
    udp: Arc<Udp<R>>,
    /// Used by that task alone; quinn wants what it could share.
    wait: Mutex<Attempts>,
}

impl<R: Reactor> UdpPoller for Room<R> {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Room { udp, wait } = &mut *self;
        let wait = wait.get_mut().unwrap_or_else(PoisonError::into_inner);
        if wait.0.is_none() && udp.full.load(Ordering::Relaxed) {
            wait.0 = Some(udp.reactor.ready(&udp.watched, Interest::Write).boxed());
        }
        let is_waiting = wait.0.is_some();
        ready!(wait.poll_wait(cx))?;
        if is_waiting {
            udp.full.store(false, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl<R: Reactor> fmt::Debug for Room<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Room").field(&self.udp).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Fake;
    use super::*;
    use futures::task::noop_waker;
    use portolan_core::Duration;

    fn udp() -> (Fake, Arc<Udp<Fake>>) {
        let fake = Fake::default();
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        socket.set_nonblocking(true).expect("it is open");
        let udp = Udp::new(fake.clone(), socket).expect("it is a UDP socket");
        (fake, Arc::new(udp))
    }

    /// Send a packet to the socket from itself, and wait until it is there.
    fn send(udp: &Udp<Fake>, packet: &[u8]) {
        let socket = udp.socket();
        let arrived = || {
            socket.set_nonblocking(false)?;
            socket.set_read_timeout(Some(Duration::from_secs(30)))?;
            socket.send_to(packet, socket.local_addr()?)?;
            socket.peek(&mut [0; 64])?;
            socket.set_nonblocking(true)
        };
        arrived().expect("loopback is reachable");
    }

    #[test]
    fn room_is_waited_for_only_after_there_was_none_and_by_each_task_for_itself() {
        let (fake, udp) = udp();
        let waker = noop_waker();
        let mut cx = Context::from_waker(&waker);
        let mut one = udp.clone().create_io_poller();
        let mut other = udp.clone().create_io_poller();
        udp.noted(Ok(())).expect("it is passed on");
        udp.noted(Err(io::ErrorKind::ConnectionReset.into())).expect_err("it is passed on");
        assert!(one.as_mut().poll_writable(&mut cx).is_ready());
        assert_eq!(fake.waits(), []);

        udp.noted(Err(io::ErrorKind::WouldBlock.into())).expect_err("it is passed on");
        for _ in 0..2 {
            assert!(one.as_mut().poll_writable(&mut cx).is_pending());
            assert!(other.as_mut().poll_writable(&mut cx).is_pending());
        }
        assert_eq!(fake.waits(), [Interest::Write, Interest::Write]);
        fake.end(1);
        assert!(one.as_mut().poll_writable(&mut cx).is_pending());
        assert!(matches!(other.as_mut().poll_writable(&mut cx), Poll::Ready(Ok(()))));
        assert!(matches!(other.as_mut().poll_writable(&mut cx), Poll::Ready(Ok(()))));
        fake.end(0);
        assert!(matches!(one.as_mut().poll_writable(&mut cx), Poll::Ready(Ok(()))));
        assert_eq!(fake.waits(), []);
    }

    #[test]
    fn packets_are_read_before_they_are_waited_for() {
        let (fake, udp) = udp();
        let to = udp.local_addr().expect("it is bound");
        let waker = noop_waker();
        let mut cx = Context::from_waker(&waker);
        let mut buf = [0; 64];
        let mut meta = [RecvMeta::default()];
        let mut read = || udp.poll_recv(&mut cx, &mut [IoSliceMut::new(&mut buf)], &mut meta);
        send(&udp, b"first");
        assert!(matches!(read(), Poll::Ready(Ok(1))));
        assert_eq!(fake.waits(), []);
        assert!(read().is_pending() && read().is_pending());
        assert_eq!(fake.waits(), [Interest::Read]);
        send(&udp, b"second");
        fake.end(0);
        assert!(matches!(read(), Poll::Ready(Ok(1))));
        assert_eq!((meta[0].len, meta[0].addr), (6, to));
    }

    #[test]
    fn a_refusal_does_not_end_a_socket() {
        let (fake, udp) = udp();
        let gone = UdpSocket::bind("127.0.0.1:0").and_then(|gone| gone.local_addr());
        udp.socket().connect(gone.expect("a free port")).expect("loopback is reachable");
        // Answered by an ICMP message, which the next read reports.
        udp.socket().send(b"packet").expect("loopback is reachable");
        let (mut buf, mut meta, waker) = ([0; 64], [RecvMeta::default()], noop_waker());
        let mut bufs = [IoSliceMut::new(&mut buf)];
        let cx = &mut Context::from_waker(&waker);
        assert!(udp.poll_recv(cx, &mut bufs, &mut meta).is_pending());
        assert_eq!(fake.waits(), [Interest::Read]);
    }

    #[test]
    fn an_alarm_that_went_off_can_be_set_again() {
        let (now, waker) = (Instant::now(), noop_waker());
        let later = now + Duration::from_secs(3_600);
        let mut cx = Context::from_waker(&waker);
        let mut alarm = Box::pin(Alarm { timers: Fake::default(), sleep: None });
        for (at, is_due) in [(now, true), (later, false), (now, true), (later, false)] {
            alarm.as_mut().reset(at);
            assert_eq!(alarm.as_mut().poll(&mut cx).is_ready(), is_due);
            assert_eq!(alarm.as_mut().poll(&mut cx).is_ready(), is_due);
        }
    }
}
