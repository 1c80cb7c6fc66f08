//! What relays, their clients and the runtime say of circuits in a story.

use super::books::Books;
use super::facts::Facts;
use super::story::peer;
use crate::signed::key;
use bytes::Bytes;
use portolan_core::wire::multiaddr;
use portolan_core::wire::relay::{HopMessage, Reservation, StopMessage, Voucher};
use portolan_core::{
    BridgeEnd, CircuitId, CircuitLimit, ConnId, DialFailure, Duration, Event, Protocol,
    RelayAction, RelayConfig, RelayEvent, RelayNeed, RelayPeer, RelayServerConfig, RelayStatus,
    Side, StreamId,
};
use std::collections::{BTreeMap, BTreeSet};

/// Codes of answers: mostly yes, then those that are defined, and two that are not.
const CODES: [i32; 12] = [100, 100, 100, 200, 201, 202, 203, 204, 400, 401, 0, -1];
/// Seconds from the beginning of the wall clock to the end of a reservation.
const EXPIRES: [u64; 8] = [3_600, 3_600, 120, 60, 0, 1_000_000_000, 30, 86_400];
/// The wall clock at the beginning, in seconds.
const UNIX_START: u64 = 1_700_000_000;

/// What was ordered of relays and circuits.
#[derive(Clone, Debug, Default)]
pub(super) struct Circuits {
    wanted: BTreeSet<CircuitId>,
    /// Each by the initiator's stream, and whether it was cut.
    bridges: BTreeMap<StreamId, bool>,
    /// Streams that were handed over.
    upgraded: Vec<StreamId>,
}

impl Circuits {
    /// A fact is about to be handed in.
    pub(super) fn happened(&mut self, event: &RelayEvent) {
        match event {
            RelayEvent::CircuitWanted { circuit, .. } => drop(self.wanted.insert(*circuit)),
            RelayEvent::CircuitForgotten { circuit } => drop(self.wanted.remove(circuit)),
            RelayEvent::BridgeEnded { stream, .. } => drop(self.bridges.remove(stream)),
            RelayEvent::UpgradeFailed { stream } => self.upgraded.retain(|one| one != stream),
            _ => {}
        }
    }

    /// An order came out: it must be one that a runtime can perform. Returns the streams that are
    /// core's no more.
    pub(super) fn ordered(&mut self, action: &RelayAction) -> Vec<StreamId> {
        match action {
            RelayAction::Connect { addr, .. } => {
                assert_ne!(addr.port, 0);
                Vec::new()
            }
            RelayAction::Upgrade { stream, circuit, .. } => {
                let kind = (stream.side, stream.protocol);
                let ours = (Side::Outbound, Protocol::Hop);
                assert!(kind == ours || kind == (Side::Inbound, Protocol::Stop), "{stream}");
                if let Some(circuit) = circuit {
                    assert!(self.wanted.remove(circuit), "nobody waits for {circuit}");
                }
                self.upgraded.push(*stream);
                vec![*stream]
            }
            RelayAction::CircuitFailed { circuit, .. } => {
                assert!(self.wanted.remove(circuit), "nobody waits for {circuit}");
                Vec::new()
            }
            RelayAction::Bridge { stream, target, .. } => {
                assert_eq!((stream.side, stream.protocol), (Side::Inbound, Protocol::Hop));
                assert_eq!((target.side, target.protocol), (Side::Outbound, Protocol::Stop));
                assert_eq!(self.bridges.insert(*stream, false), None, "{stream} twice");
                vec![*stream, *target]
            }
            RelayAction::Cut { stream } => {
                let cut = self.bridges.get_mut(stream).expect("a bridge that stands");
                assert!(!*cut, "{stream} is cut twice");
                *cut = true;
                Vec::new()
            }
            other => panic!("{other:?} has no law yet"),
        }
    }
}

/// How relays are used and offered, out of two bits and the bytes behind them.
pub(super) fn configs(
    facts: &mut Facts<'_>,
    bits: u8,
) -> (Option<RelayConfig>, Option<RelayServerConfig>) {
    let used = (bits & 1 != 0).then(|| {
        let mut used = RelayConfig::default();
        let byte = facts.byte();
        used.need = [RelayNeed::Auto, RelayNeed::Always, RelayNeed::Never][usize::from(byte % 3)];
        used.reservations = 1 + usize::from(byte >> 2 & 3);
        used.use_connected = byte & 16 == 0;
        let addr = portolan_core::Addr::tcp([44, 0, 1, 1].into(), 4_001);
        let relay = |number| RelayPeer { peer: peer(number), addrs: vec![addr] };
        used.relays = (0..usize::from(byte >> 5)).map(|number| relay(number + 1)).collect();
        used
    });
    let offered = (bits & 2 != 0).then(|| {
        let mut offered = RelayServerConfig::default();
        let byte = facts.byte();
        if byte & 1 != 0 {
            offered.reservations_max = 2;
            offered.circuits_max = 2;
        }
        if byte & 2 != 0 {
            offered.limit = CircuitLimit::default();
        }
        offered.allow = (byte & 4 != 0).then(|| vec![peer(1), peer(2)]);
        offered.only_while_may_serve = byte & 8 != 0;
        offered.reservation_lifetime = Duration::from_secs([3_600, 60][usize::from(byte >> 4 & 1)]);
        offered
    });
    (used, offered)
}

