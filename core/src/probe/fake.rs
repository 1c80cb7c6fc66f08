//! Evidence that is simply claimed, for tests of the rooms above.

use super::history::{Answer, History};
use super::{Outcome, Probe, Proof};
use crate::words::addr::Domain;
use crate::{Addr, Group, Instant};
use core::net::{IpAddr, Ipv4Addr};

/// What is claimed of an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Claim {
    /// When it was last proven, and when by a stranger.
    pub(crate) proven_at: Option<Instant>,
    pub(crate) by_stranger_at: Option<Instant>,
    /// So many networks refuted it.
    pub(crate) refuted: Option<u8>,
    /// When networks failed to dial it as strangers.
    pub(crate) cold_at: [Option<Instant>; 2],
    pub(crate) is_probing: bool,
}

impl Probe {
    /// A probe that knows this, and nobody to ask.
    pub(crate) fn claiming<'a>(
        claims: impl Iterator<Item = (Addr, &'a Claim)>,
        revision: u64,
    ) -> Probe {
        let histories = claims.map(|(addr, claim)| (addr, history(addr, claim))).collect();
        Probe { histories, revision, ..Probe::new(false, 1) }
    }
}

fn history(addr: Addr, claim: &Claim) -> History {
    let server = crate::PeerId::from_bytes(&[0, 1, 1]).expect("a short identity hash");
    let proof = |at, stranger| Proof::claimed(addr, server, stranger, at);
    let mut history = History::new();
    history.last = claim.proven_at.map(|at| proof(at, claim.by_stranger_at == Some(at)));
    history.by_stranger = claim.by_stranger_at.map(|at| proof(at, true));
    for (network, at) in (1..).zip(claim.cold_at).filter_map(|(n, at)| at.map(|at| (n, at))) {
        let group = Group::prefix(IpAddr::V4(Ipv4Addr::new(44, 0, network, 1)));
        let peer = crate::PeerId::from_bytes(&[0, 1, network]).expect("a short identity hash");
        let (outcome, domain) = (Outcome::DialFailed, Domain::Network(group));
        let answer = Answer { outcome, group, domain, cold: true, line: None };
        history.answered(at, peer, answer);
    }
    history.refuted = claim.refuted;
    if claim.is_probing {
        history.in_flight.insert(server, Group::prefix(addr.ip));
    }
    history
}
