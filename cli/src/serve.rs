//! `portolan serve`: an AutoNAT v2 server, with identify and ping, and a relay if wanted.

use crate::http::{ClusterOptions, HttpError, HttpOptions, HttpServer, Serving};
use crate::relays;
use futures::{FutureExt, StreamExt};
use multiaddr::Multiaddr;
use portolan_core::config::{CONNECTIONS_MAX, RESERVATIONS_MAX};
use portolan_core::wire::multiaddr::{Decoded, from_multiaddr, to_multiaddr};
use portolan_core::{
    Addr, CircuitAddr, Config, DialBackConfig, Family, IpScope, Notice, PeerId, RelayConfig,
    RelayNeed, RelayNotice, RelayPeer, RelayServerConfig, ip_scope,
};
use portolan_runtime::identity::{self, Keypair};
use portolan_runtime::names::NamesConfig;
use portolan_runtime::net::interface_ips;
use portolan_runtime::record::Recording;
use portolan_runtime::traits::Runtime;
use portolan_runtime::{
    AddressError, Limits, Node, Notices, StartError, circuit_address, listen_address,
};
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

/// How to serve. Built by `ServeOptions::default()` and assignment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServeOptions {
    /// What to listen on.
    pub listen: Vec<Multiaddr>,
    /// The identity to use.
    pub keypair: Keypair,
    /// Treat private and loopback addresses as if they were global, and dial them back.
    pub allow_private: bool,
    /// IPs to dial back from; never listened on nor advertised.
    pub dial_from: Vec<IpAddr>,
    /// Relay for others as well, and how much.
    pub relay: Option<RelayServerConfig>,
    /// Relays to hold reservations at, at the nearest four if there are more.
    pub reserve_at: Vec<RelayPeer>,
    /// How names in addresses are resolved.
    pub names: NamesConfig,
    /// Whom this host sent to before, on behalf of this: servers of names, when relays were looked up.
    pub contacted: Vec<IpAddr>,
    /// Show what is done over HTTP as well, and offer a list of peers to start from.
    pub http: Option<HttpOptions>,
    /// Others that are listed over HTTP.
    pub cluster: ClusterOptions,
    /// Where to write a flight record, for `portolan replay`; none is written unless said.
    pub record: Option<Recording>,
}

impl Default for ServeOptions {
    fn default() -> Self {
        ServeOptions {
            listen: Vec::new(),
            keypair: identity::generate(),
            allow_private: false,
            dial_from: Vec::new(),
            relay: None,
            reserve_at: Vec::new(),
            names: NamesConfig::default(),
            contacted: Vec::new(),
            http: None,
            cluster: ClusterOptions::default(),
            record: None,
        }
    }
}

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// There is nothing to listen on.
    #[error("there is no address to listen on")]
    NothingToListenOn,
    /// An address that cannot be listened on.
    #[error("{addr} {problem}")]
    Address {
        /// The address.
        addr: Multiaddr,
        /// What is wrong with it.
        problem: AddressError,
    },
    /// A server that dials private addresses must not take requests from the whole world.
    #[error(
        "private addresses may not be dialled by a server that the Internet can reach: {listen} \
         listens on {ip}"
    )]
    PrivateBesideGlobal {
        /// What was to be listened on.
        listen: Multiaddr,
        /// The globally routable IP.
        ip: IpAddr,
    },
    /// An IP that is for dial-backs only would be listened on as well.
    #[error("{listen} would listen on {ip}, which is for dial-backs only")]
    ListenedSource {
        /// What was to be listened on.
        listen: Multiaddr,
        /// The IP that is for dial-backs only.
        ip: IpAddr,
    },
    /// An IP from which this host cannot dial.
    #[error("cannot dial from {ip}: {source}")]
    Source {
        /// The IP.
        ip: IpAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// The interfaces of this host could not be listed.
    #[error("cannot list the interfaces of this host: {0}")]
    Interfaces(io::Error),
    /// HTTP cannot be served.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The node did not start, most often because a port is in use.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl ServeError {
    /// Whether the options themselves are at fault, on any machine in any state.
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        match self {
            ServeError::NothingToListenOn
            | ServeError::Address { .. }
            | ServeError::PrivateBesideGlobal { .. }
            | ServeError::ListenedSource { .. }
            | ServeError::Start(StartError::Config(_)) => true,
            ServeError::Source { .. }
            | ServeError::Interfaces(_)
            | ServeError::Http(_)
            | ServeError::Start(_) => false,
        }
    }
}

