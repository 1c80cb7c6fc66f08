//! Circuit relay v2: the messages of both streams, and the voucher of a reservation.
//!
//! On `/libp2p/circuit/relay/0.2.0/hop` every frame is a [`HopMessage`], on `…/stop` a
//! [`StopMessage`] (circuit-v2 §Protocols). After the last of them, a status of
//! [`RelayStatus::Ok`], the stream carries the bytes of the circuit.
//!
//! What the protobuf schema calls optional for the sake of proto2 is always written, also when it is
//! zero (circuit-v2 §Protobuf).

use super::envelope::{Envelope, EnvelopeError};
use super::{DecodeError, read_bytes};
use crate::{CircuitLimit, Duration, PeerId, PublicKey, RelayStatus, Signer};
use alloc::vec::Vec;
use bytes::{Buf, BufMut, Bytes};
use prost::Message as _;
use prost::encoding::{self, DecodeContext, wire_type::WireType};

/// Addresses of a relay that are kept of one reservation, number; ours. When full, the rest is
/// ignored, in the order it came.
pub const RESERVATION_ADDRS_MAX: usize = 16;

/// The deployed form of a voucher: multicodec `libp2p-relay-rsvp`, 0x0302, as two raw bytes.
const VOUCHER_DOMAIN: &str = "libp2p-relay-rsvp";
const VOUCHER_TYPE: &[u8] = &[0x03, 0x02];

/// One message of a hop stream.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HopMessage {
    /// Client to relay: let others reach me through you.
    Reserve,
    /// Client to relay: join me with this peer.
    Connect {
        /// The peer to be reached.
        peer: PeerId,
    },
    /// Relay to client: how it went.
    Status {
        /// The answer.
        status: RelayStatus,
        /// What was granted, in the answer to `Reserve`.
        reservation: Option<Reservation>,
        /// What a circuit may use; `None` of both is no limit.
        limit: CircuitLimit,
    },
}

/// One message of a stop stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopMessage {
    /// Relay to client: somebody wants to reach you.
    Connect {
        /// The peer that does.
        peer: PeerId,
        /// What the circuit may use.
        limit: CircuitLimit,
    },
    /// Client to relay: whether I take it.
    Status {
        /// The answer.
        status: RelayStatus,
    },
}

/// What a relay grants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reservation {
    /// When it ends, seconds since 1970.
    pub expire: u64,
    /// Binary multiaddrs of the relay as it wrote them; at most [`RESERVATION_ADDRS_MAX`].
    pub addrs: Vec<Bytes>,
    /// A signed [`Voucher`]. rust-libp2p's relay gives none.
    pub voucher: Option<Bytes>,
}

/// What a relay signs: that a peer may be reached through it, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Voucher {
    /// The relay.
    pub relay: PeerId,
    /// The peer that holds the reservation.
    pub peer: PeerId,
    /// When it ends, seconds since 1970.
    pub expiration: u64,
}

/// A voucher that proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VoucherError {
    /// The envelope does not decode, or its signature does not hold.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The envelope holds something else.
    #[error("the envelope holds no voucher")]
    OtherPayload,
    /// The voucher inside does not decode.
    #[error("the voucher does not decode: {0}")]
    Malformed(DecodeError),
    /// The voucher names a relay that did not sign it.
    #[error("the voucher is not signed by the relay that it names")]
    ForeignKey,
}

impl HopMessage {
    /// Read the body of a frame. What it must hold and does not is an error.
    pub fn decode(body: &Bytes) -> Result<HopMessage, DecodeError> {
        let wire = proto::Hop::decode(body.clone())?;
        Ok(match wire.kind.ok_or(DecodeError::Empty)? {
            0 => HopMessage::Reserve,
            1 => HopMessage::Connect { peer: read_peer(wire.peer)? },
            2 => HopMessage::Status {
                status: RelayStatus::from_code(wire.status.unwrap_or_default()),
                reservation: wire.reservation,
                limit: read_limit(wire.limit),
            },
            _ => return Err(DecodeError::Malformed),
        })
    }

