//! What an application does about relays: it reserves at them, is one, and talks through circuits.

use clap::Args;
use futures::future::{self, Either};
use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use futures::{FutureExt as _, StreamExt as _};
use multiaddr::Multiaddr;
use portolan_core::wire::framing;
use portolan_core::wire::relay::HopMessage;
use portolan_core::{
    CircuitAddr, Config, Instant, PeerId, Protocol, PunchConfig, Relay, RelayConfig, RelayNeed,
    RelayNotice, RelayPeer, RelayServerConfig,
};
use portolan_runtime::identity::{self, Keypair};
use portolan_runtime::traits::Runtime;
use portolan_runtime::{Dialled, Incoming, Node, circuit_address, destination, distant_server};
use serde_json::{Value, json};
use std::io;
use std::pin::pin;
use std::time::Duration;

/// On this protocol whatever is sent comes back.
pub(super) const ECHO: &str = "/portolan/lab/echo/1.0.0";
/// Bytes of a question that only asks whether somebody is there.
const SHORT: usize = 16;
/// Bytes of a long one: what relays allow a circuit by default holds it.
pub(super) const LONG: usize = 100_000;
/// How long a question may take, dial included: less than whoever gave the order waits.
const ASKED_WITHIN: Duration = Duration::from_secs(18);

/// What an application does about relays.
#[derive(Debug, Args)]
pub(super) struct Relaying {
    /// An address of a relay that may be asked, with `/p2p/` at its end.
    #[arg(long)]
    relay: Vec<Multiaddr>,
    /// A server behind a relay, to ask whether strangers get in.
    #[arg(long, requires = "need")]
    distant: Vec<Multiaddr>,
    /// When it holds reservations; without this it has nothing to do with relays.
    #[arg(long, value_parser = need)]
    need: Option<RelayNeed>,
    /// It makes direct connections out of relayed ones.
    #[arg(long)]
    punch: bool,
    /// It is a relay, whose reservations last so many seconds.
    #[arg(long)]
    relay_for: Option<u64>,
    /// What its circuits may carry in each direction.
    #[arg(long, requires = "relay_for")]
    circuit_bytes: Option<u64>,
    /// How long its circuits may last.
    #[arg(long, requires = "relay_for")]
    circuit_seconds: Option<u64>,
    /// Who may reserve; without one everybody may.
    #[arg(long, requires = "relay_for")]
    only: Vec<PeerId>,
    /// The number of its identity, which is then the same each time.
    #[arg(long)]
    seed: Option<u8>,
}

fn need(text: &str) -> Result<RelayNeed, String> {
    match text {
        "auto" => Ok(RelayNeed::Auto),
        "always" => Ok(RelayNeed::Always),
        "never" => Ok(RelayNeed::Never),
        other => Err(format!("there is no need called {other}")),
    }
}

impl Relaying {
    pub(super) fn keypair(&self) -> Result<Keypair, String> {
        let Some(seed) = self.seed else { return Ok(identity::generate()) };
        Keypair::ed25519_from_bytes([seed; 32]).map_err(|error| error.to_string())
    }

    pub(super) fn configure(&self, config: &mut Config) -> Result<(), String> {
        if let Some(need) = self.need {
            let mut relay = RelayConfig::default();
            relay.need = need;
            relay.relays = relays(&self.relay)?;
            let read = |addr| distant_server(addr).map_err(|error| format!("{addr} {error}"));
            relay.distant_servers = self.distant.iter().map(read).collect::<Result<_, _>>()?;
            config.relay = Some(relay);
        }
        config.punch = self.punch.then(PunchConfig::default);
        if let Some(seconds) = self.relay_for {
            let mut server = RelayServerConfig::default();
            server.reservation_lifetime = Duration::from_secs(seconds);
            server.limit.bytes = self.circuit_bytes.or(server.limit.bytes);
            let duration = self.circuit_seconds.map(Duration::from_secs);
            server.limit.duration = duration.or(server.limit.duration);
            server.allow = (!self.only.is_empty()).then(|| self.only.clone());
            config.relay_server = Some(server);
        }
        Ok(())
    }
}

