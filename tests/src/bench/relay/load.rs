//! How much a relay passes, and what that costs it.
//!
//! Each circuit has two clients of its own. The initiator writes its bytes and finishes; the target
//! reads until the end. A byte counts once, when it has come out at the other end; the clock runs
//! from the first write to the last end. What the relay spends is counted over the same span.

use super::child::{Allowance, Kind};
use super::client::{Client, Line, Manner, apart, bounded};
use super::process::Relay;
use super::{Fault, crowd, median, rounded};
use futures::{AsyncReadExt, AsyncWriteExt};
use portolan_core::Transport;
use serde_json::{Value, json};
use std::time::Instant;

/// Circuits of the second measurement, number: the issue says so.
pub(crate) const MANY: usize = 100;
/// Bytes that a client writes at once, and reads at once.
const PIECE: usize = 64 * 1_024;

/// One measurement.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// Bytes a second.
    speed: f64,
    /// Seconds of the processor for a gigabyte (1e9 bytes), and those of them in the kernel.
    cost: f64,
    kernel: f64,
}

/// Two clients of a relay that can be joined.
struct Pair {
    initiator: Client,
    target: Client,
}

/// A relay and those who use it.
struct Stand {
    relay: Relay,
    pairs: Vec<Pair>,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amount {
    pub(crate) rounds: usize,
    /// Bytes of one measurement, of all circuits together.
    pub(crate) bytes: usize,
}

/// All relays, in turns, with one circuit and with many.
pub(crate) async fn measure(transport: Transport, amount: Amount) -> Result<Value, Fault> {
    let mut stands = Vec::new();
    for kind in Kind::ALL {
        stands.push(Stand::new(kind, transport).await?);
    }
    let mut document = serde_json::Map::new();
    for (name, circuits) in [("one_circuit", 1), ("hundred_circuits", MANY)] {
        let mut samples = vec![Vec::new(); stands.len()];
        // The first round warms up, and is not counted.
        for round in 0..=amount.rounds {
            for (stand, samples) in stands.iter_mut().zip(&mut samples) {
                let sample = stand.pass(circuits, amount.bytes / circuits).await?;
                if round > 0 {
                    samples.push(sample);
                }
            }
        }
        let mut figures = serde_json::Map::new();
        let of_theirs = stands.iter().position(|stand| stand.relay.kind == Kind::Rust);
        let theirs = of_theirs.and_then(|at| samples.get(at)).cloned().unwrap_or_default();
        for (stand, samples) in stands.iter().zip(&samples) {
            figures.insert(stand.relay.kind.name().to_owned(), summary(samples, &theirs));
        }
        document.insert(name.to_owned(), figures.into());
    }
    for stand in &stands {
        let peak = stand.relay.peak()? / 1_024;
        let peaks = document.entry("peak_resident_kib").or_insert_with(|| json!({}));
        if let Some(peaks) = peaks.as_object_mut() {
            peaks.insert(stand.relay.kind.name().to_owned(), peak.into());
        }
    }
    for stand in stands {
        stand.relay.end()?;
    }
    Ok(document.into())
}

/// What one relay showed, beside rust-libp2p's in the same rounds.
fn summary(samples: &[Sample], theirs: &[Sample]) -> Value {
    let all = |of: fn(&Sample) -> f64| samples.iter().map(of).collect::<Vec<_>>();
    let spread = |numbers: &[f64]| {
        let least = numbers.iter().copied().fold(f64::INFINITY, f64::min);
        let most = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        json!({ "median": rounded(median(numbers)), "min": rounded(least), "max": rounded(most) })
    };
    let beside = |of: fn(&Sample, &Sample) -> f64| {
        let ratios: Vec<f64> = samples.iter().zip(theirs).map(|(a, b)| of(a, b)).collect();
        spread(&ratios)
    };
    json!({
        "runs": samples.len(),
        "mb_per_s": spread(&all(|sample| sample.speed / 1e6)),
        "cpu_s_per_gb": spread(&all(|sample| sample.cost)),
        "of_it_in_the_kernel": spread(&all(|sample| sample.kernel)),
        "throughput_ratio": beside(|ours, theirs| ours.speed / theirs.speed),
        "per_cpu_second_ratio": beside(|ours, theirs| theirs.cost / ours.cost),
    })
}

/// The median of the ratios of throughput per CPU second in such a document.
pub(crate) fn ratio(document: &Value, circuits: &str, kind: Kind) -> f64 {
    document[circuits][kind.name()]["per_cpu_second_ratio"]["median"].as_f64().unwrap_or(f64::NAN)
}

impl Stand {
    async fn new(kind: Kind, transport: Transport) -> Result<Stand, Fault> {
        let relay = Relay::start(kind, Allowance::Much, &[])?;
        let addr = relay.addr(transport)?;
        let targets = crowd::reserve(addr, Manner::Agrees, (0..MANY).map(apart)).await?;
        // They reserve as well, so that their connections are kept between the rounds.
        let sources = (MANY..2 * MANY).map(apart);
        let initiators = crowd::reserve(addr, Manner::Agrees, sources).await?;
        let pairs = initiators.into_iter().zip(targets);
        let pairs = pairs.map(|(initiator, target)| Pair { initiator, target }).collect();
        Ok(Stand { relay, pairs })
    }

