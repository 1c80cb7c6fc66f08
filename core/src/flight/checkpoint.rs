//! The agent's state between two parts of a record.

use super::mask::Mask;
use super::{Head, NOW_MAX, ReplayError};
use crate::Agent;
use crate::words::checkpoint::{BadCheckpoint, Exchange, Loader, Saved, Saver};
use bytes::Bytes;

/// The version of the layout, which a checkpoint begins with. It grows whenever a state is saved
/// as other bytes than before: a field more or less, another order, another number, another type.
const LAYOUT: u64 = 11;

/// What the head of a later part keeps of the agent; nonces masked like everywhere.
pub(super) fn save(agent: &Agent, mask: &Mask) -> Bytes {
    let mask = |nonce| mask.nonce(nonce);
    saved(agent, Saver::new(&mask))
}

/// The same of an agent whose nonces are masked already.
pub(super) fn copy(agent: &Agent) -> Bytes {
    saved(agent, Saver::new(&|nonce| nonce))
}

/// The same, with others in the place of IPs and peers.
pub(super) fn exchanged(agent: &Agent, by: &mut impl Exchange) -> Bytes {
    saved(agent, Saver::exchanging(by, &agent.identity, agent.config.allow_private))
}

fn saved(agent: &Agent, mut out: Saver<'_>) -> Bytes {
    LAYOUT.save(&mut out);
    agent.save(&mut out);
    out.into_bytes().into()
}

/// The agent as the part found it.
pub(super) fn restore(head: &Head) -> Result<Agent, ReplayError> {
    let fresh = Agent::new(head.config.clone(), head.identity.clone())?;
    match (head.part, &head.checkpoint) {
        (0, None) => Ok(fresh),
        (1.., Some(checkpoint)) => load(head, checkpoint).map_err(|_| ReplayError::Checkpoint),
        (0, Some(_)) | (1.., None) => Err(ReplayError::Checkpoint),
    }
}

fn load(head: &Head, checkpoint: &[u8]) -> Result<Agent, BadCheckpoint> {
    let mut from = Loader::new(checkpoint, &head.config, &head.identity);
    if u64::load(&mut from)? != LAYOUT {
        return Err(BadCheckpoint);
    }
    let agent = Agent::load(&mut from)?;
    from.end()?;
    if agent.now <= NOW_MAX { Ok(agent) } else { Err(BadCheckpoint) }
}
