//! Any event, configuration and step, for proptest.

use crate::relays;
use bytes::Bytes;
use libp2p_identity::Keypair;
use portolan_core::flight::{Drawn, Head, Step};
use portolan_core::{
    Addr, Channel, Class, Config, ConnId, Connected, DialBackConfig, DialFailure, DialId, Duration,
    Event, Family, FetchFailure, FetchId, Gateway, Instant, ListenerId, MappingConfig,
    MappingEvent, MappingProtocol, NodeState, PeerId, Protocol, ProtocolSet, Side, StreamEnd,
    StreamFailure, StreamId, Transport, UnixTime,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// A key pair that is always the same.
pub(crate) fn key(seed: u8) -> Keypair {
    Keypair::ed25519_from_bytes([seed; 32]).expect("any 32 bytes are a key")
}

pub(crate) fn peer() -> impl Strategy<Value = PeerId> {
    (0..4u8).prop_map(|seed| key(seed).public().to_peer_id())
}

pub(crate) fn ip() -> impl Strategy<Value = IpAddr> {
    let few = select(vec!["44.0.0.1", "127.0.0.1", "0.0.0.0", "::", "2600::1", "::ffff:1.2.3.4"]);
    prop_oneof![any::<IpAddr>(), few.prop_map(|ip| ip.parse().expect("an address"))]
}

pub(crate) fn addr() -> impl Strategy<Value = Addr> {
    let transport = select(vec![Transport::Tcp, Transport::Quic]);
    (ip(), any::<u16>(), transport).prop_map(|(ip, port, transport)| Addr { ip, port, transport })
}

/// Small numbers, so that events meet, and some that are not small.
pub(crate) fn number() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..4u64, 1 => any::<u64>()]
}

pub(crate) fn span() -> impl Strategy<Value = Duration> {
    let few = [Duration::ZERO, Duration::MAX, Duration::from_nanos(1), Duration::from_secs(30)];
    prop_oneof![any::<Duration>(), select(few.to_vec())]
}

pub(crate) fn stream() -> impl Strategy<Value = StreamId> {
    let side = select(vec![Side::Inbound, Side::Outbound]);
    (side, select(Protocol::ALL.to_vec()), number()).prop_map(|(side, protocol, number)| StreamId {
        side,
        protocol,
        number,
    })
}

/// Bodies with runs of zeros of every length.
pub(crate) fn body() -> impl Strategy<Value = Bytes> {
    let run = (any::<u8>(), prop_oneof![0..40usize, Just(5_000usize)]);
    let part = prop_oneof![
        vec(any::<u8>(), 0..20),
        run.prop_map(|(byte, len)| vec![if byte < 128 { 0 } else { byte }; len]),
    ];
    vec(part, 0..5).prop_map(|parts| parts.concat().into())
}

pub(crate) fn event() -> impl Strategy<Value = Event> {
    let listener = || number().prop_map(ListenerId);
    let conn = || number().prop_map(ConnId);
    let dial = || number().prop_map(DialId);
    let refusals = vec![
        DialFailure::Refused,
        DialFailure::TimedOut,
        DialFailure::Handshake,
        DialFailure::LocalFault,
    ];
    let failures = vec![StreamFailure::Unsupported, StreamFailure::Failed, StreamFailure::TimedOut];
    let ends = vec![StreamEnd::Finished, StreamEnd::Reset, StreamEnd::BadFrame];
    prop_oneof![
        Just(Event::Tick),
        span().prop_map(|slept| Event::Resumed { slept }),
        (listener(), addr()).prop_map(|(listener, addr)| Event::ListenerOpened { listener, addr }),
        listener().prop_map(|listener| Event::ListenerClosed { listener }),
        vec(ip(), 0..5).prop_map(|ips| Event::InterfacesChanged { ips }),
        ip().prop_map(|ip| Event::Contacted { ip }),
        (peer(), any::<u16>()).prop_map(|(peer, source)| Event::Introduced { peer, source }),
        connected().prop_map(Event::Connected),
        conn().prop_map(|conn| Event::Disconnected { conn }),
        (dial(), select(refusals)).prop_map(|(dial, reason)| Event::DialFailed { dial, reason }),
        addr().prop_map(|addr| Event::DialFailureReported { addr }),
        (conn(), stream()).prop_map(|(conn, stream)| Event::StreamOpened { conn, stream }),
        (stream(), select(failures))
            .prop_map(|(stream, reason)| Event::StreamFailed { stream, reason }),
        (stream(), body()).prop_map(|(stream, body)| Event::Frame { stream, body }),
        (stream(), select(ends)).prop_map(|(stream, end)| Event::StreamClosed { stream, end }),
        (conn(), addr()).prop_map(|(conn, observed)| Event::Observed { conn, observed }),
        (conn(), protocols())
            .prop_map(|(conn, protocols)| Event::ProtocolsListed { conn, protocols }),
        mapping_event().prop_map(Event::Mapping),
        relays::event().prop_map(Event::Relay),
        relays::frame(),
    ]
}

