//! NAT-PMP (RFC 6886): datagrams between a host and its gateway. Byte 0 of a reply tells it from
//! PCP, which shares the port: see [`version`](super::version).
//!
//! ```
//! use portolan_core::wire::nat_pmp::{Request, Response};
//!
//! assert_eq!(Request::ExternalAddress.encode(), [0, 0][..]);
//! let reply = Response::decode(&[0, 128, 0, 0, 0, 0, 14, 16, 192, 0, 2, 1])?;
//! assert_eq!(reply, Response::ExternalAddress { epoch: 3_600, ip: [192, 0, 2, 1].into() });
//! # Ok::<(), portolan_core::wire::nat_pmp::ResponseError>(())
//! ```

use super::MapTransport;
use super::fields::Fields;
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::Ipv4Addr;

/// The port that a gateway listens on, RFC 6886 §3.1. PCP has the same.
pub const PORT: u16 = 5351;
/// The port at which clients hear of changes, RFC 6886 §3.2.1.
pub const CLIENT_PORT: u16 = 5350;
/// The group at which clients hear of changes, RFC 6886 §3.2.1.
pub const CLIENT_GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
/// The only version there is, RFC 6886 §3.5.
pub const VERSION: u8 = 0;
/// The longest datagram that is looked at, in bytes: what PCP allows on the same port (RFC 6887
/// §7). A gateway echoes what it does not understand (§3.5).
pub const DATAGRAM_MAX: usize = super::pcp::DATAGRAM_MAX;

/// Set in the opcode of a response, RFC 6886 §3.
const RESPONSE: u8 = 0x80;
/// Ask for the external address, RFC 6886 §3.2.
const OP_EXTERNAL_ADDRESS: u8 = 0;
/// Map a UDP port, RFC 6886 §3.3.
const OP_MAP_UDP: u8 = 1;
/// Map a TCP port, RFC 6886 §3.3.
const OP_MAP_TCP: u8 = 2;

/// What a client asks of its gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Request {
    /// The external address, please.
    ExternalAddress,
    /// Make, renew or delete a mapping.
    Map {
        /// UDP or TCP.
        transport: MapTransport,
        /// Our port. With 0, and a lifetime of 0, all of this client's mappings are deleted.
        internal_port: u16,
        /// The port that we would like outside; 0 is any, and belongs to a deletion.
        external_port: u16,
        /// How long, in seconds; 0 deletes.
        lifetime_s: u32,
    },
}

/// A datagram that is no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Not the length that its opcode has.
    #[error("a request of {len} bytes")]
    Length {
        /// The length of the datagram in bytes.
        len: usize,
    },
    /// Another version: answered with [`ResultCode::UnsupportedVersion`].
    #[error("a request of version {version}")]
    Version {
        /// Byte 0.
        version: u8,
    },
    /// A response, which a gateway ignores.
    #[error("a response where a request belongs")]
    NotRequest,
    /// An unknown opcode: answered with [`ResultCode::UnsupportedOpcode`].
    #[error("a request with opcode {opcode}")]
    Opcode {
        /// Byte 1.
        opcode: u8,
    },
}

/// What a gateway says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Response {
    /// The external address, asked for or told to all after a change.
    ExternalAddress {
        /// Seconds since the gateway lost its state.
        epoch: u32,
        /// The address, which may be private or unspecified: gateways say what they have.
        ip: Ipv4Addr,
    },
    /// A mapping was made, renewed or deleted.
    Map {
        /// UDP or TCP.
        transport: MapTransport,
        /// Seconds since the gateway lost its state.
        epoch: u32,
        /// Our port.
        internal_port: u16,
        /// The port outside; after a deletion 0.
        external_port: u16,
        /// How long the mapping holds, in seconds; after a deletion 0.
        lifetime_s: u32,
    },
    /// The gateway did not do it.
    Failed {
        /// The opcode of the request, without the mark of a response. A gateway of another
        /// version says 0 whatever was asked.
        opcode: u8,
        /// Why.
        code: ResultCode,
        /// Seconds since the gateway lost its state, if told.
        epoch: Option<u32>,
        /// Our port, if this answers a mapping and tells it.
        internal_port: Option<u16>,
    },
    /// Too short to say more than that this is no success. FRITZ!Boxes reject NAT-PMP so.
    Bare {
        /// Byte 1 without the mark of a response.
        opcode: u8,
    },
}

