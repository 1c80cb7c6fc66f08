//! Target: the agent as a whole. Bytes tell a story of facts; after each of them the laws must
//! hold that a runtime, an application and the network rely on.
//!
//! ```text
//!  bytes ─► story ─► Event ─► Agent under a Recorder ─► actions ─► books: can they be performed?
//!             ▲                  │      twin: alike              └► laws: may they be said?
//!             └── books ◄────────┘      at the end: replayed from its record, redacted
//! ```
//!
//! Names in the story are mostly valid, since the books are asked for them, so that bytes lead
//! deep; some are nonsense on purpose.

mod books;
mod facts;
mod laws;
mod relays;
mod routers;
mod seeds;
mod story;

use crate::harness::variable;
use crate::mutate::Dice;
use crate::record::printable;
use crate::signed::{Key, key};
use crate::trail::{Trail, variant};
use books::Books;
use facts::Facts;
use laws::Laws;
use portolan_core::flight::{Reader, Recorder, Replay, redact};
use portolan_core::transcript::{Mark, Scribe, ShortNames};
use portolan_core::{
    Action, Actions, Addr, Agent, Config, Cx, DialBackConfig, Draw, Event, Instant, MappingConfig,
    NodeState, Notice, RelayNotice, UnixTime,
};
pub(crate) use seeds::seeds;

/// Facts of one input, number.
const FACTS_MAX: usize = 300;
/// Wake-ups behind the last fact, number: what is under way comes to its end.
const WAKES: usize = 24;
/// Facts in one part of the record, number.
const PART: usize = 64;

/// Chance: even numbers out of a seed, or always the lowest, or always the highest.
#[derive(Clone, Debug)]
struct Chance {
    dice: Dice,
    kind: u8,
}

impl Draw for Chance {
    fn below(&mut self, n: u64) -> u64 {
        match self.kind % 4 {
            0 => 0,
            1 => n.saturating_sub(1),
            _ => self.dice.next().checked_rem(n).unwrap_or(0),
        }
    }

    fn nonce(&mut self) -> u64 {
        self.dice.next()
    }
}

/// One agent with all that it needs.
#[derive(Clone)]
struct Node {
    agent: Agent,
    chance: Chance,
    key: Key,
    actions: Actions,
}

impl Node {
    /// Hand in one fact, through the recorder where there is one.
    fn handle(
        &mut self,
        now: Instant,
        event: Event,
        recorder: Option<(&mut Recorder, &mut Vec<u8>)>,
    ) -> Vec<Action> {
        let Node { agent, chance, key, actions } = self;
        let mut cx = Cx { now, unix: unix(now), draw: chance, sign: key, actions };
        match recorder {
            Some((recorder, part)) => recorder.handle(agent, &mut cx, event, part),
            None => agent.handle(&mut cx, event),
        }
        self.actions.drain().collect()
    }
}

/// A wall clock that runs alike.
fn unix(now: Instant) -> UnixTime {
    UnixTime::from_millis(1_700_000_000_000 + now.as_nanos() / 1_000_000)
}

/// Live through the story that the bytes tell.
pub(crate) fn run(bytes: &[u8], trail: &mut Trail) {
    let mut facts = Facts(bytes);
    let config = config(&mut facts);
    let kind = facts.byte();
    let key = key(1);
    let agent = Agent::new(config.clone(), key.0.public()).expect("a good configuration");
    let chance = Chance { dice: Dice(u64::from(kind)), kind };
    let node = Node { agent, chance, key, actions: Actions::new() };
    let mut world = World {
        scribe: Scribe::new(ShortNames::new(node.agent.peer_id()), Instant::ZERO),
        twin: node.clone(),
        node,
        books: Books::default(),
        laws: Laws::new(config),
        recorder: Recorder::new([3; 16]),
        parts: Vec::new(),
        aloud: variable("PORTOLAN_FUZZ_INPUT").is_some(),
        now: Instant::ZERO,
        lived: 0,
    };
    while !facts.are_over() && world.lived < FACTS_MAX {
        let deadline = world.node.agent.deadline();
        let (span, events) = story::next(&mut facts, &mut world.books, world.now, deadline);
        world.now = world.now + span;
        for event in events {
            world.live(event, trail);
        }
    }
    for _ in 0..WAKES {
        let Some(deadline) = world.node.agent.deadline() else { break };
        world.now = deadline.at;
        trail.saw(format_args!("wake {:?}", deadline.wake));
        world.live(Event::Tick, trail);
    }
    world.end(kind & 8 != 0, trail);
}

/// A configuration out of two bytes, and one more for each way of relaying.
fn config(facts: &mut Facts<'_>) -> Config {
    let [one, two] = [facts.byte(), facts.byte()];
    let mut config = Config::default();
    config.allow_private = one & 1 != 0;
    config.identify = one & 2 == 0;
    config.addrs_per_request = [1, 1, 2, 50][usize::from(one >> 2 & 3)];
    if one & 16 != 0 {
        config.ping_interval = None;
    }
    if one & 32 != 0 {
        config.external = vec![Addr::tcp([44, 0, 0, 2].into(), 4_001)];
    }
    config.force_node = (one & 192 == 192).then_some(NodeState::Public);
    config.dial_back = match two & 3 {
        0 => None,
        1 | 2 => Some(DialBackConfig::unlimited()),
        _ => Some(DialBackConfig::default()),
    };
    if let Some(limits) = &mut config.dial_back
        && two & 4 != 0
    {
        limits.sources = vec![[44, 0, 0, 3].into()];
        limits.dials_max = 2;
    }
    config.mapping = (two & 8 != 0).then(MappingConfig::default);
    (config.relay, config.relay_server) = relays::configs(facts, two >> 4 & 3);
    config
}

