//! Target: the frames of a pipe.

use crate::trail::{Trail, magnitude, variant};
use bytes::{BufMut, BytesMut};
use portolan_core::wire::pipe::{self, Frame, FrameError, ResetCode, SessionId};

/// The first byte says how the bytes arrive; the rest is what arrives. The same frames come out
/// however the bytes are cut, and written again they are what came in, without what is skipped.
pub(crate) fn run(bytes: &[u8], trail: &mut Trail) {
    let [cuts, stream @ ..] = bytes else { return };
    let whole = cut(stream.chunks(stream.len().max(1)));
    assert_eq!(whole, cut(stream.chunks(1)), "one by one");
    assert_eq!(whole, cut(stream.chunks(usize::from(*cuts) + 1)), "in chunks");

    let (frames, error) = whole;
    let mut again = BytesMut::new();
    for frame in &frames {
        pipe::encode(frame, &mut again);
        trail.saw(format_args!("{}", variant(frame)));
        if let Frame::Reset(code) = frame {
            trail.saw(format_args!("{}", variant(code)));
        }
    }
    assert!(known(stream).starts_with(&again), "frames are written as they came");
    assert_eq!(cut([&again[..]].into_iter()), (frames.clone(), None));
    trail.saw(format_args!("{} frames", magnitude(frames.len())));
    if let Some(error) = error {
        trail.saw(format_args!("{}", variant(&error)));
    }
}

/// The frames, and what ended them.
fn cut<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> (Vec<Frame>, Option<FrameError>) {
    let mut buffer = BytesMut::new();
    let mut found = Vec::new();
    for chunk in chunks {
        buffer.extend_from_slice(chunk);
        loop {
            match pipe::split(&mut buffer) {
                Ok(Some(frame)) => {
                    if let Frame::Data { bytes, .. } = &frame {
                        assert!((1..=pipe::DATA_MAX).contains(&bytes.len()));
                    }
                    found.push(frame);
                }
                Ok(None) => {
                    assert!(buffer.len() < pipe::HEADER + pipe::BODY_MAX, "too much is waited for");
                    break;
                }
                Err(error) => return (found, Some(error)),
            }
        }
    }
    (found, None)
}

/// The stream without frames of unknown types, as far as its lengths make sense.
fn known(mut stream: &[u8]) -> Vec<u8> {
    let mut kept = Vec::new();
    while let [kind, high, low, ..] = *stream {
        let len = pipe::HEADER + usize::from(u16::from_be_bytes([high, low]));
        let Some((frame, rest)) = stream.split_at_checked(len) else { break };
        if (1..=8).contains(&kind) {
            kept.extend_from_slice(frame);
        }
        stream = rest;
    }
    kept
}

/// The files that the corpus begins with.
pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let session = SessionId([7; 16]);
    let frames = |frames: &[Frame]| {
        let mut out = BytesMut::new();
        out.put_u8(2);
        frames.iter().for_each(|frame| pipe::encode(frame, &mut out));
        out.to_vec()
    };
    let data = |len: usize| Frame::Data { offset: 0, bytes: vec![1; len].into() };
    let codes = (0..=7).map(|code| Frame::Reset(ResetCode::from_code(code))).collect::<Vec<_>>();
    vec![
        ("open", frames(&[Frame::Open { session, carrier: 0, window: 1 << 22 }])),
        ("resume", frames(&[Frame::Resume { session, carrier: 3, received: 77 }])),
        ("accept", frames(&[Frame::Accept { window: 1 << 14, received: 5 }])),
        ("bytes", frames(&[Frame::Ack { position: 0 }, data(5), Frame::Fin { offset: 5 }])),
        ("longest-data", frames(&[data(pipe::DATA_MAX)])),
        ("resets", frames(&codes)),
        ("done", frames(&[Frame::Done])),
        ("unknown-between", [&frames(&[Frame::Done])[..], &[200, 0, 2, 1, 1, 8, 0, 0]].concat()),
        ("data-without-bytes", vec![0, 4, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("too-long", vec![0, 200, 0x40, 9]),
        ("cut-off", vec![1, 4, 0, 20, 0, 0]),
    ]
}
