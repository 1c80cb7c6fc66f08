//! `portolan sim`, through the built program.

mod support;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Output;
use support::{Folder, code, run, stderr, stdout};

/// Run, and demand this exit code, nothing on stdout, and all of this on stderr.
#[track_caller]
fn refused(args: &[&str], wanted: i32, words: &[&str]) {
    let output = run(args);
    assert_eq!(code(&output), wanted, "{args:?}: {}", stderr(&output));
    assert_eq!(stdout(&output), "", "{args:?}");
    for word in words {
        assert!(stderr(&output).contains(word), "{args:?}: no {word:?} in {}", stderr(&output));
    }
}

/// Run, and demand exit code 0 and nothing on stderr.
#[track_caller]
fn went_well(args: &[&str]) -> Output {
    let output = run(args);
    assert_eq!(code(&output), 0, "{args:?}: {}\n{}", stdout(&output), stderr(&output));
    assert_eq!(stderr(&output), "", "{args:?}: nothing is drawn where stderr is a pipe");
    output
}

fn worlds() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/worlds")
}

fn forward_found() -> String {
    let file = worlds().join("forward_found.txt");
    std::fs::read_to_string(file).expect("the scenario can be read")
}

/// A scenario in a file of its own.
fn filed(name: &str, text: &str) -> (Folder, String) {
    let folder = Folder::new(name);
    let file = folder.file("a.txt");
    std::fs::write(&file, text).expect("it can be written");
    (folder, file)
}

#[test]
fn one_thing_at_a_time_is_wanted() {
    refused(&["sim"], 2, &["--seed", "--seeds", "--scenario", "--matrix", "--liars"]);
    for args in [
        ["--seed", "1", "--seeds", "0..3"].as_slice(),
        &["--seed", "1", "--scenario", "a.txt"],
        &["--seed", "1", "--liars", "1"],
        &["--seeds", "0..3", "--matrix"],
        &["--scenario", "a.txt", "--matrix"],
        &["--liars", "1", "--matrix"],
    ] {
        let args = [&["sim"], args].concat();
        refused(&args, 2, &["cannot be used with"]);
    }
}

#[test]
fn flags_that_choose_nothing_are_wrong_use() {
    for (args, word) in [
        (["--seed", "1", "--matrix"].as_slice(), "--html"),
        (&["--seed", "1", "--json"], "--json"),
        (&["--seed", "1", "--html", "a.html"], "--matrix"),
        (&["--seed", "1", "--jobs", "2"], "--seeds"),
        (&["--seeds", "0..3", "--runs", "2"], "--matrix"),
        (&["--seeds", "0..3", "--node", "client"], "--seed"),
        (&["--scenario", "a.txt", "--json"], "--json"),
        (&["--scenario", "a.txt", "--jobs", "2"], "--jobs"),
        (&["--liars", "1", "--html", "a.html"], "--html"),
        (&["--seed", "1", "--loss", "1"], "--matrix"),
        (&["--matrix", "--node", "client"], "--seed"),
        (&["--matrix", "--loss", "51"], "--loss"),
        (&["--matrix", "--runs", "0"], "--runs"),
        (&["--matrix", "--rtt", "1"], "--rtt"),
        (&["--liars", "0"], "--liars"),
        (&["--seeds", "0..3", "--jobs", "0"], "--jobs"),
        (&["--seeds", "3..3"], "there is no seed"),
        (&["--seeds", "3"], "A..B"),
        (&["--seed", "1", "--node", "nobody"], "the nodes are "),
    ] {
        let args = [&["sim"], args].concat();
        refused(&args, 2, &[word]);
    }
}

#[test]
fn a_seed_is_a_scenario_and_its_transcript() {
    let output = went_well(&["sim", "--seed", "1"]);
    let (plan, rest) = stdout(&output).split_once("\n\n").expect("a blank line");
    assert!(plan.lines().all(|line| line.starts_with("# ")), "{plan}");
    assert!(plan.starts_with("# world\n# seed 1\n"), "{plan}");
    let (transcript, outcome) = rest.split_once("\n\n").expect("another");
    assert!(transcript.lines().any(|line| line.contains(" < ")), "{transcript}");
    assert!(outcome.starts_with("every promise was kept over "), "{outcome}");
    assert_eq!(stdout(&output), stdout(&went_well(&["sim", "--seed", "1"])), "the same each time");

    // What stands above the transcript is a scenario that goes the same way.
    let plan: String = plan.lines().map(|line| format!("{}\n", &line[2..])).collect();
    let (_folder, file) = filed("of-a-seed", &plan);
    assert_eq!(stdout(&went_well(&["sim", "--scenario", &file])), rest);
}

