//! In its steady state the agent takes no memory: hearing again what it knows, and being woken
//! when nothing is due, cost not a single heap allocation.

use libp2p_identity::Keypair;
use portolan_core::wire::autonat::{DialBack, Message};
use portolan_core::{
    Action, Actions, Addr, Agent, Config, ConnId, Connected, Cx, Draw, Duration, Event, Instant,
    ListenerId, Notice, PeerId, Protocol, ProtocolSet, Side, Signer, State, StreamId, UnixTime,
};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, with a count for each thread, so that tests do not see each other.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that is being torn down has no count left, and nobody who reads it.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

#[allow(unsafe_code, reason = "an allocator cannot be written without; every call is passed on")]
// SAFETY: every method passes its arguments on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

/// Nonces that count, and no other chance.
struct Chance(u64);

impl Draw for Chance {
    fn below(&mut self, _: u64) -> u64 {
        0
    }

    fn nonce(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

struct Key(Keypair);

impl Signer for Key {
    fn sign(&mut self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).expect("ed25519 signs anything")
    }
}

/// An agent with all that it needs of the world.
struct Bench {
    agent: Agent,
    key: Key,
    chance: Chance,
    actions: Actions,
    now: Instant,
}

impl Bench {
    fn new() -> Bench {
        let key = Keypair::generate_ed25519();
        let mut config = Config::default();
        config.identify = false;
        let agent = Agent::new(config, key.public()).expect("the configuration is the default one");
        Bench {
            agent,
            key: Key(key),
            chance: Chance(0),
            actions: Actions::new(),
            now: Instant::ZERO,
        }
    }

    fn handle(&mut self, event: Event) {
        let mut cx = Cx {
            now: self.now,
            unix: UnixTime::from_millis(1_700_000_000_000),
            draw: &mut self.chance,
            sign: &mut self.key,
            actions: &mut self.actions,
        };
        self.agent.handle(&mut cx, event);
    }

    /// Handle the event and take out what was ordered.
    fn step(&mut self, event: Event) -> Vec<Action> {
        self.handle(event);
        self.actions.drain().collect()
    }

    fn pass(&mut self, span: Duration) {
        self.now = self.now + span;
    }
}

fn addr(text: &str) -> Addr {
    let (ip, port) = text.rsplit_once(':').expect("ip:port");
    Addr::tcp(ip.parse().expect("an IP"), port.parse().expect("a port"))
}

fn peer() -> PeerId {
    Keypair::generate_ed25519().public().to_peer_id()
}

fn connected(conn: u64, side: Side, remote: &str) -> Event {
    Event::Connected(Connected {
        conn: ConnId(conn),
        peer: peer(),
        side,
        local: addr("192.168.1.2:4001"),
        remote: addr(remote),
        relayed: false,
        dial: None,
        rtt: Some(Duration::from_millis(20)),
    })
}

/// A node behind a NAT in the midst of its life: a proven address, three networks that see it, a
/// server at hand, and everything that was to be done is done.
fn settled() -> Bench {
    let mut bench = Bench::new();
    let seen = addr("99.0.0.7:4001");
    bench.step(Event::ListenerOpened { listener: ListenerId(1), addr: addr("192.168.1.2:4001") });
    bench.step(Event::InterfacesChanged { ips: vec![addr("192.168.1.2:1").ip] });
    for conn in 1..=3 {
        bench.step(connected(conn, Side::Outbound, &format!("44.0.{conn}.1:4001")));
        bench.step(Event::Observed { conn: ConnId(conn), observed: seen });
    }
    let protocols = ProtocolSet::NONE.with(Protocol::DialRequest);
    let asked = bench.step(Event::ProtocolsListed { conn: ConnId(1), protocols });
    let request = asked.iter().find_map(|action| {
        if let Action::Send { stream, body } = action { Some((*stream, body)) } else { None }
    });
    let (asking, body) = request.expect("the server is asked");
    let Ok(Message::DialRequest { nonce, .. }) = Message::decode(body) else {
        unreachable!("what is sent to a server is a dial request");
    };
    bench.pass(Duration::from_millis(40));
    bench.step(connected(4, Side::Inbound, "44.0.1.1:50000"));
    let stream = StreamId::inbound(Protocol::DialBack, 1);
    bench.step(Event::StreamOpened { conn: ConnId(4), stream });
    let proof = bench.step(Event::Frame { stream, body: DialBack { nonce }.encode() });
    let reachable = |action: &Action| {
        matches!(action, Action::Notify(Notice::VerdictChanged { state: State::Reachable, .. }))
    };
    assert!(proof.iter().any(reachable), "the nonce proves the address: {proof:?}");
    bench.step(Event::Disconnected { conn: ConnId(4) });
    let response = Message::DialResponse {
        status: portolan_core::wire::autonat::ResponseStatus::Ok,
        addr_idx: 0,
        dial_status: portolan_core::wire::autonat::DialStatus::Ok,
        failed_from: None,
    };
    bench.step(Event::Frame { stream: asking, body: response.encode() });
    let quiet = bench.now + Duration::from_secs(2);
    let deadline = bench.agent.deadline().expect("the proof is to be renewed");
    assert!(deadline.at > quiet, "something is due within two seconds: {deadline:?}");
    bench
}

/// How many allocations `repeats` repetitions of an event take, a millisecond apart.
fn cost(bench: &mut Bench, repeats: u32, event: impl Fn(u32) -> Event) -> u64 {
    let before = allocations();
    for repeat in 0..repeats {
        bench.pass(Duration::from_millis(1));
        bench.handle(event(repeat));
        assert!(bench.actions.is_empty(), "nothing is news: {:?}", bench.actions.as_slice());
    }
    allocations() - before
}

#[test]
fn the_count_counts() {
    let before = allocations();
    let boxed = Box::new(7);
    assert_eq!(allocations() - before, 1);
    drop(boxed);
}

#[test]
fn a_known_observation_takes_no_memory() {
    let mut bench = settled();
    let observed = addr("99.0.0.7:4001");
    let again = |repeat: u32| Event::Observed { conn: ConnId(u64::from(repeat % 3 + 1)), observed };
    let taken = cost(&mut bench, 1_000, again);
    assert_eq!(taken, 0, "allocations in 1,000 observations that were known");
}

#[test]
fn a_tick_with_nothing_due_takes_no_memory() {
    let mut bench = settled();
    let taken = cost(&mut bench, 1_000, |_| Event::Tick);
    assert_eq!(taken, 0, "allocations in 1,000 ticks with nothing due");
}
