//! Actions and notices as lines: stable, short, with names instead of ids.

use super::book::Book;
use super::frames::protocol_names;
use super::names::Names;
use bytes::Bytes;
use portolan_core::wire::autonat::{DialBack, DialBackResponse, DialBackStatus, Message};
use portolan_core::wire::autonat::{DialStatus, ResponseStatus};
use portolan_core::wire::identify::Identify;
use portolan_core::wire::multiaddr::Multiaddr;
use portolan_core::wire::peer_record::PeerRecord;
use portolan_core::{
    Action, Addr, ConnId, Notice, Protocol, PublicKey, Scope, Side, Sources, State, StreamId,
};

/// One order, as the transcript has it. Notices start with a star.
#[allow(clippy::wildcard_enum_match_arm, reason = "core's enums may grow")]
pub(super) fn action(names: &Names, book: &Book, action: &Action) -> String {
    let at = |stream: &StreamId| {
        let conn = book.streams.get(stream).map(|known| known.conn);
        format!("{stream}{}", conn.map(|conn| whose(names, book, conn)).unwrap_or_default())
    };
    match action {
        Action::OpenStream { conn, stream } => {
            format!("open {stream} on {conn}{}", whose(names, book, *conn))
        }
        Action::Send { stream, body } => {
            format!("send {} {}", at(stream), frame(names, *stream, body))
        }
        Action::CloseStream { stream } => format!("close {}", at(stream)),
        Action::ResetStream { stream } => format!("reset {}", at(stream)),
        Action::Dial(dial) => {
            let from = dial.source.map(|ip| format!(" from {ip}")).unwrap_or_default();
            format!("dial {} {}{from} within {:?}", dial.dial, dial.addr, dial.timeout)
        }
        Action::Disconnect { conn } => format!("disconnect {conn}{}", whose(names, book, *conn)),
        Action::Notify(news) => format!("* {}", notice(names, news)),
        other => format!("{other:?}"),
    }
}

fn whose(names: &Names, book: &Book, conn: ConnId) -> String {
    let peer = book.conns.get(&conn).map(|facts| names.name(&facts.peer));
    peer.map(|name| format!(" ({name})")).unwrap_or_default()
}

fn frame(names: &Names, stream: StreamId, body: &Bytes) -> String {
    let decoded = match (stream.protocol, stream.side) {
        (Protocol::Identify | Protocol::IdentifyPush, _) => {
            Identify::decode(body).map(|said| identify(names, &said)).ok()
        }
        (Protocol::Ping, _) => Some(format!("{} bytes", body.len())),
        (Protocol::DialRequest, _) => Message::decode(body).map(|said| message(&said)).ok(),
        (Protocol::DialBack, Side::Outbound) => {
            DialBack::decode(body).map(|said| format!("DialBack nonce={}", said.nonce)).ok()
        }
        (Protocol::DialBack, Side::Inbound) => DialBackResponse::decode(body)
            .map(|said| match said.status {
                DialBackStatus::Ok => "DialBackResponse OK".to_owned(),
                DialBackStatus::Unknown(_) | _ => {
                    format!("DialBackResponse {}", said.status.code())
                }
            })
            .ok(),
    };
    decoded.unwrap_or_else(|| format!("undecodable {body:02x?}"))
}

#[allow(clippy::wildcard_enum_match_arm, reason = "core's enums may grow")]
fn message(message: &Message) -> String {
    match message {
        Message::DialRequest { addrs, nonce } => {
            format!("DialRequest nonce={nonce} {}", multiaddrs(addrs))
        }
        Message::DialResponse { status, addr_idx, dial_status } => {
            let status = match status {
                ResponseStatus::InternalError => "INTERNAL".to_owned(),
                ResponseStatus::Rejected => "REJECTED".to_owned(),
                ResponseStatus::Refused => "REFUSED".to_owned(),
                ResponseStatus::Ok => "OK".to_owned(),
                other => other.code().to_string(),
            };
            let dial_status = match dial_status {
                DialStatus::Unused => "UNUSED".to_owned(),
                DialStatus::DialError => "DIAL_ERROR".to_owned(),
                DialStatus::DialBackError => "DIAL_BACK_ERROR".to_owned(),
                DialStatus::Ok => "OK".to_owned(),
                other => other.code().to_string(),
            };
            format!("DialResponse {status} {dial_status} idx={addr_idx}")
        }
        Message::DialDataRequest { addr_idx, num_bytes } => {
            format!("DialDataRequest {num_bytes} bytes idx={addr_idx}")
        }
        Message::DialDataResponse { data } => format!("DialDataResponse {} bytes", data.len()),
        other => format!("{other:?}"),
    }
}