#[test]
fn another_node_has_another_transcript() {
    let file = worlds().join("forward_found.txt");
    let file = file.to_str().expect("a path in plain text");
    let (first, other) = (
        went_well(&["sim", "--scenario", file]),
        went_well(&["sim", "--scenario", file, "--node", "S1"]),
    );
    assert_ne!(stdout(&first), stdout(&other));
    assert!(stdout(&other).contains("dial-request"), "{}", stdout(&other));
    refused(&["sim", "--scenario", file, "--node", "S9"], 2, &["client, S1, S2, crowd"]);
}

#[test]
fn seeds_are_counted_and_timed() {
    let output = went_well(&["sim", "--seeds", "0..3", "--jobs", "2"]);
    let text = stdout(&output);
    assert!(text.starts_with("3 seeds, 0 failures, "), "{text}");
    for unit in [" seeds/s, ", " virtual seconds per second, ", " events/s\n", "bound 2,400 s"] {
        assert!(text.contains(unit), "no {unit:?} in {text}");
    }
    let output = went_well(&["sim", "--seeds", "0..3", "--json"]);
    let document: Value = serde_json::from_str(stdout(&output)).expect("one document");
    assert_eq!(
        (&document["seeds"], &document["settling_bound_seconds"]),
        (&3.into(), &2_400.0.into())
    );
    assert_eq!(document["failures"].as_array().map(Vec::len), Some(0));
    let slowest = document["slowest_settling_seconds"].as_f64().expect("a number");
    assert!((0.0..=2_400.0).contains(&slowest), "{slowest}");
    assert!(document["events_per_second"].as_f64().is_some_and(|rate| rate > 0.0));
}

#[test]
fn every_world_goes_as_expected() {
    let mut seen = 0;
    for entry in std::fs::read_dir(worlds()).expect("the folder can be read") {
        let path = entry.expect("it can be read").path();
        let file = path.to_str().expect("a path in plain text");
        let text = std::fs::read_to_string(&path).expect("it can be read");
        let output = went_well(&["sim", "--scenario", file]);
        let expected = text.lines().filter_map(|line| line.strip_prefix("expect "));
        for expected in expected {
            assert!(stdout(&output).contains(&format!("\n{expected}\n")), "{file}: {expected}");
        }
        seen += 1;
    }
    assert!(seen > 0, "no world was found");
}

#[test]
fn the_example_in_the_documentation_goes_as_expected() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/scenarios.md");
    let docs = std::fs::read_to_string(docs).expect("it can be read");
    let example = docs.split("```text\n").find(|block| block.starts_with("world\n"));
    let (example, _) = example.and_then(|text| text.split_once("```")).expect("an example");
    let (_folder, file) = filed("documented", example);
    went_well(&["sim", "--scenario", &file]);
}

