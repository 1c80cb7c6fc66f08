//! Requests, with the options that they carry.

use super::{
    DATAGRAM_MAX, FILTERS_MAX, HEADER_LEN, MAP_LEN, MapFields, Nonce, OP_MAP, OP_RESTARTED,
    RESPONSE, ResultCode, VERSION, has_length, put_ip, read_ip,
};
use crate::wire::MapTransport;
use crate::wire::fields::Fields;
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::IpAddr;

/// RFC 6887 §13.1: for an internal host other than the sender.
const THIRD_PARTY: u8 = 1;
/// RFC 6887 §13.2: what is suggested or nothing.
const PREFER_FAILURE: u8 = 2;
/// RFC 6887 §13.3: only from these peers.
const FILTER: u8 = 3;
/// Options from here on may be skipped, RFC 6887 §7.3.
const OPTIONAL: u8 = 128;

/// What a client asks of its server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Request {
    /// The address that the datagram is sent from. IPv4 in either form is the same.
    pub client: IpAddr,
    /// How long, in seconds; 0 deletes.
    pub lifetime_s: u32,
    /// The rest.
    pub body: RequestBody,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestBody {
    /// Is the server there, and since when?
    Announce,
    /// Make, renew or delete a mapping.
    Map(MapRequest),
}

/// A mapping to make, renew or delete.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MapRequest {
    /// Ours, the same for as long as the mapping lives.
    pub nonce: Nonce,
    /// The IP protocol: 17, 6, or 0 for all of them.
    pub protocol: u8,
    /// Our port; 0 is every port.
    pub internal_port: u16,
    /// The port that we would like outside; 0 is any.
    pub external_port: u16,
    /// The address that we would like outside; see [`unspecified`](super::unspecified).
    pub external_ip: IpAddr,
    /// Rather fail than map anything but what is suggested.
    pub prefer_failure: bool,
    /// The host that it is for, where that is not the sender.
    pub third_party: Option<IpAddr>,
    /// Who alone may come in, at most [`FILTERS_MAX`]; more are not written.
    pub filters: Vec<Filter>,
}

/// Peers that may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// How many bits of [`ip`](Filter::ip) count, of 128; 0 takes earlier filters away.
    pub prefix_len: u8,
    /// Their port; 0 is any.
    pub port: u16,
    /// Their address.
    pub ip: IpAddr,
}

/// A datagram that is no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Too short, too long, or no multiple of four bytes.
    #[error("a request of {len} bytes")]
    Length {
        /// The length of the datagram in bytes.
        len: usize,
    },
    /// Another version.
    #[error("a request of version {version}")]
    Version {
        /// Byte 0.
        version: u8,
    },
    /// A response, which a server ignores.
    #[error("a response where a request belongs")]
    NotRequest,
    /// An opcode that is not known here.
    #[error("a request with opcode {opcode}")]
    Opcode {
        /// The opcode.
        opcode: u8,
    },
    /// An option that is not known here and must not be skipped, or has no meaning there.
    #[error("a request with option {option}")]
    Option {
        /// The option.
        option: u8,
    },
    /// An option that cannot be read, or comes too often.
    #[error("a malformed option {option}")]
    MalformedOption {
        /// The option.
        option: u8,
    },
}

impl RequestError {
    /// What a server answers, by RFC 6887 §8.2; `None` where it keeps silent.
    pub fn result_code(&self) -> Option<ResultCode> {
        match self {
            RequestError::Length { len } if *len < 2 => None,
            RequestError::Length { .. } => Some(ResultCode::MalformedRequest),
            RequestError::Version { .. } => Some(ResultCode::UnsupportedVersion),
            RequestError::NotRequest => None,
            RequestError::Opcode { .. } => Some(ResultCode::UnsupportedOpcode),
            RequestError::Option { .. } => Some(ResultCode::UnsupportedOption),
            RequestError::MalformedOption { .. } => Some(ResultCode::MalformedOption),
        }
    }
}

impl MapRequest {
    /// A mapping of a port, to any port outside; set the rest by assignment. `external_ip` is the
    /// suggestion, [`unspecified`](super::unspecified) where there is none.
    pub fn new(
        nonce: Nonce,
        transport: MapTransport,
        internal_port: u16,
        external_ip: IpAddr,
    ) -> MapRequest {
        MapRequest {
            nonce,
            protocol: transport.protocol_number(),
            internal_port,
            external_port: 0,
            external_ip,
            prefer_failure: false,
            third_party: None,
            filters: Vec::new(),
        }
    }
}

impl Request {
    /// Ask for a mapping.
    pub fn map(client: IpAddr, lifetime_s: u32, map: MapRequest) -> Request {
        Request { client, lifetime_s, body: RequestBody::Map(map) }
    }

    /// Ask whether the server is there. RFC 6887 §14.1.1: the lifetime MUST be 0.
    pub fn announced(client: IpAddr) -> Request {
        Request { client, lifetime_s: 0, body: RequestBody::Announce }
    }

