//! How listening, dialling and multiplexing can fail.

use portolan_core::{Addr, DialFailure, PeerId};
use std::error::Error;
use std::io;

/// Why a listening socket could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Some program, perhaps another Portolan, has the port.
    #[error("{0} is in use by another program: stop it, or listen on another port")]
    InUse(Addr),
    /// The IP is not one of this host's.
    #[error("{0} is not an address of this host")]
    NotLocal(Addr),
    /// The operating system does not let this program have the port.
    #[error("this program is not permitted to listen on {0}: choose a port from 1024 on")]
    Forbidden(Addr),
    /// As many sockets listen as may.
    #[error("cannot listen on {addr}: {max} addresses are listened on already")]
    TooMany {
        /// The address that was refused.
        addr: Addr,
        /// How many there can be.
        max: usize,
    },
    /// Anything else that the operating system said.
    #[error("cannot listen on {addr}: {source}")]
    Failed {
        /// The address.
        addr: Addr,
        /// What the operating system said.
        source: io::Error,
    },
}

#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "there are forty kinds of I/O error; those that are not named are told as they are"
)]
impl ListenError {
    pub(crate) fn new(addr: Addr, source: io::Error) -> ListenError {
        match source.kind() {
            io::ErrorKind::AddrInUse => ListenError::InUse(addr),
            io::ErrorKind::AddrNotAvailable => ListenError::NotLocal(addr),
            io::ErrorKind::PermissionDenied => ListenError::Forbidden(addr),
            _ => ListenError::Failed { addr, source },
        }
    }
}

/// Why a dial led to no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The remote, or a router on the way, said no.
    #[error("the connection was refused: {0}")]
    Refused(io::Error),
    /// Nothing answered in time.
    #[error("nothing answered in time")]
    TimedOut,
    /// Something answered, but did not finish the handshakes in time.
    #[error("the handshake took too long")]
    HandshakeTimedOut,
    /// Something answered, but the security handshake failed.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// Another peer lives there than the one that was expected.
    #[error("expected the peer {expected}, found {found}")]
    WrongPeer {
        /// Who was expected.
        expected: PeerId,
        /// Who is there.
        found: PeerId,
    },
    /// This host could not even try: no route, no source address, no file descriptor.
    #[error("this host cannot dial: {0}")]
    LocalFault(io::Error),
    /// Nobody can be dialled at such an address (port 0, unspecified or multicast IP).
    #[error("{0} cannot be dialled")]
    Unusable(Addr),
}

#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "there are forty kinds of I/O error; the comments say where the others belong"
)]
impl DialError {
    /// What core should hear. Only what the remote or the network did counts against an address:
    /// a fault of our own host is told apart.
    pub fn failure(&self) -> DialFailure {
        match self {
            DialError::Refused(_) => DialFailure::Refused,
            DialError::TimedOut => DialFailure::TimedOut,
            DialError::HandshakeTimedOut
            | DialError::Handshake(_)
            | DialError::WrongPeer { .. } => DialFailure::Handshake,
            DialError::LocalFault(_) | DialError::Unusable(_) => DialFailure::LocalFault,
        }
    }

    /// The error of a `connect` that failed before anything was sent: all but a refusal (which a
    /// loopback connection can meet at once) is our own host's fault.
    pub(crate) fn at_once(error: io::Error) -> DialError {
        match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => {
                DialError::Refused(error)
            }
            _ => DialError::LocalFault(error),
        }
    }

    /// The error of a connection attempt that had begun. Our own host had a route and sent a
    /// SYN, so that *unreachable* now is the word of a router, or of a link where nobody has
    /// that IP: a fact about the address.
    pub(crate) fn later(error: io::Error) -> DialError {
        match error.kind() {
            io::ErrorKind::TimedOut => DialError::TimedOut,
            io::ErrorKind::AddrNotAvailable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::OutOfMemory => DialError::LocalFault(error),
            _ => DialError::Refused(error),
        }
    }
}

/// How the handshakes on a new connection failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The other side does not speak what we need.
    #[error("the other side does not speak {0}")]
    Unsupported(&'static str),
    /// A layer's handshake broke.
    #[error("the {layer} handshake failed: {source}")]
    Failed {
        /// The layer: `multistream-select`, `noise`, `tls` or `quic`.
        layer: &'static str,
        /// What it said.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl HandshakeError {
    pub(crate) fn failed(
        layer: &'static str,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> HandshakeError {
        HandshakeError::Failed { layer, source: source.into() }
    }
}

/// Why a connection gives no stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MuxerError {
    /// The connection is over, by whoever's doing.
    #[error("the connection is closed")]
    Closed,
    /// As many streams are open as may be.
    #[error("the connection has no room for another stream")]
    TooManyStreams,
}

/// Why the connection stack could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("the {layer} configuration for this key failed: {source}")]
pub struct SetupError {
    /// The layer: `noise`, `tls` or `quic`.
    pub layer: &'static str,
    /// What it said.
    pub source: Box<dyn Error + Send + Sync>,
}

impl SetupError {
    pub(crate) fn new(
        layer: &'static str,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> SetupError {
        SetupError { layer, source: source.into() }
    }
}
