//! Circuits that we opened: their other side begins, and we are the client.

use super::offer::{self, Offer};
use super::{ANSWER_TIMEOUT, ATTEMPT_MAX, Ground, Punching, cancel, dial};
use crate::wire::punch::PunchMessage;
use crate::words::checkpoint::saved;
use crate::words::sleep::Sleep;
use crate::{
    Action, ConnId, Cx, Deadline, Duration, Instant, Notice, Oddity, PeerId, PunchFailure, PunchId,
    PunchNotice, Side, StreamEnd, StreamId, Wake,
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
    stage: Stage,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// It is about to say where it may be reached.
    Opened { stream: StreamId, overdue_at: Instant },
    /// Both have said so, and it will say when.
    Told { stream: StreamId, theirs: Offer, overdue_at: Instant },
    /// We dial.
    Dialling { dials: BTreeSet<PunchId>, until: Instant },
    /// It may begin anew.
    Over { until: Instant },
}

impl Follow {
    pub(super) fn new(now: Instant, peer: PeerId, stream: StreamId) -> Follow {
        let stage = Stage::Opened { stream, overdue_at: now + ANSWER_TIMEOUT };
        Follow { peer, attempts: 0, stage }
    }

    /// This attempt comes after another one, which is over.
    pub(super) fn succeeds(&mut self, cx: &mut Cx<'_>, mut before: Follow) {
        before.stop(cx, true);
        self.attempts = before.attempts;
    }

    /// Streams on a circuit that is gone are gone with it.
    fn stop(&mut self, cx: &mut Cx<'_>, stands: bool) {
        match &mut self.stage {
            Stage::Opened { stream, .. } | Stage::Told { stream, .. } if stands => {
                cx.actions.push(Action::ResetStream { stream: *stream });
            }
            Stage::Dialling { dials, .. } => cancel(cx, dials),
            Stage::Opened { .. } | Stage::Told { .. } | Stage::Over { .. } => {}
        }
    }

    /// It is over: how many attempts there were, if there were any.
    pub(super) fn end(mut self, cx: &mut Cx<'_>, stands: bool) -> Option<u8> {
        self.stop(cx, stands);
        (self.attempts > 0).then_some(self.attempts)
    }

    pub(super) fn is_on(&self, on: StreamId) -> bool {
        match &self.stage {
            Stage::Opened { stream, .. } | Stage::Told { stream, .. } => *stream == on,
            Stage::Dialling { .. } | Stage::Over { .. } => false,
        }
    }

    /// The other side gave up before it said when.
    pub(super) fn hushed(&mut self, cx: &mut Cx<'_>, stream: StreamId, end: StreamEnd) {
        if end == StreamEnd::Finished {
            cx.actions.push(Action::ResetStream { stream });
        }
        self.stage = Stage::Over { until: cx.now + AGAIN_WITHIN };
    }

    /// A dial failed: whether it is one of these.
    pub(super) fn failed(&mut self, now: Instant, punch: PunchId) -> bool {
        let Stage::Dialling { dials, .. } = &mut self.stage else { return false };
        if !dials.remove(&punch) {
            return false;
        }
        if dials.is_empty() {
            self.stage = Stage::Over { until: now + AGAIN_WITHIN };
        }
        true
    }

    pub(super) fn resumed(&mut self, sleep: Sleep) {
        let (Stage::Opened { overdue_at: at, .. }
        | Stage::Told { overdue_at: at, .. }
        | Stage::Dialling { until: at, .. }
        | Stage::Over { until: at }) = &mut self.stage;
        sleep.put_off(at);
    }

    pub(super) fn deadline(&self) -> Deadline {
        let (Stage::Opened { overdue_at: at, .. }
        | Stage::Told { overdue_at: at, .. }
        | Stage::Dialling { until: at, .. }
        | Stage::Over { until: at }) = &self.stage;
        Deadline::new(*at, Wake::PunchOverdue)
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
        let mut all = self.follows.iter_mut().filter(|(_, one)| one.is_on(stream));
        let (_, follow) = all.next().ok_or(Oddity::UnknownStream)?;
        let said = PunchMessage::decode(body);
        match (&follow.stage, said) {
            (Stage::Opened { .. }, Ok(PunchMessage::Connect { addrs, behaviors })) => {
                let theirs = Offer::read(&addrs, behaviors);
                // Where ours are not known yet, the other side hears that, and can dial nobody.
                let body = self.offer.message().encode();
                cx.actions.push(Action::Send { stream, body });
                if let Err((reason, class)) =
                    offer::dials(ground, Side::Outbound, &self.offer, &theirs)
                    && reason == PunchFailure::EndpointDependent
                {
                    let (peer, attempts) = (follow.peer, follow.attempts);
                    let news = PunchNotice::Failed { peer, reason, attempts, class };
                    cx.actions.notify(Notice::Punch(news));
                }
                let overdue_at = cx.now + ANSWER_TIMEOUT;
                follow.stage = Stage::Told { stream, theirs, overdue_at };
                Ok(())
            }
            (Stage::Told { theirs, .. }, Ok(PunchMessage::Sync)) => {
                cx.actions.push(Action::CloseStream { stream });
                let dials = offer::dials(ground, Side::Outbound, &self.offer, theirs);
                // What is hopeless has been named. Who names nothing that we could dial may get in.
                if !matches!(dials, Err((PunchFailure::EndpointDependent, _))) {
                    follow.attempts = follow.attempts.saturating_add(1);
                }
                let dials = dials.unwrap_or_default();
                follow.stage = if dials.is_empty() {
                    Stage::Over { until: cx.now + AGAIN_WITHIN }
                } else {
                    let peer = follow.peer;
                    let dials = dial(cx, &mut self.minted, peer, dials, ATTEMPT_MAX);
                    Stage::Dialling { dials, until: cx.now + ATTEMPT_MAX }
                };
                Ok(())
            }
            (_, said) => {
                follow.hushed(cx, stream, StreamEnd::Finished);
                Err(said.map_or(Oddity::MalformedFrame, |_| Oddity::UnexpectedFrame))
            }
        }
    }

    /// Give up what is overdue.
    pub(super) fn follow_on(&mut self, cx: &mut Cx<'_>) {
        let due = self.follows.iter().filter(|(_, one)| one.deadline().at <= cx.now);
        let due: Vec<ConnId> = due.map(|(conn, _)| *conn).collect();
        for conn in due {
            let Some(follow) = self.follows.get_mut(&conn) else { continue };
            follow.stop(cx, true);
            if !matches!(follow.stage, Stage::Over { .. }) {
                follow.stage = Stage::Over { until: cx.now + AGAIN_WITHIN };
                continue;
            }
            let (peer, attempts) = (follow.peer, follow.attempts);
            self.follows.remove(&conn);
            if attempts > 0 {
                let reason = PunchFailure::NotReached;
                let news = PunchNotice::Failed { peer, reason, attempts, class: None };
                cx.actions.notify(Notice::Punch(news));
            }
        }
    }
}

saved!(struct Follow { peer, attempts, stage });
saved!(enum Stage {
    1 = Opened { stream, overdue_at },
    2 = Told { stream, theirs, overdue_at },
    3 = Dialling { dials, until },
    4 = Over { until },
});
