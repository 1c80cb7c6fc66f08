//! What the program of the lab can be beside itself. Called with one of these names first, it is a
//! program that the experiments run in a namespace, so that the lab needs no other beside it.

mod application;
mod js_puncher;
mod punching;
mod relaying;
mod rust_puncher;
mod rust_relay;
mod scripted;

use super::others;
use super::peers::Program;
use std::ffi::OsString;
use std::process::ExitCode;

/// `portolan`, whole.
pub const PORTOLAN: &str = "portolan";
/// An application that embeds a node, steered by lines of JSON.
pub const APPLICATION: &str = "application";
/// A server that follows a script instead of the protocol.
pub const SCRIPTED: &str = "scripted";
/// A relay of rust-libp2p's.
pub const RUST_RELAY: &str = "rust-relay";

/// A peer of rust-libp2p's that makes direct connections out of relayed ones.
pub const RUST_PUNCHER: &str = "rust-puncher";
/// The same of js-libp2p's.
pub const JS_PUNCHER: &str = "js-puncher";

pub use scripted::{TRICKS, Trick};

/// If the first argument names another program, be that.
pub fn other_face() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    let face = args.next()?;
    let other = [Program::Rust, Program::Js].into_iter().find(|other| face == other.name());
    if let Some(other) = other {
        return Some(others::program(other, args));
    }
    let named = [OsString::from(&face)].into_iter().chain(args);
    match face.to_str()? {
        PORTOLAN => Some(portolan::program(named)),
        APPLICATION => Some(application::run(named)),
        SCRIPTED => Some(scripted::run(named)),
        JS_PUNCHER => Some(js_puncher::run(named)),
        RUST_PUNCHER => Some(rust_puncher::run(named)),
        RUST_RELAY => Some(rust_relay::run(named)),
        _ => None,
    }
}
