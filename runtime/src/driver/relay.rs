//! What the driver does for relaying: dials relays, makes connections out of streams that stand as
//! circuits, joins streams for others, and leads the application's dials through relays.
//!
//! ```text
//!  a dial through a relay:  reaching the relay ─► asked (core) ─► shaking hands ─► Connected
//!                            (unless connected)
//! ```
//!
//! Limits: such dials count among the application's; circuits by `Limits`; bridges by core's.

use super::Driver;
use super::bridge::{self, Bridged};
use super::commands::refused;
use super::fact::{AppDial, Fact, Upgraded};
use super::table::Via;
use super::{Dialled, Role};
use crate::net::{self, Established};
use crate::node::{CircuitRoute, DialError};
use crate::traits::Runtime;
use futures::channel::oneshot;
use futures::future::{self, Either};
use portolan_core::{
    Addr, BridgeEnd, CircuitId, CircuitLimit, ConnId, DialFailure, Event, PeerId, RelayAction,
    RelayEvent, Side, StreamId,
};
use std::collections::BTreeMap;

/// What the driver has for relaying.
#[derive(Debug)]
pub(super) struct Circuits {
    /// Whether core uses relays. If it does not, it opens no circuits.
    wanted: bool,
    next: u64,
    wishes: BTreeMap<CircuitId, Wish>,
    /// Handshakes under way over streams that a relay brought, by relay; never an entry of zero.
    shaking: BTreeMap<PeerId, usize>,
    /// By the initiator's stream. Dropping what is held here cuts the bridge.
    bridges: BTreeMap<StreamId, oneshot::Sender<()>>,
}

/// A dial of the application that leads through a relay.
#[derive(Debug)]
struct Wish {
    dial: AppDial,
    relay: PeerId,
    peer: PeerId,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The relay is being dialled.
    Reaching,
    /// Core was asked, and has not answered.
    Asked,
    /// The circuit stands, and hands are shaken over it.
    Shaking,
}

impl Circuits {
    pub(super) fn new(wanted: bool) -> Circuits {
        Circuits {
            wanted,
            next: 0,
            wishes: BTreeMap::new(),
            shaking: BTreeMap::new(),
            bridges: BTreeMap::new(),
        }
    }

    fn mint(&mut self) -> CircuitId {
        let circuit = CircuitId(self.next);
        self.next += 1;
        circuit
    }

    /// The handshake over a stream that this relay brought is over.
    fn shaken(&mut self, relay: PeerId) {
        let rest = self.shaking.get(&relay).map_or(0, |count| count.saturating_sub(1));
        if rest == 0 {
            self.shaking.remove(&relay);
        } else {
            self.shaking.insert(relay, rest);
        }
    }

    /// Nothing is passed any more, and nobody is waited for: the node ends.
    pub(super) fn end(&mut self) {
        self.bridges.clear();
        for (_, wish) in std::mem::take(&mut self.wishes) {
            drop(wish.dial.reply.send(Err(DialError::Stopped)));
        }
    }
}

impl<R: Runtime> Driver<R> {
    pub(super) fn perform_relay(&mut self, action: RelayAction) {
        match action {
            RelayAction::Connect { peer, addr } => self.connect_relay(peer, addr),
            RelayAction::Upgrade { stream, peer, circuit, limit } => {
                self.upgrade(stream, peer, circuit, limit);
            }
            RelayAction::CircuitFailed { circuit, reason } => {
                self.give_up(circuit, |addr, _| DialError::Circuit { addr, reason });
            }
            RelayAction::Bridge { stream, target, bytes_max } => {
                self.bridge(stream, target, bytes_max);
            }
            RelayAction::Cut { stream } => drop(self.circuits.bridges.remove(&stream)),
            // Core and runtime are versioned together: there is no other order.
            _ => debug_assert!(false, "an order that the driver does not know"),
        }
    }

