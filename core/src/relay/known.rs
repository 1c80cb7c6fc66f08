//! The relays that could be asked, and how each stands with us.

use super::Ground;
use super::rest::Budget;
use crate::peers::Connection;
use crate::words::checkpoint::saved;
use crate::words::deadline::earliest;
use crate::words::sleep::Sleep;
use crate::{
    Addr, CircuitLimit, ConnId, Deadline, Duration, Instant, IpScope, PeerId, Protocol,
    ProtocolSet, Relay, RelayFailure, RelayState, StreamId, Wake, ip_scope,
};
use alloc::vec::Vec;

/// Connections of one relay that are considered, number; ours: two transports, two families. When
/// full, later ones are not used.
const CONNS_MAX: usize = 4;
/// How long a reservation must have been held for the failures before it to be forgotten, ours: a
/// relay that grants and hangs up is not to be dialled all the time.
const STEADY: Duration = Duration::from_secs(60);

/// A question on a hop stream whose answer has not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exchange {
    pub(super) stream: StreamId,
    pub(super) conn: ConnId,
    pub(super) overdue_at: Instant,
}

/// How a renewal stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renewal {
    /// It is due then.
    At(Instant),
    /// It was asked for.
    Asking(Exchange),
    /// There will be none.
    Never,
}

/// A reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// The connection that it stands and falls with, unless there is another to the relay.
    pub(super) conn: ConnId,
    pub(super) since: Instant,
    pub(super) until: Instant,
    pub(super) renewal: Renewal,
    /// Renewals that failed in a row.
    pub(super) tries: u32,
    /// Why it is not relied on any more: the relay drains, or did not renew. It is told until it ends,
    /// and another is sought.
    pub(super) fading: Option<RelayFailure>,
    pub(super) limit: CircuitLimit,
    pub(super) addrs: Vec<Addr>,
}

/// How a relay stands with us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Standing {
    /// It could be asked or dialled.
    #[default]
    Idle,
    /// It is being dialled at the address with this place in its list.
    Connecting { addr: Addr, place: usize, overdue_at: Instant },
    /// It was asked for a reservation.
    Asking(Exchange),
    /// We have a reservation.
    Held(Held),
    /// It is left alone.
    Resting { failure: RelayFailure, until: Instant },
}

/// One relay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// Direct connections to it.
    conns: Vec<ConnId>,
    /// Assigned by `Relays::enter` alone.
    pub(super) standing: Standing,
    /// Failures in a row.
    pub(super) strikes: u32,
    /// Whether we dialled it to measure it.
    pub(super) dialled: bool,
    /// Until when the relay believes that it may bring us circuits.
    pub(super) granted_until: Option<Instant>,
    pub(super) rtt: Option<Duration>,
    pub(super) load: Option<u16>,
    /// Whether it said at last that it relays.
    pub(super) listed: Option<bool>,
    /// Circuits that it brought within the last minute.
    pub(super) brought: Budget,
}

impl Known {
    pub(super) fn detach(&mut self) {
        self.conns.clear();
    }

    pub(super) fn attach(&mut self, conn: ConnId) {
        if self.conns.len() < CONNS_MAX {
            self.conns.push(conn);
        }
    }

    /// Whether this is a connection to it.
    pub(super) fn may_use(&self, conn: ConnId) -> bool {
        self.conns.contains(&conn)
    }

    pub(super) fn is_connected(&self) -> bool {
        !self.conns.is_empty()
    }

