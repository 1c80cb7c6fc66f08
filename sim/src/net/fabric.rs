//! Who is where, and how a packet gets from one to the other.
//!
//! The Internet is one level; behind every router lies another. A host stands on one level, and a
//! router joins two. Only crossing the Internet takes the time of access links (that of the sender's
//! outermost router or of the host itself, and that of the receiver's); inside one network a packet
//! takes `LAN_LATENCY`.

use super::gate::{Gate, Inbound, Room};
use super::link::Link;
use super::packet::Packet;
use super::rule::{self, Rule, RuleVerdict};
use crate::dice::Dice;
use portolan_core::{Addr, Duration, Family, Instant, IpScope, ip_scope};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Time between two hosts of one network; ours: a home network's Wi-Fi takes longer.
const LAN_LATENCY: Duration = Duration::from_micros(500);
/// How much later the second copy of a packet arrives; ours.
const COPY_AFTER: Duration = Duration::from_millis(1);

/// A host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub usize);

/// A router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouterId(pub usize);

/// A network: that behind a router, or the Internet.
type Level = Option<RouterId>;

/// What went over a host's interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets sent.
    pub packets_out: u64,
    /// Bytes sent, headers included.
    pub bytes_out: u64,
    /// Packets received.
    pub packets_in: u64,
    /// Bytes received, headers included.
    pub bytes_in: u64,
}

impl Traffic {
    /// Packets in both directions.
    pub const fn packets(&self) -> u64 {
        self.packets_out + self.packets_in
    }

    /// Bytes in both directions.
    pub const fn bytes(&self) -> u64 {
        self.bytes_out + self.bytes_in
    }
}

#[derive(Clone, Debug)]
struct Host {
    router: Level,
    ips: Vec<IpAddr>,
    link: Link,
    traffic: Traffic,
}

#[derive(Clone, Debug)]
struct Router {
    parent: Level,
    ip4: Gate,
    ip6: Gate,
    link: Link,
    /// Whether it is switched off.
    is_off: bool,
}

impl Router {
    fn gate(&self, family: Family) -> &Gate {
        match family {
            Family::Ip4 => &self.ip4,
            Family::Ip6 => &self.ip6,
        }
    }

    fn gate_mut(&mut self, family: Family) -> &mut Gate {
        match family {
            Family::Ip4 => &mut self.ip4,
            Family::Ip6 => &mut self.ip6,
        }
    }
}

/// Who answers for an IP on a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Host(HostId),
    Router(RouterId),
}

/// Where a packet that is under way comes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Landing(Level);

/// What became of a packet that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It comes down after a while, with the source that the receiver will see.
    Arrives {
        /// How long it takes.
        after: Duration,
        /// Where it comes down.
        landing: Landing,
        /// As it was when it left the last gate.
        packet: Packet,
        /// How long its second copy takes, if there is one.
        copy: Option<Duration>,
    },
    /// It is gone.
    Lost,
}

/// What became of a packet that came down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It reached a host, with the destination that the host sees.
    Delivered(HostId, Packet),
    /// A router refused it; this is what the sender hears.
    Refused(RouterId, Packet),
    /// It is gone.
    Lost,
}

/// The whole network.
#[derive(Clone, Debug, Default)]
pub struct Fabric {
    hosts: Vec<Host>,
    routers: Vec<Router>,
    owners: BTreeMap<(Level, IpAddr), Owner>,
    /// Rules for what hosts send, first answer wins.
    pub rules: Vec<Rule>,
}

impl Fabric {
    /// Put up a router inside the network of `parent`, or on the Internet.
    pub fn add_router(
        &mut self,
        parent: Option<RouterId>,
        ip4: Gate,
        ip6: Gate,
        link: Link,
    ) -> RouterId {
        let id = RouterId(self.routers.len());
        if let Some(outside) = ip4.outside() {
            self.owners.insert((parent, outside), Owner::Router(id));
        }
        self.routers.push(Router { parent, ip4, ip6, link, is_off: false });
        id
    }

