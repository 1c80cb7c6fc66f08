//! When a question to a gateway is sent again, and when one that was given up is asked anew.

use crate::words::checkpoint::saved;
use crate::{Draw, Duration, Instant, MappingProtocol};

/// RFC 6886 §3.1: the first wait, milliseconds; it doubles.
const NAT_PMP_FIRST: Duration = Duration::from_millis(250);
/// RFC 6886 §3.1: transmissions until there is no NAT-PMP, number.
const NAT_PMP_SENDS: u8 = 9;
/// RFC 6887 §8.1.1: IRT, seconds; it doubles.
const PCP_FIRST: Duration = Duration::from_secs(3);
/// RFC 6887 §8.1.1: MRT, seconds.
const PCP_LONGEST: Duration = Duration::from_secs(1_024);
/// Transmissions until a PCP server counts as absent, number; ours: 45 s. RFC 6887 §8.1.1 goes on
/// for ever, and so do we: with longer pauses.
const PCP_SENDS: u8 = 4;
/// Transmissions while it has granted something, number; ours: a router restarts within a minute,
/// and is to be found soon after.
const NAT_PMP_SENDS_HELD: u8 = 6;
/// The same for PCP.
const PCP_SENDS_HELD: u8 = 2;

/// A question under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    sends: u8,
    wait: Duration,
    pub(super) next_at: Instant,
}

impl Pace {
    /// It is sent for the first time.
    pub(super) fn first(now: Instant, draw: &mut dyn Draw, protocol: MappingProtocol) -> Pace {
        let wait = match protocol {
            MappingProtocol::NatPmp => NAT_PMP_FIRST,
            MappingProtocol::Pcp | MappingProtocol::Upnp => spread(draw, PCP_FIRST),
        };
        Pace { sends: 1, wait, next_at: now + wait }
    }

    /// It is sent again.
    pub(super) fn again(&mut self, now: Instant, draw: &mut dyn Draw, protocol: MappingProtocol) {
        self.wait = match protocol {
            MappingProtocol::NatPmp => self.wait * 2,
            MappingProtocol::Pcp | MappingProtocol::Upnp => {
                spread(draw, (self.wait * 2).min(PCP_LONGEST))
            }
        };
        self.sends = self.sends.saturating_add(1);
        self.next_at = now + self.wait;
    }

    /// Whether it was sent as often as it is sent.
    pub(super) fn is_spent(self, protocol: MappingProtocol, holds: bool) -> bool {
        let most = match (protocol, holds) {
            (MappingProtocol::NatPmp, false) => NAT_PMP_SENDS,
            (MappingProtocol::NatPmp, true) => NAT_PMP_SENDS_HELD,
            (MappingProtocol::Pcp | MappingProtocol::Upnp, false) => PCP_SENDS,
            (MappingProtocol::Pcp | MappingProtocol::Upnp, true) => PCP_SENDS_HELD,
        };
        self.sends >= most
    }

    /// The machine slept: what was under way gets the time back.
    pub(super) fn put_off(&mut self, sleep: crate::words::sleep::Sleep) {
        sleep.put_off(&mut self.next_at);
    }
}

/// RFC 6887 §8.1.1: (1 + RAND) times, where RAND lies evenly between -0.1 and 0.1.
fn spread(draw: &mut dyn Draw, span: Duration) -> Duration {
    let thousandths = 900 + draw.below(201);
    let nanos = span.as_nanos() * u128::from(thousandths) / 1_000;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// The pause before an absent gateway is asked anew, the first one: seconds, ours.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest one while we need it to be there again, seconds; ours: with announcements lost, a
/// router that is back is found within half a minute.
const PAUSE_NEEDED: Duration = Duration::from_secs(20);
/// The longest one otherwise, seconds; ours. Discovery never ends.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// Ever longer pauses, up to a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Backoff {
    tries: u8,
}

impl Backoff {
    /// The next pause.
    pub(super) fn pause(&mut self, draw: &mut dyn Draw, needed: bool) -> Duration {
        let longest = if needed { PAUSE_NEEDED } else { PAUSE_MAX };
        let pause = PAUSE_MIN * 2u32.saturating_pow(u32::from(self.tries.min(16)));
        self.tries = self.tries.saturating_add(1);
        spread(draw, pause.min(longest))
    }
}

saved!(struct Pace { sends, wait, next_at });
saved!(struct Backoff { tries });

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::fake::Middle;

    #[test]
    fn nat_pmp_is_asked_nine_times_in_two_minutes() {
        let mut now = Instant::ZERO;
        let mut pace = Pace::first(now, &mut Middle, MappingProtocol::NatPmp);
        let mut sends = 1;
        while !pace.is_spent(MappingProtocol::NatPmp, false) {
            now = pace.next_at;
            pace.again(now, &mut Middle, MappingProtocol::NatPmp);
            sends += 1;
        }
        assert_eq!((sends, pace.next_at), (9, Instant::from_millis(127_750)));
    }

    #[test]
    fn pcp_waits_three_seconds_and_doubles() {
        let mut pace = Pace::first(Instant::ZERO, &mut Middle, MappingProtocol::Pcp);
        assert_eq!(pace.next_at, Instant::from_millis(3_000));
        for _ in 0..20 {
            pace.again(Instant::ZERO, &mut Middle, MappingProtocol::Pcp);
        }
        assert_eq!(pace.next_at, Instant::from_millis(1_024_000));
    }

    #[test]
    fn pauses_grow_to_a_limit_that_depends_on_the_need() {
        let pauses = |needed| {
            let mut backoff = Backoff::default();
            core::array::from_fn::<u64, 11, _>(|_| backoff.pause(&mut Middle, needed).as_secs())
        };
        assert_eq!(pauses(true), [1, 2, 4, 8, 16, 20, 20, 20, 20, 20, 20]);
        assert_eq!(pauses(false), [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    }
}
