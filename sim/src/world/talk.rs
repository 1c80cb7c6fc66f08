//! What the two sides of a connection say to each other: handshakes, streams, frames, farewells.

use super::conn::{EndId, Phase, Purpose, Role, Said, StreamEnd, Voice};
use super::{Occurrence, World};
use bytes::Bytes;
use portolan_core::{
    ConnId, Connected, DialFailure, Duration, Event, Protocol, PunchEvent, Side,
    StreamEnd as Ended, StreamFailure, StreamId, Transport,
};

/// How long a plain stranger stays before he hangs up.
const STRANGER_STAYS: Duration = Duration::from_secs(10);

impl World {
    /// One side will say this with the next segment.
    pub(super) fn say(&mut self, end: EndId, said: Said) {
        let now = self.now;
        if let Some(it) = self.end_mut(end) {
            it.used_at = now;
            it.outbox.push(said);
            self.unsent.push(end);
        }
    }

    /// One side hears what the other said.
    pub(super) fn hear(&mut self, end: EndId, said: Said) {
        let Some(it) = self.end(end) else { return };
        match said {
            Said::Hand(step) => return self.shake(end, step),
            Said::Close => return self.left(end),
            _ if !it.is_up() => return,
            Said::Open { .. }
            | Said::Opened { .. }
            | Said::Unsupported { .. }
            | Said::Frame { .. }
            | Said::Finish { .. }
            | Said::Reset { .. }
            | Said::Carry { .. }
            | Said::Blob(_) => {}
        }
        match said {
            Said::Open { key, protocol } => self.stream_asked(end, key, protocol),
            Said::Opened { key } => self.stream_agreed(end, key),
            Said::Unsupported { key } => self.stream_refused(end, key),
            Said::Frame { key, body } => self.frame_came(end, key, body),
            Said::Finish { key } => self.stream_ended(end, key, Ended::Finished),
            Said::Reset { key } => self.stream_ended(end, key, Ended::Reset),
            Said::Carry { key, circuit, from, said, bytes } => {
                self.carried((end, key), (circuit, from), said, bytes);
            }
            Said::Blob(bytes) => {
                if let Some(it) = self.end_mut(end) {
                    it.poured += bytes;
                }
            }
            Said::Hand(_) | Said::Close => {}
        }
    }

    fn shake(&mut self, end: EndId, step: u8) {
        let Some(hands) = self.conns.get(&end.0).map(|conn| conn.hands) else { return };
        if step >= hands {
            return self.established(end);
        }
        if step + 1 >= hands {
            // Its answer is the last step, and whatever is said first goes along.
            self.say(end, Said::Hand(step + 1));
            return self.established(end);
        }
        self.say(end, Said::Hand(step + 1));
    }

