//! One dial request from its stream's opening to its end: where it stands, and until when.
//!
//! ```text
//!  Asked ─ other IP ─► Uploading ─ paid ─┐
//!    │                                   ├─► Dialling ─ connected ─► Delivering
//!    ├─ same IP ─────────────────────────┘      │                        │
//!    ├─ v1 ─► Trying ─ one connected, all failed ─► Closing               │
//!    └─ refused, rejected ──► Closing ◄─ failed ┴──────── delivered, not ┘
//!  any ─ reset, disconnect, broken rule, overdue ─► gone
//! ```

use crate::wire::autonat::DIAL_DATA_CHUNK_MAX;
use crate::words::checkpoint::{BadCheckpoint, Loader, Saved, Saver, saved};
use crate::words::sleep::Sleep;
use crate::{Addr, ConnId, Deadline, DialId, Duration, Group, Instant, PeerId, Wake};

/// How long a requester may take to say what it wants, ours: the request is one small message.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the whole upload may take, ours: 100,000 bytes at 27 kbit/s. Slots that a slow
/// requester occupies grow with it.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the upload may stand still, ours: three retransmissions of TCP and some.
const UPLOAD_STALL: Duration = Duration::from_secs(10);
/// The least that a dial-back may take, ours: two retransmissions of a TCP SYN (RFC 6298 §2).
const DIAL_MIN: Duration = Duration::from_millis(2_500);
/// The most that a dial-back may take: go-libp2p's value, and what an unknown round trip gets.
const DIAL_MAX: Duration = Duration::from_secs(10);
/// Round trips to the requester that a dial-back may take, number; ours: TCP, Noise and Yamux
/// need four, and a first loss costs as much again.
const DIAL_ROUND_TRIPS: u32 = 10;
/// How much longer we wait for a runtime to report the end of a dial, ours. After that the
/// fault is our own.
const DIAL_GRACE: Duration = Duration::from_secs(1);
/// How long the nonce may take to be delivered: go-libp2p's value.
const NONCE_TIMEOUT: Duration = Duration::from_secs(5);
/// From the last byte of dial data to our answer, ours: clients in the field wait 15 s; the last
/// one is for the way back.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(14);
/// How long a requester may leave an answered stream open, ours.
const LINGER: Duration = Duration::from_secs(5);

const _: () = assert!(UPLOAD_STALL.as_nanos() <= UPLOAD_TIMEOUT.as_nanos());
const _: () = assert!(DIAL_MIN.as_nanos() <= DIAL_MAX.as_nanos());
const _: () = assert!(DIAL_MAX.as_nanos() + DIAL_GRACE.as_nanos() < ANSWER_WITHIN.as_nanos());

/// Bytes in one chunk of dial data, at most: autonat-v2 §Amplification Attack Prevention.
const CHUNK_MAX: usize = DIAL_DATA_CHUNK_MAX;
/// Bytes in one chunk of dial data, at least, unless it is the last; go-libp2p's value. Less
/// would make us work more than the requester pays.
const CHUNK_MIN: usize = 100;

/// The one address that is dialled for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pick {
    /// Its place in the request.
    pub(super) index: u32,
    pub(super) addr: Addr,
    /// What is delivered there.
    pub(super) nonce: u64,
}

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The stream is open; the request has not come.
    Asked { overdue_at: Instant },
    /// Dial data is coming in.
    Uploading { pick: Pick, missing_bytes: u64, stalled_at: Instant, overdue_at: Instant },
    /// The dial-back is under way.
    Dialling { pick: Pick, dial: DialId, overdue_at: Instant, answer_at: Instant },
    /// It connected; the nonce is under way.
    Delivering { pick: Pick, dial: DialId, overdue_at: Instant },
    /// AutoNAT v1: dials are under way, to `addr` first of all, or one has reached it.
    /// `is_doubtful`: that they fail says nothing.
    Trying { addr: Addr, is_doubtful: bool, overdue_at: Instant },
    /// Answered; the requester has not closed its side. `owes_request`: it was answered before
    /// its request came, which may still come.
    Closing { owes_request: bool, overdue_at: Instant },
}

/// A chunk of dial data that breaks the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadChunk;

/// One dial request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    /// The connection it came on; it ends with it.
    pub(super) conn: ConnId,
    pub(super) peer: PeerId,
    /// The network that the requester, or its relay, is in.
    pub(super) network: Group,
    /// Whether a source of the application's named the requester.
    pub(super) is_introduced: bool,
    /// When its stream opened.
    pub(super) asked_at: Instant,
    /// Whether the requester has finished sending.
    pub(super) is_half_closed: bool,
    /// Whether we slept while the dial for it ran.
    pub(super) slept: bool,
    state: State,
}

