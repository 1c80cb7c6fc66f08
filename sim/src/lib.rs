//! The simulated world: the unchanged core under a virtual clock, among NATs, lossy links, honest
//! servers and liars. One seed decides everything.

mod dice;
pub mod net;
mod watch;
pub mod world;

pub use dice::Dice;
pub use watch::Violation;
