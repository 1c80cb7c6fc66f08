//! Which connections are worth what: pings, and not being closed for idleness.

use crate::peers::{Peers, Worth};
use crate::probe::Probe;
use crate::punch::Punching;
use crate::relay::Relays;
use crate::{ConnId, Instant, PeerId, Protocol};

/// What a ping on a connection is worth to the rooms that may want it.
pub(super) fn worth(
    now: Instant,
    (servers, relay, punch): (&Probe, &Relays, &Punching),
    conn: ConnId,
    peer: PeerId,
) -> Worth {
    match punch.worth(conn) {
        Some(worth) => worth,
        None if relay.is_vital(conn) => Worth::Vital,
        None if servers.wants(now, peer) || servers.hearsay().keeps(conn) => Worth::Kept,
        None => Worth::Nothing,
    }
}

/// Whether servers that may dial us back, or whose hearsay counts, are on this connection, or who is
/// has not been said yet.
pub(super) fn keeps(peers: &Peers, probe: &Probe, now: Instant, conn: ConnId) -> bool {
    peers.get(conn).is_some_and(|connection| {
        let server = connection.protocols.contains(Protocol::DialRequest);
        let wanted = server && probe.wants(now, connection.peer);
        let hears = probe.hearsay().keeps(conn);
        connection.is_asking() || (wanted || hears) && !connection.is_silent()
    })
}