    /// The connections that live, for all we know.
    fn live<'a>(
        &'a self,
        ground: &'a Ground<'_>,
    ) -> impl Iterator<Item = (ConnId, &'a Connection)> + 'a {
        let live = |one: &Connection| {
            let ip = one.local.ip;
            let lost = ip_scope(ip) != IpScope::Loopback && ground.local.has_lost(ip);
            !one.is_silent() && !lost
        };
        let known = self.conns.iter().filter_map(|conn| Some((*conn, ground.peers.get(*conn)?)));
        known.filter(move |(_, one)| live(one))
    }

    /// The best connection to it: one that is not in doubt, then the nearest.
    pub(super) fn conn<'a>(&'a self, ground: &'a Ground<'_>) -> Option<(ConnId, &'a Connection)> {
        let cost = |(conn, one): &(ConnId, &Connection)| {
            (one.is_in_doubt(), one.rtt.unwrap_or(Duration::MAX), *conn)
        };
        self.live(ground).min_by_key(cost)
    }

    /// Whether this connection to it lives.
    pub(super) fn has(&self, ground: &Ground<'_>, conn: ConnId) -> bool {
        self.live(ground).any(|(one, _)| one == conn)
    }

    /// Whether it says that it relays; `None` where it has not said anything.
    pub(super) fn relays(&self, ground: &Ground<'_>) -> Option<bool> {
        let said = self.live(ground).map(|(_, one)| one.protocols);
        let said = said.filter(|protocols| *protocols != ProtocolSet::NONE);
        said.map(|protocols| protocols.contains(Protocol::Hop)).max()
    }

    /// Whether it may bring us circuits: only who granted us a reservation, and until it ends for the
    /// relay (CR-43).
    pub(super) fn may_bring(&self, now: Instant) -> bool {
        self.granted_until.is_some_and(|until| now < until)
    }

    /// Whether it could be asked at once: it is connected, and does not say that it does not relay.
    pub(super) fn is_at_hand(&self, ground: &Ground<'_>) -> bool {
        self.is_idle() && self.conn(ground).is_some() && self.relays(ground) != Some(false)
    }

    /// Take over what is known of it: what it serves, its distance and its load.
    pub(super) fn measure(&mut self, ground: &Ground<'_>) {
        self.listed = self.relays(ground);
        let Some((_, one)) = self.conn(ground) else {
            return;
        };
        let (rtt, load) = (one.rtt, one.relay_load);
        self.rtt = rtt.or(self.rtt);
        self.load = load;
    }

    pub(super) fn held(&self) -> Option<&Held> {
        match &self.standing {
            Standing::Held(held) => Some(held),
            Standing::Idle
            | Standing::Connecting { .. }
            | Standing::Asking(_)
            | Standing::Resting { .. } => None,
        }
    }

    pub(super) fn held_mut(&mut self) -> Option<&mut Held> {
        match &mut self.standing {
            Standing::Held(held) => Some(held),
            Standing::Idle
            | Standing::Connecting { .. }
            | Standing::Asking(_)
            | Standing::Resting { .. } => None,
        }
    }

    /// The question under way, be it for a reservation or for a renewal.
    pub(super) fn exchange(&self) -> Option<Exchange> {
        match &self.standing {
            Standing::Asking(exchange)
            | Standing::Held(Held { renewal: Renewal::Asking(exchange), .. }) => Some(*exchange),
            Standing::Held(_)
            | Standing::Idle
            | Standing::Connecting { .. }
            | Standing::Resting { .. } => None,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.standing == Standing::Idle
    }

    pub(super) fn is_asking(&self) -> bool {
        matches!(self.standing, Standing::Asking(_))
    }

    pub(super) fn is_connecting(&self) -> bool {
        matches!(self.standing, Standing::Connecting { .. })
    }

    /// Whether it holds a reservation for us that is relied on.
    pub(super) fn serves(&self) -> bool {
        self.held().is_some_and(|held| held.fading.is_none())
    }

    /// Whether it was steady for long enough to forget what was before.
    pub(super) fn was_steady(&self, now: Instant) -> bool {
        self.held().is_some_and(|held| held.since + STEADY <= now)
    }

    pub(super) fn deadline(&self) -> Option<Deadline> {
        match &self.standing {
            Standing::Idle => None,
            Standing::Connecting { overdue_at, .. } => overdue(*overdue_at),
            Standing::Asking(exchange) => overdue(exchange.overdue_at),
            Standing::Resting { until, .. } => Some(Deadline::new(*until, Wake::RelayDue)),
            Standing::Held(held) => {
                let renewal = match held.renewal {
                    Renewal::At(at) => Some(Deadline::new(at, Wake::RelayDue)),
                    Renewal::Asking(exchange) => overdue(exchange.overdue_at),
                    Renewal::Never => None,
                };
                earliest(renewal, Some(Deadline::new(held.until, Wake::ReservationExpires)))
            }
        }
    }

    pub(super) fn resumed(&mut self, sleep: Sleep) {
        match &mut self.standing {
            Standing::Connecting { overdue_at, .. } => sleep.put_off(overdue_at),
            Standing::Asking(exchange)
            | Standing::Held(Held { renewal: Renewal::Asking(exchange), .. }) => {
                sleep.put_off(&mut exchange.overdue_at);
            }
            Standing::Held(_) | Standing::Idle | Standing::Resting { .. } => {}
        }
    }

    /// As the application sees it.
    pub(super) fn view(&self, peer: PeerId) -> Relay {
        let (state, until) = match &self.standing {
            Standing::Idle => (RelayState::Spare, None),
            Standing::Connecting { .. } => (RelayState::Connecting, None),
            Standing::Asking(_) => (RelayState::Asking, None),
            Standing::Held(held) => (RelayState::Reserved, Some(held.until)),
            Standing::Resting { until, .. } => (RelayState::Resting, Some(*until)),
        };
        let failure = match &self.standing {
            Standing::Resting { failure, .. } => Some(*failure),
            Standing::Held(_)
            | Standing::Idle
            | Standing::Connecting { .. }
            | Standing::Asking(_) => None,
        };
        let held = self.held();
        Relay {
            peer,
            state,
            failure,
            rtt: self.rtt,
            load: self.load,
            until,
            limit: held.map_or(CircuitLimit::default(), |held| held.limit),
            addrs: held.map_or(Vec::new(), |held| held.addrs.clone()),
        }
    }
}

#[allow(clippy::unnecessary_wraps, reason = "it stands beside deadlines that may be none")]
fn overdue(at: Instant) -> Option<Deadline> {
    Some(Deadline::new(at, Wake::RelayOverdue))
}

saved!(struct Exchange { stream, conn, overdue_at });
saved!(enum Renewal { 1 = At(at), 2 = Asking(exchange), 3 = Never });
saved!(struct Held {
    conn,
    since as aging(STEADY),
    until,
    renewal,
    tries as up_to(16),
    fading,
    limit,
    addrs,
}, if is_bounded);
saved!(enum Standing {
    1 = Idle,
    2 = Connecting { addr, place, overdue_at },
    3 = Asking(exchange),
    4 = Held(held),
    5 = Resting { failure, until },
});
saved!(struct Known {
    conns,
    standing,
    strikes as up_to(8),
    dialled,
    granted_until as ahead(),
    rtt,
    load,
    listed,
    brought,
});

/// As many failures as can have been counted one by one.
fn is_bounded(held: &Held) -> bool {
    held.tries <= u32::MAX / 2
}
