//! Every later frame: one fact, with what core drew and signed meanwhile.

use super::Unknown;
use super::mapping::MappingEventMessage;
use super::punch::PunchEventMessage;
use super::relay::RelayEventMessage;
use super::values::{
    AddrMessage, Numbered, Span, Stream, ip, ip_addr, ip_addrs, optional, peer, peer_id, present,
    protocol_set, protocols, required,
};
use crate::flight::{self, Drawn, body};
use crate::{
    ConnId, Connected, DialFailure, DialId, Instant, ListenerId, Side, StreamEnd, StreamFailure,
    StreamId, UnixTime,
};
use alloc::vec::Vec;
use bytes::Bytes;
use prost::Message as _;

/// `portolan.flight.Step`. The numbers up to 15 take a byte less than the others.
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::flight) struct Step {
    /// Nanoseconds since the previous step.
    #[prost(uint64, tag = "1")]
    pub(in crate::flight) elapsed: u64,
    /// Milliseconds by which the wall clock is ahead of what that makes of it.
    #[prost(sint64, tag = "2")]
    pub(in crate::flight) unix_off: i64,
    #[prost(fixed64, tag = "3")]
    digest: u64,
    #[prost(message, repeated, tag = "4")]
    drawn: Vec<DrawnMessage>,
    #[prost(bytes = "bytes", repeated, tag = "5")]
    signatures: Vec<Bytes>,
    /// The length of a step that was too long.
    #[prost(uint64, optional, tag = "6")]
    pub(in crate::flight) omitted: Option<u64>,
    #[prost(
        oneof = "Event",
        tags = "7, 8, 9, 10, 11, 12, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 30"
    )]
    event: Option<Event>,
}

/// `portolan.flight.Step.event`: the kinds of [`crate::Event`].
#[derive(Clone, PartialEq, prost::Oneof)]
enum Event {
    #[prost(message, tag = "7")]
    Tick(()),
    #[prost(message, tag = "8")]
    Frame(Frame),
    #[prost(message, tag = "9")]
    StreamOpened(StreamOpened),
    #[prost(message, tag = "10")]
    StreamClosed(StreamClosed),
    #[prost(message, tag = "11")]
    Connected(ConnectedMessage),
    #[prost(uint64, tag = "12")]
    Disconnected(u64),
    #[prost(message, tag = "16")]
    Resumed(Span),
    #[prost(message, tag = "17")]
    ListenerOpened(ListenerOpened),
    #[prost(uint64, tag = "18")]
    ListenerClosed(u64),
    #[prost(message, tag = "19")]
    InterfacesChanged(Interfaces),
    #[prost(bytes = "bytes", tag = "20")]
    Contacted(Bytes),
    #[prost(message, tag = "21")]
    DialFailed(DialFailed),
    #[prost(message, tag = "22")]
    StreamFailed(StreamFailed),
    #[prost(message, tag = "23")]
    Observed(Observed),
    #[prost(message, tag = "24")]
    ProtocolsListed(Protocols),
    #[prost(message, tag = "25")]
    DialFailureReported(AddrMessage),
    #[prost(message, tag = "26")]
    Mapping(MappingEventMessage),
    #[prost(message, tag = "27")]
    Relay(RelayEventMessage),
    #[prost(message, tag = "28")]
    Punch(PunchEventMessage),
    #[prost(message, tag = "30")]
    Introduced(Introduced),
}

/// `portolan.flight.Introduced`
#[derive(Clone, PartialEq, prost::Message)]
struct Introduced {
    #[prost(bytes = "bytes", tag = "1")]
    peer: Bytes,
    #[prost(uint32, tag = "2")]
    source: u32,
}

/// `portolan.flight.Drawn`: a nonce, or a number below a bound.
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct DrawnMessage {
    #[prost(fixed64, optional, tag = "1")]
    nonce: Option<u64>,
    #[prost(uint64, tag = "2")]
    bound: u64,
    #[prost(uint64, tag = "3")]
    value: u64,
}

/// `portolan.flight.Body`
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Body {
    #[prost(bytes = "bytes", tag = "1")]
    head: Bytes,
    #[prost(uint32, tag = "2")]
    zeros: u32,
    #[prost(bytes = "bytes", tag = "3")]
    tail: Bytes,
}

