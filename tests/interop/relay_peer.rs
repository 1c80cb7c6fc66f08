//! A peer of the cells of relaying, whoever wrote it: a relay, or a client of one that echoes.

use crate::other::{WITHIN, command_id, listen_addr};
use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use futures::{StreamExt as _, future};
use libp2p::swarm::StreamProtocol;
use libp2p_identity::PeerId;
use multiaddr::{Multiaddr, Protocol};
use portolan_core::{
    CircuitLimit, Notice, Relay, RelayConfig, RelayNeed, RelayNotice, RelayPeer, RelayServerConfig,
    RelayState, Transport,
};
use portolan_runtime::ConnectionInfo;
use portolan_runtime::traits::Runtime;
use portolan_tests::js_peer::{JsPeer, strings};
use portolan_tests::portolan_peer::{PortolanPeer, on_one_host, to_addr};
use portolan_tests::rust_peer::{RustPeer, RustPeerConfig, Seen};
use portolan_tests::rust_relay::{RelaySeen, RustLimit, RustRelayConfig};
use serde_json::{Value, json};
use std::io;
use std::time::Duration;
use tokio::time::error::Elapsed;

/// The protocol of the cells: whatever is sent until the sender ends comes back, and then the end.
const ECHO: &str = "/portolan/test/echo/1.0.0";
const IP: &str = "127.0.0.1";

/// Who wrote a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    /// We did.
    Portolan,
    /// rust-libp2p.
    Rust,
    /// js-libp2p.
    Js,
}

/// What a relay is told to allow a circuit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowed {
    /// Bytes: of each direction at ours, of both together at the others.
    pub(crate) bytes: u64,
    /// How long it may last.
    pub(crate) duration: Duration,
}

/// The peer.
#[derive(Debug)]
pub(crate) enum Peer<R: Runtime> {
    /// Ours.
    Portolan(PortolanPeer<R>),
    /// rust-libp2p.
    Rust(RustPeer),
    /// js-libp2p.
    Js(Box<JsPeer>),
}

impl<R: Runtime> Peer<R> {
    /// A relay that listens on one transport.
    pub(crate) async fn relay(
        who: Who,
        runtime: R,
        transport: Transport,
        allowed: Allowed,
    ) -> Result<Peer<R>, String> {
        let listen = listen_addr(IP, transport);
        Ok(match who {
            Who::Portolan => {
                let mut server = RelayServerConfig::default();
                let (bytes, duration) = (Some(allowed.bytes), Some(allowed.duration));
                server.limit = CircuitLimit { duration, bytes };
                let mut config = on_one_host();
                config.relay_server = Some(server);
                Peer::Portolan(PortolanPeer::start(runtime, config, &[&listen]).await)
            }
            Who::Rust => {
                let Allowed { bytes, duration } = allowed;
                let config = RustPeerConfig {
                    listen: vec![listen.parse().expect("a multiaddr")],
                    relay: Some(RustRelayConfig { bytes, duration, ..RustRelayConfig::default() }),
                    ..RustPeerConfig::default()
                };
                Peer::Rust(RustPeer::start(config).await)
            }
            Who::Js => {
                let milliseconds = u64::try_from(allowed.duration.as_millis()).expect("seconds");
                let limit = json!({ "bytes": allowed.bytes, "milliseconds": milliseconds });
                let options = json!({ "listen": [listen], "relay": limit });
                Peer::Js(Box::new(JsPeer::start(&options).await?))
            }
        })
    }

