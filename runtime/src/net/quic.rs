//! QUIC: endpoints with libp2p's TLS certificates, one UDP socket each.

use super::error::{DialError, HandshakeError, ListenError, MuxerError};
use super::muxer::{Muxer, RawStream, StreamKind};
use super::{Established, Knock, Patience, Shared, missed, unless_stopped};
use crate::sockets;
use crate::time::timeout;
use crate::traits::Runtime;
use futures::future::BoxFuture;
use futures::io::{AsyncRead, AsyncWrite};
use futures::{FutureExt, pin_mut, ready};
use portolan_core::{Addr, Duration, ListenerId, PeerId, Side};
use quinn::{Connecting, Connection, ConnectionError, Endpoint, Incoming, VarInt};
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// The server name that libp2p's QUIC sends; nobody reads it.
const SERVER_NAME: &str = "l";
/// The error code of an ordinary close and of a reset stream.
const NO_ERROR: VarInt = VarInt::from_u32(0);
/// How long a graceful close may take, ours: a few round trips on a slow path.
const LINGER: Duration = Duration::from_secs(2);

/// An endpoint, and a way to wait until its UDP socket is closed.
pub(super) struct Socket {
    pub(super) endpoint: Endpoint,
    /// Closes with the socket: when nobody holds the endpoint any more, every connection has ended
    /// and its peer has been told.
    pub(super) closed: async_channel::Receiver<Infallible>,
    /// The UDP socket, of an endpoint that listens: to send what is not QUIC. Whoever holds it keeps
    /// the port, so that it is held here alone.
    pub(super) udp: Option<Arc<UdpSocket>>,
}

/// The runtime of one endpoint. The endpoint and its connections hold it for as long as they hold
/// their socket, which quinn closes in a task of its own.
#[derive(Debug)]
struct Held {
    runtime: Arc<dyn quinn::Runtime>,
    _open: async_channel::Sender<Infallible>,
}

impl quinn::Runtime for Held {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn quinn::AsyncTimer>> {
        self.runtime.new_timer(at)
    }

    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.runtime.spawn(task);
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn quinn::AsyncUdpSocket>> {
        self.runtime.wrap_udp_socket(socket)
    }

    fn now(&self) -> Instant {
        self.runtime.now()
    }
}

/// Bind an endpoint that listens and dials.
pub(super) fn listen<R: Runtime>(shared: &Shared<R>, addr: Addr) -> Result<Socket, ListenError> {
    let server = Some(shared.keys.quic_server.clone());
    bind(shared, addr.socket(), server).map_err(|error| ListenError::new(addr, error))
}

/// Bind an endpoint that only dials.
pub(super) fn dialler<R: Runtime>(shared: &Shared<R>, local: SocketAddr) -> io::Result<Socket> {
    bind(shared, local, None)
}

fn bind<R: Runtime>(
    shared: &Shared<R>,
    local: SocketAddr,
    server: Option<quinn::ServerConfig>,
) -> io::Result<Socket> {
    let socket = sockets::bind_busy_udp(local)?;
    let (open, closed) = async_channel::bounded(1);
    let runtime = Arc::new(Held { runtime: shared.runtime.quic(), _open: open });
    let config = shared.keys.endpoint(socket.local_addr()?);
    let udp = server.is_some().then(|| socket.try_clone().map(Arc::new)).transpose()?;
    let endpoint = Endpoint::new(config, server, socket, runtime)?;
    Ok(Socket { endpoint, closed, udp })
}

/// Connect to `to` from the socket of `endpoint` and shake hands.
pub(super) async fn dial<R: Runtime>(
    shared: &Shared<R>,
    client: &quinn::ClientConfig,
    endpoint: &Endpoint,
    to: Addr,
    expected: Option<PeerId>,
    patience: Patience,
) -> Result<Established, DialError> {
    let local = local_towards(endpoint, to).map_err(DialError::LocalFault)?;
    let connecting = endpoint
        .connect_with(client.clone(), to.socket(), SERVER_NAME)
        .map_err(|error| DialError::LocalFault(io::Error::other(error)))?;
    let connection = timeout(&shared.runtime, patience.connect, connecting)
        .await
        .ok_or(DialError::TimedOut)?
        .map_err(dial_error)?;
    let found = peer_of(&connection)?;
    if let Some(expected) = missed(expected, found) {
        connection.close(NO_ERROR, b"");
        return Err(DialError::WrongPeer { expected, found });
    }
    Ok(established(shared, connection, found, Side::Outbound, local, to))
}

