//! What core may use of the world beside time: chance and signatures.

use libp2p_identity::Keypair;
use portolan_core::{Draw, Signer};
use rand::rngs::{StdRng, SysError, SysRng};
use rand::{Rng, RngExt, SeedableRng};

/// A CSPRNG, seeded by the operating system.
pub(crate) struct Chance(StdRng);

impl Chance {
    pub(crate) fn new() -> Result<Chance, SysError> {
        StdRng::try_from_rng(&mut SysRng).map(Chance)
    }

    /// A key that nobody else has.
    pub(crate) fn key(&mut self) -> [u8; 16] {
        self.0.random()
    }
}

impl Draw for Chance {
    fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.0.random_range(0..n) }
    }

    fn nonce(&mut self) -> u64 {
        self.0.next_u64()
    }
}

/// The node's key pair.
pub(crate) struct KeySigner(pub(crate) Keypair);

impl Signer for KeySigner {
    fn sign(&mut self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).unwrap_or_else(|error| {
            // Only RSA can fail, for want of memory; an empty signature convinces nobody.
            tracing::error!(%error, "the node's key did not sign");
            Vec::new()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn nonces_use_all_their_bits_and_no_two_nodes_share_them() {
        let mut drawn = BTreeSet::new();
        let (mut ever_set, mut always_set) = (0, u64::MAX);
        for _ in 0..16 {
            // Each node seeds its own, so that a fixed seed would show as a repetition.
            let mut chance = Chance::new().expect("the system gives randomness");
            for _ in 0..16 {
                let nonce = chance.nonce();
                assert!(drawn.insert(nonce), "{nonce} came twice");
                ever_set |= nonce;
                always_set &= nonce;
            }
        }
        // By chance a bit stays the same in 256 draws once in 2^255 runs.
        assert_eq!((ever_set, always_set), (u64::MAX, 0));
    }
}
