//! A number for what came out of a step: the same on every machine and in every year.

use super::mask::Mask;
use super::proto::action::{self, ActionMessage};
use crate::{Action, Agent};
use alloc::vec::Vec;
use prost::Message as _;
use siphasher::sip::SipHasher24;

/// The published key of the digest: it shall be stable, not secret.
const KEY: [u8; 16] = *b"portolan/actions";

/// SipHash-2-4 over the actions and, behind them, the deadline that the agent has now; each
/// encoded and after its length. With a mask, nonces are replaced before.
///
/// Where no actions came out it is 0, so that an idle step stays short. The deadline counts
/// because a timer that fires earlier than it did would not show otherwise: the steps of a record
/// come when they came.
pub(super) fn of(actions: &[Action], agent: &Agent, mask: Option<&Mask>) -> u64 {
    if actions.is_empty() {
        return 0;
    }
    let mut bytes = Vec::new();
    let mut add = |message: ActionMessage| bytes.extend(message.encode_length_delimited_to_vec());
    actions.iter().for_each(|action| add(action::encoded(action, mask)));
    agent.deadline().map(action::wake).into_iter().for_each(add);
    SipHasher24::new_with_key(&KEY).hash(&bytes)
}
