//! Facts handed to one agent, without any network: the one generator behind every proof at this level.
//!
//! A [`Bench`] holds one agent, its clock, its chance, and the minimal books of what the agent
//! asked and ordered. [`Bench::enabled`] lists every [`Fact`] that can befall it now within a small
//! [`Shape`]; [`Bench::perform`] lets one of them happen. Who chooses is up to the driver: a seed
//! ([`walk`]), proptest, or an enumerator that takes every one of them.
//!
//! ```text
//!  Shape ─► Bench ─ enabled ─► [Fact] ─ a chooser ─► perform ─► Step, Step, …  ─► Promises, models
//!             ▲                                          │
//!             └──────────────────────────────────────────┘        Fact ─► lines of a story
//! ```
//!
//! Every fact prints as the lines of `docs/scenarios.md` that tell it, so that whatever fails
//! anywhere is a [`script`] that can be pasted into `tests/scenarios/`.
//!
//! Limits: requests about one address each; no message in several parts. `Wake`s fire on time, but
//! for the facts that say otherwise.
//!
//! A good first change here: a fact for what an embedder tells that runs identify itself.

mod bench;
mod books;
mod cast;
mod chance;
mod enabled;
mod fact;
mod key;
mod perform;
mod presets;
mod promises;
mod shape;
mod story;
pub mod walk;

pub use bench::{Bench, Step};
pub use books::{Books, Probe, Request, Stream};
pub use cast::{NODE, Peer};
pub use chance::Draws;
pub use fact::{Answer, Fact, Kind, Nonce};
pub use promises::{Promises, Seen};
pub use shape::{Settings, Shape};
pub use story::script;
