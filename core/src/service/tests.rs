//! Identify's answers, pushes and ping from outside; the dial-back server has its own tests.

use super::fake::{Fixed, World, sent_on};
use super::*;
use crate::wire::identify::Identify;
use crate::wire::multiaddr;
use crate::wire::peer_record::PeerRecord;
use crate::wire::relay::HopMessage;
use crate::{Actions, DialBackConfig, Instant, RelayServerConfig, Signer, UnixTime, Wake};
use alloc::string::{String, ToString};
use alloc::vec;
use libp2p_identity::Keypair;

const A: ConnId = ConnId(1);
const B: ConnId = ConnId(2);

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn home(port: u16) -> Addr {
    Addr::tcp(ip("44.9.9.9"), port)
}

fn ask(number: u64) -> StreamId {
    StreamId::inbound(Protocol::Identify, number)
}

fn push(number: u64) -> StreamId {
    StreamId::outbound(Protocol::IdentifyPush, number)
}

fn ping(number: u64) -> StreamId {
    StreamId::inbound(Protocol::Ping, number)
}

struct Key(Keypair);

impl Signer for Key {
    fn sign(&mut self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).expect("ed25519 always signs")
    }
}

/// A node with two connections to different peers, which take pushes.
struct Bench {
    service: Service,
    world: World,
    key: Key,
    now: Instant,
    unix: u64,
    actions: Vec<Action>,
}

impl Bench {
    fn new(config: &Config) -> Bench {
        let key = Keypair::generate_ed25519();
        let mut bench = Bench {
            service: Service::new(config, &key.public()),
            world: World { pushable: vec![A, B], revision: 1, ..World::default() },
            key: Key(key),
            now: Instant::ZERO,
            unix: 1_000,
            actions: vec![],
        };
        bench.join(A, PeerId::random());
        bench.join(B, PeerId::random());
        bench
    }

    fn join(&mut self, conn: ConnId, peer: PeerId) {
        let remote = Addr::quic(ip("44.1.1.1"), 5_000);
        let caller = Caller { peer, local: home(1), remote, relayed: false, rtt: None };
        self.world.callers.insert(conn, caller);
    }

