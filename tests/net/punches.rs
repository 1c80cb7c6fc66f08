//! Both sides dial at once, each from the port on which it listens.

use super::{Peer, addr, talk};
use futures::future::{Either, join, join_all, pending, select};
use futures::io::{AsyncRead, AsyncWrite};
use portolan_core::{Addr, DialFailure, PeerId, PunchWay, Side, Transport};
use portolan_runtime::identity;
use portolan_runtime::net::{DialError, Established, NetConfig};
use portolan_runtime::traits::Runtime;
use portolan_tests::lab::{Lab, soon};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, UdpSocket};
use tokio::sync::oneshot;
use tokio_util::compat::TokioAsyncReadCompatExt;

portolan_tests::on_every_runtime! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    two_that_dial_at_once_have_one_connection,
    a_connection_that_came_early_is_the_clients;
    #[tokio::test]
    refusals_are_answered_by_new_attempts,
    a_plain_dial_is_refused_once,
    a_server_over_quic_sends_datagrams_that_nobody_reads,
    a_client_over_quic_arrives_at_the_listener,
    a_server_that_is_connected_is_not_cancelled,
    what_is_cancelled_leaves_nothing_behind,
    time_runs_out,
    the_wrong_peer_is_refused,
    without_a_listener_nothing_is_sent;
}

const BOTH: [Transport; 2] = [Transport::Tcp, Transport::Quic];
const WAYS: [PunchWay; 3] = [PunchWay::Plain, PunchWay::Client, PunchWay::Server];
/// What opens every negotiation, as it goes over the wire.
const HEADER: &[u8] = b"\x13/multistream/1.0.0\n";
/// No test takes as long.
const PATIENCE: Duration = Duration::from_secs(25);

impl<R: Runtime> Peer<R> {
    async fn punch(&self, to: Addr, peer: PeerId, way: PunchWay) -> Result<Established, DialError> {
        let punch = self.net.punch(to, peer, way, PATIENCE, pending());
        soon(punch).await.map(|found| found.expect("nobody cancels it"))
    }

    /// The connection that the server has, from its dial or from its listener.
    async fn serve(&self, to: Addr, peer: PeerId) -> Established {
        let (cancel, cancelled) = oneshot::channel::<()>();
        let cancelled = async { drop(cancelled.await) };
        let mut punch = pin!(self.net.punch(to, peer, PunchWay::Server, PATIENCE, cancelled));
        let arrival = pin!(self.arrival());
        match soon(select(punch.as_mut(), arrival)).await {
            Either::Left((found, _)) => found.expect("the client dials").expect("it stands"),
            Either::Right((arrived, _)) => {
                drop(cancel);
                let found = soon(punch).await.expect("it is cancelled");
                assert!(found.is_none(), "there is a second connection: {found:?}");
                arrived
            }
        }
    }

    fn has_no_arrival(&self) -> bool {
        self.arrivals.is_empty()
    }
}

async fn two_that_dial_at_once_have_one_connection<L: Lab>(lab: &L) {
    for round in 0..60 {
        let ip = if round % 5 == 4 { "::1" } else { "127.0.0.1" };
        let (client, server) = (Peer::new(lab), Peer::new(lab));
        let to_client = client.listen(ip, Transport::Tcp).addr;
        let to_server = server.listen(ip, Transport::Tcp).addr;
        let dial = client.punch(to_server, server.net.peer(), PunchWay::Client);
        let serve = server.serve(to_client, client.net.peer());
        let (dialled, served) = if round % 2 == 0 {
            join(dial, serve).await
        } else {
            let (served, dialled) = join(serve, dial).await;
            (dialled, served)
        };
        let dialled = dialled.expect("the server dials");
        assert_eq!((dialled.side, served.side), (Side::Outbound, Side::Inbound));
        assert_eq!((dialled.peer, served.peer), (server.net.peer(), client.net.peer()));
        assert_eq!((dialled.local, dialled.remote), (to_client, to_server));
        assert_eq!((served.local, served.remote), (to_server, to_client));
        assert!(dialled.port_reused && !served.port_reused);
        talk(&dialled, &served).await;
        talk(&served, &dialled).await;
        assert!(client.has_no_arrival() && server.has_no_arrival(), "in round {round}");
    }
}