    /// Put up a host behind `router`, or on the Internet.
    pub fn add_host(&mut self, router: Option<RouterId>, ips: &[IpAddr], link: Link) -> HostId {
        let id = HostId(self.hosts.len());
        self.hosts.push(Host { router, ips: Vec::new(), link, traffic: Traffic::default() });
        self.set_ips(id, ips);
        id
    }

    /// Give a host other addresses.
    pub fn set_ips(&mut self, host: HostId, ips: &[IpAddr]) {
        self.owners.retain(|_, owner| *owner != Owner::Host(host));
        let home = self.hosts[host.0].router;
        for old in std::mem::replace(&mut self.hosts[host.0].ips, ips.to_vec()) {
            self.route(home, old, false);
        }
        for ip in ips {
            self.owners.insert((home, *ip), Owner::Host(host));
            self.route(home, *ip, true);
        }
    }

    /// Global addresses are reached from further out through every router on the way.
    fn route(&mut self, home: Level, ip: IpAddr, exists: bool) {
        let mut level = home;
        while let Some(router) = level.filter(|_| ip_scope(ip) == IpScope::Global) {
            level = self.routers[router.0].parent;
            if exists {
                self.owners.insert((level, ip), Owner::Router(router));
            } else {
                self.owners.remove(&(level, ip));
            }
        }
    }

    /// A host's addresses.
    pub fn ips(&self, host: HostId) -> &[IpAddr] {
        &self.hosts[host.0].ips
    }

    /// What a host has sent and received.
    pub fn traffic(&self, host: HostId) -> Traffic {
        self.hosts[host.0].traffic
    }

    /// Count the acknowledgement of a segment, which nobody needs to see travel.
    pub fn count_acknowledgement(&mut self, by: HostId, to: HostId, bytes: u32) {
        let sender = &mut self.hosts[by.0].traffic;
        sender.packets_out += 1;
        sender.bytes_out += u64::from(bytes);
        let receiver = &mut self.hosts[to.0].traffic;
        receiver.packets_in += 1;
        receiver.bytes_in += u64::from(bytes);
    }

    /// The router that a host stands behind.
    pub fn router_of(&self, host: HostId) -> Option<RouterId> {
        self.hosts[host.0].router
    }

    /// The router that a router stands behind.
    pub fn parent_of(&self, router: RouterId) -> Option<RouterId> {
        self.routers[router.0].parent
    }

    /// The gate of a router for a family.
    pub fn gate(&self, router: RouterId, family: Family) -> &Gate {
        self.routers[router.0].gate(family)
    }

    /// The gate of a router for a family, to be changed.
    pub fn gate_mut(&mut self, router: RouterId, family: Family) -> &mut Gate {
        self.routers[router.0].gate_mut(family)
    }

    /// Give a router another external IPv4 address.
    pub fn renumber(&mut self, router: RouterId, outside: IpAddr) {
        let it = &mut self.routers[router.0];
        let parent = it.parent;
        if let Some(old) = it.ip4.outside() {
            self.owners.remove(&(parent, old));
        }
        it.ip4.renumber(outside);
        self.owners.insert((parent, outside), Owner::Router(router));
    }

    /// A router starts anew: both of its gates forget.
    pub fn reboot(&mut self, router: RouterId) {
        let it = &mut self.routers[router.0];
        it.ip4.reboot();
        it.ip6.reboot();
    }

    /// A router is switched off, or on: nothing passes it while it is off.
    pub fn switch(&mut self, router: RouterId, on: bool) {
        self.routers[router.0].is_off = !on;
    }

    /// The access link of whoever a host reaches the Internet through.
    pub fn link_mut(&mut self, host: HostId) -> &mut Link {
        match self.outermost(self.hosts[host.0].router) {
            Some(router) => &mut self.routers[router.0].link,
            None => &mut self.hosts[host.0].link,
        }
    }

    /// Every link and every rule is as good as new.
    pub fn heal(&mut self) {
        self.rules.clear();
        self.hosts.iter_mut().for_each(|host| host.link.heal());
        self.routers.iter_mut().for_each(|router| router.link.heal());
    }

