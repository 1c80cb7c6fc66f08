//! How the times to a verdict are spread, for each transport and conclusion.

use super::text::{Escaped, level, millis, plural};
use crate::matrix::{Matrix, Sample};
use portolan_core::{Duration, Transport};
use std::collections::BTreeMap;

/// Where things stand, in the units of the drawing.
const WIDTH: f64 = 1_000.0;
const LEFT: f64 = 250.0;
const RIGHT: f64 = 980.0;
const TOP: f64 = 42.0;
const ROW: f64 = 50.0;
/// How high the highest bar is.
const BAR: f64 = 40.0;
/// How many bars a row has at most; ours: each some pixels wide.
const BINS: usize = 60;
/// Where lines stand, in round trips.
const TICKS: [f64; 12] =
    [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0];

/// A drawing for each transport.
pub(super) fn section(matrix: &Matrix) -> String {
    let mut out = String::from(
        "<section>\n<h2>Time to the verdict</h2>\n\
         <p>Every run is counted once, in the row of the conclusion that it came to. The scale is \
         logarithmic. What stands far right has waited until a dial timed out: nothing else tells a \
         node that packets are dropped in silence.</p>\n",
    );
    for transport in [Transport::Tcp, Transport::Quic] {
        let of_transport =
            matrix.cells.iter().filter(|report| report.cell.class.transport == transport);
        let samples: Vec<&Sample> = of_transport.flat_map(|report| &report.samples).collect();
        if !samples.is_empty() {
            out += &format!("<h3>{}</h3>\n", transport.name().to_uppercase());
            out += &drawing(matrix, transport, &samples);
        }
    }
    out += "</section>\n";
    out
}

/// The logarithmic axis.
struct Axis {
    least: f64,
    most: f64,
}

impl Axis {
    /// Wide enough for these numbers of round trips, from tick to tick.
    fn of(numbers: impl Iterator<Item = f64>) -> Axis {
        let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
        for number in numbers {
            (least, most) = (least.min(number), most.max(number));
        }
        let below = TICKS.into_iter().rev().find(|tick| *tick <= least);
        let above = TICKS.into_iter().find(|tick| *tick > most);
        Axis { least: below.unwrap_or(TICKS[0]), most: above.unwrap_or(most * 1.1) }
    }

    /// Which bar a number falls into.
    fn bin(&self, number: f64) -> usize {
        let place = self.share(number) * BINS as f64;
        (0..BINS).find(|bin| place < (bin + 1) as f64).unwrap_or(BINS - 1)
    }

    /// How far along the axis a number stands, from 0 to 1.
    fn share(&self, number: f64) -> f64 {
        let share = (number / self.least).ln() / (self.most / self.least).ln();
        share.clamp(0.0, 1.0)
    }

    /// The middle of a bar, in round trips.
    fn middle(&self, bin: usize) -> f64 {
        self.least * (self.most / self.least).powf((bin as f64 + 0.5) / BINS as f64)
    }
}

fn across(share: f64) -> f64 {
    LEFT + share * (RIGHT - LEFT)
}

fn drawing(matrix: &Matrix, transport: Transport, samples: &[&Sample]) -> String {
    let number = |sample: &Sample| matrix.round_trips(sample.took);
    let axis = Axis::of(samples.iter().map(|sample| number(sample)));
    let mut rows: BTreeMap<&str, Vec<&Sample>> = BTreeMap::new();
    for sample in samples {
        rows.entry(&sample.words).or_default().push(sample);
    }
    let bins = |row: &[&Sample]| {
        let mut bins = [0_usize; BINS];
        for sample in row {
            bins[axis.bin(number(sample))] += 1;
        }
        bins
    };
    let highest = rows.values().flat_map(|row| bins(row)).max().unwrap_or(1).max(1);
    let bottom = TOP + ROW * rows.len() as f64;
    let height = bottom + 40.0;
    let label = format!(
        "Times from the first dial to the verdict over {}, {}",
        transport.name().to_uppercase(),
        plural(samples.len(), "run")
    );
    let mut out = format!(
        "<div class=\"wide\"><svg role=\"img\" viewBox=\"0 0 {WIDTH} {height}\">\n\
         <title>{label}</title>\n"
    );
    out += &grid(matrix, &axis, bottom);
    for (place, (words, row)) in rows.iter().enumerate() {
        let base = TOP + ROW * (place + 1) as f64;
        out += &strip(matrix, &axis, words, (&bins(row), highest), base);
    }
    out += "</svg></div>\n";
    out
}

/// The lines of the axis, with round trips below and time above.
fn grid(matrix: &Matrix, axis: &Axis, bottom: f64) -> String {
    let mut out = format!(
        "<text class=\"soft\" x=\"{LEFT}\" y=\"12\">time</text>\n\
         <text class=\"soft\" x=\"{LEFT}\" y=\"{}\">round trips (RTT)</text>\n",
        bottom + 36.0
    );
    for tick in TICKS.into_iter().filter(|tick| (axis.least..=axis.most).contains(tick)) {
        let x = across(axis.share(tick));
        let time = millis(Duration::from_secs_f64(tick * matrix.round_trip.as_secs_f64()));
        out += &format!(
            "<line class=\"grid\" x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\"/>\
             <text text-anchor=\"middle\" x=\"{x:.1}\" y=\"{}\">{tick}</text>\
             <text text-anchor=\"middle\" x=\"{x:.1}\" y=\"{}\">{time}</text>\n",
            bottom + 18.0,
            TOP - 12.0,
        );
    }
    out
}

/// The bars of one conclusion.
fn strip(
    matrix: &Matrix,
    axis: &Axis,
    words: &str,
    (bins, highest): (&[usize; BINS], usize),
    base: f64,
) -> String {
    let count: usize = bins.iter().sum();
    let mut out = format!(
        "<text x=\"0\" y=\"{}\">{}</text><text class=\"soft\" x=\"0\" y=\"{}\">{}</text>\n\
         <line class=\"axis\" x1=\"{LEFT}\" y1=\"{base}\" x2=\"{RIGHT}\" y2=\"{base}\"/>\n",
        base - 22.0,
        Escaped(words),
        base - 7.0,
        plural(count, "run"),
    );
    let width = (RIGHT - LEFT) / BINS as f64 - 1.0;
    for (bin, runs) in bins.iter().enumerate().filter(|(_, runs)| **runs > 0) {
        let tall = (BAR * *runs as f64 / highest as f64).max(2.0);
        let middle = axis.middle(bin);
        let time = millis(Duration::from_secs_f64(middle * matrix.round_trip.as_secs_f64()));
        out += &format!(
            "<rect class=\"b{}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{tall:.1}\">\
             <title>{}, about {middle:.1} RTT ({time}): {}</title></rect>\n",
            level(middle),
            across(bin as f64 / BINS as f64),
            base - tall,
            plural(*runs, "run"),
            Escaped(words),
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_its_bar() {
        let axis = Axis::of([3.0, 250.0].into_iter());
        assert_eq!((axis.least, axis.most), (2.0, 500.0));
        assert_eq!((axis.bin(2.0), axis.bin(500.0)), (0, BINS - 1));
        assert!(axis.bin(3.0) < axis.bin(30.0));
        let middle = axis.middle(axis.bin(30.0));
        assert!((27.0..33.0).contains(&middle), "{middle}");
        let alone = Axis::of([7.0].into_iter());
        assert!(alone.bin(7.0) < BINS);
    }
}
