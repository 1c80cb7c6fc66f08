//! Who connects to whom, and what is said when that fails.

use super::{BOTH, EVERYWHERE, builder, dial, node, start};
use futures::StreamExt;
use portolan_core::{Notice, Side, Transport};
use portolan_runtime::net;
use portolan_runtime::{DialError, Limits, ListenError, Node, StartError, identity};
use portolan_tests::lab::{Lab, soon, until};
use portolan_tests::portolan_peer::on_one_host;

portolan_tests::on_every_runtime! {
    #[tokio::test]
    nodes_connect_over_every_class_and_say_from_where,
    a_node_without_listeners_dials_from_any_port,
    another_peer_than_expected_is_refused_and_named,
    a_failed_dial_names_the_address_and_what_is_wrong,
    a_port_in_use_is_an_error_that_names_the_address,
    too_many_connections_are_refused,
    one_source_cannot_take_all_connections,
    a_dial_that_cannot_share_the_listen_port_says_so,
    a_failed_start_leaves_no_port_taken;
}

async fn nodes_connect_over_every_class_and_say_from_where<L: Lab>(lab: &L) {
    let server = node(lab, &EVERYWHERE).await;
    let client = node(lab, &EVERYWHERE).await;
    let listeners = client.listeners().await;
    for dialled in dial(&client, &server).await {
        assert_eq!(dialled.peer, server.peer_id());
        assert!(dialled.port_reused, "{dialled:?}");
        // The dial leaves from the listener of its class.
        let from = format!("{}/p2p/{}", dialled.local, client.peer_id());
        assert!(listeners.iter().any(|listener| listener.to_string() == from), "{from}");
    }
    until(async || server.connections().await.len() == EVERYWHERE.len()).await;
    let there = server.connections().await;
    for here in client.connections().await {
        assert_eq!((here.peer, here.side), (server.peer_id(), Side::Outbound));
        let same = there.iter().find(|there| there.remote == here.local);
        let same = same.expect("the server sees the address that the client claims");
        assert_eq!((same.peer, same.side), (client.peer_id(), Side::Inbound));
        assert_eq!(same.local, here.remote);
    }
}

async fn a_node_without_listeners_dials_from_any_port<L: Lab>(lab: &L) {
    let server = node(lab, &BOTH).await;
    let client = node(lab, &[]).await;
    assert!(client.listeners().await.is_empty());
    for dialled in dial(&client, &server).await {
        assert!(!dialled.port_reused);
        assert_ne!(dialled.local.port, 0);
    }
}

async fn another_peer_than_expected_is_refused_and_named<L: Lab>(lab: &L) {
    let server = node(lab, &BOTH).await;
    let client = node(lab, &[]).await;
    let expected = identity::generate().public().to_peer_id();
    for addr in server.listeners().await {
        let addr = addr.to_string();
        let (addr, _) = addr.split_once("/p2p/").expect("it names the peer");
        let wrong = format!("{addr}/p2p/{expected}").parse().expect("an address");
        let error = soon(client.dial(wrong)).await.expect_err("another peer lives there");
        let told = error.to_string();
        let DialError::Failed { error: net::DialError::WrongPeer { found, .. }, .. } = error else {
            panic!("{error:?}")
        };
        assert_eq!(found, server.peer_id());
        for part in [addr, &expected.to_string(), &found.to_string()] {
            assert!(told.contains(part), "{told}");
        }
    }
    assert!(client.connections().await.is_empty());
}

async fn a_failed_dial_names_the_address_and_what_is_wrong<L: Lab>(lab: &L) {
    let gone = node(lab, &["/ip4/127.0.0.1/tcp/0"]).await;
    let addr = gone.listeners().await.remove(0);
    soon(gone.shutdown()).await;
    let client = node(lab, &["/ip4/127.0.0.1/tcp/0"]).await;
    let error = soon(client.dial(addr.clone())).await.expect_err("nobody listens");
    assert!(error.to_string().contains(&addr.to_string()), "{error}");
    let refused = matches!(error, DialError::Failed { error: net::DialError::Refused(_), .. });
    assert!(refused, "{error:?}");

    for bad in ["/ip4/127.0.0.1/tcp/1/ws", "/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/1"] {
        let error = soon(client.dial(bad.parse().expect("a multiaddr"))).await;
        let error = error.expect_err("it cannot be dialled");
        assert!(matches!(error, DialError::Address { .. }), "{error:?}");
        assert!(error.to_string().contains(bad), "{error}");
    }
    let itself = client.listeners().await.remove(0);
    let error = soon(client.dial(itself)).await.expect_err("it is the node itself");
    assert!(matches!(error, DialError::Oneself(_)), "{error:?}");
}

