//! What the probes of one address have shown, and when it is to be probed again.

use super::nonce::Proof;
use crate::words::addr::Domain;
use crate::words::checkpoint::{Kind, saved};
use crate::words::config::{PROOF_LIFETIME, SERVERS_ASKED_MAX};
use crate::{ConnId, Draw, Duration, Group, Instant, Outcome, PeerId};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

/// The first pause between two rounds, ours: a change right after the start is seen in seconds.
const PAUSE_FIRST: Duration = Duration::from_secs(15);
/// The longest pause, ours: what changes is seen within two minutes, even if a dial times out first.
const PAUSE_MAX: Duration = Duration::from_secs(105);
/// Rounds in a row that lengthen the pause, number: from there on it is the longest.
const STEPS_MAX: u32 = 3;
/// Servers remembered as provers, number; ours: they are asked first when a proof is renewed.
const PROVERS_MAX: usize = 8;
/// Earlier provers whose failures refute an address though we declined to pay another, number; ours:
/// one may lie now and then, and what we pay for an address is enough to hear two.
const PROVERS_REFUTE: usize = 2;
/// Networks whose strangers must fail for an address to be closed to them, number; ours: as many as for
/// *contacted-only*. The one stranger who got in last is enough.
const STRANGERS_REFUSED_MIN: usize = 2;
/// Answers of one round, number; ours: the eight that count and as many that say nothing.
/// When full, the round ends.
pub(super) const ANSWERS_MAX: usize = 4 * SERVERS_ASKED_MAX;

const _: () = assert!(PAUSE_FIRST.as_secs() << STEPS_MAX >= PAUSE_MAX.as_secs());
const _: () = assert!(
    PAUSE_MAX.as_secs() * 2 <= PROOF_LIFETIME.as_secs(),
    "a proof is renewed at least once in its life"
);

/// What a round of questions about one address is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Round {
    /// Everybody is asked, side by side: nothing is known, or what was known is in doubt.
    Search,
    /// It was proven: earlier provers are asked, one after the other, until one proves it again.
    Renew,
    /// It was refuted twice, or nobody could say: one after the other, until one says something.
    Recheck,
    /// Nobody is asked until then.
    Rest { since: Instant, until: Instant },
}

/// One server's answer in the present round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) outcome: Outcome,
    pub(super) group: Group,
    /// What the server would fail or lie together with.
    pub(super) domain: Domain,
    /// Whether it is about a dial from an IP that we never contacted.
    pub(super) cold: bool,
    /// The connection that may be to blame for it: it stood while we slept.
    pub(super) line: Option<ConnId>,
}

/// Whether what was answered so far counts on in the round that is entered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answers {
    Kept,
    Forgotten,
}

/// The history of one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct History {
    pub(super) round: Round,
    /// Whether a proof came in this round, and whether one by a stranger did.
    pub(super) proved_in_round: bool,
    stranger_in_round: bool,
    /// The answers of this round; a server is asked once a round.
    pub(super) answers: BTreeMap<PeerId, Answer>,
    pub(super) in_flight: BTreeMap<PeerId, Group>,
    pub(super) proofs: u32,
    pub(super) last: Option<Proof>,
    /// The last proof by an IP that was never contacted.
    pub(super) by_stranger: Option<Proof>,
    /// Networks, and sources, whose servers failed to dial from IPs never contacted, since one last succeeded,
    /// and when.
    cold_failures: BTreeMap<Domain, Instant>,
    /// Since when strangers are refused, by one search that no stranger's proof has contradicted.
    refused_since: Option<Instant>,
    /// The same, by two of them: what strangers showed before counts no more.
    pub(super) closed_since: Option<Instant>,
    /// So many servers failed and none succeeded, in a round that asked every one of them.
    pub(super) refuted: Option<u8>,
    /// How many servers had been met when a search last ended with nobody left to ask; later ones
    /// are news.
    pub(super) searched: Option<u64>,
    /// Servers that a search got no word from, since they rested, were silent, at fault or away; and
    /// those that failed where others proved. They are asked in every pause, as if they were new:
    /// one of them may yet show that strangers get in.
    pub(super) missed: BTreeSet<PeerId>,
    pub(super) provers: Vec<PeerId>,
    /// Whom rechecks asked, the one asked longest ago first: a server that denies it always, being
    /// the nearest or a liar, must not be the only one that is asked.
    rechecked: Vec<PeerId>,
    step: u32,
}

