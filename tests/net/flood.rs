//! Connections that never finish their handshakes.

use super::{Peer, addr, talk};
use portolan_core::Transport;
use portolan_runtime::identity;
use portolan_runtime::net::NetConfig;
use portolan_tests::lab::{Lab, soon};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

portolan_tests::on_every_runtime! {
    #[tokio::test]
    a_flood_of_silent_connections_is_refused_beyond_the_cap,
    a_silent_connection_is_dropped_in_time,
    quic_beyond_the_cap_is_refused,
    a_crowded_quic_listener_asks_for_a_proof_of_address,
    handshakes_end_with_the_listener;
}

/// Connect from `ip` and say nothing.
async fn mute(ip: &str, to: std::net::SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    let from = std::net::SocketAddr::new(ip.parse().expect("an IP address"), 0);
    socket.bind(from).expect("a loopback address");
    soon(socket.connect(to)).await.expect("the kernel accepts")
}

/// Whether the other side has hung up; waits until it has, or speaks.
async fn hung_up(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    !matches!(soon(stream.read(&mut byte)).await, Ok(1..))
}

async fn a_flood_of_silent_connections_is_refused_beyond_the_cap<L: Lab>(lab: &L) {
    let mut config = NetConfig::default();
    config.pending_max = 6;
    config.pending_per_source_max = 4;
    let server = Peer::with(lab, &identity::generate(), config);
    let at = server.listen("127.0.0.1", Transport::Tcp).addr;

    let mut admitted = Vec::new();
    for _ in 0..4 {
        admitted.push(mute("127.0.0.9", at.socket()).await);
    }
    for _ in 0..20 {
        assert!(hung_up(&mut mute("127.0.0.9", at.socket()).await).await, "one source is capped");
    }
    for _ in 0..2 {
        admitted.push(mute("127.0.0.8", at.socket()).await);
    }
    assert!(hung_up(&mut mute("127.0.0.7", at.socket()).await).await, "and so are all together");

    // Those that were admitted are served: the server answers the first line.
    for stream in &mut admitted {
        stream.write_all(b"\x13/multistream/1.0.0\n").await.expect("it is open");
        assert!(!hung_up(stream).await);
    }

    // When they leave, there is room again.
    drop(admitted);
    let client = Peer::new(lab);
    let dial = async {
        loop {
            match client.net.dial(at, Some(server.net.peer())).await {
                Ok(connection) => return connection,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let (dialled, arrived) = futures::future::join(soon(dial), server.arrival()).await;
    talk(&dialled, &arrived).await;
}

async fn a_silent_connection_is_dropped_in_time<L: Lab>(lab: &L) {
    let mut config = NetConfig::default();
    config.handshake_timeout = Duration::from_millis(50);
    let server = Peer::with(lab, &identity::generate(), config);
    let at = server.listen("127.0.0.1", Transport::Tcp).addr;
    assert!(hung_up(&mut mute("127.0.0.1", at.socket()).await).await);
}

async fn quic_beyond_the_cap_is_refused<L: Lab>(lab: &L) {
    let mut config = NetConfig::default();
    config.pending_per_source_max = 0;
    let server = Peer::with(lab, &identity::generate(), config);
    let at = server.listen("127.0.0.1", Transport::Quic).addr;
    let client = Peer::new(lab);
    let error = soon(client.net.dial(addr("127.0.0.1", at.port, Transport::Quic), None))
        .await
        .expect_err("there is no room");
    assert_eq!(error.failure(), portolan_core::DialFailure::Refused, "{error:?}");
}

async fn a_crowded_quic_listener_asks_for_a_proof_of_address<L: Lab>(lab: &L) {
    let mut config = NetConfig::default();
    // One handshake is more than half of this room: everybody after it meets a Retry.
    config.pending_max = 1;
    let server = Peer::with(lab, &identity::generate(), config);
    let at = server.listen("127.0.0.1", Transport::Quic).addr;
    let tcp = server.listen("127.0.0.1", Transport::Tcp).addr;
    let holder = mute("127.0.0.9", tcp.socket()).await;
    let client = Peer::new(lab);
    let dial = client.net.dial(at, Some(server.net.peer()));
    let error = soon(dial).await.expect_err("the proof is given, but there is no room");
    assert_eq!(error.failure(), portolan_core::DialFailure::Refused, "{error:?}");
    drop(holder);
    let dial = async {
        loop {
            match client.net.dial(at, Some(server.net.peer())).await {
                Ok(connection) => return connection,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let (dialled, arrived) = futures::future::join(soon(dial), server.arrival()).await;
    talk(&dialled, &arrived).await;
}

async fn handshakes_end_with_the_listener<L: Lab>(lab: &L) {
    let mut config = NetConfig::default();
    // Longer than any test waits.
    config.handshake_timeout = Duration::from_secs(3_600);
    let server = Peer::with(lab, &identity::generate(), config);
    let at = server.listen("127.0.0.1", Transport::Tcp).addr;
    let mut silent = mute("127.0.0.1", at.socket()).await;
    silent.write_all(b"\x13/multistream/1.0.0\n").await.expect("it is open");
    assert!(!hung_up(&mut silent).await, "the handshake has begun");
    let mut rest = Vec::new();
    soon(server.net.shutdown()).await;
    soon(silent.read_to_end(&mut rest)).await.expect("an orderly end");
}
