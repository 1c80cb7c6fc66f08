//! What port mapping needs of the operating system: which gateways there are, datagrams to and
//! from them, and HTTP requests.
//!
//! ```text
//!  Channel: one UDP socket ───► datagrams ──┬─► news ────┐
//!  Fetch: one TCP connection ─► its answer ─┘            ├─► whoever drives core
//!  routes and addresses ──────────────────────► changes ─┘
//! ```
//!
//! Nothing here decides: core says which socket, to whom and what. Datagrams that find the news
//! full are lost, as datagrams may be; answers wait.

mod channel;
mod fetch;
#[cfg_attr(any(target_os = "linux", target_os = "android"), path = "gateways_linux.rs")]
#[cfg_attr(not(any(target_os = "linux", target_os = "android")), path = "gateways_other.rs")]
mod gateways;
mod refused;

use crate::driver::Tasks;
use crate::traits::Runtime;
use async_channel::{Receiver, Sender};
use channel::Open;
use fetch::Fetches;
use futures::FutureExt;
use portolan_core::config::GATEWAYS_MAX;
use portolan_core::{Channel, Fetch, Gateway, MappingEvent};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

/// News that wait to be taken, number; ours: a router answers one question at a time, and a
/// network of a hundred devices answers a search within some seconds. When full, datagrams are
/// dropped and answers wait.
const NEWS_MAX: usize = 64;
/// Sockets that speak with routers, number; ours: beyond what core opens for as many gateways as
/// it asks. When full, a further one is not opened.
const CHANNELS_MAX: usize = 32;

/// Sockets and requests to routers. They close and end with it.
pub struct Routers<R: Runtime> {
    runtime: R,
    channels: BTreeMap<Channel, Open>,
    fetches: Fetches,
    news: Sender<MappingEvent>,
    tasks: Tasks<R>,
}

impl<R: Runtime> Routers<R> {
    /// Nothing is open so far. The news are bounded and want to be taken.
    pub fn new(runtime: R) -> (Routers<R>, Receiver<MappingEvent>) {
        let (news, taken) = async_channel::bounded(NEWS_MAX);
        let tasks = Tasks::new(runtime.clone());
        let (channels, fetches) = (BTreeMap::new(), Fetches::new());
        (Routers { runtime, channels, fetches, news, tasks }, taken)
    }

    /// Tell from now on when addresses, interfaces or, if `routes` says so, routes change: when it
    /// is time to look again. What changes before somebody takes the message is told once.
    ///
    /// # Errors
    /// Where the operating system does not tell.
    pub fn watch(&self, routes: bool) -> io::Result<Receiver<()>> {
        let watch = self.runtime.udp(gateways::changes(routes)?)?;
        let (changed, changes) = async_channel::bounded(1);
        let runtime = self.runtime.clone();
        self.tasks.spawn(async move {
            loop {
                if let Err(error) = runtime.read_udp(&watch, gateways::drain).await {
                    tracing::warn!(%error, "the system tells of no more changes of the network");
                    return;
                }
                // If one waits to be taken, it is news enough.
                if changed.try_send(()).is_err_and(|error| error.is_closed()) {
                    return;
                }
            }
        });
        Ok(changes)
    }

