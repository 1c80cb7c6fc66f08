//! Circuits of our own: those that the application wants through a relay, and those that relays
//! bring to us.
//!
//! ```text
//!  CircuitWanted ─► >hop CONNECT ─► OK ─► Upgrade      else ─► CircuitFailed
//!  <stop CONNECT ─► from a relay that we reserved at, within its limits ─► OK ─► Upgrade
//! ```

use super::Ground;
use crate::wire::relay::{HopMessage, StopMessage};
use crate::words::checkpoint::saved;
use crate::words::sleep::Sleep;
use crate::{
    Action, CircuitFailure, CircuitId, CircuitLimit, ConnId, Connected, Cx, Deadline, Duration,
    Instant, Oddity, PeerId, RelayAction, RelayStatus, StreamFailure, StreamId, Wake,
};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use bytes::Bytes;

/// Circuits that are being opened for the application, number; ours. Memory grows by some 200 bytes
/// each. When full, a further one fails with `TooMany`.
const WANTED_MAX: usize = 64;
/// How long a relay may take to join us with a peer, ours: it has to ask the peer, who may be far.
const WANTED_TIMEOUT: Duration = Duration::from_secs(15);
/// Circuits that relays bring and that do not stand yet, number; ours. When full, a further one is
/// told that resources are short.
const BROUGHT_MAX: usize = 64;
/// Of them by one connection, number; ours: a quarter of all.
const BROUGHT_PER_CONN_MAX: usize = 16;
/// Of them by peers that granted us nothing, number; ours: a quarter of all. They are told so once they
/// have spoken, and cannot keep relays out by silence. When full, a further one of theirs is reset.
const STRANGE_MAX: usize = 16;
/// How long a relay may take to say who wants to reach us, ours: as long as a question of identify.
const BROUGHT_TIMEOUT: Duration = Duration::from_secs(10);
/// Circuits that one relay may bring in a minute, number; ours: one a second. Handshakes that we do
/// for strangers grow with it. When used up, a further one is told that resources are short.
pub(super) const BROUGHT_PER_RELAY_MIN: usize = 60;
/// How long handshakes over a circuit are counted, ours: longer than any takes.
const UPGRADE_MAX: Duration = Duration::from_secs(30);

/// A circuit that the application wants, or the room itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    circuit: Option<CircuitId>,
    conn: ConnId,
    peer: PeerId,
    overdue_at: Instant,
}

/// A stream on which a relay is about to say who wants to reach us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Brought {
    conn: ConnId,
    /// The peer has granted us no reservation.
    strange: bool,
    overdue_at: Instant,
}

/// A stream that was handed over, until a connection came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Upgrading {
    conn: ConnId,
    peer: PeerId,
    /// A relay brought it.
    brought: bool,
    limit: CircuitLimit,
    overdue_at: Instant,
}

/// Every circuit that does not stand yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Circuits {
    wanted: BTreeMap<StreamId, Wanted>,
    brought: BTreeMap<StreamId, Brought>,
    /// At most as many as of both, wanted ones counted from when they are wanted.
    upgrading: BTreeMap<StreamId, Upgrading>,
}

impl Circuits {
    /// The application wants a circuit; `stream` is the one it would be opened on.
    pub(super) fn want(
        &mut self,
        cx: &mut Cx<'_>,
        ground: &Ground<'_>,
        (circuit, conn, peer): (CircuitId, ConnId, PeerId),
        stream: StreamId,
    ) -> Result<(), Oddity> {
        if self.wanted.values().any(|one| one.circuit == Some(circuit)) {
            return Err(Oddity::ReusedId);
        }
        self.open(cx, ground, (Some(circuit), conn, peer), stream);
        Ok(())
    }