impl History {
    pub(super) fn new() -> History {
        History {
            round: Round::Search,
            proved_in_round: false,
            stranger_in_round: false,
            answers: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            proofs: 0,
            last: None,
            by_stranger: None,
            cold_failures: BTreeMap::new(),
            refused_since: None,
            closed_since: None,
            refuted: None,
            searched: None,
            missed: BTreeSet::new(),
            provers: Vec::new(),
            rechecked: Vec::new(),
            step: 0,
        }
    }

    /// Something happened that may change the answer: ask everybody, soon and often.
    pub(super) fn doubt(&mut self) {
        self.step = 0;
        self.searched = None;
        self.enter(Round::Search, Answers::Forgotten);
    }

    /// Somebody says that the answer has changed. He may lie, so that his word costs no more than
    /// one round in the shortest pause.
    pub(super) fn stir(&mut self) {
        match &mut self.round {
            Round::Rest { since, until } => *until = (*until).min(*since + PAUSE_FIRST),
            // It is being asked, perhaps of those who dialled before it changed.
            Round::Search | Round::Renew | Round::Recheck => self.step = 0,
        }
    }

    /// Whether nothing is proven now, and this pause had begun already at that moment.
    pub(super) fn is_unproven_since(&self, now: Instant, at: Instant) -> bool {
        let proven = self.is_proven() && self.last.is_some_and(|proof| proof.is_alive(now));
        !proven && matches!(self.round, Round::Rest { since, .. } if since <= at)
    }

