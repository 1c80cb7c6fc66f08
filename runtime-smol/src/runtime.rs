//! The runtime's three traits on smol and async-io.

use async_io::{Async, Timer};
use futures::future::BoxFuture;
use portolan_core::Duration;
use portolan_runtime::reactor::{Interest, Reactor, Socket};
use portolan_runtime::traits::{Spawn, Timers};
use smol::Executor;
use std::fmt;
use std::future::Future;
use std::io;
use std::sync::{Arc, Weak};

/// Tasks on one executor of smol, sockets and timers on async-io. Tasks make progress while
/// somebody runs the executor, and are dropped with it: an `Arc` handed in is not kept alive.
#[derive(Clone)]
pub struct Smol(Place);

/// Where tasks are spawned.
#[derive(Clone)]
enum Place {
    /// Tasks know this place, and the executor holds its tasks: with a strong reference an
    /// executor that nobody runs any more would keep their sockets open for ever.
    Shared(Weak<Executor<'static>>),
    Static(&'static Executor<'static>),
}

impl From<Arc<Executor<'static>>> for Smol {
    fn from(executor: Arc<Executor<'static>>) -> Smol {
        Smol(Place::Shared(Arc::downgrade(&executor)))
    }
}

impl From<&'static Executor<'static>> for Smol {
    fn from(executor: &'static Executor<'static>) -> Smol {
        Smol(Place::Static(executor))
    }
}

impl fmt::Debug for Smol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Smol").finish_non_exhaustive()
    }
}

impl Reactor for Smol {
    type Watched<S: Socket> = Arc<Async<S>>;

    fn watch<S: Socket>(&self, socket: S) -> io::Result<Self::Watched<S>> {
        Async::new_nonblocking(socket).map(Arc::new)
    }

    fn socket<S: Socket>(watched: &Self::Watched<S>) -> &S {
        watched.get_ref()
    }

    fn ready<S: Socket>(
        &self,
        watched: &Self::Watched<S>,
        interest: Interest,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static {
        let watched = watched.clone();
        async move {
            match interest {
                Interest::Read => watched.readable().await,
                Interest::Write => watched.writable().await,
            }
        }
    }
}

impl Timers for Smol {
    fn sleep(&self, span: Duration) -> impl Future<Output = ()> + Send + 'static {
        let timer = Timer::after(span);
        async move {
            timer.await;
        }
    }
}

impl Spawn for Smol {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        // The task ends by itself; nobody waits for it. Where the executor is gone, so is the task.
        match &self.0 {
            Place::Static(executor) => executor.spawn(task).detach(),
            Place::Shared(executor) => {
                if let Some(executor) = executor.upgrade() {
                    executor.spawn(task).detach();
                }
            }
        }
    }
}