    /// The body of a frame.
    pub fn encode(&self) -> Bytes {
        let wire = match self {
            HopMessage::Reserve => proto::Hop { kind: Some(0), ..proto::Hop::default() },
            HopMessage::Connect { peer } => {
                let peer = Some(proto::Peer::of(peer));
                proto::Hop { kind: Some(1), peer, ..proto::Hop::default() }
            }
            HopMessage::Status { status, reservation, limit } => proto::Hop {
                kind: Some(2),
                peer: None,
                reservation: reservation.clone(),
                limit: written_limit(*limit),
                status: Some(status.code()),
            },
        };
        wire.encode_to_vec().into()
    }
}

impl StopMessage {
    /// Read the body of a frame. What it must hold and does not is an error.
    pub fn decode(body: &Bytes) -> Result<StopMessage, DecodeError> {
        let wire = proto::Stop::decode(body.clone())?;
        Ok(match wire.kind.ok_or(DecodeError::Empty)? {
            0 => {
                StopMessage::Connect { peer: read_peer(wire.peer)?, limit: read_limit(wire.limit) }
            }
            1 => StopMessage::Status {
                status: RelayStatus::from_code(wire.status.unwrap_or_default()),
            },
            _ => return Err(DecodeError::Malformed),
        })
    }

    /// The body of a frame.
    pub fn encode(self) -> Bytes {
        let wire = match self {
            StopMessage::Connect { peer, limit } => proto::Stop {
                kind: Some(0),
                peer: Some(proto::Peer::of(&peer)),
                limit: written_limit(limit),
                status: None,
            },
            StopMessage::Status { status } => {
                proto::Stop { kind: Some(1), status: Some(status.code()), ..proto::Stop::default() }
            }
        };
        wire.encode_to_vec().into()
    }
}

impl Voucher {
    /// Sign the voucher and wrap it up. `public_key` is that of the signer, and
    /// [`Voucher::relay`] is its peer: anything else is a voucher that nobody accepts.
    pub fn sealed(&self, public_key: &PublicKey, signer: &mut dyn Signer) -> Bytes {
        debug_assert_eq!(self.relay, public_key.to_peer_id(), "a voucher of our own");
        let wire = proto::Voucher {
            relay: Some(self.relay.to_bytes().into()),
            peer: Some(self.peer.to_bytes().into()),
            expiration: Some(self.expiration),
        };
        let payload_type = Bytes::from_static(VOUCHER_TYPE);
        let payload = wire.encode_to_vec().into();
        Envelope::seal(VOUCHER_DOMAIN, public_key, payload_type, payload, signer).encode()
    }

    /// Unwrap a signed voucher and check that the relay that it names signed it. Whether that is the
    /// relay we talk to, whether we are the peer, and what the time says of it, is for the caller to judge.
    pub fn open(envelope: &Bytes) -> Result<Voucher, VoucherError> {
        let envelope = Envelope::decode(envelope)?;
        if envelope.payload_type() != VOUCHER_TYPE {
            return Err(VoucherError::OtherPayload);
        }
        let (public_key, payload) = envelope.verify(VOUCHER_DOMAIN)?;
        let malformed = || VoucherError::Malformed(DecodeError::Malformed);
        let wire = proto::Voucher::decode(payload.clone()).map_err(|_| malformed())?;
        let peer = |bytes: Option<Bytes>| {
            bytes.and_then(|bytes| PeerId::from_bytes(&bytes).ok()).ok_or_else(malformed)
        };
        let (relay, peer) = (peer(wire.relay)?, peer(wire.peer)?);
        if relay != public_key.to_peer_id() {
            return Err(VoucherError::ForeignKey);
        }
        Ok(Voucher { relay, peer, expiration: wire.expiration.ok_or_else(malformed)? })
    }
}

fn read_peer(peer: Option<proto::Peer>) -> Result<PeerId, DecodeError> {
    let id = peer.and_then(|peer| peer.id).ok_or(DecodeError::Empty)?;
    PeerId::from_bytes(&id).map_err(|_| DecodeError::Malformed)
}

/// circuit-v2 §Limit: what is absent or zero is no limit.
fn read_limit(limit: Option<proto::Limit>) -> CircuitLimit {
    let limit = limit.unwrap_or_default();
    let seconds = limit.duration.filter(|seconds| *seconds != 0);
    CircuitLimit {
        duration: seconds.map(|seconds| Duration::from_secs(seconds.into())),
        bytes: limit.data.filter(|bytes| *bytes != 0),
    }
}

