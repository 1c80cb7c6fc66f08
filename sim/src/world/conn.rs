//! Connections at the level that core sees: handshakes in round trips, streams, frames in order,
//! resets; and, below it, the packets that NATs look at.
//!
//! ```text
//!  dialer    Open ─►          ─► Hand(1) ─► … ─► up, Hand(last) ─► segments ⇄
//!  listener        ─► Accept ─►          ─► Hand(2) …             ─► up
//! ```
//!
//! Everything that one side says in one moment goes as one segment. Segments are numbered,
//! delivered in order, and sent again until they arrive or patience ends; the acknowledgement is
//! taken for granted and counted as a packet.

use bytes::Bytes;
use portolan_core::{
    Addr, CircuitId, ConnId, DialId, Duration, Instant, PeerId, Protocol, PunchId, StreamId,
    Transport,
};
use std::collections::BTreeMap;

/// How many round trips things take. Everything else takes none: frames go along with what opens
/// their stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Costs {
    /// Round trips of security and muxer on TCP, after the one of TCP itself.
    pub tcp_upgrade: u8,
    /// Round trips after the one of QUIC itself.
    pub quic_upgrade: u8,
    /// Whether a stream's first frame waits for the protocol to be agreed, one round trip.
    pub streams_wait: bool,
}

impl Costs {
    /// Portolan's runtime: both negotiations on TCP are optimistic, Noise takes one round trip,
    /// and core's streams are lazy.
    pub const PORTOLAN: Costs = Costs { tcp_upgrade: 1, quic_upgrade: 0, streams_wait: false };
    /// A go-style stack: security and muxer are agreed one after the other, Noise takes one round
    /// trip more, and streams wait for their protocol.
    pub const EAGER: Costs = Costs { tcp_upgrade: 3, quic_upgrade: 0, streams_wait: true };

    pub(super) const fn upgrade(self, transport: Transport) -> u8 {
        match transport {
            Transport::Tcp => self.tcp_upgrade,
            Transport::Quic => self.quic_upgrade,
        }
    }
}

/// The first time-out of a SYN (RFC 6298 §2) and of an Initial (RFC 9002 §6.2.2: three times an
/// initial round trip of 333 ms).
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(1);
/// The least time-out of a segment; Linux's value.
const RETRY_MIN: Duration = Duration::from_millis(200);
/// How long something sent may stay without an acknowledgement on TCP: the runtime's value.
const TCP_PATIENCE: Duration = Duration::from_secs(30);
/// How long a QUIC connection lives without hearing anything: the runtime's value.
const QUIC_PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn patience(transport: Transport) -> Duration {
    match transport {
        Transport::Tcp => TCP_PATIENCE,
        Transport::Quic => QUIC_PATIENCE,
    }
}

/// When a segment that was sent so often is sent again, after it was sent last.
pub(super) fn retry_after(rtt: Duration, tries: u32) -> Duration {
    (rtt * 2).max(RETRY_MIN) * 2u32.saturating_pow(tries.min(6))
}

/// One side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    Dialer,
    Listener,
}

impl Role {
    pub(super) const fn other(self) -> Role {
        match self {
            Role::Dialer => Role::Listener,
            Role::Listener => Role::Dialer,
        }
    }
}

/// Which end of which connection.
pub(super) type EndId = (u64, Role);

/// The part of a connection that a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Open,
    Accept,
    /// The acknowledgement of an `Accept`, where nothing else is said along with it: only punching
    /// needs to see it.
    Ack,
    Segment(u32),
    Refuse,
    /// A datagram of random bytes that opens the sender's NAT, and that nobody reads.
    Noise,
}

/// What one side says to the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// A step of the handshake.
    Hand(u8),
    Open {
        key: Key,
        protocol: Protocol,
    },
    Opened {
        key: Key,
    },
    Unsupported {
        key: Key,
    },
    Frame {
        key: Key,
        body: Bytes,
    },
    Finish {
        key: Key,
    },
    Reset {
        key: Key,
    },
    /// What the end `from` of a circuit says, on the stream that carries it.
    Carry {
        key: Key,
        circuit: u64,
        from: Role,
        said: Vec<Said>,
        bytes: usize,
    },
    /// So many bytes of an application's.
    Blob(usize),
    Close,
}

/// A stream of a connection: who opened it, and its number there.
pub(super) type Key = (Role, u32);

/// Bytes of one handshake step on TCP: Noise's largest message, with a key and a signature.
const HAND_BYTES: usize = 240;
/// Bytes that opening a stream takes: Yamux's header, multistream-select's, and the name.
const OPEN_BYTES: usize = 70;
/// Bytes of a muxer's header.
const HEADER_BYTES: usize = 12;

impl Said {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Said::Hand(_) => HAND_BYTES,
            Said::Open { .. } | Said::Opened { .. } | Said::Unsupported { .. } => OPEN_BYTES,
            Said::Frame { body, .. } => body.len() + HEADER_BYTES,
            Said::Carry { bytes, .. } => bytes + HEADER_BYTES,
            Said::Blob(bytes) => *bytes,
            Said::Finish { .. } | Said::Reset { .. } | Said::Close => HEADER_BYTES,
        }
    }
}

/// What was said in one moment, until it has arrived.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) said: Vec<Said>,
    pub(super) bytes: usize,
    pub(super) first_sent: Instant,
    pub(super) tries: u32,
}

/// Why somebody dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The application wants to talk to a target of this number.
    Target(usize),
    /// Core wants to dial back.
    DialBack(DialId),
    /// A bad server does, for the request of this number.
    Scripted(u64),
    /// A plain stranger, who hangs up after a while.
    Stranger,
    /// Core wants to reach a relay, at this address.
    Relay(PeerId, Addr),
    /// The application wants to reach a relay, for this call.
    Call(CircuitId),
    /// Core wants a direct connection out of a relayed one.
    Punch(PunchId),
    /// Hands are shaken over this stream; whom to find at its other end, and the call.
    Circuit { stream: StreamId, peer: PeerId, call: Option<CircuitId> },
}

