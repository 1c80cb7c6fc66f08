//! How routers are: honest ones, and the quirks of real ones, by name. Numbers are those of the
//! catalogue of broken routers.

use crate::net::{Dependence, GateConfig, PortAllocation};
use portolan_core::{Duration, MappingProtocol, MappingReason};
use std::net::{IpAddr, Ipv4Addr};

/// How a router is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// How it speaks NAT-PMP, if it does.
    pub nat_pmp: Option<NatPmpProfile>,
    /// How it speaks PCP, if it does.
    pub pcp: Option<PcpProfile>,
    /// How it speaks UPnP, if it does.
    pub upnp: Option<UpnpProfile>,
    /// Whether closed ports are refused (ICMP, RST) rather than silent.
    pub refuses: bool,
    /// Whether it answers every mapping with the protocol's own *not for you*.
    pub denies: bool,
    /// What it has outside.
    pub wan: Wan,
    /// Whether what it lists is let in.
    pub forwarding: Forwarding,
    /// How often it forgets its mappings, without a word.
    pub purge_interval: Option<Duration>,
    /// Mappings that it has room for, number.
    pub room: usize,
    /// How often it tells the LAN of a reboot or a new address by NAT-PMP and PCP; 0 is never.
    pub announcements: u8,
    /// Whether another NAT stands between the host and it, so that it sees another source address.
    pub nested: bool,
    /// How its NAT treats what was not mapped.
    pub nat: NatProfile,
}

/// What a router has outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wan {
    /// A public address.
    Public,
    /// None: 0.0.0.0.
    Offline,
    /// A private one: it is behind another home router.
    Private,
    /// One of a carrier's NAT.
    Shared,
}

impl Wan {
    /// Its first external address.
    pub const fn ip(self) -> Ipv4Addr {
        match self {
            Wan::Public => Ipv4Addr::new(44, 7, 0, 1),
            Wan::Offline => Ipv4Addr::UNSPECIFIED,
            Wan::Private => Ipv4Addr::new(192, 168, 178, 20),
            Wan::Shared => Ipv4Addr::new(100, 64, 9, 1),
        }
    }
}

/// Whether what a router lists is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarding {
    /// It is.
    Works,
    /// Only once it was deleted and added again.
    AfterDeletion,
    /// Not by the protocol that was asked first.
    ByOtherProtocol,
    /// Only at an external port other than the internal one.
    AtOtherPort,
    /// Only UDP.
    UdpAlone,
    /// Never.
    Never,
}

/// The NAT of a router, where it is no ordinary one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatProfile {
    /// After how long a binding moves to another external port, whoever uses it.
    pub rebinds_after: Option<Duration>,
    /// How long a flow of UDP lives at most.
    pub udp_absolute: Option<Duration>,
}

/// How a router speaks NAT-PMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatPmpProfile {
    /// The longest lifetime that it grants, in seconds.
    pub lifetime_max_s: u32,
    /// Whether its renewals delete first: nothing is let in for a second, and the port may drift.
    pub renews_by_deletion: bool,
    /// Whether a private external address is a failure to it.
    pub private_wan_fails: bool,
    /// Whether it rejects everything in two bytes.
    pub rejects_briefly: bool,
}

/// How a router speaks PCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PcpProfile {
    /// The shortest and the longest lifetime that it grants, in seconds.
    pub lifetime_s: (u32, u32),
    /// Whether errors come with lifetime 0 rather than with when to ask again.
    pub errors_without_lifetime: bool,
    /// What it answers to every mapping.
    pub map_code: Option<u8>,
    /// Whether renewals of IPv6 pinholes are refused for want of room.
    pub refuses_renewal_6: bool,
}

/// How a router answers searches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SearchProfile {
    /// Whether it hears searches that go to the group.
    pub multicast: bool,
    /// Whether it hears searches that go to itself.
    pub unicast: bool,
    /// Whether `ssdp:all` gets its first descriptor alone, which is no gateway's.
    pub all_is_first: bool,
    /// Whether it answers from a port of its own choice.
    pub random_port: bool,
    /// Whether `LOCATION` names another address of it, at which nobody answers.
    pub location_elsewhere: bool,
    /// Whether two descriptors alternate, of which one has no WAN service.
    pub alternates: bool,
}

/// Which service maps ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WanService {
    /// `WANIPConnection:1`.
    Ip1,
    /// `WANIPConnection:2`, in an `InternetGatewayDevice:2`.
    Ip2,
    /// `WANPPPConnection:1`.
    Ppp1,
    /// `urn:dslforum-org:service:WANPPPConnection:1`, in a device of that house.
    Legacy,
    /// A `WANIPConnection:1` that is not connected, and a `WANPPPConnection:1` that is.
    IdleIpAndPpp,
}

