//! A replay that goes otherwise says where, and goes on.

use crate::pair::Hand;
use crate::round_trip::{read, written};
use crate::story::cached;
use crate::values::key;
use bytes::Bytes;
use portolan_core::flight::{
    Asked, Difference, Divergence, Drawn, Head, Reader, Recorder, Replay, ReplayError, Step,
};
use portolan_core::{
    Action, Actions, Addr, Agent, Config, ConfigError, ConnId, Connected, Cx, Draw, Duration,
    Event, Instant, ListenerId, Side, Transport, UnixTime,
};

fn client() -> (Head, Vec<Step>) {
    read(&cached().nodes[0].record)
}

/// Every divergence of a replay.
fn replayed(head: &Head, steps: &[Step]) -> Vec<Divergence> {
    let mut replay = Replay::new(head).expect("a good configuration");
    let mut actions = Actions::new();
    steps.iter().filter_map(|step| replay.step(step, &mut actions).err()).collect()
}

fn first(steps: &[Step], wanted: impl Fn(&Step) -> bool) -> usize {
    steps.iter().position(wanted).expect("the story has such a step")
}

fn nonces(step: &Step) -> usize {
    step.drawn.iter().filter(|drawn| matches!(drawn, Drawn::Nonce(_))).count()
}

#[test]
fn an_action_that_changed_is_named_with_its_step() {
    let (head, steps) = client();
    assert_eq!(replayed(&head, &steps), []);
    for at in [0, 1, steps.len() / 2, steps.len() - 1] {
        let mut changed = steps.clone();
        changed[at].digest ^= 1;
        let found = steps[at].digest;
        let what = Difference::Actions { recorded: found ^ 1, found };
        let step = u64::try_from(at + 1).expect("a few steps");
        assert_eq!(replayed(&head, &changed), [Divergence { step, what }]);
    }
    let shown = Divergence { step: 7, what: Difference::Actions { recorded: 1, found: 0x2a } };
    let text = "step 7 diverges: what comes out has digest 000000000000002a, not 0000000000000001";
    assert_eq!(shown.to_string(), text);
}

#[test]
fn an_agent_that_behaves_otherwise_diverges() {
    let (head, steps) = client();
    let mut config = head.config.clone();
    config.agent_version = "another/1".into();
    let another = Head { config, ..head.clone() };
    let sent = |step: &Step| step.digest != 0 && matches!(step.event, Event::Frame { .. });
    let divergence = replayed(&another, &steps)[0];
    assert!(divergence.step <= u64::try_from(1 + first(&steps, sent)).expect("a few steps"));
}

#[test]
fn a_timer_that_is_shorter_than_it_was_shows_although_it_fires_in_the_same_step() {
    let (head, steps) = client();
    let mut config = head.config.clone();
    config.ping_interval = config.ping_interval.map(|interval| interval - Duration::from_nanos(1));
    let mut replay = Replay::new(&Head { config, ..head }).expect("a good configuration");
    let mut actions = Actions::new();
    for (step, orders) in steps.iter().zip(&cached().nodes[0].orders) {
        if let Err(divergence) = replay.step(step, &mut actions) {
            assert!(matches!(divergence.what, Difference::Actions { .. }), "{divergence}");
            assert_eq!(actions.as_slice().len(), orders.len(), "only the deadline differs");
            return;
        }
        actions.drain().for_each(drop);
    }
    panic!("nobody noticed");
}

