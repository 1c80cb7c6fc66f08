//! Reachability and advertise, over whatever probe may claim of two addresses in two classes.

use super::explore::{Bound, World, depth, explore, promise};
use super::stage::{Chance, Jump, Stage, connection, lies_ahead, peer, tcp};
use crate::advertise::Advertise;
use crate::candidates::Candidates;
use crate::local::Local;
use crate::mapping::Mappings;
use crate::observed::ObservedAddrs;
use crate::peers::Peers;
use crate::probe::{Claim, Probe};
use crate::reachability::{Ground, Reachability, Verdict};
use crate::relay::Relays;
use crate::words::checkpoint::{Saved, canonical};
use crate::{
    Action, Addr, Config, ConnId, Cx, Deadline, Duration, Instant, ListenerId, NodeState, Notice,
    Scope, Side, State,
};
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

/// How long a proof, or the sight of a stranger, counts.
const LIFETIME: Duration = Duration::from_secs(600);
/// How long a role outlasts its reason.
const HELD: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// A proof comes in, by a stranger or not.
    Proof(usize, bool),
    /// So many networks refute it.
    Refuted(usize, u8),
    /// One of two networks fails as a stranger.
    Cold(usize, usize),
    /// A probe starts, or ends without a word.
    Probing(usize),
    /// A stranger comes in, and names the address.
    Stranger(usize),
    Listener(usize),
    Pass(Jump),
}

#[derive(Clone, PartialEq)]
struct Rooms {
    local: Local,
    peers: Peers,
    candidates: Candidates,
    reachability: Reachability,
    advertise: Advertise,
}

#[derive(Clone)]
struct Judging {
    stage: Stage,
    config: Rc<Config>,
    rooms: Rooms,
    addrs: usize,
    claims: Vec<Claim>,
    revision: u64,
    strangers: Vec<Option<Instant>>,
    told: BTreeSet<Addr>,
    /// Since when there is no more reason to serve.
    unfit_since: Option<Instant>,
    /// Whether it served after the last step.
    served: bool,
}

fn addr(number: usize) -> Addr {
    let addr = tcp(99, 1, 4001);
    if number == 0 { addr } else { Addr::quic(addr.ip, 4001) }
}

fn listener(number: usize) -> ListenerId {
    ListenerId(u64::try_from(number).expect("two of them"))
}

impl Judging {
    fn new(addrs: usize) -> Judging {
        let rooms = Rooms {
            local: Local::default(),
            peers: Peers::default(),
            candidates: Candidates::default(),
            reachability: Reachability::default(),
            advertise: Advertise::default(),
        };
        let mut world = Judging {
            stage: Stage::new(),
            config: Rc::new(Config::default()),
            rooms,
            addrs,
            claims: vec![Claim::default(); addrs],
            revision: 0,
            strangers: vec![None; addrs],
            told: BTreeSet::new(),
            unfit_since: None,
            served: false,
        };
        for number in 0..addrs {
            world.step(&Event::Listener(number), Chance::Lowest).expect("it listens");
        }
        world
    }

    fn act(&mut self, chance: Chance, fact: impl FnOnce(&mut Rooms, &mut Cx<'_>)) -> Vec<Action> {
        let claims = self.claims.iter().enumerate().map(|(number, claim)| (addr(number), claim));
        let probe = Probe::claiming(claims, self.revision);
        let (rooms, config) = (&mut self.rooms, Rc::clone(&self.config));
        let act = |cx: &mut Cx<'_>| {
            fact(rooms, cx);
            let Rooms { local, peers, candidates, reachability, advertise } = rooms;
            peers.advance(cx);
            // Nothing is observed: the addresses are ours by their interface.
            let observed = &ObservedAddrs::default();
            candidates.advance(cx, &config, local, observed, &Mappings::default());
            let (config, probe) = (&*config, &probe);
            reachability.advance(cx, &Ground { config, local, peers, observed, candidates, probe });
            advertise.advance(cx, reachability, &Relays::default());
        };
        self.stage.act(chance, act).1
    }

    fn perform(&mut self, event: Event, chance: Chance) -> Vec<Action> {
        let now = self.stage.now;
        match event {
            Event::Proof(number, by_stranger) => {
                let claim = &mut self.claims[number];
                claim.proven_at = Some(now);
                claim.refuted = None;
                claim.is_probing = false;
                if by_stranger {
                    claim.by_stranger_at = Some(now);
                    claim.cold_at = [None; 2];
                }
            }
            Event::Refuted(number, by) => self.claims[number].refuted = Some(by),
            Event::Cold(number, network) => self.claims[number].cold_at[network] = Some(now),
            Event::Probing(number) => self.claims[number].is_probing ^= true,
            Event::Stranger(number) => return self.stranger(number, chance),
            Event::Listener(number) => {
                let open = self.rooms.local.listens_in(addr(number).class());
                return self.act(chance, |rooms, _| {
                    let _ = match open {
                        true => rooms.local.closed(listener(number)),
                        false => rooms.local.opened(listener(number), addr(number)),
                    };
                });
            }
            Event::Pass(jump) => {
                self.stage.pass(self.deadline(), jump);
                return self.act(chance, |_, _| ());
            }
        }
        self.revision += 1;
        self.act(chance, |_, _| ())
    }

