//! Circuits through relays, honest and not: they become connections of both, carry bytes, and end
//! when their limit says so.

use super::*;
use portolan_core::{BridgeEnd, CircuitFailure, CircuitId, CircuitLimit, ConnId, RelayStatus};
use portolan_sim::world::{CallEnd, Refusal, RelayMood};

/// What a call may take.
const CALL: Duration = Duration::from_secs(3);

/// A client behind a NAT that is reserved at one relay, and a stranger.
struct Scene {
    site: Site,
    client: NodeId,
    stranger: NodeId,
    /// The last call.
    last: CircuitId,
}

impl Scene {
    fn new(transport: Transport, limit: CircuitLimit, mood: RelayMood) -> Scene {
        let mut site = Site::new(7);
        let mut limits = RelayServerConfig::default();
        limits.limit = limit;
        limits.reservation_lifetime = seconds(120);
        site.relay(Duration::from_millis(40), transport, limits);
        site.world.set_relay_mood(site.relays[0], mood);
        let mut config = site.relay_config();
        config.need = RelayNeed::Always;
        let client = site.client(Link::with_latency(HOME), config);
        let stranger = site.stranger();
        site.world.start(client);
        site.pass(seconds(2));
        Scene { site, client, stranger, last: CircuitId(0) }
    }

    fn is_served(&self) -> bool {
        self.site.world.is_served(self.client, self.site.relays[0])
    }

    fn call(&mut self) -> Option<CallEnd> {
        let relay = (self.site.peer(self.site.relays[0]), self.site.addrs[0]);
        let peer = self.site.peer(self.client);
        self.last = self.site.world.call(self.stranger, relay, peer);
        self.site.pass(CALL);
        self.site.world.called(self.stranger, self.last)
    }

    fn connected(&mut self) -> ConnId {
        match self.call() {
            Some(CallEnd::Connected(conn)) => conn,
            other => panic!("no connection, but {other:?}"),
        }
    }

    /// The client's end of the circuit.
    fn at_client(&self) -> Option<ConnId> {
        self.site.world.circuits_of(self.client).next()
    }

    /// How the last bridge ended: why, whether its time was over, and what was passed.
    fn bridge_end(&self) -> Option<(BridgeEnd, bool, u64, u64)> {
        self.site.world.notices().iter().rev().find_map(|told| {
            let Notice::Relay(RelayNotice::BridgeEnded { end, overtime, forth, back, .. }) =
                told.notice
            else {
                return None;
            };
            Some((end, overtime, forth, back))
        })
    }
}

const FREE: CircuitLimit = CircuitLimit { duration: None, bytes: None };

#[test]
fn a_circuit_becomes_a_connection_of_both() {
    for transport in BOTH {
        let mut scene = Scene::new(transport, FREE, RelayMood::default());
        assert!(scene.is_served());
        let conn = scene.connected();
        let far = scene.at_client().expect("the client has it too");
        scene.site.world.pour(scene.stranger, conn, 100_000);
        scene.site.world.pour(scene.client, far, 70_000);
        scene.site.pass(seconds(1));
        assert_eq!(scene.site.world.poured(scene.client, far), Some(100_000));
        assert_eq!(scene.site.world.poured(scene.stranger, conn), Some(70_000));
        scene.site.world.hang_up(scene.stranger, conn);
        scene.site.pass(seconds(1));
        assert_eq!(scene.at_client(), None, "the other end hears of it");
        let (end, overtime, forth, back) = scene.bridge_end().expect("the relay hears of it");
        assert_eq!((end, overtime), (BridgeEnd::Finished, false));
        assert!(forth > 100_000 && back > 70_000, "hands were shaken, and peers identified");
    }
}

#[test]
fn a_relay_that_dies_takes_its_circuits_along() {
    let mut scene = Scene::new(Transport::Tcp, FREE, RelayMood::default());
    let conn = scene.connected();
    scene.site.world.kill(scene.site.relays[0]);
    scene.site.pass(seconds(60));
    assert_eq!(scene.at_client(), None);
    assert_eq!(scene.site.world.poured(scene.stranger, conn), None, "it is gone");
    assert!(scene.site.believed(scene.client).is_empty());
    scene.site.world.start_again(scene.site.relays[0]);
    scene.site.pass(seconds(120));
    assert!(scene.is_served(), "and it is found again");
    scene.connected();
}

