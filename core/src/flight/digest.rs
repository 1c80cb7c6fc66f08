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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Protocol, StreamId};
    use libp2p_identity::Keypair;

    /// The example in `docs/flight-record.md`, where another implementation of SipHash made it.
    const EXAMPLE: u64 = 0xf386_5afa_2367_dd76;

    #[test]
    fn the_digest_is_the_one_in_the_document() {
        let key = Keypair::ed25519_from_bytes([1; 32]).expect("any 32 bytes are a key");
        let agent = Agent::new(Config::default(), key.public()).expect("a good configuration");
        assert_eq!(agent.deadline(), None);
        let stream = StreamId::outbound(Protocol::Ping, 7);
        assert_eq!(of(&[Action::ResetStream { stream }], &agent, None), EXAMPLE);
        assert_eq!(of(&[], &agent, None), 0);
        let document = include_str!("../../../docs/flight-record.md");
        assert!(document.contains(&alloc::format!("is `{EXAMPLE:016x}`")));
    }
}
