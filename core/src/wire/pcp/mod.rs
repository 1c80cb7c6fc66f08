//! PCP (RFC 6887): MAP and ANNOUNCE between a host and its PCP server, both directions. [`version`](super::version)
//! tells by byte 0 whether a reply on the shared port is PCP at all.
//!
//! ```
//! use portolan_core::wire::MapTransport;
//! use portolan_core::wire::pcp::{MapRequest, Request};
//!
//! let map = MapRequest::new([7; 12], MapTransport::Udp, 4001, [0, 0, 0, 0].into());
//! let request = Request::map([192, 168, 1, 2].into(), 7_200, map);
//! let datagram = request.encode();
//! assert_eq!(datagram.len(), 60);
//! assert_eq!(Request::decode(&datagram), Ok(request));
//! ```

mod request;
mod response;
#[cfg(test)]
mod tests;

pub use request::{Filter, MapRequest, Request, RequestBody, RequestError};
pub use response::{MapResponse, Response, ResponseBody, ResponseError, refusal};

use super::fields::Fields;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The port that a server listens on, RFC 6887 §19.1. NAT-PMP has the same.
pub const PORT: u16 = 5351;
/// The port at which clients hear of restarts, RFC 6887 §19.1.
pub const CLIENT_PORT: u16 = 5350;
/// The group at which clients hear of restarts over IPv6, RFC 6887 §14.1.3.
pub const CLIENT_GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// The version spoken here, RFC 6887 §7.1.
pub const VERSION: u8 = 2;
/// The longest datagram, in bytes, RFC 6887 §7.
pub const DATAGRAM_MAX: usize = 1_100;
/// Filters in a request, number: ours, since as many fit into a datagram beside the other options.
pub const FILTERS_MAX: usize = 42;

/// Bytes of either header, RFC 6887 §7.1, §7.2.
const HEADER_LEN: usize = 24;
/// Bytes of a MAP message with its header, RFC 6887 §11.1.
const MAP_LEN: usize = HEADER_LEN + 36;
/// Set in the opcode of a response, RFC 6887 §7.2.
const RESPONSE: u8 = 0x80;
/// The opcode that RFC 6887 §14.1 calls ANNOUNCE.
const OP_RESTARTED: u8 = 0;
/// RFC 6887 §11.
const OP_MAP: u8 = 1;

/// What ties the answers, renewals and the deletion of a mapping to whoever made it, RFC 6887
/// §11.2. It has to be drawn at random.
pub type Nonce = [u8; 12];

/// What became of a request, RFC 6887 §7.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ResultCode {
    /// 0.
    Success,
    /// 1: the server speaks another version.
    UnsupportedVersion,
    /// 2: it may not be done for this client, or the nonce is not that of the mapping.
    NotAuthorized,
    /// 3: the request cannot be read.
    MalformedRequest,
    /// 4: the server does not know the opcode.
    UnsupportedOpcode,
    /// 5: the server does not know an option that it would have to.
    UnsupportedOption,
    /// 6: an option cannot be read, or does not belong there.
    MalformedOption,
    /// 7, short: the network outside does not work.
    NetworkFailure,
    /// 8, short: no mapping is left.
    NoResources,
    /// 9: the server does not map this protocol.
    UnsupportedProtocol,
    /// 10, short: no mapping is left for this client.
    UserExceededQuota,
    /// 11: the wanted address and port cannot be had.
    CannotProvideExternal,
    /// 12: the request came from another address than it says: a NAT is in between.
    AddressMismatch,
    /// 13: too many filters.
    ExcessiveRemotePeers,
    /// Any other; never one of those above.
    Other(u8),
}

/// Every code that has a name, by its number.
const CODES: [ResultCode; 14] = [
    ResultCode::Success,
    ResultCode::UnsupportedVersion,
    ResultCode::NotAuthorized,
    ResultCode::MalformedRequest,
    ResultCode::UnsupportedOpcode,
    ResultCode::UnsupportedOption,
    ResultCode::MalformedOption,
    ResultCode::NetworkFailure,
    ResultCode::NoResources,
    ResultCode::UnsupportedProtocol,
    ResultCode::UserExceededQuota,
    ResultCode::CannotProvideExternal,
    ResultCode::AddressMismatch,
    ResultCode::ExcessiveRemotePeers,
];

impl ResultCode {
    /// The code by its number.
    pub fn from_code(code: u8) -> ResultCode {
        CODES.get(usize::from(code)).copied().unwrap_or(ResultCode::Other(code))
    }

    /// Its number.
    pub fn code(self) -> u8 {
        match self {
            ResultCode::Success => 0,
            ResultCode::UnsupportedVersion => 1,
            ResultCode::NotAuthorized => 2,
            ResultCode::MalformedRequest => 3,
            ResultCode::UnsupportedOpcode => 4,
            ResultCode::UnsupportedOption => 5,
            ResultCode::MalformedOption => 6,
            ResultCode::NetworkFailure => 7,
            ResultCode::NoResources => 8,
            ResultCode::UnsupportedProtocol => 9,
            ResultCode::UserExceededQuota => 10,
            ResultCode::CannotProvideExternal => 11,
            ResultCode::AddressMismatch => 12,
            ResultCode::ExcessiveRemotePeers => 13,
            ResultCode::Other(code) => code,
        }
    }

    /// Whether it is an error that RFC 6887 §7.4 calls short: it may well be gone in 30 s, the
    /// others in half an hour. Unknown errors are long ones.
    pub fn is_short_error(self) -> bool {
        matches!(
            self,
            ResultCode::NetworkFailure | ResultCode::NoResources | ResultCode::UserExceededQuota
        )
    }
}

/// The all-zeros address of the family of `ip`, which stands for *any* (RFC 6887 §5, erratum
/// 3621): for IPv4 it is `::ffff:0.0.0.0` on the wire, while `::` would ask for IPv6.
pub fn unspecified(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// RFC 6887 §5: an IPv4 address is written as IPv6, mapped.
fn put_ip(ip: IpAddr, out: &mut Vec<u8>) {
    let ip = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    out.extend_from_slice(&ip.octets());
}

fn read_ip(fields: &mut Fields<'_>) -> Option<IpAddr> {
    fields.array().map(|ip| IpAddr::V6(Ipv6Addr::from_octets(ip)).to_canonical())
}

/// Whether a datagram has a length that RFC 6887 §7 allows.
fn has_length(len: usize) -> bool {
    (HEADER_LEN..=DATAGRAM_MAX).contains(&len) && len.is_multiple_of(4)
}

/// The part of MAP that both directions share, RFC 6887 §11.1.
struct MapFields {
    nonce: Nonce,
    protocol: u8,
    internal_port: u16,
    external_port: u16,
    external_ip: IpAddr,
}

impl MapFields {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.nonce);
        out.extend_from_slice(&[self.protocol, 0, 0, 0]);
        out.extend_from_slice(&self.internal_port.to_be_bytes());
        out.extend_from_slice(&self.external_port.to_be_bytes());
        put_ip(self.external_ip, out);
    }

    fn read(fields: &mut Fields<'_>) -> Option<MapFields> {
        let nonce = fields.array()?;
        let protocol = fields.u8()?;
        fields.take(3)?;
        Some(MapFields {
            nonce,
            protocol,
            internal_port: fields.u16()?,
            external_port: fields.u16()?,
            external_ip: read_ip(fields)?,
        })
    }
}
