//! Files that a crash cut short, that a disk changed, or that somebody made up.

use crate::round_trip::{read, settings, written};
use crate::{story, values};
use bytes::Bytes;
use portolan_core::flight::{Drawn, Head, ReadError, Reader, Replay, Step, Tail};
use portolan_core::{Actions, Config, ConnId, Event, Instant, UnixTime};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

/// Bytes in front of the head's frame.
const PREAMBLE: usize = 8;
/// Bytes in front of each payload.
const HEADER: usize = 8;

/// A small record, and where each of its frames starts; the last number is its end.
fn small() -> (Vec<u8>, Vec<usize>) {
    let mut config = Config::default();
    config.agent_version = "a/1".into();
    let head = Head {
        software: "s/1".into(),
        config,
        identity: values::key(1).public(),
        part: 0,
        now: Instant::from_millis(1),
        unix: UnixTime::from_millis(2),
        checkpoint: None,
    };
    let step = |millis, event, drawn| Step {
        now: Instant::from_millis(millis),
        unix: UnixTime::from_millis(millis),
        event,
        drawn,
        signatures: vec![Bytes::from_static(b"signed")],
        digest: 7,
    };
    let steps = [
        step(5, Event::Tick, vec![Drawn::Below { n: 3, value: 1 }]),
        step(6, Event::Disconnected { conn: ConnId(9) }, vec![Drawn::Nonce(4)]),
        step(7, Event::Contacted { ip: [44, 0, 0, 1].into() }, vec![]),
    ];
    let mut offsets = vec![PREAMBLE];
    for count in 0..=steps.len() {
        offsets.push(written(&head, &steps[..count]).len());
    }
    (written(&head, &steps), offsets)
}

/// How many steps can be read, what stopped it, and what is left.
fn outcome(bytes: &[u8]) -> (usize, Option<ReadError>, Tail) {
    let (_, mut reader) = match Reader::new(bytes) {
        Ok(read) => read,
        Err(error) => return (0, Some(error), Tail::Whole),
    };
    let mut steps = 0;
    let mut error = None;
    for step in reader.by_ref() {
        match step {
            Ok(_) => steps += 1,
            Err(found) => error = Some(found),
        }
    }
    assert!(reader.next().is_none(), "nothing comes after the end");
    (steps, error, reader.tail())
}

#[test]
fn a_record_that_ends_early_has_its_whole_steps() {
    let (record, offsets) = small();
    for end in 0..=record.len() {
        let found = outcome(&record[..end]);
        if end == 0 {
            assert_eq!(found.1, Some(ReadError::Empty));
            continue;
        }
        if end < offsets[1] {
            assert_eq!(found.1, Some(ReadError::TornHead { bytes: end }));
            continue;
        }
        let steps = offsets[2..].iter().filter(|offset| **offset <= end).count();
        let offset = offsets[1 + steps];
        let tail = match end - offset {
            0 => Tail::Whole,
            bytes => Tail::Torn { offset, bytes },
        };
        assert_eq!(found, (steps, None, tail), "{end} bytes");
        // A crash may leave zeros where the rest should be, wherever it cut.
        let mut blank = record[..offset].to_vec();
        blank.extend(vec![0; 1 + end - offset]);
        let tail = Tail::Torn { offset, bytes: 1 + end - offset };
        assert_eq!(outcome(&blank), (steps, None, tail), "{end} bytes and zeros");
    }
}

#[test]
fn every_flipped_bit_is_found_in_its_frame() {
    let (record, offsets) = small();
    for bit in 0..record.len() * 8 {
        let mut flipped = record.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let (steps, error, tail) = outcome(&flipped);
        let frames = offsets.iter().filter(|offset| **offset <= bit / 8).count();
        let expected = match bit / 8 {
            0..=6 => ReadError::NotARecord,
            7 => ReadError::Version { found: 1 ^ 1 << (bit % 8) },
            _ => ReadError::Damaged { offset: offsets[frames - 1] },
        };
        assert_eq!(error, Some(expected), "bit {bit}");
        assert_eq!(steps, frames.saturating_sub(2), "bit {bit}");
        if steps > 0 {
            let offset = offsets[frames - 1];
            assert_eq!(tail, Tail::Torn { offset, bytes: record.len() - offset });
        }
    }
}

