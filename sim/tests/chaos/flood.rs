//! Floods: however much comes in, memory stays bounded, and what has left is forgotten.
//!
//! The size of an agent is that of its debug form, which names everything it holds.

use crate::world::{Lab, World, key};
use bytes::Bytes;
use portolan_core::wire::autonat::{Message, dial_data_chunk};
use portolan_core::wire::identify::Identify;
use portolan_core::wire::multiaddr;
use portolan_core::{
    Action, Addr, ConnId, Connected, Duration, Event, IpScope, ListenerId, PeerId, Protocol,
    ProtocolSet, Side, State, StreamFailure, StreamId, ip_scope,
};
use std::net::{IpAddr, Ipv4Addr};

/// A global IP of a network of its own.
fn network(n: u32) -> IpAddr {
    let ip = IpAddr::from(Ipv4Addr::from_bits(0x2c00_0001 + (n << 8)));
    assert_eq!(ip_scope(ip), IpScope::Global);
    ip
}

fn size(world: &World) -> usize {
    format!("{:?}", world.agent).len()
}

fn listening(lab: Lab) -> World {
    let mut world = World::new(lab);
    let addr = Addr::tcp(Ipv4Addr::UNSPECIFIED.into(), 4001);
    world.push(Event::ListenerOpened { listener: ListenerId(1), addr });
    world.push(Event::InterfacesChanged { ips: vec![Ipv4Addr::new(192, 168, 1, 2).into()] });
    world
}

/// A connection from or to a network of its own. Its peer, by default, has no key that we know.
fn connect(world: &mut World, n: u32, side: Side, peer: PeerId) -> ConnId {
    let conn = ConnId(world.fresh());
    world.push(Event::Connected(Connected {
        conn,
        peer,
        side,
        local: Addr::tcp(Ipv4Addr::new(192, 168, 1, 2).into(), 4001),
        remote: Addr::tcp(network(n), 4001),
        relayed: false,
        dial: None,
        rtt: Some(Duration::from_millis(30)),
    }));
    conn
}

/// Peer ids in any number: an identity multihash needs no key.
fn stranger(n: u32) -> PeerId {
    let mut bytes = vec![0, 36, 8, 1, 18, 32];
    bytes.extend([0; 28]);
    bytes.extend(n.to_be_bytes());
    PeerId::from_bytes(&bytes).expect("an identity multihash of an ed25519 key's form")
}

/// Disconnect all, and let time pass until nothing is due.
fn all_leave(world: &mut World) {
    let conns: Vec<ConnId> = world.conns.keys().copied().collect();
    for conn in conns {
        world.push(Event::Disconnected { conn });
    }
    world.pass(Duration::from_secs(25 * 3_600));
    world.push(Event::Tick);
    world.push(Event::Contacted { ip: network(0) });
}

#[test]
fn five_thousand_connections_are_bounded_and_forgotten() {
    let mut world = listening(Lab::Internet);
    let empty = size(&world);
    for n in 0..5_000 {
        world.pass(Duration::from_millis(1));
        let side = if n % 3 == 0 { Side::Inbound } else { Side::Outbound };
        let conn = connect(&mut world, n, side, stranger(n));
        let asked = StreamId::outbound(Protocol::Identify, 0);
        let mine = |(stream, one): (&StreamId, &crate::world::Stream)| {
            (stream.protocol == asked.protocol && one.conn == conn).then_some(*stream)
        };
        // The newest stream has the highest number.
        if let Some(stream) = world.streams.iter().rev().find_map(mine) {
            let identify = Identify {
                protocols: vec![Protocol::DialRequest.name().to_owned()],
                observed: Some(multiaddr::encode(Addr::tcp(
                    Ipv4Addr::new(99, 0, 0, 7).into(),
                    4001,
                ))),
                ..Identify::default()
            };
            let body = identify.encode_split().messages.swap_remove(0);
            world.push(Event::Frame { stream, body });
        }
    }
    let full = size(&world);
    let explained = world.agent.explain();
    assert!(explained.servers.len() <= 256, "{} servers", explained.servers.len());
    assert!(explained.ignored > 800, "the connections over the limit are named");
    assert!(world.asks.iter().filter(|ask| !ask.ended).count() <= 8);
    assert!(full < empty + 4_096 * 3_000, "{full} bytes with 4,096 connections");
    all_leave(&mut world);
    let left = size(&world);
    assert!(left < empty + 700_000, "{left} bytes are left of {full}, {empty} at first");
}

