//! What the application asks of the driver.

use super::connection::Order;
use super::fact::{AppDial, Fact};
use super::load::Load;
use super::table::Refusal;
use super::{Driver, Role};
use crate::net::Established;
use crate::node::{DialError, ListenError, OpenError, Route, Stream};
use crate::traits::Runtime;
use futures::channel::oneshot;
use multiaddr::Multiaddr;
use portolan_core::{
    Addr, CircuitLimit, ConnId, Duration, Event, Explanation, Instant, Mapping, PeerId, Relay,
    RelayEvent, Side,
};
use std::net::IpAddr;

/// A request of a handle. Whoever asked may stop waiting for the answer at any time.
#[derive(Debug)]
pub(crate) enum Command {
    Listen {
        addr: Addr,
        reply: oneshot::Sender<Result<Addr, ListenError>>,
    },
    Listeners {
        reply: oneshot::Sender<Vec<Addr>>,
    },
    Dial {
        /// As the application wrote it, for errors.
        named: Multiaddr,
        route: Route,
        reply: oneshot::Sender<Result<Dialled, DialError>>,
    },
    OpenStream {
        on: On,
        protocol: String,
        reply: oneshot::Sender<Result<Stream, OpenError>>,
    },
    Connections {
        reply: oneshot::Sender<Vec<ConnectionInfo>>,
    },
    Disconnect {
        peer: PeerId,
        reply: oneshot::Sender<usize>,
    },
    Explain {
        reply: oneshot::Sender<Explanation>,
    },
    Mappings {
        reply: oneshot::Sender<Vec<Mapping>>,
    },
    Relays {
        reply: oneshot::Sender<Vec<Relay>>,
    },
    /// These IPs were sent to before, or something is about to be sent there.
    Contacted {
        ips: Vec<IpAddr>,
        reply: oneshot::Sender<()>,
    },
    AllContacted {
        reply: oneshot::Sender<Vec<(IpAddr, Duration)>>,
    },
    DrainRelay {
        reply: oneshot::Sender<()>,
    },
    MayServe {
        reply: oneshot::Sender<bool>,
    },
    ReportDialFailure {
        addr: Addr,
        /// Whether the address is known.
        reply: oneshot::Sender<bool>,
    },
    Load {
        reply: oneshot::Sender<Load>,
    },
    /// A source of the application's names a peer.
    Introduced {
        peer: PeerId,
        source: u16,
        reply: oneshot::Sender<()>,
    },
    Shutdown {
        reply: oneshot::Sender<()>,
    },
}

/// Where the application wants a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum On {
    /// On the best connection with a peer.
    Peer(PeerId),
    /// On this connection.
    Conn(ConnId),
}

/// A connection that a dial led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dialled {
    /// The authenticated peer.
    pub peer: PeerId,
    /// The connection.
    pub conn: ConnId,
    /// The actual local address of the socket.
    pub local: Addr,
    /// The address that was dialled.
    pub remote: Addr,
    /// Whether the connection leaves from the port of a listener. If not, what the peer sees of
    /// us says nothing about the listener's port.
    pub port_reused: bool,
    /// A round-trip time measured while connecting, if one was.
    pub rtt: Option<Duration>,
    /// Whether it runs through a relay. Then `local` and `remote` are those of the connection to
    /// the relay.
    pub relayed: bool,
}

/// A connection of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// The connection.
    pub conn: ConnId,
    /// The authenticated peer.
    pub peer: PeerId,
    /// Who opened it.
    pub side: Side,
    /// The actual local address of the socket.
    pub local: Addr,
    /// The remote address of the socket.
    pub remote: Addr,
    /// Whether it runs through a relay. Then `local` and `remote` are those of the connection to
    /// the relay.
    pub relayed: bool,
    /// The relay that it runs through.
    pub relay: Option<PeerId>,
    /// What that relay allows it, if it runs through one.
    pub limit: Option<CircuitLimit>,
    /// Whether it is about to close, and takes no new streams.
    pub closing: bool,
}

