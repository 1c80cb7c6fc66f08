//! `portolan replay`, through the built program, and its library where every byte is tried.

mod support;

use portolan::{ReplayFailed, ReplayOptions, Replayed};
use portolan_core::flight::{ReadError, Reader, Tail};
use std::path::Path;
use std::process::{Output, Stdio};
use support::record::{PROVED, beginning, closed_listener, record, rewritten, second_part};
use support::{Folder, code, portolan, run, stderr, stdout};

/// The story's record in a file of its own.
fn filed(name: &str, bytes: &[u8]) -> (Folder, String) {
    let folder = Folder::new(name);
    let file = folder.file("a.rec");
    std::fs::write(&file, bytes).expect("it can be written");
    (folder, file)
}

/// Replay in this process, and drop what is written out.
fn replayed(bytes: &[u8]) -> Result<Replayed, ReplayFailed> {
    portolan::replay(bytes, &ReplayOptions::default(), &mut std::io::sink())
}

/// The number of events in a record.
fn events(bytes: &[u8]) -> u64 {
    Reader::new(bytes).expect("a record").1.count() as u64
}

/// The story with the digest of one event changed.
fn with_wrong_digest(event: usize) -> Vec<u8> {
    rewritten(&record(), |_| (), |step, of| of.digest ^= u64::from(step == event))
}

/// The lines of the transcript, and those after it.
#[track_caller]
fn parts(output: &Output) -> (Vec<&str>, Vec<&str>) {
    let (transcript, verdicts) = stdout(output).split_once("\n\n").expect("a blank line");
    (transcript.lines().collect(), verdicts.lines().collect())
}