/// Serve on `runtime` until `stop` resolves, then shut down after the answers under way are delivered.
/// `ready` is first called with where HTTP is served, if it is, and then with the full multiaddr of every address that is listened on, and later with those
/// at which relays lead to this server, whenever there are new ones. When `drain` resolves, the relay
/// service is wound down ([`Node::drain_relay`]).
///
/// # Errors
/// If the options contradict each other, or the node does not start.
pub async fn serve<R: Runtime>(
    runtime: R,
    mut options: ServeOptions,
    mut ready: impl FnMut(Ready<'_>),
    drain: impl Future<Output = ()>,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    if options.listen.is_empty() {
        return Err(ServeError::NothingToListenOn);
    }
    // An IPv4 address in IPv6's clothes is the same address.
    options.dial_from.iter_mut().for_each(|ip| *ip = ip.to_canonical());
    let interfaces = interface_ips().map_err(ServeError::Interfaces)?;
    for listen in &options.listen {
        let problem = |problem| ServeError::Address { addr: listen.clone(), problem };
        let addr = listen_address(listen).map_err(problem)?;
        admit(&options, listen, addr, &interfaces)?;
    }
    for ip in &options.dial_from {
        UdpSocket::bind((*ip, 0)).map_err(|source| ServeError::Source { ip: *ip, source })?;
    }
    // A port that is in use is told before anything else begins.
    let http = options.http.take();
    let cluster = std::mem::take(&mut options.cluster);
    let web = http.as_ref().map(|http| HttpServer::listen(http.addr)).transpose()?;
    let allow_private = options.allow_private;
    let (node, mut notices) = start(runtime.clone(), options).await?;
    if let Some(web) = &web {
        ready(Ready::Http(web.addr()));
    }
    ready(Ready::Addresses(&concrete(&node.listeners().await, &interfaces)));
    let shown = Serving::new(&node, allow_private, DialBackConfig::default().dials_max);
    let log = async {
        while let Some(noticed) = notices.next().await {
            log(&noticed.notice);
            shown.noticed(&noticed);
            let led = led_here(&noticed.notice, node.peer_id());
            if !led.is_empty() {
                ready(Ready::Addresses(&led));
            }
        }
    };
    let drain = async {
        drain.await;
        tracing::info!("the relay service is wound down");
        // Where the node is gone there is nothing to wind down.
        let _ = node.drain_relay().await;
        futures::future::pending::<()>().await;
    };
    let show = async {
        match (http, web) {
            (Some(http), Some(web)) => shown.run(&runtime, (web, http.names), &cluster).await,
            (_, _) => futures::future::pending().await,
        }
    };
    // The log ends by itself only when the node does.
    let served = {
        let (log, drain, show, stop) = (log.fuse(), drain.fuse(), show.fuse(), stop.fuse());
        futures::pin_mut!(log, drain, show, stop);
        futures::select! {
            () = stop => Ok(()),
            () = log => Ok(()),
            () = drain => Ok(()),
            failed = show => Err(failed.into()),
        }
    };
    node.shutdown().await;
    served
}

/// What a server that is ready to serve says.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Ready<'a> {
    /// HTTP is served there.
    Http(SocketAddr),
    /// Peers reach it at these addresses.
    Addresses(&'a [Multiaddr]),
}

/// The new addresses at which relays lead to us.
fn led_here(notice: &Notice, own: PeerId) -> Vec<Multiaddr> {
    let Notice::Relay(RelayNotice::CircuitAddrsChanged { added, .. }) = notice else {
        return Vec::new();
    };
    let address = |CircuitAddr { relay, addr }: &CircuitAddr| circuit_address(*addr, *relay, own);
    added.iter().map(address).collect()
}

/// Whether an address may be listened on beside the other options.
fn admit(
    options: &ServeOptions,
    listen: &Multiaddr,
    addr: Addr,
    interfaces: &[IpAddr],
) -> Result<(), ServeError> {
    let listened = |ip: IpAddr| {
        ip == addr.ip || addr.ip.is_unspecified() && Family::of(ip) == Family::of(addr.ip)
    };
    if let Some(ip) = options.dial_from.iter().copied().find(|ip| listened(*ip)) {
        return Err(ServeError::ListenedSource { listen: listen.clone(), ip });
    }
    let mut ips = interfaces.iter().copied().chain([addr.ip]).filter(|ip| listened(*ip));
    match ips.find(|ip| ip_scope(*ip) == IpScope::Global) {
        Some(ip) if options.allow_private => {
            Err(ServeError::PrivateBesideGlobal { listen: listen.clone(), ip })
        }
        _ => Ok(()),
    }
}

async fn start<R: Runtime>(
    runtime: R,
    options: ServeOptions,
) -> Result<(Node<R>, Notices), StartError> {
    let mut dial_back = DialBackConfig::default();
    dial_back.sources = options.dial_from;
    let mut config = Config::default();
    config.allow_private = options.allow_private;
    config.dial_back = Some(dial_back);
    config.relay = reserving(&options.reserve_at);
    let mut limits = Limits::default();
    if let Some(relay) = &options.relay {
        // Who reserves keeps a connection, and who comes through needs another.
        let wanted = relay.reservations_max.saturating_mul(2).min(CONNECTIONS_MAX);
        limits.connections_max = limits.connections_max.max(wanted);
    }
    config.relay_server = options.relay;
    let mut builder = Node::builder(runtime, options.keypair).config(config).limits(limits);
    builder = builder.names(options.names).contacted(options.contacted);
    for addr in options.listen {
        builder = builder.listen(addr);
    }
    if let Some(recording) = options.record {
        builder = builder.record(recording);
    }
    let notices = builder.notices();
    Ok((builder.start().await?, notices))
}

/// Hold a reservation at each of these relays, for as long as we run.
fn reserving(relays: &[RelayPeer]) -> Option<RelayConfig> {
    let mut config = RelayConfig::default();
    config.relays = relays::distinct(relays);
    config.need = RelayNeed::Always;
    config.reservations = config.relays.len().clamp(1, RESERVATIONS_MAX);
    config.use_connected = false;
    (!relays.is_empty()).then_some(config)
}

/// The addresses with every wildcard replaced by the interface addresses that it stands for.
/// Link-local ones are left out: without a zone nobody can dial them.
pub(crate) fn concrete(listeners: &[Multiaddr], interfaces: &[IpAddr]) -> Vec<Multiaddr> {
    let mut addresses = Vec::new();
    for listener in listeners {
        let wildcard = match from_multiaddr(listener) {
            Decoded::Direct { addr, peer } if addr.ip.is_unspecified() => Some((addr, peer)),
            Decoded::Direct { .. } | Decoded::Relayed | Decoded::Other | _ => None,
        };
        let Some((addr, peer)) = wildcard else {
            addresses.push(listener.clone());
            continue;
        };
        let of_family = |ip: &&IpAddr| Family::of(**ip) == Family::of(addr.ip);
        let usable =
            |ip: &&IpAddr| !matches!(ip_scope(**ip), IpScope::LinkLocal | IpScope::Unusable);
        let ips = interfaces.iter().filter(of_family).filter(usable);
        addresses.extend(ips.map(|ip| to_multiaddr(Addr { ip: *ip, ..addr }, peer)));
    }
    addresses
}

#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "of all notices, a server's log wants these alone"
)]
fn log(notice: &Notice) {
    match notice {
        Notice::DialBackServed { peer, addr, answer, .. } => {
            let addr = addr.map(tracing::field::display);
            tracing::info!(%peer, addr, ?answer, "dial request answered");
        }
        Notice::FullyConnected { peer } => {
            tracing::info!(%peer, "fully connected: a peer of the cluster had itself dialled back");
        }
        Notice::Relay(notice) => relays::log(notice),
        Notice::Ignored { oddity, conn } => {
            let conn = conn.map(tracing::field::display);
            tracing::debug!(?oddity, conn, "ignored");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::pending;
    use portolan_tokio::Tokio;
    use tokio::runtime::Handle;

    fn admitted(listen: &str, private: bool, from: &[&str]) -> Result<(), ServeError> {
        let ip = |ip: &&str| ip.parse().expect("an address");
        let interfaces: Vec<IpAddr> =
            ["127.0.0.1", "192.168.1.2", "44.1.2.3", "::1"].iter().map(ip).collect();
        let options = ServeOptions {
            allow_private: private,
            dial_from: from.iter().map(ip).collect(),
            ..ServeOptions::default()
        };
        let listen = listen.parse().expect("a multiaddr");
        let addr = listen_address(&listen).expect("a good address");
        admit(&options, &listen, addr, &interfaces)
    }

    #[test]
    fn private_targets_and_the_internet_do_not_go_together() {
        for listen in ["/ip4/44.1.2.3/tcp/0", "/ip4/0.0.0.0/udp/0/quic-v1", "/ip6/2600::1/tcp/1"] {
            admitted(listen, false, &[]).expect("a plain server");
            let error = admitted(listen, true, &[]).expect_err("a danger to its network");
            assert!(matches!(error, ServeError::PrivateBesideGlobal { .. }), "{error}");
            assert!(error.is_usage() && error.to_string().contains(listen), "{error}");
        }
        for listen in ["/ip4/127.0.0.1/tcp/0", "/ip4/192.168.1.2/tcp/0", "/ip6/::/tcp/0"] {
            admitted(listen, true, &[]).expect("nobody outside can ask");
        }
    }

    #[test]
    fn sources_of_dial_backs_are_not_listened_on() {
        admitted("/ip4/127.0.0.1/tcp/0", true, &["127.1.0.1"]).expect("two addresses");
        admitted("/ip6/::/tcp/0", true, &["127.1.0.1"]).expect("two families");
        for listen in ["/ip4/127.1.0.1/tcp/0", "/ip4/0.0.0.0/tcp/0"] {
            let error = admitted(listen, false, &["127.1.0.1"]).expect_err("one address twice");
            assert!(matches!(error, ServeError::ListenedSource { .. }), "{error}");
        }
    }

    #[test]
    fn a_wildcard_is_shown_as_what_it_stands_for() {
        let addrs = ["/ip4/0.0.0.0/tcp/9", "/ip6/::/udp/9/quic-v1", "/ip4/10.0.0.1/tcp/9"];
        let addrs = addrs.map(|addr| addr.parse().expect("a multiaddr"));
        let ips = ["127.0.0.1", "10.0.0.1", "::1", "fe80::1"];
        let ips = ips.map(|ip| ip.parse().expect("an address"));
        let shown: Vec<String> = concrete(&addrs, &ips).iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "/ip4/127.0.0.1/tcp/9",
                "/ip4/10.0.0.1/tcp/9",
                "/ip6/::1/udp/9/quic-v1",
                "/ip4/10.0.0.1/tcp/9",
            ]
        );
    }

    #[tokio::test]
    async fn a_stopped_server_is_ready_once() {
        let runtime = || Tokio::new(Handle::current());
        let mut options = ServeOptions::default();
        let none = serve(runtime(), options.clone(), |_| (), pending(), async {}).await;
        assert!(matches!(none, Err(ServeError::NothingToListenOn)));

        options.allow_private = true;
        options.listen.push("/ip4/127.0.0.1/tcp/0".parse().expect("a multiaddr"));
        let mut ready = Vec::new();
        let peer = options.keypair.public().to_peer_id();
        let ready_at = |one: Ready<'_>| {
            if let Ready::Addresses(addrs) = one {
                ready.extend_from_slice(addrs);
            }
        };
        serve(runtime(), options, ready_at, pending(), async {}).await.expect("it serves");
        let text: Vec<String> = ready.iter().map(ToString::to_string).collect();
        assert_eq!(text.len(), 1);
        assert!(text[0].starts_with("/ip4/127.0.0.1/tcp/") && !text[0].contains("/tcp/0/"));
        assert!(text[0].ends_with(&format!("/p2p/{peer}")), "{text:?}");
    }
}
