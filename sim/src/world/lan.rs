//! Networks whose router maps ports: what nodes order of it, and what they hear.
//!
//! ```text
//!  Action::Mapping ─► the node's sockets ─► 1 ms, perhaps lost ─► router ─► table ─► gates
//!  Event::Mapping  ◄─ the node's sockets ◄─ 1 ms, perhaps lost ◄────┘
//! ```
//!
//! Whatever the router really forwards, and nothing else, its gates let in: what it lists, and what
//! core believes of it, counts for nothing.

use super::{NodeId, Occurrence, World};
use crate::dice::Dice;
use crate::net::RouterId;
use crate::router::host::{self, INTERFACE, LAN_LATENCY};
use crate::router::{HoleKey, HttpReply, Mood, Output, PortKey, Profile, Reboot, Router};
use crate::watch::Violation;
use bytes::Bytes;
use portolan_core::{
    Addr, Agent, Channel, ConfigError, Event, Family, Fetch, Gateway, Instant, IpScope,
    MappingAction, MappingConfig, MappingEvent, ip_scope,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A router's addresses on its LAN.
const ROUTER: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(192, 168, 1, 1), Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));

/// A network whose router maps ports.
#[derive(Clone, Debug)]
pub(super) struct Lan {
    router: Router,
    dice: Dice,
    /// Datagrams that are lost, in a hundred.
    loss_percent: u32,
    /// When its next turn is on the heap.
    turn_at: Option<Instant>,
}

/// Something that is under way in such a network.
#[derive(Clone, Debug)]
pub(super) enum Underway {
    /// A datagram of a node's.
    Leaves { from: SocketAddr, to: SocketAddr, body: Bytes },
    /// A request of a node's.
    Asks { node: usize, fetch: Fetch },
    /// A fact for a node, if the socket is still open.
    Tells { node: usize, channel: Channel, event: MappingEvent },
    /// What becomes of a request, if the process still runs that made it.
    Answers { node: usize, run: u32, event: MappingEvent },
    /// Something happens to the router by itself.
    Turn,
}

impl World {
    /// Have a router map ports for the nodes behind it, all of which ask for what they listen on.
    /// They must not have started.
    ///
    /// # Errors
    /// When the configuration is one that no core takes.
    pub fn map_ports(
        &mut self,
        router: RouterId,
        profile: Profile,
        config: &MappingConfig,
    ) -> Result<(), ConfigError> {
        let mut dice = self.dice.fork();
        let mut it = Router::new(profile, ROUTER, self.now, dice.fork_seed());
        if !it.wan().is_unspecified()
            && let Some(IpAddr::V4(outside)) = self.fabric.gate(router, Family::Ip4).outside()
        {
            it.set_wan(self.now, outside, false, false);
        }
        self.lans.insert(router, Lan { router: it, dice, loss_percent: 0, turn_at: None });
        for node in 0..self.nodes.len() {
            if self.fabric.router_of(self.nodes[node].host) == Some(router) {
                self.nodes[node].core.mapping = Some(config.clone());
                self.rebuild(node)?;
            }
        }
        self.settle_lan(router);
        Ok(())
    }

    /// The router of such a network.
    ///
    /// # Panics
    /// When it maps no ports.
    pub fn mapper(&self, router: RouterId) -> &Router {
        &self.lans[&router].router
    }

    /// Change something about the router of such a network; its gates follow.
    ///
    /// # Panics
    /// When it maps no ports.
    pub fn change_mapper(&mut self, router: RouterId, change: impl FnOnce(&mut Router)) {
        change(&mut self.lan_mut(router).router);
        self.settle_lan(router);
    }

    /// Datagrams that such a network loses, in a hundred.
    pub fn set_lan_loss(&mut self, router: RouterId, percent: u32) {
        self.lan_mut(router).loss_percent = percent;
    }

    /// Such a router is so disposed, for a while or for good.
    pub fn set_mood(&mut self, router: RouterId, mood: Mood, until: Option<Instant>) {
        self.remark(&format!("the router: {mood:?}"));
        self.change_mapper(router, |it| it.set_mood(mood, until));
    }

    /// Such a router starts anew. Nothing passes it meanwhile, and its gates forget.
    pub fn restart(&mut self, router: RouterId, reboot: Reboot) {
        self.remark(&format!("the router: {reboot:?}"));
        self.fabric.reboot(router);
        let now = self.now;
        let outputs = self.lan_mut(router).router.reboot(now, reboot);
        self.spread(router, outputs);
        self.settle_lan(router);
    }

    /// Such a router gets another external address, and forgets its flows; mappings move along.
    pub fn move_wan(&mut self, router: RouterId, wan: Ipv4Addr, (resets, announces): (bool, bool)) {
        self.remark(&format!("the router moves to {wan}"));
        self.fabric.renumber(router, wan.into());
        let now = self.now;
        self.change_mapper(router, |it| it.set_wan(now, wan, resets, announces));
    }

