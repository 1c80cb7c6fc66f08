//! Two peers behind routers of every kind, connected by a relay: whether they get a direct
//! connection, on which attempt, how soon, and what is sent where none can be had.
//!
//! ```text
//!   relay  s1  s2  s3
//!     └─────┴───┴───┴── bridge ══ 15 ms each way ══ wan router lan ── b    who took the circuit
//!                          ╚═════ 15 ms each way ══ wan router lan ── a    who opened it
//! ```

#![allow(clippy::print_stdout, reason = "this is what a program says")]

mod forgetful;
mod meeting;
mod session;
mod tale;
mod world;

use super::peers::On;
use super::rules::{Kind, Layer};
use super::{available, program};
use meeting::Meeting;
use portolan_sim::net::{Dependence, Refusal};
use portolan_sim::workers::spread;
use std::process::ExitCode;
use std::thread;
use std::time::Instant;
use tale::Tale;

/// Stories that are lived at once, number; ours: most of each is waiting.
const JOBS: usize = 4;
/// Bytes that a session carries in the gate and in the whole lab, number: in the gate enough for a
/// second on a circuit.
const SHORT_BYTES: usize = 8_000_000;
const WHOLE_BYTES: usize = 100_000_000;

/// What stands in front of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Front {
    /// One router.
    Home(Kind),
    /// A home router behind a carrier's, both EI×APD.
    Double,
    /// A stateful firewall, and IPv6 alone.
    Firewall6,
}

impl Front {
    const EI: Front = Front::Home(Kind::Independent(Dependence::Independent));
    const AD: Front = Front::Home(Kind::Independent(Dependence::Address));
    const APD: Front = Front::Home(Kind::Independent(Dependence::AddressAndPort));
    const DEPENDENT: Front = Front::Home(Kind::Dependent);

    fn name(self) -> String {
        match self {
            Front::Home(kind) => kind.name(),
            Front::Double => "double NAT".into(),
            Front::Firewall6 => "firewall, IPv6".into(),
        }
    }

    /// Who gets in at a mapping that is known.
    const fn lets_in(self) -> Dependence {
        match self {
            Front::Home(Kind::Independent(filtering)) => filtering,
            Front::Home(Kind::Dependent | Kind::Firewall) | Front::Double | Front::Firewall6 => {
                Dependence::AddressAndPort
            }
        }
    }

    fn is_dependent(self) -> bool {
        self == Front::DEPENDENT
    }
}

/// Two peers and what they speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Story {
    /// In front of who opened the circuit, and of who took it.
    fronts: [Front; 2],
    layer: Layer,
    refusal: Refusal,
    on: On,
}

/// Every pair, the harder one in front of who opened the circuit.
const PAIRS: [[Front; 2]; 12] = [
    [Front::EI, Front::EI],
    [Front::AD, Front::EI],
    [Front::AD, Front::AD],
    [Front::APD, Front::EI],
    [Front::APD, Front::AD],
    [Front::APD, Front::APD],
    [Front::DEPENDENT, Front::EI],
    [Front::DEPENDENT, Front::AD],
    [Front::DEPENDENT, Front::APD],
    [Front::DEPENDENT, Front::DEPENDENT],
    [Front::Double, Front::APD],
    [Front::Firewall6, Front::Firewall6],
];

impl Story {
    fn name(&self) -> String {
        let [a, b] = self.fronts.map(Front::name);
        let refusal = match self.refusal {
            Refusal::Silent => "dropping",
            Refusal::Reject => "rejecting",
        };
        format!("{a} – {b} · {} · {refusal} · {}", self.layer.name(), self.on.name())
    }

    /// Whether packets can get through: one side knows where the other is, and is let in. Told here
    /// by the rules of the routers alone.
    fn is_possible(&self) -> bool {
        let [a, b] = self.fronts;
        let enters = |outer: Front, inner: Front| match inner.lets_in() {
            Dependence::Independent | Dependence::Address => !inner.is_dependent(),
            Dependence::AddressAndPort => !inner.is_dependent() && !outer.is_dependent(),
        };
        enters(a, b) || enters(b, a)
    }
}

