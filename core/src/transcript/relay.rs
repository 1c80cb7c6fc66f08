//! Facts, orders, news and messages about relays and circuits.

use super::frames::multiaddrs;
use super::text::span;
use super::{Names, Scribe};
use crate::wire::relay::{HopMessage, Reservation, StopMessage, Voucher};
use crate::{
    BridgeEnd, CircuitAddr, CircuitFailure, CircuitLimit, DialFailure, PeerId, Relay, RelayAction,
    RelayEvent, RelayFailure, RelayNotice, RelayStatus,
};
use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// The text of an event.
pub(super) fn event<N: Names>(scribe: &Scribe<N>, event: &RelayEvent) -> String {
    let name = |peer: &PeerId| scribe.names.name(peer);
    match event {
        RelayEvent::CircuitWanted { circuit, conn, peer } => {
            format!("circuit {circuit} on {} to {}", scribe.conn(*conn), name(peer))
        }
        RelayEvent::CircuitForgotten { circuit } => format!("circuit-forgotten {circuit}"),
        RelayEvent::ConnectFailed { peer, addr, reason } => {
            format!("connect-failed {} {addr} {}", name(peer), dial_failure(*reason))
        }
        RelayEvent::UpgradeFailed { stream } => {
            format!("upgrade-failed {}", scribe.stream(*stream))
        }
        RelayEvent::BridgeEnded { stream, end, forth, back } => {
            let (stream, end) = (scribe.stream(*stream), bridge_end(*end));
            format!("bridge-ended {stream} {end} forth={forth} back={back}")
        }
        RelayEvent::Draining => "draining".into(),
    }
}

/// The text of an order.
pub(super) fn action<N: Names>(scribe: &Scribe<N>, action: &RelayAction) -> String {
    let name = |peer: &PeerId| scribe.names.name(peer);
    match action {
        RelayAction::Connect { peer, addr } => format!("connect-relay {} {addr}", name(peer)),
        RelayAction::Upgrade { stream, peer, circuit, limit } => {
            let wish = circuit.map(|circuit| format!(" for {circuit}")).unwrap_or_default();
            let stream = scribe.stream(*stream);
            format!("upgrade {stream} to {}{wish}{}", name(peer), limited(*limit))
        }
        RelayAction::CircuitFailed { circuit, reason } => {
            format!("circuit-failed {circuit} {}", circuit_failure(*reason))
        }
        RelayAction::Bridge { stream, target, bytes_max } => {
            let limit = CircuitLimit { duration: None, bytes: *bytes_max };
            let (stream, target) = (scribe.stream(*stream), scribe.stream(*target));
            format!("bridge {stream} {target}{}", limited(limit))
        }
        RelayAction::Cut { stream } => format!("cut {}", scribe.stream(*stream)),
    }
}

/// The text of a notice.
pub(super) fn notice<N: Names>(scribe: &Scribe<N>, notice: &RelayNotice) -> String {
    let name = |peer: &PeerId| scribe.names.name(peer);
    match notice {
        RelayNotice::NeedChanged { needed: true } => "relays needed".into(),
        RelayNotice::NeedChanged { needed: false } => "relays not needed".into(),
        RelayNotice::Changed(relay) => changed(scribe, relay),
        RelayNotice::CircuitAddrsChanged { added, removed } => {
            let marked = |mark, addr: &CircuitAddr| {
                format!(" {mark}{}/p2p/{}/p2p-circuit", addr.addr, name(&addr.relay))
            };
            let added = added.iter().map(|addr| marked('+', addr));
            let removed = removed.iter().map(|addr| marked('-', addr));
            format!("circuit-addresses{}", added.chain(removed).collect::<String>())
        }
        RelayNotice::Granted { peer, renewed: false } => format!("granted {}", name(peer)),
        RelayNotice::Granted { peer, renewed: true } => format!("granted {} again", name(peer)),
        RelayNotice::Refused { peer, target, status } => {
            let to = target.map(|target| format!(" to {}", name(&target))).unwrap_or_default();
            format!("refused {}{to} {}", name(peer), word(*status))
        }
        RelayNotice::ReservationEnded { peer } => format!("reservation of {} ended", name(peer)),
        RelayNotice::BridgeOpened { initiator, target } => {
            format!("bridge {} to {}", name(initiator), name(target))
        }
        RelayNotice::BridgeEnded { initiator, target, end, overtime, forth, back } => {
            let bridge = format!("bridge {} to {}", name(initiator), name(target));
            let overtime = if *overtime { " overtime" } else { "" };
            format!("{bridge} ended {}{overtime} forth={forth} back={back}", bridge_end(*end))
        }
    }
}