    /// What such a router holds for a node.
    pub fn held(&self, id: NodeId) -> Vec<(Addr, Addr)> {
        let NodeId(node) = id;
        let Some(lan) = self.lan_of(node).and_then(|router| self.lans.get(&router)) else {
            return Vec::new();
        };
        let ips = self.fabric.ips(self.nodes[node].host);
        let table = lan.router.table();
        let wan = lan.router.wan();
        let ports = table.ports.iter().filter(|(_, held)| held.is_alive(self.now));
        let ports = ports.map(|((transport, port), held)| {
            (Addr::new(wan.into(), *port, *transport), inside(held.internal, *transport))
        });
        let holes = table.holes.iter().filter(|(_, held)| held.is_alive(self.now));
        let holes =
            holes.map(|((transport, at, _), _)| (inside(*at, *transport), inside(*at, *transport)));
        ports.chain(holes).filter(|(_, inside)| ips.contains(&inside.ip)).collect()
    }

    /// A node is about to end in an orderly way: it gives back what it was granted.
    pub fn closes(&mut self, NodeId(node): NodeId) {
        self.feed(node, Event::Mapping(MappingEvent::Closing));
        self.flush_all();
    }

    /// The process of a node that was killed starts again, with what it stored.
    ///
    /// # Panics
    /// When it runs.
    pub fn start_again(&mut self, id: NodeId) {
        let NodeId(node) = id;
        assert!(!self.nodes[node].running, "a process runs already");
        self.rebuild(node).expect("a configuration that was taken before");
        self.nodes[node].run += 1;
        self.nodes[node].sockets.vanish();
        self.watch.reborn(id);
        self.start(id);
    }

    /// A node is told of its gateways, where they map ports; before that, of what it stored.
    pub(super) fn joins(&mut self, node: usize) {
        if self.lan_of(node).is_none() {
            return;
        }
        let ips = self.fabric.ips(self.nodes[node].host);
        let four = ips.iter().find(|ip| ip.is_ipv4());
        let six = ips.iter().find(|ip| ip.is_ipv6() && ip_scope(**ip) == IpScope::Global);
        let gateway =
            |router, source: &IpAddr| Gateway { router, interface: INTERFACE, source: *source };
        let four = four.map(|source| gateway(ROUTER.0.into(), source));
        let six = six.map(|source| gateway(ROUTER.1.into(), source));
        let gateways = four.into_iter().chain(six).collect();
        self.feed(node, Event::Mapping(MappingEvent::GatewaysChanged { gateways }));
    }

    /// A node is told what it stored in an earlier run.
    pub(super) fn remembers(&mut self, node: usize) {
        if let Some(ledger) = self.nodes[node].ledger.clone() {
            self.feed(node, Event::Mapping(MappingEvent::LedgerRead { ledger }));
        }
    }

    /// A node orders something of its router.
    pub(super) fn orders(&mut self, node: usize, action: MappingAction) {
        let Some(router) = self.lan_of(node) else { return };
        let now = self.now;
        let Some(lan) = self.lans.get_mut(&router) else { return };
        let sockets = &mut self.nodes[node].sockets;
        match action {
            MappingAction::OpenChannel { channel } => sockets.open(channel),
            MappingAction::CloseChannel { channel } => sockets.close(channel),
            MappingAction::SendDatagram { channel, to, body } => {
                let from = sockets.sends(now, channel, to, &lan.router);
                let arrives = !lan.dice.percent(lan.loss_percent);
                if let Some(from) = from.filter(|_| arrives) {
                    let what = Underway::Leaves { from, to, body };
                    self.later(LAN_LATENCY, Occurrence::OnLan { router, what });
                }
            }
            MappingAction::Fetch(fetch) => {
                sockets.asks(now, fetch.to, &lan.router);
                let what = Underway::Asks { node, fetch };
                self.later(LAN_LATENCY * 2, Occurrence::OnLan { router, what });
            }
            MappingAction::StoreLedger { ledger } => self.nodes[node].ledger = Some(ledger),
            // An order that is not known here is a gap.
            other => unreachable!("{other:?}"),
        }
        let fault = self.nodes[node].sockets.fault().map(str::to_owned);
        self.blame(node, "a node asks whom it may", fault);
    }

