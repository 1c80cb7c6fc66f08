//! The runtimes that a job may run on; nothing else in this package knows which there are.

use crate::program::Failed;
use crate::program::jobs::Job;
use clap::ValueEnum;
use portolan_smol::Smol;
use portolan_tokio::Tokio;
use smol::Executor;
use std::convert::Infallible;
use std::num::NonZero;
use std::sync::Arc;
use std::thread;

/// A runtime by its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Name {
    #[default]
    Tokio,
    Smol,
}

/// Run a job to its end.
pub(crate) fn run(name: Name, job: impl Job) -> Result<u8, Failed> {
    match name {
        Name::Tokio => on_tokio(job),
        Name::Smol => on_smol(job),
    }
}

fn on_tokio(job: impl Job) -> Result<u8, Failed> {
    let tokio = tokio::runtime::Runtime::new()?;
    tokio.block_on(job.run(Tokio::new(tokio.handle().clone())))
}

/// One executor, run by this thread and by one more for each further core.
fn on_smol(job: impl Job) -> Result<u8, Failed> {
    let executor = Arc::new(Executor::new());
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    // Nothing is ever sent: the helpers end when the other end is dropped, however that happens.
    let (running, ended) = smol::channel::bounded::<Infallible>(1);
    thread::scope(|scope| {
        let _running = running;
        for _ in 1..threads {
            scope.spawn(|| smol::block_on(executor.run(ended.recv())));
        }
        smol::block_on(executor.run(job.run(Smol::from(executor.clone()))))
    })
}