/// A datagram that is no response. Nothing may be concluded from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResponseError {
    /// Shorter than its opcode allows, or longer than [`DATAGRAM_MAX`].
    #[error("a response of {len} bytes")]
    Length {
        /// The length of the datagram in bytes.
        len: usize,
    },
    /// Another version: perhaps PCP.
    #[error("a response of version {version}")]
    Version {
        /// Byte 0.
        version: u8,
    },
    /// A request.
    #[error("a request where a response belongs")]
    NotResponse,
    /// A success to something that we do not ask for.
    #[error("a response to opcode {opcode}")]
    Opcode {
        /// The opcode without the mark of a response.
        opcode: u8,
    },
}

/// Why a gateway refuses, RFC 6886 §3.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ResultCode {
    /// 1: it speaks another version.
    UnsupportedVersion,
    /// 2: it may not, or a static mapping is in the way.
    NotAuthorized,
    /// 3: it has no address outside, or (miniupnpd) a private one.
    NetworkFailure,
    /// 4: no mapping is left.
    OutOfResources,
    /// 5: it does not know what was asked.
    UnsupportedOpcode,
    /// Any other; never one of those above, and never 0.
    Other(u16),
}

impl ResultCode {
    /// The code by its number; `None` is success.
    pub fn from_code(code: u16) -> Option<ResultCode> {
        Some(match code {
            0 => return None,
            1 => ResultCode::UnsupportedVersion,
            2 => ResultCode::NotAuthorized,
            3 => ResultCode::NetworkFailure,
            4 => ResultCode::OutOfResources,
            5 => ResultCode::UnsupportedOpcode,
            code => ResultCode::Other(code),
        })
    }

    /// Its number.
    pub fn code(self) -> u16 {
        match self {
            ResultCode::UnsupportedVersion => 1,
            ResultCode::NotAuthorized => 2,
            ResultCode::NetworkFailure => 3,
            ResultCode::OutOfResources => 4,
            ResultCode::UnsupportedOpcode => 5,
            ResultCode::Other(code) => code,
        }
    }
}

impl Request {
    /// The request as a datagram: 2 or 12 bytes.
    pub fn encode(&self) -> Bytes {
        match *self {
            Request::ExternalAddress => Bytes::from_static(&[VERSION, OP_EXTERNAL_ADDRESS]),
            Request::Map { transport, internal_port, external_port, lifetime_s } => {
                let mut out = Vec::with_capacity(12);
                // RFC 6886 §3.3: the reserved bytes MUST be 0.
                out.extend_from_slice(&[VERSION, map_op(transport), 0, 0]);
                out.extend_from_slice(&internal_port.to_be_bytes());
                out.extend_from_slice(&external_port.to_be_bytes());
                out.extend_from_slice(&lifetime_s.to_be_bytes());
                out.into()
            }
        }
    }

    /// Read a request, as a gateway does.
    pub fn decode(datagram: &[u8]) -> Result<Request, RequestError> {
        let length = RequestError::Length { len: datagram.len() };
        if datagram.len() > DATAGRAM_MAX {
            return Err(length);
        }
        let [version, opcode, body @ ..] = datagram else { return Err(length) };
        if *version != VERSION {
            return Err(RequestError::Version { version: *version });
        }
        // RFC 6886 §3.5: what has the top bit set MUST be ignored.
        if opcode & RESPONSE != 0 {
            return Err(RequestError::NotRequest);
        }
        let transport = match *opcode {
            OP_EXTERNAL_ADDRESS if body.is_empty() => return Ok(Request::ExternalAddress),
            OP_EXTERNAL_ADDRESS => return Err(length),
            OP_MAP_UDP => MapTransport::Udp,
            OP_MAP_TCP => MapTransport::Tcp,
            opcode => return Err(RequestError::Opcode { opcode }),
        };
        let mut fields = Fields::of(body);
        let read = (fields.u16(), fields.u16(), fields.u16(), fields.u32());
        match read {
            (Some(_), Some(internal_port), Some(external_port), Some(lifetime_s))
                if fields.is_empty() =>
            {
                Ok(Request::Map { transport, internal_port, external_port, lifetime_s })
            }
            _ => Err(length),
        }
    }
}

