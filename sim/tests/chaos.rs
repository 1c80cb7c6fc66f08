//! Chaos: whatever happens, in whatever order, the agent keeps its promises.
//!
//! proptest draws structured nonsense (`chaos/ops.rs`), a world turns it into events and keeps
//! its own books of what it did (`chaos/world.rs`), and after every single event an oracle that is
//! too simple to be wrong compares the agent with the books (`chaos/oracle.rs`). The seed is fixed
//! and printed; `PORTOLAN_CHAOS_SEED` and `PORTOLAN_CHAOS_CASES` ask for another run, and
//! `PORTOLAN_CHAOS_SHRINKS` says how hard a failure is made smaller.

#![allow(clippy::wildcard_enum_match_arm, reason = "the books follow a few of many facts")]

#[path = "chaos/flood.rs"]
mod flood;
#[path = "chaos/ops.rs"]
mod ops;
#[path = "chaos/oracle.rs"]
mod oracle;
#[path = "chaos/relays.rs"]
mod relays;
#[path = "chaos/routers.rs"]
mod routers;
#[path = "chaos/served.rs"]
mod served;
#[path = "chaos/world.rs"]
mod world;

use ops::Op;
use oracle::Seen;
use proptest::collection::vec;
use proptest::prop_assert_eq;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use std::cell::{Cell, RefCell};
use world::{Lab, World};

/// The seed of an ordinary run; any other is as good.
const SEED: u64 = 20_261_120;
/// Event sequences in an ordinary run, of each kind of lab.
const CASES: u32 = 128;
/// Steps towards a smaller sequence that fails as well.
const SHRINKS: u32 = 2_000;
/// Orders in one sequence; each stands for one event or a few.
const OPS_MAX: usize = 260;

fn from_env<T: std::str::FromStr>(name: &str, otherwise: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// What draws the orders of one test.
#[allow(clippy::print_stderr, reason = "a failure can be repeated only with its seed")]
fn runner(name: &str) -> TestRunner {
    let seed = from_env("PORTOLAN_CHAOS_SEED", SEED);
    let cases = from_env("PORTOLAN_CHAOS_CASES", CASES);
    let max_shrink_iters = from_env("PORTOLAN_CHAOS_SHRINKS", SHRINKS);
    eprintln!("chaos {name}: PORTOLAN_CHAOS_SEED={seed} PORTOLAN_CHAOS_CASES={cases}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let config = Config { cases, failure_persistence: None, max_shrink_iters, ..Config::default() };
    TestRunner::new_with_rng(config, rng)
}

fn run(name: &str, lab: Lab) -> Seen {
    let seen = RefCell::new(Seen::default());
    let done = runner(name).run(&vec(ops::any_op(), 20..OPS_MAX), |ops: Vec<Op>| {
        let mut world = World::new(lab);
        for op in ops {
            world.perform(op);
        }
        world.drain();
        seen.borrow_mut().add(&world.oracle.seen);
        Ok::<(), TestCaseError>(())
    });
    if let Err(error) = done {
        panic!("chaos {name}: {error}");
    }
    seen.into_inner()
}

#[test]
fn a_node_on_the_internet_keeps_its_promises() {
    run("internet", Lab::Internet).demand_variety();
}

#[test]
fn a_node_in_a_lab_keeps_its_promises() {
    run("lab", Lab::Private).demand_variety();
}

#[test]
fn the_wall_clock_decides_nothing() {
    let told = Cell::new(0_u32);
    let done = runner("clock").run(&vec(ops::any_op(), 20..OPS_MAX), |ops: Vec<Op>| {
        let mut one = World::new(Lab::Internet);
        let mut other = World::with_another_clock(Lab::Internet);
        for op in ops {
            one.perform(op.clone());
            other.perform(op);
        }
        prop_assert_eq!(one.agent.reachability(), other.agent.reachability());
        prop_assert_eq!(one.agent.explain(), other.agent.explain());
        prop_assert_eq!(one.agent.deadline(), other.agent.deadline());
        // The number of the peer record is all that may differ.
        told.set(told.get() + u32::from(one.agent != other.agent));
        Ok(())
    });
    assert!(done.is_ok(), "{done:?}");
    assert!(told.get() > 0, "no agent was told the time");
}

#[test]
fn a_node_whose_embedder_runs_identify_keeps_its_promises() {
    run("embedder", Lab::Embedder).demand_proofs();
}