    fn step<T>(&mut self, fact: impl FnOnce(&mut Service, &mut Cx<'_>, &World) -> T) -> T {
        let mut actions = Actions::new();
        let mut cx = Cx {
            now: self.now,
            unix: UnixTime::from_millis(self.unix),
            draw: &mut Fixed(0),
            sign: &mut self.key,
            actions: &mut actions,
        };
        let result = fact(&mut self.service, &mut cx, &self.world);
        self.service.advance(&mut cx, &self.world);
        assert!(self.service.deadline().is_none_or(|deadline| deadline.at > self.now));
        self.actions = actions.drain().collect();
        result
    }

    fn keeps(&self, conn: ConnId) -> bool {
        self.service.keeps(self.now, &self.world, conn)
    }

    fn open(&mut self, conn: ConnId, stream: StreamId) -> Result<(), Oddity> {
        self.step(|service, cx, world| service.opened(cx, world, conn, stream))
    }

    fn frame(&mut self, stream: StreamId, body: &Bytes) -> Result<(), Oddity> {
        self.step(|service, cx, world| service.frame(cx, world, stream, body))
    }

    fn close(&mut self, stream: StreamId, end: StreamEnd) -> Result<(), Oddity> {
        self.step(|service, cx, _| service.closed(cx, stream, end))
    }

    fn prove(&mut self, addrs: &[Addr]) {
        self.world.proven = addrs.to_vec();
        self.world.revision += 1;
        self.step(|_, _, _| ());
    }

    fn told(&self, stream: StreamId) -> Option<Identify> {
        let mut bodies = self.actions.iter().filter_map(|action| sent_on(action, stream));
        let decode = |body: &Bytes| Identify::decode(body).expect("what we write we can read");
        let first = decode(bodies.next()?);
        Some(bodies.fold(first, |mut all, body| {
            all.merge(decode(body));
            all
        }))
    }

    fn record(&self, stream: StreamId) -> PeerRecord {
        let identify = self.told(stream).expect("an answer");
        let envelope = identify.signed_peer_record.expect("a record");
        PeerRecord::open(&envelope).expect("a valid signature of our own")
    }

    fn pushes(&self) -> Vec<ConnId> {
        let opened = |action: &Action| {
            if let Action::OpenStream { conn, .. } = action { Some(*conn) } else { None }
        };
        self.actions.iter().filter_map(opened).collect()
    }
}

#[test]
fn an_answer_says_who_where_and_what() {
    let config = Config { protocols: vec!["/app/1".to_string()], ..Config::default() };
    let mut bench = Bench::new(&config);
    bench.prove(&[home(4001)]);
    bench.open(A, ask(1)).expect("a question");
    let told = bench.told(ask(1)).expect("an answer");
    assert_eq!(told.public_key, Some(bench.key.0.public().encode_protobuf().into()));
    assert_eq!(told.listen_addrs, [multiaddr::encode(home(4001))]);
    assert_eq!(told.observed, Some(multiaddr::encode(bench.world.callers[&A].remote)));
    assert_eq!(told.agent_version, Some(config.agent_version));
    assert_eq!(told.protocol_version.as_deref(), Some("ipfs/0.1.0"));
    let names: Vec<&str> = told.protocols.iter().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "/ipfs/id/1.0.0",
            "/ipfs/id/push/1.0.0",
            "/ipfs/ping/1.0.0",
            "/libp2p/autonat/2/dial-back",
            "/app/1",
        ]
    );
    let record = bench.record(ask(1));
    assert_eq!(record.addrs, told.listen_addrs);
    assert_eq!(bench.actions.last(), Some(&Action::CloseStream { stream: ask(1) }));
}

#[test]
fn circuits_are_told_and_certified_after_direct_addresses() {
    let mut bench = Bench::new(&Config::default());
    let circuit = CircuitAddr { relay: PeerId::random(), addr: home(4002) };
    bench.world.circuits = vec![circuit];
    bench.prove(&[home(4001)]);
    bench.open(A, ask(1)).expect("a question");
    let both = [multiaddr::encode(home(4001)), multiaddr::encode_circuit(circuit)];
    assert_eq!(bench.told(ask(1)).expect("an answer").listen_addrs, both);
    assert_eq!(bench.record(ask(1)).addrs, both);
    bench.world.circuits.clear();
    bench.prove(&[]);
    assert_eq!(bench.pushes(), [A, B], "withdrawn at once");
    assert!(bench.record(push(1)).addrs.is_empty());
    bench.world.circuits = vec![circuit];
    bench.close(push(1), StreamEnd::Finished).expect("its end");
    bench.prove(&[]);
    assert_eq!(bench.record(push(3)).addrs, both[1..], "where nothing else is proven");
}

#[test]
fn dial_request_is_listed_and_taken_by_servers_only() {
    let requests = Protocol::DialRequest.name();
    let stream = StreamId::inbound(Protocol::DialRequest, 1);
    let mut bench = Bench::new(&Config::default());
    assert_eq!(bench.open(A, stream), Err(Oddity::UnknownStream));
    assert_eq!(bench.actions, [Action::ResetStream { stream }]);

    let config = Config { dial_back: Some(DialBackConfig::default()), ..Config::default() };
    let mut bench = Bench::new(&config);
    bench.open(A, stream).expect("a request to come");
    bench.open(A, ask(1)).expect("a question");
    assert!(bench.told(ask(1)).expect("an answer").protocols.iter().any(|name| name == requests));
    assert!(bench.keeps(A) && !bench.keeps(B));
}

