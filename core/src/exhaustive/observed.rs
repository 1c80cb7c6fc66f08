//! Observed addresses: four observers in three networks, who see one of two addresses.

use super::explore::{Bound, World, depth, explore, promise};
use super::stage::{Chance, Jump, Stage, connection, inside, lies_ahead, peer, tcp};
use crate::local::Local;
use crate::observed::ObservedAddrs;
use crate::peers::Peers;
use crate::words::checkpoint::{Saved, canonical};
use crate::words::sleep::Sleep;
use crate::{Action, Addr, ConnId, Cx, Duration, Instant, ListenerId, MappingBehavior, Side};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

/// The network of each observer.
const NETWORKS: [u8; 4] = [1, 1, 2, 3];
/// The weight of one network's fresh word.
const FRESH: u32 = 8;
/// How long a word counts when its connection is gone.
const LASTS: Duration = Duration::from_secs(4 * 600);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// An observer sees us at this port, on a connection that we opened or that came in.
    Sees(usize, u16, Side),
    Leaves(usize),
    Listener,
    Pass(Jump),
    Sleep(u64),
}

#[derive(Clone, PartialEq)]
struct Rooms {
    local: Local,
    peers: Peers,
    observed: ObservedAddrs,
}

/// An observer's last word.
#[derive(Clone, Copy, Debug)]
struct Word {
    port: u16,
    at: Instant,
    meant: bool,
    lives: bool,
}

#[derive(Clone)]
struct Seen {
    stage: Stage,
    rooms: Rooms,
    observers: usize,
    ports: u16,
    conns: [Option<(ConnId, Side)>; 4],
    words: BTreeMap<usize, Word>,
    slept: bool,
}

fn at(port: u16) -> Addr {
    tcp(99, 1, port)
}

impl Seen {
    fn new(observers: usize, ports: u16) -> Seen {
        let rooms = Rooms {
            local: Local::default(),
            peers: Peers::default(),
            observed: ObservedAddrs::default(),
        };
        let (stage, words) = (Stage::new(), BTreeMap::new());
        let conns = [None; 4];
        let mut world = Seen { stage, rooms, observers, ports, conns, words, slept: false };
        world.step(&Event::Listener, Chance::Lowest).expect("it listens");
        world
    }

    fn act(&mut self, chance: Chance, fact: impl FnOnce(&mut Rooms, &mut Cx<'_>)) -> Vec<Action> {
        let rooms = &mut self.rooms;
        let act = |cx: &mut Cx<'_>| {
            fact(rooms, cx);
            let Rooms { local, peers, observed } = rooms;
            peers.advance(cx);
            observed.advance(cx, local);
        };
        self.stage.act(chance, act).1
    }

    fn perform(&mut self, event: Event, chance: Chance) -> Vec<Action> {
        match event {
            Event::Sees(observer, port, side) => {
                if self.conns[observer].is_none() {
                    let conn = ConnId(self.stage.mint());
                    self.conns[observer] = Some((conn, side));
                    let number = u8::try_from(observer).expect("few observers");
                    let remote = tcp(NETWORKS[observer], number + 1, 4001);
                    let facts = connection(conn, peer(number), side, remote);
                    self.act(chance, |rooms, cx| {
                        let _ = rooms.peers.connected(cx, &facts, false);
                    });
                }
                let Some((conn, _)) = self.conns[observer] else { return Vec::new() };
                self.act(chance, |rooms, cx| {
                    let Rooms { local, peers, observed } = rooms;
                    if let Some(connection) = peers.get(conn) {
                        observed.record(cx.now, false, (conn, connection), local, at(port));
                    }
                })
            }
            Event::Leaves(observer) => {
                let Some((conn, _)) = self.conns[observer].take() else { return Vec::new() };
                self.act(chance, |rooms, cx| {
                    rooms.observed.disconnected(conn);
                    let _ = rooms.peers.disconnected(cx, conn);
                })
            }
            Event::Listener => {
                let listening = self.rooms.local.listens_on(inside(4001));
                self.act(chance, |rooms, _| {
                    let _ = match listening {
                        true => rooms.local.closed(ListenerId(1)),
                        false => rooms.local.opened(ListenerId(1), inside(4001)),
                    };
                })
            }
            Event::Pass(jump) => {
                self.stage.pass(self.rooms.observed.deadline(), jump);
                self.act(chance, |_, _| ())
            }
            Event::Sleep(seconds) => {
                let (slept, last) = (Duration::from_secs(seconds), self.stage.now);
                self.stage.now = last + slept;
                self.act(chance, |rooms, cx| {
                    rooms.observed.resumed(Sleep::new(slept, last, cx.now));
                })
            }
        }
    }

