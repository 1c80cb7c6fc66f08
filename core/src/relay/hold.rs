//! One relay from the first question to the last renewal: the only place where a relay's standing
//! changes.

use super::known::{Exchange, Held, Known, Renewal, Standing};
use super::plan::{ASKS_MIN, ASKS_NEW_MIN};
use super::reservation::{self, Grant};
use super::rest::{self, HURRY};
use super::{Ground, HURRIES_MIN, Relays};
use crate::wire::relay::HopMessage;
use crate::{
    Action, Addr, CircuitLimit, Cx, DialFailure, Duration, Instant, Notice, Oddity, PeerId,
    RelayAction, RelayFailure, RelayNotice, RelayStatus, StreamId,
};
use alloc::vec::Vec;
use bytes::Bytes;

/// How long a dial of a relay may take, ours: the runtime tells before, and if it does not, we go
/// on to the next address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a relay may take to answer, round trips; ours.
const ANSWER_RTTS: u32 = 10;
/// The least of that, ours: a lost packet of TCP is sent again within it.
const ANSWER_MIN: Duration = Duration::from_secs(3);
/// The most of it, ours: as long as a question of identify.
const ANSWER_MAX: Duration = Duration::from_secs(10);

impl Relays {
    /// Dial a relay at its first address. Whether it has one.
    pub(super) fn connect(&mut self, cx: &mut Cx<'_>, ground: &Ground<'_>, peer: PeerId) -> bool {
        self.connect_at(cx, ground, peer, 0)
    }

    fn connect_at(
        &mut self,
        cx: &mut Cx<'_>,
        ground: &Ground<'_>,
        peer: PeerId,
        place: usize,
    ) -> bool {
        let Some(addr) = addresses(ground, peer).get(place).copied() else {
            return false;
        };
        cx.actions.push(Action::Relay(RelayAction::Connect { peer, addr }));
        let overdue_at = cx.now + CONNECT_TIMEOUT;
        self.enter(cx, peer, Standing::Connecting { addr, place, overdue_at });
        true
    }

    /// A dial did not reach a relay: try its next address.
    pub(super) fn connect_failed(
        &mut self,
        cx: &mut Cx<'_>,
        ground: &Ground<'_>,
        (peer, addr): (PeerId, Addr),
        reason: DialFailure,
    ) -> Result<(), Oddity> {
        let known = self.known.get(&peer).ok_or(Oddity::UnknownDial)?;
        match known.standing {
            Standing::Connecting { addr: dialled, place, .. } if dialled == addr => {
                if !self.connect_at(cx, ground, peer, place + 1) {
                    self.fail(cx, ground, peer, RelayFailure::Unreachable(reason));
                }
            }
            // It came late.
            Standing::Connecting { .. }
            | Standing::Idle
            | Standing::Asking(_)
            | Standing::Held(_)
            | Standing::Resting { .. } => {}
        }
        Ok(())
    }

    /// Ask a relay for a reservation. Whether that could be done now.
    pub(super) fn ask(&mut self, cx: &mut Cx<'_>, ground: &Ground<'_>, peer: PeerId) -> bool {
        if let Err(at) = self.asks.take(cx.now, ASKS_NEW_MIN) {
            self.limit(at);
            return false;
        }
        match self.question(cx, ground, peer) {
            Some(exchange) => {
                self.enter(cx, peer, Standing::Asking(exchange));
                true
            }
            None => false,
        }
    }

    /// Renew what is due.
    pub(super) fn renew(&mut self, cx: &mut Cx<'_>, ground: &Ground<'_>) {
        let now = cx.now;
        let is_due = |known: &Known| {
            let renewal = known.held().map(|held| held.renewal);
            matches!(renewal, Some(Renewal::At(at)) if at <= now)
        };
        let due = self.known.iter().filter(|(_, known)| is_due(known));
        let due: Vec<PeerId> = due.map(|(peer, _)| *peer).collect();
        for peer in due {
            let renewal = match self.asks.take(now, ASKS_MIN) {
                Err(at) => Renewal::At(at),
                // A fresh stream each time.
                Ok(()) => self.question(cx, ground, peer).map_or(Renewal::Never, Renewal::Asking),
            };
            if let Some(held) = self.known.get_mut(&peer).and_then(Known::held_mut) {
                held.renewal = renewal;
            }
        }
    }

    /// circuit-v2 §Reservation: RESERVE.
    fn question(&mut self, cx: &mut Cx<'_>, ground: &Ground<'_>, peer: PeerId) -> Option<Exchange> {
        let stream = self.mint();
        let (conn, connection) = self.known.get(&peer)?.conn(ground)?;
        let patience = connection.rtt.map_or(ANSWER_MAX, |rtt| rtt * ANSWER_RTTS);
        cx.actions.push(Action::OpenStream { conn, stream });
        cx.actions.push(Action::Send { stream, body: HopMessage::Reserve.encode() });
        let overdue_at = cx.now + patience.clamp(ANSWER_MIN, ANSWER_MAX);
        Some(Exchange { stream, conn, overdue_at })
    }

