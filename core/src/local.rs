//! Floor 1 · what we listen on and which addresses our interfaces have.
//!
//! Knows: listening sockets by id, interface addresses, and the concrete addresses that follow
//! (a wildcard listener stands for every interface address of its family). Reads: nothing.
//!
//! ```text
//!  ListenerOpened ─► listeners ─┐
//!                               ├─► addresses ─► candidates, observed, service
//!  InterfacesChanged ─► ips ────┘
//!  GatewaysChanged ───► gateways ─────────► mapping
//! ```
//!
//! Limits: `LISTENERS_MAX`, `INTERFACES_MAX`, `GATEWAYS_MAX`; what is over them is ignored and named in a notice.
//! Link-local addresses are left out: without a zone no peer can dial them.
//!
//! A good first change here: make the gateway part of the network's identity.

use crate::words::checkpoint::{Room, are_counts, saved};
use crate::words::config::{GATEWAYS_MAX, INTERFACES_MAX, LISTENERS_MAX};
use crate::{Addr, Class, Family, Gateway, IpScope, ListenerId, Oddity, ip_scope};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::IpAddr;

/// The ground we stand on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Local {
    listeners: BTreeMap<ListenerId, Addr>,
    ips: BTreeSet<IpAddr>,
    /// Preferred ones first.
    gateways: Vec<Gateway>,
    /// Derived: every concrete address on which we listen.
    addresses: BTreeSet<Addr>,
    revision: u64,
}

impl Local {
    /// A listening socket stands.
    pub(crate) fn opened(&mut self, listener: ListenerId, addr: Addr) -> Result<(), Oddity> {
        if self.listeners.contains_key(&listener) {
            return Err(Oddity::ReusedId);
        }
        if self.listeners.len() >= LISTENERS_MAX {
            return Err(Oddity::Full);
        }
        self.listeners.insert(listener, addr);
        self.expand();
        Ok(())
    }

    /// A listening socket is gone.
    pub(crate) fn closed(&mut self, listener: ListenerId) -> Result<(), Oddity> {
        self.listeners.remove(&listener).ok_or(Oddity::UnknownListener)?;
        self.expand();
        Ok(())
    }

    /// The interfaces have these addresses now.
    pub(crate) fn interfaces_changed(&mut self, ips: Vec<IpAddr>) -> Result<(), Oddity> {
        let all: BTreeSet<IpAddr> = ips.into_iter().map(|ip| ip.to_canonical()).collect();
        let over = all.len() > INTERFACES_MAX;
        let ips: BTreeSet<IpAddr> = all.into_iter().take(INTERFACES_MAX).collect();
        if ips != self.ips {
            self.ips = ips;
            self.expand();
            // Even where no listener is concerned, another network may lie behind the same NAT.
            self.revision += 1;
        }
        if over { Err(Oddity::Full) } else { Ok(()) }
    }

    /// The host's gateways are these now.
    pub(crate) fn gateways_changed(&mut self, gateways: &[Gateway]) -> Result<(), Oddity> {
        let mut known: Vec<Gateway> = Vec::new();
        for gateway in gateways {
            let Gateway { router, interface, source } = *gateway;
            let gateway =
                Gateway { router: router.to_canonical(), interface, source: source.to_canonical() };
            let one_family = Family::of(gateway.router) == Family::of(gateway.source);
            if one_family && !known.contains(&gateway) && known.len() < GATEWAYS_MAX {
                known.push(gateway);
            }
        }
        let over = known.len() < gateways.len();
        if known != self.gateways {
            self.gateways = known;
            self.revision += 1;
        }
        if over { Err(Oddity::Full) } else { Ok(()) }
    }

    /// The gateways, preferred ones first.
    pub(crate) fn gateways(&self) -> &[Gateway] {
        &self.gateways
    }

