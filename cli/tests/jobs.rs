//! The main job from end to end, through the built program and real sockets.

mod support;

use serde_json::Value;
use std::process::Output;
use support::schema::assert_report;
use support::{Running, code, run, stderr, stdout};

const LISTEN: [&str; 4] =
    ["--listen", "/ip4/127.0.0.1/tcp/0", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1"];

/// Every runtime beside every other: one for who asks, one for who serves.
const PAIRS: [(&str, &str); 4] =
    [("tokio", "tokio"), ("tokio", "smol"), ("smol", "tokio"), ("smol", "smol")];

const RUNTIMES: [&str; 2] = ["tokio", "smol"];

/// The JSON report that was printed; it has the documented form.
#[track_caller]
fn report(output: &Output) -> Value {
    let document = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", stdout(output), stderr(output)));
    assert_report(&document);
    document
}

/// `(transport, verdict, scope)` of every address of the report.
fn verdicts(report: &Value) -> Vec<(&str, &str, &str)> {
    let addresses = report["addresses"].as_array().expect("it is a list");
    let of = |address| {
        let text = |key| text_of(address, key);
        let transport = if text("address").contains("/quic-v1") { "quic" } else { "tcp" };
        (transport, text("verdict"), text("scope"))
    };
    addresses.iter().map(of).collect()
}

/// The text at `key`; `null` where there is none.
fn text_of<'a>(object: &'a Value, key: &str) -> &'a str {
    object[key].as_str().unwrap_or("null")
}

/// Check against these peers, on loopback.
fn check(runtime: &str, peers: &[String]) -> Output {
    let mut args = vec!["check", "--runtime", runtime, "--allow-private", "--json"];
    args.extend(LISTEN);
    for peer in peers {
        args.extend(["--peer", peer]);
    }
    run(&args)
}

fn serve(runtime: &str, more: &[&str]) -> (Running, Vec<String>) {
    let args = [&LISTEN, ["--allow-private", "--runtime", runtime].as_slice(), more].concat();
    Running::serve(&args, 2)
}

#[test]
fn the_demo_proves_both_transports_to_strangers() {
    for runtime in RUNTIMES {
        let output = run(&["demo", "--json", "--runtime", runtime]);
        let report = report(&output);
        assert_eq!(code(&output), 0, "{report:#}");
        assert_eq!(report["reachability"], "public");
        let verdicts = verdicts(&report);
        for transport in ["tcp", "quic"] {
            assert!(verdicts.contains(&(transport, "reachable", "anywhere")), "{report:#}");
        }
        assert_eq!(report["servers"].as_array().map(Vec::len), Some(5), "{report:#}");
        let elapsed = report["elapsed_ms"].as_u64();
        assert!(elapsed.is_some_and(|elapsed| elapsed < 10_000), "{report:#}");
    }
}

#[test]
fn the_demo_tells_people() {
    let output = run(&["demo"]);
    assert_eq!(code(&output), 0, "{}{}", stdout(&output), stderr(&output));
    assert!(stdout(&output).starts_with("Public: anybody can dial this node ("));
    for part in ["\nAddresses\n", "\nNAT and firewall\n", "\nServers\n", "/quic-v1 ", "anywhere"] {
        assert!(stdout(&output).contains(part), "no {part:?} in {}", stdout(&output));
    }
    assert_eq!(stderr(&output), "");
}

#[test]
fn a_server_with_one_ip_proves_for_contacted_peers() {
    for (client, server) in PAIRS {
        let (_server, addresses) = serve(server, &[]);
        // One connection of either transport is enough to have both tested.
        for peer in &addresses {
            let output = check(client, std::slice::from_ref(peer));
            let report = report(&output);
            assert_eq!(code(&output), 13, "{client} asks {server}: {report:#}");
            assert_eq!(report["reachability"], "limited", "{report:#}");
            let mut verdicts = verdicts(&report);
            verdicts.sort_unstable();
            let expected = [("quic", "reachable", "contacted"), ("tcp", "reachable", "contacted")];
            assert_eq!(verdicts, expected, "{report:#}");
        }
    }
}

#[test]
fn a_server_with_another_ip_proves_for_strangers() {
    let (_server, addresses) = serve("smol", &["--dial-from", "127.1.0.1"]);
    assert!(addresses.iter().all(|address| !address.contains("127.1.0.1")), "{addresses:?}");
    for (runtime, peers) in [("tokio", &addresses[..1]), ("smol", &addresses[..])] {
        let output = check(runtime, peers);
        let report = report(&output);
        assert_eq!(code(&output), 0, "{report:#}");
        assert_eq!(report["reachability"], "public", "{report:#}");
        let mut verdicts = verdicts(&report);
        verdicts.sort_unstable();
        let expected = [("quic", "reachable", "anywhere"), ("tcp", "reachable", "anywhere")];
        assert_eq!(verdicts, expected, "{report:#}");
        let server = &report["servers"][0];
        assert!(addresses[0].ends_with(server["peer_id"].as_str().expect("a peer id")));
        assert!(server["outcomes"]["proved"].as_u64() >= Some(2), "{report:#}");
    }
}

