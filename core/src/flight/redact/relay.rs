//! Events about relays with others in them, and how relays are used and offered.

use super::others::Retell;
use super::steps::addr;
use crate::{DistantServer, RelayConfig, RelayEvent, RelayPeer, RelayServerConfig};

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
    let relays = config.relays.iter().map(|one| relay(one, by)).collect();
    let distant = config.distant_servers.iter().map(|DistantServer { peer, relay: behind }| {
        DistantServer { peer: by.peer(*peer), relay: relay(behind, by) }
    });
    let distant_servers = distant.collect();
    RelayConfig { relays, distant_servers, ..config.clone() }
}

fn relay(RelayPeer { peer, addrs }: &RelayPeer, by: &mut impl Retell) -> RelayPeer {
    let addrs = addrs.iter().map(|one| addr(*one, by)).collect();
    RelayPeer { peer: by.peer(*peer), addrs }
}

/// How we relay for others.
pub(super) fn offered(config: &RelayServerConfig, by: &mut impl Retell) -> RelayServerConfig {
    let allow = config.allow.as_ref();
    RelayServerConfig {
        allow: allow.map(|all| all.iter().map(|peer| by.peer(*peer)).collect()),
        ..config.clone()
    }
}
