//! Sockets of the operating system, with exactly the options that Portolan wants.
//!
//! TCP listens and dials from one port. The listener is bound *without* `SO_REUSEPORT`, so that
//! the port must be free, and gets it after `listen`, so that our own dials may share it; both
//! set `SO_REUSEADDR`, so that a restart does not wait for old connections to time out. A second
//! Portolan, or any program that binds without `SO_REUSEPORT`, is refused. On Linux a program of
//! the same user that asks for `SO_REUSEPORT` cannot be kept out.
//!
//! A UDP socket sets no such option: each listen address has exactly one, which also dials.

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};

/// Connections that wait in the kernel to be accepted, number; Linux's default cap. When full,
/// the kernel lets new ones wait outside.
const BACKLOG: i32 = 1_024;

/// How long sent data may stay unacknowledged before the connection is given up, ours: yamux has
/// no time-out for peers that have vanished, and the kernel's own is a quarter of an hour. A
/// connection with no data under way is not touched; pings find out about it.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNACKNOWLEDGED_MAX: portolan_core::Duration = portolan_core::Duration::from_secs(30);

/// How far multicasts to routers travel, hops; UPnP Device Architecture 1.1 §1.3.2: should be 2.
/// Strangers hear of us if it grows.
const MULTICAST_HOPS: u32 = 2;

/// Received packets that wait in the kernel to be read, bytes of its own reckoning, ours: what a hundred
/// peers send at once, while the processor is elsewhere. Linux counts it twice over, and grants no more than
/// `net.core.rmem_max`. When full, it drops packets, whose senders then slow down and send them again.
const RECEIVE_BUFFER: usize = 4 * 1_024 * 1_024;

/// A connection attempt that has begun.
#[derive(Debug)]
pub(crate) struct Dialling {
    /// The non-blocking socket on which `connect` was called.
    pub(crate) socket: TcpStream,
    /// Whether it is bound to the port of a listener.
    pub(crate) port_reused: bool,
}

/// Open a TCP socket that listens on `addr`; a port of 0 leaves the choice to the kernel.
pub(crate) fn listen_tcp(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = tcp_socket(addr)?;
    socket.bind(&SockAddr::from(addr))?;
    socket.listen(BACKLOG)?;
    share_port(&socket)?;
    Ok(socket.into())
}

/// Begin to connect to `to` from the first of the listeners `from` that can; from a port of the
/// kernel's choice when none can, because all are out of reach of `to` or because a connection
/// between the same two ends exists (or has just ended) already.
pub(crate) fn dial_from(to: SocketAddr, from: &[SocketAddr]) -> io::Result<Dialling> {
    for local in from {
        match dial_shared(to, *local) {
            Ok(socket) => {
                return Ok(Dialling { socket, port_reused: true });
            }
            // Whatever it is, it may be due to the source address: a host that cannot reach the
            // remote at all says so again below.
            Err(error) => tracing::debug!(%local, %to, %error, "cannot dial from a listen port"),
        }
    }
    dial_fresh(to, None)
}

/// Begin to connect to `to` from a port of the kernel's choice, and from the IP `source` if one
/// is given.
pub(crate) fn dial_fresh(to: SocketAddr, source: Option<IpAddr>) -> io::Result<Dialling> {
    let socket = tcp_socket_exclusive(to)?;
    if let Some(ip) = source {
        socket.bind(&SockAddr::from(SocketAddr::new(ip, 0)))?;
    }
    Ok(Dialling { socket: begin(socket, to)?, port_reused: false })
}

/// Begin to connect to `to` from `local` and no other address; port 0 leaves the port to the kernel.
pub(crate) fn dial_bound_to(to: SocketAddr, local: SocketAddr) -> io::Result<TcpStream> {
    let socket = tcp_socket_exclusive(to)?;
    socket.bind(&SockAddr::from(local))?;
    begin(socket, to)
}

/// Begin to connect to `to` from the port of the listener `local`, and from no other.
pub(crate) fn dial_shared(to: SocketAddr, local: SocketAddr) -> io::Result<TcpStream> {
    let socket = tcp_socket(to)?;
    share_port(&socket)?;
    socket.bind(&SockAddr::from(local))?;
    begin(socket, to)
}

fn begin(socket: Socket, to: SocketAddr) -> io::Result<TcpStream> {
    match socket.connect(&SockAddr::from(to)) {
        Ok(()) => {}
        Err(error) if is_in_progress(&error) => {}
        Err(error) => return Err(error),
    }
    Ok(socket.into())
}

fn is_in_progress(error: &io::Error) -> bool {
    #[cfg(unix)]
    let in_progress = error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error());
    #[cfg(not(unix))]
    let in_progress = false;
    in_progress || error.kind() == io::ErrorKind::WouldBlock
}

