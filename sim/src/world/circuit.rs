//! Circuits: streams that become connections, bridges between streams, and the calls of
//! applications that want them.
//!
//! ```text
//!  call ─► (the relay is dialled) ─► CircuitWanted ─► Upgrade ─► hands are shaken ─► Connected
//!  an end of a circuit ─► Carry, on the stream that carries it ─► bridge ─► Carry ─► the other end
//! ```
//!
//! A circuit is a connection like others, but for its packets: what one of its ends says in one
//! moment goes along with what the connection to the relay says. So it can neither be lost nor come
//! out of order, and stands and falls with the streams below.

use super::conn::{Conn, End, EndId, Key, Phase, Purpose, Role, Said, Via, Voice};
use super::{NodeId, Occurrence, World};
use portolan_core::{
    Addr, BridgeEnd, CircuitFailure, CircuitId, ConnId, DialFailure, Duration, Event, PeerId,
    RelayEvent, Side, StreamEnd as Ended, StreamId,
};

/// How long hands may be shaken over a stream: the runtime's value.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// How long the application waits for the connection to a relay: the runtime's value.
const REACH_MAX: Duration = Duration::from_secs(15);

/// What an application wants of a relay.
#[derive(Clone, Debug)]
pub(super) struct Call {
    relay: PeerId,
    peer: PeerId,
    end: Option<CallEnd>,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallEnd {
    /// There is a connection to the peer.
    Connected(ConnId),
    /// Core says that the circuit cannot be had.
    Failed(CircuitFailure),
    /// The relay could not be dialled.
    NoRelay(DialFailure),
    /// The circuit stood, and no connection came of it.
    NotShaken,
}

/// One side of a bridge.
#[derive(Clone, Copy, Debug)]
struct Span {
    stream: StreamId,
    carrier: EndId,
    key: Key,
    /// Bytes that came from it and were passed on.
    passed: u64,
    /// It has nothing more to say.
    done: bool,
}

/// Two streams that are joined: the initiator's, and that to the target.
#[derive(Clone, Debug)]
pub(super) struct Bridge {
    sides: [Span; 2],
    bytes_max: Option<u64>,
}

impl World {
    /// The application of a node calls a peer through a relay that is at this address. A node
    /// without relays in its configuration has no circuits to offer.
    pub fn call(&mut self, NodeId(from): NodeId, relay: (PeerId, Addr), peer: PeerId) -> CircuitId {
        let call = self.calls(from, relay, peer);
        self.flush_all();
        call
    }

    pub(super) fn calls(
        &mut self,
        from: usize,
        (relay, at): (PeerId, Addr),
        peer: PeerId,
    ) -> CircuitId {
        let it = &mut self.nodes[from];
        it.next_call += 1;
        let call = CircuitId(it.next_call);
        it.calls.insert(call, Call { relay, peer, end: None });
        let connected = it.conns.iter().find(|(_, end)| {
            let conn = self.conns.get(&end.0);
            let far = conn.and_then(|conn| conn.end(end.1.other()));
            far.is_some_and(|far| far.peer == relay && far.via.is_none())
        });
        match connected.map(|(conn, _)| *conn) {
            Some(conn) => self.call_asks(from, call, conn),
            None => self.dial(from, at, Purpose::Call(call), None, REACH_MAX),
        }
        call
    }

    /// How a call ended, once it has.
    pub fn called(&self, NodeId(from): NodeId, call: CircuitId) -> Option<CallEnd> {
        self.nodes[from].calls.get(&call)?.end
    }

    /// The connections of a node that are circuits.
    pub fn circuits_of(&self, NodeId(node): NodeId) -> impl Iterator<Item = ConnId> + '_ {
        let all = self.nodes[node].conns.iter();
        let carried = |end: &EndId| self.end(*end).is_some_and(|it| it.via.is_some());
        all.filter(move |(_, end)| carried(end)).map(|(conn, _)| *conn)
    }

    /// Close a connection of a node.
    pub fn hang_up(&mut self, NodeId(node): NodeId, conn: ConnId) {
        if let Some(end) = self.nodes[node].conns.get(&conn).copied() {
            self.close(end);
            self.flush_all();
        }
    }

    /// The application of a node says so many bytes on a connection.
    pub fn pour(&mut self, NodeId(node): NodeId, conn: ConnId, bytes: usize) {
        if let Some(end) = self.nodes[node].conns.get(&conn).copied() {
            self.say(end, Said::Blob(bytes));
            self.flush_all();
        }
    }

