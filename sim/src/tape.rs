//! A flight record of all that a test tells an agent, read back and replayed at the end: as a
//! whole, and from wherever a later part of it could have begun.

use crate::redaction;
use portolan_core::flight::{Reader, Recorder, Replay, Step, Tail};
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
    /// After which steps a part is begun on the side.
    begins: fn(u64) -> bool,
    /// Those parts, which hold no steps, each with the number of the step before it.
    parts: Vec<(u64, Vec<u8>)>,
}

impl Tape {
    /// Begin with an agent that was told nothing yet. `begins` says after which steps a part of
    /// the record shall be tried.
    pub fn of(agent: &Agent, now: Instant, unix: UnixTime, begins: fn(u64) -> bool) -> Tape {
        let mut recorder = Recorder::new(*b"a key of 16 byte");
        let mut record = Vec::new();
        recorder.begin(agent, 0, now, unix, &mut record);
        let (nonces, parts) = (BTreeSet::new(), Vec::new());
        Tape { recorder, record, steps: 0, nonces, begins, parts }
    }

    /// Tell the agent one fact, and record it.
    pub fn handle(&mut self, agent: &mut Agent, cx: &mut Cx<'_>, event: Event) {
        self.steps += 1;
        let mut draw = Watched { draw: cx.draw, nonces: &mut self.nonces };
        let mut watched =
            Cx { now: cx.now, unix: cx.unix, draw: &mut draw, sign: cx.sign, actions: cx.actions };
        self.recorder.handle(agent, &mut watched, event, &mut self.record);
        if (self.begins)(self.steps) {
            let (mut recorder, mut part) = (self.recorder.clone(), Vec::new());
            recorder.begin(agent, 1, watched.now, watched.unix, &mut part);
            self.parts.push((self.steps, part));
        }
    }

    /// How many facts the agent was told.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Replay the record, and compare with the agent that lived through it.
    ///
    /// # Errors
    /// What is not as it was.
    pub fn replay(&self, lived: &Agent) -> Result<(), String> {
        let (head, mut reader) = Reader::new(&self.record).map_err(text)?;
        let mut replay = Replay::new(&head).map_err(text)?;
        let mut parts = self.parts.iter().peekable();
        for step in reader.by_ref() {
            let step = step.map_err(text)?;
            live(&mut replay, &step)?;
            if let Some((at, part)) = parts.next_if(|(at, _)| *at == replay.steps()) {
                // Whoever is in the same state goes on alike.
                let begun = begun(part).map_err(|error| format!("after step {at}: {error}"))?;
                if !begun.agrees_with(&replay) {
                    return Err(format!("a part that begins after step {at} begins otherwise"));
                }
            }
        }
        if (replay.steps(), reader.tail()) != (self.steps, Tail::Whole) {
            let (told, read) = (self.steps, replay.steps());
            return Err(format!("{told} steps were recorded, {read} were read"));
        }
        if replay.explain() != lived.explain() || replay.deadline() != lived.deadline() {
            return Err("the replayed agent ended otherwise than the one that lived".to_owned());
        }
        self.go_on(lived)?;
        self.is_masked()
    }

    /// Redact the record, and the later part that begins in the middle.
    ///
    /// # Errors
    /// What is told otherwise then, or who can still be found.
    pub fn redact(&self) -> Result<(), String> {
        redaction::check(&self.record)?;
        let Some((at, part)) = self.middle()? else { return Ok(()) };
        redaction::check(&part).map_err(|error| format!("from step {at} on: {error}"))
    }

    /// What is left of the record behind the part in the middle comes to the same end.
    fn go_on(&self, lived: &Agent) -> Result<(), String> {
        let Some((at, part)) = self.middle()? else { return Ok(()) };
        let mut replay = begun(&part)?;
        let (_, reader) = Reader::new(&part).map_err(text)?;
        for step in reader {
            live(&mut replay, &step.map_err(text)?)?;
        }
        let ended = replay.explain() == lived.explain() && replay.deadline() == lived.deadline();
        if ended {
            Ok(())
        } else {
            Err(format!("a part that begins after step {at} ends otherwise"))
        }
    }

    /// The part in the middle with all steps that follow, and the number of the step before it.
    fn middle(&self) -> Result<Option<(u64, Vec<u8>)>, String> {
        let Some((at, part)) = self.parts.get(self.parts.len() / 2) else { return Ok(None) };
        let (_, mut reader) = Reader::new(&self.record).map_err(text)?;
        for number in 0..*at {
            reader.next().ok_or(format!("there is no step behind step {number}"))?.map_err(text)?;
        }
        // A step says only how long after the last one it came: it may follow another head.
        Ok(Some((*at, [part, &self.record[reader.offset()..]].concat())))
    }

    /// No nonce that was drawn is anywhere in the record, nor in any part of it.
    fn is_masked(&self) -> Result<(), String> {
        for record in self.parts.iter().map(|(_, part)| part).chain([&self.record]) {
            let told = record.array_windows().position(|bytes| self.nonces.contains(bytes));
            if let Some(at) = told {
                return Err(format!("a nonce stands in the record, at byte {at}"));
            }
        }
        Ok(())
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn begun(part: &[u8]) -> Result<Replay, String> {
    let (head, _) = Reader::new(part).map_err(text)?;
    Replay::new(&head).map_err(text)
}

fn live(replay: &mut Replay, step: &Step) -> Result<(), String> {
    let lived = replay.step(step, &mut Actions::new());
    lived.map_err(|error| format!("{error}: {:?}", step.event))
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
            self.nonces.extend([nonce.to_le_bytes(), nonce.to_be_bytes(), varint(nonce)]);
        }
        nonce
    }
}

/// The first bytes of a number as checkpoints write it: seven bits each, the least significant
/// first.
fn varint(nonce: u64) -> [u8; 8] {
    let mut place = 0;
    [(); 8].map(|()| {
        place += 7;
        u8::try_from(nonce >> (place - 7) & 0x7f).unwrap_or(0) | 0x80
    })
}