    /// One side has done its handshakes.
    pub(super) fn established(&mut self, end: EndId) {
        let (conn, role) = end;
        let Some(it) = self.end_mut(end) else { return };
        if it.phase != Phase::Shaking {
            return;
        }
        it.phase = Phase::Up;
        let (node, local, remote, purpose, rtt) =
            (it.node, it.local, it.remote, it.purpose, it.rtt);
        let Some(peer) = self.end((conn, role.other())).map(|other| other.peer) else { return };
        if self.awaited(node, purpose).is_some_and(|awaited| awaited != peer) {
            return self.broken_off(end);
        }
        let own = peer == self.nodes[node].peer || peer == self.nodes[node].dial_peer;
        if own && role == Role::Listener {
            // A node refuses itself; whoever dialled finds that the connection is gone.
            return self.close(end);
        }
        let it = &mut self.nodes[node];
        it.next_conn += 1;
        let id = ConnId(it.next_conn);
        it.conns.insert(id, end);
        if let Some(end) = self.end_mut(end) {
            end.id = Some(id);
        }
        match purpose {
            Some(Purpose::Scripted(number)) => return self.script_dialled(node, number, Some(end)),
            Some(Purpose::Stranger) => self.later(STRANGER_STAYS, Occurrence::HangsUp { end }),
            Some(Purpose::Target(target)) => self.target_up(node, target, id),
            Some(Purpose::Circuit { call: Some(call), .. }) => self.call_stands(node, call, id),
            Some(Purpose::Punch(punch)) => {
                self.nodes[node].punches.remove(&punch);
            }
            Some(Purpose::DialBack(_) | Purpose::Relay(..)) => {}
            Some(Purpose::Call(_) | Purpose::Circuit { call: None, .. }) | None => {}
        }
        let dial = match purpose {
            Some(Purpose::DialBack(dial)) => Some(dial),
            Some(Purpose::Target(_) | Purpose::Scripted(_) | Purpose::Stranger) | None => None,
            Some(Purpose::Relay(..) | Purpose::Call(_) | Purpose::Punch(_)) => None,
            Some(Purpose::Circuit { .. }) => None,
        };
        let relayed = self.end(end).is_some_and(|end| end.via.is_some());
        if dial.is_none() && !relayed {
            self.nodes[node].heard.insert(remote.class());
        }
        let is_client = self.conns.get(&conn).is_some_and(|it| it.client == Some(role));
        let side = if is_client { Side::Outbound } else { Side::Inbound };
        let measured = relayed || side == Side::Outbound || local.transport == Transport::Quic;
        let rtt = measured.then_some(rtt);
        let facts = Connected { conn: id, peer, side, local, remote, relayed, dial, rtt };
        self.feed(node, Event::Connected(facts));
        if let Some(Purpose::Call(call)) = purpose {
            self.call_asks(node, call, id);
        }
    }

    fn stream_asked(&mut self, end: EndId, key: (Role, u32), protocol: Protocol) {
        let Some(it) = self.end(end) else { return };
        let (node, id, serves) = (it.node, it.id, it.serves());
        let offered = self.nodes[node].offers(protocol);
        let Some(conn) = id.filter(|_| serves && offered) else {
            return self.say(end, Said::Unsupported { key });
        };
        let scripted = self.is_scripted(node, protocol);
        let voice = if scripted { Voice::Script } else { Voice::Core };
        self.nodes[node].next_stream += 1;
        let stream = StreamId::inbound(protocol, self.nodes[node].next_stream);
        self.nodes[node].streams.insert(stream, end);
        if let Some(it) = self.end_mut(end) {
            let fresh = StreamEnd { key, ours_done: false, theirs_done: false, held: None, voice };
            it.insert_stream(stream, fresh);
        }
        self.say(end, Said::Opened { key });
        if !scripted {
            self.feed(node, Event::StreamOpened { conn, stream });
        }
    }

    fn stream_agreed(&mut self, end: EndId, key: (Role, u32)) {
        let Some(it) = self.end_mut(end) else { return };
        let Some(stream) = it.by_key.get(&key).copied() else { return };
        let Some(known) = it.streams.get_mut(&stream) else { return };
        let (held, voice) = (known.held.take(), known.voice);
        let (node, id) = (it.node, it.id);
        for said in held.into_iter().flatten() {
            self.say(end, said);
        }
        if let Some(conn) = id.filter(|_| voice == Voice::Core) {
            self.feed(node, Event::StreamOpened { conn, stream });
        }
    }

    fn stream_refused(&mut self, end: EndId, key: (Role, u32)) {
        let Some(it) = self.end_mut(end) else { return };
        let Some(stream) = it.by_key.get(&key).copied() else { return };
        let node = it.node;
        let voice = it.remove_stream(stream).map_or(Voice::Core, |known| known.voice);
        self.nodes[node].streams.remove(&stream);
        if voice == Voice::Core {
            let reason = StreamFailure::Unsupported;
            self.feed(node, Event::StreamFailed { stream, reason });
        }
    }

