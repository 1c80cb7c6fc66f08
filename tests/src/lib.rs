//! What crosses crates: what the tests of several packages share.

pub mod dns_server;
pub mod frames;
pub mod js_peer;
pub mod lab;
#[cfg(target_os = "linux")]
pub mod netlab;
pub mod portolan_peer;
pub mod raw_streams;
mod rust_hearsay;
pub mod rust_peer;
pub mod rust_relay;
pub mod scripted;

/// The examples of the README, compiled as doc tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
