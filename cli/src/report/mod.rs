//! The report: what a node knows about its own reachability, as one document.
//!
//! [`Report::new`] is a pure function of an [`Explanation`] and what was noted along the way. The
//! document serializes to the JSON form of `docs/cli.md`, which is stable, and prints
//! ([`Display`](std::fmt::Display)) as the form for people.

mod human;

pub(crate) use human::said;

use crate::relays;
use crate::timeline::Timeline;
use portolan_core::{
    AddressExplanation, Class, ClassExplanation, DistantExplanation, Explanation,
    HearsayExplanation, HearsayServer, Instant, Mapping, NodeState, Outcome, PeerId, Reason, Relay,
    RelayState, ServerExplanation,
};
use portolan_runtime::bootstrap::{List, Url};
use portolan_runtime::circuit_address;
use serde::{Serialize, Serializer};

/// The report. Every `*_ms` counts milliseconds from the first dial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The node's own peer id.
    pub peer_id: String,
    /// The node's state, as far as it is proved: hearsay does not count here.
    #[serde(serialize_with = "state_name")]
    pub reachability: NodeState,
    /// Why, in words.
    pub reason: String,
    /// When the report was made.
    pub elapsed_ms: u64,
    /// Every (family, transport) class that is listened on or has a candidate.
    pub classes: Vec<ClassReport>,
    /// Every candidate address, in order of priority.
    pub addresses: Vec<AddressReport>,
    /// How the NAT in front of each class behaves.
    pub nat: Vec<NatReport>,
    /// Every mapping that was asked of a router.
    pub mappings: Vec<MappingReport>,
    /// Every relay that is asked or could be.
    pub relays: Vec<RelayReport>,
    /// Every AutoNAT v2 server met, in order of meeting.
    pub servers: Vec<ServerReport>,
    /// What AutoNAT v1 servers say, which proves nothing.
    pub hearsay: HearsayReport,
    /// Every server behind a relay that was named.
    pub distant_servers: Vec<DistantReport>,
    /// What became of each list of peers that was asked for.
    pub bootstrap: Vec<SourceReport>,
    /// What happened, in order.
    pub timeline: Vec<TimelineEntry>,
    /// What became of each peer that was to be dialled, in the order given. Printed for people;
    /// in the JSON form it is found in the timeline.
    #[serde(skip)]
    pub peers: Vec<PeerReport>,
}

/// One (family, transport) class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ClassReport {
    /// `ip4` or `ip6`.
    pub family: &'static str,
    /// `tcp` or `quic`.
    pub transport: &'static str,
    /// The state of the class.
    #[serde(serialize_with = "state_name")]
    pub reachability: NodeState,
    /// Why, in words.
    pub reason: String,
}

/// One candidate address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AddressReport {
    /// The address, as a multiaddr.
    pub address: String,
    /// `reachable`, `unreachable` or `unknown`.
    pub verdict: &'static str,
    /// `anywhere`, `contacted` or `contacted-only`; none unless reachable.
    pub scope: Option<&'static str>,
    /// Why, in words.
    pub reason: String,
    /// Where it is known from, strongest first.
    pub sources: Vec<&'static str>,
    /// How many nonces came back over it.
    pub proofs: u32,
    /// When it first had a verdict.
    pub first_verdict_ms: Option<u64>,
    /// The server whose nonce came back last. Printed for people only.
    #[serde(skip)]
    pub proved_by: Option<PeerId>,
}

/// A port that a router was asked to map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MappingReport {
    /// The address of ours, as a multiaddr.
    pub internal: String,
    /// `granted`, `asking` or `failed`.
    pub state: &'static str,
    /// Why, in words.
    pub reason: String,
    /// The external address that the router granted, as a multiaddr.
    pub external: Option<String>,
    /// `pcp`, `nat-pmp` or `upnp`.
    pub protocol: Option<&'static str>,
    /// The router.
    pub router: Option<String>,
    /// How long it was granted for; none where it lasts until it is deleted.
    pub lifetime_s: Option<u64>,
}

