//! Pairs that only meet where ports are predicted: how many do, at what cost, and that nothing is sent
//! where it is no use or nobody asked for it.

use crate::figures::{count, percent, run_seeds, seeds};
use crate::pairs::{PATIENCE, SETTLES, WATCHED, direct};
use crate::seconds;
use crate::site::{Kind, Pair, Side, Site, link};
use portolan_core::config::PREDICTED_PORTS_MAX;
use portolan_core::{Class, Duration, Family, PunchFailure, PunchNotice, Transport};
use portolan_sim::Dice;
use portolan_sim::net::Dependence::{AddressAndPort, Independent};
use portolan_sim::net::{PortAllocation, Refusal};

/// Seeds of the gate and of the whole run, number.
const SEEDS: (u64, u64) = (100, 1_000);
/// The share that must be connected within three attempts, percent.
const DIRECT_MIN: usize = 90;
/// First packets of the side whose ports are predicted in an attempt, number: three samples, each with
/// two SYNs of the kernel in three seconds, or as many Initials, and one more; and a dial every
/// 200 ms for five seconds.
const PREDICTING_MAX: u64 = 3 * 2 + 26;

/// What a seed is about: which side's NAT gives out one port after the other, and what else is drawn.
fn drawn(seed: u64, ports: PortAllocation) -> (Pair, usize) {
    let mut dice = Dice::new(seed ^ 0x7072_6564);
    let transport = [Transport::Tcp, Transport::Quic][usize::from(seed % 2 == 1)];
    let dependent = usize::from(seed / 2 % 2 == 1);
    let refusal = [Refusal::Silent, Refusal::Reject][usize::from(seed / 4 % 2 == 1)];
    // As for every pair.
    let lost =
        if dice.percent(25) { 0 } else { u32::try_from(dice.between(0, 100_000)).unwrap_or(0) };
    let most = Duration::from_millis(if dice.percent(50) { 50 } else { 150 });
    // Half a mapping a second to four of them.
    let others = dice.span_between(Duration::from_millis(250), seconds(2));
    let sides = [0, 1].map(|side| {
        let link = link(dice.span_between(Duration::from_millis(10), most), lost / 2);
        let depends = side == dependent;
        let mapping = if depends { AddressAndPort } else { Independent };
        Side {
            kind: Kind::Nat(mapping, AddressAndPort),
            refusal,
            link,
            ports: depends.then_some(ports),
            others: depends.then_some(others),
            predicts: true,
        }
    });
    let relay = link(dice.span_between(Duration::from_millis(1), Duration::from_millis(20)), 0);
    (
        Pair { class: Class::new(Family::Ip4, transport), sides, relay, besides: |_, _| {} },
        dependent,
    )
}

/// What came of a seed.
#[derive(Debug)]
struct Outcome {
    seed: u64,
    name: String,
    called: bool,
    informed: bool,
    /// Attempts until a direct connection, and how long it took from the circuit.
    direct: Option<(u8, Duration)>,
    /// Why there is none, of each side.
    failed: [Option<PunchFailure>; 2],
    /// Attempts in a row that either side tells of, number.
    attempts: u8,
    /// Attempts of the taker's, number; where a direct connection ended early there is another row.
    begun: u64,
    /// First packets of the side that predicts its ports, and of the one that sends to them.
    packets: [u64; 2],
}

fn meet(seed: u64, (pair, dependent): (Pair, usize)) -> Outcome {
    let [taker, opener] = &pair.sides;
    let name = format!(
        "seed {seed} {} {} with {}, {:?}, {:.1} % lost, {} and {} ms",
        pair.class,
        taker.kind.name(),
        opener.kind.name(),
        taker.refusal,
        f64::from(taker.link.loss.ppm) / 5_000.0,
        taker.link.latency.as_millis(),
        opener.link.latency.as_millis(),
    );
    let mut site = Site::new(seed, pair);
    site.pass(SETTLES);
    let until = site.world.now() + PATIENCE;
    let informed = |site: &Site| [0, 1].into_iter().all(|side| site.knows_itself(side));
    while !informed(&site) && site.world.now() < until {
        site.pass(seconds(5));
    }
    let informed = informed(&site);
    if std::env::var_os("PREDICT_SEED").is_some() {
        site.sides.into_iter().for_each(|side| site.world.transcribe(side));
    }
    let called = site.open_circuit().is_some();
    site.pass(WATCHED);
    for line in site.world.transcript() {
        println!("{line}");
    }
    let failed = [0, 1].map(|side| {
        site.punching(side).find_map(|(_, news)| match news {
            PunchNotice::Failed { reason, .. } => Some(*reason),
            PunchNotice::Attempted { .. } | PunchNotice::Connected { .. } => None,
            other => panic!("{other:?}"),
        })
    });
    let begun = site.punching(0).filter(|(_, news)| matches!(news, PunchNotice::Attempted { .. }));
    let begun = u64::try_from(begun.count()).expect("few attempts");
    let attempts = [0, 1].into_iter().flat_map(|side| site.punching(side)).map(|(_, news)| {
        let (PunchNotice::Attempted { attempt: attempts, .. }
        | PunchNotice::Connected { attempts, .. }
        | PunchNotice::Failed { attempts, .. }) = news
        else {
            panic!("{news:?}")
        };
        *attempts
    });
    let attempts = attempts.max().unwrap_or(0);
    let packets = [dependent, 1 - dependent].map(|side| site.punched_by(side));
    Outcome {
        seed,
        name,
        called,
        informed,
        direct: direct(&site),
        failed,
        attempts,
        begun,
        packets,
    }
}

