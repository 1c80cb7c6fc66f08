//! A week in which relays come and go: how long nobody gets in, and how long addresses are told that
//! work no more. At every moment at least one honest relay runs and has room.

use super::*;
use portolan_core::{CircuitId, RelayStatus};
use portolan_sim::world::{CallEnd, Refusal, RelayMood};
use std::collections::BTreeMap;

/// Seeds of the gate and of the whole run, number.
const SEEDS: (u64, u64) = (2, 12);
/// How long it lasts in the whole run, and in the gate.
const WEEK: Duration = Duration::from_secs(7 * 86_400);
const DAY: Duration = Duration::from_secs(86_400);
/// How long of it nobody may get in, parts in a thousand.
const GAP_MAX: f64 = 1.0;
/// How long the address of a relay that is gone may be told.
const STALE_MAX: Duration = Duration::from_secs(15);
/// How often a stranger calls at every address that is told.
const CALLS_EVERY: Duration = Duration::from_secs(1_800);
/// How long the longest call takes: dialling the relay, its answer, and shaking hands.
const CALL_MAX: Duration = Duration::from_secs(45);

fn lasts() -> Duration {
    if is_whole() { WEEK } else { DAY }
}

/// What befalls a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Its machine is off, from one moment to the next.
    Dies,
    /// Its process ends, and says so.
    Ends,
    /// It is wound down.
    Drains,
    /// It runs again, and knows nothing of before.
    Starts,
    /// It has no room for newcomers.
    Fills,
    /// It renews nothing either.
    Refuses,
    /// It denies everybody.
    Denies,
    /// It is as it was.
    Recovers,
}

/// How a week went.
#[derive(Clone, Debug, Default)]
struct Week {
    seed: u64,
    /// How long nobody got in, all together and at most.
    gap: Duration,
    longest: Duration,
    gaps: usize,
    /// How long addresses were told that did not work, each.
    stale: Vec<Duration>,
    turns: usize,
    calls: usize,
    /// Of them in vain, and of those where the relay served all the time.
    in_vain: usize,
    unexplained: usize,
}

/// The world of a week.
struct Life {
    site: Site,
    client: NodeId,
    stranger: NodeId,
    dice: Dice,
    /// What is to come: when, to whom, what.
    turns: BTreeMap<(Instant, usize), (usize, Turn)>,
    /// What was, in the same words.
    turned: Vec<(Instant, usize, Turn)>,
    number: usize,
    /// Whether each relay runs and has room.
    admits: Vec<bool>,
    /// Those that lie, however they stand.
    lies: Vec<bool>,
    week: Week,
    /// Since when nobody gets in.
    shut_since: Option<Instant>,
    /// Since when each address is told in vain.
    vain_since: BTreeMap<usize, Instant>,
    told: Vec<usize>,
    heard: usize,
    calls: Vec<(CircuitId, usize, bool)>,
}

impl Life {
    fn new(seed: u64, liars: usize) -> Life {
        let mut dice = Dice::new(seed ^ 0x7765_656b);
        let mut site = Site::new(seed);
        let number = usize::try_from(dice.between(3, 8)).unwrap_or(3) + liars;
        let mut lies = vec![false; number];
        for lie in lies.iter_mut().take(liars) {
            *lie = true;
        }
        for lie in &lies {
            let mut limits = RelayServerConfig::default();
            limits.reservation_lifetime = seconds(dice.pick(&[600, 1_800, 3_600, 3_600]));
            let rtt = dice.span_between(Duration::from_millis(10), Duration::from_millis(200));
            site.relay(rtt, dice.pick(&BOTH), limits);
            if *lie {
                let mut mood = RelayMood::default();
                match dice.index(3) {
                    0 => mood.swallows = true,
                    1 => mood.tells_lifetime = Some(seconds(dice.pick(&[7_200, 80_000]))),
                    _ => mood.tells_lifetime = Some(seconds(dice.pick(&[60, 200]))),
                }
                let relay = *site.relays.last().expect("it was added");
                site.world.set_relay_mood(relay, mood);
            }
        }
        let servers = site.servers(Duration::from_millis(20));
        let config = site.relay_config();
        let mut link = Link::with_latency(HOME);
        link.jitter = Duration::from_millis(1);
        let client = site.client(link, config);
        let stranger = site.stranger();
        site.world.start(client);
        for (server, addr) in servers {
            site.world.target(client, addr, server);
        }
        let admits = lies.iter().map(|lies| !lies).collect();
        Life {
            site,
            client,
            stranger,
            dice,
            turns: BTreeMap::new(),
            turned: Vec::new(),
            number: 0,
            admits,
            lies,
            week: Week { seed, ..Week::default() },
            shut_since: Some(Instant::ZERO),
            vain_since: BTreeMap::new(),
            told: Vec::new(),
            heard: 0,
            calls: Vec::new(),
        }
    }

    fn plan(&mut self, after: Duration, relay: usize, turn: Turn) {
        self.number += 1;
        self.turns.insert((self.site.world.now() + after, self.number), (relay, turn));
    }

