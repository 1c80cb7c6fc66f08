//! A flight record of all that a test tells an agent, read back and replayed at the end.

use portolan_core::flight::{Reader, Recorder, Replay, Tail};
use portolan_core::{Actions, Agent, Cx, Draw, Event, Instant, UnixTime};
use std::collections::BTreeSet;

/// Nonces below this are too small to be told from other bytes, in a test whose nonces count up.
const TELLING_MIN: u64 = 1 << 40;

/// A record that is being made.
#[derive(Clone, Debug)]
pub struct Tape {
    recorder: Recorder,
    record: Vec<u8>,
    steps: u64,
    nonces: BTreeSet<[u8; 8]>,
}

impl Tape {
    /// Begin with an agent that was told nothing yet.
    pub fn of(agent: &Agent, now: Instant, unix: UnixTime) -> Tape {
        let mut recorder = Recorder::new(*b"a key of 16 byte");
        let mut record = Vec::new();
        recorder.begin(agent, 0, now, unix, &mut record);
        Tape { recorder, record, steps: 0, nonces: BTreeSet::new() }
    }

    /// Tell the agent one fact, and record it.
    pub fn handle(&mut self, agent: &mut Agent, cx: &mut Cx<'_>, event: Event) {
        self.steps += 1;
        let mut draw = Watched { draw: cx.draw, nonces: &mut self.nonces };
        let mut watched =
            Cx { now: cx.now, unix: cx.unix, draw: &mut draw, sign: cx.sign, actions: cx.actions };
        self.recorder.handle(agent, &mut watched, event, &mut self.record);
    }

    /// Replay the record, and compare with the agent that lived through it.
    ///
    /// # Errors
    /// What is not as it was.
    pub fn replay(&self, lived: &Agent) -> Result<(), String> {
        let (head, mut reader) = Reader::new(&self.record).map_err(|error| error.to_string())?;
        let mut replay = Replay::new(&head).map_err(|error| error.to_string())?;
        let mut actions = Actions::new();
        for step in reader.by_ref() {
            let step = step.map_err(|error| error.to_string())?;
            let event = &step.event;
            replay.step(&step, &mut actions).map_err(|error| format!("{error}: {event:?}"))?;
            actions.drain().for_each(drop);
        }
        if (replay.steps(), reader.tail()) != (self.steps, Tail::Whole) {
            let (told, read) = (self.steps, replay.steps());
            return Err(format!("{told} steps were recorded, {read} were read"));
        }
        if replay.explain() != lived.explain() || replay.deadline() != lived.deadline() {
            return Err("the replayed agent ended otherwise than the one that lived".to_owned());
        }
        self.is_masked()
    }

    /// No nonce that was drawn is anywhere in the record.
    fn is_masked(&self) -> Result<(), String> {
        let told = self.record.array_windows().position(|bytes| self.nonces.contains(bytes));
        told.map_or(Ok(()), |at| Err(format!("a nonce stands in the record, at byte {at}")))
    }
}

/// Chance that is looked over the shoulder.
struct Watched<'a> {
    draw: &'a mut dyn Draw,
    nonces: &'a mut BTreeSet<[u8; 8]>,
}

impl Draw for Watched<'_> {
    fn below(&mut self, n: u64) -> u64 {
        self.draw.below(n)
    }

    fn nonce(&mut self) -> u64 {
        let nonce = self.draw.nonce();
        if nonce >= TELLING_MIN {
            self.nonces.extend([nonce.to_le_bytes(), nonce.to_be_bytes()]);
        }
        nonce
    }
}
