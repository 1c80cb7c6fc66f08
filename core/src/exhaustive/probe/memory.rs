//! What happened in a world of servers, as an onlooker remembers it, and what he was promised.

use super::{Event, NETWORKS, Said, Turn, View, Way, addr, server_peer};
use crate::exhaustive::explore::promise;
use crate::exhaustive::stage::number;
use crate::probe::Evidence;
use crate::wire::autonat::Message;
use crate::wire::multiaddr;
use crate::words::checkpoint::{Saved, Saver};
use crate::{
    Action, Addr, Duration, Instant, Notice, Outcome, PeerId, Protocol, Reason, Scope, State,
    StreamId, Wake,
};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use bytes::Bytes;

/// How long a proof lasts.
const LIFETIME: Duration = Duration::from_secs(600);
/// How long a nonce may be late.
const LATE: Duration = Duration::from_secs(60);
/// The window of the limit on questions, and that limit.
const MINUTE: Duration = Duration::from_secs(60);
const A_MINUTE: usize = 8;
/// How many questions one server has at once, and how many all have.
const AT_ONCE: usize = 2;
const IN_FLIGHT: usize = 8;
/// How long a lie, a refusal, and at least any other fault is held against a server.
const HOUR: Duration = Duration::from_secs(3_600);
const REFUSED: Duration = Duration::from_secs(600);
const REST: Duration = Duration::from_secs(30);

/// A question to one server about one address.
#[derive(Clone, Debug)]
struct Asked {
    stream: StreamId,
    nonce: u64,
    ended_at: Option<Instant>,
    said_ok: bool,
    brought: bool,
    /// Something happened to us meanwhile that excuses the server.
    slept: bool,
}

type Pair = (usize, usize);

#[derive(Clone, Debug)]
pub(super) struct Memory {
    addrs: usize,
    asked: BTreeMap<Pair, Asked>,
    sent: Vec<Vec<Instant>>,
    /// Asked since something last gave a reason to ask again.
    this_round: BTreeSet<Pair>,
    /// Networks that could not dial the address since it was last proven; and those of them that
    /// said so since the question was opened anew.
    failed: Vec<BTreeSet<u8>>,
    failed_anew: Vec<BTreeSet<u8>>,
    /// Networks that could not dial it from an IP that we never sent a packet to.
    failed_cold: Vec<BTreeSet<u8>>,
    /// How often they did since a stranger last proved it; more than twice is twice.
    refused: Vec<u8>,
    proven: Vec<Option<Instant>>,
    by_stranger: Vec<Option<Instant>>,
    /// Servers whose last word on an address said nothing about it.
    unhelpful: BTreeSet<Pair>,
    /// Servers that said OK and brought nothing, and until when that is held against them.
    lied: BTreeMap<usize, Instant>,
    /// Servers that are not to be asked before then.
    barred: BTreeMap<usize, Instant>,
    /// Whether connections may have died while we slept.
    doubtful: bool,
    /// The server of each stream that was ever opened; a name, of which nothing depends.
    opened: BTreeMap<StreamId, usize>,
    /// Servers that have brought a nonce from another IP.
    multihomed: BTreeSet<usize>,
}

impl Memory {
    pub(super) fn new(addrs: usize) -> Memory {
        Memory {
            addrs,
            asked: BTreeMap::new(),
            sent: vec![Vec::new(); NETWORKS.len()],
            this_round: BTreeSet::new(),
            failed: vec![BTreeSet::new(); addrs],
            failed_anew: vec![BTreeSet::new(); addrs],
            failed_cold: vec![BTreeSet::new(); addrs],
            refused: vec![0; addrs],
            proven: vec![None; addrs],
            by_stranger: vec![None; addrs],
            unhelpful: BTreeSet::new(),
            lied: BTreeMap::new(),
            barred: BTreeMap::new(),
            doubtful: false,
            opened: BTreeMap::new(),
            multihomed: BTreeSet::new(),
        }
    }

    pub(super) fn stream(&self, server: usize, addr: usize) -> StreamId {
        self.asked[&(server, addr)].stream
    }

    pub(super) fn nonce(&self, server: usize, addr: usize) -> u64 {
        self.asked[&(server, addr)].nonce
    }

    pub(super) fn awaits_answer(&self, server: usize, addr: usize) -> bool {
        let asked = self.asked.get(&(server, addr));
        asked.is_some_and(|one| one.ended_at.is_none() && !one.said_ok)
    }

    pub(super) fn awaits_nonce(&self, now: Instant, server: usize, addr: usize) -> bool {
        let asked = self.asked.get(&(server, addr)).filter(|one| !one.brought);
        asked.is_some_and(|one| one.ended_at.is_none_or(|at| now < at + LATE))
    }

