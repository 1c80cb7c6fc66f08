//! The server from outside: facts in, actions out.

use super::bench::{ASKER, Bench, DIALLED, HANG_UP, HOME, RESET, back, ip, request, stream, tcp};
use super::*;
use crate::wire::autonat::{ResponseStatus, dial_data_chunk};
use crate::{Addr, Duration, PeerId};
use alloc::vec;
use alloc::vec::Vec;

#[test]
fn the_same_ip_is_dialled_at_once_and_the_nonce_delivered() {
    let mut bench = Bench::new(|_| ());
    bench.ask(&[tcp(HOME)]);
    let timeout = Duration::from_millis(2_500);
    let dial = Dial { dial: DialId(1), addr: tcp(HOME), source: None, timeout };
    assert_eq!(bench.actions, [Action::Dial(dial)]);

    bench.connect(1).expect("our dial");
    assert_eq!(
        bench.actions,
        [
            Action::OpenStream { conn: DIALLED, stream: back(1) },
            Action::Send { stream: back(1), body: DialBack { nonce: 7 }.encode() },
            Action::CloseStream { stream: back(1) },
        ]
    );
    assert!(bench.server.keeps(DIALLED) && bench.server.is_dial_back(DIALLED));

    let reply = DialBackResponse::OK.encode();
    bench.step(|server, cx, world| server.frame(cx, world, back(1), &reply)).expect("a reply");
    bench.answered(ResponseStatus::Ok, 0, DialStatus::Ok);
    assert!(bench.did(&HANG_UP));
    assert_eq!(bench.served(), Some((Some(tcp(HOME)), Served::Delivered)));

    bench.close(back(1), StreamEnd::Finished);
    assert!(bench.server.is_dial_back(DIALLED), "until its end is reported");
    bench.disconnect(DIALLED);
    assert!(!bench.server.is_dial_back(DIALLED) && !bench.server.keeps(DIALLED));
    bench.close(stream(1), StreamEnd::Finished);
    assert_eq!(bench.actions, []);
    assert_eq!(bench.server.deadline(), None, "nothing is left");
}

#[test]
fn how_the_dial_back_stream_ends_decides_what_is_said() {
    for (end, status) in [
        (StreamEnd::Finished, DialStatus::Ok),
        (StreamEnd::Reset, DialStatus::DialBackError),
        (StreamEnd::BadFrame, DialStatus::DialBackError),
    ] {
        let mut bench = Bench::new(|_| ());
        bench.ask(&[tcp(HOME)]);
        bench.connect(1).expect("our dial");
        bench.close(back(1), end);
        bench.answered(ResponseStatus::Ok, 0, status);
        assert!(bench.did(&HANG_UP));
    }
    let mut bench = Bench::new(|_| ());
    bench.ask(&[tcp(HOME)]);
    bench.connect(1).expect("our dial");
    bench.disconnect(DIALLED);
    bench.answered(ResponseStatus::Ok, 0, DialStatus::DialBackError);

    // A status that nobody defined, and bytes that are none.
    for (body, heard) in [(&[0x08, 0x05][..], Ok(())), (&[0xff], Err(Oddity::MalformedFrame))] {
        let mut bench = Bench::new(|_| ());
        bench.ask(&[tcp(HOME)]);
        bench.connect(1).expect("our dial");
        let body = Bytes::copy_from_slice(body);
        assert_eq!(bench.step(|server, cx, world| server.frame(cx, world, back(1), &body)), heard);
        bench.answered(ResponseStatus::Ok, 0, DialStatus::DialBackError);
    }
}

#[test]
fn a_failed_dial_says_something_only_where_we_have_heard() {
    for reason in [DialFailure::Refused, DialFailure::TimedOut, DialFailure::Handshake] {
        let mut bench = Bench::new(|_| ());
        bench.ask(&[tcp(HOME)]);
        bench.fail(1, reason).expect("our dial");
        bench.answered(ResponseStatus::Ok, 0, DialStatus::DialError);
        assert_eq!(bench.served(), Some((Some(tcp(HOME)), Served::DialFailed)));

        let mut deaf = Bench::new(|_| ());
        deaf.world.heard = false;
        deaf.ask(&[tcp(HOME)]);
        deaf.fail(1, reason).expect("our dial");
        deaf.answered(ResponseStatus::Refused, 0, DialStatus::Unused);
    }
    let mut bench = Bench::new(|_| ());
    bench.ask(&[tcp(HOME)]);
    bench.fail(1, DialFailure::LocalFault).expect("our dial");
    bench.answered(ResponseStatus::Refused, 0, DialStatus::Unused);
    assert_eq!(bench.fail(1, DialFailure::Refused), Err(Oddity::UnknownDial));
}

