//! Names in multiaddrs: `/dns`, `/dns4`, `/dns6` and `/dnsaddr`.

use super::NameError;
use crate::node::{AddressError, address};
use hickory_proto::rr::Name;
use multiaddr::{Multiaddr, Protocol};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Addresses of both families: `/dns`.
    Any,
    /// IPv4 addresses: `/dns4`.
    V4,
    /// IPv6 addresses: `/dns6`.
    V6,
    /// Whole multiaddrs: `/dnsaddr`.
    Addr,
}

/// A multiaddr that begins with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) kind: Kind,
    pub(super) name: Name,
    /// What follows the name, up to a circuit.
    pub(super) rest: Multiaddr,
    /// From `/p2p-circuit` on.
    pub(super) circuit: Multiaddr,
}

/// Whether a multiaddr begins with a name.
pub(crate) fn is_named(addr: &Multiaddr) -> bool {
    matches!(
        addr.iter().next(),
        Some(Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) | Protocol::Dnsaddr(_))
    )
}

impl Named {
    /// Take a multiaddr apart; `None` if it does not begin with a name.
    #[allow(clippy::wildcard_enum_match_arm, reason = "of forty protocols, these four are names")]
    pub(super) fn read(addr: &Multiaddr) -> Option<Result<Named, NameError>> {
        let mut parts = addr.iter();
        let (kind, name) = match parts.next()? {
            Protocol::Dns(name) => (Kind::Any, name),
            Protocol::Dns4(name) => (Kind::V4, name),
            Protocol::Dns6(name) => (Kind::V6, name),
            Protocol::Dnsaddr(name) => (Kind::Addr, name),
            _ => return None,
        };
        let rest: Multiaddr = parts.collect();
        let is_circuit = |part: &Protocol<'_>| matches!(part, Protocol::P2pCircuit);
        let at = rest.iter().position(|part| is_circuit(&part)).unwrap_or(usize::MAX);
        let circuit = rest.iter().skip(at).collect();
        let rest = rest.iter().take(at).collect();
        Some(self::name(&name).map(|name| Named { kind, name, rest, circuit }))
    }

    /// The multiaddr with an IP in place of the name.
    pub(super) fn at(&self, ip: IpAddr) -> Multiaddr {
        let rest = self.rest.iter().chain(self.circuit.iter());
        rest.fold(Multiaddr::from(ip), |addr, part| addr.with(part))
    }

    /// An address of the kind that the name may lead to.
    fn sample(&self) -> Multiaddr {
        let sample = |ip: IpAddr| self.at(ip);
        match self.kind {
            // RFC 5737 and RFC 3849: they are nobody's.
            Kind::Any | Kind::V4 => sample(Ipv4Addr::new(192, 0, 2, 1).into()),
            Kind::V6 => sample(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()),
            Kind::Addr => {
                let ip = Multiaddr::from(Ipv4Addr::new(192, 0, 2, 1)).with(Protocol::Tcp(1));
                let rest = self.rest.iter().chain(self.circuit.iter());
                rest.fold(ip, |addr, part| addr.with(part))
            }
        }
    }
}

/// A name as DNS knows it, from the root.
pub(super) fn name(text: &str) -> Result<Name, NameError> {
    let bad = || NameError::BadName { name: text.escape_debug().to_string() };
    let mut name = Name::from_utf8(text).map_err(|_| bad())?;
    if name.is_root() || name.iter().any(<[u8]>::is_empty) {
        return Err(bad());
    }
    name.set_fqdn(true);
    Ok(name)
}

/// Whether a multiaddr can be dialled once its name, if it has one, is resolved.
pub(crate) fn check(addr: &Multiaddr) -> Result<(), AddressError> {
    match Named::read(addr) {
        None => address::route(addr).map(|_| ()),
        Some(Err(_)) => Err(AddressError::BadName),
        Some(Ok(named)) => address::route(&named.sample()).map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";

    fn read(text: &str) -> Result<(), AddressError> {
        check(&text.parse().expect("a multiaddr"))
    }

    #[test]
    fn what_follows_a_name_is_judged_before_it_is_resolved() {
        for text in [
            "/dns/example.org/tcp/4001",
            "/dns4/example.org/udp/4001/quic-v1",
            "/dns6/example.org/tcp/4001",
            "/dnsaddr/example.org",
        ] {
            read(text).expect("it can be dialled");
            read(&format!("{text}/p2p/{PEER}")).expect("it can be dialled");
            let circuit = format!("{text}/p2p/{PEER}/p2p-circuit/p2p/{PEER}");
            read(&circuit).expect("it can be dialled");
        }
        for (text, error) in [
            ("/dns4/example.org", AddressError::NoTransport),
            ("/dns4/example.org/tcp/0", AddressError::PortZero),
            ("/dns4/example.org/tcp/1/ws", AddressError::Trailing("ws".into())),
            ("/dnsaddr/example.org/tcp/1", AddressError::Trailing("tcp".into())),
            ("/dns4/a..b/tcp/1", AddressError::BadName),
            ("/dns4/./tcp/1", AddressError::BadName),
        ] {
            assert_eq!(read(text), Err(error), "{text}");
        }
        let circuit = format!("/dnsaddr/example.org/p2p-circuit/p2p/{PEER}");
        assert_eq!(read(&circuit), Err(AddressError::NoRelay));
    }

    #[test]
    fn names_are_taken_from_the_root_and_in_any_script() {
        let read = |text: &str| name(text).map(|name| name.to_ascii());
        assert_eq!(read("Example.org"), Ok("example.org.".to_owned()));
        assert_eq!(read("example.org."), Ok("example.org.".to_owned()));
        assert_eq!(read("bücher.example"), Ok("xn--bcher-kva.example.".to_owned()));
        let odd = read("a\u{1b}[31m b").expect_err("no name");
        assert!(!odd.to_string().contains('\u{1b}'), "{odd}");
        read(&"a".repeat(64)).expect_err("a label is too long");
        read(&"a.".repeat(140)).expect_err("a name is too long");
    }
}
