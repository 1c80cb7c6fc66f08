//! The agent, its clock and its chance; every event goes through here.

use super::book::Book;
use super::names::{Hand, NODE, Names, key};
use super::rules;
use super::script::{Name, Shift};
use super::settings::{Settings, Spread};
use crate::tape::Tape;
use libp2p_identity::Keypair;
use portolan_core::transcript::{self, Mark, Scribe};
use portolan_core::{Action, Actions, Agent, Cx, Draw, Duration, Event, Instant, Notice, UnixTime};

/// The wall clock when a story begins: a round number, so that sequence numbers are readable.
const UNIX_START_MS: u64 = 1_700_000_000_000;
/// Wake-ups that one step may take before it counts as a loop without end.
const WAKES_MAX: usize = 20_000;

/// Chance without any: nonces count, and other numbers spread as the story wants.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Chance {
    spread: Spread,
    nonces: u64,
}

impl Draw for Chance {
    fn below(&mut self, n: u64) -> u64 {
        match &mut self.spread {
            Spread::Lowest => 0,
            Spread::Highest => n.saturating_sub(1),
            Spread::Seed(state) => {
                // The mixing function of SplitMix64: short, and good enough to spread timers.
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                (mixed ^ (mixed >> 27)).checked_rem(n).unwrap_or(0)
            }
        }
    }

    fn nonce(&mut self) -> u64 {
        self.nonces += 1;
        self.nonces
    }
}

/// One agent with its own chance and its own sink.
#[derive(Clone, Debug)]
struct Side {
    agent: Agent,
    chance: Chance,
    actions: Actions,
}

impl Side {
    fn handle(
        &mut self,
        (now, unix): (Instant, UnixTime),
        key: &Keypair,
        event: Event,
        tape: Option<&mut Tape>,
    ) {
        let mut cx = Cx {
            now,
            unix,
            draw: &mut self.chance,
            sign: &mut Hand(key),
            actions: &mut self.actions,
        };
        match tape {
            Some(tape) => tape.handle(&mut self.agent, &mut cx, event),
            None => self.agent.handle(&mut cx, event),
        }
    }
}

fn unix(now: Instant) -> UnixTime {
    UnixTime::from_millis(UNIX_START_MS + now.as_nanos() / 1_000_000)
}

/// The story as it unfolds.
#[derive(Debug)]
pub(super) struct World {
    main: Side,
    /// Sees exactly what the agent sees, and must stay exactly like it.
    twin: Side,
    /// Records what the twin sees.
    tape: Tape,
    key: Keypair,
    pub(super) now: Instant,
    /// What the wall clock shows more than it should, in milliseconds.
    unix_ahead: i64,
    pub(super) scribe: Scribe<Names>,
    pub(super) book: Book,
    pub(super) transcript: Vec<String>,
}

impl World {
    /// A world in which nothing happened yet.
    pub(super) fn new(settings: Settings) -> Result<World, String> {
        let name = Name(NODE.to_owned());
        let key = key(&name);
        let mut names = settings.names;
        names.peer(&name);
        let agent = Agent::new(settings.config, key.public())
            .map_err(|error| format!("the configuration is refused: {error}"))?;
        let chance = Chance { spread: settings.spread, nonces: 0 };
        let main = Side { agent, chance, actions: Actions::new() };
        Ok(World {
            tape: Tape::of(&main.agent, Instant::ZERO, unix(Instant::ZERO), |_| true),
            twin: main.clone(),
            main,
            key,
            now: Instant::ZERO,
            unix_ahead: 0,
            scribe: Scribe::new(names, Instant::ZERO),
            book: Book::default(),
            transcript: Vec::new(),
        })
    }

    /// The agent, to be looked at.
    pub(super) fn agent(&self) -> &Agent {
        &self.main.agent
    }

    /// Write down what the script says.
    pub(super) fn heading(&mut self, text: &str) {
        self.transcript.push(self.scribe.line(None, self.now, Mark::Event, text));
    }

    /// Write down what came of it; a line that repeats the one before counts it up instead.
    pub(super) fn line(&mut self, text: &str) {
        let fresh = self.scribe.line(None, self.now, Mark::Action, text);
        if let Some(last) = self.transcript.last_mut() {
            let (same, times) = match last.rsplit_once(" (x") {
                Some((same, count)) => (same, count.trim_end_matches(')').parse().unwrap_or(1)),
                None => (last.as_str(), 1_u32),
            };
            if same == fresh {
                *last = format!("{fresh} (x{})", times + 1);
                return;
            }
        }
        self.transcript.push(fresh);
    }