#[test]
fn a_success_counts_even_where_we_never_heard() {
    let mut bench = Bench::new(|_| ());
    bench.world.heard = false;
    bench.ask(&[tcp(HOME)]);
    bench.connect(1).expect("our dial");
    bench.close(back(1), StreamEnd::Finished);
    bench.answered(ResponseStatus::Ok, 0, DialStatus::Ok);
}

#[test]
fn somebody_else_at_the_address_gets_no_nonce() {
    let mut bench = Bench::new(|_| ());
    bench.ask(&[tcp(HOME)]);
    bench.connect_to(1, PeerId::random()).expect("our dial");
    bench.answered(ResponseStatus::Ok, 0, DialStatus::DialError);
    assert!(bench.did(&HANG_UP));
    assert!(!bench.actions.iter().any(|action| matches!(action, Action::OpenStream { .. })));
}

#[test]
fn the_first_dialable_address_is_the_only_one_dialled() {
    let mut bench = Bench::new(|_| ());
    let listed = [
        tcp("10.0.0.1"),  // private
        tcp("127.0.0.1"), // loopback
        tcp("224.0.0.1"), // no destination
        tcp("2600::1"),   // a family that we lack
        tcp("44.9.9.9"),  // our own socket
        Addr::quic(ip("44.9.9.9"), 4001),
        Addr::quic(ip(HOME), 9),
        tcp(HOME),
    ];
    bench.ask(&listed);
    assert_eq!(bench.dials().iter().map(|dial| dial.addr).collect::<Vec<_>>(), [listed[6]]);
    bench.fail(1, DialFailure::Refused).expect("our dial");
    bench.answered(ResponseStatus::Ok, 6, DialStatus::DialError);
    assert_eq!(bench.dials(), [], "no other address is tried");
}

#[test]
fn refused_is_what_no_address_of_is_dialable() {
    let lists: [&[Addr]; 6] = [
        &[],
        &[tcp("192.168.1.1"), tcp("169.254.0.1"), tcp("100.64.0.1")],
        &[tcp("2600::1")],
        &[tcp("44.9.9.9")],
        &[tcp("fe80::1"), tcp("::1"), tcp("0.0.0.0")],
        &[Addr::tcp(ip(HOME), 0)],
    ];
    for list in lists {
        let mut bench = Bench::new(|_| ());
        bench.ask(list);
        bench.answered(ResponseStatus::Refused, 0, DialStatus::Unused);
        assert_eq!(bench.served(), Some((None, Served::Refused)));
    }
    let mut bench = Bench::new(|_| ());
    bench.open(ASKER, 1).expect("a new stream");
    let addrs = vec![Bytes::from_static(b"\xff\xff\xff"), Bytes::new()];
    bench.send(1, &Message::DialRequest { addrs, nonce: 7 }.encode()).expect("a request");
    bench.answered(ResponseStatus::Refused, 0, DialStatus::Unused);
}

#[test]
fn another_ip_costs_dial_data() {
    for (drawn, bytes) in [(0, 30_000), (u64::MAX, 100_000)] {
        let mut bench = Bench::new(|_| ());
        bench.drawn = drawn;
        bench.ask(&[tcp("10.0.0.1"), tcp("44.2.2.2")]);
        let wanted = Message::DialDataRequest { addr_idx: 1, num_bytes: bytes };
        assert_eq!(bench.said(1), Some(wanted));
        let chunks = bytes.div_ceil(4_096);
        for _ in 1..chunks {
            bench.pay(4_096).expect("a chunk");
            assert_eq!(bench.actions, []);
        }
        bench.pay(4_096).expect("the last chunk, larger than what is missing");
        assert_eq!(bench.dials().len(), 1);
        assert_eq!(bench.dials()[0].addr, tcp("44.2.2.2"));
    }
}

