//! What a relay granted: for how long, at which addresses, and whether its voucher holds.

use super::Ground;
use super::rest::spread;
use crate::peers::Connection;
use crate::wire::multiaddr::{self, Decoded};
use crate::wire::relay::{Reservation, Voucher};
use crate::words::addr::ip_scope;
use crate::{Addr, Cx, Duration, Instant, IpScope, PeerId, RelayFailure, Side, UnixTime};
use alloc::vec::Vec;

/// Addresses of one relay that are told, number; ours: two families, two transports. Identify grows
/// by some 130 bytes each. When full, the rest is left out, in the order the relay gave.
pub(super) const ADDRS_TOLD_MAX: usize = 4;
/// The shortest lifetime that is believed, ours: one minute. A clock that is wrong by a little less
/// than the lifetime would otherwise have us renew all the time.
const LIFETIME_MIN: Duration = Duration::from_secs(60);
/// The longest, ours: one day. What is longer lasts as long for us.
const LIFETIME_MAX: Duration = Duration::from_secs(86_400);
/// The lifetime that counts where the relay's clock or ours is so wrong that the end has passed
/// already, ours: ten minutes, a sixth of what relays grant.
const LIFETIME_ASSUMED: Duration = Duration::from_secs(600);
/// The lifetime beyond which a reservation is not renewed later, go-libp2p's and rust-libp2p's
/// value of it: one hour. A clock of ours that is slow makes none run out before it is renewed.
const RENEWED_AS_IF_MAX: Duration = Duration::from_secs(3_600);
/// The pause after a renewal that failed, the first one, ours; it doubles.
const RETRY_FIRST: Duration = Duration::from_secs(5);
/// The same after one that was refused, ours: a place is free when another reservation ends.
const RETRY_REFUSED_FIRST: Duration = Duration::from_secs(60);
/// The shortest such pause, ours: as the end comes nearer, renewals are tried more often.
const RETRY_MIN: Duration = Duration::from_secs(1);

/// What was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) until: Instant,
    pub(super) renew_at: Instant,
    pub(super) addrs: Vec<Addr>,
}

/// Judge what the relay at the other end of `connection` granted.
pub(super) fn read(
    cx: &mut Cx<'_>,
    ground: &Ground<'_>,
    connection: &Connection,
    reservation: &Reservation,
) -> Result<Grant, RelayFailure> {
    check_voucher(ground, connection.peer, reservation)?;
    let addrs = addresses(ground, connection, reservation);
    if addrs.is_empty() {
        // Nobody could find us there.
        return Err(RelayFailure::BadAnswer);
    }
    let lifetime = lifetime(cx.unix, reservation.expire);
    let renewed = lifetime.min(RENEWED_AS_IF_MAX);
    let renew_at = cx.now + spread(cx.draw, renewed / 2, renewed / 4);
    Ok(Grant { until: cx.now + lifetime, renew_at, addrs })
}

/// When a renewal is tried again after `tries` that failed before this one; `None`: not before
/// the reservation ends.
pub(super) fn retry_at(
    now: Instant,
    until: Instant,
    failure: RelayFailure,
    tries: u32,
) -> Option<Instant> {
    let first = match failure {
        RelayFailure::Full => RETRY_REFUSED_FIRST,
        RelayFailure::TimedOut
        | RelayFailure::BadAnswer
        | RelayFailure::Disconnected
        | RelayFailure::Unreachable(_) => RETRY_FIRST,
        RelayFailure::Denied | RelayFailure::Unsupported | RelayFailure::BadVoucher => {
            return None;
        }
    };
    let pause = first * 2u32.saturating_pow(tries.min(16));
    let at = now + pause.min(until.since(now) / 4).max(RETRY_MIN);
    (at < until).then_some(at)
}

