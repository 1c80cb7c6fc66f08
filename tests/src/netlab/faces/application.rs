//! An application that embeds a node: it does what the lines of JSON on its stdin say, and tells on
//! stdout what its node tells it. It ends with its stdin.
//!
//! Commands: `{"do": "listen" | "dial" | "report", "addr": MULTIADDR}`, each answered by
//! `{"event": "done" | "failed", "addr": …}`; of relays besides `ask`, `echo`, `hold`, `reserve`,
//! `drain`, `punch` and `exchange`. Events beside: `ready`, `verdict`, `class`, `node`, `role`, `probe`, `candidate`,
//! `advertised`, `dialling`, `behaviour`, `mapping`, `gateway`, and of relays `need`, `relay`, `circuits`,
//! `granted`, `refused`, `ended`, `bridged`, and `punching`, each with `at_ms` on the node's clock.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is what a program says")]

use super::punching;
use super::relaying::{self, ECHO, Relaying};
use crate::netlab::peers::On;
use clap::Parser;
use futures::{FutureExt as _, StreamExt as _};
use multiaddr::Multiaddr;
use portolan_core::{Addr, Config, Mapping, MappingConfig, MappingProtocol, Notice, PeerId};
use portolan_runtime::traits::Runtime;
use portolan_runtime::{Builder, Limits, Node, Noticed};
use portolan_smol::Smol;
use portolan_tokio::Tokio;
use serde::Deserialize;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io::{self, BufRead as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// No connection of an experiment is closed because nobody uses it.
const IDLE_FOR: Duration = Duration::from_secs(3_600);

/// An application that embeds a node.
#[derive(Debug, Parser)]
struct Args {
    /// What it listens on from the beginning.
    #[arg(long)]
    listen: Vec<Multiaddr>,
    /// What it runs on.
    #[arg(long)]
    runtime: On,
    /// A protocol by which it asks routers for its ports; without one it asks none.
    #[arg(long)]
    map: Vec<String>,
    /// For how long it asks for them, seconds.
    #[arg(long)]
    lifetime: Option<u64>,
    /// Where it keeps what routers granted.
    #[arg(long)]
    ledger: Option<PathBuf>,
    /// Whom it dials as soon as it has started, all at once.
    #[arg(long)]
    peer: Vec<Multiaddr>,
    #[command(flatten)]
    relaying: Relaying,
}

#[derive(Debug, Deserialize)]
pub(super) struct Command {
    #[serde(rename = "do")]
    pub(super) verb: String,
    /// Empty where none is needed.
    pub(super) addr: Multiaddr,
}

/// Be such an application.
pub(super) fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => error.exit(),
    };
    match args.runtime {
        On::Tokio => {
            let tokio = tokio::runtime::Runtime::new();
            let told = tokio.map(|tokio| {
                let runtime = Tokio::new(tokio.handle().clone());
                tokio.block_on(obey(runtime, args))
            });
            ended(told.unwrap_or_else(|error| Err(error.to_string())))
        }
        On::Smol => {
            let executor = Arc::new(smol::Executor::new());
            let runtime = Smol::from(executor.clone());
            ended(smol::block_on(executor.run(obey(runtime, args))))
        }
    }
}

fn ended(how: Result<(), String>) -> ExitCode {
    match how {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn obey<R: Runtime>(runtime: R, args: Args) -> Result<(), String> {
    let Args { listen, map, lifetime, ledger, peer: peers, relaying, runtime: _ } = args;
    let mut config = Config::default();
    // Like most who embed it: a server to others as well.
    config.dial_back = Some(Default::default());
    config.mapping = asking(&map, lifetime)?;
    relaying.configure(&mut config)?;
    let mut limits = Limits::default();
    limits.idle_timeout = IDLE_FOR;
    let began = runtime.now();
    let builder: Builder<R> = Node::builder(runtime.clone(), relaying.keypair()?);
    let builder = ledger.into_iter().fold(builder, Builder::ledger);
    let mut builder =
        listen.into_iter().fold(builder.config(config).limits(limits), Builder::listen);
    let mut notices = builder.notices();
    let echoes = builder.accept(ECHO).map_err(|error| error.to_string())?;
    let node = builder.start().await.map_err(|error| error.to_string())?;
    runtime.spawn(relaying::echo(runtime.clone(), echoes).boxed());
    let addrs: Vec<String> = node.listeners().await.iter().map(ToString::to_string).collect();
    say(&json!({
        "event": "ready", "peer": node.peer_id().to_string(), "addrs": addrs,
        "at_ms": millis(began),
    }));
    for peer in peers {
        let (node, dial) = (node.clone(), Command { verb: "dial".to_owned(), addr: peer });
        let task_runtime = runtime.clone();
        runtime.spawn(async move { perform(&task_runtime, &node, dial).await }.boxed());
    }
    let mut commands = std::pin::pin!(commands());
    loop {
        let next = futures::future::select(notices.next(), commands.next()).await;
        match next {
            futures::future::Either::Left((Some(noticed), _)) => told(&noticed, node.peer_id()),
            futures::future::Either::Right((Some(command), _)) => {
                perform(&runtime, &node, command?).await;
            }
            futures::future::Either::Left((None, _)) => return Err("the node ended".to_owned()),
            futures::future::Either::Right((None, _)) => break,
        }
    }
    node.shutdown().await;
    Ok(())
}

/// How routers are asked by the protocols of these names, if there are any.
fn asking(names: &[String], lifetime: Option<u64>) -> Result<Option<MappingConfig>, String> {
    if names.is_empty() {
        return Ok(None);
    }
    let known = |name: &String| {
        let mut all = MappingProtocol::ALL.into_iter();
        let found = all.find(|protocol| protocol.name() == name);
        found.ok_or_else(|| format!("nobody maps by {name}"))
    };
    let mut mapping = MappingConfig::default();
    mapping.protocols = names.iter().map(known).collect::<Result<_, _>>()?;
    mapping.lifetime = lifetime.map_or(mapping.lifetime, Duration::from_secs);
    Ok(Some(mapping))
}

/// The lines of stdin, read by a thread that ends with it.
pub(super) fn commands() -> async_channel::Receiver<Result<Command, String>> {
    let (sender, commands) = async_channel::bounded(16);
    thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            let command = serde_json::from_str(&line).map_err(|error| format!("{line}: {error}"));
            if sender.send_blocking(command).is_err() {
                return;
            }
        }
    });
    commands
}

