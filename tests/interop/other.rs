//! The other side of a cell: a peer that nobody here wrote, whichever it is.

use crate::cell::Kind;
use crate::js_peer::{JsPeer, strings};
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use libp2p::core::PeerRecord;
use portolan_core::Transport;
use portolan_tests::portolan_peer::to_addr;
use portolan_tests::rust_peer::{KeyType, RustPeer, RustPeerConfig, Security, Seen};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long anything on this host may take; most of it takes milliseconds.
pub(crate) const WITHIN: Duration = Duration::from_secs(10);
/// How often rust-libp2p's client looks for something to probe; its default is 5 s.
const PROBE_EVERY: Duration = Duration::from_millis(100);

/// What the other peer is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// Which peer.
    pub(crate) kind: Kind,
    /// Its key.
    pub(crate) key: KeyType,
    /// What it secures TCP with.
    pub(crate) security: Security,
    /// The IP that it listens on.
    pub(crate) ip: &'a str,
    /// The transports that it listens on.
    pub(crate) transports: &'a [Transport],
    /// Whether it runs AutoNAT v2, both roles.
    pub(crate) autonat: bool,
}

/// The peer.
#[derive(Debug)]
pub(crate) enum Other {
    /// rust-libp2p.
    Rust(RustPeer),
    /// js-libp2p.
    Js(JsPeer),
}

/// What a peer understood of another's identify.
#[derive(Debug)]
pub(crate) struct Described {
    /// The other's agent version.
    pub(crate) agent: String,
    /// Where the other sees the peer.
    pub(crate) observed: Option<Multiaddr>,
    /// The other's protocols.
    pub(crate) protocols: Vec<String>,
}

/// The multiaddr to listen on at this IP, with a port of the kernel's choice.
pub(crate) fn listen_addr(ip: &str, transport: Transport) -> String {
    match transport {
        Transport::Tcp => format!("/ip4/{ip}/tcp/0"),
        Transport::Quic => format!("/ip4/{ip}/udp/0/quic-v1"),
    }
}

impl Other {
    /// Start the peer and wait until it listens.
    pub(crate) async fn start(wanted: Wanted<'_>) -> Result<Other, String> {
        let listen = wanted.transports.iter().map(|one| listen_addr(wanted.ip, *one));
        match wanted.kind {
            Kind::Rust => {
                let config = RustPeerConfig {
                    key: wanted.key,
                    security: wanted.security,
                    listen: listen.map(|addr| addr.parse().expect("a multiaddr")).collect(),
                    server: wanted.autonat,
                    client: wanted.autonat.then_some(PROBE_EVERY),
                    accept: Vec::new(),
                };
                Ok(Other::Rust(RustPeer::start(config).await))
            }
            Kind::Js => {
                let key = match wanted.key {
                    KeyType::Ed25519 => "Ed25519",
                    KeyType::Ecdsa => "ECDSA",
                    KeyType::Secp256k1 => "secp256k1",
                    KeyType::Rsa => "RSA",
                };
                let security = match wanted.security {
                    Security::Noise => "noise",
                    Security::Tls => "tls",
                };
                let options = json!({
                    "listen": listen.collect::<Vec<_>>(),
                    "key": key,
                    "security": security,
                    "autonat": wanted.autonat,
                });
                JsPeer::start(&options).await.map(Other::Js)
            }
        }
    }

    /// Its peer id.
    pub(crate) fn id(&self) -> PeerId {
        match self {
            Other::Rust(peer) => peer.id,
            Other::Js(peer) => peer.id,
        }
    }

    /// What it listens on, with `/p2p/`, in the order of its transports.
    pub(crate) fn full_addrs(&self) -> Vec<Multiaddr> {
        match self {
            Other::Rust(peer) => peer.full_addrs(),
            Other::Js(peer) => peer.full_addrs.clone(),
        }
    }

    /// Dial an address that names `peer`, and wait until the connection stands.
    pub(crate) async fn dial(&self, addr: &Multiaddr, peer: PeerId) -> Result<(), String> {
        match self {
            Other::Rust(rust) => {
                rust.dial(addr.clone()).await;
                let connected = |seen: &Seen| match seen {
                    Seen::Connected { peer: other, dialled: true, .. } => {
                        (*other == peer).then_some(Ok(()))
                    }
                    Seen::DialFailed(error) => Some(Err(error.clone())),
                    Seen::Connected { .. }
                    | Seen::Listening(_)
                    | Seen::Disconnected { .. }
                    | Seen::Identified { .. }
                    | Seen::IdentifyFailed { .. }
                    | Seen::Pinged { .. }
                    | Seen::Served { .. }
                    | Seen::Probed { .. }
                    | Seen::Confirmed(_) => None,
                };
                rust.wait("connection", WITHIN, connected).await?
            }
            Other::Js(js) => js.dial(command_id(), addr).await,
        }
    }