    fn connect_relay(&mut self, peer: PeerId, addr: Addr) {
        if self.stopping.is_some() || self.dials >= self.parts.common.limits.pending_dials_max {
            let reason = DialFailure::LocalFault;
            let failed = RelayEvent::ConnectFailed { peer, addr, reason };
            self.found.push_back(Event::Relay(failed));
            return;
        }
        self.dials += 1;
        // The first packet is about to leave, whatever becomes of the dial.
        self.found.push_back(Event::Contacted { ip: addr.ip });
        let (net, facts) = (self.parts.net.clone(), self.parts.common.facts.clone());
        self.tasks.spawn(async move {
            let result = net.dial(addr, Some(peer)).await;
            facts.tell(Fact::RelayDialled { peer, addr, result }).await;
        });
    }

    /// A dial to a relay that core asked for has ended.
    pub(super) fn relay_dialled(
        &mut self,
        peer: PeerId,
        addr: Addr,
        result: Result<Established, net::DialError>,
    ) {
        self.dials = self.dials.saturating_sub(1);
        let reason = match result {
            Ok(found) if self.may_keep(&found) => match self.admit(found, Role::Peer) {
                Ok(_) => return,
                Err(refusal) => {
                    tracing::debug!(%peer, %addr, ?refusal, "cannot keep a relay: too many");
                    DialFailure::LocalFault
                }
            },
            Ok(_) => DialFailure::LocalFault,
            Err(error) => {
                tracing::debug!(%peer, %addr, %error, "cannot reach a relay");
                error.failure()
            }
        };
        self.feed(Event::Relay(RelayEvent::ConnectFailed { peer, addr, reason }));
    }

    /// A connection that nobody could use is dropped, hence closed.
    pub(super) fn may_keep(&self, found: &Established) -> bool {
        self.stopping.is_none() && found.peer != self.parts.agent.peer_id()
    }

    /// Lead a dial of the application through a relay.
    pub(super) fn dial_through(&mut self, mut dial: AppDial, route: CircuitRoute) {
        let CircuitRoute { relay, addr, peer } = route;
        let own = self.parts.agent.peer_id();
        let connected = self.table.direct(relay);
        let refusal = if peer == own || relay == own {
            DialError::Oneself(dial.addr)
        } else if !self.circuits.wanted {
            DialError::NoRelays(dial.addr)
        } else if self.dials >= self.parts.common.limits.pending_dials_max {
            DialError::TooManyDials(dial.addr)
        } else if connected.is_none() && addr.is_none() {
            DialError::NotConnected { addr: dial.addr, relay }
        } else {
            let circuit = self.circuits.mint();
            dial.reply = self.watched(circuit, dial.reply);
            let wish = Wish { dial, relay, peer, stage: Stage::Reaching };
            self.circuits.wishes.insert(circuit, wish);
            self.dials += 1;
            match (connected, addr) {
                (Some(conn), _) => self.ask_for(circuit, conn),
                (None, Some(addr)) => self.reach_relay(circuit, relay, addr),
                (None, None) => {}
            }
            return;
        };
        drop(dial.reply.send(Err(refusal)));
    }

    /// A reply that tells when nobody waits for it any more.
    fn watched(
        &self,
        circuit: CircuitId,
        mut reply: oneshot::Sender<Result<Dialled, DialError>>,
    ) -> oneshot::Sender<Result<Dialled, DialError>> {
        let (watched, answer) = oneshot::channel();
        let facts = self.parts.common.facts.clone();
        self.tasks.spawn(async move {
            let answer = match future::select(answer, reply.cancellation()).await {
                Either::Left((answer, _)) => answer,
                Either::Right(_) => return facts.tell(Fact::CircuitForgotten { circuit }).await,
            };
            if let Ok(answer) = answer {
                drop(reply.send(answer));
            }
        });
        watched
    }

    fn reach_relay(&mut self, circuit: CircuitId, relay: PeerId, addr: Addr) {
        self.feed(Event::Contacted { ip: addr.ip });
        let (net, facts) = (self.parts.net.clone(), self.parts.common.facts.clone());
        self.tasks.spawn(async move {
            let result = net.dial(addr, Some(relay)).await;
            facts.tell(Fact::RelayReached { circuit, result }).await;
        });
    }