    /// A client that echoes. Ours reserves at `relay`, if one is given, by itself.
    pub(crate) async fn client(
        who: Who,
        runtime: R,
        transport: Transport,
        relay: Option<&Multiaddr>,
    ) -> Result<Peer<R>, String> {
        let listen = listen_addr(IP, transport);
        Ok(match who {
            Who::Portolan => {
                let mut relays = RelayConfig::default();
                relays.need = RelayNeed::Never;
                relays.use_connected = false;
                if let Some(relay) = relay {
                    let peer = last_peer(relay);
                    relays.need = RelayNeed::Always;
                    relays.reservations = 1;
                    relays.relays = vec![RelayPeer { peer, addrs: vec![to_addr(relay)] }];
                }
                let mut config = on_one_host();
                config.relay = Some(relays);
                let us = PortolanPeer::start(runtime, config, &[&listen]).await;
                let mut streams = us.node.accept(ECHO).expect("nobody else accepts it");
                tokio::spawn(async move {
                    while let Some((_, stream)) = streams.next().await {
                        tokio::spawn(serve(stream));
                    }
                });
                Peer::Portolan(us)
            }
            Who::Rust => {
                let config = RustPeerConfig {
                    listen: vec![listen.parse().expect("a multiaddr")],
                    accept: vec![StreamProtocol::new(ECHO)],
                    relay_client: true,
                    ..RustPeerConfig::default()
                };
                let mut rust = RustPeer::start(config).await;
                let mut streams = rust.inbound().expect("nobody else has asked");
                tokio::spawn(async move {
                    while let Some(inbound) = streams.recv().await {
                        tokio::spawn(serve(inbound.stream));
                    }
                });
                Peer::Rust(rust)
            }
            Who::Js => {
                let options = json!({ "listen": [listen], "relayClient": true });
                Peer::Js(Box::new(JsPeer::start(&options).await?))
            }
        })
    }

    /// Who wrote it.
    pub(crate) const fn who(&self) -> Who {
        match self {
            Peer::Portolan(_) => Who::Portolan,
            Peer::Rust(_) => Who::Rust,
            Peer::Js(_) => Who::Js,
        }
    }

    /// Its peer id.
    pub(crate) fn id(&self) -> PeerId {
        match self {
            Peer::Portolan(us) => us.id(),
            Peer::Rust(rust) => rust.id,
            Peer::Js(js) => js.id,
        }
    }

    /// What it listens on, with `/p2p/`.
    pub(crate) fn full_addr(&self) -> Multiaddr {
        match self {
            Peer::Portolan(us) => us.full_addrs[0].clone(),
            Peer::Rust(rust) => rust.full_addrs()[0].clone(),
            Peer::Js(js) => js.full_addrs[0].clone(),
        }
    }

    /// Reserve at the relay at this address, and wait until it takes the reservation for its own and
    /// knows the address at which it is reached. Some relays sign a voucher.
    pub(crate) async fn reserve(
        &self,
        relay: &Multiaddr,
        announced: CircuitLimit,
        voucher: bool,
    ) -> Result<(), String> {
        let (id, reached_at) = (last_peer(relay), circuit_addr(relay, self.id()));
        match self {
            Peer::Portolan(us) => {
                let reserved = us.wait_notice("reservation", WITHIN, |notice| {
                    let Notice::Relay(RelayNotice::Changed(relay)) = notice else { return None };
                    let Relay { peer, state, limit, .. } = relay;
                    (*peer == id && *state == RelayState::Reserved).then_some(*limit)
                });
                same_limit(Who::Portolan, reserved.await?, announced)?;
                let addrs = us.node.circuit_addresses().await;
                if addrs != [reached_at] {
                    return Err(format!("Portolan would be reached at {addrs:?}"));
                }
                Ok(())
            }
            Peer::Rust(rust) => {
                rust.reserve(relay.clone()).await;
                let reserved = rust.wait("reservation", WITHIN, |seen| {
                    if let Seen::ListenerClosed(error) = seen {
                        return Some(Err(format!("rust-libp2p: {error}")));
                    }
                    let Seen::Relay(RelaySeen::Reserved { relay, limit }) = seen else {
                        return None;
                    };
                    (*relay == id).then_some(Ok(*limit))
                });
                same_limit(Who::Rust, of_rust(reserved.await??), announced)?;
                let reached = rust.wait("circuit address", WITHIN, |seen| {
                    matches!(seen, Seen::Listening(addr) if *addr == reached_at).then_some(())
                });
                reached.await
            }
            Peer::Js(js) => {
                let reserved = js.reserve(command_id(), relay).await?;
                let addrs = strings(&reserved["addrs"]);
                if addrs != [relay.to_string()] {
                    return Err(format!("js-libp2p would be reached through {addrs:?}"));
                }
                // Of the clients it alone shows this. (Ours refuses one that is wrong.)
                if reserved["voucher"] != voucher {
                    return Err(format!("js-libp2p got a voucher: {}", reserved["voucher"]));
                }
                Ok(())
            }
        }
    }