    /// How many bytes of an application's came in on a connection, while it stands.
    pub fn poured(&self, NodeId(node): NodeId, conn: ConnId) -> Option<usize> {
        self.end(*self.nodes[node].conns.get(&conn)?).map(|end| end.poured)
    }

    /// The relay is reached: core is asked.
    pub(super) fn call_asks(&mut self, node: usize, circuit: CircuitId, conn: ConnId) {
        let Some(call) = self.nodes[node].calls.get(&circuit) else { return };
        let peer = call.peer;
        self.feed(node, Event::Relay(RelayEvent::CircuitWanted { circuit, conn, peer }));
    }

    pub(super) fn call_stands(&mut self, node: usize, call: CircuitId, conn: ConnId) {
        self.call_ends(node, call, CallEnd::Connected(conn));
    }

    pub(super) fn call_ends(&mut self, node: usize, call: CircuitId, end: CallEnd) {
        if let Some(call) = self.nodes[node].calls.get_mut(&call) {
            call.end.get_or_insert(end);
        }
    }

    /// Whom a node must find at the other end.
    pub(super) fn awaited(&self, node: usize, purpose: Option<Purpose>) -> Option<PeerId> {
        match purpose? {
            Purpose::Target(target) => Some(self.nodes[node].targets[target].peer),
            Purpose::Relay(peer, _) | Purpose::Circuit { peer, .. } => Some(peer),
            Purpose::Call(call) => self.nodes[node].calls.get(&call).map(|call| call.relay),
            Purpose::Punch(punch) => self.nodes[node].punches.get(&punch).map(|one| one.peer),
            Purpose::DialBack(_) | Purpose::Scripted(_) | Purpose::Stranger => None,
        }
    }

    /// Somebody else is at the other end.
    pub(super) fn broken_off(&mut self, end: EndId) {
        if end.1 == Role::Dialer {
            return self.abandon(end.0, DialFailure::Handshake);
        }
        if let Some(it) = self.end_mut(end) {
            it.phase = Phase::Shaking;
        }
        self.broken(end);
    }

    /// A stream stands as a circuit: hands are shaken over it.
    pub(super) fn upgrade(
        &mut self,
        node: usize,
        stream: StreamId,
        peer: PeerId,
        call: Option<CircuitId>,
    ) {
        let carrier = self.nodes[node].streams.remove(&stream);
        let known = carrier.and_then(|end| {
            let it = self.end(end)?;
            let known = it.streams.get(&stream).filter(|known| !known.theirs_done)?;
            Some((end, known.key, it.local, it.remote))
        });
        let Some((carrier, key, local, remote)) = known else {
            return self
                .later(Duration::ZERO, Occurrence::Tells { node, event: upgrade_failed(stream) });
        };
        self.later(HANDSHAKE_MAX, Occurrence::UpgradeOver { end: carrier, stream });
        if stream.side == Side::Inbound {
            return self.speaks(carrier, stream, Voice::Awaits(peer));
        }
        let conn = self.fresh();
        let mut dialer = End::new(self.now, node, (local, remote), self.nodes[node].peer);
        dialer.phase = Phase::Shaking;
        dialer.purpose = Some(Purpose::Circuit { stream, peer, call });
        dialer.via = Some(Via { carrier, key });
        let hands = 2 * self.nodes[node].costs.tcp_upgrade + 1;
        self.conns.insert(conn, Conn::new(self.now, dialer, hands));
        self.speaks(carrier, stream, Voice::Circuit((conn, Role::Dialer)));
        self.say((conn, Role::Dialer), Said::Hand(1));
        if hands == 1 {
            self.established((conn, Role::Dialer));
        }
    }

    fn speaks(&mut self, carrier: EndId, stream: StreamId, voice: Voice) {
        if let Some(known) = self.end_mut(carrier).and_then(|it| it.streams.get_mut(&stream)) {
            known.voice = voice;
        }
    }

    /// Hands that are shaken over a stream have had their time.
    pub(super) fn upgrade_over(&mut self, carrier: EndId, stream: StreamId) {
        let known = self.end(carrier).and_then(|it| Some((it.node, it.streams.get(&stream)?)));
        let Some((node, known)) = known else { return };
        match known.voice {
            Voice::Awaits(_) => {
                self.reset_carrier(Via { carrier, key: known.key });
                self.not_upgraded(node, stream, None);
            }
            Voice::Circuit(end) if self.end(end).is_some_and(|it| it.phase == Phase::Shaking) => {
                self.broken(end);
            }
            Voice::Circuit(_) | Voice::Core | Voice::Script | Voice::Bridge(_) => {}
        }
    }

