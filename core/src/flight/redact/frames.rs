//! Messages with others in them. Each is decoded and written again, so that nothing is left that
//! core's own decoder did not read.

use super::others::Retell;
use crate::wire::autonat::{DialBack, DialBackResponse, Message, v1};
use crate::wire::identify::Identify;
use crate::wire::multiaddr::{self, AddrError, Decoded, Multiaddr};
use crate::wire::punch::PunchMessage;
use crate::wire::relay::{HopMessage, Reservation, StopMessage, Voucher};
use crate::{Protocol, PublicKey, Side, StreamId};
use ::multiaddr::Protocol as Component;
use alloc::vec;
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::IpAddr;

/// Components of one address that are looked at, number; ours: no address in use has half as
/// many. What an address grows by grows with it. One with more is replaced as a whole.
const COMPONENTS_MAX: usize = 16;
/// How bytes begin that no decoder of protobuf takes: a field without a number, of a type that
/// does not exist.
const REFUSED: u8 = 0x07;
/// An address that cannot be read: the code that it begins with is none.
const UNREADABLE: &[u8] = &[0x1f];

/// As many zeros.
pub(super) fn blank(bytes: &Bytes) -> Bytes {
    vec![0; bytes.len()].into()
}

/// What core refused of that which others had signed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Refused {
    /// The record of the peer that it has just listened to.
    pub(super) record: bool,
    /// The voucher of the relay that it has just listened to.
    pub(super) voucher: bool,
}

/// The body of a frame that came in. `bad` says what core refused in it.
pub(super) fn body(stream: StreamId, body: &Bytes, bad: Refused, by: &mut impl Retell) -> Bytes {
    let rewritten = match (stream.protocol, stream.side) {
        (Protocol::Identify | Protocol::IdentifyPush, _) => {
            Identify::decode(body).map(|said| identify(&said, bad.record, by).encode())
        }
        (Protocol::Ping, _) => return ping(body),
        (Protocol::DialRequest, _) => Message::decode(body).map(|said| message(said, by).encode()),
        // Whoever opened the stream brings the nonce, which is masked; the other one answers.
        (Protocol::DialBack, Side::Inbound) => DialBack::decode(body).map(DialBack::encode),
        (Protocol::DialBack, Side::Outbound) => {
            DialBackResponse::decode(body).map(DialBackResponse::encode)
        }
        (Protocol::Hop, _) => {
            HopMessage::decode(body).map(|said| hop(said, bad.voucher, by).encode())
        }
        (Protocol::Stop, _) => StopMessage::decode(body).map(|said| stop(said, by).encode()),
        (Protocol::AutonatV1, _) => v1::Message::decode(body).map(|said| told(said, by).encode()),
        (Protocol::Punch, _) => PunchMessage::decode(body).map(|said| punch(said, by).encode()),
    };
    rewritten.unwrap_or_else(|_| refused(body))
}

/// As many bytes, which core refuses as well.
fn refused(body: &Bytes) -> Bytes {
    let mut other = vec![0; body.len()];
    if let Some(first) = other.first_mut() {
        *first = REFUSED;
    }
    other.into()
}

/// Whole words were masked when they were recorded; what is behind them was not.
fn ping(body: &Bytes) -> Bytes {
    let mut other = body.to_vec();
    other.chunks_exact_mut(8).into_remainder().fill(0);
    other.into()
}

fn identify(said: &Identify, bad_record: bool, by: &mut impl Retell) -> Identify {
    Identify {
        public_key: said.public_key.as_ref().map(|bytes| key(bytes, by)),
        listen_addrs: addrs(&said.listen_addrs, by),
        protocols: said.protocols.iter().map(|name| by.text(name)).collect(),
        observed: said.observed.as_ref().map(|bytes| addr(bytes, by)),
        protocol_version: said.protocol_version.as_ref().map(|text| by.text(text)),
        agent_version: said.agent_version.as_ref().map(|text| by.text(text)),
        // A good one cannot be signed anew and changes nothing that core decides. A bad one is
        // worth a notice, which no bytes at all are worth as well.
        signed_peer_record: bad_record.then(Bytes::new),
        relay_load: said.relay_load,
    }
}

/// A public key; no bytes at all, which are none either, where there is none.
fn key(bytes: &Bytes, by: &mut impl Retell) -> Bytes {
    match PublicKey::try_decode_protobuf(bytes) {
        Ok(key) => by.key(&key).encode_protobuf().into(),
        Err(_) => Bytes::new(),
    }
}

fn message(said: Message, by: &mut impl Retell) -> Message {
    match said {
        Message::DialRequest { addrs: all, nonce } => {
            Message::DialRequest { addrs: addrs(&all, by), nonce }
        }
        Message::DialDataResponse { data } => Message::DialDataResponse { data: blank(&data) },
        Message::DialResponse { status, addr_idx, dial_status, failed_from } => {
            let failed_from = failed_from.map(|from| by.ip(from));
            Message::DialResponse { status, addr_idx, dial_status, failed_from }
        }
        Message::DialDataRequest { .. } => said,
    }
}

