//! The asking half of identify, and what peers push.
//!
//! A message counts the moment it arrives; closing the stream adds nothing. Later messages of
//! one answer are merged (up to ten), and a push overrides only what it carries.

use super::{Connection, Heard, Peers};
use crate::wire::identify::Identify;
use crate::wire::multiaddr::{self, Decoded};
use crate::wire::peer_record::PeerRecord;
use crate::words::config::IDENTIFY_MESSAGES_MAX;
use crate::{
    Action, Addr, ConnId, Cx, Deadline, Duration, Instant, Notice, Oddity, Protocol, ProtocolSet,
    PublicKey, StreamEnd, StreamId, Wake,
};
use bytes::Bytes;

/// How long a peer may take to answer identify, ours: as long as a whole TCP handshake may.
const IDENTIFY_TIMEOUT: Duration = Duration::from_secs(10);

/// Where our question stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asking {
    /// Not asked (the embedder runs identify, or the question is over).
    Idle,
    /// Asked; nothing came yet.
    Asked { stream: StreamId, overdue_at: Instant },
    /// The first message came; more of the same answer may follow.
    Answering { stream: StreamId, merged: Identify, messages: usize, overdue_at: Instant },
}

/// A push that is coming in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Push {
    merged: Identify,
    messages: usize,
}

/// What an identify taught us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Learnt {
    pub(crate) observed: Option<Addr>,
    pub(crate) protocols: ProtocolSet,
    /// Part of it was wrong and left out.
    pub(crate) oddity: Option<Oddity>,
}

impl Asking {
    pub(super) fn deadline(&self) -> Option<Deadline> {
        match self {
            Asking::Asked { overdue_at, .. } | Asking::Answering { overdue_at, .. } => {
                Some(Deadline::new(*overdue_at, Wake::IdentifyOverdue))
            }
            Asking::Idle => None,
        }
    }
}

impl Peers {
    pub(super) fn ask_identify(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let stream = self.mint(conn, Protocol::Identify);
        cx.actions.push(Action::OpenStream { conn, stream });
        if let Some(connection) = self.connections.get_mut(&conn) {
            let overdue_at = cx.now + IDENTIFY_TIMEOUT;
            connection.asking = Asking::Asked { stream, overdue_at };
        }
    }

    pub(super) fn identify_frame(
        &mut self,
        cx: &mut Cx<'_>,
        stream: StreamId,
        body: &Bytes,
    ) -> Heard {
        let conn = *self.asked.get(&stream).ok_or(Oddity::UnknownStream)?;
        let connection = self.connections.get_mut(&conn).ok_or(Oddity::UnknownConnection)?;
        let Ok(message) = Identify::decode(body) else {
            self.end_question(cx, stream);
            return Err(Oddity::MalformedFrame);
        };
        let (merged, messages) = match core::mem::replace(&mut connection.asking, Asking::Idle) {
            Asking::Answering { mut merged, messages, .. } => {
                merged.merge(message);
                (merged, messages + 1)
            }
            Asking::Idle | Asking::Asked { .. } => (message, 1),
        };
        let learnt = connection.learn(&merged);
        connection.protocols = learnt.protocols;
        self.revision += 1;
        if messages < IDENTIFY_MESSAGES_MAX {
            let overdue_at = cx.now + IDENTIFY_TIMEOUT;
            connection.asking = Asking::Answering { stream, merged, messages, overdue_at };
        } else {
            self.end_question(cx, stream);
        }
        Ok(Some((conn, learnt)))
    }

    pub(super) fn identify_closed(
        &mut self,
        cx: &mut Cx<'_>,
        stream: StreamId,
        end: StreamEnd,
    ) -> Result<(), Oddity> {
        let conn = self.asked.remove(&stream).ok_or(Oddity::UnknownStream)?;
        if end == StreamEnd::Finished {
            cx.actions.push(Action::CloseStream { stream });
        }
        let connection = self.connections.get_mut(&conn).ok_or(Oddity::UnknownConnection)?;
        connection.end_asking(cx, conn);
        self.revision += 1;
        Ok(())
    }

    pub(super) fn expire_identify(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now;
        let overdue = |connection: &Connection| match &connection.asking {
            Asking::Asked { stream, overdue_at } | Asking::Answering { stream, overdue_at, .. } => {
                (*overdue_at <= now).then_some(*stream)
            }
            Asking::Idle => None,
        };
        while let Some(stream) = self.connections.values().find_map(overdue) {
            self.end_question(cx, stream);
        }
    }

