//! Hole punching: dials that open our own NAT, while the other side opens its.
//!
//! ```text
//!  TCP   SYN ─► refused, or the port is taken ─► SYN ─► … ─► connected ─► handshakes, as agreed
//!           └─► (we are the client) accepted by our listener ──┘
//!  QUIC  client: dial ─► closed ─► dial ─► … ─► connected
//!        server: datagram ─► datagram ─► …      (the connection arrives at the listener)
//! ```
//!
//! All leave from the port of a listener, which is what the other side knows of us, but for those for
//! which a port is predicted (`predicted`).
//!
//! Limits: see `punches`; one more fails at once.

use super::error::DialError;
use super::punches::{PUNCHES_MAX, Place};
use super::{Established, Net, Patience, Shared, circuit, is_dialable, quic};
use crate::sockets;
use crate::time::{Stopwatch, timeout};
use crate::traits::{Runtime, Sockets};
use futures::future::{Either, select};
use portolan_core::{Addr, Duration, PeerId, PunchWay, Side, Transport};
use quinn::Endpoint;
use rand::RngExt;
use std::future::{Future, pending};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::pin::pin;
use std::sync::Weak;

/// The shortest time between two SYNs of one punch; ours. A refusal is answered by a new SYN at
/// once, which without a rate would be as many as the other side's router refuses. If it grows, so
/// does the time in which the other side's SYN finds nobody.
const SYN_INTERVAL: Duration = Duration::from_millis(20);
/// The shortest time between two QUIC dials of one punch; ours: each costs a handshake's arithmetic.
const REDIAL_INTERVAL: Duration = Duration::from_millis(100);
/// A datagram that opens a NAT, bytes; go-libp2p's and rust-libp2p's value.
const DATAGRAM_LEN: usize = 64;
/// The time between two such datagrams, ms, at random; the specification's (DCUtR, "The Protocol").
const DATAGRAM_INTERVAL_MS: std::ops::RangeInclusive<u64> = 10..=200;

/// A connected socket, and its place among the punches.
type Met<R> = (<R as Sockets>::Tcp, Place<<R as Sockets>::Tcp>);

impl<R: Runtime> Net<R> {
    /// Dial `peer` at `to` while it does the same, from the port of a listener of ours. `patience` is
    /// for the transport to connect; the handshakes over TCP have their own time. There is nothing to
    /// tell when `cancelled` resolves first. Of a dial as the server, what comes to the listener
    /// arrives there, and this one goes on until it is cancelled or out of time.
    ///
    /// A connection over TCP that stands already when a dial as the server is cancelled still shakes
    /// hands: the client has the choice which connection it takes.
    ///
    /// # Errors
    /// See [`DialError`]; [`LocalFault`](DialError::LocalFault) also where no listener fits, and where
    /// 256 dials of this kind are under way.
    pub async fn punch(
        &self,
        to: Addr,
        peer: PeerId,
        way: PunchWay,
        patience: Duration,
        cancelled: impl Future<Output = ()> + Send,
    ) -> Result<Option<Established>, DialError> {
        if !is_dialable(to) {
            return Err(DialError::Unusable(to));
        }
        match (to.transport, way) {
            // Once it is connected it goes on to its end: a socket that is closed in the middle of its
            // handshakes keeps the two ports from each other for a minute, and from what comes next.
            (Transport::Tcp, PunchWay::Plain) => {
                match unless(cancelled, self.meet_plainly(to, patience)).await? {
                    Some((tcp, _place)) => {
                        self.shake_hands_on(tcp, to, peer, Side::Outbound).await.map(Some)
                    }
                    None => Ok(None),
                }
            }
            (Transport::Tcp, PunchWay::Client) => {
                let punch = async {
                    let (tcp, _place) = self.meet_as_client(to, patience).await?;
                    self.shake_hands_on(tcp, to, peer, Side::Outbound).await
                };
                unless(cancelled, punch).await
            }
            (Transport::Tcp, PunchWay::Server) => {
                match unless(cancelled, self.meet_as_server(to, patience)).await? {
                    Some((tcp, _place)) => {
                        self.shake_hands_on(tcp, to, peer, Side::Inbound).await.map(Some)
                    }
                    None => Ok(None),
                }
            }
            // No connection comes of it by itself.
            (_, PunchWay::Open) => Err(self.open_alone(to)),
            (_, PunchWay::Sample | PunchWay::Predicted) => {
                unless(cancelled, self.dial_from_fresh(to, peer, way, patience)).await
            }
            (Transport::Quic, PunchWay::Plain | PunchWay::Client) => {
                unless(cancelled, self.dial_quic(to, peer, way, patience)).await
            }
            (Transport::Quic, PunchWay::Server) => {
                unless(cancelled, self.keep_open(to, patience)).await
            }
        }
    }