    /// Let time pass, and look at every moment at which something happens.
    fn pass_until(&mut self, until: Instant) {
        while let Some(at) = self.site.world.next_at().filter(|at| *at <= until) {
            self.site.world.run_until(at).expect("no promise is broken");
            self.look();
        }
        self.site.world.run_until(until).expect("no promise is broken");
        self.look();
    }

    /// Compare what is told with what is true.
    fn look(&mut self) {
        let now = self.site.world.now();
        let heard = self.site.world.notices().len();
        if std::mem::replace(&mut self.heard, heard) != heard {
            self.told = self.site.believed(self.client);
        }
        let served =
            |place: &usize| self.site.world.is_served(self.client, self.site.relays[*place]);
        let (works, vain): (Vec<usize>, Vec<usize>) = self.told.iter().partition(|one| served(one));
        if works.is_empty() {
            self.shut_since.get_or_insert(now);
        } else if let Some(since) = self.shut_since.take() {
            let gap = now.since(since);
            self.week.gap += gap;
            self.week.longest = self.week.longest.max(gap);
            self.week.gaps += 1;
            self.show_gap(since, now);
        }
        let over: Vec<usize> =
            self.vain_since.keys().copied().filter(|place| !vain.contains(place)).collect();
        for place in over {
            let since = self.vain_since.remove(&place).expect("it was there");
            self.week.stale.push(now.since(since));
        }
        for place in vain {
            self.vain_since.entry(place).or_insert(now);
        }
    }

    /// Where one seed is run alone, how relays stood with the client around a long gap.
    fn show_gap(&self, since: Instant, until: Instant) {
        let is_long = seconds(60) < until.since(since);
        if !is_long || std::env::var_os("RELAYS_SEED").is_none() {
            return;
        }
        println!("a gap from {since} to {until}; before it, and until its end:");
        let from = Instant::ZERO + since.since(Instant::ZERO + seconds(900));
        for told in self.site.world.notices() {
            if let (true, Notice::Relay(RelayNotice::Changed(relay))) =
                ((from..=until).contains(&told.at) && told.node == self.client, &told.notice)
            {
                let (state, failure) = (relay.state, relay.failure);
                println!(
                    "  {} R{:?} {state:?} {failure:?} until {:?}",
                    told.at,
                    self.site.place(relay.peer),
                    relay.until
                );
            }
        }
        for (at, place, turn) in self.turned.iter().filter(|turn| (from..=until).contains(&turn.0))
        {
            println!("  {at} R{place} {turn:?}");
        }
    }

    /// Something happens to some relay, where another one is left.
    fn befall(&mut self) {
        let all = 0..self.admits.len();
        let up: Vec<usize> = all.filter(|place| self.admits[*place]).collect();
        if up.len() < 2 {
            return;
        }
        let turns =
            [Turn::Dies, Turn::Ends, Turn::Drains, Turn::Fills, Turn::Refuses, Turn::Denies];
        // Once in a while all but one go at once.
        let many = if self.dice.percent(5) { up.len() - 1 } else { 1 };
        let turn = self.dice.pick(&turns);
        let first = self.dice.index(up.len());
        for step in 0..many {
            self.turn(up[(first + step) % up.len()], turn);
        }
    }

    fn turn(&mut self, place: usize, turn: Turn) {
        let relay = self.site.relays[place];
        let a_while = self.dice.pick(&[5, 60, 600, 7_200, 20_000]);
        let a_while = self.dice.span_between(seconds(a_while / 2), seconds(a_while));
        self.week.turns += 1;
        self.turned.push((self.site.world.now(), place, turn));
        self.admits[place] = false;
        let mut mood = RelayMood::default();
        let world = &mut self.site.world;
        match turn {
            Turn::Dies => {
                world.kill(relay);
                self.plan(a_while, place, Turn::Starts);
            }
            Turn::Ends => {
                world.hang_up_all(relay);
                self.plan(Duration::from_millis(400), place, Turn::Dies);
            }
            Turn::Drains => {
                world.drain(relay);
                let lasts = self.dice.span_between(seconds(600), seconds(4_000));
                self.plan(lasts, place, Turn::Ends);
            }
            Turn::Starts => {
                world.start_again(relay);
                self.admits[place] = true;
            }
            Turn::Fills => {
                mood.claims_load = Some(1_000);
                mood.refuses = Some(Refusal::Newcomers(RelayStatus::ReservationRefused));
            }
            Turn::Refuses => {
                mood.claims_load = Some(1_000);
                mood.refuses = Some(Refusal::Everybody(RelayStatus::ReservationRefused));
            }
            Turn::Denies => {
                mood.refuses = Some(Refusal::Everybody(RelayStatus::PermissionDenied));
            }
            Turn::Recovers => self.admits[place] = true,
        }
        if mood.refuses.is_some() {
            self.plan(a_while.max(seconds(600)), place, Turn::Recovers);
        }
        if !self.lies[place] {
            self.site.world.set_relay_mood(relay, mood);
        }
    }

