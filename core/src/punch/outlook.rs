//! Whether two NATs can be punched at all, and what each side sends to the other.

use crate::wire::punch::Behavior;
use crate::{FilteringBehavior, MappingBehavior, Transport};

/// Whether packets of one side can reach the other once both send. What is not known is hoped for.
///
/// An address of ours can be entered where the peer knows it, which takes a mapping that is the same
/// for everybody, or a filter that lets everybody in on a mapping that stands. The filter lets in
/// whom we have sent to: the peer's IP is known to us always, its port only where its mapping is the
/// same for everybody.
pub(super) fn may_meet(ours: Behavior, theirs: Behavior) -> bool {
    may_be_entered(ours, theirs) || may_be_entered(theirs, ours)
}

/// Whether a pair might meet if the ports of one NAT were known beforehand, and will not otherwise:
/// its mapping depends on the endpoint, and the other one's does not, but lets in whom it has sent to
/// alone. A filter that nobody knows is taken for such a one where the pair was `tried` in vain.
pub(super) fn may_be_predicted(ours: Behavior, theirs: Behavior, tried: bool) -> bool {
    let (inner, outer) = match [ours, theirs].map(|one| one.mapping.is_endpoint_dependent()) {
        [true, false] => (theirs, ours),
        [false, true] => (ours, theirs),
        [true, true] | [false, false] => return false,
    };
    let is_strict = match inner.filtering {
        FilteringBehavior::AddressAndPortDependent => true,
        FilteringBehavior::Unknown => tried,
        FilteringBehavior::None
        | FilteringBehavior::EndpointIndependent
        | FilteringBehavior::AddressDependent => false,
    };
    is_strict && !may_be_entered(outer, inner)
}

/// Whether who took the circuit is the server, of two that may meet. Over TCP, where only one side's
/// mapping depends on the endpoint, the other one is entered, if it can be: nobody knows from where
/// SYNs of the first one come, and who accepts a connection of an unknown port is its server.
pub(super) fn serves(taker: Behavior, opener: Behavior, transport: Transport) -> bool {
    let depends = |one: Behavior| one.mapping.is_endpoint_dependent();
    if transport == Transport::Tcp && depends(taker) && !depends(opener) {
        !may_be_entered(opener, taker)
    } else {
        may_be_entered(taker, opener)
    }
}

/// Whether `inner` can be entered by what `outer` sends.
fn may_be_entered(inner: Behavior, outer: Behavior) -> bool {
    use FilteringBehavior as Filter;
    let is_known = !inner.mapping.is_endpoint_dependent();
    match inner.filtering {
        Filter::None | Filter::EndpointIndependent => true,
        Filter::AddressDependent => is_known,
        Filter::AddressAndPortDependent => is_known && !outer.mapping.is_endpoint_dependent(),
        // Of a mapping that is known to differ, nobody has yet seen a filter that lets everybody in:
        // such an address would be proven.
        Filter::Unknown => is_known,
    }
}

