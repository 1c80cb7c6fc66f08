//! Clients by hand, the same for every relay: a bare connection that answers identify and ping,
//! reserves, asks for circuits, and takes those that come.
//!
//! No handshake is made over a circuit: its bytes go as they are, so that the relay, and not the
//! clients, is what a run waits for.

use super::Fault;
use bytes::BytesMut;
use futures::{AsyncReadExt, AsyncWriteExt};
use multistream_select::{Negotiated, Version, dialer_select_proto, listener_select_proto};
use portolan_core::wire::identify::Identify;
use portolan_core::wire::relay::{HopMessage, StopMessage};
use portolan_core::{Addr, Duration as Span, PeerId, Protocol, RelayStatus};
use portolan_runtime::identity;
use portolan_runtime::net::{Established, Net, NetConfig, RawStream};
use portolan_tests::frames::{read_frame, write_frame};
use portolan_tokio::Tokio;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How long anything may take that a client waits for.
const PATIENCE: Duration = Duration::from_secs(30);
/// Streams of one connection, number: a crowd of circuits goes over one.
const STREAMS_MAX: usize = 256;

/// A stream of which both sides know what is spoken.
pub(crate) type Line = Negotiated<RawStream>;

/// What a client does when the relay says that somebody wants to reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// It agrees, and hands the circuit out.
    Agrees,
    /// It says nothing, and holds the stream.
    Silent,
}

/// One client and its connection to a relay.
pub(crate) struct Client {
    pub(crate) peer: PeerId,
    connection: Established,
    circuits: mpsc::UnboundedReceiver<Line>,
    task: JoinHandle<()>,
    _net: Net<Tokio>,
}

/// The source of the `n`th client: each in a /24 of its own.
pub(crate) fn apart(n: usize) -> IpAddr {
    let n = u32::try_from(n % 60_000).unwrap_or(0);
    Ipv4Addr::from_bits(0x7f01_0001 + (n << 8)).into()
}

/// The source of the `n`th client of one /24.
pub(crate) fn together(n: usize) -> IpAddr {
    let n = u32::try_from(n % 250).unwrap_or(0);
    Ipv4Addr::from_bits(0x7ffe_0001 + n).into()
}

impl Client {
    /// Connect from this address, as somebody new.
    pub(crate) async fn connect(
        relay: Addr,
        source: IpAddr,
        manner: Manner,
    ) -> Result<Client, Fault> {
        let mut config = NetConfig::default();
        config.tcp_streams_max = STREAMS_MAX;
        let (net, _) = Net::new(Tokio::current()?, &identity::generate(), config)
            .map_err(|error| Fault::new(error.to_string()))?;
        let patience = Span::from_secs(PATIENCE.as_secs());
        // The dial of a dial-back is the one whose source can be chosen.
        let connection = net
            .dial_back(relay, Some(source), patience)
            .await
            .map_err(|error| Fault::new(format!("from {source}: {error}")))?;
        let peer = net.dial_back_peer();
        let (found, circuits) = mpsc::unbounded_channel();
        let muxer = connection.muxer.clone();
        let task = tokio::spawn(async move {
            while let Ok(stream) = muxer.accept().await {
                tokio::spawn(answer(stream, peer, manner, found.clone()));
            }
        });
        Ok(Client { peer, connection, circuits, task, _net: net })
    }

    /// Ask for a reservation.
    pub(crate) async fn reserve(&self) -> Result<RelayStatus, Fault> {
        let (status, mut line) = self.ask(HopMessage::Reserve).await?;
        line.close().await?;
        Ok(status)
    }

    /// Ask for a circuit to `target`.
    pub(crate) async fn circuit(&self, target: PeerId) -> Result<Line, Fault> {
        match self.ask(HopMessage::Connect { peer: target }).await? {
            (RelayStatus::Ok, line) => Ok(line),
            (status, _) => Err(Fault::new(format!("no circuit: {status:?}"))),
        }
    }

