//! Sessions of applications that outlive connections: which one each of them uses.

use super::conn::EndId;
use super::{NodeId, World};
use portolan_core::{ConnId, PeerId};

/// A connection of a node to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// The connection.
    pub conn: ConnId,
    /// Whether it is a circuit.
    pub relayed: bool,
}

impl World {
    /// The connections of a node to a peer, as far as the node knows, in the order of their ids.
    pub fn lines(&self, NodeId(node): NodeId, peer: PeerId) -> Vec<Line> {
        let line = |(conn, end): (&ConnId, &EndId)| {
            let far = self.conns.get(&end.0)?.end(end.1.other())?;
            let relayed = self.end(*end)?.via.is_some();
            (far.peer == peer).then_some(Line { conn: *conn, relayed })
        };
        self.nodes[node].conns.iter().filter_map(line).collect()
    }

    /// The application of a node has a stream on this connection and on no other one. Neither side
    /// closes it for idleness.
    pub fn use_line(&mut self, NodeId(node): NodeId, conn: Option<ConnId>) {
        let end = conn.and_then(|conn| self.nodes[node].conns.get(&conn));
        match end {
            Some((number, _)) => self.in_use.insert(node, *number),
            None => self.in_use.remove(&node),
        };
    }

    /// Whether an application at either side has a stream on it.
    pub(super) fn is_in_use(&self, (number, _): EndId) -> bool {
        self.in_use.values().any(|used| *used == number)
    }
}