    /// Ask a relay for a circuit. If that cannot be, it is none that is being opened.
    pub(super) fn open(
        &mut self,
        cx: &mut Cx<'_>,
        ground: &Ground<'_>,
        (circuit, conn, peer): (Option<CircuitId>, ConnId, PeerId),
        stream: StreamId,
    ) {
        let relay = ground.peers.get(conn).filter(|one| !one.relayed);
        if relay.is_none() || ground.config.relay.is_none() {
            fail(cx, circuit, CircuitFailure::NoRelay);
            return;
        }
        // Whether it relays is told by the stream alone: one that is wound down does not list hop any
        // more, and still serves what it granted.
        let under_way = self.wanted.len() + self.upgrading.len();
        if self.wanted.len() >= WANTED_MAX || under_way >= WANTED_MAX + BROUGHT_MAX {
            fail(cx, circuit, CircuitFailure::TooMany);
            return;
        }
        let overdue_at = cx.now + WANTED_TIMEOUT;
        self.wanted.insert(stream, Wanted { circuit, conn, peer, overdue_at });
        cx.actions.push(Action::OpenStream { conn, stream });
        cx.actions.push(Action::Send { stream, body: HopMessage::Connect { peer }.encode() });
    }

    /// Nobody waits for it any more. It may just have failed, or stand.
    pub(super) fn forget(&mut self, cx: &mut Cx<'_>, circuit: CircuitId) {
        let of =
            |(stream, one): (&StreamId, &Wanted)| (one.circuit == Some(circuit)).then_some(*stream);
        if let Some(stream) = self.wanted.iter().find_map(of) {
            self.wanted.remove(&stream);
            cx.actions.push(Action::ResetStream { stream });
        }
    }

    /// Whether a stream of ours is for a circuit.
    pub(super) fn is_wanted(&self, stream: StreamId) -> bool {
        self.wanted.contains_key(&stream)
    }

    /// The relay answers.
    pub(super) fn answered(
        &mut self,
        cx: &mut Cx<'_>,
        stream: StreamId,
        body: &Bytes,
    ) -> Result<(), Oddity> {
        let wanted = self.wanted.remove(&stream).ok_or(Oddity::UnknownStream)?;
        let Wanted { circuit, conn, peer, .. } = wanted;
        match HopMessage::decode(body) {
            Ok(HopMessage::Status { status: RelayStatus::Ok, limit, .. }) => {
                let overdue_at = cx.now + UPGRADE_MAX;
                let upgrading = Upgrading { conn, peer, brought: false, limit, overdue_at };
                self.upgrading.insert(stream, upgrading);
                let upgrade = RelayAction::Upgrade { stream, peer, circuit, limit };
                cx.actions.push(Action::Relay(upgrade));
                Ok(())
            }
            Ok(HopMessage::Status { status, .. }) => {
                cx.actions.push(Action::CloseStream { stream });
                fail(cx, circuit, CircuitFailure::Refused(status));
                Ok(())
            }
            Ok(HopMessage::Reserve | HopMessage::Connect { .. }) => {
                cx.actions.push(Action::ResetStream { stream });
                fail(cx, circuit, CircuitFailure::BadAnswer);
                Err(Oddity::UnexpectedFrame)
            }
            Err(_) => {
                cx.actions.push(Action::ResetStream { stream });
                fail(cx, circuit, CircuitFailure::BadAnswer);
                Err(Oddity::MalformedFrame)
            }
        }
    }

    /// The stream of a circuit could not be opened.
    pub(super) fn failed(&mut self, cx: &mut Cx<'_>, stream: StreamId, reason: StreamFailure) {
        if let Some(wanted) = self.wanted.remove(&stream) {
            let reason = match reason {
                StreamFailure::Unsupported => CircuitFailure::Unsupported,
                StreamFailure::TimedOut => CircuitFailure::TimedOut,
                StreamFailure::Failed => CircuitFailure::NoRelay,
            };
            fail(cx, wanted.circuit, reason);
        }
    }

    /// A stream ended before it was a circuit.
    pub(super) fn closed(&mut self, cx: &mut Cx<'_>, stream: StreamId) {
        if let Some(wanted) = self.wanted.remove(&stream) {
            cx.actions.push(Action::ResetStream { stream });
            fail(cx, wanted.circuit, CircuitFailure::BadAnswer);
        }
        if self.brought.remove(&stream).is_some() {
            cx.actions.push(Action::ResetStream { stream });
        }
    }

