//! Which ports our NAT is about to give out, for pairs that cannot meet otherwise; opt-in.
//!
//! ```text
//!  our mapping depends on the endpoint:  samples ─► the ports that come next are told ─► one dial, from
//!                                                                                        a fresh port
//!  the other side's does:                one packet to each port that it tells ─► it is waited for
//! ```
//!
//! A sample is a connection to somebody who is connected already, from a port that nothing used, and
//! what he says of where that is seen: the newest mapping of our NAT. It is closed at once. What it
//! costs is bounded: `SAMPLES` connections an attempt and `SAMPLES_MIN` a minute on the one side,
//! [`PREDICTED_PORTS_MAX`] packets an attempt and [`PREDICTED_PORTS_MIN`] a minute on the other, to one
//! IP that the peer has named anyway, and to ports that are not privileged.

use super::offer::{self, Dials, Failure, Offer, dialable, in_order};
use super::{Ground, Punching, cancel, outlook};
use crate::candidates::may_be_dialled;
use crate::config::{PREDICTED_PORTS_MAX, PREDICTED_PORTS_MIN};
use crate::wire::punch::{PredictedPorts, Prediction};
use crate::words::checkpoint::{BadCheckpoint, Loader, Saved, Saver, saved};
use crate::words::sleep::Sleep;
use crate::{
    Action, Addr, Class, ConnId, Cx, Deadline, Duration, Instant, PeerId, PunchFailure, PunchId,
    PunchWay, Side, Wake,
};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

/// Connections that an attempt begins to see what our NAT gives out, number; ours: two are enough,
/// and one may be lost. Work for servers that we are connected to grows with it.
const SAMPLES: usize = 3;
/// How many of them must be seen, number; ours: two mappings made at one moment are next to each
/// other where there is an order, and by chance one time in 500 where there is none.
const SAMPLES_NEEDED: usize = 2;
/// Such connections in a minute, number; ours: what strangers can have us do to our servers grows
/// with it. When used up, an attempt is in vain.
const SAMPLES_MIN: usize = 18;
/// How long they may take, ours: the handshakes and identify over a slow path. A sample that comes
/// later says little.
const SAMPLES_TIMEOUT: Duration = Duration::from_secs(3);
/// How far apart two samples may be, ports; ours: other hosts get ports in between. If it grows,
/// so does what is taken for an order by chance.
const SPREAD_MAX: i32 = 64;
/// The longest step from one port to the next, ports; ours: known NATs take one or two.
const STEP_MAX: i32 = 16;

/// What is ours to do where one NAT's ports have to be predicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Say which ports come next, and dial.
    Predicts(Class),
    /// Send to the ports that the other side predicts.
    Opens(Class),
}

/// What a pair that does not meet otherwise may do, if both sides take part. Where there are two
/// classes, attempts take turns. Who is told of ports need not know why.
pub(super) fn part(
    ground: &Ground<'_>,
    ours: &Offer,
    theirs: &Offer,
    attempts: u8,
) -> Option<Part> {
    if ours.prediction == Prediction::Off || theirs.prediction == Prediction::Off {
        return None;
    }
    let told = match theirs.prediction {
        Prediction::Ports(ports) => Some(ports.class),
        Prediction::Off | Prediction::TakesPart => None,
    };
    let may = |class: &Class| {
        let (own, other) = (ours.behaviors.get(*class), theirs.behaviors.get(*class));
        told.is_none_or(|told| told == *class)
            && outlook::may_be_predicted(own, other, attempts > 0 || told.is_some())
            && dialable(ground, theirs).any(|addr| addr.class() == *class)
    };
    let all: Vec<Class> = in_order().filter(may).collect();
    let class = *all.get(usize::from(attempts).checked_rem(all.len())?)?;
    let depends = ours.behaviors.get(class).mapping.is_endpoint_dependent();
    Some(if depends { Part::Predicts(class) } else { Part::Opens(class) })
}

/// Samples under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sampling {
    class: Class,
    /// In the order in which they were sent.
    samples: Vec<Sample>,
    /// Connections that look alike, and are somebody else's.
    before: BTreeSet<ConnId>,
    until: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sample {
    peer: PeerId,
    addr: Addr,
    /// While it may still come to a connection.
    punch: Option<PunchId>,
    conn: Option<ConnId>,
    seen: Option<Addr>,
}

