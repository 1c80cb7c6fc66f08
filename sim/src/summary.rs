//! What the matrix says as a whole, and in which words its cells are shown.

use crate::matrix::{CellReport, Matrix, Sample};
use portolan_core::{Duration, Transport};
use std::collections::BTreeMap;

/// How long several runs took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// How many runs.
    pub runs: usize,
    /// Half of them took at most so long.
    pub median: Duration,
    /// 95 of a hundred took at most so long.
    pub p95: Duration,
    /// The slowest took so long.
    pub max: Duration,
}

/// What all cells of one transport came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportSummary {
    /// The transport.
    pub transport: Transport,
    /// All runs.
    pub all: Spread,
    /// The runs of cells in which no dial has to time out, see [`CellReport::waits`].
    pub prompt: Spread,
}

/// What the matrix came to as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Runs of all cells.
    pub runs: usize,
    /// Runs that came to what the algebra says.
    pub right: usize,
    /// Runs that came to what is false, or broke a promise.
    pub wrong: usize,
    /// One for each transport.
    pub transports: Vec<TransportSummary>,
    /// From the second network's observation to the word that the mapping depends on the endpoint,
    /// with servers of one IP each; nothing where no such cell was run.
    pub named_in: Option<Spread>,
}

impl Spread {
    /// The spread of these spans; nothing of none.
    pub fn of(spans: impl Iterator<Item = Duration>) -> Option<Spread> {
        let mut all: Vec<Duration> = spans.collect();
        all.sort();
        let at = |percent: usize| all.get((all.len() * percent).div_ceil(100).checked_sub(1)?);
        Some(Spread { runs: all.len(), median: *at(50)?, p95: *at(95)?, max: *all.last()? })
    }
}

/// A conclusion in two parts: the verdict, and its scope or its reason.
pub fn parted(conclusion: &str) -> (&str, &str) {
    if ["anywhere", "contacted"].iter().any(|scope| conclusion.starts_with(scope)) {
        return ("reachable", conclusion);
    }
    conclusion.split_once(", ").unwrap_or((conclusion, ""))
}

impl CellReport {
    /// Every conclusion that runs came to, and how many did.
    pub fn conclusions(&self) -> BTreeMap<&str, usize> {
        let mut found = BTreeMap::new();
        for sample in &self.samples {
            *found.entry(sample.words.as_str()).or_default() += 1;
        }
        found
    }

    /// The conclusion that most runs came to.
    pub fn conclusion(&self) -> &str {
        let most = self.conclusions().into_iter().max_by_key(|(_, runs)| *runs);
        most.map_or(self.expected, |(words, _)| words)
    }

    /// Runs that are neither right nor wrong: they came to less than the evidence permits.
    pub fn undecided(&self) -> usize {
        self.samples.len().saturating_sub(self.right() + self.wrong())
    }

    /// Whether the conclusion has to wait until a dial times out: the gates of the matrix drop what
    /// they do not let in, and silence takes its time.
    pub fn waits(&self) -> bool {
        self.expected == "private, dial failed" || self.expected == "contacted-only"
    }
}

impl Matrix {
    /// What it came to as a whole.
    pub fn summary(&self) -> Summary {
        let sum = |of: fn(&CellReport) -> usize| self.cells.iter().map(of).sum();
        let of_transport = |transport| {
            let spread = |wanted: &dyn Fn(&CellReport) -> bool| {
                let cells = self
                    .cells
                    .iter()
                    .filter(|report| report.cell.class.transport == transport && wanted(report));
                let took = |report: &CellReport| Vec::from_iter(report.samples.iter().map(took));
                Spread::of(cells.flat_map(took)).unwrap_or_default()
            };
            TransportSummary {
                transport,
                all: spread(&|_| true),
                prompt: spread(&|report| !report.waits()),
            }
        };
        let samples = self.dependent().flat_map(|report| report.samples.iter());
        Summary {
            runs: sum(|report| report.samples.len()),
            right: sum(CellReport::right),
            wrong: sum(CellReport::wrong),
            transports: [Transport::Tcp, Transport::Quic].map(of_transport).to_vec(),
            named_in: Spread::of(samples.filter_map(|sample| sample.named_in)),
        }
    }

    /// A span in round trips.
    pub fn round_trips(&self, span: Duration) -> f64 {
        span.as_secs_f64() / self.round_trip.as_secs_f64()
    }

    /// How many runs each cell has had.
    pub fn runs(&self) -> usize {
        self.cells.first().map_or(0, |report| report.samples.len())
    }
}

fn took(sample: &Sample) -> Duration {
    sample.took
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_of_what_there_is() {
        let of = |millis: &[u64]| Spread::of(millis.iter().map(|ms| Duration::from_millis(*ms)));
        assert_eq!(of(&[]), None);
        let spread = of(&[5, 1, 4, 2, 3]).expect("there are some");
        assert_eq!((spread.runs, spread.median.as_millis(), spread.p95.as_millis()), (5, 3, 5));
        let hundred = of(&(1..=100).collect::<Vec<_>>()).expect("there are some");
        assert_eq!((hundred.median.as_millis(), hundred.p95.as_millis()), (50, 95));
        assert_eq!(hundred.max.as_millis(), 100);
    }

    #[test]
    fn conclusions_fall_into_two_parts() {
        assert_eq!(parted("anywhere"), ("reachable", "anywhere"));
        assert_eq!(parted("contacted, presumed open"), ("reachable", "contacted, presumed open"));
        assert_eq!(parted("private, dial failed"), ("private", "dial failed"));
        assert_eq!(parted("unknown"), ("unknown", ""));
    }
}
