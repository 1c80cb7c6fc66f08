//! Bad peers of the other kind: those that ask. Requests that break the framing or the rules,
//! streams that say nothing or come in floods, dial data that is not paid as it should be, nonces
//! that nobody asked for. What must come out: the stream ends and nothing else does, everybody
//! else is served, and nothing is dialled that was not paid for.

use bytes::{Bytes, BytesMut};
use futures::future::join_all;
use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::swarm::StreamProtocol;
use libp2p::{Multiaddr, Stream};
use portolan_core::wire::autonat::{
    DialBack, DialBackResponse, DialStatus, Message, ResponseStatus, dial_data_chunk,
};
use portolan_core::{DialBackConfig, Framing, Notice, Oddity, Protocol, State};
use portolan_runtime::traits::Runtime;
use portolan_tests::frames::{announce_frame, read_frame, write_frame};
use portolan_tests::lab::Lab;
use portolan_tests::portolan_peer::{PortolanPeer, on_one_host};
use portolan_tests::raw_streams::Inbound;
use portolan_tests::rust_peer::{RustPeer, RustPeerConfig, Seen};
use std::io;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Beyond every deadline of the service, the longest of which is 10 s for what is tested here.
const WITHIN: Duration = Duration::from_secs(20);
const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
const FRAMING: Framing = Protocol::DialRequest.framing();

portolan_tests::on_every_runtime_at_once! {
    #[tokio::test(flavor = "multi_thread")]
    broken_requests_end_their_stream_only,
    a_second_request_on_a_stream_is_not_served,
    silent_streams_are_ended,
    floods_of_streams_are_cut,
    dial_data_is_paid_as_it_should_be,
    what_must_not_be_dialled_is_refused,
    a_nonce_that_nobody_asked_for_is_ignored;
}

/// Somebody who asks a server to dial back.
struct Requester {
    rust: RustPeer,
    server: libp2p::PeerId,
    nonces: watch::Receiver<Vec<u64>>,
}

fn name(protocol: Protocol) -> StreamProtocol {
    StreamProtocol::new(protocol.name())
}

async fn server<L: Lab>(lab: &L, listen: &str) -> PortolanPeer<L::Runtime> {
    let mut config = on_one_host();
    config.dial_back = Some(DialBackConfig::unlimited());
    PortolanPeer::start(lab.runtime(), config, &[listen]).await
}

impl Requester {
    /// A peer that is connected to `server`, listens itself, and takes every nonce.
    async fn connect<R: Runtime>(server: &PortolanPeer<R>, listen: &str) -> Requester {
        let config = RustPeerConfig {
            listen: vec![listen.parse().expect("a multiaddr")],
            accept: vec![name(Protocol::DialBack)],
            ..RustPeerConfig::default()
        };
        let mut rust = RustPeer::start(config).await;
        let (log, nonces) = watch::channel(Vec::new());
        tokio::spawn(take_nonces(rust.inbound().expect("nobody else has asked"), log));
        // Its own port may be taken by another socket of this host, which says nothing about ours.
        rust.dial_from_fresh_port(server.full_addrs[0].clone()).await;
        let connected = rust.wait("connection", WITHIN, |seen| {
            matches!(seen, Seen::Connected { .. }).then_some(())
        });
        connected.await.expect("the server admits it");
        Requester { rust, server: server.id(), nonces }
    }

    async fn open(&self) -> io::Result<Stream> {
        self.rust.opener().open(self.server, name(Protocol::DialRequest)).await
    }

    /// Ask about one address and return the first message that comes back.
    async fn ask(&self, addr: &Multiaddr, nonce: u64) -> io::Result<(Stream, Message)> {
        let mut stream = self.open().await?;
        let (request, _) = Message::dial_request(vec![addr.to_vec().into()], nonce);
        write_frame(&mut stream, FRAMING, &request.encode()).await?;
        let answer = read_frame(&mut stream, FRAMING, &mut BytesMut::new()).await?;
        Ok((stream, Message::decode(&answer).map_err(io::Error::other)?))
    }

