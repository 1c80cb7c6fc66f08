//! Candidates, over every ground of two listeners and three interfaces, and two observers.

use super::explore::{Bound, World, explore, promise};
use super::stage::{Chance, Stage, connection, inside, peer, tcp};
use crate::candidates::{Candidate, Candidates};
use crate::local::Local;
use crate::mapping::Mappings;
use crate::observed::ObservedAddrs;
use crate::peers::Peers;
use crate::words::checkpoint::{Saved, canonical};
use crate::{
    Action, Addr, Class, Config, ConnId, Cx, IpScope, ListenerId, Notice, Side, Source, Sources,
    ip_scope,
};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;

const IPS: [[u8; 4]; 3] = [[127, 0, 0, 1], [192, 168, 0, 2], [44, 0, 98, 1]];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Listener(usize),
    Turns(usize),
    /// An observer of one class sees us at this address; or goes.
    Sees(usize, Addr),
    Leaves(usize),
}

#[derive(Clone, PartialEq)]
struct Rooms {
    local: Local,
    peers: Peers,
    observed: ObservedAddrs,
    candidates: Candidates,
}

#[derive(Clone)]
struct Gathering {
    stage: Stage,
    config: Rc<Config>,
    rooms: Rooms,
    open: [bool; 2],
    ips: [bool; 3],
    conns: [Option<ConnId>; 2],
    known: BTreeMap<Addr, Sources>,
}

fn listener(number: usize) -> Addr {
    let any = IpAddr::from([0, 0, 0, 0]);
    if number == 0 { Addr::tcp(any, 4001) } else { Addr::quic(any, 4002) }
}

/// What the observers may see, the second as QUIC: where we listen, and where we do not.
fn sights(number: usize) -> [Addr; 2] {
    let ip = tcp(99, 1, 0).ip;
    if number == 0 {
        [Addr::tcp(ip, 4001), Addr::tcp(ip, 5000)]
    } else {
        [Addr::quic(ip, 4002), Addr::quic(ip, 5000)]
    }
}

impl Gathering {
    fn new(external: Vec<Addr>, allow_private: bool) -> Gathering {
        let config = Config { external, allow_private, ..Config::default() };
        let rooms = Rooms {
            local: Local::default(),
            peers: Peers::default(),
            observed: ObservedAddrs::default(),
            candidates: Candidates::default(),
        };
        Gathering {
            stage: Stage::new(),
            config: Rc::new(config),
            rooms,
            open: [false; 2],
            ips: [false; 3],
            conns: [None; 2],
            known: BTreeMap::new(),
        }
    }

    fn act(&mut self, fact: impl FnOnce(&mut Rooms, &mut Cx<'_>)) -> Vec<Action> {
        let (rooms, config) = (&mut self.rooms, Rc::clone(&self.config));
        let act = |cx: &mut Cx<'_>| {
            fact(rooms, cx);
            rooms.observed.advance(cx, &rooms.local);
            rooms.candidates.advance(
                cx,
                &config,
                &rooms.local,
                &rooms.observed,
                &Mappings::default(),
            );
        };
        self.stage.act(Chance::Lowest, act).1
    }

