//! What an application does to have a direct connection beside a relayed one, and what its node
//! tells of that.

use super::application::millis_of;
use super::relaying::{ECHO, LONG, dial, exchange};
use futures::StreamExt as _;
use multiaddr::{Multiaddr, Protocol};
use portolan_core::{Notice, PeerId, PunchNotice, Transport};
use portolan_runtime::Node;
use portolan_runtime::traits::Runtime;
use serde_json::{Value, json};

/// Connect through a relay, wait until there is a direct connection or a reason why there is none,
/// and have bytes back over whatever new streams take then.
pub(super) async fn punch<R: Runtime>(node: &Node<R>, addr: &Multiaddr) -> Result<Value, String> {
    let mut notices = node.notices();
    let dialled = dial(node, addr).await?;
    let stands = node.now();
    let mut done = json!({ "relayed": dialled.relayed });
    loop {
        let noticed = notices.next().await.ok_or("the node ended")?;
        let Notice::Punch(notice) = &noticed.notice else { continue };
        match notice {
            PunchNotice::Connected { peer, addr, attempts, .. } if *peer == dialled.peer => {
                done["direct"] = true.into();
                done["attempts"] = (*attempts).into();
                done["transport"] = word(addr.transport).into();
            }
            PunchNotice::Failed { peer, reason, attempts, .. } if *peer == dialled.peer => {
                done["direct"] = false.into();
                done["attempts"] = (*attempts).into();
                done["failure"] = reason.name().into();
            }
            PunchNotice::Attempted { .. }
            | PunchNotice::Connected { .. }
            | PunchNotice::Failed { .. }
            | _ => continue,
        }
        done["took_ms"] = millis_of(noticed.at.since(stands)).into();
        break;
    }
    done["echo_relayed"] = has_back(node, dialled.peer).await?;
    Ok(done)
}

/// Have bytes back from the peer whom an address names, over whatever new streams take.
pub(super) async fn talk<R: Runtime>(node: &Node<R>, addr: &Multiaddr) -> Result<Value, String> {
    let named = addr.iter().find_map(|part| {
        let Protocol::P2p(peer) = part else { return None };
        Some(peer)
    });
    let peer = named.ok_or("the address names no peer")?;
    Ok(json!({ "relayed": has_back(node, peer).await? }))
}

/// Have bytes back, and say whether that was over a circuit.
async fn has_back<R: Runtime>(node: &Node<R>, peer: PeerId) -> Result<Value, String> {
    let sent: Vec<u8> = (0..=250).cycle().take(LONG).collect();
    let stream = node.open_stream(peer, ECHO).await.map_err(|error| error.to_string())?;
    let conn = stream.conn();
    if exchange(stream, &sent).await.map_err(|error| error.to_string())? != sent {
        return Err("what came back is not what was sent".to_owned());
    }
    let all = node.connections().await;
    let over = all.into_iter().find(|one| one.conn == conn);
    Ok(over.map(|one| one.relayed).into())
}

const fn word(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "tcp",
        Transport::Quic => "quic",
    }
}

/// What a node tells of attempts.
pub(super) fn told(notice: &PunchNotice) -> Value {
    match notice {
        PunchNotice::Attempted { peer, attempt, .. } => json!({
            "event": "punching", "peer": peer.to_string(), "what": "attempted", "attempt": attempt,
        }),
        PunchNotice::Connected { peer, addr, attempts, took, .. } => json!({
            "event": "punching", "peer": peer.to_string(), "what": "connected",
            "addr": addr.to_string(), "attempts": attempts, "took_ms": millis_of(*took),
        }),
        PunchNotice::Failed { peer, reason, attempts, .. } => json!({
            "event": "punching", "peer": peer.to_string(), "what": "failed",
            "reason": reason.name(), "attempts": attempts,
        }),
        _ => json!({ "event": "punching", "what": "something else" }),
    }
}
