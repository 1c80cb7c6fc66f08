//! Target: binary multiaddrs.

use crate::trail::{Trail, variant};
use ::multiaddr::Protocol;
use portolan_core::wire::multiaddr::{self, Decoded, Multiaddr};
use portolan_core::{Addr, PeerId, ip_scope};
use std::net::IpAddr;

/// `/p2p-circuit`.
const CIRCUIT: [u8; 2] = [0xa2, 0x02];

/// What a multiaddr means is the same by every way, and what it means can be written.
pub(crate) fn run(bytes: &[u8], trail: &mut Trail) {
    let decoded = multiaddr::decode(bytes);
    match Multiaddr::try_from(bytes.to_vec()) {
        Ok(multiaddr) => {
            assert_eq!(decoded, Ok(multiaddr::from_multiaddr(&multiaddr)), "{multiaddr}");
            assert_eq!(decoded, Ok(second_opinion(&multiaddr)), "{multiaddr}");
        }
        Err(_) => assert!(decoded.is_err(), "no multiaddr, but {decoded:?}"),
    }
    match decoded {
        Ok(decoded) => {
            trail.saw(format_args!("{}", variant(&decoded)));
            if let Decoded::Direct { addr, peer } = decoded {
                trail.saw(format_args!(
                    "direct {} {:?} {}",
                    addr.class(),
                    ip_scope(addr.ip),
                    peer.is_some()
                ));
                direct(addr, peer);
            }
            let relayed = [bytes, &CIRCUIT].concat();
            assert_eq!(multiaddr::decode(&relayed), Ok(Decoded::Relayed));
        }
        Err(error) => trail.saw(format_args!("{}", variant(&error))),
    }
}

/// The meaning by the shape of the whole address.
fn second_opinion(multiaddr: &Multiaddr) -> Decoded {
    let parts: Vec<Protocol<'_>> = multiaddr.iter().collect();
    if parts.contains(&Protocol::P2pCircuit) {
        return Decoded::Relayed;
    }
    let (parts, peer) = match parts.as_slice() {
        [parts @ .., Protocol::P2p(peer)] => (parts, Some(*peer)),
        parts => (parts, None),
    };
    let (ip, rest) = match parts {
        [Protocol::Ip4(ip), rest @ ..] => (IpAddr::V4(*ip), rest),
        [Protocol::Ip6(ip), rest @ ..] => (IpAddr::V6(*ip), rest),
        _ => return Decoded::Other,
    };
    match rest {
        [Protocol::Tcp(port @ 1..)] => Decoded::Direct { addr: Addr::tcp(ip, *port), peer },
        [Protocol::Udp(port @ 1..), Protocol::QuicV1] => {
            Decoded::Direct { addr: Addr::quic(ip, *port), peer }
        }
        _ => Decoded::Other,
    }
}

fn direct(addr: Addr, peer: Option<PeerId>) {
    assert_ne!(addr.port, 0, "an address that can be dialled has a port");
    assert_eq!(addr.ip, addr.ip.to_canonical(), "IPv4 is never dressed up as IPv6");
    let written = multiaddr::encode(addr);
    assert_eq!(multiaddr::decode(&written), Ok(Decoded::Direct { addr, peer: None }));
    let whole = multiaddr::to_multiaddr(addr, peer);
    assert_eq!(multiaddr::decode(whole.as_ref()), Ok(Decoded::Direct { addr, peer }));
    let text: Multiaddr = addr.to_string().parse().expect("its text is a multiaddr");
    assert_eq!(text.as_ref(), &written[..], "text and bytes say the same");
}
