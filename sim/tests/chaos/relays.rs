//! Relays, their clients and a runtime that say anything at all of circuits.

use crate::ops::{ip, peer_id, pick};
use crate::world::{PEERS, REMOTES, World, key};
use bytes::Bytes;
use portolan_core::wire::multiaddr::encode;
use portolan_core::wire::relay::{HopMessage, Reservation, StopMessage, Voucher};
use portolan_core::{
    Action, Addr, BridgeEnd, CircuitId, CircuitLimit, DialFailure, Duration, Event, Protocol,
    RelayAction, RelayEvent, RelayStatus, Side, Signer, StreamId,
};
use proptest::prelude::*;

/// One order about relays. Numbers point into whatever there is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RelayOp {
    /// A peer asks us, or brings a circuit.
    Asks {
        which: u8,
        what: u8,
        peer: u8,
    },
    /// A relay or a target answers.
    Answers {
        which: u8,
        code: u8,
        how: u8,
    },
    Wanted {
        which: u8,
        peer: u8,
    },
    Forgotten {
        which: u8,
    },
    ConnectFailed {
        peer: u8,
        addr: u8,
        how: u8,
    },
    UpgradeFailed {
        which: u8,
    },
    BridgeEnded {
        which: u8,
        end: u8,
        forth: u64,
    },
    Draining,
}

pub(crate) fn any_relay_op() -> impl Strategy<Value = RelayOp> {
    let b = any::<u8>;
    prop_oneof![
        6 => (b(), b(), b()).prop_map(|(which, what, peer)| RelayOp::Asks { which, what, peer }),
        6 => (b(), b(), b()).prop_map(|(which, code, how)| RelayOp::Answers { which, code, how }),
        3 => (b(), b()).prop_map(|(which, peer)| RelayOp::Wanted { which, peer }),
        1 => b().prop_map(|which| RelayOp::Forgotten { which }),
        2 => (b(), b(), b())
            .prop_map(|(peer, addr, how)| RelayOp::ConnectFailed { peer, addr, how }),
        1 => b().prop_map(|which| RelayOp::UpgradeFailed { which }),
        3 => (b(), b(), any::<u64>())
            .prop_map(|(which, end, forth)| RelayOp::BridgeEnded { which, end, forth }),
        1 => Just(RelayOp::Draining),
    ]
}

struct Hand(usize);

impl Signer for Hand {
    fn sign(&mut self, message: &[u8]) -> Vec<u8> {
        key(self.0).sign(message).expect("ed25519 signs anything")
    }
}

impl World {
    pub(crate) fn relay(&mut self, op: RelayOp) {
        let event = match op {
            RelayOp::Asks { which, what, peer } => return self.asks_us(which, what, peer),
            RelayOp::Answers { which, code, how } => return self.answers(which, code, how),
            RelayOp::Wanted { which, peer } => {
                let Some(conn) = pick(self.conns.keys().copied(), which) else { return };
                let circuit = CircuitId(self.fresh());
                RelayEvent::CircuitWanted { circuit, conn, peer: peer_id(peer) }
            }
            RelayOp::Forgotten { which } => {
                let circuit = pick(self.relays.circuits(), which).filter(|_| which < 250);
                RelayEvent::CircuitForgotten { circuit: circuit.unwrap_or(CircuitId(1 << 60)) }
            }
            RelayOp::ConnectFailed { peer, addr, how } => {
                let known = pick(self.told_to_connect.iter().copied(), how);
                let at = ip(REMOTES[usize::from(addr) % REMOTES.len()]);
                let made_up = (peer_id(peer), Addr::tcp(at, 4_001));
                let (peer, addr) = known.filter(|_| how < 250).unwrap_or(made_up);
                let reasons = [DialFailure::Refused, DialFailure::TimedOut];
                RelayEvent::ConnectFailed { peer, addr, reason: reasons[usize::from(how % 2)] }
            }
            RelayOp::UpgradeFailed { which } => RelayEvent::UpgradeFailed {
                stream: StreamId::outbound(Protocol::Hop, u64::from(which)),
            },
            RelayOp::BridgeEnded { which, end, forth } => {
                let stream = pick(self.relays.bridges(), which).filter(|_| which < 250);
                let nothing = StreamId::inbound(Protocol::Hop, 1 << 60);
                let ends =
                    [BridgeEnd::Finished, BridgeEnd::Reset, BridgeEnd::BytesUsedUp, BridgeEnd::Cut];
                RelayEvent::BridgeEnded {
                    stream: stream.unwrap_or(nothing),
                    end: ends[usize::from(end % 4)],
                    forth,
                    back: forth >> 1,
                }
            }
            RelayOp::Draining => RelayEvent::Draining,
        };
        self.step(Event::Relay(event));
    }

