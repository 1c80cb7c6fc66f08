//! How a UDP socket says that a datagram was refused.

use std::io;
use std::net::{SocketAddr, UdpSocket};

/// What reading from a socket came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// A datagram of so many bytes.
    Datagram(usize, SocketAddr),
    /// Nobody listens where a datagram of ours went, if the system tells where.
    Refused(Option<SocketAddr>),
    /// A datagram of ours got lost in another way.
    Lost,
}

/// What an error comes to where no queue says more. Where there is a queue, it has been told.
const UNTOLD: Read = if cfg!(any(target_os = "linux", target_os = "android")) {
    Read::Lost
} else {
    Read::Refused(None)
};

/// Read what comes first: refusals, then datagrams.
pub(super) fn read(socket: &UdpSocket, buf: &mut [u8]) -> io::Result<Read> {
    if let Some(told) = told(socket) {
        return Ok(told);
    }
    use io::ErrorKind::{
        ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted, NetworkUnreachable,
    };
    match socket.recv_from(buf) {
        Ok((count, from)) => Ok(Read::Datagram(count, from)),
        // The error of a datagram that was sent, told in the place of one received.
        Err(error) if matches!(error.kind(), ConnectionRefused | ConnectionReset) => {
            Ok(told(socket).unwrap_or(UNTOLD))
        }
        Err(error)
            if matches!(error.kind(), HostUnreachable | NetworkUnreachable | Interrupted) =>
        {
            Ok(Read::Lost)
        }
        Err(error) => Err(error),
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) use queue::{told, want};

#[cfg(any(target_os = "linux", target_os = "android"))]
mod queue {
    use super::Read;
    use nix::cmsg_space;
    use nix::libc::{self, sock_extended_err, sockaddr_in, sockaddr_in6};
    use nix::sys::socket::sockopt::{Ipv4RecvErr, Ipv6RecvErr};
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt};
    use std::io::{self, IoSliceMut};
    use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
    use std::os::fd::AsRawFd;

    /// Ask for errors to be queued, each with the destination that it is about.
    pub(in super::super) fn want(socket: &UdpSocket, to_ipv6: bool) -> io::Result<()> {
        if to_ipv6 {
            setsockopt(socket, Ipv6RecvErr, &true)?;
        } else {
            setsockopt(socket, Ipv4RecvErr, &true)?;
        }
        Ok(())
    }

    /// The first error in the queue.
    pub(in super::super) fn told(socket: &UdpSocket) -> Option<Read> {
        // Of the datagram that was sent nothing is wanted.
        let mut nothing = [0; 1];
        let mut iov = [IoSliceMut::new(&mut nothing)];
        let mut control =
            cmsg_space!((sock_extended_err, sockaddr_in6), (sock_extended_err, sockaddr_in));
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let message =
            recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut iov, Some(&mut control), flags)
                .ok()?;
        let to = message.address.as_ref().and_then(destination);
        let mut notes = message.cmsgs().ok()?;
        let refused = notes.any(|note| {
            let (ControlMessageOwned::Ipv4RecvErr(error, _)
            | ControlMessageOwned::Ipv6RecvErr(error, _)) = note
            else {
                return false;
            };
            error.ee_errno == libc::ECONNREFUSED.cast_unsigned()
        });
        Some(if refused { Read::Refused(to) } else { Read::Lost })
    }

    fn destination(address: &SockaddrStorage) -> Option<SocketAddr> {
        let four = address.as_sockaddr_in().map(|four| SocketAddrV4::from(*four).into());
        four.or_else(|| address.as_sockaddr_in6().map(|six| SocketAddrV6::from(*six).into()))
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn want(_: &UdpSocket, _: bool) -> io::Result<()> {
    Ok(())
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn told(_: &UdpSocket) -> Option<Read> {
    None
}
