//! Addresses in binary form: what a multiaddr means to us, without keeping it.
//!
//! Rooms hold [`Addr`]; a [`Multiaddr`] exists only at the door. Decoding allocates nothing.

use crate::{Addr, CircuitAddr, PeerId, Transport};
use ::multiaddr::{Error, Protocol};
use bytes::{BufMut, Bytes, BytesMut};
use core::net::IpAddr;

pub use ::multiaddr::Multiaddr;

/// Bytes of the longest address that [`encode`] makes, number: code and IPv6 address (17), code
/// and UDP port (4), code of QUIC (2).
const ENCODED_MAX: usize = 23;

/// What a multiaddr means to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decoded {
    /// An IP address, a port that is not zero, and TCP or QUIC v1 on it.
    Direct {
        /// The transport address.
        addr: Addr,
        /// The peer that it says is there, if it does.
        peer: Option<PeerId>,
    },
    /// An address through a relay: `/p2p-circuit` somewhere in it.
    Relayed,
    /// Well-formed, but nothing that we dial or that a NAT maps: a name, another transport, QUIC
    /// before version 1, port zero, or nothing at all.
    Other,
}

/// Bytes that are not a multiaddr, or one that cannot be read for lack of knowledge. Says nothing
/// about other addresses beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddrError {
    /// A protocol whose code is not known, so that its end cannot be found.
    #[error("the multiaddr protocol with code {0} is not known")]
    UnknownProtocol(u32),
    /// The bytes end inside a component.
    #[error("the multiaddr is cut short")]
    Truncated,
    /// A component whose value is none.
    #[error("a component of the multiaddr is malformed")]
    Malformed,
}

/// The binary multiaddr of an address: `/ip4/…/tcp/…` or `/ip6/…/udp/…/quic-v1`.
pub fn encode(addr: Addr) -> Bytes {
    // The multicodec table: ip4 = 4, ip6 = 41, tcp = 6, udp = 273, quic-v1 = 461, as varints.
    let mut out = BytesMut::with_capacity(ENCODED_MAX);
    match addr.ip.to_canonical() {
        IpAddr::V4(ip) => {
            out.put_u8(0x04);
            out.put_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.put_u8(0x29);
            out.put_slice(&ip.octets());
        }
    }
    match addr.transport {
        Transport::Tcp => {
            out.put_u8(0x06);
            out.put_u16(addr.port);
        }
        Transport::Quic => {
            out.put_slice(&[0x91, 0x02]);
            out.put_u16(addr.port);
            out.put_slice(&[0xcd, 0x03]);
        }
    }
    out.freeze()
}

/// The binary multiaddr of a circuit: `<address>/p2p/<relay>/p2p-circuit`.
pub fn encode_circuit(circuit: CircuitAddr) -> Bytes {
    // The multicodec table: p2p = 421, p2p-circuit = 290, as varints. A peer id takes 38 bytes
    // or so; its length is a varint before it.
    let peer = circuit.relay.to_bytes();
    let mut length = unsigned_varint::encode::usize_buffer();
    let length = unsigned_varint::encode::usize(peer.len(), &mut length);
    let mut out = BytesMut::with_capacity(ENCODED_MAX + 2 + length.len() + peer.len() + 2);
    out.put(encode(circuit.addr));
    out.put_slice(&[0xa5, 0x03]);
    out.put_slice(length);
    out.put_slice(&peer);
    out.put_slice(&[0xa2, 0x02]);
    out.freeze()
}

/// What a binary multiaddr means. All of it is read, so a malformed tail spoils it.
pub fn decode(mut bytes: &[u8]) -> Result<Decoded, AddrError> {
    let mut reading = Reading::Start;
    while !bytes.is_empty() {
        let (component, rest) = Protocol::from_bytes(bytes).map_err(addr_error)?;
        reading = reading.then(&component);
        bytes = rest;
    }
    Ok(reading.end())
}

/// The transport addresses among binary multiaddrs, in their order; what else there is is left out.
pub(crate) fn direct<'a>(all: &'a [Bytes]) -> impl Iterator<Item = Addr> + 'a {
    all.iter().filter_map(|bytes| match decode(bytes) {
        Ok(Decoded::Direct { addr, .. }) => Some(addr),
        Ok(Decoded::Relayed | Decoded::Other) | Err(_) => None,
    })
}

