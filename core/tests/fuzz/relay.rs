//! Targets: the messages of circuit relay v2, and its vouchers.

use crate::fields::{self, Field, Value};
use crate::signed::key;
use crate::trail::{Trail, magnitude, variant};
use bytes::Bytes;
use portolan_core::wire::DecodeError;
use portolan_core::wire::envelope::Envelope;
use portolan_core::wire::relay::{
    HopMessage, RESERVATION_ADDRS_MAX, Reservation, StopMessage, Voucher, VoucherError,
};
use portolan_core::{CircuitLimit, Duration, PeerId, PublicKey, RelayStatus};
use std::sync::OnceLock;

/// A message of a hop stream: what was read is written and read alike, and a plainer reader agrees.
pub(crate) fn hop(bytes: &[u8], trail: &mut Trail) {
    let decoded = HopMessage::decode(&Bytes::copy_from_slice(bytes));
    if let Some(expected) = second_hop(bytes) {
        assert_eq!(decoded, expected, "a plain reader of protobuf sees it otherwise");
    }
    let message = match decoded {
        Ok(message) => message,
        Err(error) => return trail.saw(format_args!("{}", variant(&error))),
    };
    assert_eq!(HopMessage::decode(&message.encode()).as_ref(), Ok(&message));
    trail.saw(format_args!("{}", variant(&message)));
    let HopMessage::Status { status, reservation, limit } = message else { return };
    trail.saw(format_args!("{} {}", variant(&status), variant(&reservation)));
    trail.saw(format_args!("{:?} {:?}", limit.duration.is_some(), limit.bytes.is_some()));
    assert_eq!(RelayStatus::from_code(status.code()), status);
    assert!(limit.duration.is_none_or(|span| !span.is_zero()) && limit.bytes != Some(0));
    if let Some(Reservation { addrs, voucher, .. }) = reservation {
        assert!(addrs.len() <= RESERVATION_ADDRS_MAX);
        let opened = voucher.map(|voucher| Voucher::open(&voucher).map(|_| ()));
        trail.saw(format_args!("{} addresses {opened:?}", magnitude(addrs.len())));
    }
}

/// A message of a stop stream, likewise.
pub(crate) fn stop(bytes: &[u8], trail: &mut Trail) {
    let decoded = StopMessage::decode(&Bytes::copy_from_slice(bytes));
    if let Some(expected) = second_stop(bytes) {
        assert_eq!(decoded, expected, "a plain reader of protobuf sees it otherwise");
    }
    let message = match decoded {
        Ok(message) => message,
        Err(error) => return trail.saw(format_args!("{}", variant(&error))),
    };
    assert_eq!(StopMessage::decode(&message.encode()).as_ref(), Ok(&message));
    trail.saw(format_args!("{}", variant(&message)));
    match message {
        StopMessage::Connect { limit, .. } => {
            trail.saw(format_args!("{:?} {:?}", limit.duration.is_some(), limit.bytes.is_some()));
        }
        StopMessage::Status { status } => trail.saw(format_args!("{}", variant(&status))),
        other => panic!("{other:?} has no law yet"),
    }
}

/// The fields with this number as varints, the low half of the last of them; `None` where there is
/// none, `Err` where one is of another type.
fn number(fields: &[Field<'_>], wanted: u32) -> Result<Option<u64>, ()> {
    if !fields::are_varints(fields, wanted) {
        return Err(());
    }
    let has = fields.iter().any(|(number, _)| *number == wanted);
    match fields::last(fields, wanted, Value::Varint(0)) {
        Value::Varint(value) => Ok(has.then_some(value)),
        Value::Fixed64(_) | Value::Bytes(_) | Value::Fixed32 => Err(()),
    }
}

/// The generated readers keep the low bits of what is too large.
fn low(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).expect("32 bits")
}

/// The message in a field, if it stands there once at most: what comes twice is merged.
fn inner<'a>(fields: &[Field<'a>], wanted: u32) -> Option<Option<Vec<Field<'a>>>> {
    match fields::all(fields, wanted)?[..] {
        [] => Some(None),
        [one] => fields::of(one).map(Some),
        _ => None,
    }
}

