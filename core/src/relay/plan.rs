//! Who is dialled, asked and let go: levels that are looked at anew in each step.

use super::choice::{self, Entry, Place};
use super::known::Known;
use super::need::Level;
use super::{Ground, Relays};
use crate::words::checkpoint::saved;
use crate::words::config::RESERVATIONS_MAX;
use crate::words::sleep::Sleep;
use crate::{ConnId, Cx, Deadline, Duration, Instant, PeerId, RelayConfig, Wake};
use alloc::vec::Vec;

/// Relays that are dialled at once, number; ours. Bursts of handshakes grow with it. When full, the
/// next is dialled once one has answered or failed.
const DIALS_AT_ONCE_MAX: usize = 16;
/// Relays that are dialled in a minute, number; ours: as many as can be configured. When used up,
/// the next waits.
const DIALS_MIN: usize = 64;
/// Relays that are measured where a reservation stands and another one or a spare is wanted, number;
/// ours: two to draw from, and one that may be far.
const MEASURED_MIN: usize = 3;
/// Questions for reservations in a minute, renewals included, number; ours. When used up, what is due
/// waits.
pub(crate) const ASKS_MIN: usize = 16;
/// Of them for new reservations, number; ours: a quarter is left for renewals.
pub(crate) const ASKS_NEW_MIN: usize = 12;
/// How long others are waited for once the first relay is measured, ours: half a second, a quarter of
/// the time in which a reservation is to stand. The choice gets better as it grows.
const CHOICE_MAX: Duration = Duration::from_millis(500);
/// How long, where the first was dialled along with the others: round trips to it, ours. Who is near
/// enough to be chosen answers within them.
const CHOICE_RTTS: u32 = 2;
/// The least of that, ours.
const CHOICE_MIN: Duration = Duration::from_millis(20);
/// How often an incumbent may be challenged, ours: round trips vary, and peers have to be told.
const CHALLENGE_PAUSE: Duration = Duration::from_secs(300);

/// The round trip to a relay where none is known, ours: longer than any that is believed.
const RTT_UNKNOWN: Duration = Duration::from_secs(3_600);

const _: () = assert!(ASKS_NEW_MIN < ASKS_MIN);

/// How far the choice of a relay is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Choosing {
    /// Nobody is to be chosen.
    #[default]
    Idle,
    /// Nobody is measured.
    Measuring,
    /// Some are measured; others are waited for until then. `quick`: the first of those that we
    /// dialled is among them.
    Until { at: Instant, quick: bool },
    /// Whoever is measured may be chosen.
    Open,
}

impl Choosing {
    pub(super) fn deadline(self) -> Option<Deadline> {
        match self {
            Choosing::Until { at, .. } => Some(Deadline::new(at, Wake::RelayDue)),
            Choosing::Idle | Choosing::Measuring | Choosing::Open => None,
        }
    }

    pub(super) fn resumed(&mut self, sleep: Sleep) {
        if let Choosing::Until { at, .. } = self {
            sleep.put_off(at);
        }
    }
}

impl Relays {
    /// Bring what there is closer to what is wanted.
    pub(super) fn plan(&mut self, cx: &mut Cx<'_>, ground: &Ground<'_>, config: &RelayConfig) {
        let target = match self.need.level() {
            Level::None => 0,
            Level::One => 1,
            Level::Full => config.reservations.min(RESERVATIONS_MAX),
        };
        self.release(cx, ground, target);
        if target == 0 {
            self.choosing = Choosing::Idle;
            self.spare = None;
            return;
        }
        self.advance_choice(cx.now, ground, target);
        while self.missing(target) > 0
            && let Some(peer) = self.pick(cx, ground)
            && self.ask(cx, ground, peer)
        {}
        if self.missing(target) == 0 {
            self.choosing = Choosing::Idle;
            self.challenge(cx, ground);
        }
        self.keep_spare(cx, ground, target);
        self.dial(cx, ground, target);
    }

    /// Something has to wait for budget.
    pub(super) fn limit(&mut self, at: Instant) {
        self.limited_until = Some(self.limited_until.map_or(at, |before| before.min(at)));
    }

    /// Whether a connection is kept because its relay is being measured.
    pub(super) fn is_measuring(&self, conn: ConnId) -> bool {
        match self.choosing {
            Choosing::Idle | Choosing::Open => false,
            Choosing::Measuring | Choosing::Until { .. } => {
                self.known.values().any(|known| known.is_idle() && known.may_use(conn))
            }
        }
    }

