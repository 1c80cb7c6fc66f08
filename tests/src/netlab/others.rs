//! Programs of the lab that are not `portolan`: rust-libp2p and js-libp2p as published, as servers
//! and as clients, with the arguments of `portolan serve` and `portolan check`.
//!
//! A server prints what it listens on and runs until it is killed. A client dials every peer at once
//! and prints one report: what it has concluded of which address, and when.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is what a program says")]

use super::peers::Program;
use crate::js_peer::{self, JsPeer, strings};
use crate::rust_peer::{RustPeer, RustPeerConfig, Seen};
use clap::{Parser, Subcommand};
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How often rust-libp2p's client looks for something to probe; its own default, which no
/// application is told to change.
const RUST_PROBES_EVERY: Duration = Duration::from_secs(5);

/// A server or a client of another implementation.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Dial back whoever asks.
    Serve {
        #[arg(long)]
        listen: Vec<Multiaddr>,
    },
    /// Have this machine dialled back.
    Check {
        #[arg(long)]
        listen: Vec<Multiaddr>,
        #[arg(long)]
        peer: Vec<Multiaddr>,
        #[arg(long, value_name = "SECS")]
        timeout: u64,
    },
}

/// What a client came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// What it judged, in the order in which it did.
    pub addresses: Vec<Judged>,
    /// From the first dial to its end, milliseconds.
    pub elapsed_ms: u64,
}

/// What a client has concluded of an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// The address, a multiaddr.
    pub address: String,
    /// Whether it is reachable.
    pub reachable: bool,
    /// When, milliseconds from the first dial.
    pub at_ms: u64,
}

impl Report {
    /// What it comes to: an address that is reachable, else one that is not, the first of each.
    pub fn verdict(&self) -> Option<&Judged> {
        let reachable = self.addresses.iter().find(|one| one.reachable);
        reachable.or_else(|| self.addresses.first())
    }
}

/// Be that program, with these arguments.
pub fn program(program: Program, args: impl Iterator<Item = OsString>) -> ExitCode {
    let args = Args::parse_from([OsString::from(program.name())].into_iter().chain(args));
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.to_string()),
    };
    let ended = runtime.block_on(async {
        match args.role {
            Role::Serve { listen } => serve(program, listen).await,
            Role::Check { listen, peer, timeout } => {
                let deadline = Duration::from_secs(timeout);
                let report = match program {
                    Program::Js => check_js(&listen, &peer, deadline).await?,
                    Program::Rust | Program::Portolan(_) => {
                        check_rust(listen, peer, deadline).await
                    }
                };
                println!("{}", json!(report));
                Ok(())
            }
        }
    });
    ended.map_or_else(|error| failed(&error), |()| ExitCode::SUCCESS)
}

fn failed(error: &str) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

/// Serve until somebody kills this process.
async fn serve(program: Program, listen: Vec<Multiaddr>) -> Result<(), String> {
    match program {
        Program::Js => {
            let mut server = JsPeer::start(&js_options(&listen)).await?;
            tell(&server.full_addrs);
            while server.next().await.is_some() {}
            Err("js-libp2p has ended".into())
        }
        Program::Rust | Program::Portolan(_) => {
            let config = RustPeerConfig { listen, server: true, ..RustPeerConfig::default() };
            let mut server = RustPeer::start(config).await;
            tell(&server.full_addrs());
            while server.next().await.is_some() {}
            Err("rust-libp2p has ended".into())
        }
    }
}

fn tell(addrs: &[Multiaddr]) {
    addrs.iter().for_each(|addr| println!("{addr}"));
}

fn js_options(listen: &[Multiaddr]) -> Value {
    let listen: Vec<String> = listen.iter().map(ToString::to_string).collect();
    json!({ "listen": listen, "autonat": true })
}

/// What a client has concluded so far.
#[derive(Debug)]
struct Book {
    began: Instant,
    addresses: Vec<Judged>,
}

impl Book {
    fn begin() -> Book {
        Book { began: Instant::now(), addresses: Vec::new() }
    }