    pub(super) fn not_upgraded(&mut self, node: usize, stream: StreamId, call: Option<CircuitId>) {
        if let Some(call) = call {
            self.call_ends(node, call, CallEnd::NotShaken);
        }
        self.later(Duration::ZERO, Occurrence::Tells { node, event: upgrade_failed(stream) });
    }

    /// What an end of a circuit says goes on the stream that carries it.
    pub(super) fn carry(
        &mut self,
        via: Via,
        (circuit, from): EndId,
        said: Vec<Said>,
        bytes: usize,
    ) {
        let stands =
            self.end(via.carrier).is_some_and(|it| it.is_up() && it.by_key.contains_key(&via.key));
        if stands {
            self.say(via.carrier, Said::Carry { key: via.key, circuit, from, said, bytes });
        }
    }

    /// Something came on a stream that carries a circuit.
    pub(super) fn carried(
        &mut self,
        (at, key): (EndId, Key),
        (circuit, from): EndId,
        said: Vec<Said>,
        bytes: usize,
    ) {
        let Some(it) = self.end(at) else { return };
        let Some(stream) = it.by_key.get(&key).copied() else { return };
        let Some(known) = it.streams.get(&stream) else { return };
        let to = (circuit, from.other());
        match known.voice {
            Voice::Bridge(hop) => {
                return self.passes_on((it.node, hop), stream, (circuit, from), said, bytes);
            }
            Voice::Awaits(peer) => {
                let mut end =
                    End::new(self.now, it.node, (it.local, it.remote), self.nodes[it.node].peer);
                end.phase = Phase::Shaking;
                end.purpose = Some(Purpose::Circuit { stream, peer, call: None });
                end.via = Some(Via { carrier: at, key });
                let Some(conn) = self.conns.get_mut(&circuit) else { return };
                end.rtt = self.now.since(conn.opened_at) * 2;
                conn.dialer.rtt = end.rtt;
                conn.listener = Some(end);
                self.speaks(at, stream, Voice::Circuit(to));
            }
            Voice::Circuit(end) if end == to => {}
            Voice::Circuit(_) | Voice::Core | Voice::Script => return,
        }
        let now = self.now;
        for one in said {
            if let Some(end) = self.end_mut(to) {
                (end.heard_at, end.used_at) = (now, now);
            }
            self.hear(to, one);
        }
    }

    /// Join two streams for others.
    pub(super) fn bridge(
        &mut self,
        node: usize,
        hop: StreamId,
        stop: StreamId,
        bytes_max: Option<u64>,
    ) {
        let span = |world: &mut World, stream: StreamId| {
            let carrier = world.nodes[node].streams.remove(&stream)?;
            let known = world.end(carrier)?.streams.get(&stream)?;
            Some(Span { stream, carrier, key: known.key, passed: 0, done: known.theirs_done })
        };
        match (span(self, hop), span(self, stop)) {
            (Some(initiator), Some(target)) => {
                let sides = [initiator, target];
                for side in sides {
                    self.speaks(side.carrier, side.stream, Voice::Bridge(hop));
                }
                self.bridges.insert((node, hop), Bridge { sides, bytes_max });
            }
            (alone, None) | (None, alone) => {
                if let Some(alone) = alone {
                    self.reset_carrier(Via { carrier: alone.carrier, key: alone.key });
                }
                self.told_of_bridge(node, hop, BridgeEnd::Reset, [0, 0]);
            }
        }
    }

    fn passes_on(
        &mut self,
        of: (usize, StreamId),
        stream: StreamId,
        (circuit, from): EndId,
        mut said: Vec<Said>,
        mut bytes: usize,
    ) {
        let swallows = self.nodes[of.0].mood.swallows;
        let Some(bridge) = self.bridges.get_mut(&of) else { return };
        let place = usize::from(bridge.sides[0].stream != stream);
        let wanted = u64::try_from(bytes).unwrap_or(u64::MAX);
        let room = bridge.bytes_max.map_or(u64::MAX, |max| max - bridge.sides[place].passed);
        let is_over = wanted > room;
        if is_over {
            // Whatever comes within the limit is passed; half a frame is of use to nobody.
            bytes = usize::try_from(room).unwrap_or(usize::MAX);
            said = match said.as_slice() {
                [Said::Blob(_)] => vec![Said::Blob(bytes)],
                _ => Vec::new(),
            };
        }
        bridge.sides[place].passed += wanted.min(room);
        let to = bridge.sides[1 - place];
        if !swallows && !said.is_empty() {
            self.say(to.carrier, Said::Carry { key: to.key, circuit, from, said, bytes });
        }
        if is_over {
            self.bridge_over(of, BridgeEnd::BytesUsedUp);
        }
    }

