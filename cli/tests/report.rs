//! The report as documents and as text, from made-up explanations. The JSON form is stable: a
//! change here is a change of `docs/cli.md` and `docs/report.schema.json`.

mod support;

use portolan::{PeerFate, PeerReport, Report, Timeline};
use portolan_core::{
    Addr, AddressExplanation, CircuitLimit, Class, ClassExplanation, DistantExplanation, Duration,
    Explanation, Family, FilteringBehavior, HearsayAnswer, HearsayServer, Instant, Lease, Mapping,
    MappingBehavior, MappingProtocol, MappingReason, MappingState, NodeState, Outcome, PeerId,
    Reason, Relay, RelayFailure, RelayState, Scope, ServerExplanation, Source, Sources, State,
    Transport,
};
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use support::schema::{assert_report, problems, report_schema};

const CLIENT: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
const OTHER: &str = "12D3KooWGjMvSZ5rGzPxRpyZNsg6qrfeQfN8QrVEJ9CWLHVbqgFK";
const SERVER: &str = "12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo";

fn peer(text: &str) -> PeerId {
    text.parse().expect("a peer id")
}

/// A limited node: TCP proved by a contacted server, QUIC unreachable.
fn limited() -> Explanation {
    let ip = Ipv4Addr::new(192, 0, 2, 1).into();
    let mut explanation = Explanation::new(Instant::from_millis(1_250), peer(CLIENT));
    explanation.state = NodeState::Limited;
    explanation.reason = Reason::ProvedByContacted;
    explanation.settled = true;

    let mut tcp = ClassExplanation::new(Class::new(Family::Ip4, Transport::Tcp));
    tcp.state = NodeState::Limited;
    tcp.reason = Reason::ProvedByContacted;
    tcp.mapping = MappingBehavior::EndpointIndependent;
    let mut quic = ClassExplanation::new(Class::new(Family::Ip4, Transport::Quic));
    quic.state = NodeState::Private;
    quic.reason = Reason::DialFailed { servers: 1 };
    quic.filtering = FilteringBehavior::AddressAndPortDependent;
    explanation.classes = vec![tcp, quic];

    let mut proved = AddressExplanation::new(Addr::tcp(ip, 4001));
    proved.state = State::Reachable;
    proved.scope = Some(Scope::Contacted);
    proved.reason = Reason::ProvedByContacted;
    proved.sources = Sources::NONE.with(Source::Guess).with(Source::Observed);
    proved.proofs = 2;
    proved.proved_by = Some(peer(SERVER));
    proved.first_verdict_at = Some(Instant::from_millis(1_042));
    let mut failed = AddressExplanation::new(Addr::quic(ip, 4001));
    failed.state = State::Unreachable;
    failed.reason = Reason::DialFailed { servers: 1 };
    failed.sources = Sources::NONE.with(Source::Interface);
    failed.first_verdict_at = Some(Instant::from_millis(1_200));
    let mut open = AddressExplanation::new(Addr::quic(ip, 4002));
    open.reason = Reason::Probing;
    open.sources = Sources::NONE.with(Source::Configured);
    explanation.addresses = vec![proved, failed, open];

    let at = Addr::tcp(Ipv4Addr::new(198, 51, 100, 7).into(), 4001);
    let mut server = ServerExplanation::new(peer(SERVER), at);
    server.outcomes = vec![(Outcome::Proved, 2), (Outcome::DialFailed, 1), (Outcome::Declined, 1)];
    explanation.servers = vec![server];
    let mut distant = DistantExplanation::new(peer(OTHER), peer(SERVER));
    distant.outcomes = vec![(Outcome::DialFailed, 1)];
    distant.dial_data = 98_304;
    explanation.distant_servers = vec![distant];
    explanation.hearsay.state = NodeState::Private;
    let said = |answer| HearsayServer::new(peer(OTHER), at, answer);
    explanation.hearsay.servers =
        vec![said(HearsayAnswer::Unreachable), said(HearsayAnswer::Nothing)];
    explanation.mappings = mappings();
    explanation.relays = relays();
    explanation
}

