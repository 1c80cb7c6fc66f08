//! A Portolan node as tests use one: started in one line, its notices kept in a log, and waits
//! that are bounded and say what they saw when they fail.

use futures::StreamExt as _;
use libp2p_identity::{Keypair, PeerId};
use multiaddr::Multiaddr;
use portolan_core::{Addr, AddressExplanation, Config, Explanation, Notice, Outcome};
use portolan_runtime::traits::Runtime;
use portolan_runtime::{Builder, Node, Noticed};
use std::time::Duration;
use tokio::sync::watch;

/// How long [`PortolanPeer::wait_explained`] goes without a new notice before it looks again: not
/// every change of an explanation comes with one.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A running node and what it has told. Dropping it shuts the node down. The node lives on the
/// runtime that it was started on; who waits here waits on tokio.
#[derive(Debug)]
pub struct PortolanPeer<R: Runtime> {
    /// The node.
    pub node: Node<R>,
    /// What it listens on, with `/p2p/`, in the order of listening.
    pub full_addrs: Vec<Multiaddr>,
    log: watch::Receiver<Vec<Noticed>>,
    task: tokio::task::JoinHandle<()>,
}

/// A configuration for one host: private addresses are as good as any.
pub fn on_one_host() -> Config {
    let mut config = Config::default();
    config.allow_private = true;
    config
}

impl<R: Runtime> PortolanPeer<R> {
    /// Start a node with a fresh Ed25519 identity.
    pub async fn start(runtime: R, config: Config, listen: &[&str]) -> PortolanPeer<R> {
        let keypair = Keypair::generate_ed25519();
        PortolanPeer::start_as(runtime, keypair, config, listen, |builder| builder).await
    }

    /// Start a node with this identity, and with whatever `finish` adds to it.
    pub async fn start_as(
        runtime: R,
        keypair: Keypair,
        config: Config,
        listen: &[&str],
        finish: impl FnOnce(Builder<R>) -> Builder<R>,
    ) -> PortolanPeer<R> {
        let mut builder = finish(Node::builder(runtime, keypair).config(config));
        for addr in listen {
            builder = builder.listen(addr.parse().expect("a multiaddr"));
        }
        let mut notices = builder.notices();
        let node = builder.start().await.expect("the addresses are free: the kernel chooses ports");
        let (writer, log) = watch::channel(Vec::new());
        let task = tokio::spawn(async move {
            while let Some(noticed) = notices.next().await {
                assert_eq!(noticed.missed, 0, "the log keeps up");
                writer.send_modify(|log| log.push(noticed));
            }
        });
        let full_addrs = node.listeners().await;
        PortolanPeer { node, full_addrs, log, task }
    }

    /// Its peer id.
    pub fn id(&self) -> PeerId {
        self.node.peer_id()
    }

    /// What it listens on, as core names addresses.
    pub fn addrs(&self) -> Vec<Addr> {
        self.full_addrs.iter().map(to_addr).collect()
    }

    /// Every notice so far, oldest first.
    pub fn notices(&self) -> Vec<Notice> {
        self.log.borrow().iter().map(|noticed| noticed.notice.clone()).collect()
    }

    /// Wait until `pick` finds what it looks for among the notices, from the first on. The error
    /// names `what` and shows the log.
    pub async fn wait_notice<T>(
        &self,
        what: &str,
        within: Duration,
        mut pick: impl FnMut(&Notice) -> Option<T>,
    ) -> Result<T, String> {
        self.wait_noticed(what, within, |noticed| pick(&noticed.notice)).await
    }

    /// As [`PortolanPeer::wait_notice`], for who wants to know when it was.
    pub async fn wait_noticed<T>(
        &self,
        what: &str,
        within: Duration,
        mut pick: impl FnMut(&Noticed) -> Option<T>,
    ) -> Result<T, String> {
        let mut log = self.log.clone();
        let mut found = None;
        let search = log.wait_for(|notices| {
            found = notices.iter().find_map(&mut pick);
            found.is_some()
        });
        let ended = tokio::time::timeout(within, search).await.is_ok_and(|waited| waited.is_ok());
        found.filter(|_| ended).ok_or_else(|| {
            format!("Portolan told of no {what} within {within:?}, only {:#?}", *self.log.borrow())
        })
    }

    /// Wait until `pick` finds what it looks for in the explanation. The error names `what` and
    /// shows the last explanation.
    pub async fn wait_explained<T>(
        &self,
        what: &str,
        within: Duration,
        mut pick: impl FnMut(&Explanation) -> Option<T>,
    ) -> Result<T, String> {
        let mut log = self.log.clone();
        let mut last = None;
        let search = async {
            loop {
                log.mark_unchanged();
                let explanation = self.node.explain().await.expect("nobody shuts it down");
                if let Some(found) = pick(&explanation) {
                    return found;
                }
                last = Some(explanation);
                // Whether there was a notice or not: look again.
                let _notice = tokio::time::timeout(LOOK_AGAIN, log.changed()).await;
            }
        };
        let searched = tokio::time::timeout(within, search).await;
        searched.map_err(|_| format!("Portolan has no {what} after {within:?}: {last:#?}"))
    }
}

impl<R: Runtime> Drop for PortolanPeer<R> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What an explanation says about one address.
pub fn explained(explanation: &Explanation, addr: Addr) -> Option<&AddressExplanation> {
    explanation.addresses.iter().find(|one| one.addr == addr)
}

/// How often the probes of one server ended like this.
pub fn outcomes(explanation: &Explanation, server: PeerId, outcome: Outcome) -> u32 {
    let servers = explanation.servers.iter().filter(|one| one.peer == server);
    let counts = servers.flat_map(|one| &one.outcomes);
    counts.filter(|(kind, _)| *kind == outcome).map(|(_, count)| count).sum()
}

/// The transport address in a multiaddr of this host.
///
/// # Panics
/// If it is none.
pub fn to_addr(multiaddr: &Multiaddr) -> Addr {
    use multiaddr::Protocol::{Ip4, Ip6, Tcp, Udp};
    let mut parts = multiaddr.iter();
    let ip = match parts.next() {
        Some(Ip4(ip)) => ip.into(),
        Some(Ip6(ip)) => std::net::IpAddr::from(ip),
        _ => panic!("{multiaddr} does not start with an IP address"),
    };
    match parts.next() {
        Some(Tcp(port)) => Addr::tcp(ip, port),
        Some(Udp(port)) => Addr::quic(ip, port),
        _ => panic!("{multiaddr} has no port"),
    }
}
