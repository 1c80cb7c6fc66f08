//! Floor 3 · every address that may be ours, with all the sources it is known from.
//!
//! Knows: the union. Reads: config (declared addresses), local (interface addresses), observed
//! (values and IPs), mapping (external addresses and ports). The guess *observed IP × listen port* finds static forwards that no observer
//! can see: behind a NAT that changes the port, only the operator knows that 4001 leads here.
//!
//! ```text
//!  configured ─┐
//!  mapped ─────┤
//!  observed ───┼─► Candidate { addr, sources, weight }, strongest first ─► probe, reachability
//!  interface ──┤
//!  guess ──────┘
//! ```
//!
//! Limits: `CANDIDATES_MAX`; when full the weakest are left out. Private addresses are no
//! candidates unless they are allowed (autonat-v2 §Implementation Suggestions).
//!
//! A good first change here: rank IPv6 interface addresses by their preferred lifetime.

use crate::local::Local;
use crate::mapping::Mappings;
use crate::observed::ObservedAddrs;
use crate::words::checkpoint::{Room, are_counts, saved};
use crate::words::config::CANDIDATES_MAX;
use crate::{Addr, Class, Config, Cx, IpScope, Notice, Source, Sources, ip_scope};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::net::IpAddr;

/// Observed IPs that are combined with our ports, number in one class; ours: a NAT pool has few,
/// and each one more costs a probe for every listen port.
const GUESSED_IPS_MAX: usize = 4;

/// An address that may be ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) addr: Addr,
    pub(crate) sources: Sources,
    /// The weight of the votes for it.
    pub(crate) weight: u32,
}

impl Candidate {
    /// Where the mapping depends on the endpoint, what one network sees is good for that network
    /// alone; then the guess comes before it.
    fn strength(&self, observed: &ObservedAddrs) -> (Option<Source>, bool, Reverse<u32>, Addr) {
        let (mapping, _) = observed.mapping(self.addr.class());
        let strongest = self.sources.iter().next();
        let raised = strongest == Some(Source::Guess) && mapping.is_endpoint_dependent();
        let source = if raised { Some(Source::Observed) } else { strongest };
        (source, !raised, Reverse(self.weight), self.addr)
    }
}

/// The union of all sources, strongest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Candidates {
    all: Vec<Candidate>,
    seen: Option<(u64, u64, u64)>,
    revision: u64,
}

impl Candidates {
    /// Take over what the sources say now.
    pub(crate) fn advance(
        &mut self,
        cx: &mut Cx<'_>,
        config: &Config,
        local: &Local,
        observed: &ObservedAddrs,
        mapping: &Mappings,
    ) {
        let seen = Some((local.revision(), observed.revision(), mapping.revision()));
        if self.seen == seen {
            return;
        }
        self.seen = seen;
        let all = union(config, local, observed, mapping);
        if all == self.all {
            return;
        }
        let before = core::mem::replace(&mut self.all, all);
        self.revision += 1;
        for Candidate { addr, sources, .. } in &self.all {
            let known = before.iter().any(|old| old.addr == *addr && old.sources == *sources);
            if !known {
                cx.actions.notify(Notice::CandidateChanged { addr: *addr, sources: *sources });
            }
        }
        for Candidate { addr, .. } in before {
            if self.get(addr).is_none() {
                cx.actions.notify(Notice::CandidateChanged { addr, sources: Sources::NONE });
            }
        }
    }

    /// Every candidate, strongest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Candidate> {
        self.all.iter()
    }

    /// The candidate with this address.
    pub(crate) fn get(&self, addr: Addr) -> Option<&Candidate> {
        self.all.iter().find(|candidate| candidate.addr == addr)
    }

    /// Counts changes of the union.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }
}

fn union(
    config: &Config,
    local: &Local,
    observed: &ObservedAddrs,
    mapping: &Mappings,
) -> Vec<Candidate> {
    let mut all: BTreeMap<Addr, Candidate> = BTreeMap::new();
    let mut add = |addr: Addr, source: Source, weight: u32| {
        let fresh = Candidate { addr, sources: Sources::NONE, weight: 0 };
        let candidate = all.entry(addr).or_insert(fresh);
        candidate.sources = candidate.sources.with(source);
        candidate.weight = candidate.weight.max(weight);
    };
    for addr in &config.external {
        add(*addr, Source::Configured, 0);
    }
    for addr in local.addresses() {
        if may_be_dialled(addr, config.allow_private) {
            add(addr, Source::Interface, 0);
        }
    }
    for external in mapping.externals() {
        let told = external.addr().filter(|addr| may_be_dialled(*addr, config.allow_private));
        if let Some(addr) = told {
            add(addr, Source::Mapped, 0);
            continue;
        }
        // The router does not know its own address, or there is another one in front of it.
        for (ip, weight) in observed_ips(observed, external.internal.class()) {
            add(Addr::new(ip, external.port, external.internal.transport), Source::Guess, weight);
        }
    }
    for class in Class::ALL {
        for (addr, weight) in observed.values(class) {
            add(*addr, Source::Observed, *weight);
        }
    }
    for class in Class::ALL {
        for (ip, weight) in observed_ips(observed, class) {
            for port in local.ports(class) {
                let addr = Addr::new(ip, port, class.transport);
                let known = observed.values(class).iter().any(|(value, _)| *value == addr);
                if !known && !local.addresses().any(|own| own == addr) {
                    add(addr, Source::Guess, weight);
                }
            }
        }
    }
    let mut all: Vec<Candidate> = all.into_values().collect();
    all.sort_by_key(|candidate| candidate.strength(observed));
    all.truncate(CANDIDATES_MAX);
    all
}

/// The IPs that we are seen at. One that is seen over one transport is ours over the other as well.
fn observed_ips(observed: &ObservedAddrs, class: Class) -> impl Iterator<Item = (IpAddr, u32)> {
    let other = Class::ALL.into_iter().filter(move |other| other.family == class.family);
    other.flat_map(|other| observed.ips(other).iter().take(GUESSED_IPS_MAX).copied())
}

/// Whether the world can dial an address at all, or where private ones are allowed, our lab.
pub(crate) fn may_be_dialled(addr: Addr, allow_private: bool) -> bool {
    match ip_scope(addr.ip) {
        IpScope::Global => true,
        IpScope::Private | IpScope::Loopback => allow_private,
        IpScope::LinkLocal | IpScope::Unusable => false,
    }
}

saved!(struct Candidate { addr, sources, weight });
saved!(struct Candidates {
    all,
    seen as seen(<[u64; 3]>::from, [Room::Local, Room::Observed, Room::Mapping]),
    revision as revision(Room::Candidates),
}, if has_counts);

fn has_counts(candidates: &Candidates) -> bool {
    are_counts(&[candidates.revision])
}
