//! What the executor that is handed in means for a node: it drives everything, and ends it.

use futures::channel::oneshot;
use futures::future::{Either, select};
use futures::io::{AsyncReadExt, AsyncWriteExt};
use futures::{FutureExt, StreamExt};
use portolan_core::{Config, Notice, PeerId, State, Transport};
use portolan_runtime::destination;
use portolan_smol::net::{self, NetConfig};
use portolan_smol::{DialError, Node, Stopped, identity};
use smol::{Executor, Timer};
use std::future::Future;
use std::net::{TcpListener, UdpSocket};
use std::pin::pin;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// No test takes a tenth of this; one that does is stuck.
const PATIENCE: Duration = Duration::from_secs(30);
/// One address of every class.
const EVERYWHERE: [&str; 4] = [
    "/ip4/127.0.0.1/tcp/0",
    "/ip4/127.0.0.1/udp/0/quic-v1",
    "/ip6/::1/tcp/0",
    "/ip6/::1/udp/0/quic-v1",
];
const ECHO: &str = "/echo/1.0.0";

/// Run the test's own half, outside of any executor.
fn soon<F: Future>(task: F) -> F::Output {
    match smol::block_on(select(pin!(task), Timer::after(PATIENCE))) {
        Either::Left((output, _)) => output,
        Either::Right(_) => panic!("it is stuck"),
    }
}

/// Wait until `check` holds.
fn until(mut check: impl AsyncFnMut() -> bool) {
    soon(async {
        while !check().await {
            // sleep: between two looks at a fact of which nobody notifies; `soon` bounds them all.
            Timer::after(Duration::from_millis(5)).await;
        }
    });
}

/// An executor that one thread runs until it is paused.
struct Thread {
    executor: Arc<Executor<'static>>,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Thread {
    fn new() -> Thread {
        let mut thread = Thread { executor: Arc::default(), running: None };
        thread.resume();
        thread
    }

    fn resume(&mut self) {
        let (pause, paused) = oneshot::channel::<()>();
        let executor = self.executor.clone();
        let run = move || smol::block_on(executor.run(paused.map(|_| ())));
        self.running = Some((pause, thread::spawn(run)));
    }

    fn pause(&mut self) {
        if let Some((pause, thread)) = self.running.take() {
            drop(pause);
            thread.join().expect("it does not panic");
        }
    }

    fn start(&self, net: NetConfig) -> Node {
        let mut config = Config::default();
        config.allow_private = true;
        config.dial_back = Some(Default::default());
        let builder = Node::builder(self.executor.clone(), identity::generate());
        let builder = EVERYWHERE
            .iter()
            .fold(builder, |builder, addr| builder.listen(addr.parse().expect("an address")));
        soon(builder.config(config).net(net).start()).expect("free ports")
    }

    /// A node that echoes everything on every stream of [`ECHO`].
    fn node(&self) -> Node {
        let node = self.start(NetConfig::default());
        let mut incoming = node.accept(ECHO).expect("it is free");
        let spawned = self.executor.spawn(async move {
            while let Some((_, stream)) = incoming.next().await {
                let (reader, mut writer) = stream.split();
                // A peer that goes away ends the copy, which is as good.
                if futures::io::copy(reader, &mut writer).await.is_ok() {
                    let _ = writer.close().await;
                }
            }
        });
        spawned.detach();
        node
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.pause();
    }
}

/// Dial every address of `to`.
fn dial(from: &Node, to: &Node) {
    for addr in soon(to.listeners()) {
        soon(from.dial(addr)).expect("it listens");
    }
}

fn echoed(from: &Node, to: PeerId) {
    soon(async {
        let stream = from.open_stream(to, ECHO).await.expect("it is served");
        let text = vec![7; 100_000];
        let mut answer = Vec::new();
        let (mut reader, mut writer) = stream.split();
        let send = async {
            writer.write_all(&text).await.expect("it is open");
            writer.close().await.expect("it is open");
        };
        let read = reader.read_to_end(&mut answer).map(|read| read.expect("the peer finishes"));
        futures::future::join(send, read).await;
        assert!(answer == text);
    });
}

