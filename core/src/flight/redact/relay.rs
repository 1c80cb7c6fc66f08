//! Events about relays with others in them, and how relays are used and offered.

use super::others::Retell;
use super::steps::addr;
use crate::{DistantServer, RelayConfig, RelayEvent, RelayPeer, RelayServerConfig};
use alloc::vec::Vec;

/// An event.
pub(super) fn event(event: &RelayEvent, by: &mut impl Retell) -> RelayEvent {
    match event {
        RelayEvent::CircuitWanted { circuit, conn, peer } => {
            RelayEvent::CircuitWanted { circuit: *circuit, conn: *conn, peer: by.peer(*peer) }
        }
        RelayEvent::ConnectFailed { peer, addr: dialled, reason } => RelayEvent::ConnectFailed {
            peer: by.peer(*peer),
            addr: addr(*dialled, by),
            reason: *reason,
        },
        RelayEvent::CircuitForgotten { .. }
        | RelayEvent::UpgradeFailed { .. }
        | RelayEvent::BridgeEnded { .. }
        | RelayEvent::Draining => event.clone(),
    }
}

/// How relays are used: they stay in their places, and so do their addresses.
pub(super) fn used(config: &RelayConfig, by: &mut impl Retell) -> RelayConfig {
    let mut relay = |RelayPeer { peer, addrs }: &RelayPeer| RelayPeer {
        peer: by.peer(*peer),
        addrs: addrs.iter().map(|one| addr(*one, by)).collect(),
    };
    let relays = config.relays.iter().map(&mut relay).collect();
    let relays_of_servers: Vec<RelayPeer> =
        config.distant_servers.iter().map(|one| relay(&one.relay)).collect();
    let servers = config.distant_servers.iter().zip(relays_of_servers);
    let servers = servers.map(|(one, relay)| DistantServer { peer: by.peer(one.peer), relay });
    RelayConfig { relays, distant_servers: servers.collect(), ..config.clone() }
}

/// How we relay for others.
pub(super) fn offered(config: &RelayServerConfig, by: &mut impl Retell) -> RelayServerConfig {
    let allow = config.allow.as_ref();
    RelayServerConfig {
        allow: allow.map(|all| all.iter().map(|peer| by.peer(*peer)).collect()),
        ..config.clone()
    }
}