    /// A bridge is over: whatever is left of its streams is reset.
    pub(super) fn bridge_over(&mut self, (node, hop): (usize, StreamId), end: BridgeEnd) {
        let Some(bridge) = self.bridges.remove(&(node, hop)) else { return };
        for side in bridge.sides {
            self.reset_carrier(Via { carrier: side.carrier, key: side.key });
        }
        self.told_of_bridge(node, hop, end, bridge.sides.map(|side| side.passed));
    }

    fn told_of_bridge(&mut self, node: usize, stream: StreamId, end: BridgeEnd, passed: [u64; 2]) {
        let [forth, back] = passed;
        let event = Event::Relay(RelayEvent::BridgeEnded { stream, end, forth, back });
        self.later(Duration::ZERO, Occurrence::Tells { node, event });
    }

    /// The other side of a stream that carries something is over.
    pub(super) fn carrier_ended(
        &mut self,
        (carrier, key): (EndId, Key),
        stream: StreamId,
        voice: Voice,
        how: Ended,
    ) {
        let Some(node) = self.end(carrier).map(|it| it.node) else { return };
        let via = Via { carrier, key };
        match voice {
            Voice::Core | Voice::Script => {}
            Voice::Awaits(_) => {
                self.reset_carrier(via);
                self.not_upgraded(node, stream, None);
            }
            Voice::Circuit(end) => {
                self.broken(end);
                self.finish_carrier(via);
            }
            Voice::Bridge(hop) if how == Ended::Finished => self.half_over((node, hop), stream),
            Voice::Bridge(hop) => self.bridge_over((node, hop), BridgeEnd::Reset),
        }
    }

    fn half_over(&mut self, of: (usize, StreamId), stream: StreamId) {
        let Some(bridge) = self.bridges.get_mut(&of) else { return };
        let place = usize::from(bridge.sides[0].stream != stream);
        bridge.sides[place].done = true;
        let to = bridge.sides[1 - place];
        let is_over = bridge.sides.iter().all(|side| side.done);
        self.finish_carrier(Via { carrier: to.carrier, key: to.key });
        if is_over {
            self.bridge_over(of, BridgeEnd::Finished);
        }
    }

    /// The connection below a stream is gone.
    pub(super) fn carrier_lost(&mut self, node: usize, stream: StreamId, voice: Voice) {
        match voice {
            Voice::Core | Voice::Script => {}
            Voice::Awaits(_) => self.not_upgraded(node, stream, None),
            Voice::Circuit(end) => self.broken(end),
            Voice::Bridge(hop) => self.bridge_over((node, hop), BridgeEnd::Reset),
        }
    }

    /// An end of a circuit breaks, and what carries it is reset.
    pub(super) fn circuit_broken(&mut self, end: EndId, via: Via) {
        let Some(it) = self.end_mut(end) else { return };
        let (phase, node, purpose) = (it.phase, it.node, it.purpose);
        it.phase = Phase::Gone;
        it.outbox.clear();
        self.reset_carrier(via);
        match (phase, purpose) {
            (Phase::Up, _) => self.gone(end, true),
            (Phase::Shaking, Some(Purpose::Circuit { stream, call, .. })) => {
                self.not_upgraded(node, stream, call);
            }
            (Phase::Opening | Phase::Shaking | Phase::Leaving | Phase::Gone, _) => {}
        }
        self.bury(end.0);
    }

    /// Drop a stream, if it is there still.
    pub(super) fn reset_carrier(&mut self, Via { carrier, key }: Via) {
        let Some(it) = self.end_mut(carrier) else { return };
        let Some(stream) = it.by_key.get(&key).copied() else { return };
        it.remove_stream(stream);
        self.say(carrier, Said::Reset { key });
    }

    /// Nothing more is said on a stream, if it is there still.
    pub(super) fn finish_carrier(&mut self, Via { carrier, key }: Via) {
        let Some(it) = self.end_mut(carrier) else { return };
        let Some(stream) = it.by_key.get(&key).copied() else { return };
        let Some(known) = it.streams.get_mut(&stream) else { return };
        if std::mem::replace(&mut known.ours_done, true) {
            return;
        }
        if known.theirs_done {
            it.remove_stream(stream);
        }
        self.say(carrier, Said::Finish { key });
    }
}

fn upgrade_failed(stream: StreamId) -> Event {
    Event::Relay(RelayEvent::UpgradeFailed { stream })
}
