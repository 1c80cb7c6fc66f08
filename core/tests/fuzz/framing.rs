//! Target: how messages are cut out of a stream.

use crate::trail::{Trail, magnitude, variant};
use bytes::{Bytes, BytesMut};
use portolan_core::Framing;
use portolan_core::wire::framing::{self, FrameError};

/// The rules that the first byte chooses from.
const RULES: [Framing; 9] = [
    Framing::Varint { max: 1_024 },
    Framing::Varint { max: 8_192 },
    Framing::Varint { max: 0 },
    Framing::Varint { max: 1 },
    Framing::Varint { max: 127 },
    Framing::Varint { max: usize::MAX },
    Framing::Fixed { len: 32 },
    Framing::Fixed { len: 1 },
    Framing::Fixed { len: 0 },
];
/// Bytes of the longest length prefix.
const PREFIX_MAX: usize = 9;

/// The second byte says how the bytes arrive; the rest is what arrives. The same messages come out
/// however the bytes are cut, and they are all that came in.
pub(crate) fn run(bytes: &[u8], trail: &mut Trail) {
    let [rule, cuts, stream @ ..] = bytes else { return };
    let framing = RULES[usize::from(*rule) % RULES.len()];
    let whole = cut(framing, stream.chunks(stream.len().max(1)));
    let single = cut(framing, stream.chunks(1));
    let some = cut(framing, stream.chunks(usize::from(*cuts) + 1));
    assert_eq!(whole, single, "one by one");
    assert_eq!(whole, some, "in chunks of {}", usize::from(*cuts) + 1);

    let (found, error) = whole;
    let mut again = BytesMut::new();
    for body in &found {
        framing::encode(framing, body, &mut again).expect("what was cut can be sent");
    }
    assert!(stream.starts_with(&again), "messages are written as they came");
    trail.saw(format_args!("{framing:?} {} messages", magnitude(found.len())));
    if let Some(error) = error {
        trail.saw(format_args!("{framing:?} {}", variant(&error)));
    }
    // A body that is too long is refused, and leaves no trace.
    let before = again.len();
    let refused = framing::encode(framing, stream, &mut again).is_err();
    assert_eq!(again.len() == before, refused || again.len() == before);
    let limit = match framing {
        Framing::Varint { max } => stream.len() > max,
        Framing::Fixed { len } => stream.len() != len,
    };
    assert_eq!(refused, limit);
}

/// The messages, and what ended them.
fn cut<'a>(
    framing: Framing,
    chunks: impl Iterator<Item = &'a [u8]>,
) -> (Vec<Bytes>, Option<FrameError>) {
    let mut buffer = BytesMut::new();
    let mut found = Vec::new();
    for chunk in chunks {
        buffer.extend_from_slice(chunk);
        loop {
            let before = buffer.clone();
            match framing::split(framing, &mut buffer) {
                Ok(Some(body)) => {
                    match framing {
                        Framing::Varint { max } => assert!(body.len() <= max),
                        Framing::Fixed { len } => assert_eq!(body.len(), len),
                    }
                    assert!(buffer.len() < before.len(), "every message takes bytes");
                    found.push(body);
                }
                Ok(None) => {
                    assert_eq!(buffer, before);
                    if let Framing::Varint { max } = framing {
                        let most = max.saturating_add(PREFIX_MAX);
                        assert!(buffer.len() < most, "more is waited for than a message can have");
                    }
                    break;
                }
                Err(error) => {
                    assert_eq!(buffer, before);
                    return (found, Some(error));
                }
            }
        }
    }
    (found, None)
}