    /// The dial to the relay of a circuit has ended.
    pub(super) fn relay_reached(
        &mut self,
        circuit: CircuitId,
        result: Result<Established, net::DialError>,
    ) {
        let Some(wish) = self.circuits.wishes.get(&circuit) else {
            // Nobody waits any more, and nobody needs the connection; the dial was counted until now.
            self.dials = self.dials.saturating_sub(1);
            return;
        };
        let relay = wish.relay;
        let conn = match result {
            Ok(found) => match self.admit(found, Role::Peer) {
                Ok(conn) => conn,
                Err(refusal) => {
                    return self.give_up(circuit, |addr, _| refused(addr, relay, refusal));
                }
            },
            Err(error) => {
                return self.give_up(circuit, |addr, _| DialError::Relay { addr, error });
            }
        };
        self.ask_for(circuit, conn);
    }

    /// Ask core for a circuit over this connection.
    fn ask_for(&mut self, circuit: CircuitId, conn: ConnId) {
        let Some(wish) = self.circuits.wishes.get_mut(&circuit) else { return };
        wish.stage = Stage::Asked;
        let peer = wish.peer;
        self.feed(Event::Relay(RelayEvent::CircuitWanted { circuit, conn, peer }));
    }

    /// Nobody waits for a circuit any more. Where it stands already, its connection is welcome.
    pub(super) fn circuit_forgotten(&mut self, circuit: CircuitId) {
        let Some(wish) = self.circuits.wishes.remove(&circuit) else { return };
        // A dial that is under way goes on to its own end.
        if wish.stage != Stage::Reaching {
            self.dials = self.dials.saturating_sub(1);
        }
        if wish.stage == Stage::Asked {
            self.feed(Event::Relay(RelayEvent::CircuitForgotten { circuit }));
        }
    }

    /// The dial that wanted this circuit fails.
    fn give_up(
        &mut self,
        circuit: CircuitId,
        error: impl FnOnce(multiaddr::Multiaddr, PeerId) -> DialError,
    ) {
        let Some(wish) = self.circuits.wishes.remove(&circuit) else { return };
        self.dials = self.dials.saturating_sub(1);
        let error = error(wish.dial.addr, wish.peer);
        tracing::debug!(%error, "a dial failed");
        drop(wish.dial.reply.send(Err(error)));
    }

    /// Make a connection out of a stream that stands as a circuit.
    fn upgrade(
        &mut self,
        stream: StreamId,
        peer: PeerId,
        circuit: Option<CircuitId>,
        limit: CircuitLimit,
    ) {
        let carrier = self.table.carrier(stream);
        let carrier = carrier.map(|conn| (conn.peer, conn.local, conn.remote));
        let orders = self.table.remove_stream(stream);
        let (Some((relay, local, remote)), Some(orders)) = (carrier, orders) else {
            return self.not_upgraded(stream, circuit);
        };
        // Who opened the stream is the dialler on the circuit.
        let side = stream.side;
        if side == Side::Inbound {
            let shaking = self.circuits.shaking.get(&relay).copied().unwrap_or(0);
            let max = self.parts.common.limits.circuits_per_relay_max;
            if shaking + self.table.circuits_from(relay) >= max {
                tracing::debug!(%relay, %peer, "reset a circuit: too many through this relay");
                orders.reset();
                return self.not_upgraded(stream, circuit);
            }
            self.circuits.shaking.insert(relay, shaking + 1);
        }
        let wish = circuit.and_then(|circuit| self.circuits.wishes.get_mut(&circuit));
        if let Some(wish) = wish {
            wish.stage = Stage::Shaking;
        }
        let via = Via { relay, limit };
        let common = self.parts.common.clone();
        let (net, handing) = (self.parts.net.clone(), orders.hand_over());
        self.tasks.spawn(async move {
            let taken = handing.taken(&common.runtime, common.limits.negotiation_timeout).await;
            let result = match taken {
                Some(io) => Some(net.shake_hands(io, peer, side, (local, remote)).await),
                None => None,
            };
            common.facts.tell(Fact::Upgraded(Upgraded { stream, circuit, via, result })).await;
        });
    }

