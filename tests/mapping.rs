//! Ports opened by a real router's daemon, in network namespaces: granted, used by strangers, given
//! back, and opened again after whatever the router goes through.

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    use portolan_tests::netlab::{faces, mapped};
    faces::other_face().unwrap_or_else(mapped::pass)
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("skipped: the lab of port mappings: it needs Linux");
    ExitCode::SUCCESS
}
