//! Seeds of a long test, and figures of what came of them.

use portolan_sim::workers;
use std::ops::Range;

/// How many seeds are wanted of a test whose variables begin like this: `NAME_SEED=7` is that one
/// alone, `NAME_SEEDS=whole` all of them, `NAME_SEEDS=100` so many.
pub(crate) fn seeds(name: &str, gate: u64, whole: u64) -> Range<u64> {
    let one = std::env::var(format!("{name}_SEED")).ok();
    if let Some(one) = one.and_then(|seed| seed.parse::<u64>().ok()) {
        return one..one + 1;
    }
    let wanted = std::env::var(format!("{name}_SEEDS")).unwrap_or_default();
    0..if wanted == "whole" { whole } else { wanted.parse().unwrap_or(gate) }
}

/// Run seeds on every core, and have what came of them in the order of the seeds.
pub(crate) fn run_seeds<T: Send>(seeds: Range<u64>, work: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut all = Vec::new();
    workers::spread(seeds, jobs, work, &mut |seed, result| {
        all.push((seed, result));
        true
    });
    all.sort_by_key(|(seed, _)| *seed);
    all.into_iter().map(|(_, result)| result).collect()
}

/// Of so many, how many; in a hundred.
pub(crate) fn percent(part: usize, all: usize) -> f64 {
    100.0 * count(part) / count(all.max(1))
}

pub(crate) fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}
