//! What a comparison must see, and what it must not.

use crate::record::Step;
use crate::told::{Known, Told, difference};
use bytes::Bytes;
use portolan_core::wire::autonat::DialBack;
use portolan_core::{
    Action, Addr, ConnId, Connected, Duration, Event, ListenerId, Notice, Oddity, PeerId, Protocol,
    Side, StreamEnd, StreamId,
};
use std::net::{IpAddr, Ipv4Addr};

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A run with one connection and a dial-back on it, and what may be another way.
#[derive(Clone)]
struct Run {
    peer: PeerId,
    listen: u16,
    conn: u64,
    local: u16,
    remote: u16,
    rtt: Option<Duration>,
    number: u64,
    nonces: [u64; 2],
    end: StreamEnd,
    ticks: usize,
    conns: usize,
    about: Option<u64>,
}

impl Run {
    fn of(peer: PeerId) -> Run {
        Run {
            peer,
            listen: 4001,
            conn: 1,
            local: 4001,
            remote: 50_000,
            rtt: Some(Duration::from_millis(1)),
            number: 3,
            nonces: [7, 7],
            end: StreamEnd::Finished,
            ticks: 0,
            conns: 1,
            about: Some(1),
        }
    }

    fn steps(&self) -> Vec<Step> {
        let addr = Addr::tcp(HOST, self.listen);
        let opened = Event::ListenerOpened { listener: ListenerId(0), addr };
        let mut steps = vec![(opened, Vec::new())];
        steps.extend(vec![(Event::Tick, Vec::new()); self.ticks]);
        for nth in 0..self.conns as u64 {
            steps.extend(self.connection(ConnId(self.conn + nth), nth));
        }
        steps
    }

    fn connection(&self, conn: ConnId, nth: u64) -> Vec<Step> {
        let connected = Event::Connected(Connected {
            conn,
            peer: self.peer,
            side: Side::Inbound,
            local: Addr::tcp(HOST, self.local),
            remote: Addr::tcp(HOST, self.remote),
            relayed: false,
            dial: None,
            rtt: self.rtt,
        });
        let stream = StreamId::inbound(Protocol::DialBack, self.number + nth);
        let frame = |nonce| Event::Frame { stream, body: DialBack { nonce }.encode() };
        let about = self.about.map(ConnId);
        let ignored = Action::Notify(Notice::Ignored { oddity: Oddity::UnknownNonce, conn: about });
        vec![
            (connected, Vec::new()),
            (Event::StreamOpened { conn, stream }, Vec::new()),
            (frame(self.nonces[0]), vec![ignored]),
            (frame(self.nonces[1]), Vec::new()),
            (Event::StreamClosed { stream, end: self.end }, Vec::new()),
            (Event::Disconnected { conn }, Vec::new()),
        ]
    }

    fn told(&self, known: PeerId) -> Told {
        told(&self.steps(), known)
    }
}

fn told(steps: &[Step], known: PeerId) -> Told {
    let mut names = Known::default();
    names.peer(known, "Peer");
    Told::of(steps, names)
}

#[test]
fn what_cannot_be_the_same_is_not_compared() {
    let peer = PeerId::random();
    let one = Run::of(peer).told(peer);
    let other = PeerId::random();
    let other = Run {
        listen: 4002,
        conn: 9,
        local: 4002,
        remote: 50_001,
        rtt: Some(Duration::from_millis(2)),
        number: 5,
        nonces: [8, 8],
        ticks: 3,
        about: Some(9),
        ..Run::of(other)
    }
    .told(other);
    assert_eq!(difference(&one, &other), None);
}

#[test]
fn what_matters_is_compared() {
    let peer = PeerId::random();
    let run = Run::of(peer);
    let one = run.told(peer);
    let others = [
        ("another peer", Run { peer: PeerId::random(), ..run.clone() }),
        ("a port that is not listened on", Run { local: 4002, ..run.clone() }),
        ("a port that is listened on", Run { remote: 4001, ..run.clone() }),
        ("no round-trip time", Run { rtt: None, ..run.clone() }),
        ("the nonce of another probe", Run { nonces: [7, 8], ..run.clone() }),
        ("another end", Run { end: StreamEnd::Reset, ..run.clone() }),
        ("one connection more", Run { conns: 2, about: Some(1), ..run.clone() }),
        ("a notice about another connection", Run { about: Some(2), ..run.clone() }),
        ("a notice about none", Run { about: None, ..run.clone() }),
    ];
    for (what, other) in others {
        assert!(difference(&one, &other.told(peer)).is_some(), "{what} is not seen");
    }
    let steps = run.steps();
    for at in 0..steps.len() {
        let mut fewer = steps.clone();
        fewer.remove(at);
        assert!(difference(&one, &told(&fewer, peer)).is_some(), "step {at} is not missed");
        if at > 1 {
            let mut swapped = steps.clone();
            swapped.swap(at - 1, at);
            let same = steps[at - 1] == steps[at];
            let seen = difference(&one, &told(&swapped, peer)).is_some();
            assert!(seen || same, "the order of steps {} and {at} is not seen", at - 1);
        }
    }
}

#[test]
fn a_difference_shows_the_lines() {
    let peer = PeerId::random();
    let run = Run::of(peer);
    let other = Run { end: StreamEnd::Reset, ..run.clone() };
    let shown = difference(&run.told(peer), &other.told(peer)).expect("they differ");
    for line in ["a connection (1 and 1 of them):", "- < finished <dial-back:0 (Peer)", "+ < reset"]
    {
        assert!(shown.contains(line), "{line:?} is not in\n{shown}");
    }
    let both = Run { conns: 2, about: None, ..run.clone() };
    let one = Run { about: None, ..run };
    let shown = difference(&one.told(peer), &both.told(peer)).expect("they differ");
    assert!(shown.contains("a connection (0 and 1 of them):"), "{shown}");
}

#[test]
fn addresses_in_frames_lose_their_ports_too() {
    let said = portolan_core::wire::identify::Identify {
        observed: Some(portolan_core::wire::multiaddr::encode(Addr::quic(HOST, 4001))),
        listen_addrs: vec![portolan_core::wire::multiaddr::encode(Addr::quic(HOST, 1))],
        ..Default::default()
    };
    let body: Bytes = said.encode_split().messages.remove(0);
    let (conn, stream) = (ConnId(1), StreamId::outbound(Protocol::Identify, 1));
    let opened = (Event::StreamOpened { conn, stream }, Vec::new());
    let listening = Event::ListenerOpened {
        listener: ListenerId(0),
        addr: Addr::quic(Ipv4Addr::UNSPECIFIED.into(), 4001),
    };
    let steps = [(listening, Vec::new()), opened, (Event::Frame { stream, body }, Vec::new())];
    let told = told(&steps, PeerId::random());
    assert!(told.has("observed=/ip4/127.0.0.1/udp/Node-l0/quic-v1"), "{told}");
    // The number of this port begins an IP and ends another port.
    assert!(told.has("listen=[/ip4/127.0.0.1/udp/any/quic-v1]"), "{told}");
}
