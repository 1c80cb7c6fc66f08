//! Peers that break the rules: each costs itself a stream, and nobody else anything.

use super::{BOTH, Bare, RawStreamOf, node, open, quiet, start};
use futures::io::{AsyncReadExt, AsyncWriteExt};
use portolan_core::Protocol;
use portolan_runtime::Limits;
use portolan_runtime::net::Established;
use portolan_tests::lab::{Lab, soon, until};
use portolan_tests::portolan_peer::on_one_host;
use std::time::Duration;

portolan_tests::on_every_runtime! {
    #[tokio::test]
    a_frame_over_the_limit_resets_that_stream_only,
    a_truncated_frame_resets_that_stream_only,
    a_stream_that_stalls_has_a_bounded_life,
    streams_without_an_agreement_are_bounded,
    protocols_that_are_not_offered_are_declined,
    a_peer_that_does_not_read_its_answers_loses_the_stream;
}

/// Wait until the node ends a stream.
async fn ended(stream: &mut (impl futures::AsyncRead + Unpin)) {
    let mut rest = Vec::new();
    // A reset may read as an end, depending on the muxer.
    drop(soon(stream.read_to_end(&mut rest)).await);
}

/// Ping on a stream of its own: the connection works.
async fn ping(connection: &Established) -> RawStreamOf {
    let mut stream = open(connection, Protocol::Ping.name()).await;
    let mut echo = [0; 32];
    soon(async {
        stream.write_all(&[5; 32]).await.expect("it is open");
        stream.flush().await.expect("it is open");
        stream.read_exact(&mut echo).await.expect("it is echoed");
    })
    .await;
    assert_eq!(echo, [5; 32]);
    stream
}

async fn a_frame_over_the_limit_resets_that_stream_only<L: Lab>(lab: &L) {
    for addr in BOTH {
        let server = node(lab, &[addr]).await;
        let bare = Bare::new(lab);
        let connection = bare.connect(&server).await;
        let mut pinging = ping(&connection).await;
        for (protocol, claim) in [
            // 1,025 and 8,193 as varints: one more than each allows.
            (Protocol::DialBack, [0x81, 0x08]),
            (Protocol::IdentifyPush, [0x81, 0x40]),
            // A length that is longer than it needs to be.
            (Protocol::DialBack, [0x81, 0x00]),
        ] {
            let mut stream = open(&connection, protocol.name()).await;
            stream.write_all(&claim).await.expect("it is open");
            stream.flush().await.expect("it is open");
            ended(&mut stream).await;
        }
        let mut echo = [0; 32];
        pinging.write_all(&[6; 32]).await.expect("it is still open");
        pinging.flush().await.expect("it is still open");
        soon(pinging.read_exact(&mut echo)).await.expect("it is still served");
        ping(&connection).await;
    }
}

async fn a_truncated_frame_resets_that_stream_only<L: Lab>(lab: &L) {
    for addr in BOTH {
        let server = node(lab, &[addr]).await;
        let bare = Bare::new(lab);
        let connection = bare.connect(&server).await;
        let mut stream = open(&connection, Protocol::DialBack.name()).await;
        stream.write_all(&[9, 1, 2, 3]).await.expect("it is open");
        stream.close().await.expect("it is open");
        ended(&mut stream).await;
        ping(&connection).await;
    }
}

async fn a_stream_that_stalls_has_a_bounded_life<L: Lab>(lab: &L) {
    let mut limits = Limits::default();
    limits.frame_timeout = Duration::from_millis(100);
    limits.negotiation_timeout = Duration::from_millis(100);
    for addr in BOTH {
        let server = start(lab, on_one_host(), limits, &[addr]).await;
        let bare = Bare::new(lab);
        let connection = bare.connect(&server).await;
        // Half a frame, then silence.
        let mut stream = open(&connection, Protocol::DialBack.name()).await;
        stream.write_all(&[9, 1, 2]).await.expect("it is open");
        stream.flush().await.expect("it is open");
        ended(&mut stream).await;
        // Half a negotiation, then silence.
        let mut stream = soon(connection.muxer.open()).await.expect("there is room");
        stream.write_all(b"\x13/multistream").await.expect("it is open");
        stream.flush().await.expect("it is open");
        ended(&mut stream).await;
        // Whole frames may be far apart.
        let mut pinging = ping(&connection).await;
        // sleep: a pause longer than the time-out of one frame is what must do no harm.
        tokio::time::sleep(limits.frame_timeout * 2).await;
        let mut echo = [0; 32];
        pinging.write_all(&[6; 32]).await.expect("it is still open");
        pinging.flush().await.expect("it is still open");
        soon(pinging.read_exact(&mut echo)).await.expect("it is still served");
    }
}

async fn streams_without_an_agreement_are_bounded<L: Lab>(lab: &L) {
    let mut limits = Limits::default();
    limits.negotiating_per_connection_max = 3;
    for addr in BOTH {
        let server = start(lab, quiet(), limits, &[addr]).await;
        let bare = Bare::new(lab);
        let connection = bare.connect(&server).await;
        let mut held = Vec::new();
        for _ in 0..3 {
            let mut stream = soon(connection.muxer.open()).await.expect("there is room");
            stream.write_all(b"\x13/multistream/1.0.0\n").await.expect("it is open");
            stream.flush().await.expect("it is open");
            let mut header = [0; 20];
            soon(stream.read_exact(&mut header)).await.expect("the node answers");
            held.push(stream);
        }
        let mut over = soon(connection.muxer.open()).await.expect("there is room");
        over.write_all(b"\x13/multistream/1.0.0\n").await.expect("it is open");
        over.flush().await.expect("it is open");
        let mut header = [0; 20];
        soon(over.read_exact(&mut header)).await.expect_err("it is reset");
        // Room is made as soon as one of them ends.
        drop(held.pop());
        until(async || {
            let stream = soon(connection.muxer.open()).await;
            let Ok(mut stream) = stream else { return false };
            let sent = stream.write_all(b"\x13/multistream/1.0.0\n").await.is_ok();
            sent && stream.flush().await.is_ok() && stream.read_exact(&mut header).await.is_ok()
        })
        .await;
    }
}

async fn protocols_that_are_not_offered_are_declined<L: Lab>(lab: &L) {
    use multistream_select::{Version, dialer_select_proto};
    let server = start(lab, quiet(), Limits::default(), &BOTH).await;
    let bare = Bare::new(lab);
    let connection = bare.connect(&server).await;
    // Identify is off, and nobody is dialled back for.
    for protocol in [Protocol::Identify, Protocol::DialRequest] {
        let stream = soon(connection.muxer.open()).await.expect("there is room");
        let declined = soon(dialer_select_proto(stream, [protocol.name()], Version::V1)).await;
        assert!(declined.is_err(), "{protocol:?}");
    }
    ping(&connection).await;
    assert_eq!(server.connections().await[0].peer, bare.peer());
}

async fn a_peer_that_does_not_read_its_answers_loses_the_stream<L: Lab>(lab: &L) {
    for addr in BOTH {
        let server = node(lab, &[addr]).await;
        let bare = Bare::new(lab);
        let connection = bare.connect(&server).await;
        let mut stream = open(&connection, Protocol::Ping.name()).await;
        // Far more than windows and queues hold together.
        let mut sent = 0;
        let broken = soon(async {
            while sent < 64 << 20 {
                if stream.write_all(&[7; 1_024]).await.is_err() || stream.flush().await.is_err() {
                    return true;
                }
                sent += 1_024;
            }
            false
        });
        assert!(broken.await, "the node took {sent} bytes and kept the echoes");
        ping(&connection).await;
    }
}
