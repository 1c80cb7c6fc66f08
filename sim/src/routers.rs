//! The contract of orders about routers: which of them a runtime could carry out.

use portolan_core::{Channel, FetchId, MappingAction, MappingEvent};
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// The sockets that stand and the requests that are under way, as a runtime knows them.
#[derive(Clone, Debug, Default)]
pub struct Routers {
    channels: BTreeSet<Channel>,
    fetches: BTreeSet<FetchId>,
    last_fetch: u64,
}

impl Routers {
    /// The sockets that stand.
    pub fn channels(&self) -> impl Iterator<Item = Channel> + '_ {
        self.channels.iter().copied()
    }

    /// The requests that are under way.
    pub fn fetches(&self) -> impl Iterator<Item = FetchId> + '_ {
        self.fetches.iter().copied()
    }

    /// Take in a fact.
    pub fn happened(&mut self, event: &MappingEvent) {
        match event {
            MappingEvent::Fetched { fetch, .. } | MappingEvent::FetchFailed { fetch, .. } => {
                self.fetches.remove(fetch);
            }
            MappingEvent::GatewaysChanged { .. }
            | MappingEvent::DatagramReceived { .. }
            | MappingEvent::DatagramRefused { .. }
            | MappingEvent::LedgerRead { .. }
            | MappingEvent::Closing
            | _ => {}
        }
    }

    /// Take in an order.
    ///
    /// # Errors
    /// Nobody could carry it out.
    pub fn ordered(&mut self, action: &MappingAction) -> Result<(), String> {
        match action {
            MappingAction::OpenChannel { channel } => match self.channels.insert(*channel) {
                true => Ok(()),
                false => Err(format!("{channel} is opened twice")),
            },
            MappingAction::CloseChannel { channel } => match self.channels.remove(channel) {
                true => Ok(()),
                false => Err(format!("{channel} is closed, but is not open")),
            },
            MappingAction::SendDatagram { channel, to, .. } => {
                if !self.channels.contains(channel) {
                    return Err(format!("{channel} sends, but is not open"));
                }
                if matches!(channel, Channel::Group { .. }) {
                    return Err(format!("{channel} only hears, but sends"));
                }
                sendable(*channel, *to)
            }
            MappingAction::Fetch(order) => {
                if order.fetch.0 <= self.last_fetch {
                    return Err(format!("{} is no fresh name of a request", order.fetch));
                }
                self.last_fetch = order.fetch.0;
                self.fetches.insert(order.fetch);
                let channel = Channel::Client { source: order.source, interface: order.interface };
                sendable(channel, order.to)
            }
            MappingAction::StoreLedger { .. } | _ => Ok(()),
        }
    }
}

/// From an address of one family to a port of the same.
fn sendable(channel: Channel, to: SocketAddr) -> Result<(), String> {
    let (Channel::Client { source, .. } | Channel::Group { source, .. }) = channel;
    if source.is_ipv4() != to.is_ipv4() || to.port() == 0 {
        return Err(format!("nothing gets from {channel} to {to}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_core::{Duration, Fetch, FetchFailure};

    const SOURCE: [u8; 4] = [192, 168, 1, 7];

    fn client() -> Channel {
        Channel::Client { source: SOURCE.into(), interface: 2 }
    }

    fn group() -> Channel {
        let group = SocketAddr::from(([224, 0, 0, 1], 5350));
        Channel::Group { group, source: SOURCE.into(), interface: 2 }
    }

    fn send(channel: Channel, to: &str) -> MappingAction {
        let to = to.parse().expect("a socket");
        MappingAction::SendDatagram { channel, to, body: bytes::Bytes::new() }
    }

    fn fetch(number: u64) -> MappingAction {
        MappingAction::Fetch(Fetch {
            fetch: FetchId(number),
            source: SOURCE.into(),
            interface: 2,
            to: SocketAddr::from(([192, 168, 1, 1], 80)),
            path: "/".to_owned(),
            soap: None,
            timeout: Duration::from_secs(1),
        })
    }

    #[test]
    fn only_what_stands_sends_and_closes() {
        let mut routers = Routers::default();
        let good = "192.168.1.1:5351";
        routers.ordered(&send(client(), good)).expect_err("it is not open");
        for channel in [client(), group()] {
            routers.ordered(&MappingAction::OpenChannel { channel }).expect("it is new");
            routers.ordered(&MappingAction::OpenChannel { channel }).expect_err("it stands");
        }
        routers.ordered(&send(client(), good)).expect("it is open");
        routers.ordered(&send(client(), "192.168.1.1:0")).expect_err("no port");
        routers.ordered(&send(client(), "[::1]:5351")).expect_err("the other family");
        routers.ordered(&send(group(), good)).expect_err("it only hears");
        let close = MappingAction::CloseChannel { channel: client() };
        routers.ordered(&close).expect("it is open");
        routers.ordered(&close).expect_err("it is closed");
        assert_eq!(routers.channels().collect::<Vec<_>>(), [group()]);
    }

    #[test]
    fn requests_have_fresh_names_until_they_are_answered() {
        let mut routers = Routers::default();
        routers.ordered(&fetch(1)).expect("it is new");
        routers.ordered(&fetch(3)).expect("it is new");
        routers.ordered(&fetch(3)).expect_err("the same name");
        routers.ordered(&fetch(2)).expect_err("an older name");
        assert_eq!(routers.fetches().collect::<Vec<_>>(), [FetchId(1), FetchId(3)]);
        let reason = FetchFailure::TimedOut;
        routers.happened(&MappingEvent::FetchFailed { fetch: FetchId(1), reason });
        assert_eq!(routers.fetches().collect::<Vec<_>>(), [FetchId(3)]);
    }
}
