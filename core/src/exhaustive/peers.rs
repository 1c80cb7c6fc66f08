//! Peers: two connections to one peer and one to another, each with identify, ping and push.

use super::explore::{Bound, World, depth, explore, promise};
use super::stage::{Chance, Jump, Stage, connection, lies_ahead, peer, tcp};
use crate::peers::{Heard, Peers, Worth};
use crate::wire::identify::Identify;
use crate::words::checkpoint::{Saved, canonical};
use crate::words::sleep::Sleep;
use crate::{
    Action, ConnId, Cx, Duration, Notice, Oddity, PeerId, Protocol, ProtocolSet, Side, StreamEnd,
    StreamId,
};
use alloc::borrow::ToOwned;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use bytes::Bytes;

const INTERVAL: Duration = Duration::from_secs(25);

/// The places where a connection may stand: whose it is, and who opened it.
const PLACES: [(u8, Side); 3] = [(1, Side::Outbound), (1, Side::Inbound), (2, Side::Inbound)];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// With a round-trip time, or without.
    Connect(usize, bool),
    Disconnect(usize),
    /// An answer of identify: a server's, another's, or none at all.
    Identify(usize, Option<bool>),
    IdentifyEnds(usize, StreamEnd),
    /// The right echo, or another.
    Echo(usize, bool),
    PingEnds(usize),
    Push(usize, Option<bool>),
    Pass(Jump),
    Sleep(u64),
}

#[derive(Clone)]
struct Meeting {
    stage: Stage,
    peers: Peers,
    conns: [Option<ConnId>; 3],
    /// Our streams that are not over, and what the last ping said.
    streams: BTreeMap<StreamId, ConnId>,
    bodies: BTreeMap<StreamId, Bytes>,
    pushes: u64,
    /// Who is to be identified, or has been given up.
    nameless: BTreeSet<ConnId>,
    contacted: bool,
    slept: bool,
}

fn body(serves: Option<bool>) -> Bytes {
    let Some(serves) = serves else { return Bytes::from_static(&[0xff]) };
    let name = if serves { Protocol::DialRequest } else { Protocol::Ping }.name();
    let identify = Identify { protocols: vec![name.to_owned()], ..Identify::default() };
    identify.encode_split().messages.swap_remove(0)
}

impl Meeting {
    fn new() -> Meeting {
        Meeting {
            stage: Stage::new(),
            peers: Peers::default(),
            conns: [None; 3],
            streams: BTreeMap::new(),
            bodies: BTreeMap::new(),
            pushes: 0,
            nameless: BTreeSet::new(),
            contacted: false,
            slept: false,
        }
    }

