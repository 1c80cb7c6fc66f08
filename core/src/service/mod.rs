//! Beside the floors · what we do for others.
//!
//! Knows: streams that peers opened to be served, pushes of ours, dial-backs in flight. Reads:
//! words, wire, and the [`View`] that the door fills from the rooms.
//!
//! ```text
//!  <identify     ─► identify   answers, remembers what it told, pushes when that changed
//!  >push         ─► identify   (the end of a push of ours)
//!  <ping         ─► ping       echoes
//!  <hop, >stop   ─► relay      reservations, and circuits between two peers
//!  <dial-request ─► dialback   judges, asks for dial data, dials, delivers the nonce, answers
//!  <autonat-v1   ─► dialback   judges, dials, answers
//!  >dial-back, DialFailed, Connected{dial} ─► dialback
//! ```
//!
//! Limits: two identify streams and two ping streams a connection, 64 pushes in flight; those of
//! the servers stand in `dialback` and `relay`. What is over them is reset, and named as `Full`.
//! Every function takes one fact; what made no sense comes back as an [`Oddity`] for the door.
//! Follows: identify §identify and §identify/push; ping §Protocol; the servers' halves of AutoNAT
//! v2 and v1, and of circuit relay v2.
//!
//! A good first change here: count in the explanation what was served.

mod buckets;
mod dialback;
#[cfg(test)]
mod fake;
mod identify;
mod ping;
mod relay;
#[cfg(test)]
mod tests;

use crate::words::checkpoint::saved;
use crate::words::deadline::earliest;
use crate::words::sleep::Sleep;
use crate::{
    Action, Addr, CircuitAddr, Class, Config, ConnId, Connected, Cx, Deadline, DialFailure, DialId,
    Duration, Instant, Oddity, PeerId, Protocol, ProtocolSet, PublicKey, RelayEvent, RelayLoad,
    Side, StreamEnd, StreamFailure, StreamId,
};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::IpAddr;

use dialback::DialBackServer;
use identify::Identifier;
use ping::Echo;
use relay::RelayServer;

/// How long after its last sign of life a peer that asked for dial-backs is kept, ours: two pings
/// of ours and a little. Connections that idle peers can hold open grow with it.
const PATRON_FOR: Duration = Duration::from_secs(60);

/// What the service may know of a connection; the door fills it from `peers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) peer: PeerId,
    /// The address on which the peer reaches us over this connection.
    pub(crate) local: Addr,
    /// The address from which we see the peer; of a relayed connection the relay's.
    pub(crate) remote: Addr,
    pub(crate) relayed: bool,
    pub(crate) rtt: Option<Duration>,
}

/// What the service may know of the rest: read-only, answered out of the rooms by the door.
pub(crate) trait View {
    /// The connection with this id, if it is up.
    fn caller(&self, conn: ConnId) -> Option<Caller>;
    /// Whether a socket of ours listens on this port and this or the wildcard IP.
    fn listens_on(&self, addr: Addr) -> bool;
    /// Whether an interface of ours has this IP.
    fn is_own_ip(&self, ip: IpAddr) -> bool;
    /// Whether this host has an address from which this one could be dialled at all.
    fn can_dial(&self, addr: Addr) -> bool;
    /// Whether a packet of this class ever reached us.
    fn heard(&self, class: Class) -> bool;
    /// The addresses that this peer is told.
    fn advertised(&self, to: &Caller) -> Vec<Addr>;
    /// The addresses that strangers may be told: those that are certified in the peer record.
    fn proven(&self) -> Vec<Addr>;
    /// The circuit addresses that everybody is told, after the others.
    fn circuits(&self) -> Vec<CircuitAddr> {
        Vec::new()
    }
    /// The direct connections of this peer, best first: those that are not silent, then those with
    /// the shortest round trip.
    fn direct(&self, peer: PeerId) -> Vec<ConnId>;
    /// Whether a source of the application's named this peer.
    fn is_introduced(&self, peer: PeerId) -> bool {
        let _ = peer;
        false
    }
    /// Whether others reach us well enough for us to serve them.
    fn may_serve(&self) -> bool;
    /// The connections whose peers take a push.
    fn pushable(&self) -> Vec<ConnId>;
    /// Counts every change of what [`View::advertised`], [`View::proven`], [`View::circuits`] and
    /// [`View::pushable`] answer; it need not be exact, but must never miss one.
    fn revision(&self) -> u64;
}

