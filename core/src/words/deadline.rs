//! When core wants to be woken, and why.

use super::time::Instant;

/// The next moment at which [`Agent::handle`](crate::Agent::handle) has something to do by
/// itself. Computed from the state, never stored; a late, early or missing wake-up is harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline {
    /// When.
    pub at: Instant,
    /// Why.
    pub wake: Wake,
}

impl Deadline {
    /// A deadline with its reason.
    pub const fn new(at: Instant, wake: Wake) -> Deadline {
        Deadline { at, wake }
    }
}

/// Why core wants to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Wake {
    /// An identify answer is overdue.
    IdentifyOverdue,
    /// A ping is due or its echo overdue.
    Ping,
    /// A vote loses weight.
    VoteDecays,
    /// A probe's answer is overdue.
    ProbeOverdue,
    /// An `OK` without its nonce becomes a lie.
    NonceOverdue,
    /// A server may be asked again.
    ServerRested,
    /// An address is to be probed again.
    ProbeAgain,
    /// A proof is about to age out.
    VerdictExpires,
    /// A class's hold-down ends.
    HoldDownEnds,
    /// Dial data we asked for is overdue.
    UploadOverdue,
    /// A dial-back of ours is overdue.
    DialBackOverdue,
    /// A pushed identify is overdue.
    PushOverdue,
    /// A peer that did not answer identify is asked again.
    IdentifyAgain,
    /// A router is to be asked: for the first time, again, or for a renewal.
    MappingDue,
    /// A granted mapping runs out.
    LeaseExpires,
    /// Whether relays are needed is decided, or what is no longer needed is let go.
    RelayNeed,
    /// A relay is to be chosen, asked, dialled, or asked for a renewal.
    RelayDue,
    /// A relay's answer is overdue, or a dial of it.
    RelayOverdue,
    /// A reservation runs out, of ours at a relay or of somebody's with us.
    ReservationExpires,
    /// A circuit of ours is overdue.
    CircuitOverdue,
    /// An exchange with somebody whom we relay for is overdue.
    RelayExchangeOverdue,
    /// A circuit that we relay has had its time.
    CircuitOvertime,
    /// A direct connection is to be tried, or a circuit beside one to be closed.
    PunchDue,
    /// An answer or a dial of hole punching is overdue.
    PunchOverdue,
    /// An AutoNAT v1 server is to be asked, or what such servers said is too old.
    HearsayDue,
    /// The answer of an AutoNAT v1 server is overdue.
    HearsayOverdue,
}

/// The earliest of two optional deadlines.
pub(crate) fn earliest(a: Option<Deadline>, b: Option<Deadline>) -> Option<Deadline> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}