    /// Write down a verdict, the first time that it is heard.
    fn judge(&mut self, address: &str, reachable: bool) {
        let address = address.split("/p2p/").next().unwrap_or_default().to_owned();
        let same = |one: &Judged| one.address == address && one.reachable == reachable;
        if !self.addresses.iter().any(same) {
            self.addresses.push(Judged { address, reachable, at_ms: self.now_ms() });
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn close(self) -> Report {
        Report { elapsed_ms: self.now_ms(), addresses: self.addresses }
    }
}

/// rust-libp2p: an address is reachable once it is confirmed, and unreachable once a probe of it has
/// failed. The second is more than its documentation promises: it is the event of a single probe.
/// An address whose probe has failed is never probed again, so that the end is near when there is
/// an answer about each.
async fn check_rust(listen: Vec<Multiaddr>, peers: Vec<Multiaddr>, within: Duration) -> Report {
    let client = Some(RUST_PROBES_EVERY);
    let mut peer =
        RustPeer::start(RustPeerConfig { listen, client, ..RustPeerConfig::default() }).await;
    let mut book = Book::begin();
    for addr in &peers {
        peer.dial(addr.clone()).await;
    }
    let mut strangers: BTreeSet<PeerId> = peers.iter().filter_map(peer_id).collect();
    let mut failed = 0;
    let mut answered: BTreeMap<Multiaddr, bool> = BTreeMap::new();
    let deadline = book.began + within;
    while let Ok(Some(seen)) = timeout_at(deadline, peer.next()).await {
        match seen {
            Seen::Identified { peer, .. } => {
                strangers.remove(&peer);
            }
            Seen::DialFailed(_) | Seen::IdentifyFailed { .. } => failed += 1,
            Seen::Candidate(addr) => {
                answered.entry(addr).or_default();
            }
            Seen::Confirmed(addr) => book.judge(&addr.to_string(), true),
            Seen::Probed { addr, result, .. } => {
                if result.is_err() {
                    book.judge(&addr.to_string(), false);
                }
                answered.insert(addr, true);
            }
            Seen::Listening(_)
            | Seen::Connected { .. }
            | Seen::Disconnected { .. }
            | Seen::Pinged { .. }
            | Seen::Served { .. }
            | Seen::Told { .. }
            | Seen::ListenerClosed(_)
            | Seen::Relay(_)
            | Seen::Punched { .. } => {}
        }
        let all_met = strangers.len() <= failed;
        if all_met && !answered.is_empty() && answered.values().all(|answered| *answered) {
            break;
        }
    }
    book.close()
}

fn peer_id(addr: &Multiaddr) -> Option<PeerId> {
    addr.iter().find_map(|part| if let Protocol::P2p(peer) = part { Some(peer) } else { None })
}

/// js-libp2p: an address is reachable once its address manager has verified it, and unreachable once
/// that has given it up, which no application is told.
async fn check_js(
    listen: &[Multiaddr],
    peers: &[Multiaddr],
    within: Duration,
) -> Result<Report, String> {
    let mut peer = JsPeer::start(&js_options(listen)).await?;
    let mut book = Book::begin();
    for (number, addr) in (0..).zip(peers) {
        peer.begin_dial(number, addr).await;
    }
    let deadline = book.began + within;
    while let Ok(Some(event)) = timeout_at(deadline, peer.next()).await {
        let reachable = match event["event"].as_str() {
            Some("verified") => true,
            Some("refuted") => false,
            Some("settled") => break,
            _ => continue,
        };
        strings(&event["addrs"]).iter().for_each(|addr| book.judge(addr, reachable));
    }
    Ok(book.close())
}

/// The version of a program, as its package says.
pub fn version(program: Program) -> String {
    match program {
        Program::Portolan(_) => env!("CARGO_PKG_VERSION").to_owned(),
        Program::Rust => locked("libp2p"),
        Program::Js => js_peer::version("libp2p"),
    }
}

/// The version of a dependency, as it is locked.
fn locked(package: &str) -> String {
    let lock = include_str!("../../../Cargo.lock");
    let head = format!("name = \"{package}\"\nversion = \"");
    let tail = lock.split_once(&head).map(|(_, tail)| tail);
    tail.and_then(|tail| tail.split('"').next()).unwrap_or("?").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_verdict_counts_and_reachable_counts_more() {
        let mut book = Book::begin();
        assert_eq!(book.addresses.len(), 0);
        book.judge("/ip4/44.0.0.1/tcp/1", false);
        book.judge("/ip4/44.0.0.1/tcp/2/p2p/abc", false);
        let mut report = book.close();
        assert_eq!(report.verdict(), report.addresses.first());
        assert_eq!(report.addresses[1].address, "/ip4/44.0.0.1/tcp/2");
        report.addresses[1].reachable = true;
        assert_eq!(report.verdict(), report.addresses.get(1));
    }

    #[test]
    fn versions_are_those_of_the_packages() {
        assert!(locked("libp2p").starts_with("0."), "{}", locked("libp2p"));
        assert_eq!(locked("no such package"), "?");
    }
}
