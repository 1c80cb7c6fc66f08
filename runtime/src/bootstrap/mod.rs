//! Where a node that knows nobody starts from: lists of peers on the web.
//!
//! ```text
//!  URLs, all at once ─► documents ─► lists ─► a queue, the best first ─► dials, a few at a time
//!                          └► none is good: the last good ones, from disk
//! ```
//!
//! [`Node::bootstrap`] does all of it, and tells what happens. The first list that comes is used at once;
//! others add to it. A list proves nothing: peers are dialled, and judged by what they do. What one
//! list names counts as one network where several have to agree ([`Node::introduce`]).
//! `docs/bootstrap.md` has the format of the documents.

mod cache;
mod document;
mod order;

pub use crate::http::{AuthoritiesError, FetchError, Url, UrlError};
pub use cache::CacheError;
pub use document::{
    DOCUMENT_BYTES_MAX, Document, DocumentError, LISTED_ADDRS_MAX, LISTED_PEERS_MAX, List, Listed,
    ListedPeer, read,
};

use crate::http::{self, Tls};
use crate::names::NameError;
use crate::node::{DialError, Dialled, Node};
use crate::traits::Runtime;
use async_channel::{Receiver, Sender};
use cache::Cache;
use futures::channel::oneshot;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, Stream, StreamExt};
use futures::{FutureExt, select_biased};
use multiaddr::Multiaddr;
use order::Queue;
use portolan_core::{PeerId, UnixTime};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

/// URLs that are asked, number; ours. When full, further ones are left out, and a warning says so.
pub const URLS_MAX: usize = 16;
/// Peers that are dialled at once, number; ours: what answers within a round trip of the first list.
/// When full, others wait for their turn.
const AT_ONCE_MAX: usize = 8;
/// News that wait to be taken, number; ours. When full, nothing goes on until some are.
const NEWS_MAX: usize = 64;

/// Where to start from. Built by `BootstrapConfig::default()` and assignment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BootstrapConfig {
    /// The URLs of lists, up to [`URLS_MAX`] of them; all are asked at once.
    pub urls: Vec<Url>,
    /// Take lists over plain `http` as well, from other hosts than this: everybody on the way can
    /// change them.
    pub insecure_http: bool,
    /// Believe private addresses, for tests and labs.
    pub allow_private: bool,
    /// Where to keep the last good lists; they are used where no URL has one.
    pub cache: Option<PathBuf>,
    /// The certificate authorities to trust, each as DER. Without any: those of this host.
    pub authorities: Vec<Vec<u8>>,
    /// How many peers to connect to; others are in reserve for those that cannot be reached.
    pub wanted: usize,
}

impl Default for BootstrapConfig {
    fn default() -> Self {
        BootstrapConfig {
            urls: Vec::new(),
            insecure_http: false,
            allow_private: false,
            cache: None,
            authorities: Vec::new(),
            // As many as core asks about an address at most.
            wanted: 8,
        }
    }
}

/// What happens while a node starts from lists.
#[derive(Debug)]
#[non_exhaustive]
pub enum BootstrapNews {
    /// A URL had a list.
    Listed {
        /// The URL.
        url: Url,
        /// What it said.
        list: List,
    },
    /// A URL had none.
    Failed {
        /// The URL.
        url: Url,
        /// Why not.
        error: SourceError,
    },
    /// No URL had a list; this is the last good one of one of them.
    Remembered {
        /// The URL.
        url: Url,
        /// When it had it.
        at: UnixTime,
        /// What it said.
        list: List,
    },
    /// What was kept cannot be read.
    Forgetful(CacheError),
    /// A peer is dialled.
    Dialling {
        /// Who.
        peer: PeerId,
        /// Where.
        addr: Multiaddr,
        /// The URL whose list named it.
        url: Url,
    },
    /// A dial has ended.
    Dialled {
        /// Where.
        addr: Multiaddr,
        /// What came of it.
        result: Result<Dialled, DialError>,
    },
}

/// Why a URL had no list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The document could not be had.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The document is of no use.
    #[error("the document {0}")]
    Document(#[from] DocumentError),
}

/// A node that starts from lists. It does so while this is polled, and stops when it is dropped; dials that are
/// under way then go on. Ends when enough peers are connected, or none is left to try.
pub struct Bootstrap {
    news: Pin<Box<Receiver<BootstrapNews>>>,
    course: Option<BoxFuture<'static, ()>>,
    keeping: Keeping,
}

/// What is being written to disk.
type Keeping = Arc<Mutex<Vec<oneshot::Receiver<()>>>>;

impl Bootstrap {
    /// Stop, and wait until the lists that came are kept.
    pub async fn close(mut self) {
        self.course = None;
        let keeping = std::mem::take(&mut *lock(&self.keeping));
        // Who could not write has said so in the log.
        futures::future::join_all(keeping).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stream for Bootstrap {
    type Item = BootstrapNews;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<BootstrapNews>> {
        if let Some(course) = &mut self.course
            && course.poll_unpin(cx).is_ready()
        {
            // It held the sender: what waits is all there is.
            self.course = None;
        }
        self.news.as_mut().poll_next(cx)
    }
}

impl fmt::Debug for Bootstrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bootstrap").finish_non_exhaustive()
    }
}