    /// A relay answers.
    pub(super) fn answered(
        &mut self,
        cx: &mut Cx<'_>,
        ground: &Ground<'_>,
        (peer, stream): (PeerId, StreamId),
        body: &Bytes,
    ) -> Result<(), Oddity> {
        let message = HopMessage::decode(body);
        let Ok(HopMessage::Status { status, reservation, limit }) = message else {
            cx.actions.push(Action::ResetStream { stream });
            self.refused(cx, peer, RelayFailure::BadAnswer);
            let odd =
                if message.is_ok() { Oddity::UnexpectedFrame } else { Oddity::MalformedFrame };
            return Err(odd);
        };
        cx.actions.push(Action::CloseStream { stream });
        let exchange = self.known.get(&peer).and_then(Known::exchange);
        let exchange = exchange.ok_or(Oddity::UnknownStream)?;
        let connection = ground.peers.get(exchange.conn).ok_or(Oddity::UnknownConnection)?;
        let granted = match (status, &reservation) {
            (RelayStatus::Ok, Some(reservation)) => {
                reservation::read(cx, ground, connection, reservation)
            }
            _ => Err(failure_of(status)),
        };
        match granted {
            Ok(grant) => self.granted(cx, peer, exchange, grant, limit),
            Err(failure) => self.refused(cx, peer, failure),
        }
        Ok(())
    }

    fn granted(
        &mut self,
        cx: &mut Cx<'_>,
        peer: PeerId,
        exchange: Exchange,
        grant: Grant,
        limit: CircuitLimit,
    ) {
        let Some(known) = self.known.get_mut(&peer) else {
            return;
        };
        let Grant { until, renew_at, addrs } = grant;
        let before = known.held().map(|held| held.since);
        if before.is_some() {
            known.strikes = 0;
        }
        known.granted_until = Some(until);
        let held = Held {
            conn: exchange.conn,
            since: before.unwrap_or(cx.now),
            until,
            renewal: Renewal::At(renew_at),
            tries: 0,
            fading: None,
            limit,
            addrs,
        };
        self.enter(cx, peer, Standing::Held(held));
    }

    /// A relay did not grant what it was asked for.
    pub(super) fn refused(&mut self, cx: &mut Cx<'_>, peer: PeerId, failure: RelayFailure) {
        let now = cx.now;
        let Some(known) = self.known.get_mut(&peer) else {
            return;
        };
        let Some(held) = known.held_mut() else {
            return self.rest(cx, peer, failure);
        };
        // What was granted holds until it ends; meanwhile another relay is asked, and this one
        // again.
        let was_relied_on = held.fading.replace(failure).is_none();
        let again = reservation::retry_at(now, held.until, failure, held.tries);
        held.renewal = again.map_or(Renewal::Never, Renewal::At);
        held.tries = held.tries.saturating_add(1);
        if was_relied_on {
            self.hurry_if_alone(cx, Some(peer));
        }
    }

    /// Give up what is overdue, and end what has run out.
    pub(super) fn expire(&mut self, cx: &mut Cx<'_>, ground: &Ground<'_>) {
        let now = cx.now;
        let is_due = |known: &Known| known.deadline().is_some_and(|due| due.at <= now);
        let due = self.known.iter().filter(|(_, known)| is_due(known));
        let due: Vec<PeerId> = due.map(|(peer, _)| *peer).collect();
        for peer in due {
            let Some(known) = self.known.get(&peer) else {
                continue;
            };
            match &known.standing {
                Standing::Idle => {}
                Standing::Connecting { addr, .. } => {
                    let addr = *addr;
                    // It is known, so that this is no oddity.
                    let _ = self.connect_failed(cx, ground, (peer, addr), DialFailure::TimedOut);
                }
                Standing::Asking(_) => self.fail(cx, ground, peer, RelayFailure::TimedOut),
                Standing::Held(held) if held.until <= now => {
                    let failure = held.fading.unwrap_or(RelayFailure::TimedOut);
                    self.fail(cx, ground, peer, failure);
                }
                Standing::Held(Held { renewal: Renewal::Asking(exchange), .. })
                    if exchange.overdue_at <= now =>
                {
                    let stream = exchange.stream;
                    cx.actions.push(Action::ResetStream { stream });
                    self.refused(cx, peer, RelayFailure::TimedOut);
                }
                Standing::Held(_) => {}
                Standing::Resting { .. } => self.enter(cx, peer, Standing::Idle),
            }
        }
    }

