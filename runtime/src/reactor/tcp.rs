//! A TCP connection over a reactor.

use super::{Attempts, Interest, Reactor};
use futures::io::{AsyncRead, AsyncWrite};
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::pin::Pin;
use std::task::{Context, Poll};

/// A TCP connection over a reactor.
pub struct Tcp<R: Reactor> {
    reactor: R,
    watched: R::Watched<TcpStream>,
    reads: Attempts,
    writes: Attempts,
}

impl<R: Reactor> Tcp<R> {
    pub(super) fn new(reactor: R, watched: R::Watched<TcpStream>) -> Tcp<R> {
        Tcp { reactor, watched, reads: Attempts::default(), writes: Attempts::default() }
    }

    pub(super) fn socket(&self) -> &TcpStream {
        R::socket(&self.watched)
    }

    fn poll_input<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut attempt: impl FnMut(&mut &TcpStream) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        let over = (&self.reactor, &self.watched);
        self.reads.poll(cx, over, Interest::Read, |mut tcp| attempt(&mut tcp))
    }

    fn poll_output<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut attempt: impl FnMut(&mut &TcpStream) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        let over = (&self.reactor, &self.watched);
        self.writes.poll(cx, over, Interest::Write, |mut tcp| attempt(&mut tcp))
    }
}

/// The waits are pinned in boxes of their own.
impl<R: Reactor> Unpin for Tcp<R> {}

impl<R: Reactor> AsyncRead for Tcp<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_input(cx, |tcp| tcp.read(buf))
    }

    fn poll_read_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_input(cx, |tcp| tcp.read_vectored(bufs))
    }
}

impl<R: Reactor> AsyncWrite for Tcp<R> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_output(cx, |tcp| tcp.write(buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_output(cx, |tcp| tcp.write_vectored(bufs))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match self.socket().shutdown(Shutdown::Write) {
            // The other side has reset the connection: there is nothing left to close.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            closed => closed,
        })
    }
}

impl<R: Reactor> fmt::Debug for Tcp<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tcp").field(self.socket()).finish()
    }
}
