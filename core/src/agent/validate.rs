//! Which configurations an agent can work with.

use crate::words::config::{
    ADDRS_PER_REQUEST_MAX, CANDIDATES_MAX, DISTANT_SERVERS_MAX, IDENTIFY_PROTOCOLS_BYTES_MAX,
    MAPPING_DESCRIPTION_MAX, MAPPING_LIFETIME_MAX, MAPPING_LIFETIME_MIN, MAPPINGS_MAX,
    RELAY_ADDRS_MAX, RELAY_ALLOW_MAX, RELAYS_MAX, RESERVATION_LIFETIME_MAX,
    RESERVATION_LIFETIME_MIN, RESERVATIONS_MAX,
};
use crate::{
    Addr, Config, ConfigError, DialBackConfig, Duration, IpScope, MappingConfig, RelayConfig,
    RelayPeer, RelayServerConfig, ip_scope,
};
use alloc::vec::Vec;
use core::net::IpAddr;

pub(super) fn validate(config: &Config) -> Result<(), ConfigError> {
    if config.external.len() > CANDIDATES_MAX / 2 {
        return Err(ConfigError::TooManyExternal { given: config.external.len() });
    }
    let dialable = |addr: &&Addr| match ip_scope(addr.ip) {
        IpScope::Global => addr.port != 0,
        IpScope::Private | IpScope::Loopback => addr.port != 0 && config.allow_private,
        IpScope::LinkLocal | IpScope::Unusable => false,
    };
    if let Some(addr) = config.external.iter().find(|addr| !dialable(addr)) {
        return Err(ConfigError::UnusableExternal(*addr));
    }
    let bytes = config.protocols.iter().map(|name| name.len()).sum();
    if bytes > IDENTIFY_PROTOCOLS_BYTES_MAX {
        return Err(ConfigError::ProtocolsTooLong { bytes });
    }
    if !(1..=ADDRS_PER_REQUEST_MAX).contains(&config.addrs_per_request) {
        return Err(ConfigError::AddrsPerRequest { given: config.addrs_per_request });
    }
    if config.ping_interval == Some(Duration::ZERO) {
        return Err(ConfigError::NoPingInterval);
    }
    config.mapping.as_ref().map_or(Ok(()), validate_mapping)?;
    config.relay.as_ref().map_or(Ok(()), validate_relay)?;
    config.relay_server.as_ref().map_or(Ok(()), validate_relay_server)?;
    config.dial_back.as_ref().map_or(Ok(()), validate_dial_back)
}

fn validate_relay(wanted: &RelayConfig) -> Result<(), ConfigError> {
    let RelayConfig { relays, need: _, reservations, use_connected: _, distant_servers } = wanted;
    if relays.len() > RELAYS_MAX {
        return Err(ConfigError::TooManyRelays { given: relays.len() });
    }
    if distant_servers.len() > DISTANT_SERVERS_MAX {
        return Err(ConfigError::TooManyDistantServers { given: distant_servers.len() });
    }
    let distant = distant_servers.iter().map(|one| &one.relay);
    let relays: Vec<&RelayPeer> = relays.iter().chain(distant).collect();
    if let Some(relay) = relays.iter().find(|relay| relay.addrs.len() > RELAY_ADDRS_MAX) {
        return Err(ConfigError::TooManyRelayAddrs { given: relay.addrs.len() });
    }
    // One in our own network is as good to dial as any.
    let dialable = |addr: &&Addr| match ip_scope(addr.ip) {
        IpScope::Global | IpScope::Private | IpScope::Loopback => addr.port != 0,
        IpScope::LinkLocal | IpScope::Unusable => false,
    };
    let mut addrs = relays.iter().flat_map(|relay| &relay.addrs);
    if let Some(addr) = addrs.find(|addr| !dialable(addr)) {
        return Err(ConfigError::UnusableRelay(*addr));
    }
    if !(1..=RESERVATIONS_MAX).contains(reservations) {
        return Err(ConfigError::Reservations { given: *reservations });
    }
    Ok(())
}

