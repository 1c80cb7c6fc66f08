//! The messages that frames carry, and what they mean. `docs/flight-record.md` has them as a
//! protobuf definition.
//!
//! Numbers are given once and never again for something else. An enumeration starts at 1, so that
//! a value which is missing, or which a later version has added, is told from every other.

pub(super) mod action;
pub(super) mod head;
mod mapping;
mod punch;
mod relay;
pub(super) mod step;
mod values;

/// What a message lacks, or says in a way that this version does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unknown(pub(super) &'static str);

impl From<prost::DecodeError> for Unknown {
    fn from(_: prost::DecodeError) -> Unknown {
        Unknown("not a well-formed message")
    }
}
