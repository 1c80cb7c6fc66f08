//! How the NAT in front maps, told from observers of one socket of ours (RFC 4787 §4.1).
//!
//! One liar must not be able to fake symmetry: two networks that disagree are only provisional,
//! and any value that two networks share is taken for the truth.

use super::Vote;
use crate::words::checkpoint::saved;
use crate::{Addr, Class, Group, MappingBehavior};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

/// Networks that must all disagree before an endpoint-dependent mapping is firm.
const FIRM_GROUPS: usize = 3;

/// What the observers betray.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Inferred {
    pub(super) mapping: MappingBehavior,
    /// Endpoint-dependent by the word of two networks only.
    pub(super) provisional: bool,
}

/// The behaviour seen by the observers of whichever listening socket has most of them. Once two
/// networks have spoken after a long sleep, they alone count. Until then a new vote may agree with
/// what was said before it, but if it does not, it stays as it `was`: a change while we slept is
/// not symmetry.
pub(super) fn infer(groups: &BTreeMap<Group, Vec<Vote>>, class: Class, was: Inferred) -> Inferred {
    let new = most_seen(groups, class, |vote| !vote.is_old);
    if let Some((socket, votes)) = new.filter(|(_, votes)| distinct_groups(votes) >= 2) {
        return judge(socket, &votes);
    }
    let all = most_seen(groups, class, |_| true);
    let inferred = all.map_or(Inferred::default(), |(socket, votes)| judge(socket, &votes));
    if inferred.mapping.is_endpoint_dependent() { was } else { inferred }
}

/// The listening socket with most observers among the votes that are wanted, and those votes.
fn most_seen(
    groups: &BTreeMap<Group, Vec<Vote>>,
    class: Class,
    wanted: fn(&Vote) -> bool,
) -> Option<(Addr, Vec<(Group, &Vote)>)> {
    let mut sockets: BTreeMap<Addr, Vec<(Group, &Vote)>> = BTreeMap::new();
    for (group, vote) in
        groups.iter().flat_map(|(group, votes)| votes.iter().map(move |v| (group, v)))
    {
        // Only a live binding can be compared with another: a NAT may reuse a port later.
        let lives = vote.listening && vote.conn.is_some();
        if lives && wanted(vote) && vote.socket.class() == class {
            sockets.entry(vote.socket).or_default().push((*group, vote));
        }
    }
    sockets.into_iter().max_by_key(|(_, votes)| distinct_groups(votes))
}

fn judge(socket: Addr, votes: &[(Group, &Vote)]) -> Inferred {
    let mut supporters: BTreeMap<Addr, BTreeSet<Group>> = BTreeMap::new();
    for (group, vote) in votes {
        supporters.entry(vote.value).or_default().insert(*group);
    }
    let firm = |mapping| Inferred { mapping, provisional: false };
    let most = supporters.values().map(BTreeSet::len).max().unwrap_or(0);
    // Our own address, seen by as many networks as any other value, means no translation.
    if supporters.get(&socket).is_some_and(|groups| groups.len() == most) {
        return firm(MappingBehavior::None);
    }
    if most >= 2 {
        return firm(MappingBehavior::EndpointIndependent);
    }
    let disagreeing = distinct_groups(votes);
    if disagreeing < 2 {
        return Inferred::default();
    }
    Inferred { mapping: dependence(votes), provisional: disagreeing < FIRM_GROUPS }
}

/// AddressDependent only where two ports of one observer IP saw the same value; without such a
/// pair the stricter behaviour is reported.
fn dependence(votes: &[(Group, &Vote)]) -> MappingBehavior {
    let mut same = false;
    for (n, (_, one)) in votes.iter().enumerate() {
        for (_, other) in &votes[n + 1..] {
            if one.observer.ip != other.observer.ip || one.observer.port == other.observer.port {
                continue;
            }
            if one.value != other.value {
                return MappingBehavior::AddressAndPortDependent;
            }
            same = true;
        }
    }
    if same { MappingBehavior::AddressDependent } else { MappingBehavior::AddressAndPortDependent }
}

fn distinct_groups(votes: &[(Group, &Vote)]) -> usize {
    votes.iter().map(|(group, _)| *group).collect::<BTreeSet<_>>().len()
}

