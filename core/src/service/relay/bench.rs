//! A bench to put the relay on, for tests: facts in, actions out.

use super::*;
use crate::service::fake::{Fixed, World, sent_on};
use crate::{Actions, Duration, Instant, Protocol, Signer, UnixTime, Wake};
use alloc::vec;
use core::net::IpAddr;
use libp2p_identity::Keypair;

/// The holder's connection, from 44.1.1.1, and the initiator's, from 44.2.2.2.
pub(super) const HOLDER: ConnId = ConnId(1);
pub(super) const INITIATOR: ConnId = ConnId(2);
pub(super) const UNIX: u64 = 1_800_000_000_500;

pub(super) struct Key(pub(super) Keypair);

impl Signer for Key {
    fn sign(&mut self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).expect("ed25519 always signs")
    }
}

/// A relay with two peers.
pub(super) struct Bench {
    pub(super) server: RelayServer,
    pub(super) world: World,
    pub(super) key: Key,
    pub(super) now: Instant,
    pub(super) unix: u64,
    pub(super) actions: Vec<Action>,
    last: u64,
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(super) fn tcp(text: &str) -> Addr {
    Addr::tcp(ip(text), 4001)
}

pub(super) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn hop(number: u64) -> StreamId {
    StreamId::inbound(Protocol::Hop, number)
}

pub(super) fn stop(number: u64) -> StreamId {
    StreamId::outbound(Protocol::Stop, number)
}

pub(super) fn reset(stream: StreamId) -> Action {
    Action::ResetStream { stream }
}

impl Bench {
    pub(super) fn new(change: impl FnOnce(&mut RelayServerConfig)) -> Bench {
        Bench::with(false, change)
    }

    pub(super) fn with(allow_private: bool, change: impl FnOnce(&mut RelayServerConfig)) -> Bench {
        let mut limits = RelayServerConfig::default();
        change(&mut limits);
        let key = Keypair::ed25519_from_bytes([9; 32]).expect("32 bytes are a key");
        let mut bench = Bench {
            server: RelayServer::new(&limits, allow_private, &key.public()),
            world: World { listens: vec![tcp("44.9.9.9")], ..World::default() },
            key: Key(key),
            now: Instant::from_millis(1_000),
            unix: UNIX,
            actions: vec![],
            last: 1_000,
        };
        bench.join(HOLDER, "44.1.1.1");
        bench.join(INITIATOR, "44.2.2.2");
        bench
    }

    /// A relay whose holder has a reservation, made on stream 100.
    pub(super) fn reserved(change: impl FnOnce(&mut RelayServerConfig)) -> Bench {
        let mut bench = Bench::new(change);
        assert_eq!(bench.reserve(HOLDER, 100), Some(RelayStatus::Ok));
        bench
    }

    /// A relay that passes bytes between the two, on stream 1.
    pub(super) fn bridged(change: impl FnOnce(&mut RelayServerConfig)) -> Bench {
        let mut bench = Bench::reserved(change);
        bench.connect(INITIATOR, 1, HOLDER);
        bench.target_says(1, RelayStatus::Ok).expect("an answer");
        bench
    }

    pub(super) fn join(&mut self, conn: ConnId, from: &str) -> PeerId {
        let peer = PeerId::random();
        self.join_as(conn, peer, ip(from));
        peer
    }

    pub(super) fn join_as(&mut self, conn: ConnId, peer: PeerId, from: IpAddr) {
        let (local, remote) = (tcp("44.9.9.9"), Addr::tcp(from, 50_000));
        let rtt = Some(Duration::from_millis(100));
        self.world.callers.insert(conn, Caller { peer, local, remote, relayed: false, rtt });
    }

    pub(super) fn caller(&mut self, conn: ConnId) -> &mut Caller {
        self.world.callers.get_mut(&conn).expect("joined")
    }

    pub(super) fn peer(&self, conn: ConnId) -> PeerId {
        self.world.callers[&conn].peer
    }

    pub(super) fn relay(&self) -> PeerId {
        self.key.0.public().to_peer_id()
    }