impl MappingReport {
    pub(crate) fn new(mapping: &Mapping) -> MappingReport {
        let lease = mapping.lease.as_ref();
        MappingReport {
            internal: mapping.internal.to_string(),
            state: mapping.state.name(),
            reason: mapping.reason.to_string(),
            external: lease.map(|lease| lease.external.to_string()),
            protocol: lease.map(|lease| lease.protocol.name()),
            router: lease.map(|lease| lease.router.to_string()),
            lifetime_s: lease.and_then(|lease| lease.lifetime).map(|span| span.as_secs()),
        }
    }
}

/// A relay that is asked for a reservation, or could be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RelayReport {
    /// The relay.
    pub peer_id: String,
    /// `spare`, `connecting`, `asking`, `reserved` or `resting`.
    pub state: &'static str,
    /// Why it rests, in words.
    pub reason: Option<String>,
    /// A round trip to it, if one was measured.
    pub latency_ms: Option<u64>,
    /// When the reservation ends unless it is renewed; none unless reserved.
    pub expires_s: Option<u64>,
    /// How long a circuit may last; none is no limit, or no reservation.
    pub limit_s: Option<u64>,
    /// Bytes that a circuit may carry in each direction; none is no limit, or no reservation.
    pub limit_bytes: Option<u64>,
    /// The addresses to give to others; none unless reserved.
    pub addresses: Vec<String>,
}

/// A URL that was asked for a list of peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SourceReport {
    /// The URL.
    pub url: String,
    /// How many peers its list names that can be dialled; none where there was no list.
    pub peers: Option<usize>,
    /// How many peers its last good list names, where that was taken from disk.
    pub remembered: Option<usize>,
    /// Why there was no list, in words.
    pub error: Option<String>,
}

impl SourceReport {
    pub(crate) fn listed(url: &Url, list: &List) -> SourceReport {
        let (url, peers) = (url.to_string(), Some(list.peers.len()));
        SourceReport { url, peers, remembered: None, error: None }
    }

    pub(crate) fn failed(url: &Url, error: String) -> SourceReport {
        SourceReport { url: url.to_string(), peers: None, remembered: None, error: Some(error) }
    }
}

/// How the NAT in front of a class behaves (RFC 4787).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct NatReport {
    /// `ip4` or `ip6`.
    pub family: &'static str,
    /// `tcp` or `quic`.
    pub transport: &'static str,
    /// How it maps.
    pub mapping: &'static str,
    /// How it filters.
    pub filtering: &'static str,
}

/// One AutoNAT v2 server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ServerReport {
    /// The server.
    pub peer_id: String,
    /// Where we are, or were last, connected to it.
    pub address: String,
    /// How its probes ended.
    pub outcomes: Outcomes,
    /// Whether its word counts no more. Printed for people only.
    #[serde(skip)]
    pub distrusted: bool,
}

/// What AutoNAT v1 servers say while no AutoNAT v2 server has said anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HearsayReport {
    /// What it amounts to.
    #[serde(serialize_with = "state_name")]
    pub reachability: NodeState,
    /// The servers asked, one of each network.
    pub servers: Vec<HearsayServerReport>,
}

/// One AutoNAT v1 server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HearsayServerReport {
    /// The server.
    pub peer_id: String,
    /// Where we are, or were last, connected to it.
    pub address: String,
    /// `reachable`, `unreachable` or `nothing`.
    pub answer: &'static str,
}

/// One AutoNAT v2 server that is reached through a relay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DistantReport {
    /// The server.
    pub peer_id: String,
    /// Its relay.
    pub relay: String,
    /// How its probes ended.
    pub outcomes: Outcomes,
    /// Dial data that it was paid, bytes.
    pub dial_data_bytes: u64,
}

