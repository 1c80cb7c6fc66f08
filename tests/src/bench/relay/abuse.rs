//! What a relay holds, and how an honest pair fares, while others abuse it.
//!
//! Each kind of abuse meets a relay of its own. An honest pair asks for one circuit after the
//! other, passes a kilobyte there and back, and ends it: first in peace, then while the abuse lasts.
//! The abusers work on the same processors, so that the honest wait for them, too.

use super::child::{Allowance, Kind};
use super::client::{Client, Line, Manner, apart, bounded, together};
use super::memory::at_rest;
use super::process::{Memory, Relay};
use super::{Fault, crowd, percentile, rounded};
use futures::stream::{self, StreamExt};
use futures::{AsyncReadExt, AsyncWriteExt};
use portolan_core::{Addr, PeerId, RelayServerConfig, RelayStatus, Transport};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Abusers at work at the same time, number.
const AT_ONCE: usize = 32;
/// What an honest pair passes each way, bytes.
const WORDS: usize = 1_000;
/// Between two circuits of the honest pair.
const PAUSE: Duration = Duration::from_millis(5);
/// How often the relay's memory is read.
const LOOK: Duration = Duration::from_millis(50);
/// A writer that waits so long is held back.
const HELD_BACK: Duration = Duration::from_millis(500);
/// Where the honest come from: the last networks of all.
const HONEST: usize = 59_000;

/// A kind of abuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Abuse {
    /// Reservations, asked for by peers of one /24.
    OneNetwork,
    /// Reservations, asked for by peers of as many networks.
    ManyNetworks,
    /// Circuits to targets that never answer.
    HalfOpen,
    /// Circuits whose targets never read, at a relay without limits.
    SlowReaders,
    /// Circuits that carry more than the limit.
    BeyondLimit,
    /// Circuits to nobody.
    Storm,
}

impl Abuse {
    pub(crate) const ALL: [Abuse; 6] = [
        Abuse::OneNetwork,
        Abuse::ManyNetworks,
        Abuse::HalfOpen,
        Abuse::SlowReaders,
        Abuse::BeyondLimit,
        Abuse::Storm,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Abuse::OneNetwork => "reservations_of_one_network",
            Abuse::ManyNetworks => "reservations_of_many_networks",
            Abuse::HalfOpen => "half_open_circuits",
            Abuse::SlowReaders => "slow_readers",
            Abuse::BeyondLimit => "bytes_beyond_the_limit",
            Abuse::Storm => "connect_storm",
        }
    }

    const fn allowance(self) -> Allowance {
        match self {
            Abuse::SlowReaders => Allowance::Much,
            Abuse::OneNetwork
            | Abuse::ManyNetworks
            | Abuse::HalfOpen
            | Abuse::BeyondLimit
            | Abuse::Storm => Allowance::Default,
        }
    }
}

/// What the honest pair lived through, in milliseconds.
#[derive(Debug, Default)]
struct Fared {
    waits: Vec<f64>,
    failures: usize,
    failure: Option<String>,
}

impl Fared {
    fn document(&self) -> Value {
        json!({
            "circuits": self.waits.len(),
            "p50_ms": rounded(percentile(&self.waits, 50)),
            "p99_ms": rounded(percentile(&self.waits, 99)),
            "failures": self.failures,
            "last_failure": self.failure,
        })
    }
}

/// One kind of abuse of one relay, so many times, after so long a time of peace.
pub(crate) async fn measure(
    abuse: Abuse,
    kind: Kind,
    transport: Transport,
    times: usize,
    peace: Duration,
) -> Result<Value, Fault> {
    let mut relay = Relay::start(kind, abuse.allowance(), &[])?;
    let addr = relay.addr(transport)?;
    let target = Client::connect(addr, apart(HONEST), Manner::Agrees).await?;
    let initiator = Client::connect(addr, apart(HONEST + 1), Manner::Agrees).await?;
    granted(target.reserve().await?)?;
    let mut honest = Honest { initiator, target };
    let (over, end) = watch::channel(false);
    let peace = async {
        // sleep: how long peace lasts is part of what is measured.
        tokio::time::sleep(peace).await;
        over.send_replace(true);
    };
    let (in_peace, ()) = futures::future::join(honest.live(end), peace).await;

    let before = at_rest(&mut relay).await?;
    let (over, end) = watch::channel(false);
    let at_work = async {
        let since = Instant::now();
        let told = commit(abuse, addr, times).await;
        let took = since.elapsed();
        over.send_replace(true);
        told.map(|told| (told, took))
    };
    let watched = watch_memory(&mut relay, end.clone());
    let (under, most, told) = futures::future::join3(honest.live(end), watched, at_work).await;
    let ((told, took), most) = (told?, most?);
    // What the abusers left behind is forgotten, and the honest still hold what they held.
    granted(honest.target.reserve().await?)?;
    let after = at_rest(&mut relay).await?;
    let document = json!({
        "abuse": told,
        "took_s": rounded(took.as_secs_f64()),
        "heap_kib": { "before": before.heap / 1_024, "most": most.heap / 1_024, "after": after.heap / 1_024 },
        "resident_kib": {
            "before": before.resident / 1_024,
            "most": most.resident / 1_024,
            "after": after.resident / 1_024,
        },
        "honest_in_peace": in_peace.document(),
        "honest_meanwhile": under.document(),
    });
    relay.end()?;
    Ok(document)
}

