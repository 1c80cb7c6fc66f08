//! How often reservations may be asked for, and what counts as one place.

use crate::service::Caller;
use crate::service::buckets::Buckets;
use crate::words::checkpoint::saved;
use crate::{ConnId, Group, Instant, PeerId};
use core::net::IpAddr;

/// Requests for a reservation a minute of one peer, number; ours, as for dial-backs: one that
/// holds a reservation asks a few times an hour. Signatures that it can cost us grow with it.
pub(super) const PEER_PER_MIN: u32 = 12;
/// Requests a minute of one network for each reservation that it may hold, number; ours: all of
/// its peers may lose theirs at once, and fail three times.
const NETWORK_PER_MIN: usize = 4;

/// Whose tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Bucket {
    /// One requester.
    Peer(PeerId),
    /// The requester's network.
    Network(Group),
}

/// What is left of the rates of those who hold no reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Newcomers {
    buckets: Buckets<Bucket>,
}

impl Newcomers {
    pub(super) fn new() -> Newcomers {
        Newcomers { buckets: Buckets::new() }
    }

    /// Take what one request costs; `false`, and nothing taken, if it is over a rate.
    pub(super) fn admit(
        &mut self,
        now: Instant,
        caller: &Caller,
        place: Place,
        max: usize,
    ) -> bool {
        let network = u32::try_from(max.saturating_mul(NETWORK_PER_MIN)).unwrap_or(u32::MAX);
        let wants =
            [(Bucket::Peer(caller.peer), PEER_PER_MIN), (Bucket::Network(place.network), network)];
        self.buckets.take(now, wants)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.buckets.len()
    }
}

/// Who asks: over which connection, and from where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asker {
    pub(super) conn: ConnId,
    pub(super) peer: PeerId,
    pub(super) ip: IpAddr,
}

/// Where a peer is, as far as caps tell places apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// IPv4 address or IPv6 /64: what one household has for itself.
    pub(super) host: IpAddr,
    /// IPv4 /24 or IPv6 /48.
    pub(super) network: Group,
}

impl Place {
    pub(super) fn of(ip: IpAddr, allow_private: bool) -> Place {
        let ip = ip.to_canonical();
        let host = match ip {
            IpAddr::V6(ip) if !allow_private => IpAddr::V6((ip.to_bits() >> 64 << 64).into()),
            IpAddr::V4(_) | IpAddr::V6(_) => ip,
        };
        Place { host, network: Group::of(ip, allow_private) }
    }
}

saved!(struct Asker { conn, peer, ip });
saved!(enum Bucket { 1 = Peer(peer), 2 = Network(group) });
saved!(struct Newcomers { buckets });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_household_is_one_place() {
        let host = |text: &str, allow_private| {
            Place::of(text.parse().expect("an address"), allow_private).host
        };
        assert_eq!(host("2600:1:2:3::1", false), host("2600:1:2:3:ffff::9", false));
        assert_ne!(host("2600:1:2:3::1", false), host("2600:1:2:4::1", false));
        assert_ne!(host("2600:1:2:3::1", true), host("2600:1:2:3::2", true), "in a lab");
        assert_ne!(host("44.1.1.1", false), host("44.1.1.2", false));
        assert_eq!(host("::ffff:44.1.1.1", false), host("44.1.1.1", false));
    }
}
