//! The world: a heap of what will happen, a network, and nodes that run the unchanged core.
//!
//! ```text
//!  heap ─► Lands ─► fabric ─► connection ─► Event ─► Agent ─► Actions ─► segments ─► fabric ─► heap
//!      └─► Wakes ─────────────────────────► Tick ──┘  └─► Watch: every promise, after every event
//! ```
//!
//! One seed decides everything that is drawn. Two things of one moment happen in the order in
//! which they were decided. Nothing here decides anything about reachability; what is true is told
//! by the network itself, see `Truth`.
//!
//! A good first change here: stateless retries of QUIC.

mod act;
mod app;
mod circuit;
mod conn;
mod faults;
mod lan;
mod node;
mod packets;
mod punch;
mod relay;
mod session;
mod talk;
mod truth;
mod vice;

pub use circuit::CallEnd;
pub use conn::Costs;
pub use node::{Entered, NODES_MAX, Node, NodeConfig, NodeId, WorldNames};
pub use relay::{Refusal, RelayMood};
pub use session::Line;
pub use truth::{Expected, STRANGER, Truth};
pub use vice::Vice;

use crate::dice::Dice;
use crate::net::{Fabric, HostId, Landing, Packet, RouterId};
use crate::watch::{Violation, Watch};
use conn::{Conn, EndId, Part};
use portolan_core::transcript::Scribe;
use portolan_core::{
    Actions, Addr, ConfigError, Duration, Event, Instant, Notice, PunchId, StreamId,
};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// Something that will happen.
#[derive(Clone, Debug)]
enum Occurrence {
    /// A packet comes down.
    Lands {
        landing: Landing,
        packet: Packet,
        conn: u64,
        from: conn::Role,
        part: Part,
        sent_at: Instant,
    },
    /// A first packet was not answered.
    OpenAgain { conn: u64, tries: u32 },
    /// A segment was not acknowledged.
    SegmentAgain { end: EndId, seq: u32 },
    /// A dial has had its time.
    DialOver { conn: u64 },
    /// A node wanted to be woken.
    Wakes { node: usize },
    /// A fact that core is told.
    Tells { node: usize, event: Event },
    /// A node looks after its idle connections.
    Sweeps { node: usize },
    /// The application of a node looks after its targets.
    Redials { node: usize, target: usize },
    /// A bad server dials.
    ScriptDials { node: usize, number: u64 },
    /// A plain stranger hangs up.
    HangsUp { end: EndId },
    /// Hands that are shaken over a stream have had their time.
    UpgradeOver { end: EndId, stream: StreamId },
    /// A dial that punches sends its next packet.
    PunchAgain { node: usize, punch: PunchId, serial: u64 },
    /// A dial that punches has had its time to connect.
    PunchOver { node: usize, punch: PunchId, serial: u64 },
    /// The handshakes of such a dial have had their time.
    HandsOver { end: EndId },
    /// A machine that was suspended runs again.
    Resumes { node: usize },
    /// Something happens in a network whose router maps ports.
    OnLan { router: RouterId, what: lan::Underway },
}

#[derive(Clone, Debug)]
struct Due {
    at: Instant,
    order: u64,
    what: Occurrence,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Due) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// What happened in how many steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Facts that cores were told.
    pub events: u64,
    /// Things that happened in the world.
    pub occurrences: u64,
    /// Packets that hosts sent.
    pub packets: u64,
}

impl Counts {
    /// Both together.
    pub fn add(&mut self, other: Counts) {
        self.events += other.events;
        self.occurrences += other.occurrences;
        self.packets += other.packets;
    }
}

/// What a node told its application, and when.
#[derive(Clone, Debug)]
pub struct Told {
    /// When.
    pub at: Instant,
    /// Which node.
    pub node: NodeId,
    /// What.
    pub notice: Notice,
}

