//! The asking half of ping: a round-trip time where none is known, then a sign of life on the
//! connections that the door wants kept.

use super::{Connection, Life, Peers};
use crate::words::checkpoint::{BadCheckpoint, Loader, Saved, Saver, saved};
use crate::words::config::PING_INTERVAL;
use crate::words::deadline::earliest;
use crate::words::sleep::Sleep;
use crate::{
    Action, ConnId, Cx, Deadline, Duration, Instant, Oddity, PeerId, Protocol, StreamEnd, StreamId,
    Wake,
};
use alloc::vec::Vec;
use bytes::Bytes;

/// How long an echo may take, ours: as long as go-libp2p's stream time-outs are short.
const ECHO_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a vital connection is pinged, ours: with the time-out below, one that died without a word
/// is found within 13 s. Each ping costs some 400 bytes both ways together, 4 MB a day; it grows
/// as this shrinks.
const VITAL_INTERVAL: Duration = Duration::from_secs(8);
/// How long an echo on a vital connection may take, ours: TCP has sent a lost packet again three
/// times by then.
const VITAL_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a connection is pinged that is expected to break, ours: so long nobody notices. It grows
/// as the cost shrinks, 200 bytes a second both ways together.
const WATCHED_INTERVAL: Duration = Duration::from_secs(2);
/// How long an echo on such a connection may take, ours: TCP has sent a lost packet again twice by then,
/// and there is a circuit to go on with.
const WATCHED_TIMEOUT: Duration = Duration::from_secs(4);

/// The least time until an echo is late, seconds; ours: one packet may have been lost, as with the nonce
/// of a dial-back.
const ECHO_GRACE: Duration = Duration::from_secs(2);

/// How soon a connection that was put off gets its turn, ours: after most echoes.
const TURN: Duration = Duration::from_secs(1);

/// Connections pinged in one turn where many are in doubt, number; ours: some 10 KiB with what is around
/// them. When full, the next turn has the rest.
const PINGED_AT_ONCE_MAX: usize = 64;

/// What a connection is worth to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Worth {
    /// No regular ping.
    Nothing,
    /// A ping that keeps it alive.
    Kept,
    /// Pings so often that no NAT on its way forgets it, and that tell when it is dead.
    Bonded(Duration),
    /// Pings that tell soon when it is dead.
    Vital,
    /// Pings that tell at once when it is dead.
    Watched,
}

impl Worth {
    fn interval(self, kept: Duration) -> Option<Duration> {
        match self {
            Worth::Nothing => None,
            Worth::Kept => Some(kept),
            Worth::Bonded(interval) => Some(kept.min(interval)),
            Worth::Vital => Some(kept.min(VITAL_INTERVAL)),
            Worth::Watched => Some(kept.min(WATCHED_INTERVAL)),
        }
    }

    fn timeout(self) -> Duration {
        match self {
            Worth::Nothing | Worth::Kept | Worth::Bonded(_) => ECHO_TIMEOUT,
            Worth::Vital => VITAL_TIMEOUT,
            Worth::Watched => WATCHED_TIMEOUT,
        }
    }

    /// Whether a ping that is not answered says that the connection is dead.
    fn is_telling(self) -> bool {
        match self {
            Worth::Nothing | Worth::Kept => false,
            Worth::Bonded(_) | Worth::Vital | Worth::Watched => true,
        }
    }

    /// How long a connection was silent when its ping is overdue.
    pub(crate) fn silence(self) -> Duration {
        self.interval(Duration::MAX).unwrap_or_default() + self.timeout()
    }
}

/// A ping whose echo has not come.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sent {
    body: Bytes,
    /// When it left; `None` where we slept since, so that its round trip says nothing.
    at: Option<Instant>,
    overdue_at: Instant,
}

/// Where the question "are you there" stands on one connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pinging {
    stream: Option<StreamId>,
    /// What was sent last, until its echo comes.
    sent: Option<Sent>,
    due_at: Option<Instant>,
}

impl Pinging {
    /// For tests of what is refused.
    #[cfg(test)]
    pub(super) fn set_stream(&mut self, stream: StreamId) {
        self.stream = Some(stream);
    }

