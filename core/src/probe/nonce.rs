//! The one place where a proof is made. `Proof` has no other constructor than the match below, so
//! that skipping the check does not compile.

use crate::peers::Connection;
use crate::words::checkpoint::{BadCheckpoint, Loader, Saved, Saver, saved};
use crate::words::config::PROOF_LIFETIME;
use crate::words::sleep::Sleep;
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
/// Draws for one nonce, number; ours: no source of chance that works needs a second.
const DRAWS_MAX: usize = 4;

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

    /// For tests of what follows from one.
    #[cfg(test)]
    pub(super) fn claimed(addr: Addr, server: PeerId, stranger: bool, at: Instant) -> Proof {
        Proof { addr, server, from: addr.ip, stranger, port: addr.port, at }
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
///
/// Nothing depends on which numbers the nonces are, nor on their order: a flight record replays
/// with others in their place.
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
            let oldest = retired.min_by_key(|(_, one)| (one.forget_at, one.probe));
            oldest.map(|(nonce, _)| *nonce).and_then(|nonce| self.expected.remove(&nonce));
        }
        // Two probes never share a nonce. Where chance insists, the older one can prove nothing
        // any more: its nonce would be taken for an answer to the younger question.
        let mut nonce = draw.nonce();
        for _ in 1..DRAWS_MAX {
            if !self.expected.contains_key(&nonce) {
                break;
            }
            nonce = draw.nonce();
        }
        let expected = Expected { addrs, server, probe, serial, forget_at: None };
        self.expected.insert(nonce, expected);
        nonce
    }

    /// The newest connection that there was when the question of this probe was put.
    pub(super) fn asked_at(&self, probe: StreamId) -> Option<u64> {
        self.expected.values().find(|one| one.probe == probe).map(|one| one.serial)
    }

    /// The probe has ended; its nonce may still be under way.
    pub(super) fn retire(&mut self, now: Instant, probe: StreamId) {
        self.expected.retain(|_, one| one.forget_at.is_none_or(|at| now < at));
        for one in self.expected.values_mut().filter(|one| one.probe == probe) {
            one.forget_at = Some(now + LATE_FOR);
        }
    }

    /// We slept, and so did whatever brings a nonce that is still under way. What came in before a
    /// long sleep proves nothing about the time after it: only connections beyond `serial` will do.
    pub(super) fn resumed(&mut self, sleep: Sleep, serial: u64) {
        for one in self.expected.values_mut() {
            if let Some(at) = &mut one.forget_at {
                sleep.put_off(at);
            }
            if !sleep.is_nap() {
                one.serial = serial;
            }
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

// The one way to a proof beside the match. It leads into a replay, which can act on nothing.
saved!(struct Proof { addr, server, from, stranger, port, at as ranked(PROOF_LIFETIME) });
saved!(struct Arrival { addrs, server, from, stranger, port, at as ranked(PROOF_LIFETIME) });
saved!(struct Expected { addrs, server, probe, serial as question(), forget_at });

impl Saved for Nonces {
    fn save(&self, out: &mut Saver<'_>) {
        let Nonces { expected } = self;
        if let Some(now) = out.canonical_now() {
            let counts = |one: &&Expected| one.forget_at.is_none_or(|at| now < at);
            let by_probe = expected.values().filter(counts).map(|one| (one.probe, one));
            let by_probe: BTreeMap<StreamId, &Expected> = by_probe.collect();
            out.number(u64::try_from(by_probe.len()).unwrap_or(u64::MAX));
            return by_probe.values().for_each(|one| one.save(out));
        }
        let masked: BTreeMap<u64, &Expected> =
            expected.iter().map(|(nonce, one)| (out.masked(*nonce), one)).collect();
        out.number(u64::try_from(masked.len()).unwrap_or(u64::MAX));
        for (nonce, one) in masked {
            nonce.save(out);
            one.save(out);
        }
    }

    fn load(from: &mut Loader<'_>) -> Result<Nonces, BadCheckpoint> {
        Ok(Nonces { expected: Saved::load(from)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use core::net::Ipv4Addr;

    struct List<'a>(&'a [u64]);
    impl Draw for List<'_> {
        fn below(&mut self, _: u64) -> u64 {
            0
        }
        fn nonce(&mut self) -> u64 {
            let (first, rest) = self.0.split_first().expect("few draws");
            self.0 = rest;
            *first
        }
    }

    fn stream(n: u64) -> StreamId {
        StreamId::outbound(crate::Protocol::DialRequest, n)
    }

    #[test]
    fn a_nonce_that_is_drawn_twice_is_drawn_again() {
        let addr = Addr::tcp(Ipv4Addr::new(44, 0, 0, 1).into(), 4001);
        let mut nonces = Nonces::default();
        let mut draw = List(&[7, 7, 7, 7, 7, 8, 9, 9, 9, 9, 9, 1]);
        let mut bind = |n| nonces.bind(&mut draw, (vec![addr], PeerId::random(), stream(n)), 0);
        assert_eq!([bind(1), bind(2), bind(3)], [7, 7, 8], "the second asks four times at most");
        assert_eq!([bind(4), bind(5)], [9, 9]);
        let owner = |nonce: u64| nonces.expected[&nonce].probe;
        assert_eq!([owner(7), owner(8), owner(9)], [stream(2), stream(3), stream(5)]);
    }

    #[test]
    fn when_full_the_oldest_goes_whatever_its_number() {
        for numbers in [[1, 2], [2, 1]] {
            let addr = Addr::tcp(Ipv4Addr::new(44, 0, 0, 1).into(), 4001);
            let mut nonces = Nonces::default();
            let mut draw = List(&numbers);
            for n in 0..2 {
                nonces.bind(&mut draw, (vec![addr], PeerId::random(), stream(n)), 0);
                nonces.retire(Instant::ZERO, stream(n));
            }
            for n in 2..=NONCES_MAX as u64 {
                let number = [100 + n];
                nonces.bind(&mut List(&number), (vec![addr], PeerId::random(), stream(n)), 0);
            }
            let left: Vec<StreamId> = nonces.expected.values().map(|one| one.probe).collect();
            assert!(!left.contains(&stream(0)) && left.contains(&stream(1)), "{numbers:?}");
        }
    }

    #[test]
    fn memory_is_bounded() {
        let addr = Addr::tcp(Ipv4Addr::new(44, 0, 0, 1).into(), 4001);
        let mut nonces = Nonces::default();
        for n in 0..2 * NONCES_MAX as u64 {
            let number = [n];
            nonces.bind(&mut List(&number), (vec![addr], PeerId::random(), stream(n)), 0);
            nonces.retire(Instant::ZERO, stream(n));
        }
        assert_eq!(nonces.expected.len(), NONCES_MAX);
        assert!(nonces.expects(addr.class()));
        nonces.retire(Instant::ZERO + LATE_FOR, stream(0));
        assert!(!nonces.expects(addr.class()));
    }
}