#[test]
fn an_unreachable_peer_beside_a_server_changes_no_verdict() {
    let (_server, mut addresses) = serve("tokio", &["--dial-from", "127.1.0.1"]);
    addresses.push("/ip4/127.0.0.1/tcp/1".into());
    for runtime in RUNTIMES {
        let output = check(runtime, &addresses);
        let report = report(&output);
        assert_eq!(code(&output), 0, "{report:#}");
        let mut timeline = report["timeline"].as_array().expect("a list").iter();
        let failed = "cannot reach /ip4/127.0.0.1/tcp/1: ";
        let says = |line: &Value| line["what"].as_str().is_some_and(|what| what.contains(failed));
        assert!(timeline.any(says), "{report:#}");
    }
}

#[test]
fn the_time_out_ends_a_check_with_a_reason() {
    // The kernel accepts connections to a listening socket; nobody ever answers on them.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = silent.local_addr().expect("it is bound").port();
    let peer = format!("/ip4/127.0.0.1/tcp/{port}");
    let args = ["--peer", &peer, "--listen", LISTEN[1], "--allow-private", "--timeout", "1"];
    for runtime in RUNTIMES {
        let output = run(&[&["check", "--runtime", runtime], args.as_slice()].concat());
        assert_eq!(code(&output), 12, "{}{}", stdout(&output), stderr(&output));
        let line = stdout(&output).lines().find(|line| line.contains(&peer)).expect("its line");
        assert!(line.ends_with("no answer yet"), "{line}");
        assert!(stdout(&output).contains("no AutoNAT v2 server in reach"), "{}", stdout(&output));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn ip6_is_proved_as_ip4_is() {
    if std::net::UdpSocket::bind("[::1]:0").is_err() {
        // A host without IPv6 has nothing to prove.
        return;
    }
    let listen = ["--listen", "/ip6/::1/tcp/0", "--listen", "/ip6/::1/udp/0/quic-v1"];
    let (_server, addresses) =
        Running::serve(&[&listen, ["--allow-private"].as_slice()].concat(), 2);
    let mut args = vec!["check", "--allow-private", "--json", "--peer", &addresses[1]];
    args.extend(listen);
    let output = run(&args);
    let report = report(&output);
    assert_eq!(code(&output), 13, "{report:#}");
    let mut verdicts = verdicts(&report);
    verdicts.sort_unstable();
    let expected = [("quic", "reachable", "contacted"), ("tcp", "reachable", "contacted")];
    assert_eq!(verdicts, expected, "{report:#}");
}

#[test]
fn by_default_everything_is_listened_on_with_one_port() {
    let (_server, addresses) = serve("tokio", &[]);
    let args = ["check", "--peer", &addresses[0], "--allow-private", "--json", "--timeout", "3"];
    let report = report(&run(&args));
    let classes = report["classes"].as_array().expect("a list");
    for (family, transport) in [("ip4", "tcp"), ("ip4", "quic")] {
        let is = |class: &&Value| class["family"] == family && class["transport"] == transport;
        assert!(classes.iter().any(|class| is(&class)), "{report:#}");
    }
    let port = |address: &Value| {
        let address = address["address"].as_str().expect("text");
        address.split('/').nth(4).expect("a port").to_owned()
    };
    let mut ports: Vec<_> =
        report["addresses"].as_array().expect("a list").iter().map(port).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 1, "{report:#}");
}

#[cfg(unix)]
#[test]
fn a_server_ends_cleanly_when_told_to() {
    for (runtime, signal) in
        [("tokio", "-TERM"), ("tokio", "-INT"), ("smol", "-TERM"), ("smol", "-INT")]
    {
        let (server, _) = serve(runtime, &[]);
        let pid = server.pid().to_string();
        let sent = std::process::Command::new("kill").args([signal, &pid]).status();
        assert!(sent.expect("kill can be run").success());
        let output = server.finish();
        assert_eq!(
            (code(&output), stdout(&output), stderr(&output)),
            (0, "", ""),
            "{runtime} {signal}"
        );
    }
}

/// The threads of a process tell which runtimes it has.
#[cfg(target_os = "linux")]
#[test]
fn the_other_runtime_does_not_exist() {
    let threads = |server: &Running| {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", server.pid())).expect("it runs");
        let name = |task: std::io::Result<std::fs::DirEntry>| {
            std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
        };
        tasks.filter_map(name).collect::<String>()
    };
    let (on_tokio, _) = serve("tokio", &[]);
    assert!(threads(&on_tokio).contains("tokio"), "{}", threads(&on_tokio));
    let (on_smol, _) = serve("smol", &[]);
    assert!(threads(&on_smol).contains("async-io"), "{}", threads(&on_smol));
    assert!(!threads(&on_smol).contains("tokio"), "{}", threads(&on_smol));
}
