//! A gate: the NAT or firewall of a router, for one IP family, in the terms of RFC 4787 and 5382.
//!
//! ```text
//!  out:  flow known? ─► its external address        else mapping ─► binding ─► allocate a port
//!  in:   forward? flow? filtering lets it in? ─► the inside address        else drop or refuse
//! ```
//!
//! A *binding* is the external address given to an inside one, for every destination, for each IP
//! or for each IP and port. A *flow* is one conversation over it, which times out by itself; the
//! filter looks at flows. Connection tracking as on Linux falls out of that: replies leave as
//! what was dialled.
//!
//! A good first change here: port parity (RFC 4787 §4.2.2).

mod table;
#[cfg(test)]
mod tests;

use crate::dice::Dice;
use portolan_core::{Addr, Duration, Instant, Transport};
use std::net::IpAddr;
use table::Table;

/// What a mapping or a filter depends on (RFC 4787 §4.1, §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dependence {
    /// Nothing: endpoint-independent.
    Independent,
    /// The remote IP.
    Address,
    /// The remote IP and port.
    AddressAndPort,
}

impl Dependence {
    /// The abbreviation in tables and scenarios: `ei`, `ad`, `apd`.
    pub const fn name(self) -> &'static str {
        match self {
            Dependence::Independent => "ei",
            Dependence::Address => "ad",
            Dependence::AddressAndPort => "apd",
        }
    }
}

/// Which packets keep a flow alive (RFC 4787 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresh {
    /// Those that leave.
    Outbound,
    /// Those that come in.
    Inbound,
    /// Both.
    Both,
}

/// How a gate treats one transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behavior {
    /// How external addresses are given out.
    pub mapping: Dependence,
    /// What is let in.
    pub filtering: Dependence,
    /// How long a flow lives without being refreshed, once both sides have spoken.
    pub idle: Duration,
    /// And before that (RFC 5382 §5: four minutes for a connection that is not established).
    pub transitory: Duration,
    /// How long a flow lives at most, whatever refreshes it.
    pub absolute: Option<Duration>,
    /// What refreshes it.
    pub refresh: Refresh,
}

impl Behavior {
    /// A mapping and a filter with the time-outs of ordinary routers: for TCP those of RFC 5382,
    /// for UDP two minutes (RFC 4787 §4.3 REQ-5).
    pub const fn new(transport: Transport, mapping: Dependence, filtering: Dependence) -> Behavior {
        let (idle, transitory) = match transport {
            Transport::Tcp => (7_440, 240),
            Transport::Quic => (120, 30),
        };
        Behavior {
            mapping,
            filtering,
            idle: Duration::from_secs(idle),
            transitory: Duration::from_secs(transitory),
            absolute: None,
            refresh: Refresh::Outbound,
        }
    }
}

/// What stands between inside and outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Nothing.
    Open,
    /// A filter without translation.
    Firewall,
    /// A filter with translation.
    Nat,
}

/// Which external port a new binding gets (RFC 4787 §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortAllocation {
    /// The inside port where it is free, else the next that is.
    Preserving,
    /// The inside port, even where another binding has it, as long as the remote side tells them
    /// apart (RFC 4787 §4.2.1: port overloading; what Linux does).
    Overloading,
    /// One after the other.
    Sequential,
    /// Any.
    Random,
    /// The next of a block of the inside host's own.
    Contiguous,
}

/// What an unwanted packet gets for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// Nothing.
    Silent,
    /// A RST or an ICMP message.
    Reject,
}

/// What happens to a new flow when the table is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// It is dropped.
    Drop,
    /// The flow that was idle for longest makes room.
    Evict,
}

/// How a gate is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateConfig {
    /// What it does at all.
    pub policy: Policy,
    /// How it treats TCP.
    pub tcp: Behavior,
    /// How it treats UDP, and so QUIC.
    pub udp: Behavior,
    /// Whether inside hosts reach each other over the external address (RFC 4787 §6).
    pub hairpin: bool,
    /// How it gives out ports.
    pub ports: PortAllocation,
    /// How it treats what it does not let in.
    pub refusal: Refusal,
    /// Whether one set of contacted IPs holds for all bindings and both protocols, as on routers
    /// that keep an address set. Only for address-dependent filters.
    pub shares_contacts: bool,
    /// How many flows it keeps, number.
    pub flows_max: usize,
    /// What gives when they are more.
    pub when_full: WhenFull,
}

impl GateConfig {
    /// Nothing in the way.
    pub const fn open() -> GateConfig {
        GateConfig {
            policy: Policy::Open,
            ..GateConfig::nat(Dependence::Independent, Dependence::Independent)
        }
    }

    /// A firewall that lets nobody in who was not called (RFC 6092 §3).
    pub const fn firewall() -> GateConfig {
        GateConfig {
            policy: Policy::Firewall,
            ..GateConfig::nat(Dependence::Independent, Dependence::AddressAndPort)
        }
    }

    /// A NAT that treats both protocols alike.
    pub const fn nat(mapping: Dependence, filtering: Dependence) -> GateConfig {
        GateConfig {
            policy: Policy::Nat,
            tcp: Behavior::new(Transport::Tcp, mapping, filtering),
            udp: Behavior::new(Transport::Quic, mapping, filtering),
            hairpin: true,
            ports: match mapping {
                Dependence::Independent => PortAllocation::Preserving,
                Dependence::Address | Dependence::AddressAndPort => PortAllocation::Random,
            },
            refusal: Refusal::Silent,
            shares_contacts: false,
            flows_max: 16_384,
            when_full: WhenFull::Drop,
        }
    }

    /// How it treats a transport.
    pub const fn behavior(&self, transport: Transport) -> &Behavior {
        match transport {
            Transport::Tcp => &self.tcp,
            Transport::Quic => &self.udp,
        }
    }
}