/// Nobody sends more than an attempt may cost.
fn within_budget(one: &Outcome) {
    let attempts = one.begun.max(u64::from(one.attempts)).max(1);
    let ports = u64::try_from(PREDICTED_PORTS_MAX).expect("few ports");
    let most = [PREDICTING_MAX, ports].map(|most| attempts * most);
    assert!(one.attempts <= 3, "{one:?}");
    assert!(one.packets[0] <= most[0] && one.packets[1] <= most[1], "{most:?} {one:?}");
}

#[test]
fn pairs_of_which_one_nat_gives_out_ports_in_order_get_a_direct_connection() {
    let wanted = seeds("PREDICT", SEEDS.0, SEEDS.1);
    let all = run_seeds(wanted, |seed| meet(seed, drawn(seed, PortAllocation::Sequential)));
    let called = all.iter().filter(|one| one.called).count();
    let within =
        |most: u8| all.iter().filter(|one| one.direct.is_some_and(|(at, _)| at <= most)).count();
    println!(
        "{} seeds, {called} with a circuit: {} within three attempts ({:.2} %), {} on the first ({:.2} %)",
        all.len(),
        within(3),
        percent(within(3), all.len()),
        within(1),
        percent(within(1), all.len()),
    );
    let mut took: Vec<Duration> =
        all.iter().filter_map(|one| one.direct.map(|(_, took)| took)).collect();
    took.sort_unstable();
    if let (Some(median), Some(most)) = (took.get(took.len() / 2), took.last()) {
        let at = took[(took.len() * 95).div_ceil(100) - 1];
        println!(
            "  from the circuit to the direct connection: median {:.3} s, 95 % {:.3} s, at most {:.3} s",
            median.as_secs_f64(),
            at.as_secs_f64(),
            most.as_secs_f64()
        );
    }
    let sent = |which: usize| {
        let packets = all.iter().map(|one| one.packets[which]);
        let sum = usize::try_from(packets.clone().sum::<u64>()).unwrap_or(usize::MAX);
        (count(sum) / count(all.len().max(1)), packets.max().unwrap_or(0))
    };
    let [(predicting, predicting_most), (opening, opening_most)] = [sent(0), sent(1)];
    println!(
        "  first packets of all attempts of a pair: {predicting:.1} of the side that predicts \
         (at most {predicting_most}), {opening:.1} of the one that opens (at most {opening_most})"
    );
    for one in all.iter().filter(|one| one.direct.is_none_or(|(at, _)| at > 1)) {
        println!("  not on the first: {}: {:?} {:?}", one.name, one.direct, one.failed);
    }
    for one in all.iter().filter(|one| !one.informed || !one.called) {
        println!("  does not know itself, or has no circuit: {}", one.name);
    }
    all.iter().for_each(within_budget);
    assert!(within(3) * 100 >= all.len() * DIRECT_MIN, "within three attempts");
}

#[test]
fn ports_without_an_order_are_not_predicted() {
    for one in run_seeds(0..16, |seed| meet(seed, drawn(seed, PortAllocation::Random))) {
        within_budget(&one);
        assert!(one.called && one.direct.is_none(), "{one:?}");
        assert_eq!(one.packets[1], 0, "nobody sends to ports that are not predicted: {one:?}");
        let dependent = usize::from(one.seed / 2 % 2 == 1);
        let [reason, other] = [one.failed[dependent], one.failed[1 - dependent]];
        assert_eq!(reason, Some(PunchFailure::Unpredictable), "{one:?}");
        assert_eq!(other, Some(PunchFailure::EndpointDependent), "{one:?}");
    }
}

#[test]
fn nothing_is_predicted_unless_both_sides_want_it() {
    for seed in 0..24 {
        let (mut pair, dependent) = drawn(seed, PortAllocation::Sequential);
        let wanted =
            [[false, false], [true, false], [false, true]][usize::try_from(seed % 3).unwrap_or(0)];
        (pair.sides[0].predicts, pair.sides[1].predicts) = (wanted[0], wanted[1]);
        let one = meet(seed, (pair, dependent));
        assert!(one.called && one.informed && one.direct.is_none(), "{one:?}");
        assert_eq!(one.packets, [0, 0], "{one:?}");
        assert_eq!(one.failed, [Some(PunchFailure::EndpointDependent); 2], "{one:?}");
    }
}