    pub(super) fn step<T>(
        &mut self,
        fact: impl FnOnce(&mut RelayServer, &mut Cx<'_>, &World) -> T,
    ) -> T {
        let mut actions = Actions::new();
        let mut cx = Cx {
            now: self.now,
            unix: UnixTime::from_millis(self.unix),
            draw: &mut Fixed(0),
            sign: &mut self.key,
            actions: &mut actions,
        };
        let result = fact(&mut self.server, &mut cx, &self.world);
        self.server.advance(&mut cx);
        assert!(self.server.deadline().is_none_or(|deadline| deadline.at > self.now));
        self.actions = actions.drain().collect();
        result
    }

    pub(super) fn open(&mut self, conn: ConnId, number: u64) -> Result<(), Oddity> {
        self.step(|server, cx, world| server.opened(cx, world, conn, hop(number)))
    }

    pub(super) fn send(&mut self, number: u64, said: &HopMessage) -> Result<(), Oddity> {
        self.send_raw(hop(number), &said.encode())
    }

    pub(super) fn send_raw(&mut self, stream: StreamId, body: &Bytes) -> Result<(), Oddity> {
        self.step(|server, cx, world| server.frame(cx, world, stream, body))
    }

    /// Ask for a reservation. The actions are those of the answer.
    pub(super) fn reserve(&mut self, conn: ConnId, number: u64) -> Option<RelayStatus> {
        self.open(conn, number).ok()?;
        self.send(number, &HopMessage::Reserve).expect("a request");
        let actions = self.actions.clone();
        let status = self.status(number);
        self.close(hop(number), StreamEnd::Finished);
        self.actions = actions;
        status
    }

    /// Ask for a reservation on a stream that is left open, under a number of the bench's own.
    pub(super) fn reserve_and_stay(&mut self, conn: ConnId) -> Option<RelayStatus> {
        self.last += 1;
        let number = self.last;
        self.open(conn, number).ok()?;
        self.send(number, &HopMessage::Reserve).expect("a request");
        self.status(number)
    }

    /// Ask for a circuit to whoever is behind `to`.
    pub(super) fn connect(&mut self, conn: ConnId, number: u64, to: ConnId) -> Option<RelayStatus> {
        let peer = self.peer(to);
        self.connect_to(conn, number, peer)
    }

    pub(super) fn connect_to(
        &mut self,
        conn: ConnId,
        number: u64,
        peer: PeerId,
    ) -> Option<RelayStatus> {
        self.open(conn, number).ok()?;
        self.send(number, &HopMessage::Connect { peer }).expect("a request");
        self.status(number)
    }

    pub(super) fn target_says(&mut self, number: u64, status: RelayStatus) -> Result<(), Oddity> {
        self.send_raw(stop(number), &StopMessage::Status { status }.encode())
    }

    pub(super) fn close(&mut self, stream: StreamId, end: StreamEnd) {
        self.step(|server, cx, _| server.closed(cx, stream, end));
    }

    pub(super) fn leave(&mut self, conn: ConnId) {
        self.step(|server, cx, world| server.disconnected(cx, world, conn));
        self.world.callers.remove(&conn);
    }

    pub(super) fn bridge_ended(&mut self, number: u64, end: BridgeEnd) -> Result<(), Oddity> {
        let ended = RelayEvent::BridgeEnded { stream: hop(number), end, forth: 7, back: 9 };
        self.step(|server, cx, _| server.record(cx, &ended))
    }

    pub(super) fn drain(&mut self) {
        self.step(|server, cx, _| server.record(cx, &RelayEvent::Draining)).expect("an order");
    }

    pub(super) fn sleep_until_due(&mut self) -> Wake {
        let deadline = self.server.deadline().expect("something is due");
        self.now = deadline.at;
        self.step(|_, _, _| ());
        deadline.wake
    }

    pub(super) fn pass(&mut self, span: Duration) {
        self.now = self.now + span;
        self.step(|_, _, _| ());
    }

    /// The message sent on a hop stream in the last step.
    pub(super) fn said(&self, number: u64) -> Option<HopMessage> {
        let body = self.actions.iter().find_map(|action| sent_on(action, hop(number)))?;
        Some(HopMessage::decode(body).expect("what we write we can read"))
    }

    pub(super) fn status(&self, number: u64) -> Option<RelayStatus> {
        if let Some(HopMessage::Status { status, .. }) = self.said(number) {
            Some(status)
        } else {
            None
        }
    }

    pub(super) fn granted(&self, number: u64) -> Reservation {
        if let Some(HopMessage::Status { reservation: Some(granted), .. }) = self.said(number) {
            granted
        } else {
            panic!("granted, of all things: {:?}", self.actions)
        }
    }

    pub(super) fn did(&self, action: &Action) -> bool {
        self.actions.contains(action)
    }

    pub(super) fn heard(&self) -> Vec<RelayNotice> {
        let notice = |action: &Action| {
            if let Action::Notify(Notice::Relay(notice)) = action {
                Some(notice.clone())
            } else {
                None
            }
        };
        self.actions.iter().filter_map(notice).collect()
    }

    pub(super) fn is_over(&self) -> bool {
        self.server.in_use().circuits == 0 && self.server.exchanges.len() == 0
    }
}
