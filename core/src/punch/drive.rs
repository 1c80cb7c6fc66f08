//! Circuits that others opened to us: we begin, and are the server.

use super::offer::{self, Failure, Offer};
use super::predict::{self, Part, Sampling};
use super::{ANSWER_TIMEOUT, ATTEMPT_MAX, ATTEMPTS_MAX, Ground, Punching, cancel, dial, stream};
use crate::reachability::Verdict;
use crate::wire::punch::{Prediction, PunchMessage};
use crate::words::checkpoint::saved;
use crate::words::sleep::Sleep;
use crate::{
    Action, Class, ConnId, Cx, Deadline, Duration, Instant, Notice, Oddity, PeerId, PunchFailure,
    PunchId, PunchNotice, PunchWay, Scope, Side, StreamEnd, StreamId, Wake,
};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use bytes::Bytes;

/// Attempts in a row (DCUtR §The Protocol: two retries).
const ATTEMPTS_IN_A_ROW: u8 = 3;
/// How long a plain dial of a peer that lists public addresses is waited for before both punch, ours:
/// four round trips over the circuit, which is how long it takes; this at least and at most.
const PLAIN_FIRST_MIN: Duration = Duration::from_millis(200);
const PLAIN_FIRST_MAX: Duration = Duration::from_secs(1);
/// The first rest after attempts in vain, and the longest, ours. Each doubles it. Less is traffic on
/// a path that was tried, more is a path through a relay for longer than need be.
const REST_FIRST: Duration = Duration::from_secs(60);
const REST_MAX: Duration = Duration::from_secs(3_600);
/// Rests that lengthen the next, number; from there on it is the longest.
const STRIKES_MAX: u32 = 6;
/// How soon news are worth attempts again, ours: news may come in a row.
const NEWS_MIN: Duration = Duration::from_secs(10);

/// How long a peer is left alone after attempts in vain, and `strikes` times before.
pub(super) fn rest(strikes: u32) -> Duration {
    (REST_FIRST * 2u32.saturating_pow(strikes.min(STRIKES_MAX))).min(REST_MAX)
}

/// One circuit on which we begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Drive {
    pub(super) peer: PeerId,
    /// We, or what the peer lists, can be reached otherwise than when it was last tried.
    pub(super) is_news: bool,
    attempts: u8,
    /// The shortest round trip that was measured on the circuit.
    rtt: Option<Duration>,
    /// Dials of listed addresses, which go on until both punch.
    plain: BTreeSet<PunchId>,
    stage: Stage,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// It is its turn as soon as there is room, and an address of ours to be told.
    Ready,
    /// The other side was told where we may be reached; it hears of it when the stream is open, or
    /// at once where that is agreed along with what is said.
    Asking { stream: StreamId, asked_at: Instant, open_at: Option<Instant>, overdue_at: Instant },
    /// It lists public addresses, and they are dialled before both punch.
    Plain { stream: StreamId, theirs: Offer, until: Instant },
    /// Before both punch we have to know which ports our NAT gives out.
    Sampling { stream: StreamId, theirs: Offer, sampling: Sampling },
    /// It was told to dial, and is about to hear it; the class in which ports of ours were predicted.
    Waiting { theirs: Offer, at: Instant, predicted: Option<Class> },
    /// We dial; or have opened our NAT, or need not, and the other side may come until then.
    Dialling { dials: BTreeSet<PunchId>, until: Instant, waits: bool },
    /// It was in vain.
    Resting { since: Instant, until: Instant },
}

impl Drive {
    pub(super) fn new(peer: PeerId) -> Drive {
        Drive {
            peer,
            is_news: false,
            attempts: 0,
            rtt: None,
            plain: BTreeSet::new(),
            stage: Stage::Ready,
        }
    }

    /// It is over: how many attempts there were, if it was under way.
    /// Streams on a circuit that is gone are gone with it.
    pub(super) fn end(mut self, cx: &mut Cx<'_>, stands: bool) -> Option<u8> {
        cancel(cx, &mut self.plain);
        if let Stage::Sampling { sampling, .. } = &mut self.stage {
            sampling.end(cx);
        }
        match &mut self.stage {
            Stage::Asking { stream, .. }
            | Stage::Plain { stream, .. }
            | Stage::Sampling { stream, .. }
                if stands =>
            {
                cx.actions.push(Action::ResetStream { stream: *stream });
            }
            Stage::Dialling { dials, .. } => cancel(cx, dials),
            Stage::Ready
            | Stage::Asking { .. }
            | Stage::Plain { .. }
            | Stage::Sampling { .. }
            | Stage::Waiting { .. } => {}
            Stage::Resting { .. } => return None,
        }
        Some(self.attempts)
    }

