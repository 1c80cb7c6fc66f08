//! What several tests of the program need: its form for documents, and the program itself,
//! started with a bound on how long it may take.

#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod browser;
pub(crate) mod record;
pub(crate) mod schema;
pub(crate) mod talking;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// No test waits longer than this for anything.
pub(crate) const BOUND: Duration = Duration::from_secs(60);

/// The program with these arguments.
pub(crate) fn portolan(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portolan"));
    command.args(args).env_remove("PORTOLAN_LOG").stdin(Stdio::null());
    command
}

/// Run the program to its end.
#[track_caller]
pub(crate) fn run(args: &[&str]) -> Output {
    let child = portolan(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    Running::new(child.expect("the program starts")).finish()
}

/// The exit code and everything printed, of a program that ended by itself.
#[track_caller]
pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().expect("it ended by itself")
}

/// What was printed on stdout.
pub(crate) fn stdout(output: &Output) -> &str {
    str::from_utf8(&output.stdout).expect("stdout is text")
}

/// What was printed on stderr.
pub(crate) fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).expect("stderr is text")
}

/// A program that runs; killed when it goes out of sight, or when it takes too long.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
    errors: thread::JoinHandle<Vec<u8>>,
}

impl Running {
    /// Take over a child whose stdout and stderr are pipes.
    pub(crate) fn new(mut child: Child) -> Running {
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let mut stderr = child.stderr.take().expect("stderr is a pipe");
        let (sender, lines) = channel();
        thread::spawn(move || {
            let mut reader = BufReader::new(stdout);
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|read| read > 0) {
                if sender.send(std::mem::take(&mut line)).is_err() {
                    return;
                }
            }
        });
        let errors = thread::spawn(move || {
            let mut bytes = Vec::new();
            // What could be read before an error is what there is.
            let _ = stderr.read_to_end(&mut bytes);
            bytes
        });
        Running { child, lines, errors }
    }

    /// Start `portolan serve` with these arguments, and wait for its `count` addresses.
    #[track_caller]
    pub(crate) fn serve(args: &[&str], count: usize) -> (Running, Vec<String>) {
        let child = portolan(&["serve"])
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let running = Running::new(child);
        let addresses = (0..count).map(|_| running.line()).collect();
        (running, addresses)
    }

    /// The next line of stdout.
    #[track_caller]
    pub(crate) fn line(&self) -> String {
        self.lines.recv_timeout(BOUND).expect("a line comes").trim_end().to_owned()
    }

    /// The id of the process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Wait for the end, and collect what was printed and not yet read.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Output {
        let until = Instant::now() + BOUND;
        let mut stdout = Vec::new();
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => stdout.extend_from_slice(line.as_bytes()),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("the program does not end"),
            }
        }
        // Its stdout is closed: it is ending.
        let status: ExitStatus = self.child.wait().expect("the program can be waited for");
        let errors = std::mem::replace(&mut self.errors, thread::spawn(Vec::new));
        let stderr = errors.join().expect("the reader of stderr ends");
        Output { status, stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder of its own for one test, removed at the end.
pub(crate) struct Folder(pub(crate) std::path::PathBuf);

impl Folder {
    /// An empty folder; `name` is unique among the tests of this program.
    pub(crate) fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("portolan-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the folder can be made");
        Folder(path)
    }

    /// The path of a file in it, as text.
    pub(crate) fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("a path in plain text").to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that stays behind harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
