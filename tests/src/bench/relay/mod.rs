//! A relay's load and its patience with abuse: ours beside rust-libp2p's, in one run.

pub(crate) mod abuse;
pub(crate) mod child;
pub(crate) mod client;
pub(crate) mod crowd;
pub(crate) mod heap;
pub(crate) mod load;
pub(crate) mod memory;
pub(crate) mod process;
pub(crate) mod profile;

use std::fmt;

/// Why nothing was measured.
#[derive(Debug)]
pub(crate) struct Fault(String);

impl Fault {
    pub(crate) fn new(text: String) -> Fault {
        Fault(text)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An error of a library becomes a fault with its words.
macro_rules! faults {
    ($($error:ty),* $(,)?) => {
        $(impl From<$error> for Fault {
            fn from(error: $error) -> Fault {
                Fault(error.to_string())
            }
        })*
    };
}

faults!(
    std::io::Error,
    libp2p::noise::Error,
    libp2p::TransportError<std::io::Error>,
    multiaddr::Error,
    portolan_runtime::StartError,
    tokio::runtime::TryCurrentError,
    tokio::task::JoinError,
);

impl From<&str> for Fault {
    fn from(text: &str) -> Fault {
        Fault(text.to_owned())
    }
}

/// The middle one; of an even number the mean of the middle two; none is not a number.
pub(crate) fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = |at: usize| sorted.get(at).copied().unwrap_or(f64::NAN);
    (middle(sorted.len().saturating_sub(1) / 2) + middle(sorted.len() / 2)) / 2.0
}

/// The smallest one that at least this many of 100 do not exceed.
pub(crate) fn percentile(numbers: &[f64], percent: usize) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// Three digits after the point: more would be noise.
pub(crate) fn rounded(number: f64) -> f64 {
    (number * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_the_nearest() {
        assert!(median(&[]).is_nan() && percentile(&[], 99).is_nan());
        assert_eq!((median(&[7.0]), percentile(&[7.0], 99)), (7.0, 7.0));
        assert_eq!(median(&[3.0, 1.0, 2.0, 10.0]), 2.5);
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!((percentile(&hundred, 50), percentile(&hundred, 99)), (50.0, 99.0));
    }
}
