//! `portolan map`: have routers map ports, for as long as the program runs.

use crate::report::MappingReport;
use futures::{FutureExt, StreamExt, pin_mut, select_biased};
use portolan_core::{
    Config, Duration, GatewayAnswer, MappingConfig, MappingProtocol, MappingState, Notice,
    Transport,
};
use portolan_runtime::identity;
use portolan_runtime::record::Recording;
use portolan_runtime::traits::Runtime;
use portolan_runtime::{Node, Notices, StartError};
use std::future::Future;
use std::path::PathBuf;

/// What to map, and how. Built by `MapOptions::default()` and assignment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MapOptions {
    /// The ports of this host; [`Transport::Quic`] stands for any use of UDP.
    pub ports: Vec<(Transport, u16)>,
    /// How long a mapping is asked for at a time.
    pub lifetime: Duration,
    /// The protocols that may be spoken.
    pub protocols: Vec<MappingProtocol>,
    /// Where to remember what was mapped, for a later run to renew or delete.
    pub ledger: Option<PathBuf>,
    /// Where to write a flight record, for `portolan replay`; none is written unless said.
    pub record: Option<Recording>,
}

impl Default for MapOptions {
    fn default() -> Self {
        let MappingConfig { lifetime, protocols, ports, .. } = MappingConfig::default();
        MapOptions { ports, lifetime, protocols, ledger: None, record: None }
    }
}

/// Map ports until `stop` resolves, then give them back, within a second where the router answers.
/// `news` is called with each mapping as it is granted, changed, or refused. Returns whether every one
/// was granted in the end.
///
/// # Errors
/// If the options make no sense, or the ledger cannot be used.
pub async fn map<R: Runtime>(
    runtime: R,
    options: MapOptions,
    mut news: impl FnMut(&MappingReport),
    stop: impl Future<Output = ()>,
) -> Result<bool, StartError> {
    let (node, notices) = start(runtime, options).await?;
    let mut notices = notices.fuse();
    let stop = stop.fuse();
    pin_mut!(stop);
    loop {
        select_biased! {
            () = stop => break,
            noticed = notices.select_next_some() => {
                if let Notice::MappingChanged { mapping: Some(mapping), .. } = noticed.notice
                    && mapping.state != MappingState::Asking
                {
                    news(&MappingReport::new(&mapping));
                }
            }
            complete => break,
        }
    }
    let mappings = node.mappings().await;
    node.shutdown().await;
    let granted = mappings.iter().all(|mapping| mapping.state == MappingState::Granted);
    Ok(granted && !mappings.is_empty())
}

/// Ask the gateways what they speak, for `patience`, and map nothing.
///
/// # Errors
/// If the options make no sense.
pub async fn gateways<R: Runtime>(
    runtime: R,
    options: MapOptions,
    patience: Duration,
) -> Result<Vec<GatewayAnswer>, StartError> {
    let options = MapOptions { ports: Vec::new(), ledger: None, ..options };
    let (node, notices) = start(runtime.clone(), options).await?;
    let mut notices = notices.fuse();
    let over = runtime.sleep(patience).fuse();
    pin_mut!(over);
    let mut answers: Vec<GatewayAnswer> = Vec::new();
    loop {
        select_biased! {
            () = over => break,
            noticed = notices.select_next_some() => {
                if let Notice::GatewayAnswered(answer) = noticed.notice {
                    let same = |one: &GatewayAnswer| {
                        (one.router, one.protocol) == (answer.router, answer.protocol)
                    };
                    answers.retain(|one| !same(one));
                    answers.push(answer);
                }
            }
            complete => break,
        }
    }
    node.shutdown().await;
    answers.sort();
    Ok(answers)
}

async fn start<R: Runtime>(
    runtime: R,
    options: MapOptions,
) -> Result<(Node<R>, Notices), StartError> {
    let mut mapping = MappingConfig::default();
    mapping.ports = options.ports;
    mapping.lifetime = options.lifetime;
    mapping.protocols = options.protocols;
    let mut config = Config::default();
    config.mapping = Some(mapping);
    let mut builder = Node::builder(runtime, identity::generate()).config(config);
    if let Some(ledger) = options.ledger {
        builder = builder.ledger(ledger);
    }
    if let Some(recording) = options.record {
        builder = builder.record(recording);
    }
    let notices = builder.notices();
    Ok((builder.start().await?, notices))
}
