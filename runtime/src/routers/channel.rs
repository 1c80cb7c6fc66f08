//! Sockets that speak with routers.

use super::refused::{self, Read};
use super::{bare, on_interface};
use crate::sockets;
use crate::traits::Runtime;
use async_channel::{Receiver, Sender, TrySendError};
use bytes::Bytes;
use futures::future;
use portolan_core::{Channel, MappingEvent};
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::pin::pin;

/// The longest datagram that is handed on, bytes; ours: PCP ends at 1,100, and what a device tells
/// of itself fits into one packet of Ethernet. A longer one is dropped.
const DATAGRAM_MAX: usize = 2_048;
/// Errors in a row after which a socket is taken for broken, number; ours.
const ERRORS_MAX: u32 = 64;

/// A socket that is open: what it takes to send. Dropping it closes the socket.
#[derive(Debug)]
pub(super) struct Open {
    socket: UdpSocket,
    interface: u32,
    /// Nothing is ever sent on it.
    _stop: Sender<Infallible>,
}

impl Open {
    /// Open a socket; the second part receives for as long as the first lives.
    pub(super) fn new<R: Runtime>(
        runtime: &R,
        channel: Channel,
        news: &Sender<MappingEvent>,
    ) -> io::Result<(Open, impl Future<Output = ()> + Send + 'static)> {
        let (socket, interface) = match channel {
            Channel::Client { source, interface } => {
                let socket = sockets::bind_client(on_interface(source, 0, interface), interface)?;
                refused::want(&socket, source.is_ipv6())?;
                (socket, interface)
            }
            Channel::Group { group, source, interface } => {
                let group = on_interface(group.ip(), group.port(), interface);
                (sockets::bind_group(group, source, interface)?, interface)
            }
        };
        let udp = runtime.udp(socket.try_clone()?)?;
        let (stop, stopped) = async_channel::bounded(1);
        let (runtime, news) = (runtime.clone(), news.clone());
        let receiving = async move {
            let receive = receive(&runtime, &udp, channel, &news);
            future::select(pin!(receive), pin!(until_closed(stopped))).await;
        };
        Ok((Open { socket, interface, _stop: stop }, receiving))
    }

    pub(super) fn send(&self, to: SocketAddr, body: &[u8]) {
        let to = on_interface(to.ip(), to.port(), self.interface);
        let send = || self.socket.send_to(body, to);
        // The first attempt may be told the error of an earlier datagram, and sends nothing then.
        let sent = send().or_else(|error| {
            if error.kind() == io::ErrorKind::WouldBlock { Err(error) } else { send() }
        });
        if let Err(error) = sent {
            tracing::debug!(%to, %error, "a datagram to a router is lost");
        }
    }
}

async fn until_closed(stopped: Receiver<Infallible>) {
    let _ = stopped.recv().await;
}

async fn receive<R: Runtime>(
    runtime: &R,
    udp: &R::Udp,
    channel: Channel,
    news: &Sender<MappingEvent>,
) {
    // One byte more, to tell a datagram that is too long.
    let mut buf = [0; DATAGRAM_MAX + 1];
    let mut errors = 0;
    while errors < ERRORS_MAX {
        let read = runtime.read_udp(udp, |socket| refused::read(socket, &mut buf)).await;
        let event = match read {
            Ok(Read::Datagram(count, from)) if count <= DATAGRAM_MAX => {
                let body = Bytes::copy_from_slice(buf.get(..count).unwrap_or_default());
                MappingEvent::DatagramReceived { channel, from: bare(from), body }
            }
            Ok(Read::Refused(to)) => MappingEvent::DatagramRefused { channel, to: to.map(bare) },
            Ok(Read::Datagram(..) | Read::Lost) => continue,
            Err(error) => {
                tracing::debug!(%channel, %error, "a socket that speaks with routers fails");
                errors += 1;
                continue;
            }
        };
        errors = 0;
        match news.try_send(event) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => tracing::debug!(%channel, "lost a datagram: too many"),
            Err(TrySendError::Closed(_)) => return,
        }
    }
}
