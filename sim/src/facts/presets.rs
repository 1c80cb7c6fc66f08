//! The small worlds that drivers share, each with what one question needs.

use super::cast::Peer;
use super::fact::{Answer, Fact, Kind};
use super::shape::{Shape, home};
use portolan_core::{Addr, DialBackConfig, Duration, Family, ListenerId, Transport};
use std::net::{IpAddr, Ipv6Addr};

/// Where the NAT in front shows us.
fn outside(last: u8, port: u16, transport: Transport) -> Addr {
    Addr::new(IpAddr::from([99, 0, 0, last]), port, transport)
}

/// The address of the node's own in IPv6.
fn home6(transport: Transport) -> Addr {
    let ip = Ipv6Addr::new(0x2600, 0x99, 0, 0, 0, 0, 0, 7);
    Addr::new(ip.into(), 4001, transport)
}

fn at_home4(peer: Peer) -> (Peer, Addr) {
    (peer, peer.addr(Family::Ip4, Transport::Tcp))
}

fn at_home6(peer: Peer) -> (Peer, Addr) {
    (peer, peer.addr(Family::Ip6, Transport::Tcp))
}

fn seconds(spans: &[u64]) -> Vec<Duration> {
    spans.iter().map(|span| Duration::from_secs(*span)).collect()
}

impl Shape {
    /// Where peers see us, and what that betrays: six peers in five networks, three addresses.
    pub fn of_observers() -> Shape {
        let peers: Vec<Peer> = (1..=6).map(Peer::server).collect();
        let port = |port| outside(7, port, Transport::Tcp);
        // A global address of its own: what peers see may be that, or a port of some NAT.
        let own = port(4001);
        Shape {
            prologue: vec![
                Fact::Listen { listener: ListenerId(1), addr: own },
                Fact::Interfaces { ips: vec![own.ip] },
            ],
            listens: vec![own],
            kinds: vec![
                Kind::Connect,
                Kind::Disconnect,
                Kind::Identify,
                Kind::Push,
                Kind::Listen,
                Kind::CloseListener,
                Kind::Interfaces,
                Kind::Pass,
                Kind::Oversleep,
            ],
            interfaces: vec![vec![own.ip], vec![IpAddr::from([192, 168, 1, 9])]],
            dialled: peers.iter().copied().map(at_home4).collect(),
            callers: vec![at_home4(Peer::stranger(1))],
            conns_per_peer: 2,
            sees: vec![own, port(6001), port(6002), outside(8, 4001, Transport::Tcp)],
            spans: seconds(&[1, 601, 1_300, 2_500]),
            ..Shape::behind_a_nat()
        }
    }

    /// What servers say of our addresses, and what becomes of that: dual-stack servers, two
    /// networks of ours, strangers, sleeps.
    pub fn of_servers() -> Shape {
        let (tcp4, tcp6) = (home(Transport::Tcp), home6(Transport::Tcp));
        let listen = |number, addr| Fact::Listen { listener: ListenerId(number), addr };
        let ips = vec![tcp4.ip, tcp6.ip];
        let servers: Vec<Peer> = (1..=4).map(Peer::server).collect();
        let dialled = servers.iter().copied().flat_map(|peer| [at_home4(peer), at_home6(peer)]);
        Shape {
            prologue: vec![
                listen(1, tcp4),
                listen(2, tcp6),
                listen(3, home(Transport::Quic)),
                Fact::Interfaces { ips: ips.clone() },
            ],
            kinds: vec![
                Kind::Connect,
                Kind::Disconnect,
                Kind::Identify,
                Kind::Push,
                Kind::Answer,
                Kind::DataRequest,
                Kind::DialBack,
                Kind::OddDialBack,
                Kind::DialBackOn,
                Kind::Failed,
                Kind::Ended,
                Kind::Listen,
                Kind::CloseListener,
                Kind::Interfaces,
                Kind::Contacted,
                Kind::Reported,
                Kind::Pass,
                Kind::Oversleep,
                Kind::Resume,
            ],
            listens: vec![tcp4, tcp6, home(Transport::Quic)],
            interfaces: vec![ips, vec![tcp4.ip]],
            dialled: dialled.collect(),
            callers: vec![at_home4(Peer::stranger(1)), at_home4(Peer::server(5))],
            sees: vec![outside(7, 4001, Transport::Tcp), tcp6],
            clients_too: true,
            spans: seconds(&[1, 20, 65, 250, 601]),
            sleeps: seconds(&[5, 60, 700]),
            dial_backs_stay: true,
            ..Shape::behind_a_nat()
        }
    }