    /// The stream of a ping that is not over.
    pub(super) fn stream(&self) -> Option<StreamId> {
        self.stream
    }

    pub(super) fn deadline(&self) -> Option<Deadline> {
        let overdue = self.sent.as_ref().map(|sent| sent.overdue_at);
        let due = if self.sent.is_none() { self.due_at } else { None };
        earliest(overdue.map(ping_at), due.map(ping_at))
    }

    pub(super) fn put_off(&mut self, sleep: Sleep) {
        if let Some(sent) = &mut self.sent {
            sleep.put_off(&mut sent.overdue_at);
            sent.at = None;
        }
    }
}

impl Connection {
    /// When the echo that is to dispel a doubt is late: after a few round trips, where we know when it
    /// was asked for.
    fn late_at(&self) -> Option<Instant> {
        let sent = self.pinging.sent.as_ref().filter(|_| self.life == Life::InDoubt)?;
        let patience = (self.rtt.unwrap_or_default() * 4).max(ECHO_GRACE);
        Some(sent.at.map_or(sent.overdue_at, |at| (at + patience).min(sent.overdue_at)))
    }

    /// When it was pinged last, or is to be pinged next.
    pub(crate) fn pinged_at(&self) -> Option<Instant> {
        self.pinging.sent.as_ref().and_then(|sent| sent.at).or(self.pinging.due_at)
    }

    pub(super) fn late_deadline(&self) -> Option<Deadline> {
        self.late_at().map(ping_at)
    }
}

fn ping_at(at: Instant) -> Deadline {
    Deadline::new(at, Wake::Ping)
}

impl Peers {
    pub(super) fn ping(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.ping_within(cx, conn, ECHO_TIMEOUT);
    }

    fn ping_within(&mut self, cx: &mut Cx<'_>, conn: ConnId, timeout: Duration) {
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
        let sent = Sent { body, at: Some(cx.now), overdue_at: cx.now + timeout };
        connection.pinging = Pinging { stream: Some(stream), sent: Some(sent), due_at: None };
    }

    /// Any of these connections may have died: each is pinged, as soon as its turn comes. The echo of
    /// an older ping would say nothing; it may have lain in a buffer all the while.
    pub(super) fn doubt_lives(&mut self, cx: &mut Cx<'_>, which: impl Fn(&Connection) -> bool) {
        let which = |conn: &ConnId| self.get(*conn).is_some_and(&which);
        let doubted: Vec<ConnId> = self.by_worth().into_iter().filter(which).collect();
        for (place, conn) in doubted.into_iter().enumerate() {
            let Some(connection) = self.connections.get_mut(&conn) else { continue };
            if let Some(stream) = connection.pinging.stream {
                self.streams.remove(&stream);
                cx.actions.push(Action::ResetStream { stream });
            }
            let turn = u32::try_from(place / PINGED_AT_ONCE_MAX).unwrap_or(u32::MAX);
            let due_at = Some(cx.now + TURN * turn);
            connection.pinging = Pinging { due_at, ..Pinging::default() };
            connection.life = Life::InDoubt;
        }
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
        let Some(sent) = connection.pinging.sent.take() else {
            return Err(Oddity::UnexpectedFrame);
        };
        if sent.body != body {
            connection.pinging = Pinging::default();
            self.streams.remove(&stream);
            cx.actions.push(Action::ResetStream { stream });
            return Err(Oddity::MalformedFrame);
        }
        // A stream for each ping: rust-libp2p's responder may sleep on a second one over QUIC.
        connection.pinging.stream = None;
        self.streams.remove(&stream);
        cx.actions.push(Action::CloseStream { stream });
        match sent.at {
            None => connection.pinging.due_at = Some(cx.now + PING_INTERVAL),
            Some(at) => {
                let sample = cx.now.since(at);
                // RFC 6298 §2: seven parts old, one part new.
                let smooth = |old: Duration| (old * 7 + sample) / 8;
                connection.rtt = Some(connection.rtt.map_or(sample, smooth));
            }
        }
        self.lives(conn);
        Ok(())
    }

