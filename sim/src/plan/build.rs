//! A plan becomes a world, and runs.

use super::{Change, Expectation, Plan};
use crate::net::{Gate, HostId, RouterId};
use crate::watch::Violation;
use crate::world::{Counts, NodeConfig, NodeId, Truth, World};
use portolan_core::{
    Addr, Class, Config, DialBackConfig, Duration, Family, Instant, NodeState, Outcome,
    PunchConfig, Reason, Scope, ServerExplanation, Verdict,
};

/// How a class of a node stands, beside what is true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The node.
    pub node: usize,
    /// The class.
    pub class: Class,
    /// What the node says.
    pub state: NodeState,
    /// Why.
    pub reason: Reason,
    /// The widest scope that it has proven.
    pub scope: Option<Scope>,
    /// The address that it says this of, and what is true of that.
    pub claimed: Option<(Addr, Truth)>,
    /// The address that most is true of, and what that is.
    pub best: Option<(Addr, Truth)>,
    /// Whether no client could know better: while the proof lasts, somebody got in whom a router
    /// knew though the node had not called him, or a nonce may have been handed on.
    pub excused: bool,
    /// Whether the node could not pay what some server asked for.
    pub declined: bool,
    /// How many servers in reach tell the truth.
    pub servers: usize,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// How much happened.
    pub counts: Counts,
    /// How long it lasted, in the world.
    pub lasted: Duration,
    /// The first promise that was broken.
    pub violation: Option<Violation>,
    /// How long after everything stood still the last node agreed with what is true, if all had to
    /// and did.
    pub settled_in: Option<Duration>,
    /// How often a node left *reachable* by a refutation.
    pub flips: u64,
}

/// A run under way.
#[derive(Debug)]
pub struct Run {
    /// The world.
    pub world: World,
    plan: Plan,
    next: usize,
}

/// How long after a standstill every node must agree with what is true, ours: a refusal is believed
/// for ten minutes, a rest takes eight, a proof lasts ten, a pause between rounds four; and one may
/// begin when the other ends.
pub const SETTLE_MAX: Duration = Duration::from_secs(40 * 60);
/// How often it is looked whether they do.
const LOOK_EVERY: Duration = Duration::from_secs(10);

impl Run {
    /// A world as planned, at its beginning.
    ///
    /// # Panics
    /// When the plan names what it does not have.
    pub fn new(mut plan: Plan) -> Run {
        plan.changes.sort_by_key(|(at, _)| *at);
        let mut world = World::new(plan.seed, plan.twins);
        if !plan.signs {
            world.leave_out_signatures();
        }
        for router in &plan.routers {
            let mut ip4 = Gate::new(router.ip4.clone(), router.outside);
            let mut ip6 = Gate::new(router.ip6.clone(), None);
            for (external, inside) in &router.forwards {
                let gate = if external.ip.is_ipv4() { &mut ip4 } else { &mut ip6 };
                gate.forward(*external, *inside);
            }
            world.fabric.add_router(router.behind.map(RouterId), ip4, ip6, router.link.clone());
        }
        for node in &plan.nodes {
            let host =
                world.fabric.add_host(node.behind.map(RouterId), &node.ips, node.link.clone());
            let mut core = Config::default();
            if let Some(serves) = &node.serves {
                let mut limits = DialBackConfig::default();
                limits.sources.clone_from(&serves.from);
                core.dial_back = Some(limits);
            }
            core.punch = node.punches.then(PunchConfig::default);
            let config = NodeConfig {
                name: node.name.clone(),
                host,
                core,
                listen: node.listen.clone(),
                vice: node.serves.as_ref().and_then(|serves| serves.vice),
                costs: node.costs,
            };
            world.add_node(config).expect("a plan configures nodes that core takes");
        }
        Run { world, plan, next: 0 }
    }

    /// The plan that it follows.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Let it go on until a moment.
    ///
    /// # Errors
    /// The first promise that was broken.
    pub fn until(&mut self, until: Duration) -> Result<(), Violation> {
        while let Some((at, _)) = self.plan.changes.get(self.next).filter(|(at, _)| *at <= until) {
            self.world.run_until(Instant::ZERO + *at)?;
            let (_, change) = self.plan.changes[self.next].clone();
            self.next += 1;
            self.befall(change);
        }
        self.world.run_until(Instant::ZERO + until)
    }

