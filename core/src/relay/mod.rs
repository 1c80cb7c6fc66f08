//! Floor 6 · relays: whether inbound help is needed, who gives it, and circuits of our own.
//!
//! Knows: relays that could be asked, reservations, circuits being opened and taken. Reads: local,
//! peers, reachability.
//!
//! ```text
//!  need: the verdict ─► none | one | all
//!  a relay:  idle ─► connecting ─► idle ─► asking ─► held ─► renewed … ─► idle, when it is not needed
//!                        └──────────┴─ no ───┴─► resting ◄─ lost, run out
//!  held ─► fading (it drains, or did not renew): told until it ends, while another is asked
//! ```
//!
//! The nearest are measured, two of the near ones are drawn, and the emptier one is asked: `choice`.
//! Each loss is made good at once by a spare that is connected and measured; a change makes the new
//! reservation before it lets the old one go. Never over a relayed connection.
//!
//! Limits: `KNOWN_MAX` relays, `RESERVATIONS_MAX` reservations and those that fade, `DIALS_MIN` dials
//! and `ASKS_MIN` questions a minute; those of circuits stand in `circuit`, rests in `rest`.
//! Follows: circuit-v2, the client's half; design §3 *relay*.
//!
//! A good first change here: measure configured relays again once in a while.

mod choice;
mod circuit;
mod distant;
mod hold;
mod known;
mod need;
pub(crate) mod plan;
mod reservation;
mod rest;

use crate::candidates::Candidates;
use crate::local::Local;
use crate::peers::{Connection, Peers};
use crate::probe::Probe;
use crate::reachability::Reachability;
use crate::words::addr::Domain;
use crate::words::checkpoint::{Room, are_counts, saved};
use crate::words::config::RELAYS_MAX;
use crate::words::deadline::earliest;
use crate::words::sleep::Sleep;
use crate::{
    CircuitAddr, Config, ConnId, Connected, Cx, Deadline, DistantServer, Group, Instant, Notice,
    Oddity, PeerId, Protocol, PublicKey, Relay, RelayEvent, RelayFailure, RelayNotice, RelayPeer,
    RelayStatus, StreamEnd, StreamFailure, StreamId, Wake,
};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use bytes::Bytes;

use choice::Place;
use circuit::{BROUGHT_PER_RELAY_MIN, Circuits};
use distant::Distant;
use known::{Known, Standing};
use need::{Level, Need};
use plan::Choosing;
pub(crate) use rest::Budget;

/// Relays that are known, number; ours: all that can be configured, and half as many others that are
/// connected. About 300 bytes each. When full, further connected ones are not asked.
const KNOWN_MAX: usize = RELAYS_MAX + 32;
/// Circuit addresses that are told, number; ours: those of four reservations, and of two that fade.
/// Identify grows by some 130 bytes each. When full, those that fade are left out.
const CIRCUIT_ADDRS_MAX: usize = 24;
/// How often a minute rests that are the network's fault are cut short, number; ours.
const HURRIES_MIN: usize = 4;

/// What the room reads.
pub(crate) struct Ground<'a> {
    pub(crate) config: &'a Config,
    pub(crate) identity: &'a PublicKey,
    pub(crate) local: &'a Local,
    pub(crate) peers: &'a Peers,
}

impl Ground<'_> {
    /// A server behind a relay, as it is configured.
    fn distant(&self, peer: PeerId) -> Option<&'_ DistantServer> {
        self.config.relay.as_ref()?.distant_servers.iter().find(|one| one.peer == peer)
    }

    /// Where a relay at the other end of this connection stands among others.
    fn place(&self, connection: &Connection) -> Place {
        let group = Group::of(connection.remote.ip, self.config.allow_private);
        Place { group, domain: Domain::of(group, self.peers.source(connection.peer)) }
    }

    /// The relay as it is configured.
    fn relay(&self, peer: PeerId) -> Option<&RelayPeer> {
        let relays = self.config.relay.as_ref()?.relays.iter();
        relays.into_iter().find(|relay| relay.peer == peer)
    }
}

/// Everything we want of relays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Relays {
    need: Need,
    known: BTreeMap<PeerId, Known>,
    circuits: Circuits,
    distant: Distant,
    choosing: Choosing,
    /// Connected and measured, and asked as soon as a reservation is lost.
    spare: Option<PeerId>,
    /// Before that no incumbent is challenged.
    challenge_at: Option<Instant>,
    dials: Budget,
    asks: Budget,
    hurries: Budget,
    /// When there is budget for what has to wait.
    limited_until: Option<Instant>,
    streams: u64,
    told: Vec<CircuitAddr>,
    /// Connections that must be alive: those of reservations, of questions, and of the spare.
    vital: BTreeSet<ConnId>,
    /// The revisions of the peers and of the local room that were last read.
    seen: Option<[u64; 2]>,
    revision: u64,
}

