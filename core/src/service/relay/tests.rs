//! The relay from outside: facts in, actions out.

use super::bench::{Bench, HOLDER, INITIATOR, UNIX, hop, reset, secs, stop, tcp};
use super::*;
use crate::wire::multiaddr::Decoded;
use crate::words::checkpoint::{Saved, Saver};
use crate::{Config, Duration, Instant, Wake};
use alloc::vec;

const NANO: Duration = Duration::from_nanos(1);
const OTHER: ConnId = ConnId(3);

#[test]
fn a_reservation_is_granted_signed_and_told() {
    let mut bench = Bench::new(|_| ());
    bench.world.proven = vec![tcp("44.9.9.8"), tcp("44.9.9.9")];
    let (peer, relay) = (bench.peer(HOLDER), bench.relay());
    assert_eq!(bench.reserve(HOLDER, 1), Some(RelayStatus::Ok));
    assert!(bench.did(&Action::CloseStream { stream: hop(1) }));
    assert_eq!(bench.heard(), [RelayNotice::Granted { peer, renewed: false }]);

    let granted = bench.granted(1);
    assert_eq!(granted.expire, UNIX / 1_000 + 3_600);
    let addrs: Vec<_> = granted.addrs.iter().map(|addr| multiaddr::decode(addr)).collect();
    let direct = |text| Ok(Decoded::Direct { addr: tcp(text), peer: Some(relay) });
    assert_eq!(addrs, [direct("44.9.9.8"), direct("44.9.9.9")], "each once");
    let voucher = Voucher::open(&granted.voucher.expect("a voucher")).expect("signed by us");
    assert_eq!(voucher, Voucher { relay, peer, expiration: granted.expire });
    let limit = RelayServerConfig::default().limit;
    assert!(matches!(bench.said(1), Some(HopMessage::Status { limit: said, .. }) if said == limit));
    assert!(bench.is_over() && bench.server.keeps(&bench.world, HOLDER));
    assert!(!bench.server.keeps(&bench.world, INITIATOR));
}

#[test]
fn told_are_the_addresses_that_mean_something_to_others() {
    let told = |allow_private, local: &str, listens: bool, proven: usize| {
        let mut bench = Bench::with(allow_private, |_| ());
        bench.world.listens = if listens { vec![tcp(local)] } else { vec![] };
        bench.world.proven = (0..proven).map(|n| tcp(&alloc::format!("44.8.8.{n}"))).collect();
        bench.caller(HOLDER).local = tcp(local);
        assert_eq!(bench.reserve(HOLDER, 1), Some(RelayStatus::Ok));
        bench.granted(1).addrs.len()
    };
    assert_eq!(told(false, "44.9.9.9", true, 0), 1, "unproven, but he came in there");
    assert_eq!(told(false, "44.9.9.9", false, 0), 0, "the port of a dial of ours");
    assert_eq!(told(false, "192.168.1.2", true, 1), 1);
    assert_eq!(told(true, "192.168.1.2", true, 1), 2);
    assert_eq!(told(true, "127.0.0.1", true, 0), 1);
    assert_eq!(told(true, "fe80::1", true, 0), 0);
    assert_eq!(told(false, "44.9.9.9", true, 40), RESERVATION_ADDRS_MAX);
}

#[test]
fn who_gets_no_reservation_hears_why() {
    type Case = (fn(&mut RelayServerConfig), fn(&mut Bench), RelayStatus);
    let cases: [Case; 7] = [
        (|_| (), |bench| bench.caller(INITIATOR).relayed = true, RelayStatus::PermissionDenied),
        (|limits| limits.allow = Some(vec![]), |_| (), RelayStatus::PermissionDenied),
        (|limits| limits.reservations_max = 1, |_| (), RelayStatus::ReservationRefused),
        (
            |limits| limits.reservations_per_ip_max = 1,
            |bench| bench.caller(INITIATOR).remote = tcp("44.1.1.1"),
            RelayStatus::ReservationRefused,
        ),
        (
            |limits| limits.reservations_per_prefix_max = 1,
            |bench| bench.caller(INITIATOR).remote = tcp("44.1.1.2"),
            RelayStatus::ReservationRefused,
        ),
        (|limits| limits.only_while_may_serve = true, |_| (), RelayStatus::ReservationRefused),
        (|_| (), Bench::drain, RelayStatus::ReservationRefused),
    ];
    for (number, (change, prepare, status)) in cases.into_iter().enumerate() {
        let mut bench = Bench::new(change);
        bench.reserve(HOLDER, 1);
        prepare(&mut bench);
        assert_eq!(bench.reserve(INITIATOR, 2), Some(status), "{number}");
        let peer = bench.peer(INITIATOR);
        assert_eq!(bench.heard(), [RelayNotice::Refused { peer, target: None, status }]);
        assert!(!bench.server.reservations.has(peer));
    }
    // Who is on the list is served, and so is everybody within the caps.
    let mut bench = Bench::new(|limits| {
        limits.reservations_per_ip_max = 1;
        limits.reservations_per_prefix_max = 2;
        limits.only_while_may_serve = true;
    });
    bench.world.may_serve = true;
    bench.server.limits.allow = Some(vec![bench.peer(HOLDER), bench.peer(INITIATOR)]);
    bench.caller(INITIATOR).remote = tcp("44.1.1.2");
    for (conn, number) in [(HOLDER, 1), (INITIATOR, 2)] {
        assert_eq!(bench.reserve(conn, number), Some(RelayStatus::Ok));
    }
}

