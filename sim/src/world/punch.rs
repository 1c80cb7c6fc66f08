//! Hole punching: dials that go on though they are refused, SYNs that meet, and datagrams that only
//! open the sender's own NAT.
//!
//! ```text
//!  TCP:   SYN ─► refused ─► a pause ─► SYN …          it meets a SYN of the other side: both are connected
//!             └► the other side's listener: as any dial
//!  QUIC:  the client's Initials, as in any dial; the server's datagrams, until a connection comes in
//! ```
//!
//! Each SYN after a refusal is a socket of its own, and a connection of the world's. Where the SYN
//! of one meets a socket of the other that has sent one, the first one's connection takes over the
//! second one's socket as its listener (RFC 9293 §3.5, figure 7), whatever their roles above are.

use super::conn::{self, Conn, End, EndId, Part, Phase, Purpose, Role};
use super::node::first_ip;
use super::{Occurrence, World};
use crate::net::{Packet, PacketKind};
use portolan_core::{
    Addr, DialFailure, Duration, Event, Family, Instant, PeerId, PunchAction, PunchEvent, PunchId,
    PunchWay, Transport,
};

/// The least time between two SYNs of a dial that is refused: the runtime's value.
const SYN_EVERY: Duration = Duration::from_millis(20);
/// The least time between two tries of a dial to which a port was predicted: the runtime's value.
const PREDICTED_EVERY: Duration = Duration::from_millis(200);
/// The pauses between datagrams (DCUtR §The Protocol: 10 to 200 ms, drawn evenly).
const NOISE_EVERY: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(200)];
/// Bytes of such a datagram: the runtime's value.
const NOISE_BYTES: usize = 64;
/// How long the handshakes may take: the runtime's value.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// A dial that punches.
#[derive(Clone, Debug)]
pub(super) struct Punch {
    pub(super) peer: PeerId,
    addr: Addr,
    way: PunchWay,
    /// Tells it from one of an earlier process that had its id.
    serial: u64,
    until: Instant,
    sent_at: Instant,
    /// The port that it leaves from, where it is not the listener's.
    port: Option<u16>,
    /// The connection that it is, or tries to be.
    conn: Option<u64>,
}

impl World {
    /// What core orders.
    pub(super) fn punches(&mut self, node: usize, action: PunchAction) {
        match action {
            PunchAction::Dial { punch, peer, addr, way, timeout } => {
                let serial = self.fresh();
                let (until, sent_at) = (self.now + timeout, Instant::ZERO);
                let own = matches!(way, PunchWay::Sample | PunchWay::Predicted);
                let port = own.then(|| self.nodes[node].fresh_port());
                let fresh = Punch { peer, addr, way, serial, until, sent_at, port, conn: None };
                self.nodes[node].punches.insert(punch, fresh);
                self.later(timeout, Occurrence::PunchOver { node, punch, serial });
                self.punch_again(node, punch, serial);
            }
            PunchAction::Cancel { punch } => self.punch_cancelled(node, punch),
            PunchAction::CallAgain { peer, relay, addr } => {
                self.calls(node, (relay, addr), peer);
            }
            // An order that this world does not know is a gap in the world.
            other => unreachable!("{other:?}"),
        }
    }

    /// Send the next SYN, the first Initial, or the next datagram.
    pub(super) fn punch_again(&mut self, node: usize, punch: PunchId, serial: u64) {
        let known = self.nodes[node].punches.get(&punch).filter(|one| one.serial == serial);
        let Some(Punch { addr, way, conn, until, port: own, .. }) = known.cloned() else { return };
        if conn.is_some() || self.now >= until {
            return;
        }
        let again = Occurrence::PunchAgain { node, punch, serial };
        let host = self.nodes[node].host;
        let ip = first_ip(self.fabric.ips(host), Family::of(addr.ip));
        let taken = own.is_none() && self.is_taken(node, addr);
        if taken && way != PunchWay::Plain {
            self.adopts(node, punch);
            // The socket that leads there may be the other side's, or of an attempt that is ending.
            return self.later(SYN_EVERY, again);
        }
        let port = own.or_else(|| self.nodes[node].port_of(addr.class()));
        let (Some(ip), Some(port)) = (ip, port) else {
            return self.punch_failed(node, punch, DialFailure::LocalFault);
        };
        let it = &mut self.nodes[node];
        let port = if taken { it.fresh_port() } else { port };
        let local = Addr::new(ip, port, addr.transport);
        if way == PunchWay::Open {
            self.send_alone(node, local, addr);
            return self.punch_failed(node, punch, DialFailure::TimedOut);
        }
        if (addr.transport, way) == (Transport::Quic, PunchWay::Server) {
            self.send_alone(node, local, addr);
            let [low, high] = NOISE_EVERY;
            let pause = self.dice.span_between(low, high);
            return self.later(pause, again);
        }
        let peer = it.peer;
        let conn = self.begin(node, (local, addr), peer, Purpose::Punch(punch));
        if let Some(it) = self.nodes[node].punches.get_mut(&punch) {
            it.conn = Some(conn);
            it.sent_at = self.now;
        }
        self.open_again(conn, 0);
    }

