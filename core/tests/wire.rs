//! Every codec of `wire` from outside: what is written is read back, and nothing that a peer may
//! send makes a decoder panic or hold more than its bound.
//!
//! proptest prints the smallest failing input and its seed; a failure found here becomes a vector
//! in the tests of its module.

use bytes::{Bytes, BytesMut};
use libp2p_identity::{Keypair, ecdsa, secp256k1};
use portolan_core::wire::autonat::{
    self, DialBack, DialBackResponse, DialBackStatus, DialStatus, Message, ResponseStatus,
};
use portolan_core::wire::envelope::{Envelope, EnvelopeError};
use portolan_core::wire::framing;
use portolan_core::wire::identify::{self, Identify};
use portolan_core::wire::multiaddr::{self, Decoded, Multiaddr};
use portolan_core::wire::peer_record::{self, PeerRecord, RecordError};
use portolan_core::wire::relay::{
    HopMessage, RESERVATION_ADDRS_MAX, Reservation, StopMessage, Voucher,
};
use portolan_core::wire::{MapTransport, nat_pmp, pcp};
use portolan_core::{
    Addr, CircuitLimit, Duration, Framing, PeerId, RelayStatus, Signer, Transport,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::Index;
use std::net::IpAddr;

/// A signed envelope in the form of RFC 0003 with a 2,048-bit RSA key, put together and signed
/// with other tools: sequence number 42, address `/ip4/192.0.2.1/tcp/4001`.
const RSA_RECORD: &str = concat!(
    "0aab02080012a60230820122300d06092a864886f70d01010105000382010f003082010a02820101009fd24f1a50",
    "ac5baa1e5644a5a9690547192ea645641f85593b6cd238b98c8e08bf12271dbb795583d91a8cfd0fd21a8c906d36",
    "f8fd8c8579be72bd7d4144c0989c31d8c14f0f8224a7f14cbcaa6655861fb415cc89713bf0c3d266369674d451fb",
    "d4c6a06ceec31c020687ce65971f39b5fc823f1d168b1a80e919fcdd883d1f705cfb652de9a5de27069c25e81405",
    "b0cad31ce77fa9f967e038fca018b3f8af0d6be9be5653f83848ca349ee6460cd9b800ab876795af4ad18fdbdb12",
    "205ee02cae02b36458de4345793bb2392a66441ef4c6a3eb9a824c963b7d29d195e7e3b28d3fe983ee58ea081b6d",
    "57f0bfd45801c22b265e9bf6bb768e209f3e6b8bcb0203010001121c2f6c69627032702f726f7574696e672d7374",
    "6174652d7265636f72641a320a22122018f2653c096d92759e59f96d3a4306458e58e7655f5df83367529ff55b0e",
    "ae51102a1a0a0a0804c0000201060fa12a8002007c03da92d54df1a84ac98d5b6adbd9f643969d61f1e05cf80941",
    "ca9f1c636fa73ce62f410f69e0a244f1e97a4c9345277895c6a423adad96620a24ba28956500250953edc001fcfd",
    "9796c6b78550f0b6dc8ed36bb1ba252b0a2b465ce562182374283f796f7879979964708a26507f879511c14e330e",
    "01e607f4a19a8393eb106a283ecdd8ebf5a4825dd5f0949da5f23fca5abdee178c7952f3b24e55e288ae38d087b1",
    "3135fa6ef0f51f84c7e0696dfb91d553115ef2a6787b915f08b6c605b4954333f3af51ff6d38e1f6b2347ef53ad3",
    "187af09432ba9b66b0758f3287bc5ed842caabf32508ae3395304bb7726b6948034e0b4a7ac862a26734b6f8f8",
);

fn settings(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

struct Key(Keypair);

impl Signer for Key {
    fn sign(&mut self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).expect("such a key signs anything")
    }
}

/// Keys of the types that can be made out of a seed; RSA has a recorded envelope.
fn keys() -> Vec<Key> {
    let secp256k1 = secp256k1::SecretKey::try_from_bytes([7; 32]).expect("32 bytes are a key");
    let ecdsa = ecdsa::SecretKey::try_from_bytes([7; 32]).expect("32 bytes are a key");
    vec![
        Key(Keypair::ed25519_from_bytes([7; 32]).expect("32 bytes are a key")),
        Key(secp256k1::Keypair::from(secp256k1).into()),
        Key(ecdsa::Keypair::from(ecdsa).into()),
    ]
}

fn rsa_record() -> Bytes {
    let digits = RSA_RECORD.as_bytes().chunks(2);
    let pairs = digits.map(|pair| std::str::from_utf8(pair).expect("ASCII"));
    pairs.map(|pair| u8::from_str_radix(pair, 16).expect("hexadecimal")).collect()
}

fn any_bytes(max: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..=max).prop_map(Bytes::from)
}

