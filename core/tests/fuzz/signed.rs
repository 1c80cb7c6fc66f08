//! Targets: signed envelopes and signed peer records.

use crate::fields::{self, Value};
use crate::trail::{Trail, magnitude, variant};
use bytes::Bytes;
use libp2p_identity::Keypair;
use portolan_core::wire::envelope::Envelope;
use portolan_core::wire::peer_record::{PeerRecord, RECORD_ADDRS_MAX, RecordError};
use portolan_core::{PublicKey, Signer};
use std::sync::OnceLock;

/// Purpose and type of the two forms of peer record, as the specifications and the deployed
/// implementations have them.
pub(crate) const FORMS: [(&str, &[u8]); 2] = [
    ("libp2p-peer-record", &[0x03, 0x01]),
    ("libp2p-routing-state", b"/libp2p/routing-state-record"),
];

/// A key that signs.
#[derive(Clone)]
pub(crate) struct Key(pub(crate) Keypair);

impl Signer for Key {
    fn sign(&mut self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).expect("an ed25519 key signs anything")
    }
}

/// The key of a number.
pub(crate) fn key(number: u8) -> Key {
    Key(Keypair::ed25519_from_bytes([number; 32]).expect("32 bytes are a key"))
}

/// The key whose records the targets sign.
fn owner() -> &'static PublicKey {
    static OWNER: OnceLock<PublicKey> = OnceLock::new();
    OWNER.get_or_init(|| key(1).0.public())
}

/// An envelope: reading and writing are each other's reverse, and it holds for one purpose only.
pub(crate) fn envelope(bytes: &[u8], trail: &mut Trail) {
    let envelope = match Envelope::decode(&Bytes::copy_from_slice(bytes)) {
        Ok(envelope) => envelope,
        Err(error) => return trail.saw(format_args!("{error:?}")),
    };
    let written = envelope.encode();
    let again = Envelope::decode(&written).expect("our own writing");
    assert_eq!(again, envelope);
    assert_eq!(again.encode(), written, "there is one way to write it");

    let held: Vec<&str> = ["libp2p-peer-record", "libp2p-routing-state", "libp2p-relay-rsvp", ""]
        .into_iter()
        .filter(|domain| envelope.verify(domain).is_ok())
        .collect();
    assert!(held.len() <= 1, "signed for {held:?} at once");
    trail.saw(format_args!("held for {held:?}"));
    trail.saw(format_args!("type of magnitude {}", magnitude(envelope.payload_type().len())));
    if let Some(domain) = held.first()
        && let Ok((signer, payload)) = envelope.verify(domain)
    {
        trail.saw(format_args!("key {:?}", signer.key_type()));
        let whole = fields::of(bytes).expect("what verifies is plain protobuf");
        let value = fields::last(&whole, 3, Value::Bytes(b""));
        assert_eq!(value, Value::Bytes(payload), "the payload is what was signed");
    }
}

/// A peer record. The first byte says how the rest comes to be one: as it stands, or as a payload
/// that is signed here; only so can a change get past the signature.
pub(crate) fn peer_record(bytes: &[u8], trail: &mut Trail) {
    let [how, rest @ ..] = bytes else { return };
    let rest = Bytes::copy_from_slice(rest);
    let seal = |domain: &str, payload_type: &'static [u8]| {
        let payload_type = Bytes::from_static(payload_type);
        Envelope::seal(domain, owner(), payload_type, rest.clone(), &mut key(1)).encode()
    };
    let (envelope, form) = match how % 4 {
        0 => (rest.clone(), None),
        1 => (seal(FORMS[0].0, FORMS[0].1), Some(0)),
        2 => (seal(FORMS[1].0, FORMS[1].1), Some(1)),
        _ => {
            // Signed for one purpose, said to be for the other.
            for (form, other) in [(0, 1), (1, 0)] {
                let mixed = PeerRecord::open(&seal(FORMS[form].0, FORMS[other].1));
                assert!(matches!(mixed, Err(RecordError::Envelope(_))), "{mixed:?}");
            }
            let other = PeerRecord::open(&seal("libp2p-relay-rsvp", b"\x03\x02"));
            assert_eq!(other, Err(RecordError::OtherPayload));
            return;
        }
    };
    let opened = PeerRecord::open(&envelope);
    trail.saw(format_args!("{form:?} {:?}", opened.as_ref().map(|_| ())));
    if form.is_some() {
        second_opinion(&rest, &opened);
    }
    let Ok(record) = opened else { return };
    trail.saw(format_args!("{form:?} {} addresses", magnitude(record.addrs.len())));
    trail.saw(format_args!("seq of magnitude {}", 64 - record.seq.leading_zeros()));
    assert!(record.addrs.len() <= RECORD_ADDRS_MAX);
    let sealed = Envelope::decode(&envelope).expect("it was opened");
    let held = FORMS.iter().find_map(|(domain, _)| sealed.verify(domain).ok());
    let (signer, _) = held.expect("an unsigned record is none");
    assert_eq!(record.peer_id, signer.to_peer_id(), "its own peer signed it");
    if signer == owner() {
        let resealed = record.sealed(owner(), &mut key(1));
        assert_eq!(PeerRecord::open(&resealed), Ok(record));
    }
}

/// What a plain reader of protobuf finds in a payload that is properly signed.
fn second_opinion(payload: &[u8], opened: &Result<PeerRecord, RecordError>) {
    let Some(fields) = fields::of(payload) else { return };
    let (Some(peers), Some(infos)) = (fields::all(&fields, 1), fields::all(&fields, 3)) else {
        return;
    };
    let addrs: Option<Vec<Bytes>> = infos
        .into_iter()
        .map(|info| {
            let addrs = fields::of(info)?;
            let last = fields::all(&addrs, 1)?.last().copied().unwrap_or_default();
            Some(Bytes::copy_from_slice(last))
        })
        .collect();
    let (Some(mut addrs), true) = (addrs, fields::are_varints(&fields, 2)) else { return };
    addrs.truncate(RECORD_ADDRS_MAX);
    let own = peers.last().is_some_and(|peer| **peer == owner().to_peer_id().to_bytes()[..]);
    let Value::Varint(seq) = fields::last(&fields, 2, Value::Varint(0)) else { return };
    match opened {
        Ok(record) => {
            assert!(own, "a record of another peer");
            assert_eq!((record.seq, &record.addrs), (seq, &addrs));
        }
        Err(RecordError::ForeignKey | RecordError::Malformed(_)) => assert!(!own, "{opened:?}"),
        Err(error) => panic!("{} of what was properly signed", variant(error)),
    }
}
