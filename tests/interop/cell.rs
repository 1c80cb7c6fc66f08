//! One cell of the table: a peer, a protocol, Portolan's role in it, a transport, and how it went.

use portolan_core::Transport;
use serde_json::{Value, json};

/// Where the two peers meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// On 127.0.0.1, with private addresses allowed.
    Loopback,
    /// On global addresses, with everything at its default: a network namespace of its own, whose
    /// loopback interface holds them.
    Global,
}

impl Place {
    /// The words in the table.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Place::Loopback => "loopback",
            Place::Global => "global, in a namespace",
        }
    }
}

/// Which of the peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// rust-libp2p.
    Rust,
    /// js-libp2p.
    Js,
}

/// What Portolan runs on. Every cell is run on each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum On {
    /// tokio.
    Tokio,
    /// smol.
    Smol,
}

impl On {
    /// Every runtime, in order.
    pub(crate) const ALL: [On; 2] = [On::Tokio, On::Smol];

    /// The word in the table.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            On::Tokio => "tokio",
            On::Smol => "smol",
        }
    }
}

/// A row of the table; its two cells are TCP and QUIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Row {
    /// The peer.
    pub(crate) kind: Kind,
    /// Where they meet.
    pub(crate) place: Place,
    /// Of what.
    pub(crate) protocol: Protocol,
    /// What Portolan does in it.
    pub(crate) role: Role,
}

/// A protocol of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    /// `/ipfs/id/1.0.0`.
    Identify,
    /// `/ipfs/ping/1.0.0`.
    Ping,
    /// Both streams of AutoNAT v2.
    Autonat,
    /// `/ipfs/id/push/1.0.0`.
    Push,
    /// The signed peer record in identify and in pushes.
    Record,
    /// AutoNAT v1, of a client that can be dialled.
    V1Reachable,
    /// AutoNAT v1, of a client that cannot.
    V1Unreachable,
}

impl Protocol {
    /// Every protocol, in order.
    const ALL: [Protocol; 7] = [
        Protocol::Identify,
        Protocol::Ping,
        Protocol::Autonat,
        Protocol::Push,
        Protocol::Record,
        Protocol::V1Reachable,
        Protocol::V1Unreachable,
    ];

    /// The word in the table.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Protocol::Identify => "identify",
            Protocol::Ping => "ping",
            Protocol::Autonat => "AutoNAT v2",
            Protocol::Push => "identify/push",
            Protocol::Record => "signed peer record",
            Protocol::V1Reachable => "AutoNAT v1, reachable",
            Protocol::V1Unreachable => "AutoNAT v1, not reachable",
        }
    }
}

/// What Portolan does in a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Asks, on a connection that it dialled.
    AsksDialled,
    /// Answers, on a connection that it dialled.
    AnswersDialled,
    /// Asks, on a connection that it accepted.
    AsksAccepted,
    /// Answers, on a connection that it accepted.
    AnswersAccepted,
    /// The AutoNAT client: it is dialled back.
    Client,
    /// The AutoNAT server: it dials back.
    Server,
    /// Tells of an address of its own once that is proved.
    Tells,
}

impl Role {
    /// Every role, in order.
    pub(crate) const ALL: [Role; 7] = [
        Role::AsksDialled,
        Role::AnswersDialled,
        Role::AsksAccepted,
        Role::AnswersAccepted,
        Role::Client,
        Role::Server,
        Role::Tells,
    ];

    /// The words in the table.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Role::AsksDialled => "asks where it dialled",
            Role::AnswersDialled => "answers where it dialled",
            Role::AsksAccepted => "asks where it was dialled",
            Role::AnswersAccepted => "answers where it was dialled",
            Role::Client => "client",
            Role::Server => "server",
            Role::Tells => "tells of its proved address",
        }
    }
}

/// One cell.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    /// Its row.
    pub(crate) row: Row,
    /// Its column.
    pub(crate) transport: Transport,
    /// Nothing if it works, else why not.
    pub(crate) result: Result<(), String>,
}

impl Cell {
    /// A line by which a cell gets out of the namespace.
    pub(crate) fn to_line(&self, on: On) -> String {
        json!({
            "kind": self.row.kind as u8,
            "place": self.row.place as u8,
            "protocol": self.row.protocol as u8,
            "role": self.row.role as u8,
            "on": on as u8,
            "quic": self.transport == Transport::Quic,
            "error": self.result.as_ref().err(),
        })
        .to_string()
    }

    /// The cell of a line; `None` for any other line.
    pub(crate) fn from_line(line: &str) -> Option<(On, Cell)> {
        let value: Value = serde_json::from_str(line).ok()?;
        let nth = |field: &str| usize::try_from(value[field].as_u64()?).ok();
        let row = Row {
            kind: [Kind::Rust, Kind::Js].get(nth("kind")?).copied()?,
            place: [Place::Loopback, Place::Global].get(nth("place")?).copied()?,
            protocol: Protocol::ALL.get(nth("protocol")?).copied()?,
            role: Role::ALL.get(nth("role")?).copied()?,
        };
        let on = On::ALL.get(nth("on")?).copied()?;
        let transport = if value["quic"].as_bool()? { Transport::Quic } else { Transport::Tcp };
        let result = value["error"].as_str().map_or(Ok(()), |error| Err(error.to_owned()));
        Some((on, Cell { row, transport, result }))
    }
}
