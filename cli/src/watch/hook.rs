//! A program that is run when something has changed.

use crate::pipe::Argv;
use crate::report::Report;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long the program may run, ours; then it is ended. Changes wait meanwhile.
const RUNS_MAX: Duration = Duration::from_secs(60);
/// How often it is looked whether the program has ended.
const LOOKS_EVERY: Duration = Duration::from_millis(20);

/// A program that is told of changes: one run at a time, and of changes that come meanwhile the last
/// one. It gets the report as JSON on its standard input, and in its environment `PORTOLAN_STATE` and
/// `PORTOLAN_BEFORE` (`public`, `limited`, `private`, `unknown`; the latter empty at first),
/// `PORTOLAN_PEER_ID`, and `PORTOLAN_ADDRESSES`, one a line: those to give to others. No shell is
/// involved unless it is the program.
#[derive(Debug)]
pub struct Hook {
    changes: Sender<Change>,
    told: Option<Summary>,
}

/// What a change is measured by.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Summary {
    state: &'static str,
    addresses: Vec<String>,
}

/// What the program is told.
struct Change {
    before: &'static str,
    now: Summary,
    peer_id: String,
    document: Vec<u8>,
}

impl Hook {
    /// Run this program for every change from now on.
    #[must_use]
    pub fn new(program: Argv) -> Hook {
        let (changes, arrivals) = channel();
        thread::spawn(move || run_each(&program, &arrivals));
        Hook { changes, told: None }
    }

    /// The node stands like this now: whether it is a change.
    pub fn stands(&mut self, report: &Report) -> bool {
        let now = Summary { state: report.reachability.name(), addresses: report.shared() };
        if self.told.as_ref() == Some(&now) {
            return false;
        }
        let before = self.told.replace(now.clone()).map_or("", |told| told.state);
        let document = serde_json::to_vec(report).unwrap_or_default();
        let peer_id = report.peer_id.clone();
        // The thread ends only with this end of the channel.
        let _ = self.changes.send(Change { before, now, peer_id, document });
        true
    }
}

/// Run the program for the last of all changes that wait, until nobody is there to tell of more.
fn run_each(program: &Argv, arrivals: &Receiver<Change>) {
    while let Ok(first) = arrivals.recv() {
        let last = arrivals.try_iter().last().unwrap_or(first);
        match start(program, &last) {
            Ok(child) => wait(program, child),
            Err(error) => {
                tracing::error!(program = program.program(), %error, "the hook did not start")
            }
        }
    }
}

fn start(program: &Argv, change: &Change) -> std::io::Result<Child> {
    let mut child = Command::new(program.program())
        .args(program.args())
        .env("PORTOLAN_STATE", change.now.state)
        .env("PORTOLAN_BEFORE", change.before)
        .env("PORTOLAN_PEER_ID", &change.peer_id)
        .env("PORTOLAN_ADDRESSES", change.now.addresses.join("\n"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        let document = change.document.clone();
        // A program need not read it, and must not hold up the others.
        thread::spawn(move || stdin.write_all(&document));
    }
    Ok(child)
}

fn wait(program: &Argv, mut child: Child) {
    let until = Instant::now() + RUNS_MAX;
    let name = program.program();
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return,
            Ok(Some(status)) => return tracing::warn!(program = name, %status, "the hook failed"),
            Ok(None) if Instant::now() < until => thread::sleep(LOOKS_EVERY),
            Ok(None) | Err(_) => {
                tracing::warn!(program = name, "the hook runs for too long and is ended");
                let _ = child.kill();
                let _ = child.wait();
                return;
            }
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use portolan_core::{Explanation, NodeState};
    use portolan_runtime::identity;
    use std::path::Path;

    fn report(state: NodeState) -> Report {
        let peer = identity::generate().public().to_peer_id();
        let mut explanation = Explanation::new(portolan_core::Instant::ZERO, peer);
        explanation.state = state;
        Report::new(&explanation, explanation.at, &crate::Timeline::new(), Vec::new())
    }

    /// What a file says, once it is there.
    fn read_soon(path: &Path) -> String {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            match std::fs::read_to_string(path) {
                Ok(text) if text.ends_with('\n') => return text,
                _ => assert!(Instant::now() < until, "nothing came"),
            }
            // sleep: between two looks, within a bound.
            thread::sleep(LOOKS_EVERY);
        }
    }

    #[test]
    fn a_change_is_told_by_input_and_environment_and_no_change_is_not() {
        let name = format!("portolan-hook-{}-{}", std::process::id(), rand::random::<u64>());
        let file = std::env::temp_dir().join(name);
        // What came is told in one write, at the end.
        let script = format!(
            "read -r doc; printf '%s|%s|%s\\n' \"$PORTOLAN_BEFORE\" \"$PORTOLAN_STATE\" \"$doc\" > '{}'",
            file.display()
        );
        let mut hook = Hook::new(
            format!("sh -c \"{}\"", script.replace('\\', "\\\\").replace('"', "\\\""))
                .parse()
                .expect("a program"),
        );
        let first = report(NodeState::Private);
        assert!(hook.stands(&first));
        assert!(!hook.stands(&first), "nothing has changed");
        let text = read_soon(&file);
        let document = text.trim_end().strip_prefix("|private|").expect("the states");
        let document: serde_json::Value = serde_json::from_str(document).expect("the report");
        assert_eq!(document["reachability"], "private");
        std::fs::remove_file(&file).expect("it was read");
        assert!(hook.stands(&report(NodeState::Public)));
        assert!(read_soon(&file).starts_with("private|public|{"));
        let _ = std::fs::remove_file(&file);
    }
}
