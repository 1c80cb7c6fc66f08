//! Any event of relays, message of theirs, and configuration that speaks of them, for proptest.

use crate::values::{addr, body, key, number, peer, span, stream};
use bytes::Bytes;
use portolan_core::wire::multiaddr::encode;
use portolan_core::wire::relay::{HopMessage, Reservation, StopMessage, Voucher};
use portolan_core::{
    BridgeEnd, CircuitId, CircuitLimit, ConnId, DialFailure, Duration, Event, Protocol,
    RelayConfig, RelayEvent, RelayNeed, RelayPeer, RelayServerConfig, RelayStatus, Side, Signer,
    StreamId,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

pub(crate) fn event() -> impl Strategy<Value = RelayEvent> {
    let circuit = || number().prop_map(CircuitId);
    let refusals = vec![
        DialFailure::Refused,
        DialFailure::TimedOut,
        DialFailure::Handshake,
        DialFailure::LocalFault,
    ];
    let ends = vec![BridgeEnd::Finished, BridgeEnd::Reset, BridgeEnd::BytesUsedUp, BridgeEnd::Cut];
    prop_oneof![
        (circuit(), number().prop_map(ConnId), peer()).prop_map(|(circuit, conn, peer)| {
            RelayEvent::CircuitWanted { circuit, conn, peer }
        }),
        circuit().prop_map(|circuit| RelayEvent::CircuitForgotten { circuit }),
        (peer(), addr(), select(refusals))
            .prop_map(|(peer, addr, reason)| RelayEvent::ConnectFailed { peer, addr, reason }),
        stream().prop_map(|stream| RelayEvent::UpgradeFailed { stream }),
        (stream(), select(ends), any::<u64>(), any::<u64>()).prop_map(
            |(stream, end, forth, back)| RelayEvent::BridgeEnded { stream, end, forth, back }
        ),
        Just(RelayEvent::Draining),
    ]
}

/// A message of a hop or a stop stream, on a stream of either side.
pub(crate) fn frame() -> impl Strategy<Value = Event> {
    let hop = hop().prop_map(|said| (Protocol::Hop, said.encode()));
    let stop = stop().prop_map(|said| (Protocol::Stop, said.encode()));
    let side = select(vec![Side::Inbound, Side::Outbound]);
    (prop_oneof![hop, stop], side, number()).prop_map(|((protocol, body), side, number)| {
        Event::Frame { stream: StreamId { side, protocol, number }, body }
    })
}

fn hop() -> impl Strategy<Value = HopMessage> {
    prop_oneof![
        Just(HopMessage::Reserve),
        peer().prop_map(|peer| HopMessage::Connect { peer }),
        (status(), option::of(reservation()), written_limit()).prop_map(
            |(status, reservation, limit)| HopMessage::Status { status, reservation, limit }
        ),
    ]
}

fn stop() -> impl Strategy<Value = StopMessage> {
    prop_oneof![
        (peer(), written_limit()).prop_map(|(peer, limit)| StopMessage::Connect { peer, limit }),
        status().prop_map(|status| StopMessage::Status { status }),
    ]
}

fn status() -> impl Strategy<Value = RelayStatus> {
    prop_oneof![4 => Just(100), 4 => select(vec![0, 200, 201, 202, 203, 204, 400, 401]), 1 => any::<i32>()]
        .prop_map(RelayStatus::from_code)
}

/// As the wire can say it: whole seconds.
fn written_limit() -> impl Strategy<Value = CircuitLimit> {
    let seconds = option::of(1..=u32::MAX);
    (seconds, option::of(1..=u64::MAX)).prop_map(|(seconds, bytes)| {
        let duration = seconds.map(|seconds| Duration::from_secs(seconds.into()));
        CircuitLimit { duration, bytes }
    })
}

fn reservation() -> impl Strategy<Value = Reservation> {
    let addrs = vec(prop_oneof![addr().prop_map(encode), Just(Bytes::from_static(b"\x1f"))], 0..4);
    (any::<u64>(), addrs, option::of(voucher())).prop_map(|(expire, addrs, voucher)| Reservation {
        expire,
        addrs,
        voucher,
    })
}

struct Hand(u8);

impl Signer for Hand {
    fn sign(&mut self, message: &[u8]) -> Vec<u8> {
        key(self.0).sign(message).expect("ed25519 signs anything")
    }
}

/// A voucher that the relay did not sign, or what is none. A good one would name peers in the
/// transcript that its redacted twin, which has no voucher, does not name.
fn voucher() -> impl Strategy<Value = Bytes> {
    let signed = (0..4u8, peer(), any::<u64>()).prop_map(|(relay, peer, expiration)| {
        let public = key(relay).public();
        let voucher = Voucher { relay: public.to_peer_id(), peer, expiration };
        voucher.sealed(&public, &mut Hand(relay ^ 1))
    });
    prop_oneof![3 => signed, 1 => body()]
}

fn limit() -> impl Strategy<Value = CircuitLimit> {
    (option::of(span()), option::of(any::<u64>()))
        .prop_map(|(duration, bytes)| CircuitLimit { duration, bytes })
}

pub(crate) fn used() -> impl Strategy<Value = RelayConfig> {
    let relay = (peer(), vec(addr(), 0..3)).prop_map(|(peer, addrs)| RelayPeer { peer, addrs });
    let need = select(vec![RelayNeed::Auto, RelayNeed::Always, RelayNeed::Never]);
    let reservations = prop_oneof![4 => 1..=4usize, 1 => any::<usize>()];
    (vec(relay, 0..3), need, reservations, any::<bool>()).prop_map(
        |(relays, need, reservations, use_connected)| {
            let mut config = RelayConfig::default();
            config.relays = relays;
            config.need = need;
            config.reservations = reservations;
            config.use_connected = use_connected;
            config
        },
    )
}

pub(crate) fn offered() -> impl Strategy<Value = RelayServerConfig> {
    let most = || prop_oneof![4 => 0..200usize, 1 => any::<usize>()];
    let reservations = (most(), most(), most(), span());
    let circuits = (most(), most(), most(), limit());
    let allow = option::weighted(0.3, vec(peer(), 0..3));
    (reservations, circuits, allow, any::<bool>()).prop_map(
        |(reservations, circuits, allow, only_while_may_serve)| {
            let mut config = RelayServerConfig::default();
            (config.reservations_max, config.reservations_per_ip_max, ..) = reservations;
            (.., config.reservations_per_prefix_max, config.reservation_lifetime) = reservations;
            (config.circuits_max, config.circuits_per_peer_max, ..) = circuits;
            (.., config.circuits_per_prefix_max, config.limit) = circuits;
            config.allow = allow;
            config.only_while_may_serve = only_while_may_serve;
            config
        },
    )
}
