//! Routers, and the ports that they map.

use super::text::{foreign, list, quoted, span};
use crate::words::config::GATEWAYS_MAX;
use crate::{
    Addr, Channel, Fetch, FetchFailure, Gateway, GatewayAnswer, Mapping, MappingAction,
    MappingEvent, Soap,
};
use alloc::format;
use alloc::string::String;

/// The text of an event.
pub(super) fn event(event: &MappingEvent) -> String {
    match event {
        MappingEvent::GatewaysChanged { gateways } => format!("gateways {}", all(gateways)),
        MappingEvent::DatagramReceived { channel, from, body } => {
            format!("datagram {} {from} {}", place(channel), datagram_text(body))
        }
        MappingEvent::DatagramRefused { channel, to } => {
            let to = to.map(|to| format!(" {to}")).unwrap_or_default();
            format!("datagram-refused {}{to}", place(channel))
        }
        MappingEvent::Fetched { fetch, status, body } => {
            format!("fetched {fetch} {status} {}", text_of(body))
        }
        MappingEvent::FetchFailed { fetch, reason } => {
            let reason = match reason {
                FetchFailure::Refused => "refused",
                FetchFailure::TimedOut => "timed-out",
                FetchFailure::Malformed => "malformed",
                FetchFailure::LocalFault => "local-fault",
            };
            format!("fetch-failed {fetch} {reason}")
        }
        MappingEvent::LedgerRead { ledger } => format!("ledger-read {} bytes", ledger.len()),
        MappingEvent::Closing => "closing".into(),
    }
}

/// The text of an action.
pub(super) fn action(action: &MappingAction) -> String {
    match action {
        MappingAction::OpenChannel { channel } => format!("open-channel {}", place(channel)),
        MappingAction::CloseChannel { channel } => format!("close-channel {}", place(channel)),
        MappingAction::SendDatagram { channel, to, body } => {
            format!("send-datagram {} {to} {}", place(channel), datagram_text(body))
        }
        MappingAction::Fetch(order) => fetch(order),
        MappingAction::StoreLedger { ledger } => format!("store-ledger {} bytes", ledger.len()),
    }
}

/// The text of a notice about a mapping.
pub(super) fn changed(internal: &Addr, mapping: Option<&Mapping>) -> String {
    let Some(Mapping { internal: _, state, reason, lease }) = mapping else {
        return format!("mapped {internal} no more");
    };
    let lease = lease.map(|lease| format!("; {lease}")).unwrap_or_default();
    format!("mapped {internal} {}: {reason}{lease}", state.name())
}

/// The text of a notice about what a router speaks.
pub(super) fn answered(answer: &GatewayAnswer) -> String {
    let GatewayAnswer { router, protocol, external } = answer;
    let external = external.map(|ip| format!(" external={ip}")).unwrap_or_default();
    format!("gateway {router} {protocol}{external}")
}

/// What a datagram says. What NAT-PMP and PCP send begins with a version, which is no character.
fn datagram_text(body: &[u8]) -> String {
    match body.first() {
        Some(b'\t'..0x80) => text_of(body),
        Some(0..b'\t' | 0x80..) | None => format!("{} bytes", body.len()),
    }
}