/// Everything we do for others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    identifier: Identifier,
    echo: Echo,
    /// `None`: we dial for nobody.
    dialback: Option<DialBackServer>,
    /// `None`: we relay for nobody.
    relay: Option<RelayServer>,
    /// Connections whose peer has asked to be dialled, and when it last showed that it still
    /// counts on us. As many as connections.
    patrons: BTreeMap<ConnId, Instant>,
}

impl Service {
    pub(crate) fn new(config: &Config, identity: &PublicKey) -> Service {
        let (dialback, relay) = (config.dial_back.as_ref(), config.relay_server.as_ref());
        Service {
            identifier: Identifier::new(config, identity, served(config)),
            echo: Echo::default(),
            dialback: dialback.map(|limits| DialBackServer::new(limits, config.allow_private)),
            relay: relay.map(|limits| RelayServer::new(limits, config.allow_private, identity)),
            patrons: BTreeMap::new(),
        }
    }

    /// A stream opened: one that a peer wants served, or one that we asked for.
    pub(crate) fn opened(
        &mut self,
        cx: &mut Cx<'_>,
        view: &dyn View,
        conn: ConnId,
        stream: StreamId,
    ) -> Result<(), Oddity> {
        match (stream.side, stream.protocol) {
            (Side::Inbound, Protocol::Identify) => {
                let hop = self.hop(view);
                self.identifier.asked(cx, view, (conn, stream), hop)
            }
            (Side::Outbound, Protocol::IdentifyPush) => self.identifier.push_opened(stream),
            (Side::Inbound, Protocol::Ping) => {
                self.sign_of_life(cx.now, conn);
                self.echo.opened(cx, conn, stream)
            }
            (Side::Inbound, Protocol::DialRequest | Protocol::AutonatV1)
            | (Side::Outbound, Protocol::DialBack) => match &mut self.dialback {
                Some(server) => {
                    if stream.side == Side::Inbound && view.caller(conn).is_some() {
                        self.patrons.insert(conn, cx.now);
                    }
                    server.opened(cx, view, conn, stream)
                }
                None => {
                    cx.actions.push(Action::ResetStream { stream });
                    Err(Oddity::UnknownStream)
                }
            },
            (Side::Inbound, Protocol::Hop) | (Side::Outbound, Protocol::Stop) => {
                match &mut self.relay {
                    Some(server) => server.opened(cx, view, conn, stream),
                    None => {
                        cx.actions.push(Action::ResetStream { stream });
                        Err(Oddity::UnknownStream)
                    }
                }
            }
            (
                Side::Outbound,
                Protocol::Identify
                | Protocol::Ping
                | Protocol::DialRequest
                | Protocol::AutonatV1
                | Protocol::Hop,
            )
            | (Side::Inbound, Protocol::IdentifyPush | Protocol::DialBack | Protocol::Stop)
            | (_, Protocol::Punch) => Err(Oddity::UnknownStream),
        }
    }

