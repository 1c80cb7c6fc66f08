//! What a relay holds for peers that have a reservation and do nothing.

use super::child::{Allowance, Kind};
use super::client::{Client, Manner, apart};
use super::process::{Memory, Relay};
use super::{Fault, crowd, rounded};
use portolan_core::Transport;
use serde_json::{Value, json};
use std::time::Duration;

/// Peers that come first and are not counted: whatever a relay takes once it has taken by then.
const FIRST: usize = 50;
/// How often one looks whether the relay has come to rest, and how long that may take.
const LOOK: Duration = Duration::from_millis(500);
const LOOKS_MAX: usize = 60;
/// How long pings may take to have reached everybody: rust-libp2p pings every 15 s.
const PINGS: Duration = Duration::from_secs(20);

/// All relays, one after the other, so many peers each, more and more.
pub(crate) async fn measure(transport: Transport, steps: &[usize]) -> Result<Value, Fault> {
    let mut document = serde_json::Map::new();
    for kind in Kind::ALL {
        document.insert(kind.name().to_owned(), of_one(kind, transport, steps).await?);
    }
    let figures = Value::from(document.clone());
    for step in steps {
        let ratios = |what| {
            let beside = |kind| rounded(beside(&figures, *step, kind, what));
            json!({ "tokio": beside(Kind::Tokio), "smol": beside(Kind::Smol) })
        };
        let (resident, heap) = (ratios("resident_kib_each"), ratios("heap_kib_each"));
        document.insert(format!("ratio_{step}"), json!({ "resident": resident, "heap": heap }));
    }
    Ok(document.into())
}

/// What one relay holds on its heap for each of so many peers, beside rust-libp2p's.
pub(crate) fn ratio(document: &Value, peers: usize, kind: Kind) -> f64 {
    beside(document, peers, kind, "heap_kib_each")
}

fn beside(document: &Value, peers: usize, kind: Kind, what: &str) -> f64 {
    let of = |kind: Kind| document[kind.name()][peers.to_string()][what].as_f64();
    of(kind).unwrap_or(f64::NAN) / of(Kind::Rust).unwrap_or(f64::NAN)
}

async fn of_one(kind: Kind, transport: Transport, steps: &[usize]) -> Result<Value, Fault> {
    let mut relay = Relay::start(kind, Allowance::Much, &[])?;
    let addr = relay.addr(transport)?;
    let mut clients: Vec<Client> =
        crowd::reserve(addr, Manner::Agrees, (0..FIRST).map(apart)).await?;
    let before = at_rest(&mut relay).await?;
    let mut document = serde_json::Map::new();
    for step in steps {
        let more = clients.len()..FIRST + step;
        clients.extend(crowd::reserve(addr, Manner::Agrees, more.map(apart)).await?);
        // sleep: a ping of every peer is part of what is measured.
        tokio::time::sleep(PINGS).await;
        let after = at_rest(&mut relay).await?;
        document.insert(step.to_string(), per_peer(before, after, *step)?);
    }
    document.insert("peak_resident_kib".into(), (relay.peak()? / 1_024).into());
    drop(clients);
    relay.end()?;
    Ok(document.into())
}

/// What there is more, for each peer.
fn per_peer(before: Memory, after: Memory, peers: usize) -> Result<Value, Fault> {
    let peers = u32::try_from(peers).map_err(|error| Fault::new(error.to_string()))?;
    let each = |of: fn(&Memory) -> u64, unit: f64| {
        let more = of(&after).saturating_sub(of(&before));
        // A difference in memory is far below 2^53.
        #[allow(clippy::cast_precision_loss, reason = "it is far below 2^53")]
        let more = more as f64;
        rounded(more / f64::from(peers) / unit)
    };
    Ok(json!({
        "resident_kib_each": each(|memory| memory.resident, 1_024.0),
        "proportional_kib_each": each(|memory| memory.proportional, 1_024.0),
        "heap_kib_each": each(|memory| memory.heap, 1_024.0),
        "blocks_each": each(|memory| memory.blocks, 1.0),
    }))
}

/// What it holds once that does not change any more.
pub(crate) async fn at_rest(relay: &mut Relay) -> Result<Memory, Fault> {
    let mut last = relay.memory()?;
    for _ in 0..LOOKS_MAX {
        // sleep: nothing tells that a process has come to rest.
        tokio::time::sleep(LOOK).await;
        let now = relay.memory()?;
        if now.heap.abs_diff(last.heap) * 500 <= now.heap {
            return Ok(now);
        }
        last = now;
    }
    Err("it does not come to rest".into())
}