/// How a text begins. Its length is not told, since it changes with the names in it.
fn text_of(body: &[u8]) -> String {
    let mut lines = body.split(|byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let first = first.strip_suffix(b"\r").unwrap_or(first);
    let begins = quoted(&String::from_utf8_lossy(first));
    match lines.count() {
        0 => begins,
        more => format!("{begins} and {more} lines"),
    }
}

fn fetch(order: &Fetch) -> String {
    let Fetch { fetch, source, interface, to, path, soap, timeout } = order;
    let path = foreign(path);
    let what = match soap {
        None => format!("GET {to} {path}"),
        Some(Soap { action, body }) => {
            format!("POST {to} {path} {} {}", foreign(action), text_of(body))
        }
    };
    format!("fetch {fetch} {what} from {source}%{interface} within {}", span(*timeout))
}

/// A socket in one word: `192.168.1.7%2`, or `224.0.0.1:5350@192.168.1.7%2`.
fn place(channel: &Channel) -> String {
    match channel {
        Channel::Client { source, interface } => format!("{source}%{interface}"),
        Channel::Group { group, source, interface } => format!("{group}@{source}%{interface}"),
    }
}

fn all(gateways: &[Gateway]) -> String {
    let word = |gateway: &Gateway| {
        let Gateway { router, interface, source } = gateway;
        format!("{router}%{interface}<{source}")
    };
    match gateways {
        [] => "none".into(),
        gateways => list(gateways.iter().map(word), " ", GATEWAYS_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{addr, scribe};
    use super::*;
    use crate::{
        Action, Duration, Event, FetchId, Lease, MappingProtocol, MappingReason, MappingState,
        Notice,
    };
    use alloc::vec::Vec;
    use bytes::Bytes;
    use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

    const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 7));
    const ROUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 1));
    const CLIENT: Channel = Channel::Client { source: SOURCE, interface: 2 };

    fn group() -> Channel {
        let group = SocketAddr::new(Ipv4Addr::new(224, 0, 0, 1).into(), 5350);
        Channel::Group { group, source: SOURCE, interface: 2 }
    }

    #[test]
    fn every_event_has_its_line() {
        let router = SocketAddr::new(ROUTER, 5351);
        let linked = Gateway { router: Ipv6Addr::LOCALHOST.into(), interface: 3, source: SOURCE };
        let gateways =
            Vec::from([Gateway { router: ROUTER, interface: 2, source: SOURCE }, linked]);
        let received = |channel, body: &'static [u8]| MappingEvent::DatagramReceived {
            channel,
            from: router,
            body: Bytes::from_static(body),
        };
        let fetched = |body: &'static [u8]| MappingEvent::Fetched {
            fetch: FetchId(1),
            status: 200,
            body: Bytes::from_static(body),
        };
        let all = [
            (
                MappingEvent::GatewaysChanged { gateways },
                "gateways 192.168.1.1%2<192.168.1.7 ::1%3<192.168.1.7",
            ),
            (MappingEvent::GatewaysChanged { gateways: Vec::new() }, "gateways none"),
            (received(CLIENT, &[0, 128, 0, 0]), "datagram 192.168.1.7%2 192.168.1.1:5351 4 bytes"),
            (received(CLIENT, &[]), "datagram 192.168.1.7%2 192.168.1.1:5351 0 bytes"),
            (
                received(group(), b"NOTIFY * HTTP/1.1\r\nNTS: ssdp:alive\r\n\r\n"),
                "datagram 224.0.0.1:5350@192.168.1.7%2 192.168.1.1:5351 \
                 \"NOTIFY * HTTP/1.1\" and 3 lines",
            ),
            (
                MappingEvent::DatagramRefused { channel: CLIENT, to: Some(router) },
                "datagram-refused 192.168.1.7%2 192.168.1.1:5351",
            ),
            (
                MappingEvent::DatagramRefused { channel: CLIENT, to: None },
                "datagram-refused 192.168.1.7%2",
            ),
            (fetched(b"<a>\x1b</a>"), r#"fetched f1 200 "<a>\u{1b}</a>""#),
            (fetched(b""), r#"fetched f1 200 """#),
            (
                MappingEvent::LedgerRead { ledger: Bytes::from_static(b"abc") },
                "ledger-read 3 bytes",
            ),
            (MappingEvent::Closing, "closing"),
        ];
        for (event, line) in all {
            assert_eq!(scribe().event(&Event::Mapping(event)), line);
        }
        for (reason, word) in [
            (FetchFailure::Refused, "refused"),
            (FetchFailure::TimedOut, "timed-out"),
            (FetchFailure::Malformed, "malformed"),
            (FetchFailure::LocalFault, "local-fault"),
        ] {
            let failed = MappingEvent::FetchFailed { fetch: FetchId(7), reason };
            assert_eq!(scribe().event(&Event::Mapping(failed)), format!("fetch-failed f7 {word}"));
        }
    }

    #[test]
    fn every_order_has_its_line() {
        let ask = Fetch {
            fetch: FetchId(1),
            source: SOURCE,
            interface: 2,
            to: SocketAddr::new(ROUTER, 5000),
            path: "/root desc.xml".into(),
            soap: None,
            timeout: Duration::from_secs(5),
        };
        let action = "urn:schemas-upnp-org:service:WANIPConnection:1#AddPortMapping".into();
        let soap = Some(Soap { action, body: Bytes::from_static(b"<s/>\n") });
        let all = [
            (MappingAction::OpenChannel { channel: CLIENT }, "open-channel 192.168.1.7%2"),
            (
                MappingAction::CloseChannel { channel: group() },
                "close-channel 224.0.0.1:5350@192.168.1.7%2",
            ),
            (
                MappingAction::SendDatagram {
                    channel: CLIENT,
                    to: SocketAddr::new(ROUTER, 5351),
                    body: Bytes::from_static(&[0, 0]),
                },
                "send-datagram 192.168.1.7%2 192.168.1.1:5351 2 bytes",
            ),
            (
                MappingAction::Fetch(ask.clone()),
                "fetch f1 GET 192.168.1.1:5000 \"/root desc.xml\" from 192.168.1.7%2 within 5s",
            ),
            (
                MappingAction::Fetch(Fetch { path: "/ctl".into(), soap, ..ask }),
                "fetch f1 POST 192.168.1.1:5000 /ctl \
                 urn:schemas-upnp-org:service:WANIPConnection:1#AddPortMapping \
                 \"<s/>\" and 1 lines from 192.168.1.7%2 within 5s",
            ),
            (
                MappingAction::StoreLedger { ledger: Bytes::from_static(b"abc") },
                "store-ledger 3 bytes",
            ),
        ];
        for (action, line) in all {
            assert_eq!(scribe().action(&Action::Mapping(action)), line);
        }
    }

    #[test]
    fn every_notice_has_its_line() {
        let protocol = MappingProtocol::NatPmp;
        let lifetime = Some(Duration::from_secs(7_200));
        let lease = Lease { router: ROUTER, protocol, external: addr(9), lifetime };
        let mapping = |state, reason, lease| Notice::MappingChanged {
            internal: addr(2),
            mapping: Some(Mapping { internal: addr(2), state, reason, lease }),
        };
        let answered = |external| {
            Notice::GatewayAnswered(GatewayAnswer { router: ROUTER, protocol, external })
        };
        let all = [
            (
                mapping(MappingState::Granted, MappingReason::Granted, Some(lease)),
                "* mapped /ip4/44.0.0.2/tcp/4001 granted: granted; \
                 /ip4/44.0.0.9/tcp/4001 by nat-pmp at 192.168.1.1 for 7200 s",
            ),
            (
                mapping(MappingState::Failed, MappingReason::NoGateway, None),
                "* mapped /ip4/44.0.0.2/tcp/4001 failed: no gateway",
            ),
            (
                Notice::MappingChanged { internal: addr(2), mapping: None },
                "* mapped /ip4/44.0.0.2/tcp/4001 no more",
            ),
            (answered(None), "* gateway 192.168.1.1 nat-pmp"),
            (answered(Some(addr(9).ip)), "* gateway 192.168.1.1 nat-pmp external=44.0.0.9"),
        ];
        for (notice, line) in all {
            assert_eq!(scribe().action(&Action::Notify(notice)), line);
        }
    }
}