fn any_addr() -> impl Strategy<Value = Addr> {
    (any::<IpAddr>(), 1u16.., any::<bool>()).prop_map(|(ip, port, tcp)| {
        Addr::new(ip, port, if tcp { Transport::Tcp } else { Transport::Quic })
    })
}

fn any_message() -> impl Strategy<Value = Message> {
    // Codes around those that are defined, and any others.
    let code = || prop_oneof![any::<i32>(), 99..103, 199..202, -1..2];
    prop_oneof![
        (vec(any_bytes(60), 0..=autonat::DIAL_REQUEST_ADDRS_MAX), any::<u64>())
            .prop_map(|(addrs, nonce)| Message::DialRequest { addrs, nonce }),
        (code(), any::<u32>(), code(), option::of(any::<IpAddr>())).prop_map(
            |(status, addr_idx, dial_status, failed_from)| Message::DialResponse {
                status: ResponseStatus::from_code(status),
                addr_idx,
                dial_status: DialStatus::from_code(dial_status),
                failed_from: failed_from.map(|ip| ip.to_canonical()),
            }
        ),
        (any::<u32>(), any::<u64>())
            .prop_map(|(addr_idx, num_bytes)| Message::DialDataRequest { addr_idx, num_bytes }),
        any_bytes(autonat::DIAL_DATA_CHUNK_MAX).prop_map(|data| Message::DialDataResponse { data }),
    ]
}

fn any_peer() -> impl Strategy<Value = PeerId> {
    (0..3usize).prop_map(|number| keys()[number % keys().len()].0.public().to_peer_id())
}

/// As the wire can say it: whole seconds, and zero for no limit.
fn any_limit() -> impl Strategy<Value = CircuitLimit> {
    (option::of(1..=u32::MAX), option::of(1..=u64::MAX)).prop_map(|(seconds, bytes)| {
        let duration = seconds.map(|seconds| Duration::from_secs(seconds.into()));
        CircuitLimit { duration, bytes }
    })
}

fn any_hop() -> impl Strategy<Value = HopMessage> {
    let addrs = vec(any_bytes(50), 0..=RESERVATION_ADDRS_MAX);
    let reservation = (any::<u64>(), addrs, option::of(any_bytes(300)))
        .prop_map(|(expire, addrs, voucher)| Reservation { expire, addrs, voucher });
    let status = any::<i32>().prop_map(RelayStatus::from_code);
    prop_oneof![
        Just(HopMessage::Reserve),
        any_peer().prop_map(|peer| HopMessage::Connect { peer }),
        (status, option::of(reservation), any_limit()).prop_map(|(status, reservation, limit)| {
            HopMessage::Status { status, reservation, limit }
        }),
    ]
}

fn any_identify() -> impl Strategy<Value = Identify> {
    let lists = (vec(any_bytes(120), 0..=identify::LISTEN_ADDRS_MAX), vec(".{0,40}", 0..60));
    let single = (
        option::of(any_bytes(600)),
        option::of(any_bytes(60)),
        option::of(".{0,20}"),
        option::of(".{0,40}"),
        option::of(any_bytes(4_000)),
        option::of(0..=1_000u16),
    );
    (lists, single).prop_map(|((listen_addrs, protocols), single)| {
        let (public_key, observed, protocol_version, agent_version, record, relay_load) = single;
        Identify {
            public_key,
            listen_addrs,
            protocols,
            observed,
            protocol_version,
            agent_version,
            signed_peer_record: record,
            relay_load,
        }
    })
}

/// One way to spoil an encoding.
#[derive(Clone, Debug)]
enum Damage {
    Change(Index, u8),
    Remove(Index),
    Insert(Index, u8),
    Truncate(Index),
    Repeat(Index),
}

