//! Who was asked, and how often: for the promises that no router is stormed and nobody else asked.

use portolan_core::{Duration, Instant};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// Everything that a host asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Whoever was asked, groups included, and when.
    asked: BTreeMap<SocketAddr, Vec<Instant>>,
}

impl Requests {
    /// A request or a datagram went to somebody.
    pub fn note(&mut self, now: Instant, to: SocketAddr) {
        self.asked.entry(to).or_default().push(now);
    }

    /// Every destination, in order.
    pub fn destinations(&self) -> impl Iterator<Item = SocketAddr> {
        self.asked.keys().copied()
    }

    /// Hosts that were asked although they are neither in this list nor a group.
    pub fn strangers(&self, known: &[IpAddr]) -> BTreeSet<IpAddr> {
        let ips = self.asked.keys().map(SocketAddr::ip);
        ips.filter(|ip| !ip.is_multicast() && !known.contains(ip)).collect()
    }

    /// How many requests went to these hosts, and to every group of their families, in all.
    pub fn count(&self, hosts: &[IpAddr]) -> usize {
        self.moments(hosts).len()
    }

    /// How many requests went to these hosts, and to every group of their families, in the busiest
    /// minute.
    pub fn busiest_minute(&self, hosts: &[IpAddr]) -> usize {
        let moments = self.moments(hosts);
        let mut first = 0;
        let mut most = 0;
        for (last, at) in moments.iter().enumerate() {
            while moments[first] + Duration::from_secs(60) <= *at {
                first += 1;
            }
            most = most.max(last + 1 - first);
        }
        most
    }

    fn moments(&self, hosts: &[IpAddr]) -> Vec<Instant> {
        let is_near = |to: &SocketAddr| hosts.iter().any(|ip| ip.is_ipv4() == to.is_ipv4());
        let counts = |to: &SocketAddr| match to.ip().is_multicast() {
            true => is_near(to),
            false => hosts.contains(&to.ip()),
        };
        let asked = self.asked.iter().filter(|(to, _)| counts(to));
        let mut moments: Vec<Instant> = asked.flat_map(|(_, moments)| moments.clone()).collect();
        moments.sort_unstable();
        moments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_minute_slides() {
        let to = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let mut requests = Requests::default();
        for second in [0, 50, 55, 61, 200] {
            requests.note(Instant::from_millis(second * 1_000), to("192.168.1.1:5351"));
        }
        requests.note(Instant::from_millis(62_000), to("239.255.255.250:1900"));
        requests.note(Instant::from_millis(62_000), to("192.168.1.66:80"));
        let router = [to("192.168.1.1:0").ip()];
        assert_eq!(requests.busiest_minute(&router), 4);
        assert_eq!(requests.count(&router), 6);
        assert_eq!(requests.strangers(&router), BTreeSet::from([to("192.168.1.66:80").ip()]));
        assert_eq!(requests.destinations().count(), 3);
        assert_eq!(Requests::default().busiest_minute(&router), 0);
    }
}
