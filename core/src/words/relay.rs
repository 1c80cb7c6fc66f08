//! The vocabulary of relaying: reservations, circuits, bridges, and what is told of them.

use super::addr::Addr;
use super::event::DialFailure;
use super::id::{ConnId, PeerId, StreamId};
use super::time::{Duration, Instant};
use alloc::vec::Vec;
use core::fmt;

/// A circuit that the application wants; minted by the runtime, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CircuitId(pub u64);

impl fmt::Display for CircuitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "k{}", self.0)
    }
}

/// What a relay allows one circuit; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CircuitLimit {
    /// How long it may last.
    pub duration: Option<Duration>,
    /// Bytes that may flow in each direction.
    pub bytes: Option<u64>,
}

/// An address at which we are reached through a relay:
/// `<addr>/p2p/<relay>/p2p-circuit/p2p/<us>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CircuitAddr {
    /// The relay.
    pub relay: PeerId,
    /// An address of the relay.
    pub addr: Addr,
}

/// A fact about relays and circuits.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RelayEvent {
    /// The application wants a circuit to `peer` through the relay at the other end of `conn`.
    /// Answered by [`RelayAction::Upgrade`] or [`RelayAction::CircuitFailed`] with the same id.
    CircuitWanted {
        /// The id that the answer carries.
        circuit: CircuitId,
        /// A direct connection to the relay.
        conn: ConnId,
        /// The peer to be reached.
        peer: PeerId,
    },
    /// The application does not wait for this circuit any more.
    CircuitForgotten {
        /// The circuit.
        circuit: CircuitId,
    },
    /// A dial of [`RelayAction::Connect`] failed. One that succeeds is told as
    /// [`Event::Connected`](crate::Event::Connected), like every dial of the node's own.
    ConnectFailed {
        /// The relay.
        peer: PeerId,
        /// The address that was dialled.
        addr: Addr,
        /// How it failed.
        reason: DialFailure,
    },
    /// No connection came of a stream that was handed over with [`RelayAction::Upgrade`]. One that
    /// does is told as [`Event::Connected`](crate::Event::Connected) with `relayed` set.
    UpgradeFailed {
        /// The stream.
        stream: StreamId,
    },
    /// A bridge is over, and both its streams are gone.
    BridgeEnded {
        /// The initiator's stream, by which the bridge is known.
        stream: StreamId,
        /// Why.
        end: BridgeEnd,
        /// Bytes that were passed from the initiator to the target.
        forth: u64,
        /// Bytes that were passed from the target to the initiator.
        back: u64,
    },
    /// The operator winds the relay service down: nothing new is granted, what was is served until
    /// it expires.
    Draining,
}

/// An order about relays and circuits.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RelayAction {
    /// Dial a relay, from the port of a listener where one fits, and expect this peer. Answered by
    /// [`Event::Connected`](crate::Event::Connected) or [`RelayEvent::ConnectFailed`].
    Connect {
        /// The relay.
        peer: PeerId,
        /// Its address.
        addr: Addr,
    },
    /// A stream of ours stands as a circuit: what was sent on it is delivered first, and what the
    /// peer sends from now on belongs to the circuit. Shake hands over it: as the dialler where we
    /// opened the stream (hop), as the listener where the relay did (stop). Core knows the
    /// stream no more.
    Upgrade {
        /// The stream.
        stream: StreamId,
        /// Who must be at the other end.
        peer: PeerId,
        /// The wish that it fulfils.
        circuit: Option<CircuitId>,
        /// What the relay allows.
        limit: CircuitLimit,
    },
    /// A circuit that the application wants cannot be had.
    CircuitFailed {
        /// The circuit.
        circuit: CircuitId,
        /// Why not.
        reason: CircuitFailure,
    },
    /// Join two streams into a circuit for others: what was sent on them is delivered first, and
    /// from then on bytes are passed both ways until both directions have ended, one side is reset,
    /// or a direction would pass more than `bytes_max`. Whatever comes within the limit is passed; then
    /// both streams are reset. Answered by [`RelayEvent::BridgeEnded`]. Core knows the streams no
    /// more, but for [`RelayAction::Cut`].
    Bridge {
        /// The initiator's stream (hop), by which the bridge is known.
        stream: StreamId,
        /// The stream to the target (stop).
        target: StreamId,
        /// Bytes that may be passed in each direction.
        bytes_max: Option<u64>,
    },
    /// Reset both streams of a bridge. Answered by [`RelayEvent::BridgeEnded`].
    Cut {
        /// The initiator's stream.
        stream: StreamId,
    },
}

/// How much of the relay service is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayLoad {
    /// Reservations with us, number.
    pub reservations: usize,
    /// Circuits that we relay or open, number.
    pub circuits: usize,
    /// The fuller of both against its limit, in thousandths: what identify tells of it.
    pub thousandths: u16,
}

/// Why a bridge is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum BridgeEnd {
    /// Both sides finished.
    Finished,
    /// A side reset its stream, or its connection ended.
    Reset,
    /// A direction was at its limit, and there was more.
    BytesUsedUp,
    /// Core cut it.
    Cut,
}

/// Why a circuit could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum CircuitFailure {
    /// The relay said so.
    Refused(RelayStatus),
    /// The relay did not answer in time.
    TimedOut,
    /// The peer at the other end of the connection does not relay.
    Unsupported,
    /// The connection to the relay is gone, or is a circuit itself.
    NoRelay,
    /// The relay said something that makes no sense.
    BadAnswer,
    /// Too many circuits are being opened.
    TooMany,
}

