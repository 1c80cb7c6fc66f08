//! Peers by name: every name is an ed25519 identity of its own, always the same.

use super::script::Name;
use libp2p_identity::Keypair;
use portolan_core::{PeerId, Signer, transcript};
use std::collections::BTreeMap;

/// The name of the node that the story is about.
pub(super) const NODE: &str = "Node";

/// The key that belongs to a name.
pub(super) fn key(name: &Name) -> Keypair {
    let mut seed = [0; 32];
    let bytes = name.0.as_bytes();
    seed[..bytes.len()].copy_from_slice(bytes);
    Keypair::ed25519_from_bytes(seed).expect("any 32 bytes are an ed25519 seed")
}

/// The names that were used, to print them instead of ids.
#[derive(Clone, Debug, Default)]
pub(super) struct Names(BTreeMap<PeerId, Name>);

impl Names {
    /// The peer that goes by `name`.
    pub(super) fn peer(&mut self, name: &Name) -> PeerId {
        let peer = key(name).public().to_peer_id();
        self.0.insert(peer, name.clone());
        peer
    }

    /// The name of a peer, if the story named it.
    pub(super) fn of(&self, peer: &PeerId) -> Option<Name> {
        self.0.get(peer).cloned()
    }
}

impl transcript::Names for Names {
    /// The name of a peer, or its id if the story never named it.
    fn name(&self, peer: &PeerId) -> String {
        self.0.get(peer).map_or_else(|| peer.to_string(), |name| name.0.clone())
    }
}

/// A key that signs what core asks for.
pub(super) struct Hand<'a>(pub(super) &'a Keypair);

impl Signer for Hand<'_> {
    fn sign(&mut self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).expect("ed25519 signs anything")
    }
}
