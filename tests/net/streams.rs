//! Streams: resets, limits, and what a close delivers.

use super::{Peer, ask, echo, talk};
use futures::io::{AsyncReadExt, AsyncWriteExt};
use portolan_core::Transport;
use portolan_runtime::identity;
use portolan_runtime::net::{Established, MuxerError, NetConfig, RawStream};
use portolan_tests::lab::{Lab, soon};
use std::io;

portolan_tests::on_every_runtime! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    a_reset_is_seen_as_one,
    a_close_delivers_what_was_written,
    dropping_the_last_handle_closes_the_connection,
    a_stream_that_is_waited_for_ends_with_its_connection,
    streams_are_bounded_over_tcp,
    streams_beyond_the_servers_bound_are_reset_over_tcp,
    streams_that_nobody_accepts_are_reset_over_tcp;
    #[tokio::test]
    asking_for_a_stream_while_the_connection_closes_gets_an_answer;
}

const BOTH: [Transport; 2] = [Transport::Tcp, Transport::Quic];

/// A server and a client, and both ends of their connection, the client's first.
async fn pair<L: Lab>(
    lab: &L,
    transport: Transport,
    config: NetConfig,
) -> (Peer<L::Runtime>, Peer<L::Runtime>, Established, Established) {
    let server = Peer::with(lab, &identity::generate(), config.clone());
    let client = Peer::with(lab, &identity::generate(), config);
    let at = server.listen("127.0.0.1", transport).addr;
    let (dialled, arrived) = client.connect(&server, at).await;
    (server, client, dialled, arrived)
}

async fn a_reset_is_seen_as_one<L: Lab>(lab: &L) {
    for transport in BOTH {
        for explicitly in [true, false] {
            let (_server, _client, dialled, arrived) =
                pair(lab, transport, NetConfig::default()).await;
            let mut ours = soon(dialled.muxer.open()).await.expect("it is open");
            ours.write_all(b"half a messa").await.expect("it is open");
            ours.flush().await.expect("it is open");
            let mut theirs = soon(arrived.muxer.accept()).await.expect("it is open");
            let mut start = [0; 4];
            soon(theirs.read_exact(&mut start)).await.expect("it was sent");
            if explicitly {
                ours.reset();
                assert!(ours.write(b"x").await.is_err());
                assert!(ours.read(&mut start).await.is_err());
            } else {
                drop(ours);
            }
            let mut rest = Vec::new();
            let error = soon(theirs.read_to_end(&mut rest)).await.expect_err("it was reset");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{transport:?}");
            // The connection does not suffer.
            talk(&dialled, &arrived).await;
        }
    }
}

async fn a_close_delivers_what_was_written<L: Lab>(lab: &L) {
    for transport in BOTH {
        let (_server, _client, dialled, arrived) = pair(lab, transport, NetConfig::default()).await;
        let text = vec![9; 200_000];
        let mut ours = soon(dialled.muxer.open()).await.expect("it is open");
        soon(ours.write_all(&text)).await.expect("it is open");
        soon(ours.close()).await.expect("it is open");
        let reader = async {
            let mut theirs = soon(arrived.muxer.accept()).await.expect("it is open");
            let mut got = Vec::new();
            soon(theirs.read_to_end(&mut got)).await.expect("an orderly end");
            got
        };
        let ((), got) = futures::future::join(soon(dialled.muxer.close()), reader).await;
        assert!(got == text, "{transport:?}: {} bytes arrived", got.len());
        soon(arrived.muxer.closed()).await;
        assert_eq!(soon(arrived.muxer.open()).await.err(), Some(MuxerError::Closed));
        assert_eq!(soon(arrived.muxer.accept()).await.err(), Some(MuxerError::Closed));
    }
}

async fn dropping_the_last_handle_closes_the_connection<L: Lab>(lab: &L) {
    for transport in BOTH {
        let (_server, _client, dialled, arrived) = pair(lab, transport, NetConfig::default()).await;
        let clone = dialled.muxer.clone();
        drop(dialled);
        let (asked, ()) = futures::future::join(
            async { ask(soon(clone.open()).await.expect("it is open"), b"still there?").await },
            async { echo(soon(arrived.muxer.accept()).await.expect("it is open")).await },
        )
        .await;
        assert_eq!(asked, b"still there?");
        drop(clone);
        soon(arrived.muxer.closed()).await;
    }
}

