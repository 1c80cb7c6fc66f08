//! The pipe, `/portolan/pipe/1.0.0`: frames of a session that outlives its connection. What they
//! mean is in `docs/pipe.md`.
//!
//! ```
//! use bytes::BytesMut;
//! use portolan_core::wire::pipe::{self, Frame};
//!
//! let mut stream = BytesMut::new();
//! pipe::encode(&Frame::Ack { position: 7 }, &mut stream);
//! assert_eq!(stream, [5, 0, 8, 0, 0, 0, 0, 0, 0, 0, 7][..]);
//! assert_eq!(pipe::split(&mut stream)?, Some(Frame::Ack { position: 7 }));
//! # Ok::<(), pipe::FrameError>(())
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The name of the protocol.
pub const PROTOCOL: &str = "/portolan/pipe/1.0.0";
/// Bytes that one DATA frame carries at most, docs/pipe.md §Frames. What waits for a frame to be
/// whole grows with it.
pub const DATA_MAX: usize = 16_384;
/// Bytes before a body, docs/pipe.md §Frames.
pub const HEADER: usize = 3;
/// The longest body, docs/pipe.md §Frames.
pub const BODY_MAX: usize = OFFSET + DATA_MAX;

/// Bytes of an offset.
const OFFSET: usize = 8;

const OPEN: u8 = 1;
const RESUME: u8 = 2;
const ACCEPT: u8 = 3;
const DATA: u8 = 4;
const ACK: u8 = 5;
const FIN: u8 = 6;
const RESET: u8 = 7;
const DONE: u8 = 8;

/// The name of a session, chosen by its opener.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub [u8; 16]);

impl core::fmt::Display for SessionId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl core::fmt::Debug for SessionId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "SessionId({self})")
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Frame {
    /// Begin a session.
    Open {
        /// Its id.
        session: SessionId,
        /// The number of this carrier.
        carrier: u32,
        /// Bytes beyond what is acknowledged that the opener takes.
        window: u32,
    },
    /// Go on with a session.
    Resume {
        /// Its id.
        session: SessionId,
        /// The number of this carrier.
        carrier: u32,
        /// The position up to which the opener has everything.
        received: u64,
    },
    /// The answer to either.
    Accept {
        /// Bytes beyond what is acknowledged that the acceptor takes.
        window: u32,
        /// The position up to which the acceptor has everything.
        received: u64,
    },
    /// Bytes of the application.
    Data {
        /// The offset of the first of them.
        offset: u64,
        /// 1 to [`DATA_MAX`] of them.
        bytes: Bytes,
    },
    /// The application has read up to here.
    Ack {
        /// The position.
        position: u64,
    },
    /// No byte follows.
    Fin {
        /// The offset behind the last byte.
        offset: u64,
    },
    /// It is over before its end.
    Reset(ResetCode),
    /// Everything has arrived, both ways.
    Done,
}

/// Why a session, or a carrier, is over before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResetCode {
    /// An application gave it up.
    #[error("the session was given up")]
    Cancelled,
    /// There is no such session of this peer.
    #[error("the peer does not have the session any more")]
    Unknown,
    /// There are as many sessions as are kept.
    #[error("the peer has as many sessions as it keeps")]
    Full,
    /// This peer is not talked to.
    #[error("the peer does not allow us")]
    Denied,
    /// A newer carrier stands.
    #[error("a newer carrier stands")]
    Superseded,
    /// A rule was broken.
    #[error("a rule of the protocol was broken")]
    Protocol,
    /// No new sessions are taken.
    #[error("the peer takes no new sessions")]
    Closed,
    /// A code that is not known here.
    #[error("a reason that is not known here ({0})")]
    Other(u8),
}

impl ResetCode {
    /// The code as a byte.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            ResetCode::Cancelled => 0,
            ResetCode::Unknown => 1,
            ResetCode::Full => 2,
            ResetCode::Denied => 3,
            ResetCode::Superseded => 4,
            ResetCode::Protocol => 5,
            ResetCode::Closed => 6,
            ResetCode::Other(code) => code,
        }
    }

    /// What a byte means.
    #[must_use]
    pub const fn from_code(code: u8) -> ResetCode {
        match code {
            0 => ResetCode::Cancelled,
            1 => ResetCode::Unknown,
            2 => ResetCode::Full,
            3 => ResetCode::Denied,
            4 => ResetCode::Superseded,
            5 => ResetCode::Protocol,
            6 => ResetCode::Closed,
            code => ResetCode::Other(code),
        }
    }
}

