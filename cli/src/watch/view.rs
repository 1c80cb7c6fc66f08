//! What the page of a watch shows: addresses with verdict, proof and what comes next, mappings, relays,
//! servers, and why nobody gets in where nobody does.

use super::recent::Recent;
use crate::address::short;
use crate::http::{Cell, Clock, Figure, Headline, Section, Tone, View};
use crate::relays;
use crate::report::{self, Report};
use crate::timeline::source_list;
use portolan_core::wire::multiaddr::to_multiaddr;
use portolan_core::{
    AddressExplanation, ClassExplanation, Explanation, FilteringBehavior, Instant, LeaseTerm,
    Mapping, MappingBehavior, MappingState, NextProbe, NodeState, Relay, RelayState, State,
};
use portolan_runtime::circuit_address;

/// Everything that the page shows. `since`: when the watch began.
pub(super) fn view(
    of: &Explanation,
    report: &Report,
    recent: &Recent,
    clock: Clock,
    since: Instant,
) -> View {
    let mut sections = vec![addresses(of, clock), classes(of)];
    if !of.mappings.is_empty() {
        sections.push(mappings(of, clock));
    }
    if !of.relays.is_empty() {
        sections.push(relays_table(of, clock));
    }
    sections.push(servers(of, report, recent));
    if !report.hearsay.servers.is_empty() {
        sections.push(hearsay(report));
    }
    sections.push(happened(recent, clock));
    View {
        program: "portolan watch",
        version: env!("CARGO_PKG_VERSION"),
        peer_id: report.peer_id.clone(),
        headline: headline(of, report),
        figures: figures(of, clock, since),
        sections,
    }
}

fn headline(of: &Explanation, report: &Report) -> Headline {
    let is_relayed = report.reachability == NodeState::Private && report.is_relayed();
    let tone = if is_relayed { Tone::Warn } else { report.reachability.into() };
    let reason = format!("Because: {}.", report.reason);
    let is_open = report.reachability == NodeState::Public;
    let why = if is_open { Vec::new() } else { obstacles(of) };
    Headline { tone, state: format!("{}.", report.sentence()), reason, why }
}

/// What stands in the way, a sentence each.
fn obstacles(of: &Explanation) -> Vec<String> {
    let closed = of.classes.iter().filter(|one| one.state != NodeState::Public);
    let mut all: Vec<String> = closed.map(obstacle).collect();
    let failed = of.mappings.iter().filter(|one| one.state == MappingState::Failed);
    all.extend(failed.map(|one| format!("No router maps {}: {}.", one.internal, one.reason)));
    if !of.servers.iter().any(|server| server.connected) {
        all.push("No server that dials back is in reach, so nothing can be proved now.".into());
    }
    let is_reserved = |one: &Relay| one.state == RelayState::Reserved;
    if !of.relays.is_empty() && !of.relays.iter().any(is_reserved) {
        all.push("No relay holds a reservation for this node.".into());
    }
    all
}

fn obstacle(class: &ClassExplanation) -> String {
    let mut text = format!("{} is {}: {}", class.class, class.state.name(), class.reason);
    let ways = [
        match class.mapping {
            MappingBehavior::AddressDependent | MappingBehavior::AddressAndPortDependent => Some(
                "the NAT gives every destination another port, so that no address holds for all",
            ),
            MappingBehavior::None
            | MappingBehavior::EndpointIndependent
            | MappingBehavior::Unknown => None,
        },
        match class.filtering {
            FilteringBehavior::AddressDependent | FilteringBehavior::AddressAndPortDependent => {
                Some("only those get in whom this node has sent to before")
            }
            FilteringBehavior::None
            | FilteringBehavior::EndpointIndependent
            | FilteringBehavior::Unknown => None,
        },
    ];
    for way in ways.into_iter().flatten() {
        text.push_str("; ");
        text.push_str(way);
    }
    text.push('.');
    text
}

fn figures(of: &Explanation, clock: Clock, since: Instant) -> Vec<Figure> {
    let proved = of.addresses.iter().filter(|one| one.state == State::Reachable).count();
    let servers = of.servers.iter().filter(|server| server.connected).count();
    let reserved = of.relays.iter().filter(|one| one.state == RelayState::Reserved).count();
    let mapped = of.mappings.iter().filter(|one| one.state == MappingState::Granted).count();
    vec![
        Figure::count("addresses proved", proved),
        Figure::count("addresses known", of.addresses.len()),
        Figure::count("servers in reach", servers),
        Figure::count("ports mapped", mapped),
        Figure::count("relays reserved", reserved),
        Figure::new("running for", clock.lasting(since)),
    ]
}

