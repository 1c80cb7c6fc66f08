//! Circuits that we opened: their other side begins, and we are the client.

use super::offer::{self, Failure, Offer};
use super::predict::{self, Part, Sampling};
use super::{ANSWER_TIMEOUT, ATTEMPT_MAX, Ground, Punching, cancel, dial};
use crate::wire::punch::{PredictedPorts, Prediction, PunchMessage};
use crate::words::checkpoint::saved;
use crate::words::sleep::Sleep;
use crate::{
    Action, Class, ConnId, Cx, Deadline, Duration, Instant, Notice, Oddity, PeerId, PunchFailure,
    PunchId, PunchNotice, Side, StreamEnd, StreamId, Wake,
};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use bytes::Bytes;

/// How long the other side may take to begin anew after an attempt was in vain, ours: as long as it
/// waits for our answer. After that the attempts are over.
const AGAIN_WITHIN: Duration = ANSWER_TIMEOUT;

/// What the other side of one circuit of ours has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Follow {
    pub(super) peer: PeerId,
    attempts: u8,
    /// The class in which nothing can come of it, unless ports are predicted.
    hopeless: Option<Class>,
    stage: Stage,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// It is about to say where it may be reached.
    Opened { stream: StreamId, overdue_at: Instant },
    /// It has said so, and hears from us once we know which ports our NAT gives out.
    Sampling { stream: StreamId, theirs: Offer, sampling: Sampling },
    /// Both have said so, and it will say when; the class in which ports of ours were predicted.
    Told { stream: StreamId, theirs: Offer, overdue_at: Instant, predicted: Option<Class> },
    /// We dial; or have opened our NAT, and the other side may come until then.
    Dialling { dials: BTreeSet<PunchId>, until: Instant, waits: bool },
    /// It may begin anew.
    Over { until: Instant },
}

impl Follow {
    pub(super) fn new(now: Instant, peer: PeerId, stream: StreamId) -> Follow {
        let stage = Stage::Opened { stream, overdue_at: now + ANSWER_TIMEOUT };
        Follow { peer, attempts: 0, hopeless: None, stage }
    }

    /// This attempt comes after another one, which is over.
    pub(super) fn succeeds(&mut self, cx: &mut Cx<'_>, mut before: Follow) {
        before.stop(cx, true);
        self.attempts = before.attempts;
        self.hopeless = before.hopeless;
    }

    /// Streams on a circuit that is gone are gone with it.
    fn stop(&mut self, cx: &mut Cx<'_>, stands: bool) {
        if let Stage::Sampling { sampling, .. } = &mut self.stage {
            sampling.end(cx);
        }
        match &mut self.stage {
            Stage::Opened { stream, .. }
            | Stage::Sampling { stream, .. }
            | Stage::Told { stream, .. }
                if stands =>
            {
                cx.actions.push(Action::ResetStream { stream: *stream });
            }
            Stage::Dialling { dials, .. } => cancel(cx, dials),
            Stage::Opened { .. }
            | Stage::Sampling { .. }
            | Stage::Told { .. }
            | Stage::Over { .. } => {}
        }
    }

    /// It is over: how many attempts there were, if there were any.
    pub(super) fn end(mut self, cx: &mut Cx<'_>, stands: bool) -> Option<u8> {
        self.stop(cx, stands);
        (self.attempts > 0).then_some(self.attempts)
    }

    pub(super) fn is_on(&self, on: StreamId) -> bool {
        match &self.stage {
            Stage::Opened { stream, .. }
            | Stage::Sampling { stream, .. }
            | Stage::Told { stream, .. } => *stream == on,
            Stage::Dialling { .. } | Stage::Over { .. } => false,
        }
    }

    /// The other side gave up before it said when.
    pub(super) fn hushed(&mut self, cx: &mut Cx<'_>, stream: StreamId, end: StreamEnd) {
        if end == StreamEnd::Finished {
            cx.actions.push(Action::ResetStream { stream });
        }
        if let Stage::Sampling { sampling, .. } = &mut self.stage {
            sampling.end(cx);
        }
        self.stage = Stage::Over { until: cx.now + AGAIN_WITHIN };
    }

    /// A dial failed: whether it is one of these.
    pub(super) fn failed(&mut self, now: Instant, punch: PunchId) -> bool {
        let (dials, waits) = match &mut self.stage {
            Stage::Dialling { dials, waits, .. } => (dials, *waits),
            Stage::Sampling { sampling, .. } => return sampling.failed(punch),
            Stage::Opened { .. } | Stage::Told { .. } | Stage::Over { .. } => return false,
        };
        if !dials.remove(&punch) {
            return false;
        }
        if dials.is_empty() && !waits {
            self.stage = Stage::Over { until: now + AGAIN_WITHIN };
        }
        true
    }