    /// Counts every change of what this room knows.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// Every concrete address on which we listen, whatever its scope.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = Addr> + '_ {
        self.addresses.iter().copied()
    }

    /// Whether a socket with this actual local address is one that we listen on.
    pub(crate) fn listens_on(&self, addr: Addr) -> bool {
        self.addresses.contains(&addr)
            || self.listeners.values().any(|bound| {
                bound.ip.is_unspecified()
                    && bound.class() == addr.class()
                    && bound.port == addr.port
            })
    }

    /// Whether anything is listened on in this class.
    pub(crate) fn listens_in(&self, class: Class) -> bool {
        self.listeners.values().any(|bound| bound.class() == class)
    }

    /// The ports that we listen on in this class, each once, in order.
    pub(crate) fn ports(&self, class: Class) -> impl Iterator<Item = u16> {
        let ports: BTreeSet<u16> = self
            .listeners
            .values()
            .filter(|bound| bound.class() == class)
            .map(|bound| bound.port)
            .collect();
        ports.into_iter()
    }

    /// Whether an interface of ours has this address.
    pub(crate) fn is_own_ip(&self, ip: IpAddr) -> bool {
        self.ips.contains(&ip) || self.addresses.iter().any(|addr| addr.ip == ip)
    }

    /// Whether no interface has this address any more. Nobody is declared lost while interfaces
    /// are not known.
    pub(crate) fn has_lost(&self, ip: IpAddr) -> bool {
        !self.ips.is_empty() && !self.is_own_ip(ip)
    }

    /// Whether this host has an address from which one of `scope` in `family` can be dialled.
    pub(crate) fn can_dial(&self, family: Family, scope: IpScope) -> bool {
        let known = self.ips.iter().copied().chain(self.addresses.iter().map(|addr| addr.ip));
        known.filter(|ip| Family::of(*ip) == family).any(|ip| match (ip_scope(ip), scope) {
            (IpScope::Loopback, wanted) => wanted == IpScope::Loopback,
            // IPv4 hosts behind a NAT dial the world from private addresses; IPv6 has no NAT.
            (IpScope::Private, IpScope::Global) => family == Family::Ip4,
            (IpScope::Global | IpScope::Private, wanted) => wanted != IpScope::Loopback,
            (IpScope::LinkLocal | IpScope::Unusable, _) => false,
        })
    }

    /// A wildcard listener stands for every interface address of its family; loopback only where
    /// there is nothing else, since no other host can dial it.
    fn expand(&mut self) {
        let mut addresses = BTreeSet::new();
        for bound in self.listeners.values() {
            if !bound.ip.is_unspecified() {
                addresses.insert(*bound);
                continue;
            }
            let usable = |ip: &&IpAddr| {
                Family::of(**ip) == Family::of(bound.ip)
                    && matches!(ip_scope(**ip), IpScope::Global | IpScope::Private)
            };
            let loopback = |ip: &&IpAddr| {
                Family::of(**ip) == Family::of(bound.ip) && ip_scope(**ip) == IpScope::Loopback
            };
            let mut usable = self.ips.iter().filter(usable).peekable();
            let is_reached = usable.peek().is_some();
            addresses.extend(usable.map(|ip| Addr { ip: *ip, ..*bound }));
            if !is_reached {
                let ips = self.ips.iter().filter(loopback);
                addresses.extend(ips.map(|ip| Addr { ip: *ip, ..*bound }));
            }
        }
        if addresses != self.addresses {
            self.addresses = addresses;
        }
        self.revision += 1;
    }
}

saved!(struct Local {
    listeners,
    ips,
    gateways,
    addresses,
    revision as revision(Room::Local),
}, if has_counts);

fn has_counts(local: &Local) -> bool {
    are_counts(&[local.revision])
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;

    #[test]
    fn a_wildcard_listener_stands_for_every_interface() {
        let mut local = Local::default();
        let ips = ["127.0.0.1", "192.168.1.2", "44.1.2.3", "fe80::1"];
        let ips = ips.iter().map(|ip| ip.parse().expect("an address")).collect();
        local.interfaces_changed(ips).expect("few addresses");
        let wildcard = Addr::tcp(Ipv4Addr::UNSPECIFIED.into(), 4001);
        local.opened(ListenerId(1), wildcard).expect("the first listener");

        let expanded: Vec<_> = local.addresses().map(|addr| addr.ip).collect();
        assert_eq!(expanded, [Ipv4Addr::new(44, 1, 2, 3), Ipv4Addr::new(192, 168, 1, 2)]);
        assert!(local.listens_on(Addr::tcp(Ipv4Addr::LOCALHOST.into(), 4001)));
        assert!(!local.listens_on(Addr::tcp(Ipv4Addr::LOCALHOST.into(), 4002)));
        assert!(!local.listens_on(Addr::quic(Ipv4Addr::LOCALHOST.into(), 4001)));
        assert_eq!(local.opened(ListenerId(1), wildcard), Err(Oddity::ReusedId));
        local.closed(ListenerId(1)).expect("it was open");
        assert_eq!(local.addresses().count(), 0);
    }

    #[test]
    fn loopback_stands_for_a_wildcard_only_where_nothing_else_does() {
        let mut local = Local::default();
        let ips = ["127.0.0.1", "192.168.1.2"].map(|ip| ip.parse().expect("an address"));
        local.interfaces_changed(ips.to_vec()).expect("few addresses");
        local.opened(ListenerId(1), Addr::tcp(ips[1], 4001)).expect("a listener");
        let wildcard = Addr::tcp(Ipv4Addr::UNSPECIFIED.into(), 4001);
        local.opened(ListenerId(2), wildcard).expect("another listener");
        assert!(local.addresses().eq([Addr::tcp(ips[1], 4001)]), "though it was named already");
    }

    #[test]
    fn only_ipv4_dials_the_world_from_a_private_address() {
        let mut local = Local::default();
        let ips = ["10.0.0.1", "fd00::1"].map(|ip| ip.parse().expect("an address"));
        local.interfaces_changed(ips.to_vec()).expect("few addresses");
        assert!(local.can_dial(Family::Ip4, IpScope::Global));
        assert!(!local.can_dial(Family::Ip6, IpScope::Global));
        assert!(!local.can_dial(Family::Ip4, IpScope::Loopback));
    }
}
