//! The AutoNAT v2 server: dials one address back for whoever asks. `v1` serves those who still ask
//! in the old way, out of the same limits.
//!
//! Knows: requests by their stream (`session`), dial-backs in flight, the tokens of requesters
//! and targets (`admission`). Reads: the view. `choice` says which address, and from where.
//!
//! ```text
//!  request ─► admitted? ─► dialable? ─► target and slot free? ─► same IP? ─► dial ─► nonce ─► answer
//!               │ no          │ no             │ no                │ no       │ failed, not taken
//!            REJECTED      REFUSED          REJECTED           dial data   OK + DIAL(_BACK)_ERROR
//! ```
//!
//! Only a dial that failed in a class from which we have heard says anything about the address;
//! in any other class the fault may be ours, and the answer is `E_DIAL_REFUSED`. A success always
//! counts. A dial that we slept through and that failed is our fault: `E_INTERNAL_ERROR`. Whoever
//! breaks a rule is reset without an answer; the dial he caused runs to its end and keeps its slot,
//! so that going away buys nothing.
//!
//! Limits: two open requests a peer, six streams a peer, 64 a network, 256 together (over them:
//! rejected, then reset); dials in flight and rates as in `DialBackConfig` (over them: rejected).
//! Follows: autonat-v2 §AutoNAT V2 Protocol, §Requirements for DialStatus, §Requirements for
//! ResponseStatus, §Amplification Attack Prevention, §Implementation Suggestions; autonat-v1.
//!
//! A good first change here: let the answer say in a notice how much dial data was paid.

mod admission;
mod answer;
#[cfg(test)]
mod bench;
mod choice;
mod session;
#[cfg(test)]
mod tests;
mod v1;
#[cfg(test)]
mod v1_tests;

use super::{Caller, View};
use crate::wire::autonat::{DialBack, DialBackResponse, DialBackStatus, DialStatus, Message};
use crate::words::checkpoint::{BadCheckpoint, Loader, are_counts, saved};
use crate::words::deadline::earliest;
use crate::words::sleep::Sleep;
use crate::{
    Action, Addr, ConnId, Connected, Cx, Deadline, Dial, DialBackConfig, DialFailure, DialId,
    Group, Instant, Notice, Oddity, Protocol, Served, Side, StreamEnd, StreamId, Wake,
};
use admission::Admission;
use alloc::collections::{BTreeMap, BTreeSet};
use answer::{Verdict, was_dialled};
use bytes::Bytes;
use core::net::IpAddr;
use session::{Pick, Session, State};

/// Requests of one peer that wait for their answer, number; go-libp2p's value. Over it a request
/// is rejected.
const OPEN_PER_PEER_MAX: usize = 2;
/// Streams of one peer, answered ones that it has not closed included, number; ours: some are
/// always about to be closed. Over it a stream is reset.
const STREAMS_PER_PEER_MAX: usize = 6;
/// Streams of one network, number; ours: no network can take all. Over it a stream is reset.
const STREAMS_PER_NETWORK_MAX: usize = 64;
/// Streams together, number; ours. Memory grows by about 300 bytes each, without what the runtime
/// buffers. Over it a stream is reset.
const STREAMS_MAX: usize = 256;
/// Closed dial-back connections whose end is not reported yet, number; ours: every dial that may
/// be in flight. When full, the oldest is forgotten; its end is then an unknown connection's.
const LEAVING_MAX: usize = 256;
/// Dial data asked for, bytes: autonat-v2 §Amplification Attack Prevention, 30k to 100k.
const DATA_BYTES: core::ops::RangeInclusive<u64> = 30_000..=100_000;

const _: () = assert!(OPEN_PER_PEER_MAX < STREAMS_PER_PEER_MAX);
const _: () = assert!(STREAMS_PER_PEER_MAX < STREAMS_PER_NETWORK_MAX);
const _: () = assert!(STREAMS_PER_NETWORK_MAX < STREAMS_MAX);

