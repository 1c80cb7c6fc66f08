//! Direct connections that came of circuits: kept alive, and followed by another one before they break.
//!
//! ```text
//!  bonded ─► pinged, as often as its path needs ─► silent ─► closed
//!     └► as old as those before it were when they broke ─► the peer is called again ─► pinged closely ─┘
//! ```
//!
//! A NAT forgets what is idle (RFC 4787 §4.3, RFC 5382 §5), and some forget what is not. What breaks
//! after a silence is pinged twice as often from then on. What breaks although it was pinged, twice
//! at the same age, has a lifetime: near its end whoever opened the circuit opens it once more, so that
//! there is something to fall back on, and a way to agree on the next direct connection.

use super::Ground;
use super::offer::Direct;
use crate::peers::{Connection, Worth};
use crate::words::checkpoint::saved;
use crate::words::sleep::Sleep;
use crate::{
    Action, Addr, ConnId, Cx, Deadline, Duration, Instant, Oddity, PeerId, PunchAction, Side,
    Transport, Wake,
};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// The time between pings where nothing is known, ours: half of the shortest time-out of a NAT that is
/// common, 30 s, so that one of them may be lost.
const INTERVAL_FIRST: Duration = Duration::from_secs(15);
/// The shortest time between pings, ours: no NAT is known that forgets sooner, and each costs some
/// 400 bytes, both ways together.
const INTERVAL_MIN: Duration = Duration::from_secs(5);
/// How long before the end of its lifetime a connection is prepared for it, ours: the peer is called,
/// and the circuit stands, in some round trips.
const MARGIN: Duration = Duration::from_secs(5);
/// How long a connection is watched closely, ours, after which it has outlived its lifetime. The circuit
/// beside it is kept as long.
const WATCH_MAX: Duration = Duration::from_secs(60);
/// The longest lifetime that is believed, ours. Two sessions may end at the same age by chance, and the
/// more easily the older they are.
const LIFETIME_MAX: Duration = Duration::from_secs(7_200);
/// Paths that are remembered, number; ours. Memory grows by some 80 bytes each. When full, the one that
/// was used least recently is forgotten.
const PATHS_MAX: usize = 256;

/// A direct connection that came of a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bond {
    peer: PeerId,
    transport: Transport,
    since: Instant,
    /// The relay through which the peer was called, where it was us who called.
    by: Option<(PeerId, Addr)>,
    /// Until when a circuit is kept beside it, and it is watched.
    watched_until: Option<Instant>,
    /// The serial of the youngest circuit that was seen beside it.
    company: u64,
    /// It may have broken while the machine was suspended, or was told to be broken: its age says
    /// nothing more.
    is_told: bool,
}

/// What is known of the NATs between us and a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Route {
    /// How often a connection is pinged.
    interval: Duration,
    /// How old the last one was that broke although it was pinged.
    age: Option<Duration>,
    /// How old a connection gets.
    lifetime: Option<Duration>,
    used_at: Instant,
}

impl Route {
    fn new(now: Instant) -> Route {
        Route { interval: INTERVAL_FIRST, age: None, lifetime: None, used_at: now }
    }

    /// A connection broke that was alive at this age for the last time.
    fn broke(&mut self, age: Duration) {
        if age < self.interval * 2 {
            // Not once has it outlived a pause for certain.
            self.interval = (self.interval / 2).max(INTERVAL_MIN);
            return;
        }
        let before = self.age.replace(age);
        let tolerance = self.interval + age / 8;
        let agrees = |other: Duration| other.max(age) - other.min(age) <= tolerance;
        self.lifetime = match self.lifetime {
            Some(lifetime) if agrees(lifetime) => Some(age),
            Some(_) | None => before.filter(|before| agrees(*before)).map(|before| before.min(age)),
        };
        self.lifetime = self.lifetime.filter(|lifetime| *lifetime <= LIFETIME_MAX);
    }

    /// When a connection that stands since then is to be prepared for its end.
    fn ends_soon_at(&self, since: Instant) -> Option<Instant> {
        let lifetime = self.lifetime?;
        Some(since + lifetime.saturating_sub(MARGIN).max(lifetime / 2))
    }
}

/// Every direct connection that came of a circuit, and what is known of their paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bonds {
    bonds: BTreeMap<ConnId, Bond>,
    routes: BTreeMap<(PeerId, Transport), Route>,
    /// Whether other connections are worth a ping than before.
    is_news: bool,
}