/// A socket that may take a port over whose old connections linger.
fn tcp_socket(addr: SocketAddr) -> io::Result<Socket> {
    let socket = tcp_socket_exclusive(addr)?;
    // On Windows the option means what SO_REUSEPORT means elsewhere: anybody could join.
    #[cfg(not(windows))]
    socket.set_reuse_address(true)?;
    Ok(socket)
}

fn tcp_socket_exclusive(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    // Accepted sockets inherit it from the listener.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
    Ok(socket)
}

#[cfg(unix)]
fn share_port(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_port(true)
}

/// Where the option does not exist, dials from a listen port fail to bind and fall back.
#[cfg(not(unix))]
fn share_port(_: &Socket) -> io::Result<()> {
    Ok(())
}

/// A UDP socket bound to `addr`; a port of 0 leaves the choice to the kernel.
pub(crate) fn bind_udp(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = udp_socket(addr)?;
    socket.bind(&SockAddr::from(addr))?;
    Ok(socket.into())
}

/// A UDP socket for many connections, with room for what arrives while nobody reads.
pub(crate) fn bind_busy_udp(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::from(bind_udp(addr)?);
    // Where the system allows less, less has to do.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    Ok(socket.into())
}

/// A UDP socket that asks routers: bound to `local`, multicasts leave through its interface.
pub(crate) fn bind_client(local: SocketAddr, interface: u32) -> io::Result<UdpSocket> {
    let socket = udp_socket(local)?;
    socket.bind(&SockAddr::from(local))?;
    match local {
        SocketAddr::V4(four) => {
            socket.set_multicast_if_v4(four.ip())?;
            socket.set_multicast_ttl_v4(MULTICAST_HOPS)?;
        }
        SocketAddr::V6(_) => {
            socket.set_multicast_if_v6(interface)?;
            socket.set_multicast_hops_v6(MULTICAST_HOPS)?;
        }
    }
    Ok(socket.into())
}

/// A UDP socket that hears what is sent to a multicast group on one interface: that of `source`
/// over IPv4, `interface` over IPv6. Other programs share its port.
pub(crate) fn bind_group(
    group: SocketAddr,
    source: IpAddr,
    interface: u32,
) -> io::Result<UdpSocket> {
    let socket = udp_socket(group)?;
    socket.set_reuse_address(true)?;
    // Elsewhere a group is shared by this option. On Linux it would be a mistake: among sockets
    // that have it the kernel picks one by a hash, whatever interfaces they have joined on.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    share_port(&socket)?;
    // On Windows no socket is bound to a group; elsewhere, what is not for the group stays outside.
    let local =
        if cfg!(windows) { SocketAddr::new(unspecified(group), group.port()) } else { group };
    socket.bind(&SockAddr::from(local))?;
    match (group.ip(), source) {
        (IpAddr::V4(group), IpAddr::V4(source)) => {
            // Groups that other programs join elsewhere are none of ours.
            #[cfg(any(target_os = "linux", target_os = "android"))]
            socket.set_multicast_all_v4(false)?;
            socket.join_multicast_v4(&group, &source)?;
        }
        (IpAddr::V6(group), _) => {
            #[cfg(any(target_os = "linux", target_os = "android"))]
            socket.set_multicast_all_v6(false)?;
            socket.join_multicast_v6(&group, interface)?;
        }
        (IpAddr::V4(_), IpAddr::V6(_)) => return Err(io::ErrorKind::InvalidInput.into()),
    }
    Ok(socket.into())
}

