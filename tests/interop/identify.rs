//! Identify asked by hand, to see what rust-libp2p does not show.

use bytes::BytesMut;
use futures::AsyncReadExt as _;
use libp2p::core::SignedEnvelope;
use libp2p::swarm::StreamProtocol;
use libp2p_identity::PeerId;
use portolan_core::Protocol;
use portolan_core::wire::framing;
use portolan_core::wire::identify::Identify;
use portolan_tests::rust_peer::RustPeer;

/// Ask `peer` who it is, and return the signed peer record in its answer.
pub(crate) async fn signed_record(rust: &RustPeer, peer: PeerId) -> Result<SignedEnvelope, String> {
    let protocol = StreamProtocol::new(Protocol::Identify.name());
    let opened = rust.opener().open(peer, protocol).await;
    let mut stream = opened.map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    // The answer ends with its stream.
    stream.read_to_end(&mut answer).await.map_err(|error| error.to_string())?;
    let mut answer = BytesMut::from(answer.as_slice());
    let framing = Protocol::Identify.framing();
    while let Some(body) = framing::split(framing, &mut answer).map_err(|e| e.to_string())? {
        let said = Identify::decode(&body).map_err(|error| error.to_string())?;
        if let Some(record) = said.signed_peer_record {
            let envelope = SignedEnvelope::from_protobuf_encoding(&record);
            return envelope.map_err(|error| error.to_string());
        }
    }
    Err("there is no record in its answer".into())
}
