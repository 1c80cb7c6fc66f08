//! The last relay is lost: whoever said no while it served is asked again at once, since that may be
//! long over.

use super::*;
use portolan_core::RelayStatus;
use portolan_sim::world::{Refusal, RelayMood};

/// How long after a relay's death another one must serve: it is noticed within 13 s, one rests a
/// second more, and answers.
const FOUND_MAX: Duration = Duration::from_secs(16);

fn refusing(refusal: Refusal) -> RelayMood {
    RelayMood { refuses: Some(refusal), ..RelayMood::default() }
}

/// A client that holds the first of two relays; the second one has refused it for so long.
struct Scene {
    site: Site,
    client: NodeId,
}

impl Scene {
    fn new(mood: RelayMood, refused_for: Duration) -> Scene {
        let mut site = Site::new(11);
        for rtt in [30, 60] {
            let rtt = Duration::from_millis(rtt);
            site.relay(rtt, Transport::Tcp, RelayServerConfig::default());
        }
        site.world.set_relay_mood(site.relays[1], mood);
        let mut config = site.relay_config();
        config.need = RelayNeed::Always;
        let client = site.client(Link::with_latency(HOME), config);
        site.world.start(client);
        site.pass(refused_for);
        let scene = Scene { site, client };
        assert!(scene.is_served(0) && !scene.is_served(1));
        scene
    }

    fn is_served(&self, place: usize) -> bool {
        self.site.world.is_served(self.client, self.site.relays[place])
    }

    /// The second one admits again, for so long; then the first one dies.
    fn loses_the_first(&mut self, after: Duration) {
        self.site.pass(after);
        assert!(!self.is_served(1), "it still rests, or this shows nothing");
        self.site.world.kill(self.site.relays[0]);
        self.site.pass(FOUND_MAX);
        assert!(self.is_served(1), "{:?}", self.site.standings(self.client));
    }
}

#[test]
fn who_was_full_is_asked_again() {
    let full = Refusal::Newcomers(RelayStatus::ReservationRefused);
    // By then it rests for half an hour.
    let mut scene = Scene::new(refusing(full), seconds(7_200));
    scene.site.world.set_relay_mood(scene.site.relays[1], RelayMood::default());
    scene.loses_the_first(seconds(60));
}

#[test]
fn who_denied_is_asked_again() {
    let denied = Refusal::Everybody(RelayStatus::PermissionDenied);
    let mut scene = Scene::new(refusing(denied), seconds(600));
    scene.site.world.set_relay_mood(scene.site.relays[1], RelayMood::default());
    scene.loses_the_first(seconds(60));
}

#[test]
fn who_was_wound_down_is_dialled_again() {
    let denied = Refusal::Everybody(RelayStatus::ReservationRefused);
    let mut scene = Scene::new(refusing(denied), seconds(5));
    let second = scene.site.relays[1];
    scene.site.world.set_relay_mood(second, RelayMood::default());
    scene.site.world.drain(second);
    // It is found out, and rests for an hour, whatever becomes of it.
    scene.site.pass(seconds(1_200));
    scene.site.world.hang_up_all(second);
    scene.site.pass(seconds(1));
    scene.site.world.kill(second);
    scene.site.world.start_again(second);
    scene.loses_the_first(seconds(60));
}

#[test]
fn who_denied_a_renewal_is_asked_again_before_the_end() {
    let mut site = Site::new(11);
    let mut limits = RelayServerConfig::default();
    limits.reservation_lifetime = seconds(600);
    site.relay(Duration::from_millis(30), Transport::Tcp, limits);
    let mut config = site.relay_config();
    config.need = RelayNeed::Always;
    let client = site.client(Link::with_latency(HOME), config);
    site.world.start(client);
    site.pass(seconds(2));
    let denied = refusing(Refusal::Everybody(RelayStatus::PermissionDenied));
    site.world.set_relay_mood(site.relays[0], denied);
    // Three quarters of the lifetime are over: it has denied a renewal.
    site.pass(seconds(455));
    site.world.set_relay_mood(site.relays[0], RelayMood::default());
    for _ in 0..600 {
        assert!(site.world.is_served(client, site.relays[0]), "{:?}", site.standings(client));
        site.pass(seconds(1));
    }
}

#[test]
fn a_rest_ends_soon_while_nobody_serves() {
    let full = Refusal::Newcomers(RelayStatus::ReservationRefused);
    let mut scene = Scene::new(refusing(full), seconds(7_200));
    scene.site.world.kill(scene.site.relays[0]);
    scene.site.pass(seconds(3_600));
    scene.site.world.set_relay_mood(scene.site.relays[1], RelayMood::default());
    scene.site.pass(seconds(80));
    assert!(scene.is_served(1), "a minute, and a quarter of one");
}
