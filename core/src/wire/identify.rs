//! identify and identify/push: what a peer says about itself.
//!
//! One answer may come in several messages (specs PR 709); they are read one by one and joined
//! with [`Identify::merge`]. A push changes what it names and nothing else:
//! [`Identify::update`].

use super::{DecodeError, read_bytes};
use crate::config::IDENTIFY_MESSAGES_MAX;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use bytes::{Buf, BufMut, Bytes};
use prost::Message as _;
use prost::encoding::{self, DecodeContext, wire_type::WireType};

/// Listen addresses kept of one peer, number; ours: a node with every transport on every
/// interface has some dozens. When full, the rest is ignored, in the order it came.
pub const LISTEN_ADDRS_MAX: usize = 256;

/// Protocol names kept of one peer, number; ours: a busy node has some dozens. When full, the
/// rest is ignored, in the order it came.
pub const PROTOCOLS_MAX: usize = 256;

/// Bytes of the largest message that we send, number; rust-libp2p's read limit.
pub const MESSAGE_BYTES_MAX: usize = 4_096;

/// The field that says how full a peer's relay service is, number; ours, far above what identify
/// §The Identify Message defines. `bytes`: 2, a number in network order, in thousandths of the
/// fuller of the service's limits; what is above 1,000 counts as 1,000. Anything else is read as if
/// it were not there, and whoever does not know the field skips it.
pub const RELAY_LOAD_TAG: u32 = 1_000;

/// The highest load there is, in thousandths.
const RELAY_LOAD_MAX: u16 = 1_000;

/// What a peer says about itself. Whatever it did not say is absent or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identify {
    /// Its public key, in the protobuf encoding of peer-ids §Keys.
    pub public_key: Option<Bytes>,
    /// Where it listens: binary multiaddrs as the peer wrote them; at most [`LISTEN_ADDRS_MAX`].
    pub listen_addrs: Vec<Bytes>,
    /// The protocols that it accepts streams of; at most [`PROTOCOLS_MAX`].
    pub protocols: Vec<String>,
    /// The address that it sees us as: a binary multiaddr as the peer wrote it.
    pub observed: Option<Bytes>,
    /// The protocol family, `ipfs/0.1.0`.
    pub protocol_version: Option<String>,
    /// The software and its version.
    pub agent_version: Option<String>,
    /// A signed envelope with a peer record: see
    /// [`PeerRecord::open`](super::peer_record::PeerRecord::open).
    pub signed_peer_record: Option<Bytes>,
    /// How full its relay service is, in thousandths. Ours ([`RELAY_LOAD_TAG`]).
    pub relay_load: Option<u16>,
}

/// Which fields a message has. A repeated field without entries cannot be told from an absent
/// one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Present {
    /// [`Identify::public_key`].
    pub public_key: bool,
    /// [`Identify::listen_addrs`].
    pub listen_addrs: bool,
    /// [`Identify::protocols`].
    pub protocols: bool,
    /// [`Identify::observed`].
    pub observed: bool,
    /// [`Identify::protocol_version`].
    pub protocol_version: bool,
    /// [`Identify::agent_version`].
    pub agent_version: bool,
    /// [`Identify::signed_peer_record`].
    pub signed_peer_record: bool,
    /// [`Identify::relay_load`].
    pub relay_load: bool,
}

/// An [`Identify`] as messages to send, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// The bodies: between one and [`IDENTIFY_MESSAGES_MAX`], none over [`MESSAGE_BYTES_MAX`].
    pub messages: Vec<Bytes>,
    /// How many values found no place: entries of lists, or single values that are too long.
    pub left_out: usize,
}

impl Identify {
    /// Read the body of one message. Unknown fields are skipped. A text that is not UTF-8 counts
    /// as not said; it does not spoil the rest.
    pub fn decode(body: &Bytes) -> Result<Identify, DecodeError> {
        let wire = Wire::decode(body.clone())?;
        Ok(Identify {
            public_key: wire.public_key,
            listen_addrs: wire.listen_addrs,
            protocols: wire.protocols.iter().filter_map(text).collect(),
            observed: wire.observed,
            protocol_version: wire.protocol_version.as_ref().and_then(text),
            agent_version: wire.agent_version.as_ref().and_then(text),
            signed_peer_record: wire.signed_peer_record,
            relay_load: wire.relay_load.as_deref().and_then(load),
        })
    }

