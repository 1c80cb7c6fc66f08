//! Signed envelopes (RFC 0002): a payload, the key that signed it, and the purpose it was signed
//! for, which is not inside.

use super::DecodeError;
use crate::{PublicKey, Signer};
use alloc::vec::Vec;
use bytes::Bytes;
use prost::Message as _;
use unsigned_varint::encode as varint;

/// A payload with a signature. The payload can be had only through [`Envelope::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    public_key: PublicKey,
    payload_type: Bytes,
    payload: Bytes,
    signature: Bytes,
}

/// An envelope that proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// The bytes are not an envelope.
    #[error("the envelope does not decode: {0}")]
    Malformed(#[from] DecodeError),
    /// Its public key is missing, malformed, or of a type that is not known.
    #[error("the public key in the envelope cannot be used")]
    Key,
    /// The signature is not that of this key over this content for this purpose.
    #[error("the signature does not hold")]
    Signature,
}

/// The bytes that a signature covers: the purpose (`domain`), the type and the payload, each
/// after its length (RFC 0002 §Signature Production / Verification).
pub fn signing_buffer(domain: &str, payload_type: &[u8], payload: &[u8]) -> Vec<u8> {
    let parts = [domain.as_bytes(), payload_type, payload];
    let mut lengths = varint::usize_buffer();
    let len = parts.iter().map(|part| part.len() + lengths.len()).sum();
    let mut buffer = Vec::with_capacity(len);
    for part in parts {
        buffer.extend_from_slice(varint::usize(part.len(), &mut lengths));
        buffer.extend_from_slice(part);
    }
    buffer
}

impl Envelope {
    /// Sign a payload for the purpose `domain`. `public_key` is that of the signer.
    pub fn seal(
        domain: &str,
        public_key: &PublicKey,
        payload_type: Bytes,
        payload: Bytes,
        signer: &mut dyn Signer,
    ) -> Envelope {
        let signature = signer.sign(&signing_buffer(domain, &payload_type, &payload)).into();
        Envelope { public_key: public_key.clone(), payload_type, payload, signature }
    }

    /// Read an envelope without judging it.
    pub fn decode(bytes: &Bytes) -> Result<Envelope, EnvelopeError> {
        let wire = Wire::decode(bytes.clone()).map_err(DecodeError::from)?;
        // RFC 0003 §Certification / Verification: the public key MUST be included.
        let public_key =
            PublicKey::try_decode_protobuf(&wire.public_key).map_err(|_| EnvelopeError::Key)?;
        Ok(Envelope {
            public_key,
            payload_type: wire.payload_type,
            payload: wire.payload,
            signature: wire.signature,
        })
    }

    /// The envelope as bytes.
    pub fn encode(&self) -> Bytes {
        let wire = Wire {
            public_key: self.public_key.encode_protobuf().into(),
            payload_type: self.payload_type.clone(),
            payload: self.payload.clone(),
            signature: self.signature.clone(),
        };
        wire.encode_to_vec().into()
    }

    /// What kind of payload it says it holds. The signature covers it, but nothing is checked
    /// here: choose the domain by it, then verify. May be empty.
    pub fn payload_type(&self) -> &Bytes {
        &self.payload_type
    }

    /// The signer and the payload, if the signature is the signer's and was made for the purpose
    /// `domain` (RFC 0002 §Domain Separation: one made for another MUST NOT be valid). Whether
    /// that signer may say such things is for the caller to judge.
    pub fn verify(&self, domain: &str) -> Result<(&PublicKey, &Bytes), EnvelopeError> {
        let covered = signing_buffer(domain, &self.payload_type, &self.payload);
        if self.public_key.verify(&covered, &self.signature) {
            Ok((&self.public_key, &self.payload))
        } else {
            Err(EnvelopeError::Signature)
        }
    }
}

/// The message as deployed: RFC 0002's text numbers the signature 4, everybody sends it as 5. The
/// key is a message, which as bytes is the same on the wire.
#[derive(Clone, PartialEq, prost::Message)]
struct Wire {
    #[prost(bytes = "bytes", tag = "1")]
    public_key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    payload_type: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    payload: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    signature: Bytes,
}

#[cfg(test)]
mod tests {
    use super::*;
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

    fn sealed(domain: &str, payload_type: &'static [u8]) -> Envelope {
        let mut key = key(1);
        let public_key = key.0.public();
        let payload = Bytes::from_static(b"payload");
        Envelope::seal(domain, &public_key, Bytes::from_static(payload_type), payload, &mut key)
    }

    #[test]
    fn the_signed_bytes_are_three_parts_with_lengths() {
        assert_eq!(signing_buffer("dom", b"\x03\x01", b"x"), b"\x03dom\x02\x03\x01\x01x");
        assert_eq!(signing_buffer("", b"", &[7; 200])[..4], [0, 0, 0xc8, 0x01]);
    }

    #[test]
    fn an_envelope_verifies_for_its_purpose_only() {
        for payload_type in [&b"\x03\x01"[..], b""] {
            let envelope = sealed("domain", payload_type);
            let read = Envelope::decode(&envelope.encode()).expect("our own envelope");
            assert_eq!(read, envelope);
            let (signer, payload) = read.verify("domain").expect("the right purpose");
            assert_eq!((signer, &payload[..]), (&key(1).0.public(), &b"payload"[..]));
            assert_eq!(read.verify("another"), Err(EnvelopeError::Signature));
            assert_eq!(read.verify(""), Err(EnvelopeError::Signature));
        }
    }

    #[test]
    fn whatever_is_changed_breaks_the_signature() {
        let good = sealed("domain", b"\x03\x01");
        let payload = Envelope { payload: Bytes::from_static(b"other"), ..good.clone() };
        let kind = Envelope { payload_type: Bytes::from_static(b"\x03\x02"), ..good.clone() };
        let signer = Envelope { public_key: key(2).0.public(), ..good.clone() };
        let unsigned = Envelope { signature: Bytes::new(), ..good.clone() };
        let cut = Envelope { signature: good.signature.slice(1..), ..good };
        for changed in [payload, kind, signer, unsigned, cut] {
            assert_eq!(changed.verify("domain"), Err(EnvelopeError::Signature));
        }
    }

    #[test]
    fn fields_have_their_deployed_numbers() {
        let bytes = sealed("domain", b"\x03\x01").encode();
        // An ed25519 key takes 36 bytes, its signature 64.
        assert_eq!(bytes[..6], [0x0a, 36, 0x08, 1, 0x12, 32]);
        assert_eq!(bytes[38..42], [0x12, 2, 3, 1]);
        assert_eq!(bytes[42..44], [0x1a, 7]);
        assert_eq!(bytes[51..53], [0x2a, 64]);
        assert_eq!(bytes.len(), 53 + 64);
    }

    #[test]
    fn an_envelope_without_a_usable_key_is_none() {
        assert_eq!(Envelope::decode(&Bytes::new()), Err(EnvelopeError::Key));
        // A key type that is not known; a key that is too short.
        for body in [&b"\x0a\x05\x08\x09\x12\x01x"[..], b"\x0a\x05\x08\x01\x12\x01x"] {
            assert_eq!(Envelope::decode(&Bytes::from_static(body)), Err(EnvelopeError::Key));
        }
        let cut = Envelope::decode(&Bytes::from_static(b"\x0a\x05\x08"));
        assert_eq!(cut, Err(EnvelopeError::Malformed(DecodeError::Malformed)));
    }
}
