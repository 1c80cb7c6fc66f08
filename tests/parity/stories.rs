//! The stories. Each says at its end what it must have led to, so that none passes because nothing
//! happened.

use crate::peer::{Line, Peer, Stream};
use crate::stage::{Stage, config};
use futures::future::join_all;
use futures::stream::{self, StreamExt as _};
use portolan_core::wire::autonat::{
    DialBack, DialBackResponse, DialStatus, Message, ResponseStatus,
};
use portolan_core::wire::multiaddr::{Decoded, decode, encode};
use portolan_core::{Addr, DialBackConfig, Protocol};
use portolan_runtime::Limits;
use portolan_tests::lab::Lab;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// What a server lists.
const SERVER: [Protocol; 3] = [Protocol::Identify, Protocol::Ping, Protocol::DialRequest];
/// What somebody else lists.
const PLAIN: [Protocol; 2] = [Protocol::Identify, Protocol::Ping];

pub(crate) async fn an_ordinary_probe<L: Lab>(stage: &mut Stage<L>) {
    stage.start_listening().await;
    let server = stage.peer("Server");
    let line = stage.dial(&server).await;
    stage.introduce(&line, &SERVER).await;
    probe(stage, &server, &line).await;
    stage.shutdown().await;
    stage.expect(2, &["DialBack nonce=#0", "reachable contacted", "proved"]);
}

/// The node asks on `line`, and the server dials back.
async fn probe<L: Lab>(stage: &mut Stage<L>, server: &Peer, line: &Line) {
    let (mut exchange, addr, nonce) = request(line).await;
    let back = server.dial_back(addr).await;
    stage.introduce(&back, &PLAIN).await;
    let mut stream = back.open(Protocol::DialBack).await;
    stream.send(&DialBack { nonce }.encode()).await;
    assert_eq!(DialBackResponse::decode(&stream.read().await), Ok(DialBackResponse::OK));
    stream.ends().await;
    stream.close().await;
    stage.until_told("finished <dial-back", 1).await;
    let (status, dial_status) = (ResponseStatus::Ok, DialStatus::Ok);
    let answer = Message::DialResponse { status, addr_idx: 0, dial_status, failed_from: None };
    exchange.send(&answer.encode()).await;
    exchange.ends().await;
    exchange.close().await;
    stage.until_told("finished >dial-request", 1).await;
    stage.close(back).await;
}

/// The node's request on `line`: the stream, the address and the nonce.
async fn request(line: &Line) -> (Stream, Addr, u64) {
    let mut exchange = line.accept(Protocol::DialRequest).await;
    let body = exchange.read().await;
    let Ok(Message::DialRequest { addrs, nonce }) = Message::decode(&body) else {
        panic!("no dial request: {body:?}");
    };
    let Some(Ok(Decoded::Direct { addr, .. })) = addrs.first().map(|addr| decode(addr)) else {
        panic!("no address: {addrs:?}");
    };
    (exchange, addr, nonce)
}

pub(crate) async fn dial_before_listen<L: Lab>(stage: &mut Stage<L>) {
    stage.start(config(), Limits::default()).await;
    stage.dial_nobody().await;
    let peer = stage.peer("Peer");
    let early = stage.dial(&peer).await;
    stage.introduce(&early, &PLAIN).await;
    stage.listen(stage.ip).await;
    // The second connection leaves from the port that is listened on by now.
    let late = stage.dial(&peer).await;
    stage.introduce(&late, &PLAIN).await;
    stage.close(early).await;
    stage.shutdown().await;
    stage.expect(2, &["dialling nobody: Refused", "/any", "/Node-l0", "observed+interface"]);
}

