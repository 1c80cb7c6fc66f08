//! The sans-IO core of Portolan: pure state machines that take events and emit actions.
//!
//! Core has no clock, no sockets and no randomness of its own. An embedder feeds facts into
//! [`Agent::handle`], performs the [`Action`]s that come out, and calls again when
//! [`Agent::deadline`] passes. `examples/bare_loop.rs` does so in a plain loop over bare sockets;
//! `ARCHITECTURE.md` at the root of the repository has the map.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod advertise;
mod agent;
mod candidates;
#[cfg(test)]
mod exhaustive;
mod explain;
pub mod flight;
mod local;
mod mapping;
mod observed;
mod peers;
mod probe;
mod punch;
mod reachability;
mod relay;
mod service;
pub mod transcript;
pub mod wire;
mod words;

pub use agent::Agent;
pub use explain::{
    AddressExplanation, ClassExplanation, DistantExplanation, Explanation, HearsayExplanation,
    HearsayServer, ServerExplanation,
};
pub use libp2p_identity::PublicKey;
pub use probe::Proof;
pub use reachability::{Reachability, Status, Verdict};
pub use words::action::{Action, Actions, Dial};
pub use words::addr::{Addr, Class, Family, Group, IpScope, Transport, ip_scope};
pub use words::config::{
    self, Config, ConfigError, DialBackConfig, DistantServer, MappingConfig, PunchConfig,
    RelayConfig, RelayNeed, RelayPeer, RelayServerConfig,
};
pub use words::cx::{Cx, Draw, Signer};
pub use words::deadline::{Deadline, Wake};
pub use words::event::{Connected, DialFailure, Event, StreamEnd, StreamFailure};
pub use words::hearsay::HearsayAnswer;
pub use words::id::{ConnId, DialId, ListenerId, PeerId, Side, StreamId};
pub use words::judgement::{
    FilteringBehavior, MappingBehavior, NextProbe, NodeState, Outcome, Reason, Scope, Source,
    Sources, State,
};
pub use words::mapping::{
    Channel, Fetch, FetchFailure, FetchId, Gateway, GatewayAnswer, Lease, LeaseTerm, Mapping,
    MappingAction, MappingEvent, MappingProtocol, MappingReason, MappingState, Soap,
};
pub use words::notice::{Notice, Oddity, Served};
pub use words::protocol::{Framing, Protocol, ProtocolSet};
pub use words::punch::{PunchAction, PunchEvent, PunchFailure, PunchId, PunchNotice, PunchWay};
pub use words::relay::{
    BridgeEnd, CircuitAddr, CircuitFailure, CircuitId, CircuitLimit, Relay, RelayAction,
    RelayEvent, RelayFailure, RelayLoad, RelayNotice, RelayState, RelayStatus,
};
pub use words::time::{Duration, Instant, UnixTime};