    /// A packet that only opens our own NAT: a SYN of which nothing comes, or a datagram.
    fn send_alone(&mut self, node: usize, local: Addr, addr: Addr) {
        self.nodes[node].called.insert(addr.ip);
        self.note_punched(node);
        let host = self.nodes[node].host;
        let packet = match addr.transport {
            Transport::Tcp => Packet::bare(local, addr, PacketKind::Open),
            Transport::Quic => Packet::carrying(local, addr, NOISE_BYTES),
        };
        self.counts.packets += 1;
        let way = self.fabric.send(self.now, host, packet, &mut self.dice);
        // No connection has this number.
        self.travel(way, (0, Role::Dialer), Part::Noise);
    }

    /// A first packet or a datagram leaves.
    pub(super) fn note_punched(&mut self, node: usize) {
        let minute = self.now.since(Instant::ZERO).as_secs() / 60;
        *self.nodes[node].punched.entry(minute).or_default() += 1;
    }

    /// A dial came to nothing, or this SYN of it did.
    pub(super) fn punch_failed(&mut self, node: usize, punch: PunchId, reason: DialFailure) {
        let Some(it) = self.nodes[node].punches.get_mut(&punch) else { return };
        let (now, serial) = (self.now, it.serial);
        let every = match it.way {
            PunchWay::Client | PunchWay::Server => Some(SYN_EVERY),
            PunchWay::Predicted => Some(PREDICTED_EVERY),
            PunchWay::Plain | PunchWay::Open | PunchWay::Sample => None,
        };
        if let Some(every) = every
            && reason == DialFailure::Refused
            && now < it.until
        {
            it.conn = None;
            let at = now.max(it.sent_at + every);
            return self.at(at, Occurrence::PunchAgain { node, punch, serial });
        }
        self.nodes[node].punches.remove(&punch);
        let event = Event::Punch(PunchEvent::Failed { punch, reason });
        self.later(Duration::ZERO, Occurrence::Tells { node, event });
    }

    /// A dial has had its time to connect; its handshakes have a time of their own.
    pub(super) fn punch_over(&mut self, node: usize, punch: PunchId, serial: u64) {
        let known = self.nodes[node].punches.get(&punch);
        if known.is_none_or(|one| one.serial != serial) {
            return;
        }
        let end = self.end_of(node, punch);
        if end.is_none_or(|end| !self.is_connected(end)) {
            self.vanishes(end);
            self.punch_failed(node, punch, DialFailure::TimedOut);
        }
    }

    /// Nothing more is sent for a dial. Whoever is the server, and connected, leaves the choice to
    /// the client.
    fn punch_cancelled(&mut self, node: usize, punch: PunchId) {
        let end = self.end_of(node, punch);
        let Some(known) = self.nodes[node].punches.remove(&punch) else { return };
        let Some(end) = end.filter(|end| self.is_connected(*end)) else {
            return self.vanishes(end);
        };
        if let Some(it) = self.end_mut(end) {
            it.purpose = None;
        }
        if known.way != PunchWay::Server {
            self.hangs_up_shaking(end);
        }
    }

    /// Whether TCP has connected, or QUIC has had an answer.
    fn is_connected(&self, (conn, role): EndId) -> bool {
        self.conns.get(&conn).is_some_and(|it| match role {
            Role::Dialer => it.dialer.phase != Phase::Opening,
            Role::Listener => it.acked,
        })
    }

    /// A socket that has connected to nobody is closed without a word.
    fn vanishes(&mut self, end: Option<EndId>) {
        let Some(end) = end else { return };
        if let Some(it) = self.end_mut(end) {
            it.phase = Phase::Gone;
            it.purpose = None;
        }
        self.bury(end.0);
    }

