//! What routers say in a story: anything at all, and now and then what could be an answer.

use super::books::Books;
use super::facts::Facts;
use bytes::Bytes;
use portolan_core::{Channel, Event, FetchFailure, FetchId, Gateway, MappingAction, MappingEvent};
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// Datagrams remembered, number.
const SENT_MAX: usize = 64;
/// Ports of routers, those of the protocols and another.
const PORTS: [u16; 4] = [5_351, 5_350, 1_900, 80];
/// How texts begin that routers send.
const TEXTS: [&[u8]; 4] = [
    b"HTTP/1.1 200 OK\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\nLOCATION: http://192.168.1.1:5000/d.xml\r\n\r\n",
    b"NOTIFY * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nNTS: ssdp:alive\r\n\r\n",
    b"<?xml version=\"1.0\"?><root><device><deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType></device></root>",
    b"<s:Envelope><s:Body><u:GetExternalIPAddressResponse><NewExternalIPAddress>44.0.0.2</NewExternalIPAddress></u:GetExternalIPAddressResponse></s:Body></s:Envelope>",
];

/// What was ordered of routers.
#[derive(Clone, Debug, Default)]
pub(super) struct Ordered {
    channels: BTreeSet<Channel>,
    sent: Vec<(Channel, SocketAddr, Bytes)>,
    fetches: BTreeSet<FetchId>,
    last_fetch: u64,
}

impl Ordered {
    /// A fact is about to be handed in.
    pub(super) fn happened(&mut self, event: &MappingEvent) {
        if let MappingEvent::Fetched { fetch, .. } | MappingEvent::FetchFailed { fetch, .. } = event
        {
            self.fetches.remove(fetch);
        }
    }

    /// An order came out: it must be one that a runtime can perform.
    pub(super) fn ordered(&mut self, action: &MappingAction) {
        match action {
            MappingAction::OpenChannel { channel } => {
                assert!(self.channels.insert(*channel), "{channel} is opened twice");
            }
            MappingAction::CloseChannel { channel } => {
                assert!(self.channels.remove(channel), "{channel} is closed, but is not open");
            }
            MappingAction::SendDatagram { channel, to, body } => {
                assert!(self.channels.contains(channel), "{channel} is not open");
                let Channel::Client { source, .. } = channel else {
                    panic!("{channel} only hears")
                };
                assert_eq!(source.is_ipv4(), to.is_ipv4(), "from {channel} to {to}");
                assert_ne!(to.port(), 0, "from {channel} to {to}");
                if self.sent.len() == SENT_MAX {
                    self.sent.remove(0);
                }
                self.sent.push((*channel, *to, body.clone()));
            }
            MappingAction::Fetch(order) => {
                assert!(order.fetch.0 > self.last_fetch, "{} is no fresh name", order.fetch);
                self.last_fetch = order.fetch.0;
                self.fetches.insert(order.fetch);
                assert_eq!(order.source.is_ipv4(), order.to.is_ipv4(), "{order:?}");
                assert!(order.to.port() != 0 && order.path.starts_with('/'), "{order:?}");
            }
            MappingAction::StoreLedger { .. } => {}
            other => panic!("{other:?} has no law yet"),
        }
    }
}

/// The next fact about routers, the one with this number.
pub(super) fn event(what: usize, facts: &mut Facts<'_>, books: &Books) -> Event {
    Event::Mapping(match what {
        0 | 1 => MappingEvent::GatewaysChanged {
            gateways: (0..facts.below(6)).map(|_| gateway(facts)).collect(),
        },
        2 | 3 => answer(facts, books),
        4 => MappingEvent::DatagramReceived {
            channel: channel(facts, books),
            from: socket(facts),
            body: body(facts),
        },
        5 => {
            let to = if facts.flag() { Some(socket(facts)) } else { None };
            MappingEvent::DatagramRefused { channel: channel(facts, books), to }
        }
        6 => {
            let status = [200, 500, 404, 0][facts.below(4)];
            MappingEvent::Fetched { fetch: fetch(facts, books), status, body: body(facts) }
        }
        7 => {
            let reasons = [
                FetchFailure::Refused,
                FetchFailure::TimedOut,
                FetchFailure::Malformed,
                FetchFailure::LocalFault,
            ];
            let reason = reasons[facts.below(4)];
            MappingEvent::FetchFailed { fetch: fetch(facts, books), reason }
        }
        _ if facts.flag() => MappingEvent::LedgerRead { ledger: body(facts) },
        _ => MappingEvent::Closing,
    })
}

fn gateway(facts: &mut Facts<'_>) -> Gateway {
    let (router, source) = (facts.ip(), facts.ip());
    Gateway { router, interface: u32::from(facts.byte() & 3), source }
}

/// What was sent comes back as an answer: with the bit of answers, as long as answers are, and
/// with some bytes of another value.
fn answer(facts: &mut Facts<'_>, books: &Books) -> MappingEvent {
    let Some((channel, to, asked)) = facts.pick(books.routers.sent.iter().cloned()) else {
        return MappingEvent::DatagramReceived {
            channel: channel(facts, books),
            from: socket(facts),
            body: Bytes::from_static(TEXTS[facts.below(4)]),
        };
    };
    let mut body = asked.to_vec();
    body.resize(asked.len().max([0, 8, 12, 16][facts.below(4)]), 0);
    if let Some(opcode) = body.get_mut(1) {
        *opcode |= 0x80;
    }
    for _ in 0..facts.below(4) {
        let (at, value) = (facts.below(body.len().clamp(1, 256)), facts.byte());
        if let Some(byte) = body.get_mut(at) {
            *byte = value;
        }
    }
    let from = if facts.byte() < 224 { to } else { socket(facts) };
    MappingEvent::DatagramReceived { channel, from, body: body.into() }
}

fn channel(facts: &mut Facts<'_>, books: &Books) -> Channel {
    let open = facts.pick(books.routers.channels.iter().copied());
    open.unwrap_or_else(|| {
        let (source, interface) = (facts.ip(), u32::from(facts.byte() & 3));
        if facts.flag() {
            Channel::Client { source, interface }
        } else {
            Channel::Group { group: socket(facts), source, interface }
        }
    })
}

fn fetch(facts: &mut Facts<'_>, books: &Books) -> FetchId {
    let known = facts.pick(books.routers.fetches.iter().copied());
    known.unwrap_or_else(|| FetchId(u64::from(facts.byte())))
}

fn socket(facts: &mut Facts<'_>) -> SocketAddr {
    let ip = facts.ip();
    SocketAddr::new(ip, PORTS[facts.below(4)])
}

/// Up to 2 KiB of anything.
fn body(facts: &mut Facts<'_>) -> Bytes {
    let begins = facts.byte();
    let text = TEXTS.get(usize::from(begins)).copied().unwrap_or_default();
    let blob = facts.blob();
    [text, &blob.repeat(1 + facts.below(7))].concat().into()
}
