//! Programs that run in the lab: `portolan` itself, brought along by the program that made it.

use super::Host;
use super::faces::{PORTOLAN, SCRIPTED, Trick};
use serde_json::Value;
use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Starting a program and hearing its first lines takes a hundredth of this.
pub(super) const STARTS_WITHIN: Duration = Duration::from_secs(20);
/// How much longer than its own time-out a check may take.
const SLACK: Duration = Duration::from_secs(20);

/// The runtime that a program is run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub enum On {
    /// Tokio.
    Tokio,
    /// Smol.
    Smol,
}

impl On {
    /// Both.
    pub const ALL: [On; 2] = [On::Tokio, On::Smol];

    /// As `--runtime` calls it.
    pub const fn name(self) -> &'static str {
        match self {
            On::Tokio => "tokio",
            On::Smol => "smol",
        }
    }
}

/// Whose program runs, and on what, where that can be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Program {
    /// Ours.
    Portolan(On),
    /// rust-libp2p.
    Rust,
    /// js-libp2p.
    Js,
}

impl Program {
    /// Its name, and the first argument of a program of the lab that is to be it.
    pub const fn name(self) -> &'static str {
        match self {
            Program::Portolan(_) => PORTOLAN,
            Program::Rust => "rust-libp2p",
            Program::Js => "js-libp2p",
        }
    }
}

impl From<On> for Program {
    fn from(on: On) -> Program {
        Program::Portolan(on)
    }
}

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// What it listens on, with its peer id.
    pub addrs: Vec<String>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Start `portolan serve`, or what stands for it, and wait until it listens.
///
/// # Errors
/// If it does not start; what it said is in the error.
pub fn serve(
    host: &Host,
    listen: &[String],
    extra: &[String],
    program: impl Into<Program>,
) -> io::Result<Server> {
    let mut args = vec!["serve".to_owned()];
    args.extend(each("--listen", listen));
    args.extend(extra.iter().cloned());
    listening(spawn(host, args, program.into())?, listen.len())
}

/// Start a server that follows a script, and wait until it listens. `node` is where whoever asks can
/// be dialled, over TCP and over QUIC.
///
/// # Errors
/// If it does not start; what it said is in the error.
pub fn follow(
    host: &Host,
    listen: &[String],
    trick: Trick,
    node: &[String; 2],
) -> io::Result<Server> {
    let mut args = each("--listen", listen);
    let [tcp, quic] = node;
    let options = [("--trick", trick.name()), ("--tcp", tcp.clone()), ("--quic", quic.clone())];
    args.extend(options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]));
    listening(launch(host, SCRIPTED, &args)?, listen.len())
}

/// Wait until a server has said what it listens on.
fn listening(mut child: Child, wanted: usize) -> io::Result<Server> {
    let stdout = child.stdout.take().ok_or_else(|| io::Error::other("stdout is a pipe"))?;
    let lines = lines(stdout, wanted);
    let mut server = Server { child, addrs: Vec::new() };
    while server.addrs.len() < wanted {
        match lines.recv_timeout(STARTS_WITHIN) {
            Ok(line) => server.addrs.push(line),
            Err(_) => return Err(io::Error::other(complaint(&mut server.child))),
        }
    }
    Ok(server)
}

/// So many lines, read by a thread that ends with the program, or after the last of them.
pub(super) fn lines(stdout: ChildStdout, wanted: usize) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().take(wanted).map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// An option again and again, with each of these values.
pub(super) fn each(option: &str, values: &[String]) -> Vec<String> {
    values.iter().flat_map(|value| [option.to_owned(), value.clone()]).collect()
}

/// Run `portolan check --json`, or what stands for it, to its end.
///
/// # Errors
/// If it fails or prints no report; what it said is in the error.
pub fn check(
    host: &Host,
    listen: &[String],
    peers: &[String],
    timeout: Duration,
    program: impl Into<Program>,
) -> io::Result<Value> {
    let program = program.into();
    let mut args = vec!["check".to_owned()];
    // The others can print nothing else.
    if matches!(program, Program::Portolan(_)) {
        // What routers map has a laboratory of its own.
        args.extend(["--json", "--no-map"].map(str::to_owned));
    }
    args.extend(["--timeout".to_owned(), timeout.as_secs().to_string()]);
    args.extend(each("--listen", listen));
    args.extend(each("--peer", peers));
    let mut child = spawn(host, args, program)?;
    let mut stdout = child.stdout.take().ok_or_else(|| io::Error::other("stdout is a pipe"))?;
    let (sender, text) = mpsc::channel();
    thread::spawn(move || {
        let mut text = String::new();
        let read = stdout.read_to_string(&mut text).map(|_| text);
        let _ = sender.send(read);
    });
    let text = match text.recv_timeout(timeout + SLACK) {
        Ok(text) => text?,
        Err(_) => {
            let _ = child.kill();
            return Err(io::Error::other(format!("check is stuck: {}", complaint(&mut child))));
        }
    };
    // Its sockets are closed when it is gone.
    let report = match serde_json::from_str(&text) {
        Ok(report) => child.wait().map(|_| Ok(report))?,
        Err(error) => Err(error),
    };
    report.map_err(|error: serde_json::Error| {
        let said = complaint(&mut child);
        io::Error::other(format!("check printed no report ({error}): {text}{said}"))
    })
}

fn spawn(host: &Host, mut args: Vec<String>, program: Program) -> io::Result<Child> {
    match program {
        Program::Portolan(on) => args.extend(["--runtime".to_owned(), on.name().to_owned()]),
        Program::Rust | Program::Js => {}
    }
    launch(host, program.name(), &args)
}

/// Start a program in the namespace of a host: this one, with another face. Its stdin ends with
/// whoever holds it.
pub(super) fn launch(host: &Host, face: &str, args: &[String]) -> io::Result<Child> {
    let program = std::env::current_exe()?;
    host.space.inside(|| {
        Command::new(program)
            .arg(face)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
    })
}

/// What a program that is to end has said on stderr.
pub(super) fn complaint(child: &mut Child) -> String {
    let _ = child.kill();
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        let _ = stderr.read_to_string(&mut said);
    }
    let _ = child.wait();
    said
}
