//! A relay that nobody here wrote: rust-libp2p's, which tells in lines of JSON what it does. It ends
//! with its stdin.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is what a program says")]

use super::application::{millis, say};
use crate::rust_peer::{RustPeer, RustPeerConfig, Seen};
use crate::rust_relay::{RelaySeen, RustRelayConfig};
use clap::Parser;
use multiaddr::Multiaddr;
use portolan_runtime::traits::Timers as _;
use portolan_tokio::Tokio;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

/// Bytes of both directions that a circuit may carry: enough for the long question.
const BYTES: u64 = 1 << 20;
/// How long a circuit may last, rust-libp2p's value.
const DURATION: Duration = Duration::from_secs(120);

/// A relay of rust-libp2p's.
#[derive(Debug, Parser)]
struct Args {
    /// What it listens on.
    #[arg(long, required = true)]
    listen: Vec<Multiaddr>,
    /// How long its reservations last, seconds.
    #[arg(long)]
    relay_for: u64,
    /// It grants each peer one reservation an hour, so that renewals are refused.
    #[arg(long)]
    once: bool,
}

/// Be such a relay.
pub(super) fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => error.exit(),
    };
    let tokio = match tokio::runtime::Runtime::new() {
        Ok(tokio) => tokio,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    thread::spawn(|| {
        // Its end is what counts.
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        std::process::exit(0);
    });
    tokio.block_on(async {
        let clock = Tokio::new(tokio.handle().clone());
        let relay = RustRelayConfig {
            bytes: BYTES,
            duration: DURATION,
            lifetime: Duration::from_secs(args.relay_for),
            once: args.once,
        };
        let config =
            RustPeerConfig { listen: args.listen, relay: Some(relay), ..RustPeerConfig::default() };
        let mut peer = RustPeer::start(config).await;
        let addrs: Vec<String> = peer.full_addrs().iter().map(ToString::to_string).collect();
        say(&json!({ "event": "ready", "peer": peer.id.to_string(), "addrs": addrs }));
        while let Some(seen) = peer.next().await {
            if let Some(mut event) = told(&seen) {
                event["at_ms"] = millis(clock.now()).into();
                say(&event);
            }
        }
        ExitCode::FAILURE
    })
}

#[allow(clippy::wildcard_enum_match_arm, reason = "what no story asks about is left out")]
fn told(seen: &Seen) -> Option<Value> {
    match seen {
        Seen::Relay(RelaySeen::Granted { peer }) => {
            Some(json!({ "event": "granted", "peer": peer.to_string() }))
        }
        Seen::Relay(RelaySeen::Denied { peer, target, status }) => Some(json!({
            "event": "refused", "peer": peer.to_string(), "status": status,
            "target": target.map(|peer| peer.to_string()),
        })),
        _ => None,
    }
}
