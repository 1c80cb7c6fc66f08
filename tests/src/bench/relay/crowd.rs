//! Many clients at once, some of them at a time.

use super::Fault;
use super::client::{Client, Manner};
use futures::stream::{self, StreamExt, TryStreamExt};
use portolan_core::{Addr, RelayStatus};
use std::net::IpAddr;

/// Connections that are made at the same time, number: below what a relay lets shake hands.
const AT_ONCE: usize = 16;

/// Connect clients from these sources.
pub(crate) async fn connect(
    relay: Addr,
    sources: impl Iterator<Item = IpAddr>,
) -> Result<Vec<Client>, Fault> {
    let clients = sources.map(|source| Client::connect(relay, source, Manner::Agrees));
    stream::iter(clients).buffer_unordered(AT_ONCE).try_collect().await
}

/// Connect clients from these sources, each with a reservation.
pub(crate) async fn reserve(
    relay: Addr,
    manner: Manner,
    sources: impl Iterator<Item = IpAddr>,
) -> Result<Vec<Client>, Fault> {
    let clients = sources.map(|source| async move {
        let client = Client::connect(relay, source, manner).await?;
        let status = client.reserve().await?;
        if status == RelayStatus::Ok {
            return Ok(client);
        }
        Err(Fault::new(format!("no reservation from {source}: {status:?}")))
    });
    stream::iter(clients).buffer_unordered(AT_ONCE).try_collect().await
}
