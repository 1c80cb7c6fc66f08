//! The connection stack on real sockets of the loopback interface, on every runtime.

mod circuits;
mod flood;
mod handshakes;
mod ports;
mod predicted;
mod punches;
mod routers;
mod streams;

use futures::io::{AsyncReadExt, AsyncWriteExt};
use portolan_core::{Addr, Transport};
use portolan_runtime::identity::{self, Keypair};
use portolan_runtime::net::{Arrival, Established, Listening, Net, NetConfig, RawStream};
use portolan_runtime::traits::Runtime;
use portolan_tests::lab::{Lab, soon};
use std::net::IpAddr;

/// One side of a test.
struct Peer<R: Runtime> {
    net: Net<R>,
    arrivals: async_channel::Receiver<Arrival>,
}

impl<R: Runtime> Peer<R> {
    fn new<L: Lab<Runtime = R>>(lab: &L) -> Peer<R> {
        Peer::with(lab, &identity::generate(), NetConfig::default())
    }

    fn with<L: Lab<Runtime = R>>(lab: &L, keypair: &Keypair, config: NetConfig) -> Peer<R> {
        let (net, arrivals) = Net::new(lab.runtime(), keypair, config).expect("a usable key");
        Peer { net, arrivals }
    }

    fn listen(&self, ip: &str, transport: Transport) -> Listening {
        self.net.listen(addr(ip, 0, transport)).expect("a free port")
    }

    async fn arrival(&self) -> Established {
        soon(self.arrivals.recv()).await.expect("the net lives").connection
    }

    /// Dial `to` at `server` and give both ends of the connection, ours first.
    async fn connect(&self, server: &Peer<R>, to: Addr) -> (Established, Established) {
        let dial = self.net.dial(to, Some(server.net.peer()));
        let (dialled, arrived) = futures::future::join(soon(dial), server.arrival()).await;
        (dialled.expect("the server listens"), arrived)
    }
}

fn addr(ip: &str, port: u16, transport: Transport) -> Addr {
    Addr::new(ip.parse::<IpAddr>().expect("an IP address"), port, transport)
}

/// Send `text`, end, and read until the other side ends.
async fn ask(mut stream: RawStream, text: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    soon(async {
        stream.write_all(text).await.expect("the stream is open");
        stream.close().await.expect("the stream is open");
        stream.read_to_end(&mut answer).await.expect("the other side ends");
    })
    .await;
    answer
}

/// Read until the other side ends, send the same back, and end.
async fn echo(mut stream: RawStream) {
    let mut text = Vec::new();
    soon(async {
        stream.read_to_end(&mut text).await.expect("the other side ends");
        stream.write_all(&text).await.expect("the stream is open");
        stream.close().await.expect("the stream is open");
    })
    .await;
}

/// One question and its answer over a connection, opened by the first end.
async fn talk(one: &Established, other: &Established) {
    talk_of(10_000, one, other).await;
}

/// The same with a text of `size` bytes. More than 1 MiB is more than the first window of either
/// muxer, so that windows have to move.
async fn talk_of(size: usize, one: &Established, other: &Established) {
    let text = vec![7; size];
    let (answer, ()) = futures::future::join(
        async { ask(soon(one.muxer.open()).await.expect("it is open"), &text).await },
        async { echo(soon(other.muxer.accept()).await.expect("it is open")).await },
    )
    .await;
    assert!(answer == text, "the echo differs");
}
