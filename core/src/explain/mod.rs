//! Why the verdict is what it is, machine-readable: everything a report prints.

mod lines;

use crate::agent::Agent;
use crate::probe::{Server, Voice};
use crate::reachability::Verdict;
use crate::{
    Addr, Class, DistantServer, FilteringBehavior, HearsayAnswer, Instant, LeaseTerm, Mapping,
    MappingBehavior, NextProbe, NodeState, Outcome, PeerId, Reason, Relay, Scope, Side, Sources,
    State,
};
use alloc::vec::Vec;

/// A snapshot of every verdict with the evidence behind it. Owned, so that it can leave the
/// thread that drives the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explanation {
    /// The moment it was taken.
    pub at: Instant,
    /// The node's own peer id.
    pub peer_id: PeerId,
    /// The node's state.
    pub state: NodeState,
    /// Why.
    pub reason: Reason,
    /// Whether the node may serve others: DHT server mode, relay service.
    pub may_serve: bool,
    /// Whether nothing that could change a verdict is under way: every address has a verdict
    /// that is not [`State::Unknown`], and every server in reach has answered for the first time.
    pub settled: bool,
    /// Every class that is listened on or has a candidate, in order.
    pub classes: Vec<ClassExplanation>,
    /// Every candidate, in order of priority.
    pub addresses: Vec<AddressExplanation>,
    /// Every AutoNAT v2 server met, in reach or not, in order of meeting.
    pub servers: Vec<ServerExplanation>,
    /// Every AutoNAT v2 server behind a relay that is configured.
    pub distant_servers: Vec<DistantExplanation>,
    /// What AutoNAT v1 servers say: hearsay, which nothing proves.
    pub hearsay: HearsayExplanation,
    /// Every mapping that is wanted of a router.
    pub mappings: Vec<Mapping>,
    /// When those of them that are granted end.
    pub terms: Vec<LeaseTerm>,
    /// Every relay that is asked or could be.
    pub relays: Vec<Relay>,
    /// Addresses that peers are told.
    pub advertised: Vec<Addr>,
    /// How many senseless events were ignored.
    pub ignored: u64,
}

/// One (family, transport) class.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClassExplanation {
    /// The class.
    pub class: Class,
    /// Its state.
    pub state: NodeState,
    /// Why.
    pub reason: Reason,
    /// How the NAT in front maps.
    pub mapping: MappingBehavior,
    /// Whether an endpoint-dependent mapping rests on two networks only.
    pub provisional: bool,
    /// How the NAT or firewall in front filters.
    pub filtering: FilteringBehavior,
}

/// One candidate address.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AddressExplanation {
    /// The address.
    pub addr: Addr,
    /// Its state.
    pub state: State,
    /// What its proof proves, when reachable.
    pub scope: Option<Scope>,
    /// Why.
    pub reason: Reason,
    /// Where it is known from.
    pub sources: Sources,
    /// How many nonces came back over it.
    pub proofs: u32,
    /// The server whose nonce came back last.
    pub proved_by: Option<PeerId>,
    /// When that was.
    pub proved_at: Option<Instant>,
    /// When it first left [`State::Unknown`].
    pub first_verdict_at: Option<Instant>,
    /// Until when a reachable verdict holds unless renewed.
    pub until: Option<Instant>,
    /// Whether a probe of it is in flight or due at once.
    pub pending: bool,
    /// When it is probed next.
    pub next: NextProbe,
}

/// One AutoNAT v2 server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerExplanation {
    /// The server.
    pub peer: PeerId,
    /// Where we are, or were last, connected to it.
    pub addr: Addr,
    /// Whether it is connected now.
    pub connected: bool,
    /// Whether its word counts no more.
    pub distrusted: bool,
    /// How its probes ended: every outcome that occurred, with its count.
    pub outcomes: Vec<(Outcome, u32)>,
}

/// One AutoNAT v2 server that is reached through a relay, and never contacted otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DistantExplanation {
    /// The server.
    pub peer: PeerId,
    /// Its relay.
    pub relay: PeerId,
    /// How its probes ended: every outcome that occurred, with its count.
    pub outcomes: Vec<(Outcome, u32)>,
    /// Dial data that it was paid, bytes.
    pub dial_data: u64,
}

