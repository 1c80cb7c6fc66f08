//! Runtimes for the nodes under test, so that one test body serves for every one of them.
//!
//! A test body takes `lab: &L` where `L: Lab`, and [`on_every_runtime!`](crate::on_every_runtime)
//! makes its tests. The body itself always runs on tokio: what it awaits of Portolan does not care
//! who waits for it, and the nodes, their sockets and their tasks live on the lab's runtime.

use portolan_runtime::traits::Runtime;
use portolan_tokio::Tokio;
use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;
use tokio::runtime::Handle;

/// No test takes a tenth of this; one that does is stuck.
const PATIENCE: Duration = Duration::from_secs(30);

/// A runtime on which nodes under test live, for one test.
pub trait Lab: Sized {
    /// What nodes run on.
    type Runtime: Runtime + Debug;

    /// Make one. Called on tokio, where the test body runs.
    fn open() -> Self;

    /// What to build a node on.
    fn runtime(&self) -> Self::Runtime;

    /// Whether no task is alive on the runtime, neither a node's nor, where the body runs on the
    /// same one, the body's own.
    fn is_idle(&self) -> bool;

    /// End the lab. Whoever held nodes has dropped them.
    fn close(self) -> impl Future<Output = ()>;
}

/// The tokio runtime of the test itself. Its tasks end with it.
#[derive(Debug)]
pub struct OnTokio(Handle);

impl Lab for OnTokio {
    type Runtime = Tokio;

    fn open() -> OnTokio {
        OnTokio(Handle::current())
    }

    fn runtime(&self) -> Tokio {
        self.0.clone().into()
    }

    fn is_idle(&self) -> bool {
        self.0.metrics().num_alive_tasks() == 0
    }

    async fn close(self) {}
}

/// Make a test for each runtime out of each test body, in modules by the names of the runtimes.
/// Bodies are `async fn name<L: Lab>(lab: &L)` in the module around; the attribute before a list
/// of names says how tokio runs them. A body that is in no list is dead code, which the compiler
/// tells.
#[macro_export]
macro_rules! on_every_runtime {
    ($( #[$attribute:meta] $($name:ident),+ $(,)? ; )+) => {
        mod on_tokio {
            $($(
                #[$attribute]
                async fn $name() {
                    let lab = <$crate::lab::OnTokio as $crate::lab::Lab>::open();
                    super::$name(&lab).await;
                    $crate::lab::Lab::close(lab).await;
                }
            )+)+
        }
    };
}

/// Wait for something that does not take long.
///
/// # Panics
/// If it is stuck.
pub async fn soon<F: Future>(task: F) -> F::Output {
    tokio::time::timeout(PATIENCE, task).await.expect("it does not get stuck")
}

/// Wait until `check` holds.
///
/// # Panics
/// If that does not happen.
pub async fn until(mut check: impl AsyncFnMut() -> bool) {
    soon(async {
        while !check().await {
            // sleep: between two looks at a fact of which nobody notifies; `soon` bounds them all.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
