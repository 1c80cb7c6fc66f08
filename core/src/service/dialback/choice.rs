//! Which one of the requested addresses is dialled, and from where: pure.

use crate::service::{Caller, View};
use crate::wire::autonat::{DIAL_REQUEST_ADDRS_MAX, v1};
use crate::wire::multiaddr::{self, Decoded};
use crate::{Addr, Family, IpScope, PeerId, Transport, ip_scope};
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::{IpAddr, Ipv4Addr};

/// Addresses that are dialled for one AutoNAT v1 request, number; ours: a port or two for each
/// transport, and half of the dials that may be in flight. When full, the rest of the list is not
/// dialled.
const V1_TARGETS_MAX: usize = 4;

/// The first address that we are able and willing to dial, with its place in the list.
pub(super) fn first_dialable(
    addrs: &[Bytes],
    caller: &Caller,
    allow_private: bool,
    view: &dyn View,
) -> Option<(u32, Addr)> {
    // autonat-v2 §AutoNAT V2 Protocol: the server SHOULD use the first address it is willing to
    // dial. One that does not decode is one that we cannot dial.
    (0..).zip(addrs.iter().take(DIAL_REQUEST_ADDRS_MAX)).find_map(|(index, bytes)| {
        let addr = direct(bytes, caller.peer)?;
        is_dialable(addr, caller, allow_private, view).then_some((index, addr))
    })
}

/// What is dialled for an AutoNAT v1 client: every port and transport of the list, at the IP that
/// the client is observed as.
pub(super) fn observed_only(
    addrs: &[Bytes],
    caller: &Caller,
    allow_private: bool,
    view: &dyn View,
) -> Vec<Addr> {
    let ip = caller.remote.ip.to_canonical();
    let mut targets = Vec::new();
    for bytes in addrs.iter().take(v1::DIAL_ADDRS_MAX) {
        // autonat-v1 §Security Considerations: implementations MUST NOT dial any address that is
        // not based on the IP that the requester is observed as.
        let addr = direct(bytes, caller.peer).map(|addr| Addr { ip, ..addr });
        let addr = addr.filter(|addr| is_dialable(*addr, caller, allow_private, view));
        targets.extend(addr.filter(|addr| !targets.contains(addr)));
        if targets.len() == V1_TARGETS_MAX {
            break;
        }
    }
    targets
}

fn direct(bytes: &[u8], requester: PeerId) -> Option<Addr> {
    match multiaddr::decode(bytes) {
        // An address that names another peer cannot be the requester's.
        Ok(Decoded::Direct { addr, peer }) if peer.is_none_or(|peer| peer == requester) => {
            Some(addr)
        }
        Ok(Decoded::Direct { .. } | Decoded::Relayed | Decoded::Other) | Err(_) => None,
    }
}

fn is_dialable(addr: Addr, caller: &Caller, allow_private: bool, view: &dyn View) -> bool {
    addr.port != 0
        && is_allowed(addr.ip, caller.remote.ip, allow_private)
        && !is_own(addr, view)
        // autonat-v2 §Implementation Suggestions: IPv4-only servers SHOULD refuse IPv6 addresses,
        // and the reverse.
        && view.can_dial(addr)
}

/// autonat-v2 §AutoNAT V2 Protocol: the server SHOULD NOT dial any private address. Ours: unless
/// private is allowed, and then only for a requester who is seen in the same scope, so that
/// nobody scans a network that he is not in.
fn is_allowed(target: IpAddr, requester: IpAddr, allow_private: bool) -> bool {
    match ip_scope(target) {
        IpScope::Global => is_global_inside(target),
        IpScope::Private | IpScope::Loopback => {
            allow_private && ip_scope(requester) == ip_scope(target)
        }
        // Without a zone no link-local IPv6 address can be dialled; IPv4's needs none.
        IpScope::LinkLocal => {
            allow_private && target.is_ipv4() && ip_scope(requester) == IpScope::LinkLocal
        }
        IpScope::Unusable => false,
    }
}

