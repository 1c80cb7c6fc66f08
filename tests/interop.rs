//! Interop with peers that nobody here wrote, as their authors published them: rust-libp2p and
//! js-libp2p, on loopback, both directions, TCP and QUIC. What comes out is `docs/interop.md`.
//!
//! js-libp2p is installed by `tests/install-lab.sh`. Where it, or a network namespace, cannot be
//! had, the cells are skipped and named; `PORTOLAN_REQUIRE_LAB=1` makes that a failure.

#![allow(clippy::print_stdout, reason = "skips are told to whoever runs the tests")]

#[path = "interop/cell.rs"]
mod cell;
#[path = "interop/cells.rs"]
mod cells;
#[path = "interop/handshakes.rs"]
mod handshakes;
#[path = "interop/identify.rs"]
mod identify;
#[path = "interop/js_peer.rs"]
mod js_peer;
#[path = "interop/namespace.rs"]
mod namespace;
#[path = "interop/other.rs"]
mod other;
#[path = "interop/table.rs"]
mod table;

use cell::{Cell, Kind, Place};
use cells::Group;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use portolan_core::Transport;
use portolan_tests::rust_peer::KeyType;
use table::Seen;

/// Groups of cells that run at once: most of their time is waiting, but processes start with a
/// burst of work.
const AT_ONCE: usize = 6;

/// Runs every cell and compares with the committed page. Starts itself again in a namespace for the
/// cells on global addresses.
#[tokio::test(flavor = "multi_thread")]
async fn the_table_holds() {
    if namespace::is_inside() {
        return namespace::inside().await;
    }
    let mut kinds = vec![Kind::Rust];
    let mut complete = true;
    match js_peer::installed() {
        Ok(()) => kinds.push(Kind::Js),
        Err(missing) => {
            skip(&missing);
            complete = false;
        }
    }
    let mut seen = Seen { cells: protocols(&kinds).await, handshakes: handshakes(&kinds).await };
    if kinds.contains(&Kind::Js) {
        match namespace::run().await {
            Ok(cells) => seen.cells.extend(cells),
            Err(missing) => {
                skip(&missing);
                complete = false;
            }
        }
    }
    seen.settle(complete);
}

fn skip(missing: &str) {
    println!("skipped: {missing}");
    assert!(std::env::var_os("PORTOLAN_REQUIRE_LAB").is_none(), "the lab is required: {missing}");
}

/// Every cell of the protocols on loopback.
async fn protocols(kinds: &[Kind]) -> Vec<Cell> {
    let mut groups: Vec<BoxFuture<'static, Vec<Cell>>> = Vec::new();
    for kind in kinds.iter().copied() {
        for transport in [Transport::Tcp, Transport::Quic] {
            let group = Group { kind, place: Place::Loopback, transport };
            groups.push(Box::pin(group.basics()));
            groups.push(Box::pin(group.client()));
            groups.push(Box::pin(async move { vec![group.server().await] }));
        }
    }
    futures::stream::iter(groups).buffered(AT_ONCE).concat().await
}

async fn handshakes(kinds: &[Kind]) -> Vec<handshakes::Handshake> {
    let runs = kinds.iter().flat_map(|kind| KeyType::ALL.map(|key| handshakes::with(*kind, key)));
    futures::stream::iter(runs).buffered(AT_ONCE).concat().await
}

/// Not in the table, because it is no cell: what a probe costs where addresses differ.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_asks_for_dial_data_gets_it() {
    cells::dial_data_is_paid().await.expect("rust-libp2p dials back after it was paid");
}

/// Not in the table either: requests about several addresses, which each server reads its own way.
#[tokio::test(flavor = "multi_thread")]
async fn several_addresses_fit_in_one_request() {
    let asked = cells::several_addresses(Kind::Rust, Place::Loopback).await;
    asked.expect("the one that rust-libp2p takes is proved");
}