    /// Whether it counts among the attempts under way.
    pub(super) fn is_at_work(&self) -> bool {
        !matches!(self.stage, Stage::Ready | Stage::Resting { .. })
    }

    /// Whether the other side has said all that it has to.
    fn has_answer(&self) -> bool {
        matches!(self.stage, Stage::Plain { .. } | Stage::Sampling { .. })
    }

    /// A dial failed: whether it is one of these.
    pub(super) fn failed(&mut self, punch: PunchId) -> bool {
        let dialled = match &mut self.stage {
            Stage::Dialling { dials, .. } => dials.remove(&punch),
            Stage::Sampling { sampling, .. } => sampling.failed(punch),
            Stage::Ready
            | Stage::Asking { .. }
            | Stage::Plain { .. }
            | Stage::Waiting { .. }
            | Stage::Resting { .. } => false,
        };
        dialled || self.plain.remove(&punch)
    }

    pub(super) fn resumed(&mut self, sleep: Sleep) {
        match &mut self.stage {
            Stage::Asking { overdue_at: at, .. }
            | Stage::Plain { until: at, .. }
            | Stage::Waiting { at, .. }
            | Stage::Dialling { until: at, .. } => sleep.put_off(at),
            Stage::Sampling { sampling, .. } => sampling.resumed(sleep),
            Stage::Ready | Stage::Resting { .. } => {}
        }
    }

    pub(super) fn deadline(&self) -> Option<Deadline> {
        let (at, wake) = match &self.stage {
            Stage::Ready => return None,
            Stage::Asking { overdue_at, .. } => (*overdue_at, Wake::PunchOverdue),
            Stage::Plain { until, .. } | Stage::Dialling { until, .. } => {
                (*until, Wake::PunchOverdue)
            }
            Stage::Sampling { sampling, .. } => return Some(sampling.deadline()),
            Stage::Waiting { at, .. } => (*at, Wake::PunchDue),
            Stage::Resting { since, until } if self.is_news => {
                ((*since + NEWS_MIN).min(*until), Wake::PunchDue)
            }
            Stage::Resting { until, .. } => (*until, Wake::PunchDue),
        };
        Some(Deadline::new(at, wake))
    }
}

impl Punching {
    /// The circuit on whose stream of ours something is waited for.
    pub(super) fn asked_on(&self, on: StreamId) -> Option<ConnId> {
        let asked = |drive: &Drive| match &drive.stage {
            Stage::Asking { stream, .. }
            | Stage::Plain { stream, .. }
            | Stage::Sampling { stream, .. } => *stream == on,
            Stage::Ready
            | Stage::Waiting { .. }
            | Stage::Dialling { .. }
            | Stage::Resting { .. } => false,
        };
        self.drives.iter().find(|(_, drive)| asked(drive)).map(|(conn, _)| *conn)
    }

    /// The other side sends no more on a stream of ours. It may have said all that it has to.
    pub(super) fn hushed(&mut self, cx: &mut Cx<'_>, stream: StreamId, end: StreamEnd) {
        let Some(conn) = self.asked_on(stream) else { return };
        let Some(drive) = self.drives.get_mut(&conn) else { return };
        let has_answered = drive.has_answer();
        if end == StreamEnd::Finished {
            if has_answered {
                return;
            }
            cx.actions.push(Action::ResetStream { stream });
        }
        drive.attempts = drive.attempts.saturating_add(1);
        self.in_vain(cx, conn, (PunchFailure::BadAnswer, None));
    }

    /// A stream of ours is open.
    pub(super) fn asked(&mut self, now: Instant, on: StreamId) {
        for drive in self.drives.values_mut() {
            if let Stage::Asking { stream, open_at, .. } = &mut drive.stage
                && *stream == on
            {
                *open_at = Some(now);
            }
        }
    }

