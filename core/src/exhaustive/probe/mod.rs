//! Probe, over real peers and candidates; alone, and with reachability above it.
//!
//! Three servers in two networks, one or two addresses. Each server can answer everything that the
//! protocol knows and some that it does not, bring the nonce early, late, from another IP or on the
//! wrong connection, come and go; the machine can sleep, and move to another network.

mod memory;

use super::explore::{Bound, World, depth, explore, promise};
use super::stage::{Chance, Jump, Stage, connection, inside, lies_ahead, peer, tcp};
use crate::candidates::Candidates;
use crate::local::Local;
use crate::mapping::Mappings;
use crate::observed::ObservedAddrs;
use crate::peers::{Peers, Worth};
use crate::probe::{Evidence, Probe};
use crate::reachability::{Ground, Reachability, Verdict};
use crate::wire::autonat::{DialBack, DialStatus, Message, ResponseStatus};
use crate::words::checkpoint::{Saved, canonical};
use crate::words::sleep::Sleep;
use crate::{
    Action, Addr, Config, ConnId, Cx, Deadline, Duration, Instant, ListenerId, Oddity, Protocol,
    ProtocolSet, Side, StreamEnd, StreamId,
};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use bytes::Bytes;
use memory::Memory;

/// The network of each server.
const NETWORKS: [u8; 3] = [1, 2, 2];

/// What can happen. Servers and addresses go by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Connect(usize),
    Disconnect(usize),
    Answer(usize, usize, Said),
    Bring(usize, usize, Way),
    Pass(Jump),
    Network,
    Listener,
    Sleep(u64),
}

/// What a server says, or how its stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Ok,
    DialError,
    /// It dialled in vain from an IP that we never sent a packet to, and says so.
    StrangerFailed,
    DialBackError,
    Refused,
    Rejected,
    Internal,
    WrongIndex,
    WantsData,
    WantsTooMuch,
    Garbage,
    Finished,
    Reset,
}

/// How the nonce comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// On a new connection, from the IP that we know.
    Known,
    /// The same, from an IP that we never sent a packet to.
    Stranger,
    /// On the connection that the question was asked on.
    OldConnection,
    /// On a new connection of another class.
    OtherClass,
    /// Another number.
    OtherNonce,
}

/// What this world has.
#[derive(Clone, Copy, Debug)]
struct Shape {
    servers: usize,
    addrs: usize,
    said: &'static [Said],
    ways: &'static [Way],
    before: bool,
    /// Networks, listeners and sleeps that may change, number.
    upsets: u8,
}

#[derive(Clone, PartialEq)]
struct Rooms {
    config: Rc<Config>,
    local: Local,
    peers: Peers,
    observed: ObservedAddrs,
    candidates: Candidates,
    probe: Probe,
    reachability: Option<Reachability>,
}

#[derive(Clone)]
struct Asking {
    shape: Shape,
    stage: Stage,
    rooms: Rooms,
    conns: [Option<ConnId>; 3],
    moved: bool,
    upsets: u8,
    memory: Memory,
}

/// What the rooms say of an address.
struct View {
    evidence: Option<Evidence>,
    verdict: Option<Verdict>,
}

/// What surrounds a step.
struct Turn {
    event: Event,
    /// The deadline that passed.
    due: Option<Deadline>,
    now: Instant,
    span: Duration,
    conns: [Option<ConnId>; 3],
    listening: bool,
}

/// Addresses of ours, the operator's word for it.
fn addr(number: usize) -> Addr {
    let port = if number == 0 { 4001 } else { 4002 };
    tcp(99, 1, port)
}

