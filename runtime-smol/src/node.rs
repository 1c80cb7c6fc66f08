//! The public node on smol.

use crate::Smol;

/// A Portolan node whose tasks live on an executor of smol. Built by [`Node::builder`], which
/// takes that executor: an `Arc<smol::Executor<'static>>`, or a `&'static` one.
pub type Node = portolan_runtime::Node<Smol>;

/// A node on smol that is about to start.
pub type Builder = portolan_runtime::Builder<Smol>;