/// What is told of a class: a mapping that only two networks disagree on is not known yet.
pub(super) fn behavior(
    (mapping, provisional): (MappingBehavior, bool),
    filtering: FilteringBehavior,
) -> Behavior {
    let mapping = if provisional { MappingBehavior::Unknown } else { mapping };
    Behavior { mapping, filtering }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPPINGS: [MappingBehavior; 4] = [
        MappingBehavior::None,
        MappingBehavior::EndpointIndependent,
        MappingBehavior::AddressDependent,
        MappingBehavior::AddressAndPortDependent,
    ];
    const FILTERINGS: [FilteringBehavior; 4] = [
        FilteringBehavior::None,
        FilteringBehavior::EndpointIndependent,
        FilteringBehavior::AddressDependent,
        FilteringBehavior::AddressAndPortDependent,
    ];

    fn every_behavior() -> impl Iterator<Item = Behavior> {
        MAPPINGS.into_iter().flat_map(|mapping| {
            FILTERINGS.into_iter().map(move |filtering| Behavior { mapping, filtering })
        })
    }

    /// What the packets do, told without the algebra: the side that knows the other's port sends
    /// there, both at once.
    fn meets(a: Behavior, b: Behavior) -> bool {
        // A packet of `from` to the address at which `to` was seen by others, after `to` has sent to
        // the address at which `from` was seen.
        let passes = |from: Behavior, to: Behavior| {
            let binding_is_there = !to.mapping.is_endpoint_dependent()
                || to.filtering == FilteringBehavior::EndpointIndependent
                || to.filtering == FilteringBehavior::None;
            let port_matches = !from.mapping.is_endpoint_dependent();
            binding_is_there
                && match to.filtering {
                    FilteringBehavior::AddressAndPortDependent => port_matches,
                    FilteringBehavior::Unknown
                    | FilteringBehavior::None
                    | FilteringBehavior::EndpointIndependent
                    | FilteringBehavior::AddressDependent => true,
                }
        };
        passes(a, b) || passes(b, a)
    }

    #[test]
    fn every_pair_is_judged_as_its_packets_fare_and_alike_from_both_sides() {
        for a in every_behavior() {
            for b in every_behavior() {
                assert_eq!(may_meet(a, b), meets(a, b), "{a:?} {b:?}");
                assert_eq!(may_meet(a, b), may_meet(b, a), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn ports_are_predicted_for_hopeless_pairs_of_which_one_side_is_known() {
        let known = |one: Behavior| !one.mapping.is_endpoint_dependent();
        for a in every_behavior() {
            for b in every_behavior() {
                let hopeless = !may_meet(a, b) && known(a) != known(b);
                for tried in [false, true] {
                    assert_eq!(may_be_predicted(a, b, tried), hopeless, "{a:?} {b:?}");
                    assert_eq!(may_be_predicted(b, a, tried), hopeless, "{a:?} {b:?}");
                }
            }
        }
        let strict = FilteringBehavior::AddressAndPortDependent;
        let symmetric =
            Behavior { mapping: MappingBehavior::AddressAndPortDependent, filtering: strict };
        assert!(may_be_predicted(symmetric, Behavior::UNKNOWN, true));
        assert!(!may_be_predicted(symmetric, Behavior::UNKNOWN, false), "it is hoped for first");
        let open = FilteringBehavior::EndpointIndependent;
        assert!(!may_be_predicted(
            Behavior { filtering: open, ..symmetric },
            Behavior::UNKNOWN,
            true
        ));
    }

    #[test]
    fn the_server_can_be_entered_and_its_port_is_known_if_it_can_be() {
        let depends = |one: Behavior| one.mapping.is_endpoint_dependent();
        for taker in every_behavior() {
            for opener in every_behavior().filter(|opener| may_meet(taker, *opener)) {
                for transport in [Transport::Tcp, Transport::Quic] {
                    let is_taker = serves(taker, opener, transport);
                    let (server, client) = if is_taker { (taker, opener) } else { (opener, taker) };
                    assert!(may_be_entered(server, client), "{taker:?} {opener:?}");
                    // Its SYNs come from where the client expects them, or do not get in.
                    let stray = depends(server) && may_be_entered(client, server);
                    let is_harmless = transport == Transport::Quic || depends(client);
                    assert!(!stray || is_harmless, "{taker:?} {opener:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_known_is_hoped_for_but_not_where_both_differ() {
        let symmetric = Behavior {
            mapping: MappingBehavior::AddressAndPortDependent,
            filtering: FilteringBehavior::Unknown,
        };
        assert!(may_meet(Behavior::UNKNOWN, Behavior::UNKNOWN));
        assert!(may_meet(symmetric, Behavior::UNKNOWN));
        assert!(!may_meet(symmetric, symmetric));
        let strict = FilteringBehavior::AddressAndPortDependent;
        let port = Behavior { mapping: MappingBehavior::EndpointIndependent, filtering: strict };
        assert!(!may_meet(symmetric, port));
        assert!(may_meet(
            symmetric,
            Behavior { filtering: FilteringBehavior::AddressDependent, ..port }
        ));
    }

    #[test]
    fn what_only_two_networks_disagree_on_is_not_known() {
        let dependent = MappingBehavior::AddressDependent;
        let filtering = FilteringBehavior::None;
        assert_eq!(behavior((dependent, false), filtering).mapping, dependent);
        assert_eq!(behavior((dependent, true), filtering).mapping, MappingBehavior::Unknown);
    }
}
