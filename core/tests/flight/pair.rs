//! Two agents that talk to each other in memory, each under a recorder.
//!
//! Frames arrive 10 ms after they were sent, and connections stand as soon as they are dialled.

use crate::values::key;
use libp2p_identity::Keypair;
use portolan_core::flight::Recorder;
use portolan_core::{
    Action, Actions, Addr, Agent, Config, ConnId, Connected, Cx, Deadline, Dial, Draw, Duration,
    Event, Instant, ListenerId, Side, Signer, StreamEnd, StreamId, UnixTime,
};
use std::collections::{BTreeMap, VecDeque};

/// How long a frame is on its way.
const LATENCY: Duration = Duration::from_millis(10);

/// Numbers out of a seed, and the nonces among them.
#[derive(Clone, Debug)]
pub(crate) struct Chance {
    state: u64,
    pub(crate) nonces: Vec<u64>,
}

impl Chance {
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Draw for Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.next().checked_rem(n).unwrap_or(0)
    }

    fn nonce(&mut self) -> u64 {
        let nonce = self.next();
        self.nonces.push(nonce);
        nonce
    }
}

pub(crate) struct Hand<'a>(pub(crate) &'a Keypair);

impl Signer for Hand<'_> {
    fn sign(&mut self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).expect("ed25519 signs anything")
    }
}

/// One agent and its record.
pub(crate) struct Node {
    pub(crate) agent: Agent,
    pub(crate) record: Vec<u8>,
    pub(crate) chance: Chance,
    /// What came out of each step.
    pub(crate) orders: Vec<Vec<Action>>,
    pub(crate) deadlines: Vec<Option<Deadline>>,
    /// What the record would go on with in a part of its own, after each step.
    pub(crate) parts: Vec<Vec<u8>>,
    recorder: Recorder,
    key: Keypair,
    actions: Actions,
    /// Each connection's other end, and each stream's.
    conns: BTreeMap<ConnId, ConnId>,
    streams: BTreeMap<StreamId, StreamId>,
}

/// Two nodes, and what is on its way between them.
pub(crate) struct Pair {
    pub(crate) nodes: [Node; 2],
    pub(crate) now: Instant,
    under_way: VecDeque<(Instant, usize, Event)>,
    ids: u64,
}

impl Pair {
    pub(crate) fn new(configs: [Config; 2], seed: u64) -> Pair {
        let now = Instant::from_millis(5_000);
        let mut number = 0u8;
        let nodes = configs.map(|config| {
            number += 1;
            let key = key(number);
            let agent = Agent::new(config, key.public()).expect("a plain configuration");
            let mut recorder = Recorder::new([number; 16]);
            let mut record = Vec::new();
            recorder.begin(&agent, 0, now, unix(now), &mut record);
            Node {
                agent,
                record,
                chance: Chance { state: seed + u64::from(number), nonces: Vec::new() },
                orders: Vec::new(),
                deadlines: Vec::new(),
                parts: Vec::new(),
                recorder,
                key,
                actions: Actions::new(),
                conns: BTreeMap::new(),
                streams: BTreeMap::new(),
            }
        });
        Pair { nodes, now, under_way: VecDeque::new(), ids: 0 }
    }

    pub(crate) fn listen(&mut self, node: usize, addr: Addr) {
        let listener = ListenerId(self.fresh());
        self.feed(node, Event::ListenerOpened { listener, addr });
    }

    /// Node 0 or 1 connects to the other one. Returns the dialler's name for it.
    pub(crate) fn connect(&mut self, from: usize, local: Addr, remote: Addr) -> ConnId {
        self.connected(from, local, remote, None)
    }

    fn connected(&mut self, from: usize, local: Addr, remote: Addr, dial: Option<Dial>) -> ConnId {
        let to = 1 - from;
        let (ours, theirs) = (ConnId(self.fresh()), ConnId(self.fresh()));
        self.nodes[from].conns.insert(ours, theirs);
        self.nodes[to].conns.insert(theirs, ours);
        let rtt = Some(LATENCY * 2);
        let dialler = self.nodes[from].agent.peer_id();
        // A dial-back runs under an identity of its own.
        let seen = if dial.is_some() { key(9).public().to_peer_id() } else { dialler };
        let here = Connected {
            conn: ours,
            peer: self.nodes[to].agent.peer_id(),
            side: Side::Outbound,
            local,
            remote,
            relayed: false,
            dial: dial.map(|dial| dial.dial),
            rtt,
        };
        let (conn, side) = (theirs, Side::Inbound);
        let there =
            Connected { conn, peer: seen, side, local: remote, remote: local, dial: None, ..here };
        self.feed(from, Event::Connected(here));
        self.feed(to, Event::Connected(there));
        ours
    }

