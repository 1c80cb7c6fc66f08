//! The same story of other people.

use crate::pair::Hand;
use crate::round_trip::{read, settings, written};
use crate::{story, values};
use bytes::Bytes;
use portolan_core::flight::{
    Drawn, Head, ReadError, Reader, Recorder, RedactError, Redacted, Replay, ReplayError, Step,
    Tail, redact,
};
use portolan_core::transcript::{Names, Scribe};
use portolan_core::wire::autonat::Message;
use portolan_core::wire::identify::Identify;
use portolan_core::wire::multiaddr::{self, Multiaddr};
use portolan_core::wire::peer_record::PeerRecord;
use portolan_core::{
    Action, Actions, Addr, Agent, Config, ConnId, Connected, Cx, DialBackConfig, Draw, Duration,
    Event, Instant, ListenerId, Notice, Oddity, PeerId, Protocol, Side, StreamId, UnixTime,
};
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

const SALT: [u8; 16] = *b"sixteen of salt!";

/// Who and what stands in which place of the story: the first peer that is named is `peer 0`.
#[derive(Debug, Default)]
struct Places(RefCell<BTreeMap<String, usize>>);

impl Places {
    fn place(&self, kind: &str, of: &str) -> String {
        let mut known = self.0.borrow_mut();
        let next = known.len();
        format!("<{kind} {}>", known.entry(of.to_owned()).or_insert(next))
    }

    /// A line with places in it. What redacting leaves out is left out here.
    fn line(&self, line: &str) -> String {
        let line = line.split_once(" record=").map_or(line, |(before, _)| before);
        let line = line.split_once(" voucher=").map_or(line, |(before, _)| before);
        let line = match line.split_once(" undecodable ") {
            // What cannot be decoded is only as long as it was.
            Some((before, rest)) => {
                format!("{before} undecodable {}", rest.split(' ').next().unwrap_or_default())
            }
            None => line.to_owned(),
        };
        let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-');
        let mut out = String::new();
        for part in line.split_inclusive(|c| !is_word(c)) {
            let word = part.trim_end_matches(|c| !is_word(c));
            // In an agent version, an address may have its port behind it.
            let (host, port) = word.rsplit_once(':').unwrap_or((word, ""));
            out.push_str(&match word.parse::<IpAddr>() {
                Ok(_) => self.place("ip", word),
                Err(_) if host.parse::<IpAddr>().is_ok() => self.place("ip", host) + port,
                Err(_) if word.len() > 40 && word.parse::<PeerId>().is_ok() => {
                    self.place("peer", word)
                }
                Err(_) if word.ends_with(".example") || word.ends_with(".invalid") => {
                    self.place("host", word)
                }
                Err(_) => word.to_owned(),
            });
            out.push_str(&part[word.len()..]);
        }
        out
    }
}

impl Names for &Places {
    fn name(&self, peer: &PeerId) -> String {
        self.place("peer", &peer.to_string())
    }
}

/// What a record tells, whoever it is about; and how many steps diverge.
fn transcript(record: &[u8]) -> (Vec<String>, usize) {
    let (head, reader) = Reader::new(record).expect("a record");
    let mut replay = Replay::new(&head).expect("a configuration");
    let places = Places::default();
    let mut scribe = Scribe::new(&places, head.now);
    let (mut lines, mut diverged) = (Vec::new(), 0);
    let mut actions = Actions::new();
    for step in reader {
        let step = step.expect("a step");
        lines.push(places.line(&scribe.event(&step.event)));
        diverged += usize::from(replay.step(&step, &mut actions).is_err());
        lines.extend(actions.drain().map(|action| places.line(&scribe.action(&action))));
        lines.push(format!("{:?}", replay.deadline()));
    }
    (lines, diverged)
}

/// Redact, and compare the stories.
fn redacted(record: &[u8], salt: [u8; 16]) -> Redacted {
    let redacted = redact(record, salt).expect("a record that can be read");
    let (before, diverged) = transcript(record);
    assert_eq!(redacted.diverged.is_some(), diverged > 0);
    let (after, diverged) = transcript(&redacted.record);
    assert_eq!(diverged, 0, "it replays to its last digest");
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before, after);
    }
    assert_eq!(before.len(), after.len());
    redacted
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

