//! Relays in the simulated network: how well they are chosen, how rarely they change, how evenly
//! they are loaded, and how long nobody gets in while they come and go. What is true is told by the
//! relays' tables and the connections, not by what the client believes.
//!
//! `RELAYS_SEEDS=whole` runs all that the results page is written from (`docs/results-relays.md`)
//! instead of the few seeds of the gate; `RELAYS_SEED=7` runs that one alone where a test has seeds.
//! `-- --nocapture` shows the figures.

#![allow(clippy::print_stdout, reason = "figures are what most of these tests are for")]

#[path = "relays/alone.rs"]
mod alone;
#[path = "relays/changes.rs"]
mod changes;
#[path = "relays/circuits.rs"]
mod circuits;
#[path = "figures/mod.rs"]
mod figures;
#[path = "relays/first.rs"]
mod first;
#[path = "relays/load.rs"]
mod load;
#[path = "relays/week.rs"]
mod week;

use figures::{count, percent, run_seeds};
use portolan_core::{
    Addr, Config, DialBackConfig, Duration, Instant, Notice, PeerId, RelayConfig, RelayNeed,
    RelayNotice, RelayPeer, RelayServerConfig, RelayState, Transport,
};
use portolan_sim::Dice;
use portolan_sim::net::{Dependence, Gate, GateConfig, Link, RouterId};
use portolan_sim::world::{Costs, NodeConfig, NodeId, World};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;

/// The port that everybody listens on.
const PORT: u16 = 4_001;
const BOTH: [Transport; 2] = [Transport::Tcp, Transport::Quic];
/// One way over the access link of the client's home.
const HOME: Duration = Duration::from_millis(1);

fn seconds(span: u64) -> Duration {
    Duration::from_secs(span)
}

/// The seeds to run: those of the gate, all, or one.
fn seeds(gate: u64, whole: u64) -> Range<u64> {
    figures::seeds("RELAYS", gate, whole)
}

fn is_whole() -> bool {
    std::env::var("RELAYS_SEEDS").is_ok_and(|wanted| wanted == "whole")
}

/// The value below which so many in a hundred lie; `all` is sorted.
fn quantile<T: Copy>(all: &[T], percent: usize) -> T {
    all[(all.len() * percent / 100).min(all.len() - 1)]
}

/// Where a relay stands.
fn relay_ip(place: usize) -> IpAddr {
    let network = u8::try_from(place + 1).expect("few relays");
    Ipv4Addr::new(44, 1, network, 1).into()
}

fn at(ip: IpAddr, transport: Transport) -> Addr {
    Addr::new(ip, PORT, transport)
}

/// The access link of a relay at this round trip from a client at home.
fn link_of(round_trip: Duration) -> Link {
    Link::with_latency((round_trip / 2).saturating_sub(HOME))
}

/// A world being put together.
struct Site {
    world: World,
    relays: Vec<NodeId>,
    addrs: Vec<Addr>,
}

impl Site {
    fn new(seed: u64) -> Site {
        let mut world = World::new(seed, false);
        world.leave_out_signatures();
        world.keep_notices();
        Site { world, relays: Vec::new(), addrs: Vec::new() }
    }

    fn node(
        &mut self,
        name: &str,
        place: (Option<RouterId>, &[IpAddr], Link),
        core: Config,
    ) -> NodeId {
        let (behind, ips, link) = place;
        let host = self.world.fabric.add_host(behind, ips, link);
        let any = Ipv4Addr::UNSPECIFIED.into();
        let config = NodeConfig {
            name: name.to_owned(),
            host,
            core,
            listen: vec![Addr::tcp(any, PORT), Addr::quic(any, PORT)],
            vice: None,
            costs: Costs::PORTOLAN,
        };
        self.world.add_node(config).expect("a configuration that core takes")
    }

    /// A relay at this distance, which runs.
    fn relay(&mut self, round_trip: Duration, transport: Transport, limits: RelayServerConfig) {
        let ip = relay_ip(self.relays.len());
        let mut core = Config::default();
        core.relay_server = Some(limits);
        let name = format!("R{}", self.relays.len() + 1);
        let relay = self.node(&name, (None, &[ip], link_of(round_trip)), core);
        self.world.start(relay);
        self.relays.push(relay);
        self.addrs.push(at(ip, transport));
    }

