//! Any part of a record replays alone, whatever the agent was at when the part began.

use crate::pair::Node;
use crate::round_trip::{read, settings, written};
use crate::story::{cached, told};
use crate::values;
use bytes::Bytes;
use portolan_core::flight::{Head, Reader, Recorder, Replay, ReplayError, Step};
use portolan_core::{Actions, Agent, Config, Instant, UnixTime};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

/// The layout of the checkpoints in `checkpoints-N.txt`.
const LAYOUT: u8 = 11;

fn head_of(part: &[u8]) -> Head {
    read(part).0
}

fn go_on(replay: &mut Replay, steps: &[Step]) {
    let mut actions = Actions::new();
    for step in steps {
        replay.step(step, &mut actions).unwrap_or_else(|error| panic!("{error}: {step:?}"));
        actions.drain().for_each(drop);
    }
}

/// A part that begins after each step finds the agent where the record has brought it. Returns in
/// how many states it was.
fn begins_anywhere(node: &Node) -> usize {
    let (head, steps) = read(&node.record);
    assert_eq!(steps.len(), node.parts.len());
    let mut replay = Replay::new(&head).expect("a good configuration");
    let mut states = BTreeSet::new();
    for (step, part) in steps.iter().zip(&node.parts) {
        go_on(&mut replay, core::slice::from_ref(step));
        let head = head_of(part);
        let found = Replay::new(&head).expect("a state that can be read");
        assert!(found.agrees_with(&replay), "\n{found:?}\n{replay:?}");
        assert_eq!(found.explain(), replay.explain());
        assert_eq!(head.checkpoint, Some(found.checkpoint()), "and it is saved again the same");
        states.extend(head.checkpoint);
    }
    states.len()
}

#[test]
fn a_part_can_begin_after_any_step() {
    for seed in 1..=3 {
        for node in &told(seed).nodes {
            assert!(begins_anywhere(node) > 100, "seed {seed}");
        }
    }
}

#[test]
fn each_part_replays_alone() {
    for node in &cached().nodes {
        let (_, steps) = read(&node.record);
        for at in (0..steps.len()).step_by(7) {
            let mut replay = Replay::new(&head_of(&node.parts[at])).expect("a readable state");
            go_on(&mut replay, &steps[at + 1..]);
            assert_eq!(replay.explain(), node.agent.explain());
            assert_eq!(replay.deadline(), node.agent.deadline());
        }
    }
}

#[test]
fn a_recorder_goes_on_in_the_next_part() {
    let agent = Agent::new(Config::default(), values::key(1).public()).expect("a good config");
    let mut recorder = Recorder::new([3; 16]);
    let (now, unix) = (Instant::from_millis(7), UnixTime::from_millis(8));
    let mut part = Vec::new();
    recorder.begin(&agent, 7, now, unix, &mut part);
    let (head, reader) = Reader::new(&part).expect("a record");
    assert_eq!((head.part, head.now, head.unix, reader.count()), (7, now, unix, 0));
    assert_eq!(head.checkpoint.as_ref().map(|bytes| bytes[0]), Some(LAYOUT));
    let fresh = Head { part: 0, checkpoint: None, ..head.clone() };
    let [found, fresh] = [head, fresh].map(|head| Replay::new(&head).expect("a good state"));
    assert!(found.agrees_with(&fresh));
}

#[test]
fn a_state_that_is_none_is_refused() {
    let head = head_of(&cached().nodes[1].parts[60]);
    let whole = head.checkpoint.clone().expect("a part that is not the first");
    let tried = |part, checkpoint| Replay::new(&Head { part, checkpoint, ..head.clone() }).err();
    let refused = Some(ReplayError::Checkpoint);
    assert_eq!(tried(1, Some(whole.clone())), None);
    assert_eq!(tried(0, Some(whole.clone())), refused, "the first part has no state");
    assert_eq!(tried(1, None), refused, "and a later one has");
    for end in 0..whole.len() {
        assert_eq!(tried(1, Some(whole.slice(..end))), refused, "{end} bytes");
    }
    let mut longer = whole.to_vec();
    longer.push(0);
    assert_eq!(tried(1, Some(longer.into())), refused, "something is left over");
    let mut later = whole.to_vec();
    later[0] += 1;
    assert_eq!(tried(1, Some(later.into())), refused, "another layout");
    let mut config = head.config.clone();
    config.dial_back = None;
    let other = Head { config, ..head.clone() };
    assert_eq!(Replay::new(&other).err(), refused, "a server's state is none of a client");
}

fn fixture() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/flight")
        .join(format!("checkpoints-{LAYOUT}.txt"))
}

/// All that the agent knows, each thing under its name: two fields that have changed places read
/// otherwise, even where they are saved as the same bytes.
fn state(replay: &Replay) -> String {
    format!("{replay:?}")
}

/// Parts of the story that together have been in every state that it knows: one line each, behind
/// the checksum of what it says.
fn telling_parts() -> String {
    let mut words = BTreeSet::new();
    let mut lines = String::new();
    for part in cached().nodes.iter().flat_map(|node| &node.parts) {
        let state = state(&Replay::new(&head_of(part)).expect("a readable state"));
        let named = state
            .split(|c: char| !c.is_alphanumeric())
            .filter(|word| word.starts_with(|c: char| c.is_ascii_uppercase()) && word.len() < 30);
        let before = words.len();
        words.extend(named.map(str::to_owned));
        if words.len() > before {
            write!(lines, "{:08x} ", crc32fast::hash(state.as_bytes())).expect("memory");
            part.iter().for_each(|byte| write!(lines, "{byte:02x}").expect("memory"));
            lines.push('\n');
        }
    }
    lines
}

