//! Pairs of every kind of NAT: whether they get a direct connection, when, and at what cost.

use crate::figures::{percent, run_seeds, seeds};
use crate::oracle::can_connect;
use crate::seconds;
use crate::site::{Kind, ON_IP4, ON_IP6, Pair, Side, Site, link};
use portolan_core::{Class, Duration, Family, Instant, PunchFailure, PunchNotice, Transport};
use portolan_sim::Dice;
use portolan_sim::net::Refusal;
use portolan_sim::summary::Spread;

/// Seeds of the gate and of the whole run, number.
const SEEDS: (u64, u64) = (500, 10_000);
/// How long the sides may look at themselves before the circuit is opened.
pub(crate) const SETTLES: Duration = Duration::from_secs(30);
/// How much longer, where they do not know themselves by then.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);
/// How long a pair is watched once there is a circuit.
pub(crate) const WATCHED: Duration = Duration::from_secs(60);
/// First packets and datagrams that both sides send in a minute at most, number: three attempts of
/// five seconds. In each, over TCP, a SYN of either side every 20 ms; over QUIC a datagram of one
/// every 10 ms, and three Initials of the other. Before them, three packets of a plain dial.
const PACKETS_MINUTE_MAX: u64 = 3 * (500 + 3) + 3;
/// Links up to which a hopeless pair must be told so within `TOLD_MAX` of the circuit.
const NEAR: Duration = Duration::from_millis(50);
const TOLD_MAX: Duration = Duration::from_secs(1);

/// What a seed is about.
pub(crate) fn drawn(seed: u64) -> Pair {
    let mut dice = Dice::new(seed ^ 0x7075_6e63);
    let on_ip4 = ON_IP4.len() * ON_IP4.len();
    let kinds = on_ip4 + ON_IP6.len() * ON_IP6.len();
    let place = usize::try_from(seed).expect("few seeds");
    let (kind, place) = (place % kinds, place / kinds);
    let (family, all, kind) = if kind < on_ip4 {
        (Family::Ip4, &ON_IP4[..], kind)
    } else {
        (Family::Ip6, &ON_IP6[..], kind - on_ip4)
    };
    let kinds = [all[kind / all.len()], all[kind % all.len()]];
    let transport = [Transport::Tcp, Transport::Quic][place % 2];
    let refusal = [Refusal::Silent, Refusal::Reject][place / 2 % 2];
    // Of what travels from one side to the other; each packet crosses two links.
    let lost =
        if dice.percent(25) { 0 } else { u32::try_from(dice.between(0, 100_000)).unwrap_or(0) };
    let most = if dice.percent(50) { NEAR } else { Duration::from_millis(150) };
    let mut side = |kind: Kind| {
        let latency = dice.span_between(Duration::from_millis(10), most);
        let link = link(latency, lost / 2);
        Side { kind, refusal, link, ports: None, others: None, predicts: false }
    };
    let sides = kinds.map(&mut side);
    let relay = link(dice.span_between(Duration::from_millis(1), Duration::from_millis(20)), 0);
    Pair { class: Class::new(family, transport), sides, relay, besides: |_, _| {} }
}

/// What came of a seed.
#[derive(Debug)]
struct Outcome {
    seed: u64,
    pair: Pair,
    possible: bool,
    /// Whether both sides knew what they stand behind.
    informed: bool,
    /// Whether there was a circuit at all.
    called: bool,
    /// Attempts until a direct connection, and how long it took from the circuit.
    direct: Option<(u8, Duration)>,
    /// Whether any side has a direct connection.
    any_direct: bool,
    /// What the taker was told instead, and how long after the circuit.
    failed: Option<(PunchFailure, Duration)>,
    packets: u64,
    packets_minute: u64,
}

impl Outcome {
    /// The round trip over the relay.
    fn relayed(&self) -> Duration {
        let [taker, opener] = &self.pair.sides;
        (taker.link.latency + opener.link.latency + self.pair.relay.latency * 2) * 2
    }

    fn is_near(&self) -> bool {
        self.pair.sides.iter().all(|side| side.link.latency <= NEAR)
    }

    fn name(&self) -> String {
        let [taker, opener] = &self.pair.sides;
        let refusal = match taker.refusal {
            Refusal::Silent => "dropping",
            Refusal::Reject => "rejecting",
        };
        let loss = f64::from(taker.link.loss.ppm) / 5_000.0;
        format!(
            "seed {} {} {} with {}, {refusal}, {loss:.1} % lost, {} and {} ms, known {}",
            self.seed,
            self.pair.class,
            taker.kind.name(),
            opener.kind.name(),
            taker.link.latency.as_millis(),
            opener.link.latency.as_millis(),
            self.informed,
        )
    }
}

fn meet(seed: u64) -> Outcome {
    let pair = drawn(seed);
    let possible = can_connect(&pair);
    let mut site = Site::new(seed, pair.clone());
    site.pass(SETTLES);
    let until = site.world.now() + PATIENCE;
    let informed = |site: &Site| [0, 1].into_iter().all(|side| site.knows_itself(side));
    while !informed(&site) && site.world.now() < until {
        site.pass(seconds(5));
    }
    let informed = informed(&site);
    if std::env::var_os("PUNCH_SEED").is_some() {
        site.sides.into_iter().for_each(|side| site.world.transcribe(side));
    }
    let called = site.open_circuit().is_some();
    site.pass(WATCHED);
    for line in site.world.transcript() {
        println!("{line}");
    }
    let packets = site.punched();
    let (direct, failed) = (direct(&site), failed(&site));
    let connected =
        |(_, news): &(Instant, &PunchNotice)| matches!(news, PunchNotice::Connected { .. });
    let any_direct = [0, 1].into_iter().any(|side| site.punching(side).any(|one| connected(&one)));
    Outcome {
        seed,
        pair,
        possible,
        informed,
        called,
        direct,
        any_direct,
        failed,
        packets: packets.values().sum(),
        packets_minute: packets.values().copied().max().unwrap_or(0),
    }
}