fn any_damage() -> impl Strategy<Value = Vec<Damage>> {
    let one = prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Change(at, byte)),
        any::<Index>().prop_map(Damage::Remove),
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Insert(at, byte)),
        any::<Index>().prop_map(Damage::Truncate),
        any::<Index>().prop_map(Damage::Repeat),
    ];
    vec(one, 1..6)
}

fn damaged(body: &[u8], damage: &[Damage]) -> Bytes {
    let mut body = body.to_vec();
    for one in damage {
        let len = body.len();
        if len == 0 {
            break;
        }
        match one {
            Damage::Change(at, byte) => body[at.index(len)] = *byte,
            Damage::Remove(at) => drop(body.remove(at.index(len))),
            Damage::Insert(at, byte) => body.insert(at.index(len), *byte),
            Damage::Truncate(at) => body.truncate(at.index(len)),
            Damage::Repeat(at) => body.extend_from_within(at.index(len)..),
        }
    }
    body.into()
}

/// Give the bytes to every decoder. What one of them takes must keep the bounds, and must be
/// what comes out when it is written and read again.
fn read_as_everything(body: &Bytes) {
    if let Ok(message) = Message::decode(body) {
        match &message {
            Message::DialRequest { addrs, .. } => {
                assert!(addrs.len() <= autonat::DIAL_REQUEST_ADDRS_MAX);
            }
            Message::DialDataResponse { data } => {
                assert!(data.len() <= autonat::DIAL_DATA_CHUNK_MAX);
            }
            Message::DialResponse { .. } | Message::DialDataRequest { .. } | _ => {}
        }
        assert_eq!(Message::decode(&message.encode()), Ok(message));
    }
    if let Ok(dial_back) = DialBack::decode(body) {
        assert_eq!(DialBack::decode(&dial_back.encode()), Ok(dial_back));
    }
    if let Ok(response) = DialBackResponse::decode(body) {
        assert_eq!(DialBackResponse::decode(&response.encode()), Ok(response));
    }
    if let Ok(identify) = Identify::decode(body) {
        assert!(identify.listen_addrs.len() <= identify::LISTEN_ADDRS_MAX);
        assert!(identify.protocols.len() <= identify::PROTOCOLS_MAX);
        check_split(&identify);
    }
    if let Ok(envelope) = Envelope::decode(body) {
        assert_eq!(Envelope::decode(&envelope.encode()), Ok(envelope));
    }
    if let Ok(record) = PeerRecord::open(body) {
        assert!(record.addrs.len() <= peer_record::RECORD_ADDRS_MAX);
    }
    if let Ok(hop) = HopMessage::decode(body) {
        if let HopMessage::Status { reservation: Some(Reservation { addrs, .. }), .. } = &hop {
            assert!(addrs.len() <= RESERVATION_ADDRS_MAX);
        }
        assert_eq!(HopMessage::decode(&hop.encode()), Ok(hop));
    }
    if let Ok(stop) = StopMessage::decode(body) {
        assert_eq!(StopMessage::decode(&stop.encode()), Ok(stop));
    }
    let _ = Voucher::open(body);
    check_multiaddr(body);
}

/// Messages keep their bounds, and joined they are the whole but for what was counted.
fn check_split(identify: &Identify) {
    let split = identify.encode_split();
    assert!((1..=portolan_core::config::IDENTIFY_MESSAGES_MAX).contains(&split.messages.len()));
    let mut joined = Identify::default();
    for message in &split.messages {
        assert!(message.len() <= identify::MESSAGE_BYTES_MAX);
        joined.merge(Identify::decode(message).expect("our own message"));
    }
    if split.left_out == 0 {
        assert_eq!(&joined, identify);
    } else {
        assert_eq!(values(&joined) + split.left_out, values(identify));
    }
}

/// How many values it holds.
fn values(identify: &Identify) -> usize {
    let present = identify.present();
    let single = [
        present.public_key,
        present.observed,
        present.protocol_version,
        present.agent_version,
        present.signed_peer_record,
    ];
    let lists = identify.listen_addrs.len() + identify.protocols.len();
    lists + single.into_iter().filter(|is| *is).count()
}

