//! Floor 4 · AutoNAT v2, the asking side: who is asked about which address, and what came of it; and
//! what AutoNAT v1 servers say meanwhile (`hearsay`).
//!
//! Knows: servers and their standing, probes in flight, the history of every address.
//! Reads: candidates (what to ask), peers (whom to ask, on which connection).
//!
//! ```text
//!  a round:  search (all at once) ─► rest ─► renew | recheck (one by one) ─► rest ─► …
//!               ▲ a new fact: network, candidate, failed renewal     pauses: 15 s doubling to 105 s
//!  a probe:  asked ─► [pays dial data] ─► answered | awaits nonce ─► one Outcome
//! ```
//!
//! Only a matched nonce (`nonce.rs`) proves; only `Proved` and `DialFailed` are evidence about the
//! address; every other outcome is about the server and costs it a rest, a class or its standing.
//!
//! Limits: `PROBES_MAX` in flight, `PROBES_PER_SERVER_MAX` a server, `PROBES_PER_SERVER_MIN` a
//! minute a server, `SERVERS_ASKED_MAX` networks a round, a budget for dial data (`purse.rs`),
//! `HISTORIES_MAX` histories (the one proven longest ago goes; candidates never).
//! Follows: autonat-v2 §Overview, §Requirements for DialStatus, §Amplification Attack Prevention.
//!
//! A good first change here: ask a server that is about to disconnect no more.

mod doubt;
mod exchange;
#[cfg(test)]
mod fake;
mod hearsay;
mod history;
mod nonce;
mod plan;
mod purse;
mod servers;
mod strangers;
#[cfg(test)]
mod tests;

use crate::candidates::Candidates;
use crate::local::Local;
use crate::peers::Peers;
use crate::wire::autonat::{DialBack, DialBackResponse};
use crate::words::addr::Domain;
use crate::words::checkpoint::{BadCheckpoint, Loader, Room, are_counts, saved};
use crate::words::config::PROBES_MAX;
use crate::words::deadline::{Deadline, earliest};
use crate::words::sleep::Sleep;
use crate::{
    Action, Addr, ConnId, Cx, Group, Instant, Notice, Oddity, Outcome, PeerId, Protocol, StreamEnd,
    StreamId,
};
use alloc::collections::BTreeMap;
use bytes::Bytes;
use exchange::{Exchange, Progress};
#[cfg(test)]
pub(crate) use fake::Claim;
pub(crate) use hearsay::{Hearsay, Voice};
use history::{Answer, History, Round};
pub use nonce::Proof;
use nonce::{Arrival, Nonces};
use purse::Purse;
pub(crate) use servers::Server;
use servers::Servers;
use strangers::Strangers;

/// Addresses with a history, number; ours: every candidate and as many that flap.
const HISTORIES_MAX: usize = 2 * crate::words::config::CANDIDATES_MAX;
/// Dial-back streams that are open and silent, number; ours. When full, the oldest is reset: its
/// nonce is the least likely to come.
const DIAL_BACKS_MAX: usize = 64;
/// Those of one connection, number; ours: a dial-back needs one. Over it the newest is reset, so
/// that no single peer can keep the others' nonces out.
const DIAL_BACKS_PER_CONN_MAX: usize = 2;

/// What is known about one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Evidence {
    pub(crate) proofs: u32,
    pub(crate) last: Option<Proof>,
    pub(crate) by_stranger: Option<Proof>,
    /// Since when strangers are known to be refused: what they showed before counts no more.
    pub(crate) closed_since: Option<Instant>,
    /// So many servers failed and none succeeded, everybody in reach having been asked.
    pub(crate) refuted: Option<u8>,
    /// Networks that failed from IPs never contacted, since one such last succeeded.
    pub(crate) cold_failures: usize,
    pub(crate) outlook: Outlook,
}

/// What is to be expected of the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// A probe is in flight or about to be sent.
    Probing,
    /// No server is in reach.
    NoServers,
    /// All in reach refuse the class.
    Refused,
    /// All in reach have lied.
    Distrusted,
    /// Nobody says anything useful for now.
    Unhelpful,
}

/// The asking side of AutoNAT v2.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Probe {
    allow_private: bool,
    addrs_per_request: usize,
    servers: Servers,
    exchanges: BTreeMap<StreamId, Exchange>,
    nonces: Nonces,
    histories: BTreeMap<Addr, History>,
    /// Inbound dial-back streams that have not said their nonce.
    dial_backs: BTreeMap<StreamId, ConnId>,
    purse: Purse,
    strangers: Strangers,
    hearsay: Hearsay,
    asked: u64,
    dirty: bool,
    seen: Option<(u64, u64, u64)>,
    wake: Option<Deadline>,
    /// Servers whose first answer is out or about to be asked for.
    unmet: usize,
    revision: u64,
}

