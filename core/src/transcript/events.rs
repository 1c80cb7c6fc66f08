//! Facts.

use super::text::{list, span};
use super::{Names, Scribe, frames, mapping, punch, relay};
use crate::words::config::INTERFACES_MAX;
use crate::{Connected, Event, Protocol, ProtocolSet, Side, StreamEnd, StreamFailure};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::IpAddr;

/// The text of an event.
pub(super) fn text<N: Names>(scribe: &Scribe<N>, event: &Event) -> String {
    match event {
        Event::Tick => "tick".into(),
        Event::Resumed { slept } => format!("resumed after {}", span(*slept)),
        Event::ListenerOpened { listener, addr } => format!("listening {listener} {addr}"),
        Event::ListenerClosed { listener } => format!("listener-closed {listener}"),
        Event::InterfacesChanged { ips } => format!("interfaces {}", interfaces(ips)),
        Event::Contacted { ip } => format!("contacted {ip}"),
        Event::Introduced { peer, source } => {
            format!("introduced {} {source}", scribe.names.name(peer))
        }
        Event::Connected(facts) => connected(&scribe.names, facts),
        Event::Disconnected { conn } => format!("disconnected {}", scribe.conn(*conn)),
        Event::DialFailed { dial, reason } => {
            format!("dial-failed {dial} {}", relay::dial_failure(*reason))
        }
        Event::DialFailureReported { addr } => format!("dial-failure-reported {addr}"),
        Event::StreamOpened { conn, stream } => {
            format!("opened {stream} on {}", scribe.conn(*conn))
        }
        Event::StreamFailed { stream, reason } => {
            let reason = match reason {
                StreamFailure::Unsupported => "unsupported",
                StreamFailure::Failed => "failed",
                StreamFailure::TimedOut => "timed-out",
            };
            format!("failed {} {reason}", scribe.stream(*stream))
        }
        Event::Frame { stream, body } => {
            let said = frames::frame(&scribe.names, *stream, Side::Inbound, body);
            format!("frame {} {said}", scribe.stream(*stream))
        }
        Event::StreamClosed { stream, end } => {
            let end = match end {
                StreamEnd::Finished => "finished",
                StreamEnd::Reset => "reset",
                StreamEnd::BadFrame => "bad-frame",
            };
            format!("{end} {}", scribe.stream(*stream))
        }
        Event::Observed { conn, observed } => {
            format!("observed {} {observed}", scribe.conn(*conn))
        }
        Event::ProtocolsListed { conn, protocols: listed } => {
            format!("protocols {} {}", scribe.conn(*conn), protocols(*listed))
        }
        Event::Mapping(event) => mapping::event(event),
        Event::Relay(event) => relay::event(scribe, event),
        Event::Punch(event) => punch::event(scribe, event),
    }
}

/// All that is known of a connection when it begins, in the order in which scripts say it.
fn connected(names: &impl Names, facts: &Connected) -> String {
    let Connected { conn, peer, side, local, remote, relayed, dial, rtt } = facts;
    let side = match side {
        Side::Inbound => "in",
        Side::Outbound => "out",
    };
    let rtt = rtt.map(|rtt| format!(" rtt={}", span(rtt))).unwrap_or_default();
    let relayed = if *relayed { " relayed" } else { "" };
    let dial = dial.map(|dial| format!(" dial={dial}")).unwrap_or_default();
    let peer = names.name(peer);
    format!("connected {conn} ({peer}) {side} {remote} local={local}{rtt}{relayed}{dial}")
}

fn interfaces(ips: &[IpAddr]) -> String {
    match ips {
        [] => "none".into(),
        ips => list(ips.iter().map(IpAddr::to_string), " ", INTERFACES_MAX),
    }
}

