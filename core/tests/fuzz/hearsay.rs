//! The messages of AutoNAT v1.

use crate::signed::key;
use crate::trail::{Trail, magnitude, variant};
use bytes::Bytes;
use portolan_core::wire::autonat::v1::{DIAL_ADDRS_MAX, MESSAGE_BYTES_MAX, Message, Status};
use portolan_core::wire::multiaddr;
use portolan_core::{Addr, PeerId};

/// A message: limits hold, and what is understood is written and read again as the same.
pub(crate) fn run(bytes: &[u8], trail: &mut Trail) {
    let message = match Message::decode(&Bytes::copy_from_slice(bytes)) {
        Ok(message) => message,
        Err(error) => return trail.saw(format_args!("{}", variant(&error))),
    };
    assert_eq!(Message::decode(&message.encode()).as_ref(), Ok(&message));
    trail.saw(format_args!("{}", variant(&message)));
    match message {
        Message::Dial { peer, addrs } => {
            assert!(addrs.len() <= DIAL_ADDRS_MAX);
            assert!(addrs.iter().map(Bytes::len).sum::<usize>() <= bytes.len());
            trail.saw(format_args!("{} {}", peer.is_some(), magnitude(addrs.len())));
            let Some(peer) = peer else { return };
            let (sent, left_out) = Message::dial(peer, addrs.clone());
            let body = sent.encode();
            assert!(body.len() <= MESSAGE_BYTES_MAX, "deployed servers read no more");
            let kept = addrs[..addrs.len() - left_out].to_vec();
            assert_eq!(Message::decode(&body), Ok(Message::Dial { peer: Some(peer), addrs: kept }));
        }
        Message::DialResponse { status, addr } => {
            assert_eq!(Status::from_code(status.code()), status);
            trail.saw(format_args!("{} {}", variant(&status), addr.is_some()));
        }
        other => panic!("{other:?} has no law yet"),
    }
}

fn peer() -> PeerId {
    key(1).0.public().to_peer_id()
}

/// What its corpus begins with.
pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let addr = multiaddr::encode(Addr::quic([44, 0, 1, 1].into(), 4_001));
    let dial =
        |peer, count| Message::Dial { peer, addrs: vec![addr.clone(); count] }.encode().to_vec();
    let said = |status, addr| Message::DialResponse { status, addr }.encode().to_vec();
    vec![
        ("dial", dial(Some(peer()), 2)),
        ("dial-without-addresses", dial(Some(peer()), 0)),
        ("dial-with-20-addresses", dial(Some(peer()), 20)),
        ("dial-of-nobody", dial(None, 1)),
        ("ok", said(Status::Ok, Some(addr.clone()))),
        ("ok-without-an-address", said(Status::Ok, None)),
        ("dial-error", said(Status::DialError, None)),
        ("refused", said(Status::DialRefused, None)),
        ("unknown-status", said(Status::Unknown(-1), None)),
        ("with-a-text", b"\x08\x01\x1a\x0a\x08\x64\x12\x06failed".to_vec()),
        ("no-status", b"\x08\x01\x1a\x00".to_vec()),
        ("no-type", b"\x12\x00".to_vec()),
        ("both", b"\x08\x01\x12\x00\x1a\x02\x08\x00".to_vec()),
    ]
}
