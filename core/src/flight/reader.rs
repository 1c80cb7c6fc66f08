//! Reads a record, step by step.

use super::frame::{self, Cut};
use super::proto::{Unknown, head, step};
use super::writer::Clock;
use super::{Head, MAGIC, STEP_MAX, Step, VERSION};
use bytes::Bytes;

/// Reads one part of a record: the bytes of one file. Its items are the steps in order, the first
/// of which is number 1; after an error there are no more.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    /// Where the next frame starts.
    offset: usize,
    clock: Clock,
    tail: Option<Tail>,
}

/// Why a record cannot be read, or not beyond some point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// There is not a single byte.
    #[error("the record is empty")]
    Empty,
    /// The bytes do not begin as records do.
    #[error("this is no flight record: it does not begin as one, at byte 0")]
    NotARecord,
    /// Another version of the format.
    #[error("the record has format {found}, at byte 7; this program reads format {VERSION}")]
    Version {
        /// The version that it is written in.
        found: u8,
    },
    /// The end came before the head was over: nothing can be replayed.
    #[error("the record ends inside its head, after {bytes} bytes")]
    TornHead {
        /// How many bytes there are.
        bytes: usize,
    },
    /// What stands here was written otherwise.
    #[error("the record is damaged at byte {offset}")]
    Damaged {
        /// Where the damaged frame starts, in bytes from the beginning.
        offset: usize,
    },
    /// What stands here is as it was written, but makes no sense to this program.
    #[error("the record cannot be understood at byte {offset}: {why}")]
    Malformed {
        /// Where the frame starts, in bytes from the beginning.
        offset: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A step was left out when the record was written, because it was too long. What follows it
    /// cannot be replayed.
    #[error("the record left out a step of {len} bytes at byte {offset}")]
    LeftOut {
        /// Where its place is, in bytes from the beginning.
        offset: usize,
        /// How long it would have been, in bytes.
        len: u64,
    },
}

/// What lies behind the last step that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Nothing.
    Whole,
    /// A step that the end of the file cut off, or nothing but zeros: dropped. Behind an error,
    /// all that was not read.
    Torn {
        /// Where it starts, in bytes from the beginning.
        offset: usize,
        /// How many bytes it has.
        bytes: usize,
    },
}

impl<'a> Reader<'a> {
    /// Read the head of a record, and stand before its first step.
    pub fn new(bytes: &'a [u8]) -> Result<(Head, Reader<'a>), ReadError> {
        let offset = MAGIC.len() + 1;
        let begins = bytes.iter().zip(MAGIC).all(|(byte, magic)| *byte == magic);
        match bytes.get(MAGIC.len()) {
            _ if bytes.is_empty() => return Err(ReadError::Empty),
            _ if !begins => return Err(ReadError::NotARecord),
            None => return Err(ReadError::TornHead { bytes: bytes.len() }),
            Some(&VERSION) => {}
            Some(&found) => return Err(ReadError::Version { found }),
        }
        let payload = match frame::cut(&bytes[offset..]) {
            Cut::Whole(payload) => payload,
            Cut::End | Cut::Torn => return Err(ReadError::TornHead { bytes: bytes.len() }),
            Cut::Damaged => return Err(ReadError::Damaged { offset }),
        };
        let head = head::decoded(Bytes::copy_from_slice(payload))
            .map_err(|Unknown(why)| ReadError::Malformed { offset, why })?;
        let clock = Clock { now: head.now, unix: head.unix };
        let offset = offset + frame::HEADER + payload.len();
        Ok((head, Reader { bytes, offset, clock, tail: None }))
    }

    /// What lies behind the last step that was read. It is known once there are no more steps;
    /// until then it is the rest of the bytes.
    pub fn tail(&self) -> Tail {
        self.tail.unwrap_or(self.rest())
    }

    /// Where the next frame starts, in bytes from the beginning.
    pub fn offset(&self) -> usize {
        self.offset
    }

    fn rest(&self) -> Tail {
        match self.bytes.len() - self.offset {
            0 => Tail::Whole,
            bytes => Tail::Torn { offset: self.offset, bytes },
        }
    }

    fn step(&mut self, payload: &[u8]) -> Result<Step, ReadError> {
        let offset = self.offset;
        let malformed = |why| ReadError::Malformed { offset, why };
        if payload.len() > STEP_MAX {
            return Err(malformed("the step is too long"));
        }
        let message = step::Step::read(Bytes::copy_from_slice(payload))
            .map_err(|Unknown(why)| malformed(why))?;
        if let Some(len) = message.omitted {
            return Err(ReadError::LeftOut { offset, len });
        }
        let clock = self.clock.advanced(message.elapsed, message.unix_off);
        let clock = clock.ok_or(malformed("the time is beyond all bounds"))?;
        let step = message.decoded(clock.now, clock.unix).map_err(|Unknown(why)| malformed(why))?;
        self.clock = clock;
        Ok(step)
    }
}

impl Iterator for Reader<'_> {
    type Item = Result<Step, ReadError>;

    fn next(&mut self) -> Option<Result<Step, ReadError>> {
        if self.tail.is_some() {
            return None;
        }
        let read = match frame::cut(&self.bytes[self.offset..]) {
            Cut::Whole(payload) => match self.step(payload) {
                Ok(step) => {
                    self.offset += frame::HEADER + payload.len();
                    return Some(Ok(step));
                }
                Err(error) => Some(Err(error)),
            },
            Cut::Damaged => Some(Err(ReadError::Damaged { offset: self.offset })),
            Cut::End | Cut::Torn => None,
        };
        self.tail = Some(self.rest());
        read
    }
}
