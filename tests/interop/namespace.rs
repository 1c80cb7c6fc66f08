//! Cells on global addresses, with nothing allowed that is not by default. js-libp2p asks nobody
//! about private addresses and dials none, and there is no switch for it; so the test runs itself
//! again in a network namespace whose loopback interface holds a range of global addresses. No
//! packet leaves it.

use crate::cell::{Cell, Kind, On, Place};
use crate::cells::{self, Group};
use portolan_core::Transport;
use portolan_runtime::traits::Runtime;
use portolan_tests::lab::{Lab, OnSmol, OnTokio};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// Set inside, where the addresses are.
const INSIDE: &str = "PORTOLAN_INTEROP_INSIDE";
/// The test that runs inside.
const TEST: &str = "the_table_holds";
/// A global range whose every address becomes local. Any would do: nothing leaves the namespace.
/// Who dials from the wildcard address there comes from whatever he dials. Not so towards one address
/// of each of eight other networks: those see everybody at one address, as `hearsay_js` wants it.
const SCRIPT: &str = "set -e; ip link set lo up; ip route add local 44.0.0.0/8 dev lo; \
    for net in 45 46 47 48 49 50 51 52; do \
    ip route add local $net.0.0.1 dev lo src 44.40.0.1; done; exec \"$@\"";
/// Starting some processes and running some cells, with dials among them that nobody answers.
const WITHIN: Duration = Duration::from_secs(120);

/// Run the cells in a namespace. The error says what is missing for that.
pub(crate) async fn run() -> Result<Vec<(On, Cell)>, String> {
    let enter = ["--user", "--map-root-user", "--net", "sh", "-c"];
    let probe = Command::new("unshare").args(enter).args([SCRIPT, "sh", "true"]).output().await;
    match probe {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(format!(
                "no network namespace: {said}; it needs unshare (util-linux), \
                ip (iproute2, by tests/install-lab.sh), and user namespaces or root"
            ));
        }
        Err(error) => return Err(format!("no network namespace: unshare: {error}")),
    }
    let test = std::env::current_exe().expect("a test knows what it runs from");
    let child = Command::new("unshare")
        .args(enter)
        .args([SCRIPT, "sh"])
        .arg(test)
        .args(["--exact", TEST, "--nocapture"])
        .env(INSIDE, "1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(WITHIN, child).await;
    let output = output.expect("the cells inside are bounded").expect("it has just been run");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let cells: Vec<(On, Cell)> = stdout.lines().filter_map(Cell::from_line).collect();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "inside the namespace: {stdout}\n{stderr}");
    Ok(cells)
}

/// Whether this process is the one in the namespace.
pub(crate) fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Run the cells and print them, one a line.
pub(crate) async fn inside() {
    let (tokio, smol) = (OnTokio::open(), OnSmol::open());
    let (on_tokio, on_smol) = futures::join!(cells_on(tokio.runtime()), cells_on(smol.runtime()));
    for (on, cells) in [(On::Tokio, on_tokio), (On::Smol, on_smol)] {
        for cell in cells {
            // On a line of its own, whatever the test harness has begun to say.
            println!("\n{}", cell.to_line(on));
        }
    }
}

async fn cells_on<R: Runtime>(runtime: R) -> Vec<Cell> {
    let of = |kind, transport| {
        let runtime = runtime.clone();
        Group { kind, place: Place::Global, transport, runtime }
    };
    let (tcp, quic) = (of(Kind::Js, Transport::Tcp), of(Kind::Js, Transport::Quic));
    // rust-libp2p as a client dials from the wildcard address, which here is the address of
    // whomever it dials: no address of its own would be observed.
    let rust = [Transport::Tcp, Transport::Quic].map(|transport| of(Kind::Rust, transport));
    let clients = [rust[0].client(), rust[1].client(), tcp.client(), quic.client()];
    let old = futures::future::join_all([tcp.hearsay(), quic.hearsay()]);
    let (clients, server_tcp, server_quic, old) =
        futures::join!(futures::future::join_all(clients), tcp.server(), quic.server(), old);
    for js in [&tcp, &quic] {
        let told = js.js_answers_once_it_dials().await;
        told.expect("js-libp2p answers where it dials");
    }
    let several = cells::several_addresses(Kind::Js, Place::Global, runtime).await;
    several.expect("js-libp2p takes both, and both are proved");
    let cells = clients.into_iter().chain(old).flatten();
    cells.chain([server_tcp, server_quic]).collect()
}