    /// Open a socket. One that is open already stays as it is.
    ///
    /// # Errors
    /// Those of the operating system, and when as many are open as may be.
    pub fn open(&mut self, channel: Channel) -> io::Result<()> {
        if self.channels.contains_key(&channel) {
            return Ok(());
        }
        if self.channels.len() >= CHANNELS_MAX {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let (open, receiving) = Open::new(&self.runtime, channel, &self.news)?;
        self.channels.insert(channel, open);
        self.tasks.spawn(receiving.boxed());
        Ok(())
    }

    /// Close a socket, if it is open.
    pub fn close(&mut self, channel: Channel) {
        self.channels.remove(&channel);
    }

    /// Send a datagram. It is lost if there is no room for it, or no way.
    pub fn send(&mut self, channel: Channel, to: SocketAddr, body: &[u8]) {
        match self.channels.get(&channel) {
            Some(open) => open.send(to, body),
            None => tracing::debug!(%channel, %to, "a datagram for a socket that is not open"),
        }
    }

    /// Begin an HTTP request, or let it wait for others to end. If too many wait, the failure is
    /// returned at once.
    #[must_use = "a failure is told once"]
    pub fn fetch(&mut self, fetch: Fetch) -> Option<MappingEvent> {
        let id = fetch.fetch;
        match self.fetches.begin(&self.runtime, fetch, &self.news) {
            Ok(fetching) => {
                self.tasks.spawn(fetching);
                None
            }
            Err(reason) => Some(MappingEvent::FetchFailed { fetch: id, reason }),
        }
    }

    /// Close every socket and end every request.
    pub async fn shutdown(self) {
        let Routers { channels, tasks, .. } = self;
        drop(channels);
        tasks.end().await;
    }
}

impl<R: Runtime> fmt::Debug for Routers<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routers").field("channels", &self.channels).finish_non_exhaustive()
    }
}

/// The routers of the host's default routes, the preferred one of each family first, at most as
/// many as core asks; each with the address from which the host sends that way. Over IPv6 that is
/// the one from which it sends to the world, for it is what a router opens its firewall for.
///
/// # Errors
/// Those of asking the operating system.
pub fn gateways() -> io::Result<Vec<Gateway>> {
    let mut found = gateways::read()?;
    // An interface that has just gone down leaves its routes behind for a moment.
    let ours = crate::net::interface_ips()?;
    found.retain(|gateway| ours.contains(&gateway.source));
    Ok(merge(found))
}

/// Take turns between the families: the first of each before the second of any.
fn merge(found: Vec<Gateway>) -> Vec<Gateway> {
    let (four, six): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|gateway| gateway.router.is_ipv4());
    let (four, six) = (four.into_iter().enumerate(), six.into_iter().enumerate());
    let mut ranked: Vec<(usize, Gateway)> = four.chain(six).collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, gateway)| gateway).take(GATEWAYS_MAX).collect()
}

/// An IP as a socket address on an interface. The interface is named where the IP alone does not
/// say which one is meant.
fn on_interface(ip: IpAddr, port: u16, interface: u32) -> SocketAddr {
    if let IpAddr::V6(six) = ip
        && (six.is_unicast_link_local() || six.is_multicast())
    {
        return SocketAddrV6::new(six, port, 0, interface).into();
    }
    SocketAddr::new(ip, port)
}

/// A socket address without the scope that the operating system adds.
fn bare(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip(), addr.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_gateway_of_each_family_comes_before_the_second_of_any() {
        let gateway = |router: &str| Gateway {
            router: router.parse().expect("an IP"),
            interface: 2,
            source: "10.0.0.2".parse().expect("an IP"),
        };
        let found = ["10.0.0.1", "10.0.1.1", "10.0.2.1", "10.0.3.1", "fe80::1", "fe80::2"];
        let merged = merge(found.map(gateway).into());
        let routers: Vec<String> = merged.iter().map(|one| one.router.to_string()).collect();
        assert_eq!(routers, ["10.0.0.1", "fe80::1", "10.0.1.1", "fe80::2"]);
    }

    #[test]
    fn only_addresses_of_one_link_name_their_interface() {
        let on = |ip: &str| on_interface(ip.parse().expect("an IP"), 7, 3).to_string();
        assert_eq!(on("fe80::1"), "[fe80::1%3]:7");
        assert_eq!(on("ff02::1"), "[ff02::1%3]:7");
        assert_eq!(on("2600::1"), "[2600::1]:7");
        assert_eq!(on("10.0.0.1"), "10.0.0.1:7");
    }
}
