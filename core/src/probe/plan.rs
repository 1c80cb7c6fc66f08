//! Who is asked about what, now: the only place that starts probes.

use super::exchange::Exchange;
use super::history::{ANSWERS_MAX, History, Round};
use super::servers::{Askable, Server};
use super::{HISTORIES_MAX, Probe};
use crate::candidates::Candidates;
use crate::local::Local;
use crate::peers::Peers;
use crate::wire::autonat::Message;
use crate::wire::multiaddr;
use crate::words::config::{PROBES_MAX, SERVERS_ASKED_MAX};
use crate::words::deadline::{Deadline, earliest};
use crate::{
    Action, Addr, ConnId, Cx, Duration, Instant, NextProbe, PeerId, Protocol, StreamId, Wake,
};
use alloc::vec;
use alloc::vec::Vec;

/// Who comes first; see [`Probe::rank`].
type Rank = (usize, usize, bool, bool, Duration, u64);

/// What can be done about one address at this moment.
enum Next {
    /// Ask this server.
    Ask(PeerId, ConnId),
    /// Somebody could be asked, but not before then (`None`: not before a probe has ended).
    Wait(Option<Instant>),
    /// Nobody is left who could be asked in this round.
    Exhausted,
}

impl Probe {
    /// Start every probe that is due, and find out when the next one is.
    pub(super) fn plan(
        &mut self,
        cx: &mut Cx<'_>,
        local: &Local,
        candidates: &Candidates,
        peers: &Peers,
    ) {
        let targets = self.targets(cx.now, local, candidates);
        self.wake = None;
        let mut urgent = targets.clone();
        urgent.sort_by_key(|addr| self.histories.get(addr).map(History::urgency));
        for addr in &urgent {
            self.pursue(cx, peers, &targets, *addr);
        }
        self.get_to_know_servers(cx, peers, &targets);
    }

    /// What is to be probed: the candidates, strongest first, and what is proven though no source
    /// names it any more (it is advertised, so it must stay under proof). Where nothing is listened
    /// on, no nonce could ever come back.
    fn targets(&mut self, now: Instant, local: &Local, candidates: &Candidates) -> Vec<Addr> {
        let mut targets: Vec<Addr> = candidates.iter().map(|candidate| candidate.addr).collect();
        for (addr, history) in &self.histories {
            let proven =
                history.refuted.is_none() && history.last.is_some_and(|proof| proof.is_alive(now));
            if proven && candidates.get(*addr).is_none() {
                targets.push(*addr);
            }
        }
        targets.retain(|addr| local.listens_in(addr.class()));
        for addr in &targets {
            self.histories.entry(*addr).or_insert_with(History::new);
        }
        // A candidate that flaps finds its history again, as long as there is room.
        while self.histories.len() > HISTORIES_MAX {
            let stale = self.histories.iter().filter(|(addr, history)| {
                candidates.get(**addr).is_none() && history.in_flight.is_empty()
            });
            let oldest = stale.min_by_key(|(_, history)| history.last.map(|proof| proof.at()));
            let Some(addr) = oldest.map(|(addr, _)| *addr) else {
                break;
            };
            self.histories.remove(&addr);
            targets.retain(|target| *target != addr);
        }
        targets
    }

