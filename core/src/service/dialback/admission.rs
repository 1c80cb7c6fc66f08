//! Who may be served, and who may be dialled: token buckets in integer arithmetic.
//!
//! A bucket is the moment at which it will be full again, and nothing else: taking a token moves
//! that moment into the future by the time one token takes to grow. A bucket that is full is the
//! same as one that was never used, so it need not be kept.
//!
//! A limit of `n` a minute lets `n` pass at once, then one every `60 s / n`.

use crate::service::Caller;
use crate::words::checkpoint::{BadCheckpoint, Loader, saved};
use crate::{DialBackConfig, Duration, Group, Instant, PeerId};
use alloc::collections::BTreeMap;
use core::net::IpAddr;

/// The time that a bucket takes to fill up, one minute: the unit of every limit.
const FILL: Duration = Duration::from_secs(60);
/// Buckets that are not full, number; ours. About 100 bytes each. Every admitted request makes
/// at most five, and all are full within a minute, so that this many exist only where the global
/// limit was raised beyond 800 a minute. When there is no room for a stranger's bucket, strangers
/// are rejected (which is what the status says: a resource limit), known ones are served.
const BUCKETS_MAX: usize = 4_096;

/// Whose tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Bucket {
    /// All requesters together.
    Everybody,
    /// One requester.
    Peer(PeerId),
    /// The requester's network.
    Network(Group),
    /// All requesters behind one relay: a peer behind a circuit costs nothing to invent.
    Relay(IpAddr),
    /// One IP that is dialled.
    Target(IpAddr),
    /// The network of the IP that is dialled.
    TargetNetwork(Group),
}

/// The rate limits and what is left of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Admission {
    limits: DialBackConfig,
    allow_private: bool,
    /// When each bucket is full again.
    full_at: BTreeMap<Bucket, Instant>,
}

impl Admission {
    pub(super) fn new(limits: &DialBackConfig, allow_private: bool) -> Admission {
        let limits = limits.clone();
        Admission { limits, allow_private, full_at: BTreeMap::new() }
    }

    /// Take what one request costs its requester; `false`, and nothing taken, if it is over any
    /// limit.
    pub(super) fn admit_request(&mut self, now: Instant, caller: &Caller) -> bool {
        let ip = caller.remote.ip.to_canonical();
        let origin = if caller.relayed {
            (Bucket::Relay(ip), self.limits.peer_per_min)
        } else {
            (Bucket::Network(Group::of(ip, self.allow_private)), self.limits.prefix_per_min)
        };
        self.take(
            now,
            [
                (Bucket::Everybody, self.limits.global_per_min),
                (Bucket::Peer(caller.peer), self.limits.peer_per_min),
                origin,
            ],
        )
    }

    /// Whether this IP could be dialled now.
    pub(super) fn is_target_open(&self, now: Instant, ip: IpAddr) -> bool {
        self.target(ip).iter().all(|want| self.after(now, want).is_some())
    }

    /// Take what one dial costs its target; `false`, and nothing taken, if it is over any limit.
    pub(super) fn admit_dial(&mut self, now: Instant, ip: IpAddr) -> bool {
        self.take(now, self.target(ip))
    }

    fn target(&self, ip: IpAddr) -> [(Bucket, u32); 2] {
        let ip = ip.to_canonical();
        let network = Group::of(ip, self.allow_private);
        [
            (Bucket::Target(ip), self.limits.target_per_min),
            (Bucket::TargetNetwork(network), self.limits.target_prefix_per_min),
        ]
    }

    /// All or nothing: a request that one bucket rejects must not drain the others.
    fn take<const N: usize>(&mut self, now: Instant, wants: [(Bucket, u32); N]) -> bool {
        let open = wants.iter().all(|want| self.after(now, want).is_some());
        if !open || !self.has_room(now, &wants) {
            return false;
        }
        for want in wants.iter().filter(|(_, per_min)| *per_min != UNLIMITED) {
            if let Some(full_at) = self.after(now, want) {
                self.full_at.insert(want.0, full_at);
            }
        }
        true
    }

    fn after(&self, now: Instant, (bucket, per_min): &(Bucket, u32)) -> Option<Instant> {
        full_after_one(self.full_at.get(bucket).copied(), now, *per_min)
    }

    fn has_room(&mut self, now: Instant, wants: &[(Bucket, u32)]) -> bool {
        if self.len_with(wants) > BUCKETS_MAX {
            self.full_at.retain(|_, full_at| *full_at > now);
        }
        self.len_with(wants) <= BUCKETS_MAX
    }

    /// How many buckets there would be.
    fn len_with(&self, wants: &[(Bucket, u32)]) -> usize {
        let is_new = |(bucket, per_min): &&(Bucket, u32)| {
            *per_min != UNLIMITED && !self.full_at.contains_key(bucket)
        };
        self.full_at.len() + wants.iter().filter(is_new).count()
    }
}

/// The limit that is none ([`DialBackConfig::unlimited`]); it keeps no bucket.
const UNLIMITED: u32 = u32::MAX;

/// When a bucket of `per_min` tokens that is full at `full_at` is full again if one token is
/// taken now; `None` if it holds less than one.
fn full_after_one(full_at: Option<Instant>, now: Instant, per_min: u32) -> Option<Instant> {
    if per_min == UNLIMITED {
        return Some(now);
    }
    // Rounded down, so that exactly `per_min` of them fit into the minute.
    let token = FILL.checked_div(per_min)?;
    let full_at = full_at.map_or(now, |at| at.max(now)) + token;
    (full_at.since(now) <= FILL).then_some(full_at)
}

