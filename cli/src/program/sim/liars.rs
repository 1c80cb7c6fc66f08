//! Servers that lie, many times.

use super::table::{Side, table};
use super::{exit_code, jobs, print_json};
use crate::program::args::SimArgs;
use crate::program::progress::Count;
use crate::program::{Failed, print};
use crate::thousands;
use portolan_sim::liars::{LiarReport, SETTINGS, Setting, WATCHED};
use portolan_sim::workers::spread;
use serde::Serialize;

/// What all seeds of a setting came to.
#[derive(Clone, Debug, Default, Serialize)]
struct Row {
    honest: u8,
    liars: u8,
    /// What they lie.
    vice: &'static str,
    /// Whether strangers really get in.
    open: bool,
    seeds: u64,
    flips: u64,
    false_reachable: u64,
    false_unreachable: u64,
    /// Seeds in which the node was proven reachable.
    proven: u64,
    /// Seeds that broke a promise.
    broken: Vec<u64>,
}

impl Row {
    fn of(setting: &Setting) -> Row {
        let Setting { honest, liars, vice, open } = *setting;
        Row { honest, liars, vice: vice.name(), open, ..Row::default() }
    }

    fn add(&mut self, seed: u64, report: &LiarReport) {
        self.seeds += 1;
        self.flips += report.flips;
        self.false_reachable += report.false_reachable;
        self.false_unreachable += report.false_unreachable;
        self.proven += u64::from(report.proven);
        if report.violation.is_some() {
            self.broken.push(seed);
        }
    }

    fn failed(&self) -> bool {
        let false_verdicts = self.false_reachable + self.false_unreachable;
        self.flips + false_verdicts > 0 || !self.broken.is_empty()
    }

    fn cells(&self) -> Vec<String> {
        let number = |number: u64| thousands(number.into());
        vec![
            self.honest.to_string(),
            format!("{} {}", self.liars, self.vice),
            if self.open { "open" } else { "closed" }.into(),
            number(self.seeds),
            number(self.flips),
            number(self.false_reachable),
            number(self.false_unreachable),
            number(self.proven),
            number(self.broken.len() as u64),
        ]
    }
}

/// Run so many seeds of each setting, and print a table.
pub(super) fn run(seeds: u64, args: &SimArgs) -> Result<u8, Failed> {
    let mut rows: Vec<Row> = SETTINGS.iter().map(Row::of).collect();
    let all = seeds.saturating_mul(rows.len() as u64);
    let bar = Count::new(all, "runs");
    let place = |run: u64| usize::try_from(run / seeds.max(1)).unwrap_or(usize::MAX);
    let seed = |run: u64| run % seeds.max(1) + 1;
    let mut done = 0;
    spread(
        0..all,
        jobs(args),
        |run| SETTINGS.get(place(run)).map(|setting| setting.run(seed(run))),
        &mut |run, report: Option<LiarReport>| {
            if let Some((row, report)) = rows.get_mut(place(run)).zip(report) {
                row.add(seed(run), &report);
                if let Some(violation) = &report.violation {
                    bar.say(&format!("seed {}, {}: {violation}", seed(run), row.cells()[1]));
                }
            }
            done += 1;
            bar.at(done, "");
            true
        },
    );
    bar.finish();
    rows.iter_mut().for_each(|row| row.broken.sort_unstable());
    if args.json {
        print_json(&rows)?;
    } else {
        print(&text(&rows))?;
    }
    Ok(exit_code(rows.iter().any(Row::failed)))
}

fn text(rows: &[Row]) -> String {
    let heading = [
        ("honest", Side::Right),
        ("liars", Side::Left),
        ("node", Side::Left),
        ("seeds", Side::Right),
        ("flips", Side::Right),
        ("false reachable", Side::Right),
        ("false unreachable", Side::Right),
        ("proven", Side::Right),
        ("broken promises", Side::Right),
    ];
    let cells: Vec<Vec<String>> = rows.iter().map(Row::cells).collect();
    let sum = |of: fn(&Row) -> u64| thousands(rows.iter().map(of).sum::<u64>().into());
    format!(
        "{}\n{} runs of {} s: {} flips, {} false Reachable, {} false Unreachable\n",
        table(&heading, &cells),
        sum(|row| row.seeds),
        WATCHED.as_secs(),
        sum(|row| row.flips),
        sum(|row| row.false_reachable),
        sum(|row| row.false_unreachable),
    )
}
