//! What the page of a server shows: who asks, what is refused and why, how long answers take, circuits.

use super::cluster::Found;
use super::figures::{outcome, refusal};
use super::page::{Cell, Clock, Figure, Headline, Section, Tone, View};
use super::status::load;
use crate::agents::Agents;
use crate::relays;
use multiaddr::Multiaddr;
use portolan_core::{
    Addr, Duration, Explanation, Instant, NodeState, Notice, PeerId, RelayNotice, Served,
};
use portolan_runtime::Load;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Rows of a table, number; ours: a page stays readable, and an event small. When full, the oldest row
/// goes; of what stands the rest is counted.
const ROWS_MAX: usize = 40;
/// Answers whose times are known, number; ours: enough for the slowest in a hundred. When full, the oldest
/// goes.
const TIMES_MAX: usize = 512;
/// Bounds between the bars of the times, with how each bar is called.
const BARS: [(Duration, &str); 6] = [
    (Duration::from_millis(10), "up to 10 ms"),
    (Duration::from_millis(50), "up to 50 ms"),
    (Duration::from_millis(250), "up to 250 ms"),
    (Duration::from_secs(1), "up to 1 s"),
    (Duration::from_secs(5), "up to 5 s"),
    (Duration::MAX, "longer"),
];

/// What happened lately.
#[derive(Debug, Default)]
pub(crate) struct Board(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    agents: Agents,
    asked: VecDeque<Asked>,
    answered: u64,
    proved: u64,
    refused: u64,
    refusals: BTreeMap<(&'static str, &'static str), (u64, Instant)>,
    times: VecDeque<Duration>,
    /// Circuits that stand, by who opened them and to whom: how many, and since when the last of them.
    circuits: BTreeMap<(PeerId, PeerId), (usize, Instant)>,
    ended: VecDeque<Ended>,
    /// Whether circuits that stood were forgotten.
    has_forgotten: bool,
}

/// A dial request.
#[derive(Debug)]
struct Asked {
    at: Instant,
    peer: PeerId,
    addr: Option<Addr>,
    answer: Served,
    took: Duration,
}

/// A circuit that is over.
#[derive(Debug)]
struct Ended {
    at: Instant,
    initiator: PeerId,
    target: PeerId,
    how: &'static str,
    forth: u64,
    back: u64,
}

/// What a view is made of beside what happened.
pub(crate) struct Present<'a> {
    pub(crate) explanation: &'a Explanation,
    pub(crate) load: &'a Load,
    pub(crate) others: &'a BTreeMap<PeerId, Found>,
    pub(crate) listeners: &'a [Multiaddr],
    pub(crate) clock: Clock,
    pub(crate) since: Instant,
    pub(crate) dial_backs_max: usize,
}

