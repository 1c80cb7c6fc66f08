//! Bounded waiting, and how long something took.

use crate::traits::Timers;
use futures::future::{self, Either};
use portolan_core::{Duration, Instant};
use std::future::Future;
use std::pin::pin;

/// What `future` resolves to, or `None` if it takes longer than `span`.
pub(crate) async fn timeout<T: Timers, F: Future>(
    timers: &T,
    span: Duration,
    future: F,
) -> Option<F::Output> {
    match future::select(pin!(future), pin!(timers.sleep(span))).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(((), _)) => None,
    }
}

/// Measures the time that the machine is awake, as timers do.
pub(crate) struct Stopwatch<'a, T> {
    timers: &'a T,
    begun_at: Instant,
    slept: Duration,
}

impl<'a, T: Timers> Stopwatch<'a, T> {
    pub(crate) fn start(timers: &'a T) -> Stopwatch<'a, T> {
        Stopwatch { timers, begun_at: timers.now(), slept: timers.slept() }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        let asleep = self.timers.slept().saturating_sub(self.slept);
        self.timers.now().since(self.begun_at).saturating_sub(asleep)
    }
}