fn validate_relay_server(limits: &RelayServerConfig) -> Result<(), ConfigError> {
    let lifetime = limits.reservation_lifetime;
    if !(RESERVATION_LIFETIME_MIN..=RESERVATION_LIFETIME_MAX).contains(&lifetime) {
        return Err(ConfigError::ReservationLifetime(lifetime));
    }
    let numbers = [
        limits.reservations_max,
        limits.reservations_per_ip_max,
        limits.reservations_per_prefix_max,
        limits.circuits_max,
        limits.circuits_per_peer_max,
        limits.circuits_per_prefix_max,
    ];
    // On the wire, zero says that there is no limit (circuit-v2 §Limit).
    let limit = limits.limit;
    let nothing = limit.duration == Some(Duration::ZERO) || limit.bytes == Some(0);
    if numbers.contains(&0) || nothing {
        return Err(ConfigError::ZeroRelayLimit);
    }
    let allowed = limits.allow.as_ref().map_or(0, |all| all.len());
    if allowed > RELAY_ALLOW_MAX {
        return Err(ConfigError::TooManyAllowed { given: allowed });
    }
    Ok(())
}

fn validate_mapping(asked: &MappingConfig) -> Result<(), ConfigError> {
    let MappingConfig { protocols, ports, lifetime, description } = asked;
    if protocols.is_empty() {
        return Err(ConfigError::NoMappingProtocol);
    }
    if ports.len() > MAPPINGS_MAX / 2 || ports.iter().any(|(_, port)| *port == 0) {
        return Err(ConfigError::MappingPorts { given: ports.len() });
    }
    if !(MAPPING_LIFETIME_MIN..=MAPPING_LIFETIME_MAX).contains(lifetime) {
        return Err(ConfigError::MappingLifetime(*lifetime));
    }
    let printable = description.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if !printable || !(1..=MAPPING_DESCRIPTION_MAX).contains(&description.len()) {
        return Err(ConfigError::MappingDescription);
    }
    Ok(())
}

