//! Writes a record, step by step.

use super::proto::{head, step};
use super::{Head, MAGIC, NOW_MAX, STEP_MAX, Step, VERSION, frame};
use crate::{Instant, UnixTime};
use alloc::vec::Vec;
use prost::Message as _;

/// Writes one part of a record: its head, then its steps. What it writes is what a
/// [`Reader`](super::Reader) reads, to the byte: reading a record and writing it again changes
/// nothing.
#[derive(Clone, Debug)]
pub struct Writer {
    clock: Clock,
    left_out: bool,
}

impl Writer {
    /// Begin a part: append magic, version and head to `out`.
    pub fn new(head: &Head, out: &mut Vec<u8>) -> Writer {
        let now = head.now.min(NOW_MAX);
        out.extend_from_slice(&MAGIC);
        out.push(VERSION);
        let message = head::encoded(head, now);
        frame::append(out, &message.encode_to_vec());
        Writer { clock: Clock { now, unix: head.unix }, left_out: false }
    }

    /// Append one step to `out`. A time that runs backwards is written as one that stands still;
    /// a step that is too long is left out, and the record says so in its place.
    pub fn step(&mut self, step: &Step, out: &mut Vec<u8>) {
        let now = step.now.clamp(self.clock.now, NOW_MAX);
        let (elapsed, unix_off) = self.clock.advance(now, step.unix);
        let message = step::encoded(step, elapsed, unix_off);
        let len = message.encoded_len();
        self.left_out |= len > STEP_MAX;
        let message = if len <= STEP_MAX { message } else { step::omitted(elapsed, unix_off, len) };
        frame::append(out, &message.encode_to_vec());
    }

    /// Whether any step was left out.
    pub(super) fn has_left_out(&self) -> bool {
        self.left_out
    }

    /// The moment of the last step.
    pub(super) fn now(&self) -> Instant {
        self.clock.now
    }
}

/// Where both clocks stood at the last step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub(super) now: Instant,
    pub(super) unix: UnixTime,
}

impl Clock {
    /// Go on to a later moment. Returns the nanoseconds that passed, and by how many milliseconds
    /// the wall clock is ahead of what that makes of it.
    fn advance(&mut self, now: Instant, unix: UnixTime) -> (u64, i64) {
        let elapsed = now.as_nanos().saturating_sub(self.now.as_nanos());
        let expected = self.expected(now);
        *self = Clock { now, unix };
        (elapsed, unix.as_millis().wrapping_sub(expected).cast_signed())
    }

    /// The reverse: where the clocks stand then; `None` beyond the end of a record's time.
    pub(super) fn advanced(self, elapsed: u64, unix_off: i64) -> Option<Clock> {
        let now = self.now.as_nanos().checked_add(elapsed).map(Instant::from_nanos);
        let now = now.filter(|now| *now <= NOW_MAX)?;
        let unix = self.expected(now).wrapping_add_signed(unix_off);
        Some(Clock { now, unix: UnixTime::from_millis(unix) })
    }

    /// What the wall clock would show then if it ran like the other one.
    fn expected(&self, now: Instant) -> u64 {
        let millis = |at: Instant| at.as_nanos() / 1_000_000;
        self.unix.as_millis().wrapping_add(millis(now) - millis(self.now))
    }
}
