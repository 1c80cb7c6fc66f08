//! A runtime of one's own making, whole: sockets wait in a thread that calls poll(2), tasks run on
//! the thread pool of `futures`, timers are futures-timer's. Portolan asks a runtime for no more:
//! a node and a server run on this one, over TCP and QUIC, and what they prove is printed.

#![allow(clippy::print_stdout, reason = "a program that a person runs")]

use futures::StreamExt;
use futures::channel::oneshot;
use futures::executor::{ThreadPool, block_on};
use futures::future::BoxFuture;
use futures_timer::Delay;
use portolan_core::{Config, Duration, Notice, State};
use portolan_runtime::reactor::{Interest, Reactor, Socket};
use portolan_runtime::traits::{Spawn, Timers};
use portolan_runtime::{Node, identity};
use rustix::event::{PollFd, PollFlags, poll};
use std::collections::BTreeSet;
use std::error::Error;
use std::future::Future;
use std::io;
use std::net::UdpSocket;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;

fn main() -> Result<(), Box<dyn Error>> {
    block_on(embed(Own::start()?))
}

async fn embed(runtime: Own) -> Result<(), Box<dyn Error>> {
    let mut config = Config::default();
    config.allow_private = true; // Loopback addresses count for something in tests alone.
    let server = Node::<Own>::builder(runtime.clone(), identity::generate())
        .config(config.clone())
        .listen("/ip4/127.0.0.1/tcp/0".parse()?)
        .listen("/ip4/127.0.0.1/udp/0/quic-v1".parse()?)
        .dial_from([127, 1, 0, 1].into()) // A stranger to the node, so that a proof holds for all.
        .start()
        .await?;
    let node = Node::<Own>::builder(runtime, identity::generate())
        .config(config)
        .listen("/ip4/127.0.0.1/tcp/0".parse()?)
        .listen("/ip4/127.0.0.1/udp/0/quic-v1".parse()?)
        .start()
        .await?;

    let mut notices = node.notices();
    for addr in server.listeners().await {
        node.dial(addr).await?;
    }
    let mut proved = BTreeSet::new();
    while proved.len() < node.listeners().await.len() {
        let noticed = notices.next().await.ok_or("the node has stopped")?;
        if let Notice::VerdictChanged { addr, state, reason, .. } = noticed.notice {
            println!("{addr} is {}: {reason}", state.name());
            if state == State::Reachable {
                proved.insert(addr);
            }
        }
    }
    node.shutdown().await;
    server.shutdown().await;
    Ok(())
}

/// The runtime: where tasks run, and where sockets wait.
#[derive(Clone)]
struct Own {
    pool: ThreadPool,
    waiting: Arc<Waiting>,
}

impl Own {
    fn start() -> io::Result<Own> {
        let own = Own { pool: ThreadPool::new()?, waiting: Arc::new(Waiting::new()?) };
        let waiting = own.waiting.clone();
        thread::spawn(move || {
            loop {
                waiting.turn();
            }
        });
        Ok(own)
    }
}

impl Spawn for Own {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.pool.spawn_ok(task);
    }
}

impl Timers for Own {
    fn sleep(&self, span: Duration) -> impl Future<Output = ()> + Send + 'static {
        Delay::new(span)
    }
}

impl Reactor for Own {
    type Watched<S: Socket> = Arc<S>;

    /// Nothing is registered: who waits says so each time.
    fn watch<S: Socket>(&self, socket: S) -> io::Result<Arc<S>> {
        Ok(Arc::new(socket))
    }

    fn socket<S: Socket>(watched: &Arc<S>) -> &S {
        watched
    }

    fn ready<S: Socket>(
        &self,
        watched: &Arc<S>,
        interest: Interest,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static {
        let flags = match interest {
            Interest::Read => PollFlags::IN,
            Interest::Write => PollFlags::OUT,
        };
        let socket: Weak<S> = Arc::downgrade(watched);
        let (tell, told) = oneshot::channel();
        self.waiting.list().push(Wait { socket, flags, tell });
        let bell = Bell(self.waiting.clone());
        bell.ring();
        async move {
            // However the wait ends, the bell rings then: the thread lets go of the socket.
            let _bell = bell;
            told.await.map_err(io::Error::other)
        }
    }
}

/// The sockets that somebody waits for.
struct Waiting {
    list: Mutex<Vec<Wait>>,
    /// Connected to itself: a packet from it to it cuts poll(2) short.
    bell: UdpSocket,
}

struct Wait {
    socket: Weak<dyn Socket>,
    flags: PollFlags,
    tell: oneshot::Sender<()>,
}

impl Waiting {
    fn new() -> io::Result<Waiting> {
        let bell = UdpSocket::bind("127.0.0.1:0")?;
        bell.connect(bell.local_addr()?)?;
        bell.set_nonblocking(true)?;
        Ok(Waiting { list: Mutex::default(), bell })
    }

    /// Wait until a socket is ready or the bell rings, and tell those who waited for it.
    fn turn(&self) {
        let mut waits = std::mem::take(&mut *self.list());
        waits.retain(|wait| !wait.tell.is_canceled());
        let waits = waits.into_iter().filter_map(|wait| Some((wait.socket.upgrade()?, wait)));
        let waits: Vec<_> = waits.collect();
        let fds = waits.iter().map(|(socket, wait)| PollFd::new(socket, wait.flags));
        let mut fds: Vec<_> = fds.chain([PollFd::new(&self.bell, PollFlags::IN)]).collect();
        // A signal may cut it short; then nothing is ready.
        let _ = poll(&mut fds, None);
        let ready: Vec<_> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        while self.bell.recv(&mut [0]).is_ok() {}
        for ((_, wait), ready) in waits.into_iter().zip(ready) {
            if ready {
                // Who waited may have gone.
                let _ = wait.tell.send(());
            } else {
                self.list().push(wait);
            }
        }
    }

    fn list(&self) -> MutexGuard<'_, Vec<Wait>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Bell(Arc<Waiting>);

impl Bell {
    fn ring(&self) {
        // If there is no room for a packet, enough are on their way.
        let _ = self.0.bell.send(&[0]);
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.ring();
    }
}