/// A socket connected to `to`, from a port that is known before.
async fn call(to: Addr) -> (Addr, tokio::net::TcpStream) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
    let at = socket.local_addr().expect("it is bound");
    let tcp = soon(socket.connect(to.socket())).await.expect("it listens");
    (Addr::tcp(at.ip(), at.port()), tcp)
}

async fn a_connection_that_came_early_is_the_clients<L: Lab>(lab: &L) {
    for _ in 0..10 {
        let (client, server) = (Peer::new(lab), Peer::new(lab));
        let to_client = client.listen("127.0.0.1", Transport::Tcp).addr;
        // It is connected, and says nothing: whoever dials as the server waits for the client.
        let (from, tcp) = call(to_client).await;
        let dial = client.punch(from, server.net.peer(), PunchWay::Client);
        let ends = (from, to_client);
        let shake = server.net.shake_hands(tcp.compat(), client.net.peer(), Side::Inbound, ends);
        let (dialled, served) = join(dial, soon(shake)).await;
        let (dialled, served) = (dialled.expect("it is there"), served.expect("it is the client"));
        assert_eq!(dialled.side, Side::Outbound);
        assert_eq!((dialled.local, dialled.remote), (to_client, from));
        talk(&dialled, &served).await;
        assert!(client.has_no_arrival());
    }
    // Another punch, or one as the server, does not change who is who.
    let (client, server) = (Peer::new(lab), Peer::new(lab));
    let to_client = client.listen("127.0.0.1", Transport::Tcp).addr;
    let (from, mut tcp) = call(to_client).await;
    let elsewhere = Addr::tcp(from.ip, 9);
    let (peer, patience) = (server.net.peer(), PATIENCE);
    let punches = join(
        client.net.punch(elsewhere, peer, PunchWay::Client, patience, pending()),
        client.net.punch(from, peer, PunchWay::Server, patience, pending()),
    );
    let answered = async {
        tcp.write_all(HEADER).await.expect("it is open");
        let mut header = [0; HEADER.len()];
        tcp.read_exact(&mut header).await.expect("it is the server");
        assert_eq!(header, HEADER);
    };
    let Either::Right(_) = soon(select(pin!(punches), pin!(answered))).await else {
        panic!("nobody answers the punches");
    };
}

/// A port on which nobody listens, held for as long as the socket lives.
pub(crate) fn vacant() -> (Addr, socket2::Socket) {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("an option that there is");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    let at = socket.local_addr().ok().and_then(|at| at.as_socket()).expect("it is bound");
    (Addr::tcp(at.ip(), at.port()), socket)
}

async fn refusals_are_answered_by_new_attempts<L: Lab>(lab: &L) {
    for way in [PunchWay::Client, PunchWay::Server] {
        let (one, other, stranger) = (Peer::new(lab), Peer::new(lab), Peer::new(lab));
        let from = one.listen("127.0.0.1", Transport::Tcp).addr;
        let (to, _held) = vacant();
        let peer = other.net.peer();
        let dial = async {
            if way == PunchWay::Server {
                return one.serve(to, peer).await;
            }
            one.punch(to, peer, way).await.expect("in the end somebody listens")
        };
        let answer = async {
            // By now, some have been refused.
            for _ in 0..20 {
                let error = soon(stranger.net.dial(to, None)).await.expect_err("nobody listens");
                assert_eq!(error.failure(), DialFailure::Refused, "{error:?}");
            }
            other.net.listen(to).expect("nobody listens there");
            if way == PunchWay::Client {
                return other.arrival().await;
            }
            other.punch(from, one.net.peer(), PunchWay::Client).await.expect("it is dialled")
        };
        let (dialled, answered) = join(dial, answer).await;
        let server = way == PunchWay::Server;
        assert_eq!(dialled.side, if server { Side::Inbound } else { Side::Outbound });
        assert_eq!((dialled.local, dialled.remote), (from, to));
        talk(&dialled, &answered).await;
    }
    let mut config = NetConfig::default();
    config.pending_max = 1;
    let (client, server) = (Peer::new(lab), Peer::with(lab, &identity::generate(), config));
    client.listen("127.0.0.1", Transport::Quic);
    let to = server.listen("127.0.0.1", Transport::Quic).addr;
    // Whoever is silent here takes all the room there is.
    let (_, holder) = call(server.listen("127.0.0.1", Transport::Tcp).addr).await;
    let peer = server.net.peer();
    let refused = soon(Peer::new(lab).net.dial(to, Some(peer))).await.expect_err("it is full");
    assert_eq!(refused.failure(), DialFailure::Refused);
    let opened = async {
        let refused = soon(Peer::new(lab).net.dial(to, Some(peer))).await;
        assert_eq!(refused.expect_err("it is full").failure(), DialFailure::Refused);
        drop(holder);
        server.arrival().await
    };
    let (dialled, arrived) = join(client.punch(to, peer, PunchWay::Client), opened).await;
    talk(&dialled.expect("in the end there is room"), &arrived).await;
}

