//! The server of AutoNAT v1 from outside: facts in, actions out.

use super::bench::{ASKER, Bench, DIALLED, HANG_UP, HOME, ip, tcp};
use super::*;
use crate::service::fake::sent_on;
use crate::wire::autonat::v1::{Message, Status};
use crate::wire::multiaddr;
use crate::{Addr, PeerId};
use alloc::vec;
use alloc::vec::Vec;

const STREAM: StreamId = StreamId::inbound(Protocol::AutonatV1, 1);
const RESET: Action = Action::ResetStream { stream: STREAM };

fn listed(peer: PeerId, addrs: &[Addr]) -> Bytes {
    let addrs = addrs.iter().copied().map(multiaddr::encode).collect();
    Message::dial(peer, addrs).0.encode()
}

fn open(bench: &mut Bench) {
    bench.step(|server, cx, world| server.opened(cx, world, ASKER, STREAM)).expect("a new stream");
}

fn send(bench: &mut Bench, body: &Bytes) -> Result<(), Oddity> {
    bench.step(|server, cx, world| server.frame(cx, world, STREAM, body))
}

fn ask(bench: &mut Bench, addrs: &[Addr]) {
    let peer = bench.asker().peer;
    open(bench);
    send(bench, &listed(peer, addrs)).expect("a request");
}

fn targets(bench: &Bench) -> Vec<Addr> {
    bench.dials().iter().map(|dial| dial.addr).collect()
}

/// The answer of the last step, and the address in it.
fn answer(bench: &Bench) -> Option<(Status, Option<Addr>)> {
    let body = bench.actions.iter().find_map(|action| sent_on(action, STREAM))?;
    assert!(bench.did(&Action::CloseStream { stream: STREAM }), "one answer a stream");
    let Ok(Message::DialResponse { status, addr }) = Message::decode(body) else {
        panic!("a response")
    };
    let addr = addr.map(|bytes| match multiaddr::decode(&bytes) {
        Ok(multiaddr::Decoded::Direct { addr, .. }) => addr,
        other => panic!("{other:?}"),
    });
    Some((status, addr))
}

fn quic(text: &str) -> Addr {
    Addr::quic(ip(text), 4001)
}

#[test]
fn only_the_observed_ip_is_dialled_with_the_ports_of_the_list() {
    let mut bench = Bench::new(|_| ());
    let elsewhere = [tcp("44.7.7.7"), tcp("10.0.0.7"), quic("2600::7"), tcp(HOME)];
    ask(&mut bench, &[&elsewhere[..], &[Addr::tcp(ip("44.8.8.8"), 9)]].concat());
    let at_home = [tcp(HOME), quic(HOME), Addr::tcp(ip(HOME), 9)];
    assert_eq!(targets(&bench), at_home, "each once, and nobody else");
}

#[test]
fn whoever_is_reached_first_is_the_answer() {
    let mut bench = Bench::new(|_| ());
    ask(&mut bench, &[tcp(HOME), quic(HOME)]);
    bench.connect(2).expect("our dial");
    assert_eq!(answer(&bench), Some((Status::Ok, Some(quic(HOME)))));
    assert!(bench.did(&HANG_UP), "nothing is said on it");
    assert_eq!(bench.served(), Some((Some(quic(HOME)), Served::Connected)));
    assert!(bench.server.is_dial_back(DIALLED), "until its end is reported");
    bench.disconnect(DIALLED);
    // The other dial runs to its end, and says nothing any more.
    bench.fail(1, DialFailure::TimedOut).expect("our dial");
    assert_eq!(answer(&bench), None);
    bench.close(STREAM, StreamEnd::Finished);
    assert_eq!(bench.server.deadline(), None, "nothing is left");
}

#[test]
fn a_late_connection_of_an_answered_request_is_closed() {
    let mut bench = Bench::new(|_| ());
    ask(&mut bench, &[tcp(HOME), quic(HOME)]);
    bench.connect(1).expect("our dial");
    bench.disconnect(DIALLED);
    bench.connect(2).expect("our dial");
    assert_eq!((answer(&bench), bench.did(&HANG_UP)), (None, true));
}

