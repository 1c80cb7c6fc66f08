//! AutoNAT v1: one request and one response on a stream of `/libp2p/autonat/1.0.0`.
//!
//! Both are a [`Message`] of proto2 (autonat-v1 §RPC messages), where what is absent is not the
//! same as zero: a status of zero is `OK`, and one that is missing says nothing.

use super::super::{DecodeError, read_bytes};
use crate::words::id::PeerId;
use alloc::vec::Vec;
use bytes::{Buf, BufMut, Bytes};
use prost::Message as _;
use prost::encoding::{self, DecodeContext, wire_type::WireType};

/// Addresses of one dial request that are looked at, number; go-libp2p's and rust-libp2p's value.
/// Work per request grows with it. When full, the rest is ignored.
pub const DIAL_ADDRS_MAX: usize = 16;

/// Bytes of the largest message that we send, number; rust-libp2p's read limit. When full, the
/// addresses at the end of a request are left out.
pub const MESSAGE_BYTES_MAX: usize = 1_024;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// Client to server: dial me at these.
    Dial {
        /// Who is to be dialled: nobody but the sender. `None` where it is missing or no peer id.
        peer: Option<PeerId>,
        /// Binary multiaddrs as the client wrote them; at most [`DIAL_ADDRS_MAX`].
        addrs: Vec<Bytes>,
    },
    /// Server to client: how it went. The text that it may carry for humans is not read.
    DialResponse {
        /// What became of it.
        status: Status,
        /// The address that answered, as a binary multiaddr; with [`Status::Ok`] only, and not
        /// from everybody.
        addr: Option<Bytes>,
    },
}

/// What became of a dial request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Status {
    /// `OK`, 0: at least one dial was completed.
    Ok,
    /// `E_DIAL_ERROR`, 100: none was.
    DialError,
    /// `E_DIAL_REFUSED`, 101: nothing that the server can or will dial.
    DialRefused,
    /// `E_BAD_REQUEST`, 200: not a request that makes sense.
    BadRequest,
    /// `E_INTERNAL_ERROR`, 300: the server's own fault.
    InternalError,
    /// Any other code. It says nothing.
    Unknown(i32),
}

impl Status {
    /// The status with this code.
    pub const fn from_code(code: i32) -> Status {
        match code {
            0 => Status::Ok,
            100 => Status::DialError,
            101 => Status::DialRefused,
            200 => Status::BadRequest,
            300 => Status::InternalError,
            code => Status::Unknown(code),
        }
    }

    /// Its code on the wire.
    pub const fn code(self) -> i32 {
        match self {
            Status::Ok => 0,
            Status::DialError => 100,
            Status::DialRefused => 101,
            Status::BadRequest => 200,
            Status::InternalError => 300,
            Status::Unknown(code) => code,
        }
    }
}

impl Message {
    /// A request that deployed servers can read, and how many addresses had to be left out of it,
    /// from the end: at most [`DIAL_ADDRS_MAX`] addresses in [`MESSAGE_BYTES_MAX`] bytes.
    pub fn dial(peer: PeerId, mut addrs: Vec<Bytes>) -> (Message, usize) {
        let given = addrs.len();
        // Beside the addresses: the type (2), key and length of two messages (2 * 3), the id.
        let id: Bytes = peer.to_bytes().into();
        let mut bytes = 8 + encoding::bytes::encoded_len(1, &id);
        let fitting = addrs
            .iter()
            .take(DIAL_ADDRS_MAX)
            .take_while(|addr| {
                bytes += encoding::bytes::encoded_len(2, *addr);
                bytes <= MESSAGE_BYTES_MAX
            })
            .count();
        addrs.truncate(fitting);
        (Message::Dial { peer: Some(peer), addrs }, given - fitting)
    }

    /// Read the body of a frame. A message that is neither of the two is an error.
    pub fn decode(body: &Bytes) -> Result<Message, DecodeError> {
        let message = proto::Message::decode(body.clone())?;
        match (message.kind, message.dial, message.response) {
            (Some(proto::DIAL), Some(dial), _) => {
                let proto::Peer { id, addrs } = dial.peer.unwrap_or_default();
                let peer = id.and_then(|id| PeerId::from_bytes(&id).ok());
                Ok(Message::Dial { peer, addrs })
            }
            (Some(proto::DIAL_RESPONSE), _, Some(response)) => {
                let status = response.status.ok_or(DecodeError::Empty)?;
                Ok(Message::DialResponse { status: Status::from_code(status), addr: response.addr })
            }
            (_, _, _) => Err(DecodeError::Empty),
        }
    }

