//! A link: how long a packet takes, and whether it arrives.

use super::packet::Packet;
use crate::dice::Dice;
use portolan_core::{Duration, Instant};

/// Loss that comes in bursts (Gilbert and Elliott): a good state without it, a bad one in which
/// everything is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Burst {
    /// How often a packet finds that the bad state has begun, parts in a million.
    pub begins_ppm: u32,
    /// How long the bad state lasts at most.
    pub lasts: Duration,
}

/// How a link loses packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Independent loss, parts in a million.
    pub ppm: u32,
    /// Loss in bursts.
    pub burst: Option<Burst>,
}

/// The access link of a host or of a site, the same in both directions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Time on the way.
    pub latency: Duration,
    /// The most that is added to it, evenly drawn.
    pub jitter: Duration,
    /// What gets lost.
    pub loss: Loss,
    /// How many packets are held back behind later ones, parts in a million.
    pub reorder_ppm: u32,
    /// How many arrive twice, parts in a million.
    pub duplicate_ppm: u32,
    /// The largest packet that passes, bytes.
    pub mtu: u32,
    /// Bytes a second; `None` is as fast as wanted.
    pub bytes_per_second: Option<u64>,
    /// Whether it carries anything at all.
    pub up: bool,
    /// Until when the bad state of a burst lasts.
    bad_until: Instant,
    /// When what was sent last has left.
    busy_until: Instant,
}

/// How far behind a packet that is reordered comes, ours: past several others of its flight.
const REORDERED_BY: Duration = Duration::from_millis(15);

impl Default for Link {
    fn default() -> Link {
        Link {
            latency: Duration::from_millis(10),
            jitter: Duration::ZERO,
            loss: Loss::default(),
            reorder_ppm: 0,
            duplicate_ppm: 0,
            mtu: 1_500,
            bytes_per_second: None,
            up: true,
            bad_until: Instant::ZERO,
            busy_until: Instant::ZERO,
        }
    }
}

impl Link {
    /// A link without loss or jitter.
    pub fn with_latency(latency: Duration) -> Link {
        Link { latency, ..Link::default() }
    }

    /// How long `packet` takes over this link, or `None` when it is lost. Of a bundle each packet
    /// is drawn for; a lost one that others follow is sent again after `round_trip`, as fast
    /// retransmission does, and only the last of a bundle can be lost for good.
    pub fn cross(
        &mut self,
        now: Instant,
        packet: &Packet,
        round_trip: Duration,
        dice: &mut Dice,
    ) -> Option<Duration> {
        if !self.up || packet.largest() > self.mtu || self.is_bad(now, dice) {
            return None;
        }
        let mut took = self.latency + dice.span(self.jitter);
        if self.loss.ppm > 0 {
            let lost = (1..packet.count).filter(|_| dice.ppm(self.loss.ppm)).count();
            if dice.ppm(self.loss.ppm) {
                return None;
            }
            if lost > 0 {
                took += round_trip;
            }
        }
        if dice.ppm(self.reorder_ppm) {
            took += REORDERED_BY;
        }
        if let Some(rate) = self.bytes_per_second {
            let begins = self.busy_until.max(now);
            let nanos = u64::from(packet.bytes).saturating_mul(1_000_000_000) / rate.max(1);
            self.busy_until = begins + Duration::from_nanos(nanos);
            took += self.busy_until.since(now);
        }
        Some(took)
    }

    /// Forget every weakness, as a network does that heals.
    pub fn heal(&mut self) {
        self.loss = Loss::default();
        self.jitter = Duration::ZERO;
        self.reorder_ppm = 0;
        self.duplicate_ppm = 0;
        self.up = true;
        self.bad_until = Instant::ZERO;
    }

    fn is_bad(&mut self, now: Instant, dice: &mut Dice) -> bool {
        let Some(burst) = self.loss.burst else { return false };
        if now >= self.bad_until && dice.ppm(burst.begins_ppm) {
            self.bad_until = now + dice.span(burst.lasts);
        }
        now < self.bad_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::PacketKind;
    use portolan_core::Addr;
    use std::net::{IpAddr, Ipv4Addr};

    fn packet(payload: usize) -> Packet {
        let addr = |last| Addr::tcp(IpAddr::V4(Ipv4Addr::new(44, 0, 0, last)), 1);
        Packet::carrying(addr(1), addr(2), payload)
    }

    fn cross(link: &mut Link, packet: &Packet, dice: &mut Dice) -> Option<Duration> {
        link.cross(Instant::ZERO, packet, Duration::from_millis(40), dice)
    }

    #[test]
    fn what_is_lost_is_lost_as_often_as_said() {
        let mut dice = Dice::new(7);
        let loss = Loss { ppm: 100_000, burst: None };
        let mut link = Link { loss, ..Link::default() };
        let lost = (0..10_000).filter(|_| cross(&mut link, &packet(1), &mut dice).is_none());
        assert!((900..1_100).contains(&lost.count()));
        link.heal();
        assert_eq!(cross(&mut link, &packet(1), &mut dice), Some(link.latency));
    }

    #[test]
    fn a_burst_loses_everything_for_a_while() {
        let mut dice = Dice::new(7);
        let burst = Burst { begins_ppm: 1_000_000, lasts: Duration::from_secs(1) };
        let mut link = Link { loss: Loss { ppm: 0, burst: Some(burst) }, ..Link::default() };
        assert_eq!(cross(&mut link, &packet(1), &mut dice), None);
        let until = link.bad_until;
        assert!(until > Instant::ZERO && until <= Instant::from_millis(1_000));
    }

    #[test]
    fn a_slow_link_makes_packets_wait_for_each_other() {
        let mut dice = Dice::new(7);
        let mut link = Link { bytes_per_second: Some(10_000), ..Link::default() };
        let one = packet(1_000);
        let first = cross(&mut link, &one, &mut dice).expect("nothing is lost");
        let second = cross(&mut link, &one, &mut dice).expect("nothing is lost");
        assert_eq!(first, link.latency + Duration::from_micros(105_200));
        assert_eq!(second, link.latency + Duration::from_micros(210_400));
    }

    #[test]
    fn what_is_too_large_does_not_pass() {
        let mut dice = Dice::new(7);
        let mut link = Link { mtu: 1_200, ..Link::default() };
        let [src, dst] =
            [1, 2].map(|last| Addr::quic(IpAddr::V4(Ipv4Addr::new(44, 0, 0, last)), 4001));
        let initial = Packet::bare(src, dst, PacketKind::Open);
        assert_eq!(initial.bytes, 1_252);
        assert_eq!(cross(&mut link, &initial, &mut dice), None);
        assert!(cross(&mut link, &packet(1_000), &mut dice).is_some());
    }
}
