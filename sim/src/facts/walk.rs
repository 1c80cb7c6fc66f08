//! Walks by chance: the chooser that needs no more than a seed, and what makes a long walk short.

use super::bench::Bench;
use super::fact::{Fact, Kind};
use super::shape::Shape;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A source of choices that repeats with its seed.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The dice of this seed.
    pub const fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// A number below `n`, which is not zero.
    pub fn below(&mut self, n: usize) -> usize {
        // SplitMix64, as published: short, and good enough to choose by.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let n = u64::try_from(n).unwrap_or(u64::MAX).max(1);
        usize::try_from(z % n).unwrap_or(0)
    }
}

/// The enabled facts by their kinds, so that a kind with many facts comes no more often than one
/// with few.
pub fn by_kind(facts: Vec<Fact>) -> BTreeMap<Kind, Vec<Fact>> {
    let mut kinds: BTreeMap<Kind, Vec<Fact>> = BTreeMap::new();
    for fact in facts {
        kinds.entry(fact.kind()).or_default().push(fact);
    }
    kinds
}

/// One of the enabled facts: first its kind by weight, then any of that kind.
pub fn choose(facts: Vec<Fact>, dice: &mut Dice) -> Option<Fact> {
    let kinds = by_kind(facts);
    let total: u32 = kinds.keys().map(|kind| kind.weight()).sum();
    let mut at = dice.below(usize::try_from(total).ok()?);
    for (kind, mut facts) in kinds {
        let weight = usize::try_from(kind.weight()).ok()?;
        if at < weight {
            return Some(facts.swap_remove(dice.below(facts.len())));
        }
        at -= weight;
    }
    None
}

/// A failing walk made shorter: facts are dropped, in long runs first and then one by one, as long
/// as what is left can happen and still `fails`.
pub fn minimised(
    shape: &Arc<Shape>,
    facts: &[Fact],
    mut fails: impl FnMut(&Arc<Shape>, &[Fact]) -> bool,
) -> Vec<Fact> {
    let mut left = facts.to_vec();
    let mut run = left.len().div_ceil(2);
    while run > 0 {
        let before = left.len();
        let mut at = 0;
        while at < left.len() {
            let mut shorter = left.clone();
            shorter.drain(at..(at + run).min(left.len()));
            if Bench::replayed_without_panic(shape, &shorter) && fails(shape, &shorter) {
                left = shorter;
            } else {
                at += run;
            }
        }
        // What one fact needed may go once that fact is gone.
        run = if run == 1 && left.len() < before { 1 } else { run / 2 };
    }
    left
}

impl Bench {
    /// Whether these facts can all happen, one after the other. An agent that panics on the way
    /// does not keep them from happening.
    fn replayed_without_panic(shape: &Arc<Shape>, facts: &[Fact]) -> bool {
        let run = std::panic::AssertUnwindSafe(|| Bench::replayed(shape, facts).is_some());
        std::panic::catch_unwind(run).unwrap_or(true)
    }
}