fn changed<N: Names>(scribe: &Scribe<N>, relay: &Relay) -> String {
    let Relay { peer, state, failure, rtt, load, until, limit, addrs } = relay;
    let state = state.name();
    let mut parts: Vec<String> = Vec::from([format!("relay {} {state}", scribe.names.name(peer))]);
    parts.extend(failure.map(|failure| format!("failure={}", relay_failure(failure))));
    parts.extend(until.map(|until| format!("until={}", scribe.moment(until))));
    parts.extend(rtt.map(|rtt| format!("rtt={}", span(rtt))));
    parts.extend(load.map(|load| format!("load={load}")));
    let addrs = addrs.iter().map(|addr| addr.to_string()).collect::<Vec<_>>();
    if !addrs.is_empty() {
        parts.push(format!("at=[{}]", addrs.join(", ")));
    }
    parts.join(" ") + &limited(*limit)
}

/// What a hop stream says.
pub(super) fn hop(names: &impl Names, said: &HopMessage) -> String {
    match said {
        HopMessage::Reserve => "Reserve".into(),
        HopMessage::Connect { peer } => format!("Connect {}", names.name(peer)),
        HopMessage::Status { status, reservation, limit } => {
            let granted = reservation.as_ref();
            let granted = granted.map(|granted| reserved(names, granted)).unwrap_or_default();
            format!("Status {}{}{granted}", word(*status), limited(*limit))
        }
    }
}

fn reserved(names: &impl Names, granted: &Reservation) -> String {
    let Reservation { expire, addrs, voucher } = granted;
    let addrs = match addrs.is_empty() {
        true => String::new(),
        false => format!(" addrs={}", multiaddrs(addrs)),
    };
    let voucher = voucher.as_ref().map(|sealed| match Voucher::open(sealed) {
        Ok(Voucher { relay, peer, expiration }) => {
            let (relay, peer) = (names.name(&relay), names.name(&peer));
            format!(" voucher={relay}:{peer}:{expiration}")
        }
        Err(error) => format!(" voucher=bad ({error})"),
    });
    format!(" expire={expire}{addrs}{}", voucher.unwrap_or_default())
}

/// What a stop stream says.
pub(super) fn stop(names: &impl Names, said: &StopMessage) -> String {
    match said {
        StopMessage::Connect { peer, limit } => {
            format!("Connect {}{}", names.name(peer), limited(*limit))
        }
        StopMessage::Status { status } => format!("Status {}", word(*status)),
    }
}

fn limited(limit: CircuitLimit) -> String {
    let CircuitLimit { duration, bytes } = limit;
    let duration = duration.map(|duration| format!(" duration={}", span(duration)));
    let bytes = bytes.map(|bytes| format!(" bytes={bytes}"));
    duration.unwrap_or_default() + &bytes.unwrap_or_default()
}

/// A status as the specification names it, or its code.
fn word(status: RelayStatus) -> Cow<'static, str> {
    match status {
        RelayStatus::Unused => "UNUSED".into(),
        RelayStatus::Ok => "OK".into(),
        RelayStatus::ReservationRefused => "RESERVATION_REFUSED".into(),
        RelayStatus::ResourceLimitExceeded => "RESOURCE_LIMIT_EXCEEDED".into(),
        RelayStatus::PermissionDenied => "PERMISSION_DENIED".into(),
        RelayStatus::ConnectionFailed => "CONNECTION_FAILED".into(),
        RelayStatus::NoReservation => "NO_RESERVATION".into(),
        RelayStatus::MalformedMessage => "MALFORMED_MESSAGE".into(),
        RelayStatus::UnexpectedMessage => "UNEXPECTED_MESSAGE".into(),
        RelayStatus::Unknown(code) => code.to_string().into(),
    }
}

/// How a dial failed, in a word of scripts.
pub(super) const fn dial_failure(reason: DialFailure) -> &'static str {
    match reason {
        DialFailure::Refused => "refused",
        DialFailure::TimedOut => "timed-out",
        DialFailure::Handshake => "handshake",
        DialFailure::LocalFault => "local-fault",
    }
}

const fn bridge_end(end: BridgeEnd) -> &'static str {
    match end {
        BridgeEnd::Finished => "finished",
        BridgeEnd::Reset => "reset",
        BridgeEnd::BytesUsedUp => "bytes-used-up",
        BridgeEnd::Cut => "cut",
    }
}

