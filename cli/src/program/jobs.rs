//! The commands that run nodes, on whichever runtime there is.

use crate::program::args::{Args, CheckArgs, DemoArgs, ServeArgs};
use crate::program::progress::Bar;
use crate::program::{FAILURE, Failed, USAGE, keypair, print};
use crate::{CheckOptions, DemoOptions, Report, ServeError, ServeOptions};
use async_signal::{Signal, Signals};
use clap::{CommandFactory, error::ErrorKind};
use futures::StreamExt;
use multiaddr::Multiaddr;
use portolan_runtime::record::Recording;
use portolan_runtime::traits::Runtime;
use std::io;

/// A command that needs a runtime.
pub(crate) trait Job {
    /// Do it, and say the exit code.
    async fn run<R: Runtime>(self, runtime: R) -> Result<u8, Failed>;
}

impl Job for DemoArgs {
    async fn run<R: Runtime>(self, runtime: R) -> Result<u8, Failed> {
        let options = DemoOptions { record: self.on.record.map(Recording::to) };
        let mut bar = Bar::new();
        let report = crate::demo(runtime, options, |progress| bar.show(progress)).await;
        bar.finish();
        print_report(&report?, self.json)
    }
}

impl Job for CheckArgs {
    async fn run<R: Runtime>(self, runtime: R) -> Result<u8, Failed> {
        if self.peer.is_empty() {
            no_peers();
        }
        let options = CheckOptions {
            peers: self.peer,
            listen: self.listen,
            keypair: keypair(self.key.as_deref())?,
            allow_private: self.allow_private,
            timeout: std::time::Duration::from_secs(self.timeout),
            record: self.on.record.map(Recording::to),
        };
        let mut bar = Bar::new();
        let report = crate::check(runtime, options, |progress| bar.show(progress)).await;
        bar.finish();
        print_report(&report?, self.json)
    }
}

/// The usage error of a check that has nobody to ask; ends the program.
fn no_peers() -> ! {
    let mut command = Args::command();
    command.build();
    let problem = "check needs a peer to ask: --peer MULTIADDR, as often as there are peers\n\n\
                   To see it at work without any, run `portolan demo`.";
    let check = command.find_subcommand_mut("check");
    match check {
        Some(check) => check.error(ErrorKind::MissingRequiredArgument, problem),
        None => command.error(ErrorKind::MissingRequiredArgument, problem),
    }
    .exit()
}

impl Job for ServeArgs {
    async fn run<R: Runtime>(self, runtime: R) -> Result<u8, Failed> {
        let options = ServeOptions {
            listen: self.listen,
            keypair: keypair(self.key.as_deref())?,
            allow_private: self.allow_private,
            dial_from: self.dial_from,
            record: self.on.record.map(Recording::to),
        };
        // Asked for before anything is printed: who reads the addresses may stop us at once.
        let stop = stop_signal()?;
        let ready = |addresses: &[Multiaddr]| {
            let text: String = addresses.iter().map(|address| format!("{address}\n")).collect();
            if let Err(error) = print(&text) {
                tracing::warn!(%error, "the addresses could not be printed");
            }
        };
        match crate::serve(runtime, options, ready, stop).await {
            Ok(()) => Ok(0),
            Err(error) => {
                let code = if error.is_usage() { USAGE } else { FAILURE };
                Err(Failed { code, error: format!("{error}{}", at_fault(&error)) })
            }
        }
    }
}

/// The flag that an error of the library's is about, where the user might look for it in vain.
fn at_fault(error: &ServeError) -> &'static str {
    if matches!(error, ServeError::PrivateBesideGlobal { .. }) {
        " (--allow-private)"
    } else if matches!(error, ServeError::ListenedSource { .. } | ServeError::Source { .. }) {
        " (--dial-from)"
    } else {
        ""
    }
}

fn print_report(report: &Report, json: bool) -> Result<u8, Failed> {
    let text = if json { serde_json::to_string_pretty(report)? + "\n" } else { report.to_string() };
    print(&text)?;
    Ok(report.exit_code())
}

/// Resolves when the user, or the system, wants the program to end. It works on every runtime:
/// what waits for the signals is a thread of its own.
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let mut wanted = vec![Signal::Int];
    if cfg!(unix) {
        wanted.push(Signal::Term);
    }
    let mut signals = Signals::new(wanted)?;
    Ok(async move {
        signals.next().await;
    })
}
