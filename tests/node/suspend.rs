//! A machine that sleeps for two hours, and whose wall clock is set back a day.

use super::{BOTH, Bare, ECHO, ask, builder, first_addr, quiet, serve_echo};
use futures::StreamExt;
use futures::future::BoxFuture;
use multistream_select::{Version, dialer_select_proto};
use portolan_core::flight::{Reader, Replay, Tail};
use portolan_core::{
    Actions, Duration, Event, Explanation, Instant, Notice, Outcome, Scope, State, UnixTime,
};
use portolan_runtime::net::{Net, NetConfig};
use portolan_runtime::record::Recording;
use portolan_runtime::traits::{Runtime, Sockets, Spawn, Timers};
use portolan_runtime::{Limits, Node, Notices, identity};
use portolan_tests::lab::{Lab, soon, until};
use portolan_tests::portolan_peer::on_one_host;
use std::future::Future;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fs, io};

portolan_tests::on_every_runtime! {
    #[tokio::test]
    two_hours_of_suspend_and_a_wall_clock_set_back_lose_nothing,
    a_connection_is_idle_only_while_the_machine_is_awake,
    a_shutdown_waits_no_less_because_the_machine_slept,
    a_dial_goes_on_after_a_sleep_and_its_round_trip_is_that_of_a_machine_awake;
}

portolan_tests::on_every_runtime_at_once! {
    #[tokio::test]
    nobody_has_to_wake_the_driver_for_it_to_notice;
}

/// Files made by this process.
static FILES: AtomicU64 = AtomicU64::new(0);
const SLEEP: Duration = Duration::from_secs(2 * 3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// A runtime whose clocks can be moved.
#[derive(Clone, Debug)]
struct Adrift<R> {
    inner: R,
    /// Nanoseconds that the machine has slept.
    slept: Arc<AtomicU64>,
    /// Nanoseconds that passed while it was awake, and no test waited for.
    awake: Arc<AtomicU64>,
    /// Nanoseconds that it will sleep during the next TCP dial.
    dozes: Arc<AtomicU64>,
    /// Milliseconds by which the wall clock was set back.
    back: Arc<AtomicU64>,
}

impl<R: Runtime> Adrift<R> {
    fn new(inner: R) -> Adrift<R> {
        Adrift {
            inner,
            slept: Arc::default(),
            awake: Arc::default(),
            dozes: Arc::default(),
            back: Arc::default(),
        }
    }

    fn sleep_for(&self, span: Duration) {
        self.slept.fetch_add(nanos(span), Ordering::SeqCst);
    }

    fn stay_awake_for(&self, span: Duration) {
        self.awake.fetch_add(nanos(span), Ordering::SeqCst);
    }

    fn doze_off_when_dialling(&self, span: Duration) {
        self.dozes.store(nanos(span), Ordering::SeqCst);
    }

    fn set_back(&self, span: Duration) {
        let millis = u64::try_from(span.as_millis()).expect("not that long ago");
        self.back.fetch_add(millis, Ordering::SeqCst);
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).expect("a short night")
}

impl<R: Runtime> Timers for Adrift<R> {
    fn now(&self) -> Instant {
        let passed = [&self.slept, &self.awake].map(|nanos| nanos.load(Ordering::SeqCst));
        self.inner.now() + Duration::from_nanos(passed.iter().sum())
    }

    fn unix(&self) -> UnixTime {
        let millis = self.inner.unix().as_millis();
        UnixTime::from_millis(millis - self.back.load(Ordering::SeqCst))
    }

    fn slept(&self) -> Duration {
        self.inner.slept() + Duration::from_nanos(self.slept.load(Ordering::SeqCst))
    }

    fn sleep(&self, span: Duration) -> impl Future<Output = ()> + Send + 'static {
        // sleep: it is the trait's; timers stand still while the machine sleeps, and so does this.
        self.inner.sleep(span)
    }
}

impl<R: Runtime> Spawn for Adrift<R> {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.inner.spawn(task);
    }
}

impl<R: Runtime> Sockets for Adrift<R> {
    type Tcp = R::Tcp;
    type Listener = R::Listener;
    type Udp = R::Udp;

    fn connected(
        &self,
        connecting: TcpStream,
    ) -> impl Future<Output = io::Result<R::Tcp>> + Send + 'static {
        let connected = self.inner.connected(connecting);
        let (slept, dozes) = (self.slept.clone(), self.dozes.clone());
        async move {
            let connected = connected.await;
            slept.fetch_add(dozes.swap(0, Ordering::SeqCst), Ordering::SeqCst);
            connected
        }
    }

    fn listener(&self, listener: TcpListener) -> io::Result<R::Listener> {
        self.inner.listener(listener)
    }

    fn accept(
        &self,
        listener: &R::Listener,
    ) -> impl Future<Output = io::Result<(R::Tcp, SocketAddr)>> + Send {
        self.inner.accept(listener)
    }

    fn local_addr(&self, tcp: &R::Tcp) -> io::Result<SocketAddr> {
        self.inner.local_addr(tcp)
    }

    fn udp(&self, socket: UdpSocket) -> io::Result<R::Udp> {
        self.inner.udp(socket)
    }

    fn read_udp<T: Send>(
        &self,
        udp: &R::Udp,
        attempt: impl FnMut(&UdpSocket) -> io::Result<T> + Send,
    ) -> impl Future<Output = io::Result<T>> + Send {
        self.inner.read_udp(udp, attempt)
    }

    fn quic(&self) -> Arc<dyn quinn::Runtime> {
        self.inner.quic()
    }
}

