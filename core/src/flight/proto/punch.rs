//! Events, actions and notices about hole punching.

use super::Unknown;
use super::values::{AddrMessage, Numbered, Span, peer};
use crate::{ConnId, DialFailure, PunchAction, PunchEvent, PunchId, PunchNotice};
use bytes::Bytes;

/// `portolan.flight.PunchEvent`
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PunchEventMessage {
    #[prost(oneof = "Event", tags = "1, 2")]
    event: Option<Event>,
}

/// `portolan.flight.PunchEvent.event`: the kinds of [`PunchEvent`].
#[derive(Clone, PartialEq, prost::Oneof)]
enum Event {
    #[prost(message, tag = "1")]
    Failed(PunchFailed),
    #[prost(uint64, tag = "2")]
    Broke(u64),
}

/// `portolan.flight.PunchFailed`
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct PunchFailed {
    #[prost(uint64, tag = "1")]
    punch: u64,
    #[prost(uint32, tag = "2")]
    reason: u32,
}

/// `portolan.flight.PunchAction`
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PunchActionMessage {
    #[prost(oneof = "Action", tags = "1, 2, 3")]
    action: Option<Action>,
}

/// `portolan.flight.PunchAction.action`: the kinds of [`PunchAction`].
#[derive(Clone, PartialEq, prost::Oneof)]
enum Action {
    #[prost(message, tag = "1")]
    Dial(PunchDial),
    #[prost(uint64, tag = "2")]
    Cancel(u64),
    #[prost(message, tag = "3")]
    CallAgain(PunchCall),
}

/// `portolan.flight.PunchCall`
#[derive(Clone, PartialEq, prost::Message)]
struct PunchCall {
    #[prost(bytes = "bytes", tag = "1")]
    peer: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    relay: Bytes,
    #[prost(message, optional, tag = "3")]
    addr: Option<AddrMessage>,
}

/// `portolan.flight.PunchDial`
#[derive(Clone, PartialEq, prost::Message)]
struct PunchDial {
    #[prost(uint64, tag = "1")]
    punch: u64,
    #[prost(bytes = "bytes", tag = "2")]
    peer: Bytes,
    #[prost(message, optional, tag = "3")]
    addr: Option<AddrMessage>,
    #[prost(uint32, tag = "4")]
    way: u32,
    #[prost(message, optional, tag = "5")]
    timeout: Option<Span>,
}

/// `portolan.flight.PunchNotice`: the kind, and what it tells.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PunchNoticeMessage {
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(bytes = "bytes", tag = "2")]
    peer: Bytes,
    #[prost(uint64, tag = "3")]
    conn: u64,
    #[prost(uint32, tag = "4")]
    attempts: u32,
    #[prost(message, optional, tag = "5")]
    addr: Option<AddrMessage>,
    #[prost(message, optional, tag = "6")]
    took: Option<Span>,
    #[prost(uint32, tag = "7")]
    reason: u32,
    #[prost(uint32, tag = "8")]
    family: u32,
    #[prost(uint32, tag = "9")]
    transport: u32,
}

impl From<&PunchEvent> for PunchEventMessage {
    fn from(event: &PunchEvent) -> PunchEventMessage {
        let event = match event {
            PunchEvent::Failed { punch, reason } => {
                Event::Failed(PunchFailed { punch: punch.0, reason: reason.number() })
            }
            PunchEvent::Broke { conn } => Event::Broke(conn.0),
        };
        PunchEventMessage { event: Some(event) }
    }
}

impl TryFrom<PunchEventMessage> for PunchEvent {
    type Error = Unknown;

    fn try_from(message: PunchEventMessage) -> Result<PunchEvent, Unknown> {
        match message.event.ok_or(Unknown("an event of punching of no kind"))? {
            Event::Failed(PunchFailed { punch, reason }) => Ok(PunchEvent::Failed {
                punch: PunchId(punch),
                reason: DialFailure::numbered(reason, "a dial failure that is not known")?,
            }),
            Event::Broke(conn) => Ok(PunchEvent::Broke { conn: ConnId(conn) }),
        }
    }
}

impl From<&PunchAction> for PunchActionMessage {
    fn from(action: &PunchAction) -> PunchActionMessage {
        let action = match action {
            PunchAction::Dial { punch, peer: who, addr, way, timeout } => Action::Dial(PunchDial {
                punch: punch.0,
                peer: peer(*who),
                addr: Some((*addr).into()),
                way: way.number(),
                timeout: Some((*timeout).into()),
            }),
            PunchAction::Cancel { punch } => Action::Cancel(punch.0),
            PunchAction::CallAgain { peer: who, relay, addr } => Action::CallAgain(PunchCall {
                peer: peer(*who),
                relay: peer(*relay),
                addr: Some((*addr).into()),
            }),
        };
        PunchActionMessage { action: Some(action) }
    }
}

impl From<&PunchNotice> for PunchNoticeMessage {
    fn from(notice: &PunchNotice) -> PunchNoticeMessage {
        let of = |kind| PunchNoticeMessage { kind, ..PunchNoticeMessage::default() };
        match notice {
            PunchNotice::Attempted { peer: who, circuit, attempt } => PunchNoticeMessage {
                peer: peer(*who),
                conn: circuit.0,
                attempts: (*attempt).into(),
                ..of(1)
            },
            PunchNotice::Connected { peer: who, conn, addr, attempts, took } => {
                PunchNoticeMessage {
                    peer: peer(*who),
                    conn: conn.0,
                    addr: Some((*addr).into()),
                    attempts: (*attempts).into(),
                    took: Some((*took).into()),
                    ..of(2)
                }
            }
            PunchNotice::Failed { peer: who, reason, attempts, class } => PunchNoticeMessage {
                peer: peer(*who),
                reason: reason.number(),
                attempts: (*attempts).into(),
                family: class.map_or(0, |class| class.family.number()),
                transport: class.map_or(0, |class| class.transport.number()),
                ..of(3)
            },
        }
    }
}