fn octets(ip: &str) -> Vec<u8> {
    match ip.parse().expect("an address") {
        IpAddr::V4(ip) => ip.octets().into(),
        IpAddr::V6(ip) => ip.octets().into(),
    }
}

#[test]
fn a_client_and_a_server_tell_the_same_of_others() {
    let pair = story::cached();
    for node in &pair.nodes {
        let found = redacted(&node.record, SALT);
        assert_eq!((found.tail, found.diverged), (Tail::Whole, None));
        assert_eq!(found.steps, u64::try_from(read(&node.record).1.len()).expect("few steps"));
        assert_eq!(redact(&node.record, SALT).as_ref(), Ok(&found), "the salt decides");
        for ip in ["10.171.205.1", "10.171.205.2", "10.171.205.3"] {
            assert!(contains(&node.record, &octets(ip)), "{ip}");
            assert!(!contains(&found.record, &octets(ip)), "{ip}");
        }
        for seed in [1, 2, 9] {
            let public = values::key(seed).public();
            let key = public.clone().try_into_ed25519().expect("an ed25519 key").to_bytes();
            assert!(!contains(&found.record, &key), "key {seed}");
            assert!(!contains(&found.record, public.to_peer_id().to_base58().as_bytes()));
        }
        for signature in read(&node.record).1.iter().flat_map(|step| &step.signatures) {
            assert!(!contains(&found.record, &signature[..8]), "half a signature is one");
        }
    }
}

/// A peer whose every word gives it away, and who asks to be dialled back.
struct Tale {
    steps: Vec<Step>,
}

const CONN: ConnId = ConnId(7);
const US: &str = "44.12.13.14";
const THEM: &str = "2600:1700:1234:5678::9";
const V4_OF_THEM: &str = "81.2.69.142";
const HOST: &str = "peer.private.example";
const SECRET: &str = "b3duZXJzaGlw";

impl Tale {
    fn new() -> Tale {
        Tale { steps: Vec::new() }
    }

    fn then(&mut self, event: Event) {
        let now = Instant::from_millis(1_000 + 100 * self.steps.len() as u64);
        self.steps.push(Step {
            now,
            unix: UnixTime::from_millis(1_700_000_000_000),
            event,
            drawn: vec![],
            signatures: vec![],
            digest: 0,
        });
    }

    fn hears(&mut self, stream: StreamId, body: impl Into<Bytes>) {
        self.then(Event::StreamOpened { conn: CONN, stream });
        self.then(Event::Frame { stream, body: body.into() });
    }

    /// The record of it, as this core lives through it.
    fn record(&self, config: Config) -> Vec<u8> {
        let head = Head {
            software: "portolan/0".into(),
            config,
            identity: values::key(1).public(),
            part: 0,
            now: Instant::ZERO,
            unix: UnixTime::from_millis(1_700_000_000_000),
            checkpoint: None,
        };
        let mut replay = Replay::new(&head).expect("a configuration");
        let steps: Vec<Step> = self
            .steps
            .iter()
            .map(|step| {
                let _ = replay.step(step, &mut Actions::new());
                replay.renewed(step)
            })
            .collect();
        written(&head, &steps)
    }
}

fn config() -> Config {
    let mut config = Config::default();
    config.external = vec![Addr::tcp(US.parse().expect("an address"), 4001)];
    let mut limits = DialBackConfig::unlimited();
    limits.sources = vec!["44.12.13.99".parse().expect("an address")];
    config.dial_back = Some(limits);
    config
}

fn connected() -> Event {
    Event::Connected(Connected {
        conn: CONN,
        peer: values::key(2).public().to_peer_id(),
        side: Side::Inbound,
        local: Addr::quic("2600:1700:9::1".parse().expect("an address"), 4001),
        remote: Addr::quic(THEM.parse().expect("an address"), 50_000),
        relayed: false,
        dial: None,
        rtt: Some(Duration::from_millis(20)),
    })
}

