//! How peers learn that we started anew and know nothing of their QUIC connections: by a stateless
//! reset (RFC 9000 §10.3), as soon as something of theirs comes, instead of by a time-out.

use libp2p_identity::Keypair;
use quinn::crypto::{CryptoError, HmacKey};
use quinn::{ConnectionId, ConnectionIdGenerator};
use rand::RngExt as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// What is derived from the identity here, and nowhere else.
const DOMAIN: &[u8] = b"portolan quic stateless reset";
/// The length of our connection ids, bytes; quinn's value.
const CID_LEN: usize = 8;

/// Have an endpoint at this address give out the same tokens after a restart. An identity from
/// which nothing can be derived keeps tokens that only last as long as the process.
pub(super) fn outlive(endpoint: &mut quinn::EndpointConfig, keypair: &Keypair, local: SocketAddr) {
    let key = ResetKey { keypair: keypair.clone(), local };
    if key.token(&[]).is_some() {
        endpoint.reset_key(Arc::new(key)).cid_generator(|| Box::new(Cids));
    }
}

/// Tokens of one identity at one address: were they the same at every address of ours, whoever saw
/// a connection to one could have another tell him its token (RFC 9000 §21.11).
struct ResetKey {
    keypair: Keypair,
    local: SocketAddr,
}

impl ResetKey {
    fn token(&self, cid: &[u8]) -> Option<[u8; 32]> {
        let local = self.local.to_string();
        self.keypair.derive_secret(&[DOMAIN, b" ", local.as_bytes(), b" ", cid].concat())
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        if let Some(token) = self.token(data) {
            signature_out.copy_from_slice(&token);
        }
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let holds = self.token(data).is_some_and(|token| token == signature);
        if holds { Ok(()) } else { Err(CryptoError) }
    }
}

/// Random ids. Those of the process before look like any other, and are answered.
struct Cids;

impl ConnectionIdGenerator for Cids {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&rand::rng().random::<[u8; CID_LEN]>())
    }

    fn cid_len(&self) -> usize {
        CID_LEN
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_of_one_identity_and_one_address() {
        let key = |seed: u8, port| ResetKey {
            keypair: Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes are a key"),
            local: SocketAddr::from(([127, 0, 0, 1], port)),
        };
        let mut token = [0; 32];
        key(1, 4001).sign(b"cid", &mut token);
        assert!(key(1, 4001).verify(b"cid", &token).is_ok(), "after a restart");
        assert!(key(2, 4001).verify(b"cid", &token).is_err(), "another identity");
        assert!(key(1, 4002).verify(b"cid", &token).is_err(), "another address");
        assert!(key(1, 4001).verify(b"dic", &token).is_err(), "another connection");
    }
}