/// `portolan.flight.Frame`
#[derive(Clone, PartialEq, prost::Message)]
struct Frame {
    #[prost(message, optional, tag = "1")]
    stream: Option<Stream>,
    #[prost(message, optional, tag = "2")]
    body: Option<Body>,
}

/// `portolan.flight.StreamOpened`
#[derive(Clone, PartialEq, prost::Message)]
struct StreamOpened {
    #[prost(uint64, tag = "1")]
    conn: u64,
    #[prost(message, optional, tag = "2")]
    stream: Option<Stream>,
}

/// `portolan.flight.StreamClosed`
#[derive(Clone, PartialEq, prost::Message)]
struct StreamClosed {
    #[prost(message, optional, tag = "1")]
    stream: Option<Stream>,
    #[prost(uint32, tag = "2")]
    end: u32,
}

/// `portolan.flight.StreamFailed`
#[derive(Clone, PartialEq, prost::Message)]
struct StreamFailed {
    #[prost(message, optional, tag = "1")]
    stream: Option<Stream>,
    #[prost(uint32, tag = "2")]
    reason: u32,
}

/// `portolan.flight.Connected`
#[derive(Clone, PartialEq, prost::Message)]
struct ConnectedMessage {
    #[prost(uint64, tag = "1")]
    conn: u64,
    #[prost(bytes = "bytes", tag = "2")]
    peer: Bytes,
    #[prost(uint32, tag = "3")]
    side: u32,
    #[prost(message, optional, tag = "4")]
    local: Option<AddrMessage>,
    #[prost(message, optional, tag = "5")]
    remote: Option<AddrMessage>,
    #[prost(bool, tag = "6")]
    relayed: bool,
    #[prost(uint64, optional, tag = "7")]
    dial: Option<u64>,
    #[prost(message, optional, tag = "8")]
    rtt: Option<Span>,
}

/// `portolan.flight.ListenerOpened`
#[derive(Clone, PartialEq, prost::Message)]
struct ListenerOpened {
    #[prost(uint64, tag = "1")]
    listener: u64,
    #[prost(message, optional, tag = "2")]
    addr: Option<AddrMessage>,
}

/// `portolan.flight.Interfaces`
#[derive(Clone, PartialEq, prost::Message)]
struct Interfaces {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    ips: Vec<Bytes>,
}

/// `portolan.flight.DialFailed`
#[derive(Clone, PartialEq, prost::Message)]
struct DialFailed {
    #[prost(uint64, tag = "1")]
    dial: u64,
    #[prost(uint32, tag = "2")]
    reason: u32,
}

/// `portolan.flight.Observed`
#[derive(Clone, PartialEq, prost::Message)]
struct Observed {
    #[prost(uint64, tag = "1")]
    conn: u64,
    #[prost(message, optional, tag = "2")]
    observed: Option<AddrMessage>,
}

/// `portolan.flight.Protocols`
#[derive(Clone, PartialEq, prost::Message)]
struct Protocols {
    #[prost(uint64, tag = "1")]
    conn: u64,
    #[prost(uint32, tag = "2")]
    protocols: u32,
}

/// The message for a step, so long after the previous one.
pub(in crate::flight) fn encoded(step: &flight::Step, elapsed: u64, unix_off: i64) -> Step {
    Step {
        elapsed,
        unix_off,
        digest: step.digest,
        drawn: step.drawn.iter().copied().map(DrawnMessage::from).collect(),
        signatures: step.signatures.clone(),
        omitted: None,
        event: Some((&step.event).into()),
    }
}

/// The message that stands for a step of `len` bytes, which is too long.
pub(in crate::flight) fn omitted(elapsed: u64, unix_off: i64, len: usize) -> Step {
    let len = u64::try_from(len).unwrap_or(u64::MAX);
    Step { elapsed, unix_off, omitted: Some(len), ..Step::default() }
}

impl Step {
    /// The message in a payload.
    pub(in crate::flight) fn read(payload: Bytes) -> Result<Step, Unknown> {
        Ok(Step::decode(payload)?)
    }