/// One that is granted by a router which is itself behind another, and one that is not.
fn mappings() -> Vec<Mapping> {
    let ours = Ipv4Addr::new(192, 168, 1, 7).into();
    let external = Addr::tcp(Ipv4Addr::new(100, 64, 0, 7).into(), 4001);
    let lease = Lease {
        router: Ipv4Addr::new(192, 168, 1, 1).into(),
        protocol: MappingProtocol::Pcp,
        external,
        lifetime: Some(Duration::from_secs(7_200)),
    };
    let granted = Mapping {
        internal: Addr::tcp(ours, 4001),
        state: MappingState::Granted,
        reason: MappingReason::GatewayBehindNat { external: external.ip },
        lease: Some(lease),
    };
    let failed = Mapping {
        internal: Addr::quic(ours, 4001),
        state: MappingState::Failed,
        reason: MappingReason::Silent,
        lease: None,
    };
    vec![granted, failed]
}

/// One that took us in, and one that has no room.
fn relays() -> Vec<Relay> {
    let ip = Ipv4Addr::new(198, 51, 100, 9).into();
    let second = Duration::from_secs(1);
    let reserved = Relay {
        peer: peer(SERVER),
        state: RelayState::Reserved,
        failure: None,
        rtt: Some(Duration::from_millis(84)),
        load: Some(500),
        until: Some(Instant::from_millis(1_250) + second * 3_600),
        limit: CircuitLimit { duration: Some(second * 120), bytes: Some(131_072) },
        addrs: vec![Addr::tcp(ip, 4001)],
    };
    let resting = Relay {
        peer: peer(OTHER),
        state: RelayState::Resting,
        failure: Some(RelayFailure::Full),
        rtt: None,
        load: None,
        until: Some(Instant::from_millis(61_250)),
        limit: CircuitLimit::default(),
        addrs: Vec::new(),
    };
    vec![reserved, resting]
}

fn report() -> Report {
    let mut timeline = Timeline::new();
    timeline.push(Instant::from_millis(1_000), "dialling");
    timeline.push(Instant::from_millis(1_042), "proved");
    let mut unreachable = PeerReport::new("/ip4/198.51.100.8/tcp/1");
    unreachable.fate = PeerFate::Failed("nothing answered in time".into());
    let mut server = PeerReport::new("/ip4/198.51.100.7/tcp/4001");
    server.fate = PeerFate::Server(peer(SERVER));
    Report::new(&limited(), Instant::from_millis(1_000), &timeline, vec![server, unreachable])
}

/// What AutoNAT v1 servers said.
fn hearsay() -> Value {
    json!({
        "reachability": "private",
        "servers": [
            { "peer_id": OTHER, "address": "/ip4/198.51.100.7/tcp/4001",
              "answer": "unreachable" },
            { "peer_id": OTHER, "address": "/ip4/198.51.100.7/tcp/4001",
              "answer": "nothing" },
        ],
    })
}

