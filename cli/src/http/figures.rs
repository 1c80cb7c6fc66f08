//! `/metrics`: what a server did and turned away, for Prometheus (OpenMetrics text).
//!
//! What happened is counted from the node's notices; what stands is read when somebody asks.

use super::status::load;
use super::{Answer, document, text};
use hyper::StatusCode;
use portolan_core::{Notice, Oddity, RelayNotice, RelayStatus, Served};
use portolan_runtime::Load;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicU64;

/// Bounds of the buckets of the time to answer, seconds; ours: from a dial on the same host to what a
/// client waits for at most.
const ANSWER_BUCKETS: [f64; 12] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0];

type Labels<const N: usize> = [(&'static str, &'static str); N];
type Counts<const N: usize> = Family<Labels<N>, Counter>;

/// All figures of a server.
pub(crate) struct Figures {
    registry: Registry,
    dial_backs_max: usize,
    requests: Counts<1>,
    answers: Histogram,
    refusals: Counts<2>,
    reservations_granted: Counts<1>,
    circuits_opened: Counter,
    circuit_bytes: Counts<1>,
    dropped: Counts<1>,
    oddities: Counter,
    missed: Counter,
    http: Family<[(&'static str, String); 2], Counter>,
    fully_connected: Gauge,
    connections: Gauge,
    dial_backs: Gauge,
    reservations: Gauge,
    circuits: Gauge,
    load: Gauge<f64, AtomicU64>,
    uptime: Gauge,
    /// What the node turned away, as it was last read: counters only grow.
    turned_away: std::sync::Mutex<portolan_runtime::Dropped>,
}

impl Figures {
    /// All of them at zero.
    pub(crate) fn new(dial_backs_max: usize) -> Figures {
        let mut figures = Figures {
            registry: Registry::with_prefix("portolan"),
            dial_backs_max,
            requests: Family::default(),
            answers: Histogram::new(ANSWER_BUCKETS),
            refusals: Family::default(),
            reservations_granted: Family::default(),
            circuits_opened: Counter::default(),
            circuit_bytes: Family::default(),
            dropped: Family::default(),
            oddities: Counter::default(),
            missed: Counter::default(),
            http: Family::default(),
            fully_connected: Gauge::default(),
            connections: Gauge::default(),
            dial_backs: Gauge::default(),
            reservations: Gauge::default(),
            circuits: Gauge::default(),
            load: Gauge::default(),
            uptime: Gauge::default(),
            turned_away: std::sync::Mutex::default(),
        };
        figures.register();
        figures.begin_at_zero();
        figures
    }

    fn register(&mut self) {
        let all = &mut self.registry;
        let what = "Dial requests of others that were answered, by outcome";
        all.register("dial_requests", what, self.requests.clone());
        let what = "From the opening of a dial request's stream to its answer";
        all.register_with_unit("dial_request_answer", what, Unit::Seconds, self.answers.clone());
        let what = "What others asked for in vain, by service and reason";
        all.register("refusals", what, self.refusals.clone());
        let what = "Reservations granted, new and renewed";
        all.register("reservations_granted", what, self.reservations_granted.clone());
        all.register("circuits_opened", "Circuits opened", self.circuits_opened.clone());
        let what = "Bytes passed over circuits that have ended, by direction";
        all.register_with_unit("circuit", what, Unit::Bytes, self.circuit_bytes.clone());
        all.register("dropped", "What was dropped, by the limit it ran into", self.dropped.clone());
        all.register("ignored", "Events of peers that made no sense", self.oddities.clone());
        let what = "Notices that came too fast to be counted: other figures lack them";
        all.register("notices_missed", what, self.missed.clone());
        all.register("http_requests", "Requests over HTTP, by path and status", self.http.clone());
        let what = "1 once a peer of the cluster had itself dialled back by this server";
        all.register("fully_connected", what, self.fully_connected.clone());
        all.register("connections", "Connections with peers", self.connections.clone());
        all.register("dial_backs_in_flight", "Dial-backs in flight", self.dial_backs.clone());
        all.register("reservations", "Reservations that stand", self.reservations.clone());
        all.register("circuits", "Circuits that stand or are being opened", self.circuits.clone());
        all.register("load", "The fullest of all services, 0 to 1", self.load.clone());
        let what = "How long the server has been running";
        all.register_with_unit("uptime", what, Unit::Seconds, self.uptime.clone());
        // What programs read that do not know OpenMetrics has no type for it but this.
        let build: Family<Labels<1>, Gauge> = Family::default();
        build.get_or_create(&[("version", env!("CARGO_PKG_VERSION"))]).set(1);
        all.register("build_info", "The program", build);
    }

    /// What never happened is zero, which is more than nothing: rates have a beginning.
    fn begin_at_zero(&self) {
        for outcome in OUTCOMES {
            drop(self.requests.get_or_create(&[("outcome", outcome)]));
        }
        for direction in ["forth", "back"] {
            drop(self.circuit_bytes.get_or_create(&[("direction", direction)]));
        }
        for limit in ["connections", "per_peer", "per_source", "core"] {
            drop(self.dropped.get_or_create(&[("limit", limit)]));
        }
    }

    /// Count what a notice tells. `missed`: so many before it were lost.
    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "of all notices, these alone are about what is done for others"
    )]
    pub(crate) fn noticed(&self, notice: &Notice, missed: u64) {
        self.missed.inc_by(missed);
        if let Some((service, reason)) = refusal(notice) {
            self.refuse(service, reason);
        }
        match notice {
            Notice::DialBackServed { answer, took, .. } => {
                let outcome = outcome(*answer);
                self.requests.get_or_create(&[("outcome", outcome)]).inc();
                self.answers.observe(took.as_nanos() as f64 / 1e9);
            }
            Notice::FullyConnected { .. } => {
                self.fully_connected.set(1);
            }
            Notice::Ignored { oddity, .. } => {
                self.oddities.inc();
                if *oddity == Oddity::Full {
                    self.dropped.get_or_create(&[("limit", "core")]).inc();
                }
            }
            Notice::Relay(notice) => self.relayed(notice),
            _ => {}
        }
    }

    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "of all notices, these alone are about what is done for others"
    )]
    fn relayed(&self, notice: &RelayNotice) {
        match notice {
            RelayNotice::Granted { renewed, .. } => {
                let kind = if *renewed { "renewed" } else { "new" };
                self.reservations_granted.get_or_create(&[("kind", kind)]).inc();
            }
            RelayNotice::BridgeOpened { .. } => {
                self.circuits_opened.inc();
            }
            RelayNotice::BridgeEnded { forth, back, .. } => {
                self.circuit_bytes.get_or_create(&[("direction", "forth")]).inc_by(*forth);
                self.circuit_bytes.get_or_create(&[("direction", "back")]).inc_by(*back);
            }
            _ => {}
        }
    }

    fn refuse(&self, service: &'static str, reason: &'static str) {
        self.refusals.get_or_create(&[("service", service), ("reason", reason)]).inc();
    }

    /// Count a request over HTTP. Paths are those that are known, so that nobody can make up more.
    pub(crate) fn asked(&self, path: &'static str, status: StatusCode) {
        let status = status.as_u16().to_string();
        self.http.get_or_create(&[("path", path.to_owned()), ("status", status)]).inc();
    }

    /// All figures as text.
    pub(crate) fn answer(&self, node: &Load, uptime_s: u64) -> Answer {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.connections.set(number(node.connections));
        self.dial_backs.set(number(node.dial_backs));
        let relay = node.relay.unwrap_or_default();
        self.reservations.set(number(relay.reservations));
        self.circuits.set(number(relay.circuits));
        self.load.set(f64::from(load(node, self.dial_backs_max)) / 1_000.0);
        self.uptime.set(i64::try_from(uptime_s).unwrap_or(i64::MAX));
        self.turn_away(node);
        let mut written = String::new();
        if encode(&mut written, &self.registry).is_err() {
            return text(StatusCode::INTERNAL_SERVER_ERROR, "the figures cannot be written\n");
        }
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        document(StatusCode::OK, kind, written)
    }

    fn turn_away(&self, node: &Load) {
        let mut before = self.turned_away.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let now = node.dropped;
        for (limit, before, now) in [
            ("connections", before.connections, now.connections),
            ("per_peer", before.per_peer, now.per_peer),
            ("per_source", before.per_source, now.per_source),
        ] {
            let counter = self.dropped.get_or_create(&[("limit", limit)]);
            counter.inc_by(now.saturating_sub(before));
        }
        *before = now;
    }
}