fn begun() -> Tale {
    let mut tale = Tale::new();
    let own = |ip: &str| ip.parse::<IpAddr>().expect("an address");
    tale.then(Event::InterfacesChanged { ips: vec![own(US), own("2600:1700:9::1")] });
    let addr = Addr::quic(own("::"), 4001);
    tale.then(Event::ListenerOpened { listener: ListenerId(1), addr });
    tale.then(connected());
    tale
}

fn binary(text: &str) -> Bytes {
    text.parse::<Multiaddr>().expect("a multiaddr").to_vec().into()
}

fn third() -> PeerId {
    values::key(3).public().to_peer_id()
}

/// What a redacted record has in place of its one frame, which came on this stream.
fn instead(stream: StreamId, body: impl Into<Bytes>) -> Bytes {
    let mut tale = begun();
    tale.hears(stream, body);
    let found = redact(&tale.record(config()), SALT).expect("a record");
    assert_eq!(transcript(&found.record).1, 0, "it replays to its last digest");
    let (_, steps) = read(&found.record);
    let mut last = None;
    for step in steps {
        if let Event::Frame { body, .. } = step.event {
            last = Some(body);
        }
    }
    last.expect("there was one")
}

const PUSH: StreamId = StreamId::inbound(Protocol::IdentifyPush, 5);

fn pushed(said: Identify) -> Identify {
    let [body] = &said.encode_split().messages[..] else { panic!("one message") };
    Identify::decode(&instead(PUSH, body.clone())).expect("a message")
}

#[test]
fn what_a_peer_says_of_itself_is_said_of_another() {
    let record =
        PeerRecord { peer_id: values::key(2).public().to_peer_id(), seq: 5, addrs: vec![] };
    let key = values::key(2);
    let mut hand = Hand(&key);
    let said = Identify {
        public_key: Some(values::key(2).public().encode_protobuf().into()),
        listen_addrs: vec![
            binary(&format!("/ip4/{V4_OF_THEM}/tcp/4001/p2p/{}", third())),
            binary(&format!("/dns4/{HOST}/tcp/443/tls/sni/{HOST}/ws")),
            binary(&format!("/dnsaddr/{HOST}/p2p/{}/p2p-circuit", third())),
        ],
        protocols: vec!["/ipfs/id/push/1.0.0".into(), format!("/chat/{}", third())],
        observed: Some(binary(&format!("/ip4/{US}/tcp/4001"))),
        protocol_version: Some("ipfs/0.1.0".into()),
        agent_version: Some(format!("kubo/0.39.0 at {V4_OF_THEM}:4001")),
        signed_peer_record: Some(record.sealed(&values::key(2).public(), &mut hand)),
        relay_load: Some(250),
    };
    let other = pushed(said.clone());
    let key = other.public_key.clone().expect("a key");
    let key = portolan_core::PublicKey::try_decode_protobuf(&key).expect("a key of a peer");
    assert_ne!(key, values::key(2).public());
    assert_eq!(other.signed_peer_record, None);
    assert_eq!(other.relay_load, said.relay_load);
    assert_eq!(other.protocol_version, said.protocol_version);
    assert_eq!(other.protocols[0], "/ipfs/id/push/1.0.0");
    let text = |at: usize| {
        Multiaddr::try_from(other.listen_addrs[at].to_vec()).expect("a multiaddr").to_string()
    };
    let parts: Vec<String> = text(0).split('/').map(str::to_owned).collect();
    assert_eq!(other.protocols[1], format!("/chat/{}", parts[6]), "the same peer everywhere");
    assert_eq!(other.agent_version, Some(format!("kubo/0.39.0 at {}:4001", parts[2])));
    let host = text(1).split('/').nth(2).expect("a name").to_owned();
    assert!(host.ends_with(".invalid"), "{host}");
    assert_eq!(text(1), format!("/dns4/{host}/tcp/443/tls/sni/{host}/ws"));
    assert_eq!(text(2), format!("/dnsaddr/{host}/p2p/{}/p2p-circuit", parts[6]));
}

