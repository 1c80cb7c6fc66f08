//! What the body of a frame says.

use super::text::{foreign, hex, list, quoted};
use super::{Names, punch, relay};
use crate::wire::autonat::{
    DialBack, DialBackResponse, DialBackStatus, DialStatus, Message, ResponseStatus, v1,
};
use crate::wire::identify::Identify;
use crate::wire::multiaddr::Multiaddr;
use crate::wire::peer_record::PeerRecord;
use crate::wire::punch::PunchMessage;
use crate::wire::relay::{HopMessage, StopMessage};
use crate::{Protocol, PublicKey, Side, StreamId};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use bytes::Bytes;

/// Entries shown of one list that a peer wrote, number; ours: most peers have fewer addresses and
/// protocols. Lines grow with it. When full, the rest is counted.
const LIST_MAX: usize = 32;

/// The text of a frame that `sender` sent on a stream.
pub(super) fn frame(names: &impl Names, stream: StreamId, sender: Side, body: &Bytes) -> String {
    let said = match stream.protocol {
        Protocol::Identify | Protocol::IdentifyPush => {
            Identify::decode(body).map(|said| identify(names, &said))
        }
        Protocol::Ping => Ok(format!("{} bytes", body.len())),
        Protocol::DialRequest => Message::decode(body).map(|said| message(&said)),
        // Whoever opened the stream brings the nonce; the other one answers.
        Protocol::DialBack if sender == stream.side => {
            DialBack::decode(body).map(|said| format!("DialBack nonce={}", said.nonce))
        }
        Protocol::DialBack => DialBackResponse::decode(body).map(|said| match said.status {
            DialBackStatus::Ok => "DialBackResponse OK".into(),
            DialBackStatus::Unknown(code) => format!("DialBackResponse {code}"),
        }),
        Protocol::Hop => HopMessage::decode(body).map(|said| relay::hop(names, &said)),
        Protocol::Stop => StopMessage::decode(body).map(|said| relay::stop(names, &said)),
        Protocol::Punch => PunchMessage::decode(body).map(|said| punch::said(&said)),
        Protocol::AutonatV1 => v1::Message::decode(body).map(|said| hearsay(names, &said)),
    };
    said.unwrap_or_else(|_| match body.len() {
        0 => "undecodable 0 bytes".into(),
        len => format!("undecodable {len} bytes {}", hex(body)),
    })
}

fn message(message: &Message) -> String {
    match message {
        Message::DialRequest { addrs, nonce } => {
            format!("DialRequest nonce={nonce} {}", multiaddrs(addrs))
        }
        Message::DialResponse { status, addr_idx, dial_status, failed_from } => {
            let status = match status {
                ResponseStatus::InternalError => "INTERNAL".into(),
                ResponseStatus::Rejected => "REJECTED".into(),
                ResponseStatus::Refused => "REFUSED".into(),
                ResponseStatus::Ok => "OK".into(),
                ResponseStatus::Unknown(code) => code.to_string(),
            };
            let dial_status = match dial_status {
                DialStatus::Unused => "UNUSED".into(),
                DialStatus::DialError => "DIAL_ERROR".into(),
                DialStatus::DialBackError => "DIAL_BACK_ERROR".into(),
                DialStatus::Ok => "OK".into(),
                DialStatus::Unknown(code) => code.to_string(),
            };
            let from = failed_from.map(|from| format!(" from={from}")).unwrap_or_default();
            format!("DialResponse {status} {dial_status} idx={addr_idx}{from}")
        }
        Message::DialDataRequest { addr_idx, num_bytes } => {
            format!("DialDataRequest {num_bytes} bytes idx={addr_idx}")
        }
        Message::DialDataResponse { data } => format!("DialDataResponse {} bytes", data.len()),
    }
}

fn hearsay(names: &impl Names, message: &v1::Message) -> String {
    match message {
        v1::Message::Dial { peer, addrs } => {
            let peer = peer.map_or("nobody".into(), |peer| names.name(&peer));
            format!("Dial {peer} {}", multiaddrs(addrs))
        }
        v1::Message::DialResponse { status, addr } => {
            let status = match status {
                v1::Status::Ok => "OK".into(),
                v1::Status::DialError => "DIAL_ERROR".into(),
                v1::Status::DialRefused => "REFUSED".into(),
                v1::Status::BadRequest => "BAD_REQUEST".into(),
                v1::Status::InternalError => "INTERNAL".into(),
                v1::Status::Unknown(code) => code.to_string(),
            };
            let addr = addr.as_ref().map(|addr| format!(" {}", multiaddr(addr)));
            format!("DialResponse {status}{}", addr.unwrap_or_default())
        }
    }
}

