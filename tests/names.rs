//! Names in multiaddrs, resolved by real DNS servers on loopback, on every runtime.

use futures::StreamExt;
use multiaddr::Multiaddr;
use portolan_core::Config;
use portolan_runtime::names::{
    ADDRESSES_MAX, DEPTH_MAX, LOOKUPS_MAX, NameError, NamesConfig, RECORDS_MAX, Resolved, Resolver,
};
use portolan_runtime::{DialError, Node, identity};
use portolan_tests::dns_server::{DnsServer, Zone};
use portolan_tests::lab::{Lab, soon};
use portolan_tests::portolan_peer::on_one_host;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

const PEER: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
const OTHER: &str = "12D3KooWGjMvSZ5rGzPxRpyZNsg6qrfeQfN8QrVEJ9CWLHVbqgFK";

portolan_tests::on_every_runtime! {
    #[tokio::test(flavor = "multi_thread")]
    both_families_take_turns_and_aliases_are_followed,
    forged_answers_are_not_believed,
    whole_addresses_are_found_through_names_and_by_their_end,
    long_answers_come_over_tcp_and_giant_ones_are_named,
    loops_and_depths_are_cut_and_named,
    fan_out_is_cut_and_named,
    a_server_that_fails_is_passed_over,
    nodes_dial_names_and_try_all_that_they_lead_to,
    nodes_dial_through_relays_that_have_names;
}

fn config(servers: &[SocketAddr]) -> NamesConfig {
    let mut config = NamesConfig::default();
    config.servers = servers.to_vec();
    config
}

async fn resolve<L: Lab>(lab: &L, server: &DnsServer, addr: &str) -> Result<Resolved, NameError> {
    let resolver = Resolver::new(lab.runtime(), config(&[server.addr()]));
    soon(resolver.resolve(&addr.parse().expect("a multiaddr"))).await
}

fn texts(resolved: &Resolved) -> Vec<String> {
    resolved.addrs.iter().map(ToString::to_string).collect()
}

async fn both_families_take_turns_and_aliases_are_followed<L: Lab>(lab: &L) {
    let zone = Zone::default()
        .ip("peer.example", "192.0.2.1")
        .ip("peer.example", "192.0.2.2")
        .ip("peer.example", "2001:db8::1")
        .alias("www.example", "peer.example")
        .alias("round.example", "about.example")
        .alias("about.example", "round.example")
        .text("four.example", "nothing of use");
    let server = DnsServer::start(zone);
    let found = resolve(lab, &server, "/dns/Peer.Example/tcp/1").await.expect("it has addresses");
    let all = ["/ip6/2001:db8::1/tcp/1", "/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.2/tcp/1"];
    assert_eq!(texts(&found), all);
    assert!(found.problems.is_empty());
    let named = format!("/dns4/www.example/udp/2/quic-v1/p2p/{PEER}");
    let found = resolve(lab, &server, &named).await.expect("it has addresses");
    let end = format!("udp/2/quic-v1/p2p/{PEER}");
    assert_eq!(texts(&found), ["1", "2"].map(|host| format!("/ip4/192.0.2.{host}/{end}")));
    let found = resolve(lab, &server, "/dns6/www.example/tcp/1").await.expect("it has one");
    assert_eq!(texts(&found), all[..1]);

    let missing = resolve(lab, &server, "/dns4/nobody.example/tcp/1").await;
    assert_eq!(missing, Err(NameError::NoSuchName { name: "nobody.example.".into() }));
    let none = resolve(lab, &server, "/dns4/four.example/tcp/1").await;
    let wanted = "IPv4 address";
    assert_eq!(none, Err(NameError::NoRecords { name: "four.example.".into(), wanted }));
    let round = resolve(lab, &server, "/dns4/round.example/tcp/1").await;
    assert!(matches!(round, Err(NameError::Loop { .. })), "{round:?}");
}

async fn forged_answers_are_not_believed<L: Lab>(lab: &L) {
    let server = DnsServer::start(Zone::default().ip("peer.example", "192.0.2.1"));
    server.forge();
    let found = resolve(lab, &server, "/dns4/peer.example/tcp/1").await.expect("it has one");
    assert_eq!(texts(&found), ["/ip4/192.0.2.1/tcp/1"]);
}