async fn a_plain_dial_is_refused_once<L: Lab>(lab: &L) {
    let (client, server) = (Peer::new(lab), Peer::new(lab));
    let (nowhere, _held) = vacant();
    for transport in BOTH {
        let from = client.listen("127.0.0.1", transport).addr;
        let to = server.listen("127.0.0.1", transport).addr;
        let dial = client.punch(to, server.net.peer(), PunchWay::Plain);
        let (dialled, arrived) = join(dial, server.arrival()).await;
        let dialled = dialled.expect("it listens");
        assert!(dialled.port_reused && dialled.local == from && dialled.side == Side::Outbound);
        talk(&dialled, &arrived).await;
    }
    let error = client.punch(nowhere, server.net.peer(), PunchWay::Plain).await;
    let error = error.expect_err("nobody listens");
    assert_eq!(error.failure(), DialFailure::Refused, "{error:?}");
}

async fn a_server_over_quic_sends_datagrams_that_nobody_reads<L: Lab>(lab: &L) {
    for ip in ["127.0.0.1", "::1"] {
        let server = Peer::new(lab);
        let from = server.listen(ip, Transport::Quic).addr;
        let socket = UdpSocket::bind((ip, 0)).await.expect("a free port");
        let at = socket.local_addr().expect("it is bound");
        let to = Addr::quic(at.ip(), at.port());
        let (cancel, cancelled) = oneshot::channel::<()>();
        let cancelled = async { drop(cancelled.await) };
        let peer = Peer::new(lab).net.peer();
        let begun_at = Instant::now();
        let punch = server.net.punch(to, peer, PunchWay::Server, PATIENCE, cancelled);
        let read = async {
            let mut seen = Vec::new();
            let mut before = begun_at;
            for count in 0..12 {
                let mut datagram = [0; 100];
                let (len, source) = soon(socket.recv_from(&mut datagram)).await.expect("it comes");
                assert_eq!((len, source), (64, from.socket()));
                assert_eq!(datagram[0] & 0xc0, 0, "it looks like QUIC");
                let at = Instant::now();
                // Whoever reads late sees them late, never early.
                assert!(at - begun_at >= Duration::from_millis(10) * count);
                let slack = Duration::from_secs(2);
                assert!(at - before <= Duration::from_millis(200) + slack, "{:?}", at - before);
                before = at;
                seen.push(datagram);
            }
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), 12, "they are random");
            drop(cancel);
        };
        let (found, ()) = soon(join(punch, read)).await;
        assert!(found.expect("it is cancelled").is_none());
        // Whatever was sent before is here by now: this is loopback.
        let mut datagram = [0; 100];
        while socket.try_recv(&mut datagram).is_ok() {}
        // sleep: longer than the longest pause between two of them.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let error = socket.try_recv(&mut datagram).expect_err("it is cancelled");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}

