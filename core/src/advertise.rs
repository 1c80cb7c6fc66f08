//! Floor 7 · what peers should know of us.
//!
//! Knows: the proven addresses and those of circuits, which are told to everybody. Reads:
//! reachability, local, relay.
//! An address is told the moment it is proven and withdrawn the moment it is not; `service` pushes
//! the difference. Those that share our private network are told interface addresses too.
//! What only contacted peers can reach is not told: a stranger would knock in vain. Where relays help,
//! circuits follow the direct addresses.
//!
//! ```text
//!  reachability ─► told (sorted) ─┐
//!  relay ─► circuits ─────────────┴─► identify, signed peer record, push
//! ```
//!
//! Limits: as many addresses as there are verdicts, and as many circuits as the relay room tells.
//! Follows: RFC 0003 (only addresses believed routable); identify §listenAddrs.
//!
//! A good first change here: put the addresses with the widest scope first.

use crate::local::Local;
use crate::reachability::Reachability;
use crate::relay::Relays;
use crate::words::checkpoint::{Room, are_counts, saved};
use crate::{Addr, CircuitAddr, Cx, IpScope, Notice, RelayNotice, Scope, ip_scope};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

/// The addresses that are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Advertise {
    told: BTreeSet<Addr>,
    circuits: Vec<CircuitAddr>,
    seen: Option<[u64; 2]>,
    revision: u64,
}

impl Advertise {
    /// Take over the verdicts and the circuits.
    pub(crate) fn advance(&mut self, cx: &mut Cx<'_>, reachability: &Reachability, relay: &Relays) {
        let seen = Some([reachability.revision(), relay.revision()]);
        if self.seen == seen {
            return;
        }
        self.seen = seen;
        self.take_over_circuits(cx, relay);
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

    fn take_over_circuits(&mut self, cx: &mut Cx<'_>, relay: &Relays) {
        let circuits: Vec<CircuitAddr> = relay.circuit_addrs().collect();
        if circuits == self.circuits {
            return;
        }
        let less = |from: &[CircuitAddr], these: &[CircuitAddr]| {
            from.iter().filter(|one| !these.contains(one)).copied().collect::<Vec<_>>()
        };
        let added = less(&circuits, &self.circuits);
        let removed = less(&self.circuits, &circuits);
        self.circuits = circuits;
        self.revision += 1;
        if !added.is_empty() || !removed.is_empty() {
            let notice = RelayNotice::CircuitAddrsChanged { added, removed };
            cx.actions.notify(Notice::Relay(notice));
        }
    }

    /// The circuits that everybody is told after the rest, those that are relied on first.
    pub(crate) fn circuits(&self) -> &[CircuitAddr] {
        &self.circuits
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
    circuits,
    seen as seen(|seen: [u64; 2]| seen, [Room::Reachability, Room::Relay]),
    revision as revision(Room::Advertise),
}, if has_counts);

fn has_counts(advertise: &Advertise) -> bool {
    are_counts(&[advertise.revision])
}