pub(crate) async fn a_reset_in_the_middle_of_a_frame<L: Lab>(stage: &mut Stage<L>) {
    let at = stage.start_listening().await;
    // A frame that the node asked for.
    let asked = stage.peer("Asked");
    let wire = stage.wire("Wire", asked.at).await;
    let line = stage.dial_at(&asked, wire.at()).await;
    let description = line.description(&PLAIN);
    let mut stream = line.accept(Protocol::Identify).await;
    stage.until_told("opened >identify", 1).await;
    stream.send_raw(&half_of(&description)).await;
    ping(stage, &line).await;
    wire.cut(line).await;
    stage.until_told("disconnected", 1).await;
    // A frame that it did not ask for.
    let pushing = stage.peer("Pushing");
    let wire = stage.wire("Wire", at).await;
    let line = pushing.dial(wire.at()).await;
    stage.introduce(&line, &PLAIN).await;
    let mut stream = line.open(Protocol::IdentifyPush).await;
    stream.send_raw(&half_of(&description)).await;
    stage.until_told("opened <push", 1).await;
    ping(stage, &line).await;
    wire.cut(line).await;
    stage.until_told("disconnected", 1).await;
    stage.shutdown().await;
    // The streams end with their connection, which is not told by itself.
    stage.expect(2, &["disconnected"]);
    stage.expect_none(&["bad-frame", "reset", "finished <push"]);
}

/// A frame that breaks off half-way.
fn half_of(body: &[u8]) -> Vec<u8> {
    let mut frame = vec![u8::try_from(body.len()).expect("one byte of length")];
    frame.extend_from_slice(&body[..body.len() / 2]);
    assert!(body.len() < 0x80, "one byte of length");
    frame
}

/// Ping the node: what was sent before has arrived when the echo comes.
async fn ping<L: Lab>(stage: &mut Stage<L>, line: &Line) {
    let mut stream = line.open(Protocol::Ping).await;
    stream.send(&[7; 32]).await;
    assert_eq!(stream.read().await, [7; 32].as_slice());
    stream.close().await;
    stream.ends().await;
    stage.until_told("finished <ping", 1).await;
}

pub(crate) async fn a_listener_on_a_wildcard<L: Lab>(stage: &mut Stage<L>) {
    stage.start(config(), Limits::default()).await;
    let bound = stage.listen(Ipv4Addr::UNSPECIFIED.into()).await;
    let peer = stage.peer("Peer");
    let out = stage.dial(&peer).await;
    stage.introduce(&out, &PLAIN).await;
    stage.close(out).await;
    for host in [1, 2] {
        let at = Addr { ip: IpAddr::from([127, 0, 0, host]), ..bound };
        let line = peer.dial(at).await;
        stage.introduce(&line, &PLAIN).await;
        stage.close(line).await;
    }
    stage.shutdown().await;
    stage.expect(3, &["local=/ip4/127.0.0.2/", "out /ip4/127.0.0.1/"]);
}

pub(crate) async fn ipv6_only<L: Lab>(stage: &mut Stage<L>) {
    stage.ip = Ipv6Addr::LOCALHOST.into();
    stage.start_listening().await;
    let server = stage.peer("Server");
    let line = stage.dial(&server).await;
    stage.introduce(&line, &SERVER).await;
    probe(stage, &server, &line).await;
    // A peer of the other family is dialled from no listener.
    let other = stage.peer_at("Other", Ipv4Addr::LOCALHOST.into());
    let foreign = stage.dial(&other).await;
    stage.introduce(&foreign, &PLAIN).await;
    stage.close(foreign).await;
    stage.shutdown().await;
    stage.expect(3, &["local=/ip6/::1/", "local=/ip4/127.0.0.1/", "proved"]);
}

/// Connections of one batch.
const BATCH: usize = 100;
/// Batches.
const BATCHES: usize = 10;
/// Handshakes at once: more of them on a busy machine overrun the buffer of a UDP socket, and
/// what becomes of a connection is then a matter of which packets are lost.
const DIALS: usize = 8;

pub(crate) async fn a_thousand_connections<L: Lab>(stage: &mut Stage<L>) {
    let mut limits = Limits::default();
    limits.inbound_per_source_max = BATCH;
    stage.start(config(), limits).await;
    let at = stage.listen(stage.ip).await;
    let peers: Vec<Peer> = (0..BATCH).map(|_| stage.peer("Peer")).collect();
    for batch in 0..BATCHES {
        let dials = peers.iter().map(|peer| peer.dial(at));
        let lines: Vec<Line> = stream::iter(dials).buffered(DIALS).collect().await;
        join_all(lines.iter().map(|line| line.describe(&PLAIN))).await;
        stage.until_told("finished >identify", BATCH).await;
        let pinged = lines.iter().filter(|line| line.is_pinged());
        let echoes = join_all(pinged.map(Line::echo)).await.len();
        stage.until_told("finished >ping", echoes).await;
        if batch % 2 == 0 {
            join_all(lines.into_iter().map(Line::close)).await;
        } else {
            join_all(peers.iter().map(|peer| stage.node().disconnect(peer.id()))).await;
            join_all(lines.iter().map(Line::closed)).await;
        }
        stage.until_told("disconnected", BATCH).await;
    }
    stage.shutdown().await;
    stage.expect(BATCH * BATCHES, &["finished >identify", "disconnected"]);
}

