//! Floor 5 · the one reducer: the only place that says *reachable*.
//!
//! Knows: the verdict on every candidate, and its reduction to classes and the node.
//! Reads: candidates, probe (proofs, refutations, outlook), observed (mapping behaviour), peers
//! (strangers who came in), local, config (what the operator forces).
//!
//! ```text
//!             proof                      all servers in reach failed
//!  unknown ──────────► reachable(scope) ─────────────────────────────► unreachable
//!     ▲  └── refuted ──────────────────────────────────────────────────►  │ proof ─► reachable
//!     └── expired: the proof aged out while nobody could be asked
//! ```
//!
//! Nothing flips by itself: leaving *reachable* needs a round of failures or an aged-out proof.
//! Nothing here can be written without a [`Proof`]; caches have no way in. AutoNAT v1 hearsay gives
//! the node a state while every class is unknown, and nothing else.
//!
//! Limits: as many verdicts as candidates and proven addresses (`CANDIDATES_MAX` and a few).
//! Follows: design §3 *reachability*; autonat-v2 §Implementation Suggestions.
//!
//! A good first change here: tell how long a class has been in its state.

mod reduce;

use crate::candidates::Candidates;
use crate::local::Local;
use crate::observed::ObservedAddrs;
use crate::peers::Peers;
use crate::probe::{Evidence, Outlook, Probe, Proof};
use crate::words::checkpoint::{Room, are_counts, saved};
use crate::words::config::PROOF_LIFETIME;
use crate::words::deadline::earliest;
use crate::words::sleep::Sleep;
use crate::{
    Addr, Class, Config, Cx, Deadline, Duration, FilteringBehavior, Instant, NodeState, Notice,
    Reason, Scope, State, Wake,
};
use alloc::collections::BTreeMap;

/// Networks that must have been refused as strangers before an address counts as contacted-only.
const COLD_FAILURES_MIN: usize = 2;
/// How long a node that may serve goes on serving after it no longer may, ours: two renewals of
/// a proof under the fastest schedule.
const HOLD_DOWN: Duration = Duration::from_secs(60);

/// The judged state of one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// A nonce came back over it.
    Reachable {
        /// The proof, which only a matched nonce makes.
        proof: Proof,
        /// What the proof proves.
        scope: Scope,
        /// When it ages out unless renewed.
        until: Instant,
        /// Why.
        reason: Reason,
    },
    /// Every capable server in reach failed to dial it.
    Unreachable {
        /// Why, with the number of servers.
        reason: Reason,
    },
    /// No evidence, or not enough.
    Unknown {
        /// Why.
        reason: Reason,
    },
}

impl Verdict {
    /// The state without its circumstances.
    pub fn state(&self) -> State {
        match self {
            Verdict::Reachable { .. } => State::Reachable,
            Verdict::Unreachable { .. } => State::Unreachable,
            Verdict::Unknown { .. } => State::Unknown,
        }
    }

    /// What the proof proves, if there is one.
    pub fn scope(&self) -> Option<Scope> {
        match self {
            Verdict::Reachable { scope, .. } => Some(*scope),
            Verdict::Unreachable { .. } | Verdict::Unknown { .. } => None,
        }
    }

    /// Why.
    pub fn reason(&self) -> Reason {
        match self {
            Verdict::Reachable { reason, .. }
            | Verdict::Unreachable { reason }
            | Verdict::Unknown { reason } => *reason,
        }
    }
}

/// The state of a class or of the node, with its reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The state.
    pub state: NodeState,
    /// Why.
    pub reason: Reason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Judged {
    verdict: Verdict,
    first_verdict_at: Option<Instant>,
}

/// Every verdict. Read-only for everybody but this room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reachability {
    addresses: BTreeMap<Addr, Judged>,
    classes: BTreeMap<Class, Status>,
    filtering: BTreeMap<Class, FilteringBehavior>,
    node: Status,
    may_serve: bool,
    hold_down_until: Option<Instant>,
    expires_at: Option<Instant>,
    seen: Option<[u64; 5]>,
    revision: u64,
}

/// The rooms below.
pub(crate) struct Ground<'a> {
    pub(crate) config: &'a Config,
    pub(crate) local: &'a Local,
    pub(crate) peers: &'a Peers,
    pub(crate) observed: &'a ObservedAddrs,
    pub(crate) candidates: &'a Candidates,
    pub(crate) probe: &'a Probe,
}

impl Reachability {
    /// The verdict on every candidate, in order of address.
    pub fn addresses(&self) -> impl Iterator<Item = (Addr, &Verdict)> {
        self.addresses.iter().map(|(addr, judged)| (*addr, &judged.verdict))
    }

