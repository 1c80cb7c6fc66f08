//! One mapping at one router: wanted, held, or to be given back.

use super::serves;
use crate::words::checkpoint::saved;
use crate::{
    Addr, Cx, Draw, Duration, Gateway, Instant, Lease, MappingProtocol, MappingReason, UnixTime,
};
use alloc::collections::BTreeMap;
use core::net::IpAddr;

/// RFC 6887 §11.2.1: renewals are never closer than this, seconds.
const RENEWAL_GAP: Duration = Duration::from_secs(4);
/// UPnP IGD:2: the longest lease, seconds. What a router says beyond it is not believed; PCP's own
/// limit of a day (RFC 6887 §15) is applied where its answers are read.
const LIFETIME_MAX: Duration = Duration::from_secs(604_800);

/// How far apart two ends of a mapping may be to be the same, seconds; ours: protocols count in whole
/// seconds, and an answer may be sent for twice.
const ENDS_ALIKE: Duration = Duration::from_secs(5);

/// Everything we hold, want or give back, by serial number.
pub(super) type Grants = BTreeMap<u64, Grant>;

/// One mapping at one router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) internal: Addr,
    pub(super) router: IpAddr,
    pub(super) protocol: MappingProtocol,
    /// What the router granted, or what we suggest.
    pub(super) external_ip: Option<IpAddr>,
    pub(super) external_port: u16,
    /// Ties renewals and the deletion to us (PCP).
    pub(super) nonce: [u8; 12],
    /// The number under which the router knows an IPv6 pinhole (UPnP).
    pub(super) pinhole: Option<u16>,
    pub(super) stage: Stage,
    /// When the router has forgotten it at the latest, whatever we know; `None` is never.
    pub(super) until: Option<Instant>,
    /// The same moment on the wall clock, for a later run of ours.
    pub(super) forgotten: Option<UnixTime>,
}

/// How far a mapping is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// To be asked for, or asked for already.
    Asking,
    /// Granted.
    Held(Term),
    /// To be given back.
    Leaving,
}

/// A granted period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Term {
    granted_at: Instant,
    lifetime: Option<Duration>,
    renewals: u8,
    /// When to ask for the next period; for a mapping without an end, when to look after it.
    pub(super) renew_at: Option<Instant>,
}

impl Term {
    /// Granted for this long; `None` until it is deleted.
    fn new(now: Instant, draw: &mut dyn Draw, lifetime: Option<Duration>) -> Term {
        let mut term = Term { granted_at: now, lifetime, renewals: 0, renew_at: None };
        term.renew_at = term.rung(draw);
        term
    }

    /// RFC 6887 §11.2.1: the first renewal falls between a half and five eighths of the lifetime,
    /// the next between three quarters and a sixteenth more, and so on.
    fn rung(&self, draw: &mut dyn Draw) -> Option<Instant> {
        let lifetime = u64::try_from(self.lifetime?.as_nanos()).unwrap_or(u64::MAX);
        let step = u32::from(self.renewals.min(40));
        let start = lifetime - (lifetime >> (step + 1));
        let at = start + draw.below((lifetime >> (step + 3)).max(1));
        Some(self.granted_at + Duration::from_nanos(at))
    }

    /// The renewal was not granted, or not answered.
    pub(super) fn renewal_failed(&mut self, now: Instant, draw: &mut dyn Draw) {
        self.renewals = self.renewals.saturating_add(1);
        self.renew_at = self.rung(draw).map(|at| at.max(now + RENEWAL_GAP));
    }
}

impl Grant {
    /// The router granted it.
    pub(super) fn granted(&mut self, cx: &mut Cx<'_>, given: Given) {
        let lifetime = given.lifetime.map(|lifetime| lifetime.min(LIFETIME_MAX));
        self.external_ip = given.ip;
        self.external_port = given.port;
        self.pinhole = given.pinhole;
        self.lasts(cx, lifetime);
        self.stage = Stage::Held(Term::new(cx.now, cx.draw, lifetime));
    }

    /// The router forgets it after so long at the latest.
    pub(super) fn lasts(&mut self, cx: &Cx<'_>, lifetime: Option<Duration>) {
        self.until = lifetime.map(|lifetime| cx.now + lifetime);
        self.forgotten = lifetime.map(|lifetime| cx.unix + lifetime);
    }

    /// It was not granted for longer. One that was asked for before its time holds as it did.
    pub(super) fn renewal_failed(&mut self, cx: &mut Cx<'_>) {
        let is_due = self.is_due(cx.now);
        if let Stage::Held(term) = &mut self.stage
            && is_due
        {
            term.renewal_failed(cx.now, cx.draw);
        }
    }

    /// Ask for it anew at `at`, although it holds: the router has forgotten it.
    pub(super) fn ask_again_at(&mut self, at: Instant) {
        if let Stage::Held(term) = &mut self.stage {
            term.renewals = 0;
            term.renew_at = Some(term.renew_at.map_or(at, |renew_at| renew_at.min(at)));
        }
    }

