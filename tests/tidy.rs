//! The house rules that a machine can check. A failure names the file, the line, and what to do.
//!
//! Every rule is a pure function over text, so that each can be shown to fail on a bad snippet
//! beside it; the tests in this file apply the rules to the repository itself.

#[path = "tidy/adapters.rs"]
mod adapters;
#[path = "tidy/code.rs"]
mod code;
#[path = "tidy/crates.rs"]
mod crates;
#[path = "tidy/floors.rs"]
mod floors;
#[path = "tidy/ledger.rs"]
mod ledger;
#[path = "tidy/prose.rs"]
mod prose;
#[path = "tidy/source.rs"]
mod source;

use source::{Tree, tree};
use std::io::Write;

/// Fails with every problem at once, so that one run shows all that is to be done.
fn demand(rule: &str, problems: &[String]) {
    assert!(
        problems.is_empty(),
        "\n{rule}\n\n  {}\n\n{} in all. ARCHITECTURE.md and CONTRIBUTING.md give the reasons.\n",
        problems.join("\n  "),
        problems.len(),
    );
}

#[test]
fn rooms_read_downwards_only() {
    let tree = tree();
    let rooms = floors::rooms(&tree);
    assert!(rooms.len() >= 5, "core's rooms were not found: {rooms:?}");
    demand(
        "A room of core reads strictly lower floors. Hand the fact round through the door instead.",
        &floors::check(&tree),
    );
}

#[test]
fn every_room_introduces_itself() {
    demand(
        "A room opens with a module comment of at most 25 lines whose end is headed \
         \"A good first change here\".",
        &floors::check_introductions(&tree()),
    );
}

#[test]
fn files_stay_short() {
    demand(
        "A file of Rust stays under 600 lines, its tests included. Split it by idea, not by size.",
        &code::check_lengths(&tree()),
    );
}

#[test]
fn another_runtime_takes_little() {
    let tree = tree();
    let adapters = adapters::lines(&tree);
    assert!(adapters.len() >= 2, "the adapters were not found: {adapters:?}");
    // Written past the capture of the test's output: the numbers are wanted in every run.
    for (folder, lines) in adapters {
        let _ = writeln!(std::io::stderr(), "{folder}: {lines} lines of code");
    }
    demand(
        "An adapter stays under 600 lines of code, and the example of a runtime of one's own has at \
         most 200 lines. What two adapters share belongs into `runtime`.",
        &adapters::check(&tree),
    );
}

#[test]
fn packages_depend_downwards_only() {
    demand(
        "Packages depend on each other, and on the outside, as ARCHITECTURE.md says.",
        &crates::check(&tree()),
    );
}

#[test]
fn no_runtime_comes_in_below() {
    let rule = "Core and the simulator have no runtime at all, and beside smol there is none but \
                what quinn takes of tokio: its channels.";
    let smol = crates::resolved("portolan-smol");
    assert!(smol.contains("tokio v") && smol.contains("smol v"), "cargo's answer changed: {smol}");
    demand(rule, &crates::runtimes_below(&smol, &["quinn", "smol", "async-io"]));
    for package in ["portolan-core", "portolan-sim"] {
        let resolved = crates::resolved(package);
        assert!(resolved.contains("prost v"), "cargo's answer changed: {resolved}");
        demand(rule, &crates::runtimes_below(&resolved, &[]));
    }
}

#[test]
fn every_requirement_has_its_code_and_test() {
    let tree = tree();
    assert!(ledger::rows(&tree) >= 50, "the ledgers in docs/spec are nearly empty");
    demand(
        "A row of docs/spec names code and a test that exist, a library, a later stage, or an \
         exception with its reason.",
        &ledger::check(&tree),
    );
}

#[test]
fn links_lead_somewhere() {
    demand(
        "A relative link points to a file and a heading that exist.",
        &prose::check_links(&tree()),
    );
}

#[test]
fn nothing_is_left_undone() {
    demand(
        "No stub, no test that cannot fail, no test that is skipped, no note to oneself.",
        &code::check_stubs(&tree()),
    );
}

#[test]
fn core_has_no_world() {
    demand(
        "Core has no clock, no sockets, no threads, no unordered collection and no float.",
        &code::check_core(&tree()),
    );
}

#[test]
fn tests_wait_for_facts() {
    demand(
        "A test waits for a fact within a bound, never for time to pass. Where the passing of time \
         is itself what is tested, say so in a comment `// sleep: why` on the line above.",
        &code::check_sleeps(&tree()),
    );
}

#[test]
fn words_mean_one_thing() {
    demand("One word, one meaning: see the table in ARCHITECTURE.md.", &code::check_words(&tree()));
}

#[test]
fn every_bound_says_what_happens_when_full() {
    demand(
        "A `_MAX` in core's config.rs has a doc comment with a sentence that starts \"When full\".",
        &code::check_bounds(&tree()),
    );
}

#[test]
fn the_readme_is_true() {
    demand("README.md quotes nothing that is not compared here.", &prose::check_readme(&tree()));
}

#[test]
fn the_gate_runs_what_we_promise() {
    demand(".ci/run is the gate that CONTRIBUTING.md describes.", &prose::check_gate(&tree()));
}

/// A tree of made-up files, for showing that a rule can fail.
fn snippet(files: &[(&str, &str)]) -> Tree {
    Tree::of(files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())))
}

/// Whether exactly one problem is found, and it speaks of `about`.
#[track_caller]
fn one_problem(problems: &[String], about: &str) {
    assert_eq!(problems.len(), 1, "expected one problem about {about:?}, got {problems:#?}");
    assert!(problems[0].contains(about), "expected {about:?} in {:?}", problems[0]);
}