    fn act<T>(
        &mut self,
        chance: Chance,
        fact: impl FnOnce(&mut Peers, &mut Cx<'_>) -> T,
    ) -> (T, Vec<Action>) {
        let peers = &mut self.peers;
        self.stage.act(chance, |cx| {
            let done = fact(peers, cx);
            peers.advance(cx);
            peers.keep_alive(cx, Some(INTERVAL), |_, one| {
                if one == peer(1) { Worth::Kept } else { Worth::Nothing }
            });
            done
        })
    }

    fn ours(&self, place: usize, protocol: Protocol) -> Option<StreamId> {
        let conn = self.conns[place]?;
        let of = |(stream, on): (&StreamId, &ConnId)| {
            (*on == conn && stream.protocol == protocol).then_some(*stream)
        };
        self.streams.iter().find_map(of)
    }

    fn hear(&mut self, stream: StreamId, body: &Bytes, chance: Chance) -> (Heard, Vec<Action>) {
        self.act(chance, |peers, cx| peers.frame(cx, stream, body))
    }

    fn close(&mut self, stream: StreamId, end: StreamEnd, chance: Chance) -> Vec<Action> {
        self.streams.remove(&stream);
        self.act(chance, |peers, cx| peers.closed(cx, stream, end)).1
    }

    fn perform(&mut self, event: Event, chance: Chance) -> Result<Vec<Action>, String> {
        Ok(match event {
            Event::Connect(place, measured) => {
                let (number, side) = PLACES[place];
                let conn = ConnId(self.stage.mint());
                self.conns[place] = Some(conn);
                self.nameless.insert(conn);
                let mut facts = connection(conn, peer(number), side, tcp(number, 1, 4001));
                facts.rtt = facts.rtt.filter(|_| measured);
                let actions = self.act(chance, |peers, cx| {
                    let _ = peers.connected(cx, &facts, true);
                });
                let stranger = self.peers.get(conn).is_some_and(|one| one.stranger);
                let wanted = number == 2 || !self.contacted && side == Side::Inbound;
                self.contacted |= side == Side::Outbound;
                promise(stranger == wanted, || format!("a stranger: {stranger}"))?;
                actions.1
            }
            Event::Disconnect(place) => {
                let Some(conn) = self.conns[place].take() else { return Ok(Vec::new()) };
                self.streams.retain(|_, on| *on != conn);
                self.act(chance, |peers, cx| {
                    let _ = peers.disconnected(cx, conn);
                })
                .1
            }
            Event::Identify(place, serves) => {
                let stream = self.ours(place, Protocol::Identify).ok_or("nobody asked")?;
                let (heard, actions) = self.hear(stream, &body(serves), chance);
                self.learnt(place, serves, heard)?;
                actions
            }
            Event::IdentifyEnds(place, end) => {
                let stream = self.ours(place, Protocol::Identify).ok_or("nobody asked")?;
                self.close(stream, end, chance)
            }
            Event::Echo(place, right) => {
                let stream = self.ours(place, Protocol::Ping).ok_or("nobody pinged")?;
                let echo = self.bodies.get(&stream).filter(|_| right).cloned();
                self.hear(stream, &echo.unwrap_or_else(|| vec![9; 32].into()), chance).1
            }
            Event::PingEnds(place) => {
                let stream = self.ours(place, Protocol::Ping).ok_or("nobody pinged")?;
                self.close(stream, StreamEnd::Reset, chance)
            }
            Event::Push(place, serves) => {
                self.pushes += 1;
                let stream = StreamId::inbound(Protocol::IdentifyPush, self.pushes);
                let conn = self.conns[place].ok_or("nobody is there")?;
                let mut all = self.act(chance, |peers, cx| {
                    let _ = peers.push_opened(cx, conn, stream);
                });
                let (heard, more) = self.hear(stream, &body(serves), chance);
                self.learnt(place, serves, heard)?;
                all.1.extend(more);
                all.1
            }
            Event::Pass(jump) => {
                self.stage.pass(self.peers.deadline(), jump);
                self.act(chance, |_, _| ()).1
            }
            Event::Sleep(seconds) => {
                let (slept, last) = (Duration::from_secs(seconds), self.stage.now);
                self.stage.now = last + slept;
                self.slept = true;
                self.act(chance, |peers, cx| {
                    peers.resumed(cx, Sleep::new(slept, last, cx.now), true);
                })
                .1
            }
        })
    }

    fn learnt(&mut self, place: usize, serves: Option<bool>, heard: Heard) -> Result<(), String> {
        let conn = self.conns[place].ok_or("nobody is there")?;
        match (serves, heard) {
            (None, Err(Oddity::MalformedFrame)) => Ok(()),
            (Some(serves), Ok(Some((on, learnt)))) => {
                let server = ProtocolSet::contains(learnt.protocols, Protocol::DialRequest);
                promise(on == conn && (server || !serves), || format!("learnt {learnt:?}"))
            }
            (_, heard) => Err(format!("{heard:?}")),
        }
    }

    fn heard(&mut self, action: &Action) -> Result<(), String> {
        match action {
            Action::OpenStream { conn, stream } => {
                promise(self.conns.contains(&Some(*conn)), || format!("{conn} is gone"))?;
                let same =
                    |(one, on): (&StreamId, &ConnId)| one.protocol == stream.protocol && on == conn;
                promise(!self.streams.iter().any(same), || format!("a second {stream} on {conn}"))?;
                self.streams.insert(*stream, *conn);
                self.one_ping()
            }
            Action::Send { stream, body } => {
                self.bodies.insert(*stream, body.clone());
                Ok(())
            }
            Action::ResetStream { stream } => {
                self.streams.remove(stream);
                Ok(())
            }
            Action::CloseStream { stream } if stream.protocol == Protocol::Ping => {
                self.streams.remove(stream);
                Ok(())
            }
            Action::Notify(Notice::NotIdentified { conn, .. }) => {
                promise(self.nameless.remove(conn), || format!("{conn} is given up twice"))
            }
            Action::CloseStream { .. }
            | Action::Dial(_)
            | Action::Disconnect { .. }
            | Action::Mapping(_)
            | Action::Relay(_)
            | Action::Punch(_)
            | Action::Notify(_) => Ok(()),
        }
    }

    /// A peer has one ping at a time, on whatever connection.
    fn one_ping(&self) -> Result<(), String> {
        let pinged = self.streams.iter().filter(|(stream, _)| stream.protocol == Protocol::Ping);
        let of = |conn: &ConnId| -> Option<PeerId> { self.peers.get(*conn).map(|one| one.peer) };
        let peers: Vec<_> = pinged.filter_map(|(_, conn)| of(conn)).collect();
        let distinct: BTreeSet<_> = peers.iter().collect();
        promise(distinct.len() == peers.len(), || "a peer is pinged twice at once".into())
    }

    fn promises(&self) -> Result<(), String> {
        lies_ahead(self.stage.now, self.peers.deadline())?;
        promise(self.peers.iter().count() == self.conns.iter().flatten().count(), || {
            "there are connections that are not".into()
        })?;
        for (conn, one) in self.peers.iter() {
            promise(!one.is_silent() || self.slept, || format!("{conn} is silent, awake"))?;
            let asked = self
                .streams
                .iter()
                .any(|(stream, on)| (*on, stream.protocol) == (conn, Protocol::Identify));
            promise(!one.is_asking() || asked, || format!("{conn} is asked on no stream"))?;
            // Whoever is worth a ping does not stay in doubt.
            let doubt = one.is_in_doubt() && !one.is_silent() && one.peer == peer(1);
            promise(!doubt || self.peers.deadline().is_some(), || "a doubt for good".into())?;
        }
        Ok(())
    }
}

impl World for Meeting {
    type Event = Event;

