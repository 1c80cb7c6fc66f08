//! Programs that are talked to while they run.

use super::{BOUND, portolan};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

/// A program whose stdin is ours, whose stdout is kept, and whose lines of stderr come one by one.
/// Killed when it goes out of sight.
pub(crate) struct Talking {
    pub(crate) child: Child,
    lines: Receiver<String>,
    out: Option<thread::JoinHandle<Vec<u8>>>,
}

impl Talking {
    pub(crate) fn start(args: &[&str]) -> Talking {
        let mut command: Command = portolan(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let lines = lines_of(child.stderr.take().expect("stderr is a pipe"));
        let mut stdout = child.stdout.take().expect("stdout is a pipe");
        let out = thread::spawn(move || {
            let mut bytes = Vec::new();
            stdout.read_to_end(&mut bytes).expect("it can be read");
            bytes
        });
        Talking { child, lines, out: Some(out) }
    }

    /// Start `portolan listen`, and wait for `count` addresses.
    pub(crate) fn listen(args: &[&str], count: usize) -> (Talking, Vec<String>) {
        let talking = Talking::start(&[&["listen"], args].concat());
        let address = |line: String| {
            line.strip_prefix("listening: portolan connect ").expect("an address").to_owned()
        };
        let addresses = (0..count).map(|_| address(talking.line())).collect();
        (talking, addresses)
    }

    #[track_caller]
    pub(crate) fn line(&self) -> String {
        self.lines.recv_timeout(BOUND).expect("a line comes")
    }

    /// Wait for a line that holds this.
    #[track_caller]
    pub(crate) fn line_with(&self, word: &str) -> String {
        line_with(&self.lines, word)
    }

    /// Write to its stdin, and end that.
    pub(crate) fn tell(&mut self, bytes: Vec<u8>) -> thread::JoinHandle<()> {
        let mut stdin = self.child.stdin.take().expect("it is told once");
        // Whoever ends early does not read everything.
        thread::spawn(move || drop(stdin.write_all(&bytes)))
    }

    /// Its exit code and its stdout.
    pub(crate) fn finish(mut self) -> (Option<i32>, Vec<u8>) {
        drop(self.child.stdin.take());
        let out = self.out.take().expect("it is waited for once");
        let bytes = out.join().expect("stdout can be read");
        (self.child.wait().expect("it can be waited for").code(), bytes)
    }
}

impl Drop for Talking {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Bytes that do not repeat soon.
pub(crate) fn text(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// The lines of a pipe, as they come.
pub(crate) fn lines_of(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// Wait for a line that holds this.
#[track_caller]
pub(crate) fn line_with(lines: &Receiver<String>, word: &str) -> String {
    loop {
        let line = lines.recv_timeout(BOUND).expect(word);
        if line.contains(word) {
            return line;
        }
    }
}
