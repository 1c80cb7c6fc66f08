//! Seeds in which everything happens: reboots, purges, other external addresses, silence, loss,
//! attackers, killed processes. In the end the router has what the agent says, and nothing more.

use super::*;
use portolan_sim::Dice;
use portolan_sim::router::{Attack, Mood, NatPmpProfile, PcpProfile, Profile, Reboot, UpnpProfile};
use std::net::Ipv4Addr;

/// Seeds that the gate runs, number.
const SEEDS: u64 = 160;
/// How long a granted mapping may be wrong once all is well: a whole lifetime of an honest router.
const HEALED_S: u64 = 8_000;

fn setting(seed: u64) -> Setting {
    let mut dice = Dice::new(seed ^ 0x6d61_7070);
    let mut profile = Profile { announcements: dice.pick(&[0, 1, 4]), ..Profile::NONE };
    profile.refuses = dice.percent(50);
    while profile.nat_pmp.is_none() && profile.pcp.is_none() {
        profile.nat_pmp = dice.percent(50).then_some(NatPmpProfile {
            renews_by_deletion: dice.percent(30),
            lifetime_max_s: dice.pick(&[300, 3_600, 86_400]),
            ..NatPmpProfile::HONEST
        });
        let lifetime_s = dice.pick(&[(120, 300), (120, 86_400)]);
        profile.pcp = dice.percent(50).then_some(PcpProfile { lifetime_s, ..PcpProfile::HONEST });
        profile.upnp = dice.percent(50).then_some(UpnpProfile::V2);
    }
    Setting {
        ip6: profile.pcp.is_some() && dice.percent(30),
        protocols: SPOKEN.to_vec(),
        loss_percent: dice.pick(&[0, 0, 5, 20]),
        ..Setting::new(profile, seed)
    }
}

fn some_attack(dice: &mut Dice) -> Attack {
    let interval = dice.span_between(seconds(1), seconds(60));
    match dice.index(6) {
        0 => Attack::AnswersItself,
        1 => Attack::AnswersAsRouter,
        2 => Attack::DeniesAsRouter,
        3 => Attack::Announces { as_router: true, interval },
        4 => Attack::Announces { as_router: false, interval },
        _ => Attack::Crowd(20),
    }
}

/// One thing happens.
fn befall(bench: &mut Bench, dice: &mut Dice) {
    let now = bench.now();
    let a_while = dice.span_between(seconds(1), seconds(300));
    match dice.index(10) {
        0 | 1 => bench.reboot(Reboot {
            takes: dice.span_between(seconds(1), seconds(120)),
            keeps_state: dice.percent(40),
            announces: dice.percent(50),
        }),
        2 => {
            bench.remark("the router forgets");
            bench.router_mut().purge();
        }
        3 => {
            let last = u8::try_from(dice.between(1, 250)).unwrap_or(1);
            let (resets, announces) = (dice.percent(50), dice.percent(50));
            bench.remark(&format!("the router moves to 44.7.0.{last}"));
            bench.router_mut().set_wan(now, Ipv4Addr::new(44, 7, 0, last), resets, announces);
        }
        4 => bench.set_mood(Mood::Silent, Some(now + a_while)),
        5 => bench.set_mood(Mood::Refuses, Some(now + a_while)),
        6 => bench.set_mood(Mood::Denies, Some(now + a_while)),
        7 => {
            bench.crash();
            bench.start(true);
        }
        8 => {
            let attack = some_attack(dice);
            bench.attack(Ipv4Addr::new(192, 168, 1, 66), attack);
        }
        _ => {
            bench.join(false);
            bench.join(true);
        }
    }
}

fn case(bench: &mut Bench, setting: &Setting) -> Result<(), String> {
    let mut dice = Dice::new(setting.seed ^ 0x6368_616f);
    for _ in 0..dice.between(1, 12) {
        let span = dice.pick(&[1, 30, 600, 4_000]);
        bench.run(dice.span(seconds(span)))?;
        befall(bench, &mut dice);
    }
    bench.clear_attackers();
    bench.set_mood(Mood::Answers, None);
    bench.run(seconds(HEALED_S))?;
    check_budget(bench)?;
    let mappings = bench.mappings();
    let six = if setting.ip6 { 4 } else { 2 };
    if mappings.len() != six || !all_granted(&mappings) {
        return Err(format!("all is well again, and still {mappings:?}"));
    }
    // Where nobody tells that a table was purged, half a lifetime passes until it is noticed.
    bench.run(seconds(60))?;
    if !bench.mappings().iter().all(|one| bench.lets_in(one)) {
        // Some routers renew by deleting and adding, with a gap in between.
        bench.run(seconds(3))?;
    }
    for one in bench.mappings() {
        if !bench.lets_in(&one) {
            let wan = bench.router().wan();
            let table = bench.router().table();
            return Err(format!("it is not let in: {one:?} at {wan}, {table:?}"));
        }
        let external = one.lease.map(|lease| lease.external.ip);
        let wan = IpAddr::V4(bench.router().wan());
        if one.internal.ip.is_ipv4() && external != Some(wan) {
            return Err(format!("{one:?}, where the router is {wan}"));
        }
    }
    if dice.percent(50) {
        bench.close();
        bench.run(seconds(300))?;
    }
    // What the router still holds for us is in the ledger, or a later run could not delete it.
    bench.crash();
    bench.start(false);
    bench.run(seconds(300))?;
    match bench.held() {
        0 => Ok(()),
        left => Err(format!("{left} mappings are left: {:?}", bench.router().table())),
    }
}

#[test]
fn whatever_happens_the_router_has_what_the_agent_says() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("MAPPING_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("MAPPING_SEEDS").unwrap_or(SEEDS),
    };
    run_all(seeds.map(|seed| {
        let setting = setting(seed);
        let told = setting.clone();
        let case: Case<'_> = Box::new(move |bench| case(bench, &told));
        ("chaos".to_owned(), setting, case)
    }));
}
