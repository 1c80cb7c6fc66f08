//! What `show` prints: the explanation, one line a thing.

use super::names::Names;
use super::render::{sources, state};
use portolan_core::{AddressExplanation, ClassExplanation, Explanation, ServerExplanation};

/// The explanation as lines.
pub(super) fn explanation(names: &Names, of: &Explanation) -> Vec<String> {
    let serve = if of.may_serve { ", may serve" } else { "" };
    let settled = if of.settled { ", settled" } else { "" };
    let mut lines = vec![format!("node {}: {}{serve}{settled}", of.state.name(), of.reason)];
    lines.extend(of.classes.iter().map(class));
    lines.extend(of.addresses.iter().map(|of| address(names, of)));
    lines.extend(of.servers.iter().map(|of| server(names, of)));
    if !of.advertised.is_empty() {
        let all: Vec<String> = of.advertised.iter().map(ToString::to_string).collect();
        lines.push(format!("advertised {}", all.join(" ")));
    }
    if of.ignored > 0 {
        lines.push(format!("ignored {}", of.ignored));
    }
    lines
}

fn class(of: &ClassExplanation) -> String {
    let provisional = if of.provisional { " (provisional)" } else { "" };
    format!(
        "class {} {}: {}; mapping {}{provisional}, filtering {}",
        of.class,
        of.state.name(),
        of.reason,
        of.mapping.name(),
        of.filtering.name(),
    )
}

fn address(names: &Names, of: &AddressExplanation) -> String {
    let known = sources(of.sources);
    let known = if known.is_empty() { "no source" } else { &known };
    let judged = state(of.state, of.scope);
    let mut line = format!("addr {} {judged}: {}; {known}", of.addr, of.reason);
    if of.proofs > 0 {
        let by = of.proved_by.map(|peer| names.name(&peer)).unwrap_or_default();
        let at = of.proved_at.map(|at| at.to_string()).unwrap_or_default();
        line.push_str(&format!(", proofs {} (last by {by} at {at})", of.proofs));
    }
    if let Some(until) = of.until {
        line.push_str(&format!(", until {until}"));
    }
    if of.pending {
        line.push_str(", pending");
    }
    line
}

fn server(names: &Names, of: &ServerExplanation) -> String {
    let gone = if of.connected { "" } else { ", gone" };
    let distrusted = if of.distrusted { ", distrusted" } else { "" };
    let outcomes: Vec<String> =
        of.outcomes.iter().map(|(outcome, count)| format!("{} {count}", outcome.name())).collect();
    let outcomes =
        if outcomes.is_empty() { "no answer yet".to_owned() } else { outcomes.join(", ") };
    format!("server {} {}{gone}{distrusted}: {outcomes}", names.name(&of.peer), of.addr)
}