#[test]
fn who_asked_for_a_dial_back_is_kept_for_as_long_as_he_pings() {
    let config = Config { dial_back: Some(DialBackConfig::default()), ..Config::default() };
    let mut bench = Bench::new(&config);
    bench.open(A, ping(1)).expect("a ping stream");
    bench.open(B, ping(2)).expect("a ping stream");
    assert!(!bench.keeps(A), "pinging alone is no reason");
    let request = StreamId::inbound(Protocol::DialRequest, 1);
    bench.open(A, request).expect("a request to come");
    let body = Bytes::from_static(&[7; 32]);
    for _ in 0..10 {
        bench.now = bench.now + Duration::from_secs(25);
        bench.frame(ping(1), &body).expect("a ping");
        bench.frame(ping(2), &body).expect("a ping");
        assert!(bench.keeps(A) && !bench.keeps(B));
    }
    bench.now = bench.now + PATRON_FOR;
    bench.step(|_, _, _| ());
    assert!(!bench.keeps(A));
}

#[test]
fn a_relayed_peer_is_not_told_where_its_relay_is() {
    let mut bench = Bench::new(&Config::default());
    bench.world.callers.get_mut(&A).expect("joined").relayed = true;
    bench.open(A, ask(1)).expect("a question");
    let told = bench.told(ask(1)).expect("an answer");
    assert_eq!(told.observed, None);
    assert_eq!(told.signed_peer_record, None, "nothing is proven");
}

#[test]
fn the_sequence_number_rises_whatever_the_clock_does() {
    let mut bench = Bench::new(&Config::default());
    let mut last = 0;
    for (unix, port) in [(1_000, 1), (1_000, 2), (500, 3), (0, 4), (9_000, 5)] {
        bench.unix = unix;
        bench.prove(&[home(port)]);
        bench.open(A, ask(u64::from(port))).expect("a question");
        let seq = bench.record(ask(u64::from(port))).seq;
        assert!(seq > last, "{seq} after {last}");
        last = seq;
        let again = ask(100 + u64::from(port));
        bench.open(A, again).expect("a question");
        assert_eq!(bench.record(again).seq, seq, "the same record for the same addresses");
        bench.close(ask(u64::from(port)), StreamEnd::Finished).expect("its end");
        bench.close(again, StreamEnd::Finished).expect("its end");
    }
    assert_eq!(last, 9_000);
}

#[test]
fn a_change_is_pushed_once_to_every_peer_that_takes_pushes() {
    let mut bench = Bench::new(&Config::default());
    bench.open(A, ask(1)).expect("a question");
    assert_eq!(bench.pushes(), [], "nothing changed");
    bench.prove(&[home(4001)]);
    assert_eq!(bench.pushes(), [A, B]);
    let told = bench.told(push(1)).expect("a push");
    assert_eq!(told.listen_addrs, [multiaddr::encode(home(4001))]);
    assert_eq!(bench.record(push(2)).addrs, told.listen_addrs);
    assert!(bench.keeps(A));

    // News while a push is in flight waits for its end, and only the last is told.
    bench.prove(&[home(4002)]);
    bench.prove(&[home(4003)]);
    assert_eq!(bench.pushes(), []);
    bench.open(A, push(1)).expect("our push");
    bench.close(push(1), StreamEnd::Finished).expect("its end");
    assert_eq!(bench.pushes(), [A]);
    assert_eq!(bench.told(push(3)).expect("a push").listen_addrs, [multiaddr::encode(home(4003))]);
    bench.close(push(3), StreamEnd::Finished).expect("its end");
    bench.world.revision += 1;
    bench.step(|_, _, _| ());
    assert_eq!(bench.pushes(), [], "a revision without a change");
}

#[test]
fn what_was_asked_for_is_not_pushed_too() {
    let mut bench = Bench::new(&Config::default());
    bench.world.proven = vec![home(4001)];
    bench.world.revision += 1;
    bench.open(A, ask(1)).expect("a question");
    assert_eq!(bench.pushes(), []);
    bench.open(B, ask(2)).expect("a question");
    assert_eq!(bench.pushes(), []);
}