    fn frame_came(&mut self, end: EndId, key: (Role, u32), body: Bytes) {
        let now = self.now;
        let Some(it) = self.end_mut(end) else { return };
        it.used_at = now;
        let Some(stream) = it.by_key.get(&key).copied() else { return };
        let Some(known) = it.streams.get(&stream) else { return };
        let (node, voice) = (it.node, known.voice);
        match voice {
            Voice::Script => self.script_asked(node, stream, &body),
            Voice::Core if self.is_turned_down(end, stream, &body) => {}
            Voice::Core => self.feed(node, Event::Frame { stream, body }),
            // Nobody frames what belongs to a circuit.
            Voice::Awaits(_) | Voice::Circuit(_) | Voice::Bridge(_) => {}
        }
    }

    fn stream_ended(&mut self, end: EndId, key: (Role, u32), how: Ended) {
        let Some(it) = self.end_mut(end) else { return };
        let Some(stream) = it.by_key.get(&key).copied() else { return };
        let node = it.node;
        let Some(known) = it.streams.get_mut(&stream) else { return };
        known.theirs_done = true;
        let (voice, over) = (known.voice, known.ours_done || how != Ended::Finished);
        if over {
            it.remove_stream(stream);
            self.nodes[node].streams.remove(&stream);
        }
        match voice {
            Voice::Script => {}
            Voice::Core => self.feed(node, Event::StreamClosed { stream, end: how }),
            Voice::Awaits(_) | Voice::Circuit(_) | Voice::Bridge(_) => {
                self.carrier_ended((end, key), stream, voice, how);
            }
        }
    }

    /// One side closes: what it has said still arrives.
    pub(super) fn close(&mut self, end: EndId) {
        let Some(it) = self.end(end) else { return };
        if !it.is_up() {
            return;
        }
        self.say(end, Said::Close);
        self.flush(end);
        let Some(it) = self.end_mut(end) else { return };
        let via = it.via;
        // What is carried arrives, or the carrier does not stand any more.
        it.phase = if via.is_some() { Phase::Gone } else { Phase::Leaving };
        self.gone(end, false);
        if let Some(via) = via {
            self.finish_carrier(via);
            self.bury(end.0);
        }
    }

    /// The other side closed.
    fn left(&mut self, end: EndId) {
        let Some(it) = self.end_mut(end) else { return };
        let (was_up, via) = (it.is_up(), it.via);
        it.phase = Phase::Gone;
        it.pending.clear();
        if was_up {
            self.gone(end, true);
        }
        if let Some(via) = via {
            self.finish_carrier(via);
        }
        self.part((end.0, end.1.other()));
        self.bury(end.0);
    }

    /// The connection broke on this side: the other finds out by itself.
    pub(super) fn broken(&mut self, end: EndId) {
        let Some(it) = self.end_mut(end) else { return };
        let was_up = it.is_up();
        let shaking = it.phase == Phase::Shaking;
        let (node, purpose, conn) = (it.node, it.purpose, it.id);
        if let Some(via) = it.via {
            return self.circuit_broken(end, via);
        }
        it.phase = Phase::Gone;
        it.pending.clear();
        if was_up {
            if let Some(conn) = conn.filter(|_| self.nodes[node].core.punch.is_some()) {
                let event = Event::Punch(PunchEvent::Broke { conn });
                self.later(Duration::ZERO, Occurrence::Tells { node, event });
            }
            self.gone(end, true);
        } else if shaking && end.1 == Role::Dialer {
            return self.abandon(end.0, DialFailure::Handshake);
        } else if let Some(purpose @ Purpose::Punch(_)) = purpose
            && shaking
        {
            self.dial_failed(node, purpose, DialFailure::Handshake);
        }
        self.bury(end.0);
    }

    /// Whoever was only waiting for his last words to arrive need not any more.
    fn part(&mut self, end: EndId) {
        if let Some(it) = self.end_mut(end)
            && it.phase == Phase::Leaving
        {
            it.phase = Phase::Gone;
        }
    }

