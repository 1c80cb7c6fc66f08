//! Names of relays, which are resolved before a node starts: it is told of its relays then.

use crate::program::Failed;
use crate::program::args::NamesArgs;
use crate::relays::{distinct, distinct_servers};
use multiaddr::Multiaddr;
use portolan_core::config::RELAY_ADDRS_MAX;
use portolan_core::{DistantServer, RelayPeer};
use portolan_runtime::names::{NamesConfig, Resolver};
use portolan_runtime::traits::Runtime;
use portolan_runtime::{destination, distant_server};
use std::net::IpAddr;

/// Resolves what stands on the command line.
pub(crate) struct Names<R> {
    config: NamesConfig,
    resolver: Resolver<R>,
    contacted: Vec<IpAddr>,
}

impl<R: Runtime> Names<R> {
    pub(crate) fn new(runtime: &R, args: NamesArgs) -> Names<R> {
        let mut config = NamesConfig::default();
        config.servers = args.dns_server;
        let resolver = Resolver::new(runtime.clone(), config.clone());
        Names { config, resolver, contacted: Vec::new() }
    }

    /// The relays at these addresses. A name that leads nowhere is a warning while there are others.
    pub(crate) async fn relays(&mut self, named: &[Multiaddr]) -> Result<Vec<RelayPeer>, Failed> {
        let all = self.resolved(named).await?;
        let relay = |addr: &Multiaddr| match destination(addr) {
            Ok((addr, Some(peer))) => Some(RelayPeer { peer, addrs: vec![addr] }),
            Ok((_, None)) | Err(_) => None,
        };
        let mut relays = distinct(&all.iter().filter_map(relay).collect::<Vec<_>>());
        for relay in &mut relays {
            // A name leads to as many addresses as its owner likes; they come best first.
            relay.addrs.truncate(RELAY_ADDRS_MAX);
        }
        Ok(relays)
    }

    /// The servers behind relays at these addresses.
    pub(crate) async fn distant(
        &mut self,
        named: &[Multiaddr],
    ) -> Result<Vec<DistantServer>, Failed> {
        let all = self.resolved(named).await?;
        let servers = all.iter().filter_map(|addr| distant_server(addr).ok());
        let mut servers = distinct_servers(&servers.collect::<Vec<_>>());
        for server in &mut servers {
            server.relay.addrs.truncate(RELAY_ADDRS_MAX);
        }
        Ok(servers)
    }

    /// What a node wants to know of all this: how to resolve names, and who was asked already.
    pub(crate) fn done(self) -> (NamesConfig, Vec<IpAddr>) {
        (self.config, self.contacted)
    }

    async fn resolved(&mut self, named: &[Multiaddr]) -> Result<Vec<Multiaddr>, Failed> {
        let mut all = Vec::new();
        let mut failed = None;
        for addr in named {
            let resolved = self.resolver.resolve(addr).await;
            // An address without a name leads to itself, and asks nobody.
            if resolved.as_ref().map_or(true, |found| found.addrs != [addr.clone()]) {
                self.contacted.extend(self.resolver.servers().iter().map(|server| server.ip()));
            }
            match resolved {
                Ok(found) => all.extend(found.addrs),
                Err(error) => {
                    tracing::warn!(%addr, %error, "a name leads nowhere");
                    failed.get_or_insert(format!("{addr}: {error}"));
                }
            }
        }
        match failed {
            Some(failed) if all.is_empty() => Err(Failed::from(failed)),
            Some(_) | None => Ok(all),
        }
    }
}
