//! `portolan watch`: the long-running client. It keeps servers at hand, tells what changes, and keeps on
//! disk what makes the next start quick.
//!
//! ```text
//!  state ─► order of peers ─► keeper: dials, dials again ─► node ─► notices ─► news, hooks, state
//! ```

mod hook;
mod keeper;
mod recent;
mod state;
mod view;

pub use hook::Hook;
pub use state::{StateError, StateFile};

use crate::check::{self, CheckError, CheckOptions};
use crate::http::{Clock, HttpError, HttpOptions, HttpServer, Live, Page, Routes};
use crate::relays;
use crate::report::{PeerReport, Report};
use crate::timeline::{self, Timeline};
use futures::future::FutureExt;
use futures::stream::StreamExt;
use futures::{pin_mut, select_biased};
use keeper::Keeper;
use portolan_core::config::RELAYS_MAX;
use portolan_core::{Duration, Explanation, Instant, Notice, PeerId, RelayPeer};
use portolan_runtime::bootstrap::{BootstrapConfig, Url};
use portolan_runtime::traits::Runtime;
use portolan_runtime::{Node, Notices};
use recent::Recent;
use state::{Network, Now};
use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How often the state is written at least, where something has changed; ours. A crash costs as much
/// knowledge; the disk is written less as it grows.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// What to watch, and how. Built by `WatchOptions::default()` and assignment.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct WatchOptions {
    /// Whom to ask, where to listen, and all that a check can be told. The time-out is none.
    pub check: CheckOptions,
    /// A directory for what is to be known at the next start: peers that proved, relays, contacted IPs,
    /// the port, mappings of routers. It is made if it is missing, for its owner alone.
    pub state: Option<PathBuf>,
    /// Show it as a page over HTTP as well.
    pub http: Option<HttpOptions>,
}

/// Why nothing is watched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// As for a check.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// The state cannot be kept.
    #[error(transparent)]
    State(#[from] StateError),
    /// HTTP cannot be served.
    #[error(transparent)]
    Http(#[from] HttpError),
}

/// What is told while it runs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum WatchNews {
    /// The node said something.
    Noticed {
        /// When, from the start on.
        at: Duration,
        /// What. None where so many notices were lost that there was no room for more.
        notice: Option<Notice>,
        /// The same for people.
        text: String,
    },
    /// Something became of a peer that was dialled.
    Peer {
        /// When, from the start on.
        at: Duration,
        /// What, for people.
        text: String,
    },
    /// It is shown as a page there.
    Shown(SocketAddr),
    /// The node stands like this now. What is told of the timeline is empty.
    Stands(Box<Report>),
}

/// Watch until `stop` resolves, then give mappings back and end. `news` is called for everything that
/// happens, and with the whole picture whenever it has changed.
///
/// # Errors
/// If the node does not start, or its state cannot be kept.
pub async fn watch<R: Runtime>(
    runtime: R,
    options: WatchOptions,
    mut news: impl FnMut(WatchNews),
    stop: impl Future<Output = ()>,
) -> Result<(), WatchError> {
    let WatchOptions { mut check, state, http } = options;
    // A port that is in use is told before anything else begins.
    let web = http.as_ref().map(|http| HttpServer::listen(http.addr)).transpose()?;
    let state = state.map(StateFile::open).transpose()?;
    let here = Network::here();
    let known = state.as_ref().map(|state| state.known(&here)).unwrap_or_default();
    let peers = keeper::in_order(&check.peers, &known);
    if peers.is_empty() && check.bootstrap.is_none() {
        return Err(CheckError::NoPeers.into());
    }
    check.peers = peers.iter().map(|peer| peer.addr.clone()).collect();
    check.expects_relays = known.needed_relays;
    check.relays = with_known(&check.relays, &known.relays);
    check.ledger = state.as_ref().filter(|_| check.map).map(StateFile::ledger);
    let (node, notices) =
        check::start_node(&runtime, &check, known.port).await.map_err(CheckError::from)?;
    let contacted = state.as_ref().map(StateFile::contacted).unwrap_or_default();
    // The node has just begun; where it is over already, that is found out below.
    let _ = node.has_contacted(contacted).await;
    introduce(&node, check.bootstrap.as_ref(), &known.named).await;
    let since = node.now();
    let mut saved = Saved { state, here, since };
    let recent = Arc::new(Mutex::default());
    if let Some(web) = &web {
        news(WatchNews::Shown(web.addr()));
    }
    let show = show(&runtime, &node, since, recent.clone(), http.zip(web));
    let watched = {
        let lists = (check.bootstrap, known.named);
        let keeper = Keeper::new(runtime.clone(), &node, peers, lists);
        let (told, news) = (None, &mut news);
        let mut watch = Watch { node: &node, since, keeper, told, recent, news };
        let ended = {
            let run = watch.run(&runtime, notices, &mut saved).fuse();
            let (show, stop) = (show.fuse(), stop.fuse());
            pin_mut!(run, show, stop);
            select_biased! {
                () = stop => Ok(()),
                () = run => Ok(()),
                error = show => Err(error.into()),
            }
        };
        saved.save(&node, watch.keeper.named()).await;
        watch.keeper.close().await;
        ended
    };
    node.shutdown().await;
    watched
}

