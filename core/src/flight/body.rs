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
        Protocol::Identify
        | Protocol::IdentifyPush
        | Protocol::Hop
        | Protocol::Stop
        | Protocol::Punch
        | Protocol::AutonatV1 => return body.clone(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::autonat::{DialBack, DialBackResponse, Message, dial_data_chunk};
    use alloc::vec;
    use proptest::collection::vec as many;
    use proptest::prelude::*;
    use proptest::sample::select;

    fn mask() -> Mask {
        Mask::new([3; 16])
    }

    fn settings(cases: u32) -> ProptestConfig {
        ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
    }

    fn kept(protocol: Protocol, body: &[u8]) -> Bytes {
        let mask = mask();
        let kept =
            normal(StreamId::inbound(protocol, 1), &Bytes::copy_from_slice(body), Some(&mask));
        let other = StreamId::outbound(protocol, 2);
        assert_eq!(normal(other, &Bytes::copy_from_slice(body), Some(&mask)), kept);
        assert_eq!(kept.len(), body.len());
        kept
    }

    fn masked(message: Message) -> Message {
        match message {
            Message::DialRequest { addrs, nonce } => {
                Message::DialRequest { addrs, nonce: mask().nonce(nonce) }
            }
            Message::DialDataResponse { data } => {
                Message::DialDataResponse { data: vec![0; data.len()].into() }
            }
            other @ (Message::DialResponse { .. } | Message::DialDataRequest { .. }) => other,
        }
    }

    #[test]
    fn nonces_and_data_are_replaced_where_core_finds_them() {
        let addrs = vec![Bytes::from_static(b"12345678"), Bytes::from_static(b"\x11abcdefgh")];
        for nonce in [0, 1, 7, u64::MAX] {
            let request = Message::DialRequest { addrs: addrs.clone(), nonce };
            let body = kept(Protocol::DialRequest, &request.encode());
            assert_eq!(Message::decode(&body), Ok(masked(request)));
            let body = kept(Protocol::DialBack, &DialBack { nonce }.encode());
            assert_eq!(DialBack::decode(&body), Ok(DialBack { nonce: mask().nonce(nonce) }));
        }
        let data = Message::DialDataResponse { data: Bytes::from(vec![7; 4_000]) };
        let body = kept(Protocol::DialRequest, &data.encode());
        assert_eq!(Message::decode(&body), Ok(masked(data)));
    }

    #[test]
    fn each_of_several_nonces_is_replaced_and_so_is_each_half_of_a_message() {
        let (one, two) = (11u64.to_le_bytes(), 22u64.to_le_bytes());
        // The request in two parts, of which core merges one into the other; the last nonce counts.
        let first = [&[0x0a, 9, 0x11][..], &one].concat();
        let second = [&[0x0a, 9, 0x11][..], &two].concat();
        let body = kept(Protocol::DialRequest, &[first, second].concat());
        let words: Vec<&[u8]> = vec![&body[3..11], &body[14..22]];
        assert_eq!(words, [mask().nonce(11).to_le_bytes(), mask().nonce(22).to_le_bytes()]);
        // Keys that are longer than they need to be.
        let long = [&[0x8a, 0x80, 0x00, 10, 0x91, 0x00][..], &one].concat();
        let body = kept(Protocol::DialRequest, &long);
        assert_eq!(body[6..], mask().nonce(11).to_le_bytes());
    }

    #[test]
    fn what_does_not_decode_loses_what_core_might_have_read() {
        let nonce = 0x0102_0304_0506_0708_u64.to_le_bytes();
        for (rest, protocol, head) in [
            (
                &b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"[..],
                Protocol::DialBack,
                &b"\x09"[..],
            ),
            (b"\x00", Protocol::DialBack, b"\x09"),
            (b"\x12", Protocol::DialRequest, b"\x0a\x09\x11"),
            (b"", Protocol::DialRequest, b"\x12\x00\x0a\x09\x11"),
        ] {
            let body = kept(protocol, &[head, &nonce, rest].concat());
            assert!(!body.windows(8).any(|window| window == nonce), "{body:?}");
            assert!(body.starts_with(head) && body.ends_with(rest), "the rest is kept");
        }
    }

    #[test]
    fn pings_are_replaced_word_by_word_and_identify_is_left_alone() {
        let body: Vec<u8> = (0..35).collect();
        let kept_body = kept(Protocol::Ping, &body);
        for word in 0..4 {
            let at = word * 8..word * 8 + 8;
            let nonce = u64::from_le_bytes(body[at.clone()].try_into().expect("eight bytes"));
            assert_eq!(kept_body[at], mask().nonce(nonce).to_le_bytes());
        }
        assert_eq!(kept_body[32..], [32, 33, 34]);
        assert_eq!(kept(Protocol::Identify, &body), body);
        assert_eq!(kept(Protocol::IdentifyPush, &body), body);
    }

    #[test]
    fn without_a_mask_only_dial_data_is_replaced() {
        let request = Message::DialRequest { addrs: vec![], nonce: 9 }.encode();
        let dial_request = StreamId::inbound(Protocol::DialRequest, 1);
        assert_eq!(normal(dial_request, &request, None), request);
        let back = DialBack { nonce: 9 }.encode();
        assert_eq!(normal(StreamId::inbound(Protocol::DialBack, 1), &back, None), back);
        let ping = Bytes::from_static(&[9; 32]);
        assert_eq!(normal(StreamId::inbound(Protocol::Ping, 1), &ping, None), ping);
        let data = Message::DialDataResponse { data: Bytes::from(vec![7; 50]) }.encode();
        assert_eq!(normal(dial_request, &data, None), dial_data_chunk(50));
    }

    #[test]
    fn the_longest_run_of_zeros_is_found() {
        let of = |body: &[u8]| zeros(body);
        assert_eq!(of(b""), (0, 0));
        assert_eq!(of(b"abc"), (3, 0));
        assert_eq!(of(&[0; 7]), (7, 0), "not worth it");
        assert_eq!(of(&[0; 8]), (0, 8));
        assert_eq!(of(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0]), (1, 8));
        let two = [&[0; 9][..], &[1], &[0; 10], &[1], &[0; 10]].concat();
        assert_eq!(of(&two), (10, 10), "the first of the longest");
        assert_eq!(of(&[0; ZEROS_MAX + 1]), (0, ZEROS_MAX));
        let body = unpacked(&Bytes::from_static(b"ab"), 3, b"c");
        assert_eq!(body, b"ab\0\0\0c"[..]);
    }

    /// One field of a message, well-formed or not quite.
    fn field(inner: BoxedStrategy<Vec<u8>>) -> BoxedStrategy<Vec<u8>> {
        let key = (1..6u8, select(vec![0u8, 1, 2, 3, 4, 5]), any::<bool>());
        let content = prop_oneof![
            8 => inner.prop_map(|inner| (true, inner)),
            4 => many(any::<u8>(), 8).prop_map(|word| (false, word)),
            1 => many(any::<u8>(), 0..12).prop_map(|bytes| (false, bytes)),
        ];
        (key, content, 0..40u8)
            .prop_map(|((tag, wire_type, long), (with_len, content), off)| {
                let mut bytes = vec![tag << 3 | wire_type];
                if long {
                    bytes = vec![bytes[0] | 0x80, 0];
                }
                if with_len || wire_type == 2 {
                    let len = u8::try_from(content.len()).expect("short content");
                    // Now and then the length is a lie.
                    bytes.push(if off == 0 { len.wrapping_add(3) & 0x7f } else { len & 0x7f });
                }
                bytes.extend(content);
                bytes
            })
            .boxed()
    }

    fn body() -> BoxedStrategy<Vec<u8>> {
        let raw = many(any::<u8>(), 0..12).boxed();
        let inner = many(field(raw), 0..3).prop_map(|fields| fields.concat()).boxed();
        many(field(inner), 0..4).prop_map(|fields| fields.concat()).boxed()
    }

    proptest! {
        #![proptest_config(settings(20_000))]

        #[test]
        fn what_core_understands_stays_the_same_but_for_its_nonces(body in body()) {
            let original = Bytes::from(body);
            let kept_body = kept(Protocol::DialRequest, &original);
            let message = Message::decode(&original).map(masked);
            prop_assert_eq!(Message::decode(&kept_body), message);
            let kept_body = kept(Protocol::DialBack, &original);
            let back = DialBack::decode(&original)
                .map(|DialBack { nonce }| DialBack { nonce: mask().nonce(nonce) });
            prop_assert_eq!(DialBack::decode(&kept_body), back);
            let response = DialBackResponse::decode(&original);
            prop_assert_eq!(DialBackResponse::decode(&kept_body), response);
        }

        #[test]
        fn it_is_normal_once_and_for_all(body in body(), masked in any::<bool>()) {
            let mask = mask();
            let mask = masked.then_some(&mask);
            for protocol in Protocol::ALL {
                let stream = StreamId::inbound(protocol, 1);
                let body = Bytes::from(body.clone());
                // First masked and then zeroed is zeroed and masked at once: so the recorder and
                // the replay come to the same.
                let once = normal(stream, &body, mask);
                prop_assert_eq!(normal(stream, &once, None), once);
            }
        }
    }
}
