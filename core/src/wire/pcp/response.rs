//! Responses. Their options are skipped: none of them tells a client anything that it must know.

use super::{
    DATAGRAM_MAX, HEADER_LEN, MAP_LEN, MapFields, Nonce, OP_MAP, OP_RESTARTED, RESPONSE,
    ResultCode, VERSION, has_length,
};
use crate::wire::fields::Fields;
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::IpAddr;

/// What a server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Response {
    /// What became of the request.
    pub code: ResultCode,
    /// How long the mapping holds, in seconds; beside an error, how long not to ask again. Both as
    /// the server says, without bounds.
    pub lifetime_s: u32,
    /// Seconds since the server lost its state.
    pub epoch: u32,
    /// The rest.
    pub body: ResponseBody,
}

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResponseBody {
    /// The server is there; told to all, it has restarted.
    Announce,
    /// The mapping, or beside an error what was asked.
    Map(MapResponse),
    /// An error to something that cannot be read here, or without the rest of it.
    Bare {
        /// The opcode without the mark of a response.
        opcode: u8,
    },
}

/// A mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MapResponse {
    /// That of the request.
    pub nonce: Nonce,
    /// The IP protocol.
    pub protocol: u8,
    /// The port inside.
    pub internal_port: u16,
    /// The port outside.
    pub external_port: u16,
    /// The address outside.
    pub external_ip: IpAddr,
}

/// A datagram that is no response. Nothing may be concluded from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResponseError {
    /// Too short, too long, or no multiple of four bytes.
    #[error("a response of {len} bytes")]
    Length {
        /// The length of the datagram in bytes.
        len: usize,
    },
    /// Another version: perhaps NAT-PMP.
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

impl MapResponse {
    /// The mapping that a request asks for, at this address outside.
    pub fn to(map: &super::MapRequest, external_ip: IpAddr, external_port: u16) -> MapResponse {
        MapResponse {
            nonce: map.nonce,
            protocol: map.protocol,
            internal_port: map.internal_port,
            external_port,
            external_ip,
        }
    }
}

impl Response {
    /// A response of these parts.
    pub fn new(code: ResultCode, lifetime_s: u32, epoch: u32, body: ResponseBody) -> Response {
        Response { code, lifetime_s, epoch, body }
    }

    /// Read a response.
    pub fn decode(datagram: &[u8]) -> Result<Response, ResponseError> {
        let length = ResponseError::Length { len: datagram.len() };
        let [version, opcode, ..] = datagram else { return Err(length) };
        if *version != VERSION {
            return Err(ResponseError::Version { version: *version });
        }
        if opcode & RESPONSE == 0 {
            return Err(ResponseError::NotResponse);
        }
        // RFC 6887 §8.3: any other length is invalid, and ignored.
        if !has_length(datagram.len()) {
            return Err(length);
        }
        let opcode = opcode & !RESPONSE;
        let mut fields = Fields::of(datagram);
        let (Some(_), Some(code), Some(lifetime_s), Some(epoch), Some(_)) =
            (fields.take(3), fields.u8(), fields.u32(), fields.u32(), fields.take(12))
        else {
            return Err(length);
        };
        let code = ResultCode::from_code(code);
        let body = match (opcode, MapFields::read(&mut fields)) {
            (OP_RESTARTED, _) => ResponseBody::Announce,
            (OP_MAP, Some(map)) => ResponseBody::Map(MapResponse {
                nonce: map.nonce,
                protocol: map.protocol,
                internal_port: map.internal_port,
                external_port: map.external_port,
                external_ip: map.external_ip,
            }),
            (opcode, _) if code != ResultCode::Success => ResponseBody::Bare { opcode },
            (OP_MAP, None) => return Err(length),
            (opcode, Some(_) | None) => return Err(ResponseError::Opcode { opcode }),
        };
        Ok(Response { code, lifetime_s, epoch, body })
    }

    /// The response as a datagram, as a server sends it: 24 or 60 bytes.
    pub fn encode(&self) -> Bytes {
        let opcode = match self.body {
            ResponseBody::Announce => OP_RESTARTED,
            ResponseBody::Map(_) => OP_MAP,
            ResponseBody::Bare { opcode } => opcode & !RESPONSE,
        };
        let mut out = Vec::with_capacity(MAP_LEN);
        out.extend_from_slice(&[VERSION, RESPONSE | opcode, 0, self.code.code()]);
        out.extend_from_slice(&self.lifetime_s.to_be_bytes());
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&[0; 12]);
        if let ResponseBody::Map(map) = self.body {
            let fields = MapFields {
                nonce: map.nonce,
                protocol: map.protocol,
                internal_port: map.internal_port,
                external_port: map.external_port,
                external_ip: map.external_ip,
            };
            fields.put(&mut out);
        }
        out.into()
    }
}

/// What a server answers to a request that it refuses: the request itself under the header of a
/// response, cut or filled up to a length that is allowed (RFC 6887 §8.2). `None` where a server
/// keeps silent: what is too short, or a response.
pub fn refusal(request: &[u8], code: ResultCode, lifetime_s: u32, epoch: u32) -> Option<Bytes> {
    let [_, opcode, ..] = request else { return None };
    if opcode & RESPONSE != 0 {
        return None;
    }
    let mut out = request[..request.len().min(DATAGRAM_MAX)].to_vec();
    out.resize(out.len().max(HEADER_LEN).next_multiple_of(4), 0);
    out[..4].copy_from_slice(&[VERSION, RESPONSE | opcode, 0, code.code()]);
    out[4..8].copy_from_slice(&lifetime_s.to_be_bytes());
    out[8..12].copy_from_slice(&epoch.to_be_bytes());
    Some(out.into())
}
