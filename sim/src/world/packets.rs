//! Packets leave, land, get lost and are sent again.

use super::conn::{self, Conn, End, EndId, Part, Phase, Purpose, Role, Said, Segment};
use super::node::first_ip;
use super::{Occurrence, World};
use crate::net::{ACKNOWLEDGEMENT_BYTES, Fate, HostId, Landing, Packet, PacketKind, Way};
use portolan_core::{Addr, DialFailure, Duration, Event, Family, Instant, PeerId, Transport};
use std::net::IpAddr;

impl World {
    /// Dial an address: from the listen port for the application, from a fresh one otherwise.
    pub(super) fn dial(
        &mut self,
        node: usize,
        to: Addr,
        purpose: Purpose,
        source: Option<IpAddr>,
        timeout: Duration,
    ) {
        let host = self.nodes[node].host;
        let ip = source.or_else(|| first_ip(self.fabric.ips(host), Family::of(to.ip)));
        let Some(ip) = ip.filter(|ip| self.fabric.ips(host).contains(ip)) else {
            return self.dial_failed(node, purpose, DialFailure::LocalFault);
        };
        let keeps_port =
            matches!(purpose, Purpose::Target(_) | Purpose::Relay(..) | Purpose::Call(_));
        let local = if keeps_port {
            let taken = self.is_taken(node, to);
            self.nodes[node].origin(ip, to, taken)
        } else {
            Addr::new(ip, self.nodes[node].fresh_port(), to.transport)
        };
        let own = keeps_port || purpose == Purpose::Stranger;
        let it = &self.nodes[node];
        let peer = if own { it.peer } else { it.dial_peer };
        let conn = self.begin(node, (local, to), peer, purpose);
        self.later(timeout, Occurrence::DialOver { conn });
        self.open_again(conn, 0);
        if own {
            // The runtime tells of every first packet, before anything can come of it.
            self.feed(node, Event::Contacted { ip: to.ip });
        }
    }

    /// Whether a socket of a node on TCP leads there already.
    pub(super) fn is_taken(&self, node: usize, to: Addr) -> bool {
        let leads_there = |end: &End| end.node == node && end.remote == to;
        let live = |conn: &Conn| {
            [Role::Dialer, Role::Listener].into_iter().any(|role| {
                let end = conn.end(role).filter(|end| end.phase != Phase::Gone);
                end.is_some_and(leads_there)
            })
        };
        to.transport == Transport::Tcp && self.conns.values().any(live)
    }

    /// A dial that has sent nothing yet.
    pub(super) fn begin(
        &mut self,
        node: usize,
        (local, to): (Addr, Addr),
        peer: PeerId,
        purpose: Purpose,
    ) -> u64 {
        let it = &mut self.nodes[node];
        it.first_dial_at.get_or_insert(self.now);
        let hands = 2 * it.costs.upgrade(to.transport) + 1;
        let mut dialer = End::new(self.now, node, (local, to), peer);
        dialer.purpose = Some(purpose);
        let conn = self.fresh();
        self.conns.insert(conn, Conn::new(self.now, dialer, hands));
        conn
    }

    /// Send a first packet, and look for its answer later.
    pub(super) fn open_again(&mut self, conn: u64, tries: u32) {
        let Some(it) = self.conns.get_mut(&conn) else { return };
        if let Some(met) = it.met {
            return self.accept_again(conn, met, tries);
        }
        if it.dialer.phase != Phase::Opening || it.tries != tries {
            return;
        }
        it.tries += 1;
        let (local, remote, node) = (it.dialer.local, it.dialer.remote, it.dialer.node);
        let punches = matches!(it.dialer.purpose, Some(Purpose::Punch(_)));
        self.nodes[node].called.insert(remote.ip);
        if punches {
            self.note_punched(node);
        }
        let packet = Packet::bare(local, remote, PacketKind::Open);
        self.send((conn, Role::Dialer), packet, Part::Open);
        let again = conn::OPEN_TIMEOUT * 2u32.saturating_pow(tries);
        self.later(again, Occurrence::OpenAgain { conn, tries: tries + 1 });
    }

    /// A dial has had its time.
    pub(super) fn dial_over(&mut self, conn: u64) {
        let Some(it) = self.conns.get_mut(&conn) else { return };
        let phase = it.dialer.phase;
        if let Some(listener) = &mut it.listener
            && phase == Phase::Gone
            && listener.phase == Phase::Shaking
        {
            // Whoever knocked is not there any more.
            listener.phase = Phase::Gone;
            return self.bury(conn);
        }
        if !matches!(phase, Phase::Opening | Phase::Shaking) {
            return;
        }
        let opened = phase == Phase::Shaking;
        let reason = if opened { DialFailure::Handshake } else { DialFailure::TimedOut };
        self.abandon(conn, reason);
    }