    /// The verdict on one address, if it is a candidate.
    pub fn verdict(&self, addr: Addr) -> Option<&Verdict> {
        self.addresses.get(&addr).map(|judged| &judged.verdict)
    }

    /// The state of a class; `None` where nothing is listened on and nothing is a candidate.
    pub fn class(&self, class: Class) -> Option<Status> {
        self.classes.get(&class).copied()
    }

    /// The state of the node.
    pub fn node(&self) -> Status {
        self.node
    }

    /// How the NAT or firewall in front filters a class, as far as dial-backs showed it.
    pub fn filtering(&self, class: Class) -> FilteringBehavior {
        self.filtering.get(&class).copied().unwrap_or_default()
    }

    /// Whether the node may serve others (DHT server mode, relay service): public, or proven by
    /// those it contacted. Goes at once when it may, and after a hold-down when it may no longer.
    pub fn may_serve(&self) -> bool {
        self.may_serve
    }

    pub(crate) fn first_verdict_at(&self, addr: Addr) -> Option<Instant> {
        self.addresses.get(&addr).and_then(|judged| judged.first_verdict_at)
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// We slept: a role is held for as long as it takes to prove an address again, awake. What was
    /// proven has aged all the same.
    pub(crate) fn resumed(&mut self, sleep: Sleep) {
        if let Some(until) = &mut self.hold_down_until {
            sleep.put_off(until);
        }
    }

    /// Judge anew where something below changed or a proof aged out.
    pub(crate) fn advance(&mut self, cx: &mut Cx<'_>, ground: &Ground<'_>) {
        let due = self.deadline().is_some_and(|deadline| deadline.at <= cx.now);
        let seen = Some([
            ground.local.revision(),
            ground.peers.revision(),
            ground.observed.revision(),
            ground.candidates.revision(),
            ground.probe.revision(),
        ]);
        if !due && self.seen == seen {
            return;
        }
        self.seen = seen;
        self.forget_strangers_to_the_union(cx, ground);
        let candidates = ground.candidates.iter().map(|candidate| candidate.addr);
        let others = ground.probe.proven(cx.now);
        let others = others.filter(|addr| ground.candidates.get(*addr).is_none());
        for addr in candidates.chain(others) {
            let was_reachable = self.verdict(addr).is_some_and(|old| old.scope().is_some());
            let verdict = judge(cx.now, ground, addr, was_reachable);
            self.enter(cx, addr, verdict);
        }
        let expiries = self.addresses.values().filter_map(|judged| match judged.verdict {
            Verdict::Reachable { until, .. } => Some(until),
            Verdict::Unreachable { .. } | Verdict::Unknown { .. } => None,
        });
        // What a stranger showed may age out before the verdict does.
        let narrows = self.addresses.iter().filter_map(|(addr, judged)| {
            let shown = judged.verdict.scope() == Some(Scope::Anywhere);
            shown.then(|| shown_until(cx.now, ground, *addr)).flatten()
        });
        self.expires_at = expiries.chain(narrows).min();
        self.reduce(cx, ground);
    }

    /// When a proof ages out or a hold-down ends.
    pub(crate) fn deadline(&self) -> Option<Deadline> {
        let expires = self.expires_at.map(|at| Deadline::new(at, Wake::VerdictExpires));
        let hold_down = self.hold_down_until.map(|at| Deadline::new(at, Wake::HoldDownEnds));
        earliest(expires, hold_down)
    }

    /// Addresses that are neither candidates nor proven have no verdict.
    fn forget_strangers_to_the_union(&mut self, cx: &mut Cx<'_>, ground: &Ground<'_>) {
        let gone = |addr: Addr| {
            ground.candidates.get(addr).is_none()
                && !ground.probe.proven(cx.now).any(|proven| proven == addr)
        };
        while let Some(addr) = self.addresses.keys().copied().find(|addr| gone(*addr)) {
            self.addresses.remove(&addr);
            self.revision += 1;
            cx.actions.notify(Notice::VerdictChanged {
                addr,
                state: State::Unknown,
                scope: None,
                reason: Reason::NoCandidates,
            });
        }
    }

    /// The only place that assigns a verdict.
    fn enter(&mut self, cx: &mut Cx<'_>, addr: Addr, verdict: Verdict) {
        let old = self.addresses.get(&addr).copied();
        if old.is_some_and(|old| old.verdict == verdict) {
            return;
        }
        let state = verdict.state();
        let decided = (state != State::Unknown).then_some(cx.now);
        let first_verdict_at = old.and_then(|old| old.first_verdict_at).or(decided);
        self.addresses.insert(addr, Judged { verdict, first_verdict_at });
        self.revision += 1;
        // A renewed proof is no news.
        let same = |old: Judged| {
            (old.verdict.state(), old.verdict.scope(), old.verdict.reason())
                == (state, verdict.scope(), verdict.reason())
        };
        if !old.is_some_and(same) {
            let (scope, reason) = (verdict.scope(), verdict.reason());
            cx.actions.notify(Notice::VerdictChanged { addr, state, scope, reason });
        }
    }
}

/// The verdict that the evidence gives.
fn judge(now: Instant, ground: &Ground<'_>, addr: Addr, was_reachable: bool) -> Verdict {
    let evidence = ground.probe.evidence(now, ground.peers, addr);
    let listening = ground.local.listens_in(addr.class());
    let Some(evidence) = evidence.filter(|_| listening) else {
        return Verdict::Unknown { reason: Reason::NotListening };
    };
    if let Some(servers) = evidence.refuted {
        return Verdict::Unreachable { reason: Reason::DialFailed { servers } };
    }
    // A stranger who came in through the same socket and named this address renews what was
    // proven; alone he proves nothing, since anybody can name any address.
    if let Some(proof) = evidence.last {
        let stranger = ground.peers.stranger_at(addr, proof.listen_port());
        // What has aged out he cannot raise from the dead.
        let renewal = stranger.filter(|_| was_reachable);
        let renewed = renewal.map_or(proof.at(), |at| at.max(proof.at()));
        let until = renewed + PROOF_LIFETIME;
        if now < until {
            let (scope, reason) = scope(now, &evidence, shown_by(&evidence, stranger));
            return Verdict::Reachable { proof, scope, until, reason };
        }
        return Verdict::Unknown { reason: Reason::Expired };
    }
    let reason = match evidence.outlook {
        Outlook::Probing => Reason::Probing,
        Outlook::NoServers => Reason::NoServers,
        Outlook::Refused => Reason::ServersRefused,
        Outlook::Distrusted => Reason::ServersDistrusted,
        Outlook::Unhelpful => Reason::ServersUnhelpful,
    };
    Verdict::Unknown { reason }
}

/// Until when it counts that strangers get in.
fn shown_until(now: Instant, ground: &Ground<'_>, addr: Addr) -> Option<Instant> {
    let evidence = ground.probe.evidence(now, ground.peers, addr);
    let proved = evidence.and_then(|evidence| evidence.by_stranger).map(|proof| proof.at());
    let port = evidence.and_then(|evidence| evidence.last).map(|proof| proof.listen_port());
    let stranger = port.and_then(|port| ground.peers.stranger_at(addr, port));
    let stranger = evidence.and_then(|evidence| shown_by(&evidence, stranger));
    let until = proved.max(stranger)? + PROOF_LIFETIME;
    (now < until).then_some(until)
}

/// When a stranger who came in showed that strangers get in, unless they are known to be refused since.
fn shown_by(evidence: &Evidence, stranger: Option<Instant>) -> Option<Instant> {
    stranger.filter(|at| evidence.closed_since.is_none_or(|since| since <= *at))
}

/// What the proofs prove.
fn scope(now: Instant, evidence: &Evidence, stranger: Option<Instant>) -> (Scope, Reason) {
    let fresh = |at: Instant| now < at + PROOF_LIFETIME;
    if evidence.by_stranger.is_some_and(|proof| fresh(proof.at())) {
        (Scope::Anywhere, Reason::ProvedByStranger)
    } else if stranger.is_some_and(fresh) {
        (Scope::Anywhere, Reason::StrangerConnected)
    } else if evidence.cold_failures >= COLD_FAILURES_MIN {
        (Scope::ContactedOnly, Reason::StrangersRefused)
    } else {
        (Scope::Contacted, Reason::ProvedByContacted)
    }
}

saved!(enum Verdict {
    1 = Reachable { proof, scope, until, reason },
    2 = Unreachable { reason },
    3 = Unknown { reason },
});
saved!(struct Status { state, reason });
saved!(struct Judged { verdict, first_verdict_at as told() });
saved!(struct Reachability {
    addresses,
    classes,
    filtering,
    node,
    may_serve,
    hold_down_until,
    expires_at,
    seen as seen(
        |seen: [u64; 5]| seen,
        [Room::Local, Room::Peers, Room::Observed, Room::Candidates, Room::Probe],
    ),
    revision as revision(Room::Reachability),
}, if has_counts);

fn has_counts(reachability: &Reachability) -> bool {
    are_counts(&[reachability.revision])
}
