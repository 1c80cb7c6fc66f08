//! What a page shows at one moment, as its script reads it.

use portolan_core::{Duration, Instant, NodeState};
use serde::Serialize;
use std::time::{SystemTime, UNIX_EPOCH};

/// Everything that the page shows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct View {
    /// The command, such as `portolan watch`.
    pub(crate) program: &'static str,
    pub(crate) version: &'static str,
    pub(crate) peer_id: String,
    pub(crate) headline: Headline,
    pub(crate) figures: Vec<Figure>,
    pub(crate) sections: Vec<Section>,
}

/// What matters most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Headline {
    pub(crate) tone: Tone,
    pub(crate) state: String,
    pub(crate) reason: String,
    /// More of why, a sentence each.
    pub(crate) why: Vec<String>,
}

/// How good it is. The words say it as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Tone {
    Good,
    Warn,
    Bad,
    Calm,
}

impl From<NodeState> for Tone {
    fn from(state: NodeState) -> Tone {
        match state {
            NodeState::Public => Tone::Good,
            NodeState::Limited => Tone::Warn,
            NodeState::Private => Tone::Bad,
            NodeState::Unknown => Tone::Calm,
        }
    }
}

/// One figure with its name.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Figure {
    pub(crate) label: &'static str,
    pub(crate) value: Cell,
}

impl Figure {
    pub(crate) fn new(label: &'static str, value: Cell) -> Figure {
        Figure { label, value }
    }

    /// A plain number.
    pub(crate) fn count(label: &'static str, count: impl TryInto<u128>) -> Figure {
        let count = count.try_into().unwrap_or(u128::MAX);
        Figure::new(label, Cell::text(crate::thousands(count)))
    }
}

/// A table with a title.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Section {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) note: Option<String>,
    pub(crate) columns: Vec<&'static str>,
    /// What each place of each row holds, one thing after the other.
    pub(crate) rows: Vec<Vec<Vec<Cell>>>,
    /// What is said where there is no row.
    pub(crate) empty: &'static str,
    /// Whether it has many short rows, for people to skim.
    pub(crate) is_log: bool,
}

impl Section {
    pub(crate) fn new<const N: usize>(
        id: &'static str,
        title: &'static str,
        columns: [&'static str; N],
        empty: &'static str,
    ) -> Section {
        let (columns, rows) = (columns.into(), Vec::new());
        Section { id, title, note: None, columns, rows, empty, is_log: false }
    }

    /// One more row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Vec<Cell>>) {
        self.rows.push(cells.into_iter().collect());
    }
}

/// One thing in a place.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Cell {
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tone: Option<Tone>,
    /// How a moment is told: `ago`, `in`, or `for`.
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<&'static str>,
    /// Milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<u64>,
    /// How much of a bar is full, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    share: Option<f64>,
}

impl Cell {
    /// Words.
    pub(crate) fn text(text: impl Into<String>) -> Cell {
        Cell { text: Some(text.into()), ..Cell::default() }
    }

    /// Something to be copied: an address, a peer.
    pub(crate) fn code(text: impl ToString) -> Cell {
        Cell { kind: Some("code"), ..Cell::text(text.to_string()) }
    }

    /// A word that says how good it is.
    pub(crate) fn badge(text: impl Into<String>, tone: Tone) -> Cell {
        Cell { kind: Some("badge"), tone: Some(tone), ..Cell::text(text) }
    }

    /// A bar.
    pub(crate) fn bar(share: f64) -> Cell {
        Cell { kind: Some("bar"), share: Some(share), ..Cell::default() }
    }

    fn moment(how: &'static str, at: u64) -> Cell {
        Cell { kind: Some("time"), time: Some(how), at: Some(at), ..Cell::default() }
    }
}

/// Which of a node's moments is which time of day. It is found out once: two clocks that are read anew
/// each time would never agree to the millisecond, and every view would look changed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// Milliseconds since 1970.
    unix: u64,
    since: Instant,
}

impl Clock {
    /// The node's time is this one now.
    pub(crate) fn set(since: Instant) -> Clock {
        Clock { unix: unix_now(), since }
    }

    /// So long before now.
    pub(crate) fn ago(&self, at: Instant) -> Cell {
        Cell::moment("ago", self.unix_of(at))
    }

    /// So long from now.
    pub(crate) fn until(&self, at: Instant) -> Cell {
        Cell::moment("in", self.unix_of(at))
    }

    /// For so long by now.
    pub(crate) fn lasting(&self, since: Instant) -> Cell {
        Cell::moment("for", self.unix_of(since))
    }

    pub(super) fn unix_of(&self, at: Instant) -> u64 {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        if at >= self.since {
            self.unix.saturating_add(millis(at.since(self.since)))
        } else {
            self.unix.saturating_sub(millis(self.since.since(at)))
        }
    }
}

/// The time of day, milliseconds since 1970.
fn unix_now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_before_and_after_the_clock_was_set_are_told() {
        let clock = Clock { unix: 1_000_000, since: Instant::from_millis(500) };
        assert_eq!(clock.ago(Instant::from_millis(400)).at, Some(999_900));
        assert_eq!(clock.until(Instant::from_millis(1_500)).at, Some(1_001_000));
        let cell = serde_json::to_value(clock.lasting(Instant::from_millis(500))).expect("JSON");
        let wanted = serde_json::json!({ "kind": "time", "time": "for", "at": 1_000_000 });
        assert_eq!(cell, wanted);
    }
}