async fn a_client_over_quic_arrives_at_the_listener<L: Lab>(lab: &L) {
    for ip in ["127.0.0.1", "::1"] {
        let (client, server) = (Peer::new(lab), Peer::new(lab));
        let to_client = client.listen(ip, Transport::Quic).addr;
        let to_server = server.listen(ip, Transport::Quic).addr;
        let dial = client.punch(to_server, server.net.peer(), PunchWay::Client);
        let (dialled, served) = join(dial, server.serve(to_client, client.net.peer())).await;
        let dialled = dialled.expect("the server listens");
        assert_eq!((dialled.side, served.side), (Side::Outbound, Side::Inbound));
        assert_eq!((dialled.local, served.local), (to_client, to_server));
        assert!(dialled.port_reused);
        talk(&dialled, &served).await;
        talk(&served, &dialled).await;
        assert!(client.has_no_arrival() && server.has_no_arrival());
    }
    // A socket on which nobody answers yet.
    let (client, server) = (Peer::new(lab), Peer::new(lab));
    client.listen("127.0.0.1", Transport::Quic);
    let mute = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    let at = mute.local_addr().expect("it is bound");
    let to = Addr::quic(at.ip(), at.port());
    let opened = async {
        soon(mute.readable()).await.expect("the first packet comes");
        drop(mute);
        server.net.listen(to).expect("the port is free");
        server.arrival().await
    };
    let dial = client.punch(to, server.net.peer(), PunchWay::Client);
    let (dialled, arrived) = join(dial, opened).await;
    talk(&dialled.expect("in the end it listens"), &arrived).await;
}

/// A socket that tells when something was read from it.
struct Told<T> {
    io: T,
    told: Option<oneshot::Sender<()>>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Told<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
        self.told = None;
        Poll::Ready(Ok(count))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Told<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_close(cx)
    }
}

async fn a_server_that_is_connected_is_not_cancelled<L: Lab>(lab: &L) {
    let (client, server) = (Peer::new(lab), Peer::new(lab));
    let from = server.listen("127.0.0.1", Transport::Tcp).addr;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let at = listener.local_addr().expect("it is bound");
    let to = Addr::tcp(at.ip(), at.port());
    let (told, cancelled) = oneshot::channel();
    let cancelled = async { drop(cancelled.await) };
    let punch = server.net.punch(to, client.net.peer(), PunchWay::Server, PATIENCE, cancelled);
    let shake = async {
        let (tcp, source) = listener.accept().await.expect("it is dialled");
        assert_eq!(source, from.socket());
        let io = Told { io: tcp.compat(), told: Some(told) };
        client.net.shake_hands(io, server.net.peer(), Side::Outbound, (to, from)).await
    };
    let (served, dialled) = soon(join(punch, shake)).await;
    let served = served.expect("hands are shaken").expect("it is not cancelled any more");
    assert_eq!(served.side, Side::Inbound);
    talk(&dialled.expect("hands are shaken"), &served).await;

    // A client is.
    let (told, cancelled) = oneshot::channel::<()>();
    let cancelled = async { drop(cancelled.await) };
    server.net.shutdown().await;
    server.listen("127.0.0.1", Transport::Tcp);
    let punch = server.net.punch(to, client.net.peer(), PunchWay::Client, PATIENCE, cancelled);
    let hear = async {
        let (mut tcp, _) = listener.accept().await.expect("it is dialled");
        let mut header = [0; HEADER.len()];
        tcp.read_exact(&mut header).await.expect("the client speaks first");
        drop(told);
        let mut rest = Vec::new();
        let _ = tcp.read_to_end(&mut rest).await;
    };
    let (found, ()) = soon(join(punch, hear)).await;
    assert!(found.expect("it is cancelled").is_none());
}

async fn what_is_cancelled_leaves_nothing_behind<L: Lab>(lab: &L) {
    let one = Peer::new(lab);
    let listening = BOTH.map(|transport| one.listen("127.0.0.1", transport).addr);
    let (nowhere, _held) = vacant();
    let mute = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    let peer = Peer::new(lab).net.peer();
    let to = [
        nowhere,
        addr("127.0.0.1", mute.local_addr().expect("it is bound").port(), Transport::Quic),
    ];
    let lasting = [
        (to[0], PunchWay::Client),
        (to[0], PunchWay::Server),
        (to[1], PunchWay::Client),
        (to[1], PunchWay::Server),
    ];
    // Twice: what the first left behind would take room from the second.
    for _ in 0..2 {
        let (cancel, cancelled) = async_channel::bounded::<()>(1);
        let punches = (0..256).map(|index| {
            let (to, way) = lasting[index % lasting.len()];
            let cancelled = cancelled.clone();
            let cancelled = async move { assert!(cancelled.recv().await.is_err()) };
            Box::pin(one.net.punch(to, peer, way, PATIENCE, cancelled))
        });
        let mut punches: Vec<_> = punches.collect();
        for punch in &mut punches {
            assert!(futures::poll!(punch).is_pending(), "nobody answers");
        }
        let checks = async {
            for to in to {
                for way in WAYS {
                    let full = one.punch(to, peer, way).await.expect_err("there are 256");
                    assert_eq!(full.failure(), DialFailure::LocalFault, "{full:?}");
                }
            }
            drop(cancel);
        };
        let (found, ()) = soon(join(join_all(punches), checks)).await;
        assert!(found.into_iter().all(|found| found.expect("it is cancelled").is_none()));
    }
    // The ports are free once nobody listens on them.
    soon(one.net.shutdown()).await;
    for at in listening {
        one.net.listen(at).expect("the port is free");
    }
}