/// One dial-back in flight, from its order to the end of its connection's use.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Flight {
    /// The request; `None` once nobody waits for the outcome any more.
    request: Option<StreamId>,
    /// What is dialled.
    addr: Addr,
    /// The connection it made and the stream that carries the nonce.
    landed: Option<(ConnId, StreamId)>,
    /// The IP of ours that it comes from, where that is another than the requester has met.
    source: Option<IpAddr>,
    /// When the slot is free again even if the runtime never reports how the dial ended.
    over_at: Instant,
}

/// The dial-back server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DialBackServer {
    limits: DialBackConfig,
    allow_private: bool,
    admission: Admission,
    sessions: BTreeMap<StreamId, Session>,
    flights: BTreeMap<DialId, Flight>,
    /// Dial-back connections that we closed and whose end has not been reported.
    leaving: BTreeSet<ConnId>,
    /// Whether a peer that was introduced to us has been dialled at its wish.
    is_fully_connected: bool,
    /// Dials and dial-back streams ordered so far: their ids.
    dials: u64,
}

impl DialBackServer {
    pub(super) fn new(limits: &DialBackConfig, allow_private: bool) -> DialBackServer {
        DialBackServer {
            limits: limits.clone(),
            allow_private,
            admission: Admission::new(limits, allow_private),
            sessions: BTreeMap::new(),
            flights: BTreeMap::new(),
            leaving: BTreeSet::new(),
            is_fully_connected: false,
            dials: 0,
        }
    }

    /// Dial-backs whose outcome is not known yet, number.
    pub(super) fn in_flight(&self) -> usize {
        self.flights.len()
    }

    pub(super) fn opened(
        &mut self,
        cx: &mut Cx<'_>,
        view: &dyn View,
        conn: ConnId,
        stream: StreamId,
    ) -> Result<(), Oddity> {
        if stream.side == Side::Outbound {
            // The nonce was sent along; nothing to do but wait.
            return self.flight_on(stream).map(|_| ()).ok_or(Oddity::UnknownStream);
        }
        if self.sessions.contains_key(&stream) {
            return Err(Oddity::ReusedId);
        }
        let Some(caller) = view.caller(conn) else {
            cx.actions.push(Action::ResetStream { stream });
            return Err(Oddity::UnknownConnection);
        };
        let network = Group::of(caller.remote.ip, self.allow_private);
        let of = |wanted: fn(&Session, &Caller, Group) -> bool| {
            self.sessions.values().filter(|session| wanted(session, &caller, network)).count()
        };
        if self.sessions.len() >= STREAMS_MAX
            || of(|session, caller, _| session.peer == caller.peer) >= STREAMS_PER_PEER_MAX
            || of(|session, _, network| session.network == network) >= STREAMS_PER_NETWORK_MAX
        {
            cx.actions.push(Action::ResetStream { stream });
            return Err(Oddity::Full);
        }
        let open = of(|session, caller, _| session.peer == caller.peer && session.is_open());
        let mut session = Session::new(cx.now, conn, caller.peer, network);
        session.is_introduced = view.is_introduced(caller.peer);
        self.sessions.insert(stream, session);
        if open >= OPEN_PER_PEER_MAX {
            self.conclude(cx, stream, Verdict::Busy);
        }
        Ok(())
    }

    pub(super) fn frame(
        &mut self,
        cx: &mut Cx<'_>,
        view: &dyn View,
        stream: StreamId,
        body: &Bytes,
    ) -> Result<(), Oddity> {
        if stream.side == Side::Outbound {
            return self.acknowledged(cx, stream, body);
        }
        let session = self.sessions.get_mut(&stream).ok_or(Oddity::UnknownStream)?;
        if session.take_late_request() {
            return Ok(());
        }
        let state = session.state();
        let taken = if stream.protocol == Protocol::AutonatV1 {
            self.frame_v1(cx, view, (stream, state), body)
        } else {
            self.frame_v2(cx, view, (stream, state), body)
        };
        if taken.is_err() {
            self.abort(cx, stream);
            cx.actions.push(Action::ResetStream { stream });
        }
        taken
    }

