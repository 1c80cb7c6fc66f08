//! Beside the floors · the relay server: reservations, and circuits between two peers.
//!
//! Knows: reservations by their holder, hop streams, circuits. Reads: words, wire, [`View`].
//!
//! ```text
//!  reserve ─► direct, allowed? ─► offered? ─► rates, caps? ─► granted, signed
//!               │ no                │ no          │ no
//!        PERMISSION_DENIED     RESERVATION_REFUSED
//!  connect ─► direct? ─► reservation? ─► caps? ─► stop stream to the target ─► OK ─► Bridge … Cut
//!               │ no        │ no           │ no        │ refused, silent, gone
//!        PERMISSION_DENIED  NO_RESERVATION RESOURCE_…  CONNECTION_FAILED
//! ```
//!
//! A reservation ends at its moment, or with the last direct connection of its holder. What was not
//! understood is answered too; after the answer nothing may follow. Whoever goes away while a
//! circuit is opened takes it along. While the service is not offered (it is wound down, or we may
//! not serve), nothing is granted or renewed, and what is held is served.
//! Limits: `RelayServerConfig`; streams as in `exchanges`, rates as in `admission`.
//! Follows: circuit-v2 §Reservation, §Circuit opening, §Status Codes, §Reservation Vouchers.
//!
//! A good first change here: say in the answer of a refused reservation when to come back.

mod admission;
#[cfg(test)]
mod bench;
#[cfg(test)]
mod chaos;
mod circuits;
mod exchanges;
mod reservations;
#[cfg(test)]
mod storms;
#[cfg(test)]
mod tests;

use super::{Caller, View};
use crate::wire::multiaddr;
use crate::wire::relay::{HopMessage, RESERVATION_ADDRS_MAX, Reservation, StopMessage, Voucher};
use crate::words::checkpoint::{BadCheckpoint, Loader, saved};
use crate::words::deadline::earliest;
use crate::words::sleep::Sleep;
use crate::{
    Action, Addr, BridgeEnd, CircuitLimit, ConnId, Cx, Deadline, IpScope, Notice, Oddity, PeerId,
    PublicKey, RelayAction, RelayEvent, RelayLoad, RelayNotice, RelayServerConfig, RelayStatus,
    Side, StreamEnd, StreamFailure, StreamId, ip_scope,
};
use admission::Asker;
use alloc::vec::Vec;
use bytes::Bytes;
use circuits::{Circuit, Circuits, Stage};
use exchanges::Exchanges;
use reservations::Reservations;

/// The relay service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RelayServer {
    limits: RelayServerConfig,
    allow_private: bool,
    identity: PublicKey,
    reservations: Reservations,
    exchanges: Exchanges,
    circuits: Circuits,
    is_draining: bool,
}

impl RelayServer {
    pub(super) fn new(
        limits: &RelayServerConfig,
        allow_private: bool,
        identity: &PublicKey,
    ) -> RelayServer {
        RelayServer {
            limits: limits.clone(),
            allow_private,
            identity: identity.clone(),
            reservations: Reservations::new(),
            exchanges: Exchanges::default(),
            circuits: Circuits::default(),
            is_draining: false,
        }
    }

    /// A bridge ended, or the operator winds the service down.
    pub(super) fn record(&mut self, cx: &mut Cx<'_>, event: &RelayEvent) -> Result<(), Oddity> {
        match *event {
            RelayEvent::BridgeEnded { stream, end, forth, back } => {
                let stands = self.circuits.get(stream).filter(|circuit| !circuit.is_opening());
                let circuit = stands.ok_or(Oddity::UnknownStream)?;
                self.bridge_ended(cx, stream, circuit, (end, forth, back));
                Ok(())
            }
            RelayEvent::Draining => {
                self.is_draining = true;
                Ok(())
            }
            RelayEvent::CircuitWanted { .. }
            | RelayEvent::CircuitForgotten { .. }
            | RelayEvent::ConnectFailed { .. }
            | RelayEvent::UpgradeFailed { .. } => Err(Oddity::UnknownStream),
        }
    }