#[test]
fn bytes_beyond_the_limit_cut_a_circuit() {
    let limit = CircuitLimit { bytes: Some(50_000), duration: None };
    let mut scene = Scene::new(Transport::Tcp, limit, RelayMood::default());
    let conn = scene.connected();
    let far = scene.at_client().expect("the client has it too");
    scene.site.world.pour(scene.stranger, conn, 40_000);
    scene.site.pass(seconds(1));
    assert_eq!(scene.site.world.poured(scene.client, far), Some(40_000));
    scene.site.world.pour(scene.stranger, conn, 40_000);
    scene.site.pass(seconds(1));
    let (end, _, forth, _) = scene.bridge_end().expect("it is cut");
    assert_eq!((end, forth), (BridgeEnd::BytesUsedUp, 50_000), "to the byte");
    assert_eq!(scene.at_client(), None);
}

#[test]
fn a_circuit_is_cut_when_its_time_is_over() {
    let limit = CircuitLimit { bytes: None, duration: Some(seconds(20)) };
    let mut scene = Scene::new(Transport::Quic, limit, RelayMood::default());
    scene.connected();
    scene.site.pass(seconds(16));
    assert!(scene.at_client().is_some());
    scene.site.pass(seconds(4));
    assert_eq!(scene.at_client(), None);
    let (end, overtime, ..) = scene.bridge_end().expect("it is cut");
    assert_eq!((end, overtime), (BridgeEnd::Cut, true));
}

#[test]
fn a_relay_may_lie_about_its_limits() {
    let told = CircuitLimit { bytes: Some(1 << 30), duration: None };
    let mood = RelayMood { tells_limit: Some(told), ..RelayMood::default() };
    let limit = CircuitLimit { bytes: Some(20_000), duration: None };
    let mut scene = Scene::new(Transport::Tcp, limit, mood);
    let agent = scene.site.world.node(scene.client).agent();
    assert_eq!(agent.relays().next().map(|relay| relay.limit), Some(told));
    let conn = scene.connected();
    scene.site.world.pour(scene.stranger, conn, 30_000);
    scene.site.pass(seconds(1));
    assert_eq!(scene.bridge_end().map(|end| end.0), Some(BridgeEnd::BytesUsedUp));
}

#[test]
fn a_relay_may_say_yes_and_pass_nothing() {
    let mood = RelayMood { swallows: true, ..RelayMood::default() };
    let mut scene = Scene::new(Transport::Tcp, FREE, mood);
    assert_eq!(scene.site.believed(scene.client), [0], "it cannot know");
    assert!(!scene.is_served());
    assert_eq!(scene.call(), None, "hands are still shaken");
    scene.site.pass(seconds(10));
    let ended = scene.site.world.called(scene.stranger, scene.last);
    assert_eq!(ended, Some(CallEnd::NotShaken));
    assert_eq!(scene.at_client(), None);
}

#[test]
fn a_relay_may_keep_a_reservation_shorter_than_it_says() {
    let mood = RelayMood { tells_lifetime: Some(seconds(7_200)), ..RelayMood::default() };
    let mut scene = Scene::new(Transport::Tcp, FREE, mood);
    assert!(scene.is_served());
    scene.site.pass(seconds(180));
    assert!(!scene.is_served(), "it was kept for two minutes");
    assert_eq!(scene.site.believed(scene.client), [0]);
    let gone = CallEnd::Failed(CircuitFailure::Refused(RelayStatus::NoReservation));
    assert_eq!(scene.call(), Some(gone));
}

#[test]
fn who_is_refused_holds_nothing() {
    for status in [RelayStatus::ReservationRefused, RelayStatus::PermissionDenied] {
        let refuses = Some(Refusal::Newcomers(status));
        let mood = RelayMood { refuses, ..RelayMood::default() };
        let mut scene = Scene::new(Transport::Tcp, FREE, mood);
        assert!(!scene.is_served());
        assert!(scene.site.believed(scene.client).is_empty());
        let gone = CallEnd::Failed(CircuitFailure::Refused(RelayStatus::NoReservation));
        assert_eq!(scene.call(), Some(gone));
    }
}

#[test]
fn who_holds_a_reservation_renews_it_while_the_relay_is_full() {
    let mut scene = Scene::new(Transport::Tcp, FREE, RelayMood::default());
    let refuses = Some(Refusal::Newcomers(RelayStatus::ReservationRefused));
    let mood = RelayMood { refuses, claims_load: Some(1_000), ..RelayMood::default() };
    scene.site.world.set_relay_mood(scene.site.relays[0], mood);
    scene.site.pass(seconds(600));
    assert!(scene.is_served(), "five lifetimes later");
}

#[test]
fn a_relay_that_drains_serves_what_it_granted_and_no_more() {
    let mut scene = Scene::new(Transport::Tcp, FREE, RelayMood::default());
    scene.site.world.drain(scene.site.relays[0]);
    scene.site.pass(seconds(50));
    assert!(scene.is_served());
    scene.connected();
    scene.site.pass(seconds(80));
    assert!(!scene.is_served());
    assert!(scene.site.believed(scene.client).is_empty());
}
