//! Floor 8, beside the door · the flight record: what an agent was told, so that it can be told
//! again.
//!
//! Knows: every event handed in, with its time, what was drawn and signed meanwhile, and a digest
//! of what came out. Reads: the door. `docs/flight-record.md` has every byte.
//!
//! ```text
//!  agent ─► Recorder ─► bytes ─► Reader ─► Step ─► Replay: the same agent with no world around it
//!                                            └───► Writer: the same record, with other digests,
//!                                                  or redacted
//! ```
//!
//! A nonce is written as its keyed hash, and the key never is: equal nonces stay equal, so that
//! the replay finds what was found, but nobody can bring one back. Dial data costs its length only.
//!
//! Limits: a step takes at most 1 MiB and is left out, by name, when it takes more; whatever a
//! file says, reading and replaying it does not panic.
//!
//! A good first change here: say in [`Difference::Actions`] which action was the first to differ.

mod body;
mod checkpoint;
mod digest;
mod frame;
mod mask;
mod proto;
mod reader;
mod recorder;
mod redact;
mod replay;
mod writer;

pub use reader::{ReadError, Reader, Tail};
pub use recorder::Recorder;
pub use redact::{RedactError, Redacted, redact};
pub use replay::{Asked, Difference, Divergence, Replay, ReplayError};
pub use writer::Writer;

use crate::{Config, Event, Instant, PublicKey, UnixTime};
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;

/// What every record begins with.
pub const MAGIC: [u8; 7] = *b"ptlnrec";
/// The version of the format, which follows the magic. It grows when an old reader would
/// misunderstand; fields that an old reader may leave out do not change it.
const VERSION: u8 = 1;
/// The latest moment in a record, nanoseconds; ours: 292 years, so that the spans that core adds
/// to it stay short of the end of time.
const NOW_MAX: Instant = Instant::from_nanos(u64::MAX / 2);
/// Bytes of one step, number; ours: a hundred times the longest message of any protocol. What a
/// reader holds at once grows with it. A longer step is left out, and the record says so.
const STEP_MAX: usize = 1 << 20;

const _: () = assert!(STEP_MAX <= frame::PAYLOAD_MAX);

/// What a part of a record begins with: all that the agent was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The program that wrote it (`name/version`).
    pub software: String,
    /// The agent's configuration.
    pub config: Config,
    /// The agent's public key; the private one is in no record.
    pub identity: PublicKey,
    /// Which part of the record it is; part 0 starts with a fresh agent.
    pub part: u64,
    /// The moment at which the part begins; no step is earlier.
    pub now: Instant,
    /// The same moment on the wall clock.
    pub unix: UnixTime,
    /// The agent's state, where the part is not the first.
    pub checkpoint: Option<Bytes>,
}

/// One fact that was handed in, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The moment.
    pub now: Instant,
    /// The same moment on the wall clock.
    pub unix: UnixTime,
    /// The fact, its nonces masked and its dial data zeroed.
    pub event: Event,
    /// What was drawn, in order.
    pub drawn: Vec<Drawn>,
    /// What was signed, in order.
    pub signatures: Vec<Bytes>,
    /// The digest of the actions that came out, masked likewise, and of the deadline that the agent
    /// had then; 0 when no actions came.
    pub digest: u64,
}

/// One answer of [`Draw`](crate::Draw).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drawn {
    /// A number below `n`.
    Below {
        /// The bound that core asked for.
        n: u64,
        /// The number drawn.
        value: u64,
    },
    /// A nonce, masked.
    Nonce(u64),
}
