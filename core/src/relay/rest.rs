//! How long a relay is left alone after a failure, and how much is tried in a minute.

use crate::words::checkpoint::saved;
use crate::{Draw, Duration, Instant, RelayFailure};
use alloc::vec::Vec;

/// The window in which attempts are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// Failures in a row that lengthen the rest, number: from there on it is the longest.
const STRIKES_MAX: u32 = 8;
/// The longest rest where no relay serves us, ours: a minute where it may be over at any moment.
const ALONE_MAX: Duration = Duration::from_secs(60);
/// The longest of one that cannot be dialled there, for as long as it has not failed too often, ours: nobody
/// tells that an uplink is back, and until a dial finds out nobody can reach us. A dial that nothing
/// answers costs some five packets.
const ALONE_QUICK_MAX: Duration = Duration::from_secs(10);
/// How many failures in a row are not too often, number; ours: some five minutes of them.
const ALONE_QUICK_STRIKES: u32 = 20;
/// The same of a relay that denied us, ours: two minutes. It is asked thirty times an hour then,
/// by who has nobody else.
const ALONE_DENIED_MAX: Duration = Duration::from_secs(120);
/// How soon a relay that the network kept from us is tried again where there is no other, ours:
/// the uplink may be back, and as yet be settling.
pub(super) const HURRY: Duration = Duration::from_secs(1);

/// The first rest after a failure and the longest; ours. Each failure in a row doubles it. Less is
/// traffic for relays that have none to give, more is time without them.
const fn bounds(failure: RelayFailure) -> (Duration, Duration) {
    let (first, longest) = match failure {
        // It is likely back soon, or another network is: milliseconds to a minute.
        RelayFailure::Disconnected => (500, 60_000),
        RelayFailure::Unreachable(_) => (5_000, 600_000),
        RelayFailure::TimedOut => (10_000, 300_000),
        // A place is free when another peer's reservation ends.
        RelayFailure::Full => (60_000, 1_800_000),
        RelayFailure::BadAnswer => (300_000, 3_600_000),
        // What was decided or built will not change soon.
        RelayFailure::Denied | RelayFailure::Unsupported | RelayFailure::BadVoucher => {
            (3_600_000, 3_600_000)
        }
    };
    (Duration::from_millis(first), Duration::from_millis(longest))
}

/// How long a relay rests after this failure and `strikes` before it. A quarter is left to chance,
/// so that not everybody comes back at once. `is_alone`: no relay serves us.
pub(super) fn rest(
    draw: &mut dyn Draw,
    failure: RelayFailure,
    strikes: u32,
    is_alone: bool,
) -> Duration {
    let (first, longest) = bounds(failure);
    let is_quick = matches!(failure, RelayFailure::Unreachable(_)) && strikes < ALONE_QUICK_STRIKES;
    let alone = if is_quick { Some(ALONE_QUICK_MAX) } else { alone_max(failure) };
    let longest = alone.filter(|_| is_alone).unwrap_or(longest).min(longest);
    let span = (first * 2u32.saturating_pow(strikes.min(STRIKES_MAX))).min(longest);
    spread(draw, span, span / 4)
}

/// Whether it is the network that failed, so that another network or moment may do.
pub(super) const fn is_networks(failure: RelayFailure) -> bool {
    match failure {
        RelayFailure::Unreachable(_) | RelayFailure::TimedOut | RelayFailure::Disconnected => true,
        RelayFailure::Unsupported
        | RelayFailure::Full
        | RelayFailure::Denied
        | RelayFailure::BadAnswer
        | RelayFailure::BadVoucher => false,
    }
}

/// How long a relay rests at most while no relay serves us; `None`: as long as ever, since it does
/// not speak the protocol as it must.
pub(super) const fn alone_max(failure: RelayFailure) -> Option<Duration> {
    match failure {
        RelayFailure::Unreachable(_)
        | RelayFailure::TimedOut
        | RelayFailure::Disconnected
        | RelayFailure::Full
        // It was wound down, most likely, and may be another process by now.
        | RelayFailure::Unsupported => Some(ALONE_MAX),
        RelayFailure::Denied => Some(ALONE_DENIED_MAX),
        RelayFailure::BadAnswer | RelayFailure::BadVoucher => None,
    }
}

