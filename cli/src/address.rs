//! Multiaddrs as people type them: what can be dialled, what can be listened on, and what is
//! wrong with the rest.

use multiaddr::{Multiaddr, Protocol};
use portolan_core::{Addr, PeerId, Transport};
use std::net::IpAddr;

/// A multiaddr that is of no use here. Says which one, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} {problem}")]
pub struct AddressError {
    /// The text that was given.
    pub text: String,
    /// What is wrong with it.
    pub problem: AddressProblem,
}

/// What is wrong with a multiaddr.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressProblem {
    /// It does not parse at all.
    #[error("is not a multiaddr: {0}")]
    Malformed(String),
    /// It does not begin with an IP address.
    #[error("does not begin with /ip4 or /ip6 (names are not resolved)")]
    NoIp,
    /// It goes through a relay.
    #[error("goes through a relay; a direct address is needed")]
    Relayed,
    /// It names neither TCP nor QUIC.
    #[error("must go on with /tcp/PORT or /udp/PORT/quic-v1 after the IP")]
    NoTransport,
    /// Something follows that no transport here speaks.
    #[error("goes on with /{0} after the port; only /p2p/PEER-ID may follow there")]
    Trailing(String),
    /// Something follows the port of a listen address.
    #[error("names a peer; a listen address ends with its port")]
    PeerToListenOn,
    /// Nobody can be dialled at port zero.
    #[error("has port 0; nobody can be dialled there")]
    PortZero,
    /// The IP belongs to no host.
    #[error("has an IP that is not one of a host")]
    NoHost,
}

/// Read the address of a peer to dial: IP, port and transport, and `/p2p/PEER-ID` at the end if
/// only that peer will do.
///
/// # Errors
/// Names the text and what is wrong with it.
pub fn peer_address(text: &str) -> Result<Multiaddr, AddressError> {
    let check = |addr: &Multiaddr| {
        let (addr, _) = split(addr)?;
        if addr.port == 0 {
            Err(AddressProblem::PortZero)
        } else if addr.ip.is_unspecified() || addr.ip.is_multicast() {
            Err(AddressProblem::NoHost)
        } else {
            Ok(())
        }
    };
    read(text, check)
}

/// Read an address to listen on. The IP may be a wildcard, the port may be zero.
///
/// # Errors
/// Names the text and what is wrong with it.
pub fn listen_address(text: &str) -> Result<Multiaddr, AddressError> {
    let check = |addr: &Multiaddr| match split(addr)? {
        (_, Some(_)) => Err(AddressProblem::PeerToListenOn),
        (addr, None) if addr.ip.is_multicast() => Err(AddressProblem::NoHost),
        _ => Ok(()),
    };
    read(text, check)
}

/// The transport address in a multiaddr, and the peer that it names at its end, if it does.
///
/// # Errors
/// What is wrong with it.
pub fn split(addr: &Multiaddr) -> Result<(Addr, Option<PeerId>), AddressProblem> {
    if addr.iter().any(|part| matches!(part, Protocol::P2pCircuit)) {
        return Err(AddressProblem::Relayed);
    }
    let mut parts = addr.iter();
    let ip = match parts.next() {
        Some(Protocol::Ip4(ip)) => IpAddr::V4(ip),
        Some(Protocol::Ip6(ip)) => IpAddr::V6(ip),
        _ => return Err(AddressProblem::NoIp),
    };
    let addr = match parts.next() {
        Some(Protocol::Tcp(port)) => Addr::tcp(ip, port),
        Some(Protocol::Udp(port)) if matches!(parts.next(), Some(Protocol::QuicV1)) => {
            Addr::quic(ip, port)
        }
        _ => return Err(AddressProblem::NoTransport),
    };
    match (parts.next(), parts.next()) {
        (None, _) => Ok((addr, None)),
        (Some(Protocol::P2p(peer)), None) => Ok((addr, Some(peer))),
        (Some(Protocol::P2p(_)), Some(other)) | (Some(other), _) => {
            Err(AddressProblem::Trailing(other.tag().to_owned()))
        }
    }
}

/// The multiaddr of a transport address, with `/p2p/PEER-ID` at its end if a peer is given.
pub fn multiaddr(addr: Addr, peer: Option<PeerId>) -> Multiaddr {
    let mut parts = Multiaddr::from(addr.ip);
    match addr.transport {
        Transport::Tcp => parts.push(Protocol::Tcp(addr.port)),
        Transport::Quic => {
            parts.push(Protocol::Udp(addr.port));
            parts.push(Protocol::QuicV1);
        }
    }
    if let Some(peer) = peer {
        parts.push(Protocol::P2p(peer));
    }
    parts
}

fn read(
    text: &str,
    check: impl FnOnce(&Multiaddr) -> Result<(), AddressProblem>,
) -> Result<Multiaddr, AddressError> {
    let fault = |problem| AddressError { text: text.to_owned(), problem };
    let addr: Multiaddr =
        text.parse().map_err(|error: multiaddr::Error| malformed(text, &error)).map_err(fault)?;
    check(&addr).map_err(fault)?;
    Ok(addr)
}

/// The parser's own words, and what people most often get wrong.
fn malformed(text: &str, error: &multiaddr::Error) -> AddressProblem {
    let hint = if text.starts_with('/') { "" } else { " (it begins with a slash: /ip4/…)" };
    AddressProblem::Malformed(format!("{error}{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";

    #[track_caller]
    fn refused(text: &str, problem: &str) {
        let error = peer_address(text).expect_err("it is of no use").to_string();
        assert!(error.contains(text) && error.contains(problem), "{error}");
    }

    #[test]
    fn a_peer_has_an_ip_a_port_and_perhaps_a_name() {
        for text in ["/ip4/192.0.2.1/tcp/4001", "/ip6/2001:db8::1/udp/4001/quic-v1"] {
            for full in [text.to_owned(), format!("{text}/p2p/{PEER}")] {
                let addr = peer_address(&full).expect("a good address");
                let (transport, peer) = split(&addr).expect("a good address");
                assert_eq!(multiaddr(transport, peer).to_string(), full);
                assert_eq!(peer.is_some(), full.contains("/p2p/"));
            }
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        refused("192.0.2.1:4001", "begins with a slash");
        refused("/ip4/192.0.2.300/tcp/1", "not a multiaddr");
        refused("/ip4/192.0.2.1/tcp/1/p2p/nobody", "not a multiaddr");
        refused("/dns4/example.org/tcp/1", "names are not resolved");
        refused("/ip4/192.0.2.1", "/tcp/PORT");
        refused("/ip4/192.0.2.1/udp/1", "/udp/PORT/quic-v1");
        refused("/ip4/192.0.2.1/tcp/1/ws", "/ws after the port");
        refused(&format!("/ip4/192.0.2.1/tcp/1/p2p/{PEER}/p2p-circuit"), "relay");
        refused(&format!("/ip4/192.0.2.1/tcp/1/p2p/{PEER}/ws"), "/ws");
        refused("/ip4/192.0.2.1/tcp/0", "port 0");
        refused("/ip4/0.0.0.0/tcp/1", "not one of a host");
    }

    #[test]
    fn wildcards_and_port_zero_can_be_listened_on_but_peers_cannot() {
        listen_address("/ip4/0.0.0.0/tcp/0").expect("a good address");
        listen_address("/ip6/::/udp/0/quic-v1").expect("a good address");
        let text = format!("/ip4/127.0.0.1/tcp/1/p2p/{PEER}");
        let error = listen_address(&text).expect_err("it names a peer");
        assert_eq!(error, AddressError { text, problem: AddressProblem::PeerToListenOn });
    }
}
