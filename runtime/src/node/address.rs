//! The door for multiaddrs: what of them this node can listen on and dial.

use crate::names;
use multiaddr::{Multiaddr, Protocol};
use portolan_core::wire::multiaddr::to_multiaddr;
use portolan_core::{Addr, DistantServer, PeerId, RelayPeer};
use std::net::IpAddr;

/// What is wrong with a multiaddr that was to be listened on or dialled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// It does not begin with an IP address.
    #[error("does not begin with /ip4 or /ip6")]
    NoIp,
    /// It begins with a name, where only an IP address will do.
    #[error("begins with a name; only /ip4 or /ip6 will do here")]
    Named,
    /// It begins with a name that cannot be looked up.
    #[error("begins with a name that cannot be looked up")]
    BadName,
    /// It goes through a relay.
    #[error("goes through a relay; a direct address is needed")]
    Relayed,
    /// It does not go through a relay.
    #[error("must go on with /p2p/RELAY-ID/p2p-circuit/p2p/PEER-ID")]
    NotRelayed,
    /// It goes through a relay whose peer id it does not name.
    #[error("must name the relay with /p2p/PEER-ID before /p2p-circuit")]
    NoRelay,
    /// It goes through a relay, and does not say to whom.
    #[error("must end with /p2p/PEER-ID after /p2p-circuit")]
    NoTarget,
    /// It names neither TCP nor QUIC.
    #[error("must go on with /tcp/PORT or /udp/PORT/quic-v1 after the IP")]
    NoTransport,
    /// Something follows that no transport here speaks.
    #[error("goes on with /{0} after the port; only /p2p/PEER-ID may follow there")]
    Trailing(String),
    /// A listen address that names a peer.
    #[error("names a peer; a listen address ends with its port")]
    PeerToListenOn,
    /// Nobody can be dialled at port zero.
    #[error("has port 0; nobody can be dialled there")]
    PortZero,
    /// The IP belongs to no host.
    #[error("has an IP that is not one of a host")]
    NoHost,
}

/// The address to dial in a multiaddr, and the peer that it names at its end: only that one will
/// do, if there is one.
///
/// # Errors
/// What is wrong with it.
pub fn destination(addr: &Multiaddr) -> Result<(Addr, Option<PeerId>), AddressError> {
    let (addr, peer) = parse(addr)?;
    if addr.port == 0 {
        Err(AddressError::PortZero)
    } else if addr.ip.is_unspecified() || addr.ip.is_multicast() {
        Err(AddressError::NoHost)
    } else {
        Ok((addr, peer))
    }
}

/// Where a multiaddr leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// To an address, and only to this peer there, if one is given.
    Direct(Addr, Option<PeerId>),
    /// Through a relay.
    Circuit(CircuitRoute),
}

/// Where a multiaddr leads that goes through a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CircuitRoute {
    /// The relay.
    pub(crate) relay: PeerId,
    /// Its address. Without one it has to be connected.
    pub(crate) addr: Option<Addr>,
    /// Who is to be reached.
    pub(crate) peer: PeerId,
}

/// Whether a multiaddr is one that [`Node::dial`](crate::Node::dial) can try, directly or through a
/// relay, once its name is resolved if it begins with one.
///
/// # Errors
/// What is wrong with it.
pub fn dial_address(addr: &Multiaddr) -> Result<(), AddressError> {
    names::check(addr)
}

/// Where a multiaddr leads that is to be dialled.
pub(crate) fn route(addr: &Multiaddr) -> Result<Route, AddressError> {
    let is_circuit = |part: &Protocol<'_>| matches!(part, Protocol::P2pCircuit);
    let Some(at) = addr.iter().position(|part| is_circuit(&part)) else {
        return destination(addr).map(|(addr, peer)| Route::Direct(addr, peer));
    };
    let mut target = addr.iter().skip(at + 1);
    let peer = match (target.next(), target.next()) {
        (Some(Protocol::P2p(peer)), None) => peer,
        (Some(Protocol::P2p(_)), Some(other)) => {
            return Err(AddressError::Trailing(other.tag().to_owned()));
        }
        (_, _) => return Err(AddressError::NoTarget),
    };
    let before: Multiaddr = addr.iter().take(at).collect();
    let mut relay = before.iter();
    let (addr, relay) = match (relay.next(), relay.next()) {
        (Some(Protocol::P2p(relay)), None) => (None, relay),
        (None, _) => return Err(AddressError::NoRelay),
        (Some(_), _) => match destination(&before)? {
            (addr, Some(relay)) => (Some(addr), relay),
            (_, None) => return Err(AddressError::NoRelay),
        },
    };
    Ok(Route::Circuit(CircuitRoute { relay, addr, peer }))
}

