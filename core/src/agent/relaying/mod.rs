//! An agent among relays that are played.

mod bench;

use crate::relay::plan::{ASKS_MIN, ASKS_NEW_MIN};
use crate::wire::relay::StopMessage;
use crate::words::checkpoint::reloaded;
use crate::{
    Addr, CircuitFailure, CircuitId, CircuitLimit, ConnId, DialFailure, Duration, Event, Instant,
    NodeState, Notice, PeerId, RelayAction, RelayEvent, RelayFailure, RelayNeed, RelayNotice,
    RelayState, RelayStatus, Side,
};
use alloc::vec;
use alloc::vec::Vec;
use bench::{Answer, Bench, Change, Signed, busiest_minute, ip, players};
use bytes::Bytes;

const CIRCUIT: CircuitId = CircuitId(1);

/// Relays at these distances, all of them configured.
fn bench(rtts: &[u64]) -> Bench {
    Bench::new(1, players(rtts), rtts.len(), |_, _| {})
}

/// The same with one reservation.
fn single(rtts: &[u64]) -> Bench {
    Bench::new(1, players(rtts), rtts.len(), |_, asked| asked.reservations = 1)
}

fn is_sound(bench: &Bench) {
    assert_eq!(reloaded(&bench.agent.relay).as_ref(), Ok(&bench.agent.relay));
    assert!(bench.gaps.is_empty(), "without a way in at {:?}", bench.gaps);
}

fn failure(bench: &Bench, number: usize) -> Option<RelayFailure> {
    bench.relay(number).failure
}

/// How long a relay rests, seconds.
fn rests(bench: &Bench, number: usize) -> u64 {
    bench.relay(number).until.map_or(0, |until| until.since(bench.now).as_secs())
}

#[test]
fn the_nearest_are_chosen_within_a_second_and_a_spare_is_kept() {
    let mut bench = bench(&[300, 100, 10, 400, 108]);
    bench.seconds(1);
    let told = bench.told();
    assert!(told == [1, 2] || told == [2, 4], "{told:?}");
    let spare = if told == [1, 2] { 4 } else { 1 };
    let conn = bench.players[spare].conn.expect("it was measured");
    assert!(bench.agent.keeps(conn) && bench.state(spare) == RelayState::Spare);
    for number in told {
        let relay = bench.relay(number);
        assert_eq!(relay.state, RelayState::Reserved);
        assert_eq!(relay.limit.bytes, Some(1 << 17));
        assert_eq!(relay.addrs, [bench.players[number].addr]);
    }
    let far = bench.players[3].conn.expect("it was dialled");
    bench.seconds(3);
    assert!(!bench.agent.keeps(far));
    is_sound(&bench);
}

#[test]
fn others_are_not_waited_for_longer_than_it_takes() {
    let mut bench = bench(&[10, 2_000, 2_000]);
    bench.players[1].up = false;
    bench.run(Duration::from_millis(200));
    assert_eq!(bench.told(), [0], "five round trips, two for the others, and one for the answer");
}

#[test]
fn of_two_alike_the_emptier_one_is_asked() {
    for seed in 0..20 {
        let mut players = players(&[20, 20]);
        players[0].load = Some(900);
        players[1].load = Some(100);
        let mut bench = Bench::new(seed, players, 2, |_, asked| asked.reservations = 1);
        // The bench tells the load when it is connected by hand.
        bench.connect(0, Side::Inbound);
        bench.connect(1, Side::Inbound);
        bench.seconds(1);
        assert_eq!(bench.told(), [1], "seed {seed}");
    }
}

#[test]
fn the_second_reservation_is_in_another_network() {
    let mut players = players(&[10, 10, 200]);
    players[1].addr = Addr::tcp(ip(1, 2), 4001);
    let mut bench = Bench::new(1, players, 3, |_, _| {});
    bench.seconds(3);
    assert!(bench.told().contains(&2), "{:?}", bench.told());
}

