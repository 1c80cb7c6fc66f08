//! Targets: flight records, and the state that a part of one begins with.

use crate::signed::key;
use crate::trail::{Trail, magnitude, variant};
use bytes::Bytes;
use portolan_core::flight::{
    Head, MAGIC, ReadError, Reader, RedactError, Replay, ReplayError, Step, Tail, Writer, redact,
};
use portolan_core::transcript::{Scribe, ShortNames};
use portolan_core::{Actions, Config, ConnId, DialBackConfig, Duration, Event, Instant, UnixTime};

/// Bytes in front of the first frame.
const PREAMBLE: usize = MAGIC.len() + 1;
/// Bytes in front of each payload.
const HEADER: usize = 8;
/// Characters of the longest line of a transcript: "some 16 kB", and room for the columns.
const LINE_MAX: usize = 20_000;

/// A record, as it stands and with its checks mended: a change would not get past them otherwise.
pub(crate) fn record(bytes: &[u8], trail: &mut Trail) {
    lived(bytes, trail);
    let mended = mended(bytes);
    if mended != bytes {
        lived(&mended, trail);
    }
}

/// The same frames with the checks that belong to what is in them now.
fn mended(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes[..bytes.len().min(PREAMBLE)].to_vec();
    let mut rest = &bytes[out.len()..];
    while let Some((header, behind)) = rest.split_at_checked(HEADER) {
        let wanted = u32::from_le_bytes([header[0], header[1], header[2], 0]);
        let len = usize::try_from(wanted).unwrap_or(usize::MAX).min(behind.len());
        let payload = &behind[..len];
        out.extend(framed(payload));
        rest = &behind[len..];
    }
    out.extend_from_slice(rest);
    out
}

/// A frame, as the documentation describes it.
fn framed(payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("a short payload").to_le_bytes();
    let check = len[0] ^ len[1] ^ len[2] ^ 0xa5;
    let crc = crc32fast::hash(payload).to_le_bytes();
    [&len[..3], &[check], &crc[..], payload].concat()
}

fn lived(bytes: &[u8], trail: &mut Trail) {
    let redacted = redact(bytes, [7; 16]);
    let (head, reader) = match Reader::new(bytes) {
        Ok(read) => read,
        Err(error) => {
            trail.saw(format_args!("head {}", why(error)));
            assert_eq!(redacted, Err(RedactError::Read(error)));
            return;
        }
    };
    let (steps, error) = steps(reader, bytes.len());
    trail.saw(format_args!("{} steps, {:?}", magnitude(steps.len()), error.map(why)));
    assert!(steps.first().is_none_or(|step| step.now >= head.now), "no step is before its head");
    assert!(steps.is_sorted_by_key(|step| step.now), "time never runs backwards");
    let written = written(&head, &steps);
    assert_eq!(read(&written), (head.clone(), steps.clone()), "written again, it says the same");

    match Replay::new(&head) {
        Err(error) => {
            trail.saw(format_args!("replay {}", variant(&error)));
            assert!(redacted.is_err(), "what cannot be replayed cannot be redacted");
        }
        Ok(replay) => {
            let diverged = replayed(&head, replay, &steps, trail);
            match redacted {
                Ok(redacted) => {
                    assert_eq!(error, None, "only what can be read to its end is redacted");
                    assert_eq!(redacted.steps, u64::try_from(steps.len()).unwrap_or(u64::MAX));
                    assert_eq!(redacted.diverged.is_some(), diverged);
                    agrees(&redacted.record, trail);
                }
                Err(RedactError::Read(found)) => assert_eq!(Some(found), error),
                Err(error) => trail.saw(format_args!("redact {}", variant(&error))),
            }
        }
    }
}

/// All steps that can be read, and what stopped it.
fn steps(mut reader: Reader<'_>, len: usize) -> (Vec<Step>, Option<ReadError>) {
    let mut steps = Vec::new();
    let mut error = None;
    let mut offset = reader.offset();
    while let Some(step) = reader.next() {
        match step {
            Ok(step) => {
                steps.push(step);
                assert!(reader.offset() >= offset + HEADER, "every step takes bytes");
                offset = reader.offset();
            }
            Err(found) => {
                assert_eq!(error.replace(found), None, "nothing comes after an error");
            }
        }
    }
    assert!(reader.next().is_none());
    match reader.tail() {
        Tail::Whole => assert_eq!(offset, len),
        Tail::Torn { offset: at, bytes } => assert_eq!((at, at + bytes), (offset, len)),
    }
    (steps, error)
}

fn read(bytes: &[u8]) -> (Head, Vec<Step>) {
    let (head, reader) = Reader::new(bytes).expect("our own writing");
    let (steps, error) = steps(reader, bytes.len());
    assert_eq!(error, None);
    (head, steps)
}

fn written(head: &Head, steps: &[Step]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(head, &mut bytes);
    steps.iter().for_each(|step| writer.step(step, &mut bytes));
    bytes
}

