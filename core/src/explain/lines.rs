//! The explanation in the lines of a transcript.

use super::{
    AddressExplanation, ClassExplanation, DistantExplanation, Explanation, HearsayExplanation,
    ServerExplanation,
};
use crate::transcript::{Names, Scribe, sources, state};
use crate::{Addr, Outcome};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

impl<N: Names> Scribe<N> {
    /// The explanation as texts, one for each thing explained.
    pub fn explanation(&self, of: &Explanation) -> Vec<String> {
        let serve = if of.may_serve { ", may serve" } else { "" };
        let settled = if of.settled { ", settled" } else { "" };
        let node = format!("node {}: {}{serve}{settled}", of.state.name(), of.reason);
        let mut texts = Vec::from([node]);
        texts.extend(of.classes.iter().map(|of| format!("class {}", class(of))));
        texts.extend(of.addresses.iter().map(|of| self.address(of)));
        texts.extend(of.servers.iter().map(|of| format!("server {}", self.server(of))));
        texts.extend(of.distant_servers.iter().map(|of| format!("distant {}", self.distant(of))));
        if !of.hearsay.servers.is_empty() {
            texts.push(format!("hearsay {}", self.hearsay(&of.hearsay)));
        }
        if !of.advertised.is_empty() {
            let all: Vec<String> = of.advertised.iter().map(ToString::to_string).collect();
            texts.push(format!("advertised {}", all.join(" ")));
        }
        if of.ignored > 0 {
            texts.push(format!("ignored {}", of.ignored));
        }
        texts
    }

    /// All that the explanation says of one address, as texts with a label each: its verdict,
    /// where it is known from, its proofs, its class, and how the probes of every server ended,
    /// whichever address they asked about. `None` if it is not a candidate.
    pub fn evidence(&self, of: &Explanation, addr: Addr) -> Option<Vec<String>> {
        let address = of.addresses.iter().find(|address| address.addr == addr)?;
        let yes = |yes| if yes { "yes" } else { "no" };
        let mut parts = Vec::from([
            ("addr", addr.to_string()),
            ("state", state(address.state, address.scope)),
            ("reason", address.reason.to_string()),
            ("sources", known_from(address)),
            ("proofs", self.proofs(address)),
        ]);
        let first = address.first_verdict_at.map(|at| format!("first at {}", self.moment(at)));
        parts.extend(first.map(|first| ("verdict", first)));
        parts.extend(address.until.map(|until| ("until", self.moment(until))));
        parts.push(("pending", yes(address.pending).into()));
        parts.push(("advertised", yes(of.advertised.contains(&addr)).into()));
        let its_class = of.classes.iter().filter(|class| class.class == addr.class());
        parts.extend(its_class.map(|of| ("class", class(of))));
        parts.extend(of.servers.iter().map(|of| ("server", self.server(of))));
        Some(parts.into_iter().map(|(label, text)| format!("{label:<10} {text}")).collect())
    }

    fn address(&self, of: &AddressExplanation) -> String {
        let judged = state(of.state, of.scope);
        let mut text = format!("addr {} {judged}: {}; {}", of.addr, of.reason, known_from(of));
        if of.proofs > 0 {
            text.push_str(&format!(", proofs {}", self.proofs(of)));
        }
        if let Some(until) = of.until {
            text.push_str(&format!(", until {}", self.moment(until)));
        }
        if of.pending {
            text.push_str(", pending");
        }
        text
    }

    /// `2 (last by S1 at 0.030)`.
    fn proofs(&self, of: &AddressExplanation) -> String {
        match (of.proved_by, of.proved_at) {
            (Some(by), Some(at)) => {
                format!("{} (last by {} at {})", of.proofs, self.names.name(&by), self.moment(at))
            }
            _ => of.proofs.to_string(),
        }
    }

    fn server(&self, of: &ServerExplanation) -> String {
        let gone = if of.connected { "" } else { ", gone" };
        let distrusted = if of.distrusted { ", distrusted" } else { "" };
        let outcomes = counted(&of.outcomes);
        format!("{} {}{gone}{distrusted}: {outcomes}", self.names.name(&of.peer), of.addr)
    }

    /// `public: S1 reachable, S2 nothing`.
    fn hearsay(&self, of: &HearsayExplanation) -> String {
        let each = of
            .servers
            .iter()
            .map(|server| format!("{} {}", self.names.name(&server.peer), server.answer.name()));
        format!("{}: {}", of.state.name(), each.collect::<Vec<_>>().join(", "))
    }

    fn distant(&self, of: &DistantExplanation) -> String {
        let (peer, relay) = (self.names.name(&of.peer), self.names.name(&of.relay));
        let paid = of.dial_data;
        format!("{peer} behind {relay}: {}; {paid} bytes of dial data", counted(&of.outcomes))
    }
}

fn counted(outcomes: &[(Outcome, u32)]) -> String {
    if outcomes.is_empty() {
        return "no answer yet".into();
    }
    let each = outcomes.iter().map(|(outcome, count)| format!("{} {count}", outcome.name()));
    each.collect::<Vec<_>>().join(", ")
}

fn class(of: &ClassExplanation) -> String {
    let provisional = if of.provisional { " (provisional)" } else { "" };
    format!(
        "{} {}: {}; mapping {}{provisional}, filtering {}",
        of.class,
        of.state.name(),
        of.reason,
        of.mapping.name(),
        of.filtering.name(),
    )
}

