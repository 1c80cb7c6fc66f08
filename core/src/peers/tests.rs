//! What a checkpoint may not claim of this room.

use super::*;
use crate::wire::identify::Identify;
use crate::words::checkpoint::reloaded;
use crate::{Actions, Draw, Protocol, Signer, UnixTime};
use alloc::vec::Vec;
use core::net::Ipv4Addr;

struct Zero;

impl Draw for Zero {
    fn below(&mut self, _: u64) -> u64 {
        0
    }

    fn nonce(&mut self) -> u64 {
        0
    }
}

impl Signer for Zero {
    fn sign(&mut self, _: &[u8]) -> Vec<u8> {
        Vec::new()
    }
}

const CONN: ConnId = ConnId(1);

/// A connection whose peer is asked who it is and pinged.
fn asking() -> Peers {
    let addr = |last| Addr::tcp(Ipv4Addr::new(44, 0, last, 1).into(), 4001);
    let facts = Connected {
        conn: CONN,
        peer: PeerId::random(),
        side: Side::Outbound,
        local: addr(0),
        remote: addr(1),
        relayed: false,
        dial: None,
        rtt: None,
    };
    let mut peers = Peers::default();
    step(|cx| {
        peers.connected(cx, &facts, true).expect("the first connection");
        peers.keep_alive(cx, None, |_, _| Worth::Kept);
    });
    peers
}

/// Do something at the fifth millisecond.
fn step<T>(what: impl FnOnce(&mut Cx<'_>) -> T) -> T {
    let mut actions = Actions::new();
    what(&mut Cx {
        now: Instant::from_millis(5),
        unix: UnixTime::from_millis(5),
        draw: &mut Zero,
        sign: &mut Zero,
        actions: &mut actions,
    })
}

fn refused(spoil: impl FnOnce(&mut Peers, &mut Connection)) -> bool {
    let mut peers = asking();
    let mut connection = peers.connections.remove(&CONN).expect("it stands");
    spoil(&mut peers, &mut connection);
    peers.connections.insert(CONN, connection);
    reloaded(&peers).is_err()
}

#[test]
fn a_checkpoint_claims_only_what_a_step_leaves_behind() {
    let peers = asking();
    assert_eq!(reloaded(&peers), Ok(peers));
    let question = StreamId::outbound(Protocol::Identify, 1);
    assert!(!refused(|peers, _| assert_eq!(peers.streams.get(&question), Some(&CONN))));
    assert!(refused(|peers, _| peers.touched = true));
    assert!(refused(|peers, _| peers.due = None), "nobody would wake us");
    assert!(refused(|peers, _| peers.minted = 0), "the next stream would be one that is there");
    assert!(refused(|peers, _| peers.serial = u64::MAX));
    assert!(refused(|peers, _| peers.streams.clear()), "it would never end");
    assert!(refused(|peers, _| peers.streams.values_mut().for_each(|of| *of = ConnId(2))));
    assert!(refused(|_, one| one.pinging.set_stream(question)), "it would go with the ping");
    assert!(refused(|_, one| one.push = Some((question, Said::default()))));
}

#[test]
fn what_a_peer_calls_its_software_is_told_as_far_as_it_fits() {
    let question = StreamId::outbound(Protocol::Identify, 1);
    for (said, told) in [
        (None, None),
        (Some("kubo/0.39.0".into()), Some("kubo/0.39.0".into())),
        // Cut between characters, not between bytes.
        (Some("\u{e9}".repeat(200)), Some("\u{e9}".repeat(128))),
    ] {
        let identify = Identify { agent_version: said, ..Identify::default() };
        let body = identify.encode_split().messages[0].clone();
        let mut peers = asking();
        let (conn, learnt) = step(|cx| peers.frame(cx, question, &body))
            .expect("an answer")
            .expect("it teaches something");
        assert_eq!((conn, learnt.agent), (CONN, told));
    }
}

#[test]
fn to_whom_a_connection_stands_is_contacted_until_it_ends() {
    let mut peers = asking();
    let ip = peers.connections[&CONN].remote.ip;
    let other = Ipv4Addr::new(44, 9, 9, 9).into();
    peers.contacted(Instant::from_millis(1), ip);
    peers.contacted(Instant::from_millis(1), other);
    let later = Instant::from_millis(3_600_000);
    let last =
        |peers: &Peers, of| peers.all_contacted(later).find(|(ip, _)| *ip == of).map(|(_, at)| at);
    assert_eq!(last(&peers, ip), Some(later));
    assert_eq!(last(&peers, other), Some(Instant::from_millis(1)));
    step(|cx| peers.disconnected(cx, CONN)).expect("it stood");
    assert_eq!(last(&peers, ip), Some(Instant::from_millis(5)));
}
