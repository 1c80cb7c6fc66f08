//! The promises, checked after every event of every node, from books of our own.

#![allow(clippy::wildcard_enum_match_arm, reason = "the books follow a few of many facts")]

use crate::world::{Node, NodeId, Vice};
use portolan_core::wire::autonat::Message;
use portolan_core::wire::multiaddr::{self, Decoded};
use portolan_core::{
    Action, Actions, Addr, ConnId, Duration, Event, Instant, Notice, PeerId, Protocol, Scope, Side,
    State, StreamId, Verdict, config,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// How much older than its proof's lifetime an entry may be: the handshake and the nonce took time
/// after the first packet was let in.
const ENTRY_SLACK: Duration = Duration::from_secs(60);
/// Bytes of dial data that a node pays in one window of ten minutes, and those of the window before.
const DATA_MAX: u64 = 2 * 800_000 + 100_000;
/// The window in which probes to one server are counted.
const MINUTE: Duration = Duration::from_secs(60);

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// When.
    pub at: Instant,
    /// By whom.
    pub node: NodeId,
    /// The promise.
    pub promise: &'static str,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {} s, node {}: {}: {}", self.at, self.node.0, self.promise, self.what)
    }
}

impl std::error::Error for Violation {}

/// One event, and what came of it.
#[derive(Debug)]
pub(crate) struct Step<'a> {
    pub(crate) node: NodeId,
    pub(crate) now: Instant,
    pub(crate) event: Told,
    pub(crate) actions: &'a [Action],
}

/// What of an event the books keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// Connections or the ground may have changed.
    Moved,
    Other,
}

/// The books about one node.
#[derive(Clone, Debug, Default)]
struct Book {
    nonces: BTreeSet<u64>,
    peers: BTreeMap<ConnId, PeerId>,
    /// Probes that run: their stream, their server and the address that is wanted.
    asked: BTreeMap<StreamId, (PeerId, Option<Addr>)>,
    /// When each server was asked in the last minute.
    recent: BTreeMap<PeerId, Vec<Instant>>,
    paid: Vec<(Instant, u64)>,
    told: BTreeSet<Addr>,
    /// Dials that are in flight for others.
    dials: usize,
    slept: Duration,
    states: BTreeMap<Addr, (State, Option<Scope>)>,
    /// When addresses were last proven by somebody who may have handed the nonce on.
    handed_on: BTreeMap<Addr, Instant>,
    flips: u64,
}

/// Whoever looks after the promises.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watch {
    books: Vec<Book>,
    violation: Option<Violation>,
    /// What the twin ordered in this step.
    pub(crate) copied: Option<Actions>,
    /// Servers that hand nonces on: what they prove may be another address.
    hands_on: BTreeSet<PeerId>,
}

impl Watch {
    pub(crate) fn add_node(&mut self) {
        self.books.push(Book::default());
    }

    pub(crate) fn take_violation(&mut self) -> Option<Violation> {
        self.violation.take()
    }

    /// A node slept: what it could not know while it did is no fault.
    pub(crate) fn slept(&mut self, NodeId(node): NodeId, span: Duration) {
        self.books[node].slept += span;
    }

    /// How often a node left *reachable* by a refutation.
    pub(crate) fn flips(&self, NodeId(node): NodeId) -> u64 {
        self.books[node].flips
    }

    /// A node is about to be told something.
    pub(crate) fn hears(&mut self, NodeId(node): NodeId, event: &Event) -> Told {
        match event {
            Event::Connected(facts) => {
                self.books[node].peers.insert(facts.conn, facts.peer);
                Told::Moved
            }
            Event::Disconnected { conn } => {
                self.books[node].peers.remove(conn);
                Told::Moved
            }
            Event::ListenerOpened { .. }
            | Event::ListenerClosed { .. }
            | Event::InterfacesChanged { .. } => Told::Moved,
            _ => Told::Other,
        }
    }

    pub(crate) fn fail(&mut self, step: &Step<'_>, promise: &'static str, what: String) {
        let violation = Violation { at: step.now, node: step.node, promise, what };
        self.violation.get_or_insert(violation);
    }

    /// A promise was broken outside of a node's steps.
    pub(crate) fn blame(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }

    /// A process starts again: it knows nothing of what it told before.
    pub(crate) fn reborn(&mut self, NodeId(node): NodeId) {
        let Book { nonces, flips, .. } = std::mem::take(&mut self.books[node]);
        self.books[node] = Book { nonces, flips, ..Book::default() };
    }

