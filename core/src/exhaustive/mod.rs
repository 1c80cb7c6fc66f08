//! Beside the door, in tests alone · small worlds explored to their end, room by room.
//!
//! Knows: for each room a world of two or three peers, one or two addresses, one or two listeners;
//! every event that can come in every state, with every draw. Reads: all rooms.
//!
//! ```text
//!  first worlds ─► every event × every draw ─► promises kept? ─► key seen before? ─► next layer
//!                                                   └─ no: the shortest path that led there
//! ```
//!
//! A world is a room with its neighbours below, and a memory of its own: what was asked, answered,
//! brought. The promises are judged by that memory, in other words than the room's. Worlds are
//! keyed by the canonical form of the rooms and that memory; time jumps to the next deadline, or to
//! just before it.
//!
//! Limits: a bound on the depth of each exploration, and a floor under its states, so that none
//! becomes empty unseen. Built with `PORTOLAN_EXHAUSTIVE=full`, the bounds are higher.
//!
//! A good first change here: a world for a room that has none.

mod candidates;
mod explore;
mod local;
mod observed;
mod peers;
mod probe;
mod reachability;
mod service;
mod stage;
mod town;