impl Sampling {
    /// A dial failed: whether it is one of these.
    pub(super) fn failed(&mut self, punch: PunchId) -> bool {
        let found = self.samples.iter_mut().find(|one| one.punch == Some(punch));
        found.map(|one| one.punch = None).is_some()
    }

    pub(super) fn resumed(&mut self, sleep: Sleep) {
        sleep.put_off(&mut self.until);
    }

    pub(super) fn deadline(&self) -> Deadline {
        Deadline::new(self.until, Wake::PunchOverdue)
    }

    /// Take over what is known by now. Whether it is enough, or nothing more is to come.
    pub(super) fn look(&mut self, cx: &mut Cx<'_>, ground: &Ground<'_>) -> bool {
        for (conn, one) in ground.peers.iter() {
            let known = |sample: &Sample| sample.conn == Some(conn);
            if !looks_like_a_sample(ground, one)
                || self.before.contains(&conn)
                || self.samples.iter().any(known)
            {
                continue;
            }
            let fits = |sample: &&mut Sample| {
                sample.conn.is_none() && (sample.peer, sample.addr) == (one.peer, one.remote)
            };
            if let Some(sample) = self.samples.iter_mut().find(fits) {
                (sample.conn, sample.punch) = (Some(conn), None);
            }
        }
        for sample in self.samples.iter_mut().filter(|one| one.seen.is_none()) {
            let Some(conn) = sample.conn else { continue };
            sample.seen = ground.peers.get(conn).and_then(|one| one.observed);
            if sample.seen.is_some() {
                cx.actions.push(Action::Disconnect { conn });
            }
        }
        let seen = self.samples.iter().filter(|one| one.seen.is_some()).count();
        let is_open = |one: &Sample| {
            let stands = one.conn.is_some_and(|conn| ground.peers.get(conn).is_some());
            one.seen.is_none() && (one.punch.is_some() || stands)
        };
        seen >= SAMPLES_NEEDED || self.until <= cx.now || !self.samples.iter().any(is_open)
    }

    /// Nothing more is sent for it.
    pub(super) fn end(&mut self, cx: &mut Cx<'_>) {
        let mut dials = self.samples.iter_mut().filter_map(|one| one.punch.take()).collect();
        cancel(cx, &mut dials);
        for sample in self.samples.iter_mut().filter(|one| one.seen.is_none()) {
            if let Some(conn) = sample.conn.take() {
                cx.actions.push(Action::Disconnect { conn });
            }
        }
    }

    /// What comes next, if there is an order: of our address that the other side knows.
    pub(super) fn predicted(
        &self,
        ground: &Ground<'_>,
        ours: &Offer,
    ) -> Result<PredictedPorts, Failure> {
        let class = self.class;
        let no_order = (PunchFailure::Unpredictable, Some(class));
        let seen: Vec<(Addr, Addr)> =
            self.samples.iter().filter_map(|one| Some((one.addr, one.seen?))).collect();
        if seen.len() < SAMPLES_NEEDED {
            return Err((PunchFailure::NotReached, None));
        }
        let told = ours.addrs.iter().find(|addr| addr.class() == class);
        let told = told.ok_or((PunchFailure::NoCommonAddress, None))?;
        if seen.iter().any(|(_, seen)| seen.ip != told.ip || seen.class() != class) {
            return Err(no_order);
        }
        let values = ground.observed.values(class).iter();
        let older = values.filter(|(addr, _)| addr.ip == told.ip).map(|(addr, _)| addr.port);
        let ports: Vec<u16> = seen.iter().map(|(_, seen)| seen.port).collect();
        // Whose packet left first is known only where they went to different addresses.
        let ordered = seen.first().map(|(to, _)| to) != seen.last().map(|(to, _)| to);
        next(class, &ports, ordered, older).ok_or(no_order)
    }
}

