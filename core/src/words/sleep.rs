//! What a suspend of the machine does to the moments that rooms keep.

use super::config::NAP;
use super::time::{Duration, Instant};

/// A suspend that is over. What was in flight is put off by it; what ages in truth is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sleep {
    span: Duration,
    is_nap: bool,
}

impl Sleep {
    /// We slept for `slept` some time between the last step and this one, so that nothing is put
    /// off by more than the time between the two, whatever the caller says.
    pub(crate) fn new(slept: Duration, last: Instant, now: Instant) -> Sleep {
        Sleep { span: slept.min(now.since(last)), is_nap: slept <= NAP }
    }

    /// Whether it was too short for anything to have changed meanwhile.
    pub(crate) fn is_nap(self) -> bool {
        self.is_nap
    }

    /// Give back the time that something in flight lost.
    pub(crate) fn put_off(self, at: &mut Instant) {
        *at = *at + self.span;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_put_off_by_more_than_has_passed() {
        let at = |seconds: u64| Instant::from_millis(seconds * 1_000);
        let put_off = |slept, now| {
            let mut moved = at(100);
            Sleep::new(slept, at(10), at(now)).put_off(&mut moved);
            moved
        };
        assert_eq!(put_off(Duration::from_secs(5), 20), at(105));
        assert_eq!(put_off(Duration::from_secs(15), 20), at(110));
        assert_eq!(put_off(Duration::MAX, 10), at(100));
        assert_eq!(put_off(Duration::from_nanos(u64::MAX), 12), at(102));
    }

    #[test]
    fn a_nap_is_as_long_as_the_pause_between_two_pings() {
        let is_nap = |slept| Sleep::new(slept, Instant::ZERO, Instant::ZERO).is_nap();
        assert!(is_nap(NAP));
        assert!(!is_nap(NAP + Duration::from_nanos(1)));
    }
}