impl Response {
    /// Read a response, or what a gateway sends in its place. Bytes after what is known are
    /// ignored, and a refusal may be shorter than a success.
    pub fn decode(datagram: &[u8]) -> Result<Response, ResponseError> {
        let length = ResponseError::Length { len: datagram.len() };
        if datagram.len() > DATAGRAM_MAX {
            return Err(length);
        }
        let [version, opcode, body @ ..] = datagram else { return Err(length) };
        if *version != VERSION {
            return Err(ResponseError::Version { version: *version });
        }
        let marked = opcode & RESPONSE != 0;
        let opcode = opcode & !RESPONSE;
        let mut fields = Fields::of(body);
        let Some(result) = fields.u16() else { return Ok(Response::Bare { opcode }) };
        let code = ResultCode::from_code(result);
        // RFC 6886 §3.5: a gateway of another version answers with opcode 0, which is unmarked.
        let other_version = opcode == 0 && code == Some(ResultCode::UnsupportedVersion);
        if !marked && !other_version {
            return Err(ResponseError::NotResponse);
        }
        match code {
            None => success(opcode, fields, length),
            Some(code) => Ok(failure(opcode, code, fields)),
        }
    }

    /// The response as a datagram, as a gateway sends it: 2 to 16 bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(16);
        match *self {
            Response::ExternalAddress { epoch, ip } => {
                out.extend_from_slice(&[VERSION, RESPONSE | OP_EXTERNAL_ADDRESS, 0, 0]);
                out.extend_from_slice(&epoch.to_be_bytes());
                out.extend_from_slice(&ip.octets());
            }
            Response::Map { transport, epoch, internal_port, external_port, lifetime_s } => {
                out.extend_from_slice(&[VERSION, RESPONSE | map_op(transport), 0, 0]);
                out.extend_from_slice(&epoch.to_be_bytes());
                out.extend_from_slice(&internal_port.to_be_bytes());
                out.extend_from_slice(&external_port.to_be_bytes());
                out.extend_from_slice(&lifetime_s.to_be_bytes());
            }
            Response::Failed { opcode, code, epoch, internal_port } => {
                let other_version = code == ResultCode::UnsupportedVersion && opcode == 0;
                let opcode = opcode & !RESPONSE;
                let mark = if other_version { 0 } else { RESPONSE };
                out.extend_from_slice(&[VERSION, mark | opcode]);
                out.extend_from_slice(&code.code().to_be_bytes());
                let Some(epoch) = epoch else { return out.into() };
                out.extend_from_slice(&epoch.to_be_bytes());
                // RFC 6886 §3.5: what was not mapped is told as 0, and the internal port MUST
                // be the one of the request.
                match (opcode, internal_port) {
                    (OP_EXTERNAL_ADDRESS, _) if !other_version => out.extend_from_slice(&[0; 4]),
                    (OP_MAP_UDP | OP_MAP_TCP, Some(internal_port)) => {
                        out.extend_from_slice(&internal_port.to_be_bytes());
                        out.extend_from_slice(&[0; 6]);
                    }
                    _ => {}
                }
            }
            Response::Bare { opcode } => out.extend_from_slice(&[VERSION, RESPONSE | opcode]),
        }
        out.into()
    }
}