    fn happened(&mut self, event: Event) {
        let now = self.stage.now;
        let listening = self.rooms.local.listens_on(inside(4001));
        match event {
            Event::Sees(observer, port, Side::Outbound) => {
                let word = Word { port, at: now, meant: listening, lives: true };
                self.words.insert(observer, word);
            }
            Event::Leaves(observer) => {
                self.words.entry(observer).and_modify(|word| word.lives = false);
            }
            Event::Sees(_, _, Side::Inbound) | Event::Listener | Event::Pass(_) => {}
            Event::Sleep(_) => self.slept = true,
        }
        self.words.values_mut().for_each(|word| word.meant = listening);
        self.words.retain(|_, word| word.lives || now < word.at + LASTS);
    }

    /// The networks of those whose word is meant in this way.
    fn networks(&self, wanted: impl Fn(&Word) -> bool) -> BTreeSet<u8> {
        let words = self.words.iter().filter(|(_, word)| wanted(word));
        words.map(|(observer, _)| NETWORKS[*observer]).collect()
    }

    fn promises(&self) -> Result<(), String> {
        let class = at(1).class();
        let mut heaviest = u32::MAX;
        for (value, weight) in self.rooms.observed.values(class) {
            let networks = self.networks(|word| word.meant && at(word.port) == *value);
            let most = FRESH * u32::try_from(networks.len()).expect("few networks");
            promise((1..=most).contains(weight), || {
                format!("{value} weighs {weight}, by the word of {networks:?}")
            })?;
            promise(*weight <= heaviest, || "a lighter one comes first".into())?;
            heaviest = *weight;
        }
        let all = self.networks(|_| true);
        let ips = self.rooms.observed.ips(class);
        promise(ips.is_empty() == all.is_empty(), || format!("{ips:?}, by {all:?}"))?;
        let live = |word: &Word| word.meant && word.lives;
        let of = |port: u16| self.networks(|word| live(word) && word.port == port).len();
        let most = (1..=self.ports).map(of).max().unwrap_or(0);
        let speaking = self.networks(live).len();
        let (mapping, provisional) = self.rooms.observed.mapping(class);
        let say = || format!("{mapping:?} ({provisional}), by {:?}", self.words);
        // What was said before a sleep may hold on without anybody who says so still.
        if self.slept {
            return Ok(());
        }
        match mapping {
            MappingBehavior::EndpointIndependent => promise(most >= 2, say),
            MappingBehavior::AddressDependent | MappingBehavior::AddressAndPortDependent => {
                let enough = if provisional { 2 } else { 3 };
                promise(speaking >= enough && most < 2, say)
            }
            MappingBehavior::Unknown => promise(speaking < 2, say),
            MappingBehavior::None => Err(say()),
        }
    }
}

impl World for Seen {
    type Event = Event;

    fn events(&self) -> Vec<Event> {
        let mut all = vec![Event::Listener];
        for observer in 0..self.observers {
            for port in 1..=self.ports {
                match self.conns[observer] {
                    Some((_, side)) => all.push(Event::Sees(observer, port, side)),
                    None => all.push(Event::Sees(observer, port, Side::Outbound)),
                }
            }
            match self.conns[observer] {
                Some(_) => all.push(Event::Leaves(observer)),
                None if observer == 0 => all.push(Event::Sees(observer, 1, Side::Inbound)),
                None => {}
            }
        }
        let jumps = Jump::all(&self.stage, self.rooms.observed.deadline());
        all.extend(jumps.into_iter().filter(|jump| *jump == Jump::Due).map(Event::Pass));
        if !self.slept {
            all.push(Event::Sleep(60));
        }
        all
    }

    fn step(&mut self, event: &Event, chance: Chance) -> Result<bool, String> {
        self.stage.drew = false;
        self.perform(*event, chance);
        self.happened(*event);
        lies_ahead(self.stage.now, self.rooms.observed.deadline())?;
        self.promises()?;
        let mut idle = self.clone();
        let actions = idle.act(Chance::Lowest, |_, _| ());
        promise(actions.is_empty() && idle.rooms == self.rooms, || "an idle tick acts".into())?;
        Ok(self.stage.drew)
    }

    fn key(&self) -> Vec<u8> {
        canonical(self.stage.now, |out| {
            self.rooms.local.save(out);
            self.rooms.observed.save(out);
            self.slept.save(out);
            for conn in self.conns {
                conn.save(out);
            }
            for (observer, word) in &self.words {
                (*observer, word.port, (word.meant, word.lives)).save(out);
                out.ranked(&word.at, LASTS);
            }
        })
    }
}

#[test]
fn four_observers_in_three_networks() {
    let bound = Bound { depth: depth(4, 6), floor: 10_000, complete: false };
    explore("observed", vec![Seen::new(4, 3)], bound);
}

#[test]
fn two_observers_for_long() {
    let bound = Bound { depth: depth(8, 14), floor: 10_000, complete: false };
    explore("observed, 2 observers", vec![Seen::new(2, 2)], bound);
}
