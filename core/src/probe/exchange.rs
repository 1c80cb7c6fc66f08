//! One probe: a `DialRequest` on a stream of its own, and all that follows on that stream.
//!
//! ```text
//!            ┌─ DialDataRequest ─► pays (or declines: reset) ─┐
//!  asked ────┴────────────────────────────────────────────────┴─► answered ─► ended
//!    │                                            OK, no nonce yet ─► awaits nonce ─► proved | lie
//!    └─ overdue ─► timeout          (a nonce proves at any moment, whatever status follows)
//! ```

use super::nonce::{Arrival, Proof};
use crate::peers::Connection;
use crate::wire::autonat::{DialStatus, Message, ResponseStatus, dial_data_chunk};
use crate::words::checkpoint::saved;
use crate::words::deadline::Deadline;
use crate::words::sleep::Sleep;
use crate::{
    Action, Actions, Addr, ConnId, Duration, Family, Group, Instant, Outcome, PeerId, StreamId,
    Wake,
};
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::IpAddr;

/// How long a server may take beside two round trips: go-libp2p's 15 s stream limit.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the dial data may take on its way, ours: 100 kB over 30 kbit/s.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The least time between an `OK` and its nonce, ours: the two travel on different connections,
/// and one of them may have lost a packet.
const NONCE_GRACE: Duration = Duration::from_secs(2);
/// The most dial data a server may ask for: autonat-v2's range ends at 100,000 bytes.
const DIAL_DATA_MAX: u64 = 100_000;
/// The most data in one chunk (autonat-v2 §Amplification Attack Prevention: 4,096 bytes).
const CHUNK_MAX: u64 = 4_096;

/// One probe in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Exchange {
    pub(super) peer: PeerId,
    pub(super) group: Group,
    /// The source that introduced the server, if one did.
    pub(super) source: Option<u16>,
    pub(super) conn: ConnId,
    pub(super) way: Way,
    /// The addresses of the request, the one whose verdict is wanted first.
    pub(super) addrs: Vec<Addr>,
    /// Which of them the answer is about.
    judged: usize,
    /// A nonce that came back before it was known for which address.
    arrival: Option<Arrival>,
    pub(super) proved: bool,
    /// Whether a failure to dial comes from an IP that we never contacted, as far as we know: by
    /// what we know of the server, or by its answer.
    pub(super) cold: bool,
    rtt: Duration,
    excuse: Excuse,
    phase: Phase,
}

/// Why a failure may be nobody's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Excuse {
    None,
    /// It was asked on a connection that may have died while we slept.
    Line,
    /// We slept while it ran: whoever dialled us then dialled in vain.
    Sleep,
}

/// What the question travels on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// A connection of our own to the server.
    Direct,
    /// A circuit, with room for so much dial data, bytes.
    Circuit { data_max: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Asked { overdue_at: Instant, paid: bool },
    AwaitsNonce { lie_at: Instant },
}

/// What a message of the server means for the probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing is decided yet.
    Goes,
    /// It wants this much dial data.
    WantsData(u64),
    /// The probe is over.
    Ends(Outcome),
    /// The probe is over, and its stream is of no more use.
    Breaks(Outcome),
}

impl Progress {
    /// Whether the server has said which address its answer is about.
    fn is_judged(self) -> bool {
        let named = [Outcome::Proved, Outcome::DialFailed, Outcome::DialBackError];
        matches!(self, Progress::Ends(outcome) if named.contains(&outcome))
    }
}

impl Exchange {
    pub(super) fn new(
        now: Instant,
        (peer, group, conn): (PeerId, Group, ConnId),
        addrs: Vec<Addr>,
        cold: bool,
        connection: Option<&Connection>,
    ) -> Exchange {
        // Without a measured round trip, a slow one.
        let rtt = connection.and_then(|one| one.rtt).unwrap_or(Duration::from_secs(1));
        let in_doubt = connection.is_some_and(Connection::is_in_doubt);
        let excuse = if in_doubt { Excuse::Line } else { Excuse::None };
        let overdue_at = now + ANSWER_TIMEOUT + rtt * 2;
        let phase = Phase::Asked { overdue_at, paid: false };
        let (judged, arrival, proved) = (0, None, false);
        let way = Way::Direct;
        Exchange {
            peer,
            group,
            source: None,
            conn,
            way,
            addrs,
            judged,
            arrival,
            proved,
            cold,
            rtt,
            excuse,
            phase,
        }
    }

