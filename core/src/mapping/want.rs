//! One address of ours that is to be mapped, and what has been tried for it.

use super::gate::Gate;
use super::grant::{Fault, Grant, Remedy};
use super::ledger::Entry;
use crate::words::checkpoint::saved;
use crate::{
    Draw, Duration, Instant, IpScope, Mapping, MappingProtocol, MappingReason, MappingState,
    ip_scope,
};
use alloc::collections::BTreeMap;

/// External ports that are tried until every one counts as taken, number; ours.
const PORTS_TRIED_MAX: u8 = 10;
/// How long to leave it at that, seconds; ours.
const CONFLICT_PAUSE: Duration = Duration::from_secs(1_800);
/// The lowest external port that is made up, ours: IGDs refuse those below 1024, and some guard
/// what common services have.
const PORT_MIN: u16 = 10_000;
/// How long a mapping that servers cannot dial is left as it is before it is repaired, seconds;
/// ours: the door tells of a verdict after this room has had its turn.
const REPAIR_PAUSE: Duration = Duration::from_secs(1);
/// How long to leave it at that once every repair was in vain, seconds; ours.
const REPAIR_REST: Duration = Duration::from_secs(1_800);
/// How long to wait for the protocol that granted it to an earlier run, seconds; ours.
const REMEMBERED_PATIENCE: Duration = Duration::from_secs(1);

/// A wanted mapping.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Want {
    /// The grant that serves it or is being asked for.
    pub(super) grant: Option<u64>,
    /// The external port to ask for; the port it had last, so that peers need not learn another.
    pub(super) port: u16,
    /// By which protocols not to ask, until when, and why.
    barred: BTreeMap<MappingProtocol, Bar>,
    ports_tried: u8,
    repair: Repair,
    /// What the application was told.
    pub(super) told: Option<Mapping>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bar {
    since: Instant,
    until: Instant,
    reason: MappingReason,
}

/// What was done about a mapping that is granted and leads nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Repair {
    tried: u8,
    due_at: Option<Instant>,
    /// Whether all was in vain.
    is_given_up: bool,
}

/// How a mapping that leads nowhere is repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Delete it and ask for the same again.
    Anew,
    /// Delete it and ask for another port.
    OtherPort,
    /// Delete it and ask by another protocol.
    OtherProtocol,
}

impl Want {
    pub(super) fn new(port: u16) -> Want {
        Want { port, ..Want::default() }
    }

    /// The protocol to ask by, if there is one now.
    pub(super) fn choose(
        &self,
        now: Instant,
        gate: &Gate,
        remembered: Option<&Entry>,
    ) -> Option<MappingProtocol> {
        let free = |protocol: &MappingProtocol| self.may_ask_by(now, *protocol);
        let mut ready = gate.speaks(now).filter(free);
        let Some(entry) = remembered.filter(|entry| free(&entry.protocol)) else {
            return ready.next();
        };
        let best = ready.next();
        if gate.speaks(now).any(|protocol| protocol == entry.protocol) {
            return Some(entry.protocol);
        }
        let waits =
            !gate.is_decided(now, Some(entry.protocol)) && now < gate.since + REMEMBERED_PATIENCE;
        best.filter(|_| !waits)
    }

    /// Whether nothing speaks against asking by this protocol.
    pub(super) fn may_ask_by(&self, now: Instant, protocol: MappingProtocol) -> bool {
        self.barred.get(&protocol).is_none_or(|bar| bar.until <= now)
    }

    /// When it may be asked for again, although nothing else happens.
    pub(super) fn due_at(&self, now: Instant, gate: Option<&Gate>) -> Option<Instant> {
        if self.grant.is_some() {
            return self.repair.due_at;
        }
        let gate = gate?;
        let patience = gate.since + REMEMBERED_PATIENCE;
        let bars = self.barred.values().map(|bar| bar.until);
        bars.chain([patience]).filter(|at| now < *at).min()
    }