impl<R: Runtime> Node<R> {
    /// Start from lists of peers: fetch them, and connect to some of those that they name.
    #[must_use]
    pub fn bootstrap(&self, config: BootstrapConfig) -> Bootstrap {
        let (sender, receiver) = async_channel::bounded(NEWS_MAX);
        let keeping = Keeping::default();
        let mut course = Course::new(self.clone(), config, sender);
        course.keeping = keeping.clone();
        Bootstrap { news: Box::pin(receiver), course: Some(course.run().boxed()), keeping }
    }

    /// The list at a URL, once.
    ///
    /// # Errors
    /// See [`SourceError`].
    pub async fn fetch_list(
        &self,
        url: &Url,
        config: &BootstrapConfig,
    ) -> Result<List, SourceError> {
        let tls = tls(config, url.is_secure()).await;
        fetch(self, url, config, tls.as_ref()).await
    }
}

/// What it takes to verify certificates; nothing where none are to be.
async fn tls(config: &BootstrapConfig, wanted: bool) -> Option<Result<Tls, AuthoritiesError>> {
    if !wanted {
        return None;
    }
    let authorities = config.authorities.clone();
    // It reads files, some hundred of them on some hosts.
    blocking(move || Tls::new(&authorities)).await
}

/// Do what waits for the disk, in a thread of its own that lives no longer.
async fn blocking<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = oneshot::channel();
    let name = "portolan-bootstrap".to_owned();
    let spawned = std::thread::Builder::new().name(name).spawn(move || {
        // Whoever asked may be gone.
        let _ = sender.send(job());
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, "no thread is to be had");
        return None;
    }
    receiver.await.ok()
}

async fn fetch<R: Runtime>(
    node: &Node<R>,
    url: &Url,
    config: &BootstrapConfig,
    tls: Option<&Result<Tls, AuthoritiesError>>,
) -> Result<List, SourceError> {
    if !url.is_secure() && !url.is_loopback() && !config.insecure_http {
        return Err(FetchError::Insecure.into());
    }
    let tls = match tls {
        Some(Ok(tls)) => Some(tls),
        Some(Err(error)) if url.is_secure() => return Err(FetchError::from(error.clone()).into()),
        Some(Err(_)) | None => None,
    };
    let document = http::get(node, url, tls, DOCUMENT_BYTES_MAX).await?;
    Ok(read(&document, config.allow_private)?)
}

impl<R: Runtime> http::Client<R> for Node<R> {
    fn runtime(&self) -> &R {
        Node::runtime(self)
    }

    async fn ips(&self, name: &str) -> Result<Vec<IpAddr>, NameError> {
        let servers = self.resolver().servers().iter().map(|server| server.ip()).collect();
        http::Client::about_to_contact(self, servers).await;
        self.resolver().ips(name).await
    }

    async fn about_to_contact(&self, ips: Vec<IpAddr>) {
        // After a shutdown nobody judges any more.
        let _ = Node::about_to_contact(self, ips).await;
    }
}

/// The course of one start.
struct Course<R: Runtime> {
    node: Node<R>,
    config: BootstrapConfig,
    news: Sender<BootstrapNews>,
    queue: Queue,
    /// Which list named whom, first.
    named_by: BTreeMap<PeerId, usize>,
    /// Dials under way, by peer.
    dialling: BTreeMap<PeerId, usize>,
    connected: BTreeSet<PeerId>,
    /// Whether some list was good.
    has_list: bool,
    keeping: Keeping,
    /// One writes at a time.
    disk: Arc<Mutex<()>>,
}

impl<R: Runtime> Course<R> {
    fn new(node: Node<R>, mut config: BootstrapConfig, news: Sender<BootstrapNews>) -> Course<R> {
        if config.urls.len() > URLS_MAX {
            tracing::warn!(given = config.urls.len(), max = URLS_MAX, "too many bootstrap URLs");
            config.urls.truncate(URLS_MAX);
        }
        Course {
            node,
            config,
            news,
            queue: Queue::default(),
            named_by: BTreeMap::new(),
            dialling: BTreeMap::new(),
            connected: BTreeSet::new(),
            has_list: false,
            keeping: Keeping::default(),
            disk: Arc::default(),
        }
    }

    async fn run(mut self) {
        let secure = self.config.urls.iter().any(Url::is_secure);
        let tls = tls(&self.config, secure).await;
        let (node, config) = (self.node.clone(), self.config.clone());
        let fetches = config.urls.iter().enumerate().map(|(source, url)| {
            fetch(&node, url, &config, tls.as_ref()).map(move |fetched| (source, fetched))
        });
        let mut fetches: FuturesUnordered<_> = fetches.collect();
        let mut dials = FuturesUnordered::new();
        let mut remembers = true;
        loop {
            for (peer, addr) in self.refill().await {
                let dial = node.dial(addr.clone());
                dials.push(dial.map(move |result| (peer, addr, result)));
            }
            select_biased! {
                (source, fetched) = fetches.select_next_some() => self.fetched(source, fetched).await,
                (peer, addr, result) = dials.select_next_some() => {
                    self.dialled(peer, addr, result).await;
                }
                complete => {
                    // Nobody answered: what was good once may still be.
                    if !remembers || self.has_list {
                        break;
                    }
                    remembers = false;
                    self.remember().await;
                }
            }
        }
    }

