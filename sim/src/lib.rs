//! The simulated world: the unchanged core under a virtual clock, among NATs, lossy links, honest
//! servers and liars. One seed decides everything.

pub mod facts;
