//! What the driver knows of connections and streams: who they are and how to reach them.
//!
//! Limits: connections by `Limits`, streams by the limit of each connection.

use crate::driver::connection::Hold;
use crate::driver::limits::Limits;
use crate::driver::stream::Orders;
use crate::net::source_of;
use portolan_core::{Addr, CircuitLimit, ConnId, Instant, PeerId, Side, StreamId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// One connection.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) peer: PeerId,
    pub(crate) side: Side,
    pub(crate) local: Addr,
    pub(crate) remote: Addr,
    pub(crate) hold: Hold,
    /// Whose circuit it is, if it is one.
    pub(crate) via: Option<Via>,
    /// Whether it is a dial-back of core's: the application never sees it.
    pub(crate) dial_back: bool,
    pub(crate) closing: bool,
    /// Core's streams on it.
    pub(crate) streams: BTreeSet<StreamId>,
    /// Since when nobody has used it.
    pub(crate) idle_since: Instant,
    /// How many streams the application had ever held on it when that was last looked at.
    pub(crate) uses_seen: u64,
}

/// What carries a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Via {
    pub(crate) relay: PeerId,
    pub(crate) limit: CircuitLimit,
}

/// Why a connection is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There are too many in all.
    Total,
    /// There are too many with that peer.
    Peer,
    /// There are too many inbound ones from that source, or through that relay.
    Source,
}

/// Where a connection comes from, or leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Address(IpAddr),
    Relay(PeerId),
}

/// All connections and core's streams on them.
#[derive(Debug, Default)]
pub(crate) struct Table {
    next_conn: u64,
    conns: BTreeMap<ConnId, Conn>,
    streams: BTreeMap<StreamId, (ConnId, Orders)>,
}

impl Table {
    /// Whether another connection with `peer` may stand. A circuit counts as one of all and as one
    /// with that peer. Its remote address is the relay's, so that it is no source: many peers behind
    /// one relay must not shut it out, and it has a limit of its own.
    pub(crate) fn check(
        &self,
        limits: &Limits,
        peer: PeerId,
        side: Side,
        from: Origin,
    ) -> Result<(), Refusal> {
        let served = || self.conns.values().filter(|conn| !conn.dial_back);
        if served().count() >= limits.connections_max {
            return Err(Refusal::Total);
        }
        if served().filter(|conn| conn.peer == peer).count() >= limits.per_peer_max {
            return Err(Refusal::Peer);
        }
        let (max, same) = match from {
            Origin::Address(remote) => {
                let source = source_of(remote);
                let same = served().filter(|conn| {
                    let inbound = conn.side == Side::Inbound && conn.via.is_none();
                    inbound && source_of(conn.remote.ip) == source
                });
                (limits.inbound_per_source_max, same.count())
            }
            Origin::Relay(relay) => (limits.circuits_per_relay_max, self.circuits_from(relay)),
        };
        if side == Side::Inbound && same >= max {
            return Err(Refusal::Source);
        }
        Ok(())
    }

    /// How many inbound circuits through this relay stand.
    pub(crate) fn circuits_from(&self, relay: PeerId) -> usize {
        let through = |conn: &&Conn| {
            conn.side == Side::Inbound && conn.via.is_some_and(|via| via.relay == relay)
        };
        self.conns.values().filter(through).count()
    }

    /// Mint the id of the next connection.
    pub(crate) fn next_conn(&mut self) -> ConnId {
        let conn = ConnId(self.next_conn);
        self.next_conn += 1;
        conn
    }

    pub(crate) fn insert(&mut self, id: ConnId, conn: Conn) {
        self.conns.insert(id, conn);
    }

    /// A connection that is not about to close.
    pub(crate) fn open_conn_mut(&mut self, conn: ConnId) -> Option<&mut Conn> {
        self.conns.get_mut(&conn).filter(|conn| !conn.closing)
    }

    /// All connections, oldest first.
    pub(crate) fn conns(&self) -> impl Iterator<Item = (ConnId, &Conn)> {
        self.conns.iter().map(|(id, conn)| (*id, conn))
    }

    /// All connections, oldest first, to be changed.
    pub(crate) fn conns_mut(&mut self) -> impl Iterator<Item = (ConnId, &mut Conn)> {
        self.conns.iter_mut().map(|(id, conn)| (*id, conn))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.conns.is_empty()
    }

    /// The connection over which the application's streams with `peer` are opened: a direct one if
    /// there is one, and the youngest, which is the least likely to be dead without anybody knowing.
    pub(crate) fn best(&mut self, peer: PeerId) -> Option<&mut Conn> {
        let id = self.direct(peer).or_else(|| self.youngest(peer, |_| true))?;
        self.conns.get_mut(&id)
    }

    /// The youngest direct connection with `peer`.
    pub(crate) fn direct(&self, peer: PeerId) -> Option<ConnId> {
        self.youngest(peer, |conn| conn.via.is_none())
    }

    fn youngest(&self, peer: PeerId, fit: impl Fn(&Conn) -> bool) -> Option<ConnId> {
        let open = |conn: &Conn| conn.peer == peer && !conn.closing && !conn.dial_back;
        let mut youngest = self.conns.iter().rev();
        youngest.find(|(_, conn)| open(conn) && fit(conn)).map(|(id, _)| *id)
    }

    /// A connection on which the application may open streams.
    pub(crate) fn usable(&mut self, conn: ConnId) -> Option<&mut Conn> {
        self.conns.get_mut(&conn).filter(|conn| !conn.closing && !conn.dial_back)
    }

    /// Forget a connection and every stream on it; `false` if it was not known.
    pub(crate) fn remove(&mut self, conn: ConnId) -> bool {
        let Some(removed) = self.conns.remove(&conn) else { return false };
        for stream in removed.streams {
            self.streams.remove(&stream);
        }
        true
    }

    /// Let a connection close. With `finish` core has no more to say on it; without, what core
    /// still answers within a short time is delivered first.
    pub(crate) fn close(&mut self, conn: ConnId, finish: bool) {
        let Some(conn) = self.conns.get_mut(&conn) else { return };
        conn.closing = true;
        conn.hold.orders.close_channel();
        let streams = conn.streams.iter().filter(|_| finish);
        for (_, orders) in streams.filter_map(|stream| self.streams.get(stream)) {
            orders.finish();
        }
    }

    /// Remember a stream of an open connection; gives the orders back if there is none.
    pub(crate) fn add_stream(
        &mut self,
        conn: ConnId,
        stream: StreamId,
        orders: Orders,
    ) -> Result<(), Orders> {
        match self.conns.get_mut(&conn) {
            Some(on) => {
                on.streams.insert(stream);
                self.streams.insert(stream, (conn, orders));
                Ok(())
            }
            None => Err(orders),
        }
    }

    pub(crate) fn has_stream(&self, stream: StreamId) -> bool {
        self.streams.contains_key(&stream)
    }

    pub(crate) fn stream(&self, stream: StreamId) -> Option<&Orders> {
        self.streams.get(&stream).map(|(_, orders)| orders)
    }

    /// The connection that carries a stream of core's.
    pub(crate) fn carrier(&self, stream: StreamId) -> Option<&Conn> {
        self.streams.get(&stream).and_then(|(conn, _)| self.conns.get(conn))
    }

    /// Forget a stream.
    pub(crate) fn remove_stream(&mut self, stream: StreamId) -> Option<Orders> {
        let (conn, orders) = self.streams.remove(&stream)?;
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.streams.remove(&stream);
        }
        Some(orders)
    }
}
