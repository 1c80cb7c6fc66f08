//! From verdicts on addresses to the state of each class and of the node.

use super::{Ground, HOLD_DOWN, Reachability, Status, Verdict};
use crate::{
    Addr, Class, Cx, Family, FilteringBehavior, IpScope, MappingBehavior, NodeState, Notice,
    Reason, Scope, Source, State, ip_scope,
};

impl Reachability {
    /// Reduce, and tell what changed.
    pub(super) fn reduce(&mut self, cx: &mut Cx<'_>, ground: &Ground<'_>) {
        for class in Class::ALL {
            let status = self.class_status(ground, class);
            let filtering = self.class_filtering(ground, class);
            self.filtering.insert(class, filtering);
            let old = match status {
                Some(status) => self.classes.insert(class, status),
                None => self.classes.remove(&class),
            };
            if old != status {
                self.revision += 1;
                // A class with nothing in it is told as one where nothing is listened on.
                let nothing = Status { state: NodeState::Unknown, reason: Reason::NotListening };
                let Status { state, reason } = status.unwrap_or(nothing);
                if old.unwrap_or(nothing) != (Status { state, reason }) {
                    cx.actions.notify(Notice::ClassChanged { class, state, reason });
                }
            }
        }
        let node = self.node_status(ground);
        if node != self.node {
            self.node = node;
            self.revision += 1;
            let Status { state, reason } = node;
            cx.actions.notify(Notice::NodeChanged { state, reason });
        }
        self.update_role(cx);
    }

    fn of_class(&self, class: Class) -> impl Iterator<Item = (Addr, &Verdict)> {
        self.addresses().filter(move |(addr, _)| addr.class() == class)
    }

    fn class_status(&self, ground: &Ground<'_>, class: Class) -> Option<Status> {
        let known = ground.local.listens_in(class) || self.of_class(class).next().is_some();
        if !known {
            return None;
        }
        let forced = ground.config.force_class.iter().find(|(forced, _)| *forced == class);
        if let Some((_, state)) = forced {
            return Some(Status { state: *state, reason: Reason::Forced });
        }
        let proven = self.of_class(class).filter_map(|(addr, verdict)| {
            let scope = verdict.scope()?;
            let open = scope == Scope::Contacted && is_presumed_open(ground, addr);
            Some(match (scope, open) {
                (Scope::Anywhere, _) => (NodeState::Public, scope, verdict.reason()),
                (Scope::Contacted, true) => (NodeState::Public, scope, Reason::PresumedOpen),
                (Scope::Contacted | Scope::ContactedOnly, _) => {
                    (NodeState::Limited, scope, verdict.reason())
                }
            })
        });
        if let Some((state, _, reason)) = proven.max_by_key(|(state, scope, _)| (*state, *scope)) {
            return Some(Status { state, reason });
        }
        Some(self.unproven_status(ground, class))
    }

    fn unproven_status(&self, ground: &Ground<'_>, class: Class) -> Status {
        let (mapping, provisional) = ground.observed.mapping(class);
        if mapping.is_endpoint_dependent() {
            let reason = Reason::EndpointDependentMapping { provisional };
            return Status { state: NodeState::Private, reason };
        }
        let unknown = |reason| Status { state: NodeState::Unknown, reason };
        let reasons = || self.of_class(class).map(|(_, verdict)| verdict.reason());
        if reasons().any(|reason| reason == Reason::Probing) {
            return unknown(Reason::Probing);
        }
        let failed = self.of_class(class).filter(|(_, one)| one.state() == State::Unreachable);
        if let Some(reason) = failed.map(|(_, verdict)| verdict.reason()).max() {
            return Status { state: NodeState::Private, reason };
        }
        // The strongest candidate speaks for the class.
        let candidates = ground.candidates.iter().map(|candidate| candidate.addr);
        let strongest = candidates.filter(|addr| addr.class() == class);
        let reason = strongest.filter_map(|addr| self.verdict(addr)).map(Verdict::reason).next();
        let nobody = !ground.probe.servers().any(|(_, server)| server.is_connected());
        let none = if nobody { Reason::NoServers } else { Reason::NoCandidates };
        unknown(reason.or_else(|| reasons().next()).unwrap_or(none))
    }