fn known_from(of: &AddressExplanation) -> String {
    match of.sources.is_empty() {
        true => "no source".into(),
        false => sources(of.sources),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        FilteringBehavior, HearsayAnswer, HearsayServer, Instant, MappingBehavior, NodeState,
        Outcome, PeerId, Reason, Scope, Source, Sources, State,
    };
    use core::net::{IpAddr, Ipv4Addr};

    struct Here(PeerId);

    impl Names for Here {
        fn name(&self, peer: &PeerId) -> String {
            if *peer == self.0 { "S1".into() } else { "S2".into() }
        }
    }

    fn addr(last: u8) -> Addr {
        Addr::tcp(IpAddr::V4(Ipv4Addr::new(44, 0, 0, last)), 4001)
    }

    /// An address that S1 proved, one that nobody could judge yet, and S2 that is gone and lied.
    /// The record began after 5 seconds.
    fn explained() -> (Scribe<Here>, Explanation) {
        let (first, second) = (PeerId::random(), PeerId::random());
        let mut proved = AddressExplanation::new(addr(1));
        proved.state = State::Reachable;
        proved.scope = Some(Scope::Contacted);
        proved.reason = Reason::ProvedByContacted;
        proved.sources = Sources::NONE.with(Source::Observed).with(Source::Interface);
        proved.proofs = 2;
        proved.proved_by = Some(first);
        proved.proved_at = Some(Instant::from_millis(8_030));
        proved.first_verdict_at = Some(Instant::from_millis(6_000));
        proved.until = Some(Instant::from_millis(608_030));
        let mut open = AddressExplanation::new(addr(2));
        open.pending = true;
        let mut class = ClassExplanation::new(addr(1).class());
        class.mapping = MappingBehavior::AddressDependent;
        class.provisional = true;
        class.filtering = FilteringBehavior::AddressDependent;
        let mut silent = ServerExplanation::new(first, addr(3));
        silent.outcomes = Vec::from([(Outcome::Proved, 2), (Outcome::Timeout, 1)]);
        let mut liar = ServerExplanation::new(second, addr(4));
        liar.connected = false;
        liar.distrusted = true;
        let mut all = Explanation::new(Instant::from_millis(9_000), first);
        all.state = NodeState::Limited;
        all.reason = Reason::ProvedByContacted;
        all.may_serve = true;
        all.settled = true;
        all.classes.push(class);
        all.addresses.extend([proved, open]);
        all.servers.extend([silent, liar]);
        all.hearsay.state = NodeState::Private;
        let said = |peer, answer| HearsayServer::new(peer, addr(3), answer);
        all.hearsay.servers.push(said(first, HearsayAnswer::Unreachable));
        all.hearsay.servers.push(said(second, HearsayAnswer::Nothing));
        all.advertised.extend([addr(1), addr(9)]);
        all.ignored = 3;
        (Scribe::new(Here(first), Instant::from_millis(5_000)), all)
    }

    #[test]
    fn everything_explained_has_its_line() {
        let (scribe, all) = explained();
        let expected = "\
node limited: a contacted server dialled back; strangers untested, may serve, settled
class ip4/tcp unknown: nothing has happened yet; mapping address-dependent (provisional), filtering address-dependent
addr /ip4/44.0.0.1/tcp/4001 reachable contacted: a contacted server dialled back; strangers untested; observed+interface, proofs 2 (last by S1 at 3.030), until 603.030
addr /ip4/44.0.0.2/tcp/4001 unknown: nothing has happened yet; no source, pending
server S1 /ip4/44.0.0.3/tcp/4001: proved 2, timeout 1
server S2 /ip4/44.0.0.4/tcp/4001, gone, distrusted: no answer yet
hearsay private: S1 unreachable, S2 nothing
advertised /ip4/44.0.0.1/tcp/4001 /ip4/44.0.0.9/tcp/4001
ignored 3";
        assert_eq!(scribe.explanation(&all).join("\n"), expected);
        let nothing = Explanation::new(Instant::ZERO, PeerId::random());
        assert_eq!(scribe.explanation(&nothing), ["node unknown: nothing has happened yet"]);
    }

    #[test]
    fn one_address_is_explained_with_its_evidence() {
        let (scribe, all) = explained();
        let of = |addr| scribe.evidence(&all, addr).map(|lines| lines.join("\n"));
        let proved = "\
addr       /ip4/44.0.0.1/tcp/4001
state      reachable contacted
reason     a contacted server dialled back; strangers untested
sources    observed+interface
proofs     2 (last by S1 at 3.030)
verdict    first at 1.000
until      603.030
pending    no
advertised yes
class      ip4/tcp unknown: nothing has happened yet; mapping address-dependent (provisional), filtering address-dependent
server     S1 /ip4/44.0.0.3/tcp/4001: proved 2, timeout 1
server     S2 /ip4/44.0.0.4/tcp/4001, gone, distrusted: no answer yet";
        assert_eq!(of(addr(1)).as_deref(), Some(proved));
        let open = of(addr(2)).expect("a candidate");
        assert!(open.contains("\nstate      unknown\n"), "{open}");
        assert!(open.contains("\nproofs     0\npending    yes\nadvertised no\n"), "{open}");
        assert_eq!(of(addr(8)), None, "not a candidate");
    }
}