impl WanService {
    /// Whether it is of the second version of the gateway's device.
    pub const fn is_second(self) -> bool {
        matches!(self, WanService::Ip2)
    }
}

/// Which lease durations a router takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leases {
    /// Any; 0 is for ever in version 1 and a week in version 2.
    Any,
    /// Only 0, else 725.
    PermanentOnly,
    /// Only 0, else 402.
    PermanentOnlyInvalid,
    /// From 1 to a week, else 402.
    UpToOneWeek,
}

/// How a router speaks UPnP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpnpProfile {
    /// How it is found.
    pub search: SearchProfile,
    /// What maps ports.
    pub service: WanService,
    /// Whether it opens pinholes for IPv6.
    pub pinholes: bool,
    /// Whether a pinhole is for the very address that asks.
    pub pinholes_for_asker: bool,
    /// Which lease durations it takes.
    pub leases: Leases,
    /// Whether `TCP` and `UDP` must be in capitals.
    pub capitals: bool,
    /// Whether arguments must come in the order of the service's description.
    pub strict_order: bool,
    /// What it says when its table is full.
    pub full_code: u16,
    /// Whether a mapping for another host is refused (718), and may not be for another port.
    pub secure: bool,
    /// What an external port other than the internal one gets for an answer.
    pub other_port_code: Option<u16>,
    /// Whether the port of its HTTP server is another after every restart.
    pub moving_port: bool,
    /// Whether it reads the first segment of a request alone.
    pub first_segment_only: bool,
    /// Whether its responses come in chunks.
    pub chunked: bool,
    /// What every request for a mapping gets for an answer.
    pub map_code: Option<u16>,
}

impl NatPmpProfile {
    /// As the RFC says.
    pub const HONEST: NatPmpProfile = NatPmpProfile {
        lifetime_max_s: 86_400,
        renews_by_deletion: false,
        private_wan_fails: false,
        rejects_briefly: false,
    };
}

impl PcpProfile {
    /// As the RFC says (RFC 6887 §15: 120 seconds to 24 hours).
    pub const HONEST: PcpProfile = PcpProfile {
        lifetime_s: (120, 86_400),
        errors_without_lifetime: false,
        map_code: None,
        refuses_renewal_6: false,
    };
}

impl SearchProfile {
    /// Found in every way.
    pub const HONEST: SearchProfile = SearchProfile {
        multicast: true,
        unicast: true,
        all_is_first: false,
        random_port: false,
        location_elsewhere: false,
        alternates: false,
    };
}

impl UpnpProfile {
    /// An ordinary router of the second version.
    pub const V2: UpnpProfile = UpnpProfile {
        search: SearchProfile::HONEST,
        service: WanService::Ip2,
        pinholes: true,
        pinholes_for_asker: false,
        leases: Leases::Any,
        capitals: false,
        strict_order: false,
        full_code: 728,
        secure: false,
        other_port_code: None,
        moving_port: false,
        first_segment_only: false,
        chunked: false,
        map_code: None,
    };
    /// An ordinary router of the first version.
    pub const V1: UpnpProfile = UpnpProfile {
        service: WanService::Ip1,
        pinholes: false,
        full_code: 501,
        ..UpnpProfile::V2
    };
}

impl Profile {
    /// A router that speaks nothing.
    pub const NONE: Profile = Profile {
        nat_pmp: None,
        pcp: None,
        upnp: None,
        refuses: false,
        denies: false,
        wan: Wan::Public,
        forwarding: Forwarding::Works,
        purge_interval: None,
        room: 512,
        announcements: 4,
        nested: false,
        nat: NatProfile { rebinds_after: None, udp_absolute: None },
    };
    /// A router that speaks everything.
    pub const ALL: Profile = Profile {
        nat_pmp: Some(NatPmpProfile::HONEST),
        pcp: Some(PcpProfile::HONEST),
        upnp: Some(UpnpProfile::V2),
        ..Profile::NONE
    };

    /// The profile of a name.
    pub fn named(name: &str) -> Option<Profile> {
        PROFILES.iter().find(|(one, _)| *one == name).map(|(_, profile)| *profile)
    }

    /// The same router where it is only asked by some protocols.
    #[must_use]
    pub fn speaking(self, protocols: &[MappingProtocol]) -> Profile {
        Profile {
            nat_pmp: self.nat_pmp.filter(|_| protocols.contains(&MappingProtocol::NatPmp)),
            pcp: self.pcp.filter(|_| protocols.contains(&MappingProtocol::Pcp)),
            upnp: self.upnp.filter(|_| protocols.contains(&MappingProtocol::Upnp)),
            ..self
        }
    }

