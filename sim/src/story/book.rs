//! What a runtime would know: connections, streams and dials; and the contract that every action
//! must keep so that a runtime can perform it.

use crate::relays::Relays;
use crate::routers::Routers;
use portolan_core::wire::autonat::Message;
use portolan_core::wire::multiaddr::{Decoded, decode};
use portolan_core::{
    Action, Addr, Class, ConnId, Connected, Dial, DialId, Duration, Event, Instant, ListenerId,
    PeerId, Protocol, PunchAction, PunchEvent, PunchId, Side, StreamEnd, StreamId, config,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// A stream that is not over.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) conn: ConnId,
    /// Whether the peer agreed to the protocol.
    pub(super) open: bool,
    pub(super) ours_finished: bool,
    pub(super) theirs_finished: bool,
    /// The last frame that we sent.
    pub(super) sent: Option<bytes::Bytes>,
}

/// A dial request that core sent, over or not.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    pub(super) stream: StreamId,
    pub(super) peer: PeerId,
    pub(super) addrs: Vec<Addr>,
    pub(super) nonce: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Book {
    pub(super) conns: BTreeMap<ConnId, Connected>,
    pub(super) streams: BTreeMap<StreamId, Stream>,
    pub(super) dials: BTreeMap<DialId, Dial>,
    pub(super) probes: Vec<Probe>,
    routers: Routers,
    relays: Relays,
    /// Dials of attempts that have not ended.
    punches: BTreeSet<PunchId>,
    listeners: BTreeMap<ListenerId, Addr>,
    interfaces: Vec<IpAddr>,
    minted: BTreeSet<StreamId>,
    asked: BTreeMap<PeerId, Vec<Instant>>,
    inbound_streams: u64,
}

impl Book {
    /// The number of the next stream that a peer opens.
    pub(super) fn next_inbound(&mut self, protocol: Protocol) -> StreamId {
        self.inbound_streams += 1;
        StreamId::inbound(protocol, self.inbound_streams)
    }

    /// The local address of a socket of this class: that of the first listener, a wildcard
    /// replaced by the first interface address of its family that is not loopback.
    pub(super) fn local(&self, class: Class) -> Option<Addr> {
        let bound = self.listeners.values().find(|addr| addr.class() == class)?;
        if !bound.ip.is_unspecified() {
            return Some(*bound);
        }
        let of_class = |ip: &&IpAddr| Addr::new(**ip, bound.port, bound.transport).class() == class;
        let mut ips = self.interfaces.iter().filter(of_class);
        let ip = ips.clone().find(|ip| !ip.is_loopback()).or_else(|| ips.next())?;
        Some(Addr::new(*ip, bound.port, bound.transport))
    }

    /// An address of this host in the family of `remote`, with a fresh port: where a dial-back
    /// without a source of its own leaves from.
    pub(super) fn fresh(&self, remote: Addr) -> Option<Addr> {
        let bound = self.listeners.values().map(|addr| &addr.ip);
        let mut ips = self.interfaces.iter().chain(bound);
        let ip = ips.find(|ip| ip.is_ipv4() == remote.ip.is_ipv4() && !ip.is_unspecified())?;
        Some(Addr::new(*ip, 50_000, remote.transport))
    }