    /// A hop stream of a peer's, or a stop stream of ours.
    pub(super) fn opened(
        &mut self,
        cx: &mut Cx<'_>,
        view: &dyn View,
        conn: ConnId,
        stream: StreamId,
    ) -> Result<(), Oddity> {
        if stream.side == Side::Outbound {
            // What is to be said was sent along; and whoever was in a hurry may be gone by now.
            let known = self.circuits.has_opened(stream);
            return if known { Ok(()) } else { Err(Oddity::UnknownStream) };
        }
        if self.exchanges.get(stream).is_some() || self.circuits.get(stream).is_some() {
            return Err(Oddity::ReusedId);
        }
        let Some(caller) = view.caller(conn) else {
            cx.actions.push(Action::ResetStream { stream });
            return Err(Oddity::UnknownConnection);
        };
        let from = Asker { conn, peer: caller.peer, ip: caller.remote.ip };
        if !self.exchanges.open(cx, stream, from, self.allow_private) {
            cx.actions.push(Action::ResetStream { stream });
            return Err(Oddity::Full);
        }
        Ok(())
    }

    /// A message arrived.
    pub(super) fn frame(
        &mut self,
        cx: &mut Cx<'_>,
        view: &dyn View,
        stream: StreamId,
        body: &Bytes,
    ) -> Result<(), Oddity> {
        if stream.side == Side::Outbound {
            return self.target_answered(cx, stream, body);
        }
        if let Some(circuit) = self.circuits.get(stream).filter(Circuit::is_opening) {
            // What belongs to the circuit may follow only once it stands.
            cx.actions.push(Action::ResetStream { stream: circuit.stop });
            self.circuits.remove(stream);
            self.answer(cx, stream, circuit.from, RelayStatus::UnexpectedMessage);
            return Err(Oddity::UnexpectedFrame);
        }
        let exchange = self.exchanges.get(stream).ok_or(Oddity::UnknownStream)?;
        let caller = view.caller(exchange.from.conn);
        let Some(caller) = caller.filter(|_| !exchange.is_answered) else {
            self.exchanges.remove(stream);
            cx.actions.push(Action::ResetStream { stream });
            return Err(Oddity::UnexpectedFrame);
        };
        let from = exchange.from;
        match HopMessage::decode(body) {
            Ok(HopMessage::Reserve) => self.reserve(cx, view, stream, from, &caller),
            Ok(HopMessage::Connect { peer }) => {
                self.connect(cx, view, stream, from, &caller, peer);
            }
            // circuit-v2 §Status Codes: UNEXPECTED_MESSAGE, MALFORMED_MESSAGE.
            Ok(HopMessage::Status { .. }) => {
                self.answer(cx, stream, from, RelayStatus::UnexpectedMessage);
                return Err(Oddity::UnexpectedFrame);
            }
            Err(_) => {
                self.answer(cx, stream, from, RelayStatus::MalformedMessage);
                return Err(Oddity::MalformedFrame);
            }
        }
        Ok(())
    }

    /// The other side of a stream is over.
    pub(super) fn closed(&mut self, cx: &mut Cx<'_>, stream: StreamId, end: StreamEnd) {
        let finished = end == StreamEnd::Finished;
        if stream.side == Side::Outbound {
            if let Some((hop, circuit)) = self.circuits.opened_over(stream) {
                if finished {
                    cx.actions.push(Action::ResetStream { stream });
                }
                self.not_opened(cx, hop, circuit);
            }
            return;
        }
        if let Some(circuit) = self.circuits.get(stream).filter(Circuit::is_opening) {
            // Whoever sends no more has no use for a circuit.
            self.circuits.remove(stream);
            cx.actions.push(Action::ResetStream { stream: circuit.stop });
            if finished {
                cx.actions.push(Action::ResetStream { stream });
            }
        } else if let Some(exchange) = self.exchanges.remove(stream)
            && finished
            && !exchange.is_answered
        {
            cx.actions.push(Action::ResetStream { stream });
        }
    }

