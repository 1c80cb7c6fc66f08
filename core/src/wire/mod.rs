//! Pure codecs: what peers say in bytes, and what it means. No decisions.
//!
//! - [`framing`] cuts messages out of a stream and puts them back in.
//! - [`autonat`] is AutoNAT v2: both roles, both streams.
//! - [`identify`] is identify and identify/push, split and merged.
//! - [`envelope`] (RFC 0002) and [`peer_record`] (RFC 0003) are what identify carries signed.
//! - [`multiaddr`] is addresses in binary form.
//!
//! Every codec splits into bytes and a plain value. Decoding never panics, and what it allocates
//! is bounded before it is allocated: a body by the limit of its [`Framing`](crate::Framing), a
//! repeated field by its own `_MAX`, beyond which entries are skipped in the order they came.
//! Decoded [`Bytes`] are slices of the frame and keep all of it alive.
//!
//! Protobuf goes through prost. Messages with a repeated field implement [`prost::Message`] by
//! hand, because a derived one grows its vectors for as long as entries come: a frame of 8 KiB
//! holds 4,096 empty ones.
//!
//! A good first change here: a test vector recorded from another implementation.

pub mod autonat;
pub mod envelope;
pub mod framing;
pub mod identify;
pub mod multiaddr;
pub mod peer_record;

use bytes::{Buf, Bytes};
use prost::encoding::{self, DecodeContext, wire_type::WireType};

/// A body that is not the message it should be. Nothing of it may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Not protobuf, cut short, or a field of the wrong type.
    #[error("not a well-formed message")]
    Malformed,
    /// A message that must be one of several, and is none.
    #[error("a message without content")]
    Empty,
    /// A chunk of dial data longer than the protocol allows.
    #[error("a data chunk of {len} bytes, at most {max} are allowed", max = autonat::DIAL_DATA_CHUNK_MAX)]
    ChunkTooLong {
        /// The length of the chunk in bytes.
        len: usize,
    },
}

impl From<prost::DecodeError> for DecodeError {
    fn from(_: prost::DecodeError) -> DecodeError {
        DecodeError::Malformed
    }
}

/// Read one `bytes` or `string` field. Out of a [`Bytes`] it is a slice, not a copy.
fn read_bytes(
    wire_type: WireType,
    buf: &mut impl Buf,
    ctx: DecodeContext,
) -> Result<Bytes, prost::DecodeError> {
    let mut value = Bytes::new();
    encoding::bytes::merge(wire_type, &mut value, buf, ctx)?;
    Ok(value)
}
