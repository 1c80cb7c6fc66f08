//! Whatever comes: each stream is answered once or reset, and left alone everything ends.

use super::bench::{Bench, hop, ip, secs};
use super::*;
use crate::{CircuitLimit, Duration, Protocol};
use alloc::collections::BTreeMap;

/// What a careful bystander knows.
struct Books {
    bench: Bench,
    peers: [PeerId; 3],
    /// The connection of each, as far as it has one; the first two are one peer's.
    conns: [Option<ConnId>; 3],
    minted: u64,
    /// Hop streams, and whether our side is closed.
    hops: BTreeMap<StreamId, (ConnId, bool)>,
    stops: BTreeMap<StreamId, ConnId>,
    /// Bridges, and whether they were cut.
    bridges: BTreeMap<StreamId, bool>,
}

impl Books {
    fn new() -> Books {
        let mut bench = Bench::new(|limits| {
            limits.reservations_max = 1;
            limits.circuits_max = 2;
            limits.reservation_lifetime = secs(60);
            limits.limit = CircuitLimit { duration: Some(secs(20)), bytes: None };
        });
        bench.world.callers.clear();
        let (one, other) = (PeerId::random(), PeerId::random());
        let (hops, stops, bridges) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let peers = [one, one, other];
        let mut books = Books { bench, peers, conns: [None; 3], minted: 0, hops, stops, bridges };
        (0..3).for_each(|which| books.come(which));
        books
    }

    fn come(&mut self, which: usize) {
        self.minted += 1;
        let conn = ConnId(self.minted);
        self.conns[which] = Some(conn);
        let from = ip(if which == 2 { "44.2.2.2" } else { "44.1.1.1" });
        self.bench.join_as(conn, self.peers[which], from);
    }

    fn go(&mut self, conn: ConnId) {
        self.hops.retain(|_, (of, _)| *of != conn);
        self.stops.retain(|_, of| *of != conn);
        self.bench.leave(conn);
    }

    fn fact(&mut self, (kind, which, amount): (u8, u8, u16)) {
        let place = usize::from(which % 3);
        let number = usize::from(amount);
        let nth = |all: &[StreamId]| all.get(number % all.len().max(1)).copied();
        let said = |ours: bool| self.hops.iter().filter(move |(_, one)| one.1 == ours);
        let open: Vec<StreamId> = said(false).map(|(stream, _)| *stream).collect();
        let hops: Vec<StreamId> = self.hops.keys().copied().collect();
        let stops: Vec<StreamId> = self.stops.keys().copied().collect();
        let bridges: Vec<StreamId> = self.bridges.keys().copied().collect();
        match (kind % 14, nth(&open), nth(&hops), nth(&stops), nth(&bridges)) {
            (0, ..) if let Some(conn) = self.conns[place] => {
                self.minted += 1;
                self.hops.insert(hop(self.minted), (conn, false));
                let _ = self.bench.open(conn, self.minted);
            }
            (1, Some(stream), ..) => {
                let _ = self.bench.send(stream.number, &HopMessage::Reserve);
            }
            (2 | 3, Some(stream), ..) => {
                let peer = self.peers[place];
                let _ = self.bench.send(stream.number, &HopMessage::Connect { peer });
            }
            (4, _, Some(stream), ..) => {
                let _ = self.bench.send_raw(stream, &Bytes::from_static(b"\xff"));
            }
            (5, _, Some(stream), ..) => self.end_hop(stream, amount.is_multiple_of(2)),
            (6 | 7, _, _, Some(stream), _) => {
                let _ = self.bench.target_says(stream.number, RelayStatus::Ok);
            }
            (8, _, _, Some(stream), _) => self.end_stop(stream, amount % 5),
            (9, _, _, _, Some(stream)) => {
                let end = if which % 2 == 0 { BridgeEnd::Finished } else { BridgeEnd::Cut };
                self.bridges.remove(&stream);
                self.bench.bridge_ended(stream.number, end).expect("a bridge that stands");
            }
            (10, ..) => match self.conns[place].take() {
                Some(conn) => self.go(conn),
                None => self.come(place),
            },
            (11, ..) => self.bench.pass(Duration::from_millis(u64::from(amount))),
            (12, ..) if self.bench.server.deadline().is_some() => {
                self.bench.sleep_until_due();
            }
            (13, ..) if amount < 2_000 => self.bench.drain(),
            (13, ..) if amount < 20_000 => {
                let last = self.bench.now;
                self.bench.now = last + secs(u64::from(which));
                let sleep = Sleep::new(secs(u64::from(which)), last, self.bench.now);
                self.bench.step(|server, _, _| server.resumed(sleep));
            }
            _ => self.bench.pass(Duration::ZERO),
        }
        self.hear();
    }

