//! Scripted bad peers: AutoNAT v2 servers that lie, refuse, stall or break the framing, and what
//! a client makes of them.
//!
//! The behaviours are those of the audit's mock servers and some that it lacks. What must come
//! out: only a matched nonce on a new inbound connection proves; only an honest-looking dial
//! failure speaks against an address; everything else says something about the server alone.

#![allow(clippy::print_stdout, reason = "seeds are told to whoever runs the tests")]

use futures::future::join_all;
use portolan_core::{Addr, Explanation, Notice, Outcome, Reason, State, Transport};
use portolan_runtime::traits::Runtime;
use portolan_tests::lab::Lab;
use portolan_tests::portolan_peer::{PortolanPeer, explained, on_one_host, outcomes};
use portolan_tests::scripted::{Answer, BadFrame, Behavior, DialBackTrick, Script, ScriptedServer};
use std::time::Duration;

/// Beyond every deadline of a probe: 15 s for the answer, two round trips, and some patience.
const WITHIN: Duration = Duration::from_secs(25);
const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

portolan_tests::on_every_runtime_at_once! {
    #[tokio::test(flavor = "multi_thread")]
    refusals_are_no_evidence,
    liars_never_confirm,
    a_nonce_at_a_wrong_address_proves_nothing,
    broken_frames_are_no_evidence,
    silence_is_no_evidence,
    dial_failures_from_everybody_refute,
    one_proof_decides,
    transports_are_judged_apart;
}

/// A client and the servers it met.
struct World<R: Runtime> {
    name: &'static str,
    client: PortolanPeer<R>,
    servers: Vec<ScriptedServer>,
}

impl<R: Runtime> World<R> {
    /// Start one server for each script, each on an IP of its own (a network of its own, by the
    /// rules of one host), and a client that connects to all of them over `transport`.
    async fn start<L: Lab<Runtime = R>>(
        lab: &L,
        name: &'static str,
        listen: &[&str],
        transport: Transport,
        scripts: Vec<Script>,
    ) -> World<R> {
        let seed = fresh_seed();
        println!("{name}: seed {seed}");
        let mut servers = Vec::new();
        for (number, script) in scripts.into_iter().enumerate() {
            let host = 10 + number;
            let addr = match transport {
                Transport::Tcp => format!("/ip4/127.0.0.{host}/tcp/0"),
                Transport::Quic => format!("/ip4/127.0.0.{host}/udp/0/quic-v1"),
            };
            let listen = vec![addr.parse().expect("a multiaddr")];
            let seed = seed.wrapping_add(number as u64);
            servers.push(ScriptedServer::start(listen, script, seed).await);
        }
        let client = PortolanPeer::start(lab.runtime(), on_one_host(), listen).await;
        World { name, client, servers }
    }

    /// Connect to every server at once.
    async fn connect(&self) {
        let dials = self.servers.iter().flat_map(ScriptedServer::full_addrs);
        let dials = dials.map(|addr| self.client.node.dial(addr));
        for dialled in join_all(dials).await {
            dialled.unwrap_or_else(|error| panic!("{}: {error}", self.name));
        }
    }

    /// The client's listen address of this transport.
    fn addr(&self, transport: Transport) -> Addr {
        let addr = self.client.addrs().into_iter().find(|addr| addr.transport == transport);
        addr.expect("the client listens there")
    }

    /// Wait until `count` probes of every server ended like this.
    async fn every_server(&self, outcome: Outcome) -> Explanation {
        let what = format!("{} from every server", outcome.name());
        let all = |explanation: &Explanation| {
            let ended =
                self.servers.iter().all(|server| outcomes(explanation, server.id(), outcome) > 0);
            ended.then(|| explanation.clone())
        };
        self.wait(&what, all).await
    }

    /// Wait until an address is in this state.
    async fn state(&self, addr: Addr, state: State) -> Explanation {
        let what = format!("{addr} {}", state.name());
        self.wait(&what, |explanation| {
            let one = explained(explanation, addr)?;
            (one.state == state).then(|| explanation.clone())
        })
        .await
    }

