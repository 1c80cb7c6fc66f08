//! `portolan sim`: invented nodes in an invented network, and the terminal around them.
//!
//! What is printed on stdout depends on the arguments and this version of the program alone, but
//! for the rates, which are of the machine.

mod liars;
mod matrix;
mod scenario;
mod seeds;
mod shown;
mod table;

use crate::program::args::{Args, SimArgs};
use crate::program::{FAILURE, Failed, USAGE, print};
use clap::CommandFactory;
use clap::error::ErrorKind;
use portolan_sim::plan::{Change, Plan};
use serde::Serialize;
use std::num::NonZero;
use std::thread;

/// Do what the arguments want, and say the exit code.
pub(crate) fn sim(args: &SimArgs) -> Result<u8, Failed> {
    if args.seed.is_some() && args.matrix && args.html.is_none() {
        wrong("--seed beside --matrix chooses the run that the page shows: --html FILE is missing");
    }
    if args.seed.is_some() && !args.matrix && args.json {
        wrong("a run has no JSON document: --json goes with --seeds, --matrix and --liars");
    }
    if args.matrix {
        matrix::run(args)
    } else if let Some(seeds) = &args.seeds {
        seeds::run(seeds.clone(), args)
    } else if let Some(file) = &args.scenario {
        scenario::run(file, args.node.as_deref())
    } else if let Some(number) = args.liars {
        liars::run(number, args)
    } else {
        scenario::seed(args.seed.unwrap_or_default(), args.node.as_deref())
    }
}

/// Wrong use that only several arguments together are; ends the program.
fn wrong(problem: &str) -> ! {
    let mut command = Args::command();
    command.build();
    let sim = command.find_subcommand_mut("sim");
    match sim {
        Some(sim) => sim.error(ErrorKind::ArgumentConflict, problem),
        None => command.error(ErrorKind::ArgumentConflict, problem),
    }
    .exit()
}

/// How many threads run seeds.
fn jobs(args: &SimArgs) -> usize {
    let cores = || thread::available_parallelism().map_or(1, NonZero::get);
    args.jobs.map_or_else(cores, usize::from)
}

fn print_json(document: &impl Serialize) -> Result<(), Failed> {
    Ok(print(&format!("{}\n", serde_json::to_string_pretty(document)?))?)
}

/// 1 if something went wrong in the simulated world, else 0.
fn exit_code(failed: bool) -> u8 {
    if failed { FAILURE } else { 0 }
}

/// The node with this name, or the first that dials somebody.
fn node(plan: &Plan, name: Option<&str>) -> Result<usize, Failed> {
    let Some(name) = name else { return Ok(dialling(plan).next().unwrap_or_default()) };
    let found = plan.nodes.iter().position(|node| node.name == name);
    found.ok_or_else(|| {
        let names: Vec<&str> = plan.nodes.iter().map(|node| node.name.as_str()).collect();
        let error = format!("--node {name}: the nodes are {}", names.join(", "));
        Failed { code: USAGE, error }
    })
}

/// The nodes that dial somebody, in order.
fn dialling(plan: &Plan) -> impl Iterator<Item = usize> {
    (0..plan.nodes.len()).filter(|number| {
        let dials = |change: &Change| matches!(change, Change::Dial { node, .. } if node == number);
        plan.changes.iter().any(|(_, change)| dials(change))
    })
}
