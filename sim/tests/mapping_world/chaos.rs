//! Seeds in which everything happens to a home: its router restarts, forgets, moves, falls silent,
//! refuses, stops forwarding; packets are lost, the machine sleeps, the process is killed. Every
//! promise holds after every event, what is said comes to agree with what is true, and no mapping
//! is left behind.

use super::*;
use portolan_sim::Dice;
use portolan_sim::router::{Forwarding, Mood, NatPmpProfile, PcpProfile, Reboot, UpnpProfile};

/// Seeds that the gate runs, number.
const SEEDS: u64 = 24;
/// Seeds that have shown faults, beside those.
const KNOWN: [u64; 2] = [137, 139];
/// How long after all is well again the node must agree with what is true, ours: a repair that was
/// in vain rests for half an hour, and a renewal tells of what nobody told before.
const SETTLE_MAX: Duration = Duration::from_secs(8_000);

fn setting(seed: u64) -> Setting {
    let mut dice = Dice::new(seed ^ 0x6d61_7077);
    let mut profile = Profile { announcements: dice.pick(&[0, 1, 4]), ..Profile::NONE };
    profile.refuses = dice.percent(50);
    while profile.nat_pmp.is_none() && profile.pcp.is_none() && profile.upnp.is_none() {
        profile.nat_pmp = dice.percent(50).then_some(NatPmpProfile {
            renews_by_deletion: dice.percent(20),
            lifetime_max_s: dice.pick(&[300, 3_600, 86_400]),
            ..NatPmpProfile::HONEST
        });
        let lifetime_s = dice.pick(&[(120, 300), (120, 86_400)]);
        profile.pcp = dice.percent(50).then_some(PcpProfile { lifetime_s, ..PcpProfile::HONEST });
        profile.upnp = dice.percent(50).then_some(dice.pick(&[UpnpProfile::V1, UpnpProfile::V2]));
    }
    let dependences = [Dependence::Independent, Dependence::Address, Dependence::AddressAndPort];
    let gate = GateConfig::nat(dice.pick(&dependences), dice.pick(&dependences));
    let loss_percent = dice.pick(&[0, 0, 2, 10]);
    Setting { gate, loss_percent, ..Setting::new(profile, seed) }
}

/// One thing happens.
fn befall(home: &mut Home, dice: &mut Dice) -> Result<(), String> {
    let (router, now) = (home.router, home.now());
    let a_while = dice.span_between(seconds(1), seconds(300));
    match dice.index(10) {
        0 | 1 => {
            let reboot = Reboot {
                takes: dice.span_between(seconds(1), seconds(120)),
                keeps_state: dice.percent(40),
                announces: dice.percent(50),
            };
            home.world().restart(router, reboot);
        }
        2 => {
            home.world().remark("the router forgets");
            home.world().change_mapper(router, portolan_sim::router::Router::purge);
        }
        3 => {
            let last = u8::try_from(dice.between(1, 250)).unwrap_or(1);
            let told = (dice.percent(50), dice.percent(50));
            home.world().move_wan(router, Ipv4Addr::new(44, 5, 0, last), told);
        }
        4 | 5 => {
            let mood = dice.pick(&[Mood::Silent, Mood::Refuses, Mood::Denies]);
            home.world().set_mood(router, mood, Some(now + a_while));
        }
        6 => {
            home.world().remark("the router lets nobody in, for a while");
            home.world().change_mapper(router, |it| it.set_forwarding(Forwarding::Never));
            home.pass(a_while)?;
            home.world().remark("the router lets in what is mapped");
            home.world().change_mapper(router, |it| it.set_forwarding(Forwarding::Works));
        }
        // Who sleeps is not killed.
        7 if home.run.world.node(NODE).is_awake() => {
            home.world().remark("the process is killed");
            home.world().kill(NODE);
            home.pass(a_while)?;
            home.world().remark("a process starts");
            home.world().start_again(NODE);
        }
        7 | 8 => home.world().suspend(NODE, a_while),
        _ => home.world().cut_off(NODE),
    }
    Ok(())
}

fn case(home: &mut Home, seed: u64) -> Result<(), String> {
    let mut dice = Dice::new(seed ^ 0x6368_616f);
    home.pass(BEGINS)?;
    for _ in 0..dice.between(1, 10) {
        let span = dice.pick(&[1, 30, 300, 1_500]);
        home.pass(dice.span(seconds(span)))?;
        befall(home, &mut dice)?;
    }
    let router = home.router;
    home.world().remark("all is well again");
    home.world().heal();
    home.world().set_lan_loss(router, 0);
    home.world().set_mood(router, Mood::Answers, None);
    home.pass(seconds(120))?;
    let settled = home.pass_until(SETTLE_MAX, |home| BOTH.iter().all(|one| home.is_in(*one)))?;
    if settled.is_none() {
        let seen = BOTH.map(|one| (home.mapping(one), home.standing(one)));
        return Err(format!("all is well again, and still {seen:?}"));
    }
    home.world().closes(NODE);
    home.pass(seconds(300))?;
    if home.run.world.held(NODE).is_empty() {
        return Ok(());
    }
    // Whoever could not be told is in the ledger, for the next run to do so.
    home.world().kill(NODE);
    home.world().start_again(NODE);
    home.pass(seconds(120))?;
    home.gives_all_back()
}

#[test]
fn whatever_happens_promises_hold_and_no_mapping_is_left() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds: Vec<u64> = match number("MAPPING_WORLD_SEED") {
        Some(seed) => vec![seed],
        None => {
            let first = 0..number("MAPPING_WORLD_SEEDS").unwrap_or(SEEDS);
            first.chain(KNOWN).collect()
        }
    };
    run_all(seeds.into_iter().map(|seed| {
        let case: Case<'_> = Box::new(move |home| case(home, seed));
        ("chaos".to_owned(), setting(seed), case)
    }));
}
