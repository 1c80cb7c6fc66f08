//! The main job: dial peers, follow what the node learns, end when nothing more is to be learnt.

use crate::lists;
use crate::report::{PeerFate, PeerReport, Report, SourceReport};
use crate::timeline::Timeline;
use futures::future::{self, Fuse, FusedFuture, FutureExt};
use futures::stream::{FuturesUnordered, StreamExt};
use futures::{pin_mut, select_biased};
use multiaddr::Multiaddr;
use portolan_core::{
    ConnId, Duration, Explanation, Instant, Mapping, MappingState, NodeState, Notice, RelayNotice,
    RelayState, Scope, State,
};
use portolan_runtime::bootstrap::{BootstrapConfig, BootstrapNews};
use portolan_runtime::traits::Runtime;
use portolan_runtime::{DialError, Dialled, Node, Noticed, Notices, Stopped};
use std::collections::BTreeMap;

/// How long a router may take until a job ends without its mapping; ours: those that map answer in
/// one second.
const MAPPING_PATIENCE: Duration = Duration::from_secs(3);
/// How long relays may take once everything else is known; ours: core gives an undecided node one
/// second and a relay three for its answer.
const RELAY_PATIENCE: Duration = Duration::from_secs(5);

/// What a job is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    /// Who is dialled.
    pub(crate) peers: &'a [Multiaddr],
    /// Lists that name others.
    pub(crate) bootstrap: Option<&'a BootstrapConfig>,
    /// Whether there are relays beside them.
    pub(crate) relays: bool,
    /// When it ends without a verdict.
    pub(crate) timeout: Duration,
}

/// How far a job has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Peers that are to be dialled.
    pub peers: usize,
    /// Peers that are connected.
    pub connected: usize,
    /// Peers that could not be reached.
    pub failed: usize,
    /// Addresses that may be ours.
    pub addresses: usize,
    /// Those of them that have a verdict.
    pub decided: usize,
}

/// Dial every peer at once, and those that lists name in their turn, and report when nothing more is to be learnt or the time is up. `notices` is a subscription of the node's.
///
/// # Errors
/// If the node shuts down meanwhile.
pub(crate) async fn run<R: Runtime>(
    runtime: &R,
    node: &Node<R>,
    notices: Notices,
    Asked { peers, bootstrap, relays, timeout }: Asked<'_>,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Report, Stopped> {
    let mut job = Job::new(node.now(), peers);
    job.knows_relays = relays;
    let mut bootstrap = bootstrap.map(|config| node.bootstrap(config.clone()));
    job.bootstraps = bootstrap.is_some();
    let mut dials: FuturesUnordered<_> = peers
        .iter()
        .enumerate()
        .map(|(index, peer)| node.dial(peer.clone()).map(move |dialled| (index, dialled)))
        .collect();
    let mut notices = notices.fuse();
    let expired = runtime.sleep(timeout).fuse();
    let mapped = runtime.sleep(MAPPING_PATIENCE).fuse();
    let relayed = Fuse::terminated();
    pin_mut!(expired, mapped, relayed);
    let mut waits_for_router = true;
    let (mut is_expired, mut is_stale) = (false, false);
    let explanation = loop {
        let starting = bootstrap.as_mut().filter(|_| job.bootstraps);
        let listed = lists::next_of(starting).fuse();
        let again = at_once(is_stale).fuse();
        pin_mut!(listed, again);
        // The order matters only where much comes at once: the time-out is never drowned in news.
        select_biased! {
            () = expired => {
                is_expired = true;
                job.timeline.push(node.now(), "the time is up");
            }
            () = mapped => waits_for_router = false,
            () = relayed => {
                is_expired = true;
                job.timeline.push(node.now(), "relays are waited for no longer");
            }
            (index, dialled) = dials.select_next_some() => match dialled {
                Ok(dialled) => job.dialled(index, &dialled, node.now()),
                Err(error) => job.failed(index, &error, node.now()),
            },
            news = listed => match news {
                Some(news) => job.bootstrapped(news, node.now()),
                None => job.bootstraps = false,
            },
            noticed = notices.select_next_some() => job.noticed(&noticed),
            () = again => {}
        }
        let mut explanation = node.explain().await?;
        // Whatever led to this was told before; and what was told since it may know nothing of.
        is_stale = false;
        while let Some(noticed) = notices.get_mut().try_next() {
            job.noticed(&noticed);
            is_stale = true;
        }
        // Core knows only the moment of its last event.
        explanation.at = explanation.at.max(node.now());
        progress(&job.progress(&explanation));
        let asks = |one: &Mapping| one.state == MappingState::Asking;
        let waits = waits_for_router && explanation.mappings.iter().any(asks);
        let is_over = job.is_over(&explanation) && !waits && !is_stale;
        if is_expired || is_over && !job.waits_for_relays(&explanation) {
            break explanation;
        }
        if is_over && relayed.is_terminated() {
            relayed.set(runtime.sleep(RELAY_PATIENCE).fuse());
        }
    };
    if let Some(bootstrap) = bootstrap {
        bootstrap.close().await;
    }
    let mut report = Report::new(&explanation, job.since, &job.timeline, job.peers());
    report.bootstrap = job.sources;
    Ok(report)
}

