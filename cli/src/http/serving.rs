//! What `serve --http` has at which path.

use super::{
    Answer, Board, Clock, Cluster, ClusterOptions, Figures, HttpError, HttpServer, Live, Page,
    Present, Routes, Status, View, text,
};
use futures::FutureExt;
use futures::future::{Either, select};
use hyper::StatusCode;
use portolan_core::Instant;
use portolan_runtime::bootstrap::BootstrapConfig;
use portolan_runtime::traits::Runtime;
use portolan_runtime::{Node, Noticed};
use std::pin::pin;
use std::sync::Arc;

/// A server that shows itself.
pub(crate) struct Serving<R: Runtime> {
    node: Node<R>,
    cluster: Arc<Cluster>,
    figures: Figures,
    board: Board,
    clock: Clock,
    since: Instant,
    allow_private: bool,
    /// Dial-backs at once at most, for the load.
    dial_backs_max: usize,
}

impl<R: Runtime> Serving<R> {
    /// It begins now.
    pub(crate) fn new(
        node: &Node<R>,
        allow_private: bool,
        dial_backs_max: usize,
    ) -> Arc<Serving<R>> {
        let since = node.now();
        Arc::new(Serving {
            node: node.clone(),
            cluster: Arc::default(),
            figures: Figures::new(dial_backs_max),
            board: Board::default(),
            clock: Clock::set(since),
            since,
            allow_private,
            dial_backs_max,
        })
    }

    /// The node said something.
    pub(crate) fn noticed(&self, Noticed { at, missed, notice, .. }: &Noticed) {
        self.figures.noticed(notice, *missed);
        self.board.noticed(*at, notice, *missed);
    }

    /// Answer whoever asks, and follow the others of the cluster. It ends only by failing.
    pub(crate) async fn run(
        self: &Arc<Self>,
        runtime: &R,
        (web, names): (HttpServer, Vec<String>),
        cluster: &ClusterOptions,
    ) -> HttpError {
        let mut config = BootstrapConfig::default();
        config.allow_private = self.allow_private;
        config.insecure_http = cluster.insecure_http;
        let follow = self.cluster.follow(runtime, &self.node, &cluster.members, &config);
        let serve = web.run(runtime.clone(), self.routes(runtime), names);
        match select(pin!(serve), pin!(follow)).await {
            Either::Left((Ok(never), _)) => match never {},
            Either::Left((Err(error), _)) => error,
            Either::Right((never, _)) => match never {},
        }
    }

    fn routes(self: &Arc<Self>, runtime: &R) -> Routes {
        let mut routes = Routes::default();
        let cluster = self.cluster.clone();
        let status =
            Status::new(self.node.clone(), cluster, self.allow_private, self.dial_backs_max);
        let status = Arc::new(status);
        routes.add("/status", move || {
            let status = status.clone();
            async move { status.answer().await }
        });
        let this = self.clone();
        routes.add("/metrics", move || this.clone().metrics());
        let this = self.clone();
        routes.add("/healthz", move || this.clone().health());
        let this = self.clone();
        let node = self.node.clone();
        let clock = (self.clock, move || node.now());
        let live = Live::new(runtime.clone(), clock, move || this.clone().view().boxed());
        routes.page(Page::new("/metrics and /status"), live);
        let this = self.clone();
        routes.tell(move |path, status| this.figures.asked(path, status));
        routes
    }

    async fn metrics(self: Arc<Self>) -> Answer {
        let load = self.node.load().await;
        self.figures.answer(&load, self.node.now().since(self.since).as_secs())
    }

    async fn health(self: Arc<Self>) -> Answer {
        // Only a driver that still runs answers.
        match self.node.explain().await {
            Ok(_) => text(StatusCode::OK, "ok\n"),
            Err(_) => text(StatusCode::SERVICE_UNAVAILABLE, "the node is over\n"),
        }
    }

    /// What the page shows; nothing once the node is over.
    async fn view(self: Arc<Self>) -> Option<View> {
        let explanation = self.node.explain().await.ok()?;
        let (load, listeners) = (self.node.load().await, self.node.listeners().await);
        let others = self.cluster.found(self.node.now());
        let present = Present {
            explanation: &explanation,
            load: &load,
            others: &others,
            listeners: &listeners,
            clock: self.clock,
            since: self.since,
            dial_backs_max: self.dial_backs_max,
        };
        Some(self.board.view(&present))
    }
}
