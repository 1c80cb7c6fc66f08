//! Connections by key type, by what secures them, and by who dials. Both sides have a key of the
//! same type, and a connection counts once each side has identified the other over it.

use crate::cell::Kind;
use crate::other::{Other, WITHIN, Wanted, listen_addr};
use portolan_core::{Notice, Transport};
use portolan_runtime::Builder;
use portolan_runtime::net::{self, NetConfig};
use portolan_runtime::traits::Runtime;
use portolan_tests::portolan_peer::{PortolanPeer, on_one_host};
use portolan_tests::rust_peer::{KeyType, Security};

const IP: &str = "127.0.0.1";

/// What carries a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// TCP, Noise, Yamux.
    TcpNoise,
    /// TCP, TLS 1.3, Yamux.
    TcpTls,
    /// QUIC, version 1.
    Quic,
}

impl Carrier {
    /// Every carrier, in order.
    pub(crate) const ALL: [Carrier; 3] = [Carrier::TcpNoise, Carrier::TcpTls, Carrier::Quic];

    /// The words in the table.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Carrier::TcpNoise => "TCP, Noise",
            Carrier::TcpTls => "TCP, TLS",
            Carrier::Quic => "QUIC",
        }
    }

    const fn transport(self) -> Transport {
        match self {
            Carrier::TcpNoise | Carrier::TcpTls => Transport::Tcp,
            Carrier::Quic => Transport::Quic,
        }
    }
}

/// One cell of the table of handshakes.
#[derive(Clone, Debug)]
pub(crate) struct Handshake {
    /// The other peer.
    pub(crate) kind: Kind,
    /// The type of both keys.
    pub(crate) key: KeyType,
    /// Whether Portolan dials.
    pub(crate) we_dial: bool,
    /// What carries it.
    pub(crate) carrier: Carrier,
    /// Nothing if it works, else why not.
    pub(crate) result: Result<(), String>,
}

/// Every handshake with one kind of peer and one type of key.
pub(crate) async fn with<R: Runtime>(kind: Kind, key: KeyType, runtime: R) -> Vec<Handshake> {
    let mut noise = start(kind, key, Security::Noise, &[Transport::Tcp, Transport::Quic]).await;
    let mut tls = start(kind, key, Security::Tls, &[Transport::Tcp]).await;
    let mut handshakes = Vec::new();
    for carrier in Carrier::ALL {
        let other = if carrier == Carrier::TcpTls { &mut tls } else { &mut noise };
        for we_dial in [true, false] {
            let result = match other {
                Ok(other) => connect(other, runtime.clone(), key, carrier, we_dial).await,
                Err(error) => Err(error.clone()),
            };
            handshakes.push(Handshake { kind, key, we_dial, carrier, result });
        }
    }
    handshakes
}

async fn start(
    kind: Kind,
    key: KeyType,
    security: Security,
    transports: &[Transport],
) -> Result<Other, String> {
    Other::start(Wanted { kind, key, security, ip: IP, transports, autonat: false }).await
}

async fn connect<R: Runtime>(
    other: &mut Other,
    runtime: R,
    key: KeyType,
    carrier: Carrier,
    we_dial: bool,
) -> Result<(), String> {
    // Portolan has the same RSA key each time, and so the same peer id.
    other.forget();
    let mut net = NetConfig::default();
    // One security alone, so that the other cannot stand in for it.
    net.securities = match carrier {
        Carrier::TcpNoise => vec![net::Security::Noise],
        Carrier::TcpTls => vec![net::Security::Tls],
        Carrier::Quic => Vec::new(),
    };
    let listen = listen_addr(IP, carrier.transport());
    let finish = |builder: Builder<R>| builder.net(net);
    let keypair = key.generate_second();
    let us = PortolanPeer::start_as(runtime, keypair, on_one_host(), &[&listen], finish).await;
    if we_dial {
        let addrs = other.full_addrs();
        let addr = if carrier == Carrier::Quic { &addrs[1] } else { &addrs[0] };
        us.node.dial(addr.clone()).await.map_err(|error| error.to_string())?;
    } else {
        other.dial(&us.full_addrs[0], us.id()).await?;
    }
    other.identified(us.id()).await?;
    let id = other.id();
    let identified = us.wait_notice("identify", WITHIN, |notice| {
        matches!(notice, Notice::Identified { peer, .. } if *peer == id).then_some(())
    });
    identified.await
}