    /// What the event itself tells.
    pub(super) fn happened(&mut self, turn: &Turn) {
        match turn.event {
            Event::Connect(_) => {}
            Event::Disconnect(server) => self.this_round.retain(|pair| pair.0 != server),
            Event::Answer(server, addr, Said::Ok) => {
                if let Some(asked) = self.asked.get_mut(&(server, addr)) {
                    asked.said_ok = true;
                }
            }
            Event::Answer(..) => {}
            Event::Bring(server, addr, way @ (Way::Known | Way::Stranger)) => {
                self.brought(turn.now, (server, addr), way == Way::Stranger);
            }
            Event::Bring(_, _, Way::OldConnection | Way::OtherClass | Way::OtherNonce) => {}
            Event::Pass(_) => {}
            Event::Network | Event::Listener => self.open_anew(),
            Event::Sleep(seconds) => self.slept(turn.span, seconds > 25),
        }
        match turn.due.map(|due| due.wake) {
            Some(Wake::ProbeAgain) => {
                self.this_round.clear();
                if self.addrs == 1 {
                    self.failed_anew[0].clear();
                }
            }
            Some(Wake::ServerRested) => self.this_round.clear(),
            _ => {}
        }
        if !turn.listening {
            self.forget();
        }
        self.asked.retain(|_, one| one.ended_at.is_none_or(|at| turn.now < at + LATE));
        for sent in &mut self.sent {
            sent.retain(|at| turn.now < *at + MINUTE);
        }
    }

    fn brought(&mut self, now: Instant, (server, addr): Pair, by_stranger: bool) {
        if let Some(asked) = self.asked.get_mut(&(server, addr)) {
            asked.brought = true;
        }
        self.proven[addr] = Some(now);
        self.failed[addr].clear();
        self.failed_anew[addr].clear();
        self.lied.remove(&server);
        if by_stranger {
            self.by_stranger[addr] = Some(now);
            self.failed_cold[addr].clear();
            self.refused[addr] = 0;
            self.multihomed.insert(server);
        }
    }

    fn open_anew(&mut self) {
        self.this_round.clear();
        self.failed_anew.iter_mut().for_each(BTreeSet::clear);
    }

    fn slept(&mut self, span: Duration, is_long: bool) {
        for one in self.asked.values_mut() {
            one.slept |= one.ended_at.is_none();
            one.ended_at = one.ended_at.map(|at| at + span);
        }
        // Any pause may have ended meanwhile.
        self.this_round.clear();
        if is_long {
            self.doubtful = true;
            self.open_anew();
        }
    }

    /// Nothing is listened on: what was known of the addresses is void.
    fn forget(&mut self) {
        for all in [&mut self.failed, &mut self.failed_anew, &mut self.failed_cold] {
            all.iter_mut().for_each(BTreeSet::clear);
        }
        self.refused.fill(0);
        self.proven.fill(None);
        self.by_stranger.fill(None);
    }

    /// What came out.
    pub(super) fn heard(&mut self, turn: &Turn, action: &Action) -> Result<(), String> {
        match action {
            Action::OpenStream { conn, stream } if stream.protocol == Protocol::DialRequest => {
                let server = turn.conns.iter().position(|of| *of == Some(*conn));
                let server = server.ok_or("asked on no server's connection")?;
                self.opened.insert(*stream, server);
                Ok(())
            }
            Action::Send { stream, body } if self.opened.contains_key(stream) => {
                match Message::decode(body) {
                    Ok(Message::DialRequest { addrs, nonce }) => {
                        self.asks(turn, *stream, nonce, &addrs)
                    }
                    // What is paid.
                    _ => Ok(()),
                }
            }
            Action::Notify(Notice::ProbeEnded { peer, addr: of, outcome }) => {
                let pair = (server_of(*peer)?, number_of(*of)?);
                self.ended(turn, pair, *outcome)
            }
            Action::Notify(Notice::ServerDistrusted { peer }) => {
                let server = server_of(*peer)?;
                promise(self.lied.contains_key(&server), || format!("{server} has told no lie"))
            }
            Action::OpenStream { .. }
            | Action::Send { .. }
            | Action::CloseStream { .. }
            | Action::ResetStream { .. }
            | Action::Dial(_)
            | Action::Disconnect { .. }
            | Action::Mapping(_)
            | Action::Relay(_)
            | Action::Punch(_)
            | Action::Notify(_) => Ok(()),
        }
    }

