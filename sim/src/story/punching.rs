//! What the other side of a circuit does to punch, and what the runtime tells of dials.

use super::script::{Word, Words, Wrong, expected};
use super::world::World;
use bytes::Bytes;
use portolan_core::wire::multiaddr::encode;
use portolan_core::wire::punch::{Behavior, Behaviors, PredictedPorts, Prediction, PunchMessage};
use portolan_core::{
    Addr, Class, ConnId, Event, FilteringBehavior, MappingBehavior, Protocol, PunchEvent, PunchId,
};

impl World {
    /// `punch-offer`, `punch-sync`, `punch-answer`, `punch-failed`, `punch-broke`.
    pub(super) fn punching(&mut self, verb: &str, mut words: Words<'_>) -> Result<(), Wrong> {
        if verb == "punch-failed" {
            let (punch, reason) = (words.take::<PunchId>()?, words.take()?);
            words.done()?;
            return self.feed(Event::Punch(PunchEvent::Failed { punch, reason }));
        }
        let conn: ConnId = words.take()?;
        match verb {
            "punch-broke" => {
                words.done()?;
                self.feed(Event::Punch(PunchEvent::Broke { conn }))
            }
            "punch-offer" => {
                let body = offer(words)?;
                let stream = self.theirs(conn, Protocol::Punch)?;
                self.speak(stream, vec![body], false)
            }
            "punch-sync" => {
                let prediction = words.take_if().unwrap_or_default();
                words.done()?;
                let stream = self.last_theirs(conn, Protocol::Punch)?;
                self.speak(stream, vec![PunchMessage::Sync { prediction }.encode()], true)
            }
            "punch-answer" => {
                let stream = self.ours(conn, Protocol::Punch)?;
                let body = offer(words)?;
                self.speak(stream, vec![body], false)
            }
            other => Err(expected("a verb (see docs/scenarios.md)", other)),
        }
    }
}

/// Addresses, and behind what: `/ip4/…/tcp/4001 ip4/tcp:endpoint-independent:address-dependent`.
fn offer(mut words: Words<'_>) -> Result<Bytes, Wrong> {
    let mut addrs = Vec::new();
    while let Some(addr) = words.take_if::<Addr>() {
        addrs.push(encode(addr));
    }
    let mut known = Vec::new();
    while let Some(one) = words.take_if::<Known>() {
        known.push(one);
    }
    let prediction = words.take_if().unwrap_or_default();
    words.done()?;
    let behaviors = Behaviors::of(|class| {
        let found = known.iter().find(|one| one.class == class);
        found.map_or(Behavior::UNKNOWN, |one| one.behavior)
    });
    Ok(PunchMessage::Connect { addrs, behaviors, prediction }.encode())
}

/// What is known of one class.
struct Known {
    class: Class,
    behavior: Behavior,
}

impl Word for Known {
    const EXPECTED: &'static str = "a class and its behaviour such as ip4/tcp:none:none";

    fn read(word: &str) -> Option<Known> {
        let mut parts = word.split(':');
        let (class, mapping, filtering) = (parts.next()?, parts.next()?, parts.next()?);
        let class = Class::ALL.into_iter().find(|one| one.to_string() == class)?;
        let mapping = [
            MappingBehavior::None,
            MappingBehavior::EndpointIndependent,
            MappingBehavior::AddressDependent,
            MappingBehavior::AddressAndPortDependent,
        ]
        .into_iter()
        .find(|one| one.name() == mapping)?;
        let filtering = [
            FilteringBehavior::Unknown,
            FilteringBehavior::None,
            FilteringBehavior::EndpointIndependent,
            FilteringBehavior::AddressDependent,
            FilteringBehavior::AddressAndPortDependent,
        ]
        .into_iter()
        .find(|one| one.name() == filtering)?;
        Some(Known { class, behavior: Behavior { mapping, filtering } })
    }
}

impl Word for Prediction {
    const EXPECTED: &'static str = "predicts, or what is predicted such as ip4/tcp:5000:+1:32";

    fn read(word: &str) -> Option<Prediction> {
        if word == "predicts" {
            return Some(Prediction::TakesPart);
        }
        let mut parts = word.split(':');
        let class = parts.next()?;
        let class = Class::ALL.into_iter().find(|one| one.to_string() == class)?;
        let (first, step) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let count = parts.next()?.parse().ok()?;
        Some(Prediction::Ports(PredictedPorts { class, first, step, count }))
    }
}

impl Word for PunchId {
    const EXPECTED: &'static str = "a dial of an attempt such as p1";

    fn read(word: &str) -> Option<PunchId> {
        word.strip_prefix('p')?.parse().ok().map(PunchId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prediction_is_read_and_nothing_else() {
        let read = <Prediction as Word>::read;
        assert_eq!(read("predicts"), Some(Prediction::TakesPart));
        let class = Class::ALL[0];
        let ports = PredictedPorts { class, first: 5_000, step: -2, count: 32 };
        assert_eq!(read("ip4/tcp:5000:-2:32"), Some(Prediction::Ports(ports)));
        for wrong in ["ip4/tcp", "ip4/tcp:5000", "ip4/tcp:5000:1", "ip5/tcp:1:1:1", "foretells"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_behaviour_is_read_and_nothing_else() {
        let known = Known::read("ip6/quic:address-dependent:unknown").expect("a behaviour");
        assert_eq!(known.class.to_string(), "ip6/quic");
        assert_eq!(known.behavior.mapping, MappingBehavior::AddressDependent);
        for wrong in ["ip4/tcp", "ip4/tcp:none", "ip4/tcp:none:some", "ip5/tcp:none:none"] {
            assert!(Known::read(wrong).is_none(), "{wrong}");
        }
    }
}