/// What is kept while a job runs.
struct Job {
    since: Instant,
    timeline: Timeline,
    peers: Vec<PeerReport>,
    dialling: usize,
    /// Whether lists may still name peers.
    bootstraps: bool,
    /// What became of each list.
    sources: Vec<SourceReport>,
    /// The places of those that lists named, by address, while they are dialled.
    listed: BTreeMap<Multiaddr, usize>,
    /// What the peer of a connection told about itself; nothing is here of those that may still
    /// tell. The notice may come before the dial that made the connection is known to have ended.
    told: BTreeMap<ConnId, Told>,
    /// The connection to each peer, by its index.
    conns: BTreeMap<usize, ConnId>,
    /// Whether there are relays that need not be among the peers.
    knows_relays: bool,
    /// Whether core says that relays are needed.
    needs_relays: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Server,
    NoServer,
    Nothing,
}

impl Job {
    fn new(since: Instant, peers: &[Multiaddr]) -> Job {
        let mut timeline = Timeline::new();
        for peer in peers {
            timeline.push(since, format!("dialling {peer}"));
        }
        Job {
            since,
            timeline,
            peers: peers.iter().map(|peer| PeerReport::new(peer.to_string())).collect(),
            dialling: peers.len(),
            bootstraps: false,
            sources: Vec::new(),
            listed: BTreeMap::new(),
            told: BTreeMap::new(),
            conns: BTreeMap::new(),
            knows_relays: false,
            needs_relays: false,
        }
    }

    fn dialled(&mut self, index: usize, dialled: &Dialled, at: Instant) {
        let peer = &mut self.peers[index];
        self.timeline.push(at, format!("connected to {} from {}", peer.address, dialled.local));
        peer.fate = PeerFate::Connected(dialled.peer);
        self.conns.insert(index, dialled.conn);
        self.dialling -= 1;
    }

    fn failed(&mut self, index: usize, error: &DialError, at: Instant) {
        let error = without_address(error);
        let peer = &mut self.peers[index];
        self.timeline.push(at, format!("cannot reach {}: {error}", peer.address));
        peer.fate = PeerFate::Failed(error);
        self.dialling -= 1;
    }

    fn bootstrapped(&mut self, news: BootstrapNews, at: Instant) {
        if let Some(text) = lists::words(&news) {
            self.timeline.push(at, text);
        }
        match news {
            BootstrapNews::Listed { url, list } => {
                self.sources.push(SourceReport::listed(&url, &list));
            }
            BootstrapNews::Failed { url, error } => {
                self.sources.push(SourceReport::failed(&url, error.to_string()));
            }
            BootstrapNews::Remembered { url, list, .. } => {
                let of_url = |source: &&mut SourceReport| source.url == url.to_string();
                if let Some(source) = self.sources.iter_mut().find(of_url) {
                    source.remembered = Some(list.peers.len());
                }
            }
            BootstrapNews::Dialling { addr, .. } => {
                self.listed.insert(addr.clone(), self.peers.len());
                self.peers.push(PeerReport::new(addr.to_string()));
                self.dialling += 1;
            }
            BootstrapNews::Dialled { addr, result } => {
                let Some(index) = self.listed.remove(&addr) else { return };
                match result {
                    Ok(dialled) => self.dialled(index, &dialled, at),
                    Err(error) => self.failed(index, &error, at),
                }
            }
            BootstrapNews::Forgetful(_) | _ => {}
        }
    }

