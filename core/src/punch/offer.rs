//! What is told to the other side, and what is dialled of that which it tells.

use super::{Ground, outlook};
use crate::candidates::{Candidate, may_be_dialled};
use crate::wire::multiaddr;
use crate::wire::punch::{Behavior, Behaviors, Prediction, PunchMessage};
use crate::words::checkpoint::{BadCheckpoint, Loader, Saved, Saver, saved};
use crate::{
    Addr, Class, ConnId, Family, IpScope, PeerId, PunchFailure, PunchWay, Side, Source, State,
    Transport, ip_scope,
};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use bytes::Bytes;

/// Addresses that are told or dialled in one class, number; ours: what one attempt sends grows with
/// it. When full, the weaker ones are left out.
const CLASS_MAX: usize = 3;
/// The same where the mapping depends on the endpoint: each was seen by one network and is good for
/// nobody else, but that the other side opens its filter towards our IP.
const DEPENDENT_MAX: usize = 1;

/// Where we may be reached, and behind what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) addrs: Vec<Addr>,
    pub(super) behaviors: Behaviors,
    /// Whether ports may be predicted, and which were.
    pub(super) prediction: Prediction,
}

impl Offer {
    /// What can be told now: observed addresses as well, whether they are proven or not. In order within
    /// a class: which of them is the strongest changes with every vote, and is no news.
    pub(super) fn of(ground: &Ground<'_>, before: &Offer) -> Offer {
        let behaviors = Behaviors::of(|class| {
            let mapping = ground.observed.mapping(class);
            outlook::behavior(mapping, ground.reachability.filtering(class))
        });
        let mut addrs = Vec::new();
        for class in in_order() {
            let depends = behaviors.get(class).mapping.is_endpoint_dependent();
            let max = if depends { DEPENDENT_MAX } else { CLASS_MAX };
            let here = ground.local.listens_in(class);
            let of = || ground.candidates.iter().filter(|one| here && one.addr.class() == class);
            let known = of().filter(|one| ground.is_worth_it(one)).count();
            // Most NATs keep the port where they can (RFC 4787 §4.2.1).
            let fit = of().filter(|one| known == 0 || ground.is_worth_it(one));
            let mut fit: Vec<Addr> = fit.map(|one| one.addr).collect();
            if depends {
                // One of them is as good as another, and each server shows another.
                fit.sort_by_key(|addr| !before.addrs.contains(addr));
            }
            fit.truncate(if known == 0 { 1 } else { max });
            fit.sort_unstable();
            addrs.extend(fit);
        }
        let predicts = ground.config.punch.as_ref().is_some_and(|punch| punch.predict_ports);
        let prediction = if predicts { Prediction::TakesPart } else { Prediction::Off };
        Offer { addrs, behaviors, prediction }
    }

    /// What the other side told.
    pub(super) fn read(addrs: &[Bytes], behaviors: Behaviors, prediction: Prediction) -> Offer {
        Offer { addrs: multiaddr::direct(addrs).collect(), behaviors, prediction }
    }

    /// The message that tells it.
    pub(super) fn message(&self) -> PunchMessage {
        self.predicting(self.prediction)
    }

    /// The same, with a prediction.
    pub(super) fn predicting(&self, prediction: Prediction) -> PunchMessage {
        let addrs = self.addrs.iter().map(|addr| multiaddr::encode(*addr)).collect();
        PunchMessage::Connect { addrs, behaviors: self.behaviors, prediction }
    }
}

/// IPv6 first, and QUIC before TCP: it needs fewer packets to stand.
pub(super) fn in_order() -> impl Iterator<Item = Class> {
    let order = [Family::Ip6, Family::Ip4].into_iter();
    order.flat_map(|family| [Transport::Quic, Transport::Tcp].map(|kind| Class::new(family, kind)))
}

/// Whom to dial, and how.
pub(super) type Dials = Vec<(Addr, PunchWay)>;
/// Why there is nobody to dial, and which class that is about.
pub(super) type Failure = (PunchFailure, Option<Class>);

/// The dials of an attempt: on our side of the circuit, with what both told.
pub(super) fn dials(
    ground: &Ground<'_>,
    side: Side,
    ours: &Offer,
    theirs: &Offer,
) -> Result<Dials, Failure> {
    let mut failure = (PunchFailure::NoCommonAddress, None);
    let mut dials = Vec::new();
    for class in in_order() {
        let (own, other) = (ours.behaviors.get(class), theirs.behaviors.get(class));
        let fit = || dialable(ground, theirs).filter(|addr| addr.class() == class);
        if fit().next().is_none() {
            continue;
        }
        if !outlook::may_meet(own, other) {
            failure = (PunchFailure::EndpointDependent, Some(class));
            continue;
        }
        let way = way(side, class.transport, own, other);
        dials.extend(fit().take(CLASS_MAX).map(|addr| (addr, way)));
    }
    if dials.is_empty() { Err(failure) } else { Ok(dials) }
}