#[test]
fn a_withdrawal_is_certified() {
    let mut bench = Bench::new(&Config::default());
    bench.prove(&[home(4001)]);
    bench.open(A, ask(1)).expect("a question");
    let before = bench.record(ask(1)).seq;
    bench.prove(&[]);
    assert_eq!(bench.pushes(), [A, B]);
    let record = bench.record(push(1));
    assert!(record.addrs.is_empty() && record.seq > before);
}

#[test]
fn a_peer_with_two_connections_gets_one_push() {
    let mut bench = Bench::new(&Config::default());
    let peer = bench.world.callers[&A].peer;
    bench.join(B, peer);
    bench.step(|_, _, _| ());
    bench.prove(&[home(4001)]);
    assert_eq!(bench.pushes(), [A]);
    bench.close(push(1), StreamEnd::Finished).expect("its end");
    assert_eq!(bench.pushes(), []);
}

/// Whether an answer lists hop, and how full it says that the service is.
fn hop_of(told: &Identify) -> (bool, Option<u16>) {
    (told.protocols.iter().any(|name| name == Protocol::Hop.name()), told.relay_load)
}

#[test]
fn hop_is_listed_with_its_load_while_it_is_offered_and_withdrawn_by_push() {
    let limits = RelayServerConfig { reservations_max: 2, ..RelayServerConfig::default() };
    let config = Config { relay_server: Some(limits), ..Config::default() };
    let mut bench = Bench::new(&config);
    bench.open(A, ask(1)).expect("a question");
    assert_eq!(hop_of(&bench.told(ask(1)).expect("an answer")), (true, Some(0)));
    bench.open(B, ask(2)).expect("a question");

    let hop = StreamId::inbound(Protocol::Hop, 1);
    bench.open(A, hop).expect("a request to come");
    assert!(bench.keeps(A) && !bench.keeps(B));
    bench.frame(hop, &HopMessage::Reserve.encode()).expect("a request");
    assert_eq!(bench.service.relay_load().map(|load| load.reservations), Some(1));
    assert!(bench.keeps(A), "it holds a reservation");
    bench.world.revision += 1;
    bench.step(|_, _, _| ());
    assert_eq!(bench.pushes(), [], "a load is no news");
    bench.open(A, ask(3)).expect("a question");
    assert_eq!(hop_of(&bench.told(ask(3)).expect("an answer")), (true, Some(500)));

    bench.step(|service, cx, _| service.relay(cx, &RelayEvent::Draining)).expect("an order");
    assert_eq!(bench.pushes(), [A, B]);
    let told = bench.told(push(1)).expect("a push");
    assert_eq!(hop_of(&told), (false, None));
    assert!(told.protocols.iter().any(|name| name == Protocol::Identify.name()), "the rest stays");
    bench.step(|service, cx, world| service.disconnected(cx, world, A));
    assert_eq!(bench.service.relay_load().map(|load| load.reservations), Some(0));
}

#[test]
fn hop_is_offered_where_we_may_serve_if_that_is_wanted() {
    let limits = RelayServerConfig { only_while_may_serve: true, ..RelayServerConfig::default() };
    let config = Config { relay_server: Some(limits), ..Config::default() };
    let mut bench = Bench::new(&config);
    bench.open(A, ask(1)).expect("a question");
    assert_eq!(hop_of(&bench.told(ask(1)).expect("an answer")), (false, None));
    bench.step(|_, _, _| ());
    assert_eq!(bench.pushes(), []);
    bench.world.may_serve = true;
    bench.step(|_, _, _| ());
    assert_eq!(bench.pushes(), [A, B]);
    assert_eq!(hop_of(&bench.told(push(1)).expect("a push")), (true, Some(0)));
    bench.world.may_serve = false;
    bench.step(|_, _, _| ());
    assert_eq!(bench.pushes(), [], "those before are still in flight");
    bench.close(push(1), StreamEnd::Finished).expect("its end");
    assert_eq!(hop_of(&bench.told(push(3)).expect("a push")), (false, None));
}

