//! The canonical form of a state: equal bytes where nothing that is still to come tells two states
//! apart.
//!
//! It is what an exploration of small worlds keys the states by that it has visited. It is written
//! by the same `saved!` as a checkpoint, and read by nobody. In it
//!
//! - moments count from now on, and what is old alike is the same;
//! - ids, serials and sequence numbers are their ranks: each is compared with others of its kind,
//!   and none is used as a number;
//! - what only counts is left out, and so are nonces: a probe is known by its place;
//! - what was seen of a room below says only whether it has changed since.
//!
//! A state is written twice: first to find out which ids there are, then with their ranks.

use super::{Saved, Saver};
use crate::words::id::Side;
use crate::words::protocol::Protocol;
use crate::words::time::{Duration, Instant};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// What is compared with its own kind alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Connections.
    Conn,
    /// Listening sockets.
    Listener,
    /// Streams of one side and protocol. Dials go by the number of the stream that follows them.
    Stream(Side, Protocol),
    /// Connections, in the order in which they came up.
    Serial,
    /// Questions, by the newest connection of those that stand which was there before them.
    Question,
    /// Servers, in the order of meeting.
    Server,
    /// Records of our own addresses.
    Record,
}

/// A room whose revision others keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names of the rooms")]
pub(crate) enum Room {
    Local,
    Peers,
    Observed,
    Mapping,
    Candidates,
    Probe,
    Reachability,
    Relay,
    Advertise,
}

/// What is known of a state that is written in its canonical form.
pub(super) struct Canon {
    now: Instant,
    /// Whether this is the first time, whose bytes nobody reads.
    is_survey: bool,
    ids: Vec<(Kind, u64)>,
    /// Moments beyond the span in which their age counts.
    old: Vec<Instant>,
    revisions: BTreeMap<Room, u64>,
}

impl Canon {
    /// How many ids of this kind are lower.
    fn below(&self, kind: Kind, id: u64) -> u64 {
        let lower = |wanted| self.ids.partition_point(|one| *one < wanted);
        number(lower((kind, id)) - lower((kind, 0)))
    }

    /// The newest connection that stands and was there at `serial`.
    fn newest(&self, serial: u64) -> u64 {
        let first = self.ids.partition_point(|one| *one < (Kind::Serial, 0));
        let after = self.ids.partition_point(|one| *one <= (Kind::Serial, serial));
        if first < after { self.ids[after - 1].1 } else { 0 }
    }

    /// Once every id is known.
    fn sort(&mut self) {
        self.ids.sort_unstable();
        // Connections that came and went between two questions do not tell them apart.
        let at = |canon: &Canon, kind| canon.ids.partition_point(|one| *one < (kind, 0));
        let questions = self.ids.split_off(at(self, Kind::Question));
        let (questions, others): (Vec<_>, Vec<_>) =
            questions.into_iter().partition(|(kind, _)| *kind == Kind::Question);
        let newest = questions.iter().map(|(kind, serial)| (*kind, self.newest(*serial)));
        let newest: Vec<(Kind, u64)> = newest.collect();
        self.ids.extend(newest);
        self.ids.extend(others);
        self.ids.dedup();
        self.old.sort_unstable();
        self.old.dedup();
    }

    /// How many of the old moments are younger.
    fn younger(&self, at: Instant) -> u64 {
        number(self.old.len() - self.old.partition_point(|one| *one <= at))
    }
}

