//! How the operations of a node can fail: one small enum for each.

use super::address::AddressError;
use crate::ledger::LedgerError;
use crate::names::NameError;
use crate::net;
use crate::record::RecordError;
use multiaddr::Multiaddr;
use portolan_core::{CircuitFailure, ConfigError, PeerId, RelayStatus};

/// The node has been shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node has been shut down")]
pub struct Stopped;

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The connection stack cannot work with the key.
    #[error(transparent)]
    Setup(#[from] net::SetupError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The operating system gives no randomness.
    #[error("the operating system gives no randomness: {0}")]
    NoRandomness(rand::rngs::SysError),
    /// The flight record cannot be written. The error names the file.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The ledger of mappings cannot be kept. The error names the file.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Why an address is not listened on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// It is not one that can be listened on.
    #[error("cannot listen on {addr}: it {error}")]
    Address {
        /// The address, as given.
        addr: Multiaddr,
        /// What is wrong with it.
        error: AddressError,
    },
    /// The socket cannot be had. The error names the address.
    #[error(transparent)]
    Socket(#[from] net::ListenError),
    /// The node has been shut down.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Why a dial led to no connection. Every error names the address.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// It is not one that can be dialled.
    #[error("cannot dial {addr}: it {error}")]
    Address {
        /// The address, as given.
        addr: Multiaddr,
        /// What is wrong with it.
        error: AddressError,
    },
    /// It begins with a name that leads to no address.
    #[error("cannot dial {addr}: {error}")]
    Name {
        /// The address, as given.
        addr: Multiaddr,
        /// What happened.
        error: NameError,
    },
    /// It begins with a name, and nothing of what that leads to can be reached.
    #[error("cannot reach {addr}: {}", attempts(errors))]
    Nowhere {
        /// The address, as given.
        addr: Multiaddr,
        /// What happened to each address that the name leads to, in the order of trying.
        errors: Vec<DialError>,
    },
    /// Connecting or a handshake failed, or another peer lives there than expected.
    #[error("cannot reach {addr}: {error}")]
    Failed {
        /// The address, as given.
        addr: Multiaddr,
        /// What happened.
        error: net::DialError,
    },
    /// The node itself lives there.
    #[error("{0} is this node itself")]
    Oneself(Multiaddr),
    /// As many connections stand as may.
    #[error("cannot dial {0}: there are too many connections")]
    TooManyConnections(Multiaddr),
    /// As many connections with that peer stand as may.
    #[error("cannot dial {addr}: there are too many connections with {peer}")]
    TooManyWithPeer {
        /// The address, as given.
        addr: Multiaddr,
        /// The peer that was found there.
        peer: PeerId,
    },
    /// It leads through a relay, and the node uses none
    /// ([`Config::relay`](portolan_core::Config)).
    #[error("cannot dial {0}: this node uses no relays")]
    NoRelays(Multiaddr),
    /// It leads through a relay whose address is not named, and there is no direct connection with
    /// that relay.
    #[error(
        "cannot dial {addr}: it names no address of the relay {relay}, which we are not connected with"
    )]
    NotConnected {
        /// The address, as given.
        addr: Multiaddr,
        /// The relay.
        relay: PeerId,
    },
    /// The relay that it leads through cannot be reached.
    #[error("cannot reach the relay of {addr}: {error}")]
    Relay {
        /// The address, as given.
        addr: Multiaddr,
        /// What happened.
        error: net::DialError,
    },
    /// There is no circuit to be had from the relay.
    #[error("no circuit to {addr}: {}", circuit_failure(*reason))]
    Circuit {
        /// The address, as given.
        addr: Multiaddr,
        /// Why not.
        reason: CircuitFailure,
    },
    /// The circuit was there, and ended before hands were shaken over it.
    #[error("the circuit to {0} broke at once")]
    CircuitBroke(Multiaddr),
    /// As many dials are under way as may be.
    #[error("cannot dial {0}: too many dials are under way")]
    TooManyDials(Multiaddr),
    /// The node has been shut down.
    #[error("the node has been shut down")]
    Stopped,
}

/// What became of some dials, in words: of the first, and how many more there were.
fn attempts(errors: &[DialError]) -> String {
    match errors {
        [] => "nothing was tried".into(),
        [only] => only.to_string(),
        [first, others @ ..] => format!("{first} (and {} more)", others.len()),
    }
}

impl From<Stopped> for DialError {
    fn from(_: Stopped) -> DialError {
        DialError::Stopped
    }
}

/// Why a circuit could not be had, in words.
fn circuit_failure(reason: CircuitFailure) -> String {
    let said = match reason {
        CircuitFailure::Refused(status) => match status {
            RelayStatus::ReservationRefused => "the relay refuses it",
            RelayStatus::ResourceLimitExceeded => "the relay is at a limit",
            RelayStatus::PermissionDenied => "the relay does not permit it",
            RelayStatus::ConnectionFailed => "the relay could not reach the peer",
            RelayStatus::NoReservation => "the peer holds no reservation at the relay",
            RelayStatus::MalformedMessage => "the relay finds the request malformed",
            RelayStatus::UnexpectedMessage => "the relay did not expect the request",
            RelayStatus::Unused | RelayStatus::Ok | RelayStatus::Unknown(_) | _ => {
                return format!("the relay answered with status {}", status.code());
            }
        },
        CircuitFailure::TimedOut => "the relay did not answer in time",
        CircuitFailure::Unsupported => "the peer that is to relay does not",
        CircuitFailure::NoRelay => "the connection to the relay is gone, or is a circuit itself",
        CircuitFailure::BadAnswer => "the answer of the relay makes no sense",
        CircuitFailure::TooMany => "too many circuits are being opened",
        _ => "the relay did not open it",
    };
    said.into()
}

/// Why a report about a dial is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// It is not one that anybody could have dialled.
    #[error("nobody can have dialled {addr}: it {error}")]
    Address {
        /// The address, as given.
        addr: Multiaddr,
        /// What is wrong with it.
        error: AddressError,
    },
    /// It is neither a candidate of this node's nor proven.
    #[error("{0} is no address of this node")]
    NotOurs(Multiaddr),
    /// The node has been shut down.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Why a stream is not opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Not a protocol name: see [`AcceptError::BadName`](super::AcceptError::BadName).
    #[error("{0:?} is not a protocol name")]
    BadName(String),
    /// There is no connection with that peer: dial it first.
    #[error("there is no connection with {0}")]
    NotConnected(PeerId),
    /// The peer does not speak the protocol.
    #[error("the peer does not speak {0}")]
    Unsupported(String),
    /// The peer did not agree in time.
    #[error("the peer did not agree on a protocol in time")]
    TimedOut,
    /// The connection or the stream broke.
    #[error("the connection broke")]
    Lost,
    /// The connection carries as many streams as it may.
    #[error("the connection has no room for another stream")]
    TooManyStreams,
    /// The node has been shut down.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}
