//! What a gate remembers: bindings and flows.

use super::{Behavior, Dependence, GateConfig, PortAllocation, Refresh, WhenFull};
use crate::dice::Dice;
use portolan_core::{Addr, Instant, Transport};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// The lowest port that is given out.
const PORT_MIN: u16 = 1_024;
/// Ports in the block of one inside host, where they are given out in blocks; ours.
const BLOCK: u16 = 256;
/// The least address there is: where the flows of an external address begin.
const LEAST: Addr = Addr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0, Transport::Tcp);

/// The external address of an inside one, towards some destinations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Binding {
    external: Addr,
    created: Instant,
    refreshed: Instant,
}

/// One conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flow {
    inside: Addr,
    created: Instant,
    refreshed: Instant,
    /// Whether the inside, and whether the outside, has spoken.
    spoken: (bool, bool),
    /// Whether the inside began it.
    ours: bool,
}

impl Flow {
    fn is_alive(&self, now: Instant, behavior: &Behavior) -> bool {
        let span = if self.spoken == (true, true) { behavior.idle } else { behavior.transitory };
        now < self.refreshed + span && is_within(now, self.created, behavior)
    }
}

fn is_within(now: Instant, created: Instant, behavior: &Behavior) -> bool {
    behavior.absolute.is_none_or(|most| now < created + most)
}

/// What a binding holds for: the inside address, and the remote IP and port where they matter.
type Key = (Addr, Option<IpAddr>, u16);

