//! A core that panics: what it was told then is in the record.

use crate::values;
use portolan_core::flight::{Reader, Recorder, Tail};
use portolan_core::{
    Actions, Addr, Agent, Config, ConnId, Connected, Cx, Draw, Event, Instant, Side, Signer,
    UnixTime,
};
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Chance and a key that nobody may use.
struct Mined;

impl Draw for Mined {
    fn below(&mut self, _: u64) -> u64 {
        panic!("chance is out of order")
    }

    fn nonce(&mut self) -> u64 {
        panic!("chance is out of order")
    }
}

impl Signer for Mined {
    fn sign(&mut self, _: &[u8]) -> Vec<u8> {
        panic!("nobody signs")
    }
}

#[test]
fn the_fact_that_made_core_panic_is_the_last_in_the_record() {
    let identity = values::key(1).public();
    let mut agent = Agent::new(Config::default(), identity).expect("a good configuration");
    let (mut recorder, mut out) = (Recorder::new([7; 16]), Vec::new());
    let (now, unix) = (Instant::from_millis(1), UnixTime::from_millis(1));
    recorder.begin(&agent, 0, now, unix, &mut out);
    let mut handle = |event: Event| {
        let (draw, sign, actions) = (&mut Mined, &mut Mined, &mut Actions::new());
        let mut cx = Cx { now, unix, draw, sign, actions };
        recorder.handle(&mut agent, &mut cx, event, &mut out);
    };
    handle(Event::Tick);
    // A connection without a round-trip time is pinged at once, and a ping is drawn.
    let ip = |last| IpAddr::from([44, 0, 0, last]);
    let connected = Event::Connected(Connected {
        conn: ConnId(1),
        peer: values::key(2).public().to_peer_id(),
        side: Side::Outbound,
        local: Addr::tcp(ip(1), 1),
        remote: Addr::tcp(ip(2), 2),
        relayed: false,
        dial: None,
        rtt: None,
    });
    let ended = catch_unwind(AssertUnwindSafe(|| handle(connected.clone())));
    assert!(ended.is_err(), "core drew something");

    let (_, mut reader) = Reader::new(&out).expect("a whole head");
    let steps: Vec<Event> = reader.by_ref().map(|step| step.expect("whole").event).collect();
    assert_eq!(steps, [Event::Tick, connected]);
    assert_eq!(reader.tail(), Tail::Whole);
}
