//! The simulated world: the unchanged core under a virtual clock, among NATs, lossy links, honest
//! servers and liars. One seed decides everything.

mod dice;
pub mod diff;
pub mod facts;
pub mod hearsay;
pub mod html;
pub mod liars;
pub mod matrix;
pub mod net;
pub mod plan;
pub mod redaction;
pub mod relays;
pub mod router;
pub mod routers;
pub mod story;
pub mod summary;
pub mod swarm;
pub mod tape;
mod watch;
pub mod workers;
pub mod world;

pub use dice::Dice;
pub use watch::Violation;