    /// Hand one fact to the agent, write down what it orders, and check what must always hold.
    pub(super) fn feed(&mut self, event: Event) -> Result<(), String> {
        let before = self.main.agent.explain();
        self.book.happened(&event);
        // The script's own words stand for the event; the scribe hears it to know who is who.
        rules::printable(&self.scribe.event(&event))?;
        let clocks = self.clocks();
        self.main.handle(clocks, &self.key, event.clone(), None);
        self.twin.handle(clocks, &self.key, event.clone(), Some(&mut self.tape));
        if self.main.agent != self.twin.agent || self.main.actions != self.twin.actions {
            return Err("two agents that saw the same differ".to_owned());
        }
        self.twin.actions.drain().for_each(drop);
        let orders: Vec<Action> = self.main.actions.drain().collect();
        for action in &orders {
            let text = self.scribe.action(action);
            rules::printable(&text)?;
            self.line(&text);
            self.book.ordered(self.now, action)?;
        }
        let notices = orders.iter().filter_map(|action| {
            if let Action::Notify(notice) = action { Some(notice) } else { None }
        });
        let notices: Vec<&Notice> = notices.collect();
        let after = self.main.agent.explain();
        rules::bounds(&after)?;
        rules::told(&before, &after, &notices)?;
        rules::no_flip(&event, &notices)?;
        self.stands_still()
    }

    /// The story's flight record tells the same story again.
    pub(super) fn replays(&self) -> Result<(), String> {
        self.tape.replay(&self.main.agent)?;
        self.tape.redact()
    }

    /// A wake-up lies ahead, and until then nothing is left to do.
    fn stands_still(&self) -> Result<(), String> {
        if let Some(deadline) = self.main.agent.deadline()
            && deadline.at <= self.now
        {
            return Err(format!("the wake-up {:?} at {} is not ahead", deadline.wake, deadline.at));
        }
        let mut idle = self.main.clone();
        idle.handle(self.clocks(), &self.key, Event::Tick, None);
        if idle.agent != self.main.agent || !idle.actions.is_empty() {
            return Err(format!("a tick with nothing due did {:?}", idle.actions.as_slice()));
        }
        Ok(())
    }

    /// Let time pass, and wake the agent whenever it wants.
    pub(super) fn pass(&mut self, span: Duration) -> Result<(), String> {
        let until = self.now + span;
        let mut wakes = 0;
        while self.wake_by(until)? {
            wakes += 1;
            if wakes > WAKES_MAX {
                return Err(format!("more than {WAKES_MAX} wake-ups in one step"));
            }
        }
        self.now = until;
        Ok(())
    }

    /// Let time pass until everything has a verdict; whether that came before `most` was over.
    pub(super) fn settle(&mut self, most: Duration) -> Result<bool, String> {
        let until = self.now + most;
        while !self.main.agent.explain().settled {
            if !self.wake_by(until)? {
                self.now = until;
                return Ok(self.main.agent.explain().settled);
            }
        }
        Ok(true)
    }

    /// Let time pass while nobody wakes the agent.
    pub(super) fn oversleep(&mut self, span: Duration) -> Result<(), String> {
        self.now = self.now + span;
        self.line("wake, late");
        self.feed(Event::Tick)
    }

    /// Let time pass while the machine is suspended; the node hears of it before anything else.
    pub(super) fn resume(&mut self, slept: Duration) -> Result<(), String> {
        self.now = self.now + slept;
        self.line("resumed");
        self.feed(Event::Resumed { slept })
    }

    /// Set the wall clock forward, or back.
    pub(super) fn set_unix(&mut self, Shift(millis): Shift) {
        self.unix_ahead = self.unix_ahead.saturating_add(millis);
    }

    /// The moment, by the clock that counts and by the one on the wall.
    fn clocks(&self) -> (Instant, UnixTime) {
        let true_ms = UNIX_START_MS + self.now.as_nanos() / 1_000_000;
        (self.now, UnixTime::from_millis(true_ms.saturating_add_signed(self.unix_ahead)))
    }

    /// What the wall clock shows, in seconds.
    pub(super) fn unix_secs(&self) -> u64 {
        self.clocks().1.as_millis() / 1_000
    }

    fn wake_by(&mut self, until: Instant) -> Result<bool, String> {
        let deadline = self.main.agent.deadline().filter(|deadline| deadline.at <= until);
        let Some(deadline) = deadline else {
            return Ok(false);
        };
        self.now = deadline.at;
        self.line(&transcript::wake(deadline.wake));
        self.feed(Event::Tick)?;
        Ok(true)
    }
}
