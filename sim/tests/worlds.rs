//! Whole worlds: the matrix, the liars, and a share of the swarm. `tests/full.sh` runs all of it.
//!
//! `PORTOLAN_SWARM=A..B` asks for other seeds, `PORTOLAN_LIARS=N` for more runs with liars.

use portolan_core::{Class, Duration, Family, Transport};
use portolan_sim::liars::SETTINGS;
use portolan_sim::matrix::{Cell, CellReport, Conditions, Kind, Matrix, Sample, measure};
use portolan_sim::net::Dependence;
use portolan_sim::plan::{Odds, Plan, Run, drawn};
use portolan_sim::swarm::{explained, run_seeds};
use std::ops::Range;

/// Seeds of the swarm in an ordinary run.
const SEEDS: Range<u64> = 0..1_500;
/// Runs with liars in an ordinary run, all settings together.
const LIAR_RUNS: u64 = 52;
/// A round trip of the matrix.
const ROUND_TRIP: Duration = Duration::from_millis(40);

fn jobs() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn measured(loss_ppm: u32, runs: u64, wanted: &dyn Fn(&Cell) -> bool) -> Matrix {
    let conditions = Conditions { round_trip: ROUND_TRIP, loss_ppm, runs, jobs: jobs() };
    measure(&conditions, wanted, &mut |_: &CellReport| {})
}

fn median(samples: impl Iterator<Item = Duration>) -> Duration {
    let mut all: Vec<Duration> = samples.collect();
    all.sort();
    all[all.len() / 2]
}

#[test]
fn every_cell_states_what_its_evidence_permits() {
    let matrix = measured(0, 2, &|_| true);
    assert!(matrix.cells.len() >= 130, "{} cells", matrix.cells.len());
    for report in &matrix.cells {
        let cell = &report.cell;
        let said: Vec<&str> = report.samples.iter().map(|one| one.words.as_str()).collect();
        let broken = report.samples.iter().find_map(|one| one.violation.clone());
        assert_eq!(report.right(), report.samples.len(), "{cell:?}: {said:?} {broken:?}");
        assert_eq!(report.wrong(), 0, "{cell:?}: {said:?}");
    }
    for (transport, round_trips) in [(Transport::Tcp, 10), (Transport::Quic, 6)] {
        let of_it = matrix.cells.iter().filter(|report| report.cell.class.transport == transport);
        let took = median(of_it.flat_map(|report| &report.samples).map(|one| one.took));
        eprintln!("median time to verdict over {}: {took:?}", transport.name());
        assert!(took <= ROUND_TRIP * round_trips, "{took:?} over {}", transport.name());
    }
    let dependent: Vec<&CellReport> = matrix.dependent().collect();
    assert!(dependent.len() >= 4, "mappings that depend on the endpoint are there");
    for sample in dependent.iter().flat_map(|report| &report.samples) {
        let named_in = sample.named_in.expect("it was named");
        assert!(named_in <= ROUND_TRIP * 2, "{named_in:?} after the second observation");
    }
}

#[test]
fn lost_packets_make_no_verdict_wrong() {
    let nats = |cell: &Cell| {
        matches!(cell.kind, Kind::None | Kind::Nat(Dependence::Independent, _))
            && cell.class.family == Family::Ip4
    };
    let matrix = measured(100_000, 4, &nats);
    for report in &matrix.cells {
        let said: Vec<&Sample> = report.samples.iter().collect();
        assert_eq!(report.wrong(), 0, "{:?}: {said:?}", report.cell);
    }
}

#[test]
fn whatever_liars_say_no_verdict_flips_or_is_false() {
    let runs = std::env::var("PORTOLAN_LIARS").ok().and_then(|text| text.parse().ok());
    let each = runs.unwrap_or(LIAR_RUNS).div_ceil(4);
    for setting in SETTINGS {
        let mut proven = 0;
        for seed in 1..=each {
            let report = setting.run(seed);
            assert_eq!(report.violation, None, "{setting:?}, seed {seed}");
            let counts = (report.flips, report.false_reachable, report.false_unreachable);
            assert_eq!(counts, (0, 0, 0), "{setting:?}, seed {seed}");
            proven += u64::from(report.proven);
        }
        let truth = if setting.open && setting.honest > 0 { each } else { 0 };
        assert_eq!(proven, truth, "{setting:?}");
    }
}

#[test]
fn the_swarm_keeps_every_promise() {
    let seeds = std::env::var("PORTOLAN_SWARM").ok().and_then(|text| {
        let (from, to) = text.split_once("..")?;
        Some(from.parse().ok()?..to.parse().ok()?)
    });
    let seeds: Range<u64> = seeds.unwrap_or(SEEDS);
    let odds = Odds::default();
    let tally = run_seeds(seeds.clone(), jobs(), &odds, &mut |_, failure| failure.is_none());
    eprintln!("seeds {seeds:?}: {} events, slowest {:?}", tally.counts.events, tally.settled_max);
    if let Some(failure) = tally.failures.first() {
        let (plan, violation, lines) = explained(failure, &odds);
        let tail = lines[lines.len().saturating_sub(60)..].join("\n");
        panic!(
            "portolan sim --seed {}\n{}\nmade smaller: {violation}\n{plan}\n{tail}",
            failure.seed, failure.violation
        );
    }
    assert!(tally.settled_max > Duration::ZERO, "chaos left something to settle");
    assert!(tally.flips > 0, "proven addresses were lost in the chaos");
}

#[test]
fn equal_seeds_give_equal_worlds() {
    for seed in [3, 14, 159] {
        let run = || {
            let report = Run::new(drawn(seed, &Odds::default())).finish();
            (report.counts, report.lasted, report.settled_in, report.flips)
        };
        assert_eq!(run(), run(), "seed {seed}");
    }
}

#[test]
fn a_plan_that_is_written_down_is_read_as_the_same() {
    for seed in 0..300 {
        let plan = drawn(seed, &Odds::default());
        let read = Plan::read(&plan.to_string()).expect("what is written can be read");
        assert_eq!(read.to_string(), plan.to_string(), "seed {seed}");
        if seed < 10 {
            let [one, other] = [plan, read].map(|plan| Run::new(plan).finish().counts);
            assert_eq!(one, other, "seed {seed}");
        }
    }
}

#[test]
fn what_is_false_is_seen() {
    // A stranger to all gets in nowhere behind this NAT, whatever a node would say of it.
    let cell = Cell {
        kind: Kind::Nat(Dependence::Independent, Dependence::AddressAndPort),
        class: Class::new(Family::Ip4, Transport::Tcp),
        servers: portolan_sim::matrix::Servers::Multihomed,
    };
    let mut plan = cell.plan(1, ROUND_TRIP, 0, portolan_sim::world::Costs::PORTOLAN);
    let text = format!("{plan}expect client ip4/tcp anywhere\n");
    plan = Plan::read(&text).expect("a plan with a wrong expectation");
    let report = Run::new(plan).finish();
    let violation = report.violation.expect("the expectation is wrong");
    assert_eq!(violation.promise, "what a scenario expects is so");
    assert!(violation.what.contains("found private, dial failed"), "{violation}");
}
