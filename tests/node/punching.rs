//! From a circuit to a direct connection, between nodes of ours.

use super::circuits::{NO_LIMIT, behind, circuits, outward, relay, through};
use super::pipes::{Talk, part};
use super::{BOTH, Bare, ECHO, ask, builder, first_addr, serve_echo, start};
use futures::StreamExt;
use multistream_select::{NegotiationError, Version, dialer_select_proto};
use portolan_core::{
    Config, ConnId, Notice, PeerId, Protocol, PunchConfig, PunchNotice, Side, Transport,
};
use portolan_runtime::pipe::{Allow, Pipe, PipeConfig, PipeListener};
use portolan_runtime::traits::Runtime;
use portolan_runtime::{Limits, Node, Notices};
use portolan_tests::lab::{Lab, soon, until};
use portolan_tests::portolan_peer::on_one_host;

portolan_tests::on_every_runtime! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    a_session_goes_over_from_a_circuit_to_a_direct_connection,
    who_met_on_a_circuit_is_connected_directly;
    #[tokio::test]
    a_direct_connection_has_no_streams_of_punching;
}

/// Whether a connection runs through a relay.
async fn is_relayed(node: &Node<impl Runtime>, conn: ConnId) -> bool {
    let all = soon(node.connections()).await;
    all.iter().find(|one| one.conn == conn).expect("it stands").relayed
}

async fn a_session_goes_over_from_a_circuit_to_a_direct_connection<L: Lab>(lab: &L) {
    // Whoever dials, it is the opener of the session that moves.
    for target_dials in [false, true] {
        let relay = relay(lab, NO_LIMIT).await;
        let at = first_addr(&relay).await;
        let target = start(lab, behind(&relay, at), Limits::default(), &BOTH).await;
        until(async || !target.circuit_addresses().await.is_empty()).await;
        let caller = start(lab, outward(on_one_host()), Limits::default(), &BOTH).await;
        let config = PipeConfig::default();
        let mut listener = PipeListener::new(&target, Allow::Anyone, config).expect("it is free");
        let circuit = vec![through(&relay, at, &target)];
        let opened = Pipe::open(&caller, target.peer_id(), circuit, config);
        let opened = soon(opened).await.expect("it is served");
        let accepted = soon(listener.next()).await.expect("the node lives");
        let before = opened.path().expect("it was opened on it").conn;
        assert!(is_relayed(&caller, before).await);
        let mut talk = Talk::new();
        soon(talk.exchange(&opened, &accepted, 4)).await;

        let (from, to) = if target_dials { (&target, &caller) } else { (&caller, &target) };
        let goes_over = async {
            let addr = soon(to.listeners()).await.remove(0);
            from.dial(addr).await.expect("it listens");
            until(async || opened.path().is_some_and(|path| path.conn != before)).await;
        };
        soon(async {
            futures::join!(talk.exchange(&opened, &accepted, 48), goes_over);
        })
        .await;
        let after = opened.path().expect("it has a carrier").conn;
        assert!(!is_relayed(&caller, after).await);

        // The circuit is of no use any more, and the session does not notice its end.
        let ends = async {
            assert_eq!(relay.disconnect(target.peer_id()).await, 1);
            until(async || circuits(&caller).await.is_empty()).await;
            until(async || circuits(&target).await.is_empty()).await;
        };
        soon(async {
            futures::join!(talk.exchange(&opened, &accepted, 16), ends);
        })
        .await;
        assert_eq!(opened.path().expect("it has a carrier").conn, after);
        soon(part(&opened, &accepted)).await;
    }
}

fn punching(mut config: Config) -> Config {
    config.punch = Some(PunchConfig::default());
    config
}

/// Wait until there is a direct connection with `peer` out of a circuit, and which.
async fn punched(notices: &mut Notices, wanted: PeerId) -> ConnId {
    soon(async {
        loop {
            let noticed = notices.next().await.expect("the node lives");
            let Notice::Punch(notice) = noticed.notice else { continue };
            match notice {
                PunchNotice::Connected { peer, conn, .. } if peer == wanted => return conn,
                PunchNotice::Failed { .. } => panic!("{notice:?}"),
                PunchNotice::Connected { .. } | PunchNotice::Attempted { .. } | _ => {}
            }
        }
    })
    .await
}

async fn who_met_on_a_circuit_is_connected_directly<L: Lab>(lab: &L) {
    for addr in BOTH {
        let relay = relay(lab, NO_LIMIT).await;
        let at = first_addr(&relay).await;
        let target = builder(lab, punching(behind(&relay, at)), &[addr]);
        let caller = builder(lab, punching(outward(on_one_host())), &[addr]);
        let (mut told_target, mut told_caller) = (target.notices(), caller.notices());
        let target = target.start().await.expect("free ports");
        let caller = caller.start().await.expect("free ports");
        serve_echo(&target);
        until(async || !target.circuit_addresses().await.is_empty()).await;
        let circuit =
            soon(caller.dial(through(&relay, at, &target))).await.expect("it leads there");
        assert!(circuit.relayed);

        punched(&mut told_target, caller.peer_id()).await;
        let conn = punched(&mut told_caller, target.peer_id()).await;
        let all = soon(caller.connections()).await;
        let direct = all.iter().find(|one| one.conn == conn).expect("it stands");
        let quic = addr.ends_with("quic-v1");
        let transport = if quic { Transport::Quic } else { Transport::Tcp };
        assert!(!direct.relayed && direct.remote.transport == transport, "{direct:?}");
        // Both leave from and lead to a listener, and who opened the circuit is the client.
        let listens = soon(caller.listeners()).await.remove(0).to_string();
        assert!(listens.contains(&format!("/{}", direct.local.port)), "{direct:?} {listens}");
        assert_eq!(direct.side, Side::Outbound, "{direct:?}");
        let stream = soon(caller.open_stream(target.peer_id(), ECHO)).await.expect("it echoes");
        assert_eq!(stream.conn(), conn);
        assert_eq!(ask(stream, b"directly").await, b"directly");
    }
}

async fn a_direct_connection_has_no_streams_of_punching<L: Lab>(lab: &L) {
    let node = start(lab, punching(on_one_host()), Limits::default(), &BOTH).await;
    let connection = Bare::new(lab).connect(&node).await;
    let stream = soon(connection.muxer.open()).await.expect("there is room");
    let proposal = dialer_select_proto(stream, [Protocol::Punch.name()], Version::V1);
    let refused = soon(proposal).await.err();
    assert!(matches!(refused, Some(NegotiationError::Failed)), "{refused:?}");
}