#[test]
fn requests_have_a_rate_and_holders_have_their_own() {
    let mut bench = Bench::new(|limits| limits.reservations_max = 0);
    for number in 0..12 {
        bench.reserve(HOLDER, number);
        assert_eq!(bench.server.reservations.newcomers(), 2, "the peer's and its network's");
    }
    bench.server.limits.reservations_max = 1;
    assert_eq!(bench.reserve(HOLDER, 20), Some(RelayStatus::ReservationRefused));
    bench.pass(secs(5));
    assert_eq!(bench.reserve(HOLDER, 21), Some(RelayStatus::Ok), "a token grew");
    for number in 30..42 {
        assert_eq!(bench.reserve(HOLDER, number), Some(RelayStatus::Ok));
    }
    let before = bench.server.deadline();
    bench.now = bench.now + secs(1);
    assert_eq!(bench.reserve(HOLDER, 50), Some(RelayStatus::ReservationRefused));
    assert_eq!(bench.server.deadline(), before, "what it had it keeps");
}

#[test]
fn a_reservation_stands_with_any_direct_connection_and_falls_with_the_last() {
    let mut bench = Bench::reserved(|_| ());
    let caller = *bench.caller(HOLDER);
    bench.world.callers.insert(OTHER, caller);
    bench.world.callers.insert(ConnId(4), Caller { relayed: true, ..caller });
    assert!(bench.server.keeps(&bench.world, OTHER));
    assert!(!bench.server.keeps(&bench.world, ConnId(4)), "a circuit is no way to the holder");

    bench.leave(HOLDER);
    assert_eq!(bench.heard(), []);
    assert_eq!(bench.connect_to(INITIATOR, 1, caller.peer), None);
    assert!(bench.did(&Action::OpenStream { conn: OTHER, stream: stop(1) }));

    bench.leave(OTHER);
    assert_eq!(bench.status(1), Some(RelayStatus::ConnectionFailed), "it goes down with it");
    assert!(bench.heard().contains(&RelayNotice::ReservationEnded { peer: caller.peer }));
    let again = bench.connect_to(INITIATOR, 2, caller.peer);
    assert_eq!(again, Some(RelayStatus::NoReservation));
}

#[test]
fn a_reservation_ends_at_its_moment_wherever_the_wall_clock_is() {
    let mut bench = Bench::reserved(|_| ());
    bench.unix = 0;
    let deadline = bench.server.deadline().expect("it ends some time");
    assert_eq!(deadline.wake, Wake::ReservationExpires);
    assert_eq!(deadline.at, Instant::from_millis(1_000) + secs(3_600));

    bench.now = Instant::from_nanos(deadline.at.as_nanos() - 1);
    assert_eq!(bench.connect(INITIATOR, 1, HOLDER), None);
    assert!(bench.did(&Action::OpenStream { conn: HOLDER, stream: stop(1) }));

    // Not a nanosecond longer, though nothing has woken us for it.
    let peer = bench.peer(HOLDER);
    bench.open(INITIATOR, 2).expect("a new stream");
    bench.now = bench.now + NANO;
    bench.send(2, &HopMessage::Connect { peer }).expect("a request");
    assert_eq!(bench.status(2), Some(RelayStatus::NoReservation));
    assert!(bench.heard().contains(&RelayNotice::ReservationEnded { peer }));
    bench.target_says(1, RelayStatus::Ok).expect("an answer");
    assert_eq!(bench.status(1), Some(RelayStatus::Ok), "what was begun in time");
    assert!(!bench.server.reservations.has(peer));
}

