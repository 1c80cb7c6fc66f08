//! One agent on the bench: facts go in, one event at a time, and everything that comes of them is
//! kept until the next fact.

use super::books::Books;
use super::chance::Chance;
use super::fact::Fact;
use super::shape::{Settings, Shape};
use portolan_core::{Action, Actions, Agent, Cx, Duration, Event, Instant, Signer, UnixTime, Wake};
use std::sync::Arc;

/// The wall clock when a story begins, in milliseconds.
const UNIX_START_MS: u64 = 1_700_000_000_000;
/// Wake-ups in one fact, number; ours: a day of pings at several connections has fewer.
const WAKES_MAX: usize = 50_000;

/// Signatures are not what is looked at here.
struct Stamp;

impl Signer for Stamp {
    fn sign(&mut self, _: &[u8]) -> Vec<u8> {
        vec![7; 64]
    }
}

/// One event that the agent was told, and what came of it.
#[derive(Clone, Debug)]
pub struct Step {
    /// When.
    pub at: Instant,
    /// The reason, where a deadline woke the agent.
    pub wake: Option<Wake>,
    /// What it was told.
    pub event: Event,
    /// What it ordered.
    pub actions: Vec<Action>,
}

/// One agent, its clock, its chance, and the books.
#[derive(Clone, Debug)]
pub struct Bench {
    pub(super) shape: Arc<Shape>,
    agent: Agent,
    chance: Chance,
    pub(super) now: Instant,
    pub(super) books: Books,
    pub(super) steps: Vec<Step>,
    fault: Option<String>,
}

impl Bench {
    /// A bench on which the prologue of the shape has happened.
    ///
    /// # Panics
    /// The shape's settings are refused, or its prologue makes no sense.
    pub fn new(shape: Arc<Shape>) -> Bench {
        let agent = Agent::new(shape.settings.config(), Settings::identity());
        let mut bench = Bench {
            agent: agent.expect("a shape has sound settings"),
            chance: Chance::new(shape.settings.draws),
            now: Instant::ZERO,
            books: Books::default(),
            steps: Vec::new(),
            fault: None,
            shape,
        };
        for fact in bench.shape.prologue.clone() {
            assert!(bench.perform(&fact), "{fact} cannot stand in a prologue");
        }
        bench.steps.clear();
        bench
    }

    /// A bench on which these facts have happened after the prologue. `None` where one of them
    /// cannot.
    pub fn replayed(shape: &Arc<Shape>, facts: &[Fact]) -> Option<Bench> {
        let mut bench = Bench::new(Arc::clone(shape));
        facts.iter().all(|fact| bench.perform(fact)).then_some(bench)
    }

    /// The agent, to be looked at.
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// The moment.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// What stands, what was asked, what was ordered.
    pub fn books(&self) -> &Books {
        &self.books
    }

    /// The world that this is.
    pub fn shape(&self) -> &Arc<Shape> {
        &self.shape
    }

    /// Everything that the last fact was made of, and what came of it.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The first order that nobody could have carried out, if there was one.
    pub fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// Forget what the last fact was made of: a bench that is only kept to go on from is smaller so.
    pub fn forget_steps(&mut self) {
        self.steps = Vec::new();
    }

    /// What the agent does when it is told at this moment that time has passed, which must be
    /// nothing; and whether it stays as it is when it is told so again.
    pub fn idle(&self) -> (Vec<Action>, bool) {
        let mut idle = self.clone();
        idle.steps.clear();
        idle.feed(Event::Tick);
        let before = idle.agent.clone();
        idle.feed(Event::Tick);
        let stays = idle.agent == before;
        (idle.steps.into_iter().flat_map(|step| step.actions).collect(), stays)
    }

    pub(super) fn feed(&mut self, event: Event) {
        self.told(None, event);
    }

    /// Let time pass, and wake the agent whenever it wants.
    pub(super) fn pass(&mut self, span: Duration) {
        let until = self.now + span;
        for _ in 0..WAKES_MAX {
            let Some(deadline) = self.agent.deadline().filter(|deadline| deadline.at <= until)
            else {
                self.now = until;
                return;
            };
            self.now = deadline.at;
            self.told(Some(deadline.wake), Event::Tick);
        }
        self.blame(format!("more than {WAKES_MAX} wake-ups in {span:?}"));
        self.now = until;
    }

    fn told(&mut self, wake: Option<Wake>, event: Event) {
        self.books.happened(&event);
        let mut actions = Actions::new();
        let mut cx = Cx {
            now: self.now,
            unix: UnixTime::from_millis(UNIX_START_MS + self.now.as_nanos() / 1_000_000),
            draw: &mut self.chance,
            sign: &mut Stamp,
            actions: &mut actions,
        };
        self.agent.handle(&mut cx, event.clone());
        let actions: Vec<Action> = actions.drain().collect();
        for action in &actions {
            if let Err(fault) = self.books.ordered(self.now, action) {
                self.blame(fault);
            }
        }
        self.steps.push(Step { at: self.now, wake, event, actions });
    }

    fn blame(&mut self, fault: String) {
        self.fault.get_or_insert(fault);
    }
}