    /// Ask about one address as much as its round wants and the limits allow.
    fn pursue(&mut self, cx: &mut Cx<'_>, peers: &Peers, targets: &[Addr], addr: Addr) {
        if let Some(history) = self.histories.get_mut(&addr) {
            // Who came in as a stranger and named it found it open, or says so.
            let sighted = peers.sighted_at(addr);
            if sighted.is_some_and(|at| history.is_unproven_since(cx.now, at)) {
                history.stir();
            }
            if history.is_due(cx.now) {
                history.wake(cx.now);
            }
        }
        // Whatever newcomers are asked meanwhile, the pause ends when it ends.
        self.wake_after_pause(addr);
        loop {
            let Some(history) = self.histories.get(&addr) else {
                return;
            };
            let searching = matches!(history.round, Round::Search | Round::Rest { .. });
            let busy = !searching && !history.in_flight.is_empty();
            let next = match self.next(cx.now, peers, addr, history) {
                Next::Ask(..) | Next::Wait(_) if busy => return,
                Next::Ask(..) if self.exchanges_in_flight() >= PROBES_MAX => return,
                next @ (Next::Ask(..) | Next::Wait(_) | Next::Exhausted) => next,
            };
            match next {
                Next::Ask(peer, conn) => {
                    let addrs = self.with_others(addr, peer, targets);
                    self.ask(cx, peers, (peer, conn), addrs);
                }
                Next::Wait(at) => return self.wake_at(at, Wake::ServerRested),
                Next::Exhausted if self.is_stale(cx.now, addr) => {}
                // In the pause that begins now, those may be asked that were not heard out.
                Next::Exhausted if self.rest(cx, peers, addr) => {}
                Next::Exhausted => return,
            }
        }
    }

    /// A round that ended while we slept starts again.
    fn is_stale(&mut self, now: Instant, addr: Addr) -> bool {
        let stale = self.histories.get_mut(&addr).filter(|history| history.is_stale(now));
        stale.is_some_and(|history| {
            history.doubt();
            true
        })
    }

    /// The round has its answer or nobody left to ask: pause, once all answers are in. Whether a
    /// pause began.
    fn rest(&mut self, cx: &mut Cx<'_>, peers: &Peers, addr: Addr) -> bool {
        let rested = self.earliest_rest(cx.now, addr);
        let Some(history) = self.histories.get_mut(&addr) else {
            return false;
        };
        let waiting = !history.in_flight.is_empty();
        let untouched = history.answers.is_empty() && !history.proved_in_round;
        if history.would_refute() && peers.awaits_acquaintance() {
            // Whoever we called and who has not said yet what he serves may serve this.
            return false;
        }
        let over = !matches!(history.round, Round::Rest { .. }) && !waiting;
        if over {
            if untouched {
                // Nobody was there to be asked: the question stays open, without a timer of its
                // own, until a server appears or comes back from its rest.
                self.wake_at(rested, Wake::ServerRested);
                return false;
            }
            let unheard = |(peer, _): &(PeerId, &Server)| !history.is_heard_out(*peer);
            let missed = self.servers.iter().filter(unheard).map(|(peer, _)| peer).collect();
            history.conclude(cx.now, (self.servers.met(), missed), cx.draw);
        }
        self.wake_after_pause(addr);
        over
    }

    fn wake_after_pause(&mut self, addr: Addr) {
        let round = self.histories.get(&addr).map(|history| history.round);
        if let Some(Round::Rest { until, .. }) = round {
            self.wake_at(Some(until), Wake::ProbeAgain);
        }
    }