#[test]
fn an_address_that_says_too_much_says_nothing_but_means_the_same() {
    let certhash = "uEiDDq4_xNyDorZBH3TlGazyJdOWSwvo4PUo5YHFMrvDE8g";
    let all = [
        format!("/ip4/{V4_OF_THEM}/tcp/4001/p2p-circuit/http-path/{SECRET}"),
        format!("/ip4/{V4_OF_THEM}/udp/4001/quic-v1/webtransport/certhash/{certhash}"),
        format!("/unix/{SECRET}"),
        format!("/ip4/{V4_OF_THEM}/tcp/80/x-parity-ws/%2f{SECRET}"),
        format!("/ip6zone/{SECRET}/ip6/{THEM}/tcp/80"),
        "/dns/a".repeat(17),
        "/memory/1234".to_owned(),
    ];
    let mut addrs: Vec<Bytes> = all.iter().map(|text| binary(text)).collect();
    addrs.push(Bytes::from_static(b"\x04\x51\x02\x45\x8e\x1f\x07"));
    let body = Message::DialRequest { addrs: addrs.clone(), nonce: 1 }.encode();
    let stream = StreamId::inbound(Protocol::DialRequest, 5);
    let Ok(Message::DialRequest { addrs: others, nonce: 1 }) =
        Message::decode(&instead(stream, body))
    else {
        panic!("no dial request")
    };
    assert_eq!(others.len(), addrs.len(), "an answer names an address by its place");
    for (other, addr) in others.iter().zip(&addrs) {
        assert_eq!(multiaddr::decode(other).map_err(drop), multiaddr::decode(addr).map_err(drop));
        assert!(other.len() <= 2, "{other:?}");
    }
}

#[test]
fn what_cannot_be_decoded_is_as_long_and_as_little() {
    let secret = [b"\xff".as_slice(), SECRET.as_bytes()].concat();
    for protocol in [Protocol::IdentifyPush, Protocol::DialRequest, Protocol::DialBack] {
        for side in [Side::Inbound, Side::Outbound] {
            let other = instead(StreamId { side, protocol, number: 5 }, secret.clone());
            assert_eq!(other.len(), secret.len());
            assert_eq!(other[1..], [0; 12], "{protocol:?}");
        }
    }
    let ping = StreamId::inbound(Protocol::Ping, 5);
    assert_eq!(instead(ping, &b"12345678abc"[..]), &b"12345678\0\0\0"[..]);
    let unknown = b"\x32\x01a\x7a\x0cb3duZXJzaGlw";
    assert_eq!(instead(PUSH, &unknown[..]), &unknown[..3], "a field that nobody knows");
    let back = StreamId::inbound(Protocol::DialBack, 5);
    let unknown = b"\x09\x07\0\0\0\0\0\0\0\x7a\x0cb3duZXJzaGlw";
    assert_eq!(instead(back, &unknown[..]), &unknown[..9]);
    let answer = StreamId::outbound(Protocol::DialBack, 5);
    assert_eq!(instead(answer, &b"\x08\x07\x7a\x0cb3duZXJzaGlw"[..]), &b"\x08\x07"[..]);
}

/// Which notices of nonsense come of one push.
fn oddities(said: Identify) -> [Vec<Oddity>; 2] {
    let mut tale = begun();
    let [body] = &said.encode_split().messages[..] else { panic!("one message") };
    tale.hears(PUSH, body.clone());
    let record = tale.record(config());
    let other = redacted(&record, SALT).record;
    assert!(!contains(&other, SECRET.as_bytes()));
    [record, other].map(|record| {
        let (head, reader) = Reader::new(&record).expect("a record");
        let mut replay = Replay::new(&head).expect("a configuration");
        let mut actions = Actions::new();
        for step in reader {
            let _ = replay.step(&step.expect("a step"), &mut actions);
        }
        let mut oddities = Vec::new();
        for action in actions.drain() {
            if let Action::Notify(Notice::Ignored { oddity, .. }) = action {
                oddities.push(oddity);
            }
        }
        oddities
    })
}