#[test]
fn an_incumbent_yields_to_a_much_nearer_one_that_comes_first() {
    let mut bench = Bench::new(1, players(&[90, 61, 40]), 1, |_, asked| asked.reservations = 1);
    bench.seconds(2);
    assert_eq!(bench.told(), [0]);
    bench.connect(1, Side::Inbound);
    bench.seconds(60);
    assert_eq!(bench.told(), [0], "less than a third");
    assert_eq!(bench.state(1), RelayState::Spare);
    bench.connect(2, Side::Inbound);
    bench.seconds(1);
    // It came to us, so that its address is not known but by its own word.
    assert_eq!(bench.told(), [2]);
    let last = bench.changes().pop().expect("news");
    assert_eq!((last.1, last.2), (vec![2], vec![0]), "both in one step");
    is_sound(&bench);
}

#[test]
fn reservations_are_renewed_for_a_day_without_a_gap() {
    let mut bench = bench(&[10, 20]);
    bench.seconds(6 * 3_600);
    assert_eq!(bench.told(), [0, 1]);
    assert_eq!(bench.changes().len(), 2, "told once each");
    for player in &bench.players {
        let asks = player.asks.len();
        assert!((8..=13).contains(&asks), "{asks} in six hours");
    }
    is_sound(&bench);
}

#[test]
fn a_renewal_is_tried_until_the_reservation_ends() {
    let mut bench = single(&[10]);
    bench.seconds(1);
    bench.players[0].answer = Answer::Silent;
    let until = bench.relay(0).until.expect("it ends");
    let asked = bench.players[0].asks.len();
    bench.run(until.since(bench.now) - Duration::from_secs(30));
    let tries = bench.players[0].asks.len() - asked;
    assert!((5..30).contains(&tries), "{tries} tries");
    assert_eq!(bench.told(), [0], "until it ends");
    bench.players[0].answer = Answer::Grants;
    bench.seconds(60);
    assert_eq!(bench.told(), [0]);
    assert!(bench.relay(0).until > Some(until));
    is_sound(&bench);

    bench.players[0].answer = Answer::Silent;
    let until = bench.relay(0).until.expect("it ends");
    bench.run(until.since(bench.now) + Duration::from_secs(1));
    assert_eq!(bench.gaps.first(), Some(&until));
    assert!(busiest_minute(&bench.players[0].asks) <= ASKS_MIN);
}

#[test]
fn a_refused_renewal_is_made_good_before_the_reservation_ends() {
    let mut bench = single(&[10, 25]);
    bench.seconds(1);
    assert_eq!(bench.told(), [0]);
    bench.players[0].answer = Answer::Says(RelayStatus::ReservationRefused);
    bench.seconds(3_000);
    let changes = bench.changes();
    assert_eq!(changes[1].1, [1], "another is told");
    assert_eq!(changes[1].2, [], "and the old one is kept");
    bench.seconds(1_000);
    assert_eq!(bench.told(), [1]);
    is_sound(&bench);
}

#[test]
fn every_refusal_has_its_own_rest() {
    let says = |status| Answer::Says(status);
    for (answer, expected, least, most) in [
        (says(RelayStatus::ReservationRefused), RelayFailure::Full, 58, 75),
        (says(RelayStatus::ResourceLimitExceeded), RelayFailure::Full, 58, 75),
        (says(RelayStatus::PermissionDenied), RelayFailure::Denied, 118, 150),
        (says(RelayStatus::Unknown(7)), RelayFailure::BadAnswer, 298, 375),
        (says(RelayStatus::Ok), RelayFailure::BadAnswer, 298, 375),
        (Answer::Babbles, RelayFailure::BadAnswer, 298, 375),
        (Answer::Unsupported, RelayFailure::Unsupported, 58, 75),
        (Answer::Silent, RelayFailure::TimedOut, 8, 13),
    ] {
        let mut bench = single(&[10]);
        bench.players[0].answer = answer;
        bench.seconds(if answer == Answer::Silent { 4 } else { 1 });
        assert_eq!(bench.state(0), RelayState::Resting, "{answer:?}");
        assert_eq!(failure(&bench, 0), Some(expected));
        let rests = rests(&bench, 0);
        assert!((least..=most).contains(&rests), "{answer:?}: {rests} s");
        bench.players[0].answer = Answer::Grants;
        bench.seconds(most + 5);
        assert_eq!(bench.told(), [0], "asked again after {answer:?}");
        is_sound(&bench);
    }
}