impl Relays {
    /// A fact of the runtime or the application.
    pub(crate) fn record(
        &mut self,
        cx: &mut Cx<'_>,
        ground: &Ground<'_>,
        event: RelayEvent,
    ) -> Result<(), Oddity> {
        match event {
            RelayEvent::CircuitWanted { circuit, conn, peer } => {
                let stream = self.mint();
                self.circuits.want(cx, ground, (circuit, conn, peer), stream)
            }
            RelayEvent::CircuitForgotten { circuit } => {
                self.circuits.forget(cx, circuit);
                Ok(())
            }
            RelayEvent::ConnectFailed { peer, addr, reason } => {
                let is_distant = self.distant_unreachable(cx, ground, (peer, addr));
                match self.connect_failed(cx, ground, (peer, addr), reason) {
                    Err(Oddity::UnknownDial) if is_distant => Ok(()),
                    done => done,
                }
            }
            RelayEvent::UpgradeFailed { stream } => {
                self.circuits.upgrade_failed(stream);
                Ok(())
            }
            // These are the service's.
            RelayEvent::BridgeEnded { .. } | RelayEvent::Draining => Ok(()),
        }
    }

    /// A connection stands; it may be a circuit, or one to a relay.
    pub(crate) fn connected(&mut self, cx: &mut Cx<'_>, facts: &Connected) {
        if let Some((stream, limit)) = self.circuits.connected(facts) {
            self.distant.connected(cx.now, (stream, facts.conn), limit);
        }
        if !facts.relayed {
            // The network may be back.
            self.hurry_if_alone(cx, None);
        }
    }

    /// A connection is gone.
    pub(crate) fn disconnected(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.circuits.disconnected(cx, conn);
    }

    /// A relay brings a circuit (stop), or a stream of ours to one opened (hop).
    pub(crate) fn opened(
        &mut self,
        cx: &mut Cx<'_>,
        ground: &Ground<'_>,
        conn: ConnId,
        stream: StreamId,
    ) -> Result<(), Oddity> {
        match stream.protocol {
            Protocol::Stop => {
                let peer = ground.peers.get(conn).map(|one| one.peer);
                let relay = peer.and_then(|peer| self.known.get(&peer));
                let strange = !relay.is_some_and(|relay| relay.may_bring(cx.now));
                self.circuits.opened(cx, ground, (conn, strange), stream)
            }
            // Its frames are already under way.
            Protocol::Hop
            | Protocol::Identify
            | Protocol::IdentifyPush
            | Protocol::Ping
            | Protocol::DialRequest
            | Protocol::DialBack
            | Protocol::Punch
            | Protocol::AutonatV1 => Ok(()),
        }
    }

    /// A stream of ours could not be opened.
    pub(crate) fn failed(
        &mut self,
        cx: &mut Cx<'_>,
        stream: StreamId,
        reason: StreamFailure,
    ) -> Result<(), Oddity> {
        if self.circuits.is_wanted(stream) {
            self.circuits.failed(cx, stream, reason);
        } else if let Some(peer) = self.asked_on(stream) {
            let failure = match reason {
                StreamFailure::Unsupported => RelayFailure::Unsupported,
                // No answer came of it.
                StreamFailure::TimedOut | StreamFailure::Failed => RelayFailure::TimedOut,
            };
            self.refused(cx, peer, failure);
        }
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
        if self.circuits.is_wanted(stream) {
            return self.circuits.answered(cx, stream, body);
        }
        if let Some(peer) = self.asked_on(stream) {
            return self.answered(cx, ground, (peer, stream), body);
        }
        let conn = self.circuits.brought_on(stream).ok_or(Oddity::UnknownStream)?;
        let (now, known) = (cx.now, &mut self.known);
        let admitted = || admit(now, ground, known, conn);
        self.circuits.brought(cx, ground, (stream, body), admitted)
    }