    /// See what became of the connections.
    pub(super) fn look_after(&mut self, cx: &mut Cx<'_>, ground: &Ground<'_>) {
        let peers: Vec<PeerId> = self.known.keys().copied().collect();
        for peer in peers {
            let Some(known) = self.known.get_mut(&peer) else {
                continue;
            };
            let conn = known.conn(ground).map(|(conn, _)| conn);
            let relays = known.relays(ground);
            if conn.is_none() {
                known.dialled = false;
            }
            if !known.is_connected() {
                // circuit-v2 §Reservation: it ends with the last connection.
                known.granted_until = None;
            }
            let begins_to_relay = relays == Some(true) && known.listed != Some(true);
            match &known.standing {
                Standing::Connecting { .. } if conn.is_some() => {
                    known.dialled = true;
                    self.enter(cx, peer, Standing::Idle);
                }
                Standing::Asking(exchange) if !known.has(ground, exchange.conn) => {
                    self.fail(cx, ground, peer, RelayFailure::Disconnected);
                }
                Standing::Held(_) => match conn {
                    None => self.fail(cx, ground, peer, RelayFailure::Disconnected),
                    Some(conn) => {
                        let said = (relays, begins_to_relay);
                        self.look_after_held(cx, ground, (peer, conn), said);
                    }
                },
                Standing::Idle if relays == Some(false) && ground.relay(peer).is_some() => {
                    self.fail(cx, ground, peer, RelayFailure::Unsupported);
                }
                Standing::Resting { failure: RelayFailure::Unsupported, .. } if begins_to_relay => {
                    self.enter(cx, peer, Standing::Idle);
                }
                Standing::Idle
                | Standing::Connecting { .. }
                | Standing::Asking(_)
                | Standing::Resting { .. } => {}
            }
        }
    }

    fn look_after_held(
        &mut self,
        cx: &mut Cx<'_>,
        ground: &Ground<'_>,
        (peer, conn): (PeerId, crate::ConnId),
        (relays, begins_to_relay): (Option<bool>, bool),
    ) {
        let Some(known) = self.known.get(&peer) else {
            return;
        };
        let Some(held) = known.held() else {
            return;
        };
        let stands = known.has(ground, held.conn);
        let asks_in_vain = known.exchange().is_some_and(|one| !known.has(ground, one.conn));
        if asks_in_vain {
            self.break_off(cx, ground, peer);
        }
        let Some(held) = self.known.get_mut(&peer).and_then(Known::held_mut) else {
            return;
        };
        if !stands {
            held.conn = conn;
        }
        if asks_in_vain {
            held.renewal = Renewal::At(cx.now);
        }
        let drains = held.fading == Some(RelayFailure::Unsupported);
        match relays {
            // It winds down: it would not renew, and serves what it granted.
            Some(false) if !drains => {
                held.fading = Some(RelayFailure::Unsupported);
                if matches!(held.renewal, Renewal::At(_)) {
                    held.renewal = Renewal::Never;
                }
                self.hurry_if_alone(cx, Some(peer));
            }
            // Where it only went on saying so, it would be asked in vain again and again.
            Some(true) if drains && begins_to_relay && held.renewal == Renewal::Never => {
                held.renewal = Renewal::At(cx.now);
            }
            Some(_) | None => {}
        }
    }

    /// A relay is of no use for now.
    pub(super) fn fail(
        &mut self,
        cx: &mut Cx<'_>,
        ground: &Ground<'_>,
        peer: PeerId,
        failure: RelayFailure,
    ) {
        self.break_off(cx, ground, peer);
        self.rest(cx, peer, failure);
    }

    /// A relay is not needed any more.
    pub(super) fn let_go(&mut self, cx: &mut Cx<'_>, ground: &Ground<'_>, peer: PeerId) {
        self.break_off(cx, ground, peer);
        self.enter(cx, peer, Standing::Idle);
    }

    /// Take back a question whose connection stands.
    fn break_off(&mut self, cx: &mut Cx<'_>, ground: &Ground<'_>, peer: PeerId) {
        let exchange = self.known.get(&peer).and_then(Known::exchange);
        let exchange = exchange.filter(|one| ground.peers.get(one.conn).is_some());
        if let Some(Exchange { stream, .. }) = exchange {
            cx.actions.push(Action::ResetStream { stream });
        }
    }