/// What a gateway answers to a request whose opcode it does not know: the request itself, marked
/// (RFC 6886 §3.5). `None` where a gateway keeps silent.
pub fn unsupported_opcode(request: &[u8]) -> Option<Bytes> {
    let [VERSION, opcode, ..] = request else { return None };
    if opcode & RESPONSE != 0 || request.len() > DATAGRAM_MAX {
        return None;
    }
    let mut out = request.to_vec();
    out.resize(out.len().max(4), 0);
    out[1] |= RESPONSE;
    out[2..4].copy_from_slice(&ResultCode::UnsupportedOpcode.code().to_be_bytes());
    Some(out.into())
}

/// The opcode of a request to map by this transport, or without one for the external address.
pub(crate) fn opcode(maps: Option<MapTransport>) -> u8 {
    maps.map_or(OP_EXTERNAL_ADDRESS, map_op)
}

fn map_op(transport: MapTransport) -> u8 {
    match transport {
        MapTransport::Udp => OP_MAP_UDP,
        MapTransport::Tcp => OP_MAP_TCP,
    }
}

/// The rest of a response that says yes.
fn success(
    opcode: u8,
    mut fields: Fields<'_>,
    length: ResponseError,
) -> Result<Response, ResponseError> {
    let transport = match opcode {
        OP_EXTERNAL_ADDRESS => {
            let (Some(epoch), Some(ip)) = (fields.u32(), fields.array()) else {
                return Err(length);
            };
            return Ok(Response::ExternalAddress { epoch, ip: Ipv4Addr::from_octets(ip) });
        }
        OP_MAP_UDP => MapTransport::Udp,
        OP_MAP_TCP => MapTransport::Tcp,
        opcode => return Err(ResponseError::Opcode { opcode }),
    };
    match (fields.u32(), fields.u16(), fields.u16(), fields.u32()) {
        (Some(epoch), Some(internal_port), Some(external_port), Some(lifetime_s)) => {
            Ok(Response::Map { transport, epoch, internal_port, external_port, lifetime_s })
        }
        _ => Err(length),
    }
}