    /// A stop stream could not be opened, for whatever reason: the target is not to be had.
    pub(super) fn failed(&mut self, cx: &mut Cx<'_>, stream: StreamId, _reason: StreamFailure) {
        if let Some((hop, circuit)) = self.circuits.opened_over(stream) {
            self.not_opened(cx, hop, circuit);
        }
    }

    /// A connection is gone, which the view still has.
    pub(super) fn disconnected(&mut self, cx: &mut Cx<'_>, view: &dyn View, conn: ConnId) {
        self.exchanges.disconnected(conn);
        while let Some((hop, circuit)) = self.circuits.on(conn) {
            match circuit.stage {
                Stage::Opening { .. } if circuit.from.conn == conn => {
                    self.circuits.remove(hop);
                    cx.actions.push(Action::ResetStream { stream: circuit.stop });
                }
                Stage::Opening { .. } => self.not_opened(cx, hop, circuit),
                // The runtime will say so.
                Stage::Open { .. } | Stage::Ending { .. } => {
                    self.circuits.ending(cx.now, hop, false);
                }
            }
        }
        // circuit-v2 §Reservation: it stays valid for as long as there is a connection.
        let Some(caller) = view.caller(conn) else {
            return;
        };
        let stands = view.direct(caller.peer).into_iter().any(|other| other != conn);
        if !stands && self.reservations.end(caller.peer) {
            told(cx, RelayNotice::ReservationEnded { peer: caller.peer });
        }
    }

    /// We slept.
    pub(super) fn resumed(&mut self, sleep: Sleep) {
        self.exchanges.resumed(sleep);
        self.circuits.resumed(sleep);
    }

    /// Do what is due.
    pub(super) fn advance(&mut self, cx: &mut Cx<'_>) {
        self.exchanges.advance(cx);
        while let Some(peer) = self.reservations.expired(cx.now) {
            self.reservations.end(peer);
            told(cx, RelayNotice::ReservationEnded { peer });
        }
        while let Some((hop, circuit)) = self.circuits.due(cx.now) {
            match circuit.stage {
                Stage::Opening { .. } => {
                    cx.actions.push(Action::ResetStream { stream: circuit.stop });
                    self.not_opened(cx, hop, circuit);
                }
                Stage::Open { .. } => {
                    // circuit-v2 §Reservation: both streams are reset when the time is over.
                    cx.actions.push(Action::Relay(RelayAction::Cut { stream: hop }));
                    self.circuits.ending(cx.now, hop, true);
                }
                Stage::Ending { was_cut, .. } => {
                    // Nobody says what was passed.
                    let end = if was_cut { BridgeEnd::Cut } else { BridgeEnd::Reset };
                    self.bridge_ended(cx, hop, circuit, (end, 0, 0));
                }
            }
        }
    }

    /// When something here is due.
    pub(super) fn deadline(&self) -> Option<Deadline> {
        let streams = earliest(self.exchanges.deadline(), self.circuits.deadline());
        earliest(streams, self.reservations.deadline())
    }

    /// Whether a connection is needed here: for a reservation, an exchange, or a circuit.
    pub(super) fn keeps(&self, view: &dyn View, conn: ConnId) -> bool {
        // circuit-v2 §Reservation: make a best effort to keep the connections of holders.
        let holds = |caller: Caller| !caller.relayed && self.reservations.has(caller.peer);
        self.exchanges.keeps(conn)
            || self.circuits.keeps(conn)
            || view.caller(conn).is_some_and(holds)
    }

    /// How full the service is, in thousandths; `None` while it is not offered.
    pub(super) fn offer(&self, view: &dyn View) -> Option<u16> {
        let may = !self.limits.only_while_may_serve || view.may_serve();
        (may && !self.is_draining).then(|| self.in_use().thousandths)
    }

    /// How much of the service is in use.
    pub(super) fn in_use(&self) -> RelayLoad {
        let (reservations, circuits) = (self.reservations.len(), self.circuits.len());
        let thousandths = thousandths(reservations, self.limits.reservations_max)
            .max(thousandths(circuits, self.limits.circuits_max));
        RelayLoad { reservations, circuits, thousandths }
    }