fn addresses(of: &Explanation, clock: Clock) -> Section {
    let columns = ["address", "verdict", "because", "known from", "proved", "next"];
    let empty = "No address is known that others could dial.";
    let mut section = Section::new("addresses", "Addresses", columns, empty);
    for one in &of.addresses {
        section.row([
            vec![Cell::code(to_multiaddr(one.addr, None))],
            verdict(one),
            vec![Cell::text(one.reason.to_string())],
            vec![Cell::text(source_list(one.sources))],
            proof(one, clock),
            next(one, clock),
        ]);
    }
    section
}

fn verdict(one: &AddressExplanation) -> Vec<Cell> {
    let tone = match one.state {
        State::Reachable => Tone::Good,
        State::Unreachable => Tone::Bad,
        State::Unknown => Tone::Calm,
    };
    let scope = one.scope.map(|scope| Cell::text(scope.name()));
    core::iter::once(Cell::badge(one.state.name(), tone)).chain(scope).collect()
}

fn proof(one: &AddressExplanation, clock: Clock) -> Vec<Cell> {
    match (one.proved_at, one.proved_by) {
        (Some(at), Some(by)) => {
            vec![clock.ago(at), Cell::text(format!("by {}", short(&by.to_string())))]
        }
        (Some(at), None) => vec![clock.ago(at)],
        (None, _) => vec![Cell::text("never")],
    }
}

fn next(one: &AddressExplanation, clock: Clock) -> Vec<Cell> {
    let mut cells = match one.next {
        NextProbe::Now => vec![Cell::text("is being probed")],
        NextProbe::At(at) => vec![Cell::text("probed"), clock.until(at)],
        NextProbe::WithServer | _ => vec![Cell::text("probed when a server can be asked")],
    };
    if let Some(until) = one.until {
        cells.extend([Cell::text("· the proof ends"), clock.until(until)]);
    }
    cells
}

fn classes(of: &Explanation) -> Section {
    let columns = ["class", "reachability", "mapping", "filtering", "because"];
    let mut section = Section::new("nat", "NAT and firewall", columns, "Nothing is listened on.");
    for one in &of.classes {
        section.row([
            vec![Cell::text(one.class.to_string())],
            vec![Cell::badge(one.state.name(), one.state.into())],
            vec![Cell::text(one.mapping.name())],
            vec![Cell::text(one.filtering.name())],
            vec![Cell::text(one.reason.to_string())],
        ]);
    }
    section
}

fn mappings(of: &Explanation, clock: Clock) -> Section {
    let columns = ["ours", "outside", "state", "router", "because", "lease"];
    let mut section = Section::new("mappings", "Mapped ports", columns, "");
    for Mapping { internal, state, reason, lease } in &of.mappings {
        let tone = match state {
            MappingState::Granted => Tone::Good,
            MappingState::Failed => Tone::Bad,
            MappingState::Asking | _ => Tone::Calm,
        };
        let outside = lease.map(|lease| Cell::code(lease.external));
        let router = lease.map(|lease| format!("{} by {}", lease.router, lease.protocol.name()));
        let term = of.terms.iter().find(|term| term.internal == *internal);
        section.row([
            vec![Cell::code(internal)],
            outside.into_iter().collect(),
            vec![Cell::badge(state.name(), tone)],
            router.into_iter().map(Cell::text).collect(),
            vec![Cell::text(reason.to_string())],
            term.map(|term| lasts(term, clock)).unwrap_or_default(),
        ]);
    }
    section
}

fn lasts(term: &LeaseTerm, clock: Clock) -> Vec<Cell> {
    let mut cells = match term.until {
        Some(until) => vec![Cell::text("ends"), clock.until(until)],
        None => vec![Cell::text("until it is deleted")],
    };
    if let Some(at) = term.renew_at {
        cells.extend([Cell::text("· asked for again"), clock.until(at)]);
    }
    cells
}

