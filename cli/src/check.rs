//! `portolan check`: can this machine be reached? Asked of real peers.

use crate::job::{self, Asked, Progress};
use crate::ports;
use crate::relays;
use crate::report::Report;
use multiaddr::{Multiaddr, Protocol};
use portolan_core::{
    Config, DistantServer, Duration, MappingConfig, PeerId, RelayConfig, RelayNeed, RelayPeer,
};
use portolan_runtime::bootstrap::BootstrapConfig;
use portolan_runtime::identity::{self, Keypair};
use portolan_runtime::names::NamesConfig;
use portolan_runtime::record::Recording;
use portolan_runtime::traits::Runtime;
use portolan_runtime::{Limits, Node, Notices, StartError, Stopped, destination};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

/// What to check, and how. Built by `CheckOptions::default()` and assignment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CheckOptions {
    /// The peers to dial; those among them that offer AutoNAT v2 dial back.
    pub peers: Vec<Multiaddr>,
    /// Lists that name others, if any.
    pub bootstrap: Option<BootstrapConfig>,
    /// What to listen on; when empty, every IPv4 and IPv6 address, with TCP and QUIC on one port
    /// that the kernel chooses.
    pub listen: Vec<Multiaddr>,
    /// The identity to use.
    pub keypair: Keypair,
    /// Treat private and loopback addresses as if they were global.
    pub allow_private: bool,
    /// Ask routers to map the ports that are listened on.
    pub map: bool,
    /// Ask relays for a reservation where the verdict says that not everybody can dial us: those of
    /// `relays`, and peers that relay.
    pub relay: bool,
    /// Relays were needed here before: they are asked before there is a verdict.
    pub expects_relays: bool,
    /// Relays to ask beside peers.
    pub relays: Vec<RelayPeer>,
    /// Servers behind relays to ask whether strangers get in.
    pub distant: Vec<DistantServer>,
    /// Where to remember what routers mapped: after a crash the next run renews or deletes it.
    pub ledger: Option<PathBuf>,
    /// How names in addresses are resolved.
    pub names: NamesConfig,
    /// Whom this host sent to before, on behalf of this: servers of names, when relays were looked up.
    pub contacted: Vec<IpAddr>,
    /// When to end without a verdict.
    pub timeout: Duration,
    /// Where to write a flight record, for `portolan replay`; none is written unless said.
    pub record: Option<Recording>,
}

impl Default for CheckOptions {
    fn default() -> Self {
        CheckOptions {
            peers: Vec::new(),
            bootstrap: None,
            listen: Vec::new(),
            keypair: identity::generate(),
            allow_private: false,
            map: false,
            relay: false,
            expects_relays: false,
            relays: Vec::new(),
            distant: Vec::new(),
            ledger: None,
            names: NamesConfig::default(),
            contacted: Vec::new(),
            timeout: Duration::from_secs(30),
            record: None,
        }
    }
}

/// Why a check could not be made. (That peers cannot be reached is no error: the report says so.)
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// There is nobody to ask.
    #[error("there is no peer to ask")]
    NoPeers,
    /// The node did not start, most often because a port is in use.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The node ended before the check did.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Listen, dial every peer, and report when every address has a verdict, when nobody can give
/// one, or when the time is up. The node runs on `runtime`; `progress` is called whenever
/// something has changed.
///
/// # Errors
/// If there is no peer, or if the node does not start.
pub async fn check<R: Runtime>(
    runtime: R,
    options: CheckOptions,
    mut progress: impl FnMut(&Progress),
) -> Result<Report, CheckError> {
    if options.peers.is_empty() && options.bootstrap.is_none() {
        return Err(CheckError::NoPeers);
    }
    let (node, notices) = start_node(&runtime, &options, None).await?;
    let peers = each_peer(&node, &options.peers).await;
    let asked = Asked {
        peers: &peers,
        bootstrap: options.bootstrap.as_ref(),
        relays: options.relay && !options.relays.is_empty(),
        timeout: options.timeout,
    };
    let report = job::run(&runtime, &node, notices, asked, &mut progress).await;
    node.shutdown().await;
    Ok(report?)
}

/// Start a node that does what the options say. Where they name nothing to listen on, this port is tried
/// first, if there is one.
pub(crate) async fn start_node<R: Runtime>(
    runtime: &R,
    options: &CheckOptions,
    port: Option<u16>,
) -> Result<(Node<R>, Notices), StartError> {
    if options.listen.is_empty() {
        ports::on_one_port(port, |listen| start(runtime, options, listen)).await
    } else {
        start(runtime, options, options.listen.clone()).await
    }
}

/// The peers, with a name that stands for several in as many forms: `/dnsaddr/NAME` with each peer id
/// that it leads to. Whatever cannot be resolved stays as it is: the dial says why.
async fn each_peer<R: Runtime>(node: &Node<R>, named: &[Multiaddr]) -> Vec<Multiaddr> {
    let each = named.iter().map(|addr| async move {
        let mut parts = addr.iter();
        let is_open = matches!(parts.next(), Some(Protocol::Dnsaddr(_))) && parts.next().is_none();
        let resolved = if is_open { node.resolve(addr).await.ok() } else { None };
        let found = resolved.map(|found| found.addrs).unwrap_or_default();
        let ids: BTreeSet<Option<PeerId>> =
            found.iter().filter_map(|addr| destination(addr).ok()).map(|(_, peer)| peer).collect();
        if ids.is_empty() || ids.contains(&None) {
            return vec![addr.clone()];
        }
        ids.into_iter().flatten().map(|peer| addr.clone().with(Protocol::P2p(peer))).collect()
    });
    futures::future::join_all(each).await.concat()
}

async fn start<R: Runtime>(
    runtime: &R,
    options: &CheckOptions,
    listen: Vec<Multiaddr>,
) -> Result<(Node<R>, Notices), StartError> {
    let mut config = Config::default();
    config.allow_private = options.allow_private;
    config.mapping = options.map.then(MappingConfig::default);
    let uses_relays = options.relay || !options.distant.is_empty();
    config.relay = uses_relays.then(RelayConfig::default);
    if let Some(relay) = &mut config.relay {
        relay.need = match (options.relay, options.expects_relays) {
            (true, false) => RelayNeed::Auto,
            (true, true) => RelayNeed::Expected,
            (false, _) => RelayNeed::Never,
        };
        relay.relays = relays::distinct(&options.relays);
        relay.distant_servers = relays::distinct_servers(&options.distant);
    }
    // A server that is slow to answer must not be lost for looking idle.
    let mut limits = Limits::default();
    limits.idle_timeout = limits.idle_timeout.max(options.timeout);
    let mut builder =
        Node::builder(runtime.clone(), options.keypair.clone()).config(config).limits(limits);
    builder = builder.names(options.names.clone()).contacted(options.contacted.iter().copied());
    for addr in listen {
        builder = builder.listen(addr);
    }
    if let Some(recording) = options.record.clone() {
        builder = builder.record(recording);
    }
    if let Some(ledger) = &options.ledger {
        builder = builder.ledger(ledger);
    }
    let notices = builder.notices();
    Ok((builder.start().await?, notices))
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_tokio::Tokio;
    use tokio::runtime::Handle;

    #[tokio::test]
    async fn without_peers_nothing_is_started() {
        let runtime = Tokio::new(Handle::current());
        let result = check(runtime, CheckOptions::default(), |_| ()).await;
        assert!(matches!(result, Err(CheckError::NoPeers)));
    }
}
