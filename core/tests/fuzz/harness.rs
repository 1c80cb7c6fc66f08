//! Runs a target: the files of its corpus first, then what the mutator makes of them. A failure
//! is shrunk, written to a file, and told with the way to reproduce it.

use crate::TARGETS;
use crate::mutate::{Dice, mutated};
use crate::trail::Trail;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Once;

/// Where the corpora are.
const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/corpus");
/// The seed of a run that names none.
const SEED: u64 = 1;
/// Inputs that are mutated, number. When full, an older one makes room.
const POOL_MAX: usize = 4_096;
/// Attempts at a smaller failing input, number.
const SHRINKS_MAX: u32 = 3_000;
/// Attempts at a smaller input for the corpus, number: there may be dozens of them.
const GROWN_SHRINKS_MAX: u32 = 150;

/// One target.
pub(crate) struct Target {
    /// Its name: that of its test and of its folder.
    pub(crate) name: &'static str,
    /// What is asserted of an input.
    pub(crate) run: fn(&[u8], &mut Trail),
    /// The longest input that is made, in bytes.
    pub(crate) len_max: usize,
    /// Inputs that are made where nothing else is said, number.
    pub(crate) cases: u64,
}

/// An input, where it came from, and what it shows that no input before it did.
struct Found {
    bytes: Vec<u8>,
    committed: bool,
}

/// Run a target.
pub(crate) fn test(target: &Target) {
    if let Some(path) = variable("PORTOLAN_FUZZ_INPUT") {
        let bytes = std::fs::read(&path).expect("PORTOLAN_FUZZ_INPUT names a file");
        return (target.run)(&bytes, &mut Trail::default());
    }
    let mut known = Trail::default();
    let mut pool = Vec::new();
    for (name, bytes) in corpus(target.name) {
        let trail = tried(target, &bytes, &|| format!("its file {name}"));
        known.learn(trail);
        pool.push(Found { bytes, committed: true });
    }
    assert!(!pool.is_empty(), "{} has no corpus", target.name);

    let seed = number("PORTOLAN_FUZZ_SEED").unwrap_or(SEED);
    let mut dice = Dice(seed ^ hash(target.name.as_bytes()));
    let mut budget = Budget::new(target.cases);
    while let Some(case) = budget.next() {
        let [one, other] = [0; 2].map(|_| &pool[dice.below(pool.len())].bytes);
        let bytes = mutated(one, other, target.len_max, &mut dice);
        let trail = tried(target, &bytes, &|| format!("case {case} of seed {seed}"));
        if known.learn(trail) {
            let found = Found { bytes, committed: false };
            if pool.len() < POOL_MAX {
                pool.push(found);
            } else {
                let at = dice.below(POOL_MAX);
                pool[at] = found;
            }
        }
    }
    println!("{}: seed {seed}, {} inputs, {} words", target.name, budget.done, known.len());
    if variable("PORTOLAN_FUZZ_GROW").is_some() {
        grow(target, pool);
    }
}

/// The committed inputs of a target with their names, in order.
pub(crate) fn corpus(target: &str) -> BTreeMap<String, Vec<u8>> {
    let folder = Path::new(CORPUS).join(target);
    let entries = std::fs::read_dir(&folder).map(|entries| entries.flatten().collect());
    let entries: Vec<_> = entries.unwrap_or_default();
    let named = entries.into_iter().map(|entry| {
        let bytes = std::fs::read(entry.path()).expect("a file of the corpus can be read");
        (entry.file_name().to_string_lossy().into_owned(), bytes)
    });
    named.collect()
}

/// Write an input into the corpus of a target.
pub(crate) fn commit(target: &str, name: &str, bytes: &[u8]) {
    let folder = Path::new(CORPUS).join(target);
    std::fs::create_dir_all(&folder).expect("the folder of the corpus can be made");
    std::fs::write(folder.join(name), bytes).expect("the corpus can be written");
}

/// How many inputs there are to be.
struct Budget {
    done: u64,
    cases: u64,
    until: Option<Until>,
}

/// When to stop, on a clock that only the long runs read.
#[allow(clippy::disallowed_types, reason = "a long run lasts as long as it was told to")]
type Until = std::time::Instant;

impl Budget {
    #[allow(clippy::disallowed_methods, reason = "a long run lasts as long as it was told to")]
    fn new(cases: u64) -> Budget {
        let cases = number("PORTOLAN_FUZZ_CASES").unwrap_or(cases);
        let seconds = number("PORTOLAN_FUZZ_SECONDS").map(std::time::Duration::from_secs);
        Budget { done: 0, cases, until: seconds.map(|seconds| Until::now() + seconds) }
    }

