//! AutoNAT v2: the messages of both streams. [`v1`] is its predecessor's.
//!
//! On `/libp2p/autonat/2/dial-request` every frame is a [`Message`]; on
//! `/libp2p/autonat/2/dial-back` a bare [`DialBack`] is answered by a bare [`DialBackResponse`]
//! (autonat-v2 §RPC Messages).

mod status;
pub mod v1;

pub use status::{DialBackStatus, DialStatus, ResponseStatus};

use super::{DecodeError, read_bytes};
use alloc::vec::Vec;
use bytes::{Buf, BufMut, Bytes};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use prost::encoding::{self, DecodeContext, wire_type::WireType};
use prost::{Message as _, Oneof};

/// Addresses of one dial request that are looked at, number; go-libp2p's value. Work per request
/// grows with it. When more come, the rest is ignored: the list is in order of priority.
pub const DIAL_REQUEST_ADDRS_MAX: usize = crate::config::ADDRS_PER_REQUEST_MAX;

/// Bytes of the largest dial request that we send, number; ours, under the 4,104 that
/// rust-libp2p's server reads.
pub const DIAL_REQUEST_BYTES_MAX: usize = 4_096;

/// Bytes of data in one chunk of dial data, number; autonat-v2 §Amplification Attack Prevention.
/// A longer chunk is a [`DecodeError`].
pub const DIAL_DATA_CHUNK_MAX: usize = 4_096;

/// The field of a `DialResponse` that says where a dial that failed came from, number; ours, far
/// above what autonat-v2 §RPC Messages defines. `bytes`: the 4 of an IPv4 address, or the 16 of an
/// IPv6 one that is no IPv4 address in disguise. Anything else is read as if it were not there, and
/// whoever does not know the field skips it.
pub const FAILED_FROM_TAG: u32 = 1_000;

/// What every chunk of dial data is cut from.
static DATA: [u8; DIAL_DATA_CHUNK_MAX] = [0; DIAL_DATA_CHUNK_MAX];

/// One message of a dial-request stream.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(clippy::enum_variant_names, reason = "the names of the specification")]
pub enum Message {
    /// Client to server: dial the first of these that you can, and bring the nonce there.
    DialRequest {
        /// Binary multiaddrs as the client wrote them, highest priority first; at most
        /// [`DIAL_REQUEST_ADDRS_MAX`].
        addrs: Vec<Bytes>,
        /// What a dial-back must carry.
        nonce: u64,
    },
    /// Server to client: how it went. The last message.
    DialResponse {
        /// What became of the request.
        status: ResponseStatus,
        /// The index of the address dialled; means something with [`ResponseStatus::Ok`] only.
        addr_idx: u32,
        /// How the dial went; means something with [`ResponseStatus::Ok`] only.
        dial_status: DialStatus,
        /// An IP that the server dialled from in vain, where it is not the one that the client
        /// is connected to. Ours ([`FAILED_FROM_TAG`]); means something with
        /// [`DialStatus::DialError`] only.
        failed_from: Option<IpAddr>,
    },
    /// Server to client: send that much first.
    DialDataRequest {
        /// The index of the address that will be dialled.
        addr_idx: u32,
        /// How many bytes of data are wanted.
        num_bytes: u64,
    },
    /// Client to server: a chunk of the data wanted.
    DialDataResponse {
        /// The chunk; only its length counts. At most [`DIAL_DATA_CHUNK_MAX`] bytes.
        data: Bytes,
    },
}

/// Server to client, on the connection dialled: here is your nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DialBack {
    /// The nonce of the request.
    pub nonce: u64,
}

/// Client to server: the nonce arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DialBackResponse {
    /// What the client says to it.
    pub status: DialBackStatus,
}

impl Message {
    /// A dial request that deployed servers can read, and how many addresses had to be left out
    /// of it, from the end: it holds at most [`DIAL_REQUEST_ADDRS_MAX`] addresses and takes at
    /// most [`DIAL_REQUEST_BYTES_MAX`] bytes.
    pub fn dial_request(mut addrs: Vec<Bytes>, nonce: u64) -> (Message, usize) {
        let given = addrs.len();
        // Beside the addresses: key and length of the request (1 + 2) and the nonce (1 + 8).
        let mut bytes = 12;
        let fitting = addrs
            .iter()
            .take(DIAL_REQUEST_ADDRS_MAX)
            .take_while(|addr| {
                bytes += encoding::bytes::encoded_len(1, *addr);
                bytes <= DIAL_REQUEST_BYTES_MAX
            })
            .count();
        addrs.truncate(fitting);
        (Message::DialRequest { addrs, nonce }, given - fitting)
    }

