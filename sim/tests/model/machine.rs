//! What makes a state machine out of a model: the generator is the bench, and the system under test
//! a second agent that sees the same.

use portolan_sim::facts::walk::by_kind;
use portolan_sim::facts::{Bench, Draws, Fact, Promises, Shape, script};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::Union;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

/// The seed of an ordinary run; any other is as good.
const SEED: u64 = 12;

/// How often each interesting thing occurred.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts(BTreeMap<String, u64>);

impl Counts {
    pub(crate) fn count(&mut self, what: &str) {
        *self.0.entry(what.to_owned()).or_default() += 1;
    }

    fn add(&mut self, other: &Counts) {
        other.0.iter().for_each(|(what, n)| *self.0.entry(what.clone()).or_default() += n);
    }

    /// A run in which nothing happens proves nothing.
    #[track_caller]
    pub(crate) fn demand(&self, all: &[&str]) {
        let missing: Vec<&&str> = all.iter().filter(|what| !self.0.contains_key(**what)).collect();
        assert!(missing.is_empty(), "none of {missing:?} occurred: {:?}", self.0);
    }
}

/// A model of one question.
pub(crate) trait Model: Clone + Default + 'static {
    /// The world in which the question is asked.
    fn shape() -> Shape;
    /// Take in the last fact. What came of it is looked at only where the model has to know what
    /// the agent was free to choose.
    fn happened(&mut self, bench: &Bench) -> Result<(), String>;
    /// Compare what must be with what is.
    fn compare(&mut self, bench: &Bench) -> Result<(), String>;
    /// What occurred.
    fn counts(&self) -> &Counts;
}

/// The reference: what the generator needs, and the model.
#[derive(Clone)]
pub(crate) struct State<M> {
    bench: Bench,
    model: M,
    facts: Vec<Fact>,
    wrong: Option<String>,
}

impl<M> fmt::Debug for State<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {} facts", self.facts.len())
    }
}

pub(crate) struct Reference<M>(PhantomData<M>);

impl<M: Model> ReferenceStateMachine for Reference<M> {
    type State = State<M>;
    type Transition = Fact;

    fn init_state() -> BoxedStrategy<State<M>> {
        let draws = select(vec![Draws::Lowest, Draws::Highest]);
        let draws = if M::shape().settings.dial_back.is_some() {
            // How much dial data is asked for is drawn; the model counts it in one way.
            Just(Draws::Lowest).boxed()
        } else {
            draws.boxed()
        };
        draws
            .prop_map(|draws| {
                let mut shape = M::shape();
                shape.settings.draws = draws;
                let bare = Shape { prologue: Vec::new(), ..shape.clone() };
                let (mut model, mut bench) = (M::default(), Bench::new(Arc::new(bare)));
                let mut wrong = None;
                for fact in &shape.prologue {
                    assert!(bench.perform(fact), "{fact} stands in a prologue");
                    wrong = wrong.or(model.happened(&bench).err());
                }
                let bench = Bench::new(Arc::new(shape));
                State { bench, model, facts: Vec::new(), wrong }
            })
            .boxed()
    }

    fn transitions(state: &State<M>) -> BoxedStrategy<Fact> {
        let kinds = by_kind(state.bench.enabled()).into_iter();
        let any = kinds.map(|(kind, facts)| (kind.weight(), select(facts).boxed()));
        Union::new_weighted(any.collect()).boxed()
    }

    fn preconditions(state: &State<M>, fact: &Fact) -> bool {
        state.bench.allows(fact)
    }

    fn apply(mut state: State<M>, fact: &Fact) -> State<M> {
        if state.bench.perform(fact) && state.wrong.is_none() {
            state.wrong = state.model.happened(&state.bench).err();
            state.wrong = state.wrong.or_else(|| state.model.compare(&state.bench).err());
        }
        state.facts.push(fact.clone());
        state
    }
}

pub(crate) struct Machine<M>(PhantomData<M>);

thread_local! {
    static COUNTS: RefCell<Counts> = RefCell::new(Counts::default());
}

impl<M: Model> StateMachineTest for Machine<M> {
    type SystemUnderTest = Bench;
    type Reference = Reference<M>;

    fn init_test(state: &State<M>) -> Bench {
        Bench::new(Arc::clone(state.bench.shape()))
    }

    fn apply(mut bench: Bench, state: &State<M>, fact: Fact) -> Bench {
        bench.perform(&fact);
        let mut wrong = state.wrong.clone();
        if bench.agent() != state.bench.agent() {
            wrong = Some("two agents that saw the same differ".to_owned());
        }
        wrong = wrong.or_else(|| bench.fault().map(str::to_owned));
        wrong = wrong.or_else(|| Promises::stands_still(&bench).err());
        if let Some(wrong) = wrong {
            let title = "What the model cannot explain.";
            panic!("{wrong}\n\n{}", script(title, bench.shape(), &state.facts));
        }
        bench
    }

    fn teardown(_: Bench, state: State<M>) {
        COUNTS.with_borrow_mut(|counts| counts.add(state.model.counts()));
    }
}

fn from_env(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Run the machine of a model, and say what occurred.
#[allow(clippy::print_stderr, reason = "a failure can be repeated only with its seed")]
pub(crate) fn run<M: Model>(name: &str, cases: u64, facts: Range<usize>) -> Counts {
    let seed = from_env("PORTOLAN_MODEL_SEED", SEED);
    let cases = from_env("PORTOLAN_MODEL_CASES", cases);
    eprintln!("model {name}: PORTOLAN_MODEL_SEED={seed} PORTOLAN_MODEL_CASES={cases}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        cases: u32::try_from(cases).unwrap_or(u32::MAX),
        failure_persistence: None,
        max_shrink_iters: 4_000,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config.clone(), rng);
    COUNTS.take();
    let machine = Reference::<M>::sequential_strategy(facts);
    let done = runner.run(&machine, |(state, facts, applied)| {
        Machine::<M>::test_sequential(config.clone(), state, facts, applied);
        Ok(())
    });
    if let Err(error) = done {
        panic!("model {name}: {error}");
    }
    let counts = COUNTS.take();
    eprintln!("model {name}: {:?}", counts.0);
    counts
}
