//! Events, actions and notices about relays and circuits.

use super::Unknown;
use super::values::{AddrMessage, Numbered, Span, Stream, optional, peer, peer_id, required};
use crate::{
    BridgeEnd, CircuitAddr, CircuitFailure, CircuitId, CircuitLimit, ConnId, DialFailure, Relay,
    RelayAction, RelayEvent, RelayFailure, RelayNotice,
};
use alloc::vec::Vec;
use bytes::Bytes;

/// `portolan.flight.RelayEvent`
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RelayEventMessage {
    #[prost(oneof = "Event", tags = "1, 2, 3, 4, 5, 6")]
    event: Option<Event>,
}

/// `portolan.flight.RelayEvent.event`: the kinds of [`RelayEvent`].
#[derive(Clone, PartialEq, prost::Oneof)]
enum Event {
    #[prost(message, tag = "1")]
    CircuitWanted(CircuitWanted),
    #[prost(uint64, tag = "2")]
    CircuitForgotten(u64),
    #[prost(message, tag = "3")]
    ConnectFailed(ConnectFailed),
    #[prost(message, tag = "4")]
    UpgradeFailed(Stream),
    #[prost(message, tag = "5")]
    BridgeEnded(BridgeEnded),
    #[prost(message, tag = "6")]
    Draining(()),
}

/// `portolan.flight.CircuitWanted`
#[derive(Clone, PartialEq, prost::Message)]
struct CircuitWanted {
    #[prost(uint64, tag = "1")]
    circuit: u64,
    #[prost(uint64, tag = "2")]
    conn: u64,
    #[prost(bytes = "bytes", tag = "3")]
    peer: Bytes,
}

/// `portolan.flight.ConnectFailed`
#[derive(Clone, PartialEq, prost::Message)]
struct ConnectFailed {
    #[prost(bytes = "bytes", tag = "1")]
    peer: Bytes,
    #[prost(message, optional, tag = "2")]
    addr: Option<AddrMessage>,
    #[prost(uint32, tag = "3")]
    reason: u32,
}

/// `portolan.flight.BridgeEnded`
#[derive(Clone, PartialEq, prost::Message)]
struct BridgeEnded {
    #[prost(message, optional, tag = "1")]
    stream: Option<Stream>,
    #[prost(uint32, tag = "2")]
    end: u32,
    #[prost(uint64, tag = "3")]
    forth: u64,
    #[prost(uint64, tag = "4")]
    back: u64,
}

/// `portolan.flight.RelayAction`
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RelayActionMessage {
    #[prost(oneof = "Action", tags = "1, 2, 3, 4, 5")]
    action: Option<Action>,
}

/// `portolan.flight.RelayAction.action`: the kinds of [`RelayAction`].
#[derive(Clone, PartialEq, prost::Oneof)]
enum Action {
    #[prost(message, tag = "1")]
    Connect(Connect),
    #[prost(message, tag = "2")]
    Upgrade(Upgrade),
    #[prost(message, tag = "3")]
    CircuitFailed(CircuitFailed),
    #[prost(message, tag = "4")]
    Bridge(Bridge),
    #[prost(message, tag = "5")]
    Cut(Stream),
}

/// `portolan.flight.Connect`
#[derive(Clone, PartialEq, prost::Message)]
struct Connect {
    #[prost(bytes = "bytes", tag = "1")]
    peer: Bytes,
    #[prost(message, optional, tag = "2")]
    addr: Option<AddrMessage>,
}

/// `portolan.flight.Upgrade`
#[derive(Clone, PartialEq, prost::Message)]
struct Upgrade {
    #[prost(message, optional, tag = "1")]
    stream: Option<Stream>,
    #[prost(bytes = "bytes", tag = "2")]
    peer: Bytes,
    #[prost(uint64, optional, tag = "3")]
    circuit: Option<u64>,
    #[prost(message, optional, tag = "4")]
    limit: Option<CircuitLimitMessage>,
}

/// `portolan.flight.CircuitLimit`
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CircuitLimitMessage {
    #[prost(message, optional, tag = "1")]
    duration: Option<Span>,
    #[prost(uint64, optional, tag = "2")]
    bytes: Option<u64>,
}

/// `portolan.flight.CircuitFailed`
#[derive(Clone, PartialEq, prost::Message)]
struct CircuitFailed {
    #[prost(uint64, tag = "1")]
    circuit: u64,
    #[prost(message, optional, tag = "2")]
    reason: Option<CircuitFailureMessage>,
}