    fn rest(&mut self, cx: &mut Cx<'_>, peer: PeerId, failure: RelayFailure) {
        let Some(known) = self.known.get_mut(&peer) else {
            return;
        };
        if known.was_steady(cx.now) {
            known.strikes = 0;
        }
        let held = known.held().is_some();
        let strikes = known.strikes;
        known.strikes = strikes.saturating_add(1);
        let is_alone = !self.known.iter().any(|(one, known)| *one != peer && known.serves());
        if held {
            self.hurry_if_alone(cx, Some(peer));
        }
        let span = rest::rest(cx.draw, failure, strikes, is_alone);
        self.enter(cx, peer, Standing::Resting { failure, until: cx.now + span });
    }

    /// Where no relay serves us, `but` for one that is being lost, cut short the rests that are the
    /// network's fault; where one is being lost, every other one as well: what others said while it
    /// served us may be long over.
    pub(super) fn hurry_if_alone(&mut self, cx: &mut Cx<'_>, but: Option<PeerId>) {
        let soon = cx.now + HURRY;
        let may_hurry = |failure| match but {
            Some(_) => rest::alone_max(failure).is_some(),
            None => rest::is_networks(failure),
        };
        let late = self.resting(|failure, until| soon < until && may_hurry(failure));
        let serves = |(peer, known): (&PeerId, &Known)| Some(*peer) != but && known.serves();
        let is_alone = self.is_needed() && !self.known.iter().any(serves);
        if !is_alone || late.is_empty() || self.hurries.take(cx.now, HURRIES_MIN).is_err() {
            return;
        }
        for (peer, failure) in late {
            self.enter(cx, peer, Standing::Resting { failure, until: soon });
        }
    }

    /// While no relay serves us nobody rests for long, and who denied a renewal is asked again before
    /// the reservation ends.
    pub(super) fn shorten_rests(&mut self, cx: &mut Cx<'_>) {
        if !self.is_needed() || self.known.values().any(Known::serves) {
            return;
        }
        let now = cx.now;
        let longest = |failure| rest::alone_max(failure).map(|max| now + max + max / 4);
        let late = |failure, until| longest(failure).is_some_and(|most| most < until);
        for (peer, failure) in self.resting(late) {
            let until = longest(failure).unwrap_or(now);
            self.enter(cx, peer, Standing::Resting { failure, until });
        }
        for held in self.known.values_mut().filter_map(Known::held_mut) {
            // Who is wound down says so himself when he relays again.
            let denied = held.fading.filter(|failure| *failure != RelayFailure::Unsupported);
            let again = denied.and_then(rest::alone_max).map(|max| now + max);
            if let (Renewal::Never, Some(at)) = (held.renewal, again) {
                held.renewal = Renewal::At(at);
            }
        }
    }

    /// Who rests, and why, as far as wanted.
    fn resting(
        &self,
        wanted: impl Fn(RelayFailure, Instant) -> bool,
    ) -> Vec<(PeerId, RelayFailure)> {
        let rests = |(peer, known): (&PeerId, &Known)| match known.standing {
            Standing::Resting { failure, until } => {
                wanted(failure, until).then_some((*peer, failure))
            }
            Standing::Idle
            | Standing::Connecting { .. }
            | Standing::Asking(_)
            | Standing::Held(_) => None,
        };
        self.known.iter().filter_map(rests).collect()
    }

    /// The only place that assigns a standing.
    fn enter(&mut self, cx: &mut Cx<'_>, peer: PeerId, standing: Standing) {
        if let Some(known) = self.known.get_mut(&peer) {
            known.standing = standing;
            let view = known.view(peer);
            cx.actions.notify(Notice::Relay(RelayNotice::Changed(view)));
        }
    }
}

/// Where a relay is dialled: its addresses of families that we have, best first; all of them where
/// none is.
fn addresses(ground: &Ground<'_>, peer: PeerId) -> Vec<Addr> {
    let all = ground.relay(peer).map_or(&[][..], |relay| &relay.addrs);
    let can_dial = |addr: &&Addr| {
        let family = crate::Family::of(addr.ip);
        ground.local.can_dial(family, crate::ip_scope(addr.ip))
    };
    let usable: Vec<Addr> = all.iter().filter(can_dial).copied().collect();
    if usable.is_empty() { all.to_vec() } else { usable }
}

/// What a status other than a grant means (circuit-v2 §Status Codes).
fn failure_of(status: RelayStatus) -> RelayFailure {
    match status {
        RelayStatus::ReservationRefused | RelayStatus::ResourceLimitExceeded => RelayFailure::Full,
        RelayStatus::PermissionDenied => RelayFailure::Denied,
        RelayStatus::Unused
        | RelayStatus::Ok
        | RelayStatus::ConnectionFailed
        | RelayStatus::NoReservation
        | RelayStatus::MalformedMessage
        | RelayStatus::UnexpectedMessage
        | RelayStatus::Unknown(_) => RelayFailure::BadAnswer,
    }
}
