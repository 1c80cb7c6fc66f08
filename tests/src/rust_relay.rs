//! Relaying with rust-libp2p: what its relay allows, and what its relay and its client tell.

use libp2p::{PeerId, relay};
use std::num::NonZeroU32;
use std::time::Duration;

/// How long a reservation lasts, rust-libp2p's value.
const LIFETIME: Duration = Duration::from_secs(3_600);

/// What a rust-libp2p relay allows one circuit. It counts both directions together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RustRelayConfig {
    /// Bytes of both directions.
    pub bytes: u64,
    /// How long it may last.
    pub duration: Duration,
    /// How long a reservation lasts.
    pub lifetime: Duration,
    /// Whether each peer is granted one reservation in an hour, and no renewal.
    pub once: bool,
}

impl Default for RustRelayConfig {
    fn default() -> RustRelayConfig {
        let (bytes, duration) = (1 << 17, Duration::from_secs(120));
        RustRelayConfig { bytes, duration, lifetime: LIFETIME, once: false }
    }
}

impl RustRelayConfig {
    /// The behaviour: with this limit, and without the rates that would count the cells of a test.
    pub(crate) fn behaviour(self, id: PeerId) -> relay::Behaviour {
        let config = relay::Config {
            max_circuits: 64,
            max_circuits_per_peer: 64,
            max_circuit_bytes: self.bytes,
            max_circuit_duration: self.duration,
            reservation_duration: self.lifetime,
            reservation_rate_limiters: Vec::new(),
            circuit_src_rate_limiters: Vec::new(),
            ..relay::Config::default()
        };
        let config = if self.once {
            config.reservation_rate_per_peer(NonZeroU32::MIN, LIFETIME)
        } else {
            config
        };
        relay::Behaviour::new(id, config)
    }
}

/// A limit as it was announced, and as rust-libp2p read it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RustLimit {
    /// Bytes.
    pub bytes: Option<u64>,
    /// How long a circuit may last.
    pub duration: Option<Duration>,
}

/// Something about relays that a peer saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RelaySeen {
    /// As a relay: a reservation was granted.
    Granted {
        /// To whom.
        peer: PeerId,
    },
    /// As a relay: a reservation or a circuit was denied.
    Denied {
        /// To whom.
        peer: PeerId,
        /// Whom it wanted to reach, if it wanted a circuit.
        target: Option<PeerId>,
        /// What it was told.
        status: String,
    },
    /// As a relay: a circuit stands.
    CircuitOpened {
        /// Who wanted it.
        initiator: PeerId,
        /// Whom it reached.
        target: PeerId,
    },
    /// As a relay: a circuit is over.
    CircuitClosed {
        /// Who wanted it.
        initiator: PeerId,
        /// Whom it reached.
        target: PeerId,
        /// Why, if it was an error.
        error: Option<String>,
    },
    /// As a client: a reservation stands.
    Reserved {
        /// At whom.
        relay: PeerId,
        /// What a circuit may use.
        limit: RustLimit,
    },
    /// As a client: a circuit that we wanted stands.
    Outbound {
        /// Through whom.
        relay: PeerId,
        /// What it may use.
        limit: RustLimit,
    },
    /// As a client: somebody reached us.
    Inbound {
        /// Who.
        initiator: PeerId,
        /// What the circuit may use.
        limit: RustLimit,
    },
}

/// What a relay tells, if a test asks about it.
#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "a relay reports much that no test asks about, some of it deprecated"
)]
pub(crate) fn of_relay(event: relay::Event) -> Option<RelaySeen> {
    let seen = match event {
        relay::Event::ReservationReqAccepted { src_peer_id, .. } => {
            RelaySeen::Granted { peer: src_peer_id }
        }
        relay::Event::ReservationReqDenied { src_peer_id, status } => {
            RelaySeen::Denied { peer: src_peer_id, target: None, status: format!("{status:?}") }
        }
        relay::Event::CircuitReqDenied { src_peer_id, dst_peer_id, status } => RelaySeen::Denied {
            peer: src_peer_id,
            target: Some(dst_peer_id),
            status: format!("{status:?}"),
        },
        relay::Event::CircuitReqAccepted { src_peer_id, dst_peer_id } => {
            RelaySeen::CircuitOpened { initiator: src_peer_id, target: dst_peer_id }
        }
        relay::Event::CircuitClosed { src_peer_id, dst_peer_id, error } => {
            RelaySeen::CircuitClosed {
                initiator: src_peer_id,
                target: dst_peer_id,
                error: error.map(|error| error.to_string()),
            }
        }
        _ => return None,
    };
    Some(seen)
}

/// What a client tells.
pub(crate) fn of_client(event: relay::client::Event) -> RelaySeen {
    // The type of a limit cannot be named; its methods can.
    macro_rules! limit {
        ($limit:expr) => {
            $limit.map_or_else(RustLimit::default, |limit| RustLimit {
                bytes: limit.data_in_bytes(),
                duration: limit.duration(),
            })
        };
    }
    match event {
        relay::client::Event::ReservationReqAccepted { relay_peer_id, limit, .. } => {
            RelaySeen::Reserved { relay: relay_peer_id, limit: limit!(limit) }
        }
        relay::client::Event::OutboundCircuitEstablished { relay_peer_id, limit } => {
            RelaySeen::Outbound { relay: relay_peer_id, limit: limit!(limit) }
        }
        relay::client::Event::InboundCircuitEstablished { src_peer_id, limit } => {
            RelaySeen::Inbound { initiator: src_peer_id, limit: limit!(limit) }
        }
    }
}
