//! Port mapping, judged by simulated servers: nodes behind routers that map ports, in the simulated
//! network. What is true is told by packets and by the routers' tables.
//!
//! `MAPPING_WORLD_SEEDS=1000` runs more seeds than the few of the gate, `MAPPING_WORLD_SEED=7` that
//! one alone, with its transcript.

#[path = "mapping_world/changes.rs"]
mod changes;
#[path = "mapping_world/chaos.rs"]
mod chaos;
#[path = "mapping_world/quirks.rs"]
mod quirks;
#[path = "mapping_world/verdicts.rs"]
mod verdicts;

use portolan_core::config::GATEWAY_REQUESTS_MIN;
use portolan_core::{
    Addr, Class, Duration, Family, Instant, Mapping, MappingConfig, MappingProtocol, MappingReason,
    NodeState, Notice, Scope, State, Transport,
};
use portolan_sim::net::{Dependence, GateConfig, Link, RouterId};
use portolan_sim::plan::{Change, NodePlan, Plan, RouterPlan, Run, Serves, Standing};
use portolan_sim::router::Profile;
use portolan_sim::world::{NodeId, World};
use std::net::{IpAddr, Ipv4Addr};

/// When the node starts, and dials.
const BEGINS: Duration = Duration::from_secs(2);
/// The port that it listens on.
const PORT: u16 = 4_001;
/// The node.
const NODE: NodeId = NodeId(0);
/// The home's first external address.
const WAN: Ipv4Addr = Ipv4Addr::new(44, 5, 0, 1);
const BOTH: [Transport; 2] = [Transport::Tcp, Transport::Quic];

fn seconds(span: u64) -> Duration {
    Duration::from_secs(span)
}

fn of(transport: Transport) -> Class {
    Class::new(Family::Ip4, transport)
}

/// A home, and how it is connected.
#[derive(Clone, Debug)]
struct Setting {
    profile: Profile,
    protocols: Vec<MappingProtocol>,
    gate: GateConfig,
    /// What a carrier's NAT gives to the home's router.
    carrier: Option<Ipv4Addr>,
    /// What the carrier's NAT lets in to that.
    carried: Vec<Addr>,
    /// Packets and datagrams that are lost, in a hundred.
    loss_percent: u32,
    seed: u64,
}

impl Setting {
    fn new(profile: Profile, seed: u64) -> Setting {
        Setting {
            profile,
            protocols: MappingProtocol::ALL.to_vec(),
            gate: profile.gate(),
            carrier: None,
            carried: Vec::new(),
            loss_percent: 0,
            seed,
        }
    }

    fn plan(&self) -> Plan {
        let mut plan = Plan::new(self.seed);
        plan.twins = true;
        let mut link = Link::with_latency(Duration::from_millis(10));
        link.loss.ppm = self.loss_percent * 10_000;
        let router = |name: &str, behind, outside: Ipv4Addr, ip4| RouterPlan {
            name: name.to_owned(),
            behind,
            outside: Some(outside.into()),
            ip4,
            ip6: GateConfig::firewall(),
            forwards: Vec::new(),
            link: link.clone(),
        };
        let mut home = router("home", None, WAN, self.gate.clone());
        if let Some(inner) = self.carrier {
            let nat = GateConfig::nat(Dependence::Independent, Dependence::AddressAndPort);
            let mut carrier = router("carrier", None, WAN, nat);
            let inside = |addr: &Addr| (*addr, Addr { ip: inner.into(), ..*addr });
            carrier.forwards = self.carried.iter().map(inside).collect();
            plan.routers.push(carrier);
            home = router("home", Some(0), inner, self.gate.clone());
        }
        plan.routers.push(home);
        let mut node = NodePlan::new("node", &[Ipv4Addr::new(192, 168, 1, 7).into()], PORT);
        node.behind = Some(plan.routers.len() - 1);
        plan.nodes.push(node);
        plan.at(BEGINS, Change::Start(0));
        for network in 1..=4 {
            let ip = |host| IpAddr::V4(Ipv4Addr::new(44, 0, network, host));
            let mut server = NodePlan::new(&format!("server{network}"), &[ip(1), ip(2)], PORT);
            server.serves = Some(Serves { from: vec![ip(2)], vice: None });
            server.link = Link::with_latency(Duration::from_millis(10));
            let to = plan.nodes.len();
            plan.at(Duration::ZERO, Change::Start(to));
            let transport = BOTH[usize::from(network) % 2];
            let addr = Addr::new(ip(1), PORT, transport);
            plan.at(BEGINS, Change::Dial { node: 0, to, addr });
            plan.nodes.push(server);
        }
        let crowd = NodePlan::new("crowd", &[Ipv4Addr::new(44, 0, 9, 1).into()], PORT);
        let number = plan.nodes.len();
        plan.nodes.push(crowd);
        plan.at(Duration::ZERO, Change::Start(number));
        plan.greet_servers(Duration::ZERO, number);
        plan
    }
}

/// A home in its world.
struct Home {
    run: Run,
    router: RouterId,
}