/// Who speaks on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Voice {
    /// Core does.
    Core,
    /// A script of the world's.
    Script,
    /// It was taken as a circuit from this peer, of whom nothing has come yet.
    Awaits(PeerId),
    /// It carries this end of a circuit.
    Circuit(EndId),
    /// It is passed on, by the bridge that the initiator's stream names.
    Bridge(StreamId),
}

/// The stream that carries an end of a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Via {
    pub(super) carrier: EndId,
    pub(super) key: Key,
}

/// How far one side is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The dialer waits for an answer to its first packet.
    Opening,
    Shaking,
    Up,
    /// It has said that it closes, and only sees to it that all arrives.
    Leaving,
    Gone,
}

/// A stream as one side sees it.
#[derive(Clone, Debug)]
pub(super) struct StreamEnd {
    pub(super) key: Key,
    pub(super) ours_done: bool,
    pub(super) theirs_done: bool,
    /// Said before the protocol was agreed, where streams wait for that.
    pub(super) held: Option<Vec<Said>>,
    pub(super) voice: Voice,
}

/// One side's half of a connection.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) node: usize,
    /// The actual local address of the socket.
    pub(super) local: Addr,
    /// Where packets to the other side go.
    pub(super) remote: Addr,
    /// Who this side says it is.
    pub(super) peer: PeerId,
    pub(super) phase: Phase,
    pub(super) id: Option<ConnId>,
    pub(super) purpose: Option<Purpose>,
    /// What carries it, where it is a circuit's; no packet of its own leaves then.
    pub(super) via: Option<Via>,
    /// Bytes of an application's that came in.
    pub(super) poured: usize,
    pub(super) rtt: Duration,
    pub(super) streams: BTreeMap<StreamId, StreamEnd>,
    pub(super) by_key: BTreeMap<Key, StreamId>,
    pub(super) next_key: u32,
    pub(super) outbox: Vec<Said>,
    pub(super) pending: BTreeMap<u32, Segment>,
    pub(super) early: BTreeMap<u32, Vec<Said>>,
    pub(super) next_out: u32,
    pub(super) next_in: u32,
    pub(super) heard_at: Instant,
    pub(super) used_at: Instant,
}

impl End {
    pub(super) fn new(
        now: Instant,
        node: usize,
        (local, remote): (Addr, Addr),
        peer: PeerId,
    ) -> End {
        End {
            node,
            local,
            remote,
            peer,
            phase: Phase::Opening,
            id: None,
            purpose: None,
            via: None,
            poured: 0,
            rtt: Duration::ZERO,
            streams: BTreeMap::new(),
            by_key: BTreeMap::new(),
            next_key: 0,
            outbox: Vec::new(),
            pending: BTreeMap::new(),
            early: BTreeMap::new(),
            next_out: 0,
            next_in: 0,
            heard_at: now,
            used_at: now,
        }
    }

    /// Whether streams can be used on it.
    pub(super) fn is_up(&self) -> bool {
        self.phase == Phase::Up
    }

    /// Whether a peer may open streams: not towards one who dials back.
    pub(super) fn serves(&self) -> bool {
        !matches!(self.purpose, Some(Purpose::DialBack(_) | Purpose::Scripted(_)))
    }

    pub(super) fn insert_stream(&mut self, stream: StreamId, end: StreamEnd) {
        self.by_key.insert(end.key, stream);
        self.streams.insert(stream, end);
    }

    pub(super) fn remove_stream(&mut self, stream: StreamId) -> Option<StreamEnd> {
        let end = self.streams.remove(&stream)?;
        self.by_key.remove(&end.key);
        Some(end)
    }
}

/// A connection, from the first packet on.
#[derive(Clone, Debug)]
pub(super) struct Conn {
    pub(super) dialer: End,
    pub(super) listener: Option<End>,
    /// Handshake steps until the listener is up.
    pub(super) hands: u8,
    pub(super) opened_at: Instant,
    pub(super) tries: u32,
    /// Whoever accepted it has dropped it since.
    pub(super) abandoned: bool,
    /// Who begins the handshakes: the dialer, but where both punch. Where both want to, or neither
    /// does, nobody.
    pub(super) client: Option<Role>,
    /// Whether the listener's side of TCP is established.
    pub(super) acked: bool,
    /// The connection that its dialer's socket belongs to, since the SYNs of both met.
    pub(super) met: Option<u64>,
    /// The dial of the listener's whose socket this connection has taken over.
    pub(super) absorbed: Option<u64>,
}

impl Conn {
    /// A dial that begins.
    pub(super) fn new(now: Instant, dialer: End, hands: u8) -> Conn {
        Conn {
            dialer,
            listener: None,
            hands,
            opened_at: now,
            tries: 0,
            abandoned: false,
            client: Some(Role::Dialer),
            acked: false,
            met: None,
            absorbed: None,
        }
    }

    pub(super) fn end(&self, role: Role) -> Option<&End> {
        match role {
            Role::Dialer => Some(&self.dialer),
            Role::Listener => self.listener.as_ref(),
        }
    }

    pub(super) fn end_mut(&mut self, role: Role) -> Option<&mut End> {
        match role {
            Role::Dialer => Some(&mut self.dialer),
            Role::Listener => self.listener.as_mut(),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        let gone = |end: &End| end.phase == Phase::Gone;
        gone(&self.dialer) && self.listener.as_ref().is_none_or(gone)
    }
}