    /// Join the next message of the same answer: lists grow up to their limits, single values
    /// are replaced if it has them. The caller counts messages up to [`IDENTIFY_MESSAGES_MAX`].
    pub fn merge(&mut self, later: Identify) {
        append(&mut self.listen_addrs, later.listen_addrs, LISTEN_ADDRS_MAX);
        append(&mut self.protocols, later.protocols, PROTOCOLS_MAX);
        self.replace_single(Identify { listen_addrs: vec![], protocols: vec![], ..later });
    }

    /// Take in a push (all messages of it, merged): what it has replaces what was said before, a
    /// list as a whole; what it lacks stays.
    pub fn update(&mut self, mut push: Identify) {
        // identify §identify/push: missing fields should be ignored.
        if !push.listen_addrs.is_empty() {
            self.listen_addrs = core::mem::take(&mut push.listen_addrs);
        }
        if !push.protocols.is_empty() {
            self.protocols = core::mem::take(&mut push.protocols);
        }
        self.replace_single(push);
    }

    /// Which fields it has.
    pub fn present(&self) -> Present {
        Present {
            public_key: self.public_key.is_some(),
            listen_addrs: !self.listen_addrs.is_empty(),
            protocols: !self.protocols.is_empty(),
            observed: self.observed.is_some(),
            protocol_version: self.protocol_version.is_some(),
            agent_version: self.agent_version.is_some(),
            signed_peer_record: self.signed_peer_record.is_some(),
            relay_load: self.relay_load.is_some(),
        }
    }

    /// Write it as messages that every deployed peer reads.
    ///
    /// rust-libp2p reads the first message only and does not know the form of signed record that
    /// the others deploy. So single values come first, then protocols, then addresses, and the
    /// record last, wherever there is still room; a message is kept free for it.
    pub fn encode_split(&self) -> Split {
        let record = self.signed_peer_record.as_ref();
        let mut packer = Packer::new(IDENTIFY_MESSAGES_MAX - usize::from(record.is_some()));
        packer.put_all(tag::OBSERVED, self.observed.iter().cloned());
        packer.put_all(tag::PUBLIC_KEY, self.public_key.iter().cloned());
        packer.put_all(tag::PROTOCOL_VERSION, self.protocol_version.iter().map(text_bytes));
        packer.put_all(tag::AGENT_VERSION, self.agent_version.iter().map(text_bytes));
        packer.put_all(RELAY_LOAD_TAG, self.relay_load.iter().map(load_bytes));
        packer.put_all(tag::PROTOCOLS, self.protocols.iter().map(text_bytes));
        packer.put_all(tag::LISTEN_ADDRS, self.listen_addrs.iter().cloned());
        packer.messages_max = IDENTIFY_MESSAGES_MAX;
        packer.put_all(tag::SIGNED_PEER_RECORD, record.into_iter().cloned());
        packer.finish()
    }

    /// Write it as one message, however long: [`Identify::decode`] reads the same back.
    pub(crate) fn encode(&self) -> Bytes {
        let wire = Wire {
            public_key: self.public_key.clone(),
            listen_addrs: self.listen_addrs.clone(),
            protocols: self.protocols.iter().map(text_bytes).collect(),
            observed: self.observed.clone(),
            protocol_version: self.protocol_version.as_ref().map(text_bytes),
            agent_version: self.agent_version.as_ref().map(text_bytes),
            signed_peer_record: self.signed_peer_record.clone(),
            relay_load: self.relay_load.as_ref().map(load_bytes),
        };
        wire.encode_to_vec().into()
    }

    fn replace_single(&mut self, later: Identify) {
        replace(&mut self.public_key, later.public_key);
        replace(&mut self.observed, later.observed);
        replace(&mut self.protocol_version, later.protocol_version);
        replace(&mut self.agent_version, later.agent_version);
        replace(&mut self.signed_peer_record, later.signed_peer_record);
        replace(&mut self.relay_load, later.relay_load);
    }
}

fn append<T>(list: &mut Vec<T>, more: Vec<T>, max: usize) {
    let room = max.saturating_sub(list.len());
    list.extend(more.into_iter().take(room));
}

fn replace<T>(value: &mut Option<T>, later: Option<T>) {
    if later.is_some() {
        *value = later;
    }
}

fn text(bytes: &Bytes) -> Option<String> {
    core::str::from_utf8(bytes).ok().map(String::from)
}

