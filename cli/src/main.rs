//! The `portolan` program. What it does stands in the library, so that others can bring it along.

use std::process::ExitCode;

fn main() -> ExitCode {
    portolan::program(std::env::args_os())
}