    /// The other side answers where it may be reached.
    pub(super) fn answered(
        &mut self,
        cx: &mut Cx<'_>,
        ground: &Ground<'_>,
        stream: StreamId,
        body: &Bytes,
    ) -> Result<(), Oddity> {
        let conn = self.asked_on(stream).ok_or(Oddity::UnknownStream)?;
        let Some(drive) = self.drives.get_mut(&conn) else { return Err(Oddity::UnknownStream) };
        if drive.has_answer() {
            return Err(Oddity::UnexpectedFrame);
        }
        let said = PunchMessage::decode(body);
        let Ok(PunchMessage::Connect { addrs, behaviors, prediction }) = said else {
            cx.actions.push(Action::ResetStream { stream });
            drive.attempts = drive.attempts.saturating_add(1);
            self.in_vain(cx, conn, (PunchFailure::BadAnswer, None));
            return Err(said.map_or(Oddity::MalformedFrame, |_| Oddity::UnexpectedFrame));
        };
        let theirs = Offer::read(&addrs, behaviors, prediction);
        if let Stage::Asking { asked_at, open_at, .. } = drive.stage {
            // The stream opens in a round trip, and the answer comes after another; or the one comes
            // along with the other. The longer of both spans is a round trip, whichever it is.
            let open_at = open_at.unwrap_or(cx.now);
            let sample = open_at.since(asked_at).max(cx.now.since(open_at));
            let measured = ground.peers.get(conn).and_then(|one| one.rtt);
            drive.rtt = [Some(sample), measured, drive.rtt].into_iter().flatten().min();
        }
        let listed = self.listed.get(&conn).filter(|_| drive.attempts == 0);
        // What it meant when it was listed may be our own address by now.
        let plain = offer::public(ground, listed.into_iter().flatten().copied());
        let plain = plain.into_iter().map(|addr| (addr, PunchWay::Plain)).collect();
        let peer = drive.peer;
        drive.plain = dial(cx, &mut self.minted, peer, plain, ATTEMPT_MAX);
        let patience = drive.rtt.map_or(PLAIN_FIRST_MAX, |rtt| rtt * 4);
        let patience = patience.clamp(PLAIN_FIRST_MIN, PLAIN_FIRST_MAX);
        let until = if drive.plain.is_empty() { cx.now } else { cx.now + patience };
        drive.stage = Stage::Plain { stream, theirs, until };
        Ok(())
    }

    /// An attempt came to nothing: another one follows, or a rest.
    pub(super) fn in_vain(&mut self, cx: &mut Cx<'_>, conn: ConnId, (reason, class): Failure) {
        let Some(drive) = self.drives.get_mut(&conn) else { return };
        let (peer, attempts) = (drive.peer, drive.attempts);
        cancel(cx, &mut drive.plain);
        if let Stage::Sampling { sampling, .. } = &mut drive.stage {
            sampling.end(cx);
        }
        if matches!(reason, PunchFailure::BadAnswer | PunchFailure::NotReached)
            && attempts < ATTEMPTS_IN_A_ROW
        {
            drive.stage = Stage::Ready;
            return;
        }
        let until = self.remember(cx.now, peer, reason);
        if let Some(drive) = self.drives.get_mut(&conn) {
            drive.is_news = false;
            drive.stage = Stage::Resting { since: cx.now, until };
        }
        let news = PunchNotice::Failed { peer, reason, attempts, class };
        cx.actions.notify(Notice::Punch(news));
    }

    /// Take every circuit as far as it goes by itself.
    pub(super) fn drive_on(&mut self, cx: &mut Cx<'_>, ground: &Ground<'_>) {
        let all: Vec<ConnId> = self.drives.keys().copied().collect();
        for conn in all {
            // Each turn leads to a later stage or to a rest; three attempts have five of them each.
            while self.turn(cx, ground, conn) {}
        }
    }

