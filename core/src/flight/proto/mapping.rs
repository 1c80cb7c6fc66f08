//! Events, actions and notices about routers and the ports that they map.

use super::Unknown;
use super::step::Body;
use super::values::{
    AddrMessage, Numbered, SocketMessage, Span, ip, ip_addr, optional, present, required,
};
use crate::{
    Channel, Fetch, FetchFailure, FetchId, Gateway, GatewayAnswer, Lease, Mapping, MappingAction,
    MappingEvent, MappingProtocol, MappingReason, Soap,
};
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;

/// `portolan.flight.MappingEvent`
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct MappingEventMessage {
    #[prost(oneof = "Event", tags = "1, 2, 3, 4, 5, 6, 7")]
    event: Option<Event>,
}

/// `portolan.flight.MappingEvent.event`: the kinds of [`MappingEvent`].
#[derive(Clone, PartialEq, prost::Oneof)]
enum Event {
    #[prost(message, tag = "1")]
    GatewaysChanged(Gateways),
    #[prost(message, tag = "2")]
    DatagramReceived(Datagram),
    #[prost(message, tag = "3")]
    DatagramRefused(DatagramRefused),
    #[prost(message, tag = "4")]
    Fetched(Fetched),
    #[prost(message, tag = "5")]
    FetchFailed(FetchFailed),
    #[prost(bytes = "bytes", tag = "6")]
    LedgerRead(Bytes),
    #[prost(message, tag = "7")]
    Closing(()),
}

/// `portolan.flight.Gateways`
#[derive(Clone, PartialEq, prost::Message)]
struct Gateways {
    #[prost(message, repeated, tag = "1")]
    gateways: Vec<GatewayMessage>,
}

/// `portolan.flight.Gateway`
#[derive(Clone, PartialEq, prost::Message)]
struct GatewayMessage {
    #[prost(bytes = "bytes", tag = "1")]
    router: Bytes,
    #[prost(uint32, tag = "2")]
    interface: u32,
    #[prost(bytes = "bytes", tag = "3")]
    source: Bytes,
}

/// `portolan.flight.Channel`: one that hears a group has a group.
#[derive(Clone, PartialEq, prost::Message)]
struct ChannelMessage {
    #[prost(bytes = "bytes", tag = "1")]
    source: Bytes,
    #[prost(uint32, tag = "2")]
    interface: u32,
    #[prost(message, optional, tag = "3")]
    group: Option<SocketMessage>,
}

/// `portolan.flight.Datagram`
#[derive(Clone, PartialEq, prost::Message)]
struct Datagram {
    #[prost(message, optional, tag = "1")]
    channel: Option<ChannelMessage>,
    /// Who sent it, or where it goes.
    #[prost(message, optional, tag = "2")]
    other: Option<SocketMessage>,
    #[prost(message, optional, tag = "3")]
    body: Option<Body>,
}

/// `portolan.flight.DatagramRefused`
#[derive(Clone, PartialEq, prost::Message)]
struct DatagramRefused {
    #[prost(message, optional, tag = "1")]
    channel: Option<ChannelMessage>,
    #[prost(message, optional, tag = "2")]
    to: Option<SocketMessage>,
}

/// `portolan.flight.Fetched`
#[derive(Clone, PartialEq, prost::Message)]
struct Fetched {
    #[prost(uint64, tag = "1")]
    fetch: u64,
    #[prost(uint32, tag = "2")]
    status: u32,
    #[prost(message, optional, tag = "3")]
    body: Option<Body>,
}

/// `portolan.flight.FetchFailed`
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct FetchFailed {
    #[prost(uint64, tag = "1")]
    fetch: u64,
    #[prost(uint32, tag = "2")]
    reason: u32,
}

/// `portolan.flight.MappingAction`
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct MappingActionMessage {
    #[prost(oneof = "Action", tags = "1, 2, 3, 4, 5")]
    action: Option<Action>,
}

/// `portolan.flight.MappingAction.action`: the kinds of [`MappingAction`].
#[derive(Clone, PartialEq, prost::Oneof)]
enum Action {
    #[prost(message, tag = "1")]
    OpenChannel(ChannelMessage),
    #[prost(message, tag = "2")]
    CloseChannel(ChannelMessage),
    #[prost(message, tag = "3")]
    SendDatagram(Datagram),
    #[prost(message, tag = "4")]
    Fetch(FetchMessage),
    #[prost(bytes = "bytes", tag = "5")]
    StoreLedger(Bytes),
}

/// `portolan.flight.Fetch`
#[derive(Clone, PartialEq, prost::Message)]
struct FetchMessage {
    #[prost(uint64, tag = "1")]
    fetch: u64,
    #[prost(bytes = "bytes", tag = "2")]
    source: Bytes,
    #[prost(uint32, tag = "3")]
    interface: u32,
    #[prost(message, optional, tag = "4")]
    to: Option<SocketMessage>,
    #[prost(string, tag = "5")]
    path: String,
    #[prost(message, optional, tag = "6")]
    soap: Option<SoapMessage>,
    #[prost(message, optional, tag = "7")]
    timeout: Option<Span>,
}

