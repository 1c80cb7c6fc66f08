//! Connections over a stream of another connection, as circuits are.

use super::{Peer, talk, talk_of};
use futures::future::join;
use futures::io::{AsyncReadExt, AsyncWriteExt};
use portolan_core::{Side, Transport};
use portolan_runtime::identity;
use portolan_runtime::net::{DialError, Established, NetConfig, RawStream, Security};
use portolan_runtime::traits::Runtime;
use portolan_tests::lab::{Lab, soon};
use std::time::Duration;

portolan_tests::on_every_runtime! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    a_stream_carries_a_connection,
    every_security_is_spoken_over_a_stream,
    the_wrong_peer_is_refused_over_a_stream,
    who_says_nothing_over_a_stream_is_not_waited_for,
    a_connection_ends_with_the_one_below;
}

const BOTH: [Transport; 2] = [Transport::Tcp, Transport::Quic];

/// Two peers, and both ends of the connection between them, the dialler's first.
struct Pair<R: Runtime> {
    client: Peer<R>,
    server: Peer<R>,
    below: (Established, Established),
}

impl<R: Runtime> Pair<R> {
    async fn new<L: Lab<Runtime = R>>(lab: &L, transport: Transport, config: NetConfig) -> Pair<R> {
        let server = Peer::new(lab);
        let client = Peer::with(lab, &identity::generate(), config);
        let at = server.listen("127.0.0.1", transport).addr;
        let below = client.connect(&server, at).await;
        Pair { client, server, below }
    }

    /// Both ends of a stream.
    async fn open(&self) -> (RawStream, RawStream) {
        let mut ours = soon(self.below.0.muxer.open()).await.expect("it is open");
        // The other side hears of a stream with its first byte.
        ours.write_all(b"k").await.expect("it is open");
        ours.flush().await.expect("it is open");
        let mut theirs = soon(self.below.1.muxer.accept()).await.expect("it is open");
        soon(theirs.read_exact(&mut [0])).await.expect("it was sent");
        (ours, theirs)
    }

    /// Shake hands over a stream.
    async fn shake_hands(
        &self,
    ) -> (Result<Established, DialError>, Result<Established, DialError>) {
        let (ours, theirs) = self.open().await;
        let (one, other) = (&self.below.0, &self.below.1);
        let (dialler, listener) = (&self.client.net, &self.server.net);
        let addrs = |below: &Established| (below.local, below.remote);
        let dial = dialler.shake_hands(ours, listener.peer(), Side::Outbound, addrs(one));
        let answer = listener.shake_hands(theirs, dialler.peer(), Side::Inbound, addrs(other));
        soon(join(dial, answer)).await
    }
}

async fn a_stream_carries_a_connection<L: Lab>(lab: &L) {
    for transport in BOTH {
        let pair = Pair::new(lab, transport, NetConfig::default()).await;
        let (dialled, arrived) = pair.shake_hands().await;
        let (dialled, arrived) = (dialled.expect("a circuit"), arrived.expect("a circuit"));
        assert_eq!((dialled.side, arrived.side), (Side::Outbound, Side::Inbound));
        assert_eq!((dialled.peer, arrived.peer), (pair.server.net.peer(), pair.client.net.peer()));
        assert_eq!((dialled.local, dialled.remote), (pair.below.0.local, pair.below.0.remote));
        assert_eq!((arrived.local, arrived.remote), (pair.below.1.local, pair.below.1.remote));
        for measured in [dialled.rtt, arrived.rtt] {
            let rtt = measured.expect("it was measured");
            assert!(!rtt.is_zero() && rtt < Duration::from_secs(5), "{rtt:?}");
        }
        // Both may open streams, and windows move in the connection and in the one below.
        talk_of(1_500_000, &dialled, &arrived).await;
        talk(&arrived, &dialled).await;
        // The one below goes on when the circuit closes.
        soon(join(dialled.muxer.close(), arrived.muxer.closed())).await;
        talk(&pair.below.0, &pair.below.1).await;
    }
}

async fn every_security_is_spoken_over_a_stream<L: Lab>(lab: &L) {
    for securities in [
        vec![Security::Noise],
        vec![Security::Tls],
        vec![Security::Tls, Security::Noise],
        vec![Security::Noise, Security::Tls],
    ] {
        let mut config = NetConfig::default();
        config.securities = securities.clone();
        let pair = Pair::new(lab, Transport::Quic, config).await;
        let (dialled, arrived) = pair.shake_hands().await;
        let (dialled, arrived) = (dialled.expect("it is spoken"), arrived.expect("it is spoken"));
        assert!(dialled.rtt.is_some() && arrived.rtt.is_some(), "{securities:?}");
        talk(&dialled, &arrived).await;
    }
}

async fn the_wrong_peer_is_refused_over_a_stream<L: Lab>(lab: &L) {
    for transport in BOTH {
        let (pair, absent) =
            (Pair::new(lab, transport, NetConfig::default()).await, Peer::new(lab));
        let (one, other) = (&pair.below.0, &pair.below.1);
        for wrong in [Side::Outbound, Side::Inbound] {
            let (ours, theirs) = pair.open().await;
            let (server, client) = match wrong {
                Side::Outbound => (absent.net.peer(), pair.client.net.peer()),
                Side::Inbound => (pair.server.net.peer(), absent.net.peer()),
            };
            let (dialler, listener) = (&pair.client.net, &pair.server.net);
            let addrs = (one.local, one.remote);
            let dial = dialler.shake_hands(ours, server, Side::Outbound, addrs);
            let addrs = (other.local, other.remote);
            let answer = listener.shake_hands(theirs, client, Side::Inbound, addrs);
            let (dialled, arrived) = soon(join(dial, answer)).await;
            let (refused, found) = match wrong {
                Side::Outbound => (dialled, pair.server.net.peer()),
                Side::Inbound => (arrived, pair.client.net.peer()),
            };
            let error = refused.expect_err("somebody else is there");
            let DialError::WrongPeer { expected, found: named } = error else {
                panic!("expected a wrong peer, got {error:?}");
            };
            assert_eq!((expected, named), (absent.net.peer(), found));
        }
    }
}

async fn who_says_nothing_over_a_stream_is_not_waited_for<L: Lab>(lab: &L) {
    let mut config = NetConfig::default();
    config.handshake_timeout = Duration::from_millis(200);
    for transport in BOTH {
        let pair = Pair::new(lab, transport, config.clone()).await;
        let (one, _mute) = pair.open().await;
        let (other, _mute) = pair.open().await;
        let below = &pair.below.0;
        let (peer, addrs) = (pair.server.net.peer(), (below.local, below.remote));
        for (side, stream) in [(Side::Outbound, one), (Side::Inbound, other)] {
            let hands = pair.client.net.shake_hands(stream, peer, side, addrs);
            let error = soon(hands).await.expect_err("nobody speaks");
            assert!(matches!(error, DialError::HandshakeTimedOut), "{error:?}");
        }
    }
}

async fn a_connection_ends_with_the_one_below<L: Lab>(lab: &L) {
    for transport in BOTH {
        let pair = Pair::new(lab, transport, NetConfig::default()).await;
        let (dialled, arrived) = pair.shake_hands().await;
        let (dialled, arrived) = (dialled.expect("a circuit"), arrived.expect("a circuit"));
        drop(pair.below);
        soon(join(dialled.muxer.closed(), arrived.muxer.closed())).await;
    }
}
