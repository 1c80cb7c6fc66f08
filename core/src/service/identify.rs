//! The answering half of identify, and the sending half of identify/push.
//!
//! Each connection's peer is told what it asks for; what it was told is remembered, and when that
//! is no longer so, it gets one push. A peer with several connections gets it once. A push that
//! fails is not repeated: the next change brings another.

use super::View;
use crate::wire::identify::Identify;
use crate::wire::multiaddr;
use crate::wire::peer_record::PeerRecord;
use crate::words::checkpoint::{
    BadCheckpoint, Kind, Loader, Room, Saved, Saver, are_counts, saved,
};
use crate::words::sleep::Sleep;
use crate::{
    Action, Addr, CircuitAddr, Config, ConnId, Cx, Deadline, Duration, Instant, Oddity, PeerId,
    Protocol, ProtocolSet, PublicKey, Signer, StreamId, Wake,
};
use alloc::borrow::ToOwned;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;
use bytes::Bytes;

use super::Caller;

/// Identify streams of one connection that the peer has not closed, number; ours: one to ask, one
/// that is about to be closed. Over it a stream is reset.
const STREAMS_PER_CONN_MAX: usize = 2;
/// Pushes in flight, number; ours. Bursts of traffic grow with it, by up to 4 KiB each. When full,
/// the other peers wait for their turn.
const PUSHES_MAX: usize = 64;
/// How long a peer may take to read a push and close the stream, ours: as long as we wait for an
/// answer of identify.
const PUSH_TIMEOUT: Duration = Duration::from_secs(10);

/// What a peer was told that may change.
#[derive(Clone, Debug, PartialEq, Eq)]
struct News {
    addrs: Vec<Addr>,
    circuits: Vec<CircuitAddr>,
    /// The sequence number of the record; 0 when there was none.
    seq: u64,
    /// Whether we relay for others.
    hop: bool,
}

/// The newest record of our own.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Certificate {
    addrs: Vec<Addr>,
    circuits: Vec<CircuitAddr>,
    seq: u64,
    envelope: Bytes,
}

/// A push in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Push {
    conn: ConnId,
    peer: PeerId,
    overdue_at: Instant,
}

/// Describes us to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identifier {
    identity: PublicKey,
    /// What everybody is told alike.
    base: Identify,
    certificate: Option<Certificate>,
    /// Streams on which we answered and that the peer has not closed.
    answered: BTreeMap<StreamId, ConnId>,
    told: BTreeMap<ConnId, News>,
    pushes: BTreeMap<StreamId, Push>,
    /// Connections to look at: what their peer was told may be out of date.
    due: BTreeSet<ConnId>,
    /// Connections to look at once a push to the same peer is over.
    waiting: BTreeSet<ConnId>,
    /// The revision of the view that `due` was filled at.
    revision: u64,
    /// Whether we relayed for others at that time.
    hop: bool,
    streams: u64,
}

impl Identifier {
    pub(super) fn new(config: &Config, identity: &PublicKey, served: ProtocolSet) -> Identifier {
        let own = served.iter().map(|protocol| protocol.name().to_owned());
        let base = Identify {
            public_key: Some(identity.encode_protobuf().into()),
            protocols: own.chain(config.protocols.iter().cloned()).collect(),
            protocol_version: Some(config.protocol_version.clone()),
            agent_version: Some(config.agent_version.clone()),
            ..Identify::default()
        };
        Identifier {
            identity: identity.clone(),
            base,
            certificate: None,
            answered: BTreeMap::new(),
            told: BTreeMap::new(),
            pushes: BTreeMap::new(),
            due: BTreeSet::new(),
            waiting: BTreeSet::new(),
            revision: 0,
            hop: false,
            streams: 0,
        }
    }

    /// A peer asks who we are. `hop`: how full our relay service is, if it is offered.
    pub(super) fn asked(
        &mut self,
        cx: &mut Cx<'_>,
        view: &dyn View,
        (conn, stream): (ConnId, StreamId),
        hop: Option<u16>,
    ) -> Result<(), Oddity> {
        if self.answered.contains_key(&stream) {
            return Err(Oddity::ReusedId);
        }
        let Some(caller) = view.caller(conn) else {
            cx.actions.push(Action::ResetStream { stream });
            return Err(Oddity::UnknownConnection);
        };
        if self.answered.values().filter(|of| **of == conn).count() >= STREAMS_PER_CONN_MAX {
            cx.actions.push(Action::ResetStream { stream });
            return Err(Oddity::Full);
        }
        let news = self.news(cx, view, &caller, hop);
        self.answered.insert(stream, conn);
        self.tell(cx, stream, (conn, &caller), news, hop);
        Ok(())
    }