    /// What the message says, at the moment that its reader has made out.
    pub(in crate::flight) fn decoded(
        self,
        now: Instant,
        unix: UnixTime,
    ) -> Result<flight::Step, Unknown> {
        Ok(flight::Step {
            now,
            unix,
            event: self.event.ok_or(Unknown("an event that is not known"))?.try_into()?,
            drawn: self.drawn.into_iter().map(Drawn::from).collect(),
            signatures: self.signatures,
            digest: self.digest,
        })
    }
}

impl From<Drawn> for DrawnMessage {
    fn from(drawn: Drawn) -> DrawnMessage {
        match drawn {
            Drawn::Below { n, value } => DrawnMessage { nonce: None, bound: n, value },
            Drawn::Nonce(nonce) => DrawnMessage { nonce: Some(nonce), bound: 0, value: 0 },
        }
    }
}

impl From<DrawnMessage> for Drawn {
    fn from(message: DrawnMessage) -> Drawn {
        let DrawnMessage { nonce, bound: n, value } = message;
        nonce.map_or(Drawn::Below { n, value }, Drawn::Nonce)
    }
}

impl Body {
    /// A body as it is kept: normal already, its longest run of zeros counted.
    pub(super) fn new(stream: StreamId, body: &Bytes, mask: Option<&flight::mask::Mask>) -> Body {
        Body::as_is(&body::normal(stream, body, mask))
    }

    /// A body that holds no nonces of ours and no dial data, its longest run of zeros counted.
    pub(super) fn as_is(body: &Bytes) -> Body {
        let (start, zeros) = body::zeros(body);
        Body {
            head: body.slice(..start),
            zeros: u32::try_from(zeros).unwrap_or(0),
            tail: body.slice(start + zeros..),
        }
    }

    pub(super) fn unpacked(&self) -> Result<Bytes, Unknown> {
        let zeros = usize::try_from(self.zeros).unwrap_or(usize::MAX);
        if zeros > body::ZEROS_MAX {
            return Err(Unknown("a body of too many zeros"));
        }
        Ok(body::unpacked(&self.head, zeros, &self.tail))
    }
}

impl From<&crate::Event> for Event {
    fn from(event: &crate::Event) -> Event {
        match event {
            crate::Event::Tick => Event::Tick(()),
            crate::Event::Resumed { slept } => Event::Resumed((*slept).into()),
            crate::Event::ListenerOpened { listener, addr } => {
                Event::ListenerOpened(ListenerOpened {
                    listener: listener.0,
                    addr: Some((*addr).into()),
                })
            }
            crate::Event::ListenerClosed { listener } => Event::ListenerClosed(listener.0),
            crate::Event::InterfacesChanged { ips } => Event::InterfacesChanged(Interfaces {
                ips: ips.iter().map(|one| ip(*one)).collect(),
            }),
            crate::Event::Contacted { ip: one } => Event::Contacted(ip(*one)),
            crate::Event::Introduced { peer: who, source } => {
                Event::Introduced(Introduced { peer: peer(*who), source: (*source).into() })
            }
            crate::Event::Connected(facts) => Event::Connected(facts.into()),
            crate::Event::Disconnected { conn } => Event::Disconnected(conn.0),
            crate::Event::DialFailed { dial, reason } => {
                Event::DialFailed(DialFailed { dial: dial.0, reason: reason.number() })
            }
            crate::Event::DialFailureReported { addr } => {
                Event::DialFailureReported((*addr).into())
            }
            crate::Event::StreamOpened { conn, stream } => {
                Event::StreamOpened(StreamOpened { conn: conn.0, stream: Some((*stream).into()) })
            }
            crate::Event::StreamFailed { stream, reason } => Event::StreamFailed(StreamFailed {
                stream: Some((*stream).into()),
                reason: reason.number(),
            }),
            crate::Event::Frame { stream, body } => Event::Frame(Frame {
                stream: Some((*stream).into()),
                body: Some(Body::new(*stream, body, None)),
            }),
            crate::Event::StreamClosed { stream, end } => Event::StreamClosed(StreamClosed {
                stream: Some((*stream).into()),
                end: end.number(),
            }),
            crate::Event::Observed { conn, observed } => {
                Event::Observed(Observed { conn: conn.0, observed: Some((*observed).into()) })
            }
            crate::Event::ProtocolsListed { conn, protocols: set } => {
                Event::ProtocolsListed(Protocols { conn: conn.0, protocols: protocols(*set) })
            }
            crate::Event::Mapping(event) => Event::Mapping(event.into()),
            crate::Event::Relay(event) => Event::Relay(event.into()),
            crate::Event::Punch(event) => Event::Punch(event.into()),
        }
    }
}