const OUTCOMES: [&str; 8] = [
    "delivered",
    "connected",
    "dial_failed",
    "dial_back_failed",
    "refused",
    "rejected",
    "internal_error",
    "aborted",
];

pub(super) fn outcome(served: Served) -> &'static str {
    match served {
        Served::Delivered => "delivered",
        Served::Connected => "connected",
        Served::DialFailed => "dial_failed",
        Served::DialBackFailed => "dial_back_failed",
        Served::Refused => "refused",
        Served::Rejected => "rejected",
        Served::InternalError => "internal_error",
        Served::Aborted => "aborted",
        _ => "other",
    }
}

/// Which service refused what a notice is about, and why; none if it is about no refusal.
pub(super) fn refusal(notice: &Notice) -> Option<(&'static str, &'static str)> {
    if let Notice::DialBackServed { answer, .. } = notice {
        return match answer {
            Served::Refused => Some(("dial-back", "no address that can be dialled")),
            Served::Rejected => Some(("dial-back", "a limit is reached")),
            Served::Delivered | Served::Connected | Served::Aborted => None,
            Served::DialFailed | Served::DialBackFailed | Served::InternalError | _ => None,
        };
    }
    let Notice::Relay(RelayNotice::Refused { target, status, .. }) = notice else { return None };
    let service = if target.is_some() { "circuit" } else { "reservation" };
    Some((service, reason(*status)))
}