    /// Read the body of a frame. A message that is none of the four is an error.
    pub fn decode(body: &Bytes) -> Result<Message, DecodeError> {
        let message = match proto::Message::decode(body.clone())?.msg.ok_or(DecodeError::Empty)? {
            proto::Msg::DialRequest(proto::DialRequest { addrs, nonce }) => {
                Message::DialRequest { addrs, nonce }
            }
            proto::Msg::DialResponse(response) => Message::DialResponse {
                status: ResponseStatus::from_code(response.status),
                addr_idx: response.addr_idx,
                dial_status: DialStatus::from_code(response.dial_status),
                failed_from: read_ip(&response.failed_from),
            },
            proto::Msg::DialDataRequest(proto::DialDataRequest { addr_idx, num_bytes }) => {
                Message::DialDataRequest { addr_idx, num_bytes }
            }
            proto::Msg::DialDataResponse(proto::DialDataResponse { data }) => {
                // autonat-v2 §Amplification Attack Prevention: data is limited to 4,096 bytes.
                if data.len() > DIAL_DATA_CHUNK_MAX {
                    return Err(DecodeError::ChunkTooLong { len: data.len() });
                }
                Message::DialDataResponse { data }
            }
        };
        Ok(message)
    }

    /// The body of a frame. Limits are the caller's: see [`Message::dial_request`] and
    /// [`dial_data_chunk`].
    pub fn encode(&self) -> Bytes {
        let msg = match self {
            Message::DialRequest { addrs, nonce } => {
                proto::Msg::DialRequest(proto::DialRequest { addrs: addrs.clone(), nonce: *nonce })
            }
            Message::DialResponse { status, addr_idx, dial_status, failed_from } => {
                proto::Msg::DialResponse(proto::DialResponse {
                    status: status.code(),
                    addr_idx: *addr_idx,
                    dial_status: dial_status.code(),
                    failed_from: failed_from.map(written_ip).unwrap_or_default(),
                })
            }
            Message::DialDataRequest { addr_idx, num_bytes } => {
                proto::Msg::DialDataRequest(proto::DialDataRequest {
                    addr_idx: *addr_idx,
                    num_bytes: *num_bytes,
                })
            }
            Message::DialDataResponse { data } => {
                proto::Msg::DialDataResponse(proto::DialDataResponse { data: data.clone() })
            }
        };
        proto::Message { msg: Some(msg) }.encode_to_vec().into()
    }
}

fn read_ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(four).into());
    }
    let ip = Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?);
    ip.to_ipv4_mapped().is_none().then_some(ip.into())
}

fn written_ip(ip: IpAddr) -> Bytes {
    match ip.to_canonical() {
        IpAddr::V4(ip) => Bytes::copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => Bytes::copy_from_slice(&ip.octets()),
    }
}

/// An encoded [`Message::DialDataResponse`] with `len` bytes of data, at most
/// [`DIAL_DATA_CHUNK_MAX`]. Encode one and send it as often as needed: the last chunk may be
/// larger than what is missing.
pub fn dial_data_chunk(len: usize) -> Bytes {
    let data = Bytes::from_static(&DATA).slice(..len.min(DIAL_DATA_CHUNK_MAX));
    Message::DialDataResponse { data }.encode()
}

impl DialBack {
    /// Read the body of a frame. proto3: an absent nonce is zero.
    pub fn decode(body: &Bytes) -> Result<DialBack, DecodeError> {
        Ok(DialBack { nonce: proto::DialBack::decode(body.clone())?.nonce })
    }

    /// The body of a frame: 9 bytes, or none for the nonce zero. rust-libp2p reads at most 10.
    pub fn encode(self) -> Bytes {
        proto::DialBack { nonce: self.nonce }.encode_to_vec().into()
    }
}

impl DialBackResponse {
    /// The only answer that the protocol defines.
    pub const OK: DialBackResponse = DialBackResponse { status: DialBackStatus::Ok };

    /// Read the body of a frame; no bytes at all are an `OK`, and so is an explicit zero.
    pub fn decode(body: &Bytes) -> Result<DialBackResponse, DecodeError> {
        let code = proto::DialBackResponse::decode(body.clone())?.status;
        Ok(DialBackResponse { status: DialBackStatus::from_code(code) })
    }

    /// The body of a frame; empty for an `OK`.
    pub fn encode(self) -> Bytes {
        proto::DialBackResponse { status: self.status.code() }.encode_to_vec().into()
    }
}

