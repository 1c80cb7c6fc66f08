//! Routers that do not do what they say, judged by simulated servers.

use super::*;
use portolan_core::Lease;

/// What a node comes to by a transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Strangers get in over the mapping.
    In,
    /// The router does not forward, and the node says so.
    NotForwarding,
}

/// How its lease then looks.
type Look = fn(&Lease) -> bool;

const ANY: Look = |_| true;
const SAME_PORT: Look = |lease| lease.external.port == PORT;
const OTHER_PORT: Look = |lease| lease.external.port != PORT;
const OTHER_PROTOCOL: Look = |lease| lease.protocol != MappingProtocol::Pcp;

/// By the router's name: what TCP and QUIC come to, and by which mapping.
const EXPECTED: &[(&str, End, End, Look)] = &[
    ("all", End::In, End::In, SAME_PORT),
    // 13: listed but not forwarding.
    ("forwards-never", End::NotForwarding, End::NotForwarding, ANY),
    ("forwards-later", End::In, End::In, SAME_PORT),
    ("forwards-elsewhere", End::In, End::In, OTHER_PORT),
    ("forwards-other", End::In, End::In, OTHER_PROTOCOL),
    ("forwards-udp", End::NotForwarding, End::In, ANY),
    // 26 and 27: what becomes of flows that were not mapped says nothing of a mapping.
    ("rebinding", End::In, End::In, SAME_PORT),
    ("short-udp", End::In, End::In, SAME_PORT),
];

/// How long the longest ladder of repairs may take: a verdict of *unreachable* before each rung.
const REPAIRED_WITHIN: Duration = Duration::from_secs(300);

fn has_come_to(home: &Home, transport: Transport, end: End) -> bool {
    match end {
        End::In => home.is_in(transport),
        End::NotForwarding => {
            let truth = home.external(transport).map(|at| home.run.world.truth(NODE, at));
            home.reason(transport) == Some(MappingReason::NotForwarding)
                && home.standing(transport).state == NodeState::Private
                && truth.is_some_and(|truth| !truth.strangers)
        }
    }
}

#[test]
fn what_a_router_does_not_forward_is_repaired_or_named() {
    let cases = EXPECTED.iter().flat_map(|expected| (0..3).map(move |seed| (expected, seed)));
    run_all(cases.map(|((name, tcp, quic, look), seed)| {
        let ends = [(Transport::Tcp, *tcp), (Transport::Quic, *quic)];
        let case: Case<'_> = Box::new(move |home| {
            home.pass(BEGINS)?;
            for (transport, end) in ends {
                let took = home
                    .pass_until(REPAIRED_WITHIN, |home| has_come_to(home, transport, end))?
                    .ok_or_else(|| {
                        format!(
                            "{end:?}? {:?}, {:?}",
                            home.mapping(transport),
                            home.standing(transport)
                        )
                    })?;
                if seed == 0 {
                    eprintln!("{name}, {}: {end:?}, {took:?} later", transport.name());
                }
                let lease = home.mapping(transport).and_then(|mapping| mapping.lease);
                if end == End::In && !lease.is_some_and(|lease| look(&lease)) {
                    return Err(format!("another mapping was expected: {lease:?}"));
                }
            }
            // It stays like that, over everything that a NAT does to flows.
            for _ in 0..20 {
                home.pass(seconds(60))?;
                for (transport, end) in ends {
                    if end == End::In && !has_come_to(home, transport, end) {
                        return Err(format!(
                            "it did not stay: {:?}, {:?}",
                            home.mapping(transport),
                            home.standing(transport)
                        ));
                    }
                }
            }
            home.gives_all_back()
        });
        let profile = Profile::named(name).expect("a profile");
        ((*name).to_owned(), Setting::new(profile, seed), case)
    }));
}

#[test]
fn a_router_that_begins_to_forward_is_believed_again() {
    let profile = Profile::named("forwards-never").expect("a profile");
    let case: Case<'_> = Box::new(|home| {
        home.pass(BEGINS + REPAIRED_WITHIN)?;
        if home.reason(Transport::Tcp) != Some(MappingReason::NotForwarding) {
            return Err(format!("{:?}", home.mapping(Transport::Tcp)));
        }
        let router = home.router;
        let works = portolan_sim::router::Forwarding::Works;
        home.world().change_mapper(router, |it| it.set_forwarding(works));
        let took =
            home.pass_until(seconds(3_000), |home| BOTH.iter().all(|one| home.is_in(*one)))?;
        let took = took.ok_or_else(|| format!("{:?}", home.mapping(Transport::Tcp)))?;
        eprintln!("it forwards: known {took:?} later");
        Ok(())
    });
    run_all(std::iter::once(("forwards".to_owned(), Setting::new(profile, 1), case)));
}

#[test]
fn a_router_behind_a_nat_is_named_and_what_is_forwarded_to_it_is_found() {
    for inner in [Ipv4Addr::new(192, 168, 178, 20), Ipv4Addr::new(100, 64, 9, 1)] {
        for is_carried in [false, true] {
            let carried = |transport| Addr::new(WAN.into(), PORT, transport);
            let carried = if is_carried { BOTH.map(carried).to_vec() } else { Vec::new() };
            let setting =
                Setting { carrier: Some(inner), carried, ..Setting::new(Profile::ALL, 1) };
            let case: Case<'_> = Box::new(move |home| {
                home.pass(BEGINS + seconds(60))?;
                for transport in BOTH {
                    let reason = home.reason(transport);
                    let named = MappingReason::GatewayBehindNat { external: inner.into() };
                    let state = home.standing(transport).state;
                    let expected = if is_carried { NodeState::Public } else { NodeState::Private };
                    if reason != Some(named) || state != expected {
                        return Err(format!("{reason:?}, {:?}", home.standing(transport)));
                    }
                }
                home.gives_all_back()
            });
            let name = format!("behind {inner}, carried: {is_carried}");
            run_all(std::iter::once((name, setting, case)));
        }
    }
}