    async fn tell(&self, news: BootstrapNews) {
        // Who does not listen any more polls this no more either.
        let _ = self.news.send(news).await;
    }

    async fn fetched(&mut self, source: usize, fetched: Result<List, SourceError>) {
        let Some(url) = self.config.urls.get(source).cloned() else { return };
        match fetched {
            Ok(list) => {
                self.listed(source, &list);
                self.has_list = true;
                self.keep(url.clone(), list.clone());
                self.tell(BootstrapNews::Listed { url, list }).await;
            }
            Err(error) => self.tell(BootstrapNews::Failed { url, error }).await,
        }
    }

    fn listed(&mut self, source: usize, list: &List) {
        for peer in &list.peers {
            self.named_by.entry(peer.peer).or_insert(source);
        }
        self.queue.add(source, list);
    }

    /// Take from the queue while somebody is missing: the peers to dial, at each of their addresses.
    async fn refill(&mut self) -> Vec<(PeerId, Multiaddr)> {
        let mut dials = Vec::new();
        let stand: BTreeSet<PeerId> = match self.queue.is_empty() {
            true => BTreeSet::new(),
            false => self.stand().await,
        };
        while self.dialling.len() < AT_ONCE_MAX
            && self.dialling.len() + self.connected.len() < self.config.wanted
        {
            let Some(peer) = self.queue.next() else { break };
            let named_by = self.named_by.get(&peer.peer).copied().unwrap_or_default();
            let Some(url) = self.config.urls.get(named_by).cloned() else { break };
            if peer.peer == self.node.peer_id() || self.connected.contains(&peer.peer) {
                continue;
            }
            let source = u16::try_from(named_by).unwrap_or(u16::MAX);
            // After a shutdown the dials say so.
            let _ = self.node.introduce(peer.peer, source).await;
            if stand.contains(&peer.peer) {
                self.connected.insert(peer.peer);
                continue;
            }
            for addr in peer.addrs {
                let (peer, url) = (peer.peer, url.clone());
                self.tell(BootstrapNews::Dialling { peer, addr: addr.clone(), url }).await;
                *self.dialling.entry(peer).or_default() += 1;
                dials.push((peer, addr));
            }
        }
        dials
    }

    /// Whom we are connected to directly, on whatever occasion.
    async fn stand(&self) -> BTreeSet<PeerId> {
        let all = self.node.connections().await;
        all.iter().filter(|one| !one.relayed && !one.closing).map(|one| one.peer).collect()
    }

    async fn dialled(&mut self, peer: PeerId, addr: Multiaddr, result: Result<Dialled, DialError>) {
        if let Some(count) = self.dialling.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                self.dialling.remove(&peer);
            }
        }
        if result.is_ok() {
            self.connected.insert(peer);
        }
        self.tell(BootstrapNews::Dialled { addr, result }).await;
    }

    /// Take the last good lists in place of those that could not be had.
    async fn remember(&mut self) {
        let Some(path) = self.config.cache.clone() else { return };
        let cache = match blocking(move || Cache::read(&path)).await {
            Some(Ok(cache)) => cache,
            Some(Err(error)) => return self.tell(BootstrapNews::Forgetful(error)).await,
            None => return,
        };
        for (source, url) in self.config.urls.clone().into_iter().enumerate() {
            // Nobody on the way has changed it since; but what is not to be had now was not taken then.
            if let Some((at, list)) = cache.get(&url, self.config.allow_private) {
                self.listed(source, &list);
                let at = UnixTime::from_millis(at.saturating_mul(1_000));
                self.tell(BootstrapNews::Remembered { url, at, list }).await;
            }
        }
    }

    /// Keep a list that was good, beside the others, in a thread that ends when it is on the disk.
    fn keep(&mut self, url: Url, list: List) {
        let Some(path) = self.config.cache.clone() else { return };
        let at = self.node.runtime().unix().as_millis() / 1_000;
        let (disk, (sender, receiver)) = (self.disk.clone(), oneshot::channel());
        let name = "portolan-bootstrap".to_owned();
        let spawned = std::thread::Builder::new().name(name).spawn(move || {
            let _alone = lock(&disk);
            let kept = Cache::read(&path).and_then(|mut cache| {
                cache.put(&url, at, &list);
                cache.write(&path)
            });
            if let Err(error) = kept {
                tracing::warn!(%error, "a bootstrap list is not kept");
            }
            // Whoever waited may be gone.
            let _ = sender.send(());
        });
        match spawned {
            Ok(_) => lock(&self.keeping).push(receiver),
            Err(error) => tracing::warn!(%error, "no thread is to be had"),
        }
    }
}
