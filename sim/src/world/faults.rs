//! What befalls a world from outside: routers restart, networks change, machines sleep and die.

use super::conn::Purpose;
use super::{NodeId, Occurrence, World};
use crate::net::{HostId, RouterId};
use portolan_core::{Addr, Duration, Event, ListenerId};
use std::net::IpAddr;

/// How long a plain stranger tries.
const STRANGER_TRIES: Duration = Duration::from_secs(5);

impl World {
    /// A node opens a listening socket.
    pub fn listen(&mut self, NodeId(node): NodeId, addr: Addr) -> ListenerId {
        let it = &mut self.nodes[node];
        it.next_listener += 1;
        let listener = ListenerId(it.next_listener);
        it.listeners.insert(listener, addr);
        self.feed(node, Event::ListenerOpened { listener, addr });
        self.flush_all();
        listener
    }

    /// A node closes a listening socket; connections stay.
    pub fn close_listener(&mut self, NodeId(node): NodeId, listener: ListenerId) {
        if self.nodes[node].listeners.remove(&listener).is_some() {
            self.feed(node, Event::ListenerClosed { listener });
            self.flush_all();
        }
    }

    /// The listening sockets of a node.
    pub fn listeners(&self, NodeId(node): NodeId) -> Vec<(ListenerId, Addr)> {
        self.nodes[node].listeners.iter().map(|(id, addr)| (*id, *addr)).collect()
    }

    /// The addresses of a host change, and its node is told.
    pub fn readdress(&mut self, host: HostId, ips: &[IpAddr]) {
        self.fabric.set_ips(host, ips);
        if let Some(node) = self.residents.get(&host).copied() {
            // Connections from addresses that are gone are of no more use, and time out.
            self.feed(node, Event::InterfacesChanged { ips: ips.to_vec() });
            self.joins(node);
            self.flush_all();
        }
    }

    /// A router restarts.
    pub fn reboot(&mut self, router: RouterId) {
        self.fabric.reboot(router);
    }

    /// A node dies without a word: its connections are gone, on its side.
    pub fn kill(&mut self, NodeId(node): NodeId) {
        self.crash(node);
    }

    /// Every connection of a node is cut, and its peers find out by themselves.
    pub fn cut_off(&mut self, NodeId(node): NodeId) {
        let ends: Vec<_> = self.nodes[node].conns.values().copied().collect();
        for end in ends {
            self.broken(end);
        }
        self.flush_all();
    }

    /// A machine is suspended for a while.
    pub fn suspend(&mut self, NodeId(node): NodeId, slept: Duration) {
        if self.nodes[node].is_awake() {
            self.nodes[node].asleep_since = Some(self.now);
            self.later(slept, Occurrence::Resumes { node });
        }
    }

    pub(super) fn resumes(&mut self, node: usize) {
        let Some(since) = self.nodes[node].asleep_since.take() else { return };
        let slept = self.now.since(since);
        self.watch.slept(NodeId(node), slept);
        self.feed(node, Event::Resumed { slept });
        for event in std::mem::take(&mut self.nodes[node].deferred) {
            self.feed(node, event);
        }
        for target in 0..self.nodes[node].targets.len() {
            self.later(Duration::ZERO, Occurrence::Redials { node, target });
        }
        self.nodes[node].wake_at = None;
        self.later(Duration::ZERO, Occurrence::Wakes { node });
    }

    /// A node dials an address like anybody who was told of it, and hangs up after a while.
    pub fn visit(&mut self, NodeId(from): NodeId, addr: Addr) {
        self.dial(from, addr, Purpose::Stranger, None, STRANGER_TRIES);
        self.flush_all();
    }

    /// The network heals, and every machine runs: from now on nothing happens from outside.
    pub fn heal(&mut self) {
        self.fabric.heal();
        for node in 0..self.nodes.len() {
            self.resumes(node);
        }
        self.flush_all();
    }
}
