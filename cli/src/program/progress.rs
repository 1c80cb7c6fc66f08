//! Moving lines on a terminal; nothing where stderr is piped.

use crate::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, IsTerminal, Write};
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

/// A line with a bar that says how many of a known number are done.
pub(crate) struct Count(ProgressBar);

impl Count {
    /// None of `all` is done; `what` they are stands behind the number.
    pub(crate) fn new(all: u64, what: &str) -> Count {
        let terminal = io::stderr().is_terminal();
        let target =
            if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(all), target);
        let form = format!(
            "{{bar:30}} {{human_pos}} of {{human_len}} {what}, {{per_sec}}, {{eta}} left {{msg}}"
        );
        if let Ok(style) = ProgressStyle::with_template(&form) {
            bar.set_style(style);
        }
        Count(bar)
    }

    /// So many are done.
    pub(crate) fn at(&self, done: u64, message: &str) {
        self.0.set_position(done);
        if !self.0.is_hidden() {
            self.0.set_message(message.to_owned());
        }
    }

    /// Print something on stderr, above the line where there is one.
    pub(crate) fn say(&self, text: &str) {
        // Where stderr is gone as well, the exit code has to do.
        self.0.suspend(|| {
            let _ = writeln!(io::stderr(), "{text}");
        });
    }

    /// Take the line away.
    pub(crate) fn finish(self) {
        self.0.finish_and_clear();
    }
}
