//! AutoNAT v1, the asking side: what is said of us while nobody proves anything.
//!
//! Knows: what one server of each network said last, questions in flight, the standing that this
//! gives. Reads: candidates (what may be dialled), peers (whom to ask). It is part of room `probe`
//! because it speaks only while the rest of that room has nothing to say.
//!
//! ```text
//!  no v2 evidence, none on its way:  each network is asked ─► its voice ─► asked again
//!  unknown ─ enough agree, few deny it ─► public | private ◄─ enough deny it, nobody agrees ─┐
//!     ▲  ▲──── nobody has confirmed it for half an hour ────┘ └───────────────────────────────┘
//!     └── v2 evidence, another network, a long sleep: all of it is forgotten
//! ```
//!
//! A server's word is worth as much as the server, so that none of this touches an address, a
//! class, or what we serve. Those who answer now so and then so cannot make the standing
//! oscillate: it stands for as long as anybody confirms it.
//!
//! Limits: `NETWORKS_MAX` networks; when full, one that is out of reach makes room, or the newcomer
//! is not asked. Follows: autonat-v1 §AutoNAT Protocol, §Implementation Recommendations.
//!
//! A good first change here: ask the servers of one network in turns.

#[cfg(test)]
mod tests;

use super::Probe;
use crate::candidates::Candidates;
use crate::peers::{Connection, Peers};
use crate::wire::autonat::v1::{DIAL_ADDRS_MAX, Message, Status};
use crate::wire::multiaddr;
use crate::words::checkpoint::{BadCheckpoint, Loader, are_counts, saved};
use crate::words::config::{HEARSAY_AGREE_MIN, HEARSAY_FLIP_MIN};
use crate::words::deadline::{Deadline, earliest};
use crate::words::sleep::Sleep;
use crate::{
    Action, Actions, Addr, Config, ConnId, Cx, Draw, Duration, Group, HearsayAnswer, Instant,
    IpScope, NodeState, Notice, Oddity, PeerId, Protocol, StreamId, Wake, ip_scope,
};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use bytes::Bytes;

/// Networks whose word is asked for, number; ours: as many as decide in AutoNAT v2. Requests grow
/// with it. When full, one that is out of reach makes room, or the newcomer is not asked.
const NETWORKS_MAX: usize = 8;
/// Of so many voices one may deny a standing that is about to be taken, number; ours.
const DENIER_IN: usize = 4;
/// How long a server may take beside two round trips: the 30 s of all three implementations.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Until the next question where nothing was confirmed: go-libp2p's and rust-libp2p's value.
const RETRY: Duration = Duration::from_secs(90);
/// The same where the standing was: go-libp2p's and rust-libp2p's value.
const REFRESH: Duration = Duration::from_secs(15 * 60);
/// How long a voice counts, and a standing that nobody confirms, ours: two refreshes.
const LIFETIME: Duration = Duration::from_secs(30 * 60);

const _: () = assert!(HEARSAY_AGREE_MIN <= NETWORKS_MAX && HEARSAY_FLIP_MIN <= NETWORKS_MAX);
const _: () = assert!(2 * REFRESH.as_secs() <= LIFETIME.as_secs(), "a lost question is put again");

/// One question in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Question {
    group: Group,
    peer: PeerId,
    remote: Addr,
    conn: ConnId,
    overdue_at: Instant,
}

/// The word of one network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Voice {
    /// The server that answered last, or failed to.
    pub(crate) peer: PeerId,
    /// Where it is.
    pub(crate) remote: Addr,
    /// The last word that said something, and when that was. What says nothing takes nothing back.
    word: Option<(bool, Instant)>,
    again_at: Instant,
}

/// What is taken for true until enough speaks against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standing {
    is_reachable: bool,
    confirmed_at: Instant,
}

