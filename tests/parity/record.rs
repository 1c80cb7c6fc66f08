//! What a node was told and what came of it, as it goes along.

use portolan_core::transcript::{Scribe, ShortNames};
use portolan_core::{Action, Event, Instant, PeerId};
use portolan_runtime::traits::Runtime;
use portolan_runtime::{Builder, Tap};
use std::sync::PoisonError;

/// One fact, and the actions that came of it.
pub(crate) type Step = (Event, Vec<Action>);

/// The record of one node.
pub(crate) struct Record {
    tap: Tap,
    scribe: Scribe<ShortNames>,
    /// The texts of the facts that were looked at so far.
    texts: Vec<String>,
}

impl Record {
    pub(crate) fn new() -> Record {
        let scribe = Scribe::new(ShortNames::new(PeerId::random()), Instant::ZERO);
        Record { tap: Tap::default(), scribe, texts: Vec::new() }
    }

    /// Have a node write it.
    pub(crate) fn of<R: Runtime>(&self, builder: Builder<R>) -> Builder<R> {
        builder.tap(self.tap.clone())
    }

    /// How many facts there are so far whose text begins like this.
    pub(crate) fn count(&mut self, beginning: &str) -> usize {
        let steps = self.tap.lock().unwrap_or_else(PoisonError::into_inner);
        for (event, _) in &steps[self.texts.len()..] {
            self.texts.push(self.scribe.event(event));
        }
        self.texts.iter().filter(|text| text.starts_with(beginning)).count()
    }

    /// Every step.
    pub(crate) fn steps(&self) -> Vec<Step> {
        self.tap.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