#[test]
fn the_document_has_exactly_the_documented_form() {
    let document = serde_json::to_value(report()).expect("a report is JSON");
    let expected = json!({
        "peer_id": CLIENT,
        "reachability": "limited",
        "reason": "a contacted server dialled back; strangers untested",
        "elapsed_ms": 250,
        "classes": [
            { "family": "ip4", "transport": "tcp", "reachability": "limited",
              "reason": "a contacted server dialled back; strangers untested" },
            { "family": "ip4", "transport": "quic", "reachability": "private",
              "reason": "1 server could not dial it" },
        ],
        "addresses": [
            { "address": "/ip4/192.0.2.1/tcp/4001", "verdict": "reachable", "scope": "contacted",
              "reason": "a contacted server dialled back; strangers untested",
              "sources": ["observed", "guess"], "proofs": 2, "first_verdict_ms": 42 },
            { "address": "/ip4/192.0.2.1/udp/4001/quic-v1", "verdict": "unreachable",
              "scope": null, "reason": "1 server could not dial it", "sources": ["interface"],
              "proofs": 0, "first_verdict_ms": 200 },
            { "address": "/ip4/192.0.2.1/udp/4002/quic-v1", "verdict": "unknown", "scope": null,
              "reason": "a probe is in flight", "sources": ["configured"], "proofs": 0,
              "first_verdict_ms": null },
        ],
        "nat": [
            { "family": "ip4", "transport": "tcp", "mapping": "endpoint-independent",
              "filtering": "unknown" },
            { "family": "ip4", "transport": "quic", "mapping": "unknown",
              "filtering": "address-and-port-dependent" },
        ],
        "mappings": [
            { "internal": "/ip4/192.168.1.7/tcp/4001", "state": "granted",
              "reason": "mapped, but the router itself is behind 100.64.0.7",
              "external": "/ip4/100.64.0.7/tcp/4001", "protocol": "pcp",
              "router": "192.168.1.1", "lifetime_s": 7200 },
            { "internal": "/ip4/192.168.1.7/udp/4001/quic-v1", "state": "failed",
              "reason": "the gateway answers no mapping protocol", "external": null,
              "protocol": null, "router": null, "lifetime_s": null },
        ],
        "relays": [
            { "peer_id": SERVER, "state": "reserved", "reason": null, "latency_ms": 84,
              "expires_s": 3600, "limit_s": 120, "limit_bytes": 131_072,
              "addresses": [format!("/ip4/198.51.100.9/tcp/4001/p2p/{SERVER}/p2p-circuit/p2p/{CLIENT}")] },
            { "peer_id": OTHER, "state": "resting", "reason": "it has no room", "latency_ms": null,
              "expires_s": null, "limit_s": null, "limit_bytes": null, "addresses": [] },
        ],
        "servers": [
            { "peer_id": SERVER, "address": "/ip4/198.51.100.7/tcp/4001",
              "outcomes": { "proved": 2, "dial_failed": 1, "refused": 0, "rejected": 0, "error": 0,
                            "dial_back_error": 0, "timeout": 0, "lie": 0 } },
        ],
        "hearsay": hearsay(),
        "distant_servers": [
            { "peer_id": OTHER, "relay": SERVER, "dial_data_bytes": 98_304,
              "outcomes": { "proved": 0, "dial_failed": 1, "refused": 0, "rejected": 0, "error": 0,
                            "dial_back_error": 0, "timeout": 0, "lie": 0 } },
        ],
        "bootstrap": [],
        "timeline": [
            { "at_ms": 0, "what": "dialling" },
            { "at_ms": 42, "what": "proved" },
        ],
    });
    assert_eq!(document, expected, "{document:#}");
    assert_report(&document);
    assert_report(&expected);
}

#[test]
fn the_keys_come_in_the_documented_order() {
    let text = serde_json::to_string(&report()).expect("a report is JSON");
    let keys = ["peer_id", "reachability", "reason", "elapsed_ms", "classes", "addresses", "nat"];
    let places: Vec<_> = keys.iter().map(|key| text.find(&format!("\"{key}\":"))).collect();
    assert!(places.is_sorted() && places[0] == Some(1), "{places:?}");
}

#[test]
fn another_form_is_noticed() {
    let schema = report_schema();
    let good = serde_json::to_value(report()).expect("a report is JSON");
    let spoil = |pointer: &str, value: Value| {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).expect("it is there") = value;
        problems(&schema, &bad)
    };
    assert_eq!(spoil("/elapsed_ms", json!(-1)), ["$.elapsed_ms: -1 is below 0"]);
    assert_eq!(spoil("/addresses/0/proofs", json!("2")).len(), 1);
    assert_eq!(spoil("/addresses/1/scope", json!("nowhere")).len(), 1);
    assert_eq!(spoil("/nat/0", json!({})).len(), 4);
    let mut more = good.clone();
    more["extra"] = json!(1);
    assert_eq!(problems(&schema, &more), ["$: \"extra\" is not documented"]);
}

#[test]
fn the_exit_code_says_the_verdict() {
    for (state, code) in [
        (NodeState::Public, 0),
        (NodeState::Limited, 13),
        (NodeState::Private, 11),
        (NodeState::Unknown, 12),
    ] {
        let mut explanation = limited();
        explanation.state = state;
        explanation.relays.clear();
        let report = Report::new(&explanation, Instant::ZERO, &Timeline::new(), Vec::new());
        assert_eq!(report.exit_code(), code);
        assert!(report.to_string().to_lowercase().starts_with(state.name()));
    }
}