/// How often a server's probes ended in each way. Probes that we called off ourselves because
/// their dial data cost too much are no answer of the server and are not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Outcomes {
    /// The nonce came back.
    pub proved: u32,
    /// The server could not connect.
    pub dial_failed: u32,
    /// The server cannot or will not dial such an address.
    pub refused: u32,
    /// The server had no budget for it.
    pub rejected: u32,
    /// The server failed, or its answer made no sense.
    pub error: u32,
    /// The server connected but could not deliver the nonce.
    pub dial_back_error: u32,
    /// The server did not answer in time.
    pub timeout: u32,
    /// The server claimed a success that was none.
    pub lie: u32,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TimelineEntry {
    /// When.
    pub at_ms: u64,
    /// What, in words that are meant for people and may change.
    pub what: String,
}

/// What became of one peer that was to be dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerReport {
    /// Its multiaddr as it was given.
    pub address: String,
    /// What became of it.
    pub fate: PeerFate,
}

/// What became of a peer that was to be dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerFate {
    /// No connection stood when the report was made, and the dial had not failed.
    Dialling,
    /// Connected; it may still tell about itself.
    Connected(PeerId),
    /// Connected, but it does not speak identify, was silent for too long, or left.
    Silent(PeerId),
    /// Connected, and it offers to dial back.
    Server(PeerId),
    /// Connected, and it does not offer to dial back.
    NoServer(PeerId),
    /// It could not be reached, or was not who it should be; with the error in words.
    Failed(String),
}

impl PeerReport {
    /// A peer that is being dialled.
    #[must_use]
    pub fn new(address: impl Into<String>) -> PeerReport {
        PeerReport { address: address.into(), fate: PeerFate::Dialling }
    }
}

impl Report {
    /// The report on `explanation`, with times counted from `since`, the moment of the first
    /// dial.
    #[must_use]
    pub fn new(
        explanation: &Explanation,
        since: Instant,
        timeline: &Timeline,
        peers: Vec<PeerReport>,
    ) -> Report {
        let after = |at: Instant| millis(since, at);
        let entry = |(at, what)| TimelineEntry { at_ms: after(at), what };
        Report {
            peer_id: explanation.peer_id.to_string(),
            reachability: proved(explanation),
            reason: explanation.reason.to_string(),
            elapsed_ms: after(explanation.at),
            classes: explanation.classes.iter().map(class_report).collect(),
            addresses: explanation.addresses.iter().map(|a| address_report(a, since)).collect(),
            nat: explanation.classes.iter().map(nat_report).collect(),
            mappings: explanation.mappings.iter().map(MappingReport::new).collect(),
            relays: explanation.relays.iter().map(|one| relay_report(one, explanation)).collect(),
            servers: explanation.servers.iter().map(server_report).collect(),
            hearsay: hearsay_report(&explanation.hearsay),
            distant_servers: explanation.distant_servers.iter().map(distant_report).collect(),
            bootstrap: Vec::new(),
            timeline: timeline.lines().into_iter().map(entry).collect(),
            peers,
        }
    }

    /// The exit code that says the verdict: 0 public, 13 limited, 10 private, but reached through a
    /// relay, 11 private, 12 unknown.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self.reachability {
            NodeState::Public => 0,
            NodeState::Limited => 13,
            NodeState::Private if self.is_relayed() => 10,
            NodeState::Private => 11,
            NodeState::Unknown => 12,
        }
    }

    /// The addresses to give to others: those that are proved, then those that lead through relays.
    #[must_use]
    pub fn shared(&self) -> Vec<String> {
        let proved = self.addresses.iter().filter(|one| one.scope.is_some());
        let relayed = self.relays.iter().flat_map(|relay| &relay.addresses);
        proved.map(|one| &one.address).chain(relayed).cloned().collect()
    }

    /// Whether a relay leads others to the node.
    pub(crate) fn is_relayed(&self) -> bool {
        self.relays.iter().any(|relay| !relay.addresses.is_empty())
    }
}

/// The state of the node, unless it is hearsay alone.
fn proved(explanation: &Explanation) -> NodeState {
    if explanation.reason == Reason::Hearsay { NodeState::Unknown } else { explanation.state }
}