/// All pairs once, or as often as `--runs=N` says, each time with the other one in front and on the
/// other runtime; or those whose name contains the argument. Without root or the tools it says what
/// was skipped, which is a failure where `PORTOLAN_REQUIRE_LAB` is set.
pub fn pass() -> ExitCode {
    program::told("the lab of punching", available(), |wanted| {
        // Most of it is silence.
        let silences = thread::scope(|scope| {
            let silences = scope.spawn(|| forgetful::all(wanted));
            pairs(wanted) + meetings(wanted) + silences.join().unwrap_or(1)
        });
        silences + sessions(wanted)
    })
}

/// Live through all pairs.
fn pairs(wanted: &str) -> usize {
    let started = Instant::now();
    let is_whole = program::is_whole();
    let stories: Vec<Story> = (0..program::runs())
        .flat_map(|run| all(run, is_whole))
        .filter(|story| story.name().contains(wanted))
        .collect();
    let story = |number: u64| stories.get(usize::try_from(number).ok()?);
    let mut tales = Vec::new();
    spread(
        0..stories.len() as u64,
        JOBS,
        |number| story(number).map(|story| (*story, Instant::now(), story.live())),
        &mut |_, lived: Option<(Story, Instant, Tale)>| {
            if let Some((story, began, tale)) = lived {
                println!("{} ({} s): {}", story.name(), began.elapsed().as_secs(), tale.line());
                tales.push((story, tale));
            }
            true
        },
    );
    println!("punching: {} stories in {} s", stories.len(), started.elapsed().as_secs());
    print!("{}", tale::summary(&tales));
    tales.iter().map(|(_, tale)| tale.problems.len()).sum()
}

/// Live through what happens with other implementations.
fn meetings(wanted: &str) -> usize {
    let started = Instant::now();
    let is_whole = program::is_whole();
    let (mut meetings, mut problems) = (Vec::new(), 0);
    for run in 0..program::runs() {
        let (all, missing) = meeting::all(run, is_whole);
        meetings.extend(all.into_iter().filter(|meeting| meeting.name().contains(wanted)));
        problems += missing;
    }
    let meeting = |number: u64| meetings.get(usize::try_from(number).ok()?);
    spread(
        0..meetings.len() as u64,
        JOBS,
        |number| meeting(number).map(|one| (*one, Instant::now(), one.live())),
        &mut |_, lived: Option<(Meeting, Instant, Tale)>| {
            if let Some((meeting, began, tale)) = lived {
                println!("{} ({} s): {}", meeting.name(), began.elapsed().as_secs(), tale.line());
                problems += tale.problems.len();
            }
            true
        },
    );
    let count = meetings.len();
    println!("punching with others: {count} stories in {} s", started.elapsed().as_secs());
    problems
}

/// Carry sessions, one after the other: each takes what the machine gives.
fn sessions(wanted: &str) -> usize {
    let bytes = if program::is_whole() { WHOLE_BYTES } else { SHORT_BYTES };
    let mut problems = 0;
    for layer in Layer::ALL {
        for on in On::ALL {
            let fronts = [Front::APD, Front::APD];
            let story = Story { fronts, layer, refusal: Refusal::Silent, on };
            let name = format!("session · {}", story.name());
            if name.contains(wanted) {
                let tale = story.carry(bytes);
                println!("{name}: {bytes} bytes there and back: {}", tale.line());
                problems += tale.problems.len();
            }
        }
    }
    problems
}

/// The stories of one run. In the gate each pair has one transport with each kind of refusal.
fn all(run: usize, is_whole: bool) -> impl Iterator<Item = Story> {
    let pairs = PAIRS.into_iter().enumerate();
    pairs.flat_map(move |(number, mut fronts)| {
        if run % 2 == 1 {
            fronts.reverse();
        }
        let both = [(Layer::Udp, Refusal::Silent), (Layer::Tcp, Refusal::Reject)];
        let others = [(Layer::Tcp, Refusal::Silent), (Layer::Udp, Refusal::Reject)];
        let on = On::ALL[(run + number) % 2];
        let of = move |(layer, refusal)| Story { fronts, layer, refusal, on };
        both.into_iter().chain(others.into_iter().filter(move |_| is_whole)).map(of)
    })
}
