//! The public node: a cloneable handle to the driver.
//!
//! Every operation sends the driver one request and waits for its answer; nothing here decides.
//! The node lives until [`Node::shutdown`], or until the last handle is dropped.

pub(crate) mod address;
mod builder;
mod error;
mod names;
mod notices;
mod stream;

pub use crate::driver::{ConnectionInfo, Dialled, Dropped, Limits, Load};
pub use address::{
    AddressError, circuit_address, destination, dial_address, distant_server, listen_address,
};
pub use builder::Builder;
pub use error::{DialError, ListenError, OpenError, ReportError, StartError, Stopped};
pub use notices::{ConnectionChanges, NOTICES_MAX, Noticed, Notices};
pub use stream::{AcceptError, Incoming, PROTOCOL_NAME_MAX, PROTOCOLS_MAX, Stream};

pub(crate) use address::{CircuitRoute, Route};
pub(crate) use notices::Hub;
pub(crate) use stream::{Doors, Held, Uses};

use crate::driver::{Command, On};
use crate::names::{Resolver, is_named};
use crate::traits::Runtime;
use async_channel::Sender;
use futures::channel::oneshot;
use libp2p_identity::Keypair;
use multiaddr::Multiaddr;
use portolan_core::wire::multiaddr::to_multiaddr;
use portolan_core::{ConnId, Duration, Explanation, Instant, Mapping, PeerId, Relay, RelayState};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// A running node. Clones are handles to the same node, which shuts down when the last of them
/// is dropped.
pub struct Node<R: Runtime>(Arc<Inner<R>>);

struct Inner<R> {
    runtime: R,
    peer: PeerId,
    commands: Sender<Command>,
    hub: Arc<Hub>,
    doors: Arc<Doors>,
    limits: Limits,
    resolver: Resolver<R>,
}

impl<R: Runtime> Node<R> {
    /// A node that will run on `runtime` (or on what its handle names) and be known by `keypair`.
    pub fn builder(runtime: impl Into<R>, keypair: Keypair) -> Builder<R> {
        Builder::new(runtime.into(), keypair)
    }

    /// The node's own peer id.
    pub fn peer_id(&self) -> PeerId {
        self.0.peer
    }

    /// The moment on the node's clock, on which notices and explanations are dated.
    pub fn now(&self) -> Instant {
        self.0.runtime.now()
    }

    /// The addresses that are listened on, as bound: with real ports, possibly with a wildcard
    /// IP, each with `/p2p/` and the node's peer id. In the order in which they were opened; none
    /// after a shutdown.
    pub async fn listeners(&self) -> Vec<Multiaddr> {
        let addrs = self.ask(|reply| Command::Listeners { reply }).await.unwrap_or_default();
        addrs.into_iter().map(|addr| to_multiaddr(addr, Some(self.0.peer))).collect()
    }

    /// Listen on one more address, and return it as it is bound.
    ///
    /// # Errors
    /// If the address cannot be listened on; the error names it.
    pub async fn listen(&self, addr: Multiaddr) -> Result<Multiaddr, ListenError> {
        let addr = builder::listenable(&addr)?;
        let bound = self.ask(|reply| Command::Listen { addr, reply }).await??;
        Ok(to_multiaddr(bound, Some(self.0.peer)))
    }

    /// Connect to `/ip4|ip6/IP/tcp/PORT` or `/ip4|ip6/IP/udp/PORT/quic-v1`, with `/p2p/PEER-ID`
    /// at its end if nobody else will do. The dial leaves from the port of a listener where one
    /// fits; [`Dialled::port_reused`] says whether it did. Who stops waiting does not stop the
    /// dial; a connection that nobody uses closes by itself.
    ///
    /// Or connect through a relay: to such an address with
    /// `/p2p/RELAY/p2p-circuit/p2p/PEER-ID` at its end. A connection with the relay is used if there is
    /// a direct one, and then the relay's address may be left out. Needs
    /// [`Config::relay`](portolan_core::Config). Who stops waiting stops such a dial once the relay
    /// is reached.
    ///
    /// In place of the IP there may be a name (`/dns`, `/dns4`, `/dns6`), or one that stands for whole
    /// addresses (`/dnsaddr`): then all that it leads to is tried, in the order of
    /// [`Node::resolve`], until one connection stands.
    ///
    /// # Errors
    /// See [`DialError`]; each names the address.
    pub async fn dial(&self, named: Multiaddr) -> Result<Dialled, DialError> {
        if is_named(&named) { self.dial_name(named).await } else { self.dial_ip(named).await }
    }

