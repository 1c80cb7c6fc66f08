//! The three things that a runtime must bring: sockets, timers, and a place to run tasks.
//!
//! Everything speaks `futures::io`. A runtime that implements [`Sockets`], [`Timers`] and
//! [`Spawn`] on one cloneable type is a [`Runtime`]; nothing else is asked of it. One that can tell
//! when a socket is ready, and no more, has `Sockets` by implementing
//! [`Reactor`](crate::reactor::Reactor); `examples/own_runtime.rs` is such a one, whole.

use futures::future::BoxFuture;
use futures::io::{AsyncRead, AsyncWrite};
use portolan_core::{Duration, Instant, UnixTime};
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;

/// Turns sockets of the operating system into asynchronous ones. Every socket handed in is
/// already non-blocking and carries its options; adapters set none.
pub trait Sockets: Clone + Send + Sync + 'static {
    /// A connected TCP socket. Closing it shuts its sending side down at once and leaves the
    /// receiving side open; dropping it closes it.
    type Tcp: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// A listening TCP socket.
    type Listener: Send + Sync + 'static;
    /// A UDP socket that is read from here, or another socket of datagrams.
    type Udp: Send + Sync + 'static;

    /// Wait until a socket on which `connect` was called is connected, or has failed to. The
    /// error is the one that the operating system holds for the socket (`SO_ERROR`).
    fn connected(
        &self,
        connecting: TcpStream,
    ) -> impl Future<Output = io::Result<Self::Tcp>> + Send + 'static;

    /// Take over a listening socket.
    ///
    /// # Errors
    /// Those of registering the socket with the runtime.
    fn listener(&self, listener: TcpListener) -> io::Result<Self::Listener>;

    /// Wait for the next connection on a listening socket; with it comes the remote address.
    /// The accepted socket has `TCP_NODELAY` set.
    fn accept(
        &self,
        listener: &Self::Listener,
    ) -> impl Future<Output = io::Result<(Self::Tcp, SocketAddr)>> + Send;

    /// The actual local address of a socket, as the operating system tells it.
    ///
    /// # Errors
    /// Those of `getsockname`.
    fn local_addr(&self, tcp: &Self::Tcp) -> io::Result<SocketAddr>;

    /// Take over a UDP socket to read from it. Whoever hands it in may keep a clone to send from.
    ///
    /// # Errors
    /// Those of registering the socket with the runtime.
    fn udp(&self, socket: UdpSocket) -> io::Result<Self::Udp>;

    /// Read from a UDP socket: attempt, and for as long as it is too early
    /// ([`WouldBlock`](io::ErrorKind::WouldBlock)) attempt again whenever the socket may have
    /// something to read, or an error to tell. One task at a time reads.
    fn read_udp<T: Send>(
        &self,
        udp: &Self::Udp,
        attempt: impl FnMut(&UdpSocket) -> io::Result<T> + Send,
    ) -> impl Future<Output = io::Result<T>> + Send;

    /// What QUIC endpoints run on.
    fn quic(&self) -> Arc<dyn quinn::Runtime>;
}

/// Clocks and timers.
pub trait Timers: Clone + Send + Sync + 'static {
    /// The moment, on a clock that never runs backwards and counts the time that the machine is
    /// suspended, where the operating system has such a clock.
    fn now(&self) -> Instant {
        clock::now()
    }

    /// The moment on the wall clock.
    fn unix(&self) -> UnixTime {
        clock::unix()
    }

    /// How long the machine has been suspended since it started, all in all; zero where the
    /// operating system does not tell. [`Timers::now`] has counted it already.
    fn slept(&self) -> Duration {
        clock::slept()
    }

    /// Resolves after `span`. The timer may stand still while the machine is suspended.
    fn sleep(&self, span: Duration) -> impl Future<Output = ()> + Send + 'static;
}

/// A place where tasks run by themselves.
pub trait Spawn: Clone + Send + Sync + 'static {
    /// Run a task to its end, independently of the caller.
    fn spawn(&self, task: BoxFuture<'static, ()>);
}

/// All that a runtime must bring, on one type.
pub trait Runtime: Sockets + Timers + Spawn {}

impl<T: Sockets + Timers + Spawn> Runtime for T {}

mod clock {
    use portolan_core::{Duration, Instant, UnixTime};
    #[cfg(unix)]
    use rustix::time::{ClockId, clock_gettime};
    use std::time::{SystemTime, UNIX_EPOCH};

    /// Linux counts suspend only on its boot-time clock; the monotonic clocks of the other Unix
    /// systems that have the difference count it.
    #[cfg(unix)]
    pub(super) fn now() -> Instant {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        const CLOCK: ClockId = ClockId::Boottime;
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        const CLOCK: ClockId = ClockId::Monotonic;
        read(CLOCK)
    }

    /// What the boot-time clock has counted and the monotonic clock has not. The monotonic clock
    /// is read first, so that being interrupted in between looks like a short sleep, never like
    /// one that is taken back.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(super) fn slept() -> Duration {
        let awake = read(ClockId::Monotonic);
        read(ClockId::Boottime).since(awake)
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub(super) fn slept() -> Duration {
        Duration::ZERO
    }

    #[cfg(unix)]
    fn read(clock: ClockId) -> Instant {
        let time = clock_gettime(clock);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
        Instant::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
    }

    #[cfg(not(unix))]
    pub(super) fn now() -> Instant {
        use std::sync::OnceLock;
        static ZERO: OnceLock<std::time::Instant> = OnceLock::new();
        let elapsed = ZERO.get_or_init(std::time::Instant::now).elapsed();
        Instant::from_nanos(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
    }

    pub(super) fn unix() -> UnixTime {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixTime::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}
