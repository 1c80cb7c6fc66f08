//! Which relay of several: the near ones, and of two of them the emptier one.

use crate::words::addr::Domain;
use crate::{Draw, Duration, Group, PeerId};
use alloc::vec::Vec;

/// How much farther than the nearest a relay may be: the larger of this many milliseconds (Tailscale's
/// hysteresis) and a fifth (design §3 *relay*). Load is spread wider as it grows, over longer ways.
const NEAR: Duration = Duration::from_millis(10);
/// How full the emptier of two may be, thousandths, before those count as well that are within
/// [`NEAR`] but more than a fifth farther than the nearest; ours: three quarters. Where relays are
/// very near, ten milliseconds are several times the way. Load is spread less as it grows.
const CROWDED: u16 = 750;
/// By how much another relay must beat an incumbent, milliseconds (Tailscale's value), and by a
/// third besides. Changes get rarer as it grows.
const BETTER_BY: Duration = Duration::from_millis(10);
/// The load that counts for a relay that tells none, thousandths; ours: the middle.
const LOAD_ASSUMED: u16 = 500;

/// A relay that could be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) peer: PeerId,
    pub(super) rtt: Duration,
    pub(super) load: Option<u16>,
    pub(super) place: Place,
}

/// Where a relay stands among others: in a network, and among what fails together with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) group: Group,
    pub(super) domain: Domain,
}

impl Place {
    /// Whether one failure, or one operator, may take out both.
    pub(super) fn is_near(&self, other: &Place) -> bool {
        self.group == other.group || self.domain == other.domain
    }
}

/// One of the relays: of a source and in a network that are not `taken` where there is one, else in a
/// network that is not, near, and by the power
/// of two choices the emptier one. Whoever lies within a fifth of the nearest comes before the
/// others that are near, unless it is crowded.
pub(super) fn choose(draw: &mut dyn Draw, entries: &[Entry], taken: &[Place]) -> Option<PeerId> {
    let without = |shares: &dyn Fn(&Place, &Place) -> bool| -> Vec<Entry> {
        let is_apart = |one: &&Entry| !taken.iter().any(|other| shares(&one.place, other));
        entries.iter().filter(is_apart).copied().collect()
    };
    let mut apart = without(&Place::is_near);
    if apart.is_empty() {
        apart = without(&|one, other| one.group == other.group);
    }
    let entries = if apart.is_empty() { entries } else { &apart };
    let best = entries.iter().map(|one| one.rtt).min()?;
    let within = |span: Duration| -> Vec<&Entry> {
        entries.iter().filter(|one| one.rtt <= best + span).collect()
    };
    let (nearest, near) = (within(best / 5), within(NEAR.max(best / 5)));
    let first = emptier(draw, &nearest)?;
    if load(first) < CROWDED || near.len() == nearest.len() {
        return Some(first.peer);
    }
    emptier(draw, &near).map(|one| one.peer)
}

/// Of two that are drawn, the emptier one.
fn emptier<'a>(draw: &mut dyn Draw, of: &[&'a Entry]) -> Option<&'a Entry> {
    let (first, rest) = draw_one(draw, of)?;
    let second = draw_one(draw, &rest).map(|(second, _)| second);
    Some(second.filter(|second| load(second) < load(first)).unwrap_or(first))
}

fn load(one: &Entry) -> u16 {
    one.load.unwrap_or(LOAD_ASSUMED)
}

/// Whether a relay at this distance replaces one at that.
pub(super) fn is_better(challenger: Duration, incumbent: Duration) -> bool {
    challenger + BETTER_BY <= incumbent && challenger * 3 <= incumbent * 2
}