    /// circuit-v2 §Reservation.
    fn reserve(
        &mut self,
        cx: &mut Cx<'_>,
        view: &dyn View,
        stream: StreamId,
        from: Asker,
        caller: &Caller,
    ) {
        let is_allowed = self.limits.allow.as_ref().is_none_or(|all| all.contains(&from.peer));
        if caller.relayed || !is_allowed {
            return self.refuse(cx, stream, from, None, RelayStatus::PermissionDenied);
        }
        let granted = self.offer(view).and_then(|_| {
            self.reservations.grant(cx.now, caller, &self.limits, self.allow_private)
        });
        let Some(renewed) = granted else {
            return self.refuse(cx, stream, from, None, RelayStatus::ReservationRefused);
        };
        let expires = cx.unix + self.limits.reservation_lifetime;
        // Rounded down: who believes that it ends sooner is not disappointed.
        let expire = expires.as_millis() / 1_000;
        let relay = self.identity.to_peer_id();
        let voucher = Voucher { relay, peer: from.peer, expiration: expire };
        let reservation = Reservation {
            expire,
            addrs: self.addrs(view, caller, relay),
            voucher: Some(voucher.sealed(&self.identity, cx.sign)),
        };
        let granted = HopMessage::Status {
            status: RelayStatus::Ok,
            reservation: Some(reservation),
            limit: self.limits.limit,
        };
        self.say_last(cx, stream, from, &granted);
        told(cx, RelayNotice::Granted { peer: from.peer, renewed });
    }

    /// circuit-v2 §Reservation: all the public addresses of the relay, with its id. The one on
    /// which the holder reaches us is good for others like it, even if it is not proven.
    fn addrs(&self, view: &dyn View, caller: &Caller, relay: PeerId) -> Vec<Bytes> {
        let means_something = |addr: Addr| match ip_scope(addr.ip) {
            IpScope::Global => true,
            IpScope::Private | IpScope::Loopback => self.allow_private,
            IpScope::LinkLocal | IpScope::Unusable => false,
        };
        let mut addrs = view.proven();
        let local = caller.local;
        if !addrs.contains(&local) && view.listens_on(local) && means_something(local) {
            addrs.push(local);
        }
        let told = addrs.into_iter().take(RESERVATION_ADDRS_MAX);
        told.map(|addr| multiaddr::to_multiaddr(addr, Some(relay)).to_vec().into()).collect()
    }

    /// circuit-v2 §Circuit opening. The addresses in the request were never read: a relay that
    /// dials is somebody's tool.
    fn connect(
        &mut self,
        cx: &mut Cx<'_>,
        view: &dyn View,
        stream: StreamId,
        from: Asker,
        caller: &Caller,
        target: PeerId,
    ) {
        let refused = if caller.relayed || target == from.peer {
            Some(RelayStatus::PermissionDenied)
        } else if !self.reservations.holds(cx.now, target) {
            Some(RelayStatus::NoReservation)
        } else if !self.circuits.has_room(&from, target, &self.limits, self.allow_private) {
            Some(RelayStatus::ResourceLimitExceeded)
        } else {
            None
        };
        if let Some(status) = refused {
            return self.refuse(cx, stream, from, Some(target), status);
        }
        let Some(conn) = view.direct(target).first().copied() else {
            return self.refuse(cx, stream, from, Some(target), RelayStatus::ConnectionFailed);
        };
        self.exchanges.remove(stream);
        let stop = self.circuits.open(cx.now, stream, from, (target, conn));
        let wanted = StopMessage::Connect { peer: from.peer, limit: self.limits.limit };
        cx.actions.push(Action::OpenStream { conn, stream: stop });
        cx.actions.push(Action::Send { stream: stop, body: wanted.encode() });
    }