/// Which part is ours; both sides come to the same answer. Who opened the circuit is the client, but
/// where only the other side can be entered.
fn way(side: Side, transport: Transport, own: Behavior, other: Behavior) -> PunchWay {
    let (taker, opener) = match side {
        Side::Inbound => (own, other),
        Side::Outbound => (other, own),
    };
    let is_taker = outlook::serves(taker, opener, transport);
    let client = if is_taker { Side::Outbound } else { Side::Inbound };
    if client == side { PunchWay::Client } else { PunchWay::Server }
}

/// The other side's addresses that we may dial from a listener of ours: once each, none of our own.
pub(super) fn dialable<'a>(
    ground: &'a Ground<'_>,
    theirs: &'a Offer,
) -> impl Iterator<Item = Addr> + 'a {
    let all = theirs.addrs.iter().enumerate();
    let fresh = all.filter(|(index, addr)| !theirs.addrs[..*index].contains(addr));
    fresh.map(|(_, addr)| *addr).filter(|addr| ground.may_punch(*addr))
}

/// Addresses that a peer lists and that the world can dial, if it tells the truth: the first few.
pub(super) fn public(ground: &Ground<'_>, listed: impl Iterator<Item = Addr>) -> Vec<Addr> {
    listed.filter(|addr| ground.may_punch(*addr)).take(CLASS_MAX).collect()
}

/// A direct connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Direct {
    pub(super) conn: ConnId,
    pub(super) serial: u64,
    pub(super) addr: Addr,
}

impl Ground<'_> {
    /// A guess that nobody saw may be anybody's port: it is told where nothing else is known, and once it
    /// is proven.
    fn is_worth_it(&self, candidate: &Candidate) -> bool {
        let verdict = self.reachability.verdict(candidate.addr);
        candidate.sources.iter().any(|source| source != Source::Guess)
            || verdict.is_some_and(|verdict| verdict.state() == State::Reachable)
    }

    /// Whether an address that somebody names may be sent to: nobody has us scan our own network.
    pub(super) fn may_punch(&self, addr: Addr) -> bool {
        may_be_dialled(addr, self.config.allow_private)
            && self.local.listens_in(addr.class())
            && self.local.can_dial(Family::of(addr.ip), ip_scope(addr.ip))
            && !self.is_ours(addr)
    }

    /// Whether an address leads to ourselves. A wildcard listener stands for the addresses of our
    /// interfaces and for loopback, and not for everybody who has its port.
    fn is_ours(&self, addr: Addr) -> bool {
        let is_here = ip_scope(addr.ip) == IpScope::Loopback && self.local.listens_on(addr);
        is_here
            || self.local.addresses().any(|own| own == addr)
            || self.candidates.get(addr).is_some()
    }

    /// The youngest direct connection to each peer that has one.
    pub(super) fn directs(&self) -> BTreeMap<PeerId, Direct> {
        let alive = self.peers.iter().filter(|(_, one)| !one.relayed && !one.is_late());
        let mut all: BTreeMap<PeerId, Direct> = BTreeMap::new();
        for (conn, one) in alive {
            let found = Direct { conn, serial: one.serial, addr: one.remote };
            let known = all.entry(one.peer).or_insert(found);
            if known.serial < found.serial {
                *known = found;
            }
        }
        all
    }
}

impl Saved for Behaviors {
    fn save(&self, out: &mut Saver<'_>) {
        for class in Class::ALL {
            self.get(class).save(out);
        }
    }

    fn load(from: &mut Loader<'_>) -> Result<Behaviors, BadCheckpoint> {
        let mut all = [Behavior::UNKNOWN; Class::ALL.len()];
        for one in &mut all {
            *one = Behavior::load(from)?;
        }
        Ok(Behaviors::from(all))
    }
}

saved!(struct Behavior { mapping, filtering });
saved!(struct Offer { addrs, behaviors, prediction });

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FilteringBehavior, MappingBehavior};

    #[test]
    fn one_side_is_the_client_and_the_other_the_server() {
        let behind = |mapping| Behavior { mapping, filtering: FilteringBehavior::Unknown };
        let all = [
            MappingBehavior::Unknown,
            MappingBehavior::EndpointIndependent,
            MappingBehavior::AddressAndPortDependent,
        ]
        .map(behind);
        let [_, same, another] = all;
        for transport in [Transport::Tcp, Transport::Quic] {
            for a in all {
                for b in all {
                    let both =
                        [way(Side::Outbound, transport, a, b), way(Side::Inbound, transport, b, a)];
                    assert!(both.contains(&PunchWay::Client), "{a:?} {b:?}");
                    assert!(both.contains(&PunchWay::Server), "{a:?} {b:?}");
                }
            }
            assert_eq!(way(Side::Outbound, transport, same, same), PunchWay::Client);
            assert_eq!(way(Side::Inbound, transport, another, same), PunchWay::Client);
            assert_eq!(way(Side::Outbound, transport, same, another), PunchWay::Server);
        }
    }
}
