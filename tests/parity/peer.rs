//! Scripted peers: bare connections, on which a story does one thing after the other.

use bytes::{Bytes, BytesMut};
use futures::io::{AsyncReadExt as _, AsyncWriteExt as _};
use portolan_core::wire::identify::Identify;
use portolan_core::wire::multiaddr;
use portolan_core::{Addr, PeerId, Protocol, Side, Transport};
use portolan_runtime::identity;
use portolan_runtime::net::{Arrival, Established, Muxer, Net, NetConfig, RawStream};
use portolan_tests::frames::{read_frame, write_frame};
use portolan_tests::lab::soon;
use portolan_tokio::Tokio;
use std::io;
use std::net::IpAddr;
use std::time::Duration;
use tokio::sync::Mutex;

/// Beyond what any handshake takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A peer that does nothing by itself.
pub(crate) struct Peer {
    net: Net<Tokio>,
    arrivals: async_channel::Receiver<Arrival>,
    /// What it listens on.
    pub(crate) at: Addr,
}

impl Peer {
    /// A peer that listens on `ip`.
    pub(crate) fn start(ip: IpAddr, transport: Transport) -> Peer {
        Peer::start_with(ip, transport, NetConfig::default())
    }

    /// A peer whom nobody can reach: over TCP by not listening any more, over QUIC, where nobody
    /// would say so, by refusing everybody.
    pub(crate) async fn unreachable(ip: IpAddr, transport: Transport) -> Peer {
        let mut config = NetConfig::default();
        config.pending_per_source_max = 0;
        let peer = Peer::start_with(ip, transport, config);
        if transport == Transport::Tcp {
            soon(peer.net.shutdown()).await;
        }
        peer
    }

    fn start_with(ip: IpAddr, transport: Transport, mut config: NetConfig) -> Peer {
        let tokio = Tokio::current().expect("stories are played on tokio");
        // A hundred handshakes at once take their time on a busy machine.
        config.connect_timeout = PATIENCE;
        config.handshake_timeout = PATIENCE;
        let net = Net::new(tokio, &identity::generate(), config);
        let (net, arrivals) = net.expect("a usable key");
        let at = net.listen(Addr::new(ip, 0, transport)).expect("a free port").addr;
        Peer { net, arrivals, at }
    }

    pub(crate) fn id(&self) -> PeerId {
        self.net.peer()
    }

    /// The identity under which it dials back.
    pub(crate) fn dial_back_id(&self) -> PeerId {
        self.net.dial_back_peer()
    }

    /// The next connection that comes in.
    pub(crate) async fn arrival(&self) -> Line {
        Line::new(soon(self.arrivals.recv()).await.expect("it listens").connection)
    }

    /// Connect to `to`, from the port that it listens on.
    pub(crate) async fn dial(&self, to: Addr) -> Line {
        Line::new(soon(self.net.dial(to, None)).await.expect("somebody listens"))
    }

    /// Connect to `to` under the other identity, from a fresh port.
    pub(crate) async fn dial_back(&self, to: Addr) -> Line {
        let dialled = self.net.dial_back(to, None, PATIENCE).await;
        Line::new(dialled.expect("somebody listens"))
    }
}

/// How multistream-select begins, and each of its lines has its length before it.
const HEADER: &[u8] = b"\x13/multistream/1.0.0\n";

/// One connection with the node, seen from the other side.
pub(crate) struct Line {
    muxer: Muxer,
    /// Streams that the node has opened, each with what it proposed, in the order of their coming.
    /// Which of two that it opens at once comes first is left to the muxers.
    proposed: Mutex<Vec<(Protocol, RawStream)>>,
    side: Side,
    /// The node's address.
    pub(crate) remote: Addr,
}

/// A stream on which the protocol is agreed.
pub(crate) struct Stream {
    protocol: Protocol,
    io: RawStream,
    buffer: BytesMut,
}

impl Line {
    fn new(established: Established) -> Line {
        let Established { muxer, side, remote, .. } = established;
        Line { muxer, proposed: Mutex::default(), side, remote }
    }

    /// Agree to the stream of this protocol that the node opens. Others wait, unanswered.
    pub(crate) async fn accept(&self, protocol: Protocol) -> Stream {
        let mut io = soon(self.proposal(protocol)).await;
        soon(agree(&mut io, protocol)).await.expect("the node is there");
        Stream { protocol, io, buffer: BytesMut::new() }
    }