fn message(said: Said) -> Bytes {
    let answer = |status, addr_idx, dial_status| Message::DialResponse {
        status,
        addr_idx,
        dial_status,
        failed_from: None,
    };
    let plain = |status| answer(status, 0, DialStatus::Unused);
    match said {
        Said::Ok => answer(ResponseStatus::Ok, 0, DialStatus::Ok),
        Said::DialError => answer(ResponseStatus::Ok, 0, DialStatus::DialError),
        Said::StrangerFailed => Message::DialResponse {
            status: ResponseStatus::Ok,
            addr_idx: 0,
            dial_status: DialStatus::DialError,
            failed_from: Some(tcp(200, 1, 1).ip),
        },
        Said::DialBackError => answer(ResponseStatus::Ok, 0, DialStatus::DialBackError),
        Said::WrongIndex => answer(ResponseStatus::Ok, 1, DialStatus::Ok),
        Said::Refused => plain(ResponseStatus::Refused),
        Said::Rejected => plain(ResponseStatus::Rejected),
        Said::Internal => plain(ResponseStatus::InternalError),
        Said::WantsData => Message::DialDataRequest { addr_idx: 0, num_bytes: 100_000 },
        Said::WantsTooMuch => Message::DialDataRequest { addr_idx: 0, num_bytes: 100_001 },
        Said::Garbage | Said::Finished | Said::Reset => return Bytes::from_static(&[0xff]),
    }
    .encode()
}

impl Rooms {
    /// As the door does it.
    fn settle(&mut self, cx: &mut Cx<'_>) {
        let Rooms { config, local, peers, observed, candidates, probe, reachability } = self;
        peers.advance(cx);
        candidates.advance(cx, config, local, observed, &Mappings::default());
        probe.advance(cx, local, candidates, peers);
        let (now, servers) = (cx.now, &*probe);
        peers.keep_alive(cx, None, |_, peer| match servers.wants(now, peer) {
            true => Worth::Kept,
            false => Worth::Nothing,
        });
        if let Some(reachability) = reachability {
            reachability.advance(cx, &Ground { config, local, peers, observed, candidates, probe });
        }
    }

    fn deadline(&self) -> Option<Deadline> {
        let judged = self.reachability.as_ref().and_then(Reachability::deadline);
        [self.peers.deadline(), self.probe.deadline(), judged].into_iter().flatten().min()
    }
}

impl Asking {
    fn new(shape: Shape, connected: usize, judged: bool) -> Asking {
        let config = Config { external: (0..shape.addrs).map(addr).collect(), ..Config::default() };
        let mut rooms = Rooms {
            probe: Probe::new(false, 1),
            config: Rc::new(config),
            local: Local::default(),
            peers: Peers::default(),
            observed: ObservedAddrs::default(),
            candidates: Candidates::default(),
            reachability: judged.then(Reachability::default),
        };
        rooms.local.opened(ListenerId(1), inside(4001)).expect("the first listener");
        rooms.local.interfaces_changed(vec![inside(1).ip]).expect("one interface");
        let (stage, memory) = (Stage::new(), Memory::new(shape.addrs));
        let (conns, moved, upsets) = ([None; 3], false, shape.upsets);
        let mut world = Asking { shape, stage, rooms, conns, moved, upsets, memory };
        for server in 0..connected {
            world.step(&Event::Connect(server), Chance::Lowest).expect("it connects");
        }
        world
    }

