//! Frames that peers send, built with core's own codecs out of the words of a line.

use super::names::{Hand, key};
use super::script::{Name, Word, Words, Wrong, expected};
use bytes::Bytes;
use portolan_core::wire::autonat::{DialStatus, Message, ResponseStatus};
use portolan_core::wire::identify::Identify;
use portolan_core::wire::multiaddr;
use portolan_core::wire::peer_record::PeerRecord;
use portolan_core::{Addr, Protocol, ProtocolSet};

/// What a peer says of itself, out of the options of `identify` and `push`.
pub(super) fn identify(words: &mut Words<'_>) -> Result<Identify, Wrong> {
    let mut said = Identify::default();
    if let Some(observed) = words.option::<Observed>("observed")? {
        said.observed = Some(observed.0);
    }
    said.listen_addrs = words.list::<Addr>("listen")?.into_iter().map(multiaddr::encode).collect();
    said.protocols = words.list::<Spoken>("protocols")?.into_iter().map(|name| name.0).collect();
    if words.flag("server") {
        let all = Protocol::ALL.into_iter().filter(|one| *one != Protocol::AutonatV1);
        said.protocols.extend(all.map(|protocol| protocol.name().to_owned()));
    }
    if words.flag("v1") {
        let old = [Protocol::Identify, Protocol::IdentifyPush, Protocol::Ping, Protocol::AutonatV1];
        said.protocols.extend(old.map(|protocol| protocol.name().to_owned()));
    }
    if words.flag("client") {
        let client = [Protocol::Identify, Protocol::IdentifyPush, Protocol::Ping];
        said.protocols.extend(client.map(|protocol| protocol.name().to_owned()));
    }
    said.agent_version = words.option("agent")?;
    if let Some(owner) = words.option::<Name>("key")? {
        said.public_key = Some(Bytes::from(key(&owner).public().encode_protobuf()));
    }
    if let Some(record) = words.option::<Record>("record")? {
        said.signed_peer_record = Some(record.sealed());
    }
    Ok(said)
}

/// An observed address: a direct one, or any multiaddr at all.
struct Observed(Bytes);

impl Word for Observed {
    const EXPECTED: &'static str = "a multiaddr";

    fn read(word: &str) -> Option<Observed> {
        let multiaddr: multiaddr::Multiaddr = word.parse().ok()?;
        Some(Observed(Bytes::from(multiaddr.to_vec())))
    }
}

/// A protocol that a peer lists, by its short or its full name.
struct Spoken(String);

impl Word for Spoken {
    const EXPECTED: &'static str = "a protocol such as dial-request or /my/protocol/1";

    fn read(word: &str) -> Option<Spoken> {
        let known = Protocol::read(word).map(|protocol| protocol.name().to_owned());
        known.or_else(|| word.starts_with('/').then(|| word.to_owned())).map(Spoken)
    }
}

/// `S1:7`: a record with the sequence number 7 that S1 signed; `S1:7:S2` one that names S2.
struct Record {
    signer: Name,
    seq: u64,
    subject: Name,
}

impl Word for Record {
    const EXPECTED: &'static str = "a record such as S1:7, or S1:7:S2 for one that names S2";

    fn read(word: &str) -> Option<Record> {
        let mut parts = word.split(':');
        let signer = Name::read(parts.next()?)?;
        let seq = parts.next()?.parse().ok()?;
        let subject = match parts.next() {
            Some(name) => Name::read(name)?,
            None => signer.clone(),
        };
        parts.next().is_none().then_some(Record { signer, seq, subject })
    }
}

impl Record {
    /// A record that names another peer is signed as the other's and then re-keyed, so that only
    /// the signature is wrong.
    fn sealed(&self) -> Bytes {
        let signer = key(&self.signer);
        let subject = key(&self.subject).public();
        let record = PeerRecord { peer_id: subject.to_peer_id(), seq: self.seq, addrs: Vec::new() };
        record.sealed(&subject, &mut Hand(&signer))
    }
}

/// A DialResponse, out of `STATUS [DIAL-STATUS] [idx=N] [from=IP]`.
pub(super) fn dial_response(words: &mut Words<'_>) -> Result<Message, Wrong> {
    let word: String = words.take()?;
    let status = match word.as_str() {
        "OK" => ResponseStatus::Ok,
        "REJECTED" => ResponseStatus::Rejected,
        "REFUSED" => ResponseStatus::Refused,
        "INTERNAL" => ResponseStatus::InternalError,
        other => ResponseStatus::from_code(
            other
                .parse()
                .map_err(|_| expected("OK, REJECTED, REFUSED, INTERNAL or a code", other))?,
        ),
    };
    let dial_status =
        match words.take_if::<String>().as_deref() {
            None | Some("UNUSED") => DialStatus::Unused,
            Some("OK") => DialStatus::Ok,
            Some("DIAL_ERROR") => DialStatus::DialError,
            Some("DIAL_BACK_ERROR") => DialStatus::DialBackError,
            Some(other) => DialStatus::from_code(other.parse().map_err(|_| {
                expected("OK, DIAL_ERROR, DIAL_BACK_ERROR, UNUSED or a code", other)
            })?),
        };
    let addr_idx = words.option("idx")?.unwrap_or(0);
    let failed_from = words.option("from")?;
    Ok(Message::DialResponse { status, addr_idx, dial_status, failed_from })
}

/// The set of the protocols in a list of short names.
pub(super) fn protocol_set(protocols: Vec<Protocol>) -> ProtocolSet {
    protocols.into_iter().fold(ProtocolSet::NONE, ProtocolSet::with)
}

/// Bytes in hex.
pub(super) struct Hex(pub(super) Bytes);

impl Word for Hex {
    const EXPECTED: &'static str = "bytes in hex, or - for none";

    fn read(word: &str) -> Option<Hex> {
        if word == "-" {
            return Some(Hex(Bytes::new()));
        }
        if !word.is_ascii() || !word.len().is_multiple_of(2) {
            return None;
        }
        let byte = |at| u8::from_str_radix(&word[at..at + 2], 16).ok();
        let bytes: Option<Vec<u8>> = (0..word.len()).step_by(2).map(byte).collect();
        Some(Hex(Bytes::from(bytes?)))
    }
}