#[test]
fn who_denied_rests_for_long_while_another_serves_and_no_longer() {
    let mut bench = bench(&[10, 25]);
    bench.players[0].answer = Answer::Says(RelayStatus::PermissionDenied);
    bench.seconds(200);
    assert_eq!(bench.told(), [1]);
    let asked = bench.players[0].asks.len();
    let long = rests(&bench, 0);
    assert!((3_300..=4_500).contains(&long), "{long} s");
    bench.players[0].answer = Answer::Grants;
    bench.seconds(1_000);
    assert_eq!(bench.players[0].asks.len(), asked, "it is left alone");
    bench.players[1].up = false;
    bench.disconnect(1);
    bench.seconds(2);
    assert_eq!(bench.told(), [0], "there is nobody else");
}

#[test]
fn who_cannot_be_dialled_is_dialled_less_and_less() {
    let mut players = players(&[10]);
    players[0].up = false;
    let mut bench = Bench::new(1, players, 1, |_, asked| asked.reservations = 1);
    bench.run(Duration::from_millis(100));
    let unreachable = RelayFailure::Unreachable(DialFailure::Refused);
    assert_eq!(failure(&bench, 0), Some(unreachable));
    bench.seconds(3_600);
    let dials = bench.players[0].dials.len();
    assert!((60..85).contains(&dials), "{dials} in an hour");
    bench.players[0].up = true;
    bench.seconds(80);
    assert_eq!(bench.told(), [0]);
}

#[test]
fn after_minutes_without_an_uplink_relays_are_back_within_seconds() {
    for away in [20, 60, 150] {
        let mut bench = bench(&[10, 25, 40]);
        bench.seconds(61);
        for player in &mut bench.players {
            (player.dead, player.up) = (true, false);
        }
        bench.seconds(away);
        assert_eq!(bench.told(), []);
        bench.players.iter_mut().for_each(|player| player.up = true);
        bench.seconds(13);
        assert_eq!(bench.told().len(), 2, "after {away} s without an uplink");
    }
}

#[test]
fn a_lost_connection_is_made_good_at_once() {
    let mut bench = bench(&[10, 25, 40]);
    bench.seconds(2);
    assert_eq!(bench.told(), [0, 1]);
    bench.players[0].up = false;
    bench.disconnect(0);
    assert_eq!(bench.told(), [1], "withdrawn at once, and the other serves");
    bench.run(Duration::from_millis(100));
    assert_eq!(bench.told(), [1, 2]);
    // Its restart is noticed, and its place is that of a spare.
    bench.players[0].up = true;
    bench.seconds(120);
    assert!(bench.told().len() == 2);
    is_sound(&bench);
}

#[test]
fn the_only_relay_is_dialled_again_at_once() {
    let mut bench = single(&[10]);
    bench.seconds(100);
    bench.disconnect(0);
    assert_eq!(bench.told(), []);
    bench.seconds(1);
    assert_eq!(bench.told(), [0]);
    assert_eq!(bench.players[0].dials.len(), 2);
}

#[test]
fn a_relay_that_dies_without_a_word_is_found_out() {
    let mut bench = bench(&[10, 25, 40]);
    bench.seconds(61);
    assert_eq!(bench.told(), [0, 1]);
    bench.players[0].dead = true;
    bench.players[0].up = false;
    bench.seconds(14);
    assert_eq!(bench.told(), [1, 2]);
    let changes = bench.changes();
    let at = |wanted: fn(&Change) -> bool| changes.iter().find(|one| wanted(one)).expect("news").0;
    let (lost, replaced) = (at(|one| one.2 == [0]), at(|one| one.1 == [2]));
    assert!(replaced.since(lost) < Duration::from_secs(1));
    is_sound(&bench);
}