/// Evenly between `least` and `least + more`.
pub(super) fn spread(draw: &mut dyn Draw, least: Duration, more: Duration) -> Duration {
    let millis = u64::try_from(more.as_millis()).unwrap_or(u64::MAX);
    least + Duration::from_millis(draw.below(millis.saturating_add(1)))
}

/// Counts what was tried within the last minute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Budget {
    /// As many as were allowed at most.
    recent: Vec<Instant>,
}

impl Budget {
    /// One more of `most` a minute, which is not zero; or from when on.
    pub(crate) fn take(&mut self, now: Instant, most: usize) -> Result<(), Instant> {
        self.recent.retain(|at| now < *at + WINDOW);
        let over = self.recent.len().checked_sub(most);
        match over.and_then(|index| self.recent.get(index)) {
            Some(at) => Err(*at + WINDOW),
            None => {
                self.recent.push(now);
                Ok(())
            }
        }
    }
}

saved!(struct Budget { recent as recent(WINDOW) });

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DialFailure;

    struct Highest;

    impl Draw for Highest {
        fn below(&mut self, n: u64) -> u64 {
            n.saturating_sub(1)
        }
        fn nonce(&mut self) -> u64 {
            0
        }
    }

    #[test]
    fn rests_double_and_end_somewhere() {
        let of = |failure, strikes| rest(&mut Highest, failure, strikes, false).as_millis();
        assert_eq!(of(RelayFailure::Disconnected, 0), 625);
        assert_eq!(of(RelayFailure::Disconnected, 1), 1_250);
        assert_eq!(of(RelayFailure::Disconnected, u32::MAX), 75_000);
        assert_eq!(of(RelayFailure::Unreachable(DialFailure::Refused), 0), 6_250);
        assert_eq!(of(RelayFailure::TimedOut, 9), 375_000);
        let alone = |failure, strikes| rest(&mut Highest, failure, strikes, true).as_millis();
        assert_eq!(alone(RelayFailure::TimedOut, 9), 75_000);
        assert_eq!(alone(RelayFailure::Disconnected, 9), 75_000);
        let unreachable = RelayFailure::Unreachable(DialFailure::TimedOut);
        assert_eq!(alone(unreachable, 0), 6_250);
        assert_eq!(alone(unreachable, 19), 12_500);
        assert_eq!(alone(unreachable, 20), 75_000);
        assert_eq!(of(unreachable, 19), 750_000, "another serves meanwhile");
        assert_eq!(of(RelayFailure::Full, 3), 600_000);
        assert_eq!(alone(RelayFailure::Full, 9), 75_000);
        assert_eq!(alone(RelayFailure::Unsupported, 9), 75_000);
        assert_eq!(alone(RelayFailure::Denied, 9), 150_000);
        assert_eq!(alone(RelayFailure::BadVoucher, 9), of(RelayFailure::BadVoucher, 0));
        assert_eq!(alone(RelayFailure::Disconnected, 0), 625);
        assert_eq!(of(RelayFailure::Denied, 0), of(RelayFailure::Denied, 9));
    }

    #[test]
    fn a_budget_says_when_it_has_more() {
        let mut budget = Budget::default();
        let at = |seconds: u64| Instant::from_millis(seconds * 1_000);
        assert_eq!(budget.take(at(0), 2), Ok(()));
        assert_eq!(budget.take(at(10), 2), Ok(()));
        assert_eq!(budget.take(at(20), 2), Err(at(60)));
        assert_eq!(budget.take(at(20), 3), Ok(()), "who may more");
        assert_eq!(budget.take(at(20), 2), Err(at(70)));
        assert_eq!(budget.take(at(70), 2), Ok(()));
        assert_eq!(budget.take(at(70), 1), Err(at(130)));
    }
}
