//! Breadth first through every world that can come of the first ones.

extern crate std;

use super::stage::Chance;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use siphasher::sip128::{Hasher128, SipHasher24};
use std::io::Write as _;

/// One of how many repeated states is followed once more, to see whether its twin behaves alike.
const FOLLOWED: usize = 16;

/// A room in its small world.
pub(super) trait World: Clone {
    /// What can happen, named so that worlds of one key have the same events.
    type Event: Clone + fmt::Debug + PartialEq;

    /// All that can happen now.
    fn events(&self) -> Vec<Self::Event>;

    /// Let it happen, and say whether anything was drawn. The error is a promise that broke.
    fn step(&mut self, event: &Self::Event, chance: Chance) -> Result<bool, String>;

    /// Equal for worlds that have the same future.
    fn key(&self) -> Vec<u8>;
}

/// How far to go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    /// Events in a row.
    pub(super) depth: usize,
    /// So many states are found at least, or the world is not what it was meant to be.
    pub(super) floor: usize,
    /// Whether there must be no new state beyond that depth.
    pub(super) complete: bool,
}

/// What was seen.
#[derive(Debug)]
pub(super) struct Report {
    states: usize,
    transitions: usize,
    depth: usize,
    complete: bool,
    followed: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { states, transitions, depth, followed, .. } = self;
        write!(f, "{states} states, {transitions} transitions, {followed} twins compared, ")?;
        if self.complete {
            write!(f, "complete: no new states at depth {depth}")
        } else {
            write!(f, "bounded at depth {depth}")
        }
    }
}

/// The depth for a run of everyday, or for a long one.
pub(super) fn depth(everyday: usize, long: usize) -> usize {
    if option_env!("PORTOLAN_EXHAUSTIVE") == Some("full") { long } else { everyday }
}

/// How a state was first reached.
enum Origin<E> {
    First(usize),
    After(usize, E, Chance),
}

struct Exploration<W: World> {
    name: &'static str,
    known: BTreeMap<u128, usize>,
    origins: Vec<Origin<W::Event>>,
    /// What everything begins with. Other worlds are not kept but lived again: they are large.
    first: Vec<W>,
    transitions: usize,
    repeated: usize,
    followed: usize,
}

/// Explore, tell, and fail with the shortest path to a broken promise, if there is one.
pub(super) fn explore<W: World>(name: &'static str, first: Vec<W>, bound: Bound) {
    let mut here = Exploration {
        name,
        known: BTreeMap::new(),
        origins: Vec::new(),
        first,
        transitions: 0,
        repeated: 0,
        followed: 0,
    };
    for world in 0..here.first.len() {
        let key = print(&here.first[world].key());
        here.arrive(key, Origin::First(world));
    }
    let (mut depth, mut done) = (0, 0);
    while done < here.origins.len() && depth < bound.depth {
        depth += 1;
        let layer = done..here.origins.len();
        done = layer.end;
        for number in layer {
            let world = here.lived(number);
            for event in world.events() {
                here.follow(number, &world, &event);
            }
        }
    }
    let report = Report {
        states: here.origins.len(),
        transitions: here.transitions,
        depth,
        complete: done == here.origins.len(),
        followed: here.followed,
    };
    // Written past the capture of the test's output: the numbers are wanted in every run.
    let _ = writeln!(std::io::stderr(), "exhaustive {name}: {report}");
    assert!(report.states >= bound.floor, "{name}: fewer than {} states: {report}", bound.floor);
    assert!(report.complete || !bound.complete, "{name}: there is more: {report}");
}

impl<W: World> Exploration<W> {
    fn follow(&mut self, number: usize, world: &W, event: &W::Event) {
        for chance in Chance::ALL {
            let mut after = world.clone();
            let drew = match after.step(event, chance) {
                Ok(drew) => drew,
                Err(broken) => self.fail(number, event, chance, &broken),
            };
            self.transitions += 1;
            let key = print(&after.key());
            if let Some(twin) = self.arrive(key, Origin::After(number, event.clone(), chance)) {
                self.compare(twin, &after, number, event, chance);
            }
            if !drew {
                break;
            }
        }
    }

    /// A state was found. Returns the number of its twin, if it was known.
    fn arrive(&mut self, key: u128, origin: Origin<W::Event>) -> Option<usize> {
        if let Some(twin) = self.known.get(&key) {
            return Some(*twin);
        }
        self.known.insert(key, self.origins.len());
        self.origins.push(origin);
        None
    }

