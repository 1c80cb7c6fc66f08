//! Abuse of a relay, and what the honest notice of it: the same runs as of `bench-relay abuse`, shorter.
//! The relay is a process of its own, so that its memory is its alone.

use serde_json::Value;
use std::process::Command;

/// A relay may hold so much more after an abuse than before, KiB: what its collections keep of room,
/// and what is still being closed.
const LEFT_KIB: u64 = 1_024;

fn figures() -> Value {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_bench-relay"));
    let run = bench.args(["abuse", "--times", "400"]).output().expect("it starts");
    let told = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(run.status.success(), "{told}");
    serde_json::from_slice(&run.stdout).expect("it prints one document")
}

fn number(of: &Value) -> u64 {
    of.as_u64().unwrap_or_else(|| panic!("{of} is no number"))
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "it reads /proc")]
fn memory_is_bounded_and_the_honest_are_served() {
    let figures = figures();
    let transports = figures["abuse"].as_object().expect("transports by name");
    assert_eq!(transports.keys().collect::<Vec<_>>(), ["quic", "tcp"]);
    for (transport, abuses) in transports {
        bounded_and_served(transport, abuses);
    }
}

fn bounded_and_served(transport: &str, abuses: &Value) {
    let abuses = abuses.as_object().expect("abuses by name");
    assert_eq!(abuses.len(), 6);
    for (name, seen) in abuses {
        let heap = |when: &str| number(&seen["heap_kib"][when]);
        let told = || format!("{name} over {transport}: {seen:#}");
        assert!(heap("after") <= heap("before") + LEFT_KIB, "{}", told());
        let honest = &seen["honest_meanwhile"];
        assert_eq!(number(&honest["failures"]), 0, "{}", told());
        // Beside handshakes of QUIC a circuit of the honest can take longer than all of these.
        assert!(transport == "quic" || number(&honest["circuits"]) > 0, "{}", told());
    }
    let abuse = |name: &str| &abuses[name]["abuse"];
    // The caps of one IP and of one network, and the rate of a network.
    assert_eq!(number(&abuse("reservations_of_one_network")["Ok"]), 32);
    // One of 128 is the honest holder's.
    assert_eq!(number(&abuse("reservations_of_many_networks")["Ok"]), 127);
    assert_eq!(number(&abuse("connect_storm")["NoReservation"]), 400);
    // Each circuit passed its limit and not a byte more.
    let limit = number(&abuse("bytes_beyond_the_limit")["limit"]).to_string();
    let came = &abuse("bytes_beyond_the_limit")["circuits_by_bytes_that_came"];
    assert_eq!(came, &serde_json::json!({ limit: 20 }));
    // What nobody reads waits with its sender, but for the windows of both connections.
    let taken = number(&abuse("slow_readers")["taken_of_one_at_most_kib"]);
    let most = number(&abuses["slow_readers"]["heap_kib"]["most"]);
    assert!(taken < 4 * 1_024 && most < 64 * 1_024, "{taken} KiB taken, {most} KiB held");
}
