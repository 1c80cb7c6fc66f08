//! Relays, and their clients, one side of which is played by hand: byte by byte.

use super::{BOTH, Bare, RawStreamOf, open, quiet, start};
use futures::future::join;
use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use multistream_select::{Negotiated, listener_select_proto};
use portolan_core::wire::framing;
use portolan_core::wire::multiaddr;
use portolan_core::wire::relay::{HopMessage, Reservation, StopMessage};
use portolan_core::{
    Addr, CircuitLimit, Config, Protocol, RelayConfig, RelayNeed, RelayPeer, RelayServerConfig,
    RelayStatus, Side, Transport,
};
use portolan_runtime::net::{Arrival, Established, Net, NetConfig, RawStream};
use portolan_runtime::traits::Runtime;
use portolan_runtime::{Limits, Node, identity};
use portolan_tests::lab::{Lab, soon, until};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

portolan_tests::on_every_runtime! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    what_fits_a_limit_passes_and_one_byte_more_ends_the_circuit,
    what_is_sent_along_with_a_request_passes,
    each_side_of_a_circuit_may_finish_by_itself,
    a_reset_and_the_end_of_a_connection_are_passed_on,
    a_slow_reader_holds_its_sender_back,
    a_dialler_reads_on_where_the_answer_of_the_relay_ended,
    a_listener_reads_on_where_the_word_of_the_relay_ended,
    a_dial_that_nobody_waits_for_is_given_up;
}

/// What opens every negotiation, as it goes over the wire.
const HEADER: &[u8] = b"\x13/multistream/1.0.0\n";
const NO_LIMIT: CircuitLimit = CircuitLimit { duration: None, bytes: None };

fn frame(body: &[u8]) -> Vec<u8> {
    let mut out = bytes::BytesMut::new();
    framing::encode(Protocol::Hop.framing(), body, &mut out).expect("it is short");
    out.to_vec()
}

/// Read one frame and not a byte more.
async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> bytes::Bytes {
    let mut got = bytes::BytesMut::new();
    loop {
        let mut byte = [0];
        soon(stream.read_exact(&mut byte)).await.expect("a frame comes");
        got.extend_from_slice(&byte);
        if let Some(body) = framing::split(Protocol::Hop.framing(), &mut got).expect("a frame") {
            return body;
        }
    }
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
    soon(async {
        stream.write_all(bytes).await.expect("it is open");
        stream.flush().await.expect("it is open");
    })
    .await;
}

fn ok_hop() -> Vec<u8> {
    let (status, reservation) = (RelayStatus::Ok, None);
    frame(&HopMessage::Status { status, reservation, limit: NO_LIMIT }.encode())
}

fn ok_stop() -> Vec<u8> {
    frame(&StopMessage::Status { status: RelayStatus::Ok }.encode())
}

/// The next stream that the other side opens for this protocol; others are declined.
async fn accept(connection: &Established, protocol: Protocol) -> Negotiated<RawStream> {
    loop {
        let stream = soon(connection.muxer.accept()).await.expect("the connection stands");
        if let Ok((_, stream)) = soon(listener_select_proto(stream, [protocol.name()])).await {
            return stream;
        }
    }
}

fn text(size: usize) -> Vec<u8> {
    (0..size).map(|at| u8::try_from(at % 251).expect("it is less")).collect()
}

/// A relay of ours, and two clients by hand: one with a reservation, one that wants to reach it.
struct Clients<R: Runtime> {
    relay: Node<R>,
    initiator: Bare<R>,
    target: Bare<R>,
    from: Established,
    to: Established,
}

impl<R: Runtime> Clients<R> {
    async fn new<L: Lab<Runtime = R>>(lab: &L, addr: &str, bytes: Option<u64>) -> Clients<R> {
        let mut server = RelayServerConfig::default();
        server.limit = CircuitLimit { duration: None, bytes };
        let mut config = quiet();
        config.relay_server = Some(server);
        let relay = start(lab, config, Limits::default(), &[addr]).await;
        let (initiator, target) = (Bare::new(lab), Bare::new(lab));
        let from = initiator.connect(&relay).await;
        let to = target.connect(&relay).await;
        let mut hop = open(&to, Protocol::Hop.name()).await;
        send(&mut hop, &frame(&HopMessage::Reserve.encode())).await;
        let answer = HopMessage::decode(&read_frame(&mut hop).await).expect("an answer");
        let HopMessage::Status { status, .. } = answer else { panic!("{answer:?}") };
        assert_eq!(status, RelayStatus::Ok);
        Clients { relay, initiator, target, from, to }
    }