async fn perform<R: Runtime>(runtime: &R, node: &Node<R>, Command { verb, addr }: Command) {
    let named = addr.to_string();
    if let Some(done) = relaying::perform(runtime, node, &verb, &addr).await {
        let (mut event, word) = match done {
            Ok(event) => (event, "done"),
            Err(error) => (json!({ "error": error }), "failed"),
        };
        event["event"] = word.into();
        event["addr"] = named.into();
        event["at_ms"] = millis(node.now()).into();
        return say(&event);
    }
    if verb == "dial" {
        say(&json!({ "event": "dialling", "addr": named, "at_ms": millis(node.now()) }));
    }
    let done = match verb.as_str() {
        "listen" => node.listen(addr).await.map(|_| ()).map_err(|error| error.to_string()),
        "dial" => node.dial(addr).await.map(|_| ()).map_err(|error| error.to_string()),
        "report" => node.report_dial_failure(addr).await.map_err(|error| error.to_string()),
        other => Err(format!("nobody can {other}")),
    };
    say(&match done {
        Ok(()) => json!({ "event": "done", "addr": named }),
        Err(error) => json!({ "event": "failed", "addr": named, "error": error }),
    });
}

pub(super) fn millis(at: portolan_core::Instant) -> u64 {
    millis_of(at.since(portolan_core::Instant::ZERO))
}

pub(super) fn millis_of(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "a node tells much that no experiment asks about"
)]
fn told(noticed: &Noticed, own: PeerId) {
    assert_eq!(noticed.missed, 0, "whoever reads this reads fast enough");
    let mut event = match &noticed.notice {
        Notice::VerdictChanged { addr, state, scope, reason } => json!({
            "event": "verdict", "addr": addr.to_string(), "state": state.name(),
            "scope": scope.map(portolan_core::Scope::name), "reason": reason.to_string(),
        }),
        Notice::ClassChanged { class, state, reason } => json!({
            "event": "class", "class": class.to_string(), "state": state.name(),
            "reason": reason.to_string(),
        }),
        Notice::NodeChanged { state, reason } => json!({
            "event": "node", "state": state.name(), "reason": reason.to_string(),
        }),
        Notice::MappingInferred { class, mapping, provisional } => json!({
            "event": "behaviour", "class": class.to_string(), "mapping": format!("{mapping:?}"),
            "provisional": provisional,
        }),
        Notice::RoleChanged { may_serve } => json!({ "event": "role", "may_serve": may_serve }),
        Notice::ProbeEnded { addr, outcome, .. } => json!({
            "event": "probe", "addr": addr.to_string(), "outcome": outcome.name(),
        }),
        Notice::CandidateChanged { addr, sources } => json!({
            "event": "candidate", "addr": addr.to_string(),
            "sources": sources.iter().map(portolan_core::Source::name).collect::<Vec<_>>(),
        }),
        Notice::AdvertisedChanged { added, removed } => {
            let texts = |addrs: &[Addr]| addrs.iter().map(Addr::to_string).collect::<Vec<_>>();
            json!({ "event": "advertised", "added": texts(added), "removed": texts(removed) })
        }
        Notice::Punch(notice) => punching::told(notice),
        Notice::Relay(notice) => match relaying::told(notice, own) {
            Some(event) => event,
            None => return,
        },
        Notice::MappingChanged { internal, mapping } => mapped(*internal, mapping.as_ref()),
        Notice::GatewayAnswered(answer) => json!({
            "event": "gateway", "protocol": answer.protocol.name(),
            "external": answer.external.map(|ip| ip.to_string()),
        }),
        _ => return,
    };
    event["at_ms"] = millis(noticed.at).into();
    say(&event);
}

fn mapped(internal: Addr, mapping: Option<&Mapping>) -> Value {
    let Some(Mapping { state, reason, lease, .. }) = mapping else {
        return json!({ "event": "mapping", "internal": internal.to_string(), "state": "gone" });
    };
    json!({
        "event": "mapping", "internal": internal.to_string(), "state": state.name(),
        "reason": reason.to_string(),
        "external": lease.map(|lease| lease.external.to_string()),
        "protocol": lease.map(|lease| lease.protocol.name()),
        "lifetime_s": lease.and_then(|lease| lease.lifetime).map(|span| span.as_secs()),
    })
}

pub(super) fn say(event: &Value) {
    println!("{event}");
}