/// The rest of a response that says no, as far as it goes.
fn failure(opcode: u8, code: ResultCode, mut fields: Fields<'_>) -> Response {
    // RFC 6886 §3.5: to an unknown opcode the request comes back, and it has no epoch.
    if code == ResultCode::UnsupportedOpcode {
        return Response::Failed { opcode, code, epoch: None, internal_port: None };
    }
    let epoch = fields.u32();
    let maps = matches!(opcode, OP_MAP_UDP | OP_MAP_TCP);
    let internal_port = epoch.filter(|_| maps).and_then(|_| fields.u16());
    Response::Failed { opcode, code, epoch, internal_port }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: Request = Request::Map {
        transport: MapTransport::Udp,
        internal_port: 4001,
        external_port: 4002,
        lifetime_s: 7_200,
    };

    #[test]
    fn requests_have_the_bytes_of_the_rfc() {
        let bytes = [0, 1, 0, 0, 0x0f, 0xa1, 0x0f, 0xa2, 0, 0, 0x1c, 0x20];
        assert_eq!(MAP.encode(), bytes[..]);
        assert_eq!(Request::decode(&bytes), Ok(MAP));
        let tcp = Request::Map {
            transport: MapTransport::Tcp,
            internal_port: 1,
            external_port: 0,
            lifetime_s: 0,
        };
        assert_eq!(tcp.encode(), [0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0][..]);
        assert_eq!(Request::decode(&tcp.encode()), Ok(tcp));
        assert_eq!(Request::decode(&[0, 0]), Ok(Request::ExternalAddress));
    }

    #[test]
    fn a_gateway_tells_bad_requests_apart() {
        assert_eq!(Request::decode(&[2, 1, 0]), Err(RequestError::Version { version: 2 }));
        assert_eq!(Request::decode(&[0, 128]), Err(RequestError::NotRequest));
        assert_eq!(Request::decode(&[0, 3]), Err(RequestError::Opcode { opcode: 3 }));
        for len in [0, 1, 3, 11, 13, 2_000] {
            let mut bytes = MAP.encode().to_vec();
            bytes.resize(len, 0);
            assert_eq!(Request::decode(&bytes), Err(RequestError::Length { len }));
        }
    }

    #[test]
    fn responses_have_the_bytes_of_the_rfc() {
        let address = Response::ExternalAddress { epoch: 1, ip: [203, 0, 113, 9].into() };
        assert_eq!(address.encode(), [0, 128, 0, 0, 0, 0, 0, 1, 203, 0, 113, 9][..]);
        let map = Response::Map {
            transport: MapTransport::Tcp,
            epoch: 2,
            internal_port: 3,
            external_port: 4,
            lifetime_s: 5,
        };
        let bytes = [0, 130, 0, 0, 0, 0, 0, 2, 0, 3, 0, 4, 0, 0, 0, 5];
        assert_eq!(map.encode(), bytes[..]);
        for response in [address, map] {
            assert_eq!(Response::decode(&response.encode()), Ok(response));
        }
        // One byte short is no success, one more is none of our business.
        assert_eq!(Response::decode(&bytes[..15]), Err(ResponseError::Length { len: 15 }));
        assert_eq!(Response::decode(&[&bytes[..], &[9]].concat()), Ok(map));
    }

    #[test]
    fn a_gateway_may_refuse_in_few_bytes() {
        let failed = |opcode, code, epoch, internal_port| {
            Ok(Response::Failed { opcode, code, epoch, internal_port })
        };
        let cases: [(&[u8], _); 8] = [
            (&[0, 0, 0, 1, 0, 0, 0, 7], failed(0, ResultCode::UnsupportedVersion, Some(7), None)),
            (&[0, 129, 0, 2], failed(1, ResultCode::NotAuthorized, None, None)),
            (&[0, 128, 0, 3, 0, 0, 0, 7], failed(0, ResultCode::NetworkFailure, Some(7), None)),
            (
                &[0, 130, 0, 4, 0, 0, 0, 7, 0, 80, 0, 0, 0, 0, 0, 0],
                failed(2, ResultCode::OutOfResources, Some(7), Some(80)),
            ),
            // The request for UDP port 80, echoed.
            (
                &[0, 129, 0, 5, 0, 80, 0, 80, 0, 0, 0x1c, 0x20],
                failed(1, ResultCode::UnsupportedOpcode, None, None),
            ),
            (&[0, 129, 1, 2, 0, 0], failed(1, ResultCode::Other(258), None, None)),
            (&[0, 0], Ok(Response::Bare { opcode: 0 })),
            (&[0, 129, 0], Ok(Response::Bare { opcode: 1 })),
        ];
        for (bytes, expected) in cases {
            assert_eq!(Response::decode(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn what_is_no_response_has_its_error() {
        assert_eq!(Response::decode(&[0]), Err(ResponseError::Length { len: 1 }));
        assert_eq!(Response::decode(&[2, 129]), Err(ResponseError::Version { version: 2 }));
        assert_eq!(Response::decode(&MAP.encode()), Err(ResponseError::NotResponse));
        let unknown = [0, 131, 0, 0, 0, 0, 0, 0];
        assert_eq!(Response::decode(&unknown), Err(ResponseError::Opcode { opcode: 3 }));
        assert_eq!(Response::decode(&[0; 1_101]), Err(ResponseError::Length { len: 1_101 }));
    }

    #[test]
    fn an_unknown_request_comes_back_marked() {
        let echoed = unsupported_opcode(&[0, 9, 1, 1, 7]).expect("an answer");
        assert_eq!(echoed, [0, 137, 0, 5, 7][..]);
        assert_eq!(unsupported_opcode(&[0, 9]).expect("an answer"), [0, 137, 0, 5][..]);
        assert_eq!(unsupported_opcode(&[0, 137, 0, 5]), None);
        assert_eq!(unsupported_opcode(&[2, 1]), None);
    }

    #[test]
    fn codes_are_their_numbers() {
        assert_eq!(ResultCode::from_code(0), None);
        for code in 1..300 {
            assert_eq!(ResultCode::from_code(code).map(ResultCode::code), Some(code));
        }
    }
}
