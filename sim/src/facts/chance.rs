//! Chance as stories know it: nonces count up, and numbers below a bound are drawn in one of three
//! ways.

use portolan_core::Draw;
use std::fmt;

/// How numbers below a bound are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draws {
    /// Always zero.
    Lowest,
    /// Always the greatest.
    Highest,
    /// From a seed.
    Seed(u64),
}

impl fmt::Display for Draws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Draws::Lowest => f.write_str("lowest"),
            Draws::Highest => f.write_str("highest"),
            Draws::Seed(seed) => write!(f, "{seed}"),
        }
    }
}

/// The chance of one agent.
#[derive(Clone, Debug)]
pub(super) struct Chance {
    draws: Draws,
    nonces: u64,
}

impl Chance {
    pub(super) fn new(draws: Draws) -> Chance {
        Chance { draws, nonces: 0 }
    }
}

impl Draw for Chance {
    fn below(&mut self, n: u64) -> u64 {
        match &mut self.draws {
            Draws::Lowest => 0,
            Draws::Highest => n.saturating_sub(1),
            Draws::Seed(state) => {
                // The first two steps of SplitMix64, which a story with the same seed takes too.
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                (z ^ (z >> 27)).checked_rem(n).unwrap_or(0)
            }
        }
    }

    fn nonce(&mut self) -> u64 {
        self.nonces += 1;
        self.nonces
    }
}
