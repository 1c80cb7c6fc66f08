//! Relays in words, and in the log of a server.

use crate::thousands;
use portolan_core::{
    BridgeEnd, CircuitAddr, DialFailure, DistantServer, Relay, RelayFailure, RelayNotice,
    RelayPeer, RelayStatus,
};

/// Each relay once, with all the addresses that were named.
pub(crate) fn distinct(named: &[RelayPeer]) -> Vec<RelayPeer> {
    let mut relays: Vec<RelayPeer> = Vec::new();
    for RelayPeer { peer, addrs } in named {
        let known = relays.iter_mut().find(|known| known.peer == *peer);
        match known {
            Some(known) => {
                let new = addrs.iter().filter(|addr| !known.addrs.contains(addr));
                let new: Vec<_> = new.copied().collect();
                known.addrs.extend(new);
            }
            None => relays.push(RelayPeer { peer: *peer, addrs: addrs.clone() }),
        }
    }
    relays
}

/// Each server once, behind the relay that was named first, with all the addresses of that.
pub(crate) fn distinct_servers(named: &[DistantServer]) -> Vec<DistantServer> {
    let mut servers: Vec<DistantServer> = Vec::new();
    for DistantServer { peer, relay } in named {
        match servers.iter_mut().find(|known| known.peer == *peer) {
            Some(known) if known.relay.peer == relay.peer => {
                let both = [known.relay.clone(), relay.clone()];
                known.relay = distinct(&both).swap_remove(0);
            }
            Some(_) => {}
            None => servers.push(DistantServer { peer: *peer, relay: relay.clone() }),
        }
    }
    servers
}

/// Why a relay is of no use for now.
pub(crate) fn failure(failure: RelayFailure) -> String {
    match failure {
        RelayFailure::Unreachable(DialFailure::Refused) => "nothing listens there".into(),
        RelayFailure::Unreachable(DialFailure::TimedOut) => "nothing answered in time".into(),
        RelayFailure::Unreachable(DialFailure::Handshake) => {
            "no handshake came about, or somebody else lives there".into()
        }
        RelayFailure::Unreachable(DialFailure::LocalFault) => "this host could not dial it".into(),
        RelayFailure::Unreachable(_) => "it could not be reached".into(),
        RelayFailure::Unsupported => "it does not relay".into(),
        RelayFailure::TimedOut => "it did not answer in time".into(),
        RelayFailure::Full => "it has no room".into(),
        RelayFailure::Denied => "it does not serve us".into(),
        RelayFailure::BadAnswer => "its answer makes no sense".into(),
        RelayFailure::BadVoucher => "its voucher is none".into(),
        RelayFailure::Disconnected => "the connection to it ended".into(),
        other => format!("{other:?}"),
    }
}

/// What a relay answered.
fn status(status: RelayStatus) -> String {
    match status {
        RelayStatus::Unused => "nothing".into(),
        RelayStatus::Ok => "OK".into(),
        RelayStatus::ReservationRefused => "reservation refused".into(),
        RelayStatus::ResourceLimitExceeded => "a limit is reached".into(),
        RelayStatus::PermissionDenied => "permission denied".into(),
        RelayStatus::ConnectionFailed => "the target could not be reached".into(),
        RelayStatus::NoReservation => "the target has no reservation".into(),
        RelayStatus::MalformedMessage => "malformed message".into(),
        RelayStatus::UnexpectedMessage => "unexpected message".into(),
        RelayStatus::Unknown(code) => format!("status {code}"),
        other => format!("{other:?}"),
    }
}

/// What a relay allows a circuit: seconds, and bytes each way; none is no limit.
pub(crate) fn limits(seconds: Option<u64>, bytes: Option<u64>) -> String {
    let lasts = seconds.map(|span| format!("last {span} s"));
    let bytes = bytes.map(|bytes| format!("carry {} bytes each way", thousands(bytes.into())));
    let limits: Vec<String> = lasts.into_iter().chain(bytes).collect();
    if limits.is_empty() { "do as it likes".to_owned() } else { limits.join(", ") }
}

/// Why a circuit is over.
pub(crate) fn end(end: BridgeEnd, overtime: bool) -> &'static str {
    match end {
        BridgeEnd::Finished => "both sides finished",
        BridgeEnd::Reset => "a side reset it, or left",
        BridgeEnd::BytesUsedUp => "its bytes are used up",
        BridgeEnd::Cut if overtime => "its time is used up",
        BridgeEnd::Cut => "a connection under it ended",
        _ => "it ended",
    }
}

