//! TCP: connect or accept, then multistream-select, a security handshake, and yamux.
//!
//! When dialling, both negotiations are optimistic: the first handshake message goes along with
//! the name of the protocol, so that a connection stands after one round trip for TCP and one
//! for the security handshake. A peer that does not speak the first of our securities is dialled
//! again with the next.

use super::error::{DialError, HandshakeError};
use super::keys::Keys;
use super::lingering::Lingering;
use super::muxer::Muxer;
use super::punches::Unspoken;
use super::{Established, Knock, Origin, Patience, Security, Shared};
use super::{missed, unless_stopped, yamux};
use crate::sockets::{self, Dialling};
use crate::time::{Stopwatch, timeout};
use crate::traits::Runtime;
use ::yamux::Mode;
use futures::FutureExt;
use futures::future::Either;
use futures::io::{AsyncRead, AsyncWrite};
use libp2p_core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
use multistream_select::{
    Negotiated, NegotiationError, Version, dialer_select_proto, listener_select_proto,
};
use portolan_core::{Addr, Duration, ListenerId, PeerId, Side};
use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

const YAMUX: &str = "/yamux/1.0.0";
/// How long the accept loop rests when the host is out of descriptors or memory, ours: long
/// enough not to spin, short enough for a caller not to notice.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a graceful close may take, ours: a few round trips on a slow path.
const LINGER: Duration = Duration::from_secs(2);

/// A byte stream after its security handshake.
pub(super) type Secured<T> =
    Either<libp2p_noise::Output<Negotiated<T>>, libp2p_tls::TlsStream<Negotiated<T>>>;

/// A connected socket and what is known about it.
struct Connected<T> {
    tcp: Lingering<T>,
    local: Addr,
    took: Duration,
    port_reused: bool,
}

/// Connect to `to` and shake hands.
pub(super) async fn dial<R: Runtime>(
    shared: &Shared<R>,
    keys: &Keys,
    to: Addr,
    from: &Origin,
    expected: Option<PeerId>,
    patience: Patience,
) -> Result<Established, DialError> {
    let mut unsupported = HandshakeError::Unsupported("any security of ours");
    let watch = Stopwatch::start(&shared.runtime);
    for security in &shared.config.securities {
        // A peer may take its time to refuse one security; the next has only what is left.
        let left = patience.after(watch.elapsed());
        if left.total.is_zero() {
            return Err(DialError::HandshakeTimedOut);
        }
        let Connected { tcp, local, took, port_reused } =
            connect(shared, to, from, left.connect).await?;
        let upgrade = secure_outbound(tcp, keys, vec![*security]);
        let upgraded = timeout(&shared.runtime, left.after(took).handshake, upgrade).await;
        match upgraded.ok_or(DialError::HandshakeTimedOut)? {
            Ok((found, io)) => {
                if let Some(expected) = missed(expected, found) {
                    return Err(DialError::WrongPeer { expected, found });
                }
                return Ok(Established {
                    muxer: multiplex(shared, io, Mode::Client),
                    peer: found,
                    side: Side::Outbound,
                    local,
                    remote: to,
                    rtt: Some(took),
                    port_reused,
                });
            }
            Err(error @ HandshakeError::Unsupported(_)) => unsupported = error,
            Err(error) => return Err(error.into()),
        }
    }
    Err(unsupported.into())
}

/// Open the TCP connection.
async fn connect<R: Runtime>(
    shared: &Shared<R>,
    to: Addr,
    from: &Origin,
    patience: Duration,
) -> Result<Connected<R::Tcp>, DialError> {
    let runtime = &shared.runtime;
    let watch = Stopwatch::start(runtime);
    let Dialling { socket, port_reused } = match from {
        Origin::Listeners(listeners) => sockets::dial_from(to.socket(), listeners),
        Origin::Fresh(source) => sockets::dial_fresh(to.socket(), *source),
    }
    .map_err(DialError::at_once)?;
    let tcp = timeout(runtime, patience, runtime.connected(socket))
        .await
        .ok_or(DialError::TimedOut)?
        .map_err(DialError::later)?;
    let took = watch.elapsed();
    let local = runtime.local_addr(&tcp).map_err(DialError::LocalFault)?;
    let local = Addr::tcp(local.ip(), local.port());
    Ok(Connected { tcp: Lingering(tcp), local, took, port_reused })
}