/// What a multiaddr means: the same as [`decode`] of its bytes.
pub fn from_multiaddr(multiaddr: &Multiaddr) -> Decoded {
    multiaddr.iter().fold(Reading::Start, |reading, component| reading.then(&component)).end()
}

/// The multiaddr of an address, with `/p2p/…` at its end if a peer is given.
pub fn to_multiaddr(addr: Addr, peer: Option<PeerId>) -> Multiaddr {
    let multiaddr = Multiaddr::from(addr.ip.to_canonical());
    let multiaddr = match addr.transport {
        Transport::Tcp => multiaddr.with(Protocol::Tcp(addr.port)),
        Transport::Quic => multiaddr.with(Protocol::Udp(addr.port)).with(Protocol::QuicV1),
    };
    match peer {
        Some(peer) => multiaddr.with(Protocol::P2p(peer)),
        None => multiaddr,
    }
}

/// How far the components of an address have been understood.
#[derive(Clone, Copy)]
enum Reading {
    Start,
    Ip(IpAddr),
    Udp(IpAddr, u16),
    Whole(Addr, Option<PeerId>),
    Other,
    Relayed,
}

impl Reading {
    fn then(self, component: &Protocol<'_>) -> Reading {
        match (self, component) {
            (Reading::Relayed, _) | (_, Protocol::P2pCircuit) => Reading::Relayed,
            (Reading::Start, Protocol::Ip4(ip)) => Reading::Ip(IpAddr::V4(*ip)),
            (Reading::Start, Protocol::Ip6(ip)) => Reading::Ip(IpAddr::V6(*ip)),
            (Reading::Ip(ip), Protocol::Tcp(port)) => Reading::Whole(Addr::tcp(ip, *port), None),
            (Reading::Ip(ip), Protocol::Udp(port)) => Reading::Udp(ip, *port),
            (Reading::Udp(ip, port), Protocol::QuicV1) => {
                Reading::Whole(Addr::quic(ip, port), None)
            }
            (Reading::Whole(addr, None), Protocol::P2p(peer)) => Reading::Whole(addr, Some(*peer)),
            _ => Reading::Other,
        }
    }

    fn end(self) -> Decoded {
        match self {
            Reading::Whole(addr, peer) if addr.port != 0 => Decoded::Direct { addr, peer },
            Reading::Relayed => Decoded::Relayed,
            Reading::Start
            | Reading::Ip(_)
            | Reading::Udp(..)
            | Reading::Whole(..)
            | Reading::Other => Decoded::Other,
        }
    }
}

