//! Orders and news.

use super::text::span;
use super::{Names, Scribe, frames, mapping, punch, relay};
use crate::{Action, Addr, Notice, Scope, Side, Sources, State};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// The text of an action. News start with a star.
pub(super) fn text<N: Names>(scribe: &Scribe<N>, action: &Action) -> String {
    match action {
        Action::OpenStream { conn, stream } => format!("open {stream} on {}", scribe.conn(*conn)),
        Action::Send { stream, body } => {
            let said = frames::frame(&scribe.names, *stream, Side::Outbound, body);
            format!("send {} {said}", scribe.stream(*stream))
        }
        Action::CloseStream { stream } => format!("close {}", scribe.stream(*stream)),
        Action::ResetStream { stream } => format!("reset {}", scribe.stream(*stream)),
        Action::Dial(dial) => {
            let from = dial.source.map(|ip| format!(" from {ip}")).unwrap_or_default();
            format!("dial {} {}{from} within {}", dial.dial, dial.addr, span(dial.timeout))
        }
        Action::Disconnect { conn } => format!("disconnect {}", scribe.conn(*conn)),
        Action::Mapping(action) => mapping::action(action),
        Action::Relay(action) => relay::action(scribe, action),
        Action::Punch(action) => punch::action(scribe, action),
        Action::Notify(news) => format!("* {}", notice(scribe, news)),
    }
}

fn notice<N: Names>(scribe: &Scribe<N>, notice: &Notice) -> String {
    let names = &scribe.names;
    match notice {
        Notice::CandidateChanged { addr, sources: none } if none.is_empty() => {
            format!("candidate {addr} gone")
        }
        Notice::CandidateChanged { addr, sources: from } => {
            format!("candidate {addr} {}", sources(*from))
        }
        Notice::VerdictChanged { addr, state: now, scope, reason } => {
            format!("verdict {addr} {}: {reason}", state(*now, *scope))
        }
        Notice::ClassChanged { class, state, reason } => {
            format!("class {class} {}: {reason}", state.name())
        }
        Notice::NodeChanged { state, reason } => format!("node {}: {reason}", state.name()),
        Notice::RoleChanged { may_serve: true } => "may serve".into(),
        Notice::RoleChanged { may_serve: false } => "may not serve".into(),
        Notice::MappingInferred { class, mapping, provisional } => {
            let provisional = if *provisional { ", provisional" } else { "" };
            format!("mapping {class} {}{provisional}", mapping.name())
        }
        // What it says it is, stands in the frame that said it.
        Notice::Identified { conn, peer, observed, server, agent: _ } => {
            let sees = observed.map(|addr| format!(" sees {addr}")).unwrap_or_default();
            let server = if *server { " server" } else { "" };
            format!("identified {conn} ({}){server}{sees}", names.name(peer))
        }
        Notice::NotIdentified { conn, peer } => {
            format!("not identified {conn} ({})", names.name(peer))
        }
        Notice::ProbeEnded { peer, addr, outcome } => {
            format!("probe {} {addr} {}", names.name(peer), outcome.name())
        }
        Notice::HearsayHeard { peer, answer } => {
            format!("hearsay of {}: {}", names.name(peer), answer.name())
        }
        Notice::ServerDistrusted { peer } => format!("distrusted {}", names.name(peer)),
        Notice::AdvertisedChanged { added, removed } => {
            let all = marked('+', added).chain(marked('-', removed));
            format!("advertised{}", all.collect::<String>())
        }
        Notice::DialBackServed { peer, addr, answer, .. } => {
            let addr = addr.map(|addr| format!(" {addr}")).unwrap_or_default();
            format!("served {}{addr} {answer:?}", names.name(peer))
        }
        Notice::FullyConnected { peer } => format!("fully connected by {}", names.name(peer)),
        Notice::Ignored { oddity, conn } => {
            let on = conn.map(|conn| format!(" on {conn}")).unwrap_or_default();
            format!("ignored {oddity:?}{on}")
        }
        Notice::MappingChanged { internal, mapping } => {
            mapping::changed(internal, mapping.as_ref())
        }
        Notice::GatewayAnswered(answer) => mapping::answered(answer),
        Notice::Relay(news) => relay::notice(scribe, news),
        Notice::Punch(news) => punch::notice(scribe, news),
    }
}