    /// A dial ends without a connection.
    pub(super) fn abandon(&mut self, conn: u64, reason: DialFailure) {
        let Some(it) = self.conns.get_mut(&conn) else { return };
        it.dialer.phase = Phase::Gone;
        let (node, purpose) = (it.dialer.node, it.dialer.purpose);
        // The other side hears of it by a reset, if it was there at all.
        let via = it.dialer.via;
        if let Some(via) = via {
            self.reset_carrier(via);
        } else if it.listener.as_ref().is_some_and(|end| end.phase != Phase::Gone) {
            let packet = Packet::bare(it.dialer.local, it.dialer.remote, PacketKind::Refuse);
            self.send((conn, Role::Dialer), packet, Part::Refuse);
        }
        if let Some(purpose) = purpose {
            self.dial_failed(node, purpose, reason);
        }
        self.bury(conn);
    }

    /// Forget a connection that is over on both sides.
    pub(super) fn bury(&mut self, conn: u64) {
        let mut next = Some(conn);
        while let Some(conn) = next {
            // A dial whose socket another connection has taken over goes along with that.
            let is_over = |it: &Conn| it.met.is_none_or(|met| !self.conns.contains_key(&met));
            if !self.conns.get(&conn).is_some_and(|it| it.is_over() && is_over(it)) {
                return;
            }
            next = self.conns.remove(&conn).and_then(|it| it.absorbed);
        }
    }

    pub(super) fn send(&mut self, (conn, from): EndId, packet: Packet, part: Part) {
        let Some(end) = self.end((conn, from)) else { return };
        let host = self.nodes[end.node].host;
        self.counts.packets += u64::from(packet.count);
        let way = self.fabric.send(self.now, host, packet, &mut self.dice);
        self.travel(way, (conn, from), part);
    }

    pub(super) fn travel(&mut self, way: Way, (conn, from): EndId, part: Part) {
        let sent_at = self.now;
        match way {
            Way::Arrives { after, landing, packet, copy } => {
                let lands = Occurrence::Lands { landing, packet, conn, from, part, sent_at };
                if let Some(copy) = copy {
                    self.later(copy, lands.clone());
                }
                self.later(after, lands);
            }
            Way::Lost => self.lost((conn, from), part, sent_at),
        }
    }

    /// A packet is gone. First packets have a timer already; a segment gets one now.
    fn lost(&mut self, end: EndId, part: Part, sent_at: Instant) {
        let Part::Segment(seq) = part else { return };
        let Some(it) = self.end(end) else { return };
        let Some(segment) = it.pending.get(&seq) else { return };
        let again = sent_at + conn::retry_after(it.rtt, segment.tries);
        self.at(again.max(self.now), Occurrence::SegmentAgain { end, seq });
    }

    /// A packet comes down.
    pub(super) fn lands(
        &mut self,
        landing: Landing,
        packet: Packet,
        (conn, from): EndId,
        part: Part,
        sent_at: Instant,
    ) {
        match self.fabric.land(self.now, landing, packet) {
            Fate::Delivered(host, packet) => {
                self.delivered(host, packet, (conn, from), part, sent_at)
            }
            Fate::Refused(router, refusal) => {
                self.lost((conn, from), part, sent_at);
                let way = self.fabric.send_from_router(self.now, router, refusal, &mut self.dice);
                self.travel(way, (conn, from.other()), Part::Refuse);
            }
            Fate::Lost => self.lost((conn, from), part, sent_at),
        }
    }

    fn delivered(
        &mut self,
        host: HostId,
        packet: Packet,
        (conn, from): EndId,
        part: Part,
        sent_at: Instant,
    ) {
        let awake = self.residents.get(&host).copied();
        let Some(node) = awake.filter(|node| self.nodes[*node].is_awake()) else {
            return self.lost((conn, from), part, sent_at);
        };
        let to = (conn, from.other());
        match part {
            Part::Open => self.knocked(node, packet, conn),
            Part::Accept => self.accepted(node, packet, conn),
            Part::Ack => self.acknowledged(node, packet, to),
            Part::Noise => {}
            Part::Refuse => self.refused(node, to),
            Part::Segment(seq) => {
                let known = self.end(to).filter(|end| {
                    // QUIC would find its connection by an id, but the runtime lets no path move.
                    let same = (end.remote, end.local) == (packet.src, packet.dst);
                    same && end.node == node && end.phase != Phase::Gone
                });
                if known.is_none() {
                    self.lost((conn, from), part, sent_at);
                    return self.turn_away(node, packet, (conn, from));
                }
                self.connects(to);
                self.arrived(to, seq);
            }
        }
    }

