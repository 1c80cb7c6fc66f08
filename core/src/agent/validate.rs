//! Which configurations an agent can work with.

use crate::words::config::{
    ADDRS_PER_REQUEST_MAX, CANDIDATES_MAX, IDENTIFY_PROTOCOLS_BYTES_MAX, MAPPING_DESCRIPTION_MAX,
    MAPPING_LIFETIME_MAX, MAPPING_LIFETIME_MIN, MAPPINGS_MAX,
};
use crate::{
    Addr, Config, ConfigError, DialBackConfig, Duration, IpScope, MappingConfig, ip_scope,
};
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
    config.dial_back.as_ref().map_or(Ok(()), validate_dial_back)
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
    use crate::Transport;
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
}