#[test]
fn what_is_no_record_is_told_from_what_is_torn() {
    for (bytes, error) in [
        (&b""[..], ReadError::Empty),
        (b"hello, world", ReadError::NotARecord),
        (b"ptlnre\0", ReadError::NotARecord),
        (b"ptln", ReadError::TornHead { bytes: 4 }),
        (b"ptlnrec\x02what follows is another format", ReadError::Version { found: 2 }),
        (b"ptlnrec\x01\0\0\0\0\0\0\0\0\0\0", ReadError::TornHead { bytes: 18 }),
        (b"ptlnrec\x01\0\0\0\0\0\0\0\0\0\x01", ReadError::Damaged { offset: 8 }),
    ] {
        assert_eq!(Reader::new(bytes).err(), Some(error), "{bytes:?}");
    }
}

/// A frame as the documentation describes it, written by other means than the recorder's.
fn frame(payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("a short payload").to_le_bytes();
    let check = len[0] ^ len[1] ^ len[2] ^ 0xa5;
    let crc = crc32fast::hash(payload).to_le_bytes();
    [&len[..3], &[check], &crc[..], payload].concat()
}

/// The head's frame of a record, with its preamble.
fn head_of(record: &[u8], offsets: &[usize]) -> Vec<u8> {
    record[..offsets[1]].to_vec()
}

fn malformed(payload: &[u8]) -> &'static str {
    let (record, offsets) = small();
    let mut bytes = head_of(&record, &offsets);
    let offset = bytes.len();
    bytes.extend(frame(payload));
    match outcome(&bytes) {
        (0, Some(ReadError::Malformed { offset: found, why }), _) if found == offset => why,
        other => panic!("{payload:?}: {other:?}"),
    }
}

/// What is wrong with the head of the small record when this is added to its message.
fn malformed_head(more: &[u8]) -> &'static str {
    let (record, _) = small();
    let payload = [&frames(&record)[0][HEADER..], more].concat();
    match Reader::new(&[&record[..PREAMBLE], &frame(&payload)].concat()) {
        Err(ReadError::Malformed { offset: PREAMBLE, why }) => why,
        other => panic!("{more:?}: {other:?}"),
    }
}

#[test]
fn a_head_that_makes_no_sense_is_named() {
    assert_eq!(malformed_head(b"\x12\x00"), "not a public key");
    assert_eq!(malformed_head(b"\x1a\x01\x08"), "not a well-formed message");
    assert_eq!(malformed_head(b"\x1a\x02\x48\x09"), "a state that is not known");
    let zeros = [&[0x1a, 0x81, 0x80, 0x40][..], &[0; (1 << 20) + 1]].concat();
    assert_eq!(malformed_head(&zeros), "the configuration is too long");
    let beyond = b"\x28\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01";
    assert_eq!(malformed_head(beyond), "the time is beyond all bounds");
}

