//! The cells of AutoNAT v1: both roles, with a client that can be dialled and with one that cannot.

use crate::cell::{Cell, Kind, Place, Protocol, Role, Row};
use crate::cells::Group;
use crate::other::{Other, WITHIN, listen_addr};
use libp2p_identity::Keypair;
use portolan::{CheckError, CheckOptions, Report};
use portolan_core::{DialBackConfig, HearsayAnswer, Notice, Served, Transport};
use portolan_runtime::net::NetConfig;
use portolan_runtime::traits::Runtime;
use portolan_tests::js_peer::{JsPeer, strings};
use portolan_tests::portolan_peer::PortolanPeer;
use portolan_tests::rust_peer::{RustPeer, RustPeerConfig, Seen};
use serde_json::json;

/// A port that nobody listens on: discard, which nothing in use offers any more.
const DEAD_PORT: u16 = 9;

impl<R: Runtime> Group<R> {
    /// Every cell of AutoNAT v1.
    pub(crate) async fn hearsay(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for protocol in [Protocol::V1Reachable, Protocol::V1Unreachable] {
            let is_open = protocol == Protocol::V1Reachable;
            let of = |role, result| {
                let row = Row { kind: self.kind, place: self.place, protocol, role };
                Cell { row, transport: self.transport, result }
            };
            cells.push(of(Role::Client, self.is_told(is_open).await));
            cells.push(of(Role::Server, self.tells(is_open).await));
        }
        cells
    }

    /// A peer that speaks v1; one that cannot be dialled says that it is where nobody is.
    async fn old(&self, is_open: bool) -> Result<Other, String> {
        let dead = match self.transport {
            Transport::Tcp => format!("/ip4/{}/tcp/{DEAD_PORT}", self.other_ip()),
            Transport::Quic => format!("/ip4/{}/udp/{DEAD_PORT}/quic-v1", self.other_ip()),
        };
        let listen = listen_addr(self.other_ip(), self.transport);
        Ok(match self.kind {
            Kind::Rust => {
                // Without a listener it has no address but the one that it is told to have tested.
                let listen = is_open.then(|| listen.parse().expect("a multiaddr"));
                let dead = (!is_open).then(|| dead.parse().expect("a multiaddr"));
                let config = RustPeerConfig {
                    listen: listen.into_iter().collect(),
                    hearsay: true,
                    candidate: dead,
                    ..RustPeerConfig::default()
                };
                Other::Rust(RustPeer::start(config).await)
            }
            Kind::Js => {
                let announce = if is_open { vec![] } else { vec![dead] };
                let options =
                    json!({ "listen": [listen], "autonatV1": true, "announce": announce });
                Other::Js(Box::new(JsPeer::start(&options).await?))
            }
        })
    }

    /// Portolan is the client: the other one says what is true.
    async fn is_told(&self, is_open: bool) -> Result<(), String> {
        let (other, mut net) = (self.old(true).await?, NetConfig::default());
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
        let wanted = if is_open { HearsayAnswer::Reachable } else { HearsayAnswer::Unreachable };
        match told.await? {
            told if told == wanted => Ok(()),
            told => Err(format!("it says {}", told.name())),
        }
    }

    /// Portolan is the server: it says what is true, and is understood.
    async fn tells(&self, is_open: bool) -> Result<(), String> {
        let mut config = self.config();
        config.dial_back = Some(DialBackConfig::default());
        config.hearsay = false;
        let us = PortolanPeer::start(self.runtime.clone(), config, &[&self.own_addr()]).await;
        let other = self.old(is_open).await?;
        other.dial(&us.full_addrs[0], us.id()).await?;
        let id = other.id();
        let wanted = if is_open { Served::Connected } else { Served::DialFailed };
        let asked = async {
            let served = us.wait_notice("request", WITHIN, |notice| {
                let Notice::DialBackServed { peer, answer, .. } = notice else { return None };
                (*peer == id && *answer == wanted).then_some(())
            });
            served.await
        };
        if let (Place::Loopback, Other::Js(_)) = (self.place, &other) {
            return Err(crate::cells::JS_CLIENT_ASKS_NOT.to_owned());
        }
        asked.await?;
        match &other {
            Other::Rust(rust) => {
                let understood = rust.wait("answer", WITHIN, |seen| {
                    let Seen::Told { server, result } = seen else { return None };
                    (*server == us.id()).then(|| result.clone())
                });
                match (is_open, understood.await?) {
                    (true, Ok(addr)) if rust.addrs.contains(&addr) => Ok(()),
                    (false, Err(error)) if error == "DialError" => Ok(()),
                    (_, understood) => Err(format!("it understands {understood:?}")),
                }
            }
            // That it is not reachable, js-libp2p believes of eight networks alone.
            Other::Js(_) if !is_open => Ok(()),
            Other::Js(js) => {
                let listened = js.full_addrs[0].to_string();
                let verified = |event: &serde_json::Value| {
                    event["event"] == "verified"
                        && strings(&event["addrs"]).iter().any(|addr| listened.starts_with(addr))
                };
                js.wait("verified address", WITHIN, verified).await.map(drop)
            }
        }
    }
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
