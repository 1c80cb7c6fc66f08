//! Sockets and requests that port mapping needs, towards routers that are sockets of the test.

use async_channel::Receiver;
use futures::FutureExt;
use portolan_core::{Channel, Duration, Fetch, FetchFailure, FetchId, MappingEvent, Soap};
use portolan_runtime::routers::Routers;
use portolan_tests::lab::{Lab, soon, until};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

portolan_tests::on_every_runtime! {
    #[tokio::test]
    datagrams_go_and_come_and_too_long_ones_are_dropped,
    a_refused_datagram_names_its_destination_and_stops_no_other,
    datagrams_that_nobody_takes_are_lost_and_later_ones_are_not,
    a_closed_channel_receives_nothing_and_can_be_opened_again,
    a_group_is_heard_beside_others_who_hear_it,
    a_request_is_one_piece_and_its_response_is_read_to_its_end,
    what_is_no_response_is_told_apart,
    a_router_that_does_not_answer_is_given_up,
    eight_requests_are_under_way_and_the_rest_wait_or_fail,
    a_shutdown_ends_what_is_open_and_under_way;
}

/// The loopback interface is the first one of every namespace.
const LOOPBACK: u32 = 1;
const LOCALHOSTS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
const PATIENCE: Duration = Duration::from_secs(20);

fn client(source: IpAddr) -> Channel {
    Channel::Client { source, interface: LOOPBACK }
}

async fn udp(ip: IpAddr) -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind((ip, 0)).await.expect("a free port");
    let addr = socket.local_addr().expect("it is bound");
    (socket, addr)
}

async fn next(news: &Receiver<MappingEvent>) -> MappingEvent {
    soon(news.recv()).await.expect("the routers live")
}

async fn datagrams_go_and_come_and_too_long_ones_are_dropped<L: Lab>(lab: &L) {
    for ip in LOCALHOSTS {
        let (mut routers, news) = Routers::new(lab.runtime());
        let (router, addr) = udp(ip).await;
        let channel = client(ip);
        routers.send(channel, addr, b"it is not open yet");
        routers.open(channel).expect("it is our own address");
        routers.open(channel).expect("it is open already");
        routers.send(channel, addr, b"question");
        let mut buf = [0; 64];
        let (count, from) = soon(router.recv_from(&mut buf)).await.expect("it is open");
        assert_eq!((&buf[..count], from.ip()), (&b"question"[..], ip));
        for length in [2_049, 0, 2_048] {
            soon(router.send_to(&vec![7; length], from)).await.expect("it is open");
        }
        for length in [0, 2_048] {
            let body = vec![7; length].into();
            let received = MappingEvent::DatagramReceived { channel, from: addr, body };
            assert_eq!(next(&news).await, received);
        }
    }
}

async fn a_refused_datagram_names_its_destination_and_stops_no_other<L: Lab>(lab: &L) {
    for ip in LOCALHOSTS {
        let (mut routers, news) = Routers::new(lab.runtime());
        let (router, addr) = udp(ip).await;
        let mut gone = Vec::new();
        for _ in 0..2 {
            // Where nobody listens any more.
            gone.push(udp(ip).await.1);
        }
        let channel = client(ip);
        routers.open(channel).expect("it is our own address");
        for to in &gone {
            routers.send(channel, *to, b"anybody?");
        }
        routers.send(channel, addr, b"question");
        let (_, from) = soon(router.recv_from(&mut [0; 64])).await.expect("it is open");
        if cfg!(target_os = "linux") {
            for to in gone {
                let refused = MappingEvent::DatagramRefused { channel, to: Some(to) };
                assert_eq!(next(&news).await, refused);
            }
        }
        soon(router.send_to(b"answer", from)).await.expect("it is open");
        let body = b"answer"[..].into();
        let received = MappingEvent::DatagramReceived { channel, from: addr, body };
        assert_eq!(next(&news).await, received);
    }
}

async fn datagrams_that_nobody_takes_are_lost_and_later_ones_are_not<L: Lab>(lab: &L) {
    let (mut routers, news) = Routers::new(lab.runtime());
    let (router, addr) = udp(LOCALHOSTS[0]).await;
    let channel = client(LOCALHOSTS[0]);
    routers.open(channel).expect("it is our own address");
    routers.send(channel, addr, b"question");
    let (_, from) = soon(router.recv_from(&mut [0; 64])).await.expect("it is open");
    until(async || {
        router.send_to(b"flood", from).await.expect("it is open");
        news.is_full()
    })
    .await;
    assert_eq!(news.len(), 64);
    let last = MappingEvent::DatagramReceived { channel, from: addr, body: b"last"[..].into() };
    until(async || {
        let taken: Vec<_> = std::iter::from_fn(|| news.try_recv().ok()).collect();
        router.send_to(b"last", from).await.expect("it is open");
        taken.contains(&last)
    })
    .await;
}