/// The ports that follow upon `samples`, which were made one after the other. The difference between
/// any two ports of one NAT is a multiple of its step.
fn next(
    class: Class,
    samples: &[u16],
    ordered: bool,
    older: impl Iterator<Item = u16>,
) -> Option<PredictedPorts> {
    let ports: Vec<i32> = samples.iter().map(|port| i32::from(*port)).collect();
    let (low, high) = (*ports.iter().min()?, *ports.iter().max()?);
    let (first, last) = (*ports.first()?, *ports.last()?);
    let distinct: BTreeSet<i32> = ports.iter().copied().collect();
    if high - low > SPREAD_MAX || distinct.len() < ports.len() {
        return None;
    }
    let differences = older.map(i32::from).chain(ports).map(|port| (port - low).abs());
    let step = differences.fold(0, common_divisor);
    if step > STEP_MAX {
        return None;
    }
    let falls = ordered && last < first;
    let (newest, step) = if falls { (low, -step) } else { (high, step) };
    let first = u16::try_from(newest + step).ok().filter(|port| *port > 0)?;
    let count = u8::try_from(PREDICTED_PORTS_MAX).ok()?;
    Some(PredictedPorts { class, first, step: i16::try_from(step).ok()?, count })
}

/// The greatest number that divides both (Euclid's algorithm).
fn common_divisor(mut a: i32, mut b: i32) -> i32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Whether a connection could be a sample: it left from a port that we do not listen on.
fn looks_like_a_sample(ground: &Ground<'_>, one: &crate::peers::Connection) -> bool {
    !one.relayed && one.side == Side::Outbound && !ground.local.listens_on(one.local)
}

impl Punching {
    /// Look at what our NAT gives out, while we talk to `peer`.
    pub(super) fn sample(
        &mut self,
        cx: &mut Cx<'_>,
        ground: &Ground<'_>,
        peer: PeerId,
        class: Class,
    ) -> Result<Sampling, Failure> {
        let mut witnesses = witnesses(ground, peer, class);
        witnesses.truncate(SAMPLES);
        if witnesses.is_empty() {
            return Err((PunchFailure::Unpredictable, Some(class)));
        }
        let alike = |(_, one): &(ConnId, &crate::peers::Connection)| {
            let there = (one.peer, one.remote);
            looks_like_a_sample(ground, one) && witnesses.contains(&there)
        };
        let before = ground.peers.iter().filter(alike).map(|(conn, _)| conn).collect();
        let room =
            (0..SAMPLES).take_while(|_| self.sampled.take(cx.now, SAMPLES_MIN).is_ok()).count();
        if room < SAMPLES_NEEDED {
            return Err((PunchFailure::NotReached, None));
        }
        let mut samples = Vec::new();
        for (peer, addr) in witnesses.iter().copied().cycle().take(room) {
            let order = alloc::vec![(addr, PunchWay::Sample)];
            let punch = super::dial(cx, &mut self.minted, peer, order, SAMPLES_TIMEOUT).pop_first();
            samples.push(Sample { peer, addr, punch, conn: None, seen: None });
        }
        Ok(Sampling { class, samples, before, until: cx.now + SAMPLES_TIMEOUT })
    }

    /// The dials of an attempt: those that need no prediction, and those that rest on one: of ours, if
    /// we made one of that class, or of the other side's.
    pub(super) fn all_dials(
        &mut self,
        now: Instant,
        ground: &Ground<'_>,
        side: Side,
        (theirs, mine): (&Offer, Option<Class>),
    ) -> Dials {
        // The one from a fresh port first: each takes a port that our NAT gives out.
        let mut all = self.predicted_dials(now, ground, theirs, mine);
        all.extend(offer::dials(ground, side, &self.offer, theirs).unwrap_or_default());
        all
    }

    fn predicted_dials(
        &mut self,
        now: Instant,
        ground: &Ground<'_>,
        theirs: &Offer,
        mine: Option<Class>,
    ) -> Dials {
        let to = |class: Class| dialable(ground, theirs).find(|addr| addr.class() == class);
        if let Some(class) = mine {
            return to(class).map(|addr| (addr, PunchWay::Predicted)).into_iter().collect();
        }
        let Prediction::Ports(ports) = theirs.prediction else { return Dials::new() };
        if part(ground, &self.offer, theirs, 0) != Some(Part::Opens(ports.class)) {
            return Dials::new();
        }
        // It names an IP that it could have us send to anyway, and no other.
        let Some(known) = to(ports.class) else { return Dials::new() };
        let all = ports.ports().map(|port| Addr { port, ..known });
        let all = all.filter(|addr| ground.may_punch(*addr));
        let all = all.take_while(|_| self.opened.take(now, PREDICTED_PORTS_MIN).is_ok());
        all.map(|addr| (addr, PunchWay::Open)).collect()
    }
}

