//! Hosts of the LAN that mean no good can neither redirect nor silence anybody for long.

use super::*;
use portolan_sim::router::{Attack, Profile, Trap};
use std::net::Ipv4Addr;

const HERE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 66);
/// The longest hold-off, and some time to ask again.
const HOLD_OFF_S: u64 = 1_900;

fn attacks() -> Vec<Attack> {
    let interval = seconds(1);
    let mut all = vec![
        Attack::LocationElsewhere { location: "http://192.168.1.99/x.xml".to_owned() },
        Attack::LocationElsewhere { location: "http://44.1.1.1:80/x.xml".to_owned() },
        Attack::LocationElsewhere { location: "http://192.168.1.66:80@192.168.1.99/".to_owned() },
        Attack::Crowd(1_000),
        Attack::AnswersItself,
        Attack::AnswersAsRouter,
        Attack::Announces { as_router: false, interval },
        Attack::Announces { as_router: true, interval },
    ];
    all.extend(Trap::ALL.map(Attack::Descriptor));
    all
}

#[test]
fn an_attacker_beside_an_honest_router_changes_nothing() {
    for attack in attacks() {
        run_one(&format!("{attack:?}"), Setting::new(Profile::ALL, 1), |bench| {
            bench.attack(HERE, attack.clone());
            bench.run(seconds(60))?;
            let mappings = bench.mappings();
            let true_ones = mappings.iter().all(|one| bench.lets_in(one));
            if !all_granted(&mappings) || !true_ones {
                return Err(format!("{mappings:?}"));
            }
            bench.run(seconds(10_000))?;
            check_budget(bench)?;
            let mappings = bench.mappings();
            if !all_granted(&mappings) || !mappings.iter().all(|one| bench.lets_in(one)) {
                return Err(format!("later {mappings:?}"));
            }
            bench.clear_attackers();
            check_release(bench)
        });
    }
}

#[test]
fn an_attacker_beside_a_silent_router_gets_nothing_of_use() {
    for attack in attacks() {
        run_one(&format!("{attack:?}"), Setting::new(Profile::NONE, 1), |bench| {
            bench.attack(HERE, attack.clone());
            bench.run(seconds(600))?;
            check_budget(bench)?;
            if bench.mappings().iter().any(|one| one.lease.is_some()) {
                return Err(format!("{:?}", bench.mappings()));
            }
            Ok(())
        });
    }
}

#[test]
fn a_forged_denial_silences_nobody_for_longer_than_the_hold_off() {
    run_one("denial", Setting::new(Profile::ALL, 1), |bench| {
        bench.attack(HERE, Attack::DeniesAsRouter);
        bench.run(seconds(600))?;
        check_budget(bench)?;
        bench.clear_attackers();
        bench.run(seconds(HOLD_OFF_S))?;
        let mappings = bench.mappings();
        if !all_granted(&mappings) || !mappings.iter().all(|one| bench.lets_in(one)) {
            return Err(format!("{mappings:?}"));
        }
        // What the router granted while its answers were forged is not known to the node, and
        // ends by itself.
        Ok(())
    });
}