async fn a_closed_channel_receives_nothing_and_can_be_opened_again<L: Lab>(lab: &L) {
    let (mut routers, news) = Routers::new(lab.runtime());
    let (router, addr) = udp(LOCALHOSTS[0]).await;
    let channel = client(LOCALHOSTS[0]);
    let mut ports = Vec::new();
    for _ in 0..2 {
        routers.open(channel).expect("it is our own address");
        routers.send(channel, addr, b"question");
        let (_, from) = soon(router.recv_from(&mut [0; 64])).await.expect("it is open");
        routers.close(channel);
        routers.send(channel, addr, b"it is closed");
        // It is when somebody else can have the port.
        until(async || UdpSocket::bind(from).await.is_ok()).await;
        ports.push(from);
    }
    assert!(router.recv_from(&mut [0; 64]).now_or_never().is_none(), "nothing more was sent");
    assert!(news.is_empty());
    // One whose address is none of ours cannot be opened.
    let foreign = client("192.0.2.1".parse().expect("an IP"));
    routers.open(foreign).expect_err("it is not ours");
}

async fn a_group_is_heard_beside_others_who_hear_it<L: Lab>(lab: &L) {
    let ip = LOCALHOSTS[0];
    // A port that nobody has, and a group that nobody else uses it for.
    let port = udp(ip).await.1.port();
    let group = SocketAddr::new("239.255.77.1".parse().expect("an IP"), port);
    let other = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).expect("there is UDP");
    other.set_reuse_address(true).expect("it is open");
    #[cfg(unix)]
    other.set_reuse_port(true).expect("it is open");
    other.bind(&group.into()).expect("a free port");

    let (mut routers, news) = Routers::new(lab.runtime());
    let channel = Channel::Group { group, source: ip, interface: LOOPBACK };
    routers.open(channel).expect("the port is shared");
    let (router, addr) = udp(ip).await;
    SockRef::from(&router).set_multicast_if_v4(&Ipv4Addr::LOCALHOST).expect("it is ours");
    // What is sent to one host is not for the group.
    router.send_to(b"to one", SocketAddr::new(ip, port)).await.expect("it is open");
    router.send_to(b"to all", group).await.expect("it is open");
    let body = b"to all"[..].into();
    assert_eq!(next(&news).await, MappingEvent::DatagramReceived { channel, from: addr, body });
}

/// A fake HTTP server, and a request to it.
async fn http(ip: IpAddr) -> (TcpListener, Fetch) {
    let listener = TcpListener::bind((ip, 0)).await.expect("a free port");
    let to = listener.local_addr().expect("it is bound");
    (listener, fetch(1, to))
}

fn fetch(id: u64, to: SocketAddr) -> Fetch {
    Fetch {
        fetch: FetchId(id),
        source: to.ip(),
        interface: LOOPBACK,
        to,
        path: "/control?wan=1".into(),
        soap: None,
        timeout: PATIENCE,
    }
}

async fn accept(listener: &TcpListener) -> TcpStream {
    soon(listener.accept()).await.expect("it listens").0
}

async fn a_request_is_one_piece_and_its_response_is_read_to_its_end<L: Lab>(lab: &L) {
    for ip in LOCALHOSTS {
        let (listener, get) = http(ip).await;
        let mut post = get.clone();
        let envelope = "<envelope/>".repeat(200);
        post.soap = Some(Soap { action: "urn:x:1#Ask".into(), body: envelope.clone().into() });
        for (fetch, begin, end) in
            [(get, "GET /control?wan=1 HTTP/1.1\r\n", "\r\n\r\n"), (post, "POST ", &envelope)]
        {
            let (mut routers, news) = Routers::new(lab.runtime());
            assert_eq!(routers.fetch(fetch.clone()), None);
            let mut tcp = accept(&listener).await;
            assert_eq!(tcp.peer_addr().expect("it is connected").ip(), ip);
            let mut buf = [0; 8_192];
            let count = soon(tcp.read(&mut buf)).await.expect("it is open");
            let request = std::str::from_utf8(&buf[..count]).expect("it is text");
            assert!(request.starts_with(begin), "{request}");
            assert!(request.ends_with(end), "it came in one piece: {request}");
            if fetch.soap.is_some() {
                assert!(request.contains("\"urn:x:1#Ask\""), "{request}");
            }
            assert!(tcp.read(&mut buf).now_or_never().is_none(), "it is not finished with us");
            tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n").await.expect("it is open");
            tcp.write_all(b"\r\nhello").await.expect("it is open");
            let body = b"hello"[..].into();
            let fetched = MappingEvent::Fetched { fetch: FetchId(1), status: 200, body };
            // We do not close: the length says where it ends.
            assert_eq!(next(&news).await, fetched);
        }
    }
}

