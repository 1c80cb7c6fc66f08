//! What QUIC runs on: quinn's timers and UDP sockets on async-io, its tasks on our executor.
//! Quinn's own smol runtime spawns on a hidden, global executor with a thread of its own.

use crate::Smol;
use async_io::{Async, Timer, WritableOwned};
use portolan_runtime::traits::Spawn;
use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncTimer, AsyncUdpSocket, UdpPoller};
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

/// The runtime of QUIC endpoints.
#[derive(Debug)]
pub(crate) struct Quic(pub(crate) Smol);

impl quinn::Runtime for Quic {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        Box::pin(Alarm(Timer::at(at)))
    }

    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.0.spawn(task);
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let state = UdpSocketState::new((&socket).into())?;
        let udp = Arc::new(Async::new_nonblocking(socket)?);
        Ok(Arc::new(Udp { udp, state, full: AtomicBool::new(false) }))
    }
}

/// A timer that can be set again.
#[derive(Debug)]
struct Alarm(Timer);

impl AsyncTimer for Alarm {
    fn reset(mut self: Pin<&mut Self>, at: Instant) {
        self.0.set_at(at);
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx).map(|_| ())
    }
}

/// A UDP socket that sends and receives several packets in one system call where it can.
#[derive(Debug)]
struct Udp {
    udp: Arc<Async<UdpSocket>>,
    state: UdpSocketState,
    /// Whether the last packet that was sent found no room. Tasks ask before every packet whether
    /// there is, and a round through async-io's thread just to hear yes would cost more than the
    /// packet. It need not be exact: a task that is wrongly told no hears yes a round later.
    full: AtomicBool,
}

impl Udp {
    /// Remember whether there was room.
    fn noted(&self, sent: io::Result<()>) -> io::Result<()> {
        if sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            self.full.store(true, Ordering::Relaxed);
        }
        sent
    }
}

impl AsyncUdpSocket for Udp {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller { socket: self, room: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.noted(self.state.send((&*self.udp).into(), transmit))
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            // An error of one packet ends with it, and says nothing about the socket.
            if let Ok(received) = self.state.recv((&*self.udp).into(), bufs, meta) {
                return Poll::Ready(Ok(received));
            }
            ready!(self.udp.poll_readable(cx))?;
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.udp.get_ref().local_addr()
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

/// One task's wait for room in a UDP socket. `Async::poll_writable` remembers a single waker, and
/// every connection of a socket may wait at once: each waits on a future of its own.
#[derive(Debug)]
struct Poller {
    socket: Arc<Udp>,
    room: Option<WritableOwned<UdpSocket>>,
}

impl UdpPoller for Poller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Poller { socket, room } = &mut *self;
        if room.is_none() && !socket.full.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let waited = room.get_or_insert_with(|| socket.udp.clone().writable_owned());
        let waited = ready!(Pin::new(waited).poll(cx));
        // A future is polled no more once it has resolved.
        *room = None;
        socket.full.store(false, Ordering::Relaxed);
        Poll::Ready(waited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::{join, poll_fn};
    use futures::task::noop_waker;

    fn udp() -> Arc<Udp> {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        socket.set_nonblocking(true).expect("it is open");
        let state = UdpSocketState::new((&socket).into()).expect("it is a UDP socket");
        let udp = Arc::new(Async::new_nonblocking(socket).expect("async-io runs"));
        Arc::new(Udp { udp, state, full: AtomicBool::new(false) })
    }

    #[test]
    fn a_socket_is_waited_for_only_after_it_was_full_and_by_any_number_of_tasks() {
        let udp = udp();
        let mut one = udp.clone().create_io_poller();
        let mut other = udp.clone().create_io_poller();
        let waker = noop_waker();
        let mut cx = Context::from_waker(&waker);
        assert!(matches!(one.as_mut().poll_writable(&mut cx), Poll::Ready(Ok(()))));

        let failed = udp.noted(Err(io::ErrorKind::ConnectionReset.into()));
        assert!(failed.is_err() && one.as_mut().poll_writable(&mut cx).is_ready());
        udp.noted(Err(io::ErrorKind::WouldBlock.into())).expect_err("it is passed on");
        assert!(one.as_mut().poll_writable(&mut cx).is_pending());
        assert!(other.as_mut().poll_writable(&mut cx).is_pending());

        let first = poll_fn(|cx| one.as_mut().poll_writable(cx));
        let second = poll_fn(|cx| other.as_mut().poll_writable(cx));
        let (first, second) = smol::block_on(join(first, second));
        assert!(first.is_ok() && second.is_ok());
        // There was room, and nobody waits any more.
        assert!(matches!(one.as_mut().poll_writable(&mut cx), Poll::Ready(Ok(()))));
    }

    #[test]
    fn a_timer_that_has_fired_can_be_set_again() {
        let now = Instant::now();
        let mut alarm = Box::pin(Alarm(Timer::at(now)));
        smol::block_on(poll_fn(|cx| alarm.as_mut().poll(cx)));
        alarm.as_mut().reset(now + std::time::Duration::from_secs(3_600));
        let waker = noop_waker();
        assert!(alarm.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        alarm.as_mut().reset(now);
        smol::block_on(poll_fn(|cx| alarm.as_mut().poll(cx)));
    }
}