    /// Let it run to its end, and say what came of it.
    pub fn finish(&mut self) -> Report {
        let done = self.go();
        let (violation, settled_in) = match done {
            Ok(settled_in) => (None, settled_in),
            Err(violation) => (Some(violation), None),
        };
        let nodes = 0..self.plan.nodes.len();
        Report {
            counts: self.world.counts(),
            lasted: self.world.now().since(Instant::ZERO),
            violation,
            settled_in,
            flips: nodes.map(|node| self.world.watch.flips(NodeId(node))).sum(),
        }
    }

    fn go(&mut self) -> Result<Option<Duration>, Violation> {
        let Some(still_at) = self.plan.still_at else {
            self.until(self.plan.lasts)?;
            self.meets_expectations()?;
            return Ok(None);
        };
        self.until(still_at)?;
        let mut waited = Duration::ZERO;
        let mut agreed_since = None;
        loop {
            match self.disagreement() {
                None => {
                    let since = *agreed_since.get_or_insert(waited);
                    if waited.saturating_sub(since) >= self.plan.lasts {
                        self.meets_expectations()?;
                        return Ok(Some(since));
                    }
                }
                Some(_) if waited < SETTLE_MAX => agreed_since = None,
                Some(violation) => return Err(violation),
            }
            waited += LOOK_EVERY;
            self.until(still_at + waited)?;
        }
    }

    fn meets_expectations(&self) -> Result<(), Violation> {
        for Expectation { node, class, words } in &self.plan.expects {
            let standing = self.standing(*node, *class);
            let said = standing.words();
            if said != *words {
                return Err(self.disagrees(&standing, "what a scenario expects is so", || {
                    format!("expected {words}, found {said}")
                }));
            }
        }
        Ok(())
    }

    /// How a class of a node stands.
    pub fn standing(&self, node: usize, class: Class) -> Standing {
        let agent = self.world.node(NodeId(node)).agent();
        let (reachability, explained) = (agent.reachability(), agent.explain());
        let declined = |server: &ServerExplanation| {
            server.outcomes.iter().any(|(outcome, _)| *outcome == Outcome::Declined)
        };
        let status = reachability.class(class);
        let of_class = reachability.addresses().filter(|(addr, _)| addr.class() == class);
        let scopes = of_class.filter_map(|(addr, verdict)| {
            let Verdict::Reachable { proof, scope, .. } = verdict else { return None };
            Some((*scope, addr, proof.server()))
        });
        let claimed = scopes.max_by_key(|(scope, addr, _)| (*scope, *addr));
        let truth = |(_, addr, _)| (addr, self.world.truth(NodeId(node), addr));
        let expected = self.world.expected(NodeId(node), class);
        Standing {
            node,
            class,
            state: status.map_or(NodeState::Unknown, |status| status.state),
            reason: status.map_or(Reason::NotListening, |status| status.reason),
            scope: claimed.map(|(scope, ..)| scope),
            excused: claimed.is_some_and(|(_, addr, _)| {
                let id = NodeId(node);
                self.world.watch.excuses(self.world.now(), (id, self.world.node(id)), addr)
            }),
            declined: explained.servers.iter().any(declined),
            claimed: claimed.map(truth),
            best: expected.best,
            servers: expected.servers,
        }
    }

    /// The first class of a node that dials somebody which does not agree with what is true.
    fn disagreement(&self) -> Option<Violation> {
        let dialling = |node: usize| {
            let dials = |(_, change): &(Duration, Change)| matches!(change, Change::Dial { node: one, .. } if *one == node);
            self.plan.changes.iter().any(dials)
        };
        (0..self.plan.nodes.len()).filter(|node| dialling(*node)).find_map(|node| {
            let listened = self.world.listeners(NodeId(node));
            let mut classes: Vec<Class> = listened.iter().map(|(_, addr)| addr.class()).collect();
            classes.dedup();
            classes.retain(|class| !self.world.was_full(NodeId(node), *class));
            classes.into_iter().find_map(|class| {
                let standing = self.standing(node, class);
                let problem = standing.problem()?;
                Some(self.disagrees(&standing, "a node comes to agree with what is true", || {
                    format!("{problem}: {standing:?}")
                }))
            })
        })
    }

    fn disagrees(
        &self,
        standing: &Standing,
        promise: &'static str,
        what: impl FnOnce() -> String,
    ) -> Violation {
        let what =
            format!("{} {}: {}", self.plan.nodes[standing.node].name, standing.class, what());
        Violation { at: self.world.now(), node: NodeId(standing.node), promise, what }
    }

