//! Floor 7 · hole punching: direct connections out of relayed ones (DCUtR).
//!
//! Knows: circuits that want to become direct connections, attempts, what came of earlier ones.
//! Reads: local, peers, observed, candidates, reachability, relay.
//!
//! ```text
//!  who took the circuit (drive):   greeting ─► plain dials ─► asking ─► waiting ─► dialling ─► direct
//!                                      ▲                        ▲                     │
//!                                      └───────── resting ◄─────┴── three attempts ◄──┘
//!  who opened it (follow):             told ─► dialling ─► direct
//! ```
//!
//! Both say where they may be reached and, beside the specification, how their NATs behave. A class in
//! which neither can be entered is not tried; a pair without any other is hopeless and is named so,
//! without a packet. Who took the circuit begins, and begins anew when what it can tell has changed,
//! and else ever more seldom. Once a direct connection stands, the circuit is closed a little later.
//!
//! Limits: `ATTEMPTS_MAX` attempts at once, `FOLLOWS_MIN` a minute that others begin, `MEMORY_MAX`
//! peers that are remembered; of one attempt, those in `offer`.
//! Follows: DCUtR; design §3 *punch*.
//!
//! A good first change here: measure the round trip of a circuit by pings, beside the exchange itself.

mod drive;
mod follow;
mod offer;
mod outlook;

use crate::candidates::Candidates;
use crate::local::Local;
use crate::observed::ObservedAddrs;
use crate::peers::{Connection, Peers};
use crate::reachability::Reachability;
use crate::relay::{Budget, Relays};
use crate::wire::multiaddr;
use crate::words::checkpoint::{Room, are_counts, saved};
use crate::words::sleep::Sleep;
use crate::{
    Action, Addr, Config, ConnId, Cx, Deadline, Duration, Instant, Notice, Oddity, PeerId,
    Protocol, PunchAction, PunchEvent, PunchFailure, PunchId, PunchNotice, Side, StreamEnd,
    StreamFailure, StreamId, Wake,
};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use bytes::Bytes;

use drive::Drive;
use follow::Follow;
use offer::{Dials, Direct, Offer};

/// Attempts under way at once, number, those that others begin apart from ours; ours: each sends
/// some dozens of packets a second. When full, one of ours waits and one of others is refused.
const ATTEMPTS_MAX: usize = 8;
/// Attempts that others may begin in a minute, number; ours: what they can have us send grows with
/// it. When used up, a further one is refused.
const FOLLOWS_MIN: usize = 60;
/// Peers whose outcome is remembered, number; ours. Memory grows by some 80 bytes each. When full,
/// the one that would be tried again first is forgotten.
const MEMORY_MAX: usize = 256;
/// How long the dials of an attempt go on, ours: three SYNs of the kernel, and as long as others
/// wait for a handshake over QUIC.
const ATTEMPT_MAX: Duration = Duration::from_secs(5);
/// How long an answer to `CONNECT` may take, ours: as long as a question of identify.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a circuit is kept beside a direct connection, ours: what runs on it has time to move.
const GRACE: Duration = Duration::from_secs(15);

/// What the room reads.
pub(crate) struct Ground<'a> {
    pub(crate) config: &'a Config,
    pub(crate) local: &'a Local,
    pub(crate) peers: &'a Peers,
    pub(crate) observed: &'a ObservedAddrs,
    pub(crate) candidates: &'a Candidates,
    pub(crate) reachability: &'a Reachability,
    pub(crate) relay: &'a Relays,
}

/// What came of the last attempts at a peer, while nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Outcome {
    /// Until then it is not tried again.
    until: Instant,
    /// How often in a row it was in vain.
    strikes: u32,
    /// Why.
    reason: PunchFailure,
}