    fn events(&self) -> Vec<Event> {
        let mut all = Vec::new();
        for place in 0..PLACES.len() {
            if self.conns[place].is_none() {
                all.extend([true, false].map(|measured| Event::Connect(place, measured)));
                continue;
            }
            all.push(Event::Disconnect(place));
            all.extend([Some(true), None].map(|serves| Event::Push(place, serves)));
            if self.ours(place, Protocol::Identify).is_some() {
                let said = [Some(true), Some(false), None];
                all.extend(said.map(|serves| Event::Identify(place, serves)));
                let ends = [StreamEnd::Finished, StreamEnd::Reset];
                all.extend(ends.map(|end| Event::IdentifyEnds(place, end)));
            }
            if self.ours(place, Protocol::Ping).is_some() {
                all.extend([true, false].map(|right| Event::Echo(place, right)));
                all.push(Event::PingEnds(place));
            }
        }
        all.extend(Jump::all(&self.stage, self.peers.deadline()).into_iter().map(Event::Pass));
        if !self.slept {
            all.extend([5, 60].map(Event::Sleep));
        }
        all
    }

    fn step(&mut self, event: &Event, chance: Chance) -> Result<bool, String> {
        self.stage.drew = false;
        let actions = self.perform(*event, chance)?;
        if let Event::Identify(place, Some(_)) = *event {
            self.conns[place].map(|conn| self.nameless.remove(&conn));
        }
        for action in &actions {
            self.heard(action)?;
        }
        let live = self.conns;
        self.nameless.retain(|conn| live.contains(&Some(*conn)));
        self.bodies.retain(|stream, _| self.streams.contains_key(stream));
        self.promises()?;
        let mut idle = self.clone();
        let ((), actions) = idle.act(Chance::Lowest, |_, _| ());
        promise(actions.is_empty() && idle.peers == self.peers, || "an idle tick acts".into())?;
        Ok(self.stage.drew)
    }

    fn key(&self) -> Vec<u8> {
        canonical(self.stage.now, |out| {
            self.peers.save(out);
            for conn in self.conns {
                conn.save(out);
            }
            self.streams.save(out);
            self.nameless.save(out);
            (self.contacted, self.slept).save(out);
        })
    }
}

#[test]
fn three_connections_that_can_say_anything() {
    let bound = Bound { depth: depth(5, 7), floor: 10_000, complete: false };
    explore("peers", vec![Meeting::new()], bound);
}
