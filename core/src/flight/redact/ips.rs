//! Other IPs for those of a record: of the same class, in the same order, and any two of them with
//! exactly as many leading bits in common as before.
//!
//! All IPs of the record hang in a binary tree, and every bit of one may be flipped, by a keyed
//! hash of the bits before it. So whoever shares them shares the flip. Two kinds of bit stay:
//!
//! - those at which the tree branches, because a flip would change the order;
//! - those behind which special ranges begin, because a flip would change the class. Between 44/8
//!   and its neighbours these are the first 3 bits, between 203.0.112/24 and 203.0.113/24, which is
//!   documentation's, they are 24.
//!
//! With a thousand IPs some ten leading bits of each are branches, and remain. An IP in which
//! another one is embedded (NAT64, 6to4, mapped) takes along what stands for that one.

use super::others::{Purpose, Salt};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What stands for each IP; the bits of an IPv4 address are the upper ones of a number here.
#[derive(Clone, Debug)]
pub(super) struct Ips {
    ip4: BTreeMap<u128, u128>,
    ip6: BTreeMap<u128, u128>,
}

/// The unspecified address of the same family.
pub(super) fn nowhere(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

impl Ips {
    pub(super) fn new(salt: &Salt, all: &BTreeSet<IpAddr>) -> Ips {
        let (mut ip4, mut ip6) = (BTreeSet::new(), BTreeSet::new());
        for ip in all {
            match ip {
                IpAddr::V4(ip) => ip4.insert(wide(*ip)),
                IpAddr::V6(ip) => {
                    let bits = ip.to_bits();
                    ip4.extend(embedding(bits).map(|len| embedded(bits, len)));
                    ip6.insert(bits)
                }
            };
        }
        let none = BTreeMap::new();
        let ip4 = Tree { salt, purpose: Purpose::Ip4, bits: 32, ranges: &IP4, ip4: &none }.all(ip4);
        let ip6 = Tree { salt, purpose: Purpose::Ip6, bits: 128, ranges: &IP6, ip4: &ip4 }.all(ip6);
        Ips { ip4, ip6 }
    }

    pub(super) fn get(&self, ip: IpAddr) -> Option<IpAddr> {
        match ip {
            IpAddr::V4(ip) => {
                let octets = self.ip4.get(&wide(ip))?.to_be_bytes();
                octets.first_chunk().map(|octets: &[u8; 4]| Ipv4Addr::from(*octets).into())
            }
            IpAddr::V6(ip) => self.ip6.get(&ip.to_bits()).map(|bits| Ipv6Addr::from(*bits).into()),
        }
    }
}

fn wide(ip: Ipv4Addr) -> u128 {
    u128::from(ip.to_bits()) << 96
}

/// How many bits stand before the IPv4 address that is embedded in this IPv6 address.
fn embedding(bits: u128) -> Option<u32> {
    IP6.iter()
        .find(|range| range.content == Content::Ip4 && range.holds(bits))
        .map(|range| range.len)
}

/// The IPv4 address in an IPv6 address, behind its first `len` bits.
fn embedded(bits: u128, len: u32) -> u128 {
    bits << len & leading(32)
}

/// A number whose first `len` bits are ones.
const fn leading(len: u32) -> u128 {
    match len {
        0 => 0,
        len => u128::MAX << (u128::BITS - len),
    }
}

/// A range of addresses that stay among themselves.
#[derive(Clone, Copy, Debug)]
struct Range {
    bits: u128,
    len: u32,
    content: Content,
}

/// What is in a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// Addresses to be hidden.
    Hosts,
    /// Addresses that are the same everywhere, and stay.
    Same,
    /// An IPv4 address each, and then what belongs to it.
    Ip4,
}

impl Range {
    /// Whether an address lies in it.
    fn holds(&self, bits: u128) -> bool {
        (self.bits ^ bits) & leading(self.len) == 0
    }