#[test]
fn a_relay_that_drains_is_replaced_first_and_told_until_the_end() {
    let mut bench = single(&[10, 25]);
    bench.seconds(1);
    bench.players[0].hop = false;
    bench.push(0);
    assert_eq!(bench.told(), [0]);
    bench.seconds(1);
    assert_eq!(bench.told(), [0, 1]);
    let asked = bench.players[0].asks.len();
    bench.seconds(3_590);
    assert_eq!(bench.told(), [0, 1]);
    bench.seconds(20);
    assert_eq!(bench.told(), [1]);
    assert_eq!(bench.players[0].asks.len(), asked, "it is not asked for renewals");
    assert_eq!(failure(&bench, 0), Some(RelayFailure::Unsupported));
    bench.players[0].hop = true;
    bench.push(0);
    bench.seconds(1);
    assert_eq!(bench.told(), [0], "it relays again, and is nearer");
    is_sound(&bench);
}

#[test]
fn a_relay_that_says_one_thing_and_does_another_is_not_asked_without_end() {
    let mut bench = single(&[10, 25]);
    bench.seconds(1);
    bench.players[0].answer = Answer::Unsupported;
    let asked = bench.players[0].asks.len();
    // It still lists hop. Its renewal fails, and the other one takes its place.
    bench.seconds(3_000);
    assert!(bench.told().contains(&1), "{:?}", bench.told());
    assert_eq!(bench.players[0].asks.len(), asked + 1, "once is enough");
    is_sound(&bench);
}

#[test]
fn strangers_cannot_keep_relays_out() {
    let mut players = players(&[10, 25]);
    players[1].hop = false;
    let mut bench = Bench::new(1, players, 1, |_, asked| asked.reservations = 1);
    bench.seconds(2);
    let limit = CircuitLimit::default();
    let body = StopMessage::Connect { peer: PeerId::random(), limit }.encode();
    let relay = bench.players[0].conn.expect("it is asked");
    let strangers: Vec<ConnId> = (0..5).map(|_| bench.connect(1, Side::Inbound)).collect();
    let taken: usize = strangers.iter().map(|one| bench.fall_silent(*one, 16)).sum();
    assert_eq!(taken, 16, "of all strangers together");
    bench.seconds(1);
    assert!(!bench.agent.keeps(strangers[4]), "nobody is kept for it");
    assert_eq!(bench.bring(relay, body), Some(RelayStatus::Ok));
    is_sound(&bench);
}

#[test]
fn wrong_clocks_do_no_harm() {
    for (ahead, most) in [(7_200, 14), (-7_200, 8), (3_590, 130), (-1_700_000_000, 8)] {
        let mut bench = single(&[10]);
        bench.ahead = ahead;
        bench.seconds(3_600);
        assert_eq!(bench.told(), [0], "{ahead} s");
        let asks = bench.players[0].asks.len();
        assert!((2..most).contains(&asks), "{asks} times in an hour, {ahead} s ahead");
        is_sound(&bench);
    }
}

#[test]
fn a_voucher_that_is_there_must_hold() {
    for signed in [Signed::ForSomebodyElse, Signed::BySomebodyElse, Signed::UntilAnotherTime] {
        let mut bench = single(&[10, 25]);
        bench.players[0].signed = signed;
        bench.seconds(2);
        assert_eq!(bench.told(), [1], "{signed:?}");
        assert_eq!(failure(&bench, 0), Some(RelayFailure::BadVoucher));
    }
    let mut bench = single(&[10]);
    bench.players[0].signed = Signed::Nothing;
    bench.seconds(1);
    assert_eq!(bench.told(), [0], "rust-libp2p gives none");
}