    /// Let time pass: what is under way arrives, and what is due fires.
    pub(crate) fn pass(&mut self, span: Duration) {
        let until = self.now + span;
        loop {
            let arrival = self.under_way.front().map(|(at, node, _)| (*at, *node, false));
            let due = (0..2).filter_map(|node| {
                let deadline = self.nodes[node].agent.deadline()?;
                Some((deadline.at, node, true))
            });
            let next = arrival.into_iter().chain(due).min_by_key(|(at, _, due)| (*at, *due));
            let Some((at, node, due)) = next.filter(|(at, ..)| *at <= until) else { break };
            self.now = self.now.max(at);
            if due {
                self.feed(node, Event::Tick);
            } else if let Some((_, node, event)) = self.under_way.pop_front() {
                self.feed(node, event);
            }
        }
        self.now = until;
    }

    pub(crate) fn feed(&mut self, at: usize, event: Event) {
        let node = &mut self.nodes[at];
        if let Event::Disconnected { conn } = &event {
            node.conns.remove(conn);
        }
        let mut cx = Cx {
            now: self.now,
            unix: unix(self.now),
            draw: &mut node.chance,
            sign: &mut Hand(&node.key),
            actions: &mut node.actions,
        };
        node.recorder.handle(&mut node.agent, &mut cx, event, &mut node.record);
        let orders: Vec<Action> = node.actions.drain().collect();
        node.deadlines.push(node.agent.deadline());
        let (mut part, mut recorder) = (Vec::new(), node.recorder.clone());
        recorder.begin(&node.agent, 1, self.now, unix(self.now), &mut part);
        node.parts.push(part);
        node.orders.push(orders.clone());
        orders.into_iter().for_each(|order| self.perform(at, order));
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "core's enum may grow")]
    fn perform(&mut self, at: usize, order: Action) {
        let to = 1 - at;
        match order {
            Action::OpenStream { conn, stream } => {
                let Some(there) = self.nodes[at].conns.get(&conn).copied() else { return };
                let twin = StreamId::inbound(stream.protocol, self.fresh());
                self.nodes[at].streams.insert(stream, twin);
                self.nodes[to].streams.insert(twin, stream);
                self.send(to, Event::StreamOpened { conn: there, stream: twin });
                self.send(at, Event::StreamOpened { conn, stream });
            }
            Action::Send { stream, body } => {
                if let Some(stream) = self.nodes[at].streams.get(&stream).copied() {
                    self.send(to, Event::Frame { stream, body });
                }
            }
            Action::CloseStream { stream } | Action::ResetStream { stream } => {
                let end = match order {
                    Action::ResetStream { .. } => StreamEnd::Reset,
                    _ => StreamEnd::Finished,
                };
                if let Some(stream) = self.nodes[at].streams.get(&stream).copied() {
                    self.send(to, Event::StreamClosed { stream, end });
                }
            }
            Action::Dial(dial) => {
                let local = Addr { port: 50_000, ..dial.addr };
                self.connected(at, local, dial.addr, Some(dial));
            }
            Action::Disconnect { conn } => {
                if let Some(there) = self.nodes[at].conns.get(&conn).copied() {
                    self.send(to, Event::Disconnected { conn: there });
                    self.send(at, Event::Disconnected { conn });
                }
            }
            Action::Notify(_) => {}
            other => panic!("{other:?} is not performed here"),
        }
    }

    fn send(&mut self, to: usize, event: Event) {
        self.under_way.push_back((self.now + LATENCY, to, event));
    }

    fn fresh(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }
}

/// A wall clock that is a little slower than the other one.
fn unix(now: Instant) -> UnixTime {
    let millis = now.as_nanos() / 1_000_000;
    UnixTime::from_millis(1_700_000_000_000 + millis - millis / 7_000)
}