/// The sources of a candidate, strongest first.
pub(crate) fn sources(sources: Sources) -> String {
    sources.iter().map(|source| source.name()).collect::<Vec<_>>().join("+")
}

/// A state with the scope of its proof.
pub(crate) fn state(state: State, scope: Option<Scope>) -> String {
    match scope {
        Some(scope) => format!("{} {}", state.name(), scope.name()),
        None => state.name().into(),
    }
}

/// Addresses, each after a space and a mark that says what became of it.
fn marked(mark: char, addrs: &[Addr]) -> impl Iterator<Item = String> + '_ {
    addrs.iter().map(move |addr| format!(" {mark}{addr}"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{addr, peer, scribe};
    use super::*;
    use crate::wire::autonat::{DialBack, DialBackResponse};
    use crate::{
        Class, ConnId, Dial, DialId, Duration, Family, MappingBehavior, NodeState, Oddity, Outcome,
        Protocol, Reason, Served, Source, StreamId, Transport,
    };
    use bytes::Bytes;
    use core::net::{IpAddr, Ipv4Addr};

    const CONN: ConnId = ConnId(1);
    const STREAM: StreamId = StreamId::inbound(Protocol::Identify, 1);
    const CLASS: Class = Class::new(Family::Ip4, Transport::Tcp);

    #[test]
    fn every_order_has_its_line() {
        let dial =
            Dial { dial: DialId(2), addr: addr(3), source: None, timeout: Duration::from_secs(15) };
        let source = Some(IpAddr::V4(Ipv4Addr::new(44, 0, 0, 9)));
        let fresh = StreamId::outbound(Protocol::DialRequest, 3);
        let body = Bytes::from_static(b"\x32\x01a");
        let all = [
            (Action::OpenStream { conn: CONN, stream: fresh }, "open >dial-request:3 on c1 (P1)"),
            (Action::OpenStream { conn: ConnId(9), stream: fresh }, "open >dial-request:3 on c9"),
            (
                Action::Send { stream: STREAM, body: body.clone() },
                "send <identify:1 (P1) Identify agent=a",
            ),
            (
                Action::Send { stream: fresh, body },
                "send >dial-request:3 undecodable 3 bytes 320161",
            ),
            (Action::CloseStream { stream: STREAM }, "close <identify:1 (P1)"),
            (Action::ResetStream { stream: STREAM }, "reset <identify:1 (P1)"),
            (Action::Dial(dial), "dial d2 /ip4/44.0.0.3/tcp/4001 within 15s"),
            (
                Action::Dial(Dial { source, timeout: Duration::from_millis(2_500), ..dial }),
                "dial d2 /ip4/44.0.0.3/tcp/4001 from 44.0.0.9 within 2.5s",
            ),
            (Action::Disconnect { conn: CONN }, "disconnect c1 (P1)"),
            (Action::Notify(Notice::RoleChanged { may_serve: true }), "* may serve"),
        ];
        for (action, line) in all {
            assert_eq!(scribe().action(&action), line);
        }
    }

    #[test]
    fn what_goes_out_was_sent_by_us() {
        let nonce = Action::Send {
            stream: StreamId::outbound(Protocol::DialBack, 1),
            body: DialBack { nonce: 7 }.encode(),
        };
        assert_eq!(scribe().action(&nonce), "send >dial-back:1 DialBack nonce=7");
        let answer = Action::Send {
            stream: StreamId::inbound(Protocol::DialBack, 1),
            body: DialBackResponse::OK.encode(),
        };
        assert_eq!(scribe().action(&answer), "send <dial-back:1 DialBackResponse OK");
    }

    #[test]
    fn what_is_ordered_is_remembered() {
        let mut scribe = scribe();
        let stream = StreamId::outbound(Protocol::Ping, 3);
        scribe.action(&Action::OpenStream { conn: CONN, stream });
        assert_eq!(scribe.action(&Action::CloseStream { stream }), "close >ping:3 (P1)");
    }

    /// The line of a notice without its star.
    fn told(notice: Notice) -> String {
        let line = scribe().action(&Action::Notify(notice));
        line.strip_prefix("* ").expect("a notice has a star").into()
    }

    #[test]
    fn every_notice_about_ourselves_has_its_line() {
        let sources = Sources::NONE.with(Source::Observed).with(Source::Configured);
        let reason = Reason::ProvedByContacted;
        let all = [
            (
                Notice::CandidateChanged { addr: addr(2), sources },
                "candidate /ip4/44.0.0.2/tcp/4001 configured+observed",
            ),
            (
                Notice::CandidateChanged { addr: addr(2), sources: Sources::NONE },
                "candidate /ip4/44.0.0.2/tcp/4001 gone",
            ),
            (
                Notice::VerdictChanged {
                    addr: addr(2),
                    state: State::Reachable,
                    scope: Some(Scope::Contacted),
                    reason,
                },
                "verdict /ip4/44.0.0.2/tcp/4001 reachable contacted: \
                 a contacted server dialled back; strangers untested",
            ),
            (
                Notice::VerdictChanged {
                    addr: addr(2),
                    state: State::Unknown,
                    scope: None,
                    reason: Reason::Probing,
                },
                "verdict /ip4/44.0.0.2/tcp/4001 unknown: a probe is in flight",
            ),
            (
                Notice::ClassChanged { class: CLASS, state: NodeState::Unknown, reason },
                "class ip4/tcp unknown: a contacted server dialled back; strangers untested",
            ),
            (
                Notice::NodeChanged { state: NodeState::Unknown, reason: Reason::JustStarted },
                "node unknown: nothing has happened yet",
            ),
            (Notice::RoleChanged { may_serve: false }, "may not serve"),
            (
                Notice::AdvertisedChanged { added: [addr(2)].into(), removed: [addr(3)].into() },
                "advertised +/ip4/44.0.0.2/tcp/4001 -/ip4/44.0.0.3/tcp/4001",
            ),
        ];
        for (notice, line) in all {
            assert_eq!(told(notice), line);
        }
        let mapping = |provisional| Notice::MappingInferred {
            class: CLASS,
            mapping: MappingBehavior::AddressDependent,
            provisional,
        };
        assert_eq!(told(mapping(true)), "mapping ip4/tcp address-dependent, provisional");
        assert_eq!(told(mapping(false)), "mapping ip4/tcp address-dependent");
    }

    #[test]
    fn every_notice_about_a_peer_has_its_line() {
        let identified = |observed, server| Notice::Identified {
            conn: ConnId(5),
            peer: peer(2),
            observed,
            server,
            agent: None,
        };
        let served = |addr| Notice::DialBackServed {
            peer: peer(2),
            addr,
            answer: Served::Delivered,
            took: Duration::ZERO,
        };
        let ignored = |conn| Notice::Ignored { oddity: Oddity::UnknownNonce, conn };
        let all = [
            (identified(None, false), "identified c5 (P2)"),
            (
                identified(Some(addr(2)), true),
                "identified c5 (P2) server sees /ip4/44.0.0.2/tcp/4001",
            ),
            (Notice::NotIdentified { conn: ConnId(5), peer: peer(2) }, "not identified c5 (P2)"),
            (
                Notice::ProbeEnded { peer: peer(2), addr: addr(2), outcome: Outcome::DialFailed },
                "probe P2 /ip4/44.0.0.2/tcp/4001 dial_failed",
            ),
            (Notice::ServerDistrusted { peer: peer(2) }, "distrusted P2"),
            (Notice::FullyConnected { peer: peer(2) }, "fully connected by P2"),
            (served(Some(addr(3))), "served P2 /ip4/44.0.0.3/tcp/4001 Delivered"),
            (served(None), "served P2 Delivered"),
            (ignored(Some(CONN)), "ignored UnknownNonce on c1"),
            (ignored(None), "ignored UnknownNonce"),
        ];
        for (notice, line) in all {
            assert_eq!(told(notice), line);
        }
    }
}