/// Every circuit that is to become a direct connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Punching {
    /// By the circuit: those on which we begin.
    drives: BTreeMap<ConnId, Drive>,
    /// By the circuit: those on which the other side has begun.
    follows: BTreeMap<ConnId, Follow>,
    /// What peers on circuits list as their addresses, as far as we could dial them.
    listed: BTreeMap<ConnId, Vec<Addr>>,
    memory: BTreeMap<PeerId, Outcome>,
    /// Since when each circuit stands.
    since: BTreeMap<ConnId, Instant>,
    /// When circuits beside a direct connection are closed.
    leaving: BTreeMap<ConnId, Instant>,
    /// What we tell others.
    offer: Offer,
    begun: Budget,
    streams: u64,
    minted: u64,
    /// The revisions of the peers, and of all that the offer is made of.
    seen: Option<[u64; 5]>,
}

impl Punching {
    /// A fact of the runtime.
    pub(crate) fn record(&mut self, cx: &mut Cx<'_>, event: &PunchEvent) -> Result<(), Oddity> {
        let PunchEvent::Failed { punch, .. } = event;
        let drives = self.drives.values_mut().any(|drive| drive.failed(cx.now, *punch));
        let follows = self.follows.values_mut().any(|follow| follow.failed(cx.now, *punch));
        if drives || follows { Ok(()) } else { Err(Oddity::UnknownDial) }
    }

    /// Identify said on a circuit where its peer listens.
    pub(crate) fn listed(&mut self, ground: &Ground<'_>, conn: ConnId, listed: &[Bytes]) {
        let circuit = ground.peers.get(conn).filter(|one| one.relayed && one.side == Side::Inbound);
        if ground.config.punch.is_none() || circuit.is_none() || listed.is_empty() {
            return;
        }
        let public = multiaddr::direct(listed);
        let before = self.listed.insert(conn, offer::public(ground, public));
        if let Some(drive) = self.drives.get_mut(&conn)
            && before.is_some_and(|before| Some(&before) != self.listed.get(&conn))
        {
            drive.is_news = true;
        }
    }

    /// A stream of the protocol is open: one of ours, or one on which the other side begins.
    pub(crate) fn opened(
        &mut self,
        cx: &mut Cx<'_>,
        ground: &Ground<'_>,
        conn: ConnId,
        stream: StreamId,
    ) -> Result<(), Oddity> {
        if stream.side == Side::Outbound {
            self.asked(cx.now, stream);
            return Ok(());
        }
        let circuit = ground.peers.get(conn).ok_or(Oddity::UnknownConnection)?;
        let peer = circuit.peer;
        // DCUtR §The Protocol: who took the circuit begins, on the circuit. One that is there to show
        // whether strangers get in must stay one.
        let may = circuit.relayed
            && circuit.side == Side::Outbound
            && ground.config.punch.is_some()
            && !ground.relay.is_for_strangers(conn)
            && !ground.directs().contains_key(&peer);
        let others = self.follows.iter().filter(|(other, one)| **other != conn && one.peer != peer);
        let is_full = others.count() >= ATTEMPTS_MAX;
        if !may || is_full || self.begun.take(cx.now, FOLLOWS_MIN).is_err() {
            cx.actions.push(Action::ResetStream { stream });
            return Ok(());
        }
        // Whoever begins anew has given up what was before.
        let before: Vec<ConnId> = self
            .follows
            .iter()
            .filter(|(_, one)| one.peer == peer)
            .map(|(conn, _)| *conn)
            .collect();
        let mut fresh = Follow::new(cx.now, peer, stream);
        for conn in before {
            if let Some(follow) = self.follows.remove(&conn) {
                fresh.succeeds(cx, follow);
            }
        }
        self.follows.insert(conn, fresh);
        Ok(())
    }

    /// A message arrived.
    pub(crate) fn frame(
        &mut self,
        cx: &mut Cx<'_>,
        ground: &Ground<'_>,
        stream: StreamId,
        body: &Bytes,
    ) -> Result<(), Oddity> {
        match stream.side {
            Side::Outbound => self.answered(cx, ground, stream, body),
            Side::Inbound => self.told(cx, ground, stream, body),
        }
    }

    /// A stream of ours could not be opened.
    pub(crate) fn stream_failed(&mut self, cx: &mut Cx<'_>, stream: StreamId, why: StreamFailure) {
        if let Some(conn) = self.asked_on(stream) {
            let failure = match why {
                StreamFailure::Unsupported => PunchFailure::Unsupported,
                StreamFailure::Failed | StreamFailure::TimedOut => PunchFailure::BadAnswer,
            };
            self.in_vain(cx, conn, (failure, None));
        }
    }

