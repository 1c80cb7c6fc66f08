//! Two agents, a client and a server, live through pings, probes with and without dial data, and
//! dial-backs; and each lives through it again.

use crate::pair::Pair;
use portolan_core::flight::{Drawn, Reader, Replay, Step, Tail};
use portolan_core::{
    Action, Actions, Addr, Config, DialBackConfig, Duration, Event, Protocol, Side, StreamId,
};
use std::sync::OnceLock;

// Bytes that hardly ever stand together by chance: tests look for them in records.
/// What the client listens on: the first is where the server sees it come from.
const HOME: &str = "10.171.205.1";
const SECOND: &str = "10.171.205.3";
const SERVER: &str = "10.171.205.2";

fn tcp(ip: &str) -> Addr {
    Addr::tcp(ip.parse().expect("an address"), 4001)
}

/// A client that finds out about both of its addresses, and ten minutes of what follows.
pub(crate) fn told(seed: u64) -> Pair {
    let mut client = Config::default();
    client.allow_private = true;
    let mut server = client.clone();
    server.dial_back = Some(DialBackConfig::unlimited());
    let mut pair = Pair::new([client, server], seed);
    let ips = |ips: &[&str]| ips.iter().map(|ip| tcp(ip).ip).collect();
    pair.feed(0, Event::InterfacesChanged { ips: ips(&[HOME, SECOND]) });
    pair.feed(1, Event::InterfacesChanged { ips: ips(&[SERVER]) });
    pair.listen(0, tcp("0.0.0.0"));
    pair.listen(1, tcp("0.0.0.0"));
    pair.connect(0, tcp(HOME), tcp(SERVER));
    pair.pass(Duration::from_secs(600));
    pair.feed(0, Event::Resumed { slept: Duration::from_secs(3_600) });
    pair.pass(Duration::from_secs(60));
    pair
}

/// The story that begins with seed 1.
pub(crate) fn cached() -> &'static Pair {
    static STORY: OnceLock<Pair> = OnceLock::new();
    STORY.get_or_init(|| told(1))
}

fn steps(record: &[u8]) -> Vec<Step> {
    let (_, mut reader) = Reader::new(record).expect("a record");
    let steps = reader.by_ref().map(|step| step.expect("a step")).collect();
    assert_eq!(reader.tail(), Tail::Whole);
    steps
}

#[test]
fn both_replay_to_the_last_digest() {
    let pair = cached();
    for node in &pair.nodes {
        let (head, reader) = Reader::new(&node.record).expect("a record");
        let mut replay = Replay::new(&head).expect("the configuration was good");
        let mut actions = Actions::new();
        let mut lived = node.orders.iter().zip(&node.deadlines);
        for step in reader {
            let step = step.expect("a step");
            assert_eq!(replay.step(&step, &mut actions), Ok(()), "{step:?}");
            let (orders, deadline) = lived.next().expect("as many steps as were lived");
            assert_eq!(actions.drain().count(), orders.len());
            assert_eq!(replay.deadline(), *deadline);
        }
        assert_eq!(lived.next(), None, "the record has every step");
        assert_eq!(replay.explain(), node.agent.explain());
    }
}

#[test]
fn the_story_has_all_that_is_claimed_of_it() {
    let pair = cached();
    let [client, server] = &pair.nodes;
    let sent = |orders: &[Vec<Action>], wanted: StreamId| {
        let sends = orders.iter().flatten().filter(|order| {
            matches!(order, Action::Send { stream, .. }
                if (stream.side, stream.protocol) == (wanted.side, wanted.protocol))
        });
        sends.count()
    };
    let ours = |protocol| StreamId::outbound(protocol, 0);
    let theirs = |protocol| StreamId::inbound(protocol, 0);
    assert!(sent(&client.orders, ours(Protocol::Ping)) > 10);
    assert!(sent(&client.orders, ours(Protocol::DialRequest)) > 10, "dial data included");
    assert!(sent(&client.orders, theirs(Protocol::DialBack)) >= 2);
    assert!(sent(&server.orders, ours(Protocol::DialBack)) >= 2);
    assert!(sent(&server.orders, theirs(Protocol::Ping)) > 10);
    let signed = steps(&client.record).iter().any(|step| !step.signatures.is_empty());
    assert!(signed, "a peer record was certified");
    let explained = client.agent.explain();
    assert!(explained.settled && explained.addresses.iter().all(|address| address.proofs > 0));
}

/// Steps in which the story has pings and probes of every kind under way.
const PARTS_WITH_ALL: usize = 120;

/// The ways in which a number could stand in a file.
fn forms(nonce: u64) -> [Vec<u8>; 3] {
    let mut buffer = unsigned_varint::encode::u64_buffer();
    let varint = unsigned_varint::encode::u64(nonce, &mut buffer);
    [nonce.to_le_bytes().into(), nonce.to_be_bytes().into(), varint.into()]
}

#[test]
fn no_nonce_is_in_any_record() {
    for seed in 1..=8 {
        let pair = told(seed);
        let mut looked_for = 0;
        // With a part that begins at every moment at which a nonce is out, or a ping.
        let mut records: Vec<&Vec<u8>> = pair.nodes.iter().map(|node| &node.record).collect();
        records.extend(pair.nodes.iter().flat_map(|node| node.parts.iter().take(PARTS_WITH_ALL)));
        for nonce in pair.nodes.iter().flat_map(|node| &node.chance.nonces) {
            looked_for += 1;
            for record in &records {
                for bytes in forms(*nonce) {
                    let found = record.windows(bytes.len()).any(|window| window == bytes);
                    assert!(!found, "seed {seed}: the nonce {nonce:#x} is in a record");
                }
            }
        }
        assert!(looked_for > 40, "seed {seed}: only {looked_for} nonces were drawn");
    }
}

#[test]
fn equal_nonces_stay_equal_and_others_different() {
    let pair = cached();
    let said = |wanted: Protocol| {
        let mut bodies = Vec::new();
        for step in steps(&pair.nodes[0].record) {
            if let Event::Frame { stream, body } = step.event
                && stream.protocol == wanted
                && stream.side == Side::Inbound
            {
                bodies.push(body);
            }
        }
        bodies
    };
    // What the client is brought is what it drew.
    let brought = said(Protocol::DialBack);
    assert!(!brought.is_empty());
    let drawn: Vec<u64> = steps(&pair.nodes[0].record)
        .iter()
        .flat_map(|step| step.drawn.clone())
        .filter_map(|drawn| match drawn {
            Drawn::Nonce(nonce) => Some(nonce),
            Drawn::Below { .. } => None,
        })
        .collect();
    for body in brought {
        let nonce = u64::from_le_bytes(body[1..9].try_into().expect("eight bytes"));
        assert!(drawn.contains(&nonce));
    }
}

#[test]
fn dial_data_costs_little() {
    let pair = cached();
    let (_, mut reader) = Reader::new(&pair.nodes[1].record).expect("a record");
    let mut chunks = 0;
    let mut offset = reader.offset();
    while let Some(step) = reader.next() {
        let step = step.expect("a step");
        let len = reader.offset() - offset;
        offset = reader.offset();
        if matches!(&step.event, Event::Frame { body, .. } if body.len() > 4_000) {
            chunks += 1;
            assert!(len < 64, "a chunk takes {len} bytes");
        }
        if step.event == Event::Tick && step.digest == 0 {
            assert!(len <= 24, "a tick takes {len} bytes");
        }
    }
    assert!(chunks >= 8, "only {chunks} chunks of dial data");
}
