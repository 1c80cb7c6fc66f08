//! The swarm: many seeds, each a world of its own, on as many threads as wanted.

use crate::plan::{Odds, Plan, Report, Run, drawn, smallest};
use crate::watch::Violation;
use crate::workers::spread;
use crate::world::{Counts, NodeId};
use portolan_core::Duration;
use std::ops::Range;

/// A seed that broke a promise.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What it broke.
    pub violation: Violation,
}

/// What a swarm came to.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Seeds run.
    pub seeds: u64,
    /// Those that broke a promise, in the order in which they came.
    pub failures: Vec<Failure>,
    /// How much happened.
    pub counts: Counts,
    /// How long it lasted, in the worlds.
    pub lasted: Duration,
    /// How long the slowest world took to agree with what is true after it stood still.
    pub settled_max: Duration,
    /// The seed of that world, the lowest of several.
    pub slowest: Option<u64>,
    /// The sum of those times, for their mean.
    pub settled_sum: Duration,
    /// How often a node left *reachable* by a refutation.
    pub flips: u64,
}

impl Tally {
    fn add(&mut self, seed: u64, report: Report) -> Option<Failure> {
        self.seeds += 1;
        self.counts.add(report.counts);
        self.lasted += report.lasted;
        self.flips += report.flips;
        if let Some(settled_in) = report.settled_in {
            let slower = settled_in > self.settled_max;
            let lower = settled_in == self.settled_max && self.slowest.is_none_or(|it| seed < it);
            if slower || lower {
                (self.settled_max, self.slowest) = (settled_in, Some(seed));
            }
            self.settled_sum += settled_in;
        }
        let failure = report.violation.map(|violation| Failure { seed, violation });
        self.failures.extend(failure.clone());
        failure
    }
}

/// Run one seed.
pub fn run_seed(seed: u64, odds: &Odds) -> Report {
    Run::new(drawn(seed, odds)).finish()
}

/// Run seeds on so many threads. `heard` is told after each seed how it stands, and of a failure if
/// it was one; when it says no, no further seed begins.
pub fn run_seeds(
    seeds: Range<u64>,
    jobs: usize,
    odds: &Odds,
    heard: &mut dyn FnMut(&Tally, Option<&Failure>) -> bool,
) -> Tally {
    let mut tally = Tally::default();
    spread(seeds, jobs, |seed| run_seed(seed, odds), &mut |seed, report| {
        let failure = tally.add(seed, report);
        heard(&tally, failure.as_ref())
    });
    tally
}

/// What a plan does, line by line, as its first client sees it; and what came of it.
pub fn transcript(plan: &Plan, node: usize) -> (Vec<String>, Report) {
    let mut run = Run::new(plan.clone());
    run.world.transcribe(NodeId(node));
    let report = run.finish();
    (run.world.transcript().to_vec(), report)
}

/// A failure made as small as it gets: the plan, how it breaks its promise, and the transcript of the
/// node that does.
pub fn explained(failure: &Failure, odds: &Odds) -> (Plan, Violation, Vec<String>) {
    let (plan, violation) = smallest(&drawn(failure.seed, odds), &failure.violation);
    let (lines, _) = transcript(&plan, violation.node.0);
    (plan, violation, lines)
}