#[test]
fn a_mapped_address_is_the_address_it_maps_and_a_circuit_always_pays() {
    let mut bench = Bench::new(|_| ());
    bench.asker().remote.ip = ip("::ffff:44.1.1.1");
    bench.ask(&[tcp(HOME)]);
    assert_eq!(bench.dials().len(), 1);

    let mut bench = Bench::new(|_| ());
    bench.asker().relayed = true;
    bench.ask(&[tcp(HOME)]);
    assert!(matches!(bench.said(1), Some(Message::DialDataRequest { .. })));
}

#[test]
fn chunks_that_break_the_rules_reset_the_stream() {
    let long = Message::DialDataResponse { data: vec![0; 4_097].into() }.encode();
    for (body, oddity) in [
        (dial_data_chunk(99), Oddity::UnexpectedFrame),
        (dial_data_chunk(0), Oddity::UnexpectedFrame),
        (long, Oddity::MalformedFrame),
        (request(&[tcp(HOME)]), Oddity::UnexpectedFrame),
    ] {
        let mut bench = Bench::new(|_| ());
        bench.ask(&[tcp("44.2.2.2")]);
        assert_eq!(bench.send(1, &body), Err(oddity));
        assert!(bench.did(&RESET));
        assert_eq!(bench.served(), Some((None, Served::Aborted)));
        assert_eq!(bench.said(1), None);
        assert_eq!(bench.server.deadline(), None);
    }
}

#[test]
fn an_upload_has_its_own_time_and_must_not_stand_still() {
    let mut bench = Bench::new(|_| ());
    bench.ask(&[tcp("44.2.2.2")]);
    assert_eq!(bench.sleep_until_due(), Wake::UploadOverdue);
    assert_eq!(bench.now, Instant::from_millis(11_000));
    assert!(bench.did(&RESET));

    let mut bench = Bench::new(|_| ());
    bench.ask(&[tcp("44.2.2.2")]);
    for second in [9, 18, 27] {
        bench.now = Instant::from_millis(1_000 + second * 1_000);
        bench.pay(4_096).expect("a chunk");
    }
    assert_eq!(bench.sleep_until_due(), Wake::UploadOverdue);
    assert_eq!(bench.now, Instant::from_millis(31_000));
    assert!(bench.did(&RESET));
    assert_eq!(bench.served(), Some((None, Served::Aborted)));
}

#[test]
fn the_answer_is_there_within_15_s_whatever_happens() {
    let mut bench = Bench::new(|_| ());
    bench.asker().rtt = None;
    bench.ask(&[tcp(HOME)]);
    assert_eq!(bench.dials()[0].timeout, Duration::from_secs(10));
    bench.now = Instant::from_millis(10_999);
    bench.connect(1).expect("our dial");
    bench.sleep_until_due();
    bench.answered(ResponseStatus::Ok, 0, DialStatus::DialBackError);
    assert_eq!(bench.now, Instant::from_millis(15_000), "14 s after the request");
    assert!(bench.did(&HANG_UP));

    // A runtime that never says how the dial ended is our own fault, and holds its slot.
    let mut bench = Bench::new(|limits| limits.dials_max = 1);
    bench.ask(&[tcp(HOME)]);
    bench.sleep_until_due();
    bench.answered(ResponseStatus::InternalError, 0, DialStatus::Unused);
    assert_eq!(bench.now, Instant::from_millis(4_500));
    bench.close(stream(1), StreamEnd::Finished);
    bench.ask_on(ASKER, 2, &[tcp(HOME)]);
    assert_eq!(bench.served(), Some((None, Served::Rejected)));
    bench.connect(1).expect("our dial, too late");
    assert_eq!(bench.actions, [HANG_UP]);
    bench.ask_on(ASKER, 3, &[tcp(HOME)]);
    assert_eq!(bench.dials().len(), 1);
}

#[test]
fn a_stream_without_a_request_or_an_end_is_reset() {
    let mut bench = Bench::new(|_| ());
    bench.open(ASKER, 1).expect("a new stream");
    assert_eq!(bench.sleep_until_due(), Wake::DialBackOverdue);
    assert!(bench.did(&RESET));
    assert_eq!(bench.served(), Some((None, Served::Aborted)));

    let mut bench = Bench::new(|_| ());
    bench.ask(&[]);
    bench.sleep_until_due();
    assert_eq!(bench.actions, [RESET], "answered already, so there is nothing to say");
}

