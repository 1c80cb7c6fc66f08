//! The relays themselves. Each is a process of its own, so that what it uses is its alone: this
//! program, started anew with `relay KIND ALLOWANCE`.
//!
//! It prints its addresses, one a line and then an empty one. To every line on its
//! stdin it answers with the bytes and the blocks of its heap; when stdin ends, so does it.

use super::{Fault, heap};
use futures::StreamExt;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, SwarmBuilder, identify, noise, ping, relay, tcp, yamux};
use portolan_core::{CircuitLimit, Config, Duration as Span, RelayServerConfig};
use portolan_runtime::net::NetConfig;
use portolan_runtime::traits::Runtime;
use portolan_runtime::{Limits, Node, identity};
use portolan_smol::Smol;
use portolan_tokio::Tokio;
use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tokio::runtime::Handle;

/// Threads of every relay, number: the same for all.
const THREADS: usize = 2;
/// Connections, reservations and circuits of a relay that allows much, number; just below what core
/// follows.
const MUCH: usize = 4_000;
/// Bytes of one circuit of a relay that allows much: more than any run passes.
const MANY_BYTES: u64 = 1 << 40;
/// How long its circuits may last.
const LONG: Duration = Duration::from_secs(3_600);
const LISTEN: [&str; 2] = ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"];

/// Which relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Ours, on tokio.
    Tokio,
    /// Ours, on smol.
    Smol,
    /// rust-libp2p's.
    Rust,
}

impl Kind {
    pub(crate) const ALL: [Kind; 3] = [Kind::Tokio, Kind::Smol, Kind::Rust];

    /// Its name in results and as an argument.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Kind::Tokio => "portolan_tokio",
            Kind::Smol => "portolan_smol",
            Kind::Rust => "rust_libp2p",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// What a relay allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Allowance {
    /// What its defaults say.
    Default,
    /// So much that no run comes to a limit.
    Much,
}

impl Allowance {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Allowance::Default => "default",
            Allowance::Much => "much",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Allowance> {
        [Allowance::Default, Allowance::Much].into_iter().find(|one| one.name() == name)
    }
}

/// Be a relay until stdin ends.
pub(crate) fn run(kind: Kind, allowance: Allowance) -> Result<(), Fault> {
    match kind {
        Kind::Smol => {
            let executor = Arc::new(smol::Executor::new());
            for _ in 0..THREADS {
                let executor = executor.clone();
                thread::spawn(move || smol::block_on(executor.run(std::future::pending::<()>())));
            }
            smol::block_on(ours(Smol::from(executor), allowance))
        }
        Kind::Tokio | Kind::Rust => {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(THREADS)
                .enable_all()
                .build()?;
            let spawned = runtime.spawn(async move {
                match kind {
                    Kind::Rust => theirs(allowance).await,
                    Kind::Tokio | Kind::Smol => {
                        ours(Tokio::new(Handle::current()), allowance).await
                    }
                }
            });
            runtime.block_on(spawned)?
        }
    }
}

async fn ours<R: Runtime>(runtime: R, allowance: Allowance) -> Result<(), Fault> {
    let (mut server, mut limits) = (RelayServerConfig::default(), Limits::default());
    let mut net = NetConfig::default();
    if allowance == Allowance::Much {
        server.reservations_max = MUCH;
        server.reservations_per_ip_max = MUCH;
        server.reservations_per_prefix_max = MUCH;
        server.circuits_max = MUCH;
        server.circuits_per_peer_max = MUCH;
        server.circuits_per_prefix_max = MUCH;
        server.limit = CircuitLimit {
            duration: Some(Span::from_secs(LONG.as_secs())),
            bytes: Some(MANY_BYTES),
        };
        limits.connections_max = MUCH + 50;
        net.pending_max = MUCH;
    }
    // As `serve --relay` does: private addresses are of no account, so that a /24 is a network.
    let mut config = Config::default();
    config.relay_server = Some(server);
    let mut builder =
        Node::<R>::builder(runtime, identity::generate()).config(config).limits(limits).net(net);
    for listen in LISTEN {
        builder = builder.listen(listen.parse()?);
    }
    let node = builder.start().await?;
    introduce(&node.listeners().await)?;
    std::future::pending().await
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    relay: relay::Behaviour,
}

async fn theirs(allowance: Allowance) -> Result<(), Fault> {
    let config = match allowance {
        Allowance::Default => relay::Config::default(),
        Allowance::Much => relay::Config {
            max_reservations: MUCH,
            max_reservations_per_peer: MUCH,
            max_circuits: MUCH,
            max_circuits_per_peer: MUCH,
            max_circuit_bytes: MANY_BYTES,
            max_circuit_duration: LONG,
            reservation_rate_limiters: Vec::new(),
            circuit_src_rate_limiters: Vec::new(),
            ..relay::Config::default()
        },
    };
    let behaviour = |key: &libp2p::identity::Keypair| Behaviour {
        identify: identify::Behaviour::new(identify::Config::new(
            "ipfs/0.1.0".into(),
            key.public(),
        )),
        ping: ping::Behaviour::default(),
        relay: relay::Behaviour::new(key.public().to_peer_id(), config),
    };
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)?
        .with_quic()
        .with_behaviour(behaviour)
        .map_err(|error| Fault::new(error.to_string()))?
        // As ours: whoever has not reserved yet is not turned away at once.
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(30)))
        .build();
    let mut addrs = Vec::new();
    for listen in LISTEN {
        swarm.listen_on(listen.parse()?)?;
        let address = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                break address;
            }
        };
        // A relay tells those who reserve of its external addresses alone.
        swarm.add_external_address(address.clone());
        addrs.push(address);
    }
    introduce(&addrs)?;
    loop {
        swarm.select_next_some().await;
    }
}

/// Say where we are, and answer whoever asks how we are.
fn introduce(addrs: &[Multiaddr]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for addr in addrs {
        writeln!(out, "{addr}")?;
    }
    writeln!(out)?;
    out.flush()?;
    drop(out);
    thread::spawn(|| {
        for line in io::stdin().lock().lines() {
            let (bytes, blocks) = heap::in_use();
            let mut out = io::stdout().lock();
            if line.is_err() || writeln!(out, "{bytes} {blocks}").is_err() || out.flush().is_err() {
                break;
            }
        }
        std::process::exit(0);
    });
    Ok(())
}