/// What AutoNAT v1 servers say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hearsay {
    /// Who we are; `None`: nobody is asked.
    us: Option<PeerId>,
    questions: BTreeMap<StreamId, Question>,
    voices: BTreeMap<Group, Voice>,
    standing: Option<Standing>,
    /// One connection to each network that is asked.
    lines: BTreeMap<Group, ConnId>,
    asked: u64,
    wake: Option<Deadline>,
}

impl Voice {
    /// What it counts for.
    pub(crate) fn answer(&self, now: Instant) -> HearsayAnswer {
        match self.said(now) {
            Some((true, _)) => HearsayAnswer::Reachable,
            Some((false, _)) => HearsayAnswer::Unreachable,
            None => HearsayAnswer::Nothing,
        }
    }

    fn said(&self, now: Instant) -> Option<(bool, Instant)> {
        self.word.filter(|(_, at)| now < *at + LIFETIME)
    }
}

impl Probe {
    /// This room, asking AutoNAT v1 servers as well, if that is wanted.
    pub(crate) fn hearing(self, config: &Config, us: PeerId) -> Probe {
        let hearsay = Hearsay { us: config.hearsay.then_some(us), ..Hearsay::default() };
        Probe { hearsay, ..self }
    }

    /// What AutoNAT v1 servers say.
    pub(crate) fn hearsay(&self) -> &Hearsay {
        &self.hearsay
    }

    /// Let hearsay be heard, unless there is something better: evidence makes it void, and where
    /// evidence may be on its way nobody is asked.
    pub(super) fn hear(&mut self, cx: &mut Cx<'_>, candidates: &Candidates, peers: &Peers) {
        let now = cx.now;
        let histories =
            || candidates.iter().filter_map(|one| self.histories.get_key_value(&one.addr));
        let judged = histories().any(|(_, one)| one.refuted.is_some() || one.failures() > 0);
        if judged || self.proven(now).next().is_some() {
            return self.hearsay.forget(cx.actions);
        }
        let is_open = self.exchanges.is_empty()
            && !peers.awaits_acquaintance()
            && !histories().any(|(addr, history)| {
                self.outlook(now, peers, *addr, history) == super::Outlook::Probing
            });
        // Those in whose class something listens.
        let addrs: Vec<Addr> = histories().map(|(addr, _)| *addr).collect();
        let lines = if is_open && !addrs.is_empty() {
            self.hearsay.lines(now, peers, self.allow_private)
        } else {
            BTreeMap::new()
        };
        self.hearsay.advance(cx, peers, &addrs, lines);
    }
}

impl Hearsay {
    /// The state that hearsay gives to the node.
    pub(crate) fn state(&self) -> NodeState {
        match self.standing {
            None => NodeState::Unknown,
            Some(Standing { is_reachable: true, .. }) => NodeState::Public,
            Some(Standing { is_reachable: false, .. }) => NodeState::Private,
        }
    }

    /// The word of each network.
    pub(crate) fn voices(&self) -> impl Iterator<Item = &Voice> {
        self.voices.values()
    }

    /// Whether an answer is awaited.
    pub(crate) fn is_asking(&self) -> bool {
        !self.questions.is_empty()
    }

    /// Whether this connection is used to ask.
    pub(crate) fn keeps(&self, conn: ConnId) -> bool {
        self.lines.values().any(|line| *line == conn)
            || self.questions.values().any(|question| question.conn == conn)
    }

    /// When something here is due.
    pub(super) fn deadline(&self) -> Option<Deadline> {
        self.wake
    }

    /// A server answered.
    pub(super) fn answered(
        &mut self,
        cx: &mut Cx<'_>,
        stream: StreamId,
        body: &Bytes,
    ) -> Result<(), Oddity> {
        let question = self.questions.remove(&stream).ok_or(Oddity::UnknownStream)?;
        let (answer, done) = match Message::decode(body) {
            Ok(Message::DialResponse { status, .. }) => (meaning(status), Ok(())),
            Ok(Message::Dial { .. }) => (HearsayAnswer::Nothing, Err(Oddity::UnexpectedFrame)),
            Err(_) => (HearsayAnswer::Nothing, Err(Oddity::MalformedFrame)),
        };
        // The question was finished when it was put; on a stream that makes sense nothing follows.
        if done.is_err() {
            cx.actions.push(Action::ResetStream { stream });
        }
        self.heard(cx, question, (answer, RETRY));
        done
    }

