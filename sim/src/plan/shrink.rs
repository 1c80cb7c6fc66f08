//! A smaller plan that breaks the same promise: what remains is what matters.

use super::{Change, Plan, Run};
use crate::watch::Violation;

/// Runs that making one plan smaller may take.
const TRIES_MAX: usize = 400;

/// The smallest plan found that breaks the same promise, and how it breaks it. A change that the plan
/// does without goes, then a node that nobody needs.
pub fn smallest(plan: &Plan, violation: &Violation) -> (Plan, Violation) {
    let mut search = Search { promise: violation.promise, tries: 0 };
    let mut best = (plan.clone(), violation.clone());
    best.0.changes.sort_by_key(|(at, _)| *at);
    let mut size = best.0.changes.len().div_ceil(2);
    while size > 0 && search.tries < TRIES_MAX {
        let mut from = 0;
        let mut went = false;
        while from < best.0.changes.len() && search.tries < TRIES_MAX {
            let mut smaller = best.0.clone();
            let until = (from + size).min(smaller.changes.len());
            smaller.changes.drain(from..until);
            match search.still_breaks(&smaller) {
                Some(violation) => {
                    best = (smaller, violation);
                    went = true;
                }
                None => from = until,
            }
        }
        if size == 1 && !went {
            break;
        }
        size = if size == 1 { 1 } else { size / 2 };
    }
    for node in (0..best.0.nodes.len()).rev() {
        if let Some(smaller) = without(&best.0, node)
            && let Some(violation) = search.still_breaks(&smaller)
        {
            best = (smaller, violation);
        }
    }
    best
}

struct Search {
    promise: &'static str,
    tries: usize,
}

impl Search {
    fn still_breaks(&mut self, plan: &Plan) -> Option<Violation> {
        self.tries += 1;
        let violation = Run::new(plan.clone()).finish().violation?;
        (violation.promise == self.promise).then_some(violation)
    }
}

/// The plan without a node that no change is about.
fn without(plan: &Plan, node: usize) -> Option<Plan> {
    let mut smaller = plan.clone();
    let shift = |number: &mut usize| {
        if *number == node {
            return false;
        }
        *number -= usize::from(*number > node);
        true
    };
    for (_, change) in &mut smaller.changes {
        let kept = match change {
            Change::Start(one)
            | Change::Link(one, _)
            | Change::Faults(one, _)
            | Change::Kill(one)
            | Change::CutOff(one)
            | Change::Suspend(one, _)
            | Change::Readdress(one, _)
            | Change::CloseListener(one, _)
            | Change::Listen(one, _)
            | Change::Visit(one, _) => shift(one),
            Change::Dial { node: one, to, .. } => shift(one) && shift(to),
            Change::Reboot(_)
            | Change::Renumber(..)
            | Change::Forward(..)
            | Change::Unforward(..)
            | Change::SetGate(..)
            | Change::Rule(_)
            | Change::Heal => true,
        };
        if !kept {
            return None;
        }
    }
    if smaller.expects.iter().any(|expected| expected.node >= node) {
        return None;
    }
    smaller.nodes.remove(node);
    Some(smaller)
}