    /// An honest request over the same connection is served in full.
    async fn is_served(&self, case: &str) {
        let nonce = rand::random();
        let asked = tokio::time::timeout(WITHIN, self.ask(&self.rust.addrs[0], nonce)).await;
        let (_stream, answer) = asked
            .unwrap_or_else(|_| panic!("{case}: no answer"))
            .unwrap_or_else(|error| panic!("{case}: {error}"));
        let success = Message::DialResponse {
            status: ResponseStatus::Ok,
            addr_idx: 0,
            dial_status: DialStatus::Ok,
            failed_from: None,
        };
        assert_eq!(answer, success, "{case}");
        assert!(self.nonces.borrow().contains(&nonce), "{case}: it was delivered before");
        let lost = self.rust.seen().into_iter().find(|seen| self.lost(seen));
        assert!(lost.is_none(), "{case}: {lost:?}");
    }

    /// As [`Requester::is_served`], for one whose earlier streams the server may still be clearing
    /// away: until then it is reset for having too many.
    async fn is_served_again(&self, case: &str) {
        let cleared = async {
            while self.ask(&self.rust.addrs[0], rand::random()).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        let cleared = tokio::time::timeout(WITHIN, cleared).await;
        cleared.unwrap_or_else(|_| panic!("{case}: it is never served again"));
        self.is_served(case).await;
    }

    /// Whether the connection to the server is gone. (Dial-backs have another peer id.)
    fn lost(&self, seen: &Seen) -> bool {
        matches!(seen, Seen::Disconnected { peer, .. } if *peer == self.server)
    }
}

async fn take_nonces(mut inbound: mpsc::UnboundedReceiver<Inbound>, log: watch::Sender<Vec<u64>>) {
    let framing = Protocol::DialBack.framing();
    while let Some(Inbound { mut stream, .. }) = inbound.recv().await {
        let Ok(body) = read_frame(&mut stream, framing, &mut BytesMut::new()).await else {
            continue;
        };
        let Ok(DialBack { nonce }) = DialBack::decode(&body) else { continue };
        // Noted before it is acknowledged, so that whoever hears of the success finds it.
        log.send_modify(|log| log.push(nonce));
        let _gone = write_frame(&mut stream, framing, &DialBackResponse::OK.encode()).await;
        let _gone = stream.close().await;
    }
}

/// Wait for the end of a stream; what came before it is no success.
async fn ends(mut stream: Stream, case: &str) {
    let mut said = Vec::new();
    let end = tokio::time::timeout(WITHIN, stream.read_to_end(&mut said)).await;
    // A reset and an end of sending are equally good.
    let _reset_or_finished = end.unwrap_or_else(|_| panic!("{case}: the stream stays open"));
    let success = Message::DialResponse {
        status: ResponseStatus::Ok,
        addr_idx: 0,
        dial_status: DialStatus::Ok,
        failed_from: None,
    };
    let body: Bytes = success.encode();
    assert!(!said.windows(body.len()).any(|window| window == body), "{case}: a success");
}

/// What breaks a rule ends its stream and no more.
async fn broken_requests_end_their_stream_only<L: Lab>(lab: &L) {
    for listen in [TCP, QUIC] {
        let server = server(lab, listen).await;
        let requester = Requester::connect(&server, listen).await;
        let answer = Message::DialResponse {
            status: ResponseStatus::Ok,
            addr_idx: 0,
            dial_status: DialStatus::Ok,
            failed_from: None,
        };
        for (case, body) in [
            ("garbage", Bytes::from_static(&[0xff; 64])),
            ("nothing at all", Bytes::new()),
            ("an answer instead of a question", answer.encode()),
            ("dial data that nobody asked for", dial_data_chunk(1_000)),
        ] {
            let mut stream = requester.open().await.expect("the connection stands");
            write_frame(&mut stream, FRAMING, &body).await.expect("it is sent");
            ends(stream, case).await;
            requester.is_served(case).await;
        }
        let mut oversized = requester.open().await.expect("the connection stands");
        // The server may reset it before all of it is written.
        let body = vec![0; 1 << 20];
        let _reset = write_frame(&mut oversized, Framing::Varint { max: body.len() }, &body).await;
        ends(oversized, "oversized").await;
        requester.is_served("oversized").await;

        let mut truncated = requester.open().await.expect("the connection stands");
        announce_frame(&mut truncated, FRAMING, 4_000).await.expect("it is sent");
        truncated.write_all(&[0; 10]).await.expect("it is sent");
        truncated.close().await.expect("it is sent");
        ends(truncated, "truncated").await;
        requester.is_served("truncated").await;
    }
}

/// A stream carries one request.
async fn a_second_request_on_a_stream_is_not_served<L: Lab>(lab: &L) {
    let server = server(lab, TCP).await;
    let requester = Requester::connect(&server, TCP).await;
    let (mut stream, _) =
        requester.ask(&requester.rust.addrs[0], 1).await.expect("the first is answered");
    let (second, _) = Message::dial_request(vec![requester.rust.addrs[0].to_vec().into()], 2);
    let _reset = write_frame(&mut stream, FRAMING, &second.encode()).await;
    ends(stream, "a second request").await;
    requester.is_served("a second request").await;
    assert!(!requester.nonces.borrow().contains(&2), "nothing was dialled for it");
}

/// Streams that say nothing, or drip, are ended in time, and meanwhile everybody else is served.
async fn silent_streams_are_ended<L: Lab>(lab: &L) {
    let case = async |listen| {
        let server = server(lab, listen).await;
        let (slow, other) = futures::join!(
            Requester::connect(&server, listen),
            Requester::connect(&server, listen),
        );
        let mut held = Vec::new();
        for number in 0..40 {
            // Where the server does not admit so many, so much the better.
            let Ok(mut stream) = slow.open().await else { continue };
            if number % 2 == 0 {
                let _refused = announce_frame(&mut stream, FRAMING, 4_000).await;
            }
            held.push(stream);
        }
        other.is_served("beside silent streams").await;
        join_all(held.into_iter().map(|stream| ends(stream, "silent"))).await;
        slow.is_served("after silent streams").await;
    };
    futures::join!(case(TCP), case(QUIC));
}

/// A flood of streams of every protocol is cut off; the connection and everybody else live on.
async fn floods_of_streams_are_cut<L: Lab>(lab: &L) {
    for listen in [TCP, QUIC] {
        let server = server(lab, listen).await;
        let (flooding, other) = futures::join!(
            Requester::connect(&server, listen),
            Requester::connect(&server, listen),
        );
        let mut flood = tokio::task::JoinSet::new();
        for number in 0..600 {
            let protocol = Protocol::ALL[number % Protocol::ALL.len()];
            let (opener, peer) = (flooding.rust.opener(), flooding.server);
            // The far end admits so many and no more: some of these wait for as long as they may.
            flood.spawn(async move { opener.open(peer, name(protocol)).await });
        }
        other.is_served("beside a flood").await;
        let mut held = Vec::new();
        let gathered = async {
            while let Some(Ok(opened)) = flood.join_next().await {
                held.extend(opened);
            }
        };
        // Those that wait for a place wait until one is free, which is never.
        let _some_wait = tokio::time::timeout(Duration::from_secs(3), gathered).await;
        other.is_served("beside what the flood left").await;
        assert!(held.len() < 600, "{listen}: all {} streams were admitted", held.len());
        flood.shutdown().await;
        drop(held);
        if !flooding.rust.seen().iter().any(|seen| flooding.lost(seen)) {
            flooding.is_served_again("after the flood").await;
        }
    }
}

/// Dial data is paid in chunks of a decent size, in time, and before anything is dialled.
async fn dial_data_is_paid_as_it_should_be<L: Lab>(lab: &L) {
    let server = server(lab, TCP).await;
    let payer = async |case: &str, chunk: Bytes, count: usize| {
        let requester = Requester::connect(&server, TCP).await;
        // Another IP than the requester's, where nobody listens.
        let elsewhere = "/ip4/127.0.0.2/tcp/9".parse().expect("a multiaddr");
        let (mut stream, wanted) =
            requester.ask(&elsewhere, 7).await.expect("dial data is asked for");
        let Message::DialDataRequest { addr_idx: 0, num_bytes: 30_000..=100_000 } = wanted else {
            panic!("{case}: {wanted:?}");
        };
        let framing = Framing::Varint { max: chunk.len() };
        for _ in 0..count {
            // The server may end the stream in the middle.
            let _reset = write_frame(&mut stream, framing, &chunk).await;
        }
        ends(stream, case).await;
        requester.is_served(case).await;
    };
    let too_long = Message::DialDataResponse { data: vec![0; 4_097].into() }.encode();
    let (request, _) = Message::dial_request(vec![], 7);
    futures::join!(
        payer("tiny chunks", dial_data_chunk(50), 2_000),
        payer("chunks that are too long", too_long, 30),
        payer("another request instead", request.encode(), 1),
        payer("an upload that stops", dial_data_chunk(4_096), 2),
    );
}

/// Addresses that a server must not dial, and those that it cannot, are refused.
async fn what_must_not_be_dialled_is_refused<L: Lab>(lab: &L) {
    let mut careful = portolan_core::Config::default();
    careful.dial_back = Some(DialBackConfig::unlimited());
    let careful = PortolanPeer::start(lab.runtime(), careful, &[TCP]).await;
    let lenient = server(lab, TCP).await;
    let (of_careful, of_lenient) =
        futures::join!(Requester::connect(&careful, TCP), Requester::connect(&lenient, TCP));
    let own = lenient.full_addrs[0].iter().take(2).collect::<Multiaddr>();
    for (case, requester, addr) in [
        ("a private address", &of_careful, of_careful.rust.addrs[0].clone()),
        ("the server's own address", &of_lenient, own),
        ("a name", &of_lenient, "/dns4/localhost/tcp/1".parse().expect("a multiaddr")),
        ("another transport", &of_lenient, "/ip4/127.0.0.1/udp/1".parse().expect("a multiaddr")),
        ("a multicast address", &of_lenient, "/ip4/224.0.0.1/tcp/1".parse().expect("a multiaddr")),
    ] {
        let (_stream, answer) = requester.ask(&addr, 1).await.expect("it is answered");
        let Message::DialResponse { status, .. } = answer else { panic!("{case}: {answer:?}") };
        assert_eq!(status, ResponseStatus::Refused, "{case}");
        assert!(requester.nonces.borrow().is_empty(), "{case}: something was dialled");
    }
}

/// A nonce that nobody asked for is noted, answered by nothing, and changes nothing.
async fn a_nonce_that_nobody_asked_for_is_ignored<L: Lab>(lab: &L) {
    let client = PortolanPeer::start(lab.runtime(), on_one_host(), &[TCP]).await;
    let stranger = Requester::connect(&client, TCP).await;
    let opened = stranger.rust.opener().open(client.id(), name(Protocol::DialBack)).await;
    let mut stream = opened.expect("everybody may dial back");
    let body = DialBack { nonce: 7 }.encode();
    write_frame(&mut stream, Protocol::DialBack.framing(), &body).await.expect("it is sent");
    let mut said = Vec::new();
    let end = tokio::time::timeout(WITHIN, stream.read_to_end(&mut said)).await;
    let _reset_or_finished = end.expect("the stream is ended");
    assert_eq!(said, b"", "an unknown nonce is not acknowledged");
    let ignored = |notice: &Notice| {
        let Notice::Ignored { oddity, .. } = notice else { return None };
        (*oddity == Oddity::UnknownNonce).then_some(())
    };
    client.wait_notice("unknown nonce", WITHIN, ignored).await.expect("it is noted");
    let judged = client.notices().into_iter().find(
        |notice| matches!(notice, Notice::VerdictChanged { state, .. } if *state != State::Unknown),
    );
    assert_eq!(judged, None);
}