/// Checkpoints that were written once are read for as long as their layout is said to be the
/// layout. Where this fails, raise `LAYOUT` here and in `flight/checkpoint.rs`, and run it with
/// `PORTOLAN_REWRITE=1`, which writes the file of the new layout and never one that is there.
#[test]
fn the_layout_is_the_one_that_its_number_stands_for() {
    let rewrite = env::var_os("PORTOLAN_REWRITE").is_some_and(|value| value == "1");
    if rewrite && !fixture().exists() {
        fs::write(fixture(), telling_parts()).expect("a writable folder");
    }
    let text = fs::read_to_string(fixture()).expect("the file of this layout is committed");
    assert!(text.lines().count() >= 5);
    for line in text.lines() {
        let (says, digits) = line.split_once(' ').expect("a checksum and a part");
        let digits = digits.as_bytes().as_chunks::<2>().0.iter();
        let byte = |digits: &[u8; 2]| {
            let digits = str::from_utf8(digits).expect("digits");
            u8::from_str_radix(digits, 16).expect("digits")
        };
        let head = head_of(&digits.map(byte).collect::<Vec<u8>>());
        assert_eq!(head.checkpoint.as_ref().map(|bytes| bytes[0]), Some(LAYOUT));
        let replay = Replay::new(&head).expect("a state that was saved by this layout");
        assert_eq!(Some(replay.checkpoint()), head.checkpoint, "it is saved otherwise today");
        let found = format!("{:08x}", crc32fast::hash(state(&replay).as_bytes()));
        assert_eq!(found, says, "it says something else today: {}", state(&replay));
    }
}

/// Live through what is left of the story from such a state, and through what else may happen.
fn live_on(head: &Head, steps: &[Step]) -> bool {
    let Ok(mut replay) = Replay::new(head) else { return false };
    let _ = replay.explain();
    let mut actions = Actions::new();
    for step in steps {
        let _ = replay.step(step, &mut actions);
        let _ = replay.explain();
        actions.drain().for_each(drop);
    }
    // What it has become can be saved and read again.
    let checkpoint = Some(replay.checkpoint());
    let again = Replay::new(&Head { checkpoint, ..head.clone() });
    assert!(again.expect("it was lived to").agrees_with(&replay));
    true
}

/// How a byte of a checkpoint is changed.
#[derive(Clone, Debug)]
enum Change {
    Set(u8),
    Add(u8),
    Remove,
    Repeat,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        any::<u8>().prop_map(Change::Set),
        (1..4u8).prop_map(Change::Add),
        Just(Change::Remove),
        Just(Change::Repeat),
    ]
}

fn changed(checkpoint: &mut Vec<u8>, at: usize, change: &Change) {
    match change {
        Change::Set(byte) => checkpoint[at] = *byte,
        Change::Add(more) => checkpoint[at] = checkpoint[at].wrapping_add(*more),
        Change::Remove => drop(checkpoint.remove(at)),
        Change::Repeat => checkpoint.insert(at, checkpoint[at]),
    }
}

proptest! {
    #![proptest_config(settings(1_024))]

    #[test]
    fn any_bytes_can_be_a_checkpoint(mut bytes in vec(any::<u8>(), 0..200), whole in any::<bool>()) {
        let mut head = head_of(&cached().nodes[1].parts[60]);
        if whole {
            bytes.insert(0, LAYOUT);
        }
        head.checkpoint = Some(bytes.into());
        live_on(&head, &[]);
    }

    #[test]
    fn a_true_state_can_be_distorted(
        node in 0..2usize,
        at in any::<Index>(),
        changes in vec((any::<Index>(), change()), 1..3),
        others in values::steps(Instant::ZERO, 12),
    ) {
        let node = &cached().nodes[node];
        let at = at.index(node.parts.len());
        let mut head = head_of(&node.parts[at]);
        let mut checkpoint = head.checkpoint.clone().unwrap_or_default().to_vec();
        for (at, change) in &changes {
            let at = 1 + at.index(checkpoint.len() - 1);
            changed(&mut checkpoint, at, change);
        }
        head.checkpoint = Some(Bytes::from(checkpoint));
        let (_, mut steps) = read(&node.record);
        let rest = steps.split_off(at + 1);
        let steps: Vec<Step> = rest.into_iter().take(60).chain(others).collect();
        live_on(&head, &steps);
    }
}

#[test]
fn enough_distorted_states_are_lived_through_to_tell() {
    let node = &cached().nodes[1];
    let (_, steps) = read(&node.record);
    let head = head_of(&node.parts[60]);
    let checkpoint = head.checkpoint.clone().unwrap_or_default();
    let lived = (1..checkpoint.len()).filter(|at| {
        let mut checkpoint = checkpoint.to_vec();
        checkpoint[*at] ^= 1;
        let head = Head { checkpoint: Some(checkpoint.into()), ..head.clone() };
        live_on(&head, &steps[61..])
    });
    let lived = lived.count();
    assert!(lived * 10 > checkpoint.len(), "{lived} of {}", checkpoint.len());
}

#[test]
fn a_head_with_its_state_is_written_as_it_was_read() {
    for part in &cached().nodes[0].parts {
        let (head, steps) = read(part);
        assert_eq!(written(&head, &steps), *part);
    }
}
