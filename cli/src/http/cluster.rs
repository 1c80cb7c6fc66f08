//! The others of a cluster: whom the operator named, and whom those list, as far as we dialled them.

use multiaddr::Multiaddr;
use portolan_core::{Duration, Instant, PeerId};
use portolan_runtime::bootstrap::{BootstrapConfig, ListedPeer, Url};
use portolan_runtime::traits::Runtime;
use portolan_runtime::{Dialled, Node, destination};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How often others are asked and dialled, seconds; ours. Who died is listed for longer if it grows.
const INTERVAL: Duration = Duration::from_secs(30);
/// How soon somebody who was not there is tried again at first, seconds; ours: processes of one cluster
/// start together. It doubles up to [`INTERVAL`].
const RETRY: Duration = Duration::from_secs(1);
/// How long somebody is listed after the last dial that succeeded, seconds; ours: two rounds and a dial.
const FRESH: Duration = Duration::from_secs(75);
/// Others that are known, number; as many as a list may name. When full, further ones are not tried.
const OTHERS_MAX: usize = 64;
/// Addresses that are tried of one of them, number; ours. When full, further ones are not.
const ADDRS_MAX: usize = 8;

/// Somebody who belongs to the cluster, as the operator names him.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Member {
    /// The URL of a list; whoever is on it belongs to the cluster.
    List(Url),
    /// A peer.
    Peer(Multiaddr),
}

/// A cluster of servers that list each other.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ClusterOptions {
    /// The others.
    pub members: Vec<Member>,
    /// Take their lists over plain `http` from other hosts as well.
    pub insecure_http: bool,
}

/// Somebody else of the cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct Other {
    /// Addresses to try: those that were named, and those that lists gave.
    to_try: Vec<Multiaddr>,
    /// Where it was found, and when last.
    found: BTreeMap<Multiaddr, Instant>,
    rtt: Option<Duration>,
    /// What its own list says of it.
    said: Option<ListedPeer>,
    source: u16,
}

/// What is listed of one of the others.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) addrs: Vec<Multiaddr>,
    pub(crate) dialled_ago: Duration,
    pub(crate) rtt: Option<Duration>,
    pub(crate) said: Option<ListedPeer>,
}

/// The others.
#[derive(Debug, Default)]
pub(crate) struct Cluster(Mutex<BTreeMap<PeerId, Other>>);

impl Cluster {
    /// Those that were dialled with success not long ago, by their ids.
    pub(crate) fn found(&self, now: Instant) -> BTreeMap<PeerId, Found> {
        let others = self.lock();
        let found = others.iter().filter_map(|(peer, other)| Some((*peer, other.listed(now)?)));
        found.collect()
    }

    /// Ask and dial the members, over and over.
    pub(crate) async fn follow<R: Runtime>(
        &self,
        runtime: &R,
        node: &Node<R>,
        members: &[Member],
        config: &BootstrapConfig,
    ) -> Infallible {
        let mut pause = RETRY;
        loop {
            let is_whole = self.round(node, members, config).await;
            pause = if is_whole { INTERVAL } else { pause.min(INTERVAL) };
            runtime.sleep(pause).await;
            pause = (pause * 2).min(INTERVAL);
        }
    }

    /// One round; whether everybody was there.
    async fn round<R: Runtime>(
        &self,
        node: &Node<R>,
        members: &[Member],
        config: &BootstrapConfig,
    ) -> bool {
        let asked = members.iter().enumerate().map(|(number, member)| async move {
            let source = u16::try_from(number).unwrap_or(u16::MAX);
            match member {
                Member::List(url) => self.ask(node, (url, source), config).await,
                Member::Peer(addr) => self.dial(node, addr.clone(), source).await,
            }
        });
        let asked = futures::future::join_all(asked).await;
        let known: Vec<(Multiaddr, u16)> = {
            let others = self.lock();
            let of = |other: &Other| {
                let source = other.source;
                let to_try = other.to_try.clone().into_iter();
                to_try.map(move |addr| (addr, source)).collect::<Vec<_>>()
            };
            others.values().flat_map(of).collect()
        };
        let dials = known.into_iter().map(|(addr, source)| self.dial(node, addr, source));
        let dialled = futures::future::join_all(dials).await;
        asked.iter().chain(&dialled).all(|went| *went)
    }

    /// Take in whom a list names.
    async fn ask<R: Runtime>(
        &self,
        node: &Node<R>,
        (url, source): (&Url, u16),
        config: &BootstrapConfig,
    ) -> bool {
        let list = match node.fetch_list(url, config).await {
            Ok(list) => list,
            Err(error) => {
                tracing::info!(%url, %error, "no list of the cluster's");
                return false;
            }
        };
        let mut others = self.lock();
        for peer in list.peers {
            let is_own_word = list.served_by == Some(peer.peer);
            if peer.peer == node.peer_id()
                || !others.contains_key(&peer.peer) && others.len() >= OTHERS_MAX
            {
                continue;
            }
            let fresh = || Other { source, ..Other::default() };
            let other = others.entry(peer.peer).or_insert_with(fresh);
            other.may_be_at(&peer.addrs);
            // Of itself everybody knows best; others pass on what they heard.
            if is_own_word || other.said.is_none() {
                other.said = Some(peer);
            }
        }
        true
    }

    /// Dial an address, and list it if that went well.
    async fn dial<R: Runtime>(&self, node: &Node<R>, addr: Multiaddr, source: u16) -> bool {
        match node.dial(addr.clone()).await {
            Ok(dialled) => {
                // After a shutdown nobody is dialled.
                let _ = node.introduce(dialled.peer, source).await;
                self.found_at(node.now(), &dialled, source);
                true
            }
            Err(error) => {
                tracing::info!(%error, "one of the cluster is not reached");
                false
            }
        }
    }

    fn found_at(&self, now: Instant, dialled: &Dialled, source: u16) {
        let mut others = self.lock();
        if !others.contains_key(&dialled.peer) && others.len() >= OTHERS_MAX {
            return;
        }
        let fresh = || Other { source, ..Other::default() };
        let other = others.entry(dialled.peer).or_insert_with(fresh);
        let addr = portolan_core::wire::multiaddr::to_multiaddr(dialled.remote, Some(dialled.peer));
        other.may_be_at(std::slice::from_ref(&addr));
        other.rtt = dialled.rtt.or(other.rtt);
        other.found.insert(addr, now);
        other.found.retain(|_, at| now < *at + FRESH);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PeerId, Other>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Other {
    fn may_be_at(&mut self, addrs: &[Multiaddr]) {
        let usable = addrs.iter().filter(|addr| destination(addr).is_ok());
        for addr in usable {
            if self.to_try.len() < ADDRS_MAX && !self.to_try.contains(addr) {
                self.to_try.push(addr.clone());
            }
        }
    }

    fn listed(&self, now: Instant) -> Option<Found> {
        let fresh = self.found.iter().filter(|(_, at)| now < **at + FRESH);
        let addrs: Vec<Multiaddr> = fresh.clone().map(|(addr, _)| addr.clone()).collect();
        let last = fresh.map(|(_, at)| *at).max()?;
        let (dialled_ago, rtt, said) = (now.since(last), self.rtt, self.said.clone());
        Some(Found { addrs, dialled_ago, rtt, said })
    }
}