/// `portolan.flight.CircuitFailure`: the kind, and the code of a relay that refused.
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct CircuitFailureMessage {
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(sint32, tag = "2")]
    status: i32,
}

/// `portolan.flight.Bridge`
#[derive(Clone, PartialEq, prost::Message)]
struct Bridge {
    #[prost(message, optional, tag = "1")]
    stream: Option<Stream>,
    #[prost(message, optional, tag = "2")]
    target: Option<Stream>,
    #[prost(uint64, optional, tag = "3")]
    bytes_max: Option<u64>,
}

/// `portolan.flight.RelayNotice`
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RelayNoticeMessage {
    #[prost(oneof = "Notice", tags = "1, 2, 3, 4, 5, 6, 7, 8")]
    notice: Option<Notice>,
}

/// `portolan.flight.RelayNotice.notice`: the kinds of [`RelayNotice`].
#[derive(Clone, PartialEq, prost::Oneof)]
enum Notice {
    #[prost(bool, tag = "1")]
    NeedChanged(bool),
    #[prost(message, tag = "2")]
    Changed(RelayMessage),
    #[prost(message, tag = "3")]
    CircuitAddrsChanged(CircuitAddrs),
    #[prost(message, tag = "4")]
    Granted(Granted),
    #[prost(message, tag = "5")]
    Refused(Refused),
    #[prost(bytes = "bytes", tag = "6")]
    ReservationEnded(Bytes),
    #[prost(message, tag = "7")]
    BridgeOpened(BridgeOpened),
    #[prost(message, tag = "8")]
    BridgeEnded(BridgeOver),
}

/// `portolan.flight.Relay`
#[derive(Clone, PartialEq, prost::Message)]
struct RelayMessage {
    #[prost(bytes = "bytes", tag = "1")]
    peer: Bytes,
    #[prost(uint32, tag = "2")]
    state: u32,
    #[prost(message, optional, tag = "3")]
    failure: Option<RelayFailureMessage>,
    #[prost(message, optional, tag = "4")]
    rtt: Option<Span>,
    #[prost(uint32, optional, tag = "5")]
    load: Option<u32>,
    #[prost(uint64, optional, tag = "6")]
    until_nanos: Option<u64>,
    #[prost(message, optional, tag = "7")]
    limit: Option<CircuitLimitMessage>,
    #[prost(message, repeated, tag = "8")]
    addrs: Vec<AddrMessage>,
}

/// `portolan.flight.RelayFailure`: the kind, and how a dial failed.
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct RelayFailureMessage {
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(uint32, tag = "2")]
    dial: u32,
}

/// `portolan.flight.CircuitAddrs`
#[derive(Clone, PartialEq, prost::Message)]
struct CircuitAddrs {
    #[prost(message, repeated, tag = "1")]
    added: Vec<CircuitAddrMessage>,
    #[prost(message, repeated, tag = "2")]
    removed: Vec<CircuitAddrMessage>,
}

/// `portolan.flight.CircuitAddr`
#[derive(Clone, PartialEq, prost::Message)]
struct CircuitAddrMessage {
    #[prost(bytes = "bytes", tag = "1")]
    relay: Bytes,
    #[prost(message, optional, tag = "2")]
    addr: Option<AddrMessage>,
}

/// `portolan.flight.Granted`
#[derive(Clone, PartialEq, prost::Message)]
struct Granted {
    #[prost(bytes = "bytes", tag = "1")]
    peer: Bytes,
    #[prost(bool, tag = "2")]
    renewed: bool,
}

/// `portolan.flight.Refused`
#[derive(Clone, PartialEq, prost::Message)]
struct Refused {
    #[prost(bytes = "bytes", tag = "1")]
    peer: Bytes,
    #[prost(bytes = "bytes", optional, tag = "2")]
    target: Option<Bytes>,
    #[prost(sint32, tag = "3")]
    status: i32,
}

/// `portolan.flight.BridgeOpened`
#[derive(Clone, PartialEq, prost::Message)]
struct BridgeOpened {
    #[prost(bytes = "bytes", tag = "1")]
    initiator: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    target: Bytes,
}