impl Probe {
    pub(crate) fn new(allow_private: bool, addrs_per_request: usize) -> Probe {
        Probe { allow_private, addrs_per_request, ..Probe::default() }
    }

    /// A message came on a stream that asks a server.
    pub(crate) fn answered(
        &mut self,
        cx: &mut Cx<'_>,
        stream: StreamId,
        body: &Bytes,
        (local, peers): (&Local, &Peers),
    ) -> Result<(), Oddity> {
        if stream.protocol == Protocol::AutonatV1 {
            return self.hearsay.answered(cx, stream, body);
        }
        let exchange = self.exchanges.get_mut(&stream).ok_or(Oddity::UnknownStream)?;
        let closed = exchange.awaits_nonce();
        let allow_private = self.allow_private;
        let stranger = |ip| {
            let is_one = peers.is_stranger(cx.now, ip, allow_private);
            is_one.then(|| Group::of(ip, allow_private))
        };
        let progress = exchange.answered(cx.now, body, stranger);
        // The answer may have said which address an early nonce was for.
        let proof = exchange.take_arrived(progress);
        let awaits_nonce = exchange.awaits_nonce();
        if let Some(proof) = proof {
            self.proved(proof);
        }
        match progress {
            // Only once: whoever answers twice finds the stream closed already.
            Progress::Goes if awaits_nonce && !closed => {
                // autonat-v2 §Overview: the client MUST close the stream after the response.
                cx.actions.push(Action::CloseStream { stream });
                self.dirty = true;
            }
            Progress::Goes => {}
            Progress::WantsData(bytes) => self.pay_or_decline(cx, stream, bytes, local),
            Progress::Ends(outcome) => {
                cx.actions.push(Action::CloseStream { stream });
                self.end(cx, stream, outcome);
            }
            Progress::Breaks(outcome) => {
                cx.actions.push(Action::ResetStream { stream });
                self.end(cx, stream, outcome);
            }
        }
        Ok(())
    }

    /// A stream that asks a server ended, or could not be opened.
    pub(crate) fn stream_ended(
        &mut self,
        cx: &mut Cx<'_>,
        stream: StreamId,
        end: StreamEnd,
    ) -> Result<(), Oddity> {
        if stream.protocol == Protocol::AutonatV1 {
            return self.hearsay.ended(cx, stream);
        }
        let exchange = self.exchanges.get(&stream).ok_or(Oddity::UnknownStream)?;
        if !exchange.awaits_nonce() {
            if end == StreamEnd::Finished {
                // Our own half is open still, and the other has nothing to say.
                cx.actions.push(Action::ResetStream { stream });
            }
            self.end(cx, stream, Outcome::Error);
        }
        Ok(())
    }

    /// A peer opened a dial-back stream.
    pub(crate) fn dial_back_opened(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        stream: StreamId,
        peers: &Peers,
    ) -> Result<(), Oddity> {
        if self.dial_backs.contains_key(&stream) {
            return Err(Oddity::ReusedId);
        }
        let of_conn = self.dial_backs.values().filter(|of| **of == conn).count();
        let oddity = if peers.get(conn).is_none() {
            Some(Oddity::UnknownConnection)
        } else {
            (of_conn >= DIAL_BACKS_PER_CONN_MAX).then_some(Oddity::Full)
        };
        if let Some(oddity) = oddity {
            cx.actions.push(Action::ResetStream { stream });
            return Err(oddity);
        }
        if self.dial_backs.len() >= DIAL_BACKS_MAX
            && let Some((silent, _)) = self.dial_backs.pop_first()
        {
            cx.actions.push(Action::ResetStream { stream: silent });
        }
        self.dial_backs.insert(stream, conn);
        Ok(())
    }

    /// A nonce came back, on whatever stream.
    pub(crate) fn dialled_back(
        &mut self,
        cx: &mut Cx<'_>,
        stream: StreamId,
        body: &Bytes,
        peers: &Peers,
    ) -> Result<(), Oddity> {
        let conn = self.dial_backs.remove(&stream).ok_or(Oddity::UnknownStream)?;
        let matched = DialBack::decode(body).map_err(|_| Oddity::MalformedFrame).and_then(
            |DialBack { nonce }| {
                let connection = peers.get(conn).ok_or(Oddity::UnknownConnection)?;
                self.nonces.matched(cx.now, nonce, connection)
            },
        );
        match matched {
            Ok((arrival, probe)) => {
                // autonat-v2 §Overview: answer OK, and MUST close the stream then.
                cx.actions.push(Action::Send { stream, body: DialBackResponse::OK.encode() });
                cx.actions.push(Action::CloseStream { stream });
                self.arrived(cx, arrival, probe);
                Ok(())
            }
            Err(oddity) => {
                cx.actions.push(Action::ResetStream { stream });
                Err(oddity)
            }
        }
    }