/// The address that a dial from `endpoint` to `to` leaves from. Where the socket is bound to a
/// wildcard, the routing table knows the IP; an error says that there is no route, which QUIC
/// itself would keep to itself until the time-out.
fn local_towards(endpoint: &Endpoint, to: Addr) -> io::Result<Addr> {
    let bound = endpoint.local_addr()?;
    let source = Some(bound.ip()).filter(|ip| !ip.is_unspecified());
    let ip = sockets::source_towards(to.socket(), source)?;
    Ok(Addr::quic(ip, bound.port()))
}

fn dial_error(error: ConnectionError) -> DialError {
    match error {
        ConnectionError::TimedOut => DialError::TimedOut,
        // The transport's own CONNECTION_REFUSED (RFC 9000 §20.1).
        ConnectionError::ConnectionClosed(close) if u64::from(close.error_code) == 2 => {
            DialError::Refused(io::ErrorKind::ConnectionRefused.into())
        }
        ConnectionError::LocallyClosed | ConnectionError::CidsExhausted => {
            DialError::LocalFault(io::Error::other(error))
        }
        ConnectionError::VersionMismatch
        | ConnectionError::TransportError(_)
        | ConnectionError::ConnectionClosed(_)
        | ConnectionError::ApplicationClosed(_)
        | ConnectionError::Reset => HandshakeError::failed("quic", error).into(),
    }
}

/// Accept connections until the listener is closed, which drops the other end of `stop`.
pub(super) async fn accept_all<R: Runtime>(
    shared: Arc<Shared<R>>,
    endpoint: Endpoint,
    id: ListenerId,
    stop: async_channel::Receiver<Infallible>,
) {
    while let Some(Some(incoming)) = unless_stopped(&stop, endpoint.accept()).await {
        admit(&shared, &endpoint, incoming, id, stop.clone());
    }
}

/// Shake hands with a new connection in a task of its own, or refuse it when there are too many.
fn admit<R: Runtime>(
    shared: &Arc<Shared<R>>,
    endpoint: &Endpoint,
    incoming: Incoming,
    listener: ListenerId,
    stop: async_channel::Receiver<Infallible>,
) {
    let remote = incoming.remote_address();
    // Addresses of UDP packets are forged at no cost; a Retry makes strangers show that they
    // receive there, at the price of a round trip, so it is asked only when room runs short.
    if !incoming.remote_address_validated() && incoming.may_retry() && shared.gate.is_crowded() {
        // An error would say that a Retry was not possible, which was just asked.
        let _ = incoming.retry();
        return;
    }
    let Some(ticket) = shared.gate.enter(remote.ip()) else {
        tracing::debug!(%remote, "refused a connection: too many handshakes are under way");
        incoming.refuse();
        return;
    };
    let bound = endpoint.local_addr();
    let seen = incoming.local_ip();
    let connecting = match incoming.accept() {
        Ok(connecting) => connecting,
        Err(error) => {
            tracing::debug!(%remote, %error, "an inbound handshake failed");
            return;
        }
    };
    let answering = shared.clone();
    let answer = async move { answer(&answering, connecting, bound, seen).await.map(Some) };
    shared.shake_hands(Knock { listener, remote, ticket, stop }, answer);
}

async fn answer<R: Runtime>(
    shared: &Shared<R>,
    connecting: Connecting,
    bound: io::Result<SocketAddr>,
    seen: Option<IpAddr>,
) -> Result<Established, HandshakeError> {
    let failed = |error| HandshakeError::failed("quic", error);
    let bound = bound.map_err(|error| HandshakeError::failed("quic", error))?;
    let connection = connecting.await.map_err(failed)?;
    let peer = peer_of(&connection)?;
    let remote = connection.remote_address();
    // The packets say to which of our IPs they came; where the system does not tell, a wildcard
    // socket answers from the IP that the routing table names.
    let ip = match seen {
        Some(ip) => ip,
        None if !bound.ip().is_unspecified() => bound.ip(),
        None => sockets::source_towards(remote, None)
            .map_err(|error| HandshakeError::failed("quic", error))?,
    };
    let local = Addr::quic(ip, bound.port());
    let remote = Addr::quic(remote.ip(), remote.port());
    Ok(established(shared, connection, peer, Side::Inbound, local, remote))
}