async fn whole_addresses_are_found_through_names_and_by_their_end<L: Lab>(lab: &L) {
    let tcp = format!("/ip4/192.0.2.1/tcp/1/p2p/{PEER}");
    let other = format!("/ip4/192.0.2.2/tcp/1/p2p/{OTHER}");
    let zone = Zone::default()
        .dnsaddr("all.example", &format!("/dnsaddr/one.all.example/p2p/{PEER}"))
        .dnsaddr("all.example", &format!("/dnsaddr/two.all.example/p2p/{OTHER}"))
        .text("_dnsaddr.all.example", "something else")
        .dnsaddr("all.example", "nonsense")
        .dnsaddr("one.all.example", &tcp)
        .dnsaddr("one.all.example", &format!("/dns4/host.example/udp/1/quic-v1/p2p/{PEER}"))
        .dnsaddr("one.all.example", &format!("/ip4/192.0.2.9/tcp/1/ws/p2p/{PEER}"))
        .dnsaddr("one.all.example", &other)
        .dnsaddr("two.all.example", &other)
        .dnsaddr("strange.example", "/ip4/192.0.2.9/tcp/1/ws")
        .ip("host.example", "192.0.2.3");
    let server = DnsServer::start(zone);
    let quic = format!("/ip4/192.0.2.3/udp/1/quic-v1/p2p/{PEER}");
    let found = resolve(lab, &server, "/dnsaddr/all.example").await.expect("it leads to peers");
    let mut all = texts(&found);
    all.sort_unstable();
    assert_eq!(all, [tcp.as_str(), &other, &quic]);
    assert!(found.problems.is_empty(), "{found:?}");
    let named = format!("/dnsaddr/all.example/p2p/{OTHER}");
    let found = resolve(lab, &server, &named).await.expect("it leads to one of them");
    assert_eq!(texts(&found), [other.as_str()]);
    let through = format!("{named}/p2p-circuit/p2p/{PEER}");
    let found = resolve(lab, &server, &through).await.expect("a way through it");
    assert_eq!(texts(&found), [format!("{other}/p2p-circuit/p2p/{PEER}")]);
    let strange = resolve(lab, &server, "/dnsaddr/strange.example").await;
    let name = "strange.example.".to_owned();
    assert_eq!(strange, Err(NameError::NothingUsable { name, given: 1 }));
}

async fn long_answers_come_over_tcp_and_giant_ones_are_named<L: Lab>(lab: &L) {
    let addr = |number: usize| format!("/ip4/192.0.2.{number}/tcp/1/p2p/{PEER}");
    let long = (1..=20).fold(Zone::default(), |zone, n| zone.dnsaddr("long.example", &addr(n)));
    let many = (1..=100).fold(long, |zone, n| zone.dnsaddr("many.example", &addr(n)));
    // Longer than any answer that is read, and as long as DNS allows.
    let giant =
        (0..60).fold(many, |zone, _| zone.text("_dnsaddr.giant.example", &"x".repeat(1_000)));
    let zone =
        giant.dnsaddr("mixed.example", "/dnsaddr/giant.example").dnsaddr("mixed.example", &addr(1));
    let server = DnsServer::start(zone);
    let found = resolve(lab, &server, "/dnsaddr/long.example").await.expect("it fits into TCP");
    assert_eq!(found.addrs.len(), 20);
    assert_eq!(server.asked(), (1, 1));

    let found = resolve(lab, &server, "/dnsaddr/many.example").await.expect("some are taken");
    assert_eq!(found.addrs.len(), RECORDS_MAX);
    let name = "_dnsaddr.many.example.".to_owned();
    assert_eq!(found.problems, [NameError::TooManyRecords { name, given: 100, max: RECORDS_MAX }]);

    let giant = resolve(lab, &server, "/dnsaddr/giant.example").await;
    let Err(NameError::AnswerTooLong { name, bytes, max }) = &giant else { panic!("{giant:?}") };
    assert!(name == "_dnsaddr.giant.example." && bytes > max && *bytes > 60_000);
    let mixed = resolve(lab, &server, "/dnsaddr/mixed.example").await.expect("one is fine");
    assert_eq!(texts(&mixed), [addr(1)]);
    assert_eq!(mixed.problems, [giant.expect_err("it was")]);
}

