//! The first choice: nothing is held yet, and the node stands behind a NAT that lets nobody in.

use super::*;
use portolan_core::RelayStatus;
use portolan_sim::world::{Refusal, RelayMood};

/// Seeds of the gate and of the whole run, number.
const SEEDS: (u64, u64) = (400, 10_000);
/// How much farther than the best the first relay may be, in hundredths.
const NEAR: f64 = 1.2;
/// When the client starts: everybody has met by then.
const BEGINS: Duration = Duration::from_secs(20);
/// How long the first reservation is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A relay as it was drawn.
#[derive(Clone, Copy, Debug)]
struct Drawn {
    rtt: Duration,
    admits: bool,
}

/// What a seed came to.
#[derive(Clone, Debug)]
struct Choice {
    drawn: Vec<Drawn>,
    /// The relay of the first question that was granted; none came in time where there is none.
    chosen: Option<usize>,
    /// How long after its start the node had a reservation.
    took: Duration,
    /// Whether the nearest that admits was measured when the first was asked.
    knew_best: bool,
}

impl Choice {
    fn best(&self) -> usize {
        let admits = self.drawn.iter().enumerate().filter(|(_, one)| one.admits);
        admits.min_by_key(|(_, one)| one.rtt).expect("one admits").0
    }

    /// How much farther than the best.
    fn ratio(&self) -> f64 {
        self.chosen.map_or(f64::INFINITY, |chosen| {
            self.drawn[chosen].rtt.as_secs_f64() / self.drawn[self.best()].rtt.as_secs_f64()
        })
    }

    /// Whether the choice keeps the rule of eligibility: ten milliseconds or a fifth.
    fn is_eligible(&self) -> bool {
        let best = self.drawn[self.best()].rtt;
        let farthest = best + Duration::from_millis(10).max(best / 5);
        self.chosen.is_some_and(|chosen| self.drawn[chosen].rtt <= farthest)
    }
}

fn draw_relays(dice: &mut Dice) -> Vec<Drawn> {
    let number = dice.between(2, 20);
    let (near, far) = (Duration::from_millis(5), Duration::from_millis(300));
    let mut all = Vec::new();
    while !all.iter().any(|one: &Drawn| one.admits) {
        let one = |_| Drawn { rtt: dice.span_between(near, far), admits: dice.percent(85) };
        all = (0..number).map(one).collect();
    }
    all
}

fn choose(seed: u64) -> Choice {
    let mut dice = Dice::new(seed ^ 0x6669_7273);
    let mut site = Site::new(seed);
    let drawn = draw_relays(&mut dice);
    let transports = dice.pick(&[&[Transport::Tcp][..], &[Transport::Quic], &BOTH]);
    for one in &drawn {
        site.relay(one.rtt, dice.pick(transports), RelayServerConfig::default());
        let relay = *site.relays.last().expect("it was added");
        let load = u16::try_from(dice.between(0, 950)).unwrap_or(0);
        let mut mood = RelayMood { claims_load: Some(load), ..RelayMood::default() };
        if !one.admits && dice.percent(50) {
            mood.claims_load = Some(1_000);
            mood.refuses = Some(Refusal::Newcomers(RelayStatus::ReservationRefused));
        } else if !one.admits {
            mood.refuses = Some(Refusal::Everybody(RelayStatus::PermissionDenied));
        }
        site.world.set_relay_mood(relay, mood);
    }
    let servers = site.servers(dice.span_between(seconds(0), Duration::from_millis(60)));
    let mut link = Link::with_latency(HOME);
    // One seed in four loses packets, and all have a little jitter.
    link.jitter = Duration::from_millis(1);
    link.loss.ppm = if dice.percent(25) { 5_000 } else { 0 };
    let config = site.relay_config();
    let client = site.client(link, config);
    site.pass(BEGINS);
    site.world.start(client);
    for (server, addr) in servers {
        site.world.target(client, addr, server);
    }
    let until = site.world.now() + PATIENCE;
    while site.believed(client).is_empty() && site.world.now() < until {
        site.pass(Duration::from_millis(20));
    }
    // Whoever was asked along with the first has answered as well.
    site.pass(seconds(1));
    judge(&site, client, drawn)
}

fn judge(site: &Site, client: NodeId, drawn: Vec<Drawn>) -> Choice {
    let stood = site.standings(client);
    let reserved = |place: usize| {
        stood.iter().find(|(_, at, state)| *at == place && *state == RelayState::Reserved)
    };
    let asked = stood.iter().filter(|(_, _, state)| *state == RelayState::Asking);
    let first = asked.clone().find(|(_, place, _)| reserved(*place).is_some());
    let begun = Instant::ZERO + BEGINS;
    let served = stood.iter().find(|(_, _, state)| *state == RelayState::Reserved);
    let mut choice = Choice {
        drawn,
        chosen: first.map(|(_, place, _)| *place),
        took: served.map_or(PATIENCE, |(at, _, _)| at.since(begun)),
        knew_best: false,
    };
    let best = choice.best();
    let when = first.map_or(begun, |(at, _, _)| *at);
    // It was connected before, and is not connecting still.
    let mut before = stood.iter().filter(|(at, place, _)| *place == best && *at <= when);
    choice.knew_best =
        before.next_back().is_some_and(|(_, _, state)| *state != RelayState::Connecting);
    choice
}

#[test]
fn the_first_choice_is_near_the_best() {
    let choices = run_seeds(seeds(SEEDS.0, SEEDS.1), choose);
    let all = choices.len();
    let near = choices.iter().filter(|one| one.ratio() <= NEAR + 1e-9).count();
    let missed: Vec<&Choice> = choices.iter().filter(|one| one.ratio() > NEAR + 1e-9).collect();
    let by_rule = missed.iter().filter(|one| one.is_eligible()).count();
    let unknown = missed.iter().filter(|one| !one.is_eligible() && !one.knew_best).count();
    let mut ratios: Vec<f64> = choices.iter().map(Choice::ratio).collect();
    ratios.sort_by(f64::total_cmp);
    let mut took: Vec<Duration> = choices.iter().map(|one| one.took).collect();
    took.sort_unstable();
    println!(
        "first choice: {all} seeds, {near} within 1.2 of the best: {:.2} %",
        percent(near, all)
    );
    println!(
        "  farther: {} ({by_rule} within ten milliseconds, {unknown} before the best was known)",
        missed.len()
    );
    for place in [50, 90, 95, 99] {
        println!(
            "  ratio, {place} %: {:.3}; time to the first reservation: {:.3} s",
            quantile(&ratios, place),
            quantile(&took, place).as_secs_f64()
        );
    }
    println!(
        "  largest ratio {:.2}, longest time {:.3} s",
        ratios[all - 1],
        took[all - 1].as_secs_f64()
    );
    assert!(choices.iter().all(|one| one.chosen.is_some()), "somebody admits, and is not found");
    assert!(near * 100 >= all * 95, "{near} of {all} within 1.2 of the best");
}