/// News about relays in one line.
pub(crate) fn words(notice: &RelayNotice) -> String {
    match notice {
        RelayNotice::NeedChanged { needed } => {
            let needed = if *needed { "needed" } else { "no longer needed" };
            format!("relays are {needed}")
        }
        RelayNotice::Changed(Relay { peer, state, failure: why, .. }) => {
            let why = why.map_or_else(String::new, |why| format!(": {}", failure(why)));
            format!("the relay {peer} is {}{why}", state.name())
        }
        RelayNotice::CircuitAddrsChanged { added, removed } => {
            let signed = |sign: char| {
                move |CircuitAddr { relay, addr }: &CircuitAddr| {
                    format!(" {sign}{addr}/p2p/{relay}")
                }
            };
            let added: String = added.iter().map(signed('+')).collect();
            let removed: String = removed.iter().map(signed('-')).collect();
            format!("reached through relays:{added}{removed}")
        }
        RelayNotice::Granted { peer, renewed } => {
            let did = if *renewed { "renewed its" } else { "has a" };
            format!("{peer} {did} reservation")
        }
        RelayNotice::Refused { peer, target, status: said } => {
            let what = target.map_or_else(
                || "a reservation".to_owned(),
                |target| format!("a circuit to {target}"),
            );
            format!("{peer} was refused {what}: {}", status(*said))
        }
        RelayNotice::ReservationEnded { peer } => format!("the reservation of {peer} ended"),
        RelayNotice::BridgeOpened { initiator, target } => {
            format!("a circuit from {initiator} to {target} was opened")
        }
        RelayNotice::BridgeEnded { initiator, target, end: how, overtime, forth, back } => {
            let how = end(*how, *overtime);
            format!(
                "a circuit from {initiator} to {target} ended: {how}; {forth} bytes there, {back} back"
            )
        }
        other => format!("{other:?}"),
    }
}

/// Log what a server does for others, and what relays do for it.
pub(crate) fn log(notice: &RelayNotice) {
    match notice {
        RelayNotice::Granted { peer, renewed } => {
            tracing::info!(%peer, renewed, "reservation granted");
        }
        RelayNotice::Refused { peer, target, status: said } => {
            let reason = status(*said);
            match target {
                None => tracing::info!(%peer, reason, "reservation refused"),
                Some(target) => tracing::info!(%peer, %target, reason, "circuit refused"),
            }
        }
        RelayNotice::ReservationEnded { peer } => tracing::info!(%peer, "reservation ended"),
        RelayNotice::BridgeOpened { initiator, target } => {
            tracing::info!(%initiator, %target, "circuit opened");
        }
        RelayNotice::BridgeEnded { initiator, target, end: how, overtime, forth, back } => {
            let reason = end(*how, *overtime);
            tracing::info!(%initiator, %target, reason, forth, back, "circuit ended");
        }
        RelayNotice::NeedChanged { .. }
        | RelayNotice::Changed(_)
        | RelayNotice::CircuitAddrsChanged { .. } => tracing::info!("{}", words(notice)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_core::{Addr, CircuitLimit, PeerId, RelayState};
    use std::net::Ipv4Addr;

    #[test]
    fn a_relay_that_is_named_twice_is_one() {
        let [one, other] = [0; 2].map(|_| PeerId::random());
        let at = |port| Addr::tcp(Ipv4Addr::LOCALHOST.into(), port);
        let named = |peer, port| RelayPeer { peer, addrs: vec![at(port)] };
        let all = [named(one, 1), named(other, 1), named(one, 2), named(one, 1)];
        let both = RelayPeer { peer: one, addrs: vec![at(1), at(2)] };
        assert_eq!(distinct(&all), [both, named(other, 1)]);
    }

    #[test]
    fn news_reads_as_sentences() {
        let [peer, target] = [0; 2].map(|_| PeerId::random());
        let relay = Relay {
            peer,
            state: RelayState::Resting,
            failure: Some(RelayFailure::Full),
            rtt: None,
            load: None,
            until: None,
            limit: CircuitLimit::default(),
            addrs: Vec::new(),
        };
        let full = RelayStatus::ResourceLimitExceeded;
        let used_up = RelayNotice::BridgeEnded {
            initiator: peer,
            target,
            end: BridgeEnd::BytesUsedUp,
            overtime: false,
            forth: 7,
            back: 9,
        };
        for (notice, text) in [
            (RelayNotice::NeedChanged { needed: true }, "relays are needed".into()),
            (RelayNotice::Changed(relay), format!("the relay {peer} is resting: it has no room")),
            (
                RelayNotice::Granted { peer, renewed: true },
                format!("{peer} renewed its reservation"),
            ),
            (
                RelayNotice::Refused { peer, target: Some(target), status: full },
                format!("{peer} was refused a circuit to {target}: a limit is reached"),
            ),
            (
                used_up,
                format!(
                    "a circuit from {peer} to {target} ended: its bytes are used up; \
                     7 bytes there, 9 back"
                ),
            ),
        ] {
            assert_eq!(words(&notice), text);
        }
    }
}
