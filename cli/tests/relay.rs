//! Relays, through the built program and real sockets on loopback.

mod support;

use serde_json::Value;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::Receiver;
use support::schema::assert_report;
use support::talking::{Talking, line_with, lines_of, text};
use support::{BOUND, code, portolan, run, stderr, stdout};

const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
const PEER: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";

/// `portolan serve` for private addresses, with its log. Killed when it goes out of sight.
struct Server {
    child: Child,
    address: String,
    out: Receiver<String>,
    log: Receiver<String>,
}

impl Server {
    fn start(place: &str, more: &[&str]) -> Server {
        let mut command = portolan(&["serve", "--listen", place, "--allow-private"]);
        command.args(more).env("PORTOLAN_LOG", "portolan=info");
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("the program starts");
        let out = lines_of(child.stdout.take().expect("stdout is a pipe"));
        let log = lines_of(child.stderr.take().expect("stderr is a pipe"));
        let address = out.recv_timeout(BOUND).expect("an address comes");
        Server { child, address, out, log }
    }

    #[track_caller]
    fn logs(&self, word: &str) -> String {
        line_with(&self.log, word)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Start `portolan listen` behind a relay; the address that leads through it.
fn listen(place: &str, relay: &str, more: &[&str]) -> (Talking, String) {
    let args = [&[place, "-", "--allow-anyone", "--relay", relay], more].concat();
    let (listener, addresses) = Talking::listen(&args, 2);
    let led = addresses.into_iter().find(|address| address.starts_with(relay));
    (listener, led.expect("an address that leads through the relay"))
}

#[test]
fn fifty_kilobytes_go_through_a_relay() {
    for (place, runtime, other) in [(TCP, "tokio", "smol"), (QUIC, "smol", "tokio")] {
        let relay = Server::start(place, &["--relay", "--runtime", other]);
        let (listener, address) = listen(place, &relay.address, &["--runtime", runtime]);
        assert!(relay.logs("reservation granted").contains("renewed=false"));
        let bytes = text(5, 50_000);
        let mut connector = Talking::start(&["connect", &address, "--runtime", other]);
        let told = connector.tell(bytes.clone());
        for end in [&connector, &listener] {
            let path = end.line_with(" ms");
            let short = &relay.address[relay.address.len() - 8..];
            assert!(path.starts_with(&format!("relayed via …{short} ")), "{path}");
        }
        told.join().expect("it was read");
        relay.logs("circuit opened");
        assert!(listener.finish() == (Some(0), bytes), "{place}");
        assert_eq!(connector.finish(), (Some(0), Vec::new()));
        let ended = relay.logs("circuit ended");
        let forth = ended.split_once("forth=").and_then(|(_, rest)| rest.split(' ').next());
        let forth: u64 = forth.and_then(|forth| forth.parse().ok()).expect("a number");
        assert!((50_000..70_000).contains(&forth), "{ended}");
        relay.logs("reservation ended");
    }
}

#[test]
fn a_circuit_is_cut_at_its_limit() {
    let relay = Server::start(TCP, &["--relay", "--circuit-bytes", "10000"]);
    let (_listener, address) = listen(TCP, &relay.address, &[]);
    let mut connector = Talking::start(&["connect", &address]);
    let _told = connector.tell(text(6, 50_000));
    let ended = relay.logs("circuit ended");
    assert!(ended.contains("its bytes are used up") && ended.contains("forth=10000"), "{ended}");
    connector.line_with("the session waits");
}

#[test]
fn a_session_outlives_circuits_that_are_cut() {
    let relay = Server::start(TCP, &["--relay", "--circuit-bytes", "100000"]);
    let (listener, address) = listen(TCP, &relay.address, &[]);
    let bytes = text(7, 250_000);
    let mut connector = Talking::start(&["connect", &address]);
    let told = connector.tell(bytes.clone());
    assert!(relay.logs("circuit ended").contains("its bytes are used up"));
    told.join().expect("it was read");
    assert!(listener.finish() == (Some(0), bytes), "another circuit carried the rest");
    assert_eq!(connector.finish(), (Some(0), Vec::new()));
}

#[test]
fn who_finds_no_relay_says_why() {
    let nobody = format!("/ip4/127.0.0.1/tcp/1/p2p/{PEER}");
    let output = run(&["listen", TCP, "--allow-anyone", "--relay", &nobody]);
    assert_eq!(code(&output), 1);
    let wanted = format!("error: no relay takes us in; {PEER}: nothing listens there\n");
    assert_eq!(stderr(&output), wanted);
    let server = Server::start(TCP, &[]);
    let output = run(&["listen", TCP, "--allow-anyone", "--relay", &server.address]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).ends_with("it does not relay\n"), "{}", stderr(&output));
}

fn check(args: &[&str]) -> Output {
    run(&[&["check", "--allow-private", "--listen", TCP], args].concat())
}

#[track_caller]
fn report(output: &Output) -> Value {
    let document = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", stdout(output), stderr(output)));
    assert_report(&document);
    document
}

#[test]
fn a_check_reports_the_relays_that_take_us_in() {
    let relay = Server::start(TCP, &["--relay"]);
    let at = relay.address.as_str();
    // Whom we contacted can dial us; strangers are untested.
    let output = check(&["--peer", at, "--relay", at, "--json"]);
    let document = report(&output);
    assert_eq!(code(&output), 13, "{document:#}");
    let one = &document["relays"][0];
    assert_eq!((&one["state"], &one["limit_s"]), (&"reserved".into(), &120.into()), "{one}");
    assert_eq!(one["limit_bytes"], 131_072);
    assert!(one["expires_s"].as_u64().is_some_and(|span| span > 3_500), "{one}");
    assert!(one["latency_ms"].is_u64(), "{one}");
    let led = format!("{at}/p2p-circuit/p2p/{}", document["peer_id"].as_str().expect("an id"));
    assert_eq!(one["addresses"], Value::from(vec![led]));

    // A peer that relays is a relay, too.
    let output = check(&["--peer", at]);
    let text = stdout(&output);
    assert!(
        text.contains("\nRelays\n") && text.contains(&format!("give to others: {at}/")),
        "{text}"
    );
    let output = check(&["--peer", at, "--no-relay", "--json"]);
    assert_eq!(report(&output)["relays"], Value::Array(Vec::new()));
}

#[test]
fn a_check_waits_for_no_relay_that_is_not_there() {
    let server = Server::start(TCP, &[]);
    let nobody = format!("/ip4/127.0.0.1/tcp/1/p2p/{PEER}");
    let output = check(&["--peer", &server.address, "--relay", &nobody, "--json"]);
    let document = report(&output);
    let one = &document["relays"][0];
    assert_eq!(
        (&one["state"], &one["reason"]),
        (&"resting".into(), &"nothing listens there".into())
    );
    assert!(document["elapsed_ms"].as_u64().is_some_and(|span| span < 10_000), "{document:#}");
}

#[test]
fn a_server_is_reached_through_relays_itself() {
    let relay = Server::start(TCP, &["--relay"]);
    let server = Server::start(TCP, &["--reserve-at", &relay.address]);
    let led = server.out.recv_timeout(BOUND).expect("an address comes");
    let id = server.address.rsplit('/').next().expect("an id");
    assert_eq!(led, format!("{}/p2p-circuit/p2p/{id}", relay.address));
    // It does not listen for sessions, and says so over the circuit.
    let output = run(&["connect", &led]);
    assert_eq!(code(&output), 1, "{}", stderr(&output));
    assert!(stderr(&output).contains("does not speak"), "{}", stderr(&output));
    relay.logs("circuit opened");
}

#[test]
fn a_server_behind_a_relay_shows_that_strangers_get_in() {
    let relay = Server::start(TCP, &["--relay"]);
    let met = Server::start(TCP, &[]);
    let more = ["--reserve-at", &relay.address, "--dial-from", "127.0.1.43"];
    let distant = Server::start("/ip4/127.0.0.43/tcp/0", &more);
    let led = distant.out.recv_timeout(BOUND).expect("an address comes");
    let without = check(&["--peer", &met.address, "--no-relay", "--json"]);
    assert_eq!(code(&without), 13, "{}", stdout(&without));
    assert_eq!(report(&without)["distant_servers"], Value::Array(Vec::new()));

    let with = &["--peer", &met.address, "--no-relay", "--distant", &led];
    let output = check(&[with.as_slice(), &["--json"]].concat());
    let document = report(&output);
    assert_eq!(code(&output), 0, "{document:#}");
    let one = &document["distant_servers"][0];
    assert_eq!(one["outcomes"]["proved"], 1, "{one}");
    let paid = one["dial_data_bytes"].as_u64().expect("a number");
    assert!((30_000..=100_000).contains(&paid), "{one}");
    let text = check(with);
    assert!(stdout(&text).contains("\nServers asked through relays"), "{}", stdout(&text));

    let output = check(&["--peer", &met.address, "--distant", &met.address]);
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("p2p-circuit"), "{}", stderr(&output));
}

/// Signals are Unix's.
#[cfg(unix)]
#[test]
fn a_relay_is_wound_down() {
    let relay = Server::start(TCP, &["--relay"]);
    let (listener, address) = listen(TCP, &relay.address, &[]);
    let told = Command::new("kill").args(["-USR1", &relay.child.id().to_string()]).status();
    assert!(told.expect("kill can be run").success());
    relay.logs("wound down");
    let output = run(&["listen", TCP, "--allow-anyone", "--relay", &relay.address]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).ends_with("it does not relay\n"), "{}", stderr(&output));
    // What was granted is served.
    let mut connector = Talking::start(&["connect", &address]);
    connector.tell(b"hello".to_vec()).join().expect("it was read");
    assert_eq!(listener.finish(), (Some(0), b"hello".to_vec()));
}