pub(crate) fn direct(site: &Site) -> Option<(u8, Duration)> {
    site.punching(0).find_map(|(_, news)| {
        let PunchNotice::Connected { attempts, took, .. } = news else { return None };
        Some((*attempts, *took))
    })
}

/// The first failure that the taker told, and how long after the first circuit was identified.
fn failed(site: &Site) -> Option<(PunchFailure, Duration)> {
    let circuit = site.circuit_at?;
    site.punching(0).find_map(|(at, news)| {
        let PunchNotice::Failed { reason, .. } = news else { return None };
        Some((*reason, at.since(circuit)))
    })
}

#[test]
fn every_pair_that_can_gets_a_direct_connection_and_no_other_tries() {
    let all = run_seeds(seeds("PUNCH", SEEDS.0, SEEDS.1), meet);
    let called: Vec<&Outcome> = all.iter().filter(|one| one.called).collect();
    let (possible, hopeless): (Vec<&Outcome>, Vec<&Outcome>) =
        called.iter().copied().partition(|one| one.possible);
    let within = |most: u8| {
        possible.iter().filter(|one| one.direct.is_some_and(|(at, _)| at <= most)).count()
    };
    println!(
        "{} seeds, {} with a circuit; {} pairs can connect: {} within three attempts ({:.2} %), \
         {} on the first ({:.2} %), {} of them without any",
        all.len(),
        called.len(),
        possible.len(),
        within(3),
        percent(within(3), possible.len()),
        within(1),
        percent(within(1), possible.len()),
        within(0),
    );
    for transport in [Transport::Tcp, Transport::Quic] {
        told_times(transport, &possible);
    }
    let most = all.iter().map(|one| one.packets_minute).max().unwrap_or(0);
    println!("  first packets and datagrams of a pair in a minute: at most {most}");
    told_hopeless(&hopeless);
    for one in possible.iter().filter(|one| one.direct.is_none_or(|(at, _)| at > 1)) {
        println!("  not on the first: {}: {:?} {:?}", one.name(), one.direct, one.failed);
    }
    for one in all.iter().filter(|one| !one.called) {
        println!("  no circuit: {}", one.name());
    }
    for one in called.iter().filter(|one| !one.informed) {
        println!("  does not know itself: {}", one.name());
    }
    demand(&called, &hopeless);
    assert_eq!(called.len(), all.len(), "every pair has its circuit");
    assert!(within(3) * 100 >= possible.len() * 99, "within three attempts");
    assert!(within(1) * 100 >= possible.len() * 95, "on the first attempt");
}

fn told_times(transport: Transport, possible: &[&Outcome]) {
    let of = possible.iter().filter(|one| one.pair.class.transport == transport);
    let mut ratios: Vec<f64> = of
        .clone()
        .filter_map(|one| {
            let (_, took) = one.direct?;
            Some(took.as_secs_f64() / one.relayed().as_secs_f64())
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    let Some(spread) = Spread::of(of.filter_map(|one| Some(one.direct?.1))) else { return };
    let at = |percent: usize| ratios[(ratios.len() * percent).div_ceil(100) - 1];
    println!(
        "  {transport:?}: from the circuit to the direct connection, in round trips over the \
         relay: median {:.2}, 95 % {:.2}; {:.3} s and {:.3} s",
        at(50),
        at(95),
        spread.median.as_secs_f64(),
        spread.p95.as_secs_f64()
    );
}

fn told_hopeless(hopeless: &[&Outcome]) {
    let told = |one: &&&Outcome| {
        one.failed.is_some_and(|(reason, _)| reason == PunchFailure::EndpointDependent)
    };
    let spans = hopeless.iter().filter(told).filter_map(|one| Some(one.failed?.1));
    let spread = Spread::of(spans).unwrap_or_default();
    println!(
        "  {} pairs cannot: {} are told so; median {:.3} s after the circuit, 95 % {:.3} s, at most {:.3} s",
        hopeless.len(),
        spread.runs,
        spread.median.as_secs_f64(),
        spread.p95.as_secs_f64(),
        spread.max.as_secs_f64(),
    );
    for one in hopeless.iter().filter(|one| !told(one) || one.packets > 0) {
        println!(
            "  hopeless: {}: {:?}, {} packets, direct {:?}",
            one.name(),
            one.failed,
            one.packets,
            one.direct
        );
    }
}

fn demand(called: &[&Outcome], hopeless: &[&Outcome]) {
    for one in called {
        assert!(
            one.packets_minute <= PACKETS_MINUTE_MAX,
            "a storm: {} {}",
            one.packets_minute,
            one.name()
        );
    }
    for one in hopeless {
        assert!(!one.any_direct, "the gates do not let it through: {}", one.name());
    }
    for one in hopeless.iter().filter(|one| one.informed) {
        assert_eq!(one.packets, 0, "in vain: {}", one.name());
        let lossless = one.pair.sides[0].link.loss.ppm == 0;
        let Some((reason, after)) = one.failed else { panic!("it is not told: {}", one.name()) };
        assert_eq!(reason, PunchFailure::EndpointDependent, "{}", one.name());
        assert!(
            !lossless || !one.is_near() || after <= TOLD_MAX,
            "after {after:?}: {}",
            one.name()
        );
    }
}
