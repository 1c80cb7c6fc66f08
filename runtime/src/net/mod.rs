//! The libp2p connection stack: sockets in, authenticated connections that carry streams out.
//!
//! [`Net`] listens and dials. TCP connections are secured by Noise XX (TLS is accepted, and
//! dialled where Noise is not spoken) and multiplexed by yamux; QUIC brings both itself. Each
//! connection says what its *actual* local address is and whether it shares a listener's port.
//!
//! Bounds: connections in their handshakes ([`NetConfig::pending_max`] and
//! [`NetConfig::pending_per_source_max`]; when full, new ones are dropped or refused at once),
//! listeners (core's own bound; one more is refused), holes being punched (256; one more fails),
//! streams of a connection (see [`Muxer`]). How many connections may stand is the caller's to decide.
//!
//! TLS over TCP is set up by a library that honours `SSLKEYLOGFILE`: a process that has the
//! variable in its environment writes the session keys of such connections to that file. QUIC
//! and Noise never do.

mod circuit;
mod error;
mod gate;
mod keys;
mod lingering;
mod muxer;
mod predicted;
mod punch;
mod punches;
mod quic;
mod reset;
mod tcp;
mod yamux;

pub use crate::sockets::interface_ips;
pub use error::{DialError, HandshakeError, ListenError, MuxerError, SetupError};
pub use muxer::{Muxer, RawStream};

pub(crate) use gate::source_of;
pub(crate) use punches::PUNCHES_MAX;

use crate::sockets;
use crate::time::timeout;
use crate::traits::Runtime;
use futures::FutureExt;
use futures::future::{Either, join_all, select};
use futures::io::{AsyncRead, AsyncWrite};
use gate::{Gate, Ticket};
use keys::Keys;
use libp2p_identity::Keypair;
use portolan_core::{Addr, Duration, Family, IpScope, ListenerId, PeerId, Side, Transport};
use portolan_core::{config, ip_scope};
use punches::Punches;
use quinn::Endpoint;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// New connections that wait for the driver, number; ours. When full, they wait in their
/// handshake tasks, where they still count as pending.
const ARRIVALS_MAX: usize = 32;
/// How long [`Net::shutdown`] waits for sockets to close; ours: a QUIC connection that was closed
/// still answers its peer for three probe time-outs (RFC 9000 §10.2), which over short paths is
/// less. Shutting down takes longer if it grows.
const SHUTDOWN_WAIT: Duration = Duration::from_millis(500);

/// How a [`Net`] behaves. Built by `NetConfig::default()` and assignment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NetConfig {
    /// How long a TCP connection may take to open, or a QUIC connection to shake hands. Default
    /// 5 s.
    pub connect_timeout: Duration,
    /// How long the handshakes over TCP, and inbound ones over QUIC, may take. Default 10 s.
    pub handshake_timeout: Duration,
    /// Inbound connections in their handshakes, all sources together. Default 128.
    pub pending_max: usize,
    /// Inbound connections in their handshakes from one IPv4 address or IPv6 /64. Default 32.
    pub pending_per_source_max: usize,
    /// Streams of a TCP connection, both sides together, 256 at most. Default 64; each may hold
    /// 256 KiB of unread data.
    pub tcp_streams_max: usize,
    /// Streams that the peer may open on a QUIC connection. Default 256; all together may hold
    /// 4 MiB of unread data.
    pub quic_streams_max: u32,
    /// The securities that TCP dials try, each on a connection of its own. Default Noise, then
    /// TLS.
    pub securities: Vec<Security>,
}

impl Default for NetConfig {
    fn default() -> NetConfig {
        NetConfig {
            connect_timeout: Duration::from_secs(5),
            handshake_timeout: Duration::from_secs(10),
            pending_max: 128,
            pending_per_source_max: 32,
            tcp_streams_max: 64,
            quic_streams_max: 256,
            securities: vec![Security::Noise, Security::Tls],
        }
    }
}

/// A security handshake over TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// Noise XX.
    Noise,
    /// TLS 1.3 with libp2p's certificates.
    Tls,
}