#[test]
fn a_renewal_takes_the_place_of_the_old_one() {
    let mut bench = Bench::reserved(|limits| {
        limits.reservations_max = 1;
        limits.reservations_per_ip_max = 1;
        limits.reservations_per_prefix_max = 1;
    });
    assert_eq!(bench.reserve(INITIATOR, 1), Some(RelayStatus::ReservationRefused), "full");
    bench.pass(secs(1_800));
    bench.unix += 1_800_000;
    assert_eq!(bench.reserve(HOLDER, 2), Some(RelayStatus::Ok));
    assert_eq!(bench.granted(2).expire, UNIX / 1_000 + 5_400);
    let peer = bench.peer(HOLDER);
    assert_eq!(bench.heard(), [RelayNotice::Granted { peer, renewed: true }]);
    assert_eq!(bench.server.in_use().reservations, 1);
    assert_eq!(bench.server.deadline().map(|due| due.at), Some(bench.now + secs(3_600)));

    // From where others have used up all there is, it is refused, and the old one stands.
    let mut bench = Bench::reserved(|limits| limits.reservations_per_ip_max = 1);
    assert_eq!(bench.reserve(INITIATOR, 1), Some(RelayStatus::Ok));
    let before = bench.server.deadline();
    bench.now = bench.now + secs(60);
    bench.caller(HOLDER).remote = tcp("44.2.2.2");
    assert_eq!(bench.reserve(HOLDER, 2), Some(RelayStatus::ReservationRefused));
    assert_eq!((bench.server.deadline(), bench.server.in_use().reservations), (before, 2));
}

#[test]
fn a_circuit_is_opened_over_the_best_connection_and_bridged() {
    let mut bench = Bench::reserved(|_| ());
    let near = Caller { rtt: Some(Duration::from_millis(5)), ..*bench.caller(HOLDER) };
    bench.world.callers.insert(OTHER, near);
    let (initiator, target) = (bench.peer(INITIATOR), bench.peer(HOLDER));
    let limit = RelayServerConfig::default().limit;
    assert_eq!(bench.connect(INITIATOR, 1, HOLDER), None);
    let wanted = StopMessage::Connect { peer: initiator, limit }.encode();
    assert_eq!(
        bench.actions,
        [
            Action::OpenStream { conn: OTHER, stream: stop(1) },
            Action::Send { stream: stop(1), body: wanted },
        ]
    );
    assert!(bench.server.keeps(&bench.world, INITIATOR));
    bench.step(|server, cx, world| server.opened(cx, world, OTHER, stop(1))).expect("ours");

    bench.target_says(1, RelayStatus::Ok).expect("an answer");
    let ok = HopMessage::Status { status: RelayStatus::Ok, reservation: None, limit };
    let bridge = RelayAction::Bridge { stream: hop(1), target: stop(1), bytes_max: limit.bytes };
    assert_eq!(
        bench.actions,
        [
            Action::Send { stream: hop(1), body: ok.encode() },
            Action::Relay(bridge),
            Action::Notify(Notice::Relay(RelayNotice::BridgeOpened { initiator, target })),
        ]
    );
    assert!(bench.server.keeps(&bench.world, INITIATOR) && bench.server.keeps(&bench.world, OTHER));
    let odd = bench.send(1, &HopMessage::Reserve);
    assert_eq!(odd, Err(Oddity::UnknownStream), "its streams are not core's any more");
    assert_eq!(bench.target_says(1, RelayStatus::Ok), Err(Oddity::UnknownStream));

    bench.bridge_ended(1, BridgeEnd::BytesUsedUp).expect("a bridge");
    let (end, overtime, forth, back) = (BridgeEnd::BytesUsedUp, false, 7, 9);
    let ended = RelayNotice::BridgeEnded { initiator, target, end, overtime, forth, back };
    assert_eq!(bench.heard(), [ended]);
    assert_eq!(bench.bridge_ended(1, BridgeEnd::Finished), Err(Oddity::UnknownStream));
    assert!(bench.is_over() && !bench.server.keeps(&bench.world, INITIATOR));
}

