//! The servers we know, what each of them is worth, and when it may be asked again.

use crate::peers::{Connection, Peers};
use crate::words::checkpoint::{Kind, are_counts, saved};
use crate::words::config::{LOST_PER_SERVER_MIN, PROBES_PER_SERVER_MAX, PROBES_PER_SERVER_MIN};
use crate::{Addr, Class, ConnId, Duration, Group, Instant, Outcome, PeerId, Protocol, Side};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

/// Servers remembered, number; ours. About 300 bytes each. When full, a disconnected one goes;
/// where all are connected, a new one is not asked.
const SERVERS_MAX: usize = 256;
/// Connections of one server that are considered, number; ours: two transports, two families.
const CONNECTIONS_PER_SERVER_MAX: usize = 4;
/// How long a liar's word counts nothing, ours: longer than any reachability is cached elsewhere.
const DISTRUST_FOR: Duration = Duration::from_secs(3_600);
/// How long a refusal of a class is believed, ours: go-libp2p pauses for ten minutes as well.
const REFUSED_FOR: Duration = Duration::from_secs(600);
/// The first rest after a rejection or a time-out, ours: half of go-libp2p's one-minute windows.
const REST_FIRST: Duration = Duration::from_secs(30);
/// The longest rest, ours: minutes, never hours.
const REST_MAX: Duration = Duration::from_secs(480);
/// Strikes in a row that lengthen the rest, number: from there on it is the longest.
const STRIKES_MAX: u32 = 4;
const _: () = assert!(REST_FIRST.as_secs() << STRIKES_MAX >= REST_MAX.as_secs());
/// The window in which requests to one server are counted.
const WINDOW: Duration = Duration::from_secs(60);

const OUTCOMES: [Outcome; 9] = [
    Outcome::Proved,
    Outcome::DialFailed,
    Outcome::Refused,
    Outcome::Rejected,
    Outcome::Error,
    Outcome::DialBackError,
    Outcome::Timeout,
    Outcome::Lie,
    Outcome::Declined,
];

/// How often each outcome was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    outcomes: [u32; OUTCOMES.len()],
}

impl Tally {
    pub(super) fn count(&mut self, outcome: Outcome) {
        if let Some(index) = OUTCOMES.iter().position(|one| *one == outcome) {
            self.outcomes[index] = self.outcomes[index].saturating_add(1);
        }
    }

    /// Every outcome that was seen.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Outcome, u32)> + '_ {
        OUTCOMES.into_iter().zip(self.outcomes).filter(|(_, count)| *count > 0)
    }
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    /// Live unrelayed connections on which it offers to dial back and is not late with a sign of life.
    conns: Vec<ConnId>,
    pub(crate) remote: Addr,
    /// Servers are numbered in the order of meeting.
    pub(crate) met: u64,
    outcomes: Tally,
    distrusted_until: Option<Instant>,
    rest_until: Option<Instant>,
    strikes: u32,
    refused_until: BTreeMap<Class, Instant>,
    /// When the requests of the last minute were sent.
    recent: Vec<Instant>,
    /// When requests were given up with their connections in the last minute.
    lost: Vec<Instant>,
    in_flight: usize,
    /// Classes over which we ever were connected to it, so that packets of ours went there.
    classes: BTreeSet<Class>,
    /// Whether we opened one of the live connections.
    dialled: bool,
    /// Whether it once passed over the wanted address for another one of the request: rust-libp2p
    /// takes the last. It is asked about single addresses from then on.
    pub(super) chooses: bool,
    /// Whether a dial-back of it ever came from an IP that we had not contacted.
    pub(super) multihomed: bool,
}

/// Whether a server can be asked about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Askable {
    Now(ConnId),
    /// Not before this moment, but soon: its budget of the minute is used up, or two probes run.
    Soon(Option<Instant>),
    /// It asked for a rest or is at fault: it counts as out of reach until then.
    Resting(Instant),
    /// It cannot test this class.
    Refuses,
    Distrusted,
    Disconnected,
}

impl Server {
    pub(crate) fn is_connected(&self) -> bool {
        !self.conns.is_empty()
    }

    pub(crate) fn is_distrusted(&self, now: Instant) -> bool {
        self.distrusted_until.is_some_and(|until| now < until)
    }

