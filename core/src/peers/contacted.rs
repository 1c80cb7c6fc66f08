//! The exact IPs to which we sent the first packet: whoever answers from one of them proves
//! nothing about strangers.

use crate::Instant;
use crate::words::checkpoint::saved;
use crate::words::config::{CONTACTED_FOR, CONTACTED_MAX};
use alloc::collections::BTreeMap;
use core::net::IpAddr;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Contacted {
    last: BTreeMap<IpAddr, Instant>,
    /// Until then every IP counts as contacted: one had to be left out.
    blurred_until: Option<Instant>,
}

impl Contacted {
    pub(super) fn record(&mut self, now: Instant, ip: IpAddr) {
        if !self.last.contains_key(&ip) && self.last.len() >= CONTACTED_MAX {
            self.last.retain(|_, at| *at + CONTACTED_FOR > now);
            if self.last.len() >= CONTACTED_MAX {
                self.blurred_until = Some(now + CONTACTED_FOR);
                return;
            }
        }
        self.last.insert(ip, now);
    }

    /// Each IP, and when we sent to it last.
    pub(super) fn iter(&self, now: Instant) -> impl Iterator<Item = (IpAddr, Instant)> + '_ {
        let all = self.last.iter().map(|(ip, at)| (*ip, *at));
        all.filter(move |(_, at)| now < *at + CONTACTED_FOR)
    }

    pub(super) fn contains(&self, now: Instant, ip: IpAddr) -> bool {
        self.blurred_until.is_some_and(|until| now < until)
            || self.last.get(&ip).is_some_and(|at| now < *at + CONTACTED_FOR)
    }
}

saved!(struct Contacted {
    last as current(|now, at: &Instant| now < *at + CONTACTED_FOR),
    blurred_until as ahead(),
});

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;

    #[test]
    fn an_ip_is_forgotten_after_a_day() {
        let mut contacted = Contacted::default();
        let ip = Ipv4Addr::new(44, 0, 0, 1).into();
        contacted.record(Instant::ZERO, ip);
        assert!(contacted.contains(Instant::from_millis(86_399_999), ip));
        assert!(!contacted.contains(Instant::from_millis(86_400_000), ip));
    }

    #[test]
    fn when_full_every_ip_counts_as_contacted() {
        let mut contacted = Contacted::default();
        let stranger = IpAddr::V4(Ipv4Addr::new(9, 9, 9, 9));
        for n in 0..u32::try_from(CONTACTED_MAX).expect("a small bound") {
            contacted.record(Instant::ZERO, Ipv4Addr::from_bits(0x0a00_0000 + n).into());
        }
        assert!(!contacted.contains(Instant::ZERO, stranger));
        contacted.record(Instant::ZERO, Ipv4Addr::new(8, 8, 8, 8).into());
        assert!(contacted.contains(Instant::ZERO, stranger));
        let day_later = Instant::ZERO + CONTACTED_FOR;
        contacted.record(day_later, Ipv4Addr::new(8, 8, 8, 8).into());
        assert!(!contacted.contains(day_later, stranger));
    }
}
