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
        Box::pin(Alarm { timers: self.0.clone(), due: Some(at), armed: None })
    }

    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.0.spawn(Unhurried { task, is_due: false }.boxed());
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

/// A task that lets others have a turn between being woken and being polled. QUIC wakes its connections at the
/// first packet that has come, and a circuit wakes them at the first bytes that it passed. On another thread they would begin at
/// once, acknowledge that packet and fill half a packet with those bytes, and then do so again for the next.
struct Unhurried {
    task: BoxFuture<'static, ()>,
    /// Whether the others had it.
    is_due: bool,
}

impl Future for Unhurried {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.is_due = !self.is_due;
        if self.is_due {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.task.poll_unpin(cx)
    }
}

/// A timer that can be set again. QUIC sets it later with almost every packet, which costs nothing here: what
/// is armed goes off first, and is armed anew. Where timers wake their reactor that is a system call less
/// for each packet.
struct Alarm<T> {
    timers: T,
    /// When it is to go off; none once it has.
    due: Option<Instant>,
    /// A sleep that ends when it is due, or before that.
    armed: Option<(Instant, BoxFuture<'static, ()>)>,
}

/// The sleep is pinned in a box of its own.
impl<T> Unpin for Alarm<T> {}

impl<T: Timers> AsyncTimer for Alarm<T> {
    fn reset(mut self: Pin<&mut Self>, at: Instant) {
        self.due = Some(at);
        if self.armed.as_ref().is_some_and(|(end, _)| *end > at) {
            self.armed = None;
        }
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Alarm { timers, due, armed } = &mut *self;
        while let Some(at) = *due {
            let (end, sleep) = armed.get_or_insert_with(|| {
                let span = at.saturating_duration_since(Instant::now());
                (at, timers.sleep(span).boxed())
            });
            ready!(sleep.poll_unpin(cx));
            if *end >= at {
                *due = None;
            }
            *armed = None;
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
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;
    use std::task::{Wake, Waker};

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
    fn a_task_that_was_woken_lets_others_have_a_turn_first() {
        let (polls, wakes) = (Arc::new(AtomicUsize::new(0)), Arc::<Wakes>::default());
        let waker = Waker::from(wakes.clone());
        let mut cx = Context::from_waker(&waker);
        let counted = polls.clone();
        let task = poll_fn(move |_| match counted.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => Poll::Pending,
            _ => Poll::Ready(()),
        });
        let mut task = Unhurried { task: task.boxed(), is_due: false };
        let mut poll = || (task.poll_unpin(&mut cx), polls.load(Ordering::Relaxed));
        for count in 0..2 {
            assert_eq!(poll(), (Poll::Pending, count), "woken");
            assert_eq!(poll(), (Poll::Pending, count + 1), "its turn");
        }
        assert_eq!(poll(), (Poll::Pending, 2));
        assert_eq!(poll(), (Poll::Ready(()), 3));
        assert_eq!(wakes.0.load(Ordering::Relaxed), 3, "once for each turn that was let pass");
    }

    /// How often somebody was woken.
    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn an_alarm_that_went_off_can_be_set_again() {
        let (now, waker) = (Instant::now(), noop_waker());
        let later = now + Duration::from_secs(3_600);
        let mut cx = Context::from_waker(&waker);
        let mut alarm = Box::pin(Alarm { timers: Fake::default(), due: None, armed: None });
        for (at, is_due) in [(now, true), (later, false), (now, true), (later, false)] {
            alarm.as_mut().reset(at);
            assert_eq!(alarm.as_mut().poll(&mut cx).is_ready(), is_due);
            assert_eq!(alarm.as_mut().poll(&mut cx).is_ready(), is_due);
        }
    }

    /// Sleeps that end when they are told to.
    #[derive(Clone, Default)]
    struct Sleeps(Arc<Mutex<Vec<futures::channel::oneshot::Sender<()>>>>);

    impl Sleeps {
        fn count(&self) -> usize {
            self.0.lock().expect("no test panics with it").len()
        }

        fn end_last(&self) {
            let last = self.0.lock().expect("no test panics with it").pop();
            last.expect("somebody sleeps").send(()).expect("and is waited for");
        }
    }

    impl Timers for Sleeps {
        fn sleep(&self, _: Duration) -> impl Future<Output = ()> + Send + 'static {
            let (sender, receiver) = futures::channel::oneshot::channel();
            self.0.lock().expect("no test panics with it").push(sender);
            receiver.map(|_| ())
        }
    }

    #[test]
    fn an_alarm_that_is_set_later_sleeps_no_second_time_and_is_never_early_or_lost() {
        let (sleeps, now, waker) = (Sleeps::default(), Instant::now(), noop_waker());
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut cx = Context::from_waker(&waker);
        let mut alarm = Box::pin(Alarm { timers: sleeps.clone(), due: Some(at(10)), armed: None });
        for later in 10..100 {
            alarm.as_mut().reset(at(later));
            assert!(alarm.as_mut().poll(&mut cx).is_pending());
        }
        assert_eq!(sleeps.count(), 1);
        // The first sleep ends, but the alarm is later now.
        sleeps.end_last();
        assert!(alarm.as_mut().poll(&mut cx).is_pending());
        assert_eq!(sleeps.count(), 1);
        sleeps.end_last();
        assert!(alarm.as_mut().poll(&mut cx).is_ready());
        // To set it earlier is another sleep.
        alarm.as_mut().reset(at(50));
        assert!(alarm.as_mut().poll(&mut cx).is_pending());
        alarm.as_mut().reset(at(20));
        assert!(alarm.as_mut().poll(&mut cx).is_pending());
        assert_eq!(sleeps.count(), 2);
        sleeps.end_last();
        assert!(alarm.as_mut().poll(&mut cx).is_ready());
    }
}