    /// Whether the pause is over.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        matches!(self.round, Round::Rest { until, .. } if until <= now)
    }

    /// The pause is over.
    pub(super) fn wake(&mut self, now: Instant) {
        // That strangers are refused is not believed for longer than a proof: the servers that
        // saw it are asked again, with all the others.
        self.cold_failures.retain(|_, at| now < *at + PROOF_LIFETIME);
        let aging = self.cold_failures.values().any(|at| *at + PROOF_LIFETIME / 2 <= now);
        if aging {
            self.searched = None;
        }
        let round = match (self.refuted, self.last) {
            (None, Some(_)) if aging => Round::Search,
            (None, Some(_)) => Round::Renew,
            // What packets lost on the way have refuted is refuted once: everybody is asked again.
            (Some(_), _) if self.step == 1 => Round::Search,
            (Some(_), _) => Round::Recheck,
            (None, None) => Round::Search,
        };
        self.enter(round, Answers::Forgotten);
    }

    pub(super) fn proved(&mut self, proof: Proof, group: Group) {
        let news = self.refuted.is_some() || self.last.is_none();
        self.step = if news { 0 } else { self.step };
        if self.refuted.is_some() {
            // Whatever they failed to dial then has changed: everybody is news.
            self.searched = None;
        }
        if self.provers.is_empty() {
            // More may be paid for an address that is ours: whom we declined is asked again.
            self.answers.retain(|_, answer| answer.outcome != Outcome::Declined);
        }
        self.proofs = self.proofs.saturating_add(1);
        self.last = Some(proof);
        self.refuted = None;
        self.proved_in_round = true;
        if proof.by_stranger() {
            self.stranger_in_round = true;
            self.by_stranger = Some(proof);
            self.cold_failures.clear();
            self.refused_since = None;
            self.closed_since = None;
        }
        self.missed.remove(&proof.server());
        self.provers.retain(|peer| *peer != proof.server());
        // Those who prove more come first.
        let place = if proof.by_stranger() { 0 } else { self.provers.len() };
        self.provers.insert(place, proof.server());
        self.provers.truncate(PROVERS_MAX);
        let (outcome, domain) = (Outcome::Proved, Domain::Network(group));
        let answer = Answer { outcome, group, domain, cold: false, line: None };
        self.answers.insert(proof.server(), answer);
        if self.round == Round::Recheck {
            self.enter(Round::Search, Answers::Kept);
        }
    }

    /// A probe ended without a proof.
    pub(super) fn answered(&mut self, now: Instant, peer: PeerId, answer: Answer) {
        let proved = self.answers.get(&peer).is_some_and(|old| old.outcome == Outcome::Proved);
        if proved || self.answers.len() >= ANSWERS_MAX {
            return;
        }
        self.answers.insert(peer, answer);
        if self.round == Round::Recheck {
            self.rechecked.retain(|one| *one != peer);
            self.rechecked.push(peer);
            if self.rechecked.len() > ANSWERS_MAX {
                self.rechecked.remove(0);
            }
        }
        if answer.outcome == Outcome::DialFailed {
            if !self.is_proven() {
                self.missed.remove(&peer);
            }
            if answer.cold {
                self.cold_failures.retain(|_, at| now < *at + PROOF_LIFETIME);
                if self.cold_failures.len() < SERVERS_ASKED_MAX {
                    self.cold_failures.insert(answer.domain, now);
                }
            }
            // A failure puts a proven address in doubt: everybody is asked, side by side. And where
            // nothing is known, a newcomer's word in a pause need not wait for its end.
            let unjudged = self.refuted.is_none() && self.last.is_none();
            let resting = matches!(self.round, Round::Rest { .. });
            if self.round == Round::Renew || resting && unjudged {
                self.enter(Round::Search, Answers::Kept);
            } else if resting && let Some(servers) = self.refuted {
                // A newcomer that fails as well adds to a verdict that stands.
                self.refuted = Some(servers.max(self.failed_servers()));
            }
        }
    }

    /// A server refused to test this, not having heard of the class, and has heard of it now: it may be
    /// asked once more.
    pub(super) fn takes_back(&mut self, peer: PeerId) {
        self.answers.retain(|one, answer| *one != peer || answer.outcome != Outcome::Refused);
    }

    /// A connection is gone. Who did not answer for its fault is as good as new, should there be
    /// another.
    pub(super) fn disconnected(&mut self, conn: ConnId) {
        let answers = self.answers.len();
        self.answers.retain(|_, answer| answer.line != Some(conn));
        if self.answers.len() < answers {
            self.searched = None;
        }
    }

    /// How many networks' servers failed as strangers, and not too long ago.
    pub(super) fn cold_failures(&self, now: Instant) -> usize {
        self.cold_failures.values().filter(|at| now < **at + PROOF_LIFETIME).count()
    }

    /// Since when two networks' strangers are known to have failed, which says as much as a proof.
    pub(super) fn refused_by_two(&self) -> Option<Instant> {
        let mut failed: Vec<Instant> = self.cold_failures.values().copied().collect();
        failed.sort_unstable();
        failed.iter().rev().nth(STRANGERS_REFUSED_MIN - 1).copied()
    }

    /// Networks that have said something about the address in this round, or are being asked.
    pub(super) fn heard(&self) -> BTreeSet<Group> {
        let said = self.answers.values().filter(|answer| answer.outcome.is_evidence());
        said.map(|answer| answer.group).chain(self.in_flight.values().copied()).collect()
    }

    pub(super) fn is_proven(&self) -> bool {
        self.last.is_some() && self.refuted.is_none()
    }

    /// Whose turn it is in a recheck: those not asked yet, then the one asked longest ago.
    pub(super) fn turn(&self, peer: PeerId) -> usize {
        let asked = self.rechecked.iter().position(|one| *one == peer);
        let is_turn = self.round == Round::Recheck;
        asked.filter(|_| is_turn).map_or(0, |place| place + 1)
    }

    /// Whether this server's word in this round is the last that is wanted of it: a proof, or a
    /// failure where nobody proved.
    pub(super) fn is_heard_out(&self, peer: PeerId) -> bool {
        let answer = self.answers.get(&peer).map(|answer| answer.outcome);
        let unproven = !self.proved_in_round;
        answer == Some(Outcome::Proved) || answer == Some(Outcome::DialFailed) && unproven
    }

    /// Whether this server is to be asked though the address was searched through: we met it later,
    /// or got no word from it then. `met` is its number.
    pub(super) fn is_news(&self, peer: PeerId, met: u64) -> bool {
        self.searched.is_none_or(|searched| met >= searched) || self.missed.contains(&peer)
    }

    /// Whether the proof of this round has aged out meanwhile: we were asleep.
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        self.proved_in_round && !self.last.is_some_and(|proof| proof.is_alive(now))
    }

    /// What comes first where not everything can be asked at once: what nobody knows, then what
    /// would age out, then the rest.
    pub(super) fn urgency(&self) -> u8 {
        match self.round {
            Round::Search if self.refuted.is_none() && self.last.is_none() => 0,
            Round::Renew => 1,
            Round::Search | Round::Recheck | Round::Rest { .. } => 2,
        }
    }

    /// How many networks' servers failed to dial it in this round; those of one source count as one.
    pub(super) fn failures(&self) -> usize {
        let failed = self.answers.values().filter(|one| one.outcome == Outcome::DialFailed);
        failed.map(|one| one.domain).collect::<BTreeSet<_>>().len()
    }

    fn failed_servers(&self) -> u8 {
        u8::try_from(self.failures()).unwrap_or(u8::MAX)
    }

    /// Whether this round has its answer.
    pub(super) fn is_answered(&self) -> bool {
        match self.round {
            Round::Search => self.stranger_in_round,
            Round::Renew => self.proved_in_round,
            Round::Recheck => self.failures() > 0 || self.proved_in_round,
            Round::Rest { .. } => true,
        }
    }

    /// Whether the end of this round would refute the address.
    pub(super) fn would_refute(&self) -> bool {
        self.round == Round::Search
            && !self.proved_in_round
            && self.failures() > 0
            && !self.silenced_the_provers()
    }

    /// Whether this search shows that strangers are no longer let in: none was, those whom we called
    /// were, and the stranger failed who got in last, or two networks' did.
    fn refuses_strangers(&self) -> bool {
        if self.round != Round::Search || !self.proved_in_round || self.stranger_in_round {
            return false;
        }
        let failed = |one: &Answer| one.cold && one.outcome == Outcome::DialFailed;
        let refused = self.answers.values().filter(|one| failed(one));
        let networks: BTreeSet<Domain> = refused.map(|one| one.domain).collect();
        let last = self.by_stranger.and_then(|proof| self.answers.get(&proof.server()));
        last.is_some_and(failed) || networks.len() >= STRANGERS_REFUSED_MIN
    }

    /// A search has shown that strangers are refused. Packets may have been lost, so that the first
    /// is soon followed by another; the second is believed.
    fn strangers_refused(&mut self, now: Instant) {
        match self.refused_since.take() {
            None => {
                self.refused_since = Some(now);
                self.step = 0;
            }
            Some(since) => {
                self.closed_since = Some(since);
                self.by_stranger = None;
            }
        }
    }

    /// Whether somebody who proved it before would have dialled again, had we paid, and hardly
    /// anybody else who did has failed now.
    fn silenced_the_provers(&self) -> bool {
        let count = |wanted: Outcome| {
            let answers = self.provers.iter().filter_map(|peer| self.answers.get(peer));
            answers.filter(|answer| answer.outcome == wanted).count()
        };
        count(Outcome::Declined) > 0 && count(Outcome::DialFailed) < PROVERS_REFUTE
    }

    /// Nobody is left to ask in this round: judge it, and pause. `met` counts the servers met, and
    /// `missed` are those that were not heard out.
    pub(super) fn conclude(
        &mut self,
        now: Instant,
        (met, missed): (u64, BTreeSet<PeerId>),
        draw: &mut dyn Draw,
    ) {
        if self.would_refute() {
            self.step = if self.refuted.is_some() { self.step } else { 0 };
            self.refuted = Some(self.failed_servers());
        }
        if self.refuses_strangers() {
            self.strangers_refused(now);
        }
        if self.round == Round::Search {
            self.searched = Some(met);
            self.missed = missed;
        }
        let mut pause =
            (PAUSE_FIRST * 2u32.saturating_pow(self.step.min(STEPS_MAX))).min(PAUSE_MAX);
        if let Some(proof) = self.last.filter(|proof| proof.is_alive(now)) {
            // What nobody renews is asked about more often as its end comes near.
            let left = (proof.at() + PROOF_LIFETIME).since(now);
            pause = pause.min((left / 2).max(PAUSE_FIRST));
        }
        self.step = self.step.saturating_add(1);
        // A quarter of jitter, so that nodes that started together do not ask together.
        let quarter = u64::try_from(pause.as_nanos() / 4).unwrap_or(u64::MAX);
        let jitter = Duration::from_nanos(draw.below(quarter));
        self.enter(Round::Rest { since: now, until: now + (pause - jitter) }, Answers::Kept);
    }

    fn enter(&mut self, round: Round, answers: Answers) {
        if answers == Answers::Forgotten {
            self.proved_in_round = false;
            self.stranger_in_round = false;
            self.answers.clear();
        }
        self.round = round;
    }
}

