//! Sockets for runtimes that can tell when a socket is ready, and that is all they need to tell.
//!
//! Whoever implements [`Reactor`], [`Timers`] and [`Spawn`] has [`Sockets`]: TCP is read and
//! written here, and QUIC is quinn's, through one system call for many packets where the operating
//! system can. A runtime with sockets of its own kind implements `Sockets` itself.

mod quic;
mod tcp;

pub use tcp::Tcp;

use crate::traits::{Sockets, Spawn, Timers};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
#[cfg(unix)]
use std::os::fd::AsFd as AsHandle;
#[cfg(windows)]
use std::os::windows::io::AsSocket as AsHandle;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// Tells when sockets are ready.
pub trait Reactor: Clone + Send + Sync + 'static {
    /// A socket that is watched. Clones are the same socket, which closes when the last of them
    /// is dropped.
    type Watched<S: Socket>: Clone + Send + Sync + Unpin + 'static;

    /// Begin to watch a socket. It is non-blocking already.
    ///
    /// # Errors
    /// Those of registering the socket with the runtime.
    fn watch<S: Socket>(&self, socket: S) -> io::Result<Self::Watched<S>>;

    /// The socket itself.
    fn socket<S: Socket>(watched: &Self::Watched<S>) -> &S;

    /// Resolves when the socket is ready, at once if it is by now; a socket that has failed is
    /// ready for everything. A mistake costs a vain attempt. Any number of
    /// tasks wait for one socket, and not all to the end.
    fn ready<S: Socket>(
        &self,
        watched: &Self::Watched<S>,
        interest: Interest,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static;
}

/// What a socket should be ready for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Reading, or accepting.
    Read,
    /// Writing, or having connected.
    Write,
}

/// A socket of the standard library: one of TCP that is connected or listens, or one of UDP (on
/// Linux also one of netlink, which is read in the same way).
pub trait Socket: AsHandle + Send + Sync + 'static {}

impl Socket for TcpStream {}
impl Socket for TcpListener {}
impl Socket for UdpSocket {}

impl<R: Reactor + Timers + Spawn> Sockets for R {
    type Tcp = Tcp<R>;
    type Listener = R::Watched<TcpListener>;
    type Udp = R::Watched<UdpSocket>;

    fn connected(
        &self,
        connecting: TcpStream,
    ) -> impl Future<Output = io::Result<Self::Tcp>> + Send + 'static {
        let (reactor, watched) = (self.clone(), self.watch(connecting));
        async move {
            let watched = watched?;
            // The kernel reports a connecting socket writable when it has connected or failed.
            loop {
                reactor.ready(&watched, Interest::Write).await?;
                if let Some(error) = R::socket(&watched).take_error()? {
                    return Err(error);
                }
                match R::socket(&watched).peer_addr() {
                    Ok(_) => return Ok(Tcp::new(reactor, watched)),
                    Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }

    fn listener(&self, listener: TcpListener) -> io::Result<Self::Listener> {
        self.watch(listener)
    }

    async fn accept(&self, listener: &Self::Listener) -> io::Result<(Self::Tcp, SocketAddr)> {
        let (tcp, remote) = loop {
            match R::socket(listener).accept() {
                Err(error) if would_block(&error) => self.ready(listener, Interest::Read).await?,
                accepted => break accepted?,
            }
        };
        tcp.set_nonblocking(true)?;
        // A socket that refuses the option is broken already, and will say so when it is read.
        let _ = tcp.set_nodelay(true);
        Ok((Tcp::new(self.clone(), self.watch(tcp)?), remote))
    }

    fn local_addr(&self, tcp: &Self::Tcp) -> io::Result<SocketAddr> {
        tcp.socket().local_addr()
    }

    fn udp(&self, socket: UdpSocket) -> io::Result<Self::Udp> {
        self.watch(socket)
    }

    async fn read_udp<T: Send>(
        &self,
        udp: &Self::Udp,
        mut attempt: impl FnMut(&UdpSocket) -> io::Result<T> + Send,
    ) -> io::Result<T> {
        loop {
            match attempt(R::socket(udp)) {
                Err(error) if would_block(&error) => self.ready(udp, Interest::Read).await?,
                done => return done,
            }
        }
    }

    fn quic(&self) -> Arc<dyn quinn::Runtime> {
        Arc::new(quic::Quic(self.clone()))
    }
}

/// One task's attempts on a socket, and the wait between two of them.
#[derive(Default)]
struct Attempts(Option<BoxFuture<'static, io::Result<()>>>);

impl Attempts {
    /// Wait if there is something to wait for, then attempt; begin to wait when it is too early.
    fn poll<R: Reactor, S: Socket, T>(
        &mut self,
        cx: &mut Context<'_>,
        (reactor, watched): (&R, &R::Watched<S>),
        interest: Interest,
        mut attempt: impl FnMut(&S) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            ready!(self.poll_wait(cx))?;
            match attempt(R::socket(watched)) {
                Err(error) if would_block(&error) => {
                    self.0 = Some(reactor.ready(watched, interest).boxed());
                }
                done => return Poll::Ready(done),
            }
        }
    }

    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(wait) = &mut self.0 else { return Poll::Ready(Ok(())) };
        let waited = ready!(wait.poll_unpin(cx));
        self.0 = None;
        Poll::Ready(waited)
    }
}

fn would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::channel::oneshot;
    use futures::future::{pending, ready};
    use futures::io::{AsyncReadExt, AsyncWriteExt};
    use futures::task::noop_waker;
    use portolan_core::Duration;
    use socket2::{Domain, SockRef, Type};
    use std::pin::pin;
    use std::sync::Mutex;
    use std::time::Instant;