    /// Everything that can be seen after one event.
    pub(crate) fn check(&mut self, step: &Step<'_>, node: &Node) {
        let agent = node.agent();
        if let Some(deadline) = agent.deadline()
            && deadline.at <= step.now
        {
            self.fail(step, "the next wake-up lies ahead", format!("{deadline:?}"));
        }
        if let Some(copied) = self.copied.take()
            && copied.as_slice() != step.actions
        {
            self.fail(step, "equal inputs give equal orders", format!("{:?}", copied.as_slice()));
        }
        let mut judged = step.event == Told::Moved;
        for action in step.actions {
            judged |= self.ordered(step, action);
        }
        self.verdicts(step, node, judged);
    }

    /// Write an order into the books; whether verdicts may have changed.
    fn ordered(&mut self, step: &Step<'_>, action: &Action) -> bool {
        let NodeId(number) = step.node;
        match action {
            Action::OpenStream { conn, stream } if stream.protocol == Protocol::DialRequest => {
                self.asks(step, *conn, *stream);
                false
            }
            Action::Send { stream, body } if stream.protocol == Protocol::DialRequest => {
                if stream.side == Side::Outbound {
                    self.asked(step, *stream, body);
                }
                false
            }
            Action::Dial(dial) => {
                self.books[number].dials += 1;
                if portolan_core::ip_scope(dial.addr.ip) != portolan_core::IpScope::Global {
                    self.fail(step, "nobody's private host is dialled", format!("{dial:?}"));
                }
                false
            }
            Action::Notify(notice) => self.noticed(step, notice),
            _ => false,
        }
    }

    /// A probe begins: the limits that keep us polite.
    fn asks(&mut self, step: &Step<'_>, conn: ConnId, stream: StreamId) {
        let NodeId(number) = step.node;
        let now = step.now;
        let book = &mut self.books[number];
        let Some(peer) = book.peers.get(&conn).copied() else {
            return self.fail(
                step,
                "only who is connected is asked",
                format!("{stream} on {conn}"),
            );
        };
        book.asked.insert(stream, (peer, None));
        let recent = book.recent.entry(peer).or_default();
        recent.retain(|at| now.since(*at) < MINUTE);
        recent.push(now);
        let in_minute = recent.len();
        let flying = book.asked.len();
        let at_peer = book.asked.values().filter(|(of, _)| *of == peer).count();
        let over = flying > config::PROBES_MAX
            || at_peer > config::PROBES_PER_SERVER_MAX
            || in_minute > config::REQUESTS_PER_SERVER_MIN;
        if over {
            let what = format!("{flying} in flight, {at_peer} at {peer}, {in_minute} in a minute");
            self.fail(step, "probes have a budget", what);
        }
    }

    fn asked(&mut self, step: &Step<'_>, stream: StreamId, body: &bytes::Bytes) {
        let NodeId(number) = step.node;
        let now = step.now;
        match Message::decode(body) {
            Ok(Message::DialRequest { nonce, addrs }) => {
                let addr = addrs.first().and_then(|bytes| match multiaddr::decode(bytes) {
                    Ok(Decoded::Direct { addr, .. }) => Some(addr),
                    Ok(_) | Err(_) => None,
                });
                if let Some((_, wanted)) = self.books[number].asked.get_mut(&stream) {
                    *wanted = addr;
                }
                if !self.books[number].nonces.insert(nonce) {
                    self.fail(step, "nonces never repeat", format!("{nonce} on {stream}"));
                }
            }
            Ok(Message::DialDataResponse { data }) => {
                let book = &mut self.books[number];
                book.paid.retain(|(at, _)| now.since(*at) < Duration::from_secs(600));
                book.paid.push((now, u64::try_from(data.len()).unwrap_or(u64::MAX)));
                let sum: u64 = book.paid.iter().map(|(_, bytes)| bytes).sum();
                if sum > DATA_MAX {
                    self.fail(step, "dial data has a budget", format!("{sum} bytes paid"));
                }
            }
            Ok(_) => {}
            Err(error) => self.fail(step, "what is sent decodes", error.to_string()),
        }
    }

