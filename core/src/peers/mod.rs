//! Floor 1 · who we are connected to, and what they told us.
//!
//! Knows: connections with their actual addresses, protocols and round-trip times; the IPs that we
//! contacted; strangers who came in; whom sources introduced. Reads: wire. Runs the asking half of identify and of ping.
//!
//! ```text
//!  Connected ─► asks identify ─► Learnt { observed, protocols } ─► observed, probe
//!            │    └► nothing came: rests, asks again
//!            └► pings where no round-trip time is known, then where the door says so
//!  InboundStream push ─► Learnt        Disconnected ─► forgotten
//!  a long Resumed, another external address ─► in doubt, pinged ─► echoed: sound | late ─► silent
//! ```
//!
//! Limits: `CONNECTIONS_MAX` connections (more are ignored and named in a notice),
//! `CONTACTED_MAX` IPs (when full every IP counts as contacted: proofs get weaker, never wrong),
//! `INTRODUCED_MAX` introductions (more are as if not made), `STRANGERS_MAX` sightings (the oldest goes), one push at a time per connection.
//! Follows: identify §identify and §identify/push; ping §Protocol; RFC 0003 (reading).
//!
//! A good first change here: remember the listen addresses that a peer certifies.

mod contacted;
mod identify;
mod introduced;
mod ping;
#[cfg(test)]
mod tests;

use crate::words::checkpoint::{Room, are_counts, saved};
use crate::words::deadline::earliest;
use crate::{
    Addr, Class, ConnId, Connected, Cx, Deadline, Duration, Family, Instant, IpScope, Oddity,
    PeerId, Protocol, ProtocolSet, Side, StreamEnd, StreamId, ip_scope,
};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::IpAddr;

use crate::words::config::{CONNECTIONS_MAX, PROOF_LIFETIME};
use crate::words::sleep::Sleep;
use contacted::Contacted;
pub(crate) use identify::Learnt;
use identify::{Asking, Outcome, Said};
use introduced::Introduced;
use ping::Pinging;
pub(crate) use ping::Worth;

/// Sightings of strangers, number of our addresses they were seen on; ours. When full, the
/// oldest sighting goes.
const STRANGERS_MAX: usize = 64;
/// After how long a stranger on the same address of ours is news again, ours: a tenth of the time
/// that an address which nobody gets in at is not asked about at most.
const SEEN_AGAIN: Duration = Duration::from_secs(10);
/// The longest round trip that is believed, ours: a minute, beyond which no handshake would have
/// come to its end. Deadlines that wait for peers grow with it. What is longer counts as that.
const RTT_MAX: Duration = Duration::from_secs(60);

/// What is known of a connection's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// Nothing speaks against it.
    Sound,
    /// It stood while we slept, or while our router got another address, and has not answered a ping
    /// since.
    InDoubt,
    /// Nor did it do so within a few round trips.
    Late,
    /// Nor did it do so in time.
    Silent,
}

/// One connection and what its peer told us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Connection {
    pub(crate) peer: PeerId,
    pub(crate) side: Side,
    pub(crate) local: Addr,
    pub(crate) remote: Addr,
    pub(crate) relayed: bool,
    /// Whether the remote IP had never been contacted when the connection came up.
    pub(crate) stranger: bool,
    /// Connections are numbered in the order in which they came up.
    pub(crate) serial: u64,
    pub(crate) rtt: Option<Duration>,
    pub(crate) protocols: ProtocolSet,
    /// The address that the peer sees us as.
    pub(crate) observed: Option<Addr>,
    /// How full its relay service is, thousandths, if it said so.
    pub(crate) relay_load: Option<u16>,
    asking: Asking,
    push: Option<(StreamId, Said)>,
    record_seq: Option<u64>,
    pinging: Pinging,
    life: Life,
}

impl Connection {
    /// Whether it may have died, for all we know.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.life != Life::Sound
    }

    /// Whether it was pinged for that, and an answer would have come by now.
    pub(crate) fn is_late(&self) -> bool {
        matches!(self.life, Life::Late | Life::Silent)
    }

    /// Whether it was pinged for that and did not answer.
    pub(crate) fn is_silent(&self) -> bool {
        self.life == Life::Silent
    }

    /// Whether the peer has not said yet who it is.
    pub(crate) fn is_asking(&self) -> bool {
        matches!(self.asking, Asking::Asked { before: 0, .. })
    }
}

