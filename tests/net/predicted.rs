//! Dials for ports that are predicted: one packet that opens a NAT, and dials from ports that nothing
//! used.

use super::Peer;
use super::punches::vacant;
use super::{addr, talk};
use futures::future::{join, pending};
use portolan_core::{Addr, DialFailure, PunchWay, Side, Transport};
use portolan_tests::lab::{Lab, soon};
use std::io;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, UdpSocket};

portolan_tests::on_every_runtime! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    a_port_is_opened_by_one_packet,
    who_is_let_in_meets_the_listener,
    a_predicted_dial_leaves_from_one_fresh_port,
    a_sample_leaves_from_a_fresh_port_and_is_refused_once;
}

const BOTH: [Transport; 2] = [Transport::Tcp, Transport::Quic];
/// Long enough for a dial that nobody answers.
const SHORT: Duration = Duration::from_millis(300);
/// No test takes as long.
const PATIENCE: Duration = Duration::from_secs(25);

async fn a_port_is_opened_by_one_packet<L: Lab>(lab: &L) {
    let server = Peer::new(lab);
    let peer = Peer::new(lab).net.peer();
    let from = server.listen("127.0.0.1", Transport::Quic).addr;
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    let at = socket.local_addr().expect("it is bound");
    let to = Addr::quic(at.ip(), at.port());
    let opened = soon(server.net.punch(to, peer, PunchWay::Open, PATIENCE, pending())).await;
    assert_eq!(opened.expect_err("no connection comes of it").failure(), DialFailure::TimedOut);
    let mut datagram = [0; 100];
    let (len, source) = soon(socket.recv_from(&mut datagram)).await.expect("it comes");
    assert_eq!((len, source), (64, from.socket()));
    assert_eq!(datagram[0] & 0xc0, 0, "it looks like QUIC");
    let error = socket.try_recv(&mut datagram).expect_err("it is one");
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);

    let from = server.listen("127.0.0.1", Transport::Tcp).addr;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let at = listener.local_addr().expect("it is bound");
    let to = Addr::tcp(at.ip(), at.port());
    let opened = soon(server.net.punch(to, peer, PunchWay::Open, PATIENCE, pending())).await;
    assert_eq!(opened.expect_err("no connection comes of it").failure(), DialFailure::TimedOut);
    // On loopback somebody is there and answers before the socket is closed.
    let (_, seen) = soon(listener.accept()).await.expect("a SYN comes");
    assert_eq!(seen, from.socket(), "it leaves from the listener's port");
    let second = futures::FutureExt::now_or_never(listener.accept());
    assert!(second.is_none(), "it is one");
}

async fn who_is_let_in_meets_the_listener<L: Lab>(lab: &L) {
    let (client, server) = (Peer::new(lab), Peer::new(lab));
    let peer = server.net.peer();
    for transport in BOTH {
        let to = server.listen("127.0.0.1", transport).addr;
        let at = client.listen("127.0.0.1", transport).addr;
        let opened = server.net.punch(at, client.net.peer(), PunchWay::Open, PATIENCE, pending());
        assert!(soon(opened).await.is_err());
        let dial = client.net.punch(to, peer, PunchWay::Predicted, PATIENCE, pending());
        let (dialled, arrived) = soon(join(dial, server.arrival())).await;
        let dialled = dialled.expect("it listens").expect("nobody cancels it");
        talk(&dialled, &arrived).await;
    }
}

async fn a_predicted_dial_leaves_from_one_fresh_port<L: Lab>(lab: &L) {
    let (client, server) = (Peer::new(lab), Peer::new(lab));
    let from = client.listen("127.0.0.1", Transport::Quic).addr;
    // A socket on which nobody answers yet.
    let mute = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    let at = mute.local_addr().expect("it is bound");
    let to = Addr::quic(at.ip(), at.port());
    let opened = async {
        let mut datagram = [0; 2_000];
        let (_, seen) = soon(mute.recv_from(&mut datagram)).await.expect("the first packet comes");
        drop(mute);
        server.net.listen(to).expect("the port is free");
        (seen, server.arrival().await)
    };
    let dial = client.net.punch(to, server.net.peer(), PunchWay::Predicted, PATIENCE, pending());
    let (dialled, (seen, arrived)) = soon(join(dial, opened)).await;
    let dialled = dialled.expect("in the end it listens").expect("nobody cancels it");
    assert_eq!(arrived.remote.socket(), seen, "it is one port");
    assert!(seen.port() != from.port && !dialled.port_reused && dialled.local.port == seen.port());
    talk(&dialled, &arrived).await;

    let from = client.listen("127.0.0.1", Transport::Tcp).addr;
    let (to, held) = vacant();
    let dial = client.net.punch(to, server.net.peer(), PunchWay::Predicted, PATIENCE, pending());
    let opened = async {
        // sleep: the first SYN is refused meanwhile.
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(held);
        server.net.listen(to).expect("the port is free");
        server.arrival().await
    };
    let (dialled, arrived) = soon(join(dial, opened)).await;
    let dialled = dialled.expect("in the end it listens").expect("nobody cancels it");
    assert_eq!((dialled.side, arrived.remote), (Side::Outbound, dialled.local));
    assert!(dialled.local.port != from.port && !dialled.port_reused);
    talk(&dialled, &arrived).await;
}

async fn a_sample_leaves_from_a_fresh_port_and_is_refused_once<L: Lab>(lab: &L) {
    let (client, server) = (Peer::new(lab), Peer::new(lab));
    let peer = server.net.peer();
    for transport in BOTH {
        let from = client.listen("127.0.0.1", transport).addr;
        let to = server.listen("127.0.0.1", transport).addr;
        let known = client.connect(&server, to).await;
        let dial = client.net.punch(to, peer, PunchWay::Sample, PATIENCE, pending());
        let (dialled, arrived) = soon(join(dial, server.arrival())).await;
        let dialled = dialled.expect("it listens").expect("nobody cancels it");
        assert_eq!((dialled.side, arrived.remote), (Side::Outbound, dialled.local));
        assert!(dialled.local.port != from.port && !dialled.port_reused);
        assert_eq!(known.0.local, from, "the other one leaves from the listener's port");
        talk(&dialled, &arrived).await;
    }
    let (nowhere, _held) = vacant();
    let begun_at = Instant::now();
    let refused =
        soon(client.net.punch(nowhere, peer, PunchWay::Sample, PATIENCE, pending())).await;
    assert_eq!(refused.expect_err("nobody listens").failure(), DialFailure::Refused);
    assert!(begun_at.elapsed() < PATIENCE, "it is tried again");
    let silent = addr("127.0.0.1", 9, Transport::Quic);
    let dial = client.net.punch(silent, peer, PunchWay::Sample, SHORT, pending());
    assert!(soon(dial).await.is_err(), "nobody is there");
}
