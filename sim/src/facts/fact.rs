//! One fact that can befall a node, and the lines of a story that tell it.

use super::cast::Peer;
use portolan_core::{
    Addr, ConnId, DialFailure, DialId, Duration, ListenerId, Side, StreamEnd, StreamFailure,
    StreamId,
};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// Where dials of strangers who are refused come from.
pub(super) const REFUSED_FROM: IpAddr = IpAddr::V4(Ipv4Addr::new(44, 0, 99, 1));

/// What a server says to a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Answer {
    /// It dialled, and delivered the nonce.
    Ok,
    /// It could not connect.
    DialError,
    /// It could not connect from an IP that we never called, and says so.
    StrangerFailed,
    /// It connected, and could not deliver the nonce.
    DialBackError,
    /// It will not dial such an address.
    Refused,
    /// A limit of its own.
    Rejected,
    /// A fault of its own.
    Internal,
    /// A code that nobody has defined.
    Unknown,
}

impl Answer {
    /// Every answer there is.
    pub const ALL: [Answer; 8] = [
        Answer::Ok,
        Answer::DialError,
        Answer::StrangerFailed,
        Answer::DialBackError,
        Answer::Refused,
        Answer::Rejected,
        Answer::Internal,
        Answer::Unknown,
    ];

    /// As a story says it.
    pub(super) fn words(self) -> &'static str {
        match self {
            Answer::Ok => "OK OK",
            Answer::DialError => "OK DIAL_ERROR",
            Answer::StrangerFailed => "OK DIAL_ERROR from=44.0.99.1",
            Answer::DialBackError => "OK DIAL_BACK_ERROR",
            Answer::Refused => "REFUSED",
            Answer::Rejected => "REJECTED",
            Answer::Internal => "INTERNAL",
            Answer::Unknown => "150",
        }
    }
}

/// Which number a dial-back brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Nonce {
    /// That of the last probe in which this server was asked about this address.
    Of(Peer, Addr),
    /// This number, which no probe has.
    Wrong(u64),
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Nonce::Of(server, addr) => write!(f, "nonce={server}@{addr}"),
            Nonce::Wrong(number) => write!(f, "nonce={number}"),
        }
    }
}

/// One fact. Ids are those that the fact itself brings into the world; a fact whose ids or
/// circumstances do not fit the moment does not happen (see [`Bench::perform`](super::Bench::perform)).
#[derive(Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of the line in docs/scenarios.md")]
pub enum Fact {
    /// A listening socket stands.
    Listen { listener: ListenerId, addr: Addr },
    /// It is gone.
    CloseListener { listener: ListenerId },
    /// The interfaces have these addresses now.
    Interfaces { ips: Vec<IpAddr> },
    /// The application sent a first packet there.
    Contacted { ip: IpAddr },
    /// Peers told the application that they could not dial this address.
    Reported { addr: Addr },
    /// A connection stands.
    Connect {
        conn: ConnId,
        peer: Peer,
        side: Side,
        remote: Addr,
        local: Addr,
        rtt: Option<Duration>,
        relayed: bool,
    },
    /// It is gone.
    Disconnect { conn: ConnId },
    /// The answer to our identify.
    Identify { conn: ConnId, observed: Option<Addr>, server: bool },
    /// The same, pushed.
    Push { conn: ConnId, observed: Option<Addr>, server: bool },
    /// The peer asks who we are.
    AskIdentify { conn: ConnId },
    /// The peer echoes our ping.
    Echo { conn: ConnId },
    /// A server answers the probe that asks it about this address.
    Answer { server: Peer, addr: Addr, answer: Answer },
    /// It wants dial data first.
    DataRequest { server: Peer, addr: Addr, bytes: u64 },
    /// A new inbound connection delivers a number, and is gone again unless it `stays`.
    DialBack { conn: ConnId, peer: Peer, remote: Addr, local: Addr, nonce: Nonce, stays: bool },
    /// A connection that stands delivers a number.
    DialBackOn { conn: ConnId, nonce: Nonce },
    /// A stream of ours could not be opened.
    Failed { stream: StreamId, reason: StreamFailure },
    /// The peer's side of a stream is over.
    Ended { stream: StreamId, end: StreamEnd },
    /// A peer asks us to dial it.
    Request { conn: ConnId, nonce: u64, addrs: Vec<Addr> },
    /// It pays dial data, in chunks of so many bytes.
    Data { conn: ConnId, bytes: u64, chunk: u64 },
    /// A dial of ours connects to this peer.
    Dialled { dial: DialId, conn: ConnId, peer: Peer },
    /// A dial of ours fails.
    DialFailed { dial: DialId, reason: DialFailure },
    /// The peer takes our dial-back.
    Accept { conn: ConnId },
    /// Time passes, and every deadline on the way fires.
    Pass { span: Duration },
    /// Time passes, and nobody wakes the node before the end.
    Oversleep { span: Duration },
    /// Time passes while the machine is suspended.
    Resume { span: Duration },
}

