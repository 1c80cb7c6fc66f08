//! What one step may use of the world.

use super::action::Actions;
use super::time::{Instant, UnixTime};
use alloc::vec::Vec;
use core::fmt;

/// Chance, handed in: the runtime's CSPRNG, a seed, fuzz bytes, or an enumerator.
pub trait Draw {
    /// A number below `n`, evenly drawn; 0 when `n` is 0.
    fn below(&mut self, n: u64) -> u64;

    /// 64 unpredictable bits. The runtime must draw them from a CSPRNG.
    fn nonce(&mut self) -> u64;
}

/// The node's private key, which core never holds.
pub trait Signer {
    /// The signature of the node's identity key over `message`.
    fn sign(&mut self, message: &[u8]) -> Vec<u8>;
}

/// What one step may use of the world: the moment, chance, a signature, and somewhere to write.
/// None of it is ever stored.
pub struct Cx<'a> {
    /// The moment of this step.
    pub now: Instant,
    /// The same moment on the wall clock.
    pub unix: UnixTime,
    /// Chance.
    pub draw: &'a mut dyn Draw,
    /// Signatures of the node's own key.
    pub sign: &'a mut dyn Signer,
    /// Where actions go.
    pub actions: &'a mut Actions,
}

impl fmt::Debug for Cx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cx")
            .field("now", &self.now)
            .field("unix", &self.unix)
            .finish_non_exhaustive()
    }
}
