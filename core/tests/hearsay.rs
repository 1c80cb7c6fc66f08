//! AutoNAT v1, the asking side, from outside: facts in, actions out. What servers of v1 say gives
//! the node a state while nobody proves anything, and does nothing else.

use bytes::Bytes;
use libp2p_identity::Keypair;
use portolan_core::wire::autonat::{DialStatus, Message, ResponseStatus, v1};
use portolan_core::{
    Action, Actions, Addr, Agent, Config, ConnId, Connected, Cx, Draw, Duration, Event,
    HearsayAnswer, Instant, ListenerId, NextProbe, NodeState, Notice, PeerId, Protocol,
    ProtocolSet, Reason, Side, Signer, StreamEnd, StreamFailure, StreamId, Wake, config,
};
use std::collections::BTreeMap;
use std::net::IpAddr;

const V1: ProtocolSet = ProtocolSet::NONE.with(Protocol::AutonatV1);
const V2: ProtocolSet = ProtocolSet::NONE.with(Protocol::DialRequest);
const BOTH: ProtocolSet = V1.with(Protocol::DialRequest);
/// How long an answer takes.
const ROUND_TRIP: Duration = Duration::from_millis(40);

fn key(seed: u8) -> Keypair {
    Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes")
}

fn home() -> Addr {
    Addr::tcp([44, 9, 9, 9].into(), 4001)
}

struct Chance(u64);

impl Draw for Chance {
    fn below(&mut self, _: u64) -> u64 {
        0
    }

    fn nonce(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

struct Hand(Keypair);

impl Signer for Hand {
    fn sign(&mut self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).expect("ed25519 signs anything")
    }
}

/// One node, and servers that a test answers for.
struct World {
    agent: Agent,
    now: Instant,
    chance: Chance,
    actions: Vec<Action>,
    /// Questions of v1 and v2 that have no answer yet, by the server.
    asked: BTreeMap<u8, StreamId>,
    conns: BTreeMap<ConnId, u8>,
    next: u64,
}

impl World {
    fn new() -> World {
        World::with(|_| ())
    }

    fn with(change: impl FnOnce(&mut Config)) -> World {
        let mut config = Config::default();
        config.identify = false;
        config.ping_interval = None;
        config.external = vec![home()];
        change(&mut config);
        let agent = Agent::new(config, key(1).public()).expect("a configuration that works");
        let mut world = World {
            agent,
            now: Instant::from_millis(1_000),
            chance: Chance(0),
            actions: Vec::new(),
            asked: BTreeMap::new(),
            conns: BTreeMap::new(),
            next: 0,
        };
        world.listen(1, 4001);
        world
    }

    fn listen(&mut self, listener: u64, port: u16) {
        let addr = Addr::tcp([10, 0, 0, 2].into(), port);
        self.handle(Event::ListenerOpened { listener: ListenerId(listener), addr });
    }

    fn handle(&mut self, event: Event) {
        let mut actions = Actions::new();
        let mut hand = Hand(key(1));
        let mut cx = Cx {
            now: self.now,
            unix: portolan_core::UnixTime::from_millis(0),
            draw: &mut self.chance,
            sign: &mut hand,
            actions: &mut actions,
        };
        self.agent.handle(&mut cx, event);
        self.actions = actions.drain().collect();
        let (asked, conns) = (&mut self.asked, &self.conns);
        for action in &self.actions {
            if let Action::OpenStream { conn, stream } = action
                && let Some(server) = conns.get(conn)
            {
                asked.insert(*server, *stream);
            }
            if let Action::ResetStream { stream } = action {
                asked.retain(|_, one| one != stream);
            }
        }
    }

    /// Server `number`, in a network of its own, which offers this.
    fn meet(&mut self, number: u8, offers: ProtocolSet) -> ConnId {
        self.meet_at(number, [44, 0, number, 1].into(), offers)
    }