    /// Whether it begins behind the first `depth` bits of an address.
    fn begins_behind(&self, bits: u128, depth: u32) -> bool {
        self.len > depth && (self.bits ^ bits) & leading(depth) == 0
    }
}

const fn ip4(a: u8, b: u8, c: u8, d: u8, len: u32, content: Content) -> Range {
    Range { bits: (Ipv4Addr::new(a, b, c, d).to_bits() as u128) << 96, len, content }
}

const fn ip6(start: [u16; 3], len: u32, content: Content) -> Range {
    let [a, b, c] = start;
    Range { bits: Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0).to_bits(), len, content }
}

/// Those of IPv4: whatever [`ip_scope`](crate::ip_scope) tells apart, and some more.
const IP4: [Range; 19] = [
    ip4(0, 0, 0, 0, 8, Content::Hosts),
    ip4(0, 0, 0, 0, 32, Content::Same),
    ip4(10, 0, 0, 0, 8, Content::Hosts),
    ip4(100, 64, 0, 0, 10, Content::Hosts),
    ip4(127, 0, 0, 0, 8, Content::Same),
    ip4(169, 254, 0, 0, 16, Content::Hosts),
    ip4(172, 16, 0, 0, 12, Content::Hosts),
    ip4(192, 0, 0, 0, 24, Content::Hosts),
    ip4(192, 0, 2, 0, 24, Content::Hosts),
    ip4(192, 88, 99, 0, 24, Content::Hosts),
    ip4(192, 168, 0, 0, 16, Content::Hosts),
    ip4(198, 18, 0, 0, 15, Content::Hosts),
    ip4(198, 51, 100, 0, 24, Content::Hosts),
    ip4(203, 0, 113, 0, 24, Content::Hosts),
    ip4(224, 0, 0, 0, 4, Content::Hosts),
    // RFC 5771 §4: groups of one link, the same on each. And that of SSDP.
    ip4(224, 0, 0, 0, 24, Content::Same),
    ip4(239, 255, 255, 250, 32, Content::Same),
    ip4(240, 0, 0, 0, 4, Content::Hosts),
    ip4(255, 255, 255, 255, 32, Content::Same),
];

/// Those of IPv6, and those in which it embeds IPv4.
const IP6: [Range; 15] = [
    // Unspecified and loopback.
    ip6([0, 0, 0], 127, Content::Same),
    ip6([0, 0, 0], 96, Content::Hosts),
    Range { bits: 0xffff_0000_0000, len: 96, content: Content::Ip4 },
    ip6([0x0064, 0xff9b, 0], 96, Content::Ip4),
    ip6([0x0064, 0xff9b, 1], 48, Content::Hosts),
    ip6([0x2000, 0, 0], 3, Content::Hosts),
    ip6([0x2001, 0, 0], 23, Content::Hosts),
    ip6([0x2001, 0, 0], 32, Content::Hosts),
    ip6([0x2001, 0x0db8, 0], 32, Content::Hosts),
    ip6([0x2002, 0, 0], 16, Content::Ip4),
    ip6([0x3fff, 0, 0], 20, Content::Hosts),
    ip6([0xfc00, 0, 0], 7, Content::Hosts),
    ip6([0xfe80, 0, 0], 10, Content::Hosts),
    ip6([0xff00, 0, 0], 8, Content::Hosts),
    // RFC 4291 §2.7: groups that IANA assigned, in every scope.
    ip6([0xff00, 0, 0], 12, Content::Same),
];

/// A family's tree.
struct Tree<'a> {
    salt: &'a Salt,
    purpose: Purpose,
    /// How many bits an address has.
    bits: u32,
    ranges: &'a [Range],
    /// What stands for the IPv4 addresses that may be embedded.
    ip4: &'a BTreeMap<u128, u128>,
}

/// A subtree that is still to be walked through.
struct Branch<'a> {
    /// Its addresses, at least one, in order.
    ips: &'a [u128],
    /// How many bits they are known to share.
    depth: u32,
    /// Which of these are flipped.
    flips: u128,
}