fn told(said: v1::Message, by: &mut impl Retell) -> v1::Message {
    match said {
        v1::Message::Dial { peer, addrs: all } => {
            v1::Message::Dial { peer: peer.map(|peer| by.peer(peer)), addrs: addrs(&all, by) }
        }
        v1::Message::DialResponse { status, addr: from } => {
            v1::Message::DialResponse { status, addr: from.map(|bytes| addr(&bytes, by)) }
        }
    }
}

fn hop(said: HopMessage, bad_voucher: bool, by: &mut impl Retell) -> HopMessage {
    match said {
        HopMessage::Reserve => said,
        HopMessage::Connect { peer } => HopMessage::Connect { peer: by.peer(peer) },
        HopMessage::Status { status, reservation, limit } => {
            let reservation = reservation.map(|granted| Reservation {
                expire: granted.expire,
                addrs: addrs(&granted.addrs, by),
                voucher: granted.voucher.and_then(|sealed| voucher(&sealed, bad_voucher)),
            });
            HopMessage::Status { status, reservation, limit }
        }
    }
}

/// A good one cannot be signed anew, and a reservation without any is as good. No bytes at all are
/// as bad as a bad one.
fn voucher(sealed: &Bytes, is_bad: bool) -> Option<Bytes> {
    (is_bad || Voucher::open(sealed).is_err()).then(Bytes::new)
}

fn punch(said: PunchMessage, by: &mut impl Retell) -> PunchMessage {
    match said {
        PunchMessage::Connect { addrs: all, behaviors, prediction } => {
            PunchMessage::Connect { addrs: addrs(&all, by), behaviors, prediction }
        }
        PunchMessage::Sync { .. } => said,
    }
}

fn stop(said: StopMessage, by: &mut impl Retell) -> StopMessage {
    match said {
        StopMessage::Connect { peer, limit } => StopMessage::Connect { peer: by.peer(peer), limit },
        StopMessage::Status { .. } => said,
    }
}

/// Addresses keep their places: an answer names one of them by its number.
fn addrs(all: &[Bytes], by: &mut impl Retell) -> Vec<Bytes> {
    all.iter().map(|bytes| addr(bytes, by)).collect()
}

/// An address with others in it; or where it holds what may name its owner in ways that are not
/// known here, one that says nothing, but means as much to core.
fn addr(bytes: &Bytes, by: &mut impl Retell) -> Bytes {
    match multiaddr::decode(bytes) {
        Ok(meaning) => components(bytes, by).unwrap_or_else(|| says_nothing(meaning)),
        Err(AddrError::UnknownProtocol(_) | AddrError::Truncated | AddrError::Malformed) => {
            Bytes::from_static(UNREADABLE)
        }
    }
}

fn says_nothing(meaning: Decoded) -> Bytes {
    match meaning {
        Decoded::Relayed => Multiaddr::from(Component::P2pCircuit).to_vec().into(),
        Decoded::Direct { .. } | Decoded::Other => Bytes::new(),
    }
}

fn components(bytes: &Bytes, by: &mut impl Retell) -> Option<Bytes> {
    let mut other = Multiaddr::empty();
    let mut rest = &bytes[..];
    for _ in 0..COMPONENTS_MAX {
        if rest.is_empty() {
            return Some(other.to_vec().into());
        }
        let (component, behind) = Component::from_bytes(rest).ok()?;
        other.push(exchanged(component, by)?);
        rest = behind;
    }
    None
}

#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "the enum may grow, and what is not known may name somebody"
)]
fn exchanged<'a>(component: Component<'a>, by: &mut impl Retell) -> Option<Component<'a>> {
    Some(match component {
        Component::Ip4(ip) => match by.ip(IpAddr::V4(ip)) {
            IpAddr::V4(ip) => Component::Ip4(ip),
            IpAddr::V6(_) => return None,
        },
        Component::Ip6(ip) => match by.ip(IpAddr::V6(ip)) {
            IpAddr::V6(ip) => Component::Ip6(ip),
            IpAddr::V4(_) => return None,
        },
        Component::P2p(peer) => Component::P2p(by.peer(peer)),
        Component::Dns(name) => Component::Dns(by.host(&name).into()),
        Component::Dns4(name) => Component::Dns4(by.host(&name).into()),
        Component::Dns6(name) => Component::Dns6(by.host(&name).into()),
        Component::Dnsaddr(name) => Component::Dnsaddr(by.host(&name).into()),
        Component::Sni(name) => Component::Sni(by.host(&name).into()),
        // With a path they say more.
        Component::Ws(path) if path == "/" => Component::Ws(path),
        Component::Wss(path) if path == "/" => Component::Wss(path),
        Component::Tcp(_)
        | Component::Udp(_)
        | Component::Quic
        | Component::QuicV1
        | Component::Tls
        | Component::Noise
        | Component::Http
        | Component::Https
        | Component::WebTransport
        | Component::WebRTC
        | Component::WebRTCDirect
        | Component::P2pCircuit => component,
        _ => return None,
    })
}