    fn meet_at(&mut self, number: u8, ip: IpAddr, offers: ProtocolSet) -> ConnId {
        self.next += 1;
        let conn = ConnId(self.next);
        self.conns.insert(conn, number);
        self.handle(Event::Connected(Connected {
            conn,
            peer: peer(number),
            side: Side::Outbound,
            local: Addr::tcp([10, 0, 0, 2].into(), 4001),
            remote: Addr::tcp(ip, 4001),
            relayed: false,
            dial: None,
            rtt: Some(ROUND_TRIP),
        }));
        self.handle(Event::ProtocolsListed { conn, protocols: offers });
        conn
    }

    fn part(&mut self, conn: ConnId) {
        self.conns.remove(&conn);
        self.handle(Event::Disconnected { conn });
    }

    fn say(&mut self, server: u8, body: Bytes) {
        self.now = self.now + ROUND_TRIP;
        let stream = self.asked.remove(&server).unwrap_or_else(|| panic!("{server} was not asked"));
        self.handle(Event::Frame { stream, body });
    }

    /// The server answers its question of v1.
    fn answer(&mut self, server: u8, status: v1::Status) {
        assert_eq!(self.asked[&server].protocol, Protocol::AutonatV1);
        self.say(server, v1::Message::DialResponse { status, addr: None }.encode());
    }

    /// Every server that was asked answers so; returns them.
    fn all_answer(&mut self, status: v1::Status) -> Vec<u8> {
        let asked: Vec<u8> = self.asked.keys().copied().collect();
        asked.iter().for_each(|server| self.answer(*server, status));
        asked
    }

    /// The server answers its question of v2: it could not dial, or will not.
    fn answer_v2(&mut self, server: u8, status: ResponseStatus, dial_status: DialStatus) {
        assert_eq!(self.asked[&server].protocol, Protocol::DialRequest);
        let failed_from = None;
        let said = Message::DialResponse { status, addr_idx: 0, dial_status, failed_from };
        self.say(server, said.encode());
    }

    /// Let time pass until something happens by itself.
    fn wake(&mut self) -> Wake {
        let deadline = self.agent.deadline().expect("something is due");
        self.now = deadline.at;
        self.handle(Event::Tick);
        deadline.wake
    }

    fn pass(&mut self, seconds: u64) {
        let until = self.now + Duration::from_secs(seconds);
        while self.agent.deadline().is_some_and(|deadline| deadline.at <= until) {
            self.wake();
        }
        self.now = until;
        self.handle(Event::Tick);
    }

    fn node(&self) -> (NodeState, Reason) {
        let node = self.agent.reachability().node();
        (node.state, node.reason)
    }

    /// Whether nothing but the state of the node shows that anybody said anything.
    fn is_hearsay_alone(&self) -> bool {
        let all = self.agent.explain();
        let unknown = |state| state == NodeState::Unknown;
        all.classes.iter().all(|class| unknown(class.state))
            && all.addresses.iter().all(|one| one.state == portolan_core::State::Unknown)
            && all.advertised.is_empty()
            && !all.may_serve
    }

