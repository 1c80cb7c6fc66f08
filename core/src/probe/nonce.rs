//! The one place where a proof is made. `Proof` has no other constructor than the match below, so
//! that skipping the check does not compile.

use crate::peers::Connection;
use crate::{Addr, Draw, Duration, Instant, Oddity, PeerId, Side, StreamId};
use alloc::collections::BTreeMap;
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

    /// When the nonce arrived.
    pub fn at(&self) -> Instant {
        self.at
    }
}

/// A nonce that was given away, and what its return would prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Expected {
    addr: Addr,
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
    /// Draw a nonce and bind it to one address and one probe.
    pub(super) fn bind(
        &mut self,
        draw: &mut dyn Draw,
        (addr, server, probe): (Addr, PeerId, StreamId),
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
        let expected = Expected { addr, server, probe, serial, forget_at: None };
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
    ) -> Result<(Proof, StreamId), Oddity> {
        let expected = self.expected.get(&nonce).ok_or(Oddity::UnknownNonce)?;
        if expected.forget_at.is_some_and(|at| at <= now) {
            return Err(Oddity::UnknownNonce);
        }
        let fresh = conn.side == Side::Inbound && !conn.relayed && conn.serial > expected.serial;
        if !fresh || conn.local.class() != expected.addr.class() {
            return Err(Oddity::MisplacedNonce);
        }
        let Expected { addr, server, probe, .. } = *expected;
        // A nonce proves once; the same words again are news to nobody.
        self.expected.remove(&nonce);
        let proof = Proof { addr, server, from: conn.remote.ip, stranger: conn.stranger, at: now };
        Ok((proof, probe))
    }

    /// Whether any nonce of this class is out; for tests of the bounds.
    #[cfg(test)]
    fn expects(&self, class: crate::Class) -> bool {
        self.expected.values().any(|one| one.addr.class() == class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
            nonces.bind(&mut Same, (addr, PeerId::random(), probe), 0);
            nonces.retire(Instant::ZERO, probe);
        }
        assert_eq!(nonces.expected.len(), NONCES_MAX);
        assert!(nonces.expects(addr.class()));
        let probe = StreamId::outbound(crate::Protocol::DialRequest, 0);
        nonces.retire(Instant::ZERO + LATE_FOR, probe);
        assert!(!nonces.expects(addr.class()));
    }
}
