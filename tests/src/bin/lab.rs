//! The laboratory as a program: `cargo run --release -p portolan-tests --bin lab -- --help`.

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    use portolan_tests::netlab::{faces, program};
    faces::other_face().unwrap_or_else(program::whole)
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("error: the lab needs Linux");
    ExitCode::FAILURE
}