    fn next(&self, now: Instant, peers: &Peers, addr: Addr, history: &History) -> Next {
        let anywhere =
            history.refuted.is_none() && history.by_stranger.is_some_and(|one| one.is_alive(now));
        let resting = matches!(history.round, Round::Rest { .. });
        if history.is_answered() && (anywhere || !resting) {
            return Next::Exhausted;
        }
        let heard = history.heard();
        if heard.len() >= SERVERS_ASKED_MAX || history.answers.len() >= ANSWERS_MAX {
            return Next::Exhausted;
        }
        let mut best: Option<(Rank, PeerId, ConnId)> = None;
        let mut wait: Option<Option<Instant>> = None;
        for (peer, server) in self.servers.iter() {
            let group = server.group(self.allow_private);
            // Its network changes with the connection that comes first; it is the same server still.
            let asked = history.answers.contains_key(&peer)
                || history.in_flight.contains_key(&peer)
                || heard.contains(&group);
            // What is searched through is asked again of newcomers only.
            let thorough = resting || history.proved_in_round && history.searched.is_some();
            if asked || thorough && !history.is_news(peer, server.met) {
                continue;
            }
            let spares_at = server.spares_at(now).filter(|_| history.round == Round::Recheck);
            match server.askable(now, peers, addr) {
                Askable::Now(_) if spares_at.is_some() => wait = Some(soonest(wait, spares_at)),
                Askable::Now(conn) => {
                    let rank = self.rank(peers, history, (peer, conn, server));
                    if best.is_none_or(|(least, ..)| rank < least) {
                        best = Some((rank, peer, conn));
                    }
                }
                Askable::Soon(at) => wait = Some(soonest(wait, at)),
                Askable::Resting(_)
                | Askable::Refuses
                | Askable::Distrusted
                | Askable::Disconnected => {}
            }
        }
        match (best, wait) {
            (Some((_, peer, conn)), _) => Next::Ask(peer, conn),
            (None, Some(at)) => Next::Wait(at),
            (None, None) => Next::Exhausted,
        }
    }

    /// When an address is probed next.
    pub(crate) fn next_probe(&self, now: Instant, peers: &Peers, addr: Addr) -> NextProbe {
        let Some(history) = self.histories.get(&addr) else { return NextProbe::WithServer };
        if !history.in_flight.is_empty() {
            return NextProbe::Now;
        }
        // A pause ends by itself, but who would be asked then?
        let may_be_asked =
            |(_, server): (PeerId, &Server)| server.is_connected() && !server.is_distrusted(now);
        let rested = match history.round {
            Round::Rest { until, .. } if self.servers.iter().any(may_be_asked) => Some(until),
            Round::Rest { .. } | Round::Search | Round::Renew | Round::Recheck => None,
        };
        let first = |at: Option<Instant>| at.into_iter().chain(rested).min();
        match self.next(now, peers, addr, history) {
            Next::Ask(..) => NextProbe::Now,
            Next::Wait(None) if rested.is_none() => NextProbe::Now,
            Next::Wait(at) => first(at).map_or(NextProbe::WithServer, NextProbe::At),
            Next::Exhausted => first(None).map_or(NextProbe::WithServer, NextProbe::At),
        }
    }

    /// Who is asked first: in a recheck whose turn it is; earlier provers of this address, then
    /// servers that we chose to dial (whoever comes to us may come in numbers), then those with
    /// nothing to do, then the nearest.
    fn rank(
        &self,
        peers: &Peers,
        history: &History,
        (peer, conn, server): (PeerId, ConnId, &Server),
    ) -> Rank {
        let prover = history.provers.iter().position(|one| *one == peer);
        let rtt = peers.get(conn).and_then(|connection| connection.rtt);
        let busy = !server.is_idle();
        let uninvited = !server.was_dialled();
        let rtt = rtt.unwrap_or(Duration::MAX);
        let turn = history.turn(peer);
        (turn, prover.unwrap_or(usize::MAX), uninvited, busy, rtt, server.met)
    }

    /// The wanted address, and as many others as may go along: those that this server was not
    /// asked about in their round and that nobody has proven.
    fn with_others(&self, addr: Addr, peer: PeerId, targets: &[Addr]) -> Vec<Addr> {
        let open = |other: &&Addr| {
            **other != addr
                && self.histories.get(*other).is_some_and(|history| {
                    history.round == Round::Search
                        && !history.proved_in_round
                        && !history.answers.contains_key(&peer)
                        && !history.in_flight.contains_key(&peer)
                })
        };
        let chooses = self.servers.get(peer).is_some_and(|server| server.chooses);
        let room = if chooses { 0 } else { self.addrs_per_request.saturating_sub(1) };
        let others = targets.iter().filter(open).take(room);
        core::iter::once(addr).chain(others.copied()).collect()
    }