/// Whether the other side is waited for after these dials have ended: they only open our NAT.
pub(super) fn waits(dials: &Dials) -> bool {
    dials.iter().any(|(_, way)| *way == PunchWay::Open)
}

/// Whom to ask where we are seen: peers that we are connected to and that say so, the nearest first;
/// each address once.
fn witnesses(ground: &Ground<'_>, except: PeerId, class: Class) -> Vec<(PeerId, Addr)> {
    let fit = ground.peers.iter().filter(|(_, one)| {
        !one.relayed
            && one.side == Side::Outbound
            && one.remote.class() == class
            && one.observed.is_some()
            && one.peer != except
            && !one.is_in_doubt()
            && may_be_dialled(one.remote, ground.config.allow_private)
    });
    let mut all: Vec<(Option<Duration>, PeerId, Addr)> =
        fit.map(|(_, one)| (one.rtt, one.peer, one.remote)).collect();
    all.sort_by_key(|(rtt, peer, addr)| (rtt.is_none(), *rtt, *peer, *addr));
    let mut distinct: Vec<(PeerId, Addr)> = Vec::new();
    for (_, peer, addr) in all {
        if !distinct.iter().any(|(_, known)| *known == addr) {
            distinct.push((peer, addr));
        }
    }
    distinct
}

saved!(struct Sampling { class, samples, before, until });
saved!(struct Sample { peer, addr, punch, conn, seen });

impl Saved for PredictedPorts {
    fn save(&self, out: &mut Saver<'_>) {
        let PredictedPorts { class, first, step, count } = self;
        class.save(out);
        first.save(out);
        step.cast_unsigned().save(out);
        count.save(out);
    }

    fn load(from: &mut Loader<'_>) -> Result<PredictedPorts, BadCheckpoint> {
        let (class, first) = (Class::load(from)?, u16::load(from)?);
        let step = u16::load(from)?.cast_signed();
        Ok(PredictedPorts { class, first, step, count: u8::load(from)? })
    }
}

saved!(enum Prediction { 1 = Off, 2 = TakesPart, 3 = Ports(ports) });

#[cfg(test)]
mod tests {
    use super::*;

    fn after(samples: &[u16], ordered: bool, older: &[u16]) -> Option<(u16, i16)> {
        let found = next(Class::ALL[0], samples, ordered, older.iter().copied())?;
        assert_eq!(usize::from(found.count), PREDICTED_PORTS_MAX);
        Some((found.first, found.step))
    }

    #[test]
    fn what_comes_next_follows_upon_the_newest() {
        assert_eq!(after(&[5_000, 5_001], true, &[]), Some((5_002, 1)));
        assert_eq!(after(&[5_001, 5_000], true, &[]), Some((4_999, -1)));
        assert_eq!(after(&[5_001, 5_000], false, &[]), Some((5_002, 1)), "nobody knows the order");
        assert_eq!(after(&[5_000, 5_002, 5_001], true, &[]), Some((5_003, 1)));
    }

    #[test]
    fn a_step_is_what_divides_every_difference() {
        assert_eq!(after(&[5_000, 5_004], true, &[]), Some((5_008, 4)));
        assert_eq!(after(&[5_000, 5_004], true, &[4_802, 4_804]), Some((5_006, 2)));
        assert_eq!(after(&[5_000, 5_004], true, &[4_801, 4_804]), Some((5_005, 1)));
        assert_eq!(after(&[5_006, 5_000], true, &[5_100]), Some((4_998, -2)));
    }

    #[test]
    fn without_an_order_nothing_is_predicted() {
        assert_eq!(after(&[5_000, 9_001], true, &[]), None, "far apart");
        assert_eq!(after(&[5_000, 5_000], true, &[]), None, "the same port twice");
        assert_eq!(after(&[5_000, 5_034], true, &[]), None, "too long a step");
        assert_eq!(after(&[65_534, 65_535], true, &[]), None, "there is no port after it");
        assert_eq!(after(&[], true, &[]), None);
    }
}
