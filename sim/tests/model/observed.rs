//! What observations add up to: each network has one voice, voices have weights, and what live
//! observers of the listening socket say tells how the NAT maps.
//!
//! Partial on purpose: where two values of one network weigh the same, either may be its voice; and
//! nobody sleeps for long.

use super::machine::{Counts, Model};
use portolan_core::wire::identify::Identify;
use portolan_core::wire::multiaddr::{Decoded, decode};
use portolan_core::{
    Addr, Class, ConnId, Connected, Duration, Event, Family, Group, Instant, ListenerId,
    MappingBehavior, Protocol, Side, Source, StreamId, Transport,
};
use portolan_sim::facts::{Bench, Shape};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

const HALF_LIFE: Duration = Duration::from_secs(600);

#[derive(Clone, Debug)]
struct Vote {
    value: Addr,
    at: Instant,
    since: Instant,
    conn: Option<ConnId>,
    /// Whether the port means anything: the socket is listened on now.
    listening: bool,
}

impl Vote {
    /// Eight, halved with every half-life; never nothing while the connection lives.
    fn weight(&self, now: Instant) -> u32 {
        let halves = now.since(self.at).as_nanos() / HALF_LIFE.as_nanos();
        let weight = 8 >> u32::try_from(halves).unwrap_or(31).min(31);
        if self.conn.is_some() { weight.max(1) } else { weight }
    }
}

/// The votes, by the observer's end and ours.
#[derive(Clone, Default)]
pub(crate) struct Observed {
    counts: Counts,
    votes: BTreeMap<(Addr, Addr), Vote>,
    conns: BTreeMap<ConnId, Connected>,
    streams: BTreeMap<StreamId, ConnId>,
    listeners: BTreeMap<ListenerId, Addr>,
    ips: Vec<IpAddr>,
}

const CLASS: Class = Class::new(Family::Ip4, Transport::Tcp);

impl Model for Observed {
    fn shape() -> Shape {
        Shape::of_observers()
    }

    fn happened(&mut self, bench: &Bench) -> Result<(), String> {
        for step in bench.steps() {
            for action in &step.actions {
                if let portolan_core::Action::OpenStream { conn, stream } = action {
                    self.streams.insert(*stream, *conn);
                }
            }
            self.event(step.at, &step.event);
            let before = self.votes.len();
            let (own, listened) = (self.ips.clone(), self.listeners.clone());
            let is_own = |ip: &IpAddr| own.contains(ip) || listened.values().any(|l| l.ip == *ip);
            self.votes.retain(|(_, socket), vote| {
                vote.listening = listened.values().any(|one| one == socket);
                vote.weight(step.at) > 0 && (own.is_empty() || is_own(&socket.ip))
            });
            if self.votes.len() < before {
                self.counts.count("a vote is gone");
            }
        }
        Ok(())
    }

    fn compare(&mut self, bench: &Bench) -> Result<(), String> {
        let last = bench.steps().last().map_or(bench.now(), |step| step.at);
        let explained = bench.agent().explain();
        let with = |source: Source| {
            let all = explained.addresses.iter().filter(move |one| one.sources.contains(source));
            all.map(|one| one.addr).collect::<BTreeSet<Addr>>()
        };
        let listening = |vote: &Vote| vote.listening;
        let values = self.voices(last, listening, |vote| vote.value);
        self.same("value", &with(Source::Observed), &values)?;
        let ips = self.voices(last, |_| true, |vote| vote.value.ip);
        // Every port that is listened on may be open at an observed IP, unless it was seen itself.
        let ports: BTreeSet<u16> = self.listeners.values().map(|addr| addr.port).collect();
        let own = self.listeners.values().copied();
        let seen: BTreeSet<Addr> = with(Source::Observed).into_iter().chain(own).collect();
        let guess =
            |ip: &IpAddr| ports.iter().map(|port| Addr::tcp(*ip, *port)).collect::<Vec<_>>();
        let guesses: Vec<BTreeSet<Addr>> = ips
            .iter()
            .map(|any| any.iter().flat_map(&guess).filter(|one| !seen.contains(one)).collect())
            .collect();
        let sure = guesses.iter().filter(|any| !any.is_empty()).cloned().collect::<Vec<_>>();
        let settled = ips.iter().all(|any| any.len() == 1);
        if settled {
            self.same("guess", &with(Source::Guess), &sure)?;
        }
        let is = explained.classes.iter().find(|one| one.class == CLASS);
        let Some(is) = is else { return Ok(()) };
        let must = self.mapping();
        if (is.mapping, is.provisional) != must {
            return Err(format!(
                "the mapping is {:?}, and must be {must:?}",
                (is.mapping, is.provisional)
            ));
        }
        self.note(must);
        Ok(())
    }

    fn counts(&self) -> &Counts {
        &self.counts
    }
}

