//! The asking half of identify, and what peers push.
//!
//! A message counts the moment it arrives; closing the stream adds nothing. Later messages of
//! one answer are merged (up to ten), and a push overrides only what it carries.

use super::{Connection, Heard, Life, Peers};
use crate::wire::identify::Identify;
use crate::wire::multiaddr;
use crate::wire::peer_record::PeerRecord;
use crate::words::checkpoint::saved;
use crate::words::config::IDENTIFY_MESSAGES_MAX;
use crate::words::sleep::Sleep;
use crate::{
    Action, Addr, ConnId, Cx, Deadline, Duration, Instant, Notice, Oddity, PeerId, Protocol,
    ProtocolSet, PublicKey, Side, StreamEnd, StreamId, Wake,
};
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;

/// How long a peer may take to answer identify, ours: as long as a whole TCP handshake may.
const IDENTIFY_TIMEOUT: Duration = Duration::from_secs(10);
/// How soon a question that brought nothing is asked again, ours: as soon as a server that failed.
/// A lost answer would otherwise leave a server unknown for as long as its connection lasts.
const IDENTIFY_PAUSE: Duration = Duration::from_secs(30);
/// How often that pause doubles, ours: up to eight minutes, a stream of some 100 bytes each time.
const IDENTIFY_PAUSES_DOUBLED_MAX: u32 = 4;
/// Peers asked again after a long sleep, number; ours: half the networks that vote. Bursts of
/// traffic grow with it, by some 2 KiB each. When full, the others keep the vote they cast.
const ASKED_AGAIN_MAX: usize = 64;

/// Characters told of what a peer calls its software, number; ours: those in use have some thirty. When
/// full, the rest is cut off.
const AGENT_CHARS_MAX: usize = 128;

/// Where our question stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asking {
    /// Not asked (the embedder runs identify, or the question is over).
    Idle,
    /// Asked; nothing came yet. `before`: how often it had its chance, so that silence is no news.
    Asked { stream: StreamId, before: u32, overdue_at: Instant },
    /// The first message came; more of the same answer may follow.
    Answering { stream: StreamId, said: Said, overdue_at: Instant },
    /// Nothing came, `times` so far; asked again at `again_at`.
    Resting { times: u32, again_at: Instant },
}

/// What the messages of one answer or push have said so far: later ones add to a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    protocols: Option<ProtocolSet>,
    messages: usize,
}

/// What an identify taught us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Learnt {
    pub(crate) observed: Option<Addr>,
    pub(crate) protocols: ProtocolSet,
    /// Part of it was wrong and left out.
    pub(crate) oddity: Option<Oddity>,
    /// Binary multiaddrs where the peer says it listens, if it said so.
    pub(crate) listed: Vec<Bytes>,
    /// What software the peer says it is, if it said so.
    pub(crate) agent: Option<String>,
}

/// What a question that ends brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing: the answer was lost or is late, and the peer may be asked again.
    Nothing,
    /// An answer, be it a wrong one: asking again would bring the same.
    Answer,
}

impl Asking {
    pub(super) fn deadline(&self) -> Option<Deadline> {
        match self {
            Asking::Asked { overdue_at, .. } | Asking::Answering { overdue_at, .. } => {
                Some(Deadline::new(*overdue_at, Wake::IdentifyOverdue))
            }
            Asking::Resting { again_at, .. } => Some(Deadline::new(*again_at, Wake::IdentifyAgain)),
            Asking::Idle => None,
        }
    }

    /// The stream of a question that is not over.
    pub(super) fn stream(&self) -> Option<StreamId> {
        match self {
            Asking::Asked { stream, .. } | Asking::Answering { stream, .. } => Some(*stream),
            Asking::Idle | Asking::Resting { .. } => None,
        }
    }

    pub(super) fn put_off(&mut self, sleep: Sleep) {
        match self {
            Asking::Asked { overdue_at: at, .. }
            | Asking::Answering { overdue_at: at, .. }
            | Asking::Resting { again_at: at, .. } => sleep.put_off(at),
            Asking::Idle => {}
        }
    }

    /// How often the peer was asked in vain.
    fn before(&self) -> u32 {
        match self {
            Asking::Asked { before, .. } => *before,
            Asking::Resting { times, .. } => *times,
            Asking::Idle | Asking::Answering { .. } => 0,
        }
    }
}

impl Peers {
    /// Ask a peer that has had its chance `before`, number of times.
    pub(super) fn ask_identify(&mut self, cx: &mut Cx<'_>, conn: ConnId, before: u32) {
        let stream = self.mint(conn, Protocol::Identify);
        cx.actions.push(Action::OpenStream { conn, stream });
        if let Some(connection) = self.connections.get_mut(&conn) {
            let overdue_at = cx.now + IDENTIFY_TIMEOUT;
            connection.asking = Asking::Asked { stream, before, overdue_at };
        }
    }