fn circuit_failure(reason: CircuitFailure) -> String {
    match reason {
        CircuitFailure::Refused(status) => format!("refused {}", word(status)),
        CircuitFailure::TimedOut => "timed-out".into(),
        CircuitFailure::Unsupported => "unsupported".into(),
        CircuitFailure::NoRelay => "no-relay".into(),
        CircuitFailure::BadAnswer => "bad-answer".into(),
        CircuitFailure::TooMany => "too-many".into(),
    }
}

fn relay_failure(failure: RelayFailure) -> Cow<'static, str> {
    match failure {
        RelayFailure::Unreachable(how) => format!("unreachable:{}", dial_failure(how)).into(),
        RelayFailure::Unsupported => "unsupported".into(),
        RelayFailure::TimedOut => "timed-out".into(),
        RelayFailure::Full => "full".into(),
        RelayFailure::Denied => "denied".into(),
        RelayFailure::BadAnswer => "bad-answer".into(),
        RelayFailure::BadVoucher => "bad-voucher".into(),
        RelayFailure::Disconnected => "disconnected".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Numbered, addr, key, peer, scribe};
    use super::*;
    use crate::wire::multiaddr::encode;
    use crate::{
        Action, CircuitId, ConnId, Duration, Event, Instant, Notice, Protocol, RelayState, Side,
        Signer, StreamId,
    };
    use bytes::Bytes;
    use libp2p_identity::Keypair;

    const CONN: ConnId = ConnId(1);
    const HOP: StreamId = StreamId::inbound(Protocol::Hop, 1);
    const STOP: StreamId = StreamId::outbound(Protocol::Stop, 2);
    const LIMIT: CircuitLimit =
        CircuitLimit { duration: Some(Duration::from_secs(120)), bytes: Some(131_072) };
    const NONE: CircuitLimit = CircuitLimit { duration: None, bytes: None };

    /// Who knows as well that peer 1 has opened a hop stream, and that we opened a stop stream.
    fn relaying() -> Scribe<Numbered> {
        let mut scribe = scribe();
        scribe.event(&Event::StreamOpened { conn: CONN, stream: HOP });
        scribe.action(&Action::OpenStream { conn: CONN, stream: STOP });
        scribe
    }

    #[test]
    fn every_event_has_its_line() {
        let circuit = CircuitId(3);
        let all = [
            (
                RelayEvent::CircuitWanted { circuit, conn: CONN, peer: peer(2) },
                "circuit k3 on c1 (P1) to P2",
            ),
            (RelayEvent::CircuitForgotten { circuit }, "circuit-forgotten k3"),
            (
                RelayEvent::ConnectFailed {
                    peer: peer(2),
                    addr: addr(2),
                    reason: DialFailure::TimedOut,
                },
                "connect-failed P2 /ip4/44.0.0.2/tcp/4001 timed-out",
            ),
            (RelayEvent::UpgradeFailed { stream: HOP }, "upgrade-failed <hop:1 (P1)"),
            (RelayEvent::Draining, "draining"),
        ];
        for (event, line) in all {
            assert_eq!(relaying().event(&Event::Relay(event)), line);
        }
        for (end, word) in [
            (BridgeEnd::Finished, "finished"),
            (BridgeEnd::Reset, "reset"),
            (BridgeEnd::BytesUsedUp, "bytes-used-up"),
            (BridgeEnd::Cut, "cut"),
        ] {
            let event = RelayEvent::BridgeEnded { stream: HOP, end, forth: 7, back: 9 };
            let line = format!("bridge-ended <hop:1 (P1) {word} forth=7 back=9");
            assert_eq!(relaying().event(&Event::Relay(event)), line);
        }
    }

    #[test]
    fn every_order_has_its_line() {
        let upgrade = |circuit, limit| {
            let stream = StreamId::outbound(Protocol::Hop, 7);
            RelayAction::Upgrade { stream, peer: peer(2), circuit, limit }
        };
        let bridge = |bytes_max| RelayAction::Bridge { stream: HOP, target: STOP, bytes_max };
        let all = [
            (
                RelayAction::Connect { peer: peer(2), addr: addr(2) },
                "connect-relay P2 /ip4/44.0.0.2/tcp/4001",
            ),
            (upgrade(None, NONE), "upgrade >hop:7 to P2"),
            (
                upgrade(Some(CircuitId(3)), LIMIT),
                "upgrade >hop:7 to P2 for k3 duration=2m bytes=131072",
            ),
            (bridge(None), "bridge <hop:1 (P1) >stop:2 (P1)"),
            (bridge(Some(131_072)), "bridge <hop:1 (P1) >stop:2 (P1) bytes=131072"),
            (RelayAction::Cut { stream: HOP }, "cut <hop:1 (P1)"),
        ];
        for (action, line) in all {
            assert_eq!(relaying().action(&Action::Relay(action)), line);
        }
        let refused = |code| CircuitFailure::Refused(RelayStatus::from_code(code));
        for (reason, words) in [
            (refused(204), "refused NO_RESERVATION"),
            (refused(-7), "refused -7"),
            (CircuitFailure::TimedOut, "timed-out"),
            (CircuitFailure::Unsupported, "unsupported"),
            (CircuitFailure::NoRelay, "no-relay"),
            (CircuitFailure::BadAnswer, "bad-answer"),
            (CircuitFailure::TooMany, "too-many"),
        ] {
            let failed = RelayAction::CircuitFailed { circuit: CircuitId(3), reason };
            let line = format!("circuit-failed k3 {words}");
            assert_eq!(relaying().action(&Action::Relay(failed)), line);
        }
    }

    #[test]
    fn a_bridge_keeps_its_name_to_its_end() {
        let mut scribe = relaying();
        let bridge = RelayAction::Bridge { stream: HOP, target: STOP, bytes_max: None };
        scribe.action(&Action::Relay(bridge));
        let cut = Action::Relay(RelayAction::Cut { stream: HOP });
        assert_eq!(scribe.action(&cut), "cut <hop:1 (P1)");
        let end = BridgeEnd::Cut;
        let ended = RelayEvent::BridgeEnded { stream: HOP, end, forth: 0, back: 0 };
        let ended = Event::Relay(ended);
        assert_eq!(scribe.event(&ended), "bridge-ended <hop:1 (P1) cut forth=0 back=0");
        assert_eq!(scribe.event(&ended), "bridge-ended <hop:1 cut forth=0 back=0");
        let reset = Action::ResetStream { stream: STOP };
        assert_eq!(scribe.action(&reset), "reset >stop:2", "it was core's no more");
    }

    /// The line of a notice without its star.
    fn told(notice: RelayNotice) -> String {
        let line = scribe().action(&Action::Notify(Notice::Relay(notice)));
        line.strip_prefix("* ").expect("a notice has a star").into()
    }

    #[test]
    fn every_notice_about_relays_of_ours_has_its_line() {
        let relay = |state, failure| Relay {
            peer: peer(2),
            state,
            failure,
            rtt: None,
            load: None,
            until: None,
            limit: NONE,
            addrs: Vec::new(),
        };
        for (state, word) in [
            (RelayState::Spare, "spare"),
            (RelayState::Connecting, "connecting"),
            (RelayState::Asking, "asking"),
            (RelayState::Reserved, "reserved"),
            (RelayState::Resting, "resting"),
        ] {
            assert_eq!(told(RelayNotice::Changed(relay(state, None))), format!("relay P2 {word}"));
        }
        for (failure, word) in [
            (RelayFailure::Unreachable(DialFailure::Refused), "unreachable:refused"),
            (RelayFailure::Unsupported, "unsupported"),
            (RelayFailure::TimedOut, "timed-out"),
            (RelayFailure::Full, "full"),
            (RelayFailure::Denied, "denied"),
            (RelayFailure::BadAnswer, "bad-answer"),
            (RelayFailure::BadVoucher, "bad-voucher"),
            (RelayFailure::Disconnected, "disconnected"),
        ] {
            let resting = relay(RelayState::Resting, Some(failure));
            let line = format!("relay P2 resting failure={word}");
            assert_eq!(told(RelayNotice::Changed(resting)), line);
        }
        let whole = Relay {
            rtt: Some(Duration::from_millis(20)),
            load: Some(12),
            until: Some(Instant::from_millis(3_600_000)),
            limit: LIMIT,
            addrs: [addr(2), addr(3)].into(),
            ..relay(RelayState::Reserved, None)
        };
        assert_eq!(
            told(RelayNotice::Changed(whole)),
            "relay P2 reserved until=3600.000 rtt=20ms load=12 \
             at=[/ip4/44.0.0.2/tcp/4001, /ip4/44.0.0.3/tcp/4001] duration=2m bytes=131072"
        );
        assert_eq!(told(RelayNotice::NeedChanged { needed: true }), "relays needed");
        assert_eq!(told(RelayNotice::NeedChanged { needed: false }), "relays not needed");
        let at = |last| CircuitAddr { relay: peer(2), addr: addr(last) };
        assert_eq!(
            told(RelayNotice::CircuitAddrsChanged {
                added: [at(2)].into(),
                removed: [at(3)].into()
            }),
            "circuit-addresses +/ip4/44.0.0.2/tcp/4001/p2p/P2/p2p-circuit \
             -/ip4/44.0.0.3/tcp/4001/p2p/P2/p2p-circuit"
        );
    }

    #[test]
    fn every_notice_about_our_own_service_has_its_line() {
        let refused = |target, status| RelayNotice::Refused { peer: peer(1), target, status };
        let ended = |end, overtime| RelayNotice::BridgeEnded {
            initiator: peer(1),
            target: peer(2),
            end,
            overtime,
            forth: 7,
            back: 9,
        };
        let all = [
            (RelayNotice::Granted { peer: peer(1), renewed: false }, "granted P1"),
            (RelayNotice::Granted { peer: peer(1), renewed: true }, "granted P1 again"),
            (refused(None, RelayStatus::ReservationRefused), "refused P1 RESERVATION_REFUSED"),
            (refused(Some(peer(2)), RelayStatus::NoReservation), "refused P1 to P2 NO_RESERVATION"),
            (RelayNotice::ReservationEnded { peer: peer(1) }, "reservation of P1 ended"),
            (RelayNotice::BridgeOpened { initiator: peer(1), target: peer(2) }, "bridge P1 to P2"),
            (ended(BridgeEnd::Reset, false), "bridge P1 to P2 ended reset forth=7 back=9"),
            (ended(BridgeEnd::Cut, true), "bridge P1 to P2 ended cut overtime forth=7 back=9"),
        ];
        for (notice, line) in all {
            assert_eq!(told(notice), line);
        }
    }

    struct Hand(Keypair);

    impl Signer for Hand {
        fn sign(&mut self, message: &[u8]) -> Vec<u8> {
            self.0.sign(message).expect("ed25519 signs anything")
        }
    }

    fn read(protocol: Protocol, body: &Bytes) -> String {
        let stream = StreamId::outbound(protocol, 9);
        super::super::frames::frame(&Numbered, stream, Side::Inbound, body)
    }

    #[test]
    fn every_message_has_its_line() {
        let voucher = Voucher { relay: peer(1), peer: peer(2), expiration: 1_800_000_000 };
        let voucher = voucher.sealed(&key(1).public(), &mut Hand(key(1)));
        let granted = |addrs, voucher| HopMessage::Status {
            status: RelayStatus::Ok,
            reservation: Some(Reservation { expire: 1_800_000_000, addrs, voucher }),
            limit: LIMIT,
        };
        let refused = |code| HopMessage::Status {
            status: RelayStatus::from_code(code),
            reservation: None,
            limit: NONE,
        };
        let plain = "Status OK duration=2m bytes=131072 expire=1800000000";
        for (said, line) in [
            (HopMessage::Reserve, "Reserve".into()),
            (HopMessage::Connect { peer: peer(2) }, "Connect P2".into()),
            (granted(Vec::new(), None), plain.into()),
            (
                granted([encode(addr(2))].into(), Some(voucher)),
                format!("{plain} addrs=[/ip4/44.0.0.2/tcp/4001] voucher=P1:P2:1800000000"),
            ),
            (
                granted(Vec::new(), Some(Bytes::new())),
                format!("{plain} voucher=bad (the envelope does not decode: the message is empty)"),
            ),
        ] {
            let told = read(Protocol::Hop, &said.encode());
            // The reason is the envelope's own affair.
            assert_eq!(told.split(" (").next(), line.split(" (").next());
        }
        for (code, word) in [
            (0, "UNUSED"),
            (200, "RESERVATION_REFUSED"),
            (201, "RESOURCE_LIMIT_EXCEEDED"),
            (202, "PERMISSION_DENIED"),
            (203, "CONNECTION_FAILED"),
            (204, "NO_RESERVATION"),
            (400, "MALFORMED_MESSAGE"),
            (401, "UNEXPECTED_MESSAGE"),
            (7, "7"),
        ] {
            assert_eq!(read(Protocol::Hop, &refused(code).encode()), format!("Status {word}"));
        }
        let wanted = StopMessage::Connect { peer: peer(2), limit: LIMIT };
        assert_eq!(read(Protocol::Stop, &wanted.encode()), "Connect P2 duration=2m bytes=131072");
        let taken = StopMessage::Status { status: RelayStatus::Ok };
        assert_eq!(read(Protocol::Stop, &taken.encode()), "Status OK");
        assert_eq!(read(Protocol::Hop, &Bytes::from_static(b"\xff")), "undecodable 1 bytes ff");
    }
}