impl Tree<'_> {
    /// What stands for each address.
    fn all(&self, ips: BTreeSet<u128>) -> BTreeMap<u128, u128> {
        let ips = Vec::from_iter(ips);
        let mut others = BTreeMap::new();
        let mut todo = vec![Branch { ips: &ips, depth: 0, flips: 0 }];
        while let Some(branch) = todo.pop() {
            let Branch { ips, depth, flips } = branch;
            match ips {
                [] => {}
                [ip, ..] if depth == self.bits => {
                    others.insert(*ip, ip ^ flips);
                }
                [ip, ..] if self.embeds(*ip, depth) => self.embedded(&branch, &mut todo),
                [ip, ..] => {
                    let bit = leading(depth + 1) ^ leading(depth);
                    let (low, high) = ips.split_at(ips.partition_point(|ip| ip & bit == 0));
                    let branches = !low.is_empty() && !high.is_empty();
                    let flip = if branches || !self.flips(*ip, depth) { 0 } else { bit };
                    let (depth, flips) = (depth + 1, flips | flip);
                    todo.extend([low, high].map(|ips| Branch { ips, depth, flips }));
                }
            }
        }
        others
    }

    /// Whether an IPv4 address is what follows.
    fn embeds(&self, ip: u128, depth: u32) -> bool {
        let starts = |range: &Range| range.len == depth && range.holds(ip);
        self.ranges.iter().any(|range| range.content == Content::Ip4 && starts(range))
    }

    /// Go on behind the IPv4 addresses that are embedded.
    fn embedded<'a>(&self, branch: &Branch<'a>, todo: &mut Vec<Branch<'a>>) {
        let depth = branch.depth + 32;
        for ips in branch.ips.chunk_by(|a, b| (a ^ b) & leading(depth) == 0) {
            let Some(ip) = ips.first() else { continue };
            let inner = embedded(*ip, branch.depth);
            // All of them were found with those that embed them.
            let other = self.ip4.get(&inner).copied().unwrap_or_default();
            let flips = branch.flips | (inner ^ other) >> branch.depth;
            todo.push(Branch { ips, depth, flips });
        }
    }

    /// Whether the bit behind the first `depth` ones of an address is flipped.
    fn flips(&self, ip: u128, depth: u32) -> bool {
        let stays = |range: &Range| {
            range.begins_behind(ip, depth) || range.content == Content::Same && range.holds(ip)
        };
        if self.ranges.iter().any(stays) {
            return false;
        }
        let mut of = Vec::from((ip & leading(depth)).to_be_bytes());
        of.extend(depth.to_be_bytes());
        self.salt.word(self.purpose, &of) & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{IpScope, ip_scope};
    use proptest::collection::btree_set;
    use proptest::prelude::*;
    use proptest::sample::select;

    const SALT: [u8; 16] = *b"sixteen of salt!";

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn others(salt: [u8; 16], all: &BTreeSet<IpAddr>) -> BTreeMap<IpAddr, IpAddr> {
        let ips = Ips::new(&Salt::new(salt), all);
        all.iter().map(|ip| (*ip, ips.get(*ip).expect("it is in the record"))).collect()
    }

    fn shared(a: IpAddr, b: IpAddr) -> Option<u32> {
        match (a, b) {
            (IpAddr::V4(a), IpAddr::V4(b)) => Some((a.to_bits() ^ b.to_bits()).leading_zeros()),
            (IpAddr::V6(a), IpAddr::V6(b)) => Some((a.to_bits() ^ b.to_bits()).leading_zeros()),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
        }
    }

    /// The place of the smallest range around an IP, and whatever core looks at in what is
    /// embedded there.
    fn class(ip: IpAddr) -> (IpScope, Option<usize>, Option<IpScope>) {
        let (bits, ranges) = match ip {
            IpAddr::V4(ip) => (wide(ip), &IP4[..]),
            IpAddr::V6(ip) => (ip.to_bits(), &IP6[..]),
        };
        let around = ranges.iter().enumerate().filter(|(_, range)| range.holds(bits));
        let smallest = around.max_by_key(|(_, range)| range.len).map(|(place, _)| place);
        let inner = ip.is_ipv6().then(|| embedding(bits)).flatten().map(|len| {
            let octets = embedded(bits, len).to_be_bytes();
            ip_scope([octets[0], octets[1], octets[2], octets[3]].into())
        });
        (ip_scope(ip), smallest, inner)
    }

    /// One address of each range that the IANA registries of special-purpose addresses have.
    const SPECIAL: [&str; 30] = [
        "0.1.2.3",
        "10.1.2.3",
        "100.65.0.1",
        "127.0.0.1",
        "169.254.1.1",
        "172.20.1.1",
        "192.0.0.9",
        "192.0.2.9",
        "192.88.99.9",
        "192.168.9.9",
        "198.18.9.9",
        "198.51.100.9",
        "203.0.113.9",
        "224.0.0.9",
        "232.1.1.1",
        "239.255.255.250",
        "240.0.0.9",
        "255.255.255.255",
        "::9",
        "::1",
        "64:ff9b:1::9",
        "2001::9",
        "2001:1::9",
        "2001:db8::9",
        "3fff::9",
        "5f00::9",
        "fc00::9",
        "fe80::9",
        "fec0::9",
        "ff02::9",
    ];

    /// Addresses anywhere, close together, and at both ends of every range and beyond them.
    fn any_ip() -> impl Strategy<Value = IpAddr> {
        let edges = |range: &Range| {
            let last = range.bits | !leading(range.len);
            [range.bits, last, range.bits.wrapping_sub(1), last.wrapping_add(1)]
        };
        let to4 = |bits: u128| Ipv4Addr::from_bits((bits >> 96) as u32).into();
        let edges4 = IP4.iter().flat_map(|range| {
            let last = range.bits | !leading(range.len);
            let one = 1 << 96;
            [range.bits, last, range.bits.wrapping_sub(one), last.wrapping_add(one)].map(to4)
        });
        let edges6 = IP6.iter().flat_map(|range| edges(range).map(|bits| IpAddr::V6(bits.into())));
        let near = (select(vec!["44.1.2.", "10.0.0.", "192.168.1.", "2600:1:2::"]), 0..=99u8);
        let near = near.prop_map(|(before, last)| ip(&alloc::format!("{before}{last}")));
        let inner = (any::<[u8; 4]>(), select(vec!["::ffff:", "64:ff9b::"]));
        let inner =
            inner.prop_map(|(ip4, before)| ip(&alloc::format!("{before}{}", Ipv4Addr::from(ip4))));
        let tunnel = (any::<[u8; 4]>(), any::<u16>());
        let tunnel = tunnel.prop_map(|([a, b, c, d], host)| {
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            IpAddr::from([0x2002, high, low, 0, 0, 0, 0, host])
        });
        prop_oneof![
            any::<IpAddr>(),
            select(SPECIAL.to_vec()).prop_map(ip),
            select(Vec::from_iter(edges4)),
            select(Vec::from_iter(edges6)),
            near,
            inner,
            tunnel,
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 1_000,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn class_order_and_common_prefixes_stay(
            all in btree_set(any_ip(), 0..40),
            salt in any::<[u8; 16]>(),
        ) {
            let others = others(salt, &all);
            prop_assert_eq!(others.len(), all.len());
            for (a, other_a) in &others {
                prop_assert_eq!(class(*a), class(*other_a), "{} became {}", a, other_a);
                for (b, other_b) in &others {
                    prop_assert_eq!(a.cmp(b), other_a.cmp(other_b));
                    prop_assert_eq!(shared(*a, *b), shared(*other_a, *other_b));
                }
            }
        }

        #[test]
        fn what_is_embedded_is_what_stands_for_it(octets in any::<[u8; 4]>(), also in any_ip()) {
            let plain = Ipv4Addr::from(octets);
            let mapped = IpAddr::V6(plain.to_ipv6_mapped());
            let others = others(SALT, &BTreeSet::from([plain.into(), mapped, also]));
            prop_assert_eq!(others[&mapped].to_canonical(), others[&IpAddr::V4(plain)]);
        }

        #[test]
        fn every_address_of_a_range_is_of_one_scope(ip in any_ip(), below in any::<u128>()) {
            // Otherwise the ranges above would miss something that core tells apart.
            let (bits, ranges) = match ip {
                IpAddr::V4(ip) => (wide(ip), &IP4[..]),
                IpAddr::V6(ip) => (ip.to_bits(), &IP6[..]),
            };
            let free = |depth: u32| !ranges.iter().any(|range| range.begins_behind(bits, depth));
            let depth = (0..=128).find(|depth| free(*depth)).expect("ranges end");
            let near = bits & leading(depth) | below & !leading(depth);
            let near = match ip {
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits((near >> 96) as u32)),
                IpAddr::V6(_) => IpAddr::V6(near.into()),
            };
            let same = |range: &Range| range.content == Content::Same && range.holds(bits);
            if class(ip).2.is_none() && !ranges.iter().any(same) {
                prop_assert_eq!(ip_scope(ip), ip_scope(near), "{} and {}", ip, near);
            }
        }
    }

    /// One of each kind that a home, a carrier and the world have.
    fn usual() -> BTreeSet<IpAddr> {
        let all = [
            "44.12.13.14",
            "44.12.13.15",
            "8.8.8.8",
            "10.0.0.7",
            "192.168.1.20",
            "100.64.3.4",
            "169.254.7.8",
            "2600:1700:1234:5678:9abc:def0:1111:2222",
            "2a02:8109:1:2:3:4:5:6",
            "fd12:3456:789a::1",
            "fe80::1234:56ff:fe78:9abc",
            "2002:2c0c:d0e::1",
            "64:ff9b::808:808",
        ];
        all.into_iter().map(ip).collect()
    }

    #[test]
    fn the_salt_decides_and_nothing_else() {
        let first = others(SALT, &usual());
        assert_eq!(others(SALT, &usual()), first);
        let mut salt = SALT;
        salt[15] ^= 1;
        let second = others(salt, &usual());
        for (ip, other) in &first {
            assert_ne!(other, ip);
            assert_ne!(second[ip], *other, "{ip}");
        }
    }

    #[test]
    fn every_bit_is_flipped_about_half_the_time_but_for_those_that_cannot_be() {
        let all = BTreeSet::from([ip("44.12.13.14"), ip("44.12.13.15")]);
        let mut flipped = [0u32; 32];
        for salt in 0..=255 {
            let other = others([salt; 16], &all)[&ip("44.12.13.14")];
            let IpAddr::V4(other) = other else { panic!("{other} is of another family") };
            let flips = other.to_bits() ^ Ipv4Addr::new(44, 12, 13, 14).to_bits();
            for (bit, count) in (0u32..).zip(&mut flipped) {
                *count += flips >> (31 - bit) & 1;
            }
        }
        // 0/8, 10/8 and the like begin behind the first three, and the last is a branch.
        assert_eq!(flipped[..3], [0; 3]);
        assert_eq!(flipped[31], 0);
        let fair = |count: &u32| (80..=176).contains(count);
        assert!(flipped[3..31].iter().all(fair), "{flipped:?}");
    }

    #[test]
    fn what_is_the_same_everywhere_stays() {
        let all = [
            "0.0.0.0",
            "255.255.255.255",
            "127.0.0.1",
            "127.1.2.3",
            "224.0.0.1",
            "239.255.255.250",
            "::",
            "::1",
            "ff02::1",
            "ff05::c",
        ];
        let mut set = usual();
        set.extend(all.map(ip));
        let others = others(SALT, &set);
        for same in all {
            assert_eq!(others[&ip(same)], ip(same));
        }
        assert_eq!(nowhere(ip("44.0.0.1")), ip("0.0.0.0"));
        assert_eq!(nowhere(ip("2600::1")), ip("::"));
    }
}