impl Board {
    /// Take in what a notice tells. `missed`: so many before it were lost.
    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "of all notices, these alone are about what is done for others"
    )]
    pub(crate) fn noticed(&self, at: Instant, notice: &Notice, missed: u64) {
        let mut seen = self.lock();
        if missed > 0 {
            // The ends of some may be among what was lost. What is not listed any more is still counted.
            seen.circuits.clear();
            seen.has_forgotten = true;
        }
        seen.agents.noticed(notice);
        if let Some(reason) = refusal(notice) {
            seen.refused += 1;
            let (count, last) = seen.refusals.entry(reason).or_default();
            (*count, *last) = (*count + 1, at);
        }
        match notice {
            Notice::DialBackServed { peer, addr, answer, took } => {
                let (peer, addr, answer, took) = (*peer, *addr, *answer, *took);
                seen.answered += 1;
                seen.proved += u64::from(answer == Served::Delivered);
                push(&mut seen.times, took, TIMES_MAX);
                push(&mut seen.asked, Asked { at, peer, addr, answer, took }, ROWS_MAX);
            }
            Notice::Relay(RelayNotice::BridgeOpened { initiator, target }) => {
                let (count, last) = seen.circuits.entry((*initiator, *target)).or_default();
                (*count, *last) = (*count + 1, at);
            }
            Notice::Relay(RelayNotice::BridgeEnded {
                initiator,
                target,
                end,
                overtime,
                forth,
                back,
            }) => {
                let pair = (*initiator, *target);
                if let Some((count, _)) = seen.circuits.get_mut(&pair) {
                    *count -= 1;
                    if *count == 0 {
                        seen.circuits.remove(&pair);
                    }
                }
                let (initiator, target, how) = (*initiator, *target, relays::end(*end, *overtime));
                let ended = Ended { at, initiator, target, how, forth: *forth, back: *back };
                push(&mut seen.ended, ended, ROWS_MAX);
            }
            _ => {}
        }
    }

    /// What the page shows now.
    pub(crate) fn view(&self, present: &Present<'_>) -> View {
        let seen = self.lock();
        let mut sections = vec![
            seen.askers(present.clock),
            seen.refusals(present),
            seen.times(),
            seen.circuits(present),
        ];
        if !present.others.is_empty() {
            sections.push(cluster(present.others));
        }
        sections.push(listeners(present.listeners));
        View {
            program: "portolan serve",
            version: env!("CARGO_PKG_VERSION"),
            peer_id: present.explanation.peer_id.to_string(),
            headline: headline(present),
            figures: seen.figures(present),
            sections,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn figures(&self, present: &Present<'_>) -> Vec<Figure> {
        let Present { load: now, clock, since, dial_backs_max, .. } = present;
        let busy = f64::from(load(now, *dial_backs_max)) / 10.0;
        let relay = now.relay.unwrap_or_default();
        let mut figures = vec![
            Figure::count("connections", now.connections),
            Figure::count("dial requests answered", self.answered),
            Figure::count("addresses proved", self.proved),
            Figure::count("refused", self.refused),
            Figure::count("dial-backs in flight", now.dial_backs),
        ];
        if now.relay.is_some() {
            figures.push(Figure::count("reservations", relay.reservations));
            figures.push(Figure::count("circuits", relay.circuits));
        }
        figures.push(Figure::new("fullest service", Cell::text(format!("{busy:.1} %"))));
        figures.push(Figure::new("running for", clock.lasting(*since)));
        figures
    }

    fn askers(&self, clock: Clock) -> Section {
        let columns = ["when", "peer", "software", "asked for", "answer", "took"];
        let mut section = Section::new("asked", "Who asks", columns, "Nobody has asked yet.");
        section.note = Some("Requests to be dialled back, the latest first.".into());
        for Asked { at, peer, addr, answer, took } in self.asked.iter().rev() {
            let agent = self.agents.of(peer);
            let addr = addr.map_or_else(|| Cell::text("nothing we dial"), Cell::code);
            section.row([
                vec![clock.ago(*at)],
                vec![Cell::code(peer)],
                vec![Cell::text(agent)],
                vec![addr],
                vec![Cell::badge(outcome(*answer).replace('_', " "), tone(*answer))],
                vec![Cell::text(millis(*took))],
            ]);
        }
        section
    }

    fn refusals(&self, present: &Present<'_>) -> Section {
        let columns = ["what", "why", "how often", "last"];
        let empty = "Nothing was refused.";
        let mut section = Section::new("refused", "What is refused, and why", columns, empty);
        for ((service, reason), (count, last)) in &self.refusals {
            let count = Cell::text(crate::thousands((*count).into()));
            let (service, reason) = (Cell::text(*service), Cell::text(*reason));
            section.row([vec![service], vec![reason], vec![count], vec![present.clock.ago(*last)]]);
        }
        let dropped = present.load.dropped;
        for (count, why) in [
            (dropped.connections, "there are as many connections as there may be"),
            (dropped.per_peer, "the peer has as many as one may have"),
            (dropped.per_source, "its network has as many as one may have"),
        ] {
            if count > 0 {
                let (what, count) = (Cell::text("connection"), crate::thousands(count.into()));
                section.row([vec![what], vec![Cell::text(why)], vec![Cell::text(count)], vec![]]);
            }
        }
        section
    }

    fn times(&self) -> Section {
        let columns = ["took", "requests", ""];
        let empty = "No request was answered yet.";
        let mut section = Section::new("times", "How long answers take", columns, empty);
        let mut sorted: Vec<Duration> = self.times.iter().copied().collect();
        sorted.sort_unstable();
        let at = |part: usize| sorted.get(sorted.len() * part / 100).copied().map(millis);
        if let (Some(half), Some(most)) = (at(50), at(95)) {
            let last = sorted.len();
            let note = format!(
                "From the request to the answer, the last {last}: median {half}, 95 of 100 {most}."
            );
            section.note = Some(note);
            let mut from = 0;
            for (bound, name) in BARS {
                let to = sorted.partition_point(|took| *took <= bound);
                let count = to - from;
                from = to;
                let share = count as f64 / last as f64;
                let count = Cell::text(count.to_string());
                section.row([vec![Cell::text(name)], vec![count], vec![Cell::bar(share)]]);
            }
        }
        section
    }

    fn circuits(&self, present: &Present<'_>) -> Section {
        let columns = ["from", "to", "state", "there", "back", "when"];
        let stand = present.load.relay.map(|relay| relay.circuits);
        let empty = match stand {
            None => "This server does not relay (--relay).",
            Some(0) => "There is no circuit, and none has ended.",
            Some(_) => "Those that stand were not heard of.",
        };
        let mut section = Section::new("circuits", "Circuits", columns, empty);
        let clock = present.clock;
        let mut open: Vec<_> = self.circuits.iter().collect();
        open.sort_by_key(|(_, (_, last))| std::cmp::Reverse(*last));
        open.truncate(ROWS_MAX);
        let listed: usize = open.iter().map(|(_, (count, _))| count).sum();
        let unlisted = stand.unwrap_or_default().saturating_sub(listed);
        let mut notes = Vec::new();
        if unlisted > 0 {
            notes.push(format!("{} more stand.", crate::thousands(unlisted as u128)));
        }
        if self.has_forgotten {
            notes.push("News came too fast once: some that stand may be missing here.".to_owned());
        }
        section.note = Some(notes.join(" ")).filter(|note| !note.is_empty());
        for ((from, to), (count, last)) in open {
            let state = if *count > 1 { format!("{count} open") } else { "open".into() };
            section.row([
                vec![Cell::code(from)],
                vec![Cell::code(to)],
                vec![Cell::badge(state, Tone::Good)],
                vec![],
                vec![],
                vec![Cell::text("opened"), clock.ago(*last)],
            ]);
        }
        for Ended { at, initiator, target, how, forth, back } in self.ended.iter().rev() {
            let bytes =
                |count: &u64| vec![Cell::text(crate::thousands((*count).into())), Cell::text("B")];
            section.row([
                vec![Cell::code(initiator)],
                vec![Cell::code(target)],
                vec![Cell::badge(*how, Tone::Calm)],
                bytes(forth),
                bytes(back),
                vec![clock.ago(*at)],
            ]);
        }
        section
    }
}

fn headline(present: &Present<'_>) -> Headline {
    let Present { explanation, load: now, dial_backs_max, .. } = present;
    let is_full = load(now, *dial_backs_max) >= 1_000;
    let own =
        format!("This server itself is {}: {}.", explanation.state.name(), explanation.reason);
    let (tone, state, reason) = match is_full {
        true => (
            Tone::Warn,
            "Full",
            "A service is at its limit, and some of those who ask are refused.",
        ),
        false => (Tone::Good, "Serving", "Whoever asks is answered, within the limits."),
    };
    Headline { tone, state: state.into(), reason: reason.into(), why: vec![own] }
}

fn cluster(others: &BTreeMap<PeerId, Found>) -> Section {
    let columns = ["peer", "addresses", "software", "it says it is", "round trip"];
    let mut section = Section::new("cluster", "Others of the cluster", columns, "");
    let count = others.len();
    section.note = Some(match count > ROWS_MAX {
        true => format!("The first {ROWS_MAX} of {count} that were dialled a short while ago."),
        false => "Those that were dialled a short while ago.".into(),
    });
    for (peer, found) in others.iter().take(ROWS_MAX) {
        let said = found.said.as_ref();
        let version = said.and_then(|said| said.version.clone()).unwrap_or_default();
        let state = said.and_then(|said| said.reachability).map_or("", NodeState::name);
        section.row([
            vec![Cell::code(peer)],
            found.addrs.iter().map(Cell::code).collect(),
            vec![Cell::text(version)],
            vec![Cell::text(state)],
            vec![Cell::text(found.rtt.map(millis).unwrap_or_default())],
        ]);
    }
    section
}

fn listeners(addrs: &[Multiaddr]) -> Section {
    let mut section = Section::new("listens", "Where it listens", ["address"], "Nowhere.");
    for addr in addrs.iter().take(ROWS_MAX) {
        section.row([vec![Cell::code(addr)]]);
    }
    section
}

/// One more at the end, and no more than so many.
fn push<T>(queue: &mut VecDeque<T>, one: T, max: usize) {
    if queue.len() >= max {
        queue.pop_front();
    }
    queue.push_back(one);
}

fn millis(span: Duration) -> String {
    format!("{} ms", crate::thousands(span.as_millis()))
}

fn tone(answer: Served) -> Tone {
    match answer {
        Served::Delivered => Tone::Good,
        Served::DialFailed | Served::DialBackFailed | Served::Connected => Tone::Warn,
        Served::Refused | Served::Rejected | Served::InternalError => Tone::Bad,
        Served::Aborted | _ => Tone::Calm,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_core::{BridgeEnd, RelayLoad};

    fn peer() -> PeerId {
        PeerId::random()
    }

    fn texts(section: &Section) -> String {
        serde_json::to_string(section).expect("it is plain data")
    }

    /// The section of this name, where so many circuits stand.
    fn section(board: &Board, circuits: usize, id: &str) -> Section {
        let mut load = Load::default();
        load.relay = Some(RelayLoad { reservations: 0, circuits, thousandths: 0 });
        let (explanation, others) = (Explanation::new(Instant::ZERO, peer()), BTreeMap::new());
        let view = board.view(&Present {
            explanation: &explanation,
            load: &load,
            others: &others,
            listeners: &[],
            clock: Clock::set(Instant::ZERO),
            since: Instant::ZERO,
            dial_backs_max: 8,
        });
        view.sections.into_iter().find(|one| one.id == id).expect("it is there")
    }

    #[test]
    fn circuits_stand_until_they_end_and_those_that_are_not_listed_are_counted() {
        let (board, at) = (Board::default(), Instant::from_millis(5));
        let [initiator, target] = [peer(), peer()];
        let opened = Notice::Relay(RelayNotice::BridgeOpened { initiator, target });
        let ended = Notice::Relay(RelayNotice::BridgeEnded {
            initiator,
            target,
            end: BridgeEnd::Finished,
            overtime: false,
            forth: 1_234,
            back: 9,
        });
        assert_eq!(section(&board, 0, "circuits").rows.len(), 0);
        board.noticed(at, &opened, 0);
        board.noticed(at, &opened, 0);
        let found = section(&board, 5, "circuits");
        assert!(texts(&found).contains("2 open") && texts(&found).contains("3 more stand."));
        board.noticed(at, &ended, 0);
        let found = texts(&section(&board, 1, "circuits"));
        assert!(found.contains("\"open\"") && found.contains("1,234"), "{found}");
        // What was lost may have been the end of the other one.
        board.noticed(at, &ended, 7);
        let found = section(&board, 1, "circuits");
        let text = texts(&found);
        assert!(!text.contains("\"open\"") && text.contains("1 more stand."), "{text}");
        assert_eq!(found.rows.len(), 2, "both that ended are listed");
    }

    #[test]
    fn who_asks_and_what_is_refused_is_listed_and_bounded() {
        let board = Board::default();
        let (peer, took) = (peer(), Duration::from_millis(30));
        let asked = |answer| Notice::DialBackServed { peer, addr: None, answer, took };
        for millis in 0..2 * ROWS_MAX as u64 {
            board.noticed(Instant::from_millis(millis), &asked(Served::Rejected), 0);
        }
        board.noticed(Instant::from_millis(900), &asked(Served::Delivered), 0);
        let found = section(&board, 0, "asked");
        assert_eq!(found.rows.len(), ROWS_MAX);
        let first = serde_json::to_string(&found.rows[0]).expect("it is plain data");
        assert!(first.contains("delivered"), "the last one comes first: {first}");
        let refused = section(&board, 0, "refused");
        assert!(
            texts(&refused).contains("a limit is reached") && texts(&refused).contains("\"80\"")
        );
        assert!(texts(&section(&board, 0, "times")).contains("median 30 ms"));
    }
}