    pub(super) fn ping_closed(
        &mut self,
        cx: &mut Cx<'_>,
        stream: StreamId,
        end: StreamEnd,
    ) -> Result<(), Oddity> {
        let conn = self.streams.remove(&stream).ok_or(Oddity::UnknownStream)?;
        self.touched = true;
        if end == StreamEnd::Finished {
            cx.actions.push(Action::CloseStream { stream });
        }
        let connection = self.connections.get_mut(&conn).ok_or(Oddity::UnknownConnection)?;
        connection.pinging = Pinging::default();
        if connection.is_in_doubt() {
            connection.life = Life::Silent;
            self.revision += 1;
        }
        Ok(())
    }

    /// The peer says that it does not know ping: its connection is alive.
    pub(super) fn ping_unsupported(&mut self, conn: ConnId, stream: StreamId) {
        if self.get(conn).is_some_and(|one| one.pinging.stream == Some(stream)) {
            self.touched = true;
            self.lives(conn);
        }
    }

    /// Whose echo is late is not relied on until it comes.
    pub(super) fn expire_patience(&mut self, now: Instant) {
        for connection in self.connections.values_mut() {
            if connection.late_at().is_some_and(|at| at <= now) {
                connection.life = Life::Late;
                self.revision += 1;
            }
        }
    }

    pub(super) fn advance_pings(
        &mut self,
        cx: &mut Cx<'_>,
        interval: Option<Duration>,
        worth: impl Fn(ConnId, PeerId) -> Worth,
    ) {
        let overdue =
            |sent: &Option<Sent>| sent.as_ref().is_some_and(|sent| sent.overdue_at <= cx.now);
        let mut due = Vec::new();
        for (conn, connection) in &mut self.connections {
            let worth = match interval {
                Some(_) if !connection.relayed => worth(*conn, connection.peer),
                Some(_) | None => Worth::Nothing,
            };
            let wanted = interval.and_then(|interval| worth.interval(interval));
            let pinging = &mut connection.pinging;
            if overdue(&pinging.sent) {
                if let Some(stream) = pinging.stream.take() {
                    self.streams.remove(&stream);
                    cx.actions.push(Action::ResetStream { stream });
                }
                pinging.sent = None;
                if worth.is_telling() || connection.life != Life::Sound {
                    // Of those that were in doubt it was told before.
                    self.revision += u64::from(connection.life == Life::Sound);
                    connection.life = Life::Silent;
                }
                if worth == Worth::Vital {
                    // Whoever was only slow gets another chance, vital or not.
                    pinging.due_at = Some(cx.now + VITAL_INTERVAL);
                }
            }
            if let (true, Some(interval), Some(at)) =
                (worth.is_telling(), wanted, &mut pinging.due_at)
            {
                // It may have been less worth when this was decided.
                *at = (*at).min(cx.now + interval);
            }
            let in_doubt = connection.life != Life::Sound;
            match (wanted, pinging.due_at) {
                // One that was put off still lacks its round-trip time, or is in doubt.
                (None, Some(at)) if connection.rtt.is_none() || in_doubt => {
                    if at <= cx.now && pinging.sent.is_none() {
                        due.push((*conn, worth));
                    }
                }
                (None, _) => pinging.due_at = None,
                (Some(interval), None) if pinging.sent.is_none() => {
                    pinging.due_at = Some(cx.now + interval);
                }
                (Some(_), Some(at)) if at <= cx.now && pinging.sent.is_none() => {
                    due.push((*conn, worth));
                }
                (Some(_), _) => {}
            }
        }
        for (conn, worth) in due {
            self.ping_within(cx, conn, worth.timeout());
        }
    }
}

saved!(struct Pinging { stream, sent, due_at });

impl Saved for Sent {
    fn save(&self, out: &mut Saver<'_>) {
        let Sent { body, at, overdue_at } = self;
        masked(body, out).save(out);
        at.save(out);
        overdue_at.save(out);
    }

    fn load(from: &mut Loader<'_>) -> Result<Sent, BadCheckpoint> {
        let (body, at, overdue_at) = Saved::load(from)?;
        Ok(Sent { body, at, overdue_at })
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
