//! Every profile with every set of protocols: a mapping where one is possible, else the reason.

use super::*;
use portolan_core::{MappingReason, Transport};
use portolan_sim::router::{PROFILES, PcpProfile, Profile, UpnpProfile, Wan};

/// What one protocol comes to: a grant, or why not. Nothing where it is not spoken.
fn outcome(profile: &Profile, protocol: MappingProtocol) -> Option<Result<(), MappingReason>> {
    let offline = MappingReason::GatewayOffline { protocol };
    let refused = |code| MappingReason::Refused { protocol, code };
    let is_offline = profile.wan == Wan::Offline;
    let no = match protocol {
        MappingProtocol::Pcp => {
            let pcp: PcpProfile = profile.pcp?;
            match pcp.map_code {
                _ if profile.nested => Some(MappingReason::NestedNetwork),
                _ if is_offline => Some(offline),
                Some(8) => Some(MappingReason::Exhausted { protocol, code: 8 }),
                Some(code) => Some(refused(u16::from(code))),
                None if profile.denies => Some(refused(2)),
                None => None,
            }
        }
        MappingProtocol::NatPmp => {
            let nat_pmp = profile.nat_pmp?;
            let fails = is_offline || nat_pmp.private_wan_fails && profile.wan == Wan::Private;
            match fails {
                // Two bytes are a refusal like any other.
                _ if nat_pmp.rejects_briefly => return None,
                true => Some(offline),
                false => profile.denies.then(|| refused(2)),
            }
        }
        MappingProtocol::Upnp => {
            let upnp: UpnpProfile = profile.upnp?;
            match upnp.map_code {
                _ if is_offline => Some(offline),
                Some(501) => Some(MappingReason::Faulty { protocol, code: 501 }),
                Some(code) => Some(refused(code)),
                None if profile.denies => Some(refused(606)),
                None if profile.room == 0 => {
                    Some(MappingReason::Exhausted { protocol, code: upnp.full_code })
                }
                None => None,
            }
        }
    };
    Some(no.map_or(Ok(()), Err))
}

fn judge(profile: &Profile, protocols: &[MappingProtocol], one: &Mapping) -> Result<(), String> {
    let outcomes: Vec<_> =
        protocols.iter().filter_map(|protocol| outcome(profile, *protocol)).collect();
    let fine = if outcomes.contains(&Ok(())) {
        let reasons =
            [profile.complaint().unwrap_or(MappingReason::Granted), MappingReason::Granted];
        let private = matches!(profile.wan, Wan::Private | Wan::Shared);
        let reasons = if private { &reasons[..1] } else { &reasons[..] };
        one.state == MappingState::Granted && reasons.contains(&one.reason)
    } else if outcomes.is_empty() {
        let brief = profile.nat_pmp.is_some_and(|nat_pmp| nat_pmp.rejects_briefly);
        let said_no =
            matches!(one.reason, MappingReason::Refused { .. } | MappingReason::Faulty { .. });
        one.state == MappingState::Failed
            && (one.reason == MappingReason::Silent || brief && said_no)
    } else {
        one.state == MappingState::Failed && outcomes.contains(&Err(one.reason))
    };
    if fine { Ok(()) } else { Err(format!("{one:?}, where {outcomes:?}")) }
}

fn case(bench: &mut Bench, setting: &Setting) -> Result<(), String> {
    // RFC 6886 §3.1: silence takes 128 seconds to be certain of.
    bench.run(seconds(180))?;
    let first = bench.mappings();
    if first.len() != 2 {
        return Err(format!("two mappings are wanted: {first:?}"));
    }
    for one in &first {
        judge(&setting.profile, &setting.protocols, one)?;
    }
    let purges = setting.profile.purge_interval.is_some();
    // Over several renewals it stays like that, and true.
    for _ in 0..60 {
        bench.run(seconds(240))?;
        for one in bench.mappings() {
            let granted = one.state == MappingState::Granted;
            let lets_in = setting.profile.complaint() != Some(MappingReason::NotForwarding)
                && matches!(setting.profile.forwarding, portolan_sim::router::Forwarding::Works);
            if granted && lets_in && !purges && !bench.lets_in(&one) {
                return Err(format!("it is not let in: {one:?}"));
            }
            if granted != (first[0].state == MappingState::Granted) {
                return Err(format!("it did not stay: {one:?}"));
            }
        }
    }
    check_budget(bench)?;
    if setting.loss_percent > 0 {
        // A deletion may be lost; what it waits for then is longer than a second.
        bench.close();
        bench.run(seconds(120))?;
        let left = bench.held();
        return if left == 0 { Ok(()) } else { Err(format!("{left} mappings are left")) };
    }
    check_release(bench)
}

