//! A whole agent among relays that are played, for tests: facts in, actions out, in virtual time.

use crate::agent::Agent;
use crate::wire::identify::Identify;
use crate::wire::multiaddr;
use crate::wire::relay::{HopMessage, Reservation, StopMessage, Voucher};
use crate::{
    Action, Actions, Addr, CircuitLimit, Config, ConnId, Connected, Cx, DialFailure, Draw,
    Duration, Event, Instant, ListenerId, Notice, PeerId, Protocol, Relay, RelayAction,
    RelayConfig, RelayEvent, RelayNotice, RelayPeer, RelayState, RelayStatus, Side, Signer,
    StreamEnd, StreamFailure, StreamId, UnixTime,
};
use alloc::borrow::ToOwned;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec;
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::{IpAddr, Ipv4Addr};
use libp2p_identity::Keypair;

/// The wall clock of the relays when the test begins, seconds.
const UNIX: u64 = 1_700_000_000;

/// How a relay answers a question for a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Grants,
    Says(RelayStatus),
    Silent,
    Babbles,
    Unsupported,
}

/// Whose voucher comes with a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signed {
    Nothing,
    Well,
    ForSomebodyElse,
    BySomebodyElse,
    UntilAnotherTime,
}

/// A relay that is played.
pub(super) struct Player {
    pub(super) key: Keypair,
    pub(super) addr: Addr,
    pub(super) rtt: Duration,
    pub(super) load: Option<u16>,
    pub(super) hop: bool,
    pub(super) answer: Answer,
    pub(super) signed: Signed,
    pub(super) lifetime: u64,
    /// Whether it can be dialled.
    pub(super) up: bool,
    /// Whether nothing comes from it any more, though its connection stands.
    pub(super) dead: bool,
    pub(super) conn: Option<ConnId>,
    pub(super) dials: Vec<Instant>,
    pub(super) asks: Vec<Instant>,
}

impl Player {
    pub(super) fn peer(&self) -> PeerId {
        self.key.public().to_peer_id()
    }
}

struct Seeded(u64);

impl Draw for Seeded {
    fn below(&mut self, n: u64) -> u64 {
        self.nonce().checked_rem(n).unwrap_or(0)
    }

    /// Xorshift.
    fn nonce(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

struct Key(Keypair);

impl Signer for Key {
    fn sign(&mut self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).expect("ed25519 always signs")
    }
}

/// What comes in later, and over which connection, which must stand then.
type Later = (Option<ConnId>, Event);

/// When what was told changed, and which relays' addresses came and went.
pub(super) type Change = (Instant, Vec<usize>, Vec<usize>);

/// The agent, the relays, and what went out.
pub(super) struct Bench {
    pub(super) agent: Agent,
    key: Key,
    draw: Seeded,
    pub(super) now: Instant,
    /// Our wall clock is so many seconds ahead of the relays'.
    pub(super) ahead: i64,
    pub(super) players: Vec<Player>,
    queue: BTreeMap<Instant, VecDeque<Later>>,
    streams: BTreeMap<StreamId, ConnId>,
    conns: u64,
    inbound: u64,
    /// What went out, but for what belongs to identify and ping.
    pub(super) actions: Vec<(Instant, Action)>,
    /// Moments at which no circuit address was told, after the first was.
    pub(super) gaps: Vec<Instant>,
    was_told: bool,
}

pub(super) fn ip(net: u8, host: u8) -> IpAddr {
    Ipv4Addr::new(44, 0, net, host).into()
}

/// Relays at these distances, milliseconds, each in a network of its own.
pub(super) fn players(rtts: &[u64]) -> Vec<Player> {
    let player = |(number, rtt): (u8, &u64)| Player {
        key: Keypair::ed25519_from_bytes([number; 32]).expect("32 bytes are a key"),
        addr: Addr::tcp(ip(number, 1), 4001),
        rtt: Duration::from_millis(*rtt),
        load: None,
        hop: true,
        answer: Answer::Grants,
        signed: Signed::Well,
        lifetime: 3_600,
        up: true,
        dead: false,
        conn: None,
        dials: vec![],
        asks: vec![],
    };
    (1..).zip(rtts).map(player).collect()
}

impl Bench {
    /// An agent that always needs relays, and knows the first `configured` of them.
    pub(super) fn new(
        seed: u64,
        players: Vec<Player>,
        configured: usize,
        change: impl FnOnce(&mut Config, &mut RelayConfig),
    ) -> Bench {
        let relay = |player: &Player| RelayPeer { peer: player.peer(), addrs: vec![player.addr] };
        let relays = players.iter().take(configured).map(relay).collect();
        let need = crate::RelayNeed::Always;
        let mut asked = RelayConfig { relays, need, ..RelayConfig::default() };
        let mut config = Config::default();
        change(&mut config, &mut asked);
        config.relay = Some(asked);
        let key = Keypair::ed25519_from_bytes([200; 32]).expect("32 bytes are a key");
        let mut bench = Bench {
            agent: Agent::new(config, key.public()).expect("a sound configuration"),
            key: Key(key),
            draw: Seeded(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            now: Instant::from_millis(1_000),
            ahead: 0,
            players,
            queue: BTreeMap::new(),
            streams: BTreeMap::new(),
            conns: 0,
            inbound: 0,
            actions: vec![],
            gaps: vec![],
            was_told: false,
        };
        let home = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 2));
        bench.happen(Event::InterfacesChanged { ips: vec![home] });
        let addr = Addr::tcp(home, 4001);
        bench.happen(Event::ListenerOpened { listener: ListenerId(1), addr });
        bench
    }