#[test]
fn a_node_makes_progress_only_while_its_executor_is_run() {
    let mut there = Thread::new();
    let here = Thread::new();
    let server = there.node();
    let addrs = soon(server.listeners());
    there.pause();

    let mut hasty = NetConfig::default();
    hasty.connect_timeout = Duration::from_millis(300);
    hasty.handshake_timeout = Duration::from_millis(300);
    let client = here.start(hasty);
    for addr in addrs {
        let error = soon(client.dial(addr)).expect_err("nobody answers");
        let DialError::Failed { error, .. } = error else { panic!("{error}") };
        let silent = matches!(error, net::DialError::TimedOut | net::DialError::HandshakeTimedOut);
        assert!(silent, "{error}");
    }
    there.resume();
    let patient = here.node();
    dial(&patient, &server);
    echoed(&patient, server.peer_id());
}

#[test]
fn nodes_on_executors_of_their_own_prove_each_others_addresses() {
    let (here, there) = (Thread::new(), Thread::new());
    let (one, other) = (here.node(), there.node());
    let notices = [one.notices(), other.notices()];
    dial(&one, &other);
    dial(&other, &one);
    for mut notices in notices {
        let mut proved = Vec::new();
        while proved.len() < EVERYWHERE.len() {
            let noticed = soon(notices.next()).expect("the node lives");
            if let Notice::VerdictChanged { addr, state: State::Reachable, .. } = noticed.notice
                && !proved.contains(&addr)
            {
                proved.push(addr);
            }
        }
    }
    echoed(&one, other.peer_id());
    echoed(&other, one.peer_id());
    for (node, thread) in [(one, here), (other, there)] {
        soon(node.shutdown());
        // The task that takes the streams ends with the node as well.
        until(async || thread.executor.is_empty());
    }
}

#[test]
fn a_node_that_stands_still_does_not_hurt_the_others() {
    let mut there = Thread::new();
    let here = Thread::new();
    let (still, lively, other) = (there.node(), here.node(), here.node());
    dial(&lively, &still);
    echoed(&lively, still.peer_id());
    there.pause();

    // A question that is not answered keeps nobody.
    let mut unanswered = pin!(lively.open_stream(still.peer_id(), ECHO));
    assert!(soon(async { futures::poll!(&mut unanswered) }).is_pending());
    dial(&lively, &other);
    dial(&other, &lively);
    echoed(&lively, other.peer_id());
    echoed(&other, lively.peer_id());
    assert_eq!(soon(lively.explain()).expect("it runs").peer_id, lively.peer_id());

    there.resume();
    drop(soon(unanswered).expect("it is answered now"));
    echoed(&lively, still.peer_id());
    there.pause();
    soon(lively.shutdown());
    soon(other.shutdown());
    until(async || here.executor.is_empty());
}

#[test]
fn a_node_ends_with_its_executor() {
    let (here, there) = (Thread::new(), Thread::new());
    let (one, other) = (here.node(), there.node());
    dial(&other, &one);
    let mut notices = one.notices();
    let mut incoming = one.accept("/other/1.0.0").expect("it is free");
    let addrs = soon(one.listeners());
    drop(here);

    assert_eq!(soon(one.explain()).map(|_| ()), Err(Stopped));
    while soon(notices.next()).is_some() {}
    assert!(soon(incoming.next()).is_none());
    // Nothing holds its sockets any more.
    for addr in addrs {
        let (addr, _) = destination(&addr).expect("it was dialled before");
        match addr.transport {
            Transport::Tcp => drop(TcpListener::bind(addr.socket()).expect("the port is free")),
            Transport::Quic => drop(UdpSocket::bind(addr.socket()).expect("the port is free")),
        }
    }
    // A TCP peer hears of it at once; a QUIC peer when it misses the answers.
    until(async || {
        let left = other.connections().await;
        left.iter().all(|conn| conn.remote.transport == Transport::Quic)
    });
}

#[test]
fn an_executor_that_lives_for_ever_will_do() {
    static EXECUTOR: Executor<'static> = Executor::new();
    let whole = EXECUTOR.run(async {
        let builder = Node::builder(&EXECUTOR, identity::generate());
        let listening = builder.listen("/ip4/127.0.0.1/tcp/0".parse().expect("an address"));
        let node = listening.start().await.expect("a free port");
        assert_eq!(node.listeners().await.len(), 1);
        node.shutdown().await;
    });
    soon(whole);
    assert!(EXECUTOR.is_empty());
}