    /// The other side sends no more.
    pub(crate) fn closed(&mut self, cx: &mut Cx<'_>, stream: StreamId, end: StreamEnd) {
        self.hushed(cx, stream, end);
        for follow in self.follows.values_mut().filter(|one| one.is_on(stream)) {
            follow.hushed(cx, stream, end);
        }
    }

    /// We slept: what was in flight gets its time back.
    pub(crate) fn resumed(&mut self, sleep: Sleep) {
        self.drives.values_mut().for_each(|one| one.resumed(sleep));
        self.follows.values_mut().for_each(|one| one.resumed(sleep));
    }

    /// Catch up with the rooms below, and do what is due.
    pub(crate) fn advance(&mut self, cx: &mut Cx<'_>, ground: &Ground<'_>) {
        if ground.config.punch.is_none() {
            return;
        }
        let seen = Some([
            ground.peers.revision(),
            ground.local.revision(),
            ground.observed.revision(),
            ground.candidates.revision(),
            ground.reachability.revision(),
        ]);
        if self.seen != seen {
            self.seen = seen;
            self.reconcile(cx, ground);
            if !self.since.is_empty() {
                self.renew_offer(ground);
            }
        }
        self.drive_on(cx, ground);
        self.follow_on(cx);
        self.leave(cx);
    }

    /// When something here is due.
    pub(crate) fn deadline(&self) -> Option<Deadline> {
        let drives = self.drives.values().filter_map(Drive::deadline);
        let follows = self.follows.values().map(Follow::deadline);
        let leaving = self.leaving.values().map(|at| Deadline::new(*at, Wake::PunchDue));
        drives.chain(follows).chain(leaving).min()
    }

    /// Whether a connection is needed here.
    pub(crate) fn keeps(&self, conn: ConnId) -> bool {
        self.drives.get(&conn).is_some_and(Drive::is_at_work) || self.follows.contains_key(&conn)
    }

    /// What we can tell may be other than it was. Then nobody's failure says anything any more.
    fn renew_offer(&mut self, ground: &Ground<'_>) {
        let offer = Offer::of(ground, &self.offer);
        if offer != self.offer {
            self.offer = offer;
            self.memory.clear();
            self.drives.values_mut().for_each(|drive| drive.is_news = true);
        }
    }

    /// Take over which circuits stand, and beside which there is a direct connection.
    fn reconcile(&mut self, cx: &mut Cx<'_>, ground: &Ground<'_>) {
        let circuits: BTreeMap<ConnId, &Connection> = ground
            .peers
            .iter()
            .filter(|(conn, one)| one.relayed && !ground.relay.is_for_strangers(*conn))
            .collect();
        let stands = |conn: &ConnId| circuits.contains_key(conn);
        self.since.retain(|conn, _| stands(conn));
        self.listed.retain(|conn, _| stands(conn));
        self.leaving.retain(|conn, _| stands(conn));
        let gone = |conn: &&ConnId| !stands(conn);
        let drives = self.drives.keys().filter(gone);
        let gone: Vec<ConnId> = drives.chain(self.follows.keys().filter(gone)).copied().collect();
        for conn in gone {
            self.lost(cx, conn);
        }
        let direct = if circuits.is_empty() { BTreeMap::new() } else { ground.directs() };
        for (conn, one) in circuits {
            self.since.entry(conn).or_insert(cx.now);
            match direct.get(&one.peer).copied() {
                Some(direct) => self.has_direct(cx, (conn, one), direct),
                None => {
                    self.leaving.remove(&conn);
                    if one.side == Side::Inbound && !self.drives.contains_key(&conn) {
                        self.drives.insert(conn, Drive::new(one.peer));
                    }
                }
            }
        }
    }

    /// A circuit is gone before there was anything else.
    fn lost(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let Some((peer, Some(attempts))) = self.give_up(cx, conn, false) else { return };
        let reason = PunchFailure::CircuitLost;
        let news = PunchNotice::Failed { peer, reason, attempts, class: None };
        cx.actions.notify(Notice::Punch(news));
    }

