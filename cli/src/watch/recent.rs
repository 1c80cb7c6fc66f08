//! What happened lately, for the page.

use crate::agents::Agents;
use portolan_core::{Instant, Notice};
use std::collections::VecDeque;

/// Lines kept, number; ours: a page stays readable, and an event small. When full, the oldest goes.
const LINES_MAX: usize = 60;

/// The last lines, and what peers say they are.
#[derive(Debug, Default)]
pub(super) struct Recent {
    lines: VecDeque<(Instant, String)>,
    pub(super) agents: Agents,
}

impl Recent {
    /// Something happened.
    pub(super) fn push(&mut self, at: Instant, line: &str) {
        self.lines.truncate(LINES_MAX - 1);
        self.lines.push_front((at, line.to_owned()));
    }

    /// The node said something, in these words.
    pub(super) fn noticed(&mut self, at: Instant, notice: &Notice, line: &str) {
        self.agents.noticed(notice);
        self.push(at, line);
    }

    /// The last lines, the latest first.
    pub(super) fn lines(&self) -> impl Iterator<Item = (Instant, &str)> {
        self.lines.iter().map(|(at, line)| (*at, line.as_str()))
    }
}