async fn loops_and_depths_are_cut_and_named<L: Lab>(lab: &L) {
    let addr = "/ip4/192.0.2.1/tcp/1";
    let mut zone = Zone::default()
        .dnsaddr("self.example", "/dnsaddr/self.example")
        .dnsaddr("round.example", "/dnsaddr/about.example")
        .dnsaddr("about.example", "/dnsaddr/round.example")
        .dnsaddr("about.example", addr);
    for depth in 0..20 {
        let next = format!("/dnsaddr/d{}.example", depth + 1);
        zone = zone.dnsaddr(&format!("d{depth}.example"), &next);
    }
    let server = DnsServer::start(zone);
    let alone = resolve(lab, &server, "/dnsaddr/self.example").await;
    assert_eq!(alone, Err(NameError::Loop { name: "self.example.".into() }));
    let found = resolve(lab, &server, "/dnsaddr/round.example").await.expect("one address");
    assert_eq!(texts(&found), [addr]);
    assert_eq!(found.problems, [NameError::Loop { name: "round.example.".into() }]);
    let (before, _) = server.asked();
    let deep = resolve(lab, &server, "/dnsaddr/d0.example").await;
    let name = format!("d{DEPTH_MAX}.example.");
    assert_eq!(deep, Err(NameError::TooDeep { name, max: DEPTH_MAX }));
    assert_eq!(server.asked().0 - before, DEPTH_MAX);
}

async fn fan_out_is_cut_and_named<L: Lab>(lab: &L) {
    let mut zone = Zone::default();
    for branch in 0..20 {
        zone = zone
            .dnsaddr("wide.example", &format!("/dnsaddr/b{branch}.example"))
            .dnsaddr("tall.example", &format!("/dnsaddr/t{branch}.example"));
        for leaf in 0..20 {
            let addr = format!("/ip4/192.0.{branch}.{leaf}/tcp/1");
            zone = zone
                .dnsaddr(
                    &format!("b{branch}.example"),
                    &format!("/dnsaddr/l{branch}-{leaf}.example"),
                )
                .dnsaddr(&format!("l{branch}-{leaf}.example"), &addr)
                .dnsaddr(&format!("t{branch}.example"), &addr);
        }
    }
    let server = DnsServer::start(zone);
    let found = resolve(lab, &server, "/dnsaddr/wide.example").await.expect("some were found");
    assert_eq!(found.addrs.len(), LOOKUPS_MAX - 21);
    let cut = |problem: &NameError| matches!(problem, NameError::TooManyLookups { .. });
    assert!(found.problems.iter().any(cut), "{:?}", found.problems);
    assert_eq!(server.asked().0, LOOKUPS_MAX);
    let found = resolve(lab, &server, "/dnsaddr/tall.example").await.expect("some were found");
    assert_eq!(found.addrs.len(), ADDRESSES_MAX);
    let name = "tall.example.".to_owned();
    let too_many = NameError::TooManyAddresses { name, max: ADDRESSES_MAX };
    assert!(found.problems.contains(&too_many), "{:?}", found.problems);
}

async fn a_server_that_fails_is_passed_over<L: Lab>(lab: &L) {
    let zone = Zone::default().ip("peer.example", "192.0.2.1");
    let good = DnsServer::start(zone);
    let failing = DnsServer::start(Zone::default().failing("peer.example"));
    let closed = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let nobody = closed.local_addr().expect("a socket");
    drop(closed);
    let addr: Multiaddr = "/dns4/peer.example/tcp/1".parse().expect("a multiaddr");
    let of = |servers: &[SocketAddr]| Resolver::new(lab.runtime(), config(servers));
    let found = soon(of(&[nobody, failing.addr(), good.addr()]).resolve(&addr)).await;
    assert_eq!(texts(&found.expect("the third knows")), ["/ip4/192.0.2.1/tcp/1"]);
    let error = soon(of(&[failing.addr()]).resolve(&addr)).await.expect_err("nobody knows");
    assert!(error.to_string().contains(&failing.addr().to_string()), "{error}");
    assert_eq!(failing.asked().0, 3, "once, and then twice");
    // One that is silent: nobody reads what comes.
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let silent = silent.local_addr().map(|addr| (addr, silent)).expect("a socket");
    let found = soon(of(&[silent.0, good.addr()]).resolve(&addr)).await;
    assert_eq!(found.expect("the second knows").addrs.len(), 1);
    let error = soon(of(&[silent.0]).resolve(&addr)).await.expect_err("nobody answers");
    assert_eq!(error, NameError::TimedOut { name: "peer.example.".into() });
}

