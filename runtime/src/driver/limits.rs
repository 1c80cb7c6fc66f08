//! Every bound of the runtime. Core's own are in `portolan_core::config`.

use portolan_core::{Duration, config};

/// What a node admits. Beyond a limit things are refused, never queued without end.
/// Built by `Limits::default()` and assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Connections, all together. When full, a new inbound one is closed as soon as its handshakes
    /// are through and a dial fails; dial-backs have their own cap in core's configuration. How
    /// many may be in their handshakes is `NetConfig`'s to say.
    pub connections_max: usize,
    /// Connections with one peer. When full, a new one is closed.
    pub per_peer_max: usize,
    /// Inbound connections from one IPv4 address or IPv6 /64. When full, a new one is closed.
    /// Circuits have no source of their own, and do not count here.
    pub inbound_per_source_max: usize,
    /// Inbound circuits through one relay, standing or in their handshakes. When full, a new one is
    /// reset.
    pub circuits_per_relay_max: usize,
    /// Dials of the application under way. When full, a dial fails at once.
    pub pending_dials_max: usize,
    /// Streams of one connection, in both directions and of all protocols. When full, a stream
    /// that the peer opens is reset and one that we want is not opened.
    pub streams_per_connection_max: usize,
    /// Streams that one peer opened on one connection and whose protocol is not agreed yet. When
    /// full, a new one is reset.
    pub negotiating_per_connection_max: usize,
    /// Inbound streams of one application protocol that wait to be taken. When full, a new one
    /// is reset.
    pub incoming_max: usize,
    /// How long two peers may take to agree on a stream's protocol. Half-open streams live longer
    /// if it grows.
    pub negotiation_timeout: Duration,
    /// How long one frame of core's protocols may take from its first byte to its last. Streams
    /// that are fed byte by byte live longer if it grows.
    pub frame_timeout: Duration,
    /// How long a connection that nobody uses stays open. Core's own streams do not count as use,
    /// streams of the application do, and core can ask to keep a connection.
    pub idle_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            // Ours: a connection costs two tasks and some 40 KiB, 70 over QUIC; `NetConfig` says how much unread
            // data may come on top.
            connections_max: 1_024,
            // Ours: both transports, both families, both directions.
            per_peer_max: 8,
            // Ours: a household or an office behind one NAT.
            inbound_per_source_max: 64,
            // Ours: as many as may come from one source, which a relay is to us.
            circuits_per_relay_max: 64,
            // Ours: a crawler dials dozens at once.
            pending_dials_max: 128,
            // rust-libp2p's and go-libp2p's value for inbound streams.
            streams_per_connection_max: 256,
            // Ours: more than a peer opens within one round trip.
            negotiating_per_connection_max: 32,
            // Ours.
            incoming_max: 64,
            // rust-libp2p's value.
            negotiation_timeout: Duration::from_secs(10),
            // Ours: 8 KiB over a 5 kbit/s line.
            frame_timeout: Duration::from_secs(15),
            // Ours: beyond core's ping interval.
            idle_timeout: Duration::from_secs(30),
        }
    }
}

// Core would ignore what the runtime admitted beyond core's own limit.
const _: () = assert!(1_024 < config::CONNECTIONS_MAX);

/// How long a stream lives after we finished sending on it, seconds; ours: beyond every deadline
/// of core's exchanges.
pub(crate) const HALF_CLOSED_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a connection lingers for what was sent on it to be delivered, seconds; ours: some
/// round trips with one loss. Shutting down takes longer if it grows.
pub(crate) const LINGER: Duration = Duration::from_secs(2);
/// How long the closing words of a connection may take to leave, seconds; ours.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long mappings may take to be given back when the node ends, seconds; ours: some round trips
/// to a router next door, with one loss. Shutting down takes longer if it grows.
pub(crate) const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);
/// How often interface addresses and gateways are read again, seconds; ours: reading them is a few
/// microseconds, and where the system does not tell of changes, a laptop that moved should notice
/// before its user does.
pub(crate) const INTERFACES_INTERVAL: Duration = Duration::from_secs(30);
const _: () = assert!(RELEASE_TIMEOUT.as_secs() <= LINGER.as_secs() + 2 * CLOSE_TIMEOUT.as_secs());
/// How often the driver looks at its clocks when nothing else wakes it, seconds; ours: timers may
/// stand still while the machine is suspended, and then this long passes before it is noticed that
/// they did. It costs one wake-up of the process and two readings of clocks.
pub(crate) const CLOCKS_INTERVAL: Duration = Duration::from_secs(5);
/// The shortest suspend that core hears of, seconds; ours: what a busy machine may keep any
/// process waiting for anyway.
pub(crate) const SUSPEND_MIN: Duration = Duration::from_secs(1);
/// Frames that wait to be written on one stream, number; ours: dial data of 100 kB is 25 chunks;
/// this is some times that. When full, the stream is reset.
pub(crate) const STREAM_QUEUE_MAX: usize = 128;
/// Bytes that are kept of what a peer sends behind the last message of a stream that may become a
/// circuit, number; ours: the first words of a dialler that does not wait for the answer. When full,
/// the rest stays unread, and so with the peer.
pub(crate) const REST_MAX: usize = 4_096;
/// Orders that wait for one connection, number; ours. When full, a stream is not opened.
pub(crate) const CONNECTION_QUEUE_MAX: usize = 256;
/// Facts that wait for the driver, number; ours. When full, whoever has one waits, and so does
/// the peer that sent it.
pub(crate) const FACTS_MAX: usize = 256;
/// Requests of the application that wait for the driver, number; ours. When full, the caller
/// waits.
pub(crate) const COMMANDS_MAX: usize = 64;