#[test]
fn who_gets_no_circuit_hears_why() {
    type Case = (fn(&mut RelayServerConfig), fn(&mut Bench), RelayStatus);
    let also = |bench: &mut Bench| {
        bench.join(OTHER, "44.3.3.3");
        assert_eq!(bench.reserve(OTHER, 101), Some(RelayStatus::Ok));
        assert_eq!(bench.connect(INITIATOR, 102, OTHER), None, "opened, and counted as it is");
    };
    let prepare: fn(&mut Bench) = also;
    let cases: [Case; 6] = [
        (|_| (), |bench| bench.caller(INITIATOR).relayed = true, RelayStatus::PermissionDenied),
        (|_| (), |bench| bench.leave(HOLDER), RelayStatus::NoReservation),
        (|limits| limits.circuits_max = 1, prepare, RelayStatus::ResourceLimitExceeded),
        (|limits| limits.circuits_per_peer_max = 1, prepare, RelayStatus::ResourceLimitExceeded),
        (|limits| limits.circuits_per_prefix_max = 1, prepare, RelayStatus::ResourceLimitExceeded),
        (
            |limits| limits.circuits_per_peer_max = 1,
            |bench| {
                bench.join(OTHER, "44.3.3.3");
                assert_eq!(bench.connect(OTHER, 102, HOLDER), None, "the target's, this time");
            },
            RelayStatus::ResourceLimitExceeded,
        ),
    ];
    for (number, (change, prepare, status)) in cases.into_iter().enumerate() {
        let mut bench = Bench::reserved(change);
        let holder = bench.peer(HOLDER);
        prepare(&mut bench);
        assert_eq!(bench.connect_to(INITIATOR, 1, holder), Some(status), "{number}");
        let peer = bench.peer(INITIATOR);
        assert_eq!(bench.heard(), [RelayNotice::Refused { peer, target: Some(holder), status }]);
        assert!(bench.did(&Action::CloseStream { stream: hop(1) }));
    }
    let mut bench = Bench::reserved(|_| ());
    let denied = bench.connect(HOLDER, 1, HOLDER);
    assert_eq!(denied, Some(RelayStatus::PermissionDenied), "nobody is relayed to himself");
    let (relay, stranger) = (bench.relay(), PeerId::random());
    for (number, target) in [(2, relay), (3, stranger)] {
        let refused = bench.connect_to(INITIATOR, number, target);
        assert_eq!(refused, Some(RelayStatus::NoReservation));
    }
}

#[test]
fn a_target_that_is_not_to_be_had_is_a_connection_that_failed() {
    type Case = (fn(&mut Bench) -> Result<(), Oddity>, Result<(), Oddity>, bool);
    let denied = |bench: &mut Bench| bench.target_says(1, RelayStatus::PermissionDenied);
    let malformed = |bench: &mut Bench| bench.send_raw(stop(1), &Bytes::from_static(b"\xff"));
    let unexpected = |bench: &mut Bench| {
        let limit = CircuitLimit::default();
        let connect = StopMessage::Connect { peer: PeerId::random(), limit };
        bench.send_raw(stop(1), &connect.encode())
    };
    let finished = |bench: &mut Bench| {
        bench.close(stop(1), StreamEnd::Finished);
        Ok(())
    };
    let broken = |bench: &mut Bench| {
        bench.close(stop(1), StreamEnd::Reset);
        Ok(())
    };
    let gone = |bench: &mut Bench| {
        bench.leave(HOLDER);
        Ok(())
    };
    let cases: [Case; 8] = [
        (denied, Ok(()), true),
        (malformed, Err(Oddity::MalformedFrame), true),
        (unexpected, Err(Oddity::UnexpectedFrame), true),
        (finished, Ok(()), true),
        (broken, Ok(()), false),
        (
            |bench| {
                let reason = StreamFailure::Unsupported;
                bench.step(|server, cx, _| server.failed(cx, stop(1), reason));
                Ok(())
            },
            Ok(()),
            false,
        ),
        (
            |bench| {
                assert_eq!(bench.sleep_until_due(), Wake::RelayExchangeOverdue);
                assert_eq!(bench.now, Instant::from_millis(16_000), "15 s");
                Ok(())
            },
            Ok(()),
            true,
        ),
        (gone, Ok(()), false),
    ];
    for (number, (fact, taken, is_reset)) in cases.into_iter().enumerate() {
        let mut bench = Bench::reserved(|_| ());
        let (peer, target) = (bench.peer(INITIATOR), Some(bench.peer(HOLDER)));
        assert_eq!(bench.connect(INITIATOR, 1, HOLDER), None);
        assert_eq!(fact(&mut bench), taken, "{number}");
        let status = RelayStatus::ConnectionFailed;
        assert_eq!(bench.status(1), Some(status), "{number}");
        assert!(bench.did(&Action::CloseStream { stream: hop(1) }));
        assert!(bench.heard().contains(&RelayNotice::Refused { peer, target, status }));
        assert_eq!(bench.did(&reset(stop(1))), is_reset, "{number}");
        bench.close(hop(1), StreamEnd::Finished);
        assert!(bench.is_over());
    }
}

