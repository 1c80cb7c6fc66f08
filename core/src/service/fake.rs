//! What the rooms would say, for tests.

use super::{Caller, View};
use crate::{Action, Addr, CircuitAddr, Class, ConnId, Draw, Family, PeerId, Signer, StreamId};
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::IpAddr;

/// The same chance every time.
pub(super) struct Fixed(pub(super) u64);

impl Draw for Fixed {
    fn below(&mut self, n: u64) -> u64 {
        self.0.min(n.saturating_sub(1))
    }
    fn nonce(&mut self) -> u64 {
        self.0
    }
}

impl Signer for Fixed {
    fn sign(&mut self, _message: &[u8]) -> Vec<u8> {
        vec![]
    }
}

/// A view whose answers are simply set.
#[derive(Clone, Default)]
pub(super) struct World {
    pub(super) callers: BTreeMap<ConnId, Caller>,
    pub(super) listens: Vec<Addr>,
    pub(super) families: Vec<Family>,
    pub(super) heard: bool,
    pub(super) proven: Vec<Addr>,
    pub(super) circuits: Vec<CircuitAddr>,
    pub(super) pushable: Vec<ConnId>,
    pub(super) may_serve: bool,
    pub(super) revision: u64,
}

impl View for World {
    fn caller(&self, conn: ConnId) -> Option<Caller> {
        self.callers.get(&conn).copied()
    }
    fn listens_on(&self, addr: Addr) -> bool {
        self.listens.contains(&addr)
    }
    fn is_own_ip(&self, ip: IpAddr) -> bool {
        self.listens.iter().any(|addr| addr.ip == ip)
    }
    fn can_dial(&self, addr: Addr) -> bool {
        self.families.contains(&Family::of(addr.ip))
    }
    fn heard(&self, _class: Class) -> bool {
        self.heard
    }
    fn advertised(&self, _to: &Caller) -> Vec<Addr> {
        self.proven.clone()
    }
    fn proven(&self) -> Vec<Addr> {
        self.proven.clone()
    }
    fn circuits(&self) -> Vec<CircuitAddr> {
        self.circuits.clone()
    }
    fn direct(&self, peer: PeerId) -> Vec<ConnId> {
        let direct = |(_, caller): &(&ConnId, &Caller)| caller.peer == peer && !caller.relayed;
        let direct = self.callers.iter().filter(direct);
        let mut all: Vec<_> = direct.map(|(conn, caller)| (caller.rtt, *conn)).collect();
        all.sort();
        all.into_iter().map(|(_, conn)| conn).collect()
    }
    fn may_serve(&self) -> bool {
        self.may_serve
    }
    fn pushable(&self) -> Vec<ConnId> {
        self.pushable.clone()
    }
    fn revision(&self) -> u64 {
        self.revision
    }
}

/// The message that an action sends on a stream, if it does.
pub(super) fn sent_on(action: &Action, stream: StreamId) -> Option<&Bytes> {
    if let Action::Send { stream: on, body } = action {
        (*on == stream).then_some(body)
    } else {
        None
    }
}