    fn heard(&self) -> Vec<(u8, HearsayAnswer)> {
        let number = |peer: PeerId| (1..20).find(|number| crate::peer(*number) == peer);
        let servers = self.agent.explain().hearsay.servers.into_iter();
        servers.map(|one| (number(one.peer).expect("a server"), one.answer)).collect()
    }
}

fn peer(number: u8) -> PeerId {
    key(100 + number).public().to_peer_id()
}

/// A node that four servers of v1, in four networks, call public.
fn believed() -> World {
    let mut world = World::new();
    for number in 1..=4 {
        world.meet(number, V1);
        world.answer(number, v1::Status::Ok);
    }
    assert_eq!(world.node(), (NodeState::Public, Reason::Hearsay));
    world
}

#[test]
fn a_server_is_asked_at_once_who_we_are_and_where_we_may_be() {
    let mut world = World::new();
    let conn = world.meet(1, V1);
    let stream = StreamId::outbound(Protocol::AutonatV1, 1);
    let addrs = vec![portolan_core::wire::multiaddr::encode(home())];
    let (request, _) = v1::Message::dial(world.agent.peer_id(), addrs);
    let expected = [
        Action::OpenStream { conn, stream },
        Action::Send { stream, body: request.encode() },
        Action::CloseStream { stream },
    ];
    assert_eq!(world.actions[..3], expected);
    assert!(world.agent.keeps(conn));
    world.answer(1, v1::Status::Ok);
    let answer = HearsayAnswer::Reachable;
    let told = Action::Notify(Notice::HearsayHeard { peer: peer(1), answer });
    assert!(world.actions.contains(&told), "{:?}", world.actions);
    assert!(world.agent.keeps(conn), "it is asked again");
}

#[test]
fn four_networks_are_believed_and_nothing_follows_from_it() {
    for (status, state) in
        [(v1::Status::Ok, NodeState::Public), (v1::Status::DialError, NodeState::Private)]
    {
        let mut world = World::new();
        for number in 1..=4 {
            assert_eq!(world.node().0, NodeState::Unknown, "{number}");
            world.meet(number, V1);
            world.answer(number, status);
        }
        assert_eq!(world.node(), (state, Reason::Hearsay));
        assert!(world.is_hearsay_alone());
    }
}

#[test]
fn one_network_is_one_voice() {
    let mut world = World::new();
    for number in 1..=9 {
        world.meet_at(number, [44, 0, 1, number].into(), V1);
    }
    assert_eq!(world.asked.len(), 1, "one of them is asked");
    world.all_answer(v1::Status::Ok);
    assert_eq!(world.node().0, NodeState::Unknown);
}

#[test]
fn whoever_is_inside_our_network_is_not_asked() {
    let mut world = World::new();
    world.meet_at(1, [10, 0, 0, 9].into(), V1);
    assert!(world.asked.is_empty());
    let mut world = World::with(|config| config.allow_private = true);
    world.meet_at(1, [10, 0, 0, 9].into(), V1);
    assert_eq!(world.asked.len(), 1, "where private addresses count");
}

#[test]
fn over_a_circuit_nobody_is_asked() {
    let mut world = World::new();
    let conn = ConnId(77);
    world.conns.insert(conn, 1);
    world.handle(Event::Connected(Connected {
        conn,
        peer: peer(1),
        side: Side::Outbound,
        local: home(),
        remote: Addr::tcp([44, 0, 1, 1].into(), 4001),
        relayed: true,
        dial: None,
        rtt: None,
    }));
    world.handle(Event::ProtocolsListed { conn, protocols: V1 });
    assert!(world.asked.is_empty());
}

#[test]
fn it_is_not_asked_where_that_is_not_wanted() {
    let mut world = World::with(|config| config.hearsay = false);
    world.meet(1, V1);
    assert!(world.asked.is_empty());
    assert_eq!(world.agent.deadline(), None);
}

#[test]
fn refusals_faults_and_silence_say_nothing() {
    let mut world = World::new();
    let statuses = [
        v1::Status::DialRefused,
        v1::Status::BadRequest,
        v1::Status::InternalError,
        v1::Status::Unknown(1),
    ];
    for (number, status) in (1..).zip(statuses) {
        world.meet(number, V1);
        world.answer(number, status);
    }
    world.meet(5, V1);
    let stream = world.asked.remove(&5).expect("asked");
    world.handle(Event::StreamFailed { stream, reason: StreamFailure::Unsupported });
    world.meet(6, V1);
    let stream = world.asked.remove(&6).expect("asked");
    world.handle(Event::StreamClosed { stream, end: StreamEnd::Finished });
    world.meet(7, V1);
    assert_eq!(world.wake(), Wake::HearsayOverdue);
    world.meet(8, V1);
    world.say(8, Bytes::from_static(b"\xff"));
    assert_eq!(world.node().0, NodeState::Unknown);
    let nothing = (1..=8).map(|number| (number, HearsayAnswer::Nothing));
    assert_eq!(world.heard(), nothing.collect::<Vec<_>>());
}

/// What js-libp2p does, as a server.
#[test]
fn who_hangs_up_instead_of_answering_says_nothing() {
    let mut world = World::new();
    let conn = world.meet(1, V1);
    world.part(conn);
    assert_eq!(world.heard(), [(1, HearsayAnswer::Nothing)]);
    world.asked.clear();
    // It comes back at once, and is not driven away again soon.
    world.meet(1, V1);
    world.pass(800);
    assert_eq!(world.asked, BTreeMap::new());
    world.pass(100);
    assert_eq!(world.asked.keys().collect::<Vec<_>>(), [&1]);
}

#[test]
fn a_late_or_a_second_answer_is_nobodys() {
    let mut world = World::new();
    world.meet(1, V1);
    let stream = world.asked[&1];
    world.answer(1, v1::Status::Ok);
    let ignored = world.agent.explain().ignored;
    let body = v1::Message::DialResponse { status: v1::Status::DialError, addr: None }.encode();
    world.handle(Event::Frame { stream, body });
    assert_eq!(world.heard(), [(1, HearsayAnswer::Reachable)]);
    assert_eq!(world.agent.explain().ignored, ignored + 1);
}

#[test]
fn three_denials_flip_nothing_and_four_do() {
    let mut world = believed();
    for _ in 0..60 {
        world.pass(20);
        let asked: Vec<u8> = world.asked.keys().copied().collect();
        for server in asked {
            let word = if server == 1 { v1::Status::Ok } else { v1::Status::DialError };
            world.answer(server, word);
        }
        assert_eq!(world.node(), (NodeState::Public, Reason::Hearsay));
    }
    const { assert!(config::HEARSAY_FLIP_MIN > 3) };
    for _ in 0..60 {
        world.pass(20);
        world.all_answer(v1::Status::DialError);
    }
    assert_eq!(world.node(), (NodeState::Private, Reason::Hearsay));
}

#[test]
fn what_nobody_confirms_any_more_becomes_unknown() {
    let mut world = believed();
    let conns: Vec<ConnId> = world.conns.keys().copied().collect();
    conns.into_iter().for_each(|conn| world.part(conn));
    world.pass(29 * 60);
    assert_eq!(world.node().0, NodeState::Public);
    world.pass(60);
    assert_eq!(world.node().0, NodeState::Unknown);
    assert_eq!(world.agent.deadline(), None, "nobody is there to be asked");
}

#[test]
fn another_network_makes_all_of_it_void() {
    let mut world = believed();
    world.handle(Event::InterfacesChanged { ips: vec![[10, 0, 0, 7].into()] });
    assert_eq!(world.node().0, NodeState::Unknown);
    assert_eq!(world.all_answer(v1::Status::DialError), [1, 2, 3, 4], "asked again at once");
    assert_eq!(world.node(), (NodeState::Private, Reason::Hearsay));
}

#[test]
fn a_long_sleep_makes_all_of_it_void_and_a_nap_nothing() {
    let mut world = believed();
    let slept = Duration::from_secs(5);
    world.now = world.now + slept;
    world.handle(Event::Resumed { slept });
    assert_eq!(world.node().0, NodeState::Public);
    let slept = Duration::from_secs(3_600);
    world.now = world.now + slept;
    world.handle(Event::Resumed { slept });
    assert_eq!(world.node().0, NodeState::Unknown);
}

#[test]
fn where_nothing_is_listened_on_nobody_says_anything() {
    let mut world = believed();
    world.handle(Event::ListenerClosed { listener: ListenerId(1) });
    assert_eq!(world.node().0, NodeState::Unknown);
}

#[test]
fn a_server_of_v2_goes_first() {
    let mut world = World::new();
    world.meet(1, BOTH);
    assert_eq!(world.asked[&1].protocol, Protocol::DialRequest);
    world.meet(2, V1);
    assert!(!world.asked.contains_key(&2), "while evidence may be on its way");
    world.answer_v2(1, ResponseStatus::Refused, DialStatus::Unused);
    let asked: Vec<Protocol> = world.asked.values().map(|stream| stream.protocol).collect();
    assert_eq!(asked, [Protocol::AutonatV1; 2], "there is no evidence");
}

#[test]
fn it_is_told_when_an_address_is_probed_next() {
    let mut world = World::new();
    let next = |world: &World| world.agent.explain().addresses[0].next;
    world.meet(1, V1);
    assert_eq!(next(&world), NextProbe::WithServer, "nobody can prove anything");
    let conn = world.meet(2, V2);
    assert_eq!(next(&world), NextProbe::Now);
    world.answer_v2(2, ResponseStatus::Ok, DialStatus::DialError);
    let NextProbe::At(at) = next(&world) else { panic!("{:?}", next(&world)) };
    assert!(at > world.now && at < world.now + Duration::from_secs(60), "{at:?}");
    let left = at.since(world.now).as_secs() + 1;
    world.pass(left);
    assert_eq!(next(&world), NextProbe::Now, "as it was told");
    world.part(conn);
    assert_eq!(next(&world), NextProbe::WithServer, "nobody is there any more");
}

#[test]
fn a_failure_that_v2_found_makes_hearsay_void() {
    let mut world = believed();
    world.meet(5, V2);
    assert_eq!(world.node(), (NodeState::Public, Reason::Hearsay), "a question is no evidence");
    world.answer_v2(5, ResponseStatus::Ok, DialStatus::DialError);
    assert_eq!(world.node(), (NodeState::Private, Reason::DialFailed { servers: 1 }));
    assert_eq!(world.heard(), []);
    world.pass(3 * 3_600);
    let hearsay = |stream: &StreamId| stream.protocol == Protocol::AutonatV1;
    assert!(!world.asked.values().any(hearsay), "nobody is asked the old way any more");
}

#[test]
fn a_question_under_way_is_taken_back_when_evidence_comes() {
    let mut world = World::new();
    world.meet(1, V1);
    let old = world.asked[&1];
    world.meet(5, V2);
    world.answer_v2(5, ResponseStatus::Ok, DialStatus::DialError);
    assert!(world.actions.contains(&Action::ResetStream { stream: old }));
}

#[test]
fn what_the_operator_forces_stands_above_hearsay() {
    let mut world = World::with(|config| config.force_node = Some(NodeState::Private));
    for number in 1..=4 {
        world.meet(number, V1);
        world.answer(number, v1::Status::Ok);
    }
    assert_eq!(world.node(), (NodeState::Private, Reason::Forced));
}

#[test]
fn at_most_eight_networks_are_asked_and_those_out_of_reach_make_room() {
    let mut world = World::new();
    let first = world.meet(1, V1);
    world.answer(1, v1::Status::Ok);
    for number in 2..=12 {
        world.meet(number, V1);
    }
    assert_eq!(world.asked.len(), 7);
    world.all_answer(v1::Status::DialRefused);
    assert_eq!(world.heard().len(), 8);
    world.part(first);
    assert_eq!(world.all_answer(v1::Status::Ok), [9], "it takes the place");
    assert_eq!(world.heard().len(), 8);
}

#[test]
fn confirmed_words_are_asked_for_again_every_quarter_of_an_hour() {
    let mut world = believed();
    world.pass(90);
    assert_eq!(world.all_answer(v1::Status::Ok).len(), 4, "their first words confirmed nothing");
    world.pass(14 * 60);
    assert!(world.asked.is_empty());
    world.pass(60);
    assert_eq!(world.asked.len(), 4);
}
