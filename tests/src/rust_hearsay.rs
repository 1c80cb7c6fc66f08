//! AutoNAT v1 of a rust-libp2p peer, both roles.

use crate::rust_peer::Seen;
use libp2p::autonat::v1;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use std::time::Duration;

/// How often a client of AutoNAT v1 asks; rust-libp2p's default is 90 s.
const HEARSAY_EVERY: Duration = Duration::from_millis(200);

/// On one host: nothing is private, and nothing waits for minutes.
pub(crate) fn behaviour(id: PeerId, candidate: Option<Multiaddr>) -> v1::Behaviour {
    let mut behaviour = v1::Behaviour::new(
        id,
        v1::Config {
            boot_delay: HEARSAY_EVERY,
            retry_interval: HEARSAY_EVERY,
            throttle_server_period: HEARSAY_EVERY,
            only_global_ips: false,
            ..v1::Config::default()
        },
    );
    if let Some(candidate) = candidate {
        behaviour.probe_address(candidate);
    }
    behaviour
}

/// What a peer saw that asked.
pub(crate) fn told(event: v1::OutboundProbeEvent) -> Option<Seen> {
    match event {
        v1::OutboundProbeEvent::Request { .. } => None,
        v1::OutboundProbeEvent::Response { peer, address, .. } => {
            let plain = address.iter().filter(|part| !matches!(part, Protocol::P2p(_)));
            Some(Seen::Told { server: peer, result: Ok(plain.collect()) })
        }
        v1::OutboundProbeEvent::Error { peer, error, .. } => {
            let v1::OutboundProbeError::Response(error) = error else { return None };
            Some(Seen::Told { server: peer?, result: Err(format!("{error:?}")) })
        }
    }
}
