//! Who may be served, and who may be dialled: a token for each, out of its buckets.

use crate::service::Caller;
use crate::service::buckets::Buckets;
use crate::words::checkpoint::{BadCheckpoint, Loader, saved};
use crate::{DialBackConfig, Group, Instant, PeerId};
use core::net::IpAddr;

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
    buckets: Buckets<Bucket>,
}

impl Admission {
    pub(super) fn new(limits: &DialBackConfig, allow_private: bool) -> Admission {
        let limits = limits.clone();
        Admission { limits, allow_private, buckets: Buckets::new() }
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
        self.buckets.take(
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
        self.target(ip).iter().all(|want| self.buckets.is_open(now, want))
    }

    /// Take what one dial costs its target; `false`, and nothing taken, if it is over any limit.
    pub(super) fn admit_dial(&mut self, now: Instant, ip: IpAddr) -> bool {
        self.buckets.take(now, self.target(ip))
    }

    fn target(&self, ip: IpAddr) -> [(Bucket, u32); 2] {
        let ip = ip.to_canonical();
        let network = Group::of(ip, self.allow_private);
        [
            (Bucket::Target(ip), self.limits.target_per_min),
            (Bucket::TargetNetwork(network), self.limits.target_prefix_per_min),
        ]
    }
}

saved!(enum Bucket {
    1 = Everybody,
    2 = Peer(peer),
    3 = Network(group),
    4 = Relay(ip),
    5 = Target(ip),
    6 = TargetNetwork(group),
});
saved!(struct Admission { buckets } given { limits, allow_private } by fresh);

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
}