    /// A stream ended.
    pub(crate) fn closed(
        &mut self,
        cx: &mut Cx<'_>,
        stream: StreamId,
        _end: StreamEnd,
    ) -> Result<(), Oddity> {
        self.circuits.closed(cx, stream);
        if let Some(peer) = self.asked_on(stream) {
            cx.actions.push(crate::Action::ResetStream { stream });
            self.refused(cx, peer, RelayFailure::TimedOut);
        }
        Ok(())
    }

    /// We slept: what was in flight gets its time back. Reservations and rests have aged; whether
    /// the connections of the former still stand is asked by a ping.
    pub(crate) fn resumed(&mut self, sleep: Sleep) {
        self.need.resumed(sleep);
        self.circuits.resumed(sleep);
        self.distant.resumed(sleep);
        self.choosing.resumed(sleep);
        self.known.values_mut().for_each(|known| known.resumed(sleep));
    }

    /// Catch up with the rooms below, and do what is due. Returns whether other connections are
    /// vital than before.
    pub(crate) fn advance(
        &mut self,
        cx: &mut Cx<'_>,
        ground: &Ground<'_>,
        (probe, candidates): (&Probe, &Candidates),
        reachability: &Reachability,
    ) -> bool {
        let Some(config) = &ground.config.relay else {
            // Nobody is asked, and nothing is due.
            *self = Relays { revision: self.revision, ..Relays::default() };
            return false;
        };
        let was_needed = self.is_needed();
        let changed = self.need.advance(cx, config, ground, reachability);
        if self.is_needed() != was_needed {
            let notice = RelayNotice::NeedChanged { needed: !was_needed };
            cx.actions.notify(Notice::Relay(notice));
        }
        self.limited_until = None;
        self.reconcile(cx, ground, changed);
        self.expire(cx, ground);
        self.look_after(cx, ground);
        self.shorten_rests(cx);
        self.known.values_mut().for_each(|known| known.measure(ground));
        self.plan(cx, ground, config);
        self.renew(cx, ground);
        self.circuits.advance(cx);
        self.seek_strangers(cx, ground, (probe, candidates));
        self.tell();
        let vital = self.vital(ground);
        let is_other = vital != self.vital;
        self.vital = vital;
        is_other
    }

    /// When something here is due.
    pub(crate) fn deadline(&self) -> Option<Deadline> {
        let limited = self.limited_until.map(|at| Deadline::new(at, Wake::RelayDue));
        let all = self.known.values().filter_map(Known::deadline).min();
        let circuits = earliest(self.circuits.deadline(), self.distant.deadline());
        [limited, all, self.need.deadline(), self.choosing.deadline(), circuits]
            .into_iter()
            .fold(None, earliest)
    }

    /// Whether a connection is needed here.
    pub(crate) fn keeps(&self, conn: ConnId) -> bool {
        self.vital.contains(&conn)
            || self.circuits.keeps(conn)
            || self.distant.keeps(conn)
            || self.is_measuring(conn)
    }

    /// Whether it must be noticed soon if this connection dies.
    pub(crate) fn is_vital(&self, conn: ConnId) -> bool {
        self.vital.contains(&conn)
    }

