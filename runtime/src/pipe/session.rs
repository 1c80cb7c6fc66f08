//! One session, without IO: what the application writes becomes frames, frames become what it
//! reads. `docs/pipe.md` has the rules.
//!
//! ```text
//!  write ─► kept until acknowledged ─► produce ─► frames of the present carrier
//!  read  ◄─ unread until taken      ◄─ handle  ◄─ frames of the present carrier
//!                     begin: a new carrier, from where the other side says it is
//! ```
//!
//! Both buffers are bounded by the window. Nothing here knows what a carrier is, nor the time.

use bytes::{Bytes, BytesMut};
use portolan_core::wire::pipe::{DATA_MAX, Frame, ResetCode, SessionId, encode, encode_data};
use std::collections::VecDeque;

/// How much more the application may have read than was acknowledged, bytes; docs/pipe.md §A
/// carrier. The other side keeps that much longer if it grows.
const ACK_STEP: u64 = 65_536;

/// What the other side did that the protocol forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// Bytes that do not follow what was received.
    #[error("bytes are missing before offset {offset}")]
    Gap {
        /// Where the bytes go.
        offset: u64,
    },
    /// More bytes than the window has room for.
    #[error("bytes beyond the window, at offset {offset}")]
    Overrun {
        /// Where the bytes go.
        offset: u64,
    },
    /// Bytes behind the end, or another end than was said.
    #[error("bytes or an end that contradict the end at {offset}")]
    End {
        /// Where the end is.
        offset: u64,
    },
    /// A position that was never sent.
    #[error("position {position} is said to have arrived and was never sent")]
    Future {
        /// The position.
        position: u64,
    },
    /// DONE before everything had arrived.
    #[error("the session is called done before it is")]
    Early,
    /// A frame that has no place here.
    #[error("a frame in the wrong place")]
    Misplaced,
    /// Bytes that are no frame.
    #[error(transparent)]
    Frame(#[from] portolan_core::wire::pipe::FrameError),
}

/// A session.
#[derive(Debug)]
pub(super) struct Session {
    /// Bytes that are kept at most, each way.
    window: u32,
    sending: Sending,
    receiving: Receiving,
    /// The number of the latest carrier.
    carrier: Option<u32>,
    /// Whether an ACCEPT has been received: the acceptor has the session.
    is_known: bool,
    /// Whether DONE went out on the present carrier.
    done_sent: bool,
    done_received: bool,
}

/// The direction out.
#[derive(Debug)]
struct Sending {
    /// Bytes from `acknowledged` on.
    kept: VecDeque<u8>,
    /// The offset up to which the other application has read.
    acknowledged: u64,
    /// The position up to which the present carrier was given everything.
    sent: u64,
    /// The highest position that any carrier was given.
    reached: u64,
    /// The position up to which the other side has everything, as far as it said so.
    arrived: u64,
    /// The offset from which the other side takes no bytes yet.
    limit: u64,
    /// The window that the other side said.
    window: u64,
    has_ended: bool,
    end_acknowledged: bool,
}

/// The direction in.
#[derive(Debug)]
struct Receiving {
    /// Bytes from `read` on.
    unread: VecDeque<u8>,
    /// The offset up to which our application has read.
    read: u64,
    /// Where the end is, once known.
    end: Option<u64>,
    /// The position that was acknowledged on the present carrier.
    told: Option<u64>,
}

/// What can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readable {
    /// So many bytes were taken.
    Bytes(usize),
    /// Nothing yet.
    Nothing,
    /// Nothing any more.
    End,
}

impl Session {
    /// A session that keeps at most `window` bytes each way.
    pub(super) fn new(window: u32) -> Session {
        Session {
            window,
            sending: Sending {
                kept: VecDeque::new(),
                acknowledged: 0,
                sent: 0,
                reached: 0,
                arrived: 0,
                limit: 0,
                window: 0,
                has_ended: false,
                end_acknowledged: false,
            },
            receiving: Receiving { unread: VecDeque::new(), read: 0, end: None, told: None },
            carrier: None,
            is_known: false,
            done_sent: false,
            done_received: false,
        }
    }

    /// Whether more can be written at this moment.
    pub(super) fn has_room(&self) -> bool {
        self.sending.kept.len() < self.window as usize
    }

    /// Take as much of `bytes` as there is room for.
    pub(super) fn write(&mut self, bytes: &[u8]) -> usize {
        let sending = &mut self.sending;
        debug_assert!(!sending.has_ended, "the application has ended this direction");
        let room = (self.window as usize).saturating_sub(sending.kept.len());
        let taken = bytes.get(..room).unwrap_or(bytes);
        sending.kept.extend(taken);
        taken.len()
    }

    /// No more will be written.
    pub(super) fn finish(&mut self) {
        self.sending.has_ended = true;
    }

