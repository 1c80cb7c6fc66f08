//! Tasks that end when the driver does, and a way to wait until they have.

use crate::traits::Runtime;
use async_channel::{Receiver, Sender};
use futures::FutureExt;
use futures::future;
use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;

/// The tasks of one node. Nothing is ever sent on these channels: what counts is who holds them.
pub(crate) struct Tasks<R> {
    runtime: R,
    /// Dropped to end every task.
    stop: Sender<Infallible>,
    stopped: Receiver<Infallible>,
    /// A copy lives in every task.
    alive: Sender<Infallible>,
    gone: Receiver<Infallible>,
}

impl<R: Runtime> Tasks<R> {
    pub(crate) fn new(runtime: R) -> Tasks<R> {
        let (stop, stopped) = async_channel::bounded(1);
        let (alive, gone) = async_channel::bounded(1);
        Tasks { runtime, stop, stopped, alive, gone }
    }

    /// Run a task to its end or ours, whichever comes first.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let (stopped, alive) = (self.stopped.clone(), self.alive.clone());
        let bounded = async move {
            future::select(pin!(task), pin!(stopped.recv())).await;
            drop(alive);
        };
        self.runtime.spawn(bounded.boxed());
    }

    /// End every task, and resolve when all have ended.
    pub(crate) async fn end(self) {
        drop((self.stop, self.alive));
        let _ = self.gone.recv().await;
    }
}
