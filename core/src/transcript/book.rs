//! Whose a connection is, and which connection a stream runs on.

use crate::words::config::CONNECTIONS_MAX;
use crate::{Action, ConnId, Event, PeerId, RelayAction, RelayEvent, StreamEnd, StreamId};
use alloc::collections::BTreeMap;

/// Streams remembered, number; ours: four for every connection. Memory grows by about 100 bytes
/// each. When full, a new one is not remembered, and its lines name no peer.
const STREAMS_MAX: usize = 4 * CONNECTIONS_MAX;

/// The connections that stand, and the streams on them that are not over.
#[derive(Clone, Debug)]
pub(super) struct Book {
    /// At most [`CONNECTIONS_MAX`]. When full, a new one is not remembered, nor are its streams.
    conns: BTreeMap<ConnId, PeerId>,
    streams: BTreeMap<StreamId, Stream>,
}

#[derive(Clone, Copy, Debug)]
struct Stream {
    conn: ConnId,
    ours_finished: bool,
    theirs_finished: bool,
}

impl Book {
    pub(super) const fn new() -> Book {
        Book { conns: BTreeMap::new(), streams: BTreeMap::new() }
    }

    pub(super) fn peer(&self, conn: ConnId) -> Option<PeerId> {
        self.conns.get(&conn).copied()
    }

    pub(super) fn conn(&self, stream: StreamId) -> Option<ConnId> {
        self.streams.get(&stream).map(|known| known.conn)
    }

    /// Take in a fact.
    pub(super) fn happened(&mut self, event: &Event) {
        match event {
            // An id that is used twice stays what it was, as it does for the agent.
            Event::Connected(facts) if self.conns.len() < CONNECTIONS_MAX => {
                self.conns.entry(facts.conn).or_insert(facts.peer);
            }
            Event::Disconnected { conn } => {
                self.conns.remove(conn);
                self.streams.retain(|_, stream| stream.conn != *conn);
            }
            Event::StreamOpened { conn, stream } => self.begins(*conn, *stream),
            Event::StreamClosed { stream, end: StreamEnd::Finished } => {
                self.finishes(*stream, |known| known.theirs_finished = true);
            }
            Event::StreamFailed { stream, .. }
            | Event::StreamClosed { stream, end: StreamEnd::Reset | StreamEnd::BadFrame } => {
                self.streams.remove(stream);
            }
            Event::Relay(RelayEvent::BridgeEnded { stream, .. }) => {
                self.streams.remove(stream);
            }
            Event::Connected(_)
            | Event::Tick
            | Event::Resumed { .. }
            | Event::ListenerOpened { .. }
            | Event::ListenerClosed { .. }
            | Event::InterfacesChanged { .. }
            | Event::Contacted { .. }
            | Event::Introduced { .. }
            | Event::DialFailed { .. }
            | Event::DialFailureReported { .. }
            | Event::Frame { .. }
            | Event::Observed { .. }
            | Event::ProtocolsListed { .. }
            | Event::Mapping(_)
            | Event::Relay(_)
            | Event::Punch(_) => {}
        }
    }

    /// Take in an order.
    pub(super) fn ordered(&mut self, action: &Action) {
        match action {
            Action::OpenStream { conn, stream } => self.begins(*conn, *stream),
            Action::CloseStream { stream } => {
                self.finishes(*stream, |known| known.ours_finished = true);
            }
            Action::ResetStream { stream } => {
                self.streams.remove(stream);
            }
            // A bridge is known by its first stream until it ends.
            Action::Relay(
                RelayAction::Upgrade { stream, .. } | RelayAction::Bridge { target: stream, .. },
            ) => {
                self.streams.remove(stream);
            }
            Action::Send { .. }
            | Action::Dial(_)
            | Action::Disconnect { .. }
            | Action::Mapping(_)
            | Action::Relay(_)
            | Action::Punch(_)
            | Action::Notify(_) => {}
        }
    }

    /// A stream of a connection that is not known would outlive it.
    fn begins(&mut self, conn: ConnId, stream: StreamId) {
        if self.conns.contains_key(&conn) && self.streams.len() < STREAMS_MAX {
            let fresh = Stream { conn, ours_finished: false, theirs_finished: false };
            self.streams.entry(stream).or_insert(fresh);
        }
    }

