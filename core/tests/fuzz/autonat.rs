//! Targets: the messages of AutoNAT v2.

use crate::fields::{self, Field, Value};
use crate::trail::{Trail, magnitude, variant};
use bytes::Bytes;
use portolan_core::wire::DecodeError;
use portolan_core::wire::autonat::{
    DIAL_DATA_CHUNK_MAX, DIAL_REQUEST_ADDRS_MAX, DIAL_REQUEST_BYTES_MAX, DialBack,
    DialBackResponse, DialBackStatus, DialStatus, FAILED_FROM_TAG, Message, ResponseStatus,
};
use std::net::IpAddr;

/// A message of a dial-request stream: limits hold, what was read is written and read alike, and
/// a plainer reader agrees.
pub(crate) fn message(bytes: &[u8], trail: &mut Trail) {
    let decoded = Message::decode(&Bytes::copy_from_slice(bytes));
    let expected = second_opinion(bytes);
    if let Some(expected) = expected {
        assert_eq!(decoded, expected, "a plain reader of protobuf sees it otherwise");
    }
    let message = match decoded {
        Ok(message) => message,
        Err(error) => return trail.saw(format_args!("{}", variant(&error))),
    };
    let written = message.encode();
    assert!(written.len() <= bytes.len() + 12, "nothing was added");
    assert_eq!(Message::decode(&written).as_ref(), Ok(&message));
    trail.saw(format_args!("{}", variant(&message)));
    match message {
        Message::DialRequest { addrs, nonce } => request(&addrs, nonce, trail),
        Message::DialResponse { status, dial_status, failed_from, .. } => {
            trail.saw(format_args!("failed from {:?}", failed_from.map(|ip| ip.is_ipv4())));
            assert_eq!(failed_from, failed_from.map(|ip| ip.to_canonical()));
            trail.saw(format_args!("{} {}", variant(&status), variant(&dial_status)));
            assert_eq!(ResponseStatus::from_code(status.code()), status);
            assert_eq!(DialStatus::from_code(dial_status.code()), dial_status);
        }
        Message::DialDataResponse { data } => {
            assert!(data.len() <= DIAL_DATA_CHUNK_MAX);
            trail.saw(format_args!("data of magnitude {}", magnitude(data.len())));
        }
        Message::DialDataRequest { .. } => {}
        other => panic!("{other:?} has no law yet"),
    }
}

fn request(addrs: &[Bytes], nonce: u64, trail: &mut Trail) {
    trail.saw(format_args!("{} addresses", magnitude(addrs.len())));
    assert!(addrs.len() <= DIAL_REQUEST_ADDRS_MAX);
    let (sent, left_out) = Message::dial_request(addrs.to_vec(), nonce);
    let body = sent.encode();
    assert!(body.len() <= DIAL_REQUEST_BYTES_MAX, "deployed servers read no more");
    let kept = addrs[..addrs.len() - left_out].to_vec();
    assert_eq!(Message::decode(&body), Ok(Message::DialRequest { addrs: kept, nonce }));
    trail.saw(format_args!("left out: {}", left_out > 0));
}

