//! Which port a connection leaves from, and what is said about it.

use super::{Peer, addr, talk};
use portolan_core::{Transport, ip_scope};
use portolan_runtime::net::{ListenError, interface_ips};
use portolan_tests::lab::{Lab, soon};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

portolan_tests::on_every_runtime! {
    #[tokio::test]
    dials_leave_from_the_listen_port,
    a_wildcard_listener_names_the_ip_that_was_dialled,
    a_taken_four_tuple_falls_back_and_says_so,
    a_second_program_on_the_port_is_refused,
    a_restart_has_its_port_back_at_once,
    dial_backs_leave_from_fresh_ports_under_another_name,
    a_node_that_dials_itself_reaches_its_listener;
}

const BOTH: [Transport; 2] = [Transport::Tcp, Transport::Quic];

async fn dials_leave_from_the_listen_port<L: Lab>(lab: &L) {
    for (listen, target) in [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("::1", "::1"),
        ("::", "::1"),
        ("127.0.0.3", "127.0.0.2"),
    ] {
        for transport in BOTH {
            let (server, client) = (Peer::new(lab), Peer::new(lab));
            let at = server.listen(target, transport).addr;
            let from = client.listen(listen, transport).addr;
            let (dialled, arrived) = client.connect(&server, at).await;
            assert!(dialled.port_reused, "{transport:?} from {listen}");
            assert_eq!(dialled.local.port, from.port);
            assert!(!dialled.local.ip.is_unspecified(), "a wildcard is no local address");
            assert_eq!(arrived.remote, dialled.local, "what the server sees is what we say");
            talk(&dialled, &arrived).await;
        }
    }
}

async fn a_wildcard_listener_names_the_ip_that_was_dialled<L: Lab>(lab: &L) {
    for (any, target) in [("0.0.0.0", "127.0.0.2"), ("::", "::1")] {
        for transport in BOTH {
            let (server, client) = (Peer::new(lab), Peer::new(lab));
            let at = server.listen(any, transport).addr;
            let at = addr(target, at.port, transport);
            let (_dialled, arrived) = client.connect(&server, at).await;
            assert_eq!(arrived.local, at);
        }
    }
}

async fn a_taken_four_tuple_falls_back_and_says_so<L: Lab>(lab: &L) {
    let (server, client) = (Peer::new(lab), Peer::new(lab));
    let at = server.listen("127.0.0.1", Transport::Tcp).addr;
    let from = client.listen("127.0.0.1", Transport::Tcp).addr;
    let (first, first_arrived) = client.connect(&server, at).await;
    assert!(first.port_reused);
    let (second, second_arrived) = client.connect(&server, at).await;
    assert!(!second.port_reused, "the same two ends cannot have two connections");
    assert_ne!(second.local.port, from.port);
    assert_eq!(second_arrived.remote, second.local, "and the truth is told about it");
    talk(&first, &first_arrived).await;
    talk(&second, &second_arrived).await;
}

async fn a_second_program_on_the_port_is_refused<L: Lab>(lab: &L) {
    for ip in ["127.0.0.1", "::1", "0.0.0.0"] {
        for transport in BOTH {
            let (first, second) = (Peer::new(lab), Peer::new(lab));
            let taken = first.listen(ip, transport).addr;
            let error = second.net.listen(taken).expect_err("the port is taken");
            assert!(matches!(error, ListenError::InUse(at) if at == taken), "{error:?}");
            assert_eq!(
                error.to_string(),
                format!("{taken} is in use by another program: stop it, or listen on another port")
            );
        }
    }
    let peer = Peer::new(lab);
    let foreign = addr("192.0.2.1", 0, Transport::Tcp);
    let error = peer.net.listen(foreign).expect_err("the address is not ours");
    assert!(matches!(error, ListenError::NotLocal(_)), "{error:?}");
}

async fn a_restart_has_its_port_back_at_once<L: Lab>(lab: &L) {
    let far = Peer::new(lab);
    let far_at = far.listen("127.0.0.1", Transport::Tcp).addr;
    let first = Peer::new(lab);
    let listening = first.listen("127.0.0.1", Transport::Tcp);
    // One connection out of the port and one into it, both closed by us first, so that our ends
    // are the ones that linger in TIME_WAIT.
    let (outbound, far_inbound) = first.connect(&far, far_at).await;
    let (far_outbound, inbound) = far.connect(&first, listening.addr).await;
    assert!(outbound.port_reused && !far_outbound.port_reused);
    soon(outbound.muxer.close()).await;
    soon(inbound.muxer.close()).await;
    soon(far_inbound.muxer.closed()).await;
    soon(far_outbound.muxer.closed()).await;
    soon(first.net.shutdown()).await;
    let restarted = Peer::new(lab);
    let again = restarted.net.listen(listening.addr).expect("the port is free after a restart");
    assert_eq!(again.addr, listening.addr);
    let (dialled, arrived) = far.connect(&restarted, again.addr).await;
    talk(&dialled, &arrived).await;
}

async fn dial_backs_leave_from_fresh_ports_under_another_name<L: Lab>(lab: &L) {
    for transport in BOTH {
        let (client, server) = (Peer::new(lab), Peer::new(lab));
        let at = client.listen("127.0.0.1", transport).addr;
        let listening = server.listen("127.0.0.1", transport).addr;
        let source: IpAddr = "127.1.0.1".parse().expect("an IP address");
        let mut ports = vec![listening.port];
        for source in [None, Some(source)] {
            let dial = server.net.dial_back(at, source, Duration::from_secs(10));
            let (dialled, arrived) = futures::future::join(soon(dial), client.arrival()).await;
            let dialled = dialled.expect("the client listens");
            assert!(!dialled.port_reused);
            assert_eq!(arrived.remote, dialled.local);
            assert_eq!(arrived.peer, server.net.dial_back_peer());
            assert_ne!(arrived.peer, server.net.peer());
            assert_eq!(dialled.peer, client.net.peer());
            assert!(!ports.contains(&dialled.local.port), "every port is fresh");
            ports.push(dialled.local.port);
            if let Some(ip) = source {
                assert_eq!(arrived.remote.ip, ip);
            }
            talk(&dialled, &arrived).await;
        }
    }
}

async fn a_node_that_dials_itself_reaches_its_listener<L: Lab>(lab: &L) {
    for transport in BOTH {
        let peer = Peer::new(lab);
        let at = peer.listen("0.0.0.0", transport).addr;
        let at = addr("127.0.0.1", at.port, transport);
        let (dialled, arrived) = peer.connect(&peer, at).await;
        assert_eq!(dialled.peer, peer.net.peer());
        assert_eq!(arrived.local, at);
    }
}

#[test]
fn interfaces_have_loopback_and_no_wildcards() {
    let ips = interface_ips().expect("the host tells");
    assert!(ips.contains(&Ipv4Addr::LOCALHOST.into()));
    assert!(!ips.contains(&Ipv6Addr::UNSPECIFIED.into()));
    assert!(ips.is_sorted_by(|a, b| a < b), "in order, without duplicates");
    for ip in ips {
        assert_ne!(ip_scope(ip), portolan_core::IpScope::Unusable, "{ip}");
    }
}
