//! Many seeds: those that break a promise, and how fast it went.

use super::shown::{explained, failed, seconds};
use super::{exit_code, jobs, print_json};
use crate::program::args::SimArgs;
use crate::program::progress::Count;
use crate::program::{Failed, print};
use crate::thousands;
use portolan_sim::plan::{Odds, SETTLE_MAX};
use portolan_sim::swarm::{Failure, Tally, run_seeds};
use serde::Serialize;
use std::ops::Range;
use std::time::Instant;

/// How many failures are made small, number; ours: each takes up to some hundred runs.
const EXPLAINED_MAX: usize = 3;

/// What the seeds came to.
#[derive(Debug, Serialize)]
struct Summary {
    seeds: u64,
    failures: Vec<FailureEntry>,
    /// How often a node left *reachable* by a refutation.
    flips: u64,
    /// Facts that cores were told.
    events: u64,
    /// How long it lasted in all worlds together.
    virtual_seconds: f64,
    /// How long it took.
    seconds: f64,
    seeds_per_second: f64,
    virtual_seconds_per_second: f64,
    events_per_second: f64,
    /// How long after its standstill the slowest world agreed with what is true.
    slowest_settling_seconds: f64,
    slowest_seed: Option<u64>,
    /// How long it may take.
    settling_bound_seconds: f64,
}

/// A seed that broke a promise.
#[derive(Debug, Serialize)]
struct FailureEntry {
    seed: u64,
    promise: &'static str,
    what: String,
    at_seconds: f64,
    command: String,
    /// A scenario and its transcript, for the first few.
    explained: Option<String>,
}

/// Run them, print those that fail as they come, and the sum.
pub(super) fn run(seeds: Range<u64>, args: &SimArgs) -> Result<u8, Failed> {
    let began = Instant::now();
    let bar = Count::new(seeds.end - seeds.start, "seeds");
    let mut heard = |tally: &Tally, failure: Option<&Failure>| {
        if let Some(failure) = failure {
            bar.say(&failed(failure));
        }
        bar.at(tally.seeds, &format!("{} failed", tally.failures.len()));
        true
    };
    let tally = run_seeds(seeds, jobs(args), &Odds::default(), &mut heard);
    bar.finish();
    let took = began.elapsed().as_secs_f64();
    let mut first: Vec<Failure> = tally.failures.clone();
    first.sort_by_key(|failure| failure.seed);
    first.truncate(EXPLAINED_MAX);
    let explained: Vec<(u64, String)> =
        first.iter().map(|failure| (failure.seed, explained(failure))).collect();
    let summary = Summary::of(&tally, took, &explained);
    if args.json {
        print_json(&summary)?;
    } else {
        let text: String = explained.into_iter().map(|(_, text)| format!("{text}\n")).collect();
        print(&format!("{text}{}", summary.text(&tally)))?;
    }
    Ok(exit_code(!tally.failures.is_empty()))
}

impl Summary {
    fn of(tally: &Tally, took: f64, explained: &[(u64, String)]) -> Summary {
        let rate = |number: f64| number / took.max(f64::EPSILON);
        let lasted = tally.lasted.as_secs_f64();
        let entry = |failure: &Failure| FailureEntry {
            seed: failure.seed,
            promise: failure.violation.promise,
            what: failure.violation.what.clone(),
            at_seconds: failure.violation.at.as_nanos() as f64 / 1e9,
            command: format!("portolan sim --seed {}", failure.seed),
            explained: explained
                .iter()
                .find(|(seed, _)| *seed == failure.seed)
                .map(|(_, text)| text.clone()),
        };
        Summary {
            seeds: tally.seeds,
            failures: tally.failures.iter().map(entry).collect(),
            flips: tally.flips,
            events: tally.counts.events,
            virtual_seconds: lasted,
            seconds: took,
            seeds_per_second: rate(tally.seeds as f64),
            virtual_seconds_per_second: rate(lasted),
            events_per_second: rate(tally.counts.events as f64),
            slowest_settling_seconds: tally.settled_max.as_secs_f64(),
            slowest_seed: tally.slowest,
            settling_bound_seconds: SETTLE_MAX.as_secs_f64(),
        }
    }

    /// For people, in two lines.
    fn text(&self, tally: &Tally) -> String {
        let seeds = counted(self.seeds, "seed");
        let failures = counted(self.failures.len() as u64, "failure");
        let flips = counted(self.flips, "flip");
        let slowest = self
            .slowest_seed
            .map(|seed| format!("slowest settling {} (seed {seed}), ", seconds(tally.settled_max)));
        format!(
            "{seeds}, {failures}, {flips}; {} seeds/s, {} virtual seconds per second, {} events/s\n\
             {}bound {}\n",
            rounded(self.seeds_per_second),
            rounded(self.virtual_seconds_per_second),
            rounded(self.events_per_second),
            slowest.unwrap_or_default(),
            seconds(SETTLE_MAX),
        )
    }
}

/// A number of things, in the plural where there are several.
fn counted(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {what}{plural}", thousands(number.into()))
}

/// A rate: with one digit behind the point where there is little before it.
fn rounded(rate: f64) -> String {
    if rate < 100.0 {
        return format!("{rate:.1}");
    }
    format!("{rate:.0}").parse().map_or_else(|_| format!("{rate:.0}"), thousands)
}
