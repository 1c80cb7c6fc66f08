//! NAT-PMP as a router speaks it, RFC 6886.

use super::profiles::NatPmpProfile;
use super::{Router, end};
use bytes::Bytes;
use portolan_core::{Duration, Instant, IpScope, MappingProtocol, Transport, ip_scope};
use std::net::{Ipv4Addr, SocketAddr};

/// Byte 0.
pub(super) const VERSION: u8 = 0;
/// How long nothing is let in where a renewal is a deletion; ours.
const GAP: Duration = Duration::from_secs(1);

const UNSUPPORTED_VERSION: u16 = 1;
const NOT_AUTHORIZED: u16 = 2;
const NETWORK_FAILURE: u16 = 3;
const OUT_OF_RESOURCES: u16 = 4;
const UNSUPPORTED_OPCODE: u16 = 5;

/// The answer that tells the external address, RFC 6886 §3.2; what the LAN hears of a change, too.
pub(super) fn address(epoch_s: u32, ip: Ipv4Addr) -> Bytes {
    [&head(128, 0, epoch_s)[..], &ip.octets()].concat().into()
}

fn head(op: u8, code: u16, epoch_s: u32) -> [u8; 8] {
    let ([a, b], [c, d, e, f]) = (code.to_be_bytes(), epoch_s.to_be_bytes());
    [VERSION, op, a, b, c, d, e, f]
}

impl Router {
    /// Answer a request, if it is one.
    pub(super) fn nat_pmp(
        &mut self,
        now: Instant,
        profile: &NatPmpProfile,
        from: SocketAddr,
        body: &[u8],
    ) -> Option<Bytes> {
        let (version, op) = (*body.first()?, *body.get(1)?);
        if op & 128 != 0 {
            self.complain("NAT-PMP: a response where a request belongs");
            return None;
        }
        let epoch_s = self.epoch_s(now);
        if profile.rejects_briefly {
            return Some(Bytes::copy_from_slice(&[VERSION, op | 128]));
        }
        if version != VERSION {
            return Some(Bytes::copy_from_slice(&head(0, UNSUPPORTED_VERSION, epoch_s)));
        }
        match (op, body) {
            (0, [_, _]) => Some(match self.network_failure(profile) {
                true => [&head(128, NETWORK_FAILURE, epoch_s)[..], &[0; 4]].concat().into(),
                false => address(epoch_s, self.wan),
            }),
            (1 | 2, [_, _, r0, r1, i0, i1, x0, x1, lifetime @ ..]) if lifetime.len() == 4 => {
                if (*r0, *r1) != (0, 0) {
                    self.complain("NAT-PMP: reserved bytes are not 0");
                }
                let lifetime_s = lifetime.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
                let ports = (u16::from_be_bytes([*i0, *i1]), u16::from_be_bytes([*x0, *x1]));
                Some(self.nat_pmp_map(now, profile, from, op, ports, lifetime_s))
            }
            (0..=2, _) => {
                self.complain("NAT-PMP: a request of a wrong length");
                None
            }
            _ => {
                let mut echo = body.to_vec();
                echo.resize(echo.len().max(8), 0);
                echo[..8].copy_from_slice(&head(op | 128, UNSUPPORTED_OPCODE, epoch_s));
                Some(echo.into())
            }
        }
    }

    fn network_failure(&self, profile: &NatPmpProfile) -> bool {
        self.wan.is_unspecified()
            || profile.private_wan_fails && ip_scope(self.wan.into()) != IpScope::Global
    }

    fn nat_pmp_map(
        &mut self,
        now: Instant,
        profile: &NatPmpProfile,
        from: SocketAddr,
        op: u8,
        (internal_port, suggested): (u16, u16),
        lifetime_s: u32,
    ) -> Bytes {
        let epoch_s = self.epoch_s(now);
        let transport = if op == 1 { Transport::Quic } else { Transport::Tcp };
        let internal = SocketAddr::new(from.ip(), internal_port);
        let answer = |code: u16, external: u16, lifetime_s: u32| -> Bytes {
            let ports = [internal_port.to_be_bytes(), external.to_be_bytes()].concat();
            let head = head(op | 128, code, epoch_s);
            [&head[..], &ports, &lifetime_s.to_be_bytes()].concat().into()
        };
        if lifetime_s == 0 {
            if suggested != 0 {
                self.complain("NAT-PMP: a deletion that suggests a port");
            }
            if internal_port == 0 {
                self.table.delete_of(MappingProtocol::NatPmp, transport, from.ip());
            } else if let Some(port) =
                self.table.port_of(MappingProtocol::NatPmp, transport, internal)
            {
                self.table.delete_port((transport, port));
            }
            return answer(0, 0, 0);
        }
        if internal_port == 0 {
            self.complain("NAT-PMP: a mapping of port 0");
            return answer(NOT_AUTHORIZED, 0, 0);
        }
        if self.network_failure(profile) {
            return answer(NETWORK_FAILURE, 0, 0);
        }
        if !self.may_grant(now) {
            return answer(NOT_AUTHORIZED, 0, 0);
        }
        let lifetime_s = lifetime_s.min(profile.lifetime_max_s);
        let held = self.table.port_of(MappingProtocol::NatPmp, transport, internal);
        let port = match held {
            Some(port) => self.nat_pmp_renew(now, profile, (transport, port)),
            None if self.is_full() => return answer(OUT_OF_RESOURCES, 0, 0),
            None => {
                let wanted = if suggested == 0 { internal_port } else { suggested };
                let port = self.table.free_port(transport, wanted);
                let key = (transport, port);
                let held = self.new_held(now, MappingProtocol::NatPmp, internal, key);
                self.table.ports.insert(key, held);
                port
            }
        };
        if let Some(held) = self.table.ports.get_mut(&(transport, port)) {
            held.until = end(now, lifetime_s);
        }
        answer(0, port, lifetime_s)
    }

    /// The port of a mapping that is renewed, which may be another from now on.
    fn nat_pmp_renew(
        &mut self,
        now: Instant,
        profile: &NatPmpProfile,
        (transport, port): (Transport, u16),
    ) -> u16 {
        if !profile.renews_by_deletion {
            return port;
        }
        let Some(mut held) = self.table.delete_port((transport, port)) else { return port };
        held.since = now + GAP;
        let drifts = self.dice.percent(50);
        let port =
            self.table.free_port(transport, if drifts { port.wrapping_add(1) } else { port });
        self.table.ports.insert((transport, port), held);
        port
    }
}
