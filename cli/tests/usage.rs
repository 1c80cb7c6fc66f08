//! What the program says to wrong use and to bad luck, and with which exit code.

mod support;

use std::net::{TcpListener, UdpSocket};
use support::{Folder, Running, code, run, stderr, stdout};

const PEER: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";

/// Run, and demand this exit code, nothing on stdout, and all of this on stderr.
#[track_caller]
fn refused(args: &[&str], wanted: i32, words: &[&str]) {
    let output = run(args);
    assert_eq!(code(&output), wanted, "{args:?}: {}", stderr(&output));
    assert_eq!(stdout(&output), "", "{args:?}");
    for word in words {
        assert!(stderr(&output).contains(word), "{args:?}: no {word:?} in {}", stderr(&output));
    }
}

#[test]
fn a_malformed_address_is_named_with_what_is_wrong() {
    let through_relay = format!("/ip4/192.0.2.1/tcp/1/p2p/{PEER}/p2p-circuit");
    for (peer, problem) in [
        ("192.0.2.1:4001", "not a multiaddr"),
        ("/ip4/192.0.2.300/tcp/4001", "not a multiaddr"),
        ("/ip4/192.0.2.1/tcp/4001/p2p/somebody", "not a multiaddr"),
        ("/dns4/a..b/tcp/4001", "cannot be looked up"),
        ("/dnsaddr/example.org/tcp/4001", "/tcp after the port"),
        ("/ip4/192.0.2.1/udp/4001", "/udp/PORT/quic-v1"),
        ("/ip4/192.0.2.1/tcp/4001/ws", "/ws after the port"),
        ("/ip4/192.0.2.1/tcp/0", "port 0"),
        (&through_relay, "relay"),
    ] {
        refused(&["check", "--peer", peer], 2, &["--peer", peer, problem]);
    }
    let named = format!("/ip4/127.0.0.1/tcp/0/p2p/{PEER}");
    refused(&["serve", "--listen", &named], 2, &["--listen", &named, "names a peer"]);
}

#[test]
fn a_check_without_peers_points_to_the_demo() {
    refused(&["map"], 2, &["--tcp", "--udp", "--list"]);
    refused(&["map", "--list", "--tcp", "4001"], 2, &["--list", "--tcp"]);
    refused(&["map", "--tcp", "0"], 2, &["--tcp"]);
    refused(&["map", "--tcp", "1", "--lifetime", "59"], 2, &["--lifetime"]);
    refused(&["check"], 2, &["--peer", "portolan demo", "Usage: portolan check"]);
}

#[test]
fn wrong_arguments_are_wrong_use() {
    refused(&[], 2, &["Usage"]);
    refused(&["chekc"], 2, &["chekc"]);
    refused(&["serve"], 2, &["--listen"]);
    refused(&["id"], 2, &["--key"]);
    refused(&["demo", "--listen", "/ip4/127.0.0.1/tcp/0"], 2, &["--listen"]);
    let peer = "/ip4/127.0.0.1/tcp/1";
    refused(&["check", "--peer", peer, "--timeout", "0"], 2, &["--timeout"]);
    let listen = "/ip4/127.0.0.1/tcp/0";
    refused(&["serve", "--listen", listen, "--dial-from", "localhost"], 2, &["--dial-from"]);
    for args in [&["demo"], ["check", "--peer", peer].as_slice(), &["serve", "--listen", listen]] {
        let args = [args, &["--runtime", "async-std"]].concat();
        refused(&args, 2, &["--runtime", "async-std", "tokio", "smol"]);
    }
    // A wildcard is no source on any host.
    refused(&["serve", "--listen", listen, "--dial-from", "0.0.0.0"], 2, &["0.0.0.0"]);
}

#[test]
fn relays_are_named_and_their_limits_belong_to_one() {
    let listen = "/ip4/127.0.0.1/tcp/0";
    for limit in ["--max-reservations", "--max-circuits", "--circuit-bytes", "--circuit-seconds"] {
        refused(&["serve", "--listen", listen, limit, "5"], 2, &["--relay"]);
    }
    for limit in ["--max-reservations", "--max-circuits"] {
        refused(&["serve", "--listen", listen, "--relay", limit, "0"], 2, &[limit]);
    }
    let nameless = "/ip4/192.0.2.1/tcp/1";
    let words = [nameless, "/p2p/PEER-ID"];
    refused(&["serve", "--listen", listen, "--reserve-at", nameless], 2, &words);
    refused(&["check", "--peer", nameless, "--relay", nameless], 2, &words);
    refused(&["listen", "--allow-anyone", "--relay", nameless], 2, &words);
    let relay = format!("{nameless}/p2p/{PEER}");
    refused(&["check", "--peer", nameless, "--relay", &relay, "--no-relay"], 2, &["--no-relay"]);
    let nobody = format!("{relay}/p2p-circuit");
    refused(&["connect", &nobody], 2, &[&nobody, "after /p2p-circuit"]);
}