    /// Whether it has to wait until an earlier one of the same address is given back: the router
    /// would take the one for the other.
    pub(super) fn is_blocked(&self, grants: &Grants) -> bool {
        let same = |other: &&Grant| {
            other.is_leaving()
                && (other.router, other.protocol) == (self.router, self.protocol)
                && other.internal == self.internal
        };
        self.stage == Stage::Asking && grants.values().any(|other| same(&other))
    }

    /// Whether this gateway is to be asked for it. Two of our addresses may have the same router and
    /// the same port; then each has its own gateway, and whoever asks is whose port is mapped.
    pub(super) fn is_of(&self, gateway: &Gateway) -> bool {
        self.router == gateway.router && serves(gateway, self.internal.ip)
    }

    /// Whether the router can be told which mapping is meant: a pinhole by UPnP goes by its number.
    pub(super) fn is_known(&self) -> bool {
        self.protocol != MappingProtocol::Upnp
            || self.internal.ip.is_ipv4()
            || self.pinhole.is_some()
    }

    pub(super) fn is_leaving(&self) -> bool {
        matches!(self.stage, Stage::Leaving)
    }

    pub(super) fn term(&self) -> Option<Term> {
        if let Stage::Held(term) = self.stage { Some(term) } else { None }
    }

    /// For how much longer it holds, where that has an end.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        self.term()?;
        Some(self.until?.since(now))
    }

    /// Whether an answer only says what we know: it was asked before its time, to see whether the router
    /// still says the same.
    pub(super) fn is_confirmed(&self, now: Instant, given: &Given) -> bool {
        let known = self.left(now).filter(|_| !self.is_due(now));
        let ends_alike = known.zip(given.lifetime).is_some_and(|(known, told)| {
            known.saturating_sub(told).max(told.saturating_sub(known)) <= ENDS_ALIKE
        });
        ends_alike && (self.external_ip, self.external_port) == (given.ip, given.port)
    }

    /// Whether its next request is due.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        match self.stage {
            Stage::Asking | Stage::Leaving => true,
            Stage::Held(term) => term.renew_at.is_some_and(|at| at <= now),
        }
    }

    /// The external address, where a router has granted one.
    pub(super) fn external(&self) -> Option<Addr> {
        self.term()?;
        Some(Addr::new(self.external_ip?, self.external_port, self.internal.transport))
    }

    /// What is told of it.
    pub(super) fn lease(&self) -> Option<Lease> {
        let Grant { router, protocol, .. } = *self;
        let unspecified = if self.internal.ip.is_ipv4() {
            IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED)
        } else {
            IpAddr::V6(core::net::Ipv6Addr::UNSPECIFIED)
        };
        let ip = self.external_ip.unwrap_or(unspecified);
        let external = Addr::new(ip, self.external_port, self.internal.transport);
        let lifetime = self.term()?.lifetime;
        Some(Lease { router, protocol, external, lifetime })
    }
}

/// What a router granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Given {
    /// The external IP, where the protocol tells it.
    pub(super) ip: Option<IpAddr>,
    pub(super) port: u16,
    /// `None` until it is deleted.
    pub(super) lifetime: Option<Duration>,
    pub(super) pinhole: Option<u16>,
}

/// Why a router did not grant a mapping, and what is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) reason: MappingReason,
    pub(super) remedy: Remedy,
}

/// What is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Do not ask by this protocol for so long.
    HoldOff(Duration),
    /// Ask for another external port.
    OtherPort,
    /// Ask for the external port that is ours inside.
    SamePort,
}

saved!(struct Grant {
    internal, router, protocol, external_ip, external_port, nonce, pinhole, stage, until,
    forgotten,
});
saved!(enum Stage { 1 = Asking, 2 = Held(term), 3 = Leaving });
saved!(struct Term { granted_at, lifetime, renewals, renew_at });

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::fake::Middle;

    #[test]
    fn renewals_climb_a_ladder_and_keep_their_distance() {
        let hour = Duration::from_secs(3_600);
        let mut term = Term::new(Instant::ZERO, &mut Middle, Some(hour));
        let mut rungs = alloc::vec::Vec::new();
        for _ in 0..4 {
            let at = term.renew_at.expect("a period ends");
            rungs.push(at.as_nanos() / 1_000_000_000);
            term.renewal_failed(at, &mut Middle);
        }
        // Middles of [1800, 2250], [2700, 2925], [3150, 3262], [3375, 3431].
        assert_eq!(rungs, [2_025, 2_812, 3_206, 3_403]);

        let short = Some(Duration::from_secs(8));
        let mut term = Term::new(Instant::ZERO, &mut Middle, short);
        let first = term.renew_at.expect("a period ends");
        term.renewal_failed(first, &mut Middle);
        assert_eq!(term.renew_at, Some(first + RENEWAL_GAP));
        assert_eq!(Term::new(Instant::ZERO, &mut Middle, None).renew_at, None);
    }
}
