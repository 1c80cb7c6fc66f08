//! Sessions that outlive the connections under them.

use super::{BOTH, EVERYWHERE, dial, node};
use futures::StreamExt;
use futures::io::{AsyncReadExt, AsyncWriteExt};
use multiaddr::{Multiaddr, Protocol};
use portolan_core::wire::pipe::{self as wire, Frame};
use portolan_core::{ConnId, PeerId};
use portolan_runtime::pipe::{
    Allow, PROTOCOL, Pipe, PipeConfig, PipeError, PipeListener, PipeOpenError, ResetCode,
};
use portolan_runtime::traits::Runtime;
use portolan_runtime::{Node, OpenError};
use portolan_tests::lab::{Lab, soon, until};
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

portolan_tests::on_every_runtime! {
    #[tokio::test]
    ten_megabytes_go_both_ways_and_both_sides_know,
    a_session_outlives_its_connections,
    connections_that_are_cut_cost_no_byte,
    a_session_moves_to_a_newer_connection,
    another_peer_cannot_resume_a_session,
    a_carrier_of_another_version_is_skipped_over,
    sessions_are_bounded,
    peers_that_are_not_allowed_are_refused,
    a_slow_reader_holds_the_writer,
    a_session_that_gets_nowhere_is_lost,
    a_session_that_nobody_comes_back_to_is_lost,
    a_pipe_that_is_dropped_is_reset,
    what_is_finished_leaves_nothing_behind;
}

/// A stream of bytes that no shift or repetition of itself equals.
struct Text(u64);

impl Text {
    fn next(&mut self, len: usize) -> Vec<u8> {
        let mut text = Vec::with_capacity(len + 8);
        while text.len() < len {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            text.extend_from_slice(&self.0.to_le_bytes());
        }
        text.truncate(len);
        text
    }
}

/// Both ends of a session between two nodes.
async fn session<R: Runtime>(client: &Node<R>, server: &Node<R>) -> (Pipe, Pipe, PipeListener) {
    let config = PipeConfig::default();
    let mut listener = PipeListener::new(server, Allow::Anyone, config).expect("it is free");
    let addresses = soon(server.listeners()).await;
    let opened = Pipe::open(client, server.peer_id(), addresses, config);
    let opened = soon(opened).await.expect("it is served");
    let accepted = soon(listener.next()).await.expect("the node lives");
    assert_eq!((opened.peer(), accepted.peer()), (server.peer_id(), client.peer_id()));
    assert_eq!(opened.id(), accepted.id());
    (opened, accepted, listener)
}

const PIECE: usize = 64 * 1024;

/// Write `pieces` of a text.
async fn send(mut pipe: &Pipe, text: &mut Text, pieces: usize) {
    for _ in 0..pieces {
        pipe.write_all(&text.next(PIECE)).await.expect("it is open");
    }
}

/// Read `pieces` of a text.
async fn receive(mut pipe: &Pipe, text: &mut Text, pieces: usize) {
    let mut got = vec![0; PIECE];
    for piece in 0..pieces {
        pipe.read_exact(&mut got).await.expect("it arrives");
        assert!(got == text.next(PIECE), "piece {piece}");
    }
}

async fn ends(mut pipe: &Pipe) {
    assert_eq!(pipe.read(&mut [0; 9]).await.expect("a proper end"), 0);
}

/// What is written at either end, and what has been read of it at the other.
pub(super) struct Talk {
    written: [Text; 2],
    read: [Text; 2],
}

impl Talk {
    pub(super) fn new() -> Talk {
        Talk { written: [Text(7), Text(8)], read: [Text(7), Text(8)] }
    }

    /// `pieces` each way at once.
    pub(super) async fn exchange(&mut self, opened: &Pipe, accepted: &Pipe, pieces: usize) {
        let Talk { written: [out, back], read: [out_read, back_read] } = self;
        futures::join!(
            send(opened, out, pieces),
            send(accepted, back, pieces),
            receive(accepted, out_read, pieces),
            receive(opened, back_read, pieces),
        );
    }
}