/// The next facts about relays, the one with this number.
pub(super) fn events(what: usize, facts: &mut Facts<'_>, books: &mut Books) -> Option<Vec<Event>> {
    let event = match what {
        // A peer asks us for a reservation, or for a circuit; a relay brings one.
        0 => {
            let conn = facts.pick(books.conns.keys().copied())?;
            let protocol = if facts.flag() { Protocol::Stop } else { Protocol::Hop };
            let stream = StreamId::inbound(protocol, books.mint());
            let body = sensible(facts, books, stream);
            return Some(vec![Event::StreamOpened { conn, stream }, Event::Frame { stream, body }]);
        }
        // A relay answers, or a target does.
        1 => {
            let asked = |protocol| matches!(protocol, Protocol::Hop | Protocol::Stop);
            let ours = books.alive().filter(|(id, _)| id.side == Side::Outbound);
            let ours = ours.filter(|(id, _)| asked(id.protocol));
            let (stream, conn) = facts.pick(ours.map(|(id, open)| (id, open.conn)))?;
            let body = sensible(facts, books, stream);
            return Some(vec![Event::StreamOpened { conn, stream }, Event::Frame { stream, body }]);
        }
        2 => RelayEvent::CircuitWanted {
            circuit: CircuitId(books.mint()),
            conn: facts.pick(books.conns.keys().copied())?,
            peer: peer(facts.below(9)),
        },
        3 => {
            let stream = facts.pick(books.circuits.bridges.keys().copied());
            let stream = stream.unwrap_or(StreamId::inbound(Protocol::Hop, 1));
            let ends =
                [BridgeEnd::Finished, BridgeEnd::Reset, BridgeEnd::BytesUsedUp, BridgeEnd::Cut];
            let (forth, back) = (u64::from(facts.byte()), u64::from(facts.byte()));
            RelayEvent::BridgeEnded { stream, end: ends[facts.below(4)], forth, back }
        }
        _ => rare(facts, books),
    };
    Some(vec![Event::Relay(event)])
}

fn rare(facts: &mut Facts<'_>, books: &Books) -> RelayEvent {
    match facts.below(4) {
        0 => {
            let circuit = facts.pick(books.circuits.wanted.iter().copied());
            RelayEvent::CircuitForgotten { circuit: circuit.unwrap_or(CircuitId(7)) }
        }
        1 => RelayEvent::ConnectFailed {
            peer: peer(facts.below(9)),
            addr: facts.addr(),
            reason: [DialFailure::Refused, DialFailure::TimedOut][facts.below(2)],
        },
        2 => {
            let stream = facts.pick(books.circuits.upgraded.iter().copied());
            let stream = stream.unwrap_or(StreamId::inbound(Protocol::Stop, 1));
            RelayEvent::UpgradeFailed { stream }
        }
        _ => RelayEvent::Draining,
    }
}

/// A message that makes sense on its stream.
pub(super) fn sensible(facts: &mut Facts<'_>, books: &Books, stream: StreamId) -> Bytes {
    match (stream.side, stream.protocol) {
        (Side::Inbound, Protocol::Hop) if facts.flag() => {
            HopMessage::Connect { peer: peer(facts.below(9)) }.encode()
        }
        (Side::Inbound, Protocol::Hop) => HopMessage::Reserve.encode(),
        (Side::Outbound, Protocol::Hop) => {
            let conn = books.streams.get(&stream).map(|open| open.conn);
            answer(facts, books, conn.unwrap_or(ConnId(0))).encode()
        }
        (Side::Inbound, _) => {
            StopMessage::Connect { peer: peer(facts.below(9)), limit: limit(facts) }.encode()
        }
        (Side::Outbound, _) => {
            let status = RelayStatus::from_code(CODES[facts.below(12)]);
            StopMessage::Status { status }.encode()
        }
    }
}

fn limit(facts: &mut Facts<'_>) -> CircuitLimit {
    let byte = facts.byte();
    CircuitLimit {
        duration: (byte & 1 == 0).then(|| Duration::from_secs(120)),
        bytes: (byte & 2 == 0).then_some(1 << 17),
    }
}

/// What the relay at the other end of a connection says: with a voucher of its own, of somebody
/// else's, one that is none, or without.
fn answer(facts: &mut Facts<'_>, books: &Books, conn: ConnId) -> HopMessage {
    let status = RelayStatus::from_code(CODES[facts.below(12)]);
    let byte = facts.byte();
    let reservation = (byte & 1 == 0).then(|| {
        let expire = UNIX_START + EXPIRES[usize::from(byte >> 1 & 7)];
        let addrs = (0..byte >> 4 & 3).map(|_| multiaddr::encode(facts.addr())).collect();
        let known = books.conns.get(&conn).map(|open| open.peer);
        let relay = (1..=9).find(|number| Some(key(*number).0.public().to_peer_id()) == known);
        let relay = relay.unwrap_or(2);
        let signed = |relay: u8, client: u8| {
            let public = key(relay).0.public();
            let (relay_id, peer) = (public.to_peer_id(), key(client).0.public().to_peer_id());
            let voucher = Voucher { relay: relay_id, peer, expiration: expire };
            voucher.sealed(&public, &mut key(relay))
        };
        let voucher = match byte >> 6 {
            0 => None,
            1 => Some(signed(relay, 1)),
            2 => Some(signed(if facts.flag() { 3 } else { relay }, 3)),
            _ => Some(Bytes::copy_from_slice(facts.blob())),
        };
        Reservation { expire, addrs, voucher }
    });
    HopMessage::Status { status, reservation, limit: limit(facts) }
}
