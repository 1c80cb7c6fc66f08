//! Every example runs to its end and proves what it says.
//!
//! Cargo builds them beside the tests of the whole workspace. Where only this package's were
//! built, they are missing and named; `PORTOLAN_REQUIRE_LAB=1` makes that a failure.

#![allow(clippy::print_stdout, reason = "skips are told to whoever runs the tests")]

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// No example takes a tenth of this; one that does is stuck.
const PATIENCE: Duration = Duration::from_secs(60);

const BY_STRANGER: &str = "a server dialled back from an IP never contacted";
const BY_CONTACTED: &str = "a contacted server dialled back; strangers untested";

/// Where cargo puts the examples.
fn folder() -> PathBuf {
    let test = std::env::current_exe().expect("this test is a file");
    test.ancestors().nth(2).expect("it lies in deps/").join("examples")
}

/// Run an example; the last that it says is why an address is reachable.
async fn proves(example: &str, why: &str) {
    let program = folder().join(example);
    if !program.is_file() {
        println!("skipped: {example} is not built; `cargo test --workspace` builds it");
        let required = std::env::var_os("PORTOLAN_REQUIRE_LAB").is_some();
        assert!(!required, "{} is required", program.display());
        return;
    }
    let mut command = Command::new(&program);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let ended = tokio::time::timeout(PATIENCE, command.output()).await;
    let output = ended.expect("it ends by itself").expect("it can be run");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}: {text}", output.status);
    let last = text.lines().last().unwrap_or_default();
    assert!(last.ends_with(&format!("is reachable: {why}")), "{text}");
}

#[tokio::test]
async fn a_node_on_tokio() {
    proves("embed_tokio", BY_STRANGER).await;
}

#[tokio::test]
async fn a_node_on_smol() {
    proves("embed_smol", BY_STRANGER).await;
}

#[tokio::test]
async fn a_node_on_a_runtime_of_its_own() {
    proves("own_runtime", BY_STRANGER).await;
}

#[tokio::test]
async fn core_in_a_plain_loop() {
    proves("bare_loop", BY_CONTACTED).await;
}
