//! An incumbent stays: distances wander for a day, and the relays that are held hardly change.
//!
//! The second figure says what that costs: how much farther than the nearest relay the nearest is
//! that is held, when the day is over.

use super::*;

/// Seeds of the gate and of the whole run, number.
const SEEDS: (u64, u64) = (2, 60);
/// How long it lasts.
const DAY: Duration = Duration::from_secs(86_400);
/// How often distances move.
const STEP: Duration = Duration::from_secs(30);
/// How far they stray in the gate, in hundredths of what they were.
const STRAY: u64 = 15;
/// The same in a second part of the whole run.
const STRAY_FAR: u64 = 40;
/// The most of one step, in hundredths.
const STRIDE: u64 = 5;

/// How a day went.
#[derive(Clone, Copy, Debug)]
struct Day {
    /// Relays that were taken up after the first two.
    changes: usize,
    /// Reservations in the end, and the distance of the nearest against that of the best relay.
    reservations: usize,
    ratio: f64,
}

fn live(seed: u64, stray: u64) -> Day {
    let mut dice = Dice::new(seed ^ 0x6368_616e);
    let mut site = Site::new(seed);
    let number = dice.between(2, 20);
    let (near, far) = (Duration::from_millis(5), Duration::from_millis(300));
    let base: Vec<Duration> = (0..number).map(|_| dice.span_between(near, far)).collect();
    for rtt in &base {
        site.relay(*rtt, Transport::Tcp, RelayServerConfig::default());
    }
    let mut config = site.relay_config();
    config.need = RelayNeed::Always;
    let mut link = Link::with_latency(HOME);
    link.jitter = Duration::from_millis(1);
    let client = site.client(link, config);
    site.world.start(client);
    let mut places: Vec<u64> = vec![100; base.len()];
    while site.world.now() < Instant::ZERO + DAY {
        site.pass(STEP);
        for place in &mut places {
            let moved = (*place + dice.between(0, 2 * STRIDE)).saturating_sub(STRIDE);
            *place = moved.clamp(100 - stray, 100 + stray);
        }
        for (number, relay) in site.relays.clone().into_iter().enumerate() {
            let host = site.world.node(relay).host();
            let rtt = wandered(base[number], places[number]);
            site.world.fabric.link_mut(host).latency = link_of(rtt).latency;
        }
    }
    let (_, changes) = site.standings(client).into_iter().fold((Vec::new(), 0), count_taken);
    let held = site.believed(client);
    let far = |number: &usize| wandered(base[*number], places[*number]).as_secs_f64();
    let nearest = |all: &[usize]| all.iter().map(far).fold(f64::INFINITY, f64::min);
    let all: Vec<usize> = (0..base.len()).collect();
    Day { changes, reservations: held.len(), ratio: nearest(&held) / nearest(&all) }
}

/// A distance that is so many hundredths of what it was.
fn wandered(base: Duration, hundredths: u64) -> Duration {
    base * u32::try_from(hundredths).unwrap_or(100) / 100
}

/// Who is held, and how often somebody was taken up once two had been.
fn count_taken(
    (mut held, mut changes): (Vec<usize>, usize),
    (_, place, state): (Instant, usize, RelayState),
) -> (Vec<usize>, usize) {
    if state != RelayState::Reserved {
        held.retain(|one| *one != place);
    } else if !held.contains(&place) {
        changes += usize::from(held.len() >= 2);
        held.push(place);
    }
    (held, changes)
}

#[test]
fn an_incumbent_stays() {
    let strays: &[u64] = if is_whole() { &[STRAY, STRAY_FAR] } else { &[STRAY] };
    for stray in strays {
        let days = run_seeds(seeds(SEEDS.0, SEEDS.1), |seed| live(seed, *stray));
        tell(*stray, &days);
        let all_held = days.iter().all(|day| day.reservations == 2);
        assert!(all_held, "two are held in the end: {days:?}");
    }
}

fn tell(stray: u64, days: &[Day]) {
    let mut changes: Vec<usize> = days.iter().map(|day| day.changes).collect();
    changes.sort_unstable();
    let mut ratios: Vec<f64> = days.iter().map(|day| day.ratio).collect();
    ratios.sort_by(f64::total_cmp);
    let (sum, all) = (changes.iter().sum::<usize>(), changes.len());
    println!(
        "changes a day, distances wandering by {stray} %: {all} seeds, mean {:.2}, 95 % {}, most {}",
        count(sum) / count(all),
        quantile(&changes, 95),
        changes[all - 1]
    );
    println!(
        "  nearest held against the nearest of all, in the end: median {:.2}, 95 % {:.2}, most {:.2}",
        quantile(&ratios, 50),
        quantile(&ratios, 95),
        ratios[all - 1]
    );
}