/// Show the page, if there is to be one. It ends only by failing.
async fn show<R: Runtime>(
    runtime: &R,
    node: &Node<R>,
    since: Instant,
    recent: Arc<Mutex<Recent>>,
    web: Option<(HttpOptions, HttpServer)>,
) -> HttpError {
    let Some((http, web)) = web else { return futures::future::pending().await };
    let (node, of, clock) = (node.clone(), node.clone(), Clock::set(since));
    let live = Live::new(runtime.clone(), (clock, move || of.now()), move || {
        let (node, recent) = (node.clone(), recent.clone());
        let look = async move {
            let explanation = node.explain().await.ok()?;
            let report = Report::new(&explanation, since, &Timeline::new(), Vec::new());
            let recent = recent.lock().unwrap_or_else(PoisonError::into_inner);
            Some(view::view(&explanation, &report, &recent, clock, since))
        };
        look.boxed()
    });
    let mut routes = Routes::default();
    routes.page(Page::new("the program itself, in its terminal or with --json"), live);
    match web.run(runtime.clone(), routes, http.names).await {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

/// The relays that were given, and as many of those known as fit beside them.
fn with_known(given: &[RelayPeer], known: &[RelayPeer]) -> Vec<RelayPeer> {
    let mut all = relays::distinct(given);
    let new = relays::distinct(known).into_iter();
    let new: Vec<_> = new.filter(|one| all.iter().all(|given| given.peer != one.peer)).collect();
    let room = RELAYS_MAX.saturating_sub(all.len());
    all.extend(new.into_iter().take(room));
    all
}

/// Say which lists named whom in earlier runs: those whom one list names count as one.
async fn introduce<R: Runtime>(
    node: &Node<R>,
    lists: Option<&BootstrapConfig>,
    named: &BTreeMap<PeerId, Url>,
) {
    let mut urls: Vec<&Url> = lists.iter().flat_map(|lists| &lists.urls).collect();
    for (peer, url) in named {
        let known = urls.iter().position(|one| *one == url);
        let source = known.unwrap_or_else(|| {
            urls.push(url);
            urls.len() - 1
        });
        // The node has just begun; where it is over already, that is found out later.
        let _ = node.introduce(*peer, u16::try_from(source).unwrap_or(u16::MAX)).await;
    }
}

/// What is kept on disk, if anything is, and of which network.
struct Saved {
    state: Option<StateFile>,
    here: Network,
    /// When it was said whom earlier runs had contacted.
    since: Instant,
}

impl Saved {
    async fn save<R: Runtime>(&mut self, node: &Node<R>, named: &BTreeMap<PeerId, Url>) {
        let Some(state) = &mut self.state else { return };
        let (Ok(explanation), contacted) = (node.explain().await, node.contacted().await) else {
            return;
        };
        let (listeners, begun_ago) = (node.listeners().await, node.now().since(self.since));
        let now = Now {
            explanation: &explanation,
            contacted: &contacted,
            begun_ago,
            listeners: &listeners,
            named,
        };
        if let Err(error) = state.save(&self.here, &now) {
            tracing::warn!(%error, "what is known now will not be known at the next start");
        }
    }
}

/// What is kept while it runs.
struct Watch<'a, R: Runtime> {
    node: &'a Node<R>,
    since: Instant,
    keeper: Keeper<'a, R>,
    /// What was told last.
    told: Option<Report>,
    /// What happened lately, for the page.
    recent: Arc<Mutex<Recent>>,
    news: &'a mut dyn FnMut(WatchNews),
}

impl<R: Runtime> Watch<'_, R> {
    /// Follow what happens until the node is over.
    async fn run(&mut self, runtime: &R, notices: Notices, saved: &mut Saved) {
        let mut notices = notices.fuse();
        let mut changes = self.node.connection_changes().fuse();
        let mut save_at = runtime.sleep(SAVE_EVERY).boxed().fuse();
        loop {
            select_biased! {
                noticed = notices.next() => match noticed {
                    Some(noticed) => self.noticed(noticed.at, noticed.missed, &noticed.notice),
                    None => return,
                },
                _ = changes.next() => self.keeper.look().await,
                text = self.keeper.next().fuse() => self.peer(&text),
                () = save_at => {
                    saved.save(self.node, self.keeper.named()).await;
                    save_at = runtime.sleep(SAVE_EVERY).boxed().fuse();
                    continue;
                }
            }
            while let Some(noticed) = notices.get_mut().try_next() {
                self.noticed(noticed.at, noticed.missed, &noticed.notice);
            }
            let Ok(explanation) = self.node.explain().await else { return };
            self.keeper.wanted(&explanation);
            self.stands(&explanation);
        }
    }

    fn noticed(&mut self, at: Instant, missed: u64, notice: &Notice) {
        if missed > 0 {
            let text = format!("{missed} notices were lost: too many at once");
            self.recent().push(at, &text);
            let at = at.since(self.since);
            (self.news)(WatchNews::Noticed { at, notice: None, text });
        }
        let text = timeline::words(notice);
        self.recent().noticed(at, notice, &text);
        let at = at.since(self.since);
        (self.news)(WatchNews::Noticed { at, notice: Some(notice.clone()), text });
    }

    fn peer(&mut self, text: &str) {
        let now = self.node.now();
        self.recent().push(now, text);
        (self.news)(WatchNews::Peer { at: now.since(self.since), text: text.to_owned() });
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stands(&mut self, explanation: &Explanation) {
        let peers: Vec<PeerReport> = Vec::new();
        let report = Report::new(explanation, self.since, &Timeline::new(), peers);
        // That time passes is no news.
        let same =
            |told: &Report| Report { elapsed_ms: report.elapsed_ms, ..told.clone() } == report;
        if !self.told.as_ref().is_some_and(same) {
            self.told = Some(report.clone());
            (self.news)(WatchNews::Stands(Box::new(report)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_core::Addr;
    use std::net::Ipv4Addr;

    #[test]
    fn known_relays_never_crowd_out_those_that_are_given() {
        let relay = |number: u16| RelayPeer {
            peer: PeerId::random(),
            addrs: vec![Addr::tcp(Ipv4Addr::new(44, 0, 0, 1).into(), number)],
        };
        let given: Vec<RelayPeer> =
            (1..=u16::try_from(RELAYS_MAX).expect("some") - 1).map(relay).collect();
        // One of them is known at another address as well, and is taken as it was given.
        let mut again = given[0].clone();
        again.addrs[0].port += 1;
        let known = [again, relay(900), relay(901)];
        let all = with_known(&given, &known);
        assert_eq!((all.len(), &all[..given.len()]), (RELAYS_MAX, &given[..]));
        assert_eq!(all.last(), Some(&known[1]));
        assert_eq!(with_known(&[], &known[1..]), known[1..]);
    }
}