    /// One turn. Whether there may be another.
    fn turn(&mut self, cx: &mut Cx<'_>, ground: &Ground<'_>, conn: ConnId) -> bool {
        let Some(drive) = self.drives.get_mut(&conn) else { return false };
        let now = cx.now;
        let overdue = drive.deadline().is_some_and(|deadline| deadline.at <= now);
        match &mut drive.stage {
            Stage::Ready => self.begin(cx, conn),
            Stage::Asking { stream, .. } if overdue => {
                cx.actions.push(Action::ResetStream { stream: *stream });
                drive.attempts = drive.attempts.saturating_add(1);
                self.in_vain(cx, conn, (PunchFailure::BadAnswer, None));
                true
            }
            Stage::Plain { .. } if overdue || drive.plain.is_empty() => {
                self.agree(cx, ground, conn);
                true
            }
            Stage::Sampling { sampling, .. } => {
                let is_done = sampling.look(cx, ground);
                if is_done {
                    sampling.end(cx);
                    self.foresee(cx, ground, conn);
                }
                is_done
            }
            Stage::Waiting { .. } if overdue => {
                self.punch(cx, ground, conn);
                true
            }
            Stage::Dialling { dials, waits, .. } if overdue || (dials.is_empty() && !*waits) => {
                cancel(cx, dials);
                self.in_vain(cx, conn, (PunchFailure::NotReached, None));
                true
            }
            Stage::Resting { .. } if overdue => {
                drive.attempts = 0;
                drive.is_news = false;
                self.memory.entry(drive.peer).and_modify(|outcome| outcome.until = now);
                drive.stage = Stage::Ready;
                true
            }
            Stage::Asking { .. }
            | Stage::Plain { .. }
            | Stage::Waiting { .. }
            | Stage::Dialling { .. }
            | Stage::Resting { .. } => false,
        }
    }

    /// Tell the other side where we may be reached, if it is our turn.
    fn begin(&mut self, cx: &mut Cx<'_>, conn: ConnId) -> bool {
        let Some(peer) = self.drives.get(&conn).map(|drive| drive.peer) else { return false };
        let known = self.memory.get(&peer).filter(|outcome| outcome.until > cx.now).copied();
        let at_work = self.drives.values().filter(|drive| drive.is_at_work());
        let (others, same): (Vec<&Drive>, Vec<&Drive>) =
            at_work.partition(|drive| drive.peer != peer);
        let may = others.len() < ATTEMPTS_MAX && same.is_empty() && !self.offer.addrs.is_empty();
        if known.is_none() && !may {
            return false;
        }
        let told = self.offer.message().encode();
        let Some(drive) = self.drives.get_mut(&conn) else { return false };
        if let Some(super::Outcome { until, reason, .. }) = known {
            drive.stage = Stage::Resting { since: cx.now, until };
            let attempts = drive.attempts;
            let news = PunchNotice::Failed { peer, reason, attempts, class: None };
            cx.actions.notify(Notice::Punch(news));
            return false;
        }
        let stream = stream(&mut self.streams);
        let overdue_at = cx.now + ANSWER_TIMEOUT;
        drive.stage = Stage::Asking { stream, asked_at: cx.now, open_at: None, overdue_at };
        cx.actions.push(Action::OpenStream { conn, stream });
        cx.actions.push(Action::Send { stream, body: told });
        false
    }

    /// Both know where the other may be reached: tell the other side to dial, if that is any use.
    fn agree(&mut self, cx: &mut Cx<'_>, ground: &Ground<'_>, conn: ConnId) {
        let Some(drive) = self.drives.get_mut(&conn) else { return };
        let Stage::Plain { stream, theirs, .. } = &drive.stage else { return };
        let (stream, theirs, peer) = (*stream, theirs.clone(), drive.peer);
        let part = predict::part(ground, &self.offer, &theirs, drive.attempts);
        let sampled = match part {
            Some(Part::Predicts(class)) => self.sample(cx, ground, peer, class).map(Some),
            // It could not see what its NAT gives out, and may another time.
            Some(Part::Opens(_)) if theirs.prediction == Prediction::TakesPart => {
                Err((PunchFailure::NotReached, None))
            }
            Some(Part::Opens(_)) | None => Ok(None),
        };
        let plain = offer::dials(ground, Side::Inbound, &self.offer, &theirs);
        match (sampled, plain) {
            (Ok(Some(sampling)), _) => {
                if let Some(drive) = self.drives.get_mut(&conn) {
                    drive.stage = Stage::Sampling { stream, theirs, sampling };
                }
            }
            (Ok(None), Err((PunchFailure::NoCommonAddress, _)))
                if part.is_none() && ground.gets_in(&self.offer) =>
            {
                self.tell(cx, conn, (stream, theirs), Prediction::Off);
            }
            (Ok(None), Err(failure)) if part.is_none() => {
                self.give_way(cx, conn, stream, failure);
            }
            (Err(failure), Err(_)) => self.give_way(cx, conn, stream, failure),
            (Ok(None) | Err(_), _) => self.tell(cx, conn, (stream, theirs), Prediction::Off),
        }
    }