#[test]
fn after_a_long_sleep_a_thousand_connections_are_pinged_in_turns_servers_first() {
    let mut world = listening(Lab::Internet);
    for n in 0..1_000 {
        let side = if n % 3 == 0 { Side::Inbound } else { Side::Outbound };
        let conn = connect(&mut world, n, side, stranger(n));
        let (&stream, _) = world.streams.iter().next_back().expect("it is asked who it is");
        world.push(Event::StreamFailed { stream, reason: StreamFailure::Unsupported });
        if n >= 990 {
            let protocols = ProtocolSet::NONE.with(Protocol::DialRequest);
            world.push(Event::ProtocolsListed { conn, protocols });
        }
    }
    let servers: Vec<ConnId> = world.conns.keys().rev().take(10).copied().collect();
    world.pass(Duration::from_secs(3_600));
    let slept = Duration::from_secs(3_600);
    let mut actions = world.push(Event::Resumed { slept });
    let mut pinged = Vec::new();
    for turn in 0..16 {
        let opened = |protocol| {
            let of = move |action: &Action| match action {
                Action::OpenStream { conn, stream } if stream.protocol == protocol => Some(*conn),
                _ => None,
            };
            actions.iter().filter_map(of).collect::<Vec<ConnId>>()
        };
        let asked_again = opened(Protocol::Identify);
        assert_eq!(asked_again.len(), if turn == 0 { 64 } else { 0 });
        assert!(asked_again.iter().all(|conn| world.conns[conn].facts.side == Side::Outbound));
        let pings = opened(Protocol::Ping);
        assert_eq!(pings.len(), if turn < 15 { 64 } else { 1_000 - 15 * 64 }, "turn {turn}");
        if turn == 0 {
            assert!(servers.iter().all(|conn| pings.contains(conn)), "servers come first");
            assert!(servers.iter().filter(|conn| asked_again.contains(conn)).count() >= 6);
        }
        pinged.extend(pings);
        // One second is one turn; the echoes do not come, which is nobody's turn.
        world.pass(Duration::from_secs(1));
        actions = world.push(Event::Tick);
    }
    pinged.sort();
    pinged.dedup();
    assert_eq!(pinged.len(), 1_000, "everybody once");
}

#[test]
fn ten_thousand_observations_of_as_many_networks_are_bounded_and_cannot_crowd_out_candidates() {
    let mut world = listening(Lab::Embedder);
    let truth = Addr::tcp(Ipv4Addr::new(99, 0, 0, 7).into(), 4001);
    let mut largest = 0;
    for n in 0..10_000_u32 {
        world.pass(Duration::from_millis(5));
        let conn = connect(&mut world, n, Side::Outbound, stranger(n));
        let port = u16::try_from(n % 60_000 + 1).expect("a port");
        let lie = Addr::tcp(network(20_000 + n), port);
        let observed = if n % 2 == 0 { truth } else { lie };
        world.push(Event::Observed { conn, observed });
        if n >= 100 {
            world.push(Event::Disconnected { conn });
        }
        if n % 1_000 == 999 {
            largest = largest.max(size(&world));
        }
    }
    let explained = world.agent.explain();
    assert!(explained.addresses.len() <= 64, "{} addresses", explained.addresses.len());
    let best = explained.addresses.first().map(|address| address.addr);
    assert_eq!(best, Some(truth), "what most networks say comes first");
    assert!(largest < 1_500_000, "{largest} bytes");
}

