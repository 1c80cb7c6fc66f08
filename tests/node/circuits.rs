//! Nodes that reach each other through a relay, all three of them ours.

use super::{BOTH, ECHO, ask, first_addr, quiet, serve_echo, start};
use futures::io::{AsyncReadExt, AsyncWriteExt};
use multiaddr::Multiaddr;
use portolan_core::wire::multiaddr::to_multiaddr;
use portolan_core::wire::multiaddr::{Decoded, from_multiaddr};
use portolan_core::{
    Addr, CircuitFailure, CircuitLimit, Config, RelayConfig, RelayNeed, RelayPeer,
    RelayServerConfig, RelayState, RelayStatus, Side,
};
use portolan_runtime::traits::Runtime;
use portolan_runtime::{ConnectionInfo, DialError, Limits, Node, identity};
use portolan_tests::lab::{Lab, soon, until};
use portolan_tests::portolan_peer::on_one_host;
use std::time::{Duration, Instant};

portolan_tests::on_every_runtime! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    a_peer_is_reached_through_a_relay,
    a_relay_that_is_connected_needs_no_address,
    a_limit_of_bytes_ends_the_circuit,
    a_limit_of_time_ends_the_circuit,
    circuits_end_with_the_connection_to_the_relay,
    a_connection_that_carries_circuits_is_not_idle,
    direct_connections_come_before_circuits;
    #[tokio::test]
    a_dial_through_a_relay_says_why_it_failed;
}

/// A relay that listens on one address of each transport.
pub(super) async fn relay<L: Lab>(lab: &L, limit: CircuitLimit) -> Node<L::Runtime> {
    let mut server = RelayServerConfig::default();
    server.limit = limit;
    let mut config = on_one_host();
    config.relay_server = Some(server);
    start(lab, config, Limits::default(), &BOTH).await
}

pub(super) const NO_LIMIT: CircuitLimit = CircuitLimit { duration: None, bytes: None };

/// A configuration that uses the relay at this address for all that it can.
pub(super) fn behind(relay: &Node<impl Runtime>, addr: Addr) -> Config {
    let mut uses = RelayConfig::default();
    uses.relays = vec![RelayPeer { peer: relay.peer_id(), addrs: vec![addr] }];
    uses.need = RelayNeed::Always;
    uses.reservations = 1;
    let mut config = on_one_host();
    config.relay = Some(uses);
    config
}

/// A configuration that reaches others through relays, and is not reached so itself.
pub(super) fn outward(mut config: Config) -> Config {
    let mut uses = RelayConfig::default();
    uses.need = RelayNeed::Never;
    config.relay = Some(uses);
    config
}

/// A node that echoes and is reached through the relay, and the address at which it is.
async fn reserved<L: Lab>(
    lab: &L,
    relay: &Node<L::Runtime>,
    addr: Addr,
) -> (Node<L::Runtime>, Multiaddr) {
    let node = start(lab, behind(relay, addr), Limits::default(), &[]).await;
    serve_echo(&node);
    until(async || !node.circuit_addresses().await.is_empty()).await;
    let through = soon(node.circuit_addresses()).await;
    let tail = format!("/p2p/{}/p2p-circuit/p2p/{}", relay.peer_id(), node.peer_id());
    for addr in &through {
        assert!(addr.to_string().ends_with(&tail), "{addr}");
    }
    let at = through.into_iter().next().expect("it was there");
    (node, at)
}

async fn caller<L: Lab>(lab: &L) -> Node<L::Runtime> {
    start(lab, outward(on_one_host()), Limits::default(), &[]).await
}

/// The addresses of a node, one of each transport, as sockets see them.
async fn addrs(node: &Node<impl Runtime>) -> Vec<Addr> {
    let decode = |named: Multiaddr| {
        let Decoded::Direct { addr, .. } = from_multiaddr(&named) else {
            panic!("{named} is no address of a socket");
        };
        addr
    };
    soon(node.listeners()).await.into_iter().map(decode).collect()
}

pub(super) fn through(
    relay: &Node<impl Runtime>,
    addr: Addr,
    to: &Node<impl Runtime>,
) -> Multiaddr {
    let at = to_multiaddr(addr, Some(relay.peer_id()));
    format!("{at}/p2p-circuit/p2p/{}", to.peer_id()).parse().expect("a multiaddr")
}

pub(super) async fn circuits(node: &Node<impl Runtime>) -> Vec<ConnectionInfo> {
    let all = soon(node.connections()).await;
    all.into_iter().filter(|connection| connection.relayed).collect()
}

fn text(size: usize) -> Vec<u8> {
    (0..size).map(|at| u8::try_from(at % 251).expect("it is less")).collect()
}