#[test]
fn hearsay_is_no_verdict() {
    for state in [NodeState::Public, NodeState::Private] {
        let mut explanation = limited();
        explanation.state = state;
        explanation.reason = Reason::Hearsay;
        explanation.hearsay.state = state;
        let report = Report::new(&explanation, Instant::ZERO, &Timeline::new(), Vec::new());
        assert_eq!(report.exit_code(), 12, "nothing is proved");
        let text = report.to_string();
        assert!(text.starts_with("Unknown: nothing is proved, either way (hearsay"), "{text}");
        let heard = format!("which proves nothing: {}", state.name());
        assert!(text.contains(&heard), "{text}");
        let document = serde_json::to_value(&report).expect("a report is JSON");
        assert_eq!(document["reachability"], "unknown");
        assert_eq!(document["hearsay"]["reachability"], state.name());
        assert_report(&document);
    }
}

#[test]
fn who_is_private_and_led_to_is_relayed() {
    let mut explanation = limited();
    explanation.state = NodeState::Private;
    let report = Report::new(&explanation, Instant::ZERO, &Timeline::new(), Vec::new());
    assert_eq!(report.exit_code(), 10);
    assert!(report.to_string().starts_with("Relayed: "));
}

#[test]
fn people_read_sentences_and_tables() {
    let text = report().to_string();
    let expected = format!(
        "\
Limited: this node can be dialled, but perhaps not by strangers (a contacted server dialled back; strangers untested).
{CLIENT} after 250 ms.

Addresses
  address                          verdict      scope      how learnt       proved by             when
  /ip4/192.0.2.1/tcp/4001          reachable    contacted  observed, guess  …kSCVe2Xo and 1 more  42 ms
  /ip4/192.0.2.1/udp/4001/quic-v1  unreachable  -          interface        -                     200 ms
      because: 1 server could not dial it
  /ip4/192.0.2.1/udp/4002/quic-v1  unknown      -          configured       -                     -
      because: a probe is in flight

NAT and firewall
  class     reachability  mapping               filtering                   because
  ip4/tcp   limited       endpoint-independent  unknown                     a contacted server dialled back; strangers untested
  ip4/quic  private       unknown               address-and-port-dependent  1 server could not dial it

Mapped ports
  ours                               outside                   protocol  because
  /ip4/192.168.1.7/tcp/4001          /ip4/100.64.0.7/tcp/4001  pcp       mapped, but the router itself is behind 100.64.0.7
  /ip4/192.168.1.7/udp/4001/quic-v1  -                         -         the gateway answers no mapping protocol

Relays
  relay                                                 state     latency  ends in  a circuit may
  {SERVER}  reserved  84 ms    3600 s   last 120 s, carry 131,072 bytes each way
      give to others: /ip4/198.51.100.9/tcp/4001/p2p/{SERVER}/p2p-circuit/p2p/{CLIENT}
  {OTHER}  resting   -        -        -
      because: it has no room

Servers
  server                                                address                     what it said
  {SERVER}  /ip4/198.51.100.7/tcp/4001  proved 2, dial failed 1

Hearsay (AutoNAT v1), which proves nothing: private
  server                                                address                     it says that we are
  {OTHER}  /ip4/198.51.100.7/tcp/4001  unreachable
  {OTHER}  /ip4/198.51.100.7/tcp/4001  -

Servers asked through relays, whether strangers get in
  server                                                relay                                                 dial data     what it said
  {OTHER}  {SERVER}  98,304 bytes  dial failed 1

Other peers
  peer                     what became of it
  /ip4/198.51.100.8/tcp/1  not reached: nothing answered in time
"
    );
    assert_eq!(text, expected, "\n{text}");
}

#[test]
fn a_report_without_anything_says_so() {
    let explanation = Explanation::new(Instant::ZERO, peer(CLIENT));
    let report = Report::new(&explanation, Instant::ZERO, &Timeline::new(), Vec::new());
    let text = report.to_string();
    for line in [
        "Unknown: nothing is proved, either way (nothing has happened yet).",
        "  none is known that others could dial",
        "  nothing is listened on",
        "  no peer offers to dial back (AutoNAT v2)",
    ] {
        assert!(text.lines().any(|found| found == line), "{text}");
    }
    assert_report(&serde_json::to_value(&report).expect("a report is JSON"));
}