    fn end_question(&mut self, cx: &mut Cx<'_>, stream: StreamId) {
        cx.actions.push(Action::ResetStream { stream });
        let Some(conn) = self.asked.remove(&stream) else {
            return;
        };
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.end_asking(cx, conn);
            self.revision += 1;
        }
    }

    /// A peer opened a push stream.
    pub(crate) fn push_opened(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        stream: StreamId,
    ) -> Result<(), Oddity> {
        let connection = self.connections.get_mut(&conn).ok_or(Oddity::UnknownConnection)?;
        // A newer push replaces one that never ended; its sender has better news.
        if let Some((older, _)) = connection.push.replace((stream, Push::default())) {
            cx.actions.push(Action::ResetStream { stream: older });
        }
        Ok(())
    }

    pub(super) fn push_frame(&mut self, cx: &mut Cx<'_>, stream: StreamId, body: &Bytes) -> Heard {
        let found = self.connections.iter_mut().find_map(|(conn, connection)| {
            let mine = connection.push.as_ref().is_some_and(|(of, _)| *of == stream);
            mine.then_some((*conn, connection))
        });
        let (conn, connection) = found.ok_or(Oddity::UnknownStream)?;
        let Some((_, push)) = connection.push.as_mut() else {
            return Err(Oddity::UnknownStream);
        };
        let message = Identify::decode(body);
        push.messages += 1;
        if message.is_err() || push.messages > IDENTIFY_MESSAGES_MAX {
            connection.push = None;
            cx.actions.push(Action::ResetStream { stream });
            return Err(message.err().map_or(Oddity::UnexpectedFrame, |_| Oddity::MalformedFrame));
        }
        if let Ok(message) = message {
            push.merged.merge(message);
        }
        let merged = push.merged.clone();
        let learnt = connection.learn(&merged);
        connection.protocols = learnt.protocols;
        self.revision += 1;
        Ok(Some((conn, learnt)))
    }

    pub(super) fn push_closed(&mut self, cx: &mut Cx<'_>, stream: StreamId) -> Result<(), Oddity> {
        let mut connections = self.connections.values_mut();
        let connection = connections
            .find(|connection| connection.push.as_ref().is_some_and(|(of, _)| *of == stream))
            .ok_or(Oddity::UnknownStream)?;
        connection.push = None;
        cx.actions.push(Action::CloseStream { stream });
        Ok(())
    }
}

impl Connection {
    /// The question is over, for better or worse.
    pub(super) fn end_asking(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        if self.is_asking() {
            let peer = self.peer;
            cx.actions.notify(Notice::NotIdentified { conn, peer });
        }
        self.asking = Asking::Idle;
    }

    /// identify §identify/push: fields that are absent keep what is known.
    fn learn(&mut self, identify: &Identify) -> Learnt {
        let mut oddity = None;
        if let Some(key) = &identify.public_key
            && !belongs(key, self)
        {
            oddity = Some(Oddity::ForeignKey);
        }
        if let Some(envelope) = &identify.signed_peer_record {
            oddity = self.certify(envelope).err().or(oddity);
        }
        let observed =
            identify.observed.as_ref().and_then(|bytes| match multiaddr::decode(bytes) {
                Ok(Decoded::Direct { addr, .. }) => Some(addr),
                Ok(Decoded::Relayed | Decoded::Other) | Err(_) => None,
            });
        let protocols = if identify.protocols.is_empty() {
            self.protocols
        } else {
            ProtocolSet::from_names(identify.protocols.iter().map(alloc::string::String::as_str))
        };
        Learnt { observed, protocols, oddity }
    }

    /// RFC 0003: the record must verify, be the peer's own, and be newer than the last one.
    fn certify(&mut self, envelope: &Bytes) -> Result<(), Oddity> {
        let record = PeerRecord::open(envelope).map_err(|_| Oddity::BadPeerRecord)?;
        if record.peer_id != self.peer {
            return Err(Oddity::BadPeerRecord);
        }
        // The same record comes again with each merged message or push; an older one is a replay.
        // RFC 0003 MUST: a record that is not newer changes nothing.
        match self.record_seq {
            Some(last) if record.seq < last => Err(Oddity::BadPeerRecord),
            Some(last) if record.seq == last => Ok(()),
            Some(_) | None => {
                self.record_seq = Some(record.seq);
                Ok(())
            }
        }
    }
}

fn belongs(key: &Bytes, connection: &Connection) -> bool {
    PublicKey::try_decode_protobuf(key).is_ok_and(|key| key.to_peer_id() == connection.peer)
}