#[test]
fn only_when_every_dial_has_failed_that_is_the_answer() {
    let mut bench = Bench::new(|_| ());
    ask(&mut bench, &[tcp(HOME), quic(HOME)]);
    bench.fail(1, DialFailure::Refused).expect("our dial");
    assert_eq!(answer(&bench), None, "one is under way");
    bench.fail(2, DialFailure::TimedOut).expect("our dial");
    assert_eq!(answer(&bench), Some((Status::DialError, None)));
    assert_eq!(bench.served(), Some((Some(tcp(HOME)), Served::DialFailed)));
}

#[test]
fn somebody_else_at_the_address_is_not_the_requester() {
    let mut bench = Bench::new(|_| ());
    ask(&mut bench, &[tcp(HOME)]);
    bench.connect_to(1, PeerId::random()).expect("our dial");
    assert_eq!((answer(&bench), bench.did(&HANG_UP)), (Some((Status::DialError, None)), true));
}

#[test]
fn where_the_fault_may_be_ours_a_failure_says_nothing() {
    // A class from which we never heard, a fault of our own, a sleep.
    let mut bench = Bench::new(|_| ());
    bench.world.heard = false;
    ask(&mut bench, &[tcp(HOME)]);
    bench.fail(1, DialFailure::TimedOut).expect("our dial");
    assert_eq!(answer(&bench), Some((Status::DialRefused, None)));

    let mut bench = Bench::new(|_| ());
    ask(&mut bench, &[tcp(HOME), quic(HOME)]);
    bench.fail(1, DialFailure::LocalFault).expect("our dial");
    bench.fail(2, DialFailure::TimedOut).expect("our dial");
    assert_eq!(answer(&bench), Some((Status::DialRefused, None)));

    let mut bench = Bench::new(|_| ());
    ask(&mut bench, &[tcp(HOME)]);
    let sleep = Sleep::new(crate::Duration::from_secs(3_600), Instant::ZERO, bench.now);
    bench.step(|server, _, _| server.resumed(sleep));
    bench.fail(1, DialFailure::TimedOut).expect("our dial");
    assert_eq!(answer(&bench), Some((Status::InternalError, None)));

    // And so it is where we did not try everything.
    let mut bench = Bench::new(|limits| limits.dials_max = 1);
    ask(&mut bench, &[tcp(HOME), quic(HOME)]);
    assert_eq!(targets(&bench), [tcp(HOME)], "one slot");
    bench.fail(1, DialFailure::TimedOut).expect("our dial");
    assert_eq!(answer(&bench), Some((Status::DialRefused, None)));
}

#[test]
fn a_success_counts_wherever_nothing_was_heard() {
    let mut bench = Bench::new(|_| ());
    bench.world.heard = false;
    ask(&mut bench, &[tcp(HOME)]);
    bench.connect(1).expect("our dial");
    assert_eq!(answer(&bench), Some((Status::Ok, Some(tcp(HOME)))));
}

#[test]
fn over_a_circuit_nobody_is_dialled() {
    let mut bench = Bench::new(|_| ());
    bench.asker().relayed = true;
    ask(&mut bench, &[tcp(HOME)]);
    assert_eq!((targets(&bench), answer(&bench)), (vec![], Some((Status::DialRefused, None))));
    assert_eq!(bench.served(), Some((None, Served::Refused)));
}

#[test]
fn nobody_is_dialled_for_somebody_else() {
    let mut bench = Bench::new(|_| ());
    open(&mut bench);
    send(&mut bench, &listed(PeerId::random(), &[tcp(HOME)])).expect("a request");
    assert_eq!((targets(&bench), answer(&bench)), (vec![], Some((Status::BadRequest, None))));

    // Nor where the list names another peer, or a circuit.
    let mut bench = Bench::new(|_| ());
    let peer = bench.asker().peer;
    let other = multiaddr::to_multiaddr(tcp(HOME), Some(PeerId::random())).to_vec();
    open(&mut bench);
    let (message, _) = Message::dial(peer, vec![other.into(), Bytes::from_static(b"\xa2\x02")]);
    send(&mut bench, &message.encode()).expect("a request");
    assert_eq!((targets(&bench), answer(&bench)), (vec![], Some((Status::DialRefused, None))));
}