    /// Tell the node that a connection is gone. `lost` streams are told first or not at all, as
    /// both happens in the field.
    pub(super) fn gone(&mut self, end: EndId, lost: bool) {
        let Some(it) = self.end_mut(end) else { return };
        let (node, id) = (it.node, it.id.take());
        let streams: Vec<(StreamId, Voice)> =
            it.streams.iter().map(|(stream, known)| (*stream, known.voice)).collect();
        it.streams.clear();
        it.by_key.clear();
        let Some(conn) = id else { return };
        let tells = lost && self.dice.percent(50);
        for (stream, voice) in streams {
            self.nodes[node].streams.remove(&stream);
            self.carrier_lost(node, stream, voice);
            if tells && voice == Voice::Core {
                let end = Ended::Reset;
                let event = Event::StreamClosed { stream, end };
                self.later(Duration::ZERO, Occurrence::Tells { node, event });
            }
        }
        self.nodes[node].conns.remove(&conn);
        let event = Event::Disconnected { conn };
        self.later(Duration::ZERO, Occurrence::Tells { node, event });
        self.target_down(node, conn);
    }

    /// A script says something on a stream.
    pub(super) fn say_on(&mut self, node: usize, stream: StreamId, body: Bytes) {
        let Some(end) = self.nodes[node].streams.get(&stream).copied() else { return };
        let Some(it) = self.end_mut(end) else { return };
        let Some(known) = it.streams.get_mut(&stream) else { return };
        let said = Said::Frame { key: known.key, body };
        match &mut known.held {
            Some(held) => held.push(said),
            None => self.say(end, said),
        }
    }

    /// One side has nothing more to say on a stream.
    pub(super) fn finish_stream(&mut self, node: usize, stream: StreamId) {
        let Some(end) = self.nodes[node].streams.get(&stream).copied() else { return };
        let Some(it) = self.end_mut(end) else { return };
        let Some(known) = it.streams.get_mut(&stream) else { return };
        known.ours_done = true;
        let (said, over) = (Said::Finish { key: known.key }, known.theirs_done);
        match &mut known.held {
            Some(held) => held.push(said),
            None => self.say(end, said),
        }
        if over {
            if let Some(it) = self.end_mut(end) {
                it.remove_stream(stream);
            }
            self.nodes[node].streams.remove(&stream);
        }
    }

    /// One side drops a stream.
    pub(super) fn reset_stream(&mut self, node: usize, stream: StreamId) {
        let Some(end) = self.nodes[node].streams.remove(&stream) else { return };
        let known = self.end_mut(end).and_then(|it| it.remove_stream(stream));
        if let Some(known) = known {
            self.say(end, Said::Reset { key: known.key });
        }
    }

    /// A script opens a dial-back stream, says a nonce on it, and finishes.
    pub(super) fn script_opens(&mut self, end: EndId, body: Bytes) {
        let number = self.fresh();
        let Some(it) = self.end(end) else { return };
        let node = it.node;
        // Core counts its own streams from one; no run comes near the middle of the range.
        let stream = StreamId::outbound(Protocol::DialBack, (1 << 62) + number);
        self.open_stream(node, end, stream, true);
        self.say_on(node, stream, body);
        self.finish_stream(node, stream);
    }

    pub(super) fn open_stream(
        &mut self,
        node: usize,
        end: EndId,
        stream: StreamId,
        scripted: bool,
    ) {
        let waits = self.nodes[node].costs.streams_wait;
        let Some(it) = self.end_mut(end) else { return };
        let key = (end.1, it.next_key);
        it.next_key += 1;
        let held = waits.then(Vec::new);
        let voice = if scripted { Voice::Script } else { Voice::Core };
        let fresh = StreamEnd { key, ours_done: false, theirs_done: false, held, voice };
        it.insert_stream(stream, fresh);
        self.nodes[node].streams.insert(stream, end);
        self.say(end, Said::Open { key, protocol: stream.protocol });
    }
}