impl Bonds {
    /// A peer on a circuit is connected directly.
    pub(super) fn bind(
        &mut self,
        now: Instant,
        ground: &Ground<'_>,
        circuit: &Connection,
        Direct { conn, addr, .. }: Direct,
    ) {
        if self.bonds.contains_key(&conn) {
            return;
        }
        let carries = |one: &&Connection| {
            !one.relayed && (one.local, one.remote) == (circuit.local, circuit.remote)
        };
        let relay = || ground.peers.iter().map(|(_, one)| one).find(carries);
        let by = match circuit.side {
            Side::Outbound => relay().map(|relay| (relay.peer, relay.remote)),
            Side::Inbound => None,
        };
        let (peer, transport) = (circuit.peer, addr.transport);
        let fresh = Bond {
            peer,
            transport,
            since: now,
            by,
            watched_until: None,
            company: circuit.serial,
            is_told: false,
        };
        self.bonds.insert(conn, fresh);
        self.is_news = true;
        if self.routes.len() >= PATHS_MAX && !self.routes.contains_key(&(peer, transport)) {
            let oldest = self.routes.iter().min_by_key(|(key, route)| (route.used_at, **key));
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                self.routes.remove(&oldest);
            }
        }
        self.routes.entry((peer, transport)).or_insert_with(|| Route::new(now)).used_at = now;
    }

    /// A circuit came up beside a direct connection: somebody expects the latter to break.
    pub(super) fn has_company(&mut self, now: Instant, direct: ConnId, circuit: &Connection) {
        if let Some(bond) = self.bonds.get_mut(&direct)
            && bond.company < circuit.serial
        {
            bond.company = circuit.serial;
            bond.watched_until.get_or_insert(now + WATCH_MAX);
            self.is_news = true;
        }
    }

    /// What a ping on a connection is worth, if it is one of these.
    pub(super) fn worth(&self, conn: ConnId) -> Option<Worth> {
        let bond = self.bonds.get(&conn)?;
        if bond.watched_until.is_some() {
            return Some(Worth::Watched);
        }
        self.routes.get(&(bond.peer, bond.transport)).map(|route| Worth::Bonded(route.interval))
    }

    /// Whether a circuit to this peer is kept beside a direct connection.
    pub(super) fn watches(&self, peer: PeerId) -> bool {
        self.bonds.values().any(|bond| bond.peer == peer && bond.watched_until.is_some())
    }

    /// A connection is broken, as the runtime says.
    pub(super) fn broke(&mut self, ground: &Ground<'_>, conn: ConnId) -> Result<(), Oddity> {
        let connection = ground.peers.get(conn).ok_or(Oddity::UnknownConnection)?;
        let Some(bond) = self.bonds.get_mut(&conn) else { return Ok(()) };
        if core::mem::replace(&mut bond.is_told, true) {
            return Ok(());
        }
        let bond = *bond;
        if let Some(route) = self.routes.get_mut(&(bond.peer, bond.transport)) {
            // The echo of the ping before the last one was the last sign of life.
            let pinged_at = connection.pinged_at().unwrap_or(bond.since);
            route.broke(pinged_at.since(bond.since).saturating_sub(route.interval));
        }
        Ok(())
    }

    /// A long sleep: whatever broke, time was not what broke it.
    pub(super) fn resumed(&mut self, sleep: Sleep) {
        if !sleep.is_nap() {
            self.bonds.values_mut().for_each(|bond| bond.is_told = true);
        }
    }

    /// Close what is silent, forget what is gone, and prepare for what is about to end. Whether other
    /// connections are worth a ping than before.
    pub(super) fn advance(&mut self, cx: &mut Cx<'_>, ground: &Ground<'_>) -> bool {
        self.bonds.retain(|conn, _| ground.peers.get(*conn).is_some());
        let all: Vec<ConnId> = self.bonds.keys().copied().collect();
        for conn in all {
            let silent = ground.peers.get(conn).is_some_and(Connection::is_silent);
            if silent {
                self.silent(cx, conn);
            } else {
                self.prepare(cx, conn);
            }
        }
        core::mem::take(&mut self.is_news)
    }

    /// Nobody answers any more on a connection.
    fn silent(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let Some(bond) = self.bonds.remove(&conn) else { return };
        self.is_news = true;
        if let Some(route) = self.routes.get_mut(&(bond.peer, bond.transport))
            && !bond.is_told
        {
            let watched = bond.watched_until.is_some();
            let worth = if watched { Worth::Watched } else { Worth::Bonded(route.interval) };
            let silence = worth.silence();
            route.broke(cx.now.since(bond.since).saturating_sub(silence));
        }
        cx.actions.push(Action::Disconnect { conn });
    }

    fn prepare(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let Some(bond) = self.bonds.get_mut(&conn) else { return };
        let Some(route) = self.routes.get_mut(&(bond.peer, bond.transport)) else {
            // It was forgotten for others, and with it what was expected.
            self.is_news |= bond.watched_until.take().is_some();
            return;
        };
        match (bond.watched_until, bond.by, route.ends_soon_at(bond.since)) {
            (Some(until), _, _) if until <= cx.now => {
                (route.age, route.lifetime, bond.watched_until) = (None, None, None);
                self.is_news = true;
            }
            (None, Some((relay, addr)), Some(at)) if at <= cx.now && !bond.is_told => {
                bond.watched_until = Some(cx.now + WATCH_MAX);
                self.is_news = true;
                let call = PunchAction::CallAgain { peer: bond.peer, relay, addr };
                cx.actions.push(Action::Punch(call));
            }
            (Some(_) | None, _, _) => {}
        }
    }

    /// When something here is due.
    pub(super) fn deadline(&self) -> Option<Deadline> {
        let due = |bond: &Bond| {
            let route = self.routes.get(&(bond.peer, bond.transport))?;
            let is_ours = bond.by.is_some() && !bond.is_told;
            let calls = || route.ends_soon_at(bond.since).filter(|_| is_ours);
            bond.watched_until.or_else(calls)
        };
        let first = self.bonds.values().filter_map(due).min();
        first.map(|at| Deadline::new(at, Wake::PunchDue))
    }
}

