//! The public node on tokio.

use crate::Tokio;

/// A Portolan node whose sockets and tasks live on tokio. Built by [`Node::builder`], which takes
/// the handle of the runtime: `Handle::current()` on tokio's own threads.
pub type Node = portolan_runtime::Node<Tokio>;

/// A node on tokio that is about to start.
pub type Builder = portolan_runtime::Builder<Tokio>;