    /// Ask for a circuit, with `along` right behind the request; both ends of it.
    async fn circuit(&self, along: &[u8]) -> (RawStreamOf, RawStreamOf) {
        let mut hop = open(&self.from, Protocol::Hop.name()).await;
        let mut request = frame(&HopMessage::Connect { peer: self.target.peer() }.encode());
        request.extend_from_slice(along);
        send(&mut hop, &request).await;
        let mut stop = accept(&self.to, Protocol::Stop).await;
        let asked = StopMessage::decode(&read_frame(&mut stop).await).expect("a request");
        let StopMessage::Connect { peer, .. } = asked else { panic!("{asked:?}") };
        assert_eq!(peer, self.initiator.peer());
        send(&mut stop, &ok_stop()).await;
        let answer = HopMessage::decode(&read_frame(&mut hop).await).expect("an answer");
        let HopMessage::Status { status, .. } = answer else { panic!("{answer:?}") };
        assert_eq!(status, RelayStatus::Ok);
        (hop, stop)
    }
}

/// Read until the end, by whatever it ends.
async fn drain(stream: &mut (impl AsyncRead + Unpin)) -> (Vec<u8>, bool) {
    let mut got = Vec::new();
    let orderly = soon(stream.read_to_end(&mut got)).await.is_ok();
    (got, orderly)
}

async fn what_fits_a_limit_passes_and_one_byte_more_ends_the_circuit<L: Lab>(lab: &L) {
    for addr in BOTH {
        let limit = 100_001;
        let size = usize::try_from(limit).expect("it is small");
        let clients = Clients::new(lab, addr, Some(limit)).await;
        for forth in [true, false] {
            for beyond in [false, true] {
                let (hop, stop) = clients.circuit(b"").await;
                let (mut sender, mut receiver) = if forth { (hop, stop) } else { (stop, hop) };
                let sends = async {
                    send(&mut sender, &text(size)).await;
                    if beyond {
                        // It may be refused at once or later.
                        let _ = sender.write_all(b"x").await;
                        let _ = sender.flush().await;
                    } else {
                        sender.close().await.expect("it is open");
                    }
                };
                let ((), (got, orderly)) = join(sends, drain(&mut receiver)).await;
                assert!(got == text(size), "{} of {size} bytes", got.len());
                if beyond {
                    // The other direction is over as well.
                    let (nothing, _) = drain(&mut sender).await;
                    assert_eq!(nothing, b"");
                } else {
                    assert!(orderly);
                    // The other direction has its own bytes.
                    let back = join(send(&mut receiver, b"back"), async {
                        let mut got = [0; 4];
                        soon(sender.read_exact(&mut got)).await.expect("it is open");
                        got
                    });
                    assert_eq!(&back.await.1, b"back");
                }
            }
        }
    }
}

async fn what_is_sent_along_with_a_request_passes<L: Lab>(lab: &L) {
    for addr in BOTH {
        let clients = Clients::new(lab, addr, None).await;
        // Messages of the same form as the request, but no request; and more than is kept aside.
        for along in [HEADER.to_vec(), frame(b"no request"), text(20_000)] {
            let (mut hop, mut stop) = clients.circuit(&along).await;
            send(&mut hop, b" and more").await;
            hop.close().await.expect("it is open");
            let (got, orderly) = drain(&mut stop).await;
            assert!(orderly && got == [&along, &b" and more"[..]].concat(), "{} bytes", got.len());
        }
    }
}

async fn each_side_of_a_circuit_may_finish_by_itself<L: Lab>(lab: &L) {
    for addr in BOTH {
        let clients = Clients::new(lab, addr, None).await;
        let (mut hop, mut stop) = clients.circuit(b"").await;
        send(&mut hop, b"the question").await;
        hop.close().await.expect("it is open");
        assert_eq!(drain(&mut stop).await, (b"the question".to_vec(), true));
        let answer = text(1_500_000);
        let ((), (got, orderly)) = join(
            async {
                send(&mut stop, &answer).await;
                stop.close().await.expect("it is open");
            },
            drain(&mut hop),
        )
        .await;
        assert!(orderly && got == answer, "{} bytes", got.len());
    }
}

