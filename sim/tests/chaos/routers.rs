//! Routers that say anything at all, now and then something that could be an answer.

use crate::ops::{ip, pick};
use crate::world::World;
use bytes::Bytes;
use portolan_core::{
    Action, Channel, Event, FetchFailure, FetchId, Gateway, MappingAction, MappingEvent,
};
use proptest::collection::vec;
use proptest::prelude::*;
use std::net::SocketAddr;

/// Bytes of a datagram or a response that a router makes up, number.
const BODY_MAX: usize = 2_048;

/// One order about routers. Numbers point into whatever there is.
#[derive(Clone, Debug)]
pub(crate) enum RouterOp {
    Gateways(u8),
    Datagram {
        which: u8,
        from: u8,
        body: Vec<u8>,
    },
    /// What was sent comes back as an answer, with some bytes changed.
    Answer {
        which: u8,
        from: u8,
        changes: Vec<(u8, u8)>,
        len: u8,
    },
    Refused {
        which: u8,
        to: u8,
    },
    Fetched {
        which: u8,
        status: u16,
        body: Vec<u8>,
    },
    FetchFailed {
        which: u8,
        how: u8,
    },
    Ledger(Vec<u8>),
    Closing,
}

pub(crate) fn any_router_op() -> impl Strategy<Value = RouterOp> {
    let b = any::<u8>;
    let body = || prop_oneof![9 => vec(b(), 0..80), 1 => vec(b(), 0..BODY_MAX)];
    let text = "(HTTP/1.1 200 OK\r\n)?[ -~\r\n]{0,80}".prop_map(String::into_bytes);
    let status = prop_oneof![Just(200), Just(500), any::<u16>()];
    prop_oneof![
        6 => b().prop_map(RouterOp::Gateways),
        2 => (b(), b(), prop_oneof![body(), text.clone()])
            .prop_map(|(which, from, body)| RouterOp::Datagram { which, from, body }),
        6 => (b(), b(), vec((b(), b()), 0..4), b())
            .prop_map(|(which, from, changes, len)| RouterOp::Answer { which, from, changes, len }),
        2 => (b(), b()).prop_map(|(which, to)| RouterOp::Refused { which, to }),
        3 => (b(), status, prop_oneof![body(), text])
            .prop_map(|(which, status, body)| RouterOp::Fetched { which, status, body }),
        2 => (b(), b()).prop_map(|(which, how)| RouterOp::FetchFailed { which, how }),
        1 => body().prop_map(RouterOp::Ledger),
        1 => Just(RouterOp::Closing),
    ]
}

/// Every gateway there can be.
fn gateways() -> [Gateway; 6] {
    let of =
        |router, interface, source| Gateway { router: ip(router), interface, source: ip(source) };
    [
        of("192.168.1.1", 2, "192.168.1.2"),
        of("fe80::1", 2, "fe80::7"),
        of("10.0.0.1", 3, "10.0.0.2"),
        of("44.0.1.1", 4, "99.0.0.7"),
        of("2600:99::1", 4, "2600:99::7"),
        of("127.0.0.1", 1, "127.0.0.1"),
    ]
}

impl World {
    pub(crate) fn router(&mut self, op: RouterOp) {
        let event = match op {
            RouterOp::Gateways(mask) => {
                let up = |(n, _): &(usize, Gateway)| mask >> n & 1 == 1;
                let mut gateways: Vec<Gateway> =
                    gateways().into_iter().enumerate().filter(up).map(|(_, one)| one).collect();
                if mask >= 0x80 {
                    gateways.reverse();
                }
                MappingEvent::GatewaysChanged { gateways }
            }
            RouterOp::Datagram { which, from, body } => MappingEvent::DatagramReceived {
                channel: self.channel(which),
                from: socket(from),
                body: body.into(),
            },
            RouterOp::Answer { which, from, changes, len } => {
                let Some((channel, to, body)) = pick(self.told_routers.clone(), which) else {
                    return;
                };
                let from = if from < 200 { to } else { socket(from) };
                let body = answer(&body, &changes, len);
                MappingEvent::DatagramReceived { channel, from, body }
            }
            RouterOp::Refused { which, to } => {
                let to = (to < 200).then(|| socket(to));
                MappingEvent::DatagramRefused { channel: self.channel(which), to }
            }
            RouterOp::Fetched { which, status, body } => {
                MappingEvent::Fetched { fetch: self.fetch(which), status, body: body.into() }
            }
            RouterOp::FetchFailed { which, how } => {
                let reasons = [
                    FetchFailure::Refused,
                    FetchFailure::TimedOut,
                    FetchFailure::Malformed,
                    FetchFailure::LocalFault,
                ];
                let reason = reasons[usize::from(how % 4)];
                MappingEvent::FetchFailed { fetch: self.fetch(which), reason }
            }
            RouterOp::Ledger(ledger) => MappingEvent::LedgerRead { ledger: ledger.into() },
            RouterOp::Closing => MappingEvent::Closing,
        };
        self.step(Event::Mapping(event));
    }

    /// What an order changes in the books.
    pub(crate) fn obey_mapping(&mut self, action: &MappingAction) {
        let obeyed = self.routers.ordered(action);
        assert_eq!(obeyed, Ok(()), "{:?}", Action::Mapping(action.clone()));
        if let MappingAction::SendDatagram { channel, to, body } = action {
            // The newest alone are worth an answer.
            if self.told_routers.len() == 64 {
                self.told_routers.remove(0);
            }
            self.told_routers.push((*channel, *to, body.clone()));
        }
    }

    fn channel(&self, which: u8) -> Channel {
        let none = Channel::Client { source: ip("192.168.1.2"), interface: 2 };
        pick(self.routers.channels(), which).unwrap_or(none)
    }

    fn fetch(&self, which: u8) -> FetchId {
        let known = pick(self.routers.fetches(), which).filter(|_| which < 250);
        known.unwrap_or(FetchId(u64::from(which) + 1_000_000))
    }
}

fn socket(n: u8) -> SocketAddr {
    let routers = gateways();
    let port = [5_351, 5_350, 1_900, 80][usize::from(n >> 3) % 4];
    SocketAddr::new(routers[usize::from(n) % routers.len()].router, port)
}

/// A question with the bit of answers, as long as answers are, and some bytes of another value.
fn answer(asked: &[u8], changes: &[(u8, u8)], len: u8) -> Bytes {
    let mut body = asked.to_vec();
    match len % 4 {
        0 => body.resize(asked.len().max(16), 0),
        1 => body.resize(asked.len().max(12), 0),
        _ => {}
    }
    if let Some(opcode) = body.get_mut(1) {
        *opcode |= 0x80;
    }
    for (at, value) in changes {
        let len = body.len().max(1);
        if let Some(byte) = body.get_mut(usize::from(*at) % len) {
            *byte = *value;
        }
    }
    body.into()
}
