//! The pipe: a session of two byte streams that outlives the connection under it.
//!
//! ```text
//!  Pipe ◄──► Shared: Session (no IO) ◄──► Carrier: one stream of the node
//!                                            ▲ changed by
//!                    opener: opens, resumes, moves      acceptor: takes what PipeListener hands on
//! ```
//!
//! `docs/pipe.md` specifies the protocol. Each session has one task on the node's runtime, and so has
//! each listener.

mod acceptor;
mod carrier;
mod choice;
mod error;
mod holder;
mod listener;
mod opener;
mod session;
mod shared;

pub use error::{PipeError, PipeOpenError};
pub use listener::{Allow, PipeListener};
pub use portolan_core::wire::pipe::{PROTOCOL, ResetCode, SessionId};
pub use session::Violation;
pub use shared::{Path, Paths, Pipe};

use portolan_core::Duration;

/// The least window, bytes; docs/pipe.md §Bounds: one whole frame.
const WINDOW_MIN: u32 = 16_384;
/// The greatest window, bytes; docs/pipe.md §Bounds. Twice as much is held for each session.
const WINDOW_MAX: u32 = 16 << 20;
/// How long a session that is complete waits for the other side to say so too, seconds;
/// docs/pipe.md §The end. Programs end later if it grows.
const LINGER: Duration = Duration::from_secs(5);
/// How long a last word may take to leave, seconds; ours: some round trips.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long one attempt to open a carrier may take, seconds; docs/pipe.md §Bounds.
const ATTEMPT: Duration = Duration::from_secs(5);
/// The first pause after all attempts failed, milliseconds; docs/pipe.md §Without a carrier.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// The longest pause, seconds; docs/pipe.md §Without a carrier.
const PAUSE_MAX: Duration = Duration::from_secs(5);
const _: () = assert!(WINDOW_MIN as usize >= portolan_core::wire::pipe::DATA_MAX);

/// What sessions may take. Built by `PipeConfig::default()` and assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PipeConfig {
    /// Bytes of a session that are held each way, by this side: those that the application has not
    /// read, and those that the other one has not. A writer waits when it is full. Less than
    /// 16 KiB, or more than 16 MiB, is taken for that.
    pub window: u32,
    /// How long a session is kept without a carrier.
    pub keep: Duration,
    /// Sessions of one listener. When full, a new one is refused.
    pub sessions_max: usize,
    /// Sessions of one listener with one peer. When full, a new one is refused.
    pub per_peer_max: usize,
}

impl Default for PipeConfig {
    fn default() -> Self {
        PipeConfig {
            // Ours: 40 MB a second over a round trip of 100 ms.
            window: 4 << 20,
            // Ours: a laptop that changes networks, a router that starts again.
            keep: Duration::from_secs(60),
            // Ours: 512 MiB where nobody reads.
            sessions_max: 64,
            // Ours.
            per_peer_max: 8,
        }
    }
}

impl PipeConfig {
    fn window(&self) -> u32 {
        self.window.clamp(WINDOW_MIN, WINDOW_MAX)
    }
}
