//! The same cells in the simulator: how many round trips a verdict takes there, and in the lab.

use super::cells::{Cell, Site};
use super::experiments::Run;
use super::plan::{Task, whole};
use super::results::quantile;
use super::rules::{Kind, Layer};
use portolan_core::{Class, Duration, Family, Transport};
use portolan_sim::matrix::{self, sample};
use portolan_sim::net::{Dependence, Refusal};
use portolan_sim::world::Costs;
use std::fmt::Write as _;

/// Runs of the simulator, number.
const SEEDS: u64 = 20;

/// A table of the cells with delay that a simulated one is like, as far as they were run.
pub fn table(runs: &[Run]) -> String {
    let mut text =
        "| network | listens on | one way ms | lab ms | lab RTT | simulator RTT | ratio |\n\
        |---|---|---:|---:|---:|---:|---:|\n"
            .to_owned();
    for task in whole() {
        let Task::Check(cell) = task else { continue };
        let Some(simulated) = twin(&cell) else { continue };
        let name = cell.name();
        let of_cell = runs.iter().filter(|run| run.cell == name).map(|run| run.verdict_ms);
        let Some(millis) = quantile(50, of_cell) else { continue };
        let one_way = u64::try_from(cell.conditions.delay.as_millis()).unwrap_or(u64::MAX);
        let round_trip = 2 * one_way;
        let tenths = |millis: u64| (millis * 10 + round_trip / 2) / round_trip;
        let took = |seed| {
            let round_trip = Duration::from_millis(round_trip);
            let took = sample(&simulated, seed, round_trip, 0, Costs::PORTOLAN).took;
            u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
        };
        let there = quantile(50, (1..=SEEDS).map(took)).unwrap_or_default();
        let _ = writeln!(
            text,
            "| {} | {} | {one_way} | {millis} | {} | {} | {} |",
            cell.site.name(),
            cell.transports.name(),
            point(tenths(millis), 10),
            point(tenths(there), 10),
            (millis * 100).checked_div(there).map_or("–".to_owned(), |parts| point(parts, 100)),
        );
    }
    text
}

/// A number of tenths or of hundredths.
fn point(parts: u64, of: u64) -> String {
    let digits = if of == 10 { 1 } else { 2 };
    format!("{}.{:0digits$}", parts / of, parts % of)
}

/// The simulated cell that is like this one, if one is and its time is one of round trips.
fn twin(cell: &Cell) -> Option<matrix::Cell> {
    let independent = Dependence::Independent;
    let kind = match cell.site {
        Site::Open => matrix::Kind::None,
        Site::Behind(Kind::Independent(filtering), Refusal::Reject) => {
            matrix::Kind::Nat(independent, filtering)
        }
        Site::Behind(Kind::Dependent, Refusal::Reject) => {
            matrix::Kind::Nat(Dependence::AddressAndPort, Dependence::AddressAndPort)
        }
        Site::Behind(..)
        | Site::Forwarded(..)
        | Site::Blocked(..)
        | Site::Double(_)
        | Site::OpenIp6(..) => return None,
    };
    let transport = match cell.transports.layers() {
        [Layer::Tcp] => Transport::Tcp,
        [Layer::Udp] => Transport::Quic,
        _ => return None,
    };
    let delayed = !cell.conditions.delay.is_zero() && cell.conditions.loss_percent == 0;
    let class = Class::new(Family::Ip4, transport);
    delayed.then_some(matrix::Cell { kind, class, servers: matrix::Servers::Multihomed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_delayed_cell_that_ends_in_round_trips_has_a_twin() {
        let cells = whole().into_iter().filter_map(|task| match task {
            Task::Check(cell) => Some(cell),
            Task::Live(_) => None,
        });
        let (with, without): (Vec<Cell>, Vec<Cell>) =
            cells.filter(|cell| cell.experiment == "A6").partition(|cell| twin(cell).is_some());
        assert!(with.len() >= 20, "{}", with.len());
        let silent = |cell: &Cell| matches!(cell.site, Site::Behind(_, Refusal::Silent));
        assert!(without.iter().all(silent), "{without:?}");
    }

    #[test]
    fn parts_are_written_with_a_point() {
        assert_eq!([point(62, 10), point(104, 100), point(7, 100)], ["6.2", "1.04", "0.07"]);
    }
}