    fn frame_v2(
        &mut self,
        cx: &mut Cx<'_>,
        view: &dyn View,
        (stream, state): (StreamId, State),
        body: &Bytes,
    ) -> Result<(), Oddity> {
        let message = Message::decode(body).map_err(|_| Oddity::MalformedFrame);
        match (state, message) {
            (State::Asked { .. }, Ok(Message::DialRequest { addrs, nonce })) => {
                self.requested(cx, view, stream, &addrs, nonce);
                Ok(())
            }
            (State::Uploading { .. }, Ok(Message::DialDataResponse { data })) => {
                let session = self.sessions.get_mut(&stream).ok_or(Oddity::UnknownStream)?;
                match session.paid(cx.now, data.len()) {
                    Ok(None) => Ok(()),
                    Ok(Some(pick)) => {
                        self.dial(cx, view, stream, pick);
                        Ok(())
                    }
                    Err(session::BadChunk) => Err(Oddity::UnexpectedFrame),
                }
            }
            (_, Err(oddity)) => Err(oddity),
            // autonat-v2 §AutoNAT V2 Protocol: each DialRequest is sent on a new stream.
            (_, Ok(_)) => Err(Oddity::UnexpectedFrame),
        }
    }

    /// The other side of a stream is over; one of ours that never opened counts as reset.
    pub(super) fn closed(&mut self, cx: &mut Cx<'_>, stream: StreamId, end: StreamEnd) {
        let finished = end == StreamEnd::Finished;
        if stream.side == Side::Outbound {
            // A client that closes without an answer has read the nonce; one that resets may not.
            let status = if finished { DialStatus::Ok } else { DialStatus::DialBackError };
            self.landed(cx, stream, status);
            return;
        }
        let Some(session) = self.sessions.get_mut(&stream) else {
            return;
        };
        match session.state() {
            // It sends no more, and may well wait for the answer.
            State::Dialling { .. } | State::Delivering { .. } | State::Trying { .. }
                if finished =>
            {
                session.is_half_closed = true;
            }
            State::Asked { .. } | State::Uploading { .. } if finished => {
                self.abort(cx, stream);
                cx.actions.push(Action::ResetStream { stream });
            }
            State::Asked { .. }
            | State::Uploading { .. }
            | State::Dialling { .. }
            | State::Delivering { .. }
            | State::Trying { .. }
            | State::Closing { .. } => self.abort(cx, stream),
        }
    }

    pub(super) fn connected(
        &mut self,
        cx: &mut Cx<'_>,
        dial: DialId,
        facts: &Connected,
    ) -> Result<(), Oddity> {
        let conn = facts.conn;
        let known = self.flights.get_mut(&dial).filter(|flight| flight.landed.is_none());
        let Some(flight) = known else {
            self.hang_up(cx, conn);
            return Err(Oddity::UnknownDial);
        };
        let waiting = flight
            .request
            .and_then(|request| self.sessions.get_mut(&request).map(|session| (request, session)));
        let Some((request, session)) = waiting else {
            self.flights.remove(&dial);
            self.hang_up(cx, conn);
            return Ok(());
        };
        // autonat-v2 §Requirements for DialStatus: "unable to connect to the client". Somebody
        // else at that address is not the client, and gets no nonce.
        let verdict = if facts.relayed || facts.side == Side::Inbound {
            Some(Verdict::InternalError)
        } else {
            (facts.peer != session.peer).then_some(Verdict::Dialled(DialStatus::DialError))
        };
        if request.protocol == Protocol::AutonatV1 {
            let addr = flight.addr;
            self.flights.remove(&dial);
            self.hang_up(cx, conn);
            self.connected_v1(cx, (request, addr), verdict);
            return Ok(());
        }
        if let Some(verdict) = verdict {
            self.flights.remove(&dial);
            self.hang_up(cx, conn);
            self.conclude(cx, request, verdict);
            return Ok(());
        }
        let stream = StreamId::outbound(Protocol::DialBack, dial.0);
        flight.landed = Some((conn, stream));
        if let Some(nonce) = session.deliver(cx.now) {
            cx.actions.push(Action::OpenStream { conn, stream });
            let body = DialBack { nonce }.encode();
            cx.actions.push(Action::Send { stream, body });
            cx.actions.push(Action::CloseStream { stream });
        }
        Ok(())
    }