#[test]
fn a_server_for_private_addresses_stays_off_the_internet() {
    for listen in ["/ip4/44.1.2.3/tcp/4001", "/ip6/2600::1/udp/4001/quic-v1"] {
        refused(
            &["serve", "--listen", "/ip4/127.0.0.1/tcp/0", "--listen", listen, "--allow-private"],
            2,
            &["--allow-private", listen],
        );
    }
}

#[test]
fn a_source_of_dial_backs_is_not_listened_on() {
    for listen in ["/ip4/127.1.0.1/tcp/0", "/ip4/0.0.0.0/tcp/0"] {
        let words = ["--dial-from", listen, "127.1.0.1"];
        for source in ["127.1.0.1", "::ffff:127.1.0.1"] {
            refused(&["serve", "--listen", listen, "--dial-from", source], 2, &words);
        }
    }
}

#[test]
fn a_source_that_this_host_lacks_is_named() {
    let listen = "/ip4/127.0.0.1/tcp/0";
    // TEST-NET-1 belongs to no host.
    refused(&["serve", "--listen", listen, "--dial-from", "192.0.2.1"], 1, &["192.0.2.1"]);
}

#[test]
fn a_port_in_use_is_named() {
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = tcp.local_addr().expect("it is bound").port();
    let listen = format!("/ip4/127.0.0.1/tcp/{port}");
    refused(&["serve", "--listen", &listen], 1, &[&listen, "in use"]);
    refused(&["check", "--peer", "/ip4/127.0.0.1/tcp/1", "--listen", &listen], 1, &[&listen]);

    let udp = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let port = udp.local_addr().expect("it is bound").port();
    let listen = format!("/ip4/127.0.0.1/udp/{port}/quic-v1");
    refused(&["serve", "--listen", &listen], 1, &[&listen, "in use"]);
}

#[test]
fn an_unreachable_peer_is_a_line_in_the_report() {
    // Nothing listens on tcpmux, and no test is given so low a port by the kernel.
    let peer = "/ip4/127.0.0.1/tcp/1";
    let args = ["check", "--peer", peer, "--listen", "/ip4/127.0.0.1/tcp/0", "--allow-private"];
    let output = run(&args);
    assert_eq!(code(&output), 12, "{}", stderr(&output));
    let line = stdout(&output).lines().find(|line| line.contains(peer)).expect("its line");
    assert!(line.contains("not reached") && line.contains("refused"), "{line}");
    assert!(stdout(&output).contains("no AutoNAT v2 server in reach"), "{}", stdout(&output));
    // No progress is drawn where stderr is a pipe.
    assert_eq!(stderr(&output), "");
}

#[test]
fn a_peer_with_another_id_is_refused_and_reported() {
    let listen = ["--listen", "/ip4/127.0.0.1/tcp/0", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1"];
    let (_server, addresses) = Running::serve(&listen, 2);
    for address in addresses {
        let (place, id) = address.rsplit_once("/p2p/").expect("it names the peer");
        let wrong = format!("{place}/p2p/{PEER}");
        let args = ["check", "--peer", &wrong, "--listen", "/ip4/127.0.0.1/tcp/0"];
        let output = run(&args);
        assert_eq!(code(&output), 12, "{}", stderr(&output));
        let line = stdout(&output).lines().find(|line| line.contains(&wrong)).expect("its line");
        assert!(line.contains("not reached") && line.contains(id), "{line}");
    }
}

#[test]
fn an_identity_is_made_once_and_kept() {
    let folder = Folder::new("identity");
    let file = folder.file("key");
    let made = run(&["id", "--key", &file]);
    assert_eq!(code(&made), 0, "{}", stderr(&made));
    assert!(stdout(&made).starts_with("12D3KooW"), "an ed25519 peer id: {}", stdout(&made));
    assert!(stderr(&made).contains(&file));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(&file).expect("it was made").permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
    }
    // The protobuf form: field 1 (type) = 1 (ed25519), field 2 = 64 bytes.
    let bytes = std::fs::read(&file).expect("it can be read");
    assert_eq!((bytes.len(), &bytes[..4]), (68, [8, 1, 18, 64].as_slice()));

    let shown = run(&["id", "--key", &file]);
    assert_eq!((code(&shown), stdout(&shown), stderr(&shown)), (0, stdout(&made), ""));

    let listen = ["--listen", "/ip4/127.0.0.1/tcp/0", "--key", &file];
    let (_server, addresses) = Running::serve(&listen, 1);
    assert!(addresses[0].ends_with(&format!("/p2p/{}", stdout(&made).trim_end())));
}

#[test]
fn a_broken_identity_is_named_and_left_alone() {
    let folder = Folder::new("broken");
    let file = folder.file("key");
    std::fs::write(&file, "no key").expect("it can be written");
    refused(&["id", "--key", &file], 1, &[&file]);
    refused(&["serve", "--listen", "/ip4/127.0.0.1/tcp/0", "--key", &file], 1, &[&file]);
    assert_eq!(std::fs::read(&file).expect("it can be read"), b"no key");
    let nowhere = folder.file("no/such/folder/key");
    refused(&["id", "--key", &nowhere], 1, &[&nowhere]);
}
