//! HTTP requests to routers, each over a connection of its own.

use super::{bare, on_interface};
use crate::sockets;
use crate::time::timeout;
use crate::traits::Runtime;
use async_channel::{Receiver, Sender};
use bytes::Bytes;
use futures::io::{AsyncReadExt, AsyncWriteExt};
use portolan_core::wire::upnp::HttpUrl;
use portolan_core::wire::upnp::http::{self, HttpError, HttpResponse, Progress, ResponseReader};
use portolan_core::{Fetch, FetchFailure, MappingEvent, Soap};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Requests under way, number; ours: routers serve few at a time. When full, further ones wait.
const UNDER_WAY_MAX: usize = 8;
/// Requests under way or waiting, number; ours: beyond what core asks in a minute of all routers
/// together. When full, a further one fails.
const FETCHES_MAX: usize = 64;
/// Who asks, as routers may write down.
const USER_AGENT: &str = concat!("portolan/", env!("CARGO_PKG_VERSION"));
/// Bytes read at once; ours.
const CHUNK: usize = 4_096;

/// Counts requests.
pub(super) struct Fetches {
    /// One message in it for each request under way.
    under_way: (Sender<()>, Receiver<()>),
    all: Arc<AtomicUsize>,
}

impl Fetches {
    pub(super) fn new() -> Fetches {
        Fetches { under_way: async_channel::bounded(UNDER_WAY_MAX), all: Arc::default() }
    }

    /// A task that makes the request when it is its turn, and tells how it went.
    pub(super) fn begin<R: Runtime>(
        &self,
        runtime: &R,
        fetch: Fetch,
        news: &Sender<MappingEvent>,
    ) -> Result<impl Future<Output = ()> + Send + 'static, FetchFailure> {
        let counted = Counted::new(&self.all).ok_or(FetchFailure::LocalFault)?;
        let ((enter, leave), news) = (self.under_way.clone(), news.clone());
        let runtime = runtime.clone();
        Ok(async move {
            let _counted = counted;
            // Its turn comes when there is room.
            let entered = enter.send(()).await.map(|()| Entered(leave));
            let id = fetch.fetch;
            let event = match make(&runtime, &fetch).await {
                Ok(HttpResponse { status, body, .. }) => {
                    MappingEvent::Fetched { fetch: id, status, body: body.into() }
                }
                Err(reason) => MappingEvent::FetchFailed { fetch: id, reason },
            };
            drop(entered);
            let _ = news.send(event).await;
        })
    }
}

/// One request that is counted until it is dropped.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(all: &Arc<AtomicUsize>) -> Option<Counted> {
        let counted = Counted(all.clone());
        let before = all.fetch_add(1, Ordering::Relaxed);
        // Dropping what is too many takes it off again.
        (before < FETCHES_MAX).then_some(counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One request under way until it is dropped.
struct Entered(Receiver<()>);

impl Drop for Entered {
    fn drop(&mut self) {
        let _ = self.0.try_recv();
    }
}

async fn make<R: Runtime>(runtime: &R, fetch: &Fetch) -> Result<HttpResponse, FetchFailure> {
    let asked = timeout(runtime, fetch.timeout, ask(runtime, fetch)).await;
    asked.unwrap_or(Err(FetchFailure::TimedOut))
}

async fn ask<R: Runtime>(runtime: &R, fetch: &Fetch) -> Result<HttpResponse, FetchFailure> {
    let Fetch { source, interface, to, .. } = *fetch;
    let request = request(fetch)?;
    let failed = |error| failure(&error, to);
    let target = on_interface(to.ip(), to.port(), interface);
    let dialling = sockets::dial_bound_to(target, on_interface(source, 0, interface));
    let mut tcp = runtime.connected(dialling.map_err(failed)?).await.map_err(failed)?;
    // Some routers read one packet and no more, and take a finished sending side for a farewell:
    // so it is one write, and the side stays open.
    tcp.write_all(&request).await.map_err(failed)?;
    tcp.flush().await.map_err(failed)?;
    let mut reader = ResponseReader::default();
    let mut chunk = [0; CHUNK];
    loop {
        let count = tcp.read(&mut chunk).await.map_err(failed)?;
        let read = chunk.get(..count).unwrap_or_default();
        let progress = reader.push(read).map_err(|error| unreadable(error, to))?;
        if progress == Progress::Done || read.is_empty() {
            return reader.finish().map_err(|error| unreadable(error, to));
        }
    }
}

fn request(fetch: &Fetch) -> Result<Bytes, FetchFailure> {
    let Fetch { to, path, soap, .. } = fetch;
    let url = HttpUrl::parse(&format!("http://{}{path}", bare(*to))).map_err(|error| {
        tracing::debug!(%to, path, %error, "a request that cannot be made");
        FetchFailure::LocalFault
    })?;
    Ok(match soap {
        None => http::get(&url, USER_AGENT),
        Some(Soap { action, body }) => http::post(&url, USER_AGENT, action, body),
    })
}

fn unreadable(error: HttpError, to: SocketAddr) -> FetchFailure {
    tracing::debug!(%to, %error, "a response of a router that cannot be read");
    FetchFailure::Malformed
}

fn failure(error: &io::Error, to: SocketAddr) -> FetchFailure {
    tracing::debug!(%to, %error, "a request to a router failed");
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset};
    use io::ErrorKind::{HostUnreachable, TimedOut};
    let kind = error.kind();
    if matches!(kind, ConnectionRefused | ConnectionReset | ConnectionAborted | BrokenPipe) {
        FetchFailure::Refused
    } else if matches!(kind, TimedOut | HostUnreachable) {
        // Nobody answers there, as the network or our own host has waited long enough to say.
        FetchFailure::TimedOut
    } else {
        FetchFailure::LocalFault
    }
}
