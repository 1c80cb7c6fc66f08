//! Who may be reached through us, and until when.

use super::admission::{Newcomers, PEER_PER_MIN, Place};
use crate::service::Caller;
use crate::service::buckets::full_after_one;
use crate::words::checkpoint::saved;
use crate::words::deadline::{Deadline, Wake};
use crate::{Instant, PeerId, RelayServerConfig};
use alloc::collections::BTreeMap;
use core::net::IpAddr;

/// One reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reservation {
    /// Where its holder was when it asked last.
    ip: IpAddr,
    expires_at: Instant,
    /// When the holder's bucket is full again. It stands here, so that no crowd of strangers keeps
    /// a holder from its renewal.
    full_at: Option<Instant>,
}

/// Every reservation: at most `reservations_max`, one a peer. When full, a newcomer is refused; a
/// renewal takes the place of the old one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reservations {
    held: BTreeMap<PeerId, Reservation>,
    newcomers: Newcomers,
}

impl Reservations {
    pub(super) fn new() -> Reservations {
        Reservations { held: BTreeMap::new(), newcomers: Newcomers::new() }
    }

    /// Grant one, or its renewal; whether its holder had one before. `None` leaves everything as
    /// it was: over a rate or a cap.
    pub(super) fn grant(
        &mut self,
        now: Instant,
        caller: &Caller,
        limits: &RelayServerConfig,
        allow_private: bool,
    ) -> Option<bool> {
        let place = Place::of(caller.remote.ip, allow_private);
        let held = self.held.get(&caller.peer).filter(|one| now < one.expires_at);
        let renewed = held.is_some();
        let full_at = match held {
            Some(held) => Some(full_after_one(held.full_at, now, PEER_PER_MIN)?),
            None => {
                let max = limits.reservations_per_prefix_max;
                if !self.newcomers.admit(now, caller, place, max) {
                    return None;
                }
                None
            }
        };
        // Tokens are spent whether or not there is room: asking is what they pay for.
        if let Some(held) = self.held.get_mut(&caller.peer) {
            held.full_at = full_at;
        }
        if !self.has_room(now, caller.peer, place, limits, allow_private) {
            return None;
        }
        let expires_at = now + limits.reservation_lifetime;
        let granted = Reservation { ip: caller.remote.ip, expires_at, full_at };
        self.held.insert(caller.peer, granted);
        Some(renewed)
    }

    /// Whether one fits in beside those of the others.
    fn has_room(
        &self,
        now: Instant,
        peer: PeerId,
        place: Place,
        limits: &RelayServerConfig,
        allow_private: bool,
    ) -> bool {
        let (mut all, mut of_host, mut of_network) = (0, 0, 0);
        let others =
            self.held.iter().filter(|(holder, one)| **holder != peer && now < one.expires_at);
        for (_, other) in others {
            let other = Place::of(other.ip, allow_private);
            all += 1;
            of_host += usize::from(other.host == place.host);
            of_network += usize::from(other.network == place.network);
        }
        all < limits.reservations_max
            && of_host < limits.reservations_per_ip_max
            && of_network < limits.reservations_per_prefix_max
    }

    /// Whether this peer may be reached through us at this very moment.
    pub(super) fn holds(&self, now: Instant, peer: PeerId) -> bool {
        self.held.get(&peer).is_some_and(|one| now < one.expires_at)
    }

    /// Whether this peer holds one.
    pub(super) fn has(&self, peer: PeerId) -> bool {
        self.held.contains_key(&peer)
    }

    /// The holder left; whether there was one.
    pub(super) fn end(&mut self, peer: PeerId) -> bool {
        self.held.remove(&peer).is_some()
    }

    /// One that has expired.
    pub(super) fn expired(&self, now: Instant) -> Option<PeerId> {
        let over = |(peer, one): (&PeerId, &Reservation)| (one.expires_at <= now).then_some(*peer);
        self.held.iter().find_map(over)
    }

    pub(super) fn deadline(&self) -> Option<Deadline> {
        let first = self.held.values().map(|one| one.expires_at).min()?;
        Some(Deadline::new(first, Wake::ReservationExpires))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    #[cfg(test)]
    pub(super) fn newcomers(&self) -> usize {
        self.newcomers.len()
    }
}

saved!(struct Reservation { ip, expires_at, full_at as ahead() });
saved!(struct Reservations { held, newcomers });