fn granted(status: RelayStatus) -> Result<(), Fault> {
    if status == RelayStatus::Ok {
        return Ok(());
    }
    Err(Fault::new(format!("the honest were not granted a reservation: {status:?}")))
}

/// The most that was seen until the end.
async fn watch_memory(relay: &mut Relay, mut end: watch::Receiver<bool>) -> Result<Memory, Fault> {
    let mut most = relay.memory()?;
    // sleep: memory has to be looked at, it does not tell.
    while tokio::time::timeout(LOOK, end.wait_for(|over| *over)).await.is_err() {
        let now = relay.memory()?;
        most.heap = most.heap.max(now.heap);
        most.resident = most.resident.max(now.resident);
    }
    Ok(most)
}

/// Two peers who mean well.
struct Honest {
    initiator: Client,
    target: Client,
}

impl Honest {
    /// One circuit after the other, until the end.
    async fn live(&mut self, end: watch::Receiver<bool>) -> Fared {
        let mut fared = Fared::default();
        while !*end.borrow() {
            let since = Instant::now();
            match self.talk().await {
                Ok(()) => fared.waits.push(since.elapsed().as_secs_f64() * 1e3),
                Err(fault) => {
                    fared.failures += 1;
                    fared.failure = Some(fault.to_string());
                }
            }
            // sleep: whoever talks without a pause is no measure of others.
            tokio::time::sleep(PAUSE).await;
        }
        fared
    }

    async fn talk(&mut self) -> Result<(), Fault> {
        let mut from = self.initiator.circuit(self.target.peer).await?;
        let mut to = self.target.come().await?;
        let (there, back) = (vec![1; WORDS], vec![2; WORDS]);
        bounded(async {
            from.write_all(&there).await?;
            from.flush().await?;
            let mut heard = vec![0; WORDS];
            to.read_exact(&mut heard).await?;
            to.write_all(&back).await?;
            to.close().await?;
            let mut answer = Vec::new();
            from.read_to_end(&mut answer).await?;
            from.close().await?;
            if heard == there && answer == back { Ok(()) } else { Err("other bytes came".into()) }
        })
        .await
    }
}

/// Do it; what came of it.
async fn commit(abuse: Abuse, relay: Addr, times: usize) -> Result<Value, Fault> {
    match abuse {
        Abuse::OneNetwork => Ok(reservations(relay, times, together).await),
        Abuse::ManyNetworks => Ok(reservations(relay, times, apart).await),
        Abuse::HalfOpen => half_open(relay, times).await,
        Abuse::SlowReaders => slow_readers(relay, times).await,
        Abuse::BeyondLimit => beyond_limit(relay, times).await,
        Abuse::Storm => storm(relay, times).await,
    }
}

/// Count what came of many attempts, by its name.
async fn counted(attempts: impl stream::Stream<Item = String>) -> Value {
    let count = |mut counts: BTreeMap<String, usize>, outcome: String| async move {
        *counts.entry(outcome).or_default() += 1;
        counts
    };
    json!(attempts.fold(BTreeMap::new(), count).await)
}

/// Each attempt is a new peer with a connection of its own. Whoever is granted one keeps it.
async fn reservations(relay: Addr, times: usize, source: fn(usize) -> IpAddr) -> Value {
    let (kept, mut keep) = tokio::sync::mpsc::unbounded_channel();
    let attempts = (0..times).map(|n| {
        let kept = kept.clone();
        async move {
            let attempt = async {
                let client = Client::connect(relay, source(n), Manner::Agrees).await?;
                let status = client.reserve().await?;
                if status == RelayStatus::Ok {
                    let _ = kept.send(client);
                }
                Ok::<_, Fault>(status)
            };
            attempt.await.map_or_else(|_| "no answer".to_owned(), |status| format!("{status:?}"))
        }
    });
    let counts = counted(stream::iter(attempts).buffer_unordered(AT_ONCE)).await;
    keep.close();
    counts
}