    pub(super) fn dial_failed(
        &mut self,
        cx: &mut Cx<'_>,
        view: &dyn View,
        dial: DialId,
        reason: DialFailure,
    ) -> Result<(), Oddity> {
        let flight = self.flights.remove(&dial).ok_or(Oddity::UnknownDial)?;
        let Some(request) = flight.request else {
            return Ok(());
        };
        if request.protocol == Protocol::AutonatV1 {
            self.dial_failed_v1(cx, view, (request, flight.addr), reason);
            return Ok(());
        }
        let is_ours = match reason {
            DialFailure::LocalFault => true,
            // A handshake that fails is no connection to the client: autonat-v2 §Requirements for
            // DialStatus has E_DIAL_BACK_ERROR only for what goes wrong once connected.
            DialFailure::Refused | DialFailure::TimedOut | DialFailure::Handshake => {
                !view.heard(flight.addr.class())
            }
        };
        // Where a handshake failed, somebody had let our first packet in.
        let source = flight.source.filter(|_| reason != DialFailure::Handshake);
        let verdict = match source {
            _ if is_ours => Verdict::Refused,
            Some(source) => Verdict::FailedFrom(source),
            None => Verdict::Dialled(DialStatus::DialError),
        };
        self.conclude(cx, request, verdict);
        Ok(())
    }

    pub(super) fn disconnected(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        if self.leaving.remove(&conn) {
            return;
        }
        let of_conn =
            |(stream, session): (&StreamId, &Session)| (session.conn == conn).then_some(*stream);
        while let Some(stream) = self.sessions.iter().find_map(of_conn) {
            self.abort(cx, stream);
        }
        let on_conn = |(dial, flight): (&DialId, &Flight)| {
            flight.landed.is_some_and(|on| on.0 == conn).then_some(*dial)
        };
        let dialled = self.flights.iter().find_map(on_conn);
        let gone = dialled.and_then(|dial| self.flights.remove(&dial));
        if let Some(request) = gone.and_then(|flight| flight.request) {
            self.conclude(cx, request, Verdict::Dialled(DialStatus::DialBackError));
        }
    }

    /// We slept: what was to be done for others can be done still.
    pub(super) fn resumed(&mut self, sleep: Sleep) {
        self.sessions.values_mut().for_each(|session| session.resumed(sleep));
        self.flights.values_mut().for_each(|flight| sleep.put_off(&mut flight.over_at));
    }

    /// Fire what is due.
    pub(super) fn advance(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now;
        let due = |(stream, session): (&StreamId, &Session)| {
            (session.deadline().at <= now).then_some((*stream, session.state()))
        };
        while let Some((stream, state)) = self.sessions.iter().find_map(due) {
            match state {
                State::Asked { .. } | State::Uploading { .. } | State::Closing { .. } => {
                    self.abort(cx, stream);
                    cx.actions.push(Action::ResetStream { stream });
                }
                // autonat-v2 §Requirements for ResponseStatus: a fault of the server's own.
                State::Dialling { .. } | State::Trying { .. } => {
                    self.conclude(cx, stream, Verdict::InternalError);
                }
                State::Delivering { .. } => {
                    self.conclude(cx, stream, Verdict::Dialled(DialStatus::DialBackError));
                }
            }
        }
        self.flights.retain(|_, flight| flight.over_at > now);
    }

    pub(super) fn deadline(&self) -> Option<Deadline> {
        let sessions = self.sessions.values().map(Session::deadline);
        let over = |flight: &Flight| Deadline::new(flight.over_at, Wake::DialBackOverdue);
        let flights = self.flights.values().map(over);
        sessions.chain(flights).fold(None, |least, next| earliest(least, Some(next)))
    }

    pub(super) fn keeps(&self, conn: ConnId) -> bool {
        self.carries_nonce(conn)
            || self.sessions.values().any(|session| session.conn == conn && session.is_open())
    }