/// `portolan.flight.BridgeOver`
#[derive(Clone, PartialEq, prost::Message)]
struct BridgeOver {
    #[prost(bytes = "bytes", tag = "1")]
    initiator: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    target: Bytes,
    #[prost(uint32, tag = "3")]
    end: u32,
    #[prost(bool, tag = "4")]
    overtime: bool,
    #[prost(uint64, tag = "5")]
    forth: u64,
    #[prost(uint64, tag = "6")]
    back: u64,
}

impl From<&RelayEvent> for RelayEventMessage {
    fn from(event: &RelayEvent) -> RelayEventMessage {
        let event = match event {
            RelayEvent::CircuitWanted { circuit, conn, peer: who } => {
                let (circuit, conn) = (circuit.0, conn.0);
                Event::CircuitWanted(CircuitWanted { circuit, conn, peer: peer(*who) })
            }
            RelayEvent::CircuitForgotten { circuit } => Event::CircuitForgotten(circuit.0),
            RelayEvent::ConnectFailed { peer: who, addr, reason } => {
                Event::ConnectFailed(ConnectFailed {
                    peer: peer(*who),
                    addr: Some((*addr).into()),
                    reason: reason.number(),
                })
            }
            RelayEvent::UpgradeFailed { stream } => Event::UpgradeFailed((*stream).into()),
            RelayEvent::BridgeEnded { stream, end, forth, back } => {
                Event::BridgeEnded(BridgeEnded {
                    stream: Some((*stream).into()),
                    end: end.number(),
                    forth: *forth,
                    back: *back,
                })
            }
            RelayEvent::Draining => Event::Draining(()),
        };
        RelayEventMessage { event: Some(event) }
    }
}

impl TryFrom<RelayEventMessage> for RelayEvent {
    type Error = Unknown;

    fn try_from(message: RelayEventMessage) -> Result<RelayEvent, Unknown> {
        let event = message.event.ok_or(Unknown("an event of relays that is not known"))?;
        Ok(match event {
            Event::CircuitWanted(CircuitWanted { circuit, conn, peer }) => {
                RelayEvent::CircuitWanted {
                    circuit: CircuitId(circuit),
                    conn: ConnId(conn),
                    peer: peer_id(&peer)?,
                }
            }
            Event::CircuitForgotten(circuit) => {
                RelayEvent::CircuitForgotten { circuit: CircuitId(circuit) }
            }
            Event::ConnectFailed(ConnectFailed { peer, addr, reason }) => {
                RelayEvent::ConnectFailed {
                    peer: peer_id(&peer)?,
                    addr: required(addr)?,
                    reason: DialFailure::numbered(reason, "a failure to dial that is not known")?,
                }
            }
            Event::UpgradeFailed(stream) => {
                RelayEvent::UpgradeFailed { stream: stream.try_into()? }
            }
            Event::BridgeEnded(BridgeEnded { stream, end, forth, back }) => {
                RelayEvent::BridgeEnded {
                    stream: required(stream)?,
                    end: BridgeEnd::numbered(end, "a bridge's end that is not known")?,
                    forth,
                    back,
                }
            }
            Event::Draining(()) => RelayEvent::Draining,
        })
    }
}

impl From<&RelayAction> for RelayActionMessage {
    fn from(action: &RelayAction) -> RelayActionMessage {
        let action = match action {
            RelayAction::Connect { peer: who, addr } => {
                Action::Connect(Connect { peer: peer(*who), addr: Some((*addr).into()) })
            }
            RelayAction::Upgrade { stream, peer: who, circuit, limit } => {
                Action::Upgrade(Upgrade {
                    stream: Some((*stream).into()),
                    peer: peer(*who),
                    circuit: circuit.map(|circuit| circuit.0),
                    limit: Some((*limit).into()),
                })
            }
            RelayAction::CircuitFailed { circuit, reason } => {
                let reason = Some((*reason).into());
                Action::CircuitFailed(CircuitFailed { circuit: circuit.0, reason })
            }
            RelayAction::Bridge { stream, target, bytes_max } => Action::Bridge(Bridge {
                stream: Some((*stream).into()),
                target: Some((*target).into()),
                bytes_max: *bytes_max,
            }),
            RelayAction::Cut { stream } => Action::Cut((*stream).into()),
        };
        RelayActionMessage { action: Some(action) }
    }
}

