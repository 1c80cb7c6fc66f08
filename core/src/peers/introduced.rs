//! Whom sources of the application's have named to us.

use crate::PeerId;
use crate::words::checkpoint::saved;
use crate::words::config::INTRODUCED_MAX;
use alloc::collections::BTreeMap;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Introduced {
    sources: BTreeMap<PeerId, u16>,
}

impl Introduced {
    /// The first source that names a peer counts: otherwise a later one could take over what others
    /// vouch for.
    pub(super) fn record(&mut self, peer: PeerId, source: u16) {
        if self.sources.len() < INTRODUCED_MAX {
            self.sources.entry(peer).or_insert(source);
        }
    }

    pub(super) fn source(&self, peer: PeerId) -> Option<u16> {
        self.sources.get(&peer).copied()
    }
}

saved!(struct Introduced { sources });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_source_counts_and_the_number_is_bounded() {
        let mut introduced = Introduced::default();
        let first = PeerId::random();
        introduced.record(first, 1);
        introduced.record(first, 2);
        assert_eq!(introduced.source(first), Some(1));
        for _ in 0..INTRODUCED_MAX {
            introduced.record(PeerId::random(), 3);
        }
        let late = PeerId::random();
        introduced.record(late, 3);
        assert_eq!(introduced.source(late), None);
        assert_eq!(introduced.sources.len(), INTRODUCED_MAX);
    }
}
