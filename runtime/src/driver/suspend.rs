//! Noticing that the machine was suspended, and telling core before anything else.
//!
//! ```text
//!  before every event: has Timers::slept() grown? ─► Resumed ─► what changed around us ─► the event
//! ```
//!
//! A runtime's timers may stand still while the machine sleeps, and nobody says that it runs again.
//! So the driver looks whenever it wakes, and wakes every few seconds to look.

use super::Driver;
use super::limits::SUSPEND_MIN;
use crate::traits::Runtime;
use portolan_core::{Duration, Event, Instant};

/// How long the machine had been suspended, as far as core was told.
#[derive(Debug)]
pub(super) struct Told(Duration);

impl Told {
    /// A core that is new has missed nothing.
    pub(super) fn new(slept: Duration) -> Told {
        Told(slept)
    }

    /// How much longer it has been by now, where that is worth telling; what is not adds up.
    fn news(&mut self, slept: Duration) -> Option<Duration> {
        let more = slept.saturating_sub(self.0);
        if more < SUSPEND_MIN {
            // A reading of two clocks that was interrupted looks like a sleep that is taken back.
            self.0 = self.0.min(slept);
            return None;
        }
        self.0 = slept;
        Some(more)
    }
}

impl<R: Runtime> Driver<R> {
    /// The next fact for core, and its moment. That the machine was suspended goes before all that
    /// was found since, and what became of the interfaces comes right after it.
    pub(super) fn next_event(&mut self) -> Option<(Instant, Event)> {
        // Read first: if the machine is suspended right here, the fact is one from before.
        let now = self.now();
        let Some(slept) = self.told.news(self.parts.common.runtime.slept()) else {
            return Some((now, self.found.pop_front()?));
        };
        tracing::info!(?slept, "the machine was suspended");
        self.put_off(slept);
        let changed = [self.changed_interfaces(), self.changed_gateways()];
        for changed in changed.into_iter().rev().flatten() {
            self.found.push_front(changed);
        }
        Some((self.now(), Event::Resumed { slept }))
    }

    /// Nobody could use a connection, nor finish with one, while the machine slept.
    fn put_off(&mut self, slept: Duration) {
        for (_, conn) in self.table.conns_mut() {
            conn.idle_since = conn.idle_since + slept;
        }
        if let Some(stopping) = &mut self.stopping {
            stopping.until = stopping.until + slept;
            stopping.release_until = stopping.release_until + slept;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_sleep_worth_the_name_is_told_and_short_ones_add_up() {
        let millis = Duration::from_millis;
        let mut told = Told::new(millis(5_000));
        assert_eq!(told.news(millis(5_000)), None);
        assert_eq!(told.news(millis(5_600)), None);
        assert_eq!(told.news(millis(6_000)), Some(millis(1_000)));
        assert_eq!(told.news(millis(6_000)), None, "it was told");
        assert_eq!(told.news(millis(7_206_000)), Some(millis(7_200_000)));
    }

    #[test]
    fn a_reading_that_was_interrupted_hides_no_later_sleep() {
        let millis = Duration::from_millis;
        let mut told = Told::new(Duration::ZERO);
        assert_eq!(told.news(millis(3_000)), Some(millis(3_000)), "so it seems");
        assert_eq!(told.news(millis(0)), None);
        assert_eq!(told.news(millis(1_000)), Some(millis(1_000)));
    }
}
