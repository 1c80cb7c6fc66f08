//! The contract of orders about relays and circuits: which of them a runtime could carry out.

use portolan_core::{CircuitId, Protocol, RelayAction, RelayEvent, Side, StreamId};
use std::collections::{BTreeMap, BTreeSet};

/// The circuits that are wanted and the bridges that stand, as a runtime knows them.
#[derive(Clone, Debug, Default)]
pub struct Relays {
    circuits: BTreeSet<CircuitId>,
    /// Each by the initiator's stream, and whether it was cut.
    bridges: BTreeMap<StreamId, bool>,
}

impl Relays {
    /// The circuits that are wanted and have no answer.
    pub fn circuits(&self) -> impl DoubleEndedIterator<Item = CircuitId> + '_ {
        self.circuits.iter().copied()
    }

    /// The bridges that stand, by the initiator's stream.
    pub fn bridges(&self) -> impl DoubleEndedIterator<Item = StreamId> + '_ {
        self.bridges.keys().copied()
    }

    /// Take in a fact.
    pub fn happened(&mut self, event: &RelayEvent) {
        match event {
            RelayEvent::CircuitWanted { circuit, .. } => {
                self.circuits.insert(*circuit);
            }
            RelayEvent::CircuitForgotten { circuit } => {
                self.circuits.remove(circuit);
            }
            RelayEvent::BridgeEnded { stream, .. } => {
                self.bridges.remove(stream);
            }
            RelayEvent::ConnectFailed { .. }
            | RelayEvent::UpgradeFailed { .. }
            | RelayEvent::Draining
            | _ => {}
        }
    }

    /// Take in an order. Whoever keeps the streams looks whether those that it hands over can still
    /// be written to, and forgets them: they are core's no more.
    ///
    /// # Errors
    /// Nobody could carry it out.
    pub fn ordered(&mut self, action: &RelayAction) -> Result<Vec<StreamId>, String> {
        match action {
            RelayAction::Upgrade { stream, circuit, .. } => {
                match (stream.side, stream.protocol) {
                    (Side::Outbound, Protocol::Hop) | (Side::Inbound, Protocol::Stop) => {}
                    _ => return Err(format!("{stream} is no end of a circuit")),
                }
                circuit.map_or(Ok(()), |circuit| self.answered(circuit))?;
                Ok(vec![*stream])
            }
            RelayAction::CircuitFailed { circuit, .. } => {
                self.answered(*circuit)?;
                Ok(Vec::new())
            }
            RelayAction::Bridge { stream, target, .. } => {
                let is =
                    |one: &StreamId, side, protocol| (one.side, one.protocol) == (side, protocol);
                if !is(stream, Side::Inbound, Protocol::Hop)
                    || !is(target, Side::Outbound, Protocol::Stop)
                {
                    return Err(format!("{stream} and {target} are not the ends of a bridge"));
                }
                match self.bridges.insert(*stream, false) {
                    None => Ok(vec![*stream, *target]),
                    Some(_) => Err(format!("{stream} is bridged twice")),
                }
            }
            RelayAction::Cut { stream } => match self.bridges.get_mut(stream) {
                Some(cut) if !*cut => {
                    *cut = true;
                    Ok(Vec::new())
                }
                Some(_) => Err(format!("{stream} is cut twice")),
                None => Err(format!("{stream} is cut, but is no bridge")),
            },
            RelayAction::Connect { addr, .. } if addr.port == 0 => {
                Err(format!("nobody can dial {addr}"))
            }
            RelayAction::Connect { .. } | _ => Ok(Vec::new()),
        }
    }

    fn answered(&mut self, circuit: CircuitId) -> Result<(), String> {
        match self.circuits.remove(&circuit) {
            true => Ok(()),
            false => Err(format!("{circuit} is answered, but nobody waits for it")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_core::{BridgeEnd, CircuitFailure, CircuitLimit, ConnId, PeerId};

    const HOP: StreamId = StreamId::inbound(Protocol::Hop, 1);
    const STOP: StreamId = StreamId::outbound(Protocol::Stop, 2);

    fn bridge(stream: StreamId, target: StreamId) -> RelayAction {
        RelayAction::Bridge { stream, target, bytes_max: None }
    }

    #[test]
    fn a_circuit_is_answered_once_and_only_while_it_is_wanted() {
        let (circuit, conn, peer) =
            (CircuitId(1), ConnId(1), PeerId::from_bytes(&[0, 0]).expect("an identity multihash"));
        let wanted = RelayEvent::CircuitWanted { circuit, conn, peer };
        let failed = RelayAction::CircuitFailed { circuit, reason: CircuitFailure::TimedOut };
        let stream = StreamId::outbound(Protocol::Hop, 1);
        let limit = CircuitLimit::default();
        let upgrade = |stream, circuit| RelayAction::Upgrade { stream, peer, circuit, limit };
        for answer in [failed, upgrade(stream, Some(circuit))] {
            let mut relays = Relays::default();
            relays.ordered(&answer).expect_err("nobody waits");
            relays.happened(&wanted);
            assert_eq!(relays.circuits().collect::<Vec<_>>(), [circuit]);
            relays.ordered(&answer).expect("it is wanted");
            relays.ordered(&answer).expect_err("it was answered");
            relays.happened(&wanted);
            relays.happened(&RelayEvent::CircuitForgotten { circuit });
            relays.ordered(&answer).expect_err("it was forgotten");
        }
        let taken = Relays::default().ordered(&upgrade(stream, None));
        assert_eq!(taken, Ok(vec![stream]));
        Relays::default().ordered(&upgrade(HOP, None)).expect_err("it is a peer's");
    }

    #[test]
    fn a_bridge_is_cut_once_and_ends() {
        let mut relays = Relays::default();
        let cut = RelayAction::Cut { stream: HOP };
        relays.ordered(&cut).expect_err("it does not stand");
        relays.ordered(&bridge(STOP, HOP)).expect_err("the wrong way round");
        assert_eq!(relays.ordered(&bridge(HOP, STOP)), Ok(vec![HOP, STOP]));
        relays.ordered(&bridge(HOP, STOP)).expect_err("it stands");
        assert_eq!(relays.bridges().collect::<Vec<_>>(), [HOP]);
        relays.ordered(&cut).expect("it stands");
        relays.ordered(&cut).expect_err("it was cut");
        let end = BridgeEnd::Cut;
        relays.happened(&RelayEvent::BridgeEnded { stream: HOP, end, forth: 0, back: 0 });
        relays.ordered(&cut).expect_err("it is over");
    }
}