    /// Whether no more will be written.
    pub(super) fn has_finished(&self) -> bool {
        self.sending.has_ended
    }

    /// Whether there is something to read, if only the end.
    pub(super) fn is_readable(&self) -> bool {
        !self.receiving.unread.is_empty() || self.receiving.has_ended()
    }

    /// Hand out what has arrived.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Readable {
        let receiving = &mut self.receiving;
        if receiving.has_ended() {
            return Readable::End;
        }
        let mut taken = 0;
        while taken < buffer.len() {
            let (front, _) = receiving.unread.as_slices();
            let count = front.len().min(buffer.len() - taken);
            if count == 0 {
                break;
            }
            buffer[taken..taken + count].copy_from_slice(&front[..count]);
            receiving.unread.drain(..count);
            taken += count;
        }
        receiving.read += taken as u64;
        if taken > 0 { Readable::Bytes(taken) } else { Readable::Nothing }
    }

    /// Whether the application has read everything, and the end was the last.
    pub(super) fn has_read_all(&self) -> bool {
        self.receiving.has_ended()
    }

    /// Whether both applications have read everything.
    pub(super) fn is_complete(&self) -> bool {
        self.sending.end_acknowledged && self.receiving.has_ended()
    }

    /// How much has arrived, here and there; it only grows.
    pub(super) fn progress(&self) -> u64 {
        self.receiving.position() + self.sending.arrived
    }

    /// Whether something could go out that has not arrived.
    pub(super) fn waits(&self) -> bool {
        let Sending { has_ended, end_acknowledged, arrived, limit, .. } = self.sending;
        let total = self.sending.total();
        let end_waits = has_ended && !end_acknowledged && total <= limit && arrived <= total;
        arrived < total.min(limit) || end_waits
    }

    /// Whether the other side needs nothing more from this one.
    pub(super) fn is_over(&self) -> bool {
        self.is_complete() && self.done_received
    }

    /// Whether the present carrier is of no more use.
    pub(super) fn is_settled(&self) -> bool {
        self.is_over() && self.done_sent
    }

    /// The first frame of the opener's next carrier.
    pub(super) fn hello(&mut self, session: SessionId) -> Frame {
        let carrier = self.carrier.map_or(0, |carrier| carrier.saturating_add(1));
        self.carrier = Some(carrier);
        if self.is_known {
            Frame::Resume { session, carrier, received: self.receiving.position() }
        } else {
            Frame::Open { session, carrier, window: self.window }
        }
    }

    /// The acceptor's answer to a carrier of this number, whose opener has received so much. None
    /// if a newer carrier stands.
    pub(super) fn admit(
        &mut self,
        carrier: u32,
        received: u64,
        window: Option<u32>,
    ) -> Result<Option<Frame>, Violation> {
        if self.carrier.is_some_and(|present| carrier <= present) {
            return Ok(None);
        }
        self.begin(received, window)?;
        self.carrier = Some(carrier);
        Ok(Some(Frame::Accept { window: self.window, received: self.receiving.position() }))
    }

    /// A new carrier stands, and the other side has everything up to `received`. The window is
    /// said where it can be new.
    pub(super) fn begin(&mut self, received: u64, window: Option<u32>) -> Result<(), Violation> {
        let sending = &mut self.sending;
        if received > sending.reached {
            return Err(Violation::Future { position: received });
        }
        sending.window = window.map_or(sending.window, u64::from);
        sending.limit = sending.limit.max(sending.acknowledged.saturating_add(sending.window));
        sending.sent = received.max(sending.position());
        sending.arrived = sending.arrived.max(sending.sent);
        self.receiving.told = None;
        self.is_known = true;
        self.done_sent = false;
        Ok(())
    }

    /// Append frames to `out` until it has about `len_max` bytes, or there is nothing to say.
    pub(super) fn produce(&mut self, out: &mut BytesMut, len_max: usize) {
        if let Some(position) = self.receiving.acknowledge() {
            encode(&Frame::Ack { position }, out);
        }
        while out.len() < len_max && self.sending.data(out) {}
        let sending = &mut self.sending;
        let total = sending.total();
        if sending.has_ended && sending.sent == total && !sending.end_acknowledged {
            encode(&Frame::Fin { offset: total }, out);
            sending.sent = total + 1;
            sending.reached = total + 1;
        }
        if self.is_complete() && !self.done_sent {
            encode(&Frame::Done, out);
            self.done_sent = true;
        }
    }

    /// Take a frame of the present carrier. A reset is handed back.
    pub(super) fn handle(&mut self, frame: Frame) -> Result<Option<ResetCode>, Violation> {
        match frame {
            Frame::Data { offset, bytes } => self.receiving.data(offset, bytes, self.window)?,
            Frame::Fin { offset } => self.receiving.fin(offset)?,
            Frame::Ack { position } => self.sending.acknowledged(position)?,
            Frame::Done if self.is_complete() => self.done_received = true,
            Frame::Done => return Err(Violation::Early),
            Frame::Reset(code) => return Ok(Some(code)),
            Frame::Open { .. } | Frame::Resume { .. } | Frame::Accept { .. } | _ => {
                return Err(Violation::Misplaced);
            }
        }
        Ok(None)
    }

    /// The bytes that are held, out and in.
    #[cfg(test)]
    fn held(&self) -> (usize, usize) {
        (self.sending.kept.len(), self.receiving.unread.len())
    }
}

