//! The `portolan` program: it parses, calls the library, prints, and ends with the verdict.

mod args;
mod config;
mod jobs;
mod lists;
mod names;
mod pipes;
mod progress;
mod records;
mod runtimes;
mod sim;
mod watch;

use args::{Args, Command, CompletionsArgs, ConfigArgs, ConfigCommand, IdArgs};
use clap::{CommandFactory, Parser};
use portolan_runtime::identity::{self, IdentityError, Keypair};
use std::ffi::OsString;
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

/// Run the program with these arguments, the name it was called by first. Wrong use ends the
/// process; everything else ends in the code that the process is to end with.
pub fn program(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match config::expand(args.into_iter().collect()) {
        Ok(args) => Args::parse_from(args),
        Err(error) => return fail(&Failed { code: USAGE, error: error.to_string() }),
    };
    log();
    let done = match args.command {
        Command::Demo(demo) => runtimes::run(demo.on.runtime, demo),
        Command::Check(check) => runtimes::run(check.asking.on.runtime, check),
        Command::Serve(serve) => runtimes::run(serve.on.runtime, serve),
        Command::Map(map) => runtimes::run(map.on.runtime, map),
        Command::Listen(listen) => runtimes::run(listen.pipe.on.runtime, listen),
        Command::Connect(connect) => runtimes::run(connect.pipe.on.runtime, connect),
        Command::Replay(replay) => records::replay(&replay),
        Command::Sim(sim) => sim::sim(&sim),
        Command::Watch(watch) => runtimes::run(watch.asking.on.runtime, watch),
        Command::Config(config) => self::config(&config),
        Command::Completions(shell) => completions(&shell),
        Command::Id(id) => self::id(&id),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(failed) => fail(&failed),
    }
}

fn fail(failed: &Failed) -> ExitCode {
    // Where stderr is gone as well, the exit code has to do.
    let _ = writeln!(io::stderr(), "error: {}", failed.error);
    ExitCode::from(failed.code)
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

fn config(args: &ConfigArgs) -> Result<u8, Failed> {
    let ConfigArgs { command: ConfigCommand::Check { file } } = args;
    config::check(file).map_err(|error| Failed { code: USAGE, error: error.to_string() })?;
    print(&format!("{} is good\n", file.display()))?;
    Ok(0)
}

fn completions(args: &CompletionsArgs) -> Result<u8, Failed> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "portolan", &mut text);
    print(&String::from_utf8_lossy(&text))?;
    Ok(0)
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

/// Write to stdout and flush. A reader that has gone away is no failure of ours.
fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}