    fn befall(&mut self, change: Change) {
        let said = self.plan.say(&change);
        self.world.remark(&said);
        let world = &mut self.world;
        match change {
            Change::Start(node) => world.start(NodeId(node)),
            Change::Dial { node, to, addr } => world.target(NodeId(node), addr, NodeId(to)),
            Change::Reboot(router) => world.reboot(RouterId(router)),
            Change::Renumber(router, outside) => world.fabric.renumber(RouterId(router), outside),
            Change::Forward(router, external, inside) => {
                let family = Family::of(external.ip);
                world.fabric.gate_mut(RouterId(router), family).forward(external, inside);
            }
            Change::Unforward(router, external) => {
                let family = Family::of(external.ip);
                world.fabric.gate_mut(RouterId(router), family).unforward(external);
            }
            Change::SetGate(router, family, config) => {
                world.fabric.gate_mut(RouterId(router), family).set_config(*config);
            }
            Change::Link(node, up) => world.fabric.link_mut(HostId(node)).up = up,
            Change::Faults(node, link) => {
                let it = world.fabric.link_mut(HostId(node));
                let (latency, mtu) = (it.latency, it.mtu);
                *it = *link;
                (it.latency, it.mtu) = (latency, mtu);
            }
            Change::Rule(rule) => world.fabric.rules.push(rule),
            Change::Kill(node) => world.kill(NodeId(node)),
            Change::CutOff(node) => world.cut_off(NodeId(node)),
            Change::Suspend(node, span) => world.suspend(NodeId(node), span),
            Change::Readdress(node, ips) => world.readdress(HostId(node), &ips),
            Change::CloseListener(node, class) => {
                for (listener, addr) in world.listeners(NodeId(node)) {
                    if addr.class() == class {
                        world.close_listener(NodeId(node), listener);
                    }
                }
            }
            Change::Listen(node, addr) => {
                world.listen(NodeId(node), addr);
            }
            Change::Visit(node, addr) => world.visit(NodeId(node), addr),
            Change::Heal => world.heal(),
        }
    }
}

impl Standing {
    /// The conclusion in a few words, as scenarios and the matrix write it.
    pub fn words(&self) -> String {
        let word = match (self.state, self.scope) {
            (NodeState::Public | NodeState::Limited, Some(scope)) => scope.name(),
            (state, _) => state.name(),
        };
        match (self.state, self.reason) {
            (NodeState::Public, Reason::PresumedOpen) => format!("{word}, presumed open"),
            (NodeState::Private, Reason::EndpointDependentMapping { provisional }) => {
                let tail = if provisional { ", provisional" } else { "" };
                format!("{word}, endpoint-dependent mapping{tail}")
            }
            (NodeState::Private, Reason::DialFailed { .. }) => format!("{word}, dial failed"),
            (NodeState::Unknown, reason) => format!("{word}, {reason}"),
            _ => word.to_owned(),
        }
    }

    /// Where what the node says and what is true differ, though nothing has changed for long.
    fn problem(&self) -> Option<&'static str> {
        let in_reach = self.best.is_some_and(|(_, truth)| truth.servers_in > 0);
        let claims = self.claimed.map(|(_, truth)| truth);
        match (self.scope, claims) {
            (Some(_), _) if self.excused => None,
            (Some(Scope::Anywhere), Some(truth)) if !truth.strangers && !truth.anybody_cold => {
                Some("strangers are kept out, and the node says anywhere")
            }
            (Some(_), Some(truth)) if truth.anybody_in == 0 => {
                Some("nobody gets in, and the node says reachable")
            }
            (Some(Scope::Contacted | Scope::ContactedOnly), Some(truth))
                if truth.cold_in > 0 && !self.declined =>
            {
                Some("strangers get in and could test it, and the node does not know")
            }
            (Some(_), _) => None,
            (None, _) if in_reach => Some("servers get in, and the node does not know"),
            // What keeps it from a verdict has a name.
            (None, _) if self.servers == 0 => None,
            (None, _) if self.best.is_none() && self.reason == Reason::NoCandidates => None,
            (None, _) if self.state != NodeState::Private => {
                Some("nobody gets in, and the node has no verdict")
            }
            (None, _) => None,
        }
    }
}
