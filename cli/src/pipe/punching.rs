//! What is told of attempts at a direct connection beside a relayed one.

use crate::pipe::PipeNews;
use futures::StreamExt;
use portolan_core::{Notice, PunchFailure, PunchNotice};
use portolan_runtime::Node;
use portolan_runtime::traits::Runtime;

/// Tell what becomes of attempts, until the node ends.
pub(super) async fn follow<R: Runtime>(node: &Node<R>, mut news: impl FnMut(&PipeNews)) {
    let mut notices = node.notices();
    while let Some(noticed) = notices.next().await {
        if let Notice::Punch(notice) = noticed.notice
            && let Some(one) = told(&notice)
        {
            news(&one);
        }
    }
}

/// A direct connection is told by the session that takes it.
fn told(notice: &PunchNotice) -> Option<PipeNews> {
    Some(match notice {
        PunchNotice::Attempted { peer, attempt, .. } => {
            PipeNews::Punching { peer: peer.to_string(), attempt: *attempt }
        }
        PunchNotice::Failed { peer, reason, attempts, class } => PipeNews::NotDirect {
            peer: peer.to_string(),
            reason: reason.name(),
            explanation: explained(*reason),
            class: class.map(|class| class.to_string()),
            attempts: *attempts,
        },
        PunchNotice::Connected { .. } | _ => return None,
    })
}

const fn explained(reason: PunchFailure) -> &'static str {
    match reason {
        PunchFailure::EndpointDependent => {
            "a NAT shows another port to each endpoint, and the other one lets in nobody else"
        }
        PunchFailure::NoCommonAddress => "no transport over which both have an address",
        PunchFailure::Unsupported => "the peer does not speak /libp2p/dcutr",
        PunchFailure::BadAnswer => "the peer does not answer as it must",
        PunchFailure::NotReached => "nothing came through",
        PunchFailure::CircuitLost => "the relayed connection ended meanwhile",
        PunchFailure::Unpredictable => "our NAT gives out ports in no order that we can see",
        _ => "no reason is known",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_core::{Class, Family, PeerId, Transport};

    #[test]
    fn what_fails_is_told_with_its_reason() {
        let peer = PeerId::random();
        let failed = PunchNotice::Failed {
            peer,
            reason: PunchFailure::EndpointDependent,
            attempts: 0,
            class: Some(Class::new(Family::Ip4, Transport::Quic)),
        };
        let news = told(&failed).expect("it is told");
        let line = "no direct connection (ip4/quic): a NAT shows another port to each endpoint, and \
                    the other one lets in nobody else";
        assert_eq!(news.to_string(), line);
        let json = serde_json::to_value(&news).expect("plain data");
        assert_eq!(json["event"], "not-direct");
        assert_eq!(json["reason"], "endpoint-dependent");
        assert_eq!(json["class"], "ip4/quic");
        let attempted =
            PunchNotice::Attempted { peer, circuit: portolan_core::ConnId(1), attempt: 2 };
        let news = told(&attempted).expect("it is told");
        assert_eq!(news.to_string(), "trying a direct connection, attempt 2");
        let failed = PunchNotice::Failed {
            peer,
            reason: PunchFailure::NotReached,
            attempts: 3,
            class: None,
        };
        let news = told(&failed).expect("it is told");
        let line = "no direct connection after 3 attempts: nothing came through";
        assert_eq!(news.to_string(), line);
    }
}