/// Each relay once, with all its addresses in order.
fn relays(addrs: &[Multiaddr]) -> Result<Vec<RelayPeer>, String> {
    let mut relays: Vec<RelayPeer> = Vec::new();
    for named in addrs {
        let (addr, peer) = destination(named).map_err(|error| format!("{named} {error}"))?;
        let peer = peer.ok_or_else(|| format!("{named} names no peer"))?;
        match relays.iter_mut().find(|relay| relay.peer == peer) {
            Some(relay) => relay.addrs.push(addr),
            None => relays.push(RelayPeer { peer, addrs: vec![addr] }),
        }
    }
    Ok(relays)
}

/// Send back what comes, until nobody opens a stream any more.
pub(super) async fn echo<R: Runtime>(runtime: R, mut streams: Incoming) {
    while let Some((_, stream)) = streams.next().await {
        let answer = async move {
            let (reader, mut writer) = stream.split();
            if futures::io::copy(reader, &mut writer).await.is_ok() {
                // Whoever asked may be gone.
                let _ = writer.close().await;
            }
        };
        runtime.spawn(answer.boxed());
    }
}

/// Do what is said of relays, and say what came of it; `None` where it is not of them.
pub(super) async fn perform<R: Runtime>(
    runtime: &R,
    node: &Node<R>,
    verb: &str,
    addr: &Multiaddr,
) -> Option<Result<Value, String>> {
    let work = async {
        match verb {
            "ask" => talk(node, addr, SHORT).await,
            "echo" => talk(node, addr, LONG).await,
            "hold" => hold(node, addr).await,
            "reserve" => reserve(node, addr).await,
            "paid" => paid(node).await,
            "punch" => super::punching::punch(node, addr).await,
            "exchange" => super::punching::talk(node, addr).await,
            _ => node.drain_relay().await.map(|()| json!({})).map_err(|error| error.to_string()),
        }
    };
    let all = ["ask", "echo", "hold", "reserve", "paid", "punch", "exchange", "drain"];
    if !all.contains(&verb) {
        return None;
    }
    // sleep: what bounds the work; nobody waits for it otherwise.
    Some(match future::select(pin!(work), pin!(runtime.sleep(ASKED_WITHIN))).await {
        Either::Left((done, _)) => done,
        Either::Right(((), _)) => Err(format!("not within {} s", ASKED_WITHIN.as_secs())),
    })
}