    /// Three servers of AutoNAT, which run and have been called on; where they are.
    fn servers(&mut self, latency: Duration) -> Vec<(NodeId, Addr)> {
        let mut servers = Vec::new();
        for network in 1..=3 {
            let ip = |host| IpAddr::V4(Ipv4Addr::new(44, 2, network, host));
            let mut core = Config::default();
            let mut limits = DialBackConfig::default();
            limits.sources = vec![ip(2)];
            core.dial_back = Some(limits);
            let link = Link::with_latency(latency);
            let server = self.node(&format!("S{network}"), (None, &[ip(1), ip(2)], link), core);
            self.world.start(server);
            servers.push((server, at(ip(1), Transport::Tcp)));
        }
        let crowd = Ipv4Addr::new(44, 3, 0, 1).into();
        let crowd = self.node("crowd", (None, &[crowd], Link::default()), Config::default());
        self.world.start(crowd);
        for (_, addr) in &servers {
            self.world.visit(crowd, *addr);
            self.world.visit(crowd, Addr { transport: Transport::Quic, ..*addr });
        }
        servers
    }

    /// The relays as a client is configured with them.
    fn relay_config(&self) -> RelayConfig {
        let relays = self.relays.iter().zip(&self.addrs);
        let peers = relays.map(|(relay, addr)| (self.world.node(*relay).peer(), *addr));
        let mut config = RelayConfig::default();
        config.relays = peers.map(|(peer, addr)| RelayPeer { peer, addrs: vec![addr] }).collect();
        config
    }

    /// A client behind a NAT that nobody gets in through.
    fn client(&mut self, link: Link, config: RelayConfig) -> NodeId {
        let nat = GateConfig::nat(Dependence::AddressAndPort, Dependence::AddressAndPort);
        let outside = Ipv4Addr::new(44, 5, 0, 1).into();
        let ip4 = Gate::new(nat, Some(outside));
        let ip6 = Gate::new(GateConfig::firewall(), None);
        let router = self.world.fabric.add_router(None, ip4, ip6, link);
        let mut core = Config::default();
        core.relay = Some(config);
        let ip = Ipv4Addr::new(192, 168, 1, 7).into();
        self.node("client", (Some(router), &[ip], Link::default()), core)
    }

    /// A stranger on the Internet who uses relays for calls alone.
    fn stranger(&mut self) -> NodeId {
        let ip = Ipv4Addr::new(44, 6, 0, 1).into();
        let mut core = Config::default();
        let mut config = RelayConfig::default();
        config.need = RelayNeed::Never;
        core.relay = Some(config);
        let stranger = self.node("stranger", (None, &[ip], Link::default()), core);
        self.world.start(stranger);
        stranger
    }

    fn peer(&self, node: NodeId) -> PeerId {
        self.world.node(node).peer()
    }

    /// Let time pass.
    fn pass(&mut self, span: Duration) {
        let until = self.world.now() + span;
        self.world.run_until(until).expect("no promise is broken");
    }

    /// The places of the relays that a client says it is reserved at.
    fn believed(&self, client: NodeId) -> Vec<usize> {
        let agent = self.world.node(client).agent();
        let reserved = agent.relays().filter(|one| one.state == RelayState::Reserved);
        let mut places: Vec<usize> = reserved.filter_map(|one| self.place(one.peer)).collect();
        places.sort_unstable();
        places
    }

    fn place(&self, relay: PeerId) -> Option<usize> {
        self.relays.iter().position(|node| self.peer(*node) == relay)
    }

    /// How relays stood with a client, one after the other, since a moment.
    fn standings(&self, client: NodeId) -> Vec<(Instant, usize, RelayState)> {
        let told = self.world.notices().iter().filter(|told| told.node == client);
        let changed = told.filter_map(|told| {
            let Notice::Relay(RelayNotice::Changed(relay)) = &told.notice else { return None };
            Some((told.at, self.place(relay.peer)?, relay.state))
        });
        changed.collect()
    }
}