#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "the enum may grow, and all the rest means one thing"
)]
fn addr_error(error: Error) -> AddrError {
    match error {
        Error::UnknownProtocolId(code) => AddrError::UnknownProtocol(code),
        Error::DataLessThanLen => AddrError::Truncated,
        Error::InvalidUvar(::unsigned_varint::decode::Error::Insufficient) => AddrError::Truncated,
        _ => AddrError::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    const PEER: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

    fn meaning(text: &str) -> Decoded {
        let multiaddr: Multiaddr = text.parse().expect("a multiaddr");
        let decoded = decode(multiaddr.as_ref()).expect("its bytes are well-formed");
        assert_eq!(from_multiaddr(&multiaddr), decoded, "{text}");
        decoded
    }

    fn addr(ip: &str, port: u16, transport: Transport) -> Addr {
        Addr::new(ip.parse().expect("an address"), port, transport)
    }

    #[test]
    fn bytes_follow_the_multicodec_table() {
        let tcp = addr("192.0.2.1", 4001, Transport::Tcp);
        assert_eq!(encode(tcp), [4, 192, 0, 2, 1, 6, 0x0f, 0xa1][..]);
        let quic = addr("2001:db8::1", 443, Transport::Quic);
        let bytes = encode(quic);
        assert_eq!(bytes[..5], [0x29, 0x20, 0x01, 0x0d, 0xb8]);
        assert_eq!(bytes[16..], [1, 0x91, 0x02, 0x01, 0xbb, 0xcd, 0x03]);
        assert_eq!(bytes.len(), ENCODED_MAX);
        for addr in [tcp, quic] {
            assert_eq!(decode(&encode(addr)), Ok(Decoded::Direct { addr, peer: None }));
            assert_eq!(to_multiaddr(addr, None).as_ref(), &encode(addr)[..]);
            assert_eq!(to_multiaddr(addr, None).to_string(), addr.to_string());
        }
    }

    #[test]
    fn a_circuit_is_an_address_of_its_relay() {
        let relay: PeerId = PEER.parse().expect("a peer id");
        for (addr, text) in [
            (addr("192.0.2.1", 4001, Transport::Tcp), "/ip4/192.0.2.1/tcp/4001"),
            (addr("2001:db8::1", 443, Transport::Quic), "/ip6/2001:db8::1/udp/443/quic-v1"),
        ] {
            let text = alloc::format!("{text}/p2p/{PEER}/p2p-circuit");
            let multiaddr: Multiaddr = text.parse().expect("a multiaddr");
            assert_eq!(multiaddr.as_ref(), &encode_circuit(CircuitAddr { relay, addr })[..]);
        }
    }

    #[test]
    fn a_peer_may_follow() {
        let peer: PeerId = PEER.parse().expect("a peer id");
        let tcp = addr("192.0.2.1", 4001, Transport::Tcp);
        let text = alloc::format!("/ip4/192.0.2.1/tcp/4001/p2p/{PEER}");
        assert_eq!(meaning(&text), Decoded::Direct { addr: tcp, peer: Some(peer) });
        assert_eq!(to_multiaddr(tcp, Some(peer)).to_string(), text);
    }

    #[test]
    fn a_mapped_ipv4_address_is_what_it_is() {
        let tcp = addr("192.0.2.1", 80, Transport::Tcp);
        let mapped = meaning("/ip6/::ffff:192.0.2.1/tcp/80");
        assert_eq!(mapped, Decoded::Direct { addr: tcp, peer: None });
    }

    #[test]
    fn relays_are_told_apart_wherever_they_stand() {
        for text in [
            alloc::format!("/ip4/192.0.2.1/tcp/80/p2p/{PEER}/p2p-circuit"),
            alloc::format!("/ip4/192.0.2.1/udp/80/quic-v1/p2p/{PEER}/p2p-circuit/p2p/{PEER}"),
            alloc::format!("/dns4/relay.example/tcp/80/p2p/{PEER}/p2p-circuit"),
            "/p2p-circuit".to_string(),
        ] {
            assert_eq!(meaning(&text), Decoded::Relayed, "{text}");
        }
    }

    #[test]
    fn the_rest_is_other() {
        for text in [
            "/dns4/example.org/tcp/80",
            "/dnsaddr/example.org",
            "/ip4/192.0.2.1",
            "/ip4/192.0.2.1/tcp/0",
            "/ip4/192.0.2.1/udp/0/quic-v1",
            "/ip4/192.0.2.1/udp/80",
            "/ip4/192.0.2.1/udp/80/quic",
            "/ip4/192.0.2.1/udp/80/quic-v1/webtransport",
            "/ip4/192.0.2.1/tcp/80/ws",
            "/ip4/192.0.2.1/tcp/80/tls/ws",
            "/ip4/192.0.2.1/ip4/192.0.2.1/tcp/80",
            "/ip6zone/eth0/ip6/fe80::1/tcp/80",
            "/memory/7",
            "/unix/socket",
        ] {
            assert_eq!(meaning(text), Decoded::Other, "{text}");
        }
        assert_eq!(decode(&[]), Ok(Decoded::Other));
        let twice = alloc::format!("/ip4/192.0.2.1/tcp/80/p2p/{PEER}/p2p/{PEER}");
        assert_eq!(meaning(&twice), Decoded::Other);
    }

    #[test]
    fn errors_say_what_is_wrong() {
        // The code 0x1f is none; after the address its extent is unknown.
        assert_eq!(decode(&[4, 1, 2, 3, 4, 0x1f]), Err(AddrError::UnknownProtocol(0x1f)));
        assert_eq!(decode(&[4, 1, 2, 3]), Err(AddrError::Truncated));
        assert_eq!(decode(&[0x91]), Err(AddrError::Truncated));
        assert_eq!(decode(&[4, 1, 2, 3, 4, 6, 0]), Err(AddrError::Truncated));
        // A code in more bytes than it needs; a name that is not UTF-8; a peer id that is none.
        assert_eq!(decode(&[0x84, 0x00, 1, 2, 3, 4]), Err(AddrError::Malformed));
        assert_eq!(decode(&[54, 1, 0xff]), Err(AddrError::Malformed));
        assert_eq!(decode(&[0xa5, 0x03, 1, 0]), Err(AddrError::Malformed));
    }
}
