//! What is true: told by the network itself, and by nothing that core computes.
//!
//! A stranger can connect to an address if the gates of the network would let his first packet
//! through to a listening socket of the node, right now. What a verdict may say is measured against
//! that, and what no client can rule out is named:
//!
//! - *A router knows him.* Where a router keeps one set of contacted IPs, or takes all behind an
//!   inner one for one host, somebody to whom a neighbour wrote gets in, and the node cannot know
//!   that it was a neighbour; so does, on every port, whoever was answered on one that is forwarded,
//!   be it with a refusal.
//! - *Dial data has a budget.* Who asks for more than is left of it goes without, so that strangers
//!   who would have to be paid may stay untested.
//! - *A router is full.* While it has no room for new flows nobody gets in who did before.
//! - *A nonce was handed on.* A server that delivers its nonce through another, truly open address
//!   of the same socket makes the address look open that it was asked about.

use super::conn::Phase;
use super::{Node, NodeId, World};
use crate::net::Room;
use portolan_core::config::PROOF_LIFETIME;
use portolan_core::{Addr, Class, Family};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IP that nobody has and nobody ever calls: who asks from there is a stranger to all.
pub const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(45, 255, 255, 1));
/// The same over IPv6.
const STRANGER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2600, 0xffff, 0, 0, 0, 0, 0, 1));
/// The port that he asks from.
const STRANGERS_PORT: u16 = 50_000;

/// What is true of one address of a node, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truth {
    /// Whether a stranger to all gets in.
    pub strangers: bool,
    /// How many servers in reach that tell the truth would get in with a dial-back.
    pub servers_in: usize,
    /// How many of those would come from an IP that the node never called.
    pub cold_in: usize,
    /// How many servers in reach would get in, whatever they tell.
    pub anybody_in: usize,
    /// Whether one of those would come from an IP that the node never called.
    pub anybody_cold: bool,
    /// How many networks of servers in reach tell the truth and would not get in.
    pub servers_out: usize,
}

/// What a node should come to know of a class once the world stands still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The address that most is true of.
    pub best: Option<(Addr, Truth)>,
    /// How many servers in reach tell the truth and can test the class.
    pub servers: usize,
}

impl World {
    /// What is true of an address of a node now.
    pub fn truth(&self, NodeId(node): NodeId, addr: Addr) -> Truth {
        let strangers = self.strangers_get_in(node, addr, Room::AsItIs);
        let mut truth = Truth {
            strangers,
            servers_in: 0,
            cold_in: 0,
            anybody_in: 0,
            anybody_cold: false,
            servers_out: 0,
        };
        for server in self.servers(node) {
            let Some(from) = self.dials_back_from(server, node, addr) else { continue };
            let gets_in = self.gets_in(node, from, addr, Room::AsItIs);
            let cold = !self.nodes[node].called.contains(&from.ip);
            truth.anybody_in += usize::from(gets_in);
            truth.anybody_cold |= gets_in && cold;
            // Whom a router knows gets in for as long as it does.
            let known = cold && !strangers && self.knows_of(node, from);
            if !self.is_helpful(server, addr.class()) || gets_in && known {
                continue;
            }
            if gets_in {
                truth.servers_in += 1;
                truth.cold_in += usize::from(cold);
            } else {
                truth.servers_out += 1;
            }
        }
        truth
    }

    /// What a node should come to know of a class, if nothing changes any more.
    pub fn expected(&self, id: NodeId, class: Class) -> Expected {
        let addrs = self.discoverable(id, class);
        let judged = addrs.into_iter().map(|addr| (addr, self.truth(id, addr)));
        let best = judged.max_by_key(|(_, truth)| {
            (truth.servers_in > 0, truth.cold_in, truth.strangers, truth.servers_in)
        });
        let NodeId(node) = id;
        let probe = best.map(|(addr, _)| addr).or_else(|| {
            let port = self.nodes[node].port_of(class)?;
            let stranger = if class.family == Family::Ip4 { STRANGER } else { STRANGER6 };
            Some(Addr { ip: stranger, port, transport: class.transport })
        });
        let servers = probe.map_or(0, |addr| {
            let able = |server: &usize| self.dials_back_from(*server, node, addr).is_some();
            let helpful = |server: &usize| self.is_helpful(*server, class);
            self.servers(node).filter(helpful).filter(able).count()
        });
        Expected { best, servers }
    }

    /// Whether a router of a node had no room of late for somebody whom it would have let in: then
    /// one gets in and the next does not, and any verdict is as true as the last dial-back.
    pub fn was_full(&self, NodeId(node): NodeId, class: Class) -> bool {
        let full_at = self.fabric.full_at(self.nodes[node].host, class.family);
        full_at.is_some_and(|at| self.now < at + PROOF_LIFETIME)
    }