    /// Every outcome that occurred, with its count.
    pub(crate) fn outcomes(&self) -> impl Iterator<Item = (Outcome, u32)> + '_ {
        self.outcomes.iter()
    }

    /// Whether it has answered, or failed to, at least once.
    pub(crate) fn has_history(&self) -> bool {
        self.outcomes.iter().next().is_some()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight == 0
    }

    pub(super) fn group(&self, allow_private: bool) -> Group {
        Group::of(self.remote.ip, allow_private)
    }

    pub(super) fn askable(&self, now: Instant, peers: &Peers, addr: Addr) -> Askable {
        let Some(conn) = self.conn_for(peers, addr) else {
            return Askable::Disconnected;
        };
        if self.is_distrusted(now) {
            return Askable::Distrusted;
        }
        if self.refused_until.get(&addr.class()).is_some_and(|until| now < *until) {
            return Askable::Refuses;
        }
        if let Some(until) = self.rest_until.filter(|until| now < *until) {
            return Askable::Resting(until);
        }
        if self.in_flight >= PROBES_PER_SERVER_MAX {
            return Askable::Soon(None);
        }
        let oldest = self.recent.first().map(|at| *at + WINDOW);
        match oldest.filter(|at| self.recent.len() >= PROBES_PER_SERVER_MIN && now < *at) {
            Some(at) => Askable::Soon(Some(at)),
            None => Askable::Now(conn),
        }
    }

    /// When it has questions to spare for what was refuted before, of those of the minute: half of them
    /// are kept for what is not known and for what is proven.
    pub(super) fn spares_at(&self, now: Instant) -> Option<Instant> {
        const { assert!(PROBES_PER_SERVER_MIN >= 2, "half of them is at least one") };
        let recent = self.recent.iter().filter(|at| now < **at + WINDOW);
        recent.rev().nth(PROBES_PER_SERVER_MIN / 2 - 1).map(|at| *at + WINDOW)
    }

    /// When it may be asked about this class again, where something forbids it until then.
    pub(super) fn back_at(&self, now: Instant, class: Class) -> Option<Instant> {
        let refused = self.refused_until.get(&class).copied();
        let bars = [refused, self.rest_until, self.distrusted_until];
        bars.into_iter().flatten().filter(|until| now < *until).max()
    }

    /// The connection on which asking about `addr` is cheapest: a server that sees us at that very
    /// address, or at least that IP, does not ask for dial data. One that may have died comes last.
    pub(super) fn conn_for(&self, peers: &Peers, addr: Addr) -> Option<ConnId> {
        let cost = |conn: &&ConnId| {
            let connection = peers.get(**conn);
            let observed = connection.and_then(|connection| connection.observed);
            let rtt = connection.and_then(|connection| connection.rtt).unwrap_or(Duration::MAX);
            let in_doubt = connection.is_some_and(Connection::is_in_doubt);
            let foreign = observed.map(|seen| seen.ip) != Some(addr.ip);
            (in_doubt, observed != Some(addr), foreign, rtt, **conn)
        };
        self.conns.iter().min_by_key(cost).copied()
    }

    /// Whether this server's failure to dial `addr` came from where we never sent a packet.
    pub(super) fn is_cold_for(&self, addr: Addr) -> bool {
        self.multihomed || !self.classes.iter().any(|one| one.family == addr.class().family)
    }

    /// Whether one of its connections was opened by us.
    pub(super) fn was_dialled(&self) -> bool {
        self.dialled
    }

    pub(super) fn sent(&mut self, now: Instant) {
        self.recent.retain(|at| now < *at + WINDOW);
        self.recent.push(now);
        self.in_flight += 1;
    }

    /// A probe of it ended so. Only what is about the server changes here.
    pub(super) fn ended(&mut self, now: Instant, class: Class, outcome: Outcome) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.outcomes.count(outcome);
        match outcome {
            Outcome::Proved | Outcome::DialFailed => self.strikes = 0,
            Outcome::Refused => {
                self.refused_until.insert(class, now + REFUSED_FOR);
            }
            Outcome::Rejected | Outcome::Timeout | Outcome::Error => {
                let rest = REST_FIRST * 2u32.saturating_pow(self.strikes.min(STRIKES_MAX));
                self.rest_until = Some(now + rest.min(REST_MAX));
                self.strikes += 1;
            }
            Outcome::Lie => self.distrusted_until = Some(now + DISTRUST_FOR),
            Outcome::DialBackError | Outcome::Declined => {}
        }
    }

    /// A proof came after its probe had ended otherwise: it counts all the same.
    pub(super) fn proved_late(&mut self) {
        self.distrusted_until = None;
        self.outcomes.count(Outcome::Proved);
    }

    /// It offers to dial back on this connection. Returns the class of it if that is the first of the
    /// class, and the server refused the class until then: now it has heard of it.
    fn attach(&mut self, conn: ConnId, connection: &Connection) -> Option<Class> {
        if self.conns.is_empty() {
            self.remote = connection.remote;
        }
        let class = connection.remote.class();
        let heard = self.classes.insert(class) && self.refused_until.remove(&class).is_some();
        self.dialled |= connection.side == Side::Outbound;
        if self.conns.len() < CONNECTIONS_PER_SERVER_MAX {
            self.conns.push(conn);
        }
        heard.then_some(class)
    }

    /// A probe of it ended by nobody's fault: no reason for a rest. Most likely it never came there, so
    /// that another one may be sent in its place.
    pub(super) fn cut_off(&mut self, now: Instant, outcome: Outcome) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.outcomes.count(outcome);
        self.lost.retain(|at| now < *at + WINDOW);
        if outcome != Outcome::Proved && self.lost.len() < LOST_PER_SERVER_MIN {
            // The oldest, whose place would have been free first.
            let oldest = (!self.recent.is_empty()).then(|| self.recent.remove(0));
            self.lost.extend(oldest.map(|_| now));
        }
    }

    /// Whether it has a connection beyond this serial number that is not in doubt.
    pub(super) fn is_at_hand_since(&self, peers: &Peers, serial: u64) -> bool {
        let mut all = self.conns.iter().filter_map(|conn| peers.get(*conn));
        all.any(|one| !one.is_in_doubt() && one.serial > serial)
    }
}