    /// A message arrived on a stream of the service.
    pub(crate) fn frame(
        &mut self,
        cx: &mut Cx<'_>,
        view: &dyn View,
        stream: StreamId,
        body: &Bytes,
    ) -> Result<(), Oddity> {
        match stream.protocol {
            Protocol::Identify | Protocol::IdentifyPush => self.identifier.frame(cx, stream),
            Protocol::Ping => {
                if let Some(conn) = self.echo.conn_of(stream) {
                    self.sign_of_life(cx.now, conn);
                }
                self.echo.frame(cx, stream, body)
            }
            Protocol::DialRequest | Protocol::DialBack | Protocol::AutonatV1 => {
                match &mut self.dialback {
                    Some(server) => server.frame(cx, view, stream, body),
                    None => Err(Oddity::UnknownStream),
                }
            }
            Protocol::Hop | Protocol::Stop => match &mut self.relay {
                Some(server) => server.frame(cx, view, stream, body),
                None => Err(Oddity::UnknownStream),
            },
            Protocol::Punch => Err(Oddity::UnknownStream),
        }
    }

    /// Something about the bridges that we are.
    pub(crate) fn relay(&mut self, cx: &mut Cx<'_>, event: &RelayEvent) -> Result<(), Oddity> {
        match &mut self.relay {
            Some(server) => server.record(cx, event),
            None => Err(Oddity::UnknownStream),
        }
    }

    /// The peer sends no more on a stream of the service. That a stream is not known is no
    /// oddity here: it may be one that was reset while its end was on the way.
    pub(crate) fn closed(
        &mut self,
        cx: &mut Cx<'_>,
        stream: StreamId,
        end: StreamEnd,
    ) -> Result<(), Oddity> {
        match stream.protocol {
            Protocol::Identify | Protocol::IdentifyPush => self.identifier.closed(stream),
            Protocol::Ping => self.echo.closed(cx, stream, end),
            Protocol::DialRequest | Protocol::DialBack | Protocol::AutonatV1 => {
                if let Some(server) = &mut self.dialback {
                    server.closed(cx, stream, end);
                }
            }
            Protocol::Hop | Protocol::Stop => {
                if let Some(server) = &mut self.relay {
                    server.closed(cx, stream, end);
                }
            }
            Protocol::Punch => {}
        }
        match end {
            StreamEnd::BadFrame => Err(Oddity::MalformedFrame),
            StreamEnd::Finished | StreamEnd::Reset => Ok(()),
        }
    }

    /// A stream that the service asked for could not be opened. The reason makes no difference:
    /// a push is given up, and a nonce was not delivered.
    pub(crate) fn failed(
        &mut self,
        cx: &mut Cx<'_>,
        stream: StreamId,
        reason: StreamFailure,
    ) -> Result<(), Oddity> {
        if let (Protocol::Stop, Some(server)) = (stream.protocol, &mut self.relay) {
            server.failed(cx, stream, reason);
            return Ok(());
        }
        self.closed(cx, stream, StreamEnd::Reset)
    }

    /// A dial-back connected. Such a connection belongs to the service alone.
    pub(crate) fn connected(&mut self, cx: &mut Cx<'_>, facts: &Connected) -> Result<(), Oddity> {
        match (&mut self.dialback, facts.dial) {
            (Some(server), Some(dial)) => server.connected(cx, dial, facts),
            (None, _) | (_, None) => {
                cx.actions.push(Action::Disconnect { conn: facts.conn });
                Err(Oddity::UnknownDial)
            }
        }
    }

    /// A dial-back did not connect.
    pub(crate) fn dial_failed(
        &mut self,
        cx: &mut Cx<'_>,
        view: &dyn View,
        dial: DialId,
        reason: DialFailure,
    ) -> Result<(), Oddity> {
        match &mut self.dialback {
            Some(server) => server.dial_failed(cx, view, dial, reason),
            None => Err(Oddity::UnknownDial),
        }
    }

    /// A connection is gone, which the view still has: a requester's, or one of our dial-backs.
    pub(crate) fn disconnected(&mut self, cx: &mut Cx<'_>, view: &dyn View, conn: ConnId) {
        self.identifier.disconnected(conn);
        self.echo.disconnected(conn);
        self.patrons.remove(&conn);
        if let Some(server) = &mut self.dialback {
            server.disconnected(cx, conn);
        }
        if let Some(server) = &mut self.relay {
            server.disconnected(cx, view, conn);
        }
    }

