//! PCP as a router speaks it, RFC 6887: MAP and ANNOUNCE, for IPv4 and for pinholes of IPv6.

use super::profiles::PcpProfile;
use super::table::Held;
use super::{Router, end};
use bytes::Bytes;
use portolan_core::{Instant, MappingProtocol, Transport};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const VERSION: u8 = 2;
const RESPONSE: u8 = 128;
const OP_ANNOUNCE: u8 = 0;
const OP_MAP: u8 = 1;
const HEAD: usize = 24;
const MAP: usize = 60;
const MOST: usize = 1_100;
const PREFER_FAILURE: u8 = 2;

/// Result codes, RFC 6887 §7.4.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Code {
    UnsupportedVersion = 1,
    NotAuthorized = 2,
    MalformedRequest = 3,
    UnsupportedOpcode = 4,
    UnsupportedOption = 5,
    MalformedOption = 6,
    NetworkFailure = 7,
    NoResources = 8,
    UnsupportedProtocol = 9,
    CannotProvideExternal = 11,
    AddressMismatch = 12,
}

/// An error's lifetime in seconds (RFC 6887 §7.4: 30 s for short ones, 30 min for the others).
fn hold_off_s(profile: &PcpProfile, code: u8) -> u32 {
    match code {
        _ if profile.errors_without_lifetime => 0,
        7 | 8 | 10 => 30,
        _ => 1_800,
    }
}

/// What a router tells everybody when it lost its state, RFC 6887 §14.1.
pub(super) fn restarted(epoch_s: u32) -> Bytes {
    head(OP_ANNOUNCE, 0, 0, epoch_s).to_vec().into()
}

fn head(op: u8, code: u8, lifetime_s: u32, epoch_s: u32) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(&[VERSION, RESPONSE | op, 0, code]);
    head[4..8].copy_from_slice(&lifetime_s.to_be_bytes());
    head[8..12].copy_from_slice(&epoch_s.to_be_bytes());
    head
}

/// A MAP request that can be read.
struct Wanted {
    nonce: [u8; 12],
    transport: Transport,
    internal: SocketAddr,
    port: u16,
    ip: Ipv6Addr,
    lifetime_s: u32,
    prefers_failure: bool,
}

/// What became of it: port, address, lifetime.
type Granted = (u16, IpAddr, u32);

impl Router {
    /// Answer a request, if it is one.
    pub(super) fn pcp(
        &mut self,
        now: Instant,
        profile: &PcpProfile,
        from: SocketAddr,
        body: &[u8],
    ) -> Option<Bytes> {
        let (version, op) = (*body.first()?, *body.get(1)?);
        if op & RESPONSE != 0 {
            self.complain("PCP: a response where a request belongs");
            return None;
        }
        let epoch_s = self.epoch_s(now);
        let refuse = |code: u8| -> Option<Bytes> {
            // RFC 6887 §8.3: as much of the request as is there, padded.
            let mut out = body[..body.len().min(MOST)].to_vec();
            out.resize(out.len().next_multiple_of(4).max(HEAD), 0);
            out[..HEAD].copy_from_slice(&head(op, code, hold_off_s(profile, code), epoch_s));
            Some(out.into())
        };
        if version != VERSION {
            return refuse(Code::UnsupportedVersion as u8);
        }
        if !(HEAD..=MOST).contains(&body.len()) || !body.len().is_multiple_of(4) {
            self.complain("PCP: a request of a wrong length");
            return refuse(Code::MalformedRequest as u8);
        }
        if body[2..4] != [0, 0] {
            self.complain("PCP: reserved bytes are not 0");
        }
        if self.profile.nested || read_ip(&body[8..24]).to_canonical() != from.ip() {
            return refuse(Code::AddressMismatch as u8);
        }
        match op {
            OP_ANNOUNCE => Some(head(OP_ANNOUNCE, 0, 0, epoch_s).to_vec().into()),
            OP_MAP => match self.pcp_map(now, profile, from, body) {
                Ok((port, ip, lifetime_s)) => {
                    let mut out = body[..MAP].to_vec();
                    out[..HEAD].copy_from_slice(&head(op, 0, lifetime_s, epoch_s));
                    out[42..44].copy_from_slice(&port.to_be_bytes());
                    out[44..60].copy_from_slice(&written_ip(ip));
                    out.extend_from_slice(&body[MAP..]);
                    Some(out.into())
                }
                Err(code) => refuse(code),
            },
            _ => refuse(Code::UnsupportedOpcode as u8),
        }
    }

