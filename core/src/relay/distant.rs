//! AutoNAT servers behind relays, which we never contact otherwise: reached one at a time, when there is
//! something to ask them, and left again.
//!
//! ```text
//!  due ─► reaching its relay ─► asked (hop) ─► shaking hands ─► standing ─► asking ─► left, rests
//!          (unless connected)                                    who is it?    (probe)
//! ```

use super::{Ground, Relays};
use crate::candidates::Candidates;
use crate::probe::Probe;
use crate::words::checkpoint::{Room, saved};
use crate::words::deadline::{Deadline, earliest};
use crate::words::sleep::Sleep;
use crate::{
    Action, Addr, CircuitLimit, ConnId, Cx, DistantServer, Duration, Instant, Outcome, PeerId,
    Protocol, RelayAction, StreamId, Wake,
};
use alloc::collections::BTreeMap;

/// How long a dial of a relay may take, ours: the runtime tells before.
const REACH_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a server may take to say who it is, ours: as long as a question of identify.
const IDENTIFY_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a circuit that are no dial data, ours: handshakes, identify and the question, and one in
/// 32 for what each layer adds.
const OVERHEAD: u64 = 8_192;
/// The first rest of a server that was of no help, and the longest; ours. Each in a row doubles it.
const REST_FIRST: Duration = Duration::from_secs(60);
const REST_MAX: Duration = Duration::from_secs(3_600);
/// Those in a row that lengthen it, number: from there on it is the longest.
const STRIKES_MAX: u32 = 6;

const _: () = assert!(REST_FIRST.as_secs() << STRIKES_MAX >= REST_MAX.as_secs());

/// How far we are with a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Its relay is being dialled, at the address with this place in the list.
    Reaching { addr: Addr, place: usize, overdue_at: Instant },
    /// The relay was asked for a circuit on this stream, or hands are shaken over it.
    Joining { stream: StreamId },
    /// The circuit stands, and the server has not said yet what it serves.
    Standing { conn: ConnId, limit: CircuitLimit, overdue_at: Instant },
    /// It is being asked.
    Asking { conn: ConnId },
}

/// The server whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Present {
    peer: PeerId,
    stage: Stage,
}

/// How long a server is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rest {
    until: Instant,
    strikes: u32,
}

/// The servers behind relays; of each that was of no help one rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Distant {
    present: Option<Present>,
    rests: BTreeMap<PeerId, Rest>,
    /// When the next has something to do.
    due_at: Option<Instant>,
    /// The revision of the probes at which nobody had anything to do before that; they read all that it
    /// depends on.
    seen: Option<[u64; 1]>,
}

impl Distant {
    pub(super) fn is_busy(&self) -> bool {
        self.present.is_some()
    }

    pub(super) fn keeps(&self, conn: ConnId) -> bool {
        match self.present.map(|one| one.stage) {
            Some(Stage::Standing { conn: on, .. } | Stage::Asking { conn: on }) => on == conn,
            Some(Stage::Reaching { .. } | Stage::Joining { .. }) | None => false,
        }
    }

    pub(super) fn deadline(&self) -> Option<Deadline> {
        let overdue = match self.present.map(|one| one.stage) {
            Some(Stage::Reaching { overdue_at, .. } | Stage::Standing { overdue_at, .. }) => {
                Some(Deadline::new(overdue_at, Wake::RelayOverdue))
            }
            Some(Stage::Joining { .. } | Stage::Asking { .. }) | None => None,
        };
        earliest(overdue, self.due_at.map(|at| Deadline::new(at, Wake::RelayDue)))
    }

    pub(super) fn resumed(&mut self, sleep: Sleep) {
        match self.present.as_mut().map(|one| &mut one.stage) {
            Some(Stage::Reaching { overdue_at, .. } | Stage::Standing { overdue_at, .. }) => {
                sleep.put_off(overdue_at);
            }
            Some(Stage::Joining { .. } | Stage::Asking { .. }) | None => {}
        }
    }