    /// A question goes out.
    fn asks(
        &mut self,
        turn: &Turn,
        stream: StreamId,
        nonce: u64,
        addrs: &[Bytes],
    ) -> Result<(), String> {
        let server = self.opened[&stream];
        let listed = |number: &usize| addrs == [multiaddr::encode(addr(*number))];
        let about = (0..self.addrs).find(listed).ok_or("asked about a strange address")?;
        let pair = (server, about);
        promise(turn.listening, || "asked where nothing is listened on".into())?;
        promise(self.this_round.insert(pair), || format!("{pair:?} is asked twice in a round"))?;
        let open = |wanted: fn(&Pair, usize) -> bool| {
            let open = self.asked.iter().filter(|(_, one)| one.ended_at.is_none());
            open.filter(|(pair, _)| wanted(pair, server)).count()
        };
        promise(open(|_, _| true) < IN_FLIGHT, || "too many in flight".into())?;
        promise(open(|pair, server| pair.0 == server) < AT_ONCE, || {
            format!("server {server} is asked too much at once")
        })?;
        promise(self.sent[server].len() < A_MINUTE, || format!("{server} is asked too often"))?;
        let bars = [self.lied.get(&server), self.barred.get(&server)];
        promise(bars.into_iter().flatten().all(|until| *until <= turn.now), || {
            format!("server {server} is asked although it is not to be")
        })?;
        self.sent[server].push(turn.now);
        let asked =
            Asked { stream, nonce, ended_at: None, said_ok: false, brought: false, slept: false };
        self.asked.insert(pair, asked);
        Ok(())
    }

    /// A probe is over.
    fn ended(&mut self, turn: &Turn, pair: Pair, outcome: Outcome) -> Result<(), String> {
        let (server, addr) = pair;
        let asked = self.asked.get_mut(&pair).ok_or_else(|| format!("{pair:?} was not asked"))?;
        let is_late = asked.ended_at.is_some();
        asked.ended_at = asked.ended_at.or(Some(turn.now));
        let Asked { brought, slept, said_ok, .. } = *asked;
        let upset = matches!(
            turn.event,
            Event::Disconnect(_) | Event::Network | Event::Listener | Event::Sleep(_)
        );
        let failed = |said| turn.event == Event::Answer(server, addr, said);
        let is_stranger = failed(Said::StrangerFailed);
        let counts = (failed(Said::DialError) || is_stranger) && !brought && !slept;
        promise((outcome == Outcome::DialFailed) == counts, || {
            format!("{pair:?} ended as {outcome:?}, which is not what was said")
        })?;
        promise((outcome == Outcome::Proved) == brought, || {
            format!("{pair:?} ended as {outcome:?}, brought: {brought}")
        })?;
        let network = NETWORKS[server];
        match outcome {
            Outcome::Proved if is_late => return Ok(()),
            Outcome::Proved => {}
            Outcome::DialFailed => {
                self.failed[addr].insert(network);
                self.failed_anew[addr].insert(network);
                if is_stranger || self.multihomed.contains(&server) {
                    self.failed_cold[addr].insert(network);
                    self.refused[addr] = (self.refused[addr] + 1).min(2);
                }
            }
            Outcome::Lie => {
                let silent = said_ok && turn.due.is_some();
                promise(silent, || format!("server {server} has not lied"))?;
                self.lied.insert(server, turn.now + HOUR);
            }
            Outcome::Refused
            | Outcome::Rejected
            | Outcome::Error
            | Outcome::DialBackError
            | Outcome::Timeout
            | Outcome::Declined => {}
        }
        if outcome.is_evidence() {
            self.unhelpful.remove(&pair);
        } else if !upset {
            self.unhelpful.insert(pair);
            self.bar(turn.now, server, outcome, slept);
        }
        Ok(())
    }

    fn bar(&mut self, now: Instant, server: usize, outcome: Outcome, slept: bool) {
        let rest = match outcome {
            Outcome::Refused => REFUSED,
            Outcome::Rejected => REST,
            Outcome::Timeout | Outcome::Error if !slept && !self.doubtful => REST,
            Outcome::Proved
            | Outcome::DialFailed
            | Outcome::Error
            | Outcome::DialBackError
            | Outcome::Timeout
            | Outcome::Lie
            | Outcome::Declined => return,
        };
        let until = self.barred.entry(server).or_insert(now);
        *until = (*until).max(now + rest);
    }

    /// What is said of the evidence before and after.
    pub(super) fn evidence(
        &self,
        turn: &Turn,
        addr: usize,
        before: Option<Evidence>,
        after: Option<Evidence>,
    ) -> Result<(), String> {
        let Some(after) = after else {
            return promise(!turn.listening, || "nothing is known where it should be".into());
        };
        let last = after.last.map(|proof| proof.at());
        promise(last == self.proven[addr], || format!("proven at {last:?}, not so"))?;
        let by_stranger = after.by_stranger.map(|proof| proof.at());
        let closed = after.closed_since.is_some();
        promise(by_stranger == self.by_stranger[addr].filter(|_| !closed), || {
            format!("proven by a stranger at {by_stranger:?}, not so")
        })?;
        promise(!closed || self.refused[addr] >= 2, || "strangers were not refused twice".into())?;
        let cold = after.cold_failures;
        promise(cold <= self.failed_cold[addr].len(), || format!("{cold} strangers were refused"))?;
        let failed = after.refuted.map_or(0, usize::from);
        promise(failed <= self.failed[addr].len(), || {
            format!("refuted by {failed} networks, but these failed: {:?}", self.failed[addr])
        })?;
        let was_refuted = before.is_some_and(|before| before.refuted.is_some());
        let is_refuted = after.refuted.is_some();
        match (was_refuted, is_refuted) {
            (false, true) => self.refuted(turn, addr),
            (true, false) => {
                let proof = matches!(turn.event, Event::Bring(_, of, _) if of == addr);
                promise(proof || !turn.listening, || "no longer refuted, without a proof".into())
            }
            (false, false) | (true, true) => Ok(()),
        }
    }