    fn finishes(&mut self, stream: StreamId, finish: impl FnOnce(&mut Stream)) {
        if let Some(known) = self.streams.get_mut(&stream) {
            finish(known);
            if known.ours_finished && known.theirs_finished {
                self.streams.remove(&stream);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Addr, Connected, Protocol, Side, StreamFailure};
    use core::net::{IpAddr, Ipv4Addr};

    const STREAM: StreamId = StreamId::outbound(Protocol::Identify, 1);

    fn connected(conn: u64, peer: PeerId) -> Event {
        let addr = Addr::tcp(IpAddr::V4(Ipv4Addr::new(44, 0, 0, 1)), 4001);
        Event::Connected(Connected {
            conn: ConnId(conn),
            peer,
            side: Side::Inbound,
            local: addr,
            remote: addr,
            relayed: false,
            dial: None,
            rtt: None,
        })
    }

    /// A book with connection 1 and our stream on it.
    fn opened() -> (Book, PeerId) {
        let peer = PeerId::random();
        let mut book = Book::new();
        book.happened(&connected(1, peer));
        book.ordered(&Action::OpenStream { conn: ConnId(1), stream: STREAM });
        book.happened(&Event::StreamOpened { conn: ConnId(1), stream: STREAM });
        assert_eq!((book.peer(ConnId(1)), book.conn(STREAM)), (Some(peer), Some(ConnId(1))));
        (book, peer)
    }

    #[test]
    fn a_stream_is_forgotten_when_both_sides_have_finished() {
        let ours = Action::CloseStream { stream: STREAM };
        let theirs = Event::StreamClosed { stream: STREAM, end: StreamEnd::Finished };
        let (mut book, _) = opened();
        book.ordered(&ours);
        assert_eq!(book.streams.len(), 1, "they may still speak");
        book.happened(&theirs);
        assert_eq!(book.streams.len(), 0);
        let (mut book, _) = opened();
        book.happened(&theirs);
        assert_eq!(book.streams.len(), 1, "we may still speak");
        book.ordered(&ours);
        assert_eq!(book.streams.len(), 0);
    }

    #[test]
    fn a_stream_is_forgotten_when_it_fails_or_is_reset() {
        let closed = |end| Event::StreamClosed { stream: STREAM, end };
        let failed = Event::StreamFailed { stream: STREAM, reason: StreamFailure::Unsupported };
        for event in [closed(StreamEnd::Reset), closed(StreamEnd::BadFrame), failed] {
            let (mut book, _) = opened();
            book.happened(&event);
            assert_eq!(book.streams.len(), 0, "{event:?}");
        }
        let (mut book, _) = opened();
        book.ordered(&Action::ResetStream { stream: STREAM });
        assert_eq!(book.streams.len(), 0);
    }

    #[test]
    fn a_connection_takes_its_streams_along_and_no_others() {
        let (mut book, peer) = opened();
        let other = StreamId::inbound(Protocol::Ping, 1);
        book.happened(&connected(2, peer));
        book.happened(&Event::StreamOpened { conn: ConnId(2), stream: other });
        book.happened(&Event::Disconnected { conn: ConnId(1) });
        assert_eq!((book.peer(ConnId(1)), book.conn(STREAM)), (None, None));
        assert_eq!((book.peer(ConnId(2)), book.conn(other)), (Some(peer), Some(ConnId(2))));
        // What was under way when the connection ended is not remembered for ever.
        book.happened(&Event::StreamOpened { conn: ConnId(1), stream: STREAM });
        assert_eq!(book.streams.len(), 1);
    }

    #[test]
    fn an_id_that_is_used_twice_stays_what_it_was() {
        let (mut book, peer) = opened();
        book.happened(&connected(1, PeerId::random()));
        assert_eq!(book.peer(ConnId(1)), Some(peer));
        book.happened(&connected(2, peer));
        book.happened(&Event::StreamOpened { conn: ConnId(2), stream: STREAM });
        assert_eq!(book.conn(STREAM), Some(ConnId(1)));
    }

    #[test]
    fn a_full_book_remembers_what_it_has() {
        let peer = PeerId::random();
        let mut book = Book::new();
        let conns = u64::try_from(CONNECTIONS_MAX).expect("a small number");
        let streams = u64::try_from(STREAMS_MAX).expect("a small number");
        for conn in 1..=conns + 1 {
            book.happened(&connected(conn, peer));
        }
        for number in 1..=streams + 1 {
            let stream = StreamId::inbound(Protocol::Ping, number);
            book.happened(&Event::StreamOpened { conn: ConnId(1), stream });
        }
        assert_eq!((book.conns.len(), book.streams.len()), (CONNECTIONS_MAX, STREAMS_MAX));
        assert_eq!(book.peer(ConnId(conns + 1)), None);
        assert_eq!(book.conn(StreamId::inbound(Protocol::Ping, 1)), Some(ConnId(1)));
        book.happened(&Event::Disconnected { conn: ConnId(1) });
        book.happened(&connected(conns + 2, peer));
        assert_eq!(book.peer(ConnId(conns + 2)), Some(peer), "there is room again");
    }
}