    /// Reservations that are neither there nor asked for.
    fn missing(&self, target: usize) -> usize {
        let there = self.known.values().filter(|known| known.serves() || known.is_asking());
        target.saturating_sub(there.count())
    }

    /// Who serves us, best first: those that are alone in their network, or the nearest there, then
    /// the nearest of all. Each with whether a nearer one shares its network.
    fn serving(&self, ground: &Ground<'_>) -> Vec<(bool, Duration, PeerId)> {
        let mut serving: Vec<(Duration, PeerId, Option<Place>)> = Vec::new();
        for (peer, known) in self.known.iter().filter(|(_, known)| known.serves()) {
            let place = known.conn(ground).map(|(_, one)| ground.place(one));
            serving.push((known.rtt.unwrap_or(RTT_UNKNOWN), *peer, place));
        }
        serving.sort();
        let shares = |place: usize| {
            let (_, _, Some(own)) = serving[place] else { return false };
            let nearer = serving[..place].iter().filter_map(|(_, _, nearer)| *nearer);
            nearer.into_iter().any(|nearer| own.is_near(&nearer))
        };
        let marked = serving.iter().enumerate().map(|(place, one)| (shares(place), one.0, one.1));
        let mut marked: Vec<(bool, Duration, PeerId)> = marked.collect();
        marked.sort();
        marked
    }

    /// Let go what is more than is wanted, the least good first; all of it where nothing is.
    fn release(&mut self, cx: &mut Cx<'_>, ground: &Ground<'_>, target: usize) {
        for (_, _, peer) in self.serving(ground).into_iter().skip(target) {
            self.let_go(cx, ground, peer);
        }
        if target > 0 {
            return;
        }
        let busy =
            |known: &Known| known.held().is_some() || known.is_asking() || known.is_connecting();
        let busy = self.known.iter().filter(|(_, known)| busy(known));
        let busy: Vec<PeerId> = busy.map(|(peer, _)| *peer).collect();
        for peer in busy {
            self.let_go(cx, ground, peer);
        }
    }

    /// Wait for whoever may still turn out to be near, but not for long.
    fn advance_choice(&mut self, now: Instant, ground: &Ground<'_>, target: usize) {
        if self.missing(target) == 0 || self.choosing == Choosing::Open {
            return;
        }
        let is_pending = |(peer, known): (&PeerId, &Known)| {
            let is_unmeasured =
                known.is_idle() && self.entry(ground, *peer, known, false).is_none();
            ground.relay(*peer).is_some() && (known.is_connecting() || is_unmeasured)
        };
        let measured = self.entries(ground);
        if measured.is_empty() {
            self.choosing = Choosing::Measuring;
            return;
        }
        let dialled = |one: &&Entry| self.known.get(&one.peer).is_some_and(|known| known.dialled);
        let nearest = measured.iter().filter(dialled).map(|one| one.rtt).min();
        let wait =
            nearest.map_or(CHOICE_MAX, |rtt| (rtt * CHOICE_RTTS).clamp(CHOICE_MIN, CHOICE_MAX));
        let quick = nearest.is_some();
        let (at, quick) = match self.choosing {
            Choosing::Until { at, quick: was } if was == quick || was => (at, was),
            Choosing::Until { at, .. } => (at.min(now + wait), quick),
            Choosing::Idle | Choosing::Measuring | Choosing::Open => (now + wait, quick),
        };
        let is_over = at <= now || !self.known.iter().any(is_pending);
        self.choosing = if is_over { Choosing::Open } else { Choosing::Until { at, quick } };
    }

    /// Who is asked next: the spare, or who is chosen among those that are measured.
    fn pick(&mut self, cx: &mut Cx<'_>, ground: &Ground<'_>) -> Option<PeerId> {
        let entries = self.entries(ground);
        let spare = self.spare.filter(|peer| entries.iter().any(|one| one.peer == *peer));
        if spare.is_some() {
            return spare;
        }
        if self.choosing != Choosing::Open {
            return None;
        }
        choice::choose(cx.draw, &entries, &self.taken(ground, None))
    }

    /// A relay that beats the last of those that serve us is asked; once it has granted, that one is
    /// more than is wanted. Who shares a network with a nearer one is beaten by any other network.
    fn challenge(&mut self, cx: &mut Cx<'_>, ground: &Ground<'_>) {
        let is_paused = self.challenge_at.is_some_and(|at| cx.now < at);
        if is_paused || self.known.values().any(Known::is_asking) {
            return;
        }
        let Some((shares, rtt, incumbent)) = self.serving(ground).pop() else {
            return;
        };
        let taken = self.taken(ground, Some(incumbent));
        let mut better = self.entries(ground);
        better.retain(|one| {
            !taken.iter().any(|other| one.place.is_near(other))
                && (shares || choice::is_better(one.rtt, rtt))
        });
        let Some(peer) = choice::choose(cx.draw, &better, &[]) else {
            return;
        };
        if self.ask(cx, ground, peer) {
            self.challenge_at = Some(cx.now + CHALLENGE_PAUSE);
        }
    }