fn socket() -> impl Strategy<Value = SocketAddr> {
    (ip(), any::<u16>(), 0..3u32, prop_oneof![9 => Just(0), 1 => any::<u32>()]).prop_map(
        |(ip, port, scope, flow)| match ip {
            IpAddr::V4(ip) => SocketAddrV4::new(ip, port).into(),
            IpAddr::V6(ip) => SocketAddrV6::new(ip, port, flow, scope).into(),
        },
    )
}

fn channel() -> impl Strategy<Value = Channel> {
    (ip(), 0..4u32, option::of(socket())).prop_map(|(source, interface, group)| match group {
        None => Channel::Client { source, interface },
        Some(group) => Channel::Group { group, source, interface },
    })
}

/// Bodies that begin as those of routers do, and others; texts with addresses in them.
fn said() -> impl Strategy<Value = Bytes> {
    let header = select(vec![&b"\0\x80"[..], b"\0\x82", b"\x02\x01", b"\x02\x81", b"HTTP/1.1 "]);
    let binary = (header, body()).prop_map(|(header, body)| [header, &body[..]].concat().into());
    let text = vec((ip(), "[ -~]{0,8}"), 0..4).prop_map(|words| {
        let words = words.into_iter().map(|(ip, text)| format!("<IP>{ip}</IP>{text}\n"));
        words.collect::<String>().into()
    });
    prop_oneof![body(), binary, text]
}

fn mapping_event() -> impl Strategy<Value = MappingEvent> {
    let gateway = (ip(), 0..4u32, ip());
    let gateway =
        gateway.prop_map(|(router, interface, source)| Gateway { router, interface, source });
    let fetch = || number().prop_map(FetchId);
    let failures = vec![
        FetchFailure::Refused,
        FetchFailure::TimedOut,
        FetchFailure::Malformed,
        FetchFailure::LocalFault,
    ];
    prop_oneof![
        vec(gateway, 0..5).prop_map(|gateways| MappingEvent::GatewaysChanged { gateways }),
        (channel(), socket(), said()).prop_map(|(channel, from, body)| {
            MappingEvent::DatagramReceived { channel, from, body }
        }),
        (channel(), option::of(socket()))
            .prop_map(|(channel, to)| MappingEvent::DatagramRefused { channel, to }),
        (fetch(), any::<u16>(), said()).prop_map(|(fetch, status, body)| MappingEvent::Fetched {
            fetch,
            status,
            body
        }),
        (fetch(), select(failures))
            .prop_map(|(fetch, reason)| MappingEvent::FetchFailed { fetch, reason }),
        body().prop_map(|ledger| MappingEvent::LedgerRead { ledger }),
        Just(MappingEvent::Closing),
    ]
}

fn protocols() -> impl Strategy<Value = ProtocolSet> {
    vec(select(Protocol::ALL.to_vec()), 0..6)
        .prop_map(|all| all.into_iter().fold(ProtocolSet::NONE, ProtocolSet::with))
}

fn connected() -> impl Strategy<Value = Connected> {
    let side = select(vec![Side::Inbound, Side::Outbound]);
    let dial = option::weighted(0.2, number().prop_map(DialId));
    let ends = (number().prop_map(ConnId), peer(), side);
    (ends, addr(), addr(), any::<bool>(), dial, option::of(span())).prop_map(
        |((conn, peer, side), local, remote, relayed, dial, rtt)| Connected {
            conn,
            peer,
            side,
            local,
            remote,
            relayed,
            dial,
            rtt,
        },
    )
}

fn state() -> impl Strategy<Value = NodeState> {
    select(vec![NodeState::Unknown, NodeState::Private, NodeState::Limited, NodeState::Public])
}

