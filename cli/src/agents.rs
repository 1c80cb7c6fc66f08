//! What software peers say they are.

use portolan_core::{Notice, PeerId};
use std::collections::{BTreeMap, VecDeque};

/// Peers whose software is known, number; ours: far more than a page names. When full, who was heard of
/// first is forgotten.
const AGENTS_MAX: usize = 1_024;

/// What the last peers said that they are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Agents {
    said: BTreeMap<PeerId, String>,
    /// The same peers, in the order in which they were heard of.
    heard: VecDeque<PeerId>,
}

impl Agents {
    /// A peer may have said it.
    pub(crate) fn noticed(&mut self, notice: &Notice) {
        let Notice::Identified { peer, agent: Some(agent), .. } = notice else { return };
        if self.said.insert(*peer, agent.clone()).is_none() {
            self.heard.push_back(*peer);
        }
        if self.heard.len() > AGENTS_MAX
            && let Some(first) = self.heard.pop_front()
        {
            self.said.remove(&first);
        }
    }

    /// What a peer said it is; empty if it did not.
    pub(crate) fn of(&self, peer: &PeerId) -> &str {
        self.said.get(peer).map_or("", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_core::ConnId;

    #[test]
    fn who_was_heard_of_first_is_forgotten_first() {
        let mut agents = Agents::default();
        let said = |peer, agent: &str| Notice::Identified {
            conn: ConnId(1),
            peer,
            observed: None,
            server: false,
            agent: Some(agent.to_owned()),
        };
        let peers: Vec<PeerId> = (0..=AGENTS_MAX).map(|_| PeerId::random()).collect();
        for peer in &peers[..AGENTS_MAX] {
            agents.noticed(&said(*peer, "a/1"));
        }
        // To say it again, or something else, makes nobody new.
        agents.noticed(&said(peers[0], "a/2"));
        assert_eq!((agents.of(&peers[0]), agents.of(&peers[1])), ("a/2", "a/1"));
        agents.noticed(&said(peers[AGENTS_MAX], "b"));
        assert_eq!((agents.of(&peers[0]), agents.of(&peers[AGENTS_MAX])), ("", "b"));
        assert_eq!(agents.said.len(), AGENTS_MAX);
    }
}