fn identify(names: &impl Names, said: &Identify) -> String {
    let mut parts: Vec<String> = Vec::from(["Identify".into()]);
    let text = |name: &str, value: &Option<String>| {
        value.as_ref().map(|value| format!("{name}={}", foreign(value)))
    };
    parts.extend(text("protocol", &said.protocol_version));
    parts.extend(text("agent", &said.agent_version));
    parts.extend(said.public_key.as_ref().map(|bytes| {
        let key = PublicKey::try_decode_protobuf(bytes);
        format!("key={}", key.map_or("bad".into(), |key| names.name(&key.to_peer_id())))
    }));
    parts.extend(said.observed.as_ref().map(|bytes| format!("observed={}", multiaddr(bytes))));
    if !said.listen_addrs.is_empty() {
        parts.push(format!("listen={}", multiaddrs(&said.listen_addrs)));
    }
    if !said.protocols.is_empty() {
        let words = said.protocols.iter().map(|name| protocol(name));
        parts.push(format!("protocols={}", list(words, ",", LIST_MAX)));
    }
    parts.extend(said.relay_load.map(|load| format!("load={load}")));
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

/// The short word of a protocol that core knows, the full name of another.
fn protocol(name: &str) -> String {
    match Protocol::from_name(name) {
        Some(known) => known.word().into(),
        None if name.starts_with('/') => foreign(name),
        // A name such as `ping` is not the protocol of that word.
        None => quoted(name),
    }
}

fn multiaddr(bytes: &Bytes) -> String {
    match Multiaddr::try_from(bytes.to_vec()) {
        // Names in it are any text at all.
        Ok(multiaddr) => foreign(&multiaddr.to_string()),
        Err(_) => format!("bad:{}", hex(bytes)),
    }
}

pub(super) fn multiaddrs(all: &[Bytes]) -> String {
    format!("[{}]", list(all.iter().map(multiaddr), ", ", LIST_MAX))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Numbered, addr, key, peer};
    use super::*;
    use crate::Signer;
    use crate::wire::multiaddr::encode;
    use libp2p_identity::Keypair;

    /// What the opener of a stream sends, and what the other one does: the same for all but one.
    fn both(protocol: Protocol, body: &Bytes) -> [String; 2] {
        let text = |stream, sender| frame(&Numbered, stream, sender, body);
        let (ours, theirs) = (StreamId::outbound(protocol, 1), StreamId::inbound(protocol, 1));
        let opener = text(ours, Side::Outbound);
        assert_eq!(opener, text(theirs, Side::Inbound), "it does not matter who we are");
        let other = text(ours, Side::Inbound);
        assert_eq!(other, text(theirs, Side::Outbound), "it does not matter who we are");
        [opener, other]
    }

    fn same(protocol: Protocol, body: &Bytes) -> String {
        let [opener, other] = both(protocol, body);
        assert_eq!(opener, other);
        opener
    }

    fn sent(message: &Message) -> String {
        same(Protocol::DialRequest, &message.encode())
    }

    fn said(identify: &Identify) -> String {
        let split = identify.encode_split();
        assert_eq!((split.messages.len(), split.left_out), (1, 0), "it fits one message");
        let text = same(Protocol::Identify, &split.messages[0]);
        assert_eq!(same(Protocol::IdentifyPush, &split.messages[0]), text);
        text
    }

    struct Hand(Keypair);

    impl Signer for Hand {
        fn sign(&mut self, message: &[u8]) -> Vec<u8> {
            self.0.sign(message).expect("ed25519 signs anything")
        }
    }

    fn record(signer: u8) -> Bytes {
        let record = PeerRecord { peer_id: peer(1), seq: 42, addrs: Vec::from([encode(addr(3))]) };
        record.sealed(&key(1).public(), &mut Hand(key(signer)))
    }

    #[test]
    fn requests_of_the_old_way_and_their_answers() {
        let sent = |message: &v1::Message| same(Protocol::AutonatV1, &message.encode());
        let (request, _) = v1::Message::dial(peer(2), Vec::from([encode(addr(2))]));
        assert_eq!(sent(&request), "Dial P2 [/ip4/44.0.0.2/tcp/4001]");
        let nobody = v1::Message::Dial { peer: None, addrs: Vec::new() };
        assert_eq!(sent(&nobody), "Dial nobody []");
        for (status, word) in [
            (v1::Status::Ok, "OK"),
            (v1::Status::DialError, "DIAL_ERROR"),
            (v1::Status::DialRefused, "REFUSED"),
            (v1::Status::BadRequest, "BAD_REQUEST"),
            (v1::Status::InternalError, "INTERNAL"),
            (v1::Status::Unknown(7), "7"),
        ] {
            let said = v1::Message::DialResponse { status, addr: None };
            assert_eq!(sent(&said), format!("DialResponse {word}"));
        }
        let said =
            v1::Message::DialResponse { status: v1::Status::Ok, addr: Some(encode(addr(3))) };
        assert_eq!(sent(&said), "DialResponse OK /ip4/44.0.0.3/tcp/4001");
    }

    #[test]
    fn dial_requests_and_their_answers() {
        let request =
            Message::DialRequest { addrs: Vec::from([encode(addr(2)), encode(addr(3))]), nonce: 7 };
        assert_eq!(
            sent(&request),
            "DialRequest nonce=7 [/ip4/44.0.0.2/tcp/4001, /ip4/44.0.0.3/tcp/4001]"
        );
        let data = Message::DialDataRequest { addr_idx: 1, num_bytes: 30_000 };
        assert_eq!(sent(&data), "DialDataRequest 30000 bytes idx=1");
        let data = Message::DialDataResponse { data: Bytes::from_static(&[0; 4_096]) };
        assert_eq!(sent(&data), "DialDataResponse 4096 bytes");
        for (status, word) in [
            (ResponseStatus::InternalError, "INTERNAL"),
            (ResponseStatus::Rejected, "REJECTED"),
            (ResponseStatus::Refused, "REFUSED"),
            (ResponseStatus::Ok, "OK"),
            (ResponseStatus::Unknown(7), "7"),
        ] {
            let dial_status = DialStatus::Unused;
            let response =
                Message::DialResponse { status, addr_idx: 0, dial_status, failed_from: None };
            assert_eq!(sent(&response), format!("DialResponse {word} UNUSED idx=0"));
        }
        for (dial_status, word) in [
            (DialStatus::DialError, "DIAL_ERROR"),
            (DialStatus::DialBackError, "DIAL_BACK_ERROR"),
            (DialStatus::Ok, "OK"),
            (DialStatus::Unknown(-7), "-7"),
        ] {
            let response = Message::DialResponse {
                status: ResponseStatus::Ok,
                addr_idx: 3,
                dial_status,
                failed_from: None,
            };
            assert_eq!(sent(&response), format!("DialResponse OK {word} idx=3"));
        }
        let failed = Message::DialResponse {
            status: ResponseStatus::Ok,
            addr_idx: 0,
            dial_status: DialStatus::DialError,
            failed_from: Some(addr(9).ip),
        };
        assert_eq!(sent(&failed), "DialResponse OK DIAL_ERROR idx=0 from=44.0.0.9");
    }

    #[test]
    fn a_dial_back_is_read_by_who_opened_it() {
        let [nonce, _] = both(Protocol::DialBack, &DialBack { nonce: 7 }.encode());
        assert_eq!(nonce, "DialBack nonce=7");
        let [_, accepted] = both(Protocol::DialBack, &DialBackResponse::OK.encode());
        assert_eq!(accepted, "DialBackResponse OK");
        let status = DialBackStatus::Unknown(9);
        let [_, other] = both(Protocol::DialBack, &DialBackResponse { status }.encode());
        assert_eq!(other, "DialBackResponse 9");
    }

    #[test]
    fn a_ping_is_its_length() {
        assert_eq!(same(Protocol::Ping, &Bytes::from_static(&[7; 32])), "32 bytes");
    }

    #[test]
    fn an_identify_says_what_it_has() {
        assert_eq!(said(&Identify::default()), "Identify");
        let all = Identify {
            public_key: Some(Bytes::from(key(1).public().encode_protobuf())),
            listen_addrs: Vec::from([encode(addr(2)), encode(addr(3))]),
            protocols: ["/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/my/own/1", "ping"]
                .map(String::from)
                .into(),
            observed: Some(encode(addr(4))),
            protocol_version: Some("ipfs/0.1.0".into()),
            agent_version: Some("kubo/0.39.0".into()),
            signed_peer_record: Some(record(1)),
            relay_load: Some(250),
        };
        assert_eq!(
            said(&all),
            "Identify protocol=ipfs/0.1.0 agent=kubo/0.39.0 key=P1 observed=/ip4/44.0.0.4/tcp/4001 \
             listen=[/ip4/44.0.0.2/tcp/4001, /ip4/44.0.0.3/tcp/4001] \
             protocols=identify,push,/my/own/1,\"ping\" load=250 record=P1:42 [/ip4/44.0.0.3/tcp/4001]"
        );
        let bad = Identify {
            public_key: Some(Bytes::from_static(b"?")),
            observed: Some(Bytes::from_static(b"\xff\xff")),
            signed_peer_record: Some(record(2)),
            ..Identify::default()
        };
        assert_eq!(
            said(&bad),
            "Identify key=bad observed=bad:ffff record=bad (the signature does not hold)"
        );
    }

    #[test]
    fn what_cannot_be_decoded_is_shown_in_part() {
        let body = Bytes::from_static(&[0xff; 300]);
        let shown = format!("undecodable 300 bytes {}…+284", "ff".repeat(16));
        for protocol in [Protocol::Identify, Protocol::IdentifyPush, Protocol::DialRequest] {
            assert_eq!(same(protocol, &body), shown);
        }
        assert_eq!(both(Protocol::DialBack, &body), [shown.clone(), shown]);
        assert_eq!(same(Protocol::DialRequest, &Bytes::new()), "undecodable 0 bytes");
    }

    #[test]
    fn a_hostile_peer_writes_neither_to_the_terminal_nor_into_the_columns() {
        let hostile = "\u{1b}[2J\u{9b}1m\u{202e}\r\n   0.000 < tick";
        // `/dns4/…`, whose name may be any text.
        let mut named = Vec::from([54, u8::try_from(hostile.len()).expect("a short text")]);
        named.extend(hostile.as_bytes());
        let escaped = r"\u{1b}[2J\u{9b}1m\u{202e}\r\n   0.000 < tick";
        let text = said(&Identify {
            agent_version: Some(hostile.into()),
            protocol_version: Some("x agent=y".into()),
            protocols: Vec::from([hostile.into()]),
            observed: Some(Bytes::from(named.clone())),
            ..Identify::default()
        });
        assert_eq!(
            text,
            format!(
                "Identify protocol=\"x agent=y\" agent=\"{escaped}\" observed=\"/dns4/{escaped}\" \
                 protocols=\"{escaped}\""
            )
        );
        let request = Message::DialRequest { addrs: Vec::from([Bytes::from(named)]), nonce: 1 };
        assert_eq!(sent(&request), format!("DialRequest nonce=1 [\"/dns4/{escaped}\"]"));
    }

    #[test]
    fn long_lists_and_texts_are_cut() {
        // As much as one message may hold, in lists of many and in texts that are long.
        let many = Identify {
            listen_addrs: (0..100).map(|_| encode(addr(2))).collect(),
            protocols: (0..100).map(|number| format!("/p/{number}")).collect(),
            ..Identify::default()
        };
        let text = said(&many);
        assert!(text.ends_with("/p/31,…+68"), "{text}");
        assert!(text.contains("/tcp/4001, …+68]"), "{text}");
        let long = Identify {
            agent_version: Some("\u{10ffff}".repeat(500)),
            protocols: Vec::from(["/".to_string() + &"x".repeat(1_000)]),
            ..Identify::default()
        };
        let text = said(&long);
        assert!(text.len() < 400, "{text}");
        assert!(text.contains("\"…+488") && text.ends_with("x…+873"), "{text}");
    }
}
