//! Fuzz targets: every decoder of core, and the agent as a whole.
//!
//! A target is a function over bytes that asserts more than "no panic". `cargo test` replays the
//! committed inputs of `corpus/<target>/` and then a fixed number of inputs that a seeded mutator
//! makes out of them; an input that shows something new joins those that are mutated.
//!
//! ```text
//! PORTOLAN_FUZZ_SECONDS=60 cargo test --release -p portolan-core --test fuzz    for so long, each
//! PORTOLAN_FUZZ_CASES=100000 …    so many inputs, each      PORTOLAN_FUZZ_SEED=7 …    another run
//! PORTOLAN_FUZZ_GROW=1 …          keep what shows something new as files of the corpus
//! PORTOLAN_FUZZ_INPUT=FILE cargo test -p portolan-core --test fuzz agent        this input alone
//! ```
//!
//! `docs/fuzzing.md` says how to add a target or a file, what to do with a finding, where a
//! coverage-guided fuzzer can be attached, and why the harness is our own.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the harness tells whoever runs it what it did and what it found"
)]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "core's enums may grow, and a target looks at some of their variants only"
)]

mod agent;
mod autonat;
mod fields;
mod framing;
mod gateway;
mod gateway_seeds;
mod harness;
mod hearsay;
mod identify;
mod multiaddr;
mod mutate;
mod pipe;
mod punch;
mod record;
mod relay;
mod relay_seeds;
mod seeds;
mod signed;
mod trail;

use harness::Target;

/// A test for each target, and the list of all of them.
macro_rules! targets {
    ($($name:ident: $run:path, $len_max:expr, $cases:expr;)*) => {
        $(
            #[test]
            fn $name() {
                harness::test(&Target {
                    name: stringify!($name),
                    run: $run,
                    len_max: $len_max,
                    cases: $cases,
                });
            }
        )*

        /// The names of all targets.
        const TARGETS: &[&str] = &[$(stringify!($name)),*];
    };
}

// The longest input in bytes, and how many inputs a plain `cargo test` makes. Lengths: what the
// frame rules let through, and a little more, so that limits are crossed.
targets! {
    multiaddr: multiaddr::run, 256, 20_000;
    envelope: signed::envelope, 1_024, 3_000;
    peer_record: signed::peer_record, 4_096, 3_000;
    identify: identify::run, 32_768, 3_000;
    autonat_message: autonat::message, 9_000, 10_000;
    autonat_dial_back: autonat::dial_back, 64, 10_000;
    framing: framing::run, 4_096, 10_000;
    pipe: pipe::run, 20_000, 5_000;
    record: record::record, 16_384, 500;
    checkpoint: record::checkpoint, 16_384, 2_000;
    nat_pmp: gateway::nat_pmp, 64, 20_000;
    pcp: gateway::pcp, 1_200, 10_000;
    ssdp: gateway::ssdp, 2_100, 5_000;
    http: gateway::http, 9_000, 5_000;
    description: gateway::description, 4_096, 5_000;
    soap: gateway::soap, 2_048, 5_000;
    hop: relay::hop, 4_200, 10_000;
    stop: relay::stop, 512, 10_000;
    voucher: relay::voucher, 1_024, 3_000;
    punch: punch::run, 4_200, 10_000;
    hearsay: hearsay::run, 4_200, 10_000;
    agent: agent::run, 4_096, 600;
}