    fn act(
        &mut self,
        chance: Chance,
        fact: impl FnOnce(&mut Rooms, &mut Cx<'_>) -> Result<(), Oddity>,
    ) -> (Result<(), Oddity>, Vec<Action>) {
        let rooms = &mut self.rooms;
        self.stage.act(chance, |cx| {
            let done = fact(rooms, cx);
            rooms.settle(cx);
            done
        })
    }

    /// Let the event happen, and return all that came of it.
    fn perform(&mut self, event: Event, chance: Chance) -> Result<Vec<Action>, String> {
        let (done, actions) = match event {
            Event::Connect(server) => {
                let conn = ConnId(self.stage.mint());
                self.conns[server] = Some(conn);
                let facts = connection(conn, server_peer(server), Side::Outbound, remote(server));
                let serves = ProtocolSet::NONE.with(Protocol::DialRequest);
                let (_, mut actions) =
                    self.act(chance, |rooms, cx| rooms.peers.connected(cx, &facts, false));
                let (done, more) = self.act(chance, |rooms, _| rooms.peers.told(conn, serves));
                actions.extend(more);
                (done, actions)
            }
            Event::Disconnect(server) => {
                let Some(conn) = self.conns[server].take() else { return Ok(Vec::new()) };
                self.act(chance, |rooms, cx| disconnect(rooms, cx, conn))
            }
            Event::Answer(server, addr, said) => self.answer(server, addr, said, chance),
            Event::Bring(server, addr, way) => return self.bring(server, addr, way, chance),
            Event::Pass(jump) => {
                self.stage.pass(self.rooms.deadline(), jump);
                self.act(chance, |_, _| Ok(()))
            }
            Event::Network => {
                self.moved = !self.moved;
                let other = if self.moved { [10, 0, 0, 5].into() } else { inside(1).ip };
                self.act(chance, |rooms, _| rooms.local.interfaces_changed(vec![other]))
            }
            Event::Listener => {
                let listening = self.rooms.local.listens_in(addr(0).class());
                self.act(chance, |rooms, _| match listening {
                    true => rooms.local.closed(ListenerId(1)),
                    false => rooms.local.opened(ListenerId(1), inside(4001)),
                })
            }
            Event::Sleep(seconds) => self.sleep(Duration::from_secs(seconds), chance),
        };
        promise(done.is_ok(), || format!("{event:?} makes no sense: {done:?}"))?;
        Ok(actions)
    }

    fn answer(
        &mut self,
        server: usize,
        addr: usize,
        said: Said,
        chance: Chance,
    ) -> (Result<(), Oddity>, Vec<Action>) {
        let stream = self.memory.stream(server, addr);
        self.act(chance, |rooms, cx| match said {
            Said::Finished => rooms.probe.stream_ended(cx, stream, StreamEnd::Finished),
            Said::Reset => rooms.probe.stream_ended(cx, stream, StreamEnd::Reset),
            Said::Ok
            | Said::DialError
            | Said::StrangerFailed
            | Said::DialBackError
            | Said::Refused
            | Said::Rejected
            | Said::Internal
            | Said::WrongIndex
            | Said::WantsData
            | Said::WantsTooMuch
            | Said::Garbage => {
                rooms.probe.answered(cx, stream, &message(said), (&rooms.local, &rooms.peers))
            }
        })
    }

    /// A dial-back from its connection to its end, which each time is a step of its own.
    fn bring(
        &mut self,
        server: usize,
        addr: usize,
        way: Way,
        chance: Chance,
    ) -> Result<Vec<Action>, String> {
        let mut all = Vec::new();
        let mut nonce = self.memory.nonce(server, addr);
        let from = match way {
            Way::Known | Way::OldConnection | Way::OtherNonce => remote(server),
            Way::Stranger => tcp(200, 1, 1),
            Way::OtherClass => Addr::quic(remote(server).ip, 1),
        };
        if way == Way::OtherNonce {
            nonce = u64::MAX;
        }
        let old = self.conns[server].filter(|_| way == Way::OldConnection);
        let conn = old.unwrap_or_else(|| ConnId(self.stage.mint()));
        if old.is_none() {
            let facts = connection(conn, peer(200), Side::Inbound, Addr { port: 50_000, ..from });
            all.extend(self.act(chance, |rooms, cx| rooms.peers.connected(cx, &facts, false)).1);
        }
        let stream = StreamId::inbound(Protocol::DialBack, self.stage.mint());
        all.extend(
            self.act(chance, |rooms, cx| {
                rooms.probe.dial_back_opened(cx, conn, stream, &rooms.peers)
            })
            .1,
        );
        let body = DialBack { nonce }.encode();
        let (done, actions) =
            self.act(chance, |rooms, cx| rooms.probe.dialled_back(cx, stream, &body, &rooms.peers));
        all.extend(actions);
        let wanted = match way {
            Way::Known | Way::Stranger => Ok(()),
            Way::OldConnection | Way::OtherClass => Err(Oddity::MisplacedNonce),
            Way::OtherNonce => Err(Oddity::UnknownNonce),
        };
        promise(done == wanted, || format!("the nonce was taken as {done:?}, not {wanted:?}"))?;
        if old.is_none() {
            all.extend(self.act(chance, |rooms, cx| disconnect(rooms, cx, conn)).1);
        }
        Ok(all)
    }

    fn sleep(&mut self, slept: Duration, chance: Chance) -> (Result<(), Oddity>, Vec<Action>) {
        let last = self.stage.now;
        self.stage.now = last + slept;
        self.act(chance, |rooms, cx| {
            let sleep = Sleep::new(slept, last, cx.now);
            rooms.peers.resumed(cx, sleep, false);
            rooms.probe.resumed(cx, sleep, &rooms.peers);
            if let Some(reachability) = &mut rooms.reachability {
                reachability.resumed(sleep);
            }
            Ok(())
        })
    }

    fn views(&self) -> Vec<View> {
        let rooms = &self.rooms;
        let view = |number| View {
            evidence: rooms.probe.evidence(self.stage.now, &rooms.peers, addr(number)),
            verdict: rooms
                .reachability
                .as_ref()
                .and_then(|room| room.verdict(addr(number)))
                .copied(),
        };
        (0..self.shape.addrs).map(view).collect()
    }

    /// Telling the time once more is no news.
    fn idles(&self) -> Result<(), String> {
        let mut idle = self.clone();
        let (_, actions) = idle.act(Chance::Lowest, |_, _| Ok(()));
        promise(actions.is_empty(), || format!("an idle tick does {actions:?}"))?;
        promise(idle.rooms == self.rooms, || "an idle tick changes the state".into())
    }
}

fn disconnect(rooms: &mut Rooms, cx: &mut Cx<'_>, conn: ConnId) -> Result<(), Oddity> {
    rooms.probe.disconnected(cx, conn);
    rooms.peers.disconnected(cx, conn)
}

fn server_peer(server: usize) -> crate::PeerId {
    peer(u8::try_from(server).expect("a small number"))
}

fn remote(server: usize) -> Addr {
    tcp(NETWORKS[server], u8::try_from(server).expect("a small number") + 1, 4001)
}

impl World for Asking {
    type Event = Event;