#[test]
fn a_stuck_push_is_given_up_and_a_failed_one_not_repeated() {
    let mut bench = Bench::new(&Config::default());
    bench.step(|_, _, _| ());
    bench.prove(&[home(4001)]);
    bench
        .step(|service, cx, _| service.failed(cx, push(2), StreamFailure::Unsupported))
        .expect("our push");
    assert_eq!(bench.actions, []);
    let deadline = bench.service.deadline().expect("a push is in flight");
    assert_eq!(deadline.wake, Wake::PushOverdue);
    bench.now = deadline.at;
    bench.step(|_, _, _| ());
    assert_eq!(bench.actions, [Action::ResetStream { stream: push(1) }]);
    assert_eq!(bench.service.deadline(), None);

    bench.prove(&[home(4002)]);
    bench.step(|service, cx, world| service.disconnected(cx, world, A));
    bench.world.callers.remove(&A);
    assert!(bench.service.deadline().is_some(), "the other push");
    bench.step(|service, cx, world| service.disconnected(cx, world, B));
    assert_eq!(bench.service.deadline(), None);
}

#[test]
fn pushes_come_in_portions() {
    let mut bench = Bench::new(&Config::default());
    let conns: Vec<ConnId> = (10..110).map(ConnId).collect();
    for conn in &conns {
        bench.join(*conn, PeerId::random());
    }
    bench.world.pushable = conns;
    bench.step(|_, _, _| ());
    bench.prove(&[home(4001)]);
    assert_eq!(bench.pushes().len(), 64);
    bench.close(push(7), StreamEnd::Finished).expect("its end");
    assert_eq!(bench.pushes(), [ConnId(74)]);
}

#[test]
fn identify_streams_are_few_and_silent() {
    let mut bench = Bench::new(&Config::default());
    bench.open(A, ask(1)).expect("a question");
    assert_eq!(bench.open(A, ask(1)), Err(Oddity::ReusedId));
    bench.open(A, ask(2)).expect("a question");
    assert_eq!(bench.open(A, ask(3)), Err(Oddity::Full));
    assert_eq!(bench.actions, [Action::ResetStream { stream: ask(3) }]);
    assert_eq!(bench.frame(ask(2), &Bytes::new()), Err(Oddity::UnexpectedFrame));
    assert_eq!(bench.actions, [Action::ResetStream { stream: ask(2) }]);
    bench.open(A, ask(4)).expect("a question");
    assert_eq!(bench.open(ConnId(99), ask(5)), Err(Oddity::UnknownConnection));
    assert_eq!(bench.frame(ask(9), &Bytes::new()), Err(Oddity::UnknownStream));
}

#[test]
fn pings_are_echoed_on_two_streams_a_connection() {
    let mut bench = Bench::new(&Config::default());
    bench.open(A, ping(1)).expect("a ping stream");
    bench.open(A, ping(2)).expect("a ping stream");
    assert_eq!(bench.open(A, ping(3)), Err(Oddity::Full));
    assert_eq!(bench.actions, [Action::ResetStream { stream: ping(3) }]);
    bench.open(B, ping(4)).expect("another connection's");
    let body = Bytes::from_static(&[7; 32]);
    for _ in 0..2 {
        bench.frame(ping(1), &body).expect("a ping");
        assert_eq!(bench.actions, [Action::Send { stream: ping(1), body: body.clone() }]);
    }
    bench.close(ping(1), StreamEnd::Finished).expect("its end");
    assert_eq!(bench.actions, [Action::CloseStream { stream: ping(1) }]);
    assert_eq!(bench.close(ping(2), StreamEnd::BadFrame), Err(Oddity::MalformedFrame));
    assert_eq!(bench.actions, []);
    assert_eq!(bench.frame(ping(2), &body), Err(Oddity::UnknownStream));
    bench.open(A, ping(5)).expect("room again");
    bench.step(|service, cx, world| service.disconnected(cx, world, A));
    assert_eq!(bench.frame(ping(5), &body), Err(Oddity::UnknownStream));
}
