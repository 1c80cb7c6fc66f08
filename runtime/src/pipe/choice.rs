//! Which connection carries a session.

use crate::driver::ConnectionInfo;
use portolan_core::{ConnId, PeerId};

/// The connections with `peer` that may carry a session in the place of `present`, best first:
/// those that are better than it, or all where it is gone or about to go.
pub(super) fn ways(
    connections: &[ConnectionInfo],
    peer: PeerId,
    present: Option<ConnId>,
) -> Vec<ConnId> {
    let usable = |conn: &&ConnectionInfo| conn.peer == peer && !conn.closing;
    let mut ways: Vec<&ConnectionInfo> = connections.iter().filter(usable).collect();
    ways.sort_unstable_by_key(|conn| std::cmp::Reverse(rank(conn)));
    let better = ways.iter().take_while(|way| Some(way.conn) != present);
    better.map(|way| way.conn).collect()
}

/// How good a connection is; greater is better. One that runs through no relay, and of the others
/// the newest, which is the least likely to be dead without anybody knowing.
fn rank(conn: &ConnectionInfo) -> impl Ord + use<> {
    (!conn.relayed, conn.conn)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity;
    use portolan_core::{Addr, Side};
    use std::net::Ipv4Addr;

    #[test]
    fn the_newest_that_stays_is_the_best() {
        let [peer, other] = [0; 2].map(|_| identity::generate().public().to_peer_id());
        let conn = |id, peer, closing| {
            let at = Addr::tcp(Ipv4Addr::LOCALHOST.into(), 1);
            ConnectionInfo {
                conn: ConnId(id),
                peer,
                side: Side::Outbound,
                local: at,
                remote: at,
                relayed: false,
                relay: None,
                limit: None,
                closing,
            }
        };
        let all = [conn(1, peer, false), conn(2, peer, true), conn(3, other, false)];
        let all = [&all[..], &[conn(4, peer, false)]].concat();
        assert_eq!(ways(&all, peer, None), [ConnId(4), ConnId(1)]);
        assert_eq!(ways(&all, peer, Some(ConnId(1))), [ConnId(4)]);
        assert_eq!(ways(&all, peer, Some(ConnId(4))), []);
        // It is about to close: anything else is better.
        assert_eq!(ways(&all, peer, Some(ConnId(2))), [ConnId(4), ConnId(1)]);
        // A circuit is worse than whatever is direct, however new it is.
        let circuit = ConnectionInfo { relayed: true, ..conn(5, peer, false) };
        let all = [&all[..], &[circuit]].concat();
        assert_eq!(ways(&all, peer, None), [ConnId(4), ConnId(1), ConnId(5)]);
        assert_eq!(ways(&all, peer, Some(ConnId(5))), [ConnId(4), ConnId(1)]);
    }
}