    fn stranger(&mut self, number: usize, chance: Chance) -> Vec<Action> {
        self.strangers[number] = Some(self.stage.now);
        let conn = ConnId(self.stage.mint());
        let from = Addr { transport: addr(number).transport, ..tcp(150, 1, 1) };
        let mut facts = connection(conn, peer(150), Side::Inbound, from);
        facts.local = addr(number);
        let mut actions = self.act(chance, |rooms, cx| {
            let _ = rooms.peers.connected(cx, &facts, false);
        });
        actions.extend(self.act(chance, |rooms, cx| {
            let _ = rooms.peers.sees_us(cx.now, false, conn, addr(number));
        }));
        actions.extend(self.act(chance, |rooms, cx| {
            let _ = rooms.peers.disconnected(cx, conn);
        }));
        actions
    }

    fn deadline(&self) -> Option<Deadline> {
        self.rooms.reachability.deadline()
    }

    fn verdict(&self, number: usize) -> Option<Verdict> {
        self.rooms.reachability.verdict(addr(number)).copied()
    }

    /// The verdict that was promised for such evidence.
    fn judged(&self, number: usize, before: Option<Verdict>) -> (State, Option<Scope>) {
        let (claim, now) = (&self.claims[number], self.stage.now);
        let fresh = |at: &Option<Instant>| at.is_some_and(|at| now < at + LIFETIME);
        let was_reachable = before.is_some_and(|verdict| verdict.state() == State::Reachable);
        // A stranger keeps alive what was proven, and proves nothing himself.
        let renewed = was_reachable && fresh(&self.strangers[number]);
        let alive = fresh(&claim.proven_at) || claim.proven_at.is_some() && renewed;
        if !self.rooms.local.listens_in(addr(number).class()) {
            return (State::Unknown, None);
        }
        if claim.refuted.is_some() {
            return (State::Unreachable, None);
        }
        if !alive {
            return (State::Unknown, None);
        }
        let refused = claim.cold_at.iter().filter(|at| fresh(at)).count();
        let strangers = fresh(&claim.by_stranger_at) || fresh(&self.strangers[number]);
        let scope = match (strangers, refused) {
            (true, _) => Scope::Anywhere,
            (false, 2..) => Scope::ContactedOnly,
            (false, _) => Scope::Contacted,
        };
        (State::Reachable, Some(scope))
    }

    fn promises(&mut self, before: &[Option<Verdict>], is_news: bool) -> Result<(), String> {
        let mut best = NodeState::Unknown;
        let mut fit = false;
        let mut told = BTreeSet::new();
        for (number, before) in before.iter().enumerate() {
            // A candidate has a verdict, and so has what is proven; nothing else has.
            let Some(verdict) = self.verdict(number) else {
                let open = self.rooms.local.listens_in(addr(number).class());
                promise(!open, || format!("{} is not judged", addr(number)))?;
                continue;
            };
            let wanted = self.judged(number, *before);
            let found = (verdict.state(), verdict.scope());
            // That strangers are refused may be believed until something else is news.
            let lingers = before.and_then(|old| old.scope()) == Some(Scope::ContactedOnly)
                && found.1 == Some(Scope::ContactedOnly)
                && wanted == (State::Reachable, Some(Scope::Contacted));
            promise(found == wanted || lingers, || {
                format!("{number}: {verdict:?}, not {wanted:?}")
            })?;
            let left = before.is_some_and(|old| old.state() == State::Reachable)
                && found.0 != State::Reachable;
            promise(!left || is_news, || format!("{number} flips: {verdict:?}"))?;
            // These addresses are presumed open, being global and our own.
            let state = match found.1 {
                Some(Scope::Anywhere | Scope::Contacted) => {
                    told.insert(addr(number));
                    fit = true;
                    NodeState::Public
                }
                Some(Scope::ContactedOnly) => NodeState::Limited,
                None => NodeState::Unknown,
            };
            best = best.max(state);
        }
        let node = self.rooms.reachability.node().state;
        let proven = best > NodeState::Unknown;
        let right = if proven { node == best } else { node <= NodeState::Private };
        promise(right, || format!("the node is {node:?}, its best address {best:?}"))?;
        self.told = told;
        let advertised: BTreeSet<Addr> = self.rooms.advertise.told().collect();
        promise(advertised == self.told, || format!("told: {advertised:?}, not {:?}", self.told))?;
        self.role(fit)
    }