saved!(enum Bucket {
    1 = Everybody,
    2 = Peer(peer),
    3 = Network(group),
    4 = Relay(ip),
    5 = Target(ip),
    6 = TargetNetwork(group),
});
saved!(struct Admission {
    full_at as current(|now, full_at: &Instant| now < *full_at),
} given { limits, allow_private } by fresh);

fn fresh(from: &Loader<'_>) -> Result<Admission, BadCheckpoint> {
    let limits = from.config.dial_back.as_ref().ok_or(BadCheckpoint)?;
    Ok(Admission::new(limits, from.config.allow_private))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Addr;
    use core::net::Ipv4Addr;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    fn ip(n: u32) -> IpAddr {
        Ipv4Addr::from_bits(0x2c00_0000 + n).into()
    }

    fn caller(ip: IpAddr) -> Caller {
        let local = Addr::tcp(Ipv4Addr::new(44, 9, 9, 9).into(), 4001);
        let remote = Addr::tcp(ip, 1);
        Caller { peer: PeerId::random(), local, remote, relayed: false, rtt: None }
    }

    fn admission(change: impl FnOnce(&mut DialBackConfig)) -> Admission {
        let mut limits = DialBackConfig::unlimited();
        change(&mut limits);
        Admission::new(&limits, false)
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
    fn each_bucket_rejects_by_itself() {
        let mut one = admission(|limits| limits.peer_per_min = 2);
        let asker = caller(ip(1));
        assert!(one.admit_request(at(0), &asker));
        assert!(one.admit_request(at(0), &Caller { remote: Addr::tcp(ip(0x900), 1), ..asker }));
        assert!(!one.admit_request(at(0), &asker), "the peer's, from wherever");
        assert!(one.admit_request(at(0), &caller(ip(1))));

        let mut one = admission(|limits| limits.prefix_per_min = 2);
        assert!(one.admit_request(at(0), &caller(ip(1))));
        assert!(one.admit_request(at(0), &caller(ip(2))));
        assert!(!one.admit_request(at(0), &caller(ip(3))), "the network's");
        assert!(one.admit_request(at(0), &caller(ip(0x100))));

        let mut one = admission(|limits| limits.global_per_min = 2);
        assert!(one.admit_request(at(0), &caller(ip(0x100))));
        assert!(one.admit_request(at(0), &caller(ip(0x200))));
        assert!(!one.admit_request(at(0), &caller(ip(0x300))), "everybody's");

        let mut one = admission(|limits| limits.target_per_min = 1);
        assert!(one.admit_dial(at(0), ip(1)));
        assert!(!one.is_target_open(at(0), ip(1)));
        assert!(!one.admit_dial(at(0), ip(1)), "the target's");
        assert!(one.admit_dial(at(0), ip(2)));

        let mut one = admission(|limits| limits.target_prefix_per_min = 1);
        assert!(one.admit_dial(at(0), ip(1)));
        assert!(!one.admit_dial(at(0), ip(2)), "the target network's");
        assert!(one.admit_dial(at(0), ip(0x100)));
    }

    #[test]
    fn one_relay_is_one_requester_however_many_peers_it_carries() {
        let mut one = admission(|limits| limits.peer_per_min = 2);
        let relayed = || Caller { relayed: true, ..caller(ip(1)) };
        assert!(one.admit_request(at(0), &relayed()));
        assert!(one.admit_request(at(0), &relayed()));
        assert!(!one.admit_request(at(0), &relayed()));
        assert!(one.admit_request(at(0), &caller(ip(1))), "the relay itself is another");
    }

    #[test]
    fn a_rejected_request_costs_nothing() {
        let mut one = admission(|limits| {
            limits.peer_per_min = 1;
            limits.prefix_per_min = 3;
        });
        let asker = caller(ip(1));
        assert!(one.admit_request(at(0), &asker));
        for _ in 0..9 {
            assert!(!one.admit_request(at(0), &asker));
        }
        assert!(one.admit_request(at(0), &caller(ip(2))));
        assert!(one.admit_request(at(0), &caller(ip(3))));
    }

    #[test]
    fn when_full_strangers_wait_and_full_buckets_make_room() {
        let mut one = admission(|limits| limits.target_per_min = 2);
        let max = u32::try_from(BUCKETS_MAX).expect("a small bound");
        for n in 0..max {
            assert!(one.admit_dial(at(0), ip(n)));
        }
        assert!(!one.admit_dial(at(0), ip(max)), "no room for a stranger");
        assert!(one.admit_dial(at(0), ip(0)), "a known target has its bucket");
        assert!(one.admit_dial(at(30_000), ip(max)), "the other buckets are full again");
        assert_eq!(one.full_at.len(), 2);
    }

    #[test]
    fn a_full_bucket_that_made_room_needs_room_itself() {
        let mut one = admission(|_| ());
        let target = |n: u32| (Bucket::Target(ip(n)), 2);
        let max = u32::try_from(BUCKETS_MAX).expect("a small bound");
        assert!(one.take(at(0), [target(0)]));
        for n in 1..max {
            assert!(one.take(at(20_000), [target(n)]));
        }
        assert!(!one.take(at(30_000), [target(0), target(max)]), "one place, and two wanted");
        assert!(one.full_at.len() <= BUCKETS_MAX);
    }
}