    /// There is a direct connection beside a circuit. One that was there before is somebody's wish.
    fn has_direct(
        &mut self,
        cx: &mut Cx<'_>,
        (circuit, one): (ConnId, &Connection),
        Direct { conn, serial, addr }: Direct,
    ) {
        let attempts = self.give_up(cx, circuit, true).and_then(|(_, attempts)| attempts);
        if serial < one.serial || self.leaving.contains_key(&circuit) {
            return;
        }
        self.leaving.insert(circuit, cx.now + GRACE);
        self.memory.remove(&one.peer);
        let took = self.since.get(&circuit).map_or(Duration::ZERO, |since| cx.now.since(*since));
        let attempts = attempts.unwrap_or(0);
        let news = PunchNotice::Connected { peer: one.peer, conn, addr, attempts, took };
        cx.actions.notify(Notice::Punch(news));
    }

    /// Nothing more is done on a circuit: whose it is, and how many attempts there were, if any
    /// was under way.
    fn give_up(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        stands: bool,
    ) -> Option<(PeerId, Option<u8>)> {
        // At most one of both is at work.
        let drive = self.drives.remove(&conn).map(|one| (one.peer, one.end(cx, stands)));
        let follow = self.follows.remove(&conn).map(|one| (one.peer, one.end(cx, stands)));
        follow.or(drive)
    }

    /// Close the circuits whose time beside a direct connection is over.
    fn leave(&mut self, cx: &mut Cx<'_>) {
        let due: Vec<ConnId> =
            self.leaving.iter().filter(|(_, at)| **at <= cx.now).map(|(conn, _)| *conn).collect();
        for conn in due {
            self.leaving.remove(&conn);
            cx.actions.push(Action::Disconnect { conn });
        }
    }

    /// Remember that a peer was tried in vain, and until when that holds.
    fn remember(&mut self, now: Instant, peer: PeerId, reason: PunchFailure) -> Instant {
        let strikes = self.memory.get(&peer).map_or(0, |outcome| outcome.strikes);
        let until = now + drive::rest(strikes);
        if self.memory.len() >= MEMORY_MAX && !self.memory.contains_key(&peer) {
            let first = self.memory.iter().min_by_key(|(peer, outcome)| (outcome.until, **peer));
            if let Some(first) = first.map(|(peer, _)| *peer) {
                self.memory.remove(&first);
            }
        }
        let outcome = Outcome { until, strikes: strikes.saturating_add(1), reason };
        self.memory.insert(peer, outcome);
        until
    }
}

/// Order the dials of an attempt.
fn dial(
    cx: &mut Cx<'_>,
    minted: &mut u64,
    peer: PeerId,
    dials: Dials,
    timeout: Duration,
) -> BTreeSet<PunchId> {
    let mut ordered = BTreeSet::new();
    for (addr, way) in dials {
        *minted += 1;
        let punch = PunchId(*minted);
        ordered.insert(punch);
        let dial = PunchAction::Dial { punch, peer, addr, way, timeout };
        cx.actions.push(Action::Punch(dial));
    }
    ordered
}

/// Nothing more is sent for these dials.
fn cancel(cx: &mut Cx<'_>, dials: &mut BTreeSet<PunchId>) {
    for punch in core::mem::take(dials) {
        cx.actions.push(Action::Punch(PunchAction::Cancel { punch }));
    }
}

fn stream(streams: &mut u64) -> StreamId {
    *streams += 1;
    StreamId::outbound(Protocol::Punch, *streams)
}

saved!(struct Outcome { until, strikes, reason });
saved!(struct Punching {
    drives,
    follows,
    listed,
    memory,
    since,
    leaving,
    offer,
    begun,
    streams as told(),
    minted as told(),
    seen as seen(|seen: [u64; 5]| seen, [
        Room::Peers,
        Room::Local,
        Room::Observed,
        Room::Candidates,
        Room::Reachability,
    ]),
}, if has_counts);

fn has_counts(punching: &Punching) -> bool {
    are_counts(&[punching.streams, punching.minted])
}
