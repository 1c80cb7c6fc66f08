//! The runtime's three traits on smol and async-io.

use crate::quic::Quic;
use async_io::{Async, Timer};
use futures::future::BoxFuture;
use futures::io::{AsyncRead, AsyncWrite};
use portolan_core::Duration;
use portolan_runtime::traits::{Sockets, Spawn, Timers};
use smol::Executor;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

/// Tasks on one executor of smol, sockets and timers on async-io. Tasks make progress while
/// somebody runs the executor, and are dropped with it: an `Arc` handed in is not kept alive.
#[derive(Clone)]
pub struct Smol(Place);

/// Where tasks are spawned.
#[derive(Clone)]
enum Place {
    /// Tasks know this place, and the executor holds its tasks: with a strong reference an
    /// executor that nobody runs any more would keep their sockets open for ever.
    Shared(Weak<Executor<'static>>),
    Static(&'static Executor<'static>),
}

impl From<Arc<Executor<'static>>> for Smol {
    fn from(executor: Arc<Executor<'static>>) -> Smol {
        Smol(Place::Shared(Arc::downgrade(&executor)))
    }
}

impl From<&'static Executor<'static>> for Smol {
    fn from(executor: &'static Executor<'static>) -> Smol {
        Smol(Place::Static(executor))
    }
}

impl fmt::Debug for Smol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Smol").finish_non_exhaustive()
    }
}

impl Sockets for Smol {
    type Tcp = Tcp;
    type Listener = Async<TcpListener>;

    fn connected(
        &self,
        connecting: TcpStream,
    ) -> impl Future<Output = io::Result<Self::Tcp>> + Send + 'static {
        let tcp = Async::new_nonblocking(connecting);
        async move {
            let tcp = tcp?;
            // The kernel reports a connecting socket writable when it has connected or failed.
            tcp.writable().await?;
            match tcp.get_ref().take_error()? {
                Some(error) => Err(error),
                None => Ok(Tcp(tcp)),
            }
        }
    }

    fn listener(&self, listener: TcpListener) -> io::Result<Self::Listener> {
        Async::new_nonblocking(listener)
    }

    async fn accept(&self, listener: &Self::Listener) -> io::Result<(Self::Tcp, SocketAddr)> {
        let (tcp, remote) = listener.accept().await?;
        // A socket that refuses the option is broken already, and will say so when it is read.
        let _ = tcp.get_ref().set_nodelay(true);
        Ok((Tcp(tcp), remote))
    }

    fn local_addr(&self, tcp: &Self::Tcp) -> io::Result<SocketAddr> {
        tcp.0.get_ref().local_addr()
    }

    fn quic(&self) -> Arc<dyn quinn::Runtime> {
        Arc::new(Quic(self.clone()))
    }
}

impl Timers for Smol {
    fn sleep(&self, span: Duration) -> impl Future<Output = ()> + Send + 'static {
        let timer = Timer::after(span);
        async move {
            timer.await;
        }
    }
}

impl Spawn for Smol {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        // The task ends by itself; nobody waits for it. Where the executor is gone, so is the task.
        match &self.0 {
            Place::Static(executor) => executor.spawn(task).detach(),
            Place::Shared(executor) => {
                if let Some(executor) = executor.upgrade() {
                    executor.spawn(task).detach();
                }
            }
        }
    }
}

/// A TCP connection. Closing it shuts its sending side down, which async-io leaves to its users.
#[derive(Debug)]
pub struct Tcp(Async<TcpStream>);

impl AsyncRead for Tcp {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }

    fn poll_read_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &mut [io::IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read_vectored(cx, bufs)
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = match self.0.get_ref().shutdown(Shutdown::Write) {
            // The other side has reset the connection: there is nothing left to close.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            closed => closed,
        };
        Poll::Ready(closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::try_join;
    use futures::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn closing_a_connection_ends_one_direction_of_it() {
        let smol = Smol::from(Arc::new(Executor::new()));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("it is open");
        let addr = listener.local_addr().expect("it is bound");
        let listener = smol.listener(listener).expect("async-io runs");
        let connecting = TcpStream::connect(addr).expect("it listens");
        connecting.set_nonblocking(true).expect("it is open");

        let done: io::Result<()> = smol::block_on(async {
            let both = try_join(smol.connected(connecting), smol.accept(&listener));
            let (mut one, (mut other, remote)) = both.await?;
            assert_eq!(smol.local_addr(&one)?, remote);
            assert_eq!(smol.local_addr(&other)?, addr);
            assert!(other.0.get_ref().nodelay()?);

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
        done.expect("nothing fails on loopback");
    }
}
