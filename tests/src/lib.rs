//! What crosses crates: the scenario runner, and what the tests of other packages share.

pub mod diff;
pub mod frames;
pub mod lab;
pub mod portolan_peer;
pub mod raw_streams;
pub mod redaction;
pub mod rust_peer;
pub mod scenario;
pub mod scripted;
pub mod tape;

/// The examples of the README, compiled as doc tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