    /// What it understood of Portolan's identify.
    pub(crate) async fn identified(&self, peer: PeerId) -> Result<Described, String> {
        match self {
            Other::Rust(rust) => {
                let info = rust.wait("identify", WITHIN, |seen| match seen {
                    Seen::Identified { peer: other, info } if *other == peer => {
                        Some(Ok(info.clone()))
                    }
                    Seen::IdentifyFailed { peer: other, error } if *other == peer => {
                        Some(Err(error.clone()))
                    }
                    _ => None,
                });
                let info = info.await??;
                Ok(Described {
                    agent: info.agent_version.clone(),
                    observed: Some(info.observed_addr.clone()),
                    protocols: info.protocols.iter().map(ToString::to_string).collect(),
                })
            }
            Other::Js(js) => {
                let id = peer.to_string();
                let said = js.wait("identify", WITHIN, |event| {
                    event["event"] == "identified" && event["peer"] == id.as_str()
                });
                let said = said.await?;
                Ok(Described {
                    agent: said["agent"].as_str().unwrap_or_default().into(),
                    observed: said["observed"].as_str().and_then(|addr| addr.parse().ok()),
                    protocols: strings(&said["protocols"]).into_iter().map(Into::into).collect(),
                })
            }
        }
    }

    /// Wait until Portolan has told of this address of its own, in a signed peer record as well.
    pub(crate) async fn told_of(&self, peer: PeerId, full: &Multiaddr) -> Result<(), String> {
        let addr = to_addr(full);
        let listed = |addrs: &[Multiaddr]| addrs.iter().any(|one| to_addr(one) == addr);
        match self {
            Other::Rust(rust) => {
                let pushed = rust.wait("pushed address", WITHIN, |seen| match seen {
                    Seen::Identified { peer: other, info } if *other == peer => {
                        listed(&info.listen_addrs).then_some(())
                    }
                    _ => None,
                });
                pushed.await?;
                // It reads no records in pushes, only in answers: on the next connection.
                rust.dial(full.clone()).await;
                let signed = rust.wait("signed address", WITHIN, |seen| match seen {
                    Seen::Identified { peer: other, info } if *other == peer => {
                        let record = info.signed_peer_record.clone()?;
                        let record = PeerRecord::from_signed_envelope(record).ok()?;
                        listed(record.addresses()).then_some(())
                    }
                    _ => None,
                });
                signed.await
            }
            Other::Js(js) => {
                let id = peer.to_string();
                let parse = |value: &Value| {
                    let addrs = strings(value).into_iter().filter_map(|addr| addr.parse().ok());
                    addrs.collect::<Vec<Multiaddr>>()
                };
                let told = js.wait("pushed and signed address", WITHIN, |event| {
                    event["event"] == "identified"
                        && event["peer"] == id.as_str()
                        && listed(&parse(&event["listen"]))
                        && listed(&parse(&event["certified"]))
                });
                told.await.map(drop)
            }
        }
    }

    /// Ping Portolan and wait for the echo.
    pub(crate) async fn pings(&self, peer: PeerId) -> Result<(), String> {
        match self {
            // It pings by itself as soon as a connection stands.
            Other::Rust(rust) => rust
                .wait("echo", WITHIN, |seen| match seen {
                    Seen::Pinged { peer: other, result } if *other == peer => Some(result.clone()),
                    _ => None,
                })
                .await?
                .map(drop),
            Other::Js(js) => js.ping(command_id(), peer).await,
        }
    }

    /// Wait until AutoNAT v2 has confirmed the address that it listens on.
    pub(crate) async fn confirms_itself(&self) -> Result<(), String> {
        match self {
            Other::Rust(rust) => {
                let own = rust.addrs.clone();
                rust.wait("confirmed address", WITHIN, |seen| match seen {
                    Seen::Confirmed(addr) if own.contains(addr) => Some(Ok(())),
                    Seen::Probed { result: Err(error), .. } => Some(Err(error.clone())),
                    _ => None,
                })
                .await?
            }
            Other::Js(js) => {
                let own = js.full_addrs[0].to_string();
                let verified = js.wait("verified address", WITHIN, |event| {
                    let addrs = strings(&event["addrs"]);
                    event["event"] == "verified" && addrs.iter().any(|addr| own.starts_with(addr))
                });
                verified.await.map(drop)
            }
        }
    }
}

fn command_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