/// Live through the steps. What is lived can be written down and lived again, and the state at the
/// end can be carried along. Returns whether something went otherwise than recorded.
fn replayed(head: &Head, mut replay: Replay, steps: &[Step], trail: &mut Trail) -> bool {
    let mut scribe = Scribe::new(ShortNames::new(head.identity.to_peer_id()), head.now);
    let mut actions = Actions::new();
    let mut diverged = false;
    let mut renewed = Vec::new();
    for step in steps {
        if let Err(divergence) = replay.step(step, &mut actions) {
            trail.saw(format_args!("diverged {}", variant(&divergence.what)));
            diverged = true;
        }
        renewed.push(replay.renewed(step));
        trail.saw(format_args!("{}", variant(&step.event)));
        printable(&scribe.event(&step.event));
        for action in actions.drain() {
            trail.saw(format_args!("{}", variant(&action)));
            printable(&scribe.action(&action));
        }
        let deadline = replay.deadline();
        assert!(deadline.is_none_or(|deadline| deadline.at > step.now), "{deadline:?}");
    }
    let explained = replay.explain();
    trail.saw(format_args!("{:?} {}", explained.state, variant(&explained.reason)));
    let mut again = Replay::new(head).expect("it was replayed just now");
    for step in &renewed {
        assert_eq!(again.step(step, &mut actions), Ok(()), "as this core takes it");
    }
    actions.drain().for_each(drop);
    assert!(again.agrees_with(&replay));
    carried_along(head, &replay);
    diverged
}

/// A record of our own making replays without a divergence.
fn agrees(record: &[u8], trail: &mut Trail) {
    let (head, steps) = read(record);
    let mut replay = Replay::new(&head).expect("a redacted record can be replayed");
    let mut actions = Actions::new();
    for step in &steps {
        assert_eq!(replay.step(step, &mut actions), Ok(()), "a redacted record agrees");
        actions.drain().for_each(drop);
    }
    trail.saw(format_args!("redacted {:?}", replay.explain().state));
}

/// The state is saved and found again the same.
fn carried_along(head: &Head, replay: &Replay) {
    let checkpoint = replay.checkpoint();
    let part = Head { part: 1, checkpoint: Some(checkpoint.clone()), ..head.clone() };
    let found = Replay::new(&part).expect("our own checkpoint");
    assert!(found.agrees_with(replay));
    assert_eq!(found.checkpoint(), checkpoint, "there is one way to save it");
    assert_eq!(found.explain(), replay.explain());
    assert_eq!(found.deadline(), replay.deadline());
}

/// A transcript's line can be shown on any terminal.
pub(crate) fn printable(line: &str) {
    let good = |c: char| matches!(c, ' '..='~' | '…' | 'µ');
    assert!(line.chars().all(good), "{line:?}");
    assert!(line.len() <= LINE_MAX, "{} characters", line.len());
}

/// The name of an error, with its reason where it has one.
fn why(error: ReadError) -> String {
    match error {
        ReadError::Malformed { why, .. } => why.to_owned(),
        other => variant(&other),
    }
}

/// The heads that a checkpoint's first byte chooses from.
pub(crate) fn head(kind: u8) -> Head {
    let mut config = Config::default();
    config.agent_version = "fuzz/1".into();
    config.allow_private = kind & 1 != 0;
    config.identify = kind & 2 == 0;
    config.dial_back = (kind & 4 != 0).then(DialBackConfig::default);
    Head {
        software: "fuzz/1".into(),
        config,
        identity: key(1).0.public(),
        part: 1,
        now: Instant::ZERO,
        unix: UnixTime::from_millis(0),
        checkpoint: None,
    }
}

/// The state that a part begins with: what can be loaded is saved again the same, and the agent
/// goes on from there.
pub(crate) fn checkpoint(bytes: &[u8], trail: &mut Trail) {
    let [kind, rest @ ..] = bytes else { return };
    let head = Head { checkpoint: Some(Bytes::copy_from_slice(rest)), ..head(*kind) };
    let mut replay = match Replay::new(&head) {
        Ok(replay) => replay,
        Err(error) => {
            assert_eq!(error, ReplayError::Checkpoint);
            return trail.saw(format_args!("refused"));
        }
    };
    carried_along(&head, &replay);
    let explained = replay.explain();
    trail.saw(format_args!("{:?} {}", explained.state, variant(&explained.reason)));
    trail.saw(format_args!("{} addresses", magnitude(explained.addresses.len())));
    trail.saw(format_args!("{} servers", magnitude(explained.servers.len())));
    for address in &explained.addresses {
        trail.saw(format_args!("{:?} {}", address.state, variant(&address.reason)));
    }
    let mut actions = Actions::new();
    let events = [
        Event::Tick,
        Event::Disconnected { conn: ConnId(1) },
        Event::InterfacesChanged { ips: Vec::new() },
        Event::Resumed { slept: Duration::from_secs(60) },
        Event::Tick,
        Event::Tick,
    ];
    for event in events {
        let deadline = replay.deadline();
        let now = deadline.map_or(explained.at, |deadline| deadline.at);
        let step = Step {
            now,
            unix: UnixTime::from_millis(0),
            event,
            drawn: Vec::new(),
            signatures: Vec::new(),
            digest: 0,
        };
        let _ = replay.step(&step, &mut actions);
        for action in actions.drain() {
            trail.saw(format_args!("{}", variant(&action)));
        }
    }
    carried_along(&head, &replay);
}
