//! The agent's state between two parts of a record.

use super::mask::Mask;
use super::{Head, ReplayError};
use crate::Agent;
use bytes::Bytes;

/// What the head of a later part keeps of the agent; nonces masked like everywhere.
pub(super) fn save(_agent: &Agent, _mask: &Mask) -> Option<Bytes> {
    None
}

/// The agent as the part found it.
pub(super) fn restore(head: &Head) -> Result<Agent, ReplayError> {
    if head.part > 0 || head.checkpoint.is_some() {
        return Err(ReplayError::Checkpoint);
    }
    Ok(Agent::new(head.config.clone(), head.identity.clone())?)
}
