//! Floor 2 · addresses that peers see us as, and what they betray about the NAT in front.
//!
//! Knows: votes. Reads: local (is that socket one we listen on?), peers (who says so, from where).
//! A vote counts for its observer's network; networks are equal, however many peers speak in one.
//!
//! ```text
//!  Observed ─► vote (fresh) ─10 min─► ½ ─10 min─► ¼ ─► ⅛ ─► gone     (never gone while connected)
//!                │
//!                └─► values by weight ─► candidates      mapping behaviour ─► reachability, punch
//! ```
//!
//! A port means something only where the connection really left from a listening socket; of any
//! other connection the IP alone counts. What inbound connections observe is no vote: they name
//! the address they dialled. Relayed observations and those of non-global observers do not vote.
//! Votes from before a long sleep are not compared with those from after it.
//!
//! Limits: `GROUPS_MAX` networks (the one silent for longest goes, disconnected ones first),
//! `VOTES_PER_GROUP_MAX` votes in one (its newest goes, disconnected ones first), `VALUES_MAX`
//! values a class are offered.
//! Follows: RFC 4787 §4.1; identify §identify (observedAddr).
//!
//! A good first change here: let a vote of a network that once was wrong weigh less.

mod mapping;

use crate::local::Local;
use crate::peers::Connection;
use crate::words::checkpoint::{Room, are_counts, saved};
use crate::words::sleep::Sleep;
use crate::{
    Addr, Class, ConnId, Cx, Deadline, Duration, Family, Group, Instant, IpScope, MappingBehavior,
    Notice, Side, Wake, ip_scope,
};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::net::IpAddr;
use mapping::Inferred;

/// Networks that vote, number; ours: some times the servers that are asked.
const GROUPS_MAX: usize = 128;
/// Votes of one network, number; ours: a few observers with two ports each.
const VOTES_PER_GROUP_MAX: usize = 8;
/// Values offered a class, number; ours: a bound on the probes that liars can cause.
const VALUES_MAX: usize = 8;
/// How long until a vote weighs half, ours: three of them outlive any UDP binding.
const HALF_LIFE: Duration = Duration::from_secs(600);
/// The weight of a fresh vote; halved with each half-life.
const FRESH: u32 = 8;
/// The age from which on a vote weighs nothing, but for what its connection lends it.
const DECAYED: Duration = HALF_LIFE.saturating_mul(FRESH.ilog2() + 1);

/// One observer's word about one socket of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Vote {
    /// The observer's own end: two of its ports tell two mapping behaviours apart.
    observer: Addr,
    /// The socket the connection left from.
    socket: Addr,
    /// Whether we listen on that socket, so that the port means something.
    listening: bool,
    value: Addr,
    at: Instant,
    /// Since when the observer says so.
    since: Instant,
    /// The connection on which it was said, while it lives.
    conn: Option<ConnId>,
    /// Whether it was said before a long sleep.
    is_old: bool,
}

impl Vote {
    /// How many half-lives have passed.
    fn age(&self, now: Instant) -> u32 {
        let halves = now.since(self.at).as_nanos() / HALF_LIFE.as_nanos();
        u32::try_from(halves).unwrap_or(u32::MAX)
    }

    fn weight(&self, now: Instant) -> u32 {
        let decayed = FRESH.checked_shr(self.age(now)).unwrap_or(0);
        // A connection that lives holds its NAT binding: the vote may be old, but not void.
        if self.conn.is_some() { decayed.max(1) } else { decayed }
    }

    fn decays_at(&self, now: Instant) -> Option<Instant> {
        (FRESH >> self.age(now).min(31) > 0).then(|| self.at + HALF_LIFE * (self.age(now) + 1))
    }
}

/// What the votes of one class add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Tally {
    /// Values with a meaningful port, heaviest first.
    values: Vec<(Addr, u32)>,
    /// Observed IPs, heaviest first.
    ips: Vec<(IpAddr, u32)>,
    inferred: Inferred,
}

/// The votes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ObservedAddrs {
    groups: BTreeMap<Group, Vec<Vote>>,
    tallies: BTreeMap<Class, Tally>,
    decays_at: Option<Instant>,
    dirty: bool,
    local_seen: u64,
    revision: u64,
}

