//! Plain sockets: what a network does, asked without any of Portolan's code.

use super::Host;
use super::rules::Layer;
use socket2::{Domain, Socket, Type};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

/// What a knock says.
const KNOCK: &[u8] = b"knock";
/// How long a plain packet may take in a lab without delay, ours: a thousand times what it takes.
pub const PATIENCE: Duration = Duration::from_millis(300);

/// What became of a knock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knock {
    /// He got in.
    Opened,
    /// He was told no.
    Refused,
    /// Nothing came back.
    Silence,
}

/// A socket that listens for TCP where others listen and dial from as well.
///
/// # Errors
/// If the address is taken by somebody who does not share it.
pub fn listen(host: &Host, at: SocketAddr) -> io::Result<TcpListener> {
    host.space.inside(|| {
        free(|| {
            let socket = shared(at)?;
            socket.listen(16)?;
            let listener = TcpListener::from(socket);
            listener.set_nonblocking(true)?;
            Ok(listener)
        })
    })
}

/// A TCP connection from a chosen address.
///
/// # Errors
/// As those of connecting.
pub fn dial(host: &Host, from: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    dial_within(host, from, to, PATIENCE)
}

fn dial_within(
    host: &Host,
    from: SocketAddr,
    to: SocketAddr,
    patience: Duration,
) -> io::Result<TcpStream> {
    host.space.inside(|| {
        let socket = shared(from)?;
        socket.connect_timeout(&to.into(), patience)?;
        Ok(TcpStream::from(socket))
    })
}

/// A UDP socket.
///
/// # Errors
/// If the address is taken.
pub fn datagrams(host: &Host, at: SocketAddr) -> io::Result<UdpSocket> {
    host.space.inside(|| {
        let socket = free(|| UdpSocket::bind(at))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    })
}

/// Wait for somebody to come in, and say who it is.
///
/// # Errors
/// If nobody comes.
pub fn accept(listener: &TcpListener) -> io::Result<SocketAddr> {
    let step = Duration::from_millis(2);
    let mut left = PATIENCE;
    loop {
        match listener.accept() {
            Err(error) if error.kind() == ErrorKind::WouldBlock && left > Duration::ZERO => {
                left = left.saturating_sub(step);
                // sleep: between two looks at a listener that does not block.
                std::thread::sleep(step);
            }
            accepted => return accepted.map(|(_, from)| from),
        }
    }
}

/// Whether somebody gets through to a port of a host on which nothing else runs: a listener or a
/// socket is opened there for the while. The way there and back takes so long besides.
///
/// # Errors
/// If a socket cannot be made.
pub fn knock(
    (from, source): (&Host, IpAddr),
    layer: Layer,
    to: SocketAddr,
    (at, port): (&Host, u16),
    way: Duration,
) -> io::Result<Knock> {
    let patience = PATIENCE + way;
    let any =
        SocketAddr::new(if to.is_ipv4() { [0, 0, 0, 0].into() } else { [0; 16].into() }, port);
    match layer {
        Layer::Tcp => {
            let _listener = listen(at, any)?;
            Ok(match dial_within(from, SocketAddr::new(source, 0), to, patience) {
                Ok(_) => Knock::Opened,
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => Knock::Refused,
                Err(_) => Knock::Silence,
            })
        }
        Layer::Udp => {
            let inside = datagrams(at, any)?;
            let outside = datagrams(from, SocketAddr::new(source, 0))?;
            inside.set_read_timeout(Some(patience))?;
            outside.set_read_timeout(Some(patience))?;
            // Connected, so that an ICMP error is told.
            outside.connect(to)?;
            outside.send(KNOCK)?;
            let mut buffer = [0; 16];
            // Peers of the process that ended may still send to its port.
            while let Ok((len, seen)) = inside.recv_from(&mut buffer) {
                if buffer.get(..len) == Some(KNOCK) {
                    let _ = inside.send_to(b"open", seen);
                    break;
                }
            }
            Ok(match outside.recv(&mut buffer) {
                Ok(_) => Knock::Opened,
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => Knock::Refused,
                Err(_) => Knock::Silence,
            })
        }
    }
}

/// Make a socket where another one has just been closed. A process that another thread is starting
/// may hold on to that for a moment.
fn free<T>(mut make: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let step = Duration::from_millis(5);
    let mut left = PATIENCE;
    loop {
        match make() {
            Err(error) if error.kind() == ErrorKind::AddrInUse && left > Duration::ZERO => {
                left = left.saturating_sub(step);
                // sleep: between two tries of which nobody tells when they would succeed.
                std::thread::sleep(step);
            }
            made => return made,
        }
    }
}

fn shared(at: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&at.into())?;
    Ok(socket)
}