    /// The NAT that goes with it, for IPv4.
    pub const fn gate(&self) -> GateConfig {
        let mut gate = GateConfig::nat(Dependence::Independent, Dependence::AddressAndPort);
        gate.udp.absolute = self.nat.udp_absolute;
        if self.nat.rebinds_after.is_some() {
            gate.udp.absolute = self.nat.rebinds_after;
            gate.ports = PortAllocation::Random;
        }
        gate
    }

    /// Why a host that is asked for may be told that it has no mapping of use: `None` where every
    /// protocol that is left grants one.
    pub fn complaint(&self) -> Option<MappingReason> {
        let wan = IpAddr::V4(self.wan.ip());
        match self.wan {
            Wan::Private | Wan::Shared => Some(MappingReason::GatewayBehindNat { external: wan }),
            Wan::Public | Wan::Offline => match self.forwarding {
                Forwarding::Never | Forwarding::UdpAlone => Some(MappingReason::NotForwarding),
                Forwarding::Works
                | Forwarding::AfterDeletion
                | Forwarding::ByOtherProtocol
                | Forwarding::AtOtherPort => None,
            },
        }
    }
}

const PCP: Profile = Profile { pcp: Some(PcpProfile::HONEST), ..Profile::NONE };
const NAT_PMP: Profile = Profile { nat_pmp: Some(NatPmpProfile::HONEST), ..Profile::NONE };

const fn upnp(upnp: UpnpProfile) -> Profile {
    Profile { upnp: Some(upnp), ..Profile::NONE }
}

const fn found(search: SearchProfile) -> Profile {
    upnp(UpnpProfile { search, ..UpnpProfile::V1 })
}