    /// A dial-back stream ended without a nonce.
    pub(crate) fn dial_back_ended(&mut self, cx: &mut Cx<'_>, stream: StreamId, end: StreamEnd) {
        if self.dial_backs.remove(&stream).is_some() && end == StreamEnd::Finished {
            // Our own half is open still, and there is nothing to say on it.
            cx.actions.push(Action::ResetStream { stream });
        }
    }

    /// Peers told the application that they could not dial an address of ours.
    pub(crate) fn dial_failure_reported(&mut self, addr: Addr) -> Result<(), Oddity> {
        let history = self.histories.get_mut(&addr).ok_or(Oddity::UnknownAddress)?;
        if history.is_proven() {
            history.stir();
            self.dirty = true;
        }
        Ok(())
    }

    /// A router has mapped an address of ours: for the first time, or anew. Whatever servers found
    /// out before is asked again.
    pub(crate) fn mapped(&mut self, cx: &mut Cx<'_>, addr: Addr) {
        let Some(history) = self.histories.get_mut(&addr) else { return };
        self.dirty = true;
        if history.is_proven() {
            return history.stir();
        }
        history.doubt();
        // Whoever dials it at this moment may have begun before the router let anybody in.
        self.take_back(cx, |exchange| exchange.addrs.contains(&addr));
    }

    /// Whether servers are still being asked about an address that none of them has proven.
    pub(crate) fn is_searching(&self, addr: Addr) -> bool {
        self.histories.get(&addr).is_none_or(|history| history.round == Round::Search)
    }

    /// A connection is gone: its probes return to the queue, but an `OK` still awaits its nonce,
    /// which comes on another connection.
    pub(crate) fn disconnected(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.dial_backs.retain(|_, of| *of != conn);
        self.hearsay.disconnected(cx, conn);
        let lost = |(stream, exchange): (&StreamId, &Exchange)| {
            (exchange.conn == conn && !exchange.awaits_nonce()).then_some(*stream)
        };
        while let Some(stream) = self.exchanges.iter().find_map(lost) {
            self.cut_off(cx, stream);
        }
        self.histories.values_mut().for_each(|history| history.disconnected(conn));
    }

    /// We slept. After a nap the questions go on; a long sleep outlasts the patience of every server,
    /// and puts in doubt whatever was proven or refuted. No history is forgotten.
    pub(crate) fn resumed(&mut self, cx: &mut Cx<'_>, sleep: Sleep, peers: &Peers) {
        self.nonces.resumed(sleep, peers.serial());
        self.hearsay.resumed(cx.actions, sleep);
        self.exchanges.values_mut().for_each(|exchange| exchange.resumed(sleep));
        if !sleep.is_nap() {
            self.take_back(cx, |_| true);
            self.histories.values_mut().for_each(History::doubt);
        }
        self.dirty = true;
    }

    /// Expire what is overdue and start what is due.
    pub(crate) fn advance(
        &mut self,
        cx: &mut Cx<'_>,
        local: &Local,
        candidates: &Candidates,
        peers: &Peers,
    ) {
        let now = cx.now;
        let overdue = |(stream, exchange): (&StreamId, &Exchange)| {
            let (at, outcome) = exchange.expiry();
            (at <= now).then_some((*stream, outcome))
        };
        while let Some((stream, outcome)) = self.exchanges.iter().find_map(overdue) {
            if outcome == Outcome::Timeout {
                cx.actions.push(Action::ResetStream { stream });
            }
            self.end(cx, stream, outcome);
        }
        let seen = (local.revision(), candidates.revision(), peers.revision());
        let wake = earliest(self.wake, self.hearsay.deadline());
        let woken = wake.is_some_and(|wake| wake.at <= cx.now);
        if !self.dirty && !woken && self.seen == Some(seen) {
            return;
        }
        for (peer, class) in self.servers.reconcile(peers) {
            let of_class = self.histories.iter_mut().filter(|(addr, _)| addr.class() == class);
            of_class.for_each(|(_, history)| history.takes_back(peer));
        }
        self.leave_the_dead(cx, peers);
        if self.seen.is_some_and(|(network, ..)| network != local.revision()) {
            self.doubt_everything(cx, local, candidates);
        }
        self.seen = Some(seen);
        self.dirty = false;
        self.plan(cx, local, candidates, peers);
        self.hear(cx, candidates, peers);
        self.revision += 1;
    }

