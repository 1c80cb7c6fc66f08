//! One run of either client: start, listen, dial every server at once, wait for the verdict.

use super::stats::NoRuns;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use libp2p::swarm::{DialError as SwarmDialError, NetworkBehaviour, SwarmEvent};
use libp2p::{Swarm, SwarmBuilder, TransportError, autonat, identify, noise, tcp, yamux};
use multiaddr::{Multiaddr, Protocol};
use portolan::DemoError;
use portolan_core::{Config, Notice, State, Transport};
use portolan_runtime::{DialError, StartError, identity};
use portolan_tokio::Node;
use std::fmt;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// A run that takes longer has failed. rust-libp2p probes every five seconds.
const BOUND: Duration = Duration::from_secs(60);

/// Why nothing was measured.
#[derive(Debug)]
pub(crate) struct Fault(String);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<NoRuns> for Fault {
    fn from(_: NoRuns) -> Fault {
        Fault("there are no runs".into())
    }
}

/// An error of a library becomes a fault with its words.
macro_rules! faults {
    ($($error:ty),*) => {
        $(impl From<$error> for Fault {
            fn from(error: $error) -> Fault {
                Fault(error.to_string())
            }
        })*
    };
}

faults!(
    DemoError,
    StartError,
    DialError,
    SwarmDialError,
    TransportError<std::io::Error>,
    noise::Error,
    Box<dyn std::error::Error + Send + Sync>
);

/// From the first dial to the first verdict of a Portolan client.
pub(crate) async fn portolan(
    transport: Transport,
    servers: &[Multiaddr],
) -> Result<Duration, Fault> {
    let mut config = Config::default();
    config.allow_private = true;
    let node = Node::builder(Handle::current(), identity::generate())
        .config(config)
        .listen(loopback(transport))
        .start()
        .await?;
    let mut notices = node.notices();
    let since = node.now();
    let mut dials: FuturesUnordered<_> =
        servers.iter().map(|server| node.dial(server.clone())).collect();
    let verdict = async {
        loop {
            tokio::select! {
                // A dial that fails is a fault of the bench, whatever the verdict.
                Some(dialled) = dials.next() => drop(dialled?),
                Some(noticed) = notices.next() => {
                    if let Notice::VerdictChanged { addr, state: State::Reachable, .. } =
                        noticed.notice
                        && addr.transport == transport
                    {
                        return Ok(noticed.at);
                    }
                }
                else => return Err(Fault("the node ended".into())),
            }
        }
    };
    let at = bounded("Portolan", verdict).await?;
    drop(dials);
    node.shutdown().await;
    Ok(at.since(since))
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    identify: identify::Behaviour,
    autonat: autonat::v2::client::Behaviour,
}

/// From the first dial to the first successful AutoNAT v2 event of a rust-libp2p client.
pub(crate) async fn rust_libp2p(
    transport: Transport,
    servers: &[Multiaddr],
) -> Result<Duration, Fault> {
    let mut swarm = swarm()?;
    swarm.listen_on(loopback(transport))?;
    let listening = async {
        while !matches!(swarm.select_next_some().await, SwarmEvent::NewListenAddr { .. }) {}
        Ok(())
    };
    bounded("rust-libp2p's listener", listening).await?;
    let since = Instant::now();
    for server in servers {
        swarm.dial(server.clone())?;
    }
    let verdict = async {
        loop {
            let event = swarm.select_next_some().await;
            if let SwarmEvent::OutgoingConnectionError { error, .. } = event {
                return Err(error.into());
            }
            if let SwarmEvent::Behaviour(BehaviourEvent::Autonat(tested)) = event
                && tested.result.is_ok()
            {
                return Ok(since.elapsed());
            }
        }
    };
    bounded("rust-libp2p", verdict).await
}

fn swarm() -> Result<Swarm<Behaviour>, Fault> {
    let behaviour = |key: &libp2p::identity::Keypair| Behaviour {
        identify: identify::Behaviour::new(identify::Config::new(
            "ipfs/0.1.0".into(),
            key.public(),
        )),
        autonat: autonat::v2::client::Behaviour::default(),
    };
    let swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)?
        .with_quic()
        .with_behaviour(behaviour)
        .map_err(|error| Fault(error.to_string()))?
        // By default a connection that nothing uses is closed at once, before the first probe.
        .with_swarm_config(|config| config.with_idle_connection_timeout(BOUND))
        .build();
    Ok(swarm)
}

fn loopback(transport: Transport) -> Multiaddr {
    let ip = Multiaddr::from(Ipv4Addr::LOCALHOST);
    match transport {
        Transport::Tcp => ip.with(Protocol::Tcp(0)),
        Transport::Quic => ip.with(Protocol::Udp(0)).with(Protocol::QuicV1),
    }
}

async fn bounded<T>(who: &str, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    match tokio::time::timeout(BOUND, work).await {
        Ok(done) => done,
        Err(_) => Err(Fault(format!("{who} came to no verdict within {} s", BOUND.as_secs()))),
    }
}
