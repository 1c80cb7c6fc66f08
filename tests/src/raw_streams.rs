//! Streams of any protocol on a rust-libp2p swarm, for peers that follow a script.
//!
//! Inbound streams of the accepted protocols are handed out in the order of their coming, and
//! outbound ones can be opened on a connection that stands. Nothing is dialled and nothing is
//! dropped: a script sees every stream that its peer opens.

use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::ReadyUpgrade;
use libp2p::core::{Endpoint, UpgradeInfo};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
    NetworkBehaviour, NotifyHandler, Stream, StreamProtocol, SubstreamProtocol, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{InboundUpgrade, Multiaddr, PeerId};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::task::{Context, Poll};
use tokio::sync::{mpsc, oneshot};

/// A stream that a peer opened.
#[derive(Debug)]
pub struct Inbound {
    /// Who opened it.
    pub peer: PeerId,
    /// What is spoken on it.
    pub protocol: StreamProtocol,
    /// The stream.
    pub stream: Stream,
}

/// Opens streams on the swarm that it belongs to. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Opener(mpsc::UnboundedSender<Open>);

impl Opener {
    /// Open a stream on a connection with `peer` that stands; where one leads through a relay, on
    /// one that does not, if there is any.
    ///
    /// # Errors
    /// If there is no connection, or the peer does not speak the protocol.
    pub async fn open(&self, peer: PeerId, protocol: StreamProtocol) -> io::Result<Stream> {
        let (reply, answer) = oneshot::channel();
        let lost = |_| io::Error::from(io::ErrorKind::NotConnected);
        let open = Open { peer, wanted: Wanted { protocol, reply } };
        self.0.send(open).map_err(|_| io::Error::from(io::ErrorKind::NotConnected))?;
        answer.await.map_err(lost)?
    }
}

#[derive(Debug)]
struct Open {
    peer: PeerId,
    wanted: Wanted,
}

/// A stream that is to be opened.
#[derive(Debug)]
pub(crate) struct Wanted {
    protocol: StreamProtocol,
    reply: oneshot::Sender<io::Result<Stream>>,
}

/// The part of a swarm that does it.
pub(crate) struct Behaviour {
    accepted: Vec<StreamProtocol>,
    inbound: mpsc::UnboundedSender<Inbound>,
    orders: mpsc::UnboundedReceiver<Open>,
    connected: Vec<Connected>,
}

/// A connection that stands.
struct Connected {
    peer: PeerId,
    conn: ConnectionId,
    relayed: bool,
}

impl Behaviour {
    /// A behaviour that accepts these protocols, and the two ends that a script holds. Scripts
    /// are as fast as they like: what they do not take in time waits.
    pub(crate) fn new(
        accepted: Vec<StreamProtocol>,
    ) -> (Behaviour, Opener, mpsc::UnboundedReceiver<Inbound>) {
        let (orders_in, orders) = mpsc::unbounded_channel();
        let (inbound, inbound_out) = mpsc::unbounded_channel();
        let behaviour = Behaviour { accepted, inbound, orders, connected: Vec::new() };
        (behaviour, Opener(orders_in), inbound_out)
    }

    fn handler(&self, peer: PeerId) -> Handler {
        Handler {
            peer,
            accepted: Accepted(self.accepted.clone()),
            inbound: self.inbound.clone(),
            wanted: VecDeque::new(),
            negotiating: VecDeque::new(),
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ConnectionEstablished(established) = &event {
            self.connected.push(Connected {
                peer: established.peer_id,
                conn: established.connection_id,
                relayed: established.endpoint.is_relayed(),
            });
        }
        if let FromSwarm::ConnectionClosed(closed) = &event {
            self.connected.retain(|one| one.conn != closed.connection_id);
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        while let Poll::Ready(Some(Open { peer, wanted })) = self.orders.poll_recv(cx) {
            let of = || self.connected.iter().filter(|one| one.peer == peer);
            if of().next().is_some() {
                let direct = of().find(|one| !one.relayed).filter(|_| of().any(|one| one.relayed));
                let handler =
                    direct.map_or(NotifyHandler::Any, |direct| NotifyHandler::One(direct.conn));
                return Poll::Ready(ToSwarm::NotifyHandler {
                    peer_id: peer,
                    handler,
                    event: wanted,
                });
            }
            // Dropping the reply is the answer.
        }
        Poll::Pending
    }
}

/// One connection's share.
pub(crate) struct Handler {
    peer: PeerId,
    accepted: Accepted,
    inbound: mpsc::UnboundedSender<Inbound>,
    wanted: VecDeque<Wanted>,
    /// Opened and not agreed yet; streams are agreed in the order of opening only per protocol,
    /// so each is found by its number.
    negotiating: VecDeque<(u64, oneshot::Sender<io::Result<Stream>>)>,
}

impl Handler {
    fn settle(&mut self, number: u64, result: io::Result<Stream>) {
        let at = self.negotiating.iter().position(|(one, _)| *one == number);
        if let Some((_, reply)) = at.and_then(|at| self.negotiating.remove(at)) {
            // Whoever wanted it may have gone.
            let _gone = reply.send(result);
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Wanted;
    type ToBehaviour = Infallible;
    type InboundProtocol = Accepted;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = u64;

    fn listen_protocol(&self) -> SubstreamProtocol<Accepted> {
        SubstreamProtocol::new(self.accepted.clone(), ())
    }

    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn on_behaviour_event(&mut self, wanted: Wanted) {
        self.wanted.push_back(wanted);
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, u64, Infallible>> {
        let Some(Wanted { protocol, reply }) = self.wanted.pop_front() else {
            return Poll::Pending;
        };
        let number = self.negotiating.back().map_or(0, |(last, _)| last + 1);
        self.negotiating.push_back((number, reply));
        let protocol = SubstreamProtocol::new(ReadyUpgrade::new(protocol), number);
        Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol })
    }

    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "the other events of a connection are no concern of streams"
    )]
    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Accepted, Self::OutboundProtocol, (), u64>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, protocol),
                ..
            }) => {
                let inbound = Inbound { peer: self.peer, protocol, stream };
                // Without a script the stream is dropped, which resets it.
                let _gone = self.inbound.send(inbound);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream,
                info,
            }) => self.settle(info, Ok(stream)),
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                self.settle(info, Err(io::Error::other(error.to_string())));
            }
            _ => {}
        }
    }
}

/// Agrees to any of some protocols and hands the bare stream out.
#[derive(Clone, Debug)]
pub(crate) struct Accepted(Vec<StreamProtocol>);

impl UpgradeInfo for Accepted {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<Stream> for Accepted {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}