#[test]
fn what_was_wrong_with_a_peer_stays_wrong() {
    let of = |seed| Some(Bytes::from(values::key(seed).public().encode_protobuf()));
    let no_key = Some(Bytes::from_static(SECRET.as_bytes()));
    for public_key in [of(3), no_key] {
        let said = Identify { public_key, ..Identify::default() };
        let [before, after] = oddities(said);
        assert_eq!((before, after), (vec![Oddity::ForeignKey], vec![Oddity::ForeignKey]));
    }
    let sealed = |seed, signer| {
        let peer_id = values::key(seed).public().to_peer_id();
        let key = values::key(signer);
        let mut hand = Hand(&key);
        let record = PeerRecord { peer_id, seq: 5, addrs: vec![] };
        record.sealed(&values::key(seed).public(), &mut hand)
    };
    for (seed, signer, expected) in
        [(2, 2, vec![]), (3, 3, vec![Oddity::BadPeerRecord]), (2, 3, vec![Oddity::BadPeerRecord])]
    {
        let said =
            Identify { signed_peer_record: Some(sealed(seed, signer)), ..Identify::default() };
        let [before, after] = oddities(said);
        assert_eq!(before, expected);
        assert_eq!(after, expected);
    }
}

#[test]
fn a_dial_request_is_served_at_another_address() {
    let mut tale = begun();
    let stream = StreamId::inbound(Protocol::DialRequest, 5);
    let addrs = vec![
        binary(&format!("/dns4/{HOST}/udp/4001/quic-v1")),
        binary(&format!("/ip6/{THEM}/udp/4001/quic-v1/p2p/{}", third())),
        binary(&format!("/ip6/{THEM}/udp/4001/quic-v1")),
    ];
    tale.hears(stream, Message::DialRequest { addrs, nonce: 9 }.encode());
    let record = tale.record(config());
    let dials = |record: &[u8]| {
        let (lines, _) = transcript(record);
        lines.iter().filter(|line| line.contains("dial d")).count()
    };
    let found = redacted(&record, SALT);
    assert_eq!(dials(&record), 1);
    assert_eq!(dials(&found.record), 1);
    let (head, _) = read(&found.record);
    assert_ne!(head.config.external, config().external);
    assert_ne!(head.config.dial_back, config().dial_back);
    for ip in [US, THEM, "44.12.13.99", "2600:1700:9::1"] {
        assert!(contains(&record, &octets(ip)), "{ip}");
        assert!(!contains(&found.record, &octets(ip)), "{ip}");
    }
    assert!(contains(&record, HOST.as_bytes()) && !contains(&found.record, HOST.as_bytes()));
}

#[test]
fn a_torn_tail_is_dropped_and_damage_is_named() {
    let mut tale = begun();
    tale.then(Event::Tick);
    let record = tale.record(config());
    let whole = redact(&record, SALT).expect("a record");
    let torn = redact(&record[..record.len() - 1], SALT).expect("a record that was cut off");
    assert_eq!(torn.steps, whole.steps - 1);
    assert!(matches!(torn.tail, Tail::Torn { .. }));
    assert!(whole.record.starts_with(&torn.record));
    let mut damaged = record.clone();
    *damaged.last_mut().expect("bytes") ^= 1;
    let Err(RedactError::Read(ReadError::Damaged { offset })) = redact(&damaged, SALT) else {
        panic!("the damage was not found")
    };
    assert!(offset < record.len());
    assert_eq!(redact(b"", SALT), Err(RedactError::Read(ReadError::Empty)));
}

/// What was drawn and signed then.
struct Given(VecDeque<Drawn>);

impl Draw for Given {
    fn below(&mut self, _: u64) -> u64 {
        match self.0.pop_front() {
            Some(Drawn::Below { value, .. }) => value,
            other => panic!("{other:?} was drawn"),
        }
    }

    fn nonce(&mut self) -> u64 {
        match self.0.pop_front() {
            Some(Drawn::Nonce(nonce)) => nonce,
            other => panic!("{other:?} was drawn"),
        }
    }
}