saved!(enum Round { 1 = Search, 2 = Renew, 3 = Recheck, 4 = Rest { since, until } });
saved!(struct Answer { outcome, group, domain, cold, line });
saved!(struct History {
    round,
    proved_in_round,
    stranger_in_round,
    answers,
    in_flight,
    proofs as told(),
    last,
    by_stranger,
    cold_failures as current(|now, at: &Instant| now < *at + PROOF_LIFETIME),
    refused_since,
    closed_since,
    refuted,
    searched as maybe_beside(Kind::Server),
    missed,
    provers,
    rechecked,
    step as up_to(STEPS_MAX),
});

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Addr;
    use core::net::Ipv4Addr;

    struct Lowest;
    impl Draw for Lowest {
        fn below(&mut self, _: u64) -> u64 {
            0
        }
        fn nonce(&mut self) -> u64 {
            0
        }
    }

    #[test]
    fn that_strangers_are_refused_is_asked_again_in_time_and_then_forgotten() {
        let group = Group::prefix(Ipv4Addr::new(44, 0, 0, 1).into());
        let (outcome, domain) = (Outcome::DialFailed, Domain::Network(group));
        let failed = Answer { outcome, group, domain, cold: true, line: None };
        let woken_after = |seconds: u64| {
            let mut history = History::new();
            history.answered(Instant::ZERO, PeerId::random(), failed);
            history.conclude(Instant::ZERO, (1, BTreeSet::new()), &mut Lowest);
            history.wake(Instant::from_millis(seconds * 1_000));
            (history.searched, history.cold_failures.len())
        };
        assert_eq!(woken_after(299), (Some(1), 1), "young enough to believe");
        assert_eq!(woken_after(300), (None, 1), "everybody is to be asked again");
        assert_eq!(woken_after(600), (Some(1), 0), "too old to matter");
    }

    fn peer(number: u8) -> PeerId {
        PeerId::from_bytes(&[0, 1, number]).expect("a short identity hash")
    }

    fn answer(outcome: Outcome, group: Group, cold: bool) -> Answer {
        Answer { outcome, group, domain: Domain::Network(group), cold, line: None }
    }

    fn group(number: u8) -> Group {
        Group::prefix(Ipv4Addr::new(44, number, 0, 1).into())
    }

    /// An address that these servers have proven, and what they say in the search after.
    fn searched_again(outcomes: &[Outcome]) -> History {
        let addr = Addr::tcp(Ipv4Addr::new(99, 0, 0, 7).into(), 4001);
        let mut history = History::new();
        for (number, _) in (1..).zip(outcomes) {
            let proof = Proof::claimed(addr, peer(number), false, Instant::ZERO);
            history.proved(proof, group(number));
        }
        history.doubt();
        for (number, outcome) in (1..).zip(outcomes) {
            let answer = answer(*outcome, group(number), false);
            history.answered(Instant::ZERO, peer(number), answer);
        }
        history
    }

    #[test]
    fn whom_we_do_not_pay_is_outvoted_by_two_earlier_provers_only() {
        use Outcome::{Declined, DialFailed};
        assert!(searched_again(&[DialFailed]).would_refute());
        assert!(!searched_again(&[Declined]).would_refute());
        assert!(!searched_again(&[Declined, DialFailed]).would_refute(), "one may lie");
        assert!(searched_again(&[Declined, DialFailed, DialFailed]).would_refute());
        let mut history = searched_again(&[Declined]);
        for number in 7..9 {
            let failed = answer(DialFailed, group(number), false);
            history.answered(Instant::ZERO, peer(number), failed);
        }
        assert!(!history.would_refute(), "those two never proved it");
    }

    /// An address that a stranger has proven, and whether that counts after searches in which these
    /// servers failed, as strangers or not, and the one that we called did not.
    fn is_open_after(searches: &[&[(u8, bool)]]) -> bool {
        let addr = Addr::tcp(Ipv4Addr::new(99, 0, 0, 7).into(), 4001);
        let proof = |number, stranger| Proof::claimed(addr, peer(number), stranger, Instant::ZERO);
        let mut history = History::new();
        history.proved(proof(1, true), group(1));
        history.step = 3;
        for search in searches {
            history.enter(Round::Search, Answers::Forgotten);
            for (number, cold) in *search {
                let (outcome, group) = (Outcome::DialFailed, group(*number));
                let answer = answer(outcome, group, *cold);
                history.answered(Instant::ZERO, peer(*number), answer);
            }
            history.proved(proof(9, false), group(9));
            history.conclude(Instant::ZERO, (9, BTreeSet::new()), &mut Lowest);
        }
        let soon = Round::Rest { since: Instant::ZERO, until: Instant::ZERO + PAUSE_FIRST };
        let is_open = history.by_stranger.is_some();
        assert_eq!(is_open, history.closed_since.is_none());
        assert_eq!(is_open && history.refused_since.is_some(), is_open && history.round == soon);
        is_open
    }

    #[test]
    fn strangers_are_refused_once_two_searches_say_so() {
        let last: &[(u8, bool)] = &[(1, true)];
        let other: &[(u8, bool)] = &[(2, true)];
        let others: &[(u8, bool)] = &[(2, true), (3, true)];
        assert!(is_open_after(&[last]), "packets may have been lost");
        assert!(!is_open_after(&[last, last]), "he got in last");
        assert!(is_open_after(&[other, other, other]), "one network that never got in");
        assert!(is_open_after(&[others]));
        assert!(!is_open_after(&[others, others]), "two networks");
        assert!(!is_open_after(&[last, &[], others]), "nobody has got in between");
        let hot: &[(u8, bool)] = &[(1, false), (2, false), (3, false)];
        assert!(is_open_after(&[hot, hot, hot]), "nothing is known of strangers");
    }

    #[test]
    fn whom_we_declined_is_asked_again_once_the_address_is_known_to_be_ours() {
        let addr = Addr::tcp(Ipv4Addr::new(99, 0, 0, 7).into(), 4001);
        let declined = answer(Outcome::Declined, group(1), false);
        let proof = |number| Proof::claimed(addr, peer(number), false, Instant::ZERO);
        let mut history = History::new();
        history.answered(Instant::ZERO, peer(1), declined);
        history.proved(proof(2), group(2));
        assert!(!history.answers.contains_key(&peer(1)), "now more may be paid");
        history.answered(Instant::ZERO, peer(1), declined);
        history.proved(proof(3), group(3));
        assert!(history.answers.contains_key(&peer(1)), "it was ours already");
    }
}
