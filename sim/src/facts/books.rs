//! What the world remembers of one agent: what stands, what was asked, what was ordered. An order
//! that nobody could carry out is named.

use super::cast::Peer;
use crate::relays::Relays;
use crate::routers::Routers;
use portolan_core::wire::autonat::Message;
use portolan_core::wire::multiaddr::{Decoded, decode};
use portolan_core::{
    Action, Addr, Class, ConnId, Connected, Dial, DialId, Event, Family, Instant, ListenerId,
    Protocol, Side, StreamEnd, StreamId,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// A stream that is not over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// The connection it runs on.
    pub conn: ConnId,
    /// Whether its protocol is agreed.
    pub open: bool,
    /// Whether the agent has finished its side.
    pub ours_over: bool,
    /// Whether the peer has finished its side.
    pub theirs_over: bool,
    /// The last message that the agent sent on it.
    pub sent: Option<bytes::Bytes>,
}

/// The last question that the agent put to a server about an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The stream on which it was asked.
    pub stream: StreamId,
    /// The connection of that stream.
    pub conn: ConnId,
    /// What a dial-back must bring.
    pub nonce: u64,
    /// When it was asked.
    pub at: Instant,
    /// Whether a dial-back brought the nonce in the right way.
    pub delivered: bool,
    /// Whether dial data was asked for.
    pub data: bool,
}

/// A request that a peer made of the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The connection it came on.
    pub conn: ConnId,
    /// The addresses of it.
    pub addrs: Vec<Addr>,
    /// Bytes of dial data that are still owed, where some were asked for.
    pub owes: u64,
}

/// The books.
#[derive(Clone, Debug, Default)]
pub struct Books {
    /// What is listened on.
    pub listeners: BTreeMap<ListenerId, Addr>,
    /// The addresses of the interfaces.
    pub interfaces: Vec<IpAddr>,
    /// The connections that stand.
    pub conns: BTreeMap<ConnId, Connected>,
    /// The streams that are not over.
    pub streams: BTreeMap<StreamId, Stream>,
    /// The last question of each kind.
    pub probes: BTreeMap<(Peer, Addr), Probe>,
    /// The requests whose stream is not over.
    pub requests: BTreeMap<StreamId, Request>,
    /// The dials that were ordered and have not ended.
    pub dials: BTreeMap<DialId, Dial>,
    /// The sockets that reach routers, and the requests to them.
    pub routers: Routers,
    /// The circuits that are wanted, and the bridges that stand.
    pub relays: Relays,
    /// The greatest number of a connection, a listener, and a stream that a peer opened, so far.
    pub(super) conns_used: u64,
    pub(super) listeners_used: u64,
    pub(super) streams_used: u64,
    /// The greatest number of each kind of stream that the agent opened. Dial-backs, which connect in
    /// any order, are counted one by one.
    minted: BTreeMap<Protocol, u64>,
    dialled_back: BTreeSet<u64>,
}

impl Books {
    /// The peer at the other end of a connection.
    pub fn peer(&self, conn: ConnId) -> Option<Peer> {
        self.conns.get(&conn).and_then(|facts| Peer::of(facts.peer))
    }

    /// The newest stream of this kind on a connection that is not over.
    pub fn newest(&self, conn: ConnId, side: Side, protocol: Protocol) -> Option<StreamId> {
        let fits = |(id, stream): &(&StreamId, &Stream)| {
            stream.conn == conn && id.side == side && id.protocol == protocol
        };
        self.streams.iter().filter(fits).map(|(id, _)| *id).last()
    }

    /// The concrete addresses of the sockets that listen in this class.
    pub fn sockets(&self, class: Class) -> Vec<Addr> {
        let of_class = self.listeners.values().filter(|addr| addr.class() == class);
        let concrete = |addr: &Addr| {
            if !addr.ip.is_unspecified() {
                return vec![*addr];
            }
            let family = self.interfaces.iter().filter(|ip| Family::of(**ip) == class.family);
            family.map(|ip| Addr { ip: *ip, ..*addr }).collect()
        };
        of_class.flat_map(concrete).collect()
    }

    /// Where a dial of the agent's to `remote` leaves from, if it names no source.
    pub(super) fn fresh(&self, remote: Addr) -> Option<Addr> {
        let mut ips = self.interfaces.iter().copied().chain(self.listeners.values().map(|a| a.ip));
        let ip = ips.find(|ip| ip.is_ipv4() == remote.ip.is_ipv4() && !ip.is_unspecified())?;
        Some(Addr::new(ip, 50_000, remote.transport))
    }

    /// Take in a fact, before the agent hears of it.
    pub(super) fn happened(&mut self, event: &Event) {
        match event {
            Event::ListenerOpened { listener, addr } => {
                self.listeners_used = self.listeners_used.max(listener.0);
                self.listeners.insert(*listener, *addr);
            }
            Event::ListenerClosed { listener } => {
                self.listeners.remove(listener);
            }
            Event::InterfacesChanged { ips } => self.interfaces.clone_from(ips),
            Event::Connected(facts) => {
                self.conns_used = self.conns_used.max(facts.conn.0);
                if let Some(dial) = facts.dial {
                    self.dials.remove(&dial);
                }
                self.conns.insert(facts.conn, facts.clone());
            }
            Event::Disconnected { conn } => {
                self.conns.remove(conn);
                self.streams.retain(|_, stream| stream.conn != *conn);
                self.requests.retain(|_, request| request.conn != *conn);
            }
            Event::DialFailed { dial, .. } => {
                self.dials.remove(dial);
            }
            Event::StreamOpened { conn, stream } => self.opened(*conn, *stream),
            Event::StreamFailed { stream, .. }
            | Event::StreamClosed { stream, end: StreamEnd::Reset | StreamEnd::BadFrame } => {
                self.drop_stream(*stream);
            }
            Event::StreamClosed { stream, .. } => {
                if let Some(known) = self.streams.get_mut(stream) {
                    known.theirs_over = true;
                }
                self.drop_if_over(*stream);
            }
            Event::Mapping(event) => self.routers.happened(event),
            Event::Relay(event) => self.relays.happened(event),
            Event::Tick
            | Event::Resumed { .. }
            | Event::Contacted { .. }
            | Event::Introduced { .. }
            | Event::DialFailureReported { .. }
            | Event::Frame { .. }
            | Event::Observed { .. }
            | Event::ProtocolsListed { .. }
            | _ => {}
        }
    }