saved!(struct Inferred { mapping, provisional });

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ConnId, Instant};
    use core::net::Ipv4Addr;

    fn addr(last: u8, port: u16) -> Addr {
        Addr::tcp(Ipv4Addr::new(44, 0, last, 1).into(), port)
    }

    /// Each observer: its network, its port, and the port it sees.
    fn seen(observers: &[(u8, u16, u16)]) -> Inferred {
        seen_around_a_sleep(&[], observers, Inferred::default())
    }

    /// The same, with those who spoke before a long sleep, and what it seemed to be then.
    fn seen_around_a_sleep(
        before: &[(u8, u16, u16)],
        after: &[(u8, u16, u16)],
        was: Inferred,
    ) -> Inferred {
        let mut groups: BTreeMap<Group, Vec<Vote>> = BTreeMap::new();
        let socket = Addr::tcp(Ipv4Addr::new(192, 168, 1, 2).into(), 4001);
        let before = before.iter().map(|one| (one, true));
        for ((network, port, value), is_old) in before.chain(after.iter().map(|one| (one, false))) {
            let observer = addr(*network, *port);
            groups.entry(Group::of(observer.ip, false)).or_default().push(Vote {
                observer,
                socket,
                listening: true,
                value: addr(99, *value),
                at: Instant::ZERO,
                since: Instant::ZERO,
                conn: Some(ConnId(1)),
                is_old,
            });
        }
        infer(&groups, socket.class(), was)
    }

    #[test]
    fn observers_that_agree_make_it_endpoint_independent_whatever_liars_say() {
        assert_eq!(seen(&[(1, 1, 7)]).mapping, MappingBehavior::Unknown);
        assert_eq!(seen(&[(1, 1, 7), (2, 1, 7)]).mapping, MappingBehavior::EndpointIndependent);
        let with_liars = seen(&[(1, 1, 7), (2, 1, 7), (3, 1, 8), (4, 1, 9)]);
        assert_eq!(with_liars.mapping, MappingBehavior::EndpointIndependent);
    }

    #[test]
    fn two_that_disagree_are_provisional_and_three_are_firm() {
        let dependent = MappingBehavior::AddressAndPortDependent;
        let two = seen(&[(1, 1, 7), (2, 1, 8)]);
        assert_eq!(two, Inferred { mapping: dependent, provisional: true });
        let three = seen(&[(1, 1, 7), (2, 1, 8), (3, 1, 9)]);
        assert_eq!(three, Inferred { mapping: dependent, provisional: false });
        let one_network = seen(&[(1, 1, 7), (1, 2, 8), (1, 3, 9)]);
        assert_eq!(one_network.mapping, MappingBehavior::Unknown);
    }

    #[test]
    fn two_ports_of_one_observer_tell_address_from_port_dependence() {
        let address = seen(&[(1, 1, 7), (1, 2, 7), (2, 1, 8)]);
        assert_eq!(address.mapping, MappingBehavior::AddressDependent);
        let port = seen(&[(1, 1, 7), (1, 2, 6), (2, 1, 8)]);
        assert_eq!(port.mapping, MappingBehavior::AddressAndPortDependent);
    }

    #[test]
    fn a_change_during_a_sleep_is_no_symmetry() {
        let (one, other) = ((1, 1, 7), (2, 1, 7));
        let independent =
            Inferred { mapping: MappingBehavior::EndpointIndependent, provisional: false };
        let seen = |before: &[_], after: &[_]| seen_around_a_sleep(before, after, independent);
        assert_eq!(seen(&[one, other], &[]), independent, "nothing new is known");
        assert_eq!(seen(&[one], &[other]), independent, "nothing has changed");
        assert_eq!(seen(&[one, other], &[(3, 1, 8)]), independent, "one against two");
        assert_eq!(seen(&[one], &[(3, 1, 8)]), independent, "one against one");
        assert_eq!(seen(&[one], &[(3, 1, 8), (4, 1, 8)]), independent, "it has changed");
        assert_eq!(seen(&[], &[(3, 1, 8)]), Inferred::default(), "nobody is left");
        let dependent =
            Inferred { mapping: MappingBehavior::AddressAndPortDependent, provisional: true };
        assert_eq!(seen(&[one, other], &[(3, 1, 8), (4, 1, 9)]), dependent, "they disagree");
        let still = seen_around_a_sleep(&[one, (2, 1, 8)], &[(3, 1, 9)], dependent);
        assert_eq!(still, dependent, "what it was it may be still");
    }
}
