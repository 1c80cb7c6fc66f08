//! Embeds a node: listens, dials the peers named on the command line, and prints what is proved.

#![allow(clippy::print_stdout, reason = "a program that a person runs")]

use futures::StreamExt;
use portolan_core::{Config, Notice};
use portolan_tokio::{Node, identity};
use tokio::runtime::Handle;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut config = Config::default();
    config.agent_version = "embed/0.1.0".into();
    let node = Node::builder(Handle::current(), identity::generate())
        .config(config)
        .listen("/ip4/0.0.0.0/tcp/0".parse()?)
        .listen("/ip4/0.0.0.0/udp/0/quic-v1".parse()?)
        .start()
        .await?;

    let mut notices = node.notices();
    for peer in std::env::args().skip(1) {
        node.dial(peer.parse()?).await?;
    }
    while let Some(noticed) = notices.next().await {
        if let Notice::VerdictChanged { addr, state, reason, .. } = noticed.notice {
            println!("{} {addr} is {}: {reason}", noticed.at, state.name());
        }
    }
    Ok(())
}