    /// A relay is about to bring a circuit; or a peer that is `strange`, having granted us nothing.
    pub(super) fn opened(
        &mut self,
        cx: &mut Cx<'_>,
        ground: &Ground<'_>,
        (conn, strange): (ConnId, bool),
        stream: StreamId,
    ) -> Result<(), Oddity> {
        if self.brought.contains_key(&stream) {
            return Err(Oddity::ReusedId);
        }
        let of_conn = self.brought.values().filter(|one| one.conn == conn).count();
        let strangers = self.brought.values().filter(|one| one.strange).count();
        let is_full = self.brought.len() >= BROUGHT_MAX
            || of_conn >= BROUGHT_PER_CONN_MAX
            || strange && strangers >= STRANGE_MAX;
        let oddity = if ground.peers.get(conn).is_none() {
            Some(Oddity::UnknownConnection)
        } else if ground.config.relay.is_none() {
            Some(Oddity::UnknownStream)
        } else {
            is_full.then_some(Oddity::Full)
        };
        if let Some(oddity) = oddity {
            cx.actions.push(Action::ResetStream { stream });
            return Err(oddity);
        }
        let overdue_at = cx.now + BROUGHT_TIMEOUT;
        self.brought.insert(stream, Brought { conn, strange, overdue_at });
        Ok(())
    }

    /// The connection on which a relay is about to say who wants to reach us.
    pub(super) fn brought_on(&self, stream: StreamId) -> Option<ConnId> {
        self.brought.get(&stream).map(|one| one.conn)
    }

    /// A relay says who wants to reach us. `admitted` says what it is told otherwise.
    pub(super) fn brought(
        &mut self,
        cx: &mut Cx<'_>,
        ground: &Ground<'_>,
        (stream, body): (StreamId, &Bytes),
        admitted: impl FnOnce() -> Result<(), RelayStatus>,
    ) -> Result<(), Oddity> {
        let Brought { conn, .. } = self.brought.remove(&stream).ok_or(Oddity::UnknownStream)?;
        let (peer, limit) = match StopMessage::decode(body) {
            Ok(StopMessage::Connect { peer, limit }) => (peer, limit),
            // circuit-v2 §Status Codes: what is wrong at this moment, and what does not decode.
            Ok(StopMessage::Status { .. }) => {
                answer(cx, stream, RelayStatus::UnexpectedMessage);
                return Err(Oddity::UnexpectedFrame);
            }
            Err(_) => {
                answer(cx, stream, RelayStatus::MalformedMessage);
                return Err(Oddity::MalformedFrame);
            }
        };
        let of_conn = self.upgrading.values().filter(|one| one.conn == conn && one.brought);
        let under_way = self.wanted.len() + self.upgrading.len();
        let is_full =
            under_way >= WANTED_MAX + BROUGHT_MAX || of_conn.count() >= BROUGHT_PER_CONN_MAX;
        let verdict = if peer == ground.identity.to_peer_id() {
            Err(RelayStatus::PermissionDenied)
        } else if is_full {
            Err(RelayStatus::ResourceLimitExceeded)
        } else {
            admitted()
        };
        if let Err(status) = verdict {
            answer(cx, stream, status);
            return Ok(());
        }
        let body = StopMessage::Status { status: RelayStatus::Ok }.encode();
        cx.actions.push(Action::Send { stream, body });
        let overdue_at = cx.now + UPGRADE_MAX;
        self.upgrading.insert(stream, Upgrading { conn, peer, brought: true, limit, overdue_at });
        let upgrade = RelayAction::Upgrade { stream, peer, circuit: None, limit };
        cx.actions.push(Action::Relay(upgrade));
        Ok(())
    }

    /// No connection came of a stream that was handed over.
    pub(super) fn upgrade_failed(&mut self, stream: StreamId) {
        // Where it took longer than it is counted, it is not known any more.
        self.upgrading.remove(&stream);
    }