    /// A socket that is connected to `to`, by one SYN of the kernel's and those that follow it.
    async fn meet_plainly(&self, to: Addr, patience: Duration) -> Result<Met<R>, DialError> {
        let from = self.port_towards(to).ok_or_else(no_listener)?;
        let place = self.shared.punches.begin().ok_or_else(too_many)?;
        let runtime = &self.shared.runtime;
        let socket = sockets::dial_shared(to.socket(), from).map_err(DialError::at_once)?;
        let connected = timeout(runtime, patience, runtime.connected(socket)).await;
        let tcp = connected.ok_or(DialError::TimedOut)?.map_err(DialError::later)?;
        Ok((tcp, place))
    }

    /// A socket that is connected to `to`, whichever way it came.
    async fn meet_as_client(&self, to: Addr, patience: Duration) -> Result<Met<R>, DialError> {
        let from = self.port_towards(to).ok_or_else(no_listener)?;
        let waiting = self.shared.punches.begin_waiting(to.socket());
        let (place, accepted) = waiting.ok_or_else(too_many)?;
        let accepted = async {
            match accepted.recv().await {
                Ok(tcp) => tcp,
                Err(_) => pending().await,
            }
        };
        Ok((connect(&self.shared, (from, to.socket()), accepted, patience).await?, place))
    }

    /// A socket that is connected to `to`. What the listener accepts arrives there.
    async fn meet_as_server(&self, to: Addr, patience: Duration) -> Result<Met<R>, DialError> {
        let from = self.port_towards(to).ok_or_else(no_listener)?;
        let place = self.shared.punches.begin().ok_or_else(too_many)?;
        Ok((connect(&self.shared, (from, to.socket()), pending(), patience).await?, place))
    }

    /// The listener from whose port `to` is dialled. There is one: another one's port is nothing that
    /// the other side waits for, and would make a second connection of what the first has accepted.
    pub(super) fn port_towards(&self, to: Addr) -> Option<SocketAddr> {
        self.tcp_listeners_for(to).first().copied()
    }

    async fn shake_hands_on(
        &self,
        tcp: R::Tcp,
        to: Addr,
        peer: PeerId,
        side: Side,
    ) -> Result<Established, DialError> {
        let local = self.shared.runtime.local_addr(&tcp).map_err(DialError::LocalFault)?;
        let local = Addr::tcp(local.ip(), local.port());
        let found = circuit::shake_hands(&self.shared, tcp, peer, side, (local, to)).await?;
        Ok(Established { port_reused: side == Side::Outbound, ..found })
    }

    async fn dial_quic(
        &self,
        to: Addr,
        peer: PeerId,
        way: PunchWay,
        patience: Duration,
    ) -> Result<Established, DialError> {
        let (endpoint, _) = self.listening_endpoint(to).ok_or_else(no_listener)?;
        let _place = self.shared.punches.begin().ok_or_else(too_many)?;
        let found = if way == PunchWay::Plain {
            let client = &self.shared.keys.quic_client;
            let step = Patience { connect: patience, handshake: patience, total: patience };
            quic::dial(&self.shared, client, &endpoint, to, Some(peer), step).await?
        } else {
            redial(&self.shared, &endpoint, (to, peer), patience, REDIAL_INTERVAL).await?
        };
        Ok(Established { port_reused: true, ..found })
    }

    /// Keep our own NAT open for packets from `to`; no connection comes of that by itself.
    async fn keep_open(&self, to: Addr, patience: Duration) -> Result<Established, DialError> {
        let (_, udp) = self.listening_endpoint(to).ok_or_else(no_listener)?;
        let _place = self.shared.punches.begin().ok_or_else(too_many)?;
        let sending = send_datagrams(&self.shared.runtime, &udp, to.socket());
        let ended = timeout(&self.shared.runtime, patience, sending).await;
        Err(ended.map_or(DialError::TimedOut, |()| no_listener()))
    }
}

pub(super) fn no_listener() -> DialError {
    let nobody = "no listener of the transport and family of the address";
    DialError::LocalFault(io::Error::new(io::ErrorKind::AddrNotAvailable, nobody))
}

pub(super) fn too_many() -> DialError {
    let full = format!("{PUNCHES_MAX} holes are being punched already");
    DialError::LocalFault(io::Error::other(full))
}

