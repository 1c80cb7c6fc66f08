//! Who may talk to whom, and what each learns.

use super::{Peer, addr, talk, talk_of};
use portolan_core::{DialFailure, Side, Transport};
use portolan_runtime::identity::{self, KeyType, Keypair};
use portolan_runtime::net::{DialError, HandshakeError, NetConfig, Security};
use portolan_tests::lab::{Lab, soon};
use std::path::Path;
use std::time::Duration;

portolan_tests::on_every_runtime! {
    #[tokio::test]
    both_transports_carry_data_both_ways_in_both_families,
    every_key_type_shakes_hands,
    tls_over_tcp_is_accepted,
    a_peer_without_noise_is_dialled_again_with_tls,
    the_wrong_peer_is_refused_and_named,
    failures_are_told_apart,
    silence_times_out,
    a_second_security_gets_only_the_time_that_is_left;
}

const BOTH: [Transport; 2] = [Transport::Tcp, Transport::Quic];

async fn both_transports_carry_data_both_ways_in_both_families<L: Lab>(lab: &L) {
    for ip in ["127.0.0.1", "::1"] {
        for transport in BOTH {
            let (server, client) = (Peer::new(lab), Peer::new(lab));
            let at = server.listen(ip, transport).addr;
            let (dialled, arrived) = client.connect(&server, at).await;
            assert_eq!(dialled.peer, server.net.peer());
            assert_eq!(arrived.peer, client.net.peer());
            assert_eq!((dialled.side, arrived.side), (Side::Outbound, Side::Inbound));
            assert_eq!(dialled.remote, at);
            assert_eq!(arrived.local, at);
            assert_eq!(dialled.local, arrived.remote, "{transport:?} over {ip}");
            assert!(dialled.rtt.is_some());
            assert!(!dialled.port_reused, "the client listens nowhere");
            talk_of(1_500_000, &dialled, &arrived).await;
            talk(&arrived, &dialled).await;
        }
    }
}

async fn every_key_type_shakes_hands<L: Lab>(lab: &L) {
    let rsa = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/rsa-2048.key");
    let rsa = std::fs::read(rsa).expect("the fixture is there");
    let rsa = Keypair::from_protobuf_encoding(&rsa).expect("the fixture is a key");
    assert_eq!(rsa.key_type(), KeyType::RSA);
    let keys = [
        Keypair::generate_ed25519(),
        Keypair::generate_ecdsa(),
        Keypair::generate_secp256k1(),
        rsa,
    ];
    for key in keys {
        for transport in BOTH {
            let subject = Peer::with(lab, &key, NetConfig::default());
            let other = Peer::new(lab);
            let at = subject.listen("127.0.0.1", transport).addr;
            let (dialled, arrived) = other.connect(&subject, at).await;
            talk(&dialled, &arrived).await;
            let at = other.listen("127.0.0.1", transport).addr;
            let (dialled, arrived) = subject.connect(&other, at).await;
            assert_eq!(arrived.peer, key.public().to_peer_id());
            talk(&dialled, &arrived).await;
        }
    }
}

async fn tls_over_tcp_is_accepted<L: Lab>(lab: &L) {
    let mut config = NetConfig::default();
    config.securities = vec![Security::Tls];
    let client = Peer::with(lab, &identity::generate(), config);
    let server = Peer::new(lab);
    let at = server.listen("127.0.0.1", Transport::Tcp).addr;
    let (dialled, arrived) = client.connect(&server, at).await;
    assert_eq!(arrived.peer, client.net.peer());
    talk(&dialled, &arrived).await;
}

async fn a_peer_without_noise_is_dialled_again_with_tls<L: Lab>(lab: &L) {
    use futures::io::AsyncReadExt;
    use multistream_select::listener_select_proto;
    use tokio_util::compat::TokioAsyncReadCompatExt;

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let client = Peer::new(lab);
    let dial = client.net.dial(addr("127.0.0.1", port, Transport::Tcp), None);
    let server = async {
        let (first, _) = listener.accept().await.expect("the client dials");
        let refused = listener_select_proto(first.compat(), ["/tls/1.0.0"]).await;
        assert!(refused.is_err(), "the client offers noise alone at first");
        let (second, _) = listener.accept().await.expect("the client dials again");
        let negotiated = listener_select_proto(second.compat(), ["/tls/1.0.0"]).await;
        let (_, mut io) = negotiated.expect("and offers TLS");
        // The first bytes of a TLS handshake record; then the server hangs up.
        let mut start = [0; 2];
        io.read_exact(&mut start).await.expect("the client speaks first");
        assert_eq!(start, [22, 3]);
    };
    let (outcome, ()) = soon(futures::future::join(dial, server)).await;
    let error = outcome.expect_err("the server hung up");
    assert!(matches!(error, DialError::Handshake(HandshakeError::Failed { .. })), "{error:?}");
    assert_eq!(error.failure(), DialFailure::Handshake);
}

