//! What dial data may cost: one budget, shared out so that no address uses it up for the others.

use super::HISTORIES_MAX;
use crate::words::checkpoint::saved;
use crate::{Addr, Duration, Instant};
use alloc::collections::BTreeMap;

/// Bytes of dial data paid in one `DATA_WINDOW`; ours: twelve average demands. Upload grows with it.
const DATA_BUDGET: u64 = 800_000;
/// The part of it for addresses that may not be ours, bytes; ours: half, so that addresses which
/// liars made up cannot keep the others from being tested.
const DATA_FOR_OTHERS: u64 = DATA_BUDGET / 2;
/// The part of it for one address, bytes; ours: a quarter, two of the largest demands.
const DATA_FOR_ONE: u64 = DATA_BUDGET / 4;
/// How long after its first payment an address has its part anew.
const DATA_WINDOW: Duration = Duration::from_secs(600);

/// What was paid lately.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Purse {
    spent: BTreeMap<Addr, Spent>,
}

/// What was paid for one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Spent {
    since: Instant,
    bytes: u64,
    /// Whether the address is known to be ours.
    ours: bool,
}

impl Purse {
    /// Pay for an address, if so much is left for it. `ours` says that nobody else can have made
    /// it up.
    pub(super) fn pays(&mut self, now: Instant, (addr, ours): (Addr, bool), bytes: u64) -> bool {
        self.spent.retain(|_, one| now < one.since + DATA_WINDOW);
        let new = Spent { since: now, bytes: 0, ours };
        let spent = self.spent.get(&addr).copied().unwrap_or(new);
        let spent = Spent { bytes: spent.bytes + bytes, ours: spent.ours || ours, ..spent };
        let rest = |counts: fn(&Spent) -> bool| -> u64 {
            let others = self.spent.iter().filter(|(of, one)| **of != addr && counts(one));
            others.map(|(_, one)| one.bytes).sum()
        };
        let affordable = spent.bytes <= DATA_FOR_ONE
            && (spent.ours || rest(|one| !one.ours) + spent.bytes <= DATA_FOR_OTHERS)
            && rest(|_| true) + spent.bytes <= DATA_BUDGET
            && (self.spent.contains_key(&addr) || self.spent.len() < HISTORIES_MAX);
        if affordable {
            self.spent.insert(addr, spent);
        }
        affordable
    }
}

saved!(struct Spent { since, bytes, ours });
saved!(struct Purse {
    spent as current(|now, one: &Spent| now < one.since + DATA_WINDOW),
}, if is_bounded);

fn is_bounded(purse: &Purse) -> bool {
    let mut sum: u64 = 0;
    purse.spent.len() <= HISTORIES_MAX
        && purse.spent.values().all(|one| {
            sum = sum.saturating_add(one.bytes);
            one.bytes <= DATA_FOR_ONE && sum <= DATA_BUDGET
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::checkpoint::reloaded;
    use alloc::vec::Vec;
    use core::net::Ipv4Addr;

    fn addr(last: u8) -> Addr {
        Addr::tcp(Ipv4Addr::new(44, 0, 0, last).into(), 4001)
    }

    #[test]
    fn no_address_uses_up_what_is_meant_for_others() {
        let mut purse = Purse::default();
        let at = Instant::from_millis(1_000);
        let mut paid = |addr, ours, at| {
            let mut count = 0;
            while count < 100 && purse.pays(at, (addr, ours), 100_000) {
                count += 1;
            }
            count
        };
        let made_up: Vec<usize> = (1..=4).map(|last| paid(addr(last), false, at)).collect();
        assert_eq!(made_up, [2, 2, 0, 0], "half of it is for addresses that may not be ours");
        assert_eq!((paid(addr(5), true, at), paid(addr(6), true, at)), (2, 2));
        assert_eq!(paid(addr(7), true, at), 0, "now all of it is gone");
        let later = at + DATA_WINDOW;
        assert_eq!(paid(addr(7), true, later), 2, "and there again");
        assert_eq!(paid(addr(7), true, later), 0);
    }

    #[test]
    fn a_checkpoint_keeps_to_the_budget() {
        let spent = |bytes| {
            let one = Spent { since: Instant::ZERO, bytes, ours: true };
            Purse { spent: (1..=4).map(|last| (addr(last), one)).collect() }
        };
        assert_eq!(reloaded(&spent(DATA_FOR_ONE)), Ok(spent(DATA_FOR_ONE)));
        assert!(reloaded(&spent(DATA_FOR_ONE + 1)).is_err());
        let mut five = spent(DATA_FOR_ONE);
        five.spent.insert(addr(5), Spent { since: Instant::ZERO, bytes: 1, ours: true });
        assert!(reloaded(&five).is_err());
    }
}
