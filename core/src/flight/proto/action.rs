//! Actions as they are hashed. They are never read back: a record holds their digest only.

use super::mapping::{GatewayAnswerMessage, MappingActionMessage, MappingMessage};
use super::punch::{PunchActionMessage, PunchNoticeMessage};
use super::relay::{RelayActionMessage, RelayNoticeMessage};
use super::step::Body;
use super::values::{AddrMessage, Numbered, Span, Stream, ip, number_or_0, peer, sources};
use crate::flight::mask::Mask;
use crate::{Class, Deadline, Notice, Reason};
use alloc::boxed::Box;
use alloc::vec::Vec;
use bytes::Bytes;

/// `portolan.flight.Action`
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::flight) struct ActionMessage {
    #[prost(oneof = "Action", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15")]
    action: Option<Action>,
}

/// `portolan.flight.Action.action`: the kinds of [`crate::Action`], and what follows the last one.
#[derive(Clone, PartialEq, prost::Oneof)]
enum Action {
    #[prost(message, tag = "1")]
    OpenStream(OpenStream),
    #[prost(message, tag = "2")]
    Send(Send),
    #[prost(message, tag = "3")]
    CloseStream(Stream),
    #[prost(message, tag = "4")]
    ResetStream(Stream),
    #[prost(message, tag = "5")]
    Dial(Dial),
    #[prost(uint64, tag = "6")]
    Disconnect(u64),
    #[prost(message, tag = "7")]
    Notify(NoticeMessage),
    #[prost(message, tag = "8")]
    Mapping(MappingActionMessage),
    #[prost(message, tag = "9")]
    Relay(RelayActionMessage),
    #[prost(message, tag = "10")]
    Punch(PunchActionMessage),
    #[prost(message, tag = "15")]
    Wake(WakeMessage),
}

/// `portolan.flight.Wake`
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct WakeMessage {
    #[prost(uint64, tag = "1")]
    at_nanos: u64,
    #[prost(uint32, tag = "2")]
    why: u32,
}

/// `portolan.flight.OpenStream`
#[derive(Clone, PartialEq, prost::Message)]
struct OpenStream {
    #[prost(uint64, tag = "1")]
    conn: u64,
    #[prost(message, optional, tag = "2")]
    stream: Option<Stream>,
}

/// `portolan.flight.Send`
#[derive(Clone, PartialEq, prost::Message)]
struct Send {
    #[prost(message, optional, tag = "1")]
    stream: Option<Stream>,
    #[prost(message, optional, tag = "2")]
    body: Option<Body>,
}

/// `portolan.flight.Dial`
#[derive(Clone, PartialEq, prost::Message)]
struct Dial {
    #[prost(uint64, tag = "1")]
    dial: u64,
    #[prost(message, optional, tag = "2")]
    addr: Option<AddrMessage>,
    #[prost(bytes = "bytes", optional, tag = "3")]
    source: Option<Bytes>,
    #[prost(message, optional, tag = "4")]
    timeout: Option<Span>,
}

/// `portolan.flight.Notice`: the kind, and those of the fields that it has.
#[derive(Clone, PartialEq, prost::Message)]
struct NoticeMessage {
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(message, optional, tag = "2")]
    addr: Option<AddrMessage>,
    #[prost(bytes = "bytes", tag = "3")]
    peer: Bytes,
    #[prost(uint64, optional, tag = "4")]
    conn: Option<u64>,
    #[prost(message, optional, tag = "5")]
    class: Option<ClassMessage>,
    /// The number of a state, an outcome, a mapping, an answer, an oddity, or a set of sources.
    #[prost(uint32, tag = "6")]
    value: u32,
    #[prost(uint32, tag = "7")]
    scope: u32,
    #[prost(message, optional, tag = "8")]
    reason: Option<ReasonMessage>,
    #[prost(bool, tag = "9")]
    flag: bool,
    #[prost(message, repeated, tag = "10")]
    added: Vec<AddrMessage>,
    #[prost(message, repeated, tag = "11")]
    removed: Vec<AddrMessage>,
    #[prost(message, optional, boxed, tag = "12")]
    mapping: Option<Box<MappingMessage>>,
    #[prost(message, optional, tag = "13")]
    gateway: Option<GatewayAnswerMessage>,
    #[prost(message, optional, boxed, tag = "14")]
    relay: Option<Box<RelayNoticeMessage>>,
    #[prost(message, optional, boxed, tag = "15")]
    punch: Option<Box<PunchNoticeMessage>>,
}

/// `portolan.flight.Class`
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct ClassMessage {
    #[prost(uint32, tag = "1")]
    family: u32,
    #[prost(uint32, tag = "2")]
    transport: u32,
}

/// `portolan.flight.Reason`
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct ReasonMessage {
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(uint32, tag = "2")]
    servers: u32,
    #[prost(bool, tag = "3")]
    provisional: bool,
}

/// The message for an action. With a mask, nonces are replaced.
pub(in crate::flight) fn encoded(action: &crate::Action, mask: Option<&Mask>) -> ActionMessage {
    let action = match action {
        crate::Action::OpenStream { conn, stream } => {
            Action::OpenStream(OpenStream { conn: conn.0, stream: Some((*stream).into()) })
        }
        crate::Action::Send { stream, body } => Action::Send(Send {
            stream: Some((*stream).into()),
            body: Some(Body::new(*stream, body, mask)),
        }),
        crate::Action::CloseStream { stream } => Action::CloseStream((*stream).into()),
        crate::Action::ResetStream { stream } => Action::ResetStream((*stream).into()),
        crate::Action::Dial(crate::Dial { dial, addr, source, timeout }) => Action::Dial(Dial {
            dial: dial.0,
            addr: Some((*addr).into()),
            source: source.map(ip),
            timeout: Some((*timeout).into()),
        }),
        crate::Action::Disconnect { conn } => Action::Disconnect(conn.0),
        crate::Action::Mapping(action) => Action::Mapping(action.into()),
        crate::Action::Relay(action) => Action::Relay(action.into()),
        crate::Action::Punch(action) => Action::Punch(action.into()),
        crate::Action::Notify(notice) => Action::Notify(notice.into()),
    };
    ActionMessage { action: Some(action) }
}