/// The canonical form of what `write` writes, at `now`.
pub(crate) fn canonical(now: Instant, write: impl Fn(&mut Saver<'_>)) -> Vec<u8> {
    let mut out = Saver::new(&|_| 0);
    out.canon = Some(Canon {
        now,
        is_survey: true,
        ids: Vec::new(),
        old: Vec::new(),
        revisions: BTreeMap::new(),
    });
    write(&mut out);
    if let Some(canon) = &mut out.canon {
        canon.is_survey = false;
        canon.sort();
    }
    out.bytes.clear();
    write(&mut out);
    out.into_bytes()
}

/// What `saved!` can be told of a field: how it is written in the canonical form. A checkpoint has
/// all of it as it is.
impl Saver<'_> {
    /// The moment of a canonical form; `None` in a checkpoint.
    pub(crate) fn canonical_now(&self) -> Option<Instant> {
        self.canon.as_ref().map(|canon| canon.now)
    }

    /// An id of this kind.
    pub(crate) fn id(&mut self, id: &u64, kind: Kind) {
        match &mut self.canon {
            None => self.number(*id),
            Some(canon) if canon.is_survey => canon.ids.push((kind, *id)),
            Some(canon) => {
                let rank = canon.below(kind, *id);
                self.number(rank);
            }
        }
    }

    /// The place of a connection in the order in which they came up: only which questions were
    /// asked before it counts.
    pub(crate) fn serial(&mut self, serial: &u64) {
        match &mut self.canon {
            Some(canon) if canon.is_survey => canon.ids.push((Kind::Serial, *serial)),
            Some(_) | None => self.beside(serial, Kind::Question),
        }
    }

    /// The newest connection when a question was asked.
    pub(crate) fn question(&mut self, serial: &u64) {
        let newest = match &self.canon {
            Some(canon) if !canon.is_survey => canon.newest(*serial),
            Some(_) | None => *serial,
        };
        self.id(&newest, Kind::Question);
    }

    /// A number that is compared with ids of this kind, without being one.
    pub(crate) fn beside(&mut self, number: &u64, kind: Kind) {
        let below = self.canon.as_ref().map(|canon| canon.below(kind, *number));
        self.number(below.unwrap_or(*number));
    }

    /// The same, where there may be none.
    pub(crate) fn maybe_beside(&mut self, number: &Option<u64>, kind: Kind) {
        number.is_some().save(self);
        if let Some(number) = number {
            self.beside(number, kind);
        }
    }

    /// A moment.
    pub(crate) fn moment(&mut self, at: Instant) {
        let number = self.canonical_now().map_or(at.as_nanos(), |now| relative(now, at));
        self.number(number);
    }

    /// A moment that is `span` ago as soon as it is longer ago.
    pub(crate) fn aging(&mut self, at: &Instant, span: Duration) {
        match self.canonical_now() {
            Some(now) if *at + span <= now => self.number(past(span)),
            Some(_) | None => self.moment(*at),
        }
    }

    /// Such moments, under their keys.
    pub(crate) fn aging_all<K: Saved>(&mut self, all: &BTreeMap<K, Instant>, span: Duration) {
        self.len(all.len());
        for (key, at) in all {
            key.save(self);
            self.aging(at, span);
        }
    }

    /// A moment of which counts, once it is longer ago than `span`, only what is older.
    pub(crate) fn ranked(&mut self, at: &Instant, span: Duration) {
        match &mut self.canon {
            Some(canon) if *at + span <= canon.now => {
                if canon.is_survey {
                    canon.old.push(*at);
                }
                let rank = Duration::from_nanos(canon.younger(*at));
                self.number(past(span.saturating_add(rank)));
            }
            Some(_) | None => self.moment(*at),
        }
    }

    /// A moment that means nothing once it has passed.
    pub(crate) fn ahead(&mut self, at: &Option<Instant>) {
        let now = self.canonical_now();
        at.filter(|at| now.is_none_or(|now| now < *at)).save(self);
    }

    /// Moments that mean nothing once they are `span` ago.
    pub(crate) fn recent(&mut self, all: &[Instant], span: Duration) {
        let now = self.canonical_now();
        let counts = |at: &&Instant| now.is_none_or(|now| now < **at + span);
        self.len(all.iter().filter(counts).count());
        all.iter().filter(counts).for_each(|at| at.save(self));
    }

    /// What means nothing any more unless `counts` says so.
    pub(crate) fn current<K: Saved, V: Saved>(
        &mut self,
        all: &BTreeMap<K, V>,
        counts: fn(Instant, &V) -> bool,
    ) {
        let now = self.canonical_now();
        let counts = |(_, value): &(&K, &V)| now.is_none_or(|now| counts(now, value));
        self.len(all.iter().filter(counts).count());
        for (key, value) in all.iter().filter(counts) {
            key.save(self);
            value.save(self);
        }
    }

    /// What nothing is decided by.
    pub(crate) fn told(&mut self, value: &impl Saved) {
        if self.canon.is_none() {
            value.save(self);
        }
    }

    /// A number that counts no further than to `most`.
    pub(crate) fn up_to(&mut self, number: &u32, most: u32) {
        let is_canonical = self.canon.is_some();
        if is_canonical { (*number).min(most) } else { *number }.save(self);
    }

    /// Counters of which counts only whether any of them has begun.
    pub(crate) fn any<const N: usize>(&mut self, counters: &[u32; N]) {
        match self.canon {
            None => counters.save(self),
            Some(_) => counters.iter().any(|count| *count > 0).save(self),
        }
    }

    /// The revision of a room.
    pub(crate) fn revision(&mut self, revision: &u64, room: Room) {
        match &mut self.canon {
            None => self.number(*revision),
            Some(canon) => {
                canon.revisions.insert(room, *revision);
            }
        }
    }

    /// The revisions of these rooms when they were last read.
    pub(crate) fn seen<T: Saved + Copy, const N: usize>(
        &mut self,
        seen: &Option<T>,
        each: fn(T) -> [u64; N],
        rooms: [Room; N],
    ) {
        let (Some(_), Some(numbers)) = (&self.canon, seen.map(each)) else {
            return seen.save(self);
        };
        true.save(self);
        for (number, room) in numbers.iter().zip(rooms) {
            self.seen_sum(number, &[room]);
        }
    }

    /// The sum of the revisions of these rooms when they were last read.
    pub(crate) fn seen_sum(&mut self, seen: &u64, rooms: &[Room]) {
        match &self.canon {
            None => self.number(*seen),
            Some(canon) => {
                let now: u64 = rooms.iter().filter_map(|room| canon.revisions.get(room)).sum();
                (*seen == now).save(self);
            }
        }
    }
}

