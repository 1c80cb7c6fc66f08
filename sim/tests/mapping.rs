//! Port mapping, an agent beside a simulated router: every profile with every set of protocols,
//! every attacker, and seeds in which everything happens.
//!
//! `MAPPING_SEEDS=1000` runs more seeds than the few of the gate, `MAPPING_SEED=7` that one alone,
//! with its transcript.

#[path = "mapping/attacks.rs"]
mod attacks;
#[path = "mapping/chaos.rs"]
mod chaos;
#[path = "mapping/profiles.rs"]
mod profiles;
#[path = "mapping/twice.rs"]
mod twice;

use portolan_core::config::GATEWAY_REQUESTS_MIN;
use portolan_core::{Duration, Mapping, MappingProtocol, MappingState};
use portolan_sim::router::bench::{Bench, ROUTER, Setting};
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The protocols that core speaks.
const SPOKEN: &[MappingProtocol] = &MappingProtocol::ALL;

fn seconds(span: u64) -> Duration {
    Duration::from_secs(span)
}

/// Every set of protocols, but for the empty one.
fn protocol_sets() -> Vec<Vec<MappingProtocol>> {
    let of = |bits: usize| {
        let bit = |at: &usize| bits >> at & 1 == 1;
        (0..SPOKEN.len()).filter(bit).map(|at| SPOKEN[at]).collect()
    };
    (1..1 << SPOKEN.len()).map(of).collect()
}

/// Whether every mapping is granted.
fn all_granted(mappings: &[Mapping]) -> bool {
    !mappings.is_empty() && mappings.iter().all(|one| one.state == MappingState::Granted)
}

/// No router is stormed: the budget of each of its addresses is held by each run of the process.
fn check_budget(bench: &Bench) -> Result<(), String> {
    for run in bench.earlier_requests().iter().chain([bench.requests()]) {
        for router in [IpAddr::V4(ROUTER.0), IpAddr::V6(ROUTER.1)] {
            let most = run.busiest_minute(&[router]);
            // A search is several datagrams, and what is given back in the end does not wait.
            if most > GATEWAY_REQUESTS_MIN + 16 {
                return Err(format!("{most} requests to {router} in a minute"));
            }
        }
    }
    Ok(())
}

/// The node ends in an orderly way: what the router held for it is given back within a second.
fn check_release(bench: &mut Bench) -> Result<(), String> {
    bench.close();
    bench.run(seconds(1))?;
    let released = bench.agent().is_some_and(portolan_core::Agent::has_released);
    match (released, bench.held()) {
        (true, 0) => Ok(()),
        (_, left) => Err(format!("released: {released}, and {left} mappings are left")),
    }
}

/// Run cases; those that fail are told all at once, the first of them with its transcript.
fn run_all<'a>(cases: impl Iterator<Item = (String, Setting, Case<'a>)>) {
    let mut failures = Vec::new();
    let mut shown = None;
    for (name, setting, case) in cases {
        let Err(fault) = caught(&case, &mut Bench::new(setting.clone())) else { continue };
        let Setting { seed, protocols, loss_percent, .. } = &setting;
        failures
            .push(format!("{name}, seed {seed}, {protocols:?}, {loss_percent} % lost: {fault}"));
        shown.get_or_insert_with(|| {
            let mut again = Bench::new(Setting { transcribes: true, ..setting });
            let _ = caught(&case, &mut again);
            let lines = again.transcript();
            let most =
                if std::env::var_os("MAPPING_SEED").is_some() { lines.len() } else { LINES_SHOWN };
            lines[lines.len().saturating_sub(most)..].join("\n")
        });
    }
    let shown = shown.unwrap_or_default();
    assert!(failures.is_empty(), "{shown}\n\n{} failed:\n{}", failures.len(), failures.join("\n"));
}

/// What becomes of a case; a panic of core's is a failure like any other.
fn caught(case: &Case<'_>, bench: &mut Bench) -> Result<(), String> {
    let done = catch_unwind(AssertUnwindSafe(|| case(bench)));
    done.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map_or("", String::as_str);
        Err(format!("panicked: {text}"))
    })
}

/// Run one case.
fn run_one(name: &str, setting: Setting, case: impl Fn(&mut Bench) -> Result<(), String>) {
    run_all(std::iter::once((name.to_owned(), setting, Box::new(case) as Case<'_>)));
}

/// What happens on a bench, and what must hold.
type Case<'a> = Box<dyn Fn(&mut Bench) -> Result<(), String> + 'a>;

/// Lines of the transcript of a failure that are shown, number.
const LINES_SHOWN: usize = 300;