    /// Keep one more at hand where all are wanted.
    fn keep_spare(&mut self, cx: &mut Cx<'_>, ground: &Ground<'_>, target: usize) {
        let is_full = self.need.level() == Level::Full;
        let usable = |peer: &PeerId| {
            is_full && self.known.get(peer).is_some_and(|known| known.is_at_hand(ground))
        };
        self.spare = self.spare.filter(usable);
        if is_full && self.spare.is_none() && self.missing(target) == 0 {
            let entries = self.entries(ground);
            self.spare = choice::choose(cx.draw, &entries, &self.taken(ground, None));
        }
    }

    /// Dial configured relays while somebody is missing: all of them where there is none, a few
    /// otherwise.
    fn dial(&mut self, cx: &mut Cx<'_>, ground: &Ground<'_>, target: usize) {
        let is_spare_missing = self.need.level() == Level::Full && self.spare.is_none();
        if self.missing(target) == 0 && !is_spare_missing {
            return;
        }
        let held = self.known.values().any(|known| known.held().is_some() || known.is_asking());
        let count = |wanted: &dyn Fn(&Known) -> bool| {
            self.known.values().filter(|known| wanted(known)).count()
        };
        let mut dialling = count(&Known::is_connecting);
        let at_hand = count(&|known| known.is_at_hand(ground));
        let wanted = if held { MEASURED_MIN.saturating_sub(at_hand) } else { DIALS_AT_ONCE_MAX };
        let is_apart = |(peer, known): (&PeerId, &Known)| {
            let is_configured = ground.relay(*peer).is_some_and(|relay| !relay.addrs.is_empty());
            is_configured && known.is_idle() && known.conn(ground).is_none()
        };
        let apart = self.known.iter().filter(|one| is_apart(*one));
        let mut apart: Vec<PeerId> = apart.map(|(peer, _)| *peer).collect();
        while dialling < wanted.min(DIALS_AT_ONCE_MAX) && !apart.is_empty() {
            if let Err(at) = self.dials.take(cx.now, DIALS_MIN) {
                return self.limit(at);
            }
            let index = cx.draw.below(u64::try_from(apart.len()).unwrap_or(u64::MAX));
            let index = usize::try_from(index).unwrap_or(0).min(apart.len() - 1);
            if self.connect(cx, ground, apart.swap_remove(index)) {
                dialling += 1;
            }
        }
    }

    /// The networks of those that serve us or were asked, but for one of them.
    fn taken(&self, ground: &Ground<'_>, but: Option<PeerId>) -> Vec<Place> {
        let counts = |(peer, known): &(&PeerId, &Known)| {
            Some(**peer) != but && (known.serves() || known.is_asking())
        };
        let conns = self.known.iter().filter(counts).filter_map(|(_, known)| known.conn(ground));
        conns.map(|(_, one)| ground.place(one)).collect()
    }

    /// Who could be asked.
    fn entries(&self, ground: &Ground<'_>) -> Vec<Entry> {
        let is_open = self.choosing == Choosing::Open;
        let all = self.known.iter();
        all.filter_map(|(peer, known)| self.entry(ground, *peer, known, is_open)).collect()
    }

    /// A relay that is measured: its distance is known, and it has said that it relays. `lenient`: who
    /// is configured need not have said so.
    fn entry(
        &self,
        ground: &Ground<'_>,
        peer: PeerId,
        known: &Known,
        lenient: bool,
    ) -> Option<Entry> {
        let (_, connection) = known.conn(ground).filter(|(_, one)| !one.is_in_doubt())?;
        let is_configured = ground.relay(peer).is_some();
        let relays = match known.relays(ground) {
            Some(relays) => relays,
            None => is_configured && (lenient || !connection.is_asking()),
        };
        let (rtt, load) = (connection.rtt?, connection.relay_load);
        let place = ground.place(connection);
        (known.is_idle() && relays).then_some(Entry { peer, rtt, load, place })
    }
}

saved!(enum Choosing { 1 = Idle, 2 = Measuring, 3 = Until { at, quick }, 4 = Open });
