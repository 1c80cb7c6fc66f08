//! Whole nodes on real sockets of the loopback interface.

mod connect;
mod hostile;
mod life;
mod streams;
mod verdict;

use futures::StreamExt;
use futures::io::{AsyncReadExt, AsyncWriteExt};
use portolan_core::{Config, PeerId};
use portolan_runtime::net::{Established, Net, NetConfig, RawStream};
use portolan_tokio::{Builder, Dialled, Limits, Node, Stream, Tokio, identity};
use std::future::Future;
use std::time::Duration;
use tokio::runtime::Handle;

/// No test takes a tenth of this; one that does is stuck.
const PATIENCE: Duration = Duration::from_secs(30);
/// One address of every class.
const EVERYWHERE: [&str; 4] = [
    "/ip4/127.0.0.1/tcp/0",
    "/ip4/127.0.0.1/udp/0/quic-v1",
    "/ip6/::1/tcp/0",
    "/ip6/::1/udp/0/quic-v1",
];
/// One address of every transport.
const BOTH: [&str; 2] = ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"];
const ECHO: &str = "/echo/1.0.0";

async fn soon<F: Future>(task: F) -> F::Output {
    tokio::time::timeout(PATIENCE, task).await.expect("it does not get stuck")
}

/// Wait until `check` holds.
async fn until(mut check: impl AsyncFnMut() -> bool) {
    soon(async {
        while !check().await {
            // sleep: between two looks at a fact of which nobody notifies; `soon` bounds them all.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

fn lab() -> Config {
    let mut config = Config::default();
    config.allow_private = true;
    config
}

/// A configuration under which core opens no streams by itself and so keeps no connection.
fn quiet() -> Config {
    let mut config = lab();
    config.identify = false;
    config.ping_interval = None;
    config
}

fn builder(config: Config, listen: &[&str]) -> Builder {
    let builder = Node::builder(Handle::current(), identity::generate()).config(config);
    listen.iter().fold(builder, |builder, addr| builder.listen(addr.parse().expect("an address")))
}

async fn start(config: Config, limits: Limits, listen: &[&str]) -> Node {
    builder(config, listen).limits(limits).start().await.expect("free ports")
}

async fn node(listen: &[&str]) -> Node {
    start(lab(), Limits::default(), listen).await
}

/// Dial every address of `to`.
async fn dial(from: &Node, to: &Node) -> Vec<Dialled> {
    let mut dialled = Vec::new();
    for addr in soon(to.listeners()).await {
        dialled.push(soon(from.dial(addr)).await.expect("it listens"));
    }
    dialled
}

/// Echo everything on every stream of [`ECHO`].
fn serve_echo(node: &Node) {
    let mut incoming = node.accept(ECHO).expect("it is free");
    tokio::spawn(async move {
        while let Some((peer, stream)) = incoming.next().await {
            assert_eq!(peer, stream.peer());
            tokio::spawn(async move {
                let (reader, mut writer) = stream.split();
                // A peer that resets the stream ends the copy, which is as good.
                if futures::io::copy(reader, &mut writer).await.is_ok() {
                    let _ = writer.close().await;
                }
            });
        }
    });
}

/// Send `text` and finish, and read until the end.
async fn ask(mut stream: Stream, text: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    soon(async {
        stream.write_all(text).await.expect("it is open");
        stream.close().await.expect("it is open");
        stream.read_to_end(&mut answer).await.expect("the peer finishes");
    })
    .await;
    answer
}

/// A peer without a node: bare connections, on which a test does what it likes.
struct Bare(Net<Tokio>);

impl Bare {
    fn new() -> Bare {
        let tokio = Tokio::current().expect("tests run on tokio");
        let net = Net::new(tokio, &identity::generate(), NetConfig::default());
        Bare(net.expect("a usable key").0)
    }

    fn peer(&self) -> PeerId {
        self.0.peer()
    }

    /// Connect to the first address of `node`.
    async fn connect(&self, node: &Node) -> Established {
        let known = node.connections().await.len();
        let addr = soon(node.explain()).await.expect("it runs");
        assert_eq!(addr.peer_id, node.peer_id());
        let at = first_addr(node).await;
        let established = soon(self.0.dial(at, Some(node.peer_id()))).await.expect("it listens");
        until(async || node.connections().await.len() > known).await;
        established
    }
}

/// The first address of a node, as sockets see it.
async fn first_addr(node: &Node) -> portolan_core::Addr {
    let listener = soon(node.listeners()).await.into_iter().next().expect("it listens");
    match portolan_core::wire::multiaddr::decode(&listener.to_vec()) {
        Ok(portolan_core::wire::multiaddr::Decoded::Direct { addr, .. }) => addr,
        other => panic!("{listener} is {other:?}"),
    }
}

/// Open a stream on a bare connection and agree on `protocol`.
async fn open(connection: &Established, protocol: &str) -> RawStreamOf {
    use multistream_select::{Version, dialer_select_proto};
    let stream = soon(connection.muxer.open()).await.expect("there is room");
    let agreed = soon(dialer_select_proto(stream, [protocol.to_owned()], Version::V1)).await;
    agreed.expect("the node speaks it").1
}

type RawStreamOf = multistream_select::Negotiated<RawStream>;