fn validate_dial_back(limits: &DialBackConfig) -> Result<(), ConfigError> {
    let unusable = |ip: &&IpAddr| matches!(ip_scope(**ip), IpScope::Unusable);
    if let Some(ip) = limits.sources.iter().find(unusable) {
        return Err(ConfigError::UnusableSource(*ip));
    }
    let rates = [
        limits.global_per_min,
        limits.peer_per_min,
        limits.prefix_per_min,
        limits.target_per_min,
        limits.target_prefix_per_min,
    ];
    if rates.contains(&0) || limits.dials_max == 0 {
        return Err(ConfigError::ZeroLimit);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CircuitLimit, PeerId, RelayPeer, Transport};
    use alloc::vec::Vec;

    #[test]
    fn a_request_holds_one_to_fifty_addresses() {
        let judged = |given| validate(&Config { addrs_per_request: given, ..Config::default() });
        for given in [1, 2, 50] {
            assert_eq!(judged(given), Ok(()));
        }
        for given in [0, 51, usize::MAX] {
            assert_eq!(judged(given), Err(ConfigError::AddrsPerRequest { given }));
        }
    }

    fn judged(change: impl FnOnce(&mut MappingConfig)) -> Result<(), ConfigError> {
        let mut asked = MappingConfig::default();
        change(&mut asked);
        validate(&Config { mapping: Some(asked), ..Config::default() })
    }

    #[test]
    fn a_mapping_is_asked_for_by_some_protocol_for_a_minute_to_a_day() {
        assert_eq!(judged(|_| ()), Ok(()));
        assert_eq!(judged(|asked| asked.protocols.clear()), Err(ConfigError::NoMappingProtocol));
        let lasting = |lifetime| judged(|asked| asked.lifetime = lifetime);
        let (minute, day) = (Duration::from_secs(60), Duration::from_secs(86_400));
        let bit = Duration::from_nanos(1);
        for lifetime in [minute, day] {
            assert_eq!(lasting(lifetime), Ok(()));
        }
        for lifetime in [Duration::ZERO, minute - bit, day + bit, Duration::MAX] {
            assert_eq!(lasting(lifetime), Err(ConfigError::MappingLifetime(lifetime)));
        }
    }

    #[test]
    fn at_most_sixteen_ports_are_mapped_beside_ours_and_none_of_them_is_0() {
        let mapped = |ports: Vec<(Transport, u16)>| judged(|asked| asked.ports = ports);
        assert_eq!(mapped(alloc::vec![(Transport::Tcp, 1); 16]), Ok(()));
        let too_many = alloc::vec![(Transport::Quic, 1); 17];
        assert_eq!(mapped(too_many), Err(ConfigError::MappingPorts { given: 17 }));
        let zero = [(Transport::Tcp, 1), (Transport::Quic, 0)].into();
        assert_eq!(mapped(zero), Err(ConfigError::MappingPorts { given: 2 }));
    }

    #[test]
    fn mappings_are_described_in_up_to_32_printable_characters() {
        let told = |text: &str| judged(|asked| asked.description = text.into());
        for text in ["a", "My node, <here>", &"~".repeat(32)] {
            assert_eq!(told(text), Ok(()));
        }
        for text in ["", "a\n", "\t", "\u{7f}", "\u{e9}", &"a".repeat(33)] {
            assert_eq!(told(text), Err(ConfigError::MappingDescription), "{text:?}");
        }
    }
    fn relaying(change: impl FnOnce(&mut RelayConfig)) -> Result<(), ConfigError> {
        let mut wanted = RelayConfig::default();
        change(&mut wanted);
        validate(&Config { relay: Some(wanted), ..Config::default() })
    }

    fn relay(addrs: Vec<Addr>) -> RelayPeer {
        RelayPeer { peer: PeerId::random(), addrs }
    }

    #[test]
    fn relays_are_few_and_can_be_dialled() {
        let addr = |ip: [u8; 4], port| Addr::tcp(ip.into(), port);
        let good = addr([44, 0, 0, 1], 4001);
        let of = |relays| relaying(|wanted| wanted.relays = relays);
        assert_eq!(of(alloc::vec![relay(alloc::vec![good; 8]); 64]), Ok(()));
        let too_many = of(alloc::vec![relay(Vec::new()); 65]);
        assert_eq!(too_many, Err(ConfigError::TooManyRelays { given: 65 }));
        let too_many = of([relay(alloc::vec![good; 9])].into());
        assert_eq!(too_many, Err(ConfigError::TooManyRelayAddrs { given: 9 }));
        for ip in [[44, 0, 0, 1], [192, 168, 1, 1], [127, 0, 0, 1]] {
            assert_eq!(of([relay([addr(ip, 1)].into())].into()), Ok(()));
            let zero = Addr { port: 0, ..addr(ip, 1) };
            let found = of([relay([good, zero].into())].into());
            assert_eq!(found, Err(ConfigError::UnusableRelay(zero)));
        }
        for ip in [[0, 0, 0, 0], [169, 254, 0, 1], [224, 0, 0, 1], [240, 0, 0, 1]] {
            let bad = addr(ip, 4001);
            let found = of([relay([bad].into())].into());
            assert_eq!(found, Err(ConfigError::UnusableRelay(bad)));
        }
    }

    #[test]
    fn one_to_four_reservations_are_held() {
        let held = |given| relaying(|wanted| wanted.reservations = given);
        for given in 1..=4 {
            assert_eq!(held(given), Ok(()));
        }
        for given in [0, 5, usize::MAX] {
            assert_eq!(held(given), Err(ConfigError::Reservations { given }));
        }
    }

    fn offered(change: impl FnOnce(&mut RelayServerConfig)) -> Result<(), ConfigError> {
        let mut limits = RelayServerConfig::default();
        change(&mut limits);
        validate(&Config { relay_server: Some(limits), ..Config::default() })
    }

    #[test]
    fn a_relay_reserves_for_a_minute_to_a_day() {
        let lasting = |lifetime| offered(|limits| limits.reservation_lifetime = lifetime);
        let (minute, day) = (Duration::from_secs(60), Duration::from_secs(86_400));
        let bit = Duration::from_nanos(1);
        for lifetime in [minute, day] {
            assert_eq!(lasting(lifetime), Ok(()));
        }
        for lifetime in [Duration::ZERO, minute - bit, day + bit, Duration::MAX] {
            assert_eq!(lasting(lifetime), Err(ConfigError::ReservationLifetime(lifetime)));
        }
    }

    #[test]
    fn a_relay_that_may_never_relay_is_none() {
        assert_eq!(offered(|_| ()), Ok(()));
        assert_eq!(offered(|limits| limits.limit = CircuitLimit::default()), Ok(()));
        let zeros: [fn(&mut RelayServerConfig); 8] = [
            |limits| limits.reservations_max = 0,
            |limits| limits.reservations_per_ip_max = 0,
            |limits| limits.reservations_per_prefix_max = 0,
            |limits| limits.circuits_max = 0,
            |limits| limits.circuits_per_peer_max = 0,
            |limits| limits.circuits_per_prefix_max = 0,
            |limits| limits.limit.duration = Some(Duration::ZERO),
            |limits| limits.limit.bytes = Some(0),
        ];
        for zero in zeros {
            assert_eq!(offered(zero), Err(ConfigError::ZeroRelayLimit));
        }
        let allowed =
            |given| offered(|limits| limits.allow = Some(alloc::vec![PeerId::random(); given]));
        assert_eq!((allowed(0), allowed(4_096)), (Ok(()), Ok(())));
        assert_eq!(allowed(4_097), Err(ConfigError::TooManyAllowed { given: 4_097 }));
    }
}