    /// A host sends a packet.
    pub fn send(&mut self, now: Instant, host: HostId, packet: Packet, dice: &mut Dice) -> Way {
        let it = &mut self.hosts[host.0];
        it.traffic.packets_out += u64::from(packet.count);
        it.traffic.bytes_out += u64::from(packet.bytes);
        let held = match rule::judge(&self.rules, now, &packet) {
            RuleVerdict::Pass => Duration::ZERO,
            RuleVerdict::Delay(span) => span,
            RuleVerdict::Drop => return Way::Lost,
        };
        let home = self.hosts[host.0].router;
        match self.climb(now, (Some(host), home), packet, dice) {
            Way::Arrives { after, landing, packet, copy } => {
                let copy = copy.map(|copy| copy + held);
                Way::Arrives { after: after + held, landing, packet, copy }
            }
            Way::Lost => Way::Lost,
        }
    }

    /// A router sends a packet of its own into the network outside of it.
    pub fn send_from_router(
        &mut self,
        now: Instant,
        router: RouterId,
        packet: Packet,
        dice: &mut Dice,
    ) -> Way {
        let parent = self.routers[router.0].parent;
        if parent.is_none() && self.owners.contains_key(&(None, packet.dst.ip)) {
            return self.cross(now, (None, Some(router)), packet, dice);
        }
        self.climb(now, (None, parent), packet, dice)
    }

    /// A packet comes down.
    pub fn land(&mut self, now: Instant, landing: Landing, mut packet: Packet) -> Fate {
        let Landing(mut level) = landing;
        loop {
            match self.owners.get(&(level, packet.dst.ip)) {
                Some(Owner::Host(host)) => {
                    let traffic = &mut self.hosts[host.0].traffic;
                    traffic.packets_in += u64::from(packet.count);
                    traffic.bytes_in += u64::from(packet.bytes);
                    return Fate::Delivered(*host, packet);
                }
                Some(Owner::Router(router)) => {
                    let router = *router;
                    let it = &mut self.routers[router.0];
                    if it.is_off {
                        return Fate::Lost;
                    }
                    let gate = it.gate_mut(packet.family());
                    match gate.inbound(now, packet.src, packet.dst) {
                        Inbound::Pass(inside) => packet.dst = inside,
                        Inbound::Drop => return Fate::Lost,
                        Inbound::Refuse => return Fate::Refused(router, packet.refusal()),
                    }
                    level = Some(router);
                }
                None => return Fate::Lost,
            }
        }
    }

    /// Whom a first packet from somewhere on the Internet would reach now, and at which of his
    /// addresses. Nothing is remembered of it: this is how the truth is told.
    pub fn would_reach(
        &self,
        now: Instant,
        src: Addr,
        dst: Addr,
        room: Room,
    ) -> Option<(HostId, Addr)> {
        let (mut level, mut dst) = (None, dst);
        loop {
            match self.owners.get(&(level, dst.ip))? {
                Owner::Host(host) => return Some((*host, dst)),
                Owner::Router(router) => {
                    let it = &self.routers[router.0];
                    if it.is_off {
                        return None;
                    }
                    let gate = it.gate(Family::of(dst.ip));
                    match gate.admits(now, src, dst, room) {
                        Inbound::Pass(inside) => dst = inside,
                        Inbound::Drop | Inbound::Refuse => return None,
                    }
                    level = Some(*router);
                }
            }
        }
    }

    /// Whether some router on the way to a host lets somebody in wherever it knows his IP.
    pub fn knows(&self, now: Instant, host: HostId, remote: Addr) -> bool {
        self.gates(host, Family::of(remote.ip)).any(|gate| gate.knows(now, remote))
    }

    /// When some router on the way to a host last had no room for a packet that it would have let in.
    pub fn full_at(&self, host: HostId, family: Family) -> Option<Instant> {
        self.gates(host, family).filter_map(Gate::full_at).max()
    }

    /// The gates on the way to a host, from the inside out.
    fn gates(&self, host: HostId, family: Family) -> impl Iterator<Item = &Gate> {
        let next = |router: &RouterId| self.routers[router.0].parent;
        let routers = std::iter::successors(self.hosts[host.0].router, next);
        routers.map(move |router| self.gate(router, family))
    }

