//! Hole punching in the simulated network: who gets a direct connection out of a relayed one, when,
//! and that nobody tries in vain. What is possible is told by packets of perfect timing, not by core.
//!
//! `PUNCH_SEEDS=whole` runs 10,000 seeds instead of the few of the gate; `PUNCH_SEED=7` runs that one
//! alone, with the transcripts of both sides. `-- --nocapture` shows the figures.

#![allow(clippy::print_stdout, reason = "figures are what most of these tests are for")]

#[path = "punch/oracle.rs"]
mod oracle;
#[path = "punch/pairs.rs"]
mod pairs;
#[path = "punch/site.rs"]
mod site;

use portolan_core::Duration;
use portolan_sim::workers;
use std::ops::Range;

/// The port that everybody listens on.
const PORT: u16 = 4_001;

fn seconds(span: u64) -> Duration {
    Duration::from_secs(span)
}

/// The seeds to run: those of the gate, all, or one.
fn seeds(gate: u64, whole: u64) -> Range<u64> {
    let one = std::env::var("PUNCH_SEED").ok();
    if let Some(one) = one.and_then(|seed| seed.parse::<u64>().ok()) {
        return one..one + 1;
    }
    let wanted = std::env::var("PUNCH_SEEDS").unwrap_or_default();
    0..if wanted == "whole" { whole } else { wanted.parse().unwrap_or(gate) }
}

/// Run seeds on every core, and have what came of them in the order of the seeds.
fn run_seeds<T: Send>(seeds: Range<u64>, work: impl Fn(u64) -> T + Sync) -> Vec<T> {
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
fn percent(part: usize, all: usize) -> f64 {
    100.0 * count(part) / count(all.max(1))
}

fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}
