//! Portolan on tokio: real sockets, and the public [`Node`].
//!
//! `examples/embed_tokio.rs` shows how to embed a node in a program.

mod node;
mod runtime;

pub use node::{Builder, Node};
pub use portolan_runtime::{
    AcceptError, AddressError, ConnectionInfo, DialError, Dialled, Dropped, Incoming, LedgerError,
    Limits, ListenError, Load, Noticed, Notices, OpenError, ReportError, StartError, Stopped,
    Stream, identity, names, net, record, routers,
};
pub use runtime::Tokio;