    /// Give up what was asked again before these connections came into doubt: an answer may have lain in
    /// a buffer all the while, and is no sign of life.
    pub(super) fn doubt_questions(&mut self, cx: &mut Cx<'_>, which: impl Fn(&Connection) -> bool) {
        let again = |one: &Connection| match one.asking {
            Asking::Asked { stream, before: 1.., .. } => Some(stream).filter(|_| which(one)),
            Asking::Idle | Asking::Asked { .. } | Asking::Answering { .. } => None,
            Asking::Resting { .. } => None,
        };
        let stale: Vec<StreamId> = self.connections.values().filter_map(again).collect();
        for stream in stale {
            self.end_question(cx, stream, Outcome::Nothing);
        }
    }

    /// Ask again where they see us those peers whose word is a vote. A peer that came in would only
    /// name once more what it dialled then.
    pub(super) fn ask_again(&mut self, cx: &mut Cx<'_>, which: impl Fn(&Connection) -> bool) {
        let votes = |conn: &ConnId| {
            self.get(*conn).is_some_and(|one| {
                one.side == Side::Outbound && one.asking.stream().is_none() && which(one)
            })
        };
        let conns: Vec<ConnId> =
            self.by_worth().into_iter().filter(votes).take(ASKED_AGAIN_MAX).collect();
        for conn in conns {
            let before = self.get(conn).map_or(0, |one| one.asking.before());
            self.ask_identify(cx, conn, before.max(1));
        }
    }

    pub(super) fn identify_frame(
        &mut self,
        cx: &mut Cx<'_>,
        stream: StreamId,
        body: &Bytes,
    ) -> Heard {
        let conn = *self.streams.get(&stream).ok_or(Oddity::UnknownStream)?;
        let connection = self.connections.get_mut(&conn).ok_or(Oddity::UnknownConnection)?;
        let Ok(message) = Identify::decode(body) else {
            self.end_question(cx, stream, Outcome::Answer);
            return Err(Oddity::MalformedFrame);
        };
        if matches!(connection.asking, Asking::Asked { before: 1.., .. }) {
            // Asked since it is in doubt, so that this was no answer in a buffer.
            connection.life = Life::Sound;
        }
        let mut said = match connection.asking {
            Asking::Answering { said, .. } => said,
            Asking::Idle | Asking::Asked { .. } | Asking::Resting { .. } => Said::default(),
        };
        let learnt = connection.learn(&message, &mut said);
        let overdue_at = cx.now + IDENTIFY_TIMEOUT;
        connection.asking = Asking::Answering { stream, said, overdue_at };
        self.share_record_seq(conn);
        self.touch();
        if said.messages >= IDENTIFY_MESSAGES_MAX {
            self.end_question(cx, stream, Outcome::Answer);
        }
        Ok(Some((conn, learnt)))
    }

    pub(super) fn identify_closed(
        &mut self,
        cx: &mut Cx<'_>,
        stream: StreamId,
        end: StreamEnd,
    ) -> Result<(), Oddity> {
        let conn = self.streams.remove(&stream).ok_or(Oddity::UnknownStream)?;
        if end == StreamEnd::Finished {
            cx.actions.push(Action::CloseStream { stream });
        }
        let connection = self.connections.get_mut(&conn).ok_or(Oddity::UnknownConnection)?;
        let outcome = match end {
            StreamEnd::Finished | StreamEnd::Reset => Outcome::Nothing,
            StreamEnd::BadFrame => Outcome::Answer,
        };
        connection.end_asking(cx, conn, outcome);
        self.touch();
        Ok(())
    }

