//! Long walks by chance through whatever can befall a node: the promises hold after every fact.
//!
//! The seed is fixed and printed; `PORTOLAN_WALK_SEED` and `PORTOLAN_WALKS` ask for another run. A
//! walk that fails is printed as a story, made as short as it can be.

use portolan_core::{Outcome, Scope, Served, State};
use portolan_sim::facts::walk::{Dice, choose, minimised};
use portolan_sim::facts::{Bench, Draws, Fact, Promises, Seen, Shape, script};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// The seed of an ordinary run; any other is as good.
const SEED: u64 = 20_261_126;
/// Walks of each kind in an ordinary run.
const WALKS: u64 = 60;
/// Facts of one walk.
const FACTS: usize = 300;

fn from_env(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// What is wrong after these facts, if anything is.
fn judge(shape: &Arc<Shape>, facts: &[Fact]) -> Result<Seen, String> {
    let run = || {
        let (mut bench, mut promises) = Promises::begin(shape);
        for fact in facts {
            if bench.perform(fact) {
                *promises.seen.facts.entry(fact.kind()).or_default() += 1;
                promises.check(&bench)?;
                Promises::stands_still(&bench)?;
            }
        }
        Ok(promises.seen)
    };
    let said = |panic: Box<dyn std::any::Any + Send>| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
    };
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|panic| Err(said(panic).unwrap_or_else(|| "it panicked".to_owned())))
}

/// One walk: the facts, chosen one by one among those that could happen.
fn walk(shape: &Arc<Shape>, seed: u64) -> Vec<Fact> {
    let mut dice = Dice::new(seed);
    let mut bench = Bench::new(Arc::clone(shape));
    let mut facts = Vec::new();
    while facts.len() < FACTS
        && let Some(fact) = choose(bench.enabled(), &mut dice)
    {
        facts.push(fact.clone());
        // An agent that panics ends the walk; the judge will come to the same end.
        if catch_unwind(AssertUnwindSafe(|| bench.perform(&fact))).is_err() {
            break;
        }
    }
    facts
}

#[allow(clippy::print_stderr, reason = "a failure can be repeated only with its seed")]
fn run(name: &str, shape: &Shape) -> Seen {
    let seed = from_env("PORTOLAN_WALK_SEED", SEED);
    let walks = from_env("PORTOLAN_WALKS", WALKS);
    let mut seen = Seen::default();
    for number in 0..walks {
        let seed = seed + number;
        let mut shape = shape.clone();
        shape.settings.draws = [Draws::Lowest, Draws::Highest, Draws::Seed(seed)]
            [usize::try_from(number % 3).unwrap_or(0)];
        let shape = Arc::new(shape);
        let facts = walk(&shape, seed);
        match judge(&shape, &facts) {
            Ok(more) => seen.add(&more),
            Err(wrong) => {
                let short = minimised(&shape, &facts, |shape, facts| judge(shape, facts).is_err());
                let wrong = judge(&shape, &short).err().unwrap_or(wrong);
                let title = format!("Walk {name} {seed}, which is to be understood.");
                panic!("{wrong}\n\nthe story of it:\n\n{}", script(&title, &shape, &short));
            }
        }
    }
    eprintln!("walk {name}: PORTOLAN_WALK_SEED={seed} PORTOLAN_WALKS={walks}: {seen:?}");
    seen
}

/// Every outcome a probe can have, and every verdict; only that we decline to pay is too rare here,
/// since it takes three of the largest demands for one address in ten minutes.
fn demand_judgements(seen: &Seen) {
    for outcome in [
        Outcome::Proved,
        Outcome::DialFailed,
        Outcome::Refused,
        Outcome::Rejected,
        Outcome::Error,
        Outcome::DialBackError,
        Outcome::Timeout,
        Outcome::Lie,
    ] {
        assert!(seen.outcomes.contains_key(&outcome), "no {outcome:?} occurred: {seen:?}");
    }
    for verdict in [
        (State::Unknown, None),
        (State::Unreachable, None),
        (State::Reachable, Some(Scope::Contacted)),
        (State::Reachable, Some(Scope::Anywhere)),
    ] {
        assert!(seen.verdicts.contains_key(&verdict), "nothing became {verdict:?}: {seen:?}");
    }
    assert!(seen.refuted > 0 && seen.expired > 0, "no proof was lost: {seen:?}");
}

/// Every way in which a request can end.
fn demand_services(seen: &Seen) {
    for answer in [
        Served::Delivered,
        Served::DialFailed,
        Served::DialBackFailed,
        Served::Refused,
        Served::Rejected,
        Served::InternalError,
        Served::Aborted,
    ] {
        assert!(seen.served.contains_key(&answer), "no {answer:?} occurred: {seen:?}");
    }
}

#[test]
fn a_node_that_asks_servers_keeps_its_promises() {
    let seen = run("servers", &Shape::of_servers());
    demand_judgements(&seen);
    let contacted_only = (State::Reachable, Some(Scope::ContactedOnly));
    assert!(seen.verdicts.contains_key(&contacted_only), "no stranger was refused: {seen:?}");
}

#[test]
fn a_node_that_is_observed_keeps_its_promises() {
    let seen = run("observers", &Shape::of_observers());
    assert_eq!(seen.facts.len(), Shape::of_observers().kinds.len(), "{seen:?}");
}

#[test]
fn a_node_that_serves_others_keeps_its_promises() {
    demand_services(&run("requesters", &Shape::of_requesters()));
}

#[test]
fn a_node_in_the_middle_of_everything_keeps_its_promises() {
    let seen = run("everything", &Shape::of_everything());
    demand_judgements(&seen);
    demand_services(&seen);
    // A dial-back over another transport, a stranger's, one with a wrong number: none is left out.
    assert_eq!(seen.facts.len(), Shape::of_everything().kinds.len(), "{seen:?}");
}