/// Every router that there is, by name.
pub const PROFILES: &[(&str, Profile)] = &[
    // Honest ones.
    ("pcp-only", PCP),
    ("nat-pmp-only", NAT_PMP),
    ("upnp-v1-only", upnp(UpnpProfile::V1)),
    ("upnp-v2-only", upnp(UpnpProfile::V2)),
    ("all", Profile::ALL),
    ("none", Profile::NONE),
    ("none-refusing", Profile { refuses: true, ..Profile::NONE }),
    ("ppp", upnp(UpnpProfile { service: WanService::Ppp1, ..UpnpProfile::V1 })),
    ("two-wans", upnp(UpnpProfile { service: WanService::IdleIpAndPpp, ..UpnpProfile::V1 })),
    ("denying", Profile { denies: true, refuses: true, ..Profile::ALL }),
    ("nested", Profile { nested: true, ..PCP }),
    // 1: answers multicast or unicast searches alone.
    ("multicast-only", found(SearchProfile { unicast: false, ..SearchProfile::HONEST })),
    ("unicast-only", found(SearchProfile { multicast: false, ..SearchProfile::HONEST })),
    // 2: ssdp:all returns the first descriptor alone.
    ("first-descriptor", found(SearchProfile { all_is_first: true, ..SearchProfile::HONEST })),
    // 3: the answer comes from a random port.
    ("random-port", found(SearchProfile { random_port: true, ..SearchProfile::HONEST })),
    // 4: LOCATION has another IP than the gateway.
    (
        "location-elsewhere",
        found(SearchProfile { location_elsewhere: true, ..SearchProfile::HONEST }),
    ),
    // 5: two descriptors alternate.
    ("alternating", found(SearchProfile { alternates: true, ..SearchProfile::HONEST })),
    // 6: lower-case protocols are rejected.
    ("capitals", upnp(UpnpProfile { capitals: true, ..UpnpProfile::V1 })),
    // 7: 725, only permanent leases.
    ("permanent", upnp(UpnpProfile { leases: Leases::PermanentOnly, ..UpnpProfile::V1 })),
    // 8: 402 for a finite lease.
    (
        "finite-invalid",
        upnp(UpnpProfile { leases: Leases::PermanentOnlyInvalid, ..UpnpProfile::V1 }),
    ),
    // 9: 402 for lease 0, and above one week.
    ("one-week", upnp(UpnpProfile { leases: Leases::UpToOneWeek, ..UpnpProfile::V1 })),
    // 10: 402 for another order of arguments.
    ("strict-order", upnp(UpnpProfile { strict_order: true, ..UpnpProfile::V1 })),
    // 11: 402 when the table is full.
    (
        "full-invalid",
        Profile { room: 0, ..upnp(UpnpProfile { full_code: 402, ..UpnpProfile::V1 }) },
    ),
    // 12: the external IP is unspecified, private or a carrier's.
    ("wan-unspecified", Profile { wan: Wan::Offline, ..Profile::ALL }),
    ("wan-private", Profile { wan: Wan::Private, ..Profile::ALL }),
    ("wan-shared", Profile { wan: Wan::Shared, ..Profile::ALL }),
    // 13: listed but not forwarding.
    ("forwards-never", Profile { forwarding: Forwarding::Never, ..Profile::ALL }),
    ("forwards-later", Profile { forwarding: Forwarding::AfterDeletion, ..Profile::ALL }),
    ("forwards-other", Profile { forwarding: Forwarding::ByOtherProtocol, ..Profile::ALL }),
    ("forwards-elsewhere", Profile { forwarding: Forwarding::AtOtherPort, ..Profile::ALL }),
    ("forwards-udp", Profile { forwarding: Forwarding::UdpAlone, ..Profile::ALL }),
    // 14: the table is purged every ten minutes.
    ("purging", Profile { purge_interval: Some(Duration::from_secs(600)), ..Profile::ALL }),
    (
        "purging-upnp",
        Profile { purge_interval: Some(Duration::from_secs(600)), ..upnp(UpnpProfile::V1) },
    ),
    // 15: the control port is another after a restart.
    ("moving-port", upnp(UpnpProfile { moving_port: true, ..UpnpProfile::V1 })),
    // 16: reads the first segment of a request alone.
    ("first-segment", upnp(UpnpProfile { first_segment_only: true, ..UpnpProfile::V1 })),
    // 17: every response is chunked.
    ("chunked", upnp(UpnpProfile { chunked: true, ..UpnpProfile::V1 })),
    // 18: only urn:dslforum-org services.
    ("legacy", upnp(UpnpProfile { service: WanService::Legacy, ..UpnpProfile::V1 })),
    // 19: 718 for a foreign client.
    ("secure", upnp(UpnpProfile { secure: true, ..UpnpProfile::V1 })),
    // 20: NAT-PMP rejected in two bytes.
    (
        "two-bytes",
        Profile {
            nat_pmp: Some(NatPmpProfile { rejects_briefly: true, ..NatPmpProfile::HONEST }),
            ..upnp(UpnpProfile::V1)
        },
    ),
    // 21: PCP errors with lifetime 0.
    (
        "errors-without-lifetime",
        Profile {
            pcp: Some(PcpProfile {
                errors_without_lifetime: true,
                map_code: Some(2),
                ..PcpProfile::HONEST
            }),
            ..Profile::NONE
        },
    ),
    // 22: NAT-PMP code 3 because the WAN is private.
    (
        "private-wan-fails",
        Profile {
            wan: Wan::Private,
            nat_pmp: Some(NatPmpProfile { private_wan_fails: true, ..NatPmpProfile::HONEST }),
            ..Profile::NONE
        },
    ),
    // 23: renewal is deletion and addition, and the port drifts.
    (
        "drifting",
        Profile {
            nat_pmp: Some(NatPmpProfile { renews_by_deletion: true, ..NatPmpProfile::HONEST }),
            ..Profile::NONE
        },
    ),
    // 24: PCP answers NO_RESOURCES to the renewal of a pinhole.
    (
        "no-renewal-6",
        Profile {
            pcp: Some(PcpProfile { refuses_renewal_6: true, ..PcpProfile::HONEST }),
            ..Profile::NONE
        },
    ),
    // 25: PCP MAP is refused with code 8, NO_RESOURCES.
    (
        "no-resources",
        Profile {
            pcp: Some(PcpProfile { map_code: Some(8), ..PcpProfile::HONEST }),
            ..upnp(UpnpProfile::V1)
        },
    ),
    // 26: bindings move in mid-session.
    (
        "rebinding",
        Profile {
            nat: NatProfile { rebinds_after: Some(Duration::from_secs(300)), udp_absolute: None },
            ..Profile::ALL
        },
    ),
    // 27: flows of UDP live for a minute at most.
    (
        "short-udp",
        Profile {
            nat: NatProfile { rebinds_after: None, udp_absolute: Some(Duration::from_secs(60)) },
            ..Profile::ALL
        },
    ),
    // 28: a pinhole is for the address that asks.
    ("asker-only", upnp(UpnpProfile { pinholes_for_asker: true, ..UpnpProfile::V2 })),
    // Beside the catalogue: codes that name a rule.
    ("same-port", upnp(UpnpProfile { other_port_code: Some(724), ..UpnpProfile::V1 })),
    ("action-failed", upnp(UpnpProfile { map_code: Some(501), ..UpnpProfile::V1 })),
    ("unauthorized", upnp(UpnpProfile { map_code: Some(606), ..UpnpProfile::V1 })),
];