/// What the message means by the plain reader, where it makes a claim: a single content, with
/// fields of the types that they should have.
fn second_opinion(bytes: &[u8]) -> Option<Result<Message, DecodeError>> {
    let fields = fields::of(bytes)?;
    let mut contents = fields.iter().filter(|(number, _)| (1..=4).contains(number));
    let (number, content) = match (contents.next(), contents.next()) {
        (None, _) => return Some(Err(DecodeError::Empty)),
        (Some((number, Value::Bytes(content))), None) => (*number, fields::of(content)?),
        _ => return None,
    };
    let content = &content;
    let varint = |wanted| match fields::last(content, wanted, Value::Varint(0)) {
        Value::Varint(value) => fields::are_varints(content, wanted).then_some(value),
        Value::Fixed64(_) | Value::Bytes(_) | Value::Fixed32 => None,
    };
    // The generated readers keep the low bits of what is too large.
    let low = |value: u64| u32::try_from(value & 0xffff_ffff).ok();
    let message = match number {
        1 => {
            let mut nonces = content.iter().filter(|(number, _)| *number == 2);
            if !nonces.all(|(_, value)| matches!(value, Value::Fixed64(_))) {
                return None;
            }
            let Value::Fixed64(nonce) = fields::last(content, 2, Value::Fixed64(0)) else {
                return None;
            };
            let addrs = fields::all(content, 1)?;
            let addrs = addrs.into_iter().take(DIAL_REQUEST_ADDRS_MAX);
            Message::DialRequest { addrs: addrs.map(Bytes::copy_from_slice).collect(), nonce }
        }
        2 => Message::DialResponse {
            status: ResponseStatus::from_code(low(varint(1)?)?.cast_signed()),
            addr_idx: low(varint(2)?)?,
            dial_status: DialStatus::from_code(low(varint(3)?)?.cast_signed()),
            failed_from: failed_from(content),
        },
        3 => Message::DialDataRequest { addr_idx: low(varint(1)?)?, num_bytes: varint(2)? },
        _ => match fields::all(content, 1)?.last().copied().unwrap_or_default() {
            data if data.len() > DIAL_DATA_CHUNK_MAX => {
                return Some(Err(DecodeError::ChunkTooLong { len: data.len() }));
            }
            data => Message::DialDataResponse { data: Bytes::copy_from_slice(data) },
        },
    };
    Some(Ok(message))
}

/// The last IP that is told in as many bytes as its family has, by the plain reader.
fn failed_from(content: &[Field<'_>]) -> Option<IpAddr> {
    let bytes = content.iter().rev().find_map(|(number, value)| match value {
        Value::Bytes(bytes) if *number == FAILED_FROM_TAG => Some(*bytes),
        Value::Bytes(_) | Value::Varint(_) | Value::Fixed64(_) | Value::Fixed32 => None,
    })?;
    match *bytes {
        [a, b, c, d] => Some([a, b, c, d].into()),
        _ => {
            let ip = IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?);
            (ip.to_canonical() == ip).then_some(ip)
        }
    }
}

/// The two messages of a dial-back stream, out of the same bytes.
pub(crate) fn dial_back(bytes: &[u8], trail: &mut Trail) {
    let body = Bytes::copy_from_slice(bytes);
    let fields = fields::of(bytes);
    let only = |good: fn(&Value<'_>) -> bool| {
        let fields = fields.as_ref()?;
        let mut ours = fields.iter().filter(|(number, _)| *number == 1);
        ours.all(|(_, value)| good(value)).then_some(fields)
    };

    let read = DialBack::decode(&body);
    if let Some(fields) = only(|value| matches!(value, Value::Fixed64(_))) {
        let Value::Fixed64(nonce) = fields::last(fields, 1, Value::Fixed64(0)) else { return };
        assert_eq!(read, Ok(DialBack { nonce }));
    }
    trail.saw(format_args!("dial-back {:?}", read.map(|read| magnitude(nonce_bytes(read)))));
    if let Ok(dial_back) = read {
        let written = dial_back.encode();
        assert!(written.len() <= 10, "rust-libp2p reads no more");
        assert_eq!(DialBack::decode(&written), Ok(dial_back));
    }

    let read = DialBackResponse::decode(&body);
    if let Some(fields) = only(|value| matches!(value, Value::Varint(_))) {
        let Value::Varint(code) = fields::last(fields, 1, Value::Varint(0)) else { return };
        let code = u32::try_from(code & 0xffff_ffff).expect("32 bits").cast_signed();
        assert_eq!(read.map(|read| read.status.code()), Ok(code));
    }
    trail.saw(format_args!("response {:?}", read.map(|read| variant(&read.status))));
    if let Ok(response) = read {
        let written = response.encode();
        assert_eq!(DialBackResponse::decode(&written), Ok(response));
        assert_eq!(response.status == DialBackStatus::Ok, written.is_empty());
    }
}

/// How many bytes the nonce needs.
fn nonce_bytes(dial_back: DialBack) -> usize {
    dial_back.nonce.to_le_bytes().iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1)
}