    fn events(&self) -> Vec<Event> {
        let mut all = Vec::new();
        for server in 0..self.shape.servers {
            all.push(match self.conns[server] {
                None => Event::Connect(server),
                Some(_) => Event::Disconnect(server),
            });
            for addr in 0..self.shape.addrs {
                if self.memory.awaits_answer(server, addr) {
                    let said = self.shape.said.iter();
                    all.extend(said.map(|said| Event::Answer(server, addr, *said)));
                }
                let listening = self.rooms.local.listens_in(self::addr(addr).class());
                if self.memory.awaits_nonce(self.stage.now, server, addr) && listening {
                    let ways =
                        self.shape.ways.iter().filter(|way| {
                            **way != Way::OldConnection || self.conns[server].is_some()
                        });
                    all.extend(ways.map(|way| Event::Bring(server, addr, *way)));
                }
            }
        }
        let jumps = Jump::all(&self.stage, self.rooms.deadline()).into_iter();
        all.extend(jumps.filter(|jump| self.shape.before || *jump == Jump::Due).map(Event::Pass));
        if self.upsets > 0 {
            all.extend([Event::Network, Event::Listener, Event::Sleep(5), Event::Sleep(60)]);
        }
        all
    }

    fn step(&mut self, event: &Event, chance: Chance) -> Result<bool, String> {
        self.stage.drew = false;
        if matches!(event, Event::Network | Event::Listener | Event::Sleep(_)) {
            self.upsets -= 1;
        }
        let (due, last) = (self.rooms.deadline(), self.stage.now);
        let before = self.views();
        let actions = self.perform(*event, chance)?;
        let turn = Turn {
            event: *event,
            due: due.filter(|due| due.at <= self.stage.now),
            now: self.stage.now,
            span: self.stage.now.since(last),
            conns: self.conns,
            listening: self.rooms.local.listens_in(addr(0).class()),
        };
        self.memory.happened(&turn);
        for action in &actions {
            self.memory.heard(&turn, action)?;
        }
        lies_ahead(self.stage.now, self.rooms.deadline())?;
        for (addr, (before, after)) in before.iter().zip(&self.views()).enumerate() {
            self.memory.evidence(&turn, addr, before.evidence, after.evidence)?;
            self.memory.verdict(&turn, addr, before, after)?;
        }
        self.idles()?;
        Ok(self.stage.drew)
    }

