//! A gateway's clock, which betrays that it has forgotten everything.

use crate::words::checkpoint::saved;
use crate::{Duration, Instant, MappingProtocol};

/// What a gateway's clock said, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Epoch {
    seconds: u32,
    at: Instant,
}

impl Epoch {
    pub(super) fn new(now: Instant, seconds: u32) -> Epoch {
        Epoch { seconds, at: now }
    }

    /// Whether a gateway whose clock stood like this can have kept its state until it says `next`.
    pub(super) fn continues(self, protocol: MappingProtocol, next: Epoch) -> bool {
        let elapsed = next.at.since(self.at);
        match protocol {
            MappingProtocol::NatPmp => nat_pmp(self.seconds, next.seconds, elapsed),
            MappingProtocol::Pcp | MappingProtocol::Upnp => {
                pcp(self.seconds, next.seconds, elapsed)
            }
        }
    }
}

/// RFC 6886 §3.6: at least seven eighths of the time have passed there, but for two seconds.
fn nat_pmp(last: u32, next: u32, elapsed: Duration) -> bool {
    let expected = u128::from(last) * 8_000 + 7 * elapsed.as_millis();
    u128::from(next) * 8_000 + 16_000 >= expected
}

/// RFC 6887 §8.5: neither clock is ahead of the other by more than a sixteenth and two seconds.
fn pcp(last: u32, next: u32, elapsed: Duration) -> bool {
    if u64::from(next) + 1 < u64::from(last) {
        return false;
    }
    let here = elapsed.as_millis();
    let there = u128::from(next.saturating_sub(last)) * 1_000;
    here + 2_000 >= there - there / 16 && there + 2_000 >= here - here / 16
}

saved!(struct Epoch { seconds, at });

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(at_s: u64, seconds: u32) -> Epoch {
        Epoch::new(Instant::from_millis(at_s * 1_000), seconds)
    }

    #[test]
    fn a_nat_pmp_clock_may_be_an_eighth_slow() {
        let first = epoch(100, 1_000);
        let continues = |at, seconds| first.continues(MappingProtocol::NatPmp, epoch(at, seconds));
        assert!(continues(900, 1_800));
        assert!(continues(900, 1_698), "700 s and two to spare");
        assert!(!continues(900, 1_697));
        assert!(continues(101, 5_000), "a fast clock has lost nothing");
        assert!(!continues(101, 0));
    }

    #[test]
    fn a_pcp_clock_may_be_a_sixteenth_off() {
        let first = epoch(100, 1_000);
        let continues = |at, seconds| first.continues(MappingProtocol::Pcp, epoch(at, seconds));
        assert!(continues(900, 1_800));
        assert!(continues(900, 1_748));
        assert!(!continues(900, 1_747), "750 s and two to spare");
        assert!(continues(900, 1_855));
        assert!(!continues(900, 1_860), "it runs ahead");
        assert!(continues(100, 999));
        assert!(!continues(100, 998), "it ran backwards");
    }
}