saved!(struct Bond { peer, transport, since, by, watched_until, company as serial(), is_told });
saved!(struct Route { interval, age, lifetime, used_at });
saved!(struct Bonds { bonds, routes, is_news });

#[cfg(test)]
mod tests {
    use super::*;

    fn after(ages: &[u64]) -> Route {
        let mut route = Route::new(Instant::ZERO);
        ages.iter().for_each(|age| route.broke(Duration::from_secs(*age)));
        route
    }

    #[test]
    fn what_breaks_in_a_silence_is_pinged_more_often_down_to_a_bound() {
        let interval = |ages: &[u64]| after(ages).interval.as_secs_f64();
        assert_eq!(interval(&[]), 15.0);
        assert_eq!(interval(&[0]), 7.5);
        assert_eq!(interval(&[0, 7]), 5.0);
        assert_eq!(interval(&[0, 7, 5, 0]), 5.0);
        assert_eq!(after(&[0, 7, 5]).lifetime, None);
    }

    #[test]
    fn two_that_break_at_the_same_age_have_a_lifetime_and_one_has_none() {
        let lifetime = |ages: &[u64]| after(ages).lifetime.map(|span| span.as_secs());
        assert_eq!(lifetime(&[60]), None);
        assert_eq!(lifetime(&[60, 45]), Some(45));
        assert_eq!(lifetime(&[60, 200]), None);
        assert_eq!(lifetime(&[60, 200, 190]), Some(190));
        assert_eq!(lifetime(&[60, 60, 200]), None, "it lives longer than was thought");
        assert_eq!(lifetime(&[60, 60, 50]), Some(50));
        assert_eq!(lifetime(&[9_000, 9_000]), None, "by chance");
        assert_eq!(after(&[60, 45]).interval, INTERVAL_FIRST);
    }

    #[test]
    fn the_end_is_prepared_for_a_while_before() {
        let at = |seconds: u64| Some(Instant::from_millis(seconds * 1_000));
        let since = Instant::from_millis(1_000_000);
        assert_eq!(after(&[60]).ends_soon_at(since), None);
        assert_eq!(after(&[60, 60]).ends_soon_at(since), at(1_055));
        let short = Route { lifetime: Some(Duration::from_secs(8)), ..after(&[]) };
        assert_eq!(short.ends_soon_at(since), at(1_004));
    }
}
