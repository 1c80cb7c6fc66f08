//! What the program shows over HTTP: a small server, on whatever runtime there is, and the routes of
//! `serve --http`.
//!
//! It answers GET and HEAD, one request a connection, to whoever names it by an IP, as localhost, or by a
//! name that the operator gave: pages of elsewhere cannot make a browser ask it under their own
//! name. Connections, headers and times are bounded. Others add routes to a [`Routes`].

mod board;
mod cluster;
mod figures;
mod page;
mod serving;
mod status;

use board::{Board, Present};
use cluster::Cluster;
pub use cluster::{ClusterOptions, Member};
use figures::Figures;
pub(crate) use page::{Cell, Clock, Figure, Headline, Live, Page, Section, Tone, View};
pub(crate) use serving::Serving;
use status::Status;

use bytes::Bytes;
use futures::FutureExt;
use futures::StreamExt;
use futures::future::{BoxFuture, Either, ready, select};
use futures::stream::BoxStream;
use http_body_util::{Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderName, HeaderValue,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::http::uri::Authority;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use portolan_core::Duration;
use portolan_runtime::http::Io;
use portolan_runtime::traits::Runtime;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Connections at once, number; ours: a few browsers and scrapers. When full, a new one is closed.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection may last, seconds; ours: beyond what any answer here takes to make, over any
/// line that can carry it.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection with a stream of events may last beyond that, seconds; ours: a stream ends by itself
/// after ten minutes, unless nobody takes it.
const STREAM_TIMEOUT: Duration = Duration::from_secs(600);
/// How long to wait after a connection could not be accepted, milliseconds; ours: descriptors may be used up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Headers of a request, number; ours: browsers send some twenty. When full, it is answered with 431.
const HEADERS_MAX: usize = 64;
/// What is held of a request, bytes; ours: headers must fit. When full, it is answered with 431.
const BUFFER_MAX: usize = 16_384;

/// How to serve HTTP. Built by [`HttpOptions::on`] and assignment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HttpOptions {
    /// Where to listen.
    pub addr: SocketAddr,
    /// Names by which it may be asked, beside IPs and localhost.
    pub names: Vec<String>,
}

impl HttpOptions {
    /// Listen there, for whoever knows the IP.
    #[must_use]
    pub fn on(addr: SocketAddr) -> HttpOptions {
        HttpOptions { addr, names: Vec::new() }
    }
}

/// Why HTTP is not served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// Another program has the port.
    #[error(
        "cannot serve HTTP on {0}: the port is in use; stop the other program, or name another port"
    )]
    InUse(SocketAddr),
    /// Anything else.
    #[error("cannot serve HTTP on {addr}: {error}")]
    Failed {
        /// The address.
        addr: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
}