impl Observed {
    fn event(&mut self, now: Instant, event: &Event) {
        match event {
            Event::ListenerOpened { listener, addr } => {
                self.listeners.insert(*listener, *addr);
            }
            Event::ListenerClosed { listener } => {
                self.listeners.remove(listener);
            }
            Event::InterfacesChanged { ips } => self.ips.clone_from(ips),
            Event::Connected(facts) => {
                self.conns.insert(facts.conn, facts.clone());
            }
            Event::Disconnected { conn } => {
                self.conns.remove(conn);
                let of_conn = self.votes.values_mut().filter(|vote| vote.conn == Some(*conn));
                of_conn.for_each(|vote| vote.conn = None);
            }
            Event::StreamOpened { conn, stream } => {
                self.streams.insert(*stream, *conn);
            }
            Event::Frame { stream, body }
                if matches!(stream.protocol, Protocol::Identify | Protocol::IdentifyPush) =>
            {
                let conn = self.streams.get(stream).and_then(|conn| self.conns.get(conn)).cloned();
                let said = Identify::decode(body).ok().and_then(|said| said.observed);
                if let (Some(conn), Some(said)) = (conn, said)
                    && let Ok(Decoded::Direct { addr, .. }) = decode(&said)
                {
                    self.voted(now, &conn, addr);
                }
            }
            _ => {}
        }
    }

    fn voted(&mut self, now: Instant, conn: &Connected, value: Addr) {
        // Who came in names what it dialled: that is no observation.
        if conn.side == Side::Outbound {
            let listening = self.listeners.values().any(|one| *one == conn.local);
            let place = (conn.remote, conn.local);
            let same = self.votes.get(&place).filter(|old| old.value == value);
            let since = same.map_or(now, |old| old.since);
            let vote = Vote { value, at: now, since, conn: Some(conn.conn), listening };
            self.votes.insert(place, vote);
        }
    }

    /// For each network that speaks at all, what may be its voice.
    fn voices<T: Ord>(
        &self,
        now: Instant,
        counts: impl Fn(&Vote) -> bool,
        what: impl Fn(&Vote) -> T,
    ) -> Vec<BTreeSet<T>> {
        let mut networks: BTreeMap<Group, Vec<&Vote>> = BTreeMap::new();
        for ((observer, _), vote) in self.votes.iter().filter(|(_, vote)| counts(vote)) {
            networks.entry(Group::prefix(observer.ip)).or_default().push(vote);
        }
        let voice = |votes: Vec<&Vote>| {
            let weight = |one: &Vote| {
                let same = votes.iter().filter(|other| other.value == one.value);
                let sum = same.map(|other| other.weight(now)).sum::<u32>();
                (sum, one.conn.is_some(), Reverse(one.since))
            };
            let most = votes.iter().map(|vote| weight(vote)).max();
            votes.iter().filter(|vote| Some(weight(vote)) == most).map(|vote| what(vote)).collect()
        };
        networks.into_values().map(voice).collect()
    }

    /// Every value that is there is some network's, and every network has one of its own there.
    fn same(
        &mut self,
        what: &str,
        is: &BTreeSet<Addr>,
        voices: &[BTreeSet<Addr>],
    ) -> Result<(), String> {
        let heard = voices.iter().all(|any| any.iter().any(|value| is.contains(value)));
        let named = is.iter().all(|value| voices.iter().any(|any| any.contains(value)));
        if !is.is_empty() {
            self.counts.count(what);
        }
        if heard && named {
            return Ok(());
        }
        Err(format!("the {what}s are {is:?}, and the networks say {voices:?}"))
    }

    fn mapping(&mut self) -> (MappingBehavior, bool) {
        let live = self.votes.iter().filter(|(_, vote)| vote.listening && vote.conn.is_some());
        let mut sockets: BTreeMap<Addr, BTreeMap<Addr, BTreeSet<Group>>> = BTreeMap::new();
        for ((observer, socket), vote) in live {
            let group = Group::prefix(observer.ip);
            sockets.entry(*socket).or_default().entry(vote.value).or_default().insert(group);
        }
        // One socket of the class is listened on at a time in this world.
        let Some((socket, values)) = sockets.into_iter().next() else {
            return (MappingBehavior::Unknown, false);
        };
        let most = values.values().map(BTreeSet::len).max().unwrap_or(0);
        let all: BTreeSet<&Group> = values.values().flatten().collect();
        if values.get(&socket).is_some_and(|groups| groups.len() == most) {
            (MappingBehavior::None, false)
        } else if most >= 2 {
            self.counts.count("two networks agree");
            (MappingBehavior::EndpointIndependent, false)
        } else if all.len() < 2 {
            (MappingBehavior::Unknown, false)
        } else {
            // No observer speaks from two ports here.
            (MappingBehavior::AddressAndPortDependent, all.len() < 3)
        }
    }

    fn note(&mut self, (mapping, provisional): (MappingBehavior, bool)) {
        let words = match mapping {
            MappingBehavior::Unknown => "mapping unknown",
            MappingBehavior::None => "mapping none",
            MappingBehavior::EndpointIndependent => "mapping endpoint-independent",
            _ if provisional => "mapping endpoint-dependent, provisional",
            _ => "mapping endpoint-dependent, firm",
        };
        self.counts.count(words);
    }
}