fn identify(names: &Names, said: &Identify) -> String {
    let mut parts = vec!["Identify".to_owned()];
    let text =
        |name: &str, value: &Option<String>| value.as_ref().map(|value| format!("{name}={value}"));
    parts.extend(text("protocol", &said.protocol_version));
    parts.extend(text("agent", &said.agent_version));
    parts.extend(said.public_key.as_ref().map(|bytes| {
        let key = PublicKey::try_decode_protobuf(bytes);
        format!("key={}", key.map_or("bad".to_owned(), |key| names.name(&key.to_peer_id())))
    }));
    parts.extend(said.observed.as_ref().map(|bytes| format!("observed={}", multiaddr(bytes))));
    if !said.listen_addrs.is_empty() {
        parts.push(format!("listen={}", multiaddrs(&said.listen_addrs)));
    }
    if !said.protocols.is_empty() {
        parts.push(format!("protocols={}", protocol_names(&said.protocols)));
    }
    parts.extend(said.signed_peer_record.as_ref().map(|envelope| {
        match PeerRecord::open(envelope) {
            Ok(record) => format!(
                "record={}:{} {}",
                names.name(&record.peer_id),
                record.seq,
                multiaddrs(&record.addrs)
            ),
            Err(error) => format!("record=bad ({error})"),
        }
    }));
    parts.join(" ")
}

fn multiaddr(bytes: &Bytes) -> String {
    match Multiaddr::try_from(bytes.to_vec()) {
        Ok(multiaddr) => multiaddr.to_string(),
        Err(_) => format!("bad:{bytes:02x?}"),
    }
}

fn multiaddrs(all: &[Bytes]) -> String {
    format!("[{}]", all.iter().map(multiaddr).collect::<Vec<_>>().join(", "))
}

/// The sources of a candidate, strongest first.
pub(super) fn sources(sources: Sources) -> String {
    sources.iter().map(|source| source.name()).collect::<Vec<_>>().join("+")
}

/// A state with the scope of its proof.
pub(super) fn state(state: State, scope: Option<Scope>) -> String {
    scope.map_or_else(
        || state.name().to_owned(),
        |scope| format!("{} {}", state.name(), scope.name()),
    )
}

/// Addresses, separated by spaces and marked with what became of them.
fn marked(mark: char, addrs: &[Addr]) -> impl Iterator<Item = String> + '_ {
    addrs.iter().map(move |addr| format!(" {mark}{addr}"))
}

#[allow(clippy::wildcard_enum_match_arm, reason = "core's enums may grow")]
fn notice(names: &Names, notice: &Notice) -> String {
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
        Notice::RoleChanged { may_serve: true } => "may serve".to_owned(),
        Notice::RoleChanged { may_serve: false } => "may not serve".to_owned(),
        Notice::MappingInferred { class, mapping, provisional } => {
            let provisional = if *provisional { ", provisional" } else { "" };
            format!("mapping {class} {}{provisional}", mapping.name())
        }
        Notice::Identified { conn, peer, observed, server } => {
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
        Notice::ServerDistrusted { peer } => format!("distrusted {}", names.name(peer)),
        Notice::AdvertisedChanged { added, removed } => {
            let all = marked('+', added).chain(marked('-', removed));
            format!("advertised{}", all.collect::<String>())
        }
        Notice::DialBackServed { peer, addr, answer } => {
            let addr = addr.map(|addr| format!(" {addr}")).unwrap_or_default();
            format!("served {}{addr} {answer:?}", names.name(peer))
        }
        Notice::Ignored { oddity, conn } => {
            let on = conn.map(|conn| format!(" on {conn}")).unwrap_or_default();
            format!("ignored {oddity:?}{on}")
        }
        other => format!("{other:?}"),
    }
}