    async fn dial_ip(&self, named: Multiaddr) -> Result<Dialled, DialError> {
        let route = match address::route(&named) {
            Ok(route) => route,
            Err(error) => return Err(DialError::Address { addr: named, error }),
        };
        self.ask(|reply| Command::Dial { named, route, reply }).await?
    }

    /// Every connection with a peer, oldest first; none after a shutdown. The dial-backs that the
    /// node makes for others are not among them.
    pub async fn connections(&self) -> Vec<ConnectionInfo> {
        self.ask(|reply| Command::Connections { reply }).await.unwrap_or_default()
    }

    /// Close every connection with a peer, once what is under way on them has been delivered or a
    /// short time has passed. Returns how many will close, without waiting for it.
    pub async fn disconnect(&self, peer: PeerId) -> usize {
        self.ask(|reply| Command::Disconnect { peer, reply }).await.unwrap_or_default()
    }

    /// Open a stream of an application protocol on a connection that stands: a direct one if there is
    /// one, else one through a relay.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open_stream(&self, peer: PeerId, protocol: &str) -> Result<Stream, OpenError> {
        self.open_stream_at(On::Peer(peer), protocol).await
    }

    /// Open a stream of an application protocol on this connection.
    ///
    /// # Errors
    /// See [`OpenError`]; [`OpenError::Lost`] if there is no such connection, or it is about to close.
    pub async fn open_stream_on(&self, conn: ConnId, protocol: &str) -> Result<Stream, OpenError> {
        self.open_stream_at(On::Conn(conn), protocol).await
    }

    async fn open_stream_at(&self, on: On, protocol: &str) -> Result<Stream, OpenError> {
        if !stream::is_name(protocol) {
            return Err(OpenError::BadName(protocol.into()));
        }
        let (reply, answer) = oneshot::channel();
        let protocol = protocol.into();
        let command = Command::OpenStream { on, protocol, reply };
        self.0.commands.send(command).await.map_err(|_| Stopped)?;
        // The connection that was to open the stream may end before it answers.
        answer.await.unwrap_or_else(|_| {
            let stopped = self.0.commands.is_closed();
            Err(if stopped { Stopped.into() } else { OpenError::Lost })
        })
    }

    /// Accept inbound streams of an application protocol from now on. It is not listed in
    /// identify: for that, name it before the start with [`Builder::accept`].
    ///
    /// # Errors
    /// If the name cannot be one, or is taken.
    pub fn accept(&self, protocol: &str) -> Result<Incoming, AcceptError> {
        self.0.doors.open(protocol, self.0.limits.incoming_max)
    }

    /// Every verdict of this moment, with the evidence behind it.
    ///
    /// # Errors
    /// Only after a shutdown.
    pub async fn explain(&self) -> Result<Explanation, Stopped> {
        self.ask(|reply| Command::Explain { reply }).await
    }

    /// Every port mapping that the node wants, with how far it is and why; none without
    /// [`Config::mapping`](portolan_core::Config), and none after a shutdown. Every change is a
    /// [`Notice::MappingChanged`](portolan_core::Notice).
    pub async fn mappings(&self) -> Vec<Mapping> {
        self.ask(|reply| Command::Mappings { reply }).await.unwrap_or_default()
    }

    /// Every relay that the node asks or could ask for a reservation, as it stands; none without
    /// [`Config::relay`](portolan_core::Config), and none after a shutdown. Every change is a
    /// [`RelayNotice::Changed`](portolan_core::RelayNotice).
    pub async fn relays(&self) -> Vec<Relay> {
        self.ask(|reply| Command::Relays { reply }).await.unwrap_or_default()
    }

    /// The addresses to give to others at which the node is reached through relays:
    /// `ADDRESS/p2p/RELAY/p2p-circuit/p2p/US`, for every relay with a reservation. Every change is a
    /// [`RelayNotice::CircuitAddrsChanged`](portolan_core::RelayNotice).
    pub async fn circuit_addresses(&self) -> Vec<Multiaddr> {
        let reserved = |relay: &Relay| relay.state == RelayState::Reserved;
        let relays = self.relays().await.into_iter().filter(reserved);
        let addrs = relays.flat_map(|Relay { peer, addrs, .. }| {
            addrs.into_iter().map(move |addr| circuit_address(addr, peer, self.0.peer))
        });
        addrs.collect()
    }

    /// How busy the node is with others at this moment, and what it turned away; nothing after a
    /// shutdown.
    pub async fn load(&self) -> Load {
        self.ask(|reply| Command::Load { reply }).await.unwrap_or_default()
    }

    /// Wind the node's relay service down before a planned shutdown: it is not listed any more and
    /// grants nothing new, and what was granted is served until it expires.
    ///
    /// # Errors
    /// Only after a shutdown.
    pub async fn drain_relay(&self) -> Result<(), Stopped> {
        self.ask(|reply| Command::DrainRelay { reply }).await
    }

    /// Whether the node may serve others (a DHT in server mode, a relay service): its one verdict,
    /// with hysteresis. Every change is a [`Notice::RoleChanged`](portolan_core::Notice). A node that
    /// was shut down may not.
    pub async fn may_serve(&self) -> bool {
        self.ask(|reply| Command::MayServe { reply }).await.unwrap_or(false)
    }

    /// Hand in what peers tell the application: that they could not dial this address of the node,
    /// which may have `/p2p/` and the node's peer id at its end. It is hearsay and judges nothing; where
    /// the address is proven a server is asked soon, at once if none was in the last fifteen seconds.
    ///
    /// # Errors
    /// If the address is none of the node's, or cannot be one. It is named.
    pub async fn report_dial_failure(&self, named: Multiaddr) -> Result<(), ReportError> {
        match destination(&named) {
            Err(error) => Err(ReportError::Address { addr: named, error }),
            Ok((_, Some(peer))) if peer != self.0.peer => Err(ReportError::NotOurs(named)),
            Ok((addr, _)) => {
                let known = self.ask(|reply| Command::ReportDialFailure { addr, reply }).await?;
                if known { Ok(()) } else { Err(ReportError::NotOurs(named)) }
            }
        }
    }

    /// Say that packets were sent to these IPs: by an earlier run within the last day, or by this
    /// machine on other sockets. Nobody there counts as a stranger for a day.
    ///
    /// # Errors
    /// Only after a shutdown.
    pub async fn has_contacted(&self, ips: Vec<IpAddr>) -> Result<(), Stopped> {
        self.ask(|reply| Command::Contacted { ips, reply }).await
    }

    /// The IPs that count as contacted, each with how long ago that was last, for [`Node::has_contacted`] of a
    /// later run; none after a shutdown.
    pub async fn contacted(&self) -> Vec<(IpAddr, Duration)> {
        self.ask(|reply| Command::AllContacted { reply }).await.unwrap_or_default()
    }

    /// Tell the node that a source of the application's, such as a list of peers, names this peer. It makes
    /// no connection. What one source names counts as one where several networks have to agree,
    /// relays are spread over sources, and the first such peer that asks to be dialled and is makes a
    /// [`Notice::FullyConnected`](portolan_core::Notice). Sources are numbered by the application. The first that
    /// names a peer counts. [`Node::bootstrap`] does this by itself.
    ///
    /// # Errors
    /// Only after a shutdown.
    pub async fn introduce(&self, peer: PeerId, source: u16) -> Result<(), Stopped> {
        self.ask(|reply| Command::Introduced { peer, source, reply }).await
    }

    /// A subscription to every notice from now on. It is bounded: see [`Noticed::missed`].
    pub fn notices(&self) -> Notices {
        self.0.hub.subscribe()
    }

    /// What tells that a connection was made, is about to close, or has ended.
    pub fn connection_changes(&self) -> ConnectionChanges {
        self.0.hub.connection_changes()
    }

    /// What the node runs on.
    pub(crate) fn runtime(&self) -> &R {
        &self.0.runtime
    }

    /// What resolves its names.
    pub(crate) fn resolver(&self) -> &Resolver<R> {
        &self.0.resolver
    }

    /// Shut down: stop listening, deliver the answers that are under way (for a short time), close
    /// every connection. Resolves when that is done, at once if it is already. (A TCP peer that
    /// does not close its side holds its socket for two seconds more.)
    pub async fn shutdown(&self) {
        let asked = self.ask(|reply| Command::Shutdown { reply }).await;
        if asked.is_err() {
            // Somebody else shut it down; the channel closes when that is done.
            tracing::trace!("the node had been shut down before");
        }
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.0.commands.send(command(reply)).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }
}

impl<R: Runtime> Clone for Node<R> {
    fn clone(&self) -> Node<R> {
        Node(self.0.clone())
    }
}

impl<R: Runtime> fmt::Debug for Node<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("peer", &self.0.peer).finish_non_exhaustive()
    }
}