#[test]
fn a_second_request_resets_the_stream_while_the_dial_keeps_its_slot() {
    let mut bench = Bench::new(|limits| limits.dials_max = 1);
    bench.ask(&[tcp(HOME)]);
    assert_eq!(bench.send(1, &request(&[tcp(HOME)])), Err(Oddity::UnexpectedFrame));
    assert!(bench.did(&RESET));
    assert_eq!(bench.served(), Some((Some(tcp(HOME)), Served::Aborted)));
    bench.ask_on(ASKER, 2, &[tcp(HOME)]);
    assert_eq!(bench.served(), Some((None, Served::Rejected)));
    bench.fail(1, DialFailure::TimedOut).expect("our dial");
    assert_eq!(bench.actions, []);
    bench.ask_on(ASKER, 3, &[tcp(HOME)]);
    assert_eq!(bench.dials().len(), 1);

    let mut bench = Bench::new(|_| ());
    bench.ask(&[]);
    assert_eq!(bench.send(1, &request(&[])), Err(Oddity::UnexpectedFrame));
    assert_eq!(bench.actions, [RESET]);
}

#[test]
fn a_requester_that_goes_takes_its_dial_back_along() {
    let mut bench = Bench::new(|_| ());
    bench.ask(&[tcp(HOME)]);
    bench.disconnect(ASKER);
    assert_eq!(bench.served(), Some((Some(tcp(HOME)), Served::Aborted)));
    bench.connect(1).expect("our dial");
    assert_eq!(bench.actions, [HANG_UP]);

    let mut bench = Bench::new(|_| ());
    bench.ask(&[tcp(HOME)]);
    bench.connect(1).expect("our dial");
    bench.close(stream(1), StreamEnd::Reset);
    assert!(bench.did(&HANG_UP));
    assert_eq!(bench.server.deadline(), None);
}

#[test]
fn a_requester_that_only_finished_sending_still_gets_its_answer() {
    let mut bench = Bench::new(|_| ());
    bench.ask(&[tcp(HOME)]);
    bench.close(stream(1), StreamEnd::Finished);
    assert_eq!(bench.actions, []);
    bench.fail(1, DialFailure::Refused).expect("our dial");
    bench.answered(ResponseStatus::Ok, 0, DialStatus::DialError);
    assert_eq!(bench.server.deadline(), None, "both sides are closed");
}

#[test]
fn private_is_dialled_only_where_allowed_and_for_a_neighbour() {
    let ask = |allow: bool, from: &str, target: &str| {
        let mut bench = Bench::with(allow, |_| ());
        bench.join(ASKER, from);
        bench.ask(&[tcp(target)]);
        bench.server.flights.len() == 1
            || matches!(bench.said(1), Some(Message::DialDataRequest { .. }))
    };
    for (from, target) in
        [("10.0.0.1", "10.0.0.1"), ("127.0.0.1", "127.0.0.1"), ("10.0.0.1", "192.168.7.7")]
    {
        assert!(ask(true, from, target), "{from} {target}");
        assert!(!ask(false, from, target), "{from} {target}");
    }
    assert!(!ask(true, HOME, "10.0.0.1"), "seen from the world");
    assert!(!ask(true, "10.0.0.1", "127.0.0.1"), "another scope");
}

#[test]
fn sources_differ_from_what_the_requester_has_met() {
    let dialled_from = |sources: &[&str]| {
        let sources = sources.iter().map(|text| ip(text)).collect();
        let mut bench = Bench::new(|limits| limits.sources = sources);
        bench.ask(&[tcp(HOME)]);
        bench.dials()[0].source
    };
    assert_eq!(dialled_from(&[]), None);
    assert_eq!(dialled_from(&["2600::9", "44.9.9.9", HOME, "127.0.0.9"]), None);
    assert_eq!(dialled_from(&["44.9.9.9", "44.9.9.10"]), Some(ip("44.9.9.10")));
    assert_eq!(dialled_from(&["10.0.0.9"]), Some(ip("10.0.0.9")), "translated one to one");
}