impl fmt::Debug for Fact {
    /// As a story says it: lists of facts are read by people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The kind of a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the kinds are those of `Fact`")]
pub enum Kind {
    Listen,
    CloseListener,
    Interfaces,
    Contacted,
    Reported,
    Connect,
    Disconnect,
    Identify,
    Push,
    AskIdentify,
    Echo,
    Answer,
    DataRequest,
    DialBack,
    /// A dial-back from a stranger, with a wrong number, or over another transport.
    OddDialBack,
    DialBackOn,
    Failed,
    Ended,
    Request,
    Data,
    Dialled,
    DialFailed,
    Accept,
    Pass,
    Oversleep,
    Resume,
}

impl Kind {
    /// How often a chooser by chance should take one of this kind, beside the others: what builds
    /// up comes more often than what tears down.
    pub const fn weight(self) -> u32 {
        match self {
            Kind::CloseListener | Kind::Interfaces | Kind::Resume => 1,
            Kind::Contacted | Kind::Reported => 1,
            Kind::Failed | Kind::Ended | Kind::Oversleep => 2,
            Kind::DialBackOn | Kind::DataRequest | Kind::OddDialBack => 4,
            Kind::Disconnect | Kind::Push | Kind::AskIdentify | Kind::DialFailed => 6,
            Kind::Connect | Kind::Echo | Kind::Data | Kind::Accept | Kind::DialBack => 20,
            Kind::Listen | Kind::Request | Kind::Dialled | Kind::Pass => 20,
            Kind::Answer | Kind::Identify => 30,
        }
    }
}

impl Fact {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Fact::Listen { .. } => Kind::Listen,
            Fact::CloseListener { .. } => Kind::CloseListener,
            Fact::Interfaces { .. } => Kind::Interfaces,
            Fact::Contacted { .. } => Kind::Contacted,
            Fact::Reported { .. } => Kind::Reported,
            Fact::Connect { .. } => Kind::Connect,
            Fact::Disconnect { .. } => Kind::Disconnect,
            Fact::Identify { .. } => Kind::Identify,
            Fact::Push { .. } => Kind::Push,
            Fact::AskIdentify { .. } => Kind::AskIdentify,
            Fact::Echo { .. } => Kind::Echo,
            Fact::Answer { .. } => Kind::Answer,
            Fact::DataRequest { .. } => Kind::DataRequest,
            Fact::DialBack { remote, nonce: Nonce::Of(server, addr), .. }
                if remote.class() == addr.class()
                    && remote.ip == server.ip(addr.class().family) =>
            {
                Kind::DialBack
            }
            Fact::DialBack { .. } => Kind::OddDialBack,
            Fact::DialBackOn { .. } => Kind::DialBackOn,
            Fact::Failed { .. } => Kind::Failed,
            Fact::Ended { .. } => Kind::Ended,
            Fact::Request { .. } => Kind::Request,
            Fact::Data { .. } => Kind::Data,
            Fact::Dialled { .. } => Kind::Dialled,
            Fact::DialFailed { .. } => Kind::DialFailed,
            Fact::Accept { .. } => Kind::Accept,
            Fact::Pass { .. } => Kind::Pass,
            Fact::Oversleep { .. } => Kind::Oversleep,
            Fact::Resume { .. } => Kind::Resume,
        }
    }
}