    /// The circuit on this stream stands.
    pub(super) fn connected(
        &mut self,
        now: Instant,
        (stream, conn): (StreamId, ConnId),
        limit: CircuitLimit,
    ) {
        if let Some(Present { stage, .. }) = &mut self.present
            && *stage == (Stage::Joining { stream })
        {
            *stage = Stage::Standing { conn, limit, overdue_at: now + IDENTIFY_TIMEOUT };
        }
    }

    /// It is the next one's turn.
    fn done(&mut self) {
        self.present = None;
        self.seen = None;
    }

    /// The one whose turn it is was of no help.
    fn failed(&mut self, now: Instant, peer: PeerId) {
        self.done();
        let strikes = self.rests.get(&peer).map_or(0, |rest| rest.strikes);
        let span = REST_FIRST * 2u32.saturating_pow(strikes.min(STRIKES_MAX));
        let until = now + span.min(REST_MAX);
        self.rests.insert(peer, Rest { until, strikes: strikes.saturating_add(1) });
    }
}

impl Relays {
    /// Whether a server behind a relay is being reached or asked.
    pub(crate) fn asks_strangers(&self) -> bool {
        self.distant.is_busy()
    }

    /// A dial of a relay failed: whether it was made for a server behind it.
    pub(super) fn distant_unreachable(
        &mut self,
        cx: &mut Cx<'_>,
        ground: &Ground<'_>,
        (relay, addr): (PeerId, Addr),
    ) -> bool {
        let Some(Present { peer, stage: Stage::Reaching { addr: dialled, place, .. } }) =
            self.distant.present
        else {
            return false;
        };
        let server = ground.distant(peer).filter(|one| one.relay.peer == relay && dialled == addr);
        let Some(server) = server else { return false };
        if !self.reach(cx, server, place + 1) {
            self.distant.failed(cx.now, peer);
        }
        true
    }

    /// Whether a circuit is there to show whether strangers get in: nobody may make it a direct one.
    pub(crate) fn is_for_strangers(&self, conn: ConnId) -> bool {
        self.distant.keeps(conn)
    }

    /// Dial the relay of a server, at the address with this place in its list. Whether there is one.
    fn reach(&mut self, cx: &mut Cx<'_>, server: &DistantServer, place: usize) -> bool {
        let Some(addr) = server.relay.addrs.get(place).copied() else { return false };
        let overdue_at = cx.now + REACH_TIMEOUT;
        let stage = Stage::Reaching { addr, place, overdue_at };
        self.distant.present = Some(Present { peer: server.peer, stage });
        let relay = server.relay.peer;
        // One that is being dialled already is waited for.
        if !self.known.get(&relay).is_some_and(super::Known::is_connecting) {
            cx.actions.push(Action::Relay(RelayAction::Connect { peer: relay, addr }));
        }
        true
    }

    /// Go on with the server whose turn it is, and find the next.
    pub(super) fn seek_strangers(
        &mut self,
        cx: &mut Cx<'_>,
        ground: &Ground<'_>,
        (probe, candidates): (&Probe, &Candidates),
    ) {
        if let Some(present) = self.distant.present {
            self.go_on(cx, ground, probe, present);
        }
        let seen = Some([probe.revision()]);
        let is_due = self.distant.due_at.is_some_and(|at| at <= cx.now);
        if self.distant.seen == seen && !is_due {
            return;
        }
        self.distant.seen = seen;
        self.distant.due_at = None;
        while !self.distant.is_busy()
            && let Some((at, server)) = self.next_stranger(cx.now, ground, (probe, candidates))
        {
            if at > cx.now {
                self.distant.due_at = Some(at);
                return;
            }
            if !probe.is_quiet() {
                // The end of a question is an event.
                return;
            }
            if !self.join(cx, ground, server) && !self.reach(cx, server, 0) {
                self.distant.failed(cx.now, server.peer);
            }
        }
    }

