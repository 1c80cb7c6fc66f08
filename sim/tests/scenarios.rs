//! Every story in `tests/scenarios/` still goes the way that its transcript says.
//!
//! `PORTOLAN_REWRITE=1` writes the transcripts anew instead; a human reads the difference. With
//! `PORTOLAN_STORY=word` only the stories with that word in their names are played.

use portolan_sim::story;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/scenarios")
}

/// The path as a reader at the root of the repository would write it.
fn shown(path: &Path) -> PathBuf {
    let name = path.file_name().expect("a story is a file");
    Path::new("tests/scenarios").join(name)
}

#[test]
fn every_story_goes_as_written() {
    let rewrite = env::var_os("PORTOLAN_REWRITE").is_some_and(|value| value == "1");
    let wanted = env::var("PORTOLAN_STORY").unwrap_or_default();
    let stories = story::stories(&folder()).expect("the folder of stories can be read");
    assert!(stories.len() >= 60, "only {} stories were found", stories.len());
    let mut faults = Vec::new();
    let is_wanted = |path: &&PathBuf| {
        path.file_stem().is_some_and(|name| name.to_string_lossy().contains(&wanted))
    };
    for path in stories.iter().filter(is_wanted) {
        let text = fs::read_to_string(path).expect("a story can be read");
        let outcome = if rewrite {
            story::rewrite(&shown(path), &text)
                .map(|text| fs::write(path, text).expect("a story can be written"))
        } else {
            story::compare(&shown(path), &text)
        };
        faults.extend(outcome.err().map(|fault| fault.to_string()));
    }
    assert!(
        faults.is_empty(),
        "\n{}\n{} of {} stories differ; PORTOLAN_REWRITE=1 writes down what happens now\n",
        faults.join("\n"),
        faults.len(),
        stories.len(),
    );
}

fn fault(text: &str) -> String {
    let outcome = story::compare(Path::new("story.txt"), text);
    outcome.expect_err("the story is wrong").to_string()
}

#[test]
fn a_wrong_line_is_named_with_what_was_expected() {
    for (line, wrong) in [
        ("listen l1 /ip4/44.0.0.1", "expected an address such as /ip4/44.0.0.1/tcp/4001, found"),
        ("listen x1 /ip4/44.0.0.1/tcp/1", "expected a listener such as l1, found \"x1\""),
        ("interfaces 44.0.0.1 hello", "expected the end of the line, found \"hello\""),
        ("+5", "expected a span such as 50ms, 2s, 10m or 24h, found \"5\""),
        ("frobnicate", "expected a verb (see docs/scenarios.md), found \"frobnicate\""),
        ("connect c1 S1 out /ip4/44.0.0.1/tcp/1", "expected local=ADDRESS, for nothing listens"),
        ("connect c1", "expected a peer's name such as S1 here, found the end of the line"),
        ("identify c1 server", "expected a stream of ours on c1 that speaks identify"),
        ("answer S1 OK OK", "expected a probe that asks S1"),
        ("tick\nconfig allow-private", "expected every config line before the first fact"),
    ] {
        let number = 1 + line.lines().count();
        let shown = fault(&format!("# A story with a mistake.\n{line}\n----\n"));
        let begin = format!("story.txt:{number}: {wrong}");
        assert!(shown.starts_with(&begin), "{line}: {shown}");
    }
    assert!(fault("tick\n").starts_with("story.txt:1: expected a comment"));
    let knob = fault("# A knob that is none.\nconfig colour=red\n");
    assert!(knob.starts_with("story.txt:2: expected a word here"), "{knob}");
}

#[test]
fn a_difference_names_the_line_and_shows_both_sides() {
    let text = "# Nothing happens.\ntick\n+1s\ntick\n----\n    0.000 < tick\n    0.000 < tock\n";
    let shown = fault(text);
    assert!(shown.starts_with("story.txt:7: the transcript differs"), "{shown}");
    assert!(shown.contains("      6       0.000 < tick\n      7 -     0.000 < tock\n"), "{shown}");
    assert!(shown.ends_with("        +     0.000 < +1s\n        +     1.000 < tick\n"), "{shown}");
}

#[test]
fn rewriting_keeps_the_facts_and_then_nothing_differs() {
    let path = Path::new("story.txt");
    let text = "# Nothing happens.\n\ntick   # a comment\n----\nold\n";
    let rewritten = story::rewrite(path, text).expect("the story is right");
    assert!(
        rewritten.starts_with("# Nothing happens.\n\ntick   # a comment\n----\n    0.000 < tick\n")
    );
    assert_eq!(story::compare(path, &rewritten), Ok(()));
}
