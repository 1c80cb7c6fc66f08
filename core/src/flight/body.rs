//! Message bodies as a record keeps them: without dial data and, in the hands of the recorder,
//! without nonces.
//!
//! Everything is replaced where it stands, so that a body keeps its length and its shape: what
//! core understood it still understands, and what it refused it still refuses.

use super::mask::Mask;
use crate::{Protocol, StreamId};
use alloc::vec::Vec;
use bytes::Bytes;
use prost::encoding::wire_type::WireType;
use prost::encoding::{DecodeContext, decode_key, decode_varint, skip_field};

/// A body as it is kept: dial data zeroed and, with a mask, every nonce replaced.
pub(super) fn normal(stream: StreamId, body: &Bytes, mask: Option<&Mask>) -> Bytes {
    let shape = match stream.protocol {
        Protocol::Identify | Protocol::IdentifyPush => return body.clone(),
        Protocol::Ping => {
            let Some(mask) = mask else { return body.clone() };
            let mut bytes = body.to_vec();
            // Drawn in four words; the peer echoes them, and words of the peer's we echo.
            bytes.chunks_exact_mut(8).for_each(|word| mask.replace(word));
            return bytes.into();
        }
        Protocol::DialRequest => Shape::Message,
        Protocol::DialBack => Shape::DialBack,
    };
    let mut bytes = body.to_vec();
    walk(&mut bytes, shape, mask);
    bytes.into()
}

/// Which message of autonat-v2 is walked through.
#[derive(Clone, Copy)]
enum Shape {
    Message,
    DialRequest,
    DialDataResponse,
    DialBack,
}

/// What a field holds, by the number it has in its message.
enum Held {
    Message(Shape),
    Nonce,
    Data,
    Other,
}

impl Shape {
    fn holds(self, tag: u32, wire_type: WireType) -> Held {
        let bytes = wire_type == WireType::LengthDelimited;
        let word = wire_type == WireType::SixtyFourBit;
        match (self, tag) {
            (Shape::Message, 1) if bytes => Held::Message(Shape::DialRequest),
            (Shape::Message, 4) if bytes => Held::Message(Shape::DialDataResponse),
            (Shape::DialRequest, 2) if word => Held::Nonce,
            (Shape::DialDataResponse, 1) if bytes => Held::Data,
            (Shape::DialBack, 1) if word => Held::Nonce,
            (
                Shape::Message | Shape::DialRequest | Shape::DialDataResponse | Shape::DialBack,
                _,
            ) => Held::Other,
        }
    }
}

/// Walk through the fields of a message as core's own decoder does, and replace what must not be
/// kept. It is never stricter than that decoder: where it stops, core has understood nothing.
fn walk(bytes: &mut [u8], shape: Shape, mask: Option<&Mask>) {
    let mut at = 0;
    while let Some(field) = field(bytes, at, shape) {
        let content = &mut bytes[field.start..field.end];
        match field.held {
            Held::Message(shape) => walk(content, shape, mask),
            Held::Nonce => {
                if let Some(mask) = mask {
                    mask.replace(content);
                }
            }
            Held::Data => content.fill(0),
            Held::Other => {}
        }
        at = field.end;
    }
}

/// One field: where its content starts and ends.
struct Field {
    held: Held,
    start: usize,
    end: usize,
}

/// The field that starts at `at`, if it can be read.
fn field(bytes: &[u8], at: usize, shape: Shape) -> Option<Field> {
    let mut rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
    let (tag, wire_type) = decode_key(&mut rest).ok()?;
    let held = shape.holds(tag, wire_type);
    let len = match held {
        Held::Message(_) | Held::Data => usize::try_from(decode_varint(&mut rest).ok()?).ok()?,
        Held::Nonce => size_of::<u64>(),
        Held::Other => {
            let before = rest.len();
            let start = bytes.len() - before;
            skip_field(wire_type, tag, &mut rest, DecodeContext::default()).ok()?;
            return Some(Field { held, start, end: start + before - rest.len() });
        }
    };
    let start = bytes.len() - rest.len();
    let end = start.checked_add(len).filter(|end| *end <= bytes.len())?;
    Some(Field { held, start, end })
}

/// Zeros that are worth counting rather than writing, number: what the count itself takes.
const ZEROS_MIN: usize = 8;
/// Zeros that one count may stand for, number; ours: eight times the longest message of any
/// protocol. What a reader holds for a few bytes of a file grows with it; a longer run is written
/// out beyond it.
pub(super) const ZEROS_MAX: usize = 1 << 16;

/// Where the longest run of zeros in a body lies: its start and its length, 0 if none is worth it.
pub(super) fn zeros(body: &[u8]) -> (usize, usize) {
    let (mut best, mut len) = (0, 0);
    let mut start = 0;
    while start < body.len() {
        let run = body[start..].iter().take_while(|byte| **byte == 0).count();
        if run > len {
            (best, len) = (start, run);
        }
        start += run + 1;
    }
    if len < ZEROS_MIN { (body.len(), 0) } else { (best, len.min(ZEROS_MAX)) }
}

/// A body out of what stands before its zeros, their number, and what stands behind them.
pub(super) fn unpacked(head: &Bytes, zeros: usize, tail: &[u8]) -> Bytes {
    if zeros == 0 && tail.is_empty() {
        return head.clone();
    }
    let mut body = Vec::with_capacity(head.len() + zeros + tail.len());
    body.extend_from_slice(head);
    body.resize(head.len() + zeros, 0);
    body.extend_from_slice(tail);
    body.into()
}