    /// A stranger calls at every address that is told.
    fn call(&mut self) {
        for place in self.told.clone() {
            let relay = self.site.peer(self.site.relays[place]);
            let (addr, peer) = (self.site.addrs[place], self.site.peer(self.client));
            let served = self.is_served(place);
            let call = self.site.world.call(self.stranger, (relay, addr), peer);
            self.calls.push((call, place, served));
        }
    }

    fn is_served(&self, place: usize) -> bool {
        self.site.world.is_served(self.client, self.site.relays[place])
    }

    fn called(&mut self) {
        for (call, place, served) in std::mem::take(&mut self.calls) {
            self.week.calls += 1;
            let end = self.site.world.called(self.stranger, call);
            if let Some(CallEnd::Connected(conn)) = end {
                self.site.world.hang_up(self.stranger, conn);
                continue;
            }
            self.week.in_vain += 1;
            self.week.unexplained += usize::from(served && self.is_served(place));
        }
    }

    fn live(mut self) -> Week {
        let end = Instant::ZERO + lasts();
        let pace = self.dice.pick(&[600, 3_600, 14_400]);
        let mut next = Instant::ZERO + seconds(60);
        let mut calls_at = Instant::ZERO + CALLS_EVERY;
        while self.site.world.now() < end {
            let due = self.turns.first_key_value().map(|((at, _), _)| *at);
            let until = due.unwrap_or(end).min(next).min(calls_at).min(end);
            self.pass_until(until);
            if due == Some(until) {
                let (_, (place, turn)) = self.turns.pop_first().expect("it is due");
                self.turn(place, turn);
            } else if next == until {
                self.befall();
                next = until + self.dice.span_between(seconds(pace / 10), seconds(2 * pace));
            } else if calls_at == until && self.calls.is_empty() {
                self.call();
                calls_at = until + CALL_MAX;
            } else if calls_at == until {
                self.called();
                calls_at = until + CALLS_EVERY.saturating_sub(CALL_MAX);
            }
            self.look();
        }
        if let Some(since) = self.shut_since {
            self.week.gap += end.since(since);
            self.week.longest = self.week.longest.max(end.since(since));
        }
        self.week.stale.sort_unstable();
        self.week
    }
}

fn tell(name: &str, weeks: &[Week]) -> f64 {
    let all: f64 = weeks.iter().map(|week| week.gap.as_secs_f64()).sum();
    let share = 1_000.0 * all / (count(weeks.len()) * lasts().as_secs_f64());
    let sum = |of: fn(&Week) -> usize| weeks.iter().map(of).sum::<usize>();
    let worst = weeks.iter().max_by_key(|week| week.gap).expect("a week");
    let longest = weeks.iter().max_by_key(|week| week.longest).expect("a week");
    let mut stale: Vec<Duration> = weeks.iter().flat_map(|week| week.stale.clone()).collect();
    stale.sort_unstable();
    println!(
        "{name}: {} weeks, {} turns: nobody gets in {:.4} % of the time",
        weeks.len(),
        sum(|week| week.turns),
        share / 10.0
    );
    println!(
        "  {} gaps; the worst week {:.4} % (seed {}), the longest gap {:.1} s (seed {})",
        sum(|week| week.gaps),
        100.0 * worst.gap.as_secs_f64() / lasts().as_secs_f64(),
        worst.seed,
        longest.longest.as_secs_f64(),
        longest.seed
    );
    if let Some(last) = stale.last() {
        println!(
            "  told in vain {} times: median {:.2} s, 95 % {:.2} s, longest {:.2} s",
            stale.len(),
            quantile(&stale, 50).as_secs_f64(),
            quantile(&stale, 95).as_secs_f64(),
            last.as_secs_f64()
        );
    }
    println!(
        "  {} calls of a stranger, {} in vain, {} of them though the relay served",
        sum(|week| week.calls),
        sum(|week| week.in_vain),
        sum(|week| week.unexplained)
    );
    share
}

#[test]
fn a_week_of_relays_that_come_and_go() {
    let weeks = run_seeds(seeds(SEEDS.0, SEEDS.1), |seed| Life::new(seed, 0).live());
    tell("honest relays", &weeks);
    for week in &weeks {
        let share = 1_000.0 * week.gap.as_secs_f64() / lasts().as_secs_f64();
        assert!(share < GAP_MAX, "seed {}: {share:.2} of a thousand", week.seed);
        let stale = week.stale.last().copied().unwrap_or_default();
        assert!(stale <= STALE_MAX, "seed {}: told in vain for {stale:?}", week.seed);
        assert_eq!(week.unexplained, 0, "seed {}: a call in vain", week.seed);
    }
}

#[test]
fn a_week_among_liars() {
    let weeks = run_seeds(seeds(SEEDS.0.min(1), SEEDS.1), |seed| Life::new(seed, 1).live());
    tell("one relay lies", &weeks);
}