/// Both ends finish, and know that the other has read everything.
pub(super) async fn part(mut opened: &Pipe, mut accepted: &Pipe) {
    opened.close().await.expect("it is open");
    accepted.close().await.expect("it is open");
    futures::join!(ends(opened), ends(accepted));
    assert_eq!(futures::join!(opened.finish(), accepted.finish()), (Ok(()), Ok(())));
}

async fn ten_megabytes_go_both_ways_and_both_sides_know<L: Lab>(lab: &L) {
    for addr in BOTH {
        let (server, client) = (node(lab, &[addr]).await, node(lab, &[]).await);
        let (opened, accepted, _listener) = session(&client, &server).await;
        let mut talk = Talk::new();
        // Ten megabytes each way are more than other tests have to wait for.
        let exchange = talk.exchange(&opened, &accepted, 10_000_000 / PIECE + 1);
        tokio::time::timeout(Duration::from_secs(180), exchange).await.expect("it flows");
        soon(part(&opened, &accepted)).await;
    }
}

/// Wait until the session has a carrier on another connection than `before`, and which.
async fn moved(pipe: &Pipe, before: ConnId) -> ConnId {
    until(async || pipe.path().is_some_and(|path| path.conn != before)).await;
    pipe.path().expect("it has just had one").conn
}

fn conn(pipe: &Pipe) -> ConnId {
    pipe.path().expect("it has just been opened").conn
}

async fn a_session_outlives_its_connections<L: Lab>(lab: &L) {
    for addr in BOTH {
        let (server, client) = (node(lab, &[addr]).await, node(lab, &[]).await);
        let (opened, accepted, _listener) = session(&client, &server).await;
        let mut talk = Talk::new();
        for round in 0..4 {
            let before = conn(&opened);
            let breaks = async {
                let (node, peer) = if round % 2 == 0 {
                    (&client, server.peer_id())
                } else {
                    (&server, client.peer_id())
                };
                assert!(node.disconnect(peer).await > 0);
                moved(&opened, before).await;
            };
            soon(async {
                futures::join!(talk.exchange(&opened, &accepted, 16), breaks);
            })
            .await;
        }
        soon(part(&opened, &accepted)).await;
    }
}

/// A cable to `to` that is cut, each time it is plugged in, after so many bytes of either way; a
/// cut of none never comes. Returns where to plug in.
async fn cable(to: u16, cuts: Vec<usize>) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    tokio::spawn(async move {
        let mut cuts = cuts.into_iter();
        while let Ok((near, _)) = listener.accept().await {
            let budget = cuts.next().unwrap_or(usize::MAX);
            tokio::spawn(async move {
                let far = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await.expect("it listens");
                let (out, back) = (pass(&near, &far, budget), pass(&far, &near, budget));
                // Whichever ends first drops both sockets.
                tokio::select! { () = out => {} () = back => {} }
            });
        }
    });
    port
}