    /// The number of the next input, from 1.
    #[allow(clippy::disallowed_methods, reason = "a long run lasts as long as it was told to")]
    fn next(&mut self) -> Option<u64> {
        let more = match self.until {
            Some(until) => Until::now() < until,
            None => self.done < self.cases,
        };
        self.done += u64::from(more);
        more.then_some(self.done)
    }
}

/// What an input shows. A failure ends the test.
fn tried(target: &Target, bytes: &[u8], origin: &dyn Fn() -> String) -> Trail {
    if let Some(trail) = quietly(target, bytes) {
        return trail;
    }
    let small = shrunk(bytes, SHRINKS_MAX, |bytes| quietly(target, bytes).is_none());
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let path = path.join(format!("{}-{:016x}", target.name, hash(&small)));
    std::fs::write(&path, &small).expect("the failing input can be written");
    eprintln!("target {} fails on {}", target.name, origin());
    eprintln!("smallest such input, {} bytes: {}", small.len(), small.escape_ascii());
    eprintln!("PORTOLAN_FUZZ_INPUT={} runs it alone", path.display());
    eprintln!(
        "once mended, copy it to {CORPUS}/{}, under a name that says what it is",
        target.name
    );
    // Once more, aloud.
    (target.run)(&small, &mut Trail::default());
    panic!("the target fails on this input, but not every time");
}

/// What an input shows; `None` if the target panics, without a word about it.
fn quietly(target: &Target, bytes: &[u8]) -> Option<Trail> {
    static HOOK: Once = Once::new();
    thread_local! {
        static QUIET: Cell<bool> = const { Cell::new(false) };
    }
    HOOK.call_once(|| {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                loud(info);
            }
        }));
    });
    QUIET.set(true);
    let mut trail = Trail::default();
    let done = panic::catch_unwind(AssertUnwindSafe(|| (target.run)(bytes, &mut trail)));
    QUIET.set(false);
    done.ok().map(|()| trail)
}

/// A smaller input of which the same holds.
fn shrunk(bytes: &[u8], mut left: u32, mut holds: impl FnMut(&[u8]) -> bool) -> Vec<u8> {
    let mut small = bytes.to_vec();
    let mut part = small.len().div_ceil(2);
    while part > 0 {
        let mut at = 0;
        while at < small.len() && left > 0 {
            left -= 1;
            let mut less = small.clone();
            less.drain(at..(at + part).min(small.len()));
            if holds(&less) {
                small = less;
            } else {
                at += part;
            }
        }
        part = if part == 1 { 0 } else { part.div_ceil(2) };
    }
    small
}

/// Keep what shows something that the committed files do not: few files, and small ones.
fn grow(target: &Target, mut pool: Vec<Found>) {
    pool.sort_by_key(|found| (!found.committed, found.bytes.len()));
    let mut known = Trail::default();
    for Found { bytes, committed } in pool {
        let Some(trail) = quietly(target, &bytes) else { continue };
        let news: Vec<String> = trail.news(&known).cloned().collect();
        let Some(first) = news.first() else { continue };
        if !committed {
            let small = shrunk(&bytes, GROWN_SHRINKS_MAX, |bytes| {
                quietly(target, bytes).is_some_and(|trail| trail.news(&known).count() >= news.len())
            });
            commit(target.name, &format!("grown-{}", slug(first)), &small);
        }
        known.learn(trail);
    }
}

/// A word as a file name.
fn slug(word: &str) -> String {
    let parts = word.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty());
    parts.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("-")
}

fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn number(name: &str) -> Option<u64> {
    Some(variable(name)?.parse().expect("a number"))
}

/// What the caller wants of this run.
#[allow(clippy::disallowed_methods, reason = "the harness is told how long to run from outside")]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[test]
fn every_folder_of_the_corpus_belongs_to_a_target() {
    let entries = std::fs::read_dir(CORPUS).expect("the corpus");
    for entry in entries.flatten() {
        let name = entry.file_name();
        assert!(TARGETS.iter().any(|target| *target == name), "{name:?} belongs to no target");
    }
}

#[test]
fn the_corpus_stays_small() {
    let sizes = TARGETS.iter().flat_map(|target| corpus(target)).map(|(_, bytes)| bytes.len());
    assert!(sizes.sum::<usize>() < 300_000, "every run replays it, and every clone carries it");
}