    /// A router did not grant it.
    pub(super) fn failed(
        &mut self,
        now: Instant,
        draw: &mut dyn Draw,
        (protocol, internal_port): (MappingProtocol, u16),
        fault: Fault,
    ) {
        let Fault { reason, remedy } = fault;
        match remedy {
            Remedy::HoldOff(span) => self.bar(now, protocol, span, reason),
            Remedy::OtherPort if self.ports_tried >= PORTS_TRIED_MAX => {
                self.ports_tried = 0;
                self.bar(now, protocol, CONFLICT_PAUSE, MappingReason::Conflict);
            }
            Remedy::OtherPort => {
                self.ports_tried += 1;
                self.port = other_port(draw);
            }
            Remedy::SamePort => self.port = internal_port,
        }
    }

    fn bar(
        &mut self,
        now: Instant,
        protocol: MappingProtocol,
        span: Duration,
        reason: MappingReason,
    ) {
        self.barred.insert(protocol, Bar { since: now, until: now + span, reason });
    }

    /// A router granted it.
    pub(super) fn granted(&mut self, port: u16, protocol: MappingProtocol) {
        self.port = port;
        self.ports_tried = 0;
        self.barred.remove(&protocol);
    }

    /// The router, or the network, is another one.
    pub(super) fn start_over(&mut self) {
        self.grant = None;
        self.barred.clear();
        self.ports_tried = 0;
        self.repair = Repair::default();
    }

    /// Servers could dial it, or could not. Whether a complaint has come to its end.
    pub(super) fn judged(&mut self, now: Instant, is_reached: bool) -> bool {
        let is_given_up = self.repair.is_given_up;
        if is_reached {
            self.repair = Repair::default();
        } else if self.repair.due_at.is_none() {
            let pause = if is_given_up { REPAIR_REST } else { REPAIR_PAUSE };
            self.repair.due_at = Some(now + pause);
        }
        is_reached && is_given_up
    }

    /// Whether what it had led nowhere, so that nothing of it is to be used again.
    pub(super) fn is_being_repaired(&self) -> bool {
        self.repair.tried > 0
    }

    /// No verdict says that it leads nowhere.
    pub(super) fn is_undecided(&mut self) {
        self.repair.due_at = None;
    }

    /// How to repair it now, if it is to be; with the next port and the bars that belong to it.
    pub(super) fn repair(
        &mut self,
        now: Instant,
        draw: &mut dyn Draw,
        grant: &Grant,
        has_other: bool,
    ) -> Option<Step> {
        self.repair.due_at.filter(|at| *at <= now)?;
        self.repair.due_at = None;
        let step = match self.repair.tried {
            0 => Step::Anew,
            1 => Step::OtherPort,
            _ if has_other => Step::OtherProtocol,
            _ => {
                // From the start again after a rest; it stays meanwhile, for it may do no harm.
                self.repair = Repair { tried: 0, due_at: None, is_given_up: true };
                return None;
            }
        };
        self.repair.tried = self.repair.tried.saturating_add(1);
        match step {
            Step::Anew => {}
            Step::OtherPort => self.port = other_port(draw),
            Step::OtherProtocol => {
                self.bar(now, grant.protocol, REPAIR_REST, MappingReason::NotForwarding);
            }
        }
        Some(step)
    }

    /// How it stands.
    pub(super) fn mapping(
        &self,
        now: Instant,
        internal: crate::Addr,
        gate: Option<&Gate>,
        grant: Option<&Grant>,
    ) -> Mapping {
        let lease = grant.and_then(Grant::lease);
        let (state, reason) = match (gate, &lease) {
            (_, Some(lease)) => (MappingState::Granted, self.complaint(lease, gate)),
            (None, None) => (MappingState::Failed, MappingReason::NoGateway),
            (Some(gate), None) => self.excuse(now, gate, grant.is_some()),
        };
        Mapping { internal, state, reason, lease }
    }

    /// What is wrong with a mapping although it is granted.
    fn complaint(&self, lease: &crate::Lease, gate: Option<&Gate>) -> MappingReason {
        let told = Some(lease.external.ip).filter(|ip| !ip.is_unspecified());
        let external = told.or_else(|| gate.and_then(Gate::external));
        match external {
            Some(external) if ip_scope(external) != IpScope::Global => {
                MappingReason::GatewayBehindNat { external }
            }
            _ if self.repair.is_given_up => MappingReason::NotForwarding,
            Some(_) | None => MappingReason::Granted,
        }
    }