/// What AutoNAT v1 servers say while no AutoNAT v2 evidence exists. It is never evidence about an
/// address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HearsayExplanation {
    /// What it amounts to: public, private, or unknown where too few say anything or too many deny
    /// it. The node's state is this one only if its reason says so.
    pub state: NodeState,
    /// Whether an answer is awaited.
    pub pending: bool,
    /// The server of each network that was asked last.
    pub servers: Vec<HearsayServer>,
}

/// One AutoNAT v1 server that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HearsayServer {
    /// The server.
    pub peer: PeerId,
    /// Where we are, or were last, connected to it.
    pub addr: Addr,
    /// What its network's word counts for now.
    pub answer: HearsayAnswer,
}

impl HearsayServer {
    /// A server with its word.
    #[must_use]
    pub const fn new(peer: PeerId, addr: Addr, answer: HearsayAnswer) -> HearsayServer {
        HearsayServer { peer, addr, answer }
    }
}

impl Explanation {
    /// An explanation without evidence: unknown, just started. For whoever tests what reads
    /// explanations; every field can be assigned.
    #[must_use]
    pub const fn new(at: Instant, peer_id: PeerId) -> Explanation {
        Explanation {
            at,
            peer_id,
            state: NodeState::Unknown,
            reason: Reason::JustStarted,
            may_serve: false,
            settled: false,
            classes: Vec::new(),
            addresses: Vec::new(),
            servers: Vec::new(),
            distant_servers: Vec::new(),
            hearsay: HearsayExplanation {
                state: NodeState::Unknown,
                pending: false,
                servers: Vec::new(),
            },
            mappings: Vec::new(),
            terms: Vec::new(),
            relays: Vec::new(),
            advertised: Vec::new(),
            ignored: 0,
        }
    }
}

impl ClassExplanation {
    /// A class of which nothing is known; every field can be assigned.
    #[must_use]
    pub const fn new(class: Class) -> ClassExplanation {
        ClassExplanation {
            class,
            state: NodeState::Unknown,
            reason: Reason::JustStarted,
            mapping: MappingBehavior::Unknown,
            provisional: false,
            filtering: FilteringBehavior::Unknown,
        }
    }
}

impl AddressExplanation {
    /// An address of which nothing is known; every field can be assigned.
    #[must_use]
    pub const fn new(addr: Addr) -> AddressExplanation {
        AddressExplanation {
            addr,
            state: State::Unknown,
            scope: None,
            reason: Reason::JustStarted,
            sources: Sources::NONE,
            proofs: 0,
            proved_by: None,
            proved_at: None,
            first_verdict_at: None,
            until: None,
            pending: false,
            next: NextProbe::WithServer,
        }
    }
}

impl ServerExplanation {
    /// A connected server that was not asked yet; every field can be assigned.
    #[must_use]
    pub const fn new(peer: PeerId, addr: Addr) -> ServerExplanation {
        ServerExplanation { peer, addr, connected: true, distrusted: false, outcomes: Vec::new() }
    }
}

impl DistantExplanation {
    /// A server that was not asked yet.
    #[must_use]
    pub const fn new(peer: PeerId, relay: PeerId) -> DistantExplanation {
        DistantExplanation { peer, relay, outcomes: Vec::new(), dial_data: 0 }
    }
}

impl Agent {
    /// Why the verdict is what it is, machine-readable: a snapshot of every verdict with the
    /// evidence behind it.
    pub fn explain(&self) -> Explanation {
        let node = self.reachability.node();
        let addresses: Vec<AddressExplanation> = self.explain_addresses();
        let servers = self.explain_servers();
        Explanation {
            at: self.now,
            peer_id: self.peer_id(),
            state: node.state,
            reason: node.reason,
            may_serve: self.reachability.may_serve(),
            settled: self.is_settled(&addresses),
            classes: self.explain_classes(),
            addresses,
            servers,
            distant_servers: self.explain_distant_servers(),
            hearsay: self.explain_hearsay(),
            mappings: self.mappings().collect(),
            terms: self.mapping.terms().collect(),
            relays: self.relays().collect(),
            advertised: self.advertise.told().collect(),
            ignored: self.ignored,
        }
    }

