//! What the driver does for port mapping: tells core of gateways, performs what it orders of
//! routers, keeps its ledger, and gives it time to return its mappings at the end.

use super::Driver;
use super::limits::RELEASE_TIMEOUT;
use crate::ledger::Ledger;
use crate::routers::{self, Routers};
use crate::traits::Runtime;
use async_channel::Receiver;
use bytes::Bytes;
use portolan_core::{Event, Gateway, Instant, MappingAction, MappingEvent};

/// What the driver has for port mapping.
pub(crate) struct Mapping<R: Runtime> {
    routers: Routers<R>,
    /// Whether core maps ports. If it does not, it hears of no gateways.
    wanted: bool,
    ledger: Option<Ledger>,
    /// As core was told; none before it was.
    gateways: Option<Vec<Gateway>>,
    /// Told when it is time to look around. Where there is none, the time tells.
    changes: Option<Receiver<()>>,
}

impl<R: Runtime> Mapping<R> {
    pub(crate) fn new(routers: Routers<R>, wanted: bool, ledger: Option<Ledger>) -> Mapping<R> {
        Mapping { routers, wanted, ledger, gateways: None, changes: None }
    }

    /// Resolves when there was a change around us.
    pub(super) async fn changed(&self) {
        if let Some(changes) = &self.changes
            && changes.recv().await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }

    /// Close what is open, and wait until the ledger is stored.
    pub(super) async fn end(self) {
        self.routers.shutdown().await;
        if let Some(ledger) = &self.ledger {
            ledger.written().await;
        }
    }
}

impl<R: Runtime> Driver<R> {
    /// Hand core what an earlier run has stored, and see what there is around us from now on.
    pub(super) fn open_eyes(&mut self, ledger: Option<Bytes>) {
        if let Some(ledger) = ledger {
            self.feed(Event::Mapping(MappingEvent::LedgerRead { ledger }));
        }
        match self.mapping.routers.watch(self.mapping.wanted) {
            Ok(changes) => self.mapping.changes = Some(changes),
            Err(error) => tracing::debug!(%error, "nobody tells of changes of the network"),
        }
        self.look_around();
    }

    /// The gateways, if they are not those that core knows.
    pub(super) fn changed_gateways(&mut self) -> Option<Event> {
        if !self.mapping.wanted {
            return None;
        }
        let gateways = match routers::gateways() {
            Ok(gateways) => gateways,
            Err(error) => {
                tracing::warn!(%error, "cannot find the gateways");
                // What was known may be so still; core hears of something in any case.
                self.mapping.gateways.clone().unwrap_or_default()
            }
        };
        if self.mapping.gateways.as_ref() == Some(&gateways) {
            return None;
        }
        tracing::info!(?gateways, "gateways");
        self.mapping.gateways = Some(gateways.clone());
        Some(Event::Mapping(MappingEvent::GatewaysChanged { gateways }))
    }

    pub(super) fn perform_mapping(&mut self, action: MappingAction) {
        let routers = &mut self.mapping.routers;
        match action {
            MappingAction::OpenChannel { channel } => {
                if let Err(error) = routers.open(channel) {
                    tracing::warn!(%channel, %error, "cannot open a socket to speak with a router");
                }
            }
            MappingAction::CloseChannel { channel } => routers.close(channel),
            MappingAction::SendDatagram { channel, to, body } => routers.send(channel, to, &body),
            MappingAction::Fetch(fetch) => {
                let failed = routers.fetch(fetch);
                self.found.extend(failed.map(Event::Mapping));
            }
            MappingAction::StoreLedger { ledger: bytes } => {
                if let Some(ledger) = &self.mapping.ledger {
                    ledger.store(bytes);
                }
            }
            // Core and runtime are versioned together: there is no other order.
            _ => debug_assert!(false, "an order that the driver does not know"),
        }
    }

    /// The node is about to end: ask core to give back its mappings. Returns until when there is
    /// time for that.
    pub(super) fn release(&mut self) -> Instant {
        let now = self.now();
        if !self.mapping.wanted {
            return now;
        }
        self.feed(Event::Mapping(MappingEvent::Closing));
        now + RELEASE_TIMEOUT
    }

    /// Whether core has given back all mappings that it can.
    pub(super) fn has_released(&self) -> bool {
        self.parts.agent.has_released()
    }
}