/// What came of an event for a stream of this room.
pub(crate) type Heard = Result<Option<(ConnId, Learnt)>, Oddity>;

/// The peers we are connected to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Peers {
    connections: BTreeMap<ConnId, Connection>,
    /// The streams of this room: our identify questions and pings, and pushes that come in.
    streams: BTreeMap<StreamId, ConnId>,
    contacted: Contacted,
    introduced: Introduced,
    /// Classes in which a packet ever reached us.
    heard: u8,
    /// Our addresses on which a stranger came in and named the address.
    strangers: BTreeMap<Addr, Sighting>,
    serial: u64,
    minted: u64,
    revision: u64,
    /// The earliest deadline of all connections, unless something was touched since.
    due: Option<Deadline>,
    touched: bool,
}

/// A stranger came in on one of our listening sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sighting {
    pub(crate) at: Instant,
    /// When that was last news.
    news_at: Instant,
    /// The port of the socket on which he came in.
    pub(crate) port: u16,
}

impl Peers {
    /// A connection finished its handshakes. Asks identify at once if `ask`.
    pub(crate) fn connected(
        &mut self,
        cx: &mut Cx<'_>,
        facts: &Connected,
        ask: bool,
    ) -> Result<(), Oddity> {
        if self.connections.contains_key(&facts.conn) {
            return Err(Oddity::ReusedId);
        }
        if self.connections.len() >= CONNECTIONS_MAX {
            return Err(Oddity::Full);
        }
        if !facts.relayed {
            self.heard |= class_bit(facts.remote.class());
            if facts.side == Side::Outbound {
                self.contacted.record(cx.now, facts.remote.ip);
            }
        }
        self.serial += 1;
        self.connections.insert(
            facts.conn,
            Connection {
                peer: facts.peer,
                side: facts.side,
                local: facts.local,
                remote: facts.remote,
                relayed: facts.relayed,
                stranger: !facts.relayed && !self.is_contacted(cx.now, facts.remote.ip),
                serial: self.serial,
                rtt: facts.rtt.map(|rtt| rtt.min(RTT_MAX)),
                protocols: ProtocolSet::NONE,
                observed: None,
                relay_load: None,
                asking: Asking::Idle,
                push: None,
                record_seq: self.record_seq(facts.peer),
                pinging: Pinging::default(),
                life: Life::Sound,
            },
        );
        self.touch();
        if ask {
            self.ask_identify(cx, facts.conn, 0);
        }
        if facts.rtt.is_none() && !facts.relayed {
            self.ping(cx, facts.conn);
        }
        Ok(())
    }

    /// A connection is gone.
    pub(crate) fn disconnected(&mut self, cx: &mut Cx<'_>, conn: ConnId) -> Result<(), Oddity> {
        let mut gone = self.connections.remove(&conn).ok_or(Oddity::UnknownConnection)?;
        gone.end_asking(cx, conn, Outcome::Answer);
        if gone.side == Side::Outbound && !gone.relayed {
            // Until now we were sending, however long ago the first packet was.
            self.contacted.record(cx.now, gone.remote.ip);
        }
        self.streams.retain(|_, of| *of != conn);
        self.touch();
        Ok(())
    }

    /// We sent a first packet to this IP.
    pub(crate) fn contacted(&mut self, now: Instant, ip: IpAddr) {
        self.contacted.record(now, ip.to_canonical());
    }

    /// The IPs to which we sent first within the time that counts, and when last.
    pub(crate) fn all_contacted(&self, now: Instant) -> impl Iterator<Item = (IpAddr, Instant)> {
        let dialled = self.connections.values();
        let dialled = dialled.filter(|one| one.side == Side::Outbound && !one.relayed);
        let standing: BTreeSet<IpAddr> = dialled.map(|one| one.remote.ip).collect();
        let since = move |(ip, at)| (ip, if standing.contains(&ip) { now } else { at });
        self.contacted.iter(now).map(since)
    }

