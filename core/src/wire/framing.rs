//! How messages are cut out of a stream's bytes, and put into them.
//!
//! ```
//! use bytes::BytesMut;
//! use portolan_core::{Framing, wire::framing};
//!
//! let framing = Framing::Varint { max: 1_024 };
//! let mut stream = BytesMut::new();
//! framing::encode(framing, b"hello", &mut stream)?;
//! assert_eq!(stream, b"\x05hello"[..]);
//!
//! let body = framing::split(framing, &mut stream)?.expect("the message is whole");
//! assert_eq!(body, b"hello"[..]);
//! # Ok::<(), framing::FrameError>(())
//! ```

use crate::Framing;
use bytes::{Bytes, BytesMut};
use unsigned_varint::encode as varint;

/// Bytes of the longest length prefix, number; unsigned-varint's own limit ("Practical maximum").
const PREFIX_MAX: usize = 9;

/// Bytes that break the frame rule of their stream. The stream is of no more use: reset it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The body is, or claims to be, longer than allowed.
    #[error("a message of more than {max} bytes")]
    TooLong {
        /// The longest body allowed, in bytes.
        max: usize,
    },
    /// The length prefix is longer than its value needs.
    #[error("a length prefix that is not minimal")]
    NotMinimal,
    /// The length prefix does not end.
    #[error("a length prefix of more than {PREFIX_MAX} bytes")]
    PrefixTooLong,
    /// A body that does not have the one length that messages of this stream have.
    #[error("a message of {given} bytes where {len} are the rule")]
    WrongLength {
        /// The length that every message has, in bytes.
        len: usize,
        /// The length of the body, in bytes.
        given: usize,
    },
}

/// Cut the first whole message off the front of `buffer` and return its body.
///
/// `None` means that more bytes are needed. A claimed length is judged before any of the body is
/// waited for, so a caller never has to hold more than the limit and its prefix. After an error
/// the buffer is as it was; there is no way to find the next message in it.
pub fn split(framing: Framing, buffer: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
    let (prefix, len) = match framing {
        Framing::Varint { max } => match read_prefix(buffer, max)? {
            Some(read) => read,
            None => return Ok(None),
        },
        // A stream of messages without length or prefix carries none.
        Framing::Fixed { len: 0 } => return Ok(None),
        Framing::Fixed { len } => (0, len),
    };
    if buffer.len() - prefix < len {
        return Ok(None);
    }
    let mut message = buffer.split_to(prefix + len);
    Ok(Some(message.split_off(prefix).freeze()))
}

/// Append one message with the given body to `out`. On an error nothing is appended.
pub fn encode(framing: Framing, body: &[u8], out: &mut BytesMut) -> Result<(), FrameError> {
    match framing {
        Framing::Varint { max } => {
            if body.len() > max {
                return Err(FrameError::TooLong { max });
            }
            let mut prefix = varint::usize_buffer();
            out.extend_from_slice(varint::usize(body.len(), &mut prefix));
        }
        Framing::Fixed { len } => {
            if body.len() != len {
                return Err(FrameError::WrongLength { len, given: body.len() });
            }
        }
    }
    out.extend_from_slice(body);
    Ok(())
}