impl TryFrom<Event> for crate::Event {
    type Error = Unknown;

    fn try_from(message: Event) -> Result<crate::Event, Unknown> {
        Ok(match message {
            Event::Tick(()) => crate::Event::Tick,
            Event::Resumed(slept) => crate::Event::Resumed { slept: slept.try_into()? },
            Event::ListenerOpened(ListenerOpened { listener, addr }) => {
                crate::Event::ListenerOpened {
                    listener: ListenerId(listener),
                    addr: required(addr)?,
                }
            }
            Event::ListenerClosed(listener) => {
                crate::Event::ListenerClosed { listener: ListenerId(listener) }
            }
            Event::InterfacesChanged(Interfaces { ips }) => {
                crate::Event::InterfacesChanged { ips: ip_addrs(&ips)? }
            }
            Event::Contacted(ip) => crate::Event::Contacted { ip: ip_addr(&ip)? },
            Event::Introduced(Introduced { peer, source }) => crate::Event::Introduced {
                peer: peer_id(&peer)?,
                source: u16::try_from(source).map_err(|_| Unknown("a source that is none"))?,
            },
            Event::Connected(facts) => crate::Event::Connected(facts.try_into()?),
            Event::Disconnected(conn) => crate::Event::Disconnected { conn: ConnId(conn) },
            Event::DialFailed(DialFailed { dial, reason }) => crate::Event::DialFailed {
                dial: DialId(dial),
                reason: DialFailure::numbered(reason, "a failure to dial that is not known")?,
            },
            Event::DialFailureReported(addr) => {
                crate::Event::DialFailureReported { addr: addr.try_into()? }
            }
            Event::StreamOpened(StreamOpened { conn, stream }) => {
                crate::Event::StreamOpened { conn: ConnId(conn), stream: required(stream)? }
            }
            Event::StreamFailed(StreamFailed { stream, reason }) => crate::Event::StreamFailed {
                stream: required(stream)?,
                reason: StreamFailure::numbered(reason, "a stream's failure that is not known")?,
            },
            Event::Frame(Frame { stream, body }) => {
                crate::Event::Frame { stream: required(stream)?, body: present(body)?.unpacked()? }
            }
            Event::StreamClosed(StreamClosed { stream, end }) => crate::Event::StreamClosed {
                stream: required(stream)?,
                end: StreamEnd::numbered(end, "a stream's end that is not known")?,
            },
            Event::Observed(Observed { conn, observed }) => {
                crate::Event::Observed { conn: ConnId(conn), observed: required(observed)? }
            }
            Event::ProtocolsListed(Protocols { conn, protocols }) => {
                crate::Event::ProtocolsListed {
                    conn: ConnId(conn),
                    protocols: protocol_set(protocols)?,
                }
            }
            Event::Mapping(event) => crate::Event::Mapping(event.try_into()?),
            Event::Relay(event) => crate::Event::Relay(event.try_into()?),
            Event::Punch(event) => crate::Event::Punch(event.try_into()?),
        })
    }
}

impl From<&Connected> for ConnectedMessage {
    fn from(facts: &Connected) -> ConnectedMessage {
        let Connected { conn, peer: who, side, local, remote, relayed, dial, rtt } = facts;
        ConnectedMessage {
            conn: conn.0,
            peer: peer(*who),
            side: side.number(),
            local: Some((*local).into()),
            remote: Some((*remote).into()),
            relayed: *relayed,
            dial: dial.map(|dial| dial.0),
            rtt: rtt.map(Span::from),
        }
    }
}

impl TryFrom<ConnectedMessage> for Connected {
    type Error = Unknown;

    fn try_from(message: ConnectedMessage) -> Result<Connected, Unknown> {
        Ok(Connected {
            conn: ConnId(message.conn),
            peer: peer_id(&message.peer)?,
            side: Side::numbered(message.side, "a connection of neither side")?,
            local: required(message.local)?,
            remote: required(message.remote)?,
            relayed: message.relayed,
            dial: message.dial.map(DialId),
            rtt: optional(message.rtt)?,
        })
    }
}