impl Security {
    /// The name that multistream-select negotiates.
    pub const fn name(self) -> &'static str {
        match self {
            Security::Noise => "/noise",
            Security::Tls => "/tls/1.0.0",
        }
    }
}

/// A connection that finished its handshakes.
#[derive(Debug)]
pub struct Established {
    /// Its streams. Dropping the last clone closes the connection.
    pub muxer: Muxer,
    /// The authenticated peer.
    pub peer: PeerId,
    /// Who opened it.
    pub side: Side,
    /// The actual local address of the socket; never a wildcard.
    pub local: Addr,
    /// The remote address.
    pub remote: Addr,
    /// A round-trip time measured while connecting: TCP's, when we dialled; QUIC's estimate.
    pub rtt: Option<Duration>,
    /// Whether an outbound connection leaves from the port of a listener of ours.
    pub port_reused: bool,
}

/// An inbound connection and where it arrived.
#[derive(Debug)]
pub struct Arrival {
    /// The listener that accepted it.
    pub listener: ListenerId,
    /// The connection.
    pub connection: Established,
}

/// A listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listening {
    /// Its id, unique within the [`Net`] and never reused.
    pub listener: ListenerId,
    /// What it is bound to; may be a wildcard IP, never port 0.
    pub addr: Addr,
}

/// The connection stack of one node. Clones share it; dropping the last one closes the
/// listeners, and leaves established connections to those who hold them.
pub struct Net<R: Runtime> {
    shared: Arc<Shared<R>>,
    table: Arc<Mutex<Table>>,
}

/// What handshake tasks need. It does not keep listeners open.
struct Shared<R: Runtime> {
    runtime: R,
    config: NetConfig,
    keys: Keys,
    /// The identity of dial-backs, made anew for every [`Net`].
    dial_back_keys: Keys,
    gate: Gate,
    punches: Punches<R::Tcp>,
    arrivals: async_channel::Sender<Arrival>,
}

#[derive(Default)]
struct Table {
    next_id: u64,
    listeners: BTreeMap<ListenerId, Listener>,
    /// Endpoints for QUIC dials where no listener fits: IPv4, IPv6.
    diallers: [Option<quic::Socket>; 2],
    /// Each closes with a socket that is not listened on any more.
    leaving: Vec<async_channel::Receiver<Infallible>>,
}

struct Listener {
    addr: Addr,
    quic: Option<quic::Socket>,
    /// Dropping it ends the accept loop.
    stop: async_channel::Sender<Infallible>,
    /// Closes when the accept loop has ended, and its TCP socket with it.
    ended: async_channel::Receiver<Infallible>,
}

impl Table {
    /// Stop listening. Connections in their handshakes are dropped.
    fn leave(&mut self, listener: Listener) {
        let Listener { quic, stop, ended, .. } = listener;
        drop(stop);
        self.leaving.retain(|socket| !socket.is_closed());
        self.leaving.push(ended);
        if let Some(quic::Socket { endpoint, closed, .. }) = quic {
            endpoint.set_server_config(None);
            self.leaving.push(closed);
        }
    }
}

/// Where a TCP dial may come from.
enum Origin {
    /// The port of one of these listeners, else any port.
    Listeners(Vec<SocketAddr>),
    /// A fresh port, of this IP if one is given.
    Fresh(Option<IpAddr>),
}

/// How long the steps of a dial may take.
#[derive(Clone, Copy)]
struct Patience {
    connect: Duration,
    handshake: Duration,
    total: Duration,
}

impl Patience {
    /// What is left after so long.
    fn after(self, took: Duration) -> Patience {
        let total = self.total.saturating_sub(took);
        Patience { connect: self.connect.min(total), handshake: self.handshake.min(total), total }
    }
}

/// What the task of an inbound handshake needs to know of its connection.
struct Knock {
    listener: ListenerId,
    remote: SocketAddr,
    /// Its place among the handshakes under way.
    ticket: Ticket,
    /// Ends with the listener, and the handshake with it.
    stop: async_channel::Receiver<Infallible>,
}