impl Session {
    pub(super) fn new(now: Instant, conn: ConnId, peer: PeerId, network: Group) -> Session {
        let state = State::Asked { overdue_at: now + REQUEST_TIMEOUT };
        let (is_introduced, is_half_closed, slept) = (false, false, false);
        let asked_at = now;
        Session { conn, peer, network, is_introduced, asked_at, is_half_closed, slept, state }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Dial data was asked for.
    pub(super) fn upload(&mut self, now: Instant, pick: Pick, bytes: u64) {
        let (stalled_at, overdue_at) = (now + UPLOAD_STALL, now + UPLOAD_TIMEOUT);
        self.enter(State::Uploading { pick, missing_bytes: bytes, stalled_at, overdue_at });
    }

    /// A chunk of `bytes` came. Returns what is to be dialled once all is paid.
    pub(super) fn paid(&mut self, now: Instant, bytes: usize) -> Result<Option<Pick>, BadChunk> {
        let State::Uploading { pick, missing_bytes, overdue_at, .. } = self.state else {
            return Err(BadChunk);
        };
        let missing_bytes = after_chunk(missing_bytes, bytes)?;
        if missing_bytes == 0 {
            return Ok(Some(pick));
        }
        let stalled_at = now + UPLOAD_STALL;
        self.enter(State::Uploading { pick, missing_bytes, stalled_at, overdue_at });
        Ok(None)
    }

    /// The dial-back was ordered; it may take `timeout`.
    pub(super) fn dial(&mut self, now: Instant, pick: Pick, dial: DialId, timeout: Duration) {
        let overdue_at = now + timeout + DIAL_GRACE;
        self.enter(State::Dialling { pick, dial, overdue_at, answer_at: now + ANSWER_WITHIN });
    }

    /// The dial-back connected. Returns the nonce to deliver.
    pub(super) fn deliver(&mut self, now: Instant) -> Option<u64> {
        let State::Dialling { pick, dial, answer_at, .. } = self.state else {
            return None;
        };
        let overdue_at = answer_at.min(now + NONCE_TIMEOUT);
        self.enter(State::Delivering { pick, dial, overdue_at });
        Some(pick.nonce)
    }

    /// AutoNAT v1: dials were ordered, each of which may take `timeout`.
    pub(super) fn try_all(&mut self, now: Instant, addr: Addr, timeout: Duration) {
        let overdue_at = now + timeout + DIAL_GRACE;
        self.enter(State::Trying { addr, is_doubtful: false, overdue_at });
    }

    /// AutoNAT v1: a dial reached the requester there.
    pub(super) fn reached(&mut self, at: Addr) {
        if let State::Trying { is_doubtful, overdue_at, .. } = self.state {
            self.enter(State::Trying { addr: at, is_doubtful, overdue_at });
        }
    }

    /// AutoNAT v1: that dials fail says nothing.
    pub(super) fn doubt(&mut self) {
        if let State::Trying { addr, overdue_at, .. } = self.state {
            self.enter(State::Trying { addr, is_doubtful: true, overdue_at });
        }
    }

    /// The answer is out, maybe before its request came.
    pub(super) fn close(&mut self, now: Instant, owes_request: bool) {
        self.enter(State::Closing { owes_request, overdue_at: now + LINGER });
    }

    /// We slept.
    pub(super) fn resumed(&mut self, sleep: Sleep) {
        self.slept |= matches!(
            self.state,
            State::Dialling { .. } | State::Delivering { .. } | State::Trying { .. }
        );
        match &mut self.state {
            State::Uploading { stalled_at, overdue_at, .. } => {
                sleep.put_off(stalled_at);
                sleep.put_off(overdue_at);
            }
            State::Dialling { overdue_at, answer_at, .. } => {
                sleep.put_off(overdue_at);
                sleep.put_off(answer_at);
            }
            State::Asked { overdue_at }
            | State::Delivering { overdue_at, .. }
            | State::Trying { overdue_at, .. }
            | State::Closing { overdue_at, .. } => sleep.put_off(overdue_at),
        }
    }

    /// The request of a session that was answered before it came.
    pub(super) fn take_late_request(&mut self) -> bool {
        match self.state {
            State::Closing { owes_request: true, overdue_at } => {
                self.enter(State::Closing { owes_request: false, overdue_at });
                true
            }
            State::Closing { owes_request: false, .. }
            | State::Asked { .. }
            | State::Uploading { .. }
            | State::Dialling { .. }
            | State::Delivering { .. }
            | State::Trying { .. } => false,
        }
    }

    /// What is dialled for it, once that is decided.
    pub(super) fn pick(&self) -> Option<Pick> {
        match self.state {
            State::Uploading { pick, .. }
            | State::Dialling { pick, .. }
            | State::Delivering { pick, .. } => Some(pick),
            State::Asked { .. } | State::Trying { .. } | State::Closing { .. } => None,
        }
    }

    /// The address that was dialled for it, if one was.
    pub(super) fn dialled(&self) -> Option<Addr> {
        match self.state {
            State::Dialling { pick, .. } | State::Delivering { pick, .. } => Some(pick.addr),
            State::Trying { addr, .. } => Some(addr),
            State::Asked { .. } | State::Uploading { .. } | State::Closing { .. } => None,
        }
    }

    /// Whether it still waits for its answer.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.state, State::Closing { .. })
    }