    fn pcp_map(
        &mut self,
        now: Instant,
        profile: &PcpProfile,
        from: SocketAddr,
        body: &[u8],
    ) -> Result<Granted, u8> {
        let wanted = self.pcp_wanted(from, body).map_err(|code| code as u8)?;
        let granted = match (wanted.lifetime_s, wanted.internal) {
            (0, SocketAddr::V4(_)) => self.pcp_delete_port(&wanted),
            (0, SocketAddr::V6(_)) => self.pcp_delete_hole(&wanted),
            (_, SocketAddr::V4(_)) => self.pcp_map_port(now, profile, &wanted),
            (_, SocketAddr::V6(_)) => self.pcp_map_hole(now, profile, &wanted),
        };
        granted.map_err(|code| match (code, profile.map_code) {
            // Its own code stands for *no* of any kind.
            (Code::NoResources, Some(code)) => code,
            (code, _) => code as u8,
        })
    }

    fn pcp_wanted(&mut self, from: SocketAddr, body: &[u8]) -> Result<Wanted, Code> {
        if body.len() < MAP {
            return Err(Code::MalformedRequest);
        }
        let number = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
        let (protocol, internal_port) = (body[36], number(40));
        if body[37..40] != [0, 0, 0] {
            self.complain("PCP: reserved bytes are not 0");
        }
        let transport = match protocol {
            6 => Transport::Tcp,
            17 => Transport::Quic,
            0 if internal_port != 0 => return Err(Code::MalformedRequest),
            _ => return Err(Code::UnsupportedProtocol),
        };
        if internal_port == 0 {
            self.complain("PCP: a mapping of every port");
            return Err(Code::UnsupportedProtocol);
        }
        let mut nonce = [0; 12];
        nonce.copy_from_slice(&body[24..36]);
        if nonce == [0; 12] {
            self.complain("PCP: a nonce that nobody drew");
        }
        let ip = read_ip(&body[44..60]);
        if from.is_ipv4() != ip.to_ipv4_mapped().is_some() {
            self.complain("PCP: an external address of the other family is suggested");
        }
        let lifetime_s = u32::from_be_bytes([body[4], body[5], body[6], body[7]]);
        if lifetime_s == 0 && (number(42) != 0 || !is_any(ip)) {
            self.complain("PCP: a deletion that suggests something");
        }
        Ok(Wanted {
            nonce,
            transport,
            internal: SocketAddr::new(from.ip(), internal_port),
            port: number(42),
            ip,
            lifetime_s,
            prefers_failure: prefers_failure(&body[MAP..])?,
        })
    }

    fn pcp_delete_port(&mut self, wanted: &Wanted) -> Result<Granted, Code> {
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let port = self.table.port_of(MappingProtocol::Pcp, wanted.transport, wanted.internal);
        let Some(port) = port else { return Ok((0, any, 0)) };
        let key = (wanted.transport, port);
        if self.table.ports.get(&key).is_some_and(|held| held.nonce != wanted.nonce) {
            return Err(Code::NotAuthorized);
        }
        self.table.delete_port(key);
        Ok((port, self.wan.into(), 0))
    }

    fn pcp_delete_hole(&mut self, wanted: &Wanted) -> Result<Granted, Code> {
        let key = (wanted.transport, wanted.internal, MappingProtocol::Pcp);
        if self.table.holes.get(&key).is_some_and(|held| held.nonce != wanted.nonce) {
            return Err(Code::NotAuthorized);
        }
        if self.table.holes.remove(&key).is_some() {
            let port = (wanted.transport, wanted.internal.port());
            self.table.deleted.push((wanted.internal, port));
        }
        Ok((wanted.internal.port(), wanted.internal.ip(), 0))
    }