impl<R: Runtime> Shared<R> {
    /// Shake hands with a new connection in a task of its own, in bounded time, and hand it over.
    fn shake_hands(
        self: &Arc<Self>,
        knock: Knock,
        answer: impl Future<Output = Result<Option<Established>, HandshakeError>> + Send + 'static,
    ) {
        let shared = self.clone();
        let task = async move {
            let Knock { listener, remote, ticket, stop } = knock;
            let patience = shared.config.handshake_timeout;
            let answered = async {
                match timeout(&shared.runtime, patience, answer).await {
                    // It is somebody else's by now.
                    Some(Ok(None)) => {}
                    Some(Ok(Some(connection))) => {
                        // An error says that nobody listens any more: it is dropped, hence closed.
                        let _ = shared.arrivals.send(Arrival { listener, connection }).await;
                    }
                    Some(Err(error)) => {
                        tracing::debug!(%remote, %error, "an inbound handshake failed");
                    }
                    None => tracing::debug!(%remote, "an inbound handshake took too long"),
                }
            };
            let _ = unless_stopped(&stop, answered).await;
            drop(ticket);
        };
        self.runtime.spawn(task.boxed());
    }
}

impl<R: Runtime> Net<R> {
    /// A stack for the identity `keypair`, and where inbound connections come out.
    ///
    /// # Errors
    /// If no certificates can be made for the key.
    pub fn new(
        runtime: R,
        keypair: &Keypair,
        mut config: NetConfig,
    ) -> Result<(Net<R>, async_channel::Receiver<Arrival>), SetupError> {
        config.tcp_streams_max = config.tcp_streams_max.clamp(1, 256);
        let keys = Keys::new(keypair, &config)?;
        let dial_back_keys = Keys::new(&Keypair::generate_ed25519(), &config)?;
        let gate = Gate::new(config.pending_max, config.pending_per_source_max);
        let (arrivals, receiver) = async_channel::bounded(ARRIVALS_MAX);
        let punches = Punches::default();
        let shared = Shared { runtime, config, keys, dial_back_keys, gate, punches, arrivals };
        let net = Net { shared: Arc::new(shared), table: Arc::default() };
        Ok((net, receiver))
    }

    /// The peer id of the node.
    pub fn peer(&self) -> PeerId {
        self.shared.keys.peer
    }

    /// The peer id under which dial-backs appear.
    pub fn dial_back_peer(&self) -> PeerId {
        self.shared.dial_back_keys.peer
    }

    /// The runtime it runs on.
    pub fn runtime(&self) -> &R {
        &self.shared.runtime
    }

    /// Listen on `addr`; port 0 leaves the choice to the kernel, and the answer tells it.
    ///
    /// # Errors
    /// If the socket cannot be had; each names the address.
    pub fn listen(&self, addr: Addr) -> Result<Listening, ListenError> {
        let mut table = self.lock();
        if table.listeners.len() >= config::LISTENERS_MAX {
            return Err(ListenError::TooMany { addr, max: config::LISTENERS_MAX });
        }
        let id = ListenerId(table.next_id);
        let (stop, stopped) = async_channel::bounded(1);
        let (end, ended) = async_channel::bounded(1);
        let (bound, quic, accepting) = match addr.transport {
            Transport::Tcp => {
                let fault = |error| ListenError::new(addr, error);
                let socket = sockets::listen_tcp(addr.socket()).map_err(fault)?;
                let bound = socket.local_addr().map_err(fault)?;
                let listener = self.shared.runtime.listener(socket).map_err(fault)?;
                let task = tcp::accept_all(self.shared.clone(), listener, id, stopped);
                (bound, None, task.boxed())
            }
            Transport::Quic => {
                let quic = quic::listen(&self.shared, addr)?;
                let endpoint = quic.endpoint.clone();
                let bound = endpoint.local_addr().map_err(|error| ListenError::new(addr, error))?;
                let task = quic::accept_all(self.shared.clone(), endpoint, id, stopped);
                (bound, Some(quic), task.boxed())
            }
        };
        let addr = Addr::new(bound.ip(), bound.port(), addr.transport);
        table.next_id += 1;
        table.listeners.insert(id, Listener { addr, quic, stop, ended });
        let task = async move {
            accepting.await;
            drop(end);
        };
        self.shared.runtime.spawn(task.boxed());
        tracing::debug!(%id, %addr, "listening");
        Ok(Listening { listener: id, addr })
    }

