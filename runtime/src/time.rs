//! Bounded waiting.

use crate::traits::Timers;
use futures::future::{self, Either};
use portolan_core::Duration;
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