/// Copy until `budget` is used up, or the end.
async fn pass(from: &TcpStream, to: &TcpStream, mut budget: usize) {
    let mut buffer = vec![0; 4096];
    while budget > 0 {
        let len = buffer.len().min(budget);
        if from.readable().await.is_err() {
            return;
        }
        match from.try_read(&mut buffer[..len]) {
            Ok(0) => return,
            Ok(count) => {
                budget -= count;
                let mut rest = &buffer[..count];
                while !rest.is_empty() {
                    if to.writable().await.is_err() {
                        return;
                    }
                    match to.try_write(rest) {
                        Ok(count) => rest = &rest[count..],
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(_) => return,
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

fn tcp_port(addr: &Multiaddr) -> u16 {
    let tcp = |part| if let Protocol::Tcp(port) = part { Some(port) } else { None };
    addr.iter().find_map(tcp).expect("a port of TCP")
}

async fn connections_that_are_cut_cost_no_byte<L: Lab>(lab: &L) {
    let (server, client) = (node(lab, &[BOTH[0]]).await, node(lab, &[]).await);
    let port = tcp_port(&soon(server.listeners()).await.remove(0));
    // The handshakes are some kilobytes: two plugs do not live to the session.
    let cuts = vec![150_001, 2_000, 333_333, 7_777, 80_080, 500_009, 9_999];
    let port = cable(port, cuts).await;
    let through: Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}").parse().expect("an address");

    let config = PipeConfig::default();
    let mut pipes = PipeListener::new(&server, Allow::Anyone, config).expect("it is free");
    let opened = Pipe::open(&client, server.peer_id(), vec![through], config);
    let opened = soon(opened).await.expect("it is served");
    let accepted = soon(pipes.next()).await.expect("the node lives");
    let first = conn(&opened);
    soon(Talk::new().exchange(&opened, &accepted, 32)).await;
    moved(&opened, first).await;
    soon(part(&opened, &accepted)).await;
}

async fn a_session_moves_to_a_newer_connection<L: Lab>(lab: &L) {
    let (server, client) = (node(lab, &EVERYWHERE).await, node(lab, &[]).await);
    let (opened, accepted, _listener) = session(&client, &server).await;
    let mut talk = Talk::new();
    for addr in soon(server.listeners()).await {
        let newer = async {
            let newer = client.dial(addr).await.expect("it listens").conn;
            until(async || opened.path().is_some_and(|path| path.conn == newer)).await;
        };
        soon(async {
            futures::join!(talk.exchange(&opened, &accepted, 8), newer);
        })
        .await;
    }
    // It stays where it is best.
    let present = conn(&opened);
    opened.migrate();
    soon(talk.exchange(&opened, &accepted, 1)).await;
    assert_eq!(conn(&opened), present);
    until(async || accepted.path().is_some_and(|path| path.rtt.is_some())).await;
    soon(part(&opened, &accepted)).await;
}

/// Say one frame on a stream of its own, and hear the first answer.
async fn say<R: Runtime>(from: &Node<R>, to: PeerId, frames: &[u8]) -> Option<Frame> {
    let mut stream = soon(from.open_stream(to, PROTOCOL)).await.expect("it is served");
    stream.write_all(frames).await.expect("it is open");
    stream.flush().await.expect("it is open");
    let mut heard = bytes::BytesMut::new();
    loop {
        if let Some(frame) = wire::split(&mut heard).expect("they are frames") {
            return Some(frame);
        }
        let mut chunk = [0; 64];
        match soon(stream.read(&mut chunk)).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => heard.extend_from_slice(&chunk[..count]),
        }
    }
}

fn encoded(frame: &Frame) -> bytes::BytesMut {
    let mut out = bytes::BytesMut::new();
    wire::encode(frame, &mut out);
    out
}

async fn another_peer_cannot_resume_a_session<L: Lab>(lab: &L) {
    let (server, client) = (node(lab, &[BOTH[1]]).await, node(lab, &[]).await);
    let thief = node(lab, &[]).await;
    let (opened, accepted, _listener) = session(&client, &server).await;
    dial(&thief, &server).await;
    let mut talk = Talk::new();
    soon(talk.exchange(&opened, &accepted, 2)).await;
    let resume = Frame::Resume { session: opened.id(), carrier: 9, received: 0 };
    let answer = say(&thief, server.peer_id(), &encoded(&resume)).await;
    assert_eq!(answer, Some(Frame::Reset(ResetCode::Unknown)));
    // Its own peer may not go back to an older carrier either.
    let resume = Frame::Resume { session: opened.id(), carrier: 0, received: 0 };
    let answer = say(&client, server.peer_id(), &encoded(&resume)).await;
    assert_eq!(answer, Some(Frame::Reset(ResetCode::Superseded)));
    soon(talk.exchange(&opened, &accepted, 2)).await;
    soon(part(&opened, &accepted)).await;
}

async fn a_carrier_of_another_version_is_skipped_over<L: Lab>(lab: &L) {
    let (server, client) = (node(lab, &[BOTH[1]]).await, node(lab, &[]).await);
    let config = PipeConfig::default();
    let _listener = PipeListener::new(&server, Allow::Anyone, config).expect("it is free");
    dial(&client, &server).await;
    let session = wire::SessionId([3; 16]);
    let open = encoded(&Frame::Open { session, carrier: 0, window: 1 });
    let unknown = [&[77, 0, 3, 1, 2, 3][..], &open].concat();
    let answer = say(&client, server.peer_id(), &unknown).await;
    assert_eq!(answer, Some(Frame::Accept { window: config.window, received: 0 }));
    let misplaced = encoded(&Frame::Done);
    let answer = say(&client, server.peer_id(), &misplaced).await;
    assert_eq!(answer, Some(Frame::Reset(ResetCode::Protocol)));
    let absurd = [4, 0xff, 0xff];
    let answer = say(&client, server.peer_id(), &absurd).await;
    assert_eq!(answer, Some(Frame::Reset(ResetCode::Protocol)));
}

async fn sessions_are_bounded<L: Lab>(lab: &L) {
    let server = node(lab, &[BOTH[1]]).await;
    let mut config = PipeConfig::default();
    config.sessions_max = 2;
    config.per_peer_max = 1;
    let mut listener = PipeListener::new(&server, Allow::Anyone, config).expect("it is free");
    let clients = [node(lab, &[]).await, node(lab, &[]).await, node(lab, &[]).await];
    let addresses = soon(server.listeners()).await;
    let open = async |client: &Node<L::Runtime>| {
        soon(Pipe::open(client, server.peer_id(), addresses.clone(), config)).await
    };
    let full = |refused: Result<Pipe, PipeOpenError>| {
        matches!(refused, Err(PipeOpenError::Refused(ResetCode::Full)))
    };
    let first = open(&clients[0]).await.expect("there is room");
    let accepted = soon(listener.next()).await.expect("the node lives");
    assert!(full(open(&clients[0]).await), "one a peer");
    let _second = open(&clients[1]).await.expect("there is room");
    assert!(full(open(&clients[2]).await), "two in all");
    soon(part(&first, &accepted)).await;
    until(async || open(&clients[2]).await.is_ok()).await;
}

async fn peers_that_are_not_allowed_are_refused<L: Lab>(lab: &L) {
    let server = node(lab, &[BOTH[0]]).await;
    let (friend, stranger) = (node(lab, &[]).await, node(lab, &[]).await);
    let config = PipeConfig::default();
    let addresses = soon(server.listeners()).await;
    let open = async |client: &Node<L::Runtime>| {
        soon(Pipe::open(client, server.peer_id(), addresses.clone(), config)).await
    };
    let refused = open(&friend).await;
    let unsupported = OpenError::Unsupported(PROTOCOL.into());
    assert!(matches!(refused, Err(PipeOpenError::Stream(error)) if error == unsupported));
    let allow = Allow::Only([friend.peer_id()].into());
    let mut listener = PipeListener::new(&server, allow, config).expect("it is free");
    let refused = open(&stranger).await;
    assert!(matches!(refused, Err(PipeOpenError::Refused(ResetCode::Denied))), "{refused:?}");
    let opened = open(&friend).await.expect("it is allowed");
    let accepted = soon(listener.next()).await.expect("the node lives");
    assert_eq!(accepted.peer(), friend.peer_id());
    // Nobody listens any more; what stands lives on.
    drop(listener);
    let refused = open(&friend).await;
    assert!(matches!(refused, Err(PipeOpenError::Refused(ResetCode::Closed))), "{refused:?}");
    soon(Talk::new().exchange(&opened, &accepted, 2)).await;
    soon(part(&opened, &accepted)).await;
}

async fn a_slow_reader_holds_the_writer<L: Lab>(lab: &L) {
    for addr in BOTH {
        let (server, client) = (node(lab, &[addr]).await, node(lab, &[]).await);
        let mut config = PipeConfig::default();
        config.window = 100_000;
        let mut listener = PipeListener::new(&server, Allow::Anyone, config).expect("it is free");
        let addresses = soon(server.listeners()).await;
        let opened = Pipe::open(&client, server.peer_id(), addresses, config);
        let mut opened = soon(opened).await.expect("it is served");
        let mut accepted = soon(listener.next()).await.expect("the node lives");
        let mut written = 0;
        while let std::task::Poll::Ready(count) = futures::poll!(opened.write(&[5; 30_000])) {
            written += count.expect("it is open");
        }
        assert_eq!(written, 100_000, "whether it has left or not, it is not acknowledged");
        // The other direction is not held up by it.
        soon(accepted.write_all(b"hello")).await.expect("it is open");
        let mut hello = [0; 5];
        soon(opened.read_exact(&mut hello)).await.expect("it arrives");
        assert!(futures::poll!(opened.write(&[5])).is_pending());
        let mut got = vec![0; 70_000];
        soon(accepted.read_exact(&mut got)).await.expect("it arrives");
        let wrote = soon(opened.write(&[5; 30_000])).await.expect("it is open");
        assert!(wrote > 0);
    }
}

async fn a_session_that_gets_nowhere_is_lost<L: Lab>(lab: &L) {
    let (server, client) = (node(lab, &[BOTH[0]]).await, node(lab, &[]).await);
    let port = tcp_port(&soon(server.listeners()).await.remove(0));
    // The handshakes and the first words fit in, and no frame of data that is full.
    let port = cable(port, vec![12_000; 10_000]).await;
    let through: Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}").parse().expect("an address");

    let mut config = PipeConfig::default();
    config.keep = Duration::from_millis(1_500);
    let mut pipes = PipeListener::new(&server, Allow::Anyone, config).expect("it is free");
    let opened = Pipe::open(&client, server.peer_id(), vec![through], config);
    let mut opened = soon(opened).await.expect("it is served");
    let _accepted = soon(pipes.next()).await.expect("the node lives");
    // It is taken, and never arrives.
    opened.write_all(&Text(1).next(PIECE)).await.expect("it is open");
    let error = soon(opened.read(&mut [0])).await.expect_err("it ends");
    assert!(
        matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::ConnectionReset),
        "{error}"
    );
}

async fn a_session_that_nobody_comes_back_to_is_lost<L: Lab>(lab: &L) {
    let (server, client) = (node(lab, &[BOTH[0]]).await, node(lab, &[]).await);
    let mut config = PipeConfig::default();
    config.keep = Duration::from_millis(300);
    let mut listener = PipeListener::new(&server, Allow::Anyone, config).expect("it is free");
    let addresses = soon(server.listeners()).await;
    let opened = Pipe::open(&client, server.peer_id(), addresses, config);
    let mut opened = soon(opened).await.expect("it is served");
    let mut accepted = soon(listener.next()).await.expect("the node lives");
    opened.write_all(b"last words").await.expect("it is open");
    let mut words = [0; 10];
    soon(accepted.read_exact(&mut words[..4])).await.expect("they arrive");
    soon(server.shutdown()).await;
    let error = soon(opened.read(&mut [0; 9])).await.expect_err("nobody is there");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    assert_eq!(soon(opened.finish()).await, Err(PipeError::Lost(config.keep)));
    // What had arrived is read first.
    soon(accepted.read_exact(&mut words[4..])).await.expect("they have arrived");
    assert_eq!(&words, b"last words");
    assert_eq!(soon(accepted.finish()).await, Err(PipeError::Stopped));
    soon(client.shutdown()).await;
}

async fn a_pipe_that_is_dropped_is_reset<L: Lab>(lab: &L) {
    for addr in BOTH {
        let (server, client) = (node(lab, &[addr]).await, node(lab, &[]).await);
        let (mut opened, accepted, _listener) = session(&client, &server).await;
        drop(accepted);
        let error = soon(opened.read(&mut [0; 9])).await.expect_err("it was given up");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
        let cancelled = PipeError::Reset(ResetCode::Cancelled);
        assert_eq!(soon(opened.finish()).await, Err(cancelled));
        opened.write(b"more").await.expect_err("it was given up");
        assert_eq!(opened.path(), None);
    }
}

async fn what_is_finished_leaves_nothing_behind<L: Lab>(lab: &L) {
    let (server, client) = (node(lab, &BOTH).await, node(lab, &[]).await);
    let (opened, accepted, listener) = session(&client, &server).await;
    soon(Talk::new().exchange(&opened, &accepted, 1)).await;
    soon(part(&opened, &accepted)).await;
    drop(listener);
    until(async || server.accept(PROTOCOL).is_ok()).await;
    let (other, left, second) = session(&client, &server).await;
    soon(client.shutdown()).await;
    soon(server.shutdown()).await;
    assert_eq!(soon(other.finish()).await, Err(PipeError::Stopped));
    assert_eq!(soon(left.finish()).await, Err(PipeError::Stopped));
    drop(second);
    until(async || lab.is_idle()).await;
}
