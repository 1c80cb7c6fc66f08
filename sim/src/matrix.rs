//! The NAT matrix: what a node concludes behind every kind of network, and how fast.

mod cells;
mod measure;

pub use cells::{Cell, Kind, Servers, cells};
pub use measure::{CellReport, Conditions, Matrix, Sample, measure, sample};