/// The server behind a relay to which a multiaddr leads.
///
/// # Errors
/// What is wrong with it; it may not leave out the relay's address.
pub fn distant_server(addr: &Multiaddr) -> Result<DistantServer, AddressError> {
    match route(addr)? {
        Route::Direct(..) => Err(AddressError::NotRelayed),
        Route::Circuit(CircuitRoute { addr: None, .. }) => Err(AddressError::NoIp),
        Route::Circuit(CircuitRoute { relay, addr: Some(addr), peer }) => {
            let relay = RelayPeer { peer: relay, addrs: vec![addr] };
            Ok(DistantServer { peer, relay })
        }
    }
}

/// The multiaddr at which `peer` is reached through a relay at `addr`.
pub fn circuit_address(addr: Addr, relay: PeerId, peer: PeerId) -> Multiaddr {
    to_multiaddr(addr, Some(relay)).with(Protocol::P2pCircuit).with(Protocol::P2p(peer))
}

/// The address to listen on in a multiaddr. The IP may be a wildcard, the port may be zero.
///
/// # Errors
/// What is wrong with it.
pub fn listen_address(addr: &Multiaddr) -> Result<Addr, AddressError> {
    match parse(addr)? {
        (_, Some(_)) => Err(AddressError::PeerToListenOn),
        (addr, None) if addr.ip.is_multicast() => Err(AddressError::NoHost),
        (addr, None) => Ok(addr),
    }
}

