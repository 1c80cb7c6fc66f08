//! Token buckets in integer arithmetic, for whatever may be asked for too often.
//!
//! A bucket is the moment at which it will be full again, and nothing else: taking a token moves
//! that moment into the future by the time one token takes to grow. A bucket that is full is the
//! same as one that was never used, so it need not be kept.
//!
//! A limit of `n` a minute lets `n` pass at once, then one every `60 s / n`.

use crate::words::checkpoint::{BadCheckpoint, Loader, Saved, Saver};
use crate::{Duration, Instant};
use alloc::collections::BTreeMap;

/// The time that a bucket takes to fill up, one minute: the unit of every limit.
const FILL: Duration = Duration::from_secs(60);
/// Buckets of one service that are not full, number; ours. About 100 bytes each. Every dial-back
/// that is admitted makes at most five, and all are full within a minute, so that this many exist
/// only where the global limit was raised beyond 800 a minute. Reservations are asked for out of
/// as many networks as there are; each makes 130 at most. When there is no room for a stranger's
/// bucket, strangers are rejected (which is what the statuses say: a resource limit), known ones
/// are served.
const BUCKETS_MAX: usize = 4_096;
/// The limit that is none; it keeps no bucket.
pub(super) const UNLIMITED: u32 = u32::MAX;

/// What is left of the limits: when the bucket of each key is full again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Buckets<K> {
    full_at: BTreeMap<K, Instant>,
}

impl<K: Copy + Ord> Buckets<K> {
    pub(super) const fn new() -> Buckets<K> {
        Buckets { full_at: BTreeMap::new() }
    }

    /// Take a token out of each of these, with their limits a minute. All or nothing: what one
    /// bucket rejects must not drain the others.
    pub(super) fn take<const N: usize>(&mut self, now: Instant, wants: [(K, u32); N]) -> bool {
        if !wants.iter().all(|want| self.is_open(now, want)) || !self.has_room(now, &wants) {
            return false;
        }
        for want in wants.iter().filter(|(_, per_min)| *per_min != UNLIMITED) {
            if let Some(full_at) = self.after(now, want) {
                self.full_at.insert(want.0, full_at);
            }
        }
        true
    }

    /// Whether there is a token for this one.
    pub(super) fn is_open(&self, now: Instant, want: &(K, u32)) -> bool {
        self.after(now, want).is_some()
    }

    fn after(&self, now: Instant, (bucket, per_min): &(K, u32)) -> Option<Instant> {
        full_after_one(self.full_at.get(bucket).copied(), now, *per_min)
    }

    fn has_room(&mut self, now: Instant, wants: &[(K, u32)]) -> bool {
        if self.len_with(wants) > BUCKETS_MAX {
            self.full_at.retain(|_, full_at| *full_at > now);
        }
        self.len_with(wants) <= BUCKETS_MAX
    }

    /// How many buckets there would be.
    fn len_with(&self, wants: &[(K, u32)]) -> usize {
        let is_new = |(bucket, per_min): &&(K, u32)| {
            *per_min != UNLIMITED && !self.full_at.contains_key(bucket)
        };
        self.full_at.len() + wants.iter().filter(is_new).count()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.full_at.len()
    }
}

/// When a bucket of `per_min` tokens that is full at `full_at` is full again if one token is
/// taken now; `None` if it holds less than one.
pub(super) fn full_after_one(
    full_at: Option<Instant>,
    now: Instant,
    per_min: u32,
) -> Option<Instant> {
    if per_min == UNLIMITED {
        return Some(now);
    }
    // Rounded down, so that exactly `per_min` of them fit into the minute.
    let token = FILL.checked_div(per_min)?;
    let full_at = full_at.map_or(now, |at| at.max(now)) + token;
    (full_at.since(now) <= FILL).then_some(full_at)
}

impl<K: Saved + Ord> Saved for Buckets<K> {
    fn save(&self, out: &mut Saver<'_>) {
        out.current(&self.full_at, |now, full_at: &Instant| now < *full_at);
    }

    fn load(from: &mut Loader<'_>) -> Result<Buckets<K>, BadCheckpoint> {
        Ok(Buckets { full_at: Saved::load(from)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    #[test]
    fn a_bucket_gives_its_tokens_at_once_then_one_by_one() {
        for per_min in [1, 7, 12, 36, 60, 1_000] {
            let mut full_at = None;
            for _ in 0..per_min {
                full_at = full_after_one(full_at, at(5), per_min);
                assert!(full_at.is_some(), "{per_min}");
            }
            assert_eq!(full_after_one(full_at, at(5), per_min), None, "{per_min}");
            let one_grew = at(5) + FILL / per_min;
            let full_at = full_after_one(full_at, one_grew, per_min);
            assert!(full_at.is_some(), "{per_min}");
            assert_eq!(full_after_one(full_at, one_grew, per_min), None, "{per_min}");
        }
    }

    #[test]
    fn an_idle_bucket_holds_no_more_than_it_can() {
        let mut full_at = full_after_one(None, at(0), 3);
        for _ in 0..3 {
            full_at = full_after_one(full_at, at(10_000_000), 3);
        }
        assert!(full_at.is_some());
        assert_eq!(full_after_one(full_at, at(10_000_000), 3), None);
    }

    #[test]
    fn a_limit_of_zero_lets_nothing_pass() {
        assert_eq!(full_after_one(None, at(1), 0), None);
    }

    #[test]
    fn when_full_strangers_wait_and_full_buckets_make_room() {
        let mut one = Buckets::new();
        let max = u32::try_from(BUCKETS_MAX).expect("a small bound");
        for n in 0..max {
            assert!(one.take(at(0), [(n, 2)]));
        }
        assert!(!one.take(at(0), [(max, 2)]), "no room for a stranger");
        assert!(one.take(at(0), [(0, 2)]), "a known one has its bucket");
        assert!(one.take(at(30_000), [(max, 2)]), "the other buckets are full again");
        assert_eq!(one.len(), 2);
    }

    #[test]
    fn a_full_bucket_that_made_room_needs_room_itself() {
        let mut one = Buckets::new();
        let max = u32::try_from(BUCKETS_MAX).expect("a small bound");
        assert!(one.take(at(0), [(0, 2)]));
        for n in 1..max {
            assert!(one.take(at(20_000), [(n, 2)]));
        }
        assert!(!one.take(at(30_000), [(0, 2), (max, 2)]), "one place, and two wanted");
        assert!(one.len() <= BUCKETS_MAX);
    }
}
