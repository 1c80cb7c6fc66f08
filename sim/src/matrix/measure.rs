//! Running the cells, and what is measured there.

use super::cells::{Cell, Kind, Servers, cells};
use crate::net::{Dependence, Traffic};
use crate::plan::Run;
use crate::watch::Violation;
use crate::workers::spread;
use crate::world::{Costs, NodeId};
use portolan_core::{Class, Duration, Instant, NodeState, Notice, Reason};

/// How long a cell runs, in the world: any verdict has come by then, and nothing was renewed.
const LASTS: Duration = Duration::from_secs(12);
/// The same where packets get lost: dials time out and are repeated.
const LASTS_LOSSY: Duration = Duration::from_secs(90);

/// What one run of a cell came to.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The conclusion, in words.
    pub words: String,
    /// From the first dial to the moment from which on the conclusion stood.
    pub took: Duration,
    /// From the second network's observation to the word that the mapping depends on the endpoint.
    pub named_in: Option<Duration>,
    /// What the node sent and received until the conclusion stood and everybody had answered.
    pub traffic: Traffic,
    /// A promise that was broken, or a conclusion that is false.
    pub violation: Option<Violation>,
    /// Facts that cores were told.
    pub events: u64,
}

/// What all runs of a cell came to.
#[derive(Clone, Debug)]
pub struct CellReport {
    /// The cell.
    pub cell: Cell,
    /// What the algebra says.
    pub expected: &'static str,
    /// Every run.
    pub samples: Vec<Sample>,
}

/// The matrix.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// A round trip to every server.
    pub round_trip: Duration,
    /// Packets lost, parts in a million.
    pub loss_ppm: u32,
    /// Every cell.
    pub cells: Vec<CellReport>,
}

impl CellReport {
    /// Runs that came to what the algebra says, and broke no promise.
    pub fn right(&self) -> usize {
        let right = |sample: &&Sample| sample.words == self.expected && sample.violation.is_none();
        self.samples.iter().filter(right).count()
    }

    /// Runs that came to a conclusion that is false, or broke a promise. A weaker one than the
    /// evidence permits is not false.
    pub fn wrong(&self) -> usize {
        let wrong = |sample: &&Sample| {
            let reachable =
                |words: &str| ["anywhere", "contacted"].iter().any(|one| words.starts_with(one));
            let open = reachable(self.expected);
            let said = reachable(&sample.words);
            let private = sample.words.starts_with("private");
            let wider = sample.words.starts_with("anywhere") && self.expected != "anywhere";
            sample.violation.is_some() || said && !open || private && open || wider
        };
        self.samples.iter().filter(wrong).count()
    }

    /// The time that so many parts in a hundred of the runs took at most.
    pub fn took(&self, percent: usize) -> Duration {
        quantile(self.samples.iter().map(|sample| sample.took), percent)
    }

    /// The median of packets, both ways.
    pub fn packets(&self) -> u64 {
        median(self.samples.iter().map(|sample| sample.traffic.packets()))
    }

    /// The median of bytes, both ways.
    pub fn bytes(&self) -> u64 {
        median(self.samples.iter().map(|sample| sample.traffic.bytes()))
    }
}

/// The value that so many parts in a hundred reach at most.
pub(super) fn quantile(values: impl Iterator<Item = Duration>, percent: usize) -> Duration {
    let mut all: Vec<Duration> = values.collect();
    all.sort();
    let at = (all.len() * percent).div_ceil(100).saturating_sub(1);
    all.get(at.min(all.len().saturating_sub(1))).copied().unwrap_or_default()
}

fn median(values: impl Iterator<Item = u64>) -> u64 {
    let mut all: Vec<u64> = values.collect();
    all.sort_unstable();
    all.get(all.len() / 2).copied().unwrap_or_default()
}

/// One run of a cell.
pub fn sample(cell: &Cell, seed: u64, round_trip: Duration, loss_ppm: u32, costs: Costs) -> Sample {
    let plan = cell.plan(seed, round_trip, loss_ppm, costs);
    let lasts = if loss_ppm > 0 { LASTS_LOSSY } else { LASTS };
    let mut run = Run::new(plan);
    run.world.keep_notices();
    let client = NodeId(0);
    let mut violation = None;
    let mut traffic = Traffic::default();
    let steps = 60;
    for step in 1..=steps {
        if let Err(broken) = run.until(lasts * step / steps) {
            violation = Some(broken);
            break;
        }
        let settled = run.world.node(client).agent().explain().settled;
        if traffic == Traffic::default() && settled {
            traffic = run.world.fabric.traffic(run.world.node(client).host());
        }
    }
    if traffic == Traffic::default() {
        traffic = run.world.fabric.traffic(run.world.node(client).host());
    }
    let began = run.world.node(client).first_dial_at().unwrap_or_default();
    let (stood_at, named_in) = timeline(&run, cell.class);
    Sample {
        words: run.standing(0, cell.class).words(),
        took: stood_at.since(began),
        named_in,
        traffic,
        violation,
        events: run.world.counts().events,
    }
}