    fn key(&self) -> Vec<u8> {
        canonical(self.stage.now, |out| {
            self.rooms.local.save(out);
            self.rooms.peers.save(out);
            self.rooms.candidates.save(out);
            self.rooms.probe.save(out);
            if let Some(reachability) = &self.rooms.reachability {
                reachability.save(out);
            }
            self.conns.save(out);
            self.moved.save(out);
            self.upsets.save(out);
            self.memory.save(out);
        })
    }
}

/// What decides: a word on the address, a word on the server, silence, a lie.
const FEW: &[Said] = &[Said::Ok, Said::DialError, Said::Refused, Said::Rejected];
/// All that can be said.
const ALL: &[Said] = &[
    Said::Ok,
    Said::DialError,
    Said::StrangerFailed,
    Said::DialBackError,
    Said::Refused,
    Said::Rejected,
    Said::Internal,
    Said::WrongIndex,
    Said::WantsData,
    Said::WantsTooMuch,
    Said::Garbage,
    Said::Finished,
    Said::Reset,
];
const WAYS: &[Way] =
    &[Way::Known, Way::Stranger, Way::OldConnection, Way::OtherClass, Way::OtherNonce];

fn run(name: &'static str, shape: Shape, judged: bool, bound: Bound) {
    let first = (0..=shape.servers).map(|connected| Asking::new(shape, connected, judged));
    explore(name, first.collect(), bound);
}

#[test]
fn two_servers_that_can_say_anything() {
    let shape = Shape { servers: 2, addrs: 1, said: ALL, ways: WAYS, before: true, upsets: 1 };
    let bound = Bound { depth: depth(3, 6), floor: 10_000, complete: false };
    run("probe, 2 servers, every word", shape, false, bound);
}

#[test]
fn three_servers_in_two_networks() {
    let ways = &[Way::Known, Way::Stranger];
    let shape = Shape { servers: 3, addrs: 1, said: FEW, ways, before: false, upsets: 0 };
    let bound = Bound { depth: depth(4, 7), floor: 10_000, complete: false };
    run("probe, 3 servers", shape, false, bound);
}

#[test]
fn two_addresses() {
    let ways = &[Way::Known];
    let shape = Shape { servers: 2, addrs: 2, said: FEW, ways, before: false, upsets: 1 };
    let bound = Bound { depth: depth(3, 6), floor: 10_000, complete: false };
    run("probe, 2 addresses", shape, false, bound);
}

#[test]
fn one_server_for_long() {
    let shape = Shape { servers: 1, addrs: 1, said: FEW, ways: WAYS, before: true, upsets: 0 };
    let bound = Bound { depth: depth(5, 9), floor: 10_000, complete: false };
    run("probe, 1 server", shape, false, bound);
}

#[test]
fn with_reachability_above() {
    let ways = &[Way::Known, Way::Stranger];
    let shape = Shape { servers: 2, addrs: 1, said: FEW, ways, before: false, upsets: 1 };
    let bound = Bound { depth: depth(4, 8), floor: 10_000, complete: false };
    run("probe and reachability", shape, true, bound);
}