fn plain_limit(fields: &[Field<'_>], wanted: u32) -> Option<CircuitLimit> {
    let Some(limit) = inner(fields, wanted)? else { return Some(CircuitLimit::default()) };
    let seconds = number(&limit, 1).ok()?.map(low).filter(|seconds| *seconds != 0);
    let duration = seconds.map(|seconds| Duration::from_secs(seconds.into()));
    Some(CircuitLimit { duration, bytes: number(&limit, 2).ok()?.filter(|bytes| *bytes != 0) })
}

fn plain_peer(fields: &[Field<'_>], wanted: u32) -> Option<Result<PeerId, DecodeError>> {
    let Some(peer) = inner(fields, wanted)? else { return Some(Err(DecodeError::Empty)) };
    Some(match fields::all(&peer, 1)?.last() {
        None => Err(DecodeError::Empty),
        Some(id) => PeerId::from_bytes(id).map_err(|_| DecodeError::Malformed),
    })
}

fn status(fields: &[Field<'_>], wanted: u32) -> Option<RelayStatus> {
    let code = number(fields, wanted).ok()?.unwrap_or(0);
    Some(RelayStatus::from_code(low(code).cast_signed()))
}

/// What a hop message means by the plain reader, where it makes a claim.
fn second_hop(bytes: &[u8]) -> Option<Result<HopMessage, DecodeError>> {
    let fields = fields::of(bytes)?;
    let kind = number(&fields, 1).ok()?;
    // Everything has to be of its type, whatever the kind.
    let (peer, status) = (plain_peer(&fields, 2)?, status(&fields, 5)?);
    let (limit, reservation) = (plain_limit(&fields, 4)?, inner(&fields, 3)?);
    let reservation = match reservation {
        None => None,
        Some(granted) => {
            let addrs = fields::all(&granted, 2)?.into_iter().take(RESERVATION_ADDRS_MAX);
            let voucher = fields::all(&granted, 3)?.last().copied();
            Some(Reservation {
                expire: number(&granted, 1).ok()?.unwrap_or(0),
                addrs: addrs.map(Bytes::copy_from_slice).collect(),
                voucher: voucher.map(Bytes::copy_from_slice),
            })
        }
    };
    Some(match kind.map(low) {
        None => Err(DecodeError::Empty),
        Some(0) => Ok(HopMessage::Reserve),
        Some(1) => peer.map(|peer| HopMessage::Connect { peer }),
        Some(2) => Ok(HopMessage::Status { status, reservation, limit }),
        Some(_) => Err(DecodeError::Malformed),
    })
}

/// What a stop message means by the plain reader, where it makes a claim.
fn second_stop(bytes: &[u8]) -> Option<Result<StopMessage, DecodeError>> {
    let fields = fields::of(bytes)?;
    let kind = number(&fields, 1).ok()?;
    let (peer, limit) = (plain_peer(&fields, 2)?, plain_limit(&fields, 3)?);
    let status = status(&fields, 4)?;
    Some(match kind.map(low) {
        None => Err(DecodeError::Empty),
        Some(0) => peer.map(|peer| StopMessage::Connect { peer, limit }),
        Some(1) => Ok(StopMessage::Status { status }),
        Some(_) => Err(DecodeError::Malformed),
    })
}

/// The relay whose vouchers the target signs.
fn relay() -> &'static PublicKey {
    static RELAY: OnceLock<PublicKey> = OnceLock::new();
    RELAY.get_or_init(|| key(1).0.public())
}

/// A voucher. The first byte says whether the rest is one as it stands, or a payload that is signed
/// here, for this purpose or another.
pub(crate) fn voucher(bytes: &[u8], trail: &mut Trail) {
    let [how, rest @ ..] = bytes else { return };
    let rest = Bytes::copy_from_slice(rest);
    let seal = |domain: &str, payload_type: &'static [u8]| {
        let payload_type = Bytes::from_static(payload_type);
        Envelope::seal(domain, relay(), payload_type, rest.clone(), &mut key(1)).encode()
    };
    let sealed = match how % 4 {
        0 => rest.clone(),
        1 | 2 => seal("libp2p-relay-rsvp", b"\x03\x02"),
        _ => {
            let other = Voucher::open(&seal("libp2p-peer-record", b"\x03\x02"));
            assert!(matches!(other, Err(VoucherError::Envelope(_))), "{other:?}");
            let other = Voucher::open(&seal("libp2p-relay-rsvp", b"\x03\x01"));
            assert_eq!(other, Err(VoucherError::OtherPayload));
            return;
        }
    };
    let opened = Voucher::open(&sealed);
    trail.saw(format_args!("{} {:?}", how % 4, opened.map(|_| ())));
    let Ok(voucher) = opened else { return };
    let envelope = Envelope::decode(&sealed).expect("it was opened");
    let (signer, _) = envelope.verify("libp2p-relay-rsvp").expect("it was opened");
    assert_eq!(voucher.relay, signer.to_peer_id(), "its own relay signed it");
    if signer == relay() {
        assert_eq!(Voucher::open(&voucher.sealed(relay(), &mut key(1))), Ok(voucher));
    }
}