#[test]
fn the_wish_for_a_circuit_is_fulfilled_or_fails_for_a_reason() {
    let mut bench = single(&[10]);
    bench.seconds(1);
    let conn = bench.players[0].conn.expect("it is connected");
    let peer = PeerId::random();
    let want = |bench: &mut Bench, circuit, conn| {
        bench.actions.clear();
        bench.happen(Event::Relay(RelayEvent::CircuitWanted { circuit, conn, peer }));
    };
    let failed = |bench: &Bench| {
        let last = bench.relay_actions().pop();
        let Some(RelayAction::CircuitFailed { reason, .. }) = last else { return None };
        Some(reason)
    };
    want(&mut bench, CIRCUIT, conn);
    assert!(bench.agent.keeps(conn));
    bench.seconds(1);
    let upgrade = bench.relay_actions().pop().expect("an order");
    let RelayAction::Upgrade { stream, peer: to, circuit, limit } = upgrade else {
        panic!("{upgrade:?}");
    };
    assert_eq!((to, circuit, limit.bytes), (peer, Some(CIRCUIT), Some(1 << 17)));
    bench.happen(Event::Relay(RelayEvent::UpgradeFailed { stream }));

    bench.players[0].hop = false;
    bench.push(0);
    want(&mut bench, CIRCUIT, conn);
    bench.seconds(1);
    let upgrade = bench.relay_actions().pop();
    let Some(RelayAction::Upgrade { stream, .. }) = upgrade else {
        panic!("a relay that drains serves what it granted: {upgrade:?}");
    };
    bench.happen(Event::Relay(RelayEvent::UpgradeFailed { stream }));

    bench.players[0].answer = Answer::Says(RelayStatus::NoReservation);
    want(&mut bench, CIRCUIT, conn);
    bench.seconds(1);
    assert_eq!(failed(&bench), Some(CircuitFailure::Refused(RelayStatus::NoReservation)));
    bench.players[0].answer = Answer::Babbles;
    want(&mut bench, CIRCUIT, conn);
    bench.seconds(1);
    assert_eq!(failed(&bench), Some(CircuitFailure::BadAnswer));
    bench.players[0].answer = Answer::Unsupported;
    want(&mut bench, CIRCUIT, conn);
    bench.seconds(1);
    assert_eq!(failed(&bench), Some(CircuitFailure::Unsupported));
    bench.players[0].answer = Answer::Silent;
    want(&mut bench, CIRCUIT, conn);
    bench.seconds(16);
    assert_eq!(failed(&bench), Some(CircuitFailure::TimedOut));
    want(&mut bench, CIRCUIT, ConnId(99));
    assert_eq!(failed(&bench), Some(CircuitFailure::NoRelay));
    let relayed = bench.connect_relayed(0);
    want(&mut bench, CIRCUIT, relayed);
    assert_eq!(failed(&bench), Some(CircuitFailure::NoRelay));
    want(&mut bench, CIRCUIT, conn);
    bench.happen(Event::Relay(RelayEvent::CircuitForgotten { circuit: CIRCUIT }));
    bench.seconds(20);
    assert_eq!(failed(&bench), None);
    for number in 0..65 {
        want(&mut bench, CircuitId(number), conn);
    }
    assert_eq!(failed(&bench), Some(CircuitFailure::TooMany));
    bench.disconnect(0);
    assert_eq!(failed(&bench), Some(CircuitFailure::NoRelay));
}

