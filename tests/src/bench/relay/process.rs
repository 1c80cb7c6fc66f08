//! The hold on a relay's process, and what the kernel says of it.

use super::Fault;
use super::child::{Allowance, Kind};
use portolan_core::wire::multiaddr::{Decoded, from_multiaddr};
use portolan_core::{Addr, Transport};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// Another build of this program, out of which our relays are started.
pub(crate) static OURS: OnceLock<PathBuf> = OnceLock::new();

/// A relay that runs. Dropping it ends it.
pub(crate) struct Relay {
    pub(crate) kind: Kind,
    addrs: Vec<Addr>,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

/// What a process holds, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// What the kernel counts as resident.
    pub(crate) resident: u64,
    /// Its proportional share of what is resident.
    pub(crate) proportional: u64,
    /// What its heap holds.
    pub(crate) heap: u64,
    /// In how many blocks.
    pub(crate) blocks: u64,
}

/// What a process has spent on the processor.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spent {
    /// All threads, to the nanosecond.
    pub(crate) total: Duration,
    /// Of it in the kernel, in ticks of 10 ms.
    pub(crate) kernel: Duration,
}

impl Relay {
    /// Start a relay, under `wrapper` if there is one, and wait until it listens.
    pub(crate) fn start(
        kind: Kind,
        allowance: Allowance,
        wrapper: &[String],
    ) -> Result<Relay, Fault> {
        let program = match (OURS.get(), kind) {
            (Some(other), Kind::Tokio | Kind::Smol) => other.clone(),
            (Some(_) | None, Kind::Rust) | (None, _) => std::env::current_exe()?,
        };
        let program = program.into_os_string();
        let mut words = wrapper.iter().map(Into::into).chain([program]);
        let first = words.next().ok_or_else(|| Fault::new("there is always a program".into()))?;
        let mut child = Command::new(first)
            .args(words)
            .args(["relay", kind.name(), allowance.name()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let missing = || Fault::new("a relay without its pipes".into());
        let stdin = child.stdin.take();
        let mut stdout = BufReader::new(child.stdout.take().ok_or_else(missing)?);
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if stdout.read_line(&mut line)? == 0 {
                return Err(Fault::new(format!("{} did not start", kind.name())));
            }
            if line.trim().is_empty() {
                break;
            }
            lines.push(line.trim().to_owned());
        }
        let mut addrs = Vec::new();
        for line in &lines {
            if let Decoded::Direct { addr, .. } = from_multiaddr(&line.parse()?) {
                addrs.push(addr);
            }
        }
        Ok(Relay { kind, addrs, child, stdin, stdout })
    }

    /// Where it listens.
    pub(crate) fn addr(&self, transport: Transport) -> Result<Addr, Fault> {
        let found = self.addrs.iter().find(|addr| addr.transport == transport);
        found.copied().ok_or_else(|| Fault::new("it does not listen there".into()))
    }

    /// What it holds now.
    pub(crate) fn memory(&mut self) -> Result<Memory, Fault> {
        let stdin = self.stdin.as_mut().ok_or_else(|| Fault::new("it was ended".into()))?;
        writeln!(stdin)?;
        stdin.flush()?;
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        let mut numbers = line.split_whitespace().map(|word| word.parse().unwrap_or(0));
        let (heap, blocks) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        let resident = self.kilobytes("status", "VmRSS:")?;
        let proportional = self.kilobytes("smaps_rollup", "Pss:")?;
        Ok(Memory { resident, proportional, heap, blocks })
    }

    /// The most that was ever resident, in bytes.
    pub(crate) fn peak(&self) -> Result<u64, Fault> {
        self.kilobytes("status", "VmHWM:")
    }

    fn kilobytes(&self, file: &str, key: &str) -> Result<u64, Fault> {
        let text = fs::read_to_string(format!("/proc/{}/{file}", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        number.map(|kilobytes| kilobytes * 1_024).ok_or_else(|| Fault::new(format!("no {key}")))
    }

    /// What it has spent until now.
    pub(crate) fn spent(&self) -> Result<Spent, Fault> {
        let mut nanos = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // A thread that ends in between has been counted before, or did nothing.
            let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
            nanos += text.split_whitespace().next().map_or(0, |word| word.parse().unwrap_or(0));
        }
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // After the name, which may hold anything, utime is the 12th word and stime the 13th.
        let words = stat.rsplit_once(')').map_or("", |(_, words)| words);
        let ticks = words.split_whitespace().nth(12).map_or(0, |word| word.parse().unwrap_or(0));
        Ok(Spent { total: Duration::from_nanos(nanos), kernel: Duration::from_millis(10 * ticks) })
    }

    /// End it, and wait until it has ended.
    pub(crate) fn end(mut self) -> Result<(), Fault> {
        self.stdin = None;
        self.child.wait()?;
        Ok(())
    }

    /// Whether this program can be measured here.
    pub(crate) fn is_possible() -> bool {
        Path::new("/proc/self/smaps_rollup").exists() && Path::new("/proc/self/schedstat").exists()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stdin = None;
        // One that does not end by itself is a fault already told.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