    /// The stream of a question ended without an answer, or could not be opened.
    pub(super) fn ended(&mut self, cx: &mut Cx<'_>, stream: StreamId) -> Result<(), Oddity> {
        let question = self.questions.remove(&stream).ok_or(Oddity::UnknownStream)?;
        self.heard(cx, question, (HearsayAnswer::Nothing, RETRY));
        Ok(())
    }

    /// A connection is gone, and the questions on it.
    pub(super) fn disconnected(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.lines.retain(|_, line| *line != conn);
        let lost =
            |(stream, question): (&StreamId, &Question)| (question.conn == conn).then_some(*stream);
        while let Some(stream) = self.questions.iter().find_map(lost) {
            if let Some(question) = self.questions.remove(&stream) {
                // js-libp2p's server hangs up on whom it is asked by: to ask again soon would cost the
                // application its next connection as well.
                self.heard(cx, question, (HearsayAnswer::Nothing, REFRESH));
            }
        }
    }

    /// We slept. Who was asked gets the time back; after a long sleep we may be anywhere.
    pub(super) fn resumed(&mut self, actions: &mut Actions, sleep: Sleep) {
        if !sleep.is_nap() {
            return self.forget(actions);
        }
        self.questions.values_mut().for_each(|question| sleep.put_off(&mut question.overdue_at));
    }

    /// Whatever was said is worth nothing any more.
    pub(super) fn forget(&mut self, actions: &mut Actions) {
        for stream in self.questions.keys() {
            actions.push(Action::ResetStream { stream: *stream });
        }
        *self = Hearsay { us: self.us, asked: self.asked, ..Hearsay::default() };
    }

    /// One connection to each network that is to be asked, making room for newcomers.
    fn lines(
        &mut self,
        now: Instant,
        peers: &Peers,
        allow_private: bool,
    ) -> BTreeMap<Group, ConnId> {
        let mut lines: BTreeMap<Group, ConnId> = BTreeMap::new();
        if self.us.is_none() {
            return lines;
        }
        // Whoever stands on our side of the NAT sees us where the world does not.
        let is_outside = |one: &Connection| {
            !one.relayed && (allow_private || ip_scope(one.remote.ip) == IpScope::Global)
        };
        let mut offers: Vec<(ConnId, &Connection)> = peers
            .iter()
            .filter(|(_, one)| is_outside(one) && !one.is_late())
            .filter(|(_, one)| one.protocols.contains(Protocol::AutonatV1))
            .collect();
        let rtt = |one: &Connection| one.rtt.unwrap_or(Duration::MAX);
        offers.sort_by_key(|(conn, one)| (one.is_in_doubt(), rtt(one), *conn));
        let group = |one: &Connection| Group::of(one.remote.ip, allow_private);
        for (conn, one) in offers.iter().filter(|(_, one)| self.knows(group(one))) {
            lines.entry(group(one)).or_insert(*conn);
        }
        for (conn, one) in &offers {
            let group = group(one);
            // A server with several IPs, as when it dials back from another one, has one voice.
            let is_peer = |line: &ConnId| peers.get(*line).is_some_and(|it| it.peer == one.peer);
            let has_voice = self.voices.values().any(|voice| voice.peer == one.peer)
                || lines.values().any(is_peer);
            if !lines.contains_key(&group) && !has_voice && self.has_room(now, &lines) {
                lines.insert(group, *conn);
            }
        }
        lines
    }

    fn knows(&self, group: Group) -> bool {
        self.voices.contains_key(&group)
            || self.questions.values().any(|question| question.group == group)
    }