/// The message for a deadline.
pub(in crate::flight) fn wake(deadline: Deadline) -> ActionMessage {
    let Deadline { at, wake } = deadline;
    let wake = WakeMessage { at_nanos: at.as_nanos(), why: wake.number() };
    ActionMessage { action: Some(Action::Wake(wake)) }
}

impl From<&Notice> for NoticeMessage {
    fn from(notice: &Notice) -> NoticeMessage {
        let of = |kind| NoticeMessage { kind, ..NoticeMessage::default() };
        match notice {
            Notice::CandidateChanged { addr, sources: from } => {
                NoticeMessage { addr: Some((*addr).into()), value: sources(*from), ..of(1) }
            }
            Notice::VerdictChanged { addr, state, scope, reason } => NoticeMessage {
                addr: Some((*addr).into()),
                value: state.number(),
                scope: number_or_0(*scope),
                reason: Some((*reason).into()),
                ..of(2)
            },
            Notice::ClassChanged { class, state, reason } => NoticeMessage {
                class: Some((*class).into()),
                value: state.number(),
                reason: Some((*reason).into()),
                ..of(3)
            },
            Notice::NodeChanged { state, reason } => {
                NoticeMessage { value: state.number(), reason: Some((*reason).into()), ..of(4) }
            }
            Notice::RoleChanged { may_serve } => NoticeMessage { flag: *may_serve, ..of(5) },
            Notice::MappingInferred { class, mapping, provisional } => NoticeMessage {
                class: Some((*class).into()),
                value: mapping.number(),
                flag: *provisional,
                ..of(6)
            },
            // What it says it is, stands in the frame that said it.
            Notice::Identified { conn, peer: who, observed, server, agent: _ } => NoticeMessage {
                conn: Some(conn.0),
                peer: peer(*who),
                addr: observed.map(AddrMessage::from),
                flag: *server,
                ..of(7)
            },
            Notice::NotIdentified { conn, peer } => {
                NoticeMessage { conn: Some(conn.0), ..told(8, peer, 0) }
            }
            Notice::ProbeEnded { peer, addr, outcome } => {
                NoticeMessage { addr: Some((*addr).into()), ..told(9, peer, outcome.number()) }
            }
            Notice::ServerDistrusted { peer } => told(10, peer, 0),
            Notice::AdvertisedChanged { added, removed } => NoticeMessage {
                added: added.iter().copied().map(AddrMessage::from).collect(),
                removed: removed.iter().copied().map(AddrMessage::from).collect(),
                ..of(11)
            },
            Notice::DialBackServed { peer, addr, answer, .. } => {
                let addr = addr.map(AddrMessage::from);
                NoticeMessage { addr, ..told(12, peer, answer.number()) }
            }
            Notice::Ignored { oddity, conn } => {
                NoticeMessage { value: oddity.number(), conn: conn.map(|conn| conn.0), ..of(13) }
            }
            Notice::MappingChanged { internal, mapping } => NoticeMessage {
                addr: Some((*internal).into()),
                mapping: mapping.as_ref().map(|mapping| Box::new(mapping.into())),
                ..of(14)
            },
            Notice::GatewayAnswered(answer) => {
                NoticeMessage { gateway: Some((*answer).into()), ..of(15) }
            }
            Notice::Relay(notice) => NoticeMessage { relay: boxed(notice), ..of(16) },
            Notice::Punch(notice) => NoticeMessage { punch: boxed(notice), ..of(17) },
            Notice::HearsayHeard { peer, answer } => told(18, peer, answer.number()),
            Notice::FullyConnected { peer } => told(20, peer, 0),
        }
    }
}

/// What is told of a peer, by a number.
fn told(kind: u32, who: &crate::PeerId, value: u32) -> NoticeMessage {
    NoticeMessage { kind, peer: peer(*who), value, ..NoticeMessage::default() }
}

fn boxed<'a, News, Message: From<&'a News>>(news: &'a News) -> Option<Box<Message>> {
    Some(Box::new(news.into()))
}

impl From<Class> for ClassMessage {
    fn from(class: Class) -> ClassMessage {
        let Class { family, transport } = class;
        ClassMessage { family: family.number(), transport: transport.number() }
    }
}

impl From<Reason> for ReasonMessage {
    fn from(reason: Reason) -> ReasonMessage {
        let of = |kind| ReasonMessage { kind, ..ReasonMessage::default() };
        match reason {
            Reason::ProvedByStranger => of(1),
            Reason::StrangerConnected => of(2),
            Reason::ProvedByContacted => of(3),
            Reason::StrangersRefused => of(4),
            Reason::PresumedOpen => of(5),
            Reason::DialFailed { servers } => ReasonMessage { servers: servers.into(), ..of(6) },
            Reason::Probing => of(7),
            Reason::NoServers => of(8),
            Reason::ServersRefused => of(9),
            Reason::ServersUnhelpful => of(10),
            Reason::ServersDistrusted => of(11),
            Reason::Expired => of(12),
            Reason::EndpointDependentMapping { provisional } => {
                ReasonMessage { provisional, ..of(13) }
            }
            Reason::NoCandidates => of(14),
            Reason::Forced => of(15),
            Reason::NotListening => of(16),
            Reason::JustStarted => of(17),
            Reason::Hearsay => of(18),
        }
    }
}
