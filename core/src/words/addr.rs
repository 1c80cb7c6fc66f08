//! Addresses as rooms hold them: small, `Copy`, ordered. Multiaddrs stay at the door and in `wire`.

use super::checkpoint::{BadCheckpoint, Loader, Saved, Saver, saved};
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// An IP family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    Ip4,
    /// IPv6.
    Ip6,
}

impl Family {
    /// The family of an address.
    pub const fn of(ip: IpAddr) -> Family {
        match ip {
            IpAddr::V4(_) => Family::Ip4,
            IpAddr::V6(_) => Family::Ip6,
        }
    }

    /// `ip4` or `ip6`.
    pub const fn name(self) -> &'static str {
        match self {
            Family::Ip4 => "ip4",
            Family::Ip6 => "ip6",
        }
    }
}

/// A transport that Portolan listens and dials on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP with a security and a muxer handshake above it.
    Tcp,
    /// QUIC version 1 over UDP.
    Quic,
}

impl Transport {
    /// `tcp` or `quic`.
    pub const fn name(self) -> &'static str {
        match self {
            Transport::Tcp => "tcp",
            Transport::Quic => "quic",
        }
    }
}

/// A (family, transport) class: the granularity at which NATs and firewalls differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class {
    /// The IP family.
    pub family: Family,
    /// The transport.
    pub transport: Transport,
}

impl Class {
    /// All classes there are, in order.
    pub const ALL: [Class; 4] = [
        Class::new(Family::Ip4, Transport::Tcp),
        Class::new(Family::Ip4, Transport::Quic),
        Class::new(Family::Ip6, Transport::Tcp),
        Class::new(Family::Ip6, Transport::Quic),
    ];

    /// The class of a family and a transport.
    pub const fn new(family: Family, transport: Transport) -> Class {
        Class { family, transport }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.family.name(), self.transport.name())
    }
}

/// A transport address: IP, port, and what is spoken there. One thin waist (IP + TCP or UDP +
/// port) carries one transport here, so an `Addr` also names a thin waist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addr {
    /// The IP address.
    pub ip: IpAddr,
    /// The TCP or UDP port.
    pub port: u16,
    /// The transport on that port.
    pub transport: Transport,
}

impl Addr {
    /// An address out of its parts; an IPv4-mapped IPv6 address becomes the IPv4 address it is.
    pub const fn new(ip: IpAddr, port: u16, transport: Transport) -> Addr {
        Addr { ip: ip.to_canonical(), port, transport }
    }

    /// A TCP address.
    pub const fn tcp(ip: IpAddr, port: u16) -> Addr {
        Addr::new(ip, port, Transport::Tcp)
    }

    /// A QUIC address.
    pub const fn quic(ip: IpAddr, port: u16) -> Addr {
        Addr::new(ip, port, Transport::Quic)
    }

    /// The class of this address.
    pub const fn class(self) -> Class {
        Class::new(Family::of(self.ip), self.transport)
    }

    /// IP and port, for a socket call.
    pub const fn socket(self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port)
    }
}

impl fmt::Display for Addr {
    /// As a multiaddr: `/ip4/192.0.2.1/tcp/4001`, `/ip6/::1/udp/4001/quic-v1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = Family::of(self.ip).name();
        match self.transport {
            Transport::Tcp => write!(f, "/{family}/{}/tcp/{}", self.ip, self.port),
            Transport::Quic => write!(f, "/{family}/{}/udp/{}/quic-v1", self.ip, self.port),
        }
    }
}

/// Where in the world an IP address has a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpScope {
    /// Routed on the public Internet.
    Global,
    /// Shared by one site or one carrier: RFC 1918, RFC 6598, RFC 4193, and documentation or
    /// benchmarking ranges, which no public router carries.
    Private,
    /// One link: 169.254/16, fe80::/10.
    LinkLocal,
    /// This host.
    Loopback,
    /// No destination at all: unspecified, multicast, broadcast, reserved.
    Unusable,
}

/// The scope of an address, by the IANA special-purpose registries.
pub const fn ip_scope(ip: IpAddr) -> IpScope {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip4_scope(ip),
        IpAddr::V6(ip) => ip6_scope(ip),
    }
}

