//! What happened, in order, in words: notices and dials become lines of the report.

use crate::relays;
use portolan_core::{Addr, GatewayAnswer, Instant, Notice, Sources};

/// Lines kept, number; ours: a whole check makes some dozens to some hundreds. Memory grows by
/// about 120 bytes each. When full, further lines are counted, and the count is the last line.
pub const LINES_MAX: usize = 4_096;

/// What happened so far. It grows by [`Timeline::push`] and [`Timeline::notice`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timeline {
    lines: Vec<(Instant, String)>,
    over: u64,
    over_at: Instant,
}

impl Timeline {
    /// Nothing has happened.
    #[must_use]
    pub const fn new() -> Timeline {
        Timeline { lines: Vec::new(), over: 0, over_at: Instant::ZERO }
    }

    /// Something happened at this moment.
    pub fn push(&mut self, at: Instant, what: impl Into<String>) {
        if self.lines.len() < LINES_MAX {
            self.lines.push((at, what.into()));
        } else {
            self.over += 1;
            self.over_at = self.over_at.max(at);
        }
    }

    /// A node said this at this moment, after it had to drop so many notices unread.
    pub fn notice(&mut self, at: Instant, missed: u64, notice: &Notice) {
        if missed > 0 {
            self.push(at, format!("{missed} notices were lost: too many at once"));
        }
        self.push(at, words(notice));
    }

    /// Every line, by time; lines of the same moment in the order in which they were pushed.
    pub fn lines(&self) -> Vec<(Instant, String)> {
        let mut lines = self.lines.clone();
        lines.sort_by_key(|(at, _)| *at);
        if self.over > 0 {
            lines.push((self.over_at, format!("{} more lines were dropped", self.over)));
        }
        lines
    }
}

/// A notice in one line.
#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "notices may be added; every present one is listed"
)]
pub(crate) fn words(notice: &Notice) -> String {
    match notice {
        Notice::CandidateChanged { addr, sources } if sources.is_empty() => {
            format!("{addr} is no longer a candidate")
        }
        Notice::CandidateChanged { addr, sources } => {
            format!("{addr} is a candidate ({})", source_list(*sources))
        }
        Notice::VerdictChanged { addr, state, scope, reason } => {
            let scope = scope.map_or_else(String::new, |scope| format!(" ({})", scope.name()));
            format!("{addr} is {}{scope}: {reason}", state.name())
        }
        Notice::ClassChanged { class, state, reason } => {
            format!("{class} is {}: {reason}", state.name())
        }
        Notice::NodeChanged { state, reason } => {
            format!("the node is {}: {reason}", state.name())
        }
        Notice::RoleChanged { may_serve: true } => "the node may serve others".into(),
        Notice::RoleChanged { may_serve: false } => "the node may no longer serve others".into(),
        Notice::MappingInferred { class, mapping, provisional } => {
            let provisional = if *provisional { ", provisional" } else { "" };
            format!("the mapping of {class} is {}{provisional}", mapping.name())
        }
        Notice::Identified { peer, observed, server, .. } => {
            let observed = observed.map_or_else(
                || "did not say where it sees us".into(),
                |a| format!("sees us at {a}"),
            );
            let server = if *server { "offers to dial back" } else { "is no AutoNAT v2 server" };
            format!("{peer} {observed} and {server}")
        }
        Notice::NotIdentified { peer, .. } => format!("{peer} did not say who it is"),
        Notice::ProbeEnded { peer, addr, outcome } => {
            format!("{peer} was asked to dial {addr}: {}", outcome.name())
        }
        Notice::HearsayHeard { peer, answer } => {
            format!("AutoNAT v1 at {peer} says {}, which proves nothing", answer.name())
        }
        Notice::ServerDistrusted { peer } => {
            format!("{peer} claimed a success that was none and is trusted no more")
        }
        Notice::AdvertisedChanged { added, removed } => {
            format!("advertised:{}{}", signed('+', added), signed('-', removed))
        }
        Notice::FullyConnected { peer } => {
            format!("fully connected: {peer}, which a source named, asked to be dialled, and was")
        }
        Notice::DialBackServed { peer, addr, answer, .. } => {
            let addr = addr.map_or_else(|| "no address".into(), |addr| addr.to_string());
            format!("{peer} asked us to dial back {addr}: {answer:?}")
        }
        Notice::Ignored { oddity, conn } => {
            let conn = conn.map_or_else(String::new, |conn| format!(" on {conn}"));
            format!("ignored{conn}: {oddity:?}")
        }
        Notice::MappingChanged { internal, mapping: None } => {
            format!("{internal} is to be mapped no more")
        }
        Notice::MappingChanged { internal, mapping: Some(mapping) } => {
            let lease = mapping.lease.map_or_else(String::new, |lease| format!(" ({lease})"));
            let state = mapping.state.name();
            format!("the mapping of {internal} is {state}: {}{lease}", mapping.reason)
        }
        Notice::GatewayAnswered(GatewayAnswer { router, protocol, external }) => {
            let external = external.map_or_else(String::new, |ip| format!(" and has {ip} outside"));
            format!("the router {router} speaks {protocol}{external}")
        }
        Notice::Relay(notice) => relays::words(notice),
        _ => format!("{notice:?}"),
    }
}

