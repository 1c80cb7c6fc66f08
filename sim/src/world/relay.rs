//! Relays: what core orders of them, how a bad one differs from core's own, and what is true of
//! reservations.

use super::conn::{EndId, Purpose};
use super::node::Hand;
use super::{CallEnd, NodeId, World};
use crate::watch::Violation;
use bytes::Bytes;
use portolan_core::wire::relay::{HopMessage, StopMessage, Voucher};
use portolan_core::{
    BridgeEnd, CircuitLimit, Duration, Event, PeerId, Protocol, RelayAction, RelayEvent,
    RelayNotice, RelayStatus, Side, StreamId,
};

/// How long core's dial of a relay may take: connecting and handshakes, the runtime's values
/// together.
const CONNECT_MAX: Duration = Duration::from_secs(15);

/// Whom a relay refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Who holds nothing with it: it is full.
    Newcomers(RelayStatus),
    /// Everybody, renewals included.
    Everybody(RelayStatus),
}

/// How a relay differs from what core's own service would do. The default is one that does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayMood {
    /// It says that it is so full, in thousandths.
    pub claims_load: Option<u16>,
    /// It grants nothing to these.
    pub refuses: Option<Refusal>,
    /// It says that what it grants lasts so long, whatever it keeps.
    pub tells_lifetime: Option<Duration>,
    /// It says that a circuit may use this, whatever it allows.
    pub tells_limit: Option<CircuitLimit>,
    /// It opens circuits, and passes nothing.
    pub swallows: bool,
}

impl World {
    /// Have a node be another kind of relay from now on.
    pub fn set_relay_mood(&mut self, NodeId(node): NodeId, mood: RelayMood) {
        self.nodes[node].mood = mood;
    }

    /// The operator of a relay winds it down.
    pub fn drain(&mut self, NodeId(node): NodeId) {
        self.feed(node, Event::Relay(RelayEvent::Draining));
        self.flush_all();
    }

    /// A node closes all its connections, as a process does that ends in good order.
    pub fn hang_up_all(&mut self, NodeId(node): NodeId) {
        let ends: Vec<_> = self.nodes[node].conns.values().copied().collect();
        for end in ends {
            self.close(end);
        }
        self.flush_all();
    }

    /// Whether somebody who calls a client through this relay now would reach it: the relay's table
    /// has it, a connection of both stands whose links carry something, and it passes what it gets.
    pub fn is_served(&self, NodeId(client): NodeId, NodeId(relay): NodeId) -> bool {
        let (it, at) = (&self.nodes[client], &self.nodes[relay]);
        it.is_awake()
            && at.is_awake()
            && at.granted.contains(&it.peer)
            && !at.mood.swallows
            && self.are_joined(client, relay)
    }

    /// Whether a direct connection of two nodes stands on both sides.
    fn are_joined(&self, one: usize, other: usize) -> bool {
        self.nodes[one].conns.values().any(|(conn, role)| {
            let Some(conn) = self.conns.get(conn) else { return false };
            let far = conn.end(role.other());
            far.is_some_and(|far| far.node == other && far.is_up() && far.via.is_none())
        })
    }

    /// A relay says what becomes of its reservations.
    pub(super) fn keeps_table(&mut self, node: usize, news: &RelayNotice) {
        let table = &mut self.nodes[node].granted;
        if let RelayNotice::Granted { peer, .. } = news {
            table.insert(*peer);
        } else if let RelayNotice::ReservationEnded { peer } = news {
            table.remove(peer);
        }
    }

    /// What core orders of relays and circuits.
    pub(super) fn relays(&mut self, node: usize, action: RelayAction) {
        if let Err(what) = self.nodes[node].contract.ordered(&action) {
            let (at, node, promise) = (self.now, NodeId(node), "orders can be carried out");
            self.watch.blame(Violation { at, node, promise, what });
            return;
        }
        match action {
            RelayAction::Connect { peer, addr } => {
                self.dial(node, addr, Purpose::Relay(peer, addr), None, CONNECT_MAX);
            }
            RelayAction::Upgrade { stream, peer, circuit, limit: _ } => {
                self.upgrade(node, stream, peer, circuit);
            }
            RelayAction::CircuitFailed { circuit, reason } => {
                self.call_ends(node, circuit, CallEnd::Failed(reason));
            }
            RelayAction::Bridge { stream, target, bytes_max } => {
                self.bridge(node, stream, target, bytes_max);
            }
            RelayAction::Cut { stream } => self.bridge_over((node, stream), BridgeEnd::Cut),
            // An order that this world does not know is a gap in the world.
            other => unreachable!("{other:?}"),
        }
    }

    /// Whether a relay refuses what it is asked for; then it has said so.
    pub(super) fn is_turned_down(&mut self, end: EndId, stream: StreamId, body: &Bytes) -> bool {
        if (stream.side, stream.protocol) != (Side::Inbound, Protocol::Hop) {
            return false;
        }
        let Some(node) = self.end(end).map(|it| it.node) else { return false };
        let asker = self.end((end.0, end.1.other())).map(|far| far.peer);
        let holds = asker.is_some_and(|asker| self.nodes[node].granted.contains(&asker));
        let status = match self.nodes[node].mood.refuses {
            Some(Refusal::Newcomers(status)) if !holds => status,
            Some(Refusal::Everybody(status)) => status,
            Some(Refusal::Newcomers(_)) | None => return false,
        };
        if !matches!(HopMessage::decode(body), Ok(HopMessage::Reserve)) {
            return false;
        }
        let limit = CircuitLimit::default();
        let body = HopMessage::Status { status, reservation: None, limit }.encode();
        self.say_on(node, stream, body);
        self.finish_stream(node, stream);
        true
    }

    /// What a relay really says of what it grants and allows.
    pub(super) fn bent(&self, node: usize, stream: StreamId, body: Bytes) -> Bytes {
        let it = &self.nodes[node];
        let (lifetime, told) = (it.mood.tells_lifetime, it.mood.tells_limit);
        if lifetime.is_none() && told.is_none() {
            return body;
        }
        match (stream.side, stream.protocol) {
            (Side::Inbound, Protocol::Hop) => {
                let Ok(HopMessage::Status { status, mut reservation, limit }) =
                    HopMessage::decode(&body)
                else {
                    return body;
                };
                if let (Some(lifetime), Some(granted)) = (lifetime, &mut reservation) {
                    granted.expire = (self.unix_now() + lifetime).as_millis() / 1_000;
                    let voucher = granted.voucher.as_ref();
                    let holder = voucher.and_then(|sealed| Voucher::open(sealed).ok());
                    granted.voucher =
                        holder.map(|holder| self.vouch(node, holder.peer, granted.expire));
                }
                let limit = if status == RelayStatus::Ok { told.unwrap_or(limit) } else { limit };
                HopMessage::Status { status, reservation, limit }.encode()
            }
            (Side::Outbound, Protocol::Stop) => match StopMessage::decode(&body) {
                Ok(StopMessage::Connect { peer, limit }) => {
                    StopMessage::Connect { peer, limit: told.unwrap_or(limit) }.encode()
                }
                Ok(_) | Err(_) => body,
            },
            _ => body,
        }
    }

    fn vouch(&self, node: usize, peer: PeerId, expiration: u64) -> Bytes {
        let it = &self.nodes[node];
        let voucher = Voucher { relay: it.peer, peer, expiration };
        voucher.sealed(&it.key.public(), &mut Hand(it.key))
    }

    fn unix_now(&self) -> portolan_core::UnixTime {
        super::node::unix(self.now)
    }
}
