//! What runs came to, as tables.

use super::beside_sim;
use super::experiments::{Run, said};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// The runs of one cell.
#[derive(Clone, Debug, Default)]
pub struct Row {
    runs: Vec<Run>,
}

impl Row {
    /// Runs whose conclusion was the strongest that the evidence permits, and nothing was false.
    pub fn right(&self) -> usize {
        self.runs.iter().filter(|run| run.is_right()).count()
    }

    /// Runs in which a socket proved a verdict false.
    pub fn wrong(&self) -> usize {
        self.runs.iter().filter(|run| !run.wrong.is_empty()).count()
    }

    fn quantile(&self, percent: usize, of: impl Fn(&Run) -> u64) -> u64 {
        quantile(percent, self.runs.iter().map(of)).unwrap_or_default()
    }
}

/// The smallest of the values that so many percent of them do not exceed.
pub fn quantile(percent: usize, values: impl Iterator<Item = u64>) -> Option<u64> {
    let mut all: Vec<u64> = values.collect();
    all.sort_unstable();
    let at = (all.len() * percent).div_ceil(100).saturating_sub(1);
    all.get(at).copied()
}

/// Runs by cell, in the order in which cells came.
pub fn by_cell(runs: &[Run]) -> Vec<Row> {
    let mut order: BTreeMap<&str, usize> = BTreeMap::new();
    let mut rows: Vec<Row> = Vec::new();
    for run in runs {
        let next = rows.len();
        let at = *order.entry(&run.cell).or_insert(next);
        if at == next {
            rows.push(Row::default());
        }
        rows[at].runs.push(run.clone());
    }
    rows
}

/// Every cell, as a table for people, which is one of Markdown too.
pub fn table(runs: &[Run]) -> String {
    let mut text = "| experiment | network | servers | listens on | circumstances | runtime | \
        concluded | right | false | verdict ms | p95 ms | settled ms | packets | bytes |\n\
        |---|---|---|---|---|---|---|---:|---:|---:|---:|---:|---:|---:|\n"
        .to_owned();
    for row in by_cell(runs) {
        let Some(run) = row.runs.first() else { continue };
        let count = row.runs.len();
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {}/{count} | {} | {} | {} | {} | {} | {} |",
            run.experiment,
            run.site,
            run.servers,
            run.transports,
            run.circumstances,
            run.runtime,
            run.said.join(", "),
            row.right(),
            row.wrong(),
            row.quantile(50, |run| run.verdict_ms),
            row.quantile(95, |run| run.verdict_ms),
            row.quantile(50, |run| run.elapsed_ms),
            row.quantile(50, |run| run.packets),
            row.quantile(50, |run| run.bytes),
        );
    }
    let slowest = runs.iter().map(|run| run.built_ms).max().unwrap_or_default();
    let _ = writeln!(text, "\nNo network took longer than {slowest} ms to build.");
    text
}

/// What else was measured in some cells, and how much of it.
pub fn figures(runs: &[Run]) -> String {
    let mut text =
        "| experiment | network | circumstances | runtime | what | runs | median | most |\n\
        |---|---|---|---|---|---:|---:|---:|\n"
            .to_owned();
    for row in by_cell(runs) {
        let Some(run) = row.runs.first() else { continue };
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in row.runs.iter().flat_map(|run| &run.times) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        for name in names {
            let all = row.runs.iter().flat_map(|run| &run.times);
            let of_name = || all.clone().filter(|(one, _)| one == name).map(|(_, value)| *value);
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {name} | {} | {} | {} |",
                run.experiment,
                run.site,
                run.circumstances,
                run.runtime,
                of_name().count(),
                quantile(50, of_name()).unwrap_or_default(),
                of_name().max().unwrap_or_default(),
            );
        }
    }
    text
}

/// Every kind of network with every transport, where nothing else is odd.
pub fn overview(runs: &[Run]) -> String {
    let mut text = "| network | listens on | runs | right | false | verdict ms | p95 ms | \
        packets | bytes |\n|---|---|---:|---:|---:|---:|---:|---:|---:|\n"
        .to_owned();
    let mut rows: Vec<(&str, &str, Row)> = Vec::new();
    for run in runs.iter().filter(|run| run.circumstances.is_empty()) {
        let (site, transports) = (run.site.as_str(), run.transports.as_str());
        match rows.iter_mut().find(|(at, over, _)| (*at, *over) == (site, transports)) {
            Some((_, _, row)) => row.runs.push(run.clone()),
            None => rows.push((site, transports, Row { runs: vec![run.clone()] })),
        }
    }
    for (site, transports, row) in rows {
        let _ = writeln!(
            text,
            "| {site} | {transports} | {} | {} | {} | {} | {} | {} | {} |",
            row.runs.len(),
            row.right(),
            row.wrong(),
            row.quantile(50, |run| run.verdict_ms),
            row.quantile(95, |run| run.verdict_ms),
            row.quantile(50, |run| run.packets),
            row.quantile(50, |run| run.bytes),
        );
    }
    text
}

/// The page of results.
pub fn page(runs: &[Run]) -> String {
    let commits: BTreeSet<&str> = runs.iter().map(|run| run.commit.as_str()).collect();
    let wrong = runs.iter().filter(|run| !run.wrong.is_empty()).count();
    let right = runs.iter().filter(|run| run.is_right()).count();
    format!(
        "# What the lab measured\n\n\
         Written by `cargo run --release -p portolan-tests --bin lab` on {}, at commit {}, Linux {}, {}.\n\
         Every run builds its network anew, in namespaces without delay unless it is said. Times count from the\n\
         first dial: *verdict* until the conclusion stood (median and 95th percentile), *settled* until nothing more\n\
         was to be learnt; packets and bytes are those of the node's interface, both ways, handshakes included.\n\
         *Right*: the strongest conclusion that the evidence permits. *False*: a socket proved a verdict\n\
         false (a stranger and a contacted server knock at what is called reachable, and at a few others). What is run is told in\n\
         [the lab](lab.md).\n\n\
         {} runs: {right} right, {wrong} with a false verdict.\n\n\
         ## By network and transport\n\n{}\n\
         ## Applications whose world changes, and other figures\n\n\
         Milliseconds, unless it is a number of something.\n\n{}\n\
         ## Round trips, beside the simulator\n\n\
         The simulator's nodes know two servers more, and nothing there takes time but the way.\n\n{}\n\
         ## Every cell\n\n{}",
        said("date", &["-u", "+%Y-%m-%d"]),
        commits.into_iter().collect::<Vec<_>>().join(" and "),
        said("uname", &["-r"]),
        said("nft", &["--version"]),
        runs.len(),
        overview(runs),
        figures(runs),
        beside_sim::table(runs),
        table(runs),
    )
}
