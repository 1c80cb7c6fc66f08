//! What the driver does for hole punching: dials that core orders, until they end or core has enough.
//!
//! ```text
//!  Dial ─► under way ─► a connection, admitted like any   ─► Connected
//!              │   └──► failed                            ─► Failed
//!              └► Cancel ─► stopping ─► (a server, or a plain dial, that was connected) ─► Connected
//! ```
//!
//! Limits: [`PUNCHES_MAX`] dials, those that are stopping included.

use super::fact::{AppDial, Fact};
use super::{Driver, Role};
use crate::net::{DialError, Established, PUNCHES_MAX};
use crate::node::{CircuitRoute, circuit_address};
use crate::traits::Runtime;
use futures::FutureExt;
use futures::channel::oneshot;
use portolan_core::{
    Addr, DialFailure, Duration, Event, PeerId, PunchAction, PunchEvent, PunchId, PunchWay,
};
use std::collections::BTreeMap;

/// The dials of hole punching.
#[derive(Debug)]
pub(super) struct Punches {
    /// Whether core punches.
    wanted: bool,
    under_way: BTreeMap<PunchId, Dialling>,
}

#[derive(Debug)]
struct Dialling {
    way: PunchWay,
    /// Dropping it cancels the dial; one without has been cancelled.
    hold: Option<oneshot::Sender<()>>,
}

impl Punches {
    pub(super) fn new(wanted: bool) -> Punches {
        Punches { wanted, under_way: BTreeMap::new() }
    }

    pub(super) fn are_wanted(&self) -> bool {
        self.wanted
    }

    fn cancel(&mut self, punch: PunchId) {
        if let Some(dialling) = self.under_way.get_mut(&punch) {
            dialling.hold = None;
        }
    }

    /// Nobody waits any more: the node ends.
    pub(super) fn end(&mut self) {
        self.under_way.values_mut().for_each(|dialling| dialling.hold = None);
    }
}

impl<R: Runtime> Driver<R> {
    pub(super) fn perform_punch(&mut self, action: PunchAction) {
        match action {
            PunchAction::Dial { punch, peer, addr, way, timeout } => {
                self.punch(punch, peer, (addr, way), timeout);
            }
            PunchAction::Cancel { punch } => self.punches.cancel(punch),
            PunchAction::CallAgain { peer, relay, addr } => self.call_again(peer, relay, addr),
            // Core and runtime are versioned together: there is no other order.
            _ => debug_assert!(false, "an order that the driver does not know"),
        }
    }

    fn punch(&mut self, punch: PunchId, peer: PeerId, to: (Addr, PunchWay), patience: Duration) {
        let (addr, way) = to;
        if self.stopping.is_some() || self.punches.under_way.len() >= PUNCHES_MAX {
            let reason = DialFailure::LocalFault;
            self.found.push_back(Event::Punch(PunchEvent::Failed { punch, reason }));
            return;
        }
        let (hold, cancelled) = oneshot::channel();
        self.punches.under_way.insert(punch, Dialling { way, hold: Some(hold) });
        // The first packet is about to leave, whatever becomes of the dial.
        self.found.push_back(Event::Contacted { ip: addr.ip });
        let (net, facts) = (self.parts.net.clone(), self.parts.common.facts.clone());
        self.tasks.spawn(async move {
            // Nothing is ever sent.
            let cancelled = cancelled.map(|_| ());
            let result = net.punch(addr, peer, way, patience, cancelled).await;
            facts.tell(Fact::PunchDialled { punch, addr, result }).await;
        });
    }

    /// Dial a peer through a relay, as the application would.
    fn call_again(&mut self, peer: PeerId, relay: PeerId, addr: Addr) {
        if self.stopping.is_some() {
            return;
        }
        let named = circuit_address(addr, relay, peer);
        let (reply, answer) = oneshot::channel();
        // Without somebody who waits for it, the circuit would be given up.
        self.tasks.spawn(async move {
            if let Ok(Err(error)) = answer.await {
                tracing::debug!(%peer, %error, "no circuit beside a connection that is about to break");
            }
        });
        let route = CircuitRoute { relay, addr: Some(addr), peer };
        self.dial_through(AppDial { addr: named, reply }, route);
    }

    /// A dial of hole punching has ended, with a connection, in vain, or because it was cancelled.
    pub(super) fn punch_dialled(
        &mut self,
        punch: PunchId,
        addr: Addr,
        result: Result<Option<Established>, DialError>,
    ) {
        let ended = self.punches.under_way.remove(&punch);
        let waited_for = ended.as_ref().is_some_and(|one| one.hold.is_some());
        let is_sample = ended.is_some_and(|one| one.way == PunchWay::Sample);
        let reason = match result {
            Ok(None) => return,
            // Nobody has any use for a sample that comes too late.
            Ok(Some(found)) if is_sample && !waited_for => return found.muxer.abort(),
            Ok(Some(found)) if self.may_keep(&found) => {
                let muxer = found.muxer.clone();
                match self.admit(found, Role::Peer) {
                    Ok(_) => return,
                    Err(refusal) => {
                        muxer.abort();
                        tracing::debug!(%punch, %addr, ?refusal, "cannot keep a connection");
                        DialFailure::LocalFault
                    }
                }
            }
            Ok(Some(_)) => DialFailure::LocalFault,
            Err(error) => {
                tracing::debug!(%punch, %addr, %error, "no hole was punched");
                error.failure()
            }
        };
        // Nobody waits for the end of what was cancelled.
        if waited_for {
            self.feed(Event::Punch(PunchEvent::Failed { punch, reason }));
        }
    }
}
