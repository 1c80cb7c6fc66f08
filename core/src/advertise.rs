//! Floor 7 · what peers should know of us.
//!
//! Knows: the proven addresses that are told to everybody. Reads: reachability, local.
//! An address is told the moment it is proven and withdrawn the moment it is not; `service` pushes
//! the difference. Those that share our private network are told interface addresses too.
//! What only contacted peers can reach is not told: a stranger would knock in vain.
//!
//! ```text
//!  reachability ─► told (sorted) ─► identify, signed peer record, push
//! ```
//!
//! Limits: as many addresses as there are verdicts.
//! Follows: RFC 0003 (only addresses believed routable); identify §listenAddrs.
//!
//! A good first change here: put the addresses with the widest scope first.

use crate::local::Local;
use crate::reachability::Reachability;
use crate::words::checkpoint::{Room, are_counts, saved};
use crate::{Addr, Cx, IpScope, Notice, Scope, ip_scope};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

/// The addresses that are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Advertise {
    told: BTreeSet<Addr>,
    seen: Option<u64>,
    revision: u64,
}

impl Advertise {
    /// Take over the verdicts.
    pub(crate) fn advance(&mut self, cx: &mut Cx<'_>, reachability: &Reachability) {
        if self.seen == Some(reachability.revision()) {
            return;
        }
        self.seen = Some(reachability.revision());
        let worth = |scope| matches!(scope, Some(Scope::Anywhere | Scope::Contacted));
        let proven = reachability.addresses().filter(|(_, verdict)| worth(verdict.scope()));
        let told: BTreeSet<Addr> = proven.map(|(addr, _)| addr).collect();
        if told == self.told {
            return;
        }
        let added: Vec<Addr> = told.difference(&self.told).copied().collect();
        let removed: Vec<Addr> = self.told.difference(&told).copied().collect();
        self.told = told;
        self.revision += 1;
        cx.actions.notify(Notice::AdvertisedChanged { added, removed });
    }

    /// What everybody is told, in order.
    pub(crate) fn told(&self) -> impl Iterator<Item = Addr> + '_ {
        self.told.iter().copied()
    }

    /// What a peer at `remote` is told: a neighbour on our private network can use our interface
    /// addresses, of the same scope as his own.
    pub(crate) fn told_to(&self, remote: Addr, local: &Local) -> Vec<Addr> {
        let scope = ip_scope(remote.ip);
        let neighbour = matches!(scope, IpScope::Private | IpScope::Loopback);
        let own = local
            .addresses()
            .filter(|addr| neighbour && ip_scope(addr.ip) == scope && !self.told.contains(addr));
        self.told().chain(own).collect()
    }

    /// Counts changes of what is told.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }
}

saved!(struct Advertise {
    told,
    seen as seen(|one| [one], [Room::Reachability]),
    revision as revision(Room::Advertise),
}, if has_counts);

fn has_counts(advertise: &Advertise) -> bool {
    are_counts(&[advertise.revision])
}