const fn ip4_scope(ip: Ipv4Addr) -> IpScope {
    match ip.octets() {
        [0, ..] | [224..=255, ..] => IpScope::Unusable,
        [127, ..] => IpScope::Loopback,
        [169, 254, ..] => IpScope::LinkLocal,
        [10, ..]
        | [100, 64..=127, ..]
        | [172, 16..=31, ..]
        | [192, 0, 0, _]
        | [192, 0, 2, _]
        | [192, 88, 99, _]
        | [192, 168, ..]
        | [198, 18..=19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _] => IpScope::Private,
        _ => IpScope::Global,
    }
}

const fn ip6_scope(ip: Ipv6Addr) -> IpScope {
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => IpScope::Loopback,
        [0, 0, 0, 0, 0, 0, ..] => IpScope::Unusable,
        [0xff00..=0xffff, ..] => IpScope::Unusable,
        [0xfe80..=0xfebf, ..] => IpScope::LinkLocal,
        // RFC 3849 and RFC 9637 documentation, RFC 2928 special purpose 2001::/23 without Teredo.
        [0x2001, 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] | [0x2001, 1..=0x01ff, ..] => {
            IpScope::Private
        }
        [0x2000..=0x3fff, ..] => IpScope::Global,
        // RFC 6052 well-known NAT64 prefix: an IPv4 Internet behind it.
        [0x0064, 0xff9b, 0, 0, 0, 0, ..] => IpScope::Global,
        _ => IpScope::Private,
    }
}

/// A network that counts as one voter, one server or one requester: IPv4 /24, IPv6 /48; where
/// private addresses are allowed (tests, labs) a single IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(IpAddr);

impl Group {
    /// The group that `ip` belongs to.
    pub const fn of(ip: IpAddr, allow_private: bool) -> Group {
        let ip = ip.to_canonical();
        if allow_private { Group(ip) } else { Group::prefix(ip) }
    }

    /// The IPv4 /24 or IPv6 /48 around `ip`, whatever is allowed.
    pub const fn prefix(ip: IpAddr) -> Group {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Group(IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() & !0xff))),
            IpAddr::V6(ip) => Group(IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 80 << 80))),
        }
    }
}

/// What may fail, or lie, together: a network, or all that one source named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Domain {
    /// A network.
    Network(Group),
    /// What a source introduced.
    Source(u16),
}

impl Domain {
    /// The domain of a peer in this network that this source introduced, if any did.
    pub(crate) fn of(group: Group, source: Option<u16>) -> Domain {
        source.map_or(Domain::Network(group), Domain::Source)
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Saved for Group {
    fn save(&self, out: &mut Saver<'_>) {
        let Group(ip) = match out.network_is_ip() {
            None => *self,
            Some(allow_private) => Group::of(out.exchanged(self.0), allow_private),
        };
        out.ip(ip);
    }

    fn load(from: &mut Loader<'_>) -> Result<Group, BadCheckpoint> {
        IpAddr::load(from).map(Group)
    }
}

saved!(enum Domain { 1 = Network(group), 2 = Source(number) });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_follow_the_registries() {
        let scope = |text: &str| ip_scope(text.parse().expect("an address"));
        for ip in ["8.8.8.8", "44.1.2.3", "192.0.1.1", "2600::1", "64:ff9b::808:808"] {
            assert_eq!(scope(ip), IpScope::Global, "{ip}");
        }
        for ip in ["10.0.0.1", "100.64.0.1", "172.31.1.1", "192.0.2.1", "fd00::1", "2001:db8::1"] {
            assert_eq!(scope(ip), IpScope::Private, "{ip}");
        }
        assert_eq!(scope("::ffff:127.0.0.1"), IpScope::Loopback);
        assert_eq!(scope("fe80::1"), IpScope::LinkLocal);
        assert_eq!(scope("::"), IpScope::Unusable);
        assert_eq!(scope("224.0.0.1"), IpScope::Unusable);
    }

    #[test]
    fn a_group_is_a_network_or_in_a_lab_one_address() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert_eq!(Group::of(ip("44.1.2.3"), false), Group::of(ip("44.1.2.200"), false));
        assert_ne!(Group::of(ip("44.1.2.3"), false), Group::of(ip("44.1.3.3"), false));
        assert_ne!(Group::of(ip("44.1.2.3"), true), Group::of(ip("44.1.2.200"), true));
        assert_eq!(Group::of(ip("2600:1:2:3::1"), false), Group::of(ip("2600:1:2:ffff::9"), false));
        assert_ne!(Group::of(ip("2600:1:2::1"), false), Group::of(ip("2600:1:3::1"), false));
    }
}
