//! Signed peer records (RFC 0003): a peer's addresses in its own words, fit to be passed on.
//!
//! The RFC names one domain and type, the deployed implementations use others: go-libp2p and
//! js-libp2p sign for `libp2p-peer-record` with the type bytes `03 01`, rust-libp2p's identify
//! keeps to the RFC. We sign in the first form and take both.

use super::envelope::{Envelope, EnvelopeError};
use super::{DecodeError, read_bytes};
use crate::{PeerId, PublicKey, Signer};
use alloc::vec::Vec;
use bytes::{Buf, BufMut, Bytes};
use prost::Message as _;
use prost::encoding::{self, DecodeContext, wire_type::WireType};

/// Addresses kept of one record, number; as many as identify lists. When full, the rest is
/// ignored, in the order it came.
pub const RECORD_ADDRS_MAX: usize = super::identify::LISTEN_ADDRS_MAX;

/// The deployed form: multicodec `libp2p-peer-record`, 0x0301, as two raw bytes.
const DEPLOYED: Form = Form { domain: "libp2p-peer-record", payload_type: &[0x03, 0x01] };

/// The form of RFC 0003 §Signed Envelope Domain and §Signed Envelope Payload Type.
const RFC: Form =
    Form { domain: "libp2p-routing-state", payload_type: b"/libp2p/routing-state-record" };

/// A purpose and the type of payload that belongs to it.
struct Form {
    domain: &'static str,
    payload_type: &'static [u8],
}

/// A peer's addresses at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRecord {
    /// The peer.
    pub peer_id: PeerId,
    /// Rises with every record of a peer; says nothing else, and is no time.
    pub seq: u64,
    /// Binary multiaddrs as the peer wrote them; at most [`RECORD_ADDRS_MAX`].
    pub addrs: Vec<Bytes>,
}

/// A signed peer record that must be discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The envelope does not decode, or its signature does not hold.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The envelope holds something else.
    #[error("the envelope holds no peer record")]
    OtherPayload,
    /// The record inside does not decode.
    #[error("the peer record does not decode: {0}")]
    Malformed(DecodeError),
    /// The record names a peer that did not sign it.
    #[error("the peer record belongs to another peer than the one that signed it")]
    ForeignKey,
}

impl PeerRecord {
    /// Sign the record and wrap it up, in the deployed form. `public_key` is that of the signer,
    /// and [`PeerRecord::peer_id`] is its peer: anything else is a record that nobody accepts.
    pub fn sealed(&self, public_key: &PublicKey, signer: &mut dyn Signer) -> Bytes {
        debug_assert_eq!(self.peer_id, public_key.to_peer_id(), "a record of our own");
        self.sealed_as(&DEPLOYED, public_key, signer)
    }

    /// Unwrap a signed record and check that its own peer signed it. Whether that is the peer we
    /// talk to, and whether its [`seq`](PeerRecord::seq) is news, is for the caller to judge.
    pub fn open(envelope: &Bytes) -> Result<PeerRecord, RecordError> {
        let envelope = Envelope::decode(envelope)?;
        let form = [DEPLOYED, RFC]
            .into_iter()
            .find(|form| form.payload_type == envelope.payload_type())
            .ok_or(RecordError::OtherPayload)?;
        // RFC 0003 §Certification / Verification: the signature MUST be validated before the
        // record is decoded, and the peer id in it MUST match the key.
        let (public_key, payload) = envelope.verify(form.domain)?;
        let wire = Wire::decode(payload.clone())
            .map_err(|error| RecordError::Malformed(DecodeError::from(error)))?;
        let peer_id = PeerId::from_bytes(&wire.peer_id)
            .map_err(|_| RecordError::Malformed(DecodeError::Malformed))?;
        if peer_id != public_key.to_peer_id() {
            return Err(RecordError::ForeignKey);
        }
        let addrs = wire.addresses.into_iter().map(|info| info.multiaddr).collect();
        Ok(PeerRecord { peer_id, seq: wire.seq, addrs })
    }

    fn sealed_as(&self, form: &Form, public_key: &PublicKey, signer: &mut dyn Signer) -> Bytes {
        let addresses =
            self.addrs.iter().map(|addr| AddressInfo { multiaddr: addr.clone() }).collect();
        let wire = Wire { peer_id: self.peer_id.to_bytes().into(), seq: self.seq, addresses };
        let payload_type = Bytes::from_static(form.payload_type);
        let payload = wire.encode_to_vec().into();
        Envelope::seal(form.domain, public_key, payload_type, payload, signer).encode()
    }
}

/// RFC 0003 §Address Record Format.
#[derive(Clone, Debug, Default)]
struct Wire {
    peer_id: Bytes,
    seq: u64,
    addresses: Vec<AddressInfo>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AddressInfo {
    #[prost(bytes = "bytes", tag = "1")]
    multiaddr: Bytes,
}

impl prost::Message for Wire {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        encoding::bytes::encode(1, &self.peer_id, buf);
        if self.seq != 0 {
            encoding::uint64::encode(2, &self.seq, buf);
        }
        encoding::message::encode_repeated(3, &self.addresses, buf);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), prost::DecodeError> {
        match tag {
            1 => {
                self.peer_id = read_bytes(wire_type, buf, ctx)?;
                Ok(())
            }
            2 => encoding::uint64::merge(wire_type, &mut self.seq, buf, ctx),
            3 => {
                let mut info = AddressInfo::default();
                encoding::message::merge(wire_type, &mut info, buf, ctx)?;
                if self.addresses.len() < RECORD_ADDRS_MAX {
                    self.addresses.push(info);
                }
                Ok(())
            }
            _ => encoding::skip_field(wire_type, tag, buf, ctx),
        }
    }