    /// Whether it was asked over a circuit.
    pub(super) fn is_over_circuit(&self) -> bool {
        self.way != Way::Direct
    }

    /// Whether so much dial data gets through.
    pub(super) fn carries(&self, bytes: u64) -> bool {
        match self.way {
            Way::Direct => true,
            Way::Circuit { data_max } => bytes <= data_max,
        }
    }

    /// We slept for a moment, and it goes on.
    pub(super) fn resumed(&mut self, sleep: Sleep) {
        self.excuse = Excuse::Sleep;
        match &mut self.phase {
            Phase::Asked { overdue_at, .. } => sleep.put_off(overdue_at),
            Phase::AwaitsNonce { lie_at } => sleep.put_off(lie_at),
        }
    }

    /// Whether this end of it may be our own doing, or the line's, and is held against nobody.
    pub(super) fn excuses(&self, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Timeout | Outcome::Error => self.excuse != Excuse::None,
            Outcome::DialFailed | Outcome::DialBackError | Outcome::Lie => {
                self.excuse == Excuse::Sleep
            }
            // A word about the server itself is as good as ever.
            Outcome::Proved | Outcome::Refused | Outcome::Rejected | Outcome::Declined => false,
        }
    }

    /// A message came. Only the first response counts; js-libp2p sends several. `is_stranger` knows
    /// the IPs that we never contacted.
    pub(super) fn answered(
        &mut self,
        now: Instant,
        body: &Bytes,
        stranger: impl Fn(IpAddr) -> Option<Group>,
    ) -> Progress {
        let Phase::Asked { paid, .. } = self.phase else {
            return Progress::Goes;
        };
        let Ok(message) = Message::decode(body) else {
            return Progress::Breaks(Outcome::Error);
        };
        match message {
            Message::DialResponse { status, addr_idx, dial_status, failed_from } => {
                let progress = self.judge(now, status, addr_idx, dial_status);
                // It may be made up: all that it can do is lower a scope, and it takes two networks.
                let from =
                    failed_from.filter(|from| Family::of(*from) == Family::of(self.addr().ip));
                let from = from.filter(|_| progress == Progress::Ends(Outcome::DialFailed));
                if let Some(group) = from.and_then(stranger) {
                    self.cold = true;
                    if self.is_over_circuit() {
                        self.group = group;
                    }
                }
                progress
            }
            Message::DialDataRequest { .. } if paid => Progress::Breaks(Outcome::Error),
            // An index that was not sent, or more than the range, is no honest request.
            Message::DialDataRequest { addr_idx, num_bytes: wanted @ 1..=DIAL_DATA_MAX }
                if self.names(addr_idx).is_some() =>
            {
                Progress::WantsData(wanted)
            }
            Message::DialDataRequest { .. }
            | Message::DialRequest { .. }
            | Message::DialDataResponse { .. } => Progress::Breaks(Outcome::Error),
        }
    }

    fn judge(
        &mut self,
        now: Instant,
        status: ResponseStatus,
        addr_idx: u32,
        dial_status: DialStatus,
    ) -> Progress {
        let outcome = match status {
            // autonat-v2 §DialResponse: only with OK do index and dial status mean anything, and
            // an index that was not sent is no answer to this request.
            ResponseStatus::Ok if !self.name(addr_idx) => Outcome::Error,
            ResponseStatus::Ok => match dial_status {
                DialStatus::Ok if self.proved || self.arrived().is_some() => Outcome::Proved,
                DialStatus::Ok => {
                    let lie_at = now + (self.rtt * 4).max(NONCE_GRACE);
                    self.phase = Phase::AwaitsNonce { lie_at };
                    return Progress::Goes;
                }
                DialStatus::DialError => Outcome::DialFailed,
                DialStatus::DialBackError => Outcome::DialBackError,
                // MUST discard a status that is not understood.
                DialStatus::Unused | DialStatus::Unknown(_) => Outcome::Error,
            },
            ResponseStatus::Rejected => Outcome::Rejected,
            ResponseStatus::Refused => Outcome::Refused,
            ResponseStatus::InternalError | ResponseStatus::Unknown(_) => Outcome::Error,
        };
        Progress::Ends(outcome)
    }

    /// The address that stands at this index of the request.
    fn names(&self, addr_idx: u32) -> Option<usize> {
        usize::try_from(addr_idx).ok().filter(|index| *index < self.addrs.len())
    }

    /// Take the server's word for which address its answer is about.
    fn name(&mut self, addr_idx: u32) -> bool {
        let named = self.names(addr_idx);
        self.judged = named.unwrap_or(self.judged);
        named.is_some()
    }

    /// The address that the answer is about; until there is one, the one that is wanted.
    pub(super) fn addr(&self) -> Addr {
        self.addrs[self.judged]
    }

    /// Whether the server passed over the wanted address.
    pub(super) fn passed_over(&self) -> bool {
        self.judged > 0
    }

    /// The nonce came back. The proof, if it is known of which address.
    pub(super) fn arrive(&mut self, arrival: Arrival) -> Option<Proof> {
        let proof = arrival.proof();
        let proof = proof.or_else(|| self.awaits_nonce().then(|| arrival.proof_of(self.addr()))?);
        if proof.is_none() {
            self.arrival = Some(arrival);
        }
        self.proved |= proof.is_some();
        proof
    }

    /// The proof of a nonce that had come before the server said for which address.
    fn arrived(&self) -> Option<Proof> {
        self.arrival.as_ref()?.proof_of(self.addr())
    }

    /// That proof, once, when the answer has come.
    pub(super) fn take_arrived(&mut self, progress: Progress) -> Option<Proof> {
        let proof = self.arrived().filter(|_| progress.is_judged())?;
        self.arrival = None;
        self.proved = true;
        Some(proof)
    }

    /// Whether the server has answered and only its nonce is missing.
    pub(super) fn awaits_nonce(&self) -> bool {
        matches!(self.phase, Phase::AwaitsNonce { .. })
    }

    /// Send the dial data, all at once; the stream's back-pressure paces it.
    pub(super) fn pay(
        &mut self,
        now: Instant,
        actions: &mut Actions,
        stream: StreamId,
        wanted: u64,
    ) {
        let mut left = wanted;
        let whole = usize::try_from(CHUNK_MAX).unwrap_or(usize::MAX);
        // Serialised once and sent again and again: only the length of the data counts, and the
        // last chunk may be longer than what is missing.
        let chunk = dial_data_chunk(whole);
        while left > 0 {
            actions.push(Action::Send { stream, body: chunk.clone() });
            left = left.saturating_sub(CHUNK_MAX);
        }
        let overdue_at = now + UPLOAD_TIMEOUT + ANSWER_TIMEOUT + self.rtt * 2;
        self.phase = Phase::Asked { overdue_at, paid: true };
    }

    /// How the probe ends if nothing more comes, and when.
    pub(super) fn expiry(&self) -> (Instant, Outcome) {
        match self.phase {
            Phase::Asked { overdue_at, .. } => (overdue_at, Outcome::Timeout),
            Phase::AwaitsNonce { lie_at } => (lie_at, Outcome::Lie),
        }
    }

    pub(super) fn deadline(&self) -> Deadline {
        match self.phase {
            Phase::Asked { overdue_at, .. } => Deadline::new(overdue_at, Wake::ProbeOverdue),
            Phase::AwaitsNonce { lie_at } => Deadline::new(lie_at, Wake::NonceOverdue),
        }
    }
}

saved!(enum Phase { 1 = Asked { overdue_at, paid }, 2 = AwaitsNonce { lie_at } });
saved!(enum Way { 1 = Direct, 2 = Circuit { data_max } });
saved!(enum Excuse { 1 = None, 2 = Line, 3 = Sleep });
saved!(struct Exchange {
    peer,
    group,
    source,
    conn,
    way,
    addrs,
    judged,
    arrival,
    proved,
    cold,
    rtt,
    excuse,
    phase,
}, if is_about_something);

fn is_about_something(exchange: &Exchange) -> bool {
    exchange.judged < exchange.addrs.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::checkpoint::reloaded;
    use alloc::vec;
    use core::net::Ipv4Addr;

    #[test]
    fn a_checkpoint_names_an_address_of_the_request() {
        let addr = Addr::tcp(Ipv4Addr::new(44, 0, 0, 1).into(), 4001);
        let server = (PeerId::random(), Group::prefix(addr.ip), ConnId(1));
        let mut exchange = Exchange::new(Instant::ZERO, server, vec![addr], false, None);
        assert_eq!(reloaded(&exchange), Ok(exchange.clone()));
        exchange.judged = 1;
        assert!(reloaded(&exchange).is_err());
    }
}