    fn outermost(&self, level: Level) -> Level {
        let mut outermost = level?;
        while let Some(parent) = self.routers[outermost.0].parent {
            outermost = parent;
        }
        Some(outermost)
    }

    /// Go outwards until somebody answers for the destination.
    fn climb(
        &mut self,
        now: Instant,
        (host, home): (Option<HostId>, Level),
        mut packet: Packet,
        dice: &mut Dice,
    ) -> Way {
        let mut level = home;
        loop {
            if self.owners.contains_key(&(level, packet.dst.ip)) {
                if level.is_none() {
                    return self.cross(now, (host, self.outermost(home)), packet, dice);
                }
                let landing = Landing(level);
                return Way::Arrives { after: LAN_LATENCY, landing, packet, copy: None };
            }
            let Some(router) = level else { return Way::Lost };
            let it = &mut self.routers[router.0];
            if it.is_off {
                return Way::Lost;
            }
            let gate = it.gate_mut(packet.family());
            let own = gate.outside() == Some(packet.dst.ip);
            if own && !gate.config().hairpin {
                return Way::Lost;
            }
            match gate.outbound(now, packet.src, packet.dst, dice) {
                Some(external) => packet.src = external,
                None => return Way::Lost,
            }
            level = it.parent;
            if own {
                // It turns round inside the router.
                let landing = Landing(level);
                return Way::Arrives { after: LAN_LATENCY, landing, packet, copy: None };
            }
        }
    }

    /// Over both access links.
    fn cross(
        &mut self,
        now: Instant,
        (host, router): (Option<HostId>, Level),
        packet: Packet,
        dice: &mut Dice,
    ) -> Way {
        let Some(to) = self.owners.get(&(None, packet.dst.ip)).copied() else { return Way::Lost };
        let far = match to {
            Owner::Host(host) => self.hosts[host.0].link.latency,
            Owner::Router(router) => self.routers[router.0].link.latency,
        };
        let near = match (router, host) {
            (Some(router), _) => &mut self.routers[router.0].link,
            (None, Some(host)) => &mut self.hosts[host.0].link,
            (None, None) => return Way::Lost,
        };
        let round_trip = (near.latency + far) * 2;
        let Some(first) = near.cross(now, &packet, round_trip, dice) else { return Way::Lost };
        let twice = dice.ppm(near.duplicate_ppm);
        let link = match to {
            Owner::Host(host) => &mut self.hosts[host.0].link,
            Owner::Router(router) => &mut self.routers[router.0].link,
        };
        let Some(second) = link.cross(now, &packet, round_trip, dice) else { return Way::Lost };
        let copy = (twice || dice.ppm(link.duplicate_ppm)).then_some(first + second + COPY_AFTER);
        Way::Arrives { after: first + second, landing: Landing(None), packet, copy }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Dependence, GateConfig, PacketKind};

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    struct Place {
        fabric: Fabric,
        dice: Dice,
        inner: HostId,
        sibling: HostId,
        outer: HostId,
    }

    /// A host and its sibling behind a home router behind a carrier's, and a host on the Internet.
    fn place(filtering: Dependence, hairpin: bool) -> Place {
        let mut fabric = Fabric::default();
        let config = GateConfig { hairpin, ..GateConfig::nat(Dependence::Independent, filtering) };
        let link = Link::with_latency(Duration::from_millis(20));
        let carrier = Gate::new(config.clone(), Some(ip("44.5.0.1")));
        let open = Gate::new(GateConfig::open(), None);
        let carrier = fabric.add_router(None, carrier, open.clone(), link.clone());
        let home = Gate::new(config, Some(ip("100.64.0.9")));
        let home = fabric.add_router(Some(carrier), home, open, Link::default());
        let ips = [ip("192.168.1.2"), ip("2600:5::2")];
        let inner = fabric.add_host(Some(home), &ips, Link::default());
        let sibling = fabric.add_host(Some(home), &[ip("192.168.1.3")], Link::default());
        let outer = fabric.add_host(None, &[ip("44.0.1.1"), ip("2600:1::1")], link);
        Place { fabric, dice: Dice::new(1), inner, sibling, outer }
    }