fn text_bytes(text: &String) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn load(bytes: &[u8]) -> Option<u16> {
    let load = bytes.try_into().ok().map(u16::from_be_bytes)?;
    Some(load.min(RELAY_LOAD_MAX))
}

fn load_bytes(load: &u16) -> Bytes {
    Bytes::copy_from_slice(&(*load).min(RELAY_LOAD_MAX).to_be_bytes())
}

/// Fills messages one after the other, so that lists keep their order.
struct Packer {
    done: Vec<Bytes>,
    open: Wire,
    open_bytes: usize,
    messages_max: usize,
    left_out: usize,
}

impl Packer {
    fn new(messages_max: usize) -> Packer {
        Packer { done: vec![], open: Wire::default(), open_bytes: 0, messages_max, left_out: 0 }
    }

    fn put_all(&mut self, tag: u32, values: impl Iterator<Item = Bytes>) {
        for value in values {
            self.put(tag, value);
        }
    }

    fn put(&mut self, tag: u32, value: Bytes) {
        let cost = encoding::bytes::encoded_len(tag, &value);
        if self.open_bytes + cost > MESSAGE_BYTES_MAX {
            let last = self.done.len() + 1 >= self.messages_max;
            if last || cost > MESSAGE_BYTES_MAX {
                self.left_out += 1;
                return;
            }
            self.done.push(self.open.encode_to_vec().into());
            self.open = Wire::default();
            self.open_bytes = 0;
        }
        self.open.set(tag, value);
        self.open_bytes += cost;
    }

    fn finish(mut self) -> Split {
        self.done.push(self.open.encode_to_vec().into());
        Split { messages: self.done, left_out: self.left_out }
    }
}

/// Field numbers: identify §The Identify Message, and the record's as all implementations have it.
mod tag {
    pub(super) const PUBLIC_KEY: u32 = 1;
    pub(super) const LISTEN_ADDRS: u32 = 2;
    pub(super) const PROTOCOLS: u32 = 3;
    pub(super) const OBSERVED: u32 = 4;
    pub(super) const PROTOCOL_VERSION: u32 = 5;
    pub(super) const AGENT_VERSION: u32 = 6;
    pub(super) const SIGNED_PEER_RECORD: u32 = 8;
}

/// The message as protobuf sees it. Every field is length-delimited, and texts stay bytes: one
/// that is not UTF-8 would else spoil the message.
#[derive(Clone, Debug, Default)]
struct Wire {
    public_key: Option<Bytes>,
    listen_addrs: Vec<Bytes>,
    protocols: Vec<Bytes>,
    observed: Option<Bytes>,
    protocol_version: Option<Bytes>,
    agent_version: Option<Bytes>,
    signed_peer_record: Option<Bytes>,
    relay_load: Option<Bytes>,
}

impl Wire {
    /// Add one field; `false` if there is none of that number.
    fn set(&mut self, tag: u32, value: Bytes) -> bool {
        match tag {
            tag::PUBLIC_KEY => self.public_key = Some(value),
            tag::LISTEN_ADDRS => self.listen_addrs.push(value),
            tag::PROTOCOLS => self.protocols.push(value),
            tag::OBSERVED => self.observed = Some(value),
            tag::PROTOCOL_VERSION => self.protocol_version = Some(value),
            tag::AGENT_VERSION => self.agent_version = Some(value),
            tag::SIGNED_PEER_RECORD => self.signed_peer_record = Some(value),
            RELAY_LOAD_TAG => self.relay_load = Some(value),
            _ => return false,
        }
        true
    }

    fn is_full(&self, tag: u32) -> bool {
        match tag {
            tag::LISTEN_ADDRS => self.listen_addrs.len() >= LISTEN_ADDRS_MAX,
            tag::PROTOCOLS => self.protocols.len() >= PROTOCOLS_MAX,
            _ => false,
        }
    }

    /// Every field with its number, in the order of numbers.
    fn fields(&self) -> impl Iterator<Item = (u32, &Bytes)> {
        fn single(tag: u32, value: &Option<Bytes>) -> impl Iterator<Item = (u32, &Bytes)> {
            value.iter().map(move |value| (tag, value))
        }
        single(tag::PUBLIC_KEY, &self.public_key)
            .chain(self.listen_addrs.iter().map(|value| (tag::LISTEN_ADDRS, value)))
            .chain(self.protocols.iter().map(|value| (tag::PROTOCOLS, value)))
            .chain(single(tag::OBSERVED, &self.observed))
            .chain(single(tag::PROTOCOL_VERSION, &self.protocol_version))
            .chain(single(tag::AGENT_VERSION, &self.agent_version))
            .chain(single(tag::SIGNED_PEER_RECORD, &self.signed_peer_record))
            .chain(single(RELAY_LOAD_TAG, &self.relay_load))
    }
}