    fn go_on(
        &mut self,
        cx: &mut Cx<'_>,
        ground: &Ground<'_>,
        probe: &Probe,
        Present { peer, stage }: Present,
    ) {
        let Some(server) = ground.distant(peer) else {
            return self.distant.done();
        };
        match stage {
            Stage::Reaching { overdue_at, .. } => {
                if !self.join(cx, ground, server) && overdue_at <= cx.now {
                    self.distant.failed(cx.now, peer);
                }
            }
            Stage::Joining { stream } => {
                if !self.circuits.is_opening(stream) {
                    self.distant.failed(cx.now, peer);
                }
            }
            Stage::Standing { conn, overdue_at, .. } => {
                let stands = ground.peers.get(conn).is_some();
                if stands && overdue_at <= cx.now {
                    cx.actions.push(Action::Disconnect { conn });
                }
                if !stands || overdue_at <= cx.now {
                    self.distant.failed(cx.now, peer);
                }
            }
            Stage::Asking { conn } if probe.asks_on(conn) => {}
            Stage::Asking { conn } => {
                if ground.peers.get(conn).is_some() {
                    cx.actions.push(Action::Disconnect { conn });
                }
                match probe.stranger_said(conn) {
                    Some(Outcome::Proved | Outcome::DialFailed) => {
                        self.distant.rests.remove(&peer);
                        self.distant.done();
                    }
                    Some(_) | None => self.distant.failed(cx.now, peer),
                }
            }
        }
    }

    /// Who is asked next, and when.
    fn next_stranger<'a>(
        &self,
        now: Instant,
        ground: &Ground<'a>,
        (probe, candidates): (&Probe, &Candidates),
    ) -> Option<(Instant, &'a DistantServer)> {
        let config = ground.config;
        let servers = config.relay.as_ref().map_or(&[][..], |one| &one.distant_servers);
        let due = |server: &'a DistantServer| {
            // Whom we are connected to knows the way in.
            let is_met = ground.peers.iter().any(|(_, one)| one.peer == server.peer);
            let due = probe.stranger_due(now, (ground.local, candidates), server.peer);
            let (due, _) = due.filter(|_| !is_met)?;
            let rests = self.distant.rests.get(&server.peer).map(|rest| rest.until);
            Some((rests.map_or(due, |until| until.max(due)).max(now), server))
        };
        // The first of those that are due together.
        servers.iter().filter_map(due).min_by_key(|(at, _)| *at)
    }

    /// Ask its relay for a circuit, if we are connected to that.
    fn join(&mut self, cx: &mut Cx<'_>, ground: &Ground<'_>, server: &DistantServer) -> bool {
        let relay = server.relay.peer;
        let mut direct = ground.peers.iter();
        let conn = direct.find(|(_, one)| one.peer == relay && !one.relayed && !one.is_late());
        let Some((conn, _)) = conn else { return false };
        let stream = self.mint();
        let stage = Stage::Joining { stream };
        self.distant.present = Some(Present { peer: server.peer, stage });
        self.circuits.open(cx, ground, (None, conn, server.peer), stream);
        true
    }

    /// The server that can be asked now, on which circuit, and how much dial data that carries.
    pub(crate) fn stranger_at_hand(&self, ground: &Ground<'_>) -> Option<(PeerId, ConnId, u64)> {
        let Present { peer, stage } = self.distant.present?;
        let Stage::Standing { conn, limit, .. } = stage else { return None };
        let connection = ground.peers.get(conn)?;
        let carried = |bytes: u64| bytes.saturating_sub(OVERHEAD) / 33 * 32;
        let data_max = limit.bytes.map_or(u64::MAX, carried);
        connection.protocols.contains(Protocol::DialRequest).then_some((peer, conn, data_max))
    }

    /// That server was asked, or there was nothing to ask any more.
    pub(crate) fn stranger_asked(&mut self, cx: &mut Cx<'_>, conn: ConnId, asked: bool) {
        let Some(present) = &mut self.distant.present else { return };
        if asked {
            present.stage = Stage::Asking { conn };
        } else {
            self.distant.done();
            cx.actions.push(Action::Disconnect { conn });
        }
    }
}

saved!(enum Stage {
    1 = Reaching { addr, place, overdue_at },
    2 = Joining { stream },
    3 = Standing { conn, limit, overdue_at },
    4 = Asking { conn },
});
saved!(struct Present { peer, stage });
saved!(struct Rest { until, strikes as up_to(STRIKES_MAX) });
saved!(struct Distant {
    present,
    rests,
    due_at as ahead(),
    seen as seen(|seen: [u64; 1]| seen, [Room::Probe]),
});