    /// The streams of this kind on a connection that are not over.
    pub(super) fn live(
        &self,
        conn: ConnId,
        side: Side,
        protocol: Protocol,
    ) -> impl Iterator<Item = StreamId> + '_ {
        self.streams
            .iter()
            .filter(move |(id, stream)| {
                stream.conn == conn && id.side == side && id.protocol == protocol
            })
            .map(|(id, _)| *id)
    }

    /// Take in a fact.
    pub(super) fn happened(&mut self, event: &Event) {
        match event {
            Event::ListenerOpened { listener, addr } => {
                self.listeners.insert(*listener, *addr);
            }
            Event::ListenerClosed { listener } => {
                self.listeners.remove(listener);
            }
            Event::InterfacesChanged { ips } => self.interfaces.clone_from(ips),
            Event::Connected(facts) => {
                self.conns.entry(facts.conn).or_insert_with(|| facts.clone());
                if let Some(dial) = facts.dial {
                    self.dials.remove(&dial);
                }
            }
            Event::Disconnected { conn } => {
                self.conns.remove(conn);
                self.streams.retain(|_, stream| stream.conn != *conn);
            }
            Event::DialFailed { dial, .. } => {
                self.dials.remove(dial);
            }
            Event::StreamOpened { conn, stream } => {
                let fresh = Stream {
                    conn: *conn,
                    open: false,
                    ours_finished: false,
                    theirs_finished: false,
                    sent: None,
                };
                self.streams.entry(*stream).or_insert(fresh).open = true;
            }
            Event::StreamFailed { stream, .. }
            | Event::StreamClosed { stream, end: StreamEnd::Reset | StreamEnd::BadFrame } => {
                self.streams.remove(stream);
            }
            Event::StreamClosed { stream, .. } => {
                if let Some(known) = self.streams.get_mut(stream) {
                    known.theirs_finished = true;
                }
                self.forget_if_over(*stream);
            }
            Event::Mapping(event) => self.routers.happened(event),
            Event::Relay(event) => self.relays.happened(event),
            Event::Punch(PunchEvent::Failed { punch, .. }) => {
                self.punches.remove(punch);
            }
            Event::Punch(PunchEvent::Broke { .. })
            | Event::Tick
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

    /// Take in an action, or say why no runtime could perform it.
    pub(super) fn ordered(&mut self, now: Instant, action: &Action) -> Result<(), String> {
        match action {
            Action::OpenStream { conn, stream } => self.opens(now, *conn, *stream),
            Action::Send { stream, body } => {
                let known = self.writable(*stream)?;
                known.sent = Some(body.clone());
                let conn = known.conn;
                if *stream == StreamId::outbound(Protocol::DialRequest, stream.number) {
                    self.asks(conn, *stream, body);
                }
                Ok(())
            }
            Action::CloseStream { stream } => {
                self.writable(*stream)?.ours_finished = true;
                self.forget_if_over(*stream);
                Ok(())
            }
            Action::ResetStream { stream } => match self.streams.remove(stream) {
                Some(_) => Ok(()),
                None => Err(format!("{stream} is reset, but is over")),
            },
            Action::Dial(dial) => match self.dials.insert(dial.dial, *dial) {
                None => Ok(()),
                Some(_) => Err(format!("{} is dialled twice", dial.dial)),
            },
            Action::Disconnect { conn } => match self.conns.contains_key(conn) {
                true => Ok(()),
                false => Err(format!("{conn} is disconnected, but is gone")),
            },
            Action::Mapping(action) => self.routers.ordered(action),
            Action::Relay(action) => {
                for stream in self.relays.ordered(action)? {
                    self.writable(stream)?;
                    self.streams.remove(&stream);
                }
                Ok(())
            }
            Action::Punch(PunchAction::Dial { punch, addr, .. }) => {
                match addr.port != 0 && self.punches.insert(*punch) {
                    true => Ok(()),
                    false => Err(format!("nobody can dial {addr} as {punch}")),
                }
            }
            Action::Punch(PunchAction::Cancel { punch }) => {
                // One that has ended is no fault.
                self.punches.remove(punch);
                Ok(())
            }
            Action::Notify(_) | _ => Ok(()),
        }
    }

    fn writable(&mut self, stream: StreamId) -> Result<&mut Stream, String> {
        let known = self.streams.get_mut(&stream);
        let known = known.ok_or_else(|| format!("{stream} is written to, but is over"))?;
        if known.ours_finished {
            return Err(format!("{stream} is written to after it was closed"));
        }
        Ok(known)
    }

    fn opens(&mut self, now: Instant, conn: ConnId, stream: StreamId) -> Result<(), String> {
        let Some(facts) = self.conns.get(&conn) else {
            return Err(format!("{stream} is opened on {conn}, which is gone"));
        };
        if stream.side != Side::Outbound || !self.minted.insert(stream) {
            return Err(format!("{stream} is opened under an id that is not fresh"));
        }
        let peer = facts.peer;
        let fresh =
            Stream { conn, open: false, ours_finished: false, theirs_finished: false, sent: None };
        self.streams.insert(stream, fresh);
        if stream.protocol == Protocol::DialRequest { self.budget(now, peer) } else { Ok(()) }
    }

    /// A probe's traffic stays inside its bounds: in flight, at one server, in one minute.
    fn budget(&mut self, now: Instant, peer: PeerId) -> Result<(), String> {
        let probes = || {
            let ours = |id: &StreamId| *id == StreamId::outbound(Protocol::DialRequest, id.number);
            // Once we closed it, the answer is there and the server has nothing left to do.
            let busy = |stream: &Stream| !stream.ours_finished;
            self.streams.iter().filter(move |(id, stream)| ours(id) && busy(stream))
        };
        let of_peer = |conn| self.conns.get(conn).is_some_and(|facts| facts.peer == peer);
        let at_server = probes().filter(|(_, stream)| of_peer(&stream.conn)).count();
        if probes().count() > config::PROBES_MAX || at_server > config::PROBES_PER_SERVER_MAX {
            return Err(format!("{} probes, {at_server} at one server", probes().count()));
        }
        let times = self.asked.entry(peer).or_default();
        times.retain(|at| now.since(*at) < Duration::from_secs(60));
        times.push(now);
        if times.len() > config::REQUESTS_PER_SERVER_MIN {
            return Err(format!("{} probes a minute at one server", times.len()));
        }
        Ok(())
    }

    fn asks(&mut self, conn: ConnId, stream: StreamId, body: &bytes::Bytes) {
        let Ok(Message::DialRequest { addrs, nonce }) = Message::decode(body) else {
            return;
        };
        let Some(facts) = self.conns.get(&conn) else {
            return;
        };
        let direct = |bytes: &bytes::Bytes| {
            if let Ok(Decoded::Direct { addr, .. }) = decode(bytes) { Some(addr) } else { None }
        };
        let addrs = addrs.iter().filter_map(direct).collect();
        self.probes.push(Probe { stream, peer: facts.peer, addrs, nonce });
    }

    fn forget_if_over(&mut self, stream: StreamId) {
        let over = |known: &Stream| known.ours_finished && known.theirs_finished;
        if self.streams.get(&stream).is_some_and(over) {
            self.streams.remove(&stream);
        }
    }
}