    /// The world of this number, lived from its beginning.
    fn lived(&self, number: usize) -> W {
        match &self.origins[number] {
            Origin::First(world) => self.first[*world].clone(),
            Origin::After(parent, event, chance) => {
                let mut world = self.lived(*parent);
                world.step(event, *chance).expect("it went well before");
                world
            }
        }
    }

    /// Two worlds of one key have the same future, or the key leaves out what matters.
    fn compare(&mut self, twin: usize, world: &W, from: usize, event: &W::Event, chance: Chance) {
        self.repeated += 1;
        if !self.repeated.is_multiple_of(FOLLOWED) {
            return;
        }
        self.followed += 1;
        if let Some(differ) = difference(&self.lived(twin), world) {
            let path = self.path(twin).join("\n  ");
            let broken = format!("a twin goes another way: {differ}\nit came by\n  {path}");
            self.fail(from, event, chance, &broken);
        }
    }

    fn path(&self, number: usize) -> Vec<String> {
        match &self.origins[number] {
            Origin::First(world) => alloc::vec![format!("first world {world}")],
            Origin::After(parent, event, chance) => {
                let mut path = self.path(*parent);
                path.push(format!("{event:?} ({chance:?})"));
                path
            }
        }
    }

    fn fail(&self, number: usize, event: &W::Event, chance: Chance, broken: &str) -> ! {
        let path = self.path(number).join("\n  ");
        panic!("\n{}: {broken}\nafter\n  {path}\n  {event:?} ({chance:?})\n", self.name);
    }
}

fn difference<W: World>(one: &W, other: &W) -> Option<String> {
    let events = one.events();
    if events != other.events() {
        return Some(format!("{events:?} or {:?}", other.events()));
    }
    for event in events {
        for chance in Chance::ALL {
            let (mut one, mut other) = (one.clone(), other.clone());
            let drew = one.step(&event, chance);
            let twin = other.step(&event, chance);
            if drew != twin || one.key() != other.key() {
                return Some(format!("{event:?} ({chance:?}): {drew:?} and {twin:?}"));
            }
            if drew != Ok(true) {
                break;
            }
        }
    }
    None
}

/// 128 bits that stand for a key.
fn print(key: &[u8]) -> u128 {
    let mut hasher = SipHasher24::new();
    core::hash::Hasher::write(&mut hasher, key);
    hasher.finish128().as_u128()
}

/// A promise, and what to say where it is broken.
pub(super) fn promise(kept: bool, say: impl FnOnce() -> String) -> Result<(), String> {
    if kept { Ok(()) } else { Err(say()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    /// A counter that wraps at six, and must not reach four from three.
    #[derive(Clone)]
    struct Counter {
        at: u8,
        steps: u8,
        honest: bool,
        hurt: bool,
    }

    impl World for Counter {
        type Event = u8;

        fn events(&self) -> Vec<u8> {
            alloc::vec![1, 2]
        }

        fn step(&mut self, by: &u8, _: Chance) -> Result<bool, String> {
            if self.hurt && (self.at, *by) == (3, 1) {
                return Err("three and one".to_string());
            }
            self.at = (self.at + by) % 6;
            self.steps += 1;
            Ok(false)
        }

        fn key(&self) -> Vec<u8> {
            if self.honest { alloc::vec![self.at] } else { alloc::vec![self.at / 5] }
        }
    }

    fn run(honest: bool, hurt: bool, bound: Bound) {
        let first = Counter { at: 0, steps: 0, honest, hurt };
        explore("a counter", alloc::vec![first], bound);
    }

    const WHOLE: Bound = Bound { depth: 9, floor: 6, complete: true };

    #[test]
    fn a_world_that_closes_is_complete() {
        run(true, false, WHOLE);
    }

    #[test]
    #[should_panic(expected = "after\n  first world 0\n  1 (Lowest)\n  2 (Lowest)\n  1 (Lowest)")]
    fn the_shortest_path_to_a_broken_promise_is_told() {
        run(true, true, WHOLE);
    }

    #[test]
    #[should_panic(expected = "fewer than 7 states")]
    fn an_exploration_that_finds_too_little_fails() {
        run(true, false, Bound { floor: 7, ..WHOLE });
    }

    #[test]
    #[should_panic(expected = "there is more")]
    fn an_exploration_that_does_not_end_says_so() {
        run(true, false, Bound { depth: 1, floor: 1, complete: true });
    }
}
