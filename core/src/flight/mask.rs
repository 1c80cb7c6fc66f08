//! How nonces become unrecognisable and stay distinguishable.

use core::fmt;
use siphasher::sip::SipHasher24;

/// A key that turns nonces into others. It is never written anywhere.
#[derive(Clone)]
pub(super) struct Mask([u8; 16]);

impl Mask {
    pub(super) fn new(key: [u8; 16]) -> Mask {
        Mask(key)
    }

    /// What stands for a nonce in the record. Zero stands for itself, because a message says it
    /// by leaving the field out; and nothing else stands for zero.
    pub(super) fn nonce(&self, nonce: u64) -> u64 {
        if nonce == 0 {
            return 0;
        }
        SipHasher24::new_with_key(&self.0).hash(&nonce.to_le_bytes()).max(1)
    }

    /// The same for the bytes of a nonce, least significant first, where they stand.
    pub(super) fn replace(&self, word: &mut [u8]) {
        if let Ok(bytes) = <[u8; 8]>::try_from(&*word) {
            word.copy_from_slice(&self.nonce(u64::from_le_bytes(bytes)).to_le_bytes());
        }
    }
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mask(..)")
    }
}