#[test]
fn an_initiator_that_goes_takes_the_circuit_along() {
    let facts: [fn(&mut Bench); 3] = [
        |bench| bench.close(hop(1), StreamEnd::Finished),
        |bench| bench.close(hop(1), StreamEnd::Reset),
        |bench| bench.leave(INITIATOR),
    ];
    for (number, fact) in facts.into_iter().enumerate() {
        let mut bench = Bench::reserved(|_| ());
        assert_eq!(bench.connect(INITIATOR, 1, HOLDER), None);
        fact(&mut bench);
        assert!(bench.did(&reset(stop(1))));
        assert_eq!(bench.did(&reset(hop(1))), number == 0, "what it left half open");
        assert_eq!((bench.status(1), bench.heard()), (None, vec![]));
        assert!(bench.is_over());
        let late = bench.step(|server, cx, world| server.opened(cx, world, HOLDER, stop(1)));
        assert_eq!(late, Ok(()), "its stream may have been on the way");
        let late = bench.step(|server, cx, world| server.opened(cx, world, HOLDER, stop(2)));
        assert_eq!(late, Err(Oddity::UnknownStream));
    }
}

#[test]
fn what_makes_no_sense_is_answered_and_nothing_may_follow() {
    let limit = CircuitLimit::default();
    let status = HopMessage::Status { status: RelayStatus::Ok, reservation: None, limit }.encode();
    let no_peer = Bytes::from_static(b"\x08\x01");
    for (body, oddity, answer) in [
        (Bytes::from_static(b"\xff"), Oddity::MalformedFrame, RelayStatus::MalformedMessage),
        (Bytes::new(), Oddity::MalformedFrame, RelayStatus::MalformedMessage),
        (no_peer, Oddity::MalformedFrame, RelayStatus::MalformedMessage),
        (status, Oddity::UnexpectedFrame, RelayStatus::UnexpectedMessage),
    ] {
        let mut bench = Bench::new(|_| ());
        bench.open(INITIATOR, 1).expect("a new stream");
        assert_eq!(bench.open(INITIATOR, 1), Err(Oddity::ReusedId));
        assert_eq!(bench.send_raw(hop(1), &body), Err(oddity));
        assert_eq!(bench.status(1), Some(answer));
        assert!(bench.did(&Action::CloseStream { stream: hop(1) }));
        assert_eq!(bench.send(1, &HopMessage::Reserve), Err(Oddity::UnexpectedFrame));
        assert_eq!(bench.actions, [reset(hop(1))]);
        assert_eq!(bench.send(1, &HopMessage::Reserve), Err(Oddity::UnknownStream));
    }
    // Bytes of a circuit that does not stand yet.
    let mut bench = Bench::reserved(|_| ());
    assert_eq!(bench.connect(INITIATOR, 1, HOLDER), None);
    assert_eq!(bench.open(INITIATOR, 1), Err(Oddity::ReusedId));
    assert_eq!(bench.send(1, &HopMessage::Reserve), Err(Oddity::UnexpectedFrame));
    assert_eq!(bench.status(1), Some(RelayStatus::UnexpectedMessage));
    assert!(bench.did(&reset(stop(1))));
    assert_eq!(bench.open(ConnId(99), 2), Err(Oddity::UnknownConnection));
    assert_eq!(bench.actions, [reset(hop(2))]);
}