fn class() -> impl Strategy<Value = Class> {
    let family = select(vec![Family::Ip4, Family::Ip6]);
    let transport = select(vec![Transport::Tcp, Transport::Quic]);
    (family, transport).prop_map(|(family, transport)| Class::new(family, transport))
}

/// Any configuration, and many that no agent takes.
pub(crate) fn config() -> impl Strategy<Value = Config> {
    let texts = (".{0,20}", ".{0,20}", vec(".{0,20}", 0..3), any::<bool>(), any::<bool>());
    let numbers = (option::of(span()), prop_oneof![1..=50usize, any::<usize>()], any::<bool>());
    let states = (vec(addr(), 0..3), option::of(state()), vec((class(), state()), 0..3));
    let relays = (option::of(relays::used()), option::of(relays::offered()));
    let services = (option::of(dial_back()), option::of(mapping()), relays);
    (texts, numbers, states, services).prop_map(|(texts, numbers, states, services)| {
        let mut config = Config::default();
        (config.agent_version, config.protocol_version, config.protocols, ..) = texts.clone();
        (.., config.allow_private, config.identify) = texts;
        (config.ping_interval, config.addrs_per_request, config.hearsay) = numbers;
        (config.external, config.force_node, config.force_class) = states;
        let relays;
        (config.dial_back, config.mapping, relays) = services;
        (config.relay, config.relay_server) = relays;
        config
    })
}

fn dial_back() -> impl Strategy<Value = DialBackConfig> {
    let limit = || prop_oneof![0..20u32, any::<u32>()];
    let limits = (limit(), limit(), limit(), limit(), limit());
    (vec(ip(), 0..3), limits, prop_oneof![0..20usize, any::<usize>()]).prop_map(
        |(sources, limits, dials_max)| {
            let mut config = DialBackConfig::default();
            config.sources = sources;
            (config.global_per_min, config.peer_per_min, config.prefix_per_min, ..) = limits;
            (.., config.target_per_min, config.target_prefix_per_min) = limits;
            config.dials_max = dials_max;
            config
        },
    )
}

fn mapping() -> impl Strategy<Value = MappingConfig> {
    let protocols = vec(select(MappingProtocol::ALL.to_vec()), 0..4);
    let transport = select(vec![Transport::Tcp, Transport::Quic]);
    (protocols, vec((transport, any::<u16>()), 0..4), span(), ".{0,40}").prop_map(
        |(protocols, ports, lifetime, description)| {
            let mut config = MappingConfig::default();
            config.protocols = protocols;
            config.ports = ports;
            config.lifetime = lifetime;
            config.description = description;
            config
        },
    )
}

pub(crate) fn head() -> impl Strategy<Value = Head> {
    let times = (0..=u64::MAX / 2, any::<u64>());
    let checkpoint = option::weighted(0.2, vec(any::<u8>(), 0..20));
    (".{0,20}", config(), 0..4u8, number(), times, checkpoint).prop_map(
        |(software, config, seed, part, (now, unix), checkpoint)| Head {
            software,
            config,
            identity: key(seed).public(),
            part,
            now: Instant::from_nanos(now),
            unix: UnixTime::from_millis(unix),
            checkpoint: checkpoint.map(Bytes::from),
        },
    )
}

pub(crate) fn drawn() -> impl Strategy<Value = Drawn> {
    prop_oneof![
        (any::<u64>(), any::<u64>()).prop_map(|(n, value)| Drawn::Below { n, value }),
        any::<u64>().prop_map(Drawn::Nonce),
    ]
}

/// Steps whose times lie behind `start`, in order.
pub(crate) fn steps(start: Instant, most: usize) -> impl Strategy<Value = Vec<Step>> {
    let pause = prop_oneof![6 => 0..20_000_000_000u64, 1 => Just(0), 1 => 0..u64::MAX / 4];
    let signatures = vec(vec(any::<u8>(), 0..20).prop_map(Bytes::from), 0..2);
    let one = (pause, any::<u64>(), event(), vec(drawn(), 0..5), signatures, any::<u64>());
    vec(one, 0..most).prop_map(move |all| {
        let mut now = start.as_nanos();
        let step = |(pause, unix, event, drawn, signatures, digest)| {
            now = now.saturating_add(pause).min(u64::MAX / 2);
            Step {
                now: Instant::from_nanos(now),
                unix: UnixTime::from_millis(unix),
                event,
                drawn,
                signatures,
                digest,
            }
        };
        all.into_iter().map(step).collect()
    })
}