fn parse(addr: &Multiaddr) -> Result<(Addr, Option<PeerId>), AddressError> {
    if addr.iter().any(|part| matches!(part, Protocol::P2pCircuit)) {
        return Err(AddressError::Relayed);
    }
    let mut parts = addr.iter();
    let ip = match parts.next() {
        Some(Protocol::Ip4(ip)) => IpAddr::V4(ip),
        Some(Protocol::Ip6(ip)) => IpAddr::V6(ip),
        _ if names::is_named(addr) => return Err(AddressError::Named),
        _ => return Err(AddressError::NoIp),
    };
    let addr = match parts.next() {
        Some(Protocol::Tcp(port)) => Addr::tcp(ip, port),
        Some(Protocol::Udp(port)) if matches!(parts.next(), Some(Protocol::QuicV1)) => {
            Addr::quic(ip, port)
        }
        _ => return Err(AddressError::NoTransport),
    };
    match (parts.next(), parts.next()) {
        (None, _) => Ok((addr, None)),
        (Some(Protocol::P2p(peer)), None) => Ok((addr, Some(peer))),
        (Some(Protocol::P2p(_)), Some(other)) | (Some(other), _) => {
            Err(AddressError::Trailing(other.tag().to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";

    fn read(text: &str) -> Result<(Addr, Option<PeerId>), AddressError> {
        destination(&text.parse().expect("a multiaddr"))
    }

    #[test]
    fn what_can_be_dialled_has_an_ip_a_port_and_perhaps_a_name() {
        for text in ["/ip4/192.0.2.1/tcp/4001", "/ip6/2001:db8::1/udp/4001/quic-v1"] {
            let (addr, none) = read(text).expect("an address");
            assert_eq!((addr.to_string().as_str(), none), (text, None));
            let (same, some) = read(&format!("{text}/p2p/{PEER}")).expect("an address");
            assert_eq!((same, some.map(|peer| peer.to_string())), (addr, Some(PEER.to_owned())));
        }
    }

    #[test]
    fn what_cannot_be_dialled_is_named() {
        let trailing = |tag: &str| AddressError::Trailing(tag.to_owned());
        for (text, error) in [
            ("/dns4/example.org/tcp/1", AddressError::Named),
            ("/memory/1", AddressError::NoIp),
            ("/ip4/192.0.2.1", AddressError::NoTransport),
            ("/ip4/192.0.2.1/udp/1", AddressError::NoTransport),
            ("/ip4/192.0.2.1/udp/1/quic", AddressError::NoTransport),
            ("/ip4/192.0.2.1/tcp/1/ws", trailing("ws")),
            (&format!("/ip4/192.0.2.1/tcp/1/p2p/{PEER}/ws"), trailing("ws")),
            ("/ip4/192.0.2.1/tcp/1/p2p-circuit", AddressError::Relayed),
            ("/ip4/192.0.2.1/tcp/0", AddressError::PortZero),
            ("/ip4/0.0.0.0/tcp/1", AddressError::NoHost),
        ] {
            assert_eq!(read(text), Err(error), "{text}");
        }
    }

    #[test]
    fn a_way_through_a_relay_names_the_relay_and_who_is_behind_it() {
        const TARGET: &str = "12D3KooWGjMvSZ5rGzPxRpyZNsg6qrfeQfN8QrVEJ9CWLHVbqgFK";
        let read = |text: &str| route(&text.parse().expect("a multiaddr"));
        let (relay, peer) = (PEER.parse().expect("an id"), TARGET.parse().expect("an id"));
        for at in ["", "/ip4/192.0.2.1/tcp/4001", "/ip6/2001:db8::1/udp/4001/quic-v1"] {
            let text = format!("{at}/p2p/{PEER}/p2p-circuit/p2p/{TARGET}");
            let addr = Some(at).filter(|at| !at.is_empty());
            let addr = addr.map(|at| destination(&at.parse().expect("one")).expect("one").0);
            assert_eq!(read(&text), Ok(Route::Circuit(CircuitRoute { relay, addr, peer })));
            if let Some(addr) = addr {
                assert_eq!(circuit_address(addr, relay, peer).to_string(), text);
            }
        }
        let trailing = |tag: &str| AddressError::Trailing(tag.to_owned());
        for (text, error) in [
            (format!("/p2p-circuit/p2p/{TARGET}"), AddressError::NoRelay),
            (format!("/ip4/192.0.2.1/tcp/1/p2p-circuit/p2p/{TARGET}"), AddressError::NoRelay),
            (format!("/p2p/{PEER}/p2p-circuit"), AddressError::NoTarget),
            (format!("/p2p/{PEER}/p2p-circuit/ip4/192.0.2.1/tcp/1"), AddressError::NoTarget),
            (format!("/p2p/{PEER}/p2p-circuit/p2p/{TARGET}/ws"), trailing("ws")),
            (format!("/p2p/{PEER}/ws/p2p-circuit/p2p/{TARGET}"), AddressError::NoIp),
            (
                format!("/p2p/{PEER}/p2p-circuit/p2p/{TARGET}/p2p-circuit/p2p/{PEER}"),
                trailing("p2p-circuit"),
            ),
            (
                format!("/ip4/192.0.2.1/tcp/0/p2p/{PEER}/p2p-circuit/p2p/{TARGET}"),
                AddressError::PortZero,
            ),
        ] {
            assert_eq!(read(&text), Err(error), "{text}");
        }
    }

    #[test]
    fn wildcards_and_port_zero_can_be_listened_on_but_peers_cannot() {
        let read = |text: &str| listen_address(&text.parse().expect("a multiaddr"));
        read("/ip4/0.0.0.0/tcp/0").expect("a good address");
        read("/ip6/::/udp/0/quic-v1").expect("a good address");
        let error = read(&format!("/ip4/127.0.0.1/tcp/1/p2p/{PEER}"));
        assert_eq!(error, Err(AddressError::PeerToListenOn));
        assert_eq!(read("/ip4/224.0.0.1/tcp/1"), Err(AddressError::NoHost));
    }
}
