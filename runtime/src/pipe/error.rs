//! How pipes fail.

use super::session::Violation;
use crate::node::{DialError, OpenError};
use portolan_core::PeerId;
use portolan_core::wire::pipe::ResetCode;
use std::io;

/// Why a session ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PipeError {
    /// The other side ended it.
    #[error("the session was ended by the peer: {0}")]
    Reset(ResetCode),
    /// For as long as a session is kept no connection with the peer could be had, or none over which
    /// anything arrived.
    #[error("the session was lost: for {0:?} no connection with the peer got anything across")]
    Lost(portolan_core::Duration),
    /// The other side broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    Violated(Violation),
    /// The node, or its runtime, ended under it.
    #[error("the node ended under the session")]
    Stopped,
}

impl From<PipeError> for io::Error {
    fn from(error: PipeError) -> io::Error {
        let kind = match error {
            PipeError::Reset(_) => io::ErrorKind::ConnectionReset,
            PipeError::Lost(_) => io::ErrorKind::TimedOut,
            PipeError::Violated(_) => io::ErrorKind::InvalidData,
            PipeError::Stopped => io::ErrorKind::ConnectionAborted,
        };
        io::Error::new(kind, error)
    }
}

/// Why a session did not begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipeOpenError {
    /// There is no connection with the peer, and no address to dial.
    #[error("there is no connection with {0}, and no address of it")]
    NoAddress(PeerId),
    /// No address could be dialled; this is what the last one said.
    #[error(transparent)]
    Dial(DialError),
    /// Another peer lives at the address.
    #[error("{found} lives there, not {wanted}")]
    Stranger {
        /// Who should.
        wanted: PeerId,
        /// Who does.
        found: PeerId,
    },
    /// The stream could not be opened, most often because the peer does not speak the protocol.
    #[error(transparent)]
    Stream(#[from] OpenError),
    /// The peer refused.
    #[error("the session was refused: {0}")]
    Refused(ResetCode),
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    Violated(#[from] Violation),
    /// The stream broke before the peer answered.
    #[error("the stream broke before the peer answered")]
    Broken,
    /// The peer did not answer in time.
    #[error("the peer did not answer in time")]
    TimedOut,
    /// The operating system gives no randomness for the id.
    #[error("the operating system gives no randomness: {0}")]
    NoRandomness(rand::rngs::SysError),
}
