//! `portolan watch`: the long-running client. It keeps servers at hand, tells what changes, and keeps on
//! disk what makes the next start quick.
//!
//! ```text
//!  state ─► order of peers ─► keeper: dials, dials again ─► node ─► notices ─► news, hooks, state
//! ```

mod hook;
mod keeper;
mod state;

pub use hook::Hook;
pub use state::{StateError, StateFile};

use crate::check::{self, CheckError, CheckOptions};
use crate::report::{PeerReport, Report};
use crate::timeline::{self, Timeline};
use futures::future::{FutureExt, select};
use futures::stream::StreamExt;
use futures::{pin_mut, select_biased};
use keeper::Keeper;
use portolan_core::{Duration, Explanation, Instant, Notice};
use portolan_runtime::traits::Runtime;
use portolan_runtime::{Node, Notices};
use state::Network;
use std::future::Future;
use std::path::PathBuf;

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
    let WatchOptions { mut check, state } = options;
    let state = state.map(StateFile::open).transpose()?;
    let here = Network::here();
    let known = state.as_ref().map(|state| state.known(&here)).unwrap_or_default();
    let peers = keeper::in_order(&check.peers, &known);
    if peers.is_empty() {
        return Err(CheckError::NoPeers.into());
    }
    check.peers = peers.iter().map(|peer| peer.addr.clone()).collect();
    check.ledger = state.as_ref().filter(|_| check.map).map(StateFile::ledger);
    let (node, notices) =
        check::start_node(&runtime, &check, known.port).await.map_err(CheckError::from)?;
    let contacted = state.as_ref().map(StateFile::contacted).unwrap_or_default();
    // The node has just begun; where it is over already, that is found out below.
    let _ = node.has_contacted(contacted).await;
    let mut saved = Saved { state, here };
    {
        let keeper = Keeper::new(runtime.clone(), &node, peers);
        let since = node.now();
        let mut watch = Watch { node: &node, since, keeper, told: None, news: &mut news };
        let watch = watch.run(&runtime, notices, &mut saved);
        pin_mut!(watch, stop);
        select(watch, stop).await;
    }
    saved.save(&node).await;
    node.shutdown().await;
    Ok(())
}

/// What is kept on disk, if anything is, and of which network.
struct Saved {
    state: Option<StateFile>,
    here: Network,
}

impl Saved {
    async fn save<R: Runtime>(&mut self, node: &Node<R>) {
        let Some(state) = &mut self.state else { return };
        let (Ok(explanation), contacted) = (node.explain().await, node.contacted().await) else {
            return;
        };
        let listeners = node.listeners().await;
        if let Err(error) = state.save(&self.here, &explanation, &contacted, &listeners) {
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
                    saved.save(self.node).await;
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
        let at = at.since(self.since);
        if missed > 0 {
            let text = format!("{missed} notices were lost: too many at once");
            (self.news)(WatchNews::Noticed { at, notice: None, text });
        }
        let text = timeline::words(notice);
        (self.news)(WatchNews::Noticed { at, notice: Some(notice.clone()), text });
    }

    fn peer(&mut self, text: &str) {
        let at = self.node.now().since(self.since);
        (self.news)(WatchNews::Peer { at, text: text.to_owned() });
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
