//! Which room a stream belongs to.

use crate::{Protocol, Side, StreamId};

/// Whether a stream belongs to what we do for others.
pub(super) fn is_service(stream: StreamId) -> bool {
    match (stream.side, stream.protocol) {
        (
            Side::Inbound,
            Protocol::Identify
            | Protocol::Ping
            | Protocol::DialRequest
            | Protocol::AutonatV1
            | Protocol::Hop,
        )
        | (Side::Outbound, Protocol::IdentifyPush | Protocol::DialBack | Protocol::Stop) => true,
        (
            Side::Outbound,
            Protocol::Identify
            | Protocol::Ping
            | Protocol::DialRequest
            | Protocol::AutonatV1
            | Protocol::Hop,
        )
        | (Side::Inbound, Protocol::IdentifyPush | Protocol::DialBack | Protocol::Stop)
        | (_, Protocol::Punch) => false,
    }
}

/// Whether a stream belongs to what relays do for us.
pub(super) fn is_relay(stream: StreamId) -> bool {
    matches!(
        (stream.side, stream.protocol),
        (Side::Outbound, Protocol::Hop) | (Side::Inbound, Protocol::Stop)
    )
}
