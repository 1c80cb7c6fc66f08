//! The runtime-neutral driver of Portolan and its libp2p connection stack.
//!
//! An application holds a [`Node`]. Behind it one task, the driver, owns the sans-IO core: it
//! hands core facts about connections and streams, and performs core's actions. The [`net`] module
//! makes those connections out of sockets. [`names`] and [`bootstrap`] find whom to connect to. What differs between asynchronous runtimes stands
//! behind the [`traits`]; adapters such as `portolan-tokio` implement them, some by way of a
//! [`reactor`].

pub mod bootstrap;
mod driver;
pub mod http;
pub mod identity;
mod ledger;
pub mod names;
pub mod net;
mod node;
pub mod pipe;
pub mod private_file;
pub mod reactor;
pub mod record;
pub mod routers;
#[cfg(test)]
mod scratch;
mod sockets;
mod time;
pub mod traits;

pub use ledger::LedgerError;
pub use node::{
    AcceptError, AddressError, Builder, ConnectionChanges, ConnectionInfo, DialError, Dialled,
    Dropped, Incoming, Limits, ListenError, Load, NOTICES_MAX, Node, Noticed, Notices, OpenError,
    PROTOCOL_NAME_MAX, PROTOCOLS_MAX, ReportError, StartError, Stopped, Stream, circuit_address,
    destination, dial_address, distant_server, listen_address,
};
