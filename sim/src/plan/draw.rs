//! A plan out of a seed: topology, NATs, servers good and bad, and a chaotic beginning. Each seed
//! leaves some kinds of faults out, so that what hides behind one fault is found without it.

mod chaos;
mod place;

use super::{Change, Plan};
use crate::dice::Dice;
use chaos::Chaos;
use portolan_core::Duration;

/// How likely things are in the swarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Odds {
    /// How long the chaotic beginning lasts at most.
    pub chaos: Duration,
    /// Faults in it, number at most.
    pub faults_max: u64,
    /// Honest servers, number at most.
    pub honest_max: u64,
    /// Bad servers, number at most.
    pub bad_max: u64,
    /// One seed in so many gives every node a twin.
    pub twins_in: u64,
    /// In one seed of so many keys and signed records travel.
    pub signs_in: u64,
    /// One seed in so many is watched for longer than a proof lasts after it has settled.
    pub long_in: u64,
}

impl Default for Odds {
    fn default() -> Odds {
        Odds {
            chaos: Duration::from_secs(120),
            faults_max: 12,
            honest_max: 6,
            bad_max: 4,
            twins_in: 16,
            signs_in: 8,
            long_in: 64,
        }
    }
}

/// How long a settled world is watched for, usually, and in one seed of some.
const WATCHED: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(900));

/// The plan of a seed.
pub fn drawn(seed: u64, odds: &Odds) -> Plan {
    let mut dice = Dice::new(seed ^ 0x0070_6f72_746f_6c61);
    let mut plan = Plan::new(seed);
    plan.twins = dice.between(1, odds.twins_in) == 1;
    plan.signs = dice.between(1, odds.signs_in) == 1;
    let place = place::draw(&mut plan, odds, &mut dice);
    let calm_at = place.begins + dice.span_between(Duration::from_secs(5), odds.chaos);
    let calm_at = Duration::from_secs(calm_at.as_secs());
    Chaos::draw(&mut dice).befall(&mut plan, &place, (calm_at, odds), &mut dice);
    plan.at(calm_at, Change::Heal);
    for node in 0..plan.nodes.len() {
        // Whoever died runs again; for the others nothing changes.
        plan.at(calm_at, Change::Start(node));
    }
    plan.still_at = Some(calm_at);
    let long = dice.between(1, odds.long_in) == 1;
    plan.lasts = if long { WATCHED.1 } else { WATCHED.0 };
    plan
}