    /// Whether the circuit on this stream of ours may yet stand.
    pub(super) fn is_opening(&self, stream: StreamId) -> bool {
        self.is_wanted(stream) || self.upgrading.contains_key(&stream)
    }

    /// A circuit stands: on which stream, and what it may carry.
    pub(super) fn connected(&mut self, facts: &Connected) -> Option<(StreamId, CircuitLimit)> {
        if !facts.relayed {
            return None;
        }
        let of =
            |(stream, one): (&StreamId, &Upgrading)| (one.peer == facts.peer).then_some(*stream);
        let stream = self.upgrading.iter().find_map(of)?;
        self.upgrading.remove(&stream).map(|one| (stream, one.limit))
    }

    /// A connection is gone, and every stream on it.
    pub(super) fn disconnected(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.brought.retain(|_, one| one.conn != conn);
        self.upgrading.retain(|_, one| one.conn != conn);
        let gone: Vec<Wanted> =
            self.wanted.values().filter(|one| one.conn == conn).copied().collect();
        self.wanted.retain(|_, one| one.conn != conn);
        for wanted in gone {
            fail(cx, wanted.circuit, CircuitFailure::NoRelay);
        }
    }

    /// Give up what is overdue.
    pub(super) fn advance(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now;
        self.upgrading.retain(|_, one| now < one.overdue_at);
        let late = self.brought.iter().filter(|(_, one)| one.overdue_at <= now);
        let late: Vec<StreamId> = late.map(|(stream, _)| *stream).collect();
        for stream in late {
            self.brought.remove(&stream);
            cx.actions.push(Action::ResetStream { stream });
        }
        let late = self.wanted.iter().filter(|(_, one)| one.overdue_at <= now);
        let late: Vec<(StreamId, Option<CircuitId>)> =
            late.map(|(stream, one)| (*stream, one.circuit)).collect();
        for (stream, circuit) in late {
            self.wanted.remove(&stream);
            cx.actions.push(Action::ResetStream { stream });
            fail(cx, circuit, CircuitFailure::TimedOut);
        }
    }

    pub(super) fn deadline(&self) -> Option<Deadline> {
        let wanted = self.wanted.values().map(|one| one.overdue_at);
        let brought = self.brought.values().map(|one| one.overdue_at);
        let upgrading = self.upgrading.values().map(|one| one.overdue_at);
        let at = wanted.chain(brought).chain(upgrading).min()?;
        Some(Deadline::new(at, Wake::CircuitOverdue))
    }

    pub(super) fn resumed(&mut self, sleep: Sleep) {
        self.wanted.values_mut().for_each(|one| sleep.put_off(&mut one.overdue_at));
        self.brought.values_mut().for_each(|one| sleep.put_off(&mut one.overdue_at));
        self.upgrading.values_mut().for_each(|one| sleep.put_off(&mut one.overdue_at));
    }

    pub(super) fn keeps(&self, conn: ConnId) -> bool {
        self.wanted.values().any(|one| one.conn == conn)
            || self.brought.values().any(|one| one.conn == conn && !one.strange)
            || self.upgrading.values().any(|one| one.conn == conn)
    }
}

/// Tell the application; the room looks for itself.
fn fail(cx: &mut Cx<'_>, circuit: Option<CircuitId>, reason: CircuitFailure) {
    if let Some(circuit) = circuit {
        cx.actions.push(Action::Relay(RelayAction::CircuitFailed { circuit, reason }));
    }
}

/// The relay is told no.
fn answer(cx: &mut Cx<'_>, stream: StreamId, status: RelayStatus) {
    cx.actions.push(Action::Send { stream, body: StopMessage::Status { status }.encode() });
    cx.actions.push(Action::CloseStream { stream });
}

saved!(struct Wanted { circuit, conn, peer, overdue_at });
saved!(struct Brought { conn, strange, overdue_at });
saved!(struct Upgrading { conn, peer, brought, limit, overdue_at });
saved!(struct Circuits { wanted, brought, upgrading });