/// Accept connections until the listener is closed, which drops the other end of `stop`.
pub(super) async fn accept_all<R: Runtime>(
    shared: Arc<Shared<R>>,
    listener: R::Listener,
    id: ListenerId,
    stop: async_channel::Receiver<Infallible>,
) {
    while let Some(accepted) = unless_stopped(&stop, shared.runtime.accept(&listener)).await {
        match accepted {
            Ok((tcp, remote)) => admit(&shared, tcp, remote, id, stop.clone()),
            Err(error) => {
                tracing::debug!(%id, %error, "accepting a connection failed");
                // A connection that broke in the queue is no reason to rest; a lack of
                // descriptors or memory is.
                if !is_peers_fault(&error) {
                    shared.runtime.sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

fn is_peers_fault(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Shake hands with a new connection in a task of its own, or drop it when there are too many.
fn admit<R: Runtime>(
    shared: &Arc<Shared<R>>,
    tcp: R::Tcp,
    remote: SocketAddr,
    listener: ListenerId,
    stop: async_channel::Receiver<Infallible>,
) {
    // A punch says which side we are, whichever socket its connection came over.
    let Some((tcp, unspoken)) = shared.punches.accepted(tcp, remote) else {
        tracing::debug!(%remote, "accepted a connection for which a hole was punched");
        return;
    };
    let Some(ticket) = shared.gate.enter(remote.ip()) else {
        tracing::debug!(%remote, "dropped a connection: too many handshakes are under way");
        return;
    };
    let answering = shared.clone();
    let answer = async move { answer(&answering, tcp, unspoken, remote).await };
    shared.shake_hands(Knock { listener, remote, ticket, stop }, answer);
}

/// The listener's side of a new connection; nothing where a punch has taken it.
async fn answer<R: Runtime>(
    shared: &Shared<R>,
    tcp: R::Tcp,
    unspoken: Unspoken<R::Tcp>,
    remote: SocketAddr,
) -> Result<Option<Established>, HandshakeError> {
    let failed = |error| HandshakeError::failed("tcp", error);
    let local = shared.runtime.local_addr(&tcp).map_err(failed)?;
    let Some(tcp) = unspoken.first_word(tcp).await.map_err(failed)? else { return Ok(None) };
    let (peer, io) = secure_inbound(Lingering(tcp), &shared.keys).await?;
    Ok(Some(Established {
        muxer: multiplex(shared, io, Mode::Server),
        peer,
        side: Side::Inbound,
        local: Addr::tcp(local.ip(), local.port()),
        remote: Addr::tcp(remote.ip(), remote.port()),
        rtt: None,
        port_reused: false,
    }))
}

/// The dialler's half of the security and muxer negotiations. Of several securities the other side
/// chooses, which costs a round trip.
pub(super) async fn secure_outbound<T>(
    io: T,
    keys: &Keys,
    offered: Vec<Security>,
) -> Result<(PeerId, Negotiated<Secured<T>>), HandshakeError>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let names: Vec<&str> = offered.into_iter().map(Security::name).collect();
    let first = names.first().copied().unwrap_or_default();
    let refused = |layer, error: Box<dyn Error + Send + Sync>| {
        if is_refusal(&*error) {
            HandshakeError::Unsupported(first)
        } else {
            HandshakeError::failed(layer, error)
        }
    };
    let (name, io) = dialer_select_proto(io, names, Version::V1Lazy)
        .await
        .map_err(|error| refused("multistream-select", error.into()))?;
    let (peer, io) = if name == Security::Noise.name() {
        let upgrade = keys.noise.clone().upgrade_outbound(io, name).await;
        let (peer, io) = upgrade.map_err(|error| refused("noise", noise_cause(error)))?;
        (peer, Either::Left(io))
    } else {
        let upgrade = keys.tls.clone().upgrade_outbound(io, name).await;
        let (peer, io) = upgrade.map_err(|error| refused("tls", tls_cause(error)))?;
        (peer, Either::Right(io))
    };
    let (_, io) = dialer_select_proto(io, [YAMUX], Version::V1Lazy)
        .await
        .map_err(|error| HandshakeError::failed("multistream-select", error))?;
    Ok((peer, io))
}

/// The listener's half.
pub(super) async fn secure_inbound<T>(
    io: T,
    keys: &Keys,
) -> Result<(PeerId, Negotiated<Secured<T>>), HandshakeError>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let negotiation = |error| HandshakeError::failed("multistream-select", error);
    let offered = [Security::Noise.name(), Security::Tls.name()];
    let (name, io) = listener_select_proto(io, offered).await.map_err(negotiation)?;
    let (peer, io) = if name == Security::Noise.name() {
        let upgrade = keys.noise.clone().upgrade_inbound(io, name).await;
        let (peer, io) = upgrade.map_err(|error| HandshakeError::failed("noise", error))?;
        (peer, Either::Left(io))
    } else {
        let upgrade = keys.tls.clone().upgrade_inbound(io, name).await;
        let (peer, io) = upgrade.map_err(|error| HandshakeError::failed("tls", error))?;
        (peer, Either::Right(io))
    };
    let (_, io) = listener_select_proto(io, [YAMUX]).await.map_err(negotiation)?;
    Ok((peer, io))
}

/// The I/O error inside of a failed Noise handshake, which does not show it as its source.
fn noise_cause(error: libp2p_noise::Error) -> Box<dyn Error + Send + Sync> {
    if let libp2p_noise::Error::Io(error) = error { error.into() } else { error.into() }
}

/// The same for TLS.
fn tls_cause(error: libp2p_tls::UpgradeError) -> Box<dyn Error + Send + Sync> {
    if let libp2p_tls::UpgradeError::ClientUpgrade(error) = error {
        error.into()
    } else {
        error.into()
    }
}

/// Whether a failed optimistic handshake failed because the other side does not speak its
/// protocol: then its first read meets the refusal, wrapped in an I/O error.
fn is_refusal(error: &(dyn Error + 'static)) -> bool {
    let held = error.downcast_ref().and_then(io::Error::get_ref);
    let refusal = held.and_then(|held| held.downcast_ref());
    matches!(refusal.or(error.downcast_ref()), Some(NegotiationError::Failed))
}

/// Set the muxer to work on a secured byte stream.
pub(super) fn multiplex<R: Runtime, T>(shared: &Shared<R>, io: T, mode: Mode) -> Muxer
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let runtime = shared.runtime.clone();
    // The span begins when the future is first polled, which is when the close begins.
    let linger = async move { runtime.sleep(LINGER).await }.boxed();
    let (handle, task) = yamux::connect(io, mode, shared.config.tcp_streams_max, linger);
    shared.runtime.spawn(task);
    Muxer::yamux(handle)
}