    fn encoded_len(&self) -> usize {
        let seq = match self.seq {
            0 => 0,
            seq => encoding::uint64::encoded_len(2, &seq),
        };
        encoding::bytes::encoded_len(1, &self.peer_id)
            + seq
            + encoding::message::encoded_len_repeated(3, &self.addresses)
    }

    fn clear(&mut self) {
        *self = Wire::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use libp2p_identity::Keypair;

    struct Key(Keypair);

    impl Signer for Key {
        fn sign(&mut self, message: &[u8]) -> Vec<u8> {
            self.0.sign(message).expect("an ed25519 key signs anything")
        }
    }

    fn key(seed: u8) -> Key {
        Key(Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes are a key"))
    }

    fn record(seed: u8) -> PeerRecord {
        PeerRecord {
            peer_id: key(seed).0.public().to_peer_id(),
            seq: 1_700_000_000,
            addrs: vec![Bytes::from_static(&[4, 127, 0, 0, 1, 6, 0, 80]), Bytes::new()],
        }
    }

    /// Any payload, signed by key 1.
    fn signed(form: &Form, payload: &[u8]) -> Bytes {
        let mut key = key(1);
        let public_key = key.0.public();
        let payload_type = Bytes::from_static(form.payload_type);
        let payload = Bytes::copy_from_slice(payload);
        Envelope::seal(form.domain, &public_key, payload_type, payload, &mut key).encode()
    }

    #[test]
    fn both_forms_are_taken_and_the_deployed_one_is_made() {
        let mut key = key(1);
        let public_key = key.0.public();
        for form in [DEPLOYED, RFC] {
            let sealed = record(1).sealed_as(&form, &public_key, &mut key);
            assert_eq!(PeerRecord::open(&sealed), Ok(record(1)), "{}", form.domain);
        }
        let envelope = Envelope::decode(&record(1).sealed(&public_key, &mut key));
        let envelope = envelope.expect("our own envelope");
        assert_eq!(envelope.payload_type(), &b"\x03\x01"[..]);
        let (signer, payload) = envelope.verify("libp2p-peer-record").expect("our own signature");
        assert_eq!(signer, &public_key);
        // Field 1 with the 38 bytes of an inlined key, then the sequence number.
        assert_eq!(payload[..6], [0x0a, 38, 0x00, 36, 0x08, 0x01]);
        assert_eq!(payload[40..46], [0x10, 0x80, 0xe2, 0xcf, 0xaa, 0x06]);
        assert_eq!(payload[46..], *b"\x1a\x0a\x0a\x08\x04\x7f\x00\x00\x01\x06\x00\x50\x1a\x00");
    }

    #[test]
    fn a_record_of_somebody_else_is_foreign() {
        let mut key = key(1);
        let public_key = key.0.public();
        let sealed = record(2).sealed_as(&DEPLOYED, &public_key, &mut key);
        assert_eq!(PeerRecord::open(&sealed), Err(RecordError::ForeignKey));
    }

    #[test]
    fn domain_and_type_belong_together() {
        let mixed = Form { domain: RFC.domain, payload_type: DEPLOYED.payload_type };
        let refused = PeerRecord::open(&signed(&mixed, b""));
        assert_eq!(refused, Err(RecordError::Envelope(EnvelopeError::Signature)));
        let voucher = Form { domain: "libp2p-relay-rsvp", payload_type: &[0x03, 0x02] };
        assert_eq!(PeerRecord::open(&signed(&voucher, b"")), Err(RecordError::OtherPayload));
        let none = Form { domain: DEPLOYED.domain, payload_type: &[] };
        assert_eq!(PeerRecord::open(&signed(&none, b"")), Err(RecordError::OtherPayload));
    }

    #[test]
    fn the_signature_is_judged_before_the_record() {
        let nonsense = signed(&DEPLOYED, b"\xff\xff\xff");
        let malformed = Err(RecordError::Malformed(DecodeError::Malformed));
        assert_eq!(PeerRecord::open(&nonsense), malformed);
        let mut broken = nonsense.to_vec();
        *broken.last_mut().expect("an envelope has bytes") ^= 1;
        let unsigned = Err(RecordError::Envelope(EnvelopeError::Signature));
        assert_eq!(PeerRecord::open(&broken.into()), unsigned);
        assert_eq!(PeerRecord::open(&signed(&DEPLOYED, b"")), malformed, "no peer id");
    }

    #[test]
    fn addresses_are_bounded() {
        let mut key = key(1);
        let public_key = key.0.public();
        let many = PeerRecord { addrs: vec![Bytes::from_static(b"a"); 1_000], ..record(1) };
        let opened = PeerRecord::open(&many.sealed(&public_key, &mut key)).expect("a record");
        assert_eq!(opened.addrs.len(), RECORD_ADDRS_MAX);
    }
}
