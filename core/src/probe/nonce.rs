//! The one place where a proof is made. `Proof` has no other constructor than the match below, so
//! that skipping the check does not compile.

use crate::peers::Connection;
use crate::words::config::PROOF_LIFETIME;
use crate::{Addr, Draw, Duration, Instant, Oddity, PeerId, Side, StreamId};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::IpAddr;

/// How long after its probe ended a nonce still proves, ours: longer than any dial-back in flight
/// can take (15 s by the deployed servers' limits).
const LATE_FOR: Duration = Duration::from_secs(60);
/// Nonces remembered, number; ours: every probe in flight and those of the last minute.
/// When full, the oldest retired one goes.
const NONCES_MAX: usize = 256;

/// That a nonce of ours came back on a new inbound connection of the claimed transport: somebody
/// really dialled this address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    addr: Addr,
    server: PeerId,
    from: IpAddr,
    stranger: bool,
    port: u16,
    at: Instant,
}

impl Proof {
    /// The address that was dialled.
    pub fn addr(&self) -> Addr {
        self.addr
    }

    /// The server that had been given the nonce.
    pub fn server(&self) -> PeerId {
        self.server
    }

    /// The IP that the dial-back came from.
    pub fn from(&self) -> IpAddr {
        self.from
    }

    /// Whether we had never sent a first packet to that IP.
    pub fn by_stranger(&self) -> bool {
        self.stranger
    }

    /// The port of ours on which the dial-back came in: that of the listening socket behind the
    /// address.
    pub fn listen_port(&self) -> u16 {
        self.port
    }

    /// Whether it is young enough to prove anything now.
    pub(crate) fn is_alive(&self, now: Instant) -> bool {
        now < self.at + PROOF_LIFETIME
    }

    /// When the nonce arrived.
    pub fn at(&self) -> Instant {
        self.at
    }
}

/// That a nonce came back in the right way, before it is known which address of the request was
/// dialled: where several could explain it, the server's answer names the one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    /// The addresses of the request that explain the connection.
    addrs: Vec<Addr>,
    server: PeerId,
    from: IpAddr,
    stranger: bool,
    port: u16,
    at: Instant,
}

impl Arrival {
    /// The proof, where a single address explains the connection.
    pub(super) fn proof(&self) -> Option<Proof> {
        match self.addrs.as_slice() {
            [addr] => self.proof_of(*addr),
            [] | [_, _, ..] => None,
        }
    }

    /// The proof that it is of the address which the server says it dialled.
    pub(super) fn proof_of(&self, addr: Addr) -> Option<Proof> {
        let Arrival { server, from, stranger, port, at, .. } = *self;
        self.addrs.contains(&addr).then_some(Proof { addr, server, from, stranger, port, at })
    }
}

/// A nonce that was given away, and what its return would prove.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Expected {
    /// The addresses of the request, at least one.
    addrs: Vec<Addr>,
    server: PeerId,
    /// The probe's stream, by which the exchange is found again.
    probe: StreamId,
    /// Connections up to this serial number existed before the question was asked.
    serial: u64,
    /// Set once the probe has ended.
    forget_at: Option<Instant>,
}

/// Every nonce whose return would prove something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Nonces {
    expected: BTreeMap<u64, Expected>,
}

impl Nonces {
    /// Draw a nonce and bind it to the addresses of one probe.
    pub(super) fn bind(
        &mut self,
        draw: &mut dyn Draw,
        (addrs, server, probe): (Vec<Addr>, PeerId, StreamId),
        serial: u64,
    ) -> u64 {
        if self.expected.len() >= NONCES_MAX {
            let retired = self.expected.iter().filter(|(_, one)| one.forget_at.is_some());
            let oldest = retired.min_by_key(|(_, one)| one.forget_at).map(|(nonce, _)| *nonce);
            oldest.and_then(|nonce| self.expected.remove(&nonce));
        }
        // Two probes never share a nonce. A source of chance that repeats itself is stepped over.
        let mut nonce = draw.nonce();
        while self.expected.contains_key(&nonce) {
            nonce = nonce.wrapping_add(1);
        }
        let expected = Expected { addrs, server, probe, serial, forget_at: None };
        self.expected.insert(nonce, expected);
        nonce
    }

    /// The probe has ended; its nonce may still be under way.
    pub(super) fn retire(&mut self, now: Instant, probe: StreamId) {
        self.expected.retain(|_, one| one.forget_at.is_none_or(|at| now < at));
        for one in self.expected.values_mut().filter(|one| one.probe == probe) {
            one.forget_at = Some(now + LATE_FOR);
        }
    }

    /// A nonce arrived on `conn`. autonat-v2 §Requirements for DialBack: it MUST equal that of an
    /// outstanding request, and MUST be discarded where it does not; and the connection must be
    /// one that only the dialled address can explain.
    pub(super) fn matched(
        &mut self,
        now: Instant,
        nonce: u64,
        conn: &Connection,
    ) -> Result<(Arrival, StreamId), Oddity> {
        let expected = self.expected.get(&nonce).ok_or(Oddity::UnknownNonce)?;
        if expected.forget_at.is_some_and(|at| at <= now) {
            return Err(Oddity::UnknownNonce);
        }
        let fresh = conn.side == Side::Inbound && !conn.relayed && conn.serial > expected.serial;
        let explains = |addr: &&Addr| addr.class() == conn.local.class();
        let addrs: Vec<Addr> = expected.addrs.iter().filter(explains).copied().collect();
        if !fresh || addrs.is_empty() {
            return Err(Oddity::MisplacedNonce);
        }
        let Expected { server, probe, .. } = *expected;
        // A nonce proves once; the same words again are news to nobody.
        self.expected.remove(&nonce);
        let (from, stranger, port) = (conn.remote.ip, conn.stranger, conn.local.port);
        Ok((Arrival { addrs, server, from, stranger, port, at: now }, probe))
    }

    /// Whether any nonce of this class is out; for tests of the bounds.
    #[cfg(test)]
    fn expects(&self, class: crate::Class) -> bool {
        self.expected.values().flat_map(|one| &one.addrs).any(|addr| addr.class() == class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use core::net::Ipv4Addr;

    struct Same;
    impl Draw for Same {
        fn below(&mut self, _: u64) -> u64 {
            0
        }
        fn nonce(&mut self) -> u64 {
            u64::MAX
        }
    }

    #[test]
    fn a_stuck_source_of_chance_still_gives_distinct_nonces_and_bounded_memory() {
        let addr = Addr::tcp(Ipv4Addr::new(44, 0, 0, 1).into(), 4001);
        let mut nonces = Nonces::default();
        for n in 0..2 * NONCES_MAX as u64 {
            let probe = StreamId::outbound(crate::Protocol::DialRequest, n);
            nonces.bind(&mut Same, (vec![addr], PeerId::random(), probe), 0);
            nonces.retire(Instant::ZERO, probe);
        }
        assert_eq!(nonces.expected.len(), NONCES_MAX);
        assert!(nonces.expects(addr.class()));
        let probe = StreamId::outbound(crate::Protocol::DialRequest, 0);
        nonces.retire(Instant::ZERO + LATE_FOR, probe);
        assert!(!nonces.expects(addr.class()));
    }
}
