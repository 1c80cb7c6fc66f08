//! Ports that one side predicts of its own NAT, in a number that fits beside `CONNECT` and `SYNC`.
//!
//! ```text
//!  bits  0..16   the first port        32..40   how many
//!       16..32   the step, signed      40..48   the class, in the order of `Class::ALL`
//! ```
//!
//! No IP is told: the ports are ports of the sender's own address of that class.

use crate::Class;
use crate::config::PREDICTED_PORTS_MAX;

/// The lowest port that a NAT gives out, ours: below are services of others, and a NAT that maps to
/// them does so to keep the inside port, which nobody has to predict.
const PORT_MIN: i32 = 1_024;
const PORT_MAX: i32 = u16::MAX as i32;

/// Whether somebody takes part in the prediction of ports, and what it predicts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Prediction {
    /// It does not.
    #[default]
    Off,
    /// It would send to ports that the other side predicts, and may predict its own.
    TakesPart,
    /// Its NAT is about to give out one of these.
    Ports(PredictedPorts),
}

/// Ports that a NAT gives out one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PredictedPorts {
    /// What they are of.
    pub class: Class,
    /// The likeliest; not 0.
    pub first: u16,
    /// How far it is from one to the next.
    pub step: i16,
    /// How many; not 0.
    pub count: u8,
}

impl PredictedPorts {
    /// Each of them, the likeliest first: no privileged ones, none twice, and at most
    /// [`PREDICTED_PORTS_MAX`].
    pub fn ports(self) -> impl Iterator<Item = u16> {
        let (first, step) = (i32::from(self.first), i32::from(self.step));
        let count = if step == 0 { 1 } else { i32::from(self.count) };
        (0..count)
            .map(move |number| first + number * step)
            .filter(|port| (PORT_MIN..=PORT_MAX).contains(port))
            .filter_map(|port| u16::try_from(port).ok())
            .take(PREDICTED_PORTS_MAX)
    }
}

impl Prediction {
    /// The number that says so, where anything is said.
    pub(super) fn written(self) -> Option<u64> {
        match self {
            Prediction::Off => None,
            Prediction::TakesPart => Some(0),
            Prediction::Ports(PredictedPorts { class, first, step, count }) => {
                let step = u64::from(step.cast_unsigned());
                let upper = (super::place(class) as u64) << 40 | u64::from(count) << 32;
                Some(upper | step << 16 | u64::from(first))
            }
        }
    }

    /// What a number says. Whoever says what means nothing to us takes part all the same.
    pub(super) fn read(number: u64) -> Prediction {
        let [first_low, first_high, step_low, step_high, count, class, ..] = number.to_le_bytes();
        let first = u16::from_le_bytes([first_low, first_high]);
        let step = i16::from_le_bytes([step_low, step_high]);
        match Class::ALL.get(usize::from(class)) {
            Some(class) if first > 0 && count > 0 => {
                Prediction::Ports(PredictedPorts { class: *class, first, step, count })
            }
            Some(_) | None => Prediction::TakesPart,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn ports(first: u16, step: i16, count: u8) -> Vec<u16> {
        PredictedPorts { class: Class::ALL[0], first, step, count }.ports().collect()
    }

    #[test]
    fn ports_follow_each_other_and_stay_within_bounds() {
        assert_eq!(ports(5_000, 1, 3), [5_000, 5_001, 5_002]);
        assert_eq!(ports(5_000, -2, 3), [5_000, 4_998, 4_996]);
        assert_eq!(ports(5_000, 0, 200), [5_000]);
        assert_eq!(ports(65_534, 1, 9), [65_534, 65_535]);
        assert_eq!(ports(1_025, -1, 9), [1_025, 1_024]);
        assert_eq!(ports(80, 1, 9), []);
        assert_eq!(ports(1, i16::MAX, 255), [32_768, 65_535]);
        assert_eq!(ports(5_000, 7, 255).len(), PREDICTED_PORTS_MAX);
    }

    #[test]
    fn what_is_written_stands_where_it_is_documented() {
        let class = Class::ALL[1];
        let said = Prediction::Ports(PredictedPorts { class, first: 0x1234, step: -2, count: 32 });
        assert_eq!(said.written(), Some(0x0000_0120_fffe_1234));
        assert_eq!(Prediction::TakesPart.written(), Some(0));
        assert_eq!(Prediction::Off.written(), None);
        for nonsense in [1 << 32, 0x1234, 0x0000_0720_0001_1234] {
            assert_eq!(Prediction::read(nonsense), Prediction::TakesPart, "{nonsense:x}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_written_is_read(first in 1u16.., step in any::<i16>(), count in 1u8.., n in 0..4usize) {
            let said = Prediction::Ports(PredictedPorts { class: Class::ALL[n], first, step, count });
            prop_assert_eq!(said.written().map(Prediction::read), Some(said));
        }

        #[test]
        fn no_number_says_more_ports_than_are_allowed(number in any::<u64>()) {
            if let Prediction::Ports(said) = Prediction::read(number) {
                let ports: Vec<u16> = said.ports().collect();
                prop_assert!(ports.len() <= PREDICTED_PORTS_MAX);
                prop_assert!(ports.iter().all(|port| *port >= 1_024));
                let mut distinct = ports.clone();
                distinct.sort_unstable();
                distinct.dedup();
                prop_assert_eq!(distinct.len(), ports.len());
            }
        }
    }
}
