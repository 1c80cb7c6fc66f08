//! What the corpora of relaying begin with.

use crate::signed::key;
use bytes::Bytes;
use portolan_core::wire::envelope::Envelope;
use portolan_core::wire::multiaddr;
use portolan_core::wire::relay::{HopMessage, Reservation, StopMessage, Voucher};
use portolan_core::{Addr, CircuitLimit, Duration, PeerId, RelayStatus};

/// The files of a target: the name of each, and its bytes.
type Files = Vec<(&'static str, Vec<u8>)>;

/// Every corpus with its files.
pub(crate) fn all() -> Vec<(&'static str, Files)> {
    vec![("hop", hops()), ("stop", stops()), ("voucher", vouchers())]
}

const LIMIT: CircuitLimit =
    CircuitLimit { duration: Some(Duration::from_secs(120)), bytes: Some(1 << 17) };
const NONE: CircuitLimit = CircuitLimit { duration: None, bytes: None };

fn peer(number: u8) -> PeerId {
    key(number).0.public().to_peer_id()
}

fn voucher() -> Voucher {
    Voucher { relay: peer(1), peer: peer(2), expiration: 1_800_000_000 }
}

fn sealed() -> Bytes {
    voucher().sealed(&key(1).0.public(), &mut key(1))
}

fn granted(addrs: usize, voucher: Option<Bytes>, limit: CircuitLimit) -> Vec<u8> {
    let addr = multiaddr::encode(Addr::tcp([44, 0, 1, 1].into(), 4_001));
    let addrs = vec![addr; addrs];
    let reservation = Some(Reservation { expire: 1_800_000_000, addrs, voucher });
    HopMessage::Status { status: RelayStatus::Ok, reservation, limit }.encode().into()
}

fn refused(code: i32) -> Vec<u8> {
    let status = RelayStatus::from_code(code);
    HopMessage::Status { status, reservation: None, limit: NONE }.encode().into()
}

fn hops() -> Files {
    let connect = HopMessage::Connect { peer: peer(2) }.encode();
    vec![
        ("reserve", HopMessage::Reserve.encode().into()),
        ("connect", connect.to_vec()),
        ("connect-nobody", b"\x08\x01".to_vec()),
        ("connect-twice", [&connect[..], &connect].concat()),
        ("connect-no-peer-id", b"\x08\x01\x12\x03\x0a\x01x".to_vec()),
        ("granted", granted(2, Some(sealed()), LIMIT)),
        ("granted-by-rust", granted(1, None, NONE)),
        ("granted-with-20-addresses", granted(20, None, LIMIT)),
        ("granted-with-a-bad-voucher", granted(0, Some(Bytes::from_static(b"x")), LIMIT)),
        ("refused", refused(200)),
        ("refused-with-an-unknown-code", refused(-1)),
        ("limit-of-zero", b"\x08\x02\x22\x04\x08\x00\x10\x00\x28\x64".to_vec()),
        ("unknown-kind", b"\x08\x03".to_vec()),
        ("no-kind", b"\x28\x64".to_vec()),
        ("nothing", vec![]),
        ("length-beyond-the-end", b"\x08\x02\x1a\xff\xff\xff\xff\x0f\x0a".to_vec()),
    ]
}

fn stops() -> Files {
    let connect = |limit| StopMessage::Connect { peer: peer(2), limit }.encode().to_vec();
    let status =
        |code| StopMessage::Status { status: RelayStatus::from_code(code) }.encode().to_vec();
    vec![
        ("connect", connect(LIMIT)),
        ("connect-without-a-limit", connect(NONE)),
        ("connect-nobody", b"\x08\x00".to_vec()),
        ("taken", status(100)),
        ("refused", status(202)),
        ("status-left-out", b"\x08\x01".to_vec()),
        ("unknown-kind", b"\x08\x02".to_vec()),
        ("nothing", vec![]),
    ]
}

fn vouchers() -> Files {
    let with = |how: u8, rest: &[u8]| [&[how], rest].concat();
    let envelope = Envelope::decode(&sealed()).expect("our own");
    let payload = envelope.verify("libp2p-relay-rsvp").expect("signed").1.to_vec();
    let foreign = Voucher { relay: peer(3), ..voucher() };
    let foreign = Envelope::decode(&foreign.sealed(&key(3).0.public(), &mut key(3)));
    let foreign = foreign.expect("our own");
    let foreign = foreign.verify("libp2p-relay-rsvp").expect("signed").1.to_vec();
    vec![
        ("as-it-comes", with(0, &sealed())),
        ("payload", with(1, &payload)),
        ("payload-for-another-purpose", with(3, &payload)),
        ("of-another-relay", with(1, &foreign)),
        ("without-an-end", with(1, &payload[..payload.len() - 6])),
        ("nothing", with(1, b"")),
    ]
}
