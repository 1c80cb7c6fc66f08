//! What the world knows: which connections, streams, dials and nonces there are. It finds the
//! valid names for the next fact, and judges orders.

use super::relays::Circuits;
use super::routers::Ordered;
use bytes::{Bytes, BytesMut};
use portolan_core::wire::autonat::{DialBack, DialStatus, Message, v1};
use portolan_core::wire::framing;
use portolan_core::wire::multiaddr::{self, Decoded};
use portolan_core::{
    Action, Addr, ConnId, Connected, Dial, DialId, Event, ListenerId, Protocol, Side, StreamEnd,
    StreamId,
};
use std::collections::{BTreeMap, BTreeSet};

/// A stream as the runtime sees it.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) conn: ConnId,
    /// Whether we may still send on it.
    pub(super) sends: bool,
    /// Whether it was reset, by either side, or its connection ended.
    pub(super) dead: bool,
    /// What was sent last.
    pub(super) sent: Option<Bytes>,
}

/// What a request with a nonce asked about, and of whom.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) nonce: u64,
    pub(super) addrs: Vec<Addr>,
    pub(super) stream: StreamId,
}

/// All that the world knows.
#[derive(Clone, Debug, Default)]
pub(super) struct Books {
    pub(super) conns: BTreeMap<ConnId, Connected>,
    pub(super) listeners: BTreeMap<ListenerId, Addr>,
    pub(super) streams: BTreeMap<StreamId, Stream>,
    pub(super) dials: BTreeMap<DialId, Dial>,
    pub(super) questions: Vec<Question>,
    pub(super) routers: Ordered,
    pub(super) circuits: Circuits,
    /// Addresses that somebody asked us to dial.
    pub(super) asked_of_us: BTreeSet<Addr>,
    /// Nonces that were handed in.
    pub(super) delivered: BTreeSet<u64>,
    /// How often a server said that it could not dial an address.
    pub(super) dial_errors: usize,
    opened: BTreeSet<StreamId>,
    dialled: BTreeSet<DialId>,
    minted: u64,
}

impl Books {
    /// A number that was never used.
    pub(super) fn mint(&mut self) -> u64 {
        self.minted += 1;
        self.minted
    }

    /// Streams that can still bring something.
    pub(super) fn alive(&self) -> impl DoubleEndedIterator<Item = (StreamId, &Stream)> {
        self.streams.iter().filter(|(_, stream)| !stream.dead).map(|(id, stream)| (*id, stream))
    }

    /// A fact is about to be handed in.
    pub(super) fn happened(&mut self, event: &Event) {
        match event {
            Event::ListenerOpened { listener, addr } => {
                self.listeners.insert(*listener, *addr);
            }
            Event::ListenerClosed { listener } => {
                self.listeners.remove(listener);
            }
            Event::Connected(facts) => {
                if let Some(dial) = facts.dial {
                    self.dials.remove(&dial);
                }
                self.conns.entry(facts.conn).or_insert_with(|| facts.clone());
            }
            Event::DialFailed { dial, .. } => {
                self.dials.remove(dial);
            }
            Event::Disconnected { conn } => {
                self.conns.remove(conn);
                let on = self.streams.values_mut().filter(|stream| stream.conn == *conn);
                on.for_each(|stream| (stream.dead, stream.sends) = (true, false));
            }
            // One of ours that core knows nothing of may be reset, but not used.
            Event::StreamOpened { conn, stream } => {
                let (conn, sends) = (*conn, stream.side == Side::Inbound);
                let fresh = Stream { conn, sends, dead: false, sent: None };
                // A number that comes again, which it never should, is another stream.
                let known = self.streams.entry(*stream).or_insert_with(|| fresh.clone());
                if !known.sends {
                    *known = fresh;
                }
            }
            Event::StreamFailed { stream, .. }
            | Event::StreamClosed { stream, end: StreamEnd::Reset | StreamEnd::BadFrame } => {
                if let Some(stream) = self.streams.get_mut(stream) {
                    (stream.dead, stream.sends) = (true, false);
                }
            }
            Event::Frame { stream, body } => self.brought(*stream, body),
            Event::Mapping(event) => self.routers.happened(event),
            Event::Relay(event) => self.circuits.happened(event),
            _ => {}
        }
    }

