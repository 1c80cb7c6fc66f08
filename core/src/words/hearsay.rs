//! The words for what AutoNAT v1 servers say.

/// What an AutoNAT v1 server said. Nothing proves it: a success carries no nonce, and it is about
/// the node as a whole, not about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum HearsayAnswer {
    /// `OK`: it says that it got through to one of our addresses.
    Reachable,
    /// `E_DIAL_ERROR`: it says that it got through to none.
    Unreachable,
    /// It refused, was at fault or silent, or said what nobody understands.
    Nothing,
}

impl HearsayAnswer {
    /// The word in reports.
    pub const fn name(self) -> &'static str {
        match self {
            HearsayAnswer::Reachable => "reachable",
            HearsayAnswer::Unreachable => "unreachable",
            HearsayAnswer::Nothing => "nothing",
        }
    }
}