/// Every server met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Servers {
    all: BTreeMap<PeerId, Server>,
    met: u64,
}

impl Servers {
    /// Take over who is connected and offers to dial back. Returns who has taken back the refusal of a
    /// class by that.
    pub(super) fn reconcile(&mut self, peers: &Peers) -> Vec<(PeerId, Class)> {
        let mut taken_back = Vec::new();
        for server in self.all.values_mut() {
            server.conns.clear();
            server.dialled = false;
        }
        let offers = |(_, connection): &(ConnId, &Connection)| {
            let is_usable = !connection.relayed && !connection.is_late();
            is_usable && connection.protocols.contains(Protocol::DialRequest)
        };
        // Those we know come first: who makes room for a newcomer must really be gone.
        for (conn, connection) in peers.iter().filter(offers) {
            if let Some(server) = self.all.get_mut(&connection.peer) {
                let class = server.attach(conn, connection);
                taken_back.extend(class.map(|class| (connection.peer, class)));
            }
        }
        let newcomers = self.met;
        let mut is_full = false;
        for (conn, connection) in peers.iter().filter(offers) {
            if let Some(server) = self.all.get_mut(&connection.peer) {
                if server.met >= newcomers {
                    server.attach(conn, connection);
                }
                continue;
            }
            is_full = is_full || !self.make_room();
            if is_full {
                continue;
            }
            let mut server = Server {
                conns: Vec::new(),
                remote: connection.remote,
                met: self.met,
                outcomes: Tally::default(),
                distrusted_until: None,
                rest_until: None,
                strikes: 0,
                refused_until: BTreeMap::new(),
                recent: Vec::new(),
                lost: Vec::new(),
                in_flight: 0,
                classes: BTreeSet::new(),
                dialled: false,
                chooses: false,
                multihomed: false,
            };
            server.attach(conn, connection);
            self.met += 1;
            self.all.insert(connection.peer, server);
        }
        taken_back
    }

    /// How many were ever met: the number of the next one.
    pub(super) fn met(&self) -> u64 {
        self.met
    }

    pub(super) fn get(&self, peer: PeerId) -> Option<&Server> {
        self.all.get(&peer)
    }

    pub(super) fn get_mut(&mut self, peer: PeerId) -> Option<&mut Server> {
        self.all.get_mut(&peer)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PeerId, &Server)> {
        self.all.iter().map(|(peer, server)| (*peer, server))
    }

    fn make_room(&mut self) -> bool {
        if self.all.len() < SERVERS_MAX {
            return true;
        }
        let spare =
            self.all.iter().filter(|(_, server)| server.conns.is_empty() && server.is_idle());
        let oldest = spare.min_by_key(|(_, server)| server.met).map(|(peer, _)| *peer);
        oldest.is_some_and(|peer| self.all.remove(&peer).is_some())
    }
}

saved!(struct Tally { outcomes as any() });
saved!(struct Server {
    conns,
    remote,
    met as id(Kind::Server),
    outcomes,
    distrusted_until as ahead(),
    rest_until as ahead(),
    strikes as up_to(STRIKES_MAX),
    refused_until as current(|now, until: &Instant| now < *until),
    recent as recent(WINDOW),
    lost as recent(WINDOW),
    in_flight,
    classes,
    dialled,
    chooses,
    multihomed,
}, if has_strikes);
saved!(struct Servers { all, met as told() }, if has_counts);

/// As many as a server can have earned one by one.
fn has_strikes(server: &Server) -> bool {
    server.strikes <= u32::MAX / 2
}

fn has_counts(servers: &Servers) -> bool {
    are_counts(&[servers.met])
}
