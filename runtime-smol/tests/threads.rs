//! A node starts no thread: the only one besides the application's own is async-io's. Alone in
//! its program, so that no other test's threads are counted.

#![cfg(target_os = "linux")]

use futures::StreamExt;
use futures::future::{Either, select};
use portolan_core::{Config, Notice, State};
use portolan_smol::{Node, identity};
use smol::{Executor, Timer};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

/// The test takes a hundredth of this, if it is not stuck.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn no_thread_is_started_but_that_of_async_io() {
    let executor = Arc::new(Executor::new());
    let job = executor.run(whole_life(executor.clone()));
    let late = Timer::after(PATIENCE);
    match smol::block_on(select(pin!(job), late)) {
        Either::Left(((), _)) => {}
        Either::Right(_) => panic!("it is stuck"),
    }
    // Those that have ended by now would have been seen before.
    assert_eq!(others().expect("/proc is there"), ["async-io"]);
}

/// Everything that a node does: listen, dial, prove over both transports and families, shut down.
async fn whole_life(executor: Arc<Executor<'static>>) {
    let mut config = Config::default();
    config.allow_private = true;
    let builder = || {
        let listen = [
            "/ip4/127.0.0.1/tcp/0",
            "/ip4/127.0.0.1/udp/0/quic-v1",
            "/ip6/::1/tcp/0",
            "/ip6/::1/udp/0/quic-v1",
        ];
        let builder = Node::builder(executor.clone(), identity::generate()).config(config.clone());
        listen.iter().fold(builder, |builder, addr| builder.listen(addr.parse().expect("valid")))
    };
    let server = builder().dial_from([127, 1, 0, 1].into()).start().await.expect("free ports");
    let node = builder().start().await.expect("free ports");
    let mut notices = node.notices();
    for addr in server.listeners().await {
        node.dial(addr).await.expect("it listens");
    }
    let mut proved = Vec::new();
    while proved.len() < 4 {
        let noticed = notices.next().await.expect("the node lives");
        if let Notice::VerdictChanged { addr, state: State::Reachable, .. } = noticed.notice
            && !proved.contains(&addr)
        {
            proved.push(addr);
        }
        assert_eq!(others().expect("/proc is there"), ["async-io"]);
    }
    futures::future::join(node.shutdown(), server.shutdown()).await;
}

/// The names of the threads that neither run this test nor the program.
fn others() -> io::Result<Vec<String>> {
    let ours = fs::read_link("/proc/thread-self")?;
    let main = std::process::id().to_string();
    let mut names = Vec::new();
    for thread in fs::read_dir("/proc/self/task")? {
        let thread = thread?;
        let id = thread.file_name();
        if !ours.ends_with(&id) && *id != *main {
            names.push(fs::read_to_string(thread.path().join("comm"))?.trim().to_owned());
        }
    }
    Ok(names)
}
