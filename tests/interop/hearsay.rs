//! The cells of AutoNAT v1: both roles, with a client that can be dialled and with one that cannot.

use crate::cell::{Cell, Kind, Place, Protocol, Role, Row};
use crate::cells::Group;
use crate::other::{Other, WITHIN, listen_addr};
use libp2p_identity::Keypair;
use portolan::{CheckError, CheckOptions, Report};
use portolan_core::{DialBackConfig, HearsayAnswer, Notice, Served, Transport};
use portolan_runtime::net::NetConfig;
use portolan_runtime::traits::Runtime;
use portolan_tests::portolan_peer::PortolanPeer;
use portolan_tests::rust_peer::{RustPeer, RustPeerConfig, Seen};

/// A port that nobody listens on: discard, which nothing in use offers any more.
const DEAD_PORT: u16 = 9;

impl<R: Runtime> Group<R> {
    /// Every cell of AutoNAT v1.
    pub(crate) async fn hearsay(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for protocol in [Protocol::V1Reachable, Protocol::V1Unreachable] {
            let is_open = protocol == Protocol::V1Reachable;
            // js-libp2p looks at no private address, whether it can be dialled or not.
            if !is_open && (self.kind, self.place) == (Kind::Js, Place::Loopback) {
                continue;
            }
            let of = |role, result| {
                let row = Row { kind: self.kind, place: self.place, protocol, role };
                Cell { row, transport: self.transport, result }
            };
            cells.push(of(Role::Client, self.is_told(is_open).await));
            let told = match self.kind {
                Kind::Rust => self.tells(is_open).await,
                Kind::Js => self.tells_js(is_open).await,
            };
            cells.push(of(Role::Server, told));
        }
        cells
    }

    /// A peer that speaks v1.
    async fn old(&self) -> Result<Other, String> {
        match self.kind {
            Kind::Rust => Ok(Other::Rust(self.old_rust(true).await)),
            Kind::Js => Ok(Other::Js(Box::new(self.old_js(true).await?))),
        }
    }

    /// rust-libp2p speaking v1; one that cannot be dialled says that it is where nobody is.
    async fn old_rust(&self, is_open: bool) -> RustPeer {
        let dead = match self.transport {
            Transport::Tcp => format!("/ip4/{}/tcp/{DEAD_PORT}", self.other_ip()),
            Transport::Quic => format!("/ip4/{}/udp/{DEAD_PORT}/quic-v1", self.other_ip()),
        };
        let listen = listen_addr(self.other_ip(), self.transport);
        // Without a listener it has no address but the one that it is told to have tested.
        let listen = is_open.then(|| listen.parse().expect("a multiaddr"));
        let dead = (!is_open).then(|| dead.parse().expect("a multiaddr"));
        let config = RustPeerConfig {
            listen: listen.into_iter().collect(),
            hearsay: true,
            candidate: dead,
            ..RustPeerConfig::default()
        };
        RustPeer::start(config).await
    }

    /// Portolan that serves those who ask by v1, and asks nobody by it.
    pub(crate) async fn old_server(&self, listen: &str) -> PortolanPeer<R> {
        let mut config = self.config();
        config.dial_back = Some(DialBackConfig::default());
        config.hearsay = false;
        PortolanPeer::start(self.runtime.clone(), config, &[listen]).await
    }

    /// Portolan is the client: the other one says what is true.
    async fn is_told(&self, is_open: bool) -> Result<(), String> {
        let other = self.old().await?;
        let (us, told) = self.asks(&other, is_open).await?;
        match (told, &other) {
            (told, _) if told == right(is_open) => Ok(()),
            (HearsayAnswer::Nothing, Other::Js(js)) => Err(self.js_is_silent(js, &us).await?),
            (told, _) => Err(format!("it says {}", told.name())),
        }
    }

    /// Portolan dials a server and asks it: what it says, and who asked.
    pub(crate) async fn asks(
        &self,
        other: &Other,
        is_open: bool,
    ) -> Result<(PortolanPeer<R>, HearsayAnswer), String> {
        let mut net = NetConfig::default();
        if !is_open {
            // It listens, and nobody gets through the first handshake.
            net.pending_max = 0;
        }
        let us = PortolanPeer::start_as(
            self.runtime.clone(),
            Keypair::generate_ed25519(),
            self.config(),
            &[&self.own_addr()],
            |builder| builder.net(net),
        )
        .await;
        let dial = us.node.dial(other.full_addrs()[0].clone()).await;
        dial.map_err(|error| error.to_string())?;
        let id = other.id();
        let told = us.wait_notice("hearsay", WITHIN, |notice| {
            let Notice::HearsayHeard { peer, answer } = notice else { return None };
            (*peer == id).then_some(*answer)
        });
        let told = told.await?;
        Ok((us, told))
    }

    /// Portolan is the server: it says what is true, and rust-libp2p understands.
    async fn tells(&self, is_open: bool) -> Result<(), String> {
        let us = self.old_server(&self.own_addr()).await;
        let rust = self.old_rust(is_open).await;
        let other = Other::Rust(rust);
        other.dial(&us.full_addrs[0], us.id()).await?;
        let id = other.id();
        let wanted = if is_open { Served::Connected } else { Served::DialFailed };
        let served = us.wait_notice("request", WITHIN, |notice| {
            let Notice::DialBackServed { peer, answer, .. } = notice else { return None };
            (*peer == id && *answer == wanted).then_some(())
        });
        served.await?;
        let Other::Rust(rust) = &other else { return Err("it is rust-libp2p".into()) };
        // It asks faster than a dial over QUIC is given up, and is turned away meanwhile.
        let is_turned_away =
            |result: &Result<_, String>| matches!(result, Err(error) if error == "DialRefused");
        let understood = rust.wait("answer", WITHIN, |seen| {
            let Seen::Told { server, result } = seen else { return None };
            (*server == us.id() && !is_turned_away(result)).then(|| result.clone())
        });
        match (is_open, understood.await?) {
            (true, Ok(addr)) if rust.addrs.contains(&addr) => Ok(()),
            (false, Err(error)) if error == "DialError" => Ok(()),
            (_, understood) => Err(format!("it understands {understood:?}")),
        }
    }
}

/// What a server says that tells the truth.
pub(crate) fn right(is_open: bool) -> HearsayAnswer {
    if is_open { HearsayAnswer::Reachable } else { HearsayAnswer::Unreachable }
}

/// What a check says that is told of four such servers.
pub(crate) async fn checked<R: Runtime>(runtime: R) -> Result<Report, CheckError> {
    let mut servers = Vec::new();
    for ip in ["127.0.0.61", "127.0.0.62", "127.0.0.63", "127.0.0.64"] {
        let listen = listen_addr(ip, Transport::Tcp).parse().expect("a multiaddr");
        let config =
            RustPeerConfig { listen: vec![listen], hearsay: true, ..RustPeerConfig::default() };
        servers.push(RustPeer::start(config).await);
    }
    let mut options = CheckOptions::default();
    options.peers = servers.iter().flat_map(RustPeer::full_addrs).collect();
    options.listen = vec![listen_addr("127.0.0.1", Transport::Tcp).parse().expect("a multiaddr")];
    options.allow_private = true;
    portolan::check(runtime, options, |_| ()).await
}