#[test]
fn an_expectation_that_fails_is_a_failure() {
    let text = forward_found().replace("ip4/tcp anywhere", "ip4/tcp private, dial failed");
    let (_folder, file) = filed("expected", &text);
    let output = run(&["sim", "--scenario", &file]);
    assert_eq!(code(&output), 1, "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.contains("expected private, dial failed, found anywhere"), "{text}");
    assert!(text.contains("\nclient ip4/tcp anywhere\n"), "{text}");
}

#[test]
fn a_bad_line_is_named_with_its_file_and_number() {
    let text = forward_found();
    for (bad, line, problem) in [
        ("world\nfrobnicate\n".to_owned(), 2, "expected seed, lasts, still"),
        (text.replace("node S1 ips=44.0.1.1", "node S1 ips=44.0.1"), 9, "an IP address"),
        (text.replace("at 1s start client", "at 1s start clint"), 20, "the name of a node above"),
        (text.replace("ip4/quic anywhere", "ip4/sctp anywhere"), 27, "a class such as ip4/tcp"),
    ] {
        let (_folder, file) = filed(&format!("bad-line-{line}"), &bad);
        refused(&["sim", "--scenario", &file], 2, &[&format!("{file}:{line}: "), problem]);
    }
    let many: String = (0..600).map(|number| format!("node n{number}\n")).collect();
    let (_folder, file) = filed("crowded", &format!("world\n{many}"));
    refused(&["sim", "--scenario", &file], 2, &[&file, "600 nodes", "at most"]);
    let (_folder, file) = filed("source", &text.replace("from=44.0.101.1", "from=0.0.0.0"));
    refused(&["sim", "--scenario", &file], 2, &[&file, "node S1", "0.0.0.0"]);
    refused(&["sim", "--scenario", "/no/such/file"], 1, &["/no/such/file"]);
}

#[test]
fn a_story_of_one_node_is_played_and_compared() {
    let story =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/scenarios/a_closed_listener.txt");
    let text = std::fs::read_to_string(&story).expect("the story can be read");
    let (facts, transcript) = text.split_once("----\n").expect("a divider");
    let output = went_well(&["sim", "--scenario", story.to_str().expect("plain text")]);
    assert!(stdout(&output).starts_with(transcript), "{}", stdout(&output));

    let (_folder, file) = filed(
        "story-differs",
        &format!("{facts}----\n{}", transcript.replacen("0.000", "0.001", 1)),
    );
    let output = run(&["sim", "--scenario", &file]);
    assert_eq!(code(&output), 1, "{}", stdout(&output));
    assert!(stderr(&output).contains("the transcript differs"), "{}", stderr(&output));

    let (_folder, file) = filed("story-bad", &format!("{facts}frobnicate\n"));
    let line = facts.lines().count() + 1;
    refused(&["sim", "--scenario", &file], 2, &[&format!("{file}:{line}: "), "expected a verb"]);
    refused(&["sim", "--scenario", &file, "--node", "S1"], 2, &["--node"]);
}

#[test]
fn the_page_stands_alone_and_has_every_cell() {
    let folder = Folder::new("page");
    let file = folder.file("matrix & more.html");
    let output = run(&["sim", "--matrix", "--runs", "1", "--seed", "2", "--json", "--html", &file]);
    let document: Value = serde_json::from_str(stdout(&output)).expect("one document");
    let cells = document["cells"].as_array().expect("a list");
    assert!(cells.len() > 100, "{}", cells.len());
    let page = std::fs::read_to_string(&file).expect("the page was written");
    assert!(page.len() < 1_000_000, "{} bytes", page.len());
    // The name of SVG's words is no reference, though HTML does not need it.
    let page = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
    for outside in ["http://", "https://", "src=", "href=", "url(", "@import", "<script"] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("prefers-color-scheme: dark"));
    assert!(page.contains("<meta name=\"color-scheme\" content=\"light dark\">"));
    assert_eq!(page.matches("<td class=\"cell ").count(), cells.len());
    assert!(page.contains("matrix &amp; more.html") && !page.contains("matrix & more.html"));
    assert!(page.contains("Seed 2, as "), "the run that was chosen");
    for cell in cells {
        let words = |key: &str| cell[key].as_str().expect("a word").to_owned();
        let place = format!("{}, {}, {} servers", words("kind"), words("class"), words("servers"));
        assert!(page.contains(&format!("title=\"{place}: ")), "{place}");
    }
}

#[test]
fn the_matrix_is_a_table() {
    let output = run(&["sim", "--matrix", "--runs", "1"]);
    let text = stdout(&output);
    let heading = text.lines().next().unwrap_or_default();
    for column in ["kind", "class", "servers", "verdict", "scope", "RTT", "ms", "packets", "bytes"]
    {
        assert!(heading.contains(column), "no {column:?} in {heading:?}");
    }
    for words in ["every cell: ", "no dial has to time out: ", "endpoint-dependent mapping named"] {
        assert!(text.contains(words), "no {words:?} in {text}");
    }
    assert!(text.contains(" 0 wrong, "), "{text}");
}

#[test]
fn lying_servers_are_counted() {
    let output = run(&["sim", "--liars", "1", "--jobs", "2"]);
    let text = stdout(&output);
    assert!(text.contains("5 lies-failure") && text.contains("7 lies-ok"), "{text}");
    let sum = text.lines().last().unwrap_or_default();
    assert!(sum.starts_with("4 runs of 600 s: 0 flips, 0 false Reachable, "), "{sum}");

    let output = run(&["sim", "--liars", "1", "--json"]);
    let rows: Value = serde_json::from_str(stdout(&output)).expect("one document");
    let rows = rows.as_array().expect("a list");
    assert_eq!(rows.len(), 4);
    let counts = ["flips", "false_reachable", "false_unreachable"];
    let failed = rows.iter().any(|row| {
        let counted = |count: &str| row[count].as_u64().expect("a number") > 0;
        counts.into_iter().any(counted) || row["broken"] != Value::Array(Vec::new())
    });
    assert_eq!(code(&output), i32::from(failed), "{rows:#?}");
}