    /// Nobody knows the connection: TCP answers with a reset, QUIC with nothing that is believed.
    fn turn_away(&mut self, node: usize, packet: Packet, (conn, from): EndId) {
        if packet.src.transport == Transport::Tcp {
            let host = self.nodes[node].host;
            self.counts.packets += 1;
            let way = self.fabric.send(self.now, host, packet.refusal(), &mut self.dice);
            self.travel(way, (conn, from.other()), Part::Refuse);
        }
    }

    /// A first packet reached a host.
    fn knocked(&mut self, node: usize, packet: Packet, conn: u64) {
        let Some(it) = self.conns.get(&conn) else { return };
        if let Some(met) = it.met {
            return self.crossed(packet, (met, Role::Dialer));
        }
        if it.abandoned || it.dialer.phase == Phase::Gone || self.meets(node, packet, conn) {
            return;
        }
        let Some(it) = self.conns.get(&conn) else { return };
        if !self.nodes[node].listens_at(packet.dst) {
            return self.turn_away(node, packet, (conn, Role::Dialer));
        }
        let dialled = it.dialer.remote;
        let known = it.listener.as_ref().map(|end| (end.node, end.remote));
        if known.is_some_and(|known| known != (node, packet.src)) {
            // A copy that came by another way: the first one has the connection.
            return;
        }
        if known.is_none() {
            self.note_entry(node, dialled, packet.src);
            self.nodes[node].answered.insert(packet.src.ip);
            let peer = self.nodes[node].peer;
            let mut end = End::new(self.now, node, (packet.dst, packet.src), peer);
            end.phase = Phase::Shaking;
            if let Some(it) = self.conns.get_mut(&conn) {
                it.listener = Some(end);
            }
            self.takes_roles(conn);
        }
        let answer = Packet::bare(packet.dst, packet.src, PacketKind::Accept);
        self.send((conn, Role::Listener), answer, Part::Accept);
    }

    /// A first packet was answered.
    fn accepted(&mut self, node: usize, packet: Packet, conn: u64) {
        let now = self.now;
        let Some(it) = self.conns.get_mut(&conn) else { return };
        let fits = packet.src == it.dialer.remote || packet.src.transport == Transport::Quic;
        if it.met.is_some() || it.dialer.node != node || !fits {
            return;
        }
        let begins = it.client == Some(Role::Dialer);
        if it.dialer.phase != Phase::Opening {
            // What it said before may be lost.
            let answers = !begins && it.dialer.phase != Phase::Gone;
            return if answers {
                self.acknowledges((conn, Role::Dialer))
            };
        }
        let rtt = now.since(it.opened_at);
        it.dialer.phase = Phase::Shaking;
        it.dialer.heard_at = now;
        // A lost first packet says nothing about the way.
        it.dialer.rtt = if it.tries > 1 { conn::OPEN_TIMEOUT / 3 } else { rtt };
        let measured = it.dialer.rtt;
        if let Some(listener) = &mut it.listener {
            listener.rtt = measured;
        }
        self.shakes((conn, Role::Dialer));
        if begins {
            self.begins((conn, Role::Dialer));
        } else {
            self.acknowledges((conn, Role::Dialer));
        }
    }

    /// One side begins the handshakes.
    pub(super) fn begins(&mut self, end: EndId) {
        let stands = self.conns.get(&end.0).is_some_and(|it| it.hands == 1);
        self.say(end, Said::Hand(1));
        if stands {
            self.established(end);
        }
    }

    fn refused(&mut self, node: usize, end: EndId) {
        let Some(it) = self.end(end) else { return };
        // ICMP is no word of the peer: QUIC goes on.
        if it.node != node || it.local.transport == Transport::Quic {
            return;
        }
        match (it.phase, end.1) {
            (Phase::Opening | Phase::Shaking, Role::Dialer) => {
                let opened = it.phase == Phase::Shaking;
                let reason = if opened { DialFailure::Handshake } else { DialFailure::Refused };
                self.abandon(end.0, reason);
            }
            (Phase::Opening | Phase::Shaking, Role::Listener) => {
                let purpose = it.purpose;
                if let Some(it) = self.end_mut(end) {
                    it.phase = Phase::Gone;
                }
                if let Some(purpose @ Purpose::Punch(_)) = purpose {
                    let opened = self.conns.get(&end.0).is_some_and(|it| it.acked);
                    let reason = if opened { DialFailure::Handshake } else { DialFailure::Refused };
                    self.dial_failed(node, purpose, reason);
                }
                self.bury(end.0);
            }
            (Phase::Up | Phase::Leaving, _) => self.broken(end),
            (Phase::Gone, _) => {}
        }
    }