    pub(super) fn resumed(&mut self, sleep: Sleep) {
        match &mut self.stage {
            Stage::Opened { overdue_at: at, .. }
            | Stage::Told { overdue_at: at, .. }
            | Stage::Dialling { until: at, .. }
            | Stage::Over { until: at } => sleep.put_off(at),
            Stage::Sampling { sampling, .. } => sampling.resumed(sleep),
        }
    }

    pub(super) fn deadline(&self) -> Deadline {
        match &self.stage {
            Stage::Opened { overdue_at: at, .. }
            | Stage::Told { overdue_at: at, .. }
            | Stage::Dialling { until: at, .. }
            | Stage::Over { until: at } => Deadline::new(*at, Wake::PunchOverdue),
            Stage::Sampling { sampling, .. } => sampling.deadline(),
        }
    }
}

impl Punching {
    /// The other side says where it may be reached, or when.
    pub(super) fn told(
        &mut self,
        cx: &mut Cx<'_>,
        ground: &Ground<'_>,
        stream: StreamId,
        body: &Bytes,
    ) -> Result<(), Oddity> {
        let found = self.follows.iter().find(|(_, one)| one.is_on(stream));
        let conn = found.map(|(conn, _)| *conn).ok_or(Oddity::UnknownStream)?;
        let Some(follow) = self.follows.get_mut(&conn) else { return Err(Oddity::UnknownStream) };
        match (&mut follow.stage, PunchMessage::decode(body)) {
            (Stage::Opened { .. }, Ok(PunchMessage::Connect { addrs, behaviors, prediction })) => {
                let theirs = Offer::read(&addrs, behaviors, prediction);
                self.answer(cx, ground, (conn, stream), theirs);
                Ok(())
            }
            (Stage::Told { theirs, predicted, .. }, Ok(PunchMessage::Sync { prediction })) => {
                cx.actions.push(Action::CloseStream { stream });
                let (mut theirs, predicted) = (theirs.clone(), *predicted);
                if theirs.prediction != Prediction::Off {
                    theirs.prediction = prediction;
                }
                self.begun_with(cx, ground, conn, (&theirs, predicted));
                Ok(())
            }
            (_, said) => {
                follow.hushed(cx, stream, StreamEnd::Finished);
                Err(said.map_or(Oddity::MalformedFrame, |_| Oddity::UnexpectedFrame))
            }
        }
    }

    /// The other side has said where it may be reached: so do we, at once if nothing has to be
    /// predicted.
    fn answer(
        &mut self,
        cx: &mut Cx<'_>,
        ground: &Ground<'_>,
        (conn, stream): (ConnId, StreamId),
        theirs: Offer,
    ) {
        let Some(Follow { peer, attempts, .. }) = self.follows.get(&conn) else { return };
        let (peer, attempts) = (*peer, *attempts);
        let failure = offer::dials(ground, Side::Outbound, &self.offer, &theirs).err();
        let hopeless = failure.filter(|(reason, _)| *reason == PunchFailure::EndpointDependent);
        let part = predict::part(ground, &self.offer, &theirs, attempts);
        let sampling = match part {
            Some(Part::Predicts(class)) => Some(self.sample(cx, ground, peer, class)),
            Some(Part::Opens(_)) | None => None,
        };
        if let Some(follow) = self.follows.get_mut(&conn) {
            follow.hopeless = hopeless.filter(|_| part.is_some()).and_then(|(_, class)| class);
        }
        let news = hopeless.filter(|_| part.is_none());
        let stage = match sampling {
            Some(Ok(sampling)) => Stage::Sampling { stream, theirs, sampling },
            Some(Err(failure)) => return self.reply(cx, (conn, stream), theirs, Err(failure)),
            None => {
                // Where ours are not known yet, the other side hears that, and can dial nobody.
                let body = self.offer.message().encode();
                cx.actions.push(Action::Send { stream, body });
                let overdue_at = cx.now + ANSWER_TIMEOUT;
                Stage::Told { stream, theirs, overdue_at, predicted: None }
            }
        };
        if let Some((reason, class)) = news {
            let news = PunchNotice::Failed { peer, reason, attempts, class };
            cx.actions.notify(Notice::Punch(news));
        }
        if let Some(follow) = self.follows.get_mut(&conn) {
            follow.stage = stage;
        }
    }

