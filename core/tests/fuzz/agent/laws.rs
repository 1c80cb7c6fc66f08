//! What must hold after every fact, whatever was told.

use super::books::Books;
use crate::trail::{Trail, variant};
use portolan_core::config::{CANDIDATES_MAX, MAPPINGS_MAX, PROOF_LIFETIME};
use portolan_core::{
    Action, Addr, AddressExplanation, Agent, Class, Config, Explanation, Instant, Mapping,
    MappingState, NextProbe, NodeState, Notice, Reason, Scope, State,
};
use std::collections::{BTreeMap, BTreeSet};

/// Servers that room `probe` remembers, number.
const SERVERS_MAX: usize = 256;

/// What the application has been told so far: it must add up to what the agent explains.
#[derive(Debug)]
pub(super) struct Laws {
    config: Config,
    verdicts: BTreeMap<Addr, (State, Option<Scope>, Reason)>,
    classes: BTreeMap<Class, (NodeState, Reason)>,
    node: Option<(NodeState, Reason)>,
    may_serve: bool,
    advertised: BTreeSet<Addr>,
    candidates: BTreeSet<Addr>,
    mappings: BTreeMap<Addr, Mapping>,
    ignored: u64,
}

impl Laws {
    pub(super) fn new(config: Config) -> Laws {
        Laws {
            config,
            verdicts: BTreeMap::new(),
            classes: BTreeMap::new(),
            node: None,
            may_serve: false,
            advertised: BTreeSet::new(),
            candidates: BTreeSet::new(),
            mappings: BTreeMap::new(),
            ignored: 0,
        }
    }

    /// Take in what the application is told.
    pub(super) fn heard(&mut self, action: &Action) {
        let Action::Notify(notice) = action else { return };
        match notice {
            Notice::VerdictChanged { addr, state, scope, reason } => {
                let verdict = (*state, *scope, *reason);
                let before = self.verdicts.insert(*addr, verdict);
                assert_ne!(before, Some(verdict), "{addr}: nothing changed");
            }
            Notice::ClassChanged { class, state, reason } => {
                let before = self.classes.insert(*class, (*state, *reason));
                assert_ne!(before, Some((*state, *reason)), "{class}: nothing changed");
            }
            Notice::NodeChanged { state, reason } => {
                let before = self.node.replace((*state, *reason));
                assert_ne!(before, Some((*state, *reason)), "nothing changed");
            }
            Notice::RoleChanged { may_serve } => {
                assert_ne!(self.may_serve, *may_serve, "nothing changed");
                self.may_serve = *may_serve;
            }
            Notice::AdvertisedChanged { added, removed } => {
                for addr in removed {
                    assert!(self.advertised.remove(addr), "{addr} was not told");
                }
                for addr in added {
                    assert!(self.advertised.insert(*addr), "{addr} was told already");
                }
            }
            Notice::CandidateChanged { addr, sources } => {
                if sources.is_empty() {
                    assert!(self.candidates.remove(addr), "{addr} was no candidate");
                } else {
                    self.candidates.insert(*addr);
                }
                assert!(self.candidates.len() <= CANDIDATES_MAX);
            }
            Notice::MappingChanged { internal, mapping: Some(mapping) } => {
                assert_eq!(mapping.internal, *internal);
                let granted = mapping.state == MappingState::Granted;
                assert_eq!(mapping.lease.is_some(), granted, "{mapping:?}");
                let before = self.mappings.insert(*internal, *mapping);
                assert_ne!(before, Some(*mapping), "{internal}: nothing changed");
                assert!(self.mappings.len() <= MAPPINGS_MAX);
            }
            Notice::MappingChanged { internal, mapping: None } => {
                assert!(self.mappings.remove(internal).is_some(), "{internal} was not wanted");
            }
            Notice::Ignored { .. } => self.ignored += 1,
            _ => {}
        }
    }