    /// The target says whether it takes the circuit.
    fn target_answered(
        &mut self,
        cx: &mut Cx<'_>,
        stop: StreamId,
        body: &Bytes,
    ) -> Result<(), Oddity> {
        let (hop, circuit) = self.circuits.opened_over(stop).ok_or(Oddity::UnknownStream)?;
        let answer = match StopMessage::decode(body) {
            Ok(StopMessage::Status { status }) => Ok(status == RelayStatus::Ok),
            Ok(StopMessage::Connect { .. }) => Err(Oddity::UnexpectedFrame),
            Err(_) => Err(Oddity::MalformedFrame),
        };
        if answer != Ok(true) {
            cx.actions.push(Action::ResetStream { stream: stop });
            self.not_opened(cx, hop, circuit);
            return answer.map(|_| ());
        }
        let limit = self.limits.limit;
        self.circuits.accepted(cx.now, hop, limit.duration);
        let body =
            HopMessage::Status { status: RelayStatus::Ok, reservation: None, limit }.encode();
        cx.actions.push(Action::Send { stream: hop, body });
        let bridge = RelayAction::Bridge { stream: hop, target: stop, bytes_max: limit.bytes };
        cx.actions.push(Action::Relay(bridge));
        let (initiator, target) = (circuit.from.peer, circuit.target);
        told(cx, RelayNotice::BridgeOpened { initiator, target });
        Ok(())
    }

    /// The target is not to be had, and its stream is gone.
    fn not_opened(&mut self, cx: &mut Cx<'_>, hop: StreamId, circuit: Circuit) {
        self.circuits.remove(hop);
        let Circuit { from, target, .. } = circuit;
        self.refuse(cx, hop, from, Some(target), RelayStatus::ConnectionFailed);
    }

    fn bridge_ended(
        &mut self,
        cx: &mut Cx<'_>,
        hop: StreamId,
        circuit: Circuit,
        (end, forth, back): (BridgeEnd, u64, u64),
    ) {
        self.circuits.remove(hop);
        let was_cut = matches!(circuit.stage, Stage::Ending { was_cut: true, .. });
        let overtime = was_cut && end == BridgeEnd::Cut;
        let (initiator, target) = (circuit.from.peer, circuit.target);
        told(cx, RelayNotice::BridgeEnded { initiator, target, end, overtime, forth, back });
    }

    /// Answer with a status alone, and say so.
    fn refuse(
        &mut self,
        cx: &mut Cx<'_>,
        stream: StreamId,
        from: Asker,
        target: Option<PeerId>,
        status: RelayStatus,
    ) {
        self.answer(cx, stream, from, status);
        told(cx, RelayNotice::Refused { peer: from.peer, target, status });
    }

    fn answer(&mut self, cx: &mut Cx<'_>, stream: StreamId, from: Asker, status: RelayStatus) {
        let limit = CircuitLimit::default();
        let status = HopMessage::Status { status, reservation: None, limit };
        self.say_last(cx, stream, from, &status);
    }

    /// Say it, and close our side; the peer is to close the other.
    fn say_last(&mut self, cx: &mut Cx<'_>, stream: StreamId, from: Asker, said: &HopMessage) {
        cx.actions.push(Action::Send { stream, body: said.encode() });
        cx.actions.push(Action::CloseStream { stream });
        self.exchanges.answered(cx, stream, from);
    }
}

fn told(cx: &mut Cx<'_>, notice: RelayNotice) {
    cx.actions.notify(Notice::Relay(notice));
}

/// How full that is. What has no room at all is full.
fn thousandths(used: usize, max: usize) -> u16 {
    let full = used.saturating_mul(1_000).checked_div(max).unwrap_or(1_000);
    u16::try_from(full.min(1_000)).unwrap_or(1_000)
}

saved!(struct RelayServer {
    reservations,
    exchanges,
    circuits,
    is_draining,
} given { limits, allow_private, identity } by fresh);

fn fresh(from: &Loader<'_>) -> Result<RelayServer, BadCheckpoint> {
    let limits = from.config.relay_server.as_ref().ok_or(BadCheckpoint)?;
    Ok(RelayServer::new(limits, from.config.allow_private, from.identity))
}
