//! What one identity needs to shake hands on every transport, made once.

use super::NetConfig;
use super::error::SetupError;
use super::reset;
use libp2p_identity::Keypair;
use portolan_core::{Duration, PeerId};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{IdleTimeout, TransportConfig, VarInt};
use std::net::SocketAddr;
use std::sync::Arc;

/// QUIC version 1 and no other.
const QUIC_VERSION: u32 = 1;
/// How often an idle QUIC connection is kept alive, ours and rust-libp2p's: well inside the idle
/// time-out, and shorter than any NAT forgets a UDP binding.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// How long a QUIC connection lives without hearing from the other side, ms; rust-libp2p's.
const IDLE_TIMEOUT_MS: u32 = 10_000;
/// Data that a peer may send on one QUIC stream before we read it, bytes; ours. Throughput of a
/// stream is this in a round trip; so is memory that a peer can fill.
const STREAM_WINDOW: u32 = 1_024 * 1_024;
/// The same for all streams of a connection together, bytes; ours.
const CONNECTION_WINDOW: u32 = 4 * 1_024 * 1_024;
/// The round trip that QUIC supposes before it has measured one, where a hole is punched; ours. The
/// first packet may come before the other side's NAT is open. The next one leaves after three times
/// this (RFC 9002 §6.2), which would otherwise be a second. If it grows, so does the wait; if it
/// shrinks, more packets go to where nobody answers.
const PUNCH_RTT: Duration = Duration::from_millis(50);

/// Datagrams of one connection that are kept while it waits to be accepted or refused, bytes;
/// ours: a handful, since that is decided at once.
const INCOMING_BUFFER: u64 = 64 * 1_024;
/// The same for all such connections together, bytes; ours.
const INCOMING_BUFFERS: u64 = 4 * 1_024 * 1_024;

/// One identity, ready for handshakes.
pub(super) struct Keys {
    pub(super) peer: PeerId,
    keypair: Keypair,
    pub(super) noise: libp2p_noise::Config,
    pub(super) tls: libp2p_tls::Config,
    pub(super) quic_client: quinn::ClientConfig,
    /// The same, for connections to whoever opens a NAT for us at about this moment.
    pub(super) quic_punch: quinn::ClientConfig,
    pub(super) quic_server: quinn::ServerConfig,
}

impl Keys {
    pub(super) fn new(keypair: &Keypair, config: &NetConfig) -> Result<Keys, SetupError> {
        let mut eager = transport(config);
        eager.initial_rtt(PUNCH_RTT);
        let transport = Arc::new(transport(config));
        let quic_client = quic_client(keypair, transport.clone())?;
        let mut quic_punch = quic_client.clone();
        quic_punch.transport_config(Arc::new(eager));
        Ok(Keys {
            peer: keypair.public().to_peer_id(),
            keypair: keypair.clone(),
            noise: libp2p_noise::Config::new(keypair)
                .map_err(|error| SetupError::new("noise", error))?,
            tls: libp2p_tls::Config::new(keypair).map_err(|error| SetupError::new("tls", error))?,
            quic_client,
            quic_punch,
            quic_server: quic_server(keypair, transport, config)?,
        })
    }

    /// The configuration of the endpoint whose socket is at this address.
    pub(super) fn endpoint(&self, local: SocketAddr) -> quinn::EndpointConfig {
        let mut endpoint = quinn::EndpointConfig::default();
        endpoint.supported_versions(vec![QUIC_VERSION]);
        reset::outlive(&mut endpoint, &self.keypair, local);
        endpoint
    }
}

fn quic_client(
    keypair: &Keypair,
    transport: Arc<TransportConfig>,
) -> Result<quinn::ClientConfig, SetupError> {
    let mut tls = libp2p_tls::make_client_config(keypair, None)
        .map_err(|error| SetupError::new("tls", error))?;
    // Where it is first used, the generator gathers entropy for a tenth of a second of one core: here,
    // and not in the first handshake.
    let random = tls.crypto_provider().secure_random.fill(&mut [0; 32]);
    random.map_err(|error| SetupError::new("tls", rustls::Error::from(error)))?;
    // Session keys never leave the process, whatever SSLKEYLOGFILE says.
    tls.key_log = Arc::new(rustls::NoKeyLog);
    // All peers go by one server name, so that tickets would be offered to the wrong ones.
    tls.resumption = rustls::client::Resumption::disabled();
    let crypto = QuicClientConfig::try_from(tls).map_err(|error| SetupError::new("quic", error))?;
    let mut client = quinn::ClientConfig::new(Arc::new(crypto));
    client.version(QUIC_VERSION);
    client.transport_config(transport);
    Ok(client)
}

fn quic_server(
    keypair: &Keypair,
    transport: Arc<TransportConfig>,
    config: &NetConfig,
) -> Result<quinn::ServerConfig, SetupError> {
    let mut tls =
        libp2p_tls::make_server_config(keypair).map_err(|error| SetupError::new("tls", error))?;
    tls.key_log = Arc::new(rustls::NoKeyLog);
    tls.send_tls13_tickets = 0;
    let crypto = QuicServerConfig::try_from(tls).map_err(|error| SetupError::new("quic", error))?;
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    server.transport_config(transport);
    // A peer's address is evidence here: it must not change under a connection.
    server.migration(false);
    server
        .max_incoming(config.pending_max)
        .incoming_buffer_size(INCOMING_BUFFER)
        .incoming_buffer_size_total(INCOMING_BUFFERS);
    Ok(server)
}

fn transport(config: &NetConfig) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(config.quic_streams_max))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .allow_spin(false)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MS))))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW));
    transport
}