    /// As a relay: wait until it counts this peer among those with a reservation.
    pub(crate) async fn has_granted(&self, client: PeerId) -> Result<(), String> {
        match self {
            Peer::Portolan(us) => {
                let granted = us.wait_notice("grant", WITHIN, |notice| {
                    let Notice::Relay(RelayNotice::Granted { peer, .. }) = notice else {
                        return None;
                    };
                    (*peer == client).then_some(())
                });
                granted.await
            }
            Peer::Rust(rust) => {
                let granted = rust.wait("grant", WITHIN, |seen| {
                    let Seen::Relay(RelaySeen::Granted { peer }) = seen else { return None };
                    (*peer == client).then_some(())
                });
                granted.await
            }
            Peer::Js(js) => {
                let peers = js.reservations(command_id()).await?;
                let found = peers.contains(&client);
                if found { Ok(()) } else { Err(format!("js-libp2p granted only {peers:?}")) }
            }
        }
    }

    /// Dial a peer through a relay, and wait until the connection stands.
    pub(crate) async fn dial(&self, relay: &Multiaddr, target: PeerId) -> Result<(), String> {
        let addr = circuit_addr(relay, target);
        match self {
            Peer::Portolan(us) => {
                let dial = tokio::time::timeout(WITHIN, us.node.dial(addr)).await;
                let dialled = dial.map_err(|_| "Portolan's dial hangs")?;
                let dialled = dialled.map_err(|error| format!("Portolan: {error}"))?;
                if dialled.peer != target || !dialled.relayed {
                    return Err(format!("Portolan reached somebody else: {dialled:?}"));
                }
                Ok(())
            }
            Peer::Rust(rust) => {
                rust.dial(addr).await;
                let dialled = rust.wait("circuit", WITHIN, |seen| seen.dialled(target)).await?;
                dialled.map_err(|error| format!("rust-libp2p: {error}"))
            }
            Peer::Js(js) => js.dial(command_id(), &addr).await,
        }
    }

    /// Have a peer that it is connected to echo so many bytes.
    pub(crate) async fn echo(&self, target: PeerId, bytes: usize) -> Result<(), String> {
        match self {
            Peer::Portolan(us) => {
                let stream = us.node.open_stream(target, ECHO).await;
                let stream = stream.map_err(|error| format!("Portolan: {error}"))?;
                exchange(stream, bytes).await
            }
            Peer::Rust(rust) => {
                let stream = rust.opener().open(target, StreamProtocol::new(ECHO)).await;
                let stream = stream.map_err(|error| format!("rust-libp2p: {error}"))?;
                exchange(stream, bytes).await
            }
            Peer::Js(js) => js.echo(command_id(), target, bytes).await,
        }
    }

    /// Wait until it has a circuit to or from this peer, and return what it was told that may use.
    pub(crate) async fn told_limit(&self, other: PeerId) -> Result<CircuitLimit, String> {
        match self {
            Peer::Portolan(us) => {
                let found =
                    circuit(us, other, true).await.map_err(|_| "Portolan has no circuit")?;
                found.and_then(|conn| conn.limit).ok_or("Portolan was told no limit".into())
            }
            Peer::Rust(rust) => {
                // Who dials is told of the relay alone, and dials one peer at a time.
                let told = rust.wait("limit", WITHIN, |seen| {
                    if let Seen::Relay(RelaySeen::Outbound { limit, .. }) = seen {
                        return Some(*limit);
                    }
                    let Seen::Relay(RelaySeen::Inbound { initiator, limit }) = seen else {
                        return None;
                    };
                    (*initiator == other).then_some(*limit)
                });
                told.await.map(of_rust)
            }
            Peer::Js(js) => {
                let id = other.to_string();
                let told = js.wait("limit", WITHIN, |event| {
                    event["event"] == "connection"
                        && event["peer"] == id.as_str()
                        && event["limits"].is_object()
                });
                Ok(of_js(&told.await?["limits"]))
            }
        }
    }