    fn asks_us(&mut self, which: u8, what: u8, peer: u8) {
        let Some(conn) = pick(self.conns.keys().copied(), which) else { return };
        let peer = peer_id(peer);
        let (protocol, body) = match what % 4 {
            0 | 1 => (Protocol::Hop, HopMessage::Reserve.encode()),
            2 => (Protocol::Hop, HopMessage::Connect { peer }.encode()),
            _ => (Protocol::Stop, StopMessage::Connect { peer, limit: limit(what) }.encode()),
        };
        if let Some(stream) = self.open_on(conn, protocol) {
            self.step(Event::Frame { stream, body });
        }
    }

    fn answers(&mut self, which: u8, code: u8, how: u8) {
        let asked = |protocol| matches!(protocol, Protocol::Hop | Protocol::Stop);
        let ours = self.streams.iter().filter(|(id, _)| id.side == Side::Outbound);
        let ours = ours.filter(|(id, _)| asked(id.protocol)).map(|(id, open)| (*id, open.conn));
        let Some((stream, conn)) = pick(ours, which) else { return };
        self.step(Event::StreamOpened { conn, stream });
        let codes = [100, 100, 100, 100, 200, 201, 202, 203, 204, 400, 401, 0, -1];
        let status = RelayStatus::from_code(codes[usize::from(code) % codes.len()]);
        let body = if stream.protocol == Protocol::Stop {
            StopMessage::Status { status }.encode()
        } else {
            let reservation = (how & 1 == 0).then(|| self.grants(conn, how));
            HopMessage::Status { status, reservation, limit: limit(how) }.encode()
        };
        if self.streams.contains_key(&stream) {
            self.step(Event::Frame { stream, body });
        }
    }

    fn grants(&self, conn: portolan_core::ConnId, how: u8) -> Reservation {
        let lasts = [3_600, 3_600, 120, 30, 0, 86_400, 1 << 40, 60][usize::from(how >> 1 & 7)];
        let expire = self.unix().as_millis() / 1_000 + lasts;
        let known = self.conns.get(&conn).map(|open| open.facts.peer);
        let relay = (0..PEERS).find(|n| Some(key(*n).public().to_peer_id()) == known).unwrap_or(0);
        let signed = |relay: usize, peer: usize| {
            let (public, peer) = (key(relay).public(), key(peer).public().to_peer_id());
            let voucher = Voucher { relay: public.to_peer_id(), peer, expiration: expire };
            voucher.sealed(&public, &mut Hand(relay))
        };
        let voucher = match how >> 5 {
            0..4 => None,
            4 | 5 => Some(signed(relay, PEERS)),
            6 => Some(signed(relay ^ 1, 3)),
            _ => Some(Bytes::from_static(b"?")),
        };
        let addr = Addr::tcp(ip(REMOTES[usize::from(how) % REMOTES.len()]), 4_001);
        Reservation { expire, addrs: vec![encode(addr); usize::from(how >> 3 & 1)], voucher }
    }

    /// What an order changes in the books.
    pub(crate) fn obey_relay(&mut self, action: &RelayAction) {
        let obeyed = self.relays.ordered(action);
        let Ok(taken) = obeyed else { panic!("{obeyed:?}: {:?}", Action::Relay(action.clone())) };
        for stream in taken {
            let open = self.streams.remove(&stream).filter(|open| !open.mute);
            assert!(open.is_some(), "{action:?}: {stream} is over");
        }
        if let RelayAction::Connect { peer, addr } = action {
            // The newest alone are worth an answer.
            if self.told_to_connect.len() == 16 {
                self.told_to_connect.remove(0);
            }
            self.told_to_connect.push((*peer, *addr));
            self.contacted.insert(addr.ip, self.now);
        }
    }
}

fn limit(how: u8) -> CircuitLimit {
    CircuitLimit {
        duration: (how & 8 == 0).then(|| Duration::from_secs(120)),
        bytes: (how & 16 == 0).then_some(1 << 17),
    }
}
