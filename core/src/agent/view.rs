//! What the service sees of the rooms.

use crate::advertise::Advertise;
use crate::local::Local;
use crate::peers::Peers;
use crate::reachability::Reachability;
use crate::service::{Caller, View};
use crate::{Addr, CircuitAddr, Class, ConnId, Duration, Family, PeerId, Protocol, ip_scope};
use alloc::vec::Vec;
use core::net::IpAddr;

/// The rooms as the service sees them.
pub(super) struct Rooms<'a> {
    local: &'a Local,
    peers: &'a Peers,
    reachability: &'a Reachability,
    advertise: &'a Advertise,
}

pub(super) fn view<'a>(
    local: &'a Local,
    peers: &'a Peers,
    reachability: &'a Reachability,
    advertise: &'a Advertise,
) -> Rooms<'a> {
    Rooms { local, peers, reachability, advertise }
}

impl View for Rooms<'_> {
    fn caller(&self, conn: ConnId) -> Option<Caller> {
        let connection = self.peers.get(conn)?;
        Some(Caller {
            peer: connection.peer,
            local: connection.local,
            remote: connection.remote,
            relayed: connection.relayed,
            rtt: connection.rtt,
        })
    }

    fn listens_on(&self, addr: Addr) -> bool {
        self.local.listens_on(addr)
    }

    fn is_own_ip(&self, ip: IpAddr) -> bool {
        self.local.is_own_ip(ip)
    }

    fn can_dial(&self, addr: Addr) -> bool {
        self.local.can_dial(Family::of(addr.ip), ip_scope(addr.ip))
    }

    fn heard(&self, class: Class) -> bool {
        self.peers.heard(class)
    }

    fn is_introduced(&self, peer: PeerId) -> bool {
        self.peers.source(peer).is_some()
    }

    fn advertised(&self, to: &Caller) -> Vec<Addr> {
        if to.relayed {
            return self.proven();
        }
        self.advertise.told_to(to.remote, self.local)
    }

    fn proven(&self) -> Vec<Addr> {
        self.advertise.told().collect()
    }

    fn circuits(&self) -> Vec<CircuitAddr> {
        self.advertise.circuits().to_vec()
    }

    fn direct(&self, peer: PeerId) -> Vec<ConnId> {
        let of_peer = self.peers.iter().filter(|(_, one)| one.peer == peer && !one.relayed);
        let mut all: Vec<_> = of_peer
            .map(|(conn, one)| ((one.is_silent(), one.rtt.unwrap_or(Duration::MAX)), conn))
            .collect();
        all.sort();
        all.into_iter().map(|(_, conn)| conn).collect()
    }

    fn may_serve(&self) -> bool {
        self.reachability.may_serve()
    }

    fn pushable(&self) -> Vec<ConnId> {
        let takes = self
            .peers
            .iter()
            .filter(|(_, connection)| connection.protocols.contains(Protocol::IdentifyPush));
        takes.map(|(conn, _)| conn).collect()
    }

    fn revision(&self) -> u64 {
        // Each part only ever grows, so that their sum changes whenever one of them does.
        self.advertise.revision() + self.peers.revision() + self.local.revision()
    }
}
