//! How much of what a node may do it does, and what it turned away.

use super::table::Refusal;
use portolan_core::{Agent, RelayLoad};

/// How busy a node is, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Load {
    /// Connections with peers.
    pub connections: usize,
    /// Dial-backs for others whose outcome is not known yet.
    pub dial_backs: usize,
    /// The relay service; none where there is none.
    pub relay: Option<RelayLoad>,
    /// What was turned away since the start.
    pub dropped: Dropped,
}

/// Connections that were closed right after their handshakes, by the limit that they ran into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dropped {
    /// [`Limits::connections_max`](super::Limits::connections_max)
    pub connections: u64,
    /// [`Limits::per_peer_max`](super::Limits::per_peer_max)
    pub per_peer: u64,
    /// [`Limits::inbound_per_source_max`](super::Limits::inbound_per_source_max), and that of circuits.
    pub per_source: u64,
}

impl Dropped {
    pub(super) fn count(&mut self, refusal: &Refusal) {
        let counter = match refusal {
            Refusal::Total => &mut self.connections,
            Refusal::Peer => &mut self.per_peer,
            Refusal::Source => &mut self.per_source,
        };
        *counter += 1;
    }
}

impl Load {
    pub(super) fn of(agent: &Agent, connections: usize, dropped: Dropped) -> Load {
        let (dial_backs, relay) = (agent.dial_backs_in_flight(), agent.relay_load());
        Load { connections, dial_backs, relay, dropped }
    }
}
