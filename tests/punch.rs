//! Two peers behind routers, in network namespaces: a direct connection out of a relayed one, where
//! their routers allow it, and nothing sent where they do not.

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    use portolan_tests::netlab::{faces, punched};
    faces::other_face().unwrap_or_else(punched::pass)
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("skipped: the lab of punching: it needs Linux");
    ExitCode::SUCCESS
}
