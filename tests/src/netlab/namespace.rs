//! Network namespaces: made, entered by threads, and always removed.
//!
//! Their names begin with `portolan-` and the number of the process that made them. Whatever a
//! process that was killed has left is removed by the next one that looks.

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// How every name begins.
const PREFIX: &str = "portolan-";
/// Where `ip` keeps named namespaces.
const NAMESPACES: &str = "/run/netns";

/// Whether this process is about to end, and no namespace may be made any more.
static ENDING: AtomicBool = AtomicBool::new(false);
/// How often the namespaces of a process that ends are looked for, number; ours: each time there are
/// fewer.
const SWEEPS_MAX: usize = 5;

/// A network namespace. Dropping it kills what runs inside and removes it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    file: File,
}

impl Namespace {
    /// Make an empty one, with its loopback interface up.
    ///
    /// # Errors
    /// If `ip` is missing or may not.
    pub fn new(label: &str) -> io::Result<Namespace> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        if ENDING.load(Ordering::SeqCst) {
            return Err(io::Error::other("the lab is being taken down"));
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}-{label}", std::process::id());
        succeed(Command::new("ip").args(["netns", "add", &name]))?;
        let opened = File::open(Path::new(NAMESPACES).join(&name));
        let namespace = match opened {
            Ok(file) => Namespace { name, file },
            Err(error) => {
                remove(&name);
                return Err(error);
            }
        };
        // Addresses are used at once, whoever else might have them.
        for scope in ["all", "default"] {
            namespace.sysctl(&format!("ipv6/conf/{scope}/accept_dad"), "0")?;
        }
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Its name, as `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Do something on a thread of its own inside. Sockets that are made there, and processes that
    /// are started there, stay there.
    ///
    /// # Panics
    /// If the namespace cannot be entered, or the work panics.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let entered = scope.spawn(|| {
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(self.file.as_fd(), kind).expect("root may enter");
                work()
            });
            entered.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Commands of `ip`, one a line.
    ///
    /// # Errors
    /// If one of them fails, with what `ip` said.
    pub fn ip(&self, commands: &str) -> io::Result<()> {
        self.inside(|| feed(Command::new("ip").args(["-batch", "-"]), commands))
    }

    /// Load rules of nftables.
    ///
    /// # Errors
    /// If they are refused, with what `nft` said.
    pub fn nft(&self, rules: &str) -> io::Result<()> {
        self.inside(|| feed(Command::new("nft").args(["-f", "-"]), rules))
    }

    /// Set a switch of the kernel below `/proc/sys/net`, if this kernel has it.
    ///
    /// # Errors
    /// If it cannot be set.
    pub fn sysctl(&self, key: &str, value: &str) -> io::Result<()> {
        let path = Path::new("/proc/sys/net").join(key);
        self.inside(|| match fs::write(&path, value) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            written => written,
        })
    }

    /// What a command says inside.
    ///
    /// # Errors
    /// If it fails.
    pub fn output(&self, program: &str, args: &[&str]) -> io::Result<String> {
        let output = self.inside(|| succeed(Command::new(program).args(args)))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Commands of `ip` in a namespace that somebody else keeps, one a line.
///
/// # Errors
/// If one of them fails, with what `ip` said.
pub fn ip(name: &str, commands: &str) -> io::Result<()> {
    feed(Command::new("ip").args(["-n", name, "-batch", "-"]), commands)
}

/// Whether a namespace is there.
pub fn exists(name: &str) -> bool {
    Path::new(NAMESPACES).join(name).exists()
}

/// Remove the namespaces of this process, and let nobody make another: for whoever ends it in the
/// middle.
pub fn remove_own() {
    ENDING.store(true, Ordering::SeqCst);
    // Whoever was about to make one may have made it meanwhile.
    for _ in 0..SWEEPS_MAX {
        let own = own();
        if own.is_empty() {
            return;
        }
        own.iter().for_each(|name| remove(name));
    }
}

/// Remove the namespaces of processes that are no more, and say how many they were.
pub fn remove_stale() -> usize {
    let stale = |name: &&String| {
        let number = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        number
            .is_some_and(|pid| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists())
    };
    let all = names();
    let stale: Vec<&String> = all.iter().filter(stale).collect();
    stale.iter().for_each(|name| remove(name));
    stale.len()
}

/// The namespaces of this process that are there.
pub fn own() -> Vec<String> {
    let own = format!("{PREFIX}{}-", std::process::id());
    names().into_iter().filter(|name| name.starts_with(&own)).collect()
}

fn names() -> Vec<String> {
    let Ok(entries) = fs::read_dir(NAMESPACES) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with(PREFIX)).collect()
}

/// Kill what runs inside, and remove it. What is gone already is as good as removed.
fn remove(name: &str) {
    if let Ok(output) = Command::new("ip").args(["netns", "pids", name]).output() {
        for pid in String::from_utf8_lossy(&output.stdout).split_whitespace() {
            let _ = Command::new("kill").args(["-9", pid]).stderr(Stdio::null()).status();
        }
    }
    let _ = Command::new("ip").args(["netns", "del", name]).stderr(Stdio::null()).status();
}

/// Run a command to its end, and make an error of its failure.
///
/// # Errors
/// If it cannot be started or fails, with what it said.
pub fn succeed(command: &mut Command) -> io::Result<Output> {
    let output = command.stdin(Stdio::null()).output()?;
    judge(command.get_program(), output, "")
}

fn feed(command: &mut Command, text: &str) -> io::Result<()> {
    let pipe = Stdio::piped;
    let mut child = command.stdin(pipe()).stdout(pipe()).stderr(pipe()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(text.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    judge(command.get_program(), output, text).map(drop)
}

fn judge(program: &OsStr, output: Output, text: &str) -> io::Result<Output> {
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let program = program.to_string_lossy();
    Err(io::Error::other(format!("{program}: {}\n{text}", said.trim())))
}