    /// What is answered to a request for a circuit.
    pub(crate) async fn status_of_circuit(&self, target: PeerId) -> Result<RelayStatus, Fault> {
        Ok(self.ask(HopMessage::Connect { peer: target }).await?.0)
    }

    /// Ask for a circuit, and do not wait for the answer.
    pub(crate) async fn ask_and_leave(&self, target: PeerId) -> Result<Line, Fault> {
        bounded(self.begin(HopMessage::Connect { peer: target })).await
    }

    /// The next circuit that comes.
    pub(crate) async fn come(&mut self) -> Result<Line, Fault> {
        let come = async {
            self.circuits.recv().await.ok_or_else(|| Fault::new("the relay is gone".into()))
        };
        bounded(come).await
    }

    async fn ask(&self, message: HopMessage) -> Result<(RelayStatus, Line), Fault> {
        bounded(async {
            let mut line = self.begin(message).await?;
            let body = read_frame(&mut line, Protocol::Hop.framing(), &mut BytesMut::new()).await?;
            match HopMessage::decode(&body) {
                Ok(HopMessage::Status { status, .. }) => Ok((status, line)),
                other => Err(Fault::new(format!("{other:?}"))),
            }
        })
        .await
    }

    async fn begin(&self, message: HopMessage) -> Result<Line, Fault> {
        let stream =
            self.connection.muxer.open().await.map_err(|error| Fault::new(error.to_string()))?;
        let (_, mut line) = dialer_select_proto(stream, [Protocol::Hop.name()], Version::V1)
            .await
            .map_err(|error| Fault::new(error.to_string()))?;
        write_frame(&mut line, Protocol::Hop.framing(), &message.encode()).await?;
        Ok(line)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What takes too long has failed.
pub(crate) async fn bounded<T>(work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => Err(Fault::new(format!("nothing came within {} s", PATIENCE.as_secs()))),
    }
}

/// Serve one stream that the relay opens. How it ends is the relay's business.
async fn answer(
    stream: RawStream,
    peer: PeerId,
    manner: Manner,
    found: mpsc::UnboundedSender<Line>,
) {
    let offered = [Protocol::Identify, Protocol::Ping, Protocol::Stop].map(Protocol::name);
    let Ok((name, mut line)) = listener_select_proto(stream, offered).await else { return };
    let served = async {
        if name == Protocol::Identify.name() {
            describe(&mut line, peer).await?;
            line.close().await?;
        } else if name == Protocol::Ping.name() {
            let mut body = [0; 32];
            while line.read_exact(&mut body).await.is_ok() {
                line.write_all(&body).await?;
                line.flush().await?;
            }
        } else {
            let framing = Protocol::Stop.framing();
            read_frame(&mut line, framing, &mut BytesMut::new()).await?;
            if manner == Manner::Silent {
                // Until the relay loses patience.
                let _ = line.read(&mut [0]).await;
                return Ok(());
            }
            let status = RelayStatus::Ok;
            write_frame(&mut line, framing, &StopMessage::Status { status }.encode()).await?;
            let _ = found.send(line);
        }
        Ok::<_, std::io::Error>(())
    };
    let _ = served.await;
}

async fn describe(line: &mut Line, peer: PeerId) -> std::io::Result<()> {
    // The key of an Ed25519 identity is in its peer id, behind the two bytes of the multihash.
    let key = peer.to_bytes().split_off(2);
    let described = Identify {
        public_key: Some(key.into()),
        protocols: [Protocol::Identify, Protocol::Ping, Protocol::Stop]
            .map(|protocol| protocol.name().to_owned())
            .into(),
        protocol_version: Some("ipfs/0.1.0".into()),
        agent_version: Some("bench".into()),
        ..Identify::default()
    };
    for message in described.encode_split().messages {
        write_frame(line, Protocol::Identify.framing(), &message).await?;
    }
    Ok(())
}
