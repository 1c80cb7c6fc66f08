//! What is said about a row of measurements.

use serde_json::{Value, json};
use std::time::Duration;

/// There was nothing to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoRuns;

/// Measurements in milliseconds, summed up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Stats {
    pub(crate) runs: usize,
    /// The middle one; of an even number the mean of the middle two.
    pub(crate) median: f64,
    /// The smallest one that at least 95 of 100 do not exceed (nearest rank).
    pub(crate) p95: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Stats {
    pub(crate) fn new(spans: &[Duration]) -> Result<Stats, NoRuns> {
        let mut sorted: Vec<f64> = spans.iter().map(|span| span.as_secs_f64() * 1_000.0).collect();
        sorted.sort_by(f64::total_cmp);
        let (Some(&min), Some(&max)) = (sorted.first(), sorted.last()) else {
            return Err(NoRuns);
        };
        let runs = sorted.len();
        let median = (sorted[(runs - 1) / 2] + sorted[runs / 2]) / 2.0;
        let p95 = sorted[(runs * 95).div_ceil(100) - 1];
        Ok(Stats { runs, median, p95, min, max })
    }

    pub(crate) fn document(&self) -> Value {
        json!({
            "runs": self.runs,
            "median_ms": rounded(self.median),
            "p95_ms": rounded(self.p95),
            "min_ms": rounded(self.min),
            "max_ms": rounded(self.max),
        })
    }
}

/// Two digits after the point: more would be noise.
pub(crate) fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(millis: impl IntoIterator<Item = u64>) -> Result<Stats, NoRuns> {
        Stats::new(&millis.into_iter().map(Duration::from_millis).collect::<Vec<_>>())
    }

    #[test]
    fn ranks_are_the_nearest() {
        assert_eq!(of([]), Err(NoRuns));
        let one = Stats { runs: 1, median: 7.0, p95: 7.0, min: 7.0, max: 7.0 };
        assert_eq!(of([7]), Ok(one));
        let three = Stats { runs: 3, median: 2.0, p95: 3.0, min: 1.0, max: 3.0 };
        assert_eq!(of([3, 1, 2]), Ok(three));
        let fifty = Stats { runs: 50, median: 25.5, p95: 48.0, min: 1.0, max: 50.0 };
        assert_eq!(of((1..=50).rev()), Ok(fifty));
    }

    #[test]
    fn the_document_is_rounded() {
        let stats = Stats { runs: 2, median: 1.2345, p95: 2.0, min: 0.001, max: 2.0 };
        let document = json!({
            "runs": 2, "median_ms": 1.23, "p95_ms": 2.0, "min_ms": 0.0, "max_ms": 2.0,
        });
        assert_eq!(stats.document(), document);
    }
}
