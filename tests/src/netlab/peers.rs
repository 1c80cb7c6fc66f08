//! Programs that run in the lab: `portolan` itself, brought along by the program that made it.

use super::Host;
use super::program::FACE;
use serde_json::Value;
use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Starting a program and hearing its first lines takes a hundredth of this.
const STARTS_WITHIN: Duration = Duration::from_secs(20);
/// How much longer than its own time-out a check may take.
const SLACK: Duration = Duration::from_secs(20);

/// The runtime that a program is run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

/// Start `portolan serve`, and wait until it listens.
///
/// # Errors
/// If it does not start; what it said is in the error.
pub fn serve(host: &Host, listen: &[String], extra: &[String], on: On) -> io::Result<Server> {
    let mut args = vec!["serve".to_owned()];
    args.extend(listen.iter().flat_map(|addr| ["--listen".to_owned(), addr.clone()]));
    args.extend(extra.iter().cloned());
    let mut child = spawn(host, &args, on)?;
    let stdout = child.stdout.take().ok_or_else(|| io::Error::other("stdout is a pipe"))?;
    let wanted = listen.len();
    let (sender, lines) = mpsc::channel();
    // Ends with the program, or after the last line that is wanted.
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().take(wanted).map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let mut server = Server { child, addrs: Vec::new() };
    while server.addrs.len() < wanted {
        match lines.recv_timeout(STARTS_WITHIN) {
            Ok(line) => server.addrs.push(line),
            Err(_) => return Err(io::Error::other(complaint(&mut server.child))),
        }
    }
    Ok(server)
}

/// Run `portolan check --json` to its end.
///
/// # Errors
/// If it fails or prints no report; what it said is in the error.
pub fn check(
    host: &Host,
    listen: &[String],
    peers: &[String],
    timeout: Duration,
    on: On,
) -> io::Result<Value> {
    let mut args = vec!["check".to_owned(), "--json".to_owned()];
    args.extend(["--timeout".to_owned(), timeout.as_secs().to_string()]);
    args.extend(listen.iter().flat_map(|addr| ["--listen".to_owned(), addr.clone()]));
    args.extend(peers.iter().flat_map(|addr| ["--peer".to_owned(), addr.clone()]));
    let mut child = spawn(host, &args, on)?;
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

fn spawn(host: &Host, args: &[String], on: On) -> io::Result<Child> {
    let program = std::env::current_exe()?;
    host.space.inside(|| {
        Command::new(program)
            .arg(FACE)
            .args(args)
            .args(["--runtime", on.name()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
    })
}

/// What a program that is to end has said on stderr.
fn complaint(child: &mut Child) -> String {
    let _ = child.kill();
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        let _ = stderr.read_to_string(&mut said);
    }
    let _ = child.wait();
    said
}