async fn time_runs_out<L: Lab>(lab: &L) {
    let one = Peer::new(lab);
    for transport in BOTH {
        one.listen("127.0.0.1", transport);
    }
    let (nowhere, _held) = vacant();
    let mute = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    let silent = addr("127.0.0.1", mute.local_addr().expect("it is bound").port(), Transport::Quic);
    let (peer, patience) = (Peer::new(lab).net.peer(), Duration::from_millis(300));
    for (to, way, expected) in [
        (nowhere, PunchWay::Client, DialFailure::Refused),
        (nowhere, PunchWay::Server, DialFailure::Refused),
        (silent, PunchWay::Plain, DialFailure::TimedOut),
        (silent, PunchWay::Client, DialFailure::TimedOut),
        (silent, PunchWay::Server, DialFailure::TimedOut),
    ] {
        let begun_at = Instant::now();
        let error = soon(one.net.punch(to, peer, way, patience, pending())).await;
        let error = error.expect_err("nobody is there");
        assert_eq!(error.failure(), expected, "{to} {way:?}: {error:?}");
        assert!(begun_at.elapsed() >= patience, "{to} {way:?}");
    }
}

async fn the_wrong_peer_is_refused<L: Lab>(lab: &L) {
    let (client, server, absent) = (Peer::new(lab), Peer::new(lab), Peer::new(lab));
    for transport in BOTH {
        client.listen("127.0.0.1", transport);
        let to = server.listen("127.0.0.1", transport).addr;
        for way in [PunchWay::Plain, PunchWay::Client] {
            let error = client.punch(to, absent.net.peer(), way).await;
            let error = error.expect_err("somebody else lives there");
            let DialError::WrongPeer { expected, found } = error else { panic!("{error:?}") };
            assert_eq!((expected, found), (absent.net.peer(), server.net.peer()));
        }
    }
    // And where the other side is the client.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let at = listener.local_addr().expect("it is bound");
    let to = Addr::tcp(at.ip(), at.port());
    let punch = server.punch(to, absent.net.peer(), PunchWay::Server);
    let shake = async {
        let (tcp, from) = listener.accept().await.expect("it is dialled");
        let ends = (to, Addr::tcp(from.ip(), from.port()));
        client.net.shake_hands(tcp.compat(), server.net.peer(), Side::Outbound, ends).await
    };
    let (served, _) = soon(join(punch, shake)).await;
    let error = served.expect_err("somebody else calls");
    assert!(matches!(error, DialError::WrongPeer { .. }), "{error:?}");
}

async fn without_a_listener_nothing_is_sent<L: Lab>(lab: &L) {
    let (one, server) = (Peer::new(lab), Peer::new(lab));
    // Neither another family nor another transport will do.
    one.listen("::1", Transport::Tcp);
    for transport in BOTH {
        let to = server.listen("127.0.0.1", transport).addr;
        for way in WAYS {
            let error = one.punch(to, server.net.peer(), way).await;
            let error = error.expect_err("no listener fits");
            assert_eq!(error.failure(), DialFailure::LocalFault, "{error:?}");
        }
        one.listen("::1", Transport::Quic);
        for (ip, port) in [("224.0.0.1", 1), ("0.0.0.0", 1), ("127.0.0.1", 0)] {
            for way in WAYS {
                let error = one.punch(addr(ip, port, transport), server.net.peer(), way).await;
                let error = error.expect_err("it is no destination");
                assert!(matches!(error, DialError::Unusable(_)), "{error:?}");
            }
        }
    }
    assert!(server.has_no_arrival());
}
