//! Pure codecs: what peers say in bytes, and what it means. No decisions.
//!
//! - [`framing`] cuts messages out of a stream and puts them back in.
//! - [`autonat`] is AutoNAT v2, both roles and both streams, and v1.
//! - [`identify`] is identify and identify/push, split and merged.
//! - [`envelope`] (RFC 0002) and [`peer_record`] (RFC 0003) are what identify carries signed.
//! - [`multiaddr`] is addresses in binary form.
//! - [`pipe`] is the frames of a session that outlives its connection.
//! - [`punch`] is DCUtR: the messages by which two peers agree to punch.
//! - [`relay`] is circuit relay v2: both streams, and the voucher.
//! - [`nat_pmp`] and [`pcp`] are what hosts and gateways say to each other about mappings,
//!   and [`upnp`] is the same with routers that speak UPnP.
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
mod fields;
pub mod framing;
pub mod identify;
pub mod multiaddr;
pub mod nat_pmp;
pub mod pcp;
pub mod peer_record;
pub mod pipe;
pub mod punch;
pub mod relay;
pub mod upnp;

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

/// What a gateway maps: a port of UDP or of TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MapTransport {
    /// QUIC is on top of it.
    Udp,
    /// TCP.
    Tcp,
}

impl MapTransport {
    /// Both of them.
    pub const ALL: [MapTransport; 2] = [MapTransport::Udp, MapTransport::Tcp];

    /// Its number in the header of IP.
    pub fn protocol_number(self) -> u8 {
        match self {
            MapTransport::Udp => 17,
            MapTransport::Tcp => 6,
        }
    }

    /// Its name as UPnP has it. Upper case matters: some routers refuse any other.
    pub fn name(self) -> &'static str {
        match self {
            MapTransport::Udp => "UDP",
            MapTransport::Tcp => "TCP",
        }
    }
}

/// The version of a reply on port 5351: 0 is NAT-PMP, 2 is PCP. A gateway that speaks one of them
/// alone answers the other in its own (RFC 6886 §1.1, RFC 6887 §9), so look here before decoding.
pub fn version(datagram: &[u8]) -> Option<u8> {
    datagram.first().copied()
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