    /// Look at the agent after a step.
    pub(super) fn check(&self, agent: &Agent, books: &Books, now: Instant, trail: &mut Trail) {
        if let Some(deadline) = agent.deadline() {
            assert!(deadline.at > now, "{deadline:?} is due at {now}");
        }
        let found = agent.explain();
        assert_eq!(found.at, now);
        assert_eq!(found.ignored, self.ignored, "every oddity has its notice");
        assert_eq!(found.may_serve, self.may_serve);
        assert_eq!(found.advertised.iter().copied().collect::<BTreeSet<_>>(), self.advertised);
        assert_eq!(found.advertised.len(), self.advertised.len(), "no address is told twice");
        if let Some(node) = self.node {
            assert_eq!((found.state, found.reason), node);
        }
        self.bounds(&found);
        for class in &found.classes {
            let told = self.classes.get(&class.class).copied();
            let now = (class.state, class.reason);
            assert_eq!(told.unwrap_or(now), now, "{}", class.class);
            trail.saw(format_args!("{:?} {:?}", class.mapping, class.filtering));
        }
        for address in &found.addresses {
            self.verdict(address, books, now);
            // What is said to come next comes by itself.
            if let NextProbe::At(at) = address.next {
                let woken = agent.deadline().is_some_and(|deadline| deadline.at <= at);
                assert!(at > now && woken, "{}: nothing happens at {at}", address.addr);
            }
            trail.saw(format_args!("{:?} {}", address.state, variant(&address.reason)));
        }
        for term in &found.terms {
            let mut of = found.mappings.iter().filter(|one| one.internal == term.internal);
            assert!(of.next().is_some_and(|one| one.lease.is_some()), "{term:?}");
        }
        trail.saw(format_args!("node {:?} {}", found.state, variant(&found.reason)));
        trail.saw(format_args!("settled {} serves {}", found.settled, found.may_serve));
    }

    fn bounds(&self, found: &Explanation) {
        assert!(found.addresses.len() <= 2 * CANDIDATES_MAX);
        assert!(found.advertised.len() <= CANDIDATES_MAX);
        assert!(found.servers.len() <= SERVERS_MAX);
        let addrs: BTreeSet<Addr> = found.addresses.iter().map(|address| address.addr).collect();
        assert_eq!(addrs.len(), found.addresses.len(), "every address is explained once");
        let peers: BTreeSet<_> = found.servers.iter().map(|server| server.peer).collect();
        assert_eq!(peers.len(), found.servers.len(), "every server is explained once");
        if self.config.force_node.is_some() {
            assert_eq!(Some(found.state), self.config.force_node);
        }
    }

    /// What is said of one address has its grounds.
    fn verdict(&self, address: &AddressExplanation, books: &Books, now: Instant) {
        let addr = address.addr;
        let told = (address.state, address.scope, address.reason);
        // Of an address that was never decided nothing need have been said.
        let unsaid = (State::Unknown, None, address.reason);
        assert_eq!(*self.verdicts.get(&addr).unwrap_or(&unsaid), told, "{addr}");
        let reachable = address.state == State::Reachable;
        assert_eq!(address.scope.is_some(), reachable, "{addr}: a scope is that of a proof");
        assert_eq!(address.until.is_some(), reachable, "{addr}");
        if reachable {
            let proved = books.questions.iter().any(|question| {
                question.addrs.contains(&addr) && books.delivered.contains(&question.nonce)
            });
            assert!(proved, "{addr} is reachable, but no nonce came back");
            assert!(address.proofs > 0);
            assert!(address.until.is_some_and(|until| until > now), "{addr}: the proof is over");
            let listened = books.listeners.values().any(|one| one.transport == addr.transport);
            assert!(listened, "{addr}: nothing is listened on");
        }
        if let Some(proved_at) = address.proved_at {
            assert!(proved_at <= now && address.proofs > 0 && address.proved_by.is_some());
            // A stranger who came in renews what was proven, but never beyond this.
            let longest = now + PROOF_LIFETIME;
            assert!(address.until.is_none_or(|until| until <= longest), "{addr}");
        }
        if address.state == State::Unreachable {
            assert!(books.dial_errors > 0, "{addr} is unreachable, but nobody said so");
        }
    }
}
