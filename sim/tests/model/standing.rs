//! What a server is worth, by the plain rules.

use portolan_core::{Class, Duration, Family, Instant, Outcome};
use std::collections::{BTreeMap, BTreeSet};

/// The standing of one server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    rest_until: Option<Instant>,
    distrusted_until: Option<Instant>,
    refused_until: BTreeMap<Class, Instant>,
    strikes: u32,
    pub(crate) multihomed: bool,
    classes: BTreeSet<Class>,
}

impl Standing {
    /// Whether it must not be asked about this class now.
    pub(crate) fn is_barred(&self, now: Instant, class: Class) -> bool {
        let bars =
            [self.rest_until, self.distrusted_until, self.refused_until.get(&class).copied()];
        bars.into_iter().flatten().any(|until| now < until)
    }

    /// Refusals cost the class for ten minutes, a lie everything for an hour; whoever is silent,
    /// limits us or is at fault rests for half a minute, and twice as long each time.
    pub(crate) fn ended(&mut self, now: Instant, class: Class, outcome: Outcome) {
        let seconds = Duration::from_secs;
        match outcome {
            Outcome::Proved | Outcome::DialFailed => self.strikes = 0,
            Outcome::Refused => {
                self.refused_until.insert(class, now + seconds(600));
            }
            Outcome::Rejected | Outcome::Timeout | Outcome::Error => {
                self.rest_until = Some(now + seconds(30 << self.strikes.min(4)));
                self.strikes += 1;
            }
            Outcome::Lie => self.distrusted_until = Some(now + seconds(3_600)),
            Outcome::DialBackError | Outcome::Declined | _ => {}
        }
    }

    /// A connection to it is there: what it refused for not having heard of it, it has heard of now.
    pub(crate) fn met(&mut self, class: Class) {
        if self.classes.insert(class) {
            self.refused_until.remove(&class);
        }
    }

    /// Whether a dial of its to this family comes from where we never sent anything.
    pub(crate) fn is_cold(&self, family: Family) -> bool {
        self.multihomed || !self.classes.iter().any(|class| class.family == family)
    }

    /// A proof that comes late still clears its name.
    pub(crate) fn proved_late(&mut self) {
        self.distrusted_until = None;
    }
}
