//! What the `portolan` program can do, as a library.
//!
//! [`check`] asks real peers whether this machine can be reached, [`serve`] dials back for
//! others, [`map`] has routers map ports, [`watch`] keeps looking, [`listen`] and [`connect`] join what is here
//! to what is there, [`demo`] checks and serves in one process; a [`Report`] says what came out. Each takes the
//! runtime to run on, and rests on the public API of [`portolan_runtime::Node`]. [`replay`] needs
//! neither: it feeds a flight record to the core. [`program`] is the program itself, which a
//! program of several faces can bring along.

mod address;
mod agents;
mod check;
mod demo;
mod http;
mod job;
mod lists;
mod map;
mod numbers;
mod pipe;
mod ports;
mod program;
mod relays;
mod replay;
mod report;
mod serve;
mod timeline;
mod watch;

pub use address::{
    AddressProblem, BadAddress, dial_address, distant_address, listen_address, peer_address,
    plain_address, relay_address,
};
pub use check::{CheckError, CheckOptions, check};
pub use demo::{DemoError, DemoOptions, Servers, demo};
pub use http::{ClusterOptions, HttpError, HttpOptions, Member};
pub use job::Progress;
pub use map::{MapOptions, gateways, map};
pub use numbers::thousands;
pub use pipe::{
    Argv, BadCommand, ConnectOptions, ListenOptions, MoveFailed, NoReservation, PathReport,
    PipeFailed, PipeNews, connect, listen,
};
pub use program::program;
pub use replay::{Blessed, Diverged, ReplayFailed, ReplayOptions, Replayed, replay};
pub use report::{
    AddressReport, ClassReport, DistantReport, HearsayReport, HearsayServerReport, MappingReport,
    NatReport, Outcomes, PeerFate, PeerReport, RelayReport, Report, ServerReport, SourceReport,
    TimelineEntry,
};
pub use serve::{Ready, ServeError, ServeOptions, serve};
pub use timeline::{LINES_MAX, Timeline};
pub use watch::{Hook, StateError, StateFile, WatchError, WatchNews, WatchOptions, watch};