#[test]
fn the_transcript_has_a_line_for_each_event_and_action() {
    let (_folder, file) = filed("transcript", &record());
    let output = run(&["replay", &file]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let (transcript, verdicts) = parts(&output);
    let of = |number: &str, mark: &str| {
        let start = format!("{number:>7} ");
        let is = move |line: &&&str| line.starts_with(&start) && line[20..].starts_with(mark);
        transcript.iter().filter(is).map(|line| line[22..].to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(of("1", "<"), ["interfaces 44.0.0.1"]);
    assert_eq!(of("2", "<"), [format!("listening l1 {PROVED}")]);
    assert_eq!(of("10", "<"), ["frame >dial-request:1 (…Lr2NASuq) DialResponse OK OK idx=0"]);
    assert!(
        of("9", " ").contains(&format!(
            "* verdict {PROVED} reachable contacted: a contacted \
        server dialled back; strangers untested"
        )),
        "{transcript:#?}"
    );
    assert!(of("11", "<")[0].starts_with("tick: "), "and why: {:?}", of("11", "<"));
    let numbers: Vec<u64> = transcript
        .iter()
        .filter(|line| line[20..].starts_with('<'))
        .map(|line| line[..7].trim().parse().expect("a number"))
        .collect();
    assert_eq!(numbers, (1..=events(&record())).collect::<Vec<_>>());

    let (heading, rest) = verdicts.split_first().expect("verdicts");
    assert!(heading.starts_with("12D3KooW") && heading.contains(" after event "), "{heading}");
    assert!(
        rest[0].starts_with(
            "  node public: a contacted server dialled back to an address presumed open"
        ),
        "{rest:?}"
    );
    assert!(rest.iter().any(|line| line.starts_with(&format!("  addr {PROVED} reachable"))));
}

#[test]
fn the_summary_tells_the_speed() {
    let (_folder, file) = filed("summary", &record());
    let output = run(&["replay", "--quiet", &file]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let words: Vec<&str> = stderr(&output).split_whitespace().collect();
    let number = |place: usize| words[place].replace(',', "").parse::<f64>().expect("a number");
    assert_eq!((words[0], words[2], words[3]), ("replayed", "events", "over"), "{words:?}");
    assert_eq!(words[1].replace(',', ""), events(&record()).to_string());
    assert!((590.0..=600.0).contains(&number(4)), "{words:?}");
    assert!(number(9) >= 100.0, "the replay is slow: {words:?}");
    assert_eq!(words[10..], ["times", "real", "time;", "every", "digest", "matched"]);
    assert!(stdout(&output).starts_with("\n12D3KooW"), "no transcript: {}", stdout(&output));
}

#[test]
fn the_same_record_gives_the_same_text() {
    let (_folder, file) = filed("same", &record());
    let (first, second) = (run(&["replay", &file]), run(&["replay", &file]));
    assert_eq!(stdout(&first), stdout(&second));
}

#[test]
fn what_peers_say_does_not_reach_the_terminal() {
    let hostile = |head: &mut portolan_core::flight::Head| {
        head.software = support::record::AGENT.into();
    };
    // Once with every digest right, once with the words that tell of a divergence.
    for event in [0, 5] {
        let bytes = rewritten(&record(), hostile, |step, of| of.digest ^= u64::from(step == event));
        let (_folder, file) = filed("terminal", &bytes);
        let output = run(&["replay", &file]);
        assert_eq!(code(&output), i32::from(event > 0), "{}", stderr(&output));
        assert!(stdout(&output).contains("evil"), "{}", stdout(&output));
        for text in [stdout(&output), stderr(&output)] {
            let odd = |c: &char| !(c.is_ascii_graphic() || matches!(c, ' ' | '\n' | '…'));
            assert_eq!(text.chars().find(odd), None, "{text}");
        }
    }
}

#[test]
fn a_replay_stops_where_it_is_told_to() {
    let (_folder, file) = filed("until", &record());
    let whole = run(&["replay", &file]);
    let whole = parts(&whole).0;
    for until in [1, 7, 8, 9] {
        let output = run(&["replay", &file, "--until", &until.to_string()]);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let (transcript, verdicts) = parts(&output);
        let wanted = |line: &&&str| line[..7].trim().parse::<u64>().is_ok_and(|n| n <= until);
        let wanted: Vec<&str> = whole.iter().filter(wanted).copied().collect();
        assert_eq!(transcript, wanted);
        assert!(verdicts[0].contains(&format!(" after event {until}, ")), "{verdicts:?}");
        let state = if until < 9 { "  node unknown: " } else { "  node public: " };
        assert!(verdicts[1].starts_with(state), "{verdicts:?}");
        assert!(stderr(&output).starts_with(&format!("replayed {until} event")));
    }
    let none = run(&["replay", &file, "--until", "0"]);
    assert!(stdout(&none).starts_with("\n12D3KooW"), "{}", stdout(&none));
    let beyond = run(&["replay", &file, "--until", "1000000"]);
    let said = format!("the record ends with event {}\n", events(&record()));
    assert_eq!(code(&beyond), 0);
    assert!(stderr(&beyond).starts_with(&said), "{}", stderr(&beyond));
}

#[test]
fn a_verdict_is_explained_as_of_its_moment() {
    let (_folder, file) = filed("explain", &record());
    let named = format!("{PROVED}/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA");
    for (until, address, state) in
        [("6", PROVED, "unknown"), ("9", PROVED, "reachable contacted"), ("9", &named, "reachable")]
    {
        let output = run(&["replay", &file, "--until", until, "--explain", address]);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let (_, lines) = parts(&output);
        let said = lines.iter().map(|line| line.trim()).collect::<Vec<_>>();
        assert_eq!(said[1], format!("addr       {PROVED}"));
        assert!(said[2].starts_with(&format!("state      {state}")), "{said:?}");
        assert!(said.iter().any(|line| line.starts_with("server ")), "{said:?}");
    }
    let stranger = "/ip4/44.0.0.9/tcp/1";
    let output = run(&["replay", &file, "--explain", stranger]);
    assert_eq!(code(&output), 1);
    for word in [stranger, "not known", PROVED] {
        assert!(stderr(&output).contains(word), "{}", stderr(&output));
    }
    let output = run(&["replay", &file, "--until", "0", "--explain", stranger]);
    assert!(stderr(&output).contains("known are: none"), "{}", stderr(&output));
}

#[test]
fn a_node_that_still_listens_has_not_stopped() {
    let (_folder, file) = filed("closed", &closed_listener());
    let output = run(&["replay", "--quiet", &file]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(stdout(&output).matches(" after event ").count(), 1, "{}", stdout(&output));
}

#[test]
fn a_later_part_is_replayed_by_itself() {
    let (folder, file) = filed("part", &second_part());
    let output = run(&["replay", &file]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stderr(&output).ends_with("every digest matched\n"), "{}", stderr(&output));
    let (transcript, verdicts) = parts(&output);
    assert!(transcript[0].starts_with("      1 "), "{}", transcript[0]);
    assert!(verdicts[1].starts_with("  node public: "), "{verdicts:?}");
    let begun = run(&["replay", &file, "--until", "0", "--explain", PROVED]);
    assert!(stdout(&begun).contains("reachable contacted\n"), "{}", stdout(&begun));

    let redacted = run(&["replay", &file, "--redact", &folder.file("out")]);
    assert_eq!(code(&redacted), 0, "{}", stderr(&redacted));
    assert_eq!(stdout(&redacted).lines().count(), stdout(&output).lines().count());
    assert!(!stdout(&redacted).contains(PROVED), "{}", stdout(&redacted));
}

#[test]
#[allow(clippy::wildcard_enum_match_arm, reason = "no other error may come")]
fn every_flipped_bit_is_found_with_its_position() {
    let whole = beginning();
    let (_, mut reader) = Reader::new(&whole).expect("a record");
    let mut frames = vec![8, reader.offset()];
    while reader.next().is_some() {
        frames.push(reader.offset());
    }
    for place in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[place] ^= 1 << bit;
            let failed = replayed(&bytes).expect_err("a bit is wrong");
            let ReplayFailed::Read { error, events } = failed else {
                panic!("byte {place}, bit {bit}: {failed}")
            };
            match error {
                ReadError::Damaged { offset } => {
                    let frame = frames.iter().filter(|start| **start <= place).count() - 1;
                    assert_eq!(offset, frames[frame], "byte {place}, bit {bit}");
                    assert_eq!(events, (frame as u64).saturating_sub(1), "byte {place}, bit {bit}");
                }
                ReadError::NotARecord => assert!(place < 7, "byte {place}, bit {bit}"),
                ReadError::Version { .. } => assert_eq!(place, 7),
                error => panic!("byte {place}, bit {bit}: {error}"),
            }
        }
    }
    let mut bytes = whole;
    bytes[frames[4] + 9] ^= 1;
    let (_folder, file) = filed("flipped", &bytes);
    let output = run(&["replay", &file]);
    assert_eq!(code(&output), 1);
    let said = format!("damaged at byte {}, behind event 3\n", frames[4]);
    assert!(stderr(&output).ends_with(&said), "{}", stderr(&output));
    assert!(stderr(&output).contains(&file), "{}", stderr(&output));
    assert!(stdout(&output).contains("\n      3 "), "{}", stdout(&output));
    assert!(!stdout(&output).contains("\n      4 "), "{}", stdout(&output));
}

#[test]
fn a_cut_record_is_replayed_to_its_last_whole_event() {
    let whole = beginning();
    let (_, reader) = Reader::new(&whole).expect("a record");
    let head = reader.offset();
    let mut last = 0;
    for len in 0..whole.len() {
        match replayed(&whole[..len]) {
            Err(ReplayFailed::Read { error, events: 0 }) => {
                assert!(len < head, "{len} bytes: {error}");
                assert!(matches!(error, ReadError::Empty | ReadError::TornHead { .. }), "{error}");
            }
            Err(failed) => panic!("{len} bytes: {failed}"),
            Ok(replayed) => {
                assert!(len >= head && replayed.events >= last, "{len} bytes");
                last = replayed.events;
                match replayed.tail.expect("the record was read to its end") {
                    Tail::Whole => {}
                    Tail::Torn { offset, bytes } => assert_eq!(offset + bytes, len),
                }
            }
        }
    }
    assert_eq!(last + 1, events(&whole));
    let (_folder, file) = filed("cut", &whole[..whole.len() - 3]);
    let output = run(&["replay", &file]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let said = format!("cut off after event {last}: ");
    assert!(stderr(&output).lines().next().expect("a line").contains(&said), "{}", stderr(&output));
}

#[test]
fn the_first_divergence_is_named_with_its_event() {
    let (_folder, file) = filed("diverges", &with_wrong_digest(9));
    let output = run(&["replay", &file]);
    assert_eq!(code(&output), 1);
    let said: Vec<&str> = stderr(&output).lines().collect();
    let named = format!("error: {file}: event 9, at 0.040 s, went otherwise than recorded: ");
    assert!(said[0].starts_with(&named) && said[0].contains("digest"), "{said:#?}");
    assert!(said[1].starts_with("      9 ") && said[1].contains(" < frame <dial-back:1 "));
    assert_eq!(said[2], "now this comes of it:");
    assert!(said[3..].iter().any(|line| line.contains("* verdict ")), "{said:#?}");
    assert!(said.last().is_some_and(|line| line.contains("portolan/")), "{said:#?}");
    // The transcript shows what came out, up to there and no further.
    let last = stdout(&output).lines().last().expect("a line");
    assert!(last.starts_with("      9 "), "{last}");
    // Before the event nothing is wrong.
    assert_eq!(code(&run(&["replay", &file, "--until", "8"])), 0);
}

#[test]
fn a_blessed_record_replays() {
    let whole = record();
    let mut bytes = rewritten(
        &whole,
        |_| (),
        |event, of| {
            if event == 5 || event == 9 {
                of.digest ^= 1;
            }
        },
    );
    bytes.extend([1, 2]);
    let (folder, file) = filed("blessed", &bytes);
    let output = run(&["replay", &file, "--bless", "--quiet"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let said: Vec<&str> = stderr(&output).lines().collect();
    assert!(said[0].contains("cut off") && said[1].contains("was written anew"), "{said:?}");
    assert!(said[2].ends_with("; 2 events went otherwise than recorded"), "{said:?}");
    assert_eq!(std::fs::read(&file).expect("it is there"), whole, "what was wrong is right");
    assert_eq!(mode(&file), 0o600);
    let left: Vec<_> = std::fs::read_dir(&folder.0).expect("it is there").collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(code(&run(&["replay", &file])), 0);
}

#[test]
fn what_is_not_to_be_blessed_stays_as_it_is() {
    let mut damaged = with_wrong_digest(3);
    let middle = damaged.len() / 2;
    damaged[middle] ^= 4;
    for (bytes, wanted) in [(record(), 0), (damaged, 1)] {
        let (_folder, file) = filed("unblessed", &bytes);
        let before = mode(&file);
        let output = run(&["replay", &file, "--bless", "--quiet"]);
        assert_eq!(code(&output), wanted, "{}", stderr(&output));
        assert_eq!(std::fs::read(&file).expect("it is there"), bytes);
        assert_eq!(mode(&file), before, "it was not even touched");
    }
}

#[cfg(unix)]
#[test]
fn blessing_follows_links() {
    let (folder, file) = filed("link", &with_wrong_digest(2));
    let link = folder.file("link");
    std::os::unix::fs::symlink(&file, &link).expect("links can be made");
    assert_eq!(code(&run(&["replay", &link, "--bless"])), 0);
    assert!(Path::new(&link).is_symlink());
    assert_eq!(std::fs::read(&file).expect("it is there"), record());
}

#[test]
fn what_is_no_record_is_named() {
    let (folder, file) = filed("none", b"ptlnrex and so on");
    let empty = folder.file("empty");
    std::fs::write(&empty, "").expect("it can be written");
    let newer = folder.file("newer");
    std::fs::write(&newer, b"ptlnrec\x63").expect("it can be written");
    let missing = folder.file("missing");
    for (file, problem) in [
        (file.as_str(), "no flight record"),
        (&empty, "empty"),
        (&newer, "99"),
        (&missing, "No such file"),
        ("/", "directory"),
    ] {
        let output = run(&["replay", file]);
        assert_eq!((code(&output), stdout(&output)), (1, ""), "{file}");
        for word in [&format!("error: {file}: "), problem] {
            assert!(stderr(&output).contains(word), "{file}: {}", stderr(&output));
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_without_an_end_is_refused_at_its_beginning() {
    let output = run(&["replay", "/dev/zero"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("no flight record"), "{}", stderr(&output));
}

#[test]
fn wrong_arguments_are_wrong_use() {
    for (args, word) in [
        (["replay"].as_slice(), "FILE"),
        (&["replay", ""], "FILE"),
        (&["replay", "a.rec", "--until", "x"], "--until"),
        (&["replay", "a.rec", "--explain", "44.0.0.1"], "not a multiaddr"),
        (&["replay", "a.rec", "--bless", "--until", "3"], "--until"),
        (&["replay", "a.rec", "--runtime", "smol"], "--runtime"),
    ] {
        let output = run(args);
        assert_eq!((code(&output), stdout(&output)), (2, ""), "{args:?}");
        assert!(stderr(&output).contains(word), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn a_reader_that_goes_away_changes_no_exit_code() {
    for (bytes, wanted) in [(record(), 0), (with_wrong_digest(9), 1)] {
        let (_folder, file) = filed("pipe", &bytes);
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let child = portolan(&["replay", &file]).stdout(writer).stderr(Stdio::piped()).spawn();
        let output = child.expect("it starts").wait_with_output().expect("it ends");
        assert_eq!(code(&output), wanted, "{}", stderr(&output));
        assert!(!stderr(&output).contains("roken pipe"), "{}", stderr(&output));
    }
}

#[cfg(unix)]
fn mode(file: &str) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(file).expect("it is there").permissions().mode() & 0o7777
}

#[cfg(not(unix))]
fn mode(_: &str) -> u32 {
    0o600
}