    /// Whether one more network can be asked. One out of reach makes room, the one whose word is
    /// the oldest.
    fn has_room(&mut self, now: Instant, lines: &BTreeMap<Group, ConnId>) -> bool {
        let asked = self.questions.values().map(|question| question.group);
        let asked: BTreeSet<Group> = asked.chain(lines.keys().copied()).collect();
        if self.voices.keys().filter(|group| !asked.contains(*group)).count() + asked.len()
            < NETWORKS_MAX
        {
            return true;
        }
        let gone = self.voices.iter().filter(|(group, _)| !asked.contains(*group));
        let oldest = gone.min_by_key(|(_, voice)| voice.said(now).map(|(_, at)| at));
        let oldest = oldest.map(|(group, _)| *group);
        oldest.is_some_and(|group| self.voices.remove(&group).is_some())
    }

    /// Give up what is overdue, judge, and ask who is due.
    fn advance(
        &mut self,
        cx: &mut Cx<'_>,
        peers: &Peers,
        addrs: &[Addr],
        lines: BTreeMap<Group, ConnId>,
    ) {
        let now = cx.now;
        let overdue = |(stream, question): (&StreamId, &Question)| {
            (question.overdue_at <= now).then_some(*stream)
        };
        while let Some(stream) = self.questions.iter().find_map(overdue) {
            cx.actions.push(Action::ResetStream { stream });
            let _ = self.ended(cx, stream);
        }
        self.judge(now);
        self.lines = lines;
        for (group, conn) in self.lines.clone() {
            let is_due = self.voices.get(&group).is_none_or(|voice| voice.again_at <= now);
            let is_asked = self.questions.values().any(|question| question.group == group);
            if let Some(connection) = peers.get(conn).filter(|_| is_due && !is_asked) {
                self.ask(cx, (group, conn, connection), addrs);
            }
        }
        self.wake = self.earliest();
    }

    /// Ask one server: who we are, and every address that may be ours.
    fn ask(
        &mut self,
        cx: &mut Cx<'_>,
        (group, conn, connection): (Group, ConnId, &Connection),
        addrs: &[Addr],
    ) {
        let Some(us) = self.us else { return };
        // autonat-v1 §Security Considerations: it dials the IP only that it sees us at, so that of
        // most addresses no more than port and transport count.
        let addrs = addrs.iter().take(DIAL_ADDRS_MAX).copied().map(multiaddr::encode).collect();
        let body = Message::dial(us, addrs).0.encode();
        self.asked += 1;
        let stream = StreamId::outbound(Protocol::AutonatV1, self.asked);
        cx.actions.push(Action::OpenStream { conn, stream });
        cx.actions.push(Action::Send { stream, body });
        cx.actions.push(Action::CloseStream { stream });
        let rtt = connection.rtt.unwrap_or(Duration::from_secs(1));
        let overdue_at = cx.now + ANSWER_TIMEOUT + rtt * 2;
        let (peer, remote) = (connection.peer, connection.remote);
        self.questions.insert(stream, Question { group, peer, remote, conn, overdue_at });
    }

    /// Take an answer down. `rest`: until the next question, unless the answer says that all is as it was.
    fn heard(
        &mut self,
        cx: &mut Cx<'_>,
        question: Question,
        (answer, rest): (HearsayAnswer, Duration),
    ) {
        let Question { group, peer, remote, .. } = question;
        cx.actions.notify(Notice::HearsayHeard { peer, answer });
        let word = match answer {
            HearsayAnswer::Reachable => Some(true),
            HearsayAnswer::Unreachable => Some(false),
            HearsayAnswer::Nothing => None,
        };
        let stands = self.standing.map(|standing| standing.is_reachable);
        let pause = if word.is_some() && word == stands { REFRESH } else { rest };
        let before = self.voices.get(&group).and_then(|voice| voice.word);
        let word = word.map(|word| (word, cx.now)).or(before);
        let again_at = cx.now + jittered(pause, cx.draw);
        self.voices.insert(group, Voice { peer, remote, word, again_at });
        self.wake = Some(Deadline::new(cx.now, Wake::HearsayDue));
    }