    /// Why there is none.
    fn excuse(&self, now: Instant, gate: &Gate, asks: bool) -> (MappingState, MappingReason) {
        let barred = self.barred.values().filter(|bar| now < bar.until);
        // The newest refusal is what stands in the way now; of several at once the better protocol's.
        let last = barred.rev().max_by_key(|bar| bar.since);
        match last {
            Some(bar) if !asks => (MappingState::Failed, bar.reason),
            _ if asks || !gate.is_decided(now, None) || gate.speaks(now).next().is_some() => {
                (MappingState::Asking, MappingReason::Asking)
            }
            Some(_) | None => (MappingState::Failed, MappingReason::Silent),
        }
    }
}

fn other_port(draw: &mut dyn Draw) -> u16 {
    let above = draw.below(u64::from(u16::MAX - PORT_MIN) + 1);
    PORT_MIN.saturating_add(u16::try_from(above).unwrap_or(0))
}

saved!(struct Want { grant, port, barred, ports_tried, repair, told as told() });
saved!(struct Bar { since, until, reason });
saved!(struct Repair { tried, due_at, is_given_up });

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Addr;
    use crate::mapping::fake::Middle;
    use crate::mapping::grant::Stage;
    use core::net::Ipv4Addr;

    fn grant() -> Grant {
        Grant {
            internal: Addr::tcp(Ipv4Addr::new(192, 168, 1, 7).into(), 4001),
            router: Ipv4Addr::new(192, 168, 1, 1).into(),
            protocol: MappingProtocol::Pcp,
            external_ip: None,
            external_port: 4001,
            nonce: [0; 12],
            pinhole: None,
            stage: Stage::Asking,
            until: None,
            forgotten: None,
        }
    }

    /// What is done once servers could not dial it, and when.
    fn repaired(want: &mut Want, now: Instant, has_other: bool) -> (Option<Step>, Instant) {
        want.judged(now, false);
        let due = want.repair.due_at.expect("it is to be repaired");
        assert_eq!(want.repair(now, &mut Middle, &grant(), has_other), None, "not at once");
        (want.repair(due, &mut Middle, &grant(), has_other), due)
    }

    #[test]
    fn what_leads_nowhere_is_made_anew_then_elsewhere_then_otherwise() {
        let start = Instant::from_millis(1_000);
        let mut want = Want::new(4001);
        let (step, now) = repaired(&mut want, start, true);
        assert_eq!((step, now, want.port), (Some(Step::Anew), start + REPAIR_PAUSE, 4001));
        let (step, now) = repaired(&mut want, now, true);
        assert_eq!(step, Some(Step::OtherPort));
        assert!(want.port >= PORT_MIN, "another port");
        let (step, now) = repaired(&mut want, now, true);
        assert_eq!(step, Some(Step::OtherProtocol));
        assert_eq!(want.barred[&MappingProtocol::Pcp].reason, MappingReason::NotForwarding);
        let may_ask = MappingProtocol::ALL.map(|protocol| want.may_ask_by(now, protocol));
        assert_eq!(may_ask, [false, true, true], "what was in vain is no way out");

        let (step, now) = repaired(&mut want, now, false);
        assert_eq!((step, want.repair.is_given_up), (None, true));
        let (step, later) = repaired(&mut want, now, false);
        assert_eq!((step, later), (Some(Step::Anew), now + REPAIR_REST));
        assert!(want.judged(later, true), "a complaint ends");
        assert_eq!(want.repair, Repair::default());
    }

    #[test]
    fn ten_ports_are_tried_and_then_it_rests() {
        let now = Instant::from_millis(1_000);
        let mut want = Want::new(4001);
        let conflict = Fault { reason: MappingReason::Conflict, remedy: Remedy::OtherPort };
        for _ in 0..PORTS_TRIED_MAX {
            want.failed(now, &mut Middle, (MappingProtocol::Upnp, 4001), conflict);
            assert!(want.barred.is_empty());
        }
        want.failed(now, &mut Middle, (MappingProtocol::Upnp, 4001), conflict);
        assert_eq!(want.barred[&MappingProtocol::Upnp].until, now + CONFLICT_PAUSE);
    }
}