/// Whole seconds, rounded down: who is told less than there is loses nothing.
fn written_limit(limit: CircuitLimit) -> Option<proto::Limit> {
    if limit == CircuitLimit::default() {
        return None;
    }
    let seconds = limit.duration.map_or(0, |duration| duration.as_secs().max(1));
    Some(proto::Limit {
        duration: Some(u32::try_from(seconds).unwrap_or(u32::MAX)),
        data: Some(limit.bytes.unwrap_or(0)),
    })
}

/// circuit-v2 §Reservation. By hand, so that its list is bounded.
impl prost::Message for Reservation {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        encoding::uint64::encode(1, &self.expire, buf);
        encoding::bytes::encode_repeated(2, &self.addrs, buf);
        if let Some(voucher) = &self.voucher {
            encoding::bytes::encode(3, voucher, buf);
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), prost::DecodeError> {
        match tag {
            1 => encoding::uint64::merge(wire_type, &mut self.expire, buf, ctx),
            2 => {
                let addr = read_bytes(wire_type, buf, ctx)?;
                if self.addrs.len() < RESERVATION_ADDRS_MAX {
                    self.addrs.push(addr);
                }
                Ok(())
            }
            3 => {
                self.voucher = Some(read_bytes(wire_type, buf, ctx)?);
                Ok(())
            }
            _ => encoding::skip_field(wire_type, tag, buf, ctx),
        }
    }

    fn encoded_len(&self) -> usize {
        let voucher =
            self.voucher.as_ref().map_or(0, |voucher| encoding::bytes::encoded_len(3, voucher));
        encoding::uint64::encoded_len(1, &self.expire)
            + encoding::bytes::encoded_len_repeated(2, &self.addrs)
            + voucher
    }

    fn clear(&mut self) {
        *self = Reservation::default();
    }
}

mod proto {
    use super::Reservation;
    use crate::PeerId;
    use bytes::Bytes;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Hop {
        #[prost(int32, optional, tag = "1")]
        pub(super) kind: Option<i32>,
        #[prost(message, optional, tag = "2")]
        pub(super) peer: Option<Peer>,
        #[prost(message, optional, tag = "3")]
        pub(super) reservation: Option<Reservation>,
        #[prost(message, optional, tag = "4")]
        pub(super) limit: Option<Limit>,
        #[prost(int32, optional, tag = "5")]
        pub(super) status: Option<i32>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Stop {
        #[prost(int32, optional, tag = "1")]
        pub(super) kind: Option<i32>,
        #[prost(message, optional, tag = "2")]
        pub(super) peer: Option<Peer>,
        #[prost(message, optional, tag = "3")]
        pub(super) limit: Option<Limit>,
        #[prost(int32, optional, tag = "4")]
        pub(super) status: Option<i32>,
    }

    /// Its addresses, field 2, are for relays that dial, which is deprecated: neither sent nor read.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Peer {
        #[prost(bytes = "bytes", optional, tag = "1")]
        pub(super) id: Option<Bytes>,
    }