/// The length of the prefix at the front of `buffer` and the length it tells, which is at most
/// `max`; `None` if the prefix is not whole yet.
fn read_prefix(buffer: &[u8], max: usize) -> Result<Option<(usize, usize)>, FrameError> {
    let max_value = u64::try_from(max).unwrap_or(u64::MAX);
    let mut value = 0u64;
    for (at, byte) in buffer.iter().copied().enumerate() {
        if at >= PREFIX_MAX {
            return Err(FrameError::PrefixTooLong);
        }
        value |= u64::from(byte & 0x7f) << (7 * at);
        let last = byte & 0x80 == 0;
        // unsigned-varint spec: a value is encoded in as few bytes as it needs.
        if last && byte == 0 && at > 0 {
            return Err(FrameError::NotMinimal);
        }
        // A byte that promises another makes the value at least this large, if it is minimal: a
        // prefix that can only end above the limit need not be waited for.
        let least = if last { value } else { value.saturating_add(1 << (7 * (at + 1))) };
        if least > max_value {
            return Err(FrameError::TooLong { max });
        }
        if last {
            return match usize::try_from(value) {
                Ok(len) => Ok(Some((at + 1, len))),
                Err(_) => Err(FrameError::TooLong { max }),
            };
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    const SMALL: Framing = Framing::Varint { max: 1_024 };

    fn split_all(framing: Framing, bytes: &[u8]) -> (Vec<Bytes>, Result<(), FrameError>) {
        let mut buffer = BytesMut::from(bytes);
        let mut found = Vec::new();
        loop {
            match split(framing, &mut buffer) {
                Ok(Some(body)) => found.push(body),
                Ok(None) => return (found, Ok(())),
                Err(error) => return (found, Err(error)),
            }
        }
    }

    #[test]
    fn several_messages_and_a_part_of_one() {
        let (found, end) = split_all(SMALL, b"\x02ab\x00\x01c\x05par");
        assert_eq!(found, [&b"ab"[..], b"", b"c"]);
        assert_eq!(end, Ok(()));
    }

    #[test]
    fn a_message_may_come_byte_by_byte() {
        let mut whole = BytesMut::new();
        encode(SMALL, &[7; 300], &mut whole).expect("300 bytes fit in 1,024");
        assert_eq!(whole[..2], [0xac, 0x02]);
        let mut buffer = BytesMut::new();
        for (at, byte) in whole.iter().enumerate() {
            assert_eq!(split(SMALL, &mut buffer), Ok(None), "{at} bytes");
            buffer.extend_from_slice(&[*byte]);
        }
        assert_eq!(split(SMALL, &mut buffer), Ok(Some(Bytes::from(vec![7; 300]))));
        assert!(buffer.is_empty());
    }

    #[test]
    fn the_limit_holds_before_the_body_comes() {
        // 1,024 is the largest, 1,025 one too many; both prefixes come without any body.
        assert_eq!(split_all(SMALL, &[0x80, 0x08]), (vec![], Ok(())));
        let too_long = FrameError::TooLong { max: 1_024 };
        assert_eq!(split_all(SMALL, &[0x81, 0x08]), (vec![], Err(too_long)));
        // Two bytes that promise a third can only end at 16,384 or more.
        assert_eq!(split_all(SMALL, &[0x80, 0x80]), (vec![], Err(too_long)));
        assert_eq!(split_all(Framing::Varint { max: 0 }, &[0]).0, [&b""[..]]);
        assert_eq!(
            split_all(Framing::Varint { max: 0 }, &[1]).1,
            Err(FrameError::TooLong { max: 0 })
        );
    }

    #[test]
    fn prefixes_are_minimal_and_end() {
        assert_eq!(split_all(SMALL, &[0x80, 0x00]).1, Err(FrameError::NotMinimal));
        assert_eq!(split_all(SMALL, &[0x85, 0x00]).1, Err(FrameError::NotMinimal));
        let boundless = Framing::Varint { max: usize::MAX };
        assert_eq!(split_all(boundless, &[0xff; 9]).1, Ok(()));
        assert_eq!(split_all(boundless, &[0xff; 10]).1, Err(FrameError::PrefixTooLong));
        assert_eq!(split_all(boundless, &[0x80, 0x80, 0x00]).1, Err(FrameError::NotMinimal));
    }

    #[test]
    fn fixed_messages_have_no_prefix() {
        let framing = Framing::Fixed { len: 3 };
        assert_eq!(split_all(framing, b"abcdefg").0, [&b"abc"[..], b"def"]);
        assert_eq!(split_all(Framing::Fixed { len: 0 }, b"abc"), (vec![], Ok(())));
        let mut out = BytesMut::new();
        encode(framing, b"abc", &mut out).expect("three bytes are the rule");
        assert_eq!(
            encode(framing, b"abcd", &mut out),
            Err(FrameError::WrongLength { len: 3, given: 4 })
        );
        assert_eq!(out, b"abc"[..]);
    }

    #[test]
    fn a_body_beyond_the_limit_is_not_written() {
        let mut out = BytesMut::new();
        let refused = encode(Framing::Varint { max: 2 }, b"abc", &mut out);
        assert_eq!(refused, Err(FrameError::TooLong { max: 2 }));
        assert!(out.is_empty());
    }
}