    fn brought(&mut self, stream: StreamId, body: &Bytes) {
        if stream.protocol == Protocol::DialBack
            && let Ok(read) = DialBack::decode(body)
        {
            self.delivered.insert(read.nonce);
        }
        // AutoNAT v1: whatever is listed, only where the requester is seen may be dialled.
        if (stream.protocol, stream.side) == (Protocol::AutonatV1, Side::Inbound)
            && let Ok(v1::Message::Dial { addrs, .. }) = v1::Message::decode(body)
            && let Some(conn) = self.streams.get(&stream).and_then(|one| self.conns.get(&one.conn))
        {
            let ip = conn.remote.ip;
            self.asked_of_us.extend(direct(&addrs).map(|addr| Addr { ip, ..addr }));
        }
        if stream.protocol != Protocol::DialRequest {
            return;
        }
        match (stream.side, Message::decode(body)) {
            (Side::Inbound, Ok(Message::DialRequest { addrs, .. })) => {
                self.asked_of_us.extend(direct(&addrs));
            }
            (Side::Outbound, Ok(Message::DialResponse { dial_status, .. })) => {
                self.dial_errors += usize::from(dial_status == DialStatus::DialError);
            }
            _ => {}
        }
    }

    /// An order came out: it must be one that a runtime can perform.
    pub(super) fn ordered(&mut self, action: &Action) {
        match action {
            Action::OpenStream { conn, stream } => {
                assert!(self.conns.contains_key(conn), "{stream} is opened on no connection");
                assert_eq!(stream.side, Side::Outbound);
                assert!(self.opened.insert(*stream), "{stream} is used twice");
                let fresh = Stream { conn: *conn, sends: true, dead: false, sent: None };
                self.streams.insert(*stream, fresh);
            }
            Action::Send { stream, body } => self.sent(*stream, body),
            Action::CloseStream { stream } => {
                let open = self.streams.get_mut(stream).expect("a stream that there is");
                assert!(open.sends, "{stream} is closed, but it is not open");
                open.sends = false;
            }
            Action::ResetStream { stream } => {
                let open = self.streams.get_mut(stream).expect("a stream that there is");
                (open.dead, open.sends) = (true, false);
            }
            Action::Dial(dial) => {
                assert!(self.dialled.insert(dial.dial), "{} is used twice", dial.dial);
                assert!(self.asked_of_us.contains(&dial.addr), "nobody asked for {}", dial.addr);
                assert_ne!(dial.addr.port, 0);
                self.dials.insert(dial.dial, *dial);
            }
            Action::Disconnect { conn } => {
                let known = self.conns.get(conn).expect("a connection that there is");
                assert!(known.dial.is_some(), "core closes only what it had dialled");
            }
            Action::Mapping(action) => self.routers.ordered(action),
            Action::Relay(action) => {
                for stream in self.circuits.ordered(action) {
                    let open = self.streams.get_mut(&stream).expect("a stream that there is");
                    assert!(open.sends, "{stream} is handed over, but it is not open");
                    (open.dead, open.sends) = (true, false);
                }
            }
            Action::Notify(_) => {}
            other => panic!("{other:?} has no law yet"),
        }
    }

    fn sent(&mut self, stream: StreamId, body: &Bytes) {
        let open = self.streams.get_mut(&stream).expect("a stream that there is");
        assert!(open.sends, "{stream} is not open for sending");
        open.sent = Some(body.clone());
        let framed = framing::encode(stream.protocol.framing(), body, &mut BytesMut::new());
        assert_eq!(framed, Ok(()), "{stream} takes no such message");
        if (stream.side, stream.protocol) == (Side::Outbound, Protocol::DialRequest)
            && let Ok(Message::DialRequest { addrs, nonce }) = Message::decode(body)
        {
            let addrs: Vec<Addr> = direct(&addrs).collect();
            assert!(!addrs.is_empty(), "a question about nothing");
            assert!(self.questions.iter().all(|one| one.nonce != nonce), "a nonce for two probes");
            self.questions.push(Question { nonce, addrs, stream });
        }
    }
}

/// The addresses among multiaddrs that can be dialled.
fn direct(multiaddrs: &[Bytes]) -> impl Iterator<Item = Addr> {
    multiaddrs.iter().filter_map(|bytes| match multiaddr::decode(bytes) {
        Ok(Decoded::Direct { addr, .. }) => Some(addr),
        Ok(_) | Err(_) => None,
    })
}