/// How long it lasts. The relay's clock or ours may be wrong: what cannot be is bounded (CR-15).
fn lifetime(unix: UnixTime, expire: u64) -> Duration {
    let expires = UnixTime::from_millis(expire.saturating_mul(1_000));
    match expires.since(unix) {
        Duration::ZERO => LIFETIME_ASSUMED,
        span => span.clamp(LIFETIME_MIN, LIFETIME_MAX),
    }
}

/// A voucher may be absent; one that is there must be the relay's, for us, and say the same.
fn check_voucher(
    ground: &Ground<'_>,
    relay: PeerId,
    reservation: &Reservation,
) -> Result<(), RelayFailure> {
    let Some(envelope) = &reservation.voucher else {
        return Ok(());
    };
    let voucher = Voucher::open(envelope).map_err(|_| RelayFailure::BadVoucher)?;
    let holds = voucher.relay == relay
        && voucher.peer == ground.identity.to_peer_id()
        && voucher.expiration == reservation.expire;
    if holds { Ok(()) } else { Err(RelayFailure::BadVoucher) }
}

/// The addresses of the relay that others can dial, else what we dialled.
fn addresses(ground: &Ground<'_>, connection: &Connection, reservation: &Reservation) -> Vec<Addr> {
    let relay = connection.peer;
    let world = |addr: Addr| match ip_scope(addr.ip) {
        IpScope::Global => true,
        IpScope::Private | IpScope::Loopback => ground.config.allow_private,
        IpScope::LinkLocal | IpScope::Unusable => false,
    };
    let read = |bytes: &bytes::Bytes| match multiaddr::decode(bytes) {
        Ok(Decoded::Direct { addr, peer }) if peer.is_none_or(|peer| peer == relay) => Some(addr),
        Ok(Decoded::Direct { .. } | Decoded::Relayed | Decoded::Other) | Err(_) => None,
    };
    let told = reservation.addrs.iter().filter_map(read).filter(|addr| world(*addr));
    let dialled = (connection.side == Side::Outbound).then_some(connection.remote);
    let configured = ground.relay(relay).into_iter().flat_map(|relay| relay.addrs.iter().copied());
    let mut addrs = distinct(told);
    if addrs.is_empty() {
        addrs = distinct(dialled.into_iter());
    }
    if addrs.is_empty() {
        addrs = distinct(configured);
    }
    addrs
}

fn distinct(all: impl Iterator<Item = Addr>) -> Vec<Addr> {
    let mut addrs = Vec::new();
    for addr in all {
        if addrs.len() < ADDRS_TOLD_MAX && !addrs.contains(&addr) {
            addrs.push(addr);
        }
    }
    addrs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_may_be_wrong() {
        let unix = |seconds: u64| UnixTime::from_millis(seconds * 1_000);
        let of = |now, expire| lifetime(unix(now), expire).as_secs();
        assert_eq!(of(1_000, 4_600), 3_600);
        assert_eq!(of(1_000, 1_000), 600, "over already");
        assert_eq!(of(1_000, 0), 600);
        assert_eq!(of(1_000, 1_003), 60, "about to be over");
        assert_eq!(of(1_000, u64::MAX), 86_400);
        assert_eq!(of(0, 1_800_000_000), 86_400, "a clock that was never set");
    }

    #[test]
    fn a_renewal_is_tried_more_often_as_the_end_comes_nearer() {
        let at = |seconds: u64| Instant::from_millis(seconds * 1_000);
        let full = RelayFailure::Full;
        let silent = RelayFailure::TimedOut;
        assert_eq!(retry_at(at(0), at(900), silent, 0), Some(at(5)));
        assert_eq!(retry_at(at(0), at(900), silent, 3), Some(at(40)));
        assert_eq!(retry_at(at(0), at(900), silent, 30), Some(at(225)));
        assert_eq!(retry_at(at(0), at(900), full, 0), Some(at(60)));
        assert_eq!(retry_at(at(896), at(900), full, 0), Some(at(897)));
        assert_eq!(retry_at(at(899), at(900), full, 0), None);
        assert_eq!(retry_at(at(0), at(900), RelayFailure::Denied, 0), None);
    }
}