/// What relays answer (circuit-v2 §Status Codes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum RelayStatus {
    /// `UNUSED`, 0, or none at all.
    Unused,
    /// `OK`, 100.
    Ok,
    /// `RESERVATION_REFUSED`, 200: no room, or any other reason.
    ReservationRefused,
    /// `RESOURCE_LIMIT_EXCEEDED`, 201.
    ResourceLimitExceeded,
    /// `PERMISSION_DENIED`, 202: by rule.
    PermissionDenied,
    /// `CONNECTION_FAILED`, 203: the relay could not reach the target.
    ConnectionFailed,
    /// `NO_RESERVATION`, 204: the target holds none there.
    NoReservation,
    /// `MALFORMED_MESSAGE`, 400.
    MalformedMessage,
    /// `UNEXPECTED_MESSAGE`, 401.
    UnexpectedMessage,
    /// Any other code.
    Unknown(i32),
}

impl RelayStatus {
    /// The status with this code.
    pub const fn from_code(code: i32) -> RelayStatus {
        match code {
            0 => RelayStatus::Unused,
            100 => RelayStatus::Ok,
            200 => RelayStatus::ReservationRefused,
            201 => RelayStatus::ResourceLimitExceeded,
            202 => RelayStatus::PermissionDenied,
            203 => RelayStatus::ConnectionFailed,
            204 => RelayStatus::NoReservation,
            400 => RelayStatus::MalformedMessage,
            401 => RelayStatus::UnexpectedMessage,
            code => RelayStatus::Unknown(code),
        }
    }

    /// Its code on the wire.
    pub const fn code(self) -> i32 {
        match self {
            RelayStatus::Unused => 0,
            RelayStatus::Ok => 100,
            RelayStatus::ReservationRefused => 200,
            RelayStatus::ResourceLimitExceeded => 201,
            RelayStatus::PermissionDenied => 202,
            RelayStatus::ConnectionFailed => 203,
            RelayStatus::NoReservation => 204,
            RelayStatus::MalformedMessage => 400,
            RelayStatus::UnexpectedMessage => 401,
            RelayStatus::Unknown(code) => code,
        }
    }
}

/// How a relay stands with us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum RelayState {
    /// It could be asked, and is not needed.
    Spare,
    /// It is being dialled.
    Connecting,
    /// It was asked for a reservation, and we have none there yet.
    Asking,
    /// We have a reservation there.
    Reserved,
    /// It will not be asked for a while: the last answer was no, or none came.
    Resting,
}

impl RelayState {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            RelayState::Spare => "spare",
            RelayState::Connecting => "connecting",
            RelayState::Asking => "asking",
            RelayState::Reserved => "reserved",
            RelayState::Resting => "resting",
        }
    }
}

/// A relay as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    /// The relay.
    pub peer: PeerId,
    /// How it stands with us.
    pub state: RelayState,
    /// Why it rests, if it does.
    pub failure: Option<RelayFailure>,
    /// The round-trip time to it, if one was measured.
    pub rtt: Option<Duration>,
    /// How full it said it is, in thousandths; ours alone say so.
    pub load: Option<u16>,
    /// When the reservation ends unless it is renewed, or the rest does.
    pub until: Option<Instant>,
    /// What it allows a circuit.
    pub limit: CircuitLimit,
    /// Addresses of the relay at which we are reached.
    pub addrs: Vec<Addr>,
}

/// Why a relay is of no use for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum RelayFailure {
    /// It could not be dialled.
    Unreachable(DialFailure),
    /// It does not speak hop.
    Unsupported,
    /// It did not answer in time.
    TimedOut,
    /// It has no room.
    Full,
    /// It does not serve us.
    Denied,
    /// Its answer makes no sense.
    BadAnswer,
    /// Its voucher is not one: of somebody else, for somebody else, or not signed by it.
    BadVoucher,
    /// The connection to it ended.
    Disconnected,
}

/// News about relays and circuits.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RelayNotice {
    /// Inbound help is needed, or no longer is.
    NeedChanged {
        /// Whether it is.
        needed: bool,
    },
    /// A relay stands with us otherwise than before.
    Changed(Relay),
    /// The addresses at which we are reached through relays changed.
    CircuitAddrsChanged {
        /// Told from now on.
        added: Vec<CircuitAddr>,
        /// Withdrawn.
        removed: Vec<CircuitAddr>,
    },
    /// A peer was granted a reservation with us, or its renewal.
    Granted {
        /// The peer.
        peer: PeerId,
        /// Whether it held one before.
        renewed: bool,
    },
    /// A peer asked us for a reservation or a circuit in vain.
    Refused {
        /// The peer.
        peer: PeerId,
        /// Whom it wanted to reach; `None`: it wanted a reservation.
        target: Option<PeerId>,
        /// What it was told.
        status: RelayStatus,
    },
    /// A reservation with us is over: it expired, or the peer left.
    ReservationEnded {
        /// The peer.
        peer: PeerId,
    },
    /// We pass bytes between two peers from now on.
    BridgeOpened {
        /// Who wanted it.
        initiator: PeerId,
        /// Whom it reached.
        target: PeerId,
    },
    /// We pass bytes between two peers no longer.
    BridgeEnded {
        /// Who wanted it.
        initiator: PeerId,
        /// Whom it reached.
        target: PeerId,
        /// Why it ended.
        end: BridgeEnd,
        /// Whether core cut it because its time was over.
        overtime: bool,
        /// Bytes passed to the target.
        forth: u64,
        /// Bytes passed to the initiator.
        back: u64,
    },
}