pub(crate) async fn shutdown_while_a_probe_is_in_flight<L: Lab>(stage: &mut Stage<L>) {
    stage.start_listening().await;
    let server = stage.peer("Server");
    let line = stage.dial(&server).await;
    stage.introduce(&line, &SERVER).await;
    let (_unanswered, _, _) = request(&line).await;
    stage.until_told("opened >dial-request", 1).await;
    stage.shutdown().await;
    stage.expect(1, &["a probe is in flight", "listener-closed", "disconnected"]);
}

pub(crate) async fn dialling_back<L: Lab>(stage: &mut Stage<L>) {
    let mut serving = config();
    serving.dial_back = Some(DialBackConfig::unlimited());
    stage.start(serving, Limits::default()).await;
    let at = stage.listen(stage.ip).await;
    let client = stage.peer("Client");
    let line = client.dial(at).await;
    stage.introduce(&line, &PLAIN).await;
    // An address where the nonce is taken.
    let mut exchange = ask(&line, client.at, 7).await;
    let back = client.arrival().await;
    let mut stream = back.accept(Protocol::DialBack).await;
    assert_eq!(DialBack::decode(&stream.read().await), Ok(DialBack { nonce: 7 }));
    stream.send(&DialBackResponse::OK.encode()).await;
    stream.close().await;
    back.closed().await;
    stage.until_told("disconnected", 1).await;
    assert_eq!(answer(stage, &mut exchange).await, DialStatus::Ok);
    // An address where nobody is.
    let nobody = stage.unreachable("Nobody").await;
    let mut exchange = ask(&line, nobody.at, 8).await;
    stage.until_told("dial-failed", 1).await;
    assert_eq!(answer(stage, &mut exchange).await, DialStatus::DialError);
    stage.shutdown().await;
    stage.expect(2, &["dial=d1", "Delivered", "dial-failed d2 refused", "DialFailed"]);
}

/// Ask the node to dial `addr`.
async fn ask(line: &Line, addr: Addr, nonce: u64) -> Stream {
    let mut exchange = line.open(Protocol::DialRequest).await;
    let (request, _) = Message::dial_request(vec![encode(addr)], nonce);
    exchange.send(&request.encode()).await;
    exchange
}

/// The node's answer, which ends the exchange.
async fn answer<L: Lab>(stage: &mut Stage<L>, exchange: &mut Stream) -> DialStatus {
    let body = exchange.read().await;
    let Ok(Message::DialResponse { dial_status, .. }) = Message::decode(&body) else {
        panic!("no answer: {body:?}");
    };
    exchange.ends().await;
    exchange.close().await;
    stage.until_told("finished <dial-request", 1).await;
    dial_status
}

pub(crate) async fn what_takes_too_long<L: Lab>(stage: &mut Stage<L>) {
    let mut limits = Limits::default();
    limits.frame_timeout = Duration::from_millis(100);
    limits.negotiation_timeout = Duration::from_millis(100);
    limits.idle_timeout = Duration::from_millis(500);
    stage.start(config(), limits).await;
    let at = stage.listen(stage.ip).await;
    let peer = stage.peer("Peer");
    // One that never agrees to what the node opens.
    let silent = peer.dial(at).await;
    stage.until_told("failed >identify", 1).await;
    silent.closed().await;
    stage.until_told("disconnected", 1).await;
    // A frame that breaks off, and the connection goes on until nobody has used it for long.
    let slow = stage.dial(&peer).await;
    stage.introduce(&slow, &PLAIN).await;
    let mut stream = slow.open(Protocol::IdentifyPush).await;
    stream.send_raw(&half_of(&slow.description(&PLAIN))).await;
    stage.until_told("bad-frame <push", 1).await;
    slow.closed().await;
    stage.until_told("disconnected", 1).await;
    stage.shutdown().await;
    stage.expect(2, &["failed >identify:0 (Peer) timed-out", "bad-frame <push", "disconnected"]);
}
