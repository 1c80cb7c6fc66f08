//! Circuits for others: those being opened, and those whose bytes the runtime passes.
//!
//! ```text
//!  Opening ─ target says OK ─► Open ─ time is over, a connection ended ─► Ending ─┐
//!    │ refused, silent, gone     └────────────── BridgeEnded ─────────────────────┴─► gone
//!    └─► an exchange that is answered
//! ```

use super::admission::{Asker, Place};
use crate::words::checkpoint::{are_counts, saved};
use crate::words::deadline::{Deadline, Wake};
use crate::words::sleep::Sleep;
use crate::{ConnId, Duration, Instant, PeerId, Protocol, RelayServerConfig, Side, StreamId};
use alloc::collections::BTreeMap;

/// How long the target may take to accept a circuit, ours: half of what go-libp2p's relay waits,
/// and three retransmissions of TCP. Circuits that targets who are gone occupy grow with it.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);
/// How long we wait for a runtime to report the end of a bridge, ours. After that its place is
/// free again.
const END_GRACE: Duration = Duration::from_secs(10);

/// Where a circuit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The target was asked.
    Opening { overdue_at: Instant },
    /// Bytes flow, until then if it is limited.
    Open { over_at: Option<Instant> },
    /// It was cut, or lost a connection; the runtime has not reported the end.
    Ending { was_cut: bool, forgotten_at: Instant },
}

/// One circuit, from the request for it to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Circuit {
    /// The initiator.
    pub(super) from: Asker,
    pub(super) target: PeerId,
    pub(super) target_conn: ConnId,
    /// The stream to the target.
    pub(super) stop: StreamId,
    pub(super) stage: Stage,
}

impl Circuit {
    pub(super) fn is_opening(&self) -> bool {
        matches!(self.stage, Stage::Opening { .. })
    }

    fn is_of(&self, peer: PeerId) -> bool {
        self.from.peer == peer || self.target == peer
    }

    fn deadline(&self) -> Option<Deadline> {
        match self.stage {
            Stage::Opening { overdue_at: at } | Stage::Ending { forgotten_at: at, .. } => {
                Some(Deadline::new(at, Wake::RelayExchangeOverdue))
            }
            Stage::Open { over_at } => over_at.map(|at| Deadline::new(at, Wake::CircuitOvertime)),
        }
    }
}

/// Every circuit by the initiator's stream: at most `circuits_max`. When full, no further one is
/// opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Circuits {
    all: BTreeMap<StreamId, Circuit>,
    /// Stop streams opened so far: their ids.
    stops: u64,
}

impl Circuits {
    /// Whether one more of these two fits in.
    pub(super) fn has_room(
        &self,
        from: &Asker,
        target: PeerId,
        limits: &RelayServerConfig,
        allow_private: bool,
    ) -> bool {
        let network = |one: &Asker| Place::of(one.ip, allow_private).network;
        let (mut of_initiator, mut of_target, mut of_network) = (0, 0, 0);
        for one in self.all.values() {
            of_initiator += usize::from(one.is_of(from.peer));
            of_target += usize::from(one.is_of(target));
            of_network += usize::from(network(&one.from) == network(from));
        }
        self.all.len() < limits.circuits_max
            && of_initiator.max(of_target) < limits.circuits_per_peer_max
            && of_network < limits.circuits_per_prefix_max
    }

    /// The target is asked on the stream that is returned.
    pub(super) fn open(
        &mut self,
        now: Instant,
        hop: StreamId,
        from: Asker,
        (target, target_conn): (PeerId, ConnId),
    ) -> StreamId {
        self.stops += 1;
        let stop = StreamId::outbound(Protocol::Stop, self.stops);
        let stage = Stage::Opening { overdue_at: now + OPEN_TIMEOUT };
        let circuit = Circuit { from, target, target_conn, stop, stage };
        self.all.insert(hop, circuit);
        stop
    }

    /// The target accepted.
    pub(super) fn accepted(&mut self, now: Instant, hop: StreamId, lasts: Option<Duration>) {
        if let Some(circuit) = self.all.get_mut(&hop) {
            circuit.stage = Stage::Open { over_at: lasts.map(|lasts| now + lasts) };
        }
    }

    /// It should end any moment.
    pub(super) fn ending(&mut self, now: Instant, hop: StreamId, was_cut: bool) {
        if let Some(circuit) = self.all.get_mut(&hop) {
            circuit.stage = Stage::Ending { was_cut, forgotten_at: now + END_GRACE };
        }
    }

    pub(super) fn get(&self, hop: StreamId) -> Option<Circuit> {
        self.all.get(&hop).copied()
    }

    pub(super) fn remove(&mut self, hop: StreamId) -> Option<Circuit> {
        self.all.remove(&hop)
    }

    /// The circuit that is being opened over this stream to its target.
    pub(super) fn opened_over(&self, stop: StreamId) -> Option<(StreamId, Circuit)> {
        let mut all = self.all.iter().map(|(hop, one)| (*hop, *one));
        all.find(|(_, one)| one.stop == stop && one.is_opening())
    }

    /// Whether this is a stop stream of ours, be it that it is over.
    pub(super) fn has_opened(&self, stop: StreamId) -> bool {
        (1..=self.stops).contains(&stop.number)
    }

    /// One that stands on this connection and is not ending.
    pub(super) fn on(&self, conn: ConnId) -> Option<(StreamId, Circuit)> {
        let mut all = self.all.iter().map(|(hop, one)| (*hop, *one));
        let ends = |one: &Circuit| matches!(one.stage, Stage::Ending { .. });
        all.find(|(_, one)| (one.from.conn == conn || one.target_conn == conn) && !ends(one))
    }

    /// Whether one needs this connection.
    pub(super) fn keeps(&self, conn: ConnId) -> bool {
        self.all.values().any(|one| one.from.conn == conn || one.target_conn == conn)
    }

    /// One whose time has come.
    pub(super) fn due(&self, now: Instant) -> Option<(StreamId, Circuit)> {
        let mut all = self.all.iter().map(|(hop, one)| (*hop, *one));
        all.find(|(_, one)| one.deadline().is_some_and(|deadline| deadline.at <= now))
    }

    /// What waits for somebody gets its time back. How long a circuit lasts was promised: that it
    /// ages is no matter of whether we slept.
    pub(super) fn resumed(&mut self, sleep: Sleep) {
        for circuit in self.all.values_mut() {
            match &mut circuit.stage {
                Stage::Opening { overdue_at: at } | Stage::Ending { forgotten_at: at, .. } => {
                    sleep.put_off(at);
                }
                Stage::Open { .. } => {}
            }
        }
    }

    pub(super) fn deadline(&self) -> Option<Deadline> {
        self.all.values().filter_map(Circuit::deadline).min()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }
}

saved!(enum Stage {
    1 = Opening { overdue_at },
    2 = Open { over_at },
    3 = Ending { was_cut, forgotten_at },
});
saved!(struct Circuit { from, target, target_conn, stop, stage });
saved!(struct Circuits { all, stops as told() }, if is_sound);

/// What every step leaves behind.
fn is_sound(circuits: &Circuits) -> bool {
    let ours = |one: &Circuit| {
        (one.stop.side, one.stop.protocol) == (Side::Outbound, Protocol::Stop)
            && circuits.has_opened(one.stop)
    };
    are_counts(&[circuits.stops]) && circuits.all.values().all(ours)
}