#[test]
fn circuits_are_taken_from_relays_that_we_reserved_at() {
    let mut bench = Bench::new(1, players(&[10, 300]), 1, |_, asked| asked.use_connected = false);
    bench.seconds(1);
    let conn = bench.players[0].conn.expect("it is connected");
    let other = bench.connect(1, Side::Inbound);
    let relayed = bench.connect_relayed(0);
    let limit = CircuitLimit { duration: Some(Duration::from_secs(9)), bytes: None };
    let peer = PeerId::random();
    let body = StopMessage::Connect { peer, limit }.encode();
    assert_eq!(bench.bring(other, body.clone()), Some(RelayStatus::NoReservation));
    assert_eq!(bench.bring(relayed, body.clone()), Some(RelayStatus::PermissionDenied));
    let status = StopMessage::Status { status: RelayStatus::Ok }.encode();
    assert_eq!(bench.bring(conn, status), Some(RelayStatus::UnexpectedMessage));
    let junk = Bytes::from_static(b"\xff");
    assert_eq!(bench.bring(conn, junk), Some(RelayStatus::MalformedMessage));
    let peer = bench.agent.peer_id();
    let own = StopMessage::Connect { peer, limit }.encode();
    assert_eq!(bench.bring(conn, own), Some(RelayStatus::PermissionDenied));

    assert_eq!(bench.bring(conn, body.clone()), Some(RelayStatus::Ok));
    let upgrade = bench.relay_actions().pop().expect("an order");
    let RelayAction::Upgrade { circuit: None, limit: told, .. } = upgrade else {
        panic!("{upgrade:?}");
    };
    assert_eq!(told, limit);
    for _ in 1..16 {
        assert_eq!(bench.bring(conn, body.clone()), Some(RelayStatus::Ok));
    }
    assert_eq!(bench.bring(conn, body.clone()), Some(RelayStatus::ResourceLimitExceeded));
    bench.seconds(31);
    assert_eq!(bench.bring(conn, body), Some(RelayStatus::Ok), "once those are over");
    is_sound(&bench);
}

#[test]
fn there_is_no_storm() {
    let rtts: Vec<u64> = (0..60).map(|number| 5 + number).collect();
    let mut bench = bench(&rtts);
    for (number, player) in bench.players.iter_mut().enumerate() {
        player.up = number % 2 == 0;
        player.answer = Answer::Says(RelayStatus::ReservationRefused);
    }
    bench.seconds(600);
    let all = |of: fn(&bench::Player) -> &Vec<Instant>| {
        let all: Vec<Instant> = bench.players.iter().flat_map(of).copied().collect();
        busiest_minute(&all)
    };
    assert!(all(|player| &player.dials) <= 64);
    assert!(all(|player| &player.asks) <= ASKS_NEW_MIN);
    is_sound(&bench);
}

#[test]
fn a_relay_that_grants_and_hangs_up_is_dialled_less_and_less() {
    let mut bench = single(&[10]);
    for _ in 0..600 {
        bench.seconds(1);
        if bench.told() == [0] {
            bench.disconnect(0);
        }
    }
    assert!(bench.players[0].dials.len() < 25, "{}", bench.players[0].dials.len());
}

#[test]
fn help_is_sought_when_it_is_needed() {
    let needed_after = |change: fn(&mut crate::Config)| {
        let mut bench = Bench::new(1, players(&[10]), 1, |config, asked| {
            asked.need = RelayNeed::Auto;
            change(config);
        });
        let began = bench.now;
        bench.seconds(5);
        let said = |(at, action): &(Instant, crate::Action)| {
            let crate::Action::Notify(Notice::Relay(notice)) = action else { return None };
            let RelayNotice::NeedChanged { needed: true } = notice else { return None };
            Some(at.since(began).as_millis())
        };
        (bench.actions.iter().find_map(said), bench.told())
    };
    assert_eq!(needed_after(|_| {}), (Some(1_000), vec![0]), "undecided for a second");
    assert_eq!(needed_after(|config| config.force_node = Some(NodeState::Public)), (None, vec![]));
    let private = |config: &mut crate::Config| config.force_node = Some(NodeState::Private);
    assert_eq!(needed_after(private), (Some(0), vec![0]));
}

#[test]
fn after_a_long_sleep_what_died_meanwhile_is_replaced() {
    let mut bench = bench(&[10, 25, 40]);
    bench.seconds(61);
    for player in &mut bench.players {
        player.dead = true;
    }
    bench.now = bench.now + Duration::from_secs(600);
    bench.happen(Event::Resumed { slept: Duration::from_secs(600) });
    bench.seconds(8);
    assert_eq!(bench.told().len(), 2);
    assert!(bench.players.iter().any(|player| !player.dead));
}