async fn a_reset_and_the_end_of_a_connection_are_passed_on<L: Lab>(lab: &L) {
    for addr in BOTH {
        let clients = Clients::new(lab, addr, None).await;
        for forth in [true, false] {
            let (hop, stop) = clients.circuit(b"").await;
            let (broken, mut stays) = if forth { (hop, stop) } else { (stop, hop) };
            drop(broken);
            let error = soon(stays.read(&mut [0])).await.expect_err("it was reset");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
        let (mut hop, _stop) = clients.circuit(b"").await;
        let Clients { relay, to, target, .. } = clients;
        drop(to);
        // Over yamux, which does not tell a loss from an end, it may read as an end at first.
        assert_eq!(drain(&mut hop).await.0, b"");
        let peer = target.peer();
        until(async || relay.connections().await.iter().all(|conn| conn.peer != peer)).await;
    }
}

async fn a_slow_reader_holds_its_sender_back<L: Lab>(lab: &L) {
    for addr in BOTH {
        let clients = Clients::new(lab, addr, None).await;
        let (mut hop, mut stop) = clients.circuit(b"").await;
        let lot = text(6 << 20);
        let mut sent = 0;
        // Nobody reads: it comes to a stand.
        while let Ok(count) =
            tokio::time::timeout(Duration::from_millis(500), hop.write(&lot[sent..])).await
        {
            sent += count.expect("it is open");
        }
        assert!(sent < 4 << 20, "{sent} bytes wait somewhere");
        // The other direction does not care.
        send(&mut stop, b"slow down").await;
        let mut got = [0; 9];
        soon(hop.read_exact(&mut got)).await.expect("it is open");
        assert_eq!(&got, b"slow down");
        let sends = async {
            send(&mut hop, &lot[sent..]).await;
            hop.close().await.expect("it is open");
        };
        let ((), (got, orderly)) = join(sends, drain(&mut stop)).await;
        assert!(orderly && got == lot, "{} bytes", got.len());
    }
}

/// A relay by hand.
struct HandRelay<R: Runtime> {
    net: Net<R>,
    arrivals: async_channel::Receiver<Arrival>,
    addr: Addr,
}

impl<R: Runtime> HandRelay<R> {
    fn new<L: Lab<Runtime = R>>(lab: &L, transport: Transport) -> HandRelay<R> {
        let net = Net::new(lab.runtime(), &identity::generate(), NetConfig::default());
        let (net, arrivals) = net.expect("a usable key");
        let ip = "127.0.0.1".parse().expect("an IP address");
        let addr = net.listen(Addr::new(ip, 0, transport)).expect("a free port").addr;
        HandRelay { net, arrivals, addr }
    }

    async fn arrival(&self) -> Established {
        soon(self.arrivals.recv()).await.expect("it listens").connection
    }
}

fn uses(need: RelayNeed, relays: Vec<RelayPeer>) -> Config {
    let mut uses = RelayConfig::default();
    uses.need = need;
    uses.relays = relays;
    let mut config = quiet();
    config.relay = Some(uses);
    config
}

/// A stream that writes `lead` in one piece with the first bytes, leaves out the first `spared`
/// bytes that are written, and those first `skipped` that are read.
struct Spliced {
    io: Negotiated<RawStream>,
    lead: Vec<u8>,
    spared: usize,
    skipped: usize,
}

impl AsyncRead for Spliced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        while self.skipped > 0 {
            let mut byte = [0];
            if ready!(Pin::new(&mut self.io).poll_read(cx, &mut byte))? == 0 {
                return Poll::Ready(Ok(0));
            }
            self.skipped -= 1;
        }
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Spliced {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.spared > 0 {
            let count = buffer.len().min(self.spared);
            self.spared -= count;
            return Poll::Ready(Ok(count));
        }
        if !self.lead.is_empty() {
            let whole = [&self.lead, buffer].concat();
            let count = ready!(Pin::new(&mut self.io).poll_write(cx, &whole))?;
            assert_eq!(count, whole.len(), "it is one piece");
            self.lead.clear();
            return Poll::Ready(Ok(buffer.len()));
        }
        Pin::new(&mut self.io).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_close(cx)
    }
}

