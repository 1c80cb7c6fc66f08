//! What came of a story, and of all of them as a page.

use crate::netlab::results::quantile;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::io;

/// What came of a story.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Tale {
    /// What happens in it, in words.
    pub(super) plot: String,
    /// The transports to the relays, in words.
    pub(super) transports: String,
    /// What everybody ran on.
    pub(super) runtime: String,
    /// The commit of the program that told it.
    pub(super) commit: String,
    /// What was measured: numbers by what they count.
    pub(super) figures: Vec<(String, u64)>,
    /// What is not as it should be.
    pub(super) problems: Vec<String>,
    /// How many of them are that something took too long.
    pub(super) late: usize,
}

impl Tale {
    /// Write down what was measured. What it is counted in ends its name.
    pub(super) fn figure(&mut self, what: &str, value: u64) {
        self.figures.push((what.to_owned(), value));
    }

    pub(super) fn expect(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.problems.push(otherwise());
        }
    }

    /// What was measured must not be more than this.
    pub(super) fn at_most(&mut self, what: &str, value: u64, most: std::time::Duration) {
        self.figure(what, value);
        let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
        self.late += usize::from(value > most);
        self.expect(value <= most, || format!("{what}: {value}, more than {most}"));
    }

    /// Whether nothing is wrong but that it took too long, as it does where others have the machine.
    pub(super) fn is_only_late(&self) -> bool {
        self.late > 0 && self.late == self.problems.len()
    }

    pub(super) fn failed(mut self, error: &io::Error) -> Tale {
        self.problems.push(error.to_string());
        self
    }

    /// Its name, by which an argument picks it.
    pub(super) fn name(&self) -> String {
        format!("{} · {} · {}", self.plot, self.transports, self.runtime)
    }

    pub(super) fn line(&self) -> String {
        let figures = self.figures.iter().map(|(what, value)| format!("{what} {value}"));
        let problems = self.problems.iter().map(|problem| format!("PROBLEM: {problem}"));
        figures.chain(problems).collect::<Vec<_>>().join("; ")
    }
}

/// The page of them all.
pub(super) fn page(tales: &[Tale], kernel: &str) -> String {
    let commit = tales.first().map_or("", |tale| tale.commit.as_str());
    let problems: usize = tales.iter().map(|tale| tale.problems.len()).sum();
    let mut text = format!(
        "# What the lab measured of relays\n\n\
         Written by `PORTOLAN_LAB_WHOLE=1 cargo test -p portolan-tests --test relay -- --runs=2 --page`, at commit {commit}, \
         Linux {kernel}.\nThe node is behind APD×APD that drops what nobody asked for, 20 ms one way from everybody \
         else, a round trip being 40 ms; relays and\nstrangers are on one bridge. What is told in each \
         story is in [the lab](lab.md#relays). Times are of the machine that ran it, which\nothers used \
         as well, and of a debug build.\n\n{} stories, {problems} problems.\n\n\
         | story | relays over | what | runs | median | most |\n|---|---|---|---:|---:|---:|\n",
        tales.len()
    );
    let mut rows: Vec<(&str, &str, &str)> = Vec::new();
    for tale in tales {
        for (what, _) in &tale.figures {
            let row = (tale.plot.as_str(), tale.transports.as_str(), what.as_str());
            if !rows.contains(&row) {
                rows.push(row);
            }
        }
    }
    // By story and transport, and within them in the order in which things were measured.
    rows.sort_by_key(|(plot, transports, _)| (*plot, *transports));
    for (plot, transports, what) in rows {
        let of = tales.iter().filter(|one| one.plot == plot && one.transports == transports);
        let values: Vec<u64> = of
            .flat_map(|tale| &tale.figures)
            .filter(|(one, _)| one == what)
            .map(|(_, value)| *value)
            .collect();
        let at = |percent| quantile(percent, values.iter().copied()).unwrap_or_default();
        let (median, most) = (at(50), at(100));
        let count = values.len();
        let _ = writeln!(text, "| {plot} | {transports} | {what} | {count} | {median} | {most} |");
    }
    for tale in tales.iter().filter(|tale| !tale.problems.is_empty()) {
        let _ = writeln!(text, "\n{}: {}", tale.name(), tale.problems.join("; "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_what_is_wrong() {
        let mut tale = Tale { plot: "killed".into(), ..Tale::default() };
        tale.at_most("withdrawn, ms", 7, std::time::Duration::from_millis(7));
        assert_eq!((tale.problems.len(), tale.is_only_late()), (0, false));
        tale.at_most("withdrawn, ms", 9, std::time::Duration::from_millis(8));
        assert!(tale.is_only_late());
        let page = page(&[tale.clone()], "6");
        assert!(page.contains("1 stories, 1 problems"), "{page}");
        assert!(page.contains("| killed |  | withdrawn, ms | 2 | 7 | 9 |"), "{page}");
        assert!(page.contains("withdrawn, ms: 9, more than 8"), "{page}");
        tale.expect(false, || "and it is wrong".into());
        assert!(!tale.is_only_late());
    }
}
