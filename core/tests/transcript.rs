//! Whatever peers send, a transcript is made of lines: one for each event and action, of bounded
//! length, with nothing in it that a terminal obeys.
//!
//! proptest prints the smallest failing input and its seed.

use bytes::Bytes;
use portolan_core::transcript::{Scribe, ShortNames};
use portolan_core::wire::autonat::Message;
use portolan_core::wire::identify::Identify;
use portolan_core::{Action, Event, Framing, Instant, PeerId, Protocol, Side, StreamId};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// Bytes of the longest line, number: three lists of 32 texts of 128 characters, and some more.
const LINE_MAX: usize = 16 * 1_024;

fn settings(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

fn texts() -> impl Strategy<Value = String> {
    let hostile = proptest::char::ranges(vec!['\0'..='\u{ff}', '\u{2000}'..='\u{206f}'].into());
    let of = |chars| vec(chars, 0..300).prop_map(|chars: Vec<char>| chars.into_iter().collect());
    prop_oneof![of(hostile.boxed()), of(any::<char>().boxed())]
}

/// Any bytes, or a name that is any text, `/dns4/…`.
fn multiaddrs() -> impl Strategy<Value = Bytes> {
    let named = |text: String| {
        let mut bytes = vec![54];
        let mut len = text.len();
        while len >= 0x80 {
            bytes.push(u8::try_from(len & 0x7f).expect("seven bits") | 0x80);
            len >>= 7;
        }
        bytes.push(u8::try_from(len).expect("seven bits"));
        bytes.extend(text.as_bytes());
        Bytes::from(bytes)
    };
    prop_oneof![texts().prop_map(named), vec(any::<u8>(), 0..100).prop_map(Bytes::from)]
}

fn identifies() -> impl Strategy<Value = Bytes> {
    let lists = (vec(multiaddrs(), 0..60), vec(texts(), 0..60));
    let texts = (option::of(texts()), option::of(texts()), option::of(multiaddrs()));
    (lists, texts).prop_map(|((listen_addrs, protocols), (agent, family, observed))| {
        let said = Identify {
            listen_addrs,
            protocols,
            observed,
            agent_version: agent,
            protocol_version: family,
            ..Identify::default()
        };
        said.encode_split().messages.swap_remove(0)
    })
}

fn bodies() -> impl Strategy<Value = Bytes> {
    let request = |addrs| Message::DialRequest { addrs, nonce: 7 }.encode();
    prop_oneof![
        vec(any::<u8>(), 0..300).prop_map(Bytes::from),
        identifies(),
        vec(multiaddrs(), 0..60).prop_map(request),
    ]
}

fn check(line: &str) -> Result<(), TestCaseError> {
    let odd = line.chars().find(|c| !(c.is_ascii_graphic() || matches!(c, ' ' | '…')));
    prop_assert_eq!(odd, None, "{:?}", line);
    prop_assert!(line.len() <= LINE_MAX, "{} bytes: {:?}", line.len(), line);
    Ok(())
}

proptest! {
    #![proptest_config(settings(256))]

    #[test]
    fn a_frame_is_one_line_whatever_is_in_it(body in bodies()) {
        let mut scribe = Scribe::new(ShortNames::new(PeerId::random()), Instant::ZERO);
        for protocol in Protocol::ALL {
            for side in [Side::Inbound, Side::Outbound] {
                let stream = StreamId { side, protocol, number: u64::MAX };
                check(&scribe.event(&Event::Frame { stream, body: body.clone() }))?;
                check(&scribe.action(&Action::Send { stream, body: body.clone() }))?;
            }
        }
    }
}

/// The longest lists of the longest texts that a frame holds.
#[test]
fn the_longest_line_is_within_its_bound() {
    let Framing::Varint { max } = Protocol::Identify.framing() else {
        panic!("identify has messages of any length");
    };
    let mut body = Vec::new();
    // Fields 2 (an address, `/dns4/…`) and 3 (a protocol) of identify, in turn, each of 40 escape
    // characters, which are written with six characters.
    while body.len() + 90 < max {
        body.extend([0x12, 42, 54, 40]);
        body.extend([0x1b; 40]);
        body.extend([0x1a, 40]);
        body.extend([0x1b; 40]);
    }
    let mut scribe = Scribe::new(ShortNames::new(PeerId::random()), Instant::ZERO);
    let stream = StreamId::outbound(Protocol::Identify, 1);
    let line = scribe.event(&Event::Frame { stream, body: Bytes::from(body) });
    let shown = 32 * ((128 - "/dns4/".len()) / 6) + 32 * (128 / 6);
    assert_eq!(line.matches(r"\u{1b}").count(), shown, "{line}");
    assert!(line.len() <= LINE_MAX, "{} bytes", line.len());
}