    /// When the next probe is overdue or due.
    pub(crate) fn deadline(&self) -> Option<Deadline> {
        let exchanges = self.exchanges.values().map(Exchange::deadline).min();
        earliest(exchanges, earliest(self.wake, self.hearsay.deadline()))
    }

    /// Counts every step in which evidence or outlook may have changed.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// What is known about an address.
    pub(crate) fn evidence(&self, now: Instant, peers: &Peers, addr: Addr) -> Option<Evidence> {
        let history = self.histories.get(&addr)?;
        Some(Evidence {
            proofs: history.proofs,
            last: history.last,
            by_stranger: history.by_stranger,
            closed_since: history.closed_since,
            refuted: history.refuted,
            cold_failures: history.cold_failures(now),
            outlook: self.outlook(now, peers, addr, history),
        })
    }

    /// Addresses with a proof that has not aged out, whether or not any source names them.
    pub(crate) fn proven(&self, now: Instant) -> impl Iterator<Item = Addr> + '_ {
        let fresh = move |history: &History| history.last.is_some_and(|proof| proof.is_alive(now));
        self.histories.iter().filter(move |(_, history)| fresh(history)).map(|(addr, _)| *addr)
    }

    /// Every server met.
    pub(crate) fn servers(&self) -> impl Iterator<Item = (PeerId, &Server)> {
        self.servers.iter()
    }

    /// Whether a server is yet to give its first answer.
    pub(crate) fn awaits_first_answers(&self) -> bool {
        self.unmet > 0
    }

    /// Whether a probe of this address is in flight.
    pub(crate) fn is_probing(&self, addr: Addr) -> bool {
        self.histories.get(&addr).is_some_and(|history| !history.in_flight.is_empty())
    }

    /// Whether core would rather keep this peer's connection: it can dial us back.
    pub(crate) fn wants(&self, now: Instant, peer: PeerId) -> bool {
        self.servers.get(peer).is_some_and(|server| !server.is_distrusted(now))
    }

    fn outlook(&self, now: Instant, peers: &Peers, addr: Addr, history: &History) -> Outlook {
        if !history.in_flight.is_empty() {
            return Outlook::Probing;
        }
        let (mut connected, mut refuse, mut lied, mut soon) = (0, 0, 0, 0);
        for (_, server) in self.servers.iter().filter(|(_, server)| server.is_connected()) {
            connected += 1;
            match server.askable(now, peers, addr) {
                servers::Askable::Refuses => refuse += 1,
                servers::Askable::Distrusted => lied += 1,
                servers::Askable::Now(_) | servers::Askable::Soon(_) => soon += 1,
                servers::Askable::Resting(_) | servers::Askable::Disconnected => {}
            }
        }
        match connected {
            0 => Outlook::NoServers,
            _ if soon > 0 && !matches!(history.round, Round::Rest { .. }) => Outlook::Probing,
            n if n == lied => Outlook::Distrusted,
            n if n == refuse + lied => Outlook::Refused,
            _ => Outlook::Unhelpful,
        }
    }

    fn exchanges_in_flight(&self) -> usize {
        debug_assert!(self.exchanges.len() <= PROBES_MAX, "probes in flight are bounded");
        self.exchanges.len()
    }

    fn pay_or_decline(&mut self, cx: &mut Cx<'_>, stream: StreamId, bytes: u64, local: &Local) {
        let Some(exchange) = self.exchanges.get_mut(&stream) else {
            return;
        };
        let pays = exchange.addrs.first().is_some_and(|addr| {
            let proven = |history: &History| !history.provers.is_empty();
            let ours = local.is_own_ip(addr.ip) || self.histories.get(addr).is_some_and(proven);
            exchange.carries(bytes) && self.purse.pays(cx.now, (*addr, ours), bytes)
        });
        if pays {
            if exchange.is_over_circuit() {
                self.strangers.paid(exchange.peer, bytes);
            }
            return exchange.pay(cx.now, cx.actions, stream, bytes);
        }
        cx.actions.push(Action::ResetStream { stream });
        self.end(cx, stream, Outcome::Declined);
    }

    /// The nonce of a probe came back: news, whether the probe still runs or not.
    fn arrived(&mut self, cx: &mut Cx<'_>, arrival: Arrival, probe: StreamId) {
        let Some(exchange) = self.exchanges.get_mut(&probe) else {
            // Late, but a proof all the same, where it is clear of what.
            let Some(proof) = arrival.proof() else { return };
            self.proved(proof);
            if let Some(server) = self.servers.get_mut(proof.server()) {
                server.proved_late();
            }
            let (peer, addr) = (proof.server(), proof.addr());
            return cx.actions.notify(Notice::ProbeEnded { peer, addr, outcome: Outcome::Proved });
        };
        let Some(proof) = exchange.arrive(arrival) else { return };
        let answered = exchange.awaits_nonce();
        self.proved(proof);
        if answered {
            self.end(cx, probe, Outcome::Proved);
        }
    }

    /// Take a proof into the history of its address.
    fn proved(&mut self, proof: Proof) {
        self.dirty = true;
        let group = match self.servers.get_mut(proof.server()) {
            Some(server) => {
                server.multihomed |= proof.by_stranger();
                server.group(self.allow_private)
            }
            None => Group::of(proof.from(), self.allow_private),
        };
        if let Some(history) = self.histories.get_mut(&proof.addr()) {
            history.proved(proof, group);
        }
    }

    /// A probe ended with a word of the server, or with its silence.
    fn end(&mut self, cx: &mut Cx<'_>, stream: StreamId, outcome: Outcome) {
        let excused = self.exchanges.get(&stream).is_some_and(|one| one.excuses(outcome));
        let outcome = if excused { Outcome::Error } else { outcome };
        let Some(exchange) = self.close(cx, stream, outcome) else { return };
        let outcome = if exchange.proved { Outcome::Proved } else { outcome };
        let Exchange { peer, group, source, conn, cold, .. } = exchange;
        let domain = Domain::of(group, source);
        if exchange.is_over_circuit() {
            self.strangers.ended((peer, conn), outcome);
            if !cold || outcome != Outcome::DialFailed {
                return;
            }
        }
        let line = excused.then_some(conn);
        if let Some(history) = self.histories.get_mut(&exchange.addr())
            && outcome != Outcome::Proved
        {
            history.answered(cx.now, peer, Answer { outcome, group, domain, cold, line });
        }
        let server = self.servers.get_mut(peer).filter(|_| !exchange.is_over_circuit());
        if let Some(server) = server {
            if excused {
                server.cut_off(cx.now, outcome);
            } else {
                server.ended(cx.now, exchange.addr().class(), outcome);
            }
            server.chooses |= exchange.passed_over();
        }
        if outcome == Outcome::Lie {
            cx.actions.notify(Notice::ServerDistrusted { peer });
        }
    }

    /// A probe was cut off with its connection: nobody's fault, so that it may be asked again at
    /// once, of the same server too when it comes back.
    fn cut_off(&mut self, cx: &mut Cx<'_>, stream: StreamId) {
        let Some(exchange) = self.close(cx, stream, Outcome::Error) else { return };
        let outcome = if exchange.proved { Outcome::Proved } else { Outcome::Error };
        if exchange.is_over_circuit() {
            self.strangers.ended((exchange.peer, exchange.conn), outcome);
        } else if let Some(server) = self.servers.get_mut(exchange.peer) {
            server.cut_off(cx.now, outcome);
        }
    }

    /// The only way out of the probes in flight. A nonce that came proves, whatever the server
    /// said afterwards.
    fn close(&mut self, cx: &mut Cx<'_>, stream: StreamId, outcome: Outcome) -> Option<Exchange> {
        let exchange = self.exchanges.remove(&stream)?;
        self.dirty = true;
        self.nonces.retire(cx.now, stream);
        let wanted = exchange.addrs.first();
        if let Some(history) = wanted.and_then(|addr| self.histories.get_mut(addr)) {
            history.in_flight.remove(&exchange.peer);
        }
        let (peer, addr) = (exchange.peer, exchange.addr());
        let outcome = if exchange.proved { Outcome::Proved } else { outcome };
        cx.actions.notify(Notice::ProbeEnded { peer, addr, outcome });
        Some(exchange)
    }
}

saved!(struct Probe {
    servers,
    exchanges,
    nonces,
    histories,
    dial_backs,
    purse,
    strangers,
    hearsay,
    asked as told(),
    dirty,
    seen as seen(<[u64; 3]>::from, [Room::Local, Room::Candidates, Room::Peers]),
    wake,
    unmet,
    revision as revision(Room::Probe),
} given { allow_private, addrs_per_request } by fresh, if is_bounded);

fn fresh(from: &Loader<'_>) -> Result<Probe, BadCheckpoint> {
    Ok(Probe::new(from.config.allow_private, from.config.addrs_per_request))
}

fn is_bounded(probe: &Probe) -> bool {
    are_counts(&[probe.asked, probe.revision]) && probe.exchanges.len() <= PROBES_MAX
}
