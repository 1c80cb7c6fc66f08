//! `/status`: the bootstrap document that a server offers, with itself and its cluster.

use super::cluster::{Cluster, Found};
use super::{Answer, document, text};
use crate::serve::concrete;
use hyper::StatusCode;
use portolan_core::wire::multiaddr::to_multiaddr;
use portolan_core::{Duration, Instant, IpScope, PeerId, State, ip_scope};
use portolan_runtime::bootstrap::{Document, LISTED_ADDRS_MAX, LISTED_PEERS_MAX, Listed};
use portolan_runtime::net::interface_ips;
use portolan_runtime::traits::Runtime;
use portolan_runtime::{Load, Node, destination};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// How old what is said of oneself may be, milliseconds; ours: making it anew takes the driver some time,
/// and whoever asks often should not take more of it.
const FRESH: Duration = Duration::from_millis(500);
/// What we call ourselves.
const VERSION: &str = concat!("portolan/", env!("CARGO_PKG_VERSION"));

/// What makes the document.
pub(crate) struct Status<R: Runtime> {
    node: Node<R>,
    cluster: Arc<Cluster>,
    allow_private: bool,
    /// Dial-backs at once at most, for the load.
    dial_backs_max: usize,
    since: Instant,
    asked: AtomicU64,
    own: Mutex<Option<(Instant, Listed)>>,
}

impl<R: Runtime> Status<R> {
    pub(crate) fn new(
        node: Node<R>,
        cluster: Arc<Cluster>,
        allow_private: bool,
        dial_backs_max: usize,
    ) -> Status<R> {
        let since = node.now();
        let (asked, own) = (AtomicU64::new(0), Mutex::default());
        Status { node, cluster, allow_private, dial_backs_max, since, asked, own }
    }

    /// The document, with another peer first each time.
    pub(crate) async fn answer(&self) -> Answer {
        let own = self.own().await;
        let others = self.cluster.found(self.node.now());
        let turn = self.asked.fetch_add(1, Ordering::Relaxed);
        let peers = in_turn(turn, self.node.peer_id(), own, others);
        let document_of = Document::new(Some(self.node.peer_id()), peers);
        match serde_json::to_vec_pretty(&document_of) {
            Ok(body) => document(StatusCode::OK, "application/json", body),
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the status cannot be written\n"),
        }
    }

    /// What we say of ourselves.
    async fn own(&self) -> Listed {
        let now = self.node.now();
        let kept = self.own.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, own)) = kept.filter(|(at, _)| now < *at + FRESH) {
            return own;
        }
        let own = self.look().await;
        *self.own.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, own.clone()));
        own
    }

    async fn look(&self) -> Listed {
        let peer = self.node.peer_id();
        let interfaces = interface_ips().unwrap_or_default();
        let mut addrs = concrete(&self.node.listeners().await, &interfaces);
        let mut reachability = None;
        if let Ok(explanation) = self.node.explain().await {
            let proven = explanation.addresses.iter().filter(|one| one.state == State::Reachable);
            for one in proven {
                let addr = to_multiaddr(one.addr, Some(peer));
                if !addrs.contains(&addr) {
                    addrs.insert(0, addr);
                }
            }
            reachability = Some(explanation.state.name().to_owned());
        }
        let is_public = |addr: &_| {
            destination(addr).is_ok_and(|(addr, _)| ip_scope(addr.ip) == IpScope::Global)
        };
        addrs.retain(|addr| self.allow_private || is_public(addr));
        addrs.truncate(LISTED_ADDRS_MAX);
        let mut own = Listed::default();
        own.addrs = addrs.iter().map(ToString::to_string).collect();
        own.version = Some(VERSION.to_owned());
        own.uptime_s = Some(self.node.now().since(self.since).as_secs());
        own.load = Some(load(&self.node.load().await, self.dial_backs_max));
        own.reachability = reachability;
        own
    }
}

/// How busy a node is, thousandths: the fullest of what it does for others.
pub(crate) fn load(load: &Load, dial_backs_max: usize) -> u16 {
    let dialling = load.dial_backs.saturating_mul(1_000) / dial_backs_max.max(1);
    let dialling = u16::try_from(dialling.min(1_000)).unwrap_or(1_000);
    load.relay.map_or(0, |relay| relay.thousandths).max(dialling)
}

/// All peers by their ids, the one first whose turn it is.
fn in_turn(turn: u64, us: PeerId, own: Listed, others: BTreeMap<PeerId, Found>) -> Vec<Listed> {
    let others = others.into_iter().map(|(peer, found)| (peer, listed(&found)));
    let mut all: BTreeMap<PeerId, Listed> = others.collect();
    all.insert(us, own);
    all.retain(|_, one| !one.addrs.is_empty());
    let mut all: Vec<Listed> = all.into_values().collect();
    let count = u64::try_from(all.len()).unwrap_or(u64::MAX).max(1);
    let first = usize::try_from(turn % count).unwrap_or(0);
    // No more than there are; of none, none.
    let first = first.min(all.len());
    all.rotate_left(first);
    all.truncate(LISTED_PEERS_MAX);
    all
}

fn listed(found: &Found) -> Listed {
    let mut listed = found.said.as_ref().map_or_else(Listed::default, |said| said.listed());
    listed.addrs = found.addrs.iter().take(LISTED_ADDRS_MAX).map(ToString::to_string).collect();
    listed.dialled_s_ago = Some(found.dialled_ago.as_secs());
    listed.rtt_ms = found.rtt.map(|rtt| u64::try_from(rtt.as_millis()).unwrap_or(u64::MAX));
    listed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_comes_first_as_often_as_the_others() {
        let us = PeerId::random();
        let named = |name: String| {
            let mut listed = Listed::default();
            listed.addrs = vec![name];
            listed
        };
        let found = |name: u8| Found {
            addrs: vec![format!("/ip4/44.0.0.{name}/tcp/1").parse().expect("a multiaddr")],
            dialled_ago: Duration::from_secs(1),
            rtt: None,
            said: None,
        };
        let others: BTreeMap<PeerId, Found> =
            (1..=3).map(|n| (PeerId::random(), found(n))).collect();
        let mut first: BTreeMap<String, usize> = BTreeMap::new();
        for turn in 0..100 {
            let all = in_turn(turn, us, named("us".into()), others.clone());
            assert_eq!(all.len(), 4);
            *first.entry(all[0].addrs[0].clone()).or_default() += 1;
        }
        assert_eq!(first.into_values().collect::<Vec<_>>(), [25; 4]);
    }

    #[test]
    fn the_load_is_that_of_the_busiest_service() {
        let mut busy = Load::default();
        assert_eq!(load(&busy, 8), 0);
        busy.dial_backs = 4;
        assert_eq!(load(&busy, 8), 500);
        busy.dial_backs = 100;
        assert_eq!(load(&busy, 8), 1_000);
    }
}
