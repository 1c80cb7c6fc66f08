//! The door for multiaddrs: what of them this node can listen on and dial.

use multiaddr::{Multiaddr, Protocol};
use portolan_core::{Addr, PeerId};
use std::net::IpAddr;

/// What is wrong with a multiaddr that was to be listened on or dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// It does not start with an IP address.
    #[error("it must start with /ip4 or /ip6; names are not resolved")]
    NoIp,
    /// It goes through a relay.
    #[error("addresses through a relay cannot be used here")]
    Relayed,
    /// What follows the IP is neither TCP nor QUIC version 1.
    #[error("after the IP it must say /tcp/PORT or /udp/PORT/quic-v1")]
    Transport,
    /// Something follows that no transport here speaks.
    #[error("nothing but /p2p/PEER-ID may follow the port")]
    Trailing,
    /// A destination with port zero.
    #[error("nobody can be dialled at port 0")]
    PortZero,
    /// A destination that is no host: unspecified or multicast.
    #[error("the IP is not one of a host")]
    NoHost,
}

/// The transport address in a multiaddr, and the peer that it names at its end, if it does.
pub(crate) fn parse(addr: &Multiaddr) -> Result<(Addr, Option<PeerId>), AddressError> {
    if addr.iter().any(|part| matches!(part, Protocol::P2pCircuit)) {
        return Err(AddressError::Relayed);
    }
    let mut parts = addr.iter();
    let ip = match parts.next() {
        Some(Protocol::Ip4(ip)) => IpAddr::V4(ip),
        Some(Protocol::Ip6(ip)) => IpAddr::V6(ip),
        _ => return Err(AddressError::NoIp),
    };
    let addr = match parts.next() {
        Some(Protocol::Tcp(port)) => Addr::tcp(ip, port),
        Some(Protocol::Udp(port)) if matches!(parts.next(), Some(Protocol::QuicV1)) => {
            Addr::quic(ip, port)
        }
        _ => return Err(AddressError::Transport),
    };
    match (parts.next(), parts.next()) {
        (None, _) => Ok((addr, None)),
        (Some(Protocol::P2p(peer)), None) => Ok((addr, Some(peer))),
        _ => Err(AddressError::Trailing),
    }
}

/// As [`parse`], for a destination.
pub(crate) fn destination(addr: &Multiaddr) -> Result<(Addr, Option<PeerId>), AddressError> {
    let (addr, peer) = parse(addr)?;
    if addr.port == 0 {
        Err(AddressError::PortZero)
    } else if addr.ip.is_unspecified() || addr.ip.is_multicast() {
        Err(AddressError::NoHost)
    } else {
        Ok((addr, peer))
    }
}

/// The multiaddr of a transport address, with `/p2p/PEER-ID` at its end if a peer is given.
pub(crate) fn multiaddr(addr: Addr, peer: Option<PeerId>) -> Multiaddr {
    let mut parts = Multiaddr::from(addr.ip);
    match addr.transport {
        portolan_core::Transport::Tcp => parts.push(Protocol::Tcp(addr.port)),
        portolan_core::Transport::Quic => {
            parts.push(Protocol::Udp(addr.port));
            parts.push(Protocol::QuicV1);
        }
    }
    if let Some(peer) = peer {
        parts.push(Protocol::P2p(peer));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(Addr, Option<PeerId>), AddressError> {
        destination(&text.parse().expect("a multiaddr"))
    }

    #[test]
    fn what_can_be_dialled_reads_and_writes() {
        let peer = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
        for text in ["/ip4/192.0.2.1/tcp/4001", "/ip6/2001:db8::1/udp/4001/quic-v1"] {
            let (addr, none) = read(text).expect("an address");
            assert_eq!(none, None);
            assert_eq!(multiaddr(addr, None).to_string(), text);
            let full = format!("{text}/p2p/{peer}");
            let (same, some) = read(&full).expect("an address");
            assert_eq!(same, addr);
            assert_eq!(multiaddr(addr, some).to_string(), full);
        }
    }

    #[test]
    fn what_cannot_be_dialled_is_named() {
        for (text, error) in [
            ("/dns4/example.org/tcp/1", AddressError::NoIp),
            ("/ip4/192.0.2.1", AddressError::Transport),
            ("/ip4/192.0.2.1/udp/1", AddressError::Transport),
            ("/ip4/192.0.2.1/udp/1/quic", AddressError::Transport),
            ("/ip4/192.0.2.1/tcp/1/ws", AddressError::Trailing),
            ("/ip4/192.0.2.1/tcp/1/p2p-circuit", AddressError::Relayed),
            ("/ip4/192.0.2.1/tcp/0", AddressError::PortZero),
            ("/ip4/0.0.0.0/tcp/1", AddressError::NoHost),
        ] {
            assert_eq!(read(text), Err(error), "{text}");
        }
    }
}