    fn noticed(&mut self, step: &Step<'_>, notice: &Notice) -> bool {
        let NodeId(number) = step.node;
        match notice {
            Notice::VerdictChanged { addr, state, scope, .. } => {
                let old = self.books[number].states.insert(*addr, (*state, *scope));
                let left = old.is_some_and(|(old, _)| old == State::Reachable);
                if left && *state == State::Unreachable {
                    self.books[number].flips += 1;
                }
                true
            }
            Notice::AdvertisedChanged { added, removed } => {
                let told = &mut self.books[number].told;
                let odd = removed.iter().any(|addr| !told.remove(addr))
                    || added.iter().any(|addr| !told.insert(*addr));
                if odd {
                    self.fail(step, "news of what is advertised is news", format!("{notice:?}"));
                }
                true
            }
            Notice::ProbeEnded { peer, addr, .. } => {
                let book = &mut self.books[number];
                let fits = |(stream, asked): (&StreamId, &(PeerId, Option<Addr>))| {
                    (*asked == (*peer, Some(*addr))).then_some(*stream)
                };
                if let Some(stream) = book.asked.iter().find_map(fits) {
                    book.asked.remove(&stream);
                }
                true
            }
            _ => false,
        }
    }

    /// Every verdict against the books and against what is true.
    fn verdicts(&mut self, step: &Step<'_>, node: &Node, judged: bool) {
        for (addr, verdict) in node.agent().reachability().addresses() {
            let Verdict::Reachable { proof, scope, until, .. } = verdict else { continue };
            if *until <= step.now {
                self.fail(step, "a proof is younger than its end", format!("{addr} until {until}"));
            }
            if judged {
                self.claim(step, node, (addr, *scope), proof.server());
            }
        }
        if judged {
            let NodeId(number) = step.node;
            let worth = |addr: &Addr| {
                let scope = node.agent().reachability().verdict(*addr).and_then(Verdict::scope);
                matches!(scope, Some(Scope::Anywhere | Scope::Contacted))
            };
            if let Some(addr) = self.books[number].told.iter().copied().find(|addr| !worth(addr)) {
                self.fail(step, "only what is proven is advertised", addr.to_string());
            }
        }
    }

    /// Somebody really came in on an address that is called reachable; and where it is called
    /// reachable from anywhere, a stranger to all could have.
    fn claim(&mut self, step: &Step<'_>, node: &Node, (addr, scope): (Addr, Scope), by: PeerId) {
        if self.may_hand_on(by) {
            // What no client can rule out: see `Truth`.
            let NodeId(number) = step.node;
            self.books[number].handed_on.insert(addr, step.now);
            return;
        }
        let young = |at: Instant| self.lasts(step.node, step.now, at);
        let entered = node.entered(addr);
        if !young(entered.last) || entered.last == Instant::ZERO {
            let what = format!("{addr} by {by}, entered {entered:?}");
            return self.fail(step, "reachable means that somebody came in", what);
        }
        let open =
            entered.open.is_some_and(young) || self.excuses(step.now, (step.node, node), addr);
        if scope == Scope::Anywhere && !open {
            let what = format!("{addr} by {by}, entered {entered:?}");
            self.fail(step, "anywhere means that strangers get in", what);
        }
    }
}

impl Watch {
    /// Whether a proof may still rest on what happened then.
    fn lasts(&self, NodeId(node): NodeId, now: Instant, at: Instant) -> bool {
        now.since(at) <= config::PROOF_LIFETIME + ENTRY_SLACK + self.books[node].slept
    }

    /// What no client can rule out: whether somebody got in on an address of a node lately whom a
    /// router knew though the node had not called him, or a nonce may have been handed on.
    pub(crate) fn excuses(&self, now: Instant, (id, node): (NodeId, &Node), addr: Addr) -> bool {
        let handed_on = self.books[id.0].handed_on.get(&addr).copied();
        let all = [node.entered(addr).excused, handed_on];
        all.into_iter().flatten().any(|at| self.lasts(id, now, at))
    }

    /// Whether a server may have handed a nonce on to another address.
    fn may_hand_on(&self, server: PeerId) -> bool {
        self.hands_on.contains(&server)
    }

    /// A server of this kind may do what no client can see.
    pub(crate) fn learn(&mut self, peer: PeerId, vice: Option<&Vice>) {
        if matches!(vice, Some(Vice::NonceElsewhere)) {
            self.hands_on.insert(peer);
        }
    }
}