fn established<R: Runtime>(
    shared: &Shared<R>,
    connection: Connection,
    peer: PeerId,
    side: Side,
    local: Addr,
    remote: Addr,
) -> Established {
    let rtt = Some(connection.rtt());
    let runtime = shared.runtime.clone();
    let sleep = Box::new(move |span| runtime.sleep(span).boxed());
    let finishing = Arc::default();
    let handle = Handle { connection, finishing, sleep };
    let muxer = Muxer::quic(handle);
    Established { muxer, peer, side, local, remote, rtt, port_reused: false }
}

/// Who is at the other end, by the certificate that the handshake has verified.
fn peer_of(connection: &Connection) -> Result<PeerId, HandshakeError> {
    let missing = || HandshakeError::failed("quic", "the peer showed no certificate");
    let identity = connection.peer_identity().ok_or_else(missing)?;
    let chain = identity
        .downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>()
        .map_err(|_| missing())?;
    let certificate = chain.first().ok_or_else(missing)?;
    let parsed = libp2p_tls::certificate::parse(certificate)
        .map_err(|error| HandshakeError::failed("tls", error))?;
    Ok(parsed.peer_id())
}

/// The callers' end of a connection.
pub(super) struct Handle {
    connection: Connection,
    finishing: Arc<Finishing>,
    sleep: Box<dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync>,
}

impl Handle {
    pub(super) async fn open(&self) -> Result<RawStream, MuxerError> {
        let (send, recv) = self.connection.open_bi().await.map_err(|_| MuxerError::Closed)?;
        Ok(self.adopt(send, recv))
    }

    pub(super) async fn accept(&self) -> Result<RawStream, MuxerError> {
        let (send, recv) = self.connection.accept_bi().await.map_err(|_| MuxerError::Closed)?;
        Ok(self.adopt(send, recv))
    }

    fn adopt(&self, send: quinn::SendStream, recv: quinn::RecvStream) -> RawStream {
        let finishing = self.finishing.clone();
        RawStream::new(StreamKind::Quic(Stream { send, recv, finished: false, finishing }))
    }

    pub(super) async fn close(&self) {
        let delivered = self.finishing.all();
        let linger = (self.sleep)(LINGER);
        pin_mut!(delivered);
        futures::future::select(delivered, linger).await;
        self.connection.close(NO_ERROR, b"");
        self.closed().await;
    }

    pub(super) async fn closed(&self) {
        self.connection.closed().await;
    }

    /// Whether the network ended the connection, and neither side.
    pub(super) fn broke(&self) -> bool {
        matches!(
            self.connection.close_reason(),
            Some(ConnectionError::TimedOut | ConnectionError::Reset)
        )
    }

    pub(super) fn is_over(&self) -> bool {
        self.connection.close_reason().is_some()
    }

    pub(super) fn rtt(&self) -> Duration {
        self.connection.rtt()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Streams that are still held would keep the connection alive.
        self.connection.close(NO_ERROR, b"");
    }
}

/// Streams whose sending side was closed and whose last bytes are not acknowledged yet. Bounded
/// by the streams that the other side lets us have.
#[derive(Default)]
struct Finishing(Mutex<Vec<BoxFuture<'static, ()>>>);

impl Finishing {
    fn add(&self, delivered: BoxFuture<'static, ()>) {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut idle = Context::from_waker(Waker::noop());
        list.retain_mut(|delivered| delivered.poll_unpin(&mut idle).is_pending());
        list.push(delivered);
    }

    async fn all(&self) {
        let list = {
            let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *list)
        };
        futures::future::join_all(list).await;
    }
}

/// One stream of a QUIC connection.
pub(super) struct Stream {
    send: quinn::SendStream,
    recv: quinn::RecvStream,
    finished: bool,
    finishing: Arc<Finishing>,
}

impl Stream {
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        AsyncRead::poll_read(Pin::new(&mut self.recv), cx, buf)
    }

    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.send), cx, buf)
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.send), cx)
    }

    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.finished {
            ready!(AsyncWrite::poll_close(Pin::new(&mut self.send), cx))?;
            self.finished = true;
            // It resolves when all is acknowledged, or nobody wants it any more.
            self.finishing.add(self.send.stopped().map(|_| ()).boxed());
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.finished {
            // An error says that the stream is over already.
            let _ = self.send.reset(NO_ERROR);
        }
    }
}
