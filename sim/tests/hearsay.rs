//! AutoNAT v1 in simulated worlds: a pool of seven servers, five of which say anything at all.
//!
//! `PORTOLAN_HEARSAY=N` asks for so many seeds, all settings of a kind together.

use portolan_core::NodeState;
use portolan_sim::hearsay::{HearsayReport, Setting};
use portolan_sim::workers::spread;

/// Seeds in an ordinary run, all settings of a kind together; `tests/full.sh` has 1,000 of each kind.
const SEEDS: u64 = 60;

fn seeds(settings: usize) -> u64 {
    let asked = std::env::var("PORTOLAN_HEARSAY").ok().and_then(|text| text.parse().ok());
    asked.unwrap_or(SEEDS).div_ceil(settings as u64)
}

/// Every seed of a setting, on all processors.
fn all(setting: &Setting, seeds: u64) -> Vec<(u64, HearsayReport)> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut reports = Vec::new();
    spread(1..seeds + 1, jobs, |seed| setting.run(seed), &mut |seed, report: HearsayReport| {
        assert!(report.violation.is_none(), "{setting:?}, seed {seed}: {:?}", report.violation);
        reports.push((seed, report));
        true
    });
    reports
}

#[test]
fn beside_evidence_an_unreliable_pool_changes_nothing() {
    for setting in Setting::BESIDE_EVIDENCE {
        let (mut runs, mut words) = (0, 0);
        for (seed, report) in all(&setting, seeds(Setting::BESIDE_EVIDENCE.len())) {
            assert!(report.has_evidence, "{setting:?}, seed {seed}");
            let changes = report.changes_beside_evidence;
            assert_eq!(changes, 0, "{setting:?}, seed {seed}: {:?}", report.states);
            (runs, words) = (runs + 1, words + report.words);
        }
        eprintln!("{setting:?}: {runs} seeds, {words} words of v1, 0 changes beside evidence");
    }
}

#[test]
fn alone_it_flips_nothing_without_enough_contradictions() {
    for setting in Setting::ALONE {
        let (mut runs, mut words, mut flips, mut decided) = (0, 0, 0, 0);
        for (seed, report) in all(&setting, seeds(Setting::ALONE.len())) {
            let said = format!("{setting:?}, seed {seed}: {:?}", report.states);
            assert_eq!((report.unfounded, report.rash), (0, 0), "{said}");
            assert!(report.words > 7, "{said}");
            if setting.unreliable > 0 && setting.honest > 0 {
                assert_eq!(report.flips, 0, "the honest ones confirm it: {said}");
                assert!(report.states.len() <= 1, "{said}");
            }
            if setting.unreliable == 0 {
                assert_eq!(report.flips, 1, "what is true has changed: {said}");
                assert_eq!(report.states, [NodeState::Public, NodeState::Private], "{said}");
            }
            runs += 1;
            words += report.words;
            flips += report.flips;
            decided += u64::from(!report.states.is_empty());
        }
        eprintln!("{setting:?}: {runs} seeds, {words} words, {decided} decided, {flips} flips");
    }
}
