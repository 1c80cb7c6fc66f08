//! A bench to put the server on, for tests: facts in, actions out.

use super::*;
use crate::service::fake::{Fixed, World, sent_on};
use crate::wire::autonat::{ResponseStatus, dial_data_chunk};
use crate::wire::multiaddr;
use crate::{Addr, Duration, Family, PeerId, UnixTime};
use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;

pub(super) const ASKER: ConnId = ConnId(1);
pub(super) const DIALLED: ConnId = ConnId(100);

/// A server with one requester, 44.1.1.1, whose round trip takes 100 ms.
pub(super) struct Bench {
    pub(super) server: DialBackServer,
    pub(super) world: World,
    pub(super) now: Instant,
    pub(super) actions: Vec<Action>,
    pub(super) drawn: u64,
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(super) fn tcp(text: &str) -> Addr {
    Addr::tcp(ip(text), 4001)
}

pub(super) fn stream(number: u64) -> StreamId {
    StreamId::inbound(Protocol::DialRequest, number)
}

pub(super) fn back(dial: u64) -> StreamId {
    StreamId::outbound(Protocol::DialBack, dial)
}

pub(super) fn request(addrs: &[Addr]) -> Bytes {
    let addrs = addrs.iter().copied().map(multiaddr::encode).collect();
    Message::DialRequest { addrs, nonce: 7 }.encode()
}

impl Bench {
    pub(super) fn new(change: impl FnOnce(&mut DialBackConfig)) -> Bench {
        Bench::with(false, change)
    }

    pub(super) fn with(allow_private: bool, change: impl FnOnce(&mut DialBackConfig)) -> Bench {
        let mut limits = DialBackConfig::default();
        change(&mut limits);
        let mut bench = Bench {
            server: DialBackServer::new(&limits, allow_private),
            world: World {
                listens: vec![tcp("44.9.9.9")],
                families: vec![Family::Ip4],
                heard: true,
                ..World::default()
            },
            now: Instant::from_millis(1_000),
            actions: vec![],
            drawn: 0,
        };
        bench.join(ASKER, "44.1.1.1");
        bench
    }

    pub(super) fn join(&mut self, conn: ConnId, from: &str) {
        self.world.callers.insert(
            conn,
            Caller {
                peer: PeerId::random(),
                local: tcp("44.9.9.9"),
                remote: Addr::tcp(ip(from), 50_000),
                relayed: false,
                rtt: Some(Duration::from_millis(100)),
            },
        );
    }

    pub(super) fn asker(&mut self) -> &mut Caller {
        self.world.callers.get_mut(&ASKER).expect("joined")
    }

    pub(super) fn step<T>(
        &mut self,
        fact: impl FnOnce(&mut DialBackServer, &mut Cx<'_>, &World) -> T,
    ) -> T {
        let mut actions = crate::Actions::new();
        let (mut draw, mut sign) = (Fixed(self.drawn), Fixed(0));
        let mut cx = Cx {
            now: self.now,
            unix: UnixTime::from_millis(0),
            draw: &mut draw,
            sign: &mut sign,
            actions: &mut actions,
        };
        let result = fact(&mut self.server, &mut cx, &self.world);
        self.server.advance(&mut cx);
        assert!(self.server.deadline().is_none_or(|deadline| deadline.at > self.now));
        self.actions = actions.drain().collect();
        result
    }

    pub(super) fn open(&mut self, conn: ConnId, number: u64) -> Result<(), Oddity> {
        self.step(|server, cx, world| server.opened(cx, world, conn, stream(number)))
    }

    pub(super) fn send(&mut self, number: u64, body: &Bytes) -> Result<(), Oddity> {
        self.step(|server, cx, world| server.frame(cx, world, stream(number), body))
    }

    pub(super) fn ask_on(&mut self, conn: ConnId, number: u64, addrs: &[Addr]) {
        self.open(conn, number).expect("a new stream");
        self.send(number, &request(addrs)).expect("a request");
    }

    pub(super) fn ask(&mut self, addrs: &[Addr]) {
        self.ask_on(ASKER, 1, addrs);
    }

    pub(super) fn pay(&mut self, len: usize) -> Result<(), Oddity> {
        self.send(1, &dial_data_chunk(len))
    }

    pub(super) fn connect(&mut self, dial: u64) -> Result<(), Oddity> {
        let peer = self.asker().peer;
        self.connect_to(dial, peer)
    }

    pub(super) fn connect_to(&mut self, dial: u64, peer: PeerId) -> Result<(), Oddity> {
        let facts = Connected {
            conn: DIALLED,
            peer,
            side: Side::Outbound,
            local: Addr::tcp(ip("44.9.9.9"), 33_333),
            remote: tcp("44.1.1.1"),
            relayed: false,
            dial: Some(DialId(dial)),
            rtt: None,
        };
        self.step(|server, cx, _| server.connected(cx, DialId(dial), &facts))
    }

    pub(super) fn fail(&mut self, dial: u64, reason: DialFailure) -> Result<(), Oddity> {
        self.step(|server, cx, world| server.dial_failed(cx, world, DialId(dial), reason))
    }

    pub(super) fn close(&mut self, stream: StreamId, end: StreamEnd) {
        self.step(|server, cx, _| server.closed(cx, stream, end));
    }

    pub(super) fn disconnect(&mut self, conn: ConnId) {
        self.step(|server, cx, _| server.disconnected(cx, conn));
    }

    pub(super) fn sleep_until_due(&mut self) -> Wake {
        let deadline = self.server.deadline().expect("something is due");
        self.now = deadline.at;
        self.step(|_, _, _| ());
        deadline.wake
    }

    pub(super) fn dials(&self) -> Vec<Dial> {
        let dial = |action: &Action| {
            if let Action::Dial(dial) = action { Some(*dial) } else { None }
        };
        self.actions.iter().filter_map(dial).collect()
    }

    /// The message sent on a request stream in the last step.
    pub(super) fn said(&self, number: u64) -> Option<Message> {
        let body = self.actions.iter().find_map(|action| sent_on(action, stream(number)))?;
        Some(Message::decode(body).expect("what we write we can read"))
    }

    pub(super) fn answered(&self, status: ResponseStatus, addr_idx: u32, dial_status: DialStatus) {
        let answer = Message::DialResponse { status, addr_idx, dial_status, failed_from: None };
        assert_eq!(self.said(1), Some(answer), "{:?}", self.actions);
        assert!(self.did(&Action::CloseStream { stream: stream(1) }));
    }

    pub(super) fn did(&self, action: &Action) -> bool {
        self.actions.contains(action)
    }

    pub(super) fn served(&self) -> Option<(Option<Addr>, Served)> {
        self.actions.iter().find_map(|action| {
            if let Action::Notify(Notice::DialBackServed { addr, answer, .. }) = action {
                Some((*addr, *answer))
            } else {
                None
            }
        })
    }
}

pub(super) const HOME: &str = "44.1.1.1";
pub(super) const RESET: Action =
    Action::ResetStream { stream: StreamId::inbound(Protocol::DialRequest, 1) };
pub(super) const HANG_UP: Action = Action::Disconnect { conn: DIALLED };
