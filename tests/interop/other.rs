//! The other side of a cell: a peer that nobody here wrote, whichever it is.

use crate::cell::Kind;
use crate::identify;
use libp2p::core::PeerRecord;
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use portolan_core::{Addr, Transport};
use portolan_tests::js_peer::{JsPeer, strings};
use portolan_tests::portolan_peer::to_addr;
use portolan_tests::rust_peer::{KeyType, RustPeer, RustPeerConfig, Security, Seen};
use serde_json::json;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What rust-libp2p's identify does with peer records in the standard form (RFC 0003): it reads
/// `from_signed_envelope`, which knows the form of older rust-libp2p alone.
const RUST_READS_NOT: &str = "its identify reads only a form of records of its own";
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
    Js(Box<JsPeer>),
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
                    ..RustPeerConfig::default()
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
                Ok(Other::Js(Box::new(JsPeer::start(&options).await?)))
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

    /// Forget what it saw so far: waits begin here.
    pub(crate) fn forget(&mut self) {
        match self {
            Other::Rust(rust) => rust.forget(),
            Other::Js(js) => js.forget(),
        }
    }

    /// Dial an address that names `peer`, and wait until the connection stands.
    pub(crate) async fn dial(&self, addr: &Multiaddr, peer: PeerId) -> Result<(), String> {
        match self {
            Other::Rust(rust) => {
                rust.dial(addr.clone()).await;
                let connected = |seen: &Seen| seen.dialled(peer);
                rust.wait("connection", WITHIN, connected).await?
            }
            Other::Js(js) => js.dial(command_id(), addr).await,
        }
    }

    /// What it understood of Portolan's identify.
    pub(crate) async fn identified(&self, peer: PeerId) -> Result<Described, String> {
        match self {
            Other::Rust(rust) => {
                let info = rust.wait("identify", WITHIN, |seen| seen.described(peer).cloned());
                let info = info.await?;
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

    /// Wait until Portolan has told of this address of its own. It does so by a push, because the
    /// address was not proved yet when it described itself.
    pub(crate) async fn told_of(&self, peer: PeerId, addr: Addr) -> Result<(), String> {
        match self {
            Other::Rust(rust) => {
                let told = rust.wait("pushed address", WITHIN, |seen| {
                    lists(&seen.described(peer)?.listen_addrs, addr).then_some(())
                });
                told.await
            }
            Other::Js(js) => js_told(js, "listen", peer, addr).await,
        }
    }

    /// Wait until it has accepted a peer record with this address, signed by Portolan.
    pub(crate) async fn trusts(&self, peer: PeerId, addr: Addr) -> Result<(), String> {
        match self {
            Other::Rust(rust) => {
                let record = identify::signed_record(rust, peer).await?;
                // Its codec reads the standard form; its identify does not ask for it.
                let record = PeerRecord::from_signed_envelope_interop(record);
                let record = record.map_err(|error| error.to_string())?;
                if !lists(record.addresses(), addr) {
                    return Err(format!("{addr} is not in {record:?}"));
                }
                let taken = rust.seen().iter().any(|seen| {
                    seen.described(peer).is_some_and(|info| info.signed_peer_record.is_some())
                });
                if taken { Ok(()) } else { Err(RUST_READS_NOT.to_owned()) }
            }
            Other::Js(js) => js_told(js, "certified", peer, addr).await,
        }
    }

    /// Ping Portolan and wait for the echo.
    pub(crate) async fn pings(&self, peer: PeerId) -> Result<(), String> {
        match self {
            // It pings by itself as soon as a connection stands.
            Other::Rust(rust) => {
                let echo = rust.wait("echo", WITHIN, |seen| seen.pinged(peer));
                echo.await?.map(drop)
            }
            Other::Js(js) => js.ping(command_id(), peer).await,
        }
    }

    /// Wait until AutoNAT v2 has confirmed the address that it listens on.
    pub(crate) async fn confirms_itself(&self) -> Result<(), String> {
        match self {
            Other::Rust(rust) => {
                let own = rust.addrs.clone();
                let confirmed = rust.wait("confirmed address", WITHIN, |seen| {
                    if let Seen::Probed { result: Err(error), .. } = seen {
                        return Some(Err(error.clone()));
                    }
                    let Seen::Confirmed(addr) = seen else { return None };
                    own.contains(addr).then_some(Ok(()))
                });
                confirmed.await?
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

/// Whether an address is in a list, with or without `/p2p/`.
fn lists(addrs: &[Multiaddr], addr: Addr) -> bool {
    addrs.iter().any(|one| to_addr(one) == addr)
}

/// Wait until an identify or a push of `peer` has this address in this field.
async fn js_told(js: &JsPeer, field: &str, peer: PeerId, addr: Addr) -> Result<(), String> {
    let id = peer.to_string();
    let told = js.wait("pushed address", WITHIN, |event| {
        let addrs: Vec<Multiaddr> =
            strings(&event[field]).into_iter().filter_map(|addr| addr.parse().ok()).collect();
        event["event"] == "identified" && event["peer"] == id.as_str() && lists(&addrs, addr)
    });
    told.await.map(drop)
}

/// A number for a command to js-libp2p, which its answer bears.
pub(crate) fn command_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
