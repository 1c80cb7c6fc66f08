//! In which order the peers of several lists are tried.
//!
//! What lists say of peers is hearsay, and orders them only: who says that the world reaches it comes
//! before who does not know, and that before who says that it does not; then comes who is less busy.
//! Among equals the lists take turns, each in its own order, which a server changes from one
//! request to the next: so load is spread, and no list speaks first all the time.

use super::document::{List, ListedPeer};
use portolan_core::{NodeState, PeerId};
use std::collections::{BTreeMap, BTreeSet};

/// How much busier a peer may be and still count as equal, thousandths; ours: quarters. Load is spread
/// less as it grows.
const LOAD_STEP: u16 = 250;
/// The load that counts for a peer that tells none, thousandths; ours: the middle.
const LOAD_ASSUMED: u16 = 500;

/// How good a peer says that it is; less is better.
type Rank = (u8, u16);

fn rank(peer: &ListedPeer) -> Rank {
    let reach = match peer.reachability {
        Some(NodeState::Public | NodeState::Limited) => 0,
        Some(NodeState::Unknown) | None => 1,
        Some(NodeState::Private) => 2,
    };
    (reach, peer.load.unwrap_or(LOAD_ASSUMED) / LOAD_STEP)
}

/// The peers of several lists that are still to be tried.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    /// By rank, and there by turn and list: the first of each list come before the second ones.
    waiting: BTreeMap<(Rank, usize, usize), ListedPeer>,
    known: BTreeSet<PeerId>,
    /// How many of a list were given a place, by rank.
    given: BTreeMap<(Rank, usize), usize>,
}

impl Queue {
    /// Take in a list. Who is known already keeps its place. Lists are numbered as they come.
    pub(super) fn add(&mut self, source: usize, list: &List) {
        for peer in &list.peers {
            if !self.known.insert(peer.peer) {
                continue;
            }
            let rank = rank(peer);
            let turn = self.given.entry((rank, source)).or_default();
            self.waiting.insert((rank, *turn, source), peer.clone());
            *turn += 1;
        }
    }

    /// Whether nobody is left to try.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The next one to try.
    pub(super) fn next(&mut self) -> Option<ListedPeer> {
        self.waiting.pop_first().map(|(_, peer)| peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(reachability: Option<NodeState>, load: Option<u16>) -> ListedPeer {
        let (addrs, version) = (Vec::new(), None);
        let peer = PeerId::random();
        ListedPeer { peer, addrs, version, uptime_s: None, load, reachability, dialled_s_ago: None }
    }

    fn list(peers: &[&ListedPeer]) -> List {
        let peers = peers.iter().map(|peer| (*peer).clone()).collect();
        List { peers, ..List::default() }
    }

    fn order(lists: &[List]) -> Vec<PeerId> {
        let mut queue = Queue::default();
        for (source, list) in lists.iter().enumerate() {
            queue.add(source, list);
        }
        std::iter::from_fn(|| queue.next()).map(|peer| peer.peer).collect()
    }

    #[test]
    fn the_reachable_and_idle_come_first() {
        let (busy, idle) =
            (peer(Some(NodeState::Public), Some(800)), peer(Some(NodeState::Public), Some(20)));
        let (silent, private) = (peer(None, None), peer(Some(NodeState::Private), Some(0)));
        let found = order(&[list(&[&private, &silent, &busy, &idle])]);
        assert_eq!(found, [idle.peer, busy.peer, silent.peer, private.peer]);
    }

    #[test]
    fn among_equals_the_lists_take_turns() {
        let [a, b, c, d, e] =
            [100, 200, 0, 249, 50].map(|load| peer(Some(NodeState::Public), Some(load)));
        let found = order(&[list(&[&a, &b, &c]), list(&[&d, &b, &e])]);
        assert_eq!(found, [a.peer, d.peer, b.peer, e.peer, c.peer]);
    }
}