    fn perform(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Listener(number) => {
                let id = ListenerId(u64::try_from(number).expect("two of them"));
                self.open[number] ^= true;
                let opens = self.open[number];
                self.act(|rooms, _| {
                    let _ = match opens {
                        true => rooms.local.opened(id, listener(number)),
                        false => rooms.local.closed(id),
                    };
                })
            }
            Event::Turns(number) => {
                self.ips[number] ^= true;
                let up = IPS.iter().zip(self.ips).filter(|(_, up)| *up);
                let ips = up.map(|(ip, _)| IpAddr::from(*ip)).collect();
                self.act(|rooms, _| {
                    let _ = rooms.local.interfaces_changed(ips);
                })
            }
            Event::Sees(number, observed) => {
                let allow = self.config.allow_private;
                let conn = ConnId(self.stage.mint());
                self.conns[number] = Some(conn);
                let network = u8::try_from(number).expect("two of them") + 1;
                let remote = Addr { transport: observed.transport, ..tcp(network, 1, 4001) };
                let mut facts = connection(conn, peer(network), Side::Outbound, remote);
                facts.local = Addr { ip: inside(0).ip, ..listener(number) };
                self.act(|rooms, cx| {
                    let _ = rooms.peers.connected(cx, &facts, false);
                    let Rooms { local, peers, observed: room, .. } = rooms;
                    if let Some(connection) = peers.get(conn) {
                        room.record(cx.now, allow, (conn, connection), local, observed);
                    }
                })
            }
            Event::Leaves(number) => {
                let Some(conn) = self.conns[number].take() else { return Vec::new() };
                self.act(|rooms, cx| {
                    rooms.observed.disconnected(conn);
                    let _ = rooms.peers.disconnected(cx, conn);
                })
            }
        }
    }

    /// Every source that names this address, by the rooms below.
    fn sources(&self, addr: Addr) -> Sources {
        let Rooms { local, observed, .. } = &self.rooms;
        let own = local.addresses().any(|one| one == addr);
        let may = match ip_scope(addr.ip) {
            IpScope::Global => true,
            IpScope::Private | IpScope::Loopback => self.config.allow_private,
            IpScope::LinkLocal | IpScope::Unusable => false,
        };
        let seen = observed.values(addr.class()).iter().any(|(value, _)| *value == addr);
        let same_family = Class::ALL.iter().filter(|class| class.family == addr.class().family);
        let ip_seen =
            same_family.flat_map(|class| observed.ips(*class)).any(|(ip, _)| *ip == addr.ip);
        let port = local.ports(addr.class()).any(|port| port == addr.port);
        [
            (Source::Configured, self.config.external.contains(&addr)),
            (Source::Interface, own && may),
            (Source::Observed, seen),
            (Source::Guess, ip_seen && port && !seen && !own),
        ]
        .into_iter()
        .filter(|(_, named)| *named)
        .fold(Sources::NONE, |all, (source, _)| all.with(source))
    }

    fn promises(&mut self, actions: &[Action]) -> Result<(), String> {
        let external = self.config.external.iter().copied();
        let sights = sights(0).into_iter().chain(sights(1));
        let own = IPS
            .into_iter()
            .flat_map(|ip| [0, 1].map(|number| Addr { ip: ip.into(), ..listener(number) }));
        let mut wanted = BTreeMap::new();
        for addr in external.chain(sights).chain(own) {
            let sources = self.sources(addr);
            if !sources.is_empty() {
                wanted.insert(addr, sources);
            }
        }
        let all: Vec<Candidate> = self.rooms.candidates.iter().copied().collect();
        let found: BTreeMap<Addr, Sources> =
            all.iter().map(|one| (one.addr, one.sources)).collect();
        promise(found == wanted, || format!("{found:?}, not {wanted:?}"))?;
        promise(found.len() == all.len(), || "an address stands twice".into())?;
        let strongest = |one: &Candidate| one.sources.iter().next();
        let sorted = all.is_sorted_by_key(strongest);
        promise(sorted, || format!("not the strongest first: {all:?}"))?;
        for action in actions {
            if let Action::Notify(Notice::CandidateChanged { addr, sources }) = action {
                match sources.is_empty() {
                    true => self.known.remove(addr),
                    false => self.known.insert(*addr, *sources),
                };
            }
        }
        promise(self.known == found, || format!("told of {:?}, not of {found:?}", self.known))
    }
}

impl World for Gathering {
    type Event = Event;

    fn events(&self) -> Vec<Event> {
        let mut all: Vec<Event> = [0, 1].map(Event::Listener).into();
        all.extend([0, 1, 2].map(Event::Turns));
        for number in [0, 1] {
            match self.conns[number] {
                Some(_) => all.push(Event::Leaves(number)),
                None => all.extend(sights(number).map(|addr| Event::Sees(number, addr))),
            }
        }
        all
    }

    fn step(&mut self, event: &Event, _: Chance) -> Result<bool, String> {
        self.stage.drew = false;
        let actions = self.perform(*event);
        self.promises(&actions)?;
        let mut idle = self.clone();
        let actions = idle.act(|_, _| ());
        promise(actions.is_empty() && idle.rooms == self.rooms, || "an idle tick acts".into())?;
        Ok(self.stage.drew)
    }

    fn key(&self) -> Vec<u8> {
        canonical(self.stage.now, |out| {
            self.rooms.local.save(out);
            self.rooms.observed.save(out);
            self.rooms.candidates.save(out);
            (self.conns[0], self.conns[1]).save(out);
            self.open.save(out);
            self.ips.save(out);
        })
    }
}

#[test]
fn every_source_of_every_address() {
    let declared = vec![sights(0)[0], tcp(97, 1, 80)];
    let first = vec![Gathering::new(Vec::new(), false), Gathering::new(declared, true)];
    let bound = Bound { depth: 30, floor: 1_000, complete: true };
    explore("candidates", first, bound);
}