    /// The body of a frame. Limits are the caller's: see [`Message::dial`].
    pub fn encode(&self) -> Bytes {
        let message = match self {
            Message::Dial { peer, addrs } => {
                let id = peer.map(|peer| peer.to_bytes().into());
                let peer = Some(proto::Peer { id, addrs: addrs.clone() });
                let dial = Some(proto::Dial { peer });
                proto::Message { kind: Some(proto::DIAL), dial, response: None }
            }
            Message::DialResponse { status, addr } => {
                let status = Some(status.code());
                let response = Some(proto::DialResponse { status, addr: addr.clone() });
                proto::Message { kind: Some(proto::DIAL_RESPONSE), dial: None, response }
            }
        };
        message.encode_to_vec().into()
    }
}

/// The protobuf definitions of autonat-v1 §RPC messages. Enumerations are plain `int32`, which is
/// the same on the wire and keeps codes that nobody has defined.
mod proto {
    use super::*;

    pub(super) const DIAL: i32 = 0;
    pub(super) const DIAL_RESPONSE: i32 = 1;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Message {
        #[prost(int32, optional, tag = "1")]
        pub(super) kind: Option<i32>,
        #[prost(message, optional, tag = "2")]
        pub(super) dial: Option<Dial>,
        #[prost(message, optional, tag = "3")]
        pub(super) response: Option<DialResponse>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Dial {
        #[prost(message, optional, tag = "1")]
        pub(super) peer: Option<Peer>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct DialResponse {
        #[prost(int32, optional, tag = "1")]
        pub(super) status: Option<i32>,
        #[prost(bytes = "bytes", optional, tag = "3")]
        pub(super) addr: Option<Bytes>,
    }

    #[derive(Clone, Debug, Default, PartialEq)]
    pub(super) struct Peer {
        pub(super) id: Option<Bytes>,
        pub(super) addrs: Vec<Bytes>,
    }

    impl prost::Message for Peer {
        fn encode_raw(&self, buf: &mut impl BufMut) {
            if let Some(id) = &self.id {
                encoding::bytes::encode(1, id, buf);
            }
            encoding::bytes::encode_repeated(2, &self.addrs, buf);
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
                    self.id = Some(read_bytes(wire_type, buf, ctx)?);
                    Ok(())
                }
                2 => {
                    let addr = read_bytes(wire_type, buf, ctx)?;
                    if self.addrs.len() < DIAL_ADDRS_MAX {
                        self.addrs.push(addr);
                    }
                    Ok(())
                }
                _ => encoding::skip_field(wire_type, tag, buf, ctx),
            }
        }

        fn encoded_len(&self) -> usize {
            let id = self.id.as_ref().map_or(0, |id| encoding::bytes::encoded_len(1, id));
            id + encoding::bytes::encoded_len_repeated(2, &self.addrs)
        }

        fn clear(&mut self) {
            *self = Peer::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use libp2p_identity::Keypair;
    use proptest::prelude::*;

    fn peer(seed: u8) -> PeerId {
        Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes").public().to_peer_id()
    }

    fn read(body: &[u8]) -> Result<Message, DecodeError> {
        Message::decode(&Bytes::copy_from_slice(body))
    }

    #[test]
    fn a_request_is_these_bytes() {
        let addrs = vec![Bytes::from_static(b"\x04\x2c\x00\x00\x01\x06\x0f\xa1")];
        let (message, left_out) = Message::dial(peer(1), addrs);
        let id = peer(1).to_bytes();
        assert_eq!((id.len(), left_out), (38, 0));
        let tail = b"\x12\x08\x04\x2c\x00\x00\x01\x06\x0f\xa1";
        let body = [&b"\x08\x00\x12\x34\x0a\x32\x0a\x26"[..], &id, tail].concat();
        assert_eq!(message.encode(), body[..]);
        assert_eq!(read(&body), Ok(message));
    }

    #[test]
    fn a_response_is_these_bytes() {
        let of = |code, addr: Option<&'static [u8]>| Message::DialResponse {
            status: Status::from_code(code),
            addr: addr.map(Bytes::from_static),
        };
        for (body, message) in [
            (&b"\x08\x01\x1a\x05\x08\x00\x1a\x01\x04"[..], of(0, Some(b"\x04"))),
            (b"\x08\x01\x1a\x02\x08\x00", of(0, None)),
            (b"\x08\x01\x1a\x02\x08\x64", of(100, None)),
            (b"\x08\x01\x1a\x02\x08\x65", of(101, None)),
            (b"\x08\x01\x1a\x03\x08\xc8\x01", of(200, None)),
            (b"\x08\x01\x1a\x03\x08\xac\x02", of(300, None)),
            (b"\x08\x01\x1a\x02\x08\x07", of(7, None)),
        ] {
            assert_eq!(message.encode(), body);
            assert_eq!(read(body), Ok(message));
        }
        // What others write beside it: a text for humans.
        let told = b"\x08\x01\x1a\x0a\x08\x64\x12\x06failed";
        assert_eq!(read(told), Ok(of(100, None)));
    }

    #[test]
    fn what_is_missing_is_no_zero() {
        // No type, a type of nobody, a type without its message, a response without its status.
        for body in [
            &b""[..],
            b"\x12\x00",
            b"\x08\x02\x12\x00",
            b"\x08\x00",
            b"\x08\x00\x1a\x02\x08\x00",
            b"\x08\x01",
            b"\x08\x01\x1a\x00",
            b"\x08\x01\x12\x00",
        ] {
            assert_eq!(read(body), Err(DecodeError::Empty), "{body:?}");
        }
        let nobody = Message::Dial { peer: None, addrs: vec![] };
        assert_eq!(read(b"\x08\x00\x12\x00"), Ok(nobody.clone()));
        assert_eq!(read(b"\x08\x00\x12\x04\x0a\x02\x0a\x00"), Ok(nobody), "no peer id");
        assert_eq!(read(b"\x08\x00\x12\x05\x0a\x02"), Err(DecodeError::Malformed));
    }

    #[test]
    fn statuses_have_the_codes_that_are_deployed() {
        for (code, status) in [
            (0, Status::Ok),
            (100, Status::DialError),
            (101, Status::DialRefused),
            (200, Status::BadRequest),
            (300, Status::InternalError),
            (1, Status::Unknown(1)),
            (-1, Status::Unknown(-1)),
        ] {
            assert_eq!((Status::from_code(code), status.code()), (status, code));
        }
    }

    #[test]
    fn a_request_fits_what_deployed_servers_read() {
        for (count, len, fitting) in [(3, 20, 3), (40, 20, DIAL_ADDRS_MAX), (16, 100, 9)] {
            let (message, left_out) =
                Message::dial(peer(1), vec![Bytes::from(vec![7; len]); count]);
            assert!(message.encode().len() <= MESSAGE_BYTES_MAX);
            let Message::Dial { addrs, .. } = message else { panic!("a request") };
            assert_eq!((addrs.len(), left_out), (fitting, count - fitting));
        }
        let longest =
            (1..).take_while(|len| Message::dial(peer(1), vec![Bytes::from(vec![7; *len])]).1 == 0);
        let longest = longest.last().expect("some fit");
        let (message, _) = Message::dial(peer(1), vec![Bytes::from(vec![7; longest])]);
        assert_eq!(message.encode().len(), MESSAGE_BYTES_MAX, "not a byte is given away");
    }

    #[test]
    fn of_many_addresses_the_first_are_read() {
        let addrs = (0..40).map(|n| Bytes::from(vec![n])).collect();
        let body = Message::Dial { peer: Some(peer(1)), addrs }.encode();
        let Ok(Message::Dial { addrs, .. }) = read(&body) else { panic!("a request") };
        let first: Vec<Bytes> = (0..16).map(|n| Bytes::from(vec![n])).collect();
        assert_eq!(addrs, first);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_written_is_read(
            seed in any::<Option<u8>>(),
            addrs in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..=DIAL_ADDRS_MAX),
            code in any::<i32>(),
            addr in prop::option::of(prop::collection::vec(any::<u8>(), 0..40)),
        ) {
            let addrs = addrs.into_iter().map(Bytes::from).collect();
            let dial = Message::Dial { peer: seed.map(peer), addrs };
            let status = Status::from_code(code);
            let response = Message::DialResponse { status, addr: addr.map(Bytes::from) };
            for message in [dial, response] {
                prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
            }
        }

        #[test]
        fn bytes_of_anybody_are_read_without_a_panic(
            body in prop::collection::vec(any::<u8>(), 0..256),
        ) {
            if let Ok(message) = read(&body) {
                prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
            }
        }
    }
}
