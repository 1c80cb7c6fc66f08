//! The experiment with AutoNAT v1: a node and a pool of v1 servers most of which say anything at all,
//! with a server of v2 and without one. Where there is evidence, nothing that the pool says may show;
//! where there is none, what the node takes for true must not go back and forth.

use crate::net::{Dependence, Gate, GateConfig, Link};
use crate::plan::{Change, NodePlan, Plan, RouterPlan, Run, Serves};
use crate::watch::Violation;
use crate::world::{NodeId, Told, Vice};
use portolan_core::config::{HEARSAY_AGREE_MIN, HEARSAY_FLIP_MIN};
use portolan_core::{
    Addr, Duration, Family, HearsayAnswer, Instant, NodeState, Notice, PeerId, Reason, State,
    Transport,
};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// How long one run lasts, in the world: some twenty questions to everybody.
pub const WATCHED: Duration = Duration::from_secs(1_800);
/// When the truth changes, where it does.
const TURNS_AT: Duration = Duration::from_secs(600);
/// How long a word counts: what `probe::hearsay` says.
const COUNTS_FOR: Duration = Duration::from_secs(1_800);
/// The listen port of everybody.
const PORT: u16 = 4_001;

/// Who is asked, and what is true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Honest servers of v1.
    pub honest: u8,
    /// Those of v1 that say anything.
    pub unreliable: u8,
    /// Honest servers of v2.
    pub provers: u8,
    /// Whether strangers really get in.
    pub open: bool,
    /// Whether that changes after ten minutes.
    pub turns: bool,
}

impl Setting {
    /// Five of seven are unreliable, and one server of v2 is in reach.
    pub const BESIDE_EVIDENCE: [Setting; 2] = [
        Setting { honest: 2, unreliable: 5, provers: 1, open: true, turns: false },
        Setting { honest: 2, unreliable: 5, provers: 1, open: false, turns: false },
    ];
    /// The same pool alone, and pools of none but unreliable and of none but honest servers.
    pub const ALONE: [Setting; 5] = [
        Setting { honest: 2, unreliable: 5, provers: 0, open: true, turns: false },
        Setting { honest: 2, unreliable: 5, provers: 0, open: false, turns: false },
        Setting { honest: 2, unreliable: 5, provers: 0, open: true, turns: true },
        Setting { honest: 0, unreliable: 7, provers: 0, open: true, turns: false },
        Setting { honest: 7, unreliable: 0, provers: 0, open: true, turns: true },
    ];
}

/// What one run came to.
#[derive(Clone, Debug, Default)]
pub struct HearsayReport {
    /// Words that v1 servers gave, those that say nothing included.
    pub words: u64,
    /// Whether v2 found anything out.
    pub has_evidence: bool,
    /// Changes of the node's state since evidence gave it one.
    pub changes_beside_evidence: u64,
    /// The states that hearsay gave the node, one after the other.
    pub states: Vec<NodeState>,
    /// Changes from public to private by hearsay, and back.
    pub flips: u64,
    /// Those of them for which fewer networks gave their word than it takes, or that somebody denied.
    pub unfounded: u64,
    /// States taken in the beginning for which fewer networks gave their word than it takes.
    pub rash: u64,
    /// A promise that was broken.
    pub violation: Option<Violation>,
}

/// Books of our own: the last word of each server, each of which is in a network of its own.
#[derive(Default)]
struct Books {
    words: BTreeMap<PeerId, (bool, Instant)>,
    state: NodeState,
    by_evidence: bool,
}

impl Books {
    fn count(&self, now: Instant, word: bool) -> usize {
        let counts = |(said, at): &&(bool, Instant)| *said == word && now < *at + COUNTS_FOR;
        self.words.values().filter(counts).count()
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "of all notices, these alone are about it")]
    fn take(&mut self, told: &Told, report: &mut HearsayReport) {
        match &told.notice {
            Notice::HearsayHeard { peer, answer } => {
                report.words += 1;
                let word = match answer {
                    HearsayAnswer::Reachable => true,
                    HearsayAnswer::Unreachable => false,
                    HearsayAnswer::Nothing | _ => return,
                };
                self.words.insert(*peer, (word, told.at));
            }
            Notice::VerdictChanged { state, .. } => report.has_evidence |= *state != State::Unknown,
            Notice::NodeChanged { state, reason } => self.changed(told.at, *state, *reason, report),
            _ => {}
        }
    }

    fn changed(
        &mut self,
        now: Instant,
        state: NodeState,
        reason: Reason,
        report: &mut HearsayReport,
    ) {
        let before = std::mem::replace(&mut self.state, state);
        if self.by_evidence {
            report.changes_beside_evidence += u64::from(state != before);
            return;
        }
        if reason != Reason::Hearsay {
            self.by_evidence = state != NodeState::Unknown;
            return;
        }
        if report.states.last() != Some(&state) {
            report.states.push(state);
        }
        let word = state == NodeState::Public;
        let (for_it, against) = (self.count(now, word), self.count(now, !word));
        match before {
            NodeState::Unknown => report.rash += u64::from(for_it < HEARSAY_AGREE_MIN),
            NodeState::Private | NodeState::Limited | NodeState::Public if before == state => {}
            NodeState::Private | NodeState::Limited | NodeState::Public => {
                report.flips += 1;
                report.unfounded += u64::from(for_it < HEARSAY_FLIP_MIN || against > 0);
            }
        }
    }
}

impl Setting {
    /// The run of a seed.
    pub fn plan(&self, seed: u64) -> Plan {
        let mut plan = Plan::new(seed);
        plan.signs = false;
        let gate = |open| {
            let filtering = if open { Dependence::Independent } else { Dependence::AddressAndPort };
            GateConfig::nat(Dependence::Independent, filtering)
        };
        let outside: IpAddr = Ipv4Addr::new(44, 5, 0, 1).into();
        let mut dice = crate::Dice::new(seed);
        let mut link = || Link::with_latency(Duration::from_millis(dice.between(2, 60)));
        plan.routers.push(RouterPlan {
            name: "nat".to_owned(),
            behind: None,
            outside: Some(outside),
            ip4: Gate::new(gate(self.open), Some(outside)).config().clone(),
            ip6: GateConfig::open(),
            forwards: Vec::new(),
            link: link(),
        });
        let mut client = NodePlan::new("client", &[Ipv4Addr::new(192, 168, 1, 2).into()], PORT);
        client.behind = Some(0);
        plan.nodes.push(client);
        for number in 1..=self.honest + self.unreliable + self.provers {
            let ip: IpAddr = Ipv4Addr::new(44, 0, number, 1).into();
            let mut server = NodePlan::new(&format!("S{number}"), &[ip], PORT);
            server.link = link();
            let vice = match number {
                _ if number <= self.honest => Some(Vice::V1Alone),
                _ if number <= self.honest + self.unreliable => Some(Vice::V1Unreliable),
                _ => None,
            };
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
        if self.turns {
            plan.at(TURNS_AT, Change::SetGate(0, Family::Ip4, Box::new(gate(!self.open))));
        }
        plan.lasts = WATCHED;
        plan
    }

    /// Run a seed, and keep books of what the node was told and what it made of it.
    pub fn run(&self, seed: u64) -> HearsayReport {
        let mut run = Run::new(self.plan(seed));
        run.world.keep_notices();
        let mut report = HearsayReport::default();
        if let Err(violation) = run.until(WATCHED) {
            report.violation = Some(violation);
        }
        let mut books = Books::default();
        for told in run.world.notices().iter().filter(|told| told.node == NodeId(0)) {
            books.take(told, &mut report);
        }
        report
    }
}