async fn a_peer_is_reached_through_a_relay<L: Lab>(lab: &L) {
    // What the defaults allow carries 100 kB both ways.
    let limit = RelayServerConfig::default().limit;
    let relay = relay(lab, limit).await;
    for to_relay in addrs(&relay).await {
        for from_relay in addrs(&relay).await {
            let (target, given) = reserved(lab, &relay, from_relay).await;
            let caller = caller(lab).await;
            assert!(given.to_string().starts_with(&from_relay.to_string()), "{given}");
            let dialled = soon(caller.dial(through(&relay, to_relay, &target))).await;
            let dialled = dialled.expect("the relay leads there");
            assert_eq!(dialled.peer, target.peer_id());
            assert!(dialled.relayed && !dialled.port_reused && dialled.rtt.is_some());
            assert_eq!(dialled.remote, to_relay);

            let stream = soon(caller.open_stream(target.peer_id(), ECHO)).await;
            let stream = stream.expect("it echoes");
            assert_eq!(stream.conn(), dialled.conn);
            let sent = text(100_000);
            assert!(ask(stream, &sent).await == sent, "the echo differs");

            for (node, peer, side) in [
                (&caller, target.peer_id(), Side::Outbound),
                (&target, caller.peer_id(), Side::Inbound),
            ] {
                let circuits = circuits(node).await;
                let [circuit] = circuits.as_slice() else { panic!("{circuits:?}") };
                assert_eq!((circuit.peer, circuit.side), (peer, side));
                assert_eq!((circuit.relay, circuit.limit), (Some(relay.peer_id()), Some(limit)));
                let below = soon(node.connections()).await;
                let below = below.into_iter().find(|below| !below.relayed).expect("the relay's");
                assert_eq!(below.peer, relay.peer_id());
                assert_eq!((below.local, below.remote), (circuit.local, circuit.remote));
                assert_eq!((below.relay, below.limit), (None, None));
            }
            let stands = soon(target.relays()).await;
            let with = stands.iter().find(|stands| stands.peer == relay.peer_id());
            let with = with.expect("it is known");
            assert_eq!((with.state, with.limit), (RelayState::Reserved, limit));
        }
    }
}

async fn a_relay_that_is_connected_needs_no_address<L: Lab>(lab: &L) {
    let relay = relay(lab, NO_LIMIT).await;
    let at = first_addr(&relay).await;
    let (target, _) = reserved(lab, &relay, at).await;
    let caller = caller(lab).await;
    let bare = format!("/p2p/{}/p2p-circuit/p2p/{}", relay.peer_id(), target.peer_id());
    let bare: Multiaddr = bare.parse().expect("a multiaddr");
    let error = soon(caller.dial(bare.clone())).await.expect_err("nobody knows the relay");
    assert!(matches!(error, DialError::NotConnected { .. }), "{error:?}");
    assert!(error.to_string().contains(&bare.to_string()), "{error}");

    soon(caller.dial(to_multiaddr(at, Some(relay.peer_id())))).await.expect("it listens");
    soon(caller.dial(bare)).await.expect("the relay is known by now");
    // One that is there is used again.
    let again = soon(caller.dial(through(&relay, at, &target))).await.expect("it leads there");
    assert!(again.relayed);
    let direct = soon(caller.connections()).await.into_iter().filter(|conn| !conn.relayed);
    assert_eq!(direct.count(), 1);
    let bytes = text(200_000);
    let stream = soon(caller.open_stream(target.peer_id(), ECHO)).await.expect("it echoes");
    assert!(ask(stream, &bytes).await == bytes, "the echo differs");
}

async fn a_limit_of_bytes_ends_the_circuit<L: Lab>(lab: &L) {
    let limit = CircuitLimit { duration: None, bytes: Some(50_000) };
    let relay = relay(lab, limit).await;
    for at in addrs(&relay).await {
        let (target, _) = reserved(lab, &relay, at).await;
        let caller = caller(lab).await;
        soon(caller.dial(through(&relay, at, &target))).await.expect("it leads there");
        let stream = soon(caller.open_stream(target.peer_id(), ECHO)).await.expect("it echoes");
        let (mut reader, mut writer) = stream.split();
        let sent = text(100_000);
        let mut got = Vec::new();
        let (_, read) = soon(futures::future::join(
            async {
                // It fails at some point, or what was taken goes nowhere.
                let _ = writer.write_all(&sent).await;
                let _ = writer.flush().await;
            },
            reader.read_to_end(&mut got),
        ))
        .await;
        drop(read);
        assert!(got.len() < 50_000 && sent.starts_with(&got), "{} bytes came back", got.len());
        until(async || circuits(&caller).await.is_empty()).await;
        until(async || circuits(&target).await.is_empty()).await;
    }
}

async fn a_limit_of_time_ends_the_circuit<L: Lab>(lab: &L) {
    let span = Duration::from_secs(1);
    let relay = relay(lab, CircuitLimit { duration: Some(span), bytes: None }).await;
    let at = first_addr(&relay).await;
    let (target, _) = reserved(lab, &relay, at).await;
    let caller = caller(lab).await;
    let begun_at = Instant::now();
    soon(caller.dial(through(&relay, at, &target))).await.expect("it leads there");
    let stream = soon(caller.open_stream(target.peer_id(), ECHO)).await.expect("it echoes");
    assert_eq!(ask(stream, b"in time").await, b"in time");
    until(async || circuits(&caller).await.is_empty()).await;
    assert!(begun_at.elapsed() >= span, "{:?}", begun_at.elapsed());
    until(async || circuits(&target).await.is_empty()).await;
    // The reservation holds, and the next circuit begins anew.
    soon(caller.dial(through(&relay, at, &target))).await.expect("it leads there");
}

