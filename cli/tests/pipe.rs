//! `portolan listen` and `portolan connect`, through the built program and real sockets.

mod support;

use serde_json::Value;
use std::process::{Command, Output};
use support::talking::{Talking, text};
use support::{Folder, code, run, stderr, stdout};

const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
const RUNTIMES: [&str; 2] = ["tokio", "smol"];

#[test]
fn a_megabyte_goes_both_ways_over_either_transport() {
    for (runtime, other, place, transport) in
        [("tokio", "smol", TCP, "TCP"), ("smol", "tokio", QUIC, "QUIC")]
    {
        let (there, back) = (text(3, 1_000_000), text(4, 1_000_000));
        let args = [place, "-", "--allow-anyone", "--runtime", runtime];
        let (mut listener, addresses) = Talking::listen(&args, 1);
        let args = ["connect", &addresses[0], "-", "--runtime", other];
        let mut connector = Talking::start(&args);
        let told = [connector.tell(there.clone()), listener.tell(back.clone())];
        assert!(connector.line().starts_with("session with "));
        let path = connector.line();
        assert!(path.starts_with(&format!("direct {transport} ")) && path.ends_with(" ms"));
        assert_eq!(listener.line_with("direct")[..11], path[..11]);
        let done = "done: 1000000 bytes sent, 1000000 bytes received";
        assert_eq!(
            (connector.line_with("done"), listener.line_with("done")),
            (done.into(), done.into())
        );
        told.into_iter().for_each(|told| told.join().expect("it was read"));
        assert!(listener.finish() == (Some(0), there), "{transport} there");
        assert!(connector.finish() == (Some(0), back), "{transport} back");
    }
}

/// `cat`, `sh` and `false` are programs of Unix.
#[cfg(unix)]
#[test]
fn a_program_serves_each_session() {
    for runtime in RUNTIMES {
        let args = [QUIC, "--allow-anyone", "--exec", "cat", "--runtime", runtime];
        let (listener, addresses) = Talking::listen(&args, 1);
        for seed in 1..3 {
            let mut connector = Talking::start(&["connect", &addresses[0]]);
            let question = text(seed, 300_000);
            connector.tell(question.clone()).join().expect("it was read");
            assert!(connector.finish() == (Some(0), question));
        }
        listener.line_with("done: 300000 bytes sent, 300000 bytes received");
        let stopped = Command::new("kill").arg(listener.child.id().to_string()).status();
        assert!(stopped.expect("kill can be run").success());
        assert_eq!(listener.finish(), (Some(0), Vec::new()));
    }
}

#[cfg(unix)]
#[test]
fn a_program_is_run_without_a_shell_unless_one_is_named() {
    for (exec, wanted) in [
        ("echo '$HOME' *", "$HOME *\n"),
        ("sh -c 'echo ${PORTOLAN_PEER:+named}; exec 0<&-'", "named\n"),
    ] {
        let (_listener, addresses) = Talking::listen(&[TCP, "--allow-anyone", "--exec", exec], 1);
        let mut connector = Talking::start(&["connect", &addresses[0]]);
        // What the program does not take is no failure.
        connector.tell(text(9, 100_000)).join().expect("it was read");
        assert_eq!(connector.finish(), (Some(0), wanted.into()), "{exec}");
    }
    let exec = "/no/such/program";
    let (listener, addresses) = Talking::listen(&[TCP, "--allow-anyone", "--exec", exec], 1);
    let output = run(&["connect", &addresses[0]]);
    assert_eq!(code(&output), 1, "{}", stderr(&output));
    assert!(listener.line_with("failed").contains(exec));
}

#[test]
fn only_who_is_allowed_is_served() {
    let folder = Folder::new("pipe-allow");
    let key = folder.file("key");
    let friend = stdout(&run(&["id", "--key", &key])).trim().to_owned();
    for place in [TCP, QUIC] {
        let (mut listener, addresses) = Talking::listen(&[place, "--allow", &friend], 1);
        let output = run(&["connect", &addresses[0]]);
        assert_eq!(code(&output), 1, "{}", stderr(&output));
        assert_eq!(stderr(&output), "error: the session was refused: the peer does not allow us\n");
        listener.tell(b"hello".to_vec()).join().expect("it was read");
        let connector = Talking::start(&["connect", &addresses[0], "--key", &key]);
        assert_eq!(connector.finish(), (Some(0), b"hello".to_vec()));
        assert!(listener.line().ends_with(&friend), "nobody else had a session");
        assert_eq!(listener.finish(), (Some(0), Vec::new()));
    }
}

#[test]
fn news_is_told_in_json() {
    let mut listener = Talking::start(&["listen", TCP, "--allow-anyone", "--json"]);
    let told =
        |talking: &Talking| -> Value { serde_json::from_str(&talking.line()).expect("it is JSON") };
    let listening = told(&listener);
    assert_eq!(listening["event"], "listening");
    let address = listening["address"].as_str().expect("it is text").to_owned();
    let mut connector = Talking::start(&["connect", &address, "--json"]);
    connector.tell(b"12345".to_vec()).join().expect("it was read");
    listener.tell(Vec::new()).join().expect("it was read");
    assert_eq!(told(&connector)["event"], "session");
    let path = told(&connector);
    assert_eq!((&path["event"], &path["path"]["transport"]), (&"path".into(), &"tcp".into()));
    assert!(path["path"]["rtt_ms"].as_f64().is_some_and(|rtt| rtt > 0.0), "{path}");
    let done = told(&connector);
    assert_eq!((&done["event"], &done["sent"]), (&"ended".into(), &5.into()), "{done}");
    assert_eq!(listener.finish(), (Some(0), b"12345".to_vec()));
}

#[track_caller]
fn refused(args: &[&str], wanted: i32, word: &str) -> Output {
    let output = run(args);
    assert_eq!(code(&output), wanted, "{args:?}: {}", stderr(&output));
    assert_eq!(stdout(&output), "", "{args:?}");
    assert!(stderr(&output).contains(word), "{args:?}: no {word:?} in {}", stderr(&output));
    output
}

#[test]
fn wrong_use_is_told_in_a_line() {
    for args in [&["listen", TCP, "--exec", "cat"][..], &["listen", TCP], &["listen"]] {
        let output = refused(args, 2, "--allow PEER_ID");
        assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
        assert!(stderr(&output).contains("--allow-anyone"));
    }
    let peer = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
    let anyone = "--allow-anyone";
    refused(&["listen", anyone, "--allow", peer], 2, "--allow");
    refused(&["listen", "--allow", "somebody"], 2, "somebody");
    refused(&["listen", anyone, "--exec", "cat 'a"], 2, "quote");
    refused(&["listen", anyone, "--exec", ""], 2, "--exec");
    refused(&["listen", anyone, "--exec", "cat", "-"], 2, "--exec");
    refused(&["listen", anyone, "localhost:1"], 2, "localhost:1");
    refused(&["connect"], 2, "MULTIADDR");
    refused(&["connect", "/ip4/127.0.0.1/tcp/1", "x"], 2, "x");
}

#[test]
fn a_peer_that_is_not_there_is_named() {
    let peer = "/ip4/127.0.0.1/tcp/1";
    refused(&["connect", peer], 1, peer);
}