/// An IPv6 address that a translator or a tunnel turns into an IPv4 one must not smuggle a
/// private one in: NAT64 (RFC 6052 §3.1), 6to4 (RFC 3056 §2).
fn is_global_inside(target: IpAddr) -> bool {
    let IpAddr::V6(ip) = target.to_canonical() else {
        return true;
    };
    let (high, low) = match ip.segments() {
        [0x0064, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => (high, low),
        _ => return true,
    };
    let inner = Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    ip_scope(inner.into()) == IpScope::Global
}

/// A socket of ours, under whatever transport: we would answer ourselves, and a requester could
/// have us dial round in circles. Every loopback address is ours.
fn is_own(addr: Addr, view: &dyn View) -> bool {
    let is_ours = view.is_own_ip(addr.ip) || ip_scope(addr.ip) == IpScope::Loopback;
    let listens = |transport| view.listens_on(Addr::new(addr.ip, addr.port, transport));
    is_ours && (listens(Transport::Tcp) || listens(Transport::Quic))
}

/// Whether the dial has to be paid for with dial data.
pub(super) fn needs_data(target: Addr, caller: &Caller) -> bool {
    // autonat-v2 §Amplification Attack Prevention: another IP than the observed one costs data.
    // Ours: over a circuit the observed IP is the relay's, and nothing vouches for the requester's.
    caller.relayed || target.ip.to_canonical() != caller.remote.ip.to_canonical()
}

/// The IP to dial from: one of `sources` that the requester has not met, as far as we can know.
/// A dial-back from there proves more, because no NAT let it in on account of this connection.
pub(super) fn source(sources: &[IpAddr], target: Addr, caller: &Caller) -> Option<IpAddr> {
    let met = [caller.local.ip.to_canonical(), caller.remote.ip.to_canonical()];
    let fits = |source: &IpAddr| {
        let source = source.to_canonical();
        Family::of(source) == Family::of(target.ip)
            && !met.contains(&source)
            // A source inside this host reaches nothing outside, and a link's nothing elsewhere.
            && [IpScope::Loopback, IpScope::LinkLocal]
                .into_iter()
                .all(|scope| (ip_scope(source) == scope) == (ip_scope(target.ip) == scope))
    };
    sources.iter().copied().find(fits).map(|source| source.to_canonical())
}

/// The IP that a dial leaves from on behalf of who came over a circuit, where no source is chosen: the one
/// that we have on the way to its relay, which the requester need not have met. `None` where it is no IP
/// as the target sees them.
pub(super) fn unmet(target: Addr, caller: &Caller) -> Option<IpAddr> {
    let own = caller.local.ip.to_canonical();
    let fits = Family::of(own) == Family::of(target.ip) && ip_scope(own) == ip_scope(target.ip);
    (caller.relayed && fits).then_some(own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::fake::World;
    use alloc::vec;

    const HERE: &str = "44.9.9.9";

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn caller(from: &str) -> Caller {
        let local = Addr::tcp(ip(HERE), 4001);
        let remote = Addr::tcp(ip(from), 1);
        Caller { peer: PeerId::random(), local, remote, relayed: false, rtt: None }
    }

    #[test]
    fn who_came_over_a_circuit_is_told_where_a_dial_left_from() {
        let relayed = Caller { relayed: true, ..caller("44.2.2.2") };
        let target = |text| Addr::tcp(ip(text), 1);
        assert_eq!(unmet(target("44.1.1.1"), &relayed), Some(ip(HERE)));
        assert_eq!(unmet(target("44.1.1.1"), &caller("44.2.2.2")), None, "it has met us");
        assert_eq!(unmet(target("2600::1"), &relayed), None, "it leaves from another");
        let inside = Caller { local: target("10.0.0.9"), ..relayed };
        assert_eq!(unmet(target("44.1.1.1"), &inside), None, "a router gives it another");
    }

    #[test]
    fn scope_decides_who_may_have_what_dialled() {
        // target, requester, (dialled in the world, dialled where private is allowed)
        let table = [
            ("44.1.1.1", "44.2.2.2", (true, true)),
            ("2600::1", "44.2.2.2", (true, true)),
            ("10.0.0.1", "44.2.2.2", (false, false)),
            ("10.0.0.1", "192.168.0.1", (false, true)),
            ("100.64.0.1", "10.0.0.1", (false, true)),
            ("fd00::1", "fd00::2", (false, true)),
            ("127.0.0.1", "127.0.0.2", (false, true)),
            ("::1", "127.0.0.1", (false, true)),
            ("127.0.0.1", "10.0.0.1", (false, false)),
            ("169.254.0.1", "169.254.0.2", (false, true)),
            ("fe80::1", "fe80::2", (false, false)),
            ("224.0.0.1", "224.0.0.1", (false, false)),
            ("0.0.0.0", "0.0.0.0", (false, false)),
            ("255.255.255.255", "44.2.2.2", (false, false)),
            ("64:ff9b::808:808", "44.2.2.2", (true, true)),
            ("64:ff9b::a00:1", "44.2.2.2", (false, false)),
            ("2002:0808:0808::1", "44.2.2.2", (true, true)),
            ("2002:c0a8:0101::1", "44.2.2.2", (false, false)),
            ("::ffff:10.0.0.1", "44.2.2.2", (false, false)),
        ];
        for (target, requester, (world, lab)) in table {
            let allowed = |private| is_allowed(ip(target), ip(requester), private);
            assert_eq!((allowed(false), allowed(true)), (world, lab), "{target} for {requester}");
        }
    }

    #[test]
    fn the_list_is_read_to_its_fiftieth_address() {
        let world = World { families: vec![Family::Ip4], ..World::default() };
        let good = multiaddr::encode(Addr::tcp(ip("44.1.1.1"), 1));
        let bad = multiaddr::encode(Addr::tcp(ip("10.0.0.1"), 1));
        let found = |at: usize| {
            let mut addrs = vec![bad.clone(); at];
            addrs.push(good.clone());
            first_dialable(&addrs, &caller("44.1.1.1"), false, &world).map(|(index, _)| index)
        };
        assert_eq!((found(0), found(49), found(50)), (Some(0), Some(49), None));
    }

    #[test]
    fn an_address_that_names_another_peer_is_not_the_requesters() {
        let world = World { families: vec![Family::Ip4], ..World::default() };
        let (asker, addr) = (caller("44.1.1.1"), Addr::quic(ip("44.1.1.1"), 1));
        for (peer, found) in [(asker.peer, Some((0, addr))), (PeerId::random(), None)] {
            let listed = multiaddr::to_multiaddr(addr, Some(peer)).to_vec();
            assert_eq!(first_dialable(&[listed.into()], &asker, false, &world), found);
        }
    }

    #[test]
    fn a_port_of_ours_is_ours_under_either_transport() {
        let listens = vec![Addr::tcp(ip(HERE), 4001), Addr::quic(ip("127.0.0.1"), 4001)];
        let world = World { listens, ..World::default() };
        assert!(is_own(Addr::quic(ip(HERE), 4001), &world));
        assert!(is_own(Addr::tcp(ip("127.0.0.1"), 4001), &world));
        assert!(!is_own(Addr::tcp(ip(HERE), 4002), &world));
        assert!(!is_own(Addr::tcp(ip("44.1.1.1"), 4001), &world));
    }
}
