//! How many connections may be in their handshakes at once, in all and for one source.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts inbound connections that have not finished their handshakes. When full, the caller
/// refuses the connection; nothing waits here.
#[derive(Clone, Debug)]
pub(super) struct Gate(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    all_max: usize,
    source_max: usize,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    /// Never an entry of zero, so that it has at most `all_max` entries.
    sources: BTreeMap<IpAddr, usize>,
}

/// The right to shake hands; it ends when dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    gate: Gate,
    source: IpAddr,
}

impl Gate {
    pub(super) fn new(all_max: usize, source_max: usize) -> Gate {
        Gate(Arc::new(Shared { all_max, source_max, counts: Mutex::default() }))
    }

    /// Let a connection from `ip` in, unless there are too many already.
    pub(super) fn enter(&self, ip: IpAddr) -> Option<Ticket> {
        let source = source_of(ip);
        let mut counts = self.lock();
        let of_source = counts.sources.get(&source).copied().unwrap_or(0);
        if counts.all >= self.0.all_max || of_source >= self.0.source_max {
            return None;
        }
        counts.all += 1;
        counts.sources.insert(source, of_source + 1);
        Some(Ticket { gate: self.clone(), source })
    }

    /// Whether more than half of the room is taken: time to ask strangers for a proof that they
    /// own their address.
    pub(super) fn is_crowded(&self) -> bool {
        self.lock().all > self.0.all_max / 2
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut counts = self.gate.lock();
        counts.all = counts.all.saturating_sub(1);
        let rest = counts.sources.get(&self.source).map_or(0, |count| count.saturating_sub(1));
        if rest == 0 {
            counts.sources.remove(&self.source);
        } else {
            counts.sources.insert(self.source, rest);
        }
    }
}

/// Who counts as one source: an IPv4 address, or an IPv6 /64, all of which one host can use.
pub(crate) fn source_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an IP address")
    }

    #[test]
    fn one_source_cannot_take_all_the_room() {
        let gate = Gate::new(3, 2);
        let first = gate.enter(ip("10.0.0.1")).expect("there is room");
        let _second = gate.enter(ip("10.0.0.1")).expect("there is room");
        assert!(gate.enter(ip("10.0.0.1")).is_none());
        let _other = gate.enter(ip("10.0.0.2")).expect("there is room for others");
        assert!(gate.enter(ip("10.0.0.3")).is_none(), "and then it is full");
        drop(first);
        assert!(gate.enter(ip("10.0.0.3")).is_some());
    }

    #[test]
    fn an_ipv6_network_is_one_source() {
        let gate = Gate::new(9, 1);
        let _first = gate.enter(ip("2600:1:2:3::1")).expect("there is room");
        assert!(gate.enter(ip("2600:1:2:3:ffff::9")).is_none());
        assert!(gate.enter(ip("2600:1:2:4::1")).is_some());
    }
}