/// Whether the room that a gate has left counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// There is as much as there is.
    AsItIs,
    /// There is enough.
    Enough,
}

/// What a gate does with a packet that comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// It goes on to this inside address.
    Pass(Addr),
    /// It is gone.
    Drop,
    /// It is gone, and the sender hears of it.
    Refuse,
}

/// A gate and what it remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gate {
    config: GateConfig,
    /// Its external IP, where it translates.
    outside: Option<IpAddr>,
    /// Static forwards and pinholes: external address to inside address.
    forwards: Vec<(Addr, Addr)>,
    /// The same, as hosts inside had them opened.
    mapped: Vec<(Addr, Addr)>,
    table: Table,
    /// When it last had no room for a packet that it would have let in.
    full_at: Option<Instant>,
}

impl Gate {
    /// A gate that remembers nothing yet. `outside` is its external IP, if it translates.
    pub fn new(config: GateConfig, outside: Option<IpAddr>) -> Gate {
        Gate {
            config,
            outside,
            forwards: Vec::new(),
            mapped: Vec::new(),
            table: Table::default(),
            full_at: None,
        }
    }

    /// How it is set up.
    pub const fn config(&self) -> &GateConfig {
        &self.config
    }

    /// Set it up anew; what it remembers stays.
    pub fn set_config(&mut self, config: GateConfig) {
        self.config = config;
    }

    /// Its external IP, where it translates.
    pub const fn outside(&self) -> Option<IpAddr> {
        self.outside
    }

    /// Forward what comes to an external address to an inside one; for a firewall both are the
    /// same.
    pub fn forward(&mut self, external: Addr, inside: Addr) {
        self.unforward(external);
        self.forwards.push((external, inside));
    }

    /// Take a forward back. Flows that came over it live on, as on real routers.
    pub fn unforward(&mut self, external: Addr) {
        self.forwards.retain(|(one, _)| *one != external);
    }

    /// What hosts inside had opened.
    pub fn mapped(&self) -> &[(Addr, Addr)] {
        &self.mapped
    }

    /// The static forwards.
    pub fn forwards(&self) -> &[(Addr, Addr)] {
        &self.forwards
    }

    /// Forward these as well, and nothing else that was mapped before: external address first.
    pub fn set_mapped(&mut self, mapped: Vec<(Addr, Addr)>) {
        self.mapped = mapped;
    }

    /// It loses what it remembers, but for its forwards.
    pub fn reboot(&mut self) {
        self.table = Table::default();
    }

    /// It gets another external IP, and its forwards move along.
    pub fn renumber(&mut self, outside: IpAddr) {
        for (external, _) in self.forwards.iter_mut().chain(&mut self.mapped) {
            external.ip = outside;
        }
        self.outside = Some(outside);
        self.reboot();
    }

    /// A packet leaves: the address it leaves with, or nothing where the table is full.
    pub fn outbound(
        &mut self,
        now: Instant,
        src: Addr,
        dst: Addr,
        dice: &mut Dice,
    ) -> Option<Addr> {
        match self.config.policy {
            Policy::Open => Some(src),
            Policy::Firewall => self.table.outbound(now, &self.config, (src, dst), |_| src),
            Policy::Nat => {
                let outside = self.outside?;
                let forwards = self.forwards.iter().chain(&self.mapped);
                let reserved = |addr: Addr| forwards.clone().any(|(one, _)| *one == addr);
                let mut ports = |table: &mut Table| {
                    table.allocate(now, &self.config, (src, dst), outside, dice, &reserved)
                };
                self.table.outbound(now, &self.config, (src, dst), &mut ports)
            }
        }
    }

    /// A packet comes in.
    pub fn inbound(&mut self, now: Instant, src: Addr, dst: Addr) -> Inbound {
        match self.admits(now, src, dst, Room::AsItIs) {
            Inbound::Pass(inside) => {
                if self.config.policy != Policy::Open {
                    self.table.inbound(now, &self.config, (dst, src), inside);
                }
                Inbound::Pass(inside)
            }
            refused @ (Inbound::Drop | Inbound::Refuse) => {
                let with_room = self.admits(now, src, dst, Room::Enough);
                if matches!(with_room, Inbound::Pass(_)) {
                    self.full_at = Some(now);
                }
                refused
            }
        }
    }

    /// When it last had no room for a packet that it would have let in.
    pub const fn full_at(&self) -> Option<Instant> {
        self.full_at
    }

    /// What would become of a packet that comes in now; nothing is remembered of it.
    pub fn admits(&self, now: Instant, src: Addr, dst: Addr, room: Room) -> Inbound {
        if self.config.policy == Policy::Open {
            return Inbound::Pass(dst);
        }
        if room == Room::AsItIs && !self.table.takes(now, &self.config, (dst, src)) {
            return Inbound::Drop;
        }
        let mut forwards = self.forwards.iter().chain(&self.mapped);
        let forward = forwards.find(|(external, _)| *external == dst);
        let inside = forward
            .map(|(_, inside)| *inside)
            .or_else(|| self.table.admits(now, &self.config, (dst, src)));
        match (inside, self.config.refusal) {
            (Some(inside), _) => Inbound::Pass(inside),
            (None, Refusal::Silent) => Inbound::Drop,
            (None, Refusal::Reject) => Inbound::Refuse,
        }
    }

    /// Whether it lets somebody in wherever it knows his IP, because somebody inside wrote to it.
    pub fn knows(&self, now: Instant, remote: Addr) -> bool {
        self.table.knows(now, &self.config, remote)
    }

    /// How many flows it remembers, dead ones that were not cleared away included.
    pub fn flows(&self) -> usize {
        self.table.len()
    }
}