    pub(super) fn deadline(&self) -> Deadline {
        match self.state {
            State::Uploading { stalled_at, overdue_at, .. } => {
                Deadline::new(stalled_at.min(overdue_at), Wake::UploadOverdue)
            }
            State::Asked { overdue_at }
            | State::Dialling { overdue_at, .. }
            | State::Delivering { overdue_at, .. }
            | State::Trying { overdue_at, .. }
            | State::Closing { overdue_at, .. } => Deadline::new(overdue_at, Wake::DialBackOverdue),
        }
    }

    /// The only place that assigns the state.
    fn enter(&mut self, state: State) {
        debug_assert!(is_lawful(&self.state, &state), "{:?} to {state:?}", self.state);
        self.state = state;
    }
}

/// The diagram above.
fn is_lawful(from: &State, to: &State) -> bool {
    match to {
        State::Asked { .. } => false,
        State::Uploading { .. } => matches!(from, State::Asked { .. } | State::Uploading { .. }),
        State::Dialling { .. } => matches!(from, State::Asked { .. } | State::Uploading { .. }),
        State::Delivering { .. } => matches!(from, State::Dialling { .. }),
        State::Trying { .. } => matches!(from, State::Asked { .. } | State::Trying { .. }),
        State::Closing { owes_request, .. } => !owes_request || matches!(from, State::Asked { .. }),
    }
}

/// How long a dial-back may take if a round trip to the requester takes `rtt`.
pub(super) fn dial_timeout(rtt: Option<Duration>) -> Duration {
    rtt.map_or(DIAL_MAX, |rtt| rtt.saturating_mul(DIAL_ROUND_TRIPS).clamp(DIAL_MIN, DIAL_MAX))
}

/// What is missing after a chunk of `bytes`.
fn after_chunk(missing_bytes: u64, bytes: usize) -> Result<u64, BadChunk> {
    // autonat-v2 §Amplification Attack Prevention: only the size of the `data` field counts; it
    // is limited to 4,096 bytes; the last one SHOULD be allowed to be larger than what is missing.
    if bytes > CHUNK_MAX {
        return Err(BadChunk);
    }
    let missing_bytes = missing_bytes.saturating_sub(u64::try_from(bytes).unwrap_or(u64::MAX));
    if bytes < CHUNK_MIN && missing_bytes > 0 { Err(BadChunk) } else { Ok(missing_bytes) }
}

impl Saved for Pick {
    fn save(&self, out: &mut Saver<'_>) {
        let Pick { index, addr, nonce } = self;
        index.save(out);
        addr.save(out);
        out.masked(*nonce).save(out);
    }

    fn load(from: &mut Loader<'_>) -> Result<Pick, BadCheckpoint> {
        let (index, addr, nonce) = Saved::load(from)?;
        Ok(Pick { index, addr, nonce })
    }
}

saved!(enum State {
    1 = Asked { overdue_at },
    2 = Uploading { pick, missing_bytes, stalled_at, overdue_at },
    3 = Dialling { pick, dial, overdue_at, answer_at },
    4 = Delivering { pick, dial, overdue_at },
    5 = Closing { owes_request, overdue_at },
    6 = Trying { addr, is_doubtful, overdue_at },
});
saved!(struct Session { conn, peer, network, is_introduced, asked_at as told(), is_half_closed, slept, state });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dial_timeout_follows_the_round_trip_within_bounds() {
        let millis = Duration::from_millis;
        for (rtt, timeout) in
            [(0, 2_500), (250, 2_500), (300, 3_000), (999, 9_990), (5_000, 10_000)]
        {
            assert_eq!(dial_timeout(Some(millis(rtt))), millis(timeout), "{rtt}");
        }
        assert_eq!(dial_timeout(Some(Duration::MAX)), DIAL_MAX);
        assert_eq!(dial_timeout(None), DIAL_MAX);
    }

    #[test]
    fn chunks_count_by_their_data_and_only_the_last_may_be_small() {
        assert_eq!(after_chunk(30_000, 4_096), Ok(25_904));
        assert_eq!(after_chunk(30_000, 100), Ok(29_900));
        assert_eq!(after_chunk(30_000, 99), Err(BadChunk));
        assert_eq!(after_chunk(30_000, 0), Err(BadChunk));
        assert_eq!(after_chunk(30_000, 4_097), Err(BadChunk));
        assert_eq!(after_chunk(10, 4_097), Err(BadChunk), "the limit holds for the last one too");
        assert_eq!(after_chunk(10, 10), Ok(0));
        assert_eq!(after_chunk(10, 4_096), Ok(0));
        assert_eq!(after_chunk(11, 10), Err(BadChunk));
    }
}
