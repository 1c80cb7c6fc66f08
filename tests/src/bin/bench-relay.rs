//! What a relay passes, what it holds, and how it bears abuse: Portolan beside rust-libp2p.
//!
//! `cargo run --release -p portolan-tests --bin bench-relay [-- PART]… [--rounds N] [--megabytes N]
//! [--peers N]… [--times N] [--ours PROGRAM]` prints one JSON document and exits with 0 if the gate is met, 1 if it is
//! not or something failed, 2 on wrong use. The parts are `load`, `memory`, `abuse` and `profile`;
//! without one, all but `profile`, which wants `perf`. Linux alone.
//!
//! **Relays.** Ours on tokio, ours on smol, and rust-libp2p's with identify and ping beside it; each
//! is a process of its own with two threads, on loopback. Clients are the same for all: bare
//! connections of Portolan's stack in this process, without a handshake over the circuit. With `--ours`
//! our relays are started out of another build of this program.
//!
//! **load.** Throughput of one circuit and of a hundred, and the processor time of the relay's
//! process (all threads, from `schedstat`) for a gigabyte that came out at the other end. Relays take
//! turns; a ratio is taken within one round, against rust-libp2p's relay.
//!
//! **memory.** What a relay holds more, for each peer that reserved and is idle: resident, and on the
//! heap as a counting allocator sees it (all relays run with it).
//!
//! **abuse.** See `bench/relay/abuse.rs`.
//!
//! **profile.** Samples of the processor time of a relay, by what it is spent on, kernel included.

#[path = "../bench/relay/mod.rs"]
mod relay;

use portolan_core::Transport;
use relay::Fault;
use relay::abuse::{self, Abuse};
use relay::child::{self, Allowance, Kind};
use relay::heap::Counting;
use relay::load::{self, Amount};
use relay::process::{OURS, Relay};
use relay::{memory, profile};
use serde_json::{Value, json};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

#[global_allocator]
static COUNTING: Counting = Counting;

/// The gate: no worse than rust-libp2p, in throughput per CPU second and in memory for each
/// reservation. One in twenty is left for what two runs of the same relay differ by.
const RATIO_MIN: f64 = 0.95;
const MEMORY_MAX: f64 = 1.05;
/// The targets: throughput per CPU second, and memory for each reservation, beside rust-libp2p's.
const RATIO_TARGET: f64 = 1.2;
const MEMORY_TARGET: f64 = 0.5;
/// How long the honest are watched in peace, before each abuse: a short run needs less.
const PEACE_MAX: Duration = Duration::from_secs(3);
const TRANSPORTS: [Transport; 2] = [Transport::Tcp, Transport::Quic];
const USAGE: &str = "usage: bench-relay [load|memory|abuse|profile]... [--rounds N] \
    [--megabytes N] [--peers N]... [--times N] [--ours PROGRAM]";

/// What is measured, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plan {
    parts: Vec<Part>,
    rounds: usize,
    megabytes: usize,
    peers: Vec<usize>,
    times: usize,
    ours: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Load,
    Memory,
    Abuse,
    Profile,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, kind, allowance] = arguments.as_slice()
        && first == "relay"
        && let (Some(kind), Some(allowance)) =
            (Kind::from_name(kind), Allowance::from_name(allowance))
    {
        return match child::run(kind, allowance) {
            Ok(()) => ExitCode::SUCCESS,
            Err(fault) => say(&format!("error: {fault}"), 1),
        };
    }
    let plan = match plan(&arguments) {
        Ok(plan) => plan,
        Err(problem) => return say(&format!("{problem}\n{USAGE}"), 2),
    };
    if let Some(ours) = &plan.ours {
        // It is set here alone.
        let _ = OURS.set(ours.clone());
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return say(&format!("error: {error}"), 1),
    };
    match runtime.block_on(bench(&plan)) {
        Err(fault) => say(&format!("error: {fault}"), 1),
        Ok((document, gate_met)) => match writeln!(io::stdout(), "{document:#}") {
            Err(error) => say(&format!("error: {error}"), 1),
            Ok(()) if gate_met => ExitCode::SUCCESS,
            Ok(()) => say("the gate is missed: no worse than rust-libp2p", 1),
        },
    }
}

/// The document, and whether the gate is met.
async fn bench(plan: &Plan) -> Result<(Value, bool), Fault> {
    if !Relay::is_possible() {
        return Err("this system does not tell what a process uses".into());
    }
    let mut gate_met = true;
    let mut document = json!({
        "relays": Kind::ALL.map(Kind::name),
        "gate": { "per_cpu_second_ratio_min": RATIO_MIN, "memory_ratio_max": MEMORY_MAX },
        "target": { "per_cpu_second_ratio_min": RATIO_TARGET, "memory_ratio_max": MEMORY_TARGET },
    });
    for part in &plan.parts {
        let (name, figures) = match part {
            Part::Load => {
                let (figures, met) = load(plan).await?;
                gate_met &= met;
                ("load", figures)
            }
            Part::Memory => {
                let (figures, met) = memory(plan).await?;
                gate_met &= met;
                ("memory", figures)
            }
            Part::Abuse => ("abuse", abuse(plan).await?),
            Part::Profile => ("profile", profile(plan).await?),
        };
        document[name] = figures;
    }
    document["gate_met"] = gate_met.into();
    Ok((document, gate_met))
}

