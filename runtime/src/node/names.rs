//! Dialling what begins with a name.

use super::{DialError, Dialled, Node, Stopped};
use crate::driver::Command;
use crate::names::{NameError, Resolved};
use crate::traits::Runtime;
use futures::future::{Either, select};
use futures::stream::{FuturesUnordered, StreamExt};
use multiaddr::Multiaddr;
use portolan_core::Duration;
use std::net::IpAddr;
use std::pin::pin;

/// How long an attempt is waited for before the next address is tried beside it, milliseconds; RFC 8305
/// §5: 250 recommended. Names of which the first address is silent are reached later if it grows.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

impl<R: Runtime> Node<R> {
    /// What a multiaddr leads to that begins with a name: multiaddrs that begin with an IP and can be
    /// dialled, in the order in which [`Node::dial`] tries them, and what was left out. One
    /// without a name leads to itself.
    ///
    /// # Errors
    /// If it leads nowhere.
    pub async fn resolve(&self, addr: &Multiaddr) -> Result<Resolved, NameError> {
        let resolver = &self.0.resolver;
        // That servers of names get in shows nothing about strangers. After a shutdown nobody asks.
        let servers = resolver.servers().iter().map(|server| server.ip()).collect();
        let _ = self.about_to_contact(servers).await;
        resolver.resolve(addr).await
    }

    /// Tell core of IPs before anything is sent there.
    pub(crate) async fn about_to_contact(&self, ips: Vec<IpAddr>) -> Result<(), Stopped> {
        self.ask(|reply| Command::Contacted { ips, reply }).await
    }

    pub(super) async fn dial_name(&self, named: Multiaddr) -> Result<Dialled, DialError> {
        let addrs = match self.resolve(&named).await {
            Ok(resolved) => resolved.addrs,
            Err(error) => return Err(DialError::Name { addr: named, error }),
        };
        let mut left = addrs.into_iter();
        let mut dials = FuturesUnordered::new();
        let mut errors = Vec::new();
        let mut tried = 0;
        loop {
            if let Some(addr) = left.next() {
                let turn = tried;
                tried += 1;
                dials.push(async move { (turn, self.dial_ip(addr).await) });
            }
            // The next one waits for this one's failure, or for so long.
            let delay = self.0.runtime.sleep(ATTEMPT_DELAY);
            let delay = async {
                if left.len() == 0 {
                    std::future::pending::<()>().await;
                }
                delay.await;
            };
            match select(dials.next(), pin!(delay)).await {
                Either::Left((Some((_, Ok(dialled))), _)) => return Ok(dialled),
                Either::Left((Some((turn, Err(error))), _)) => errors.push((turn, error)),
                Either::Left((None, _)) => break,
                Either::Right(((), _)) => {}
            }
        }
        errors.sort_by_key(|(turn, _)| *turn);
        let errors = errors.into_iter().map(|(_, error)| error).collect();
        Err(DialError::Nowhere { addr: named, errors })
    }
}