impl<R: Runtime> Driver<R> {
    /// Do what a handle asks. A reply that nobody waits for any more is dropped; so is a request
    /// that comes after the shutdown began, which the handle reports as such.
    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Shutdown { reply } => self.stop(Some(reply)),
            Command::Explain { reply } => drop(reply.send(self.parts.agent.explain())),
            Command::Mappings { reply } => {
                drop(reply.send(self.parts.agent.mappings().collect()));
            }
            Command::Relays { reply } => drop(reply.send(self.parts.agent.relays().collect())),
            Command::MayServe { reply } => {
                let may = self.stopping.is_none() && self.parts.agent.reachability().may_serve();
                let _ = reply.send(may);
            }
            Command::Listeners { reply } => {
                let addrs = self.listeners.values().map(|listening| listening.addr);
                drop(reply.send(addrs.collect()));
            }
            Command::Connections { reply } => drop(reply.send(self.connections())),
            Command::AllContacted { reply } => {
                let now = self.now();
                let ago = |(ip, at): (IpAddr, Instant)| (ip, now.since(at));
                drop(reply.send(self.parts.agent.contacted().map(ago).collect()));
            }
            Command::Load { reply } => {
                let shown = self.table.conns().filter(|(_, conn)| !conn.dial_back).count();
                let _ = reply.send(Load::of(&self.parts.agent, shown, self.dropped));
            }
            _ if self.stopping.is_some() => {}
            Command::Listen { addr, reply } => drop(reply.send(self.listen(addr))),
            Command::Dial { named, route, reply } => {
                let dial = AppDial { addr: named, reply };
                match route {
                    Route::Direct(addr, expected) => self.dial(dial, addr, expected),
                    Route::Circuit(route) => self.dial_through(dial, route),
                }
            }
            Command::OpenStream { on, protocol, reply } => {
                self.open_for_application(on, protocol, reply);
            }
            Command::ReportDialFailure { addr, reply } => {
                let known = self.parts.agent.reachability().verdict(addr).is_some();
                self.feed(Event::DialFailureReported { addr });
                let _ = reply.send(known);
            }
            Command::Contacted { ips, reply } => {
                ips.into_iter().for_each(|ip| self.feed(Event::Contacted { ip }));
                let _ = reply.send(());
            }
            Command::Introduced { peer, source, reply } => {
                self.feed(Event::Introduced { peer, source });
                let _ = reply.send(());
            }
            Command::DrainRelay { reply } => {
                self.feed(Event::Relay(RelayEvent::Draining));
                let _ = reply.send(());
            }
            Command::Disconnect { peer, reply } => drop(reply.send(self.disconnect(peer))),
        }
    }

    fn listen(&mut self, addr: Addr) -> Result<Addr, ListenError> {
        let listening = self.parts.net.listen(addr)?;
        self.listening(listening);
        Ok(listening.addr)
    }

    fn dial(&mut self, dial: AppDial, addr: Addr, expected: Option<PeerId>) {
        let limits = &self.parts.common.limits;
        if self.dials >= limits.pending_dials_max {
            drop(dial.reply.send(Err(DialError::TooManyDials(dial.addr))));
            return;
        }
        self.dials += 1;
        // The first packet is about to leave, whatever becomes of the dial.
        self.feed(Event::Contacted { ip: addr.ip });
        let (net, facts) = (self.parts.net.clone(), self.parts.common.facts.clone());
        self.tasks.spawn(async move {
            let result = net.dial(addr, expected).await;
            facts.tell(Fact::Dialled { dial, result }).await;
        });
    }

    /// A dial of the application has ended.
    pub(super) fn dialled(
        &mut self,
        dial: AppDial,
        result: Result<Established, crate::net::DialError>,
    ) {
        self.dials = self.dials.saturating_sub(1);
        let AppDial { addr, reply } = dial;
        let answer = match result {
            Err(error) => Err(DialError::Failed { addr, error }),
            Ok(found) if found.peer == self.parts.agent.peer_id() => Err(DialError::Oneself(addr)),
            Ok(_) if self.stopping.is_some() => Err(DialError::Stopped),
            Ok(found) => {
                let Established { peer, local, remote, port_reused, rtt, .. } = found;
                let relayed = false;
                match self.admit(found, Role::Peer) {
                    Ok(conn) => {
                        Ok(Dialled { peer, conn, local, remote, port_reused, rtt, relayed })
                    }
                    Err(refusal) => Err(refused(addr, peer, refusal)),
                }
            }
        };
        if let Err(error) = &answer {
            tracing::debug!(%error, "a dial failed");
        }
        drop(reply.send(answer));
    }

    fn open_for_application(
        &mut self,
        on: On,
        protocol: String,
        reply: oneshot::Sender<Result<Stream, OpenError>>,
    ) {
        let now = self.now();
        let found = match on {
            On::Peer(peer) => self.table.best(peer).ok_or(OpenError::NotConnected(peer)),
            On::Conn(conn) => self.table.usable(conn).ok_or(OpenError::Lost),
        };
        let conn = match found {
            Ok(conn) => conn,
            Err(error) => return drop(reply.send(Err(error))),
        };
        // The wish counts as use: the connection must not close for idleness under it.
        conn.idle_since = now;
        let order = Order::OpenForApplication { protocol, reply };
        let Err(refused) = conn.hold.orders.try_send(order) else { return };
        let error = if refused.is_full() { OpenError::TooManyStreams } else { OpenError::Lost };
        if let Order::OpenForApplication { reply, .. } = refused.into_inner() {
            drop(reply.send(Err(error)));
        }
    }

    fn connections(&self) -> Vec<ConnectionInfo> {
        let shown = self.table.conns().filter(|(_, conn)| !conn.dial_back);
        shown
            .map(|(id, conn)| ConnectionInfo {
                conn: id,
                peer: conn.peer,
                side: conn.side,
                local: conn.local,
                remote: conn.remote,
                relayed: conn.via.is_some(),
                relay: conn.via.map(|via| via.relay),
                limit: conn.via.map(|via| via.limit),
                closing: conn.closing,
            })
            .collect()
    }

    fn disconnect(&mut self, peer: PeerId) -> usize {
        let with = self
            .table
            .conns()
            .filter(|(_, conn)| conn.peer == peer && !conn.closing && !conn.dial_back);
        let conns: Vec<ConnId> = with.map(|(id, _)| id).collect();
        for conn in &conns {
            self.table.close(*conn, false);
        }
        if !conns.is_empty() {
            self.parts.hub.connections_changed();
        }
        conns.len()
    }
}

/// The error of a dial to `addr` whose connection with `peer` was not admitted.
pub(super) fn refused(addr: Multiaddr, peer: PeerId, refusal: Refusal) -> DialError {
    match refusal {
        Refusal::Total | Refusal::Source => DialError::TooManyConnections(addr),
        Refusal::Peer => DialError::TooManyWithPeer { addr, peer },
    }
}
