//! Crowds: what they can take up is bounded, and others are served all the while.

use super::bench::{Bench, HOLDER, INITIATOR, hop, ip, secs, stop};
use super::exchanges::STREAMS_MAX;
use super::*;
use crate::Duration;
use core::net::{IpAddr, Ipv4Addr};

const CROWD: u32 = 10_000;
/// A millisecond between two of them.
const PACE: Duration = Duration::from_millis(1);

/// The `n`th of a crowd, in one network or in as many as there are.
fn one_of(n: u32, in_one_network: bool) -> (ConnId, IpAddr) {
    let ip = if in_one_network { 0x2d00_0000 + n % 256 } else { 0x2d00_0001 + n * 256 };
    (ConnId(u64::from(n) + 1_000), Ipv4Addr::from_bits(ip).into())
}

/// Nothing holds more than it may, whatever was done to it.
fn check(bench: &Bench) {
    let limits = RelayServerConfig::default();
    let load = bench.server.in_use();
    assert!(load.reservations <= limits.reservations_max);
    assert!(load.circuits <= limits.circuits_max);
    assert!(bench.server.exchanges.len() <= STREAMS_MAX);
    assert!(bench.server.reservations.newcomers() <= 4_096);
}

#[test]
fn ten_thousand_of_one_network_take_no_more_than_their_part() {
    let mut bench = Bench::new(|_| ());
    let mut granted = 0;
    for n in 0..CROWD {
        let (conn, from) = one_of(n, true);
        bench.join_as(conn, PeerId::random(), from);
        granted += usize::from(bench.reserve_and_stay(conn) == Some(RelayStatus::Ok));
        bench.pass(PACE);
        check(&bench);
    }
    assert_eq!(granted, 32, "the cap of a network");
    assert!(bench.server.reservations.newcomers() <= 150, "they share one bucket");
    assert!(bench.server.exchanges.len() <= 128);
    assert_eq!(bench.reserve(HOLDER, 1), Some(RelayStatus::Ok), "another network");
    assert_eq!(bench.connect(INITIATOR, 2, HOLDER), None);
    bench.target_says(1, RelayStatus::Ok).expect("an answer");
    assert_eq!(bench.status(2), Some(RelayStatus::Ok));
}

#[test]
fn ten_thousand_of_as_many_networks_keep_no_holder_from_his_renewal() {
    let mut bench = Bench::reserved(|_| ());
    let mut granted = 0;
    for n in 0..CROWD {
        let (conn, from) = one_of(n, false);
        bench.join_as(conn, PeerId::random(), from);
        granted += usize::from(bench.reserve_and_stay(conn) == Some(RelayStatus::Ok));
        bench.pass(PACE);
        if n % 1_000 == 0 {
            assert_eq!(bench.reserve(HOLDER, u64::from(n) + 200), Some(RelayStatus::Ok));
        }
        check(&bench);
    }
    assert_eq!(granted, 127, "what was free");
    assert_eq!(bench.connect(INITIATOR, 1, HOLDER), None);
    assert!(bench.did(&Action::OpenStream { conn: HOLDER, stream: stop(1) }));
    // They forget it, and all is free again.
    bench.pass(secs(3_600));
    assert_eq!(bench.server.in_use().reservations, 0);
    assert_eq!(bench.reserve(INITIATOR, 2), Some(RelayStatus::Ok));
}

#[test]
fn ten_thousand_requests_for_circuits_leave_room_for_others() {
    let mut bench = Bench::reserved(|_| ());
    bench.join(ConnId(3), "44.3.3.3");
    assert_eq!(bench.reserve(ConnId(3), 101), Some(RelayStatus::Ok));
    let mut opened = 0;
    for n in 0..CROWD {
        let (conn, from) = one_of(n, true);
        bench.join_as(conn, PeerId::random(), from);
        let number = u64::from(n) + 1_000;
        let refused = bench.connect(conn, number, HOLDER);
        opened +=
            usize::from(refused.is_none() && bench.server.circuits.get(hop(number)).is_some());
        bench.pass(PACE);
        check(&bench);
    }
    assert_eq!(opened, 16, "the cap of the target, whose time is not over yet");
    assert_eq!(bench.connect(INITIATOR, 1, ConnId(3)), None, "to another target");
    bench.target_says(17, RelayStatus::Ok).expect("an answer");
    assert_eq!(bench.status(1), Some(RelayStatus::Ok));
    // Those who never answered cost the crowd its circuits after all.
    bench.pass(secs(15));
    assert_eq!(bench.server.in_use().circuits, 1);
}

#[test]
fn ten_thousand_silent_streams_do_not_drown_who_speaks() {
    let mut bench = Bench::reserved(|_| ());
    for n in 0..CROWD {
        let (conn, from) = one_of(n, false);
        bench.join_as(conn, PeerId::random(), from);
        bench.open(conn, u64::from(n) + 1_000).expect("the silent make room");
        check(&bench);
    }
    assert_eq!(bench.server.exchanges.len(), STREAMS_MAX);
    assert_eq!(bench.reserve(INITIATOR, 1), Some(RelayStatus::Ok));
    assert_eq!(bench.connect(INITIATOR, 2, HOLDER), None);
    assert!(bench.did(&Action::OpenStream { conn: HOLDER, stream: stop(1) }));
    bench.pass(secs(10));
    assert_eq!(bench.server.exchanges.len(), 0, "none of them is waited for any longer");
}

#[test]
fn one_household_holds_eight_and_one_network_thirty_two() {
    let mut bench = Bench::new(|_| ());
    let mut granted = [0, 0];
    for n in 0..200 {
        let conn = ConnId(1_000 + n);
        // One /64, then as many as there are in one /48.
        let text = alloc::format!("2600:1:2:{}::{n:x}", if n < 20 { 0 } else { n });
        bench.join_as(conn, PeerId::random(), ip(&text));
        let is_granted = bench.reserve(conn, n + 1) == Some(RelayStatus::Ok);
        granted[usize::from(n >= 20)] += u32::from(is_granted);
        bench.pass(secs(1));
    }
    assert_eq!(granted, [8, 24]);
}
