//! Sample records still replay: what the core did then, it does now.
//!
//! Each `tests/records/NAME.rec` is the flight record of a real node, redacted, and `NAME.txt` the
//! transcript of its replay. A change of behaviour makes one diverge, and a reviewer sees which
//! event and what comes of it now. `PORTOLAN_REWRITE=1` takes what happens now for right and
//! writes both anew; a human reads the difference.

use portolan::{ReplayFailed, ReplayOptions, replay};
use portolan_core::flight::{Reader, Writer};
use portolan_sim::diff::{diff, first_difference};
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Every sample.
fn samples() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("records");
    let entries = fs::read_dir(folder).expect("the folder of samples can be read");
    let paths = entries.map(|entry| entry.expect("the folder can be read").path());
    let mut samples: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "rec")).collect();
    samples.sort();
    samples
}

/// The lines of a replay, and how it ended.
fn played(record: &[u8], options: &ReplayOptions) -> (String, Result<Option<Vec<u8>>, String>) {
    let mut out = Vec::new();
    let ended = replay(record, options, &mut out).map_err(|error| error.to_string());
    let blessed = ended.map(|replayed| replayed.blessed.map(|blessed| blessed.bytes));
    (String::from_utf8(out).expect("a transcript is text"), blessed)
}

/// What is wrong with a sample, if anything is.
fn fault(path: &Path) -> Option<String> {
    let record = fs::read(path).expect("a sample can be read");
    let transcript = path.with_extension("txt");
    if env::var_os("PORTOLAN_REWRITE").is_some_and(|value| value == "1") {
        let mut bless = ReplayOptions::default();
        bless.bless = true;
        let (text, blessed) = played(&record, &bless);
        let blessed = blessed.expect("a sample is whole").expect("it was asked for");
        fs::write(path, blessed).expect("a sample can be written");
        fs::write(transcript, text).expect("a transcript can be written");
        return None;
    }
    let (text, ended) = played(&record, &ReplayOptions::default());
    let expected = fs::read_to_string(transcript).unwrap_or_default();
    let [expected, happened] =
        [&expected, &text].map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>());
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match (ended, first_difference(&expected, &happened)) {
        (Ok(_), None) => None,
        (Ok(_), Some(_)) => Some(format!(
            "{name} replays, but its transcript differs:\n{}",
            diff(&expected, &happened, 1)
        )),
        // Where it diverges the replay stops, so that all the rest would count as different.
        (Err(error), _) => Some(format!("{name}: {error}")),
    }
}

#[test]
fn every_sample_goes_as_recorded() {
    let samples = samples();
    assert!(!samples.is_empty(), "there are samples");
    let faults: Vec<String> = samples.iter().filter_map(|path| fault(path)).collect();
    assert!(
        faults.is_empty(),
        "\n{}\n\nIf that is meant, PORTOLAN_REWRITE=1 writes the samples anew: docs/flight-record.md\n",
        faults.join("\n\n"),
    );
}

/// A core that behaves otherwise is played by another configuration: it calls itself otherwise, so
/// that nothing differs until somebody is told.
#[test]
fn a_change_of_behaviour_is_named_with_its_event() {
    for path in samples() {
        let record = fs::read(&path).expect("a sample can be read");
        let (mut head, reader) = Reader::new(&record).expect("a sample is whole");
        head.config.agent_version = "another/1".into();
        let mut changed = Vec::new();
        let mut writer = Writer::new(&head, &mut changed);
        let steps: Vec<_> = reader.map(|step| step.expect("a sample is whole")).collect();
        steps.iter().for_each(|step| writer.step(step, &mut changed));
        let mut out = Vec::new();
        let failed = replay(&changed, &ReplayOptions::default(), &mut out);
        let Err(ReplayFailed::Diverged(diverged)) = failed else {
            panic!("{}: {failed:?}", path.display());
        };
        let number = diverged.divergence.step;
        let at = usize::try_from(number).expect("it is small");
        assert!((2..=steps.len()).contains(&at), "event {number} of {}", steps.len());
        assert_eq!(diverged.at, steps[at - 1].now.since(head.now));
        let said = diverged.to_string();
        let [named, event] = [format!("event {number}, at "), diverged.event];
        assert!(said.starts_with(&named) && said.contains(&event), "{said}");
        // What came before is in the transcript, and the event with what comes of it now too.
        let text = String::from_utf8(out).expect("a transcript is text");
        assert!(text.contains(&event), "{text}");
    }
}
