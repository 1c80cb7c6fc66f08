//! One run: that of a seed, or of a file.

use super::shown::{commented, explained, name, outcome};
use super::{dialling, exit_code, node};
use crate::program::{FAILURE, Failed, USAGE, print};
use portolan_core::{Agent, Class, Config, DialBackConfig};
use portolan_runtime::identity;
use portolan_sim::plan::{Odds, Plan, Report, Run, drawn};
use portolan_sim::story;
use portolan_sim::swarm::Failure;
use portolan_sim::world::{NODES_MAX, NodeId};
use std::fmt::Display;
use std::fs;
use std::path::Path;

/// A run to its end, and what one of its nodes was told and did.
pub(super) struct Told {
    pub(super) run: Run,
    pub(super) report: Report,
    pub(super) node: usize,
}

impl Told {
    pub(super) fn of(plan: Plan, node: usize) -> Told {
        let mut run = Run::new(plan);
        run.world.transcribe(NodeId(node));
        let report = run.finish();
        Told { run, report, node }
    }

    pub(super) fn lines(&self) -> &[String] {
        self.run.world.transcript()
    }

    pub(super) fn outcome(&self) -> String {
        outcome(self.run.plan(), &self.report)
    }

    pub(super) fn name(&self) -> &str {
        name(self.run.plan(), self.node)
    }

    /// The transcript, how it ended, and what the nodes that dial have concluded.
    fn text(&self) -> String {
        let mut text: String = self.lines().iter().map(|line| format!("{line}\n")).collect();
        text += &format!("\n{}\n", self.outcome());
        let plan = self.run.plan();
        for node in dialling(plan) {
            let listen = &plan.nodes[node].listen;
            let listens = |class: &Class| listen.iter().any(|addr| addr.class() == *class);
            for class in Class::ALL.into_iter().filter(listens) {
                let words = self.run.standing(node, class).words();
                text += &format!("{} {class} {words}\n", name(plan, node));
            }
        }
        text
    }
}

/// Run the world of a seed, and print it.
pub(super) fn seed(seed: u64, named: Option<&str>) -> Result<u8, Failed> {
    let plan = drawn(seed, &Odds::default());
    let node = node(&plan, named)?;
    print(&format!("{}\n", commented(&plan.to_string())))?;
    let told = Told::of(plan, node);
    print(&told.text())?;
    let Some(violation) = told.report.violation else { return Ok(0) };
    print(&format!("\n{}", explained(&Failure { seed, violation })))?;
    Ok(FAILURE)
}

/// Run what a file tells, and print it.
pub(super) fn run(file: &Path, named: Option<&str>) -> Result<u8, Failed> {
    let text = fs::read_to_string(file).map_err(|error| about(file, FAILURE, &error))?;
    if !Plan::is_scenario(&text) {
        return story(file, &text, named);
    }
    let place = |line, what: &dyn Display| {
        let error = format!("{}:{line}: {what}", file.display());
        Failed { code: USAGE, error }
    };
    let plan = Plan::read(&text).map_err(|bad| place(bad.line, &bad.what))?;
    if plan.nodes.len() > NODES_MAX {
        let what = format!("{} nodes, a world has at most {NODES_MAX}", plan.nodes.len());
        return Err(about(file, USAGE, &what));
    }
    configured(&plan).map_err(|what| about(file, USAGE, &what))?;
    let node = node(&plan, named)?;
    let told = Told::of(plan, node);
    print(&told.text())?;
    Ok(exit_code(told.report.violation.is_some()))
}

/// Whether core takes the nodes as they are configured; what is wrong with one, if not.
fn configured(plan: &Plan) -> Result<(), String> {
    let key = identity::generate().public();
    for node in &plan.nodes {
        let Some(serves) = &node.serves else { continue };
        let mut limits = DialBackConfig::default();
        limits.sources.clone_from(&serves.from);
        let mut config = Config::default();
        config.dial_back = Some(limits);
        Agent::new(config, key.clone()).map_err(|error| format!("node {}: {error}", node.name))?;
    }
    Ok(())
}

/// Play the story of one node, print its transcript, and compare it with the one that is written
/// there.
fn story(file: &Path, text: &str, named: Option<&str>) -> Result<u8, Failed> {
    if named.is_some() {
        return Err(about(file, USAGE, &"it tells of one node, so that --node chooses nothing"));
    }
    let bad = |fault: story::Fault| Failed { code: USAGE, error: fault.to_string() };
    let lines = story::play(file, text).map_err(bad)?;
    let transcript: String = lines.iter().map(|line| format!("{line}\n")).collect();
    print(&transcript)?;
    story::compare(file, text)?;
    print("\nit went as the transcript in the file says\n")?;
    Ok(0)
}

/// A failure that has to do with a file.
fn about(file: &Path, code: u8, error: &dyn Display) -> Failed {
    Failed { code, error: format!("{}: {error}", file.display()) }
}