#[test]
fn a_dial_that_failed_says_where_it_came_from() {
    let told = |sources: &[&str], reason, sleeps: bool| {
        let sources = sources.iter().map(|text| ip(text)).collect();
        let mut bench = Bench::new(|limits| limits.sources = sources);
        bench.ask(&[tcp(HOME)]);
        if sleeps {
            let sleep = Sleep::new(Duration::from_secs(1), bench.now, bench.now);
            bench.server.resumed(sleep);
        }
        bench.fail(1, reason).expect("our dial");
        match bench.said(1) {
            Some(Message::DialResponse { status, failed_from, .. }) => (status, failed_from),
            other => panic!("{other:?}"),
        }
    };
    let other: &[&str] = &["44.9.9.9", "44.9.9.10"];
    let from = Some(ip("44.9.9.10"));
    assert_eq!(told(other, DialFailure::TimedOut, false), (ResponseStatus::Ok, from));
    assert_eq!(told(other, DialFailure::Refused, false), (ResponseStatus::Ok, from));
    assert_eq!(told(other, DialFailure::Handshake, false), (ResponseStatus::Ok, None), "let in");
    assert_eq!(told(other, DialFailure::LocalFault, false), (ResponseStatus::Refused, None));
    assert_eq!(told(other, DialFailure::TimedOut, true), (ResponseStatus::InternalError, None));
    let same: &[&str] = &["44.9.9.9"];
    assert_eq!(told(same, DialFailure::TimedOut, false), (ResponseStatus::Ok, None));
    assert_eq!(told(&[], DialFailure::TimedOut, false), (ResponseStatus::Ok, None));
}

#[test]
fn over_any_limit_is_rejected() {
    let set: [fn(&mut DialBackConfig); 6] = [
        |limits| limits.peer_per_min = 1,
        |limits| limits.prefix_per_min = 1,
        |limits| limits.global_per_min = 1,
        |limits| limits.target_per_min = 1,
        |limits| limits.target_prefix_per_min = 1,
        |limits| limits.dials_max = 1,
    ];
    for change in set {
        let mut bench = Bench::new(change);
        bench.ask_on(ASKER, 2, &[tcp(HOME)]);
        assert_eq!(bench.dials().len(), 1);
        bench.ask(&[tcp(HOME)]);
        bench.answered(ResponseStatus::Rejected, 0, DialStatus::Unused);
        assert_eq!(bench.served(), Some((None, Served::Rejected)));
    }
}

#[test]
fn nobody_pays_for_a_dial_that_will_not_happen() {
    let mut bench = Bench::new(|limits| limits.target_per_min = 1);
    bench.join(ConnId(2), "44.2.2.2");
    bench.ask_on(ConnId(2), 2, &[tcp("44.2.2.2")]);
    bench.ask(&[tcp("44.2.2.2")]);
    bench.answered(ResponseStatus::Rejected, 0, DialStatus::Unused);
}

#[test]
fn one_peer_has_two_open_requests_and_six_streams() {
    let mut bench = Bench::new(|_| ());
    for number in 2..4 {
        bench.open(ASKER, number).expect("a new stream");
        assert_eq!(bench.actions, []);
    }
    bench.open(ASKER, 1).expect("a new stream");
    bench.answered(ResponseStatus::Rejected, 0, DialStatus::Unused);
    bench.send(1, &request(&[tcp(HOME)])).expect("the request of the rejected stream");
    assert_eq!(bench.actions, []);
    for number in 4..7 {
        bench.open(ASKER, number).expect("a new stream");
    }
    assert_eq!(bench.open(ASKER, 7), Err(Oddity::Full));
    assert_eq!(bench.actions, [Action::ResetStream { stream: stream(7) }]);
    assert_eq!(bench.open(ASKER, 6), Err(Oddity::ReusedId));
}

#[test]
fn one_network_cannot_take_all_streams() {
    let mut bench = Bench::new(|_| ());
    let max = u64::try_from(STREAMS_PER_NETWORK_MAX).expect("a small bound");
    for number in 0..=max {
        bench.join(ConnId(1_000 + number), &alloc::format!("44.7.7.{number}"));
        let opened = bench.open(ConnId(1_000 + number), number);
        assert_eq!(opened, if number < max { Ok(()) } else { Err(Oddity::Full) });
    }
    bench.open(ASKER, 999).expect("another network");
}

