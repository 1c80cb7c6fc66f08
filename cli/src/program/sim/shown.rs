//! Runs and failures as text.

use crate::thousands;
use portolan_core::Duration;
use portolan_sim::plan::{Odds, Plan, Report};
use portolan_sim::swarm::{self, Failure};

/// How many lines of the transcript of a failure are shown; ours: what led to it, on a few screens.
const LINES_SHOWN: usize = 60;

/// Some lines, each as a comment.
pub(super) fn commented(text: &str) -> String {
    text.lines().map(|line| format!("# {line}\n")).collect()
}

/// A failure in one line, with the command that shows it again.
pub(super) fn failed(Failure { seed, violation }: &Failure) -> String {
    format!("seed {seed}: {}\n  portolan sim --seed {seed}", violation.promise)
}

/// A failure made small: the scenario that breaks the promise, and how it came to that.
pub(super) fn explained(failure: &Failure) -> String {
    let (plan, violation, lines) = swarm::explained(failure, &Odds::default());
    let left_out = lines.len().saturating_sub(LINES_SHOWN);
    let mut text = format!("seed {}, made small; as a file for --scenario:\n\n", failure.seed);
    text += &format!("{plan}\n");
    if left_out > 0 {
        text += &format!("# {} lines before\n", thousands(left_out as u128));
    }
    for line in &lines[left_out..] {
        text += &format!("{line}\n");
    }
    let name = name(&plan, violation.node.0);
    text += &format!("\n{name} broke a promise {violation}\n");
    text
}

/// The name of a node.
pub(super) fn name(plan: &Plan, node: usize) -> &str {
    plan.nodes.get(node).map_or("nobody", |node| node.name.as_str())
}

/// How a run ended, in a few words.
pub(super) fn outcome(plan: &Plan, report: &Report) -> String {
    if let Some(violation) = &report.violation {
        return format!("{} broke a promise {violation}", name(plan, violation.node.0));
    }
    let events = thousands(report.counts.events.into());
    let lasted = report.lasted.as_secs_f64();
    let settled = report
        .settled_in
        .map(|settled| format!("; settled {} after the world stood still", seconds(settled)));
    format!(
        "every promise was kept over {lasted:.1} s, {events} events{}",
        settled.unwrap_or_default()
    )
}

/// A span in seconds, as short as it can be said.
pub(super) fn seconds(span: Duration) -> String {
    if span.subsec_millis() == 0 {
        format!("{} s", thousands(span.as_secs().into()))
    } else {
        format!("{:.1} s", span.as_secs_f64())
    }
}