/// The protobuf definitions of autonat-v2 §RPC Messages. Statuses are plain `int32`, which is the
/// same on the wire and keeps codes that nobody has defined.
mod proto {
    use super::*;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Message {
        #[prost(oneof = "Msg", tags = "1, 2, 3, 4")]
        pub(super) msg: Option<Msg>,
    }

    #[derive(Clone, PartialEq, Oneof)]
    #[allow(clippy::enum_variant_names, reason = "the names of the specification")]
    pub(super) enum Msg {
        #[prost(message, tag = "1")]
        DialRequest(DialRequest),
        #[prost(message, tag = "2")]
        DialResponse(DialResponse),
        #[prost(message, tag = "3")]
        DialDataRequest(DialDataRequest),
        #[prost(message, tag = "4")]
        DialDataResponse(DialDataResponse),
    }

    #[derive(Clone, Debug, Default, PartialEq)]
    pub(super) struct DialRequest {
        pub(super) addrs: Vec<Bytes>,
        pub(super) nonce: u64,
    }

    #[derive(Clone, Debug, Default, PartialEq)]
    pub(super) struct DialResponse {
        pub(super) status: i32,
        pub(super) addr_idx: u32,
        pub(super) dial_status: i32,
        /// Ours, not the specification's.
        pub(super) failed_from: Bytes,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct DialDataRequest {
        #[prost(uint32, tag = "1")]
        pub(super) addr_idx: u32,
        #[prost(uint64, tag = "2")]
        pub(super) num_bytes: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct DialDataResponse {
        #[prost(bytes = "bytes", tag = "1")]
        pub(super) data: Bytes,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct DialBack {
        #[prost(fixed64, tag = "1")]
        pub(super) nonce: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct DialBackResponse {
        #[prost(int32, tag = "1")]
        pub(super) status: i32,
    }

    impl prost::Message for DialRequest {
        fn encode_raw(&self, buf: &mut impl BufMut) {
            encoding::bytes::encode_repeated(1, &self.addrs, buf);
            if self.nonce != 0 {
                encoding::fixed64::encode(2, &self.nonce, buf);
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
                1 => {
                    let addr = read_bytes(wire_type, buf, ctx)?;
                    if self.addrs.len() < DIAL_REQUEST_ADDRS_MAX {
                        self.addrs.push(addr);
                    }
                    Ok(())
                }
                2 => encoding::fixed64::merge(wire_type, &mut self.nonce, buf, ctx),
                _ => encoding::skip_field(wire_type, tag, buf, ctx),
            }
        }

        fn encoded_len(&self) -> usize {
            let nonce = match self.nonce {
                0 => 0,
                nonce => encoding::fixed64::encoded_len(2, &nonce),
            };
            encoding::bytes::encoded_len_repeated(1, &self.addrs) + nonce
        }

        fn clear(&mut self) {
            *self = DialRequest::default();
        }
    }

    // By hand, because a derived one refuses the message where somebody uses our number otherwise.
    impl prost::Message for DialResponse {
        fn encode_raw(&self, buf: &mut impl BufMut) {
            if self.status != 0 {
                encoding::int32::encode(1, &self.status, buf);
            }
            if self.addr_idx != 0 {
                encoding::uint32::encode(2, &self.addr_idx, buf);
            }
            if self.dial_status != 0 {
                encoding::int32::encode(3, &self.dial_status, buf);
            }
            if !self.failed_from.is_empty() {
                encoding::bytes::encode(FAILED_FROM_TAG, &self.failed_from, buf);
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
                1 => encoding::int32::merge(wire_type, &mut self.status, buf, ctx),
                2 => encoding::uint32::merge(wire_type, &mut self.addr_idx, buf, ctx),
                3 => encoding::int32::merge(wire_type, &mut self.dial_status, buf, ctx),
                FAILED_FROM_TAG if wire_type == WireType::LengthDelimited => {
                    self.failed_from = read_bytes(wire_type, buf, ctx)?;
                    Ok(())
                }
                _ => encoding::skip_field(wire_type, tag, buf, ctx),
            }
        }

        fn encoded_len(&self) -> usize {
            let status = match self.status {
                0 => 0,
                code => encoding::int32::encoded_len(1, &code),
            };
            let addr_idx = match self.addr_idx {
                0 => 0,
                index => encoding::uint32::encoded_len(2, &index),
            };
            let dial_status = match self.dial_status {
                0 => 0,
                code => encoding::int32::encoded_len(3, &code),
            };
            let failed_from = match self.failed_from.len() {
                0 => 0,
                _ => encoding::bytes::encoded_len(FAILED_FROM_TAG, &self.failed_from),
            };
            status + addr_idx + dial_status + failed_from
        }

        fn clear(&mut self) {
            *self = DialResponse::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn read(body: &'static [u8]) -> Result<Message, DecodeError> {
        Message::decode(&Bytes::from_static(body))
    }

    /// Both directions: `body` means `message`, and `message` is written as `body`.
    fn same(body: &'static [u8], message: &Message) {
        assert_eq!(read(body).as_ref(), Ok(message));
        assert_eq!(message.encode(), body);
    }

    #[test]
    fn dial_requests() {
        let addrs =
            vec![Bytes::from_static(&[4, 127, 0, 0, 1, 6, 0, 80]), Bytes::from_static(b"?")];
        same(
            b"\x0a\x16\x0a\x08\x04\x7f\x00\x00\x01\x06\x00\x50\x0a\x01?\x11\x08\x07\x06\x05\x04\x03\x02\x01",
            &Message::DialRequest { addrs, nonce: 0x0102_0304_0506_0708 },
        );
        same(b"\x0a\x00", &Message::DialRequest { addrs: vec![], nonce: 0 });
        same(
            b"\x0a\x09\x11\xff\xff\xff\xff\xff\xff\xff\xff",
            &Message::DialRequest { addrs: vec![], nonce: u64::MAX },
        );
        // An explicit zero, and fields that a later version may add.
        let zero = Message::DialRequest { addrs: vec![], nonce: 0 };
        assert_eq!(read(b"\x0a\x09\x11\0\0\0\0\0\0\0\0").as_ref(), Ok(&zero));
        assert_eq!(read(b"\x0a\x05\x1a\x01x\x20\x07\x2a\x00").as_ref(), Ok(&zero));
    }

    #[test]
    fn dial_responses() {
        same(
            b"\x12\x08\x08\xc8\x01\x10\x03\x18\xc8\x01",
            &Message::DialResponse {
                status: ResponseStatus::Ok,
                addr_idx: 3,
                dial_status: DialStatus::Ok,
                failed_from: None,
            },
        );
        let refused = Message::DialResponse {
            status: ResponseStatus::Refused,
            addr_idx: 0,
            dial_status: DialStatus::Unused,
            failed_from: None,
        };
        same(b"\x12\x02\x08\x65", &refused);
        // Nothing said is no success.
        let empty = Message::DialResponse {
            status: ResponseStatus::InternalError,
            addr_idx: 0,
            dial_status: DialStatus::Unused,
            failed_from: None,
        };
        same(b"\x12\x00", &empty);
        let unheard = Message::DialResponse {
            status: ResponseStatus::Unknown(150),
            addr_idx: 0,
            dial_status: DialStatus::Unknown(-1),
            failed_from: None,
        };
        same(b"\x12\x0e\x08\x96\x01\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", &unheard);
    }

    #[test]
    fn where_a_failed_dial_came_from() {
        let failed = |failed_from| Message::DialResponse {
            status: ResponseStatus::Ok,
            addr_idx: 0,
            dial_status: DialStatus::DialError,
            failed_from,
        };
        let ip = |text: &str| text.parse().ok();
        same(b"\x12\x05\x08\xc8\x01\x18\x64", &failed(None));
        same(b"\x12\x0c\x08\xc8\x01\x18\x64\xc2\x3e\x04\x2c\x09\x09\x09", &failed(ip("44.9.9.9")));
        same(
            b"\x12\x18\x08\xc8\x01\x18\x64\xc2\x3e\x10\x26\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\x07",
            &failed(ip("2600:1::7")),
        );
        let mapped = failed(ip("::ffff:44.9.9.9"));
        assert_eq!(Message::decode(&mapped.encode()), Ok(failed(ip("44.9.9.9"))));
        // Five bytes, none at all, and an IPv4 address in disguise say nothing; of two the last counts.
        for body in [
            &b"\x12\x0d\x08\xc8\x01\x18\x64\xc2\x3e\x05\x2c\x09\x09\x09\x09"[..],
            b"\x12\x08\x08\xc8\x01\x18\x64\xc2\x3e\0",
            b"\x12\x18\x08\xc8\x01\x18\x64\xc2\x3e\x10\0\0\0\0\0\0\0\0\0\0\xff\xff\x2c\x09\x09\x09",
            b"\x12\x0f\x08\xc8\x01\x18\x64\xc2\x3e\x04\x2c\x09\x09\x09\xc2\x3e\0",
        ] {
            assert_eq!(read(body), Ok(failed(None)), "{body:?}");
        }
        // Whoever uses the number otherwise is read all the same.
        assert_eq!(read(b"\x12\x08\x08\xc8\x01\x18\x64\xc0\x3e\x07"), Ok(failed(None)));
    }

    #[test]
    fn dial_data() {
        let wanted = Message::DialDataRequest { addr_idx: 1, num_bytes: 100_000 };
        same(b"\x1a\x06\x08\x01\x10\xa0\x8d\x06", &wanted);
        same(
            b"\x22\x04\x0a\x02\0\0",
            &Message::DialDataResponse { data: Bytes::from_static(&[0; 2]) },
        );
        for len in [0, 1, 100, 4_096] {
            let Ok(Message::DialDataResponse { data }) = Message::decode(&dial_data_chunk(len))
            else {
                panic!("a chunk of {len} bytes");
            };
            assert_eq!(data.len(), len);
        }
        assert_eq!(dial_data_chunk(5_000), dial_data_chunk(4_096));
        assert_eq!(dial_data_chunk(4_096).len(), 4_102, "rust-libp2p reads 4,104");
        let long = Message::DialDataResponse { data: Bytes::from(vec![0; 4_097]) };
        let refused = Message::decode(&long.encode());
        assert_eq!(refused, Err(DecodeError::ChunkTooLong { len: 4_097 }));
    }

    #[test]
    fn data_is_not_copied() {
        let body = dial_data_chunk(1_000);
        let Ok(Message::DialDataResponse { data }) = Message::decode(&body) else {
            panic!("a chunk");
        };
        assert_eq!(data.as_ptr(), body[body.len() - 1_000..].as_ptr());
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        assert_eq!(read(b""), Err(DecodeError::Empty));
        assert_eq!(read(b"\x28\x01"), Err(DecodeError::Empty));
        // A nonce as a varint, a request that ends early, a field number of zero.
        assert_eq!(read(b"\x0a\x02\x10\x01"), Err(DecodeError::Malformed));
        assert_eq!(read(b"\x0a\x05\x0a"), Err(DecodeError::Malformed));
        assert_eq!(read(b"\x00\x00"), Err(DecodeError::Malformed));
    }

    #[test]
    fn the_last_of_several_contents_counts() {
        let last = read(b"\x12\x03\x08\xc8\x01\x1a\x02\x10\x07");
        assert_eq!(last, Ok(Message::DialDataRequest { addr_idx: 0, num_bytes: 7 }));
    }

    #[test]
    fn too_many_addresses_are_ignored_from_the_end() {
        let addrs: Vec<Bytes> = (0..=200u8).map(|n| Bytes::from(vec![n])).collect();
        let body = Message::DialRequest { addrs: addrs.clone(), nonce: 9 }.encode();
        let kept = Message::DialRequest { addrs: addrs[..50].to_vec(), nonce: 9 };
        assert_eq!(Message::decode(&body), Ok(kept.clone()));
        assert_eq!(Message::dial_request(addrs, 9), (kept, 151));
    }

    #[test]
    fn a_request_fits_what_servers_read() {
        for (len, fit) in [(79, 50), (80, 49), (100, 40), (4_081, 1), (4_082, 0), (9_000, 0)] {
            let (message, left_out) = Message::dial_request(vec![Bytes::from(vec![0; len]); 60], 1);
            assert_eq!(left_out, 60 - fit, "addresses of {len} bytes");
            assert!(message.encode().len() <= DIAL_REQUEST_BYTES_MAX);
        }
    }

    #[test]
    fn dial_backs() {
        for (nonce, body) in [
            (0, &b""[..]),
            (1, b"\x09\x01\0\0\0\0\0\0\0"),
            (u64::MAX, b"\x09\xff\xff\xff\xff\xff\xff\xff\xff"),
        ] {
            assert_eq!(DialBack { nonce }.encode(), body);
            assert_eq!(DialBack::decode(&Bytes::from_static(body)), Ok(DialBack { nonce }));
        }
        let short = DialBack::decode(&Bytes::from_static(b"\x09\x01"));
        assert_eq!(short, Err(DecodeError::Malformed));
    }

    #[test]
    fn an_empty_dial_back_response_is_ok() {
        let read = |body: &'static [u8]| {
            DialBackResponse::decode(&Bytes::from_static(body)).map(|response| response.status)
        };
        assert_eq!(DialBackResponse::OK.encode(), b""[..]);
        assert_eq!(read(b""), Ok(DialBackStatus::Ok));
        assert_eq!(read(b"\x08\x00"), Ok(DialBackStatus::Ok));
        assert_eq!(read(b"\x08\x01"), Ok(DialBackStatus::Unknown(1)));
        assert_eq!(read(b"\x08"), Err(DecodeError::Malformed));
    }
}
