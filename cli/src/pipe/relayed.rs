//! Being reached through relays while listening.

use crate::pipe::PipeNews;
use crate::relays::{self, failure};
use futures::{FutureExt, StreamExt, pin_mut, select_biased};
use multiaddr::Multiaddr;
use portolan_core::{
    Config, Duration, Notice, PeerId, PunchConfig, Relay, RelayConfig, RelayFailure, RelayNeed,
    RelayNotice, RelayPeer, RelayState,
};
use portolan_runtime::Node;
use portolan_runtime::traits::Runtime;

/// How long a first reservation may take; ours: as long as core waits for a relay that is dialled.
const PATIENCE: Duration = Duration::from_secs(15);

/// No relay leads others here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no relay takes us in{}", said(.relays))]
#[non_exhaustive]
pub struct NoReservation {
    /// Each relay, and why it does not; none where it was still being asked.
    pub relays: Vec<(PeerId, Option<RelayFailure>)>,
}

fn said(relays: &[(PeerId, Option<RelayFailure>)]) -> String {
    let one = |(peer, why): &(PeerId, Option<RelayFailure>)| {
        let why = why.map_or_else(|| "no answer yet".to_owned(), failure);
        format!("; {peer}: {why}")
    };
    relays.iter().map(one).collect()
}

/// A node that uses these relays, and predicts ports if it may.
pub(super) fn config(relays: &[RelayPeer], need: RelayNeed, predict_ports: bool) -> Config {
    let mut relay = RelayConfig::default();
    relay.relays = relays::distinct(relays);
    relay.need = need;
    relay.use_connected = false;
    let mut config = Config::default();
    config.relay = Some(relay);
    let mut punch = PunchConfig::default();
    punch.predict_ports = predict_ports;
    config.punch = Some(punch);
    config
}

/// Wait until a relay has taken us in.
pub(super) async fn reserve<R: Runtime>(runtime: &R, node: &Node<R>) -> Result<(), NoReservation> {
    let mut notices = node.notices().fuse();
    let expired = runtime.sleep(PATIENCE).fuse();
    pin_mut!(expired);
    let mut is_over = false;
    loop {
        let relays = node.relays().await;
        if relays.iter().any(|relay| relay.state == RelayState::Reserved) {
            return Ok(());
        }
        // Each has had its say.
        let refused = !relays.is_empty() && relays.iter().all(|relay| relay.failure.is_some());
        if refused || is_over {
            let relays = relays.into_iter().map(|Relay { peer, failure, .. }| (peer, failure));
            return Err(NoReservation { relays: relays.collect() });
        }
        select_biased! {
            () = expired => is_over = true,
            _ = notices.select_next_some() => {}
            complete => is_over = true,
        }
    }
}

/// Tell the addresses at which relays lead others here, and those that do no longer, until the node
/// ends.
pub(super) async fn follow<R: Runtime>(node: &Node<R>, mut news: impl FnMut(&PipeNews)) {
    let mut notices = node.notices();
    let mut told: Vec<Multiaddr> = Vec::new();
    loop {
        let addresses = node.circuit_addresses().await;
        for address in addresses.iter().filter(|one| !told.contains(one)) {
            news(&PipeNews::Listening { address: address.to_string() });
        }
        for address in told.iter().filter(|one| !addresses.contains(one)) {
            news(&PipeNews::Withdrawn { address: address.to_string() });
        }
        told = addresses;
        loop {
            let Some(noticed) = notices.next().await else { return };
            let is_news =
                matches!(noticed.notice, Notice::Relay(RelayNotice::CircuitAddrsChanged { .. }));
            // What was missed may have been such a one.
            if is_news || noticed.missed > 0 {
                break;
            }
        }
    }
}