/// One of them, and the others.
fn draw_one<'a>(draw: &mut dyn Draw, of: &[&'a Entry]) -> Option<(&'a Entry, Vec<&'a Entry>)> {
    let index = match of.len() {
        0 | 1 => 0,
        len => draw.below(u64::try_from(len).unwrap_or(u64::MAX)),
    };
    let mut others = of.to_vec();
    let index = usize::try_from(index).unwrap_or(0);
    (index < others.len()).then(|| (others.remove(index), others))
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;

    /// Draws these numbers, then zeros.
    struct Draws(Vec<u64>);

    impl Draw for Draws {
        fn below(&mut self, n: u64) -> u64 {
            let next = if self.0.is_empty() { 0 } else { self.0.remove(0) };
            next.min(n.saturating_sub(1))
        }
        fn nonce(&mut self) -> u64 {
            0
        }
    }

    fn entry(net: u8, millis: u64, load: impl Into<Option<u16>>) -> Entry {
        Entry {
            peer: PeerId::random(),
            rtt: Duration::from_millis(millis),
            load: load.into(),
            place: Place { group: network(net), domain: Domain::Network(network(net)) },
        }
    }

    fn network(net: u8) -> Group {
        Group::of(Ipv4Addr::new(44, 0, net, 1).into(), false)
    }

    fn chosen(entries: &[Entry], taken: &[Place], draws: &[u64]) -> Option<usize> {
        let peer = choose(&mut Draws(draws.to_vec()), entries, taken)?;
        entries.iter().position(|one| one.peer == peer)
    }

    #[test]
    fn only_near_ones_are_eligible() {
        let all = [entry(1, 20, 900), entry(2, 30, 900), entry(3, 31, 0)];
        for draws in [[0, 0], [0, 1], [1, 0], [9, 9]] {
            assert_ne!(chosen(&all, &[], &draws), Some(2), "31 ms is 11 ms too far");
        }
        let far = [entry(1, 200, 900), entry(2, 240, 0), entry(3, 241, 0)];
        assert_eq!(chosen(&far, &[], &[0, 0]), Some(1), "a fifth farther, and empty");
        assert_eq!(chosen(&[], &[], &[]), None);
    }

    #[test]
    fn of_two_that_are_drawn_the_emptier_wins() {
        let all = [entry(1, 20, 700), entry(2, 20, None), entry(3, 20, 100)];
        assert_eq!(chosen(&all, &[], &[0, 0]), Some(1), "700 against the middle");
        assert_eq!(chosen(&all, &[], &[1, 0]), Some(1));
        assert_eq!(chosen(&all, &[], &[1, 1]), Some(2), "the middle against 100");
        let alike = [entry(1, 20, 500), entry(2, 20, None)];
        assert_eq!(chosen(&alike, &[], &[0, 0]), Some(0), "the first drawn");
        assert_eq!(chosen(&alike, &[], &[1, 0]), Some(1));
    }

    #[test]
    fn who_is_within_a_fifth_comes_first_unless_it_is_crowded() {
        let all = |load: u16| [entry(1, 5, load), entry(2, 14, 0), entry(3, 15, 0)];
        for draws in [[0, 0], [0, 1], [1, 0], [9, 9]] {
            assert_eq!(
                chosen(&all(749), &[], &draws),
                Some(0),
                "14 ms is nearly three times the way"
            );
        }
        assert_eq!(chosen(&all(750), &[], &[0, 0]), Some(1), "the nearest is crowded");
        assert_eq!(chosen(&all(750), &[], &[2, 0]), Some(2));
        let full = [entry(1, 5, 900), entry(2, 14, 950)];
        assert_eq!(chosen(&full, &[], &[1, 0]), Some(0), "the other is fuller");
    }

    #[test]
    fn another_network_comes_first() {
        let all = [entry(1, 20, 0), entry(1, 21, 0), entry(2, 90, 900)];
        let taken = [all[0].place];
        assert_eq!(chosen(&all, &taken, &[0, 0]), Some(2));
        assert_eq!(chosen(&all[..2], &taken, &[0, 0]), Some(0), "better than none");
    }

    #[test]
    fn an_incumbent_is_beaten_by_ten_milliseconds_and_a_third() {
        let better = |a, b| is_better(Duration::from_millis(a), Duration::from_millis(b));
        assert!(better(20, 30) && better(100, 150) && better(0, 10));
        assert!(!better(21, 30), "9 ms");
        assert!(!better(101, 150), "less than a third");
    }
}