/// How far a moment lies ahead, or behind.
fn relative(now: Instant, at: Instant) -> u64 {
    if at >= now { nanos(at.since(now)).saturating_mul(2) } else { past(now.since(at)) }
}

fn past(age: Duration) -> u64 {
    nanos(age).saturating_mul(2).saturating_add(1)
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::id::ConnId;
    use alloc::vec;

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1_000)
    }

    fn written(now: u64, write: impl Fn(&mut Saver<'_>)) -> Vec<u8> {
        canonical(at(now), write)
    }

    #[test]
    fn ids_are_their_ranks_and_moments_count_from_now() {
        let state = |ids: [u64; 3], from: u64| {
            vec![
                (ConnId(ids[0]), at(from + 7)),
                (ConnId(ids[1]), at(from - 1)),
                (ConnId(ids[2]), at(from)),
            ]
        };
        let one = state([4, 9, 4], 10).canonical(at(10));
        assert_eq!(one, state([70, 71, 70], 500).canonical(at(500)));
        assert_ne!(one, state([9, 4, 9], 10).canonical(at(10)), "the order counts");
        assert_ne!(one, state([4, 9, 9], 10).canonical(at(10)), "so does which is which");
        assert_ne!(one, state([4, 9, 4], 10).canonical(at(11)), "and when");
    }

    #[test]
    fn what_is_old_alike_is_the_same() {
        let minute = Duration::from_secs(60);
        let aged = |then: u64| written(100, |out| out.aging(&at(then), minute));
        assert_eq!(aged(0), aged(40));
        assert_ne!(aged(40), aged(41));
        let ranked = |one: u64, other: u64| {
            written(100, |out| [one, other].iter().for_each(|then| out.ranked(&at(*then), minute)))
        };
        assert_eq!(ranked(0, 1), ranked(10, 40));
        assert_ne!(ranked(0, 1), ranked(1, 0));
        assert_ne!(ranked(1, 1), ranked(0, 1));
        let recent = |all: &[u64]| {
            let all: Vec<Instant> = all.iter().map(|then| at(*then)).collect();
            written(100, |out| out.recent(&all, minute))
        };
        assert_eq!(recent(&[1, 40, 41]), recent(&[41]));
        assert_ne!(recent(&[41, 42]), recent(&[42]));
        let ahead = |then: u64| written(100, |out| out.ahead(&Some(at(then))));
        assert_eq!(ahead(1), ahead(100));
        assert_ne!(ahead(100), ahead(101));
    }

    #[test]
    fn of_a_revision_counts_whether_it_has_been_seen() {
        let both = |revision: u64, seen: u64| {
            written(1, |out| {
                out.revision(&revision, Room::Local);
                out.seen(&Some(seen), |one| [one], [Room::Local]);
            })
        };
        assert_eq!(both(3, 3), both(8, 8));
        assert_eq!(both(3, 2), both(9, 1));
        assert_ne!(both(3, 3), both(3, 2));
    }

    #[test]
    fn what_lies_beside_ids_is_known_by_those_below() {
        let written = |ids: [u64; 2], beside: u64| {
            written(1, |out| {
                out.beside(&beside, Kind::Server);
                ids.iter().for_each(|id| out.id(id, Kind::Server));
            })
        };
        assert_eq!(written([2, 5], 3), written([7, 9], 8));
        assert_eq!(written([2, 5], 5), written([2, 5], 3), "none lies between");
        assert_ne!(written([2, 5], 5), written([2, 5], 6));
    }

    #[test]
    fn of_a_question_counts_which_connections_came_later() {
        let written = |questions: &[u64], serials: &[u64]| {
            written(1, |out| {
                questions.iter().for_each(|one| out.question(one));
                serials.iter().for_each(|one| out.serial(one));
            })
        };
        assert_eq!(written(&[3], &[2, 5]), written(&[7], &[1, 9]));
        assert_eq!(written(&[2, 3], &[2, 5]), written(&[4, 4], &[1, 9]), "none came between");
        assert_eq!(written(&[0, 6], &[1, 6]), written(&[4, 9], &[5, 9]));
        assert_ne!(written(&[3], &[2, 5]), written(&[5], &[2, 5]));
        assert_ne!(written(&[3], &[2, 5]), written(&[3], &[5, 2]));
        assert_ne!(written(&[1, 3], &[2]), written(&[3, 3], &[2]));
    }
}