async fn load(plan: &Plan) -> Result<(Value, bool), Fault> {
    let amount = Amount { rounds: plan.rounds, bytes: plan.megabytes * 1_000_000 };
    let (mut document, mut met) = (serde_json::Map::new(), true);
    for transport in TRANSPORTS {
        let figures = load::measure(transport, amount).await?;
        for circuits in ["one_circuit", "hundred_circuits"] {
            let ratio = |kind| load::ratio(&figures, circuits, kind);
            met &= ratio(Kind::Tokio) >= RATIO_MIN && ratio(Kind::Smol) >= RATIO_MIN;
        }
        document.insert(transport.name().to_owned(), figures);
    }
    Ok((document.into(), met))
}

async fn memory(plan: &Plan) -> Result<(Value, bool), Fault> {
    let (mut document, mut met) = (serde_json::Map::new(), true);
    for transport in TRANSPORTS {
        let figures = memory::measure(transport, &plan.peers).await?;
        for peers in &plan.peers {
            let ratio = |kind| memory::ratio(&figures, *peers, kind);
            met &= ratio(Kind::Tokio) <= MEMORY_MAX && ratio(Kind::Smol) <= MEMORY_MAX;
        }
        document.insert(transport.name().to_owned(), figures);
    }
    Ok((document.into(), met))
}

async fn abuse(plan: &Plan) -> Result<Value, Fault> {
    let mut document = json!({});
    let peace = PEACE_MAX.min(Duration::from_millis(plan.times.try_into().unwrap_or(u64::MAX)));
    let all = |transport| Abuse::ALL.map(|abuse| (transport, abuse));
    for (transport, abuse) in TRANSPORTS.into_iter().flat_map(all) {
        // What is slow is done less often.
        let times = match abuse {
            Abuse::OneNetwork | Abuse::ManyNetworks | Abuse::Storm => plan.times,
            Abuse::HalfOpen => plan.times / 5,
            Abuse::SlowReaders => plan.times / 100,
            Abuse::BeyondLimit => plan.times / 20,
        };
        let figures = abuse::measure(abuse, Kind::Tokio, transport, times, peace).await?;
        document[transport.name()][abuse.name()] = figures;
    }
    Ok(document)
}

async fn profile(plan: &Plan) -> Result<Value, Fault> {
    let mut document = json!({});
    let bytes = plan.megabytes * 1_000_000;
    let all = |transport| Kind::ALL.map(|kind| (transport, kind));
    for (transport, kind) in TRANSPORTS.into_iter().flat_map(all) {
        let figures = profile::measure(kind, transport, bytes).await?;
        document[transport.name()][kind.name()] = figures;
    }
    Ok(document)
}

/// What the arguments ask for.
fn plan(arguments: &[String]) -> Result<Plan, String> {
    let (parts, peers) = (Vec::new(), Vec::new());
    let mut plan = Plan { parts, rounds: 7, megabytes: 200, peers, times: 10_000, ours: None };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let mut number = || match words.next().map(|word| word.parse::<usize>()) {
            Some(Ok(number)) if number > 0 => Ok(number),
            _ => Err(format!("{word} wants a number above zero")),
        };
        match word.as_str() {
            "load" => plan.parts.push(Part::Load),
            "memory" => plan.parts.push(Part::Memory),
            "abuse" => plan.parts.push(Part::Abuse),
            "profile" => plan.parts.push(Part::Profile),
            "--rounds" => plan.rounds = number()?,
            "--megabytes" => plan.megabytes = number()?,
            "--peers" => plan.peers.push(number()?),
            "--times" => plan.times = number()?,
            "--ours" => match words.next() {
                Some(program) => plan.ours = Some(program.into()),
                None => return Err("--ours wants a program".into()),
            },
            other => return Err(format!("{other:?} is not understood")),
        }
    }
    if plan.parts.is_empty() {
        plan.parts = vec![Part::Load, Part::Memory, Part::Abuse];
    }
    if plan.peers.is_empty() {
        plan.peers = vec![1_000, 3_500];
    }
    Ok(plan)
}

/// Say why on stderr, and end with this code.
fn say(text: &str, code: u8) -> ExitCode {
    // Where stderr is gone as well, the exit code has to do.
    let _ = writeln!(io::stderr(), "{text}");
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_say_what_is_measured() {
        let read = |words: &[&str]| plan(&words.iter().map(|&w| w.into()).collect::<Vec<_>>());
        let all = read(&[]).expect("nothing is all");
        assert_eq!(all.parts, [Part::Load, Part::Memory, Part::Abuse]);
        let some = read(&["memory", "--peers", "10", "--peers", "20", "load", "--rounds", "3"]);
        let some = some.expect("it is understood");
        assert_eq!(
            (some.parts, some.peers, some.rounds),
            (vec![Part::Memory, Part::Load], vec![10, 20], 3)
        );
        for bad in [["--rounds", "0"].as_slice(), &["--times"], &["relay"], &["--peers", "x"]] {
            read(bad).expect_err("it is not understood");
        }
    }
}