async fn explained<R: Runtime>(node: &Node<R>) -> Explanation {
    soon(node.explain()).await.expect("it runs")
}

/// Wait until both addresses are proved later than `after`, and give the explanation.
async fn proved<R: Runtime>(node: &Node<R>, after: Instant) -> Explanation {
    let late = |at: Option<Instant>| at.is_some_and(|at| at > after);
    until(async || {
        let addresses = explained(node).await.addresses;
        let proved = addresses.iter().filter(|address| {
            address.scope == Some(Scope::Anywhere) && late(address.proved_at) && !address.pending
        });
        proved.count() == 2
    })
    .await;
    explained(node).await
}

/// Verdicts among the notices that are waiting.
fn verdicts(notices: &mut Notices) -> Vec<Notice> {
    let waiting = std::iter::from_fn(|| notices.try_next().map(|noticed| noticed.notice));
    waiting.filter(|notice| matches!(notice, Notice::VerdictChanged { .. })).collect()
}

async fn two_hours_of_suspend_and_a_wall_clock_set_back_lose_nothing<L: Lab>(lab: &L) {
    let [file, process] = [FILES.fetch_add(1, Ordering::SeqCst), std::process::id().into()];
    let path = std::env::temp_dir().join(format!("portolan-suspend-{process}-{file}.rec"));
    let mut config = on_one_host();
    config.dial_back = Some(Default::default());
    let server = builder(lab, config, &BOTH).dial_from([127, 1, 0, 1].into());
    let server = server.start().await.expect("free ports");

    let runtime = Adrift::new(lab.runtime());
    let client = Node::<Adrift<L::Runtime>>::builder(runtime.clone(), identity::generate());
    let client = BOTH.iter().fold(client, |node, addr| node.listen(addr.parse().expect("one")));
    let client = client.config(on_one_host()).record(Recording::to(&path));
    let client = client.start().await.expect("free ports");
    for addr in server.listeners().await {
        soon(client.dial(addr)).await.expect("it listens");
    }
    let before = proved(&client, Instant::ZERO).await;
    // Dial-backs come under identities of their own, and go as they please.
    let with_server = async || {
        let conns = client.connections().await.into_iter();
        let conns = conns.filter(|conn| conn.peer == server.peer_id()).map(|conn| conn.conn);
        conns.collect::<Vec<_>>()
    };
    let conns = with_server().await;
    assert_eq!(conns.len(), 2, "one for each transport");

    // The wall clock alone changes nothing, and nothing is asked because of it.
    let mut notices = client.notices();
    runtime.set_back(DAY);
    let after = explained(&client).await;
    assert_eq!(verdicts(&mut notices), []);
    let judged = |explanation: &Explanation| {
        let all = explanation.addresses.iter();
        all.map(|one| (one.addr, one.state, one.scope, one.until)).collect::<Vec<_>>()
    };
    assert_eq!(judged(&after), judged(&before));

    let lay_down = client.now();
    runtime.sleep_for(SLEEP);
    let after = proved(&client, lay_down + SLEEP).await;
    let known = |explanation: &Explanation| {
        let all = explanation.addresses.iter();
        all.map(|one| (one.addr, one.scope, one.sources)).collect::<Vec<_>>()
    };
    assert_eq!(known(&after), known(&before), "what was true is true still");
    assert_eq!(with_server().await, conns, "none was closed as idle");
    let [known] = &after.servers[..] else { panic!("one server: {:?}", after.servers) };
    assert!(known.connected && !known.distrusted, "{known:?}");
    assert!(known.outcomes.iter().all(|(how, _)| *how == Outcome::Proved), "{known:?}");
    soon(client.shutdown()).await;

    let bytes = fs::read(&path).expect("it was recorded");
    let (head, mut reader) = Reader::new(&bytes).expect("a record");
    let mut replay = Replay::new(&head).expect("a fresh agent");
    let mut slept = Vec::new();
    let (mut last, mut back) = (head.unix, 0);
    for step in reader.by_ref() {
        let step = step.expect("a whole step");
        replay.step(&step, &mut Actions::new()).expect("the same as then");
        back += usize::from(step.unix < last);
        last = step.unix;
        if let Event::Resumed { slept: span } = step.event {
            // Two clocks are read one after the other, some nanoseconds apart.
            slept.push((span + Duration::from_millis(1)).as_secs());
        }
    }
    assert_eq!(reader.tail(), Tail::Whole);
    assert_eq!((slept, back), (vec![SLEEP.as_secs()], 1), "core heard of both");
    fs::remove_file(path).expect("it is ours");
}

