//! Hop streams on which nothing was said yet, or all is said.
//!
//! ```text
//!  Silent ─ reserve, connect refused ─► Answered ─ closed ─► gone
//!    │ └─ connect ─► a circuit being opened ─ failed ──┘
//!    └─ closed, overdue, pushed out ─► gone
//! ```

use super::admission::{Asker, Place};
use crate::words::checkpoint::saved;
use crate::words::deadline::{Deadline, Wake};
use crate::words::sleep::Sleep;
use crate::{Action, ConnId, Cx, Duration, Instant, StreamId};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// How long a peer may take to say what it wants, ours: the request is one small message.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a peer may leave an answered stream open, ours.
const LINGER: Duration = Duration::from_secs(5);
/// Streams of one peer, number; ours: it may ask for as many circuits at once as go-libp2p lets it
/// have, and still be closing as many. Over it a stream is reset.
const STREAMS_PER_PEER_MAX: usize = 32;
/// Streams of one network, number; ours: no network can take all. Over it a stream is reset.
const STREAMS_PER_NETWORK_MAX: usize = 128;
/// Streams together, number; ours. Memory grows by about 200 bytes each, without what the runtime
/// buffers. When full, one makes room and is reset: the oldest that is answered, else the one
/// that has been silent for longest. Who speaks at once is heard, however many are silent.
pub(super) const STREAMS_MAX: usize = 512;

const _: () = assert!(STREAMS_PER_PEER_MAX < STREAMS_PER_NETWORK_MAX);
const _: () = assert!(STREAMS_PER_NETWORK_MAX < STREAMS_MAX);

/// One hop stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exchange {
    /// It ends with the connection that it came on.
    pub(super) from: Asker,
    pub(super) is_answered: bool,
    overdue_at: Instant,
}

/// All of them that are no circuits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Exchanges {
    all: BTreeMap<StreamId, Exchange>,
}

impl Exchanges {
    /// A new stream; `false` if its peer or its network has too many.
    pub(super) fn open(
        &mut self,
        cx: &mut Cx<'_>,
        stream: StreamId,
        from: Asker,
        allow_private: bool,
    ) -> bool {
        let network = |one: &Asker| Place::of(one.ip, allow_private).network;
        let others = || self.all.values().map(|other| &other.from);
        let of_peer = others().filter(|other| other.peer == from.peer).count();
        let of_network = others().filter(|other| network(other) == network(&from)).count();
        if of_peer >= STREAMS_PER_PEER_MAX || of_network >= STREAMS_PER_NETWORK_MAX {
            return false;
        }
        let overdue_at = cx.now + REQUEST_TIMEOUT;
        self.insert(cx, stream, Exchange { from, is_answered: false, overdue_at });
        true
    }

    /// The answer is out, and our side of the stream is closed.
    pub(super) fn answered(&mut self, cx: &mut Cx<'_>, stream: StreamId, from: Asker) {
        let overdue_at = cx.now + LINGER;
        self.insert(cx, stream, Exchange { from, is_answered: true, overdue_at });
    }

    fn insert(&mut self, cx: &mut Cx<'_>, stream: StreamId, exchange: Exchange) {
        if self.all.len() >= STREAMS_MAX && !self.all.contains_key(&stream) {
            let patience = |one: &Exchange| (!one.is_answered, one.overdue_at);
            let least = self.all.iter().min_by_key(|(_, one)| patience(one));
            if let Some(stream) = least.map(|(stream, _)| *stream) {
                self.all.remove(&stream);
                cx.actions.push(Action::ResetStream { stream });
            }
        }
        self.all.insert(stream, exchange);
    }

    pub(super) fn get(&self, stream: StreamId) -> Option<Exchange> {
        self.all.get(&stream).copied()
    }

    pub(super) fn remove(&mut self, stream: StreamId) -> Option<Exchange> {
        self.all.remove(&stream)
    }

    pub(super) fn disconnected(&mut self, conn: ConnId) {
        self.all.retain(|_, one| one.from.conn != conn);
    }

    pub(super) fn resumed(&mut self, sleep: Sleep) {
        self.all.values_mut().for_each(|one| sleep.put_off(&mut one.overdue_at));
    }

    /// Reset what is overdue.
    pub(super) fn advance(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now;
        let overdue = self.all.iter().filter(|(_, one)| one.overdue_at <= now);
        let overdue: Vec<StreamId> = overdue.map(|(stream, _)| *stream).collect();
        for stream in overdue {
            self.all.remove(&stream);
            cx.actions.push(Action::ResetStream { stream });
        }
    }

    pub(super) fn deadline(&self) -> Option<Deadline> {
        let first = self.all.values().map(|one| one.overdue_at).min()?;
        Some(Deadline::new(first, Wake::RelayExchangeOverdue))
    }

    /// Whether something is still to be said on this connection.
    pub(super) fn keeps(&self, conn: ConnId) -> bool {
        self.all.values().any(|one| one.from.conn == conn && !one.is_answered)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }
}

saved!(struct Exchange { from, is_answered, overdue_at });
saved!(struct Exchanges { all });
