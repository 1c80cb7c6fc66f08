//! Embeds a node on smol: it asks a server in the same program which of its addresses work.

#![allow(clippy::print_stdout, reason = "a program that a person runs")]

use futures::StreamExt;
use portolan_core::{Config, Notice, State};
use portolan_smol::{Node, identity};
use smol::Executor;
use std::collections::BTreeSet;
use std::error::Error;
use std::sync::Arc;

fn main() -> Result<(), Box<dyn Error>> {
    let executor = Arc::new(Executor::new());
    smol::block_on(executor.run(embed(executor.clone())))
}

async fn embed(runtime: Arc<Executor<'static>>) -> Result<(), Box<dyn Error>> {
    let mut config = Config::default();
    config.allow_private = true; // Loopback addresses count for something in tests alone.
    let server = Node::builder(runtime.clone(), identity::generate())
        .config(config.clone())
        .listen("/ip4/127.0.0.1/tcp/0".parse()?)
        .listen("/ip4/127.0.0.1/udp/0/quic-v1".parse()?)
        .dial_from([127, 1, 0, 1].into()) // A stranger to the node, so that a proof holds for all.
        .start()
        .await?;
    let node = Node::builder(runtime, identity::generate())
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
