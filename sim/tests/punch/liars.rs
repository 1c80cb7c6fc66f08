//! Peers that lie about the ports that they predict: what they can have a node send is bounded, and goes
//! nowhere that it could not go without them.

use portolan_core::config::{PREDICTED_PORTS_MAX, PREDICTED_PORTS_MIN};
use portolan_sim::story;
use std::fmt::Write as _;
use std::path::Path;

/// A node behind a NAT that a prediction helps to enter, and that takes part.
const BEGINNING: &str = "\
# What peers on circuits have us send.
config punch predict
config relay
config no-ping
listen l1 /ip4/192.168.1.2/tcp/4001
interfaces 192.168.1.2
connect c1 S1 out /ip4/44.0.1.1/tcp/4001 rtt=20ms
connect c2 S2 out /ip4/44.0.2.1/tcp/4001 rtt=20ms
identify c1 observed=/ip4/99.0.0.7/tcp/4001 server
identify c2 observed=/ip4/99.0.0.7/tcp/4001 server
+30ms
answer S1 OK DIAL_ERROR
answer S2 OK DIAL_ERROR
";
const STRICT: &str = "ip4/tcp:address-and-port-dependent:address-and-port-dependent";

/// The IPs and ports that the node sends a packet to, by the transcript.
fn dials(transcript: &[String]) -> Vec<(String, u16)> {
    let orders = transcript.iter().filter(|line| line.contains("  punch p"));
    let words = orders.map(|line| line.split_whitespace().collect::<Vec<_>>());
    words
        .map(|words| {
            assert_eq!(words[5], "open", "{words:?}");
            // `+5.000 punch p1 X1 /ip4/98.0.0.1/tcp/5000 open ..`
            let parts: Vec<&str> = words[4].split('/').collect();
            (parts[2].to_owned(), parts[4].parse().expect("a port"))
        })
        .collect()
}

fn play(script: &str) -> Vec<(String, u16)> {
    let text = format!("{BEGINNING}{script}----\n");
    dials(&story::play(Path::new("liars"), &text).unwrap_or_else(|fault| panic!("{fault}")))
}

#[test]
fn a_peer_cannot_have_us_send_to_more_ports_than_an_attempt_may_cost() {
    for said in
        ["ip4/tcp:1:+1:255", "ip4/tcp:1024:+1:255", "ip4/tcp:65535:-1:255", "ip4/tcp:2000:+200:255"]
    {
        let all = play(&format!(
            "connect c5 X1 out /ip4/44.0.1.1/tcp/4001 relayed\n\
             punch-offer c5 /ip4/98.0.0.1/tcp/4001 {STRICT} predicts\n\
             punch-sync c5 {said}\n+20s\n"
        ));
        assert!(all.len() <= PREDICTED_PORTS_MAX, "{said}: {all:?}");
        assert!(all.iter().all(|(_, port)| *port >= 1_024), "{said}: {all:?}");
        assert!(all.iter().all(|(ip, _)| ip == "98.0.0.1"), "{said}: {all:?}");
    }
}

#[test]
fn a_peer_cannot_have_us_send_into_private_networks_or_to_ourselves() {
    for named in ["/ip4/10.0.0.1/tcp/4001", "/ip4/192.168.1.7/tcp/4001", "/ip4/127.0.0.1/tcp/4001"]
    {
        let all = play(&format!(
            "connect c5 X1 out /ip4/44.0.1.1/tcp/4001 relayed\n\
             punch-offer c5 {named} {STRICT} predicts\n\
             punch-sync c5 ip4/tcp:3990:+1:32\n+20s\n"
        ));
        assert_eq!(all, [], "{named}");
    }
    let own = "99.0.0.7";
    let all = play(&format!(
        "connect c5 X1 out /ip4/44.0.1.1/tcp/4001 relayed\n\
         punch-offer c5 /ip4/{own}/tcp/5000 {STRICT} predicts\n\
         punch-sync c5 ip4/tcp:3990:+1:32\n+20s\n"
    ));
    // A neighbour behind the same NAT may be meant; our own port never is.
    assert!(all.iter().all(|(_, port)| *port != 4_001), "{all:?}");
}

#[test]
fn nothing_is_opened_for_who_did_not_say_that_ports_are_predicted_or_where_they_need_not_be() {
    for (behind, said) in [
        (STRICT.to_owned(), ""),
        (STRICT.to_owned(), "ip4/tcp:5000:+1:32"),
        ("ip4/quic:address-and-port-dependent:none predicts".to_owned(), "ip4/tcp:5000:+1:32"),
        (format!("{STRICT} predicts"), "ip4/quic:5000:+1:32"),
        (format!("{STRICT} predicts"), "ip6/tcp:5000:+1:32"),
    ] {
        let text = format!(
            "{BEGINNING}connect c5 X1 out /ip4/44.0.1.1/tcp/4001 relayed\n\
             punch-offer c5 /ip4/98.0.0.1/tcp/4001 {behind}\n\
             punch-sync c5 {said}\n+20s\n----\n"
        );
        let transcript =
            story::play(Path::new("liars"), &text).unwrap_or_else(|fault| panic!("{fault}"));
        let opened = transcript.iter().filter(|line| line.contains(" open within ")).count();
        assert_eq!(opened, 0, "{behind} {said}");
    }
}

#[test]
fn many_peers_together_cannot_have_us_send_more_than_a_minute_allows() {
    let mut script = String::new();
    for number in 0..20 {
        let conn = 5 + number;
        let _ = write!(
            script,
            "connect c{conn} X{number} out /ip4/44.0.1.1/tcp/4001 relayed\n\
             punch-offer c{conn} /ip4/98.0.{number}.1/tcp/4001 {STRICT} predicts\n\
             punch-sync c{conn} ip4/tcp:5000:+1:255\n+2s\n\
             disconnect c{conn}\n"
        );
    }
    assert_eq!(play(&script).len(), PREDICTED_PORTS_MIN);
}