    /// Send what one side has said since it last did.
    pub(super) fn flush(&mut self, end: EndId) {
        let now = self.now;
        let Some(it) = self.end_mut(end) else { return };
        if it.outbox.is_empty() || it.phase == Phase::Gone {
            return;
        }
        let said = std::mem::take(&mut it.outbox);
        let bytes = said.iter().map(Said::bytes).sum();
        if let Some(via) = it.via {
            return self.carry(via, end, said, bytes);
        }
        let seq = it.next_out;
        it.next_out += 1;
        it.pending.insert(seq, Segment { said, bytes, first_sent: now, tries: 0 });
        let packet = Packet::carrying(it.local, it.remote, bytes);
        self.send(end, packet, Part::Segment(seq));
    }

    /// A segment was not acknowledged.
    pub(super) fn segment_again(&mut self, end: EndId, seq: u32) {
        let now = self.now;
        let Some(it) = self.end(end) else { return };
        if self.nodes[it.node].asleep_since.is_some() {
            return self.later(conn::OPEN_TIMEOUT, Occurrence::SegmentAgain { end, seq });
        }
        let Some(it) = self.end_mut(end).filter(|it| it.phase != Phase::Gone) else { return };
        let transport = it.local.transport;
        let Some(segment) = it.pending.get_mut(&seq) else { return };
        segment.tries += 1;
        let (bytes, waited) = (segment.bytes, now.since(segment.first_sent));
        let (local, remote) = (it.local, it.remote);
        if waited >= conn::patience(transport) {
            return self.broken(end);
        }
        let packet = Packet::carrying(local, remote, bytes);
        self.send(end, packet, Part::Segment(seq));
    }

    /// A segment arrived: it is acknowledged, and what it says is taken in order.
    fn arrived(&mut self, to: EndId, seq: u32) {
        let (conn, role) = to;
        let from = (conn, role.other());
        let delivered = self.end_mut(from).and_then(|end| end.pending.remove(&seq));
        let now = self.now;
        let Some(end) = self.end_mut(to) else { return };
        end.heard_at = now;
        let by = end.node;
        if let Some(segment) = delivered {
            end.early.insert(seq, segment.said);
            let other = self.end(from).map(|end| self.nodes[end.node].host);
            if let Some(other) = other {
                let by = self.nodes[by].host;
                self.fabric.count_acknowledgement(by, other, ACKNOWLEDGEMENT_BYTES);
            }
        }
        loop {
            let Some(end) = self.end_mut(to) else { return };
            let next = end.next_in;
            let Some(said) = end.early.remove(&next) else { break };
            end.next_in += 1;
            for one in said {
                self.hear(to, one);
            }
        }
        if let Some(sender) = self.end_mut(from)
            && sender.phase == Phase::Leaving
            && sender.pending.is_empty()
        {
            sender.phase = Phase::Gone;
            self.bury(conn);
        }
    }

    /// A QUIC connection that says nothing keeps itself alive, if the way is open; whether it did.
    pub(super) fn keeps_alive(&mut self, end: EndId) -> bool {
        let Some(it) = self.end(end) else { return true };
        let (conn, role) = end;
        let (local, remote, node) = (it.local, it.remote, it.node);
        let packet = Packet::carrying(local, remote, 30);
        let there = self.fabric.send(self.now, self.nodes[node].host, packet, &mut self.dice);
        let Some((other, seen)) = self.passes(there) else { return false };
        let Some(far) = self.end_mut((conn, role.other())) else { return false };
        let same = far.node == other && far.remote == seen.src;
        if !same || !matches!(far.phase, Phase::Up | Phase::Leaving) {
            return false;
        }
        let answer = Packet::carrying(far.local, far.remote, 30);
        let back = self.fabric.send(self.now, self.nodes[other].host, answer, &mut self.dice);
        let heard = self.passes(back).is_some_and(|(near, _)| near == node);
        let now = self.now;
        for role in [Role::Dialer, Role::Listener] {
            if let Some(end) = self.end_mut((conn, role)).filter(|_| heard) {
                end.heard_at = now;
            }
        }
        heard
    }

    /// Which node a packet reaches, and as what, if it does.
    fn passes(&mut self, way: Way) -> Option<(usize, Packet)> {
        let Way::Arrives { landing, packet, .. } = way else { return None };
        match self.fabric.land(self.now, landing, packet) {
            Fate::Delivered(host, packet) => {
                let node = *self.residents.get(&host)?;
                self.nodes[node].is_awake().then_some((node, packet))
            }
            Fate::Refused(..) | Fate::Lost => None,
        }
    }
}