    async fn wait<T>(&self, what: &str, pick: impl FnMut(&Explanation) -> Option<T>) -> T {
        let waited = self.client.wait_explained(what, WITHIN, pick).await;
        waited.unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// No address was ever in this state, not even for a moment.
    fn never(&self, forbidden: State) {
        for notice in self.client.notices() {
            if let Notice::VerdictChanged { addr, state, reason, .. } = notice {
                assert_ne!(state, forbidden, "{}: {addr}: {reason}", self.name);
            }
        }
    }

    /// Nothing was proved and nothing refuted, and this is why.
    fn undecided(&self, explanation: &Explanation, reasons: &[Reason]) {
        self.never(State::Reachable);
        self.never(State::Unreachable);
        for addr in self.client.addrs() {
            let one = explained(explanation, addr);
            let one = one.unwrap_or_else(|| panic!("{}: {addr} is no candidate", self.name));
            assert_eq!(one.state, State::Unknown, "{}: {addr}", self.name);
            assert!(reasons.contains(&one.reason), "{}: {addr}: {:?}", self.name, one.reason);
        }
    }
}

fn fresh_seed() -> u64 {
    // `PORTOLAN_SEED` runs a failure again; what the kernel schedules stays its own.
    std::env::var("PORTOLAN_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(rand::random)
}

fn times(count: usize, behavior: &Behavior) -> Vec<Script> {
    vec![Script::from(behavior.clone()); count]
}

/// Servers that will not or cannot say anything about the address.
async fn refusals_are_no_evidence<L: Lab>(lab: &L) {
    let case = async |name, behavior: Behavior, outcome, reason| {
        let world = World::start(lab, name, &[TCP], Transport::Tcp, times(3, &behavior)).await;
        world.connect().await;
        let explanation = world.every_server(outcome).await;
        world.undecided(&explanation, &[reason]);
        assert!(explanation.servers.iter().all(|server| !server.distrusted), "{name}");
    };
    let unhelpful = Reason::ServersUnhelpful;
    join_all([
        case("reject", Behavior::REJECT, Outcome::Rejected, unhelpful),
        case("refuse", Behavior::REFUSE, Outcome::Refused, Reason::ServersRefused),
        case("internal-error", Behavior::INTERNAL_ERROR, Outcome::Error, unhelpful),
        case("unknown status", Behavior::Say(Answer::UNHEARD_OF), Outcome::Error, unhelpful),
        case("foreign index", Behavior::Say(Answer::OUT_OF_RANGE), Outcome::Error, unhelpful),
        case(
            "dial-back error",
            Behavior::Say(Answer::DIAL_BACK_ERROR),
            Outcome::DialBackError,
            unhelpful,
        ),
        case("absurd dial data", Behavior::AbsurdDialData, Outcome::Error, unhelpful),
    ])
    .await;
}

/// Servers that claim a success that was none lose their standing, and prove and refute nothing.
async fn liars_never_confirm<L: Lab>(lab: &L) {
    let case = async |name, behavior: Behavior| {
        let world = World::start(lab, name, &[TCP], Transport::Tcp, times(3, &behavior)).await;
        world.connect().await;
        let explanation = world.every_server(Outcome::Lie).await;
        world.undecided(&explanation, &[Reason::ServersDistrusted]);
        assert!(explanation.servers.iter().all(|server| server.distrusted), "{name}");
    };
    join_all([
        case("wrong-nonce", Behavior::WRONG_NONCE),
        case("no-dialback-msg", Behavior::NO_DIAL_BACK_MESSAGE),
        case("OK without dial-back", Behavior::OK_WITHOUT_DIAL_BACK),
        case("nonce on the existing connection", Behavior::NONCE_ON_EXISTING_CONNECTION),
    ])
    .await;
}

/// A nonce of one address that arrives at another proves neither.
async fn a_nonce_at_a_wrong_address_proves_nothing<L: Lab>(lab: &L) {
    // Asked over TCP about the TCP address, it delivers every nonce to the QUIC address, and so
    // about the QUIC address to the TCP address.
    let scripts = times(2, &Behavior::Timeout);
    let world = World::start(lab, "nonce elsewhere", &[TCP, QUIC], Transport::Tcp, scripts).await;
    let at = |index: usize| {
        // Without /p2p/, which the dial-back adds itself.
        let mut addr = world.client.full_addrs[index].clone();
        addr.pop();
        addr
    };
    for server in &world.servers {
        server.follow(Behavior::PerTransport {
            tcp: Box::new(Behavior::nonce_elsewhere(at(1))),
            quic: Box::new(Behavior::nonce_elsewhere(at(0))),
        });
    }
    world.connect().await;
    let explanation = world.every_server(Outcome::Lie).await;
    world.undecided(&explanation, &[Reason::ServersDistrusted, Reason::Probing]);
    let misplaced = |notice: &Notice| {
        let Notice::Ignored { oddity, .. } = notice else { return None };
        (*oddity == portolan_core::Oddity::MisplacedNonce).then_some(())
    };
    let told = world.client.wait_notice("misplaced nonce", WITHIN, misplaced).await;
    told.expect("it was delivered before the lie was noticed");
}

/// Frames that break a rule end the probe, not the connection.
async fn broken_frames_are_no_evidence<L: Lab>(lab: &L) {
    let case = async |name, frame: BadFrame| {
        let scripts = times(2, &Behavior::Break(frame));
        let world = World::start(lab, name, &[TCP], Transport::Tcp, scripts).await;
        world.connect().await;
        let explanation = world.every_server(Outcome::Error).await;
        world.undecided(&explanation, &[Reason::ServersUnhelpful]);
        for server in &world.servers {
            let connections = world.client.node.connections().await;
            let stays = connections.iter().any(|one| one.peer == server.id());
            assert!(stays, "{name}: only the stream is reset");
        }
    };
    join_all([
        case("oversized frame", BadFrame::Oversized),
        case("truncated frame", BadFrame::Truncated),
        case("garbage", BadFrame::Garbage),
        case("reset", BadFrame::Reset),
    ])
    .await;
}

/// Servers that keep the client waiting are given up, and the waiting is bounded.
async fn silence_is_no_evidence<L: Lab>(lab: &L) {
    let case = async |name, behavior: Behavior, transport, listen: &[&str]| {
        let world = World::start(lab, name, listen, transport, times(2, &behavior)).await;
        world.connect().await;
        let what = "an end of the waiting";
        let given_up = world.wait(what, |explanation| {
            let all = world.servers.iter().all(|server| {
                // A frame that drips in is cut off by the runtime or outlives the probe: which of
                // the two comes first does not matter.
                outcomes(explanation, server.id(), Outcome::Timeout) > 0
                    || outcomes(explanation, server.id(), Outcome::Error) > 0
            });
            all.then(|| explanation.clone())
        });
        world.undecided(&given_up.await, &[Reason::ServersUnhelpful]);
    };
    let slow = Behavior::Break(BadFrame::SlowLoris);
    join_all([
        case("timeout", Behavior::Timeout, Transport::Tcp, &[TCP]),
        case("timeout over QUIC", Behavior::Timeout, Transport::Quic, &[QUIC]),
        case("slow loris", slow.clone(), Transport::Tcp, &[TCP]),
        case("slow loris over QUIC", slow, Transport::Quic, &[QUIC]),
        case("stalled dial-back", Behavior::StalledDialBack, Transport::Tcp, &[TCP]),
    ])
    .await;
}

/// Dial failures from every server in reach refute, at once or late.
async fn dial_failures_from_everybody_refute<L: Lab>(lab: &L) {
    let unreachable = Behavior::FORCE_UNREACHABLE;
    let case = async |name, scripts: Vec<Script>, servers| {
        let world = World::start(lab, name, &[TCP], Transport::Tcp, scripts).await;
        world.connect().await;
        let addr = world.addr(Transport::Tcp);
        world.every_server(Outcome::DialFailed).await;
        // A server that was met late adds its failure to a verdict that stands already.
        let reason = Reason::DialFailed { servers };
        world
            .wait("a failure of every server in the reason", |explanation| {
                let one = explained(explanation, addr)?;
                (one.state == State::Unreachable && one.reason == reason).then_some(())
            })
            .await;
        world.never(State::Reachable);
    };
    let late = Script::from(unreachable.clone()).after(Duration::from_secs(5), Duration::ZERO);
    // The first answer counts, and a later claim of success changes nothing.
    let twice = Behavior::SayTwice(Answer::DIAL_ERROR, Answer::REACHED);
    join_all([
        case("force-unreachable", times(3, &unreachable), 3),
        case("delay of 5 s", vec![late.clone(), late], 2),
        case("two answers", times(2, &twice), 2),
    ])
    .await;
}

/// One proof decides, whatever the others say and whatever the prover says afterwards.
async fn one_proof_decides<L: Lab>(lab: &L) {
    let case = async |name, scripts: Vec<Script>, transport| {
        let listen = if transport == Transport::Tcp { TCP } else { QUIC };
        let world = World::start(lab, name, &[listen], transport, scripts).await;
        world.connect().await;
        let explanation = world.state(world.addr(transport), State::Reachable).await;
        let one = explained(&explanation, world.addr(transport)).expect("it is a candidate");
        assert!(one.proofs > 0, "{name}");
        world
    };
    let jitter = Script::from(Behavior::Honest).after(Duration::ZERO, Duration::from_secs(2));
    let and_then = |answer| Behavior::DialBack(DialBackTrick::None, answer);
    let mut majority = times(4, &Behavior::FORCE_UNREACHABLE);
    majority.push(Behavior::Honest.into());
    let mut mixed: Vec<Script> = [
        Behavior::OK_WITHOUT_DIAL_BACK,
        Behavior::WRONG_NONCE,
        Behavior::REJECT,
        Behavior::Timeout,
        Behavior::Break(BadFrame::Garbage),
    ]
    .map(Script::from)
    .to_vec();
    mixed.push(Behavior::Honest.into());
    let (tcp, quic) = (Transport::Tcp, Transport::Quic);
    let worlds = join_all([
        case("force-reachable", times(3, &Behavior::FORCE_REACHABLE), tcp),
        case("force-reachable over QUIC", times(3, &Behavior::FORCE_REACHABLE), quic),
        case("p = 0.9", times(5, &Behavior::Probabilistic { honest: 90 }), tcp),
        case("jitter up to 2 s", vec![jitter; 3], tcp),
        case("nonce, then a dial error", times(1, &and_then(Answer::DIAL_ERROR)), tcp),
        case("nonce, then a refusal", times(1, &and_then(Answer::REFUSED)), tcp),
        case("four say no, one proves", majority, tcp),
        case("every kind of bad peer, and one good", mixed, tcp),
    ])
    .await;
    // What a prover says after its nonce is not held against the address either.
    worlds[4].never(State::Unreachable);
    worlds[5].never(State::Unreachable);
    worlds[7].never(State::Unreachable);
}

/// Each address is judged by its own evidence.
async fn transports_are_judged_apart<L: Lab>(lab: &L) {
    let split = Behavior::PerTransport {
        tcp: Box::new(Behavior::Honest),
        quic: Box::new(Behavior::FORCE_UNREACHABLE),
    };
    let name = "TCP well, QUIC badly";
    let world = World::start(lab, name, &[TCP, QUIC], Transport::Tcp, times(3, &split)).await;
    world.connect().await;
    let (tcp, quic) = (world.addr(Transport::Tcp), world.addr(Transport::Quic));
    world.state(tcp, State::Reachable).await;
    world.state(quic, State::Unreachable).await;
}
