//! The runtime's three traits on tokio.

use futures::future::BoxFuture;
use portolan_core::Duration;
use portolan_runtime::traits::{Sockets, Spawn, Timers};
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::{Handle, TryCurrentError};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

/// Sockets, timers and tasks of one tokio runtime, which must have its I/O and time drivers
/// enabled. What is made here is driven there, whoever waits for it; only
/// [`accept`](Sockets::accept) must be polled there as well, as tasks spawned here are.
#[derive(Clone)]
pub struct Tokio {
    handle: Handle,
}

impl Tokio {
    /// The runtime behind `handle`.
    pub fn new(handle: Handle) -> Tokio {
        Tokio { handle }
    }

    /// The runtime that the caller runs on.
    ///
    /// # Errors
    /// If the caller does not run on tokio.
    pub fn current() -> Result<Tokio, TryCurrentError> {
        Handle::try_current().map(Tokio::new)
    }
}

impl From<Handle> for Tokio {
    fn from(handle: Handle) -> Tokio {
        Tokio::new(handle)
    }
}

impl fmt::Debug for Tokio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokio").finish_non_exhaustive()
    }
}

impl Sockets for Tokio {
    type Tcp = Compat<TcpStream>;
    type Listener = TcpListener;
    /// As tokio watches it, and as the standard library reads it.
    type Udp = (UdpSocket, std::net::UdpSocket);

    fn connected(
        &self,
        connecting: std::net::TcpStream,
    ) -> impl Future<Output = io::Result<Self::Tcp>> + Send + 'static {
        let tcp = {
            let _entered = self.handle.enter();
            TcpStream::from_std(connecting)
        };
        async move {
            let tcp = tcp?;
            // The kernel reports a connecting socket writable when it has connected or failed.
            tcp.writable().await?;
            match tcp.take_error()? {
                Some(error) => Err(error),
                None => Ok(tcp.compat()),
            }
        }
    }

    fn listener(&self, listener: std::net::TcpListener) -> io::Result<Self::Listener> {
        let _entered = self.handle.enter();
        TcpListener::from_std(listener)
    }

    async fn accept(&self, listener: &Self::Listener) -> io::Result<(Self::Tcp, SocketAddr)> {
        let (tcp, remote) = listener.accept().await?;
        // A socket that refuses the option is broken already, and will say so when it is read.
        let _ = tcp.set_nodelay(true);
        Ok((tcp.compat(), remote))
    }

    fn local_addr(&self, tcp: &Self::Tcp) -> io::Result<SocketAddr> {
        tcp.get_ref().local_addr()
    }

    fn udp(&self, socket: std::net::UdpSocket) -> io::Result<Self::Udp> {
        let _entered = self.handle.enter();
        Ok((UdpSocket::from_std(socket.try_clone()?)?, socket))
    }

    async fn read_udp<T: Send>(
        &self,
        (watched, socket): &Self::Udp,
        mut attempt: impl FnMut(&std::net::UdpSocket) -> io::Result<T> + Send,
    ) -> io::Result<T> {
        // A packet that was refused makes a socket ready for telling its error, not for reading.
        let interest = Interest::READABLE | Interest::ERROR;
        watched.async_io(interest, || attempt(socket)).await
    }

    fn quic(&self) -> Arc<dyn quinn::Runtime> {
        Arc::new(Quic { handle: self.handle.clone() })
    }
}

impl Timers for Tokio {
    fn sleep(&self, span: Duration) -> impl Future<Output = ()> + Send + 'static {
        let _entered = self.handle.enter();
        tokio::time::sleep(span)
    }
}

impl Spawn for Tokio {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        // The task ends by itself; nobody waits for it.
        drop(self.handle.spawn(task));
    }
}

/// Quinn's own tokio runtime, which looks for a current one, told which one to find.
#[derive(Debug)]
struct Quic {
    handle: Handle,
}

impl quinn::Runtime for Quic {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn quinn::AsyncTimer>> {
        let _entered = self.handle.enter();
        quinn::TokioRuntime.new_timer(at)
    }

    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        drop(self.handle.spawn(task));
    }

    fn wrap_udp_socket(
        &self,
        socket: std::net::UdpSocket,
    ) -> io::Result<Arc<dyn quinn::AsyncUdpSocket>> {
        let _entered = self.handle.enter();
        quinn::TokioRuntime.wrap_udp_socket(socket)
    }

    fn now(&self) -> Instant {
        quinn::TokioRuntime.now()
    }
}