async fn circuits_end_with_the_connection_to_the_relay<L: Lab>(lab: &L) {
    for index in 0..BOTH.len() {
        let relay = relay(lab, NO_LIMIT).await;
        let at = addrs(&relay).await[index];
        let (target, _) = reserved(lab, &relay, at).await;
        let caller = caller(lab).await;
        soon(caller.dial(through(&relay, at, &target))).await.expect("it leads there");
        let stream = soon(caller.open_stream(target.peer_id(), ECHO)).await.expect("it echoes");
        assert_eq!(ask(stream, b"while it lasts").await, b"while it lasts");
        assert_eq!(relay.disconnect(target.peer_id()).await, 1);
        until(async || circuits(&caller).await.is_empty()).await;
        until(async || circuits(&target).await.is_empty()).await;
    }
}

async fn a_connection_that_carries_circuits_is_not_idle<L: Lab>(lab: &L) {
    let relay = relay(lab, NO_LIMIT).await;
    let at = first_addr(&relay).await;
    let (target, _) = reserved(lab, &relay, at).await;
    let mut limits = Limits::default();
    limits.idle_timeout = Duration::from_millis(200);
    let caller = start(lab, outward(quiet()), limits, &[]).await;
    soon(caller.dial(through(&relay, at, &target))).await.expect("it leads there");
    let stream = soon(caller.open_stream(target.peer_id(), ECHO)).await.expect("it echoes");
    // sleep: several times as long as an idle connection lives.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(caller.connections().await.len(), 2);
    assert_eq!(ask(stream, b"still here").await, b"still here");
    until(async || caller.connections().await.is_empty()).await;
}

async fn direct_connections_come_before_circuits<L: Lab>(lab: &L) {
    let relay = relay(lab, NO_LIMIT).await;
    let at = first_addr(&relay).await;
    let target = start(lab, behind(&relay, at), Limits::default(), &BOTH).await;
    serve_echo(&target);
    until(async || !target.circuit_addresses().await.is_empty()).await;
    let caller = caller(lab).await;
    let direct = soon(caller.dial(soon(target.listeners()).await.remove(0))).await;
    let direct = direct.expect("it listens");
    assert!(!direct.relayed);
    let circuit = soon(caller.dial(through(&relay, at, &target))).await.expect("it leads there");
    assert!(circuit.relayed && circuit.conn > direct.conn);
    let stream = soon(caller.open_stream(target.peer_id(), ECHO)).await.expect("it echoes");
    assert_eq!(stream.conn(), direct.conn);
}

async fn a_dial_through_a_relay_says_why_it_failed<L: Lab>(lab: &L) {
    let relay = relay(lab, NO_LIMIT).await;
    let at = first_addr(&relay).await;
    let stranger = identity::generate().public().to_peer_id();
    let to = |at: Addr, relay, peer| -> Multiaddr {
        let at = to_multiaddr(at, Some(relay));
        format!("{at}/p2p-circuit/p2p/{peer}").parse().expect("a multiaddr")
    };
    let failed = async |from: &Node<L::Runtime>, addr: Multiaddr| {
        let error = soon(from.dial(addr.clone())).await.expect_err("it leads nowhere");
        assert!(error.to_string().contains(&addr.to_string()), "{error}");
        error
    };
    // A node that uses no relays.
    let without = start(lab, on_one_host(), Limits::default(), &[]).await;
    let error = failed(&without, to(at, relay.peer_id(), stranger)).await;
    assert!(matches!(error, DialError::NoRelays(_)), "{error:?}");

    let caller = caller(lab).await;
    for peer in [caller.peer_id(), relay.peer_id()] {
        let other = if peer == caller.peer_id() { relay.peer_id() } else { caller.peer_id() };
        let error = failed(&caller, to(at, other, peer)).await;
        assert!(matches!(error, DialError::Oneself(_)), "{error:?}");
    }
    // Another peer than the relay lives there.
    let error = failed(&caller, to(at, stranger, without.peer_id())).await;
    assert!(matches!(error, DialError::Relay { .. }), "{error:?}");
    // The peer has no reservation.
    let error = failed(&caller, to(at, relay.peer_id(), stranger)).await;
    let DialError::Circuit { reason, .. } = error else { panic!("{error:?}") };
    assert_eq!(reason, CircuitFailure::Refused(RelayStatus::NoReservation));
    // Who is asked does not relay.
    let plain = start(lab, on_one_host(), Limits::default(), &BOTH).await;
    let error = failed(&caller, to(first_addr(&plain).await, plain.peer_id(), stranger)).await;
    let DialError::Circuit { reason, .. } = error else { panic!("{error:?}") };
    assert_eq!(reason, CircuitFailure::Unsupported);
}