    /// A source named this peer.
    pub(crate) fn introduced(&mut self, peer: PeerId, source: u16) {
        self.introduced.record(peer, source);
    }

    /// The source that named this peer first, if one did.
    pub(crate) fn source(&self, peer: PeerId) -> Option<u16> {
        self.introduced.source(peer)
    }

    /// We slept. Questions get their time back; after a long sleep every connection is in doubt, and
    /// those whose word counts are asked again where they see us if `ask`.
    pub(crate) fn resumed(&mut self, cx: &mut Cx<'_>, sleep: Sleep, ask: bool) {
        for connection in self.connections.values_mut() {
            connection.asking.put_off(sleep);
            connection.pinging.put_off(sleep);
        }
        self.touch();
        if !sleep.is_nap() {
            self.doubt(cx, |_| true, ask);
        }
    }

    /// A router of ours has another external address. Whatever leaves through it may be cut off: every
    /// connection of the family to somebody out there is in doubt, as after a long sleep.
    pub(crate) fn moved(
        &mut self,
        cx: &mut Cx<'_>,
        family: Family,
        (allow_private, ask): (bool, bool),
    ) {
        let leaves = move |one: &Connection| {
            let scope = ip_scope(one.remote.ip);
            let is_outside = scope == IpScope::Global || allow_private && scope == IpScope::Private;
            Family::of(one.remote.ip) == family && is_outside
        };
        self.touch();
        self.doubt(cx, leaves, ask);
    }

    fn doubt(&mut self, cx: &mut Cx<'_>, which: impl Fn(&Connection) -> bool + Copy, ask: bool) {
        self.doubt_lives(cx, which);
        self.doubt_questions(cx, which);
        if ask {
            self.ask_again(cx, which);
        }
    }

    /// An embedder told us what identify would have.
    pub(crate) fn told(&mut self, conn: ConnId, protocols: ProtocolSet) -> Result<(), Oddity> {
        let connection = self.connections.get_mut(&conn).ok_or(Oddity::UnknownConnection)?;
        if connection.protocols != protocols {
            connection.protocols = protocols;
            self.touch();
        }
        Ok(())
    }

    /// The peer says that it sees us at `observed`. What a stranger dialled is remembered: he got
    /// in where only the whole world gets in.
    pub(crate) fn sees_us(
        &mut self,
        now: Instant,
        allow_private: bool,
        conn: ConnId,
        observed: Addr,
    ) -> Result<(), Oddity> {
        let connection = self.connections.get_mut(&conn).ok_or(Oddity::UnknownConnection)?;
        connection.observed = Some(observed);
        let world = allow_private || ip_scope(connection.remote.ip) == IpScope::Global;
        let inbound_stranger = connection.side == Side::Inbound && connection.stranger;
        if world && inbound_stranger && connection.local.class() == observed.class() {
            let port = connection.local.port;
            let last = self.strangers.get(&observed).filter(|last| last.port == port);
            // Seen again soon, he only renews; that is read when the verdict would age out.
            let recent = last.map(|last| last.news_at).filter(|at| now < *at + SEEN_AGAIN);
            let news_at = recent.unwrap_or(now);
            self.revision += u64::from(recent.is_none());
            self.strangers.insert(observed, Sighting { at: now, news_at, port });
            if self.strangers.len() > STRANGERS_MAX {
                let oldest =
                    self.strangers.iter().min_by_key(|(_, one)| one.at).map(|(addr, _)| *addr);
                oldest.and_then(|addr| self.strangers.remove(&addr));
            }
        }
        Ok(())
    }

    /// Give up questions that are overdue.
    pub(crate) fn advance(&mut self, cx: &mut Cx<'_>) {
        if self.due.is_some_and(|due| due.at <= cx.now) {
            self.touched = true;
            self.expire_identify(cx);
            self.expire_patience(cx.now);
        }
    }