impl Home {
    fn new(setting: &Setting) -> Home {
        let plan = setting.plan();
        let router = RouterId(plan.routers.len() - 1);
        let mut run = Run::new(plan);
        let mut config = MappingConfig::default();
        config.protocols.clone_from(&setting.protocols);
        run.world.map_ports(router, setting.profile, &config).expect("a configuration");
        run.world.set_lan_loss(router, setting.loss_percent);
        run.world.keep_notices();
        Home { run, router }
    }

    fn world(&mut self) -> &mut World {
        &mut self.run.world
    }

    fn now(&self) -> Instant {
        self.run.world.now()
    }

    /// Let time pass.
    fn pass(&mut self, span: Duration) -> Result<(), String> {
        let until = self.now().since(Instant::ZERO) + span;
        self.run.until(until).map_err(|violation| violation.to_string())
    }

    /// Let time pass until something is so: for how long that took, if it ever was.
    fn pass_until(
        &mut self,
        most: Duration,
        is_so: impl Fn(&Home) -> bool,
    ) -> Result<Option<Duration>, String> {
        let begun = self.now();
        while self.now().since(begun) < most {
            if is_so(self) {
                return Ok(Some(self.now().since(begun)));
            }
            self.pass(Duration::from_millis(10))?;
        }
        Ok(None)
    }

    fn standing(&self, transport: Transport) -> Standing {
        self.run.standing(0, of(transport))
    }

    fn mapping(&self, transport: Transport) -> Option<Mapping> {
        let mut all = self.run.world.node(NODE).agent().mappings();
        all.find(|one| one.internal.transport == transport)
    }

    fn reason(&self, transport: Transport) -> Option<MappingReason> {
        self.mapping(transport).map(|one| one.reason)
    }

    fn external(&self, transport: Transport) -> Option<Addr> {
        self.mapping(transport)?.lease.map(|lease| lease.external)
    }

    /// Whether the node says that anybody gets in over its mapping, and that is true.
    fn is_in(&self, transport: Transport) -> bool {
        let Some(external) = self.external(transport) else { return false };
        let reachability = self.run.world.node(NODE).agent().reachability();
        let scope = reachability.verdict(external).and_then(portolan_core::Verdict::scope);
        scope == Some(Scope::Anywhere)
            && self.run.world.truth(NODE, external).strangers
            && self.reason(transport) == Some(MappingReason::Granted)
    }

    /// When an address of a transport was first proven since a moment, and which.
    fn proven_since(&self, since: Instant, transport: Transport) -> Option<(Instant, Addr)> {
        self.run.world.notices().iter().find_map(|told| {
            let Notice::VerdictChanged { addr, state: State::Reachable, .. } = told.notice else {
                return None;
            };
            let fits = told.node == NODE && told.at >= since && addr.transport == transport;
            fits.then_some((told.at, addr))
        })
    }

    /// Whoever has a lease knows of it: the router holds nothing that the node could not give back.
    fn gives_all_back(&mut self) -> Result<(), String> {
        let requests = self.run.world.node(NODE).sockets().requests();
        let most = requests.busiest_minute(&self.run.world.mapper(self.router).ips());
        // A search is several datagrams.
        if most > GATEWAY_REQUESTS_MIN + 16 {
            return Err(format!("{most} requests in a minute"));
        }
        self.world().closes(NODE);
        self.pass(seconds(300))?;
        let released = self.run.world.node(NODE).agent().has_released();
        match (released, self.run.world.held(NODE)) {
            (true, held) if held.is_empty() => Ok(()),
            (_, held) => Err(format!("released: {released}, and these are left: {held:?}")),
        }
    }
}

/// Run cases; those that fail are told all at once.
fn run_all<'a>(cases: impl Iterator<Item = (String, Setting, Case<'a>)>) {
    let mut failures = Vec::new();
    let mut shown = None;
    for (name, setting, case) in cases {
        let Err(fault) = case(&mut Home::new(&setting)) else { continue };
        let Setting { seed, protocols, loss_percent, .. } = &setting;
        failures
            .push(format!("{name}, seed {seed}, {protocols:?}, {loss_percent} % lost: {fault}"));
        shown.get_or_insert_with(|| {
            let mut again = Home::new(&setting);
            again.world().transcribe(NODE);
            let _ = case(&mut again);
            let lines = again.run.world.transcript();
            let all = std::env::var_os("MAPPING_WORLD_SEED").is_some();
            let most = if all { lines.len() } else { LINES_SHOWN };
            lines[lines.len().saturating_sub(most)..].join("\n")
        });
    }
    let shown = shown.unwrap_or_default();
    assert!(failures.is_empty(), "{shown}\n\n{} failed:\n{}", failures.len(), failures.join("\n"));
}

/// What happens in a home, and what must hold.
type Case<'a> = Box<dyn Fn(&mut Home) -> Result<(), String> + 'a>;

/// Lines of the transcript of a failure that are shown, number.
const LINES_SHOWN: usize = 200;

/// The middle of several spans.
fn median(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all[all.len() / 2]
}

/// Each protocol alone, and all of them.
fn protocol_sets() -> Vec<Vec<MappingProtocol>> {
    let alone = MappingProtocol::ALL.into_iter().map(|protocol| vec![protocol]);
    alone.chain([MappingProtocol::ALL.to_vec()]).collect()
}
