//! Numbers and texts as the page writes them.

use crate::matrix::Matrix;
use portolan_core::Duration;
use std::fmt::{self, Write};

/// A text that HTML takes as text, in elements and in attributes.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// How slow something is, from 0 to `LEVELS - 1`; each has a colour.
pub(super) fn level(round_trips: f64) -> usize {
    BOUNDS.iter().position(|bound| round_trips <= *bound).unwrap_or(BOUNDS.len())
}

/// The most round trips of each level but the last; ours: a connection takes two to four, a verdict
/// some more, and what is beyond ten has waited for something.
pub(super) const BOUNDS: [f64; 6] = [4.0, 6.0, 8.0, 12.0, 20.0, 120.0];

/// What a level says, in words.
pub(super) fn level_words(level: usize) -> String {
    match (level.checked_sub(1).and_then(|below| BOUNDS.get(below)), BOUNDS.get(level)) {
        (None, Some(most)) => format!("up to {most} RTT"),
        (Some(least), Some(most)) => format!("{least} to {most} RTT"),
        (Some(least), None) => format!("more than {least} RTT"),
        (None, None) => String::new(),
    }
}

/// A span in round trips.
pub(super) fn round_trips(matrix: &Matrix, span: Duration) -> String {
    let number = matrix.round_trips(span);
    if number < 100.0 { format!("{number:.1} RTT") } else { format!("{number:.0} RTT") }
}

/// A span in milliseconds, or in seconds where those are many.
pub(super) fn millis(span: Duration) -> String {
    let millis = span.as_secs_f64() * 1_000.0;
    if millis < 1_000.0 { format!("{millis:.0} ms") } else { format!("{:.2} s", millis / 1_000.0) }
}

/// Bytes, as many as matter.
pub(super) fn size(bytes: u64) -> String {
    format!("{:.1} kB", bytes as f64 / 1_000.0)
}

/// A number of things.
pub(super) fn plural(number: usize, what: &str) -> String {
    let tail = if number == 1 { "" } else { "s" };
    format!("{number} {what}{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_cover_everything_and_say_so() {
        assert_eq!((level(0.0), level(4.0), level(4.1), level(1e6)), (0, 0, 1, BOUNDS.len()));
        assert_eq!(level_words(0), "up to 4 RTT");
        assert_eq!(level_words(1), "4 to 6 RTT");
        assert_eq!(level_words(BOUNDS.len()), "more than 120 RTT");
        assert!(BOUNDS.is_sorted());
    }
}