/// `portolan.flight.Soap`
#[derive(Clone, PartialEq, prost::Message)]
struct SoapMessage {
    #[prost(string, tag = "1")]
    action: String,
    #[prost(bytes = "bytes", tag = "2")]
    body: Bytes,
}

/// `portolan.flight.Mapping`
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct MappingMessage {
    #[prost(message, optional, tag = "1")]
    internal: Option<AddrMessage>,
    #[prost(uint32, tag = "2")]
    state: u32,
    #[prost(message, optional, tag = "3")]
    reason: Option<MappingReasonMessage>,
    #[prost(message, optional, tag = "4")]
    lease: Option<LeaseMessage>,
}

/// `portolan.flight.MappingReason`: the kind, and those of the fields that it has.
#[derive(Clone, PartialEq, prost::Message)]
struct MappingReasonMessage {
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(uint32, tag = "2")]
    protocol: u32,
    #[prost(uint32, tag = "3")]
    code: u32,
    #[prost(bytes = "bytes", tag = "4")]
    external: Bytes,
}

/// `portolan.flight.Lease`
#[derive(Clone, PartialEq, prost::Message)]
struct LeaseMessage {
    #[prost(bytes = "bytes", tag = "1")]
    router: Bytes,
    #[prost(uint32, tag = "2")]
    protocol: u32,
    #[prost(message, optional, tag = "3")]
    external: Option<AddrMessage>,
    #[prost(message, optional, tag = "4")]
    lifetime: Option<Span>,
}

/// `portolan.flight.GatewayAnswer`
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct GatewayAnswerMessage {
    #[prost(bytes = "bytes", tag = "1")]
    router: Bytes,
    #[prost(uint32, tag = "2")]
    protocol: u32,
    #[prost(bytes = "bytes", optional, tag = "3")]
    external: Option<Bytes>,
}

impl From<&MappingEvent> for MappingEventMessage {
    fn from(event: &MappingEvent) -> MappingEventMessage {
        let event = match event {
            MappingEvent::GatewaysChanged { gateways } => Event::GatewaysChanged(Gateways {
                gateways: gateways.iter().map(GatewayMessage::from).collect(),
            }),
            MappingEvent::DatagramReceived { channel, from, body } => {
                Event::DatagramReceived(Datagram {
                    channel: Some((*channel).into()),
                    other: Some((*from).into()),
                    body: Some(Body::as_is(body)),
                })
            }
            MappingEvent::DatagramRefused { channel, to } => {
                Event::DatagramRefused(DatagramRefused {
                    channel: Some((*channel).into()),
                    to: to.map(SocketMessage::from),
                })
            }
            MappingEvent::Fetched { fetch, status, body } => Event::Fetched(Fetched {
                fetch: fetch.0,
                status: (*status).into(),
                body: Some(Body::as_is(body)),
            }),
            MappingEvent::FetchFailed { fetch, reason } => {
                Event::FetchFailed(FetchFailed { fetch: fetch.0, reason: reason.number() })
            }
            MappingEvent::LedgerRead { ledger } => Event::LedgerRead(ledger.clone()),
            MappingEvent::Closing => Event::Closing(()),
        };
        MappingEventMessage { event: Some(event) }
    }
}

impl TryFrom<MappingEventMessage> for MappingEvent {
    type Error = Unknown;

    fn try_from(message: MappingEventMessage) -> Result<MappingEvent, Unknown> {
        let event = message.event.ok_or(Unknown("an event of mapping that is not known"))?;
        Ok(match event {
            Event::GatewaysChanged(Gateways { gateways }) => MappingEvent::GatewaysChanged {
                gateways: gateways.into_iter().map(Gateway::try_from).collect::<Result<_, _>>()?,
            },
            Event::DatagramReceived(Datagram { channel, other, body }) => {
                MappingEvent::DatagramReceived {
                    channel: required(channel)?,
                    from: required(other)?,
                    body: present(body)?.unpacked()?,
                }
            }
            Event::DatagramRefused(DatagramRefused { channel, to }) => {
                MappingEvent::DatagramRefused { channel: required(channel)?, to: optional(to)? }
            }
            Event::Fetched(Fetched { fetch, status, body }) => MappingEvent::Fetched {
                fetch: FetchId(fetch),
                status: u16::try_from(status).map_err(|_| Unknown("a status beyond 65535"))?,
                body: present(body)?.unpacked()?,
            },
            Event::FetchFailed(FetchFailed { fetch, reason }) => MappingEvent::FetchFailed {
                fetch: FetchId(fetch),
                reason: FetchFailure::numbered(reason, "a failure to fetch that is not known")?,
            },
            Event::LedgerRead(ledger) => MappingEvent::LedgerRead { ledger },
            Event::Closing(()) => MappingEvent::Closing,
        })
    }
}