    /// An address is refuted now, which needs the word of everybody who has one.
    fn refuted(&self, turn: &Turn, addr: usize) -> Result<(), String> {
        let failed = &self.failed_anew[addr];
        promise(!failed.is_empty(), || "refuted, though nobody failed in this round".into())?;
        let open = self.asked.iter().find(|(pair, one)| pair.1 == addr && one.ended_at.is_none());
        promise(open.is_none(), || format!("refuted, though {open:?} is under way"))?;
        for server in (0..NETWORKS.len()).filter(|server| turn.conns[*server].is_some()) {
            // Whoever is of no use for one address may be at rest for the other.
            let excused = self.unhelpful.iter().any(|pair| pair.0 == server);
            let heard = failed.contains(&NETWORKS[server]) || excused;
            promise(heard, || format!("refuted without the word of server {server}"))?;
        }
        Ok(())
    }

    /// What is judged of an address.
    pub(super) fn verdict(
        &self,
        turn: &Turn,
        addr: usize,
        before: &View,
        after: &View,
    ) -> Result<(), String> {
        let Some(verdict) = after.verdict else { return Ok(()) };
        let refuted = after.evidence.is_some_and(|evidence| evidence.refuted.is_some());
        let alive = |at: Option<Instant>| at.is_some_and(|at| turn.now < at + LIFETIME);
        let reachable = turn.listening && !refuted && alive(self.proven[addr]);
        let wanted = match (reachable, refuted && turn.listening) {
            (true, _) => State::Reachable,
            (false, true) => State::Unreachable,
            (false, false) => State::Unknown,
        };
        promise(verdict.state() == wanted, || format!("{verdict:?}, not {wanted:?}"))?;
        let scope = verdict.scope();
        let closed = after.evidence.is_some_and(|evidence| evidence.closed_since.is_some());
        let anywhere = reachable && alive(self.by_stranger[addr]) && !closed;
        promise((scope == Some(Scope::Anywhere)) == anywhere, || {
            format!("{scope:?}: {verdict:?}")
        })?;
        let refused = self.failed_cold[addr].len() >= 2;
        promise(scope != Some(Scope::ContactedOnly) || refused, || "nobody was refused".into())?;
        let expired = verdict.reason() == Reason::Expired;
        let was_proven = self.proven[addr].is_some();
        promise(!expired || was_proven, || "expired, though never proven".into())?;
        let left = before.verdict.is_some_and(|old| old.state() == State::Reachable) && !reachable;
        let news = refuted || !turn.listening || !alive(self.proven[addr]);
        promise(!left || news, || "no longer reachable, for no reason".into())
    }

    pub(super) fn save(&self, out: &mut Saver<'_>) {
        number(out, self.asked.len());
        for ((server, addr), one) in &self.asked {
            number(out, *server);
            number(out, *addr);
            one.ended_at.save(out);
            (one.said_ok, one.brought, one.slept).save(out);
        }
        self.sent.save(out);
        for pairs in [&self.this_round, &self.unhelpful] {
            number(out, pairs.len());
            for (server, addr) in pairs {
                number(out, *server);
                number(out, *addr);
            }
        }
        for sets in [&self.failed, &self.failed_anew, &self.failed_cold] {
            sets.save(out);
        }
        for at in self.proven.iter().chain(&self.by_stranger) {
            at.is_some().save(out);
            at.iter().for_each(|at| out.ranked(at, LIFETIME));
        }
        self.refused.save(out);
        self.multihomed.save(out);
        self.doubtful.save(out);
        for bars in [&self.lied, &self.barred] {
            out.current(bars, |now, until: &Instant| now < *until);
        }
    }
}

fn server_of(peer: PeerId) -> Result<usize, String> {
    let found = (0..NETWORKS.len()).find(|server| server_peer(*server) == peer);
    found.ok_or_else(|| format!("{peer} is no server"))
}

fn number_of(of: Addr) -> Result<usize, String> {
    (0..2).find(|number| addr(*number) == of).ok_or_else(|| format!("{of} is not ours"))
}