/// Bytes that are no frame. The stream is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A body that is longer than any may be.
    #[error("a frame of {len} bytes, more than {BODY_MAX}")]
    TooLong {
        /// The length that was claimed.
        len: usize,
    },
    /// A body that its type cannot have.
    #[error("a frame of type {kind} with {len} bytes")]
    Length {
        /// The type.
        kind: u8,
        /// The length.
        len: usize,
    },
}

/// Cut the first whole frame off the front of `buffer`; frames of unknown types before it are
/// dropped. `None` means that more bytes are needed. A length is judged before its body is waited
/// for, so that never more than [`HEADER`] and [`BODY_MAX`] have to be held. After an error the buffer
/// begins with what is wrong.
///
/// # Errors
/// If what comes next is no frame.
pub fn split(buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
    loop {
        let [kind, high, low, ..] = buffer[..] else { return Ok(None) };
        let len = usize::from(u16::from_be_bytes([high, low]));
        if len > BODY_MAX {
            return Err(FrameError::TooLong { len });
        }
        if !fits(kind, len) {
            return Err(FrameError::Length { kind, len });
        }
        if buffer.len() < HEADER + len {
            return Ok(None);
        }
        let mut body = buffer.split_to(HEADER + len);
        body.advance(HEADER);
        if let Some(frame) = read(kind, body.freeze()) {
            return Ok(Some(frame));
        }
    }
}

/// Whether a body of this type may be so long.
fn fits(kind: u8, len: usize) -> bool {
    match kind {
        OPEN => len == 24,
        RESUME => len == 28,
        ACCEPT => len == 12,
        DATA => len > OFFSET,
        ACK | FIN => len == OFFSET,
        RESET => len == 1,
        DONE => len == 0,
        _ => true,
    }
}

/// The frame in a body of a length that fits; none of a type that is not known.
fn read(kind: u8, mut body: Bytes) -> Option<Frame> {
    Some(match kind {
        OPEN => {
            let session = session(&mut body);
            Frame::Open { session, carrier: body.get_u32(), window: body.get_u32() }
        }
        RESUME => {
            let session = session(&mut body);
            Frame::Resume { session, carrier: body.get_u32(), received: body.get_u64() }
        }
        ACCEPT => Frame::Accept { window: body.get_u32(), received: body.get_u64() },
        DATA => Frame::Data { offset: body.get_u64(), bytes: body },
        ACK => Frame::Ack { position: body.get_u64() },
        FIN => Frame::Fin { offset: body.get_u64() },
        RESET => Frame::Reset(ResetCode::from_code(body.get_u8())),
        DONE => Frame::Done,
        _ => return None,
    })
}

fn session(body: &mut Bytes) -> SessionId {
    let mut id = [0; 16];
    body.copy_to_slice(&mut id);
    SessionId(id)
}

/// Append one frame to `out`.
///
/// # Panics
/// If it carries no bytes, or more than [`DATA_MAX`].
pub fn encode(frame: &Frame, out: &mut BytesMut) {
    match frame {
        Frame::Open { session, carrier, window } => {
            header(OPEN, 24, out);
            out.put_slice(&session.0);
            out.put_u32(*carrier);
            out.put_u32(*window);
        }
        Frame::Resume { session, carrier, received } => {
            header(RESUME, 28, out);
            out.put_slice(&session.0);
            out.put_u32(*carrier);
            out.put_u64(*received);
        }
        Frame::Accept { window, received } => {
            header(ACCEPT, 12, out);
            out.put_u32(*window);
            out.put_u64(*received);
        }
        Frame::Data { offset, bytes } => encode_data(*offset, &[bytes], out),
        Frame::Ack { position } => {
            header(ACK, OFFSET, out);
            out.put_u64(*position);
        }
        Frame::Fin { offset } => {
            header(FIN, OFFSET, out);
            out.put_u64(*offset);
        }
        Frame::Reset(code) => {
            header(RESET, 1, out);
            out.put_u8(code.code());
        }
        Frame::Done => header(DONE, 0, out),
    }
}

/// Append a DATA frame whose bytes lie in several places.
///
/// # Panics
/// If there are no bytes, or more than [`DATA_MAX`].
pub fn encode_data(offset: u64, parts: &[&[u8]], out: &mut BytesMut) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    assert!((1..=DATA_MAX).contains(&len), "a DATA frame of {len} bytes");
    header(DATA, OFFSET + len, out);
    out.put_u64(offset);
    parts.iter().for_each(|part| out.put_slice(part));
}

fn header(kind: u8, len: usize, out: &mut BytesMut) {
    debug_assert!(len <= BODY_MAX);
    out.reserve(HEADER + len);
    out.put_u8(kind);
    // Every caller's length is below the longest body, which has two bytes.
    out.put_u16(u16::try_from(len).unwrap_or(u16::MAX));
}

const _: () = assert!(BODY_MAX <= 0xffff);