/// What `task` comes to, or nothing if `cancelled` resolves before. What has come to something is
/// not cancelled any more.
async fn unless<T>(
    cancelled: impl Future<Output = ()>,
    task: impl Future<Output = Result<T, DialError>>,
) -> Result<Option<T>, DialError> {
    match select(pin!(task), pin!(cancelled)).await {
        Either::Left((result, _)) => result.map(Some),
        Either::Right(((), _)) => Ok(None),
    }
}

/// Send SYNs until one leads to a connection, or `accepted` brings one.
async fn connect<R: Runtime>(
    shared: &Shared<R>,
    (from, to): (SocketAddr, SocketAddr),
    accepted: impl Future<Output = R::Tcp>,
    patience: Duration,
) -> Result<R::Tcp, DialError> {
    let mut refusal = None;
    let met = timeout(&shared.runtime, patience, async {
        let sending = pin!(send_syns(&shared.runtime, from, to, &mut refusal));
        match select(sending, pin!(accepted)).await {
            Either::Left((result, _)) => result,
            Either::Right((tcp, _)) => Ok(tcp),
        }
    });
    match met.await {
        Some(result) => result,
        None => Err(refusal.unwrap_or(DialError::TimedOut)),
    }
}

async fn send_syns<R: Runtime>(
    runtime: &R,
    from: SocketAddr,
    to: SocketAddr,
    refusal: &mut Option<DialError>,
) -> Result<R::Tcp, DialError> {
    loop {
        let watch = Stopwatch::start(runtime);
        match sockets::dial_shared(to, from) {
            // No route is our own fault, and stays so.
            Err(error)
                if !may_pass(&error) || error.kind() == io::ErrorKind::NetworkUnreachable =>
            {
                return Err(DialError::at_once(error));
            }
            // The listener has accepted the other side's SYN, or the last connection lingers.
            Err(error) => tracing::trace!(%from, %to, %error, "cannot send a SYN"),
            Ok(socket) => match runtime.connected(socket).await {
                Ok(tcp) => return Ok(tcp),
                Err(error) if !may_pass(&error) => return Err(DialError::later(error)),
                Err(error) => {
                    tracing::trace!(%from, %to, %error, "a SYN was refused");
                    *refusal = Some(DialError::later(error));
                }
            },
        }
        runtime.sleep(SYN_INTERVAL.saturating_sub(watch.elapsed())).await;
    }
}

/// Whether another SYN may fare better: the network said no, or the port is taken for now.
pub(super) fn may_pass(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::TimedOut
            | io::ErrorKind::AddrInUse
            | io::ErrorKind::AddrNotAvailable
    )
}

/// Dial over QUIC as the client of a punch, again and again.
pub(super) async fn redial<R: Runtime>(
    shared: &Shared<R>,
    endpoint: &Endpoint,
    (to, peer): (Addr, PeerId),
    patience: Duration,
    every: Duration,
) -> Result<Established, DialError> {
    let client = &shared.keys.quic_punch;
    let watch = Stopwatch::start(&shared.runtime);
    loop {
        let begun = watch.elapsed();
        let connect = patience.saturating_sub(begun);
        let step = Patience { connect, handshake: connect, total: connect };
        let error = match quic::dial(shared, client, endpoint, to, Some(peer), step).await {
            Ok(found) => return Ok(found),
            Err(error) => error,
        };
        let again_at = begun + every;
        let again =
            matches!(error, DialError::Refused(_) | DialError::TimedOut | DialError::Handshake(_));
        if !again || again_at >= patience {
            return Err(error);
        }
        tracing::trace!(%to, %error, "dialling again");
        shared.runtime.sleep(again_at.saturating_sub(watch.elapsed())).await;
    }
}

/// Send datagrams that nobody reads, for as long as the socket is listened on.
async fn send_datagrams<R: Runtime>(runtime: &R, udp: &Weak<UdpSocket>, to: SocketAddr) {
    loop {
        {
            let Some(udp) = udp.upgrade() else { return };
            // What a router said of an earlier one, or a full queue, is no reason to give up.
            if let Err(error) = udp.send_to(&random_datagram(), to) {
                tracing::trace!(%to, %error, "cannot send a datagram");
            }
        }
        let pause = rand::rng().random_range(DATAGRAM_INTERVAL_MS);
        runtime.sleep(Duration::from_millis(pause)).await;
    }
}

/// A datagram that opens a NAT, and that is nothing to anybody.
pub(super) fn random_datagram() -> [u8; DATAGRAM_LEN] {
    let mut random: [u8; DATAGRAM_LEN] = rand::rng().random();
    // RFC 9000 §17.2, §17.3: a packet whose second bit is zero is not a valid one, and MUST be
    // discarded; without the first, it has a short header.
    if let Some(first) = random.first_mut() {
        *first &= 0x3f;
    }
    random
}