/// The agent, and everything around it.
struct World {
    node: Node,
    twin: Node,
    books: Books,
    laws: Laws,
    scribe: Scribe<ShortNames>,
    recorder: Recorder,
    parts: Vec<Vec<u8>>,
    aloud: bool,
    now: Instant,
    lived: usize,
}

impl World {
    fn live(&mut self, event: Event, trail: &mut Trail) {
        if self.lived.is_multiple_of(PART) {
            let number = u64::try_from(self.parts.len()).expect("few parts");
            let mut part = Vec::new();
            self.recorder.begin(&self.node.agent, number, self.now, unix(self.now), &mut part);
            self.parts.push(part);
            self.twin = self.node.clone();
        }
        self.lived += 1;
        let text = self.scribe.event(&event);
        self.tell(Mark::Event, &text);
        self.books.happened(&event);
        let part = self.parts.last_mut().expect("a part has begun");
        let recorder = Some((&mut self.recorder, part));
        let actions = self.node.handle(self.now, event.clone(), recorder);
        let alike = self.twin.handle(self.now, event.clone(), None);
        assert_eq!(actions, alike, "a twin that is told the same does the same");
        for action in &actions {
            let text = self.scribe.action(action);
            self.tell(Mark::Action, &text);
            self.books.ordered(action);
            self.laws.heard(action);
            trail.saw(format_args!("{} > {}", of_event(&event), of_action(action)));
        }
        self.laws.check(&self.node.agent, &self.books, self.now, trail);
        assert!(self.node.agent == self.twin.agent, "and knows the same");
    }

    /// A line of the transcript: printed where one input runs alone.
    fn tell(&self, mark: Mark, text: &str) {
        let line = self.scribe.line(None, self.now, mark, text);
        printable(&line);
        if self.aloud {
            println!("{line}");
        }
    }

    /// Every part of the record replays alone, and ends where the agent is now.
    fn end(self, redacted: bool, trail: &mut Trail) {
        trail.saw(format_args!("{} parts", self.parts.len()));
        let last = self.parts.len().saturating_sub(1);
        for (at, part) in self.parts.iter().enumerate() {
            let replay = replayed(part);
            if at == last {
                assert_eq!(replay.explain(), self.node.agent.explain());
                assert_eq!(replay.deadline(), self.node.agent.deadline());
            }
            if redacted && let Ok(redacted) = redact(part, [5; 16]) {
                assert_eq!(redacted.diverged, None);
                replayed(&redacted.record);
                trail.saw(format_args!("redacted"));
            }
        }
    }
}

/// A record that has to replay without a divergence.
fn replayed(record: &[u8]) -> Replay {
    let (head, reader) = Reader::new(record).expect("our own record");
    let mut replay = Replay::new(&head).expect("our own state");
    let mut actions = Actions::new();
    for step in reader {
        let step = step.expect("our own step");
        assert_eq!(replay.step(&step, &mut actions), Ok(()), "{:?}", step.event);
        actions.drain().for_each(drop);
    }
    replay
}

/// What kind of fact it is.
fn of_event(event: &Event) -> String {
    match event {
        Event::Frame { stream, .. } => format!("Frame {:?} {:?}", stream.side, stream.protocol),
        Event::StreamClosed { stream, .. } => {
            format!("StreamClosed {:?} {:?}", stream.side, stream.protocol)
        }
        Event::Mapping(event) => variant(event),
        Event::Relay(event) => variant(event),
        other => variant(other),
    }
}

/// What kind of order it is.
fn of_action(action: &Action) -> String {
    match action {
        Action::Send { stream, .. } => format!("Send {:?} {:?}", stream.side, stream.protocol),
        Action::Notify(Notice::Ignored { oddity, .. }) => format!("{oddity:?}"),
        Action::Notify(Notice::ProbeEnded { outcome, .. }) => format!("{outcome:?}"),
        Action::Notify(Notice::DialBackServed { answer, .. }) => format!("{answer:?}"),
        Action::Notify(Notice::VerdictChanged { state, scope, reason, .. }) => {
            format!("{state:?} {scope:?} {}", variant(reason))
        }
        Action::Notify(Notice::MappingChanged { mapping: Some(mapping), .. }) => {
            format!("{:?} {}", mapping.state, variant(&mapping.reason))
        }
        Action::Notify(Notice::Relay(RelayNotice::Changed(relay))) => {
            format!("{:?} {:?}", relay.state, relay.failure.map(|failure| variant(&failure)))
        }
        Action::Notify(Notice::Relay(notice)) => variant(notice),
        Action::Notify(notice) => variant(notice),
        Action::Mapping(action) => variant(action),
        Action::Relay(action) => variant(action),
        other => variant(other),
    }
}
