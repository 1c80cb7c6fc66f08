//! The laboratory: real kernels, real routers, real processes. One short pass over everything; the
//! program `lab` of this package runs it whole.

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    use portolan_tests::netlab::{faces, program};
    faces::other_face().unwrap_or_else(program::short_pass)
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("skipped: the whole lab: it needs Linux");
    ExitCode::SUCCESS
}