#[test]
fn chance_that_does_not_fit_is_named() {
    let (head, steps) = client();
    let at = first(&steps, |step| nonces(step) > 0);
    let Drawn::Nonce(nonce) = steps[at].drawn[0] else { panic!("{:?}", steps[at].drawn) };
    let of = |drawn: Vec<Drawn>| {
        let mut changed = steps.clone();
        changed[at].drawn = drawn;
        let divergence = replayed(&head, &changed)[0];
        assert_eq!(divergence.step, u64::try_from(at + 1).expect("a few steps"));
        divergence.what
    };
    let asked = Asked::Nonce;
    assert_eq!(of(vec![]), Difference::Draw { asked, recorded: None });
    let other = Drawn::Below { n: 5, value: 1 };
    assert_eq!(of(vec![other]), Difference::Draw { asked, recorded: Some(other) });
    let more = [steps[at].drawn.clone(), vec![Drawn::Nonce(nonce), other]].concat();
    assert_eq!(of(more), Difference::DrawsLeft { left: 2 });

    let at = first(&steps, |step| matches!(step.drawn[..], [Drawn::Below { .. }, ..]));
    let Drawn::Below { n, value } = steps[at].drawn[0] else { panic!("{:?}", steps[at].drawn) };
    for recorded in [
        Drawn::Below { n, value: n },
        Drawn::Below { n, value: u64::MAX },
        Drawn::Below { n: n + 1, value },
        Drawn::Nonce(value),
    ] {
        let mut changed = steps.clone();
        changed[at].drawn[0] = recorded;
        let divergence = replayed(&head, &changed)[0];
        assert_eq!(divergence.step, u64::try_from(at + 1).expect("a few steps"));
        let recorded = Some(recorded);
        assert_eq!(divergence.what, Difference::Draw { asked: Asked::Below(n), recorded });
    }
}

#[test]
fn signatures_that_do_not_fit_are_named() {
    let (head, steps) = client();
    let at = first(&steps, |step| !step.signatures.is_empty());
    let mut changed = steps.clone();
    changed[at].signatures.clear();
    assert_eq!(replayed(&head, &changed)[0].what, Difference::Signature);
    changed[at].signatures = vec![steps[at].signatures[0].clone(), Bytes::from_static(b"more")];
    assert_eq!(replayed(&head, &changed)[0].what, Difference::SignaturesLeft { left: 1 });
    // Another signature is said to peers, so that it shows in what comes out.
    changed[at].signatures = vec![Bytes::new()];
    let divergence = replayed(&head, &changed)[0];
    assert_eq!(divergence.step, u64::try_from(at + 1).expect("a few steps"));
    assert!(matches!(divergence.what, Difference::Actions { .. }));
}

#[test]
fn whatever_diverges_can_be_renewed() {
    let (head, mut steps) = client();
    let mut config = head.config.clone();
    config.agent_version = "another/1".into();
    config.ping_interval = Some(Duration::from_secs(7));
    let head = Head { config, ..head };
    steps.iter_mut().for_each(|step| step.drawn.clear());
    assert!(!replayed(&head, &steps).is_empty());
    let mut replay = Replay::new(&head).expect("a good configuration");
    let mut actions = Actions::new();
    let renew = |step: &Step| {
        let _ = replay.step(step, &mut actions);
        let renewed = replay.renewed(step);
        assert_eq!(renewed.digest, replay.digest());
        renewed
    };
    let renewed: Vec<Step> = steps.iter().map(renew).collect();
    assert_eq!(replay.steps(), u64::try_from(steps.len()).expect("a few steps"));
    let (head, renewed) = read(&written(&head, &renewed));
    assert_eq!(replayed(&head, &renewed), []);
    let mut drawn: Vec<u64> = Vec::new();
    for step in &renewed {
        drawn.extend(step.drawn.iter().filter_map(|drawn| match drawn {
            Drawn::Nonce(nonce) => Some(nonce),
            Drawn::Below { .. } => None,
        }));
    }
    let all = drawn.len();
    drawn.sort_unstable();
    drawn.dedup();
    assert_eq!((all, all > 1), (drawn.len(), true), "made-up nonces differ too");
}

#[test]
fn what_cannot_be_replayed_at_all_says_why() {
    let (head, _) = client();
    let mut config = head.config.clone();
    config.addrs_per_request = 0;
    let refused = Replay::new(&Head { config, ..head.clone() }).err();
    assert_eq!(refused, Some(ReplayError::Config(ConfigError::AddrsPerRequest { given: 0 })));
    for head in [
        Head { part: 1, ..head.clone() },
        Head { checkpoint: Some(Bytes::from_static(b"state")), ..head },
    ] {
        assert_eq!(Replay::new(&head).err(), Some(ReplayError::Checkpoint));
    }
}

