//! `portolan demo`: a client and five servers in one process, over real sockets on loopback.

use crate::job::{self, Asked, Progress};
use crate::report::Report;
use multiaddr::{Multiaddr, Protocol};
use portolan_core::{Config, DialBackConfig, Duration};
use portolan_runtime::record::Recording;
use portolan_runtime::traits::Runtime;
use portolan_runtime::{Builder, Node, StartError, Stopped, identity};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};

/// Servers in the demo, number; ours: enough to show that they are spread over and agree.
const SERVERS: u8 = 5;

/// Servers that fit into the range of addresses that [`Servers`] takes.
const SERVERS_MAX: u8 = 200;

/// When the demo gives up; ours: a hundred times what it takes.
const TIMEOUT: Duration = Duration::from_secs(9);

/// What else the demo does. Built by `DemoOptions::default()` and assignment.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct DemoOptions {
    /// Where to write a flight record of the client, for `portolan replay`; none is written unless
    /// said.
    pub record: Option<Recording>,
}

/// Why the demo could not be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DemoError {
    /// The platform does not treat all of 127.0.0.0/8 as its own.
    #[error(
        "this system has no loopback address {ip}; the demo plays several hosts, each with an \
         address of its own from 127.0.0.0/8. Add 127.0.0.11 to 127.0.0.15 and 127.0.1.11 to \
         127.0.1.15 to the loopback interface (on macOS: `ifconfig lo0 alias {ip}`)"
    )]
    NoSuchLoopback {
        /// The address that cannot be bound.
        ip: Ipv4Addr,
    },
    /// More servers than there are addresses for.
    #[error("{given} servers are too many, there can be {SERVERS_MAX}")]
    TooMany {
        /// How many were wanted.
        given: u8,
    },
    /// A node did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The client ended before the demo did.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// AutoNAT v2 servers on loopback addresses of their own: 127.0.0.11 and up, each with a second
/// IP (127.0.1.11 and up) from which it dials back and on which it does not listen.
#[derive(Debug)]
pub struct Servers<R: Runtime> {
    nodes: Vec<Node<R>>,
    addresses: Vec<Multiaddr>,
}

impl<R: Runtime> Servers<R> {
    /// Start `count` servers on `runtime` whose dial-back service has the limits of `dial_back`; its sources
    /// are replaced. Each listens on TCP and QUIC, on ports that the kernel chooses.
    ///
    /// # Errors
    /// If the system lacks the loopback addresses, or a node does not start.
    pub async fn start(
        runtime: R,
        count: u8,
        dial_back: DialBackConfig,
    ) -> Result<Servers<R>, DemoError> {
        if count > SERVERS_MAX {
            return Err(DemoError::TooMany { given: count });
        }
        let mut servers = Servers { nodes: Vec::new(), addresses: Vec::new() };
        for host in (11..).take(count.into()) {
            let ip = Ipv4Addr::new(127, 0, 0, host);
            let source = Ipv4Addr::new(127, 0, 1, host);
            for ip in [ip, source] {
                UdpSocket::bind((ip, 0)).map_err(|_| DemoError::NoSuchLoopback { ip })?;
            }
            let node = server(&runtime, ip, source.into(), dial_back.clone()).await?;
            servers.addresses.extend(node.listeners().await);
            servers.nodes.push(node);
        }
        Ok(servers)
    }

    /// The multiaddr of every listener of every server, with `/p2p/PEER-ID` at the end.
    #[must_use]
    pub fn addresses(&self) -> &[Multiaddr] {
        &self.addresses
    }

    /// Stop every server.
    pub async fn shutdown(self) {
        futures::future::join_all(self.nodes.iter().map(Node::shutdown)).await;
    }
}

/// Start servers and a client on `runtime`, run the whole job, and report. `progress` is called
/// whenever something has changed.
///
/// # Errors
/// If the system lacks the loopback addresses, or a node does not start.
pub async fn demo<R: Runtime>(
    runtime: R,
    options: DemoOptions,
    mut progress: impl FnMut(&Progress),
) -> Result<Report, DemoError> {
    let servers = Servers::start(runtime.clone(), SERVERS, DialBackConfig::default()).await?;
    let mut config = Config::default();
    config.allow_private = true;
    let mut client = listening(&runtime, Ipv4Addr::LOCALHOST, config);
    if let Some(recording) = options.record {
        client = client.record(recording);
    }
    let notices = client.notices();
    let client = client.start().await?;
    // Every server is dialled over both transports, so that there are observers for both.
    let peers = servers.addresses();
    let asked = Asked { peers, bootstrap: None, relays: false, timeout: TIMEOUT };
    let report = job::run(&runtime, &client, notices, asked, &mut progress).await;
    client.shutdown().await;
    servers.shutdown().await;
    Ok(report?)
}

async fn server<R: Runtime>(
    runtime: &R,
    ip: Ipv4Addr,
    source: IpAddr,
    mut dial_back: DialBackConfig,
) -> Result<Node<R>, StartError> {
    dial_back.sources = vec![source];
    let mut config = Config::default();
    config.allow_private = true;
    config.dial_back = Some(dial_back);
    listening(runtime, ip, config).start().await
}

/// A node about to listen on this IP, with both transports, on ports that the kernel chooses.
fn listening<R: Runtime>(runtime: &R, ip: Ipv4Addr, config: Config) -> Builder<R> {
    let ip = Multiaddr::from(ip);
    Node::builder(runtime.clone(), identity::generate())
        .config(config)
        .listen(ip.clone().with(Protocol::Tcp(0)))
        .listen(ip.with(Protocol::Udp(0)).with(Protocol::QuicV1))
}
