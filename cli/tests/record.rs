//! Flight records of real nodes: what `--record` writes, `portolan replay` replays.

mod support;

use serde_json::Value;
use std::process::Command;
use support::{Folder, Running, code, run, stderr, stdout};

const RUNTIMES: [&str; 2] = ["tokio", "smol"];
const LISTEN: [&str; 4] =
    ["--listen", "/ip4/127.0.0.1/tcp/0", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1"];

/// Replay a record to its last digest, without a transcript. Returns the verdicts in the end.
#[track_caller]
fn verdicts(file: &str) -> String {
    let output = run(&["replay", "--quiet", file]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stderr(&output).trim_end().ends_with("every digest matched"), "{}", stderr(&output));
    stdout(&output).to_owned()
}

/// Run the demo with a record. Returns its report.
#[track_caller]
fn demo(runtime: &str, file: &str) -> Value {
    let output = run(&["demo", "--json", "--runtime", runtime, "--record", file]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).expect("a report is JSON")
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().expect("text")
}

#[test]
fn a_demo_replays_to_the_same_verdicts() {
    let folder = Folder::new("demo");
    for runtime in RUNTIMES {
        let file = folder.file(runtime);
        let report = demo(runtime, &file);
        let verdicts = verdicts(&file);
        let (before, end) = verdicts.trim_start().split_once("\n\n").expect("two moments");
        assert!(before.contains(", before it stopped listening:\n"), "{verdicts}");
        assert!(end.contains("\n  node unknown: nothing is listened on"), "{verdicts}");
        for moment in [before, end] {
            assert!(moment.starts_with(text(&report, "peer_id")), "the client's: {verdicts}");
        }
        assert!(verdicts.contains("\n  node public: "), "{verdicts}");
        for address in report["addresses"].as_array().expect("a list") {
            let said =
                format!("\n  addr {} {} ", text(address, "address"), text(address, "verdict"));
            assert!(verdicts.contains(&said), "no {said:?} in {verdicts}");
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(&file).expect("it is there").permissions().mode();
            assert_eq!(mode & 0o7777, 0o600);
        }
    }
}

#[test]
fn an_address_of_a_recorded_node_is_explained() {
    let folder = Folder::new("explained");
    let file = folder.file("a.rec");
    let report = demo("smol", &file);
    let address = text(&report["addresses"][0], "address");
    let output = run(&["replay", "--quiet", &file, "--explain", address]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    for words in [format!("addr       {address}"), "state      reachable anywhere".into()] {
        assert!(stdout(&output).contains(&words), "{}", stdout(&output));
    }
    let output = run(&["replay", "--quiet", &file, "--explain", "/ip4/44.0.0.9/tcp/1"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains(address), "{}", stderr(&output));
}

#[test]
fn an_older_record_is_kept_and_replays() {
    let folder = Folder::new("older");
    let file = folder.file("a.rec");
    let peers = [demo("tokio", &file), demo("smol", &file)];
    let of = |file: &str, report: &Value| {
        assert!(verdicts(file).contains(text(report, "peer_id")), "{file}");
    };
    of(&file, &peers[1]);
    of(&folder.file("a.rec.1"), &peers[0]);
}

#[test]
fn a_check_is_recorded_without_its_key() {
    let folder = Folder::new("check");
    let (_server, addresses) =
        Running::serve(&[&LISTEN, ["--allow-private"].as_slice()].concat(), 2);
    for runtime in RUNTIMES {
        let (file, key) = (folder.file(runtime), folder.file(&format!("{runtime}.key")));
        let mut args = vec!["check", "--allow-private", "--peer", &addresses[0]];
        args.extend(LISTEN);
        args.extend(["--runtime", runtime, "--record", &file, "--key", &key]);
        let output = run(&args);
        assert_eq!(code(&output), 13, "{}{}", stdout(&output), stderr(&output));
        assert!(verdicts(&file).contains("\n  node limited: "), "{}", verdicts(&file));
        let record = std::fs::read(&file).expect("it is there");
        let key = std::fs::read(&key).expect("it is there");
        // The protobuf form of an ed25519 key: 4 bytes, the secret half, the public half.
        let (secret, public) = key[4..].split_at(32);
        let holds = |half: &[u8]| record.windows(half.len()).any(|bytes| bytes == half);
        assert!(holds(public) && !holds(secret));
    }
}

#[cfg(unix)]
#[test]
fn a_server_is_recorded_however_it_ends() {
    let folder = Folder::new("serve");
    for (runtime, signal) in [("tokio", "-TERM"), ("smol", "-TERM"), ("smol", "-KILL")] {
        let file = folder.file(&format!("{runtime}{signal}"));
        let more = ["--allow-private", "--runtime", runtime, "--record", &file];
        let (server, addresses) = Running::serve(&[&LISTEN, more.as_slice()].concat(), 2);
        let mut args = vec!["check", "--allow-private", "--peer", &addresses[1]];
        args.extend(LISTEN);
        let output = run(&args);
        assert_eq!(code(&output), 13, "{}{}", stdout(&output), stderr(&output));
        let pid = server.pid().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status();
        assert!(sent.expect("kill can be run").success());
        server.finish();
        let output = run(&["replay", &file]);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert!(stdout(&output).contains(" * served …"), "{signal}: {}", stdout(&output));
    }
}

#[test]
fn what_is_no_record_is_never_replaced() {
    let folder = Folder::new("way");
    let file = folder.file("novel");
    std::fs::write(&file, "a novel").expect("it can be written");
    for args in [
        ["demo"].as_slice(),
        &["check", "--peer", "/ip4/127.0.0.1/tcp/1"],
        &[&["serve"], LISTEN.as_slice()].concat(),
    ] {
        let output = run(&[args, &["--record", &file]].concat());
        assert_eq!((code(&output), stdout(&output)), (1, ""), "{}", stderr(&output));
        assert!(stderr(&output).contains(&file), "{}", stderr(&output));
        assert_eq!(std::fs::read(&file).expect("it is there"), b"a novel");
    }
    let nowhere = folder.file("no/such/folder/a.rec");
    let output = run(&["demo", "--record", &nowhere]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains(&nowhere), "{}", stderr(&output));
}

#[test]
fn a_redacted_record_tells_the_same_of_others() {
    let folder = Folder::new("redacted");
    let (file, out) = (folder.file("a.rec"), folder.file("out.rec"));
    let report = demo("tokio", &file);
    let before = std::fs::read(&file).expect("it is there");
    let output = run(&["replay", &file, "--redact", &out]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stderr(&output).contains(&format!("is in {out}\n")), "{}", stderr(&output));
    assert_eq!(std::fs::read(&file).expect("it is there"), before);
    let plain = run(&["replay", &file]);
    assert_eq!(stdout(&plain).lines().count(), stdout(&output).lines().count());
    let peer = text(&report, "peer_id");
    assert!(stdout(&plain).contains(peer) && !stdout(&output).contains(peer));
    assert!(verdicts(&out).contains("\n  node public: "), "{}", verdicts(&out));
    assert_eq!(stdout(&run(&["replay", &out])), stdout(&output));

    let again = run(&["replay", &file, "--redact", &file]);
    assert_eq!((code(&again), stdout(&again)), (1, ""));
    assert!(stderr(&again).contains("exists"), "{}", stderr(&again));
    assert_eq!(std::fs::read(&file).expect("it is there"), before);
    for flag in [["--until", "1"].as_slice(), &["--bless"], &["--explain", "/ip4/1.1.1.1/tcp/1"]] {
        let output = run(&[&["replay", &file, "--redact", "x"], flag].concat());
        assert_eq!(code(&output), 2, "{flag:?}");
    }
}
