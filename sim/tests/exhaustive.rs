//! Small worlds tried to the end: from the start on, every fact that can happen, in every order, up
//! to a bound on their number. States in which everything goes on alike are visited once.
//!
//! `PORTOLAN_EXHAUSTIVE=full` goes deeper. A promise that breaks is printed as a story; breadth
//! comes first, so that no shorter one breaks it.

use portolan_core::{Scope, State};
use portolan_sim::facts::{Bench, Draws, Fact, Promises, Seen, Shape, script};
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;

/// The way to a state, told backwards.
struct Way {
    fact: Fact,
    before: Option<Rc<Way>>,
}

fn told(mut way: Option<&Rc<Way>>) -> Vec<Fact> {
    let mut facts = Vec::new();
    while let Some(step) = way {
        facts.push(step.fact.clone());
        way = step.before.as_ref();
    }
    facts.reverse();
    facts
}

/// What an enumeration came to.
struct Found {
    states: usize,
    transitions: usize,
    /// Whether nothing new was left at the bound.
    is_complete: bool,
    seen: Seen,
}

/// 128 bits of the key: with so many, no two of some millions of states meet by chance.
fn digest(bench: &Bench) -> (u64, u64) {
    let key = bench.canonical();
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, &key).hash(&mut hasher);
        hasher.finish()
    };
    (half(0), half(1))
}

fn explore(shape: &Arc<Shape>, depth: usize) -> Found {
    let (start, promises) = Promises::begin(shape);
    let mut visited = BTreeSet::from([digest(&start)]);
    let mut frontier = vec![(start, promises, None::<Rc<Way>>)];
    let (mut transitions, mut seen) = (0, Seen::default());
    for _ in 0..depth {
        let mut next = Vec::new();
        for (bench, promises, way) in frontier {
            for fact in bench.enabled() {
                let mut bench = bench.clone();
                let mut promises = promises.clone();
                promises.seen = Seen::default();
                transitions += 1;
                let happened = bench.perform(&fact);
                let way = Some(Rc::new(Way { fact, before: way.clone() }));
                let kept = promises.check(&bench).and_then(|()| Promises::stands_still(&bench));
                let kept = if happened { kept } else { Err("it was not enabled".to_owned()) };
                if let Err(wrong) = kept {
                    let facts = told(way.as_ref());
                    panic!("{wrong}\n\n{}", script("A way to be understood.", shape, &facts));
                }
                seen.add(&promises.seen);
                if visited.insert(digest(&bench)) {
                    bench.forget_steps();
                    next.push((bench, promises, way));
                }
            }
        }
        frontier = next;
        if frontier.is_empty() {
            break;
        }
    }
    let is_complete = frontier.is_empty();
    Found { states: visited.len(), transitions, is_complete, seen }
}

/// Explore with the lowest and with the highest draws, print what was found, and demand so many
/// states.
#[allow(clippy::print_stderr, reason = "the counts are the result")]
fn run(name: &str, shape: &Shape, (depth, full): (usize, usize), floor: usize) {
    let full_run = std::env::var("PORTOLAN_EXHAUSTIVE").is_ok_and(|how| how == "full");
    let depth = if full_run { full } else { depth };
    for draws in [Draws::Lowest, Draws::Highest] {
        let mut shape = shape.clone();
        shape.settings.draws = draws;
        let found = explore(&Arc::new(shape), depth);
        let bound = if found.is_complete { "complete" } else { "complete to that depth" };
        eprintln!(
            "exhaustive {name}, draws {draws}: {} states, {} transitions, {depth} facts deep, {bound}",
            found.states, found.transitions,
        );
        assert!(found.states >= floor, "{} states are fewer than {floor}", found.states);
        let reached = |state: State, scope: Option<Scope>| {
            let seen = found.seen.verdicts.contains_key(&(state, scope));
            assert!(seen, "no address became {state:?} {scope:?}: {:?}", found.seen);
        };
        reached(State::Reachable, Some(Scope::Contacted));
        reached(State::Reachable, Some(Scope::Anywhere));
        reached(State::Unreachable, None);
        assert!(found.seen.refuted > 0, "nothing proven was refuted: {:?}", found.seen);
    }
}

#[test]
fn two_servers_and_one_address() {
    run("2 servers, 1 address", &Shape::of_few(2, 1), (5, 6), 10_000);
}

#[test]
fn one_server_and_two_addresses() {
    run("1 server, 2 addresses", &Shape::of_few(1, 2), (5, 6), 10_000);
}

#[test]
fn one_server_and_one_address() {
    run("1 server, 1 address", &Shape::of_few(1, 1), (7, 9), 10_000);
}
