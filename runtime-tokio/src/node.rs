//! The public node on tokio.

use crate::Tokio;

/// A Portolan node whose sockets and tasks live on tokio. Built by [`Node::builder`], which takes
/// the runtime that it is called on; to name another, use [`Builder::new`].
///
/// [`Builder::new`]: portolan_runtime::Builder::new
pub type Node = portolan_runtime::Node<Tokio>;

/// A node on tokio that is about to start.
pub type Builder = portolan_runtime::Builder<Tokio>;

impl Default for Tokio {
    /// The runtime that the caller runs on.
    ///
    /// # Panics
    /// If the caller does not run on tokio, as everything in tokio that needs its runtime does.
    /// [`Tokio::current`] tells instead.
    fn default() -> Tokio {
        Tokio::new(tokio::runtime::Handle::current())
    }
}
