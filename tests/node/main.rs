//! Whole nodes on real sockets of the loopback interface, on every runtime.

mod circuits;
mod circuits_by_hand;
mod connect;
#[cfg(target_os = "linux")]
mod gateways;
mod hostile;
mod life;
mod pipes;
mod punching;
mod streams;
mod suspend;
mod verdict;

use futures::StreamExt;
use futures::io::{AsyncReadExt, AsyncWriteExt};
use portolan_core::{Config, PeerId};
use portolan_runtime::net::{Established, Net, NetConfig, RawStream};
use portolan_runtime::traits::Runtime;
use portolan_runtime::{Builder, Dialled, Limits, Node, Stream, identity};
use portolan_tests::lab::{Lab, soon, until};
use portolan_tests::portolan_peer::on_one_host;

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

/// A configuration under which core opens no streams by itself and so keeps no connection.
fn quiet() -> Config {
    let mut config = on_one_host();
    config.identify = false;
    config.ping_interval = None;
    config
}

fn builder<L: Lab>(lab: &L, config: Config, listen: &[&str]) -> Builder<L::Runtime> {
    let builder = Node::builder(lab.runtime(), identity::generate()).config(config);
    listen.iter().fold(builder, |builder, addr| builder.listen(addr.parse().expect("an address")))
}

async fn start<L: Lab>(
    lab: &L,
    config: Config,
    limits: Limits,
    listen: &[&str],
) -> Node<L::Runtime> {
    builder(lab, config, listen).limits(limits).start().await.expect("free ports")
}

async fn node<L: Lab>(lab: &L, listen: &[&str]) -> Node<L::Runtime> {
    start(lab, on_one_host(), Limits::default(), listen).await
}

/// Dial every address of `to`.
async fn dial<R: Runtime>(from: &Node<R>, to: &Node<R>) -> Vec<Dialled> {
    let mut dialled = Vec::new();
    for addr in soon(to.listeners()).await {
        dialled.push(soon(from.dial(addr)).await.expect("it listens"));
    }
    dialled
}

/// Echo everything on every stream of [`ECHO`].
fn serve_echo<R: Runtime>(node: &Node<R>) {
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
struct Bare<R: Runtime>(Net<R>);

impl<R: Runtime> Bare<R> {
    fn new<L: Lab<Runtime = R>>(lab: &L) -> Bare<R> {
        let net = Net::new(lab.runtime(), &identity::generate(), NetConfig::default());
        Bare(net.expect("a usable key").0)
    }

    fn peer(&self) -> PeerId {
        self.0.peer()
    }

    /// Connect to the first address of `node`.
    async fn connect(&self, node: &Node<R>) -> Established {
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
async fn first_addr<R: Runtime>(node: &Node<R>) -> portolan_core::Addr {
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