#[test]
fn a_thousand_dial_requests_are_bounded_and_rationed() {
    let mut world = listening(Lab::Internet);
    let before = size(&world);
    let mut dials = 0;
    let mut largest = 0;
    for n in 0..1_000 {
        world.pass(Duration::from_millis(10));
        let conn = connect(&mut world, n / 4, Side::Inbound, stranger(n / 3));
        let stream = StreamId::inbound(Protocol::DialRequest, u64::from(n));
        let actions = world.push(Event::StreamOpened { conn, stream });
        if actions.iter().any(|one| matches!(one, Action::ResetStream { .. })) {
            continue;
        }
        let other = if n % 2 == 0 { network(n / 4) } else { network(30_000) };
        let target = Addr::tcp(other, 4001);
        world.requested.insert(stream, vec![target]);
        let addrs = vec![multiaddr::encode(target)];
        let body = Message::DialRequest { addrs, nonce: n.into() }.encode();
        let mut actions = world.push(Event::Frame { stream, body });
        for _ in 0..30 {
            let body = dial_data_chunk(4_096);
            actions.extend(world.push(Event::Frame { stream, body }));
        }
        dials += actions.iter().filter(|one| matches!(one, Action::Dial(_))).count();
        largest = largest.max(size(&world));
    }
    // Ten seconds: at most the global bucket and what grew meanwhile, and eight in flight at once.
    assert!((1..=70).contains(&dials), "{dials} dials in ten seconds");
    assert!(largest < before + 2_500_000, "{largest} bytes");
    all_leave(&mut world);
    let left = size(&world);
    assert!(left < before + 120_000, "{left} bytes are left of {largest}, {before} at first");
}

#[test]
fn greedy_servers_get_no_more_dial_data_than_the_budget() {
    let mut world = listening(Lab::Embedder);
    let truth = Addr::tcp(Ipv4Addr::new(99, 0, 0, 7).into(), 4001);
    let started = world.now;
    let mut paid = 0;
    for n in 0..60 {
        let conn = connect(&mut world, n, Side::Outbound, stranger(n));
        world.push(Event::Observed { conn, observed: truth });
        let protocols = ProtocolSet::NONE.with(Protocol::DialRequest);
        world.push(Event::ProtocolsListed { conn, protocols });
    }
    while world.now < started + Duration::from_secs(590) {
        for ask in world.asks.clone() {
            let open = world.streams.get(&ask.stream).is_some_and(|stream| !stream.mute);
            if !open {
                continue;
            }
            let body = Message::DialDataRequest { addr_idx: 0, num_bytes: 100_000 }.encode();
            for action in world.push(Event::Frame { stream: ask.stream, body }) {
                if let Action::Send { stream, body } = action
                    && stream == ask.stream
                {
                    paid += body.len();
                }
            }
            world.push(Event::Frame { stream: ask.stream, body: Bytes::from_static(b"?") });
        }
        world.pass(Duration::from_secs(1));
        world.push(Event::Tick);
    }
    assert!((90_000..=850_000).contains(&paid), "{paid} bytes of dial data in ten minutes");
}

#[test]
fn one_peer_with_silent_dial_backs_cannot_keep_a_proof_out() {
    let mut world = listening(Lab::Embedder);
    let silent = connect(&mut world, 1, Side::Inbound, stranger(1));
    for n in 0..500 {
        let stream = StreamId::inbound(Protocol::DialBack, 1_000 + n);
        world.push(Event::StreamOpened { conn: silent, stream });
    }
    let server = connect(&mut world, 2, Side::Outbound, key(0).public().to_peer_id());
    let truth = Addr::tcp(Ipv4Addr::new(99, 0, 0, 7).into(), 4001);
    world.push(Event::Observed { conn: server, observed: truth });
    let protocols = ProtocolSet::NONE.with(Protocol::DialRequest);
    world.push(Event::ProtocolsListed { conn: server, protocols });
    let nonce = world.asks.first().expect("the server is asked").nonce;
    let back = connect(&mut world, 3, Side::Inbound, stranger(2));
    let stream = StreamId::inbound(Protocol::DialBack, 5_000);
    world.push(Event::StreamOpened { conn: back, stream });
    let body = portolan_core::wire::autonat::DialBack { nonce }.encode();
    world.push(Event::Frame { stream, body });
    let verdict = world.agent.reachability().verdict(truth).map(|one| one.state());
    assert_eq!(verdict, Some(State::Reachable));
}
