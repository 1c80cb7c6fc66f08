//! A question to a server and what is known of an address, as the plain rules see them.

use super::LIFETIME;
use portolan_core::{Addr, ConnId, Group, Instant, PeerId, Scope, StreamId};
use std::collections::{BTreeMap, BTreeSet};

/// Where it stands, and until when.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Phase {
    Open { until: Instant, paid: bool },
    Awaits { until: Instant },
    Over { until: Instant },
}

/// One question to one server about one address.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) stream: StreamId,
    pub(crate) conn: ConnId,
    pub(crate) peer: PeerId,
    pub(crate) group: Group,
    pub(crate) addr: Addr,
    pub(crate) event: u64,
    /// Whether its failure would be a stranger's.
    pub(crate) cold: bool,
    pub(crate) arrived: bool,
    pub(crate) phase: Phase,
}

impl Ask {
    /// Whether it has not ended.
    pub(crate) fn is_running(&self) -> bool {
        !matches!(self.phase, Phase::Over { .. })
    }
}

/// What is known of one address.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// The last proof, and the port it came in on.
    pub(crate) proof: Option<(Instant, u16)>,
    pub(crate) by_stranger: Option<Instant>,
    pub(crate) cold: BTreeMap<Group, Instant>,
    /// How often strangers were refused since one last got in.
    pub(crate) refusals: u32,
    /// Networks that failed, and peers that said anything, since the last proof or doubt.
    pub(crate) failed: BTreeSet<Group>,
    pub(crate) said: BTreeSet<PeerId>,
    pub(crate) refuted: bool,
    pub(crate) reachable: bool,
}

impl History {
    /// What a proof proves where no stranger has shown more.
    pub(crate) fn without_strangers(&self, now: Instant) -> Scope {
        let cold = self.cold.values().filter(|at| now < **at + LIFETIME).count();
        if cold >= 2 { Scope::ContactedOnly } else { Scope::Contacted }
    }

    /// What is left where strangers were refused often enough for two searches.
    pub(crate) fn closed(&self, now: Instant) -> Option<Scope> {
        (self.refusals >= 2).then(|| self.without_strangers(now))
    }
}