    fn end_hop(&mut self, stream: StreamId, finished: bool) {
        if !finished || self.hops[&stream].1 {
            self.hops.remove(&stream);
        }
        let end = if finished { StreamEnd::Finished } else { StreamEnd::Reset };
        self.bench.close(stream, end);
    }

    fn end_stop(&mut self, stream: StreamId, how: u16) {
        if how > 1 {
            self.stops.remove(&stream);
        }
        match how {
            0 => self.bench.close(stream, StreamEnd::Finished),
            1 => {
                let _ = self.bench.target_says(stream.number, RelayStatus::NoReservation);
            }
            2 => self.bench.close(stream, StreamEnd::Reset),
            3 => self.bench.close(stream, StreamEnd::BadFrame),
            _ => {
                let reason = StreamFailure::TimedOut;
                self.bench.step(|server, cx, _| server.failed(cx, stream, reason));
            }
        }
    }

    fn hear(&mut self) {
        for action in core::mem::take(&mut self.bench.actions) {
            match action {
                Action::Send { stream, .. } if stream.side == Side::Inbound => {
                    assert!(!self.hops[&stream].1, "said after the last word: {stream}");
                }
                Action::Send { stream, .. } => assert!(self.stops.contains_key(&stream)),
                Action::CloseStream { stream } => {
                    let hop = self.hops.get_mut(&stream).expect("a hop stream that is open");
                    assert!(!core::mem::replace(&mut hop.1, true), "closed twice: {stream}");
                }
                Action::ResetStream { stream } => {
                    let hop = self.hops.remove(&stream).is_some();
                    assert!(hop || self.stops.remove(&stream).is_some(), "gone: {stream}");
                }
                Action::OpenStream { conn, stream } => {
                    assert_eq!((stream.side, stream.protocol), (Side::Outbound, Protocol::Stop));
                    assert!(self.conns.contains(&Some(conn)), "it stands");
                    assert_eq!(self.stops.insert(stream, conn), None);
                }
                Action::Relay(RelayAction::Bridge { stream, target, .. }) => {
                    assert_eq!(self.hops.remove(&stream).map(|one| one.1), Some(false));
                    assert!(self.stops.remove(&target).is_some());
                    self.bridges.insert(stream, false);
                }
                Action::Relay(RelayAction::Cut { stream }) => {
                    assert_eq!(self.bridges.insert(stream, true), Some(false));
                }
                Action::Notify(Notice::Relay(_)) => {}
                Action::Dial(_)
                | Action::Disconnect { .. }
                | Action::Mapping(_)
                | Action::Relay(_)
                | Action::Punch(_)
                | Action::Notify(_) => panic!("a relay does not {action:?}"),
            }
        }
        self.bridges.retain(|stream, _| self.bench.server.circuits.get(*stream).is_some());
        let in_use = self.bench.server.in_use();
        assert_eq!(in_use.circuits, self.stops.len() + self.bridges.len());
        assert!(in_use.circuits <= 2 && in_use.reservations <= 1);
        assert!(self.bench.server.exchanges.len() <= self.hops.len());
        if self.conns[0].is_none() && self.conns[1].is_none() {
            assert!(!self.bench.server.reservations.has(self.peers[0]), "he is gone");
        }
    }
}

proptest::proptest! {
    #[test]
    fn whatever_comes_each_stream_is_answered_once_or_reset(
        facts in proptest::collection::vec(proptest::prelude::any::<(u8, u8, u16)>(), 0..300),
    ) {
        let mut books = Books::new();
        for fact in facts {
            books.fact(fact);
        }
        // Left alone, everything ends.
        for _ in 0..400 {
            if books.bench.server.deadline().is_some() {
                books.bench.sleep_until_due();
                books.hear();
            }
        }
        assert_eq!(books.bench.server.deadline(), None);
        assert_eq!(books.bench.server.in_use(), RelayLoad::default());
        assert!(books.hops.is_empty() && books.stops.is_empty() && books.bridges.is_empty());
    }
}
