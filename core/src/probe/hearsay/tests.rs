//! When hearsay is believed, and when it is no more: arithmetic on voices.

use super::*;
use crate::words::checkpoint::reloaded;
use alloc::string::String;
use alloc::vec;
use core::net::{IpAddr, Ipv4Addr};
use proptest::prelude::*;

fn at(seconds: u64) -> Instant {
    Instant::from_millis(seconds * 1_000)
}

fn network(number: usize) -> Group {
    let number = u8::try_from(number).expect("few networks");
    Group::prefix(IpAddr::V4(Ipv4Addr::new(44, 0, number, 1)))
}

fn voice(word: Option<(bool, Instant)>) -> Voice {
    let remote = Addr::tcp(Ipv4Addr::new(44, 0, 0, 1).into(), 4001);
    Voice { peer: PeerId::random(), remote, word, again_at: at(0) }
}

/// The words of one network each, `+` and `-` of this second.
fn say(hearsay: &mut Hearsay, second: u64, words: &str) {
    for (number, word) in words.chars().enumerate() {
        let word = match word {
            '+' => Some((true, at(second))),
            '-' => Some((false, at(second))),
            '.' => continue,
            _ => None,
        };
        hearsay.voices.insert(network(number), voice(word));
    }
    hearsay.judge(at(second));
}

fn after(words: &[&str]) -> NodeState {
    let mut hearsay = Hearsay::default();
    for (second, words) in (0..).zip(words) {
        say(&mut hearsay, second, words);
    }
    hearsay.state()
}

#[test]
fn four_networks_must_agree_and_one_in_four_may_deny_it() {
    for (words, state) in [
        ("", NodeState::Unknown),
        ("+++", NodeState::Unknown),
        ("++++", NodeState::Public),
        ("----", NodeState::Private),
        ("+++?", NodeState::Unknown),
        ("+++-", NodeState::Unknown),
        ("++++-", NodeState::Public),
        ("----+", NodeState::Private),
        ("++++--", NodeState::Unknown),
        ("++++----", NodeState::Unknown),
        ("-----++", NodeState::Unknown),
        ("------++", NodeState::Private),
    ] {
        assert_eq!(after(&[words]), state, "{words}");
    }
}

#[test]
fn a_standing_flips_only_where_four_deny_it_and_nobody_confirms_it() {
    for (first, then, state) in [
        ("++++", "---.", NodeState::Public),
        ("++++", "----", NodeState::Private),
        ("++++", "?---", NodeState::Public),
        ("++++", ".......", NodeState::Public),
        ("+++++", "----.", NodeState::Public),
        ("++++++++", "-------.", NodeState::Public),
        ("++++++++", "--------", NodeState::Private),
        ("----", "++++", NodeState::Public),
        ("----", "+++.", NodeState::Private),
    ] {
        assert_eq!(after(&[first, then]), state, "{first} then {then}");
    }
}

#[test]
fn what_nobody_confirms_for_half_an_hour_is_unknown_and_not_the_contrary() {
    let mut hearsay = Hearsay::default();
    say(&mut hearsay, 0, "++++");
    say(&mut hearsay, 600, "---+");
    say(&mut hearsay, 1_800, "---.");
    assert_eq!(hearsay.state(), NodeState::Public, "confirmed at 600");
    hearsay.judge(at(2_399));
    assert_eq!(hearsay.state(), NodeState::Public);
    hearsay.judge(at(2_400));
    assert_eq!(hearsay.state(), NodeState::Unknown);
    assert_eq!(hearsay.voices[&network(3)].answer(at(2_400)), HearsayAnswer::Nothing);
}

#[test]
fn a_standing_waits_for_those_who_were_never_heard() {
    let mut hearsay = Hearsay::default();
    let question = Question {
        group: network(7),
        peer: PeerId::random(),
        remote: Addr::tcp(Ipv4Addr::new(44, 0, 0, 1).into(), 4001),
        conn: ConnId(1),
        overdue_at: at(30),
    };
    let stream = StreamId::outbound(Protocol::AutonatV1, 1);
    hearsay.questions.insert(stream, question);
    say(&mut hearsay, 0, "++++");
    assert_eq!(hearsay.state(), NodeState::Unknown, "the last one may deny it");
    hearsay.questions.insert(stream, Question { group: network(3), ..question });
    hearsay.judge(at(1));
    assert_eq!(hearsay.state(), NodeState::Public, "it is asked again, no more");
}

#[test]
fn a_checkpoint_keeps_to_the_limits() {
    let with = |count: usize| Hearsay {
        voices: (0..count).map(|number| (network(number), voice(None))).collect(),
        ..Hearsay::default()
    };
    for (count, is_read) in [(0, true), (NETWORKS_MAX, true), (NETWORKS_MAX + 1, false)] {
        let hearsay = with(count);
        let loaded = reloaded(&hearsay).map(|loaded| loaded.voices);
        assert_eq!(loaded.ok(), is_read.then_some(hearsay.voices), "{count}");
    }
    assert!(reloaded(&Hearsay { asked: u64::MAX, ..with(0) }).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Two honest servers of seven, and five of which each says anything at any time.
    #[test]
    fn an_unreliable_pool_changes_the_standing_once_at_most(
        rounds in prop::collection::vec(prop::collection::vec(prop::sample::select(vec!['+', '-', '?', '.']), 5), 1..60),
        honest in prop::sample::select(vec!['+', '-']),
    ) {
        let mut hearsay = Hearsay::default();
        let mut states = vec![hearsay.state()];
        for (round, words) in (0..).zip(rounds) {
            let words: String = words.into_iter().chain([honest, honest]).collect();
            say(&mut hearsay, round * 90, &words);
            if states.last() != Some(&hearsay.state()) {
                states.push(hearsay.state());
            }
        }
        let wanted = if honest == '+' { NodeState::Public } else { NodeState::Private };
        prop_assert!(states.len() <= 2, "{:?}", states);
        prop_assert!(states[1..].iter().all(|state| *state == wanted), "{:?}", states);
    }

    /// Whatever is said in whatever order, a standing never turns into its contrary while fewer
    /// networks deny it than it takes, or while anybody confirms it.
    #[test]
    fn no_flip_without_enough_contradictions(
        steps in prop::collection::vec((0usize..NETWORKS_MAX, 0u8..3, 0u64..2_000), 1..200),
    ) {
        let mut hearsay = Hearsay::default();
        let mut now = 0;
        for (number, word, pause) in steps {
            now += pause;
            let before = hearsay.state();
            let word = (word < 2).then_some((word == 1, at(now)));
            let known = hearsay.voices.get(&network(number)).and_then(|voice| voice.word);
            hearsay.voices.insert(network(number), voice(word.or(known)));
            hearsay.judge(at(now));
            let after = hearsay.state();
            let said = |wanted| hearsay.voices().filter(|one| one.answer(at(now)) == wanted).count();
            let (yes, no) = (said(HearsayAnswer::Reachable), said(HearsayAnswer::Unreachable));
            match (before, after) {
                (NodeState::Public, NodeState::Private) => {
                    prop_assert!(no >= HEARSAY_FLIP_MIN && yes == 0);
                }
                (NodeState::Private, NodeState::Public) => {
                    prop_assert!(yes >= HEARSAY_FLIP_MIN && no == 0);
                }
                (NodeState::Unknown, NodeState::Public) => prop_assert!(yes >= HEARSAY_AGREE_MIN),
                (NodeState::Unknown, NodeState::Private) => prop_assert!(no >= HEARSAY_AGREE_MIN),
                (_, _) => {}
            }
        }
    }
}