    /// Pass so many bytes over each of so many circuits at once.
    async fn pass(&mut self, circuits: usize, bytes: usize) -> Result<Sample, Fault> {
        let mut lines = Vec::new();
        for pair in self.pairs.iter_mut().take(circuits) {
            lines.push(pair.join().await?);
        }
        let (spent, since) = (self.relay.spent()?, Instant::now());
        let tasks: Vec<_> = lines
            .into_iter()
            .flat_map(|(from, to)| [tokio::spawn(write(from, bytes)), tokio::spawn(read(to))])
            .collect();
        let mut read = 0;
        for task in tasks {
            read += task.await??;
        }
        let (took, now) = (since.elapsed(), self.relay.spent()?);
        if read != circuits * bytes {
            return Err(Fault::new(format!("{read} of {} bytes came", circuits * bytes)));
        }
        let bytes = f64::from(u32::try_from(read).map_err(|error| Fault::new(error.to_string()))?);
        Ok(Sample {
            speed: bytes / took.as_secs_f64(),
            cost: (now.total - spent.total).as_secs_f64() / bytes * 1e9,
            kernel: (now.kernel.saturating_sub(spent.kernel)).as_secs_f64() / bytes * 1e9,
        })
    }
}

impl Pair {
    /// Both ends of a circuit.
    async fn join(&mut self) -> Result<(Line, Line), Fault> {
        let from = self.initiator.circuit(self.target.peer).await?;
        Ok((from, self.target.come().await?))
    }
}

/// Write so many bytes and finish; nothing was read.
async fn write(mut line: Line, bytes: usize) -> Result<usize, Fault> {
    let piece = vec![0x5a; PIECE];
    let mut left = bytes;
    while left > 0 {
        let next = piece.get(..left.min(PIECE)).unwrap_or_default();
        bounded(async { Ok(line.write_all(next).await?) }).await?;
        left -= next.len();
    }
    bounded(async { Ok(line.close().await?) }).await?;
    // The circuit is over when the other side has finished as well.
    bounded(async { Ok(line.read(&mut [0]).await?) }).await
}

/// Read until the end, then finish; how many bytes there were.
async fn read(mut line: Line) -> Result<usize, Fault> {
    let mut piece = vec![0; PIECE];
    let mut all = 0;
    loop {
        match bounded(async { Ok(line.read(&mut piece).await?) }).await? {
            0 => break,
            count => all += count,
        }
    }
    line.close().await?;
    Ok(all)
}

/// Pass bytes through a relay, and nothing is counted: for a profile.
pub(crate) async fn exercise(
    relay: &Relay,
    transport: Transport,
    bytes: usize,
) -> Result<(), Fault> {
    let addr = relay.addr(transport)?;
    let mut targets = crowd::reserve(addr, Manner::Agrees, (0..1).map(apart)).await?;
    let mut initiators = crowd::connect(addr, (1..2).map(apart)).await?;
    let (Some(initiator), Some(target)) = (initiators.pop(), targets.pop()) else {
        return Err("nobody connected".into());
    };
    let mut pair = Pair { initiator, target };
    let (from, to) = pair.join().await?;
    let (wrote, read) = futures::future::join(write(from, bytes), read(to)).await;
    wrote?;
    if read? == bytes { Ok(()) } else { Err("not all bytes came".into()) }
}