#[test]
fn nothing_private_and_nothing_of_ours_is_dialled() {
    for from in ["10.0.0.1", "127.0.0.1", "169.254.0.1", "fe80::1"] {
        let mut bench = Bench::new(|_| ());
        bench.asker().remote = Addr::tcp(ip(from), 50_000);
        ask(&mut bench, &[tcp(from), tcp(HOME)]);
        assert_eq!((targets(&bench), answer(&bench)), (vec![], Some((Status::DialRefused, None))));
    }
    let mut bench = Bench::new(|_| ());
    bench.asker().remote = Addr::tcp(ip("44.9.9.9"), 50_000);
    ask(&mut bench, &[tcp("44.9.9.9"), Addr::tcp(ip(HOME), 0)]);
    assert_eq!(targets(&bench), [], "our own socket, and no port");
}

#[test]
fn a_list_costs_at_most_four_dials_and_what_one_ip_may_see() {
    let many: Vec<Addr> = (1..=16).map(|port| Addr::tcp(ip(HOME), port)).collect();
    let mut bench = Bench::new(|_| ());
    ask(&mut bench, &many);
    assert_eq!(targets(&bench), many[..4]);

    let mut bench = Bench::new(|limits| limits.target_per_min = 1);
    ask(&mut bench, &many);
    assert_eq!(targets(&bench), many[..1]);

    let mut bench = Bench::new(|limits| limits.target_per_min = 1);
    bench.ask(&[tcp(HOME)]);
    ask(&mut bench, &many);
    assert_eq!((targets(&bench), answer(&bench)), (vec![], Some((Status::DialRefused, None))));
    assert_eq!(bench.served(), Some((None, Served::Rejected)), "v2 has used it up");
}

#[test]
fn requests_of_both_kinds_share_their_limits() {
    let mut bench = Bench::new(|limits| limits.peer_per_min = 1);
    bench.ask(&[tcp(HOME)]);
    ask(&mut bench, &[tcp(HOME)]);
    assert_eq!((targets(&bench), answer(&bench)), (vec![], Some((Status::DialRefused, None))));
}

#[test]
fn another_source_is_used_where_there_is_one() {
    let mut bench = Bench::new(|limits| limits.sources = vec![ip("44.9.9.10")]);
    ask(&mut bench, &[tcp(HOME)]);
    assert_eq!(bench.dials()[0].source, Some(ip("44.9.9.10")));
}

#[test]
fn what_is_no_request_is_reset() {
    let response = Message::DialResponse { status: Status::Ok, addr: None }.encode();
    for (body, oddity) in [
        (Bytes::from_static(b"\xff"), Oddity::MalformedFrame),
        (Bytes::new(), Oddity::MalformedFrame),
        (response, Oddity::UnexpectedFrame),
    ] {
        let mut bench = Bench::new(|_| ());
        open(&mut bench);
        assert_eq!(send(&mut bench, &body), Err(oddity));
        assert!(bench.did(&RESET));
    }
    let mut bench = Bench::new(|_| ());
    ask(&mut bench, &[tcp(HOME)]);
    let peer = bench.asker().peer;
    let again = listed(peer, &[tcp(HOME)]);
    assert_eq!(send(&mut bench, &again), Err(Oddity::UnexpectedFrame), "one request a stream");
    assert!(bench.did(&RESET));
}

#[test]
fn a_client_that_has_finished_sending_still_gets_its_answer() {
    let mut bench = Bench::new(|_| ());
    ask(&mut bench, &[tcp(HOME)]);
    bench.close(STREAM, StreamEnd::Finished);
    bench.connect(1).expect("our dial");
    assert_eq!(answer(&bench).map(|(status, _)| status), Some(Status::Ok));
    bench.disconnect(DIALLED);
    assert_eq!(bench.server.deadline(), None, "nothing is left");
}

#[test]
fn a_dial_that_nobody_reports_is_our_fault() {
    let mut bench = Bench::new(|_| ());
    ask(&mut bench, &[tcp(HOME), quic(HOME)]);
    assert_eq!(bench.sleep_until_due(), Wake::DialBackOverdue);
    assert_eq!(answer(&bench), Some((Status::InternalError, None)));
}

#[test]
fn going_away_frees_no_slot() {
    let mut bench = Bench::new(|limits| limits.dials_max = 2);
    ask(&mut bench, &[tcp(HOME), quic(HOME)]);
    bench.close(STREAM, StreamEnd::Reset);
    assert_eq!(bench.served(), Some((Some(tcp(HOME)), Served::Aborted)));
    assert!(!bench.server.has_slot());
    bench.fail(1, DialFailure::TimedOut).expect("our dial");
    assert!(bench.server.has_slot());
}