impl ObservedAddrs {
    /// A peer said that it sees this connection come from `observed`.
    pub(crate) fn record(
        &mut self,
        now: Instant,
        allow_private: bool,
        (conn, connection): (ConnId, &Connection),
        local: &Local,
        observed: Addr,
    ) {
        if !may_vote(connection, observed, allow_private) {
            return;
        }
        let vote = Vote {
            observer: connection.remote,
            socket: connection.local,
            listening: local.listens_on(connection.local),
            value: observed,
            at: now,
            since: now,
            conn: Some(conn),
            is_old: false,
        };
        let group = Group::of(connection.remote.ip, allow_private);
        if !self.groups.contains_key(&group) && self.groups.len() >= GROUPS_MAX {
            self.forget_a_group();
        }
        let votes = self.groups.entry(group).or_default();
        let same = |old: &&mut Vote| old.observer == vote.observer && old.socket == vote.socket;
        if let Some(old) = votes.iter_mut().find(same) {
            // The steady state: the same word again only makes the vote fresh.
            self.dirty |= old.value != vote.value
                || old.listening != vote.listening
                || old.is_old
                // Mappings are told from live connections alone.
                || old.conn.is_none()
                || old.weight(now) != vote.weight(now);
            let since = if old.value == vote.value { old.since } else { now };
            *old = Vote { since, ..vote };
            return;
        }
        if votes.len() >= VOTES_PER_GROUP_MAX {
            // Whoever spoke first stays, so that a crowd in one network cannot push him out.
            let last =
                votes.iter().enumerate().max_by_key(|(_, vote)| (vote.conn.is_none(), vote.since));
            if let Some((index, _)) = last {
                votes.remove(index);
            }
        }
        votes.push(vote);
        self.dirty = true;
    }

    /// A connection is gone: its vote decays from now on like any other.
    pub(crate) fn disconnected(&mut self, conn: ConnId) {
        for vote in self.groups.values_mut().flatten().filter(|vote| vote.conn == Some(conn)) {
            vote.conn = None;
            self.dirty = true;
        }
    }

    /// We slept. Votes have aged by themselves; those from before a long sleep contradict no new one.
    pub(crate) fn resumed(&mut self, sleep: Sleep) {
        if !sleep.is_nap() {
            self.groups.values_mut().flatten().for_each(|vote| vote.is_old = true);
        }
    }

    /// A router of ours has left this external IP: votes for it are about another network.
    pub(crate) fn left(&mut self, ip: IpAddr) {
        for votes in self.groups.values_mut() {
            let before = votes.len();
            votes.retain(|vote| vote.value.ip != ip);
            self.dirty |= votes.len() < before;
        }
        self.groups.retain(|_, votes| !votes.is_empty());
    }

    /// Count again where something changed or decayed.
    pub(crate) fn advance(&mut self, cx: &mut Cx<'_>, local: &Local) {
        let decayed = self.decays_at.is_some_and(|at| at <= cx.now);
        if !self.dirty && !decayed && self.local_seen == local.revision() {
            return;
        }
        let now = cx.now;
        for votes in self.groups.values_mut() {
            votes.retain_mut(|vote| {
                // A port whose listener is gone means nothing, until somebody listens there again:
                // the NAT has mapped the port, whoever had it.
                vote.listening = local.listens_on(vote.socket);
                // A vote about an address that we lost is about another network.
                vote.weight(now) > 0 && !local.has_lost(vote.socket.ip)
            });
        }
        self.groups.retain(|_, votes| !votes.is_empty());
        let votes = self.groups.values().flatten();
        self.decays_at = votes.filter_map(|vote| vote.decays_at(now)).min();
        self.dirty = false;
        self.local_seen = local.revision();
        for class in Class::ALL {
            self.count(cx, class);
        }
    }

    /// When the next vote loses weight.
    pub(crate) fn deadline(&self) -> Option<Deadline> {
        self.decays_at.map(|at| Deadline::new(at, Wake::VoteDecays))
    }

    /// Counts changes of the tallies.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// Addresses that we are seen at, heaviest first, each with its weight.
    pub(crate) fn values(&self, class: Class) -> &[(Addr, u32)] {
        self.tallies.get(&class).map_or(&[], |tally| &tally.values)
    }

    /// IPs that we are seen at in this class, heaviest first, each with its weight.
    pub(crate) fn ips(&self, class: Class) -> &[(IpAddr, u32)] {
        self.tallies.get(&class).map_or(&[], |tally| &tally.ips)
    }

