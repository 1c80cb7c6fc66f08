//! The experiment with unreliable servers: a node that can, or cannot, be reached, and servers most of
//! which lie about it. Whatever they say, no verdict may flip, and none may be false while an honest
//! server is in reach.

use crate::net::{Dependence, Gate, GateConfig, Link};
use crate::plan::{Change, NodePlan, Plan, RouterPlan, Run, Serves};
use crate::watch::Violation;
use crate::world::{NodeId, Vice};
use portolan_core::{Addr, Duration, Notice, State, Transport};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// How long one run lasts, in the world: the audit's watch.
pub const WATCHED: Duration = Duration::from_secs(600);
/// While servers are met, what is true changes all the time: ours, what the last dial, its handshake
/// and its first answer take.
const MEETING: Duration = Duration::from_secs(5);
/// How far what is true may lie behind the verdict that it is held against, meanwhile.
const INSTANT: Duration = Duration::from_millis(1);
/// The listen port of everybody.
const PORT: u16 = 4_001;

/// Who is asked, and what is true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Honest servers.
    pub honest: u8,
    /// Those that lie.
    pub liars: u8,
    /// What they lie.
    pub vice: Vice,
    /// Whether strangers really get in.
    pub open: bool,
}

/// The settings of the experiment: the audit's (two honest ones and five that deny what is true, and
/// seven of seven) and their reverse (servers that claim what is false).
pub const SETTINGS: [Setting; 4] = [
    Setting { honest: 2, liars: 5, vice: Vice::LiesFailure, open: true },
    Setting { honest: 0, liars: 7, vice: Vice::LiesFailure, open: true },
    Setting { honest: 2, liars: 5, vice: Vice::LiesOk, open: false },
    Setting { honest: 0, liars: 7, vice: Vice::LiesOk, open: false },
];

/// What one run came to.
#[derive(Clone, Debug, Default)]
pub struct LiarReport {
    /// How often *reachable* was left without a new fact.
    pub flips: u64,
    /// Verdicts that said reachable where nobody got in.
    pub false_reachable: u64,
    /// Verdicts that said unreachable where an honest server in reach got in.
    pub false_unreachable: u64,
    /// Whether the node was proven reachable at all.
    pub proven: bool,
    /// A promise that was broken.
    pub violation: Option<Violation>,
}

impl Setting {
    /// The run of a seed.
    pub fn plan(&self, seed: u64) -> Plan {
        let mut plan = Plan::new(seed);
        let filtering =
            if self.open { Dependence::Independent } else { Dependence::AddressAndPort };
        let outside: IpAddr = Ipv4Addr::new(44, 5, 0, 1).into();
        let gate = Gate::new(GateConfig::nat(Dependence::Independent, filtering), Some(outside));
        let mut dice = crate::Dice::new(seed);
        let mut link = || Link::with_latency(Duration::from_millis(dice.between(2, 60)));
        plan.routers.push(RouterPlan {
            name: "nat".to_owned(),
            behind: None,
            outside: Some(outside),
            ip4: gate.config().clone(),
            ip6: GateConfig::open(),
            forwards: Vec::new(),
            link: link(),
        });
        let mut client = NodePlan::new("client", &[Ipv4Addr::new(192, 168, 1, 2).into()], PORT);
        client.behind = Some(0);
        plan.nodes.push(client);
        for number in 1..=self.honest + self.liars {
            let ip: IpAddr = Ipv4Addr::new(44, 0, number, 1).into();
            let mut server = NodePlan::new(&format!("S{number}"), &[ip], PORT);
            server.link = link();
            let vice = (number > self.honest).then_some(self.vice);
            server.serves = Some(Serves { from: Vec::new(), vice });
            plan.nodes.push(server);
        }
        for node in 0..plan.nodes.len() {
            plan.at(Duration::ZERO, Change::Start(node));
        }
        for to in 1..plan.nodes.len() {
            for transport in [Transport::Tcp, Transport::Quic] {
                let addr = Addr::new(plan.nodes[to].ips[0], PORT, transport);
                let after = Duration::from_millis(dice.between(0, 2_000));
                plan.at(after, Change::Dial { node: 0, to, addr });
            }
        }
        plan.lasts = WATCHED;
        plan
    }

    /// Run a seed, and judge every verdict at the moment in which it is given.
    pub fn run(&self, seed: u64) -> LiarReport {
        let mut run = Run::new(self.plan(seed));
        run.world.keep_notices();
        let mut report = LiarReport::default();
        let mut seen = 0;
        let mut states: BTreeMap<Addr, State> = BTreeMap::new();
        let mut until = Duration::ZERO;
        while until < WATCHED {
            until += if until < MEETING { INSTANT } else { Duration::from_secs(1) };
            if let Err(violation) = run.until(until) {
                report.violation = Some(violation);
                break;
            }
            let told = &run.world.notices()[seen..];
            for told in told.iter().filter(|told| told.node == NodeId(0)) {
                let Notice::VerdictChanged { addr, state, .. } = &told.notice else { continue };
                let truth = run.world.truth(NodeId(0), *addr);
                if states.insert(*addr, *state) == Some(*state) {
                    // The same verdict with more behind it.
                    continue;
                }
                match state {
                    State::Reachable => {
                        report.proven = true;
                        report.false_reachable += u64::from(truth.anybody_in == 0);
                    }
                    State::Unreachable => {
                        report.false_unreachable += u64::from(truth.servers_in > 0);
                    }
                    State::Unknown => {}
                }
            }
            seen = run.world.notices().len();
        }
        report.flips = run.world.flips(NodeId(0));
        report
    }
}