fn udp_socket(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The IP that this host sends from when it sends to `to`. Asks the routing table; no packet is
/// sent. An error says that there is no route, or that `source` is not ours.
pub(crate) fn source_towards(to: SocketAddr, source: Option<IpAddr>) -> io::Result<IpAddr> {
    let ip = source.unwrap_or_else(|| unspecified(to));
    let socket = bind_udp(SocketAddr::new(ip, 0))?;
    socket.connect(to)?;
    Ok(socket.local_addr()?.ip())
}

/// The wildcard of the family of `addr`.
pub(crate) fn unspecified(addr: SocketAddr) -> IpAddr {
    match addr {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// The listeners among `listeners` from which `to` can be dialled, the best first: those on the
/// IP that the route to `to` starts from, then wildcards, then others of the right scope (a
/// loopback address reaches only loopback addresses), from which it may work on a host with
/// several routes.
pub(crate) fn fit_to_dial(listeners: &[SocketAddr], to: SocketAddr) -> Vec<SocketAddr> {
    rank(listeners, to, source_towards(to, None).ok())
}

fn rank(listeners: &[SocketAddr], to: SocketAddr, routed: Option<IpAddr>) -> Vec<SocketAddr> {
    let mut fit: Vec<SocketAddr> = listeners
        .iter()
        .filter(|local| local.is_ipv4() == to.is_ipv4())
        .filter(|local| {
            local.ip().is_unspecified() || local.ip().is_loopback() == to.ip().is_loopback()
        })
        .copied()
        .collect();
    fit.sort_by_key(|local| (Some(local.ip()) != routed, !local.ip().is_unspecified()));
    fit
}

/// Take out the listeners that `to` itself would reach: a TCP socket that dials its own address
/// connects to itself, past the listener.
pub(crate) fn spare_self(listeners: &mut Vec<SocketAddr>, to: SocketAddr) {
    if !listeners.iter().any(|local| local.port() == to.port()) {
        return;
    }
    let ours = to.ip().is_loopback() || interface_ips().is_ok_and(|ips| ips.contains(&to.ip()));
    listeners.retain(|local| {
        let same_ip = local.ip() == to.ip() || (local.ip().is_unspecified() && ours);
        local.port() != to.port() || !same_ip
    });
}

/// Every IP of an interface that is up, without duplicates, in order.
///
/// # Errors
/// Those of asking the operating system.
pub fn interface_ips() -> io::Result<Vec<IpAddr>> {
    let mut ips: Vec<IpAddr> = if_addrs::get_if_addrs()?
        .into_iter()
        .filter(if_addrs::Interface::is_oper_up)
        .map(|interface| interface.ip())
        .collect();
    ips.sort_unstable();
    ips.dedup();
    Ok(ips)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("a socket address")
    }

    #[test]
    fn a_second_listener_is_refused_even_while_dials_share_the_port() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let first = listen_tcp(addr(any)).expect("a free port");
            let bound = first.local_addr().expect("it is bound");
            let refused = listen_tcp(bound).expect_err("the port is taken");
            assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);

            let server = listen_tcp(addr(any)).expect("another free port");
            let to = server.local_addr().expect("it is bound");
            let dialling = dial_from(to, &[bound]).expect("loopback is reachable");
            assert!(dialling.port_reused);
            assert_eq!(dialling.socket.local_addr().expect("it is bound"), bound);
            let refused = listen_tcp(bound).expect_err("the port is still taken");
            assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        }
    }

    #[test]
    fn two_wildcards_of_two_families_share_a_port_number() {
        let four = listen_tcp(addr("0.0.0.0:0")).expect("a free port");
        let port = four.local_addr().expect("it is bound").port();
        // Another program may hold the number in the other family; then nothing is learnt.
        match listen_tcp(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::AddrInUse),
        }
        drop(bind_udp(addr("[::]:0")).expect("UDP over IPv6"));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_arrives_at_a_busy_socket_has_more_room() {
        let plain = Socket::from(bind_udp(addr("127.0.0.1:0")).expect("a free port"));
        let busy = Socket::from(bind_busy_udp(addr("127.0.0.1:0")).expect("a free port"));
        let room = |socket: &Socket| socket.recv_buffer_size().expect("it can be read");
        assert!(room(&busy) > room(&plain), "{} and {}", room(&busy), room(&plain));
    }

    #[test]
    fn listeners_are_chosen_by_reach() {
        let all = ["0.0.0.0:1", "127.0.0.1:2", "10.0.0.1:3", "[::]:4", "[::1]:5"].map(addr);
        let fit = |to: &str, routed: &str| -> Vec<u16> {
            let ranked = rank(&all, addr(to), routed.parse().ok());
            ranked.iter().map(SocketAddr::port).collect()
        };
        assert_eq!(fit("127.0.0.9:80", "127.0.0.1"), [2, 1]);
        assert_eq!(fit("127.0.0.9:80", "127.0.0.9"), [1, 2]);
        assert_eq!(fit("44.1.2.3:80", "10.0.0.1"), [3, 1]);
        assert_eq!(fit("44.1.2.3:80", "192.168.0.1"), [1, 3], "10.0.0.1 leads elsewhere");
        assert_eq!(fit("44.1.2.3:80", "no route"), [1, 3]);
        assert_eq!(fit("[::1]:80", "::1"), [5, 4]);
        assert_eq!(fit("[2600::1]:80", "fd00::1"), [4]);
    }

    #[test]
    fn nobody_dials_himself_from_his_own_port() {
        let spared = |local: &str, to: &str| {
            let mut listeners = vec![addr(local)];
            spare_self(&mut listeners, addr(to));
            listeners.is_empty()
        };
        assert!(spared("127.0.0.1:7", "127.0.0.1:7"));
        assert!(spared("0.0.0.0:7", "127.0.0.1:7"));
        assert!(!spared("127.0.0.1:7", "127.0.0.2:7"));
        assert!(!spared("0.0.0.0:7", "44.1.2.3:7"));
        assert!(!spared("0.0.0.0:7", "127.0.0.1:8"));
    }

    #[test]
    fn multicasts_to_routers_end_after_two_hops() {
        let client = bind_client(addr("127.0.0.1:0"), 1).expect("it is ours");
        assert_eq!(client.multicast_ttl_v4().expect("it is open"), MULTICAST_HOPS);
        let client = bind_client(addr("[::1]:0"), 1).expect("it is ours");
        let client = socket2::SockRef::from(&client);
        assert_eq!(client.multicast_hops_v6().expect("it is open"), MULTICAST_HOPS);
    }
}
