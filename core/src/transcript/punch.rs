//! Facts, orders, news and messages about hole punching.

use super::frames::multiaddrs;
use super::relay::dial_failure;
use super::text::span;
use super::{Names, Scribe};
use crate::wire::punch::{Behavior, PredictedPorts, Prediction, PunchMessage};
use crate::{Class, PunchAction, PunchEvent, PunchNotice};
use alloc::format;
use alloc::string::String;

/// The text of an event.
pub(super) fn event<N: Names>(scribe: &Scribe<N>, event: &PunchEvent) -> String {
    match event {
        PunchEvent::Failed { punch, reason } => {
            format!("punch-failed {punch} {}", dial_failure(*reason))
        }
        PunchEvent::Broke { conn } => format!("broke {}", scribe.conn(*conn)),
    }
}

/// The text of an order.
pub(super) fn action<N: Names>(scribe: &Scribe<N>, action: &PunchAction) -> String {
    match action {
        PunchAction::Dial { punch, peer, addr, way, timeout } => {
            let (peer, way) = (scribe.names.name(peer), way.name());
            format!("punch {punch} {peer} {addr} {way} within {}", span(*timeout))
        }
        PunchAction::Cancel { punch } => format!("cancel {punch}"),
        PunchAction::CallAgain { peer, relay, addr } => {
            let (peer, relay) = (scribe.names.name(peer), scribe.names.name(relay));
            format!("call-again {peer} through {relay} {addr}")
        }
    }
}

/// The text of a notice.
pub(super) fn notice<N: Names>(scribe: &Scribe<N>, notice: &PunchNotice) -> String {
    let names = &scribe.names;
    match notice {
        PunchNotice::Attempted { peer, circuit, attempt } => {
            format!("punching {} beside {circuit}, attempt {attempt}", names.name(peer))
        }
        PunchNotice::Connected { peer, conn, addr, attempts, took } => {
            let (peer, took) = (names.name(peer), span(*took));
            format!("direct {conn} ({peer}) {addr} attempts={attempts} took={took}")
        }
        PunchNotice::Failed { peer, reason, attempts, class } => {
            let class = class.map(|class| format!(" {class}")).unwrap_or_default();
            let (peer, reason) = (names.name(peer), reason.name());
            format!("no direct connection to {peer}: {reason}{class} attempts={attempts}")
        }
    }
}

/// What a stream of DCUtR says.
pub(super) fn said(said: &PunchMessage) -> String {
    match said {
        PunchMessage::Connect { addrs, behaviors, prediction } => {
            let known = Class::ALL.into_iter().map(|class| (class, behaviors.get(class)));
            let known = known.filter(|(_, one)| *one != Behavior::UNKNOWN);
            let known = known.map(|(class, Behavior { mapping, filtering })| {
                format!(" {class}={}/{}", mapping.name(), filtering.name())
            });
            let known = known.collect::<String>();
            format!("Connect {}{known}{}", multiaddrs(addrs), predicted(*prediction))
        }
        PunchMessage::Sync { prediction } => format!("Sync{}", predicted(*prediction)),
    }
}

fn predicted(prediction: Prediction) -> String {
    match prediction {
        Prediction::Off => String::new(),
        Prediction::TakesPart => " predicts".into(),
        Prediction::Ports(PredictedPorts { class, first, step, count }) => {
            format!(" predicts {class}:{first}:{step:+}:{count}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{addr, peer, scribe};
    use super::*;
    use crate::wire::multiaddr::encode;
    use crate::wire::punch::Behaviors;
    use crate::{
        Action, ConnId, DialFailure, Duration, Event, FilteringBehavior, MappingBehavior, Notice,
        Protocol, PunchFailure, PunchId, PunchWay, StreamId,
    };
    use alloc::vec;

    #[test]
    fn every_fact_order_and_news_has_its_line() {
        let mut scribe = scribe();
        let (peer, punch) = (peer(1), PunchId(3));
        let failed = PunchEvent::Failed { punch, reason: DialFailure::TimedOut };
        assert_eq!(scribe.event(&Event::Punch(failed)), "punch-failed p3 timed-out");
        let broke = PunchEvent::Broke { conn: ConnId(9) };
        assert_eq!(scribe.event(&Event::Punch(broke)), "broke c9");
        let again =
            PunchAction::CallAgain { peer, relay: super::super::tests::peer(2), addr: addr(9) };
        let text = "call-again P1 through P2 /ip4/44.0.0.9/tcp/4001";
        assert_eq!(scribe.action(&Action::Punch(again)), text);
        let timeout = Duration::from_secs(5);
        for (way, word) in [
            (PunchWay::Plain, "plain"),
            (PunchWay::Client, "client"),
            (PunchWay::Server, "server"),
            (PunchWay::Open, "open"),
            (PunchWay::Sample, "sample"),
            (PunchWay::Predicted, "predicted"),
        ] {
            let dial = PunchAction::Dial { punch, peer, addr: addr(9), way, timeout };
            let text = format!("punch p3 P1 /ip4/44.0.0.9/tcp/4001 {word} within 5s");
            assert_eq!(scribe.action(&Action::Punch(dial)), text);
        }
        let cancel = PunchAction::Cancel { punch };
        assert_eq!(scribe.action(&Action::Punch(cancel)), "cancel p3");
        let class = Some(addr(9).class());
        for (news, text) in [
            (
                PunchNotice::Attempted { peer, circuit: ConnId(1), attempt: 2 },
                "* punching P1 beside c1, attempt 2",
            ),
            (
                PunchNotice::Connected {
                    peer,
                    conn: ConnId(4),
                    addr: addr(9),
                    attempts: 1,
                    took: Duration::from_millis(120),
                },
                "* direct c4 (P1) /ip4/44.0.0.9/tcp/4001 attempts=1 took=120ms",
            ),
            (
                PunchNotice::Failed {
                    peer,
                    reason: PunchFailure::EndpointDependent,
                    attempts: 0,
                    class,
                },
                "* no direct connection to P1: endpoint-dependent ip4/tcp attempts=0",
            ),
        ] {
            assert_eq!(scribe.action(&Action::Notify(Notice::Punch(news))), text);
        }
    }

    #[test]
    fn a_message_says_where_and_behind_what() {
        let mut scribe = scribe();
        let stream = StreamId::inbound(Protocol::Punch, 1);
        let mut read = |body| scribe.event(&Event::Frame { stream, body });
        let behaviors = Behaviors::of(|class| match Some(class) == Class::ALL.first().copied() {
            true => Behavior {
                mapping: MappingBehavior::EndpointIndependent,
                filtering: FilteringBehavior::AddressDependent,
            },
            false => Behavior::UNKNOWN,
        });
        let prediction = Prediction::TakesPart;
        let connect = PunchMessage::Connect { addrs: vec![encode(addr(2))], behaviors, prediction };
        assert_eq!(
            read(connect.encode()),
            "frame <punch:1 Connect [/ip4/44.0.0.2/tcp/4001] \
             ip4/tcp=endpoint-independent/address-dependent predicts"
        );
        let sync = PunchMessage::Sync { prediction: Prediction::Off };
        assert_eq!(read(sync.encode()), "frame <punch:1 Sync");
        let ports = PredictedPorts { class: Class::ALL[0], first: 5_000, step: -2, count: 32 };
        let sync = PunchMessage::Sync { prediction: Prediction::Ports(ports) };
        assert_eq!(read(sync.encode()), "frame <punch:1 Sync predicts ip4/tcp:5000:-2:32");
    }
}