    /// Whom we serve: requesters in three networks, small limits, wishes of every kind.
    pub fn of_requesters() -> Shape {
        let open = Addr::tcp(IpAddr::from([44, 9, 9, 9]), 4001);
        let mut limits = DialBackConfig::default();
        limits.global_per_min = 10;
        limits.peer_per_min = 4;
        limits.prefix_per_min = 5;
        limits.target_per_min = 2;
        limits.target_prefix_per_min = 3;
        limits.dials_max = 2;
        let mut shape = Shape::behind_a_nat();
        shape.settings.dial_back = Some(limits);
        let clients: Vec<Peer> = (1..=4).map(Peer::client).collect();
        let of = |client: usize| Peer::client(client).addr(Family::Ip4, Transport::Tcp);
        let private = Addr::tcp(IpAddr::from([10, 0, 0, 1]), 4001);
        Shape {
            prologue: vec![
                Fact::Listen { listener: ListenerId(1), addr: open },
                Fact::Interfaces { ips: vec![open.ip] },
            ],
            kinds: vec![
                Kind::Connect,
                Kind::Disconnect,
                Kind::Identify,
                Kind::Request,
                Kind::Data,
                Kind::Dialled,
                Kind::DialFailed,
                Kind::Accept,
                Kind::Ended,
                Kind::Pass,
            ],
            listens: vec![open],
            interfaces: vec![vec![open.ip]],
            callers: clients.into_iter().map(at_home4).collect(),
            wishes: vec![
                vec![of(1)],
                vec![of(2)],
                vec![of(3)],
                vec![private, of(4)],
                vec![private],
                vec![open],
                vec![home6(Transport::Tcp)],
            ],
            spans: seconds(&[1, 5, 15]),
            ..shape
        }
    }

    /// So few servers and so few addresses that every order of facts can be tried: all are dialled
    /// and known from the start.
    pub fn of_few(servers: usize, addrs: usize) -> Shape {
        let mut shape = Shape::behind_a_nat();
        let local = home(Transport::Tcp);
        let sees = outside(7, 4001, Transport::Tcp);
        if addrs > 1 {
            shape.settings.external.push(outside(8, 4001, Transport::Tcp));
        }
        for number in 1..=servers {
            let (peer, remote) = at_home4(Peer::server(number));
            let conn = portolan_core::ConnId(number as u64);
            let (side, rtt) = (portolan_core::Side::Outbound, Some(Duration::from_millis(20)));
            let relayed = false;
            let facts = Fact::Connect { conn, peer, side, remote, local, rtt, relayed };
            let known = Fact::Identify { conn, observed: Some(sees), server: true };
            shape.prologue.extend([facts, known]);
            shape.dialled.push((peer, remote));
        }
        Shape {
            kinds: vec![
                Kind::Answer,
                Kind::DialBack,
                Kind::OddDialBack,
                Kind::Disconnect,
                Kind::Connect,
                Kind::Identify,
                Kind::CloseListener,
                Kind::Listen,
                Kind::Pass,
            ],
            sees: vec![sees],
            answers: vec![
                Answer::Ok,
                Answer::DialError,
                Answer::StrangerFailed,
                Answer::DialBackError,
                Answer::Refused,
                Answer::Rejected,
            ],
            ..shape
        }
    }

    /// A bit of everything, for long walks.
    pub fn of_everything() -> Shape {
        let mut shape = Shape::of_servers();
        shape.settings.ping = Some(Duration::from_secs(25));
        shape.settings.dial_back = Some(DialBackConfig::default());
        let all = [Kind::AskIdentify, Kind::Echo, Kind::Request, Kind::Data, Kind::Dialled];
        shape.kinds.extend(all);
        shape.kinds.extend([Kind::DialFailed, Kind::Accept]);
        shape.callers.extend([1, 2, 3].map(Peer::client).map(at_home4));
        shape.wishes = [1, 3].map(|one| vec![at_home4(Peer::client(one)).1]).to_vec();
        shape.sees.push(outside(7, 6001, Transport::Tcp));
        shape.conns_per_peer = 2;
        shape.unmeasured = true;
        shape
    }
}
