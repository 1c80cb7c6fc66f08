//! Target: identify, in several messages.

use crate::fields;
use crate::trail::{Trail, magnitude};
use bytes::{Bytes, BytesMut};
use portolan_core::config::IDENTIFY_MESSAGES_MAX;
use portolan_core::wire::framing;
use portolan_core::wire::identify::{
    Identify, LISTEN_ADDRS_MAX, MESSAGE_BYTES_MAX, PROTOCOLS_MAX, Present, RELAY_LOAD_TAG,
};
use portolan_core::{Protocol, ProtocolSet};

/// A stream of framed messages. They are read, merged, taken for a push, and split again; nothing
/// gets lost without being counted.
pub(crate) fn run(bytes: &[u8], trail: &mut Trail) {
    let mut stream = BytesMut::from(bytes);
    let mut messages = Vec::new();
    while messages.len() < IDENTIFY_MESSAGES_MAX
        && let Ok(Some(body)) = framing::split(Protocol::Identify.framing(), &mut stream)
    {
        let read = Identify::decode(&body);
        if let Some(expected) = second_opinion(&body) {
            assert_eq!(read.as_ref(), Ok(&expected), "a plain reader sees it otherwise");
        }
        trail.saw(format_args!("message {:?}", read.as_ref().map(|_| ())));
        messages.extend(read.ok());
    }
    trail.saw(format_args!("{} messages", messages.len()));
    let mut whole = Identify::default();
    for message in &messages {
        let mut updated = whole.clone();
        merged(&mut whole, message);
        pushed(&mut updated, message);
    }
    let known = ProtocolSet::from_names(whole.protocols.iter().map(String::as_str));
    trail.saw(format_args!("{:?}", known.iter().map(Protocol::word).collect::<Vec<_>>()));
    trail.saw(format_args!("{:?}", whole.present()));
    trail.saw(format_args!("{} addresses", magnitude(whole.listen_addrs.len())));
    trail.saw(format_args!("{} protocols", magnitude(whole.protocols.len())));
    split(&whole, trail);
}

/// One message by the plain reader: the first of each list up to its limit, the last of each
/// single value, and no text that is none.
fn second_opinion(body: &[u8]) -> Option<Identify> {
    let fields = fields::of(body)?;
    let all = |wanted| fields::all(&fields, wanted);
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
    let single = |wanted| Some(all(wanted)?.last().map(|bytes| Bytes::copy_from_slice(bytes)));
    let single_text = |wanted| Some(all(wanted)?.last().and_then(|bytes| text(bytes)));
    let listen_addrs = all(2)?.into_iter().take(LISTEN_ADDRS_MAX);
    let protocols = all(3)?.into_iter().take(PROTOCOLS_MAX);
    Some(Identify {
        public_key: single(1)?,
        listen_addrs: listen_addrs.map(Bytes::copy_from_slice).collect(),
        protocols: protocols.filter_map(text).collect(),
        observed: single(4)?,
        protocol_version: single_text(5)?,
        agent_version: single_text(6)?,
        signed_peer_record: single(8)?,
        relay_load: single(RELAY_LOAD_TAG)?.and_then(|bytes| load(&bytes)),
    })
}

/// Two bytes, of which a thousand is the most.
fn load(bytes: &[u8]) -> Option<u16> {
    let [high, low] = bytes else { return None };
    Some((u16::from(*high) << 8 | u16::from(*low)).min(1_000))
}

/// Lists grow up to their limits, single values are replaced.
fn merged(whole: &mut Identify, later: &Identify) {
    let before = whole.clone();
    whole.merge(later.clone());
    let mut addrs = [before.listen_addrs, later.listen_addrs.clone()].concat();
    addrs.truncate(LISTEN_ADDRS_MAX);
    let mut protocols = [before.protocols, later.protocols.clone()].concat();
    protocols.truncate(PROTOCOLS_MAX);
    assert_eq!((&whole.listen_addrs, &whole.protocols), (&addrs, &protocols));
    let later = later.clone();
    assert_eq!(whole.public_key, later.public_key.or(before.public_key));
    assert_eq!(whole.observed, later.observed.or(before.observed));
    assert_eq!(whole.protocol_version, later.protocol_version.or(before.protocol_version));
    assert_eq!(whole.agent_version, later.agent_version.or(before.agent_version));
    assert_eq!(whole.signed_peer_record, later.signed_peer_record.or(before.signed_peer_record));
    assert_eq!(whole.relay_load, later.relay_load.or(before.relay_load));
}

/// What a push names is replaced as a whole, what it lacks stays; twice is as good as once.
fn pushed(known: &mut Identify, push: &Identify) {
    let before = known.clone();
    known.update(push.clone());
    let has = push.present();
    let lists = [
        (
            has.listen_addrs,
            known.listen_addrs == push.listen_addrs,
            known.listen_addrs == before.listen_addrs,
        ),
        (has.protocols, known.protocols == push.protocols, known.protocols == before.protocols),
        (
            has.public_key,
            known.public_key == push.public_key,
            known.public_key == before.public_key,
        ),
        (has.observed, known.observed == push.observed, known.observed == before.observed),
    ];
    for (named, replaced, kept) in lists {
        assert!(if named { replaced } else { kept }, "{push:?}");
    }
    let once = known.clone();
    known.update(push.clone());
    assert_eq!(*known, once);
}

/// Split into messages that everybody reads, and joined again, it says the same, but for what is
/// counted as left out.
fn split(whole: &Identify, trail: &mut Trail) {
    let split = whole.encode_split();
    assert!((1..=IDENTIFY_MESSAGES_MAX).contains(&split.messages.len()));
    let mut joined = Identify::default();
    for body in &split.messages {
        assert!(body.len() <= MESSAGE_BYTES_MAX, "{} bytes", body.len());
        joined.merge(Identify::decode(body).expect("our own writing"));
    }
    trail.saw(format_args!("{} messages, left out: {}", split.messages.len(), split.left_out > 0));
    assert_eq!(count(&joined) + split.left_out, count(whole));
    if split.left_out == 0 {
        assert_eq!(joined, *whole);
    }
    assert!(is_part(&joined.listen_addrs, &whole.listen_addrs), "in the same order");
    assert!(is_part(&joined.protocols, &whole.protocols), "in the same order");
}

/// How many values it has.
fn count(identify: &Identify) -> usize {
    let Present {
        public_key, observed, protocol_version, agent_version, signed_peer_record, ..
    } = identify.present();
    let single = [public_key, observed, protocol_version, agent_version, signed_peer_record];
    identify.listen_addrs.len()
        + identify.protocols.len()
        + single.into_iter().filter(|has| *has).count()
}

/// Whether one list is another without some of its entries.
fn is_part<T: PartialEq>(part: &[T], whole: &[T]) -> bool {
    let mut whole = whole.iter();
    part.iter().all(|one| whole.any(|other| other == one))
}