/// Bindings and flows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    bindings: BTreeMap<Key, Binding>,
    /// By external and remote address.
    flows: BTreeMap<(Addr, Addr), Flow>,
    /// The external address of each flow, by inside and remote address.
    leaving: BTreeMap<(Addr, Addr), Addr>,
    /// When each IP was last written to from inside, whoever did.
    contacts: BTreeMap<IpAddr, Instant>,
    /// The first port of each inside host's block.
    blocks: BTreeMap<IpAddr, u16>,
    next_port: u16,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }

    /// A packet leaves; `allocate` finds an external address where there is none.
    pub(super) fn outbound(
        &mut self,
        now: Instant,
        config: &GateConfig,
        (src, dst): (Addr, Addr),
        mut allocate: impl FnMut(&mut Table) -> Addr,
    ) -> Option<Addr> {
        let behavior = config.behavior(src.transport);
        if config.shares_contacts {
            self.contacts.insert(dst.ip, now);
        }
        let key = key(behavior.mapping, src, dst);
        let known = self.leaving.get(&(src, dst)).copied();
        if let Some(external) = known
            && let Some(flow) = self.flows.get_mut(&(external, dst))
            && flow.is_alive(now, behavior)
        {
            flow.spoken.0 = true;
            if behavior.refresh != Refresh::Inbound {
                flow.refreshed = now;
                if let Some(binding) = self.bindings.get_mut(&key) {
                    binding.refreshed = now;
                }
            }
            return Some(external);
        }
        if !self.has_room(now, config) {
            return None;
        }
        let taken = |table: &Table, external: Addr| {
            let other = table.flows.get(&(external, dst));
            other.is_some_and(|flow| flow.inside != src && flow.is_alive(now, behavior))
        };
        let alive = self.bindings.get(&key).copied().filter(|binding| {
            now < binding.refreshed + behavior.idle && is_within(now, binding.created, behavior)
        });
        let external = match alive {
            // Where ports are overloaded, another host may talk to that very destination from it.
            Some(binding) if taken(self, binding.external) => allocate(self),
            Some(binding) => {
                self.bindings.insert(key, Binding { refreshed: now, ..binding });
                binding.external
            }
            None => {
                let external = allocate(self);
                self.bindings.insert(key, Binding { external, created: now, refreshed: now });
                external
            }
        };
        let spoken = (true, false);
        let flow = Flow { inside: src, created: now, refreshed: now, spoken, ours: true };
        self.open(external, dst, flow);
        Some(external)
    }

    /// A packet came in, and was let in.
    pub(super) fn inbound(
        &mut self,
        now: Instant,
        config: &GateConfig,
        (external, remote): (Addr, Addr),
        inside: Addr,
    ) {
        let behavior = config.behavior(remote.transport);
        let known = self.flows.get_mut(&(external, remote));
        if let Some(flow) = known.filter(|flow| flow.is_alive(now, behavior)) {
            flow.spoken.1 = true;
            if behavior.refresh != Refresh::Outbound {
                flow.refreshed = now;
                let key = key(behavior.mapping, inside, remote);
                if let Some(binding) = self.bindings.get_mut(&key) {
                    binding.refreshed = now;
                }
            }
            return;
        }
        let spoken = (false, true);
        if self.has_room(now, config) {
            let flow = Flow { inside, created: now, refreshed: now, spoken, ours: false };
            self.open(external, remote, flow);
        }
    }

    /// The inside address that a packet from `remote` to `external` is let in to.
    pub(super) fn admits(
        &self,
        now: Instant,
        config: &GateConfig,
        (external, remote): (Addr, Addr),
    ) -> Option<Addr> {
        let behavior = config.behavior(remote.transport);
        let alive = |flow: &&Flow| flow.is_alive(now, behavior);
        if let Some(flow) = self.flows.get(&(external, remote)).filter(alive) {
            return Some(flow.inside);
        }
        // Whoever came in over a forward, or was let in, opens the way for nobody else.
        let ours = self.flows_on(external).filter(|(_, flow)| flow.ours && alive(flow));
        let mut admitting = ours.filter(|(to, _)| match behavior.filtering {
            Dependence::Independent => true,
            Dependence::Address => to.ip == remote.ip || self.knows(now, config, remote),
            Dependence::AddressAndPort => false,
        });
        admitting.next().map(|(_, flow)| flow.inside)
    }

    /// Whether somebody inside wrote to this IP lately, and that counts for everybody.
    pub(super) fn knows(&self, now: Instant, config: &GateConfig, remote: Addr) -> bool {
        let idle = config.behavior(remote.transport).idle;
        config.shares_contacts && self.contacts.get(&remote.ip).is_some_and(|at| now < *at + idle)
    }

    /// Whether a flow that comes in is known, or finds room.
    pub(super) fn takes(
        &self,
        now: Instant,
        config: &GateConfig,
        (external, remote): (Addr, Addr),
    ) -> bool {
        if self.flows.len() < config.flows_max || config.when_full == WhenFull::Evict {
            return true;
        }
        let alive = |((one, _), flow): (&(Addr, Addr), &Flow)| {
            flow.is_alive(now, config.behavior(one.transport))
        };
        let known = self.flows.get_key_value(&(external, remote));
        known.is_some_and(alive)
            || self.flows.iter().filter(|entry| alive(*entry)).count() < config.flows_max
    }

    /// An external address for a new binding.
    pub(super) fn allocate(
        &mut self,
        now: Instant,
        config: &GateConfig,
        (src, dst): (Addr, Addr),
        outside: IpAddr,
        dice: &mut Dice,
        reserved: &dyn Fn(Addr) -> bool,
    ) -> Addr {
        let behavior = config.behavior(src.transport);
        let at = |port| Addr { ip: outside, port, transport: src.transport };
        let first = match config.ports {
            PortAllocation::Preserving | PortAllocation::Overloading => src.port,
            PortAllocation::Sequential => self.next_port.max(PORT_MIN),
            PortAllocation::Random => {
                let span = u64::from(u16::MAX - PORT_MIN);
                PORT_MIN + u16::try_from(dice.between(0, span)).unwrap_or(0)
            }
            PortAllocation::Contiguous => self.block(src.ip),
        };
        let overloads = config.ports == PortAllocation::Overloading;
        let is_free = |addr: Addr| {
            let mut flows = self.flows_on(addr);
            let taken = |flow: &Flow| flow.is_alive(now, behavior);
            if overloads {
                // Only who talks to the same remote side is in the way, and a forward is not.
                !flows.any(|(to, flow)| to == dst && flow.inside != src && taken(flow))
            } else {
                // A forward of this very inside address is not in its way where ports are kept.
                let own = config.ports == PortAllocation::Preserving && addr.port == src.port;
                (own || !reserved(addr)) && !flows.any(|(_, flow)| taken(flow))
            }
        };
        let mut port = first.max(1);
        for _ in 0..u16::MAX {
            if is_free(at(port)) {
                break;
            }
            port = if port == u16::MAX { PORT_MIN } else { port + 1 };
        }
        if config.ports == PortAllocation::Sequential {
            self.next_port = port.wrapping_add(1);
        }
        at(port)
    }

    fn block(&mut self, host: IpAddr) -> u16 {
        let taken = u16::try_from(self.blocks.len()).unwrap_or(u16::MAX);
        let blocks = (u16::MAX - PORT_MIN) / BLOCK;
        *self.blocks.entry(host).or_insert(PORT_MIN + taken % blocks * BLOCK)
    }

    fn flows_on(&self, external: Addr) -> impl Iterator<Item = (Addr, &Flow)> {
        let all = self.flows.range((external, LEAST)..);
        all.take_while(move |((one, _), _)| *one == external).map(|((_, to), flow)| (*to, flow))
    }

    fn open(&mut self, external: Addr, remote: Addr, flow: Flow) {
        let inside = flow.inside;
        if let Some(old) = self.flows.insert((external, remote), flow)
            && old.inside != inside
        {
            self.leaving.remove(&(old.inside, remote));
        }
        if let Some(old) = self.leaving.insert((inside, remote), external)
            && old != external
        {
            self.flows.remove(&(old, remote));
        }
    }

    /// Whether a new flow finds room, made if need be.
    fn has_room(&mut self, now: Instant, config: &GateConfig) -> bool {
        if self.flows.len() < config.flows_max {
            return true;
        }
        self.flows
            .retain(|(external, _), flow| flow.is_alive(now, config.behavior(external.transport)));
        let flows = &self.flows;
        self.leaving.retain(|(_, remote), external| flows.contains_key(&(*external, *remote)));
        if self.flows.len() < config.flows_max {
            return true;
        }
        if config.when_full == WhenFull::Drop {
            return false;
        }
        let idlest = self.flows.iter().min_by_key(|(_, flow)| flow.refreshed);
        if let Some((external, remote, inside)) =
            idlest.map(|((external, remote), flow)| (*external, *remote, flow.inside))
        {
            self.flows.remove(&(external, remote));
            self.leaving.remove(&(inside, remote));
        }
        true
    }
}

fn key(mapping: Dependence, inside: Addr, remote: Addr) -> Key {
    match mapping {
        Dependence::Independent => (inside, None, 0),
        Dependence::Address => (inside, Some(remote.ip), 0),
        Dependence::AddressAndPort => (inside, Some(remote.ip), remote.port),
    }
}