    fn not_upgraded(&mut self, stream: StreamId, circuit: Option<CircuitId>) {
        self.found.push_back(Event::Relay(RelayEvent::UpgradeFailed { stream }));
        if let Some(circuit) = circuit {
            self.give_up(circuit, |addr, _| DialError::CircuitBroke(addr));
        }
    }

    /// Hands were shaken over a circuit, or they were not.
    pub(super) fn upgraded(&mut self, upgraded: Upgraded) {
        let Upgraded { stream, circuit, via, result } = upgraded;
        if stream.side == Side::Inbound {
            self.circuits.shaken(via.relay);
        }
        let error: Box<dyn FnOnce(multiaddr::Multiaddr, PeerId) -> DialError> = match result {
            Some(Ok(found)) if self.may_keep(&found) => {
                let muxer = found.muxer.clone();
                let Established { peer, local, remote, rtt, .. } = found;
                match self.admit(found, Role::Circuit(via)) {
                    Ok(conn) => {
                        let relayed = true;
                        let port_reused = false;
                        let dialled =
                            Dialled { peer, conn, local, remote, port_reused, rtt, relayed };
                        return self.arrive(circuit, dialled);
                    }
                    Err(refusal) => {
                        muxer.abort();
                        Box::new(move |addr, peer| refused(addr, peer, refusal))
                    }
                }
            }
            Some(Ok(_)) => Box::new(|_, _| DialError::Stopped),
            Some(Err(error)) => {
                tracing::debug!(%stream, relay = %via.relay, %error, "no connection on a circuit");
                Box::new(move |addr, _| DialError::Failed { addr, error })
            }
            None => Box::new(|addr, _| DialError::CircuitBroke(addr)),
        };
        self.feed(Event::Relay(RelayEvent::UpgradeFailed { stream }));
        if let Some(circuit) = circuit {
            self.give_up(circuit, error);
        }
    }

    /// The dial that wanted a circuit has its connection.
    fn arrive(&mut self, circuit: Option<CircuitId>, dialled: Dialled) {
        let Some(wish) = circuit.and_then(|circuit| self.circuits.wishes.remove(&circuit)) else {
            return;
        };
        self.dials = self.dials.saturating_sub(1);
        drop(wish.dial.reply.send(Ok(dialled)));
    }

    /// Join two streams for others.
    fn bridge(&mut self, stream: StreamId, target: StreamId, bytes_max: Option<u64>) {
        let sides = (self.table.remove_stream(stream), self.table.remove_stream(target));
        let (initiator, target) = match sides {
            (Some(initiator), Some(target)) => (initiator, target),
            (alone, None) | (None, alone) => {
                // Dropping its orders would let it finish.
                if let Some(alone) = alone {
                    alone.reset();
                }
                let (end, forth, back) = (BridgeEnd::Reset, 0, 0);
                let ended = RelayEvent::BridgeEnded { stream, end, forth, back };
                self.found.push_back(Event::Relay(ended));
                return;
            }
        };
        let (hold, cut) = oneshot::channel();
        self.circuits.bridges.insert(stream, hold);
        let common = self.parts.common.clone();
        let sides = (initiator.hand_over(), target.hand_over());
        self.tasks.spawn(async move {
            let patience = common.limits.negotiation_timeout;
            let bridged = bridge::run(&common.runtime, patience, sides, bytes_max, cut).await;
            common.facts.tell(Fact::BridgeEnded { stream, bridged }).await;
        });
    }

    /// A bridge is over.
    pub(super) fn bridge_ended(&mut self, stream: StreamId, bridged: Bridged) {
        self.circuits.bridges.remove(&stream);
        let Bridged { end, forth, back } = bridged;
        tracing::debug!(%stream, ?end, forth, back, "a bridge is over");
        self.feed(Event::Relay(RelayEvent::BridgeEnded { stream, end, forth, back }));
    }
}