async fn the_wrong_peer_is_refused_and_named<L: Lab>(lab: &L) {
    for transport in BOTH {
        let (server, client, absent) = (Peer::new(lab), Peer::new(lab), Peer::new(lab));
        let at = server.listen("127.0.0.1", transport).addr;
        let error = soon(client.net.dial(at, Some(absent.net.peer())))
            .await
            .expect_err("somebody else lives there");
        let DialError::WrongPeer { expected, found } = error else {
            panic!("expected a wrong peer, got {error:?}");
        };
        assert_eq!((expected, found), (absent.net.peer(), server.net.peer()));
        // The server may have seen the connection stand for a moment; then it sees it end. Once
        // the last handshake is over, nothing holds the channel of its arrivals.
        let Peer { net, arrivals } = server;
        drop(net);
        while let Ok(arrival) = soon(arrivals.recv()).await {
            soon(arrival.connection.muxer.closed()).await;
        }
    }
}

async fn failures_are_told_apart<L: Lab>(lab: &L) {
    let client = Peer::new(lab);
    // A port that was free a moment ago.
    let vacant = {
        let other = Peer::new(lab);
        let at = other.listen("127.0.0.1", Transport::Tcp);
        soon(other.net.shutdown()).await;
        at.addr
    };
    let error = soon(client.net.dial(vacant, None)).await.expect_err("nobody listens");
    assert_eq!(error.failure(), DialFailure::Refused, "{error:?}");

    // Multicast, the unspecified address and port 0 are no destinations.
    for (ip, port) in [("224.0.0.1", 1), ("0.0.0.0", 1), ("::", 1), ("127.0.0.1", 0)] {
        for transport in BOTH {
            let error = client.net.dial(addr(ip, port, transport), None).await;
            let error = error.expect_err("it is no destination");
            assert!(matches!(error, DialError::Unusable(_)), "{error:?}");
        }
    }

    // A source address that is not ours is our own fault, not the target's.
    let server = Peer::new(lab);
    for transport in BOTH {
        let at = server.listen("127.0.0.1", transport).addr;
        let source = Some("192.0.2.1".parse().expect("an IP address"));
        let dial = client.net.dial_back(at, source, Duration::from_secs(5));
        let error = soon(dial).await.expect_err("the source is not ours");
        assert_eq!(error.failure(), DialFailure::LocalFault, "{error:?}");
    }
}

async fn silence_times_out<L: Lab>(lab: &L) {
    let mut config = NetConfig::default();
    config.connect_timeout = Duration::from_millis(100);
    config.handshake_timeout = Duration::from_millis(100);
    let client = Peer::with(lab, &identity::generate(), config);

    // The kernel accepts, and nobody says a word.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = mute.local_addr().expect("it is bound").port();
    let dial = client.net.dial(addr("127.0.0.1", port, Transport::Tcp), None);
    let error = soon(dial).await.expect_err("nobody answers");
    assert!(matches!(error, DialError::HandshakeTimedOut), "{error:?}");

    let mute = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let port = mute.local_addr().expect("it is bound").port();
    let at = addr("127.0.0.1", port, Transport::Quic);
    let error = soon(client.net.dial(at, None)).await.expect_err("nobody answers");
    assert_eq!(error.failure(), DialFailure::TimedOut, "{error:?}");
    let dial = client.net.dial_back(at, None, Duration::from_millis(100));
    let error = soon(dial).await.expect_err("nobody answers");
    assert_eq!(error.failure(), DialFailure::TimedOut, "{error:?}");
}

async fn a_second_security_gets_only_the_time_that_is_left<L: Lab>(lab: &L) {
    use multistream_select::listener_select_proto;
    use tokio_util::compat::TokioAsyncReadCompatExt;

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let client = Peer::new(lab);
    let patience = Duration::from_secs(1);
    let begun_at = std::time::Instant::now();
    let dial = client.net.dial_back(addr("127.0.0.1", port, Transport::Tcp), None, patience);
    let server = async {
        let (first, _) = listener.accept().await.expect("the client dials");
        // sleep: a peer that takes most of the time to refuse Noise is what is tested.
        tokio::time::sleep(patience * 3 / 4).await;
        let refused = listener_select_proto(first.compat(), ["/tls/1.0.0"]).await;
        assert!(refused.is_err(), "the client offers noise alone at first");
        // The second connection is accepted by the kernel, and nobody says a word.
        std::future::pending::<()>().await;
    };
    let dial = std::pin::pin!(soon(dial));
    let futures::future::Either::Left((dialled, _)) =
        futures::future::select(dial, std::pin::pin!(server)).await
    else {
        panic!("the server does not end");
    };
    let error = dialled.expect_err("nobody answers");
    assert!(matches!(error, DialError::HandshakeTimedOut), "{error:?}");
    let took = begun_at.elapsed();
    assert!(took < patience * 3 / 2, "{took:?}");
}
