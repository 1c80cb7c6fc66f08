//! The NAT matrix: as a table, as JSON, and as a page.

use super::scenario::Told;
use super::table::{Side, table};
use super::{exit_code, jobs, node, print_json};
use crate::program::args::SimArgs;
use crate::program::progress::Count;
use crate::program::{FAILURE, Failed, print};
use crate::thousands;
use portolan_core::Duration;
use portolan_sim::html::{self, Story};
use portolan_sim::matrix::{CellReport, Conditions, Matrix, cells, measure};
use portolan_sim::plan::{Odds, drawn};
use portolan_sim::summary::{Spread, Summary, parted};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The seed whose run the page shows unless another is chosen.
const SHOWN: u64 = 1;

/// Measure every cell, print what comes out, and write the page if one is wanted.
pub(super) fn run(args: &SimArgs) -> Result<u8, Failed> {
    // A percent is ten thousand parts in a million.
    let (round_trip, loss_ppm) = (Duration::from_millis(args.rtt), args.loss * 10_000);
    let bar = Count::new(cells().len() as u64, "cells");
    let mut done = 0;
    let conditions = Conditions { round_trip, loss_ppm, runs: args.runs, jobs: jobs(args) };
    let matrix = measure(&conditions, &|_| true, &mut |report| {
        done += 1;
        for broken in report.samples.iter().filter_map(|sample| sample.violation.as_ref()) {
            bar.say(&format!("{}: {broken}", title(report)));
        }
        bar.at(done, "");
    });
    bar.finish();
    let summary = matrix.summary();
    if args.json {
        print_json(&document(&matrix, &summary))?;
    } else {
        print(&text(&matrix, &summary))?;
    }
    if let Some(file) = &args.html {
        write_page(&matrix, args, file)?;
    }
    // Where packets get lost, a run may come to less than the evidence of all packets permits.
    let short = args.loss == 0 && summary.right < summary.runs;
    Ok(exit_code(summary.wrong > 0 || short))
}

fn write_page(matrix: &Matrix, args: &SimArgs, file: &Path) -> Result<(), Failed> {
    let seed = args.seed.unwrap_or(SHOWN);
    let plan = drawn(seed, &Odds::default());
    let scenario = plan.to_string();
    let node = node(&plan, args.node.as_deref())?;
    let told = Told::of(plan, node);
    let story = Story {
        title: &format!("Seed {seed}, as {} sees it", told.name()),
        command: &format!("portolan sim --seed {seed}"),
        outcome: &told.outcome(),
        scenario: &scenario,
        lines: told.lines(),
    };
    let page = html::page(matrix, &command(args, file), &story);
    fs::write(file, page)
        .map_err(|error| Failed { code: FAILURE, error: format!("{}: {error}", file.display()) })
}

/// The command that makes the same page.
fn command(args: &SimArgs, file: &Path) -> String {
    let SimArgs { runs, loss, rtt, .. } = args;
    let seed = args.seed.map(|seed| format!(" --seed {seed}")).unwrap_or_default();
    let node = args.node.as_ref().map(|name| format!(" --node {name}")).unwrap_or_default();
    let file = file.display();
    format!(
        "portolan sim --matrix --runs {runs} --loss {loss} --rtt {rtt}{seed}{node} --html {file}"
    )
}

fn title(report: &CellReport) -> String {
    let cell = report.cell;
    format!("{}, {}, {}", cell.kind.name(), cell.class, cell.servers.name())
}

fn text(matrix: &Matrix, summary: &Summary) -> String {
    let lossy = matrix.loss_ppm > 0;
    let heading = [
        ("kind", Side::Left),
        ("class", Side::Left),
        ("servers", Side::Left),
        ("verdict", Side::Left),
        ("scope or reason", Side::Left),
        (if lossy { "right/wrong/undecided" } else { "right" }, Side::Right),
        ("RTT", Side::Right),
        ("ms", Side::Right),
        ("p95 RTT", Side::Right),
        ("p95 ms", Side::Right),
        ("packets", Side::Right),
        ("bytes", Side::Right),
    ];
    let rtt = |span| format!("{:.2}", matrix.round_trips(span));
    let row = |report: &CellReport| {
        let (verdict, rest) = parted(report.conclusion());
        let (median, p95) = (report.took(50), report.took(95));
        let right = report.right();
        vec![
            report.cell.kind.name(),
            report.cell.class.to_string(),
            report.cell.servers.name().into(),
            verdict.into(),
            rest.into(),
            if lossy {
                format!("{right}/{}/{}", report.wrong(), report.undecided())
            } else {
                format!("{right}/{}", report.samples.len())
            },
            rtt(median),
            millis(median),
            rtt(p95),
            millis(p95),
            thousands(report.packets().into()),
            thousands(report.bytes().into()),
        ]
    };
    let rows: Vec<Vec<String>> = matrix.cells.iter().map(row).collect();
    format!("{}\n{}", table(&heading, &rows), summed_up(matrix, summary))
}