/// Addresses with a sign in front of each.
fn signed(sign: char, addrs: &[Addr]) -> String {
    addrs.iter().map(|addr| format!(" {sign}{addr}")).collect()
}

/// The sources by name, strongest first, with commas.
pub(crate) fn source_list(sources: Sources) -> String {
    sources.iter().map(|source| source.name()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_core::{
        Lease, Mapping, MappingProtocol, MappingReason, MappingState, Reason, Scope, Source, State,
    };
    use std::net::Ipv4Addr;

    #[test]
    fn lines_come_by_time_and_the_rest_is_counted() {
        let mut timeline = Timeline::new();
        timeline.push(Instant::from_millis(5), "second");
        timeline.push(Instant::from_millis(1), "first");
        for _ in 0..LINES_MAX {
            timeline.push(Instant::from_millis(9), "more");
        }
        let lines = timeline.lines();
        assert_eq!(lines.len(), LINES_MAX + 1);
        assert_eq!((lines[0].1.as_str(), lines[1].1.as_str()), ("first", "second"));
        assert_eq!(lines[LINES_MAX], (Instant::from_millis(9), "2 more lines were dropped".into()));
    }

    #[test]
    fn notices_read_as_sentences() {
        let addr = Addr::tcp(Ipv4Addr::new(192, 0, 2, 1).into(), 4001);
        let sources = Sources::NONE.with(Source::Observed).with(Source::Guess);
        let router = Ipv4Addr::new(192, 168, 1, 1).into();
        let protocol = MappingProtocol::Pcp;
        for (notice, text) in [
            (
                Notice::CandidateChanged { addr, sources },
                "/ip4/192.0.2.1/tcp/4001 is a candidate (observed, guess)",
            ),
            (
                Notice::CandidateChanged { addr, sources: Sources::NONE },
                "/ip4/192.0.2.1/tcp/4001 is no longer a candidate",
            ),
            (
                Notice::VerdictChanged {
                    addr,
                    state: State::Reachable,
                    scope: Some(Scope::Contacted),
                    reason: Reason::ProvedByContacted,
                },
                "/ip4/192.0.2.1/tcp/4001 is reachable (contacted): \
                 a contacted server dialled back; strangers untested",
            ),
            (
                Notice::AdvertisedChanged { added: vec![addr], removed: vec![addr] },
                "advertised: +/ip4/192.0.2.1/tcp/4001 -/ip4/192.0.2.1/tcp/4001",
            ),
            (
                Notice::MappingChanged { internal: addr, mapping: None },
                "/ip4/192.0.2.1/tcp/4001 is to be mapped no more",
            ),
            (
                Notice::MappingChanged {
                    internal: addr,
                    mapping: Some(Mapping {
                        internal: addr,
                        state: MappingState::Granted,
                        reason: MappingReason::Granted,
                        lease: Some(Lease { router, protocol, external: addr, lifetime: None }),
                    }),
                },
                "the mapping of /ip4/192.0.2.1/tcp/4001 is granted: granted \
                 (/ip4/192.0.2.1/tcp/4001 by pcp at 192.168.1.1 until deleted)",
            ),
            (
                Notice::GatewayAnswered(GatewayAnswer { router, protocol, external: None }),
                "the router 192.168.1.1 speaks pcp",
            ),
            (
                Notice::GatewayAnswered(GatewayAnswer {
                    router,
                    protocol,
                    external: Some(addr.ip),
                }),
                "the router 192.168.1.1 speaks pcp and has 192.0.2.1 outside",
            ),
        ] {
            assert_eq!(words(&notice), text);
        }
        let mut timeline = Timeline::new();
        timeline.notice(Instant::ZERO, 3, &Notice::RoleChanged { may_serve: true });
        let lines: Vec<String> = timeline.lines().into_iter().map(|(_, what)| what).collect();
        assert_eq!(lines, ["3 notices were lost: too many at once", "the node may serve others"]);
    }
}