impl From<&Gateway> for GatewayMessage {
    fn from(gateway: &Gateway) -> GatewayMessage {
        let Gateway { router, interface, source } = *gateway;
        GatewayMessage { router: ip(router), interface, source: ip(source) }
    }
}

impl TryFrom<GatewayMessage> for Gateway {
    type Error = Unknown;

    fn try_from(message: GatewayMessage) -> Result<Gateway, Unknown> {
        let GatewayMessage { router, interface, source } = message;
        Ok(Gateway { router: ip_addr(&router)?, interface, source: ip_addr(&source)? })
    }
}

impl From<Channel> for ChannelMessage {
    fn from(channel: Channel) -> ChannelMessage {
        let (source, interface, group) = match channel {
            Channel::Client { source, interface } => (source, interface, None),
            Channel::Group { group, source, interface } => (source, interface, Some(group.into())),
        };
        ChannelMessage { source: ip(source), interface, group }
    }
}

impl TryFrom<ChannelMessage> for Channel {
    type Error = Unknown;

    fn try_from(message: ChannelMessage) -> Result<Channel, Unknown> {
        let ChannelMessage { source, interface, group } = message;
        let source = ip_addr(&source)?;
        Ok(match optional(group)? {
            None => Channel::Client { source, interface },
            Some(group) => Channel::Group { group, source, interface },
        })
    }
}

impl From<&MappingAction> for MappingActionMessage {
    fn from(action: &MappingAction) -> MappingActionMessage {
        let action = match action {
            MappingAction::OpenChannel { channel } => Action::OpenChannel((*channel).into()),
            MappingAction::CloseChannel { channel } => Action::CloseChannel((*channel).into()),
            MappingAction::SendDatagram { channel, to, body } => Action::SendDatagram(Datagram {
                channel: Some((*channel).into()),
                other: Some((*to).into()),
                body: Some(Body::as_is(body)),
            }),
            MappingAction::Fetch(fetch) => Action::Fetch(fetch.into()),
            MappingAction::StoreLedger { ledger } => Action::StoreLedger(ledger.clone()),
        };
        MappingActionMessage { action: Some(action) }
    }
}

impl From<&Fetch> for FetchMessage {
    fn from(fetch: &Fetch) -> FetchMessage {
        let Fetch { fetch, source, interface, to, path, soap, timeout } = fetch;
        FetchMessage {
            fetch: fetch.0,
            source: ip(*source),
            interface: *interface,
            to: Some((*to).into()),
            path: path.clone(),
            soap: soap.as_ref().map(|Soap { action, body }| SoapMessage {
                action: action.clone(),
                body: body.clone(),
            }),
            timeout: Some((*timeout).into()),
        }
    }
}

impl From<&Mapping> for MappingMessage {
    fn from(mapping: &Mapping) -> MappingMessage {
        let Mapping { internal, state, reason, lease } = *mapping;
        MappingMessage {
            internal: Some(internal.into()),
            state: state.number(),
            reason: Some(reason.into()),
            lease: lease.map(LeaseMessage::from),
        }
    }
}

impl From<MappingReason> for MappingReasonMessage {
    fn from(reason: MappingReason) -> MappingReasonMessage {
        let of = |kind| MappingReasonMessage { kind, ..MappingReasonMessage::default() };
        let told = |protocol: MappingProtocol, code: u16, of| MappingReasonMessage {
            protocol: protocol.number(),
            code: code.into(),
            ..of
        };
        match reason {
            MappingReason::Asking => of(1),
            MappingReason::Granted => of(2),
            MappingReason::NoGateway => of(3),
            MappingReason::Silent => of(4),
            MappingReason::Refused { protocol, code } => told(protocol, code, of(5)),
            MappingReason::Exhausted { protocol, code } => told(protocol, code, of(6)),
            MappingReason::GatewayOffline { protocol } => told(protocol, 0, of(7)),
            MappingReason::NestedNetwork => of(8),
            MappingReason::Faulty { protocol, code } => told(protocol, code, of(9)),
            MappingReason::Conflict => of(10),
            MappingReason::GatewayBehindNat { external } => {
                MappingReasonMessage { external: ip(external), ..of(11) }
            }
            MappingReason::NotForwarding => of(12),
        }
    }
}

impl From<Lease> for LeaseMessage {
    fn from(lease: Lease) -> LeaseMessage {
        let Lease { router, protocol, external, lifetime } = lease;
        LeaseMessage {
            router: ip(router),
            protocol: protocol.number(),
            external: Some(external.into()),
            lifetime: lifetime.map(Span::from),
        }
    }
}

impl From<GatewayAnswer> for GatewayAnswerMessage {
    fn from(answer: GatewayAnswer) -> GatewayAnswerMessage {
        let GatewayAnswer { router, protocol, external } = answer;
        GatewayAnswerMessage {
            router: ip(router),
            protocol: protocol.number(),
            external: external.map(ip),
        }
    }
}
