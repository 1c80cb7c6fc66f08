//! A wire that can be cut in the middle of anything: over TCP by a reset of the node's socket,
//! over QUIC, which has no such thing, by dropping the connection from one moment to the next.

use crate::peer::Line;
use portolan_core::{Addr, Transport};
use socket2::SockRef;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// A wire to an address.
pub(crate) enum Wire {
    /// Everything goes through it.
    Tcp { at: Addr, cut: oneshot::Sender<()>, task: tokio::task::JoinHandle<()> },
    /// There is none.
    Quic { at: Addr },
}

impl Wire {
    /// A wire to `to` for one connection.
    pub(crate) async fn to(to: Addr) -> Wire {
        if to.transport == Transport::Quic {
            return Wire::Quic { at: to };
        }
        let listener = TcpListener::bind(SocketAddr::new(to.ip, 0)).await.expect("a free port");
        let bound = listener.local_addr().expect("it is bound");
        let (cut, is_cut) = oneshot::channel();
        let task = tokio::spawn(carry(listener, to.socket(), is_cut));
        Wire::Tcp { at: Addr::tcp(bound.ip(), bound.port()), cut, task }
    }

    /// Where to connect.
    pub(crate) const fn at(&self) -> Addr {
        match self {
            Wire::Tcp { at, .. } | Wire::Quic { at } => *at,
        }
    }

    /// Cut it while `line` runs over it. What was sent on it and not yet taken in is lost.
    pub(crate) async fn cut(self, line: Line) {
        match self {
            Wire::Tcp { cut, task, .. } => {
                cut.send(()).expect("it is carrying");
                task.await.expect("it ends");
                line.closed().await;
            }
            Wire::Quic { .. } => line.abort(),
        }
    }
}

/// Carry one connection until it is cut; then both its sockets are reset.
async fn carry(listener: TcpListener, to: SocketAddr, is_cut: oneshot::Receiver<()>) {
    let (mut one, _) = listener.accept().await.expect("somebody connects");
    let mut other = TcpStream::connect(to).await.expect("somebody listens");
    for socket in [&one, &other] {
        socket.set_nodelay(true).expect("it is open");
        // A socket that lingers for no time is reset when it is dropped.
        SockRef::from(socket).set_linger(Some(Duration::ZERO)).expect("it is open");
    }
    tokio::select! {
        ended = copy_bidirectional(&mut one, &mut other) => panic!("nobody hangs up: {ended:?}"),
        cut = is_cut => cut.expect("it is cut before it is dropped"),
    }
}