    /// Stop listening. Connections that have arrived live on, and over QUIC hold the UDP port
    /// until the last of them ends; those in their handshakes are dropped. An unknown id does
    /// nothing.
    pub fn close_listener(&self, listener: ListenerId) {
        let mut table = self.lock();
        if let Some(listener) = table.listeners.remove(&listener) {
            table.leave(listener);
        }
    }

    /// Connect to `addr`, from the port of a listener of ours where one fits, and shake hands.
    ///
    /// # Errors
    /// See [`DialError`]; a peer other than `expected` is refused.
    pub async fn dial(
        &self,
        addr: Addr,
        expected: Option<PeerId>,
    ) -> Result<Established, DialError> {
        if !is_dialable(addr) {
            return Err(DialError::Unusable(addr));
        }
        let NetConfig { connect_timeout: connect, handshake_timeout: handshake, .. } =
            self.shared.config;
        let patience = Patience { connect, handshake, total: Duration::MAX };
        let keys = &self.shared.keys;
        match addr.transport {
            Transport::Tcp => {
                let from = Origin::Listeners(self.tcp_listeners_for(addr));
                tcp::dial(&self.shared, keys, addr, &from, expected, patience).await
            }
            Transport::Quic => {
                let (endpoint, shares_port) =
                    self.endpoint_for(addr).map_err(DialError::LocalFault)?;
                let client = &keys.quic_client;
                let dial = quic::dial(&self.shared, client, &endpoint, addr, expected, patience);
                let connection = dial.await?;
                Ok(Established { port_reused: shares_port, ..connection })
            }
        }
    }

    /// Connect to `addr` on behalf of somebody else: from a fresh port that nothing listens on,
    /// from the IP `source` if one is given, under an identity separate from the node's.
    /// `timeout` covers connecting and handshakes together.
    ///
    /// # Errors
    /// See [`DialError`].
    pub async fn dial_back(
        &self,
        addr: Addr,
        source: Option<IpAddr>,
        timeout: Duration,
    ) -> Result<Established, DialError> {
        if !is_dialable(addr) {
            return Err(DialError::Unusable(addr));
        }
        let patience = Patience { connect: timeout, handshake: timeout, total: timeout };
        let keys = &self.shared.dial_back_keys;
        match addr.transport {
            Transport::Tcp => {
                let from = Origin::Fresh(source);
                tcp::dial(&self.shared, keys, addr, &from, None, patience).await
            }
            Transport::Quic => {
                let ip = source.unwrap_or_else(|| sockets::unspecified(addr.socket()));
                let socket = quic::dialler(&self.shared, SocketAddr::new(ip, 0))
                    .map_err(DialError::LocalFault)?;
                let client = &keys.quic_client;
                quic::dial(&self.shared, client, &socket.endpoint, addr, None, patience).await
            }
        }
    }

    /// Shake hands over a byte stream that leads to `peer`, as over TCP: as the dialler or as the
    /// listener. `local` and `remote` are those of the connection that carries it.
    ///
    /// # Errors
    /// See [`DialError`]; a peer other than this one is refused.
    pub async fn shake_hands(
        &self,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: PeerId,
        side: Side,
        (local, remote): (Addr, Addr),
    ) -> Result<Established, DialError> {
        circuit::shake_hands(&self.shared, io, peer, side, (local, remote)).await
    }