    /// The only place that assigns the standing.
    fn judge(&mut self, now: Instant) {
        let of = |wanted: bool| {
            let said = self.voices.values().filter_map(|voice| voice.said(now));
            said.filter(move |(word, _)| *word == wanted).map(|(_, at)| at)
        };
        let taken = |is_reachable| {
            let confirmed_at = of(is_reachable).max()?;
            Some(Standing { is_reachable, confirmed_at })
        };
        let Some(mut standing) = self.standing else {
            let (agree, deny) = (of(true).count(), of(false).count());
            // Whoever has not spoken yet may deny it.
            let is_open = self.questions.values().any(|one| !self.voices.contains_key(&one.group));
            let word = agree >= deny;
            if !is_open
                && agree.max(deny) >= HEARSAY_AGREE_MIN
                && agree.min(deny) * DENIER_IN <= agree + deny
            {
                self.standing = taken(word);
            }
            return;
        };
        let confirmed = of(standing.is_reachable).max();
        let denials = of(!standing.is_reachable).count();
        self.standing = if confirmed.is_none() && denials >= HEARSAY_FLIP_MIN {
            taken(!standing.is_reachable)
        } else {
            standing.confirmed_at = standing.confirmed_at.max(confirmed.unwrap_or(Instant::ZERO));
            (now < standing.confirmed_at + LIFETIME).then_some(standing)
        };
    }

    fn earliest(&self) -> Option<Deadline> {
        let overdue = self.questions.values().map(|one| one.overdue_at).min();
        let overdue = overdue.map(|at| Deadline::new(at, Wake::HearsayOverdue));
        let asked = |group: &Group| self.questions.values().any(|one| one.group == *group);
        let idle = self.lines.keys().filter(|group| !asked(group));
        let again = idle.filter_map(|group| self.voices.get(group)).map(|voice| voice.again_at);
        let lapse = self.standing.map(|standing| standing.confirmed_at + LIFETIME);
        let due = again.chain(lapse).min().map(|at| Deadline::new(at, Wake::HearsayDue));
        earliest(overdue, due)
    }
}

/// What an answer says of us. Only two of them say anything.
fn meaning(status: Status) -> HearsayAnswer {
    match status {
        Status::Ok => HearsayAnswer::Reachable,
        Status::DialError => HearsayAnswer::Unreachable,
        Status::DialRefused | Status::BadRequest | Status::InternalError | Status::Unknown(_) => {
            HearsayAnswer::Nothing
        }
    }
}

/// A quarter shorter at most, so that nodes that started together do not ask together.
fn jittered(pause: Duration, draw: &mut dyn Draw) -> Duration {
    let quarter = u64::try_from(pause.as_nanos() / 4).unwrap_or(u64::MAX);
    pause - Duration::from_nanos(draw.below(quarter))
}

saved!(struct Question { group, peer, remote, conn, overdue_at });
saved!(struct Voice { peer, remote, word, again_at });
saved!(struct Standing { is_reachable, confirmed_at });
saved!(struct Hearsay {
    questions,
    voices,
    standing,
    lines,
    asked as told(),
    wake,
} given { us } by fresh, if is_bounded);

fn fresh(from: &Loader<'_>) -> Result<Hearsay, BadCheckpoint> {
    let us = from.config.hearsay.then(|| from.identity.to_peer_id());
    Ok(Hearsay { us, ..Hearsay::default() })
}

fn is_bounded(hearsay: &Hearsay) -> bool {
    are_counts(&[hearsay.asked])
        && hearsay.voices.len() <= NETWORKS_MAX
        && hearsay.lines.len() <= NETWORKS_MAX
        && hearsay.questions.len() <= NETWORKS_MAX
}