    pub(super) fn push_opened(&self, stream: StreamId) -> Result<(), Oddity> {
        if self.pushes.contains_key(&stream) { Ok(()) } else { Err(Oddity::UnknownStream) }
    }

    /// Nobody has anything to say on these streams but us.
    pub(super) fn frame(&mut self, cx: &mut Cx<'_>, stream: StreamId) -> Result<(), Oddity> {
        if !self.answered.contains_key(&stream) && !self.pushes.contains_key(&stream) {
            return Err(Oddity::UnknownStream);
        }
        self.closed(stream);
        cx.actions.push(Action::ResetStream { stream });
        Err(Oddity::UnexpectedFrame)
    }

    /// The peer has closed its side, or the push could not be opened: a stream is over.
    pub(super) fn closed(&mut self, stream: StreamId) {
        self.answered.remove(&stream);
        if self.pushes.remove(&stream).is_some() {
            self.due.append(&mut self.waiting);
        }
    }

    pub(super) fn disconnected(&mut self, conn: ConnId) {
        self.answered.retain(|_, of| *of != conn);
        self.told.remove(&conn);
        self.due.remove(&conn);
        self.waiting.remove(&conn);
        let of_conn = |(stream, push): (&StreamId, &Push)| (push.conn == conn).then_some(*stream);
        while let Some(stream) = self.pushes.iter().find_map(of_conn) {
            self.closed(stream);
        }
    }

    pub(super) fn resumed(&mut self, sleep: Sleep) {
        self.pushes.values_mut().for_each(|push| sleep.put_off(&mut push.overdue_at));
    }

    /// Give up pushes that are overdue, and start those that are due.
    pub(super) fn advance(&mut self, cx: &mut Cx<'_>, view: &dyn View, hop: Option<u16>) {
        let now = cx.now;
        let overdue =
            |(stream, push): (&StreamId, &Push)| (push.overdue_at <= now).then_some(*stream);
        while let Some(stream) = self.pushes.iter().find_map(overdue) {
            self.closed(stream);
            cx.actions.push(Action::ResetStream { stream });
        }
        let seen = (view.revision(), hop.is_some());
        if (self.revision, self.hop) != seen {
            (self.revision, self.hop) = seen;
            self.due.extend(view.pushable());
        }
        while self.pushes.len() < PUSHES_MAX
            && let Some(conn) = self.due.pop_first()
        {
            self.catch_up(cx, view, conn, hop);
        }
    }

    pub(super) fn deadline(&self) -> Option<Deadline> {
        let overdue_at = self.pushes.values().map(|push| push.overdue_at).min()?;
        Some(Deadline::new(overdue_at, Wake::PushOverdue))
    }

    pub(super) fn keeps(&self, conn: ConnId) -> bool {
        self.pushes.values().any(|push| push.conn == conn)
    }

    /// identify §identify/push: push what changed to a peer that was told otherwise.
    fn catch_up(&mut self, cx: &mut Cx<'_>, view: &dyn View, conn: ConnId, hop: Option<u16>) {
        let Some(caller) = view.caller(conn) else {
            return;
        };
        let news = self.news(cx, view, &caller, hop);
        let Some(told) = self.told.get(&conn) else {
            // It has not asked yet. It will, or does not care; a push would only come double.
            self.told.insert(conn, news);
            return;
        };
        if *told == news {
            return;
        }
        let in_flight = self.pushes.values().find(|push| push.peer == caller.peer);
        if let Some(push) = in_flight {
            if self.told.get(&push.conn) == Some(&news) {
                self.told.insert(conn, news);
            } else {
                self.waiting.insert(conn);
            }
            return;
        }
        self.streams += 1;
        let stream = StreamId::outbound(Protocol::IdentifyPush, self.streams);
        let overdue_at = cx.now + PUSH_TIMEOUT;
        self.pushes.insert(stream, Push { conn, peer: caller.peer, overdue_at });
        cx.actions.push(Action::OpenStream { conn, stream });
        self.tell(cx, stream, (conn, &caller), news, hop);
    }

    /// Say it, and remember that it was said. How full the relay service is changes all the time,
    /// and is said by the way.
    fn tell(
        &mut self,
        cx: &mut Cx<'_>,
        stream: StreamId,
        (conn, caller): (ConnId, &Caller),
        news: News,
        hop: Option<u16>,
    ) {
        let record = self.certificate.as_ref().map(|certificate| certificate.envelope.clone());
        let mut identify = Identify {
            listen_addrs: encoded(&news.addrs, &news.circuits),
            // Through a relay we see the relay, not the peer.
            observed: (!caller.relayed).then(|| multiaddr::encode(caller.remote)),
            signed_peer_record: record,
            relay_load: hop,
            ..self.base.clone()
        };
        if !news.hop {
            // identify (specs, connections §Protocol negotiation): nothing is listed that is not
            // offered.
            identify.protocols.retain(|name| name != Protocol::Hop.name());
        }
        self.told.insert(conn, news);
        for body in identify.encode_split().messages {
            cx.actions.push(Action::Send { stream, body });
        }
        cx.actions.push(Action::CloseStream { stream });
    }

