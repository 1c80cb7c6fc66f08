//! A machine that sleeps for two hours, and whose wall clock is set back a day.

use super::{BOTH, builder};
use futures::future::BoxFuture;
use portolan_core::flight::{Reader, Replay, Tail};
use portolan_core::{
    Actions, Duration, Event, Explanation, Instant, Notice, Outcome, Scope, UnixTime,
};
use portolan_runtime::record::Recording;
use portolan_runtime::traits::{Runtime, Sockets, Spawn, Timers};
use portolan_runtime::{Node, Notices, identity};
use portolan_tests::lab::{Lab, soon, until};
use portolan_tests::portolan_peer::on_one_host;
use std::future::Future;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fs, io};

portolan_tests::on_every_runtime! {
    #[tokio::test]
    two_hours_of_suspend_and_a_wall_clock_set_back_lose_nothing;
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
    /// Milliseconds by which the wall clock was set back.
    back: Arc<AtomicU64>,
}

impl<R: Runtime> Adrift<R> {
    fn new(inner: R) -> Adrift<R> {
        Adrift { inner, slept: Arc::default(), back: Arc::default() }
    }

    fn sleep_for(&self, span: Duration) {
        let nanos = u64::try_from(span.as_nanos()).expect("a short night");
        self.slept.fetch_add(nanos, Ordering::SeqCst);
    }

    fn set_back(&self, span: Duration) {
        let millis = u64::try_from(span.as_millis()).expect("not that long ago");
        self.back.fetch_add(millis, Ordering::SeqCst);
    }
}

impl<R: Runtime> Timers for Adrift<R> {
    fn now(&self) -> Instant {
        self.inner.now() + Duration::from_nanos(self.slept.load(Ordering::SeqCst))
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

    fn connected(
        &self,
        connecting: TcpStream,
    ) -> impl Future<Output = io::Result<R::Tcp>> + Send + 'static {
        self.inner.connected(connecting)
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