    impl Peer {
        pub(super) fn of(peer: &PeerId) -> Peer {
            Peer { id: Some(peer.to_bytes().into()) }
        }
    }

    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub(super) struct Limit {
        #[prost(uint32, optional, tag = "1")]
        pub(super) duration: Option<u32>,
        #[prost(uint64, optional, tag = "2")]
        pub(super) data: Option<u64>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Voucher {
        #[prost(bytes = "bytes", optional, tag = "1")]
        pub(super) relay: Option<Bytes>,
        #[prost(bytes = "bytes", optional, tag = "2")]
        pub(super) peer: Option<Bytes>,
        #[prost(uint64, optional, tag = "3")]
        pub(super) expiration: Option<u64>,
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

    fn peer(seed: u8) -> PeerId {
        key(seed).0.public().to_peer_id()
    }

    #[test]
    fn messages_are_the_deployed_bytes() {
        assert_eq!(HopMessage::Reserve.encode(), &b"\x08\x00"[..]);
        let connect = HopMessage::Connect { peer: peer(1) }.encode();
        assert_eq!(connect[..6], [0x08, 1, 0x12, 40, 0x0a, 38]);
        let status = HopMessage::Status {
            status: RelayStatus::PermissionDenied,
            reservation: None,
            limit: CircuitLimit::default(),
        };
        assert_eq!(status.encode(), &b"\x08\x02\x28\xca\x01"[..]);
        let stop = StopMessage::Status { status: RelayStatus::Ok };
        assert_eq!(stop.encode(), &b"\x08\x01\x20\x64"[..]);
    }

    #[test]
    fn messages_come_back() {
        let limit = CircuitLimit { duration: Some(Duration::from_secs(120)), bytes: Some(1 << 17) };
        let reservation = Reservation {
            expire: 1_800_000_000,
            addrs: vec![Bytes::from_static(b"addr")],
            voucher: Some(Bytes::from_static(b"voucher")),
        };
        let granted =
            HopMessage::Status { status: RelayStatus::Ok, reservation: Some(reservation), limit };
        for message in [HopMessage::Reserve, HopMessage::Connect { peer: peer(1) }, granted] {
            assert_eq!(HopMessage::decode(&message.encode()), Ok(message));
        }
        let wanted = StopMessage::Connect { peer: peer(2), limit };
        for message in [wanted, StopMessage::Status { status: RelayStatus::Unknown(7) }] {
            assert_eq!(StopMessage::decode(&message.encode()), Ok(message));
        }
    }

    #[test]
    fn what_is_missing_or_unknown_is_an_error() {
        let cases: [(&'static [u8], DecodeError); 5] = [
            (b"", DecodeError::Empty),
            (b"\x08\x01", DecodeError::Empty),
            (b"\x08\x01\x12\x03\x0a\x01x", DecodeError::Malformed),
            (b"\x08\x03", DecodeError::Malformed),
            (b"\xff", DecodeError::Malformed),
        ];
        for (body, error) in cases {
            assert_eq!(HopMessage::decode(&Bytes::from_static(body)), Err(error), "{body:?}");
        }
        let stop = StopMessage::decode(&Bytes::from_static(b"\x08\x00"));
        assert_eq!(stop, Err(DecodeError::Empty));
    }

    #[test]
    fn zero_is_no_limit() {
        let body = Bytes::from_static(b"\x08\x02\x22\x04\x08\x00\x10\x00\x28\x64");
        let status = HopMessage::Status {
            status: RelayStatus::Ok,
            reservation: None,
            limit: CircuitLimit::default(),
        };
        assert_eq!(HopMessage::decode(&body), Ok(status));
    }

    #[test]
    fn addresses_are_bounded() {
        let reservation = Reservation { addrs: vec![Bytes::new(); 1_000], ..Default::default() };
        let read = Reservation::decode(Bytes::from(reservation.encode_to_vec()));
        assert_eq!(read.map(|read| read.addrs.len()), Ok(RESERVATION_ADDRS_MAX));
    }

    #[test]
    fn a_voucher_holds_for_the_relay_that_signed_it() {
        let mut relay = key(1);
        let public_key = relay.0.public();
        let voucher = Voucher { relay: peer(1), peer: peer(2), expiration: 1_800_000_000 };
        let sealed = voucher.sealed(&public_key, &mut relay);
        assert_eq!(Voucher::open(&sealed), Ok(voucher));
        let envelope = Envelope::decode(&sealed).expect("our own envelope");
        assert_eq!(envelope.payload_type(), &b"\x03\x02"[..]);
        let mut broken = sealed.to_vec();
        *broken.last_mut().expect("an envelope has bytes") ^= 1;
        let unsigned = Err(VoucherError::Envelope(EnvelopeError::Signature));
        assert_eq!(Voucher::open(&broken.into()), unsigned);

        let seal = |kind: &'static [u8], payload: Vec<u8>| {
            let kind = Bytes::from_static(kind);
            let payload = payload.into();
            Envelope::seal(VOUCHER_DOMAIN, &public_key, kind, payload, &mut key(1)).encode()
        };
        assert_eq!(Voucher::open(&seal(&[3, 1], vec![])), Err(VoucherError::OtherPayload));
        let malformed = Err(VoucherError::Malformed(DecodeError::Malformed));
        assert_eq!(Voucher::open(&seal(VOUCHER_TYPE, vec![])), malformed);
        let foreign = proto::Voucher {
            relay: Some(peer(3).to_bytes().into()),
            peer: Some(peer(2).to_bytes().into()),
            expiration: Some(1),
        };
        let foreign = Voucher::open(&seal(VOUCHER_TYPE, foreign.encode_to_vec()));
        assert_eq!(foreign, Err(VoucherError::ForeignKey));
    }
}