async fn a_dialler_reads_on_where_the_answer_of_the_relay_ended<L: Lab>(lab: &L) {
    for transport in [Transport::Tcp, Transport::Quic] {
        let (relay, target) = (HandRelay::new(lab, transport), Bare::new(lab));
        let node = start(lab, uses(RelayNeed::Never, vec![]), Limits::default(), &[]).await;
        let at = multiaddr::to_multiaddr(relay.addr, Some(relay.net.peer()));
        let at = format!("{at}/p2p-circuit/p2p/{}", target.peer()).parse().expect("an address");
        let serves = async {
            let below = relay.arrival().await;
            let mut hop = accept(&below, Protocol::Hop).await;
            let asked = HopMessage::decode(&read_frame(&mut hop).await).expect("a request");
            assert_eq!(asked, HopMessage::Connect { peer: target.peer() });
            // The first word of a listener that does not wait for the dialler's, in one piece with
            // the answer.
            send(&mut hop, &[&ok_hop(), HEADER].concat()).await;
            let io = Spliced { io: hop, lead: vec![], spared: HEADER.len(), skipped: 0 };
            let addrs = (below.local, below.remote);
            let hands = target.0.shake_hands(io, node.peer_id(), Side::Inbound, addrs);
            (soon(hands).await.expect("a dialler"), below)
        };
        let (dialled, (circuit, _below)) = join(soon(node.dial(at)), serves).await;
        let dialled = dialled.expect("it leads there");
        assert_eq!((dialled.peer, dialled.relayed), (target.peer(), true));
        assert_eq!(circuit.peer, node.peer_id());
        soon(node.disconnect(target.peer())).await;
        soon(circuit.muxer.closed()).await;
    }
}

async fn a_listener_reads_on_where_the_word_of_the_relay_ended<L: Lab>(lab: &L) {
    for transport in [Transport::Tcp, Transport::Quic] {
        let (relay, caller) = (HandRelay::new(lab, transport), Bare::new(lab));
        let known = RelayPeer { peer: relay.net.peer(), addrs: vec![relay.addr] };
        let config = uses(RelayNeed::Always, vec![known]);
        let node = start(lab, config, Limits::default(), &[]).await;
        let below = relay.arrival().await;
        let mut hop = accept(&below, Protocol::Hop).await;
        let asked = HopMessage::decode(&read_frame(&mut hop).await).expect("a request");
        assert_eq!(asked, HopMessage::Reserve);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later");
        let reservation = Some(Reservation {
            expire: now.as_secs() + 3_600,
            addrs: vec![multiaddr::encode(relay.addr)],
            voucher: None,
        });
        let status = RelayStatus::Ok;
        let granted = HopMessage::Status { status, reservation, limit: NO_LIMIT };
        send(&mut hop, &frame(&granted.encode())).await;
        until(async || !node.circuit_addresses().await.is_empty()).await;

        let stop = open(&below, Protocol::Stop.name()).await;
        let (peer, limit) = (caller.peer(), NO_LIMIT);
        let lead = frame(&StopMessage::Connect { peer, limit }.encode());
        // A caller that did not wait for the answer: its first words are in one piece with the
        // relay's, and the answer comes before what the node has to say to it.
        let io = Spliced { io: stop, lead, spared: 0, skipped: ok_stop().len() };
        let addrs = (below.local, below.remote);
        let hands = caller.0.shake_hands(io, node.peer_id(), Side::Outbound, addrs);
        let circuit = soon(hands).await.expect("the node answers");
        assert_eq!(circuit.peer, node.peer_id());
        let is_there = |connection: &portolan_runtime::ConnectionInfo| {
            connection.peer == caller.peer() && connection.relayed
        };
        until(async || node.connections().await.iter().any(is_there)).await;
    }
}

async fn a_dial_that_nobody_waits_for_is_given_up<L: Lab>(lab: &L) {
    let (relay, target) = (HandRelay::new(lab, Transport::Tcp), Bare::new(lab));
    let node = start(lab, uses(RelayNeed::Never, vec![]), Limits::default(), &[]).await;
    let at = multiaddr::to_multiaddr(relay.addr, Some(relay.net.peer()));
    let at = format!("{at}/p2p-circuit/p2p/{}", target.peer()).parse().expect("an address");
    let asked = async {
        let below = relay.arrival().await;
        let mut hop = accept(&below, Protocol::Hop).await;
        read_frame(&mut hop).await;
        (below, hop)
    };
    let dial = Box::pin(node.dial(at));
    let (_below, mut hop) = match futures::future::select(dial, Box::pin(asked)).await {
        futures::future::Either::Left((dialled, _)) => panic!("nobody answers: {dialled:?}"),
        // The dial is dropped here.
        futures::future::Either::Right((asked, _)) => asked,
    };
    drain(&mut hop).await;
}