    /// Send the pings that are due, and give up those that are overdue. `worth` says which
    /// connections are worth a regular ping. Whether one was found dead.
    pub(crate) fn keep_alive(
        &mut self,
        cx: &mut Cx<'_>,
        ping_interval: Option<Duration>,
        worth: impl Fn(ConnId, PeerId) -> Worth,
    ) -> bool {
        if !self.touched {
            return false;
        }
        let before = self.revision;
        self.advance_pings(cx, ping_interval, worth);
        self.due = self.earliest_due();
        self.touched = false;
        self.revision != before
    }

    /// Other connections are worth a ping than before.
    pub(crate) fn rethink_pings(&mut self) {
        self.touched = true;
    }

    fn earliest_due(&self) -> Option<Deadline> {
        let of = |connection: &Connection| {
            let pinging = earliest(connection.pinging.deadline(), connection.late_deadline());
            earliest(connection.asking.deadline(), pinging)
        };
        let all = self.connections.values();
        all.fold(None, |least, connection| earliest(least, of(connection)))
    }

    /// When something here is due.
    pub(crate) fn deadline(&self) -> Option<Deadline> {
        self.due
    }

    /// The connection with this id.
    pub(crate) fn get(&self, conn: ConnId) -> Option<&Connection> {
        self.connections.get(&conn)
    }

    /// Every connection, in order of id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ConnId, &Connection)> {
        self.connections.iter().map(|(conn, connection)| (*conn, connection))
    }

    /// Whether somebody whom we called has not said yet who he is. Those who came to us are not
    /// waited for: they may come in any number.
    pub(crate) fn awaits_acquaintance(&self) -> bool {
        let ours = |one: &Connection| one.side == Side::Outbound && !one.relayed;
        self.connections.values().any(|one| ours(one) && one.is_asking())
    }

    /// For tests of what is chosen by it.
    #[cfg(test)]
    pub(crate) fn set_relay_load(&mut self, peer: PeerId, load: Option<u16>) {
        let of_peer = self.connections.values_mut().filter(|one| one.peer == peer);
        of_peer.for_each(|one| one.relay_load = load);
    }

    /// Counts changes to who is connected and what they serve.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// The serial number of the newest connection.
    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    /// Whether a packet of this class ever reached us.
    pub(crate) fn heard(&self, class: Class) -> bool {
        self.heard & class_bit(class) != 0
    }

    /// Whether whoever dials us from this IP is a stranger: no packet of ours may have opened the
    /// way for it, and it is an IP of the world.
    pub(crate) fn is_stranger(&self, now: Instant, ip: IpAddr, allow_private: bool) -> bool {
        let world = allow_private || ip_scope(ip) == IpScope::Global;
        world && !self.is_contacted(now, ip.to_canonical())
    }

    /// When a stranger last came in and named this address of ours, whatever socket he came to.
    pub(crate) fn sighted_at(&self, addr: Addr) -> Option<Instant> {
        self.strangers.get(&addr).map(|one| one.at)
    }

    /// When a stranger last came in on this address of ours, through the socket with this port.
    pub(crate) fn stranger_at(&self, addr: Addr, port: u16) -> Option<Instant> {
        self.strangers.get(&addr).filter(|one| one.port == port).map(|one| one.at)
    }

    /// A message arrived on a stream of this room: an identify answer, a push, or an echo.
    pub(crate) fn frame(&mut self, cx: &mut Cx<'_>, stream: StreamId, body: &Bytes) -> Heard {
        match (stream.side, stream.protocol) {
            (Side::Outbound, Protocol::Ping) => self.echoed(cx, stream, body).map(|()| None),
            (Side::Outbound, _) => self.identify_frame(cx, stream, body),
            (Side::Inbound, _) => self.push_frame(cx, stream, body),
        }
    }

    /// The peer says that it does not know the protocol of this stream of ours.
    pub(crate) fn unsupported(&mut self, cx: &mut Cx<'_>, stream: StreamId) {
        let Some(conn) = self.streams.get(&stream).copied() else {
            return;
        };
        if stream.protocol == Protocol::Ping {
            self.ping_unsupported(conn, stream);
        } else if stream.side == Side::Outbound {
            self.identify_unsupported(cx, conn);
        }
    }

    /// A stream of this room ended, or could not be opened.
    pub(crate) fn closed(&mut self, cx: &mut Cx<'_>, stream: StreamId, end: StreamEnd) -> Heard {
        match (stream.side, stream.protocol) {
            (Side::Outbound, Protocol::Ping) => self.ping_closed(cx, stream, end).map(|()| None),
            (Side::Outbound, _) => self.identify_closed(cx, stream, end).map(|()| None),
            (Side::Inbound, _) => self.push_closed(cx, stream, end).map(|()| None),
        }
    }

    /// A connection gave a sign of life.
    fn lives(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        if connection.life != Life::Sound {
            connection.life = Life::Sound;
            self.touch();
        }
    }

    /// Something changed that others read or that moves a deadline.
    fn touch(&mut self) {
        self.revision += 1;
        self.touched = true;
    }

    /// Every connection but the relayed, which stand and fall with the one to their relay; those of
    /// servers first.
    fn by_worth(&self) -> Vec<ConnId> {
        let direct = self.connections.iter().filter(|(_, one)| !one.relayed);
        let mut all: Vec<(bool, ConnId)> = direct
            .map(|(conn, one)| (!one.protocols.contains(Protocol::DialRequest), *conn))
            .collect();
        all.sort();
        all.into_iter().map(|(_, conn)| conn).collect()
    }

    /// Whether a packet of ours may have opened the way for this IP.
    fn is_contacted(&self, now: Instant, ip: IpAddr) -> bool {
        let ours = |one: &Connection| one.side == Side::Outbound && !one.relayed;
        self.contacted.contains(now, ip)
            || self.connections.values().any(|one| ours(one) && one.remote.ip == ip)
    }

    fn mint(&mut self, conn: ConnId, protocol: Protocol) -> StreamId {
        self.minted += 1;
        let stream = StreamId::outbound(protocol, self.minted);
        self.streams.insert(stream, conn);
        stream
    }
}