    /// Tell the other side what was predicted; or that there is no order, and that is the end of it;
    /// or that there may be another time.
    fn reply(
        &mut self,
        cx: &mut Cx<'_>,
        (conn, stream): (ConnId, StreamId),
        theirs: Offer,
        predicted: Result<PredictedPorts, Failure>,
    ) {
        let Some(follow) = self.follows.get_mut(&conn) else { return };
        let prediction = match predicted {
            Ok(ports) => Prediction::Ports(ports),
            Err((PunchFailure::NotReached, _)) => Prediction::TakesPart,
            // There are other ways.
            Err(_) if follow.hopeless.is_none() => Prediction::Off,
            Err((reason, class)) => {
                follow.hopeless = None;
                let (peer, attempts) = (follow.peer, follow.attempts);
                let news = PunchNotice::Failed { peer, reason, attempts, class };
                cx.actions.notify(Notice::Punch(news));
                Prediction::Off
            }
        };
        let body = self.offer.predicting(prediction).encode();
        cx.actions.push(Action::Send { stream, body });
        let predicted = predicted.ok().map(|ports| ports.class);
        let overdue_at = cx.now + ANSWER_TIMEOUT;
        follow.stage = Stage::Told { stream, theirs, overdue_at, predicted };
    }

    /// The other side dials, and so do we.
    fn begun_with(
        &mut self,
        cx: &mut Cx<'_>,
        ground: &Ground<'_>,
        conn: ConnId,
        (theirs, predicted): (&Offer, Option<Class>),
    ) {
        let dials = self.all_dials(cx.now, ground, Side::Outbound, (theirs, predicted));
        let plain = offer::dials(ground, Side::Outbound, &self.offer, theirs);
        let Some(follow) = self.follows.get_mut(&conn) else { return };
        // What is hopeless has been named. Who names nothing that we could dial may get in.
        let is_hopeless = matches!(plain, Err((PunchFailure::EndpointDependent, _)));
        if !dials.is_empty() || !is_hopeless {
            follow.attempts = follow.attempts.saturating_add(1);
        }
        follow.stage = if dials.is_empty() {
            Stage::Over { until: cx.now + AGAIN_WITHIN }
        } else {
            let waits = predict::waits(&dials);
            let dials = dial(cx, &mut self.minted, follow.peer, dials, ATTEMPT_MAX);
            Stage::Dialling { dials, until: cx.now + ATTEMPT_MAX, waits }
        };
    }

    /// Go on where samples have come, and give up what is overdue.
    pub(super) fn follow_on(&mut self, cx: &mut Cx<'_>, ground: &Ground<'_>) {
        let all: Vec<ConnId> = self.follows.keys().copied().collect();
        for conn in all {
            self.look(cx, ground, conn);
            let Some(follow) = self.follows.get_mut(&conn) else { continue };
            if follow.deadline().at > cx.now {
                continue;
            }
            follow.stop(cx, true);
            if !matches!(follow.stage, Stage::Over { .. }) {
                follow.stage = Stage::Over { until: cx.now + AGAIN_WITHIN };
                continue;
            }
            let Some(Follow { peer, attempts, hopeless, .. }) = self.follows.remove(&conn) else {
                continue;
            };
            let (reason, class) = match hopeless {
                Some(class) if attempts == 0 => (PunchFailure::EndpointDependent, Some(class)),
                Some(_) | None => (PunchFailure::NotReached, None),
            };
            if attempts > 0 || class.is_some() {
                let news = PunchNotice::Failed { peer, reason, attempts, class };
                cx.actions.notify(Notice::Punch(news));
            }
        }
    }

    /// What our NAT gives out may be known by now.
    fn look(&mut self, cx: &mut Cx<'_>, ground: &Ground<'_>, conn: ConnId) {
        let Some(follow) = self.follows.get_mut(&conn) else { return };
        let Stage::Sampling { stream, theirs, sampling } = &mut follow.stage else { return };
        if !sampling.look(cx, ground) {
            return;
        }
        sampling.end(cx);
        let predicted = sampling.predicted(ground, &self.offer);
        let (stream, theirs) = (*stream, theirs.clone());
        self.reply(cx, (conn, stream), theirs, predicted);
    }
}

saved!(struct Follow { peer, attempts, hopeless, stage });
saved!(enum Stage {
    1 = Opened { stream, overdue_at },
    2 = Sampling { stream, theirs, sampling },
    3 = Told { stream, theirs, overdue_at, predicted },
    4 = Dialling { dials, until, waits },
    5 = Over { until },
});