fn hearsay_report(hearsay: &HearsayExplanation) -> HearsayReport {
    let server = |one: &HearsayServer| HearsayServerReport {
        peer_id: one.peer.to_string(),
        address: one.addr.to_string(),
        answer: one.answer.name(),
    };
    HearsayReport {
        reachability: hearsay.state,
        servers: hearsay.servers.iter().map(server).collect(),
    }
}

fn class_report(class: &ClassExplanation) -> ClassReport {
    let Class { family, transport } = class.class;
    ClassReport {
        family: family.name(),
        transport: transport.name(),
        reachability: class.state,
        reason: class.reason.to_string(),
    }
}

fn nat_report(class: &ClassExplanation) -> NatReport {
    let Class { family, transport } = class.class;
    NatReport {
        family: family.name(),
        transport: transport.name(),
        mapping: class.mapping.name(),
        filtering: class.filtering.name(),
    }
}

fn relay_report(relay: &Relay, explanation: &Explanation) -> RelayReport {
    let Relay { peer, state, failure, rtt, load: _, until, limit, addrs } = relay;
    let ends = until.filter(|_| *state == RelayState::Reserved);
    let address = |addr| circuit_address(addr, *peer, explanation.peer_id).to_string();
    RelayReport {
        peer_id: peer.to_string(),
        state: state.name(),
        reason: failure.map(relays::failure),
        latency_ms: rtt.map(|rtt| u64::try_from(rtt.as_millis()).unwrap_or(u64::MAX)),
        expires_s: ends.map(|until| until.since(explanation.at).as_secs()),
        limit_s: limit.duration.map(|span| span.as_secs()),
        limit_bytes: limit.bytes,
        addresses: addrs.iter().copied().map(address).collect(),
    }
}

fn address_report(address: &AddressExplanation, since: Instant) -> AddressReport {
    AddressReport {
        address: address.addr.to_string(),
        verdict: address.state.name(),
        scope: address.scope.map(|scope| scope.name()),
        reason: address.reason.to_string(),
        sources: address.sources.iter().map(|source| source.name()).collect(),
        proofs: address.proofs,
        first_verdict_ms: address.first_verdict_at.map(|at| millis(since, at)),
        proved_by: address.proved_by,
    }
}

#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "outcomes may be added; every present one is listed"
)]
fn counted(counts: &[(Outcome, u32)]) -> Outcomes {
    let mut outcomes = Outcomes::default();
    for (outcome, count) in counts {
        let slot = match outcome {
            Outcome::Proved => &mut outcomes.proved,
            Outcome::DialFailed => &mut outcomes.dial_failed,
            Outcome::Refused => &mut outcomes.refused,
            Outcome::Rejected => &mut outcomes.rejected,
            Outcome::Error => &mut outcomes.error,
            Outcome::DialBackError => &mut outcomes.dial_back_error,
            Outcome::Timeout => &mut outcomes.timeout,
            Outcome::Lie => &mut outcomes.lie,
            Outcome::Declined => continue,
            _ => continue,
        };
        *slot = slot.saturating_add(*count);
    }
    outcomes
}

fn server_report(server: &ServerExplanation) -> ServerReport {
    ServerReport {
        peer_id: server.peer.to_string(),
        address: server.addr.to_string(),
        outcomes: counted(&server.outcomes),
        distrusted: server.distrusted,
    }
}

fn distant_report(server: &DistantExplanation) -> DistantReport {
    DistantReport {
        peer_id: server.peer.to_string(),
        relay: server.relay.to_string(),
        outcomes: counted(&server.outcomes),
        dial_data_bytes: server.dial_data,
    }
}

/// Milliseconds between two moments, rounded down; zero if `at` lies before `since`.
fn millis(since: Instant, at: Instant) -> u64 {
    u64::try_from(at.since(since).as_millis()).unwrap_or(u64::MAX)
}

fn state_name<S: Serializer>(state: &NodeState, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(state.name())
}