/// The same story as a record whose last part begins after `at` steps.
fn later_part(record: &[u8], at: usize) -> Vec<u8> {
    let (head, steps) = read(record);
    let mut agent = Agent::new(head.config, head.identity).expect("a configuration");
    let mut recorder = Recorder::new([5; 16]);
    let (mut out, mut actions) = (Vec::new(), Actions::new());
    let mut began = (head.now, head.unix);
    for (number, step) in (0..).zip(steps) {
        if number == at {
            recorder.begin(&agent, 1, began.0, began.1, &mut out);
        }
        began = (step.now, step.unix);
        let mut draw = Given(step.drawn.into());
        let mut cx = Cx {
            now: step.now,
            unix: step.unix,
            draw: &mut draw,
            sign: &mut Hand(&values::key(1)),
            actions: &mut actions,
        };
        recorder.handle(&mut agent, &mut cx, step.event, &mut out);
        actions.drain().for_each(drop);
    }
    out
}

#[test]
fn a_later_part_begins_with_the_state_of_another() {
    for node in &story::cached().nodes {
        let steps = read(&node.record).1.len();
        let (mut networks, mut certified) = (0, 0);
        for at in (1..steps).step_by(1 + steps / 24) {
            let record = later_part(&node.record, at);
            let found = redacted(&record, SALT);
            assert_eq!(found.diverged, None, "from step {at}");
            let (before, after) = (read(&record).0, read(&found.record).0);
            let (before, after) = (before.checkpoint, after.checkpoint);
            let (before, after) = (before.expect("a state"), after.expect("a state"));
            for ip in ["10.171.205.1", "10.171.205.2", "10.171.205.3"] {
                networks += usize::from(contains(&before, &octets(ip)));
                assert!(!contains(&found.record, &octets(ip)), "{ip}");
            }
            for seed in [1, 2, 9] {
                let public = values::key(seed).public();
                let key = public.try_into_ed25519().expect("an ed25519 key").to_bytes();
                certified += usize::from(seed == 1 && contains(&before, &key));
                assert!(!contains(&found.record, &key), "key {seed}");
            }
            assert_eq!(after.len(), before.len(), "ed25519 keys, and as much of everything");
        }
        assert!(networks > 20 && certified > 5, "{networks}, {certified}: there is little to hide");
    }
}

#[test]
fn a_record_that_cannot_be_replayed_cannot_be_redacted() {
    let (head, steps) = read(&begun().record(config()));
    for (part, checkpoint) in [(1, None), (0, Some(Bytes::new())), (2, Some(Bytes::new()))] {
        let head = Head { part, checkpoint, ..head.clone() };
        let refused = redact(&written(&head, &steps), SALT);
        assert_eq!(refused, Err(RedactError::Replay(ReplayError::Checkpoint)));
    }
    let mut head = head;
    head.config.addrs_per_request = 0;
    let refused = redact(&written(&head, &steps), SALT);
    assert!(matches!(refused, Err(RedactError::Replay(ReplayError::Config(_)))));
}

#[test]
fn a_record_that_diverges_is_said_to() {
    let (head, mut steps) = read(&begun().record(config()));
    steps[1].digest ^= 1;
    let found = redacted(&written(&head, &steps), SALT);
    assert_eq!(found.diverged.map(|diverged| diverged.step), Some(2));
}

proptest! {
    #![proptest_config(settings(256))]

    #[test]
    fn any_steps_can_be_told_of_others(
        (head, steps) in values::head().prop_flat_map(|mut head| {
            (head.part, head.checkpoint) = (0, None);
            let steps = values::steps(head.now, 40);
            (Just(head), steps)
        }),
        plain in any::<bool>(),
        salt in any::<[u8; 16]>(),
    ) {
        let mut head = head;
        if plain {
            head.config = Config::default();
            head.config.allow_private = true;
            head.config.dial_back = Some(DialBackConfig::default());
        }
        let record = written(&head, &steps);
        match redact(&record, salt) {
            Ok(_) => drop(redacted(&record, salt)),
            Err(error) => prop_assert!(matches!(error, RedactError::Replay(_)) && !plain),
        }
    }
}