    /// The request as a datagram.
    pub fn encode(&self) -> Bytes {
        let opcode = match &self.body {
            RequestBody::Announce => OP_RESTARTED,
            RequestBody::Map(_) => OP_MAP,
        };
        let mut out = Vec::with_capacity(MAP_LEN);
        // RFC 6887 §7.1: what is reserved MUST be 0.
        out.extend_from_slice(&[VERSION, opcode, 0, 0]);
        out.extend_from_slice(&self.lifetime_s.to_be_bytes());
        put_ip(self.client, &mut out);
        if let RequestBody::Map(map) = &self.body {
            map.put(&mut out);
        }
        debug_assert!(has_length(out.len()), "{} bytes", out.len());
        out.into()
    }

    /// Read a request, as a server does.
    pub fn decode(datagram: &[u8]) -> Result<Request, RequestError> {
        let length = RequestError::Length { len: datagram.len() };
        let [version, opcode, ..] = datagram else { return Err(length) };
        // RFC 6887 §8.2: in this order.
        if opcode & RESPONSE != 0 {
            return Err(RequestError::NotRequest);
        }
        if *version != VERSION {
            return Err(RequestError::Version { version: *version });
        }
        if !has_length(datagram.len()) {
            return Err(length);
        }
        let mut fields = Fields::of(datagram);
        let (Some(_), Some(lifetime_s), Some(client)) =
            (fields.u32(), fields.u32(), read_ip(&mut fields))
        else {
            return Err(length);
        };
        let body = match *opcode {
            OP_RESTARTED => {
                options(fields, None)?;
                RequestBody::Announce
            }
            OP_MAP => {
                let read = MapFields::read(&mut fields).ok_or(length)?;
                let mut map = MapRequest {
                    nonce: read.nonce,
                    protocol: read.protocol,
                    internal_port: read.internal_port,
                    external_port: read.external_port,
                    external_ip: read.external_ip,
                    prefer_failure: false,
                    third_party: None,
                    filters: Vec::new(),
                };
                options(fields, Some(&mut map))?;
                RequestBody::Map(map)
            }
            opcode => return Err(RequestError::Opcode { opcode }),
        };
        Ok(Request { client, lifetime_s, body })
    }
}

impl MapRequest {
    fn put(&self, out: &mut Vec<u8>) {
        let fields = MapFields {
            nonce: self.nonce,
            protocol: self.protocol,
            internal_port: self.internal_port,
            external_port: self.external_port,
            external_ip: self.external_ip,
        };
        fields.put(out);
        if let Some(ip) = self.third_party {
            out.extend_from_slice(&[THIRD_PARTY, 0, 0, 16]);
            put_ip(ip, out);
        }
        if self.prefer_failure {
            out.extend_from_slice(&[PREFER_FAILURE, 0, 0, 0]);
        }
        for filter in self.filters.iter().take(FILTERS_MAX) {
            out.extend_from_slice(&[FILTER, 0, 0, 20, 0, filter.prefix_len]);
            out.extend_from_slice(&filter.port.to_be_bytes());
            put_ip(filter.ip, out);
        }
    }
}

/// A datagram with every option there is holds.
const _: () = assert!(MAP_LEN + 4 + 20 + 24 * FILTERS_MAX <= DATAGRAM_MAX);
const _: () = assert!(HEADER_LEN.is_multiple_of(4) && MAP_LEN.is_multiple_of(4));

/// The options of a request; only those of MAP mean anything here.
fn options(mut fields: Fields<'_>, mut map: Option<&mut MapRequest>) -> Result<(), RequestError> {
    // Lengths are multiples of four by now, so that four bytes are left or none.
    while let (Some(option), Some(_), Some(len)) = (fields.u8(), fields.u8(), fields.u16()) {
        let malformed = RequestError::MalformedOption { option };
        // RFC 6887 §7.3: data is padded to a multiple of four bytes.
        let padded = usize::from(len).next_multiple_of(4);
        let data = fields.take(padded).ok_or(malformed)?;
        let data = &data[..usize::from(len)];
        match (option, map.as_deref_mut()) {
            (THIRD_PARTY | PREFER_FAILURE | FILTER, Some(map)) => {
                read_option(option, data, map).ok_or(malformed)?;
            }
            (OPTIONAL.., _) => {}
            (option, _) => return Err(RequestError::Option { option }),
        }
    }
    Ok(())
}

/// One option of MAP; `None` if it is malformed, or one too many.
fn read_option(option: u8, data: &[u8], map: &mut MapRequest) -> Option<()> {
    let mut fields = Fields::of(data);
    match option {
        THIRD_PARTY => {
            let ip = read_ip(&mut fields)?;
            if map.third_party.replace(ip).is_some() {
                return None;
            }
        }
        PREFER_FAILURE => {
            if map.prefer_failure {
                return None;
            }
            map.prefer_failure = true;
        }
        _ => {
            fields.u8()?;
            let prefix_len = fields.u8().filter(|len| *len <= 128)?;
            let filter = Filter { prefix_len, port: fields.u16()?, ip: read_ip(&mut fields)? };
            if map.filters.len() == FILTERS_MAX {
                return None;
            }
            map.filters.push(filter);
        }
    }
    fields.is_empty().then_some(())
}