    impl Place {
        fn send(&mut self, from: HostId, src: &str, dst: Addr) -> (Duration, Fate) {
            let src = Addr::tcp(ip(src), 4001);
            let packet = Packet::bare(src, dst, PacketKind::Open);
            let now = Instant::ZERO;
            match self.fabric.send(now, from, packet, &mut self.dice) {
                Way::Arrives { after, landing, packet, .. } => {
                    (after, self.fabric.land(now, landing, packet))
                }
                Way::Lost => (Duration::ZERO, Fate::Lost),
            }
        }
    }

    #[test]
    fn a_packet_is_translated_twice_and_its_answer_finds_the_way_back() {
        let mut place = place(Dependence::AddressAndPort, true);
        let dst = Addr::tcp(ip("44.0.1.1"), 4001);
        let (took, fate) = place.send(place.inner, "192.168.1.2", dst);
        assert_eq!(took, Duration::from_millis(40));
        let Fate::Delivered(host, packet) = fate else { panic!("{fate:?}") };
        assert_eq!((host, packet.src), (place.outer, Addr::tcp(ip("44.5.0.1"), 4001)));
        let (_, fate) = place.send(place.outer, "44.0.1.1", packet.src);
        let Fate::Delivered(host, packet) = fate else { panic!("{fate:?}") };
        assert_eq!((host, packet.dst), (place.inner, Addr::tcp(ip("192.168.1.2"), 4001)));
        let stranger = Addr::tcp(ip("44.9.9.9"), 1);
        let observed = Addr::tcp(ip("44.5.0.1"), 4001);
        assert_eq!(place.fabric.would_reach(Instant::ZERO, stranger, observed, Room::AsItIs), None);
    }

    #[test]
    fn ipv6_passes_untranslated_through_open_gates() {
        let mut place = place(Dependence::AddressAndPort, true);
        let inner = Addr::tcp(ip("2600:5::2"), 4001);
        let (_, fate) = place.send(place.outer, "2600:1::1", inner);
        assert!(matches!(fate, Fate::Delivered(host, _) if host == place.inner), "{fate:?}");
        place.fabric.set_ips(place.inner, &[ip("192.168.1.2")]);
        let (_, fate) = place.send(place.outer, "2600:1::1", inner);
        assert_eq!(fate, Fate::Lost, "the address is gone, on every level");
    }

    #[test]
    fn siblings_meet_by_hairpin_where_there_is_one() {
        for hairpin in [true, false] {
            let mut place = place(Dependence::Independent, hairpin);
            let dst = Addr::tcp(ip("44.0.1.1"), 4001);
            place.send(place.inner, "192.168.1.2", dst);
            let external = Addr::tcp(ip("44.5.0.1"), 4001);
            let (took, fate) = place.send(place.sibling, "192.168.1.3", external);
            let met = matches!(fate, Fate::Delivered(host, _) if host == place.inner);
            assert_eq!(met, hairpin, "{fate:?}");
            assert!(took < Duration::from_millis(1), "it never left the site");
            let lan = Addr::tcp(ip("192.168.1.2"), 4001);
            let (_, fate) = place.send(place.sibling, "192.168.1.3", lan);
            assert!(matches!(fate, Fate::Delivered(host, _) if host == place.inner));
        }
    }

    #[test]
    fn nobody_answers_for_an_address_that_nobody_has() {
        let mut place = place(Dependence::Independent, true);
        for dst in ["44.7.7.7", "192.168.9.9", "2600:7::7"] {
            let (_, fate) = place.send(place.inner, "192.168.1.2", Addr::tcp(ip(dst), 1));
            assert_eq!(fate, Fate::Lost, "{dst}");
        }
        let rule = Rule {
            matches: crate::net::Matches::default(),
            verdict: RuleVerdict::Drop,
            since: Instant::ZERO,
            until: None,
        };
        place.fabric.rules.push(rule);
        let dst = Addr::tcp(ip("44.0.1.1"), 4001);
        assert_eq!(place.send(place.inner, "192.168.1.2", dst).1, Fate::Lost);
        place.fabric.heal();
        assert_ne!(place.send(place.inner, "192.168.1.2", dst).1, Fate::Lost);
    }
}