async fn a_connection_is_idle_only_while_the_machine_is_awake<L: Lab>(lab: &L) {
    let minute = Duration::from_secs(60);
    let mut limits = Limits::default();
    limits.idle_timeout = minute;
    let server = builder(lab, quiet(), &BOTH).start().await.expect("free ports");
    serve_echo(&server);
    let runtime = Adrift::new(lab.runtime());
    let client = Node::<Adrift<L::Runtime>>::builder(runtime.clone(), identity::generate());
    let client = client.config(quiet()).limits(limits).listen(BOTH[0].parse().expect("one"));
    let client = client.start().await.expect("free ports");
    for addr in server.listeners().await {
        soon(client.dial(addr)).await.expect("it listens");
    }

    let (bare, addr) = (Bare::new(lab), first_addr(&client).await);
    runtime.sleep_for(SLEEP);
    // The first thing that the driver finds is a connection, which has not slept for a moment. Its
    // streams are answered as soon as the driver has taken it over.
    let late = soon(bare.0.dial(addr, None)).await.expect("it listens");
    let stream = soon(late.muxer.open()).await.expect("there is room");
    let agreed = soon(dialer_select_proto(stream, ["/nothing/1.0.0"], Version::V1)).await;
    assert!(agreed.is_err(), "nobody serves that");
    // The next look at idle connections is overdue now, and every connection younger than a minute.
    runtime.stay_awake_for(minute / 2);
    assert_eq!(client.connections().await.len(), 3);
    let stream = soon(client.open_stream(server.peer_id(), ECHO)).await.expect("it is not closed");
    assert_eq!(ask(stream, b"awake?").await, b"awake?");
    // The one that came last is closed as soon as any.
    runtime.stay_awake_for(minute);
    until(async || client.connections().await.iter().all(|conn| conn.peer != bare.peer())).await;
    soon(late.muxer.closed()).await;
}

async fn a_shutdown_waits_no_less_because_the_machine_slept<L: Lab>(lab: &L) {
    let server = builder(lab, quiet(), &BOTH[..1]).start().await.expect("free ports");
    serve_echo(&server);
    let runtime = Adrift::new(lab.runtime());
    let client = Node::<Adrift<L::Runtime>>::builder(runtime.clone(), identity::generate());
    let client = client.config(quiet()).listen(BOTH[0].parse().expect("one"));
    let client = client.start().await.expect("free ports");
    soon(client.dial(server.listeners().await.remove(0))).await.expect("it listens");
    let stream = soon(client.open_stream(server.peer_id(), ECHO)).await.expect("it is served");

    let stopping = client.clone();
    let stopping = tokio::spawn(async move { stopping.shutdown().await });
    until(async || client.listeners().await.is_empty()).await;
    runtime.sleep_for(SLEEP);
    // The driver wakes, and has something to wait for still.
    assert_eq!(client.connections().await.len(), 1);
    assert_eq!(ask(stream, b"good night").await, b"good night");
    soon(stopping).await.expect("it ends");
}

async fn a_dial_goes_on_after_a_sleep_and_its_round_trip_is_that_of_a_machine_awake<L: Lab>(
    lab: &L,
) {
    let server = builder(lab, quiet(), &BOTH[..1]).start().await.expect("free ports");
    let runtime = Adrift::new(lab.runtime());
    let net = Net::new(runtime.clone(), &identity::generate(), NetConfig::default());
    let (net, _arrivals) = net.expect("a usable key");
    let patience = Duration::from_secs(20);
    runtime.doze_off_when_dialling(SLEEP);
    let dial = net.dial_back(first_addr(&server).await, None, patience);
    let dialled = soon(dial).await.expect("it has slept, and has its patience still");
    assert!(runtime.slept() >= SLEEP);
    assert!(dialled.rtt.is_some_and(|rtt| rtt < patience), "{:?}", dialled.rtt);
}

async fn nobody_has_to_wake_the_driver_for_it_to_notice<L: Lab>(lab: &L) {
    let mut config = on_one_host();
    config.dial_back = Some(Default::default());
    let server = builder(lab, config, &BOTH[..1]).start().await.expect("free ports");
    let runtime = Adrift::new(lab.runtime());
    let client = Node::<Adrift<L::Runtime>>::builder(runtime.clone(), identity::generate());
    // Nor do idle connections wake it.
    let mut limits = Limits::default();
    limits.idle_timeout = SLEEP;
    let client = client.config(on_one_host()).limits(limits).listen(BOTH[0].parse().expect("one"));
    let client = client.start().await.expect("free ports");
    soon(client.dial(server.listeners().await.remove(0))).await.expect("it listens");
    until(async || explained(&client).await.settled).await;

    let mut notices = client.notices();
    let lay_down = std::time::Instant::now();
    runtime.sleep_for(SLEEP);
    while !matches!(
        soon(notices.next()).await.expect("it lives").notice,
        Notice::VerdictChanged { state: State::Reachable, .. }
    ) {}
    // Half of the time after which core would have asked again by itself.
    assert!(lay_down.elapsed() < Duration::from_secs(8), "{:?}", lay_down.elapsed());
}