    /// What our NAT gives out is known, if it ever is.
    fn foresee(&mut self, cx: &mut Cx<'_>, ground: &Ground<'_>, conn: ConnId) {
        let Some(drive) = self.drives.get_mut(&conn) else { return };
        let Stage::Sampling { stream, theirs, sampling } = &drive.stage else { return };
        let (stream, theirs) = (*stream, theirs.clone());
        let plain = offer::dials(ground, Side::Inbound, &self.offer, &theirs);
        match (sampling.predicted(ground, &self.offer), plain) {
            (Ok(ports), _) => self.tell(cx, conn, (stream, theirs), Prediction::Ports(ports)),
            (Err(_), Ok(_)) => self.tell(cx, conn, (stream, theirs), Prediction::Off),
            (Err(failure), Err(_)) => self.give_way(cx, conn, stream, failure),
        }
    }

    /// The other side is not told to dial.
    fn give_way(&mut self, cx: &mut Cx<'_>, conn: ConnId, stream: StreamId, failure: Failure) {
        cx.actions.push(Action::ResetStream { stream });
        if let Some(drive) = self.drives.get_mut(&conn)
            && failure.0 == PunchFailure::NotReached
        {
            drive.attempts = drive.attempts.saturating_add(1);
        }
        self.in_vain(cx, conn, failure);
    }

    /// Tell the other side to dial.
    fn tell(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        (stream, theirs): (StreamId, Offer),
        prediction: Prediction,
    ) {
        let Some(drive) = self.drives.get_mut(&conn) else { return };
        drive.attempts = drive.attempts.saturating_add(1);
        let news =
            PunchNotice::Attempted { peer: drive.peer, circuit: conn, attempt: drive.attempts };
        let predicted = match prediction {
            Prediction::Ports(ports) => Some(ports.class),
            Prediction::Off | Prediction::TakesPart => None,
        };
        let rtt = drive.rtt.unwrap_or_default();
        let patience = match theirs.prediction {
            // Where it has predicted ports, our NAT is open the better the earlier.
            Prediction::Ports(_) => Duration::ZERO,
            // And where we have, its packets should have come to our NAT, in vain, before we dial: over TCP
            // they would undo ours.
            Prediction::Off | Prediction::TakesPart if predicted.is_some() => rtt,
            // DCUtR §The Protocol: it hears of it half a round trip from now.
            Prediction::Off | Prediction::TakesPart => rtt / 2,
        };
        drive.stage = Stage::Waiting { theirs, at: cx.now + patience, predicted };
        cx.actions.push(Action::Send { stream, body: PunchMessage::Sync { prediction }.encode() });
        cx.actions.push(Action::CloseStream { stream });
        cx.actions.notify(Notice::Punch(news));
    }

    /// The other side dials by now, and so do we.
    fn punch(&mut self, cx: &mut Cx<'_>, ground: &Ground<'_>, conn: ConnId) {
        let Some(drive) = self.drives.get_mut(&conn) else { return };
        let Stage::Waiting { theirs, predicted, .. } = &drive.stage else { return };
        let (theirs, predicted, peer) = (theirs.clone(), *predicted, drive.peer);
        // A plain dial of the same address would take the socket, and meet the other side's as a client.
        cancel(cx, &mut drive.plain);
        let dials = self.all_dials(cx.now, ground, Side::Inbound, (&theirs, predicted));
        // Who names nothing that we could dial may get in.
        let waits = dials.is_empty() || predict::waits(&dials);
        let dials = dial(cx, &mut self.minted, peer, dials, ATTEMPT_MAX);
        if let Some(drive) = self.drives.get_mut(&conn) {
            drive.stage = Stage::Dialling { dials, until: cx.now + ATTEMPT_MAX, waits };
        }
    }
}

impl Ground<'_> {
    /// Whether somebody who does not know where he can be reached may get in where we say that we
    /// can be.
    fn gets_in(&self, ours: &Offer) -> bool {
        let verdicts = ours.addrs.iter().filter_map(|addr| self.reachability.verdict(*addr));
        let mut scopes = verdicts.filter_map(Verdict::scope);
        scopes.any(|scope| scope != Scope::ContactedOnly)
    }
}

saved!(struct Drive { peer, is_news, attempts, rtt, plain, stage });
saved!(enum Stage {
    1 = Ready,
    2 = Asking { stream, asked_at, open_at, overdue_at },
    3 = Plain { stream, theirs, until },
    4 = Sampling { stream, theirs, sampling },
    5 = Waiting { theirs, at, predicted },
    6 = Dialling { dials, until, waits },
    7 = Resting { since, until },
});
