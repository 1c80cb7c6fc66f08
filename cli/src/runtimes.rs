//! The runtimes that a job may run on; nothing else in this package knows which there are.

use crate::Failed;
use crate::jobs::Job;
use portolan_tokio::Tokio;

/// Run a job to its end.
pub(crate) fn run(job: impl Job) -> Result<u8, Failed> {
    let tokio = tokio::runtime::Runtime::new()?;
    tokio.block_on(job.run(Tokio::new(tokio.handle().clone())))
}
