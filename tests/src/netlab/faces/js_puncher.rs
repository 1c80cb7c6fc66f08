//! A peer of js-libp2p's that makes direct connections out of relayed ones, as `rust_puncher` is one of
//! rust-libp2p's: the same commands and the same events, but for `punching`, which is what its service
//! says it does, in its own words, in place of `punched`.

#![allow(clippy::print_stderr, reason = "this is what a program says")]

use super::application::{Command, commands, millis, say};
use super::relaying::{ECHO, LONG};
use super::rust_puncher::{Args, ended};
use crate::js_peer::JsPeer;
use clap::Parser as _;
use multiaddr::Protocol;
use portolan_runtime::traits::Timers as _;
use portolan_tokio::Tokio;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::ExitCode;

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
    let clock = Tokio::new(tokio.handle().clone());
    match tokio.block_on(obey(&clock, args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn obey(clock: &Tokio, args: Args) -> Result<(), String> {
    let listen: Vec<String> = args.listen.iter().map(ToString::to_string).collect();
    let options = json!({ "listen": listen, "relayClient": true, "punch": true, "echo": ECHO });
    let mut peer = JsPeer::start(&options).await?;
    let addrs: Vec<String> = peer.full_addrs.iter().map(ToString::to_string).collect();
    say(&json!({
        "event": "ready", "peer": peer.id.to_string(), "addrs": addrs, "at_ms": millis(clock.now()),
    }));
    let mut echoes = Echoes::default();
    for addr in args.peer {
        echoes.perform(&peer, Command { verb: "dial".to_owned(), addr }).await?;
    }
    let commands = commands();
    loop {
        tokio::select! {
            event = peer.next() => {
                let event = event.ok_or("js-libp2p has ended")?;
                if let Some(mut event) = echoes.told(&event) {
                    event["at_ms"] = millis(clock.now()).into();
                    say(&event);
                }
            }
            command = commands.recv() => {
                let Ok(command) = command else { return Ok(()) };
                let Command { verb, addr } = command?;
                let named = addr.to_string();
                let is_answered_later = verb == "echo";
                let begun = echoes.perform(&peer, Command { verb, addr }).await;
                if begun.is_err() || !is_answered_later {
                    ended(&named, begun);
                }
            }
        }
    }
}

/// What is asked of it under which number, and the address of each echo that it has not had yet.
#[derive(Debug, Default)]
struct Echoes {
    last: u64,
    asked: BTreeMap<u64, String>,
}

impl Echoes {
    async fn perform(
        &mut self,
        peer: &JsPeer,
        Command { verb, addr }: Command,
    ) -> Result<(), String> {
        self.last += 1;
        let id = self.last;
        let order = match verb.as_str() {
            "dial" | "reserve" => json!({ "do": verb, "id": id, "addr": addr.to_string() }),
            "echo" => {
                let named = addr.iter().find_map(|part| {
                    let Protocol::P2p(peer) = part else { return None };
                    Some(peer.to_string())
                });
                let named = named.ok_or("the address names no peer")?;
                self.asked.insert(id, addr.to_string());
                json!({ "do": verb, "id": id, "peer": named, "bytes": LONG })
            }
            other => return Err(format!("nobody can {other}")),
        };
        peer.order(&order).await;
        Ok(())
    }

    /// What it says, in the words of `rust_puncher`.
    fn told(&mut self, event: &Value) -> Option<Value> {
        let text = |field: &str| event[field].as_str().unwrap_or_default();
        let what = text("event");
        let asked = event["id"].as_u64().and_then(|id| self.asked.remove(&id));
        if let Some(addr) = asked {
            let failed = what == "failed";
            ended(&addr, if failed { Err(text("error").to_owned()) } else { Ok(()) });
            return None;
        }
        let relayed = || text("remote").contains("/p2p-circuit");
        Some(match what {
            "identified" => json!({ "event": "observed", "addr": event["observed"] }),
            "connection" => json!({
                "event": "connection", "peer": event["peer"], "remote": event["remote"],
                "dialled": event["direction"] == "outbound", "relayed": relayed(),
            }),
            "closed" => {
                json!({ "event": "disconnected", "peer": event["peer"], "relayed": relayed() })
            }
            "reserved" => json!({ "event": "reserved", "peer": event["relay"] }),
            "failed" => json!({ "event": "failed-dial", "why": event["error"] }),
            "punching" => {
                json!({ "event": "punching", "text": event["text"], "why": event["error"] })
            }
            _ => return None,
        })
    }
}
