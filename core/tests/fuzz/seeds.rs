//! The files that every corpus begins with: one true encoding of each kind, and what has spoiled
//! decoders before. `PORTOLAN_REWRITE=1` writes them; otherwise they are compared.

use crate::harness::{commit, corpus, variable};
use crate::signed::{FORMS, key};
use crate::{agent, gateway_seeds, hearsay, pipe, punch, record, relay_seeds};
use bytes::{Bytes, BytesMut};
use portolan_core::flight::{Head, Reader, Replay};
use portolan_core::wire::autonat::{
    DialBack, DialStatus, Message, ResponseStatus, dial_data_chunk,
};
use portolan_core::wire::envelope::Envelope;
use portolan_core::wire::framing;
use portolan_core::wire::identify::Identify;
use portolan_core::wire::multiaddr::{self, Multiaddr};
use portolan_core::wire::peer_record::PeerRecord;
use portolan_core::{Actions, Addr, Protocol};
use std::path::Path;

/// One file: its target, its name, its bytes.
type Seed = (&'static str, String, Vec<u8>);

#[test]
fn the_corpus_has_the_files_that_it_begins_with() {
    let rewrite = variable("PORTOLAN_REWRITE").is_some();
    for (target, name, bytes) in all() {
        if rewrite {
            commit(target, &name, &bytes);
        }
        let found = corpus(target).remove(&name);
        let found =
            found.unwrap_or_else(|| panic!("{target}/{name} is missing: PORTOLAN_REWRITE=1"));
        // What core decides may change, and a record of older decisions is as good an input.
        if !matches!(target, "record" | "checkpoint") {
            assert_eq!(found, bytes, "{target}/{name} is another file: PORTOLAN_REWRITE=1");
        }
    }
}

fn all() -> Vec<Seed> {
    let mut seeds = Vec::new();
    let mut add = |target, files: Vec<(&str, Vec<u8>)>| {
        seeds.extend(files.into_iter().map(|(name, bytes)| (target, name.to_owned(), bytes)));
    };
    add("multiaddr", multiaddrs());
    add("envelope", envelopes());
    add("peer_record", peer_records());
    add("identify", identifies());
    add("autonat_message", messages());
    add("autonat_dial_back", dial_backs());
    add("framing", frames());
    add("pipe", pipe::seeds());
    add("punch", punch::seeds());
    add("hearsay", hearsay::seeds());
    for (target, files) in gateway_seeds::all().into_iter().chain(relay_seeds::all()) {
        add(target, files);
    }
    let records = records();
    let checkpoints = checkpoints(&records[0].1);
    add("record", records);
    seeds.extend(checkpoints);
    seeds.extend(agent::seeds().into_iter().map(|(name, bytes)| ("agent", name.into(), bytes)));
    seeds
}

fn multiaddrs() -> Vec<(&'static str, Vec<u8>)> {
    let text = |text: &str| text.parse::<Multiaddr>().expect("a multiaddr").to_vec();
    let peer = key(2).0.public().to_peer_id();
    vec![
        ("tcp-over-ip4", text("/ip4/192.0.2.1/tcp/4001")),
        ("quic-over-ip6", text("/ip6/2001:db8::1/udp/4001/quic-v1")),
        ("ip4-mapped-into-ip6", text("/ip6/::ffff:192.0.2.1/tcp/4001")),
        ("with-a-peer", text(&format!("/ip4/192.0.2.1/tcp/4001/p2p/{peer}"))),
        ("two-peers", text(&format!("/ip4/192.0.2.1/tcp/4001/p2p/{peer}/p2p/{peer}"))),
        ("through-a-relay", text(&format!("/ip4/192.0.2.1/tcp/4001/p2p/{peer}/p2p-circuit"))),
        ("a-name", text("/dns4/example.com/tcp/443/wss")),
        ("port-zero", text("/ip4/192.0.2.1/tcp/0")),
        ("port-zero-with-a-peer", text(&format!("/ip4/192.0.2.1/tcp/0/p2p/{peer}"))),
        ("quic-before-version-1", text("/ip4/192.0.2.1/udp/4001/quic")),
        ("webtransport", text("/ip4/192.0.2.1/udp/4001/quic-v1/webtransport")),
        ("link-local-with-a-zone", text("/ip6zone/eth0/ip6/fe80::1/tcp/4001")),
        ("cut-in-the-port", vec![4, 192, 0, 2, 1, 6, 15]),
        ("unknown-protocol", vec![4, 192, 0, 2, 1, 0xff, 0x7f, 1]),
        ("length-beyond-the-end", vec![0x35, 0xff, 0xff, 0xff, 0xff, 0x07, b'a']),
        ("code-that-does-not-end", vec![0x80; 11]),
    ]
}

fn sealed(domain: &str, payload_type: &'static [u8], payload: &[u8]) -> Vec<u8> {
    let public = key(1).0.public();
    let payload = Bytes::copy_from_slice(payload);
    let payload_type = Bytes::from_static(payload_type);
    Envelope::seal(domain, &public, payload_type, payload, &mut key(1)).encode().into()
}

fn envelopes() -> Vec<(&'static str, Vec<u8>)> {
    let whole = sealed(FORMS[0].0, FORMS[0].1, b"payload");
    // Field 4 is where RFC 0002's text has the signature; nobody sends it there.
    let mut moved = whole.clone();
    let at = moved.iter().rposition(|byte| *byte == 0x2a).expect("a signature");
    moved[at] = 0x22;
    vec![
        ("of-the-deployed-form", whole.clone()),
        ("of-the-rfc-form", sealed(FORMS[1].0, FORMS[1].1, b"payload")),
        ("without-a-purpose", sealed("", b"", b"")),
        ("cut-in-the-signature", whole[..whole.len() - 5].to_vec()),
        ("signature-as-field-4", moved),
        ("payload-twice", [&whole[..], b"\x1a\x05other"].concat()),
        ("no-key", b"\x12\x02\x03\x01\x1a\x01x\x2a\x01y".to_vec()),
        ("key-of-unknown-type", b"\x0a\x05\x08\x09\x12\x01x".to_vec()),
        ("key-longer-than-the-message", b"\x0a\xff\xff\xff\xff\x0f\x08\x01".to_vec()),
    ]
}

/// The payload of a record of the owner: the third field of its envelope.
fn payload(addrs: Vec<Bytes>, seq: u64) -> Vec<u8> {
    let public = key(1).0.public();
    let record = PeerRecord { peer_id: public.to_peer_id(), seq, addrs };
    let envelope = Envelope::decode(&record.sealed(&public, &mut key(1))).expect("our own");
    envelope.verify(FORMS[0].0).expect("signed").1.to_vec()
}

fn peer_records() -> Vec<(&'static str, Vec<u8>)> {
    let addr = || multiaddr::encode(Addr::tcp([192, 0, 2, 1].into(), 4001));
    let one = payload(vec![addr()], 42);
    let with = |how: u8, payload: &[u8]| [&[how], payload].concat();
    let foreign = key(2).0.public().to_peer_id().to_bytes();
    let foreign = [&[0x0a, 38], &foreign[..]].concat();
    vec![
        ("one-address", with(1, &one)),
        ("one-address-rfc-form", with(2, &one)),
        ("signed-for-another-purpose", with(3, &one)),
        ("as-it-comes", with(0, &sealed(FORMS[0].0, FORMS[0].1, &one))),
        ("no-address-highest-seq", with(1, &payload(vec![], u64::MAX))),
        ("300-empty-addresses", with(1, &payload(vec![Bytes::new(); 300], 1))),
        ("another-peer", with(1, &foreign)),
        ("no-peer", with(1, b"\x10\x01")),
        ("two-peers", with(1, &[&foreign[..], &one].concat())),
        (
            "address-info-with-unknown-fields",
            with(1, &[&one[..], b"\x1a\x04\x10\x01\x0a\0"].concat()),
        ),
        ("seq-as-bytes", with(1, b"\x12\x01\x01")),
    ]
}

/// Frames of identify with these bodies.
fn identify_stream(bodies: &[&[u8]]) -> Vec<u8> {
    let mut out = BytesMut::new();
    for body in bodies {
        framing::encode(Protocol::Identify.framing(), body, &mut out).expect("a short message");
    }
    out.to_vec()
}

fn identifies() -> Vec<(&'static str, Vec<u8>)> {
    let public = key(1).0.public();
    let addr = multiaddr::encode(Addr::quic([192, 0, 2, 1].into(), 4001));
    let record = PeerRecord { peer_id: public.to_peer_id(), seq: 7, addrs: vec![addr.clone()] };
    let whole = Identify {
        public_key: Some(public.encode_protobuf().into()),
        listen_addrs: vec![addr.clone(); 3],
        protocols: Protocol::ALL.map(|protocol| protocol.name().to_owned()).to_vec(),
        observed: Some(addr.clone()),
        protocol_version: Some("ipfs/0.1.0".into()),
        agent_version: Some("peer/1.0".into()),
        signed_peer_record: Some(record.sealed(&public, &mut key(1))),
        relay_load: None,
    };
    let split = |identify: &Identify| {
        let messages = identify.encode_split().messages;
        let bodies: Vec<&[u8]> = messages.iter().map(|body| &body[..]).collect();
        identify_stream(&bodies)
    };
    let crowded = Identify {
        listen_addrs: vec![addr; 300],
        protocols: (0..300).map(|n| format!("/a/rather/long/protocol/name/{n}")).collect(),
        ..whole.clone()
    };
    let mut long = whole.clone();
    long.agent_version = Some("v".repeat(4_090));
    let empties = b"\x12\0\x1a\0".repeat(600);
    vec![
        ("all-fields", split(&whole)),
        ("more-than-the-limits", split(&crowded)),
        ("value-that-fits-no-message", split(&long)),
        ("thousands-of-empty-entries", identify_stream(&[&empties])),
        ("text-that-is-not-utf8", identify_stream(&[b"\x32\x02\xff\xfe\x1a\x01\x80\x2a\x01a"])),
        ("agent-version-twice", identify_stream(&[b"\x32\x01a\x32\x01b"])),
        ("push-of-one-field", identify_stream(&[b"\x32\x01a", b"\x1a\x01p"])),
        ("eleven-messages", identify_stream(&[&b"\x1a\x01p"[..]; 11])),
        ("empty-message", identify_stream(&[b""])),
        ("field-7-and-groups", identify_stream(&[b"\x3a\x01x", b"\x13\x14", b"\x0b\x0b\x0c"])),
        ("observed-as-a-number", identify_stream(&[b"\x20\x01"])),
        ("length-of-nine-thousand", vec![0xa8, 0x46, 1, 2, 3]),
    ]
}

fn messages() -> Vec<(&'static str, Vec<u8>)> {
    let addr = || multiaddr::encode(Addr::tcp([192, 0, 2, 1].into(), 4001));
    let request = |addrs| Message::DialRequest { addrs, nonce: 0x0102_0304_0506_0708 };
    let response = |status, dial_status| Message::DialResponse {
        status,
        addr_idx: 0,
        dial_status,
        failed_from: None,
    };
    let dialled = response(ResponseStatus::Ok, DialStatus::Ok).encode();
    let failed_from = |field: &[u8]| {
        let len = u8::try_from(5 + field.len()).expect("a short field");
        [&[0x12, len, 0x08, 0xc8, 0x01, 0x18, 0x64], field].concat()
    };
    vec![
        ("request", request(vec![addr()]).encode().into()),
        ("request-with-60-addresses", request(vec![addr(); 60]).encode().into()),
        ("request-with-a-long-address", request(vec![vec![1; 4_200].into()]).encode().into()),
        ("request-with-a-varint-nonce", b"\x0a\x02\x10\x01".to_vec()),
        ("request-twice", b"\x0a\x03\x0a\x01a\x0a\x03\x0a\x01b".to_vec()),
        ("response-ok", dialled.to_vec()),
        (
            "response-dial-error",
            response(ResponseStatus::Ok, DialStatus::DialError).encode().into(),
        ),
        ("response-failed-from-ipv4", failed_from(b"\xc2\x3e\x04\x2c\x09\x09\x09")),
        (
            "response-failed-from-ipv6",
            failed_from(b"\xc2\x3e\x10\x26\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\x07"),
        ),
        ("response-failed-from-5-bytes", failed_from(b"\xc2\x3e\x05\x2c\x09\x09\x09\x09")),
        ("response-failed-from-a-number", failed_from(b"\xc0\x3e\x07")),
        ("response-refused", response(ResponseStatus::Refused, DialStatus::Unused).encode().into()),
        (
            "response-unknown-codes",
            response(ResponseStatus::Unknown(-1), DialStatus::Unknown(150)).encode().into(),
        ),
        ("response-code-beyond-32-bits", b"\x12\x06\x08\xc8\x81\x80\x80\x10".to_vec()),
        ("response-then-data-request", [&dialled[..], b"\x1a\x02\x10\x07"].concat()),
        (
            "data-request",
            Message::DialDataRequest { addr_idx: 1, num_bytes: 100_000 }.encode().into(),
        ),
        (
            "data-request-for-everything",
            Message::DialDataRequest { addr_idx: u32::MAX, num_bytes: u64::MAX }.encode().into(),
        ),
        ("data-longest", dial_data_chunk(4_096).into()),
        (
            "data-one-byte-too-long",
            Message::DialDataResponse { data: vec![0; 4_097].into() }.encode().into(),
        ),
        ("nothing", vec![]),
        ("unknown-content", b"\x28\x01".to_vec()),
        ("length-beyond-the-end", b"\x0a\xff\xff\xff\xff\x0f\x0a".to_vec()),
    ]
}

fn dial_backs() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("nonce", DialBack { nonce: 0x0102_0304_0506_0708 }.encode().into()),
        ("nonce-zero-said", b"\x09\0\0\0\0\0\0\0\0".to_vec()),
        ("nonce-twice", b"\x09\x01\0\0\0\0\0\0\0\x09\x02\0\0\0\0\0\0\0".to_vec()),
        ("nonce-cut", b"\x09\x01\0\0".to_vec()),
        ("nothing", vec![]),
        ("ok-said", b"\x08\0".to_vec()),
        ("code-unknown", b"\x08\x07".to_vec()),
        ("code-negative", b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01".to_vec()),
        ("unknown-field", b"\x12\x01x".to_vec()),
    ]
}

fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let with = |rule: u8, cuts: u8, stream: &[u8]| [&[rule, cuts], stream].concat();
    let long = [&[0xac, 0x02][..], &[7; 300]].concat();
    vec![
        ("several-and-a-part", with(0, 2, b"\x02ab\0\x01c\x05par")),
        ("300-bytes", with(0, 6, &[&long[..], &long].concat())),
        ("longest-allowed", with(4, 0, &[&[0x7f][..], &[1; 127]].concat())),
        ("one-too-long", with(4, 0, &[0x80, 0x01, 1])),
        ("claims-more-than-the-limit", with(0, 0, &[0x81, 0x08])),
        ("can-only-end-above-the-limit", with(0, 0, &[0x80, 0x80])),
        ("prefix-not-minimal", with(0, 0, &[0x85, 0])),
        ("prefix-that-does-not-end", with(5, 0, &[0xff; 12])),
        (
            "prefix-of-the-largest-number",
            with(5, 0, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
        ),
        ("empty-messages-only", with(2, 0, &[0, 0, 0, 1])),
        ("pings", with(6, 30, &[9; 70])),
        ("fixed-length-zero", with(8, 0, b"abc")),
    ]
}

/// Parts of the sample records.
fn records() -> Vec<(&'static str, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/records");
    let sample = |name: &str| std::fs::read(folder.join(name)).expect("a sample record");
    let (demo, serve) = (sample("demo.rec"), sample("serve.rec"));
    let begun = |record: &[u8], steps| {
        let (_, mut reader) = Reader::new(record).expect("a sample record");
        reader.by_ref().take(steps).for_each(|step| drop(step.expect("a step")));
        record[..reader.offset()].to_vec()
    };
    let some = begun(&serve, 12);
    let mut damaged = some.clone();
    if let Some(byte) = damaged.last_mut() {
        *byte ^= 1;
    }
    let mut other = some.clone();
    other[7] = 2;
    vec![
        ("demo", demo),
        ("head-alone", begun(&serve, 0)),
        ("cut-in-a-step", some[..some.len() - 3].to_vec()),
        ("damaged-step", damaged),
        ("another-version", other),
        ("zeros-at-the-end", [&some[..], &[0; 40]].concat()),
        ("serve", serve),
    ]
}

/// The states of the first sample record at some moments, under the first of the heads.
fn checkpoints(demo: &[u8]) -> Vec<Seed> {
    let (head, reader) = Reader::new(demo).expect("a sample record");
    let steps: Vec<_> = reader.map(|step| step.expect("a step")).collect();
    // Loaded under another configuration, a state is still a state.
    let head = Head { config: record::head(1).config, ..head };
    let mut replay = Replay::new(&head).expect("a good configuration");
    let mut seeds = Vec::new();
    let mut actions = Actions::new();
    for (at, step) in steps.iter().enumerate() {
        if [0, 5, 20, 40, 60, 90, 120, 200].contains(&at) {
            let bytes = [&[1], &replay.checkpoint()[..]].concat();
            seeds.push(("checkpoint", format!("demo-after-{at}-steps"), bytes));
        }
        let _ = replay.step(step, &mut actions);
        actions.drain().for_each(drop);
    }
    seeds
}