    /// One fact, now.
    pub(super) fn happen(&mut self, event: Event) {
        let mut actions = Actions::new();
        let millis = self.now.as_nanos() / 1_000_000 + UNIX * 1_000;
        let unix = millis.saturating_add_signed(self.ahead * 1_000);
        let mut cx = Cx {
            now: self.now,
            unix: UnixTime::from_millis(unix),
            draw: &mut self.draw,
            sign: &mut self.key,
            actions: &mut actions,
        };
        self.agent.handle(&mut cx, event);
        for action in actions.drain() {
            self.perform(&action);
            self.actions.push((self.now, action));
        }
        let is_told = !self.told().is_empty();
        if self.was_told && !is_told {
            self.gaps.push(self.now);
        }
        self.was_told |= is_told;
    }

    /// Let time pass.
    pub(super) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let due = self.agent.deadline().map(|deadline| deadline.at);
            let next = self.queue.keys().next().copied();
            let at = match (due, next) {
                (Some(one), Some(other)) => one.min(other),
                (one, other) => match one.or(other) {
                    Some(at) => at,
                    None => break,
                },
            };
            if at > end {
                break;
            }
            self.now = self.now.max(at);
            match self.queue.get_mut(&at).and_then(VecDeque::pop_front) {
                Some((conn, event)) => {
                    if conn.is_none_or(|conn| self.stands(conn)) {
                        self.happen(event);
                    }
                }
                None => {
                    self.queue.remove(&at);
                    self.happen(Event::Tick);
                }
            }
        }
        self.now = end;
        self.happen(Event::Tick);
    }

    pub(super) fn seconds(&mut self, seconds: u64) {
        self.run(Duration::from_secs(seconds));
    }

    fn stands(&self, conn: ConnId) -> bool {
        self.players.iter().any(|player| player.conn == Some(conn) && !player.dead)
            || self.agent.peers.get(conn).is_some_and(|one| one.relayed)
    }

    fn later(&mut self, after: Duration, conn: Option<ConnId>, event: Event) {
        self.queue.entry(self.now + after).or_default().push_back((conn, event));
    }

    fn player_of(&self, conn: ConnId) -> Option<usize> {
        self.players.iter().position(|player| player.conn == Some(conn))
    }

    /// A relay comes to be connected, by whomever.
    pub(super) fn connect(&mut self, number: usize, side: Side) -> ConnId {
        self.conns += 1;
        let conn = ConnId(self.conns);
        let player = &mut self.players[number];
        player.conn = Some(conn);
        player.dead = false;
        let event = Event::Connected(Connected {
            conn,
            peer: player.peer(),
            side,
            local: Addr::tcp(Ipv4Addr::new(192, 168, 1, 2).into(), 4001),
            remote: player.addr,
            relayed: false,
            dial: None,
            rtt: Some(player.rtt),
        });
        let (peer, load) = (player.peer(), player.load);
        self.happen(event);
        self.agent.peers.set_relay_load(peer, load);
        conn
    }

    /// A connection that runs through a relay.
    pub(super) fn connect_relayed(&mut self, number: usize) -> ConnId {
        self.conns += 1;
        let player = &self.players[number];
        let event = Event::Connected(Connected {
            conn: ConnId(self.conns),
            peer: player.peer(),
            side: Side::Outbound,
            local: Addr::tcp(Ipv4Addr::new(192, 168, 1, 2).into(), 4001),
            remote: player.addr,
            relayed: true,
            dial: None,
            rtt: Some(player.rtt),
        });
        self.happen(event);
        ConnId(self.conns)
    }

    pub(super) fn disconnect(&mut self, number: usize) {
        if let Some(conn) = self.players[number].conn.take() {
            self.happen(Event::Disconnected { conn });
        }
    }

    /// A relay says what it speaks by now.
    pub(super) fn push(&mut self, number: usize) {
        let conn = self.players[number].conn.expect("it is connected");
        self.inbound += 1;
        let stream = StreamId::inbound(Protocol::IdentifyPush, self.inbound);
        self.happen(Event::StreamOpened { conn, stream });
        let body = self.identify(number);
        self.happen(Event::Frame { stream, body });
        self.happen(Event::StreamClosed { stream, end: StreamEnd::Finished });
    }

    /// A relay brings a circuit; what is said to it.
    pub(super) fn bring(&mut self, conn: ConnId, body: Bytes) -> Option<RelayStatus> {
        self.inbound += 1;
        let stream = StreamId::inbound(Protocol::Stop, self.inbound);
        self.happen(Event::StreamOpened { conn, stream });
        self.happen(Event::Frame { stream, body });
        let said = |(_, action): &(Instant, Action)| {
            let Action::Send { stream: on, body } = action else { return None };
            match StopMessage::decode(body) {
                Ok(StopMessage::Status { status }) if *on == stream => Some(status),
                Ok(StopMessage::Status { .. } | StopMessage::Connect { .. }) | Err(_) => None,
            }
        };
        self.actions.iter().rev().find_map(said)
    }

    /// A peer opens so many streams for circuits and says nothing; how many of them stand.
    pub(super) fn fall_silent(&mut self, conn: ConnId, count: u64) -> usize {
        let first = self.inbound + 1;
        self.inbound += count;
        let streams =
            (first..first + count).map(|number| StreamId::inbound(Protocol::Stop, number));
        let stands = |bench: &Bench, stream: StreamId| {
            let reset = Action::ResetStream { stream };
            bench.actions.iter().all(|(_, action)| *action != reset)
        };
        let mut standing = 0;
        for stream in streams {
            self.happen(Event::StreamOpened { conn, stream });
            standing += usize::from(stands(self, stream));
        }
        standing
    }

    fn perform(&mut self, action: &Action) {
        if let Action::Relay(RelayAction::Connect { peer, addr }) = action {
            self.dial(*peer, *addr);
        }
        if let Action::Send { stream, body } = action
            && stream.side == Side::Outbound
        {
            self.hear(*stream, body);
        }
        let Action::OpenStream { conn, stream } = action else { return };
        self.streams.insert(*stream, *conn);
        let Some(number) = self.player_of(*conn) else { return };
        let (rtt, stream) = (self.players[number].rtt, *stream);
        if stream.protocol == Protocol::Identify {
            let body = self.identify(number);
            self.later(rtt, Some(*conn), Event::Frame { stream, body });
        }
        let is_odd = self.players[number].answer == Answer::Unsupported;
        if stream.protocol == Protocol::Hop && is_odd {
            let reason = StreamFailure::Unsupported;
            self.later(rtt, Some(*conn), Event::StreamFailed { stream, reason });
        }
    }

    fn dial(&mut self, peer: PeerId, addr: Addr) {
        let number = self.players.iter().position(|player| player.peer() == peer);
        let number = number.expect("a relay that there is");
        let player = &mut self.players[number];
        player.dials.push(self.now);
        let rtt = player.rtt;
        if !player.up || player.addr != addr {
            let reason = DialFailure::Refused;
            let event = RelayEvent::ConnectFailed { peer, addr, reason };
            return self.later(rtt, None, Event::Relay(event));
        }
        self.conns += 1;
        let conn = ConnId(self.conns);
        player.conn = Some(conn);
        player.dead = false;
        let event = Event::Connected(Connected {
            conn,
            peer,
            side: Side::Outbound,
            local: Addr::tcp(Ipv4Addr::new(192, 168, 1, 2).into(), 4001),
            remote: addr,
            relayed: false,
            dial: None,
            rtt: Some(rtt),
        });
        self.later(rtt * 4, Some(conn), event);
    }

    /// A relay hears something from us.
    fn hear(&mut self, stream: StreamId, body: &Bytes) {
        let Some(conn) = self.streams.get(&stream).copied() else { return };
        let Some(number) = self.player_of(conn) else { return };
        let rtt = self.players[number].rtt;
        let body = if stream.protocol == Protocol::Ping {
            Some(body.clone())
        } else if stream.protocol == Protocol::Hop {
            self.answer(number, body)
        } else {
            None
        };
        if let Some(body) = body {
            self.later(rtt, Some(conn), Event::Frame { stream, body });
        }
    }

    fn answer(&mut self, number: usize, body: &Bytes) -> Option<Bytes> {
        let unix = UNIX + self.now.as_nanos() / 1_000_000_000;
        let us = self.agent.peer_id();
        let player = &mut self.players[number];
        let limit = CircuitLimit { duration: Some(Duration::from_secs(120)), bytes: Some(1 << 17) };
        let is_reserve = HopMessage::decode(body) == Ok(HopMessage::Reserve);
        if is_reserve {
            player.asks.push(self.now);
        }
        let (status, reservation) = match player.answer {
            Answer::Silent | Answer::Unsupported => return None,
            Answer::Babbles => return Some(Bytes::from_static(b"\xff\xff")),
            Answer::Says(status) => (status, None),
            Answer::Grants if !is_reserve => (RelayStatus::Ok, None),
            Answer::Grants => {
                let expire = unix + player.lifetime;
                let voucher = player.voucher(us, expire);
                let addrs = vec![multiaddr::encode(player.addr)];
                (RelayStatus::Ok, Some(Reservation { expire, addrs, voucher }))
            }
        };
        Some(HopMessage::Status { status, reservation, limit }.encode())
    }

    fn identify(&self, number: usize) -> Bytes {
        let player = &self.players[number];
        let mut protocols = vec![Protocol::Identify.name().to_owned()];
        if player.hop {
            protocols.push(Protocol::Hop.name().to_owned());
        }
        let identify = Identify { protocols, ..Identify::default() };
        identify.encode_split().messages.into_iter().next().expect("a message")
    }

    /// The relays whose circuit addresses are told, by number.
    pub(super) fn told(&self) -> Vec<usize> {
        let relays = self.agent.advertise.circuits().iter().map(|circuit| circuit.relay);
        let mut told: Vec<usize> = relays.filter_map(|relay| self.number(relay)).collect();
        told.sort_unstable();
        told
    }

    fn number(&self, peer: PeerId) -> Option<usize> {
        self.players.iter().position(|player| player.peer() == peer)
    }

    pub(super) fn relay(&self, number: usize) -> Relay {
        let peer = self.players[number].peer();
        self.agent.relays().find(|relay| relay.peer == peer).expect("a relay that is known")
    }

    pub(super) fn state(&self, number: usize) -> RelayState {
        self.relay(number).state
    }

    /// What was withdrawn and what was told anew, each with its moment, by number.
    pub(super) fn changes(&self) -> Vec<Change> {
        let numbers = |all: &Vec<crate::CircuitAddr>| {
            all.iter().filter_map(|one| self.number(one.relay)).collect()
        };
        let of = |(at, action): &(Instant, Action)| {
            let Action::Notify(Notice::Relay(notice)) = action else { return None };
            let RelayNotice::CircuitAddrsChanged { added, removed } = notice else { return None };
            Some((*at, numbers(added), numbers(removed)))
        };
        self.actions.iter().filter_map(of).collect()
    }

    pub(super) fn relay_actions(&self) -> Vec<RelayAction> {
        let of = |(_, action): &(Instant, Action)| {
            let Action::Relay(action) = action else { return None };
            Some(action.clone())
        };
        self.actions.iter().filter_map(of).collect()
    }
}

impl Player {
    fn voucher(&self, us: PeerId, expiration: u64) -> Option<Bytes> {
        let other = Keypair::ed25519_from_bytes([201; 32]).expect("32 bytes are a key");
        let stranger = other.public().to_peer_id();
        let (key, peer, expiration) = match self.signed {
            Signed::Nothing => return None,
            Signed::Well => (self.key.clone(), us, expiration),
            Signed::ForSomebodyElse => (self.key.clone(), stranger, expiration),
            Signed::BySomebodyElse => (other, us, expiration),
            Signed::UntilAnotherTime => (self.key.clone(), us, expiration + 1),
        };
        let relay = key.public().to_peer_id();
        let voucher = Voucher { relay, peer, expiration };
        Some(voucher.sealed(&key.public(), &mut Key(key.clone())))
    }
}

/// The most of these moments that lie within one minute.
pub(super) fn busiest_minute(moments: &[Instant]) -> usize {
    let mut moments = moments.to_vec();
    moments.sort_unstable();
    let minute = Duration::from_secs(60);
    let within =
        |from: &Instant| moments.iter().filter(|at| *from <= **at && **at < *from + minute).count();
    moments.iter().map(within).max().unwrap_or(0)
}