    /// A reactor by which sockets are ready when a test says so.
    #[derive(Clone, Default)]
    pub(super) struct Fake(Arc<Mutex<Vec<Wait>>>);

    type Wait = (Interest, oneshot::Sender<()>);

    impl Fake {
        /// What is waited for, oldest first.
        pub(super) fn waits(&self) -> Vec<Interest> {
            self.0.lock().expect("nobody panics").iter().map(|(interest, _)| *interest).collect()
        }

        /// End a wait.
        pub(super) fn end(&self, index: usize) {
            let (_, tell) = self.0.lock().expect("nobody panics").remove(index);
            // Who waited may have gone.
            let _ = tell.send(());
        }
    }

    impl Reactor for Fake {
        type Watched<S: Socket> = Arc<S>;

        fn watch<S: Socket>(&self, socket: S) -> io::Result<Arc<S>> {
            Ok(Arc::new(socket))
        }

        fn socket<S: Socket>(watched: &Arc<S>) -> &S {
            watched
        }

        fn ready<S: Socket>(
            &self,
            _: &Arc<S>,
            interest: Interest,
        ) -> impl Future<Output = io::Result<()>> + Send + 'static {
            let (tell, told) = oneshot::channel();
            self.0.lock().expect("nobody panics").push((interest, tell));
            told.map(|_| Ok(()))
        }
    }

    /// By its clock only what is due at once ever comes.
    impl Timers for Fake {
        fn sleep(&self, span: Duration) -> impl Future<Output = ()> + Send + 'static {
            if span.is_zero() { ready(()).left_future() } else { pending().right_future() }
        }
    }

    impl Spawn for Fake {
        fn spawn(&self, _: BoxFuture<'static, ()>) {}
    }

    /// Drive a future with a reactor that calls every socket ready at once, mistaken or not.
    fn insist<F: Future>(fake: &Fake, future: F) -> F::Output {
        let mut future = pin!(future);
        let waker = noop_waker();
        let late = Instant::now() + Duration::from_secs(30);
        while Instant::now() < late {
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return output;
            }
            while !fake.waits().is_empty() {
                fake.end(0);
            }
            std::thread::yield_now();
        }
        panic!("it is stuck")
    }

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("it is open");
        let addr = listener.local_addr().expect("it is bound");
        (listener, addr)
    }

    fn connecting(to: SocketAddr) -> TcpStream {
        let socket = TcpStream::connect(to).expect("it listens");
        socket.set_nonblocking(true).expect("it is open");
        socket
    }

    /// Two ends of a connection.
    fn pair(fake: &Fake) -> (Tcp<Fake>, Tcp<Fake>) {
        let (listener, addr) = listener();
        let listener = fake.listener(listener).expect("it cannot fail");
        let one = insist(fake, fake.connected(connecting(addr))).expect("it connects");
        let (other, remote) = insist(fake, fake.accept(&listener)).expect("one knocks");
        assert_eq!(fake.local_addr(&one).expect("it is open"), remote);
        assert_eq!(fake.local_addr(&other).expect("it is open"), addr);
        let accepted = SockRef::from(other.socket());
        assert!(accepted.nonblocking().expect("it is open"));
        assert!(accepted.tcp_nodelay().expect("it is open"));
        (one, other)
    }

    #[test]
    fn an_attempt_that_was_too_early_waits_once_and_is_made_again() {
        let fake = Fake::default();
        let waker = noop_waker();
        let cx = &mut Context::from_waker(&waker);
        let (listener, addr) = listener();
        let listener = fake.listener(listener).expect("it cannot fail");
        let mut accept = pin!(fake.accept(&listener));
        assert!(accept.as_mut().poll(cx).is_pending() && accept.as_mut().poll(cx).is_pending());
        assert_eq!(fake.waits(), [Interest::Read]);
        let mut connected = pin!(fake.connected(connecting(addr)));
        assert!(connected.as_mut().poll(cx).is_pending());
        assert_eq!(fake.waits(), [Interest::Read, Interest::Write]);
        insist(&fake, accept).expect("one knocks");
        insist(&fake, connected).expect("it connects");

        let (mut one, mut other) = pair(&fake);
        let mut buf = [0; 8];
        for _ in 0..2 {
            assert!(one.read(&mut buf).poll_unpin(cx).is_pending());
            assert_eq!(fake.waits(), [Interest::Read]);
        }
        insist(&fake, other.write_all(b"question")).expect("there is room");
        assert_eq!(insist(&fake, one.read(&mut buf)).expect("it is open"), 8);
        assert_eq!(fake.waits(), []);
        while other.write(&[0; 65_536]).poll_unpin(cx).is_ready() {}
        assert_eq!(fake.waits(), [Interest::Write]);
    }

    #[test]
    fn a_socket_that_is_called_connected_by_mistake_is_waited_for() {
        let fake = Fake::default();
        let waker = noop_waker();
        let cx = &mut Context::from_waker(&waker);
        let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).expect("there is TCP");
        socket.set_nonblocking(true).expect("it is open");
        let same = socket.try_clone().expect("there is a descriptor");
        let mut connected = pin!(fake.connected(same.into()));
        for _ in 0..2 {
            assert!(connected.as_mut().poll(cx).is_pending());
            assert_eq!(fake.waits(), [Interest::Write]);
            fake.end(0);
        }
        let (_listener, addr) = listener();
        // It may say that it is under way.
        let _ = socket.connect(&addr.into());
        let tcp = insist(&fake, connected).expect("it connects");
        assert_eq!(tcp.socket().peer_addr().expect("it is connected"), addr);
    }

    #[test]
    fn closing_a_connection_ends_one_direction_of_it() {
        let fake = Fake::default();
        let (mut one, mut other) = pair(&fake);
        let talk: io::Result<()> = insist(&fake, async {
            let mut text = Vec::new();
            one.write_all(b"question").await?;
            one.close().await?;
            other.read_to_end(&mut text).await?;
            other.write_all(b", answer").await?;
            other.close().await?;
            one.read_to_end(&mut text).await?;
            assert_eq!(text, b"question, answer");
            Ok(())
        });
        talk.expect("nothing fails on loopback");
    }

    #[test]
    fn a_connection_that_was_reset_can_be_closed() {
        let fake = Fake::default();
        let (mut one, other) = pair(&fake);
        SockRef::from(other.socket()).set_linger(Some(Duration::ZERO)).expect("it is open");
        drop(other);
        insist(&fake, one.read(&mut [0])).expect_err("it was reset");
        insist(&fake, one.close()).expect("there is nothing left to close");
    }
}