/// What stands below the table.
fn summed_up(matrix: &Matrix, summary: &Summary) -> String {
    let Summary { runs, right, wrong, transports, named_in } = summary;
    let spread = |spread: &Spread| {
        let Spread { runs, median, p95, max } = *spread;
        let rtt = |span| format!("{:.2} RTT ({} ms)", matrix.round_trips(span), millis(span));
        let runs = thousands(runs as u128);
        format!("{runs} runs, median {}, p95 {}, slowest {}", rtt(median), rtt(p95), rtt(max))
    };
    let mut text = format!(
        "{} cells, a round trip of {} ms, {} % of packets lost\n\
         {} runs: {} right, {} wrong, {} undecided\n",
        matrix.cells.len(),
        millis(matrix.round_trip),
        f64::from(matrix.loss_ppm) / 10_000.0,
        thousands(*runs as u128),
        thousands(*right as u128),
        thousands(*wrong as u128),
        thousands(runs.saturating_sub(right + wrong) as u128),
    );
    for one in transports {
        let name = one.transport.name();
        text += &format!("{name}, every cell: {}\n", spread(&one.all));
        text += &format!("{name}, no dial has to time out: {}\n", spread(&one.prompt));
    }
    if let Some(named_in) = named_in {
        text += &format!(
            "endpoint-dependent mapping named after the second observation, single-IP servers: {}\n",
            spread(named_in)
        );
    }
    text
}

/// Milliseconds with one digit behind the point where it says something.
fn millis(span: Duration) -> String {
    let millis = span.as_secs_f64() * 1_000.0;
    if millis < 1_000.0 { format!("{millis:.1}") } else { format!("{millis:.0}") }
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    round_trip_ms: f64,
    loss_percent: f64,
    runs: usize,
    right: usize,
    wrong: usize,
    transports: Vec<TransportEntry>,
    /// How long it took to call an endpoint-dependent mapping by its name.
    named_in: Option<SpreadEntry>,
    cells: Vec<CellEntry<'a>>,
}

#[derive(Debug, Serialize)]
struct TransportEntry {
    transport: &'static str,
    all: SpreadEntry,
    /// Cells in which no dial has to time out.
    prompt: SpreadEntry,
}

#[derive(Debug, Serialize)]
struct SpreadEntry {
    runs: usize,
    median_rtt: f64,
    median_ms: f64,
    p95_rtt: f64,
    p95_ms: f64,
    max_rtt: f64,
    max_ms: f64,
}

#[derive(Debug, Serialize)]
struct CellEntry<'a> {
    kind: String,
    class: String,
    servers: &'static str,
    expected: &'static str,
    /// Every conclusion that runs came to, and how many.
    conclusions: BTreeMap<&'a str, usize>,
    right: usize,
    wrong: usize,
    undecided: usize,
    took: SpreadEntry,
    packets: u64,
    bytes: u64,
}

fn document<'a>(matrix: &'a Matrix, summary: &Summary) -> Document<'a> {
    let ms = |span: Duration| span.as_secs_f64() * 1_000.0;
    let entry = |spread: Spread| SpreadEntry {
        runs: spread.runs,
        median_rtt: matrix.round_trips(spread.median),
        median_ms: ms(spread.median),
        p95_rtt: matrix.round_trips(spread.p95),
        p95_ms: ms(spread.p95),
        max_rtt: matrix.round_trips(spread.max),
        max_ms: ms(spread.max),
    };
    let transports = summary.transports.iter().map(|one| TransportEntry {
        transport: one.transport.name(),
        all: entry(one.all),
        prompt: entry(one.prompt),
    });
    let cell = |report: &'a CellReport| CellEntry {
        kind: report.cell.kind.name(),
        class: report.cell.class.to_string(),
        servers: report.cell.servers.name(),
        expected: report.expected,
        conclusions: report.conclusions(),
        right: report.right(),
        wrong: report.wrong(),
        undecided: report.undecided(),
        took: entry(Spread::of(report.samples.iter().map(|one| one.took)).unwrap_or_default()),
        packets: report.packets(),
        bytes: report.bytes(),
    };
    Document {
        round_trip_ms: ms(matrix.round_trip),
        loss_percent: f64::from(matrix.loss_ppm) / 10_000.0,
        runs: summary.runs,
        right: summary.right,
        wrong: summary.wrong,
        transports: transports.collect(),
        named_in: summary.named_in.map(entry),
        cells: matrix.cells.iter().map(cell).collect(),
    }
}