    /// The peer says that it does not know identify: it is not asked again.
    pub(super) fn identify_unsupported(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.end_asking(cx, conn, Outcome::Answer);
            self.touch();
        }
    }

    pub(super) fn expire_identify(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now;
        let overdue = |connection: &Connection| match &connection.asking {
            Asking::Asked { stream, overdue_at, .. }
            | Asking::Answering { stream, overdue_at, .. } => {
                (*overdue_at <= now).then_some(*stream)
            }
            Asking::Idle | Asking::Resting { .. } => None,
        };
        while let Some(stream) = self.connections.values().find_map(overdue) {
            self.end_question(cx, stream, Outcome::Nothing);
        }
        let rested = |(conn, one): (&ConnId, &Connection)| match one.asking {
            Asking::Resting { times, again_at } => (again_at <= now).then_some((*conn, times)),
            Asking::Idle | Asking::Asked { .. } | Asking::Answering { .. } => None,
        };
        let due: Vec<(ConnId, u32)> = self.connections.iter().filter_map(rested).collect();
        for (conn, times) in due {
            self.ask_identify(cx, conn, times);
        }
    }

    fn end_question(&mut self, cx: &mut Cx<'_>, stream: StreamId, outcome: Outcome) {
        cx.actions.push(Action::ResetStream { stream });
        let Some(conn) = self.streams.remove(&stream) else {
            return;
        };
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.end_asking(cx, conn, outcome);
            self.touch();
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
        if let Some((older, _)) = connection.push.replace((stream, Said::default())) {
            self.streams.remove(&older);
            cx.actions.push(Action::ResetStream { stream: older });
        }
        self.streams.insert(stream, conn);
        Ok(())
    }

    pub(super) fn push_frame(&mut self, cx: &mut Cx<'_>, stream: StreamId, body: &Bytes) -> Heard {
        let conn = *self.streams.get(&stream).ok_or(Oddity::UnknownStream)?;
        let connection = self.connections.get_mut(&conn).ok_or(Oddity::UnknownConnection)?;
        let mut said = connection.push.map_or(Said::default(), |(_, said)| said);
        let oddity = match Identify::decode(body) {
            Ok(message) if said.messages < IDENTIFY_MESSAGES_MAX => {
                let learnt = connection.learn(&message, &mut said);
                connection.push = Some((stream, said));
                self.share_record_seq(conn);
                self.touch();
                return Ok(Some((conn, learnt)));
            }
            Ok(_) => Oddity::UnexpectedFrame,
            Err(_) => Oddity::MalformedFrame,
        };
        connection.push = None;
        self.streams.remove(&stream);
        cx.actions.push(Action::ResetStream { stream });
        Err(oddity)
    }

    /// The number of the latest record of this peer, on whatever connection it came.
    pub(super) fn record_seq(&self, peer: PeerId) -> Option<u64> {
        let of_peer = self.connections.values().filter(|one| one.peer == peer);
        of_peer.filter_map(|one| one.record_seq).max()
    }

    /// RFC 0003: the latest number counts for the peer, not for one of its connections.
    fn share_record_seq(&mut self, conn: ConnId) {
        let Some(Connection { peer, record_seq, .. }) = self.connections.get(&conn) else {
            return;
        };
        let (peer, latest) = (*peer, *record_seq);
        for one in self.connections.values_mut().filter(|one| one.peer == peer) {
            one.record_seq = latest;
        }
    }

    pub(super) fn push_closed(
        &mut self,
        cx: &mut Cx<'_>,
        stream: StreamId,
        end: StreamEnd,
    ) -> Result<(), Oddity> {
        let conn = self.streams.remove(&stream).ok_or(Oddity::UnknownStream)?;
        let connection = self.connections.get_mut(&conn).ok_or(Oddity::UnknownConnection)?;
        connection.push = None;
        if end == StreamEnd::Finished {
            cx.actions.push(Action::CloseStream { stream });
        }
        Ok(())
    }
}

impl Connection {
    /// The question is over, for better or worse.
    pub(super) fn end_asking(&mut self, cx: &mut Cx<'_>, conn: ConnId, outcome: Outcome) {
        if self.is_asking() {
            let peer = self.peer;
            cx.actions.notify(Notice::NotIdentified { conn, peer });
        }
        self.asking = match self.asking {
            Asking::Asked { before, .. } if outcome == Outcome::Nothing => {
                let pause = IDENTIFY_PAUSE * (1 << before.min(IDENTIFY_PAUSES_DOUBLED_MAX));
                Asking::Resting { times: before.saturating_add(1), again_at: cx.now + pause }
            }
            Asking::Asked { .. } | Asking::Answering { .. } => Asking::Idle,
            Asking::Resting { .. } | Asking::Idle => Asking::Idle,
        };
    }

    /// identify §identify/push: fields that are absent keep what is known.
    fn learn(&mut self, identify: &Identify, said: &mut Said) -> Learnt {
        said.messages += 1;
        let mut oddity = None;
        if let Some(key) = &identify.public_key
            && !belongs(key, self)
        {
            oddity = Some(Oddity::ForeignKey);
        }
        if let Some(envelope) = &identify.signed_peer_record {
            oddity = self.certify(envelope).err().or(oddity);
        }
        let observed = identify.observed.as_slice();
        let observed = multiaddr::direct(observed).next();
        if !identify.protocols.is_empty() {
            let names = identify.protocols.iter().map(String::as_str);
            let listed = ProtocolSet::from_names(names);
            let protocols = said.protocols.unwrap_or(ProtocolSet::NONE);
            said.protocols = Some(listed.iter().fold(protocols, ProtocolSet::with));
        }
        self.protocols = said.protocols.unwrap_or(self.protocols);
        self.relay_load = identify.relay_load.or(self.relay_load);
        let protocols = self.protocols;
        let listed = identify.listen_addrs.clone();
        let agent = identify.agent_version.as_deref();
        let agent = agent.map(|text| text.chars().take(AGENT_CHARS_MAX).collect());
        Learnt { observed, protocols, oddity, listed, agent }
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

saved!(enum Asking {
    1 = Idle,
    2 = Asked { stream, before, overdue_at },
    3 = Answering { stream, said, overdue_at },
    4 = Resting { times, again_at },
});
saved!(struct Said { protocols, messages }, if is_bounded);

fn is_bounded(said: &Said) -> bool {
    said.messages <= IDENTIFY_MESSAGES_MAX
}