    /// Close all listeners and wait, for half a second at most, until their sockets are closed and
    /// QUIC has told its peers about connections that were closed before. A UDP socket closes with
    /// the last connection on it, and with the last stream of that which somebody holds.
    pub async fn shutdown(&self) {
        let leaving = {
            let mut table = self.lock();
            for listener in std::mem::take(&mut table.listeners).into_values() {
                table.leave(listener);
            }
            let diallers = std::mem::take(&mut table.diallers);
            let closed = diallers.into_iter().flatten().map(|socket| socket.closed);
            table.leaving.extend(closed);
            std::mem::take(&mut table.leaving)
        };
        // Nothing is ever sent: a channel closes with the socket that holds its other end.
        let closed = join_all(leaving.iter().map(async_channel::Receiver::recv));
        // Who has not heard by then finds out by the idle time-out.
        let _ = timeout(&self.shared.runtime, SHUTDOWN_WAIT, closed).await;
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The TCP listeners whose port a dial to `to` may share, the best first.
    fn tcp_listeners_for(&self, to: Addr) -> Vec<SocketAddr> {
        let listeners = self.bound(Transport::Tcp);
        let mut fit = sockets::fit_to_dial(&listeners, to.socket());
        sockets::spare_self(&mut fit, to.socket());
        fit
    }

    /// The endpoint of the listener that dials `to`, and its socket.
    fn listening_endpoint(&self, to: Addr) -> Option<(Endpoint, Weak<UdpSocket>)> {
        let fit = sockets::fit_to_dial(&self.bound(Transport::Quic), to.socket());
        let best = fit.first()?;
        let table = self.lock();
        let mut listeners = table.listeners.values();
        let quic = listeners.find_map(|listener| {
            listener.quic.as_ref().filter(|_| listener.addr.socket() == *best)
        })?;
        let udp = quic.udp.as_ref().map(Arc::downgrade).unwrap_or_default();
        Some((quic.endpoint.clone(), udp))
    }

    /// The endpoint that dials `to`, and whether it is a listener's.
    fn endpoint_for(&self, to: Addr) -> std::io::Result<(Endpoint, bool)> {
        if let Some((endpoint, _)) = self.listening_endpoint(to) {
            return Ok((endpoint, true));
        }
        let mut table = self.lock();
        let slot = match Family::of(to.ip) {
            Family::Ip4 => &mut table.diallers[0],
            Family::Ip6 => &mut table.diallers[1],
        };
        if let Some(socket) = slot {
            return Ok((socket.endpoint.clone(), false));
        }
        let any = SocketAddr::new(sockets::unspecified(to.socket()), 0);
        let socket = quic::dialler(&self.shared, any)?;
        let endpoint = socket.endpoint.clone();
        *slot = Some(socket);
        Ok((endpoint, false))
    }

    fn bound(&self, transport: Transport) -> Vec<SocketAddr> {
        let table = self.lock();
        let of_transport = table.listeners.values().filter(|l| l.addr.transport == transport);
        of_transport.map(|listener| listener.addr.socket()).collect()
    }
}

impl<R: Runtime> Clone for Net<R> {
    fn clone(&self) -> Net<R> {
        Net { shared: self.shared.clone(), table: self.table.clone() }
    }
}

impl<R: Runtime> std::fmt::Debug for Net<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Net").field("peer", &self.peer()).finish_non_exhaustive()
    }
}

/// Whether `addr` can be a destination at all.
fn is_dialable(addr: Addr) -> bool {
    addr.port != 0 && ip_scope(addr.ip) != IpScope::Unusable
}

/// The peer that was expected, if it is not the one that was found.
fn missed(expected: Option<PeerId>, found: PeerId) -> Option<PeerId> {
    expected.filter(|expected| *expected != found)
}

/// What `task` resolves to, or `None` once the other end of `stop` is dropped.
async fn unless_stopped<F: Future>(
    stop: &async_channel::Receiver<Infallible>,
    task: F,
) -> Option<F::Output> {
    let stopped = pin!(stop.recv());
    match select(stopped, pin!(task)).await {
        Either::Left(_) => None,
        Either::Right((output, _)) => Some(output),
    }
}