    fn ask(
        &mut self,
        cx: &mut Cx<'_>,
        peers: &Peers,
        (peer, conn): (PeerId, ConnId),
        addrs: Vec<Addr>,
    ) {
        let [addr, ..] = *addrs else { return };
        let Some(server) = self.servers.get_mut(peer) else {
            return;
        };
        let Some(history) = self.histories.get_mut(&addr) else {
            return;
        };
        let group = server.group(self.allow_private);
        let cold = server.is_cold_for(addr);
        server.sent(cx.now);
        history.in_flight.insert(peer, group);
        let mut exchange = Exchange::new(cx.now, (peer, group, conn), addrs, cold, peers.get(conn));
        exchange.source = peers.source(peer);
        self.put(cx, peers, exchange);
    }

    /// Put the question.
    pub(super) fn put(&mut self, cx: &mut Cx<'_>, peers: &Peers, exchange: Exchange) {
        self.asked += 1;
        let stream = StreamId::outbound(Protocol::DialRequest, self.asked);
        let Exchange { peer, conn, addrs, .. } = &exchange;
        let (conn, wanted) = (*conn, (addrs.clone(), *peer, stream));
        let nonce = self.nonces.bind(cx.draw, wanted, peers.serial());
        // autonat-v2 §Overview: in descending order of priority, the wanted one first.
        let encoded = addrs.iter().map(|addr| multiaddr::encode(*addr)).collect();
        // Nothing is left out: fifty of the longest addresses stay far below what servers read.
        let (request, _) = Message::dial_request(encoded, nonce);
        self.exchanges.insert(stream, exchange);
        cx.actions.push(Action::OpenStream { conn, stream });
        cx.actions.push(Action::Send { stream, body: request.encode() });
    }

    /// A server that never answered anything gets one question about the strongest address that
    /// could do with its word, so that its worth is known before it is needed.
    fn get_to_know_servers(&mut self, cx: &mut Cx<'_>, peers: &Peers, targets: &[Addr]) {
        let new = |(peer, server): (PeerId, &Server)| (!server.has_history()).then_some(peer);
        let unknown: Vec<PeerId> = self.servers.iter().filter_map(new).collect();
        self.unmet = 0;
        for peer in unknown {
            let Some(server) = self.servers.get(peer) else { continue };
            if !server.is_idle() {
                self.unmet += 1;
                continue;
            }
            let group = server.group(self.allow_private);
            let wanted = |addr: &&Addr| {
                self.histories.get(*addr).is_some_and(|history| {
                    let heard = history.heard();
                    heard.len() < SERVERS_ASKED_MAX && !heard.contains(&group)
                })
            };
            let askable = |addr: &Addr| match server.askable(cx.now, peers, *addr) {
                Askable::Now(conn) => Some((*addr, conn)),
                Askable::Soon(_)
                | Askable::Resting(_)
                | Askable::Refuses
                | Askable::Distrusted
                | Askable::Disconnected => None,
            };
            if let Some((addr, conn)) = targets.iter().filter(wanted).find_map(askable) {
                self.unmet += 1;
                if self.exchanges_in_flight() < PROBES_MAX {
                    self.ask(cx, peers, (peer, conn), vec![addr]);
                }
            }
        }
    }

    /// When the first of the servers that are at rest, or refuse this class, may be asked again.
    fn earliest_rest(&self, now: Instant, addr: Addr) -> Option<Instant> {
        let back = self.servers.iter().filter(|(_, server)| server.is_connected());
        back.filter_map(|(_, server)| server.back_at(now, addr.class())).min()
    }

    fn wake_at(&mut self, at: Option<Instant>, wake: Wake) {
        self.wake = earliest(self.wake, at.map(|at| Deadline::new(at, wake)));
    }
}

/// The sooner of two waits; a wait for the end of a probe needs no timer, so that any timer counts.
fn soonest(one: Option<Option<Instant>>, other: Option<Instant>) -> Option<Instant> {
    match (one.flatten(), other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