    /// Which end a dial is.
    fn end_of(&self, node: usize, punch: PunchId) -> Option<EndId> {
        let conn = self.nodes[node].punches.get(&punch)?.conn?;
        let it = self.conns.get(&conn)?;
        let is_ours = |end: &End| end.node == node && end.purpose == Some(Purpose::Punch(punch));
        let roles = [Role::Dialer, Role::Listener].into_iter();
        roles.map(|role| (conn, role)).find(|(_, role)| it.end(*role).is_some_and(is_ours))
    }

    /// A client drops what it has not finished.
    fn hangs_up_shaking(&mut self, end: EndId) {
        let Some(it) = self.end_mut(end).filter(|it| it.phase == Phase::Shaking) else { return };
        it.phase = Phase::Gone;
        let packet = Packet::bare(it.local, it.remote, PacketKind::Refuse);
        self.send(end, packet, Part::Refuse);
        self.bury(end.0);
    }

    /// Hands are shaken from now on, on a connection that somebody punched for.
    pub(super) fn shakes(&mut self, end: EndId) {
        let punched = |end: &End| matches!(end.purpose, Some(Purpose::Punch(_)));
        let known = self.conns.get(&end.0);
        let ends = known.map(|it| [Some(&it.dialer), it.listener.as_ref()]);
        if ends.is_some_and(|ends| ends.into_iter().flatten().any(punched)) {
            self.later(HANDSHAKE_MAX, Occurrence::HandsOver { end });
        }
    }

    /// The handshakes have had their time.
    pub(super) fn hands_over(&mut self, end: EndId) {
        if self.end(end).is_some_and(|it| it.phase == Phase::Shaking) {
            self.broken(end);
        }
    }

    /// A SYN came to a socket of the node that has sent one to where it came from: both are
    /// connected. Whether it did, or came to where it is not taken.
    pub(super) fn meets(&mut self, node: usize, packet: Packet, conn: u64) -> bool {
        let Some(theirs) = self.conns.get(&conn) else { return false };
        let punched = matches!(theirs.dialer.purpose, Some(Purpose::Punch(_)));
        let any = punched || !self.nodes[node].punches.is_empty();
        if packet.dst.transport != Transport::Tcp || !any || theirs.listener.is_some() {
            return false;
        }
        let there = |end: &End| {
            let leads = (end.local, end.remote) == (packet.dst, packet.src);
            end.node == node && leads && end.phase != Phase::Gone
        };
        let found = self.conns.iter().find_map(|(number, it)| {
            let roles = [Role::Dialer, Role::Listener].into_iter();
            let mut roles = roles.filter(|role| it.end(*role).is_some_and(there));
            roles.next().filter(|_| *number != conn).map(|role| (*number, role))
        });
        let Some(ours) = found else { return false };
        if self.end(ours).is_some_and(|end| end.phase == Phase::Opening) {
            self.takes_over(conn, ours.0);
        } else {
            // RFC 9293 §3.10.7.4: it is told what the socket has; a sender that knows nothing of it
            // resets it, and its next SYN gets through.
            self.broken(ours);
        }
        true
    }

    /// The socket of one dial becomes the listener of another connection.
    fn takes_over(&mut self, conn: u64, ours: u64) {
        let Some(old) = self.conns.get_mut(&ours) else { return };
        old.met = Some(conn);
        let mut end = old.dialer.clone();
        old.dialer.phase = Phase::Gone;
        old.dialer.purpose = None;
        if let Some(half_open) = &mut old.listener {
            half_open.phase = Phase::Gone;
        }
        end.phase = Phase::Shaking;
        let (node, purpose) = (end.node, end.purpose);
        if let Some(Purpose::Punch(punch)) = purpose
            && let Some(it) = self.nodes[node].punches.get_mut(&punch)
        {
            it.conn = Some(conn);
        }
        let Some(it) = self.conns.get_mut(&conn) else { return };
        it.absorbed = Some(ours);
        it.listener = Some(end);
        self.takes_roles(conn);
        self.accepts(conn);
    }

    /// Who is the client, once there are two: the dialer of an ordinary connection; where somebody
    /// punches, whoever wants to be.
    pub(super) fn takes_roles(&mut self, conn: u64) {
        let Some(it) = self.conns.get(&conn) else { return };
        let Some(listener) = &it.listener else { return };
        if listener.local.transport == Transport::Tcp {
            let (dials, other) = (self.begins_hands(&it.dialer), self.begins_hands(listener));
            let client = match (dials, other) {
                (true, false) => Some(Role::Dialer),
                (false, true) => Some(Role::Listener),
                (true, true) | (false, false) => None,
            };
            if let Some(it) = self.conns.get_mut(&conn) {
                it.client = client;
            }
        }
        self.shakes((conn, Role::Listener));
    }