#[test]
fn silence_is_bounded_in_time_and_number() {
    let mut bench = Bench::new(|_| ());
    for number in 0..32 {
        bench.open(INITIATOR, number).expect("a new stream");
    }
    assert!(bench.server.keeps(&bench.world, INITIATOR));
    assert_eq!(bench.open(INITIATOR, 32), Err(Oddity::Full));
    assert_eq!(bench.actions, [reset(hop(32))]);
    bench.open(HOLDER, 33).expect("another peer's");
    bench.close(hop(33), StreamEnd::Finished);
    assert_eq!(bench.actions, [reset(hop(33))], "it finished without a word");
    assert_eq!(bench.sleep_until_due(), Wake::RelayExchangeOverdue);
    assert_eq!(bench.now, Instant::from_millis(11_000));
    assert_eq!(bench.actions.len(), 32);

    // An answer that is not taken is not waited for either.
    bench.open(INITIATOR, 40).expect("a new stream");
    bench.send(40, &HopMessage::Reserve).expect("a request");
    assert_eq!(bench.sleep_until_due(), Wake::RelayExchangeOverdue);
    assert_eq!(bench.now, Instant::from_millis(16_000));
    assert_eq!(bench.actions, [reset(hop(40))]);
}

#[test]
fn time_is_over_to_the_nanosecond() {
    let limit = CircuitLimit { duration: Some(secs(30)), bytes: None };
    let mut bench = Bench::bridged(|limits| limits.limit = limit);
    let over_at = bench.now + secs(30);
    bench.now = Instant::from_nanos(over_at.as_nanos() - 1);
    bench.step(|_, _, _| ());
    assert_eq!(bench.actions, []);
    assert_eq!(bench.sleep_until_due(), Wake::CircuitOvertime);
    assert_eq!(bench.now, over_at);
    assert_eq!(bench.actions, [Action::Relay(RelayAction::Cut { stream: hop(1) })]);
    bench.bridge_ended(1, BridgeEnd::Cut).expect("a bridge");
    assert!(matches!(bench.heard()[..], [RelayNotice::BridgeEnded { overtime: true, .. }]));

    // It ended by itself just then.
    let mut bench = Bench::bridged(|limits| limits.limit = limit);
    bench.sleep_until_due();
    bench.bridge_ended(1, BridgeEnd::Finished).expect("a bridge");
    assert!(matches!(bench.heard()[..], [RelayNotice::BridgeEnded { overtime: false, .. }]));

    let mut bench = Bench::bridged(|limits| limits.limit = CircuitLimit::default());
    assert_eq!(bench.server.deadline().map(|due| due.wake), Some(Wake::ReservationExpires));
    bench.now = bench.now + secs(86_400);
    bench.step(|_, _, _| ());
    assert_eq!(bench.server.in_use().circuits, 1, "without a limit it lasts");
}

#[test]
fn a_bridge_whose_end_nobody_reports_frees_its_place() {
    for (fact, end) in
        [(HOLDER, BridgeEnd::Reset), (INITIATOR, BridgeEnd::Reset), (ConnId(99), BridgeEnd::Cut)]
    {
        let mut bench = Bench::bridged(|_| ());
        if fact == ConnId(99) {
            assert_eq!(bench.sleep_until_due(), Wake::CircuitOvertime);
        } else {
            bench.leave(fact);
        }
        assert_eq!(bench.server.in_use().circuits, 1);
        let left = bench.now;
        assert_eq!(bench.sleep_until_due(), Wake::RelayExchangeOverdue);
        assert_eq!(bench.now, left + secs(10));
        let is_told = |notice: &RelayNotice| matches!(notice, RelayNotice::BridgeEnded { end: told, .. } if *told == end);
        assert!(bench.heard().iter().any(is_told), "{:?}", bench.heard());
        assert!(bench.is_over());
    }
}

#[test]
fn a_service_that_is_wound_down_serves_what_it_promised() {
    let mut bench = Bench::reserved(|_| ());
    assert_eq!(bench.server.offer(&bench.world), Some(7));
    bench.drain();
    assert_eq!(bench.server.offer(&bench.world), None);
    assert_eq!(bench.reserve(INITIATOR, 1), Some(RelayStatus::ReservationRefused));
    assert_eq!(bench.reserve(HOLDER, 2), Some(RelayStatus::ReservationRefused), "not renewed");
    assert_eq!(bench.connect(INITIATOR, 3, HOLDER), None);
    bench.target_says(1, RelayStatus::Ok).expect("an answer");
    assert_eq!(bench.status(3), Some(RelayStatus::Ok));
    bench.pass(secs(3_600));
    assert_eq!(bench.server.in_use().reservations, 0, "to its end");
    assert_eq!(bench.connect(INITIATOR, 4, HOLDER), Some(RelayStatus::NoReservation));

    // What we may not serve is not offered until we may.
    let mut bench = Bench::new(|limits| limits.only_while_may_serve = true);
    assert_eq!(bench.server.offer(&bench.world), None);
    bench.world.may_serve = true;
    assert_eq!(bench.server.offer(&bench.world), Some(0));
}

