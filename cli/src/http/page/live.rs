//! The events of a page: the whole view whenever it has changed.

use super::view::{Clock, View};
use crate::http::{Answer, Counted, document_of, events, text};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue, RETRY_AFTER};
use portolan_core::Duration;
use portolan_runtime::traits::Runtime;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Pages that follow at once, number; ours: some browsers of some operators. When full, a further one is
/// told to come back.
const VIEWERS_MAX: usize = 16;
/// How often it is looked whether something has changed; ours: as soon as an eye notices. Traffic and the
/// driver's work grow as it shrinks, and only while somebody watches.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How old a view may be that is shown to another viewer, ours: it is made once for all of them.
const VIEW_FRESH: Duration = Duration::from_millis(400);
/// Looks without news after which it is told that we are still there, number; ours: a page that hears
/// nothing for twice and more says so.
const LOOKS_SILENT: u32 = 30;

/// Looks after which a stream ends, number; ours: ten minutes. The browser comes again at once; whoever is gone
/// without a word is forgotten.
const LOOKS_MAX: u32 = 1_200;

/// What makes a view; nothing where all is over.
type Look = Box<dyn Fn() -> BoxFuture<'static, Option<View>> + Send + Sync>;

/// The views of a page, made when somebody watches.
pub(crate) struct Live<R> {
    runtime: R,
    /// The time of the views, milliseconds since 1970.
    clock: Box<dyn Fn() -> u64 + Send + Sync>,
    look: Look,
    last: Mutex<Option<(Instant, Arc<str>)>>,
    viewers: Arc<AtomicUsize>,
}

/// How far one viewer is.
struct Viewer<R> {
    live: Arc<Live<R>>,
    told: Option<Arc<str>>,
    looks: u32,
    _counted: Counted,
}

impl<R: Runtime> Live<R> {
    /// `clock` and `now`: which of the node's moments is which time of day.
    pub(crate) fn new(
        runtime: R,
        (clock, now): (Clock, impl Fn() -> portolan_core::Instant + Send + Sync + 'static),
        look: impl Fn() -> BoxFuture<'static, Option<View>> + Send + Sync + 'static,
    ) -> Arc<Live<R>> {
        let (last, viewers) = (Mutex::default(), Arc::default());
        let clock = Box::new(move || clock.unix_of(now()));
        Arc::new(Live { runtime, clock, look: Box::new(look), last, viewers })
    }

    /// The events, from now on.
    pub(crate) fn answer(self: &Arc<Self>) -> Answer {
        let Some(counted) = Counted::new(&self.viewers, VIEWERS_MAX) else {
            let said = "too many pages follow already; close one, or come back\n";
            let mut answer = text(StatusCode::SERVICE_UNAVAILABLE, said);
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
            return answer;
        };
        let viewer = Viewer { live: self.clone(), told: None, looks: 0, _counted: counted };
        let all = futures::stream::unfold(viewer, |mut viewer| async move {
            let event = viewer.next().await?;
            Some((event, viewer))
        });
        let mut answer = document_of(StatusCode::OK, "text/event-stream", events(all.boxed()));
        // Whoever passes it on is not to wait for more.
        let unbuffered =
            (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
        answer.headers_mut().extend([unbuffered]);
        answer
    }

    fn now(&self) -> u64 {
        (self.clock)()
    }

    /// The view as JSON, not older than it may be.
    async fn view(&self) -> Option<Arc<str>> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, text)) = last.filter(|(at, _)| at.elapsed() < VIEW_FRESH) {
            return Some(text);
        }
        let view = (self.look)().await?;
        // It is made of strings and numbers: it can always be written.
        let text: Arc<str> = serde_json::to_string(&view).ok()?.into();
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((Instant::now(), text.clone()));
        Some(text)
    }
}

impl<R: Runtime> Viewer<R> {
    /// Wait for the next event, if there will be one. The first one is there at once.
    async fn next(&mut self) -> Option<Bytes> {
        for _ in 0..LOOKS_SILENT {
            if self.looks >= LOOKS_MAX {
                return None;
            }
            // The browser is told how soon to come again with what it is told first.
            let begins = self.told.is_none();
            if !begins {
                self.live.runtime.sleep(LOOK_EVERY).await;
            }
            self.looks += 1;
            let view = self.live.view().await?;
            if self.told.as_ref() != Some(&view) {
                let (retry, now) = (if begins { "retry: 500\n" } else { "" }, self.live.now());
                let event =
                    format!("{retry}event: view\ndata: {{\"now\":{now},\"view\":{view}}}\n\n");
                self.told = Some(view);
                return Some(event.into());
            }
        }
        Some(format!("event: beat\ndata: {}\n\n", self.live.now()).into())
    }
}