impl prost::Message for Wire {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        for (tag, value) in self.fields() {
            encoding::bytes::encode(tag, value, buf);
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), prost::DecodeError> {
        match tag {
            1..=6 | tag::SIGNED_PEER_RECORD => {
                let value = read_bytes(wire_type, buf, ctx)?;
                if !self.is_full(tag) {
                    self.set(tag, value);
                }
                Ok(())
            }
            RELAY_LOAD_TAG if wire_type == WireType::LengthDelimited => {
                self.relay_load = Some(read_bytes(wire_type, buf, ctx)?);
                Ok(())
            }
            _ => encoding::skip_field(wire_type, tag, buf, ctx),
        }
    }

    fn encoded_len(&self) -> usize {
        self.fields().map(|(tag, value)| encoding::bytes::encoded_len(tag, value)).sum()
    }

    fn clear(&mut self) {
        *self = Wire::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    fn read(body: &'static [u8]) -> Result<Identify, DecodeError> {
        Identify::decode(&Bytes::from_static(body))
    }

    fn joined(split: &Split) -> Identify {
        let mut whole = Identify::default();
        for message in &split.messages {
            assert!(message.len() <= MESSAGE_BYTES_MAX);
            whole.merge(Identify::decode(message).expect("our own message"));
        }
        whole
    }

    fn large() -> Identify {
        Identify {
            public_key: Some(Bytes::from_static(&[8, 1, 18, 0])),
            listen_addrs: (0..200u8).map(|n| Bytes::from(vec![n; 100])).collect(),
            protocols: (0..100).map(|n| format!("/protocol/{n}")).collect(),
            observed: Some(Bytes::from_static(&[4, 127, 0, 0, 1, 6, 0, 80])),
            protocol_version: Some("ipfs/0.1.0".into()),
            agent_version: Some("portolan/0.1.0".into()),
            signed_peer_record: Some(Bytes::from(vec![7; 4_000])),
            relay_load: Some(7),
        }
    }

    #[test]
    fn every_field_has_its_number() {
        let all =
            read(b"\x0a\x01k\x12\x01a\x12\x01b\x1a\x02/p\x22\x01o\x2a\x01v\x32\x01g\x42\x01r\xc2\x3e\x02\x02\x01");
        let expected = Identify {
            public_key: Some(Bytes::from_static(b"k")),
            listen_addrs: vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")],
            protocols: vec!["/p".into()],
            observed: Some(Bytes::from_static(b"o")),
            protocol_version: Some("v".into()),
            agent_version: Some("g".into()),
            signed_peer_record: Some(Bytes::from_static(b"r")),
            relay_load: Some(513),
        };
        assert_eq!(all.as_ref(), Ok(&expected));
        assert_eq!(
            expected.encode_split().messages,
            [&b"\x0a\x01k\x12\x01a\x12\x01b\x1a\x02/p\x22\x01o\x2a\x01v\x32\x01g\x42\x01r\xc2\x3e\x02\x02\x01"[..]]
        );
    }

    #[test]
    fn absent_is_not_empty() {
        assert_eq!(read(b""), Ok(Identify::default()));
        let empty = read(b"\x22\x00\x32\x00").expect("two empty fields");
        assert_eq!((empty.observed, empty.agent_version), (Some(Bytes::new()), Some("".into())));
        let present = read(b"\x12\x01a\x42\x00").expect("two fields").present();
        let expected =
            Present { listen_addrs: true, signed_peer_record: true, ..Present::default() };
        assert_eq!(present, expected);
    }

    #[test]
    fn unknown_fields_are_skipped() {
        // Number 7 as a varint, 9 as bytes, 15 as fixed32, 1,000 as a group.
        let body = b"\x38\x05\x4a\x02xx\x7d\0\0\0\0\xc3\x3e\x08\x01\xc4\x3e\x1a\x02/p";
        assert_eq!(read(body).map(|identify| identify.protocols), Ok(vec!["/p".into()]));
        assert_eq!(read(b"\x08\x01"), Err(DecodeError::Malformed), "a key that is a number");
        assert_eq!(read(b"\x12\x05ab"), Err(DecodeError::Malformed), "cut short");
    }

    #[test]
    fn a_load_is_two_bytes_and_at_most_all_of_it() {
        let said = |body: &'static [u8]| read(body).expect("well-formed").relay_load;
        assert_eq!(said(b"\xc2\x3e\x02\0\0"), Some(0));
        assert_eq!(said(b"\xc2\x3e\x02\x03\xe8"), Some(1_000));
        assert_eq!(said(b"\xc2\x3e\x02\xff\xff"), Some(1_000), "more than all");
        for other in
            [&b"\xc2\x3e\x01\x01"[..], b"\xc2\x3e\0", b"\xc2\x3e\x03\0\0\0", b"\xc0\x3e\x05"]
        {
            assert_eq!(said(other), None, "{other:?}");
        }
        let mut whole = read(b"\xc2\x3e\x02\0\x05").expect("a message");
        whole.merge(read(b"\x32\x01x").expect("a message"));
        assert_eq!(whole.relay_load, Some(5));
        whole.update(read(b"\xc2\x3e\x02\0\x06").expect("a message"));
        assert_eq!(whole.relay_load, Some(6));
    }

    #[test]
    fn a_text_that_is_none_does_not_spoil_the_rest() {
        let identify =
            read(b"\x1a\x02/a\x1a\x02\xff\xfe\x1a\x02/b\x32\x01\xff").expect("four fields");
        assert_eq!(identify.protocols, ["/a", "/b"]);
        assert_eq!(identify.agent_version, None);
    }

    #[test]
    fn later_messages_add_and_a_push_replaces() {
        let mut whole = read(b"\x12\x01a\x1a\x01p\x32\x01x").expect("a message");
        whole.merge(read(b"\x12\x01b\x32\x01y").expect("a message"));
        assert_eq!(whole.listen_addrs, [&b"a"[..], b"b"]);
        assert_eq!((whole.protocols.len(), whole.agent_version.as_deref()), (1, Some("y")));
        whole.update(read(b"\x12\x01c\x2a\x01v").expect("a message"));
        assert_eq!(whole.listen_addrs, [&b"c"[..]]);
        assert_eq!(whole.protocols, ["p"]);
        assert_eq!(whole.agent_version.as_deref(), Some("y"));
        assert_eq!(whole.protocol_version.as_deref(), Some("v"));
    }

    #[test]
    fn lists_are_bounded_in_one_message_and_in_many() {
        let many = Bytes::from(b"\x12\x00\x1a\x00".repeat(1_000));
        let mut whole = Identify::decode(&many).expect("empty entries");
        assert_eq!((whole.listen_addrs.len(), whole.protocols.len()), (256, 256));
        assert!(whole.listen_addrs.capacity() <= 512);
        whole.merge(whole.clone());
        assert_eq!((whole.listen_addrs.len(), whole.protocols.len()), (256, 256));
    }

    #[test]
    fn what_does_not_fit_in_one_message_takes_several() {
        let split = large().encode_split();
        assert_eq!((split.messages.len(), split.left_out), (7, 0));
        assert_eq!(joined(&split), large());
        // The first message alone says who it is, what it sees and what it speaks.
        let first = Identify::decode(&split.messages[0]).expect("our own message");
        assert_eq!(first.protocols.len(), 100);
        assert!(first.present().observed && first.present().public_key);
        assert_eq!(Identify::default().encode_split().messages, [Bytes::new()]);
    }

    #[test]
    fn what_does_not_fit_at_all_is_counted() {
        let mut identify = large();
        identify.listen_addrs = vec![Bytes::from(vec![1; 1_000]); 40];
        let split = identify.encode_split();
        assert_eq!(split.messages.len(), IDENTIFY_MESSAGES_MAX);
        let arrived = joined(&split);
        assert_eq!(arrived.listen_addrs.len() + split.left_out, 40);
        assert_eq!(arrived.signed_peer_record, identify.signed_peer_record, "its place was kept");

        identify.listen_addrs = vec![Bytes::from(vec![1; 5_000])];
        identify.signed_peer_record = Some(Bytes::from(vec![1; 5_000]));
        identify.agent_version = Some("long ".repeat(1_000));
        let split = identify.encode_split();
        assert_eq!((split.messages.len(), split.left_out), (1, 3));
        let arrived = joined(&split).present();
        assert!(arrived.protocols && !arrived.agent_version && !arrived.signed_peer_record);
    }
}
