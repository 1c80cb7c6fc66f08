//! Streams of the application's own protocols.

use super::{BOTH, ECHO, EVERYWHERE, ask, dial, node, serve_echo, start};
use futures::StreamExt;
use futures::io::{AsyncReadExt, AsyncWriteExt};
use portolan_core::PeerId;
use portolan_runtime::{AcceptError, Limits, OpenError};
use portolan_tests::lab::{Lab, soon, until};
use portolan_tests::portolan_peer::on_one_host;

portolan_tests::on_every_runtime! {
    #[tokio::test]
    streams_of_an_application_protocol_carry_bytes_both_ways,
    a_stream_that_cannot_be_opened_says_why,
    a_reset_reaches_the_other_side,
    streams_that_nobody_takes_are_bounded;
}

async fn streams_of_an_application_protocol_carry_bytes_both_ways<L: Lab>(lab: &L) {
    for addr in EVERYWHERE {
        let server = node(lab, &[addr]).await;
        let client = node(lab, &[addr]).await;
        serve_echo(&server);
        serve_echo(&client);
        dial(&client, &server).await;
        let text = vec![7; 100_000];
        let stream = soon(client.open_stream(server.peer_id(), ECHO)).await.expect("it is served");
        assert_eq!((stream.peer(), stream.protocol()), (server.peer_id(), ECHO));
        assert_eq!(ask(stream, &text).await, text);
        // Whoever dialled, both sides can open streams.
        until(async || !server.connections().await.is_empty()).await;
        let stream = soon(server.open_stream(client.peer_id(), ECHO)).await.expect("it is served");
        assert_eq!(ask(stream, b"hello").await, b"hello");
    }
}

async fn a_stream_that_cannot_be_opened_says_why<L: Lab>(lab: &L) {
    let server = node(lab, &BOTH).await;
    let client = node(lab, &[]).await;
    let stranger: PeerId = server.peer_id();
    let error = soon(client.open_stream(stranger, ECHO)).await.expect_err("nobody is there");
    assert_eq!(error, OpenError::NotConnected(stranger));
    dial(&client, &server).await;
    let error = soon(client.open_stream(stranger, ECHO)).await.expect_err("it is not served");
    assert_eq!(error, OpenError::Unsupported(ECHO.into()));
    let error = soon(client.open_stream(stranger, "echo")).await.expect_err("it is no name");
    assert_eq!(error, OpenError::BadName("echo".into()));

    let first = server.accept(ECHO).expect("it is free");
    let error = server.accept(ECHO).map(|_| ()).expect_err("it is taken");
    assert_eq!(error, AcceptError::Taken(ECHO.into()));
    soon(client.open_stream(stranger, ECHO)).await.expect("it is served now");
    drop(first);
    let error = soon(client.open_stream(stranger, ECHO)).await.expect_err("it is not any more");
    assert_eq!(error, OpenError::Unsupported(ECHO.into()));
}

async fn a_reset_reaches_the_other_side<L: Lab>(lab: &L) {
    for addr in BOTH {
        let server = node(lab, &[addr]).await;
        let client = node(lab, &[]).await;
        let mut incoming = server.accept(ECHO).expect("it is free");
        dial(&client, &server).await;
        let mut ours = soon(client.open_stream(server.peer_id(), ECHO)).await.expect("served");
        ours.write_all(b"half").await.expect("it is open");
        ours.flush().await.expect("it is open");
        let (peer, mut theirs) = soon(incoming.next()).await.expect("the node lives");
        assert_eq!(peer, client.peer_id());
        let mut half = [0; 4];
        soon(theirs.read_exact(&mut half)).await.expect("it was sent");
        ours.reset();
        soon(theirs.read_exact(&mut half)).await.expect_err("it was reset");
    }
}

async fn streams_that_nobody_takes_are_bounded<L: Lab>(lab: &L) {
    let mut limits = Limits::default();
    limits.incoming_max = 2;
    for addr in BOTH {
        let server = start(lab, on_one_host(), limits, &[addr]).await;
        let client = node(lab, &[]).await;
        let mut incoming = server.accept(ECHO).expect("it is free");
        dial(&client, &server).await;
        let peer = server.peer_id();
        let mut streams = Vec::new();
        for _ in 0..2 {
            streams.push(soon(client.open_stream(peer, ECHO)).await.expect("it is served"));
        }
        // Two wait to be taken; more are reset, which over QUIC may overtake the agreement.
        for _ in 0..2 {
            if let Ok(mut stream) = soon(client.open_stream(peer, ECHO)).await {
                let mut rest = Vec::new();
                soon(stream.read_to_end(&mut rest)).await.expect_err("it is reset");
            }
        }
        for _ in 0..2 {
            soon(incoming.next()).await.expect("it waited");
        }
        let _again = soon(client.open_stream(server.peer_id(), ECHO)).await.expect("served");
        soon(incoming.next()).await.expect("there is room again");
    }
}