    /// Whether an end wants to be the client. One that was accepted does where the node punches as
    /// the client towards where it came from.
    fn begins_hands(&self, end: &End) -> bool {
        let punches = &self.nodes[end.node].punches;
        match end.purpose {
            Some(Purpose::Punch(punch)) => {
                punches.get(&punch).is_none_or(|one| one.way != PunchWay::Server)
            }
            Some(_) => true,
            None => {
                punches.values().any(|one| one.addr == end.remote && one.way == PunchWay::Client)
            }
        }
    }

    /// A SYN came to a socket that another connection has taken over.
    pub(super) fn crossed(&mut self, packet: Packet, end: EndId) {
        let here = |it: &End| (it.local, it.remote) == (packet.dst, packet.src);
        if self.end(end).is_some_and(|it| here(it) && it.phase != Phase::Gone) {
            self.acknowledges(end);
        }
    }

    /// A client finds that the listener has accepted the other side's connection already, on which
    /// both wait for the other to begin.
    fn adopts(&mut self, node: usize, punch: PunchId) {
        let Some(known) = self.nodes[node].punches.get(&punch) else { return };
        let (addr, is_client) = (known.addr, known.way == PunchWay::Client);
        let waits = |it: &Conn| {
            let accepted = it.listener.as_ref().filter(|end| end.phase == Phase::Shaking);
            let fits = |end: &End| end.node == node && end.remote == addr && end.purpose.is_none();
            it.client.is_none() && accepted.is_some_and(fits)
        };
        let found = self.conns.iter_mut().find(|(_, it)| waits(it)).filter(|_| is_client);
        let Some((conn, it)) = found else { return };
        it.client = Some(Role::Listener);
        if it.acked {
            let end = (*conn, Role::Listener);
            self.begins(end);
        }
    }

    /// The other side hears that its SYN came.
    fn accepts(&mut self, conn: u64) {
        let end = (conn, Role::Listener);
        let Some(it) = self.end(end) else { return };
        let packet = Packet::bare(it.local, it.remote, PacketKind::Accept);
        self.send(end, packet, Part::Accept);
    }

    /// A socket whose SYN met another one was not answered: the kernel answers again.
    pub(super) fn accept_again(&mut self, conn: u64, met: u64, tries: u32) {
        let waits = self.conns.get(&met).is_some_and(|it| {
            let shaking = |end: &End| end.phase == Phase::Shaking;
            it.dialer.phase == Phase::Opening && it.listener.as_ref().is_some_and(shaking)
        });
        let Some(it) = self.conns.get_mut(&conn).filter(|it| waits && it.tries == tries) else {
            return;
        };
        it.tries += 1;
        let again = conn::OPEN_TIMEOUT * 2u32.saturating_pow(tries);
        self.later(again, Occurrence::OpenAgain { conn, tries: tries + 1 });
        self.accepts(met);
    }

    /// Something was said to a dialer whose SYN met another one, and who has not heard that it did.
    pub(super) fn connects(&mut self, end: EndId) {
        let met = self.conns.get(&end.0).is_some_and(|it| it.client == Some(Role::Listener));
        let opening = |it: &&mut End| it.phase == Phase::Opening;
        if let Some(it) = self.end_mut(end).filter(opening).filter(|_| met) {
            it.phase = Phase::Shaking;
            self.shakes(end);
        }
    }

    pub(super) fn acknowledges(&mut self, end: EndId) {
        let Some(it) = self.end(end) else { return };
        let packet = Packet::bare(it.local, it.remote, PacketKind::Data);
        self.send(end, packet, Part::Ack);
    }

    /// The listener's side of TCP stands.
    pub(super) fn acknowledged(&mut self, node: usize, packet: Packet, end: EndId) {
        let here = |it: &End| (it.local, it.remote) == (packet.dst, packet.src) && it.node == node;
        let fits = self.end(end).is_some_and(|it| here(it) && it.phase == Phase::Shaking);
        let now = self.now;
        let absorbed = self.conns.get(&end.0).and_then(|it| it.absorbed);
        let sent_at = absorbed.and_then(|ours| self.conns.get(&ours)).map(|ours| ours.opened_at);
        let Some(it) = self.conns.get_mut(&end.0).filter(|_| fits) else { return };
        let first = !std::mem::replace(&mut it.acked, true);
        if let (true, Some(listener)) = (first, &mut it.listener) {
            listener.rtt = now.since(sent_at.unwrap_or(it.opened_at));
        }
        if first && it.client == Some(Role::Listener) {
            self.begins(end);
        }
    }
}