    /// We slept: whoever we serve or tell something gets the time back, and so does whoever could
    /// not show us that it still counts on us. Tokens grew meanwhile.
    pub(crate) fn resumed(&mut self, sleep: Sleep) {
        self.identifier.resumed(sleep);
        self.patrons.values_mut().for_each(|at| sleep.put_off(at));
        if let Some(server) = &mut self.dialback {
            server.resumed(sleep);
        }
        if let Some(server) = &mut self.relay {
            server.resumed(sleep);
        }
    }

    /// Fire what is due, and catch up with what changed in the view.
    pub(crate) fn advance(&mut self, cx: &mut Cx<'_>, view: &dyn View) {
        let hop = self.hop(view);
        self.identifier.advance(cx, view, hop);
        if let Some(server) = &mut self.dialback {
            server.advance(cx);
        }
        if let Some(server) = &mut self.relay {
            server.advance(cx);
        }
    }

    /// When something here is due.
    pub(crate) fn deadline(&self) -> Option<Deadline> {
        let dialback = self.dialback.as_ref().and_then(DialBackServer::deadline);
        let relay = self.relay.as_ref().and_then(RelayServer::deadline);
        earliest(earliest(self.identifier.deadline(), dialback), relay)
    }

    /// Whether something of the service still runs on this connection, or its peer counts on us to
    /// dial it again: it asked once, and still pings.
    pub(crate) fn keeps(&self, now: Instant, view: &dyn View, conn: ConnId) -> bool {
        self.patrons.get(&conn).is_some_and(|at| now < *at + PATRON_FOR)
            || self.identifier.keeps(conn)
            || self.dialback.as_ref().is_some_and(|server| server.keeps(conn))
            || self.relay.as_ref().is_some_and(|server| server.keeps(view, conn))
    }

    /// Dial-backs in flight, number.
    pub(crate) fn dial_backs(&self) -> usize {
        self.dialback.as_ref().map_or(0, DialBackServer::in_flight)
    }

    /// How much of the relay service is in use; `None`: we relay for nobody.
    pub(crate) fn relay_load(&self) -> Option<RelayLoad> {
        self.relay.as_ref().map(RelayServer::in_use)
    }

    /// How full the relay service is, in thousandths, where it is offered.
    fn hop(&self, view: &dyn View) -> Option<u16> {
        self.relay.as_ref().and_then(|server| server.offer(view))
    }

    fn sign_of_life(&mut self, now: Instant, conn: ConnId) {
        if let Some(at) = self.patrons.get_mut(&conn) {
            *at = now;
        }
    }

    /// Whether this is a connection that a dial-back made: no peer of ours, whoever answers.
    pub(crate) fn is_dial_back(&self, conn: ConnId) -> bool {
        self.dialback.as_ref().is_some_and(|server| server.is_dial_back(conn))
    }
}

/// The protocols that we accept inbound streams of.
fn served(config: &Config) -> ProtocolSet {
    // identify (specs, connections §Protocol negotiation): list only what inbound streams of are
    // accepted. A client takes dial-backs; only a server takes dial requests.
    let set = ProtocolSet::NONE
        .with(Protocol::Identify)
        .with(Protocol::IdentifyPush)
        .with(Protocol::Ping)
        .with(Protocol::DialBack);
    let offered = [
        (config.dial_back.is_some(), Protocol::DialRequest),
        (config.dial_back.is_some(), Protocol::AutonatV1),
        (config.relay_server.is_some(), Protocol::Hop),
        (config.relay.is_some(), Protocol::Stop),
        (config.punch.is_some(), Protocol::Punch),
    ];
    let offered = offered.into_iter().filter(|(is_offered, _)| *is_offered);
    offered.fold(set, |set, (_, protocol)| set.with(protocol))
}

saved!(struct Service { identifier, echo, dialback, relay, patrons as aging_all(PATRON_FOR) });