/// Peers that hold a reservation and behave like this, and as many that call them.
async fn callers(
    relay: Addr,
    count: usize,
    manner: Manner,
) -> Result<(Vec<Client>, Vec<Client>), Fault> {
    let targets = crowd::reserve(relay, manner, (0..count).map(apart)).await?;
    let initiators = crowd::connect(relay, (count..2 * count).map(apart)).await?;
    Ok((initiators, targets))
}

/// Every call waits for a target that says nothing; a caller whose stream is reset calls again.
async fn half_open(relay: Addr, times: usize) -> Result<Value, Fault> {
    let (initiators, targets) = callers(relay, 16, Manner::Silent).await?;
    let targets: &Vec<PeerId> = &targets.iter().map(|target| target.peer).collect();
    let calls =
        initiators.iter().cycle().take(times).zip(0_usize..).map(|(caller, n)| async move {
            let target = targets.get(n / 7 % targets.len().max(1)).copied();
            let Some(target) = target else { return "nobody to call".to_owned() };
            match caller.ask_and_leave(target).await {
                Ok(mut line) => {
                    // Its answer, or the reset; whoever waits longer than this is let go.
                    let heard = tokio::time::timeout(HELD_BACK, line.read(&mut [0; 64])).await;
                    heard
                        .map_or("waiting", |heard| if heard.is_ok() { "answered" } else { "reset" })
                        .to_owned()
                }
                Err(_) => "reset".to_owned(),
            }
        });
    let counts = counted(stream::iter(calls).buffer_unordered(512)).await;
    Ok(json!({ "calls": counts }))
}

/// Write until nothing is taken any more; nobody reads.
async fn slow_readers(relay: Addr, times: usize) -> Result<Value, Fault> {
    let (initiators, mut targets) = callers(relay, times, Manner::Agrees).await?;
    let mut lines: Vec<(Line, Line)> = Vec::new();
    for (initiator, target) in initiators.iter().zip(&mut targets) {
        let from = initiator.circuit(target.peer).await?;
        lines.push((from, target.come().await?));
    }
    let writes = lines.iter_mut().map(|(from, _)| async move {
        let piece = vec![3; 64 * 1_024];
        let mut taken = 0_usize;
        while let Ok(Ok(count)) = tokio::time::timeout(HELD_BACK, from.write(&piece)).await {
            taken += count;
        }
        taken
    });
    let taken = futures::future::join_all(writes).await;
    let most = taken.iter().max().copied().unwrap_or(0);
    Ok(json!({
        "circuits": taken.len(),
        "taken_kib": taken.iter().sum::<usize>() / 1_024,
        "taken_of_one_at_most_kib": most / 1_024,
    }))
}

/// Every circuit carries half as much again as it may.
async fn beyond_limit(relay: Addr, times: usize) -> Result<Value, Fault> {
    let limit = RelayServerConfig::default().limit.bytes.unwrap_or(0);
    let limit = usize::try_from(limit).map_err(|error| Fault::new(error.to_string()))?;
    let (initiators, mut targets) = callers(relay, 16, Manner::Agrees).await?;
    let mut lengths = BTreeMap::new();
    for n in 0..times {
        let at = n % targets.len().max(1);
        let (Some(initiator), Some(target)) = (initiators.get(at), targets.get_mut(at)) else {
            return Err("nobody to call".into());
        };
        let mut from = initiator.circuit(target.peer).await?;
        let mut to = target.come().await?;
        let writing = async {
            // It is cut off in the middle.
            let _ = from.write_all(&vec![4; limit + limit / 2]).await;
            let _ = from.flush().await;
        };
        let reading = bounded(async {
            let (mut piece, mut all) = (vec![0; 64 * 1_024], 0);
            while let Ok(count @ 1..) = to.read(&mut piece).await {
                all += count;
            }
            Ok(all)
        });
        let ((), read) = futures::future::join(writing, reading).await;
        *lengths.entry(read?.to_string()).or_insert(0) += 1;
    }
    Ok(json!({ "limit": limit, "circuits_by_bytes_that_came": lengths }))
}

/// Circuits to peers that nobody knows, as fast as they are refused.
async fn storm(relay: Addr, times: usize) -> Result<Value, Fault> {
    let callers = crowd::connect(relay, (0..8).map(apart)).await?;
    let calls = callers.iter().cycle().take(times).map(|caller| async move {
        let status = caller.status_of_circuit(PeerId::random()).await;
        status.map_or_else(|_| "no answer".to_owned(), |status| format!("{status:?}"))
    });
    Ok(counted(stream::iter(calls).buffer_unordered(AT_ONCE)).await)
}