/// When the conclusion about a class came to stand; and how long after the second observation the
/// mapping was called endpoint-dependent.
#[allow(clippy::wildcard_enum_match_arm, reason = "a few of many notices tell of this class")]
fn timeline(run: &Run, class: Class) -> (Instant, Option<Duration>) {
    let (mut stood_at, mut last) = (Instant::ZERO, None);
    let (mut observed, mut second_at, mut named_at) = (0, None, None);
    for told in run.world.notices().iter().filter(|told| told.node == NodeId(0)) {
        match &told.notice {
            Notice::ClassChanged { class: of, state, reason } if *of == class => {
                let dependent = matches!(reason, Reason::EndpointDependentMapping { .. });
                let word = (*state, if dependent { None } else { Some(kind_of(*reason)) });
                if last.replace(word) != Some(word) {
                    stood_at = told.at;
                }
                if dependent && *state == NodeState::Private {
                    named_at.get_or_insert(told.at);
                }
            }
            Notice::VerdictChanged { addr, scope: Some(_), .. } if addr.class() == class => {
                let scope = run.world.node(NodeId(0)).agent().reachability().verdict(*addr);
                if scope.is_some() && told.at > stood_at && last.is_some() {
                    // Which scope stands in the end is told by the class; a wider one moves it.
                    stood_at = stood_at.max(widened(run, class, told.at).unwrap_or(stood_at));
                }
            }
            Notice::Identified { observed: Some(addr), .. } if addr.class() == class => {
                observed += 1;
                if observed == 2 {
                    second_at = Some(told.at);
                }
            }
            _ => {}
        }
    }
    let named_in = named_at.zip(second_at).map(|(named, second)| named.since(second));
    (stood_at, named_in)
}

/// A reason without its numbers.
fn kind_of(reason: Reason) -> Reason {
    if let Reason::DialFailed { .. } = reason { Reason::DialFailed { servers: 0 } } else { reason }
}

/// The moment, if it is the one in which the widest scope of a class was reached.
fn widened(run: &Run, class: Class, at: Instant) -> Option<Instant> {
    let widest = run.standing(0, class).scope?;
    let first = run.world.notices().iter().find(|told| {
        matches!(&told.notice, Notice::VerdictChanged { addr, scope: Some(scope), .. }
            if addr.class() == class && *scope == widest)
    })?;
    (first.at == at).then_some(at)
}

/// How to run the cells.
#[derive(Clone, Copy, Debug)]
pub struct Conditions {
    /// A round trip to every server.
    pub round_trip: Duration,
    /// Packets lost, parts in a million.
    pub loss_ppm: u32,
    /// How often each cell runs, each time with another seed.
    pub runs: u64,
    /// How many threads run them.
    pub jobs: usize,
}

/// Run every cell so often. `done` hears of each cell as it comes to its end.
pub fn measure(
    conditions: &Conditions,
    wanted: &dyn Fn(&Cell) -> bool,
    done: &mut dyn FnMut(&CellReport),
) -> Matrix {
    let Conditions { round_trip, loss_ppm, runs, jobs } = *conditions;
    let report = |cell: Cell| CellReport { cell, expected: cell.expected(), samples: Vec::new() };
    let mut reports: Vec<CellReport> = cells().into_iter().filter(wanted).map(report).collect();
    let wanted: Vec<Cell> = reports.iter().map(|report| report.cell).collect();
    let mut samples: Vec<Vec<(u64, Sample)>> = reports.iter().map(|_| Vec::new()).collect();
    let place = |run: u64| usize::try_from(run / runs.max(1)).unwrap_or(usize::MAX);
    spread(
        0..runs * wanted.len() as u64,
        jobs,
        |run| {
            let cell = wanted.get(place(run))?;
            Some(sample(cell, run % runs + 1, round_trip, loss_ppm, Costs::PORTOLAN))
        },
        &mut |run, sample| {
            let at = place(run);
            if let Some((samples, sample)) = samples.get_mut(at).zip(sample) {
                samples.push((run, sample));
                if samples.len() as u64 == runs {
                    samples.sort_by_key(|(run, _)| *run);
                    reports[at].samples = samples.drain(..).map(|(_, sample)| sample).collect();
                    done(&reports[at]);
                }
            }
            true
        },
    );
    Matrix { round_trip, loss_ppm, cells: reports }
}

impl Matrix {
    /// The cells whose mapping depends on the endpoint, with single-IP servers.
    pub fn dependent(&self) -> impl Iterator<Item = &CellReport> {
        self.cells.iter().filter(|report| {
            matches!(report.cell.kind, Kind::Nat(mapping, _) if mapping != Dependence::Independent)
                && report.cell.servers == Servers::Single
        })
    }
}