#[test]
fn every_profile_ends_with_a_mapping_or_a_reason() {
    let mut cases: Vec<(String, Setting, Case<'_>)> = Vec::new();
    for (name, profile) in PROFILES {
        for protocols in protocol_sets() {
            for loss_percent in [0, 10] {
                let protocols = protocols.clone();
                let setting = Setting { protocols, loss_percent, ..Setting::new(*profile, 1) };
                let told = setting.clone();
                let case: Case<'_> = Box::new(move |bench| case(bench, &told));
                cases.push(((*name).to_owned(), setting, case));
            }
        }
    }
    run_all(cases.into_iter());
}

#[test]
fn pinholes_are_opened_beside_mappings() {
    for name in ["pcp-only", "no-renewal-6"] {
        let profile = Profile::named(name).expect("a profile");
        let setting = Setting { ip6: true, ..Setting::new(profile, 1) };
        run_one(name, setting, |bench| {
            bench.run(seconds(20))?;
            let mappings = bench.mappings();
            let six = mappings.iter().filter(|one| one.internal.ip.is_ipv6());
            let open = six.filter(|one| bench.lets_in(one)).count();
            if mappings.len() != 4 || open != 2 {
                return Err(format!("{open} pinholes in {mappings:?}"));
            }
            // Where renewals are refused there is a gap once the first period is over.
            for _ in 0..60 {
                bench.run(seconds(240))?;
            }
            bench.run(seconds(60))?;
            let mappings = bench.mappings();
            let open = mappings.iter().filter(|one| bench.lets_in(one)).count();
            if open != 4 {
                return Err(format!("{open} are let in: {mappings:?}"));
            }
            check_release(bench)
        });
    }
}

#[test]
fn a_foreign_mapping_in_the_way_is_passed_over() {
    for name in ["pcp-only", "nat-pmp-only"] {
        let profile = Profile::named(name).expect("a profile");
        run_one(name, Setting::new(profile, 1), |bench| {
            let now = bench.now();
            let other = "192.168.1.9:80".parse().expect("an address");
            bench.router_mut().occupy(now, Transport::Tcp, 4_001, other);
            bench.run(seconds(20))?;
            let mappings = bench.mappings();
            let lets_in = mappings.iter().all(|one| bench.lets_in(one));
            let moved = mappings.iter().any(|one| {
                one.internal.transport == Transport::Tcp
                    && one.lease.is_some_and(|lease| lease.external.port != 4_001)
            });
            if !lets_in || !moved {
                return Err(format!("{mappings:?}"));
            }
            check_release(bench)
        });
    }
}

#[test]
fn another_external_address_costs_few_requests_and_is_told() {
    for (name, protocols) in [
        ("all", &MappingProtocol::ALL[..]),
        ("pcp-only", &MappingProtocol::ALL),
        ("all", &[MappingProtocol::Pcp, MappingProtocol::NatPmp]),
        ("upnp-v2-only", &MappingProtocol::ALL),
    ] {
        for (resets_epoch, announces) in [(false, false), (true, false), (true, true)] {
            let profile = Profile::named(name).expect("a profile");
            let setting = Setting { protocols: protocols.to_vec(), ..Setting::new(profile, 1) };
            run_one(&format!("{name} {resets_epoch} {announces}"), setting, |bench| {
                bench.run(seconds(300))?;
                let now = bench.now();
                let moved = std::net::Ipv4Addr::new(44, 7, 0, 200);
                bench.router_mut().set_wan(now, moved, resets_epoch, announces);
                let router = [IpAddr::V4(ROUTER.0)];
                let before = bench.requests().count(&router);
                // Without a word of the router, the next renewal tells.
                bench.run(seconds(5_400))?;
                let asked = bench.requests().count(&router) - before;
                let told = |one: &Mapping| {
                    one.lease.is_some_and(|lease| lease.external.ip == IpAddr::V4(moved))
                };
                if !bench.mappings().iter().all(told) {
                    return Err(format!("{:?}", bench.mappings()));
                }
                // Ten a minute are enough to watch over a router that is well, and two mappings.
                if asked <= 900 { Ok(()) } else { Err(format!("{asked} requests")) }
            });
        }
    }
}

#[test]
fn another_external_address_is_noticed_within_a_minute() {
    for name in ["pcp-only", "nat-pmp-only", "upnp-v2-only", "all"] {
        let profile = Profile::named(name).expect("a profile");
        run_one(name, Setting::new(profile, 1), |bench| {
            bench.run(seconds(30))?;
            let stored = bench.ledger().cloned();
            bench.run(seconds(600))?;
            if bench.ledger() != stored.as_ref() {
                return Err("who watches has nothing to store".into());
            }
            let now = bench.now();
            let moved = std::net::Ipv4Addr::new(44, 7, 0, 200);
            bench.router_mut().set_wan(now, moved, false, false);
            bench.run(seconds(60))?;
            let told = |one: &Mapping| {
                one.lease.is_some_and(|lease| lease.external.ip == IpAddr::V4(moved))
            };
            if !bench.mappings().iter().all(told) {
                return Err(format!("{:?}", bench.mappings()));
            }
            check_budget(bench)?;
            check_release(bench)
        });
    }
}
