//! Moments and spans. Core has no clock: the caller says what time it is.

use core::fmt;
use core::ops::Add;
pub use core::time::Duration;

/// A moment in nanoseconds since an arbitrary zero chosen by the caller.
///
/// It never runs backwards and counts the time a machine spends suspended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The caller's arbitrary zero.
    pub const ZERO: Instant = Instant(0);

    /// The moment `nanos` nanoseconds after zero.
    pub const fn from_nanos(nanos: u64) -> Self {
        Instant(nanos)
    }

    /// The moment `millis` milliseconds after zero.
    pub const fn from_millis(millis: u64) -> Self {
        Instant(millis.saturating_mul(1_000_000))
    }

    /// Nanoseconds since zero.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long `earlier` lies before this moment; zero if it does not.
    pub const fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    /// Saturates at the end of representable time (584 years).
    fn add(self, span: Duration) -> Instant {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Instant(self.0.saturating_add(nanos))
    }
}

impl Add<Duration> for UnixTime {
    type Output = UnixTime;

    /// Saturates at the end of representable time.
    fn add(self, span: Duration) -> UnixTime {
        let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        UnixTime(self.0.saturating_add(millis))
    }
}

impl fmt::Display for Instant {
    /// Seconds with millisecond digits, as transcripts print it: `12.345`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1_000_000_000, self.0 / 1_000_000 % 1_000)
    }
}

/// Wall-clock time in milliseconds since 1970-01-01 UTC. Used only where a protocol wants it
/// (sequence numbers of peer records), and for what a later run must know (how long a router keeps
/// a mapping); nothing that is decided while we run depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(u64);

impl UnixTime {
    /// The wall-clock moment `millis` milliseconds after the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        UnixTime(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// How long `earlier` lies before this moment; zero if it does not.
    pub const fn since(self, earlier: UnixTime) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}