fn class_bit(class: Class) -> u8 {
    let family = u8::from(class.family == Family::Ip6);
    let transport = u8::from(class.transport == crate::Transport::Quic);
    1 << (family * 2 + transport)
}

saved!(struct Sighting { at, news_at, port });
saved!(struct Connection {
    peer,
    side,
    local,
    remote,
    relayed,
    stranger,
    serial as serial(),
    rtt,
    protocols,
    observed,
    relay_load,
    asking,
    push,
    record_seq,
    pinging,
    life,
});
saved!(enum Life { 1 = Sound, 2 = InDoubt, 3 = Silent, 4 = Late });
saved!(struct Peers {
    connections,
    streams,
    contacted,
    introduced,
    heard,
    strangers as current(|now, one: &Sighting| now < one.at + PROOF_LIFETIME),
    serial as told(),
    minted as told(),
    revision as revision(Room::Peers),
    due,
    touched,
}, if is_sound);

/// What every step leaves behind. A question whose stream leads elsewhere, or goes with something
/// else, would never end, and a deadline that is not the connections' own would pass unseen.
fn is_sound(peers: &Peers) -> bool {
    use crate::Protocol;
    let minted = |stream: &StreamId| stream.side == Side::Inbound || stream.number <= peers.minted;
    let asks = |(conn, connection): (&ConnId, &Connection)| {
        connection.asking.stream().is_none_or(|stream| {
            (stream.side, stream.protocol) == (Side::Outbound, Protocol::Identify)
                && peers.streams.get(&stream) == Some(conn)
        })
    };
    let keeps_apart = |connection: &Connection| {
        let pushed = connection.push.is_none_or(|(stream, _)| stream.side == Side::Inbound);
        pushed && connection.pinging.stream().is_none_or(|one| one.protocol == Protocol::Ping)
    };
    are_counts(&[peers.serial, peers.minted, peers.revision])
        && peers.streams.keys().all(minted)
        && peers.connections.iter().all(asks)
        && peers.connections.values().all(keeps_apart)
        && (peers.touched, peers.due) == (false, peers.earliest_due())
}