async fn what_is_no_response_is_told_apart<L: Lab>(lab: &L) {
    use FetchFailure::{LocalFault, Malformed, Refused};
    let (listener, fetch) = http(LOCALHOSTS[0]).await;
    let too_long = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}", "x".repeat(65_537));
    let longest = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}", "x".repeat(65_536));
    let cut = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort";
    let moved = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n";
    for (response, reason) in [
        (&*longest, None),
        (&too_long, Some(Malformed)),
        (cut, Some(Malformed)),
        (moved, Some(Malformed)),
        ("SSH-2.0-router\r\n\r\n", Some(Malformed)),
        ("", Some(Malformed)),
    ] {
        let (mut routers, news) = Routers::new(lab.runtime());
        assert_eq!(routers.fetch(fetch.clone()), None);
        let mut tcp = accept(&listener).await;
        let mut buf = [0; 8_192];
        assert!(soon(tcp.read(&mut buf)).await.expect("it is open") > 0);
        // The other side may have read enough before it is all written.
        let _ = soon(tcp.write_all(response.as_bytes())).await;
        let _ = tcp.shutdown().await;
        match (next(&news).await, reason) {
            (MappingEvent::Fetched { status: 200, body, .. }, None) => {
                assert_eq!(body.len(), 65_536);
            }
            (MappingEvent::FetchFailed { reason, .. }, Some(expected)) => {
                assert_eq!(reason, expected, "{response:.60}");
            }
            (other, _) => panic!("{other:?} for {response:.60}"),
        }
        assert!(listener.accept().now_or_never().is_none(), "nobody else was asked");
    }

    let (mut routers, news) = Routers::new(lab.runtime());
    assert_eq!(routers.fetch(fetch.clone()), None);
    let mut tcp = accept(&listener).await;
    assert!(soon(tcp.read(&mut [0; 8_192])).await.expect("it is open") > 0);
    SockRef::from(&tcp).set_linger(Some(Duration::ZERO)).expect("it is open");
    drop(tcp);
    let failed = |reason| MappingEvent::FetchFailed { fetch: FetchId(1), reason };
    assert_eq!(next(&news).await, failed(Refused), "it was reset");
    drop(listener);
    assert_eq!(routers.fetch(fetch.clone()), None);
    assert_eq!(next(&news).await, failed(Refused), "nobody listens");
    let source = "192.0.2.1".parse().expect("an IP");
    assert_eq!(routers.fetch(Fetch { source, ..fetch }), None);
    assert_eq!(next(&news).await, failed(LocalFault), "the source is not ours");
}

async fn a_router_that_does_not_answer_is_given_up<L: Lab>(lab: &L) {
    let (listener, fetch) = http(LOCALHOSTS[0]).await;
    let (mut routers, news) = Routers::new(lab.runtime());
    assert_eq!(routers.fetch(Fetch { timeout: Duration::from_millis(50), ..fetch }), None);
    let mut tcp = accept(&listener).await;
    // What it says is not enough.
    tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel").await.expect("it is open");
    let reason = FetchFailure::TimedOut;
    assert_eq!(next(&news).await, MappingEvent::FetchFailed { fetch: FetchId(1), reason });
    let mut rest = Vec::new();
    // It is closed, or reset where something was not read.
    let _ = soon(tcp.read_to_end(&mut rest)).await;
}

async fn eight_requests_are_under_way_and_the_rest_wait_or_fail<L: Lab>(lab: &L) {
    const ALL: u64 = 64;
    let (listener, one) = http(LOCALHOSTS[0]).await;
    let (mut routers, news) = Routers::new(lab.runtime());
    for id in 0..ALL {
        assert_eq!(routers.fetch(fetch(id, one.to)), None);
    }
    let reason = FetchFailure::LocalFault;
    let failed = MappingEvent::FetchFailed { fetch: FetchId(ALL), reason };
    assert_eq!(routers.fetch(fetch(ALL, one.to)), Some(failed));
    let mut under_way = std::collections::VecDeque::new();
    for _ in 0..8 {
        under_way.push_back(accept(&listener).await);
    }
    let mut answered = std::collections::BTreeSet::new();
    while let Some(mut tcp) = under_way.pop_front() {
        assert!(listener.accept().now_or_never().is_none(), "eight are enough");
        tcp.write_all(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n").await.expect("open");
        let event = next(&news).await;
        let MappingEvent::Fetched { fetch, status: 204, .. } = event else { panic!("{event:?}") };
        answered.insert(fetch);
        if answered.len() + under_way.len() < usize::try_from(ALL).expect("it is small") {
            under_way.push_back(accept(&listener).await);
        }
    }
    assert_eq!(answered.len(), 64);
    assert_eq!(routers.fetch(one), None, "there is room again");
}

async fn a_shutdown_ends_what_is_open_and_under_way<L: Lab>(lab: &L) {
    let (listener, fetch) = http(LOCALHOSTS[0]).await;
    let (mut routers, news) = Routers::new(lab.runtime());
    // Where the system does not tell, nobody is told.
    let _ = routers.watch(true);
    routers.open(client(LOCALHOSTS[0])).expect("it is our own address");
    assert_eq!(routers.fetch(fetch), None);
    let mut tcp = accept(&listener).await;
    assert!(!lab.is_idle(), "it has tasks");
    soon(routers.shutdown()).await;
    until(async || lab.is_idle()).await;
    assert!(soon(tcp.read_to_end(&mut Vec::new())).await.is_ok(), "it is closed");
    assert!(news.is_closed());
}
