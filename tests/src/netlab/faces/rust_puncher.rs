//! A peer of rust-libp2p's that makes direct connections out of relayed ones. It does what the lines of
//! JSON on its stdin say, tells on stdout what it sees, and ends with its stdin.
//!
//! Commands: `{"do": "dial" | "reserve" | "echo", "addr": MULTIADDR}`. The first two are answered at
//! once; what becomes of them is an event. Events: `ready`, `observed`, `connection`, `disconnected`,
//! `failed-dial`, `reserved`, `unreserved`, `punched`, and `done` or `failed` for a command.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is what a program says")]

use super::application::{Command, commands, millis, say};
use super::relaying::{ECHO, LONG, exchange};
use crate::raw_streams::{Inbound, Opener};
use crate::rust_peer::{RustPeer, RustPeerConfig, Seen};
use crate::rust_relay::RelaySeen;
use clap::Parser;
use futures::io::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::PeerId;
use libp2p::swarm::StreamProtocol;
use multiaddr::{Multiaddr, Protocol};
use portolan_runtime::traits::Timers as _;
use portolan_tokio::Tokio;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::process::ExitCode;
use tokio::sync::mpsc::UnboundedReceiver;

/// A peer that punches holes.
#[derive(Debug, Parser)]
pub(super) struct Args {
    /// What it listens on.
    #[arg(long, required = true)]
    pub(super) listen: Vec<Multiaddr>,
    /// Whom it dials as soon as it has started.
    #[arg(long)]
    pub(super) peer: Vec<Multiaddr>,
}

/// Be such a peer.
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
    tokio.block_on(obey(&Tokio::new(tokio.handle().clone()), args))
}

async fn obey(clock: &Tokio, args: Args) -> ExitCode {
    let config = RustPeerConfig {
        listen: args.listen,
        relay_client: true,
        punch: true,
        accept: vec![StreamProtocol::new(ECHO)],
        ..RustPeerConfig::default()
    };
    let mut peer = RustPeer::start(config).await;
    if let Some(inbound) = peer.inbound() {
        tokio::spawn(answer(inbound));
    }
    let addrs: Vec<String> = peer.full_addrs().iter().map(ToString::to_string).collect();
    say(&json!({
        "event": "ready", "peer": peer.id.to_string(), "addrs": addrs, "at_ms": millis(clock.now()),
    }));
    for addr in args.peer {
        peer.dial(addr).await;
    }
    let commands = commands();
    loop {
        tokio::select! {
            seen = peer.next() => {
                let Some(seen) = seen else { return ExitCode::FAILURE };
                if let Some(mut event) = told(&seen) {
                    event["at_ms"] = millis(clock.now()).into();
                    say(&event);
                }
            }
            command = commands.recv() => match command {
                Ok(Ok(command)) => perform(&peer, command).await,
                Ok(Err(error)) => {
                    eprintln!("error: {error}");
                    return ExitCode::FAILURE;
                }
                Err(_) => return ExitCode::SUCCESS,
            },
        }
    }
}

async fn perform(peer: &RustPeer, Command { verb, addr }: Command) {
    let named = addr.to_string();
    let done = match verb.as_str() {
        "dial" => {
            peer.dial(addr).await;
            Ok(())
        }
        "reserve" => {
            peer.reserve(addr).await;
            Ok(())
        }
        "echo" => {
            tokio::spawn(echo(peer.opener(), addr));
            return;
        }
        other => Err(format!("nobody can {other}")),
    };
    ended(&named, done);
}

/// Say what came of a command.
pub(super) fn ended(addr: &str, done: Result<(), String>) {
    say(&match done {
        Ok(()) => json!({ "event": "done", "addr": addr }),
        Err(error) => json!({ "event": "failed", "addr": addr, "error": error }),
    });
}

/// Have the peer whom this address names send back what it is sent.
async fn echo(opener: Opener, addr: Multiaddr) {
    let named = addr.to_string();
    let work = async {
        let named = addr.iter().find_map(|part| {
            let Protocol::P2p(peer) = part else { return None };
            Some(peer)
        });
        let peer = named.ok_or("the address names no peer")?;
        let sent: Vec<u8> = (0..=250).cycle().take(LONG).collect();
        let stream = opener.open(peer, StreamProtocol::new(ECHO)).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let got = exchange(stream, &sent).await.map_err(|error| error.to_string())?;
        if got == sent { Ok(()) } else { Err("what came back is not what was sent".to_owned()) }
    };
    ended(&named, work.await);
}

/// Send back what comes.
async fn answer(mut streams: UnboundedReceiver<Inbound>) {
    while let Some(Inbound { stream, .. }) = streams.recv().await {
        tokio::spawn(async move {
            let (reader, mut writer) = stream.split();
            if futures::io::copy(reader, &mut writer).await.is_ok() {
                // Whoever asked may be gone.
                let _ = writer.close().await;
            }
        });
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "what no story asks about is left out")]
fn told(seen: &Seen) -> Option<Value> {
    let with = |peer: &PeerId, event: &str| json!({ "event": event, "peer": peer.to_string() });
    let told = match seen {
        Seen::Candidate(addr) => json!({ "event": "observed", "addr": addr.to_string() }),
        Seen::Connected { peer, remote, dialled, relayed } => json!({
            "event": "connection", "peer": peer.to_string(), "remote": remote.to_string(),
            "dialled": dialled, "relayed": relayed,
        }),
        Seen::Disconnected { peer, cause } => {
            let mut event = with(peer, "disconnected");
            event["cause"] = cause.clone().into();
            event
        }
        Seen::DialFailed(error) => json!({ "event": "failed-dial", "why": error }),
        Seen::Relay(RelaySeen::Reserved { relay, .. }) => with(relay, "reserved"),
        Seen::ListenerClosed(error) => json!({ "event": "unreserved", "why": error }),
        Seen::Punched { peer, result } => {
            let mut event = with(peer, "punched");
            event["why"] = result.clone().err().into();
            event
        }
        _ => return None,
    };
    Some(told)
}
