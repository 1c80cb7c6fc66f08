//! A question to a server, as the plain rules see it.

use portolan_core::{Addr, ConnId, Group, Instant, PeerId, StreamId};

/// Where it stands, and until when.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Phase {
    Open { until: Instant, paid: bool },
    Awaits { until: Instant },
    Over { until: Instant },
}

/// One question to one server about one address.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) stream: StreamId,
    pub(crate) conn: ConnId,
    pub(crate) peer: PeerId,
    pub(crate) group: Group,
    pub(crate) addr: Addr,
    pub(crate) event: u64,
    /// Whether its failure would be a stranger's.
    pub(crate) cold: bool,
    pub(crate) arrived: bool,
    pub(crate) phase: Phase,
}

impl Ask {
    /// Whether it has not ended.
    pub(crate) fn is_running(&self) -> bool {
        !matches!(self.phase, Phase::Over { .. })
    }
}