/// Everything there is.
#[derive(Debug)]
pub struct World {
    /// The network.
    pub fabric: Fabric,
    now: Instant,
    dice: Dice,
    heap: BinaryHeap<Reverse<Due>>,
    order: u64,
    numbers: u64,
    nodes: Vec<Node>,
    /// Which node runs on a host.
    residents: BTreeMap<HostId, usize>,
    conns: BTreeMap<u64, Conn>,
    /// The connection that the application of a node has a stream on, where it has one.
    in_use: BTreeMap<usize, u64>,
    /// By the relay and the initiator's stream.
    bridges: BTreeMap<(usize, StreamId), circuit::Bridge>,
    /// Networks whose router maps ports.
    lans: BTreeMap<RouterId, lan::Lan>,
    /// Ends that have said something in this moment.
    unsent: Vec<EndId>,
    pub(crate) watch: Watch,
    counts: Counts,
    /// What nodes told, where somebody wants to know.
    told: Option<Vec<Told>>,
    transcript: Vec<String>,
    /// The sink of every agent, empty between steps.
    actions: Actions,
    twins: bool,
    /// Whether keys and signed records travel.
    signs: bool,
}

impl World {
    /// An empty world. With `twins`, every node has one that is told the same and must stay equal.
    pub fn new(seed: u64, twins: bool) -> World {
        World {
            fabric: Fabric::default(),
            now: Instant::ZERO,
            dice: Dice::new(seed),
            heap: BinaryHeap::new(),
            order: 0,
            numbers: 0,
            nodes: Vec::new(),
            residents: BTreeMap::new(),
            conns: BTreeMap::new(),
            in_use: BTreeMap::new(),
            bridges: BTreeMap::new(),
            lans: BTreeMap::new(),
            unsent: Vec::new(),
            watch: Watch::default(),
            counts: Counts::default(),
            told: None,
            transcript: Vec::new(),
            actions: Actions::new(),
            twins,
            signs: true,
        }
    }

    /// Leave keys and signed records out of what nodes say of themselves.
    pub fn leave_out_signatures(&mut self) {
        self.signs = false;
    }

    /// Put a node on a host. It does nothing until it is started.
    ///
    /// # Errors
    /// When its configuration is one that no core takes.
    ///
    /// # Panics
    /// When there are [`NODES_MAX`] already.
    pub fn add_node(&mut self, config: NodeConfig) -> Result<NodeId, ConfigError> {
        let number = self.nodes.len();
        assert!(number < NODES_MAX, "a world has at most {NODES_MAX} nodes");
        self.residents.insert(config.host, number);
        let draw = self.dice.fork();
        self.nodes.push(Node::new(number, config, draw, self.twins)?);
        self.watch.add_node();
        let it = &self.nodes[number];
        self.watch.learn(it.peer, it.vice.as_ref());
        Ok(NodeId(number))
    }

    /// A node starts: it reads its interfaces, and listens.
    pub fn start(&mut self, id: NodeId) {
        let NodeId(node) = id;
        if std::mem::replace(&mut self.nodes[node].running, true) {
            return;
        }
        self.remembers(node);
        let ips = self.fabric.ips(self.nodes[node].host).to_vec();
        self.feed(node, Event::InterfacesChanged { ips });
        self.joins(node);
        for addr in self.nodes[node].wanted.clone() {
            self.listen(id, addr);
        }
        self.sweep_later(node);
        for target in 0..self.nodes[node].targets.len() {
            self.later(Duration::ZERO, Occurrence::Redials { node, target });
        }
        self.flush_all();
    }

    /// The moment.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// A node.
    pub fn node(&self, NodeId(node): NodeId) -> &Node {
        &self.nodes[node]
    }

