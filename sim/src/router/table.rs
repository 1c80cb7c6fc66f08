//! What a router keeps: mappings of IPv4 ports, and pinholes for IPv6.

use portolan_core::{Instant, MappingProtocol, Transport};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// A mapping or a pinhole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Whom it leads to.
    pub internal: SocketAddr,
    /// By which protocol it was made.
    pub by: MappingProtocol,
    /// When it ends; `None` until it is deleted.
    pub until: Option<Instant>,
    /// The nonce of its maker (PCP), or zeros.
    pub nonce: [u8; 12],
    /// The number by which its maker knows it (pinholes of UPnP), or 0.
    pub unique: u16,
    /// What its maker calls it (UPnP).
    pub description: String,
    /// Since when packets are let in.
    pub since: Instant,
    /// Whether packets are let in at all.
    pub lets_in: bool,
}

impl Held {
    /// Whether it is there at a moment.
    pub fn is_alive(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    /// How many seconds are left; 0 for one that does not end.
    pub fn left_s(&self, now: Instant) -> u32 {
        let left = self.until.map_or(0, |until| until.since(now).as_secs());
        u32::try_from(left).unwrap_or(u32::MAX)
    }
}

/// What a mapping is known by: its protocol and external port.
pub type PortKey = (Transport, u16);
/// What a pinhole is known by: its transport, its internal address, and by which protocol it was
/// made: one that was opened twice is closed twice.
pub type HoleKey = (Transport, SocketAddr, MappingProtocol);

/// Everything that a router holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Mappings of IPv4 ports.
    pub ports: BTreeMap<PortKey, Held>,
    /// Pinholes.
    pub holes: BTreeMap<HoleKey, Held>,
    /// Mappings that were deleted: whoever had them, and by which external port.
    pub(super) deleted: Vec<(SocketAddr, PortKey)>,
    /// The number of the last pinhole.
    pub(super) last_unique: u16,
}

impl Table {
    /// What has ended is gone.
    pub(super) fn expire(&mut self, now: Instant) {
        self.ports.retain(|_, held| held.is_alive(now));
        self.holes.retain(|_, held| held.is_alive(now));
    }

    /// When the next one ends.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.ports.values().chain(self.holes.values()).filter_map(|held| held.until).min()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ports.len() + self.holes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The external port of an internal address, by one protocol.
    pub(super) fn port_of(
        &self,
        by: MappingProtocol,
        transport: Transport,
        internal: SocketAddr,
    ) -> Option<u16> {
        let mut all = self.ports.iter();
        all.find(|((one, _), held)| *one == transport && held.internal == internal && held.by == by)
            .map(|((_, port), _)| *port)
    }

    /// The port itself where it is free, else the next that is.
    pub(super) fn free_port(&self, transport: Transport, wanted: u16) -> u16 {
        let mut port = wanted.max(1_024);
        while self.ports.contains_key(&(transport, port)) {
            port = if port == u16::MAX { 1_024 } else { port + 1 };
        }
        port
    }

    /// Delete a mapping, and remember that it was there.
    pub(super) fn delete_port(&mut self, key: PortKey) -> Option<Held> {
        let held = self.ports.remove(&key)?;
        self.deleted.push((held.internal, key));
        Some(held)
    }

    /// Delete every mapping that a host has by a protocol, in one transport.
    pub(super) fn delete_of(&mut self, by: MappingProtocol, transport: Transport, host: IpAddr) {
        let is_his = |key: &PortKey, held: &Held| {
            key.0 == transport && held.by == by && held.internal.ip() == host
        };
        let keys: Vec<PortKey> = self
            .ports
            .iter()
            .filter(|(key, held)| is_his(key, held))
            .map(|(key, _)| *key)
            .collect();
        for key in keys {
            self.delete_port(key);
        }
    }

    /// The pinhole of a number.
    pub(super) fn hole_of(&self, unique: u16) -> Option<HoleKey> {
        self.holes
            .iter()
            .find(|(_, held)| unique != 0 && held.unique == unique)
            .map(|(key, _)| *key)
    }
}
