//! A number for the actions of a step: the same on every machine and in every year.

use super::mask::Mask;
use super::proto::action;
use crate::Action;
use alloc::vec::Vec;
use prost::Message as _;
use siphasher::sip::SipHasher24;

/// The published key of the digest: it shall be stable, not secret.
const KEY: [u8; 16] = *b"portolan/actions";

/// SipHash-2-4 over the encoded actions, each after its length; 0 when there are none. With a
/// mask, nonces are replaced before.
pub(super) fn of(actions: &[Action], mask: Option<&Mask>) -> u64 {
    if actions.is_empty() {
        return 0;
    }
    let mut bytes = Vec::new();
    for action in actions {
        bytes.extend(action::encoded(action, mask).encode_length_delimited_to_vec());
    }
    SipHasher24::new_with_key(&KEY).hash(&bytes)
}