    /// The addresses of a class that a node can know of without being told: where servers in reach
    /// see it, where its router lists it, its own global ones, and what they make together with its
    /// listen ports.
    pub fn discoverable(&self, NodeId(node): NodeId, class: Class) -> BTreeSet<Addr> {
        let it = &self.nodes[node];
        let mut found = BTreeSet::new();
        let Some(port) = it.port_of(class) else { return found };
        let ips = self.fabric.ips(it.host);
        let global = |ip: &&IpAddr| {
            Family::of(**ip) == class.family
                && portolan_core::ip_scope(**ip) == portolan_core::IpScope::Global
        };
        let is_global =
            |addr: &Addr| portolan_core::ip_scope(addr.ip) == portolan_core::IpScope::Global;
        let held = self.held(NodeId(node)).into_iter().map(|(external, _)| external);
        found.extend(held.filter(|addr| addr.class() == class && is_global(addr)));
        found.extend(ips.iter().filter(global).map(|ip| Addr::new(*ip, port, class.transport)));
        for (conn, role) in it.conns.values() {
            let Some(conn) = self.conns.get(conn) else { continue };
            // Those who came to us name what they dialled.
            if *role != super::conn::Role::Dialer {
                continue;
            }
            let far = conn.listener.as_ref();
            let far = far.filter(|end| end.phase == Phase::Up && end.via.is_none());
            let Some(far) = far else { continue };
            let seen = far.remote;
            if Family::of(seen.ip) != class.family || self.nodes[far.node].vice.is_some() {
                continue;
            }
            found.insert(Addr::new(seen.ip, port, class.transport));
            if seen.transport == class.transport && conn.dialer.local.port == port {
                found.insert(seen);
            }
        }
        found
    }

    /// Servers that a node is connected to, each once.
    fn servers(&self, node: usize) -> impl Iterator<Item = usize> + '_ {
        let peers: BTreeSet<usize> = self.nodes[node]
            .conns
            .values()
            .filter_map(|(conn, role)| {
                let end = self.conns.get(conn)?.end(role.other())?;
                (end.phase == Phase::Up && end.via.is_none()).then_some(end.node)
            })
            .collect();
        peers.into_iter().filter(|peer| {
            let it = &self.nodes[*peer];
            it.serves().is_some() && it.is_awake()
        })
    }

    /// Whether a server always tells the truth.
    fn is_honest(&self, server: usize) -> bool {
        self.nodes[server].vice.is_none_or(|vice| vice.is_honest())
    }

    /// Whether a server tells the truth of a class whatever it is: where it never was connected to
    /// anybody it says nothing of a dial that failed, and is not asked again for a while.
    fn is_helpful(&self, server: usize, class: Class) -> bool {
        self.is_honest(server) && self.nodes[server].heard.contains(&class)
    }

    /// Where a dial-back of this server to an address would come from, if it can dial it.
    fn dials_back_from(&self, server: usize, node: usize, addr: Addr) -> Option<Addr> {
        let it = &self.nodes[server];
        let ips = self.fabric.ips(it.host);
        let family = |ip: &&IpAddr| Family::of(**ip) == Family::of(addr.ip);
        // From where it has met the requester nothing new is learnt, so that another IP is best.
        let met = self.nodes[node].conns.values().filter_map(|(conn, role)| {
            let end = self.conns.get(conn)?.end(role.other())?;
            (end.node == server).then_some(end.local.ip)
        });
        let met: BTreeSet<IpAddr> = met.collect();
        let sources = it.serves()?;
        let source = sources.iter().filter(family).find(|ip| !met.contains(ip));
        let ip = source.or_else(|| ips.iter().find(family))?;
        Some(Addr { ip: *ip, port: STRANGERS_PORT, ..addr })
    }

    fn gets_in(&self, node: usize, from: Addr, addr: Addr, room: Room) -> bool {
        let reached = self.fabric.would_reach(self.now, from, addr, room);
        reached.is_some_and(|(host, at)| {
            host == self.nodes[node].host && self.nodes[node].listens_at(at)
        })
    }

    /// Somebody came in on an address of a node: what that says is written down.
    pub(super) fn note_entry(&mut self, node: usize, addr: Addr, from: Addr) {
        // He may have taken the last place that a router had.
        let stranger = self.strangers_get_in(node, addr, Room::Enough);
        let now = self.now;
        let excused = self.knows_of(node, from);
        let entered = self.nodes[node].entered.entry(addr).or_default();
        entered.last = now;
        if stranger {
            entered.open = Some(now);
        }
        if excused {
            entered.excused = Some(now);
        }
    }

    /// Whether a router may know somebody whom the node never called.
    fn knows_of(&self, node: usize, from: Addr) -> bool {
        let it = &self.nodes[node];
        let home = self.fabric.router_of(it.host);
        let near = |other: &&Node| home.is_some() && self.fabric.router_of(other.host) == home;
        let wrote =
            |other: &Node| other.called.contains(&from.ip) || other.answered.contains(&from.ip);
        !it.called.contains(&from.ip)
            && (self.fabric.knows(self.now, it.host, from)
                || self.nodes.iter().filter(near).any(wrote))
    }

    fn strangers_get_in(&self, node: usize, addr: Addr, room: Room) -> bool {
        let stranger = match Family::of(addr.ip) {
            Family::Ip4 => STRANGER,
            Family::Ip6 => STRANGER6,
        };
        self.gets_in(node, Addr { ip: stranger, port: STRANGERS_PORT, ..addr }, addr, room)
    }
}
