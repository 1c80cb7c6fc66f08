//! Runtimes for the nodes under test, so that one test body serves for every one of them.
//!
//! A test body takes `lab: &L` where `L: Lab`, and [`on_every_runtime!`](crate::on_every_runtime)
//! makes its tests. The body itself always runs on tokio: what it awaits of Portolan does not care
//! who waits for it, and the nodes, their sockets and their tasks live on the lab's runtime.

use futures::FutureExt as _;
use portolan_runtime::traits::Runtime;
use portolan_smol::Smol;
use portolan_tokio::Tokio;
use std::fmt::Debug;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;
use tokio::runtime::Handle;

/// No test takes a tenth of this; one that does is stuck.
const PATIENCE: Duration = Duration::from_secs(30);

/// A runtime on which nodes under test live, for one test. Tasks that are left at its end are
/// dropped with it.
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
}

/// The tokio runtime of the test itself.
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
}

/// An executor of smol on a thread of its own.
#[derive(Debug)]
pub struct OnSmol {
    executor: Arc<smol::Executor<'static>>,
    /// Dropping it stops the thread.
    stop: Option<smol::channel::Sender<()>>,
    /// Hangs up when the thread ends.
    ended: mpsc::Receiver<()>,
}

impl Lab for OnSmol {
    type Runtime = Smol;

    fn open() -> OnSmol {
        let executor = Arc::new(smol::Executor::new());
        let (stop, stopped) = smol::channel::bounded::<()>(1);
        let (hold, ended) = mpsc::channel::<()>();
        let running = executor.clone();
        let run = move || {
            let _hold = hold;
            // The other end is dropped, never used.
            let _dropped = smol::block_on(running.run(stopped.recv()));
        };
        thread::Builder::new().name("smol".into()).spawn(run).expect("a thread");
        OnSmol { executor, stop: Some(stop), ended }
    }

    fn runtime(&self) -> Smol {
        self.executor.clone().into()
    }

    fn is_idle(&self) -> bool {
        self.executor.is_empty()
    }
}

impl Drop for OnSmol {
    fn drop(&mut self) {
        self.stop = None;
        let stuck = self.ended.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout);
        // One panic is enough: the test may be on its way out because of another.
        assert!(!stuck || thread::panicking(), "a task on smol blocks its thread");
    }
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
                }
            )+)+
        }

        mod on_smol {
            $($(
                #[$attribute]
                async fn $name() {
                    let lab = <$crate::lab::OnSmol as $crate::lab::Lab>::open();
                    super::$name(&lab).await;
                }
            )+)+
        }
    };
}

/// As [`on_every_runtime!`](crate::on_every_runtime), but with one test for each body, which runs
/// it on every runtime at once: for bodies that mostly wait.
#[macro_export]
macro_rules! on_every_runtime_at_once {
    ($( #[$attribute:meta] $($name:ident),+ $(,)? ; )+) => {
        mod on_every_runtime {
            $($(
                #[$attribute]
                async fn $name() {
                    let tokio = <$crate::lab::OnTokio as $crate::lab::Lab>::open();
                    let smol = <$crate::lab::OnSmol as $crate::lab::Lab>::open();
                    $crate::lab::both(super::$name(&tokio), super::$name(&smol)).await;
                }
            )+)+
        }
    };
}

/// Run a body on tokio and on smol, at once and both to the end.
///
/// # Panics
/// If one of them panics, with the name of the runtime.
pub async fn both(on_tokio: impl Future<Output = ()>, on_smol: impl Future<Output = ()>) {
    // Whatever a panic leaves behind is only dropped.
    let on_tokio = AssertUnwindSafe(on_tokio).catch_unwind();
    let on_smol = AssertUnwindSafe(on_smol).catch_unwind();
    let (on_tokio, on_smol) = futures::join!(on_tokio, on_smol);
    let ended = [("tokio", on_tokio), ("smol", on_smol)].into_iter();
    let failed: Vec<_> = ended.filter(|(_, ended)| ended.is_err()).map(|(name, _)| name).collect();
    assert!(failed.is_empty(), "it fails on {}: see above", failed.join(" and on "));
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

#[tokio::test]
#[should_panic(expected = "fails on smol:")]
async fn a_failure_on_one_runtime_is_told() {
    both(async {}, async { panic!("this panic is meant to be") }).await;
}
