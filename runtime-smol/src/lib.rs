//! Portolan on smol: real sockets, and the public [`Node`].
//!
//! Everything runs on the executor that the application hands in; the only thread besides those
//! that run it is async-io's own, which waits for sockets and timers (and, where a ledger of port
//! mappings is kept, one that lives while it is written). `examples/embed_smol.rs`
//! shows how to embed a node in a program.

mod node;
mod runtime;

pub use node::{Builder, Node};
pub use portolan_runtime::{
    AcceptError, AddressError, ConnectionInfo, DialError, Dialled, Dropped, Incoming, LedgerError,
    Limits, ListenError, Load, Noticed, Notices, OpenError, ReportError, StartError, Stopped,
    Stream, identity, names, net, record, routers,
};
pub use runtime::Smol;