/// What is answered.
pub(crate) type Answer = Response<Body>;
/// A whole document, or events without an end.
pub(crate) type Body = http_body_util::Either<Full<Bytes>, StreamBody<Frames>>;
/// The parts of what has no end.
type Frames = BoxStream<'static, Result<Frame<Bytes>, Infallible>>;
/// What makes the answer to a GET.
type Route = Box<dyn Fn() -> BoxFuture<'static, Answer> + Send + Sync>;
/// What is told of every request: the path if there is one, and the status.
type Tell = Box<dyn Fn(&'static str, StatusCode) + Send + Sync>;

/// What leads where.
#[derive(Default)]
pub(crate) struct Routes {
    routes: BTreeMap<&'static str, Route>,
    tell: Option<Tell>,
}

impl Routes {
    /// Answer a path so.
    pub(crate) fn add<F>(
        &mut self,
        path: &'static str,
        answer: impl Fn() -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = Answer> + Send + 'static,
    {
        self.routes.insert(path, Box::new(move || answer().boxed()));
    }

    /// Tell of every request.
    pub(crate) fn tell(&mut self, tell: impl Fn(&'static str, StatusCode) + Send + Sync + 'static) {
        self.tell = Some(Box::new(tell));
    }

    /// Show a page at `/`, filled by these events.
    pub(crate) fn page<R: Runtime>(&mut self, page: Page, live: Arc<Live<R>>) {
        self.add("/", move || ready(page.answer()));
        self.add("/events", move || ready(live.answer()));
    }

    async fn answer(&self, names: &[String], request: &Request<Incoming>) -> Answer {
        let found = self.routes.get_key_value(request.uri().path());
        let known = found.map_or("other", |(path, _)| path);
        let answer = match (refusal(names, request), found) {
            (Some(refused), _) => refused,
            (None, Some((_, route))) => route().await,
            (None, None) => text(StatusCode::NOT_FOUND, "there is nothing here\n"),
        };
        if let Some(tell) = &self.tell {
            tell(known, answer.status());
        }
        answer
    }
}

/// Why a request is not answered, if it is not.
fn refusal(names: &[String], request: &Request<Incoming>) -> Option<Answer> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host,
        _ => return Some(text(StatusCode::BAD_REQUEST, "a request has one Host\n")),
    };
    if !is_ours(names, host) {
        let said = "this server does not go by that name (--http-name)\n";
        return Some(text(StatusCode::MISDIRECTED_REQUEST, said));
    }
    // A page of elsewhere could not read it, but could use up what is there for others.
    let site = request.headers().get("sec-fetch-site").map(HeaderValue::as_bytes);
    let is_foreign = matches!(site, Some(b"cross-site" | b"same-site"));
    let mode = request.headers().get("sec-fetch-mode").map(HeaderValue::as_bytes);
    if is_foreign && mode != Some(b"navigate") {
        let said = "pages of elsewhere are not answered\n";
        return Some(text(StatusCode::FORBIDDEN, said));
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only\n");
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Some(answer);
    }
    None
}

/// Whether we go by this name. IPs cannot be made to lead here by whoever owns a name.
fn is_ours(names: &[String], host: &HeaderValue) -> bool {
    let Ok(authority) = host.to_str().unwrap_or_default().parse::<Authority>() else {
        return false;
    };
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().is_ok()
        || host.eq_ignore_ascii_case("localhost")
        || names.iter().any(|name| name.eq_ignore_ascii_case(host))
}

/// An answer in plain words.
pub(crate) fn text(status: StatusCode, said: &'static str) -> Answer {
    document(status, "text/plain; charset=utf-8", Bytes::from_static(said.as_bytes()))
}

/// A document as an answer.
pub(crate) fn document(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    document_of(status, kind, Body::Left(Full::new(body.into())))
}

/// Events as what an answer is made of.
fn events(all: BoxStream<'static, Bytes>) -> Body {
    Body::Right(StreamBody::new(all.map(|event| Ok(Frame::data(event))).boxed()))
}

/// An answer that no browser takes for anything else, keeps, or lets load more.
fn document_of(status: StatusCode, kind: &'static str, body: Body) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let ours_alone = HeaderName::from_static("cross-origin-resource-policy");
    headers.insert(ours_alone, HeaderValue::from_static("same-origin"));
    let nothing = HeaderValue::from_static("default-src 'none'");
    headers.insert(CONTENT_SECURITY_POLICY, nothing);
    answer
}

/// A server that listens. Nobody is answered before it is run.
pub(crate) struct HttpServer {
    listener: TcpListener,
    addr: SocketAddr,
}

impl HttpServer {
    /// Listen.
    pub(crate) fn listen(addr: SocketAddr) -> Result<HttpServer, HttpError> {
        let failed = |error: io::Error| {
            let is_taken = error.kind() == io::ErrorKind::AddrInUse;
            if is_taken { HttpError::InUse(addr) } else { HttpError::Failed { addr, error } }
        };
        let listener = TcpListener::bind(addr).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        Ok(HttpServer { listener, addr })
    }

    /// Where, with the real port.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Answer whoever asks. It ends only by failing.
    pub(crate) async fn run<R: Runtime>(
        self,
        runtime: R,
        routes: Routes,
        names: Vec<String>,
    ) -> Result<Infallible, HttpError> {
        let addr = self.addr;
        let listener = runtime.listener(self.listener);
        let listener = listener.map_err(|error| HttpError::Failed { addr, error })?;
        let shared = Arc::new((routes, names));
        let open = Arc::new(AtomicUsize::new(0));
        loop {
            let tcp = match runtime.accept(&listener).await {
                Ok((tcp, _)) => tcp,
                Err(error) => {
                    tracing::debug!(%error, "a connection for HTTP could not be accepted");
                    runtime.sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(counted) = Counted::new(&open, CONNECTIONS_MAX) else { continue };
            let (shared, timers) = (shared.clone(), runtime.clone());
            let serve = async move {
                let _counted = counted;
                connection(tcp, shared, timers).await;
            };
            runtime.spawn(serve.boxed());
        }
    }
}

async fn connection<R, T>(tcp: T, shared: Arc<(Routes, Vec<String>)>, runtime: R)
where
    R: Runtime,
    T: futures::io::AsyncRead + futures::io::AsyncWrite + Unpin + Send + 'static,
{
    let streams = Arc::new(AtomicBool::new(false));
    let is_stream = streams.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (shared, is_stream) = (shared.clone(), is_stream.clone());
        async move {
            let answer = shared.0.answer(&shared.1, &request).await;
            is_stream.store(matches!(answer.body(), Body::Right(_)), Ordering::Relaxed);
            Ok::<_, Infallible>(answer)
        }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.keep_alive(false).max_headers(HEADERS_MAX).max_buf_size(BUFFER_MAX);
    let serve = builder.serve_connection(Io(tcp), service);
    let timer = async {
        runtime.sleep(CONNECTION_TIMEOUT).await;
        if streams.load(Ordering::Relaxed) {
            runtime.sleep(STREAM_TIMEOUT).await;
        }
    };
    match select(pin!(serve), pin!(timer)).await {
        Either::Left((Err(error), _)) => tracing::debug!(%error, "a connection for HTTP broke"),
        Either::Left((Ok(()), _)) => {}
        Either::Right(_) => tracing::debug!("a connection for HTTP took too long"),
    }
}

/// One of so many at most, counted until it is dropped.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(open: &Arc<AtomicUsize>, max: usize) -> Option<Counted> {
        let counted = Counted(open.clone());
        // Dropping what is too many takes it off again.
        (open.fetch_add(1, Ordering::Relaxed) < max).then_some(counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_goes_by_ips_and_by_the_names_it_was_given() {
        let names = ["boot.example".to_owned()];
        let is = |host: &'static str| is_ours(&names, &HeaderValue::from_static(host));
        for host in
            ["127.0.0.1", "127.0.0.1:80", "[::1]:80", "[::1]", "LOCALHOST:1", "Boot.Example"]
        {
            assert!(is(host), "{host}");
        }
        for host in
            ["", "evil.example", "127.0.0.1.evil.example", "x@127.0.0.1", "boot.example.org"]
        {
            assert!(!is(host), "{host}");
        }
    }

    #[test]
    fn a_port_in_use_is_said_to_be_with_what_to_do() {
        let first = HttpServer::listen(([127, 0, 0, 1], 0).into()).expect("a free port");
        let Err(error) = HttpServer::listen(first.addr()) else { panic!("two have one port") };
        assert!(matches!(error, HttpError::InUse(_)), "{error}");
        let said = error.to_string();
        assert!(said.contains("another port") && !said.contains('\n'), "{said}");
    }
}