    fn news(
        &mut self,
        cx: &mut Cx<'_>,
        view: &dyn View,
        caller: &Caller,
        hop: Option<u16>,
    ) -> News {
        let circuits = view.circuits();
        self.certify(cx, &view.proven(), &circuits);
        let seq = self.certificate.as_ref().map_or(0, |certificate| certificate.seq);
        News { addrs: view.advertised(caller), circuits, seq, hop: hop.is_some() }
    }

    /// Keep the record up to date. Once there was one, an empty list withdraws what it said:
    /// identify itself cannot tell an empty list from an absent one.
    fn certify(&mut self, cx: &mut Cx<'_>, proven: &[Addr], circuits: &[CircuitAddr]) {
        let last = self.certificate.as_ref();
        let is_empty = proven.is_empty() && circuits.is_empty();
        if last.map_or(is_empty, |last| last.addrs == proven && last.circuits == circuits) {
            return;
        }
        // RFC 0003 §Address Record Format: seq MUST increase monotonically and MAY be Unix time;
        // two changes within a millisecond, or a clock set back, must not keep it still.
        let next = last.map_or(1, |last| last.seq.saturating_add(1));
        let seq = next.max(cx.unix.as_millis());
        let envelope = sealed((proven, circuits), seq, &self.identity, cx.sign);
        let (addrs, circuits) = (proven.to_vec(), circuits.to_vec());
        self.certificate = Some(Certificate { addrs, circuits, seq, envelope });
    }
}

/// The record of these addresses, signed by us.
fn sealed(
    (addrs, circuits): (&[Addr], &[CircuitAddr]),
    seq: u64,
    identity: &PublicKey,
    signer: &mut dyn Signer,
) -> Bytes {
    let addrs = encoded(addrs, circuits);
    PeerRecord { peer_id: identity.to_peer_id(), seq, addrs }.sealed(identity, signer)
}

/// The multiaddrs of both, direct ones first.
fn encoded(addrs: &[Addr], circuits: &[CircuitAddr]) -> Vec<Bytes> {
    let circuits = circuits.iter().copied().map(multiaddr::encode_circuit);
    addrs.iter().copied().map(multiaddr::encode).chain(circuits).collect()
}

saved!(struct News { addrs, circuits, seq as id(Kind::Record), hop });

impl Saved for Certificate {
    fn save(&self, out: &mut Saver<'_>) {
        let Certificate { addrs, circuits, seq, envelope } = self;
        if out.canonical_now().is_some() {
            // The envelope says the same once more.
            addrs.save(out);
            circuits.save(out);
            return out.id(seq, Kind::Record);
        }
        let envelope = match out.other_identity() {
            None => envelope.clone(),
            // What another would have signed, but for the signature.
            Some(identity) => {
                let other = |addr: &Addr| Addr { ip: out.exchanged(addr.ip), ..*addr };
                let direct: Vec<Addr> = addrs.iter().map(other).collect();
                let mut others: Vec<CircuitAddr> = Vec::new();
                for CircuitAddr { relay, addr } in circuits {
                    let addr = Addr { ip: out.exchanged(addr.ip), ..*addr };
                    others.push(CircuitAddr { relay: out.exchanged_peer(*relay), addr });
                }
                sealed((&direct, &others), *seq, &identity, &mut Blank)
            }
        };
        addrs.save(out);
        circuits.save(out);
        seq.save(out);
        envelope.save(out);
    }

    fn load(from: &mut Loader<'_>) -> Result<Certificate, BadCheckpoint> {
        let (addrs, circuits) = Saved::load(from)?;
        let (seq, envelope) = Saved::load(from)?;
        Ok(Certificate { addrs, circuits, seq, envelope })
    }
}

/// Signs with zeros, as many as an Ed25519 signature has bytes.
struct Blank;

impl Signer for Blank {
    fn sign(&mut self, _message: &[u8]) -> Vec<u8> {
        vec![0; 64]
    }
}

saved!(struct Push { conn, peer, overdue_at });
saved!(struct Identifier {
    certificate,
    answered,
    told,
    pushes,
    due,
    waiting,
    revision as seen_sum(&[Room::Advertise, Room::Peers, Room::Local]),
    hop,
    streams as told(),
} given { identity, base } by fresh, if has_counts);

fn fresh(from: &Loader<'_>) -> Result<Identifier, BadCheckpoint> {
    Ok(Identifier::new(from.config, from.identity, super::served(from.config)))
}

fn has_counts(identifier: &Identifier) -> bool {
    are_counts(&[identifier.streams])
}