    pub(super) fn is_dial_back(&self, conn: ConnId) -> bool {
        self.carries_nonce(conn) || self.leaving.contains(&conn)
    }

    fn carries_nonce(&self, conn: ConnId) -> bool {
        self.flights.values().any(|flight| flight.landed.is_some_and(|on| on.0 == conn))
    }

    /// The request is here: judge it.
    fn requested(
        &mut self,
        cx: &mut Cx<'_>,
        view: &dyn View,
        stream: StreamId,
        addrs: &[Bytes],
        nonce: u64,
    ) {
        let has_slot = self.has_slot();
        let Some(session) = self.sessions.get_mut(&stream) else {
            return;
        };
        let Some(caller) = view.caller(session.conn) else {
            return self.abort(cx, stream);
        };
        if !self.admission.admit_request(cx.now, &caller) {
            return self.conclude(cx, stream, Verdict::Rejected);
        }
        let found = choice::first_dialable(addrs, &caller, self.allow_private, view);
        let Some((index, addr)) = found else {
            return self.conclude(cx, stream, Verdict::Refused);
        };
        let pick = Pick { index, addr, nonce };
        if !choice::needs_data(addr, &caller) {
            return self.dial(cx, view, stream, pick);
        }
        // Nobody is made to pay for a dial that we know will not happen.
        if !has_slot || !self.admission.is_target_open(cx.now, addr.ip) {
            return self.conclude(cx, stream, Verdict::Rejected);
        }
        let span = DATA_BYTES.end() - DATA_BYTES.start() + 1;
        let num_bytes = DATA_BYTES.start() + cx.draw.below(span);
        session.upload(cx.now, pick, num_bytes);
        let body = Message::DialDataRequest { addr_idx: index, num_bytes }.encode();
        cx.actions.push(Action::Send { stream, body });
    }

    fn dial(&mut self, cx: &mut Cx<'_>, view: &dyn View, stream: StreamId, pick: Pick) {
        let has_slot = self.has_slot();
        let Some(session) = self.sessions.get_mut(&stream) else {
            return;
        };
        let Some(caller) = view.caller(session.conn) else {
            return self.abort(cx, stream);
        };
        if !has_slot || !self.admission.admit_dial(cx.now, pick.addr.ip) {
            return self.conclude(cx, stream, Verdict::Rejected);
        }
        self.dials += 1;
        let dial = DialId(self.dials);
        let source = choice::source(&self.limits.sources, pick.addr, &caller);
        let timeout = session::dial_timeout(caller.rtt);
        session.dial(cx.now, pick, dial, timeout);
        let over_at = cx.now + session::ANSWER_WITHIN;
        let unmet = source.or_else(|| choice::unmet(pick.addr, &caller));
        let (request, addr) = (Some(stream), pick.addr);
        let flight = Flight { request, addr, landed: None, source: unmet, over_at };
        self.flights.insert(dial, flight);
        // autonat-v2 §AutoNAT V2 Protocol: the server MUST NOT dial any other address than this.
        cx.actions.push(Action::Dial(Dial { dial, addr: pick.addr, source, timeout }));
    }

    fn has_slot(&self) -> bool {
        self.flights.len() < self.limits.dials_max
    }

    fn flight_on(&self, stream: StreamId) -> Option<DialId> {
        let dial = DialId(stream.number);
        let flight = self.flights.get(&dial)?;
        flight.landed.is_some_and(|on| on.1 == stream).then_some(dial)
    }

    /// The client answered our nonce.
    fn acknowledged(
        &mut self,
        cx: &mut Cx<'_>,
        stream: StreamId,
        body: &Bytes,
    ) -> Result<(), Oddity> {
        self.flight_on(stream).ok_or(Oddity::UnknownStream)?;
        let answer = DialBackResponse::decode(body);
        let status = match &answer {
            Ok(answer) if answer.status == DialBackStatus::Ok => DialStatus::Ok,
            Ok(_) | Err(_) => DialStatus::DialBackError,
        };
        self.landed(cx, stream, status);
        answer.map(|_| ()).map_err(|_| Oddity::MalformedFrame)
    }

