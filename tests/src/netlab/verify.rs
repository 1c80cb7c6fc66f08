//! What a router does, measured with plain sockets in the manner of RFC 5780, before anything of
//! ours runs behind it.

use super::Host;
use super::rules::Layer;
use super::sockets::{self, Knock};
use portolan_sim::net::Dependence;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

/// How a router treats the flows of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behaviour {
    /// Whether it translates, and if so what the mapping depends on.
    pub mapping: Option<Dependence>,
    /// What letting in depends on.
    pub filtering: Dependence,
    /// What becomes of a packet for a port that nobody mapped.
    pub unsolicited: Knock,
}

/// The port of the host from which the mapping is learnt.
const MAPPED: u16 = 5_000;
/// The port of the host on which the filtering is tried.
const FILTERED: u16 = 5_001;
/// A port that nobody ever mapped.
const UNUSED: u16 = 5_999;

/// Measure how the way to a host treats a layer. One public host answers, a stranger knocks.
///
/// # Errors
/// If a socket cannot be made, or what must come through does not.
pub fn behaviour(
    client: &Host,
    (friend, stranger): (&Host, &Host),
    outside: IpAddr,
    layer: Layer,
) -> io::Result<Behaviour> {
    let seen = match layer {
        Layer::Tcp => seen_over_tcp(client, friend, stranger)?,
        Layer::Udp => seen_over_udp(client, friend, stranger)?,
    };
    let own = SocketAddr::new(client.ip4().into(), MAPPED);
    let mapping = match seen {
        [a, b, c] if a == b && b == c => (a != own).then_some(Dependence::Independent),
        [a, b, _] if a == b => Some(Dependence::Address),
        _ => Some(Dependence::AddressAndPort),
    };
    let filtering = match layer {
        Layer::Tcp => tcp_filtering(client, friend, stranger)?,
        Layer::Udp => udp_filtering(client, friend, stranger)?,
    };
    let unused = SocketAddr::new(outside, UNUSED);
    let from = (stranger, stranger.ip4().into());
    let unsolicited = sockets::knock(from, layer, unused, (client, UNUSED), Duration::ZERO)?;
    Ok(Behaviour { mapping, filtering, unsolicited })
}

/// Where two ports of a friend and one of a stranger see one socket of the host.
fn seen_over_udp(client: &Host, friend: &Host, other: &Host) -> io::Result<[SocketAddr; 3]> {
    let socket = bound(client, MAPPED)?;
    let ask = |host: &Host, port| -> io::Result<SocketAddr> {
        let theirs = bound(host, port)?;
        socket.send_to(b"where", SocketAddr::new(host.ip4().into(), port))?;
        Ok(theirs.recv_from(&mut [0; 16])?.1)
    };
    Ok([ask(friend, 7_000)?, ask(friend, 7_001)?, ask(other, 7_000)?])
}

fn seen_over_tcp(client: &Host, friend: &Host, other: &Host) -> io::Result<[SocketAddr; 3]> {
    let mut open: Vec<TcpStream> = Vec::new();
    let mut ask = |host: &Host, port| -> io::Result<SocketAddr> {
        let (stream, seen) = meet(client, MAPPED, host, port)?;
        open.push(stream);
        Ok(seen)
    };
    Ok([ask(friend, 7_000)?, ask(friend, 7_001)?, ask(other, 7_000)?])
}

/// Who gets in at the mapping of a socket that has spoken to one port of a friend only.
fn udp_filtering(client: &Host, friend: &Host, stranger: &Host) -> io::Result<Dependence> {
    let socket = bound(client, FILTERED)?;
    let theirs = bound(friend, 7_002)?;
    socket.send_to(b"where", SocketAddr::new(friend.ip4().into(), 7_002))?;
    let (_, mapping) = theirs.recv_from(&mut [0; 16])?;
    let gets_in = |from: &Host, port| -> io::Result<bool> {
        bound(from, port)?.send_to(b"knock", mapping)?;
        Ok(socket.recv_from(&mut [0; 16]).is_ok())
    };
    theirs.send_to(b"answer", mapping)?;
    socket.recv_from(&mut [0; 16])?;
    Ok(match (gets_in(stranger, 7_003)?, gets_in(friend, 7_003)?) {
        (true, _) => Dependence::Independent,
        (false, true) => Dependence::Address,
        (false, false) => Dependence::AddressAndPort,
    })
}

fn tcp_filtering(client: &Host, friend: &Host, stranger: &Host) -> io::Result<Dependence> {
    let listener: TcpListener = sockets::listen(client, any(FILTERED))?;
    let (_open, mapping) = meet(client, FILTERED, friend, 7_002)?;
    let gets_in = |from: &Host| -> io::Result<bool> {
        let dialled = sockets::dial(from, any(0), mapping);
        Ok(dialled.is_ok() && sockets::accept(&listener).is_ok())
    };
    Ok(match (gets_in(stranger)?, gets_in(friend)?) {
        (true, _) => Dependence::Independent,
        (false, true) => Dependence::Address,
        (false, false) => Dependence::AddressAndPort,
    })
}

/// A TCP connection out of the host, and where the other side sees it.
fn meet(
    client: &Host,
    port: u16,
    host: &Host,
    their_port: u16,
) -> io::Result<(TcpStream, SocketAddr)> {
    let listener = sockets::listen(host, any(their_port))?;
    let to = SocketAddr::new(host.ip4().into(), their_port);
    let stream = sockets::dial(client, any(port), to)?;
    Ok((stream, sockets::accept(&listener)?))
}

fn bound(host: &Host, port: u16) -> io::Result<UdpSocket> {
    sockets::datagrams(host, any(port))
}

fn any(port: u16) -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], port))
}
