//! The network: packets, links, rules, NAT boxes, and how a packet finds its way among them.
//!
//! ```text
//!   host ──► gates of its routers, innermost first ──► the Internet ──► access link
//!                 (translate, or drop)                                      │
//!   host ◄── gates of its routers, outermost first ◄────────────────────────┘
//! ```
//!
//! Everything here is plain data and arithmetic; time and chance are handed in.

mod fabric;
mod gate;
mod link;
mod packet;
mod rule;

pub use fabric::{Fabric, Fate, HostId, Landing, RouterId, Traffic, Way};
pub use gate::{
    Behavior, Dependence, Gate, GateConfig, Inbound, Policy, PortAllocation, Refresh, Refusal,
    Room, WhenFull,
};
pub use link::{Burst, Link, Loss};
pub use packet::{ACKNOWLEDGEMENT_BYTES, Packet, PacketKind};
pub use rule::{Matches, Rule, RuleVerdict};
