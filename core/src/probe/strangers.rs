//! Whether strangers get in, asked of servers that we reach over circuits alone and never contacted.
//!
//! Such a question stands beside the rounds: one at a time, when nothing else is asked, about an address
//! that only those have proven whom we had contacted. A server that does not say where its failed
//! dial came from says nothing by it.

use super::exchange::Way;
use super::history::History;
use super::servers::Tally;
use super::{Exchange, Probe};
use crate::candidates::Candidates;
use crate::local::Local;
use crate::peers::Peers;
use crate::words::checkpoint::saved;
use crate::words::config::{CANDIDATES_MAX, DISTANT_SERVERS_MAX};
use crate::{Addr, ConnId, Cx, Duration, Group, Instant, Outcome, PeerId};
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

/// How long a stranger's word is enough, ours: three quarters of a proof's life, so that another one comes
/// before it ends.
const WORD_LIFETIME: Duration = Duration::from_secs(450);
/// Questions remembered, number; ours: every such server about every candidate. When full, no further
/// one is asked.
const ASKED_MAX: usize = CANDIDATES_MAX * DISTANT_SERVERS_MAX;

/// What such servers were asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Strangers {
    asked: BTreeMap<(Addr, PeerId), Instant>,
    /// How the last question over a circuit ended.
    last: Option<(ConnId, Outcome)>,
    /// What each has said so far, and the dial data that it was paid, bytes.
    all: BTreeMap<PeerId, (Tally, u64)>,
}

impl Strangers {
    /// A question ended. Only so many servers are ever asked as are configured.
    pub(super) fn ended(&mut self, (peer, conn): (PeerId, ConnId), outcome: Outcome) {
        self.last = Some((conn, outcome));
        self.all.entry(peer).or_default().0.count(outcome);
    }

    pub(super) fn paid(&mut self, peer: PeerId, bytes: u64) {
        let paid = &mut self.all.entry(peer).or_default().1;
        *paid = paid.saturating_add(bytes);
    }
}

impl Probe {
    /// When this server is to be asked, and about which address; `None` where it could help with none.
    pub(crate) fn stranger_due(
        &self,
        now: Instant,
        (local, candidates): (&Local, &Candidates),
        peer: PeerId,
    ) -> Option<(Instant, Addr)> {
        let due = |addr: Addr| {
            let at = self.histories.get(&addr).and_then(|one| one.wants_stranger_at(now))?;
            let asked = self.strangers.asked.get(&(addr, peer)).map(|at| *at + WORD_LIFETIME);
            Some((asked.map_or(at, |again| again.max(at)), addr))
        };
        let listened = candidates.iter().map(|one| one.addr);
        let listened = listened.filter(|addr| local.listens_in(addr.class()));
        // The strongest candidate among those that are due.
        let all = listened.enumerate().filter_map(|(place, addr)| Some((due(addr)?, place)));
        all.min_by_key(|((at, _), place)| ((*at).max(now), *place)).map(|(due, _)| due)
    }

    /// Whether nothing is asked, so that there is time for what is less urgent.
    pub(crate) fn is_quiet(&self) -> bool {
        self.exchanges.is_empty()
    }

    /// Whether a question on this connection has not ended.
    pub(crate) fn asks_on(&self, conn: ConnId) -> bool {
        self.exchanges.values().any(|one| one.conn == conn)
    }

    /// How the question on this connection ended, if it was the last over a circuit.
    pub(crate) fn stranger_said(&self, conn: ConnId) -> Option<Outcome> {
        self.strangers.last.filter(|(on, _)| *on == conn).map(|(_, outcome)| outcome)
    }

    /// What a server that is reached over circuits has said, and the dial data that it was paid, bytes.
    pub(crate) fn stranger(&self, peer: PeerId) -> (Vec<(Outcome, u32)>, u64) {
        let said = self.strangers.all.get(&peer);
        said.map_or_else(Default::default, |(tally, paid)| (tally.iter().collect(), *paid))
    }

    /// Ask the server at the other end of this circuit, which carries at most so much dial data.
    /// Whether there was something to ask.
    pub(crate) fn ask_stranger(
        &mut self,
        cx: &mut Cx<'_>,
        (local, candidates, peers): (&Local, &Candidates, &Peers),
        (peer, conn): (PeerId, ConnId),
        data_max: u64,
    ) -> bool {
        let due = self.stranger_due(cx.now, (local, candidates), peer);
        let Some((_, addr)) = due.filter(|(at, _)| *at <= cx.now) else { return false };
        let asked = &mut self.strangers.asked;
        asked.retain(|_, at| cx.now < *at + WORD_LIFETIME);
        let Some(connection) = peers.get(conn).filter(|_| asked.len() < ASKED_MAX) else {
            return false;
        };
        asked.insert((addr, peer), cx.now);
        self.strangers.last = None;
        // Where it is itself is not known before it says so.
        let group = Group::of(connection.remote.ip, self.allow_private);
        let server = (peer, group, conn);
        let mut exchange = Exchange::new(cx.now, server, vec![addr], false, Some(connection));
        exchange.source = peers.source(peer);
        exchange.way = Way::Circuit { data_max };
        self.put(cx, peers, exchange);
        true
    }
}

impl History {
    /// When a stranger's word is wanted about it; `None` while it is not proven, or being asked about.
    fn wants_stranger_at(&self, now: Instant) -> Option<Instant> {
        let is_proven = self.is_proven() && self.last.is_some_and(|proof| proof.is_alive(now));
        if !is_proven || !self.in_flight.is_empty() {
            return None;
        }
        let word = self.by_stranger.map(|proof| proof.at()).max(self.refused_by_two());
        Some(word.map_or(now, |at| at + WORD_LIFETIME))
    }
}

saved!(struct Strangers { asked as current(|now, at: &Instant| now < *at + WORD_LIFETIME), last, all });