async fn node<L: Lab>(lab: &L, names: NamesConfig, edit: fn(&mut Config)) -> Node<L::Runtime> {
    let mut config = on_one_host();
    edit(&mut config);
    let builder = Node::builder(lab.runtime(), identity::generate()).config(config).names(names);
    let builder = builder.listen("/ip4/127.0.0.1/tcp/0".parse().expect("a multiaddr"));
    builder.start().await.expect("a free port")
}

async fn nodes_dial_names_and_try_all_that_they_lead_to<L: Lab>(lab: &L) {
    let target = node(lab, NamesConfig::default(), |_| ()).await;
    let listens = soon(target.listeners()).await.remove(0).to_string();
    let port = listens.split('/').nth(4).expect("a port").to_owned();
    let zone = Zone::default()
        .ip("peer.example", "127.0.0.9")
        .ip("peer.example", "127.0.0.1")
        .ip("peer.example", "::1")
        .dnsaddr("all.example", &format!("/ip4/127.0.0.1/tcp/1/p2p/{PEER}"))
        .dnsaddr("all.example", &listens)
        .dnsaddr("none.example", &format!("/ip4/127.0.0.1/tcp/1/p2p/{PEER}"));
    let server = DnsServer::start(zone);
    let dialler = node(lab, config(&[server.addr()]), |_| ()).await;
    let dial = async |addr: String| soon(dialler.dial(addr.parse().expect("a multiaddr"))).await;
    for addr in [format!("/dns/peer.example/tcp/{port}"), "/dnsaddr/all.example".into()] {
        let dialled = dial(addr).await.expect("one of them listens");
        assert_eq!(dialled.peer, target.peer_id());
        assert_eq!(dialled.remote.to_string(), format!("/ip4/127.0.0.1/tcp/{port}"));
    }
    let error = dial("/dnsaddr/none.example".into()).await.expect_err("nobody listens");
    assert!(matches!(&error, DialError::Nowhere { errors, .. } if errors.len() == 1), "{error}");
    let error = dial("/dns4/gone.example/tcp/1".into()).await.expect_err("no such name");
    let named = matches!(&error, DialError::Name { error: NameError::NoSuchName { .. }, .. });
    assert!(named && error.to_string().contains("/dns4/gone.example/tcp/1"), "{error}");
    dialler.shutdown().await;
    target.shutdown().await;
}

async fn nodes_dial_through_relays_that_have_names<L: Lab>(lab: &L) {
    let relay = node(lab, NamesConfig::default(), |config| {
        config.relay_server = Some(portolan_core::RelayServerConfig::default());
    })
    .await;
    let at = soon(relay.listeners()).await.remove(0);
    let (addr, _) = portolan_runtime::destination(&at).expect("an address");
    let known = portolan_core::RelayPeer { peer: relay.peer_id(), addrs: vec![addr] };
    let mut config_of_target = on_one_host();
    let mut relays = portolan_core::RelayConfig::default();
    relays.need = portolan_core::RelayNeed::Always;
    relays.relays = vec![known];
    config_of_target.relay = Some(relays);
    let builder = Node::builder(lab.runtime(), identity::generate()).config(config_of_target);
    let mut notices = builder.notices();
    let target = builder.start().await.expect("it starts");
    let reserved = async {
        while target.circuit_addresses().await.is_empty() {
            notices.next().await.expect("it runs");
        }
    };
    soon(reserved).await;
    let zone = Zone::default().dnsaddr("relay.example", &at.to_string());
    let server = DnsServer::start(zone);
    let dialler = node(lab, config(&[server.addr()]), |config| {
        config.relay = Some(portolan_core::RelayConfig::default());
    })
    .await;
    let way = format!(
        "/dnsaddr/relay.example/p2p/{}/p2p-circuit/p2p/{}",
        relay.peer_id(),
        target.peer_id()
    );
    let dialled = soon(dialler.dial(way.parse().expect("a multiaddr"))).await.expect("it leads");
    assert!(dialled.relayed && dialled.peer == target.peer_id());
    for node in [dialler, target, relay] {
        node.shutdown().await;
    }
}