    /// A role begins at once, and ends a minute after its reason.
    fn role(&mut self, fit: bool) -> Result<(), String> {
        let (now, serves) = (self.stage.now, self.rooms.reachability.may_serve());
        let served = core::mem::replace(&mut self.served, serves);
        if fit {
            self.unfit_since = None;
            return promise(serves, || "it may not serve".into());
        }
        if serves {
            let since = *self.unfit_since.get_or_insert(now);
            return promise(now < since + HELD, || "it may serve still".into());
        }
        let held = self.unfit_since.take().is_some_and(|since| since + HELD <= now);
        promise(held || !served, || "its role was not held".into())
    }

    /// The difference that is told makes the new set of the old one.
    fn difference(&self, told: &BTreeSet<Addr>, actions: &[Action]) -> Result<(), String> {
        let mut told = told.clone();
        for action in actions {
            if let Action::Notify(Notice::AdvertisedChanged { added, removed }) = action {
                for addr in added {
                    promise(told.insert(*addr), || format!("{addr} is told twice"))?;
                }
                for addr in removed {
                    promise(told.remove(addr), || format!("{addr} was not told"))?;
                }
            }
        }
        promise(told == self.told, || format!("the differences make {told:?}"))
    }
}

impl World for Judging {
    type Event = Event;

    fn events(&self) -> Vec<Event> {
        let mut all = Vec::new();
        for number in 0..self.addrs {
            all.push(Event::Listener(number));
            if self.rooms.local.listens_in(addr(number).class()) {
                all.extend([Event::Proof(number, false), Event::Proof(number, true)]);
                all.extend([Event::Refuted(number, 1), Event::Refuted(number, 2)]);
                all.extend([Event::Cold(number, 0), Event::Cold(number, 1)]);
                all.extend([Event::Probing(number), Event::Stranger(number)]);
            }
        }
        let jumps = Jump::all(&self.stage, self.deadline()).into_iter();
        all.extend(jumps.map(Event::Pass));
        all
    }

    fn step(&mut self, event: &Event, chance: Chance) -> Result<bool, String> {
        self.stage.drew = false;
        let before: Vec<_> = (0..self.addrs).map(|number| self.verdict(number)).collect();
        let told = self.told.clone();
        let actions = self.perform(*event, chance);
        // A failure is news, a socket that closes too; time alone is, where a proof has aged out.
        let is_news = match event {
            Event::Refuted(..) | Event::Listener(_) | Event::Pass(Jump::Due) => true,
            Event::Proof(..) | Event::Cold(..) | Event::Probing(_) | Event::Stranger(_) => false,
            Event::Pass(Jump::Before) => false,
        };
        self.promises(&before, is_news)?;
        self.difference(&told, &actions)?;
        lies_ahead(self.stage.now, self.deadline())?;
        let mut idle = self.clone();
        let actions = idle.act(Chance::Lowest, |_, _| ());
        promise(actions.is_empty() && idle.rooms == self.rooms, || "an idle tick acts".into())?;
        Ok(self.stage.drew)
    }

    fn key(&self) -> Vec<u8> {
        canonical(self.stage.now, |out| {
            let Rooms { local, peers, candidates, reachability, advertise } = &self.rooms;
            local.save(out);
            peers.save(out);
            candidates.save(out);
            out.revision(&self.revision, crate::words::checkpoint::Room::Probe);
            reachability.save(out);
            advertise.save(out);
            for (claim, stranger) in self.claims.iter().zip(&self.strangers) {
                let Claim { proven_at, by_stranger_at, refuted, cold_at, is_probing } = claim;
                let moments = [proven_at, by_stranger_at, stranger].into_iter().chain(cold_at);
                for (number, at) in moments.enumerate() {
                    // That there was a proof counts for good.
                    let counts = at.is_some_and(|at| self.stage.now < at + LIFETIME);
                    (number == 0 && at.is_some()).save(out);
                    at.filter(|_| counts).save(out);
                }
                (*refuted, *is_probing).save(out);
            }
            self.unfit_since.save(out);
        })
    }
}

#[test]
fn one_address_and_all_that_can_be_claimed_of_it() {
    let bound = Bound { depth: depth(7, 10), floor: 5_000, complete: false };
    explore("reachability and advertise, 1 address", vec![Judging::new(1)], bound);
}

#[test]
fn two_addresses_and_all_that_can_be_claimed_of_them() {
    let bound = Bound { depth: depth(4, 6), floor: 5_000, complete: false };
    explore("reachability and advertise, 2 addresses", vec![Judging::new(2)], bound);
}
