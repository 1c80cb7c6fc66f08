//! AutoNAT v1, the server's half: the same streams, slots and tokens as v2, without a nonce.
//!
//! ```text
//!  request ─► admitted? ─► direct, its own id? ─► at its observed IP? ─► dial all ─► one connects ─► OK
//!               │ no            │ no                  │ no                   │ none does
//!            REFUSED     REFUSED, BAD_REQUEST      REFUSED       E_DIAL_ERROR, or REFUSED where
//!                                                                the fault may be ours
//! ```
//!
//! Whatever it lists, only the IP that the requester is observed as is dialled, with the ports and
//! transports of the list. A requester without a connection of its own has no such IP.

use super::session::State;
use super::{DialBackServer, Flight, Verdict, choice, session};
use crate::service::{Caller, View};
use crate::wire::autonat::v1::{Message, Status};
use crate::wire::multiaddr;
use crate::{Action, Addr, Cx, Dial, DialFailure, DialId, Oddity, PeerId, Served, StreamId};
use alloc::vec::Vec;
use bytes::Bytes;

impl DialBackServer {
    /// A message came on a stream of AutoNAT v1.
    pub(super) fn frame_v1(
        &mut self,
        cx: &mut Cx<'_>,
        view: &dyn View,
        (stream, state): (StreamId, State),
        body: &Bytes,
    ) -> Result<(), Oddity> {
        let message = Message::decode(body).map_err(|_| Oddity::MalformedFrame)?;
        let (State::Asked { .. }, Message::Dial { peer, addrs }) = (state, message) else {
            return Err(Oddity::UnexpectedFrame);
        };
        self.requested_v1(cx, view, stream, (peer, &addrs));
        Ok(())
    }

    /// The request is here: judge it, and dial.
    fn requested_v1(
        &mut self,
        cx: &mut Cx<'_>,
        view: &dyn View,
        stream: StreamId,
        (peer, addrs): (Option<PeerId>, &[Bytes]),
    ) {
        let Some(session) = self.sessions.get(&stream) else {
            return;
        };
        let Some(caller) = view.caller(session.conn) else {
            return self.abort(cx, stream);
        };
        if !self.admission.admit_request(cx.now, &caller) {
            return self.conclude(cx, stream, Verdict::Rejected);
        }
        if peer != Some(caller.peer) {
            return self.conclude(cx, stream, Verdict::BadRequest);
        }
        // autonat-v1 §Security Considerations: implementations MUST NOT accept dial requests over
        // relayed connections, since nobody is observed there.
        if caller.relayed {
            return self.conclude(cx, stream, Verdict::Refused);
        }
        let targets = choice::observed_only(addrs, &caller, self.allow_private, view);
        if targets.is_empty() {
            return self.conclude(cx, stream, Verdict::Refused);
        }
        // autonat-v1 §AutoNAT Protocol: it MAY dial them in parallel.
        let dialled = targets.iter().copied();
        let dialled: Vec<Addr> =
            dialled.filter(|addr| self.dial_v1(cx, stream, *addr, &caller)).collect();
        let Some(first) = dialled.first() else {
            return self.conclude(cx, stream, Verdict::Rejected);
        };
        if let Some(session) = self.sessions.get_mut(&stream) {
            session.try_all(cx.now, *first, session::dial_timeout(caller.rtt));
        }
        if dialled.len() < targets.len() {
            self.doubt_failures(stream);
        }
    }

    /// Dial one of them, if there is a slot and a token for it.
    fn dial_v1(&mut self, cx: &mut Cx<'_>, stream: StreamId, addr: Addr, caller: &Caller) -> bool {
        if !self.has_slot() || !self.admission.admit_dial(cx.now, addr.ip) {
            return false;
        }
        self.dials += 1;
        let dial = DialId(self.dials);
        let (request, over_at) = (Some(stream), cx.now + session::ANSWER_WITHIN);
        self.flights.insert(dial, Flight { request, addr, landed: None, source: None, over_at });
        let source = choice::source(&self.limits.sources, addr, caller);
        let timeout = session::dial_timeout(caller.rtt);
        cx.actions.push(Action::Dial(Dial { dial, addr, source, timeout }));
        true
    }

    /// One of the dials reached somebody.
    pub(super) fn connected_v1(
        &mut self,
        cx: &mut Cx<'_>,
        (stream, addr): (StreamId, Addr),
        verdict: Option<Verdict>,
    ) {
        match verdict {
            None => {
                if let Some(session) = self.sessions.get_mut(&stream) {
                    session.reached(addr);
                }
                self.conclude(cx, stream, Verdict::Reached);
            }
            Some(verdict) => {
                if verdict == Verdict::InternalError {
                    self.doubt_failures(stream);
                }
                self.failed_v1(cx, stream);
            }
        }
    }

    /// One of the dials failed.
    pub(super) fn dial_failed_v1(
        &mut self,
        cx: &mut Cx<'_>,
        view: &dyn View,
        (stream, addr): (StreamId, Addr),
        reason: DialFailure,
    ) {
        if reason == DialFailure::LocalFault || !view.heard(addr.class()) {
            self.doubt_failures(stream);
        }
        self.failed_v1(cx, stream);
    }

    /// autonat-v1 §AutoNAT Protocol: only when all have failed, the answer is `E_DIAL_ERROR`.
    fn failed_v1(&mut self, cx: &mut Cx<'_>, stream: StreamId) {
        if self.flights.values().any(|flight| flight.request == Some(stream)) {
            return;
        }
        let is_ours = self.sessions.get(&stream).is_some_and(|session| {
            matches!(session.state(), State::Trying { is_doubtful: true, .. })
        });
        let failed = if is_ours { Verdict::Refused } else { Verdict::Unreached };
        self.conclude(cx, stream, failed);
    }

    /// Not all could be dialled, or the fault may be ours: that the others fail says nothing.
    fn doubt_failures(&mut self, stream: StreamId) {
        if let Some(session) = self.sessions.get_mut(&stream) {
            session.doubt();
        }
    }
}

/// The message that says how a request ended, and the word for the operator.
pub(super) fn answer(verdict: Verdict, reached: Option<Addr>) -> (Bytes, Served) {
    let (status, served) = match verdict {
        Verdict::Busy | Verdict::Rejected => (Status::DialRefused, Served::Rejected),
        Verdict::Refused => (Status::DialRefused, Served::Refused),
        Verdict::BadRequest => (Status::BadRequest, Served::Refused),
        Verdict::Reached => (Status::Ok, Served::Connected),
        Verdict::Unreached => (Status::DialError, Served::DialFailed),
        Verdict::InternalError | Verdict::Dialled(_) | Verdict::FailedFrom(_) => {
            (Status::InternalError, Served::InternalError)
        }
    };
    // autonat-v1 §RPC messages: an OK SHOULD carry the address.
    let addr = reached.filter(|_| status == Status::Ok).map(multiaddr::encode);
    (Message::DialResponse { status, addr }.encode(), served)
}
