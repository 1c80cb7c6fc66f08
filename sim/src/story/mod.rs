//! Stories about the agent: a script of facts, and the transcript of what came of them.
//!
//! `docs/scenarios.md` has the grammar. A story drives one [`portolan_core::Agent`] under a
//! virtual clock, without any model of a network: the script says the facts, the runner feeds
//! them in, fires every deadline on the way, writes down each action, wake-up and notice, and
//! asserts after every single event what must hold always.

mod book;
mod facts;
mod frames;
mod hearsay;
mod names;
mod punching;
mod relays;
mod routers;
mod rules;
pub(crate) mod script;
mod settings;
mod world;

use crate::diff;
use script::Script;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Why a story does not stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file of the story.
    pub path: PathBuf,
    /// The line to look at, counted from one.
    pub line: usize,
    /// What is wrong with it, and what was expected.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path.display(), self.line, self.what)
    }
}

impl std::error::Error for Fault {}

/// Plays the script in `text`, which came from `path`, and returns its transcript.
///
/// # Errors
/// A line that is not understood, or an invariant that broke, with the line that broke it.
pub fn play(path: &Path, text: &str) -> Result<Vec<String>, Fault> {
    let script = Script::read(text);
    let fault = |line, what| Fault { path: path.to_owned(), line, what };
    if !script.is_titled() {
        return Err(fault(1, "expected a comment that says what the story tells".to_owned()));
    }
    facts::play(&script).map_err(|(line, what)| fault(line, what))
}

/// Plays a story and compares its transcript with the one below the line `----`.
///
/// # Errors
/// As [`play`]; or the first line that differs, with a diff of the whole transcript.
pub fn compare(path: &Path, text: &str) -> Result<(), Fault> {
    let transcript = play(path, text)?;
    let script = Script::read(text);
    match diff::first_difference(&script.expected, &transcript) {
        None => Ok(()),
        Some(at) => Err(Fault {
            path: path.to_owned(),
            line: script.expected_from + at,
            what: format!(
                "the transcript differs (- expected, + happened):\n{}",
                diff::diff(&script.expected, &transcript, script.expected_from),
            ),
        }),
    }
}

/// The text of a story with its transcript replaced by what happens now.
///
/// # Errors
/// As [`play`].
pub fn rewrite(path: &Path, text: &str) -> Result<String, Fault> {
    let transcript = play(path, text)?;
    let mut out = Script::read(text).facts_text();
    out.push_str(script::DIVIDER);
    out.push('\n');
    for line in transcript {
        out.push_str(&line);
        out.push('\n');
    }
    Ok(out)
}

/// Every story in a folder, in order of names.
///
/// # Errors
/// The folder cannot be read.
pub fn stories(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}