    async fn proposal(&self, wanted: Protocol) -> RawStream {
        let mut proposed = self.proposed.lock().await;
        loop {
            if let Some(at) = proposed.iter().position(|(protocol, _)| *protocol == wanted) {
                return proposed.remove(at).1;
            }
            let mut io = self.muxer.accept().await.expect("the connection stands");
            let said = hear(&mut io).await.expect("the node proposes a protocol");
            proposed.push((said, io));
        }
    }

    /// A new stream of this protocol, which the node must speak.
    pub(crate) async fn open(&self, protocol: Protocol) -> Stream {
        let mut io = soon(self.muxer.open()).await.expect("there is room");
        soon(agree(&mut io, protocol)).await.expect("the node is there");
        let agreed = soon(hear(&mut io)).await.expect("the node answers");
        assert_eq!(agreed, protocol);
        Stream { protocol, io, buffer: BytesMut::new() }
    }

    /// Answer the node's identify: we speak these protocols, and see it where it is.
    pub(crate) async fn describe(&self, protocols: &[Protocol]) {
        let mut stream = self.accept(Protocol::Identify).await;
        stream.send(&self.description(protocols)).await;
        stream.close().await;
    }

    /// Whether the node pings at once: over TCP it knows no round-trip time of those who dial it.
    pub(crate) fn is_pinged(&self) -> bool {
        self.side == Side::Outbound && self.remote.transport == Transport::Tcp
    }

    /// Answer the node's ping.
    pub(crate) async fn echo(&self) {
        let mut stream = self.accept(Protocol::Ping).await;
        let body = stream.read().await;
        stream.send(&body).await;
        stream.ends().await;
        stream.close().await;
    }

    /// What [`Line::describe`] says.
    pub(crate) fn description(&self, protocols: &[Protocol]) -> Bytes {
        let said = Identify {
            protocols: protocols.iter().map(|protocol| protocol.name().to_owned()).collect(),
            observed: Some(multiaddr::encode(self.remote)),
            agent_version: Some("scripted".into()),
            ..Identify::default()
        };
        said.encode_split().messages.remove(0)
    }

    /// Close in an orderly way, and wait until it is done.
    pub(crate) async fn close(self) {
        soon(self.muxer.close()).await;
    }

    /// Wait until it is over, whoever ends it.
    pub(crate) async fn closed(&self) {
        soon(self.muxer.closed()).await;
    }

    /// Drop it at once, streams and all.
    pub(crate) fn abort(self) {
        self.muxer.abort();
    }
}

/// Say which protocol we want, or agree to: in multistream-select both are the same words.
async fn agree(io: &mut RawStream, protocol: Protocol) -> io::Result<()> {
    let name = protocol.name();
    let len = u8::try_from(name.len() + 1).expect("names are short");
    io.write_all(HEADER).await?;
    io.write_all(&[len]).await?;
    io.write_all(format!("{name}\n").as_bytes()).await?;
    io.flush().await
}

/// Hear which protocol the node wants, or agrees to.
async fn hear(io: &mut RawStream) -> io::Result<Protocol> {
    let mut header = [0; HEADER.len()];
    io.read_exact(&mut header).await?;
    let mut len = [0];
    io.read_exact(&mut len).await?;
    let mut line = vec![0; len[0].into()];
    io.read_exact(&mut line).await?;
    let name = std::str::from_utf8(&line).unwrap_or_default().trim_end();
    let known = Protocol::from_name(name).filter(|_| header == HEADER);
    known.ok_or_else(|| io::Error::other(format!("{header:?} {name:?}")))
}

impl Stream {
    pub(crate) async fn send(&mut self, body: &[u8]) {
        let written = soon(write_frame(&mut self.io, self.protocol.framing(), body)).await;
        written.expect("the node takes it");
    }

    /// Send bytes that are no whole frame.
    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) {
        soon(async {
            self.io.write_all(bytes).await?;
            self.io.flush().await
        })
        .await
        .expect("the node takes it");
    }

    pub(crate) async fn read(&mut self) -> Bytes {
        let read = soon(read_frame(&mut self.io, self.protocol.framing(), &mut self.buffer)).await;
        read.expect("the node sends one")
    }

    /// Wait until the node has finished sending.
    pub(crate) async fn ends(&mut self) {
        let mut rest = Vec::new();
        soon(self.io.read_to_end(&mut rest)).await.expect("the node finishes");
        assert_eq!(rest, b"", "there is nothing more");
    }

    /// Finish sending.
    pub(crate) async fn close(&mut self) {
        soon(self.io.close()).await.expect("it is open");
    }
}
