//! Listening everywhere with one port number.

use multiaddr::{Multiaddr, Protocol};
use portolan_runtime::{ListenError, StartError, net};
use std::future::Future;
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};

/// How often another port is tried when the kernel's choice for one socket is taken for another;
/// ours: with half of all ports taken, all fail once in 65,536 starts.
const PORT_TRIES: usize = 16;

/// Why something did not start.
pub(crate) trait Failure {
    /// Whether it is that a port is in use.
    fn is_in_use(&self) -> bool;
}

impl Failure for StartError {
    fn is_in_use(&self) -> bool {
        matches!(self, StartError::Listen(ListenError::Socket(net::ListenError::InUse(_))))
    }
}

/// Start something that listens on the wildcards of both families with one port number for all sockets, as
/// routers and people like it. The number is the wanted one, or the kernel's choice for one socket, and may be
/// taken for another: then another number is tried.
pub(crate) async fn on_one_port<T, E: Failure, F: Future<Output = Result<T, E>>>(
    mut wanted: Option<u16>,
    mut start: impl FnMut(Vec<Multiaddr>) -> F,
) -> Result<T, E> {
    let mut tries = 0;
    loop {
        tries += 1;
        let port = wanted.take().or_else(free_port).unwrap_or(0);
        match start(everywhere(port, has_ip6())).await {
            Err(error) if error.is_in_use() && tries < PORT_TRIES => {}
            started => return started,
        }
    }
}

/// A UDP port that was free a moment ago.
fn free_port() -> Option<u16> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.local_addr().ok().map(|addr| addr.port())
}

/// Whether this host speaks IPv6 at all.
fn has_ip6() -> bool {
    UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok()
}

/// The wildcards with one port, for every transport.
fn everywhere(port: u16, ip6: bool) -> Vec<Multiaddr> {
    let mut ips = vec![Multiaddr::from(Ipv4Addr::UNSPECIFIED)];
    if ip6 {
        ips.push(Multiaddr::from(Ipv6Addr::UNSPECIFIED));
    }
    let tcp = |ip: &Multiaddr| ip.clone().with(Protocol::Tcp(port));
    let quic = |ip: &Multiaddr| ip.clone().with(Protocol::Udp(port)).with(Protocol::QuicV1);
    ips.iter().flat_map(|ip| [tcp(ip), quic(ip)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_default_everything_is_listened_on_with_one_port() {
        let text =
            |addrs: Vec<Multiaddr>| addrs.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            text(everywhere(4001, true)),
            [
                "/ip4/0.0.0.0/tcp/4001",
                "/ip4/0.0.0.0/udp/4001/quic-v1",
                "/ip6/::/tcp/4001",
                "/ip6/::/udp/4001/quic-v1",
            ]
        );
        assert_eq!(everywhere(4001, false).len(), 2);
    }

    /// A port that is taken, or not.
    #[derive(Debug, PartialEq, Eq)]
    struct Taken(bool);

    impl Failure for Taken {
        fn is_in_use(&self) -> bool {
            self.0
        }
    }

    #[test]
    fn the_wanted_port_is_tried_first_and_others_while_they_are_taken() {
        let mut asked: Vec<Vec<Multiaddr>> = Vec::new();
        let found = futures::executor::block_on(on_one_port(Some(4001), |listen| {
            asked.push(listen);
            let tries = asked.len();
            async move { if tries < 3 { Err(Taken(true)) } else { Ok(tries) } }
        }));
        assert_eq!(found, Ok(3));
        assert_eq!(asked[0], everywhere(4001, has_ip6()));
        let never = |taken| async move { Err::<(), _>(Taken(taken)) };
        let mut tries = 0;
        let mut count = |taken| {
            tries += 1;
            never(taken)
        };
        let found = futures::executor::block_on(on_one_port(None, |_| count(true)));
        assert_eq!((found, tries), (Err(Taken(true)), PORT_TRIES));
        let found = futures::executor::block_on(on_one_port(None, |_| never(false)));
        assert_eq!(found, Err(Taken(false)), "another port would not help");
    }
}
