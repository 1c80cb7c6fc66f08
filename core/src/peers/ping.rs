//! The asking half of ping: a round-trip time where none is known, then a sign of life on the
//! connections that the door wants kept.

use super::Peers;
use crate::words::checkpoint::{BadCheckpoint, Loader, Saved, Saver};
use crate::words::deadline::earliest;
use crate::{
    Action, ConnId, Cx, Deadline, Duration, Instant, Oddity, PeerId, Protocol, StreamId, Wake,
};
use alloc::vec::Vec;
use bytes::Bytes;

/// How long an echo may take, ours: as long as go-libp2p's stream time-outs are short.
const ECHO_TIMEOUT: Duration = Duration::from_secs(10);

/// How soon a connection that was put off gets its turn, ours: after most echoes.
const TURN: Duration = Duration::from_secs(1);

/// Where the question "are you there" stands on one connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pinging {
    stream: Option<StreamId>,
    /// What was sent last and when, until its echo comes.
    sent: Option<(Bytes, Instant)>,
    due_at: Option<Instant>,
}

impl Pinging {
    /// The stream of a ping that is not over.
    pub(super) fn stream(&self) -> Option<StreamId> {
        self.stream
    }

    pub(super) fn deadline(&self) -> Option<Deadline> {
        let overdue = self.sent.as_ref().map(|(_, at)| *at + ECHO_TIMEOUT);
        let due = if self.sent.is_none() { self.due_at } else { None };
        earliest(overdue.map(ping_at), due.map(ping_at))
    }
}

fn ping_at(at: Instant) -> Deadline {
    Deadline::new(at, Wake::Ping)
}

impl Peers {
    pub(super) fn ping(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.touched = true;
        let Some(connection) = self.connections.get(&conn) else {
            return;
        };
        // ping §Protocol: MUST NOT keep more than one outbound ping stream to a peer.
        let of_peer = self.connections.values().filter(|one| one.peer == connection.peer);
        if of_peer.map(|one| one.pinging.stream).any(|stream| stream.is_some()) {
            return self.put_off(cx, conn);
        }
        let stream = self.mint(conn, Protocol::Ping);
        cx.actions.push(Action::OpenStream { conn, stream });
        let Some(connection) = self.connections.get_mut(&conn) else {
            return;
        };
        let mut body = [0; 32];
        for word in body.chunks_exact_mut(8) {
            word.copy_from_slice(&cx.draw.nonce().to_le_bytes());
        }
        let body = Bytes::copy_from_slice(&body);
        cx.actions.push(Action::Send { stream, body: body.clone() });
        connection.pinging =
            Pinging { stream: Some(stream), sent: Some((body, cx.now)), due_at: None };
    }

    /// Another connection to the same peer is being pinged: this one's turn comes next.
    fn put_off(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.pinging.due_at = Some(cx.now + TURN);
        }
    }

    pub(super) fn echoed(
        &mut self,
        cx: &mut Cx<'_>,
        stream: StreamId,
        body: &Bytes,
    ) -> Result<(), Oddity> {
        let conn = *self.streams.get(&stream).ok_or(Oddity::UnknownStream)?;
        self.touched = true;
        let connection = self.connections.get_mut(&conn).ok_or(Oddity::UnknownConnection)?;
        let Some((sent, at)) = connection.pinging.sent.take() else {
            return Err(Oddity::UnexpectedFrame);
        };
        if sent != body {
            connection.pinging = Pinging::default();
            self.streams.remove(&stream);
            cx.actions.push(Action::ResetStream { stream });
            return Err(Oddity::MalformedFrame);
        }
        // A stream for each ping: rust-libp2p's responder may sleep on a second one over QUIC.
        connection.pinging.stream = None;
        self.streams.remove(&stream);
        cx.actions.push(Action::CloseStream { stream });
        let sample = cx.now.since(at);
        // RFC 6298 §2: seven parts old, one part new.
        let smooth = |old: Duration| (old * 7 + sample) / 8;
        connection.rtt = Some(connection.rtt.map_or(sample, smooth));
        Ok(())
    }

    pub(super) fn ping_closed(&mut self, cx: &mut Cx<'_>, stream: StreamId) -> Result<(), Oddity> {
        let conn = self.streams.remove(&stream).ok_or(Oddity::UnknownStream)?;
        self.touched = true;
        cx.actions.push(Action::CloseStream { stream });
        let connection = self.connections.get_mut(&conn).ok_or(Oddity::UnknownConnection)?;
        connection.pinging = Pinging::default();
        Ok(())
    }

    pub(super) fn advance_pings(
        &mut self,
        cx: &mut Cx<'_>,
        interval: Option<Duration>,
        keeps: impl Fn(PeerId) -> bool,
    ) {
        let overdue = |sent: &Option<(Bytes, Instant)>| {
            sent.as_ref().is_some_and(|(_, at)| *at + ECHO_TIMEOUT <= cx.now)
        };
        let mut due = Vec::new();
        for (conn, connection) in &mut self.connections {
            let wanted = interval.filter(|_| !connection.relayed && keeps(connection.peer));
            let pinging = &mut connection.pinging;
            if overdue(&pinging.sent) {
                if let Some(stream) = pinging.stream.take() {
                    self.streams.remove(&stream);
                    cx.actions.push(Action::ResetStream { stream });
                }
                pinging.sent = None;
            }
            match (wanted, pinging.due_at) {
                // One that was put off still lacks its round-trip time.
                (None, Some(at)) if connection.rtt.is_none() => {
                    if at <= cx.now && pinging.sent.is_none() {
                        due.push(*conn);
                    }
                }
                (None, _) => pinging.due_at = None,
                (Some(interval), None) if pinging.sent.is_none() => {
                    pinging.due_at = Some(cx.now + interval);
                }
                (Some(_), Some(at)) if at <= cx.now && pinging.sent.is_none() => due.push(*conn),
                (Some(_), _) => {}
            }
        }
        for conn in due {
            self.ping(cx, conn);
        }
    }
}

impl Saved for Pinging {
    fn save(&self, out: &mut Saver<'_>) {
        let Pinging { stream, sent, due_at } = self;
        let mask = |(body, at): &(Bytes, Instant)| (masked(body, out), *at);
        let sent = sent.as_ref().map(mask);
        stream.save(out);
        sent.save(out);
        due_at.save(out);
    }

    fn load(from: &mut Loader<'_>) -> Result<Pinging, BadCheckpoint> {
        let (stream, sent, due_at) = Saved::load(from)?;
        Ok(Pinging { stream, sent, due_at })
    }
}

/// A body of ours with the four words that were drawn for it masked.
fn masked(body: &Bytes, out: &Saver<'_>) -> Bytes {
    let mut bytes = body.to_vec();
    for word in bytes.as_chunks_mut().0 {
        *word = out.masked(u64::from_le_bytes(*word)).to_le_bytes();
    }
    bytes.into()
}