    pub(super) fn on_lan(&mut self, router: RouterId, what: Underway) {
        let now = self.now;
        match what {
            Underway::Leaves { from, to, body } => {
                let lan = self.lan_mut(router);
                if to.ip().is_multicast() || lan.router.ips().contains(&to.ip()) {
                    let outputs = lan.router.datagram(now, from, to, &body);
                    self.spread(router, outputs);
                }
            }
            Underway::Asks { node, fetch } => {
                let lan = self.lan_mut(router);
                let known = lan.router.ips().contains(&fetch.to.ip());
                let reply = match known {
                    true => host::asked(&mut lan.router, now, &fetch),
                    false => HttpReply::Hang,
                };
                let (after, event) = host::told(&fetch, &reply);
                let what = Underway::Answers { node, run: self.nodes[node].run, event };
                self.later(after, Occurrence::OnLan { router, what });
            }
            Underway::Tells { node, channel, event } => {
                let it = &self.nodes[node];
                if it.is_awake() && it.sockets.has(channel) {
                    self.feed(node, Event::Mapping(event));
                }
                return;
            }
            Underway::Answers { node, run, event } => {
                if self.nodes[node].run == run {
                    self.feed(node, Event::Mapping(event));
                }
                return;
            }
            Underway::Turn => {
                let lan = self.lan_mut(router);
                lan.turn_at = None;
                let outputs = lan.router.advance(now);
                self.spread(router, outputs);
            }
        }
        self.settle_lan(router);
        let complaint = self.lans[&router].router.complaints().first().cloned();
        let node = (0..self.nodes.len()).find(|node| self.lan_of(*node) == Some(router));
        self.blame(node.unwrap_or(0), "no router complains", complaint);
    }

    /// What a router sends finds its way to the sockets of the nodes behind it.
    fn spread(&mut self, router: RouterId, outputs: Vec<Output>) {
        for output in outputs {
            let is_lost = {
                let lan = self.lan_mut(router);
                !matches!(output, Output::Refused { .. }) && lan.dice.percent(lan.loss_percent)
            };
            if is_lost {
                continue;
            }
            for node in 0..self.nodes.len() {
                if self.lan_of(node) != Some(router) {
                    continue;
                }
                for (channel, event) in self.nodes[node].sockets.hear(&output) {
                    let what = Underway::Tells { node, channel, event };
                    self.later(LAN_LATENCY, Occurrence::OnLan { router, what });
                }
            }
        }
    }

    /// The gates let in what the router forwards now, and it gets its next turn in time.
    fn settle_lan(&mut self, router: RouterId) {
        let now = self.now;
        let lan = &self.lans[&router];
        let it = &lan.router;
        let wan = IpAddr::V4(it.wan());
        let outside = self.fabric.gate(router, Family::Ip4).outside().unwrap_or(wan);
        let ports = it.table().ports.keys().filter_map(|key: &PortKey| {
            let (transport, port) = *key;
            let internal = it.forwards(now, transport, port)?;
            Some((Addr::new(outside, port, transport), inside(internal, transport)))
        });
        let ports: Vec<(Addr, Addr)> = ports.collect();
        let holes = it.table().holes.keys().filter_map(|key: &HoleKey| {
            let (transport, at, _) = *key;
            let at = it.pinhole(now, transport, at).then(|| inside(at, transport))?;
            Some((at, at))
        });
        let mut holes: Vec<(Addr, Addr)> = holes.collect();
        holes.dedup();
        // A mapping that lets in from a later moment on has no deadline of its own.
        let held = it.table().ports.values().chain(it.table().holes.values());
        let since = held.map(|held| held.since).filter(|since| now < *since);
        let turn = since.chain(it.deadline()).min();
        let is_on = !it.is_away();
        self.fabric.switch(router, is_on);
        self.fabric.gate_mut(router, Family::Ip4).set_mapped(ports);
        self.fabric.gate_mut(router, Family::Ip6).set_mapped(holes);
        let lan = self.lan_mut(router);
        if let Some(at) = turn
            && lan.turn_at.is_none_or(|planned| at < planned)
        {
            lan.turn_at = Some(at);
            self.at(at.max(now), Occurrence::OnLan { router, what: Underway::Turn });
        }
    }

    /// A node that does not run gets a new mind.
    fn rebuild(&mut self, node: usize) -> Result<(), ConfigError> {
        let it = &mut self.nodes[node];
        it.agent = Agent::new(it.core.clone(), it.key.public())?;
        if let Some(twin) = &mut it.twin {
            **twin = (it.agent.clone(), it.draw.clone());
        }
        Ok(())
    }

    /// The router that maps ports for a node.
    fn lan_of(&self, node: usize) -> Option<RouterId> {
        let it = &self.nodes[node];
        it.core.mapping.as_ref()?;
        self.fabric.router_of(it.host).filter(|router| self.lans.contains_key(router))
    }

    fn lan_mut(&mut self, router: RouterId) -> &mut Lan {
        self.lans.get_mut(&router).expect("a router that maps ports")
    }

    fn blame(&mut self, node: usize, promise: &'static str, what: Option<String>) {
        if let Some(what) = what {
            self.watch.blame(Violation { at: self.now, node: NodeId(node), promise, what });
        }
    }
}

fn inside(at: SocketAddr, transport: portolan_core::Transport) -> Addr {
    Addr::new(at.ip(), at.port(), transport)
}