/// Our reading and the multiaddr crate's agree on what is a multiaddr and what it means.
fn check_multiaddr(bytes: &[u8]) {
    let decoded = multiaddr::decode(bytes);
    match Multiaddr::try_from(bytes.to_vec()) {
        Ok(multiaddr) => {
            assert_eq!(decoded, Ok(multiaddr::from_multiaddr(&multiaddr)));
            // Neither printing nor walking through it panics.
            assert_eq!(multiaddr.to_string().is_empty(), bytes.is_empty());
        }
        Err(_) => assert!(decoded.is_err()),
    }
    if let Ok(Decoded::Direct { addr, peer }) = decoded {
        assert_ne!(addr.port, 0);
        let again = multiaddr::from_multiaddr(&multiaddr::to_multiaddr(addr, peer));
        assert_eq!(again, Decoded::Direct { addr, peer });
        assert_eq!(
            multiaddr::decode(&multiaddr::encode(addr)),
            Ok(Decoded::Direct { addr, peer: None })
        );
    }
}

proptest! {
    #![proptest_config(settings(1_000))]

    #[test]
    fn any_bytes_may_come(body in any_bytes(300)) {
        read_as_everything(&body);
    }

    /// Random bytes seldom get past the first component; these are made of components.
    #[test]
    fn any_components_may_come(
        parts in vec(
            prop_oneof![
                any_addr().prop_map(multiaddr::encode),
                (prop::sample::select(CODES), any_bytes(6)).prop_map(component),
                any_bytes(3),
            ],
            0..5,
        ),
    ) {
        check_multiaddr(&parts.concat());
    }

    #[test]
    fn addresses_round_trip(addr in any_addr()) {
        let bytes = multiaddr::encode(addr);
        prop_assert_eq!(multiaddr::decode(&bytes), Ok(Decoded::Direct { addr, peer: None }));
        let built = multiaddr::to_multiaddr(addr, None);
        prop_assert_eq!(built.as_ref(), &bytes[..]);
        let parsed: Multiaddr = addr.to_string().parse().expect("addresses print as multiaddrs");
        prop_assert_eq!(parsed.as_ref(), &bytes[..]);
    }

    #[test]
    fn dial_backs_round_trip(nonce: u64, code: i32) {
        let dial_back = DialBack { nonce };
        prop_assert!(dial_back.encode().len() <= 10);
        prop_assert_eq!(DialBack::decode(&dial_back.encode()), Ok(dial_back));
        let response = DialBackResponse { status: DialBackStatus::from_code(code) };
        prop_assert_eq!(DialBackResponse::decode(&response.encode()), Ok(response));
    }

    #[test]
    fn frames_survive_any_cut(
        bodies in vec(any_bytes(200), 0..8),
        cuts in vec(1usize..50, 1..40),
        fixed: bool,
    ) {
        let framing = if fixed { Framing::Fixed { len: 32 } } else { Framing::Varint { max: 200 } };
        let bodies: Vec<Bytes> =
            if fixed { bodies.iter().map(|_| Bytes::from_static(&[7; 32])).collect() } else { bodies };
        let mut stream = BytesMut::new();
        for body in &bodies {
            framing::encode(framing, body, &mut stream).expect("bodies keep the rule");
        }
        let mut buffer = BytesMut::new();
        let mut found = Vec::new();
        let mut cuts = cuts.into_iter().cycle();
        while !stream.is_empty() {
            let cut = cuts.next().expect("an endless cycle").min(stream.len());
            buffer.unsplit(stream.split_to(cut));
            while let Some(body) = framing::split(framing, &mut buffer).expect("whole frames") {
                found.push(body);
            }
        }
        prop_assert_eq!(found, bodies);
        prop_assert!(buffer.is_empty());
    }

    /// Whatever comes, a frame is within the limit, an error leaves the buffer alone, and no more
    /// than the limit and its prefix is ever waited for.
    #[test]
    fn any_stream_may_come(bytes in any_bytes(600), max in 0usize..300) {
        let framing = Framing::Varint { max };
        let mut buffer = BytesMut::from(&bytes[..]);
        loop {
            let before = buffer.clone();
            match framing::split(framing, &mut buffer) {
                Ok(Some(body)) => {
                    prop_assert!(body.len() <= max);
                    let mut again = BytesMut::new();
                    framing::encode(framing, &body, &mut again).expect("it was within the limit");
                    prop_assert_eq!(&before[..before.len() - buffer.len()], &again[..]);
                }
                Ok(None) => {
                    prop_assert!(buffer.len() < max + 2);
                    break;
                }
                Err(_) => {
                    prop_assert_eq!(before, buffer);
                    break;
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(settings(300))]

    #[test]
    fn messages_round_trip(message in any_message(), damage in any_damage()) {
        let body = message.encode();
        prop_assert_eq!(Message::decode(&body), Ok(message));
        read_as_everything(&damaged(&body, &damage));
    }

    #[test]
    fn relay_messages_round_trip(
        hop in any_hop(),
        peer in any_peer(),
        limit in any_limit(),
        code: i32,
        damage in any_damage(),
    ) {
        prop_assert_eq!(HopMessage::decode(&hop.encode()), Ok(hop.clone()));
        read_as_everything(&damaged(&hop.encode(), &damage));
        let status = RelayStatus::from_code(code);
        prop_assert_eq!(status.code(), code);
        for stop in [StopMessage::Connect { peer, limit }, StopMessage::Status { status }] {
            prop_assert_eq!(StopMessage::decode(&stop.encode()), Ok(stop));
            read_as_everything(&damaged(&stop.encode(), &damage));
        }
    }

    #[test]
    fn vouchers_round_trip(peer in any_peer(), expiration: u64, damage in any_damage()) {
        for mut key in keys() {
            let public = key.0.public();
            let voucher = Voucher { relay: public.to_peer_id(), peer, expiration };
            let sealed = voucher.sealed(&public, &mut key);
            prop_assert_eq!(Voucher::open(&sealed), Ok(voucher));
            // What is not refused says the same.
            if let Ok(read) = Voucher::open(&damaged(&sealed, &damage)) {
                prop_assert_eq!(read, voucher);
            }
        }
    }

    #[test]
    fn identify_round_trips(identify in any_identify(), damage in any_damage()) {
        check_split(&identify);
        for message in identify.encode_split().messages {
            read_as_everything(&damaged(&message, &damage));
        }
    }

    #[test]
    fn dial_requests_fit(addrs in vec(any_bytes(300), 0..80), nonce: u64) {
        let (message, left_out) = Message::dial_request(addrs.clone(), nonce);
        let kept = addrs[..addrs.len() - left_out].to_vec();
        prop_assert_eq!(&message, &Message::DialRequest { addrs: kept, nonce });
        prop_assert!(message.encode().len() <= autonat::DIAL_REQUEST_BYTES_MAX);
        prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
    }

    #[test]
    fn peer_records_round_trip(
        addrs in vec(any_bytes(40), 0..20),
        seq: u64,
        which in 0usize..3,
        damage in any_damage(),
    ) {
        let mut key = keys().swap_remove(which);
        let public_key = key.0.public();
        let record = PeerRecord { peer_id: public_key.to_peer_id(), seq, addrs };
        let sealed = record.sealed(&public_key, &mut key);
        prop_assert_eq!(PeerRecord::open(&sealed), Ok(record.clone()));
        // Damage either breaks it or is beside the point; it never makes another record of it.
        let spoiled = damaged(&sealed, &damage);
        if let Ok(opened) = PeerRecord::open(&spoiled) {
            prop_assert_eq!(opened, record);
        }
        read_as_everything(&spoiled);
    }

    #[test]
    fn a_damaged_rsa_record_never_becomes_another(damage in any_damage()) {
        let spoiled = damaged(&rsa_record(), &damage);
        if let Ok(opened) = PeerRecord::open(&spoiled) {
            prop_assert_eq!(Ok(opened), PeerRecord::open(&rsa_record()));
        }
        read_as_everything(&spoiled);
    }
}

/// Codes of the multicodec table: every protocol that takes a length or a fixed value, some that
/// take nothing, and some that nobody has defined.
const CODES: &[u32] = &[
    4, 6, 33, 41, 42, 43, 53, 54, 55, 56, 132, 273, 280, 290, 400, 421, 444, 445, 446, 447, 448,
    449, 460, 461, 465, 466, 477, 478, 480, 481, 777, 4_770, 4_780, 31, 9_999,
];

/// A component with this code and a value after its length, as names and hashes have it.
fn component((code, value): (u32, Bytes)) -> Bytes {
    let mut out = BytesMut::new();
    let mut code_bytes = unsigned_varint::encode::u32_buffer();
    out.extend_from_slice(unsigned_varint::encode::u32(code, &mut code_bytes));
    framing::encode(Framing::Varint { max: 64 }, &value, &mut out).expect("a short value");
    out.freeze()
}

#[test]
fn an_rsa_record_from_elsewhere_opens() {
    let record = PeerRecord::open(&rsa_record()).expect("a record that OpenSSL signed");
    assert_eq!(record.seq, 42);
    assert_eq!(record.peer_id.to_bytes()[..2], [0x12, 0x20], "a hashed key");
    let addr = Addr::tcp([192, 0, 2, 1].into(), 4001);
    assert_eq!(record.addrs, [multiaddr::encode(addr)]);
    let mut forged = rsa_record().to_vec();
    *forged.last_mut().expect("it has bytes") ^= 1;
    let refused = PeerRecord::open(&forged.into());
    assert_eq!(refused, Err(RecordError::Envelope(EnvelopeError::Signature)));
}

#[test]
fn framed_messages_look_as_deployed_peers_send_them() {
    let mut out = BytesMut::new();
    let framing = portolan_core::Protocol::DialBack.framing();
    framing::encode(framing, &DialBackResponse::OK.encode(), &mut out).expect("no bytes fit");
    assert_eq!(out, b"\x00"[..]);
    let mut explicit = BytesMut::from(&b"\x00\x02\x08\x00"[..]);
    for _ in 0..2 {
        let body = framing::split(framing, &mut explicit).expect("no error").expect("a frame");
        assert_eq!(DialBackResponse::decode(&body), Ok(DialBackResponse::OK));
    }
    let request = portolan_core::Protocol::DialRequest.framing();
    let mut out = BytesMut::new();
    let chunk = autonat::dial_data_chunk(autonat::DIAL_DATA_CHUNK_MAX);
    framing::encode(request, &chunk, &mut out).expect("our own limit is larger");
}

fn any_map_transport() -> impl Strategy<Value = MapTransport> {
    any::<bool>().prop_map(|tcp| if tcp { MapTransport::Tcp } else { MapTransport::Udp })
}

proptest! {
    #![proptest_config(settings(1_000))]

    #[test]
    fn nat_pmp_is_read_as_it_was_written(
        transport in any_map_transport(),
        ports in any::<(u16, u16)>(),
        lifetime_s in any::<u32>(),
        epoch in any::<u32>(),
    ) {
        let (internal_port, external_port) = ports;
        let request =
            nat_pmp::Request::Map { transport, internal_port, external_port, lifetime_s };
        prop_assert_eq!(nat_pmp::Request::decode(&request.encode()), Ok(request));
        let response =
            nat_pmp::Response::Map { transport, epoch, internal_port, external_port, lifetime_s };
        let bytes = response.encode();
        prop_assert_eq!(nat_pmp::Response::decode(&bytes), Ok(response));
        for len in 0..bytes.len() {
            prop_assert_ne!(nat_pmp::Response::decode(&bytes[..len]), Ok(response));
        }
    }

    #[test]
    fn pcp_is_read_as_it_was_written(
        nonce in any::<[u8; 12]>(),
        transport in any_map_transport(),
        ports in any::<(u16, u16)>(),
        ips in any::<(IpAddr, IpAddr, Option<IpAddr>)>(),
        numbers in any::<(u32, u32, u8)>(),
        prefer_failure in any::<bool>(),
    ) {
        let (client, external_ip, third_party) = ips;
        let (lifetime_s, epoch, code) = numbers;
        let mut map = pcp::MapRequest::new(nonce, transport, ports.0, external_ip.to_canonical());
        map.external_port = ports.1;
        map.third_party = third_party.map(|ip| ip.to_canonical());
        map.prefer_failure = prefer_failure;
        let made = pcp::MapResponse::to(&map, external_ip.to_canonical(), ports.1);
        let request = pcp::Request::map(client.to_canonical(), lifetime_s, map);
        let bytes = request.encode();
        prop_assert_eq!(pcp::Request::decode(&bytes), Ok(request.clone()));
        for len in 0..bytes.len() {
            prop_assert_ne!(pcp::Request::decode(&bytes[..len]), Ok(request.clone()));
        }
        let code = pcp::ResultCode::from_code(code);
        let body = pcp::ResponseBody::Map(made);
        let response = pcp::Response::new(code, lifetime_s, epoch, body);
        prop_assert_eq!(pcp::Response::decode(&response.encode()), Ok(response));
    }
}