    /// It is known whether the nonce was delivered: the connection has served its purpose.
    fn landed(&mut self, cx: &mut Cx<'_>, stream: StreamId, status: DialStatus) {
        let Some(dial) = self.flight_on(stream) else {
            return;
        };
        let Some(request) = self.flights.get(&dial).and_then(|flight| flight.request) else {
            return;
        };
        self.conclude(cx, request, Verdict::Dialled(status));
    }

    /// Answer a request. It stays until the requester closes its side.
    fn conclude(&mut self, cx: &mut Cx<'_>, stream: StreamId, verdict: Verdict) {
        let Some(session) = self.sessions.get_mut(&stream) else {
            return;
        };
        let verdict = if session.slept { verdict.after_sleep() } else { verdict };
        let (body, served) = if stream.protocol == Protocol::AutonatV1 {
            v1::answer(verdict, session.dialled())
        } else {
            let (answer, served) = verdict.answer(session.pick());
            (answer.encode(), served)
        };
        let (addr, took) = (session.dialled(), cx.now.since(session.asked_at));
        let notice = Notice::DialBackServed { peer: session.peer, addr, answer: served, took };
        let (peer, is_introduced) = (session.peer, session.is_introduced);
        let is_half_closed = session.is_half_closed;
        let state = session.state();
        session.close(cx.now, verdict == Verdict::Busy);
        cx.actions.push(Action::Send { stream, body });
        // autonat-v2 §AutoNAT V2 Protocol: the server MUST close the stream after the response.
        cx.actions.push(Action::CloseStream { stream });
        cx.actions.notify(notice);
        if is_introduced && was_dialled(served) && !self.is_fully_connected {
            self.is_fully_connected = true;
            cx.actions.notify(Notice::FullyConnected { peer });
        }
        if is_half_closed {
            self.sessions.remove(&stream);
        }
        self.let_go(cx, stream, state);
    }

    /// Nobody waits for an answer any more.
    fn abort(&mut self, cx: &mut Cx<'_>, stream: StreamId) {
        let Some(session) = self.sessions.remove(&stream) else {
            return;
        };
        let state = session.state();
        if session.is_open() {
            let (peer, addr) = (session.peer, session.dialled());
            let (answer, took) = (Served::Aborted, cx.now.since(session.asked_at));
            cx.actions.notify(Notice::DialBackServed { peer, addr, answer, took });
        }
        self.let_go(cx, stream, state);
    }

    /// A request is over that stood at `state`. A connection that it made is closed; a dial that
    /// has not ended keeps its slot until it has.
    fn let_go(&mut self, cx: &mut Cx<'_>, stream: StreamId, state: State) {
        if let State::Trying { .. } = state {
            let of_it = self.flights.values_mut().filter(|one| one.request == Some(stream));
            return of_it.for_each(|flight| flight.request = None);
        }
        let (State::Dialling { dial, .. } | State::Delivering { dial, .. }) = state else {
            return;
        };
        let Some(flight) = self.flights.get_mut(&dial) else { return };
        flight.request = None;
        if let Some((conn, _)) = flight.landed {
            self.flights.remove(&dial);
            self.hang_up(cx, conn);
        }
    }

    fn hang_up(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        if self.leaving.len() >= LEAVING_MAX {
            self.leaving.pop_first();
        }
        self.leaving.insert(conn);
        cx.actions.push(Action::Disconnect { conn });
    }
}

saved!(struct Flight { request, addr, landed, source, over_at });
saved!(struct DialBackServer {
    admission,
    sessions,
    flights,
    leaving,
    is_fully_connected,
    dials as told(),
} given { limits, allow_private } by fresh, if has_counts);

fn fresh(from: &Loader<'_>) -> Result<DialBackServer, BadCheckpoint> {
    let limits = from.config.dial_back.as_ref().ok_or(BadCheckpoint)?;
    Ok(DialBackServer::new(limits, from.config.allow_private))
}

fn has_counts(server: &DialBackServer) -> bool {
    are_counts(&[server.dials])
}