    fn noticed(&mut self, noticed: &Noticed) {
        self.timeline.notice(noticed.at, noticed.missed, &noticed.notice);
        if let Notice::Identified { conn, server, .. } = noticed.notice {
            self.told.insert(conn, if server { Told::Server } else { Told::NoServer });
        }
        if let Notice::NotIdentified { conn, .. } = noticed.notice {
            self.told.entry(conn).or_insert(Told::Nothing);
        }
        if let Notice::Relay(RelayNotice::NeedChanged { needed }) = noticed.notice {
            self.needs_relays = needed;
        }
    }

    /// The peers, with what they told about themselves.
    fn peers(&self) -> Vec<PeerReport> {
        let told = |index| self.conns.get(&index).and_then(|conn| self.told.get(conn));
        let fate = |(index, peer): (usize, &PeerReport)| {
            let mut peer = peer.clone();
            if let PeerFate::Connected(id) = peer.fate {
                peer.fate = match told(index) {
                    Some(Told::Server) => PeerFate::Server(id),
                    Some(Told::NoServer) => PeerFate::NoServer(id),
                    Some(Told::Nothing) => PeerFate::Silent(id),
                    None => PeerFate::Connected(id),
                };
            }
            peer
        };
        self.peers.iter().enumerate().map(fate).collect()
    }

    /// Whether nothing more is to be learnt: everything that can be proved is, or every peer has
    /// answered and either all is settled or nobody offers to dial back. A peer that takes its
    /// time to connect could still raise `contacted` to `anywhere`, so that it is waited for.
    fn is_over(&self, explanation: &Explanation) -> bool {
        let addresses = &explanation.addresses;
        let anywhere = |scope| scope == Some(Scope::Anywhere);
        let proved = !addresses.is_empty() && addresses.iter().all(|a| anywhere(a.scope));
        if explanation.settled && proved {
            return true;
        }
        let answered = self.dialling == 0
            && !self.bootstraps
            && self.conns.values().all(|c| self.told.contains_key(c));
        // What AutoNAT v1 servers say is told as well, though it proves nothing.
        let answered = answered && !explanation.hearsay.pending;
        answered && (explanation.settled || !self.told.values().any(|told| *told == Told::Server))
    }

    /// Whether a relay may yet take us in or refuse to.
    fn waits_for_relays(&self, explanation: &Explanation) -> bool {
        if !self.needs_relays {
            // A node about which nothing can be learnt needs them as well, a little later.
            return self.knows_relays && explanation.state == NodeState::Unknown;
        }
        let is = |state| explanation.relays.iter().any(|relay| relay.state == state);
        let may_ask = is(RelayState::Connecting) || is(RelayState::Spare);
        is(RelayState::Asking) || may_ask && !is(RelayState::Reserved)
    }

    fn progress(&self, explanation: &Explanation) -> Progress {
        let failed = |peer: &&PeerReport| matches!(peer.fate, PeerFate::Failed(_));
        Progress {
            peers: self.peers.len(),
            connected: self.conns.len(),
            failed: self.peers.iter().filter(failed).count(),
            addresses: explanation.addresses.len(),
            decided: explanation.addresses.iter().filter(|a| a.state != State::Unknown).count(),
        }
    }
}

/// Resolves at once where this holds, and never otherwise.
async fn at_once(holds: bool) {
    if !holds {
        future::pending().await
    }
}

/// The error in words. The line that it stands in names the address already.
#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "errors may be added; the words of each do, and only these two repeat the address"
)]
fn without_address(error: &DialError) -> String {
    match error {
        DialError::Address { error, .. } => error.to_string(),
        DialError::Failed { error, .. } => error.to_string(),
        _ => error.to_string(),
    }
}
