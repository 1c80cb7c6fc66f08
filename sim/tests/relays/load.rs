//! Load: many clients choose among relays that are equally far, each two.

use super::*;

/// Relays, number.
const RELAYS: usize = 20;
/// Clients of the gate and of the whole run, number: twenty and forty places a relay.
const CLIENTS: (usize, usize) = (200, 400);
/// How far every relay is.
const RTT: Duration = Duration::from_millis(40);
/// Seeds of the gate and of the whole run, number.
const SEEDS: (u64, u64) = (1, 10);
/// How evenly the load must be spread: the fullest against the mean.
const EVEN: f64 = 2.0;

/// How full the relays are in the end, when clients start within so long.
fn load(seed: u64, within: Duration) -> Vec<usize> {
    let mut dice = Dice::new(seed ^ 0x6c6f_6164);
    let mut site = Site::new(seed);
    for _ in 0..RELAYS {
        let mut limits = RelayServerConfig::default();
        limits.reservations_max = 100;
        site.relay(RTT, dice.pick(&BOTH), limits);
    }
    let mut config = site.relay_config();
    config.need = RelayNeed::Always;
    let mut starts = Vec::new();
    for number in 0..clients() {
        let [high, low] = [number / 200, number % 200].map(|part| u8::try_from(part).unwrap_or(0));
        let ip = Ipv4Addr::new(45, 10 + high, low, 1).into();
        let mut core = Config::default();
        core.relay = Some(config.clone());
        let mut link = Link::with_latency(HOME);
        link.jitter = Duration::from_millis(1);
        let client = site.node(&format!("C{number}"), (None, &[ip], link), core);
        starts.push((dice.span(within), client));
    }
    starts.sort_by_key(|(at, _)| *at);
    for (at, client) in &starts {
        site.world.run_until(Instant::ZERO + *at).expect("no promise is broken");
        site.world.start(*client);
    }
    site.pass(seconds(20));
    let held = starts.iter().map(|(_, client)| site.believed(*client).len());
    assert!(held.into_iter().all(|held| held == 2), "everybody finds two");
    let loads = site
        .relays
        .iter()
        .map(|relay| site.world.node(*relay).agent().relay_load().expect("a relay").reservations);
    loads.collect()
}

fn clients() -> usize {
    if is_whole() { CLIENTS.1 } else { CLIENTS.0 }
}

fn evenness(name: &str, within: Duration) {
    let all = run_seeds(seeds(SEEDS.0, SEEDS.1), |seed| load(seed, within));
    let mut worst: f64 = 0.0;
    let mut sum = 0.0;
    for loads in &all {
        let mean = count(loads.iter().sum::<usize>()) / count(loads.len());
        let most = loads.iter().max().copied().unwrap_or(0);
        worst = worst.max(count(most) / mean);
        sum += count(most) / mean;
    }
    println!(
        "load of {RELAYS} equal relays, {} clients, {name}: {} seeds, max/mean {:.2} on average, \
         {worst:.2} at worst; the first: {:?}",
        clients(),
        all.len(),
        sum / count(all.len()),
        all[0]
    );
    assert!(worst <= EVEN, "{worst:.2} times the mean");
}

#[test]
fn equal_relays_are_loaded_evenly() {
    evenness("within a minute", seconds(60));
}

#[test]
fn a_crowd_that_comes_at_once_is_spread() {
    evenness("within a second", seconds(1));
}
