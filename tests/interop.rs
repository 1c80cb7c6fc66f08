//! Interop with peers that nobody here wrote, as their authors published them: rust-libp2p and
//! js-libp2p, on loopback, both directions, TCP and QUIC, with Portolan on every runtime. What comes out is `docs/interop.md`.
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
#[path = "interop/hearsay.rs"]
mod hearsay;
#[path = "interop/hearsay_js.rs"]
mod hearsay_js;
#[path = "interop/identify.rs"]
mod identify;
#[path = "interop/namespace.rs"]
mod namespace;
#[path = "interop/other.rs"]
mod other;
#[path = "interop/relay.rs"]
mod relay;
#[path = "interop/relay_peer.rs"]
mod relay_peer;
#[path = "interop/table.rs"]
mod table;

use cell::{Cell, Kind, On, Place};
use cells::Group;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use handshakes::Handshake;
use portolan_core::{NodeState, Transport};
use portolan_runtime::traits::Runtime;
use portolan_tests::js_peer;
use portolan_tests::lab::{Lab, OnSmol, OnTokio};
use portolan_tests::rust_peer::KeyType;
use relay::{Relayed, Scene};
use relay_peer::Who;
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
    let (tokio, smol) = (OnTokio::open(), OnSmol::open());
    let (on_tokio, on_smol) = (tokio.runtime(), smol.runtime());
    let mut seen = Seen {
        cells: run(protocols(&kinds, &on_tokio), protocols(&kinds, &on_smol)).await,
        handshakes: run(handshakes(&kinds, &on_tokio), handshakes(&kinds, &on_smol)).await,
        relayed: run(relaying(&kinds, &on_tokio), relaying(&kinds, &on_smol)).await,
    };
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

/// Cells that are run one after the other.
type Batch<T> = BoxFuture<'static, Vec<T>>;

async fn run<T>(on_tokio: Vec<Batch<T>>, on_smol: Vec<Batch<T>>) -> Vec<(On, T)> {
    let on_tokio = on_tokio.into_iter().map(|batch| (On::Tokio, batch));
    let batches = on_tokio.chain(on_smol.into_iter().map(|batch| (On::Smol, batch)));
    let named = batches
        .map(async |(on, batch)| batch.await.into_iter().map(|one| (on, one)).collect::<Vec<_>>());
    futures::stream::iter(named).buffered(AT_ONCE).concat().await
}

/// Every cell of the protocols on loopback.
fn protocols<R: Runtime>(kinds: &[Kind], runtime: &R) -> Vec<Batch<Cell>> {
    let mut batches: Vec<Batch<Cell>> = Vec::new();
    for kind in kinds.iter().copied() {
        for transport in [Transport::Tcp, Transport::Quic] {
            let runtime = runtime.clone();
            let group = Group { kind, place: Place::Loopback, transport, runtime };
            let (client, server, old) = (group.clone(), group.clone(), group.clone());
            batches.push(Box::pin(async move { group.basics().await }));
            batches.push(Box::pin(async move { client.client().await }));
            batches.push(Box::pin(async move { vec![server.server().await] }));
            batches.push(Box::pin(async move { old.hearsay().await }));
        }
    }
    batches
}

fn handshakes<R: Runtime>(kinds: &[Kind], runtime: &R) -> Vec<Batch<Handshake>> {
    let mut batches: Vec<Batch<Handshake>> = Vec::new();
    for kind in kinds.iter().copied() {
        for key in KeyType::ALL {
            batches.push(Box::pin(handshakes::with(kind, key, runtime.clone())));
        }
    }
    batches
}

/// Every cell of relaying.
fn relaying<R: Runtime>(kinds: &[Kind], runtime: &R) -> Vec<Batch<Relayed>> {
    let whos = [Who::Portolan].into_iter().chain(kinds.iter().map(|kind| match kind {
        Kind::Rust => Who::Rust,
        Kind::Js => Who::Js,
    }));
    let clients: Vec<Who> = whos.collect();
    let mut batches: Vec<Batch<Relayed>> = Vec::new();
    for relay in clients.iter().copied() {
        for transport in [Transport::Tcp, Transport::Quic] {
            let (clients, runtime) = (clients.clone(), runtime.clone());
            let scene = Scene { relay, clients, transport, runtime };
            let cutting = scene.clone();
            batches.push(Box::pin(async move { scene.carries().await }));
            batches.push(Box::pin(async move { cutting.cuts().await }));
        }
    }
    batches
}

portolan_tests::on_every_runtime_at_once! {
    #[tokio::test(flavor = "multi_thread")]
    a_server_that_asks_for_dial_data_gets_it,
    several_addresses_fit_in_one_request,
    a_check_shows_hearsay_as_what_it_is;
}

/// Not in the table, because it is no cell: what a probe costs where addresses differ.
async fn a_server_that_asks_for_dial_data_gets_it<L: Lab>(lab: &L) {
    let paid = cells::dial_data_is_paid(lab.runtime()).await;
    paid.expect("rust-libp2p dials back after it was paid");
}

/// Not in the table either: requests about several addresses, which each server reads its own way.
async fn several_addresses_fit_in_one_request<L: Lab>(lab: &L) {
    let asked = cells::several_addresses(Kind::Rust, Place::Loopback, lab.runtime()).await;
    asked.expect("the one that rust-libp2p takes is proved");
}

/// Four servers that speak AutoNAT v1 alone, in as many networks: what they say is shown, and nothing
/// follows from it.
async fn a_check_shows_hearsay_as_what_it_is<L: Lab>(lab: &L) {
    let report = hearsay::checked(lab.runtime()).await;
    let report = report.expect("rust-libp2p answers");
    assert_eq!(report.hearsay.reachability, NodeState::Public, "{report}");
    // One that dials back from another IP is not asked there as well.
    let answers = report.hearsay.servers.iter().map(|server| server.answer);
    assert_eq!(answers.collect::<Vec<_>>(), ["reachable"; 4], "{report}");
    assert_eq!((report.reachability, report.exit_code()), (NodeState::Unknown, 12), "{report}");
    assert!(report.addresses.iter().all(|address| address.verdict == "unknown"), "{report}");
}