    fn opened(&mut self, conn: ConnId, stream: StreamId) {
        let fresh = Stream { conn, open: false, ours_over: false, theirs_over: false, sent: None };
        self.streams.entry(stream).or_insert(fresh).open = true;
        if stream.side == Side::Inbound {
            self.streams_used = self.streams_used.max(stream.number);
        }
    }

    /// Take in an order.
    ///
    /// # Errors
    /// Nobody could carry it out.
    pub(super) fn ordered(&mut self, now: Instant, action: &Action) -> Result<(), String> {
        match action {
            Action::OpenStream { conn, stream } => {
                let last = self.minted.entry(stream.protocol).or_default();
                let is_fresh = if stream.protocol == Protocol::DialBack {
                    self.dialled_back.insert(stream.number)
                } else {
                    stream.number > *last
                };
                if stream.side != Side::Outbound || !is_fresh {
                    return Err(format!("{stream} is no fresh name of a stream"));
                }
                *last = stream.number;
                if !self.conns.contains_key(conn) {
                    return Err(format!("{stream} is to be opened on {conn}, which is gone"));
                }
                self.opened(*conn, *stream);
                self.streams.entry(*stream).and_modify(|one| one.open = false);
            }
            Action::Send { stream, body } => {
                let known = self.writable(*stream)?;
                known.sent = Some(body.clone());
                let conn = known.conn;
                if stream.protocol == Protocol::DialRequest {
                    self.said(now, conn, *stream, body)?;
                }
            }
            Action::CloseStream { stream } => {
                self.writable(*stream)?.ours_over = true;
                self.drop_if_over(*stream);
            }
            Action::ResetStream { stream } => {
                if !self.streams.contains_key(stream) {
                    return Err(format!("{stream} is over, and is to be reset"));
                }
                self.drop_stream(*stream);
            }
            Action::Dial(dial) => {
                if self.dials.insert(dial.dial, *dial).is_some() {
                    return Err(format!("{} names two dials", dial.dial));
                }
            }
            Action::Disconnect { conn } => {
                if !self.conns.contains_key(conn) {
                    return Err(format!("{conn} is gone, and is to be closed"));
                }
            }
            Action::Mapping(action) => self.routers.ordered(action)?,
            Action::Relay(action) => {
                for stream in self.relays.ordered(action)? {
                    self.writable(stream)?;
                    self.drop_stream(stream);
                }
            }
            Action::Notify(_) | _ => {}
        }
        Ok(())
    }

    fn writable(&mut self, stream: StreamId) -> Result<&mut Stream, String> {
        let open = self.streams.get_mut(&stream).filter(|one| !one.ours_over);
        open.ok_or_else(|| format!("{stream} is over, and is written to"))
    }

    /// What the agent says on a stream of dial requests, its own or a peer's.
    fn said(
        &mut self,
        at: Instant,
        conn: ConnId,
        stream: StreamId,
        body: &bytes::Bytes,
    ) -> Result<(), String> {
        let said = Message::decode(body).map_err(|error| format!("{stream}: {error}"))?;
        match (stream.side, said) {
            (Side::Outbound, Message::DialRequest { addrs, nonce }) => {
                let first = addrs.first().and_then(|bytes| direct(bytes));
                let (Some(addr), Some(server)) = (first, self.peer(conn)) else {
                    return Err(format!("{stream} asks nobody about nothing"));
                };
                let (delivered, data) = (false, false);
                let probe = Probe { stream, conn, nonce, at, delivered, data };
                self.probes.insert((server, addr), probe);
            }
            (Side::Inbound, Message::DialDataRequest { num_bytes, .. }) => {
                if let Some(request) = self.requests.get_mut(&stream) {
                    request.owes = num_bytes;
                }
            }
            (Side::Outbound, Message::DialDataResponse { .. })
            | (Side::Inbound, Message::DialResponse { .. }) => {}
            (_, other) => return Err(format!("{stream}: nobody says {other:?}")),
        }
        Ok(())
    }

    fn drop_stream(&mut self, stream: StreamId) {
        self.streams.remove(&stream);
        self.requests.remove(&stream);
    }

    fn drop_if_over(&mut self, stream: StreamId) {
        if self.streams.get(&stream).is_some_and(|one| one.ours_over && one.theirs_over) {
            self.drop_stream(stream);
        }
    }
}

/// The plain address in these bytes, if they hold one.
pub(super) fn direct(bytes: &[u8]) -> Option<Addr> {
    if let Ok(Decoded::Direct { addr, .. }) = decode(bytes) { Some(addr) } else { None }
}