    /// Every node, in order.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().enumerate().map(|(number, node)| (NodeId(number), node))
    }

    /// How often a node left *reachable* by a refutation.
    pub fn flips(&self, id: NodeId) -> u64 {
        self.watch.flips(id)
    }

    /// What happened in how many steps.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Keep what nodes tell their applications from now on.
    pub fn keep_notices(&mut self) {
        self.told.get_or_insert_default();
    }

    /// What nodes told, where it was kept.
    pub fn notices(&self) -> &[Told] {
        self.told.as_deref().unwrap_or_default()
    }

    /// Write down all that a node is told and does, from now on.
    pub fn transcribe(&mut self, NodeId(node): NodeId) {
        let names = self.nodes.iter().flat_map(|one| {
            [(one.peer, one.name.clone()), (one.dial_peer, format!("{}'s-dialer", one.name))]
        });
        let names = WorldNames(names.collect());
        self.nodes[node].scribe = Some(Box::new(Scribe::new(names, Instant::ZERO)));
    }

    /// What was written down.
    pub fn transcript(&self) -> &[String] {
        &self.transcript
    }

    /// Write a line of the world's own between those of the nodes.
    pub fn remark(&mut self, text: &str) {
        if self.nodes.iter().any(|node| node.scribe.is_some()) {
            self.transcript.push(format!("{:>9} # {text}", self.now.to_string()));
        }
    }

    /// When the next thing happens.
    pub fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(due)| due.at)
    }

    /// Let things happen until a moment.
    ///
    /// # Errors
    /// The first promise that was broken.
    pub fn run_until(&mut self, until: Instant) -> Result<(), Violation> {
        while let Some(Reverse(due)) = self.heap.peek() {
            if due.at > until {
                break;
            }
            let Some(Reverse(Due { at, what, .. })) = self.heap.pop() else { break };
            self.now = self.now.max(at);
            self.counts.occurrences += 1;
            self.happen(what);
            self.flush_all();
            if let Some(violation) = self.watch.take_violation() {
                return Err(violation);
            }
        }
        self.now = self.now.max(until);
        Ok(())
    }

    fn happen(&mut self, what: Occurrence) {
        match what {
            Occurrence::Lands { landing, packet, conn, from, part, sent_at } => {
                self.lands(landing, packet, (conn, from), part, sent_at);
            }
            Occurrence::OpenAgain { conn, tries } => self.open_again(conn, tries),
            Occurrence::SegmentAgain { end, seq } => self.segment_again(end, seq),
            Occurrence::DialOver { conn } => self.dial_over(conn),
            Occurrence::Wakes { node } => self.wakes(node),
            Occurrence::Tells { node, event } => self.feed(node, event),
            Occurrence::Sweeps { node } => self.sweeps(node),
            Occurrence::Redials { node, target } => self.redials(node, target),
            Occurrence::ScriptDials { node, number } => self.script_dials(node, number),
            Occurrence::HangsUp { end } => self.close(end),
            Occurrence::UpgradeOver { end, stream } => self.upgrade_over(end, stream),
            Occurrence::PunchAgain { node, punch, serial } => {
                self.punch_again(node, punch, serial);
            }
            Occurrence::PunchOver { node, punch, serial } => self.punch_over(node, punch, serial),
            Occurrence::HandsOver { end } => self.hands_over(end),
            Occurrence::Resumes { node } => self.resumes(node),
            Occurrence::OnLan { router, what } => self.on_lan(router, what),
        }
    }

    /// Everything said in this moment leaves.
    fn flush_all(&mut self) {
        while let Some(end) = self.unsent.pop() {
            self.flush(end);
        }
    }

    fn later(&mut self, span: Duration, what: Occurrence) {
        self.at(self.now + span, what);
    }

    fn at(&mut self, at: Instant, what: Occurrence) {
        self.order += 1;
        self.heap.push(Reverse(Due { at, order: self.order, what }));
    }

    fn fresh(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn end(&self, (conn, role): EndId) -> Option<&conn::End> {
        self.conns.get(&conn)?.end(role)
    }

    fn end_mut(&mut self, (conn, role): EndId) -> Option<&mut conn::End> {
        self.conns.get_mut(&conn)?.end_mut(role)
    }

    /// Have the application of a node connect to a peer at this address, and stay connected.
    pub fn target(&mut self, NodeId(node): NodeId, addr: Addr, of: NodeId) {
        let peer = self.node(of).peer;
        let target = self.nodes[node].targets.len();
        self.nodes[node].targets.push(node::Target {
            addr,
            peer,
            conn: None,
            dialling: false,
            failures: 0,
        });
        if self.nodes[node].running {
            self.later(Duration::ZERO, Occurrence::Redials { node, target });
        }
    }
}