async fn a_port_in_use_is_an_error_that_names_the_address<L: Lab>(lab: &L) {
    for any in EVERYWHERE {
        let first = node(lab, &[any]).await;
        let taken = first.listeners().await.remove(0).to_string();
        let (taken, _) = taken.split_once("/p2p/").expect("it names the peer");
        let error =
            builder(lab, on_one_host(), &[taken]).start().await.expect_err("the port is taken");
        assert!(matches!(error, StartError::Listen(ListenError::Socket(_))), "{error:?}");
        assert!(error.to_string().contains(taken), "{error}");
        // The same at run time, which harms nothing.
        let second = node(lab, &[]).await;
        let addr = taken.parse().expect("an address");
        let error = soon(second.listen(addr)).await.expect_err("the port is taken");
        assert!(error.to_string().contains(taken), "{error}");
        let bound = soon(second.listen(any.parse().expect("an address"))).await;
        assert_eq!(second.listeners().await, [bound.expect("a free port")]);
    }
}

async fn too_many_connections_are_refused<L: Lab>(lab: &L) {
    let mut limits = Limits::default();
    limits.per_peer_max = 2;
    limits.connections_max = 3;
    let strict =
        builder(lab, on_one_host(), &BOTH).limits(limits).start().await.expect("free ports");
    // The dialling side says so at once.
    let server = node(lab, &BOTH).await;
    for _ in 0..2 {
        soon(strict.dial(server.listeners().await.remove(0))).await.expect("there is room");
    }
    let error = soon(strict.dial(server.listeners().await.remove(0))).await;
    let error = error.expect_err("there are two already");
    assert!(matches!(error, DialError::TooManyWithPeer { .. }), "{error:?}");
    // The listening side closes what is over the limit: one more peer, and not another one.
    let third = node(lab, &[]).await;
    soon(third.dial(strict.listeners().await.remove(0))).await.expect("there is room");
    until(async || strict.connections().await.len() == 3).await;
    let fourth = node(lab, &[]).await;
    // The handshakes are through before the limit is looked at, so that the dial may succeed.
    drop(soon(fourth.dial(strict.listeners().await.remove(0))).await);
    until(async || fourth.connections().await.is_empty()).await;
    assert_eq!(strict.connections().await.len(), 3);
}

async fn one_source_cannot_take_all_connections<L: Lab>(lab: &L) {
    let mut limits = Limits::default();
    limits.inbound_per_source_max = 2;
    let strict =
        builder(lab, on_one_host(), &BOTH).limits(limits).start().await.expect("free ports");
    let mut clients = Vec::new();
    for _ in 0..4 {
        let client = node(lab, &[]).await;
        drop(dial(&client, &strict).await);
        clients.push(client);
    }
    let left = async || {
        let mut left = 0;
        for client in &clients {
            left += client.connections().await.len();
        }
        left
    };
    until(async || left().await == 2).await;
    let there = strict.connections().await;
    assert_eq!(there.len(), 2);
    assert!(there.iter().any(|conn| conn.local.transport == Transport::Tcp));
}

async fn a_dial_that_cannot_share_the_listen_port_says_so<L: Lab>(lab: &L) {
    let server = node(lab, &["/ip4/127.0.0.1/tcp/0"]).await;
    let client = node(lab, &["/ip4/127.0.0.1/tcp/0"]).await;
    let mut notices = client.notices();
    let first = dial(&client, &server).await.remove(0);
    // The same two ends again: the kernel has no room for a second connection between them.
    let second = dial(&client, &server).await.remove(0);
    assert!(first.port_reused);
    assert!(!second.port_reused);
    assert_ne!(second.local.port, first.local.port);
    until(async || server.connections().await.len() == 2).await;
    let seen = server.connections().await;
    assert!(seen.iter().any(|conn| conn.remote == second.local), "{seen:?}");
    // Core heard the truth: what the peer sees on the second one is no address of ours.
    let mut identified = 0;
    while identified < 2 {
        let noticed = soon(notices.next()).await.expect("the node lives");
        identified += usize::from(matches!(noticed.notice, Notice::Identified { .. }));
    }
    let explanation = client.explain().await.expect("it runs");
    let ports = explanation.addresses.iter().map(|address| address.addr.port);
    assert!(ports.clone().all(|port| port == first.local.port), "{:?}", ports.collect::<Vec<_>>());
}

async fn a_failed_start_leaves_no_port_taken<L: Lab>(lab: &L) {
    for any in BOTH {
        let other = node(lab, &[any]).await;
        let first_of = async |node: &Node<L::Runtime>| {
            let addr = node.listeners().await.remove(0).to_string();
            addr.split_once("/p2p/").expect("it names the peer").0.to_owned()
        };
        let taken = first_of(&other).await;
        let gone = node(lab, &[any]).await;
        let free = first_of(&gone).await;
        soon(gone.shutdown()).await;
        let error =
            builder(lab, on_one_host(), &[&free, &taken]).start().await.expect_err("one is taken");
        assert!(error.to_string().contains(&taken), "{error}");
        start(lab, on_one_host(), Limits::default(), &[&free]).await;
    }
}