#[test]
fn what_is_not_known_is_named() {
    let mut bench = Bench::new(|_| ());
    assert_eq!(bench.open(ConnId(9), 1), Err(Oddity::UnknownConnection));
    assert!(bench.did(&RESET));
    assert_eq!(bench.send(1, &request(&[])), Err(Oddity::UnknownStream));
    assert_eq!(bench.connect(5), Err(Oddity::UnknownDial));
    assert!(bench.did(&HANG_UP));
    bench.open(ASKER, 1).expect("a new stream");
    assert_eq!(bench.send(1, &Bytes::from_static(b"\xff")), Err(Oddity::MalformedFrame));
    assert!(bench.did(&RESET));
}

/// One fact out of a few numbers, sensible or not.
fn anything(bench: &mut Bench, (what, which, wait_ms): (u8, u8, u16)) {
    bench.now = bench.now + Duration::from_millis(u64::from(wait_ms));
    let (conn, number) = (ConnId(u64::from(which % 4)), u64::from(which % 16));
    let reasons = [DialFailure::Refused, DialFailure::LocalFault, DialFailure::TimedOut];
    let ends = [StreamEnd::Finished, StreamEnd::Reset, StreamEnd::BadFrame];
    let any = usize::from(which % 3);
    let reply = DialBackResponse::OK.encode();
    // What is odd is named, and that is all that is asked of it here.
    let _ = match what % 9 {
        0 | 1 => bench.open(conn, number),
        2 => bench.send(number, &request(&[tcp(HOME)])),
        3 => bench.send(number, &request(&[tcp("44.2.2.2")])),
        4 => bench.send(number, &dial_data_chunk(4_096)),
        5 => bench.connect(number),
        6 => bench.fail(number, reasons[any]),
        7 => bench.step(|server, cx, world| server.frame(cx, world, back(number), &reply)),
        _ if which < 128 => {
            bench.close(if which < 64 { stream(number) } else { back(number) }, ends[any]);
            Ok(())
        }
        _ => {
            bench.disconnect(if which < 192 { conn } else { DIALLED });
            Ok(())
        }
    };
}

proptest::proptest! {
    #[test]
    fn whatever_comes_one_request_gets_one_dial_and_one_answer(
        facts in proptest::collection::vec(proptest::prelude::any::<(u8, u8, u16)>(), 0..200),
    ) {
        let mut bench = Bench::new(|limits| limits.dials_max = 3);
        bench.join(ConnId(2), "44.2.2.2");
        bench.join(ConnId(3), "44.3.3.3");
        let mut answers = BTreeMap::<StreamId, u32>::new();
        for fact in facts {
            let before: Vec<StreamId> = bench.server.sessions.keys().copied().collect();
            anything(&mut bench, fact);
            answers.retain(|stream, _| bench.server.sessions.contains_key(stream) || before.contains(stream));
            for action in &bench.actions {
                if let Action::Send { stream, body } = action
                    && stream.side == Side::Inbound
                    && let Ok(Message::DialResponse { .. }) = Message::decode(body)
                {
                    *answers.entry(*stream).or_default() += 1;
                }
            }
            for flight in bench.server.flights.values() {
                proptest::prop_assert!(flight.request.is_none_or(|by| bench.server.sessions.contains_key(&by)));
            }
            proptest::prop_assert!(answers.values().all(|count| *count <= 1));
            proptest::prop_assert!(bench.dials().len() <= 1);
            proptest::prop_assert!(bench.server.flights.len() <= 3);
            let live = bench.server.sessions.values().filter(|session| session.is_open()).count();
            proptest::prop_assert!(live <= 3 * OPEN_PER_PEER_MAX);
        }
        // Left alone, everything ends.
        for _ in 0..100 {
            if bench.server.deadline().is_some() {
                bench.sleep_until_due();
            }
        }
        proptest::prop_assert_eq!(bench.server.deadline(), None);
        proptest::prop_assert!(bench.server.sessions.is_empty() && bench.server.flights.is_empty());
    }
}
