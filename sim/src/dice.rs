//! Chance: one seed, and everything drawn from it in order.

use portolan_core::{Draw, Duration};

/// A seeded generator (SplitMix64): small, fast, equal on every machine, and good enough to spread
/// timers and faults. Nothing secret is ever drawn from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dice(u64);

impl Dice {
    /// The generator of a seed.
    pub const fn new(seed: u64) -> Dice {
        // Neighbouring seeds start far apart.
        Dice(mix(seed ^ 0x5851_f42d_4c95_7f2d))
    }

    /// A generator of its own for a part of the world, so that what one part draws does not move
    /// what another gets.
    #[must_use]
    pub fn fork(&mut self) -> Dice {
        Dice(mix(self.draw()))
    }

    /// The seed of such a generator.
    pub fn fork_seed(&mut self) -> u64 {
        mix(self.draw())
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// True so many times in a million.
    pub fn ppm(&mut self, chance: u32) -> bool {
        chance > 0 && self.below(1_000_000) < u64::from(chance)
    }

    /// True so many times in a hundred.
    pub fn percent(&mut self, chance: u32) -> bool {
        self.ppm(chance.saturating_mul(10_000))
    }

    /// One of several, each as likely as the next.
    ///
    /// # Panics
    /// When there is none.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.index(from.len())]
    }

    /// A place in a list of so many.
    pub fn index(&mut self, len: usize) -> usize {
        let below = self.below(u64::try_from(len).unwrap_or(u64::MAX));
        usize::try_from(below).unwrap_or(0)
    }

    /// A span up to `most`.
    pub fn span(&mut self, most: Duration) -> Duration {
        let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.below(nanos.saturating_add(1)))
    }

    /// A span between two, both included.
    pub fn span_between(&mut self, low: Duration, high: Duration) -> Duration {
        low + self.span(high.saturating_sub(low))
    }
}

impl Draw for Dice {
    fn below(&mut self, n: u64) -> u64 {
        // Multiply and shift: without the cost of a division, and fair to one part in 2^64 / n.
        let wide = u128::from(self.draw()) * u128::from(n);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    fn nonce(&mut self) -> u64 {
        self.draw()
    }
}

const fn mix(seed: u64) -> u64 {
    let a = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let b = (a ^ (a >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    b ^ (b >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_stay_below_and_reach_every_value() {
        let mut dice = Dice::new(1);
        let mut seen = [0_u32; 5];
        for _ in 0..5_000 {
            seen[dice.index(5)] += 1;
        }
        assert!(seen.iter().all(|times| (800..1_200).contains(times)), "{seen:?}");
        assert_eq!(dice.below(0), 0);
        assert_eq!(dice.below(1), 0);
        assert_eq!(dice.between(7, 7), 7);
    }

    #[test]
    fn equal_seeds_give_equal_worlds_and_others_do_not() {
        let first = |seed| Dice::new(seed).draw();
        assert_eq!(first(3), first(3));
        assert_ne!(first(3), first(4));
        let mut one = Dice::new(3);
        assert_ne!(one.fork().draw(), one.fork().draw());
    }
}