fn protocols(listed: ProtocolSet) -> String {
    let words: Vec<&str> = listed.iter().map(Protocol::word).collect();
    if words.is_empty() { "none".into() } else { words.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{addr, peer, scribe};
    use super::*;
    use crate::wire::autonat::{DialBack, DialBackResponse};
    use crate::{Addr, ConnId, DialFailure, DialId, Duration, ListenerId, StreamId};
    use bytes::Bytes;
    use core::net::{Ipv4Addr, Ipv6Addr};

    const CONN: ConnId = ConnId(1);
    const STREAM: StreamId = StreamId::inbound(Protocol::Identify, 1);
    const OURS: StreamId = StreamId::outbound(Protocol::Ping, 3);

    fn connected() -> Connected {
        Connected {
            conn: ConnId(2),
            peer: peer(2),
            side: Side::Outbound,
            local: addr(2),
            remote: Addr::quic(Ipv6Addr::LOCALHOST.into(), 443),
            relayed: false,
            dial: None,
            rtt: None,
        }
    }

    #[test]
    fn every_event_has_its_line() {
        let ips = [Ipv4Addr::new(10, 0, 0, 2).into(), Ipv6Addr::LOCALHOST.into()];
        let all = [
            (Event::Tick, "tick"),
            (Event::Resumed { slept: Duration::from_secs(7_200) }, "resumed after 2h"),
            (
                Event::ListenerOpened { listener: ListenerId(1), addr: addr(2) },
                "listening l1 /ip4/44.0.0.2/tcp/4001",
            ),
            (Event::ListenerClosed { listener: ListenerId(1) }, "listener-closed l1"),
            (Event::InterfacesChanged { ips: ips.into() }, "interfaces 10.0.0.2 ::1"),
            (Event::InterfacesChanged { ips: Vec::new() }, "interfaces none"),
            (Event::Contacted { ip: ips[0] }, "contacted 10.0.0.2"),
            (
                Event::Connected(connected()),
                "connected c2 (P2) out /ip6/::1/udp/443/quic-v1 local=/ip4/44.0.0.2/tcp/4001",
            ),
            (
                Event::Connected(Connected {
                    side: Side::Inbound,
                    relayed: true,
                    dial: Some(DialId(4)),
                    rtt: Some(Duration::from_micros(20_500)),
                    ..connected()
                }),
                "connected c2 (P2) in /ip6/::1/udp/443/quic-v1 local=/ip4/44.0.0.2/tcp/4001 \
                 rtt=20.5ms relayed dial=d4",
            ),
            (Event::Disconnected { conn: CONN }, "disconnected c1 (P1)"),
            (Event::Disconnected { conn: ConnId(9) }, "disconnected c9"),
            (Event::StreamOpened { conn: CONN, stream: OURS }, "opened >ping:3 on c1 (P1)"),
            (Event::StreamOpened { conn: ConnId(9), stream: OURS }, "opened >ping:3 on c9"),
            (
                Event::Frame { stream: STREAM, body: Bytes::from_static(b"\x32\x01a") },
                "frame <identify:1 (P1) Identify agent=a",
            ),
            (
                Event::Frame { stream: OURS, body: Bytes::from_static(&[7; 32]) },
                "frame >ping:3 32 bytes",
            ),
            (Event::Introduced { peer: peer(1), source: 3 }, "introduced P1 3"),
            (
                Event::DialFailureReported { addr: addr(7) },
                "dial-failure-reported /ip4/44.0.0.7/tcp/4001",
            ),
            (
                Event::Observed { conn: CONN, observed: addr(7) },
                "observed c1 (P1) /ip4/44.0.0.7/tcp/4001",
            ),
            (
                Event::ProtocolsListed {
                    conn: CONN,
                    protocols: Protocol::ALL.into_iter().fold(ProtocolSet::NONE, ProtocolSet::with),
                },
                "protocols c1 (P1) identify push ping dial-request dial-back hop stop punch autonat-v1",
            ),
            (
                Event::ProtocolsListed { conn: CONN, protocols: ProtocolSet::NONE },
                "protocols c1 (P1) none",
            ),
        ];
        for (event, line) in all {
            assert_eq!(scribe().event(&event), line);
        }
    }

    #[test]
    fn every_way_to_end_has_the_word_of_scripts() {
        for (reason, word) in [
            (DialFailure::Refused, "refused"),
            (DialFailure::TimedOut, "timed-out"),
            (DialFailure::Handshake, "handshake"),
            (DialFailure::LocalFault, "local-fault"),
        ] {
            let line = scribe().event(&Event::DialFailed { dial: DialId(1), reason });
            assert_eq!(line, format!("dial-failed d1 {word}"));
        }
        for (reason, word) in [
            (StreamFailure::Unsupported, "unsupported"),
            (StreamFailure::Failed, "failed"),
            (StreamFailure::TimedOut, "timed-out"),
        ] {
            let line = scribe().event(&Event::StreamFailed { stream: STREAM, reason });
            assert_eq!(line, format!("failed <identify:1 (P1) {word}"));
        }
        for (end, word) in [
            (StreamEnd::Finished, "finished"),
            (StreamEnd::Reset, "reset"),
            (StreamEnd::BadFrame, "bad-frame"),
        ] {
            let line = scribe().event(&Event::StreamClosed { stream: STREAM, end });
            assert_eq!(line, format!("{word} <identify:1 (P1)"));
        }
    }

    #[test]
    fn what_comes_in_was_sent_by_the_peer() {
        let nonce = Event::Frame {
            stream: StreamId::inbound(Protocol::DialBack, 1),
            body: DialBack { nonce: 7 }.encode(),
        };
        assert_eq!(scribe().event(&nonce), "frame <dial-back:1 DialBack nonce=7");
        let answer = Event::Frame {
            stream: StreamId::outbound(Protocol::DialBack, 1),
            body: DialBackResponse::OK.encode(),
        };
        assert_eq!(scribe().event(&answer), "frame >dial-back:1 DialBackResponse OK");
    }

    #[test]
    fn more_interfaces_than_core_knows_are_counted() {
        let ips: Vec<IpAddr> = (0..66).map(|last| Ipv4Addr::new(10, 0, 0, last).into()).collect();
        let line = scribe().event(&Event::InterfacesChanged { ips });
        assert!(line.ends_with(" 10.0.0.63 …+2"), "{line}");
    }
}