    fn explain_classes(&self) -> Vec<ClassExplanation> {
        let known = Class::ALL.into_iter().filter_map(|class| {
            let status = self.reachability.class(class)?;
            let (mapping, provisional) = self.observed.mapping(class);
            Some(ClassExplanation {
                class,
                state: status.state,
                reason: status.reason,
                mapping,
                provisional,
                filtering: self.reachability.filtering(class),
            })
        });
        known.collect()
    }

    fn explain_addresses(&self) -> Vec<AddressExplanation> {
        let strongest = self.candidates.iter().map(|candidate| candidate.addr);
        let others = self.reachability.addresses().map(|(addr, _)| addr);
        let others = others.filter(|addr| self.candidates.get(*addr).is_none());
        let explained = strongest.chain(others).filter_map(|addr| {
            let verdict = self.reachability.verdict(addr)?;
            let evidence = self.probe.evidence(self.now, &self.peers, addr);
            let last = evidence.and_then(|evidence| evidence.last);
            let sources = self.candidates.get(addr).map(|candidate| candidate.sources);
            Some(AddressExplanation {
                addr,
                state: verdict.state(),
                scope: verdict.scope(),
                reason: verdict.reason(),
                sources: sources.unwrap_or_default(),
                proofs: evidence.map_or(0, |evidence| evidence.proofs),
                proved_by: last.map(|proof| proof.server()),
                proved_at: last.map(|proof| proof.at()),
                first_verdict_at: self.reachability.first_verdict_at(addr),
                until: match verdict {
                    Verdict::Reachable { until, .. } => Some(*until),
                    Verdict::Unreachable { .. } | Verdict::Unknown { .. } => None,
                },
                pending: self.probe.is_probing(addr) || verdict.reason() == Reason::Probing,
                next: self.probe.next_probe(self.now, &self.peers, addr),
            })
        });
        explained.collect()
    }

    fn explain_servers(&self) -> Vec<ServerExplanation> {
        let mut servers: Vec<_> = self.probe.servers().collect();
        servers.sort_by_key(|(_, server)| server.met);
        let explain = |(peer, server): (PeerId, &Server)| ServerExplanation {
            peer,
            addr: server.remote,
            connected: server.is_connected(),
            distrusted: server.is_distrusted(self.now),
            outcomes: server.outcomes().collect(),
        };
        servers.into_iter().map(explain).collect()
    }

    fn explain_distant_servers(&self) -> Vec<DistantExplanation> {
        let config = self.config.relay.as_ref();
        let servers = config.map_or(&[][..], |config| &config.distant_servers);
        let explain = |server: &DistantServer| {
            let (outcomes, dial_data) = self.probe.stranger(server.peer);
            let (peer, relay) = (server.peer, server.relay.peer);
            DistantExplanation { peer, relay, outcomes, dial_data }
        };
        servers.iter().map(explain).collect()
    }

    fn explain_hearsay(&self) -> HearsayExplanation {
        let hearsay = self.probe.hearsay();
        let explain = |one: &Voice| HearsayServer::new(one.peer, one.remote, one.answer(self.now));
        HearsayExplanation {
            state: hearsay.state(),
            pending: hearsay.is_asking(),
            servers: hearsay.voices().map(explain).collect(),
        }
    }

    /// Nothing is asked, nothing is about to be, and every address has all the verdict that the
    /// servers in reach can give; no address at all, where one of them has told all it knows.
    fn is_settled(&self, addresses: &[AddressExplanation]) -> bool {
        // Where every server refuses to test an address, waiting brings no more.
        let judged = |address: &AddressExplanation| {
            address.state != State::Unknown || address.reason == Reason::ServersRefused
        };
        // Those who came by themselves are welcome, but nobody waits for them.
        let asking =
            self.peers.iter().any(|(_, one)| one.is_asking() && one.side == Side::Outbound);
        !asking
            && (!addresses.is_empty()
                || self.probe.servers().any(|(_, server)| server.is_connected()))
            && addresses.iter().all(|address| judged(address) && !address.pending)
            && !self.probe.awaits_first_answers()
            && !self.relay.asks_strangers()
    }
}
