//! Relays for a node that nobody can dial, in network namespaces: reserved, used by strangers, and
//! replaced when they die, restart, wind down or refuse, or when the way to them is lost.

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    use portolan_tests::netlab::{faces, relayed};
    faces::other_face().unwrap_or_else(relayed::pass)
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("skipped: the lab of relays: it needs Linux");
    ExitCode::SUCCESS
}