fn relays_table(of: &Explanation, clock: Clock) -> Section {
    let columns = ["relay", "state", "latency", "until", "a circuit may", "give to others"];
    let mut section = Section::new("relays", "Relays", columns, "");
    for relay in &of.relays {
        let Relay { peer, state, failure, rtt, until, addrs, .. } = relay;
        let is_reserved = *state == RelayState::Reserved;
        let tone = match state {
            RelayState::Reserved => Tone::Good,
            RelayState::Resting => Tone::Warn,
            RelayState::Spare | RelayState::Connecting | RelayState::Asking | _ => Tone::Calm,
        };
        let mut stands = vec![Cell::badge(state.name(), tone)];
        stands.extend(failure.map(|why| Cell::text(relays::failure(why))));
        let address = |addr| Cell::code(circuit_address(addr, *peer, of.peer_id));
        let limit = &relay.limit;
        let limit = is_reserved
            .then(|| relays::limits(limit.duration.map(|span| span.as_secs()), limit.bytes));
        section.row([
            vec![Cell::code(peer)],
            stands,
            rtt.map(|rtt| Cell::text(format!("{} ms", rtt.as_millis()))).into_iter().collect(),
            until.map(|at| clock.until(at)).into_iter().collect(),
            limit.map(Cell::text).into_iter().collect(),
            addrs.iter().copied().map(address).collect(),
        ]);
    }
    section
}

fn servers(of: &Explanation, report: &Report, recent: &Recent) -> Section {
    let columns = ["server", "address", "software", "in reach", "what it said"];
    let empty = "No peer offers to dial back (AutoNAT v2).";
    let mut section = Section::new("servers", "Servers", columns, empty);
    for (server, told) in of.servers.iter().zip(&report.servers) {
        let mut said = vec![Cell::text(report::said(&told.outcomes))];
        if server.distrusted {
            said.push(Cell::badge("trusted no more", Tone::Bad));
        }
        let reach = match server.connected {
            true => Cell::badge("connected", Tone::Good),
            false => Cell::badge("gone", Tone::Calm),
        };
        section.row([
            vec![Cell::code(server.peer)],
            vec![Cell::code(server.addr)],
            vec![Cell::text(recent.agents.of(&server.peer))],
            vec![reach],
            said,
        ]);
    }
    section
}

fn hearsay(report: &Report) -> Section {
    let columns = ["server", "address", "it says that we are"];
    let mut section = Section::new("hearsay", "Hearsay (AutoNAT v1)", columns, "");
    let amounts = report.hearsay.reachability.name();
    section.note = Some(format!("It proves nothing. All in all it says: {amounts}."));
    for one in &report.hearsay.servers {
        let (peer, address) = (Cell::code(&one.peer_id), Cell::code(&one.address));
        section.row([vec![peer], vec![address], vec![Cell::text(one.answer)]]);
    }
    section
}

fn happened(recent: &Recent, clock: Clock) -> Section {
    let columns = ["when", "what"];
    let mut section = Section::new("news", "What happened", columns, "Nothing yet.");
    section.is_log = true;
    for (at, text) in recent.lines() {
        section.row([vec![clock.ago(at)], vec![Cell::text(text)]]);
    }
    section
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_core::{Addr, Class, Family, MappingReason, Reason, ServerExplanation, Transport};
    use portolan_runtime::identity;
    use std::net::Ipv4Addr;

    fn shown(of: &Explanation) -> View {
        let report = Report::new(of, of.at, &crate::Timeline::new(), Vec::new());
        view(of, &report, &Recent::default(), Clock::set(of.at), of.at)
    }

    #[test]
    fn where_nobody_gets_in_it_is_told_why() {
        let peer = identity::generate().public().to_peer_id();
        let mut of = Explanation::new(Instant::ZERO, peer);
        (of.state, of.reason) = (NodeState::Private, Reason::DialFailed { servers: 3 });
        let mut class =
            ClassExplanation::new(Class { family: Family::Ip4, transport: Transport::Tcp });
        (class.state, class.reason) = (of.state, of.reason);
        class.mapping = MappingBehavior::AddressAndPortDependent;
        class.filtering = FilteringBehavior::AddressAndPortDependent;
        of.classes.push(class);
        let internal = Addr::tcp(Ipv4Addr::new(192, 168, 1, 2).into(), 4001);
        let (state, reason) = (MappingState::Failed, MappingReason::NoGateway);
        of.mappings.push(Mapping { internal, state, reason, lease: None });
        let found = shown(&of);
        assert_eq!(found.headline.tone, Tone::Bad);
        let why = found.headline.why.join("\n");
        for words in
            ["ip4/tcp is private", "another port", "sent to before", "No router maps", "No server"]
        {
            assert!(why.contains(words), "no {words:?} in {why}");
        }
        // Where everybody gets in there is nothing to explain.
        of.state = NodeState::Public;
        of.servers.push(ServerExplanation::new(peer, internal));
        assert_eq!(shown(&of).headline.why, Vec::<String>::new());
    }
}
