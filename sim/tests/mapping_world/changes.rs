//! What changes while a node lives: routers restart, and get other external addresses.

use super::*;
use portolan_sim::router::Reboot;

/// How long until all is proven anew, where nothing tells the node that anything has changed: the
/// clock of a router is read every 40 s, and a recovery waits for 5 s at most.
const FOUND_OUT_WITHIN: Duration = Duration::from_secs(60);
/// And where the router tells.
const TOLD_WITHIN: Duration = Duration::from_secs(12);

/// How long an address that leads nowhere may be told on: as long as its proof lasts.
const WITHDRAWN_WITHIN: Duration = Duration::from_secs(11 * 60);

fn begin(home: &mut Home) -> Result<(), String> {
    home.pass(BEGINS + seconds(90))?;
    if BOTH.iter().all(|one| home.is_in(*one)) {
        return Ok(());
    }
    Err(format!("it is not in: {:?}", BOTH.map(|one| (home.mapping(one), home.standing(one)))))
}

/// Until both mappings are held, let strangers in, and were proven since a moment.
fn proven_again(home: &mut Home, since: Instant, most: Duration) -> Result<Duration, String> {
    let again = |home: &Home| {
        BOTH.iter().all(|one| {
            let entered = home.external(*one).map(|at| home.run.world.node(NODE).entered(at).last);
            home.is_in(*one) && entered.is_some_and(|at| at >= since)
        })
    };
    home.pass_until(most, again)?.ok_or_else(|| {
        let seen = BOTH.map(|one| (home.mapping(one), home.standing(one)));
        format!("not proven again within {most:?}: {seen:?}")
    })
}

#[test]
fn a_router_that_restarts_is_found_out_and_its_mappings_are_proven_anew() {
    for keeps_state in [true, false] {
        for announces in [true, false] {
            let mut spans = Vec::new();
            for seed in 0..6 {
                let mut home = Home::new(&Setting::new(Profile::ALL, seed));
                let reboot = Reboot { takes: seconds(20), keeps_state, announces };
                let done = begin(&mut home).and_then(|()| {
                    let router = home.router;
                    home.world().restart(router, reboot);
                    home.pass(reboot.takes)?;
                    let back = home.now();
                    let took = if keeps_state {
                        // Nothing was lost, and nothing says so: what was proven holds.
                        home.pass_until(seconds(150), |home| {
                            BOTH.iter().all(|one| home.is_in(*one))
                        })?
                        .ok_or("it is not in")?
                    } else {
                        proven_again(&mut home, back, seconds(150))?
                    };
                    home.gives_all_back()?;
                    Ok::<_, String>(took)
                });
                spans.push(done.unwrap_or_else(|fault| panic!("{reboot:?}, seed {seed}: {fault}")));
            }
            let most = spans.iter().copied().max().unwrap_or_default();
            let middle = median(spans);
            eprintln!(
                "state kept: {keeps_state}, told: {announces}: median {middle:?}, most {most:?}"
            );
            let bound = if announces { TOLD_WITHIN } else { FOUND_OUT_WITHIN };
            assert!(middle < bound, "{middle:?}");
        }
    }
}

#[test]
fn another_external_address_takes_the_place_of_the_old_one() {
    for told in [(false, false), (true, false), (true, true)] {
        for protocols in protocol_sets() {
            let (mut spans, mut withdrawn_in) = (Vec::new(), Vec::new());
            for seed in 0..3 {
                let setting =
                    Setting { protocols: protocols.clone(), ..Setting::new(Profile::ALL, seed) };
                let mut home = Home::new(&setting);
                let done = begin(&mut home).and_then(|()| {
                    let router = home.router;
                    let (old, moved) = (home.now(), Ipv4Addr::new(44, 5, 0, 200));
                    home.world().move_wan(router, moved, told);
                    let took = proven_again(&mut home, old, seconds(7_200))?;
                    let left = BOTH.map(|one| Addr::new(WAN.into(), PORT, one));
                    let withdrawn = home.pass_until(WITHDRAWN_WITHIN, |home| {
                        let told = home.run.world.node(NODE).agent().explain().advertised;
                        !told.iter().any(|addr| left.contains(addr))
                    })?;
                    withdrawn_in.push(took + withdrawn.ok_or("the old address is still told")?);
                    let is_moved = |one: &Transport| {
                        home.external(*one).is_some_and(|at| at.ip == IpAddr::V4(moved))
                    };
                    if !BOTH.iter().all(is_moved) {
                        return Err(format!("{:?}", BOTH.map(|one| home.external(one))));
                    }
                    Ok(took)
                });
                let what = format!("{told:?}, {protocols:?}, seed {seed}");
                spans.push(done.unwrap_or_else(|fault| panic!("{what}: {fault}")));
            }
            let (middle, gone) = (median(spans), median(withdrawn_in));
            let (resets, announces) = told;
            eprintln!(
                "clock reset: {resets}, told: {announces}, {protocols:?}: \
                 proven in {middle:?}, the old one withdrawn in {gone:?}"
            );
        }
    }
}
