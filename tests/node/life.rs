//! How connections and nodes end.

use super::{BOTH, Bare, ECHO, ask, dial, node, open, quiet, serve_echo, start};
use futures::StreamExt;
use futures::io::{AsyncReadExt, AsyncWriteExt};
use portolan_core::Protocol;
use portolan_runtime::{DialError, Limits, OpenError, Stopped};
use portolan_tests::lab::{Lab, soon, until};
use portolan_tests::portolan_peer::on_one_host;
use std::time::Duration;

portolan_tests::on_every_runtime! {
    #[tokio::test]
    an_idle_connection_is_closed_and_a_used_one_is_not,
    a_shutdown_ends_every_task,
    dropping_the_last_handle_ends_the_node,
    the_port_is_free_again_after_a_shutdown,
    a_shutdown_delivers_the_answer_that_is_under_way,
    a_disconnected_peer_is_gone_on_both_sides;
}

fn hasty() -> Limits {
    let mut limits = Limits::default();
    limits.idle_timeout = Duration::from_millis(100);
    limits
}

async fn an_idle_connection_is_closed_and_a_used_one_is_not<L: Lab>(lab: &L) {
    for addr in BOTH {
        let server = start(lab, quiet(), Limits::default(), &[addr]).await;
        let client = start(lab, quiet(), hasty(), &[]).await;
        serve_echo(&server);
        let mut stream = loop {
            // On a busy machine the connection may have been idle for too long already.
            dial(&client, &server).await;
            if let Ok(stream) = soon(client.open_stream(server.peer_id(), ECHO)).await {
                break stream;
            }
        };
        // Used for many times the time-out, though nothing is said on it.
        // sleep: that nothing happens for five idle time-outs is what is tested.
        tokio::time::sleep(Duration::from_millis(500)).await;
        stream.write_all(b"still here").await.expect("it is open");
        assert!(client.connections().await.iter().any(|conn| conn.conn == stream.conn()));
        assert_eq!(ask(stream, b"").await, b"still here");
        until(async || client.connections().await.is_empty()).await;
        until(async || server.connections().await.is_empty()).await;
        let error = soon(client.open_stream(server.peer_id(), ECHO)).await;
        assert_eq!(error.map(|_| ()), Err(OpenError::NotConnected(server.peer_id())));
    }
}

async fn a_shutdown_ends_every_task<L: Lab>(lab: &L) {
    let server = node(lab, &BOTH).await;
    let client = node(lab, &BOTH).await;
    let mut notices = client.notices();
    let mut incoming = client.accept(ECHO).expect("it is free");
    dial(&client, &server).await;
    dial(&server, &client).await;
    let stream = soon(server.open_stream(client.peer_id(), ECHO)).await.expect("it is served");
    drop((stream, soon(incoming.next()).await));
    assert!(!lab.is_idle(), "the nodes have tasks");

    soon(client.shutdown()).await;
    assert!(client.connections().await.is_empty());
    assert!(client.listeners().await.is_empty());
    assert_eq!(client.explain().await.map(|_| ()), Err(Stopped));
    let addr = server.listeners().await.remove(0);
    let error = client.dial(addr).await.expect_err("it is over");
    assert!(matches!(error, DialError::Stopped), "{error:?}");
    assert!(soon(incoming.next()).await.is_none());
    while soon(notices.next()).await.is_some() {}
    until(async || server.connections().await.is_empty()).await;
    // Again does no harm.
    soon(client.shutdown()).await;
    soon(server.shutdown()).await;
    until(async || lab.is_idle()).await;
}

async fn dropping_the_last_handle_ends_the_node<L: Lab>(lab: &L) {
    let server = node(lab, &BOTH).await;
    let client = node(lab, &BOTH).await;
    dial(&client, &server).await;
    let other = client.clone();
    drop(client);
    assert_eq!(other.connections().await.len(), 2);
    assert!(!lab.is_idle(), "the nodes have tasks");
    drop(other);
    until(async || server.connections().await.is_empty()).await;
    drop(server);
    until(async || lab.is_idle()).await;
}

async fn the_port_is_free_again_after_a_shutdown<L: Lab>(lab: &L) {
    for any in BOTH {
        let first = node(lab, &[any]).await;
        let client = node(lab, &[]).await;
        dial(&client, &first).await;
        let addr = first.listeners().await.remove(0).to_string();
        soon(first.shutdown()).await;
        let (addr, _) = addr.split_once("/p2p/").expect("it names the peer");
        let second = node(lab, &[]).await;
        // Over QUIC the shutdown waits for the socket to close, but on a busy machine not for ever.
        until(async || second.listen(addr.parse().expect("an address")).await.is_ok()).await;
    }
}

async fn a_shutdown_delivers_the_answer_that_is_under_way<L: Lab>(lab: &L) {
    for addr in BOTH {
        let server = start(lab, on_one_host(), Limits::default(), &[addr]).await;
        let bare = Bare::new(lab);
        let connection = bare.connect(&server).await;
        // The node has agreed to describe itself, and has perhaps not yet begun.
        let mut stream = open(&connection, Protocol::Identify.name()).await;
        let shutdown = tokio::spawn(async move { server.shutdown().await });
        let mut answer = Vec::new();
        soon(stream.read_to_end(&mut answer)).await.expect("the node finishes");
        assert!(answer.len() > 100, "all of it came: {} bytes", answer.len());
        stream.close().await.expect("our side is still open");
        drop(stream);
        soon(shutdown).await.expect("it ends");
        soon(connection.muxer.closed()).await;
    }
}

async fn a_disconnected_peer_is_gone_on_both_sides<L: Lab>(lab: &L) {
    let server = node(lab, &BOTH).await;
    let client = node(lab, &BOTH).await;
    dial(&client, &server).await;
    assert_eq!(client.disconnect(server.peer_id()).await, 2);
    until(async || client.connections().await.is_empty()).await;
    until(async || server.connections().await.is_empty()).await;
    assert_eq!(client.disconnect(server.peer_id()).await, 0);
    dial(&client, &server).await;
}