/// Connect, send so many bytes, have them back, and disconnect.
async fn talk<R: Runtime>(node: &Node<R>, addr: &Multiaddr, size: usize) -> Result<Value, String> {
    let began = node.now();
    let dialled = dial(node, addr).await?;
    let stands = node.now();
    let sent: Vec<u8> = (0..=250).cycle().take(size).collect();
    let got = match node.open_stream_on(dialled.conn, ECHO).await {
        Ok(stream) => exchange(stream, &sent).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let limit = limit(node, &dialled).await;
    node.disconnect(dialled.peer).await;
    if got? != sent {
        return Err("what came back is not what was sent".to_owned());
    }
    let span = |from: Instant, to: Instant| super::application::millis_of(to.since(from));
    let mut done = json!({
        "dial_ms": span(began, stands), "took_ms": span(began, node.now()),
        "relayed": dialled.relayed,
    });
    done["limit"] = limit;
    Ok(done)
}

/// Send bytes, and have what comes back.
pub(super) async fn exchange(
    stream: impl AsyncRead + AsyncWrite,
    sent: &[u8],
) -> io::Result<Vec<u8>> {
    let (mut reader, mut writer) = stream.split();
    let write = async {
        writer.write_all(sent).await?;
        writer.close().await
    };
    let mut got = Vec::new();
    let (written, read) = future::join(write, reader.read_to_end(&mut got)).await;
    written.and(read).map(|_| got)
}

/// Connect, say a word, and see how long that lasts.
async fn hold<R: Runtime>(node: &Node<R>, addr: &Multiaddr) -> Result<Value, String> {
    let dialled = dial(node, addr).await?;
    let stands = node.now();
    let stream = node.open_stream_on(dialled.conn, ECHO).await;
    let mut stream = stream.map_err(|error| error.to_string())?;
    stream.write_all(b"here").await.map_err(|error| error.to_string())?;
    stream.flush().await.map_err(|error| error.to_string())?;
    let limit = limit(node, &dialled).await;
    let mut got = Vec::new();
    let ended = stream.read_to_end(&mut got).await;
    Ok(json!({
        "held_ms": super::application::millis_of(node.now().since(stands)), "limit": limit,
        "got": got.len(), "orderly": ended.is_ok(),
    }))
}

/// Ask for a reservation on a connection, whatever that runs over.
async fn reserve<R: Runtime>(node: &Node<R>, addr: &Multiaddr) -> Result<Value, String> {
    let dialled = dial(node, addr).await?;
    let asked = async {
        let mut stream = node.open_stream_on(dialled.conn, Protocol::Hop.name()).await?;
        let mut frame = bytes::BytesMut::new();
        let framing = Protocol::Hop.framing();
        framing::encode(framing, &HopMessage::Reserve.encode(), &mut frame)?;
        stream.write_all(&frame).await?;
        stream.flush().await?;
        let mut got = bytes::BytesMut::new();
        loop {
            let mut byte = [0];
            stream.read_exact(&mut byte).await?;
            got.extend_from_slice(&byte);
            if let Some(body) = framing::split(framing, &mut got)? {
                return Ok(HopMessage::decode(&body)?);
            }
        }
    };
    let asked: Result<HopMessage, Box<dyn std::error::Error + Send + Sync>> = asked.await;
    node.disconnect(dialled.peer).await;
    match asked {
        Ok(HopMessage::Status { status, .. }) => {
            Ok(json!({ "status": format!("{status:?}"), "relayed": dialled.relayed }))
        }
        Ok(HopMessage::Reserve | HopMessage::Connect { .. } | _) => {
            Err("it asks as well".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}

/// What servers behind relays were paid, and how often each was asked.
async fn paid<R: Runtime>(node: &Node<R>) -> Result<Value, String> {
    let explained = node.explain().await.map_err(|error| error.to_string())?;
    let all = &explained.distant_servers;
    let asked = all.iter().flat_map(|one| &one.outcomes).map(|(_, count)| count);
    let bytes: u64 = all.iter().map(|one| one.dial_data).sum();
    Ok(json!({ "bytes": bytes, "asked": asked.sum::<u32>() }))
}

pub(super) async fn dial<R: Runtime>(node: &Node<R>, addr: &Multiaddr) -> Result<Dialled, String> {
    node.dial(addr.clone()).await.map_err(|error| error.to_string())
}

/// What we were told that a connection may carry.
async fn limit<R: Runtime>(node: &Node<R>, dialled: &Dialled) -> Value {
    let all = node.connections().await;
    let one = all.into_iter().find(|one| one.conn == dialled.conn);
    let limit = one.and_then(|one| one.limit).unwrap_or_default();
    let seconds = limit.duration.map(|span| span.as_secs());
    json!({ "bytes": limit.bytes, "seconds": seconds })
}

/// What a node tells of relays.
#[allow(clippy::wildcard_enum_match_arm, reason = "what no story asks about is left out")]
pub(super) fn told(notice: &RelayNotice, own: PeerId) -> Option<Value> {
    let named = |addrs: &[CircuitAddr]| {
        let addrs = addrs.iter().map(|one| circuit_address(one.addr, one.relay, own).to_string());
        addrs.collect::<Vec<_>>()
    };
    Some(match notice {
        RelayNotice::NeedChanged { needed } => json!({ "event": "need", "needed": needed }),
        RelayNotice::Changed(relay) => stands(relay),
        RelayNotice::CircuitAddrsChanged { added, removed } => {
            json!({ "event": "circuits", "added": named(added), "removed": named(removed) })
        }
        RelayNotice::Granted { peer, renewed } => {
            json!({ "event": "granted", "peer": peer.to_string(), "renewed": renewed })
        }
        RelayNotice::Refused { peer, target, status } => json!({
            "event": "refused", "peer": peer.to_string(), "status": format!("{status:?}"),
            "target": target.map(|peer| peer.to_string()),
        }),
        RelayNotice::ReservationEnded { peer } => {
            json!({ "event": "ended", "peer": peer.to_string() })
        }
        RelayNotice::BridgeEnded { end, overtime, forth, back, .. } => json!({
            "event": "bridged", "end": format!("{end:?}"), "overtime": overtime,
            "forth": forth, "back": back,
        }),
        _ => return None,
    })
}

fn stands(relay: &Relay) -> Value {
    json!({
        "event": "relay", "relay": relay.peer.to_string(), "state": relay.state.name(),
        "failure": relay.failure.map(|failure| format!("{failure:?}")),
        "rtt_ms": relay.rtt.map(super::application::millis_of),
        "until_ms": relay.until.map(super::application::millis),
        "limit": {
            "bytes": relay.limit.bytes,
            "seconds": relay.limit.duration.map(|span| span.as_secs()),
        },
    })
}