#[test]
fn what_makes_no_sense_is_named() {
    assert_eq!(malformed(b""), "an event that is not known");
    assert_eq!(malformed(b"\x3a"), "not a well-formed message");
    // An event with a number that nobody has given yet.
    assert_eq!(malformed(b"\xfa\x01\x00"), "an event that is not known");
    // A stream that ended in a way that nobody has named; one without its stream.
    assert_eq!(
        malformed(b"\x52\x08\x0a\x04\x08\x01\x10\x01\x10\x09"),
        "a stream's end that is not known"
    );
    assert_eq!(malformed(b"\x52\x02\x10\x01"), "something is missing");
    // An IP of five bytes; zeros without end; a time without end.
    assert_eq!(malformed(b"\xa2\x01\x0512345"), "an IP address of the wrong length");
    assert_eq!(
        malformed(b"\x42\x0c\x0a\x04\x08\x01\x10\x01\x12\x04\x10\x81\x80\x04"),
        "a body of too many zeros"
    );
    assert_eq!(
        malformed(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x3a\x00"),
        "the time is beyond all bounds"
    );
    assert_eq!(
        malformed(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x3a\x00"),
        "the time is beyond all bounds"
    );
    // The longest of all spans, and a second on top of it.
    assert_eq!(
        malformed(
            b"\x82\x01\x11\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x10\x80\x94\xeb\xdc\x03"
        ),
        "a span with a whole second in its nanoseconds"
    );
    assert_eq!(
        malformed(&[&[0x2a, 0x81, 0x80, 0x40][..], &[1; 1 << 20]].concat()),
        "the step is too long"
    );
}

#[test]
fn a_step_that_is_too_long_is_left_out_by_name() {
    let (record, _) = small();
    let (head, steps) = read(&record);
    let mut long = steps[0].clone();
    long.signatures = vec![Bytes::from(vec![1; 1 << 20])];
    let bytes = written(&head, &[steps[0].clone(), long, steps[1].clone()]);
    let offset = written(&head, &steps[..1]).len();
    let (count, error, _) = outcome(&bytes);
    assert_eq!(count, 1);
    let Some(ReadError::LeftOut { offset: found, len }) = error else { panic!("{error:?}") };
    assert_eq!(found, offset);
    assert!(len > 1 << 20);
    // The longest that fits is kept.
    let mut most = steps[0].clone();
    most.signatures = vec![Bytes::from(vec![1; (1 << 20) - 50])];
    assert_eq!(read(&written(&head, &[most.clone()])).1, [most]);
}

/// Live through whatever can be read of it.
fn live_through(bytes: &[u8]) -> usize {
    let Ok((head, reader)) = Reader::new(bytes) else { return 0 };
    let Ok(mut replay) = Replay::new(&head) else { return 0 };
    let mut actions = Actions::new();
    let mut lived = 0;
    for step in reader.map_while(Result::ok) {
        let _ = replay.step(&step, &mut actions);
        let _ = replay.explain();
        let _ = replay.renewed(&step);
        actions.drain().for_each(drop);
        lived += 1;
    }
    lived
}

/// The payloads of a record, each in its frame.
fn frames(record: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut at = PREAMBLE;
    while at < record.len() {
        let len = u32::from_le_bytes([record[at], record[at + 1], record[at + 2], 0]);
        let end = at + HEADER + usize::try_from(len).expect("a short frame");
        frames.push(record[at..end].to_vec());
        at = end;
    }
    frames
}

proptest! {
    #![proptest_config(settings(512))]

    #[test]
    fn any_bytes_can_be_tried(bytes in vec(any::<u8>(), 0..200), prefix in any::<bool>()) {
        let magic: &[u8] = if prefix { b"ptlnrec\x01" } else { b"" };
        live_through(&[magic, &bytes].concat());
    }

    #[test]
    fn any_payload_can_be_tried(payloads in vec(vec(any::<u8>(), 0..60), 0..6)) {
        let (record, offsets) = small();
        let mut bytes = head_of(&record, &offsets);
        bytes.extend(payloads.iter().flat_map(|payload| frame(payload)));
        live_through(&bytes);
    }

    #[test]
    fn a_true_story_can_be_distorted(
        edits in vec((any::<Index>(), any::<Index>(), any::<u8>()), 1..6),
        moves in vec((any::<Index>(), any::<Index>()), 0..4),
    ) {
        let record = &story::cached().nodes[0].record;
        let mut frames = frames(record);
        for (frame_at, byte_at, byte) in edits {
            let at = frame_at.index(frames.len());
            let mut payload = frames[at][HEADER..].to_vec();
            if !payload.is_empty() {
                let at = byte_at.index(payload.len());
                payload[at] = byte;
            }
            frames[at] = frame(&payload);
        }
        for (from, to) in moves {
            let last = frames.len() - 1;
            frames.swap(1 + from.index(last), 1 + to.index(last));
        }
        live_through(&[record[..PREAMBLE].to_vec(), frames.concat()].concat());
    }

    #[test]
    fn any_steps_can_be_lived_through(
        (head, steps) in values::head().prop_flat_map(|mut head| {
            (head.part, head.checkpoint) = (0, None);
            let steps = values::steps(head.now, 80);
            (Just(head), steps)
        }),
        mut plain in any::<bool>(),
    ) {
        let mut head = head;
        if plain {
            head.config = Config::default();
            head.config.allow_private = true;
            head.config.dial_back = Some(Default::default());
        }
        plain = live_through(&written(&head, &steps)) == steps.len() || !plain;
        prop_assert!(plain, "a plain configuration lives through all of it");
    }
}
