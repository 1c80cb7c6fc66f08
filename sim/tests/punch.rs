//! Hole punching in the simulated network: who gets a direct connection out of a relayed one, when,
//! and that nobody tries in vain. What is possible is told by packets of perfect timing, not by core.
//!
//! `PUNCH_SEEDS=whole` runs 10,000 seeds instead of the few of the gate; `PUNCH_SEED=7` runs that one
//! alone, with the transcripts of both sides. `-- --nocapture` shows the figures.

#![allow(clippy::print_stdout, reason = "figures are what most of these tests are for")]

#[path = "figures/mod.rs"]
mod figures;
#[path = "punch/liars.rs"]
mod liars;
#[path = "punch/oracle.rs"]
mod oracle;
#[path = "punch/pairs.rs"]
mod pairs;
#[path = "punch/predicted.rs"]
mod predicted;
#[path = "punch/sessions.rs"]
mod sessions;
#[path = "punch/site.rs"]
mod site;

use portolan_core::Duration;

/// The port that everybody listens on.
const PORT: u16 = 4_001;

fn seconds(span: u64) -> Duration {
    Duration::from_secs(span)
}