#[test]
fn times_that_a_caller_makes_up_do_no_harm() {
    let (head, steps) = client();
    let mut replay = Replay::new(&head).expect("a good configuration");
    let mut actions = Actions::new();
    for (step, now) in steps.iter().zip([7, u64::MAX, 0, 3].into_iter().cycle()) {
        let _ = replay.step(&Step { now: Instant::from_nanos(now), ..step.clone() }, &mut actions);
    }
    assert!(replay.explain().at <= Instant::from_nanos(u64::MAX / 2));
}

/// Chance that always gives the same.
struct Seven;

impl Draw for Seven {
    fn below(&mut self, n: u64) -> u64 {
        7_u64.checked_rem(n).unwrap_or(0)
    }

    fn nonce(&mut self) -> u64 {
        7
    }
}

fn step_at(agent: &mut Agent, recorder: &mut Recorder, (millis, event): (u64, Event)) -> Vec<u8> {
    let (key, mut actions, mut out) = (key(1), Actions::new(), Vec::new());
    // Something that an earlier step left behind is none of this one's.
    actions.push(Action::Disconnect { conn: ConnId(99) });
    let mut cx = Cx {
        now: Instant::from_millis(millis),
        unix: UnixTime::from_millis(millis),
        draw: &mut Seven,
        sign: &mut Hand(&key),
        actions: &mut actions,
    };
    recorder.handle(agent, &mut cx, event, &mut out);
    out
}

fn pinged(conn: u64) -> Event {
    let addr = |ip: [u8; 4]| Addr { ip: ip.into(), port: 4001, transport: Transport::Tcp };
    Event::Connected(Connected {
        conn: ConnId(conn),
        peer: key(3).public().to_peer_id(),
        side: Side::Outbound,
        local: addr([44, 0, 0, 1]),
        remote: addr([44, 0, 1, 1]),
        relayed: false,
        dial: None,
        rtt: None,
    })
}

#[test]
fn a_recorder_changes_nothing_and_bears_an_odd_caller() {
    let mut agent = Agent::new(Config::default(), key(1).public()).expect("a good configuration");
    let mut recorder = Recorder::new([5; 16]);
    let opened = Event::ListenerOpened {
        listener: ListenerId(1),
        addr: Addr::tcp([44, 0, 0, 1].into(), 4001),
    };
    // Nothing is written before the first part begins, and the agent lives all the same.
    let mut unrecorded = agent.clone();
    assert_eq!(step_at(&mut unrecorded, &mut recorder, (1, opened.clone())), []);
    assert_ne!(unrecorded, agent);

    let mut bytes = Vec::new();
    let begun = Instant::from_millis(50);
    recorder.begin(&agent, 0, begun, UnixTime::from_millis(70), &mut bytes);
    // Earlier than the record begins: nothing runs backwards.
    bytes.extend(step_at(&mut agent, &mut recorder, (10, opened)));
    assert_eq!(agent.explain().at, begun);
    // Chance that repeats itself, twice over.
    bytes.extend(step_at(&mut agent, &mut recorder, (60, pinged(1))));
    bytes.extend(step_at(&mut agent, &mut recorder, (60, pinged(2))));
    bytes.extend(step_at(&mut agent, &mut recorder, (2_000, Event::Tick)));
    let (head, reader) = Reader::new(&bytes).expect("a record");
    let steps: Vec<Step> = reader.map(|step| step.expect("a step")).collect();
    assert_eq!((head.part, head.now, head.checkpoint.clone()), (0, begun, None));
    assert_eq!(head.software, concat!("portolan/", env!("CARGO_PKG_VERSION")));
    assert_eq!(steps[0].now, begun);
    assert_eq!(nonces(&steps[1]), 4);
    assert!(steps.iter().flat_map(|step| &step.drawn).all(|drawn| *drawn != Drawn::Nonce(7)));
    assert_eq!(replayed(&head, &steps), []);
    assert!(format!("{recorder:?}").contains("Mask(..)"), "the key is not shown");
}