fn reason(status: RelayStatus) -> &'static str {
    match status {
        RelayStatus::ReservationRefused => "reservation refused",
        RelayStatus::ResourceLimitExceeded => "a limit is reached",
        RelayStatus::PermissionDenied => "permission denied",
        RelayStatus::ConnectionFailed => "the target could not be reached",
        RelayStatus::NoReservation => "the target has no reservation",
        RelayStatus::MalformedMessage => "malformed message",
        RelayStatus::UnexpectedMessage => "unexpected message",
        RelayStatus::Unused | RelayStatus::Ok | RelayStatus::Unknown(_) | _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_core::{BridgeEnd, Duration, PeerId, RelayLoad};

    #[test]
    fn figures_are_those_of_the_notices() {
        let figures = Figures::new(8);
        let peer = PeerId::random();
        let took = Duration::from_millis(30);
        for answer in [Served::Delivered, Served::Delivered, Served::Rejected] {
            figures.noticed(&Notice::DialBackServed { peer, addr: None, answer, took }, 0);
        }
        let status = RelayStatus::NoReservation;
        let refused = RelayNotice::Refused { peer, target: Some(peer), status };
        let ended = RelayNotice::BridgeEnded {
            initiator: peer,
            target: peer,
            end: BridgeEnd::Finished,
            overtime: false,
            forth: 7,
            back: 9,
        };
        for notice in [refused, ended] {
            figures.noticed(&Notice::Relay(notice), 2);
        }
        figures.asked("/status", StatusCode::OK);
        let mut load = Load::default();
        load.relay = Some(RelayLoad { reservations: 3, circuits: 1, thousandths: 250 });
        load.dropped.per_peer = 4;
        // Asking twice counts nothing twice.
        let _ = figures.answer(&load, 5);
        let answer = figures.answer(&load, 6);
        assert_eq!(answer.status(), StatusCode::OK);
        let mut text = String::new();
        encode(&mut text, &figures.registry).expect("it can be written");
        for line in [
            "portolan_dial_requests_total{outcome=\"delivered\"} 2",
            "portolan_dial_requests_total{outcome=\"aborted\"} 0",
            "portolan_dial_request_answer_seconds_count 3",
            "portolan_dial_request_answer_seconds_bucket{le=\"0.025\"} 0",
            "portolan_dial_request_answer_seconds_bucket{le=\"0.05\"} 3",
            "portolan_refusals_total{service=\"dial-back\",reason=\"a limit is reached\"} 1",
            "portolan_refusals_total{service=\"circuit\",reason=\"the target has no reservation\"} 1",
            "portolan_circuit_bytes_total{direction=\"forth\"} 7",
            "portolan_dropped_total{limit=\"per_peer\"} 4",
            "portolan_notices_missed_total 4",
            "portolan_http_requests_total{path=\"/status\",status=\"200\"} 1",
            "portolan_reservations 3",
            "portolan_load 0.25",
            "portolan_uptime_seconds 6",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line:?} in\n{text}");
        }
    }
}