    fn pcp_map_port(
        &mut self,
        now: Instant,
        profile: &PcpProfile,
        wanted: &Wanted,
    ) -> Result<Granted, Code> {
        if self.wan.is_unspecified() {
            return Err(Code::NetworkFailure);
        }
        let known = self.table.port_of(MappingProtocol::Pcp, wanted.transport, wanted.internal);
        let known = known.map(|port| (wanted.transport, port));
        let nonce = known.and_then(|key| self.table.ports.get(&key)).map(|held| held.nonce);
        if nonce.is_some_and(|nonce| nonce != wanted.nonce) {
            return Err(Code::NotAuthorized);
        }
        self.pcp_permits(now, profile, known.is_some())?;
        let key = match known {
            Some(key) => key,
            None => {
                let first = if wanted.port == 0 { wanted.internal.port() } else { wanted.port };
                let port = self.table.free_port(wanted.transport, first);
                let own = is_any(wanted.ip) || wanted.ip.to_ipv4_mapped() == Some(self.wan);
                if wanted.prefers_failure && (!own || wanted.port != 0 && port != wanted.port) {
                    return Err(Code::CannotProvideExternal);
                }
                (wanted.transport, port)
            }
        };
        let fresh = self.new_held(now, MappingProtocol::Pcp, wanted.internal, key);
        let lifetime_s = clamp(profile, wanted.lifetime_s);
        let held = self.table.ports.entry(key).or_insert(fresh);
        renew(held, now, wanted, lifetime_s);
        Ok((key.1, self.wan.into(), lifetime_s))
    }

    fn pcp_map_hole(
        &mut self,
        now: Instant,
        profile: &PcpProfile,
        wanted: &Wanted,
    ) -> Result<Granted, Code> {
        let key = (wanted.transport, wanted.internal, MappingProtocol::Pcp);
        let port = (wanted.transport, wanted.internal.port());
        let nonce = self.table.holes.get(&key).map(|held| held.nonce);
        if nonce.is_some_and(|nonce| nonce != wanted.nonce) {
            return Err(Code::NotAuthorized);
        }
        if nonce.is_some() && profile.refuses_renewal_6 {
            return Err(Code::NoResources);
        }
        self.pcp_permits(now, profile, nonce.is_some())?;
        let fresh = self.new_held(now, MappingProtocol::Pcp, wanted.internal, port);
        let lifetime_s = clamp(profile, wanted.lifetime_s);
        let held = self.table.holes.entry(key).or_insert(fresh);
        renew(held, now, wanted, lifetime_s);
        Ok((port.1, wanted.internal.ip(), lifetime_s))
    }

    fn pcp_permits(&mut self, now: Instant, profile: &PcpProfile, known: bool) -> Result<(), Code> {
        if profile.map_code.is_some() {
            return Err(Code::NoResources);
        }
        if !self.may_grant(now) {
            return Err(Code::NotAuthorized);
        }
        if !known && self.is_full() {
            return Err(Code::NoResources);
        }
        Ok(())
    }
}

fn renew(held: &mut Held, now: Instant, wanted: &Wanted, lifetime_s: u32) {
    held.nonce = wanted.nonce;
    held.until = end(now, lifetime_s);
}

fn clamp(profile: &PcpProfile, lifetime_s: u32) -> u32 {
    let (least, most) = profile.lifetime_s;
    lifetime_s.clamp(least, most)
}

/// Walk through the options: what has to be understood is PREFER_FAILURE.
fn prefers_failure(mut options: &[u8]) -> Result<bool, Code> {
    let mut found = false;
    while let [code, _, l0, l1, rest @ ..] = options {
        let len = usize::from(u16::from_be_bytes([*l0, *l1]));
        options = rest.get(len.next_multiple_of(4)..).ok_or(Code::MalformedOption)?;
        match *code {
            PREFER_FAILURE if len == 0 => found = true,
            PREFER_FAILURE => return Err(Code::MalformedOption),
            // RFC 6887 §7.3: those of the upper half may be ignored.
            128.. => {}
            _ => return Err(Code::UnsupportedOption),
        }
    }
    if options.is_empty() { Ok(found) } else { Err(Code::MalformedOption) }
}

fn is_any(ip: Ipv6Addr) -> bool {
    ip.to_canonical().is_unspecified()
}

fn read_ip(bytes: &[u8]) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(bytes);
    Ipv6Addr::from(octets)
}

fn written_ip(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}