    /// How the NAT in front maps this class, and whether that rests on two networks only.
    pub(crate) fn mapping(&self, class: Class) -> (MappingBehavior, bool) {
        self.tallies.get(&class).map_or((MappingBehavior::Unknown, false), |tally| {
            (tally.inferred.mapping, tally.inferred.provisional)
        })
    }

    fn count(&mut self, cx: &mut Cx<'_>, class: Class) {
        let mut tally = Tally::default();
        let mut values = BTreeMap::new();
        let mut ips = BTreeMap::new();
        for votes in self.groups.values() {
            let of_class = votes.iter().filter(|vote| vote.socket.class() == class);
            if let Some((value, weight)) =
                voice(of_class.clone().filter(|one| one.listening), cx.now)
            {
                *values.entry(value).or_insert(0) += weight;
            }
            if let Some((value, weight)) = voice(of_class, cx.now) {
                *ips.entry(value.ip).or_insert(0) += weight;
            }
        }
        tally.values = heaviest(values);
        tally.ips = heaviest(ips);
        let old = self.tallies.get(&class);
        let inferred = old.map_or(Inferred::default(), |old| old.inferred);
        tally.inferred = mapping::infer(&self.groups, class, inferred);
        if tally.inferred != inferred {
            let Inferred { mapping, provisional } = tally.inferred;
            cx.actions.notify(Notice::MappingInferred { class, mapping, provisional });
        }
        if old.map_or(tally != Tally::default(), |old| *old != tally) {
            self.revision += 1;
            self.tallies.insert(class, tally);
        }
    }

    /// Make room: the network silent for longest goes, disconnected ones first.
    fn forget_a_group(&mut self) {
        let staleness = |votes: &Vec<Vote>| {
            let live = votes.iter().any(|vote| vote.conn.is_some());
            (live, votes.iter().map(|vote| vote.at).max())
        };
        let stalest = self.groups.iter().min_by_key(|(_, votes)| staleness(votes));
        if let Some(group) = stalest.map(|(group, _)| *group) {
            self.groups.remove(&group);
            self.dirty = true;
        }
    }
}

/// What most observers of a network say, with the weight of the freshest of them: a network is one
/// voice. Among equals those come first whose word is no older than the last sleep, then those whose
/// connection lives, then what was said first, so that a handful of liars in one network cannot name
/// one address after the other.
fn voice<'a>(votes: impl Iterator<Item = &'a Vote> + Clone, now: Instant) -> Option<(Addr, u32)> {
    let agreeing = |vote: &Vote| {
        let value = vote.value;
        votes.clone().filter(move |other| other.value == value).map(move |one| one.weight(now))
    };
    let spoken = votes.clone().max_by_key(|vote| {
        let sum = agreeing(vote).sum::<u32>();
        (sum, !vote.is_old, vote.conn.is_some(), Reverse(vote.since))
    })?;
    Some((spoken.value, agreeing(spoken).max().unwrap_or_default()))
}

fn heaviest<K: Ord + Copy>(weights: BTreeMap<K, u32>) -> Vec<(K, u32)> {
    let mut all: Vec<(K, u32)> = weights.into_iter().collect();
    all.sort_by_key(|(key, weight)| (Reverse(*weight), *key));
    all.truncate(VALUES_MAX);
    all
}

fn may_vote(connection: &Connection, observed: Addr, allow_private: bool) -> bool {
    let usable = |ip: IpAddr| match ip_scope(ip) {
        IpScope::Global => true,
        IpScope::Private | IpScope::Loopback => allow_private,
        IpScope::LinkLocal | IpScope::Unusable => false,
    };
    connection.side == Side::Outbound
        && !connection.relayed
        && observed.port != 0
        && observed.transport == connection.local.transport
        && Family::of(observed.ip) == Family::of(connection.remote.ip)
        && usable(observed.ip)
        && usable(connection.remote.ip)
}

saved!(struct Vote {
    observer,
    socket,
    listening,
    value,
    at as ranked(DECAYED),
    since as ranked(DECAYED),
    conn,
    is_old,
});
saved!(struct Tally { values, ips, inferred });
saved!(struct ObservedAddrs {
    groups,
    tallies,
    decays_at,
    dirty,
    local_seen as seen_sum(&[Room::Local]),
    revision as revision(Room::Observed),
}, if has_counts);

fn has_counts(observed: &ObservedAddrs) -> bool {
    are_counts(&[observed.revision])
}