    /// Every relay as it stands.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Relay> + '_ {
        self.known.iter().map(|(peer, known)| known.view(*peer))
    }

    /// The addresses at which we are reached through relays, in order.
    pub(crate) fn circuit_addrs(&self) -> impl Iterator<Item = CircuitAddr> + '_ {
        self.told.iter().copied()
    }

    /// Counts changes of [`Relays::circuit_addrs`].
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    fn is_needed(&self) -> bool {
        self.need.level() != Level::None
    }

    fn mint(&mut self) -> StreamId {
        self.streams += 1;
        StreamId::outbound(Protocol::Hop, self.streams)
    }

    /// The relay that was asked for a reservation on this stream.
    fn asked_on(&self, stream: StreamId) -> Option<PeerId> {
        let asked = |known: &Known| known.exchange().is_some_and(|one| one.stream == stream);
        self.known.iter().find(|(_, known)| asked(known)).map(|(peer, _)| *peer)
    }

    /// Take over who is configured and who is connected.
    fn reconcile(&mut self, cx: &mut Cx<'_>, ground: &Ground<'_>, changed: bool) {
        let seen = Some([ground.peers.revision(), ground.local.revision()]);
        if self.seen == seen && !changed {
            return;
        }
        if self.seen.map(|[_, local]| local) != seen.map(|[_, local]| local) {
            // Another network may do what the last one did not.
            self.hurry_if_alone(cx, None);
        }
        let own = ground.identity.to_peer_id();
        let config = ground.config.relay.as_ref();
        let relays = config.map_or(&[][..], |config| &config.relays);
        if self.seen.is_none() {
            for relay in relays.iter().filter(|relay| relay.peer != own).take(RELAYS_MAX) {
                self.known.entry(relay.peer).or_default();
            }
        }
        self.seen = seen;
        self.known.values_mut().for_each(Known::detach);
        let direct = || ground.peers.iter().filter(|(_, one)| !one.relayed);
        for (conn, one) in direct() {
            if let Some(known) = self.known.get_mut(&one.peer) {
                known.attach(conn);
            }
        }
        let use_connected = config.is_some_and(|config| config.use_connected) && self.is_needed();
        self.forget(ground, use_connected);
        for (conn, one) in direct().filter(|_| use_connected) {
            let is_new = !self.known.contains_key(&one.peer) && one.peer != own;
            if is_new && one.protocols.contains(Protocol::Hop) && self.make_room(ground) {
                self.known.entry(one.peer).or_default().attach(conn);
            }
        }
    }

    /// Who is not configured is known while he is connected and may be asked, or is in use, or
    /// rests.
    fn forget(&mut self, ground: &Ground<'_>, use_connected: bool) {
        self.known.retain(|peer, known| {
            let is_of_use = use_connected && known.is_connected();
            ground.relay(*peer).is_some() || is_of_use || !known.is_idle()
        });
    }

    fn make_room(&mut self, ground: &Ground<'_>) -> bool {
        if self.known.len() < KNOWN_MAX {
            return true;
        }
        let rests = |(peer, known): (&PeerId, &Known)| match known.standing {
            Standing::Resting { until, .. } if !known.is_connected() => {
                ground.relay(*peer).is_none().then_some((until, *peer))
            }
            Standing::Resting { .. }
            | Standing::Idle
            | Standing::Connecting { .. }
            | Standing::Asking(_)
            | Standing::Held(_) => None,
        };
        let first = self.known.iter().filter_map(rests).min();
        first.is_some_and(|(_, peer)| self.known.remove(&peer).is_some())
    }

    /// The addresses of all reservations, those that are relied on first.
    fn tell(&mut self) {
        let of = |serving: bool| {
            let those = self.known.iter().filter(move |(_, known)| known.serves() == serving);
            those.filter_map(|(peer, known)| Some((*peer, known.held()?))).flat_map(
                |(relay, held)| {
                    held.addrs.iter().map(move |addr| CircuitAddr { relay, addr: *addr })
                },
            )
        };
        let told: Vec<CircuitAddr> = of(true).chain(of(false)).take(CIRCUIT_ADDRS_MAX).collect();
        if told != self.told {
            self.told = told;
            self.revision += 1;
        }
    }

    fn vital(&self, ground: &Ground<'_>) -> BTreeSet<ConnId> {
        let held = self.known.values().filter_map(|known| known.held().map(|held| held.conn));
        let asked = self.known.values().filter_map(|known| known.exchange().map(|one| one.conn));
        let spare = self.spare.and_then(|peer| self.known.get(&peer)?.conn(ground));
        held.chain(asked).chain(spare.map(|(conn, _)| conn)).collect()
    }
}

/// Whether the relay at the other end of `conn` may bring us a circuit now.
fn admit(
    now: Instant,
    ground: &Ground<'_>,
    known: &mut BTreeMap<PeerId, Known>,
    conn: ConnId,
) -> Result<(), RelayStatus> {
    let connection = ground.peers.get(conn).ok_or(RelayStatus::NoReservation)?;
    if connection.relayed {
        return Err(RelayStatus::PermissionDenied);
    }
    let relay = known.get_mut(&connection.peer).filter(|known| known.may_bring(now));
    let relay = relay.ok_or(RelayStatus::NoReservation)?;
    let taken = relay.brought.take(now, BROUGHT_PER_RELAY_MIN);
    taken.map_err(|_| RelayStatus::ResourceLimitExceeded)
}

saved!(struct Relays {
    need,
    known,
    circuits,
    distant,
    choosing,
    spare,
    challenge_at as ahead(),
    dials,
    asks,
    hurries,
    limited_until as ahead(),
    streams as told(),
    told,
    vital,
    seen as seen(|seen: [u64; 2]| seen, [Room::Peers, Room::Local]),
    revision as revision(Room::Relay),
}, if has_counts);

fn has_counts(relays: &Relays) -> bool {
    are_counts(&[relays.streams, relays.revision])
}
