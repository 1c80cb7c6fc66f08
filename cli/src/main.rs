//! The `portolan` program: it parses, calls the library, prints, and exits with the verdict.

mod args;
mod progress;

use args::{Args, CheckArgs, Command, IdArgs, ServeArgs};
use clap::{CommandFactory, Parser, error::ErrorKind};
use multiaddr::Multiaddr;
use portolan::{CheckOptions, Report, ServeError, ServeOptions};
use portolan_runtime::identity::{self, IdentityError, Keypair};
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Wrong use of the program.
const USAGE: u8 = 2;
/// Everything else that went wrong.
const FAILURE: u8 = 1;

/// What ends the program early: an exit code and what to say on stderr.
struct Failed {
    code: u8,
    error: String,
}

impl<E: Display> From<E> for Failed {
    fn from(error: E) -> Failed {
        Failed { code: FAILURE, error: error.to_string() }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    log();
    let done = match args.command {
        Command::Demo(demo) => self::demo(demo.json).await,
        Command::Check(check) => self::check(check).await,
        Command::Serve(serve) => self::serve(serve).await,
        Command::Id(id) => self::id(&id),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(failed) => {
            // Where stderr is gone as well, the exit code has to do.
            let _ = writeln!(io::stderr(), "error: {}", failed.error);
            ExitCode::from(failed.code)
        }
    }
}

/// Logs go to stderr: warnings and errors, or what `PORTOLAN_LOG` asks for.
fn log() {
    let filter = EnvFilter::try_from_env("PORTOLAN_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    let ansi = io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(ansi)
        .with_writer(io::stderr)
        .init();
}

async fn demo(json: bool) -> Result<u8, Failed> {
    let mut bar = progress::Bar::new();
    let report = portolan::demo(|progress| bar.show(progress)).await;
    bar.finish();
    print_report(&report?, json)
}

async fn check(args: CheckArgs) -> Result<u8, Failed> {
    if args.peer.is_empty() {
        no_peers();
    }
    let mut options = CheckOptions::default();
    options.peers = args.peer;
    options.listen = args.listen;
    options.allow_private = args.allow_private;
    options.timeout = std::time::Duration::from_secs(args.timeout);
    options.keypair = keypair(args.key.as_deref())?;
    let mut bar = progress::Bar::new();
    let report = portolan::check(options, |progress| bar.show(progress)).await;
    bar.finish();
    print_report(&report?, args.json)
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

async fn serve(args: ServeArgs) -> Result<u8, Failed> {
    let mut options = ServeOptions::default();
    options.listen = args.listen;
    options.allow_private = args.allow_private;
    options.dial_from = args.dial_from;
    options.keypair = keypair(args.key.as_deref())?;
    // Asked for before anything is printed: who reads the addresses may stop us at once.
    let stop = stop_signal()?;
    let ready = |addresses: &[Multiaddr]| {
        let text: String = addresses.iter().map(|address| format!("{address}\n")).collect();
        if let Err(error) = print(&text) {
            tracing::warn!(%error, "the addresses could not be printed");
        }
    };
    match portolan::serve(options, ready, stop).await {
        Ok(()) => Ok(0),
        Err(error) => {
            let code = if error.is_usage() { USAGE } else { FAILURE };
            Err(Failed { code, error: format!("{error}{}", at_fault(&error)) })
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

fn id(args: &IdArgs) -> Result<u8, Failed> {
    let (keypair, created) = match identity::load(&args.key) {
        Err(IdentityError::Missing(_)) => (identity::load_or_create(&args.key)?, true),
        found => (found?, false),
    };
    print(&format!("{}\n", keypair.public().to_peer_id()))?;
    if created {
        writeln!(io::stderr(), "a new key was written to {}", args.key.display())?;
    }
    Ok(0)
}

/// The identity in a file, made if it is missing; without a file, a fresh one.
fn keypair(file: Option<&Path>) -> Result<Keypair, IdentityError> {
    file.map_or_else(|| Ok(identity::generate()), identity::load_or_create)
}

fn print_report(report: &Report, json: bool) -> Result<u8, Failed> {
    let text = if json { serde_json::to_string_pretty(report)? + "\n" } else { report.to_string() };
    print(&text)?;
    Ok(report.exit_code())
}

/// Write to stdout and flush. A reader that has gone away is no failure of ours.
fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Resolves when the user, or the system, wants the program to end.
#[cfg(unix)]
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Resolves when the user wants the program to end.
#[cfg(not(unix))]
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    Ok(async {
        // Where Ctrl-C cannot be waited for, the program ends by being killed.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}