impl Sending {
    /// The offset behind the last byte that was written.
    fn total(&self) -> u64 {
        self.acknowledged + self.kept.len() as u64
    }

    /// The position that is acknowledged.
    fn position(&self) -> u64 {
        self.acknowledged + u64::from(self.end_acknowledged)
    }

    /// Append the next bytes that may go out; whether there were any.
    fn data(&mut self, out: &mut BytesMut) -> bool {
        let until = self.total().min(self.limit);
        let len = until.saturating_sub(self.sent).min(DATA_MAX as u64);
        // What is sent and not acknowledged is kept, so that both fit into memory.
        let at = usize::try_from(self.sent.saturating_sub(self.acknowledged)).unwrap_or(usize::MAX);
        let len = usize::try_from(len).unwrap_or(DATA_MAX);
        if len == 0 {
            return false;
        }
        let (front, back) = self.kept.as_slices();
        let first = front.get(at..).unwrap_or_default();
        let first = first.get(..len).unwrap_or(first);
        let at = at.saturating_sub(front.len());
        let second = back.get(at..at + len - first.len()).unwrap_or_default();
        encode_data(self.sent, &[first, second], out);
        self.sent += len as u64;
        self.reached = self.reached.max(self.sent);
        true
    }

    fn acknowledged(&mut self, position: u64) -> Result<(), Violation> {
        if position > self.reached {
            return Err(Violation::Future { position });
        }
        let total = self.total();
        if self.has_ended && position == total + 1 {
            self.end_acknowledged = true;
        }
        let offset = position.min(total);
        let freed = offset.saturating_sub(self.acknowledged);
        self.kept.drain(..usize::try_from(freed).unwrap_or(usize::MAX).min(self.kept.len()));
        self.acknowledged += freed;
        // An older carrier may have brought it after the present one's first frame was written.
        self.sent = self.sent.max(self.position());
        self.arrived = self.arrived.max(self.position());
        self.limit = self.limit.max(self.acknowledged.saturating_add(self.window));
        if self.kept.is_empty() && self.has_ended {
            self.kept = VecDeque::new();
        }
        Ok(())
    }
}

impl Receiving {
    /// The offset behind what has arrived.
    fn arrived(&self) -> u64 {
        self.read + self.unread.len() as u64
    }

    /// The position up to which everything has arrived.
    fn position(&self) -> u64 {
        self.arrived() + u64::from(self.end.is_some())
    }

    fn has_ended(&self) -> bool {
        self.end == Some(self.read)
    }

    fn data(&mut self, offset: u64, mut bytes: Bytes, window: u32) -> Result<(), Violation> {
        let arrived = self.arrived();
        if offset > arrived {
            return Err(Violation::Gap { offset });
        }
        let until = offset.saturating_add(bytes.len() as u64);
        if let Some(end) = self.end.filter(|end| until > *end) {
            return Err(Violation::End { offset: end });
        }
        if until > self.read.saturating_add(window.into()) {
            return Err(Violation::Overrun { offset });
        }
        let known = usize::try_from(arrived - offset).unwrap_or(usize::MAX).min(bytes.len());
        self.unread.extend(bytes.split_off(known));
        Ok(())
    }

    fn fin(&mut self, offset: u64) -> Result<(), Violation> {
        match self.end {
            Some(end) if end == offset => Ok(()),
            Some(end) => Err(Violation::End { offset: end }),
            None if offset > self.arrived() => Err(Violation::Gap { offset }),
            None if offset < self.arrived() => Err(Violation::End { offset }),
            None => {
                self.end = Some(offset);
                Ok(())
            }
        }
    }

    /// The position to acknowledge, if it is time to.
    fn acknowledge(&mut self) -> Option<u64> {
        let position = self.read + u64::from(self.has_ended());
        let is_due = match self.told {
            None => true,
            Some(told) => {
                position > told && (self.unread.is_empty() || position - told >= ACK_STEP)
            }
        };
        is_due.then(|| {
            self.told = Some(position);
            position
        })
    }
}

#[cfg(test)]
mod tests;
