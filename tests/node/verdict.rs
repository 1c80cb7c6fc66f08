//! The main job between real nodes: observed, dialled back, proved.

use super::{BOTH, builder, dial};
use futures::StreamExt;
use portolan_core::{Notice, Outcome, PeerId, Scope, State};
use portolan_runtime::{ReportError, Stopped};
use portolan_tests::lab::{Lab, soon, until};
use portolan_tests::portolan_peer::on_one_host;
use std::net::IpAddr;

portolan_tests::on_every_runtime! {
    #[tokio::test]
    a_server_on_one_ip_proves_the_addresses_to_those_it_was_contacted_by,
    a_dial_back_from_another_ip_proves_them_to_anybody,
    what_peers_report_is_taken_only_about_addresses_of_the_node;
}

async fn a_server_on_one_ip_proves_the_addresses_to_those_it_was_contacted_by<L: Lab>(lab: &L) {
    proves(lab, None, Scope::Contacted).await;
}

async fn a_dial_back_from_another_ip_proves_them_to_anybody<L: Lab>(lab: &L) {
    proves(lab, Some([127, 1, 0, 1].into()), Scope::Anywhere).await;
}

async fn proves<L: Lab>(lab: &L, dial_from: Option<IpAddr>, scope: Scope) {
    let mut config = on_one_host();
    config.dial_back = Some(Default::default());
    let server = builder(lab, config, &BOTH);
    let server = match dial_from {
        Some(ip) => server.dial_from(ip),
        None => server,
    };
    let server = server.start().await.expect("free ports");
    let client = builder(lab, on_one_host(), &BOTH);
    let mut notices = client.notices();
    let client = client.start().await.expect("free ports");
    dial(&client, &server).await;

    let mut wanted: Vec<String> = client.listeners().await.iter().map(|a| a.to_string()).collect();
    let mut proved = 0;
    // A verdict may come before the answer of the probe that proved it.
    while !wanted.is_empty() || proved < 2 {
        let noticed = soon(notices.next()).await.expect("the node lives");
        assert_eq!(noticed.missed, 0);
        let notice = noticed.notice;
        if let Notice::VerdictChanged { addr, state: State::Reachable, scope: is, .. } = notice
            && is == Some(scope)
        {
            let full = format!("{addr}/p2p/{}", client.peer_id());
            wanted.retain(|wanted| *wanted != full);
        } else if let Notice::ProbeEnded { peer, outcome, .. } = notice {
            assert_eq!((peer, outcome), (server.peer_id(), Outcome::Proved));
            proved += 1;
        }
        assert!(!matches!(notice, Notice::Ignored { .. }), "{notice:?}");
    }
    let explanation = soon(client.explain()).await.expect("it runs");
    let reachable = explanation.addresses.iter().filter(|addr| addr.scope == Some(scope));
    assert_eq!(reachable.count(), 2);
    assert_eq!(explanation.servers.len(), 1);
    assert!(client.may_serve().await, "proven to those it was contacted by, at least");
    // The dial-backs came under another identity, and do not stay.
    let known = server.peer_id();
    until(async || client.connections().await.iter().all(|conn| conn.peer == known)).await;
}

async fn what_peers_report_is_taken_only_about_addresses_of_the_node<L: Lab>(lab: &L) {
    let node = builder(lab, on_one_host(), &BOTH).start().await.expect("free ports");
    assert!(!node.may_serve().await, "nothing is proven");
    let report = |addr: &str| {
        let addr = addr.parse().expect("a multiaddr");
        let node = node.clone();
        async move { node.report_dial_failure(addr).await }
    };
    for own in node.listeners().await {
        let bare = own.to_string().split("/p2p/").next().unwrap_or_default().to_owned();
        assert_eq!(report(&own.to_string()).await, Ok(()), "{own}");
        assert_eq!(report(&bare).await, Ok(()), "{bare}");
        let other = format!("{bare}/p2p/{}", PeerId::random());
        let named = other.parse().expect("a multiaddr");
        assert_eq!(report(&other).await, Err(ReportError::NotOurs(named)), "another peer's");
    }
    let unknown = "/ip4/127.0.0.1/tcp/9";
    let named = unknown.parse().expect("a multiaddr");
    assert_eq!(report(unknown).await, Err(ReportError::NotOurs(named)));
    let name = report("/dns4/example.org/tcp/9").await;
    assert!(matches!(name, Err(ReportError::Address { .. })), "{name:?}");
    node.shutdown().await;
    assert_eq!(report(unknown).await, Err(ReportError::Stopped(Stopped)));
    assert!(!node.may_serve().await);
}
