//! One moving line on a terminal; nothing where stderr is piped.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use portolan::Progress;
use std::io::{self, IsTerminal};
use std::time::Duration;

/// The line, or its absence.
pub(crate) struct Bar(ProgressBar);

impl Bar {
    /// A line that says that something has begun.
    pub(crate) fn new() -> Bar {
        let terminal = io::stderr().is_terminal();
        let target =
            if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        bar.set_style(ProgressStyle::default_spinner());
        if terminal {
            bar.enable_steady_tick(Duration::from_millis(100));
            bar.set_message("starting");
        }
        Bar(bar)
    }

    /// Show how far it has come.
    pub(crate) fn show(&mut self, progress: &Progress) {
        let Progress { peers, connected, failed, addresses, decided, .. } = progress;
        let failed = if *failed == 0 { String::new() } else { format!(", {failed} not reached") };
        self.0.set_message(format!(
            "{connected} of {peers} peers connected{failed}; \
             {decided} of {addresses} addresses have a verdict"
        ));
    }

    /// Take the line away.
    pub(crate) fn finish(self) {
        self.0.finish_and_clear();
    }
}
