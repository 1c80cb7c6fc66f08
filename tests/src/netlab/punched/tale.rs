//! What came of a story, and of all of them.

use super::Story;
use crate::netlab::results::quantile;
use crate::netlab::rules::Layer;
use portolan_sim::net::Refusal;
use std::fmt::Write as _;

/// What came of a story.
#[derive(Clone, Debug, Default)]
pub(super) struct Tale {
    /// Whether there is a direct connection.
    pub(super) is_direct: bool,
    /// Attempts that both made, number.
    pub(super) attempts: u64,
    /// From the circuit to the direct connection, or to the word that there is none, milliseconds.
    pub(super) took_ms: u64,
    /// A round trip over the circuit, milliseconds.
    pub(super) relayed_ms: u64,
    /// Packets that went out to the other router, number.
    pub(super) packets: u64,
    /// What is not as it should be.
    pub(super) problems: Vec<String>,
}

impl Tale {
    pub(super) fn expect(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.problems.push(otherwise());
        }
    }

    pub(super) fn line(&self) -> String {
        let Tale { is_direct, attempts, took_ms, relayed_ms, packets, problems } = self;
        let word = if *is_direct { "direct" } else { "relayed" };
        let problems = problems.iter().map(|problem| format!("; PROBLEM: {problem}"));
        format!(
            "{word} after {took_ms} ms, attempts {attempts}, a round trip over the circuit \
             {relayed_ms} ms, {packets} packets to the other router{}",
            problems.collect::<String>()
        )
    }
}

/// How often it went well, and how long that took, for each transport and kind of refusal.
pub(super) fn summary(tales: &[(Story, Tale)]) -> String {
    let mut text = String::new();
    for layer in Layer::ALL {
        for refusal in [Refusal::Silent, Refusal::Reject] {
            let of = || {
                let fit = tales.iter().filter(|(story, _)| {
                    story.layer == layer && story.refusal == refusal && story.is_possible()
                });
                fit.map(|(_, tale)| tale)
            };
            let direct = || of().filter(|tale| tale.is_direct);
            let first = direct().filter(|tale| tale.attempts <= 1).count();
            let tenths = direct().map(|tale| tale.took_ms * 10 / tale.relayed_ms.max(1));
            let median = quantile(50, tenths).unwrap_or_default();
            let _ = writeln!(
                text,
                "punching over {}, {refusal:?}: of {} possible pairs {} direct, {first} on the first \
                 attempt; median {}.{} round trips over the circuit",
                layer.name(),
                of().count(),
                direct().count(),
                median / 10,
                median % 10,
            );
        }
    }
    let hopeless = || tales.iter().filter(|(story, _)| !story.is_possible());
    let packets: u64 = hopeless().map(|(_, tale)| tale.packets).sum();
    let slowest = hopeless().map(|(_, tale)| tale.took_ms).max().unwrap_or_default();
    let _ = writeln!(
        text,
        "punching: {} hopeless pairs, {packets} packets, named after {slowest} ms at most",
        hopeless().count()
    );
    text
}