async fn a_stream_that_is_waited_for_ends_with_its_connection<L: Lab>(lab: &L) {
    for transport in BOTH {
        let (_server, _client, dialled, arrived) = pair(lab, transport, NetConfig::default()).await;
        let mut reading = knock(&dialled).await;
        // More than anybody takes.
        let mut writing = knock(&dialled).await;
        let write = async { writing.write_all(&vec![0; 8 << 20]).await.map_err(drop) };
        let read = async { reading.read(&mut [0]).await };
        // Nobody reads at the other side, which lets the stream stand.
        let held = [soon(arrived.muxer.accept()).await, soon(arrived.muxer.accept()).await];
        let close = async {
            // sleep: so that both wait by then; if they do not, nothing fails that should not.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            dialled.muxer.close().await;
        };
        let (written, read, ()) = soon(futures::future::join3(write, read, close)).await;
        assert_eq!(written, Err(()), "{transport:?}: nobody took it");
        assert!(!matches!(read, Ok(1..)), "{transport:?}: nobody sent anything");
        drop(held);
    }
}

async fn streams_are_bounded_over_tcp<L: Lab>(lab: &L) {
    let mut config = NetConfig::default();
    config.tcp_streams_max = 4;
    let (_server, _client, dialled, arrived) = pair(lab, Transport::Tcp, config).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(soon(dialled.muxer.open()).await.expect("there is room"));
    }
    let refused = soon(dialled.muxer.open()).await.map(drop);
    assert_eq!(refused, Err(MuxerError::TooManyStreams));
    held.clear();
    talk(&dialled, &arrived).await;
}

async fn streams_beyond_the_servers_bound_are_reset_over_tcp<L: Lab>(lab: &L) {
    let mut config = NetConfig::default();
    config.tcp_streams_max = 4;
    let server = Peer::with(lab, &identity::generate(), config);
    let client = Peer::new(lab);
    let at = server.listen("127.0.0.1", Transport::Tcp).addr;
    let (dialled, arrived) = client.connect(&server, at).await;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        ours.push(knock(&dialled).await);
        theirs.push(soon(arrived.muxer.accept()).await.expect("there is room"));
    }
    for _ in 0..100 {
        let mut refused = knock(&dialled).await;
        let error = soon(refused.read(&mut [0])).await.expect_err("there is none any more");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
    drop((ours, theirs));
    talk(&dialled, &arrived).await;
}

/// Open a stream and make it known.
async fn knock(dialled: &Established) -> RawStream {
    let mut stream = soon(dialled.muxer.open()).await.expect("there is room");
    stream.write_all(b"knock").await.expect("it is open");
    stream.flush().await.expect("it is open");
    stream
}

async fn streams_that_nobody_accepts_are_reset_over_tcp<L: Lab>(lab: &L) {
    let (_server, _client, dialled, arrived) =
        pair(lab, Transport::Tcp, NetConfig::default()).await;
    let mut held = Vec::new();
    for _ in 0..32 {
        held.push(knock(&dialled).await);
    }
    let reads = held.iter_mut().skip(16).map(|stream| async {
        let mut byte = [0];
        stream.read(&mut byte).await
    });
    for read in soon(futures::future::join_all(reads)).await {
        let error = read.expect_err("it was reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
    // The first ones wait, and the connection lives.
    for _ in 0..16 {
        drop(soon(arrived.muxer.accept()).await.expect("it waits"));
    }
    drop(held);
    talk(&dialled, &arrived).await;
}

async fn asking_for_a_stream_while_the_connection_closes_gets_an_answer<L: Lab>(lab: &L) {
    for transport in BOTH {
        let (_server, _client, dialled, arrived) = pair(lab, transport, NetConfig::default()).await;
        // The request to open stands behind the one to close, in the same turn.
        let (close, open) = (dialled.muxer.close(), dialled.muxer.open());
        let other_side = arrived.muxer.closed();
        let (((), opened), ()) =
            soon(futures::future::join(futures::future::join(close, open), other_side)).await;
        if transport == Transport::Tcp {
            assert_eq!(opened.map(drop), Err(MuxerError::Closed));
        }
        assert_eq!(soon(dialled.muxer.open()).await.map(drop), Err(MuxerError::Closed));
    }
}