    fn node_status(&self, ground: &Ground<'_>) -> Status {
        if let Some(state) = ground.config.force_node {
            return Status { state, reason: Reason::Forced };
        }
        let of = |state: NodeState| self.classes.values().find(move |one| one.state == state);
        if let Some(hearsay) = self.hearsay(ground) {
            return hearsay;
        }
        // A class that is still being probed may yet turn a private node into a public one.
        let probing = self.classes.values().find(|one| one.reason == Reason::Probing);
        let best = of(NodeState::Public).or_else(|| of(NodeState::Limited)).or(probing);
        let rest = || of(NodeState::Private).or_else(|| of(NodeState::Unknown));
        best.or_else(rest)
            .copied()
            .unwrap_or(Status { state: NodeState::Unknown, reason: Reason::NotListening })
    }

    /// What AutoNAT v1 servers say of the node, where nothing better is known of any class of it.
    /// Hearsay is about no address and no class, and overrules nothing.
    fn hearsay(&self, ground: &Ground<'_>) -> Option<Status> {
        let state = ground.probe.hearsay().state();
        let is_known = |one: &Status| one.state != NodeState::Unknown;
        let is_void = state == NodeState::Unknown || self.classes.is_empty();
        let is_void = is_void || self.classes.values().any(is_known);
        (!is_void).then_some(Status { state, reason: Reason::Hearsay })
    }

    fn class_filtering(&self, ground: &Ground<'_>, class: Class) -> FilteringBehavior {
        let scopes = || self.of_class(class).filter_map(|(_, verdict)| verdict.scope());
        let (mapping, _) = ground.observed.mapping(class);
        if scopes().any(|scope| scope == Scope::Anywhere) {
            return if mapping == MappingBehavior::None {
                FilteringBehavior::None
            } else {
                FilteringBehavior::EndpointIndependent
            };
        }
        if scopes().any(|scope| scope == Scope::ContactedOnly) {
            return FilteringBehavior::AddressDependent;
        }
        // The binding is there, since observers see it; yet not even a contacted IP gets in from
        // another port.
        let refused = ground.candidates.iter().any(|candidate| {
            candidate.addr.class() == class
                && candidate.sources.contains(Source::Observed)
                && self.verdict(candidate.addr).map(Verdict::state) == Some(State::Unreachable)
        });
        if refused && scopes().next().is_none() {
            return FilteringBehavior::AddressAndPortDependent;
        }
        FilteringBehavior::Unknown
    }

    fn update_role(&mut self, cx: &mut Cx<'_>) {
        let contacted = self.addresses().any(|(_, one)| one.scope() == Some(Scope::Contacted));
        let may = match self.node {
            Status { reason: Reason::Forced, state } => state == NodeState::Public,
            // Nobody is to rely on what nothing proves.
            Status { reason: Reason::Hearsay, .. } => false,
            Status { state, .. } => state == NodeState::Public || contacted,
        };
        if may == self.may_serve {
            self.hold_down_until = None;
            return;
        }
        let held = *self.hold_down_until.get_or_insert(cx.now + HOLD_DOWN);
        if may || held <= cx.now {
            self.hold_down_until = None;
            self.may_serve = may;
            self.revision += 1;
            cx.actions.notify(Notice::RoleChanged { may_serve: may });
        }
    }
}

/// Open by presumption: a truly global IPv4 address of our own interface, or one that the
/// operator vouches for. Never loopback or private, whatever is allowed.
fn is_presumed_open(ground: &Ground<'_>, addr: Addr) -> bool {
    let declared = ground.config.external.contains(&addr);
    let own = Family::of(addr.ip) == Family::Ip4 && ground.local.is_own_ip(addr.ip);
    ip_scope(addr.ip) == IpScope::Global && (declared || own)
}