#[test]
fn the_load_is_that_of_the_fuller() {
    let mut bench = Bench::bridged(|limits| {
        limits.reservations_max = 4;
        limits.circuits_max = 3;
    });
    let load = RelayLoad { reservations: 1, circuits: 1, thousandths: 333 };
    assert_eq!(bench.server.in_use(), load);
    bench.bridge_ended(1, BridgeEnd::Finished).expect("a bridge");
    assert_eq!(bench.server.in_use().thousandths, 250);
    assert_eq!((thousandths(9, 3), thousandths(0, 0)), (1_000, 1_000));
}

#[test]
fn a_sleep_gives_exchanges_their_time_and_lets_the_rest_age() {
    let mut bench = Bench::bridged(|_| ());
    assert_eq!(bench.connect(INITIATOR, 2, HOLDER), None);
    bench.open(INITIATOR, 3).expect("a new stream");
    let (slept, last) = (secs(100), bench.now);
    bench.now = bench.now + slept;
    let sleep = Sleep::new(slept, last, bench.now);
    bench.step(|server, _, _| server.resumed(sleep));
    assert_eq!(bench.actions, []);
    assert_eq!(bench.server.deadline().map(|due| due.at), Some(bench.now + secs(10)));
    bench.pass(secs(15));
    assert_eq!(bench.status(2), Some(RelayStatus::ConnectionFailed));
    bench.pass(secs(5));
    assert!(bench.did(&Action::Relay(RelayAction::Cut { stream: hop(1) })), "after 120 s");
}

fn saved(server: &RelayServer) -> Vec<u8> {
    let mut out = Saver::new(&|nonce| nonce);
    server.save(&mut out);
    out.into_bytes()
}

fn full_of_everything() -> Bench {
    let mut bench = Bench::bridged(|_| ());
    assert_eq!(bench.connect(INITIATOR, 2, HOLDER), None);
    bench.open(INITIATOR, 3).expect("a new stream");
    assert_eq!(bench.reserve_and_stay(INITIATOR), Some(RelayStatus::Ok));
    bench.reserve(HOLDER, 4);
    bench
}

#[test]
fn a_relay_comes_back_as_it_was() {
    let bench = full_of_everything();
    let config = Config { relay_server: Some(bench.server.limits.clone()), ..Config::default() };
    let bytes = saved(&bench.server);
    let mut from = Loader::new(&bytes, &config, &bench.server.identity);
    assert_eq!(RelayServer::load(&mut from).as_ref(), Ok(&bench.server));
    let mut odd = bench.server.clone();
    let none = Config::default();
    let mut from = Loader::new(&bytes, &none, &bench.server.identity);
    assert_eq!(RelayServer::load(&mut from), Err(BadCheckpoint), "no service, no state of it");
    odd.is_draining = true;
    assert_ne!(saved(&odd), bytes);
}

#[test]
fn what_will_do_the_same_is_the_same() {
    let one = full_of_everything();
    let key = |bench: &Bench| bench.server.canonical(bench.now);
    let mut other = Bench::new(|_| ());
    for conn in [HOLDER, INITIATOR] {
        other.caller(conn).peer = one.peer(conn);
    }
    // The same an hour later, under other numbers.
    other.pass(secs(3_600));
    assert_eq!(other.reserve(HOLDER, 500), Some(RelayStatus::Ok));
    assert_eq!(other.connect(INITIATOR, 501, HOLDER), None);
    other.target_says(1, RelayStatus::Ok).expect("an answer");
    assert_eq!(other.connect(INITIATOR, 502, HOLDER), None);
    other.open(INITIATOR, 503).expect("a new stream");
    assert_eq!(other.reserve_and_stay(INITIATOR), Some(RelayStatus::Ok));
    assert_ne!(key(&one), key(&other), "the holder has not renewed yet");
    other.reserve(HOLDER, 504);
    assert_eq!(key(&one), key(&other));
    other.drain();
    assert_ne!(key(&one), key(&other));
}