impl From<CircuitLimit> for CircuitLimitMessage {
    fn from(limit: CircuitLimit) -> CircuitLimitMessage {
        let CircuitLimit { duration, bytes } = limit;
        CircuitLimitMessage { duration: duration.map(Span::from), bytes }
    }
}

impl TryFrom<CircuitLimitMessage> for CircuitLimit {
    type Error = Unknown;

    fn try_from(message: CircuitLimitMessage) -> Result<CircuitLimit, Unknown> {
        let CircuitLimitMessage { duration, bytes } = message;
        Ok(CircuitLimit { duration: optional(duration)?, bytes })
    }
}

impl From<CircuitFailure> for CircuitFailureMessage {
    fn from(reason: CircuitFailure) -> CircuitFailureMessage {
        let of = |kind| CircuitFailureMessage { kind, status: 0 };
        match reason {
            CircuitFailure::Refused(status) => {
                CircuitFailureMessage { status: status.code(), ..of(1) }
            }
            CircuitFailure::TimedOut => of(2),
            CircuitFailure::Unsupported => of(3),
            CircuitFailure::NoRelay => of(4),
            CircuitFailure::BadAnswer => of(5),
            CircuitFailure::TooMany => of(6),
        }
    }
}

impl From<RelayFailure> for RelayFailureMessage {
    fn from(failure: RelayFailure) -> RelayFailureMessage {
        let of = |kind| RelayFailureMessage { kind, dial: 0 };
        match failure {
            RelayFailure::Unreachable(how) => RelayFailureMessage { dial: how.number(), ..of(1) },
            RelayFailure::Unsupported => of(2),
            RelayFailure::TimedOut => of(3),
            RelayFailure::Full => of(4),
            RelayFailure::Denied => of(5),
            RelayFailure::BadAnswer => of(6),
            RelayFailure::BadVoucher => of(7),
            RelayFailure::Disconnected => of(8),
        }
    }
}

impl From<&RelayNotice> for RelayNoticeMessage {
    fn from(notice: &RelayNotice) -> RelayNoticeMessage {
        let notice = match notice {
            RelayNotice::NeedChanged { needed } => Notice::NeedChanged(*needed),
            RelayNotice::Changed(relay) => Notice::Changed(relay.into()),
            RelayNotice::CircuitAddrsChanged { added, removed } => {
                Notice::CircuitAddrsChanged(CircuitAddrs {
                    added: added.iter().map(CircuitAddrMessage::from).collect(),
                    removed: removed.iter().map(CircuitAddrMessage::from).collect(),
                })
            }
            RelayNotice::Granted { peer: who, renewed } => {
                Notice::Granted(Granted { peer: peer(*who), renewed: *renewed })
            }
            RelayNotice::Refused { peer: who, target, status } => Notice::Refused(Refused {
                peer: peer(*who),
                target: target.map(peer),
                status: status.code(),
            }),
            RelayNotice::ReservationEnded { peer: who } => Notice::ReservationEnded(peer(*who)),
            RelayNotice::BridgeOpened { initiator, target } => {
                let (initiator, target) = (peer(*initiator), peer(*target));
                Notice::BridgeOpened(BridgeOpened { initiator, target })
            }
            RelayNotice::BridgeEnded { initiator, target, end, overtime, forth, back } => {
                Notice::BridgeEnded(BridgeOver {
                    initiator: peer(*initiator),
                    target: peer(*target),
                    end: end.number(),
                    overtime: *overtime,
                    forth: *forth,
                    back: *back,
                })
            }
        };
        RelayNoticeMessage { notice: Some(notice) }
    }
}

impl From<&Relay> for RelayMessage {
    fn from(relay: &Relay) -> RelayMessage {
        let Relay { peer: who, state, failure, rtt, load, until, limit, addrs } = relay;
        RelayMessage {
            peer: peer(*who),
            state: state.number(),
            failure: failure.map(RelayFailureMessage::from),
            rtt: rtt.map(Span::from),
            load: load.map(u32::from),
            until_nanos: until.map(|until| until.as_nanos()),
            limit: Some((*limit).into()),
            addrs: addrs.iter().copied().map(AddrMessage::from).collect(),
        }
    }
}

impl From<&CircuitAddr> for CircuitAddrMessage {
    fn from(addr: &CircuitAddr) -> CircuitAddrMessage {
        let CircuitAddr { relay, addr } = *addr;
        CircuitAddrMessage { relay: peer(relay), addr: Some(addr.into()) }
    }
}