    /// Wait until its circuit to or from this peer is gone.
    pub(crate) async fn is_cut(&self, other: PeerId) -> Result<(), String> {
        match self {
            Peer::Portolan(us) => {
                let gone = circuit(us, other, false).await;
                gone.map(drop).map_err(|_| "Portolan keeps the circuit".to_owned())
            }
            Peer::Rust(rust) => {
                let gone = rust.wait("end", WITHIN, |seen| {
                    let Seen::Disconnected { peer, .. } = seen else { return None };
                    (*peer == other).then_some(())
                });
                gone.await
            }
            Peer::Js(js) => {
                let id = other.to_string();
                let gone = js.wait("end", WITHIN, |event| {
                    event["event"] == "closed" && event["peer"] == id.as_str()
                });
                gone.await.map(drop)
            }
        }
    }

    /// Forget what it saw so far: waits begin here. (Ours has no need to: each is waited for once.)
    pub(crate) fn forget(&mut self) {
        match self {
            Peer::Portolan(_) => {}
            Peer::Rust(rust) => rust.forget(),
            Peer::Js(js) => js.forget(),
        }
    }
}

/// Wait until a node of ours has a circuit to or from a peer, or until it has none.
async fn circuit<R: Runtime>(
    us: &PortolanPeer<R>,
    other: PeerId,
    wanted: bool,
) -> Result<Option<ConnectionInfo>, Elapsed> {
    let look = async {
        loop {
            let mut conns = us.node.connections().await.into_iter();
            let found = conns.find(|conn| conn.peer == other && conn.relayed);
            if found.is_some() == wanted {
                return found;
            }
            // sleep: between two looks at a fact of which nobody notifies; `WITHIN` bounds them.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(WITHIN, look).await
}

/// The address at which a peer is reached through the relay at another.
fn circuit_addr(relay: &Multiaddr, target: PeerId) -> Multiaddr {
    relay.clone().with(Protocol::P2pCircuit).with(Protocol::P2p(target))
}

fn last_peer(addr: &Multiaddr) -> PeerId {
    match addr.iter().last() {
        Some(Protocol::P2p(peer)) => peer,
        _ => panic!("{addr} does not end with a peer id"),
    }
}

/// Whether a limit was read as it was announced.
pub(crate) fn same_limit(
    who: Who,
    read: CircuitLimit,
    announced: CircuitLimit,
) -> Result<(), String> {
    // js-libp2p counts down: the handshakes took some of both before anybody can look.
    let (bytes, duration) = match who {
        Who::Portolan | Who::Rust => (0, Duration::ZERO),
        Who::Js => (4_096, Duration::from_secs(2)),
    };
    let near = |read: CircuitLimit| {
        let (all, whole) = (announced.bytes?, announced.duration?);
        let bytes = (all.saturating_sub(bytes)..=all).contains(&read.bytes?);
        Some(bytes && (whole.saturating_sub(duration)..=whole).contains(&read.duration?))
    };
    if near(read) == Some(true) {
        return Ok(());
    }
    Err(format!("{who:?} read {read:?}, and {announced:?} was announced"))
}

fn of_rust(limit: RustLimit) -> CircuitLimit {
    CircuitLimit { duration: limit.duration, bytes: limit.bytes }
}

fn of_js(limits: &Value) -> CircuitLimit {
    CircuitLimit {
        duration: limits["seconds"].as_u64().map(Duration::from_secs),
        bytes: limits["bytes"].as_u64(),
    }
}

/// Send so many bytes, end, and compare what comes back before the other side ends.
async fn exchange(stream: impl AsyncRead + AsyncWrite + Unpin, bytes: usize) -> Result<(), String> {
    let mut sent = vec![0; bytes];
    rand::fill(&mut sent[..]);
    let (mut reader, mut writer) = stream.split();
    let send = async {
        writer.write_all(&sent).await?;
        writer.close().await
    };
    let mut back = Vec::new();
    let both = future::try_join(send, reader.read_to_end(&mut back));
    let both = tokio::time::timeout(WITHIN, both).await.map_err(|_| "the echo hangs")?;
    both.map_err(|error| format!("the echo ends: {error}"))?;
    if back != sent {
        return Err(format!("{} bytes came back, and not those that were sent", back.len()));
    }
    Ok(())
}

/// The other side of it.
async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await?;
    stream.write_all(&bytes).await?;
    stream.close().await
}
